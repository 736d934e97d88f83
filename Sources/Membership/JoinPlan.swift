// How a node joins a group, as a state machine: which step follows which outcome, what to do when the server was killed in
// the middle, and what has to be removed when a join starts over or is given up.
//
// J is the joining node, T the member that it joins through, P any other peer. All of it is meant to be run by J, which
// stores `JoinState` in a table before it begins a step. Each step, repeated, does what is left of it: it must be idempotent.
// With two nodes there is no P, and the steps about peers have nothing to do.
//
// The copy is consistent because it is read under one snapshot, which T exported together with the slot from which J goes
// on. The snapshot is gone as soon as the connection that exported it is, at the latest when J is killed; what was copied
// can't be completed then. So up to the end of the copy a failure means: remove the copy and the slot, and copy again. What
// does not depend on the snapshot stays: the reservation with the node id, and the slots on P, as an older slot only
// streams more.

/// The steps; raw values are stored.
public enum JoinStep: String, CaseIterable, Sendable {
    /// Both sides are checked; nothing is created.
    case preflight
    /// T takes the group's join lock and allocates the node record. J identifies the request by a value that it stored
    /// before, so that T answers a repeated request with the same record.
    case reserve
    /// J makes its slots on every P, and has P commit a heartbeat after it, as an idle P would never pass that point.
    case createPeerSlots = "create_peer_slots"
    /// T has applied from every P what precedes the slots, in transactions that have all ended.
    case awaitPeerPositions = "await_peer_positions"
    /// J makes its slot on T and keeps the connection that exported the snapshot.
    case createSlot = "create_slot"
    /// Schema before data, under the snapshot. The script of what follows the data is taken now and stored.
    case copyStructure = "copy_structure"
    /// Rows, and T's position for each P, under the snapshot.
    case copyData = "copy_data"
    /// Indexes, constraints and triggers, from the stored script, in one transaction: the snapshot is no longer needed.
    case copyIndexes = "copy_indexes"
    /// J's origins start at the slot's and the copied positions.
    case setOrigins = "set_origins"
    /// J makes the slots from which T and every P stream J's changes, and has them subscribe.
    case createLocalSlots = "create_local_slots"
    /// J streams until it has what T and every P had when this step began.
    case catchup
    /// J has all and sends nothing. Waits here when it was asked to, until it is promoted.
    case standby
    /// The group accepts J as a member. T decides; when the answer is lost, the outcome is `transient`, and asking again
    /// tells.
    case promote
    /// The join is done.
    case active
    /// The copy is removed, to be made again.
    case cleanup
    /// Everything is removed, as the join is given up.
    case rollback
    /// The join was given up and left nothing.
    case failed
}

/// What a join creates, in the order in which it does; later ones depend on earlier ones. Raw values are stored.
public enum JoinResource: String, CaseIterable, Sendable {
    /// J's node record on T and every P, and the join lock.
    case reservation
    /// J's slots on every P.
    case peerSlots = "peer_slots"
    /// J's slot on T.
    case targetSlot = "target_slot"
    /// Tables, rows and other objects copied to J.
    case copiedObjects = "copied_objects"
    /// J's replication origins, and the workers that use them.
    case origins
    /// The peers' slots on J.
    case localSlots = "local_slots"
    /// The peers' subscriptions to J: their origins and workers.
    case peerSubscriptions = "peer_subscriptions"
}

/// How a step ended.
public enum JoinOutcome: CaseIterable, Sendable {
    /// The step has reached its end.
    case done
    /// Not yet, but nothing is wrong: a peer is down, another node is joining.
    case waiting
    /// It failed in a way that passes by itself.
    case transient
    /// The connection that holds the snapshot is gone.
    case snapshotLost
    /// It failed for good.
    case failed
    /// The operator gives the join up.
    case cancelled
}

/// Where a join stands. Stored, in the transaction that makes it so.
public struct JoinState: Equatable, Hashable, Sendable {
    public private(set) var step: JoinStep
    /// The furthest step begun since the last removal: everything up to it may exist, entirely or in part.
    public private(set) var reached: JoinStep
    /// How often the copy was begun anew.
    public private(set) var restarts: Int32

    /// A join that begins.
    public init() {
        self.step = .preflight
        self.reached = .preflight
        self.restarts = 0
    }

    /// A join as it was stored; nil when a name is unknown (a later version stored it).
    public init?(step: String, reached: String, restarts: Int32) {
        guard let step = JoinStep(rawValue: step), let reached = JoinStep(rawValue: reached) else {
            return nil
        }
        self.init(step: step, reached: reached, restarts: restarts)
    }

    /// `reached` never falls behind `step`; when it is no step of the way, it counts as the end of it.
    init(step: JoinStep, reached: JoinStep, restarts: Int32) {
        self.step = step
        let furthest = JoinStep.way.firstIndex(of: reached) ?? JoinStep.way.count - 1
        let current = JoinStep.way.firstIndex(of: step) ?? 0
        self.reached = furthest < current ? step : reached
        self.restarts = max(0, restarts)
    }

    /// What may exist, the newest first: the order in which to remove it.
    public var mayExist: [JoinResource] {
        guard self.step != .failed else {
            return []
        }
        let steps = JoinStep.way.prefix(while: { $0 != self.reached }) + [self.reached]
        return steps.flatMap(\.creates).reversed()
    }

    /// What the present step has to remove, in this order, each "if it exists"; empty outside `cleanup` and `rollback`.
    public var mustRemove: [JoinResource] {
        switch self.step {
        case .cleanup: self.mayExist.filter { !$0.survivesCleanup }
        case .rollback: self.mayExist
        default: []
        }
    }

    /// Whether the join is over, one way or the other.
    public var isFinal: Bool {
        self.step == .active || self.step == .failed
    }

    fileprivate func moved(to step: JoinStep) -> JoinState {
        JoinState(step: step, reached: self.reached, restarts: self.restarts)
    }

    fileprivate func restarted() -> JoinState {
        let restarts = self.restarts < Int32.max ? self.restarts + 1 : self.restarts
        return JoinState(step: .createSlot, reached: .createSlot, restarts: restarts)
    }
}

extension JoinStep {
    /// The steps of a join that goes well, in order.
    public static let way: [JoinStep] = [
        .preflight, .reserve, .createPeerSlots, .awaitPeerPositions, .createSlot, .copyStructure, .copyData,
        .copyIndexes, .setOrigins, .createLocalSlots, .catchup, .standby, .promote, .active,
    ]

    /// What the step creates.
    public var creates: [JoinResource] {
        switch self {
        case .reserve: [.reservation]
        case .createPeerSlots: [.peerSlots]
        case .createSlot: [.targetSlot]
        case .copyStructure: [.copiedObjects]
        case .setOrigins: [.origins]
        case .createLocalSlots: [.localSlots, .peerSubscriptions]
        default: []
        }
    }

    /// Whether the step, interrupted, can't be completed because it makes or reads the exported snapshot.
    public var needsSnapshot: Bool {
        [.createSlot, .copyStructure, .copyData].contains(self)
    }

    /// Whether the operator can still give the join up; later the node is to be parted. While T decides about the promotion
    /// J can't know whether it is a member already.
    public var isCancelable: Bool {
        ![.promote, .active, .rollback, .failed].contains(self)
    }

    /// The node's states to note in the journal as the step begins, in this order; none where the state stays.
    public var entersStates: [NodeState] {
        switch self {
        case .preflight, .createPeerSlots, .awaitPeerPositions, .copyStructure, .copyData, .copyIndexes, .setOrigins,
            .createLocalSlots, .rollback:
            []
        case .reserve, .cleanup: [.joinStart]
        case .createSlot: [.joining]
        case .catchup: [.catchup]
        case .standby: [.standby]
        case .promote: [.promote, .promoting]
        case .active: [.active]
        case .failed: [.created]
        }
    }

    /// What to tell someone who waits for the join.
    public var title: String {
        switch self {
        case .preflight: "checking both servers"
        case .reserve: "asking the join target for a place in the group"
        case .createPeerSlots: "creating replication slots on the peers"
        case .awaitPeerPositions: "waiting for the join target to catch up with the peers"
        case .createSlot: "creating the replication slot and snapshot on the join target"
        case .copyStructure: "copying the schema"
        case .copyData: "copying the data"
        case .copyIndexes: "creating indexes and constraints"
        case .setOrigins: "setting replication origins"
        case .createLocalSlots: "creating replication slots for the peers"
        case .catchup: "catching up"
        case .standby: "ready to be promoted"
        case .promote: "becoming a full member"
        case .active: "active"
        case .cleanup: "removing an incomplete copy"
        case .rollback: "removing what the join has created"
        case .failed: "given up"
        }
    }
}

extension JoinResource {
    /// Whether it stays when the copy is made again.
    public var survivesCleanup: Bool {
        self == .reservation || self == .peerSlots
    }
}

/// The transitions.
public enum JoinPlan {
    /// The state after a step ended so. Total: an outcome that makes no sense for the step leaves it where it is.
    /// - Parameters:
    ///   - state: the state whose step was run.
    ///   - outcome: how it ended.
    public static func next(after state: JoinState, outcome: JoinOutcome) -> JoinState {
        switch state.step {
        case .active, .failed:
            return state
        case .rollback:
            // Never given up: what can't be removed now (a peer is down) is removed later.
            return outcome == .done ? state.moved(to: .failed) : state
        case .cleanup:
            switch outcome {
            case .done: return state.restarted()
            case .waiting, .transient, .snapshotLost: return state
            case .failed, .cancelled: return state.moved(to: .rollback)
            }
        default:
            break
        }
        switch outcome {
        case .done:
            let following = JoinStep.way.drop(while: { $0 != state.step }).dropFirst().first
            return following.map { state.moved(to: $0) } ?? state
        case .waiting:
            return state
        case .transient, .snapshotLost:
            return state.step.needsSnapshot ? state.moved(to: .cleanup) : state
        case .failed:
            return self.givenUp(state)
        case .cancelled:
            return state.step.isCancelable ? self.givenUp(state) : state
        }
    }

    /// The state to go on from when the server starts and finds a join stored: the process that ran it is gone, and with it
    /// the snapshot.
    public static func resume(_ state: JoinState) -> JoinState {
        state.step.needsSnapshot ? state.moved(to: .cleanup) : state
    }

    private static func givenUp(_ state: JoinState) -> JoinState {
        state.moved(to: state.mayExist.isEmpty ? .failed : .rollback)
    }
}
