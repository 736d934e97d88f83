// Updates that change the key of a row.

internal import CHost
internal import Conflict
internal import Membership
internal import Wire

extension Applier {
    func changesKey(_ old: TupleView, _ new: TupleView, _ relation: AppliedRelation) throws -> Bool {
        try self.builder.withRow(old, relation) { oldRow in
            try self.otherBuilder.withRow(new, relation) { newRow in
                try host(bdr_host_same_key(relation.handle, &oldRow, &newRow)) == 0
            }
        }
    }

    /// An UPDATE that changes the key: the old key is deleted, and the row is written under the new one.
    func updateKey(
        _ message: UpdateMessage, _ old: TupleView, _ relation: AppliedRelation, _ transaction: BeginMessage
    ) throws {
        let remote = self.version(transaction)
        var asked = StreamTriggers.Asked()
        let (found, state, settled) = try self.decide(old, old, message.oldKind, relation, remote, &asked)
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
        let wins = decision == .applyConflict(.updateOriginChange) || decision == .applyConflict(.updateDiffering)
        let isForced = settled.byUser || (wins && !state.isOlder(than: remote))
        if decision == .apply || wins,
            let texts = try self.unchangedValues(message, relation, remote, found),
            try self.rename(message, old, relation, remote, texts, isForced: isForced)
        {
            bdr_host_progress_count(Int32(BDR_COUNT_UPDATE), 1)
            return
        }
        // under its new key it is a new row, which lacks columns as any other does
        if !self.fillsColumns(relation), try self.find(message.new, relation).found == 0 {
            try self.dropLacking(relation, transaction, key: .tuple(old), remote: .tuple(message.new))
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
    func rename(
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
}
