// How long stamps of rows are kept: until everything that could be older has arrived from every member.
//
// Each node tells the others from time to time, in its WAL, that all its transactions up to a commit time lie before that
// place (its clock mark). A member from which nothing of the kind has come holds everything back.

internal import CHost
internal import Membership

enum RowStamps {
    /// Prefix of the logical decoding messages that carry clock marks.
    static let clockPrefix = "bdr.clock"

    /// Tells the peers how far this node's commit times are.
    static func tell() throws {
        var time: Int64 = 0
        try host(bdr_host_clock_mark(&time))
        try Transaction.run {
            _ = try SQL.query(
                "SELECT pg_catalog.pg_logical_emit_message(false, $1, $2)", [self.clockPrefix, String(time)])
        }
    }

    /// Keeps what a peer has told, when everything before it is applied. Inside a transaction.
    /// - Throws: `BdrError` with protocol_violation when it is no time.
    static func passed(_ text: String, by peer: UInt32) throws {
        guard let time = Int64(text), time > 0 else {
            throw BdrError(SQLSTATE.protocolViolation, "a node's report of its clock is malformed")
        }
        try SQL.query(
            """
            INSERT INTO bdr.peer_clock (node_id, passed)
            SELECT n.node_id, \(self.timestamp(time)) FROM bdr.node n WHERE n.node_id = $1::pg_catalog.oid
            ON CONFLICT (node_id) DO UPDATE SET passed = GREATEST(bdr.peer_clock.passed, EXCLUDED.passed)
            """, [String(peer)])
    }

    /// Expression for a time in microseconds since 2000-01-01 UTC.
    private static func timestamp(_ time: Int64) -> String {
        "'2000-01-01 00:00:00+00'::pg_catalog.timestamptz + \(time) * '1 microsecond'::pg_catalog.interval"
    }

    /// Expression for the commit time up to which this node has everything of all members but some: NULL when that is not
    /// known, infinity when there are none.
    /// - Parameter except: of a condition on `n`, a row of bdr.node.
    static func horizon(except: String = "false") -> String {
        """
        (SELECT CASE WHEN pg_catalog.count(*) = pg_catalog.count(c.passed)
                     THEN COALESCE(pg_catalog.min(c.passed), 'infinity') END
           FROM bdr.node n LEFT JOIN bdr.peer_clock c ON c.node_id = n.node_id
          WHERE n.node_state <> \(NodeState.parted.rawValue)::pg_catalog.oid AND NOT (\(except))
            AND NOT EXISTS (SELECT FROM bdr.local_node l WHERE l.node_id = n.node_id))
        """
    }

    /// Expression for the commit time of `s`, a row of bdr.row_stamp.
    private static let time =
        "COALESCE(s.commit_time, pg_catalog.pg_xact_commit_timestamp(s.xmin), '-infinity'::pg_catalog.timestamptz)"

    /// Removes what all members have passed, and the oldest of it when it is too much.
    static func clean() throws {
        guard bdr_host_stamps_possible() else {
            return
        }
        try Transaction.run {
            try SQL.query("DELETE FROM bdr.row_stamp s WHERE \(self.time) < \(self.horizon())")
            let limit = Int64(bdr_host_setting_int("bdr.row_stamp_keep_size", 1024))
            guard limit >= 0 else {
                return
            }
            let counted = try SQL.query("SELECT pg_catalog.count(*) FROM bdr.row_stamp")[0, 0].flatMap { Int64($0) } ?? 0
            let excess = counted - (limit << 20) / self.rowSize
            guard excess > 0 else {
                return
            }
            try SQL.query(
                """
                DELETE FROM bdr.row_stamp WHERE ctid = ANY (
                    ARRAY(SELECT s.ctid FROM bdr.row_stamp s ORDER BY \(self.time) LIMIT $1::pg_catalog.int8))
                """, [String(excess)])
            try Log.warning(
                "\(excess) stamps of deleted rows were given up, as peers are too far behind",
                sqlstate: SQLSTATE.configurationLimitExceeded,
                detail: "bdr.row_stamp_keep_size is \(limit) MB. Changes of such peers may bring back rows that were deleted "
                    + "here since.",
                hint: "See bdr.peer_clock for how far each peer is. Part those that are behind and have them join again, or "
                    + "increase bdr.row_stamp_keep_size.")
        }
        try Transaction.run { _ = try host(bdr_host_stamps_settle()) }
    }

    /// Bytes that a stamp takes, with its index.
    private static let rowSize: Int64 = 112

    // MARK: Joining

    /// What the join target knows of keys that an older operation may still come for. On the target, under the copy's snapshot.
    /// - Parameter joining: id of the node that copies.
    static func ofTarget(_ reader: Connection, tables: [String], joining: UInt32) throws -> [[String?]] {
        let horizon = try reader.query("SELECT \(self.horizon(except: "n.node_id = \(joining)::pg_catalog.oid"))")[0, 0]
        var stamps: [[String?]] = []
        func add(_ rows: Rows, _ table: (Int) -> String?) {
            for row in 0..<rows.count {
                stamps.append([table(row), rows[row, 0], rows[row, 1], rows[row, 2], rows[row, 3]])
            }
        }
        let nodes = """
            (SELECT o.roident, n.node_id FROM bdr.node n
               JOIN bdr.node_group g ON g.node_group_id = n.node_group_id
               JOIN pg_catalog.pg_replication_origin o ON o.roname = bdr.internal_object_name(
                    'origin', pg_catalog.current_database(), g.node_group_name, n.node_name, NULL)) m
            """
        let old = try reader.query(
            """
            SELECT s.key_hash, s.key_check, \(self.time),
                   COALESCE(s.node_id, m.node_id, (SELECT l.node_id FROM bdr.local_node l)),
                   pg_catalog.quote_ident(t.nspname) || '.' || pg_catalog.quote_ident(c.relname)
              FROM bdr.row_stamp s
              JOIN pg_catalog.pg_class c ON c.oid = s.relid
              JOIN pg_catalog.pg_namespace t ON t.oid = c.relnamespace
              LEFT JOIN \(nodes) ON m.roident = (pg_catalog.pg_xact_commit_timestamp_origin(s.xmin)).roident
            """)
        add(old) { old[$0, 4] }
        if horizon != "infinity" {
            for table in tables {
                let rows = try reader.query(
                    """
                    SELECT r.key_hash, r.key_check, r.commit_time,
                           COALESCE(m.node_id, (SELECT l.node_id FROM bdr.local_node l))
                      FROM bdr.internal_recent_rows(\(try SQL.quoteLiteral(table)),
                                                    COALESCE($1::pg_catalog.timestamptz, '-infinity')) r
                      LEFT JOIN \(nodes) ON m.roident = r.origin
                    """, [horizon])
                add(rows) { _ in table }
            }
        }
        return stamps
    }

    /// Stores them here.
    static func store(_ stamps: [[String?]], _ writer: Connection) throws {
        try writer.query("BEGIN")
        try writer.query("DELETE FROM bdr.row_stamp")
        try self.add(stamps, writer)
        try writer.query("COMMIT")
    }

    /// Adds them here, in the transaction of a session.
    static func add(_ stamps: [[String?]], _ writer: Connection) throws {
        for stamp in stamps {
            try writer.query(
                """
                SELECT bdr.internal_add_stamp(COALESCE(r.root, t.rel), $2::pg_catalog.int8, $3::pg_catalog.int8,
                                              $4::pg_catalog.timestamptz, $5::pg_catalog.oid)
                  FROM pg_catalog.to_regclass($1) t (rel)
                  LEFT JOIN LATERAL pg_catalog.pg_partition_root(t.rel) r (root) ON true
                 WHERE t.rel IS NOT NULL
                """, stamp)
        }
    }
}
