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
            guard try self.isHere(relation, transaction, key: .tuple(message.tuple), remote: .tuple(message.tuple)) else {
                return
            }
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
            guard try self.takesColumns(of: message.tuple, relation, transaction, key: message.tuple) else {
                return
            }
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
        // the rows in the way have gone
        var cleared: Cleared?
        var asked = StreamTriggers.Asked()
        let fills = self.fillsColumns(relation)
        row.probe = fills ? 0 : 1
        defer { row.probe = 0 }
        while true {
            var found = BdrFound()
            let outcome = try host(bdr_host_insert(relation.handle, &row, stamped != nil || despiteStamps, &found))
            switch outcome {
            case Int32(BDR_RETRY):
                continue
            case Int32(BDR_CONFLICT), Int32(BDR_STAMPED):
                break
            case Int32(BDR_FREE):
                try self.dropLacking(relation, transaction, key: .row(sent), remote: .row(sent))
                return false
            default:
                if let stamped {
                    try self.requireStamps(stamped.local, relation, remote)
                    try self.record(
                        stamped.decision, relation, transaction, found: found, local: stamped.local, key: .row(row),
                        remote: .row(row))
                }
                if relation.info.lacks_columns != 0 {
                    try self.recordDefaults(relation, transaction, key: .row(sent), remote: .row(sent))
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
            if found.found > 1 || (isOther && cleared != nil && found.found != 0) {
                guard try self.resolveMultiple(
                    relation, transaction, key: .row(sent), row: .row(sent), &cleared, replaced: &row.kept)
                else {
                    if isOther && self.keepsStamps {
                        try host(bdr_host_stamp_missing(relation.handle))
                    }
                    return false
                }
                continue
            }
            if let cleared {
                // that was decided together with the others; what has come since was not
                if cleared.isAnswered || (found.found != 0 && local == cleared.own) {
                    decision = .apply
                } else if case .skip(let type) = decision {
                    guard cleared.isForced else {
                        throw Self.changedMeanwhile(relation)
                    }
                    decision = .applyConflict(type)
                }
            }
            guard let settled = try StreamTriggers.settle(decision, relation, found, local, &asked) else {
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
                    guard try self.resolveMultiple(
                        relation, transaction, key: .row(sent), row: .row(sent), &cleared, replaced: &row.kept)
                    else {
                        return false
                    }
                    continue
                default:
                    if isOther, let stamped, !despiteStamps {
                        try self.requireStamps(stamped.local, relation, remote)
                    }
                    try self.record(
                        decision, relation, transaction, found: found, local: local, key: .row(sent),
                        remote: .row(sent), byUser: settled.byUser, isMerged: !isOther && row.old_unknown == 0)
                    return true
                }
            case .skip:
                if cleared != nil {
                    // the others are gone already
                    throw Self.changedMeanwhile(relation)
                }
                var merged = false
                if relation.info.merges != 0 && !isOther && found.found != 0 {
                    guard let changed = try self.mergeLoser(&row, relation, found, local, remote) else {
                        continue
                    }
                    merged = changed
                }
                try self.record(
                    decision, relation, transaction, found: found, local: local, key: .row(sent),
                    remote: .row(sent), byUser: settled.byUser, merged: merged, isMerged: !isOther && row.old_unknown == 0)
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

    /// What was decided of a key that no row had must still hold once a row has it: who deletes the key meanwhile has not seen
    /// the row.
    private func requireStamps(_ before: LocalState, _ relation: AppliedRelation, _ remote: RowVersion) throws {
        guard try self.state(relation, BdrFound(), remote) == before else {
            throw Self.changedMeanwhile(relation)
        }
    }
}
