// What nodes tell one another of their progress: messages in the WAL, which reach every peer in its stream.

internal import CHost
internal import Membership

@c(bdr_engine_request_replay_progress_update)
public func bdrEngineRequestReplayProgressUpdate() -> Int32 {
    entry {
        let node = try LocalNode.require()
        guard node.isInGroup else {
            throw BdrError(SQLSTATE.objectNotInPrerequisiteState, "node \"\(node.name)\" is in no group")
        }
        try Progress.report()
        try Progress.request()
    }
}

enum Progress {
    /// Prefixes of logical decoding messages.
    static let reportPrefix = "bdr.progress"
    static let requestPrefix = "bdr.progress_request"

    /// Up to where this node has everything of each other one, on disk. A transaction that had no effect here (all its rows lost
    /// a conflict, say) leaves no trace in an origin's progress; that its stream is past it counts as well. Inside a
    /// transaction.
    static func complete() throws -> OriginPositions {
        var positions = try self.applied()
        let rows = try SQL.query("SELECT peer, last_xact_flush_lsn FROM bdr.show_subscription_status()")
        for row in 0..<rows.count {
            if let node = rows[row, 0].flatMap({ UInt32($0) }), let position = rows[row, 1].flatMap({ LSN.parse($0) }),
                let known = positions[node]
            {
                positions[node] = max(known, position)
            }
        }
        return positions
    }

    /// Up to where changes of each other node were committed here, on disk. Inside a transaction.
    static func applied() throws -> OriginPositions {
        let rows = try SQL.query(
            """
            SELECT n.node_id, pg_catalog.pg_replication_origin_progress(o.roname, true)
              FROM bdr.local_node l
              JOIN bdr.node m ON m.node_id = l.node_id
              JOIN bdr.node_group g ON g.node_group_id = m.node_group_id
              JOIN bdr.node n ON n.node_id <> l.node_id
              JOIN pg_catalog.pg_replication_origin o ON o.roname =
                   bdr.internal_object_name('origin', pg_catalog.current_database(), g.node_group_name, n.node_name, NULL)
            """)
        var positions: OriginPositions = [:]
        for row in 0..<rows.count {
            if let node = rows[row, 0].flatMap({ UInt32($0) }), let position = rows[row, 1].flatMap({ LSN.parse($0) }) {
                positions[node] = position
            }
        }
        return positions
    }

    /// Tells the peers. Inside a transaction; what is told stays told if that is rolled back.
    /// - Returns: what was told.
    @discardableResult
    static func report() throws -> OriginPositions {
        let positions = try self.complete()
        try self.emit(self.reportPrefix, ProgressReport(positions: positions).text)
        return positions
    }

    /// Asks the peers to tell.
    static func request() throws {
        try self.emit(self.requestPrefix, "")
    }

    private static func emit(_ prefix: String, _ text: String) throws {
        try SQL.query("SELECT pg_catalog.pg_logical_emit_message(false, $1, $2)", [prefix, text])
    }

    /// Keeps what a peer has told. Inside a transaction.
    static func store(_ report: ProgressReport, of peer: UInt32) throws {
        for (origin, position) in report.positions {
            try SQL.query(
                """
                INSERT INTO bdr.node_peer_progress (node_id, peer_node_id, last_update_recv_time, peer_position)
                SELECT $1::pg_catalog.oid, n.node_id, pg_catalog.clock_timestamp(), $3::pg_catalog.pg_lsn
                  FROM bdr.node n WHERE n.node_id = $2::pg_catalog.oid
                ON CONFLICT (node_id, peer_node_id) DO UPDATE
                   SET last_update_recv_time = EXCLUDED.last_update_recv_time, peer_position = EXCLUDED.peer_position
                """, [String(peer), String(origin), LSN.text(position)])
        }
    }

    /// What the peers have told, by peer. Inside a transaction.
    static func stored() throws -> [UInt32: OriginPositions] {
        let rows = try SQL.query("SELECT node_id, peer_node_id, peer_position FROM bdr.node_peer_progress")
        var all: [UInt32: OriginPositions] = [:]
        for row in 0..<rows.count {
            if let peer = rows[row, 0].flatMap({ UInt32($0) }), let origin = rows[row, 1].flatMap({ UInt32($0) }),
                let position = rows[row, 2].flatMap({ LSN.parse($0) })
            {
                all[peer, default: [:]][origin] = position
            }
        }
        return all
    }
}
