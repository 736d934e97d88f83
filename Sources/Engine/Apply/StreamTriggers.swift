// Stream triggers: functions of users that are asked about a change before it is applied (transform), or how to settle a
// conflict. What they return takes the place of the row that was sent; the rest of the way is that of any change.

internal import CHost
internal import Conflict
internal import Wire

enum StreamTriggers {
    /// What conflict triggers made of a decision.
    struct Settled {
        var decision: Decision
        /// A trigger has decided.
        var byUser = false
        /// The row to write in place of the one that was sent.
        var row: OpaquePointer?
    }

    /// Called for each change of a relation that has stream triggers, before its row is looked for.
    /// - Parameter row: becomes what the triggers make of it.
    /// - Returns: false when the change is dropped.
    static func insert(_ row: inout BdrRow, _ relation: AppliedRelation, _ remote: RowVersion) throws -> Bool {
        guard relation.info.stream_triggers != 0 else {
            return true
        }
        var kept: OpaquePointer?
        let outcome = try host(
            bdr_host_stream_change(
                relation.handle, Int32(BDR_STREAM_INSERT), nil, &row, remote.time, remote.node, &kept))
        if let kept {
            row.kept = kept
        }
        return outcome != BDR_STREAM_SKIP
    }

    /// - Returns: the new row to go on with; nil when the change is dropped.
    static func update(
        old: TupleView?, new: TupleView, _ relation: AppliedRelation, _ remote: RowVersion, _ oldBuilder: RowBuilder,
        _ newBuilder: RowBuilder
    ) throws -> TupleView? {
        guard relation.info.stream_triggers != 0 else {
            return new
        }
        var kept: OpaquePointer?
        let outcome = try newBuilder.withRow(new, relation) { newRow in
            guard let old else {
                return try host(
                    bdr_host_stream_change(
                        relation.handle, Int32(BDR_STREAM_UPDATE), nil, &newRow, remote.time, remote.node, &kept))
            }
            return try oldBuilder.withRow(old, relation) { oldRow in
                try host(
                    bdr_host_stream_change(
                        relation.handle, Int32(BDR_STREAM_UPDATE), &oldRow, &newRow, remote.time, remote.node, &kept))
            }
        }
        return outcome == BDR_STREAM_SKIP ? nil : kept.map { .kept($0) } ?? new
    }

    /// - Returns: false when the change is dropped.
    static func delete(
        _ old: TupleView, _ relation: AppliedRelation, _ remote: RowVersion, _ builder: RowBuilder
    ) throws -> Bool {
        guard relation.info.stream_triggers != 0 else {
            return true
        }
        var kept: OpaquePointer?
        return try builder.withRow(old, relation) { row in
            try host(
                bdr_host_stream_change(
                    relation.handle, Int32(BDR_STREAM_DELETE), &row, nil, remote.time, remote.node, &kept))
        } != BDR_STREAM_SKIP
    }

    /// What they have said about a row: they are asked once, also when it has to be looked for again.
    struct Asked {
        fileprivate var row: BdrFound?
        fileprivate var type: ConflictType?
        fileprivate var answer = Settled(decision: .apply)

        fileprivate func covers(_ found: BdrFound, _ type: ConflictType) -> Bool {
            guard let row = self.row, self.type == type else {
                return false
            }
            return row.found == found.found && row.by_identity == found.by_identity && row.commit_time == found.commit_time
                && row.origin == found.origin && row.own_transaction == found.own_transaction
                && row.has_version == found.has_version && row.index == found.index
        }
    }

    /// Asks the conflict triggers, if there is a conflict that they may settle.
    /// - Parameters:
    ///   - decision: what happens without them.
    ///   - found: what was located; the host still has the row.
    ///   - local: who changed it last.
    /// - Returns: nil when the row has changed meanwhile: look for it again.
    static func settle(
        _ decision: Decision, _ relation: AppliedRelation, _ found: BdrFound, _ local: LocalState, _ asked: inout Asked
    ) throws -> Settled? {
        guard Int32(relation.info.stream_triggers) & Int32(BDR_STREAM_CONFLICT) != 0, let type = decision.conflictType,
            type.allowsConflictTrigger, type != .insertRecentlyDeleted
        else {
            return Settled(decision: decision)
        }
        if asked.covers(found, type) {
            return asked.answer
        }
        guard let answer = try Self.ask(about: type, decision, relation, found, local) else {
            return nil
        }
        (asked.row, asked.type, asked.answer) = (found, type, answer)
        return answer
    }

    private static func ask(
        about type: ConflictType, _ decision: Decision, _ relation: AppliedRelation, _ found: BdrFound, _ local: LocalState
    ) throws -> Settled? {
        var version: RowVersion?
        if case .present(let known, _, _) = local {
            version = known
        }
        var row: OpaquePointer?
        let outcome = try withCStrings([type.rawValue]) { names in
            try host(
                bdr_host_stream_conflict(
                    relation.handle, names?[0], found.found != 0, version != nil, version?.time ?? 0, version?.node ?? 0,
                    &row))
        }
        switch outcome {
        case Int32(BDR_STREAM_AGAIN):
            return nil
        case Int32(BDR_STREAM_SKIP):
            return Settled(decision: .skip(type), byUser: true)
        case Int32(BDR_STREAM_ROW):
            // a DELETE has nothing to write
            let isWritten = found.found == 0 && row != nil
            return Settled(
                decision: isWritten ? .insertInstead(type, orError: true) : .applyConflict(type), byUser: true, row: row)
        default:
            return Settled(decision: decision)
        }
    }
}
