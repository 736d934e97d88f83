// The process that makes the local node a member of its group: runs the steps of JoinPlan, one after the other, each stored
// before it begins.

internal import CHost
internal import Membership

@c(bdr_engine_join_main)
public func bdrEngineJoinMain() -> Int32 {
    entry {
        guard let record = try Transaction.run({ try JoinRecord.load() }), !record.state.isFinal else {
            return
        }
        try JoinWorker(record).run()
    }
}

final class JoinWorker {
    private var record: JoinRecord
    private var node: LocalNode
    private var copy: SnapshotCopy?

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
                outcome = try self.perform(before.step)
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
            try JoinRecord.note(state.step.title)
            self.node = try LocalNode.require()
        }
        try self.publish()
        try self.tellTarget(state.step.entersStates)
    }

    private func update(_ change: (inout JoinRecord) -> Void) throws {
        change(&self.record)
        try Transaction.run { try self.record.save() }
    }

    private func note(_ line: String) throws {
        try Transaction.run { try JoinRecord.note(line) }
    }

    private func publish() throws {
        let isJoining = self.node.state > .created && self.node.state < .active
        try host(
            bdr_host_publish_node(
                self.node.id, Int32(clamping: self.node.state.rawValue), isJoining, self.node.state > .created))
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

    // MARK: Connections

    private func target() throws -> Connection {
        try Session.open(dsn: self.record.targetDSN, "the join target")
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
        case .preflight, .createPeerSlots, .awaitPeerPositions, .standby:
            // with two nodes there is no other peer; both sides were checked before the join was stored
            return .done
        case .reserve: try self.reserve()
        case .createSlot: try self.createSlot()
        case .copyStructure:
            if self.record.copiesStructure {
                try self.snapshot().copyStructure(local: self.node.dsn, target: self.record.targetDSN)
            }
        case .copyData: try self.copyData()
        case .copyIndexes: try self.copyIndexes()
        case .setOrigins: try self.setOrigins()
        case .createLocalSlots: try self.createLocalSlots()
        case .catchup: return try self.catchUp()
        case .promote: return try self.promote()
        case .active, .failed: break
        case .cleanup, .rollback:
            for resource in self.record.state.mustRemove {
                try self.remove(resource)
            }
        }
        return .done
    }

    private func reserve() throws {
        let target = try self.target()
        let database = try Transaction.run { try SQL.query("SELECT pg_catalog.current_database()")[0, 0] ?? "" }
        let place = try PeerCall.reserve.ask(
            target, [self.record.token, self.node.name, self.node.dsn, database, self.record.requestedGroup])
        let nodes = try PeerCall.nodes.ask(target)
        guard let id = place[0, 0], let idNumber = UInt32(id), let sequence = place[0, 1], let group = place[0, 2],
            let groupName = place[0, 3], let uuid = place[0, 4], let nextID = place[0, 5], let targetID = place[0, 6],
            let targetName = place[0, 7]
        else {
            throw BdrError(SQLSTATE.protocolViolation, "the join target's answer is incomplete")
        }
        try Transaction.run {
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
            for row in 0..<nodes.count {
                guard let peer = nodes[row, 0], peer != id, let name = nodes[row, 1], let state = nodes[row, 2],
                    let peerDatabase = nodes[row, 3], let peerSequence = nodes[row, 4], let dsn = nodes[row, 5],
                    try SQL.query("SELECT FROM bdr.node WHERE node_id = $1::pg_catalog.oid", [peer]).count == 0
                else {
                    continue
                }
                try NodeCatalog.addPeer(
                    id: peer, name: name, group: group, state: state, database: peerDatabase, sequence: peerSequence,
                    dsn: dsn)
                if let peerState = UInt32(state).flatMap({ NodeState(rawValue: $0) }), let peerID = UInt32(peer) {
                    try NodeCatalog.journal(peerID, peerState)
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

    private func createSlot() throws {
        let slot = try self.require(self.record.remoteSlot, "slot")
        let origin = try self.require(self.record.origin, "origin")
        try PeerCall.dropSlot.ask(self.target(), [slot])
        try self.note("waiting for the transactions that run on the join target, to create slot \"\(slot)\" there")
        let copy = try SnapshotCopy(target: self.record.targetDSN, slot: slot, origin: origin)
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
        try self.snapshot().copyData(local: self.node.dsn, partitions: self.record.copiesStructure) { progress in
            try Transaction.run {
                try SQL.query(
                    """
                    UPDATE bdr.join_state SET tables_total = $1::pg_catalog.int4, tables_done = $2::pg_catalog.int4,
                           rows_copied = $3::pg_catalog.int8, bytes_copied = $4::pg_catalog.int8
                    """,
                    [String(progress.tables), String(progress.done), String(progress.rows), String(progress.bytes)])
                try JoinRecord.note(progress.line)
                if let table = progress.table {
                    try SQL.query(
                        """
                        INSERT INTO bdr.join_table (table_name, rows_copied, bytes_copied, copied)
                        VALUES ($1, $2::pg_catalog.int8, $3::pg_catalog.int8, $4::pg_catalog.bool)
                        ON CONFLICT (table_name) DO UPDATE SET rows_copied = EXCLUDED.rows_copied,
                               bytes_copied = EXCLUDED.bytes_copied, copied = EXCLUDED.copied
                        """,
                        [table.name, String(table.rows), String(table.bytes), table.isCopied ? "t" : "f"])
                }
            }
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
    }

    private func createLocalSlots() throws {
        let slot = try self.require(self.record.localSlot, "slot")
        let group = try self.require(self.record.groupName, "group")
        if self.record.localLSN == nil {
            try Transaction.run { _ = try host(bdr_host_slot_drop(slot)) }
            let stream = try Session.open(dsn: self.node.dsn, "this node with its own local_dsn", replication: true)
            do {
                let made = try stream.query(
                    "CREATE_REPLICATION_SLOT \"\(slot)\" LOGICAL bdr (SNAPSHOT 'nothing')")
                let lsn = made[0, 1]
                try self.update { $0.localLSN = lsn }
            } catch let error as RemoteError {
                throw error.asError("the replication slot of the join target could not be created here")
            }
        }
        let targetID = try self.require(self.record.targetID, "target")
        try Transaction.run {
            let names = try SQL.query(
                """
                SELECT pg_catalog.current_database(), n.node_group_id FROM bdr.node n
                 WHERE n.node_id = $1::pg_catalog.oid
                """, [targetID])
            try NodeCatalog.subscribe(
                to: targetID, local: String(self.node.id), group: names[0, 1] ?? "0",
                slot: self.require(self.record.remoteSlot, "slot"), origin: self.require(self.record.origin, "origin"),
                name: ObjectNames.subscriptionName(
                    database: names[0, 0] ?? "", group: group, origin: self.record.targetName ?? "",
                    target: self.node.name))
        }
        try PeerCall.subscribe.ask(self.target(), [self.record.token, slot])
    }

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
        return try self.poll { try PeerCall.confirmed.ask(target, [slot, goal])[0, 0] == "t" }
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

    private func promote() throws -> JoinOutcome {
        let slot = try self.require(self.record.localSlot, "slot")
        // the target streams from here: before that, what is written here would not go anywhere
        let outcome = try self.poll {
            try Transaction.run {
                try SQL.query(
                    "SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = $1 AND active", [slot]
                ).count > 0
            }
        }
        guard outcome == .done else {
            return outcome
        }
        try PeerCall.promote.ask(self.target(), [self.record.token])
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

    private func remove(_ resource: JoinResource) throws {
        switch resource {
        case .reservation:
            if self.record.targetID != nil {
                try PeerCall.cancel.ask(self.target(), [self.record.token])
            }
            try Transaction.run {
                try SQL.query("DELETE FROM bdr.subscription")
                try SQL.query("DELETE FROM bdr.node WHERE node_id <> $1::pg_catalog.oid", [String(self.node.id)])
                try SQL.query("UPDATE bdr.node SET node_group_id = 0::pg_catalog.oid, seq_id = 0")
                try SQL.query("DELETE FROM bdr.node_group")
                self.record.targetID = nil
                try self.record.save()
            }
        case .peerSlots:
            break
        case .targetSlot:
            if let slot = self.record.remoteSlot {
                try PeerCall.dropSlot.ask(self.target(), [slot])
            }
        case .copiedObjects:
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
            if let peer = self.record.targetID.flatMap({ UInt32($0) }) {
                try Workers.stopApply(of: peer)
            }
            if let origin = self.record.origin {
                try Transaction.run { try NodeCatalog.dropOrigin(origin) }
            }
        case .localSlots:
            if let slot = self.record.localSlot {
                try Transaction.run { _ = try host(bdr_host_slot_drop(slot)) }
            }
            try self.update { $0.localLSN = nil }
        case .peerSubscriptions:
            try PeerCall.unsubscribe.ask(self.target(), [self.record.token])
        }
    }
}
