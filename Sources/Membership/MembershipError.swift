// The error of this module, with everything that a server ERROR shows its user.

/// A refusal that says what to do about it.
public struct MembershipError: Error, Equatable, Sendable {
    /// Five characters, as in PostgreSQL's errcodes.
    public var sqlstate: String
    public var message: String
    public var detail: String?
    public var hint: String?

    public init(sqlstate: String, message: String, detail: String? = nil, hint: String? = nil) {
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail
        self.hint = hint
    }
}
