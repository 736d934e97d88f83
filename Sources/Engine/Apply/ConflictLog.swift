// What an apply worker tells of the conflicts that it resolves: rows of bdr.conflict_history, lines of the server's log, and
// counters. It also holds the node's resolvers, which come from the same catalog.
//
// Rows are written with the transaction in which the conflict was resolved, so they tell of what really happened; counters are
// told when it is committed. Lines of the log are written at once, and no more than so many in a second.

internal import CHost
internal import Conflict
internal import Wire

/// A tuple of a change, in the form in which it is at hand.
enum ConflictTuple {
    case none
    case tuple(TupleView)
    case row(BdrRow)
}

final class ConflictLog {
    /// Of this node, as they were when the transaction at hand began.
    private(set) var resolvers = ResolverSettings()
    private var config = ConflictLogConfig()
    private let settings: ApplySettings
    private let subscription: UInt32
    private let keys = RowBuilder()
    private let rows = RowBuilder()

    private struct Kind: Hashable {
        var relation: UInt32
        var type: ConflictType
        var resolution: Resolution
    }

    private struct Count {
        var all: UInt64 = 0
        var unrecorded: UInt64 = 0
    }

    /// Of the transaction at hand.
    private var counts: [Kind: Count] = [:]
    /// Of those, what waits to be written.
    private var pending: [Kind: UInt64] = [:]
    private var limit = LineLimit()
    /// Rows that wait to be written.
    private static let pendingLimit = 1 << 20

    init(settings: ApplySettings) {
        self.settings = settings
        self.subscription = settings.subscriptionID
    }

    /// Called when a local transaction has begun: takes up what was set meanwhile.
    func begin() throws {
        bdr_host_conflict_forget()
        self.counts.removeAll(keepingCapacity: true)
        self.pending.removeAll(keepingCapacity: true)
        var changed = false
        try host(bdr_host_conflict_settings_changed(&changed))
        if changed {
            (self.resolvers, self.config) = try ConflictSettings.load()
        }
    }

    /// Records a conflict. To be called once it is resolved, before any other row is looked for or written.
    /// - Parameters:
    ///   - relation: open in this transaction.
    ///   - transaction, version: of the change.
    ///   - change: its number in the transaction.
    ///   - found: what was located; the host still has the row.
    ///   - local: who changed it last, as the decision saw it.
    ///   - key: what the row was looked for by.
    ///   - remote: the row that the change carries; none for a DELETE.
    ///   - isStored: a row was stored, as the last thing that was done.
    ///   - isMerged: conflict-free columns of both rows were merged, and don't count as a difference.
    ///   - about: what to tell in place of who changed the local row.
    func record(
        _ type: ConflictType, _ resolution: Resolution, _ relation: AppliedRelation, _ transaction: BeginMessage,
        version: RowVersion, change: UInt64, found: BdrFound, local: LocalState, key: ConflictTuple, remote: ConflictTuple,
        isStored: Bool, isMerged: Bool = false, about: String? = nil
    ) throws {
        let kind = Kind(relation: relation.info.oid, type: type, resolution: resolution)
        self.counts[kind, default: Count()].all &+= 1
        guard self.config.wants(type, resolution) else {
            return
        }
        let hasRoom = self.config.toTable && bdr_host_conflict_history_open()
        if self.config.toTable && !hasRoom {
            self.counts[kind]?.unrecorded &+= 1
        }
        guard hasRoom || self.config.toFile else {
            return
        }
        let now = bdr_host_now()
        try self.tellSuppressed(now)
        if !hasRoom && !self.limit.hasRoom {
            self.limit.suppress()
            return
        }
        var localVersion: RowVersion?
        switch local {
        case .present(let version, _, _), .missing(let version, _, _): localVersion = version
        }
        let shown: String? = try withCStrings([type.rawValue, resolution.rawValue]) { names in
            var conflict = BdrConflict()
            conflict.type = names?[0]
            conflict.resolution = names?[1]
            conflict.subscription = self.subscription
            conflict.remote_xid = transaction.xid
            conflict.remote_lsn = transaction.commitLSN
            conflict.remote_time = transaction.commitTime
            conflict.origin_node = version.node
            conflict.change = UInt32(truncatingIfNeeded: change)
            conflict.index = found.index
            conflict.has_local = found.found == 0 ? 0 : 1
            conflict.has_written = isStored ? 1 : 0
            conflict.merged = isMerged ? 1 : 0
            conflict.has_local_version = localVersion == nil ? 0 : 1
            conflict.local_node = localVersion?.node ?? 0
            conflict.local_time = localVersion?.time ?? 0
            return try Self.withRow(key, relation, self.keys) { key in
                try Self.withRow(remote, relation, self.rows) { remote in
                    var text: UnsafePointer<CChar>?
                    let outcome = try host(
                        bdr_host_conflict_add(relation.handle, &conflict, key, remote, hasRoom, &text))
                    if outcome == BDR_RECORD_SAME_ROWS {
                        return nil
                    }
                    return text.map { String(cString: $0) } ?? ""
                }
            }
        }
        // two nodes that have made the same row need nobody's attention, nor does what was merged without loss
        guard let shown else {
            return
        }
        if hasRoom {
            self.pending[kind, default: 0] &+= 1
        }
        if bdr_host_conflict_pending() >= Self.pendingLimit {
            try self.flush()
        }
        if self.config.toFile {
            if self.limit.take() {
                try self.tell(
                    type, resolution, relation, transaction, version, change, local: local, localVersion: localVersion,
                    key: shown, about: about)
            } else {
                self.limit.suppress()
            }
        }
    }

    /// Writes what is kept, before the transaction is committed.
    func flush() throws {
        guard bdr_host_conflict_pending() > 0 else {
            return
        }
        var lost: Int32 = 0
        try host(bdr_host_conflict_flush(&lost))
        if lost > 0 {
            // all or none
            for (kind, number) in self.pending {
                self.counts[kind]?.unrecorded &+= number
            }
        }
        self.pending.removeAll(keepingCapacity: true)
    }

    /// The transaction is committed.
    func committed() throws {
        for (kind, count) in self.counts {
            bdr_host_conflict_count(kind.relation, kind.type.rawValue, kind.resolution.number, count.all, count.unrecorded)
        }
        self.counts.removeAll(keepingCapacity: true)
        if self.limit.isOwing {
            try self.tellSuppressed(bdr_host_now())
        }
    }

    private static func withRow<R>(
        _ tuple: ConflictTuple, _ relation: AppliedRelation, _ builder: RowBuilder,
        _ body: (UnsafePointer<BdrRow>?) throws -> R
    ) throws -> R {
        switch tuple {
        case .none: return try body(nil)
        case .tuple(let view): return try builder.withRow(view, relation) { row in try body(&row) }
        case .row(var row): return try body(&row)
        }
    }

    // MARK: The server's log

    private func name(_ node: UInt32) -> String {
        switch node {
        case self.settings.localID: "node \"\(self.settings.localName)\""
        case self.settings.peerID: "node \"\(self.settings.peerName)\""
        default: "node id \(node)"
        }
    }

    private func tell(
        _ type: ConflictType, _ resolution: Resolution, _ relation: AppliedRelation, _ transaction: BeginMessage,
        _ version: RowVersion, _ change: UInt64, local: LocalState, localVersion: RowVersion?, key: String,
        about: String?
    ) throws {
        func time(_ version: RowVersion) -> String { String(cString: bdr_host_time_text(version.time)) }
        var lines = [
            "Change #\(change) of the transaction that \(self.name(version.node)) committed at \(time(version)), commit LSN "
                + "\(LSN.text(transaction.commitLSN))."
        ]
        switch local {
        case _ where about != nil:
            lines.append(about ?? "")
        case .missing:
            lines.append(
                localVersion.map { "The local row was deleted by \(self.name($0.node)) at \(time($0))." }
                    ?? "There was no local row.")
        case .present:
            lines.append(
                localVersion.map { "The local row was last changed by \(self.name($0.node)) at \(time($0))." }
                    ?? "When the local row was last changed is not known.")
        }
        if !key.isEmpty {
            // a line of the log, not a copy of the row
            let cut = String(decoding: key.utf8.prefix(500), as: UTF8.self)
            lines.append("Key \(cut)\(cut.utf8.count < key.utf8.count ? "..." : "").")
        }
        try host(
            bdr_host_conflict_log(
                "conflict \(type.rawValue) on table \(relation.qualifiedName), resolution \(resolution.rawValue)",
                lines.joined(separator: " ")))
    }

    private func tellSuppressed(_ now: Int64) throws {
        let suppressed = self.limit.advance(to: now)
        if suppressed > 0 {
            try host(
                bdr_host_conflict_log(
                    "\(suppressed) further conflicts with changes of node \"\(self.settings.peerName)\" were not logged one by one",
                    "At most \(LineLimit.perSecond) are logged in a second; bdr.stat_conflicts counts all."))
        }
    }
}

/// At most so many lines in each second.
private struct LineLimit {
    static let perSecond = 20
    private var second: Int64 = 0
    private var used = 0
    private var suppressed: UInt64 = 0

    var hasRoom: Bool { self.used < Self.perSecond }
    var isOwing: Bool { self.suppressed > 0 }

    /// - Returns: how many were suppressed in a second that is over, once.
    mutating func advance(to now: Int64) -> UInt64 {
        let second = now / 1_000_000
        guard second != self.second else {
            return 0
        }
        self.second = second
        self.used = 0
        defer { self.suppressed = 0 }
        return self.suppressed
    }

    mutating func take() -> Bool {
        guard self.hasRoom else {
            return false
        }
        self.used += 1
        return true
    }

    mutating func suppress() {
        self.suppressed &+= 1
    }
}

extension Resolution {
    /// As the host counts them.
    fileprivate var number: Int32 {
        switch self {
        case .applyRemote: Int32(BDR_RESOLUTION_APPLY_REMOTE)
        case .skip: Int32(BDR_RESOLUTION_SKIP)
        case .merge: Int32(BDR_RESOLUTION_MERGE)
        case .user: Int32(BDR_RESOLUTION_USER)
        }
    }
}
