// The manager of one node: keeps an apply worker for each subscription and, while the node joins, the join worker running, and
// tells the other processes of the server in which state the node is.
//
// It decides from the catalog alone, once a second and whenever it is woken, so it doesn't matter when it was killed.

internal import CHost
internal import Membership

@c(bdr_engine_manager_main)
public func bdrEngineManagerMain() -> Int32 {
    entry {
        var manager = Manager()
        try manager.run()
    }
}

private struct Manager {
    private var applies: [UInt32: ManagedWorker] = [:]
    private var join = ManagedWorker(role: Int32(BDR_ROLE_JOIN), peer: 0, name: "join")
    private var group = ManagedWorker(role: Int32(BDR_ROLE_GROUP), peer: 0, name: "group")
    private var sequence = ManagedWorker(role: Int32(BDR_ROLE_SEQUENCE), peer: 0, name: "sequence")
    /// By the node whose changes they get from another one.
    private var recoveries: [UInt32: ManagedWorker] = [:]
    /// By the node whose global locks they keep here.
    private var locks: [UInt32: ManagedWorker] = [:]
    /// Origins of the node, to be removed should the extension be dropped.
    private var origins: Set<String> = []
    /// What peers had confirmed when it was looked at last.
    private var samples: [UInt32: (confirmed: UInt64, time: Int64, completeTime: Int64)] = [:]
    /// The connection strings of peers when last looked at.
    private var ways: [UInt32: String] = [:]
    private var firstLook = true
    /// Whether ranges of global sequences are to be got from the group, and when that is looked at again.
    private var isAllocating = false
    private var nextAllocation: Int64 = 0
    /// When the peers are told of this node's clock again, and in which state they were told last.
    private var nextClock: Int64 = 0
    private var toldAs = NodeState.none
    private var nextClean: Int64 = 0

    /// How often the progress of the peers is measured, microseconds.
    private static let sampleInterval: Int64 = 5_000_000
    private var genuineness = Genuineness.unknown
    private var history = ConflictHistory()

    private enum Genuineness {
        case unknown
        /// It was found out with this connection string.
        case known(dsn: String)
        case doubtful(since: Int64)
    }

    private struct View {
        var node: LocalNode
        var joining: Bool
        var serving: Bool
        var recovering: Set<UInt32>
        /// Nodes that have locked a table, or have had another lock for long.
        var locking: Set<UInt32> = []
        /// Nodes to receive from, whether that is enabled or not.
        var sources: Set<UInt32> = []
        /// Peers to receive from, and their names.
        var peers: [UInt32: String]
        /// Their connection strings.
        var ways: [UInt32: String] = [:]
        var origins: Set<String>
        /// Other members of the group, also those that join or leave.
        var members = 0
    }

    mutating func run() throws {
        while true {
            if bdr_host_database_closing() {
                return
            }
            bdr_host_publish_begin()
            guard let view = try Transaction.run({ try Self.look() }) else {
                try self.leave()
                return
            }
            self.origins = view.origins
            try self.publish(view)
            if try self.isGenuine(view.node) {
                // first: what workers may write depends on what there is
                try self.history.keep()
                try self.lookForRanges(view.node)
                try self.keepWorkers(view)
                try self.measurePeers(view)
                try self.keepStamps(view)
            }
            let happened = try host(bdr_host_wait(nil, self.pause))
            if happened & Int32(BDR_WAIT_SHUTDOWN) != 0 {
                return
            }
        }
    }

    /// nil when there is nothing to manage: no extension, no node, or the database is a copy of a node's.
    private static func look() throws -> View? {
        guard try SQL.query("SELECT pg_catalog.to_regclass('bdr.local_node')")[0, 0] != nil else {
            return nil
        }
        let found: LocalNode?
        do {
            found = try LocalNode.find()
        } catch let error as BdrError {
            try Log.warning(error.message, sqlstate: error.sqlstate, detail: "Nothing is replicated.", hint: error.hint)
            return nil
        }
        guard let node = found else {
            return nil
        }
        let joining = try SQL.query(
            """
            SELECT FROM bdr.join_state WHERE step NOT IN ('active', 'failed')
            UNION ALL SELECT FROM bdr.part_state WHERE step <> 'done'
            """
        ).count > 0
        let rows = try SQL.query(
            """
            SELECT s.origin_node_id, n.node_name, s.sub_origin_name, s.sub_enabled,
                   (SELECT i.if_dsn FROM bdr.node_interface i WHERE i.node_id = n.node_id)
              FROM bdr.subscription s JOIN bdr.node n ON n.node_id = s.origin_node_id
             WHERE s.target_node_id = $1::pg_catalog.oid
            """, [String(node.id)])
        let recoveries = try SQL.query("SELECT origin_node_id FROM bdr.recovery WHERE NOT applied")
        var view = View(
            node: node, joining: joining, serving: try GroupSlot.isServed(),
            recovering: Set((0..<recoveries.count).compactMap { recoveries[$0, 0].flatMap { UInt32($0) } }), peers: [:],
            origins: [])
        view.members = try SQL.query(
            "SELECT FROM bdr.node WHERE node_id <> $1::pg_catalog.oid AND node_state <> $2::pg_catalog.oid",
            [String(node.id), String(NodeState.parted.rawValue)]
        ).count
        view.locking = try LockVotes.keep()
        for row in 0..<rows.count {
            guard let id = rows[row, 0].flatMap({ UInt32($0) }) else {
                continue
            }
            view.sources.insert(id)
            rows[row, 2].map { _ = view.origins.insert($0) }
            if rows[row, 3] == "t" {
                view.peers[id] = rows[row, 1] ?? ""
                view.ways[id] = rows[row, 4]
            }
        }
        return view
    }

    /// Whether this server is the node, not one that was started on a copy of its data directory: system identifier and
    /// database are the same there, but the node's own connection string leads to the original. When it leads nowhere, this
    /// server may be what takes the original's place (a promoted standby, a restored backup), so it may go on.
    private mutating func isGenuine(_ node: LocalNode) throws -> Bool {
        switch self.genuineness {
        case .known(let dsn) where dsn == node.dsn:
            return true
        case .doubtful(let since) where bdr_host_now() &- since < 10_000_000:
            return false
        default:
            break
        }
        let here = try Transaction.run { try DatabaseIdentity.read { try SQL.query($0, $1) } }
        do {
            let loop = try Connection(dsn: node.dsn, timeout: 5000)
            let found = try DatabaseIdentity.read { try loop.query($0, $1) }
            if found != here {
                try Log.warning(
                    "this server seems to be a copy of node \"\(node.name)\"",
                    sqlstate: SQLSTATE.objectNotInPrerequisiteState,
                    detail: "The node's connection string leads to another running server. Nothing is replicated here.",
                    hint: "If this is the node, correct the string: SELECT bdr.alter_node_interface('\(node.name)', '...'); "
                        + "if it is a copy, type: DROP EXTENSION bdr CASCADE;")
                self.genuineness = .doubtful(since: bdr_host_now())
                return false
            }
        } catch is RemoteError {
        }
        self.genuineness = .known(dsn: node.dsn)
        return true
    }

    private func publish(_ view: View) throws {
        let state = view.node.state
        try host(
            bdr_host_publish_node(
                view.node.id, Int32(clamping: state.rawValue), state.refusesWrites, state > .created && state < .parted,
                Int32(clamping: view.members)))
    }

    private mutating func keepWorkers(_ view: View) throws {
        let minimum = Int64(bdr_host_setting_int("bdr.min_worker_backoff_delay", 1000))
        let maximum = Int64(bdr_host_setting_int("bdr.max_worker_backoff_delay", 60_000))
        for (peer, name) in view.peers where self.applies[peer] == nil {
            self.applies[peer] = ManagedWorker(role: Int32(BDR_ROLE_APPLY), peer: peer, name: "apply \(name)")
        }
        if self.firstLook {
            // workers that an earlier manager left behind
            self.firstLook = false
            var peers = [UInt32](repeating: 0, count: 1024)
            let capacity = Int32(clamping: peers.count)
            let count = try peers.withUnsafeMutableBufferPointer {
                try host(bdr_host_worker_peers($0.baseAddress, capacity))
            }
            for peer in peers.prefix(max(0, Int(count))) where self.applies[peer] == nil {
                self.applies[peer] = ManagedWorker(role: Int32(BDR_ROLE_APPLY), peer: peer, name: "apply")
            }
        }
        for (peer, way) in view.ways where self.ways[peer].map({ $0 != way }) ?? false {
            // only now the new string is committed: a worker that starts from here on reads it
            try host(bdr_host_worker_stop(Int32(BDR_ROLE_APPLY), peer))
        }
        self.ways = view.ways
        try Self.keep(&self.applies, minimum, maximum) { view.peers[$0] != nil }
        try self.join.keep(wanted: view.joining, minimum: minimum, maximum: maximum)
        try self.group.keep(wanted: view.serving, minimum: minimum, maximum: maximum)
        try self.sequence.keep(wanted: self.isAllocating, minimum: minimum, maximum: maximum)
        for peer in view.recovering where self.recoveries[peer] == nil {
            self.recoveries[peer] = ManagedWorker(role: Int32(BDR_ROLE_RECOVER), peer: peer, name: "recovery")
        }
        try Self.keep(&self.recoveries, minimum, maximum) { view.recovering.contains($0) }
        for peer in view.locking where self.locks[peer] == nil {
            self.locks[peer] = ManagedWorker(role: Int32(BDR_ROLE_LOCK), peer: peer, name: "lock \(view.peers[peer] ?? "")")
        }
        // it stays while its node does: the apply worker counts on it
        try Self.keep(&self.locks, minimum, maximum) { view.sources.contains($0) || view.locking.contains($0) }
    }

    /// Keeps the workers of some peers running, and forgets those of others once they have ended.
    private static func keep(
        _ workers: inout [UInt32: ManagedWorker], _ minimum: Int64, _ maximum: Int64, _ isWanted: (UInt32) -> Bool
    ) throws {
        for peer in Array(workers.keys) {
            let wanted = isWanted(peer)
            if try workers[peer]?.keep(wanted: wanted, minimum: minimum, maximum: maximum) == false && !wanted {
                try workers[peer].map { _ = try host(bdr_host_worker_forget($0.role, peer)) }
                workers[peer] = nil
            }
        }
    }

    /// There may be many sequences to look at: then not each time.
    private mutating func lookForRanges(_ node: LocalNode) throws {
        let start = bdr_host_now()
        guard node.isInGroup, node.state == .active else {
            self.isAllocating = false
            return
        }
        guard start >= self.nextAllocation || self.nextAllocation > start &+ 30_000_000 else {
            return
        }
        self.isAllocating = try Transaction.run { try Galloc.isWanted() }
        let end = bdr_host_now()
        self.nextAllocation = end &+ min(30_000_000, max(0, end &- start) &* 50)
    }

    private mutating func measurePeers(_ view: View) throws {
        let now = bdr_host_now()
        guard view.node.state >= .catchup, self.samples.values.allSatisfy({ now &- $0.time >= Self.sampleInterval }) else {
            return
        }
        let rows = try Transaction.run {
            try SQL.query(
                "SELECT target_id, confirmed_flush_lsn, replay_lag_bytes FROM bdr.node_slots WHERE NOT is_group_slot")
        }
        var samples: [UInt32: (confirmed: UInt64, time: Int64, completeTime: Int64)] = [:]
        for row in 0..<rows.count {
            guard let peer = rows[row, 0].flatMap({ UInt32($0) }), let confirmed = rows[row, 1].flatMap({ LSN.parse($0) })
            else {
                continue
            }
            let behind = rows[row, 2].flatMap { Int64($0) } ?? 0
            let before = self.samples[peer]
            // the server writes a little by itself
            let completeTime = behind <= 16384 ? now : before?.completeTime ?? 0
            samples[peer] = (confirmed, now, completeTime)
            if let before, confirmed >= before.confirmed, now > before.time, completeTime != 0 {
                let rate = Double(confirmed - before.confirmed) / (Double(now &- before.time) / 1_000_000)
                bdr_host_publish_peer(peer, UInt64(max(0, min(rate, 1e15))), completeTime)
            }
        }
        self.samples = samples
    }

    /// Tells peers how far this node's clock is, and removes stamps that are no longer needed.
    private mutating func keepStamps(_ view: View) throws {
        guard view.node.state >= .catchup && view.node.state < .parted else {
            return
        }
        let now = bdr_host_now()
        let frequency = Int64(bdr_host_setting_int("bdr.replay_progress_frequency", 60_000)) &* 1000
        // a node that has just become active is waited for
        if view.members > 0 && (now >= self.nextClock || self.nextClock > now &+ frequency || view.node.state != self.toldAs) {
            self.nextClock = now &+ frequency
            self.toldAs = view.node.state
            try RowStamps.tell()
        }
        if now >= self.nextClean || self.nextClean > now &+ frequency {
            self.nextClean = now &+ min(frequency, 10_000_000)
            try RowStamps.clean()
            try Transaction.run { try DroppedTables.clean() }
        }
    }

    /// Milliseconds to the next look: sooner when a worker is to be started sooner.
    private var pause: Int64 {
        let now = bdr_host_now()
        var pause: Int64 = 1000
        let peers = Array(self.applies.values) + Array(self.recoveries.values) + Array(self.locks.values)
        for worker in peers + [self.join, self.group, self.sequence] {
            if let due = worker.due(now: now) {
                pause = min(pause, due)
            }
        }
        return max(10, pause)
    }

    /// The extension was dropped, or the node: what it had outside of its tables goes, too.
    private mutating func leave() throws {
        let hasExtension = try Transaction.run {
            try SQL.query("SELECT FROM pg_catalog.pg_extension WHERE extname = 'bdr'").count > 0
        }
        let isCopy = try hasExtension
            && Transaction.run { try SQL.query("SELECT FROM bdr.local_node").count > 0 }
        if !isCopy {
            try Leftovers.remove(origins: self.origins)
        }
        try host(bdr_host_publish_node(0, 0, false, false, 0))
    }
}

@c(bdr_engine_manager_leftovers)
public func bdrEngineManagerLeftovers() -> Int32 {
    entry {
        try Leftovers.remove(origins: [])
    }
}

/// What a node has outside of its tables.
private enum Leftovers {
    /// Ends the workers of this database and removes its slots and origins.
    /// - Parameter origins: besides those that workers have used.
    static func remove(origins: Set<String>) throws {
        var origins = origins
        var used: OpaquePointer?
        try host(bdr_host_database_origins(&used))
        let names = Rows(adopting: used)
        for row in 0..<names.count {
            names[row, 0].map { _ = origins.insert($0) }
        }
        for peer in try self.peers() {
            try Workers.stopApply(of: peer)
        }
        try Workers.stop(role: Int32(BDR_ROLE_GROUP), of: 0)
        try Workers.stop(role: Int32(BDR_ROLE_SEQUENCE), of: 0)
        let slots = try Transaction.run {
            try SQL.query(
                """
                SELECT slot_name FROM pg_catalog.pg_replication_slots
                 WHERE plugin = 'bdr' AND database = pg_catalog.current_database()
                """)
        }
        // after a crash nobody knows the names of the origins, but that of a peer is called as the slot for it
        for row in 0..<slots.count {
            slots[row, 0].map { _ = origins.insert($0) }
        }
        try Transaction.run {
            for origin in origins.sorted() {
                try NodeCatalog.dropOrigin(origin)
            }
        }
        // so slots go later
        for row in 0..<slots.count {
            if let slot = slots[row, 0] {
                try Transaction.run { _ = try host(bdr_host_slot_drop(slot)) }
            }
        }
        // last: until here a manager that takes over after a failure finds the names of the origins there
        for peer in try self.peers() {
            try host(bdr_host_worker_forget(Int32(BDR_ROLE_APPLY), peer))
        }
    }

    private static func peers() throws -> [UInt32] {
        var peers = [UInt32](repeating: 0, count: 1024)
        let capacity = Int32(clamping: peers.count)
        let count = try peers.withUnsafeMutableBufferPointer {
            try host(bdr_host_worker_peers($0.baseAddress, capacity))
        }
        return Array(peers.prefix(max(0, Int(count))))
    }
}

/// One worker that the manager keeps running.
private struct ManagedWorker {
    let role: Int32
    let peer: UInt32
    let name: String
    private var backoff: Backoff?
    private var startedAt: Int64?
    private var isWanted = false
    private var isRunning = false

    init(role: Int32, peer: UInt32, name: String) {
        self.role = role
        self.peer = peer
        self.name = name
    }

    /// Starts, restarts or stops it as needed.
    /// - Parameter minimum, maximum: delays between attempts, milliseconds.
    /// - Returns: whether it runs (or is about to).
    @discardableResult
    mutating func keep(wanted: Bool, minimum: Int64, maximum: Int64) throws -> Bool {
        let now = bdr_host_now()
        var backoff = self.backoff ?? Backoff(minimum: minimum, maximum: maximum, seed: UInt64(bdr_host_random()))
        if backoff.minimum != max(1, minimum) || backoff.maximum != max(max(1, minimum), maximum) {
            // settings were changed
            backoff = Backoff(minimum: minimum, maximum: maximum, seed: UInt64(bdr_host_random()))
        }
        defer { self.backoff = backoff }
        var info = BdrWorkerInfo()
        try host(bdr_host_worker_info(self.role, self.peer, &info))
        self.isWanted = wanted
        self.isRunning = info.running != 0
        if info.running != 0 {
            if !wanted {
                try host(bdr_host_worker_stop(self.role, self.peer))
            }
            if let started = self.startedAt, now &- started > 30_000_000 {
                // it works: a later failure is a first one
                backoff.succeeded()
            }
            self.startedAt = self.startedAt ?? now
            return true
        }
        if self.startedAt != nil {
            self.startedAt = nil
            let sqlstate = withUnsafeBytes(of: info.sqlstate) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            // one that was told to end, to read the catalog anew, has not failed
            if info.failed != 0 && sqlstate != "57P01" {
                backoff.failed(transient: SQLState.isTransient(sqlstate), now: now)
            }
        }
        guard wanted else {
            return false
        }
        guard backoff.isDue(now: now) else {
            return true
        }
        if try host(bdr_host_worker_start(self.role, self.peer, self.name)) != BDR_OK {
            try Log.warning(
                "no background worker is free for \"\(self.name)\"", sqlstate: SQLSTATE.configurationLimitExceeded,
                hint: "Increase max_worker_processes and restart the server.")
            backoff.failed(transient: false, now: now)
            return true
        }
        self.startedAt = now
        self.isRunning = true
        return true
    }

    /// Milliseconds until it is to be started; nil when there is nothing to wait for.
    func due(now: Int64) -> Int64? {
        self.isWanted && !self.isRunning ? self.backoff?.remaining(now: now) : nil
    }
}
