// Whether the receiver may have our changes, and whether each of us is who the other takes it for. Checked against the
// catalogs when a stream starts, as any role with REPLICATION could ask for one.
//
// The SQL session of a test may have any search_path, so every name and operator is qualified; comparisons that decide are
// made here, not in SQL.

internal import CHost
internal import Membership

/// Who this node is.
struct LocalIdentity {
    var nodeID: UInt32
    var nodeName: String
    var groupUUID: String
    /// The node whose changes are forwarded, and the number of the origin under which they are applied here; nil when this
    /// node sends its own.
    var forwarded: (node: UInt32, origin: UInt16)?
    /// Ids of the nodes whose changes are applied here, by the number of the origin; 0 is this node itself.
    var nodes: [UInt32: UInt32] = [:]
}

struct PeerCheck {
    private let options: PeerOptions

    /// For nodes that are not, or no longer, of one group.
    private static let joinHint =
        "A node gets into a group only by joining it: with an empty database, bdr.create_node() and bdr.join_node_group()."

    /// Checks inside the current transaction, or in one of its own that is over on return.
    static func run(_ options: PeerOptions) throws -> LocalIdentity {
        let check = PeerCheck(options: options)
        if bdr_host_in_xact() {
            return try check.identity()
        }
        return try Transaction.run { try check.identity() }
    }

    private init(options: PeerOptions) {
        self.options = options
    }

    private func identity() throws -> LocalIdentity {
        try self.requirePrivilege()
        try self.requireAcceptance()
        var (identity, groupID) = try self.localNode()
        try self.requireGroup(groupID, &identity)
        try self.requireTimeline()
        if let node = self.options.forwardOrigin {
            identity.forwarded = (node, try self.origin(of: node))
        }
        identity.nodes = try OriginMap.all(localID: identity.nodeID)
        return identity
    }

    private func requirePrivilege() throws {
        let rows = try SQL.query(
            """
            SELECT rolsuper OR EXISTS (
                     SELECT 1 FROM pg_catalog.pg_roles
                      WHERE rolname OPERATOR(pg_catalog.=) 'bdr_superuser'
                        AND pg_catalog.pg_has_role(session_user, oid, 'MEMBER')),
                   session_user
              FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) session_user
            """)
        guard rows[0, 0] == "t" else {
            throw BdrError(
                SQLSTATE.insufficientPrivilege,
                "role \"\(rows[0, 1] ?? "")\" may not receive the changes of this node",
                hint: "Nodes connect as a superuser or a member of role bdr_superuser.")
        }
    }

    private func requireAcceptance() throws {
        guard bdr_host_setting("bdr.accept_connections").map({ String(cString: $0) }) != "off" else {
            throw BdrError(
                SQLSTATE.cannotConnectNow, "this node accepts no connections of other nodes at present",
                hint: "On this node, set bdr.accept_connections to on.")
        }
    }

    /// This node and its group, after checking that it is the node the receiver asked for, and that the receiver is known.
    private func localNode() throws -> (LocalIdentity, groupID: String) {
        // without the extension, whatever is called like its tables is somebody else's, and may be a trap
        let installed = try SQL.query(
            "SELECT 1 FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'bdr'")
        guard installed.count > 0 else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "this database is not a bdr node",
                detail: "Extension bdr is not installed in it.",
                hint: "This output plugin serves only nodes of a bdr group.")
        }
        let local = try SQL.query("SELECT node_id, system_identifier, database_oid FROM bdr.local_node")
        guard local.count == 1, let localID = local[0, 0].flatMap({ UInt32($0) }) else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "this database is not a bdr node",
                hint: "This output plugin serves only nodes of a bdr group.")
        }
        guard local[0, 1] == String(Int64(bitPattern: bdr_host_system_identifier())),
            local[0, 2] == String(bdr_host_database_oid())
        else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "this database is a copy of a bdr node, not the node",
                hint: "Remove the node's configuration from the copy: DROP EXTENSION bdr CASCADE.")
        }

        let nodes = try SQL.query("SELECT node_id, node_name, node_state, node_group_id FROM bdr.node")
        func row(_ id: UInt32) -> Int? {
            (0..<nodes.count).first { nodes[$0, 0] == String(id) }
        }
        guard let own = row(localID), let ownName = nodes[own, 1] else {
            throw BdrError(SQLSTATE.objectNotInPrerequisiteState, "node id \(localID) of this database is not known")
        }
        guard localID == self.options.peerID, ownName == self.options.peerName else {
            throw BdrError(
                SQLSTATE.invalidParameterValue,
                "this is node \"\(ownName)\" (id \(localID)), not node \"\(self.options.peerName)\" "
                    + "(id \(self.options.peerID))",
                hint: "Correct the connection string of the node.")
        }
        let parted = String(NodeState.parted.rawValue)
        guard nodes[own, 2] != parted else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "node \"\(ownName)\" was parted from its group",
                hint: Self.joinHint)
        }
        guard let receiver = row(self.options.nodeID), receiver != own,
            nodes[receiver, 1] == self.options.nodeName, nodes[receiver, 2] != parted
        else {
            throw BdrError(
                SQLSTATE.insufficientPrivilege,
                "node \"\(self.options.nodeName)\" (id \(self.options.nodeID)) is not a peer of this node",
                detail: "It is not in the group, or it was parted.", hint: Self.joinHint)
        }
        return (LocalIdentity(nodeID: localID, nodeName: ownName, groupUUID: ""), nodes[own, 3] ?? "")
    }

    private func requireGroup(_ id: String, _ identity: inout LocalIdentity) throws {
        let groups = try SQL.query("SELECT node_group_id, node_group_name, node_group_uuid FROM bdr.node_group")
        guard let row = (0..<groups.count).first(where: { groups[$0, 0] == id }),
            let name = groups[row, 1], let uuid = groups[row, 2]
        else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "node \"\(identity.nodeName)\" is in no group",
                hint: "There, call bdr.create_node_group() or bdr.join_node_group().")
        }
        guard name == self.options.groupName, uuid == self.options.groupUUID else {
            throw BdrError(
                SQLSTATE.invalidParameterValue,
                "node \"\(self.options.nodeName)\" belongs to another group than this node",
                detail: "It asks for group \"\(self.options.groupName)\" (\(self.options.groupUUID)); this node is in "
                    + "\"\(name)\" (\(uuid)).",
                hint: Self.joinHint)
        }
        identity.groupUUID = uuid
    }

    /// A server whose standby was promoted in its place must not take what is meant for that one, should it come back.
    private func requireTimeline() throws {
        let rows = try SQL.query("SELECT origin_node_id, origin_timeline FROM bdr.subscription")
        guard let timeline = self.options.timeline,
            let row = (0..<rows.count).first(where: { rows[$0, 0] == String(self.options.nodeID) }),
            let followed = rows[row, 1].flatMap({ UInt32($0) }), followed > timeline
        else {
            return
        }
        throw BdrError(
            SQLSTATE.objectNotInPrerequisiteState,
            "the server that connects as node \"\(self.options.nodeName)\" was replaced by another one",
            detail: "It is on timeline \(timeline); this node has followed node \"\(self.options.nodeName)\" to timeline "
                + "\(followed).",
            hint: "Stop it. It can be made a standby of the promoted server, with pg_rewind or pg_basebackup.")
    }

    /// The origin under which a node's changes are applied here; the node may have been parted since.
    private func origin(of node: UInt32) throws -> UInt16 {
        let names = try SQL.query(
            """
            SELECT pg_catalog.current_database(), node_name FROM bdr.node
             WHERE node_id OPERATOR(pg_catalog.=) $1::pg_catalog.oid
            """, [String(node)])
        if let database = names[0, 0], let name = names[0, 1] {
            let origin = ObjectNames.originName(database: database, group: self.options.groupName, node: name)
            let rows = try SQL.query(
                "SELECT roident FROM pg_catalog.pg_replication_origin WHERE roname OPERATOR(pg_catalog.=) $1", [origin])
            if let number = rows[0, 0].flatMap({ UInt16($0) }) {
                return number
            }
        }
        throw BdrError(
            SQLSTATE.undefinedObject, "this node has nothing of node id \(node) to forward",
            detail: "The node is not known here, or was removed.")
    }
}
