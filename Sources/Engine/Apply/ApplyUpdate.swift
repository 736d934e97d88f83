// Updates. Those that change the key go on in ApplyKeyChange.swift.

internal import CHost
internal import Conflict
internal import Membership
internal import Wire

extension Applier {
    func update(_ body: UnsafeRawBufferPointer) throws {
        var message = try UpdateMessage(decoding: body)
        let transaction = try self.requireTransaction()
        self.change &+= 1
        if self.skipping {
            return
        }
        let relation = try self.relation(message.relId)
        let key = message.old ?? message.new
        do {
            guard try self.isHere(relation, transaction, key: .tuple(key), remote: .tuple(message.new)),
                try self.takesColumns(of: message.new, relation, transaction, key: key)
            else {
                return
            }
            try self.requireStreamable(relation)
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

    func find(_ key: TupleView, _ relation: AppliedRelation) throws -> BdrFound {
        var found = BdrFound()
        try self.builder.withRow(key, relation) { row in
            _ = try host(bdr_host_find(relation.handle, &row, &found))
        }
        return found
    }

    /// Looks for the row and decides; again if it has changed while a conflict trigger was asked.
    func decide(
        _ key: TupleView, _ old: TupleView?, _ kind: OldTupleKind, _ relation: AppliedRelation, _ remote: RowVersion,
        _ asked: inout StreamTriggers.Asked
    ) throws -> (found: BdrFound, state: LocalState, settled: StreamTriggers.Settled) {
        while true {
            let found = try self.find(key, relation)
            let state = try self.state(relation, found, remote)
            let decision = decideUpdate(
                local: state, remote: remote, settings: self.resolvers,
                differs: try self.differs(old, kind, relation, found))
            if let settled = try StreamTriggers.settle(decision, relation, found, state, &asked) {
                return (found, state, settled)
            }
        }
    }

    func updateRow(
        _ message: UpdateMessage, _ key: TupleView, _ relation: AppliedRelation, _ transaction: BeginMessage
    ) throws {
        let remote = self.version(transaction)
        var asked = StreamTriggers.Asked()
        // rows in the way of the new values have gone, or shall go
        var cleared: Cleared?
        var replaced: OpaquePointer?
        while true {
            let (found, state, answer) = try self.decide(key, message.old, message.oldKind, relation, remote, &asked)
            var settled = answer
            if let cleared {
                if cleared.isForced && found.found != 0 {
                    settled.decision = settled.decision.conflictType.map { .applyConflict($0) } ?? .apply
                } else if found.found == 0 || settled.decision.resolution == .skip {
                    throw Self.changedMeanwhile(relation)
                }
            }
            let decision = settled.decision
            var message = message
            let sent = message.new
            if let row = replaced ?? settled.row {
                message.new = .kept(row)
            }
            if decision.conflictType != nil {
                bdr_host_progress_count(Int32(found.found == 0 ? BDR_COUNT_MISSING : BDR_COUNT_CONFLICT), 1)
            }
            switch decision {
            case .apply, .applyConflict:
                guard let texts = try self.unchangedValues(message, relation, remote, found) else {
                    if cleared != nil {
                        throw Self.changedMeanwhile(relation)
                    }
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
                    guard try self.resolveMultiple(
                        relation, transaction, key: .tuple(key), row: .tuple(sent), &cleared, replaced: &replaced)
                    else {
                        return
                    }
                    continue
                }
                bdr_host_progress_count(Int32(BDR_COUNT_UPDATE), 1)
                try self.record(
                    decision, relation, transaction, found: found, local: state, key: .tuple(key),
                    remote: .tuple(sent), byUser: settled.byUser, isMerged: message.oldKind == .full)
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
                    remote: .tuple(sent), byUser: settled.byUser, merged: merged, isMerged: message.oldKind == .full)
            case .error(let type):
                throw Self.resolverError(type)
            }
            return
        }
    }

    func withNew<R>(
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
    func withOldAndNew<R>(
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
    func unchangedValues(
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
            try self.requireCommitted()
            guard let text = try self.fetch.text(of: stored, columns[value.column].name, relation) else {
                return nil
            }
            texts[value.column] = text
        }
        return texts
    }
}
