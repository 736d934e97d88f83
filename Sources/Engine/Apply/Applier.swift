// Applies the messages of one origin to local tables, one local transaction for each remote one.
//
// Conflicts are looked for only where rows disagree: an insert is tried first, and the decision core (module Conflict) is asked
// when a row is already there; an update or delete asks it when the row found was last written by somebody else.

internal import CHost
internal import Conflict
internal import Membership
internal import Wire

final class Applier {
    private let settings: ApplySettings
    private var origins: OriginMap
    private let conflicts: ConflictLog
    private var resolvers: ResolverSettings { self.conflicts.resolvers }
    private var relations: [UInt32: AppliedRelation] = [:]
    private let builder = RowBuilder()

    /// The remote transaction being applied; nil between transactions.
    private(set) var transaction: BeginMessage?
    /// True while a transaction is received that this node has already: its messages are read and dropped.
    private var skipping = false
    /// End of the last transaction committed here.
    private var progress: UInt64
    private var transactionNumber: UInt64 = 0
    /// Number of the change inside its transaction, from 1, for error messages.
    private var change: UInt64 = 0

    /// Inserts of one table waiting to be written together.
    private var batch: [BdrRow] = []
    private var batchRelation: AppliedRelation?
    /// Number of the first of them.
    private var batchFirst: UInt64 = 0
    private static let batchLimit = 1000

    /// - Parameter progress: end of the last remote transaction that is committed here.
    init(settings: ApplySettings, progress: UInt64) {
        self.settings = settings
        self.origins = OriginMap(localID: settings.localID)
        self.conflicts = ConflictLog(settings: settings)
        self.progress = progress
        self.batch.reserveCapacity(Self.batchLimit)
    }

    /// Applies whole messages. `committed` is called for each remote transaction that is committed locally, with the remote
    /// end position and the end of the local commit record (0 when nothing was written).
    func apply(_ bytes: UnsafeRawBufferPointer, committed: (UInt64, UInt64) -> Void) throws {
        var cursor = MessageCursor(bytes)
        while let (type, body) = try cursor.next() {
            if type != .insert {
                try self.flushBatch()
            }
            switch type {
            case .insert: try self.insert(body)
            case .update: try self.update(body)
            case .delete: try self.delete(body)
            case .begin: try self.begin(BeginMessage(decoding: body))
            case .commit: try self.commit(CommitMessage(decoding: body), committed)
            case .relation: try self.relation(RelationMessage(decoding: body))
            case .truncate: try self.truncate(TruncateMessage(decoding: body))
            case .startup: try self.startup(StartupMessage(decoding: body))
            case .message: try self.message(LogicalMessage(decoding: body))
            }
        }
        // the rows point into the buffer, which is about to be reused
        try self.flushBatch()
    }

    // MARK: Transactions

    private func startup(_ message: StartupMessage) throws {
        guard message.protocolVersion == 1 else {
            throw BdrError(
                SQLSTATE.featureNotSupported,
                "node \"\(self.settings.sourceName)\" speaks protocol version \(message.protocolVersion)",
                detail: "This node knows version 1.", hint: "Bring both nodes to the same version of bdr.")
        }
        if let name = message["node_name"], name != self.settings.sourceName {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState,
                "the server reached as node \"\(self.settings.sourceName)\" says that it is node \"\(name)\"",
                hint: "Correct the connection string of the node.")
        }
    }

    private func begin(_ message: BeginMessage) throws {
        guard self.transaction == nil else {
            throw BdrError(SQLSTATE.protocolViolation, "a transaction began inside another one")
        }
        self.change = 0
        if self.settings.isForwarded {
            guard message.originNode == self.settings.peerID, message.originLSN != 0 else {
                throw BdrError(
                    SQLSTATE.protocolViolation, "node \"\(self.settings.sourceName)\" forwarded what it was not asked for")
            }
            self.skipping = message.originLSN <= self.progress
        } else {
            // the peer starts where it is asked to; this is the second lock on the door
            self.skipping = message.commitLSN < self.progress
        }
        self.transaction = message
        if !self.skipping {
            self.transactionNumber &+= 1
            try host(bdr_host_apply_begin(message.commitLSN, message.commitTime))
            try self.conflicts.begin()
        }
    }

    private func commit(_ message: CommitMessage, _ committed: (UInt64, UInt64) -> Void) throws {
        guard let begin = self.transaction, begin.commitLSN == message.commitLSN else {
            throw BdrError(SQLSTATE.protocolViolation, "a commit arrived that belongs to no transaction")
        }
        self.transaction = nil
        if self.skipping {
            self.skipping = false
            return
        }
        var localEnd: UInt64 = 0
        // in the WAL of the node where it was committed first
        let end = self.settings.isForwarded ? begin.originLSN : message.endLSN
        do {
            if self.settings.tracksPosition {
                try SQL.query(
                    """
                    INSERT INTO bdr.origin_position (origin_node_id, position)
                    VALUES ($1::pg_catalog.oid, $2::pg_catalog.pg_lsn)
                    ON CONFLICT (origin_node_id) DO UPDATE SET position = EXCLUDED.position
                    """, [String(self.settings.peerID), LSN.text(end)])
            }
            try self.conflicts.flush()
            try host(bdr_host_apply_commit(end, message.commitTime, &localEnd))
        } catch {
            bdr_host_error_add_context(
                "during apply of COMMIT from node \"\(self.settings.peerName)\", commit LSN "
                    + LSN.text(message.commitLSN))
            throw error
        }
        self.progress = end
        committed(message.endLSN, localEnd)
        bdr_host_progress_applied(message.endLSN, message.commitTime)
        bdr_host_progress_count(Int32(BDR_COUNT_COMMIT), 1)
        try self.conflicts.committed()
    }

    private func message(_ message: LogicalMessage) throws {
        // transactional ones only mark a place
        guard !message.isTransactional, !self.settings.isForwarded else {
            return
        }
        guard self.transaction == nil else {
            throw BdrError(SQLSTATE.protocolViolation, "a report arrived inside a transaction")
        }
        switch message.prefix {
        case Progress.reportPrefix:
            guard let text = String(validating: message.content, as: UTF8.self) else {
                throw BdrError(SQLSTATE.protocolViolation, "a node's report of its progress is malformed")
            }
            let report = try ProgressReport(text: text)
            try Transaction.run { try Progress.store(report, of: self.settings.peerID) }
        case Progress.requestPrefix:
            try Transaction.run { _ = try Progress.report() }
        default:
            break
        }
    }

    private func requireTransaction() throws -> BeginMessage {
        guard let transaction = self.transaction else {
            throw BdrError(SQLSTATE.protocolViolation, "a change arrived outside of a transaction")
        }
        return transaction
    }

    private func relation(_ message: RelationMessage) throws {
        self.relations[message.relId] = try AppliedRelation(message)
    }

    private func relation(_ id: UInt32) throws -> AppliedRelation {
        guard let relation = self.relations[id] else {
            throw BdrError(SQLSTATE.protocolViolation, "a change names relation \(id), which was never described")
        }
        return relation
    }

    private func version(_ transaction: BeginMessage) -> RowVersion {
        RowVersion(
            time: transaction.commitTime,
            node: transaction.originNode == 0 ? self.settings.peerID : transaction.originNode)
    }

    /// The local row as the decision core sees it.
    private func localRow(_ found: BdrFound, _ remote: RowVersion) throws -> LocalRow {
        if found.found == 0 {
            return .missing
        }
        if found.own_transaction != 0 {
            return .present(version: nil, sameOrigin: true, ownTransaction: true)
        }
        // what a join has copied is older than any change, and the first change of it no conflict
        if found.has_version == 0 || found.commit_time <= SnapshotCopy.copyTimestamp {
            return .present(version: nil, sameOrigin: false, ownTransaction: false)
        }
        let node = try self.origins.node(origin: found.origin)
        return .present(
            version: RowVersion(time: found.commit_time, node: node), sameOrigin: node == remote.node,
            ownTransaction: false)
    }

    // MARK: Rows

    private func insert(_ body: UnsafeRawBufferPointer) throws {
        let message = try InsertMessage(decoding: body)
        let transaction = try self.requireTransaction()
        self.change &+= 1
        if self.skipping {
            return
        }
        let relation = try self.relation(message.relId)
        do {
            try relation.use(in: self.transactionNumber)
            if case .raw = message.tuple, relation.info.same_layout != 0 {
                if self.batchRelation !== relation || self.batch.count >= Self.batchLimit {
                    try self.flushBatch()
                    self.batchRelation = relation
                }
                if self.batch.isEmpty {
                    self.batchFirst = self.change
                }
                var row = BdrRow()
                try RowBuilder.fillRaw(&row, message.tuple, relation)
                self.batch.append(row)
                return
            }
            try self.flushBatch()
            try self.builder.withRow(message.tuple, relation) { row in
                try self.insertRow(&row, relation, transaction)
            }
        } catch {
            throw self.inContext(error, "INSERT", relation, message.tuple)
        }
    }

    private func flushBatch() throws {
        guard let relation = self.batchRelation else {
            return
        }
        self.batchRelation = nil
        defer { self.batch.removeAll(keepingCapacity: true) }
        let transaction = try self.requireTransaction()
        var done: Int32 = 0
        let count = self.batch.count
        do {
            try self.batch.withUnsafeBufferPointer { rows in
                _ = try host(
                    bdr_host_insert_batch(relation.handle, rows.baseAddress, Int32(clamping: rows.count), &done))
            }
        } catch {
            throw self.inContext(error, "INSERT", relation, nil, rows: count)
        }
        if done > 0 {
            bdr_host_progress_count(Int32(BDR_COUNT_INSERT), UInt64(done))
        }
        // the optimistic way met a row that exists (or was not worth it): one by one, with detection
        let last = self.change
        for number in Int(done)..<count {
            self.change = self.batchFirst &+ UInt64(number)
            do {
                try self.insertRow(&self.batch[number], relation, transaction)
            } catch {
                let row = self.batch[number]
                let tuple = TupleView.raw(
                    attributeCount: Int(row.attributes), hasNulls: row.has_nulls != 0, hasVarWidth: row.has_varwidth != 0,
                    bitmap: UnsafeRawBufferPointer(
                        start: row.bitmap, count: row.has_nulls != 0 ? (Int(row.attributes) + 7) / 8 : 0),
                    data: UnsafeRawBufferPointer(start: row.data, count: Int(row.data_length)))
                throw self.inContext(error, "INSERT", relation, tuple)
            }
        }
        self.change = last
    }

    private func insertRow(_ row: inout BdrRow, _ relation: AppliedRelation, _ transaction: BeginMessage) throws {
        let remote = self.version(transaction)
        while true {
            var found = BdrFound()
            switch try host(bdr_host_insert(relation.handle, &row, &found)) {
            case Int32(BDR_RETRY):
                continue
            case Int32(BDR_CONFLICT):
                break
            default:
                bdr_host_progress_count(Int32(BDR_COUNT_INSERT), 1)
                return
            }
            if found.found > 1 {
                throw BdrError(
                    "23505", "the row conflicts with several rows under different unique keys",
                    detail: "Conflict type multiple_unique_conflicts; its resolver is \"error\".",
                    hint: "Change or delete the rows in the way on this node; replication then goes on by itself.")
            }
            let local = try self.localRow(found, remote)
            let decision = decideInsert(local: local, remote: remote, settings: self.resolvers)
            bdr_host_progress_count(Int32(BDR_COUNT_CONFLICT), 1)
            switch decision {
            case .apply, .applyConflict, .insertInstead:
                if try host(bdr_host_update_found(relation.handle, &row)) == BDR_RETRY {
                    continue
                }
                bdr_host_progress_count(Int32(BDR_COUNT_INSERT), 1)
            case .skip:
                break
            case .error(let type):
                throw Self.resolverError(type)
            }
            try self.record(
                decision, relation, transaction, found: found, local: local, key: .row(row), remote: .row(row))
            return
        }
    }

    private func update(_ body: UnsafeRawBufferPointer) throws {
        let message = try UpdateMessage(decoding: body)
        let transaction = try self.requireTransaction()
        self.change &+= 1
        if self.skipping {
            return
        }
        let relation = try self.relation(message.relId)
        let key = message.old ?? message.new
        do {
            try relation.use(in: self.transactionNumber)
            let remote = self.version(transaction)
            while true {
                var found = BdrFound()
                try self.builder.withRow(key, relation) { row in
                    _ = try host(bdr_host_find(relation.handle, &row, &found))
                }
                let local = try self.localRow(found, remote)
                let decision = decideUpdate(
                    local: local, remote: remote, newRowComplete: false, settings: self.resolvers)
                if decision.conflictType != nil {
                    bdr_host_progress_count(Int32(found.found == 0 ? BDR_COUNT_MISSING : BDR_COUNT_CONFLICT), 1)
                }
                switch decision {
                case .apply, .applyConflict, .insertInstead:
                    let outcome = try self.builder.withRow(message.new, relation) { row in
                        try host(bdr_host_update_found(relation.handle, &row))
                    }
                    if outcome == BDR_RETRY {
                        continue
                    }
                    bdr_host_progress_count(Int32(BDR_COUNT_UPDATE), 1)
                case .skip:
                    break
                case .error(let type):
                    throw Self.resolverError(type)
                }
                try self.record(
                    decision, relation, transaction, found: found, local: local, key: .tuple(key),
                    remote: .tuple(message.new))
                return
            }
        } catch {
            throw self.inContext(error, "UPDATE", relation, key)
        }
    }

    private func delete(_ body: UnsafeRawBufferPointer) throws {
        let message = try DeleteMessage(decoding: body)
        let transaction = try self.requireTransaction()
        self.change &+= 1
        if self.skipping {
            return
        }
        let relation = try self.relation(message.relId)
        do {
            try relation.use(in: self.transactionNumber)
            let remote = self.version(transaction)
            while true {
                var found = BdrFound()
                try self.builder.withRow(message.old, relation) { row in
                    _ = try host(bdr_host_find(relation.handle, &row, &found))
                }
                let local = try self.localRow(found, remote)
                let decision = decideDelete(local: local, remote: remote, settings: self.resolvers)
                if decision.conflictType != nil {
                    bdr_host_progress_count(Int32(found.found == 0 ? BDR_COUNT_MISSING : BDR_COUNT_CONFLICT), 1)
                }
                switch decision {
                case .apply, .applyConflict, .insertInstead:
                    if try host(bdr_host_delete_found(relation.handle)) == BDR_RETRY {
                        continue
                    }
                    bdr_host_progress_count(Int32(BDR_COUNT_DELETE), 1)
                case .skip:
                    break
                case .error(let type):
                    throw Self.resolverError(type)
                }
                try self.record(
                    decision, relation, transaction, found: found, local: local, key: .tuple(message.old), remote: .none)
                return
            }
        } catch {
            throw self.inContext(error, "DELETE", relation, message.old)
        }
    }

    private func truncate(_ message: TruncateMessage) throws {
        _ = try self.requireTransaction()
        self.change &+= 1
        if self.skipping {
            return
        }
        let relations = try message.relIds.map { try self.relation($0) }
        do {
            for relation in relations {
                try relation.use(in: self.transactionNumber)
            }
            let handles = relations.map { $0.handle }
            try handles.withUnsafeBufferPointer { handles in
                _ = try host(
                    bdr_host_truncate(
                        handles.baseAddress, Int32(clamping: handles.count), message.cascade, message.restartIdentity))
            }
            for relation in self.relations.values {
                relation.forgetUse()
            }
            bdr_host_progress_count(Int32(BDR_COUNT_TRUNCATE), 1)
        } catch {
            guard let first = relations.first else {
                throw error
            }
            throw self.inContext(error, "TRUNCATE", first, nil)
        }
    }

    /// Records what was decided, and done, if it was about a conflict.
    private func record(
        _ decision: Decision, _ relation: AppliedRelation, _ transaction: BeginMessage, found: BdrFound, local: LocalRow,
        key: ConflictTuple, remote: ConflictTuple
    ) throws {
        guard let type = decision.conflictType, let resolution = decision.resolution else {
            return
        }
        var isStored = resolution != .skip
        if case .none = remote {
            isStored = false
        }
        try self.conflicts.record(
            type, resolution, relation, transaction, version: self.version(transaction), change: self.change, found: found,
            local: local, key: key, remote: remote, isStored: isStored)
    }

    // MARK: Errors

    private static func resolverError(_ type: ConflictType) -> BdrError {
        BdrError(
            SQLSTATE.objectNotInPrerequisiteState, "conflict \(type.rawValue) is set to stop replication",
            detail: "The resolver of the conflict type is \"error\".",
            hint: "Remove the cause, or choose another resolver for the conflict type.")
    }

    /// Adds where in the stream an error happened, once.
    private func inContext(
        _ error: any Error, _ operation: String, _ relation: AppliedRelation, _ tuple: TupleView?, rows: Int = 1
    ) -> any Error {
        var context = "during apply of \(operation) to \(relation.qualifiedName) from node \"\(self.settings.peerName)\""
        if let transaction = self.transaction {
            context += ", commit LSN \(LSN.text(transaction.commitLSN))"
        }
        if rows > 1 {
            context += ", changes #\(self.change &- UInt64(rows) &+ 1) to #\(self.change)"
        } else {
            context += ", change #\(self.change)"
        }
        if let tuple {
            let key = RowBuilder.keyText(tuple, relation)
            if !key.isEmpty {
                context += ", key \(key)"
            }
        }
        if let located = error as? LocatedError {
            return located
        }
        setPending(error)
        bdr_host_error_add_context(context)
        return LocatedError()
    }
}

/// A pending error that already says where it happened.
struct LocatedError: Error {}
