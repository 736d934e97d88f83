// What can be wrong with a conflict-free value, or with what is to be done to it.

/// An error of the conflict-free data types, with what a server ERROR shows.
public struct CRDTError: Error, Equatable, Sendable {
    /// Five characters, as in PostgreSQL's errcodes.
    public var sqlstate: String
    public var message: String
    public var detail: String?
    public var hint: String?

    init(_ sqlstate: String, _ message: String, detail: String? = nil, hint: String? = nil) {
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail
        self.hint = hint
    }

    /// Bytes that are no state, or not the one in which a state is always written.
    static func malformed(_ what: String) -> CRDTError {
        CRDTError("22P03", "invalid state of a conflict-free value: \(what)")
    }

    static func outOfRange(_ type: String) -> CRDTError {
        CRDTError("22003", "\(type) out of range")
    }
}
