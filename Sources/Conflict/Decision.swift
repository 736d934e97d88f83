// What to do with a remote change, given what is known here of the key that it is about.
//
// The law: of all operations on a key the one with the greatest (commit time, node id) decides, as a whole row. A delete is an
// operation; a change of the key is a delete of the old key and an insert of the new one at the same time. Operations of one
// node on a key come in the order in which it made them, so that a later one of the same node always wins.
//
// For the law to hold wherever an operation arrives, and whatever arrived before, a key that has no row must not be
// forgotten as long as an older operation can come: that is what stamps are for (LocalState.missing).

/// What is known here of a key.
public enum LocalState: Equatable, Sendable {
    /// No row has it.
    /// - stamp: the newest operation on the key that is remembered: the delete, as a rule. nil when none is.
    /// - sameOrigin: it was the node's that the change at hand comes from.
    /// - ownTransaction: the applying transaction itself left it, for an earlier change of the same remote transaction.
    case missing(stamp: RowVersion?, sameOrigin: Bool, ownTransaction: Bool)
    /// A row has it.
    /// - version: who changed it last and when; nil when that is not known any more (frozen, or older than the commit
    ///   timestamps kept). Counts as older than any remote change.
    /// - sameOrigin: the change at hand comes from the node that changed the row last.
    /// - ownTransaction: the applying transaction itself wrote the row, for an earlier change of the same remote
    ///   transaction.
    case present(version: RowVersion?, sameOrigin: Bool, ownTransaction: Bool)

    /// No row has the key, and nothing is remembered of it.
    public static let unknown = LocalState.missing(stamp: nil, sameOrigin: false, ownTransaction: false)

    /// Whether an operation is later than what is known here.
    ///
    /// Two transactions of one node may commit in the same microsecond, or its clock may be set back between them: the one
    /// that comes later in its stream is the later one, for every receiver alike.
    /// - Parameter remote: commit time and origin of the operation.
    public func isOlder(than remote: RowVersion) -> Bool {
        switch self {
        case .missing(_, _, ownTransaction: true), .present(_, _, ownTransaction: true),
            .missing(_, sameOrigin: true, _), .present(_, sameOrigin: true, _),
            .missing(stamp: nil, _, _), .present(version: nil, _, _):
            true
        case .missing(stamp: .some(let version), _, _), .present(version: .some(let version), _, _):
            remote > version
        }
    }
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
    /// - orError: when columns of it can't be had, that is an error; otherwise the change is dropped.
    case insertInstead(ConflictType, orError: Bool)
    /// A conflict that stops replication from this origin.
    case error(ConflictType)

    /// The conflict to record, nil when there was none.
    public var conflictType: ConflictType? {
        switch self {
        case .apply: nil
        case .applyConflict(let type), .skip(let type), .insertInstead(let type, _), .error(let type): type
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
///   - local: what is known of the primary key, or of the row that has another unique key of the new row.
///   - remote: commit time and origin of the change.
///   - settings: the node's resolvers.
public func decideInsert(
    local: LocalState, remote: RowVersion, settings: ResolverSettings = ResolverSettings()
) -> Decision {
    switch local {
    case .missing:
        local.isOlder(than: remote)
            ? .apply : resolve(.insertRecentlyDeleted, local: local, remote: remote, settings: settings)
    case .present:
        resolve(.insertExists, local: local, remote: remote, settings: settings)
    }
}

/// Decides about an UPDATE that leaves the key alone, or about the old key of one that doesn't.
/// - Parameters:
///   - local: what is known of the key.
///   - remote: commit time and origin of the change.
///   - settings: the node's resolvers.
///   - differs: rows have versions (method row_version): whether that of the row here is another one than the change was made
///     with. nil: they have none, or the change did not bring it.
public func decideUpdate(
    local: LocalState, remote: RowVersion, settings: ResolverSettings = ResolverSettings(), differs: Bool? = nil
) -> Decision {
    switch local {
    case .present(_, _, ownTransaction: false) where differs == true:
        resolve(.updateDiffering, local: local, remote: remote, settings: settings)
    // two nodes may have counted up to the same number, so that the times have the last word
    case .present(_, _, ownTransaction: false) where differs == false && local.isOlder(than: remote):
        .apply
    case .missing(stamp: nil, _, ownTransaction: false):
        resolve(.updateMissing, local: local, remote: remote, settings: settings)
    case .missing:
        resolve(.updateRecentlyDeleted, local: local, remote: remote, settings: settings)
    case .present(_, _, ownTransaction: true), .present(_, sameOrigin: true, _), .present(version: nil, _, _):
        .apply
    case .present:
        resolve(.updateOriginChange, local: local, remote: remote, settings: settings)
    }
}

/// Decides about a DELETE.
/// - Parameters:
///   - local: what is known of the key.
///   - remote: commit time and origin of the change.
///   - settings: the node's resolvers.
///   - differs: as for `decideUpdate`.
public func decideDelete(
    local: LocalState, remote: RowVersion, settings: ResolverSettings = ResolverSettings(), differs: Bool? = nil
) -> Decision {
    switch local {
    case .present(_, _, ownTransaction: false) where differs == true:
        resolve(.deleteRecentlyUpdated, local: local, remote: remote, settings: settings)
    case .missing:
        resolve(.deleteMissing, local: local, remote: remote, settings: settings)
    case .present:
        local.isOlder(than: remote)
            ? .apply : resolve(.deleteRecentlyUpdated, local: local, remote: remote, settings: settings)
    }
}

/// Decides about the new key of an UPDATE that changes it.
/// - Parameters:
///   - local: what is known of the new key.
///   - remote: commit time and origin of the change.
///   - settings: the node's resolvers.
public func decideNewKey(
    local: LocalState, remote: RowVersion, settings: ResolverSettings = ResolverSettings()
) -> Decision {
    switch local {
    case .missing:
        local.isOlder(than: remote)
            ? .apply : resolve(.updateRecentlyDeleted, local: local, remote: remote, settings: settings)
    case .present:
        resolve(.updatePkeyExists, local: local, remote: remote, settings: settings)
    }
}

/// Settles a conflict of a known type by the resolver in force for it.
///
/// Resolvers that need facts other than the two versions (columns and tables that are missing, DDL) are settled where
/// those are known; here they come out as an error rather than a guess.
/// - Parameters:
///   - type: the conflict.
///   - local: what is known of the key.
///   - remote: commit time and origin of the change.
///   - settings: the node's resolvers.
public func resolve(
    _ type: ConflictType, local: LocalState, remote: RowVersion, settings: ResolverSettings
) -> Decision {
    switch settings.resolver(for: type) {
    case .error: .error(type)
    case .skip: .skip(type)
    case .update: .applyConflict(type)
    case .updateIfNewer: local.isOlder(than: remote) ? .applyConflict(type) : .skip(type)
    case .insertOrSkip: local.isOlder(than: remote) ? .insertInstead(type, orError: false) : .skip(type)
    case .insertOrError: local.isOlder(than: remote) ? .insertInstead(type, orError: true) : .skip(type)
    case .skipIfRecentlyDropped, .skipTransaction, .ignore, .ignoreIfNull, .useDefaultValue: .error(type)
    }
}

/// Whether a value that an UPDATE only says to be unchanged is the one that the row has here. (The WAL leaves out values that
/// are stored out of line when they don't change.)
///
/// Two values that the same operation wrote are the same. And a row that the change's origin wrote last, after it wrote
/// the value last, has its value: after that write the whole row was as it is there.
/// - Parameters:
///   - there: who wrote the value at the origin; nil when that is not known any more.
///   - here: who wrote it here; nil likewise.
///   - row: who wrote the row here last; nil likewise.
///   - remote: commit time and origin of the change.
///   - ownTransaction: the same remote transaction wrote the row here last.
public func keepsUnchanged(
    there: RowVersion?, here: RowVersion?, row: RowVersion?, remote: RowVersion, ownTransaction: Bool
) -> Bool {
    if ownTransaction {
        return true
    }
    guard let there else {
        return false
    }
    if let here, here == there {
        return true
    }
    guard let row else {
        return false
    }
    return row.node == remote.node && row >= there
}
