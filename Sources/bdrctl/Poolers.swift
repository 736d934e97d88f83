// HAProxy's socket, and PgBouncer's console.

import Glibc
import Operations

/// HAProxy, by its socket for commands.
struct Proxy {
    /// Path of the socket, or host:port.
    var socket: String
    var backend: String

    /// Gives one command.
    func command(_ text: String) throws -> String {
        let connection = try self.connect()
        defer { close(connection) }
        var limit = timeval(tv_sec: 5, tv_usec: 0)
        setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        let bytes = Array((text + "\n").utf8)
        guard send(connection, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count else {
            throw Failure("HAProxy took no command on \(self.socket): \(String(cString: strerror(errno)))")
        }
        var answer: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while answer.count < 1 << 24 {
            let count = read(connection, &buffer, buffer.count)
            guard count >= 0 else {
                throw Failure("HAProxy did not answer on \(self.socket): \(String(cString: strerror(errno)))")
            }
            if count == 0 {
                break
            }
            answer += buffer[..<count]
        }
        return String(decoding: answer, as: UTF8.self)
    }

    private func connect() throws -> Int32 {
        let refused = "could not connect to HAProxy's socket \(self.socket)"
        let hint = "In haproxy.cfg, section global: stats socket \(self.socket) mode 660 level admin"
        if !self.socket.hasPrefix("/"), let colon = self.socket.lastIndex(of: ":") {
            var hints = addrinfo()
            hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
            var found: UnsafeMutablePointer<addrinfo>?
            let host = String(self.socket[..<colon])
            guard getaddrinfo(host, String(self.socket[self.socket.index(after: colon)...]), &hints, &found) == 0,
                let first = found?.pointee
            else {
                throw Failure("\(refused): no such address", hint: hint)
            }
            defer { freeaddrinfo(found) }
            let connection = Glibc.socket(first.ai_family, first.ai_socktype, first.ai_protocol)
            guard connection >= 0, Glibc.connect(connection, first.ai_addr, first.ai_addrlen) == 0 else {
                let reason = String(cString: strerror(errno))
                close(connection)
                throw Failure("\(refused): \(reason)", hint: hint)
            }
            return connection
        }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let path = Array(self.socket.utf8)
        guard path.count < MemoryLayout.size(ofValue: address.sun_path) else {
            throw Failure("\(refused): the path is too long")
        }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path) }
        let connection = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        let status = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(connection, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard connection >= 0, status == 0 else {
            let reason = String(cString: strerror(errno))
            close(connection)
            throw Failure("\(refused): \(reason)", hint: hint)
        }
        return connection
    }

    func servers() throws -> [ProxyServer] {
        try ProxyAnswer.servers(self.command("show stat"), backend: self.backend)
    }

    /// The server that clients stick to.
    func stuck() throws -> String? {
        ProxyAnswer.stuck(try self.command("show table \(self.backend)"))
    }

    /// Gives a command that answers nothing when all is well.
    func order(_ text: String) throws {
        let answer = oneLine(try self.command(text))
        if !answer.isEmpty {
            throw Failure("HAProxy refused \"\(text)\": \(answer)")
        }
    }

    func enable(_ server: String) throws { try self.order("enable server \(self.backend)/\(server)") }
    func disable(_ server: String) throws { try self.order("disable server \(self.backend)/\(server)") }
    func clearTable() throws { try self.order("clear table \(self.backend)") }
}

/// PgBouncer, by its console.
struct Pooler {
    var dsn: String

    @discardableResult
    private func console(_ command: String, timeout: Double) throws -> Rows {
        let connection = try Connection(
            self.dsn, description: "PgBouncer", override: [("dbname", "pgbouncer")], connectTimeout: 5, timeout: timeout)
        return try connection.command(command, timeout: timeout)
    }

    private func order(_ command: String, timeout: Double) throws {
        do {
            try self.console(command, timeout: timeout)
        } catch let error as PostgresError {
            throw Failure(error, "PgBouncer, \(command): ")
        }
    }

    /// Waits for running transactions and keeps new ones waiting.
    ///
    /// PgBouncer's word that it has paused is not enough: after a WAIT_CLOSE, 1.18 says so at once, while transactions still run.
    func pause(timeout: Double) throws {
        let end = now() + timeout
        do {
            try self.console("PAUSE", timeout: timeout)
        } catch let error as PostgresError where error.message.contains("already suspended/paused") {
        } catch let error as PostgresError {
            throw Failure(error, "PgBouncer, PAUSE: ")
        }
        while true {
            let pools = try self.console("SHOW POOLS", timeout: 5)
            var running = 0
            for row in 0..<pools.count where pools[row, "database"] != "pgbouncer" {
                for column in ["sv_active", "sv_tested"] {
                    running += pools[row, column].flatMap { Int($0) } ?? 0
                }
            }
            if running == 0 {
                return
            }
            guard now() < end else {
                throw Failure("PgBouncer, PAUSE: \(running) transactions still run")
            }
            bdrctl.pause(0.01)
        }
    }

    /// Does a client keep its connection to a node until it ends its session?
    func poolsSessions() -> Bool {
        guard let settings = try? self.console("SHOW CONFIG", timeout: 5),
            let databases = try? self.console("SHOW DATABASES", timeout: 5)
        else {
            return false
        }
        return (0..<settings.count).contains { settings[$0, "key"] == "pool_mode" && settings[$0, "value"] == "session" }
            || (0..<databases.count).contains { databases[$0, "pool_mode"] == "session" }
    }

    /// Lets transactions go on; it is no error if none wait.
    func resume() throws {
        do {
            try self.console("RESUME", timeout: 10)
        } catch let error as PostgresError where error.message.contains("not paused") {
        } catch let error as PostgresError {
            throw Failure(error, "PgBouncer, RESUME: ")
        }
    }

    /// Has each connection to a server replaced when its transaction is over.
    func reconnect() throws { try self.order("RECONNECT", timeout: 10) }

    /// Waits until all connections that were to be replaced are.
    func waitClose(timeout: Double) throws { try self.order("WAIT_CLOSE", timeout: timeout) }

    /// Is the console there, for us?
    func test() throws { try self.order("SHOW VERSION", timeout: 5) }
}
