// Tables that were dropped here within a day: bdr.dropped_table, which Extension/dropped_tables.c writes.

enum DroppedTables {
    /// Inside a transaction.
    static func contains(_ namespace: String, _ name: String) throws -> Bool {
        try SQL.query(
            """
            SELECT FROM bdr.dropped_table
             WHERE nspname OPERATOR(pg_catalog.=) $1::pg_catalog.name AND relname OPERATOR(pg_catalog.=) $2::pg_catalog.name
               AND drop_time OPERATOR(pg_catalog.>) (pg_catalog.now() OPERATOR(pg_catalog.-) '1 day'::pg_catalog.interval)
             LIMIT 1
            """, [namespace, name]
        ).count > 0
    }

    /// Forgets those that were dropped earlier. Inside a transaction.
    static func clean() throws {
        try SQL.query(
            """
            DELETE FROM bdr.dropped_table
             WHERE drop_time OPERATOR(pg_catalog.<=) (pg_catalog.now() OPERATOR(pg_catalog.-) '1 day'::pg_catalog.interval)
            """)
    }
}
