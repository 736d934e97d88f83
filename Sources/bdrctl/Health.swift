// bdrctl health: may the node get traffic? And bdrctl agent, which answers that question by HTTP, for HAProxy.

import ArgumentParser
import Glibc
import Operations
import Synchronization

/// What a node says of itself, and its peers of it.
struct HealthReport: Equatable, Sendable {
    var ready = false
    var node: String?
    var state = "UNKNOWN"
    var reason = ""
    /// Bytes of WAL that a peer has not sent here yet, the most of all peers; nil when none could be asked.
    var lagBytes: Int?

    var json: JSON {
        .object([
            ("ready", .bool(self.ready)), ("node", .text(self.node)), ("state", .string(self.state)),
            ("reason", .string(self.reason)), ("lag_bytes", self.lagBytes.map { .number($0) } ?? .null),
        ])
    }
}

/// Keeps connections to the node and its peers, and asks them.
final class HealthProbe {
    let dsn: String
    let maxLag: Int
    let timeout: Double
    let askPeers: Bool
    private var local: Connection?
    private var peers: [String: Connection] = [:]
    /// When a peer that could not be reached is tried again.
    private var retry: [String: Double] = [:]

    init(dsn: String, maxLag: Int, timeout: Double, askPeers: Bool) {
        self.dsn = dsn
        self.maxLag = maxLag
        self.timeout = timeout
        self.askPeers = askPeers
    }

    func look() -> HealthReport {
        var report = HealthReport()
        do {
            let connection = try self.connection()
            let rows = try connection.query("SELECT ready, state, reason, node_name FROM bdr.node_health()")
            report.ready = rows[0, 0] == "t"
            report.state = rows[0, 1] ?? "UNKNOWN"
            report.reason = rows[0, 2] ?? ""
            report.node = rows[0, 3]
            if report.state == "ACTIVE" && self.askPeers {
                self.compare(&report, connection)
            }
        } catch let error as PostgresError {
            report.ready = false
            // an open connection on which a statement failed is of use again
            if self.local?.isOpen != true || error.isConnectionFailure {
                self.local = nil
            }
            report.reason = "the node can't be asked: \(oneLine(error.message))"
        } catch {
            report.reason = "\(error)"
        }
        return report
    }

    private func connection() throws -> Connection {
        if let local = self.local, local.isOpen {
            return local
        }
        let connection = try Connection(
            self.dsn, description: "the node", connectTimeout: self.timeout, timeout: self.timeout)
        self.local = connection
        return connection
    }

    /// Is the node behind, or does it fail, while another one is well? Where none is, the node is the best there is.
    private func compare(_ report: inout HealthReport, _ connection: Connection) {
        guard let name = report.node, let members = try? Member.all(connection) else {
            return
        }
        var better: String?
        var unknown = false
        for member in members where !member.isLocal && member.state == "ACTIVE" {
            // this role may not read the connection strings of the others
            guard member.dsn != nil else {
                unknown = true
                continue
            }
            if self.peers[member.name]?.isOpen != true {
                if now() < self.retry[member.name] ?? 0 {
                    continue
                }
                self.peers[member.name] = try? member.open(connectTimeout: min(1, self.timeout), timeout: min(1, self.timeout))
                if self.peers[member.name] == nil {
                    self.retry[member.name] = now() + 5
                    continue
                }
            }
            guard let peer = self.peers[member.name],
                let rows = try? peer.query(
                    """
                    SELECT (SELECT replay_lag_bytes FROM bdr.node_slots WHERE target_name = $1 LIMIT 1), h.ready
                      FROM bdr.node_health() h
                    """, [name])
            else {
                self.peers[member.name] = nil
                self.retry[member.name] = now() + 5
                continue
            }
            let lag = rows[0, 0].flatMap { Int($0) }
            report.lagBytes = max(report.lagBytes ?? 0, lag ?? 0)
            guard rows[0, 1] == "t" else {
                continue
            }
            let mine = try? connection.query(
                "SELECT replay_lag_bytes FROM bdr.node_slots WHERE target_name = $1 LIMIT 1", [member.name])[0, 0]
            if let behind = mine.flatMap({ Int($0) }), behind <= self.maxLag {
                better = member.name
            }
        }
        if let lag = report.lagBytes, lag > self.maxLag, better != nil {
            report.reason = report.reason.isEmpty
                ? "\(readableSize(lag)) behind" : report.reason + "; \(readableSize(lag)) behind"
            report.ready = false
        }
        if !report.ready && better == nil && !unknown {
            report.ready = true
            report.reason = "ready, as no other node is better: " + report.reason
        }
    }
}

struct HealthOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The node is not ready when it is so much WAL behind a peer.", valueName: "size"))
    var maxLag = "16MB"
    @Option(help: "Seconds in which the node has to answer.") var timeout = 2.0
    @Flag(help: "Don't ask the other nodes how far behind this one is.") var noPeers = false

    func validate() throws {
        guard parseSize(self.maxLag) != nil else {
            throw ValidationError("--max-lag is no size such as 16MB")
        }
        guard self.timeout >= 0.1, self.timeout <= 600 else {
            throw ValidationError("--timeout has to be from 0.1 to 600")
        }
    }

    func probe(_ dsn: String) -> HealthProbe {
        HealthProbe(dsn: dsn, maxLag: parseSize(self.maxLag) ?? 0, timeout: self.timeout, askPeers: !self.noPeers)
    }
}

struct Health: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Tells by its exit code whether a node may get traffic.",
        discussion: """
            Ready is a node that is an active member and has caught up with the others. A node that is behind, or that \
            fails to apply, stays ready as long as no other node is better. Exit code 0 ready, 1 not ready.
            """)

    @OptionGroup var node: NodeOption
    @OptionGroup var options: HealthOptions
    @Flag(help: "Print nothing.") var quiet = false
    @Flag(help: "Print JSON.") var json = false

    func run() throws {
        let report = self.options.probe(self.node.dsn).look()
        if self.json {
            print(report.json.rendered())
        } else if !self.quiet {
            print("\(report.ready ? "ready" : "not ready")\(report.reason.isEmpty ? "" : ": " + report.reason)")
        }
        if !report.ready {
            throw ExitCode(ExitCodes.no)
        }
    }
}

/// The last report, written by one thread and read by another.
private final class Board: Sendable {
    private let last = Mutex<(report: HealthReport, time: Double)>((HealthReport(), -1e9))

    func put(_ report: HealthReport) {
        self.last.withLock { $0 = (report, now()) }
    }

    /// A report that is too old says nothing.
    func get(maxAge: Double) -> HealthReport {
        let (report, time) = self.last.withLock { $0 }
        guard now() - time <= maxAge else {
            var old = HealthReport()
            old.reason = "no answer from the node for more than \(Int(maxAge)) s"
            return old
        }
        return report
    }
}

struct Agent: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Answers HAProxy's health checks by HTTP: /ready is 200 or 503.",
        discussion: """
            Runs beside a node, in the foreground. GET or OPTIONS of /ready (and of /) gives 200 when the node may get \
            traffic, else 503; /health gives the same as JSON with code 200; /metrics is for Prometheus.
            """)

    @OptionGroup var node: NodeOption
    @OptionGroup var options: HealthOptions
    @Option(help: "Address to listen on.") var listen = "127.0.0.1"
    @Option(help: "Port to listen on; 0: any, and it is printed.") var port: UInt16 = 8008
    @Option(help: "Seconds between two looks at the node.") var interval = 1.0

    func validate() throws {
        guard self.interval >= 0.1, self.interval <= 60 else {
            throw ValidationError("--interval has to be from 0.1 to 60")
        }
    }

    func run() throws {
        let listener = try Listener(address: self.listen, port: self.port)
        let board = Board()
        let probe = Probing(probe: self.options.probe(self.node.dsn), board: board, interval: self.interval)
        try probe.start()
        print("listening on \(self.listen) port \(listener.port)")
        flushOutput()
        let maxAge = self.interval + 3 * self.options.timeout + 1
        while true {
            listener.serve { path in
                let report = board.get(maxAge: maxAge)
                switch path {
                case "/", "/ready":
                    return (report.ready ? 200 : 503, "text/plain", report.ready ? "ready\n" : "not ready: \(report.reason)\n")
                case "/health":
                    return (200, "application/json", report.json.rendered() + "\n")
                case "/metrics":
                    do {
                        let connection = try Connection(
                            self.node.dsn, description: "the node", connectTimeout: self.options.timeout,
                            timeout: self.options.timeout)
                        return (200, "text/plain; version=0.0.4", try MetricsCommand.collect(connection))
                    } catch {
                        return (503, "text/plain", "the node can't be asked\n")
                    }
                default:
                    return (404, "text/plain", "there is /ready, /health and /metrics\n")
                }
            }
        }
    }
}

/// Looks at the node again and again, in a thread of its own: a node that hangs must not keep HAProxy waiting.
private final class Probing: @unchecked Sendable {
    private let probe: HealthProbe
    private let board: Board
    private let interval: Double

    init(probe: HealthProbe, board: Board, interval: Double) {
        self.probe = probe
        self.board = board
        self.interval = interval
    }

    func start() throws {
        var thread = pthread_t()
        let argument = Unmanaged.passRetained(self).toOpaque()
        let status = pthread_create(
            &thread, nil,
            { argument in
                if let argument {
                    Unmanaged<Probing>.fromOpaque(argument).takeUnretainedValue().run()
                }
                return nil
            }, argument)
        guard status == 0 else {
            throw Failure("could not start a thread")
        }
    }

    private func run() {
        while true {
            self.board.put(self.probe.look())
            pause(self.interval)
        }
    }
}

/// A small HTTP server: one request for each connection, nothing of it kept.
final class Listener {
    private let socket: Int32
    private(set) var port: UInt16 = 0

    init(address: String, port: UInt16) throws {
        var hints = addrinfo()
        hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(address == "*" ? nil : address, String(port), &hints, &found) == 0, let first = found?.pointee else {
            throw Failure("there is no address \"\(address)\" to listen on")
        }
        defer { freeaddrinfo(found) }
        self.socket = Glibc.socket(first.ai_family, first.ai_socktype, first.ai_protocol)
        var on: Int32 = 1
        setsockopt(self.socket, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
        guard self.socket >= 0, bind(self.socket, first.ai_addr, first.ai_addrlen) == 0, Glibc.listen(self.socket, 64) == 0 else {
            throw Failure("could not listen on \(address) port \(port): \(String(cString: strerror(errno)))")
        }
        var bound = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        withUnsafeMutablePointer(to: &bound) { pointer in
            _ = pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(self.socket, $0, &length) }
        }
        // the port is in the same place for both families
        self.port = withUnsafeBytes(of: &bound) { UInt16($0[2]) << 8 | UInt16($0[3]) }
    }

    /// Serves one connection.
    func serve(_ answer: (String) -> (code: Int, type: String, body: String)) {
        let client = accept(self.socket, nil, nil)
        guard client >= 0 else {
            pause(0.05)
            return
        }
        defer { close(client) }
        var limit = timeval(tv_sec: 1, tv_usec: 0)
        setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        var request: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 2048)
        let end = now() + 2
        while request.count < 8192, now() < end {
            let count = read(client, &buffer, buffer.count)
            guard count > 0 else {
                break
            }
            request += buffer[..<count]
            let tail = request.suffix(count + 4)
            if tail.containsSequence([13, 10, 13, 10]) || tail.containsSequence([10, 10]) {
                break
            }
        }
        let line = String(decoding: request.prefix { $0 != 13 && $0 != 10 }, as: UTF8.self).split(separator: " ")
        guard line.count >= 2 else {
            return
        }
        let path = String(line[1].prefix { $0 != "?" })
        let known = ["GET", "HEAD", "OPTIONS"].contains(line[0])
        let reply: (code: Int, type: String, body: String) = known ? answer(path) : (405, "text/plain", "")
        let reason = [200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"][reply.code] ?? ""
        var text = "HTTP/1.0 \(reply.code) \(reason)\r\nContent-Type: \(reply.type)\r\nContent-Length: \(reply.body.utf8.count)\r\n"
            + "Connection: close\r\n\r\n"
        if line[0] != "HEAD" {
            text += reply.body
        }
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { send(client, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            guard count > 0 else {
                return
            }
            rest = rest.dropFirst(count)
        }
    }
}

extension Collection where Element == UInt8 {
    func containsSequence(_ wanted: [UInt8]) -> Bool {
        var matched = 0
        for byte in self {
            matched = byte == wanted[matched] ? matched + 1 : byte == wanted[0] ? 1 : 0
            if matched == wanted.count {
                return true
            }
        }
        return false
    }
}
