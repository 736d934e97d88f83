// Tuples in column form, and the frame around raw ones.

import Testing
import Wire

@Suite struct TupleViewTests {
    /// The code of the error of a row of an update (which may lack values); nil when it decodes.
    static func failureOf(_ tuple: [UInt8]) -> WireError.Code? {
        failure(packed(.u32(1), .char("N"), .bytes(tuple))) { _ = try UpdateMessage(decoding: $0) }
    }

    @Test func samples() {
        for tuple in [
            Samples.columnsTuple, Samples.unchangedTuple, Samples.rawTuple, Samples.rawTupleWithNulls,
            packed(.char("C"), .u16(0)), packed(.char("W"), .u16(0), .u8(0), .u32(0)),
            packed(.char("W"), .u16(0), .u8(3), .u32(0)),
        ] {
            #expect(Self.failureOf(tuple) == nil)
        }
    }

    @Test(arguments: [0, 0x63, 0x77, 0xff] as [UInt8]) func unknownForm(form: UInt8) {
        #expect(Self.failureOf([form, 0, 0, 0, 0, 0, 0, 0]) == .malformed)
    }

    @Test(arguments: [0, 0x4e, 0x54, 0xff] as [UInt8]) func unknownKind(kind: UInt8) {
        #expect(Self.failureOf(packed(.char("C"), .u16(1), .u8(kind), .u32(0), .u8(0))) == .malformed)
    }

    @Test(arguments: [1, 0x20, 0xff] as [UInt8]) func missingTerminator(byte: UInt8) {
        for kind in ["t", "b"] as [Unicode.Scalar] {
            #expect(
                Self.failureOf(packed(.char("C"), .u16(1), .char(kind), .u32(2), .bytes([1, 2, byte]))) == .malformed)
        }
    }

    @Test func terminatorIsBehindTheValue() throws {
        try withMemory(packed(.u32(1), .char("C"), .u16(1), .char("b"), .u32(3), .bytes([0, 0, 7]), .u8(0))) {
            guard case .columns(1, let bytes) = try InsertMessage(decoding: $0).tuple else {
                Issue.record("not in columns")
                return
            }
            var values: [ColumnValue] = []
            try TupleView.columns(count: 1, bytes: bytes).decodeColumns(into: &values)
            let value = try #require(values.first?.bytes)
            #expect(value.elementsEqual([0, 0, 7]))
            let end = try #require(value.baseAddress) + value.count
            #expect($0.contains(UnsafeRawBufferPointer(start: end, count: 1)))
            #expect(end.load(as: UInt8.self) == 0)
        }
    }

    @Test(arguments: [6, 100, UInt32.max] as [UInt32]) func valuesBeyondTheEnd(length: UInt32) {
        #expect(
            Self.failureOf(packed(.char("C"), .u16(1), .char("t"), .u32(length), .bytes([1, 2, 3, 4, 5, 0])))
                == .truncated)
        #expect(
            Self.failureOf(packed(.char("W"), .u16(1), .u8(0), .u32(length), .bytes([1, 2, 3, 4, 5]))) == .truncated)
    }

    @Test func tooManyColumns() {
        let most = packed(.char("C"), .u16(1600)) + [UInt8](repeating: 0x6e, count: 1600)
        #expect(Self.failureOf(most) == nil)
        #expect(
            Self.failureOf(packed(.char("C"), .u16(1601)) + [UInt8](repeating: 0x6e, count: 1601)) == .limitExceeded)
        #expect(Self.failureOf(packed(.char("W"), .u16(1601), .u8(0), .u32(0))) == .limitExceeded)
        let buffer = FrameBuffer(limit: 10)
        for count in [-1, 1601, Int.max] {
            let error = #expect(throws: WireError.self) { try buffer.beginColumnsTuple(count: count) }
            #expect(error?.code == .limitExceeded)
        }
        #expect(buffer.count == 0)
    }

    @Test(arguments: (2...7).map { UInt8(1) << $0 }) func unknownRawFlags(flag: UInt8) {
        #expect(Self.failureOf(packed(.char("W"), .u16(1), .u8(flag), .u32(0))) == .unsupported)
    }

    @Test(arguments: [(1, 1), (7, 1), (8, 1), (9, 2), (16, 2), (17, 3), (1600, 200)]) func bitmaps(
        count: Int, size: Int
    ) {
        let head = packed(.char("W"), .u16(UInt16(count)), .u8(1), .u32(0))
        #expect(Self.failureOf(head + [UInt8](repeating: 0, count: size)) == nil)
        #expect(Self.failureOf(head + [UInt8](repeating: 0, count: size - 1)) == .truncated)
    }

    @Test func decodingReusesTheArray() throws {
        var values: [ColumnValue] = []
        values.reserveCapacity(100)
        let capacity = values.capacity
        for tuple in [Samples.columnsTuple, Samples.unchangedTuple, packed(.char("C"), .u16(0))] {
            try withMemory(packed(.u32(1), .char("N"), .bytes(tuple))) {
                let new = try UpdateMessage(decoding: $0).new
                try new.decodeColumns(into: &values)
                #expect(values.count == new.count)
            }
            #expect(values.capacity == capacity)
        }
    }

    /// Views that no message decoded to: refused, with nothing left in the array.
    @Test func viewsThatAreNone() {
        withMemory(Array(Samples.columnsTuple.dropFirst(3))) { bytes in
            let none = UnsafeRawBufferPointer(start: nil, count: 0)
            for (view, code) in [
                (TupleView.columns(count: 5, bytes: bytes), .truncated),
                (.columns(count: -1, bytes: bytes), .limitExceeded),
                (.columns(count: Int.max, bytes: bytes), .limitExceeded), (.columns(count: 1, bytes: none), .truncated),
                (.raw(attributeCount: 1, hasNulls: false, hasVarWidth: false, bitmap: none, data: bytes), .malformed),
            ] as [(TupleView, WireError.Code)] {
                var values = [ColumnValue(kind: .null, bytes: none)]
                let error = #expect(throws: WireError.self) { try view.decodeColumns(into: &values) }
                #expect(error?.code == code)
                #expect(values.isEmpty)
            }
        }
    }
}
