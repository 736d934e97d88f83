// The conflict types, and which resolvers each of them allows: the thirteen of BDR, and one more.

/// What went wrong when a remote change met the local state. Raw values are the names users see and set.
public enum ConflictType: String, CaseIterable, Sendable {
    /// INSERT of a row whose primary key, or any unique key, exists here.
    case insertExists = "insert_exists"
    /// UPDATE whose old row differs from the local row (row version detection).
    case updateDiffering = "update_differing"
    /// UPDATE of a row that another node than the change's origin changed last.
    case updateOriginChange = "update_origin_change"
    /// UPDATE of a row that does not exist here.
    case updateMissing = "update_missing"
    /// UPDATE of a row that is known to have been deleted here.
    case updateRecentlyDeleted = "update_recently_deleted"
    /// UPDATE that gives the row a key which another row here has.
    case updatePkeyExists = "update_pkey_exists"
    /// A row that collides with several other rows, each over another unique key.
    case multipleUniqueConflicts = "multiple_unique_conflicts"
    /// DELETE that is older than the row's last change here.
    case deleteRecentlyUpdated = "delete_recently_updated"
    /// DELETE of a row that does not exist here.
    case deleteMissing = "delete_missing"
    /// The incoming row has columns that the local table lacks.
    case targetColumnMissing = "target_column_missing"
    /// The local table has columns that the incoming row lacks.
    case sourceColumnMissing = "source_column_missing"
    /// The table does not exist here.
    case targetTableMissing = "target_table_missing"
    /// A replicated DDL statement raised an error.
    case applyErrorDdl = "apply_error_ddl"
    /// INSERT that is older than the deletion of a row with its key here. BDR has no such type: there the row comes back.
    case insertRecentlyDeleted = "insert_recently_deleted"

    /// The resolver BDR documents as the default.
    ///
    /// What a new node really starts with is `ResolverSettings()`, which may differ; it says where and why.
    public var defaultResolver: Resolver {
        switch self {
        case .insertExists, .updateDiffering, .updateOriginChange, .updatePkeyExists: .updateIfNewer
        case .updateMissing: .insertOrSkip
        case .updateRecentlyDeleted, .deleteRecentlyUpdated, .deleteMissing, .insertRecentlyDeleted: .skip
        case .multipleUniqueConflicts, .applyErrorDdl: .error
        case .targetColumnMissing: .ignoreIfNull
        case .sourceColumnMissing: .useDefaultValue
        case .targetTableMissing: .skipIfRecentlyDropped
        }
    }

    /// The resolvers that may be set for this type.
    public var allowedResolvers: Set<Resolver> {
        switch self {
        case .insertExists, .updateDiffering, .updateOriginChange, .updatePkeyExists:
            [.error, .skip, .updateIfNewer, .update]
        case .updateMissing, .updateRecentlyDeleted:
            [.error, .skip, .insertOrSkip, .insertOrError]
        case .multipleUniqueConflicts, .deleteRecentlyUpdated:
            [.error, .skip, .updateIfNewer, .update]
        case .insertRecentlyDeleted:
            [.error, .skip, .update]
        case .deleteMissing:
            [.error, .skip]
        case .targetColumnMissing:
            [.error, .skip, .ignore, .ignoreIfNull]
        case .sourceColumnMissing:
            [.error, .skip, .useDefaultValue]
        case .targetTableMissing:
            [.error, .skip, .skipIfRecentlyDropped]
        case .applyErrorDdl:
            [.error, .skipTransaction]
        }
    }

    /// Whether a conflict trigger (user code that gets both rows) may settle conflicts of this type.
    public var allowsConflictTrigger: Bool {
        switch self {
        case .targetColumnMissing, .sourceColumnMissing, .targetTableMissing, .applyErrorDdl: false
        default: true
        }
    }
}
