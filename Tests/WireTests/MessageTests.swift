// Startup, begin, commit, truncate and logical messages: their bytes, both ways, and what is refused.

import Testing
import Wire

@Suite struct MessageTests {
    // MARK: round trips

    @Test func startup() throws {
        let body = packed(
            .u16(1), .u16(3), .string("a"), .string("größe"), .string("raw"), .string(""), .string("a"), .string("2"))
        let value = StartupMessage(protocolVersion: 1, options: [("a", "größe"), ("raw", ""), ("a", "2")])
        #expect(try encoded { try value.encode(into: $0) } == message("S", body))
        let decoded = try withMemory(body) { try StartupMessage(decoding: $0) }
        #expect(decoded == value)
        // The first of several; and an empty value is one.
        #expect(decoded["a"] == "größe")
        #expect(decoded["raw"] == "")
        #expect(decoded["b"] == nil)
        #expect(decoded != StartupMessage(protocolVersion: 2, options: value.options))
        #expect(decoded != StartupMessage(protocolVersion: 1, options: value.options.dropLast()))
    }

    @Test func startupOfALaterVersion() throws {
        let decoded = try withMemory(packed(.u16(65_535), .u16(0), .u32(7))) { try StartupMessage(decoding: $0) }
        #expect(decoded == StartupMessage(protocolVersion: 65_535, options: []))
    }

    @Test(
        arguments: [
            (0x1_0000_0010, 765_432_100_000_000, 742, 3, 99), (0, 0, 0, 0, 0),
            (UInt64.max, Int64.min, UInt32.max, UInt32.max, UInt64.max), (1, Int64.max, 1, 1, 1),
        ] as [(UInt64, Int64, UInt32, UInt32, UInt64)])
    func begin(lsn: UInt64, time: Int64, xid: UInt32, node: UInt32, originLSN: UInt64) throws {
        let body = packed(.u64(lsn), .i64(time), .u32(xid), .u32(node), .u64(originLSN))
        let value = BeginMessage(commitLSN: lsn, commitTime: time, xid: xid, originNode: node, originLSN: originLSN)
        #expect(try encoded { try value.encode(into: $0) } == message("B", body))
        #expect(try withMemory(body) { try BeginMessage(decoding: $0) } == value)
    }

    @Test(
        arguments: [
            (0x1_0000_0010, 0x1_0000_0040, 765_432_100_000_000), (0, 0, 0), (UInt64.max, UInt64.max, Int64.min),
            (1, 2, Int64.max),
        ] as [(UInt64, UInt64, Int64)])
    func commit(lsn: UInt64, end: UInt64, time: Int64) throws {
        let body = packed(.u8(0), .u64(lsn), .u64(end), .i64(time))
        let value = CommitMessage(commitLSN: lsn, endLSN: end, commitTime: time)
        #expect(try encoded { try value.encode(into: $0) } == message("C", body))
        #expect(try withMemory(body) { try CommitMessage(decoding: $0) } == value)
    }

    @Test(arguments: [false, true], [false, true]) func truncate(cascade: Bool, restart: Bool) throws {
        for relIds in [[7], [1, UInt32.max, 1], Array(0..<1000)] as [[UInt32]] {
            let body =
                packed(.u8((cascade ? 1 : 0) | (restart ? 2 : 0)), .u32(UInt32(relIds.count)))
                + relIds.flatMap { Field.u32($0).packed }
            let value = TruncateMessage(cascade: cascade, restartIdentity: restart, relIds: relIds)
            #expect(try encoded { try value.encode(into: $0) } == message("T", body))
            #expect(try withMemory(body) { try TruncateMessage(decoding: $0) } == value)
        }
    }

    @Test func logical() throws {
        let body = packed(.u8(1), .u64(0x55), .string("größe"), .u32(4), .bytes([0, 255, 1, 2]))
        try withMemory(body) {
            let decoded = try LogicalMessage(decoding: $0)
            #expect(decoded.isTransactional)
            #expect(decoded.lsn == 0x55)
            #expect(decoded.prefix == "größe")
            #expect(decoded.content.elementsEqual([0, 255, 1, 2]))
            #expect($0.contains(decoded.content))
        }
        try withMemory(packed(.u8(0), .u64(0), .string(""), .u32(0))) {
            let decoded = try LogicalMessage(decoding: $0)
            #expect(!decoded.isTransactional)
            #expect(decoded.content.isEmpty)
        }
    }

    /// All of the samples, and fields that a later version added at the end.
    @Test(arguments: Samples.all) func samplesDecode(sample: SampleMessage) throws {
        try withMemory(sample.body) { try consume(sample.type, $0) }
        for extra in 1...9 {
            try withMemory(sample.body + [UInt8](repeating: 0xa5, count: extra)) { try consume(sample.type, $0) }
        }
    }

    /// Cut anywhere: the body alone, and the message with its header.
    @Test(arguments: Samples.all) func truncatedAnywhere(sample: SampleMessage) {
        for length in 0..<sample.body.count {
            let code = failure(Array(sample.body.prefix(length))) { try consume(sample.type, $0) }
            #expect(code == .truncated, "\(length) bytes of the body")
        }
        for length in 1..<sample.bytes.count {
            let code = failure(Array(sample.bytes.prefix(length))) { try consumeAll($0) }
            #expect(code == .truncated, "\(length) bytes of the message")
        }
    }

    // MARK: refused

    @Test(arguments: (1...7).map { UInt8(1) << $0 }) func unknownFlags(flag: UInt8) {
        let isKnownToTruncate = flag == 2
        #expect(
            failure(packed(.u8(flag), .u32(1), .u32(1))) { _ = try TruncateMessage(decoding: $0) }
                == (isKnownToTruncate ? nil : .unsupported))
        #expect(
            failure(packed(.u8(flag), .u64(1), .u64(1), .i64(1))) { _ = try CommitMessage(decoding: $0) }
                == .unsupported)
        #expect(
            failure(packed(.u8(flag | 1), .u64(1), .string(""), .u32(0))) { _ = try LogicalMessage(decoding: $0) }
                == .unsupported)
    }

    @Test func truncateOfNothing() {
        #expect(failure(packed(.u8(0), .u32(0))) { _ = try TruncateMessage(decoding: $0) } == .malformed)
    }

    /// Counts that no message holds: refused before memory is taken for them.
    @Test func impossibleCounts() {
        for count in [3, 1 << 30, UInt32.max] as [UInt32] {
            let body = packed(.u8(0), .u32(count), .u32(1), .u32(2))
            #expect(failure(body) { _ = try TruncateMessage(decoding: $0) } == .truncated)
        }
        let body = packed(.u16(1), .u16(65_535), .string("a"), .string("b"))
        #expect(failure(body) { _ = try StartupMessage(decoding: $0) } == .truncated)
        let logical = packed(.u8(0), .u64(0), .string("x"), .u32(UInt32.max), .u8(1))
        #expect(failure(logical) { _ = try LogicalMessage(decoding: $0) } == .truncated)
    }

    @Test func textThatIsNotUTF8() {
        let bad = Field.bytes([2, 0, 0xc3, 0x28])
        for body in [packed(.u16(1), .u16(1), bad, .string("x")), packed(.u16(1), .u16(1), .string("x"), bad)] {
            #expect(failure(body) { _ = try StartupMessage(decoding: $0) } == .malformed)
        }
        #expect(failure(packed(.u8(0), .u64(0), bad, .u32(0))) { _ = try LogicalMessage(decoding: $0) } == .malformed)
    }

    /// A message that doesn't fit leaves nothing behind.
    @Test func encodingBeyondTheLimit() throws {
        let column = RelationColumn(
            name: "a", typeNamespace: "s", typeName: "t", builtinType: 0, typmod: -1, attlen: -1, attalign: 0x69,
            isKey: false, isByValue: false)
        let messages: [any WireMessage] = [
            StartupMessage(protocolVersion: 1, options: [("key", "value")]),
            BeginMessage(commitLSN: 1, commitTime: 2, xid: 3, originNode: 4, originLSN: 5),
            CommitMessage(commitLSN: 1, endLSN: 2, commitTime: 3),
            RelationMessage(
                relId: 1, namespace: "n", name: "t", replicaIdentity: 0x64, rawPossible: false,
                columns: [column, column]),
            TruncateMessage(cascade: false, restartIdentity: false, relIds: [1, 2]),
        ]
        for value in messages {
            let size = try encoded { try value.encode(into: $0) }.count
            for limit in 1..<(1 + size) {
                let buffer = FrameBuffer(limit: limit)
                try buffer.append(9)
                let error = #expect(throws: WireError.self) { try value.encode(into: buffer) }
                #expect(error?.code == .limitExceeded)
                #expect(buffer.bytes.elementsEqual([9]))
            }
        }
    }

    @Test func encodingTooMuch() {
        let long = String(repeating: "x", count: 65_536)
        let buffer = FrameBuffer(limit: 1 << 24)
        for value in [
            StartupMessage(protocolVersion: 1, options: [("a", long)]),
            StartupMessage(protocolVersion: 1, options: [(long, "")]),
            StartupMessage(protocolVersion: 1, options: Array(repeating: ("", ""), count: 65_536)),
        ] {
            let error = #expect(throws: WireError.self) { try value.encode(into: buffer) }
            #expect(error?.code == .limitExceeded)
            #expect(buffer.count == 0)
        }
    }
}
