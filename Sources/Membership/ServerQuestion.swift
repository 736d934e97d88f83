// What a server is asked before it becomes a node: by the extension, and by bdrctl, where there is no extension yet.

public enum ServerQuestion {
    /// Statement with one row as its result.
    public static let text = """
        SELECT pg_catalog.current_database(), pg_catalog.current_setting('server_version_num'),
               pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate,
               pg_catalog.current_setting('wal_level'), pg_catalog.current_setting('track_commit_timestamp'),
               CASE WHEN r.rolsuper OR pg_catalog.pg_has_role(r.oid, 'pg_read_all_settings', 'USAGE')
                    THEN pg_catalog.current_setting('shared_preload_libraries') END,
               (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'output_plugin_libraries'),
               pg_catalog.current_setting('max_replication_slots'),
               (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots),
               pg_catalog.current_setting('max_active_replication_origins', true),
               (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_origin),
               pg_catalog.current_setting('max_wal_senders'),
               (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'walsender'),
               pg_catalog.current_setting('max_worker_processes'),
               r.rolsuper, r.rolreplication,
               COALESCE((SELECT pg_catalog.pg_has_role(r.oid, b.oid, 'USAGE')
                           FROM pg_catalog.pg_roles b WHERE b.rolname = 'bdr_superuser'), false),
               r.rolname, pg_catalog.current_setting('bdr.writers_per_subscription', true)
          FROM pg_catalog.pg_database d, pg_catalog.pg_roles r
         WHERE d.datname = pg_catalog.current_database() AND r.rolname = current_user
        """

    /// Reads the answer.
    /// - Parameters:
    ///   - peers: nodes that this one will exchange changes with.
    ///   - column: value of a column of the row, nil for NULL.
    /// - Returns: the settings, and the role that asked.
    public static func settings(peers: Int, column: (Int) -> String?) -> (settings: ServerSettings, role: String) {
        func text(_ number: Int) -> String { column(number) ?? "" }
        func number(_ number: Int) -> Int { Int(text(number)) ?? 0 }
        func flag(_ number: Int) -> Bool { text(number) == "t" || text(number) == "on" }
        let settings = ServerSettings(
            databaseName: text(0), serverVersionNum: number(1), encoding: text(2), collation: text(3), walLevel: text(4),
            trackCommitTimestamp: flag(5),
            // whoever may not see the list is served by functions that refuse to run without preloading
            preloadLibraries: column(6).map { parseList($0) ?? [$0] } ?? ["bdr"],
            outputPluginLibraries: column(7), maxReplicationSlots: number(8), usedSlots: number(9),
            maxReplicationOrigins: column(10).flatMap { Int($0) }, usedOrigins: number(11), maxWalSenders: number(12),
            usedWalSenders: number(13), maxWorkerProcesses: number(14), isSuperuser: flag(15),
            isReplicationRole: flag(16), isBdrSuperuser: flag(17), peers: peers,
            writers: column(19).flatMap { Int($0) } ?? 2)
        return (settings, text(18))
    }

    /// Puts the role in the place that a hint leaves open.
    public static func naming(_ role: String, in hint: String) -> String {
        var result = ""
        var rest = hint[...]
        while let dots = rest.firstIndex(of: ".") {
            let end = rest.index(dots, offsetBy: 3, limitedBy: rest.endIndex) ?? rest.endIndex
            result += rest[..<dots]
            if rest[dots..<end] == "..." {
                result += "\"\(role)\""
                rest = rest[end...]
            } else {
                result += "."
                rest = rest[rest.index(after: dots)...]
            }
        }
        return result + rest
    }
}
