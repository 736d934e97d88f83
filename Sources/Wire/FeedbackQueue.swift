// Which position of the origin may be confirmed to it.
//
// Transactions are committed here without waiting for the disk. A position is confirmed as flushed only when the commit
// records of everything before it are on disk here: what the origin believes safe, it forgets.

/// Remote positions waiting for their local commit records to be flushed, in the order of the stream.
public struct FeedbackQueue {
    private struct Entry {
        var remoteEnd: UInt64
        var localEnd: UInt64
    }

    private var entries: [Entry] = []
    /// Entries before this one are done; they are removed now and then, all at once.
    private var first = 0
    private var receivedEnd: UInt64 = 0
    private var appliedEnd: UInt64 = 0
    private var flushedEnd: UInt64 = 0

    public init() {}

    /// Nothing waits for the local disk.
    public var isIdle: Bool { self.first == self.entries.count }

    /// A remote transaction was committed here.
    /// - Parameters:
    ///   - remoteEnd: end of its commit record on the sending node.
    ///   - localEnd: end of the commit record here; 0 when there is none to wait for.
    public mutating func committed(remoteEnd: UInt64, localEnd: UInt64) {
        self.entries.append(Entry(remoteEnd: remoteEnd, localEnd: localEnd))
        self.appliedEnd = max(self.appliedEnd, remoteEnd)
        self.receivedEnd = max(self.receivedEnd, remoteEnd)
    }

    /// Everything before a position of the sending node has arrived, and is either in the queue or needs nothing done.
    public mutating func received(upTo position: UInt64) {
        self.receivedEnd = max(self.receivedEnd, position)
    }

    /// Removes what is flushed.
    /// - Parameter localFlushed: end of the local WAL that is on disk.
    /// - Returns: positions to report; none of them ever goes back.
    public mutating func acknowledge(localFlushed: UInt64) -> (written: UInt64, flushed: UInt64, applied: UInt64) {
        while self.first < self.entries.count && self.entries[self.first].localEnd <= localFlushed {
            self.flushedEnd = max(self.flushedEnd, self.entries[self.first].remoteEnd)
            self.first += 1
        }
        if self.first == self.entries.count {
            self.entries.removeAll(keepingCapacity: self.first <= 4096)
            self.first = 0
            self.flushedEnd = max(self.flushedEnd, self.receivedEnd)
            self.appliedEnd = max(self.appliedEnd, self.receivedEnd)
        } else if self.first > 1024 && self.first > self.entries.count / 2 {
            self.entries.removeFirst(self.first)
            self.first = 0
        }
        return (self.receivedEnd, self.flushedEnd, self.appliedEnd)
    }
}
