// Asks a server about itself: which database this is, and whether it is set up for a node. The same questions go to this
// backend (SPI) and to other servers (libpq).

internal import CHost
internal import Membership

/// Runs one statement somewhere, with text arguments.
typealias Query = (String, [String?]) throws -> Rows

/// What tells one running database from every other, copies of it included.
struct DatabaseIdentity: Equatable {
    var systemIdentifier: String
    var databaseOID: String
    /// When the server was started: two servers started on copies of one data directory differ in it.
    var startTime: String

    static func read(_ query: Query) throws -> DatabaseIdentity {
        let rows = try query(
            """
            SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()), oid,
                   EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time())
              FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
            """, [])
        guard let system = rows[0, 0], let database = rows[0, 1], let start = rows[0, 2] else {
            throw BdrError(SQLSTATE.internalError, "the server did not say which one it is")
        }
        return DatabaseIdentity(systemIdentifier: system, databaseOID: database, startTime: start)
    }
}

enum ServerProbe {
    /// - Parameter peers: nodes that this one will exchange changes with.
    /// - Returns: the settings, and the role that asked.
    static func settings(peers: Int, _ query: Query) throws -> (settings: ServerSettings, role: String) {
        let rows = try query(ServerQuestion.text, [])
        return ServerQuestion.settings(peers: peers) { rows[0, $0] }
    }

    /// Raises the first error among the checks.
    /// - Parameters:
    ///   - subject: how the message names the server, for example "this server".
    ///   - role: that was checked.
    static func refuse(_ checks: [SettingCheck], subject: String, role: String) throws {
        guard let check = checks.first(where: { $0.status == .error }) else {
            return
        }
        switch check.name {
        case "role":
            throw BdrError(
                SQLSTATE.insufficientPrivilege, "role \"\(role)\" may not replicate from \(subject)",
                detail: check.detail, hint: check.hint.map { ServerQuestion.naming(role, in: $0) })
        case "server encodings", "server_encoding", "server versions":
            throw BdrError(
                SQLSTATE.featureNotSupported, "\(subject) can't be a node of this group: \(check.name)",
                detail: check.detail, hint: check.hint)
        default:
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "\(subject) is not set up for a node: \(check.name)",
                detail: check.detail, hint: check.hint)
        }
    }
}

/// Sessions on nodes, for other work than streaming.
enum Session {
    /// Opens a session in which nothing that was set for the database or the role disturbs.
    /// - Parameters:
    ///   - dsn: of a node.
    ///   - who: names the node in messages.
    ///   - replication: replication commands can be given, too.
    ///   - writes: the session may write while the node there is joining.
    /// - Throws: `BdrError` that says who could not be reached.
    static func open(
        dsn: String, _ who: String, replication: Bool = false, writes: Bool = false, timeout: Int32 = 30_000
    ) throws -> Connection {
        do {
            var options = [("fallback_application_name", "bdr"), ("client_encoding", "")]
            options[1].1 = String(cString: bdr_host_encoding_name())
            if replication {
                options.append(("replication", "database"))
            }
            let connection = try Connection(dsn: dsn, options: options, timeout: timeout)
            if writes {
                try connection.query("SET bdr.internal_session = on")
            }
            return connection
        } catch let error as RemoteError {
            throw error.asError("could not connect to \(who)")
        }
    }
}
