// Which transactions of a run may be applied at the same time.
//
// All are committed in the order in which they come. A transaction may be applied before the one in front of it is committed,
// unless both change a row of the same key, or one of them changes a relation where other rows matter, too.

public import Wire

/// Takes whole transactions apart. Used again for each run, so that nothing is allocated once it has grown to the longest.
public final class Scheduler {
    /// Where the transactions begin, in bytes; and the end of the last one.
    public private(set) var starts: [UInt32] = []
    /// For each transaction, how many of the run must be committed before it is applied.
    public private(set) var after: [UInt32] = []
    /// End of the last transaction's commit record on the sending node.
    public private(set) var endLSN: UInt64 = 0

    /// The last transaction (counted from 1) that has changed a key.
    private var keys: [UInt64: Int] = [:]
    private var run: UInt64 = 0

    public init() {}

    public var count: Int { self.after.count }

    /// How many transactions wait for another one that is not committed long before: those are applied one after the other.
    public private(set) var chained = 0

    /// Reads a run of transactions.
    /// - Parameters:
    ///   - bytes: whole messages.
    ///   - progress: transactions whose commit record begins before are not for this.
    ///   - relation: what is known of a relation; nil when it isn't yet.
    /// - Returns: whether the run consists of nothing but transactions with changes of rows. Else they are not planned.
    /// - Throws: for malformed messages.
    public func plan(
        _ bytes: UnsafeRawBufferPointer, progress: UInt64, relation: (UInt32) -> RelationOrder?
    ) throws(WireError) -> Bool {
        self.starts.removeAll(keepingCapacity: true)
        self.after.removeAll(keepingCapacity: true)
        self.keys.removeAll(keepingCapacity: true)
        self.chained = 0
        self.run &+= 1
        var cursor = MessageCursor(bytes)
        var isOpen = false
        // the transaction at hand, from 1
        var number = 0
        // must be committed before it, and before every further one
        var needed = 0
        var barrier = 0
        var isAlone = false
        var known: (id: UInt32, order: RelationOrder)?

        func order(_ id: UInt32) -> RelationOrder? {
            if let known, known.id == id {
                return known.order
            }
            guard let order = relation(id) else {
                return nil
            }
            known = (id, order)
            return order
        }
        func meet(_ order: RelationOrder, _ first: TupleView, _ second: TupleView?) throws(WireError) {
            switch order.order {
            case .alone:
                isAlone = true
            case .together:
                if order.run == self.run && order.last != number {
                    needed = max(needed, order.last)
                }
                order.run = self.run
                order.last = number
            case .byKey:
                guard order.hasKey else {
                    return
                }
                try meet(key: order.hash(first))
                if let second {
                    try meet(key: order.hash(second))
                }
            }
        }
        func meet(key: UInt64?) {
            guard let key else {
                isAlone = true
                return
            }
            if let last = self.keys.updateValue(number, forKey: key), last != number {
                needed = max(needed, last)
            }
        }

        while true {
            let start = cursor.offset
            guard let (type, body) = try cursor.next() else {
                break
            }
            switch type {
            case .begin:
                let begin = try BeginMessage(decoding: body)
                guard !isOpen, begin.commitLSN >= progress, start <= UInt32.max else {
                    return false
                }
                isOpen = true
                number = self.starts.count &+ 1
                needed = barrier
                isAlone = false
                self.starts.append(UInt32(start))
            case .insert:
                let message = try InsertMessage(decoding: body)
                guard isOpen, let order = order(message.relId) else {
                    return false
                }
                try meet(order, message.tuple, nil)
            case .update:
                let message = try UpdateMessage(decoding: body)
                guard isOpen, let order = order(message.relId) else {
                    return false
                }
                try meet(order, message.new, message.old)
            case .delete:
                let message = try DeleteMessage(decoding: body)
                guard isOpen, let order = order(message.relId) else {
                    return false
                }
                try meet(order, message.old, nil)
            case .commit:
                guard isOpen else {
                    return false
                }
                isOpen = false
                if isAlone {
                    needed = number &- 1
                    barrier = number
                }
                if needed &+ 1 == number && number > 1 {
                    self.chained &+= 1
                }
                self.after.append(UInt32(clamping: needed))
                self.endLSN = try CommitMessage(decoding: body).endLSN
            default:
                return false
            }
        }
        guard !isOpen, let end = UInt32(exactly: bytes.count) else {
            return false
        }
        self.starts.append(end)
        return true
    }
}
