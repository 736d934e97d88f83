// Completing a survivor: what a node that died had sent to others, but not to this one, comes from one of those.
//
// The changes are forwarded under their true origin and position and committed as if they came from the node itself. So it
// doesn't matter how often that is begun: what is here already is left out.

internal import CHost
internal import Membership

@c(bdr_engine_recover_main)
public func bdrEngineRecoverMain(_ peer: UInt32) -> Int32 {
    entry {
        guard let (settings, target) = try Transaction.run({ try Recovery.load(origin: peer) }) else {
            return
        }
        if try ApplyWorker(settings: settings).run(until: target) {
            try Transaction.run {
                _ = try SQL.query(
                    "UPDATE bdr.recovery SET applied = true WHERE origin_node_id = $1::pg_catalog.oid", [String(peer)])
            }
        }
    }
}

enum Recovery {
    /// What the process needs: nil when there is nothing to do. Inside a transaction.
    static func load(origin: UInt32) throws -> (ApplySettings, target: UInt64)? {
        let rows = try SQL.query(
            """
            SELECT r.target_lsn, g.node_group_name, g.node_group_uuid, x.node_name, n.node_id, n.node_name, l.node_id, m.node_name,
                   i.if_dsn, n.dbname, pg_catalog.current_database()
              FROM bdr.recovery r
              JOIN bdr.node x ON x.node_id = r.origin_node_id
              JOIN bdr.node n ON n.node_id = r.source_node_id
              JOIN bdr.node_interface i ON i.node_id = n.node_id
              CROSS JOIN bdr.local_node l
              JOIN bdr.node m ON m.node_id = l.node_id
              JOIN bdr.node_group g ON g.node_group_id = m.node_group_id
             WHERE r.origin_node_id = $1::pg_catalog.oid AND NOT r.applied
            """, [String(origin)])
        func text(_ column: Int) -> String { rows[0, column] ?? "" }
        guard rows.count == 1, let target = LSN.parse(text(0)), let source = UInt32(text(4)), let local = UInt32(text(6))
        else {
            return nil
        }
        let settings = ApplySettings(
            subscription: "recovery of \(text(3))",
            slot: ObjectNames.groupSlotName(database: text(9), group: text(1)),
            origin: ObjectNames.originName(database: text(10), group: text(1), node: text(3)), groupName: text(1),
            groupUUID: text(2), peerID: origin, peerName: text(3), sourceID: source, sourceName: text(5), sourceDSN: text(8),
            localID: local, localName: text(7), tracksPosition: false)
        return (settings, target)
    }

    // MARK: What the node that parts the dead one asks

    /// The dead node's stream is no longer received here: its position is final.
    /// - Returns: position, position after which this node can forward (null: nothing), whether there still is an origin to
    ///   tell: without one this node has been completed, and has forgotten the dead one.
    static func position(of id: String) throws -> Rows {
        guard let origin = UInt32(id) else {
            throw BdrError(SQLSTATE.invalidParameterValue, "not a node")
        }
        try Workers.stopApply(of: origin)
        let position = try Progress.complete()[origin]
        var coverage: UInt64?
        if let slot = try GroupSlot.load(), let confirmed = slot.confirmed, !slot.isLost {
            coverage = try GroupSlot.marks().coverage(of: origin, slot: confirmed)
        }
        return try SQL.query(
            """
            SELECT $1::pg_catalog.pg_lsn, $2::pg_catalog.pg_lsn,
                   EXISTS (SELECT FROM pg_catalog.pg_replication_origin WHERE roname = $3)
            """, [LSN.text(position ?? 0), coverage.map { LSN.text($0) }, try NodeCatalog.originName(of: id)])
    }

    /// Has this node get what another one has; to be asked until it is done.
    /// - Parameters:
    ///   - id: the dead node.
    ///   - source: who forwards.
    ///   - position: up to where the source has the dead node's changes.
    ///   - target: position in the source's WAL behind which there are no more of them.
    /// - Returns: whether it is done.
    static func perform(_ id: String, source: String, position: String, target: String) throws -> Rows {
        guard let origin = UInt32(id) else {
            throw BdrError(SQLSTATE.invalidParameterValue, "not a node")
        }
        let rows = try SQL.query(
            """
            SELECT applied, source_node_id = $2::pg_catalog.oid AND source_position >= $3::pg_catalog.pg_lsn, source_position
              FROM bdr.recovery WHERE origin_node_id = $1::pg_catalog.oid
            """, [id, source, position])
        if rows.count == 0 || rows[0, 1] != "t" {
            try Workers.stop(role: Int32(BDR_ROLE_RECOVER), of: origin)
            try SQL.query("DELETE FROM bdr.recovery WHERE origin_node_id = $1::pg_catalog.oid", [id])
            try SQL.query(
                """
                INSERT INTO bdr.recovery (origin_node_id, source_node_id, source_position, target_lsn)
                VALUES ($1::pg_catalog.oid, $2::pg_catalog.oid, $3::pg_catalog.pg_lsn, $4::pg_catalog.pg_lsn)
                """, [id, source, position, target])
            return try SQL.query("SELECT false")
        }
        guard rows[0, 0] == "t", let reached = rows[0, 2] else {
            bdr_host_wake_manager()
            return try SQL.query("SELECT false")
        }
        // transactions of which nothing was left to do have no commit here that says so
        try Workers.stop(role: Int32(BDR_ROLE_RECOVER), of: origin)
        if let name = try NodeCatalog.originName(of: id) {
            let progress = try SQL.query(
                "SELECT pg_catalog.pg_replication_origin_progress($1, true) >= $2::pg_catalog.pg_lsn", [name, reached])
            if progress[0, 0] != "t" {
                try SQL.query(
                    "SELECT pg_catalog.pg_replication_origin_advance($1, $2::pg_catalog.pg_lsn)", [name, reached])
            }
        }
        try SQL.query("DELETE FROM bdr.recovery WHERE origin_node_id = $1::pg_catalog.oid", [id])
        return try SQL.query("SELECT true")
    }

    /// Remembers that a node lacks changes that nobody can send any more.
    static func noteMissing(_ node: String, _ id: String, after: String, upTo: String) throws -> Rows {
        let names = try SQL.query(
            """
            SELECT n.node_name, x.node_name FROM bdr.node n, bdr.node x
             WHERE n.node_id = $1::pg_catalog.oid AND x.node_id = $2::pg_catalog.oid
            """, [node, id])
        if let name = names[0, 0], let origin = names[0, 1] {
            let added = try SQL.query(
                """
                INSERT INTO bdr.missing_changes (node_id, node_name, origin_node_id, origin_name, after_lsn, upto_lsn)
                VALUES ($1::pg_catalog.oid, $2::pg_catalog.name, $3::pg_catalog.oid, $4::pg_catalog.name,
                        $5::pg_catalog.pg_lsn, $6::pg_catalog.pg_lsn)
                ON CONFLICT DO NOTHING RETURNING node_id
                """, [node, name, id, origin, after, upTo])
            if added.count > 0 {
                try Log.warning(
                    "node \"\(name)\" lacks changes of node \"\(origin)\", which has died",
                    sqlstate: SQLSTATE.objectNotInPrerequisiteState,
                    detail: "Other nodes have those after LSN \(after) up to \(upTo), but no longer in their WAL.",
                    hint: "Part node \"\(name)\" and let it join again.")
            }
        }
        return try PeerCall.nothing()
    }

    /// Everybody knows that the node has left: what was kept of it goes.
    static func forget(_ id: String) throws -> Rows {
        let kept = try SQL.query(
            "DELETE FROM bdr.kept_origin WHERE origin_node_id = $1::pg_catalog.oid RETURNING origin_name", [id])
        if let name = kept[0, 0], try SQL.query(
            "SELECT FROM bdr.subscription WHERE sub_origin_name = $1::pg_catalog.name", [name]
        ).count == 0 {
            // another node of that name has not joined meanwhile
            try NodeCatalog.dropOrigin(name)
        }
        try SQL.query("DELETE FROM bdr.recovery WHERE origin_node_id = $1::pg_catalog.oid", [id])
        try SQL.query("DELETE FROM bdr.node_peer_progress WHERE peer_node_id = $1::pg_catalog.oid", [id])
        return try PeerCall.nothing()
    }
}
