// The join: every outcome of every step, and that whatever happens nothing is left behind.

import Membership
import Testing

@Suite struct JoinPlanTests {
    /// The state at a step of the way, reached without trouble.
    static func state(_ step: JoinStep) throws -> JoinState {
        try #require(JoinState(step: step.rawValue, reached: step.rawValue, restarts: 0))
    }

    /// Runs `state` through outcomes.
    static func run(_ outcomes: JoinOutcome..., from state: JoinState = JoinState()) -> JoinState {
        outcomes.reduce(state) { JoinPlan.next(after: $0, outcome: $1) }
    }

    // MARK: the table

    /// Where each step leads: after done, waiting, transient, snapshotLost, failed, cancelled.
    static let table: [(JoinStep, [JoinStep])] = [
        (.preflight, [.reserve, .preflight, .preflight, .preflight, .failed, .failed]),
        (.reserve, [.createPeerSlots, .reserve, .reserve, .reserve, .rollback, .rollback]),
        (
            .createPeerSlots,
            [.awaitPeerPositions, .createPeerSlots, .createPeerSlots, .createPeerSlots, .rollback, .rollback]
        ),
        (
            .awaitPeerPositions,
            [.createSlot, .awaitPeerPositions, .awaitPeerPositions, .awaitPeerPositions, .rollback, .rollback]
        ),
        (.createSlot, [.copyStructure, .createSlot, .cleanup, .cleanup, .rollback, .rollback]),
        (.copyStructure, [.copyData, .copyStructure, .cleanup, .cleanup, .rollback, .rollback]),
        (.copyData, [.copyIndexes, .copyData, .cleanup, .cleanup, .rollback, .rollback]),
        (.copyIndexes, [.setOrigins, .copyIndexes, .copyIndexes, .copyIndexes, .rollback, .rollback]),
        (.setOrigins, [.createLocalSlots, .setOrigins, .setOrigins, .setOrigins, .rollback, .rollback]),
        (.createLocalSlots, [.catchup, .createLocalSlots, .createLocalSlots, .createLocalSlots, .rollback, .rollback]),
        (.catchup, [.standby, .catchup, .catchup, .catchup, .rollback, .rollback]),
        (.standby, [.promote, .standby, .standby, .standby, .rollback, .rollback]),
        (.promote, [.active, .promote, .promote, .promote, .rollback, .promote]),
        (.active, [.active, .active, .active, .active, .active, .active]),
        (.failed, [.failed, .failed, .failed, .failed, .failed, .failed]),
    ]

    @Test func everyOutcomeOfEveryStep() throws {
        #expect(
            Set(Self.table.map(\.0)).union([.cleanup, .rollback]) == Set(JoinStep.allCases))
        let outcomes: [JoinOutcome] = [.done, .waiting, .transient, .snapshotLost, .failed, .cancelled]
        #expect(outcomes == JoinOutcome.allCases)
        for (step, expected) in Self.table {
            for (outcome, next) in zip(outcomes, expected) {
                let result = JoinPlan.next(after: try Self.state(step), outcome: outcome)
                #expect(result.step == next, "\(step), \(outcome)")
                #expect(result.restarts == 0)
            }
        }
    }

    /// Cleanup and rollback, from wherever they were begun.
    @Test(arguments: JoinStep.way) func removals(reached: JoinStep) throws {
        let cleanup = try #require(JoinState(step: "cleanup", reached: reached.rawValue, restarts: 2))
        let again = JoinPlan.next(after: cleanup, outcome: .done)
        #expect(again.step == .createSlot)
        #expect(again.reached == .createSlot)
        #expect(again.restarts == 3)
        for outcome in [JoinOutcome.waiting, .transient, .snapshotLost] {
            #expect(JoinPlan.next(after: cleanup, outcome: outcome) == cleanup)
        }
        for outcome in [JoinOutcome.failed, .cancelled] {
            let next = JoinPlan.next(after: cleanup, outcome: outcome)
            #expect(next.step == .rollback)
            #expect(next.reached == reached)
        }
        let rollback = try #require(JoinState(step: "rollback", reached: reached.rawValue, restarts: 2))
        for outcome in JoinOutcome.allCases {
            let next = JoinPlan.next(after: rollback, outcome: outcome)
            #expect(next.step == (outcome == .done ? .failed : .rollback))
        }
    }

    @Test func goesWell() {
        var state = JoinState()
        var steps = [state.step]
        while !state.isFinal {
            state = JoinPlan.next(after: state, outcome: .done)
            steps.append(state.step)
        }
        #expect(steps == JoinStep.way)
        #expect(state.step == .active)
        #expect(state.restarts == 0)
        #expect(state.mustRemove.isEmpty)
        #expect(state.mayExist == JoinResource.allCases.reversed())
    }

    // MARK: what exists

    @Test func resourcesOfSteps() throws {
        #expect(JoinState().mayExist == [])
        #expect(try Self.state(.reserve).mayExist == [.reservation])
        #expect(try Self.state(.awaitPeerPositions).mayExist == [.peerSlots, .reservation])
        #expect(try Self.state(.createSlot).mayExist == [.targetSlot, .peerSlots, .reservation])
        #expect(try Self.state(.copyData).mayExist == [.copiedObjects, .targetSlot, .peerSlots, .reservation])
        #expect(try Self.state(.catchup).mayExist == JoinResource.allCases.reversed())
        #expect(try Self.state(.failed).mayExist == [])
        // Every one is created once.
        #expect(JoinStep.way.flatMap(\.creates) == JoinResource.allCases)
        for step in JoinStep.allCases where !JoinStep.way.contains(step) {
            #expect(step.creates.isEmpty)
        }
    }

    @Test func removesOnlyInCleanupAndRollback() throws {
        for step in JoinStep.allCases where step != .cleanup && step != .rollback {
            #expect(try Self.state(step).mustRemove.isEmpty)
        }
        let lost = Self.run(.snapshotLost, from: try Self.state(.copyData))
        #expect(lost.step == .cleanup)
        #expect(lost.mustRemove == [.copiedObjects, .targetSlot])
        let failed = Self.run(.failed, from: try Self.state(.copyData))
        #expect(failed.mustRemove == [.copiedObjects, .targetSlot, .peerSlots, .reservation])
        // A cleanup that is given up removes what it had begun to remove, and the rest.
        #expect(Self.run(.cancelled, from: lost).mustRemove == failed.mustRemove)
    }

    /// A join as the database would have it: its plan, what exists, and the node's state in the journal.
    struct World: Hashable {
        var plan = JoinState()
        var existing: Set<JoinResource> = []
        var node = NodeState.created

        /// `plan` moves on; the journal notes it, where the state is not there already.
        mutating func move(to next: JoinState) {
            if next.step != self.plan.step {
                for state in next.step.entersStates where state != self.node {
                    if !self.node.canMove(to: state) {
                        Issue.record("\(self.node) to \(state), from \(self.plan.step)")
                    }
                    self.node = state
                }
            }
            self.plan = next
        }
    }

    /// All that can come of one step, of which only a part may have been done when it ended without success, and of a
    /// server that was killed during it.
    static func successors(_ world: World) -> [World] {
        var results: [World] = []
        let touched = world.plan.mustRemove + world.plan.step.creates
        for outcome in JoinOutcome.allCases {
            for part in 0..<(1 << touched.count) where outcome != .done || part == (1 << touched.count) - 1 {
                var next = world
                for (index, resource) in touched.enumerated() where part & (1 << index) != 0 {
                    if world.plan.step == .cleanup || world.plan.step == .rollback {
                        next.existing.remove(resource)
                    } else {
                        next.existing.insert(resource)
                    }
                }
                if outcome == .waiting {
                    var killed = next
                    killed.move(to: JoinPlan.resume(next.plan))
                    results.append(killed)
                }
                next.move(to: JoinPlan.next(after: next.plan, outcome: outcome))
                results.append(next)
            }
        }
        return results
    }

    /// All worlds that a join can come to. Restarts are cut off, as they change nothing else.
    static let worlds: Set<World> = {
        var known: Set<World> = [World()]
        var open = [World()]
        while let world = open.popLast() {
            for next in Self.successors(world) where next.plan.restarts <= 1 && known.insert(next).inserted {
                open.append(next)
            }
        }
        return known
    }()

    @Test func nothingExistsThatIsNotKnown() {
        #expect(Set(Self.worlds.map(\.plan.step)) == Set(JoinStep.allCases))
        for world in Self.worlds where !world.existing.isSubset(of: world.plan.mayExist) {
            Issue.record("\(world)")
        }
    }

    @Test func endsLeaveAllOrNothing() {
        for world in Self.worlds where world.plan.isFinal {
            if world.plan.step == .active {
                #expect(world.existing == Set(JoinResource.allCases))
                #expect(world.node == .active)
            } else {
                #expect(world.plan.step == .failed)
                #expect(world.existing.isEmpty)
                #expect(world.node == .created)
            }
        }
    }

    /// When the copy is made again there is nothing of the former one, and the reservation and peers' slots are there.
    @Test func copyBeginsClean() {
        for world in Self.worlds where world.plan.step == .createSlot && world.plan.restarts > 0 {
            #expect(world.existing.isSubset(of: [.reservation, .peerSlots, .targetSlot]))
            #expect(world.existing.isSuperset(of: [.reservation, .peerSlots]))
        }
    }

    /// From everywhere the join can still end, and an operator can give up until the group decides.
    @Test func alwaysEnds() {
        for world in Self.worlds {
            var plan = world.plan
            var count = 0
            while !plan.isFinal && count < 30 {
                plan = JoinPlan.next(after: plan, outcome: .done)
                count += 1
            }
            #expect(plan.isFinal)
            guard world.plan.step.isCancelable else {
                continue
            }
            let given = Self.run(.cancelled, from: world.plan)
            #expect(given.step == .rollback || given.step == .failed)
            #expect(Self.run(.done, from: given).step == .failed)
        }
    }

    @Test func removalIsNewestFirst() throws {
        for world in Self.worlds {
            let order = world.plan.mustRemove.compactMap { JoinResource.allCases.firstIndex(of: $0) }
            #expect(order == order.sorted(by: >))
        }
    }

    // MARK: killed

    @Test(arguments: JoinStep.allCases) func resumes(step: JoinStep) throws {
        let state = try Self.state(step)
        let resumed = JoinPlan.resume(state)
        #expect(JoinPlan.resume(resumed) == resumed)
        if [.createSlot, .copyStructure, .copyData].contains(step) {
            #expect(step.needsSnapshot)
            #expect(resumed.step == .cleanup)
            #expect(resumed.mayExist == state.mayExist)
        } else {
            #expect(!step.needsSnapshot)
            #expect(resumed == state)
        }
    }

    // MARK: storage

    @Test func namesAreStored() {
        #expect(
            JoinStep.allCases.map(\.rawValue) == [
                "preflight", "reserve", "create_peer_slots", "await_peer_positions", "create_slot", "copy_structure",
                "copy_data", "copy_indexes", "set_origins", "create_local_slots", "catchup", "standby", "promote",
                "active", "cleanup", "rollback", "failed",
            ])
        #expect(
            JoinResource.allCases.map(\.rawValue) == [
                "reservation", "peer_slots", "target_slot", "copied_objects", "origins", "local_slots",
                "peer_subscriptions",
            ])
        #expect(Set(JoinStep.allCases.map(\.title)).count == JoinStep.allCases.count)
    }

    @Test func everyStateIsStoredAndRead() {
        for plan in Set(Self.worlds.map(\.plan)) {
            let read = JoinState(step: plan.step.rawValue, reached: plan.reached.rawValue, restarts: plan.restarts)
            #expect(read == plan)
        }
    }

    @Test func oddStoredStates() throws {
        #expect(JoinState(step: "copy_rows", reached: "preflight", restarts: 0) == nil)
        #expect(JoinState(step: "copy_data", reached: "", restarts: 0) == nil)
        #expect(JoinState(step: "", reached: "copy_data", restarts: 0) == nil)
        // Behind the step: as if it had been reached.
        let behind = try #require(JoinState(step: "copy_data", reached: "reserve", restarts: 0))
        #expect(behind.reached == .copyData)
        // No step of the way: everything may be there.
        let unclear = try #require(JoinState(step: "rollback", reached: "cleanup", restarts: -4))
        #expect(unclear.mustRemove == JoinResource.allCases.reversed())
        #expect(unclear.restarts == 0)
        let full = try #require(JoinState(step: "cleanup", reached: "copy_data", restarts: Int32.max))
        #expect(JoinPlan.next(after: full, outcome: .done).restarts == Int32.max)
    }
}
