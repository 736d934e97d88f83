import Sequences
import Testing

/// Several nodes that ask for ranges of one sequence at the same time, with everything that can happen in between.
private struct Model: Hashable {
    struct Range: Hashable {
        var owner: Int
        var first: Int64
        var last: Int64
    }
    struct Node: Hashable {
        var voter: Voter
        var proposal: Proposal?
        /// Said yes, and the answer is on its way.
        var answer: Proposal.Answer?
        var isUp = true
        var attempts = 0
    }
    var nodes: [Node]
    var granted: Set<Range> = []
    var overlaps = false
    var crashes = 0
    var losses = 0

    init(_ count: Int) {
        self.nodes = (0..<count).map { _ in Node(voter: Voter(highest: 0)) }
    }

    var ids: [UInt32] { (0..<self.nodes.count).map { UInt32($0) } }

    /// All states that may come next.
    func next(proposers: Int, attempts: Int, crashes: Int, losses: Int) -> [Model] {
        var result: [Model] = []
        for number in self.nodes.indices {
            let node = self.nodes[number]
            if !node.isUp {
                var model = self
                model.nodes[number].isUp = true
                result.append(model)
                continue
            }
            if self.crashes < crashes {
                // what it was about to do is gone, what it has said yes to is not
                var model = self
                model.nodes[number].isUp = false
                model.nodes[number].proposal = nil
                model.nodes[number].answer = nil
                model.crashes += 1
                result.append(model)
            }
            if let answer = node.answer {
                var model = self
                model.nodes[number].answer = nil
                model.nodes[number].proposal?.take(answer)
                result.append(model)
                if self.losses < losses {
                    model = self
                    model.nodes[number].answer = nil
                    model.nodes[number].proposal?.take(.none)
                    model.losses += 1
                    result.append(model)
                }
            } else if let proposal = node.proposal {
                var model = self
                switch proposal.step {
                case .ask(let member, let first, let last):
                    let asked = Int(member)
                    if self.nodes[asked].isUp {
                        let refusal = model.nodes[asked].voter.answer(first: first, last: last, to: UInt32(number))
                        model.nodes[number].answer =
                            refusal.map { .no(highest: $0, members: self.nodes.count) } ?? .yes(members: self.nodes.count)
                    } else {
                        model.nodes[number].answer = Proposal.Answer.none
                    }
                case .granted(let first, let last):
                    let range = Range(owner: number, first: first, last: last)
                    model.overlaps = self.granted.contains { $0 != range && $0.first <= last && $0.last >= first }
                    model.granted.insert(range)
                    model.nodes[number].proposal = nil
                case .noMajority, .exhausted:
                    model.nodes[number].proposal = nil
                }
                result.append(model)
            } else if number < proposers && node.attempts < attempts {
                var model = self
                model.nodes[number].attempts += 1
                let owned = self.granted.filter { $0.owner == number }.map(\.last).max() ?? 0
                model.nodes[number].proposal = Proposal(members: self.ids, size: 10, above: owned, maximum: 1000)
                result.append(model)
            }
        }
        return result
    }
}

@Suite struct GallocTests {
    private func explore(_ start: Model, proposers: Int, attempts: Int, crashes: Int, losses: Int) -> (states: Int, grants: Int) {
        var seen: Set<Model> = [start]
        var open = [start]
        var grants = 0
        while let model = open.popLast() {
            grants = max(grants, model.granted.count)
            for next in model.next(proposers: proposers, attempts: attempts, crashes: crashes, losses: losses)
            where seen.insert(next).inserted {
                if next.overlaps {
                    Issue.record("granted twice: \(next)")
                    return (seen.count, grants)
                }
                open.append(next)
            }
        }
        return (seen.count, grants)
    }

    @Test(arguments: [(3, 2, 2, 1, 1), (3, 3, 1, 1, 1), (4, 2, 1, 2, 1), (4, 3, 1, 0, 1), (2, 2, 2, 1, 1)])
    func noValueIsGrantedTwice(_ nodes: Int, _ proposers: Int, _ attempts: Int, _ crashes: Int, _ losses: Int) {
        let (states, grants) = self.explore(
            Model(nodes), proposers: proposers, attempts: attempts, crashes: crashes, losses: losses)
        #expect(states > 1000)
        #expect(grants == proposers * attempts)
    }

    /// Grants among `members`, each taken in turn; gives back the ranges.
    private func grant(_ voters: inout [UInt32: Voter], members: [UInt32], up: Set<UInt32>, asker: UInt32, above: Int64 = 0)
        -> Proposal.Step
    {
        var proposal = Proposal(members: members, size: 10, above: above, maximum: 100)
        while true {
            guard case .ask(let member, let first, let last) = proposal.step else {
                return proposal.step
            }
            guard up.contains(member), var voter = voters[member] else {
                proposal.take(.none)
                continue
            }
            let refusal = voter.answer(first: first, last: last, to: asker)
            voters[member] = voter
            proposal.take(refusal.map { .no(highest: $0, members: members.count) } ?? .yes(members: members.count))
        }
    }

    @Test func aMinorityGrantsNothing() {
        var voters: [UInt32: Voter] = [1: Voter(highest: 0), 2: Voter(highest: 0), 3: Voter(highest: 0)]
        #expect(self.grant(&voters, members: [1, 2, 3], up: [1, 3], asker: 1) == .granted(first: 1, last: 10))
        #expect(self.grant(&voters, members: [1, 2, 3], up: [2], asker: 2) == .noMajority)
        #expect(self.grant(&voters, members: [1, 2, 3], up: [2, 3], asker: 2) == .granted(first: 11, last: 20))
    }

    @Test func askingAgainWastesNothing() {
        var voters: [UInt32: Voter] = [1: Voter(highest: 5), 2: Voter(highest: 0), 3: Voter(highest: 0)]
        for _ in 0..<5 {
            #expect(self.grant(&voters, members: [1, 2, 3], up: [1], asker: 1) == .noMajority)
        }
        #expect(self.grant(&voters, members: [1, 2, 3], up: [1, 3], asker: 1) == .granted(first: 6, last: 15))
        // two at the same time on one node get one range
        #expect(self.grant(&voters, members: [1, 2, 3], up: [1, 3], asker: 1) == .granted(first: 6, last: 15))
        #expect(self.grant(&voters, members: [1, 2, 3], up: [1, 3], asker: 3) == .granted(first: 16, last: 25))
        #expect(self.grant(&voters, members: [1, 2, 3], up: [1, 3], asker: 1, above: 15) == .granted(first: 26, last: 35))
    }

    @Test func joinedNodesKnowWhatWasGrantedWithoutThem() {
        // groups grow from one to six, each time with any majority of what was there to learn from, and any to vote
        for seed in 0..<2000 {
            var random = UInt64(seed) &* 0x9e37_79b9_7f4a_7c15 | 1
            func draw(_ bound: Int) -> Int {
                random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                return Int(random >> 33) % bound
            }
            func some(_ count: Int, of members: [UInt32]) -> [UInt32] {
                var rest = members
                return (0..<count).map { _ in rest.remove(at: draw(rest.count)) }
            }
            var voters: [UInt32: Voter] = [1: Voter(highest: 0)]
            var last: Int64 = 0
            for size in 1...6 {
                let members = (1...size).map { UInt32($0) }
                if size > 1 {
                    var voter = Voter(highest: 0)
                    for peer in some(Learning.required(others: size - 1), of: Array(members.dropLast())) {
                        voter.learn(voters[peer]?.highest ?? 0)
                    }
                    voters[UInt32(size)] = voter
                }
                for _ in 0..<2 where last < 100 {
                    let up = Set(some(size / 2 + 1, of: members))
                    guard case .granted(let first, let end) = self.grant(&voters, members: members, up: up, asker: UInt32(draw(size) + 1), above: last) else {
                        continue
                    }
                    #expect(first > last)
                    last = end
                }
            }
            #expect(last > 0)
        }
    }

    @Test func aNodeThatKnowsOfMoreMembersIsBelieved() {
        var proposal = Proposal(members: [1, 2, 3], size: 10, above: 0, maximum: 100)
        proposal.take(.yes(members: 5))
        proposal.take(.yes(members: 3))
        #expect(proposal.step == .ask(member: 3, first: 1, last: 10))
        proposal.take(.none)
        #expect(proposal.step == .noMajority)
    }

    @Test func theEnd() {
        var voters: [UInt32: Voter] = [1: Voter(highest: 95)]
        #expect(self.grant(&voters, members: [1], up: [1], asker: 1) == .granted(first: 96, last: 100))
        #expect(self.grant(&voters, members: [1], up: [1], asker: 1, above: 100) == .exhausted)
        #expect(Proposal(members: [1], size: 10, above: .max, maximum: .max).step == .exhausted)
        #expect(Proposal(members: [1], size: 10, above: .max - 3, maximum: .max).step == .ask(member: 1, first: .max - 2, last: .max))
        #expect(Proposal(members: [], size: 10, above: 0, maximum: 10).step == .noMajority)
    }
}
