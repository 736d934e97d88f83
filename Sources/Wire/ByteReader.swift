// Reads integers, strings and byte ranges from memory that somebody else filled.

/// A position in untrusted bytes; every read is bounds-checked and throws instead of reading past the end.
///
/// The reader doesn't own the bytes: they must stay valid and unchanged while it, and anything it handed out, is in use.
/// A read that throws leaves the position where it was.
@frozen
public struct ByteReader {
    @usableFromInline let bytes: UnsafeRawBufferPointer
    /// Never negative, never above `bytes.count`.
    @usableFromInline var position: Int

    @inlinable
    public init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
        self.position = 0
    }

    /// Bytes read so far.
    @inlinable
    public var offset: Int { self.position }

    /// Bytes not read yet.
    @inlinable
    public var remaining: Int { self.bytes.count &- self.position }

    @inlinable
    @inline(__always)
    func require(_ count: Int) throws(WireError) {
        guard count >= 0 && count <= self.remaining else {
            throw WireError.truncated(needed: count, left: self.remaining, at: self.position)
        }
    }

    @inlinable
    @inline(__always)
    mutating func read<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type) throws(WireError) -> T {
        try self.require(MemoryLayout<T>.size)
        let value = self.bytes.loadUnaligned(fromByteOffset: self.position, as: type)
        self.position &+= MemoryLayout<T>.size
        return value
    }

    @inlinable
    public mutating func readUInt8() throws(WireError) -> UInt8 {
        try self.read(UInt8.self)
    }

    @inlinable
    public mutating func readUInt16() throws(WireError) -> UInt16 {
        UInt16(littleEndian: try self.read(UInt16.self))
    }

    @inlinable
    public mutating func readUInt32() throws(WireError) -> UInt32 {
        UInt32(littleEndian: try self.read(UInt32.self))
    }

    @inlinable
    public mutating func readUInt64() throws(WireError) -> UInt64 {
        UInt64(littleEndian: try self.read(UInt64.self))
    }

    @inlinable
    public mutating func readInt16() throws(WireError) -> Int16 {
        Int16(littleEndian: try self.read(Int16.self))
    }

    @inlinable
    public mutating func readInt32() throws(WireError) -> Int32 {
        Int32(littleEndian: try self.read(Int32.self))
    }

    @inlinable
    public mutating func readInt64() throws(WireError) -> Int64 {
        Int64(littleEndian: try self.read(Int64.self))
    }

    // PostgreSQL's own protocol is big-endian.

    @inlinable
    public mutating func readUInt16BE() throws(WireError) -> UInt16 {
        UInt16(bigEndian: try self.read(UInt16.self))
    }

    @inlinable
    public mutating func readUInt32BE() throws(WireError) -> UInt32 {
        UInt32(bigEndian: try self.read(UInt32.self))
    }

    @inlinable
    public mutating func readUInt64BE() throws(WireError) -> UInt64 {
        UInt64(bigEndian: try self.read(UInt64.self))
    }

    @inlinable
    public mutating func readInt64BE() throws(WireError) -> Int64 {
        Int64(bigEndian: try self.read(Int64.self))
    }

    /// The next `count` bytes, not copied.
    @inlinable
    public mutating func readBytes(_ count: Int) throws(WireError) -> UnsafeRawBufferPointer {
        try self.require(count)
        let range = self.range(from: self.position, count: count)
        self.position &+= count
        return range
    }

    @inlinable
    public mutating func skip(_ count: Int) throws(WireError) {
        try self.require(count)
        self.position &+= count
    }

    /// A string: length in two bytes, then UTF-8 without NUL characters.
    /// - Throws: also when the bytes are not valid UTF-8.
    public mutating func readString() throws(WireError) -> String {
        let start = self.position
        let length = Int(try self.readUInt16())
        guard length <= self.remaining else {
            let error = WireError.truncated(needed: length, left: self.remaining, at: self.position)
            self.position = start
            throw error
        }
        let text = self.range(from: self.position, count: length)
        if let invalid = UTF8Validation.firstInvalid(in: text) {
            let error = WireError.malformed("a string is not valid UTF-8", at: self.position &+ invalid)
            self.position = start
            throw error
        }
        self.position &+= length
        return String(decoding: text, as: UTF8.self)
    }

    /// A range whose bounds are known to be inside the bytes.
    @inlinable
    @inline(__always)
    func range(from start: Int, count: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: self.bytes.baseAddress.map { $0 + start }, count: count)
    }
}
