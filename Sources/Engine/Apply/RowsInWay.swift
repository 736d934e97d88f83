// Rows of other keys that have unique values of a row to be written.

internal import CHost
internal import Conflict
internal import Membership
internal import Wire

extension Applier {
    /// The transaction is applied anew then.
    static func changedMeanwhile(_ relation: AppliedRelation) -> BdrError {
        BdrError("40001", "a row of \"\(relation.qualifiedName)\" changed while another one took its place")
    }

    /// Rows in the way were deleted.
    struct Cleared {
        /// What the decision saw of the row under the new row's own key; nil when there was none.
        var own: LocalState?
        /// The new row is written whatever is there: the resolver says so, or a trigger.
        var isForced = false
        /// It was a trigger, which need not be asked about anything else then.
        var isAnswered = false
    }

    /// Settles that a row collides with several others.
    /// - Parameters:
    ///   - cleared: the same was settled for this change before, and its row met others since; becomes what is settled now.
    ///   - replaced: becomes the row that a trigger wants to be written, when there is a trigger; none is deleted then.
    /// - Returns: true to go on, and look for rows in the way again; false when they stay.
    func resolveMultiple(
        _ relation: AppliedRelation, _ transaction: BeginMessage, key: ConflictTuple, row: ConflictTuple,
        _ cleared: inout Cleared?, replaced: inout OpaquePointer?
    ) throws -> Bool {
        let after = cleared
        let remote = self.version(transaction)
        let resolver = self.resolvers.resolver(for: .multipleUniqueConflicts)
        var count: Int32 = 0
        var shown: Int32 = 0
        var isNewest = true
        var found = BdrFound()
        var local: LocalState?
        var own: LocalState?
        func locate(_ number: Int32) throws -> Bool {
            try host(bdr_host_in_the_way(relation.handle, number, &found)) != BDR_RETRY
        }
        func state() throws -> LocalState {
            try found.by_identity != 0 ? self.state(relation, found, remote) : self.state(found, remote)
        }
        while true {
            guard try locate(count) else {
                return true
            }
            if found.found == 0 {
                break
            }
            let state = try state()
            if found.by_identity != 0 {
                own = state
            }
            if local == nil || !state.isOlder(than: remote) {
                (local, shown) = (state, count)
            }
            isNewest = isNewest && state.isOlder(than: remote)
            count += 1
        }
        guard let local, try locate(shown) else {
            return true
        }
        if after?.isAnswered != true {
            let applies = resolver == .update || (resolver == .updateIfNewer && isNewest)
            let type = ConflictType.multipleUniqueConflicts
            var asked = StreamTriggers.Asked()
            guard let settled = try StreamTriggers.settle(
                resolver == .error ? .error(type) : applies ? .applyConflict(type) : .skip(type), relation, found, local, &asked)
            else {
                return true
            }
            if case .error = settled.decision {
                throw BdrError(
                    "23505", "the row conflicts with several rows under different unique keys",
                    detail: "Conflict type multiple_unique_conflicts; its resolver is \"error\".",
                    hint: "Change or delete the rows in the way on this node, or choose another resolver; replication then goes "
                        + "on by itself.")
            }
            if after == nil || settled.byUser {
                bdr_host_progress_count(Int32(BDR_COUNT_CONFLICT), 1)
                try self.record(
                    settled.decision, relation, transaction, found: found, local: local, key: key, remote: row,
                    isStored: false, byUser: settled.byUser)
            }
            if case .skip = settled.decision {
                guard after == nil else {
                    throw Self.changedMeanwhile(relation)
                }
                return false
            }
            if settled.byUser {
                // what the trigger made of the row may collide with others, or none
                cleared = Cleared(isForced: true, isAnswered: true)
                replaced = settled.row
                return true
            }
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
                throw Self.changedMeanwhile(relation)
            }
        }
        cleared = Cleared(
            own: own, isForced: after?.isForced == true || resolver == .update, isAnswered: after?.isAnswered ?? false)
        return true
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
