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

    /// What dates a change.
    public enum Source: Equatable, Sendable {
        /// The clock, when it is made.
        case current
        /// Its commit. That is not known while the change is made: until somebody asks who knows it, the columns are remembered.
        case commit
    }

    /// A column that the transaction changed which wrote the row.
    public struct Modified: Equatable, Sendable {
        public var column: UInt32
        public var attribute: UInt16

        public init(column: UInt32, attribute: UInt16) {
            self.column = column
            self.attribute = attribute
        }
    }

    public var source: Source
    /// Of all columns without an entry; no entry is older, or as old.
    public private(set) var base: RowVersion
    /// By column, each once.
    public private(set) var entries: [Entry] = []
    /// By column, each once: to be dated by the commit of the transaction that wrote the row.
    public private(set) var modified: [Modified] = []
    /// That transaction has inserted the row: its commit dates all columns.
    public private(set) var isInserted = false

    /// A row of which all columns were written at once.
    public init(base: RowVersion, source: Source = .current) {
        self.base = base
        self.source = source
    }

    /// A row that a transaction inserts which has not been committed.
    /// - Parameter base: stands in for its commit, should that be forgotten.
    public init(inserted columns: [(column: UInt32, attribute: UInt16)], base: RowVersion) {
        self.init(base: base, source: .commit)
        self.modify(columns)
        self.isInserted = true
    }

    public var isResolved: Bool { self.modified.isEmpty && !self.isInserted }

    /// Columns are changed by a transaction which has not been committed, and which has changed those that are remembered.
    public mutating func modify(_ columns: [(column: UInt32, attribute: UInt16)]) {
        self.source = .commit
        for (column, attribute) in columns where !self.modified.contains(where: { $0.column == column }) {
            self.modified.append(Modified(column: column, attribute: attribute))
        }
        self.modified.sort { $0.column < $1.column }
    }

    /// The transaction that wrote the row was committed.
    /// - Parameter version: nil when it is not known any more when; what it changed then counts as old.
    public mutating func resolve(_ version: RowVersion?) {
        let modified = self.modified
        let isInserted = self.isInserted
        self.modified = []
        self.isInserted = false
        guard let version else {
            return
        }
        if isInserted {
            self.base = version
            self.entries = []
        } else {
            self.change(modified.map { ($0.column, $0.attribute) }, at: version.time, by: version.node)
        }
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

    /// The later version of each column. Both have to be resolved.
    public func merged(with other: ColumnVersions) -> ColumnVersions {
        var result = ColumnVersions(
            base: max(self.base, other.base), source: self.source == other.source ? self.source : .current)
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

    /// Base, and number of entries with flags; all numbers little-endian. Behind the entries, if there are some to resolve,
    /// the number of modified columns and these.
    private static let headSize = 14
    private static let entrySize = 18
    private static let modifiedSize = 6
    /// Flags. Extension/column_timestamps.c looks at `unresolved` too.
    private static let commit: UInt16 = 0x8000
    private static let unresolved: UInt16 = 0x4000
    private static let inserted: UInt16 = 0x2000
    /// More columns than a table can have.
    private static let countMask: UInt16 = 0x1fff

    public var bytes: [UInt8] {
        var bytes: [UInt8] = []
        func put<Number: FixedWidthInteger>(_ number: Number) {
            for shift in stride(from: 0, to: Number.bitWidth, by: 8) {
                bytes.append(UInt8(truncatingIfNeeded: number >> Number(shift)))
            }
        }
        put(self.base.time)
        put(self.base.node)
        let count = min(self.entries.count, Int(Self.countMask))
        var head = UInt16(clamping: count)
        head |= self.source == .commit ? Self.commit : 0
        head |= self.isResolved ? 0 : Self.unresolved
        head |= self.isInserted ? Self.inserted : 0
        put(head)
        for entry in self.entries.prefix(count) {
            put(entry.column)
            put(entry.attribute)
            put(entry.version.time)
            put(entry.version.node)
        }
        if !self.isResolved {
            let count = min(self.modified.count, Int(Self.countMask))
            put(UInt16(clamping: count))
            for modified in self.modified.prefix(count) {
                put(modified.column)
                put(modified.attribute)
            }
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
        let head = get(12, UInt16.self)
        let count = Int(head & Self.countMask)
        let end = Self.headSize + count * Self.entrySize
        self.source = head & Self.commit != 0 ? .commit : .current
        self.isInserted = head & Self.inserted != 0
        if head & Self.unresolved != 0 {
            guard self.source == .commit, bytes.count >= end + 2 else {
                return nil
            }
            let count = Int(get(end, UInt16.self))
            guard bytes.count == end + 2 + count * Self.modifiedSize, count > 0 || self.isInserted else {
                return nil
            }
            for number in 0..<count {
                let offset = end + 2 + number * Self.modifiedSize
                let modified = Modified(column: get(offset, UInt32.self), attribute: get(offset + 4, UInt16.self))
                guard self.modified.last.map({ $0.column < modified.column }) ?? true else {
                    return nil
                }
                self.modified.append(modified)
            }
        } else if bytes.count != end || self.isInserted {
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
