// PostgreSQL's own messages around the frames.

import Testing
import Wire

@Suite struct ReplicationMessageTests {
    @Test func xlogData() throws {
        let bytes = packed(
            .char("w"), .u64BE(0x1_0000_0010), .u64BE(UInt64.max), .u64BE(UInt64(bitPattern: -2)), .bytes([1, 2]))
        try withMemory(bytes) {
            guard case .xlogData(let start, let end, let time, let payload) = try ReplicationMessage(decoding: $0)
            else {
                Issue.record("not data")
                return
            }
            #expect(start == 0x1_0000_0010)
            #expect(end == UInt64.max)
            #expect(time == -2)
            #expect(payload.elementsEqual([1, 2]))
            #expect($0.contains(payload))
        }
    }

    @Test func emptyPayload() throws {
        try withMemory(packed(.char("w"), .u64BE(1), .u64BE(2), .u64BE(3))) {
            guard case .xlogData(1, 2, 3, let payload) = try ReplicationMessage(decoding: $0) else {
                Issue.record("not data")
                return
            }
            #expect(payload.isEmpty)
        }
    }

    @Test(arguments: [(0, false), (1, true), (255, true)] as [(UInt8, Bool)]) func keepalive(byte: UInt8, reply: Bool)
        throws
    {
        // What a later server adds is ignored.
        for extra in [[], [9, 9]] as [[UInt8]] {
            try withMemory(packed(.char("k"), .u64BE(77), .u64BE(UInt64(bitPattern: Int64.min)), .u8(byte)) + extra) {
                guard case .keepalive(77, Int64.min, reply) = try ReplicationMessage(decoding: $0) else {
                    Issue.record("not the keepalive")
                    return
                }
            }
        }
    }

    @Test func truncated() {
        for (type, size) in [("w", 25), ("k", 18)] as [(Unicode.Scalar, Int)] {
            for count in 0..<size {
                let bytes = (count > 0 ? Field.char(type).packed : []) + [UInt8](repeating: 1, count: max(0, count - 1))
                #expect(failure(bytes) { _ = try ReplicationMessage(decoding: $0) } == .truncated)
            }
        }
    }

    @Test(arguments: ["W", "r", "h", "s", "p", "\0"] as [Unicode.Scalar]) func unknown(type: Unicode.Scalar) {
        let bytes = Field.char(type).packed + [UInt8](repeating: 0, count: 40)
        #expect(failure(bytes) { _ = try ReplicationMessage(decoding: $0) } == .unsupported)
    }

    @Test(arguments: [false, true]) func status(reply: Bool) throws {
        let bytes = try encoded {
            try StandbyStatus.encode(
                written: 0x0102_0304_0506_0708, flushed: UInt64.max, applied: 3, sendTime: -1, replyRequested: reply,
                into: $0)
        }
        #expect(
            bytes
                == packed(
                    .char("r"), .bytes([1, 2, 3, 4, 5, 6, 7, 8]), .u64BE(UInt64.max), .u64BE(3), .u64BE(UInt64.max),
                    .u8(reply ? 1 : 0)))
        #expect(bytes.count == 34)
    }
}
