// Rows as PostgreSQL 15 wrote them to disk, on a little-endian machine: the user data area of heap tuples.

import Testing
import Wire

struct ServerRow: CustomTestStringConvertible, Sendable {
    var testDescription: String
    var layout: RawLayout?
    var columns: Int
    var bitmap: [UInt8] = []
    var hasVarWidth = true
    var data: [UInt8]
}

enum ServerRows {
    /// bool, bytea, "char", int8, int2, int4, text, oid, float4, float8, char(5), varchar(9), date, time, timestamp,
    /// timestamptz, interval, timetz, numeric, uuid.
    static let types: [UInt32] = [
        16, 17, 18, 20, 21, 23, 25, 26, 700, 701, 1042, 1043, 1082, 1083, 1114, 1184, 1186, 1266, 1700, 2950,
    ]

    /// A column that is described as the type is; nil for one that doesn't travel raw.
    static func column(_ type: UInt32, name: String = "c") -> RelationColumn? {
        RawType(oid: type).map {
            RelationColumn(
                name: name, typeNamespace: "pg_catalog", typeName: "type", builtinType: type, typmod: -1,
                attlen: $0.attlen, attalign: $0.attalign, isKey: false, isByValue: $0.isByValue)
        }
    }

    static func layout(_ types: [UInt32], isUTF8: Bool = true) -> RawLayout? {
        try? RawLayout(types.compactMap { Self.column($0) }, isUTF8: isUTF8)
    }

    private static func row(_ name: String, _ bitmap: [UInt8], hasVarWidth: Bool = true, _ digits: String) -> ServerRow
    {
        ServerRow(
            testDescription: name, layout: Self.layout(Self.types), columns: 20, bitmap: bitmap,
            hasVarWidth: hasVarWidth,
            data: hex(digits))
    }

    static let full = row(
        "all values", [],
        "010bdeadbeef7800feffffffffffffff2c010000701101000f68c3a96c6c6f0000286bee0000c03f00000000000002c0"
            + "0d6162202020116772c3b6c39f65000079220000000000000826e68b0a000000007c664183b50200007c664183b50200"
            + "00ecba83020000000200000001000000001cda8b0a000000e0e3ffff1381a1010029097c1a00112233445566778899aa"
            + "bbccddeeff")

    static let some = row(
        "some NULLs", [0b0101_0100, 0b0010_1010, 0b0000_0100],
        "7900010003000000000000000000f03f057600000000000000000000000000000700c0")

    /// bytea of 160 bytes and text of 130, with long headers.
    static let long = row(
        "long values", [0b0100_0010, 0, 0b0000_0100],
        "90020000" + String(repeating: "00ff", count: 80) + "18020000" + String(repeating: "78", count: 130) + "070080")

    static let onlyBool = row("one boolean", [0b0000_0001, 0, 0], hasVarWidth: false, "00")
    static let googol = row("1e100", [0, 0, 0b0000_0100], "0b19800100")
    static let minusInfinity = row("-Infinity", [0, 0, 0b0000_0100], "0700f0")
    static let small = row("0.0000001", [0, 0, 0b0000_0100], "0bfe830a00")

    /// (int4, text, numeric), the text of 3000 characters compressed to 40 bytes.
    static let compressed = ServerRow(
        testDescription: "compressed", layout: layout([23, 25, 1700]), columns: 3,
        data: hex(
            "01000000b2000000b80b0000fe610f01ff0f01ff0f01ff0f01ff0f01ff0f01ff0f01ff0f0f01ff0f01ff0f01ff0f01fb"
                + "0b00800500"))

    static let all = [full, some, long, onlyBool, googol, minusInfinity, small, compressed]

    /// Like `compressed`, with a text that is stored in the TOAST table.
    static let external = hex("020000000112041900000019000035400000334000000b00800500")
}
