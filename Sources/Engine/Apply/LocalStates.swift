// What a change meets here: the local row, or what stamps say of its key, as the decision core wants it.

internal import CHost
internal import Conflict
internal import Membership
internal import Wire

extension Applier {
    func version(_ transaction: BeginMessage) -> RowVersion {
        RowVersion(
            time: transaction.commitTime,
            node: transaction.originNode == 0 ? self.settings.peerID : transaction.originNode)
    }

    /// The local row as the decision core sees it.
    func state(_ found: BdrFound, _ remote: RowVersion) throws -> LocalState {
        self.met(try self.presentState(found, remote))
    }

    private func presentState(_ found: BdrFound, _ remote: RowVersion) throws -> LocalState {
        if found.own_transaction != 0 {
            return .present(version: nil, sameOrigin: true, ownTransaction: true)
        }
        // what a join has copied is older than any change, and the first change of it no conflict
        guard let version = try self.rowVersion(found), version.time > SnapshotCopy.copyTimestamp else {
            return .present(version: nil, sameOrigin: false, ownTransaction: false)
        }
        return .present(version: version, sameOrigin: version.node == remote.node, ownTransaction: false)
    }

    func rowVersion(_ found: BdrFound) throws -> RowVersion? {
        guard found.has_version != 0 else {
            return nil
        }
        return RowVersion(time: found.commit_time, node: try self.origins.node(origin: found.origin))
    }

    /// What is known of the key that was looked for last: by the row, if there is one, or by what is remembered.
    func state(_ relation: AppliedRelation, _ found: BdrFound, _ remote: RowVersion) throws -> LocalState {
        self.met(try self.knownState(relation, found, remote))
    }

    private func knownState(_ relation: AppliedRelation, _ found: BdrFound, _ remote: RowVersion) throws -> LocalState {
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
    func mergedState(
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
    func mergeLoser(
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

    func newest(_ stamps: BdrStamps) throws -> RowVersion? {
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
}
