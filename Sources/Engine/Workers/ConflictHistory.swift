// Keeps bdr.conflict_history in order: a partition for each day, made ahead; old ones dropped; its size measured. Done by the
// manager, so also on a node that is alone.
//
// Each step may fail (somebody has locked the table) and is then tried again later: conflicts of a day without partition
// go into the default partition, so nothing waits for it.

internal import CHost

struct ConflictHistory {
    private var nextRound: Int64 = 0
    private var nextMeasure: Int64 = 0
    private var retention: Int32?

    /// Days for which partitions are made ahead.
    private static let daysAhead = 7
    /// How often, microseconds.
    private static let roundInterval: Int64 = 3600 * 1_000_000
    private static let retryInterval: Int64 = 60 * 1_000_000
    private static let measureInterval: Int64 = 10 * 1_000_000
    /// How long a lock is waited for, milliseconds: others queue up behind it.
    private static let lockTimeout: Int32 = 500

    /// Does what is due; cheap when nothing is.
    mutating func keep() throws {
        let now = bdr_host_now()
        let retention = bdr_host_setting_int("bdr.conflict_history_retention", -1)
        if now >= self.nextRound || self.nextRound > now &+ Self.roundInterval || retention != self.retention {
            self.retention = retention
            let isDone = try self.round(retention)
            self.nextRound = now &+ (isDone ? Self.roundInterval : Self.retryInterval)
            self.nextMeasure = 0
        }
        if now >= self.nextMeasure || self.nextMeasure > now &+ Self.measureInterval {
            self.nextMeasure = now &+ Self.measureInterval
            try self.measure()
        }
    }

    private func attempt(_ sql: String) throws -> Rows? {
        try Transaction.run {
            var result: OpaquePointer?
            try host(bdr_host_sql_attempt(sql, Self.lockTimeout, &result))
            return result.map { Rows(adopting: $0) }
        }
    }

    /// - Returns: whether all is as it should be.
    private func round(_ retention: Int32) throws -> Bool {
        guard try Transaction.run({ try SQL.query("SELECT pg_catalog.to_regclass('bdr.conflict_history')")[0, 0] }) != nil
        else {
            return true
        }
        let steps = [try self.makePolicies(), try self.makePartitions(), try self.dropPartitions(retention)]
        return steps.allSatisfy { $0 }
    }

    private func run(_ statements: [String]) throws -> Bool {
        var isDone = true
        for statement in statements where try self.attempt(statement) == nil {
            isDone = false
        }
        return isDone
    }

    private func makePolicies() throws -> Bool {
        let policies = [
            (
                "conflict_filter",
                """
                FOR SELECT TO PUBLIC USING (EXISTS (
                    SELECT FROM pg_catalog.pg_class c
                     WHERE c.oid = reloid AND pg_catalog.pg_has_role(c.relowner, 'USAGE') AND NOT c.relforcerowsecurity))
                """
            ),
            ("conflict_read_all", "FOR SELECT TO bdr_read_all_conflicts USING (true)"),
        ]
        let known = try Transaction.run {
            let rows = try SQL.query(
                "SELECT polname FROM pg_catalog.pg_policy WHERE polrelid = 'bdr.conflict_history'::pg_catalog.regclass")
            return Set((0..<rows.count).compactMap { rows[$0, 0] })
        }
        return try self.run(
            policies.filter { !known.contains($0.0) }.map { "CREATE POLICY \($0.0) ON bdr.conflict_history \($0.1)" })
    }

    private func makePartitions() throws -> Bool {
        // one transaction for each day: what has come to lie in the default partition stays there
        let days = try self.attempt(
            """
            SELECT pg_catalog.format(
                'CREATE TABLE bdr.%1$I (LIKE bdr.conflict_history INCLUDING DEFAULTS);
                 COMMENT ON TABLE bdr.%1$I IS ''conflicts of one day, UTC'';
                 ALTER TABLE bdr.conflict_history ATTACH PARTITION bdr.%1$I FOR VALUES FROM (%2$L) TO (%3$L);
                 ALTER EXTENSION bdr ADD TABLE bdr.%1$I', name, day::pg_catalog.text || ' 00:00:00+00',
                (day + 1)::pg_catalog.text || ' 00:00:00+00')
              FROM (SELECT day, 'conflict_history_' || pg_catalog.to_char(day, 'YYYYMMDD') AS name
                      FROM (SELECT (pg_catalog.now() AT TIME ZONE 'UTC')::pg_catalog.date + n AS day
                              FROM pg_catalog.generate_series(0, \(Self.daysAhead)) n) d) p
             WHERE pg_catalog.to_regclass('bdr.' || name) IS NULL
               AND NOT EXISTS (
                    SELECT FROM bdr.conflict_history_default
                     WHERE local_time >= day::pg_catalog.timestamp AT TIME ZONE 'UTC'
                       AND local_time < (day + 1)::pg_catalog.timestamp AT TIME ZONE 'UTC')
             ORDER BY day
            """)
        guard let days else {
            return false
        }
        return try self.run((0..<days.count).compactMap { days[$0, 0] })
    }

    private func dropPartitions(_ retention: Int32) throws -> Bool {
        guard retention >= 0 else {
            return true
        }
        let expired = try self.attempt(
            """
            SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_depend d
                                      WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                                        AND d.deptype = 'e')
                        THEN pg_catalog.format('ALTER EXTENSION bdr DROP TABLE bdr.%I;', c.relname) ELSE '' END
                   || pg_catalog.format('DROP TABLE bdr.%I', c.relname)
              FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent = 'bdr.conflict_history'::pg_catalog.regclass
               AND c.relnamespace = 'bdr'::pg_catalog.regnamespace AND c.relname ~ '^conflict_history_[0-9]{8}$'
               AND (pg_catalog.to_date(pg_catalog.right(c.relname, 8), 'YYYYMMDD') + 1)::pg_catalog.timestamp
                   AT TIME ZONE 'UTC' <= pg_catalog.now() - \(retention) * '1 minute'::pg_catalog.interval
            """)
        guard let expired else {
            return false
        }
        return try self.run(
            (0..<expired.count).compactMap { expired[$0, 0] } + [
                """
                DELETE FROM bdr.conflict_history_default
                 WHERE local_time < pg_catalog.now() - \(retention) * '1 minute'::pg_catalog.interval
                """
            ])
    }

    private func measure() throws {
        let rows = try self.attempt(
            """
            SELECT COALESCE(pg_catalog.sum(pg_catalog.pg_total_relation_size(relid)), 0)::pg_catalog.int8
              FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass('bdr.conflict_history'))
            """)
        if let size = rows?[0, 0].flatMap({ UInt64($0) }) {
            bdr_host_conflict_history_size(size)
        }
        try Transaction.run { _ = try host(bdr_host_conflict_sweep()) }
    }
}
