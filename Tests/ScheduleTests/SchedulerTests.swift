// Which transactions the scheduler lets go at the same time, and that what it lets go ends as one after the other would.

import TestSupport
import Testing

@testable import Schedule
import Wire

private func column(_ name: String, isKey: Bool = false) -> RelationColumn {
    RelationColumn(
        name: name, typeNamespace: "pg_catalog", typeName: "int4", builtinType: 23, typmod: -1, attlen: 4,
        attalign: UInt8(ascii: "i"), isKey: isKey, isByValue: true)
}

/// Relation 1: by key; 2: no key, only added to; 3: together; 4: alone; 5: by key, as 1.
private func relations() throws -> [UInt32: RelationOrder] {
    var orders: [UInt32: RelationOrder] = [:]
    for (id, order, keyed) in [
        (1, ChangeOrder.byKey, true), (2, .byKey, false), (3, .together, true), (4, .alone, true), (5, .byKey, true),
    ] as [(UInt32, ChangeOrder, Bool)] {
        let description = RelationMessage(
            relId: id, namespace: "public", name: "t\(id)", replicaIdentity: UInt8(ascii: "d"), rawPossible: true,
            columns: [column("id", isKey: keyed), column("x")])
        orders[id] = RelationOrder(order, description, layout: try RawLayout(description.columns), relation: id)
    }
    return orders
}

private enum Change {
    case insert(UInt32, Int32)
    /// In columns.
    case update(UInt32, Int32)
    case rename(UInt32, from: Int32, to: Int32)
    case delete(UInt32, Int32)
}

private func tuple(_ buffer: FrameBuffer, raw: Bool, _ key: Int32) throws {
    if raw {
        try buffer.append(UInt8(ascii: "W"))
        try buffer.append16(UInt16(2))
        try buffer.append(0)
        try buffer.append32(UInt32(8))
        for byte in withUnsafeBytes(of: key.littleEndian, { Array($0) }) + [0, 0, 0, 0] {
            try buffer.append(byte)
        }
    } else {
        try buffer.append(UInt8(ascii: "C"))
        try buffer.append16(UInt16(2))
        for value in [key, 0] {
            try buffer.append(UInt8(ascii: "b"))
            try buffer.append32(UInt32(4))
            for byte in withUnsafeBytes(of: value.bigEndian, { Array($0) }) + [0] {
                try buffer.append(byte)
            }
        }
    }
}

/// The numbers of rows that a change is about.
extension Change {
    var rows: [(relation: UInt32, key: Int32)] {
        switch self {
        case .insert(let relation, let key), .update(let relation, let key), .delete(let relation, let key): [(relation, key)]
        case .rename(let relation, let from, let to): [(relation, from), (relation, to)]
        }
    }

    func encode(into buffer: FrameBuffer) throws {
        func message(_ type: MessageType, _ relation: UInt32, _ body: () throws -> Void) throws {
            let token = try buffer.beginMessage(type)
            try buffer.append32(relation)
            try body()
            try buffer.endMessage(token)
        }
        switch self {
        case .insert(let relation, let key):
            try message(.insert, relation) { try tuple(buffer, raw: true, key) }
        case .update(let relation, let key):
            try message(.update, relation) {
                try buffer.append(OldTupleKind.none.rawValue)
                try tuple(buffer, raw: true, key)
            }
        case .rename(let relation, let from, let to):
            try message(.update, relation) {
                try buffer.append(OldTupleKind.key.rawValue)
                try tuple(buffer, raw: false, from)
                try tuple(buffer, raw: true, to)
            }
        case .delete(let relation, let key):
            try message(.delete, relation) {
                try buffer.append(OldTupleKind.key.rawValue)
                try tuple(buffer, raw: false, key)
            }
        }
    }
}

private func encode(_ run: [[Change]]) throws -> FrameBuffer {
    let buffer = FrameBuffer(limit: 1 << 24)
    for (number, changes) in run.enumerated() {
        let lsn = UInt64(100 * (number + 1))
        try BeginMessage(commitLSN: lsn, commitTime: 0, xid: 1, originNode: 1, originLSN: 0).encode(into: buffer)
        for change in changes {
            try change.encode(into: buffer)
        }
        try CommitMessage(commitLSN: lsn, endLSN: lsn + 10, commitTime: 0).encode(into: buffer)
    }
    return buffer
}

private func plan(_ run: [[Change]], _ scheduler: Scheduler = Scheduler()) throws -> [UInt32]? {
    let orders = try relations()
    let buffer = try encode(run)
    return try scheduler.plan(buffer.bytes, progress: 0, relation: { orders[$0] }) ? scheduler.after : nil
}

@Suite struct SchedulerTests {
    @Test func rowsOfOtherKeysGoAtTheSameTime() throws {
        #expect(try plan([[.insert(1, 1)], [.insert(1, 2)], [.update(1, 3), .delete(1, 4)], [.insert(5, 1)]]) == [0, 0, 0, 0])
    }

    @Test func theSameRowGoesInOrderInWhateverFormItsKeyCame() throws {
        #expect(try plan([[.insert(1, 7)], [.update(1, 7)], [.insert(1, 8)], [.delete(1, 7)], [.insert(1, 7)]]) == [0, 1, 0, 2, 4])
    }

    @Test func aRowThatGetsAnotherKeyMeetsBoth() throws {
        #expect(
            try plan([[.insert(1, 1)], [.rename(1, from: 1, to: 2)], [.insert(1, 1)], [.update(1, 2)], [.rename(1, from: 3, to: 2)]])
                == [0, 1, 2, 2, 4])
    }

    @Test func aTransactionDoesNotWaitForItself() throws {
        #expect(try plan([[.insert(1, 1), .update(1, 1), .delete(1, 1)], [.insert(3, 1), .insert(3, 2)]]) == [0, 0])
    }

    @Test func rowsWithoutAKeyAreOnlyAdded() throws {
        #expect(try plan([[.insert(2, 1)], [.insert(2, 1)], [.insert(2, 1)]]) == [0, 0, 0])
    }

    @Test func aRelationWithOtherUniqueIndexesGoesInOrder() throws {
        #expect(try plan([[.insert(3, 1)], [.insert(1, 1)], [.insert(3, 2)], [.insert(1, 2)], [.insert(3, 3)]]) == [0, 0, 1, 0, 3])
    }

    @Test func whatFiresTriggersIsAlone() throws {
        #expect(try plan([[.insert(1, 1)], [.insert(4, 1)], [.insert(1, 2)], [.insert(1, 3)]]) == [0, 1, 2, 2])
    }

    @Test func placesOfTransactions() throws {
        let scheduler = Scheduler()
        let orders = try relations()
        let run: [[Change]] = [[.insert(1, 1)], [], [.delete(1, 2), .insert(1, 5)]]
        let buffer = try encode(run)
        #expect(try scheduler.plan(buffer.bytes, progress: 0, relation: { orders[$0] }))
        var starts: [UInt32] = [0]
        for changes in run {
            starts.append(starts[starts.count - 1] + UInt32(try encode([changes]).bytes.count))
        }
        #expect(scheduler.starts == starts)
        #expect(scheduler.endLSN == 310)
    }

    @Test func whatIsNotARunOfNewRowChangesIsNotPlanned() throws {
        let orders = try relations()
        let scheduler = Scheduler()
        func isPlanned(_ buffer: FrameBuffer, progress: UInt64 = 0) throws -> Bool {
            try scheduler.plan(buffer.bytes, progress: progress, relation: { orders[$0] })
        }
        let run = try encode([[.insert(1, 1)], [.insert(1, 2)]])
        #expect(try isPlanned(run))
        #expect(try isPlanned(run, progress: 100))
        #expect(try !isPlanned(run, progress: 101))
        #expect(try !isPlanned(try encode([[.insert(9, 1)]])))
        // a transaction that has not ended, a change outside of one
        let open = FrameBuffer(limit: 1000)
        try BeginMessage(commitLSN: 1, commitTime: 0, xid: 1, originNode: 1, originLSN: 0).encode(into: open)
        #expect(try !isPlanned(open))
        let outside = FrameBuffer(limit: 1000)
        try Change.insert(1, 1).encode(into: outside)
        #expect(try !isPlanned(outside))
        let other = try encode([[.insert(1, 1)]])
        try StreamStopMessage().encode(into: other)
        #expect(try !isPlanned(other))
    }

    /// Whatever may go at the same time: applied in any order that the plan allows, the rows end as in order.
    @Test func anyAllowedOrderEndsTheSame() throws {
        var random = SplitMix64(seed: 1)
        let scheduler = Scheduler()
        for _ in 0..<300 {
            let run: [[Change]] = (0..<Int.random(in: 1...30, using: &random)).map { _ in
                (0..<Int.random(in: 0...3, using: &random)).map { _ in
                    let key = Int32.random(in: -3...8, using: &random)
                    let relation: UInt32 = [1, 1, 1, 5, 3, 4].randomElement(using: &random) ?? 1
                    switch Int.random(in: 0..<4, using: &random) {
                    case 0: return .insert(relation, key)
                    case 1: return .update(relation, key)
                    case 2: return .delete(relation, key)
                    default: return .rename(relation, from: key, to: Int32.random(in: -3...8, using: &random))
                    }
                }
            }
            let after = try #require(try plan(run, scheduler))
            func touches(_ index: Int, _ other: Int) -> Bool {
                run[index].contains { $0.rows.contains { $0.relation == 4 } }
                    || run[other].contains { $0.rows.contains { $0.relation == 4 } }
                    || run[index].contains { change in
                        change.rows.contains { row in
                            run[other].contains {
                                $0.rows.contains { $0.relation == row.relation && ($0.key == row.key || row.relation == 3) }
                            }
                        }
                    }
            }
            for index in run.indices {
                #expect(after[index] <= index)
                for other in 0..<index where touches(index, other) {
                    #expect(after[index] > other, "\(run)")
                }
            }
        }
    }

    /// Malformed bytes are errors, never traps.
    @Test func damagedRunsAreRefused() throws {
        var random = SplitMix64(seed: 2)
        let scheduler = Scheduler()
        let orders = try relations()
        let whole = Array(try encode([[.insert(1, 1), .rename(1, from: 3, to: 2)], [.delete(5, 2)], [.update(3, 1)]]).bytes)
        for _ in 0..<20_000 {
            var bytes = whole
            for _ in 0...Int.random(in: 0...2, using: &random) {
                bytes[Int.random(in: bytes.indices, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            bytes.removeLast(Int.random(in: 0...3, using: &random) / 3 * Int.random(in: 0..<bytes.count, using: &random))
            bytes.withUnsafeBytes { _ = try? scheduler.plan($0, progress: 0, relation: { orders[$0] }) }
        }
    }
}
