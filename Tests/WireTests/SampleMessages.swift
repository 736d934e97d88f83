// Valid messages of every type, written down byte by byte.

import Testing
import Wire

struct SampleMessage: CustomTestStringConvertible, Sendable {
    var type: MessageType
    var body: [UInt8]

    /// With its header.
    var bytes: [UInt8] { message(Unicode.Scalar(self.type.rawValue), self.body) }

    var testDescription: String { "\(self.type), \(self.body.count) bytes" }
}

enum Samples {
    static let columnsTuple = packed(
        .char("C"), .u16(4), .char("n"), .char("t"), .u32(3), .bytes(Array("abc".utf8)), .u8(0), .char("b"), .u32(4),
        .bytes([0, 0, 1, 2]), .u8(0), .char("t"), .u32(0), .u8(0))

    static let unchangedTuple = packed(
        .char("C"), .u16(2), .char("u"), .char("t"), .u32(1), .char("x"), .u8(0))

    /// (int4, text, bool, numeric), the text in a short varlena, the number 5.
    static let rawTuple = packed(
        .char("W"), .u16(4), .u8(2), .u32(17), .i32(70_000), .u8(0x0f), .bytes(Array("größ".utf8)), .u8(1),
        .bytes([0x0b, 0, 0x80, 5, 0]))

    /// The same columns, of which the second and fourth are NULL.
    static let rawTupleWithNulls = packed(
        .char("W"), .u16(4), .u8(1), .u32(5), .u8(0b0101), .i32(-1), .u8(0))

    static let relation = packed(
        .u32(16_385), .string("public"), .string("größen"), .char("d"), .u8(0), .u16(2), .u8(3), .string("id"),
        .string("pg_catalog"), .string("int4"), .u32(23), .i32(-1), .i16(4), .char("i"), .u8(0), .string("geo"),
        .string("app"), .string("geometry"), .u32(0), .i32(7), .i16(-1), .char("d"))

    static let rawRelation = packed(
        .u32(16_386), .string("s"), .string("r"), .char("f"), .u8(1), .u16(4),
        .u8(3), .string("a"), .string("pg_catalog"), .string("int4"), .u32(23), .i32(-1), .i16(4), .char("i"),
        .u8(0), .string("b"), .string("pg_catalog"), .string("text"), .u32(25), .i32(-1), .i16(-1), .char("i"),
        .u8(2), .string("c"), .string("pg_catalog"), .string("bool"), .u32(16), .i32(-1), .i16(1), .char("c"),
        .u8(0), .string("d"), .string("pg_catalog"), .string("numeric"), .u32(1700), .i32(-1), .i16(-1), .char("i"))

    static let all: [SampleMessage] = [
        SampleMessage(type: .startup, body: packed(.u16(1), .u16(0))),
        SampleMessage(
            type: .startup,
            body: packed(.u16(1), .u16(2), .string("node_name"), .string("node1"), .string("raw"), .string(""))),
        SampleMessage(
            type: .begin, body: packed(.u64(0x1_0000_0010), .i64(765_432_100_000_000), .u32(742), .u32(3), .u64(99))),
        SampleMessage(type: .streamStart, body: packed(.u32(743))),
        SampleMessage(type: .subtransaction, body: packed(.u32(744))),
        SampleMessage(type: .streamStop, body: []),
        SampleMessage(type: .streamAbort, body: packed(.u32(743), .u32(744))),
        SampleMessage(type: .streamCommit, body: packed(.u32(743), .u64(0x1_0000_0010), .u64(0x1_0000_0040), .i64(-5))),
        SampleMessage(type: .commit, body: packed(.u8(0), .u64(0x1_0000_0010), .u64(0x1_0000_0040), .i64(-5))),
        SampleMessage(type: .relation, body: relation),
        SampleMessage(type: .relation, body: rawRelation),
        SampleMessage(type: .relation, body: packed(.u32(1), .string("s"), .string("t"), .char("n"), .u8(1), .u16(0))),
        SampleMessage(type: .insert, body: packed(.u32(16_385), .bytes(columnsTuple))),
        SampleMessage(type: .insert, body: packed(.u32(16_386), .bytes(rawTuple))),
        SampleMessage(type: .insert, body: packed(.u32(16_386), .bytes(rawTupleWithNulls))),
        SampleMessage(type: .update, body: packed(.u32(16_385), .char("N"), .bytes(unchangedTuple))),
        SampleMessage(
            type: .update, body: packed(.u32(16_385), .char("K"), .bytes(columnsTuple), .bytes(unchangedTuple))),
        SampleMessage(
            type: .update, body: packed(.u32(16_386), .char("O"), .bytes(rawTuple), .bytes(rawTupleWithNulls))),
        SampleMessage(type: .delete, body: packed(.u32(16_385), .char("K"), .bytes(columnsTuple))),
        SampleMessage(type: .delete, body: packed(.u32(16_386), .char("O"), .bytes(rawTuple))),
        SampleMessage(type: .truncate, body: packed(.u8(3), .u32(2), .u32(16_385), .u32(16_386))),
        SampleMessage(
            type: .message,
            body: packed(.u8(1), .u64(0x55), .string("bdr"), .u32(4), .bytes([0, 255, 1, 2]))),
        SampleMessage(type: .message, body: packed(.u8(0), .u64(0), .string(""), .u32(0))),
    ]
}
