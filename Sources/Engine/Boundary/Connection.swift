// A libpq connection to another node (or back to this one), waiting on the process latch so that cancel, shutdown and DROP
// DATABASE are answered while a peer is silent.

internal import CHost
internal import Membership

/// Settings of every session that bdr opens. They are sent with the connection, so that they hold before the first statement:
/// what ALTER SYSTEM, DATABASE or ROLE say may stop that one already (statement_timeout), or change what it means.
enum SessionSettings {
    private static let list: [(name: String, value: String)] = [
        ("search_path", ""), ("statement_timeout", "0"), ("lock_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"), ("idle_session_timeout", "0"), ("exit_on_error", "off"),
        ("default_transaction_isolation", "read committed"), ("default_transaction_read_only", "off"),
        ("default_transaction_deferrable", "off"), ("DateStyle", "ISO,YMD"), ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"), ("extra_float_digits", "3"), ("bytea_output", "hex"), ("xmloption", "content"),
        ("row_security", "on"), ("array_nulls", "on"), ("standard_conforming_strings", "on"),
        ("transform_null_equals", "off"), ("quote_all_identifiers", "off"), ("synchronous_commit", "on"),
        ("client_min_messages", "warning"), ("bdr.crdt_raw_value", "on"),
    ]

    /// The value of libpq's keyword `options` for a connection string: what the string says itself, then ours.
    /// - Parameter further: settings of this session, as "name=value" without spaces.
    /// - Throws: `MembershipError` when libpq would not accept the string.
    static func options(for dsn: String, further: [String] = []) throws -> String {
        let given = try DSN.parse(dsn).last { $0.key == "options" }?.value
        let ours = self.list.map { "-c \($0.name)=\(self.escaped($0.value))" } + further.map { "-c \($0)" }
        return ([given].compactMap { $0 } + ours).joined(separator: " ")
    }

    /// What makes a connection fail within about a minute when the way to the other server is gone without a word (a host
    /// that lost its power, a firewall that forgot): by default nobody would notice for two hours. What the string says
    /// itself wins.
    static func liveness(for dsn: String) throws -> [(String, String)] {
        let given = Set(try DSN.parse(dsn).map(\.key))
        return [
            ("keepalives_idle", "20"), ("keepalives_interval", "10"), ("keepalives_count", "4"),
            ("tcp_user_timeout", "60000"),
        ].filter { !given.contains($0.0) }
    }

    private static func escaped(_ value: String) -> String {
        String(value.flatMap { $0 == " " ? "\\ " : String($0) })
    }
}

/// What a remote server or the way to it answered.
struct RemoteError: Error {
    var sqlstate: String
    var message: String
    var detail: String
    var hint: String

    /// The remote failure as an error of this server, saying what was being done.
    func asError(_ doing: String, hint: String? = nil) -> BdrError {
        BdrError(
            self.sqlstate, "\(doing): \(self.message)", detail: self.detail.isEmpty ? nil : self.detail,
            hint: hint ?? (self.hint.isEmpty ? nil : self.hint))
    }
}

final class Connection {
    private var handle: OpaquePointer?

    /// Opens a connection; throws `RemoteError` when the server can't be reached or refuses.
    /// - Parameters:
    ///   - dsn: libpq key/value or URI string.
    ///   - options: keywords that win over the DSN's.
    ///   - timeout: milliseconds, 0 for none.
    convenience init(dsn: String, options: [(String, String)] = [], timeout: Int32 = 30_000) throws {
        try self.init(
            dsn: dsn, allOptions: options + [("options", SessionSettings.options(for: dsn))] + SessionSettings.liveness(for: dsn),
            timeout: timeout)
    }

    /// A session for statements of users: with the settings that its user has there.
    /// - Parameter settings: of the session, as "name=value" without spaces.
    convenience init(userSession dsn: String, settings: [String]) throws {
        let given = try DSN.parse(dsn).last { $0.key == "options" }?.value
        let options = ([given].compactMap { $0 } + settings.map { "-c \($0)" }).joined(separator: " ")
        try self.init(dsn: dsn, allOptions: [("options", options)] + SessionSettings.liveness(for: dsn), timeout: 30_000)
    }

    private init(dsn: String, allOptions options: [(String, String)], timeout: Int32) throws {
        var connection: OpaquePointer?
        let status = try withCStrings(options.map { $0.0 }) { keywords in
            try withCStrings(options.map { $0.1 }) { values in
                try host(
                    bdr_host_conn_open(dsn, Int32(clamping: options.count), keywords, values, timeout, &connection))
            }
        }
        self.handle = connection
        if status != BDR_OK {
            throw self.lastError
        }
    }

    deinit {
        self.close()
    }

    func close() {
        if let handle = self.handle {
            bdr_host_conn_close(handle)
            self.handle = nil
        }
    }

    /// Closes, after sending a statement whose answer nobody waits for. Works while an error is pending, too.
    func abandon(_ sql: String?) {
        if let handle = self.handle {
            if let sql {
                bdr_host_conn_abandon(handle, sql)
            } else {
                bdr_host_conn_close(handle)
            }
            self.handle = nil
        }
    }

    /// For another transaction of this session, if it comes soon; nothing may be done with it before `resume`. Works while an
    /// error is pending, too.
    /// - Returns: false: it is closed.
    func keep(milliseconds: Int32) -> Bool {
        guard let handle = self.handle, bdr_host_conn_keep(handle, milliseconds) else {
            self.close()
            return false
        }
        return true
    }

    /// - Returns: false: it has ended meanwhile, and is closed.
    func resume() -> Bool {
        guard let handle = self.handle, bdr_host_conn_resume(handle) else {
            self.close()
            return false
        }
        return true
    }

    var raw: OpaquePointer? { self.handle }

    var lastError: RemoteError {
        RemoteError(
            sqlstate: String(cString: bdr_host_conn_sqlstate(self.handle)),
            message: String(cString: bdr_host_conn_message(self.handle)),
            detail: String(cString: bdr_host_conn_detail(self.handle)),
            hint: String(cString: bdr_host_conn_hint(self.handle)))
    }

    /// Runs one statement with text arguments; without arguments by the simple protocol (replication commands need it).
    @discardableResult
    func query(_ sql: String, _ arguments: [String?] = []) throws -> Rows {
        var result: OpaquePointer?
        let status = try withCStrings(arguments) { pointers in
            try host(bdr_host_conn_query(self.handle, sql, Int32(clamping: arguments.count), pointers, &result))
        }
        let rows = Rows(adopting: result)
        if status != BDR_OK {
            throw self.lastError
        }
        return rows
    }

    /// Runs statements of a user. The rows of the last one come behind three that describe it (bdr_host_conn_run).
    func run(_ sql: String) throws -> Rows {
        var result: OpaquePointer?
        let status = try host(bdr_host_conn_run(self.handle, sql, &result))
        let rows = Rows(adopting: result)
        if status != BDR_OK {
            throw self.lastError
        }
        return rows
    }

    /// Sends START_REPLICATION.
    func startCopyBoth(_ sql: String) throws {
        if try host(bdr_host_conn_start_copy_both(self.handle, sql)) != BDR_OK {
            throw self.lastError
        }
    }

    enum Received {
        case nothing
        /// Valid until the next receive.
        case data(UnsafeRawBufferPointer)
        case end
    }

    /// The next CopyData without waiting.
    func receive() throws -> Received {
        var data: UnsafePointer<UInt8>?
        var length = 0
        switch try host(bdr_host_conn_receive(self.handle, &data, &length)) {
        case Int32(BDR_RECV_DATA):
            return .data(UnsafeRawBufferPointer(start: data, count: length))
        case Int32(BDR_RECV_NONE):
            return .nothing
        case Int32(BDR_RECV_END):
            return .end
        default:
            throw self.lastError
        }
    }

    /// Sends COPY ... TO STDOUT.
    func startCopyOut(_ sql: String) throws {
        if try host(bdr_host_conn_start_copy_out(self.handle, sql)) != BDR_OK {
            throw self.lastError
        }
    }

    /// The next CopyData, waited for: valid until the next one; nil at the end.
    func next() throws -> UnsafeRawBufferPointer? {
        var data: UnsafePointer<UInt8>?
        var length = 0
        switch try host(bdr_host_conn_next(self.handle, &data, &length)) {
        case Int32(BDR_RECV_DATA):
            return UnsafeRawBufferPointer(start: data, count: length)
        case Int32(BDR_RECV_END):
            return nil
        default:
            throw self.lastError
        }
    }

    func send(_ bytes: UnsafeRawBufferPointer) throws {
        let pointer = bytes.bindMemory(to: UInt8.self)
        if try host(bdr_host_conn_send(self.handle, pointer.baseAddress, pointer.count)) != BDR_OK {
            throw self.lastError
        }
    }
}
