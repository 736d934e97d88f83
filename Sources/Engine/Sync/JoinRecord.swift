// The join of the local node as it is stored (bdr.join_state), so that another process can go on with it.

internal import CHost
internal import Membership

struct JoinRecord {
    var state: JoinState
    var token: String
    var targetDSN: String
    var requestedGroup: String?
    var targetID: String?
    var targetName: String?
    var groupName: String?
    /// On the target, for this node.
    var remoteSlot: String?
    var remoteLSN: String?
    /// Here, for the target.
    var localSlot: String?
    var localLSN: String?
    var origin: String?
    var catchupLSN: String?
    var keptExtensions: [String]
    /// Structure and data are copied, else only data.
    var copiesStructure: Bool

    /// nil when no join was begun. Inside a transaction.
    static func load() throws -> JoinRecord? {
        let rows = try SQL.query(
            """
            SELECT step, reached, restarts, join_token, target_dsn, requested_group, target_node_id, target_node_name,
                   group_name, remote_slot_name, remote_lsn, local_slot_name, local_lsn, origin_name, catchup_lsn,
                   pg_catalog.array_to_string(kept_extensions, ' '), synchronize_structure
              FROM bdr.join_state
            """)
        guard rows.count == 1 else {
            return nil
        }
        guard
            let state = JoinState(
                step: rows[0, 0] ?? "", reached: rows[0, 1] ?? "", restarts: rows[0, 2].flatMap { Int32($0) } ?? 0)
        else {
            throw BdrError(
                SQLSTATE.featureNotSupported, "the join is at step \"\(rows[0, 0] ?? "")\", which this version does not know")
        }
        return JoinRecord(
            state: state, token: rows[0, 3] ?? "", targetDSN: rows[0, 4] ?? "", requestedGroup: rows[0, 5],
            targetID: rows[0, 6], targetName: rows[0, 7], groupName: rows[0, 8], remoteSlot: rows[0, 9],
            remoteLSN: rows[0, 10], localSlot: rows[0, 11], localLSN: rows[0, 12], origin: rows[0, 13],
            catchupLSN: rows[0, 14],
            keptExtensions: (rows[0, 15] ?? "").split(separator: " ").map { String($0) },
            copiesStructure: rows[0, 16] != "none")
    }

    /// Inside a transaction.
    func save() throws {
        try SQL.query(
            """
            UPDATE bdr.join_state SET step = $1, reached = $2, restarts = $3::pg_catalog.int4,
                   target_node_id = $4::pg_catalog.oid, target_node_name = $5::pg_catalog.name,
                   group_name = $6::pg_catalog.name, remote_slot_name = $7::pg_catalog.name,
                   remote_lsn = $8::pg_catalog.pg_lsn, local_slot_name = $9::pg_catalog.name,
                   local_lsn = $10::pg_catalog.pg_lsn, origin_name = $11::pg_catalog.name,
                   catchup_lsn = $12::pg_catalog.pg_lsn, changed_time = pg_catalog.clock_timestamp()
            """,
            [
                self.state.step.rawValue, self.state.reached.rawValue, String(self.state.restarts), self.targetID,
                self.targetName, self.groupName, self.remoteSlot, self.remoteLSN, self.localSlot, self.localLSN,
                self.origin, self.catchupLSN,
            ])
    }

    /// A line for those who watch the join. Inside a transaction.
    static func note(_ line: String) throws {
        try SQL.query(
            """
            INSERT INTO bdr.join_progress_line (line_number, line)
            SELECT COALESCE(pg_catalog.max(line_number), 0) + 1, $1 FROM bdr.join_progress_line
            """, [line])
        try SQL.query("UPDATE bdr.join_state SET progress = $1, changed_time = pg_catalog.clock_timestamp()", [line])
    }
}
