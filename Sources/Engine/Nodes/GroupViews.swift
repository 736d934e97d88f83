// What the views of a whole group show: each node is asked what it has to say of itself.
//
// Whoever may read these views needs no rights on the other nodes: the questions are these, and the connections are those of the
// group. A node that does not answer is part of the answer.

internal import CHost
internal import Membership

/// What a node can be asked. The columns of an answer are text.
enum GroupQuestion: String {
    case versions
    case slots
    case subscriptions

    /// How many columns an answer can have (bdr.internal_group_rows).
    static let columns = 12

    var sql: String {
        switch self {
        case .versions:
            "SELECT pg_catalog.version(), bdr.bdr_version(), bdr.bdr_edition()"
        case .slots:
            """
            SELECT node_group_name, origin_name, target_name, COALESCE(slot_name, local_slot_name), COALESCE(active, false), state, write_lag,
                   flush_lag, replay_lag, sent_lag_bytes, write_lag_bytes, COALESCE(replay_lag_bytes, flush_lag_bytes)
              FROM bdr.node_slots
            """
        case .subscriptions:
            """
            SELECT origin_name, target_name, last_xact_replay_timestamp,
                   pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - last_xact_replay_timestamp),
                   subscription_status
              FROM bdr.subscription_summary
            """
        }
    }
}

enum GroupViews {
    /// How long a view waits for nodes that do not answer, ms.
    static let timeout: Int32 = 5000

    /// What this node answers to another one.
    static func answer(_ name: String) throws -> Rows {
        guard let question = GroupQuestion(rawValue: name) else {
            throw BdrError(
                SQLSTATE.featureNotSupported, "unknown question \"\(name)\" of another node",
                hint: "Bring both nodes to the same version of bdr.")
        }
        return try SQL.query(question.sql)
    }

    /// What all nodes answer: node id, node name, why there is no answer, and the columns of the answer.
    static func ask(_ name: String) throws -> Rows {
        guard let question = GroupQuestion(rawValue: name) else {
            throw BdrError(SQLSTATE.invalidParameterValue, "unknown question \"\(name)\"")
        }
        let nodes = try SQL.query(
            """
            SELECT n.node_id, n.node_name, i.if_dsn FROM bdr.node n JOIN bdr.node_interface i ON i.node_id = n.node_id
             WHERE n.node_state < $1::pg_catalog.oid AND n.node_group_id <> 0 ORDER BY n.node_id
            """, [String(NodeState.parted.rawValue)])
        var labels: [String?] = []
        var dsns: [String?] = []
        var options: [String?] = []
        for row in 0..<nodes.count {
            guard let dsn = nodes[row, 2] else {
                continue
            }
            labels += [nodes[row, 0], nodes[row, 1]]
            dsns.append(dsn)
            options.append(try SessionSettings.options(for: dsn, further: ["statement_timeout=\(self.timeout)"]))
        }
        let sql =
            "SELECT * FROM bdr.internal_peer_call('\(PeerCall.groupRows.rawValue)', "
            + "VARIADIC ARRAY['\(question.rawValue)']::pg_catalog.text[])"
        var result: OpaquePointer?
        try withCStrings(dsns) { dsnPointers in
            try withCStrings(options) { optionPointers in
                try withCStrings(labels) { labelPointers in
                    _ = try host(
                        bdr_host_ask_nodes(
                            Int32(clamping: dsns.count), dsnPointers, optionPointers, labelPointers, sql,
                            Int32(clamping: GroupQuestion.columns), self.timeout, &result))
                }
            }
        }
        return Rows(adopting: result)
    }
}

@c(bdr_engine_group_rows)
public func bdrEngineGroupRows(_ what: UnsafePointer<CChar>?, _ result: UnsafeMutablePointer<OpaquePointer?>?) -> Int32 {
    entry {
        let rows = try GroupViews.ask(Argument.text(what, "what"))
        result?.pointee = rows.release()
    }
}
