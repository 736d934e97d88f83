// Checks raw tuples before anybody walks them: the receiver copies them into its own heap, where the server trusts every
// length in them.
//
// The walk is that of the server's heap_deform_tuple (src/backend/access/common/heaptuple.c), for little-endian machines:
// the only ones for which raw rows are negotiated.

/// What is left to check of a raw tuple.
public struct RawCheck: Equatable, Sendable {
    /// A value is compressed: whether its content is what its type allows shows only when it is decompressed.
    public var needsDeepCheck: Bool
}

/// The bytes of one attribute of a raw tuple.
public enum RawAttribute {
    case null
    /// Without the header of a varlena.
    case value(UnsafeRawBufferPointer)
    case compressed
}

/// The layout of a relation's raw rows.
public struct RawLayout: Sendable {
    private struct Column: Sendable {
        /// Bytes; negative for a varlena.
        var length: Int
        var alignMask: Int
        var content: RawType.Content
    }

    private let columns: ContiguousArray<Column>
    private let isUTF8: Bool

    /// - Parameters:
    ///   - columns: as the peer described them.
    ///   - isUTF8: the databases' encoding is UTF8; else it is SQL_ASCII, where only NUL is refused.
    /// - Throws: `malformed` when a column's type doesn't travel raw.
    public init(_ columns: [RelationColumn], isUTF8: Bool = true) throws(WireError) {
        var layout: ContiguousArray<Column> = []
        layout.reserveCapacity(columns.count)
        for column in columns {
            guard let type = RawType(oid: column.builtinType) else {
                throw WireError.malformed("column \"\(column.name)\" can't be part of a raw row", at: 0)
            }
            layout.append(
                Column(length: Int(type.attlen), alignMask: type.alignment - 1, content: type.content))
        }
        self.columns = layout
        self.isUTF8 = isUTF8
    }

    public static func isRawSafe(builtinType: UInt32) -> Bool {
        RawType(oid: builtinType) != nil
    }

    /// Checks that the tuple is one of this layout: every value inside the data, no value stored elsewhere, text in the
    /// encoding, numbers with digits that are some, and the data used up exactly.
    public func validate(_ tuple: TupleView) throws(WireError) -> RawCheck {
        guard case .raw(let attributeCount, let hasNulls, let hasVarWidth, let bitmap, let data) = tuple else {
            throw WireError.malformed("a tuple in columns where a raw one was expected", at: 0)
        }
        guard attributeCount == self.columns.count else {
            throw WireError.malformed(
                "a raw tuple of \(attributeCount) attributes for a table of \(self.columns.count) columns", at: 0)
        }
        guard bitmap.count >= (hasNulls ? (attributeCount &+ 7) / 8 : 0) else {
            throw WireError.malformed("the null bitmap of a raw tuple is too short", at: 0)
        }
        var offset = 0
        var needsDeepCheck = false
        let isUTF8 = self.isUTF8
        for number in 0..<attributeCount {
            if hasNulls && bitmap[number >> 3] & (1 << UInt8(truncatingIfNeeded: number & 7)) == 0 {
                continue
            }
            let column = self.columns[number]
            if column.length > 0 {
                offset = (offset &+ column.alignMask) & ~column.alignMask
                guard column.length <= data.count &- offset else {
                    throw WireError.truncated(needed: column.length, left: max(0, data.count &- offset), at: offset)
                }
                if column.content == .boolean && data[offset] > 1 {
                    throw WireError.malformed("a boolean is neither true nor false", at: offset)
                }
                offset &+= column.length
                continue
            }
            guard hasVarWidth else {
                throw WireError.malformed("a raw tuple has a value of variable length against its word", at: offset)
            }
            let varlena = try Self.varlena(data, at: offset, alignMask: column.alignMask)
            offset = varlena.end
            if varlena.isCompressed {
                needsDeepCheck = true
            } else {
                try Self.check(varlena.payload, column.content, isUTF8: isUTF8, at: varlena.start)
            }
        }
        guard offset == data.count else {
            throw WireError.malformed("a raw tuple has \(data.count &- offset) bytes too many", at: offset)
        }
        return RawCheck(needsDeepCheck: needsDeepCheck)
    }

    /// One attribute of a tuple that `validate` accepted (of another one, a wrong value or an error, but nothing outside).
    /// - Parameter number: from 0.
    public func attribute(_ number: Int, of tuple: TupleView) throws(WireError) -> RawAttribute {
        guard case .raw(let attributeCount, let hasNulls, _, let bitmap, let data) = tuple,
            number >= 0, number < attributeCount, attributeCount == self.columns.count,
            bitmap.count >= (hasNulls ? (attributeCount &+ 7) / 8 : 0)
        else {
            throw WireError.malformed("no attribute \(number) in the raw tuple", at: 0)
        }
        var offset = 0
        for current in 0...number {
            if hasNulls && bitmap[current >> 3] & (1 << UInt8(truncatingIfNeeded: current & 7)) == 0 {
                if current == number {
                    return .null
                }
                continue
            }
            let column = self.columns[current]
            if column.length > 0 {
                offset = (offset &+ column.alignMask) & ~column.alignMask
                guard column.length <= data.count &- offset else {
                    throw WireError.truncated(needed: column.length, left: max(0, data.count &- offset), at: offset)
                }
                if current == number {
                    return .value(UnsafeRawBufferPointer(rebasing: data[offset..<(offset &+ column.length)]))
                }
                offset &+= column.length
            } else {
                let varlena = try Self.varlena(data, at: offset, alignMask: column.alignMask)
                if current == number {
                    return varlena.isCompressed ? .compressed : .value(varlena.payload)
                }
                offset = varlena.end
            }
        }
        throw WireError.malformed("no attribute \(number) in the raw tuple", at: 0)
    }

    private struct Varlena {
        var start: Int
        var end: Int
        var payload: UnsafeRawBufferPointer
        var isCompressed: Bool
    }

    /// The varlena at a position, as varatt.h defines it: short ones have a length in one odd byte and are not aligned;
    /// where a zero byte stands, padding goes before an aligned header of four bytes.
    @inline(__always)
    private static func varlena(
        _ data: UnsafeRawBufferPointer, at position: Int, alignMask: Int
    ) throws(WireError) -> Varlena {
        var start = position
        guard start < data.count else {
            throw WireError.truncated(needed: 1, left: 0, at: start)
        }
        if data[start] == 0 {
            start = (start &+ alignMask) & ~alignMask
            guard start < data.count else {
                throw WireError.truncated(needed: 1, left: 0, at: start)
            }
        }
        let first = data[start]
        if first & 1 == 1 {
            let size = Int(first >> 1)
            guard size >= 1 else {
                throw WireError.malformed("a value of a raw tuple is stored outside of it", at: start)
            }
            guard size <= data.count &- start else {
                throw WireError.truncated(needed: size, left: data.count &- start, at: start)
            }
            return Varlena(
                start: start, end: start &+ size,
                payload: UnsafeRawBufferPointer(rebasing: data[(start &+ 1)..<(start &+ size)]), isCompressed: false)
        }
        guard start & alignMask == 0 else {
            throw WireError.malformed("a value of a raw tuple is not aligned", at: start)
        }
        guard data.count &- start >= 4 else {
            throw WireError.truncated(needed: 4, left: data.count &- start, at: start)
        }
        let header = UInt32(littleEndian: data.loadUnaligned(fromByteOffset: start, as: UInt32.self))
        let size = Int(header >> 2)
        let isCompressed = header & 3 == 2
        // a compressed value has its original length in four more bytes
        guard size >= (isCompressed ? 8 : 4) else {
            throw WireError.malformed("a value of a raw tuple has impossible length \(size)", at: start)
        }
        guard size <= data.count &- start else {
            throw WireError.truncated(needed: size, left: data.count &- start, at: start)
        }
        return Varlena(
            start: start, end: start &+ size,
            payload: UnsafeRawBufferPointer(rebasing: data[(start &+ 4)..<(start &+ size)]), isCompressed: isCompressed)
    }

    @inline(__always)
    private static func check(
        _ payload: UnsafeRawBufferPointer, _ content: RawType.Content, isUTF8: Bool, at offset: Int
    ) throws(WireError) {
        switch content {
        case .any, .boolean:
            break
        case .text:
            let invalid = isUTF8 ? UTF8Validation.firstInvalid(in: payload) : UTF8Validation.firstNUL(in: payload)
            if invalid != nil {
                throw WireError.malformed("a text value is not valid in the encoding of the database", at: offset)
            }
        case .numeric:
            guard self.isNumeric(payload) else {
                throw WireError.malformed("a numeric value is malformed", at: offset)
            }
        }
    }

    /// Format of the server's numeric.c: a header of two bytes (short form) or four, then digits to the base 10,000. Its
    /// arithmetic trusts them to be in range.
    private static func isNumeric(_ payload: UnsafeRawBufferPointer) -> Bool {
        guard payload.count >= 2 else {
            return false
        }
        let header = UInt16(littleEndian: payload.loadUnaligned(as: UInt16.self))
        var offset: Int
        switch header & 0xC000 {
        case 0xC000:
            // NaN, infinity, -infinity
            return payload.count == 2 && [0xC000, 0xD000, 0xF000].contains(header)
        case 0x8000:
            offset = 2
        default:
            offset = 4
        }
        guard payload.count >= offset && payload.count & 1 == 0 else {
            return false
        }
        while offset < payload.count {
            let digit = Int16(littleEndian: payload.loadUnaligned(fromByteOffset: offset, as: Int16.self))
            guard digit >= 0 && digit < 10_000 else {
                return false
            }
            offset &+= 2
        }
        return true
    }
}
