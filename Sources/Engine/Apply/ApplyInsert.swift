// Inserts: in batches while nothing is in the way, one by one and with a decision where something is.

internal import CHost
internal import Conflict
internal import Membership
internal import Wire

extension Applier {
    func insert(_ body: UnsafeRawBufferPointer) throws {
        let message = try InsertMessage(decoding: body)
        let transaction = try self.requireTransaction()
        self.change &+= 1
        if self.skipping {
            return
        }
        let relation = try self.relation(message.relId)
        do {
            try relation.use(in: self.transactionNumber)
            try self.requireStreamable(relation)
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

    func flushBatch() throws {
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

    func insertRow(_ row: inout BdrRow, _ relation: AppliedRelation, _ transaction: BeginMessage) throws {
        if try self.write(&row, relation, transaction, isNewKey: false) {
            bdr_host_progress_count(Int32(BDR_COUNT_INSERT), 1)
        }
    }

    /// Writes a whole row under a key that need not be free.
    /// - Parameters:
    ///   - isNewKey: it is the new key of an UPDATE, not an INSERT.
    ///   - despiteStamps: whatever is remembered of the key.
    /// - Returns: whether the row was written.
    func write(
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

    enum Multiple {
        /// They were others meanwhile.
        case lookAgain
        /// Those in the way are deleted, but the one under the row's own key.
        case removed
        /// They stay.
        case kept
    }

    /// Settles that a row collides with several others.
    func resolveMultiple(
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
    func keepVersion(_ relation: AppliedRelation, _ found: BdrFound) throws {
        guard self.keepsStamps else {
            return
        }
        if found.own_transaction != 0 {
            try host(bdr_host_stamp(relation.handle))
        } else if let version = try self.rowVersion(found) {
            try host(bdr_host_stamp_at(relation.handle, version.time, version.node))
        }
    }
}
