// When to try again after a failure: at once, then ever later, and not all peers at the same moment.

/// Delay between the attempts of one worker.
///
/// The first failure that passes by itself (a connection that broke) is retried at once. From then on the delay starts at
/// the minimum and doubles up to the maximum, and is shortened by up to a quarter by chance so that workers that failed
/// together don't return together.
public struct Backoff: Sendable {
    /// Milliseconds.
    public let minimum: Int64
    /// Milliseconds.
    public let maximum: Int64
    /// Failures since the last success.
    public private(set) var failures = 0
    /// When the next attempt is due, microseconds on the clock given to `failed`; `Int64.min` when nothing failed.
    public private(set) var nextAttempt = Int64.min

    /// Delayed failures since the last success: how often the delay has doubled.
    private var delays = 0
    private var random: UInt64

    /// - Parameters:
    ///   - minimum: first delay, milliseconds; below 1 counts as 1.
    ///   - maximum: longest delay, milliseconds; at least `minimum`, at most a day.
    ///   - seed: a random value; the same seed gives the same delays.
    public init(minimum: Int64, maximum: Int64, seed: UInt64) {
        let day: Int64 = 86_400_000
        self.minimum = min(max(1, minimum), day)
        self.maximum = min(max(self.minimum, maximum), day)
        self.random = seed
    }

    /// Notes a failure and sets `nextAttempt`.
    /// - Parameters:
    ///   - transient: it may pass by itself (`SQLState.isTransient`).
    ///   - now: current time, microseconds.
    public mutating func failed(transient: Bool, now: Int64) {
        let isFirst = self.failures == 0
        self.failures = self.failures < Int.max ? self.failures + 1 : self.failures
        guard !(transient && isFirst) else {
            self.nextAttempt = now
            return
        }
        // At most a day, so a shift by less than 32 stays far from overflow.
        let delay = min(self.maximum, self.minimum << Int64(min(self.delays, 31)))
        self.delays = min(self.delays + 1, 31)
        let microseconds = max(self.minimum * 1000, delay * 1000 - self.jitter(upTo: delay * 250))
        let (due, overflow) = now.addingReportingOverflow(microseconds)
        self.nextAttempt = overflow ? Int64.max : due
    }

    /// Notes that the work went on (a transaction was applied, not just a connection made): the next failure is a first one.
    public mutating func succeeded() {
        self.failures = 0
        self.delays = 0
        self.nextAttempt = Int64.min
    }

    /// Whether the next attempt is due. A clock that was set back makes nobody wait for longer than the maximum.
    /// - Parameter now: current time, microseconds.
    public func isDue(now: Int64) -> Bool {
        self.remaining(now: now) == 0
    }

    /// Milliseconds to wait, rounded up; 0 when the next attempt is due.
    /// - Parameter now: current time, microseconds.
    public func remaining(now: Int64) -> Int64 {
        guard self.nextAttempt > now else {
            return 0
        }
        let (wait, overflow) = self.nextAttempt.subtractingReportingOverflow(now)
        return !overflow && wait <= self.maximum * 1000 ? (wait + 999) / 1000 : 0
    }

    /// The next value of a SplitMix64 sequence, from 0 up to, not including, `bound`.
    private mutating func jitter(upTo bound: Int64) -> Int64 {
        self.random = self.random &+ 0x9e37_79b9_7f4a_7c15
        var mixed = self.random
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        mixed ^= mixed >> 31
        return Int64(clamping: mixed % UInt64(clamping: max(1, bound)))
    }
}
