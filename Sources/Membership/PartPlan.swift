// How a node is taken out of a group, as a state machine: which step follows which. It is run by the member on which it was
// asked for, which stores the step before it begins; each step, repeated, does what is left of it.
//
// X is the node that leaves. A live X drains: it refuses writes until every other member has confirmed what it committed. A
// dead one is parted by force: the others complete one another, and what is needed for that is kept until all have been told.

/// The steps; raw values are stored.
public enum PartStep: String, CaseIterable, Sendable {
    /// Every member that is up takes part in the lock that keeps joins and parts apart.
    case lock
    /// X refuses writes from now on.
    case announce
    /// Transactions that run on X end, and all members confirm what it committed.
    case drain
    /// It is noted who has to be told; a live X is cut off from all and leaves.
    case remove
    /// Every member, when it is up, removes X and lets go of the lock. By force: after it has all that others have of X.
    case notify
    /// What was kept for completing members is forgotten everywhere.
    case forget
}

/// Where a part stands.
public struct PartState: Equatable, Hashable, Sendable {
    public var step: PartStep
    /// X is not asked anything. May be demanded at any time, never taken back.
    public var force: Bool
    /// X was a full member: it has committed what others may lack.
    public var wasMember: Bool

    public init(step: PartStep = .lock, force: Bool, wasMember: Bool) {
        self.step = step
        self.force = force
        self.wasMember = wasMember
    }

    /// X is not waited for: it is dead, or has nothing that others need.
    public var skipsDraining: Bool { self.force || !self.wasMember }

    /// Members may have received different amounts of what X committed.
    public var mayDiffer: Bool { self.force && self.wasMember }

    /// A step about a live X that is not to be begun, or gone on with, any more.
    public var isOvertaken: Bool { self.force && (self.step == .announce || self.step == .drain) }
}

public enum PartPlan {
    /// The step after one that is done, or overtaken; nil: X has left.
    public static func next(after state: PartState) -> PartStep? {
        switch state.step {
        case .lock: state.skipsDraining ? .remove : .announce
        case .announce: state.force ? .remove : .drain
        case .drain: .remove
        case .remove: .notify
        case .notify: state.mayDiffer ? .forget : nil
        case .forget: nil
        }
    }
}
