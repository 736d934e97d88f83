// Takes nodes out of the group, on behalf of the node on which bdr.part_node() was called.
//
// Every step is stored before it begins and can be repeated. The steps: take the lock that keeps joins and parts apart; close
// the node for writes; wait until what it committed is on all members; remove it on every member, and let it leave.
//
// A node that is down is parted by force: it is not asked anything. Members may have received different amounts of what it
// committed, so they complete one another before it is removed. Members that are down are told when they are back; they may
// turn out to have more than the others, or less. Only when all have been told is what was kept for that forgotten.

internal import CHost
internal import Membership

struct PartWorker {
    private struct Task {
        var id: String
        var name: String
        var dsn: String
        var state: NodeState
        var joinToken: String?
        var token: String
        var force: Bool
        var step: PartStep
        var transactions: String?
        var drainLSN: String?

        var plan: PartState {
            PartState(step: self.step, force: self.force, wasMember: self.state >= .active)
        }
    }

    private var lastLines: [String: String] = [:]
    /// Rounds in which nothing has come further: a member may be down for days.
    private var idleRounds = 0

    mutating func run() throws {
        while true {
            let tasks = try Transaction.run { try Self.load() }
            guard !tasks.isEmpty else {
                return
            }
            var moved = false
            for task in tasks {
                do {
                    moved = try self.perform(task) || moved
                } catch let error as HostError {
                    throw error
                } catch let error as RemoteError {
                    try self.note(task, error.message)
                } catch let error as BdrError {
                    try self.note(task, error.message)
                }
            }
            self.idleRounds = moved ? 0 : min(1000, self.idleRounds + 1)
            let pause: Int64 = moved ? 1 : self.idleRounds < 50 ? 200 : 2000
            if try host(bdr_host_wait(nil, pause)) & Int32(BDR_WAIT_SHUTDOWN) != 0 {
                return
            }
        }
    }

    private static func load() throws -> [Task] {
        let rows = try SQL.query(
            """
            SELECT n.node_id, n.node_name, i.if_dsn, n.node_state, n.join_token, p.part_token, p.force, p.step,
                   p.drain_transactions, p.drain_lsn
              FROM bdr.part_state p
              JOIN bdr.node n ON n.node_id = p.part_node_id
              JOIN bdr.node_interface i ON i.node_id = n.node_id
             WHERE p.step <> 'done' ORDER BY p.requested_time
            """)
        return try (0..<rows.count).map { row in
            guard let step = PartStep(rawValue: rows[row, 7] ?? "") else {
                throw BdrError(
                    SQLSTATE.featureNotSupported,
                    "parting is at step \"\(rows[row, 7] ?? "")\", which this version does not know")
            }
            return Task(
                id: rows[row, 0] ?? "", name: rows[row, 1] ?? "", dsn: rows[row, 2] ?? "",
                state: rows[row, 3].flatMap { UInt32($0) }.flatMap { NodeState(rawValue: $0) } ?? .none,
                joinToken: rows[row, 4], token: rows[row, 5] ?? "", force: rows[row, 6] == "t", step: step,
                transactions: rows[row, 8], drainLSN: rows[row, 9])
        }
    }

    private mutating func note(_ task: Task, _ line: String) throws {
        guard self.lastLines[task.id] != line else {
            return
        }
        self.lastLines[task.id] = line
        try Log.log("parting node \"\(task.name)\": \(line)")
        try Transaction.run {
            _ = try SQL.query(
                """
                UPDATE bdr.part_state SET progress = $2, changed_time = pg_catalog.clock_timestamp()
                 WHERE part_node_id = $1::pg_catalog.oid
                """, [task.id, line])
        }
    }

    /// The present step is done, or overtaken.
    private func moveOn(_ task: Task) throws {
        try Transaction.run {
            if let next = PartPlan.next(after: task.plan) {
                _ = try SQL.query(
                    """
                    UPDATE bdr.part_state SET step = $2, changed_time = pg_catalog.clock_timestamp()
                     WHERE part_node_id = $1::pg_catalog.oid
                    """, [task.id, next.rawValue])
            } else {
                _ = try SQL.query("DELETE FROM bdr.part_state WHERE part_node_id = $1::pg_catalog.oid", [task.id])
            }
        }
    }

    private struct Member {
        var id: String
        var name: String
        var dsn: String
        var isLocal: Bool

        func open() throws -> Connection {
            try Session.open(dsn: self.dsn, "node \"\(self.name)\"", timeout: 10_000)
        }
    }

    /// All members but the one that is parted.
    private func members(_ task: Task) throws -> [Member] {
        let rows = try Transaction.run {
            try SQL.query(
                """
                SELECT n.node_id, n.node_name, i.if_dsn, EXISTS (SELECT FROM bdr.local_node l WHERE l.node_id = n.node_id)
                  FROM bdr.node n JOIN bdr.node_interface i ON i.node_id = n.node_id
                 WHERE n.node_id <> $1::pg_catalog.oid AND n.node_state = $2::pg_catalog.oid ORDER BY n.node_id
                """, [task.id, String(NodeState.active.rawValue)])
        }
        return (0..<rows.count).map { row in
            Member(
                id: rows[row, 0] ?? "", name: rows[row, 1] ?? "", dsn: rows[row, 2] ?? "", isLocal: rows[row, 3] == "t")
        }
    }

    /// - Returns: whether it has come further.
    private mutating func perform(_ task: Task) throws -> Bool {
        if task.plan.isOvertaken {
            try self.moveOn(task)
            return true
        }
        return switch task.step {
        case .lock: try self.lock(task)
        case .announce: try self.announce(task)
        case .drain: try self.drain(task)
        case .remove: try self.remove(task)
        case .notify: try self.notify(task)
        case .forget: try self.forget(task)
        }
    }

    /// With force, members that are down are left out: what they have to do is noted for later. While it waits it has no lock:
    /// a member that is down for good may have to be parted first.
    private mutating func lock(_ task: Task) throws -> Bool {
        let local = try Transaction.run { try LocalNode.require() }
        var locked: [Connection] = []
        var isLocked = false
        defer {
            if !isLocked {
                for session in locked {
                    // what can't be given back now is when the step is repeated
                    _ = try? PeerCall.release.ask(session, [task.token])
                }
            }
        }
        for member in try self.members(task) {
            let session: Connection
            do {
                session = try member.open()
            } catch let error as BdrError where task.force && SQLState.isTransient(error.sqlstate) {
                continue
            }
            locked.append(session)
            let answer = try PeerCall.lockPart.ask(
                session, [task.token, task.name, String(local.id), task.force ? "t" : "f"])
            guard answer[0, 0] == "t" else {
                try self.note(task, "waiting for node \"\(answer[0, 1] ?? "")\", which is joining or leaving the group now")
                return false
            }
        }
        isLocked = true
        try self.moveOn(task)
        return true
    }

    private mutating func announce(_ task: Task) throws -> Bool {
        let state = String(NodeState.partStart.rawValue)
        let session = try Session.open(dsn: task.dsn, "node \"\(task.name)\"", timeout: 10_000)
        try PeerCall.setNodeState.ask(session, [task.id, state])
        // from here on the node refuses writes; those who had begun are waited for
        let running = try PeerCall.runningTransactions.ask(session)[0, 0]
        try Transaction.run {
            if let id = UInt32(task.id) {
                try NodeCatalog.setState(id, .partStart)
                try NodeCatalog.setState(id, .parting)
            }
            try SQL.query(
                """
                UPDATE bdr.part_state SET drain_transactions = $2, drain_lsn = NULL WHERE part_node_id = $1::pg_catalog.oid
                """, [task.id, running])
        }
        try self.moveOn(task)
        return true
    }

    private mutating func drain(_ task: Task) throws -> Bool {
        let session = try Session.open(dsn: task.dsn, "node \"\(task.name)\"", timeout: 10_000)
        let goal: String
        if let known = task.drainLSN {
            goal = known
        } else {
            if try PeerCall.stillRunning.ask(session, [task.transactions ?? ""])[0, 0] == "t" {
                try self.note(task, "waiting for transactions that run on node \"\(task.name)\"")
                return false
            }
            goal = try PeerCall.position.ask(session)[0, 0] ?? ""
            try Transaction.run {
                _ = try SQL.query(
                    "UPDATE bdr.part_state SET drain_lsn = $2::pg_catalog.pg_lsn WHERE part_node_id = $1::pg_catalog.oid",
                    [task.id, goal])
                if let id = UInt32(task.id) {
                    try NodeCatalog.setState(id, .partCatchup)
                }
            }
        }
        if let behind = try PeerCall.peersConfirmed.ask(session, [goal])[0, 0] {
            try self.note(task, "waiting until \(behind) has all that node \"\(task.name)\" committed")
            return false
        }
        try self.moveOn(task)
        return true
    }

    private mutating func remove(_ task: Task) throws -> Bool {
        let members = try self.members(task)
        try self.addPending(task, members)
        if !task.force {
            let session = try Session.open(dsn: task.dsn, "node \"\(task.name)\"", timeout: 10_000)
            if task.state < .active {
                // its own join worker undoes what it has made
                try PeerCall.cancelJoin.ask(session)
            } else {
                // first nobody streams from it any more, or its slots would be taken again and again
                for member in members {
                    try PeerCall.stopReceiving.ask(member.open(), [task.id])
                }
                try PeerCall.stopReceiving.ask(session, [nil])
                try PeerCall.leave.ask(session)
            }
        }
        try self.moveOn(task)
        return true
    }

    /// Tells those who have not been told; the node counts as parted here when all that are up have been.
    private mutating func notify(_ task: Task) throws -> Bool {
        let waiting = try self.pending(task)
        let mayBeMissing = task.plan.mayDiffer
        var sessions: [String: Connection] = [:]
        var down: [String] = []
        var failure: BdrError?
        // the local one last: what is shown here is what holds everywhere
        let members = try self.members(task).sorted { !$0.isLocal && $1.isLocal }
        for member in members {
            do {
                sessions[member.id] = try member.open()
            } catch let error as BdrError {
                // one that was told before may lack what another one has that is back only now
                if mayBeMissing || waiting.contains(member.id) {
                    down.append(member.name)
                    failure = error
                }
            }
        }
        let ready = try mayBeMissing
            ? self.complete(task, members, sessions, allAreThere: down.isEmpty) : Set(members.map { $0.id })
        guard let ready else {
            return false
        }
        for member in members where waiting.contains(member.id) && ready.contains(member.id) {
            guard let session = sessions[member.id] else {
                continue
            }
            do {
                if task.state < .active, let token = task.joinToken {
                    // it never was a member: no record of it stays
                    try PeerCall.unsubscribe.ask(session, [token])
                    try PeerCall.cancel.ask(session, [token])
                } else {
                    try PeerCall.stopReceiving.ask(session, [task.id])
                    try PeerCall.removeNode.ask(session, [task.id, mayBeMissing ? "t" : "f"])
                }
                try PeerCall.release.ask(session, [task.token])
                try Transaction.run {
                    _ = try SQL.query(
                        """
                        DELETE FROM bdr.part_pending
                         WHERE part_node_id = $1::pg_catalog.oid AND member_id = $2::pg_catalog.oid
                        """, [task.id, member.id])
                }
            } catch let error as BdrError {
                down.append(member.name)
                failure = error
            } catch let error as RemoteError {
                down.append(member.name)
                failure = error.asError("node \"\(member.name)\"")
            }
        }
        guard down.isEmpty else {
            try self.note(task, "waiting for \(down.joined(separator: ", ")): \(failure?.message ?? "")")
            return false
        }
        guard try self.pending(task).isEmpty else {
            return false
        }
        if mayBeMissing {
            try self.addPending(task, members)
        }
        try self.moveOn(task)
        return true
    }

    /// Has the members that are up give one another what they have of a dead node.
    /// - Parameter allAreThere: no member is down that may have more.
    /// - Returns: those that have everything there is to have; nil while some are at it.
    private mutating func complete(
        _ task: Task, _ members: [Member], _ sessions: [String: Connection], allAreThere: Bool
    ) throws -> Set<String>? {
        var survivors: [Survivor] = []
        var complete: Set<String> = []
        for member in members {
            guard let session = sessions[member.id], let id = UInt32(member.id) else {
                continue
            }
            // a transaction of its own, so that no worker receives any more when the position is read
            try PeerCall.stopReceiving.ask(session, [task.id])
            let found = try PeerCall.originPosition.ask(session, [task.id])
            guard found[0, 2] == "t" else {
                // another member parts the same node, and is done with this one
                complete.insert(member.id)
                continue
            }
            survivors.append(
                Survivor(
                    id: id, position: found[0, 0].flatMap { LSN.parse($0) } ?? 0,
                    forwardsAfter: found[0, 1].flatMap { LSN.parse($0) }))
        }
        let plan = RecoveryPlan(survivors)
        func name(_ id: UInt32) -> String { members.first { $0.id == String(id) }?.name ?? String(id) }
        for step in plan.steps {
            guard let receiver = sessions[String(step.receiver)], let source = sessions[String(step.source)] else {
                continue
            }
            try self.note(
                task,
                "node \"\(name(step.receiver))\" gets the last changes of node \"\(task.name)\" from node \"\(name(step.source))\"")
            let end = try PeerCall.position.ask(source)[0, 0] ?? ""
            try PeerCall.recover.ask(receiver, [task.id, String(step.source), LSN.text(step.position), end])
        }
        guard plan.steps.isEmpty else {
            return nil
        }
        var ready = complete.union(survivors.map { String($0.id) })
        let furthest = survivors.map(\.position).max() ?? 0
        for id in plan.incomplete {
            guard allAreThere else {
                // one that is down may be able to
                try self.note(task, "node \"\(name(id))\" lacks changes of node \"\(task.name)\", and nobody who is up can send them")
                ready.remove(String(id))
                continue
            }
            let position = survivors.first { $0.id == id }?.position ?? 0
            for session in sessions.values {
                try PeerCall.noteMissing.ask(
                    session, [String(id), task.id, LSN.text(position), LSN.text(furthest)])
            }
        }
        return ready
    }

    /// Everybody knows that the node has left: nothing of it has to be forwarded any more.
    private mutating func forget(_ task: Task) throws -> Bool {
        let waiting = try self.pending(task)
        for member in try self.members(task) where waiting.contains(member.id) {
            do {
                try PeerCall.forgetOrigin.ask(member.open(), [task.id])
            } catch let error as BdrError {
                try self.note(task, "waiting for \(member.name): \(error.message)")
                return false
            }
            try Transaction.run {
                _ = try SQL.query(
                    """
                    DELETE FROM bdr.part_pending
                     WHERE part_node_id = $1::pg_catalog.oid AND member_id = $2::pg_catalog.oid
                    """, [task.id, member.id])
            }
        }
        // those that were parted meanwhile are not waited for
        try self.moveOn(task)
        return true
    }

    private func pending(_ task: Task) throws -> Set<String> {
        let rows = try Transaction.run {
            try SQL.query(
                """
                SELECT p.member_id FROM bdr.part_pending p JOIN bdr.node n ON n.node_id = p.member_id
                 WHERE p.part_node_id = $1::pg_catalog.oid AND n.node_state = $2::pg_catalog.oid
                """, [task.id, String(NodeState.active.rawValue)])
        }
        return Set((0..<rows.count).compactMap { rows[$0, 0] })
    }

    private func addPending(_ task: Task, _ members: [Member]) throws {
        try Transaction.run {
            for member in members {
                _ = try SQL.query(
                    """
                    INSERT INTO bdr.part_pending (part_node_id, member_id) VALUES ($1::pg_catalog.oid, $2::pg_catalog.oid)
                    ON CONFLICT DO NOTHING
                    """, [task.id, member.id])
            }
        }
    }
}
