// bdr.check_settings, and the small functions that views and people call.

internal import CHost
internal import Membership

@c(bdr_engine_check_settings)
public func bdrEngineCheckSettings(
    _ remoteDSN: UnsafePointer<CChar>?, _ result: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
    entry {
        var report = CheckReport()
        try report.local()
        if let dsn = remoteDSN.map({ String(cString: $0) }) {
            try Argument.connectionString(dsn, "remote_dsn")
            try report.remote(dsn)
        }
        result?.pointee = try report.rows().release()
    }
}

private struct CheckReport {
    private var checks: [(name: String, status: String, detail: String, hint: String?)] = []
    private var localSettings: ServerSettings?

    private mutating func add(_ list: [SettingCheck], prefix: String, role: String) {
        for check in list {
            self.checks.append(
                (
                    prefix + check.name, "\(check.status)", check.detail,
                    check.hint.map { check.name == "role" ? ServerQuestion.naming(role, in: $0) : $0 }
                ))
        }
    }

    mutating func local() throws {
        guard let node = try LocalNode.find() else {
            let (settings, role) = try ServerProbe.settings(peers: 1) { try SQL.query($0, $1) }
            self.localSettings = settings
            self.add(checkSettings(settings), prefix: "", role: role)
            return
        }
        // the role that counts is the one by which others connect
        let here = try DatabaseIdentity.read { try SQL.query($0, $1) }
        do {
            let loop = try Connection(dsn: node.dsn, options: [("replication", "database")])
            guard try DatabaseIdentity.read({ sql, _ in try loop.query(sql) }) == here else {
                self.checks.append(
                    (
                        "local_dsn", "error", "local_dsn leads to another database than this one.",
                        "Create the node again with the right local_dsn."
                    ))
                return
            }
            let (settings, role) = try ServerProbe.settings(peers: 1) { sql, _ in try loop.query(sql) }
            self.localSettings = settings
            self.add(checkSettings(settings), prefix: "", role: role)
            self.checks.append(("local_dsn", "ok", "local_dsn leads to this database.", nil))
        } catch let error as RemoteError {
            let (settings, role) = try ServerProbe.settings(peers: 1) { try SQL.query($0, $1) }
            self.localSettings = settings
            self.add(checkSettings(settings), prefix: "", role: role)
            self.checks.append(
                (
                    "local_dsn", "error", "A replication connection with local_dsn failed: \(error.message)",
                    "Permit the role in pg_hba.conf, for this database."
                ))
        }
    }

    mutating func remote(_ dsn: String) throws {
        do {
            let connection = try Connection(dsn: dsn, options: [("replication", "database")])
            let (settings, role) = try ServerProbe.settings(peers: 1) { sql, _ in try connection.query(sql) }
            self.checks.append(("remote_dsn", "ok", "A replication connection with remote_dsn works.", nil))
            self.add(checkSettings(settings), prefix: "remote: ", role: role)
            if let local = self.localSettings {
                self.add(checkPair(joining: local, target: settings), prefix: "", role: role)
            }
        } catch let error as RemoteError {
            self.checks.append(
                (
                    "remote_dsn", "error", "A replication connection with remote_dsn failed: \(error.message)",
                    "Check host, port and pg_hba.conf of the other server, for its database."
                ))
        }
    }

    func rows() throws -> Rows {
        var arguments: [String?] = []
        var lines: [String] = []
        for check in self.checks {
            let first = arguments.count
            arguments += [check.name, check.status, check.detail, check.hint]
            lines.append("(\(lines.count), $\(first + 1), $\(first + 2), $\(first + 3), $\(first + 4))")
        }
        return try SQL.query(
            """
            SELECT name, status, detail, hint FROM (VALUES \(lines.joined(separator: ", ")))
                AS c(place, name, status, detail, hint) ORDER BY place
            """, arguments)
    }
}

/// Memory for C: from malloc, freed with bdr_host_free.
func give(_ text: String?, _ result: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) throws {
    guard let text else {
        result?.pointee = nil
        return
    }
    let copy = text.withCString { bdr_host_copy_text($0) }
    guard let copy else {
        throw BdrError("53200", "out of memory")
    }
    result?.pointee = copy
}

@c(bdr_engine_mask_dsn)
public func bdrEngineMaskDSN(
    _ dsn: UnsafePointer<CChar>?, _ result: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> Int32 {
    entry {
        try give(DSN.masked(Argument.text(dsn, "dsn")), result)
    }
}

@c(bdr_engine_object_name)
public func bdrEngineObjectName(
    _ kind: UnsafePointer<CChar>?, _ database: UnsafePointer<CChar>?, _ group: UnsafePointer<CChar>?,
    _ origin: UnsafePointer<CChar>?, _ target: UnsafePointer<CChar>?,
    _ result: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> Int32 {
    entry {
        let kind = try Argument.text(kind, "kind")
        let database = try Argument.text(database, "database")
        let group = try Argument.text(group, "node_group")
        let name =
            switch kind {
            case "slot":
                ObjectNames.slotName(database: database, group: group, peer: try Argument.text(target, "target"))
            case "group_slot":
                ObjectNames.groupSlotName(database: database, group: group)
            case "origin":
                ObjectNames.originName(database: database, group: group, node: try Argument.text(origin, "origin"))
            case "subscription":
                ObjectNames.subscriptionName(
                    database: database, group: group, origin: try Argument.text(origin, "origin"),
                    target: try Argument.text(target, "target"))
            default:
                throw BdrError(SQLSTATE.invalidParameterValue, "unknown kind of object \"\(kind)\"")
            }
        try give(name, result)
    }
}

@c(bdr_engine_wait_slot_confirm)
public func bdrEngineWaitSlotConfirm(_ slotName: UnsafePointer<CChar>?, _ targetLSN: UInt64) -> Int32 {
    entry {
        let slot = slotName.map { String(cString: $0) }
        if let slot,
            try SQL.query(
                """
                SELECT FROM pg_catalog.pg_replication_slots
                 WHERE slot_name = $1 AND plugin = 'bdr' AND database = pg_catalog.current_database()
                """, [slot]
            ).count == 0
        {
            throw BdrError(
                SQLSTATE.undefinedObject, "there is no slot \"\(slot)\" of a peer of this node",
                hint: "See bdr.node_slots.")
        }
        while true {
            let behind = try SQL.query(
                """
                SELECT FROM pg_catalog.pg_replication_slots
                 WHERE plugin = 'bdr' AND database = pg_catalog.current_database() AND NOT temporary
                   AND CASE WHEN $1 IS NULL THEN slot_name IS DISTINCT FROM bdr.local_group_slot_name()
                            ELSE slot_name = $1 END
                   AND (confirmed_flush_lsn IS NULL OR confirmed_flush_lsn < $2::pg_catalog.pg_lsn)
                """, [slot, LSN.text(targetLSN)])
            if behind.count == 0 {
                return
            }
            try host(bdr_host_wait(nil, 20))
        }
    }
}
