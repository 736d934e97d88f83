// bdrctl compare: are the rows of tables the same on two or more nodes?

import ArgumentParser
import Glibc
import Membership
import Operations

struct Compare: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Compares the rows of tables on all nodes, and prints the keys of those that differ.",
        discussion: """
            Tables are read in ranges of their primary keys, a short statement each; each node gives a checksum, and only \
            where these differ, keys. While the group is written to, rows differ for a moment: those that do are looked at \
            again until they are the same, or --settle seconds have passed. With --state a comparison that was cut off goes on \
            where it was. Tables without a primary key are compared as a whole.

            Exit code 0: all rows are the same; 1: some differ; 2: it could not be found out.
            """)

    @OptionGroup var node: NodeOption
    @Argument(help: "Tables, as schema.table; else all that are replicated.") var tables: [String] = []
    @Option(help: "Compare with this node only; more than once. Else with all active nodes.") var with: [String] = []
    @Option(help: "Rows in a range.") var chunk = 10_000
    @Option(help: "Rows read a second on each node, at most; 0: no limit.") var rate = 100_000
    @Option(help: "Seconds in which rows have to become the same.") var settle = 10.0
    @Option(help: "File that keeps how far the comparison is.") var state: String?
    @Option(help: "Print at most so many keys of a table.") var limit = 100
    @Flag(help: "Print JSON, a line for each table.") var json = false
    @Option(help: ArgumentHelp("End after so many ranges, as if cut off.", visibility: .hidden)) var stopAfter: Int?

    func validate() throws {
        guard (1...1_000_000).contains(self.chunk), self.rate >= 0, self.settle >= 0, self.settle <= 3600, self.limit >= 0 else {
            throw ValidationError("--chunk has to be from 1 to 1000000, --settle from 0 to 3600; --rate and --limit not negative")
        }
    }

    func run() throws {
        let first = try self.node.openNode(timeout: 600)
        let members = try Member.all(first)
        guard let local = members.first(where: \.isLocal) else {
            throw Failure("the node does not know itself")
        }
        var others: [(name: String, connection: Connection)] = []
        for name in self.with where !members.contains(where: { $0.name == name && !$0.isLocal }) {
            throw Failure("the group has no other node \"\(name)\"", hint: "See bdrctl status.")
        }
        for member in members where !member.isLocal && (self.with.isEmpty ? member.state == "ACTIVE" : self.with.contains(member.name)) {
            do {
                others.append((member.name, try member.open(timeout: 600)))
            } catch let error as PostgresError {
                throw Failure(error, "could not connect to \(member.name): ")
            }
        }
        guard !others.isEmpty else {
            throw Failure("there is no other active node to compare with")
        }
        for connection in [first] + others.map(\.connection) {
            try Self.prepare(connection)
        }
        let names = [local.name] + others.map(\.name)
        var state = CompareState(nodes: names)
        if let path = self.state, access(path, F_OK) == 0 {
            state = try CompareState(parsing: try readFile(path))
            guard state.nodes == names else {
                throw Failure(
                    "\(path) is of a comparison of other nodes: \(state.nodes.joined(separator: ", "))",
                    hint: "Remove it, or give another --state.")
            }
        }
        var work = CompareWork(command: self, first: (local.name, first), others: others, state: state)
        for table in try self.wanted(first) {
            try work.compare(table)
        }
        if let path = self.state {
            unlink(path)
        }
        if work.state.done.values.contains(where: { $0 > 0 }) {
            throw ExitCode(ExitCodes.no)
        }
    }

    /// Values have to come out as the same text everywhere, and nothing is to be waited for long.
    static func prepare(_ connection: Connection) throws {
        for setting in [
            "DateStyle = 'ISO'", "IntervalStyle = 'postgres'", "TimeZone = 'UTC'", "extra_float_digits = 1",
            "bytea_output = 'hex'", "xmloption = 'content'", "search_path = pg_catalog", "row_security = off",
            "lock_timeout = '60s'", "default_transaction_read_only = on", "max_parallel_workers_per_gather = 0",
        ] {
            try connection.query("SET \(setting)")
        }
    }

    /// The tables, with their columns and keys.
    private func wanted(_ connection: Connection) throws -> [CompareTable] {
        let rows = try connection.query(
            """
            SELECT n.nspname, c.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
                   pg_catalog.array_position(i.indkey::int2[], a.attnum)
              FROM pg_catalog.pg_class c
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary
              LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_'
               AND n.nspname NOT IN ('information_schema', 'bdr')
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass
                                  AND d.objid = c.oid AND d.deptype = 'e')
               AND ($1 = '' OR c.oid = ANY (ARRAY(
                   SELECT t.relid FROM pg_catalog.unnest(pg_catalog.string_to_array($1, E'\\x01')) w,
                          LATERAL (SELECT pg_catalog.to_regclass(w) AS relid
                                   UNION ALL SELECT p.relid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass(w)) p) t)))
             ORDER BY 1, 2, a.attnum
            """, [self.tables.joined(separator: "\u{1}")])
        var result: [CompareTable] = []
        var keys: [(place: Int, column: CompareColumn)] = []
        func endTable() {
            if !result.isEmpty {
                result[result.count - 1].key = keys.sorted { $0.place < $1.place }.map(\.column)
            }
            keys = []
        }
        for row in rows.values {
            let schema = row[0] ?? ""
            let name = row[1] ?? ""
            if result.last?.schema != schema || result.last?.name != name {
                endTable()
                result.append(CompareTable(schema: schema, name: name, columns: [], key: []))
            }
            if let column = row[2], let type = row[3] {
                let column = CompareColumn(name: column, type: type)
                result[result.count - 1].columns.append(column)
                if let place = row[4].flatMap({ Int($0) }) {
                    keys.append((place, column))
                }
            }
        }
        endTable()
        for table in self.tables {
            guard try connection.query("SELECT pg_catalog.to_regclass($1)", [table])[0, 0] != nil else {
                throw Failure("there is no table \(table)", hint: "Write it with its schema: public.\(table)")
            }
        }
        return result
    }
}

/// A comparison under way.
private struct CompareWork {
    let command: Compare
    let first: (name: String, connection: Connection)
    let others: [(name: String, connection: Connection)]
    var state: CompareState
    private var ranges = 0

    init(
        command: Compare, first: (name: String, connection: Connection), others: [(name: String, connection: Connection)],
        state: CompareState
    ) {
        self.command = command
        self.first = first
        self.others = others
        self.state = state
    }

    private func store() throws {
        if let path = self.command.state {
            try writeFile(path, self.state.rendered(), mode: 0o600)
        }
    }

    mutating func compare(_ table: CompareTable) throws {
        if self.state.done[table.qualified] != nil {
            return
        }
        var differing = 0
        var after: [String]?
        if self.state.table == table.qualified, self.state.after.count == table.key.count {
            differing = self.state.differing
            after = self.state.after
        }
        var rows = 0
        if table.key.isEmpty {
            (differing, rows) = try self.whole(table)
        } else {
            while true {
                let began = now()
                let (statement, arguments) = table.boundary(after: after, rows: self.command.chunk)
                let edge = try self.first.connection.query(statement, arguments)
                let upto = edge.count == 1 ? edge.values[0].compactMap { $0 } : nil
                let (count, found) = try self.range(table, after: after, upto: upto, shown: differing)
                rows += count
                differing += found
                guard let upto else {
                    break
                }
                after = upto
                self.state.table = table.qualified
                self.state.after = upto
                self.state.differing = differing
                try self.store()
                self.ranges += 1
                if let stop = self.command.stopAfter, self.ranges >= stop {
                    throw Failure("stopped after \(stop) ranges", hint: "Give the command again with the same --state.")
                }
                if self.command.rate > 0 {
                    pause(Double(count) / Double(self.command.rate) - (now() - began))
                }
            }
        }
        self.state.done[table.qualified] = differing
        self.state.table = nil
        self.state.after = []
        self.state.differing = 0
        try self.store()
        if self.command.json {
            print(
                JSON.object([
                    ("table", .string(table.qualified)), ("rows", .number(rows)), ("differing", .number(differing)),
                    ("nodes", .array(([self.first.name] + self.others.map(\.name)).map { .string($0) })),
                ]).rendered())
        } else {
            print("\(table.qualified): \(rows) rows, " + (differing == 0 ? "the same" : "\(differing) differ"))
        }
        flushOutput()
    }

    /// - Returns: number of rows on the first node, and how many differ on some node.
    private func range(_ table: CompareTable, after: [String]?, upto: [String]?, shown: Int) throws -> (count: Int, differing: Int) {
        let (statement, arguments) = table.checksum(after: after, upto: upto)
        let mine = try self.first.connection.query(statement, arguments)
        var differing = 0
        for other in self.others {
            let theirs: Rows
            do {
                theirs = try other.connection.query(statement, arguments)
            } catch let error as PostgresError where error.sqlstate.hasPrefix("42") {
                throw Failure(error, "\(table.qualified) can't be compared with \(other.name): ")
            }
            if theirs.values == mine.values {
                continue
            }
            let (list, listArguments) = table.rows(after: after, upto: upto)
            func digests(_ connection: Connection) throws -> [RowDigest] {
                try connection.query(list, listArguments).values.map {
                    RowDigest(key: $0[0] ?? "", digest: $0[1] ?? "", values: $0.dropFirst(2).map { $0 ?? "" })
                }
            }
            let found = differences(try digests(self.first.connection), try digests(other.connection))
            for difference in try self.settled(table, found, with: other.connection) {
                differing += 1
                if shown + differing <= self.command.limit {
                    self.show(table, difference, other.name)
                }
            }
        }
        return (mine[0, 0].flatMap { Int($0) } ?? 0, differing)
    }

    /// Those that still differ after a while.
    private func settled(_ table: CompareTable, _ found: [RowDifference], with other: Connection) throws -> [RowDifference] {
        var left = found
        let end = now() + self.command.settle
        while !left.isEmpty {
            var still: [RowDifference] = []
            for difference in left {
                let (statement, arguments) = table.row(key: difference.values)
                let mine = try self.first.connection.query(statement, arguments)[0, 0]
                let theirs = try other.query(statement, arguments)[0, 0]
                guard mine != theirs else {
                    continue
                }
                var now = difference
                now.kind = mine == nil ? .onlySecond : theirs == nil ? .onlyFirst : .changed
                still.append(now)
            }
            left = still
            guard !left.isEmpty, now() < end else {
                break
            }
            pause(min(0.5, max(0.05, end - now())))
        }
        return left
    }

    private func show(_ table: CompareTable, _ difference: RowDifference, _ other: String) {
        let what =
            switch difference.kind {
            case .onlyFirst: "only on \(self.first.name), not on \(other)"
            case .onlySecond: "only on \(other), not on \(self.first.name)"
            case .changed: "differs between \(self.first.name) and \(other)"
            }
        if self.command.json {
            print(
                JSON.object([
                    ("table", .string(table.qualified)), ("key", .array(difference.values.map { .string($0) })),
                    ("difference", .string("\(difference.kind)")), ("node", .string(other)),
                ]).rendered())
        } else {
            let key = zip(table.key, difference.values).map { "\($0.name)=\($1)" }.joined(separator: ", ")
            print("\(table.qualified) \(key): \(what)")
        }
    }

    /// A table without a key: number of rows and checksum of all.
    private func whole(_ table: CompareTable) throws -> (differing: Int, rows: Int) {
        let (statement, arguments) = table.checksum(after: nil, upto: nil)
        let end = now() + self.command.settle
        while true {
            let mine = try self.first.connection.query(statement, arguments)
            let count = mine[0, 0].flatMap { Int($0) } ?? 0
            var bad: [String] = []
            for other in self.others {
                let theirs = try other.connection.query(statement, arguments)
                if theirs.values != mine.values {
                    bad.append("\(theirs[0, 0] ?? "0") rows on \(other.name)")
                }
            }
            if bad.isEmpty {
                return (0, count)
            }
            guard now() < end else {
                print(
                    "\(table.qualified) (no primary key, so no keys to show): \(count) rows on \(self.first.name), "
                        + bad.joined(separator: ", ") + "; the contents differ")
                return (bad.count, count)
            }
            pause(0.5)
        }
    }
}
