// bdrctl metrics: the state of a node as text for Prometheus.

import ArgumentParser
import Glibc
import Operations

struct MetricsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "metrics",
        abstract: "Prints metrics of a node in Prometheus' text format.",
        discussion: "bdrctl agent serves the same at /metrics. Members of bdr_monitor may read all of it.")

    @OptionGroup var node: NodeOption

    func run() throws {
        print(try Self.collect(try self.node.openNode()), terminator: "")
    }

    static func collect(_ connection: Connection) throws -> String {
        var metrics = Metrics()
        let health = try connection.query(
            "SELECT h.ready, h.state, l.node_name, l.node_group_name FROM bdr.node_health() h, bdr.local_node_summary l")
        let node = health[0, 2] ?? ""
        metrics.add(
            "bdr_node_info", "gauge", "Names of the node and its group.",
            labels: [("node", node), ("group", health[0, 3] ?? ""), ("state", health[0, 1] ?? "")], value: "1")
        metrics.add(
            "bdr_node_ready", "gauge", "1 when the node may get traffic.", labels: [("node", node)],
            value: health[0, 0] == "t" ? "1" : "0")
        for row in try connection.query(
            "SELECT peer_state_name, count(*) FROM bdr.node_summary GROUP BY 1 ORDER BY 1").values
        {
            metrics.add(
                "bdr_nodes", "gauge", "Nodes of the group by state, as this one knows them.",
                labels: [("node", node), ("state", row[0] ?? "")], value: row[1] ?? "0")
        }
        let rates = try connection.query(
            """
            SELECT target_name, replay_lag_bytes, EXTRACT(epoch FROM replay_lag), retained_wal_bytes, apply_rate,
                   (state = 'streaming')::int, (subscription_status = 'replicating')::int
              FROM bdr.node_replication_rates ORDER BY 1
            """)
        let series: [(name: String, help: String, column: Int)] = [
            ("bdr_peer_lag_bytes", "Bytes of WAL that a peer has not confirmed.", 1),
            ("bdr_peer_lag_seconds", "How long ago a peer had everything.", 2),
            ("bdr_peer_retained_wal_bytes", "Bytes of WAL that are kept for a peer.", 3),
            ("bdr_peer_apply_bytes_per_second", "Bytes of WAL that a peer confirms a second.", 4),
            ("bdr_peer_sending", "1 when the node streams to a peer.", 5),
            ("bdr_peer_receiving", "1 when the node receives and applies from a peer.", 6),
        ]
        for entry in series {
            for row in rates.values {
                if let value = row[entry.column] {
                    metrics.add(
                        entry.name, "gauge", entry.help, labels: [("node", node), ("peer", row[0] ?? "")], value: value)
                }
            }
        }
        for row in try connection.query(
            """
            SELECT o.node_name, s.ncommit, s.ninsert, s.nupdate, s.ndelete, s.ntruncate, s.nconflict, s.nmissing, s.nconnect
              FROM bdr.stat_subscription s JOIN bdr.subscription b ON b.pgl_subscription_id = s.subid
              JOIN bdr.node o ON o.node_id = b.origin_node_id ORDER BY 1
            """
        ).values {
            let kinds = ["commit", "insert", "update", "delete", "truncate"]
            let labels = [("node", node), ("peer", row[0] ?? "")]
            for (place, kind) in kinds.enumerated() {
                metrics.add(
                    "bdr_applied_total", "counter", "What was applied from a peer since the server was started.",
                    labels: labels + [("kind", kind)], value: row[place + 1] ?? "0")
            }
            for (name, help, column) in [
                ("bdr_conflicts_total", "Conflicts with changes of a peer since the server was started.", 6),
                ("bdr_missing_rows_total", "Rows that a peer changed and that were not here.", 7),
                ("bdr_connects_total", "Connections to a peer for its changes.", 8),
            ] {
                metrics.add(name, "counter", help, labels: labels, value: row[column] ?? "0")
            }
        }
        let errors = try connection.query(
            "SELECT worker_role_name, EXTRACT(epoch FROM max(error_time)) FROM bdr.worker_errors GROUP BY 1 ORDER BY 1")
        for row in errors.values {
            metrics.add(
                "bdr_last_error_timestamp_seconds", "gauge", "When a worker failed last.",
                labels: [("node", node), ("worker", row[0] ?? "")], value: row[1] ?? "0")
        }
        return metrics.rendered()
    }
}

/// What was printed without an end of line is to be seen now.
func flushOutput() {
    fflush(nil)
}
