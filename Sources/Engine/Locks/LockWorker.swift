// The lock worker of another node: holds the tables that the node has locked, until its transaction has been applied here, and
// asks what has become of locks that it should have given up.
//
// It lasts as long as the node is in the group, because the apply worker is a member of its lock group (host_locks.c).

internal import CHost
internal import Membership

@c(bdr_engine_lock_main)
public func bdrEngineLockMain(_ peer: UInt32) -> Int32 {
    entry {
        try host(bdr_host_lock_worker_begin())
        var worker = LockWorker(peer: peer)
        try worker.run()
    }
}

private struct LockWorker {
    private struct Row {
        var id: String
        var kind: LockKind
        var schema: String
        var relation: String
        var state: String
        var isReady: Bool
        var stage: String?
        var drainLSN: String?
        var waitingFor: String?
        /// Since it changed, microseconds.
        var age: Int64
    }

    let peer: UInt32
    /// Relation ids by lock, once they are held; 0: there is no such table here.
    private var held: [String: UInt32] = [:]
    /// Waited for.
    private var wanted: [String: UInt32] = [:]
    private var askedAt: Int64 = 0
    private var lookedAt: Int64 = 0

    init(peer: UInt32) {
        self.peer = peer
    }

    mutating func run() throws {
        while !bdr_host_database_closing() {
            guard let rows = try Transaction.run({ try self.load() }) else {
                return
            }
            try self.letGo(rows)
            let tables = rows.filter { $0.kind == .dml && ($0.state == "granted" || $0.state == "confirmed") }
            for row in tables {
                try self.advance(row)
            }
            try self.askAfter(rows)
            try self.freeApply()
            let isBusy = !self.held.isEmpty || !self.wanted.isEmpty || !tables.isEmpty
            if try host(bdr_host_wait(nil, isBusy ? 20 : 1000)) & Int32(BDR_WAIT_SHUTDOWN) != 0 {
                return
            }
        }
    }

    /// nil: the node is gone.
    private func load() throws -> [Row]? {
        guard try SQL.query("SELECT pg_catalog.to_regclass('bdr.global_lock')")[0, 0] != nil,
            try SQL.query(
                "SELECT FROM bdr.node n JOIN bdr.local_node l ON true WHERE n.node_id = $1::pg_catalog.oid", [String(self.peer)]
            ).count > 0
        else {
            return nil
        }
        let rows = try SQL.query(
            """
            SELECT lock_id, lock_type, nspname, relname, lock_state, ready, stage, drain_lsn,
                   (EXTRACT(epoch FROM pg_catalog.clock_timestamp() - last_state_change_time) * 1000000)::pg_catalog.int8,
                   waiting_for
              FROM bdr.global_lock WHERE origin_node_id = $1::pg_catalog.oid
            """, [String(self.peer)])
        return (0..<rows.count).compactMap { row in
            guard let id = rows[row, 0], let kind = rows[row, 1].flatMap({ Int32($0) }).flatMap({ LockKind(rawValue: $0) }) else {
                return nil
            }
            return Row(
                id: id, kind: kind, schema: rows[row, 2] ?? "", relation: rows[row, 3] ?? "",
                state: rows[row, 4] ?? "", isReady: rows[row, 5] == "t", stage: rows[row, 6],
                drainLSN: rows[row, 7], waitingFor: rows[row, 9], age: rows[row, 8].flatMap { Int64($0) } ?? 0)
        }
    }

    private mutating func letGo(_ rows: [Row]) throws {
        let present = Set(rows.map { $0.id })
        for (id, relation) in self.held where !present.contains(id) {
            if try relation == 0 || host(bdr_host_table_unlock(relation, true)) == BDR_OK {
                self.held[id] = nil
            }
        }
        for (id, relation) in self.wanted where !present.contains(id) {
            if try host(bdr_host_table_unlock(relation, false)) == BDR_OK {
                self.wanted[id] = nil
            }
        }
    }

    private mutating func advance(_ row: Row) throws {
        if self.held[row.id] == nil {
            var relation: UInt32 = 0
            switch try host(bdr_host_table_lock(row.schema, row.relation, self.peer, 1000, &relation)) {
            case Int32(BDR_LOCK_NO_TABLE):
                relation = 0
            case Int32(BDR_LOCK_NOT_YET):
                self.wanted[row.id] = relation
                try self.endWriters(of: relation)
                return
            default:
                break
            }
            self.wanted[row.id] = nil
            self.held[row.id] = relation
            guard !row.isReady else {
                return
            }
            var end: UInt64 = 0
            try host(bdr_host_wal_end(&end))
            try self.update(row.id, "stage = 'drain', drain_lsn = $2::pg_catalog.pg_lsn", LSN.text(end))
            return
        }
        if !row.isReady, let position = row.drainLSN {
            // what was written here before must be everywhere before the shape of the table changes anywhere
            let behind = try Transaction.run {
                try SQL.query(
                    """
                    SELECT pg_catalog.string_agg(n.node_name, ', ' ORDER BY n.node_id) FROM bdr.node_slots s JOIN bdr.node n ON n.node_id = s.target_id
                     WHERE NOT s.is_group_slot AND n.node_state = $2::pg_catalog.oid
                       AND (s.confirmed_flush_lsn IS NULL OR s.confirmed_flush_lsn < $1::pg_catalog.pg_lsn)
                    """, [position, String(NodeState.active.rawValue)])[0, 0]
            }
            if behind == nil {
                try self.update(row.id, "ready = true, stage = $2, waiting_for = NULL", "locked")
            } else if behind != row.waitingFor {
                try self.update(row.id, "waiting_for = $2", behind ?? "")
            }
        }
    }

    /// Transactions that are applied while they are in progress, and have written to the table, may be those that wait for the
    /// lock on their own node. Without their writer they are applied when they have committed.
    private func endWriters(of relation: UInt32) throws {
        try Transaction.run {
            _ = try SQL.query(
                """
                SELECT pg_catalog.pg_terminate_backend(l.pid)
                  FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
                 WHERE l.locktype = 'relation' AND l.database = a.datid AND l.relation = $1::pg_catalog.oid AND l.granted
                   AND a.datname = pg_catalog.current_database() AND a.backend_type = 'bdr writer'
                """, [String(relation)])
        }
    }

    private func update(_ id: String, _ change: String, _ argument: String) throws {
        try Transaction.run {
            _ = try SQL.query(
                """
                UPDATE bdr.global_lock SET \(change), last_state_change_time = pg_catalog.clock_timestamp()
                 WHERE lock_id = $1::pg_catalog.int8
                """, [id, argument])
        }
    }

    /// Asks the node about locks that it has had, or wanted, for a while: it may have given them up when it could not reach this
    /// one, or have crashed, and the session over which it asked may not notice for hours.
    private mutating func askAfter(_ rows: [Row]) throws {
        let now = bdr_host_now()
        let old = rows.filter { $0.age > ($0.state == "confirmed" ? 2_000_000 : 3_000_000) }
        guard !old.isEmpty, now &- self.askedAt > 2_000_000 else {
            return
        }
        self.askedAt = now
        let found = try Transaction.run {
            try SQL.query("SELECT if_dsn FROM bdr.node_interface WHERE node_id = $1::pg_catalog.oid", [String(self.peer)])[0, 0]
        }
        guard let dsn = found else {
            return
        }
        do {
            let connection = try Connection(dsn: dsn, timeout: 5000)
            defer { connection.close() }
            bdr_host_conn_set_timeout(connection.raw, 5000)
            for row in old {
                let answer = try PeerCall.globalLockStatus.ask(connection, [row.id])
                try self.settle(row.id, answer[0, 0] ?? "", answer[0, 1].flatMap { LSN.parse($0) })
            }
        } catch is RemoteError {
            // it keeps what it has until it is back, or parted
        }
    }

    /// An apply worker whose transaction began before this process had its locks, after a crash, is no member of its group: it
    /// would wait for what waits for it. Another one may have begun to wait for a table just before this process locked it. Those
    /// that take their places pass.
    private mutating func freeApply() throws {
        let now = bdr_host_now()
        guard !self.held.isEmpty, now &- self.lookedAt > 1_000_000 else {
            return
        }
        self.lookedAt = now
        let blocked = try Transaction.run {
            try SQL.query(
                """
                SELECT w.worker_peer, n.node_name FROM bdr.show_workers() w JOIN bdr.node n ON n.node_id = w.worker_peer
                 WHERE w.worker_role_name = 'apply'
                   AND (w.worker_peer = $1::pg_catalog.oid
                        OR EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.pid = w.worker_pid AND NOT l.granted
                                      AND l.locktype = 'relation' AND l.mode = 'RowExclusiveLock'))
                   AND pg_catalog.pg_backend_pid() = ANY (pg_catalog.pg_blocking_pids(w.worker_pid))
                """, [String(self.peer)])
        }
        for row in 0..<blocked.count {
            guard let peer = blocked[row, 0].flatMap({ UInt32($0) }) else {
                continue
            }
            try Log.log("the apply worker of node \"\(blocked[row, 1] ?? "")\" starts anew, to pass a global lock")
            try host(bdr_host_worker_stop(Int32(BDR_ROLE_APPLY), peer))
        }
    }

    private func settle(_ id: String, _ state: String, _ position: UInt64?) throws {
        switch state {
        case "gone":
            break
        case "committed":
            // applied with something else than its message, or left out
            guard let position,
                let progress = try Transaction.run({ try LockVotes.progress(of: String(self.peer)) }), progress >= position
            else {
                return
            }
        default:
            return
        }
        try Transaction.run { _ = try LockVotes.release(id) }
    }
}
