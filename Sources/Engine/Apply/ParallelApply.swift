// Small transactions that wait to be applied are collected, and applied by several processes at the same time: the apply worker
// and its writers.
//
// Only while there are many: one that comes alone is applied at once, by the worker itself.

internal import CHost
internal import Schedule
internal import Wire

final class ParallelApply {
    private let applier: Applier
    private let streams: StreamWriters
    /// Processes that apply, this one included.
    private let processes: Int
    private let scheduler = Scheduler()
    /// By the number that the peer has given the relation; made anew when its description is.
    private var orders: [UInt32: (relation: AppliedRelation, order: RelationOrder, kind: UInt8)] = [:]
    private let collected = FrameBuffer(limit: ParallelApply.collectLimit &+ ParallelApply.largest)
    private let message = FrameBuffer(limit: 2 &* ParallelApply.collectLimit &+ ParallelApply.largest)
    private var count = 0
    private var end: UInt64 = 0
    /// Transactions of long runs so far, before writers are started for them.
    private var waiting = 0
    /// Runs that are applied by one process before it is tried again, and how many that were last time.
    private var pause = 0
    private var lastPause = 1

    /// Bytes and transactions that are collected at most: what is applied before positions are confirmed.
    private static let collectLimit = 128 << 10
    private static let countLimit = 512
    /// Bytes of a transaction that counts as small.
    private static let largest = 16 << 10
    /// Transactions of a run for which several processes are worth it.
    private static let worthwhile = 16
    /// Transactions after which writers are started: until then it may be a single burst.
    private static let startAfter = 200
    private static let longestPause = 1024

    /// - Parameter processes: at least 2.
    init(applier: Applier, streams: StreamWriters, processes: Int) {
        self.applier = applier
        self.streams = streams
        self.processes = processes
    }

    /// - Returns: false: the bytes are not a small transaction; what was collected goes first.
    func collect(_ bytes: UnsafeRawBufferPointer, end: UInt64) throws -> Bool {
        guard bytes.count <= Self.largest, bytes.count > Self.commitLength, self.applier.transaction == nil,
            bytes[0] == MessageType.begin.rawValue,
            bytes[bytes.count &- Self.commitLength] == MessageType.commit.rawValue
        else {
            return false
        }
        try self.collected.append(bytes: bytes)
        self.count &+= 1
        self.end = end
        return true
    }

    /// Type, length, flags, two positions and a time.
    private static let commitLength = 30

    var isFull: Bool { self.collected.count >= Self.collectLimit || self.count >= Self.countLimit }

    /// Applies what was collected.
    /// - Returns: the end of WAL that it stands for; nil when there was nothing.
    func flush(_ committed: (UInt64, UInt64) -> Void) throws -> UInt64? {
        guard self.count > 0 else {
            return nil
        }
        let count = self.count
        self.count = 0
        defer { self.collected.removeAll(keepingCapacityUpTo: 2 &* Self.collectLimit) }
        if count < Self.worthwhile || self.streams.areBusy || !ApplyWorker.mayUseWriters {
            try self.applier.apply(self.collected.bytes, committed: committed)
        } else if self.pause > 0 {
            self.pause -= 1
            try self.applier.apply(self.collected.bytes, committed: committed)
        } else if self.waiting < Self.startAfter {
            self.waiting += count
            try self.applier.apply(self.collected.bytes, committed: committed)
        } else if try self.applyInParallel() {
            self.applier.progress = self.scheduler.endLSN
            committed(self.scheduler.endLSN, bdr_host_turn_local_end())
        } else {
            try self.applier.apply(self.collected.bytes, committed: committed)
        }
        return self.end
    }

    /// - Returns: false: they are for one process.
    private func applyInParallel() throws -> Bool {
        guard
            try self.scheduler.plan(
                self.collected.bytes, progress: self.applier.progress, relation: { self.order($0) })
        else {
            return false
        }
        let count = self.scheduler.count
        // a chain of changes, each of which waits for the one before
        guard self.scheduler.chained &* 2 <= count else {
            self.rest()
            return false
        }
        guard try self.streams.prepare(self.processes - 1) > 0 else {
            self.rest()
            return false
        }
        let repeated = try self.scheduler.starts.withUnsafeBytes { starts in
            try self.scheduler.after.withUnsafeBytes { after in
                let run = TransactionRun(
                    first: bdr_host_turn_next(), starts: starts, after: after, bytes: self.collected.bytes)
                self.message.removeAll(keepingCapacityUpTo: 4 &* Self.collectLimit)
                try run.encode(into: self.message)
                try self.streams.handOver(self.message.bytes)
                let repeated = try run.apply(by: self.applier, look: self.streams.look)
                try Applier.wait(run.end, self.streams.look)
                return repeated
            }
        }
        if repeated &* 8 > count {
            self.rest()
        } else {
            self.lastPause = 1
        }
        return true
    }

    private func rest() {
        self.lastPause = min(self.lastPause * 2, Self.longestPause)
        self.pause = self.lastPause
    }

    private func order(_ id: UInt32) -> RelationOrder? {
        // it has been used, so the local relation is known
        guard let relation = self.applier.relations[id], relation.info.oid != 0 else {
            return nil
        }
        if let known = self.orders[id], known.relation === relation, known.kind == relation.info.order {
            return known.order
        }
        let kind: ChangeOrder =
            switch Int(relation.info.order) {
            case BDR_ORDER_BY_KEY: .byKey
            case BDR_ORDER_TOGETHER: .together
            default: .alone
            }
        let order = RelationOrder(kind, relation.description, layout: relation.layout, relation: relation.info.oid)
        self.orders[id] = (relation, order, relation.info.order)
        return order
    }
}
