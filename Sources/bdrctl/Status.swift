// bdrctl status: nodes, their states, how far behind each is, what went wrong last.

import ArgumentParser
import Glibc
import Membership
import Operations

/// What one node says of itself.
struct NodeReport {
    var member: Member
    /// Why it could not be asked.
    var unreachable: String?
    var state = ""
    var ready: Bool?
    var reason: String?
    /// Streams to the others: target, state, lag in bytes, lag in time, WAL kept for it.
    var slots: [(target: String, state: String, lagBytes: Int?, lag: String?, retained: Int?)] = []
    /// Streams from the others: origin and status.
    var subscriptions: [(origin: String, status: String, error: String?)] = []
    var conflicts: Int?
    var lastError: (time: String, text: String)?

    /// Asks each node, through what `connection` knows of them.
    static func all(_ connection: Connection, only local: Bool = false) throws -> [NodeReport] {
        try Member.all(connection).filter { !local || $0.isLocal }.map { member in
            var report = NodeReport(member: member)
            report.state = member.state
            if member.state == "PARTED" && !member.isLocal {
                return report
            }
            do {
                try report.ask(member.isLocal ? connection : member.open(connectTimeout: 3, timeout: 10))
            } catch let error as PostgresError {
                report.unreachable = error.message
            }
            return report
        }
    }

    private mutating func ask(_ connection: Connection) throws {
        let health = try connection.query("SELECT ready, state, reason FROM bdr.node_health()")
        self.ready = health[0, 0] == "t"
        self.state = health[0, 1] ?? self.state
        self.reason = health[0, 2]
        self.slots = try connection.query(
            """
            SELECT target_name, state, replay_lag_bytes, replay_lag, retained_wal_bytes
              FROM bdr.node_replication_rates ORDER BY 1
            """
        ).values.map { ($0[0] ?? "", $0[1] ?? "", $0[2].flatMap { Int($0) }, $0[3], $0[4].flatMap { Int($0) }) }
        self.subscriptions = try connection.query(
            """
            SELECT s.origin_name, s.subscription_status,
                   CASE WHEN s.subscription_status IN ('error', 'down') THEN w.last_error_message END
              FROM bdr.subscription_summary s
              LEFT JOIN bdr.show_subscription_status() w ON w.peer = s.origin_id ORDER BY 1
            """
        ).values.map { ($0[0] ?? "", $0[1] ?? "", $0[2]) }
        self.conflicts = try connection.query("SELECT COALESCE(sum(nconflicts), 0) FROM (SELECT nconflict AS nconflicts FROM bdr.stat_conflicts) c")[0, 0].flatMap { Int($0) }
        let errors = try connection.query(
            """
            SELECT pg_catalog.to_char(error_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
                   pg_catalog.concat_ws(' ', worker_role_name, origin_name || ':', error_message)
              FROM bdr.worker_errors ORDER BY error_time DESC LIMIT 1
            """)
        if errors.count > 0 {
            self.lastError = (errors[0, 0] ?? "", oneLine(errors[0, 1] ?? ""))
        }
    }

    var json: JSON {
        .object([
            ("node", .string(self.member.name)), ("node_id", .integer(self.member.id)), ("state", .string(self.state)),
            ("reachable", .bool(self.unreachable == nil)), ("error", .text(self.unreachable)),
            ("ready", self.ready.map { .bool($0) } ?? .null), ("reason", .text(self.reason)),
            (
                "sends_to",
                .array(
                    self.slots.map {
                        .object([
                            ("node", .string($0.target)), ("state", .string($0.state)),
                            ("lag_bytes", $0.lagBytes.map { .number($0) } ?? .null), ("lag", .text($0.lag)),
                            ("retained_wal_bytes", $0.retained.map { .number($0) } ?? .null),
                        ])
                    })
            ),
            (
                "receives_from",
                .array(
                    self.subscriptions.map {
                        .object([("node", .string($0.origin)), ("status", .string($0.status)), ("error", .text($0.error))])
                    })
            ),
            ("conflicts", self.conflicts.map { .number($0) } ?? .null),
            (
                "last_error",
                self.lastError.map { .object([("time", .string($0.time)), ("message", .string($0.text))]) } ?? .null
            ),
        ])
    }
}

struct Status: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Shows the nodes of the group: state, lag, slots, conflicts, last errors.",
        discussion: """
            Each node is asked itself, by the connection string that the group has for it. Exit code 1 when one that is not \
            parted can't be reached or is not ready.
            """)

    @OptionGroup var node: NodeOption
    @Flag(help: "Print JSON, one line.") var json = false
    @Flag(help: "Ask only the node that --dsn leads to.") var local = false
    @Flag(help: "Show it again and again.") var watch = false
    @Option(help: "Seconds between two looks with --watch.") var interval = 2.0
    @Option(help: ArgumentHelp("With --watch, end after so many looks.", visibility: .hidden)) var count: Int?

    func validate() throws {
        guard self.interval >= 0.1, self.interval <= 3600 else {
            throw ValidationError("--interval has to be from 0.1 to 3600")
        }
    }

    func run() throws {
        var connection = try self.node.openNode()
        var looks = 0
        while true {
            if self.watch && !connection.isOpen {
                connection = try self.node.openNode()
            }
            let reports = try NodeReport.all(connection, only: self.local)
            if self.watch && onTerminal && !self.json {
                print("\u{1B}[H\u{1B}[2J", terminator: "")
            }
            self.show(try self.group(connection), reports)
            flushOutput()
            looks += 1
            guard self.watch, looks < self.count ?? Int.max else {
                if reports.contains(where: { $0.state != "PARTED" && $0.ready != true }) {
                    throw ExitCode(ExitCodes.no)
                }
                return
            }
            pause(self.interval)
        }
    }

    private func group(_ connection: Connection) throws -> String? {
        try connection.query("SELECT node_group_name FROM bdr.local_node_summary")[0, 0]
    }

    private func show(_ group: String?, _ reports: [NodeReport]) {
        if self.json {
            print(JSON.object([("group", .text(group)), ("nodes", .array(reports.map(\.json)))]).rendered())
            return
        }
        print("Group \(group ?? "(none)")\n")
        var nodes = TextTable(["node", "id", "state", "ready", "conflicts", "remarks"])
        for report in reports {
            nodes.rows.append([
                report.member.name, report.member.id, report.state, report.ready.map { $0 ? "yes" : "no" } ?? "-",
                report.conflicts.map { "\($0)" } ?? "-",
                report.unreachable.map { "unreachable: " + oneLine($0) } ?? (report.ready == true ? "" : report.reason ?? ""),
            ])
        }
        print(nodes.rendered())
        var streams = TextTable(["from", "to", "sends", "receives", "lag", "time", "WAL kept", "error"])
        for report in reports where report.unreachable == nil {
            for slot in report.slots {
                let other = reports.first { $0.member.name == slot.target }
                let receiving = other?.subscriptions.first { $0.origin == report.member.name }
                streams.rows.append([
                    report.member.name, slot.target, slot.state, receiving?.status ?? "-",
                    slot.lagBytes.map(readableSize) ?? "-", slot.lag.map { String($0.prefix(12)) } ?? "-",
                    slot.retained.map(readableSize) ?? "-", receiving?.error.map { oneLine($0) } ?? "",
                ])
            }
        }
        if !streams.rows.isEmpty {
            print("\n" + streams.rendered())
        }
        let errors = reports.filter { $0.lastError != nil }
        if !errors.isEmpty {
            print("\nLast errors (they may be over):")
            for report in errors {
                print("  \(report.member.name)  \(report.lastError?.time ?? "")  \(report.lastError?.text ?? "")")
            }
        }
    }
}
