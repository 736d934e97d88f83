// Begin and commit of remote transactions, and messages beside their changes.

internal import CHost
internal import Conflict
internal import Membership
internal import Wire

extension Applier {
    func startup(_ message: StartupMessage) throws {
        guard message.protocolVersion == 1 else {
            throw BdrError(
                SQLSTATE.featureNotSupported,
                "node \"\(self.settings.sourceName)\" speaks protocol version \(message.protocolVersion)",
                detail: "This node knows version 1.", hint: "Bring both nodes to the same version of bdr.")
        }
        if let name = message["node_name"], name != self.settings.sourceName {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState,
                "the server reached as node \"\(self.settings.sourceName)\" says that it is node \"\(name)\"",
                hint: "Correct the connection string of the node.")
        }
    }

    func begin(_ message: BeginMessage) throws {
        guard self.transaction == nil else {
            throw BdrError(SQLSTATE.protocolViolation, "a transaction began inside another one")
        }
        self.change = 0
        if self.settings.isForwarded {
            guard message.originNode == self.settings.peerID, message.originLSN != 0 else {
                throw BdrError(
                    SQLSTATE.protocolViolation, "node \"\(self.settings.sourceName)\" forwarded what it was not asked for")
            }
            self.skipping = message.originLSN <= self.progress
        } else {
            // the peer starts where it is asked to; this is the second lock on the door
            self.skipping = message.commitLSN < self.progress
        }
        self.transaction = message
        if !self.skipping {
            self.transactionNumber &+= 1
            self.keepsStamps = bdr_host_members() != 1
            try self.waitForClock(message.commitTime)
            try host(bdr_host_apply_begin(message.commitLSN, message.commitTime))
            let version = self.version(message)
            try host(bdr_host_columns_version(version.time, version.node))
            try self.conflicts.begin()
        }
    }

    /// What is written here on top of a remote change must not be dated before it. So the change waits until the clock of this
    /// server has passed its commit time.
    func waitForClock(_ commitTime: Int64) throws {
        guard commitTime >= bdr_host_now() else {
            return
        }
        let allowed = Int64(bdr_host_setting_int("bdr.maximum_clock_skew", 0))
        guard allowed >= 0 else {
            return
        }
        let waits = bdr_host_setting("bdr.maximum_clock_skew_action").map { String(cString: $0) } == "wait"
        while true {
            let now = bdr_host_now()
            let ahead = commitTime &- now &- allowed &* 1000
            guard ahead >= 0 else {
                return
            }
            if ahead > 1_000_000 || !waits, now &- self.warnedOfClock > 60_000_000 {
                self.warnedOfClock = now
                try Log.warning(
                    "the clock of node \"\(self.settings.peerName)\" is \((commitTime &- now) / 1000) ms ahead of this one's",
                    sqlstate: SQLSTATE.objectNotInPrerequisiteState,
                    detail: waits ? "Its changes wait until this server's clock has passed their commit time." : nil,
                    hint: "Have both servers' clocks synchronised (NTP).")
            }
            guard waits else {
                return
            }
            try self.whileWaiting()
            if try host(bdr_host_wait(nil, min(1000, ahead / 1000 + 1))) & Int32(BDR_WAIT_SHUTDOWN) != 0 {
                throw BdrError("57P01", "terminating while a change waited for the clock")
            }
        }
    }

    func commit(_ message: CommitMessage, _ committed: (UInt64, UInt64) -> Void) throws {
        guard let begin = self.transaction, begin.commitLSN == message.commitLSN else {
            throw BdrError(SQLSTATE.protocolViolation, "a commit arrived that belongs to no transaction")
        }
        self.transaction = nil
        if self.skipping {
            self.skipping = false
            guard self.leavesOut else {
                return
            }
            self.leavesOut = false
        }
        var localEnd: UInt64 = 0
        // in the WAL of the node where it was committed first
        let end = self.settings.isForwarded ? begin.originLSN : message.endLSN
        do {
            if self.settings.tracksPosition {
                try SQL.query(
                    """
                    INSERT INTO bdr.origin_position (origin_node_id, position)
                    VALUES ($1::pg_catalog.oid, $2::pg_catalog.pg_lsn)
                    ON CONFLICT (origin_node_id) DO UPDATE SET position = EXCLUDED.position
                    """, [String(self.settings.peerID), LSN.text(end)])
            }
            try self.conflicts.flush()
            if !self.locks.isEmpty {
                try LockVotes.applied(self.locks, of: self.settings.peerID, position: end)
                self.locks = []
            }
            try host(bdr_host_apply_commit(end, message.commitTime, &localEnd))
        } catch {
            bdr_host_error_add_context(
                "during apply of COMMIT from node \"\(self.settings.peerName)\", commit LSN "
                    + LSN.text(message.commitLSN))
            throw error
        }
        self.progress = end
        committed(message.endLSN, localEnd)
        bdr_host_progress_applied(message.endLSN, message.commitTime)
        bdr_host_progress_count(Int32(BDR_COUNT_COMMIT), 1)
        try self.conflicts.committed()
    }

    func message(_ message: LogicalMessage) throws {
        if message.isTransactional {
            try self.requireCommitted()
            // others only mark a place
            if message.prefix == DdlMessage.prefix {
                try self.ddl(message.content)
            } else if message.prefix == "bdr.lock" && !self.skipping && !self.settings.isForwarded {
                self.locks.append(try LockVotes.number(message.content))
            }
            return
        }
        guard !self.settings.isForwarded else {
            return
        }
        guard self.transaction == nil else {
            throw BdrError(SQLSTATE.protocolViolation, "a report arrived inside a transaction")
        }
        switch message.prefix {
        case Progress.reportPrefix:
            guard let text = String(validating: message.content, as: UTF8.self) else {
                throw BdrError(SQLSTATE.protocolViolation, "a node's report of its progress is malformed")
            }
            let report = try ProgressReport(text: text)
            try Transaction.run { try Progress.store(report, of: self.settings.peerID) }
        case RowStamps.clockPrefix:
            let text = String(decoding: message.content, as: UTF8.self)
            try Transaction.run { try RowStamps.passed(text, by: self.settings.peerID) }
        case Progress.requestPrefix:
            try Transaction.run { _ = try Progress.report() }
        default:
            break
        }
    }
}
