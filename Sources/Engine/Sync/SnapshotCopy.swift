// The copy of the join target's database under one snapshot: the one that its replication slot was created with, so that
// the slot's stream goes on exactly where the copy ends.

internal import CHost
internal import Membership

final class SnapshotCopy {
    /// Holds the snapshot; no command may be given on it any more.
    private let holder: Connection
    private let reader: Connection
    private let snapshot: String
    private let target: String
    /// Id of the node that copies.
    private let joining: UInt32
    /// The slot's start.
    let lsn: String

    /// Creates the slot on the target and imports its snapshot into a second session.
    init(target: String, slot: String, joining: UInt32) throws {
        self.target = target
        self.joining = joining
        self.holder = try Session.open(dsn: target, "the join target", replication: true)
        self.reader = try Session.open(dsn: target, "the join target")
        do {
            let made = try self.holder.query("CREATE_REPLICATION_SLOT \"\(slot)\" LOGICAL bdr (SNAPSHOT 'export')")
            guard let lsn = made[0, 1], let snapshot = made[0, 2] else {
                throw BdrError(SQLSTATE.protocolViolation, "the join target exported no snapshot")
            }
            self.lsn = lsn
            self.snapshot = snapshot
            try Self.importSnapshot(snapshot, into: self.reader)
        } catch let error as RemoteError {
            throw error.asError("the replication slot could not be created on the join target")
        }
    }

    static func importSnapshot(_ snapshot: String, into session: Connection) throws {
        try session.query("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try session.query("SET TRANSACTION SNAPSHOT \(try SQL.quoteLiteral(snapshot))")
    }

    /// Up to where the snapshot contains the changes of the other members, by node id.
    func positions() throws -> [String: String] {
        do {
            let rows = try self.reader.query("SELECT origin_node_id, position FROM bdr.origin_position")
            var positions: [String: String] = [:]
            for row in 0..<rows.count {
                if let id = rows[row, 0], let position = rows[row, 1] {
                    positions[id] = position
                }
            }
            return positions
        } catch let error as RemoteError {
            throw error.asError("the positions of the copy could not be read")
        }
    }

    // MARK: Structure

    /// Restores what comes before the data, and keeps the script of what comes after it in bdr.join_script.
    func copyStructure(local: String, target: String) throws {
        let dump = try TemporaryFile("dump")
        let script = try TemporaryFile("sql")
        defer {
            dump.remove()
            script.remove()
        }
        let from = try ProgramDSN(target, options: [])
        defer { from.remove() }
        do {
            try Program.run(
                "pg_dump",
                [
                    "--format=custom", "--compress=1", "--section=pre-data", "--section=post-data",
                    "--snapshot=\(self.snapshot)", "--encoding=\(String(cString: bdr_host_encoding_name()))",
                    "--no-publications", "--no-subscriptions", "--no-password", "--file=\(dump.path)",
                    "--dbname=\(from.text)",
                ], from.environment)
        } catch let error as BdrError {
            do {
                // the snapshot is used up by this, which no longer matters
                try self.reader.query("SELECT 1")
            } catch is RemoteError {
                throw BdrError(
                    SQLSTATE.connectionFailure, "the connection to the join target was lost during the copy",
                    detail: error.detail)
            }
            throw error
        }
        try Program.run(
            "pg_restore", ["--section=post-data", "--no-publications", "--no-subscriptions", "--file=\(script.path)", dump.path],
            [])
        let triggers = try self.streamTriggers()
        let to = try ProgramDSN(local, options: ["bdr.internal_session=on", "session_replication_role=replica"])
        let list = try TemporaryFile("list")
        defer {
            to.remove()
            list.remove()
        }
        let chosen = try Self.chooseObjects(of: dump, into: list, local: local)
        try Program.run(
            "pg_restore",
            [
                "--section=pre-data", "--exit-on-error", "--single-transaction", "--no-publications",
                "--no-subscriptions", "--no-password", "--dbname=\(to.text)",
            ] + chosen + [dump.path], to.environment)
        try Transaction.run {
            try SQL.query("DELETE FROM bdr.join_script")
            // The guard lines are for psql, which is not what runs the script. Some pg_dumps write policies of an extension's
            // tables; those of ours are there.
            try SQL.query(
                """
                INSERT INTO bdr.join_script (script)
                SELECT pg_catalog.regexp_replace(pg_catalog.regexp_replace(
                           s, E'^\\\\\\\\(un)?restrict [A-Za-z0-9]+$', '', 'gn'),
                           E'\\nCREATE POLICY [^ ]+ ON bdr\\.[^;]*;', '', 'g') || $2
                  FROM pg_catalog.convert_from(pg_catalog.pg_read_binary_file($1),
                                               pg_catalog.getdatabaseencoding()) s
                """, [script.path, triggers])
        }
    }

    /// Statements that make the stream triggers, which pg_dump takes for internal ones of the server.
    private func streamTriggers() throws -> String {
        do {
            // arguments are stored one behind the other, each ended by a zero byte
            let script = try self.reader.query(
                """
                SELECT pg_catalog.string_agg(pg_catalog.format(
                           E'\\nSELECT bdr.%I(%L, %L::pg_catalog.text[], %L, %L, %L::pg_catalog.text[]);',
                           CASE s.trigger_type WHEN 'c' THEN 'create_conflict_trigger' ELSE 'create_transform_trigger' END, s.trigger_name,
                           ARRAY(SELECT e.event FROM (VALUES (4, 'INSERT'), (8, 'DELETE'), (16, 'UPDATE')) e(bit, event)
                                  WHERE t.tgtype::pg_catalog.int4 & e.bit <> 0),
                           pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.format('%I.%I()', f.nspname, p.proname),
                           ARRAY(SELECT pg_catalog.convert_from(pg_catalog.decode(a.hex, 'hex'), pg_catalog.getdatabaseencoding())
                                   FROM pg_catalog.regexp_split_to_table(pg_catalog.regexp_replace(pg_catalog.encode(t.tgargs, 'hex'), '..', '\\& ', 'g'), '00 ')
                                        WITH ORDINALITY a(hex, number)
                                  WHERE a.number <= t.tgnargs ORDER BY a.number)), '' ORDER BY t.oid)
                  FROM bdr.trigger s JOIN pg_catalog.pg_trigger t ON t.oid = s.trigger_id
                  JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                  JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN pg_catalog.pg_namespace f ON f.oid = p.pronamespace
                 WHERE c.relpersistence <> 't'
                """)
            return script[0, 0] ?? ""
        } catch let error as RemoteError {
            throw error.asError("the stream triggers of the join target could not be read")
        }
    }

    /// What pg_restore has to be told when the role is no superuser: comments on extensions are not its business.
    private static func chooseObjects(of dump: TemporaryFile, into list: TemporaryFile, local: String) throws -> [String] {
        let session = try Session.open(dsn: local, "this node with its own local_dsn")
        guard try session.query("SELECT pg_catalog.current_setting('is_superuser')")[0, 0] != "on" else {
            return []
        }
        let whole = try TemporaryFile("toc")
        defer { whole.remove() }
        try Program.run("pg_restore", ["--list", "--file=\(whole.path)", dump.path], [])
        let kept = try Transaction.run {
            try SQL.query(
                """
                SELECT pg_catalog.string_agg(l.line, E'\\n' ORDER BY l.number) || E'\\n'
                  FROM pg_catalog.regexp_split_to_table(
                           pg_catalog.convert_from(pg_catalog.pg_read_binary_file($1), pg_catalog.getdatabaseencoding()), E'\\n')
                       WITH ORDINALITY l(line, number)
                 WHERE l.line !~ '^[0-9]+; [0-9]+ [0-9]+ COMMENT - EXTENSION '
                """, [whole.path])
        }
        try host(bdr_host_write_file(list.path, kept[0, 0] ?? ""))
        return ["--use-list=\(list.path)"]
    }

    // MARK: Data

    /// The commit time of copied rows: older than any change. Not the server's epoch itself, which it takes for "not set".
    static let copyTime = "2000-01-01 00:00:01+00"
    /// The same, as the server counts: microseconds.
    static let copyTimestamp: Int64 = 1_000_000

    /// Copies all rows, as changes of the target with the oldest possible commit time: whatever either node writes from now
    /// on is newer. Then the values of sequences.
    /// - Parameters:
    ///   - partitions: as for `CopiedTable.list`.
    ///   - workers: tables, or pieces of them, that are copied at the same time.
    ///   - report: gets the tables and how far each is.
    func copyData(
        local: String, partitions: Bool, workers: Int, _ report: ([CopiedTable], [TableProgress]) throws -> Void
    ) throws {
        do {
            var list = try CopiedTable.list(of: self.reader, partitions: partitions)
            try CopiedTable.compareLayouts(&list, local: Session.open(dsn: local, "this node with its own local_dsn"))
            let tables = list
            try report(tables, tables.map { _ in TableProgress() })
            try CopyOrigins.remove()
            let copy = TableCopy(
                tables: tables,
                openReader: {
                    let reader = try Session.open(dsn: self.target, "the join target")
                    try Self.importSnapshot(self.snapshot, into: reader)
                    return reader
                },
                openWriter: { number in
                    let origin = CopyOrigins.name(number)
                    try Transaction.run { try NodeCatalog.createOrigin(origin) }
                    let writer = try Session.open(dsn: local, "this node with its own local_dsn", writes: true)
                    try writer.query("SET session_replication_role = replica")
                    // the step is stored after all of it, and that is waited for
                    try writer.query("SET synchronous_commit = off")
                    // it ends soon when this process does, also while it waits for the join target
                    try writer.query("SET client_connection_check_interval = '1s'")
                    try writer.query(
                        "SELECT pg_catalog.pg_replication_origin_session_setup(\(try SQL.quoteLiteral(origin)))")
                    return writer
                },
                openFetch: { writer in
                    do {
                        try writer.query("SELECT bdr.internal_fetch_begin($1)", [self.snapshot])
                    } catch let error as RemoteError {
                        throw BdrError(
                            error.sqlstate, error.message, detail: error.detail.isEmpty ? nil : error.detail,
                            hint: error.hint.isEmpty ? nil : error.hint)
                    }
                },
                begin: """
                    SELECT pg_catalog.pg_replication_origin_xact_setup(\(try SQL.quoteLiteral(self.lsn)),
                                                                       '\(Self.copyTime)')
                    """,
                workers: workers)
            do {
                try copy.run(reader: self.reader) { try report(tables, $0) }
            } catch let error as RemoteError {
                // a table that was dropped meanwhile, or changed
                var changed: String?
                do {
                    changed = try self.changedTable(orDropped: true)
                } catch is RemoteError {
                } catch is BdrError {
                }
                throw changed.map { Self.changed($0) } ?? error as any Error
            }
            if let name = try self.changedTable(orDropped: false) {
                throw Self.changed(name)
            }
            try self.copySequences(to: Session.open(dsn: local, "this node with its own local_dsn", writes: true))
            try self.copyStamps(to: Session.open(dsn: local, "this node with its own local_dsn", writes: true))
            try CopyOrigins.remove()
        } catch let error as RemoteError {
            throw error.asError("the data could not be copied")
        }
    }

    /// Tables and their columns: file, and by whom the columns were written.
    private static let shapes = """
        SELECT c.oid, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), c.relfilenode,
               c.relam::pg_catalog.text || ' ' || (SELECT pg_catalog.string_agg(a.attnum::pg_catalog.text || ' ' || a.xmin::pg_catalog.text, ',' ORDER BY a.attnum)
                  FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0)
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'bdr')
        """

    /// A table of the target that was written anew by ALTER TABLE since the snapshot: to the snapshot, which is older, it is empty
    /// then. (So it is after TRUNCATE, but that comes by the stream, too.)
    private func changedTable(orDropped: Bool) throws -> String? {
        let seen = try self.reader.query(Self.shapes)
        let now = try Session.open(dsn: self.target, "the join target").query(Self.shapes)
        var rows: [String: Int] = [:]
        for row in 0..<now.count {
            if let oid = now[row, 0] {
                rows[oid] = row
            }
        }
        for row in 0..<seen.count {
            guard let oid = seen[row, 0] else {
                continue
            }
            guard let other = rows[oid] else {
                if orDropped {
                    return seen[row, 1]
                }
                continue
            }
            if seen[row, 2] != now[other, 2], seen[row, 3] != now[other, 3] {
                return seen[row, 1]
            }
        }
        return nil
    }

    /// Passes by itself: the copy is begun anew.
    private static func changed(_ name: String) -> BdrError {
        BdrError(
            "40001", "table \(name) of the join target was changed while it was copied",
            detail: "It was dropped, or written anew by ALTER TABLE. The copy is begun anew.",
            hint: "Change tables before a node joins, or afterwards.")
    }

    /// What the copied rows, and those that are gone, need to be told from older changes that are on their way.
    private func copyStamps(to writer: Connection) throws {
        let names = try self.reader.query(
            """
            SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
              FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_'
               AND n.nspname NOT IN ('information_schema', 'bdr')
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                                WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                                  AND d.deptype = 'e')
            """)
        let stamps = try RowStamps.ofTarget(
            self.reader, tables: (0..<names.count).compactMap { names[$0, 0] }, joining: self.joining)
        try RowStamps.store(stamps, writer)
        try Self.waitForClock(self.reader)
    }

    /// What is written here from now on must not be dated before what was copied.
    static func waitForClock(_ reader: Connection) throws {
        let time = try reader.query(
            "SELECT pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - '2000-01-01 00:00:00+00') * 1000000")
        guard let remote = time[0, 0].flatMap({ Double($0) }).flatMap({ Int64(exactly: $0.rounded(.up)) }) else {
            return
        }
        let ahead = remote &- bdr_host_now()
        guard ahead < 60_000_000 else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState,
                "the clock of the node that is copied from is \(ahead / 1_000_000) s ahead of this server's",
                hint: "Have both servers' clocks synchronised (NTP).")
        }
        while bdr_host_now() <= remote {
            if try host(bdr_host_wait(nil, 100)) & Int32(BDR_WAIT_SHUTDOWN) != 0 {
                throw BdrError("57P01", "terminating while the copy waited for the clock")
            }
        }
    }

    private func copySequences(to writer: Connection) throws {
        let sequences = try self.reader.query(
            """
            SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
              FROM pg_catalog.pg_class c
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'S' AND c.relpersistence <> 't'
               AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'bdr')
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                                WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                                  AND d.deptype = 'e')
            """)
        for row in 0..<sequences.count {
            guard let name = sequences[row, 0] else {
                continue
            }
            let value = try self.reader.query("SELECT last_value, is_called FROM \(name)")
            guard let last = value[0, 0], let called = value[0, 1] else {
                continue
            }
            try writer.query(
                "SELECT pg_catalog.setval(\(try SQL.quoteLiteral(name)), $1::pg_catalog.int8, $2::pg_catalog.bool)",
                [last, called])
        }
    }
}

/// Replication origins of the sessions that write copied rows: each needs one of its own to set the commit time. They exist
/// only during the copy.
enum CopyOrigins {
    private static var prefix: String { "bdr_copy_\(bdr_host_database_oid())_" }

    static func name(_ number: Int) -> String {
        self.prefix + String(number)
    }

    /// Removes those of this database; waits for sessions that still hold one and are about to end.
    static func remove() throws {
        try Transaction.run {
            let names = try SQL.query(
                "SELECT roname FROM pg_catalog.pg_replication_origin WHERE pg_catalog.starts_with(roname, $1)",
                [self.prefix])
            for row in 0..<names.count {
                if let name = names[row, 0] {
                    try host(bdr_host_origin_drop(name))
                }
            }
        }
    }
}

/// Takes away what a copy has brought into a database that was empty before.
enum CopiedObjects {
    /// Where only rows were copied: empties the tables that got some.
    static func empty(_ connection: Connection) throws {
        do {
            let tables = try connection.query("SELECT table_name FROM bdr.join_table")
            let names = (0..<tables.count).compactMap { tables[$0, 0] }
            if !names.isEmpty {
                try connection.query("TRUNCATE \(names.joined(separator: ", ")) CASCADE")
            }
        } catch let error as RemoteError {
            throw error.asError("an incomplete copy could not be removed")
        }
    }

    /// - Parameter keptExtensions: were there before.
    static func remove(_ connection: Connection, keptExtensions: [String]) throws {
        do {
            try connection.query("BEGIN")
            let extensions = try connection.query("SELECT extname FROM pg_catalog.pg_extension")
            for row in 0..<extensions.count {
                if let name = extensions[row, 0], !keptExtensions.contains(name) {
                    try connection.query("DROP EXTENSION IF EXISTS \(try SQL.quoteIdentifier(name)) CASCADE")
                }
            }
            let schemas = try connection.query(
                """
                SELECT n.nspname FROM pg_catalog.pg_namespace n
                 WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'public', 'bdr')
                   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                                    WHERE d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
                                      AND d.objid = n.oid AND d.deptype = 'e')
                """)
            for row in 0..<schemas.count {
                if let name = schemas[row, 0] {
                    try connection.query("DROP SCHEMA IF EXISTS \(try SQL.quoteIdentifier(name)) CASCADE")
                }
            }
            // schema public stays: its owner and rights are not the copy's
            let objects = try connection.query(
                """
                SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                                      WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END,
                       'public.' || pg_catalog.quote_ident(c.relname), c.oid, 1 AS place, c.tableoid
                  FROM pg_catalog.pg_class c
                 WHERE c.relnamespace = 'public'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c')
                UNION ALL
                SELECT CASE p.prokind WHEN 'a' THEN 'AGGREGATE' ELSE 'ROUTINE' END,
                       'public.' || pg_catalog.quote_ident(p.proname) || '('
                       || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')', p.oid, 2, p.tableoid
                  FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'public'::pg_catalog.regnamespace
                UNION ALL
                SELECT 'TYPE', 'public.' || pg_catalog.quote_ident(t.typname), t.oid, 3, t.tableoid
                  FROM pg_catalog.pg_type t
                 WHERE t.typnamespace = 'public'::pg_catalog.regnamespace AND t.typtype IN ('d', 'e', 'r')
                UNION ALL
                SELECT 'COLLATION', 'public.' || pg_catalog.quote_ident(l.collname), l.oid, 4, l.tableoid
                  FROM pg_catalog.pg_collation l WHERE l.collnamespace = 'public'::pg_catalog.regnamespace
                ORDER BY 4
                """)
            for row in 0..<objects.count {
                guard let kind = objects[row, 0], let name = objects[row, 1], let oid = objects[row, 2],
                    let catalog = objects[row, 4]
                else {
                    continue
                }
                let keep = try connection.query(
                    """
                    SELECT FROM pg_catalog.pg_depend
                     WHERE classid = $2::pg_catalog.oid AND objid = $1::pg_catalog.oid AND deptype IN ('e', 'i')
                       -- a partitioned table depends on its own key columns
                       AND (refclassid <> classid OR refobjid <> objid)
                    """, [oid, catalog])
                if keep.count == 0 {
                    try connection.query("DROP \(kind) IF EXISTS \(name) CASCADE")
                }
            }
            try connection.query("COMMIT")
        } catch let error as RemoteError {
            throw error.asError("an incomplete copy could not be removed")
        }
    }
}
