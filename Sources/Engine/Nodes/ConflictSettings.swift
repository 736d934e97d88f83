// How the local node resolves conflicts, and which it logs: the functions that set it, and what apply workers and joining nodes
// read.

internal import CHost
internal import Conflict

/// Which conflicts are logged, and where to.
struct ConflictLogConfig {
    var toFile = true
    var toTable = true
    /// nil: all.
    var types: Set<ConflictType>?
    var resolutions: Set<Resolution>?

    func wants(_ type: ConflictType, _ resolution: Resolution) -> Bool {
        self.types?.contains(type) ?? true && self.resolutions?.contains(resolution) ?? true
    }
}

enum ConflictSettings {
    /// Inside a transaction. What the tables hold that this version does not know counts as not set.
    static func load() throws -> (ResolverSettings, ConflictLogConfig) {
        var resolvers = ResolverSettings()
        let rows = try SQL.query("SELECT conflict_type, conflict_resolver FROM bdr.conflict_resolver")
        for row in 0..<rows.count {
            if let type = rows[row, 0].flatMap({ ConflictType(rawValue: $0) }),
                let resolver = rows[row, 1].flatMap({ Resolver(rawValue: $0) }), type.allowedResolvers.contains(resolver)
            {
                try? resolvers.set(resolver, for: type)
            }
        }
        var config = ConflictLogConfig()
        let log = try SQL.query("SELECT log_to_file, log_to_table FROM bdr.conflict_log_config")
        if log.count > 0 {
            config.toFile = log[0, 0] == "t"
            config.toTable = log[0, 1] == "t"
            config.types = try self.list("log_conflict_type").map { Set($0.compactMap { ConflictType(rawValue: $0) }) }
            config.resolutions = try self.list("log_conflict_res").map { Set($0.compactMap { Resolution(rawValue: $0) }) }
        }
        return (resolvers, config)
    }

    /// A list of names in the log settings; nil for null.
    private static func list(_ column: String) throws -> [String]? {
        guard try SQL.query("SELECT FROM bdr.conflict_log_config WHERE \(column) IS NULL").count == 0 else {
            return nil
        }
        let rows = try SQL.query("SELECT pg_catalog.unnest(\(column)) FROM bdr.conflict_log_config")
        return (0..<rows.count).compactMap { rows[$0, 0] }
    }

    /// Only the local node may be named: the settings of others are theirs.
    private static func requireLocal(_ name: String) throws {
        let local = try LocalNode.require()
        guard name != local.name else {
            return
        }
        guard try SQL.query("SELECT FROM bdr.node WHERE node_name = $1::pg_catalog.name", [name]).count > 0 else {
            throw BdrError(SQLSTATE.undefinedObject, "there is no node \"\(name)\"", hint: "See bdr.node_summary.")
        }
        throw BdrError(
            SQLSTATE.invalidParameterValue, "node \"\(name)\" is not the local node",
            detail: "Conflicts are resolved and logged on each node for itself.",
            hint: "Call the function on node \"\(name)\"; this one is \"\(local.name)\".")
    }

    static func setResolver(_ resolver: String, for type: String, node: String) throws {
        try self.requireLocal(node)
        var settings = ResolverSettings()
        do throws(ResolverError) {
            try settings.set(resolverName: resolver, forTypeName: type)
        } catch {
            throw BdrError(error.sqlstate, error.message, detail: error.detail, hint: error.hint)
        }
        try SQL.query(
            """
            INSERT INTO bdr.conflict_resolver (conflict_type, conflict_resolver) VALUES ($1, $2)
            ON CONFLICT (conflict_type) DO UPDATE SET conflict_resolver = EXCLUDED.conflict_resolver
            """, [type, resolver])
        try host(bdr_host_conflict_settings_notify())
    }

    static func setLog(node: String, toFile: Bool, toTable: Bool, types: [String]?, resolutions: [String]?) throws {
        try self.requireLocal(node)
        try self.check(types, "conflict_type", "conflict type", ConflictType.allCases.map(\.rawValue))
        try self.check(resolutions, "conflict_resolution", "conflict resolution", Resolution.allCases.map(\.rawValue))
        try self.storeLog(
            toFile: toFile ? "t" : "f", toTable: toTable ? "t" : "f", types: try types.map(self.array),
            resolutions: try resolutions.map(self.array))
        try host(bdr_host_conflict_settings_notify())
    }

    private static func check(_ names: [String]?, _ argument: String, _ kind: String, _ known: [String]) throws {
        guard let names else {
            return
        }
        guard !names.isEmpty else {
            throw BdrError(
                SQLSTATE.invalidParameterValue, "\(argument) must not be empty",
                hint: "NULL stands for all; to log nothing, set log_to_file and log_to_table to false.")
        }
        for name in names where !known.contains(name) {
            throw BdrError(
                SQLSTATE.invalidParameterValue, "unknown \(kind) \"\(name)\"",
                hint: "Known are: \(known.joined(separator: ", ")).")
        }
    }

    /// As the text of an array. The names are ours: letters and underscores.
    private static func array(_ names: [String]) throws -> String {
        "{\(names.joined(separator: ","))}"
    }

    private static func storeLog(toFile: String?, toTable: String?, types: String?, resolutions: String?) throws {
        try SQL.query(
            """
            INSERT INTO bdr.conflict_log_config (log_to_file, log_to_table, log_conflict_type, log_conflict_res)
            VALUES ($1::pg_catalog.bool, $2::pg_catalog.bool, $3::pg_catalog.text[], $4::pg_catalog.text[])
            ON CONFLICT (log_name) DO UPDATE
               SET log_to_file = EXCLUDED.log_to_file, log_to_table = EXCLUDED.log_to_table,
                   log_conflict_type = EXCLUDED.log_conflict_type, log_conflict_res = EXCLUDED.log_conflict_res
            """, [toFile, toTable, types, resolutions])
    }

    // MARK: Taken over by a joining node

    /// Rows (what, ...): "resolver", type, resolver; "log", to file, to table, types, resolutions; "dropped", schema, table, time:
    /// a table that is not copied, as it is gone, and of which changes of others may still come.
    static func describe() throws -> Rows {
        try SQL.query(
            """
            SELECT 'resolver', conflict_type, conflict_resolver, NULL, NULL FROM bdr.conflict_resolver
            UNION ALL
            SELECT 'log', log_to_file::pg_catalog.text, log_to_table::pg_catalog.text, log_conflict_type::pg_catalog.text,
                   log_conflict_res::pg_catalog.text
              FROM bdr.conflict_log_config
            UNION ALL
            SELECT 'dropped', nspname::pg_catalog.text, relname::pg_catalog.text,
                   pg_catalog.date_part('epoch', drop_time)::pg_catalog.text, NULL
              FROM bdr.dropped_table
            """)
    }

    /// Takes the place of what is set here. Inside a transaction.
    static func adopt(_ rows: Rows) throws {
        try self.forget()
        for row in 0..<rows.count {
            switch rows[row, 0] {
            case "resolver":
                try SQL.query(
                    "INSERT INTO bdr.conflict_resolver (conflict_type, conflict_resolver) VALUES ($1, $2)",
                    [rows[row, 1], rows[row, 2]])
            case "log":
                try self.storeLog(
                    toFile: rows[row, 1], toTable: rows[row, 2], types: rows[row, 3], resolutions: rows[row, 4])
            case "dropped":
                try SQL.query(
                    """
                    INSERT INTO bdr.dropped_table (nspname, relname, drop_time)
                    VALUES ($1::pg_catalog.name, $2::pg_catalog.name, pg_catalog.to_timestamp($3::pg_catalog.float8))
                    """, [rows[row, 1], rows[row, 2], rows[row, 3]])
            default:
                break
            }
        }
        try host(bdr_host_conflict_settings_notify())
    }

    static func forget() throws {
        try SQL.query("DELETE FROM bdr.conflict_resolver")
        try SQL.query("DELETE FROM bdr.conflict_log_config")
    }
}

@c(bdr_engine_alter_conflict_resolver)
public func bdrEngineAlterConflictResolver(
    _ node: UnsafePointer<CChar>?, _ type: UnsafePointer<CChar>?, _ resolver: UnsafePointer<CChar>?
) -> Int32 {
    entry {
        try ConflictSettings.setResolver(
            Argument.text(resolver, "conflict_resolver"), for: Argument.text(type, "conflict_type"),
            node: Argument.text(node, "node_name"))
    }
}

@c(bdr_engine_alter_conflict_log)
public func bdrEngineAlterConflictLog(
    _ node: UnsafePointer<CChar>?, _ toFile: Bool, _ toTable: Bool, _ types: UnsafePointer<UnsafePointer<CChar>?>?,
    _ resolutions: UnsafePointer<UnsafePointer<CChar>?>?
) -> Int32 {
    entry {
        func strings(_ list: UnsafePointer<UnsafePointer<CChar>?>?) -> [String]? {
            guard var next = list else {
                return nil
            }
            var strings: [String] = []
            while let text = next.pointee {
                strings.append(String(cString: text))
                next += 1
            }
            return strings
        }
        try ConflictSettings.setLog(
            node: Argument.text(node, "node_name"), toFile: toFile, toTable: toTable, types: strings(types),
            resolutions: strings(resolutions))
    }
}

@c(bdr_engine_conflict_types)
public func bdrEngineConflictTypes(_ result: UnsafeMutablePointer<OpaquePointer?>?) -> Int32 {
    entry {
        let settings = ResolverSettings()
        let values = ConflictType.allCases.map { "('\($0.rawValue)', '\(settings.resolver(for: $0).rawValue)')" }
        result?.pointee = try SQL.query("VALUES \(values.joined(separator: ", "))").release()
    }
}
