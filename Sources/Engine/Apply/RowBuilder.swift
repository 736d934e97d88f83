// Turns a tuple of the wire into the row that the host takes, without copying values.

internal import CHost
internal import Conflict
internal import Wire

/// Reused for every row of a stream, so that decoding allocates nothing once it has grown to the widest table.
final class RowBuilder {
    private var columns: [ColumnValue] = []
    private var values: [BdrValue] = []

    /// A value that the change says to be unchanged.
    struct Unchanged {
        /// Of the remote relation, counted from 0.
        var column: Int
        /// nil when the sender didn't say more.
        var value: UnchangedValue?

        /// Who wrote it at the origin; nil when that is not known.
        var writer: RowVersion? {
            self.value.flatMap { value in value.time.map { RowVersion(time: $0, node: value.node) } }
        }
    }

    /// The values that a tuple says to be unchanged.
    func unchanged(_ tuple: TupleView) throws -> [Unchanged] {
        guard case .columns = tuple else {
            return []
        }
        try tuple.decodeColumns(into: &self.columns)
        var found: [Unchanged] = []
        for (number, column) in self.columns.enumerated() {
            if column.kind == .unchanged || column.kind == .unchangedBy {
                found.append(Unchanged(column: number, value: UnchangedValue(column)))
            }
        }
        return found
    }

    /// Calls `body` with the row of which unchanged values are given as texts (nil: NULL), by the number of their column.
    func withRow<R>(
        _ tuple: TupleView, filledWith texts: [Int: String?], _ relation: AppliedRelation,
        _ body: (inout BdrRow) throws -> R
    ) throws -> R {
        let numbers = Array(texts.keys)
        return try withCStrings(numbers.map { texts[$0] ?? nil }) { pointers in
            try self.withRow(tuple, relation) { row in
                guard let values = row.values, let pointers else {
                    return try body(&row)
                }
                var filled = Array(UnsafeBufferPointer(start: values, count: Int(row.ncolumns)))
                for (place, number) in numbers.enumerated() where number < filled.count {
                    if let text = pointers[place] {
                        filled[number].data = UnsafeRawPointer(text).assumingMemoryBound(to: UInt8.self)
                        filled[number].length = UInt32(clamping: (texts[number] ?? nil)?.utf8.count ?? 0)
                        filled[number].kind = ColumnKind.text.rawValue
                    } else {
                        filled[number].kind = ColumnKind.null.rawValue
                    }
                }
                return try filled.withUnsafeBufferPointer { buffer in
                    row.values = buffer.baseAddress
                    return try body(&row)
                }
            }
        }
    }

    /// Calls `body` with the row; it and what it points at are valid only inside.
    func withRow<R>(_ tuple: TupleView, _ relation: AppliedRelation, _ body: (inout BdrRow) throws -> R) throws -> R {
        var row = BdrRow()
        switch tuple {
        case .kept(let kept):
            row.kept = kept
            return try body(&row)
        case .raw:
            try Self.fillRaw(&row, tuple, relation)
            return try body(&row)
        case .columns:
            try tuple.decodeColumns(into: &self.columns)
            self.values.removeAll(keepingCapacity: true)
            for column in self.columns {
                self.values.append(
                    BdrValue(
                        data: column.bytes.bindMemory(to: UInt8.self).baseAddress,
                        length: UInt32(clamping: column.bytes.count), kind: column.kind.rawValue))
            }
            return try self.values.withUnsafeBufferPointer { values in
                row.values = values.baseAddress
                row.ncolumns = Int32(clamping: values.count)
                return try body(&row)
            }
        }
    }

    /// A raw row, validated against the layout the peer described: after this the host may walk it.
    @inline(__always)
    static func fillRaw(_ row: inout BdrRow, _ tuple: TupleView, _ relation: AppliedRelation) throws {
        guard let layout = relation.layout,
            case .raw(let attributes, let hasNulls, let hasVarWidth, let bitmap, let data) = tuple
        else {
            throw BdrError(
                SQLSTATE.protocolViolation,
                "the peer sent a raw row of \"\(relation.qualifiedName)\", which it had described as not raw")
        }
        let check = try layout.validate(tuple)
        row.bitmap = bitmap.bindMemory(to: UInt8.self).baseAddress
        row.data = data.bindMemory(to: UInt8.self).baseAddress
        row.data_length = UInt32(clamping: data.count)
        row.attributes = UInt16(clamping: attributes)
        row.has_nulls = hasNulls ? 1 : 0
        row.has_varwidth = hasVarWidth ? 1 : 0
        row.deep_check = check.needsDeepCheck ? 1 : 0
    }

    /// Text of the key columns of a tuple for messages, such as `(id)=(4)`; "" when the tuple can't be read.
    static func keyText(_ tuple: TupleView, _ relation: AppliedRelation) -> String {
        var names: [String] = []
        var texts: [String] = []
        let described = relation.description.columns
        func add(_ number: Int, _ kind: ColumnKind, _ bytes: UnsafeRawBufferPointer, raw: Bool) {
            let column = described[number]
            names.append(column.name)
            switch kind {
            case .null: texts.append("NULL")
            case .unchanged, .unchangedBy: texts.append("(unchanged)")
            default:
                texts.append(
                    raw
                        ? ValueText.describeRaw(builtinType: column.builtinType, bytes: bytes)
                        : ValueText.describe(builtinType: column.builtinType, kind: kind, bytes: bytes))
            }
        }
        let wanted = described.contains { $0.isKey } ? described.map { $0.isKey } : described.map { _ in true }
        switch tuple {
        case .columns:
            var values: [ColumnValue] = []
            guard (try? tuple.decodeColumns(into: &values)) != nil else {
                return ""
            }
            for (number, value) in values.enumerated() where number < wanted.count && wanted[number] {
                add(number, value.kind, value.bytes, raw: false)
            }
        case .raw:
            guard let layout = relation.layout else {
                return ""
            }
            for (number, isWanted) in wanted.enumerated() where isWanted {
                switch try? layout.attribute(number, of: tuple) {
                case .null: add(number, .null, UnsafeRawBufferPointer(start: nil, count: 0), raw: true)
                case .value(let bytes): add(number, .binary, bytes, raw: true)
                case .compressed: names.append(described[number].name); texts.append("(compressed)")
                case nil: return ""
                }
            }
        case .kept:
            return ""
        }
        return "(\(names.joined(separator: ", ")))=(\(texts.joined(separator: ", ")))"
    }
}
