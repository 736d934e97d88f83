// Applying a transaction while it is in progress on its origin, in a writer.
//
// When it will be committed is not known yet. So it is taken for later than all that it meets, which is remembered; and where
// that would be a conflict, or is not so when the commit comes, the writer refuses: the transaction is rolled back here, and
// the peer is asked to send it again as a whole. Savepoints of the origin are savepoints here.

internal import CHost
internal import Conflict
internal import Wire

struct StreamedTransaction {
    let xid: UInt32
    /// Subtransactions with changes, each a savepoint inside the one before.
    var savepoints: [UInt32] = []
    /// The latest operation of others that it came on top of.
    var newestMet: RowVersion?

    init(xid: UInt32) {
        self.xid = xid
    }

    /// Each costs a level of nesting.
    static let savepointLimit = 1000
}

/// The transaction can't be applied before it is committed on its origin.
struct StreamRefused: Error {
    var reason: String
    /// It is not in progress any more, but was to be applied at the same time as others.
    var isOfRun = false
}

extension Applier {
    /// Later than any other.
    private static var notYet: Int64 { .max }

    func beginStreamed(xid: UInt32) throws {
        guard self.streamed == nil, self.transaction == nil else {
            throw BdrError(SQLSTATE.protocolViolation, "a transaction in progress began inside another one")
        }
        self.streamed = StreamedTransaction(xid: xid)
        self.transaction = BeginMessage(
            commitLSN: 0, commitTime: Self.notYet, xid: xid, originNode: self.settings.peerID, originLSN: 0)
        self.change = 0
        self.transactionNumber &+= 1
        self.keepsStamps = bdr_host_members() != 1
        try host(bdr_host_apply_begin(0, 0))
        try self.conflicts.begin()
    }

    /// The changes that follow are of a subtransaction, or of the transaction itself.
    func subtransaction(_ xid: UInt32) throws {
        guard let streamed = self.streamed else {
            throw BdrError(SQLSTATE.protocolViolation, "a subtransaction arrived outside of a transaction in progress")
        }
        if xid == streamed.xid || streamed.savepoints.contains(xid) {
            return
        }
        guard streamed.savepoints.count < StreamedTransaction.savepointLimit else {
            throw StreamRefused(reason: "it has more than \(StreamedTransaction.savepointLimit) subtransactions")
        }
        try self.pause()
        try host(bdr_host_subxact_begin())
        self.streamed?.savepoints.append(xid)
    }

    /// Rolls back a subtransaction, with those that have begun since; or all, if it is the transaction itself.
    func abortStreamed(_ message: StreamAbortMessage) throws {
        guard let streamed = self.streamed, streamed.xid == message.xid else {
            throw BdrError(SQLSTATE.protocolViolation, "the end of another transaction arrived")
        }
        if message.subxid == streamed.xid {
            try self.pause()
            try host(bdr_host_xact_abort())
            self.streamed = nil
            self.transaction = nil
            return
        }
        guard let index = streamed.savepoints.lastIndex(of: message.subxid) else {
            return
        }
        try self.pause()
        for _ in index..<streamed.savepoints.count {
            try host(bdr_host_subxact_rollback())
        }
        self.streamed?.savepoints.removeSubrange(index...)
    }

    /// - Returns: end of the local commit record.
    func commitStreamed(_ message: StreamCommitMessage) throws -> UInt64 {
        guard let streamed = self.streamed, streamed.xid == message.xid, let begin = self.transaction else {
            throw BdrError(SQLSTATE.protocolViolation, "the end of another transaction arrived")
        }
        let version = RowVersion(time: message.commitTime, node: begin.originNode)
        if let newest = streamed.newestMet, newest >= version {
            throw StreamRefused(reason: "a row that it has changed was changed later by another node")
        }
        try self.pause()
        for _ in streamed.savepoints {
            try host(bdr_host_subxact_release())
        }
        try self.waitForClock(message.commitTime)
        self.streamed = nil
        self.transaction = BeginMessage(
            commitLSN: message.commitLSN, commitTime: message.commitTime, xid: message.xid, originNode: begin.originNode,
            originLSN: 0)
        var end: UInt64 = 0
        try self.commit(
            CommitMessage(commitLSN: message.commitLSN, endLSN: message.endLSN, commitTime: message.commitTime)
        ) { _, localEnd in end = localEnd }
        return end
    }

    private func pause() throws {
        try host(bdr_host_executor_pause())
        // tables are opened again
        self.transactionNumber &+= 1
    }

    // MARK: What can't be done before the commit

    /// Where it would matter when the transaction was committed, or what was committed before.
    @inline(__always)
    func requireCommitted() throws {
        if self.streamed != nil {
            throw StreamRefused(reason: "it meets a conflict, or has changes that have to wait for its commit")
        }
        if let turn = self.turn, !turn.hasCome {
            throw TooEarly()
        }
    }

    @inline(__always)
    func requireStreamable(_ relation: AppliedRelation) throws {
        if self.streamed != nil && (relation.info.merges != 0 || relation.info.stream_triggers != 0) {
            throw StreamRefused(reason: "columns of \"\(relation.qualifiedName)\" are merged, or it has stream triggers")
        }
        if let turn = self.turn, !turn.hasCome,
            relation.info.merges != 0 || relation.info.stream_triggers != 0 || relation.info.order == BDR_ORDER_ALONE
        {
            throw TooEarly()
        }
    }

    /// Remembers what a streamed transaction takes to be earlier than itself.
    @inline(__always)
    func met(_ state: LocalState) -> LocalState {
        if self.streamed != nil {
            self.remember(state)
        }
        return state
    }

    private func remember(_ state: LocalState) {
        let version: RowVersion?
        switch state {
        case .present(_, _, ownTransaction: true):
            version = nil
        case .present(let row, _, _):
            version = row
        case .missing(let stamp, _, let own):
            version = own ? nil : stamp
        }
        if let version, self.streamed?.newestMet.map({ $0 < version }) ?? true {
            self.streamed?.newestMet = version
        }
    }

    // MARK: The leader

    /// A streamed transaction was committed: its writer commits it, here and now, as its place in the stream is here.
    func commit(_ message: StreamCommitMessage, _ committed: (UInt64, UInt64) -> Void) throws {
        guard let streams = self.streams, self.transaction == nil else {
            throw BdrError(SQLSTATE.protocolViolation, "the end of a transaction in progress arrived where none can be")
        }
        guard let localEnd = try streams.commit(message) else {
            return
        }
        self.progress = message.endLSN
        committed(message.endLSN, localEnd)
        bdr_host_progress_applied(message.endLSN, message.commitTime)
    }
}

@c(bdr_engine_writer_main)
public func bdrEngineWriterMain(_ peer: UInt32) -> Int32 {
    entry {
        guard let settings = try Transaction.run({ try ApplySettings.load(peer: peer) }) else {
            throw BdrError(SQLSTATE.objectNotInPrerequisiteState, "there is no enabled subscription for node id \(peer)")
        }
        do {
            try StreamWriter(settings: settings).run()
        } catch let refused as StreamRefused {
            try Log.debug("a transaction in progress is not applied before its commit: \(refused.reason)")
            bdr_host_writer_report(Int32(BDR_WRITER_REFUSED), 0)
        }
    }
}

/// The process that does it: takes what its leader hands over until that one goes.
struct StreamWriter {
    let settings: ApplySettings

    func run() throws {
        var progress: UInt64 = 0
        try host(bdr_host_origin_share(self.settings.origin, &progress))
        let applier = Applier(settings: self.settings, progress: progress)
        bdr_host_writer_report(Int32(BDR_WRITER_READY), 0)
        while true {
            var kind: UInt8 = 0
            var data: UnsafePointer<UInt8>?
            var length = 0
            if try host(bdr_host_writer_receive(&kind, &data, &length)) != BDR_OK {
                return
            }
            let bytes = UnsafeRawBufferPointer(start: data, count: data == nil ? 0 : length)
            switch Int(kind) {
            case BDR_STREAM_RELATIONS:
                try applier.apply(bytes) { _, _ in }
            case BDR_STREAM_BEGIN:
                try applier.beginStreamed(xid: StreamStartMessage(decoding: bytes).xid)
            case BDR_STREAM_CHANGES:
                try applier.apply(bytes) { _, _ in }
            case BDR_STREAM_RUN:
                _ = try TransactionRun(decoding: bytes).apply(by: applier, look: {})
            case BDR_STREAM_ABORT:
                try applier.abortStreamed(StreamAbortMessage(decoding: bytes))
            case BDR_STREAM_COMMIT:
                let end = try applier.commitStreamed(StreamCommitMessage(decoding: bytes))
                bdr_host_writer_report(Int32(BDR_WRITER_DONE), end)
            default:
                throw BdrError(SQLSTATE.internalError, "a writer was told what it does not know")
            }
        }
    }
}
