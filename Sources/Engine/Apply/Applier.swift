// Applies the messages of one origin to local tables, one local transaction for each remote one.
//
// Conflicts are looked for only where rows disagree: an insert is tried first, and the decision core (module Conflict) is asked
// when a row is already there, or the key was deleted; an update or delete asks it of every row.

internal import CHost
internal import Conflict
internal import Membership
internal import Wire

final class Applier {
    let settings: ApplySettings
    var origins: OriginMap
    let conflicts: ConflictLog
    var resolvers: ResolverSettings { self.conflicts.resolvers }
    var relations: [UInt32: AppliedRelation] = [:]
    let builder = RowBuilder()
    let otherBuilder = RowBuilder()
    let oldBuilder = RowBuilder()
    let fetch: ValueFetch
    /// Deletes of this origin leave stamps: there are other nodes whose operations may be older and still come.
    var keepsStamps = true

    /// The remote transaction being applied; nil between transactions.
    var transaction: BeginMessage?
    /// True while a transaction is received that this node has already: its messages are read and dropped.
    var skipping = false
    /// True while the rest of a transaction is dropped that is left out on purpose; it counts as applied.
    var leavesOut = false
    /// End of the last transaction committed here.
    var progress: UInt64
    var transactionNumber: UInt64 = 0
    /// Number of the change inside its transaction, from 1, for error messages.
    var change: UInt64 = 0

    /// When the log was told last that a clock differs, microseconds since 2000.
    var warnedOfClock = Int64.min / 2
    /// Called from time to time while a change waits.
    var whileWaiting: () throws -> Void = {}

    /// Global locks that the transaction gives up when it is committed.
    var locks: [String] = []
    /// One of several that are applied at the same time.
    var turn: Turn?
    /// A transaction that is in progress on its origin, and applied by this process, a writer.
    var streamed: StreamedTransaction?
    /// Of the process that has writers for such transactions.
    var streams: StreamWriters?

    /// Inserts of one table waiting to be written together.
    var batch: [BdrRow] = []
    var batchRelation: AppliedRelation?
    /// Number of the first of them.
    var batchFirst: UInt64 = 0
    static let batchLimit = 1000

    /// - Parameter progress: end of the last remote transaction that is committed here.
    init(settings: ApplySettings, progress: UInt64) {
        self.settings = settings
        self.origins = OriginMap(localID: settings.localID)
        self.fetch = ValueFetch(settings: settings)
        self.conflicts = ConflictLog(settings: settings)
        self.progress = progress
        self.batch.reserveCapacity(Self.batchLimit)
    }

    /// Applies whole messages. `committed` is called for each remote transaction that is committed locally, with the remote
    /// end position and the end of the local commit record (0 when nothing was written).
    func apply(_ bytes: UnsafeRawBufferPointer, committed: (UInt64, UInt64) -> Void) throws {
        var cursor = MessageCursor(bytes)
        while true {
            let start = cursor.offset
            guard let (type, body) = try cursor.next() else {
                break
            }
            if let streams = self.streams {
                if try streams.take(type, body, bytes, start..<cursor.offset) {
                    if type == .relation {
                        try self.relation(RelationMessage(decoding: body))
                    }
                    continue
                }
            }
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
            case .subtransaction: try self.subtransaction(SubtransactionMessage(decoding: body).xid)
            case .streamAbort: try self.streams?.abort(StreamAbortMessage(decoding: body))
            case .streamCommit: try self.commit(StreamCommitMessage(decoding: body), committed)
            case .streamStart, .streamStop:
                throw BdrError(SQLSTATE.protocolViolation, "a transaction in progress arrived that was not asked for")
            }
        }
        // the rows point into the buffer, which is about to be reused
        try self.flushBatch()
        try self.streams?.endOfBytes(bytes)
    }

    // MARK: Transactions

    func startup(_ message: StartupMessage) throws {
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

    func begin(_ message: BeginMessage) throws {
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
            self.keepsStamps = bdr_host_members() != 1
            try self.waitForClock(message.commitTime)
            try host(bdr_host_apply_begin(message.commitLSN, message.commitTime))
            let version = self.version(message)
            try host(bdr_host_columns_version(version.time, version.node))
            try self.conflicts.begin()
        }
    }

    /// What is written here on top of a remote change must not be dated before it. So the change waits until the clock of this
    /// server has passed its commit time.
    func waitForClock(_ commitTime: Int64) throws {
        guard commitTime >= bdr_host_now() else {
            return
        }
        let allowed = Int64(bdr_host_setting_int("bdr.maximum_clock_skew", 0))
        guard allowed >= 0 else {
            return
        }
        let waits = bdr_host_setting("bdr.maximum_clock_skew_action").map { String(cString: $0) } == "wait"
        while true {
            let now = bdr_host_now()
            let ahead = commitTime &- now &- allowed &* 1000
            guard ahead >= 0 else {
                return
            }
            if ahead > 1_000_000 || !waits, now &- self.warnedOfClock > 60_000_000 {
                self.warnedOfClock = now
                try Log.warning(
                    "the clock of node \"\(self.settings.peerName)\" is \((commitTime &- now) / 1000) ms ahead of this one's",
                    sqlstate: SQLSTATE.objectNotInPrerequisiteState,
                    detail: waits ? "Its changes wait until this server's clock has passed their commit time." : nil,
                    hint: "Have both servers' clocks synchronised (NTP).")
            }
            guard waits else {
                return
            }
            try self.whileWaiting()
            if try host(bdr_host_wait(nil, min(1000, ahead / 1000 + 1))) & Int32(BDR_WAIT_SHUTDOWN) != 0 {
                throw BdrError("57P01", "terminating while a change waited for the clock")
            }
        }
    }

    func commit(_ message: CommitMessage, _ committed: (UInt64, UInt64) -> Void) throws {
        guard let begin = self.transaction, begin.commitLSN == message.commitLSN else {
            throw BdrError(SQLSTATE.protocolViolation, "a commit arrived that belongs to no transaction")
        }
        self.transaction = nil
        if self.skipping {
            self.skipping = false
            guard self.leavesOut else {
                return
            }
            self.leavesOut = false
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
            try self.waitForTurn()
            try self.conflicts.flush()
            if !self.locks.isEmpty {
                try LockVotes.applied(self.locks, of: self.settings.peerID, position: end)
                self.locks = []
            }
            try host(bdr_host_apply_commit(end, message.commitTime, &localEnd))
        } catch let error as TooEarly {
            throw error
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

    func message(_ message: LogicalMessage) throws {
        if message.isTransactional {
            try self.requireCommitted()
            // others only mark a place
            if message.prefix == DdlMessage.prefix {
                try self.ddl(message.content)
            } else if message.prefix == "bdr.lock" && !self.skipping && !self.settings.isForwarded {
                self.locks.append(try LockVotes.number(message.content))
            }
            return
        }
        guard !self.settings.isForwarded else {
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
        case RowStamps.clockPrefix:
            let text = String(decoding: message.content, as: UTF8.self)
            try Transaction.run { try RowStamps.passed(text, by: self.settings.peerID) }
        case Progress.requestPrefix:
            try Transaction.run { _ = try Progress.report() }
        default:
            break
        }
    }

    func requireTransaction() throws -> BeginMessage {
        guard let transaction = self.transaction else {
            throw BdrError(SQLSTATE.protocolViolation, "a change arrived outside of a transaction")
        }
        return transaction
    }

    func relation(_ message: RelationMessage) throws {
        self.relations[message.relId] = try AppliedRelation(message)
    }

    func relation(_ id: UInt32) throws -> AppliedRelation {
        guard let relation = self.relations[id] else {
            throw BdrError(SQLSTATE.protocolViolation, "a change names relation \(id), which was never described")
        }
        return relation
    }

    func truncate(_ message: TruncateMessage) throws {
        let transaction = try self.requireTransaction()
        self.change &+= 1
        if self.skipping {
            return
        }
        let relations = try message.relIds.map { try self.relation($0) }
        do {
            let handles = try relations.filter { try self.isHere($0, transaction, key: .none, remote: .none) }.map { $0.handle }
            guard !handles.isEmpty else {
                return
            }
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
    /// - Parameter isMerged: nothing that either row's conflict-free columns had is lost.
    func record(
        _ decision: Decision, _ relation: AppliedRelation, _ transaction: BeginMessage, found: BdrFound, local: LocalState,
        key: ConflictTuple, remote: ConflictTuple, isStored: Bool? = nil, byUser: Bool = false, merged: Bool = false,
        isMerged: Bool = false
    ) throws {
        guard let type = decision.conflictType, var resolution = decision.resolution else {
            return
        }
        try self.requireCommitted()
        if merged {
            resolution = .merge
        }
        var stored = isStored ?? (resolution != .skip)
        if case .none = remote {
            stored = false
        }
        try self.conflicts.record(
            type, byUser ? .user : resolution, relation, transaction, version: self.version(transaction), change: self.change,
            found: found, local: local, key: key, remote: remote, isStored: stored,
            isMerged: isMerged && !byUser && relation.info.merges != 0)
    }

    // MARK: Errors

    static func resolverError(_ type: ConflictType) -> BdrError {
        BdrError(
            SQLSTATE.objectNotInPrerequisiteState, "conflict \(type.rawValue) is set to stop replication",
            detail: "The resolver of the conflict type is \"error\".",
            hint: "Remove the cause, or choose another resolver for the conflict type.")
    }

    /// Adds where in the stream an error happened, once. That a transaction can't be applied yet is none.
    func inContext(
        _ error: any Error, _ operation: String, _ relation: AppliedRelation, _ tuple: TupleView?, rows: Int = 1
    ) -> any Error {
        if error is StreamRefused || error is TooEarly {
            return error
        }
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
