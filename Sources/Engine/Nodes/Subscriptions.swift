// Functions about subscriptions: switching them off and on, and waiting for what they bring.

internal import CHost
internal import Membership

@c(bdr_engine_alter_subscription)
public func bdrEngineAlterSubscription(
    _ name: UnsafePointer<CChar>?, _ enabled: Bool, _ immediate: Bool, _ changed: UnsafeMutablePointer<Int32>?
) -> Int32 {
    entry {
        let name = name.map { String(cString: $0) }
        let node = try LocalNode.require()
        let known = try SQL.query(
            "SELECT origin_node_id FROM bdr.subscription WHERE sub_name = COALESCE($1::pg_catalog.name, sub_name)", [name])
        if let name, known.count == 0 {
            throw BdrError(
                SQLSTATE.undefinedObject, "node \"\(node.name)\" has no subscription \"\(name)\"",
                hint: "See bdr.subscription_summary.")
        }
        let rows = try SQL.query(
            """
            UPDATE bdr.subscription SET sub_enabled = $2::pg_catalog.bool
             WHERE sub_name = COALESCE($1::pg_catalog.name, sub_name) AND sub_enabled <> $2::pg_catalog.bool
            RETURNING origin_node_id
            """, [name, enabled ? "t" : "f"])
        if immediate && !enabled {
            for row in 0..<known.count {
                if let peer = known[row, 0].flatMap({ UInt32($0) }) {
                    try host(bdr_host_worker_stop(Int32(BDR_ROLE_APPLY), peer))
                }
            }
        }
        changed?.pointee = Int32(clamping: rows.count)
    }
}

@c(bdr_engine_skip_changes)
public func bdrEngineSkipChanges(_ name: UnsafePointer<CChar>?, _ lsn: UInt64) -> Int32 {
    entry {
        let name = try Argument.text(name, "subname")
        let node = try LocalNode.require()
        let rows = try SQL.query(
            """
            SELECT s.sub_enabled, s.sub_origin_name, w.worker_pid, s.origin_node_id
              FROM bdr.subscription s LEFT JOIN bdr.show_subscription_status() w ON w.peer = s.origin_node_id
             WHERE s.sub_name = $1::pg_catalog.name
            """, [name])
        guard rows.count == 1, let origin = rows[0, 1] else {
            throw BdrError(
                SQLSTATE.undefinedObject, "node \"\(node.name)\" has no subscription \"\(name)\"",
                hint: "See bdr.subscription_summary.")
        }
        guard rows[0, 0] == "f", rows[0, 2] == nil else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "subscription \"\(name)\" is still receiving",
                hint: "Disable it first: SELECT bdr.alter_subscription_disable('\(name)', immediate := true); then wait until its worker has ended.")
        }
        let behind = try SQL.query(
            """
            SELECT FROM pg_catalog.pg_replication_origin_status o
              JOIN pg_catalog.pg_replication_origin n ON n.roident OPERATOR(pg_catalog.=) o.local_id
             WHERE n.roname OPERATOR(pg_catalog.=) $1 AND o.remote_lsn OPERATOR(pg_catalog.>) $2::pg_catalog.pg_lsn
            """, [origin, LSN.text(lsn)])
        guard behind.count == 0, lsn < UInt64.max else {
            throw BdrError(
                SQLSTATE.invalidParameterValue, "changes up to \(LSN.text(lsn)) have been applied already",
                hint: "Give the commit LSN that bdr.worker_errors shows.")
        }
        try SQL.query(
            "SELECT pg_catalog.pg_replication_origin_advance($1, $2::pg_catalog.pg_lsn)", [origin, LSN.text(lsn &+ 1)])
        if let peer = rows[0, 3].flatMap({ UInt32($0) }) {
            bdr_host_stats_skipped(peer)
        }
    }
}

@c(bdr_engine_wait_for_apply_queue)
public func bdrEngineWaitForApplyQueue(_ peer: UnsafePointer<CChar>?, _ hasTarget: Bool, _ target: UInt64) -> Int32 {
    entry {
        let peer = peer.map { String(cString: $0) }
        let goals = try SQL.query(
            """
            SELECT s.origin_node_id, CASE WHEN $2::pg_catalog.bool THEN $3::pg_catalog.pg_lsn ELSE w.receive_commit_lsn END
              FROM bdr.subscription s
              JOIN bdr.node n ON n.node_id = s.origin_node_id
              LEFT JOIN bdr.show_subscription_status() w ON w.peer = s.origin_node_id
             WHERE n.node_name = COALESCE($1::pg_catalog.name, n.node_name)
            """, [peer, hasTarget ? "t" : "f", LSN.text(target)])
        if let peer, goals.count == 0 {
            throw BdrError(
                SQLSTATE.undefinedObject, "this node receives nothing from a node \"\(peer)\"",
                hint: "See bdr.subscription_summary.")
        }
        for row in 0..<goals.count {
            guard let id = goals[row, 0], let goal = goals[row, 1] else {
                continue
            }
            // what has no changes for this node never has a commit here: then being confirmed counts
            while try SQL.query(
                """
                SELECT FROM bdr.show_subscription_status()
                 WHERE peer = $1::pg_catalog.oid
                   AND GREATEST(last_xact_replay_lsn, last_xact_flush_lsn) >= $2::pg_catalog.pg_lsn
                """, [id, goal]
            ).count == 0 {
                try host(bdr_host_wait(nil, 20))
            }
        }
    }
}

@c(bdr_engine_local_group_slot_name)
public func bdrEngineLocalGroupSlotName(
    _ result: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> Int32 {
    entry {
        // the view, as who may call this function may not read all of the catalog
        let rows = try SQL.query(
            "SELECT pg_catalog.current_database(), node_group_name FROM bdr.local_node_summary")
        guard let database = rows[0, 0], let group = rows[0, 1] else {
            return try give(nil, result)
        }
        try give(ObjectNames.groupSlotName(database: database, group: group), result)
    }
}

@c(bdr_engine_state_name)
public func bdrEngineStateName(_ state: UInt32, _ result: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> Int32 {
    entry {
        try give(NodeState(rawValue: state)?.name, result)
    }
}
