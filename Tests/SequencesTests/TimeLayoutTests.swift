import Sequences
import Testing

@Suite struct TimeLayoutTests {
    static let layouts: [TimeLayout] = [.snowflakeid, .timeshard]
    /// 2026-01-01.
    static let clock: Int64 = 1_767_225_600_000

    @Test(arguments: layouts) func partsComeBack(_ layout: TimeLayout) throws {
        guard case .next(let state) = layout.step(after: 0, clock: Self.clock),
            case .next(let second) = layout.step(after: state, clock: Self.clock)
        else {
            Issue.record("no value")
            return
        }
        for node: Int32 in [1, 2, 511, 1023, 1024] {
            let value = layout.value(of: second, node: node)
            #expect(layout.time(of: value) == Self.clock)
            #expect(layout.node(of: value) == node)
            #expect(layout.counter(of: value) == 1)
            #expect(layout.mark(of: value) == second)
            let smallest = try #require(layout.smallest(at: Self.clock))
            #expect(value > smallest)
            #expect(layout.time(of: smallest) == Self.clock)
        }
    }

    @Test func knownValues() {
        #expect(TimeLayout.snowflakeid.smallest(at: 1_475_798_400_000) == 0)
        #expect(TimeLayout.snowflakeid.smallest(at: 1_475_798_400_001) == 1 << 22)
        #expect(TimeLayout.timeshard.smallest(at: 1_451_606_400_001) == 1 << 24)
        #expect(TimeLayout.snowflakeid.smallest(at: 0) == nil)
    }

    @Test(arguments: layouts) func aMillisecondIsNotLeftBeforeTheClockDoes(_ layout: TimeLayout) {
        var state: UInt64 = 0
        var given = 0
        while case .next(let next) = layout.step(after: state, clock: Self.clock) {
            #expect(next > state)
            state = next
            given += 1
        }
        #expect(given == 1 << Int(layout.counterBits))
        #expect(layout.step(after: state, clock: Self.clock) == .wait)
        #expect(layout.step(after: state, clock: Self.clock + 1) == .next(state + 1))
    }

    @Test(arguments: layouts) func neverGoesBackWithTheClock(_ layout: TimeLayout) {
        var clock = Self.clock
        var state: UInt64 = 0
        var seed: UInt64 = 1
        for _ in 0..<100_000 {
            seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            clock += seed >> 40 & 1023 == 0 ? -60_000 : Int64(seed >> 60 & 1)
            if case .next(let next) = layout.step(after: state, clock: clock) {
                #expect(next > state)
                state = next
            }
        }
        // a counter that runs over behind the clock goes on into the next millisecond
        let full = layout.state(at: layout.milliseconds(of: state) + 1) - 1
        #expect(layout.step(after: full, clock: clock - 3_600_000) == .next(full + 1))
    }

    @Test(arguments: layouts) func aReservationCoversWhatIsBeforeIt(_ layout: TimeLayout) {
        guard case .next(let state) = layout.step(after: 0, clock: Self.clock) else {
            Issue.record("no value")
            return
        }
        let until = layout.milliseconds(of: state) + 2000
        let stored = layout.reservation(until, node: 7)
        // after a crash, with any clock
        for clock in [0, Self.clock - 86_400_000, Self.clock, Self.clock + 1999, Self.clock + 2000] {
            guard case .next(let next) = layout.step(after: layout.mark(of: stored), clock: clock) else {
                Issue.record("no value")
                continue
            }
            #expect(next > layout.state(at: until) - 1)
            #expect(layout.value(of: next, node: 7) > stored)
        }
    }

    @Test(arguments: layouts) func ends(_ layout: TimeLayout) {
        #expect(layout.step(after: 0, clock: Int64.max) == .exhausted)
        #expect(layout.step(after: UInt64.max, clock: Self.clock) == .exhausted)
        #expect(layout.mark(of: -1) == 0)
        #expect(layout.step(after: layout.mark(of: Int64.max), clock: 0) != .wait)
    }
}

@Suite struct KSUUIDTests {
    static let times: [Int64] = [-1_000_000_000_000, 0, 1, 2, 820_454_400_000_000, 820_454_400_000_001]

    @Test func timesComeBackAndSort() {
        for random in [0, UInt64.max, 0x1234_5678_9abc_def0] {
            for time in Self.times {
                #expect(KSUUID.time2(KSUUID.version2(time, random: random)) == time)
                #expect(KSUUID.time1(KSUUID.version1(time, random: random)) == time)
            }
        }
        for (earlier, later) in zip(Self.times, Self.times.dropFirst()) {
            #expect(KSUUID.compare2(KSUUID.version2(earlier, random: .max), KSUUID.version2(later, random: 0)) == -1)
            #expect(KSUUID.compare1(KSUUID.version1(earlier, random: .max), KSUUID.version1(later, random: 0)) == -1)
            #expect(KSUUID.compare1(KSUUID.version1(later, random: 0), KSUUID.version1(earlier, random: .max)) == 1)
        }
        let same = KSUUID.version1(5, random: 9)
        #expect(KSUUID.compare1(same, same) == 0)
        #expect(same[6] >> 4 == 1 && same[8] >> 6 == 2)
    }

    @Test func othersHaveNoTime() {
        #expect(KSUUID.time1([UInt8](repeating: 0x44, count: 16)) == nil)
        #expect(KSUUID.time2([]) == nil)
        #expect(KSUUID.time1([1]) == nil)
    }
}
