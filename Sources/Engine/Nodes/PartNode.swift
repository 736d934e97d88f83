// bdr.part_node, bdr.drop_node and bdr.alter_node_interface, and what members do for one another while a node is parted.

internal import CHost
internal import Membership

@c(bdr_engine_part_node)
public func bdrEnginePartNode(_ nodeName: UnsafePointer<CChar>?, _ wait: Bool, _ force: Bool) -> Int32 {
    entry {
        try PartNode(name: Argument.text(nodeName, "node_name"), wait: wait, force: force).run()
    }
}

@c(bdr_engine_drop_node)
public func bdrEngineDropNode(_ nodeName: UnsafePointer<CChar>?, _ cascade: Bool, _ force: Bool) -> Int32 {
    entry {
        // cascade has nothing more to remove: a node depends on nothing else here
        try dropNode(Argument.text(nodeName, "node_name"), force: force)
    }
}

@c(bdr_engine_alter_node_interface)
public func bdrEngineAlterNodeInterface(_ nodeName: UnsafePointer<CChar>?, _ dsn: UnsafePointer<CChar>?) -> Int32 {
    entry {
        let name = try Argument.text(nodeName, "node_name")
        let dsn = try Argument.text(dsn, "interface_dsn")
        try Argument.connectionString(dsn, "interface_dsn")
        let local = try LocalNode.require()
        let rows = try SQL.query(
            """
            UPDATE bdr.node_interface i SET if_dsn = $2 FROM bdr.node n
             WHERE n.node_id = i.node_id AND n.node_name = $1::pg_catalog.name RETURNING n.node_id
            """, [name, dsn])
        guard let id = rows[0, 0].flatMap({ UInt32($0) }) else {
            throw BdrError(SQLSTATE.undefinedObject, "there is no node \"\(name)\"", hint: "See bdr.node_summary.")
        }
        if id != local.id {
            // The worker that streams from there connects anew even if the string is the same. Before this is committed it may
            // read the old one again; the manager sees to it afterwards.
            try host(bdr_host_worker_stop(Int32(BDR_ROLE_APPLY), id))
        }
    }
}

private struct PartNode {
    let name: String
    let wait: Bool
    let force: Bool

    func run() throws {
        let local = try LocalNode.require()
        let rows = try SQL.query(
            "SELECT node_id, node_state, join_token FROM bdr.node WHERE node_name = $1::pg_catalog.name", [self.name])
        guard let state = rows[0, 1].flatMap({ UInt32($0) }).flatMap({ NodeState(rawValue: $0) }) else {
            throw BdrError(SQLSTATE.undefinedObject, "there is no node \"\(self.name)\"", hint: "See bdr.node_summary.")
        }
        if state == .parted {
            try Log.notice("node \"\(self.name)\" is parted already")
            return
        }
        let isLocal = self.name == local.name
        if isLocal && local.state < .active {
            return try self.cancelOwnJoin(local)
        }
        guard local.isInGroup else {
            throw BdrError(SQLSTATE.objectNotInPrerequisiteState, "node \"\(local.name)\" is in no group")
        }
        guard local.state == .active else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "node \"\(local.name)\" is not active and can't part others",
                hint: "Call bdr.part_node() on an active node.")
        }
        if isLocal && self.wait {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "cannot wait until the local node is parted",
                hint: "Call bdr.part_node() on another node, or with wait_for_completion := false.")
        }
        if self.wait, try SQL.query("SELECT pg_catalog.pg_current_xact_id_if_assigned()")[0, 0] != nil {
            throw BdrError(
                "25001", "cannot wait for a node to be parted in a transaction that has written",
                hint: "Call bdr.part_node() in a transaction of its own.")
        }
        let driver = try isLocal ? self.otherMember() : Session.open(dsn: local.dsn, "this node with its own local_dsn")
        do {
            try PeerCall.beginPart.ask(driver, [self.name, self.force ? "t" : "f"])
            if self.wait {
                try self.waitUntilParted(driver)
            }
        } catch let error as RemoteError {
            throw error.asError("node \"\(self.name)\" could not be parted")
        }
    }

    private func cancelOwnJoin(_ local: LocalNode) throws {
        let loop = try Session.open(dsn: local.dsn, "this node with its own local_dsn")
        do {
            guard try PeerCall.cancelJoin.ask(loop).count > 0 else {
                throw BdrError(
                    SQLSTATE.objectNotInPrerequisiteState, "node \"\(local.name)\" is not joining a group")
            }
            while self.wait, try loop.query(
                "SELECT FROM bdr.join_state WHERE step NOT IN ('active', 'failed')").count > 0
            {
                try host(bdr_host_wait(nil, 50))
            }
        } catch let error as RemoteError {
            throw error.asError("the join could not be cancelled")
        }
    }

    /// The first member that answers.
    private func otherMember() throws -> Connection {
        let rows = try SQL.query(
            """
            SELECT n.node_name, i.if_dsn FROM bdr.node n JOIN bdr.node_interface i ON i.node_id = n.node_id
             WHERE n.node_name <> $1::pg_catalog.name AND n.node_state = $2::pg_catalog.oid ORDER BY n.node_id
            """, [self.name, String(NodeState.active.rawValue)])
        for row in 0..<rows.count {
            do {
                return try Session.open(dsn: rows[row, 1] ?? "", "node \"\(rows[row, 0] ?? "")\"")
            } catch let error as BdrError where row + 1 < rows.count && SQLState.isTransient(error.sqlstate) {
                continue
            }
        }
        throw BdrError(
            SQLSTATE.objectNotInPrerequisiteState, "node \"\(self.name)\" is the only member of its group",
            hint: "To make the database an ordinary one, type: DROP EXTENSION bdr CASCADE;")
    }

    private func waitUntilParted(_ session: Connection) throws {
        while true {
            let rows = try session.query(
                """
                SELECT n.node_state, (SELECT pg_catalog.count(*) FROM bdr.part_state p WHERE p.part_node_id = n.node_id)
                  FROM bdr.node n WHERE n.node_name = $1::pg_catalog.name
                """, [self.name])
            if rows.count == 0 || rows[0, 0] == String(NodeState.parted.rawValue) {
                return
            }
            if rows[0, 1] == "0" && rows[0, 0] == String(NodeState.active.rawValue) {
                throw BdrError(SQLSTATE.objectNotInPrerequisiteState, "the parting of node \"\(self.name)\" was given up")
            }
            try host(bdr_host_wait(nil, 50))
        }
    }
}

private func dropNode(_ name: String, force: Bool) throws {
    try SQL.query("LOCK TABLE bdr.local_node IN SHARE ROW EXCLUSIVE MODE")
    let local = try LocalNode.require()
    let rows = try SQL.query("SELECT node_id, node_state FROM bdr.node WHERE node_name = $1::pg_catalog.name", [name])
    guard let id = rows[0, 0], let state = rows[0, 1].flatMap({ UInt32($0) }).flatMap({ NodeState(rawValue: $0) }) else {
        throw BdrError(SQLSTATE.undefinedObject, "there is no node \"\(name)\"", hint: "See bdr.node_summary.")
    }
    if name == local.name {
        guard force || state == .parted || (state == .created && !local.isInGroup) else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "node \"\(name)\" is a member of its group",
                detail: "Its state is \(state.name).", hint: "Part it first: SELECT bdr.part_node('\(name)') on another node.")
        }
        try Parting.forgetLocalNode()
        return
    }
    if !force {
        guard state == .parted else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "node \"\(name)\" is not parted",
                detail: "Its state is \(state.name).", hint: "Part it first: SELECT bdr.part_node('\(name)');")
        }
        let peers = try SQL.query(
            """
            SELECT n.node_name, i.if_dsn FROM bdr.node n JOIN bdr.node_interface i ON i.node_id = n.node_id
             WHERE n.node_id NOT IN ($1::pg_catalog.oid, $2::pg_catalog.oid) AND n.node_state <> $3::pg_catalog.oid
            """, [id, String(local.id), String(NodeState.parted.rawValue)])
        for row in 0..<peers.count {
            let peer = peers[row, 0] ?? ""
            let session = try Session.open(dsn: peers[row, 1] ?? "", "node \"\(peer)\"")
            do {
                let there = try PeerCall.nodeState.ask(session, [name])
                guard there.count == 0 || there[0, 0] == String(NodeState.parted.rawValue) else {
                    throw BdrError(
                        SQLSTATE.objectNotInPrerequisiteState, "node \"\(name)\" is not parted yet on node \"\(peer)\"",
                        hint: "Wait until it is, or use force := true.")
                }
            } catch let error as RemoteError {
                throw error.asError("node \"\(peer)\" could not be asked")
            }
        }
    }
    if try SQL.query("SELECT FROM bdr.subscription WHERE origin_node_id = $1::pg_catalog.oid", [id]).count > 0 {
        let loop = try Session.open(dsn: local.dsn, "this node with its own local_dsn")
        do {
            try PeerCall.stopReceiving.ask(loop, [id])
        } catch let error as RemoteError {
            throw error.asError("node \"\(name)\" could not be dropped")
        }
    }
    try Parting.removeHere(id: id, name: name, local: local)
    try SQL.query("DELETE FROM bdr.state_journal WHERE node_id = $1::pg_catalog.oid", [id])
    try SQL.query("DELETE FROM bdr.node WHERE node_id = $1::pg_catalog.oid", [id])
}

/// What one member does when a node is parted.
enum Parting {
    /// Stores the request; the worker of this node carries it out.
    static func begin(_ name: String, force: Bool) throws -> Rows {
        try SQL.query("LOCK TABLE bdr.local_node IN SHARE ROW EXCLUSIVE MODE")
        let local = try LocalNode.require()
        guard local.state == .active, local.name != name else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "node \"\(local.name)\" can't part node \"\(name)\"")
        }
        try SQL.query(
            """
            INSERT INTO bdr.part_state (part_node_id, part_token, force)
            SELECT node_id, pg_catalog.gen_random_uuid()::pg_catalog.text, $2::pg_catalog.bool FROM bdr.node
             WHERE node_name = $1::pg_catalog.name AND node_state <> $3::pg_catalog.oid
            ON CONFLICT (part_node_id) DO UPDATE SET force = bdr.part_state.force OR EXCLUDED.force
            """, [name, force ? "t" : "f", String(NodeState.parted.rawValue)])
        return try PeerCall.nothing()
    }

    /// Takes this node's part of the lock that keeps joins and parts apart.
    /// - Returns: whether it is taken, and who has it.
    ///
    /// A node that holds it because it was joining, or (with force) because it was parting others, gives way when it is parted
    /// itself.
    static func lock(token: String, name: String, owner: String, force: Bool) throws -> Rows {
        try SQL.query(
            """
            UPDATE bdr.node_group SET join_token = $1, join_node_name = $2::pg_catalog.name, join_owner_id = $3::pg_catalog.oid
             WHERE join_token IS NULL OR join_token = $1
                OR join_token = (SELECT join_token FROM bdr.node WHERE node_name = $2::pg_catalog.name)
                OR $4::pg_catalog.bool
                   AND join_owner_id = (SELECT node_id FROM bdr.node WHERE node_name = $2::pg_catalog.name)
            """, [token, name, owner, force ? "t" : "f"])
        return try SQL.query("SELECT join_token = $1, join_node_name FROM bdr.node_group", [token])
    }

    static func setState(_ id: String, _ state: String) throws -> Rows {
        guard let node = UInt32(id), let state = UInt32(state).flatMap({ NodeState(rawValue: $0) }) else {
            throw BdrError(SQLSTATE.invalidParameterValue, "not a node and a state")
        }
        try NodeCatalog.setState(node, state)
        return try PeerCall.nothing()
    }

    /// The transactions of users that run here now, as one text.
    static func runningTransactions() throws -> Rows {
        try SQL.query(
            """
            SELECT COALESCE(pg_catalog.string_agg(x, ' '), '') FROM (
                SELECT l.virtualxid FROM pg_catalog.pg_locks l
                  JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
                 WHERE l.locktype = 'virtualxid' AND a.datname = pg_catalog.current_database()
                   AND l.pid <> pg_catalog.pg_backend_pid()
                UNION ALL
                SELECT 'prepared ' || transaction FROM pg_catalog.pg_prepared_xacts
                 WHERE database = pg_catalog.current_database()) t(x)
            """)
    }

    /// Whether some of these transactions still run.
    static func stillRunning(_ list: String) throws -> Rows {
        try SQL.query(
            """
            SELECT EXISTS (
                SELECT FROM pg_catalog.pg_locks
                 WHERE locktype = 'virtualxid' AND pid <> pg_catalog.pg_backend_pid()
                   AND virtualxid = ANY (pg_catalog.string_to_array($1, ' '))
                UNION ALL
                SELECT FROM pg_catalog.pg_prepared_xacts
                 WHERE database = pg_catalog.current_database()
                   AND transaction::pg_catalog.text = ANY (pg_catalog.string_to_array($1, ' ')))
            """, [list])
    }

    /// The peers of this node that have not confirmed a position yet.
    static func peersConfirmed(_ lsn: String) throws -> Rows {
        try SQL.query(
            """
            SELECT pg_catalog.string_agg(target_name, ', ') FROM bdr.node_slots s
             WHERE NOT is_group_slot AND (confirmed_flush_lsn IS NULL OR confirmed_flush_lsn < $1::pg_catalog.pg_lsn)
               AND EXISTS (SELECT FROM bdr.node n WHERE n.node_id = s.target_id AND n.node_state = $2::pg_catalog.oid)
            """, [lsn, String(NodeState.active.rawValue)])
    }

    /// Removes what connects this node with another one, and marks that one as parted.
    /// - Parameter keepOrigin: its changes may still have to be forwarded, to members that are down now.
    static func remove(_ id: String, keepOrigin: Bool) throws -> Rows {
        let local = try LocalNode.require()
        let rows = try SQL.query("SELECT node_name FROM bdr.node WHERE node_id = $1::pg_catalog.oid", [id])
        if let name = rows[0, 0], let number = UInt32(id) {
            try self.removeHere(id: id, name: name, local: local, keepOrigin: keepOrigin)
            try NodeCatalog.setState(number, .parted)
            try SQL.query(
                "UPDATE bdr.node SET target_state = node_state, join_token = NULL WHERE node_id = $1::pg_catalog.oid", [id])
        }
        return try PeerCall.nothing()
    }

    /// Its subscription is gone already, in a transaction that is committed.
    static func removeHere(id: String, name: String, local: LocalNode, keepOrigin: Bool = false) throws {
        let names = try SQL.query(
            """
            SELECT pg_catalog.current_database(), g.node_group_name FROM bdr.node_group g
             WHERE g.node_group_id = $1::pg_catalog.oid
            """, [local.groupID])
        let database = names[0, 0] ?? ""
        let group = names[0, 1] ?? ""
        if let number = UInt32(id) {
            try Workers.stopApply(of: number)
        }
        let origin = ObjectNames.originName(database: database, group: group, node: name)
        if keepOrigin {
            try SQL.query(
                """
                INSERT INTO bdr.kept_origin (origin_node_id, origin_name) VALUES ($1::pg_catalog.oid, $2)
                ON CONFLICT DO NOTHING
                """, [id, origin])
        } else {
            try NodeCatalog.dropOrigin(origin)
            try SQL.query("DELETE FROM bdr.node_peer_progress WHERE peer_node_id = $1::pg_catalog.oid", [id])
        }
        try SQL.query("DELETE FROM bdr.node_peer_progress WHERE node_id = $1::pg_catalog.oid", [id])
        try SQL.query("DELETE FROM bdr.missing_changes WHERE node_id = $1::pg_catalog.oid", [id])
        try SQL.query("DELETE FROM bdr.origin_position WHERE origin_node_id = $1::pg_catalog.oid", [id])
        try SQL.query("DELETE FROM bdr.copied_position WHERE node_id = $1::pg_catalog.oid", [id])
        try host(bdr_host_slot_drop(ObjectNames.slotName(database: database, group: group, peer: name)))
    }

    /// This node has left: it keeps its data, and nothing that connects it.
    static func leave() throws -> Rows {
        let local = try LocalNode.require()
        let peers = try SQL.query(
            "SELECT node_id, node_name FROM bdr.node WHERE node_id <> $1::pg_catalog.oid", [String(local.id)])
        for row in 0..<peers.count {
            if let id = peers[row, 0], let name = peers[row, 1] {
                try self.removeHere(id: id, name: name, local: local)
            }
        }
        try Workers.stop(role: Int32(BDR_ROLE_GROUP), of: 0)
        try GroupSlot.remove()
        try SQL.query("DELETE FROM bdr.kept_origin")
        try NodeCatalog.setState(local.id, .parted)
        try SQL.query(
            "UPDATE bdr.node SET target_state = node_state WHERE node_id = $1::pg_catalog.oid", [String(local.id)])
        return try PeerCall.nothing()
    }

    /// Removes everything that makes this database a node; its manager then removes slots and origins.
    static func forgetLocalNode() throws {
        for table in [
            "part_pending", "part_state", "subscription", "local_node", "node", "node_group", "state_journal", "join_state",
            "join_peer", "join_table", "join_script", "join_tracking", "join_progress_line", "origin_position",
            "kept_origin", "recovery", "missing_changes", "group_slot_mark", "node_peer_progress", "conflict_resolver",
            "conflict_log_config", "dropped_table", "copied_position",
        ] {
            try SQL.query("DELETE FROM bdr.\(table)")
        }
    }
}
