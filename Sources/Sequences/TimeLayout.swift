// Values that are made of the time, the node and a counter: unique in a group without asking anybody.
//
// High to low: milliseconds since an epoch, 10 bits of node, a counter. What a sequence remembers is its *state*: the same
// without the node, so that "later" is "greater".

/// How values of a kind are laid out.
public struct TimeLayout: Equatable, Sendable {
    /// Milliseconds since 1970.
    public let epoch: Int64
    public let counterBits: UInt64
    static let nodeBits: UInt64 = 10
    /// Numbers of nodes go from 1 to this one, which is written as 0.
    public static let maximumNode: Int32 = 1 << 10

    /// 42 bits of time from 2016-10-07, 12 bits of counter.
    public static let snowflakeid = TimeLayout(epoch: 1_475_798_400_000, counterBits: 12)
    /// 40 bits of time from 2016-01-01, 14 bits of counter.
    public static let timeshard = TimeLayout(epoch: 1_451_606_400_000, counterBits: 14)

    private var counterMask: UInt64 { (1 &<< self.counterBits) &- 1 }
    private var valueShift: UInt64 { self.counterBits &+ Self.nodeBits }
    /// The last millisecond whose values are not negative.
    private var lastMillisecond: UInt64 { UInt64(Int64.max) &>> self.valueShift }

    public enum Step: Equatable, Sendable {
        /// The next state.
        case next(UInt64)
        /// All of this millisecond are given out: ask again in the next one.
        case wait
        /// There is no later value.
        case exhausted
    }

    /// The state after `last` at a time of the clock. Never goes back, however the clock does: behind `last` it only counts, and
    /// goes on into the milliseconds that follow.
    /// - Parameter clock: milliseconds since 1970.
    public func step(after last: UInt64, clock: Int64) -> Step {
        let (difference, overflow) = clock.subtractingReportingOverflow(self.epoch)
        let now = overflow || difference < 0 ? 0 : UInt64(difference)
        let lastMillisecond = last &>> self.counterBits
        guard max(now, lastMillisecond) <= self.lastMillisecond else {
            return .exhausted
        }
        if now > lastMillisecond {
            return .next(now &<< self.counterBits)
        }
        let next = last &+ 1
        guard next & self.counterMask == 0 else {
            return .next(next)
        }
        // a clock that is behind won't reach that time soon, and there is nothing to wait for
        guard now < lastMillisecond else {
            return .wait
        }
        return lastMillisecond < self.lastMillisecond ? .next(next) : .exhausted
    }

    /// The time of a state, in milliseconds since the epoch.
    public func milliseconds(of state: UInt64) -> UInt64 { state &>> self.counterBits }

    /// The state with which a millisecond begins.
    public func state(at milliseconds: UInt64) -> UInt64 { milliseconds &<< self.counterBits }

    public func value(of state: UInt64, node: Int32) -> Int64 {
        let node = UInt64(UInt32(bitPattern: node)) & ((1 &<< Self.nodeBits) &- 1)
        let high = (state &>> self.counterBits) &<< self.valueShift
        return Int64(bitPattern: high | (node &<< self.counterBits) | (state & self.counterMask))
    }

    /// The last state of the millisecond of a value: whatever follows is later than all values up to this one.
    public func mark(of value: Int64) -> UInt64 {
        guard value > 0 else {
            return 0
        }
        return ((UInt64(value) &>> self.valueShift) &<< self.counterBits) | (UInt64(value) & self.counterMask)
    }

    /// What a sequence remembers on disk: that no value before this millisecond may be given out again.
    public func reservation(_ milliseconds: UInt64, node: Int32) -> Int64 {
        self.value(of: self.state(at: min(milliseconds, self.lastMillisecond)), node: node)
    }

    // MARK: Taking apart

    /// Milliseconds since 1970.
    public func time(of value: Int64) -> Int64 {
        Int64(clamping: UInt64(bitPattern: value) &>> self.valueShift) &+ self.epoch
    }

    public func node(of value: Int64) -> Int32 {
        let node = Int32(truncatingIfNeeded: (UInt64(bitPattern: value) &>> self.counterBits) & 1023)
        return node == 0 && value != 0 ? Self.maximumNode : node
    }

    public func counter(of value: Int64) -> Int32 {
        Int32(truncatingIfNeeded: UInt64(bitPattern: value) & self.counterMask)
    }

    /// The smallest value of a time, for searching; nil for a time that has none.
    public func smallest(at milliseconds: Int64) -> Int64? {
        let (difference, overflow) = milliseconds.subtractingReportingOverflow(self.epoch)
        guard !overflow, difference >= 0, UInt64(difference) <= self.lastMillisecond else {
            return nil
        }
        return Int64(bitPattern: UInt64(difference) &<< self.valueShift)
    }
}
