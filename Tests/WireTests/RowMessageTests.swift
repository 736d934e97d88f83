// Inserts, updates and deletes: as the sender writes them and the receiver reads them.

import Testing
import Wire

@Suite struct RowMessageTests {
    static let values: [(ColumnKind, [UInt8])] = [
        (.null, []), (.text, Array("abc".utf8)), (.binary, [0, 0, 1, 2]), (.text, []),
    ]

    static func appendValues(_ values: [(ColumnKind, [UInt8])], to buffer: FrameBuffer) throws {
        try buffer.beginColumnsTuple(count: values.count)
        for (kind, bytes) in values {
            try bytes.withUnsafeBytes { try buffer.appendColumnValue(kind: kind, bytes: $0) }
        }
    }

    /// The columns of a tuple, copied.
    static func columns(_ tuple: TupleView) throws -> [String] {
        var values: [ColumnValue] = []
        try tuple.decodeColumns(into: &values)
        return values.map { "\($0.kind) \(Array($0.bytes))" }
    }

    static let expected = ["null []", "text [97, 98, 99]", "binary [0, 0, 1, 2]", "text []"]

    // MARK: in columns

    @Test func insert() throws {
        let bytes = try encoded {
            let token = try $0.beginInsert(relId: 16_385)
            try Self.appendValues(Self.values, to: $0)
            try $0.endMessage(token)
        }
        let body = packed(.u32(16_385), .bytes(Samples.columnsTuple))
        #expect(bytes == message("I", body))
        try withMemory(body) {
            let decoded = try InsertMessage(decoding: $0)
            #expect(decoded.relId == 16_385)
            #expect(decoded.tuple.count == 4)
            #expect(try Self.columns(decoded.tuple) == Self.expected)
        }
    }

    @Test(arguments: [OldTupleKind.none, .key, .full]) func update(kind: OldTupleKind) throws {
        let new: [(ColumnKind, [UInt8])] = [(.unchanged, []), (.text, Array("x".utf8))]
        let bytes = try encoded {
            let token = try $0.beginUpdate(relId: UInt32.max, oldKind: kind)
            if kind != .none {
                try Self.appendValues(Self.values, to: $0)
            }
            try Self.appendValues(new, to: $0)
            try $0.endMessage(token)
        }
        let body = packed(
            .u32(UInt32.max), .u8(kind.rawValue), .bytes(kind == .none ? [] : Samples.columnsTuple),
            .bytes(Samples.unchangedTuple))
        #expect(bytes == message("U", body))
        try withMemory(body) {
            let decoded = try UpdateMessage(decoding: $0)
            #expect(decoded.relId == UInt32.max)
            #expect(decoded.oldKind == kind)
            #expect(try decoded.old.map(Self.columns) == (kind == .none ? nil : Self.expected))
            #expect(try Self.columns(decoded.new) == ["unchanged []", "text [120]"])
        }
    }

    @Test(arguments: [OldTupleKind.key, .full]) func delete(kind: OldTupleKind) throws {
        let bytes = try encoded {
            let token = try $0.beginDelete(relId: 0, oldKind: kind)
            try Self.appendValues(Self.values, to: $0)
            try $0.endMessage(token)
        }
        let body = packed(.u32(0), .u8(kind.rawValue), .bytes(Samples.columnsTuple))
        #expect(bytes == message("D", body))
        try withMemory(body) {
            let decoded = try DeleteMessage(decoding: $0)
            #expect(decoded.relId == 0)
            #expect(decoded.oldKind == kind)
            #expect(try Self.columns(decoded.old) == Self.expected)
        }
    }

    @Test func kindsAreThoseOfTheProtocol() {
        #expect([OldTupleKind.none, .key, .full].map(\.rawValue) == Array("NKO".utf8))
        #expect([ColumnKind.null, .unchanged, .binary, .text].map(\.rawValue) == Array("nubt".utf8))
    }

    @Test func deleteNeedsItsRow() {
        let buffer = FrameBuffer(limit: 100)
        #expect(throws: WireError.self) { try buffer.beginDelete(relId: 1, oldKind: .none) }
        #expect(buffer.count == 0)
        let body = packed(.u32(1), .char("N"), .bytes(Samples.columnsTuple))
        #expect(failure(body) { _ = try DeleteMessage(decoding: $0) } == .malformed)
    }

    @Test(arguments: [0, 0x6e, 0xff] as [UInt8]) func unknownOldKind(kind: UInt8) {
        let body = packed(.u32(1), .u8(kind), .bytes(Samples.columnsTuple), .bytes(Samples.columnsTuple))
        #expect(failure(body) { _ = try UpdateMessage(decoding: $0) } == .malformed)
        #expect(failure(body) { _ = try DeleteMessage(decoding: $0) } == .malformed)
    }

    /// A new row without a value that nobody has.
    @Test func insertedRowsAreWhole() {
        let body = packed(.u32(1), .bytes(Samples.unchangedTuple))
        #expect(failure(body) { _ = try InsertMessage(decoding: $0) } == .malformed)
    }

    // MARK: raw

    @Test func rawInsertsAndUpdates() throws {
        for (tuple, nulls) in [(Samples.rawTuple, 0), (Samples.rawTupleWithNulls, 1)] {
            let bitmap = Array(tuple[8..<(8 + nulls)])
            let data = Array(tuple[(8 + nulls)...])
            let append = { (buffer: FrameBuffer, update: Bool) throws in
                try bitmap.withUnsafeBytes { bitmap in
                    try data.withUnsafeBytes { data in
                        if update {
                            try buffer.appendUpdateRaw(
                                relId: 7, attributeCount: 4, hasNulls: nulls > 0, hasVarWidth: nulls == 0,
                                bitmap: bitmap, data: data)
                        } else {
                            try buffer.appendInsertRaw(
                                relId: 7, attributeCount: 4, hasNulls: nulls > 0, hasVarWidth: nulls == 0,
                                bitmap: bitmap, data: data)
                        }
                    }
                }
            }
            let insert = message("I", packed(.u32(7), .bytes(tuple)))
            let update = message("U", packed(.u32(7), .char("N"), .bytes(tuple)))
            #expect(try encoded { try append($0, false) } == insert)
            #expect(try encoded { try append($0, true) } == update)
            for (whole, isUpdate) in [(insert, false), (update, true)] {
                for limit in 0..<whole.count {
                    let buffer = FrameBuffer(limit: limit)
                    #expect(throws: WireError.self) { try append(buffer, isUpdate) }
                    #expect(buffer.count == 0)
                }
                #expect(try encoded(limit: whole.count) { try append($0, isUpdate) } == whole)
            }
        }
    }

    @Test func decodedRaw() throws {
        try withMemory(packed(.u32(7), .char("O"), .bytes(Samples.rawTuple), .bytes(Samples.rawTupleWithNulls))) {
            let update = try UpdateMessage(decoding: $0)
            guard case .raw(4, false, true, let bitmap, let data)? = update.old,
                case .raw(4, true, false, let newBitmap, let newData) = update.new
            else {
                Issue.record("not the raw tuples that were sent")
                return
            }
            #expect(bitmap.isEmpty)
            #expect(data.elementsEqual(Samples.rawTuple.dropFirst(8)))
            #expect(newBitmap.elementsEqual([0b0101]))
            #expect(newData.elementsEqual([255, 255, 255, 255, 0]))
        }
    }

    /// Tuples are sent on as they came.
    @Test(arguments: [Samples.columnsTuple, Samples.rawTuple, Samples.rawTupleWithNulls, packed(.char("C"), .u16(0))])
    func passedOn(tuple: [UInt8]) throws {
        try withMemory(packed(.u32(7), .bytes(tuple))) {
            let decoded = try InsertMessage(decoding: $0).tuple
            #expect(try encoded { try $0.appendTuple(decoded) } == tuple)
        }
    }

    /// A bitmap that doesn't belong to the number of attributes isn't written.
    @Test func rawTuplesThatAreNone() throws {
        let buffer = FrameBuffer(limit: 1000)
        for (count, hasNulls, bitmapSize) in [
            (-1, false, 0), (1601, false, 0), (8, false, 1), (8, true, 0), (9, true, 1), (8, true, 2),
            (Int.max, true, 0),
        ] {
            let error = #expect(throws: WireError.self) {
                try [UInt8](repeating: 255, count: bitmapSize).withUnsafeBytes {
                    try buffer.appendRawTuple(
                        attributeCount: count, hasNulls: hasNulls, hasVarWidth: false, bitmap: $0,
                        data: UnsafeRawBufferPointer(start: nil, count: 0))
                }
            }
            #expect(error != nil)
            #expect(buffer.count == 0)
        }
    }
}
