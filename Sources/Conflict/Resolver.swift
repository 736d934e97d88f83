// The resolvers a conflict type can be given, and what a resolved conflict is recorded as.

/// How conflicts of a type are settled. Raw values are the names users see and set.
public enum Resolver: String, CaseIterable, Sendable {
    /// Raise an error; replication from that origin stops until the operator acts.
    case error
    /// Drop the remote change.
    case skip
    /// Drop the change when the table was dropped here within a day, else raise an error.
    case skipIfRecentlyDropped = "skip_if_recently_dropped"
    /// Drop the whole remote transaction.
    case skipTransaction = "skip_transaction"
    /// Apply when the remote change is the later one; equal commit times: the higher node id.
    case updateIfNewer = "update_if_newer"
    /// Always apply.
    case update
    /// Insert the row which the update carries; drop the change when columns of it are not known.
    case insertOrSkip = "insert_or_skip"
    /// Insert the row which the update carries; raise an error when columns of it are not known.
    case insertOrError = "insert_or_error"
    /// Ignore the column that is missing here.
    case ignore
    /// Ignore the column that is missing here when its value is NULL, else raise an error.
    case ignoreIfNull = "ignore_if_null"
    /// Fill the column that the origin lacks with its local default.
    case useDefaultValue = "use_default_value"
}

/// What was done about a conflict, as the conflict history records it.
public enum Resolution: String, CaseIterable, Sendable {
    /// The remote row replaced the local state.
    case applyRemote = "apply_remote"
    /// The local state stayed as it was.
    case skip
    /// A new row was made out of both.
    case merge
    /// A conflict trigger gave the result.
    case user
}
