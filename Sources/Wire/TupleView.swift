// Tuples inside a message, in the two forms that they travel in.

/// How a column's value travels. The raw value is the byte on the wire.
public enum ColumnKind: UInt8, Sendable {
    /// "n"
    case null = 0x6E
    /// "u": a TOASTed value that the update didn't change, so that WAL doesn't hold it.
    case unchanged = 0x75
    /// "U": the same, and it says where to find it: see `UnchangedValue`.
    case unchangedBy = 0x55
    /// "b": as the type's send function wrote it.
    case binary = 0x62
    /// "t": as the type's output function wrote it.
    case text = 0x74
}

/// One column of a tuple in column form.
@frozen
public struct ColumnValue {
    public var kind: ColumnKind
    /// The value, part of the message; empty for `null` and `unchanged`; an `UnchangedValue` for `unchangedBy`. For `binary` and `text` a zero byte follows that
    /// is not counted, so that the address can be given to C as a string.
    public var bytes: UnsafeRawBufferPointer

    @inlinable
    public init(kind: ColumnKind, bytes: UnsafeRawBufferPointer) {
        self.kind = kind
        self.bytes = bytes
    }
}

/// What travels of a value that an UPDATE didn't change, and that is stored out of line.
public struct UnchangedValue: Equatable, Sendable {
    /// Commit time of the operation that wrote it, in microseconds since 2000-01-01 UTC; nil when that is not known.
    public var time: Int64?
    /// Id of the node that wrote it.
    public var node: UInt32
    /// Where it is stored on the sender: the parts of the server's pointer.
    public var rawSize: Int32
    public var externalInfo: UInt32
    public var valueID: UInt32
    public var toastTable: UInt32

    /// Bytes on the wire.
    @inlinable
    public static var length: Int { 28 }

    /// - Parameter value: of kind `unchangedBy`.
    /// - Returns: nil for a value of another kind.
    public init?(_ value: ColumnValue) {
        guard value.kind == .unchangedBy, value.bytes.count == Self.length else {
            return nil
        }
        func word(_ offset: Int) -> UInt32 {
            UInt32(littleEndian: value.bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
        }
        let time = Int64(littleEndian: value.bytes.loadUnaligned(as: Int64.self))
        self.time = time == .min ? nil : time
        self.node = word(8)
        self.rawSize = Int32(bitPattern: word(12))
        self.externalInfo = word(16)
        self.valueID = word(20)
        self.toastTable = word(24)
    }
}

/// A tuple that still lies in its message. Valid as long as the message's bytes are.
@frozen
public enum TupleView {
    /// Column by column; `bytes` are those after the column count.
    case columns(count: Int, bytes: UnsafeRawBufferPointer)
    /// As it lies in the heap: null bitmap (empty when `hasNulls` is false; a bit that is set means present) and user data
    /// area. `RawLayout.validate` must have accepted it before anybody walks the data.
    case raw(
        attributeCount: Int, hasNulls: Bool, hasVarWidth: Bool, bitmap: UnsafeRawBufferPointer,
        data: UnsafeRawBufferPointer)
    /// No tuple of a message: a row that the receiver has put in the place of one, in a form of its own.
    case kept(OpaquePointer)

    /// Number of columns, in either form of a message.
    @inlinable
    public var count: Int {
        switch self {
        case .columns(let count, _): count
        case .raw(let count, _, _, _, _): count
        case .kept: 0
        }
    }

    /// Takes a tuple in column form apart.
    /// - Parameter values: what it held is replaced; its memory is used again, so that nothing is allocated once it has
    ///   grown to the widest table.
    /// - Throws: `malformed` for a raw tuple too; `values` is empty then.
    @inlinable
    public func decodeColumns(into values: inout [ColumnValue]) throws(WireError) {
        values.removeAll(keepingCapacity: true)
        guard case .columns(let count, let bytes) = self else {
            throw WireError.malformed("a raw tuple where one in columns was expected", at: 0)
        }
        var reader = ByteReader(bytes)
        do throws(WireError) {
            guard count >= 0 && count <= Limits.columns else {
                throw WireError.tooManyColumns(count, at: 0)
            }
            values.reserveCapacity(count)
            for _ in 0..<count {
                values.append(try reader.readColumn())
            }
        } catch {
            values.removeAll(keepingCapacity: true)
            throw error
        }
    }
}

@usableFromInline
enum TupleForm {
    /// "C"
    @usableFromInline static let columns: UInt8 = 0x43
    /// "W"
    @usableFromInline static let raw: UInt8 = 0x57
}

@usableFromInline
enum RawFlags {
    @usableFromInline static let hasNulls: UInt8 = 1
    @usableFromInline static let hasVarWidth: UInt8 = 2
    @usableFromInline static let known: UInt8 = 3
}

/// Which kinds of values a tuple may hold.
@usableFromInline
enum TuplePlace {
    /// The row of an INSERT: every value must be there.
    case inserted
    /// Any other tuple.
    case other
}

extension ByteReader {
    /// A value with its kind, length and terminator.
    @inlinable
    @inline(__always)
    mutating func readColumn() throws(WireError) -> ColumnValue {
        let start = self.position
        let rawKind = try self.readUInt8()
        guard let kind = ColumnKind(rawValue: rawKind) else {
            throw Self.unknownKind(rawKind, at: start)
        }
        switch kind {
        case .null, .unchanged:
            return ColumnValue(kind: kind, bytes: UnsafeRawBufferPointer(start: nil, count: 0))
        case .unchangedBy:
            return ColumnValue(kind: kind, bytes: try self.readBytes(UnchangedValue.length))
        case .binary, .text:
            let length = Int(try self.readUInt32())
            let bytes = try self.readBytes(length)
            guard try self.readUInt8() == 0 else {
                throw WireError.malformed("a value is not followed by a zero byte", at: self.position &- 1)
            }
            return ColumnValue(kind: kind, bytes: bytes)
        }
    }

    @usableFromInline
    @inline(never)
    static func unknownKind(_ kind: UInt8, at offset: Int) -> WireError {
        .malformed("unknown kind \(kind) of a column value", at: offset)
    }

    /// A tuple of either form. Its whole extent is checked, but not what a raw one contains.
    @inlinable
    mutating func readTuple(_ place: TuplePlace) throws(WireError) -> TupleView {
        let start = self.position
        let form = try self.readUInt8()
        if form == TupleForm.raw {
            let attributeCount = Int(try self.readUInt16())
            let flags = try self.readUInt8()
            let dataLength = Int(try self.readUInt32())
            guard attributeCount <= Limits.columns else {
                throw WireError.tooManyColumns(attributeCount, at: start &+ 1)
            }
            guard flags & ~RawFlags.known == 0 else {
                throw WireError.unknownFlags(flags, of: "a raw tuple", at: start &+ 3)
            }
            let hasNulls = flags & RawFlags.hasNulls != 0
            let bitmap = try self.readBytes(hasNulls ? (attributeCount &+ 7) / 8 : 0)
            let data = try self.readBytes(dataLength)
            return .raw(
                attributeCount: attributeCount, hasNulls: hasNulls,
                hasVarWidth: flags & RawFlags.hasVarWidth != 0, bitmap: bitmap, data: data)
        }
        guard form == TupleForm.columns else {
            throw Self.unknownForm(form, at: start)
        }
        let count = Int(try self.readUInt16())
        guard count <= Limits.columns else {
            throw WireError.tooManyColumns(count, at: start &+ 1)
        }
        let first = self.position
        for _ in 0..<count {
            let value = try self.readColumn()
            if (value.kind == .unchanged || value.kind == .unchangedBy) && place == .inserted {
                throw WireError.malformed("an inserted row lacks the value of a column", at: self.position &- 1)
            }
        }
        return .columns(count: count, bytes: self.range(from: first, count: self.position &- first))
    }

    @usableFromInline
    @inline(never)
    static func unknownForm(_ form: UInt8, at offset: Int) -> WireError {
        .malformed("unknown form \(form) of a tuple", at: offset)
    }
}
