// Global locks on the node that is asked for its vote. Votes are rows of bdr.global_lock, one for each request that this node
// knows; who may have one is decided in Membership/GlobalLocks. Whoever decides holds the token of votes, so one at a time.
//
// A row goes when its transaction has been applied here (LockMessages), when the node that has the lock says that it is given
// up, when the session that asked ends before the vote was confirmed, or when the node has left the group.

internal import CHost
internal import Membership

/// Kinds of locks, as in bdr_host.h and in column lock_type.
enum LockKind: Int32 {
    case ddl = 1
    case dml = 2
    case advisory = 3
}

enum LockVotes {
    /// What a node tells of a request, as the arguments of a call.
    struct Request {
        var id: String
        var node: String
        var kind: String
        var schema: String?
        var relation: String?
        var key: String?
        var keyIsPair: String
        var time: String
        var pid: String?
        var statement: String?
        var waitingFor: String?
        var members: String
        /// The lock that is waited for, if one is known, and the node that has it. The own one, while sessions of a node keep
        /// that from locking the table.
        var blockedBy: String?
        var blockedNode: String?

        init(_ arguments: [String?]) throws {
            func required(_ number: Int) throws -> String {
                guard number < arguments.count, let value = arguments[number] else {
                    throw BdrError("22004", "argument \(number + 1) of a request for a lock is missing")
                }
                return value
            }
            func optional(_ number: Int) -> String? { number < arguments.count ? arguments[number] : nil }
            self.id = try required(0)
            self.node = try required(1)
            self.kind = try required(2)
            self.schema = optional(3)
            self.relation = optional(4)
            self.key = optional(5)
            self.keyIsPair = try required(6)
            self.time = try required(7)
            self.pid = optional(8)
            self.statement = optional(9)
            self.waitingFor = optional(10)
            self.members = try required(11)
            self.blockedBy = optional(12)
            self.blockedNode = optional(13)
        }

        var arguments: [String?] {
            [
                self.id, self.node, self.kind, self.schema, self.relation, self.key, self.keyIsPair, self.time, self.pid,
                self.statement, self.waitingFor, self.members, self.blockedBy, self.blockedNode,
            ]
        }
    }

    /// The node ids of active members, in order.
    static func activeMembers() throws -> String {
        try SQL.query(
            """
            SELECT pg_catalog.string_agg(node_id::pg_catalog.text, ',' ORDER BY node_id) FROM bdr.node
             WHERE node_state = $1::pg_catalog.oid
            """, [String(NodeState.active.rawValue)])[0, 0] ?? ""
    }

    private static func insert(_ request: Request, state: String) throws {
        try SQL.query(
            """
            INSERT INTO bdr.global_lock (lock_id, origin_node_id, lock_type, nspname, relname, key1, key2, key_is_bigint,
                                         groupid, lock_state, request_time, pid, statement, waiting_for)
            SELECT $1::pg_catalog.int8, $2::pg_catalog.oid, $3::pg_catalog.oid, $4::pg_catalog.name, $5::pg_catalog.name,
                   ($6::pg_catalog.int8 >> 32)::pg_catalog.int4,
                   (($6::pg_catalog.int8 << 32) >> 32)::pg_catalog.int4, $7::pg_catalog.bool IS FALSE,
                   (SELECT node_group_id FROM bdr.node_group LIMIT 1), $8,
                   pg_catalog.timestamptz '2000-01-01 00:00:00+00' + $9::pg_catalog.int8 * pg_catalog.interval '1 microsecond',
                   $10::pg_catalog.int4, $11, $12
            ON CONFLICT (lock_id) DO NOTHING
            """,
            [
                request.id, request.node, request.kind, request.schema, request.relation, request.key, request.keyIsPair,
                state, request.time, request.pid, request.statement, request.waitingFor,
            ])
    }

    /// On the node that wants the lock: what the views show while others are asked.
    static func note(_ request: Request) throws -> Rows {
        try self.insert(request, state: "asking")
        try SQL.query(
            """
            UPDATE bdr.global_lock SET waiting_for = $2, blocked_by = $3::pg_catalog.int8, blocked_node = $4::pg_catalog.oid
             WHERE lock_id = $1::pg_catalog.int8
            """, [request.id, request.waitingFor, request.blockedBy, request.blockedNode])
        return try PeerCall.nothing()
    }

    /// - Returns: granted or waiting; what is in the way; nodes that ran DDL, as id:position, which the other one is to have
    ///   applied first; lock and node that are in the way.
    static func request(_ request: Request) throws -> Rows {
        try host(bdr_host_token_take(Int32(BDR_TOKEN_VOTE), 0))
        let local = try LocalNode.require()
        guard local.state == .active, let id = Int64(request.id), let node = UInt32(request.node),
            let kind = Int32(request.kind).flatMap({ LockKind(rawValue: $0) })
        else {
            return try self.answer("waiting", "node \"\(local.name)\" is not active", nil)
        }
        // a join or part that one has finished, and the other has not heard of
        guard try self.activeMembers() == request.members else {
            return try self.answer("waiting", "a node that joins or leaves the group", nil)
        }
        try self.removeDead(except: id)
        // Not waited for: who has it would not let go, and nobody could vote here meanwhile.
        if node != local.id, try host(bdr_host_token_take(Int32(BDR_TOKEN_SESSION), id)) != BDR_OK {
            return try self.answer("waiting", "another session, which has asked for the same", nil)
        }
        try self.insert(request, state: "waiting")
        if node == local.id {
            try SQL.query(
                """
                UPDATE bdr.global_lock SET lock_state = 'waiting', last_state_change_time = pg_catalog.clock_timestamp()
                 WHERE lock_id = $1::pg_catalog.int8 AND lock_state = 'asking'
                """, [request.id])
        }
        let all = try self.load()
        guard let own = all.first(where: { $0.id == id }) else {
            return try self.answer("waiting", "the lock was released by an administrator", nil)
        }
        if own.state == .waiting {
            if let blocker = GlobalLockVote.blocker(of: own, among: all) {
                return try self.answer("waiting", self.describe(blocker), nil, (String(blocker.id), String(blocker.node)))
            }
            let isReady = kind != .dml || node == local.id
            try SQL.query(
                """
                UPDATE bdr.global_lock SET lock_state = 'granted', ready = $2::pg_catalog.bool,
                       last_state_change_time = pg_catalog.clock_timestamp()
                 WHERE lock_id = $1::pg_catalog.int8
                """, [request.id, isReady ? "t" : "f"])
        }
        let row = try SQL.query(
            "SELECT ready, stage, waiting_for FROM bdr.global_lock WHERE lock_id = $1::pg_catalog.int8", [request.id])
        guard row[0, 0] == "t" else {
            try host(bdr_host_worker_wake(Int32(BDR_ROLE_LOCK), node))
            if row[0, 1] == "drain" {
                return try self.answer("waiting", "its changes have yet to be applied by \(row[0, 2] ?? "others")", nil)
            }
            return try self.answer(
                "waiting", "transactions that use the table have to end there", nil, (request.id, String(local.id)))
        }
        return try self.answer("granted", nil, self.epochs(except: request.node))
    }

    private static func answer(
        _ state: String, _ reason: String?, _ epochs: String?, _ blocker: (id: String, node: String)? = nil
    ) throws -> Rows {
        try SQL.query("SELECT $1, $2, $3, $4, $5", [state, reason, epochs, blocker?.id, blocker?.node])
    }

    /// Requests for global locks of sessions of this node that stand in the way of a lock: since when they wait, for which one,
    /// and the node that has that. Of a lock of this node it is the session that has or wants it, of another one's those that
    /// keep this node from locking the table. Sessions that these wait for here count, too.
    static func waits(_ id: String) throws -> Rows {
        let row = try SQL.query(
            """
            SELECT g.origin_node_id, g.origin_node_id = l.node_id, g.pid FROM bdr.global_lock g CROSS JOIN bdr.local_node l
             WHERE g.lock_id = $1::pg_catalog.int8
            """, [id])
        guard let origin = row[0, 0].flatMap({ UInt32($0) }) else {
            return try SQL.query("SELECT NULL::pg_catalog.int8 WHERE false")
        }
        var first = "NULL::pg_catalog.int4"
        var pid = row[0, 2]
        if row[0, 1] == "t" {
            first = "$1::pg_catalog.int4"
        } else {
            var info = BdrWorkerInfo()
            try host(bdr_host_worker_info(Int32(BDR_ROLE_LOCK), origin, &info))
            if info.running != 0 {
                first = "pg_catalog.unnest(pg_catalog.pg_blocking_pids($1::pg_catalog.int4))"
                pid = String(info.pid)
            } else {
                pid = nil
            }
        }
        guard let pid else {
            return try SQL.query("SELECT NULL::pg_catalog.int8 WHERE false")
        }
        return try SQL.query(
            """
            WITH RECURSIVE reached (pid) AS (
                SELECT \(first)
                UNION SELECT b.pid FROM reached r CROSS JOIN pg_catalog.unnest(pg_catalog.pg_blocking_pids(r.pid)) AS b (pid))
            SELECT w.lock_id,
                   (EXTRACT(epoch FROM w.request_time - pg_catalog.timestamptz '2000-01-01 00:00:00+00') * 1000000)::pg_catalog.int8,
                   w.blocked_by, w.blocked_node
              FROM bdr.global_lock w JOIN reached r ON r.pid = w.pid
             WHERE w.origin_node_id = (SELECT node_id FROM bdr.local_node) AND w.lock_state <> 'confirmed'
               AND w.blocked_by IS NOT NULL
            """, [pid])
    }

    /// The vote will survive this session.
    static func confirm(_ id: String) throws -> Rows {
        try host(bdr_host_token_take(Int32(BDR_TOKEN_VOTE), 0))
        return try SQL.query(
            """
            UPDATE bdr.global_lock SET lock_state = 'confirmed', waiting_for = NULL, blocked_by = NULL, blocked_node = NULL,
                   last_state_change_time = pg_catalog.clock_timestamp()
             WHERE lock_id = $1::pg_catalog.int8 AND lock_state IN ('granted', 'confirmed') RETURNING 't'
            """, [id])
    }

    static func release(_ id: String) throws -> Rows {
        let rows = try SQL.query(
            "DELETE FROM bdr.global_lock WHERE lock_id = $1::pg_catalog.int8 RETURNING lock_type, origin_node_id", [id])
        if let kind = rows[0, 0].flatMap({ Int32($0) }), kind == LockKind.dml.rawValue,
            let origin = rows[0, 1].flatMap({ UInt32($0) })
        {
            try host(bdr_host_worker_wake(Int32(BDR_ROLE_LOCK), origin))
        }
        return try PeerCall.nothing()
    }

    /// On the node that wanted the lock, asked by one that gave its vote: held, gone, or committed and where its WAL was then.
    static func status(_ id: String) throws -> Rows {
        guard let number = Int64(id) else {
            return try SQL.query("SELECT 'gone', NULL")
        }
        var taken = false
        try host(bdr_host_token_taken(Int32(BDR_TOKEN_HOLDER), number, &taken))
        if taken {
            return try SQL.query("SELECT 'held', NULL")
        }
        try self.finishOwn(id)
        return try SQL.query(
            """
            SELECT COALESCE(e.state, 'gone'), e.position
              FROM (SELECT) AS one
              LEFT JOIN (SELECT 'committed' AS state, position FROM bdr.ddl_epoch
                          WHERE lock_id = $1::pg_catalog.int8
                            AND origin_node_id = (SELECT node_id FROM bdr.local_node)) AS e ON true
            """, [id])
    }

    // MARK: The queue

    private static func load() throws -> [GlobalLockRequest] {
        let rows = try SQL.query(
            """
            SELECT lock_id, origin_node_id,
                   (EXTRACT(epoch FROM request_time) * 1000000)::pg_catalog.int8, lock_state,
                   pg_catalog.concat_ws(' ', lock_type, pg_catalog.quote_ident(nspname), pg_catalog.quote_ident(relname),
                                        key1, key2, key_is_bigint),
                   CASE WHEN lock_type = $1::pg_catalog.oid AND (SELECT pg_catalog.count(*) FROM bdr.global_lock) > 1 THEN (
                       WITH RECURSIVE tree (relid) AS (
                           SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                            WHERE n.nspname = g.nspname AND c.relname = g.relname
                           UNION SELECT i.inhrelid FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.relid)
                       SELECT pg_catalog.string_agg(relid::pg_catalog.text, ' ') FROM tree) END
              FROM bdr.global_lock g
            """, [String(LockKind.dml.rawValue)])
        return (0..<rows.count).compactMap { row in
            guard let id = rows[row, 0].flatMap({ Int64($0) }), let node = rows[row, 1].flatMap({ UInt32($0) }),
                let time = rows[row, 2].flatMap({ Int64($0) }),
                let state = rows[row, 3].flatMap({ GlobalLockRequest.State(rawValue: $0) }), let resource = rows[row, 4]
            else {
                return nil
            }
            let tables = Set((rows[row, 5] ?? "").split(separator: " ").compactMap { UInt32($0) })
            return GlobalLockRequest(id: id, node: node, time: time, resource: resource, tables: tables, state: state)
        }
    }

    private static func describe(_ blocker: GlobalLockRequest) throws -> String {
        let name = try SQL.query(
            "SELECT node_name FROM bdr.node WHERE node_id = $1::pg_catalog.oid", [String(blocker.node)])[0, 0]
        let node = "node \"\(name ?? String(blocker.node))\""
        return blocker.state == .waiting ? "\(node), which asked earlier" : "\(node), which has it"
    }

    /// Removes requests whose transaction or session is over, and those of nodes that have left.
    static func removeDead(except own: Int64 = 0) throws {
        let rows = try SQL.query(
            """
            SELECT g.lock_id, g.origin_node_id = l.node_id, g.lock_state, COALESCE(n.node_state, $1::pg_catalog.oid)
              FROM bdr.global_lock g CROSS JOIN bdr.local_node l LEFT JOIN bdr.node n ON n.node_id = g.origin_node_id
            """, [String(NodeState.parted.rawValue)])
        for row in 0..<rows.count {
            guard let text = rows[row, 0], let id = Int64(text), id != own else {
                continue
            }
            var taken = false
            if rows[row, 1] == "t" {
                try host(bdr_host_token_taken(Int32(BDR_TOKEN_HOLDER), id, &taken))
                if !taken {
                    try self.finishOwn(text)
                }
                continue
            }
            if rows[row, 3] == String(NodeState.parted.rawValue) {
                _ = try self.release(text)
            } else if rows[row, 2] != GlobalLockRequest.State.confirmed.rawValue {
                try host(bdr_host_token_taken(Int32(BDR_TOKEN_SESSION), id, &taken))
                if !taken {
                    _ = try self.release(text)
                }
            }
        }
    }

    /// A transaction of this node is over. If it committed, others have to come at least as far as this node's WAL is now
    /// before they run DDL; something that commits behind that tells them when they have.
    private static func finishOwn(_ id: String) throws {
        let committed = try SQL.query(
            """
            UPDATE bdr.ddl_epoch SET position = pg_catalog.pg_current_wal_insert_lsn()
             WHERE lock_id = $1::pg_catalog.int8 AND position IS NULL RETURNING 1
            """, [id])
        if committed.count > 0 {
            try SQL.query("SELECT pg_catalog.pg_logical_emit_message(true, 'bdr', 'heartbeat')")
            try SQL.query(
                """
                DELETE FROM bdr.ddl_epoch
                 WHERE origin_node_id = (SELECT node_id FROM bdr.local_node)
                   AND ddl_epoch < (SELECT pg_catalog.max(ddl_epoch) - 1000 FROM bdr.ddl_epoch)
                """)
        }
        try SQL.query("DELETE FROM bdr.global_lock WHERE lock_id = $1::pg_catalog.int8", [id])
    }

    private static func epochs(except node: String) throws -> String? {
        try SQL.query(
            """
            SELECT pg_catalog.string_agg(origin_node_id || ':' || position, ' ')
              FROM (SELECT e.origin_node_id, pg_catalog.max(e.position) AS position
                      FROM bdr.ddl_epoch e JOIN bdr.node n ON n.node_id = e.origin_node_id
                     WHERE e.position IS NOT NULL AND e.origin_node_id <> $1::pg_catalog.oid
                       AND n.node_state <> $2::pg_catalog.oid
                     GROUP BY e.origin_node_id) AS latest
            """, [node, String(NodeState.parted.rawValue)])[0, 0]
    }

    /// - Throws: while a node has, or is about to get, the DML lock of a table. Else holds until the end of the transaction.
    static func requireNoTables() throws {
        try host(bdr_host_token_take(Int32(BDR_TOKEN_VOTE), 0))
        try self.removeDead()
        guard try SQL.query(
            """
            SELECT FROM bdr.global_lock
             WHERE lock_type = $1::pg_catalog.oid AND lock_state IN ('granted', 'confirmed') LIMIT 1
            """, [String(LockKind.dml.rawValue)]
        ).count == 0 else {
            throw BdrError(
                SQLSTATE.objectInUse, "a table is locked by the group", detail: "A node becomes active when none is.",
                hint: "See bdr.global_locks.")
        }
    }

    // MARK: The stream

    /// The lock that a message gives up.
    static func number(_ content: UnsafeRawBufferPointer) throws -> String {
        guard let text = String(validating: content, as: UTF8.self), Int64(text) != nil else {
            throw BdrError(SQLSTATE.protocolViolation, "a message about a global lock is malformed")
        }
        return text
    }

    /// The transactions of these locks have been applied up to here, in the transaction that commits them.
    static func applied(_ ids: [String], of origin: UInt32, position: UInt64) throws {
        var hasTable = false
        for id in ids {
            let rows = try SQL.query(
                "DELETE FROM bdr.global_lock WHERE lock_id = $1::pg_catalog.int8 RETURNING lock_type", [id])
            if rows[0, 0] == String(LockKind.dml.rawValue) {
                hasTable = true
            }
        }
        try SQL.query(
            """
            WITH old AS (DELETE FROM bdr.ddl_epoch WHERE origin_node_id = $2::pg_catalog.oid)
            INSERT INTO bdr.ddl_epoch (lock_id, origin_node_id, position, ddl_epoch, epoch_consumed)
            SELECT $1::pg_catalog.int8, $2::pg_catalog.oid, $3::pg_catalog.pg_lsn,
                   (SELECT COALESCE(pg_catalog.max(ddl_epoch), 0) + 1 FROM bdr.ddl_epoch), true
            ON CONFLICT (lock_id) DO UPDATE SET position = EXCLUDED.position
            """, [ids.last, String(origin), LSN.text(position)])
        if hasTable {
            try host(bdr_host_worker_wake(Int32(BDR_ROLE_LOCK), origin))
        }
    }

    /// How far this node is with the changes of another one; nil: it does not receive from it.
    static func progress(of origin: String) throws -> UInt64? {
        guard let name = try NodeCatalog.originName(of: origin) else {
            return nil
        }
        let rows = try SQL.query(
            """
            SELECT pg_catalog.pg_replication_origin_progress(roname, false) FROM pg_catalog.pg_replication_origin
             WHERE roname = $1
            """, [name])
        return rows[0, 0].flatMap { LSN.parse($0) }
    }

    /// What the manager does about locks from time to time. Inside a transaction.
    /// - Returns: nodes that need a lock worker here.
    static func keep() throws -> Set<UInt32> {
        guard try SQL.query("SELECT FROM bdr.global_lock LIMIT 1").count > 0 else {
            return []
        }
        try host(bdr_host_token_take(Int32(BDR_TOKEN_VOTE), 0))
        try self.removeDead()
        let rows = try SQL.query(
            """
            SELECT DISTINCT origin_node_id FROM bdr.global_lock
             WHERE origin_node_id <> (SELECT node_id FROM bdr.local_node)
               AND (lock_type = $1::pg_catalog.oid AND lock_state IN ('granted', 'confirmed')
                    OR last_state_change_time < pg_catalog.clock_timestamp() - pg_catalog.interval '3 seconds')
            """, [String(LockKind.dml.rawValue)])
        return Set((0..<rows.count).compactMap { rows[$0, 0].flatMap { UInt32($0) } })
    }

    /// Gives up, on this node, what a node has or wants.
    static func releaseAll(of node: String) throws -> Int {
        try host(bdr_host_token_take(Int32(BDR_TOKEN_VOTE), 0))
        let rows = try SQL.query(
            """
            SELECT g.lock_id FROM bdr.global_lock g JOIN bdr.node n ON n.node_id = g.origin_node_id
             WHERE n.node_name = $1::pg_catalog.name
            """, [node])
        for row in 0..<rows.count {
            try rows[row, 0].map { _ = try self.release($0) }
        }
        return rows.count
    }
}

@c(bdr_engine_lock_release)
public func bdrEngineLockRelease(_ node: UnsafePointer<CChar>?, _ released: UnsafeMutablePointer<Int32>?) -> Int32 {
    entry {
        let name = try Argument.text(node, "node_name")
        let local = try LocalNode.require()
        guard try SQL.query("SELECT FROM bdr.node WHERE node_name = $1::pg_catalog.name", [name]).count > 0 else {
            throw BdrError(SQLSTATE.undefinedObject, "there is no node \"\(name)\"", hint: "See bdr.node_summary.")
        }
        guard name != local.name else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "locks of the local node are given up by ending their transaction",
                hint: "SELECT pg_terminate_backend(pid) FROM bdr.global_locks WHERE pid IS NOT NULL;")
        }
        released?.pointee = Int32(clamping: try LockVotes.releaseAll(of: name))
    }
}
