// bdrctl init, join and part: the steps of the guide, with what is happening meanwhile.

import ArgumentParser
import Membership
import Operations

/// What `init` and `join` share.
struct NewNode: ParsableArguments {
    @Option(help: "Name of the new node.") var name: String
    @Option(help: "Connection string by which other nodes, and the server itself, connect to the database; else what --dsn says.")
    var localDsn: String?

    /// Creates extension and node where they are not there yet, so that a command that was cut off can be given again.
    /// - Returns: the state of the node.
    func create(_ connection: Connection, dsn: String, target: String?) throws -> String {
        let local = self.localDsn ?? dsn
        guard !local.isEmpty else {
            throw Failure(
                "how do the other nodes connect to this database?",
                hint: "Give a whole connection string: --dsn 'host=... dbname=... user=...', or --local-dsn.")
        }
        if try connection.query("SELECT FROM pg_catalog.pg_extension WHERE extname = 'bdr'").count == 0 {
            try connection.query("CREATE EXTENSION bdr CASCADE")
            print("created extension bdr")
        }
        let there = try connection.query("SELECT node_name, peer_state_name FROM bdr.local_node_summary")
        if there.count == 1 {
            guard there[0, 0] == self.name else {
                throw Failure("this database is node \"\(there[0, 0] ?? "")\" already", code: ExitCodes.no)
            }
            print("the database is node \(self.name) already")
            // one that was parted becomes a node anew
            guard there[0, 1] == "PARTED" else {
                return there[0, 1] ?? ""
            }
        }
        try connection.query("SELECT bdr.create_node($1, $2)", [self.name, local])
        print("created node \(self.name)")
        return "CREATED"
    }
}

struct Init: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Makes a database the first node of a new group.",
        discussion: "What is done already is left as it is, so the command can be given again.")

    @OptionGroup var node: NodeOption
    @OptionGroup var new: NewNode
    @Option(help: "Name of the new group.") var group: String

    func run() throws {
        let connection = try self.node.open()
        if try self.new.create(connection, dsn: self.node.dsn, target: nil) == "CREATED" {
            try connection.query("SELECT bdr.create_node_group($1)", [self.group])
            print("created group \(self.group)")
        }
        try connection.query("SELECT bdr.wait_for_join_completion()")
        print("node \(self.new.name) is active")
    }
}

struct Join: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Lets a database join the group of another node, and shows how far it is.",
        discussion: """
            If the command is cut off the join goes on; given again, the command shows it. To give a join up: bdrctl part.
            """)

    @OptionGroup var node: NodeOption
    @OptionGroup var new: NewNode
    @Option(help: "Connection string of a member of the group, as this server reaches it.") var target: String
    @Option(help: "What is copied: all, or none: tables are there already, and empty.") var structure = "all"
    @Flag(help: "Return when the join has begun.") var noWait = false

    func validate() throws {
        guard ["all", "none"].contains(self.structure) else {
            throw ValidationError("--structure has to be all or none")
        }
    }

    func run() throws {
        let connection = try self.node.open()
        let state = try self.new.create(connection, dsn: self.node.dsn, target: self.target)
        if state == "ACTIVE" {
            print("node \(self.new.name) is active")
            return
        }
        let begun = try connection.query("SELECT FROM bdr.join_progress WHERE step NOT IN ('failed', 'active')").count > 0
        if !begun {
            try connection.query(
                "SELECT bdr.join_node_group($1, wait_for_completion := false, synchronize_structure := $2)",
                [self.target, self.structure], timeout: 300)
            print("the join has begun")
        }
        if self.noWait {
            return
        }
        try self.follow(connection)
    }

    /// Shows the join until it has ended.
    private func follow(_ first: Connection) throws {
        var connection = first
        var seen = 0
        var shownBar = ""
        while true {
            do {
                if !connection.isOpen {
                    connection = try self.node.open()
                }
                let lines = try connection.query(
                    "SELECT line_number, line FROM bdr.join_progress_line WHERE line_number > $1::int ORDER BY 1", ["\(seen)"])
                let joined = try connection.query(
                    "SELECT p.step, l.peer_state_name, p.error_sqlstate, p.error_message, p.error_detail, p.error_hint "
                        + "FROM bdr.join_progress p, bdr.local_node_summary l")
                let bar = try Self.bar(connection)
                if !shownBar.isEmpty && onTerminal {
                    print("\r\u{1B}[K", terminator: "")
                }
                for row in 0..<lines.count {
                    seen = lines[row, 0].flatMap { Int($0) } ?? seen
                    print(lines[row, 1] ?? "")
                }
                if onTerminal {
                    print(bar, terminator: "")
                } else if bar != shownBar && !bar.isEmpty {
                    print(bar)
                }
                flushOutput()
                shownBar = bar
                switch (joined[0, 0], joined[0, 1]) {
                case ("failed", _):
                    throw Failure(
                        "the join was given up: \(joined[0, 3] ?? "") (SQLSTATE \(joined[0, 2] ?? ""))", detail: joined[0, 4],
                        hint: joined[0, 5], code: ExitCodes.no)
                case (_, "ACTIVE"):
                    print("node \(self.new.name) is active")
                    return
                default:
                    break
                }
            } catch let error as PostgresError where error.isConnectionFailure {
                printError("bdrctl: lost the connection, the join goes on by itself: \(error.message)")
                pause(1)
            }
            pause(0.3)
        }
    }

    /// How far the copy is; empty before it begins.
    private static func bar(_ connection: Connection) throws -> String {
        let rows = try connection.query(
            """
            SELECT count(*), count(*) FILTER (WHERE phase IN ('done', 'indexes')),
                   COALESCE(sum(GREATEST(size_on_target, 1) * percent) / sum(GREATEST(size_on_target, 1)), 0)::int,
                   sum(rows_copied), sum(bytes_copied)
              FROM bdr.join_table_progress
            """)
        guard let tables = rows[0, 0].flatMap({ Int($0) }), tables > 0 else {
            return ""
        }
        return progressBar(percent: rows[0, 2].flatMap { Int($0) } ?? 0)
            + "  \(rows[0, 1] ?? "0") of \(tables) tables, \(rows[0, 3] ?? "0") rows, "
            + readableSize(rows[0, 4].flatMap { Int($0) } ?? 0)
    }
}

struct Part: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Takes a node out of its group.",
        discussion: "--dsn leads to another node that is active, or to the node itself to give up its join.")

    @OptionGroup var node: NodeOption
    @Argument(help: "Name of the node to part.") var name: String
    @Flag(help: "For a node that is down for good: what it sent to nobody is lost.") var force = false
    @Flag(help: "Return when the request is stored.") var noWait = false
    @Option(help: "Seconds to wait.") var timeout = 3600.0

    func run() throws {
        let connection = try self.node.openNode()
        guard let state = try connection.query(
            "SELECT peer_state_name FROM bdr.node_summary WHERE node_name = $1", [self.name])[0, 0]
        else {
            throw Failure("the group has no node \"\(self.name)\"", hint: "See bdrctl status.")
        }
        if state == "PARTED" {
            print("node \(self.name) is parted already")
            return
        }
        try connection.query(
            "SELECT bdr.part_node($1, wait_for_completion := false, force := $2::bool)", [self.name, "\(self.force)"])
        if self.noWait {
            print("the parting of \(self.name) is requested")
            return
        }
        let end = now() + self.timeout
        var shown: String?
        while true {
            let rows = try connection.query(
                """
                SELECT (SELECT peer_state_name FROM bdr.node_summary WHERE node_name = $1),
                       (SELECT pg_catalog.concat_ws(': ', step, progress) FROM bdr.part_progress WHERE node_name = $1),
                       (SELECT peer_state_name FROM bdr.local_node_summary WHERE node_name = $1)
                """, [self.name])
            if rows[0, 0] == "PARTED" || rows[0, 2] == "CREATED" {
                print("node \(self.name) is parted")
                return
            }
            if let progress = rows[0, 1], progress != shown {
                shown = progress
                print(progress)
                flushOutput()
            }
            guard now() < end else {
                throw Failure(
                    "node \(self.name) is not parted yet, after \(Int(self.timeout)) s", detail: shown,
                    hint: "The parting goes on. If the node is down for good: bdrctl part \(self.name) --force")
            }
            pause(0.3)
        }
    }
}
