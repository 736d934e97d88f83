// The files for HAProxy and PgBouncer, and what HAProxy answers.

import Operations
import Testing

@Suite struct HAConfigTests {
    static let nodes = [
        HANode(name: "initial_node", host: "host1", port: 5432), HANode(name: "next_node", host: "host2", port: 5432),
    ]

    /// Lines without what is before and behind them.
    static func lines(_ text: String) -> [String] {
        text.split(separator: "\n").map { line in
            var line = line
            while line.first == " " {
                line.removeFirst()
            }
            return String(line)
        }
    }

    @Test func guide() {
        var settings = HASettings(nodes: Self.nodes)
        settings.check = .tcp
        let lines = Self.lines(settings.haproxy())
        for line in [
            "stats socket /run/haproxy/admin.sock mode 660 level admin expose-fd listeners", "frontend ft_postgresql",
            "bind *:5433", "default_backend bk_db", "backend bk_db", "stick-table type ip size 1", "stick on dst",
            "server bdr_initial_node host1:5432 check", "server bdr_next_node host2:5432 check backup",
        ] {
            #expect(lines.contains(line))
        }
        let pool = Self.lines(settings.pgbouncer())
        for line in ["* = host=proxy_server port=5433", "listen_port = 5432", "pool_mode = transaction"] {
            #expect(pool.contains(line))
        }
    }

    @Test func checks() {
        var settings = HASettings(nodes: Self.nodes)
        #expect(settings.haproxy().contains("check port 8008"))
        #expect(settings.haproxy().contains("http-check expect status 200"))
        #expect(settings.haproxy().contains("chroot"))
        settings.check = .external
        let text = settings.haproxy()
        #expect(text.contains("external-check command /etc/haproxy/bdr-check"))
        #expect(Self.lines(text).contains("external-check"))
        // the script and what it needs are outside of a chroot
        #expect(!text.contains("chroot") && !text.contains("check port"))
        #expect(settings.externalCheck().contains("bdrctl health"))
        settings.check = .tcp
        #expect(!settings.haproxy().contains("http-check") && !settings.haproxy().contains("external-check"))
    }

    @Test func noServiceThatWouldCutSessions() {
        // on-marked-down would cut sessions when a server is disabled for a switchover
        for check in HealthCheck.allCases {
            var settings = HASettings(nodes: Self.nodes)
            settings.check = check
            #expect(!settings.haproxy().contains("shutdown-sessions"))
        }
    }

    @Test func addresses() {
        let settings = HASettings(nodes: [HANode(name: "a", host: "fd00::1", port: 5), HANode(name: "b", host: "::1", port: 6)])
        #expect(Self.lines(settings.haproxy()).contains("server bdr_a [fd00::1]:5 check"))
    }

    @Test func options() throws {
        let text = HASettings(nodes: Self.nodes).bdrctl(dsn: "dbname=db1 host=h options='-c a=b'")
        let options = try parseOptions(text)
        #expect(options.map(\.name) == ["dsn", "haproxy", "backend", "proxy", "pgbouncer"])
        #expect(options[0].value == "dbname=db1 host=h options='-c a=b'")
        #expect(throws: OperationsError("line 1: there is no option \"x\"")) { try parseOptions("x = 1") }
        #expect(throws: OperationsError("line 2 is not of the form name = value")) { try parseOptions("; c\nabc") }
    }

    static let statistics = """
        # pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,weight,act,bck,
        ft_postgresql,FRONTEND,,,1,1,100,5,0,0,0,0,0,,,,,OPEN,,,,
        bk_db,bdr_initial_node,0,0,3,1,,4,0,0,,0,,0,0,0,0,MAINT,1,1,0,
        bk_db,bdr_next_node,0,0,7,1,,4,0,0,,0,,0,0,0,0,UP 1/2,1,0,1,
        other,bdr_next_node,0,0,7,1,,4,0,0,,0,,0,0,0,0,UP,1,0,1,
        bk_db,BACKEND,0,0,1,1,10,5,0,0,0,0,,0,0,0,0,UP,1,1,0,

        """

    @Test func servers() throws {
        let servers = try ProxyAnswer.servers(Self.statistics, backend: "bk_db")
        #expect(servers.map(\.name) == ["bdr_initial_node", "bdr_next_node"])
        #expect(servers.map(\.isUp) == [false, true])
        #expect(servers.map(\.isInMaintenance) == [true, false])
        #expect(servers.map(\.isBackup) == [false, true])
        #expect(servers.map(\.sessions) == [3, 7])
        #expect(throws: OperationsError("HAProxy has no servers in backend \"bk\"")) {
            try ProxyAnswer.servers(Self.statistics, backend: "bk")
        }
        #expect(throws: OperationsError.self) { try ProxyAnswer.servers("Permission denied\n", backend: "bk_db") }
        #expect(throws: OperationsError.self) { try ProxyAnswer.servers("", backend: "bk_db") }
    }

    @Test func stickTable() {
        #expect(
            ProxyAnswer.stuck(
                "# table: bk_db, type: ip, size:1, used:1\n0x55: key=127.0.0.1 use=0 exp=0 server_id=2 server_key=bdr_next_node\n\n")
                == "bdr_next_node")
        #expect(ProxyAnswer.stuck("# table: bk_db, type: ip, size:1, used:0\n") == nil)
        #expect(ProxyAnswer.stuck("") == nil)
    }

    @Test func active() {
        func server(_ name: String, _ status: String, backup: Bool) -> ProxyServer {
            ProxyServer(name: name, status: status, isBackup: backup, sessions: 0)
        }
        let both = [server("a", "UP", backup: false), server("b", "UP", backup: true)]
        #expect(ProxyAnswer.active(both, stuck: nil)?.name == "a")
        #expect(ProxyAnswer.active(both, stuck: "b")?.name == "b")
        #expect(ProxyAnswer.active([server("a", "DOWN", backup: false), both[1]], stuck: "a")?.name == "b")
        #expect(ProxyAnswer.active([server("a", "MAINT", backup: false), both[1]], stuck: nil)?.name == "b")
        #expect(ProxyAnswer.active([server("a", "DOWN", backup: false)], stuck: nil) == nil)
    }
}
