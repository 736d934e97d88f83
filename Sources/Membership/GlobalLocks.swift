// Global locks as votes: what a node that is asked decides, and in which order a node that wants a lock asks the others.
//
// A node has one vote for each thing that can be locked. It gives it to one request at a time; others wait, in the order of
// (time of the request, node, number). Who wants a lock collects votes in the order of node ids and passes only those that can't
// be reached, so of two that want the same, one waits for the other and never both for each other. A vote that was given is
// taken back by itself when the session ends that asked for it; only when enough have been given are they confirmed, which is
// stored and survives the session and the server.

/// A request for a lock, as a voting node knows it.
public struct GlobalLockRequest: Equatable, Hashable, Sendable {
    public enum State: String, Sendable {
        case waiting
        case granted
        case confirmed
    }

    public var id: Int64
    /// The node that wants the lock.
    public var node: UInt32
    /// When it was requested, by that node's clock.
    public var time: Int64
    /// What is locked; requests for different things don't meet, unless they are tables that have one in common.
    public var resource: String
    /// On the voting node: the table with its partitions and children.
    public var tables: Set<UInt32>
    public var state: State

    public init(id: Int64, node: UInt32, time: Int64, resource: String, tables: Set<UInt32> = [], state: State) {
        self.id = id
        self.node = node
        self.time = time
        self.resource = resource
        self.tables = tables
        self.state = state
    }

    public func meets(_ other: GlobalLockRequest) -> Bool {
        self.resource == other.resource || !self.tables.isDisjoint(with: other.tables)
    }

    public func isBefore(_ other: GlobalLockRequest) -> Bool {
        (self.time, self.node, self.id) < (other.time, other.node, other.id)
    }
}

public enum GlobalLockVote {
    /// Who stands in the way of a request at this node; nil: it gets the vote.
    ///
    /// What the same node has confirmed does not: its own transactions are kept apart there, so those are over, and what is
    /// left of them here waits only for their changes, which come before those of the request.
    public static func blocker(of request: GlobalLockRequest, among all: [GlobalLockRequest]) -> GlobalLockRequest? {
        let others = all.filter { $0.meets(request) && $0.id != request.id }
        if let holder = others.first(where: {
            $0.state == .granted || ($0.state == .confirmed && $0.node != request.node)
        }) {
            return holder
        }
        return others.filter { $0.state == .waiting && $0.isBefore(request) }.min { $0.isBefore($1) }
    }
}

/// The collecting of votes for one lock.
public struct GlobalLockPoll: Equatable, Hashable, Sendable {
    public enum Answer: Sendable {
        case granted
        case unreachable
    }

    public enum Step: Equatable, Sendable {
        /// Ask this node, until it gives its vote or can't be reached.
        case ask(UInt32)
        /// There are enough: have these nodes confirm.
        case confirm([UInt32])
        /// Too many can't be reached: give back what was given, and begin anew later.
        case startOver
    }

    public let members: [UInt32]
    public let local: UInt32
    /// Every node must agree, not only a majority.
    public let all: Bool
    private var answers: [UInt32: Answer] = [:]

    public init(members: [UInt32], local: UInt32, all: Bool) {
        self.members = members.sorted()
        self.local = local
        self.all = all
    }

    /// Two majorities have a node in common, also when one of them is of a group with a node more or less.
    public static func needed(of members: Int, all: Bool) -> Int {
        all ? members : members / 2 + 1
    }

    public mutating func note(_ node: UInt32, _ answer: Answer) {
        self.answers[node] = answer
    }

    /// Nodes that have not given their vote, of those that were or would be asked.
    public var missing: [UInt32] {
        self.members.filter { self.answers[$0] != .granted }
    }

    public var next: Step {
        let needed = Self.needed(of: self.members.count, all: self.all)
        guard self.members.contains(self.local) else {
            return .startOver
        }
        // the own vote is always one of them: the node knows by it what it holds
        var others = 0
        for member in self.members {
            switch self.answers[member] {
            case .granted:
                others += member == self.local ? 0 : 1
            case .unreachable:
                if member == self.local || self.all {
                    return .startOver
                }
            case nil:
                if member == self.local || others < needed - 1 {
                    return .ask(member)
                }
            }
        }
        guard others >= needed - 1 else {
            return .startOver
        }
        return .confirm(self.members.filter { self.answers[$0] == .granted })
    }
}

/// The chain of those that a transaction waits for, over several nodes: does it lead back to it?
public struct GlobalLockWalk {
    /// A lock that is waited for, and a node that can say who stands in the way of it.
    public struct Step: Hashable, Sendable {
        public var lock: Int64
        public var node: UInt32

        public init(lock: Int64, node: UInt32) {
            self.lock = lock
            self.node = node
        }
    }

    private struct Path {
        var nodes: [UInt32]
        var isOwnYoungest: Bool
    }

    /// More than so many are not looked at.
    private static let limit = 100

    private let own: Int64
    private let held: Set<Int64>
    private let node: UInt32
    private let time: Int64
    private var paths: [Step: Path] = [:]
    private var pending: [Step] = []
    /// The nodes of a circle in which the own request is the youngest, so that it has to give in.
    public private(set) var circle: [UInt32]?

    /// - Parameters:
    ///   - own: number of the request that waits.
    ///   - held: locks that its transaction has.
    ///   - node, time: where and when it was made.
    public init(own: Int64, held: [Int64], node: UInt32, time: Int64) {
        self.own = own
        self.held = Set(held)
        self.node = node
        self.time = time
    }

    public mutating func begin(at step: Step) {
        self.paths[step] = Path(nodes: [self.node], isOwnYoungest: true)
        self.pending = [step]
    }

    public mutating func next() -> Step? { self.pending.popLast() }

    /// At a step there is a request of that node, which waits itself.
    public mutating func note(request: Int64, time: Int64, of step: Step, waitsFor further: Step?) {
        guard var path = self.paths[step] else {
            return
        }
        guard request != self.own else {
            self.close(path)
            return
        }
        path.isOwnYoungest = path.isOwnYoungest && (time, step.node, request) < (self.time, self.node, self.own)
        path.nodes.append(step.node)
        guard let further else {
            return
        }
        if self.held.contains(further.lock) {
            self.close(path)
        } else if self.paths[further] == nil && self.paths.count < Self.limit {
            self.paths[further] = path
            self.pending.append(further)
        }
    }

    private mutating func close(_ path: Path) {
        if path.isOwnYoungest {
            self.circle = Set(path.nodes).sorted()
        }
    }
}
