// bdr.create_node and bdr.create_node_group.

internal import CHost
internal import Membership

@c(bdr_engine_create_node)
public func bdrEngineCreateNode(
    _ nodeName: UnsafePointer<CChar>?, _ localDSN: UnsafePointer<CChar>?, _ nodeKind: UnsafePointer<CChar>?
) -> Int32 {
    entry {
        try CreateNode(
            name: Argument.text(nodeName, "node_name"), dsn: Argument.text(localDSN, "local_dsn"),
            kind: nodeKind.map { String(cString: $0) }
        ).run()
    }
}

@c(bdr_engine_create_node_group)
public func bdrEngineCreateNodeGroup(
    _ groupName: UnsafePointer<CChar>?, _ parentGroup: UnsafePointer<CChar>?, _ join: Bool,
    _ groupType: UnsafePointer<CChar>?
) -> Int32 {
    entry {
        try createNodeGroup(
            name: Argument.text(groupName, "node_group_name"), parent: parentGroup.map { String(cString: $0) }, join: join,
            type: groupType.map { String(cString: $0) })
    }
}

/// Arguments of SQL functions.
enum Argument {
    /// - Throws: null_value_not_allowed.
    static func text(_ argument: UnsafePointer<CChar>?, _ name: String) throws -> String {
        guard let argument else {
            throw BdrError("22004", "\(name) must not be null")
        }
        return String(cString: argument)
    }

    /// - Throws: feature_not_supported for a value of a later version, invalid_parameter_value for any other.
    static func unsupported(_ value: String, _ name: String, known: [String]) throws -> Never {
        if known.contains(value) {
            throw BdrError(
                SQLSTATE.featureNotSupported, "\(name) \"\(value)\" is not supported yet",
                hint: "Leave the parameter away.")
        }
        throw BdrError(
            SQLSTATE.invalidParameterValue, "unknown value \"\(value)\" of \(name)",
            detail: "Known values are \(known.joined(separator: ", ")).")
    }

    /// - Throws: invalid_parameter_value when libpq would not take it.
    static func connectionString(_ dsn: String, _ name: String) throws {
        let entries = try DSN.parse(dsn)
        guard !entries.isEmpty else {
            throw BdrError(
                SQLSTATE.invalidParameterValue, "\(name) is an empty connection string",
                hint: "Give a connection string such as 'host=host1 port=5432 dbname=db1 user=user1'.")
        }
    }
}

struct CreateNode {
    let name: String
    let dsn: String
    let kind: String?

    func run() throws {
        if let kind = self.kind, kind != "data" {
            try Argument.unsupported(
                kind, "node_kind", known: ["data", "standby", "witness", "subscriber-only"])
        }
        try validateNodeName(self.name)
        try Argument.connectionString(self.dsn, "local_dsn")
        try SQL.query("LOCK TABLE bdr.local_node IN SHARE ROW EXCLUSIVE MODE")
        if try LocalNode.find()?.state == .parted {
            // what is left of a node that has left its group
            try Parting.forgetLocalNode()
        } else if let node = try LocalNode.find() {
            throw BdrError(
                SQLSTATE.duplicateObject, "this database already is node \"\(node.name)\"",
                detail: "A database is one node.")
        }
        try self.checkServer()
        let id = "1"
        try SQL.query(
            """
            INSERT INTO bdr.node (node_id, node_name, node_state, target_state, dbname)
            VALUES ($1::pg_catalog.oid, $2::pg_catalog.name, $3::pg_catalog.oid, $4::pg_catalog.oid,
                    pg_catalog.current_database())
            """, [id, self.name, String(NodeState.created.rawValue), String(NodeState.active.rawValue)])
        try SQL.query(
            """
            INSERT INTO bdr.node_interface (if_id, if_name, node_id, if_dsn)
            VALUES ($1::pg_catalog.oid, $2::pg_catalog.name, $1::pg_catalog.oid, $3)
            """, [id, self.name, self.dsn])
        try SQL.query(
            """
            INSERT INTO bdr.local_node (node_id, system_identifier, database_oid)
            VALUES ($1::pg_catalog.oid, $2::pg_catalog.int8, $3::pg_catalog.oid)
            """,
            [id, String(Int64(bitPattern: bdr_host_system_identifier())), String(bdr_host_database_oid())])
        try SQL.query(
            "INSERT INTO bdr.node_local_info (node_id, applied_state) VALUES ($1::pg_catalog.oid, $2::pg_catalog.oid)",
            [id, String(NodeState.created.rawValue)])
        try NodeCatalog.journal(1, .created)
    }

    /// The DSN leads here, and its role finds a server that is set up for a node.
    private func checkServer() throws {
        let here = try DatabaseIdentity.read { try SQL.query($0, $1) }
        let loop: Connection
        do {
            loop = try Connection(dsn: self.dsn)
        } catch let error as RemoteError {
            throw error.asError("could not connect with local_dsn")
        }
        do {
            let found = try DatabaseIdentity.read { try loop.query($0, $1) }
            if found != here {
                throw BdrError(
                    SQLSTATE.invalidParameterValue,
                    found.systemIdentifier == here.systemIdentifier && found.startTime == here.startTime
                        ? "local_dsn leads to another database of this server"
                        : "local_dsn leads to a different server than this database's",
                    hint: "local_dsn is how the other nodes connect to this database.")
            }
            let (settings, role) = try ServerProbe.settings(peers: 1) { try loop.query($0, $1) }
            let checks = checkSettings(settings)
            try ServerProbe.refuse(
                checks.filter { $0.name != "output_plugin_libraries" || !self.canPermit }, subject: "this server",
                role: role)
            try self.permitPlugin(checks)
            loop.close()
            let stream = try Connection(dsn: self.dsn, options: [("replication", "database")])
            try stream.query("IDENTIFY_SYSTEM")
        } catch let error as RemoteError {
            throw error.asError(
                "local_dsn does not allow a replication connection",
                hint: "The other nodes stream from this database: permit the role in pg_hba.conf, for this database.")
        }
    }

    private var canPermit: Bool {
        (try? SQL.query("SELECT pg_catalog.current_setting('is_superuser')"))?[0, 0] == "on"
    }

    /// Servers with a list of permitted output plugins need ours in it.
    private func permitPlugin(_ checks: [SettingCheck]) throws {
        guard let check = checks.first(where: { $0.name == "output_plugin_libraries" }), check.status == .error,
            self.canPermit, let hint = check.hint, let command = Self.command(in: hint)
        else {
            return
        }
        try SQL.query(command)
        try Log.notice("output plugin \"bdr\" is now permitted in this database", detail: "\(command);")
    }

    /// The statement inside the hint of the check.
    static func command(in hint: String) -> String? {
        var index = hint.startIndex
        while index < hint.endIndex, !hint[index...].hasPrefix("ALTER DATABASE ") {
            index = hint.index(after: index)
        }
        let rest = hint[index...]
        guard let end = rest.firstIndex(of: ";") else {
            return nil
        }
        return String(rest[..<end])
    }
}

private func createNodeGroup(name: String, parent: String?, join: Bool, type: String?) throws {
    if parent != nil {
        throw BdrError(
            SQLSTATE.featureNotSupported, "parent_group_name is not supported yet", detail: "A group has no sub-groups.",
            hint: "Leave the parameter away.")
    }
    if !join {
        throw BdrError(
            SQLSTATE.featureNotSupported, "join_node_group := false is not supported",
            detail: "It has a meaning only together with parent_group_name.", hint: "Leave the parameter away.")
    }
    if let type {
        try Argument.unsupported(
            type, "node_group_type",
            known: ["subscriber-only", "datanode", "read coordinator", "write coordinator"])
    }
    try validateGroupName(name)
    try SQL.query("LOCK TABLE bdr.local_node IN SHARE ROW EXCLUSIVE MODE")
    let node = try LocalNode.require()
    guard !node.isInGroup, node.state == .created else {
        throw BdrError(
            SQLSTATE.objectNotInPrerequisiteState, "node \"\(node.name)\" is in a group already",
            detail: "A node is in one group.")
    }
    guard try SQL.query("SELECT FROM bdr.join_state WHERE step NOT IN ('active', 'failed')").count == 0 else {
        throw BdrError(SQLSTATE.objectNotInPrerequisiteState, "node \"\(node.name)\" is joining a group")
    }
    var ids = NodeIdAllocator()
    let id = try ids.allocate()
    // not the number of any object; it only has to differ from that of the next group
    let group = String(bdr_host_random() % 2_000_000_000 + 16_384)
    try SQL.query(
        """
        INSERT INTO bdr.node_group (node_group_id, node_group_name, node_group_default_repset, node_group_uuid,
                                    node_group_next_node_id)
        VALUES ($1::pg_catalog.oid, $2::pg_catalog.name, $1::pg_catalog.oid, pg_catalog.gen_random_uuid(),
                $3::pg_catalog.oid)
        """, [group, name, String(ids.counter)])
    // a node whose earlier join was given up kept the number it had been given
    try SQL.query(
        "UPDATE bdr.state_journal SET node_id = $2::pg_catalog.oid WHERE node_id = $1::pg_catalog.oid",
        [String(node.id), String(id)])
    try SQL.query(
        """
        UPDATE bdr.node SET node_id = $2::pg_catalog.oid, node_group_id = $3::pg_catalog.oid,
               seq_id = $2::pg_catalog.int8::pg_catalog.int4, node_join_finished = true
         WHERE node_id = $1::pg_catalog.oid
        """, [String(node.id), String(id), group])
    try NodeCatalog.renumberInterface(of: String(id))
    try SQL.query(
        "UPDATE bdr.node_local_info SET pub_repsets = ARRAY[$2], sub_repsets = ARRAY[$2] WHERE node_id = $1::pg_catalog.oid",
        [String(id), name])
    try NodeCatalog.setState(id, .active)
    try SequenceKinds.forget()
    // alone, it has nothing to learn from others
    try SQL.query("INSERT INTO bdr.sequence_voter (node_id) VALUES ($1::pg_catalog.oid)", [String(id)])
    try SequenceKinds.warnOfLocalOnes()
}
