// Raw rows: what the server wrote is accepted, and nothing else.

import TestSupport
import Testing

@testable import Wire

@Suite struct RawLayoutTests {
    /// Validates a row of columns of these types.
    static func validate(
        _ types: [UInt32], _ data: [UInt8], nulls bitmap: [UInt8]? = nil, hasVarWidth: Bool = true, isUTF8: Bool = true
    ) throws -> RawCheck {
        let layout = try #require(ServerRows.layout(types, isUTF8: isUTF8))
        return try withMemory(data) { data in
            try withMemory(bitmap ?? []) { bitmap in
                try layout.validate(
                    .raw(
                        attributeCount: types.count, hasNulls: !bitmap.isEmpty, hasVarWidth: hasVarWidth,
                        bitmap: bitmap,
                        data: data))
            }
        }
    }

    /// The code of the error; nil when the row is valid.
    static func failureOf(
        _ types: [UInt32], _ data: [UInt8], nulls: [UInt8]? = nil, hasVarWidth: Bool = true, isUTF8: Bool = true
    ) -> WireError.Code? {
        failure([]) { _ in
            _ = try Self.validate(types, data, nulls: nulls, hasVarWidth: hasVarWidth, isUTF8: isUTF8)
        }
    }

    // MARK: what the server wrote

    static func tuple(
        _ row: ServerRow, data: [UInt8], _ body: (TupleView) throws -> Void
    ) throws {
        try withMemory(data) { data in
            try withMemory(row.bitmap) { bitmap in
                try body(
                    .raw(
                        attributeCount: row.columns, hasNulls: !bitmap.isEmpty, hasVarWidth: row.hasVarWidth,
                        bitmap: bitmap, data: data))
            }
        }
    }

    @Test(arguments: ServerRows.all) func serverRows(row: ServerRow) throws {
        let layout = try #require(row.layout)
        try Self.tuple(row, data: row.data) {
            let check = try layout.validate($0)
            #expect(check == RawCheck(needsDeepCheck: row.testDescription == "compressed"))
        }
    }

    /// Neither one byte less nor one more.
    @Test(arguments: ServerRows.all) func serverRowsToTheByte(row: ServerRow) throws {
        let layout = try #require(row.layout)
        for length in 0..<row.data.count {
            try Self.tuple(row, data: Array(row.data.prefix(length))) { tuple in
                let error = #expect(throws: WireError.self, "\(length) bytes") { try layout.validate(tuple) }
                #expect(error?.code == .truncated)
            }
        }
        for extra in [1, 7, 8] {
            try Self.tuple(row, data: row.data + [UInt8](repeating: 0, count: extra)) { tuple in
                let error = #expect(throws: WireError.self) { try layout.validate(tuple) }
                #expect(error?.code == .malformed)
            }
        }
    }

    /// The values of a row, as text.
    static func values(_ row: ServerRow) throws -> [String] {
        let layout = try #require(row.layout)
        var values: [String] = []
        try Self.tuple(row, data: row.data) { tuple in
            _ = try layout.validate(tuple)
            for number in 0..<row.columns {
                switch try layout.attribute(number, of: tuple) {
                case .null: values.append("NULL")
                case .compressed: values.append("compressed")
                case .value(let bytes):
                    values.append(ValueText.describeRaw(builtinType: ServerRows.types[number], bytes: bytes))
                }
            }
        }
        return values
    }

    @Test func attributes() throws {
        #expect(
            try Self.values(ServerRows.full) == [
                "t", "\\xdeadbeef", "x", "-2", "300", "70000", "héllo", "4000000000", "\\x0000c03f",
                "\\x00000000000002c0", "ab   ", "größe", "\\x79220000", "\\x0826e68b0a000000", "\\x007c664183b50200",
                "\\x007c664183b50200", "\\x00ecba83020000000200000001000000", "\\x001cda8b0a000000e0e3ffff",
                "\\x81a1010029097c1a", "00112233-4455-6677-8899-aabbccddeeff",
            ])
        #expect(
            try Self.values(ServerRows.some) == [
                "NULL", "NULL", "y", "NULL", "1", "NULL", "", "NULL", "NULL", "\\x000000000000f03f", "NULL", "v",
                "NULL",
                "\\x0000000000000000", "NULL", "NULL", "NULL", "NULL", "\\x00c0", "NULL",
            ])
    }

    @Test func attributeNumbersThatAreNone() throws {
        let row = ServerRows.compressed
        let layout = try #require(row.layout)
        try Self.tuple(row, data: row.data) { tuple in
            guard case .compressed = try layout.attribute(1, of: tuple),
                case .value(let last) = try layout.attribute(2, of: tuple)
            else {
                Issue.record("not the values that were stored")
                return
            }
            #expect(last.elementsEqual([0, 0x80, 5, 0]))
            for number in [-1, 3, Int.min, Int.max] {
                #expect(throws: WireError.self) { try layout.attribute(number, of: tuple) }
            }
        }
    }

    @Test func externalValuesAreRefused() {
        #expect(Self.failureOf([23, 25, 1700], ServerRows.external) == .malformed)
        #expect(Self.failureOf([17], hex("01120419000000190000354000003340000000")) == .malformed)
        // Indirect and expanded ones point into memory.
        for tag in 0...255 as ClosedRange<UInt8> {
            #expect(Self.failureOf([25], [0x01, tag] + [UInt8](repeating: 0x40, count: 16)) == .malformed)
        }
        #expect(Self.failureOf([25], [0x01]) == .malformed)
    }

    // MARK: fixed lengths

    static let fixed: [(type: UInt32, length: Int, align: Int)] = [
        (16, 1, 1), (18, 1, 1), (20, 8, 8), (21, 2, 2), (23, 4, 4), (26, 4, 4), (700, 4, 4), (701, 8, 8), (1082, 4, 4),
        (1083, 8, 8), (1114, 8, 8), (1184, 8, 8), (1186, 16, 8), (1266, 12, 8), (2950, 16, 1),
    ]

    /// Alone, and behind one byte that it has to be aligned after.
    @Test(arguments: fixed) func fixedLength(type: UInt32, length: Int, align: Int) {
        let value = [UInt8](repeating: 1, count: length)
        let padding = [UInt8](repeating: 0, count: align - 1)
        for hasVarWidth in [false, true] {
            #expect(Self.failureOf([type], value, hasVarWidth: hasVarWidth) == nil)
            #expect(Self.failureOf([18, type], [7] + padding + value, hasVarWidth: hasVarWidth) == nil)
        }
        for wrong in 0..<length {
            #expect(Self.failureOf([type], Array(value.prefix(wrong))) == .truncated)
        }
        #expect(Self.failureOf([type], value + [0]) == .malformed)
        #expect(Self.failureOf([18, type], [7] + padding + value + [0]) == .malformed)
        if align > 1 {
            // Not aligned: what is missing for it is missing at the end.
            #expect(Self.failureOf([18, type], [7] + value) == .truncated)
            #expect(Self.failureOf([18, type], [7] + padding.dropLast() + value) == .truncated)
        }
        #expect(Self.failureOf([type], [], nulls: [0]) == nil)
    }

    @Test(arguments: [(0, nil), (1, nil), (2, .malformed), (255, .malformed)] as [(UInt8, WireError.Code?)])
    func booleans(byte: UInt8, code: WireError.Code?) {
        #expect(Self.failureOf([16], [byte]) == code)
        // "char" may be anything.
        #expect(Self.failureOf([18], [byte]) == nil)
    }

    // MARK: variable lengths

    @Test func shortHeaders() {
        for length in 0...126 {
            let value = [UInt8(truncatingIfNeeded: (length + 1) << 1 | 1)] + [UInt8](repeating: 0x61, count: length)
            #expect(Self.failureOf([25], value) == nil)
            // Not aligned, at any address.
            #expect(Self.failureOf([18, 25, 18], [7] + value + [8]) == nil)
            #expect(Self.failureOf([25], value.dropLast()) == .truncated)
            #expect(Self.failureOf([25], value + [0x61]) == .malformed)
        }
    }

    static func long(_ payload: [UInt8], bits: UInt32 = 0, length: Int? = nil) -> [UInt8] {
        packed(.u32(UInt32(length ?? payload.count + 4) << 2 | bits), .bytes(payload))
    }

    /// 60 and 124 bytes give a header whose first byte is 0, like padding.
    @Test(arguments: [0, 1, 12, 59, 60, 61, 123, 124, 125, 127, 1000, 16_380]) func longHeaders(length: Int) {
        let value = Self.long([UInt8](repeating: 0x61, count: length))
        #expect(Self.failureOf([25], value) == nil)
        #expect(Self.failureOf([18, 25], [7, 0, 0, 0] + value) == nil)
        #expect(Self.failureOf([23, 25, 18], [1, 0, 0, 0] + value + [7]) == nil)
        #expect(Self.failureOf([25], value.dropLast()) == .truncated)
        #expect(Self.failureOf([25], value + [0]) == .malformed)
    }

    @Test func misalignedLongHeader() {
        // The server would read a header where it isn't aligned if no zero byte is before it.
        for skew in 1...3 {
            let value = Self.long([0x61])
            #expect(
                Self.failureOf([UInt32](repeating: 18, count: skew) + [25], [UInt8](repeating: 7, count: skew) + value)
                    == .malformed)
        }
    }

    @Test func paddingBeforeTheEnd() {
        #expect(Self.failureOf([18, 25], [7, 0]) == .truncated)
        #expect(Self.failureOf([18, 25], [7, 0, 0, 0]) == .truncated)
        #expect(Self.failureOf([18, 25], [7, 0, 0, 0, 0x10]) == .truncated)
        #expect(Self.failureOf([18, 25], [7]) == .truncated)
        // A short header behind padding, as the server reads it too.
        #expect(Self.failureOf([18, 25], [7, 0, 0, 0, 0x05, 0x61]) == nil)
    }

    @Test func impossibleLengths() {
        for length in 0..<4 {
            #expect(Self.failureOf([25], Self.long([0x61, 0x62, 0x63, 0x64], length: length)) == .malformed)
        }
        for length in [9, 1000, 0x3fff_ffff] {
            #expect(Self.failureOf([25], Self.long([0x61, 0x62, 0x63, 0x64], length: length)) == .truncated)
        }
        #expect(Self.failureOf([25], [0xff, 0x61]) == .truncated)
        // Shorter than what is there: the rest is too much.
        #expect(Self.failureOf([25], Self.long([0x61, 0x62, 0x63, 0x64], length: 7)) == .malformed)
    }

    @Test func valuesOfVariableLengthAgainstTheFlag() {
        #expect(Self.failureOf([25], [0x05, 0x61], hasVarWidth: false) == .malformed)
        #expect(Self.failureOf([25, 23], [1, 0, 0, 0], nulls: [0b10], hasVarWidth: false) == nil)
    }

    // MARK: compressed

    @Test(arguments: [17, 25, 1042, 1043, 1700] as [UInt32]) func compressedIsFlagged(type: UInt32) throws {
        // What is inside can't be seen: not even wrong bytes.
        let value = Self.long(packed(.u32(3000), .bytes([0xff, 0, 1])), bits: 2)
        #expect(try Self.validate([type], value).needsDeepCheck)
        #expect(try Self.validate([type, 18], value + [7]).needsDeepCheck)
        #expect(try Self.validate([type, 25], value + [0x05] + [0x61]).needsDeepCheck)
        #expect(Self.failureOf([type], value.dropLast()) == .truncated)
        #expect(Self.failureOf([type], value + [0]) == .malformed)
        #expect(Self.failureOf([18, type], [7] + value) == .malformed)
    }

    /// Less than header and original length.
    @Test(arguments: 0..<8) func compressedTooShort(length: Int) {
        let payload = [UInt8](repeating: 0, count: max(0, length - 4))
        #expect(Self.failureOf([25], Self.long(payload, bits: 2, length: length)) == .malformed)
    }

    @Test func uncompressedIsNotFlagged() throws {
        #expect(try !Self.validate([25, 17], [0x05, 0x61, 0x05, 0xff]).needsDeepCheck)
        #expect(try !Self.validate([25], [], nulls: [0]).needsDeepCheck)
    }

    // MARK: content

    @Test(arguments: [25, 1042, 1043] as [UInt32]) func texts(type: UInt32) {
        func short(_ payload: [UInt8]) -> [UInt8] { [UInt8((payload.count + 1) << 1 | 1)] + payload }
        for text in ["", "a", "größe", "数据库 🙂", String(repeating: "x", count: 100)] {
            #expect(Self.failureOf([type], short(Array(text.utf8))) == nil)
            #expect(Self.failureOf([type], Self.long(Array(text.utf8))) == nil)
        }
        for bytes in [[0xff], [0xc3], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0x61, 0xe2, 0x82]] as [[UInt8]] {
            for value in [short(bytes), Self.long(bytes), Self.long([UInt8](repeating: 0x61, count: 300) + bytes)] {
                #expect(Self.failureOf([type], value) == .malformed)
                // In an SQL_ASCII database it is a text.
                #expect(Self.failureOf([type], value, isUTF8: false) == nil)
                #expect(Self.failureOf([17], value) == nil)
            }
        }
        for bytes in [[0], [0x61, 0, 0x62]] as [[UInt8]] {
            #expect(Self.failureOf([type], short(bytes)) == .malformed)
            #expect(Self.failureOf([type], short(bytes), isUTF8: false) == .malformed)
            #expect(Self.failureOf([17], short(bytes)) == nil)
        }
    }

    @Test(
        arguments: [
            // Short form: weight and scale in the header, then digits.
            ([0x00, 0x80], true), ([0x00, 0x80, 0x0f, 0x27], true), ([0x7f, 0x9f, 0, 0, 0x0f, 0x27], true),
            ([0x00, 0x80, 0x10, 0x27], false), ([0x00, 0x80, 0xff, 0xff], false), ([0x00, 0x80, 0, 0x80], false),
            ([0x00, 0x80, 1, 0, 0x10, 0x27], false), ([0x00, 0x80, 1], false),
            // Long form: two bytes more of header.
            ([0x00, 0x00, 0, 0], true), ([0x00, 0x40, 5, 0, 0x0f, 0x27], true), ([0x00, 0x00], false),
            ([0x00, 0x00, 0], false), ([0x00, 0x00, 0, 0, 1], false), ([0x00, 0x40, 5, 0, 0x10, 0x27], false),
            // NaN and the infinities are a header alone.
            ([0x00, 0xc0], true), ([0x00, 0xd0], true), ([0x00, 0xf0], true), ([0x00, 0xe0], false),
            ([0x01, 0xc0], false),
            ([0x00, 0xc0, 0, 0], false), ([0xff, 0xff], false),
            ([], false), ([0x80], false),
        ] as [([UInt8], Bool)])
    func numerics(payload: [UInt8], isValid: Bool) {
        let code: WireError.Code? = isValid ? nil : .malformed
        #expect(Self.failureOf([1700], [UInt8((payload.count + 1) << 1 | 1)] + payload) == code)
        #expect(Self.failureOf([1700], Self.long(payload)) == code)
    }

    // MARK: the frame

    @Test func otherNumbersOfAttributes() throws {
        let layout = try #require(ServerRows.layout([18, 18]))
        let none = UnsafeRawBufferPointer(start: nil, count: 0)
        for count in [-1, 0, 1, 3, Int.max] {
            withMemory([1, 2]) { data in
                let tuple = TupleView.raw(
                    attributeCount: count, hasNulls: false, hasVarWidth: false, bitmap: none, data: data)
                #expect(throws: WireError.self) { try layout.validate(tuple) }
                #expect(throws: WireError.self) { try layout.attribute(0, of: tuple) }
            }
        }
    }

    @Test func noColumns() {
        #expect(Self.failureOf([], []) == nil)
        #expect(Self.failureOf([], [0]) == .malformed)
    }

    @Test func tupleInColumns() throws {
        let layout = try #require(ServerRows.layout([23]))
        try withMemory(packed(.u32(1), .bytes(Samples.columnsTuple))) {
            let tuple = try InsertMessage(decoding: $0).tuple
            #expect(throws: WireError.self) { try layout.validate(tuple) }
            #expect(throws: WireError.self) { try layout.attribute(0, of: tuple) }
        }
    }

    /// Only a view that no message decoded to can lack a part of it.
    @Test func bitmapTooShort() throws {
        let layout = try #require(ServerRows.layout([UInt32](repeating: 18, count: 9)))
        withMemory([1, 2]) { bytes in
            for size in [0, 1] {
                let bitmap = UnsafeRawBufferPointer(rebasing: bytes[..<size])
                let tuple = TupleView.raw(
                    attributeCount: 9, hasNulls: true, hasVarWidth: false, bitmap: bitmap, data: bytes)
                #expect(throws: WireError.self) { try layout.validate(tuple) }
                #expect(throws: WireError.self) { try layout.attribute(0, of: tuple) }
            }
        }
    }

    @Test func nullsTakeNoPlace() {
        // Every combination of nine columns.
        let types = [UInt32](repeating: 21, count: 9)
        for present in 0..<512 {
            let bitmap = [UInt8(present & 0xff), UInt8(present >> 8) | 0xfe]
            let data = [UInt8](repeating: 1, count: 2 * present.nonzeroBitCount)
            #expect(Self.failureOf(types, data, nulls: bitmap) == nil)
            #expect(Self.failureOf(types, data + [1, 1], nulls: bitmap) == .malformed)
        }
    }

    @Test func otherTypesHaveNoLayout() {
        for type: UInt32 in [0, 19, 114, 600, 1560, 2275, 3802, 16_384] {
            let column = RelationColumn(
                name: "c", typeNamespace: "s", typeName: "t", builtinType: type, typmod: -1, attlen: -1, attalign: 0x69,
                isKey: false, isByValue: false)
            #expect(throws: WireError.self) { try RawLayout([column]) }
            #expect(!RawLayout.isRawSafe(builtinType: type))
        }
    }

    // MARK: rows by chance

    /// Puts rows together as the server does, and finds every value again.
    @Test func rowsByChance() throws {
        var random = SplitMix64(seed: 77)
        func below(_ bound: Int) -> Int { Int(random.next() % UInt64(bound)) }
        for _ in 0..<1500 {
            var types: [UInt32] = []
            var values: [[UInt8]?] = []
            var data: [UInt8] = []
            var bitmap: [UInt8] = []
            var hasVarWidth = false
            func pad(_ align: Int) {
                while data.count % align != 0 {
                    data.append(0)
                }
            }
            for number in 0..<(1 + below(20)) {
                let type = ServerRows.types[below(ServerRows.types.count)]
                types.append(type)
                if number % 8 == 0 {
                    bitmap.append(0)
                }
                guard below(4) > 0 else {
                    values.append(nil)
                    continue
                }
                bitmap[number / 8] |= 1 << UInt8(number % 8)
                if let (_, length, align) = Self.fixed.first(where: { $0.type == type }) {
                    let value = (0..<length).map { _ in type == 16 ? 1 : UInt8(truncatingIfNeeded: random.next()) }
                    pad(align)
                    data += value
                    values.append(value)
                } else {
                    hasVarWidth = true
                    let length = below(2) == 0 ? below(20) : below(400)
                    let value =
                        type == 1700
                        ? [0, 0x80] + [UInt8](repeating: 7, count: length / 2 * 2)
                        : [UInt8](repeating: 0x61, count: length)
                    if value.count < 127 && below(4) > 0 {
                        data += [UInt8((value.count + 1) << 1 | 1)] + value
                    } else {
                        pad(4)
                        data += Self.long(value)
                    }
                    values.append(value)
                }
            }
            let layout = try #require(ServerRows.layout(types))
            let hasNulls = values.contains(nil)
            try withMemory(data) { data in
                try withMemory(hasNulls ? bitmap : []) { bitmap in
                    let tuple = TupleView.raw(
                        attributeCount: types.count, hasNulls: hasNulls, hasVarWidth: hasVarWidth, bitmap: bitmap,
                        data: data)
                    #expect(try layout.validate(tuple) == RawCheck(needsDeepCheck: false))
                    for (number, value) in values.enumerated() {
                        switch try layout.attribute(number, of: tuple) {
                        case .null: #expect(value == nil)
                        case .value(let bytes): #expect(value?.elementsEqual(bytes) == true)
                        case .compressed: Issue.record("nothing was compressed")
                        }
                    }
                }
            }
        }
    }
}

@Suite struct RawTypeTests {
    /// pg_type of PostgreSQL 15: oid, typlen, typalign, typbyval.
    static let catalog: [(UInt32, Int16, Unicode.Scalar, Bool)] = [
        (16, 1, "c", true), (17, -1, "i", false), (18, 1, "c", true), (20, 8, "d", true), (21, 2, "s", true),
        (23, 4, "i", true), (25, -1, "i", false), (26, 4, "i", true), (700, 4, "i", true), (701, 8, "d", true),
        (1042, -1, "i", false), (1043, -1, "i", false), (1082, 4, "i", true), (1083, 8, "d", true),
        (1114, 8, "d", true), (1184, 8, "d", true), (1186, 16, "d", false), (1266, 12, "d", false),
        (1700, -1, "i", false), (2950, 16, "c", false),
    ]

    @Test(arguments: catalog) func isAsInTheCatalog(oid: UInt32, attlen: Int16, attalign: Unicode.Scalar, byValue: Bool)
        throws
    {
        let type = try #require(RawType(oid: oid))
        #expect(type.attlen == attlen)
        #expect(type.attalign == UInt8(ascii: attalign))
        #expect(type.isByValue == byValue)
        let alignments: [Unicode.Scalar: Int] = ["c": 1, "s": 2, "i": 4, "d": 8]
        #expect(type.alignment == alignments[attalign])
        #expect(RawLayout.isRawSafe(builtinType: oid))
    }

    @Test func noOtherTypes() {
        let known = Set(Self.catalog.map(\.0))
        for oid in 0...20_000 as ClosedRange<UInt32> where !known.contains(oid) && RawType(oid: oid) != nil {
            Issue.record("\(oid)")
        }
        #expect(RawType(oid: UInt32.max) == nil)
    }
}
