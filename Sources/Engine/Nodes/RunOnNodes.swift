// bdr.run_on_all_nodes and its like: statements of a user on each node, over connections of their own; nothing of it is
// replicated DDL.

internal import CHost
internal import Membership

@c(bdr_engine_run_on_nodes)
public func bdrEngineRunOnNodes(
    _ names: UnsafePointer<UnsafePointer<CChar>?>?, _ group: UnsafePointer<CChar>?, _ query: UnsafePointer<CChar>?,
    _ result: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> Int32 {
    entry {
        let query = try Argument.text(query, "query")
        var wanted: [String]?
        if let names {
            var list: [String] = []
            var next = names
            while let name = next.pointee {
                list.append(String(cString: name))
                next += 1
            }
            wanted = list
        }
        _ = try LocalNode.require()
        if let group = group.map({ String(cString: $0) }) {
            guard try SQL.query("SELECT FROM bdr.node_group WHERE node_group_name = $1::pg_catalog.name", [group]).count > 0 else {
                throw BdrError(
                    SQLSTATE.undefinedObject, "there is no node group \"\(group)\"", hint: "See bdr.node_group.")
            }
        }
        let nodes = try SQL.query(
            """
            SELECT n.node_id, n.node_name, i.if_dsn FROM bdr.node n JOIN bdr.node_interface i ON i.node_id = n.node_id
             WHERE n.node_state < $1::pg_catalog.oid ORDER BY n.node_id
            """, [String(NodeState.parted.rawValue)])
        let known = (0..<nodes.count).compactMap { nodes[$0, 1] }
        if let unknown = wanted?.first(where: { !known.contains($0) }) {
            throw BdrError(SQLSTATE.undefinedObject, "there is no node \"\(unknown)\"", hint: "See bdr.node_summary.")
        }
        var answers: [String] = []
        for row in 0..<nodes.count {
            guard let id = nodes[row, 0], let name = nodes[row, 1], let dsn = nodes[row, 2], wanted?.contains(name) ?? true else {
                continue
            }
            try host(bdr_host_check_interrupts())
            answers.append(
                "{\"dsn\":\(JSONText.string(DSN.masked(dsn))),\"node_id\":\(JSONText.string(id)),"
                    + "\"node_name\":\(JSONText.string(name)),\"response\":\(try answer(of: dsn, to: query))}")
        }
        result?.pointee = bdr_host_copy_text("[" + answers.joined(separator: ",") + "]")
    }
}

/// What a node says, as JSON; an error is an answer, too.
private func answer(of dsn: String, to query: String) throws -> String {
    do {
        let connection = try Connection(userSession: dsn, settings: ["bdr.ddl_replication=off"])
        defer { connection.close() }
        let rows = try connection.run(query)
        let columns = Int(clamping: rows.processed)
        var tuples: [String] = []
        for row in 3..<max(3, rows.count) {
            let values = (0..<columns).map { column in
                JSONText.string(rows[1, column] ?? "") + ":" + JSONText.value(rows[row, column], kind: rows[2, column])
            }
            tuples.append("{" + values.joined(separator: ",") + "}")
        }
        return "{\"command_status\":\(JSONText.string(rows[0, 0] ?? "")),\"command_tuples\":[\(tuples.joined(separator: ","))]}"
    } catch let error as RemoteError {
        return "{\"command_status\":\"ERROR\",\"error_sqlstate\":\(JSONText.string(error.sqlstate)),"
            + "\"error_message\":\(JSONText.string(error.message))}"
    }
}

enum JSONText {
    static func string(_ text: String) -> String {
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": quoted += "\\\""
            case "\\": quoted += "\\\\"
            case "\n": quoted += "\\n"
            case "\r": quoted += "\\r"
            case "\t": quoted += "\\t"
            default:
                if scalar.value < 0x20 {
                    let digits = String(scalar.value, radix: 16)
                    quoted += "\\u" + String(repeating: "0", count: max(0, 4 - digits.count)) + digits
                } else {
                    quoted.unicodeScalars.append(scalar)
                }
            }
        }
        return quoted + "\""
    }

    /// A value as it came from a server, by its kind (bdr_host_conn_run).
    static func value(_ text: String?, kind: String?) -> String {
        guard let text else {
            return "null"
        }
        switch kind {
        case "b": return text == "t" ? "true" : "false"
        // not NaN or Infinity
        case "n": return text.utf8.allSatisfy { "+-.0123456789eE".utf8.contains($0) } ? text : self.string(text)
        case "j": return text
        default: return self.string(text)
        }
    }
}
