// Applies the messages of one origin to local tables, one local transaction for each remote one.
//
// Conflicts are looked for only where rows disagree: an insert is tried first, and the decision core (module Conflict) is asked
// when a row is already there, or the key was deleted; an update or delete asks it of every row.

internal import CHost
internal import Conflict
internal import Membership
internal import Wire

final class Applier {
    private let settings: ApplySettings
    private var origins: OriginMap
    private let conflicts: ConflictLog
    private var resolvers: ResolverSettings { self.conflicts.resolvers }
    private var relations: [UInt32: AppliedRelation] = [:]
    private let builder = RowBuilder()
    private let otherBuilder = RowBuilder()
    private let oldBuilder = RowBuilder()
    private let fetch: ValueFetch
    /// Deletes of this origin leave stamps: there are other nodes whose operations may be older and still come.
    private var keepsStamps = true

    /// The remote transaction being applied; nil between transactions.
    private(set) var transaction: BeginMessage?
    /// True while a transaction is received that this node has already: its messages are read and dropped.
    private var skipping = false
    /// End of the last transaction committed here.
    private var progress: UInt64
    private var transactionNumber: UInt64 = 0
    /// Number of the change inside its transaction, from 1, for error messages.
    private var change: UInt64 = 0

    /// When the log was told last that a clock differs, microseconds since 2000.
    private var warnedOfClock = Int64.min / 2
    /// Called from time to time while a change waits.
    var whileWaiting: () throws -> Void = {}

    /// Inserts of one table waiting to be written together.
    private var batch: [BdrRow] = []
    private var batchRelation: AppliedRelation?
    /// Number of the first of them.
    private var batchFirst: UInt64 = 0
    private static let batchLimit = 1000

    /// - Parameter progress: end of the last remote transaction that is committed here.
    init(settings: ApplySettings, progress: UInt64) {
        self.settings = settings
        self.origins = OriginMap(localID: settings.localID)
        self.fetch = ValueFetch(settings: settings)
        self.conflicts = ConflictLog(settings: settings)
        self.progress = progress
        self.batch.reserveCapacity(Self.batchLimit)
    }

    /// Applies whole messages. `committed` is called for each remote transaction that is committed locally, with the remote
    /// end position and the end of the local commit record (0 when nothing was written).
    func apply(_ bytes: UnsafeRawBufferPointer, committed: (UInt64, UInt64) -> Void) throws {
        var cursor = MessageCursor(bytes)
        while let (type, body) = try cursor.next() {
            if type != .insert {
                try self.flushBatch()
            }
            switch type {
            case .insert: try self.insert(body)
            case .update: try self.update(body)
            case .delete: try self.delete(body)
            case .begin: try self.begin(BeginMessage(decoding: body))
            case .commit: try self.commit(CommitMessage(decoding: body), committed)
            case .relation: try self.relation(RelationMessage(decoding: body))
            case .truncate: try self.truncate(TruncateMessage(decoding: body))
            case .startup: try self.startup(StartupMessage(decoding: body))
            case .message: try self.message(LogicalMessage(decoding: body))
            }
        }
        // the rows point into the buffer, which is about to be reused
        try self.flushBatch()
    }

    // MARK: Transactions

    private func startup(_ message: StartupMessage) throws {
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

    private func begin(_ message: BeginMessage) throws {
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
            try self.conflicts.begin()
        }
    }

    /// What is written here on top of a remote change must not be dated before it. So the change waits until the clock of this
    /// server has passed its commit time.
    private func waitForClock(_ commitTime: Int64) throws {
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

    private func commit(_ message: CommitMessage, _ committed: (UInt64, UInt64) -> Void) throws {
        guard let begin = self.transaction, begin.commitLSN == message.commitLSN else {
            throw BdrError(SQLSTATE.protocolViolation, "a commit arrived that belongs to no transaction")
        }
        self.transaction = nil
        if self.skipping {
            self.skipping = false
            return
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

    private func message(_ message: LogicalMessage) throws {
        // transactional ones only mark a place
        guard !message.isTransactional, !self.settings.isForwarded else {
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

    private func requireTransaction() throws -> BeginMessage {
        guard let transaction = self.transaction else {
            throw BdrError(SQLSTATE.protocolViolation, "a change arrived outside of a transaction")
        }
        return transaction
    }

    private func relation(_ message: RelationMessage) throws {
        self.relations[message.relId] = try AppliedRelation(message)
    }

    private func relation(_ id: UInt32) throws -> AppliedRelation {
        guard let relation = self.relations[id] else {
            throw BdrError(SQLSTATE.protocolViolation, "a change names relation \(id), which was never described")
        }
        return relation
    }

    private func version(_ transaction: BeginMessage) -> RowVersion {
        RowVersion(
            time: transaction.commitTime,
            node: transaction.originNode == 0 ? self.settings.peerID : transaction.originNode)
    }

    /// The local row as the decision core sees it.
    private func state(_ found: BdrFound, _ remote: RowVersion) throws -> LocalState {
        if found.own_transaction != 0 {
            return .present(version: nil, sameOrigin: true, ownTransaction: true)
        }
        // what a join has copied is older than any change, and the first change of it no conflict
        guard let version = try self.rowVersion(found), version.time > SnapshotCopy.copyTimestamp else {
            return .present(version: nil, sameOrigin: false, ownTransaction: false)
        }
        return .present(version: version, sameOrigin: version.node == remote.node, ownTransaction: false)
    }

    private func rowVersion(_ found: BdrFound) throws -> RowVersion? {
        guard found.has_version != 0 else {
            return nil
        }
        return RowVersion(time: found.commit_time, node: try self.origins.node(origin: found.origin))
    }

    /// What is known of the key that was looked for last: by the row, if there is one, or by what is remembered.
    private func state(_ relation: AppliedRelation, _ found: BdrFound, _ remote: RowVersion) throws -> LocalState {
        if found.found != 0 && relation.info.merges != 0 {
            return try self.mergedState(relation, found, remote).state
        }
        if found.found != 0 && (found.own_transaction != 0 || (found.has_version != 0 && found.commit_time > SnapshotCopy.copyTimestamp)) {
            return try self.state(found, remote)
        }
        var stamps = BdrStamps()
        try host(bdr_host_stamps(relation.handle, &stamps))
        let stamp = try self.newest(stamps)
        if found.found != 0 {
            guard let stamp else {
                return try self.state(found, remote)
            }
            return .present(version: stamp, sameOrigin: stamp.node == remote.node, ownTransaction: false)
        }
        return .missing(
            stamp: stamp, sameOrigin: stamp.map { $0.node == remote.node } ?? false,
            ownTransaction: stamps.own_transaction != 0 && (stamp.map { $0 < remote } ?? true))
    }

    /// Of a row that may have been merged with a change that lost: that dates the row, and a stamp keeps who has won.
    /// - Returns: also whether the row itself is dated as the state says.
    private func mergedState(
        _ relation: AppliedRelation, _ found: BdrFound, _ remote: RowVersion
    ) throws -> (state: LocalState, byRow: Bool) {
        var stamps = BdrStamps()
        try host(bdr_host_stamps(relation.handle, &stamps))
        let stamp = try self.newest(stamps)
        let state = try self.state(found, remote)
        switch state {
        case .present(_, _, ownTransaction: true):
            guard let stamp, stamp > remote else {
                return (state, true)
            }
        case .present(let version, _, _):
            guard let stamp, version.map({ $0 < stamp }) ?? true else {
                return (state, true)
            }
        case .missing:
            return (state, true)
        }
        return (.present(version: stamp, sameOrigin: stamp?.node == remote.node, ownTransaction: false), false)
    }

    /// Merges a change that lost into the located row, which keeps its version by a stamp.
    /// - Returns: whether the row has changed; nil when it has to be looked at again.
    private func mergeLoser(
        _ row: inout BdrRow, _ relation: AppliedRelation, _ found: BdrFound, _ local: LocalState, _ remote: RowVersion
    ) throws -> Bool? {
        let byRow = try self.mergedState(relation, found, remote).byRow
        var other = BdrFound()
        row.keep_all = 1
        defer { row.keep_all = 0 }
        switch try host(bdr_host_update_found(relation.handle, &row, &other)) {
        case Int32(BDR_SAME):
            return false
        case Int32(BDR_DONE):
            break
        default:
            return nil
        }
        if byRow, case .present(let version?, _, _) = local {
            try host(bdr_host_stamp_at(relation.handle, version.time, version.node))
        }
        return true
    }

    private func newest(_ stamps: BdrStamps) throws -> RowVersion? {
        var newest: RowVersion?
        for stamp in withUnsafeBytes(of: stamps.stamps, { Array($0.bindMemory(to: BdrStamp.self)) })
            .prefix(max(0, Int(stamps.n)))
        {
            let node = stamp.node != 0 ? stamp.node : try self.origins.node(origin: stamp.origin)
            let version = RowVersion(time: stamp.commit_time, node: node)
            newest = newest.map { max($0, version) } ?? version
        }
        return newest
    }

    // MARK: Rows

    private func insert(_ body: UnsafeRawBufferPointer) throws {
        let message = try InsertMessage(decoding: body)
        let transaction = try self.requireTransaction()
        self.change &+= 1
        if self.skipping {
            return
        }
        let relation = try self.relation(message.relId)
        do {
            try relation.use(in: self.transactionNumber)
            if case .raw = message.tuple, relation.info.same_layout != 0, relation.info.stream_triggers == 0 {
                if self.batchRelation !== relation || self.batch.count >= Self.batchLimit {
                    try self.flushBatch()
                    self.batchRelation = relation
                }
                if self.batch.isEmpty {
                    self.batchFirst = self.change
                }
                var row = BdrRow()
                try RowBuilder.fillRaw(&row, message.tuple, relation)
                self.batch.append(row)
                return
            }
            try self.flushBatch()
            try self.builder.withRow(message.tuple, relation) { row in
                if try StreamTriggers.insert(&row, relation, self.version(transaction)) {
                    try self.insertRow(&row, relation, transaction)
                }
            }
        } catch {
            throw self.inContext(error, "INSERT", relation, message.tuple)
        }
    }

    private func flushBatch() throws {
        guard let relation = self.batchRelation else {
            return
        }
        self.batchRelation = nil
        defer { self.batch.removeAll(keepingCapacity: true) }
        let transaction = try self.requireTransaction()
        var done: Int32 = 0
        let count = self.batch.count
        do {
            try self.batch.withUnsafeBufferPointer { rows in
                _ = try host(
                    bdr_host_insert_batch(relation.handle, rows.baseAddress, Int32(clamping: rows.count), &done))
            }
        } catch {
            throw self.inContext(error, "INSERT", relation, nil, rows: count)
        }
        if done > 0 {
            bdr_host_progress_count(Int32(BDR_COUNT_INSERT), UInt64(done))
        }
        // the optimistic way met a row that exists (or was not worth it): one by one, with detection
        let last = self.change
        for number in Int(done)..<count {
            self.change = self.batchFirst &+ UInt64(number)
            do {
                try self.insertRow(&self.batch[number], relation, transaction)
            } catch {
                let row = self.batch[number]
                let tuple = TupleView.raw(
                    attributeCount: Int(row.attributes), hasNulls: row.has_nulls != 0, hasVarWidth: row.has_varwidth != 0,
                    bitmap: UnsafeRawBufferPointer(
                        start: row.bitmap, count: row.has_nulls != 0 ? (Int(row.attributes) + 7) / 8 : 0),
                    data: UnsafeRawBufferPointer(start: row.data, count: Int(row.data_length)))
                throw self.inContext(error, "INSERT", relation, tuple)
            }
        }
        self.change = last
    }

    private func insertRow(_ row: inout BdrRow, _ relation: AppliedRelation, _ transaction: BeginMessage) throws {
        if try self.write(&row, relation, transaction, isNewKey: false) {
            bdr_host_progress_count(Int32(BDR_COUNT_INSERT), 1)
        }
    }

    /// Writes a whole row under a key that need not be free.
    /// - Parameters:
    ///   - isNewKey: it is the new key of an UPDATE, not an INSERT.
    ///   - despiteStamps: whatever is remembered of the key.
    /// - Returns: whether the row was written.
    private func write(
        _ row: inout BdrRow, _ relation: AppliedRelation, _ transaction: BeginMessage, isNewKey: Bool,
        despiteStamps: Bool = false
    ) throws -> Bool {
        let remote = self.version(transaction)
        let sent = row
        func decide(_ state: LocalState) -> Decision {
            isNewKey
                ? decideNewKey(local: state, remote: remote, settings: self.resolvers)
                : decideInsert(local: state, remote: remote, settings: self.resolvers)
        }
        // what was decided of the key's stamps
        var stamped: (decision: Decision, local: LocalState)?
        // the rows in the way have gone, and what is under the key itself has to; or a trigger has settled it
        var cleared = despiteStamps
        while true {
            var found = BdrFound()
            let outcome = try host(bdr_host_insert(relation.handle, &row, stamped != nil || cleared, &found))
            switch outcome {
            case Int32(BDR_RETRY):
                continue
            case Int32(BDR_CONFLICT), Int32(BDR_STAMPED):
                break
            default:
                if let stamped {
                    try self.record(
                        stamped.decision, relation, transaction, found: found, local: stamped.local, key: .row(row),
                        remote: .row(row))
                }
                return true
            }
            let isOther = outcome == BDR_CONFLICT && found.by_identity == 0
            var local = try isOther ? self.state(found, remote) : self.state(relation, found, remote)
            var decision = decide(local)
            if isOther && stamped == nil {
                // a delete of its own key may have won already, whatever else is in the way
                let own = try self.state(relation, BdrFound(), remote)
                switch decide(own) {
                case .skip(let type):
                    (found, local, decision) = (BdrFound(), own, .skip(type))
                case .error(let type):
                    throw Self.resolverError(type)
                case let other:
                    stamped = (other, own)
                }
            }
            if found.found > 1 {
                switch try self.resolveMultiple(relation, transaction, key: .row(row), row: .row(row)) {
                case .lookAgain: break
                case .removed: cleared = true
                case .kept:
                    if isOther && self.keepsStamps {
                        try host(bdr_host_stamp_missing(relation.handle))
                    }
                    return false
                }
                continue
            }
            if cleared && !despiteStamps {
                decision = .apply
            }
            guard let settled = try StreamTriggers.settle(decision, relation, found, local) else {
                continue
            }
            decision = settled.decision
            if let kept = settled.row {
                row.kept = kept
            }
            if decision.conflictType != nil {
                bdr_host_progress_count(Int32(BDR_COUNT_CONFLICT), 1)
            }
            switch decision {
            case .apply, .applyConflict, .insertInstead:
                if outcome == BDR_STAMPED {
                    stamped = (decision, local)
                    continue
                }
                if isOther {
                    // the other row's key is free from now on; what was known of it stays known
                    try self.keepVersion(relation, found)
                }
                row.separate = isOther ? 1 : 0
                defer { row.separate = 0 }
                var other = BdrFound()
                switch try host(bdr_host_update_found(relation.handle, &row, &other)) {
                case Int32(BDR_RETRY):
                    continue
                case Int32(BDR_CONFLICT):
                    guard try self.resolveMultiple(relation, transaction, key: .row(row), row: .row(row)) != .kept else {
                        return false
                    }
                    continue
                default:
                    try self.record(
                        decision, relation, transaction, found: found, local: local, key: .row(sent),
                        remote: .row(sent), byUser: settled.byUser)
                    return true
                }
            case .skip:
                var merged = false
                if relation.info.merges != 0 && !isOther && found.found != 0 {
                    guard let changed = try self.mergeLoser(&row, relation, found, local, remote) else {
                        continue
                    }
                    merged = changed
                }
                try self.record(
                    decision, relation, transaction, found: found, local: local, key: .row(sent),
                    remote: .row(sent), byUser: settled.byUser, merged: merged)
                if isOther && self.keepsStamps {
                    // its own key has lost this change all the same
                    try host(bdr_host_stamp_missing(relation.handle))
                }
                return false
            case .error(let type):
                throw Self.resolverError(type)
            }
        }
    }

    private enum Multiple {
        /// They were others meanwhile.
        case lookAgain
        /// Those in the way are deleted, but the one under the row's own key.
        case removed
        /// They stay.
        case kept
    }

    /// Settles that a row collides with several others.
    private func resolveMultiple(
        _ relation: AppliedRelation, _ transaction: BeginMessage, key: ConflictTuple, row: ConflictTuple
    ) throws -> Multiple {
        let remote = self.version(transaction)
        let resolver = self.resolvers.resolver(for: .multipleUniqueConflicts)
        if resolver == .error {
            throw BdrError(
                "23505", "the row conflicts with several rows under different unique keys",
                detail: "Conflict type multiple_unique_conflicts; its resolver is \"error\".",
                hint: "Change or delete the rows in the way on this node, or choose another resolver; replication then goes on by "
                    + "itself.")
        }
        var count: Int32 = 0
        var shown: Int32 = 0
        var isNewest = true
        var found = BdrFound()
        var local: LocalState?
        func locate(_ number: Int32) throws -> Bool {
            try host(bdr_host_in_the_way(relation.handle, number, &found)) != BDR_RETRY
        }
        func state() throws -> LocalState {
            try found.by_identity != 0 ? self.state(relation, found, remote) : self.state(found, remote)
        }
        while true {
            guard try locate(count) else {
                return .lookAgain
            }
            if found.found == 0 {
                break
            }
            let state = try state()
            if local == nil || !state.isOlder(than: remote) {
                (local, shown) = (state, count)
            }
            isNewest = isNewest && state.isOlder(than: remote)
            count += 1
        }
        guard let local, try locate(shown) else {
            return .lookAgain
        }
        bdr_host_progress_count(Int32(BDR_COUNT_CONFLICT), 1)
        let applies = resolver == .update || (resolver == .updateIfNewer && isNewest)
        try self.record(
            applies ? .applyConflict(.multipleUniqueConflicts) : .skip(.multipleUniqueConflicts), relation, transaction,
            found: found, local: local, key: key, remote: row, isStored: false)
        guard applies else {
            return .kept
        }
        for number in 0..<count {
            let isThere = try locate(number)
            if isThere && found.by_identity != 0 {
                continue
            }
            if isThere && found.found != 0 {
                try self.keepVersion(relation, found)
            }
            guard isThere, found.found != 0, try host(bdr_host_delete_found(relation.handle)) != BDR_RETRY else {
                throw BdrError("40001", "a row of \"\(relation.qualifiedName)\" changed while another one took its place")
            }
        }
        return .removed
    }

    /// Before a row goes because another one takes a unique value of it: its key keeps the version that it had.
    private func keepVersion(_ relation: AppliedRelation, _ found: BdrFound) throws {
        guard self.keepsStamps else {
            return
        }
        if found.own_transaction != 0 {
            try host(bdr_host_stamp(relation.handle))
        } else if let version = try self.rowVersion(found) {
            try host(bdr_host_stamp_at(relation.handle, version.time, version.node))
        }
    }

    private func update(_ body: UnsafeRawBufferPointer) throws {
        var message = try UpdateMessage(decoding: body)
        let transaction = try self.requireTransaction()
        self.change &+= 1
        if self.skipping {
            return
        }
        let relation = try self.relation(message.relId)
        let key = message.old ?? message.new
        do {
            try relation.use(in: self.transactionNumber)
            guard let new = try StreamTriggers.update(
                old: message.old, new: message.new, relation, self.version(transaction), self.builder, self.otherBuilder)
            else {
                return
            }
            message.new = new
            var old = message.old
            if case .kept = new {
                old = key
            }
            if let old, try self.changesKey(old, message.new, relation) {
                try self.updateKey(message, old, relation, transaction)
            } else {
                try self.updateRow(message, key, relation, transaction)
            }
        } catch {
            throw self.inContext(error, "UPDATE", relation, key)
        }
    }

    private func find(_ key: TupleView, _ relation: AppliedRelation) throws -> BdrFound {
        var found = BdrFound()
        try self.builder.withRow(key, relation) { row in
            _ = try host(bdr_host_find(relation.handle, &row, &found))
        }
        return found
    }

    private func changesKey(_ old: TupleView, _ new: TupleView, _ relation: AppliedRelation) throws -> Bool {
        try self.builder.withRow(old, relation) { oldRow in
            try self.otherBuilder.withRow(new, relation) { newRow in
                try host(bdr_host_same_key(relation.handle, &oldRow, &newRow)) == 0
            }
        }
    }

    private func updateRow(
        _ message: UpdateMessage, _ key: TupleView, _ relation: AppliedRelation, _ transaction: BeginMessage
    ) throws {
        let remote = self.version(transaction)
        while true {
            let found = try self.find(key, relation)
            let state = try self.state(relation, found, remote)
            guard let settled = try StreamTriggers.settle(
                decideUpdate(local: state, remote: remote, settings: self.resolvers), relation, found, state)
            else {
                continue
            }
            let decision = settled.decision
            var message = message
            let sent = message.new
            if let row = settled.row {
                message.new = .kept(row)
            }
            if decision.conflictType != nil {
                bdr_host_progress_count(Int32(found.found == 0 ? BDR_COUNT_MISSING : BDR_COUNT_CONFLICT), 1)
            }
            switch decision {
            case .apply, .applyConflict:
                guard let texts = try self.unchangedValues(message, relation, remote, found) else {
                    if let type = decision.conflictType {
                        try self.record(
                            .skip(type), relation, transaction, found: found, local: state, key: .tuple(key),
                            remote: .tuple(message.new))
                    }
                    return
                }
                if !texts.isEmpty {
                    // it takes time, and other rows were looked at
                    let again = try self.find(key, relation)
                    if again.found != found.found || again.commit_time != found.commit_time
                        || again.origin != found.origin || again.own_transaction != found.own_transaction
                    {
                        continue
                    }
                }
                var other = BdrFound()
                let outcome = try self.withNew(message, texts, relation) { row in
                    try host(bdr_host_update_found(relation.handle, &row, &other))
                }
                if outcome == BDR_RETRY {
                    continue
                }
                if outcome == BDR_CONFLICT {
                    let settled = try self.resolveMultiple(
                        relation, transaction, key: .tuple(key), row: .tuple(message.new))
                    if settled == .kept {
                        return
                    }
                    continue
                }
                bdr_host_progress_count(Int32(BDR_COUNT_UPDATE), 1)
                try self.record(
                    decision, relation, transaction, found: found, local: state, key: .tuple(key),
                    remote: .tuple(sent), byUser: settled.byUser)
            case .insertInstead(let type, let orError):
                guard let texts = try self.unchangedValues(message, relation, remote, found) else {
                    if orError {
                        throw Self.resolverError(type)
                    }
                    try self.record(
                        .skip(type), relation, transaction, found: found, local: state, key: .tuple(key),
                        remote: .tuple(message.new))
                    return
                }
                let written = try self.withNew(message, texts, relation) { row in
                    row.pending = self.keepsStamps && state == .unknown ? 1 : 0
                    return try self.write(&row, relation, transaction, isNewKey: false, despiteStamps: settled.byUser)
                }
                if written {
                    bdr_host_progress_count(Int32(BDR_COUNT_UPDATE), 1)
                    try self.record(
                        decision, relation, transaction, found: found, local: state, key: .tuple(key),
                        remote: .tuple(sent), byUser: settled.byUser)
                }
            case .skip:
                var merged = false
                if relation.info.merges != 0 && found.found != 0 {
                    let changed = try self.withNew(message, [:], relation) { row in
                        try self.mergeLoser(&row, relation, found, state, remote)
                    }
                    guard let changed else {
                        continue
                    }
                    merged = changed
                }
                try self.record(
                    decision, relation, transaction, found: found, local: state, key: .tuple(key),
                    remote: .tuple(sent), byUser: settled.byUser, merged: merged)
            case .error(let type):
                throw Self.resolverError(type)
            }
            return
        }
    }

    /// An UPDATE that changes the key: the old key is deleted, and the row is written under the new one.
    private func updateKey(
        _ message: UpdateMessage, _ old: TupleView, _ relation: AppliedRelation, _ transaction: BeginMessage
    ) throws {
        let remote = self.version(transaction)
        var found = try self.find(old, relation)
        var state = try self.state(relation, found, remote)
        var answer = try StreamTriggers.settle(
            decideUpdate(local: state, remote: remote, settings: self.resolvers), relation, found, state)
        while answer == nil {
            found = try self.find(old, relation)
            state = try self.state(relation, found, remote)
            answer = try StreamTriggers.settle(
                decideUpdate(local: state, remote: remote, settings: self.resolvers), relation, found, state)
        }
        guard let settled = answer else {
            return
        }
        let decision = settled.decision
        if decision.conflictType != nil {
            bdr_host_progress_count(Int32(found.found == 0 ? BDR_COUNT_MISSING : BDR_COUNT_CONFLICT), 1)
        }
        if case .error(let type) = decision {
            throw Self.resolverError(type)
        }
        try self.record(
            decision, relation, transaction, found: found, local: state, key: .tuple(old), remote: .tuple(message.new),
            isStored: false, byUser: settled.byUser)
        if case .skip = decision, settled.byUser || state.isOlder(than: remote) {
            // not the times say so, but the resolver or a trigger
            return
        }
        var message = message
        if let row = settled.row {
            message.new = .kept(row)
        }
        // a trigger or the resolver wants it, not the times: what has come since is looked at anew otherwise
        let isForced = settled.byUser || (decision == .applyConflict(.updateOriginChange) && !state.isOlder(than: remote))
        if decision == .apply || decision == .applyConflict(.updateOriginChange),
            let texts = try self.unchangedValues(message, relation, remote, found),
            try self.rename(message, old, relation, remote, texts, isForced: isForced)
        {
            bdr_host_progress_count(Int32(BDR_COUNT_UPDATE), 1)
            return
        }
        // the old row can't lend its values
        let texts = try self.unchangedValues(message, relation, remote, BdrFound())
        try self.deleteRow(old, relation, transaction, ofKeyChange: true, isForced: isForced)
        guard let texts else {
            // what comes later decides about the new key
            return
        }
        let written = try self.withNew(message, texts, relation) { row in
            row.old = nil
            return try self.write(&row, relation, transaction, isNewKey: true)
        }
        if written {
            bdr_host_progress_count(Int32(BDR_COUNT_UPDATE), 1)
        }
    }

    /// Gives a row another key in place, when that is free.
    /// - Returns: whether it was done.
    private func rename(
        _ message: UpdateMessage, _ old: TupleView, _ relation: AppliedRelation, _ remote: RowVersion,
        _ texts: [Int: String?], isForced: Bool
    ) throws -> Bool {
        func isFree() throws -> Bool {
            let found = try self.find(message.new, relation)
            return try found.found == 0 && self.state(relation, found, remote) == .unknown
        }
        guard try isFree() else {
            return false
        }
        let found = try self.find(old, relation)
        guard found.found != 0, try isForced || self.state(relation, found, remote).isOlder(than: remote) else {
            return false
        }
        if self.keepsStamps {
            try host(bdr_host_stamp(relation.handle))
        }
        var other = BdrFound()
        let outcome = try self.withNew(message, texts, relation) { row in
            try host(bdr_host_update_found(relation.handle, &row, &other))
        }
        guard outcome == BDR_DONE else {
            return false
        }
        // one that deletes the new key meanwhile has not seen the row
        _ = try self.find(message.new, relation)
        var stamps = BdrStamps()
        try host(bdr_host_stamps(relation.handle, &stamps))
        if try self.newest(stamps) != nil {
            throw BdrError("40001", "a row of \"\(relation.qualifiedName)\" was deleted while it got its key")
        }
        return true
    }

    private func withNew<R>(
        _ message: UpdateMessage, _ texts: [Int: String?], _ relation: AppliedRelation,
        _ body: (inout BdrRow) throws -> R
    ) throws -> R {
        guard relation.info.merges == 0 else {
            return try self.withOldAndNew(message, texts, relation, body)
        }
        return texts.isEmpty
            ? try self.builder.withRow(message.new, relation, body)
            : try self.builder.withRow(message.new, filledWith: texts, relation, body)
    }

    /// The row comes with what it was before.
    private func withOldAndNew<R>(
        _ message: UpdateMessage, _ texts: [Int: String?], _ relation: AppliedRelation,
        _ body: (inout BdrRow) throws -> R
    ) throws -> R {
        try self.builder.withRow(message.new, filledWith: texts, relation) { row in
            guard message.oldKind == .full, let old = message.old else {
                row.old_unknown = 1
                return try body(&row)
            }
            return try self.oldBuilder.withRow(old, relation) { before in
                try withUnsafePointer(to: before) { before in
                    row.old = before
                    return try body(&row)
                }
            }
        }
    }

    /// Values that the change says to be unchanged, and that the located row doesn't have for certain.
    /// - Returns: the texts to put in; nil when the change has been superseded at its origin.
    private func unchangedValues(
        _ message: UpdateMessage, _ relation: AppliedRelation, _ remote: RowVersion, _ found: BdrFound
    ) throws -> [Int: String?]? {
        let unchanged = try self.builder.unchanged(message.new)
        if unchanged.isEmpty {
            return [:]
        }
        var row = try self.rowVersion(found)
        if relation.info.merges != 0 && found.found != 0, try !self.mergedState(relation, found, remote).byRow {
            // who wrote the row last merged something into it only
            row = nil
        }
        let columns = relation.description.columns
        var texts: [Int: String?] = [:]
        for value in unchanged {
            if found.found != 0 {
                var version = BdrFound()
                if found.own_transaction == 0 {
                    try host(bdr_host_value_version(relation.handle, Int32(clamping: value.column), &version))
                }
                if keepsUnchanged(
                    there: value.writer, here: try self.rowVersion(version), row: row, remote: remote,
                    ownTransaction: found.own_transaction != 0)
                {
                    continue
                }
            }
            guard let stored = value.value, value.column < columns.count else {
                throw BdrError(SQLSTATE.protocolViolation, "an UPDATE left a value out without saying where it is")
            }
            guard let text = try self.fetch.text(of: stored, columns[value.column].name, relation) else {
                return nil
            }
            texts[value.column] = text
        }
        return texts
    }

    private func delete(_ body: UnsafeRawBufferPointer) throws {
        let message = try DeleteMessage(decoding: body)
        let transaction = try self.requireTransaction()
        self.change &+= 1
        if self.skipping {
            return
        }
        let relation = try self.relation(message.relId)
        do {
            try relation.use(in: self.transactionNumber)
            if try StreamTriggers.delete(message.old, relation, self.version(transaction), self.builder) {
                try self.deleteRow(message.old, relation, transaction)
            }
        } catch {
            throw self.inContext(error, "DELETE", relation, message.old)
        }
    }

    /// - Parameters:
    ///   - ofKeyChange: it is the old key of an UPDATE, about which that has told, and asked conflict triggers, already.
    ///   - isForced: the row goes, whatever is newer.
    private func deleteRow(
        _ key: TupleView, _ relation: AppliedRelation, _ transaction: BeginMessage, ofKeyChange: Bool = false,
        isForced: Bool = false
    ) throws {
        let remote = self.version(transaction)
        var isStamped = !self.keepsStamps
        while true {
            let found = try self.find(key, relation)
            let local = try self.state(relation, found, remote)
            var settled = StreamTriggers.Settled(
                decision: decideDelete(
                    local: local, remote: remote, settings: ofKeyChange ? ResolverSettings() : self.resolvers))
            if isForced && found.found != 0 {
                settled.decision = .apply
            }
            if !ofKeyChange && (found.found != 0 || isStamped) {
                guard let answer = try StreamTriggers.settle(settled.decision, relation, found, local) else {
                    continue
                }
                settled = answer
            }
            let decision = settled.decision
            switch decision {
            case .applyConflict where found.found == 0:
                // a trigger lets it go on
                break
            case .apply, .applyConflict, .insertInstead:
                if !isStamped {
                    try host(bdr_host_stamp(relation.handle))
                    isStamped = true
                }
                if try host(bdr_host_delete_found(relation.handle)) == BDR_RETRY {
                    continue
                }
                if !ofKeyChange {
                    bdr_host_progress_count(Int32(BDR_COUNT_DELETE), 1)
                }
            case .skip:
                if found.found == 0 && !isStamped {
                    // then look again: one that inserts the row meanwhile sees the stamp, or is seen
                    try host(bdr_host_stamp(relation.handle))
                    isStamped = true
                    continue
                }
            case .error(let type):
                throw Self.resolverError(type)
            }
            if ofKeyChange {
                return
            }
            if decision.conflictType != nil {
                bdr_host_progress_count(Int32(found.found == 0 ? BDR_COUNT_MISSING : BDR_COUNT_CONFLICT), 1)
            }
            try self.record(
                decision, relation, transaction, found: found, local: local, key: .tuple(key), remote: .none,
                byUser: settled.byUser)
            return
        }
    }

    private func truncate(_ message: TruncateMessage) throws {
        _ = try self.requireTransaction()
        self.change &+= 1
        if self.skipping {
            return
        }
        let relations = try message.relIds.map { try self.relation($0) }
        do {
            for relation in relations {
                try relation.use(in: self.transactionNumber)
            }
            let handles = relations.map { $0.handle }
            try handles.withUnsafeBufferPointer { handles in
                _ = try host(
                    bdr_host_truncate(
                        handles.baseAddress, Int32(clamping: handles.count), message.cascade, message.restartIdentity))
            }
            for relation in self.relations.values {
                relation.forgetUse()
            }
            bdr_host_progress_count(Int32(BDR_COUNT_TRUNCATE), 1)
        } catch {
            guard let first = relations.first else {
                throw error
            }
            throw self.inContext(error, "TRUNCATE", first, nil)
        }
    }

    /// Records what was decided, and done, if it was about a conflict.
    private func record(
        _ decision: Decision, _ relation: AppliedRelation, _ transaction: BeginMessage, found: BdrFound, local: LocalState,
        key: ConflictTuple, remote: ConflictTuple, isStored: Bool? = nil, byUser: Bool = false, merged: Bool = false
    ) throws {
        guard let type = decision.conflictType, var resolution = decision.resolution else {
            return
        }
        if merged {
            resolution = .merge
        }
        var stored = isStored ?? (resolution != .skip)
        if case .none = remote {
            stored = false
        }
        try self.conflicts.record(
            type, byUser ? .user : resolution, relation, transaction, version: self.version(transaction), change: self.change, found: found,
            local: local, key: key, remote: remote, isStored: stored)
    }

    // MARK: Errors

    private static func resolverError(_ type: ConflictType) -> BdrError {
        BdrError(
            SQLSTATE.objectNotInPrerequisiteState, "conflict \(type.rawValue) is set to stop replication",
            detail: "The resolver of the conflict type is \"error\".",
            hint: "Remove the cause, or choose another resolver for the conflict type.")
    }

    /// Adds where in the stream an error happened, once.
    private func inContext(
        _ error: any Error, _ operation: String, _ relation: AppliedRelation, _ tuple: TupleView?, rows: Int = 1
    ) -> any Error {
        var context = "during apply of \(operation) to \(relation.qualifiedName) from node \"\(self.settings.peerName)\""
        if let transaction = self.transaction {
            context += ", commit LSN \(LSN.text(transaction.commitLSN))"
        }
        if rows > 1 {
            context += ", changes #\(self.change &- UInt64(rows) &+ 1) to #\(self.change)"
        } else {
            context += ", change #\(self.change)"
        }
        if let tuple {
            let key = RowBuilder.keyText(tuple, relation)
            if !key.isEmpty {
                context += ", key \(key)"
            }
        }
        if let located = error as? LocatedError {
            return located
        }
        setPending(error)
        bdr_host_error_add_context(context)
        return LocatedError()
    }
}

/// A pending error that already says where it happened.
struct LocatedError: Error {}
