// All interleavings of nodes that want the same lock: never do two have it, and there is always a way on, whoever crashes or
// can't be reached.

import Testing

@testable import Membership

private enum Phase: Hashable {
    case idle
    case polling
    /// Nodes that have yet to confirm.
    case confirming([UInt32])
    case holding
    /// Confirmed votes that are yet to be given back: the session is gone, and the voters ask.
    case releasing
    case done
}

/// One node wants the lock once. Requests have the number of their node.
private struct World: Hashable {
    var queues: [UInt32: [GlobalLockRequest]]
    var polls: [UInt32: GlobalLockPoll]
    var phases: [UInt32: Phase]
    /// Pairs that can't reach each other.
    var cut: Set<[UInt32]>
    var crashesLeft: Int

    init(members: [UInt32], wanting: [UInt32], all: Bool, cut: Set<[UInt32]> = [], crashes: Int = 0) {
        self.queues = Dictionary(uniqueKeysWithValues: members.map { ($0, []) })
        self.polls = Dictionary(
            uniqueKeysWithValues: wanting.map { ($0, GlobalLockPoll(members: members, local: $0, all: all)) })
        self.phases = Dictionary(uniqueKeysWithValues: wanting.map { ($0, .idle) })
        self.cut = cut
        self.crashesLeft = crashes
    }

    func reaches(_ a: UInt32, _ b: UInt32) -> Bool { !self.cut.contains([min(a, b), max(a, b)]) }

    /// Asks a voter, as the server does: adds the request, and grants it if nothing is in the way.
    mutating func request(_ node: UInt32, at voter: UInt32) -> Bool {
        var queue = self.queues[voter] ?? []
        let index: Int
        if let known = queue.firstIndex(where: { $0.id == Int64(node) }) {
            index = known
        } else {
            // the later node has the earlier time, so that order of ids and of times differ
            queue.append(
                GlobalLockRequest(id: Int64(node), node: node, time: -Int64(node), resource: "ddl", state: .waiting))
            index = queue.count - 1
        }
        if queue[index].state == .waiting && GlobalLockVote.blocker(of: queue[index], among: queue) == nil {
            queue[index].state = .granted
        }
        let granted = queue[index].state != .waiting
        self.queues[voter] = queue
        return granted
    }

    mutating func remove(_ node: UInt32, confirmedToo: Bool) {
        for voter in self.queues.keys {
            self.queues[voter]?.removeAll { $0.node == node && (confirmedToo || $0.state != .confirmed) }
        }
    }

    var successors: [World] {
        var result: [World] = []
        for (node, phase) in self.phases {
            var next = self
            switch phase {
            case .idle:
                next.phases[node] = .polling
                result.append(next)
            case .polling:
                guard var poll = self.polls[node] else { continue }
                switch poll.next {
                case .ask(let voter):
                    if self.reaches(node, voter) {
                        let granted = next.request(node, at: voter)
                        if granted {
                            poll.note(voter, .granted)
                        }
                        next.polls[node] = poll
                    } else {
                        poll.note(voter, .unreachable)
                        next.polls[node] = poll
                    }
                case .confirm(let voters):
                    next.phases[node] = .confirming(voters)
                case .startOver:
                    next.remove(node, confirmedToo: true)
                    // it would try again for ever: here it gives up
                    next.phases[node] = .done
                }
                result.append(next)
            case .confirming(let voters):
                if let voter = voters.first {
                    if let index = self.queues[voter]?.firstIndex(where: { $0.node == node }) {
                        next.queues[voter]?[index].state = .confirmed
                        next.phases[node] = .confirming(Array(voters.dropFirst()))
                    }
                } else {
                    next.phases[node] = .holding
                }
                result.append(next)
            case .holding:
                next.phases[node] = .releasing
                result.append(next)
            case .releasing:
                // one voter after the other learns of it
                if let voter = self.queues.keys.sorted().first(where: { voter in
                    self.queues[voter]?.contains { $0.node == node } ?? false
                }) {
                    next.queues[voter]?.removeAll { $0.node == node }
                } else {
                    next.phases[node] = .done
                }
                result.append(next)
            case .done:
                continue
            }
            if self.crashesLeft > 0 && phase != .idle && phase != .done && phase != .releasing {
                // the session of the transaction ends: what is not confirmed goes by itself
                var crashed = self
                crashed.crashesLeft -= 1
                crashed.remove(node, confirmedToo: false)
                crashed.phases[node] = .releasing
                result.append(crashed)
            }
        }
        return result.filter { $0 != self }
    }

    var holders: Int { self.phases.values.count { $0 == .holding } }
    var isOver: Bool { self.phases.values.allSatisfy { $0 == .done } }
}

private func explore(_ start: World) -> (states: Int, ends: Int, held: Int) {
    var seen: Set<World> = [start]
    var stack = [start]
    var ends = 0
    var held = 0
    while let world = stack.popLast() {
        #expect(world.holders <= 1)
        held = max(held, world.holders)
        let next = world.successors
        if next.isEmpty {
            #expect(world.isOver, "nobody can go on, and not all are done")
            #expect(world.queues.values.allSatisfy { $0.isEmpty })
            ends += 1
        }
        for world in next where seen.insert(world).inserted {
            stack.append(world)
        }
    }
    return (seen.count, ends, held)
}

@Test(arguments: [3, 4], [false, true])
func everyOrderOfRequests(members: Int, all: Bool) {
    let nodes = (1...UInt32(members)).map { $0 }
    let result = explore(World(members: nodes, wanting: Array(nodes.prefix(3)), all: all))
    #expect(result.states > 100)
    #expect(result.held == 1)
    #expect(result.ends > 0)
}

@Test(arguments: [false, true])
func holdersThatCrash(all: Bool) {
    let result = explore(World(members: [1, 2, 3], wanting: [1, 2, 3], all: all, crashes: 2))
    #expect(result.states > 500)
    #expect(result.held == 1)
}

@Test(arguments: [[[1, 2]], [[1, 3]], [[2, 3]], [[1, 2], [1, 3]], [[1, 2], [2, 3]], [[1, 2], [3, 4]], [[1, 2], [1, 3], [1, 4]]] as [[[UInt32]]])
func nodesThatCantReachOneAnother(cut: [[UInt32]]) {
    for members: [UInt32] in [[1, 2, 3], [1, 2, 3, 4]] {
        for all in [false, true] {
            let result = explore(World(members: members, wanting: [1, 2, 3], all: all, cut: Set(cut)))
            #expect(result.ends > 0)
        }
    }
}

@Test func majorityGoesOnWithoutADeadNode() {
    var poll = GlobalLockPoll(members: [3, 1, 2], local: 3, all: false)
    #expect(poll.next == .ask(1))
    poll.note(1, .unreachable)
    #expect(poll.next == .ask(2))
    poll.note(2, .granted)
    #expect(poll.next == .ask(3))
    poll.note(3, .granted)
    #expect(poll.next == .confirm([2, 3]))
    #expect(poll.missing == [1])

    var every = GlobalLockPoll(members: [1, 2, 3], local: 3, all: true)
    every.note(1, .unreachable)
    #expect(every.next == .startOver)
    #expect(GlobalLockPoll(members: [1, 2], local: 3, all: false).next == .startOver)
}

@Test func majoritiesMeet() {
    for n in 1...9 {
        let needed = GlobalLockPoll.needed(of: n, all: false)
        #expect(2 * needed > n)
        // a group that is just growing
        #expect(needed + GlobalLockPoll.needed(of: n + 1, all: false) > n + 1)
    }
}

@Test func queueIsOrderedByTimeThenNode() {
    func request(_ id: Int64, _ node: UInt32, _ time: Int64, _ state: GlobalLockRequest.State = .waiting) -> GlobalLockRequest {
        GlobalLockRequest(id: id, node: node, time: time, resource: "ddl", state: state)
    }
    let late = request(1, 1, 20)
    let early = request(2, 2, 10)
    let same = request(3, 3, 10)
    #expect(GlobalLockVote.blocker(of: late, among: [late, early, same]) == early)
    #expect(GlobalLockVote.blocker(of: same, among: [late, early, same]) == early)
    #expect(GlobalLockVote.blocker(of: early, among: [late, early, same]) == nil)
    // what is given is not taken away for an earlier one
    #expect(GlobalLockVote.blocker(of: early, among: [request(1, 1, 20, .granted), early]) != nil)
    // its own earlier transactions do not stop a node
    #expect(GlobalLockVote.blocker(of: late, among: [late, request(9, 1, 5, .confirmed)]) == nil)
    #expect(GlobalLockVote.blocker(of: early, among: [early, request(9, 1, 5, .confirmed)]) != nil)
    var other = early
    other.resource = "dml public.t"
    #expect(GlobalLockVote.blocker(of: late, among: [late, other]) == nil)
}

/// Requests that wait for one another, over several nodes.
@Suite struct GlobalLockWalkTests {
    /// Node n, at time n unless said otherwise, has lock 10n and wants, with request 10n + 1, the lock of another one.
    private static func gives(_ own: UInt32, _ waits: [UInt32: UInt32], times: [UInt32: Int64] = [:]) -> [UInt32]? {
        func time(_ node: UInt32) -> Int64 { times[node] ?? Int64(node) }
        func step(_ node: UInt32) -> GlobalLockWalk.Step { .init(lock: Int64(node) * 10, node: node) }
        guard let first = waits[own] else {
            return nil
        }
        var walk = GlobalLockWalk(own: Int64(own) * 10 + 1, held: [Int64(own) * 10], node: own, time: time(own))
        walk.begin(at: step(first))
        var steps = 0
        while let next = walk.next() {
            steps += 1
            #expect(steps < 20)
            if let further = waits[next.node] {
                walk.note(request: Int64(next.node) * 10 + 1, time: time(next.node), of: next, waitsFor: step(further))
            }
        }
        return walk.circle
    }

    /// Exactly one of a circle gives in, whoever asked last.
    @Test(arguments: 2...6) func circles(size: Int) {
        for last in 1...UInt32(size) {
            let waits = Dictionary(uniqueKeysWithValues: (1...UInt32(size)).map { ($0, $0 % UInt32(size) + 1) })
            let giving = (1...UInt32(size)).filter { Self.gives($0, waits, times: [last: 100]) != nil }
            #expect(giving == [last])
            #expect(Self.gives(last, waits, times: [last: 100]) == Array(1...UInt32(size)))
        }
    }

    @Test func sameTime() {
        let times: [UInt32: Int64] = [1: 5, 2: 5, 3: 5]
        #expect((1...3).filter { Self.gives($0, [1: 2, 2: 3, 3: 1], times: times) != nil } == [3])
    }

    /// Who waits for a circle without being part of it does not give in, nor does a chain that ends.
    @Test func noCircle() {
        #expect(Self.gives(9, [9: 1, 1: 2, 2: 1]) == nil)
        #expect((1...4).allSatisfy { Self.gives($0, [1: 2, 2: 3, 3: 4]) == nil })
        #expect(Self.gives(4, [4: 1]) == nil)
    }

    /// The way back may lead to a session of the own node that waits for this transaction.
    @Test func throughTheOwnRequest() {
        var walk = GlobalLockWalk(own: 11, held: [], node: 1, time: 9)
        walk.begin(at: .init(lock: 11, node: 2))
        #expect(walk.next() == .init(lock: 11, node: 2))
        walk.note(request: 21, time: 3, of: .init(lock: 11, node: 2), waitsFor: .init(lock: 21, node: 1))
        #expect(walk.next() == .init(lock: 21, node: 1))
        walk.note(request: 11, time: 9, of: .init(lock: 21, node: 1), waitsFor: .init(lock: 11, node: 2))
        #expect(walk.circle == [1, 2])
    }

    @Test func manySteps() {
        var walk = GlobalLockWalk(own: 1, held: [], node: 1, time: 1)
        walk.begin(at: .init(lock: 2, node: 2))
        var steps = 0
        var number: Int64 = 10
        while let step = walk.next() {
            steps += 1
            for _ in 0..<3 {
                number += 1
                walk.note(request: -number, time: 0, of: step, waitsFor: .init(lock: number, node: 2))
            }
            guard steps < 1000 else {
                break
            }
        }
        #expect(steps == 100)
    }
}

@Suite struct GlobalLockTableTests {
    private static func request(_ id: Int64, _ name: String, _ tables: Set<UInt32>) -> GlobalLockRequest {
        GlobalLockRequest(id: id, node: UInt32(id), time: id, resource: name, tables: tables, state: id == 1 ? .confirmed : .waiting)
    }

    @Test func partitions() {
        let root = Self.request(1, "root", [1, 2, 3])
        for (other, meets) in [
            (Self.request(2, "leaf", [3]), true), (Self.request(2, "other", [4]), false), (Self.request(2, "root", []), true),
            (Self.request(2, "unknown", []), false), (Self.request(2, "above", [0, 1, 2, 3]), true),
        ] {
            #expect((GlobalLockVote.blocker(of: other, among: [root, other]) != nil) == meets)
        }
    }
}
