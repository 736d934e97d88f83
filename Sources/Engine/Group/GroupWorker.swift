// The process that serves the group as a whole, in groups of three and more nodes: it tells the others how far this node is,
// and holds the group slot where it has to be.
//
// All of it is repeated from the catalog, so it doesn't matter when it was killed.

internal import CHost
internal import Membership

@c(bdr_engine_group_main)
public func bdrEngineGroupMain() -> Int32 {
    entry {
        var worker = GroupWorker()
        try worker.run()
    }
}

private struct GroupWorker {
    private var reported: OriginPositions?
    private var lastMark: GroupSlotMark?
    /// Peers of which the log says that they are too far behind.
    private var warned: Set<UInt32> = []

    /// A mark is worth a row after so much WAL, though nothing of others was applied.
    private static let markDistance: UInt64 = 16 << 20

    mutating func run() throws {
        var next: Int64 = 0
        while true {
            guard let slot = try Transaction.run({ try GroupSlot.isWanted() ? GroupSlot.load() : nil }) else {
                // the group is small again
                try Transaction.run { try GroupSlot.remove() }
                return
            }
            let now = bdr_host_now()
            let frequency = Int64(bdr_host_setting_int("bdr.replay_progress_frequency", 60_000)) &* 1000
            if slot.confirmed == nil || slot.isLost {
                try self.create(slot)
                next = 0
            } else if now >= next || next > now &+ frequency {
                next = now &+ frequency
                try self.report()
                try self.mark()
                try self.advance(slot)
            }
            let pause = max(50, min(1000, (next &- bdr_host_now()) / 1000))
            if try host(bdr_host_wait(nil, pause)) & Int32(BDR_WAIT_SHUTDOWN) != 0 {
                return
            }
        }
    }

    private mutating func create(_ slot: GroupSlot) throws {
        if slot.isLost {
            try Log.warning(
                "the group slot was invalidated", sqlstate: SQLSTATE.objectNotInPrerequisiteState,
                detail: "WAL that it kept for peers was removed. Should a node die now, some others may lack its last changes.",
                hint: "Increase max_slot_wal_keep_size, or see bdr.group_slot_retention for peers that are behind.")
            try Transaction.run { _ = try host(bdr_host_slot_drop(slot.name)) }
        }
        try Transaction.run { _ = try SQL.query("DELETE FROM bdr.group_slot_mark") }
        try Log.log("creating the group slot \"\(slot.name)\"")
        // waits for the transactions that run now
        try Transaction.run {
            _ = try SQL.query("SELECT FROM pg_catalog.pg_create_logical_replication_slot($1, 'bdr')", [slot.name])
        }
        self.lastMark = nil
        try self.mark()
    }

    private mutating func report() throws {
        try Transaction.run {
            let positions = try Progress.complete()
            if positions != self.reported {
                self.reported = try Progress.report()
            }
        }
    }

    private mutating func mark() throws {
        var local: UInt64 = 0
        try host(bdr_host_wal_mark(&local))
        try Transaction.run {
            let mark = GroupSlotMark(local: local, positions: try Progress.applied())
            if let last = self.lastMark, last.positions == mark.positions, mark.local &- last.local < Self.markDistance {
                return
            }
            try GroupSlot.add(mark)
            self.lastMark = mark
        }
    }

    private mutating func advance(_ slot: GroupSlot) throws {
        try Transaction.run {
            let origins = try GroupSlot.origins()
            let stored = try Progress.stored()
            let members = try SQL.query(
                """
                SELECT n.node_id, n.node_name FROM bdr.node n
                 WHERE n.node_state <> $1::pg_catalog.oid
                   AND NOT EXISTS (SELECT FROM bdr.local_node l WHERE l.node_id = n.node_id)
                """, [String(NodeState.parted.rawValue)])
            var peers: [UInt32: OriginPositions] = [:]
            var names: [UInt32: String] = [:]
            for row in 0..<members.count {
                if let id = members[row, 0].flatMap({ UInt32($0) }) {
                    peers[id] = stored[id] ?? [:]
                    names[id] = members[row, 1] ?? ""
                }
            }
            let marks = try GroupSlot.marks()
            var goal = marks.target(peers: peers, origins: origins)
            var isForced = false
            let keep = bdr_host_setting_int("bdr.group_slot_keep_size", 10240)
            if keep >= 0, let restart = slot.restart {
                var end: UInt64 = 0
                try host(bdr_host_wal_end(&end))
                let limit = UInt64(keep) << 20
                if end > restart && end - restart > limit, let bound = marks.bounded(end: end, limit: limit) ?? marks.marks.last,
                    bound.local > goal?.local ?? 0
                {
                    goal = bound
                    isForced = true
                    let behind = peers.filter {
                        (marks.passed(by: $0.key, $0.value, origins: origins)?.local ?? 0) < bound.local
                    }
                    try self.warn(behind.keys.sorted(), names, keep)
                }
            }
            if !isForced {
                self.warned.formIntersection(
                    peers.filter { marks.passed(by: $0.key, $0.value, origins: origins) == nil }.keys)
            }
            guard let goal else {
                return
            }
            if goal.local > slot.confirmed ?? UInt64.max {
                // the server would log each time how it begins to decode
                try SQL.query("SELECT pg_catalog.set_config('log_min_messages', 'fatal', true)")
                try SQL.query(
                    "SELECT FROM pg_catalog.pg_replication_slot_advance($1, $2::pg_catalog.pg_lsn)",
                    [slot.name, LSN.text(goal.local)])
            }
            try SQL.query(
                "DELETE FROM bdr.group_slot_mark WHERE mark_lsn < $1::pg_catalog.pg_lsn", [LSN.text(goal.local)])
            if isForced {
                try SQL.query(
                    "UPDATE bdr.group_slot_mark SET forced = true WHERE mark_lsn = $1::pg_catalog.pg_lsn",
                    [LSN.text(goal.local)])
            }
        }
    }

    private mutating func warn(_ peers: [UInt32], _ names: [UInt32: String], _ keep: Int32) throws {
        for peer in peers where self.warned.insert(peer).inserted {
            let name = names[peer] ?? ""
            try Log.warning(
                "the group slot no longer keeps what node \"\(name)\" lacks of other nodes",
                sqlstate: SQLSTATE.configurationLimitExceeded,
                detail: "It would have to keep more than bdr.group_slot_keep_size, which is \(keep) MB. Should another node "
                    + "die before \"\(name)\" has caught up, \"\(name)\" has to be parted and joined again.",
                hint: "Bring node \"\(name)\" back, or increase bdr.group_slot_keep_size.")
        }
    }
}
