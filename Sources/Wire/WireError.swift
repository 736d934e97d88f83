// The one error of this module.

/// Why bytes could not be decoded, or values not be encoded.
public struct WireError: Error, Equatable, Sendable {
    public enum Code: Sendable {
        /// The bytes end before what they announce.
        case truncated
        /// The bytes are there but mean nothing.
        case malformed
        /// Something that a later version may define: an unknown message type or flag.
        case unsupported
        /// Larger than what was agreed on, than the format can express, or than the memory there is.
        case limitExceeded
    }

    public var code: Code
    /// Where, in bytes from the start of what the failing decoder was given; for encoders from the start of the buffer.
    public var offset: Int
    public var message: String

    public init(code: Code, offset: Int, message: String) {
        self.code = code
        self.offset = offset
        self.message = message
    }
}

extension WireError: CustomStringConvertible {
    public var description: String {
        "\(self.message) (at byte \(self.offset))"
    }
}

// Made out of line, so that the fast paths that throw them stay small.
extension WireError {
    @usableFromInline
    @inline(never)
    static func truncated(needed: Int, left: Int, at offset: Int) -> WireError {
        WireError(code: .truncated, offset: offset, message: "\(needed) bytes expected, \(left) left")
    }

    @usableFromInline
    @inline(never)
    static func malformed(_ message: String, at offset: Int) -> WireError {
        WireError(code: .malformed, offset: offset, message: message)
    }

    @usableFromInline
    @inline(never)
    static func unsupported(_ message: String, at offset: Int) -> WireError {
        WireError(code: .unsupported, offset: offset, message: message)
    }

    @usableFromInline
    @inline(never)
    static func limitExceeded(_ message: String, at offset: Int) -> WireError {
        WireError(code: .limitExceeded, offset: offset, message: message)
    }

    @usableFromInline
    @inline(never)
    static func unknownFlags(_ flags: UInt8, of subject: String, at offset: Int) -> WireError {
        WireError(code: .unsupported, offset: offset, message: "unknown flags \(flags) of \(subject)")
    }

    @usableFromInline
    @inline(never)
    static func tooManyColumns(_ count: Int, at offset: Int) -> WireError {
        WireError(
            code: .limitExceeded, offset: offset,
            message: "\(count) columns, more than the \(Limits.columns) of a table")
    }
}

/// What the protocol takes from PostgreSQL's own limits.
@usableFromInline
enum Limits {
    /// MaxHeapAttributeNumber.
    @usableFromInline static let columns = 1600
    /// NAMEDATALEN - 1, bytes.
    static let nameLength = 63
    /// FirstNormalObjectId: objects with a smaller OID come from initdb.
    static let firstUserObject: UInt32 = 16_384
}
