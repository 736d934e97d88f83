// The content of DDL messages: both ways, and hostile bytes.

import Testing
import Wire

@Suite struct DdlMessageTests {
    static let sample = DdlMessage(
        tag: Array("CREATE TABLE".utf8), role: Array("näme".utf8), sessionRole: Array("other".utf8),
        statement: Array("CREATE TABLE t (a int)".utf8), server: Array("1/host/data".utf8),
        settings: [
            .init(name: Array("search_path".utf8), value: []), .init(name: Array("TimeZone".utf8), value: Array("UTC".utf8)),
        ],
        replicationSets: [Array("one".utf8), Array("two".utf8)], isOfServer: true)

    static func field(_ kind: UInt8, _ text: String) -> [UInt8] {
        packed(.u8(kind), .u32(UInt32(text.utf8.count)), .bytes(Array(text.utf8)))
    }

    static let smallest = packed(.u8(1), .u8(0)) + field(129, "role") + field(130, "text")

    @Test func roundTrip() throws {
        let bytes = try Self.sample.encoded()
        #expect(try withMemory(bytes) { try DdlMessage(decoding: $0) } == Self.sample)
        let decoded = try withMemory(Self.smallest) { try DdlMessage(decoding: $0) }
        #expect(decoded.role == Array("role".utf8))
        #expect(decoded.statement == Array("text".utf8))
        #expect(decoded.settings.isEmpty && decoded.replicationSets.isEmpty && !decoded.isOfServer)
    }

    @Test func bytesNeedNotBeUTF8() throws {
        var value = Self.sample
        value.statement = [0x53, 0xff, 0xe4]
        let bytes = try value.encoded()
        #expect(try withMemory(bytes) { try DdlMessage(decoding: $0) } == value)
    }

    @Test func fieldsOfLaterVersions() throws {
        let optional = Self.smallest + Self.field(100, "new")
        #expect(try withMemory(optional) { try DdlMessage(decoding: $0) }.statement == Array("text".utf8))
        for refused in [
            Self.smallest + Self.field(200, "new"), packed(.u8(2)) + Self.smallest.dropFirst(),
            packed(.u8(1), .u8(2)) + Self.smallest.dropFirst(2),
        ] {
            let error = #expect(throws: WireError.self) { try withMemory(refused) { try DdlMessage(decoding: $0) } }
            #expect(error?.code == .unsupported)
        }
    }

    @Test func whatIsMissingOrMalformed() throws {
        for refused in [
            [], packed(.u8(1)), packed(.u8(1), .u8(0)), packed(.u8(1), .u8(0)) + Self.field(129, "role"),
            packed(.u8(1), .u8(0)) + Self.field(130, "text"), Self.smallest + [1],
            Self.smallest + packed(.u8(1), .u32(UInt32.max)), Self.smallest + packed(.u8(131), .u32(2), .u16(9)),
            Self.smallest + packed(.u8(131), .u32(1), .u8(0)),
            Self.smallest + packed(.u8(130), .u32(3), .bytes([65, 0, 66])),
        ] as [[UInt8]] {
            #expect(throws: WireError.self) { try withMemory(refused) { try DdlMessage(decoding: $0) } }
        }
    }

    /// Cut anywhere, and changed anywhere, it is read or refused.
    @Test func hostileBytes() throws {
        let bytes = try Self.sample.encoded()
        for length in 0..<bytes.count {
            _ = try? withMemory(Array(bytes.prefix(length))) { try DdlMessage(decoding: $0) }
        }
        for position in bytes.indices {
            for value in [0, 1, 0x7f, 0x80, 0xff] as [UInt8] {
                var changed = bytes
                changed[position] = value
                _ = try? withMemory(changed) { try DdlMessage(decoding: $0) }
            }
        }
    }
}
