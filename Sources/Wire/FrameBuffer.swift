// The buffer that messages are encoded into.

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#else
internal import Darwin
#endif

/// A byte buffer that grows up to a limit and throws where an array would end the process.
///
/// A class, so that whoever holds it writes into the same bytes. Not safe for several threads.
public final class FrameBuffer {
    @usableFromInline
    struct State {
        /// From malloc; nil until the first byte.
        @usableFromInline var base: UnsafeMutableRawPointer?
        @usableFromInline var count: Int
        @usableFromInline var capacity: Int
        let limit: Int

        init(limit: Int) {
            self.base = nil
            self.count = 0
            self.capacity = 0
            self.limit = limit
        }
    }

    /// Kept behind a pointer that never changes: stored properties of a class would have each access by another module
    /// checked for exclusivity at run time, which costs more than the append itself.
    @usableFromInline let state: UnsafeMutablePointer<State>

    /// - Parameter limit: most bytes that the buffer may hold; negative counts as 0.
    public init(limit: Int) {
        self.state = .allocate(capacity: 1)
        self.state.initialize(to: State(limit: max(0, limit)))
    }

    deinit {
        free(self.state.pointee.base)
        self.state.deallocate()
    }

    /// Most bytes that the buffer may hold.
    public var limit: Int { self.state.pointee.limit }

    /// Bytes in the buffer.
    @inlinable
    public var count: Int { self.state.pointee.count }

    /// Bytes of memory taken.
    public var capacity: Int { self.state.pointee.capacity }

    /// What was appended so far. Valid until the next call that changes the buffer.
    @inlinable
    public var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: UnsafeRawPointer(self.state.pointee.base), count: self.state.pointee.count)
    }

    /// Makes room for `count` more bytes.
    /// - Returns: where they go, not initialized; `commit` makes them count. Must not be called with 0.
    @inlinable
    @inline(__always)
    func room(for count: Int) throws(WireError) -> UnsafeMutableRawPointer {
        if count > self.state.pointee.capacity &- self.state.pointee.count {
            try self.grow(by: count)
        }
        // after the test above there is memory, unless count is 0
        return self.state.pointee.base.unsafelyUnwrapped + self.state.pointee.count
    }

    @inlinable
    @inline(__always)
    func commit(_ count: Int) {
        self.state.pointee.count &+= count
    }

    @usableFromInline
    @inline(never)
    func grow(by count: Int) throws(WireError) {
        let used = self.state.pointee.count
        let limit = self.state.pointee.limit
        guard count <= limit &- used else {
            throw WireError.limitExceeded("more than \(limit) bytes", at: used)
        }
        let needed = used &+ count
        let capacity = self.state.pointee.capacity
        let generous = min(limit, max(needed, 1024, capacity > limit / 2 ? limit : capacity &* 2))
        if let base = realloc(self.state.pointee.base, generous) {
            self.state.pointee.base = base
            self.state.pointee.capacity = generous
        } else if let base = realloc(self.state.pointee.base, needed) {
            self.state.pointee.base = base
            self.state.pointee.capacity = needed
        } else {
            throw WireError.limitExceeded("out of memory: \(needed) bytes could not be had", at: used)
        }
    }

    /// Empties the buffer.
    /// - Parameter size: memory beyond that many bytes is given back.
    public func removeAll(keepingCapacityUpTo size: Int = Int.max) {
        self.state.pointee.count = 0
        let size = max(0, size)
        guard self.state.pointee.capacity > size else {
            return
        }
        if size == 0 {
            free(self.state.pointee.base)
            self.state.pointee.base = nil
            self.state.pointee.capacity = 0
        } else if let base = realloc(self.state.pointee.base, size) {
            self.state.pointee.base = base
            self.state.pointee.capacity = size
        }
    }

    /// Drops everything from a position on, for example a message that was half written when an error came.
    /// - Parameter position: an earlier `count`; beyond the end it changes nothing.
    public func truncate(to position: Int) {
        self.state.pointee.count = min(max(0, position), self.state.pointee.count)
    }
}

// MARK: Appending. All throw `limitExceeded`, and then nothing was appended.

extension FrameBuffer {
    @inlinable
    @inline(__always)
    func store<T: FixedWidthInteger & BitwiseCopyable>(_ value: T) throws(WireError) {
        try self.room(for: MemoryLayout<T>.size).storeBytes(of: value, as: T.self)
        self.commit(MemoryLayout<T>.size)
    }

    @inlinable
    public func append(_ byte: UInt8) throws(WireError) {
        try self.store(byte)
    }

    @inlinable
    public func append16(_ value: UInt16) throws(WireError) {
        try self.store(value.littleEndian)
    }

    @inlinable
    public func append32(_ value: UInt32) throws(WireError) {
        try self.store(value.littleEndian)
    }

    @inlinable
    public func append64(_ value: UInt64) throws(WireError) {
        try self.store(value.littleEndian)
    }

    @inlinable
    public func append16(_ value: Int16) throws(WireError) {
        try self.store(value.littleEndian)
    }

    @inlinable
    public func append32(_ value: Int32) throws(WireError) {
        try self.store(value.littleEndian)
    }

    @inlinable
    public func append64(_ value: Int64) throws(WireError) {
        try self.store(value.littleEndian)
    }

    @inlinable
    public func append64BE(_ value: UInt64) throws(WireError) {
        try self.store(value.bigEndian)
    }

    /// - Parameter bytes: copied; must not be part of this buffer.
    @inlinable
    public func append(bytes: UnsafeRawBufferPointer) throws(WireError) {
        guard let source = bytes.baseAddress, bytes.count > 0 else {
            return
        }
        try self.room(for: bytes.count).copyMemory(from: source, byteCount: bytes.count)
        self.commit(bytes.count)
    }

    /// A string: length in two bytes, then UTF-8.
    /// - Throws: also when it is longer than 65,535 bytes.
    public func appendString(_ string: String) throws(WireError) {
        let utf8 = string.utf8
        let length = utf8.count
        guard let shortLength = UInt16(exactly: length) else {
            throw WireError.limitExceeded("a string of \(length) bytes", at: self.count)
        }
        let target = try self.room(for: 2 &+ length)
        target.storeBytes(of: shortLength.littleEndian, as: UInt16.self)
        var position = 2
        for byte in utf8 {
            target.storeBytes(of: byte, toByteOffset: position, as: UInt8.self)
            position &+= 1
        }
        self.commit(position)
    }
}

// MARK: Messages: type, length of the body, body.

extension FrameBuffer {
    /// Bytes before a message's body.
    @usableFromInline static let messageHeader = 5

    /// Starts a message whose body is appended next.
    /// - Returns: a token for `endMessage`; also the position to `truncate(to:)` if the message can't be finished.
    @inlinable
    public func beginMessage(type: UInt8) throws(WireError) -> Int {
        let start = self.count
        let header = try self.room(for: Self.messageHeader)
        header.storeBytes(of: type, as: UInt8.self)
        header.storeBytes(of: 0, toByteOffset: 1, as: UInt32.self)
        self.commit(Self.messageHeader)
        return start
    }

    @inlinable
    public func beginMessage(_ type: MessageType) throws(WireError) -> Int {
        try self.beginMessage(type: type.rawValue)
    }

    /// Ends a message: everything appended since `beginMessage` is its body.
    @inlinable
    public func endMessage(_ token: Int) throws(WireError) {
        guard token >= 0 && token <= self.count &- Self.messageHeader, let base = self.state.pointee.base else {
            throw WireError.malformed("a message ends that never began", at: self.count)
        }
        guard let length = UInt32(exactly: self.count &- token &- Self.messageHeader) else {
            throw WireError.limitExceeded("a message of 4 GB or more", at: token)
        }
        base.storeBytes(of: length.littleEndian, toByteOffset: token &+ 1, as: UInt32.self)
    }

    /// Appends a message whose body is what `body` appends; when it throws, nothing is left of the message.
    @inlinable
    func appendMessage(_ type: MessageType, _ body: () throws(WireError) -> Void) throws(WireError) {
        let token = try self.beginMessage(type: type.rawValue)
        do throws(WireError) {
            try body()
            try self.endMessage(token)
        } catch {
            self.truncate(to: token)
            throw error
        }
    }
}
