// Descriptions of tables.

import Testing
import Wire

@Suite struct RelationMessageTests {
    static func column(
        _ name: String, type: UInt32 = 0, attlen: Int16 = -1, attalign: Unicode.Scalar = "i", key: Bool = false,
        byValue: Bool = false
    ) -> RelationColumn {
        RelationColumn(
            name: name, typeNamespace: "pg_catalog", typeName: "some", builtinType: type, typmod: -1, attlen: attlen,
            attalign: UInt8(ascii: attalign), isKey: key, isByValue: byValue)
    }

    static func relation(_ columns: [RelationColumn], raw: Bool = false) -> RelationMessage {
        RelationMessage(
            relId: 1, namespace: "public", name: "t", replicaIdentity: UInt8(ascii: "d"), rawPossible: raw,
            columns: columns)
    }

    /// What becomes of a relation on the way.
    static func passed(_ relation: RelationMessage) throws -> RelationMessage {
        let bytes = try encoded(limit: 1 << 24) { try relation.encode(into: $0) }
        return try withMemory(bytes) {
            var cursor = MessageCursor($0)
            let (type, body) = try #require(try cursor.next())
            #expect(type == .relation)
            return try RelationMessage(decoding: body)
        }
    }

    @Test func roundTrip() throws {
        let id = RelationColumn(
            name: "id", typeNamespace: "pg_catalog", typeName: "int4", builtinType: 23, typmod: -1, attlen: 4,
            attalign: UInt8(ascii: "i"), isKey: true, isByValue: true)
        let geo = RelationColumn(
            name: "geo", typeNamespace: "app", typeName: "geometry", builtinType: 0, typmod: 7, attlen: -1,
            attalign: UInt8(ascii: "d"), isKey: false, isByValue: false)
        let value = RelationMessage(
            relId: 16_385, namespace: "public", name: "größen", replicaIdentity: UInt8(ascii: "d"), rawPossible: false,
            columns: [id, geo])
        #expect(try encoded { try value.encode(into: $0) } == message("R", Samples.relation))
        #expect(try withMemory(Samples.relation) { try RelationMessage(decoding: $0) } == value)
    }

    @Test(arguments: ["d", "n", "f", "i"] as [Unicode.Scalar]) func identities(identity: Unicode.Scalar) throws {
        var value = Self.relation([])
        value.replicaIdentity = UInt8(ascii: identity)
        #expect(try Self.passed(value) == value)
    }

    /// Any type: C strings, fixed lengths with every alignment, by value and by reference.
    @Test func layouts() throws {
        let value = Self.relation([
            Self.column("a", attlen: -2, attalign: "c"), Self.column("b", attlen: 64, attalign: "c"),
            Self.column("c", attlen: 1, attalign: "c", byValue: true), Self.column("d", attlen: 2, attalign: "s"),
            Self.column("e", attlen: 8, attalign: "d", byValue: true), Self.column("f", type: 114),
            Self.column("g", attlen: Int16.max, attalign: "i"), Self.column("h", type: 16_383),
        ])
        #expect(try Self.passed(value) == value)
    }

    @Test func mostColumnsAndLongestNames() throws {
        let columns = (0..<1600).map { Self.column("c\($0)" + String(repeating: "x", count: 63 - "c\($0)".utf8.count)) }
        var value = Self.relation(columns)
        value.name = "n" + String(repeating: "é", count: 31)
        #expect(try Self.passed(value) == value)
    }

    @Test func tooManyColumns() {
        let value = Self.relation((0...1600).map { Self.column("c\($0)") })
        let buffer = FrameBuffer(limit: 1 << 24)
        let error = #expect(throws: WireError.self) { try value.encode(into: buffer) }
        #expect(error?.code == .limitExceeded)
        #expect(buffer.count == 0)
        let body = packed(.u32(1), .string("s"), .string("t"), .char("d"), .u8(0), .u16(1601))
        #expect(failure(body) { _ = try RelationMessage(decoding: $0) } == .limitExceeded)
    }

    /// Equal for Swift's String, two columns for PostgreSQL.
    @Test func namesAreComparedByBytes() throws {
        let value = Self.relation([Self.column("\u{e9}"), Self.column("e\u{301}")])
        #expect(try Self.passed(value).columns.count == 2)
        #expect(throws: WireError.self) { try Self.passed(Self.relation([Self.column("a"), Self.column("a")])) }
    }

    @Test(arguments: [
        // Names.
        column(""), column(String(repeating: "x", count: 64)), column("a\0b"),
        // Lengths and alignments.
        column("a", attlen: 0), column("a", attlen: -3), column("a", attlen: Int16.min), column("a", attalign: "x"),
        column("a", attalign: "\0"),
        // By value only what fits into a word.
        column("a", attlen: 3, byValue: true), column("a", attlen: 16, byValue: true), column("a", byValue: true),
        column("a", attlen: -2, byValue: true),
        // Types that only one server has.
        column("a", type: 16_384), column("a", type: UInt32.max),
        // Built-in types, described otherwise than they are.
        column("a", type: 23, attlen: 8, attalign: "d", byValue: true), column("a", type: 23, attlen: 4),
        column("a", type: 23, attlen: 4, attalign: "s", byValue: true), column("a", type: 25, attalign: "d"),
        column("a", type: 25, attlen: 4), column("a", type: 2950, attlen: 16, attalign: "i"),
    ])
    func impossibleColumns(column: RelationColumn) throws {
        let error = try #require(throws: WireError.self) { try Self.passed(Self.relation([column])) }
        #expect(error.code == .malformed)
    }

    @Test func impossibleTables() throws {
        for change in [
            { $0.namespace = "" }, { $0.name = "" }, { $0.name = String(repeating: "é", count: 32) },
            { $0.namespace = "a\0" }, { $0.replicaIdentity = 0 }, { $0.replicaIdentity = UInt8(ascii: "x") },
            // Rows of it can't come raw.
            { $0.rawPossible = true },
        ] as [(inout RelationMessage) -> Void] {
            var value = Self.relation([Self.column("a", type: 114)])
            change(&value)
            let error = try #require(throws: WireError.self) { try Self.passed(value) }
            #expect(error.code == .malformed)
        }
    }

    @Test(arguments: (1...7).map { UInt8(1) << $0 }) func unknownFlags(flag: UInt8) {
        let body = packed(.u32(1), .string("s"), .string("t"), .char("d"), .u8(flag), .u16(0))
        #expect(failure(body) { _ = try RelationMessage(decoding: $0) } == .unsupported)
        guard flag > 2 else {
            return
        }
        let column = packed(
            .u32(1), .string("s"), .string("t"), .char("d"), .u8(0), .u16(1), .u8(flag), .string("a"), .string("b"),
            .string("c"), .u32(0), .i32(0), .i16(-1), .char("i"))
        #expect(failure(column) { _ = try RelationMessage(decoding: $0) } == .unsupported)
    }
}
