// The local node as the catalog has it, and the ways to change a node's state.

internal import CHost
internal import Membership

struct LocalNode {
    var id: UInt32
    var name: String
    var state: NodeState
    /// 0 in no group.
    var groupID: String
    var dsn: String

    var isInGroup: Bool { self.groupID != "0" }

    /// nil when this database has no node. Inside a transaction.
    /// - Throws: when the database is a copy of a node.
    static func find() throws -> LocalNode? {
        let rows = try SQL.query(
            """
            SELECT n.node_id, n.node_name, n.node_state, n.node_group_id, i.if_dsn, l.system_identifier, l.database_oid
              FROM bdr.local_node l
              JOIN bdr.node n ON n.node_id = l.node_id
              JOIN bdr.node_interface i ON i.node_id = n.node_id
            """)
        guard rows.count > 0, let id = rows[0, 0].flatMap({ UInt32($0) }), let name = rows[0, 1],
            let state = rows[0, 2].flatMap({ UInt32($0) }).flatMap({ NodeState(rawValue: $0) })
        else {
            return nil
        }
        guard rows[0, 5] == String(Int64(bitPattern: bdr_host_system_identifier())),
            rows[0, 6] == String(bdr_host_database_oid())
        else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState,
                "this database is a copy of the database of node \"\(name)\", not the node",
                hint: "To make it a node of its own, type: DROP EXTENSION bdr CASCADE; CREATE EXTENSION bdr CASCADE;")
        }
        return LocalNode(
            id: id, name: name, state: state, groupID: rows[0, 3] ?? "0", dsn: rows[0, 4] ?? "")
    }

    /// - Throws: when this database has no node.
    static func require() throws -> LocalNode {
        guard let node = try self.find() else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "this database is not a bdr node",
                hint: "Create the node first: SELECT bdr.create_node(node_name := '...', local_dsn := '...');")
        }
        return node
    }
}

enum NodeCatalog {
    /// Enters a state: in the node's row and in the journal. Nothing happens when the node is in it already.
    static func setState(_ node: UInt32, _ state: NodeState) throws {
        let changed = try SQL.query(
            "UPDATE bdr.node SET node_state = $2::pg_catalog.oid WHERE node_id = $1::pg_catalog.oid AND node_state <> $2::pg_catalog.oid RETURNING 1",
            [String(node), String(state.rawValue)])
        if changed.count > 0 {
            try self.journal(node, state)
        }
    }

    static func journal(_ node: UInt32, _ state: NodeState) throws {
        try SQL.query(
            """
            INSERT INTO bdr.state_journal (node_id, state_counter, state)
            SELECT $1::pg_catalog.oid,
                   (COALESCE(pg_catalog.max(state_counter::pg_catalog.int8), 0) + 1)::pg_catalog.oid, $2::pg_catalog.oid
              FROM bdr.state_journal WHERE node_id = $1::pg_catalog.oid
            """, [String(node), String(state.rawValue)])
    }

    /// Adds a node of the group, other than the local one.
    static func addPeer(
        id: String, name: String, group: String, state: String, database: String, sequence: String, dsn: String,
        token: String? = nil
    ) throws {
        try SQL.query(
            """
            INSERT INTO bdr.node (node_id, node_name, node_group_id, node_state, target_state, seq_id, dbname,
                                  synchronize_structure, node_join_finished, join_token)
            VALUES ($1::pg_catalog.oid, $2::pg_catalog.name, $3::pg_catalog.oid, $4::pg_catalog.oid, $5::pg_catalog.oid,
                    $6::pg_catalog.int4, $7::pg_catalog.name, 'a', $4::pg_catalog.oid = $5::pg_catalog.oid, $8)
            """,
            [id, name, group, state, String(NodeState.active.rawValue), sequence, database, token])
        try SQL.query(
            """
            INSERT INTO bdr.node_interface (if_id, if_name, node_id, if_dsn)
            VALUES ($1::pg_catalog.oid, $2::pg_catalog.name, $1::pg_catalog.oid, $3)
            """, [id, name, dsn])
        try SQL.query(
            """
            INSERT INTO bdr.node_local_info (node_id, applied_state)
            VALUES ($1::pg_catalog.oid, $2::pg_catalog.oid)
            """, [id, state])
    }

    /// A node's interface has the number of the node, which the local node gets only in its group.
    static func renumberInterface(of node: String) throws {
        try SQL.query("UPDATE bdr.node_interface SET if_id = node_id WHERE node_id = $1::pg_catalog.oid", [node])
    }

    /// Has the local node receive from a peer.
    static func subscribe(to peer: String, local: String, group: String, slot: String, origin: String, name: String) throws {
        try SQL.query(
            """
            INSERT INTO bdr.subscription (pgl_subscription_id, sub_name, nodegroup_id, origin_node_id, target_node_id,
                                          source_node_id, sub_slot_name, sub_origin_name)
            VALUES ((SELECT COALESCE(pg_catalog.max(pgl_subscription_id::pg_catalog.int8), 0) + 1
                       FROM bdr.subscription)::pg_catalog.oid,
                    $1::pg_catalog.name, $2::pg_catalog.oid, $3::pg_catalog.oid, $4::pg_catalog.oid, $3::pg_catalog.oid,
                    $5::pg_catalog.name, $6::pg_catalog.name)
            ON CONFLICT (origin_node_id, target_node_id) DO NOTHING
            """, [name, group, peer, local, slot, origin])
        try SQL.query(
            """
            UPDATE bdr.node_local_info SET slot_name = $2::pg_catalog.name,
                   sub_repsets = ARRAY(SELECT node_group_name::pg_catalog.text FROM bdr.node_group)
             WHERE node_id = $1::pg_catalog.oid
            """, [peer, slot])
    }

    /// The origin under which a node's changes are applied here, whether it exists or not; nil for an unknown node.
    static func originName(of id: String) throws -> String? {
        try SQL.query(
            """
            SELECT bdr.internal_object_name('origin', pg_catalog.current_database(), g.node_group_name, n.node_name, NULL)
              FROM bdr.node n JOIN bdr.node_group g ON g.node_group_id = n.node_group_id
             WHERE n.node_id = $1::pg_catalog.oid
            """, [id])[0, 0]
    }

    /// Makes an origin from the beginning: what is left under its name belongs to a node that is gone.
    static func createOrigin(_ name: String) throws {
        try self.dropOrigin(name)
        try SQL.query("SELECT pg_catalog.pg_replication_origin_create($1)", [name])
    }

    static func dropOrigin(_ name: String) throws {
        try SQL.query(
            "SELECT pg_catalog.pg_replication_origin_drop(roname) FROM pg_catalog.pg_replication_origin WHERE roname = $1",
            [name])
    }
}
