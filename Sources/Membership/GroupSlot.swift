// What the group slot of a node has to keep, and how survivors complete one another when a node has died.
//
// Every node can forward what it has applied of the others, out of its own WAL, which its group slot holds back. How far it
// has to go back is known from marks: pairs of a local position, and the positions in the other nodes' WAL that were applied
// before it. A mark is passed by a peer that has at least those positions itself; the slot may stand at a mark that all
// peers have passed.

/// Positions in the WAL of other nodes, by node id.
public typealias OriginPositions = [UInt32: UInt64]

/// What a node reports of itself: up to where it has the changes of each other node, durably. As text: "1 0/16B3748" and so
/// on, one node a line, in numerical form "id position" with both in hexadecimal digits.
public struct ProgressReport: Equatable, Sendable {
    public var positions: OriginPositions

    /// Nodes of a group at most, in a report that is believed.
    public static let limit = 4096

    public init(positions: OriginPositions) {
        self.positions = positions
    }

    /// - Throws: `MembershipError` with protocol_violation when the text is no report.
    public init(text: String) throws(MembershipError) {
        self.positions = [:]
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: " ", omittingEmptySubsequences: false)
            guard parts.count == 2, let node = UInt32(parts[0], radix: 16), let position = UInt64(parts[1], radix: 16),
                node != 0, self.positions.count < Self.limit,
                self.positions.updateValue(position, forKey: node) == nil
            else {
                throw MembershipError(sqlstate: "08P01", message: "a node's report of its progress is malformed")
            }
        }
    }

    public var text: String {
        self.positions.sorted { $0.key < $1.key }.map {
            "\(String($0.key, radix: 16)) \(String($0.value, radix: 16))"
        }.joined(separator: "\n")
    }
}

public struct GroupSlotMark: Equatable, Sendable {
    /// In this node's WAL.
    public var local: UInt64
    /// Every transaction of these nodes that was committed here before `local` lies at or before its node's position.
    public var positions: OriginPositions

    public init(local: UInt64, positions: OriginPositions) {
        self.local = local
        self.positions = positions
    }
}

/// The marks of one node, in the order of their local positions.
public struct GroupSlotMarks: Equatable, Sendable {
    public private(set) var marks: [GroupSlotMark]

    public init(_ marks: [GroupSlotMark] = []) {
        self.marks = marks.sorted { $0.local < $1.local }
    }

    /// The last mark that a peer has passed.
    /// - Parameters:
    ///   - peer: who reports.
    ///   - progress: its report; nodes it does not name it has nothing of.
    ///   - origins: nodes whose changes still matter.
    public func passed(by peer: UInt32, _ progress: OriginPositions, origins: Set<UInt32>) -> GroupSlotMark? {
        self.marks.last { mark in
            mark.positions.allSatisfy { origin, position in
                origin == peer || !origins.contains(origin) || progress[origin, default: 0] >= position
            }
        }
    }

    /// Where the slot may stand: the last mark that all peers have passed.
    /// - Parameter peers: by id, with their reports.
    public func target(peers: [UInt32: OriginPositions], origins: Set<UInt32>) -> GroupSlotMark? {
        var target = self.marks.last
        for (peer, progress) in peers {
            guard let passed = self.passed(by: peer, progress, origins: origins) else {
                return nil
            }
            if let current = target, passed.local < current.local {
                target = passed
            }
        }
        return target
    }

    /// After which position of an origin everything that was applied here can be forwarded by a slot that stands at `slot`;
    /// nil when that is not known.
    public func coverage(of origin: UInt32, slot: UInt64) -> UInt64? {
        guard let mark = self.marks.first(where: { $0.local >= slot }) else {
            return nil
        }
        return mark.positions[origin, default: 0]
    }

    /// The first mark that keeps no more than so much before `end`; nil when there is none.
    /// - Parameter limit: bytes.
    public func bounded(end: UInt64, limit: UInt64) -> GroupSlotMark? {
        self.marks.first { end < $0.local || end - $0.local <= limit }
    }
}

/// What a survivor has of a node that died.
public struct Survivor: Equatable, Sendable {
    public var id: UInt32
    /// Up to where it has the dead node's changes.
    public var position: UInt64
    /// It can forward what lies behind this position; nil: nothing.
    public var forwardsAfter: UInt64?

    public init(id: UInt32, position: UInt64, forwardsAfter: UInt64?) {
        self.id = id
        self.position = position
        self.forwardsAfter = forwardsAfter
    }
}

/// How the survivors get what one of them has.
public struct RecoveryPlan: Equatable, Sendable {
    public struct Step: Equatable, Sendable {
        public var receiver: UInt32
        public var source: UInt32
        /// What the receiver has afterwards.
        public var position: UInt64
    }

    /// Steps that can be taken now, one for each receiver.
    public var steps: [Step] = []
    /// Survivors that nobody can complete: what they lack is in no WAL any more.
    public var incomplete: [UInt32] = []

    /// A receiver takes the source that brings it furthest, the lowest id among equals; it may need another one after that.
    public init(_ survivors: [Survivor]) {
        let furthest = survivors.map(\.position).max() ?? 0
        for receiver in survivors.sorted(by: { $0.id < $1.id }) where receiver.position < furthest {
            let sources = survivors.filter {
                $0.position > receiver.position && ($0.forwardsAfter.map { $0 <= receiver.position } ?? false)
            }
            let best = sources.max { ($0.position, $1.id) < ($1.position, $0.id) }
            if let best {
                self.steps.append(Step(receiver: receiver.id, source: best.id, position: best.position))
            } else {
                self.incomplete.append(receiver.id)
            }
        }
    }

    /// All have the same.
    public var isComplete: Bool { self.steps.isEmpty && self.incomplete.isEmpty }
}
