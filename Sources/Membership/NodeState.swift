// The life of a node in its group, as `peer_state_name` and the state journal show it.

/// State of a node. Raw values are in the order in which a node passes them; they are stored, so never renumber.
public enum NodeState: UInt32, CaseIterable, Sendable {
    /// Not known yet.
    case none = 0
    /// `create_node` was called; in no group.
    case created = 1
    /// A join was requested.
    case joinStart = 2
    /// Copying schema and data.
    case joining = 3
    /// Applying what the source committed since the copy began.
    case catchup = 4
    /// Receives, does not send. Every join passes here; a logical standby stays.
    case standby = 5
    /// Promotion requested.
    case promote = 6
    /// Promotion in progress.
    case promoting = 7
    /// Full member.
    case active = 8
    /// Parting requested.
    case partStart = 9
    /// Disconnected from the group.
    case parting = 10
    /// The others fetch what they lack of this node's changes.
    case partCatchup = 11
    /// Gone, for all nodes.
    case parted = 12

    /// What starts the names in the state journal.
    private static let journalPrefix = "BDR_PEER_STATE_"

    /// For example "JOIN_START".
    public var name: String {
        switch self {
        case .none: "NONE"
        case .created: "CREATED"
        case .joinStart: "JOIN_START"
        case .joining: "JOINING"
        case .catchup: "CATCHUP"
        case .standby: "STANDBY"
        case .promote: "PROMOTE"
        case .promoting: "PROMOTING"
        case .active: "ACTIVE"
        case .partStart: "PART_START"
        case .parting: "PARTING"
        case .partCatchup: "PART_CATCHUP"
        case .parted: "PARTED"
        }
    }

    /// For example "BDR_PEER_STATE_JOIN_START".
    public var journalName: String {
        Self.journalPrefix + self.name
    }

    /// Finds a state by `name` or `journalName`, in upper case; nil when there is none.
    public init?(name: String) {
        guard let state = Self.allCases.first(where: { $0.name == name || $0.journalName == name }) else {
            return nil
        }
        self = state
    }

    /// What users would write on a node in this state would not reach the others, or not all of them.
    public var refusesWrites: Bool {
        switch self {
        case .none, .created, .active, .parted: false
        case .joinStart, .joining, .catchup, .standby, .promote, .promoting, .partStart, .parting, .partCatchup: true
        }
    }

    /// Whether a node may go from this state to the next one.
    ///
    /// Staying is no move: a caller that repeats a step after a crash compares first. A join that is given up, and whose
    /// traces are removed, goes back to `created`; one that has to copy again goes back to `joinStart`.
    /// - Parameters:
    ///   - next: the state to enter.
    ///   - force: the operator removes the node without its, or the group's, consent: any member may become `parted`.
    public func canMove(to next: NodeState, force: Bool = false) -> Bool {
        if force && next == .parted {
            return self >= .joinStart && self != .parted
        }
        return switch self {
        case .none: next == .created
        // The node that creates the group has nothing to copy and nobody to ask.
        case .created: next == .joinStart || next == .active
        case .joinStart: [.joining, .created, .partStart].contains(next)
        case .joining: [.catchup, .joinStart, .created, .partStart].contains(next)
        case .catchup: [.standby, .joinStart, .created, .partStart].contains(next)
        case .standby: [.promote, .created, .partStart].contains(next)
        // A promotion that fails leaves a logical standby.
        case .promote: [.promoting, .standby, .created, .partStart].contains(next)
        case .promoting: [.active, .standby, .created, .partStart].contains(next)
        case .active: next == .partStart
        case .partStart: next == .parting
        case .parting: next == .partCatchup
        case .partCatchup: next == .parted
        case .parted: false
        }
    }
}

extension NodeState: Comparable {
    public static func < (left: NodeState, right: NodeState) -> Bool {
        left.rawValue < right.rawValue
    }
}
