// What HAProxy answers on its socket.

/// A server of a backend, from `show stat`.
public struct ProxyServer: Equatable, Sendable {
    public var name: String
    /// `UP`, `DOWN`, `MAINT`, `UP 1/3`, `no check`, ...
    public var status: String
    public var isBackup: Bool
    /// Sessions now.
    public var sessions: Int

    public init(name: String, status: String, isBackup: Bool, sessions: Int) {
        self.name = name
        self.status = status
        self.isBackup = isBackup
        self.sessions = sessions
    }

    public var isUp: Bool {
        self.status.hasPrefix("UP") || self.status == "no check"
    }

    public var isInMaintenance: Bool {
        self.status.hasPrefix("MAINT")
    }
}

public enum ProxyAnswer {
    /// Servers of a backend in the order of the configuration.
    public static func servers(_ statistics: String, backend: String) throws(OperationsError) -> [ProxyServer] {
        var lines = statistics.split(separator: "\n").map { $0.split(separator: ",", omittingEmptySubsequences: false) }
        guard let header = lines.first, header.first?.hasPrefix("# ") == true else {
            throw OperationsError("HAProxy's answer is no table of statistics: \(statistics.prefix(200))")
        }
        lines.removeFirst()
        let names = header.map { $0.hasPrefix("# ") ? String($0.dropFirst(2)) : String($0) }
        guard let proxy = names.firstIndex(of: "pxname"), let server = names.firstIndex(of: "svname"),
            let status = names.firstIndex(of: "status"), let sessions = names.firstIndex(of: "scur"),
            let backup = names.firstIndex(of: "bck")
        else {
            throw OperationsError("HAProxy's statistics lack columns")
        }
        var result: [ProxyServer] = []
        for line in lines where line.count > max(proxy, server, status, sessions, backup) && line[proxy] == backend {
            if line[server] == "BACKEND" || line[server] == "FRONTEND" {
                continue
            }
            result.append(
                ProxyServer(
                    name: String(line[server]), status: String(line[status]), isBackup: line[backup] == "1",
                    sessions: Int(line[sessions]) ?? 0))
        }
        guard !result.isEmpty else {
            throw OperationsError("HAProxy has no servers in backend \"\(backend)\"")
        }
        return result
    }

    /// The server that the stick table leads to, by name (`server_key`, HAProxy 2.4 and later); nil when the table is empty.
    public static func stuck(_ table: String) -> String? {
        for line in table.split(separator: "\n") where !line.hasPrefix("#") {
            for field in line.split(separator: " ") where field.hasPrefix("server_key=") {
                return String(field.dropFirst("server_key=".count))
            }
        }
        return nil
    }

    /// The server that gets new connections: the one that is stuck to if it is up, else the first that is up, those for backup last.
    public static func active(_ servers: [ProxyServer], stuck: String?) -> ProxyServer? {
        if let stuck, let server = servers.first(where: { $0.name == stuck && $0.isUp }) {
            return server
        }
        return servers.first { $0.isUp && !$0.isBackup } ?? servers.first { $0.isUp }
    }
}
