// Connections to servers, by libpq, without ever waiting longer than allowed.

import CLibpq
import Glibc

/// Rows of a result; values as text.
struct Rows {
    var names: [String] = []
    var values: [[String?]] = []

    var count: Int { self.values.count }

    subscript(row: Int, column: Int) -> String? {
        guard row < self.values.count, column < self.values[row].count else {
            return nil
        }
        return self.values[row][column]
    }

    /// Value of the column of that name.
    subscript(row: Int, name: String) -> String? {
        self.names.firstIndex(of: name).flatMap { self[row, $0] }
    }
}

/// What a server, or libpq, said.
struct PostgresError: Error {
    /// Empty when the server was not reached.
    var sqlstate = ""
    var message: String
    var detail: String?
    var hint: String?

    var isConnectionFailure: Bool {
        self.sqlstate.isEmpty || self.sqlstate.hasPrefix("08") || self.sqlstate.hasPrefix("57P")
    }
}

/// Seconds since some moment, going forward evenly.
func now() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

func pause(_ seconds: Double) {
    guard seconds > 0 else {
        return
    }
    usleep(useconds_t(min(seconds, 1000) * 1e6))
}

final class Connection {
    private var connection: OpaquePointer?
    /// Seconds that a statement may take.
    var timeout: Double
    /// What the connection goes to, for messages: without secrets.
    let description: String

    /// - Parameters:
    ///   - dsn: connection string; what it leaves open is taken from the environment, as psql does.
    ///   - override: keywords that win over those of `dsn`.
    init(
        _ dsn: String, description: String, override: [(String, String)] = [], connectTimeout: Double = 10,
        timeout: Double = 60
    ) throws {
        self.timeout = timeout
        self.description = description
        // the whole string in place of the name of a database: what comes after it wins
        let options = [("dbname", dsn), ("fallback_application_name", "bdrctl"), ("client_encoding", "UTF8")] + override
        let keywords = options.map { strdup($0.0) }
        let values = options.map { strdup($0.1) }
        defer {
            keywords.forEach { free($0) }
            values.forEach { free($0) }
        }
        var keywordList: [UnsafePointer<CChar>?] = keywords.map { UnsafePointer($0) }
        var valueList: [UnsafePointer<CChar>?] = values.map { UnsafePointer($0) }
        keywordList.append(nil)
        valueList.append(nil)
        self.connection = PQconnectStartParams(keywordList, valueList, 1)
        guard self.connection != nil else {
            throw PostgresError(message: "out of memory")
        }
        let end = now() + connectTimeout
        var want = Int32(BDR_POLLING_WRITING)
        while PQstatus(self.connection) != Int32(BDR_CONNECTION_BAD) {
            guard self.ready(write: want == Int32(BDR_POLLING_WRITING), until: end) else {
                self.close()
                throw PostgresError(message: "no connection to \(description) within \(Int(connectTimeout)) s")
            }
            want = PQconnectPoll(self.connection)
            if want == Int32(BDR_POLLING_OK) {
                PQsetNoticeProcessor(self.connection, { _, _ in }, nil)
                PQsetnonblocking(self.connection, 1)
                return
            }
            if want == Int32(BDR_POLLING_FAILED) {
                break
            }
        }
        let message = self.lastMessage
        self.close()
        throw PostgresError(message: message)
    }

    deinit {
        self.close()
    }

    func close() {
        if let connection = self.connection {
            PQfinish(connection)
        }
        self.connection = nil
    }

    var isOpen: Bool {
        self.connection != nil && PQstatus(self.connection) == Int32(BDR_CONNECTION_OK)
    }

    private var lastMessage: String {
        PQerrorMessage(self.connection).map { oneLine(String(cString: $0)) } ?? ""
    }

    private func ready(write: Bool, until end: Double) -> Bool {
        while true {
            let left = end - now()
            guard left > 0 else {
                return false
            }
            var wanted = pollfd(fd: PQsocket(self.connection), events: Int16(write ? POLLOUT : POLLIN), revents: 0)
            let count = poll(&wanted, 1, Int32(min(left, 3600) * 1000) + 1)
            if count > 0 {
                return true
            }
            if count < 0 && errno != EINTR {
                return false
            }
        }
    }

    /// Runs a statement with text arguments.
    @discardableResult
    func query(_ statement: String, _ arguments: [String?] = [], timeout: Double? = nil) throws -> Rows {
        let copies = arguments.map { $0.map { strdup($0) } }
        defer { copies.forEach { free($0 ?? nil) } }
        let list: [UnsafePointer<CChar>?] = copies.map { copy in copy.flatMap { $0 }.map { UnsafePointer($0) } }
        try self.send(PQsendQueryParams(self.connection, statement, Int32(arguments.count), nil, list, nil, nil, 0))
        return try self.results(timeout ?? self.timeout)
    }

    /// Runs a statement in the simple protocol, which PgBouncer's console needs.
    @discardableResult
    func command(_ statement: String, timeout: Double? = nil) throws -> Rows {
        try self.send(PQsendQuery(self.connection, statement))
        return try self.results(timeout ?? self.timeout)
    }

    private func send(_ result: Int32) throws {
        guard self.connection != nil, result == 1 else {
            throw PostgresError(message: self.connection == nil ? "the connection is closed" : self.lastMessage)
        }
    }

    private func results(_ timeout: Double) throws -> Rows {
        let end = now() + timeout
        var rows = Rows()
        var failure: PostgresError?
        while PQflush(self.connection) == 1 {
            guard self.ready(write: true, until: end) else {
                throw self.late(timeout)
            }
        }
        while true {
            while PQisBusy(self.connection) == 1 {
                guard self.ready(write: false, until: end) else {
                    throw self.late(timeout)
                }
                guard PQconsumeInput(self.connection) == 1 else {
                    throw failure ?? PostgresError(message: self.lastMessage)
                }
            }
            guard let result = PQgetResult(self.connection) else {
                break
            }
            defer { PQclear(result) }
            switch PQresultStatus(result) {
            case Int32(BDR_TUPLES_OK):
                rows = Self.read(result)
            case Int32(BDR_COMMAND_OK), Int32(BDR_EMPTY_QUERY):
                break
            default:
                func field(_ code: Int32) -> String? { PQresultErrorField(result, code).map { String(cString: $0) } }
                failure = PostgresError(
                    sqlstate: field(Int32(BDR_DIAG_SQLSTATE)) ?? "",
                    message: field(Int32(BDR_DIAG_MESSAGE))
                        ?? PQresultErrorMessage(result).map { oneLine(String(cString: $0)) } ?? "",
                    detail: field(Int32(BDR_DIAG_DETAIL)), hint: field(Int32(BDR_DIAG_HINT)))
            }
        }
        if let failure {
            throw failure
        }
        return rows
    }

    /// What runs there is left behind: the connection is of no more use.
    private func late(_ timeout: Double) -> PostgresError {
        self.close()
        return PostgresError(message: "no answer from \(self.description) within \(Int(timeout)) s")
    }

    private static func read(_ result: OpaquePointer) -> Rows {
        var rows = Rows()
        let columns = PQnfields(result)
        for column in 0..<max(0, columns) {
            rows.names.append(PQfname(result, column).map { String(cString: $0) } ?? "")
        }
        for row in 0..<max(0, PQntuples(result)) {
            var values: [String?] = []
            for column in 0..<max(0, columns) {
                values.append(
                    PQgetisnull(result, row, column) == 1
                        ? nil : PQgetvalue(result, row, column).map { String(cString: $0) })
            }
            rows.values.append(values)
        }
        return rows
    }
}

/// Messages of libpq go over several lines.
func oneLine(_ text: String) -> String {
    text.split(whereSeparator: \.isNewline).map { line in
        var line = line
        while line.first == "\t" || line.first == " " {
            line.removeFirst()
        }
        return String(line)
    }.joined(separator: " ")
}
