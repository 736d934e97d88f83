// How long a worker waits between attempts.

import Membership
import Testing

@Suite struct BackoffTests {
    /// Delays in microseconds that follow failures, each of them at the moment when the one before was waited for.
    static func delays(_ backoff: inout Backoff, transient: Bool, count: Int) -> [Int64] {
        var now: Int64 = 0
        return (0..<count).map { _ in
            backoff.failed(transient: transient, now: now)
            let delay = backoff.nextAttempt - now
            now = backoff.nextAttempt
            return delay
        }
    }

    @Test func isDueBeforeAnyFailure() {
        let backoff = Backoff(minimum: 100, maximum: 1000, seed: 1)
        #expect(backoff.failures == 0)
        for now in [Int64.min, -1, 0, 1, Int64.max] {
            #expect(backoff.isDue(now: now))
            #expect(backoff.remaining(now: now) == 0)
        }
    }

    @Test func firstTransientFailureIsRetriedAtOnce() {
        var backoff = Backoff(minimum: 100, maximum: 1000, seed: 1)
        backoff.failed(transient: true, now: 5_000_000)
        #expect(backoff.failures == 1)
        #expect(backoff.nextAttempt == 5_000_000)
        #expect(backoff.isDue(now: 5_000_000))
        backoff.failed(transient: true, now: 5_000_000)
        #expect(backoff.nextAttempt == 5_100_000)
        #expect(!backoff.isDue(now: 5_099_999))
        #expect(backoff.isDue(now: 5_100_000))
    }

    @Test func otherFirstFailureWaitsForTheMinimum() {
        var backoff = Backoff(minimum: 100, maximum: 1000, seed: 1)
        backoff.failed(transient: false, now: 0)
        #expect(backoff.nextAttempt == 100_000)
    }

    /// Doubles up to the cap; chance takes away less than a quarter and never goes below the minimum.
    @Test(arguments: [UInt64(0), 1, 42, UInt64.max]) func grows(seed: UInt64) {
        for transient in [true, false] {
            var backoff = Backoff(minimum: 100, maximum: 5000, seed: seed)
            var delays = Self.delays(&backoff, transient: transient, count: 40)
            #expect(backoff.failures == 40)
            if transient {
                #expect(delays.removeFirst() == 0)
            }
            var full: Int64 = 100_000
            for delay in delays {
                #expect(delay <= full)
                #expect(delay >= max(100_000, full - full / 4))
                full = min(full * 2, 5_000_000)
            }
        }
    }

    @Test func jitterSpreadsWorkersThatFailTogether() {
        var last: Set<Int64> = []
        for seed in UInt64(0)..<100 {
            var backoff = Backoff(minimum: 100, maximum: 5000, seed: seed)
            last.insert(Self.delays(&backoff, transient: true, count: 10)[9])
        }
        #expect(last.count > 95)
    }

    @Test func sameSeedGivesSameDelays() {
        var first = Backoff(minimum: 10, maximum: 5000, seed: 7)
        var second = Backoff(minimum: 10, maximum: 5000, seed: 7)
        #expect(
            Self.delays(&first, transient: false, count: 20) == Self.delays(&second, transient: false, count: 20))
    }

    @Test func successStartsAnew() {
        var backoff = Backoff(minimum: 100, maximum: 5000, seed: 3)
        _ = Self.delays(&backoff, transient: true, count: 10)
        backoff.succeeded()
        #expect(backoff.failures == 0)
        #expect(backoff.isDue(now: Int64.min))
        backoff.failed(transient: true, now: 0)
        #expect(backoff.nextAttempt == 0)
        backoff.failed(transient: true, now: 0)
        #expect(backoff.nextAttempt == 100_000)
    }

    @Test func remainingIsRoundedUp() {
        var backoff = Backoff(minimum: 100, maximum: 100, seed: 3)
        backoff.failed(transient: false, now: 0)
        #expect(backoff.remaining(now: 0) == 100)
        #expect(backoff.remaining(now: 1) == 100)
        #expect(backoff.remaining(now: 99_001) == 1)
        #expect(backoff.remaining(now: 99_999) == 1)
        #expect(backoff.remaining(now: 100_000) == 0)
        #expect(backoff.remaining(now: Int64.max) == 0)
    }

    /// Set back by hours, or to before all times: nobody waits for those hours.
    @Test func clockSetBack() {
        var backoff = Backoff(minimum: 100, maximum: 1000, seed: 3)
        let now: Int64 = 7_200_000_000
        for _ in 0..<5 {
            backoff.failed(transient: false, now: now)
        }
        for back: Int64 in [1, 1000, 1_000_000, 3_600_000_000, now] {
            #expect(backoff.remaining(now: now - back) <= 1000)
        }
        #expect(backoff.isDue(now: 0))
        #expect(backoff.isDue(now: Int64.min))
    }

    @Test func extremeClocksAndSettingsDoNotOverflow() {
        for (minimum, maximum) in [
            (Int64.min, Int64.min), (0, 0), (-5, 10), (Int64.max, Int64.max), (1, Int64.max), (1000, 10),
        ] as [(Int64, Int64)] {
            for now in [Int64.min, 0, Int64.max] {
                var backoff = Backoff(minimum: minimum, maximum: maximum, seed: UInt64.max)
                #expect(1 <= backoff.minimum && backoff.minimum <= backoff.maximum)
                #expect(backoff.maximum <= 86_400_000)
                for _ in 0..<70 {
                    backoff.failed(transient: true, now: now)
                    #expect(backoff.nextAttempt >= now)
                    let remaining = backoff.remaining(now: now)
                    #expect(0 <= remaining && remaining <= backoff.maximum)
                }
            }
        }
    }
}
