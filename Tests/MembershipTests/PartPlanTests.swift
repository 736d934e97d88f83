// Every way in which a part can go: a crash before or after any step is stored, force demanded at any time, members going
// down and coming back. Whatever happens, it can come to its end, and at the end nothing is lost and nothing is left.

import Testing

@testable import Membership

/// The group as far as a part changes it: X, the member that parts it (always there), and up to two more that may be down.
private struct World: Hashable {
    /// nil: X has left.
    var plan: PartState?
    /// Members that are up.
    var isUp: [Bool]
    // on the members
    var locked = [false, false, false]
    var connected = [true, true, true]
    /// How much of what X committed each has; X has committed 2 when it refuses writes.
    var received: [Int]
    var keeps = [false, false, false]
    // on X
    var alive: Bool
    var writable = true
    var pending: Set<Int> = []

    var members: [Int] { Array(self.isUp.indices) }
    func isReachable(_ member: Int) -> Bool { self.isUp[member] }

    /// X sends to those that are connected.
    func streamed() -> [World] {
        self.members.compactMap { member in
            guard self.alive, self.connected[member], self.isReachable(member), self.received[member] < 2 else {
                return nil
            }
            var world = self
            world.received[member] += 1
            return world
        }
    }

    /// The worlds in which the present step has done something, and whether it is done.
    func performed() -> [(world: World, isDone: Bool)] {
        guard let plan = self.plan else {
            return []
        }
        if plan.isOvertaken {
            return [(self, true)]
        }
        var world = self
        switch plan.step {
        case .lock:
            for member in self.members {
                guard self.isReachable(member) else {
                    if plan.force {
                        continue
                    }
                    return [(world, false)]
                }
                world.locked[member] = true
            }
            return [(world, true)]
        case .announce:
            guard self.alive else {
                return []
            }
            world.writable = false
            return [(world, true)]
        case .drain:
            return [(self, self.alive && self.members.allSatisfy { self.received[$0] == 2 })]
        case .remove:
            world.pending = Set(self.members)
            if !plan.force {
                guard self.alive, self.members.allSatisfy({ self.isReachable($0) }) else {
                    return [(world, false)]
                }
                for member in self.members {
                    world.connected[member] = false
                }
                world.writable = true
            }
            return [(world, true)]
        case .notify:
            let up = self.members.filter { self.isReachable($0) }
            for member in up where plan.mayDiffer {
                world.connected[member] = false
            }
            let furthest = up.map { world.received[$0] }.max() ?? 0
            if plan.mayDiffer, let behind = up.first(where: { world.received[$0] < furthest }) {
                // one step of completing it; what it needs must be there
                #expect(up.contains { world.received[$0] == furthest })
                world.received[behind] += 1
                return [(world, false)]
            }
            for member in up where self.pending.contains(member) {
                world.connected[member] = false
                world.locked[member] = false
                world.keeps[member] = plan.mayDiffer
                world.pending.remove(member)
            }
            if plan.mayDiffer {
                // all at once: one that was told before may lack what another one has that is back only now
                guard world.pending.isEmpty, up == self.members else {
                    return [(world, false)]
                }
                world.pending = Set(self.members)
                return [(world, true)]
            }
            return [(world, world.pending.isEmpty)]
        case .forget:
            for member in self.members where self.pending.contains(member) && self.isReachable(member) {
                world.keeps[member] = false
                world.pending.remove(member)
            }
            return [(world, world.pending.isEmpty)]
        }
    }

    /// Everything that can happen next.
    func successors() -> [World] {
        var next = self.streamed()
        for member in self.members.dropFirst() {
            var world = self
            world.isUp[member].toggle()
            next.append(world)
        }
        if let plan = self.plan, !plan.force {
            // the operator loses patience, or X dies and he demands it; from notify on X has left already
            for dies in [false, true] where PartStep.allCases.prefix(4).contains(plan.step) {
                var world = self
                world.plan?.force = true
                world.alive = self.alive && !dies
                next.append(world)
            }
        }
        for (world, isDone) in self.performed() {
            // killed before the step is stored: what was done stays
            next.append(world)
            if isDone, let plan = self.plan {
                var stored = world
                stored.plan = PartPlan.next(after: plan).map {
                    PartState(step: $0, force: plan.force, wasMember: plan.wasMember)
                }
                next.append(stored)
            }
        }
        return next
    }

    var isOver: Bool { self.plan == nil }
}

@Suite struct PartPlanTests {
    private static func begin(force: Bool, wasMember: Bool, alive: Bool, members: Int) -> World {
        World(
            plan: PartState(force: force, wasMember: wasMember), isUp: Array(repeating: true, count: members),
            received: wasMember ? [0, 1, 1] : [2, 2, 2], alive: alive)
    }

    @Test(arguments: [
        (false, true, true), (true, true, true), (true, true, false), (false, false, true), (true, false, false),
    ])
    func everyWay(force: Bool, wasMember: Bool, alive: Bool) {
        for members in 1...3 {
            let start = Self.begin(force: force, wasMember: wasMember, alive: alive, members: members)
            var edges: [World: [World]] = [:]
            var queue = [start]
            while let world = queue.popLast() {
                guard edges[world] == nil else {
                    continue
                }
                let next = world.successors()
                edges[world] = next
                queue += next
                if let plan = world.plan, !plan.force, wasMember, [.notify].contains(plan.step) {
                    // a live node is cut off only after all have everything
                    #expect(world.members.allSatisfy { world.received[$0] == 2 })
                }
                if world.isOver {
                    #expect(world.members.allSatisfy { !world.locked[$0] && !world.connected[$0] && !world.keeps[$0] })
                    // nobody lacks what another one has
                    #expect(Set(world.members.map { world.received[$0] }).count == 1)
                }
            }
            #expect(edges.count > 5)
            // from wherever it is, it can come to its end
            var reaching = Set(edges.keys.filter { $0.isOver })
            var grew = true
            while grew {
                grew = false
                for (world, next) in edges where !reaching.contains(world) && next.contains(where: { reaching.contains($0) }) {
                    reaching.insert(world)
                    grew = true
                }
            }
            #expect(reaching.count == edges.count)
        }
    }

    @Test func rawValuesAreStored() {
        #expect(PartStep.allCases.map(\.rawValue) == ["lock", "announce", "drain", "remove", "notify", "forget"])
    }
}
