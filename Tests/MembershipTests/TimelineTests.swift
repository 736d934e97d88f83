import Testing

@testable import Membership

@Suite struct TimelineTests {
    @Test func readsHistoryFiles() {
        let text = "1\t0/3000148\tno recovery target specified\n\n# comment\n2\t1/A0\tbefore 2000-01-01 00:00:00+00\n"
        #expect(
            TimelineHistory.parse(text) == [
                TimelineSwitch(timeline: 1, end: 0x300_0148), TimelineSwitch(timeline: 2, end: 0x1_0000_00A0),
            ])
        #expect(TimelineHistory.parse("") == [])
        #expect(TimelineHistory.parse("3 0/1") == [TimelineSwitch(timeline: 3, end: 1)])
    }

    @Test(arguments: ["one 0/1 x", "1", "1 0", "1 0/x y", "1 /1 y", "4294967296 0/1 y", "1 0/100000000 y", "1 0/1/1 y", "-1 0/1 y"])
    func refusesOtherText(text: String) {
        #expect(TimelineHistory.parse(text) == nil)
    }

    private let history = [TimelineSwitch(timeline: 1, end: 100), TimelineSwitch(timeline: 2, end: 200)]

    private func judge(_ known: UInt32?, _ current: UInt32, _ progress: UInt64, end: UInt64 = 1000) -> Continuation {
        Continuation.judge(known: known, current: current, history: self.history, progress: progress, end: end)
    }

    @Test func goesOnWithTheSameTimeline() {
        #expect(judge(3, 3, 0) == .possible)
        #expect(judge(3, 3, 1000) == .possible)
        #expect(judge(nil, 3, 1000) == .possible)
        #expect(judge(3, 3, 1001) == .beyondEnd)
        #expect(judge(nil, 3, 1001) == .beyondEnd)
    }

    @Test func goesOnWithALaterTimelineThatHasWhatWasApplied() {
        #expect(judge(1, 3, 100) == .possible)
        #expect(judge(2, 3, 200) == .possible)
        #expect(judge(1, 3, 50, end: 40) == .beyondEnd)
    }

    @Test func refusesATimelineThatBeganEarlier() {
        #expect(judge(1, 3, 101) == .left(end: 100))
        #expect(judge(2, 3, 201) == .left(end: 200))
        #expect(judge(1, 3, 1001) == .left(end: 100))
    }

    @Test func refusesAnotherLine() {
        #expect(judge(3, 2, 0) == .unrelated)
        #expect(judge(4, 5, 0) == .unrelated)
        #expect(judge(7, 3, 0) == .unrelated)
    }
}
