// The group slot of the local node and its marks, as they are stored.

internal import CHost
internal import Membership

struct GroupSlot {
    var name: String
    /// Where it stands; nil while it doesn't exist.
    var confirmed: UInt64?
    var restart: UInt64?
    /// The server has removed WAL that it needed (max_slot_wal_keep_size).
    var isLost: Bool

    /// Groups of two need none: when one dies, there is nobody to forward to.
    static let minimumNodes = 3

    /// Whether the group is so large that it needs a group slot here, and the node so far in its join that it may have one. Inside a transaction.
    static func isWanted() throws -> Bool {
        let rows = try SQL.query(
            """
            SELECT (SELECT pg_catalog.count(*) FROM bdr.node WHERE node_state <> $1::pg_catalog.oid)
                   + (SELECT pg_catalog.count(*) FROM bdr.kept_origin) >= $2::pg_catalog.int8
              FROM bdr.local_node l
              JOIN bdr.node n ON n.node_id = l.node_id
             WHERE n.node_state = $3::pg_catalog.oid
                OR EXISTS (SELECT FROM bdr.join_state
                            WHERE step IN ('create_local_slots', 'catchup', 'standby', 'promote'))
            """,
            [
                String(NodeState.parted.rawValue), String(GroupSlot.minimumNodes), String(NodeState.active.rawValue),
            ])
        return rows[0, 0] == "t"
    }

    /// Whether there is something to do for the process that serves the group: to keep the slot, or to remove it. Inside a
    /// transaction.
    static func isServed() throws -> Bool {
        try self.isWanted() || self.load()?.confirmed != nil
    }

    /// nil when the local node is in no group. Inside a transaction.
    static func load() throws -> GroupSlot? {
        let names = try SQL.query(
            """
            SELECT pg_catalog.current_database(), g.node_group_name
              FROM bdr.local_node l
              JOIN bdr.node n ON n.node_id = l.node_id
              JOIN bdr.node_group g ON g.node_group_id = n.node_group_id
            """)
        guard let database = names[0, 0], let group = names[0, 1] else {
            return nil
        }
        let name = ObjectNames.groupSlotName(database: database, group: group)
        let rows = try SQL.query(
            """
            SELECT confirmed_flush_lsn, restart_lsn, wal_status = 'lost' FROM pg_catalog.pg_replication_slots
             WHERE slot_name = $1 AND plugin = 'bdr' AND database = pg_catalog.current_database()
            """, [name])
        return GroupSlot(
            name: name, confirmed: rows[0, 0].flatMap { LSN.parse($0) }, restart: rows[0, 1].flatMap { LSN.parse($0) },
            isLost: rows[0, 2] == "t")
    }

    /// Whether it is made, and it is known what it keeps. Inside a transaction.
    static func isReady() throws -> Bool {
        try self.load()?.confirmed != nil && SQL.query("SELECT FROM bdr.group_slot_mark").count > 0
    }

    /// Removes it with its marks; its worker is stopped, or is the caller. Inside a transaction.
    static func remove() throws {
        if let slot = try self.load() {
            try host(bdr_host_slot_drop(slot.name))
        }
        try SQL.query("DELETE FROM bdr.group_slot_mark")
    }

    /// Inside a transaction.
    static func marks() throws -> GroupSlotMarks {
        let rows = try SQL.query(
            """
            SELECT m.mark_lsn, u.origin, u.position
              FROM bdr.group_slot_mark m
              LEFT JOIN LATERAL ROWS FROM (pg_catalog.unnest(m.origins), pg_catalog.unnest(m.positions)) u(origin, position) ON true
             ORDER BY 1
            """)
        var marks: [GroupSlotMark] = []
        for row in 0..<rows.count {
            guard let local = rows[row, 0].flatMap({ LSN.parse($0) }) else {
                continue
            }
            if marks.last?.local != local {
                marks.append(GroupSlotMark(local: local, positions: [:]))
            }
            if let origin = rows[row, 1].flatMap({ UInt32($0) }), let position = rows[row, 2].flatMap({ LSN.parse($0) }),
                let last = marks.indices.last
            {
                marks[last].positions[origin] = position
            }
        }
        return GroupSlotMarks(marks)
    }

    /// Inside a transaction.
    static func add(_ mark: GroupSlotMark) throws {
        let sorted = mark.positions.sorted { $0.key < $1.key }
        try SQL.query(
            """
            INSERT INTO bdr.group_slot_mark (mark_lsn, origins, positions)
            VALUES ($1::pg_catalog.pg_lsn, $2::pg_catalog.oid[], $3::pg_catalog.pg_lsn[]) ON CONFLICT DO NOTHING
            """,
            [
                LSN.text(mark.local), "{\(sorted.map { String($0.key) }.joined(separator: ","))}",
                "{\(sorted.map { LSN.text($0.value) }.joined(separator: ","))}",
            ])
    }

    /// Nodes whose changes may have to be forwarded: other members, and those that not all members know to have left.
    static func origins() throws -> Set<UInt32> {
        let rows = try SQL.query(
            """
            SELECT n.node_id FROM bdr.node n
             WHERE n.node_state <> $1::pg_catalog.oid AND NOT EXISTS (SELECT FROM bdr.local_node l WHERE l.node_id = n.node_id)
            UNION SELECT origin_node_id FROM bdr.kept_origin
            """, [String(NodeState.parted.rawValue)])
        return Set((0..<rows.count).compactMap { rows[$0, 0].flatMap { UInt32($0) } })
    }
}
