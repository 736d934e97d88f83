// The files of the high-availability set-up: HAProxy in front of the nodes, PgBouncer in front of HAProxy.

/// How HAProxy finds out whether a node may get traffic.
public enum HealthCheck: String, CaseIterable, Sendable {
    /// It asks `bdrctl agent`, which runs beside each node, by HTTP.
    case agent
    /// It runs a script, which asks the node.
    case external
    /// It only connects to the port: a node that is joining, parted or behind gets traffic, too.
    case tcp
}

/// A node as HAProxy sees it.
public struct HANode: Equatable, Sendable {
    public var name: String
    public var host: String
    public var port: Int

    public init(name: String, host: String, port: Int) {
        self.name = name
        self.host = host
        self.port = port
    }

    /// Its name in HAProxy's configuration.
    public var server: String {
        "bdr_" + self.name
    }
}

public struct HASettings: Equatable, Sendable {
    /// The first one gets the traffic, the others stand by in their order.
    public var nodes: [HANode]
    public var backend = "bk_db"
    public var frontend = "ft_postgresql"
    /// Address HAProxy listens on, `*` for all.
    public var bind = "*"
    public var bindPort = 5433
    /// HAProxy's socket for commands.
    public var socket = "/run/haproxy/admin.sock"
    public var check = HealthCheck.agent
    public var agentPort = 8008
    /// Script of the external check, and folder of bdrctl and libraries for it.
    public var checkScript = "/etc/haproxy/bdr-check"
    /// User and database by which the external check asks.
    public var checkUser = "bdr_health"
    public var checkDatabase = "postgres"
    /// As PgBouncer reaches HAProxy.
    public var proxyHost = "proxy_server"
    public var poolAddress = "*"
    public var poolPort = 5432
    /// User that may give commands to PgBouncer.
    public var poolAdmin = "pgbouncer"
    public var poolAuthType = "scram-sha-256"
    public var poolAuthFile = "/etc/pgbouncer/userlist.txt"
    public var poolSocketDirectory = "/var/run/postgresql"
    public var poolLog = "/var/log/postgresql/pgbouncer.log"
    public var poolPidFile = "/var/run/postgresql/pgbouncer.pid"
    /// For unprivileged set-ups: no chroot, no user, no log to the system.
    public var unprivileged = false

    public init(nodes: [HANode]) {
        self.nodes = nodes
    }

    public func haproxy() -> String {
        var text = """
            # Written by bdrctl ha-config. One node gets all traffic; the next one gets it when that one fails, or is told to.

            global
                stats socket \(self.socket) mode 660 level admin expose-fd listeners
                stats timeout 1m

            """
        if !self.unprivileged {
            text += """
                    log /dev/log local0
                    user haproxy
                    group haproxy
                    daemon

                """
            if self.check != .external {
                text += "    chroot /var/lib/haproxy\n"
            }
        }
        if self.check == .external {
            text += "    external-check\n    insecure-fork-wanted\n"
        }
        text += """

            defaults
                mode tcp
                \(self.unprivileged ? "no log" : "log global\n    option tcplog")
                retries 3
                option redispatch
                timeout connect 3s
                timeout check 3s
                # sessions of databases are idle for long; that a node's machine is gone is found by the keep-alives below
                timeout client 24h
                timeout server 24h
                option clitcpka
                option srvtcpka
                srvtcpka-idle 10s
                srvtcpka-intvl 5s
                srvtcpka-cnt 3

            frontend \(self.frontend)
                bind \(self.bind):\(self.bindPort)
                default_backend \(self.backend)

            backend \(self.backend)
                # one entry: whichever node serves goes on to serve, also when the one before it comes back
                stick-table type ip size 1
                stick on dst

            """
        switch self.check {
        case .agent:
            text += """
                    option httpchk
                    http-check send meth GET uri /ready
                    http-check expect status 200

                """
        case .external:
            text += """
                    option external-check
                    external-check path "/usr/local/bin:/usr/lib/postgresql/15/bin:/usr/bin:/bin"
                    external-check command \(self.checkScript)

                """
        case .tcp:
            break
        }
        text += "    default-server inter 1s fastinter 500ms fall 2 rise 2 tcp-ut 20s\(self.check == .agent ? " check port \(self.agentPort)" : "")\n"
        for (place, node) in self.nodes.enumerated() {
            text += "    server \(node.server) \(Self.address(node.host)):\(node.port) check\(place == 0 ? "" : " backup")\n"
        }
        return text
    }

    public func pgbouncer() -> String {
        """
        ; Written by bdrctl ha-config. Clients connect here; PgBouncer connects to the node that HAProxy chooses.

        [databases]
        * = host=\(self.proxyHost) port=\(self.bindPort)

        [pgbouncer]
        listen_addr = \(self.poolAddress)
        listen_port = \(self.poolPort)
        unix_socket_dir = \(self.poolSocketDirectory)
        auth_type = \(self.poolAuthType)
        auth_file = \(self.poolAuthFile)
        admin_users = \(self.poolAdmin)
        logfile = \(self.poolLog)
        pidfile = \(self.poolPidFile)

        ; transactions, not sessions, are given to servers: a switchover then waits only for the transactions that run
        pool_mode = transaction
        max_client_conn = 1000
        default_pool_size = 20
        ; a node that failed is given up soon, and asked for again soon
        server_login_retry = 1
        server_connect_timeout = 5
        tcp_keepalive = 1
        tcp_keepidle = 10
        tcp_keepintvl = 5
        tcp_keepcnt = 3
        ; parameters that drivers send and PgBouncer can't keep
        ignore_startup_parameters = extra_float_digits

        """
    }

    /// The script that HAProxy runs with the address and the port of a node as third and fourth argument.
    public func externalCheck() -> String {
        """
        #!/bin/sh
        # Written by bdrctl ha-config: exit code 0 when the node at address $3, port $4 may get traffic. HAProxy runs it.
        exec bdrctl health --quiet --timeout 3 --dsn "host=$3 port=$4 user=\(self.checkUser) dbname=\(self.checkDatabase)"

        """
    }

    /// A systemd unit for the agent, on the machine of each node.
    public func agentUnit(database: String) -> String {
        """
        # Written by bdrctl ha-config. On each node's machine: /etc/systemd/system/bdrctl-agent.service
        [Unit]
        Description=health of the bdr node for HAProxy
        After=postgresql.service

        [Service]
        User=postgres
        ExecStart=/usr/bin/env bdrctl agent --dsn "dbname=\(database)" --listen :: --port \(self.agentPort)
        Environment=PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin
        Restart=always
        RestartSec=1

        [Install]
        WantedBy=multi-user.target

        """
    }

    /// What `bdrctl switchover` has to know, as it reads it with --config.
    public func bdrctl(dsn: String) -> String {
        """
        # Written by bdrctl ha-config, for bdrctl switchover --config.
        dsn = \(dsn)
        haproxy = \(self.socket)
        backend = \(self.backend)
        proxy = host=\(self.proxyHost) port=\(self.bindPort)
        pgbouncer = host=\(self.poolSocketDirectory) port=\(self.poolPort) user=\(self.poolAdmin)

        """
    }

    /// An IPv6 address gets brackets.
    static func address(_ host: String) -> String {
        host.contains(":") && !host.hasPrefix("[") ? "[\(host)]" : host
    }
}

/// Options in a file: lines `name = value`; a name may stand there more than once.
public func parseOptions(_ text: String) throws(OperationsError) -> [(name: String, value: String)] {
    var options: [(name: String, value: String)] = []
    for (number, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
        let line = trimmed(line)
        if line.isEmpty || line.first == "#" || line.first == ";" {
            continue
        }
        guard let equals = line.firstIndex(of: "=") else {
            throw OperationsError("line \(number + 1) is not of the form name = value")
        }
        let name = trimmed(line[..<equals])
        guard ["dsn", "haproxy", "backend", "proxy", "pgbouncer"].contains(name) else {
            throw OperationsError("line \(number + 1): there is no option \"\(name)\"")
        }
        options.append((String(name), String(trimmed(line[line.index(after: equals)...]))))
    }
    return options
}

/// What can't be done with what was given.
public struct OperationsError: Error, Equatable {
    public var message: String

    public init(_ message: String) {
        self.message = message
    }
}

func trimmed(_ text: Substring) -> Substring {
    var text = text
    while let first = text.first, first.isWhitespace {
        text.removeFirst()
    }
    while let last = text.last, last.isWhitespace {
        text.removeLast()
    }
    return text
}
