// bdrctl check: is a server ready to become a node?

import ArgumentParser
import Membership
import Operations

struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Checks a server before its database becomes a node, and says what to type.",
        discussion: "Neither the extension nor a node has to be there. Nothing is changed.")

    @OptionGroup var node: NodeOption
    @Option(help: "Connection string of a member of the group that the database is to join: both have to suit one another.")
    var target: String?
    @Option(help: "Nodes that the group will have, this one included.")
    var nodes = 2
    @Flag(help: "Print JSON.") var json = false

    func validate() throws {
        guard (1...1000).contains(self.nodes) else {
            throw ValidationError("--nodes has to be from 1 to 1000")
        }
    }

    func run() throws {
        let connection = try self.node.open()
        let here = try Self.ask(connection, peers: self.nodes - 1)
        var checks = Self.checks(here)
        checks += try Self.database(connection, joining: self.target != nil)
        if let target = self.target {
            do {
                let other = try Connection(
                    target, description: "the join target", override: [("replication", "database")])
                // a replication connection takes simple statements only
                let rows = try other.command(ServerQuestion.text)
                let there = ServerQuestion.settings(peers: self.nodes - 1) { rows[0, $0] }
                checks.append(
                    SettingCheck(name: "target", status: .ok, detail: "A replication connection to the target works."))
                checks += Self.checks(there).map {
                    SettingCheck(name: "target: " + $0.name, status: $0.status, detail: $0.detail, hint: $0.hint)
                }
                checks += checkPair(joining: here.settings, target: there.settings)
            } catch let error as PostgresError {
                checks.append(
                    SettingCheck(
                        name: "target", status: .error, detail: "A replication connection to the target failed: \(error.message)",
                        hint: "Check host and port, and permit the user in the target's pg_hba.conf, for its database."))
            }
        }
        if self.json {
            print(
                JSON.array(
                    checks.map {
                        .object([
                            ("name", .string($0.name)), ("status", .string("\($0.status)")), ("detail", .string($0.detail)),
                            ("hint", .text($0.hint)),
                        ])
                    }
                ).rendered())
        } else {
            var table = TextTable(["check", "status", "found"])
            table.rows = checks.map { [$0.name, "\($0.status)", $0.detail] }
            print(table.rendered())
            let fixes = checks.filter { $0.hint != nil }
            if !fixes.isEmpty {
                print("\nWhat to do:")
                for check in fixes {
                    print("  \(check.name): \(check.hint ?? "")")
                }
            }
        }
        if checks.contains(where: { $0.status == .error }) {
            throw ExitCode(ExitCodes.no)
        }
    }

    private static func ask(_ connection: Connection, peers: Int) throws -> (settings: ServerSettings, role: String) {
        let rows = try connection.query(ServerQuestion.text)
        return ServerQuestion.settings(peers: peers) { rows[0, $0] }
    }

    private static func checks(_ server: (settings: ServerSettings, role: String)) -> [SettingCheck] {
        checkSettings(server.settings).map { check in
            var check = check
            if check.name == "role" {
                check.hint = check.hint.map { ServerQuestion.naming(server.role, in: $0) }
            }
            // create_node sees to this for a superuser, and nobody else can
            if check.name == "output_plugin_libraries" && check.status == .error && server.settings.isSuperuser {
                check.status = .ok
                check.detail += " bdr.create_node will add bdr for this database."
                check.hint = nil
            }
            return check
        }
    }

    /// What only the database itself tells.
    private static func database(_ connection: Connection, joining: Bool) throws -> [SettingCheck] {
        var checks: [SettingCheck] = []
        let rows = try connection.query(
            """
            SELECT (SELECT a.default_version FROM pg_catalog.pg_available_extensions() a WHERE a.name = 'bdr'),
                   pg_catalog.pg_is_in_recovery(),
                   (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c
                      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                     WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'bdr')
                       AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass
                                          AND d.objid = c.oid AND d.deptype = 'e')),
                   (SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I', n.nspname, c.relname), ', ' ORDER BY 1)
                      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                     WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_'
                       AND n.nspname NOT IN ('information_schema', 'bdr') AND c.relreplident = 'd'
                       AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
                       AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass
                                          AND d.objid = c.oid AND d.deptype = 'e'))
            """)
        if let version = rows[0, 0] {
            checks.append(SettingCheck(name: "extension", status: .ok, detail: "Extension bdr \(version) is installed."))
        } else {
            checks.append(
                SettingCheck(
                    name: "extension", status: .error, detail: "Extension bdr is not installed on this server.",
                    hint: "make && sudo make install, in the sources of bdr, with PG_CONFIG of this server."))
        }
        if rows[0, 1] == "t" {
            checks.append(
                SettingCheck(
                    name: "recovery", status: .error, detail: "The server is a standby.",
                    hint: "Use the primary, or promote this one: SELECT pg_promote();"))
        }
        let tables = Int(rows[0, 2] ?? "") ?? 0
        if joining && tables > 0 {
            checks.append(
                SettingCheck(
                    name: "empty database", status: .warning,
                    detail: "The database has \(tables) tables; a join that copies the structure needs an empty one.",
                    hint: "Use a new database, or empty tables of the same structure and bdrctl join --structure none."))
        }
        if let names = rows[0, 3] {
            checks.append(
                SettingCheck(
                    name: "primary keys", status: .warning, detail: "Without a primary key: \(names).",
                    hint: "UPDATE and DELETE are refused there. ALTER TABLE ... ADD PRIMARY KEY (...);  or: "
                        + "ALTER TABLE ... REPLICA IDENTITY FULL;"))
        }
        return checks
    }
}
