// bdrctl doctor: what is wrong, and what to type.

import ArgumentParser
import Membership
import Operations

struct Doctor: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Says what is wrong with the group, and what to type.",
        discussion: "Every node is asked that can be reached. Exit code 1 when something is wrong.")

    @OptionGroup var node: NodeOption
    @Flag(help: "Ask only the node that --dsn leads to.") var local = false
    @Flag(help: "Print JSON.") var json = false

    func run() throws {
        let connection = try self.node.open()
        try requireExtension(connection)
        guard try connection.query("SELECT FROM bdr.local_node_summary").count == 1 else {
            throw Failure(
                "this database is no node", hint: "bdrctl check says whether it can become one.", code: ExitCodes.no)
        }
        var findings: [(node: String, finding: Finding)] = []
        for member in try Member.all(connection) where member.isLocal || (!self.local && member.state != "PARTED") {
            do {
                let asked = try member.isLocal ? connection : member.open(connectTimeout: 3, timeout: 20)
                let facts = try Self.facts(asked, member)
                findings += diagnose(facts).map { (member.name, $0) }
                findings += try Self.settings(asked).map { (member.name, $0) }
            } catch let error as PostgresError {
                findings.append(
                    (
                        member.name,
                        Finding(
                            .error, "\(member.name) can't be asked: \(oneLine(error.message))",
                            error.hint ?? "Start it, or mend the network or pg_hba.conf there. If it is down for good: bdrctl part "
                                + "\(member.name) --force")
                    ))
            }
        }
        // two nodes may say the same
        var shown: [Finding] = []
        for (_, finding) in findings where !shown.contains(finding) {
            shown.append(finding)
        }
        if self.json {
            print(
                JSON.array(
                    shown.map {
                        .object([
                            ("weight", .string($0.weight.rawValue)), ("what", .string($0.what)), ("advice", .string($0.advice)),
                        ])
                    }
                ).rendered())
        } else if shown.isEmpty {
            print("Nothing is wrong.")
        } else {
            for finding in shown {
                print("\(finding.weight.rawValue): \(finding.what)\n    \(finding.advice)")
            }
        }
        if !shown.isEmpty {
            throw ExitCode(ExitCodes.no)
        }
    }

    private static func facts(_ connection: Connection, _ member: Member) throws -> NodeFacts {
        let base = try connection.query(
            """
            SELECT l.peer_state_name, pg_catalog.pg_is_in_recovery(),
                   EXISTS (SELECT FROM bdr.workers WHERE worker_role_name = 'manager')
              FROM bdr.local_node_summary l
            """)
        var facts = NodeFacts(name: member.name, state: base[0, 0] ?? "UNKNOWN")
        facts.isStandby = base[0, 1] == "t"
        facts.hasManager = base[0, 2] == "t"
        let peers = try connection.query(
            """
            SELECT s.target_name, COALESCE(b.subscription_status, 'replicating'), b.sub_name, w.last_error_sqlstate,
                   w.last_error_message, s.slot_name IS NOT NULL, s.state, COALESCE(s.replay_lag_bytes, 0),
                   COALESCE(r.retained_wal_bytes, 0)
              FROM bdr.node_slots s
              LEFT JOIN bdr.subscription_summary b ON b.origin_id = s.target_id
              LEFT JOIN bdr.show_subscription_status() w ON w.peer = s.target_id
              LEFT JOIN bdr.node_replication_rates r ON r.peer_node_id = s.target_id
             WHERE NOT s.is_group_slot
               AND (SELECT l.peer_state_name FROM bdr.local_node_summary l) = 'ACTIVE'
               AND EXISTS (SELECT FROM bdr.node_summary n WHERE n.node_id = s.target_id AND n.peer_state_name = 'ACTIVE')
             ORDER BY 1
            """)
        for row in peers.values {
            let unreachable = (row[3] ?? "").hasPrefix("08") || (row[3] ?? "").hasPrefix("57P")
            facts.peers.append(
                NodeFacts.Peer(
                    name: row[0] ?? "", receiving: row[1] ?? "", subscription: row[2] ?? "", errorSQLState: row[3],
                    errorMessage: row[4].map { oneLine($0) }, slotExists: row[5] == "t", sending: row[6] ?? "",
                    lagBytes: row[7].flatMap { Int($0) } ?? 0, retainedBytes: row[8].flatMap { Int($0) } ?? 0,
                    connectError: unreachable ? row[4].map { oneLine($0) } : nil))
        }
        let join = try connection.query("SELECT step, error_message, error_hint FROM bdr.join_progress")
        if let step = join[0, 0] {
            facts.join = (step, join[0, 1].map { oneLine($0) }, join[0, 2])
        }
        facts.partings = try connection.query("SELECT node_name, concat_ws(': ', step, progress) FROM bdr.part_progress")
            .values.map { ($0[0] ?? "", $0[1] ?? "") }
        facts.missingChanges = try connection.query("SELECT DISTINCT node_name FROM bdr.missing_changes").values.map { $0[0] ?? "" }
        facts.tablesWithoutIdentity = try connection.query(
            """
            SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
              FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_'
               AND n.nspname NOT IN ('information_schema', 'bdr') AND c.relreplident = 'd'
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass
                                  AND d.objid = c.oid AND d.deptype = 'e')
             ORDER BY 1 LIMIT 20
            """
        ).values.map { $0[0] ?? "" }
        let oldest = try connection.query(
            """
            SELECT pid, EXTRACT(epoch FROM pg_catalog.clock_timestamp() - xact_start)::int8, state
              FROM pg_catalog.pg_stat_activity
             WHERE datname = pg_catalog.current_database() AND backend_xid IS NOT NULL AND backend_type = 'client backend'
             ORDER BY xact_start LIMIT 1
            """)
        if oldest.count == 1 {
            facts.oldestTransaction = (oldest[0, 0] ?? "", oldest[0, 1].flatMap { Int($0) } ?? 0, oldest[0, 2] ?? "")
        }
        facts.preparedTransactions = try connection.query(
            "SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database() AND prepared < "
                + "pg_catalog.clock_timestamp() - '1 hour'::interval"
        ).values.map { $0[0] ?? "" }
        return facts
    }

    /// What the server's own check finds.
    private static func settings(_ connection: Connection) throws -> [Finding] {
        guard try connection.query(
            "SELECT pg_catalog.has_function_privilege('bdr.check_settings(text)', 'EXECUTE')")[0, 0] == "t"
        else {
            return []
        }
        return try connection.query("SELECT name, status, detail, hint FROM bdr.check_settings() WHERE status = 'error' "
                + "AND name NOT IN ('max_replication_slots', 'replication origins', 'max_wal_senders')").values.map {
            Finding(.error, "\($0[0] ?? ""): \($0[2] ?? "")", $0[3] ?? "bdrctl check")
        }
    }
}
