// bdr.resynchronize_table_from_node: makes a table here what it is on another node, while everybody goes on writing.
//
// The table is locked here. When the other node has applied all that was committed here, or had arrived here from others, before
// that, nothing can be lost by taking its rows. There the table is locked, too, for the moment in which a snapshot is taken: so
// what the snapshot has of the table is what each node committed up to a position, and no more. The rows come from the snapshot;
// changes of each node up to its position, which are still to arrive here, are dropped for this table (bdr.copied_position).

internal import CHost
internal import Membership

enum Resynchronization {
    /// Up to where changes of a node are in a table, or 0. Inside a transaction that has locked the table.
    static func contained(_ table: UInt32, of node: UInt32) throws -> UInt64 {
        let rows = try SQL.query(
            "SELECT position FROM bdr.copied_position WHERE relid = $1::pg_catalog.oid AND node_id = $2::pg_catalog.oid",
            [String(table), String(node)])
        return rows[0, 0].flatMap { LSN.parse($0) } ?? 0
    }

    /// Of each active node, this one included: up to where its changes are committed here, and up to where nothing of it is
    /// missing here. Inside a transaction.
    static func positions() throws -> Rows {
        let local = try LocalNode.require()
        var end: UInt64 = 0
        try host(bdr_host_wal_end(&end))
        let applied = try Progress.applied()
        let complete = try Progress.complete()
        let nodes = try SQL.query(
            "SELECT node_id FROM bdr.node WHERE node_state = $1::pg_catalog.oid AND node_group_id = $2::pg_catalog.oid",
            [String(NodeState.active.rawValue), local.groupID])
        var ids: [String] = []
        var positions: [String] = []
        for row in 0..<nodes.count {
            guard let id = nodes[row, 0].flatMap({ UInt32($0) }) else {
                continue
            }
            ids.append(String(id))
            positions.append(LSN.text(id == local.id ? end : applied[id] ?? 0))
            positions.append(LSN.text(id == local.id ? end : complete[id] ?? 0))
        }
        return try SQL.query(
            """
            SELECT u.id, p.list[2 * u.number - 1], p.list[2 * u.number]
              FROM pg_catalog.unnest($1::pg_catalog.text[]) WITH ORDINALITY u (id, number),
                   (SELECT $2::pg_catalog.text[]) p (list)
            """, ["{\(ids.joined(separator: ","))}", "{\(positions.joined(separator: ","))}"])
    }

    private struct Positions {
        var applied: OriginPositions = [:]
        var complete: OriginPositions = [:]

        init(of connection: Connection) throws {
            let rows = try PeerCall.containedPositions.ask(connection)
            for row in 0..<rows.count {
                guard let id = rows[row, 0].flatMap({ UInt32($0) }) else {
                    continue
                }
                self.applied[id] = rows[row, 1].flatMap { LSN.parse($0) }
                self.complete[id] = rows[row, 2].flatMap { LSN.parse($0) }
            }
        }
    }

    private struct Table {
        var oid: String
        /// Qualified, and quoted where it has to be.
        var name: String

        init(_ oid: UInt32) throws {
            let rows = try SQL.query(
                """
                SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),
                       c.relkind = 'r' AND NOT c.relispartition AND c.relpersistence = 'p' AND n.nspname !~ '^pg_'
                       AND n.nspname NOT IN ('information_schema', 'bdr')
                  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.oid = $1::pg_catalog.oid
                """, [String(oid)])
            guard let name = rows[0, 0] else {
                throw BdrError(SQLSTATE.undefinedTable, "there is no table with OID \(oid)")
            }
            guard rows[0, 1] == "t" else {
                throw BdrError(
                    "42809", "\(name) is not an ordinary table that is replicated",
                    detail: "Partitioned tables and their partitions can't be copied from another node.",
                    hint: "Name a table; or part the node and have it join again.")
            }
            self.oid = String(oid)
            self.name = name
        }
    }

    static func perform(_ oid: UInt32, from node: String) throws {
        let local = try LocalNode.require()
        guard local.isInGroup, local.state == .active else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "node \"\(local.name)\" is not an active member of a group",
                hint: "See bdr.local_node_summary.")
        }
        guard node != local.name else {
            throw BdrError(
                SQLSTATE.invalidParameterValue, "a table can't be copied from the node that it is on",
                hint: "Call the function on the node whose table is to be replaced, and name another one.")
        }
        let table = try Table(oid)
        let peers = try SQL.query(
            """
            SELECT n.node_id, i.if_dsn, n.node_state FROM bdr.node n JOIN bdr.node_interface i ON i.node_id = n.node_id
             WHERE n.node_name = $1::pg_catalog.name
            """, [node])
        guard let dsn = peers[0, 1], let state = peers[0, 2] else {
            throw BdrError(SQLSTATE.undefinedObject, "there is no node \"\(node)\"", hint: "See bdr.node_summary.")
        }
        guard state == String(NodeState.active.rawValue) else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "node \"\(node)\" is not active", hint: "Name another node.")
        }
        let who = "node \"\(node)\""
        let here = "this node with its own local_dsn"
        let reader = try Session.open(dsn: dsn, who)
        let locker = try Session.open(dsn: dsn, who)
        let other = try Session.open(dsn: local.dsn, here, writes: true)
        let origin = "bdr_copied_\(bdr_host_database_oid())_\(table.oid)"
        do {
            try other.query(
                """
                SELECT pg_catalog.pg_replication_origin_create($1)
                 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_replication_origin WHERE roname = $1)
                """, [origin])
            do {
                let writer = try Session.open(dsn: local.dsn, here, writes: true)
                // what can't be removed here the next copy of the table uses
                func removeOrigin() throws {
                    try writer.query("SELECT pg_catalog.pg_replication_origin_session_reset()")
                    try other.query("SELECT pg_catalog.pg_replication_origin_drop($1)", [origin])
                }
                do {
                    try self.replace(
                        table, origin: origin, node: node, reader: reader, locker: locker, writer: writer, other: other)
                } catch {
                    do {
                        try writer.query("ROLLBACK")
                        try removeOrigin()
                    } catch is RemoteError {
                    }
                    throw error
                }
                try removeOrigin()
            }
        } catch let error as RemoteError {
            throw error.asError("table \(table.name) could not be copied from node \"\(node)\"")
        }
    }

    private static func replace(
        _ table: Table, origin: String, node: String, reader: Connection, locker: Connection, writer: Connection,
        other: Connection
    ) throws {
        try writer.query("SET session_replication_role = replica")
        try writer.query("SET client_connection_check_interval = '1s'")
        try writer.query("SELECT pg_catalog.pg_replication_origin_session_setup($1)", [origin])
        try writer.query("BEGIN")
        try writer.query("SELECT pg_catalog.pg_replication_origin_xact_setup('0/1', '\(SnapshotCopy.copyTime)')")
        try writer.query("LOCK TABLE \(table.name) IN ACCESS EXCLUSIVE MODE")
        try self.waitUntilComplete(reader, node: node, other: other)

        try locker.query("BEGIN")
        // two nodes that copy from one another would wait for ever
        try locker.query("SET LOCAL lock_timeout = '60s'")
        try locker.query("LOCK TABLE ONLY \(table.name) IN SHARE MODE")
        let contained = try Positions(of: locker).applied
        try reader.query("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        guard let source = try CopiedTable.list(of: reader, partitions: true).first(where: { $0.name == table.name }) else {
            throw BdrError(
                SQLSTATE.undefinedTable, "there is no ordinary table \(table.name) on node \"\(node)\"",
                hint: "Name a node that has the table.")
        }
        try locker.query("ROLLBACK")

        let keys = try writer.query(
            """
            SELECT c.conrelid::pg_catalog.regclass, pg_catalog.quote_ident(c.conname), pg_catalog.pg_get_constraintdef(c.oid)
              FROM pg_catalog.pg_constraint c
             WHERE c.contype = 'f' AND c.confrelid = $1::pg_catalog.oid AND c.conparentid = 0
            """, [table.oid])
        for row in 0..<keys.count {
            try writer.query("ALTER TABLE \(keys[row, 0] ?? "") DROP CONSTRAINT \(keys[row, 1] ?? "")")
        }
        try writer.query("TRUNCATE ONLY \(table.name)")
        try self.copy(source, from: reader, to: writer)
        let stamps = try RowStamps.ofTarget(reader, tables: [table.name], joining: 0)
        try RowStamps.add(stamps.filter { $0.first == .some(.some(table.name)) }, writer)
        for row in 0..<keys.count {
            try writer.query("ALTER TABLE \(keys[row, 0] ?? "") ADD CONSTRAINT \(keys[row, 1] ?? "") \(keys[row, 2] ?? "")")
        }
        try writer.query(
            """
            DELETE FROM bdr.copied_position p
             WHERE p.relid = $1::pg_catalog.oid OR NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = p.relid)
            """, [table.oid])
        for (id, position) in contained {
            try writer.query(
                "INSERT INTO bdr.copied_position (relid, node_id, position) VALUES ($1::pg_catalog.oid, $2::pg_catalog.oid, $3::pg_catalog.pg_lsn)",
                [table.oid, String(id), LSN.text(position)])
        }
        try SnapshotCopy.waitForClock(reader)
        try writer.query("COMMIT")
    }

    /// Waits until the other node has all that could have changed the table here until now.
    private static func waitUntilComplete(_ reader: Connection, node: String, other: Connection) throws {
        let needed = try Positions(of: other)
        // something that stands behind it in the stream
        try PeerCall.heartbeat.ask(other)
        let deadline = bdr_host_now() &+ 60_000_000
        while true {
            let there = try Positions(of: reader).complete
            let missing = needed.applied.filter { (there[$0.key] ?? 0) < $0.value }
            if missing.isEmpty {
                return
            }
            guard bdr_host_now() < deadline else {
                throw BdrError(
                    SQLSTATE.objectNotInPrerequisiteState,
                    "node \"\(node)\" has not received all changes that this node has, for a minute",
                    detail: "What it lacks would be lost here. Nodes whose changes it lacks: "
                        + missing.keys.sorted().map { String($0) }.joined(separator: ", ") + ".",
                    hint: "See bdr.subscription_summary on node \"\(node)\", or name another node.")
            }
            if try host(bdr_host_wait(nil, 50)) & Int32(BDR_WAIT_SHUTDOWN) != 0 {
                throw BdrError("57P01", "terminating while a copy waited for another node")
            }
            try host(bdr_host_check_interrupts())
        }
    }

    private static func copy(_ source: CopiedTable, from reader: Connection, to writer: Connection) throws {
        let format = source.binary ? "binary" : "text"
        var copy: OpaquePointer?
        var failed: OpaquePointer?
        defer { bdr_host_copy_free(copy) }
        var status = try host(
            bdr_host_copy_begin(
                reader.raw, "COPY \(try source.source(nil)) TO STDOUT (FORMAT \(format))",
                writer.raw, "COPY \(source.target) FROM STDIN (FORMAT \(format))", &copy, &failed))
        var finished: Int32 = -1
        while status == BDR_OK && finished < 0 {
            let copies = [copy]
            status = try copies.withUnsafeBufferPointer { copies in
                try host(bdr_host_copy_pump(copies.baseAddress, 1, 1000, &finished, &failed))
            }
        }
        if status != BDR_OK {
            throw failed == reader.raw ? reader.lastError : writer.lastError
        }
    }
}

@c(bdr_engine_resynchronize_table)
public func bdrEngineResynchronizeTable(_ node: UnsafePointer<CChar>?, _ table: UInt32) -> Int32 {
    entry { try Resynchronization.perform(table, from: Argument.text(node, "node_name")) }
}
