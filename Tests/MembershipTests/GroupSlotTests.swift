// What the group slot keeps, and how survivors complete one another.

import Testing

@testable import Membership

@Suite struct ProgressReportTests {
    @Test func roundTrip() throws {
        let report = ProgressReport(positions: [1: 0, 7: UInt64.max, UInt32.max: 0x16B3748])
        #expect(try ProgressReport(text: report.text) == report)
        #expect(try ProgressReport(text: "") == ProgressReport(positions: [:]))
    }

    @Test(arguments: ["x", "1", "1 ", " 1", "1 2 3", "1 2\n1 3", "0 1", "1 10000000000000000", "100000000 1", "1 -1", "é 1"])
    func malformed(text: String) {
        #expect(throws: MembershipError.self) { try ProgressReport(text: text) }
    }

    @Test func bounded() {
        let text = (1...(ProgressReport.limit + 1)).map { "\(String($0, radix: 16)) 1" }.joined(separator: "\n")
        #expect(throws: MembershipError.self) { try ProgressReport(text: text) }
    }
}

@Suite struct GroupSlotMarksTests {
    let marks = GroupSlotMarks([
        GroupSlotMark(local: 300, positions: [1: 30, 2: 300]),
        GroupSlotMark(local: 100, positions: [1: 10, 2: 100]),
        GroupSlotMark(local: 200, positions: [1: 20, 2: 200]),
    ])

    @Test func passing() {
        #expect(self.marks.passed(by: 9, [1: 20, 2: 250], origins: [1, 2])?.local == 200)
        #expect(self.marks.passed(by: 9, [1: 20], origins: [1, 2]) == nil)
        #expect(self.marks.passed(by: 9, [1: 9, 2: 999], origins: [1, 2]) == nil)
        // its own changes a node always has
        #expect(self.marks.passed(by: 2, [1: 29], origins: [1, 2])?.local == 200)
        // of one that is gone nothing is needed
        #expect(self.marks.passed(by: 9, [2: 300], origins: [2])?.local == 300)
    }

    @Test func slowestPeerDecides() {
        #expect(self.marks.target(peers: [1: [2: 300], 2: [1: 10]], origins: [1, 2])?.local == 100)
        #expect(self.marks.target(peers: [1: [2: 300], 2: [:]], origins: [1, 2]) == nil)
        #expect(self.marks.target(peers: [:], origins: [1, 2])?.local == 300)
    }

    @Test func coverage() {
        #expect(self.marks.coverage(of: 1, slot: 100) == 10)
        // a slot that stands before a mark has all that lies behind it
        #expect(self.marks.coverage(of: 1, slot: 50) == 10)
        #expect(self.marks.coverage(of: 1, slot: 101) == 20)
        #expect(self.marks.coverage(of: 1, slot: 301) == nil)
        #expect(self.marks.coverage(of: 5, slot: 100) == 0)
    }

    @Test func bound() {
        #expect(self.marks.bounded(end: 400, limit: 1000)?.local == 100)
        #expect(self.marks.bounded(end: 400, limit: 250)?.local == 200)
        #expect(self.marks.bounded(end: 400, limit: 50) == nil)
    }

    /// Whatever is applied in whatever order, and whatever peers report: what a slot at the target forwards, together with
    /// what a peer has, leaves no gap.
    @Test func noGap() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<200 {
            // transactions applied here: (local end, origin, origin's end)
            var applied: [(local: UInt64, origin: UInt32, position: UInt64)] = []
            var positions: OriginPositions = [:]
            var marks: [GroupSlotMark] = []
            for number in 1...30 {
                let local = UInt64(number) * 10
                let origin = UInt32.random(in: 1...3, using: &random)
                let position = positions[origin, default: 0] + UInt64.random(in: 1...5, using: &random)
                if Bool.random(using: &random) {
                    marks.append(GroupSlotMark(local: local - 5, positions: positions))
                }
                positions[origin] = position
                applied.append((local, origin, position))
            }
            var peers: [UInt32: OriginPositions] = [:]
            for peer: UInt32 in 1...4 {
                peers[peer] = positions.mapValues { UInt64.random(in: 0...$0, using: &random) }
            }
            let all = GroupSlotMarks(marks)
            guard let target = all.target(peers: peers, origins: [1, 2, 3]) else {
                continue
            }
            for (peer, progress) in peers {
                for change in applied where change.origin != peer && change.local <= target.local {
                    #expect(progress[change.origin, default: 0] >= change.position)
                }
            }
            for origin: UInt32 in 1...3 {
                if let after = all.coverage(of: origin, slot: target.local) {
                    for change in applied where change.origin == origin && change.position > after {
                        #expect(change.local > target.local)
                    }
                }
            }
        }
    }
}

@Suite struct RecoveryPlanTests {
    @Test func furthestForwards() {
        let plan = RecoveryPlan([
            Survivor(id: 1, position: 10, forwardsAfter: 0), Survivor(id: 2, position: 30, forwardsAfter: 5),
            Survivor(id: 3, position: 20, forwardsAfter: 0),
        ])
        #expect(
            plan.steps == [
                .init(receiver: 1, source: 2, position: 30), .init(receiver: 3, source: 2, position: 30),
            ])
        #expect(plan.incomplete.isEmpty)
    }

    @Test func inTurns() {
        // 2 joined lately: what precedes its copy only 3 can forward
        var survivors = [
            Survivor(id: 1, position: 10, forwardsAfter: 0), Survivor(id: 2, position: 30, forwardsAfter: 20),
            Survivor(id: 3, position: 25, forwardsAfter: 5),
        ]
        var turns = 0
        while case let plan = RecoveryPlan(survivors), !plan.isComplete {
            #expect(plan.incomplete.isEmpty)
            for step in plan.steps {
                for index in survivors.indices where survivors[index].id == step.receiver {
                    survivors[index].position = step.position
                }
            }
            turns += 1
            #expect(turns < 5)
        }
        #expect(survivors.allSatisfy { $0.position == 30 })
    }

    @Test func nobodyCan() {
        let plan = RecoveryPlan([
            Survivor(id: 1, position: 10, forwardsAfter: 0), Survivor(id: 2, position: 30, forwardsAfter: 15),
            Survivor(id: 3, position: 40, forwardsAfter: nil),
        ])
        #expect(plan.steps.isEmpty)
        #expect(plan.incomplete == [1, 2])
    }

    @Test func nothingToDo() {
        #expect(RecoveryPlan([]).isComplete)
        #expect(RecoveryPlan([Survivor(id: 1, position: 5, forwardsAfter: nil)]).isComplete)
    }

    /// From any state in which each position can be reached from somebody, all end at the furthest, in as many turns as
    /// there are survivors at most.
    @Test func ends() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<2000 {
            var survivors = (1...UInt32.random(in: 1...6, using: &random)).map { id in
                let position = UInt64.random(in: 0...10, using: &random)
                return Survivor(
                    id: id, position: position,
                    forwardsAfter: Bool.random(using: &random) ? UInt64.random(in: 0...position, using: &random) : nil)
            }
            for _ in survivors {
                for step in RecoveryPlan(survivors).steps {
                    for index in survivors.indices where survivors[index].id == step.receiver {
                        #expect(survivors[index].position < step.position)
                        survivors[index].position = step.position
                    }
                }
            }
            #expect(RecoveryPlan(survivors).steps.isEmpty)
        }
    }
}
