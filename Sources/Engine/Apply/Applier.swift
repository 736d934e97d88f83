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

    // MARK: Changes

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

    /// Adds where in the stream an error happened, once. That a transaction in progress is refused is none.
    func inContext(
        _ error: any Error, _ operation: String, _ relation: AppliedRelation, _ tuple: TupleView?, rows: Int = 1
    ) -> any Error {
        if error is StreamRefused {
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
