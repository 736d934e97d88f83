// How ranges of values are granted to nodes, so that no value is granted twice.
//
// Each node keeps one number for each sequence: the highest value that it has said yes to, or knows to be used. A node that
// needs a range asks others for it; whoever is asked says yes if the range is above its number, and raises the number to the end
// of the range before it answers. A range is granted when a majority of all members has said yes.
//
// Two ranges that are granted have a voter in common, as two majorities do. It said yes to one of them first, and then only to
// ranges above that one, but for the same node. So no value is in ranges of two nodes, whatever is lost, repeated or late, and whoever crashes: a yes that nobody
// counted only leaves values unused. Numbers only grow, and are on disk before they are told.
//
// A member counts from when it has a record on the others, and votes only once it has taken over the numbers of a majority of the
// other members (see Learning): then it knows of each range that was granted without it. A majority of n members and one of n + 1
// have one in common, too.

/// A node's number for one sequence, and which range it said yes to last: it says so again to the same node, so that a node that
/// asks again after it found no majority does not leave values unused each time. A node may be granted a range twice, and has
/// it once.
public struct Voter: Hashable, Sendable {
    public private(set) var highest: Int64
    /// Where the range begins that ends at `highest`, and who asked for it; nil when it is known from others.
    public private(set) var last: Yes?

    public struct Yes: Hashable, Sendable {
        public var first: Int64
        public var node: UInt32

        public init(first: Int64, node: UInt32) {
            self.first = first
            self.node = node
        }
    }

    public init(highest: Int64, last: Yes? = nil) {
        self.highest = highest
        self.last = last
    }

    /// What this node says to another one that asks for a range.
    /// - Returns: nil for yes, else the value above which it is to ask.
    public mutating func answer(first: Int64, last: Int64, to node: UInt32) -> Int64? {
        guard last >= first else {
            return self.highest
        }
        if first > self.highest {
            self.highest = last
            self.last = Yes(first: first, node: node)
            return nil
        }
        guard let yes = self.last, yes.node == node, first <= yes.first else {
            return self.highest
        }
        if first < yes.first {
            return yes.first - 1
        }
        return last <= self.highest ? nil : self.highest
    }

    public mutating func learn(_ highest: Int64) {
        if highest > self.highest {
            self.highest = highest
            self.last = nil
        }
    }
}

public enum Learning {
    /// Of how many of the other members a new voter has to know the numbers: their majority.
    public static func required(others: Int) -> Int { others > 0 ? others / 2 + 1 : 0 }
}

/// A node's attempt to get a range. Members are asked one by one, always in the same order, so that of several nodes that ask
/// for the same range all but one are turned away by the first member that is there.
public struct Proposal: Hashable, Sendable {
    public enum Step: Hashable, Sendable {
        case ask(member: UInt32, first: Int64, last: Int64)
        case granted(first: Int64, last: Int64)
        case noMajority
        /// The sequence has no value above.
        case exhausted
    }

    public enum Answer: Hashable, Sendable {
        /// members: how many there are, as that node knows.
        case yes(members: Int)
        case no(highest: Int64, members: Int)
        /// None came, or the node may not vote yet.
        case none
    }

    private let members: [UInt32]
    private let size: Int64
    private let maximum: Int64
    private var first: Int64
    private var isExhausted = false
    private var asked = 0
    private var votes = 0
    private var needed: Int

    /// - Parameters:
    ///   - members: all of the group, this node too.
    ///   - above: the range is to be above it.
    ///   - maximum: where the sequence ends.
    public init(members: [UInt32], size: Int64, above: Int64, maximum: Int64) {
        self.members = members.sorted()
        self.size = max(1, size)
        self.maximum = maximum
        self.needed = members.count / 2 + 1
        self.first = above
        self.begin(above: above)
    }

    private mutating func begin(above: Int64) {
        self.isExhausted = above >= self.maximum
        self.first = self.isExhausted ? above : above + 1
        self.asked = 0
        self.votes = 0
    }

    private var last: Int64 {
        let (last, overflow) = self.first.addingReportingOverflow(self.size - 1)
        return overflow ? self.maximum : min(last, self.maximum)
    }

    public var step: Step {
        if self.isExhausted {
            return .exhausted
        }
        if self.votes >= self.needed {
            return .granted(first: self.first, last: self.last)
        }
        guard self.asked < self.members.count else {
            return .noMajority
        }
        return .ask(member: self.members[self.asked], first: self.first, last: self.last)
    }

    /// What the member said that `step` told to ask.
    public mutating func take(_ answer: Answer) {
        self.asked += 1
        switch answer {
        case .yes(let members):
            self.needed = max(self.needed, members / 2 + 1)
            self.votes += 1
        case .no(let highest, let members):
            self.needed = max(self.needed, members / 2 + 1)
            self.begin(above: max(highest, self.first - 1))
        case .none:
            break
        }
    }
}
