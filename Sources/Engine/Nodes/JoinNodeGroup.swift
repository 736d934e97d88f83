// bdr.join_node_group and bdr.wait_for_join_completion: check both sides, store the request, wait for the join worker.

internal import CHost
internal import Membership

@c(bdr_engine_join_node_group)
public func bdrEngineJoinNodeGroup(
    _ targetDSN: UnsafePointer<CChar>?, _ groupName: UnsafePointer<CChar>?, _ pauseInStandby: Bool,
    _ waitForCompletion: Bool, _ synchronizeStructure: UnsafePointer<CChar>?
) -> Int32 {
    entry {
        let dsn = try Argument.text(targetDSN, "join_target_dsn")
        let group = groupName.map { String(cString: $0) }
        let structure = try Argument.text(synchronizeStructure, "synchronize_structure")
        guard ["all", "none"].contains(structure) else {
            throw BdrError(
                SQLSTATE.invalidParameterValue, "unknown value \"\(structure)\" of synchronize_structure",
                detail: "Known values are all, none.")
        }
        try Argument.connectionString(dsn, "join_target_dsn")
        let node = try LocalNode.require()
        guard !node.isInGroup, node.state == .created else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "node \"\(node.name)\" is in a group already, or joining one",
                hint: "See bdr.local_node_summary and bdr.join_progress.")
        }
        if waitForCompletion,
            try SQL.query("SELECT pg_catalog.pg_current_xact_id_if_assigned()")[0, 0] != nil
        {
            throw BdrError(
                "25001", "cannot wait for a join in a transaction that has written",
                detail: "The join has to wait for all such transactions to end.",
                hint: "Call bdr.join_node_group() in a transaction of its own.")
        }
        let loop = try Session.open(dsn: node.dsn, "this node with its own local_dsn")
        do {
            try JoinPreflight(node: node, targetDSN: dsn, group: group, copiesStructure: structure == "all", loop: loop).run()
            try PeerCall.beginJoin.ask(loop, [dsn, structure, group, pauseInStandby ? "t" : "f"])
        } catch let error as RemoteError {
            throw error.asError("could not begin to join")
        }
        if waitForCompletion {
            try JoinWait(loop: loop, verbose: false).run()
        }
    }
}

@c(bdr_engine_wait_for_join_completion)
public func bdrEngineWaitForJoinCompletion(_ verboseProgress: Bool) -> Int32 {
    entry {
        let node = try LocalNode.require()
        if node.state == .active {
            return
        }
        let loop = try Session.open(dsn: node.dsn, "this node with its own local_dsn")
        try JoinWait(loop: loop, verbose: verboseProgress).run()
    }
}

@c(bdr_engine_promote_node)
public func bdrEnginePromoteNode(_ waitForCompletion: Bool) -> Int32 {
    entry {
        let node = try LocalNode.require()
        guard node.state == .standby else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "node \"\(node.name)\" is not in standby",
                detail: "Its state is \(node.state.name).",
                hint: "Only a node that has joined with pause_in_standby := true can be promoted.")
        }
        let loop = try Session.open(dsn: node.dsn, "this node with its own local_dsn")
        do {
            try PeerCall.promoteStandby.ask(loop)
        } catch let error as RemoteError {
            throw error.asError("node \"\(node.name)\" could not be promoted")
        }
        if waitForCompletion {
            try JoinWait(loop: loop, verbose: false).run()
        }
    }
}

/// Everything that can be found out before anything is created.
struct JoinPreflight {
    let node: LocalNode
    let targetDSN: String
    let group: String?
    /// Else the tables have to be here, without rows.
    let copiesStructure: Bool
    /// To this node.
    let loop: Connection


    /// A role that is no superuser can make objects, and fill tables, only for itself and for roles that it is a member of.
    private func refuseForeignOwners(_ target: Connection, role: String) throws {
        let own = """
            NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.objid = o.oid AND d.deptype = 'e')
            """
        let owners = try target.query(
            """
            SELECT DISTINCT pg_catalog.pg_get_userbyid(o.owner) FROM (
                SELECT oid, relowner, relnamespace FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND relpersistence <> 't'
                UNION ALL SELECT oid, proowner, pronamespace FROM pg_catalog.pg_proc
                UNION ALL SELECT oid, typowner, typnamespace FROM pg_catalog.pg_type WHERE typrelid = 0 AND typelem = 0) o(oid, owner, namespace)
              JOIN pg_catalog.pg_namespace n ON n.oid = o.namespace
             WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'bdr') AND \(own)
             ORDER BY 1
            """)
        var missing: [String] = []
        for row in 0..<owners.count {
            guard let owner = owners[row, 0] else {
                continue
            }
            let known = try self.loop.query(
                """
                SELECT COALESCE((SELECT pg_catalog.pg_has_role(oid, 'MEMBER') FROM pg_catalog.pg_roles WHERE rolname = $1), false)
                """, [owner])
            if known[0, 0] != "t" {
                missing.append(try SQL.quoteIdentifier(owner))
            }
        }
        let role = try SQL.quoteIdentifier(role)
        if let first = missing.first {
            throw BdrError(
                SQLSTATE.insufficientPrivilege, "role \(role) of local_dsn may not copy the database",
                detail: "Objects keep their owners, and it is no member here of: \(missing.joined(separator: ", ")).",
                hint: "For the join, as a superuser: GRANT \(first) TO \(role); or ALTER ROLE \(role) SUPERUSER;")
        }
        let mayCreate = try self.loop.query("SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')")
        guard mayCreate[0, 0] == "t" || !self.copiesStructure else {
            throw BdrError(
                SQLSTATE.insufficientPrivilege, "role \(role) of local_dsn may not create objects in this database",
                hint: "As a superuser: GRANT CREATE ON DATABASE ... TO \(role);")
        }
    }

    func run() throws {
        let here = try DatabaseIdentity.read { try self.loop.query($0, $1) }
        var (local, localRole) = try ServerProbe.settings(peers: 1) { try self.loop.query($0, $1) }
        try ServerProbe.refuse(checkSettings(local), subject: "this server", role: localRole)
        let target = try Session.open(dsn: self.targetDSN, "the join target")
        guard try DatabaseIdentity.read({ try target.query($0, $1) }) != here else {
            throw BdrError(
                SQLSTATE.invalidParameterValue, "a node can't join itself",
                detail: "join_target_dsn leads to this database.",
                hint: "Give the connection string of a node that is a member of the group.")
        }
        guard try target.query("SELECT FROM pg_catalog.pg_extension WHERE extname = 'bdr'").count > 0 else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "the join target's database has no extension bdr",
                hint: "join_target_dsn has to lead to a database that is a member of the group.")
        }
        if !local.isSuperuser {
            try self.refuseForeignOwners(target, role: localRole)
        }
        let described = try PeerCall.describe.ask(target)
        guard described.count == 1 else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "the join target is not a bdr node",
                hint: "There, create the node and its group first.")
        }
        let name = described[0, 1] ?? ""
        guard let groupName = described[0, 5], described[0, 2] == String(NodeState.active.rawValue) else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "node \"\(name)\" is not an active member of a group",
                hint: "There, type: SELECT bdr.create_node_group(node_group_name := '...');")
        }
        if let group = self.group, group != groupName {
            throw BdrError(
                SQLSTATE.invalidParameterValue, "node \"\(name)\" is not in group \"\(group)\"",
                detail: "It is in group \"\(groupName)\".")
        }
        if (described[0, 9] ?? "").split(separator: " ").contains(where: { $0 == self.node.name }) {
            throw BdrError(
                SQLSTATE.duplicateObject, "group \"\(groupName)\" has a node \"\(self.node.name)\" already",
                hint: "Create this node under another name: DROP EXTENSION bdr CASCADE; CREATE EXTENSION bdr CASCADE; "
                    + "SELECT bdr.create_node(...);")
        }
        // as many peers as there are members
        let peers = described[0, 7].flatMap { Int($0) } ?? 1
        local.peers = peers
        try ServerProbe.refuse(checkSettings(local), subject: "this server", role: localRole)
        let (remote, remoteRole) = try ServerProbe.settings(peers: peers) { try target.query($0, $1) }
        try ServerProbe.refuse(checkPair(joining: local, target: remote), subject: "this database", role: localRole)
        try ServerProbe.refuse(checkSettings(remote), subject: "the join target's server", role: remoteRole)
        if self.copiesStructure {
            try self.checkTargetContent(target)
            try self.checkEmpty()
        } else {
            try self.checkTables(target)
        }
        try self.checkReach(target, name: name, dsn: described[0, 3] ?? "", here)
    }

    /// Connections in both directions with the connection strings that replication will use.
    private func checkReach(_ target: Connection, name: String, dsn: String, _ here: DatabaseIdentity) throws {
        let there = try DatabaseIdentity.read { try target.query($0, $1) }
        do {
            let connection = try Connection(dsn: dsn, options: [("replication", "database")])
            guard try DatabaseIdentity.read({ sql, _ in try connection.query(sql) }) == there else {
                throw BdrError(
                    SQLSTATE.invalidParameterValue,
                    "the connection string of node \"\(name)\" leads to another database when it is used here",
                    hint: "It must be one that every node can use.")
            }
        } catch let error as RemoteError {
            throw error.asError(
                "could not connect to node \"\(name)\" with its own connection string",
                hint: "The local_dsn of a node must be one that every node can use.")
        }
        do {
            try PeerCall.checkBack.ask(
                target, [self.node.dsn, here.systemIdentifier, here.databaseOID, here.startTime])
        } catch let error as RemoteError {
            throw error.asError(
                "node \"\(name)\" can't connect to this node",
                hint: "The local_dsn of this node must be one that every node can use.")
        }
    }

    /// What the copy would stumble over.
    private func checkTargetContent(_ target: Connection) throws {
        let roles = try target.query(
            """
            SELECT DISTINCT a.rolname FROM pg_catalog.pg_shdepend d
              JOIN pg_catalog.pg_roles a ON a.oid = d.refobjid
             WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
               AND d.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
            """)
        let known = try self.loop.query("SELECT rolname FROM pg_catalog.pg_roles")
        let here = Set((0..<known.count).compactMap { known[$0, 0] })
        let missing = (0..<roles.count).compactMap { roles[$0, 0] }.filter { !here.contains($0) }.sorted()
        if !missing.isEmpty {
            let create = try missing.map { "CREATE ROLE \(try SQL.quoteIdentifier($0));" }.joined(separator: " ")
            throw BdrError(
                SQLSTATE.undefinedObject, "roles of the join target's database are missing on this server",
                detail: "Missing: \(missing.joined(separator: ", ")).",
                hint: "Create them, for example: \(create)")
        }
        let extensions = try target.query("SELECT extname FROM pg_catalog.pg_extension")
        let available = try self.loop.query("SELECT name FROM pg_catalog.pg_available_extensions")
        let have = Set((0..<available.count).compactMap { available[$0, 0] })
        let lacking = (0..<extensions.count).compactMap { extensions[$0, 0] }.filter { !have.contains($0) }.sorted()
        if !lacking.isEmpty {
            throw BdrError(
                SQLSTATE.undefinedObject, "extensions of the join target's database are not installed on this server",
                detail: "Missing: \(lacking.joined(separator: ", ")).",
                hint: "Install their packages on this server.")
        }
        if try target.query("SELECT FROM pg_catalog.pg_largeobject_metadata LIMIT 1").count > 0 {
            throw BdrError(
                SQLSTATE.featureNotSupported, "the join target's database contains large objects",
                detail: "Large objects are not replicated.",
                hint: "Move them into columns of type bytea, or remove them (lo_unlink).")
        }
    }

    /// What is copied has a place to go, and nothing is there yet.
    private func checkTables(_ target: Connection) throws {
        for table in try CopiedTable.list(of: target, partitions: false) {
            do {
                let here = try self.loop.query("SELECT \(table.columns) FROM \(table.name) LIMIT 1")
                guard here.count == 0 else {
                    throw BdrError(
                        SQLSTATE.objectNotInPrerequisiteState, "table \(table.name) is not empty",
                        detail: "A joining node takes all rows from the join target.",
                        hint: "On this node, type: TRUNCATE \(table.name);")
                }
            } catch let error as RemoteError {
                throw error.asError(
                    "table \(table.name) of the join target is not the same here",
                    hint: "Create it here as it is there, or join with synchronize_structure := 'all'.")
            }
        }
    }

    /// The copy needs an empty database.
    private func checkEmpty() throws {
        let found = try self.loop.query(
            """
            SELECT kind, name FROM (
                SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' WHEN 'm' THEN 'materialized view'
                                      WHEN 'f' THEN 'foreign table' WHEN 'c' THEN 'type' ELSE 'table' END AS kind,
                       pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, c.oid, c.tableoid
                  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND c.relpersistence <> 't'
                   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
                UNION ALL
                SELECT 'function', pg_catalog.format('%I.%I', n.nspname, p.proname), p.oid, p.tableoid
                  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
                 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
                UNION ALL
                SELECT 'type', pg_catalog.format('%I.%I', n.nspname, t.typname), t.oid, t.tableoid
                  FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
                 WHERE t.typtype IN ('d', 'e', 'r') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
                UNION ALL
                SELECT 'schema', pg_catalog.quote_ident(n.nspname), n.oid, n.tableoid FROM pg_catalog.pg_namespace n
                 WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'public')
            ) o
             WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                                WHERE d.classid = o.tableoid AND d.objid = o.oid AND d.deptype = 'e')
             ORDER BY kind, name LIMIT 6
            """)
        guard found.count > 0 else {
            return
        }
        var names = (0..<min(5, found.count)).map { "\(found[$0, 0] ?? "") \(found[$0, 1] ?? "")" }
        if found.count > 5 {
            names.append("and more")
        }
        throw BdrError(
            SQLSTATE.objectNotInPrerequisiteState, "this database is not empty",
            detail: "It contains \(names.joined(separator: ", ")).",
            hint: "A joining node takes structure and data from the join target: join with an empty database.")
    }
}

/// Waits until the local node is a member.
struct JoinWait {
    /// A session of its own sees what others commit, whatever the isolation level of the waiting one.
    let loop: Connection
    let verbose: Bool

    func run() throws {
        var line = 0
        while true {
            do {
                if self.verbose {
                    let lines = try self.loop.query(
                        "SELECT line_number, line FROM bdr.join_progress_line WHERE line_number > $1::pg_catalog.int4 ORDER BY 1",
                        [String(line)])
                    for row in 0..<lines.count {
                        line = lines[row, 0].flatMap { Int($0) } ?? line
                        try Log.notice(lines[row, 1] ?? "")
                    }
                }
                if try self.isOver() {
                    return
                }
            } catch let error as RemoteError {
                throw error.asError("waiting for the join ended", hint: "The join goes on: see bdr.join_progress.")
            }
            try host(bdr_host_wait(nil, 50))
        }
    }

    private func isOver() throws -> Bool {
        let rows = try self.loop.query(
            """
            SELECT n.node_state, n.node_name, j.step, j.error_sqlstate, j.error_message, j.error_detail, j.error_hint,
                   j.pause_in_standby
              FROM bdr.local_node l JOIN bdr.node n ON n.node_id = l.node_id LEFT JOIN bdr.join_state j ON true
            """)
        if rows[0, 0] == String(NodeState.active.rawValue)
            || (rows[0, 0] == String(NodeState.standby.rawValue) && rows[0, 7] == "t")
        {
            return true
        }
        let name = rows[0, 1] ?? ""
        guard let step = rows[0, 2] else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "node \"\(name)\" is not joining a group",
                hint: "Call bdr.create_node_group() or bdr.join_node_group() first.")
        }
        if step == JoinStep.failed.rawValue {
            throw BdrError(
                rows[0, 3] ?? SQLSTATE.internalError,
                "node \"\(name)\" could not join: \(rows[0, 4] ?? "the join was given up")", detail: rows[0, 5],
                hint: rows[0, 6] ?? "Remove the cause and call bdr.join_node_group() again.")
        }
        return false
    }
}
