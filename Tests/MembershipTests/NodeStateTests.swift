// The states of a node, their names, and which may follow which.

import Membership
import Testing

@Suite struct NodeStateTests {
    /// Raw values are stored, names are shown: neither may change.
    @Test func valuesAndNames() {
        #expect(NodeState.allCases.map(\.rawValue) == Array(0...12))
        #expect(
            NodeState.allCases.map(\.name) == [
                "NONE", "CREATED", "JOIN_START", "JOINING", "CATCHUP", "STANDBY", "PROMOTE", "PROMOTING", "ACTIVE",
                "PART_START", "PARTING", "PART_CATCHUP", "PARTED",
            ])
        #expect(NodeState.joinStart.journalName == "BDR_PEER_STATE_JOIN_START")
    }

    @Test(arguments: NodeState.allCases) func namesAreFound(state: NodeState) {
        #expect(NodeState(name: state.name) == state)
        #expect(NodeState(name: state.journalName) == state)
        #expect(NodeState(name: state.name.lowercased()) == nil)
        #expect(NodeState(rawValue: state.rawValue) == state)
    }

    @Test(arguments: ["", "active", "ACTIVE ", "BDR_PEER_STATE_", "BDR_PEER_STATE_BDR_PEER_STATE_ACTIVE"])
    func otherNamesAreNot(name: String) {
        #expect(NodeState(name: name) == nil)
    }

    static let moves: [NodeState: Set<NodeState>] = [
        .none: [.created],
        .created: [.joinStart, .active],
        .joinStart: [.joining, .created, .partStart],
        .joining: [.catchup, .joinStart, .created, .partStart],
        .catchup: [.standby, .joinStart, .created, .partStart],
        .standby: [.promote, .created, .partStart],
        .promote: [.promoting, .standby, .created, .partStart],
        .promoting: [.active, .standby, .created, .partStart],
        .active: [.partStart],
        .partStart: [.parting],
        .parting: [.partCatchup],
        .partCatchup: [.parted],
        .parted: [],
    ]

    @Test(arguments: NodeState.allCases) func moves(from state: NodeState) throws {
        let allowed = try #require(Self.moves[state])
        for next in NodeState.allCases {
            #expect(state.canMove(to: next) == allowed.contains(next), "\(state) to \(next)")
        }
    }

    /// Force opens the way to `parted` for members, and no other way.
    @Test(arguments: NodeState.allCases) func forced(from state: NodeState) {
        for next in NodeState.allCases where next != .parted {
            #expect(state.canMove(to: next, force: true) == state.canMove(to: next), "\(state) to \(next)")
        }
        let isMember = ![.none, .created, .parted].contains(state)
        #expect(state.canMove(to: .parted, force: true) == isMember)
    }

    /// Whatever happened, a node that isn't parted can still become so.
    @Test(arguments: NodeState.allCases) func canAlwaysEnd(state: NodeState) {
        var reached: Set<NodeState> = [state]
        while true {
            let more = reached.union(reached.flatMap { from in NodeState.allCases.filter { from.canMove(to: $0) } })
            if more == reached {
                break
            }
            reached = more
        }
        #expect(reached.contains(.parted))
    }

    @Test func order() {
        #expect(NodeState.allCases == NodeState.allCases.sorted())
        #expect(NodeState.standby < .active)
    }
}
