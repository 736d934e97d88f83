// Applying a transaction of a run: other processes apply others of it at the same time, and all commit in the order of the origin.
//
// What comes before may not be committed yet, but all that was planned to be (module Schedule) is. Where a transaction meets
// more than rows that it changes as if it were alone - a conflict, say, or a trigger - it is rolled back, and applied once more
// when it is its turn: whatever an earlier transaction would change about it has happened then. That a row which it has written
// stays as it was until its turn, the server sees to: others wait for its locks.

internal import CHost
internal import Wire

/// Of the transaction that is being applied.
struct Turn {
    let number: UInt64
    /// Everything before was committed when it began.
    let hasCome: Bool
}

/// The transaction has to be applied when it is its turn.
struct TooEarly: Error {}

extension Applier {
    /// - Parameters:
    ///   - bytes: one whole transaction.
    ///   - needed: what has to be committed before it begins.
    ///   - look: called from time to time while it waits.
    /// - Returns: whether it was applied in one go.
    func apply(_ bytes: UnsafeRawBufferPointer, turn number: UInt64, after needed: UInt64, look: () throws -> Void) throws -> Bool {
        try Self.wait(needed, look)
        let hasCome = bdr_host_turn_has_come(number)
        do {
            try self.apply(bytes, as: Turn(number: number, hasCome: hasCome))
            return true
        } catch {
            guard !hasCome else {
                throw error
            }
            if error is TooEarly {
                // nothing has failed, so what stays open for the next transaction can be closed as after a commit
                try host(bdr_host_executor_pause())
            }
        }
        try self.undo()
        try Self.wait(number, look)
        try self.apply(bytes, as: Turn(number: number, hasCome: true))
        return false
    }

    private func apply(_ bytes: UnsafeRawBufferPointer, as turn: Turn) throws {
        self.turn = turn
        bdr_host_progress_hold(!turn.hasCome)
        defer { self.turn = nil }
        var end: UInt64 = 0
        try self.apply(bytes) { _, localEnd in end = localEnd }
        bdr_host_turn_pass(turn.number, end)
    }

    private func undo() throws {
        try host(bdr_host_apply_abort())
        bdr_host_progress_hold(false)
        self.transaction = nil
        self.batch.removeAll(keepingCapacity: true)
        self.batchRelation = nil
    }

    static func wait(_ number: UInt64, _ look: () throws -> Void) throws {
        while try host(bdr_host_turn_wait(number, false)) == Int32(BDR_LOOK) {
            try look()
        }
    }

    /// To be called before the commit.
    func waitForTurn() throws {
        if let turn = self.turn, !turn.hasCome, try host(bdr_host_turn_wait(turn.number, true)) != BDR_OK {
            throw TooEarly()
        }
    }
}

/// A run as it is handed to a writer: its numbers, where the transactions begin and what they wait for, and their bytes.
struct TransactionRun {
    let first: UInt64
    let starts: UnsafeRawBufferPointer
    let after: UnsafeRawBufferPointer
    let bytes: UnsafeRawBufferPointer

    init(first: UInt64, starts: UnsafeRawBufferPointer, after: UnsafeRawBufferPointer, bytes: UnsafeRawBufferPointer) {
        self.first = first
        self.starts = starts
        self.after = after
        self.bytes = bytes
    }

    init(decoding message: UnsafeRawBufferPointer) throws {
        var reader = ByteReader(message)
        self.first = try reader.readUInt64()
        let count = Int(try reader.readUInt32())
        self.starts = try reader.readBytes((count &+ 1) &* 4)
        self.after = try reader.readBytes(count &* 4)
        self.bytes = try reader.readBytes(reader.remaining)
    }

    func encode(into buffer: FrameBuffer) throws {
        try buffer.append64(self.first)
        try buffer.append32(UInt32(clamping: self.after.count / 4))
        try buffer.append(bytes: self.starts)
        try buffer.append(bytes: self.after)
        try buffer.append(bytes: self.bytes)
    }

    var end: UInt64 { self.first &+ UInt64(self.after.count / 4) }

    /// Applies what this process can claim.
    /// - Returns: how many of the transactions had to be applied twice.
    func apply(by applier: Applier, look: () throws -> Void) throws -> Int {
        var repeated = 0
        var number: UInt64 = 0
        while bdr_host_turn_claim(self.end, &number) {
            guard number >= self.first else {
                throw BdrError(SQLSTATE.internalError, "a transaction was left behind")
            }
            let index = Int(number &- self.first)
            func word(_ list: UnsafeRawBufferPointer, _ index: Int) -> Int {
                Int(list.loadUnaligned(fromByteOffset: index &* 4, as: UInt32.self))
            }
            let from = word(self.starts, index)
            let to = word(self.starts, index &+ 1)
            guard from <= to, to <= self.bytes.count else {
                throw BdrError(SQLSTATE.internalError, "a transaction lies outside of its run")
            }
            if try !applier.apply(
                UnsafeRawBufferPointer(rebasing: self.bytes[from..<to]), turn: number,
                after: self.first &+ UInt64(word(self.after, index)), look: look)
            {
                repeated += 1
            }
        }
        return repeated
    }
}
