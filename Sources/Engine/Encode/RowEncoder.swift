// One tuple in the form in which it travels: raw as it is stored, or column by column.

internal import CHost
internal import Wire

/// Space for the values of one tuple, reused for every row.
final class ColumnValues {
    private(set) var values: UnsafeMutableBufferPointer<BdrValue>

    init() {
        self.values = UnsafeMutableBufferPointer(start: nil, count: 0)
    }

    deinit {
        self.values.deallocate()
    }

    /// Makes room for the columns of the widest relation met so far.
    func reserve(_ count: Int) {
        if self.values.count < count {
            self.values.deallocate()
            self.values = .allocate(capacity: count)
            self.values.initialize(repeating: BdrValue())
        }
    }
}

/// A tuple ready to be written, of which the length is known.
enum EncodedTuple {
    case raw(BdrTuple)
    /// The first `count` values.
    case columns(UnsafeMutableBufferPointer<BdrValue>, count: Int)

    /// Bytes on the wire.
    @inline(__always)
    var length: Int {
        switch self {
        case .raw(let tuple):
            return 1 + 2 + 1 + 4 + Self.bitmapLength(tuple) + Int(tuple.data_length)
        case .columns(let values, let count):
            var length = 1 + 2
            for value in values.prefix(count) {
                length += Self.hasBytes(value) ? 1 + 4 + Int(value.length) + 1 : 1 + Self.writerLength(value)
            }
            return length
        }
    }

    @inline(__always)
    func write(to frames: FrameWriter) throws {
        switch self {
        case .raw(let tuple):
            try frames.buffer.append(UInt8(ascii: "W"))
            try frames.buffer.append16(tuple.attributes)
            try frames.buffer.append((tuple.has_nulls != 0 ? 1 : 0) | (tuple.has_varwidth != 0 ? 2 : 0) as UInt8)
            try frames.buffer.append32(tuple.data_length)
            try frames.buffer.append(bytes: UnsafeRawBufferPointer(start: tuple.bitmap, count: Self.bitmapLength(tuple)))
            try frames.append(UnsafeRawBufferPointer(start: tuple.data, count: Int(tuple.data_length)))
        case .columns(let values, let count):
            try frames.buffer.append(UInt8(ascii: "C"))
            try frames.buffer.append16(UInt16(clamping: count))
            for value in values.prefix(count) {
                try frames.buffer.append(value.kind)
                if Self.hasBytes(value) {
                    try frames.buffer.append32(value.length)
                    try frames.append(UnsafeRawBufferPointer(start: value.data, count: Int(value.length)))
                    try frames.buffer.append(0 as UInt8)
                } else if Self.writerLength(value) > 0 {
                    try frames.append(UnsafeRawBufferPointer(start: value.data, count: Self.writerLength(value)))
                }
            }
        }
    }

    @inline(__always)
    private static func bitmapLength(_ tuple: BdrTuple) -> Int {
        tuple.has_nulls != 0 ? (Int(tuple.attributes) + 7) / 8 : 0
    }

    @inline(__always)
    private static func writerLength(_ value: BdrValue) -> Int {
        value.kind == UInt8(ascii: "U") ? UnchangedValue.length : 0
    }

    @inline(__always)
    private static func hasBytes(_ value: BdrValue) -> Bool {
        value.kind == UInt8(ascii: "b") || value.kind == UInt8(ascii: "t")
    }
}

/// Chooses the form of the tuples of one change.
struct RowEncoder {
    /// Node ids by the numbers of the origins under which their changes are applied here; 0 is this node.
    let nodes: [UInt32: UInt32]
    private let oldValues = ColumnValues()
    private let newValues = ColumnValues()

    init(nodes: [UInt32: UInt32]) {
        self.nodes = nodes
    }

    /// - Parameters:
    ///   - old: the old row or its key columns, nil when WAL has none or it isn't wanted.
    ///   - keysOnly: only the key columns of `old` mean something.
    /// - Returns: both tuples; they point at the server's memory, which lasts as long as the callback.
    @inline(__always)
    func encode(
        _ relation: OutputRelation, _ handle: UnsafeRawPointer?, old: UnsafePointer<BdrTuple>?, keysOnly: Bool,
        new: UnsafePointer<BdrTuple>?
    ) throws -> (old: EncodedTuple?, new: EncodedTuple?) {
        if Self.isPlain(new, relation) && Self.isPlain(old, relation) {
            return (old.map { .raw($0.pointee) }, new.map { .raw($0.pointee) })
        }
        return try self.encodeColumns(relation, handle, old: old, keysOnly: keysOnly, new: new)
    }

    private func encodeColumns(
        _ relation: OutputRelation, _ handle: UnsafeRawPointer?, old: UnsafePointer<BdrTuple>?, keysOnly: Bool,
        new: UnsafePointer<BdrTuple>?
    ) throws -> (old: EncodedTuple?, new: EncodedTuple?) {
        let count = relation.columnCount
        var oldTuple: EncodedTuple?
        var newTuple: EncodedTuple?
        if let old {
            try Self.read(relation, handle, old.pointee, keysOnly: keysOnly, into: self.oldValues)
            oldTuple = .columns(self.oldValues.values, count: count)
        }
        if let new {
            try Self.read(relation, handle, new.pointee, keysOnly: false, into: self.newValues)
            self.nameWriters(count: count)
            newTuple = .columns(self.newValues.values, count: count)
            if old != nil {
                Self.fillUnchanged(self.newValues.values, from: self.oldValues.values, count: count)
            }
        }
        return (oldTuple, newTuple)
    }

    /// True when the tuple may travel as it is stored; a tuple that isn't there does not mind.
    @inline(__always)
    private static func isPlain(_ tuple: UnsafePointer<BdrTuple>?, _ relation: OutputRelation) -> Bool {
        guard let tuple else {
            return true
        }
        return relation.raw && tuple.pointee.has_external == 0 && Int(tuple.pointee.attributes) == relation.columnCount
    }

    private static func read(
        _ relation: OutputRelation, _ handle: UnsafeRawPointer?, _ tuple: BdrTuple, keysOnly: Bool,
        into values: ColumnValues
    ) throws {
        values.reserve(relation.columnCount)
        try relation.binary.withUnsafeBufferPointer { binary in
            _ = try host(
                bdr_host_tuple_values(
                    handle, tuple.handle, binary.baseAddress, keysOnly, Int32(clamping: relation.columnCount),
                    values.values.baseAddress))
        }
    }

    /// Puts nodes in the place of origins. Of a node that has joined since the stream began, the writer stays unknown.
    private func nameWriters(count: Int) {
        for column in 0..<min(count, self.newValues.values.count)
        where self.newValues.values[column].kind == UInt8(ascii: "U") {
            let value = self.newValues.values[column]
            guard Int(value.length) == MemoryLayout<BdrValueVersion>.size, let data = value.data else {
                continue
            }
            let version = UnsafeMutableRawPointer(mutating: data).assumingMemoryBound(to: BdrValueVersion.self)
            if let node = self.nodes[version.pointee.origin] {
                version.pointee.origin = node
            } else {
                version.pointee.commit_time = .min
            }
        }
    }

    /// The old row has the value that the new one only says is unchanged (replica identity full, or a toasted key column).
    private static func fillUnchanged(
        _ new: UnsafeMutableBufferPointer<BdrValue>, from old: UnsafeMutableBufferPointer<BdrValue>, count: Int
    ) {
        for column in 0..<min(count, new.count, old.count)
        where new[column].kind == UInt8(ascii: "u") || new[column].kind == UInt8(ascii: "U") {
            let kind = old[column].kind
            if kind == UInt8(ascii: "b") || kind == UInt8(ascii: "t") {
                new[column] = old[column]
            }
        }
    }
}
