// What is confirmed to the sender is safe here: checked against a model that remembers everything.

import TestSupport
import Testing
import Wire

@Suite struct FeedbackQueueTests {
    @Test func nothing() {
        var queue = FeedbackQueue()
        #expect(queue.isIdle)
        #expect(queue.acknowledge(localFlushed: UInt64.max) == (0, 0, 0))
    }

    @Test func waitsForTheLocalCommit() {
        var queue = FeedbackQueue()
        queue.committed(remoteEnd: 100, localEnd: 1000)
        #expect(!queue.isIdle)
        #expect(queue.acknowledge(localFlushed: 999) == (100, 0, 100))
        #expect(!queue.isIdle)
        #expect(queue.acknowledge(localFlushed: 1000) == (100, 100, 100))
        #expect(queue.isIdle)
    }

    @Test func confirmsInTheOrderOfTheStream() {
        var queue = FeedbackQueue()
        queue.committed(remoteEnd: 100, localEnd: 1000)
        queue.committed(remoteEnd: 200, localEnd: 2000)
        queue.committed(remoteEnd: 300, localEnd: 3000)
        #expect(queue.acknowledge(localFlushed: 2500) == (300, 200, 300))
        #expect(queue.acknowledge(localFlushed: 3000) == (300, 300, 300))
    }

    /// A later transaction that is flushed does not carry an earlier one with it.
    @Test func laterOnesWaitForEarlierOnes() {
        var queue = FeedbackQueue()
        queue.committed(remoteEnd: 100, localEnd: 2000)
        queue.committed(remoteEnd: 200, localEnd: 1000)
        #expect(queue.acknowledge(localFlushed: 1500).flushed == 0)
        #expect(queue.acknowledge(localFlushed: 2000).flushed == 200)
    }

    /// Nothing was written here for it, so nothing waits, except for what came before.
    @Test func transactionsWithoutACommitRecord() {
        var queue = FeedbackQueue()
        queue.committed(remoteEnd: 100, localEnd: 0)
        #expect(queue.acknowledge(localFlushed: 0) == (100, 100, 100))
        queue.committed(remoteEnd: 200, localEnd: 5)
        queue.committed(remoteEnd: 300, localEnd: 0)
        #expect(queue.acknowledge(localFlushed: 4) == (300, 100, 300))
        #expect(queue.acknowledge(localFlushed: 5) == (300, 300, 300))
    }

    /// A keepalive moves the confirmed position only when nothing waits: else the sender would forget what is not yet
    /// on disk.
    @Test func keepalives() {
        var queue = FeedbackQueue()
        queue.received(upTo: 50)
        #expect(queue.acknowledge(localFlushed: 0) == (50, 50, 50))
        queue.committed(remoteEnd: 100, localEnd: 1000)
        queue.received(upTo: 500)
        #expect(queue.acknowledge(localFlushed: 999) == (500, 50, 100))
        #expect(queue.acknowledge(localFlushed: 1000) == (500, 500, 500))
    }

    @Test func neverGoesBack() {
        var queue = FeedbackQueue()
        queue.received(upTo: 500)
        #expect(queue.acknowledge(localFlushed: 10).flushed == 500)
        queue.received(upTo: 400)
        #expect(queue.acknowledge(localFlushed: 0) == (500, 500, 500))
        queue.committed(remoteEnd: 450, localEnd: 20)
        #expect(queue.acknowledge(localFlushed: 10) == (500, 500, 500))
        #expect(queue.acknowledge(localFlushed: 20) == (500, 500, 500))
    }

    @Test func largestPositions() {
        var queue = FeedbackQueue()
        queue.committed(remoteEnd: UInt64.max, localEnd: UInt64.max)
        #expect(queue.acknowledge(localFlushed: UInt64.max - 1) == (UInt64.max, 0, UInt64.max))
        #expect(queue.acknowledge(localFlushed: UInt64.max).flushed == UInt64.max)
    }

    /// So many that what is done is dropped from the front while others still wait.
    @Test func longQueues() {
        var queue = FeedbackQueue()
        for number in 1...5000 as ClosedRange<UInt64> {
            queue.committed(remoteEnd: number * 10, localEnd: number)
        }
        for flushed in [0, 1, 1024, 1025, 2499, 2500, 2501, 2502, 2600, 4900, 4999, 5000] as [UInt64] {
            #expect(queue.acknowledge(localFlushed: flushed) == (50_000, flushed * 10, 50_000))
            #expect(queue.isIdle == (flushed == 5000))
        }
    }

    /// Any interleaving of commits, keepalives and flushes. `burst` is the most commits in a row: long ones make the
    /// queue drop what is done from its front.
    @Test(arguments: [(1, 3), (2, 3), (3, 40), (4, 3000), (5, 3000)] as [(UInt64, Int)])
    func neverConfirmsWhatIsNotFlushed(seed: UInt64, burst: Int) {
        var random = SplitMix64(seed: seed)
        func upTo(_ bound: Int) -> UInt64 { random.next() % UInt64(bound) }
        var queue = FeedbackQueue()
        // The model: all transactions so far, and the WAL here.
        var commits: [(remote: UInt64, local: UInt64)] = []
        var confirmed = 0
        var stream: UInt64 = 100
        var localEnd: UInt64 = 5000
        var localFlushed: UInt64 = 5000
        var last: (written: UInt64, flushed: UInt64, applied: UInt64) = (0, 0, 0)
        for _ in 0..<(burst > 1000 ? 60 : 4000) {
            switch upTo(5) {
            case 0, 1:
                for _ in 0...upTo(burst) {
                    stream += 1 + upTo(50)
                    var local: UInt64 = 0
                    if upTo(10) > 0 {
                        localEnd += 1 + upTo(100)
                        local = localEnd
                    }
                    queue.committed(remoteEnd: stream, localEnd: local)
                    commits.append((stream, local))
                }
            case 2:
                stream += upTo(50)
                queue.received(upTo: stream)
            case 3:
                localFlushed = min(localEnd, localFlushed + upTo(burst * 60))
            default:
                // Other sessions of this server write WAL too.
                localEnd += upTo(200)
            }
            let now = queue.acknowledge(localFlushed: localFlushed)
            while confirmed < commits.count && commits[confirmed].local <= localFlushed {
                confirmed += 1
            }
            var wrong: String?
            if confirmed < commits.count && now.flushed >= commits[confirmed].remote {
                wrong = "confirmed what is not on disk"
            } else if confirmed > 0 && now.flushed < commits[confirmed - 1].remote {
                wrong = "didn't confirm what is on disk"
            } else if queue.isIdle != (confirmed == commits.count) {
                wrong = "idle or not, wrongly"
            } else if queue.isIdle && now.flushed != now.written {
                wrong = "waits for nothing"
            } else if now.flushed > now.applied || now.applied > now.written {
                wrong = "positions out of order"
            } else if now.written < last.written || now.flushed < last.flushed || now.applied < last.applied {
                wrong = "a position went back"
            }
            if let wrong {
                Issue.record("\(wrong): \(now), \(confirmed) of \(commits.count) on disk")
                return
            }
            last = now
        }
        #expect(commits.count > 1000)
        #expect(queue.acknowledge(localFlushed: UInt64.max).flushed == last.written)
        #expect(queue.isIdle)
    }
}
