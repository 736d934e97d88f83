// bdrctl switchover: moves all traffic to another node, without an error for clients and without a row that is lost or not
// seen.
//
// While the transactions of clients wait at PgBouncer, the node that had the traffic passes on what it has; then HAProxy is
// told the new one, and the transactions go on there. That is bounded in time: what does not come to pass is called back.

import ArgumentParser
import Glibc
import Membership
import Operations

struct Switchover: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Moves the traffic to another node, and back.",
        discussion: """
            Waits until the node has everything, keeps new transactions waiting at PgBouncer while the last ones pass over, \
            moves HAProxy's backend, and looks whether the traffic arrives. Without --to it shows where the traffic goes. \
            --config names a file as bdrctl ha-config writes it; options win over it.

            Exit codes: 0 the traffic goes to the node; 2 nothing was done; 3 refused or called back: the traffic is where \
            it was; 4 it ended half-way.
            """)

    @OptionGroup var node: NodeOption
    @Option(help: "Name of the node that is to get the traffic.") var to: String?
    @Option(help: "File with dsn, haproxy, backend, proxy and pgbouncer.") var config: String?
    @Option(help: "HAProxy's socket, or host:port of it.") var haproxy: String?
    @Option(help: "HAProxy's backend (bk_db).") var backend: String?
    @Option(help: "How HAProxy's frontend is reached, to see that traffic arrives: 'host=... port=...'.") var proxy: String?
    @Option(help: "Connection string of PgBouncer's console; once for each PgBouncer.") var pgbouncer: [String] = []
    @Option(help: "Seconds that the node may take to catch up before anything is done.") var timeout = 60.0
    @Option(help: "Seconds that clients may have to wait, at most.") var pauseTimeout = 10.0
    @Flag(help: "Keep no client waiting: for a moment both nodes get transactions, which can conflict.") var rolling = false
    @Flag(help: "Leave the other nodes disabled in HAProxy, for maintenance.") var maintenance = false
    @Flag(help: "Say what would be done, and do nothing.") var dryRun = false

    func validate() throws {
        guard self.timeout >= 0, self.timeout <= 86_400, self.pauseTimeout >= 0.1, self.pauseTimeout <= 3600 else {
            throw ValidationError("--timeout has to be from 0 to 86400, --pause-timeout from 0.1 to 3600")
        }
    }

    func run() throws {
        var dsn = self.node.dsn
        var socket = self.haproxy
        var backend = self.backend
        var proxyAddress = self.proxy
        var poolers = self.pgbouncer
        if let config = self.config {
            for (name, value) in try parseOptions(try readFile(config)) {
                switch name {
                case "dsn": dsn = dsn.isEmpty ? value : dsn
                case "haproxy": socket = socket ?? value
                case "backend": backend = backend ?? value
                case "proxy": proxyAddress = proxyAddress ?? value
                default: if self.pgbouncer.isEmpty { poolers.append(value) }
                }
            }
        }
        guard let socket else {
            throw Failure("where is HAProxy's socket?", hint: "Give --config or --haproxy.", code: 64)
        }
        let proxy = Proxy(socket: socket, backend: backend ?? "bk_db")
        guard let to = self.to else {
            try Self.show(proxy)
            return
        }
        let work = Work(
            command: self, proxy: proxy, proxyAddress: proxyAddress, poolers: poolers.map { Pooler(dsn: $0) }, target: to)
        try work.run(try self.connect(dsn))
    }

    private func connect(_ dsn: String) throws -> Connection {
        do {
            return try Connection(dsn, description: "the node")
        } catch let error as PostgresError {
            throw Failure(error, "could not connect to a node: ", code: ExitCodes.failed)
        }
    }

    private static func show(_ proxy: Proxy) throws {
        let servers = try proxy.servers()
        let stuck = try proxy.stuck()
        let active = ProxyAnswer.active(servers, stuck: stuck)
        var table = TextTable(["server", "status", "backup", "sessions", "traffic"])
        table.rows = servers.map {
            [
                $0.name, $0.status, $0.isBackup ? "yes" : "no", "\($0.sessions)",
                $0 == active ? ($0.name == stuck ? "yes, stuck to" : "yes") : "",
            ]
        }
        print(table.rendered())
    }
}

/// One switchover.
private struct Work {
    let command: Switchover
    let proxy: Proxy
    let proxyAddress: String?
    let poolers: [Pooler]
    let target: String

    private var targetServer: String { "bdr_" + self.target }

    private func say(_ text: String) {
        print(text)
        flushOutput()
    }

    private func refuse(_ message: String, detail: String? = nil, hint: String? = nil) -> Failure {
        Failure(message, detail: detail, hint: hint, code: ExitCodes.refused)
    }

    func run(_ connection: Connection) throws {
        // everything is looked at before anything is done
        let members = try Member.all(connection)
        guard let member = members.first(where: { $0.name == self.target }) else {
            throw self.refuse("the group has no node \"\(self.target)\"", hint: "See bdrctl status.")
        }
        let servers = try self.proxy.servers()
        guard let server = servers.first(where: { $0.name == self.targetServer }) else {
            throw self.refuse(
                "HAProxy's backend has no server \"\(self.targetServer)\"",
                detail: "It has: \(servers.map(\.name).joined(separator: ", ")).")
        }
        let stuck = try self.proxy.stuck()
        guard let source = ProxyAnswer.active(servers, stuck: stuck) else {
            throw self.refuse(
                "no server of HAProxy's backend is up", hint: "See bdrctl status, and bdrctl doctor, for the nodes.")
        }
        let destination = try self.openTarget(member)
        if source.name == server.name {
            self.say("the traffic goes to \(self.target) already")
            if !self.command.dryRun {
                try self.settle(servers, stuck: stuck)
            }
            return
        }
        guard server.isUp || server.isInMaintenance else {
            throw self.refuse(
                "HAProxy takes \(self.targetServer) for down (\(server.status))",
                hint: "Is the health check's agent running on its machine? See http://...:8008/ready there.")
        }
        guard let from = members.first(where: { "bdr_" + $0.name == source.name }) else {
            throw self.refuse("the group has no node for HAProxy's server \"\(source.name)\"")
        }
        let origin: Connection
        do {
            origin = try from.open()
        } catch let error as PostgresError {
            throw self.refuse(
                "node \(from.name), which has the traffic, can't be reached: \(error.message)",
                hint: "If it is down, HAProxy moves the traffic by itself.")
        }
        for pooler in self.poolers {
            do {
                try pooler.test()
            } catch let failure as Failure {
                throw self.refuse(failure.message, hint: "The user has to be in admin_users of pgbouncer.ini.")
            }
        }
        let slot = try self.slot(origin, from: from.name)
        self.say("traffic goes to \(from.name); \(self.target) is \(readableSize(slot.lag)) behind")
        if self.command.dryRun {
            self.plan(from: from.name, source: source.name, others: servers.map(\.name))
            return
        }

        self.say("waiting until \(self.target) has caught up")
        try self.wait(origin, slot.name, from: from.name, seconds: self.command.timeout)
        // HAProxy's servers are to be put back should this process be told to end
        signal(SIGINT, SIG_IGN)
        signal(SIGTERM, SIG_IGN)
        signal(SIGHUP, SIG_IGN)
        if server.isInMaintenance {
            // its health check takes a moment, in which nobody is to wait
            do {
                try self.enable(server.name)
            } catch {
                try? self.proxy.disable(server.name)
                throw self.refuse((error as? Failure)?.message ?? "\(error)", hint: "Is the health check's agent running on its machine?")
            }
        }
        let began = now()
        if self.command.rolling {
            try self.move(servers, from: source.name, destination)
        } else {
            try self.pausedMove(servers, from: from.name, source: source.name, origin, slot.name, destination)
            let waited = Int((now() - began) * 1000)
            self.say(self.poolers.isEmpty ? "moved in \(waited) ms" : "clients waited for \(waited) ms at most")
        }
        do {
            try self.settle(servers, stuck: nil)
            if self.command.rolling {
                self.say("waiting until \(self.target) has the last transactions of \(from.name)")
                try self.wait(origin, slot.name, from: from.name, seconds: self.command.timeout)
            }
        } catch let failure as Failure {
            throw Failure(failure.message, detail: failure.detail, hint: failure.hint, code: ExitCodes.halfWay)
        } catch let error as PostgresError {
            throw Failure(error, code: ExitCodes.halfWay)
        }
        self.say("the traffic goes to \(self.target)")
        self.say(
            self.command.maintenance
                ? "the other nodes are disabled in HAProxy; to enable them again: bdrctl switchover --to \(self.target)"
                : "to go back: bdrctl switchover --to \(from.name)")
    }

    private func openTarget(_ member: Member) throws -> Connection {
        let connection: Connection
        let health: Rows
        do {
            connection = try member.open()
            health = try connection.query("SELECT ready, reason FROM bdr.node_health()")
        } catch let error as PostgresError {
            throw self.refuse("node \(self.target) can't be reached: \(error.message)", hint: error.hint)
        }
        guard health[0, 0] == "t" else {
            throw self.refuse("node \(self.target) is not ready: \(health[0, 1] ?? "")", hint: "See bdrctl doctor.")
        }
        return connection
    }

    /// The slot by which the target receives, and how far it is behind.
    private func slot(_ origin: Connection, from: String) throws -> (name: String, lag: Int) {
        let rows = try origin.query(
            "SELECT slot_name, replay_lag_bytes, active FROM bdr.node_slots WHERE target_name = $1", [self.target])
        guard let name = rows[0, 0], rows[0, 2] == "t" else {
            throw self.refuse(
                "\(self.target) does not receive from \(from)", hint: "See bdrctl doctor, with the --dsn of \(self.target).")
        }
        return (name, rows[0, 1].flatMap { Int($0) } ?? 0)
    }

    /// Until the target has on its disk what the origin has written up to now.
    private func wait(_ origin: Connection, _ slot: String, from: String, seconds: Double) throws {
        let end = now() + seconds
        // A commit of our own flushes those before it; what open transactions have written may stay unflushed for long.
        try origin.query("SET synchronous_commit = on")
        try origin.query("SELECT pg_catalog.txid_current()")
        guard let position = try origin.query("SELECT pg_catalog.pg_current_wal_flush_lsn()")[0, 0] else {
            throw Failure("\(from) did not say how far its WAL is")
        }
        while true {
            let rows = try origin.query(
                """
                SELECT confirmed_flush_lsn >= $2::pg_lsn, pg_catalog.pg_wal_lsn_diff($2::pg_lsn, confirmed_flush_lsn)::int8
                  FROM pg_catalog.pg_replication_slots WHERE slot_name = $1
                """, [slot, position])
            if rows[0, 0] == "t" {
                return
            }
            guard now() < end else {
                throw self.refuse(
                    "\(self.target) is still \(readableSize(rows[0, 1].flatMap { Int($0) } ?? 0)) behind \(from), after \(seconds) s",
                    hint: "Nothing has been moved. See bdrctl status for why, or give more time with "
                        + (seconds == self.command.pauseTimeout ? "--pause-timeout." : "--timeout."))
            }
            pause(0.02)
        }
    }

    /// The way that loses nothing and shows every client what it has written: nobody writes while traffic moves.
    private func pausedMove(
        _ servers: [ProxyServer], from: String, source: String, _ origin: Connection, _ slot: String, _ destination: Connection
    ) throws {
        let end = now() + self.command.pauseTimeout
        do {
            for pooler in self.poolers {
                try pooler.pause(timeout: max(0.1, end - now()))
            }
            try self.wait(origin, slot, from: from, seconds: max(0.1, end - now()))
        } catch {
            try self.resume()
            self.say("clients go on with \(from)")
            if let failure = error as? Failure {
                throw self.refuse(
                    failure.message, detail: failure.detail,
                    hint: failure.code == ExitCodes.refused ? failure.hint : self.whyNotPaused)
            }
            throw error
        }
        do {
            try self.move(servers, from: source, destination)
        } catch {
            try? self.resume()
            throw error
        }
        try self.resume()
    }

    private var whyNotPaused: String {
        self.poolers.contains { $0.poolsSessions() }
            ? "PgBouncer pools sessions, so it waits until all clients have ended theirs. Put pool_mode = transaction into pgbouncer.ini, "
                + "or have the clients connect again, or give more time with --pause-timeout."
            : "A transaction that stays open keeps PgBouncer from pausing: end it, or give more time with --pause-timeout."
    }

    private func resume() throws {
        var failure: (any Error)?
        for pooler in self.poolers {
            do {
                try pooler.resume()
            } catch {
                failure = error
            }
        }
        if let failure = failure as? Failure {
            throw Failure(
                failure.message, hint: "Type RESUME; in PgBouncer's console: its clients are waiting.", code: ExitCodes.halfWay)
        }
    }

    /// Tells HAProxy, and looks whether a new connection arrives at the target; if not, all is put back.
    private func move(_ servers: [ProxyServer], from source: String, _ destination: Connection) throws {
        do {
            self.say("HAProxy: new connections go to \(self.targetServer)")
            try self.lead(to: self.targetServer, servers)
            try self.verify(destination)
            for pooler in self.poolers {
                try pooler.reconnect()
            }
        } catch {
            let reason = (error as? Failure)?.message ?? (error as? PostgresError)?.message ?? "\(error)"
            do {
                try self.lead(to: source, servers)
                try self.restore(servers, but: source)
            } catch let failure as Failure {
                throw Failure(
                    "\(reason); and HAProxy could not be put back: \(failure.message)",
                    hint: "Type: echo 'enable server \(self.proxy.backend)/\(source)' | socat stdio \(self.proxy.socket)",
                    code: ExitCodes.halfWay)
            }
            throw self.refuse("\(reason); the traffic goes to \(source) again", hint: (error as? Failure)?.hint)
        }
    }

    /// Disables all servers but one, and forgets which one clients stick to.
    private func lead(to wanted: String, _ servers: [ProxyServer]) throws {
        try self.enable(wanted)
        for server in servers where server.name != wanted {
            try self.proxy.disable(server.name)
        }
        try self.proxy.clearTable()
    }

    /// Enables a server and waits until its health check has found it well.
    private func enable(_ wanted: String) throws {
        try self.proxy.enable(wanted)
        let end = now() + 15
        while true {
            if try self.proxy.servers().first(where: { $0.name == wanted })?.isUp == true {
                break
            }
            guard now() < end else {
                throw Failure("HAProxy does not take \(wanted) for up")
            }
            pause(0.05)
        }
    }

    /// A connection through HAProxy has to come out at the target. It also makes HAProxy stick to it.
    private func verify(_ destination: Connection) throws {
        guard let address = self.proxyAddress else {
            return
        }
        let parts = try endpoint(of: address)
        guard let dsn = try destination.query("SELECT if_dsn FROM bdr.node_interface i JOIN bdr.local_node l USING (node_id)")[0, 0]
        else {
            return
        }
        let connection: Connection
        do {
            connection = try Connection(
                dsn, description: "HAProxy", override: [("host", parts.host), ("hostaddr", ""), ("port", parts.port)],
                connectTimeout: 5, timeout: 5)
        } catch let error as PostgresError {
            throw Failure(error, "a connection through HAProxy failed: ")
        }
        let arrived = try connection.query("SELECT node_name FROM bdr.local_node_summary")[0, 0] ?? "no node"
        guard arrived == self.target else {
            throw Failure("a connection through HAProxy arrived at \(arrived)")
        }
    }

    /// When HAProxy sticks to the target, the other servers are enabled again, to take over if it fails.
    private func settle(_ servers: [ProxyServer], stuck: String?) throws {
        if self.command.rolling && stuck == nil {
            for pooler in self.poolers {
                try pooler.waitClose(timeout: max(30, self.command.timeout))
            }
        }
        if self.command.maintenance {
            return
        }
        let end = now() + 10
        while try self.proxy.stuck() != self.targetServer {
            guard now() < end else {
                throw Failure(
                    "the traffic goes to \(self.target), but no connection has come through HAProxy yet that it could stick to; "
                        + "the other nodes stay disabled",
                    hint: "When clients are there: bdrctl switchover --to \(self.target)")
            }
            pause(0.05)
        }
        // asked for while the traffic is there already: all are to stand by
        try self.restore(stuck == nil ? servers : try self.proxy.servers(), but: self.targetServer, all: stuck != nil)
    }

    /// Enables what was enabled before.
    private func restore(_ servers: [ProxyServer], but wanted: String, all: Bool = false) throws {
        for server in servers where server.name != wanted && (all || !server.isInMaintenance) {
            try self.proxy.enable(server.name)
        }
    }

    private func plan(from: String, source: String, others: [String]) {
        var steps = ["wait until \(self.target) has everything of \(from), \(Int(self.command.timeout)) s at most"]
        if !self.command.rolling && !self.poolers.isEmpty {
            steps.append("PgBouncer: PAUSE, \(self.command.pauseTimeout) s at most")
            steps.append("wait until \(self.target) has the last transactions of \(from)")
        }
        steps.append("HAProxy: enable server \(self.proxy.backend)/\(self.targetServer)")
        steps += others.filter { $0 != self.targetServer }.map { "HAProxy: disable server \(self.proxy.backend)/\($0)" }
        steps.append("HAProxy: clear table \(self.proxy.backend)")
        if let address = self.proxyAddress {
            steps.append("connect through HAProxy (\(address)): it has to lead to \(self.target)")
        }
        if !self.poolers.isEmpty {
            steps.append("PgBouncer: RECONNECT, " + (self.command.rolling ? "WAIT_CLOSE" : "RESUME"))
        }
        if !self.command.maintenance {
            steps += others.filter { $0 != self.targetServer }.map { "HAProxy: enable server \(self.proxy.backend)/\($0)" }
        }
        for (place, step) in steps.enumerated() {
            print("  \(place + 1). \(step)")
        }
        print("nothing was done (--dry-run)")
    }
}

/// Host and port of 'host=... port=...'.
private func endpoint(of text: String) throws -> (host: String, port: String) {
    guard let endpoint = try? DSN.endpoint(text), let host = endpoint.host, let port = endpoint.port else {
        throw Failure("\"\(text)\" is not of the form host=... port=...")
    }
    return (host, port)
}
