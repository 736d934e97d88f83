// What to do with a remote change, given the local row it meets: last update wins, by (commit time, node id).
//
// The rules are those of row origin detection: a row whose last change came from the origin of the change at hand can't
// be in conflict with an update or delete of that origin, because the changes of one origin arrive in the order it made
// them.
//
// Without tombstones these rules keep two nodes equal for UPDATE against UPDATE, INSERT against INSERT, UPDATE against
// DELETE and DELETE against DELETE, when a node's clock has passed the commit time of what it applied. They don't when
// a node inserts a row again that it, or the other one, deleted at the same time, as the INSERT then looks like the
// first one. The model check in ConflictTests lists every such case.

/// The local row that a remote change is about, as found by its key.
public enum LocalRow: Equatable, Sendable {
    /// No row has the key.
    case missing
    /// A row has it.
    /// - version: who changed it last and when; nil when the server no longer knows (frozen, or older than the commit
    ///   timestamps kept), or not yet (own transaction). Counts as older than any remote change.
    /// - sameOrigin: the change at hand comes from the node that changed the row last.
    /// - ownTransaction: the applying transaction itself wrote the row, for an earlier change of the same remote
    ///   transaction.
    case present(version: RowVersion?, sameOrigin: Bool, ownTransaction: Bool)
}

/// What apply does with the remote change.
public enum Decision: Equatable, Sendable {
    /// No conflict: do what the change says.
    case apply
    /// A conflict that the remote change wins: its row replaces the local one (an INSERT becomes an UPDATE).
    case applyConflict(ConflictType)
    /// A conflict that the local state wins.
    case skip(ConflictType)
    /// A conflict settled by inserting the row that the UPDATE carries.
    case insertInstead(ConflictType)
    /// A conflict that stops replication from this origin.
    case error(ConflictType)

    /// The conflict to record, nil when there was none.
    public var conflictType: ConflictType? {
        switch self {
        case .apply: nil
        case .applyConflict(let type), .skip(let type), .insertInstead(let type), .error(let type): type
        }
    }

    /// What the conflict history records; nil when nothing was resolved.
    public var resolution: Resolution? {
        switch self {
        case .apply, .error: nil
        case .applyConflict, .insertInstead: .applyRemote
        case .skip: .skip
        }
    }
}

/// Decides about an INSERT.
/// - Parameters:
///   - local: the row that has the primary key, or another unique key, of the new row.
///   - remote: commit time and origin of the change.
///   - settings: the node's resolvers.
public func decideInsert(
    local: LocalRow, remote: RowVersion, settings: ResolverSettings = ResolverSettings()
) -> Decision {
    switch local {
    case .missing: .apply
    case .present: resolve(.insertExists, local: local, remote: remote, settings: settings)
    }
}

/// Decides about an UPDATE that leaves the key alone, or whose new key is free.
/// - Parameters:
///   - local: the row that has the old key.
///   - remote: commit time and origin of the change.
///   - newRowComplete: the change carries every column (no unchanged TOAST value is missing), so that it could be
///     inserted.
///   - settings: the node's resolvers.
public func decideUpdate(
    local: LocalRow, remote: RowVersion, newRowComplete: Bool = true, settings: ResolverSettings = ResolverSettings()
) -> Decision {
    switch local {
    case .missing:
        resolve(
            .updateMissing, local: local, remote: remote, newRowComplete: newRowComplete, settings: settings)
    case .present(_, _, ownTransaction: true), .present(_, sameOrigin: true, _), .present(version: nil, _, _):
        .apply
    case .present:
        resolve(.updateOriginChange, local: local, remote: remote, settings: settings)
    }
}

/// Decides about a DELETE.
///
/// A row that is there is deleted, be its last change newer than the DELETE and by another node: row origin detection
/// sees no conflict. That is also what keeps two nodes equal while there are no tombstones: the node that deleted the
/// row will meet the newer update with no row, and skip it (`update_missing`), so the other one must not keep it.
/// - Parameters:
///   - local: the row that has the key.
///   - remote: commit time and origin of the change.
///   - settings: the node's resolvers.
public func decideDelete(
    local: LocalRow, remote: RowVersion, settings: ResolverSettings = ResolverSettings()
) -> Decision {
    switch local {
    case .missing: resolve(.deleteMissing, local: local, remote: remote, settings: settings)
    case .present: .apply
    }
}

/// Settles a conflict of a known type by the resolver in force for it.
///
/// Resolvers that need facts other than the two versions (columns and tables that are missing, DDL) are settled where
/// those are known; here they come out as an error rather than a guess.
/// - Parameters:
///   - type: the conflict.
///   - local: the row in the way, or `.missing`.
///   - remote: commit time and origin of the change.
///   - newRowComplete: the change carries every column of the row.
///   - settings: the node's resolvers.
public func resolve(
    _ type: ConflictType, local: LocalRow, remote: RowVersion, newRowComplete: Bool = true, settings: ResolverSettings
) -> Decision {
    switch settings.resolver(for: type) {
    case .error: .error(type)
    case .skip: .skip(type)
    case .update: .applyConflict(type)
    case .updateIfNewer: remoteWins(remote, over: local) ? .applyConflict(type) : .skip(type)
    case .insertOrSkip: newRowComplete ? .insertInstead(type) : .skip(type)
    case .insertOrError: newRowComplete ? .insertInstead(type) : .error(type)
    case .skipIfRecentlyDropped, .skipTransaction, .ignore, .ignoreIfNull, .useDefaultValue: .error(type)
    }
}

/// Whether the remote change is the later one.
///
/// Two transactions of one node may commit in the same microsecond; then the one that comes later in its stream is the
/// later one, for every receiver alike.
private func remoteWins(_ remote: RowVersion, over local: LocalRow) -> Bool {
    switch local {
    case .missing, .present(_, _, ownTransaction: true), .present(version: nil, _, _): true
    case .present(version: .some(let version), sameOrigin: let sameOrigin, _):
        remote > version || (sameOrigin && remote == version)
    }
}
