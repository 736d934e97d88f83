// Conflicts column by column: each column of a row has a version of its own, and where two rows of a key meet, each column is
// taken from the row whose version of it is the later one.
//
// What two rows become is the greatest of both for each column, whichever row is here and whichever arrives. So all nodes come
// to the same row in whatever order changes reach them, and however often, which the tests try.

/// Who changed each column of a row last, and when.
public struct ColumnVersions: Equatable, Sendable {
    public struct Entry: Equatable, Sendable {
        /// Of the column's name: nodes may have a column at different places.
        public var column: UInt32
        /// Attribute number where it was changed. For people.
        public var attribute: UInt16
        public var version: RowVersion

        public init(column: UInt32, attribute: UInt16, version: RowVersion) {
            self.column = column
            self.attribute = attribute
            self.version = version
        }
    }

    /// Of all columns without an entry; no entry is older, or as old.
    public private(set) var base: RowVersion
    /// By column, each once.
    public private(set) var entries: [Entry] = []

    /// A row of which all columns were written at once.
    public init(base: RowVersion) {
        self.base = base
    }

    public func version(of column: UInt32) -> RowVersion {
        self.entries.first { $0.column == column }?.version ?? self.base
    }

    /// Columns are changed on a node. On top of what is there, so that it is later, also if the clock is not.
    public mutating func change(_ columns: [(column: UInt32, attribute: UInt16)], at time: Int64, by node: UInt32) {
        for (column, attribute) in columns {
            let known = self.version(of: column).time
            let version = RowVersion(time: max(time, min(known, Int64.max - 1) + 1), node: node)
            self.entries.removeAll { $0.column == column }
            self.entries.append(Entry(column: column, attribute: attribute, version: version))
        }
        self.entries.sort { $0.column < $1.column }
    }

    /// The later version of each column.
    public func merged(with other: ColumnVersions) -> ColumnVersions {
        var result = ColumnVersions(base: max(self.base, other.base))
        for entry in self.entries {
            let version = max(entry.version, other.version(of: entry.column))
            result.entries.append(Entry(column: entry.column, attribute: entry.attribute, version: version))
        }
        for entry in other.entries where !self.entries.contains(where: { $0.column == entry.column }) {
            let version = max(entry.version, self.base)
            result.entries.append(Entry(column: entry.column, attribute: entry.attribute, version: version))
        }
        result.entries.removeAll { $0.version <= result.base }
        result.entries.sort { $0.column < $1.column }
        return result
    }

    // MARK: As it is stored and sent

    /// Base and number of entries; all numbers little-endian.
    private static let headSize = 14
    private static let entrySize = 18

    public var bytes: [UInt8] {
        var bytes: [UInt8] = []
        func put<Number: FixedWidthInteger>(_ number: Number) {
            for shift in stride(from: 0, to: Number.bitWidth, by: 8) {
                bytes.append(UInt8(truncatingIfNeeded: number >> Number(shift)))
            }
        }
        put(self.base.time)
        put(self.base.node)
        put(UInt16(clamping: self.entries.count))
        for entry in self.entries.prefix(Int(UInt16.max)) {
            put(entry.column)
            put(entry.attribute)
            put(entry.version.time)
            put(entry.version.node)
        }
        return bytes
    }

    /// nil when the bytes are none, or not in the one form that there is.
    public init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= Self.headSize else {
            return nil
        }
        func get<Number: FixedWidthInteger>(_ offset: Int, _ type: Number.Type) -> Number {
            Number(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Number.self))
        }
        self.base = RowVersion(time: get(0, Int64.self), node: get(8, UInt32.self))
        let count = Int(get(12, UInt16.self))
        guard bytes.count == Self.headSize + count * Self.entrySize else {
            return nil
        }
        for number in 0..<count {
            let offset = Self.headSize + number * Self.entrySize
            let entry = Entry(
                column: get(offset, UInt32.self), attribute: get(offset + 4, UInt16.self),
                version: RowVersion(time: get(offset + 6, Int64.self), node: get(offset + 14, UInt32.self)))
            guard entry.version > self.base, self.entries.last.map({ $0.column < entry.column }) ?? true else {
                return nil
            }
            self.entries.append(entry)
        }
    }
}

/// Which columns a row that arrives has later than the row that is here.
public func laterColumns(local: ColumnVersions, remote: ColumnVersions, columns: [UInt32]) -> [Bool] {
    columns.map { remote.version(of: $0) > local.version(of: $0) }
}
