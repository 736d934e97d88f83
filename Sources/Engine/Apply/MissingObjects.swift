// Tables that are not here, and columns that only one side has.
//
// Columns are compared when a relation is described, or changes here; a change of a table that is the same on both sides costs
// a look at what came out of that.

internal import CHost
internal import Conflict
internal import Membership
internal import Wire

extension Applier {
    /// Makes the relation of a change ready.
    /// - Returns: false when there is no such table here, and the change is dropped for that.
    @inline(__always)
    func isHere(
        _ relation: AppliedRelation, _ transaction: BeginMessage, key: @autoclosure () -> ConflictTuple,
        remote: @autoclosure () -> ConflictTuple
    ) throws -> Bool {
        if try relation.isHere(in: self.transactionNumber) {
            if relation.isNew() {
                relation.contained = try Resynchronization.contained(relation.info.oid, of: self.settings.peerID)
            }
            return try relation.contained == 0 || !self.contains(relation, transaction)
        }
        try self.settleMissing(relation, transaction, key: key(), remote: remote())
        return false
    }

    /// Whether a copy of the table brought the transaction's changes.
    private func contains(_ relation: AppliedRelation, _ transaction: BeginMessage) throws -> Bool {
        try self.requireCommitted()
        return (self.settings.isForwarded ? transaction.originLSN : transaction.commitLSN) < relation.contained
    }

    /// - Throws: unless the change is dropped.
    private func settleMissing(
        _ relation: AppliedRelation, _ transaction: BeginMessage, key: ConflictTuple, remote: ConflictTuple
    ) throws {
        let resolver = self.resolvers.resolver(for: .targetTableMissing)
        switch resolver {
        case .skip:
            break
        case .skipIfRecentlyDropped:
            if relation.droppedIn == self.transactionNumber {
                break
            }
            guard try DroppedTables.contains(relation.description.namespace, relation.description.name) else {
                throw relation.missing()
            }
            relation.droppedIn = self.transactionNumber
        default:
            throw relation.missing(detail: Self.detail(.targetTableMissing, resolver))
        }
        try self.recordMissing(
            .targetTableMissing, .skip, relation, transaction, key: key, remote: remote, about: "There is no such table here.")
    }

    /// Settles that a row has columns which the local table lacks.
    /// - Parameter isDelete: only those of the key count, as nothing is written.
    /// - Returns: false when the change is dropped.
    @inline(__always)
    func takesColumns(
        of tuple: TupleView, _ relation: AppliedRelation, _ transaction: BeginMessage, key: TupleView, isDelete: Bool = false
    ) throws -> Bool {
        guard relation.info.status == Int32(BDR_REL_COLUMNS_MISSING) else {
            return true
        }
        return try self.settleColumns(of: tuple, relation, transaction, key: key, isDelete: isDelete)
    }

    private func settleColumns(
        of tuple: TupleView, _ relation: AppliedRelation, _ transaction: BeginMessage, key: TupleView, isDelete: Bool
    ) throws -> Bool {
        var missing: Int32 = -1
        var valued: Int32 = -1
        try self.otherBuilder.withRow(tuple, relation) { row in
            _ = try host(bdr_host_missing_values(relation.handle, &row, isDelete, &missing, &valued))
        }
        let columns = relation.description.columns
        guard columns.indices.contains(Int(missing)) else {
            return true
        }
        let resolver = self.resolvers.resolver(for: .targetColumnMissing)
        switch resolver {
        case .skip, .ignore:
            break
        case .ignoreIfNull where !columns.indices.contains(Int(valued)):
            break
        default:
            let column = columns[columns.indices.contains(Int(valued)) ? Int(valued) : Int(missing)]
            throw BdrError(
                "42703",
                "column \"\(column.name)\" of table \"\(relation.qualifiedName)\" does not exist on this node"
                    + (valued >= 0 ? ", and the peer sent a value for it" : ""),
                detail: Self.detail(.targetColumnMissing, resolver),
                hint: "Add the column here, for example with ALTER TABLE \(try Self.quoted(relation)) ADD COLUMN "
                    + "\(try SQL.quoteIdentifier(column.name)) \(column.typeName), or choose another resolver for the conflict "
                    + "type; replication then goes on by itself.")
        }
        let resolution: Resolution = resolver == .skip ? .skip : .applyRemote
        try self.recordMissing(
            .targetColumnMissing, resolution, relation, transaction, key: .tuple(key), remote: isDelete ? .none : .tuple(tuple),
            about: "There is no column \"\(columns[Int(missing)].name)\" here.")
        return resolution != .skip
    }

    /// Whether rows are inserted although the peer does not have all columns, or each is looked at first.
    func fillsColumns(_ relation: AppliedRelation) -> Bool {
        relation.info.lacks_columns == 0 || self.resolvers.resolver(for: .sourceColumnMissing) == .useDefaultValue
    }

    /// Settles that a row which is to be inserted lacks columns, where they are not filled.
    /// - Throws: unless the change is dropped.
    func dropLacking(
        _ relation: AppliedRelation, _ transaction: BeginMessage, key: ConflictTuple, remote: ConflictTuple
    ) throws {
        let resolver = self.resolvers.resolver(for: .sourceColumnMissing)
        guard resolver == .skip else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState,
                "a new row of table \"\(relation.qualifiedName)\" has no value for \(try Self.lacked(relation))",
                detail: Self.detail(.sourceColumnMissing, resolver),
                hint: "Make the tables alike, or choose another resolver for the conflict type; replication then goes on by itself.")
        }
        try self.recordMissing(
            .sourceColumnMissing, .skip, relation, transaction, key: key, remote: remote,
            about: "The peer does not have \(try Self.lacked(relation)).")
    }

    /// A row was inserted, with defaults for columns that it lacked.
    func recordDefaults(
        _ relation: AppliedRelation, _ transaction: BeginMessage, key: ConflictTuple, remote: ConflictTuple
    ) throws {
        try self.recordMissing(
            .sourceColumnMissing, .applyRemote, relation, transaction, key: key, remote: remote, isStored: true,
            about: "The peer does not have \(try Self.lacked(relation)).")
    }

    private func recordMissing(
        _ type: ConflictType, _ resolution: Resolution, _ relation: AppliedRelation, _ transaction: BeginMessage,
        key: ConflictTuple, remote: ConflictTuple, isStored: Bool = false, about: @autoclosure () throws -> String
    ) throws {
        try self.requireCommitted()
        bdr_host_progress_count(Int32(BDR_COUNT_CONFLICT), 1)
        try self.conflicts.record(
            type, resolution, relation, transaction, version: self.version(transaction), change: self.change, found: BdrFound(),
            local: .unknown, key: key, remote: remote, isStored: isStored, about: about())
    }

    // MARK: Texts

    private static func detail(_ type: ConflictType, _ resolver: Resolver) -> String {
        "Conflict type \(type.rawValue); its resolver is \"\(resolver.rawValue)\"."
    }

    private static func lacked(_ relation: AppliedRelation) throws -> String {
        var names: UnsafePointer<CChar>?
        try host(bdr_host_lacked_columns(relation.handle, &names))
        return "column \(names.map { String(cString: $0) } ?? "")"
    }

    private static func quoted(_ relation: AppliedRelation) throws -> String {
        try SQL.quoteIdentifier(relation.description.namespace) + "." + SQL.quoteIdentifier(relation.description.name)
    }
}
