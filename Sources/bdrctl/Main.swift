// bdrctl: what an operator of a group does, as one program. It speaks SQL to the nodes, and the languages of HAProxy and
// PgBouncer to the poolers.

import ArgumentParser
import Glibc
import Membership
import Operations

@main
struct BDRControl: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bdrctl",
        abstract: "Operates groups of bdr nodes.",
        discussion: """
            Where no --dsn is given, PGHOST, PGPORT, PGUSER, PGDATABASE and PGSERVICE lead to the node, as with psql.

            Exit codes: 0 done, or all is well; 1 the answer is no: checks failed, rows differ, a node is not ready, \
            something is wrong; 2 it could not be done or found out; 3 a switchover was refused or called back, traffic is \
            where it was; 4 a switchover ended half-way, and the message says what to do; 64 wrong arguments.
            """,
        version: "bdrctl 1.0.0",
        subcommands: [
            Check.self, Init.self, Join.self, Status.self, Part.self, Switchover.self, HAConfigCommand.self, Health.self,
            Agent.self, Compare.self, Doctor.self, MetricsCommand.self,
        ])

    static func main() {
        signal(SIGPIPE, SIG_IGN)
        do {
            var command = try Self.parseAsRoot()
            try command.run()
            flushOutput()
        } catch let failure as Failure {
            printError("bdrctl: \(failure.message)")
            if let detail = failure.detail {
                printError("DETAIL: \(detail)")
            }
            if let hint = failure.hint {
                printError("HINT: \(hint)")
            }
            Glibc.exit(failure.code)
        } catch let error as PostgresError {
            let failure = Failure(error)
            printError("bdrctl: \(failure.message)")
            if let detail = failure.detail {
                printError("DETAIL: \(detail)")
            }
            if let hint = failure.hint {
                printError("HINT: \(hint)")
            }
            Glibc.exit(ExitCodes.failed)
        } catch let error as OperationsError {
            printError("bdrctl: \(error.message)")
            Glibc.exit(ExitCodes.failed)
        } catch {
            self.exit(withError: error)
        }
    }
}

enum ExitCodes {
    static let no: Int32 = 1
    static let failed: Int32 = 2
    static let refused: Int32 = 3
    static let halfWay: Int32 = 4
}

/// Ends the program with a message.
struct Failure: Error {
    var message: String
    var detail: String?
    var hint: String?
    var code: Int32

    init(_ message: String, detail: String? = nil, hint: String? = nil, code: Int32 = ExitCodes.failed) {
        self.message = message
        self.detail = detail
        self.hint = hint
        self.code = code
    }

    init(_ error: PostgresError, _ prefix: String = "", code: Int32 = ExitCodes.failed) {
        self.message = prefix + error.message + (error.sqlstate.isEmpty ? "" : " (SQLSTATE \(error.sqlstate))")
        self.detail = error.detail
        self.hint = error.hint
        self.code = code
    }
}

func printError(_ text: String) {
    flushOutput()
    let bytes = Array((text + "\n").utf8)
    _ = write(STDERR_FILENO, bytes, bytes.count)
}

/// Where the node is.
struct NodeOption: ParsableArguments {
    @Option(name: [.short, .long], help: "Connection string of the node (libpq's keywords or a URI).")
    var dsn = ""

    func open(timeout: Double = 60) throws -> Connection {
        do {
            return try Connection(self.dsn, description: "the node", timeout: timeout)
        } catch let error as PostgresError {
            throw Failure(error, "could not connect: ")
        }
    }

    /// A connection to a database that is a node.
    func openNode(timeout: Double = 60) throws -> Connection {
        let connection = try self.open(timeout: timeout)
        try requireExtension(connection)
        guard try connection.query("SELECT FROM bdr.local_node_summary").count == 1 else {
            throw Failure(
                "this database is no node", hint: "Make it one: bdrctl init, or bdrctl join.", code: ExitCodes.no)
        }
        return connection
    }
}

func requireExtension(_ connection: Connection) throws {
    guard try connection.query("SELECT FROM pg_catalog.pg_extension WHERE extname = 'bdr'").count == 1 else {
        throw Failure(
            "extension bdr is not in this database", hint: "CREATE EXTENSION bdr CASCADE;  or bdrctl init, bdrctl join.",
            code: ExitCodes.no)
    }
}

/// Is standard output a terminal?
var onTerminal: Bool {
    isatty(STDOUT_FILENO) == 1
}

/// A node of the group and how it is reached.
struct Member {
    var id: String
    var name: String
    var state: String
    var dsn: String?
    var isLocal: Bool

    /// All nodes that a node knows. Connection strings only for those who may read them.
    static func all(_ connection: Connection) throws -> [Member] {
        let mayRead = try connection.query(
            "SELECT pg_catalog.has_table_privilege('bdr.node_interface', 'SELECT')")[0, 0] == "t"
        let dsn = mayRead
            ? "(SELECT i.if_dsn FROM bdr.node_interface i WHERE i.node_id = n.node_id LIMIT 1)" : "NULL"
        let rows = try connection.query(
            """
            SELECT n.node_id, n.node_name, bdr.peer_state_name(n.node_state), \(dsn),
                   n.node_id = (SELECT l.node_id FROM bdr.local_node_summary l)
              FROM bdr.node n ORDER BY n.node_id
            """)
        return rows.values.map {
            Member(
                id: $0[0] ?? "", name: $0[1] ?? "", state: $0[2] ?? "", dsn: $0[3], isLocal: $0[4] == "t")
        }
    }

    func open(connectTimeout: Double = 5, timeout: Double = 60) throws -> Connection {
        guard let dsn = self.dsn else {
            throw PostgresError(
                sqlstate: "42501", message: "the connection string of \(self.name) can't be read",
                hint: "Connect as a member of bdr_superuser.")
        }
        return try Connection(dsn, description: "node \(self.name)", connectTimeout: connectTimeout, timeout: timeout)
    }
}
