// Global locks on the node that wants one: collects votes over connections to the other nodes and to this one, which last for
// the transaction. All state of the lock is with the voters; what is kept here only makes giving up quick.

internal import CHost
internal import Membership

@c(bdr_engine_lock_acquire)
public func bdrEngineLockAcquire(_ request: UnsafeMutableRawPointer?) -> Int32 {
    entry {
        guard let request = request?.assumingMemoryBound(to: BdrLockRequest.self), let kind = LockKind(rawValue: request.pointee.kind)
        else {
            throw BdrError(SQLSTATE.internalError, "a request for a lock of no kind")
        }
        var acquisition = try LockAcquisition(request.pointee, kind)
        do {
            try acquisition.run()
            request.pointee.id = acquisition.id
        } catch {
            sessions.giveBack(acquisition.id)
            throw error
        }
    }
}

@c(bdr_engine_lock_end)
public func bdrEngineLockEnd(_ aborted: Bool) {
    sessions.end(aborted: aborted)
}

/// Connections of this transaction.
private struct LockSessions {
    private var connections: [UInt32: Connection] = [:]
    /// Nodes that have confirmed a lock, or may have.
    private var confirmed: [Int64: Set<UInt32>] = [:]

    /// Of the last transaction of this session. Migrations are many short transactions, and a session on another server
    /// costs more than what is asked there.
    private var kept: [UInt32: (dsn: String, connection: Connection)] = [:]
    private static let keepMilliseconds: Int32 = 5000

    /// The connection that this transaction has, one that an earlier one had, or a new one.
    mutating func connect(_ node: UInt32, _ dsn: String) throws -> Connection {
        if let connection = self.connections[node] {
            return connection
        }
        if let former = self.takeKept(node), former.dsn == dsn, Self.isUsable(former.connection) {
            self.dsns[node] = dsn
            self.connections[node] = former.connection
            return former.connection
        }
        let connection = try Connection(dsn: dsn, timeout: 5000)
        self.dsns[node] = dsn
        self.connections[node] = connection
        return connection
    }

    private var dsns: [UInt32: String] = [:]

    private mutating func takeKept(_ node: UInt32) -> (dsn: String, connection: Connection)? {
        guard let former = self.kept.removeValue(forKey: node) else {
            return nil
        }
        return former.connection.resume() ? former : nil
    }

    /// It is there, and has no tokens of earlier requests any more.
    private static func isUsable(_ connection: Connection) -> Bool {
        bdr_host_conn_set_timeout(connection.raw, 2000)
        do {
            try connection.query("SELECT pg_catalog.pg_advisory_unlock_all()")
            return true
        } catch {
            connection.close()
            return false
        }
    }

    subscript(node: UInt32) -> Connection? {
        get { self.connections[node] }
        set { self.connections[node] = newValue }
    }

    /// Locks that the transaction has got, besides one.
    func others(than id: Int64) -> [Int64] { self.confirmed.keys.filter { $0 != id } }

    mutating func willConfirm(_ id: Int64, _ node: UInt32) {
        self.confirmed[id, default: []].insert(node)
    }

    private static func releasing(_ ids: [Int64]) -> String {
        ids.map { "SELECT bdr.internal_peer_call('\(PeerCall.globalLockRelease.rawValue)', VARIADIC ARRAY['\($0)'])" }
            .joined(separator: "; ")
    }

    /// Nothing here may fail: an error may be pending, and connections may be in any state. What a node does not hear, it
    /// finds out when the session ends or by asking.
    mutating func giveBack(_ id: Int64) {
        self.confirmed[id] = nil
        for connection in self.connections.values {
            connection.abandon(Self.releasing([id]))
        }
        self.connections = [:]
    }

    mutating func end(aborted: Bool) {
        for former in self.kept.values {
            _ = former.connection.resume()
            former.connection.close()
        }
        self.kept = [:]
        for (node, connection) in self.connections {
            if !aborted, let dsn = self.dsns[node] {
                if connection.keep(milliseconds: Self.keepMilliseconds) {
                    self.kept[node] = (dsn, connection)
                }
                continue
            }
            let ids = aborted ? self.confirmed.filter { $0.value.contains(node) }.map { $0.key } : []
            connection.abandon(ids.isEmpty ? nil : Self.releasing(ids))
        }
        self.connections = [:]
        self.dsns = [:]
        self.confirmed = [:]
    }
}

nonisolated(unsafe) private var sessions = LockSessions()

private struct LockAcquisition {
    private struct Member {
        var name: String
        var dsn: String
    }

    /// A number of its own for each attempt: what an earlier one has sent may arrive late, over a connection that was given up.
    private(set) var id: Int64
    private let kind: LockKind
    private var request: LockVotes.Request
    private let local: LocalNode
    private let deadline: Int64
    private let begin = bdr_host_now()
    private var members: [UInt32: Member] = [:]
    /// Why nodes did not give their vote, by node.
    private var reasons: [UInt32: String] = [:]
    private var notedFor: String?
    private var lookedAt = bdr_host_now()
    /// Positions that this node has to reach first.
    private var epochs: [UInt32: UInt64] = [:]

    init(_ request: BdrLockRequest, _ kind: LockKind) throws {
        self.id = request.id
        self.kind = kind
        self.local = try LocalNode.require()
        self.deadline = request.timeout > 0 ? bdr_host_now() &+ Int64(request.timeout) &* 1000 : Int64.max
        self.request = try LockVotes.Request([
            String(request.id), String(self.local.id), String(kind.rawValue), request.schema.map { String(cString: $0) },
            request.relation.map { String(cString: $0) }, kind == .advisory ? String(request.key) : nil,
            request.key_is_pair ? "t" : "f", String(self.begin), String(bdr_host_pid()),
            request.statement.map { String(String(cString: $0).prefix(1000)) }, nil, "",
        ])
    }

    mutating func run() throws {
        while true {
            try self.readMembers()
            do {
                if try self.collect() {
                    return
                }
                sessions.giveBack(self.id)
                try self.renumber()
                try self.show(self.reasons.keys.sorted())
                try self.pause(500)
            } catch is MembersChanged {
                sessions.giveBack(self.id)
                try self.renumber()
            }
        }
    }

    private mutating func renumber() throws {
        try host(bdr_host_token_release(Int32(BDR_TOKEN_HOLDER), self.id))
        repeat {
            self.id = Int64(truncatingIfNeeded: UInt64(bdr_host_random()) << 31 ^ UInt64(bdr_host_random())) & Int64.max
        } while self.id == 0
        try host(bdr_host_token_take(Int32(BDR_TOKEN_HOLDER), self.id))
        self.request.id = String(self.id)
        self.request.blockedBy = nil
        self.request.blockedNode = nil
        self.notedFor = nil
    }

    /// Nodes have joined or left since the first one was asked, so that other votes are needed.
    private struct MembersChanged: Error {}

    private func requireSameMembers() throws {
        guard try LockVotes.activeMembers() == self.request.members else {
            throw MembersChanged()
        }
    }

    private mutating func readMembers() throws {
        let rows = try SQL.query(
            """
            SELECT n.node_id, n.node_name, i.if_dsn FROM bdr.node n JOIN bdr.node_interface i ON i.node_id = n.node_id
             WHERE n.node_state = $1::pg_catalog.oid
            """, [String(NodeState.active.rawValue)])
        self.members = [:]
        for row in 0..<rows.count {
            if let id = rows[row, 0].flatMap({ UInt32($0) }), let name = rows[row, 1], let dsn = rows[row, 2] {
                self.members[id] = Member(name: name, dsn: dsn)
            }
        }
        self.request.members = self.members.keys.sorted().map { String($0) }.joined(separator: ",")
        self.reasons = [:]
        self.epochs = [:]
    }

    /// - Returns: false when it has to begin anew.
    private mutating func collect() throws -> Bool {
        var poll = GlobalLockPoll(members: Array(self.members.keys), local: self.local.id, all: self.kind == .dml)
        while true {
            switch poll.next {
            case .ask(let node):
                poll.note(node, try self.ask(node, poll) ? .granted : .unreachable)
            case .confirm(let nodes):
                for node in nodes {
                    sessions.willConfirm(self.id, node)
                    guard let connection = sessions[node], try self.confirm(connection, node) else {
                        return false
                    }
                }
                try self.catchUp()
                return true
            case .startOver:
                return false
            }
        }
    }

    /// Asks until the node has given its vote; false when it can't be reached.
    private mutating func ask(_ node: UInt32, _ poll: GlobalLockPoll) throws -> Bool {
        guard let member = self.members[node] else {
            return false
        }
        var wait: Int64 = 2
        do {
            let connection = try sessions.connect(node, member.dsn)
            bdr_host_conn_set_timeout(connection.raw, 10_000)
            while true {
                let answer = try PeerCall.globalLockRequest.ask(connection, self.request.arguments)
                if answer[0, 0] == "granted" {
                    self.reasons[node] = nil
                    try self.note(epochs: answer[0, 2] ?? "")
                    return true
                }
                self.reasons[node] = answer[0, 1] ?? "another lock"
                self.request.blockedBy = answer[0, 3]
                self.request.blockedNode = answer[0, 4]
                try self.show(poll.missing)
                try self.pause(wait)
                wait = min(wait * 2, 50)
            }
        } catch let error as RemoteError {
            // a node that was not reached is passed over; one that says no is not
            guard error.sqlstate.hasPrefix("08") || error.sqlstate.hasPrefix("57") || error.sqlstate == "53300" else {
                throw error.asError("node \"\(member.name)\" does not agree to a global lock")
            }
            sessions[node]?.close()
            sessions[node] = nil
            self.reasons[node] = error.message
            return false
        }
    }

    private mutating func note(epochs: String) throws {
        for item in epochs.split(separator: " ") {
            let parts = item.split(separator: ":")
            if parts.count == 2, let node = UInt32(parts[0]), let position = LSN.parse(String(parts[1])), node != self.local.id {
                self.epochs[node] = max(self.epochs[node] ?? 0, position)
            }
        }
    }

    private mutating func confirm(_ connection: Connection, _ node: UInt32) throws -> Bool {
        do {
            return try PeerCall.globalLockConfirm.ask(connection, [self.request.id]).count == 1
        } catch let error as RemoteError {
            self.reasons[node] = error.message
            return false
        }
    }

    /// What others ran before has to be here first.
    private mutating func catchUp() throws {
        guard self.kind != .advisory else {
            return
        }
        for (node, position) in self.epochs {
            while let progress = try LockVotes.progress(of: String(node)), progress < position {
                self.reasons = [
                    self.local.id: "has not yet applied what node \"\(self.members[node]?.name ?? String(node))\" ran before"
                ]
                // one that has left may have taken it along
                try self.requireSameMembers()
                try self.pause(10)
            }
        }
    }

    /// For the views of this node, once it takes longer.
    private mutating func show(_ missing: [UInt32]) throws {
        guard bdr_host_now() &- self.begin > 100_000 else {
            return
        }
        let waitingFor = missing.compactMap { self.members[$0]?.name }.joined(separator: ", ")
        let note = "\(waitingFor)|\(self.request.blockedBy ?? "")|\(self.request.blockedNode ?? "")"
        guard note != self.notedFor else {
            return
        }
        self.notedFor = note
        self.request.waitingFor = waitingFor
        guard let member = self.members[self.local.id] else {
            return
        }
        let connection = try sessions.connect(self.local.id, member.dsn)
        try PeerCall.globalLockNote.ask(connection, self.request.arguments)
    }

    private mutating func pause(_ milliseconds: Int64) throws {
        let now = bdr_host_now()
        if now &- self.lookedAt > 1_000_000 {
            self.lookedAt = now
            try self.requireSameMembers()
            try self.requireNoneWaitsForUs()
            try self.requireNoCircle()
        }
        let left = (self.deadline &- bdr_host_now()) / 1000
        guard left > 0 else {
            throw self.timeout
        }
        try host(bdr_host_wait(nil, min(milliseconds, left)))
    }

    /// What is waited for may need changes of other nodes, which can't be applied here as long as this transaction has locks
    /// that they need.
    private func requireNoneWaitsForUs() throws {
        guard self.kind != .advisory else {
            return
        }
        for node in self.members.keys where node != self.local.id {
            var info = BdrWorkerInfo()
            try host(bdr_host_worker_info(Int32(BDR_ROLE_APPLY), node, &info))
            guard info.running != 0, try SQL.query(
                // it is in the lock group of another process, for which this transaction may be in the way, too
                """
                SELECT pg_catalog.pg_backend_pid() = ANY (pg_catalog.pg_blocking_pids($1::pg_catalog.int4))
                       AND EXISTS (SELECT FROM pg_catalog.pg_locks WHERE pid = $1::pg_catalog.int4 AND NOT granted)
                """, [String(info.pid)]
            )[0, 0] == "t"
            else {
                continue
            }
            let name = self.members[node]?.name ?? String(node)
            throw BdrError(
                "40P01", "deadlock detected",
                detail: "This transaction waits for \(self.what), which needs changes of node \"\(name)\" to be applied here; "
                    + "they wait for this transaction.",
                hint: "Take the global lock before anything else: SELECT bdr.global_lock_table('...');")
        }
    }

    /// Transactions of several nodes can wait for one another in a circle, which no server sees. Each follows the chain of those
    /// that it waits for; the one that asked last gives in.
    private func requireNoCircle() throws {
        guard let lock = self.request.blockedBy, let node = self.request.blockedNode.flatMap({ UInt32($0) }) else {
            return
        }
        var walk = GlobalLockWalk(own: self.id, held: sessions.others(than: self.id), node: self.local.id, time: self.begin)
        guard let first = Int64(lock) else {
            return
        }
        walk.begin(at: GlobalLockWalk.Step(lock: first, node: node))
        var connections: [UInt32: Connection] = [:]
        defer { connections.values.forEach { $0.close() } }
        do {
            while let step = walk.next() {
                guard let member = self.members[step.node] else {
                    continue
                }
                let connection = try connections[step.node] ?? Connection(dsn: member.dsn, timeout: 2000)
                connections[step.node] = connection
                bdr_host_conn_set_timeout(connection.raw, 2000)
                let answer = try PeerCall.globalLockWaits.ask(connection, [String(step.lock)])
                for row in 0..<answer.count {
                    guard let request = answer[row, 0].flatMap({ Int64($0) }), let time = answer[row, 1].flatMap({ Int64($0) }) else {
                        continue
                    }
                    var further: GlobalLockWalk.Step?
                    if let lock = answer[row, 2].flatMap({ Int64($0) }), let node = answer[row, 3].flatMap({ UInt32($0) }) {
                        further = GlobalLockWalk.Step(lock: lock, node: node)
                    }
                    walk.note(request: request, time: time, of: step, waitsFor: further)
                }
                guard let circle = walk.circle else {
                    continue
                }
                let names = circle.map { "\"\(self.members[$0]?.name ?? String($0))\"" }.joined(separator: ", ")
                throw BdrError(
                    "40P01", "deadlock detected",
                    detail: "This transaction waits for \(self.what); transactions of nodes \(names) wait for one another in a "
                        + "circle, of which this one asked last.",
                    hint: "Roll back and try again. Take global locks in the same order everywhere, and before anything else: "
                        + "SELECT bdr.global_lock_table('...');")
            }
        } catch is RemoteError {
            // the wait goes on
        }
    }

    private var what: String {
        switch self.kind {
        case .ddl: "the global DDL lock"
        case .dml: "the global DML lock of table \"\(self.request.schema ?? "").\(self.request.relation ?? "")\""
        case .advisory: "the global advisory lock"
        }
    }

    private var timeout: BdrError {
        let reasons = self.reasons.sorted { $0.key < $1.key }.map { "node \"\(self.members[$0.key]?.name ?? "")\": \($0.value)" }
        return BdrError(
            "55P03", "could not get \(self.what) in time",
            detail: reasons.isEmpty ? nil : "Waited for \(reasons.joined(separator: "; ")).",
            hint: "Try again, see bdr.global_locks on all nodes, or increase bdr.global_lock_timeout. A node that does not come back "
                + "must be parted: SELECT bdr.part_node('...', force := true);")
    }
}
