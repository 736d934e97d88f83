// bdrctl ha-config: writes the files for HAProxy, PgBouncer and the agents of a group.

import ArgumentParser
import Glibc
import Membership
import Operations

extension HealthCheck: ExpressibleByArgument {}

struct HAConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ha-config",
        abstract: "Writes the files for HAProxy and PgBouncer in front of the group.",
        discussion: """
            Into --directory: haproxy.cfg, pgbouncer.ini, bdrctl.conf (for bdrctl switchover --config), \
            bdrctl-agent.service (systemd unit for each node's machine; with --check agent) or bdr-check (with --check \
            external). Nodes are those of the group that are active, or those of --node, where their connection strings \
            don't lead there from HAProxy's machine.
            """)

    @OptionGroup var node: NodeOption
    @Option(name: .customLong("node"), help: ArgumentHelp("A node, in place of those of the group; more than once.", valueName: "name=host:port"))
    var nodes: [String] = []
    @Option(help: "Name of the node that gets the traffic at first; else that with the lowest id.") var first: String?
    @Option(help: "Folder for the files; it is created.") var directory = "."
    @Flag(help: "Replace files that are there.") var force = false
    @Option(help: "How HAProxy finds out whether a node is ready: agent, external or tcp.") var check = HealthCheck.agent
    @Option(help: "Port of the agents.") var agentPort = 8008
    @Option(help: "Name of HAProxy's backend.") var backend = "bk_db"
    @Option(help: "Address that HAProxy listens on.") var bind = "*"
    @Option(help: "Port that HAProxy listens on.") var bindPort = 5433
    @Option(help: "HAProxy's socket for commands.") var socket = "/run/haproxy/admin.sock"
    @Option(help: "HAProxy's address, as PgBouncer reaches it.") var proxyHost = "proxy_server"
    @Option(help: "Address that PgBouncer listens on.") var poolAddress = "*"
    @Option(help: "Port that PgBouncer listens on.") var poolPort = 5432
    @Option(help: "Folder of PgBouncer's socket.") var poolSocketDirectory = "/var/run/postgresql"
    @Option(help: "PgBouncer's auth_type.") var poolAuthType = "scram-sha-256"
    @Option(help: "PgBouncer's auth_file.") var poolAuthFile = "/etc/pgbouncer/userlist.txt"
    @Option(help: "User that gives commands to PgBouncer.") var poolAdmin = "pgbouncer"
    @Option(help: "User by which --check external asks the nodes.") var checkUser = "bdr_health"
    @Flag(help: "For HAProxy and PgBouncer as an ordinary user: logs and pid files in --directory, no chroot.")
    var unprivileged = false

    func validate() throws {
        for port in [self.agentPort, self.bindPort, self.poolPort] where !(1...65_535).contains(port) {
            throw ValidationError("\(port) is no port")
        }
        for text in [self.backend, self.bind, self.socket, self.proxyHost, self.poolAddress, self.poolSocketDirectory,
            self.poolAuthFile, self.poolAdmin, self.checkUser]
        where text.isEmpty || text.contains(where: { $0.isWhitespace || $0 == "\"" }) {
            throw ValidationError("\"\(text)\" can't stand in the files")
        }
    }

    func run() throws {
        var dsn = self.node.dsn
        var nodes: [HANode] = []
        var database = "postgres"
        if self.nodes.isEmpty {
            let connection = try self.node.openNode()
            for member in try Member.all(connection) where member.state == "ACTIVE" {
                guard let string = member.dsn else {
                    throw Failure(
                        "connection strings of nodes can't be read",
                        hint: "Connect as a member of bdr_superuser, or name the nodes with --node.")
                }
                guard let endpoint = try? DSN.endpoint(string), let host = endpoint.host, !host.isEmpty, !host.hasPrefix("/"),
                    !host.contains(",")
                else {
                    throw Failure(
                        "the connection string of \(member.name) names no host that HAProxy could reach",
                        hint: "Name all nodes: --node \(member.name)=host:port ...")
                }
                guard let port = Int(endpoint.port ?? "5432"), (1...65_535).contains(port) else {
                    throw Failure("the connection string of \(member.name) has no port that is a number")
                }
                nodes.append(HANode(name: member.name, host: host, port: port))
                database = endpoint.dbname ?? database
            }
            if dsn.isEmpty {
                dsn = "dbname=\(database)"
            }
        }
        for text in self.nodes {
            guard let node = parseNode(text) else {
                throw Failure("--node \(text) is not of the form name=host:port", code: 64)
            }
            nodes.append(node)
        }
        if let endpoint = try? DSN.endpoint(dsn), let name = endpoint.dbname {
            database = name
        }
        if let first = self.first {
            guard let place = nodes.firstIndex(where: { $0.name == first }) else {
                throw Failure("there is no active node \"\(first)\"", code: ExitCodes.no)
            }
            nodes.insert(nodes.remove(at: place), at: 0)
        }
        var settings = HASettings(nodes: nodes)
        settings.backend = self.backend
        settings.bind = self.bind
        settings.bindPort = self.bindPort
        settings.socket = self.socket
        settings.check = self.check
        settings.agentPort = self.agentPort
        settings.checkUser = self.checkUser
        settings.checkDatabase = database
        settings.proxyHost = self.proxyHost
        settings.poolAddress = self.poolAddress
        settings.poolPort = self.poolPort
        settings.poolAdmin = self.poolAdmin
        settings.poolAuthType = self.poolAuthType
        settings.poolAuthFile = self.poolAuthFile
        settings.poolSocketDirectory = self.poolSocketDirectory
        settings.unprivileged = self.unprivileged
        if self.unprivileged {
            settings.poolLog = self.directory + "/pgbouncer.log"
            settings.poolPidFile = self.directory + "/pgbouncer.pid"
            settings.checkScript = self.directory + "/bdr-check"
        }
        var files = [
            ("haproxy.cfg", settings.haproxy(), mode_t(0o644)), ("pgbouncer.ini", settings.pgbouncer(), 0o644),
            ("bdrctl.conf", settings.bdrctl(dsn: dsn), 0o600),
        ]
        switch self.check {
        case .agent: files.append(("bdrctl-agent.service", settings.agentUnit(database: database), 0o644))
        case .external: files.append(("bdr-check", settings.externalCheck(), 0o755))
        case .tcp: break
        }
        try self.write(files)
        if self.check == .tcp {
            print("With --check tcp, HAProxy sends traffic also to a node that is joining or behind.")
        }
    }

    private func write(_ files: [(name: String, text: String, mode: mode_t)]) throws {
        mkdir(self.directory, 0o755)
        let paths = files.map { self.directory + "/" + $0.name }
        if !self.force, let there = paths.first(where: { access($0, F_OK) == 0 }) {
            throw Failure("\(there) is there already", hint: "Add --force to replace it.")
        }
        for (path, file) in zip(paths, files) {
            try writeFile(path, file.text, mode: file.mode)
            print("wrote \(path)")
        }
    }
}

/// A node as `name=host:port`, an IPv6 address in brackets.
func parseNode(_ text: String) -> HANode? {
    guard let equals = text.firstIndex(of: "="), let colon = text.lastIndex(of: ":"), equals < colon,
        let port = Int(text[text.index(after: colon)...]), (1...65_535).contains(port)
    else {
        return nil
    }
    let name = text[..<equals]
    var host = text[text.index(after: equals)..<colon]
    if host.hasPrefix("[") && host.hasSuffix("]") {
        host = host.dropFirst().dropLast()
    }
    guard !name.isEmpty, !host.isEmpty,
        name.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_" || $0 == "-") }),
        !host.contains(where: { $0.isWhitespace })
    else {
        return nil
    }
    return HANode(name: String(name), host: String(host), port: port)
}

/// Writes a file beside the place and puts it there when it is whole.
func writeFile(_ path: String, _ text: String, mode: mode_t) throws {
    let new = path + ".new"
    let file = open(new, O_WRONLY | O_CREAT | O_TRUNC, mode)
    guard file >= 0 else {
        throw Failure("could not write \(path): \(String(cString: strerror(errno)))")
    }
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
        let count = rest.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
        guard count > 0 else {
            close(file)
            throw Failure("could not write \(path): \(String(cString: strerror(errno)))")
        }
        rest = rest.dropFirst(count)
    }
    guard fchmod(file, mode) == 0, close(file) == 0, rename(new, path) == 0 else {
        throw Failure("could not write \(path): \(String(cString: strerror(errno)))")
    }
}

func readFile(_ path: String) throws -> String {
    let file = open(path, O_RDONLY)
    guard file >= 0 else {
        throw Failure("could not read \(path): \(String(cString: strerror(errno)))")
    }
    defer { close(file) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65_536)
    while true {
        let count = read(file, &buffer, buffer.count)
        guard count >= 0 else {
            throw Failure("could not read \(path): \(String(cString: strerror(errno)))")
        }
        if count == 0 {
            return String(decoding: bytes, as: UTF8.self)
        }
        bytes += buffer[..<count]
    }
}
