// Deletes.

internal import CHost
internal import Conflict
internal import Membership
internal import Wire

extension Applier {
    func delete(_ body: UnsafeRawBufferPointer) throws {
        let message = try DeleteMessage(decoding: body)
        let transaction = try self.requireTransaction()
        self.change &+= 1
        if self.skipping {
            return
        }
        let relation = try self.relation(message.relId)
        do {
            guard try self.isHere(relation, transaction, key: .tuple(message.old), remote: .none),
                try self.takesColumns(of: message.old, relation, transaction, key: message.old, isDelete: true)
            else {
                return
            }
            try self.requireStreamable(relation)
            if try StreamTriggers.delete(message.old, relation, self.version(transaction), self.builder) {
                try self.deleteRow(message.old, relation, transaction, kind: message.oldKind)
            }
        } catch {
            throw self.inContext(error, "DELETE", relation, message.old)
        }
    }

    /// - Parameters:
    ///   - ofKeyChange: it is the old key of an UPDATE, about which that has told, and asked conflict triggers, already.
    ///   - isForced: the row goes, whatever is newer.
    ///   - kind: what the sender told of the old row.
    func deleteRow(
        _ key: TupleView, _ relation: AppliedRelation, _ transaction: BeginMessage, ofKeyChange: Bool = false,
        isForced: Bool = false, kind: OldTupleKind = .key
    ) throws {
        let remote = self.version(transaction)
        var isStamped = !self.keepsStamps
        var asked = StreamTriggers.Asked()
        while true {
            let found = try self.find(key, relation)
            let local = try self.state(relation, found, remote)
            var settled = StreamTriggers.Settled(
                decision: decideDelete(
                    local: local, remote: remote, settings: ofKeyChange ? ResolverSettings() : self.resolvers,
                    differs: try self.differs(key, kind, relation, found)))
            if isForced && found.found != 0 {
                settled.decision = .apply
            }
            if !ofKeyChange && (found.found != 0 || isStamped) {
                guard let answer = try StreamTriggers.settle(settled.decision, relation, found, local, &asked) else {
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
}
