// What an apply worker needs to know before it connects: its subscription, the peer, and who we are.

internal import CHost
internal import Membership

struct ApplySettings {
    /// Also the application name of the connection.
    var subscription: String
    /// 0 for what is no subscription.
    var subscriptionID: UInt32 = 0
    /// On the source.
    var slot: String
    var origin: String
    var groupName: String
    var groupUUID: String
    var peerID: UInt32
    var peerName: String
    /// From whom the peer's changes come: the peer, or a node that forwards them.
    var sourceID: UInt32
    var sourceName: String
    var sourceDSN: String
    var localID: UInt32
    var localName: String
    /// A node joins through this one: each transaction notes its position in a row, for the copy's snapshot to contain.
    var tracksPosition: Bool
    /// The timeline of the peer's WAL that was followed so far.
    var originTimeline: UInt32?

    var isForwarded: Bool { self.sourceID != self.peerID }

    /// Reads the subscription for a peer; nil when there is none or it is disabled. Inside a transaction.
    static func load(peer: UInt32) throws -> ApplySettings? {
        let rows = try SQL.query(
            """
            SELECT s.sub_name, s.sub_slot_name, s.sub_origin_name, g.node_group_name, g.node_group_uuid,
                   p.node_name, i.if_dsn, l.node_id, n.node_name,
                   EXISTS (SELECT FROM bdr.join_tracking), s.origin_timeline, s.pgl_subscription_id
              FROM bdr.subscription s
              JOIN bdr.local_node l ON l.node_id = s.target_node_id
              JOIN bdr.node n ON n.node_id = l.node_id
              JOIN bdr.node p ON p.node_id = s.origin_node_id
              JOIN bdr.node_interface i ON i.node_id = p.node_id
              JOIN bdr.node_group g ON g.node_group_id = s.nodegroup_id
             WHERE s.origin_node_id = $1::pg_catalog.oid AND s.sub_enabled
            """, [String(peer)])
        guard rows.count == 1 else {
            return nil
        }
        func text(_ column: Int) -> String { rows[0, column] ?? "" }
        guard let localID = UInt32(text(7)) else {
            return nil
        }
        return ApplySettings(
            subscription: text(0), subscriptionID: UInt32(text(11)) ?? 0, slot: text(1), origin: text(2), groupName: text(3), groupUUID: text(4),
            peerID: peer, peerName: text(5), sourceID: peer, sourceName: text(5), sourceDSN: text(6),
            localID: localID, localName: text(8),
            tracksPosition: text(9) == "t", originTimeline: rows[0, 10].flatMap { UInt32($0) })
    }
}

/// Which node wrote a row, from the replication origin number that the row's transaction carries on this server.
struct OriginMap {
    private var nodes: [UInt32: UInt32] = [:]
    private let localID: UInt32

    init(localID: UInt32) {
        self.localID = localID
    }

    /// Node ids by origin number, of all nodes known now.
    static func all(localID: UInt32) throws -> [UInt32: UInt32] {
        let rows = try SQL.query(
            """
            SELECT o.roident, n.node_id FROM bdr.node n
              JOIN bdr.node_group g ON g.node_group_id OPERATOR(pg_catalog.=) n.node_group_id
              JOIN pg_catalog.pg_replication_origin o ON o.roname OPERATOR(pg_catalog.=)
                   bdr.internal_object_name('origin', pg_catalog.current_database(), g.node_group_name, n.node_name, NULL)
            """)
        var nodes: [UInt32: UInt32] = [0: localID]
        for row in 0..<rows.count {
            if let origin = rows[row, 0].flatMap({ UInt32($0) }), let node = rows[row, 1].flatMap({ UInt32($0) }) {
                nodes[origin] = node
            }
        }
        return nodes
    }

    /// The node id behind an origin number. 0 is this node itself; an origin that belongs to no node of the group (rows that
    /// came here by other replication) counts as this node too, for it is here that they entered the group.
    mutating func node(origin: UInt32) throws -> UInt32 {
        if origin == 0 {
            return self.localID
        }
        if let node = self.nodes[origin] {
            return node
        }
        let rows = try SQL.query(
            """
            SELECT n.node_id FROM bdr.node n
              JOIN bdr.node_group g ON g.node_group_id = n.node_group_id
              JOIN pg_catalog.pg_replication_origin o ON o.roname =
                   bdr.internal_object_name('origin', pg_catalog.current_database(), g.node_group_name, n.node_name, NULL)
             WHERE o.roident = $1::pg_catalog.oid
            """, [String(origin)])
        let node = rows[0, 0].flatMap { UInt32($0) } ?? self.localID
        self.nodes[origin] = node
        return node
    }
}
