// The process that makes the local node a member of its group: runs the steps of JoinPlan, one after the other, each stored
// before it begins.

internal import CHost
internal import Membership

@c(bdr_engine_join_main)
public func bdrEngineJoinMain() -> Int32 {
    entry {
        if let record = try Transaction.run({ try JoinRecord.load() }), !record.state.isFinal {
            try JoinWorker(record).run()
        } else {
            var worker = PartWorker()
            try worker.run()
        }
    }
}

final class JoinWorker {
    private var record: JoinRecord
    private var node: LocalNode
    private var copy: SnapshotCopy?
    private var lastWait = ""
    /// Why something could not be removed on another node yet.
    private var unreached: BdrError?
    /// Who has not answered in this round of undoing, by connection string.
    private var silent: [String: BdrError] = [:]

    init(_ record: JoinRecord) throws {
        self.record = record
        self.node = try Transaction.run { try LocalNode.require() }
    }

    func run() throws {
        var backoff = Backoff(
            minimum: Int64(bdr_host_setting_int("bdr.min_worker_backoff_delay", 1000)),
            maximum: Int64(bdr_host_setting_int("bdr.max_worker_backoff_delay", 60_000)),
            seed: UInt64(bdr_host_random()))
        try self.move(to: JoinPlan.resume(self.record.state))
        while !self.record.state.isFinal {
            let before = self.record.state
            var outcome: JoinOutcome
            do {
                try self.pauseForTest(before.step.rawValue)
                outcome = try self.isCancelled() ? .cancelled : try self.perform(before.step)
                if outcome == .done {
                    try self.pauseForTest(before.step.rawValue + ":done")
                }
            } catch let error as HostError {
                throw error
            } catch {
                let (shown, isTransient) = Self.classify(error)
                outcome = isTransient ? .transient : .failed
                try self.note(error: shown, isFinal: !isTransient)
                backoff.failed(transient: isTransient, now: bdr_host_now())
            }
            if outcome == .done {
                backoff.succeeded()
            }
            try self.move(to: JoinPlan.next(after: before, outcome: outcome))
            let pause: Int64 =
                switch outcome {
                case .done: 0
                case .waiting: 100
                default: backoff.remaining(now: bdr_host_now())
                }
            if pause > 0 || outcome != .done {
                if try host(bdr_host_wait(nil, max(10, pause))) & Int32(BDR_WAIT_SHUTDOWN) != 0 {
                    return
                }
            }
        }
    }

    // MARK: State

    private func move(to state: JoinState) throws {
        guard state != self.record.state else {
            return
        }
        if !state.step.needsSnapshot {
            self.copy = nil
        }
        self.record.state = state
        try Transaction.run {
            try self.record.save()
            for entered in state.step.entersStates {
                try NodeCatalog.setState(self.node.id, entered)
            }
            if state.step == .failed {
                try SQL.query(
                    "UPDATE bdr.node SET target_state = node_state WHERE node_id = $1::pg_catalog.oid", [String(self.node.id)])
            }
            try JoinRecord.note(state.step.title)
            self.node = try LocalNode.require()
        }
        try self.publish()
        try self.tellTarget(state.step.entersStates)
    }

    /// The operator has given the join up; noticed once, while that is possible.
    private func isCancelled() throws -> Bool {
        guard self.record.state.step.isCancelable else {
            return false
        }
        return try Transaction.run {
            guard try SQL.query("SELECT FROM bdr.join_state WHERE cancel_requested").count > 0 else {
                return false
            }
            try SQL.query(
                """
                UPDATE bdr.join_state SET cancel_requested = false, error_sqlstate = '57014', error_detail = NULL,
                       error_message = 'the join was cancelled', error_hint = NULL
                """)
            return true
        }
    }

    private func update(_ change: (inout JoinRecord) -> Void) throws {
        change(&self.record)
        try Transaction.run { try self.record.save() }
    }

    private func note(_ line: String) throws {
        try Transaction.run { try JoinRecord.note(line) }
    }

    /// A line, unless it is the last one already.
    private func noteOnce(_ line: String) throws {
        if line != self.lastWait {
            self.lastWait = line
            try self.note(line)
        }
    }

    private func publish() throws {
        try host(
            bdr_host_publish_node(
                self.node.id, Int32(clamping: self.node.state.rawValue), self.node.state.refusesWrites,
                self.node.state > .created, 0))
    }

    /// The target shows how far this node is; the join does not depend on it.
    private func tellTarget(_ states: [NodeState]) throws {
        guard self.record.targetID != nil, self.record.state.step != .failed else {
            return
        }
        for state in states where state != .active {
            do {
                let target = try self.target()
                try PeerCall.state.ask(target, [self.record.token, String(state.rawValue)])
            } catch let error as HostError {
                throw error
            } catch {
                return
            }
        }
    }

    private static func classify(_ error: any Error) -> (BdrError, isTransient: Bool) {
        switch error {
        case let error as BdrError:
            return (error, SQLState.isTransient(error.sqlstate))
        case let error as RemoteError:
            return (error.asError("the join failed"), SQLState.isTransient(error.sqlstate))
        case let error as MembershipError:
            return (BdrError(error.sqlstate, error.message, detail: error.detail, hint: error.hint), false)
        default:
            return (BdrError(SQLSTATE.internalError, "\(error)"), false)
        }
    }

    private func note(error: BdrError, isFinal: Bool) throws {
        try Log.warning(
            isFinal ? "the join is given up: \(error.message)" : "the join is interrupted: \(error.message)",
            sqlstate: error.sqlstate, detail: error.detail, hint: error.hint)
        // while a join that has failed is undone, the reason stays to be read
        let isUndoing = self.record.state.step == .rollback
        try Transaction.run {
            if !isUndoing {
                try SQL.query(
                    "UPDATE bdr.join_state SET error_sqlstate = $1, error_message = $2, error_detail = $3, error_hint = $4",
                    [error.sqlstate, error.message, error.detail, error.hint])
            }
            try JoinRecord.note("\(self.record.state.step.title): \(error.message)")
        }
    }

    /// Waits while bdr.debug_join_pause_at names this place: tests then kill one of the servers.
    private func pauseForTest(_ place: String) throws {
        func isAsked() -> Bool {
            bdr_host_setting("bdr.debug_join_pause_at").map { String(cString: $0) == place } ?? false
        }
        guard isAsked() else {
            return
        }
        try self.note("paused at \(place)")
        while isAsked() {
            try host(bdr_host_wait(nil, 50))
        }
    }

    // MARK: Connections

    private func target() throws -> Connection {
        try self.open(self.record.targetDSN, "the join target")
    }

    /// A session on another node. While things are undone, one that does not answer is asked once in a round: each try can take
    /// as long as a connection may, and the other members wait for their lock.
    private func open(_ dsn: String, _ who: String) throws -> Connection {
        guard self.record.state.step == .rollback || self.record.state.step == .cleanup else {
            return try Session.open(dsn: dsn, who)
        }
        if let error = self.silent[dsn] {
            throw error
        }
        do {
            return try Session.open(dsn: dsn, who, timeout: 10_000)
        } catch let error as BdrError {
            self.silent[dsn] = error
            throw error
        }
    }

    private func local(writes: Bool = false) throws -> Connection {
        try Session.open(dsn: self.node.dsn, "this node with its own local_dsn", writes: writes)
    }

    private func require(_ value: String?, _ what: String) throws -> String {
        guard let value else {
            throw BdrError(SQLSTATE.internalError, "the join has no \(what) at step \"\(self.record.state.step.rawValue)\"")
        }
        return value
    }

    // MARK: Steps

    private func perform(_ step: JoinStep) throws -> JoinOutcome {
        switch step {
        case .preflight:
            // both sides were checked before the join was stored
            return .done
        case .standby: return try self.standBy()
        case .reserve: return try self.reserve()
        case .createPeerSlots: return try self.createPeerSlots()
        case .awaitPeerPositions: return try self.awaitPeerPositions()
        case .createSlot: try self.createSlot()
        case .copyStructure:
            if self.record.copiesStructure {
                try self.snapshot().copyStructure(local: self.node.dsn, target: self.record.targetDSN)
            }
        case .copyData: try self.copyData()
        case .copyIndexes: try self.copyIndexes()
        case .setOrigins: try self.setOrigins()
        case .createLocalSlots: return try self.createLocalSlots()
        case .catchup: return try self.catchUp()
        case .promote: return try self.promote()
        case .active, .failed: break
        case .cleanup, .rollback:
            self.unreached = nil
            self.silent = [:]
            for resource in self.record.state.mustRemove {
                try self.remove(resource)
            }
            if let error = self.unreached {
                throw error
            }
        }
        return .done
    }

    /// Members by id: how to reach them.
    private struct Member {
        var id: String
        var name: String
        var dsn: String
        var state: String?
    }

    private static func members(_ rows: Rows) -> [Member] {
        let parted = String(NodeState.parted.rawValue)
        return (0..<rows.count).compactMap { row in
            guard let id = rows[row, 0], let name = rows[row, 1], let dsn = rows[row, 5], rows[row, 2] != parted else {
                return nil
            }
            return Member(id: id, name: name, dsn: dsn, state: rows[row, 2])
        }
    }

    /// Takes the join lock on all members, in the order of their ids so that two joins never wait for one another, and then
    /// the same place on each. While this node waits it has no lock: a member that is down for good must be parted first,
    /// and this node's server may never come back.
    private func reserve() throws -> JoinOutcome {
        let target = try self.target()
        try self.requireMember(target)
        let nodes = try PeerCall.nodes.ask(target)
        var sessions: [Connection] = []
        do {
            guard let number = try self.lockMembers(nodes, &sessions) else {
                try self.unlock(sessions)
                return .waiting
            }
            let own = self.node.name
            let database = try Transaction.run { try SQL.query("SELECT pg_catalog.current_database()")[0, 0] ?? "" }
            for session in sessions {
                try PeerCall.reserve.ask(session, [self.record.token, own, self.node.dsn, database, number])
            }
            let place = try PeerCall.reserve.ask(target, [self.record.token, own, self.node.dsn, database, number])
            try self.takePlace(place, nodes)
            return .done
        } catch let error as HostError {
            throw error
        } catch {
            try self.unlock(sessions)
            throw error
        }
    }

    /// The join target may have left the group while this node waited for its turn.
    private func requireMember(_ target: Connection) throws {
        let found = try PeerCall.describe.ask(target)
        let state = found[0, 2].flatMap { UInt32($0) }.flatMap { NodeState(rawValue: $0) } ?? .none
        // one that is leaving is waited for, as its parting may be given up
        if found[0, 5] != nil, state >= .active, state < .parted {
            return
        }
        throw BdrError(
            SQLSTATE.objectNotInPrerequisiteState,
            "the join target, node \"\(found[0, 1] ?? "")\", is no longer an active member of a group",
            detail: "Its state is \(state.name).",
            hint: "Join through another member: SELECT bdr.join_node_group('...');")
    }

    /// - Parameter sessions: to the members whose lock was taken, or may have been.
    /// - Returns: the number that is free on all members; nil when it is not this node's turn yet.
    private func lockMembers(_ nodes: Rows, _ sessions: inout [Connection]) throws -> String? {
        let active = String(NodeState.active.rawValue)
        let own = self.node.name
        let members = Self.members(nodes).filter { $0.name != own }.sorted { UInt32($0.id) ?? 0 < UInt32($1.id) ?? 0 }
        var nextID: UInt32 = 1
        var reservedID: UInt32?
        for member in members {
            guard member.state == active else {
                try self.noteOnce("waiting for node \"\(member.name)\", which is joining or leaving")
                return nil
            }
            // not for long: others wait for the locks that this node has got already
            let session = try Session.open(dsn: member.dsn, "node \"\(member.name)\"", timeout: 10_000)
            sessions.append(session)
            let answer = try PeerCall.lock.ask(session, [self.record.token, own])
            guard answer[0, 0] == "t" else {
                try self.noteOnce("waiting for node \"\(answer[0, 2] ?? "")\", which is joining or leaving the group now")
                return nil
            }
            if let id = answer[0, 1].flatMap({ UInt32($0) }) {
                nextID = max(nextID, id)
                if answer[0, 3] == "t" {
                    reservedID = id
                }
            }
        }
        // nobody joins any more: now all members must know of the same ones
        let known = Set(members.map { $0.id })
        for (member, session) in zip(members, sessions) {
            let list = Set(Self.members(try PeerCall.nodes.ask(session)).filter { $0.name != own }.map { $0.id })
            guard list == known else {
                try self.noteOnce("waiting until node \"\(member.name)\" knows the same members as the join target")
                return nil
            }
        }
        return String(reservedID ?? nextID)
    }

    /// Gives back the lock, but not where this node has its place already: there it goes on when the step is repeated.
    private func unlock(_ sessions: [Connection]) throws {
        for session in sessions {
            do {
                try PeerCall.unlock.ask(session, [self.record.token])
            } catch let error as HostError {
                throw error
            } catch {
                // the next attempt, or giving the join up, does it
                continue
            }
        }
    }

    private func takePlace(_ place: Rows, _ nodes: Rows) throws {
        guard let id = place[0, 0], let idNumber = UInt32(id), let sequence = place[0, 1], let group = place[0, 2],
            let groupName = place[0, 3], let uuid = place[0, 4], let nextID = place[0, 5], let targetID = place[0, 6],
            let targetName = place[0, 7]
        else {
            throw BdrError(SQLSTATE.protocolViolation, "the join target's answer is incomplete")
        }
        try Transaction.run {
            let database = try SQL.query("SELECT pg_catalog.current_database()")[0, 0] ?? ""
            let old = self.node.id
            if old != idNumber {
                // the number may be that of a node left over from an earlier try
                try SQL.query(
                    "DELETE FROM bdr.node WHERE node_id <> $1::pg_catalog.oid", [String(old)])
                try SQL.query(
                    "UPDATE bdr.state_journal SET node_id = $2::pg_catalog.oid WHERE node_id = $1::pg_catalog.oid",
                    [String(old), id])
            }
            try SQL.query(
                """
                UPDATE bdr.node SET node_id = $2::pg_catalog.oid, node_group_id = $3::pg_catalog.oid,
                       seq_id = $4::pg_catalog.int4, synchronize_structure = 'a', source_node_id = $5::pg_catalog.oid
                 WHERE node_id = $1::pg_catalog.oid
                """, [String(old), id, group, sequence, targetID])
            try NodeCatalog.renumberInterface(of: id)
            try SQL.query(
                """
                INSERT INTO bdr.node_group (node_group_id, node_group_name, node_group_default_repset, node_group_uuid,
                                            node_group_next_node_id)
                VALUES ($1::pg_catalog.oid, $2::pg_catalog.name, $1::pg_catalog.oid, $3::pg_catalog.uuid,
                        $4::pg_catalog.oid)
                ON CONFLICT DO NOTHING
                """, [group, groupName, uuid, nextID])
            try SQL.query(
                """
                UPDATE bdr.node_local_info SET pub_repsets = ARRAY[$2], sub_repsets = ARRAY[$2]
                 WHERE node_id = $1::pg_catalog.oid
                """, [id, groupName])
            try SQL.query("DELETE FROM bdr.join_peer")
            let parted = String(NodeState.parted.rawValue)
            for row in 0..<nodes.count {
                guard let peer = nodes[row, 0], peer != id, let name = nodes[row, 1], name != self.node.name,
                    let state = nodes[row, 2], let peerDatabase = nodes[row, 3], let peerSequence = nodes[row, 4],
                    let dsn = nodes[row, 5]
                else {
                    continue
                }
                // known already when the step is repeated
                if try SQL.query("SELECT FROM bdr.node WHERE node_id = $1::pg_catalog.oid", [peer]).count == 0 {
                    try NodeCatalog.addPeer(
                        id: peer, name: name, group: group, state: state, database: peerDatabase, sequence: peerSequence,
                        dsn: dsn)
                    if let peerState = UInt32(state).flatMap({ NodeState(rawValue: $0) }), let peerID = UInt32(peer) {
                        try NodeCatalog.journal(peerID, peerState)
                    }
                }
                if peer != targetID && state != parted {
                    try SQL.query(
                        """
                        INSERT INTO bdr.join_peer (peer_node_id, remote_slot_name, local_slot_name, origin_name)
                        VALUES ($1::pg_catalog.oid, $2::pg_catalog.name, $3::pg_catalog.name, $4::pg_catalog.name)
                        """,
                        [
                            peer,
                            ObjectNames.slotName(database: peerDatabase, group: groupName, peer: self.node.name),
                            ObjectNames.slotName(database: database, group: groupName, peer: name),
                            ObjectNames.originName(database: database, group: groupName, node: name),
                        ])
                }
            }
            let targetDatabase =
                try SQL.query("SELECT dbname FROM bdr.node WHERE node_id = $1::pg_catalog.oid", [targetID])[0, 0] ?? ""
            self.record.targetID = targetID
            self.record.targetName = targetName
            self.record.groupName = groupName
            self.record.remoteSlot = ObjectNames.slotName(
                database: targetDatabase, group: groupName, peer: self.node.name)
            self.record.localSlot = ObjectNames.slotName(database: database, group: groupName, peer: targetName)
            self.record.origin = ObjectNames.originName(database: database, group: groupName, node: targetName)
            try self.record.save()
            self.node = try LocalNode.require()
        }
        try self.publish()
    }

    /// A member other than the join target, as the join knows it.
    private struct Peer {
        var id: String
        var name: String
        var dsn: String
        var remoteSlot: String
        var startLSN: String?
        var position: String?
        var localSlot: String
        var localLSN: String?
        var origin: String
        var catchupLSN: String?
    }

    private func peers() throws -> [Peer] {
        let rows = try Transaction.run {
            try SQL.query(
                """
                SELECT p.peer_node_id, n.node_name, i.if_dsn, p.remote_slot_name, p.start_lsn, p.position,
                       p.local_slot_name, p.local_lsn, p.origin_name, p.catchup_lsn
                  FROM bdr.join_peer p
                  JOIN bdr.node n ON n.node_id = p.peer_node_id
                  JOIN bdr.node_interface i ON i.node_id = n.node_id
                 ORDER BY p.peer_node_id
                """)
        }
        return (0..<rows.count).map { row in
            Peer(
                id: rows[row, 0] ?? "", name: rows[row, 1] ?? "", dsn: rows[row, 2] ?? "", remoteSlot: rows[row, 3] ?? "",
                startLSN: rows[row, 4], position: rows[row, 5], localSlot: rows[row, 6] ?? "", localLSN: rows[row, 7],
                origin: rows[row, 8] ?? "", catchupLSN: rows[row, 9])
        }
    }

    /// - Parameter column: of bdr.join_peer, a position.
    private func set(_ column: String, _ value: String?, of peer: Peer) throws {
        try Transaction.run {
            _ = try SQL.query(
                "UPDATE bdr.join_peer SET \(column) = $2::pg_catalog.pg_lsn WHERE peer_node_id = $1::pg_catalog.oid",
                [peer.id, value])
        }
    }

    private func session(_ peer: Peer) throws -> Connection {
        try self.open(peer.dsn, "node \"\(peer.name)\"")
    }

    /// The slots from which this node will stream from the other members begin before the copy: what lies between is left out
    /// by position.
    private func createPeerSlots() throws -> JoinOutcome {
        let peers = try self.peers()
        guard !peers.isEmpty else {
            return .done
        }
        let target = try self.target()
        guard try self.haveGroupSlots(target, peers) else {
            return .waiting
        }
        try PeerCall.track.ask(target, [self.record.token])
        try PeerCall.restartApply.ask(target)
        for peer in peers where peer.startLSN == nil {
            try self.note("waiting for the transactions that run on node \"\(peer.name)\", to create slot \"\(peer.remoteSlot)\" there")
            try PeerCall.dropSlot.ask(self.session(peer), [peer.remoteSlot])
            let stream = try Session.open(dsn: peer.dsn, "node \"\(peer.name)\"", replication: true)
            do {
                let made = try stream.query(
                    "CREATE_REPLICATION_SLOT \"\(peer.remoteSlot)\" LOGICAL bdr (SNAPSHOT 'nothing')")
                try self.set("start_lsn", made[0, 1], of: peer)
            } catch let error as RemoteError {
                throw error.asError("the replication slot could not be created on node \"\(peer.name)\"")
            }
        }
        return .done
    }

    /// Should a member die, others must be able to forward what this node lacks of it: from the beginning of its slots on.
    private func haveGroupSlots(_ target: Connection, _ peers: [Peer]) throws -> Bool {
        let members = [(self.record.targetName ?? "", target)] + (try peers.map { ($0.name, try self.session($0)) })
        for (name, session) in members {
            try PeerCall.wake.ask(session)
            let outcome = try self.poll { try PeerCall.hasGroupSlot.ask(session)[0, 0] == "t" }
            guard outcome == .done else {
                try self.noteOnce("waiting for the transactions that run on node \"\(name)\", to create its group slot")
                return false
            }
        }
        return true
    }

    /// The join target has applied everything that precedes the slots on the others.
    private func awaitPeerPositions() throws -> JoinOutcome {
        let peers = try self.peers()
        guard !peers.isEmpty else {
            return .done
        }
        let target = try self.target()
        for peer in peers {
            let start = try self.require(peer.startLSN, "slot on node \"\(peer.name)\"")
            // a node on which nothing happens would never pass that point
            try PeerCall.heartbeat.ask(self.session(peer))
            let outcome = try self.poll {
                let positions = try PeerCall.positions.ask(target)
                return (0..<positions.count).contains { row in
                    positions[row, 0] == peer.id
                        && (LSN.parse(positions[row, 1] ?? "") ?? 0) >= (LSN.parse(start) ?? UInt64.max)
                }
            }
            guard outcome == .done else {
                try self.noteOnce("waiting until the join target has applied what node \"\(peer.name)\" committed")
                return .waiting
            }
        }
        return .done
    }

    private func createSlot() throws {
        let slot = try self.require(self.record.remoteSlot, "slot")
        let origin = try self.require(self.record.origin, "origin")
        try PeerCall.dropSlot.ask(self.target(), [slot])
        try self.note("waiting for the transactions that run on the join target, to create slot \"\(slot)\" there")
        let copy = try SnapshotCopy(target: self.record.targetDSN, slot: slot, joining: self.node.id)
        try self.update { $0.remoteLSN = copy.lsn }
        try Transaction.run { try NodeCatalog.createOrigin(origin) }
        self.copy = copy
    }

    private func snapshot() throws -> SnapshotCopy {
        guard let copy = self.copy else {
            throw BdrError(SQLSTATE.connectionFailure, "the snapshot of the join target is gone")
        }
        return copy
    }

    private func copyData() throws {
        // what the snapshot contains of the other members: exact, as the row was written with the changes
        let positions = try self.snapshot().positions()
        for peer in try self.peers() {
            guard let position = positions[peer.id], let start = peer.startLSN.flatMap({ LSN.parse($0) }),
                LSN.parse(position) ?? 0 >= start
            else {
                throw BdrError(
                    SQLSTATE.objectNotInPrerequisiteState,
                    "the copy does not contain what precedes the slot on node \"\(peer.name)\"")
            }
            try self.set("position", position, of: peer)
        }
        var report = CopyReport()
        let workers = Int(bdr_host_setting_int("bdr.max_sync_workers", 4))
        try self.snapshot().copyData(
            local: self.node.dsn, partitions: self.record.copiesStructure, workers: workers
        ) { tables, progress in
            try Transaction.run { try report.store(tables, progress) }
        }
    }

    private func copyIndexes() throws {
        let script = try Transaction.run { try SQL.query("SELECT script FROM bdr.join_script")[0, 0] }
        guard let script else {
            // the transaction that ran it has removed it
            return
        }
        let connection = try self.local(writes: true)
        do {
            try connection.query("BEGIN")
            try connection.query("SET LOCAL session_replication_role = replica")
            // nobody else works here yet, so indexes may be sorted in what will be the server's cache, up to 1 GB (in kB)
            try connection.query(
                """
                SELECT pg_catalog.set_config('maintenance_work_mem', GREATEST(m.setting::pg_catalog.int8,
                                             LEAST(b.setting::pg_catalog.int8 * 8, 1048576))::pg_catalog.text, true)
                  FROM pg_catalog.pg_settings m, pg_catalog.pg_settings b
                 WHERE m.name = 'maintenance_work_mem' AND b.name = 'shared_buffers'
                """)
            try connection.query(script)
            try connection.query("RESET search_path")
            try connection.query("DELETE FROM bdr.join_script")
            try connection.query("COMMIT")
            try connection.query("ANALYZE")
        } catch let error as RemoteError {
            throw error.asError("indexes, constraints and triggers could not be created")
        }
    }

    private func setOrigins() throws {
        // before anything is applied here
        let settings = try PeerCall.conflictSettings.ask(self.target())
        try Transaction.run { try ConflictSettings.adopt(settings) }
        let kinds = try PeerCall.sequenceKinds.ask(self.target())
        try Transaction.run {
            try SequenceKinds.adopt(kinds)
            try SequenceKinds.warnOfLocalOnes()
        }
        let origin = try self.require(self.record.origin, "origin")
        let lsn = try self.require(self.record.remoteLSN, "position")
        try Transaction.run {
            // the copy has set it already, unless there was no row
            let progress = try SQL.query(
                "SELECT pg_catalog.pg_replication_origin_progress($1, true) >= $2::pg_catalog.pg_lsn", [origin, lsn])
            if progress[0, 0] != "t" {
                try SQL.query("SELECT pg_catalog.pg_replication_origin_advance($1, $2::pg_catalog.pg_lsn)", [origin, lsn])
            }
        }
        for peer in try self.peers() {
            let position = try self.require(peer.position, "position of node \"\(peer.name)\"")
            try Transaction.run {
                try NodeCatalog.createOrigin(peer.origin)
                try SQL.query(
                    "SELECT pg_catalog.pg_replication_origin_advance($1, $2::pg_catalog.pg_lsn)", [peer.origin, position])
            }
        }
    }

    private func createLocalSlots() throws -> JoinOutcome {
        let slot = try self.require(self.record.localSlot, "slot")
        let targetID = try self.require(self.record.targetID, "target")
        if self.record.localLSN == nil {
            let lsn = try self.createLocalSlot(slot)
            try self.update { $0.localLSN = lsn }
        }
        let peers = try self.peers()
        for peer in peers where peer.localLSN == nil {
            try self.set("local_lsn", try self.createLocalSlot(peer.localSlot), of: peer)
        }
        if !peers.isEmpty {
            bdr_host_wake_manager()
            // before anything is received that others may lack
            let outcome = try self.poll { try Transaction.run { try GroupSlot.isReady() } }
            guard outcome == .done else {
                try self.noteOnce("creating the group slot")
                return .waiting
            }
        }
        try self.subscribe(
            to: targetID, name: self.record.targetName ?? "", slot: self.require(self.record.remoteSlot, "slot"),
            origin: self.require(self.record.origin, "origin"))
        for peer in peers {
            try self.subscribe(to: peer.id, name: peer.name, slot: peer.remoteSlot, origin: peer.origin)
        }
        try PeerCall.subscribe.ask(self.target(), [self.record.token, slot])
        for peer in peers {
            try PeerCall.subscribe.ask(self.session(peer), [self.record.token, peer.localSlot])
        }
        // streams begin now rather than when the managers look next
        bdr_host_wake_manager()
        try PeerCall.wake.ask(self.target())
        for peer in peers {
            try PeerCall.wake.ask(self.session(peer))
        }
        return .done
    }

    /// From which a member will stream what is committed here.
    /// - Returns: its start.
    private func createLocalSlot(_ slot: String) throws -> String? {
        try Transaction.run { _ = try host(bdr_host_slot_drop(slot)) }
        let stream = try Session.open(dsn: self.node.dsn, "this node with its own local_dsn", replication: true)
        do {
            return try stream.query("CREATE_REPLICATION_SLOT \"\(slot)\" LOGICAL bdr (SNAPSHOT 'nothing')")[0, 1]
        } catch let error as RemoteError {
            throw error.asError("replication slot \"\(slot)\" could not be created here")
        }
    }

    private func subscribe(to peer: String, name: String, slot: String, origin: String) throws {
        let group = try self.require(self.record.groupName, "group")
        try Transaction.run {
            let names = try SQL.query(
                "SELECT pg_catalog.current_database(), node_group_id FROM bdr.node WHERE node_id = $1::pg_catalog.oid",
                [peer])
            try NodeCatalog.subscribe(
                to: peer, local: String(self.node.id), group: names[0, 1] ?? "0", slot: slot, origin: origin,
                name: ObjectNames.subscriptionName(
                    database: names[0, 0] ?? "", group: group, origin: name, target: self.node.name))
        }
    }

    /// This node has what each member had when the step began.
    private func catchUp() throws -> JoinOutcome {
        let slot = try self.require(self.record.remoteSlot, "slot")
        let target = try self.target()
        let goal: String
        if let known = self.record.catchupLSN {
            goal = known
        } else {
            goal = try PeerCall.position.ask(target)[0, 0] ?? ""
            try self.update { $0.catchupLSN = goal }
        }
        let outcome = try self.poll { try PeerCall.confirmed.ask(target, [slot, goal])[0, 0] == "t" }
        guard outcome == .done else {
            return outcome
        }
        for peer in try self.peers() {
            let session = try self.session(peer)
            let goal: String
            if let known = peer.catchupLSN {
                goal = known
            } else {
                goal = try PeerCall.position.ask(session)[0, 0] ?? ""
                try self.set("catchup_lsn", goal, of: peer)
            }
            let outcome = try self.poll {
                try PeerCall.confirmed.ask(session, [peer.remoteSlot, goal])[0, 0] == "t"
            }
            guard outcome == .done else {
                try self.noteOnce("catching up with node \"\(peer.name)\"")
                return outcome
            }
        }
        return .done
    }

    /// Looks often at first; the caller looks again later when it wasn't so within a second.
    private func poll(_ isSo: () throws -> Bool) throws -> JoinOutcome {
        for _ in 0..<50 {
            if try isSo() {
                return .done
            }
            if try host(bdr_host_wait(nil, 20)) & Int32(BDR_WAIT_SHUTDOWN) != 0 {
                break
            }
        }
        return .waiting
    }

    /// Receives and sends nothing, until it is promoted.
    private func standBy() throws -> JoinOutcome {
        let isPaused = try Transaction.run {
            try SQL.query("SELECT FROM bdr.join_state WHERE pause_in_standby").count > 0
        }
        guard isPaused else {
            return .done
        }
        try self.noteOnce("in standby, until bdr.promote_node() is called")
        return .waiting
    }

    private func promote() throws -> JoinOutcome {
        let peers = try self.peers()
        let slots = [(try self.require(self.record.localSlot, "slot"), self.record.targetName ?? "")]
            + peers.map { ($0.localSlot, $0.name) }
        for (slot, name) in slots {
            // the member streams from here: before that, what is written here would not reach it
            let outcome = try self.poll {
                try Transaction.run {
                    try SQL.query(
                        "SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = $1 AND active", [slot]
                    ).count > 0
                }
            }
            guard outcome == .done else {
                try self.noteOnce("waiting until node \"\(name)\" streams from this node")
                return outcome
            }
        }
        for peer in peers {
            try PeerCall.promote.ask(self.session(peer), [self.record.token])
        }
        let target = try self.target()
        try PeerCall.promote.ask(target, [self.record.token])
        if !peers.isEmpty {
            // its workers no longer have to note positions
            try PeerCall.restartApply.ask(target)
        }
        try Transaction.run {
            try SQL.query(
                "UPDATE bdr.node SET node_join_finished = true WHERE node_id = $1::pg_catalog.oid", [String(self.node.id)])
            try SQL.query(
                """
                UPDATE bdr.join_state SET error_sqlstate = NULL, error_message = NULL, error_detail = NULL,
                       error_hint = NULL
                """)
        }
        return .done
    }

    // MARK: Undoing

    /// Does something on another node. One that can't be reached now is left for later, and keeps nobody else waiting: the
    /// other members get their lock back.
    private func attempt(_ action: () throws -> Void) throws {
        do {
            try action()
        } catch let error as HostError {
            throw error
        } catch {
            self.unreached = self.unreached ?? Self.classify(error).0
        }
    }

    /// The same on all nodes that may know of this join.
    private func onKnownMembers(_ action: (Connection) throws -> Void) throws {
        var target: Connection?
        try self.attempt {
            let session = try self.target()
            target = session
            try action(session)
        }
        if self.record.targetID != nil {
            for peer in try self.remainingPeers() {
                try self.attempt { try action(self.session(peer)) }
            }
        } else if let target {
            // reserved in part: ask the target for the rest
            let own = self.node.name
            try self.attempt {
                for member in Self.members(try PeerCall.nodes.ask(target)) where member.name != own {
                    try self.attempt { try action(self.open(member.dsn, "node \"\(member.name)\"")) }
                }
            }
        }
    }

    /// Without those that were parted meanwhile, by force: they may never be back.
    private func remainingPeers() throws -> [Peer] {
        let peers = try self.peers()
        var parted: Set<String> = []
        if !peers.isEmpty {
            try self.attempt {
                let nodes = try PeerCall.nodes.ask(self.target())
                let state = String(NodeState.parted.rawValue)
                parted = Set((0..<nodes.count).compactMap { nodes[$0, 2] == state ? nodes[$0, 0] : nil })
            }
        }
        return peers.filter { !parted.contains($0.id) }
    }

    private func remove(_ resource: JoinResource) throws {
        switch resource {
        case .reservation:
            try self.onKnownMembers { try PeerCall.cancel.ask($0, [self.record.token]) }
            guard self.unreached == nil else {
                return
            }
            try Transaction.run {
                try SQL.query("DELETE FROM bdr.subscription")
                try SQL.query("DELETE FROM bdr.node WHERE node_id <> $1::pg_catalog.oid", [String(self.node.id)])
                try SQL.query("UPDATE bdr.node SET node_group_id = 0::pg_catalog.oid, seq_id = 0")
                try SQL.query("DELETE FROM bdr.node_group")
                try SQL.query("DELETE FROM bdr.join_peer")
                self.record.targetID = nil
                try self.record.save()
            }
        case .peerSlots:
            for peer in try self.remainingPeers() {
                try self.attempt {
                    try PeerCall.dropSlot.ask(self.session(peer), [peer.remoteSlot])
                    try self.set("start_lsn", nil, of: peer)
                }
            }
        case .targetSlot:
            if let slot = self.record.remoteSlot {
                try self.attempt { try PeerCall.dropSlot.ask(self.target(), [slot]) }
            }
            // made together with the slot
            if let origin = self.record.origin {
                try Transaction.run { try NodeCatalog.dropOrigin(origin) }
            }
        case .copiedObjects:
            try CopyOrigins.remove()
            if self.record.copiesStructure {
                try CopiedObjects.remove(self.local(writes: true), keptExtensions: self.record.keptExtensions)
            } else {
                try CopiedObjects.empty(self.local(writes: true))
            }
            try Transaction.run {
                try SQL.query("DELETE FROM bdr.join_script")
                try SQL.query("DELETE FROM bdr.join_table")
            }
        case .origins:
            try Transaction.run { _ = try SQL.query("DELETE FROM bdr.subscription") }
            let peers = try self.peers()
            for peer in [self.record.targetID] + peers.map({ $0.id }) {
                if let id = peer.flatMap({ UInt32($0) }) {
                    try Workers.stopApply(of: id)
                }
            }
            for origin in [self.record.origin].compactMap({ $0 }) + peers.map({ $0.origin }) {
                try Transaction.run { try NodeCatalog.dropOrigin(origin) }
            }
        case .localSlots:
            let peers = try self.peers()
            for slot in [self.record.localSlot].compactMap({ $0 }) + peers.map({ $0.localSlot }) {
                try Transaction.run { _ = try host(bdr_host_slot_drop(slot)) }
            }
            try Workers.stop(role: Int32(BDR_ROLE_GROUP), of: 0)
            try Transaction.run {
                try GroupSlot.remove()
                try SQL.query("DELETE FROM bdr.node_peer_progress")
            }
            try self.update { $0.localLSN = nil }
            for peer in peers {
                try self.set("local_lsn", nil, of: peer)
            }
        case .peerSubscriptions:
            try self.onKnownMembers { try PeerCall.unsubscribe.ask($0, [self.record.token]) }
        }
    }
}
