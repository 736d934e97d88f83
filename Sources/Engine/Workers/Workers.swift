// What is told to, and asked about, background workers of this database.

internal import CHost
internal import Membership

enum Workers {
    /// Asks the apply worker of a peer to stop and waits until it has, so that its origin and slot are free.
    /// - Throws: object_in_use when it doesn't stop within 30 s.
    static func stopApply(of peer: UInt32) throws {
        try self.stop(role: Int32(BDR_ROLE_APPLY), of: peer)
    }

    /// Asks a worker to stop and waits until it has.
    /// - Throws: object_in_use when it doesn't stop within 30 s.
    static func stop(role: Int32, of peer: UInt32) throws {
        let deadline = bdr_host_now() &+ 30_000_000
        while true {
            var info = BdrWorkerInfo()
            try host(bdr_host_worker_info(role, peer, &info))
            if info.running == 0 {
                return
            }
            guard bdr_host_now() < deadline else {
                throw BdrError(
                    SQLSTATE.objectInUse,
                    peer == 0 ? "a worker does not stop" : "the worker for node id \(peer) does not stop", hint: "Try again later.")
            }
            try host(bdr_host_worker_stop(role, peer))
            try host(bdr_host_wait(nil, 50))
        }
    }
}

extension Workers {
    /// Has the apply worker of a peer replaced by a new one: returns when the present one has ended.
    /// - Throws: object_in_use when it doesn't end within 30 s.
    static func restartApply(of peer: UInt32) throws {
        let deadline = bdr_host_now() &+ 30_000_000
        var info = BdrWorkerInfo()
        try host(bdr_host_worker_info(Int32(BDR_ROLE_APPLY), peer, &info))
        let pid = info.pid
        while info.running != 0 && info.pid == pid {
            guard bdr_host_now() < deadline else {
                throw BdrError(
                    SQLSTATE.objectInUse, "the apply worker of node id \(peer) does not stop", hint: "Try again later.")
            }
            try host(bdr_host_worker_stop(Int32(BDR_ROLE_APPLY), peer))
            try host(bdr_host_wait(nil, 20))
            try host(bdr_host_worker_info(Int32(BDR_ROLE_APPLY), peer, &info))
        }
    }
}

/// Errors that ended workers, kept for bdr.worker_errors.
@c(bdr_engine_record_worker_error)
public func bdrEngineRecordWorkerError(
    _ role: Int32, _ peer: UInt32, _ sqlstate: UnsafePointer<CChar>?, _ message: UnsafePointer<CChar>?,
    _ detail: UnsafePointer<CChar>?, _ context: UnsafePointer<CChar>?
) -> Int32 {
    entry {
        let code = sqlstate.map { String(cString: $0) } ?? SQLSTATE.internalError
        let text = message.map { String(cString: $0) } ?? ""
        let detailText = detail.map { String(cString: $0) }
        try Transaction.run {
            guard try SQL.query("SELECT pg_catalog.to_regclass('bdr.worker_error')")[0, 0] != nil else {
                return
            }
            try SQL.query(
                """
                INSERT INTO bdr.worker_error (worker_role, peer_node_id, error_sqlstate, error_message, error_detail,
                                              error_context)
                VALUES ($1::pg_catalog.int4, $2::pg_catalog.oid, $3, $4, $5, $6)
                """,
                [String(role), String(peer), code, text, detailText, context.map { String(cString: $0) }])
            // a worker that fails for days must not fill the disk
            try SQL.query(
                """
                DELETE FROM bdr.worker_error
                 WHERE worker_role = $1::pg_catalog.int4 AND peer_node_id = $2::pg_catalog.oid
                   AND error_id <= (SELECT error_id FROM bdr.worker_error
                                     WHERE worker_role = $1::pg_catalog.int4 AND peer_node_id = $2::pg_catalog.oid
                                     ORDER BY error_id DESC OFFSET 100 LIMIT 1)
                """, [String(role), String(peer)])
            if role == Int32(BDR_ROLE_JOIN) {
                try SQL.query(
                    """
                    UPDATE bdr.join_state SET error_sqlstate = $1, error_message = $2, error_detail = $3,
                           changed_time = pg_catalog.clock_timestamp()
                     WHERE step NOT IN ('active', 'failed')
                    """, [code, text, detailText])
                // an error of this server itself ends the process, not only the step; tried again for ever only if it can pass
                if !SQLState.isTransient(code), var record = try JoinRecord.load() {
                    record.state = JoinPlan.next(after: record.state, outcome: .failed)
                    try record.save()
                }
            }
        }
    }
}
