// Steps from message to message.

/// What a message says. The raw value is the first byte on the wire.
public enum MessageType: UInt8, Sendable {
    /// "S"
    case startup = 0x53
    /// "B"
    case begin = 0x42
    /// "C"
    case commit = 0x43
    /// "R"
    case relation = 0x52
    /// "I"
    case insert = 0x49
    /// "U"
    case update = 0x55
    /// "D"
    case delete = 0x44
    /// "T"
    case truncate = 0x54
    /// "M"
    case message = 0x4D
    /// "b"
    case streamStart = 0x62
    /// "e"
    case streamStop = 0x65
    /// "s"
    case subtransaction = 0x73
    /// "a"
    case streamAbort = 0x61
    /// "c"
    case streamCommit = 0x63
}

/// Iterates over the messages in the bytes of a frame (or of several that were put together).
@frozen
public struct MessageCursor {
    @usableFromInline var reader: ByteReader

    /// - Parameter bytes: a whole number of messages; must stay valid while the cursor and the bodies are used.
    @inlinable
    public init(_ bytes: UnsafeRawBufferPointer) {
        self.reader = ByteReader(bytes)
    }

    /// Bytes of the messages passed so far.
    @inlinable
    public var offset: Int { self.reader.offset }

    /// The next message; nil at the end. The body is part of the bytes, nothing is copied.
    /// - Throws: `unsupported` for a type that this version doesn't know, `truncated`. The cursor then stays there.
    @inlinable
    public mutating func next() throws(WireError) -> (type: MessageType, body: UnsafeRawBufferPointer)? {
        if self.reader.remaining == 0 {
            return nil
        }
        var ahead = self.reader
        let rawType = try ahead.readUInt8()
        let length = Int(try ahead.readUInt32())
        let body = try ahead.readBytes(length)
        guard let type = MessageType(rawValue: rawType) else {
            throw Self.unknownType(rawType, at: self.reader.offset)
        }
        self.reader = ahead
        return (type, body)
    }

    @usableFromInline
    @inline(never)
    static func unknownType(_ type: UInt8, at offset: Int) -> WireError {
        let name = (0x21...0x7E).contains(type) ? "\"\(Character(Unicode.Scalar(type)))\"" : "with code \(type)"
        return .unsupported("unknown message type \(name)", at: offset)
    }
}
