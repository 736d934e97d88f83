// Turns one node's committed transactions into the stream for one peer.
//
// BEGIN is written with the first change of a transaction, so that empty transactions cost nothing. A frame is written when
// it is full and at every commit.

internal import CHost
internal import Wire

final class Encoder {
    let negotiation: Negotiation
    let identity: LocalIdentity
    private let frames: FrameWriter
    private let rows: RowEncoder
    private var started = false

    private var relations: [Int32: OutputRelation] = [:]
    /// The relation of the last change: most changes follow one of the same table.
    private var lastNumber: Int32 = 0
    private var lastRelation: OutputRelation?

    /// The transaction at hand, until its first change is written.
    private var pendingBegin: PendingBegin?
    private var begun = false

    /// A piece of a transaction in progress is made: which one's.
    private var streamed: UInt32?

    private struct PendingBegin {
        var xid: UInt32
        var commitLSN: UInt64
        var commitTime: Int64
        var originLSN: UInt64
    }

    init(negotiation: Negotiation, identity: LocalIdentity, output: UnsafeMutableRawPointer) {
        self.negotiation = negotiation
        self.identity = identity
        self.rows = RowEncoder(nodes: identity.nodes)
        self.frames = FrameWriter(output: output, maxFrame: negotiation.maxFrame)
    }

    // MARK: Transactions

    func begin(xid: UInt32, commitLSN: UInt64, commitTime: Int64, originLSN: UInt64) {
        self.begun = false
        self.pendingBegin = PendingBegin(xid: xid, commitLSN: commitLSN, commitTime: commitTime, originLSN: originLSN)
    }

    /// Writes what has to precede a change.
    private func start() throws {
        if !self.started {
            try self.write(self.negotiation.startupMessage(self.identity))
            self.started = true
        }
    }

    @inline(__always)
    private func beginTransaction() throws {
        if !self.begun {
            try self.writeBegin()
        }
    }

    private func writeBegin() throws {
        try self.start()
        if let streamed = self.streamed {
            try self.write(StreamStartMessage(xid: streamed))
            self.begun = true
            return
        }
        guard let begin = self.pendingBegin else {
            throw BdrError(SQLSTATE.internalError, "a change was decoded outside of a transaction")
        }
        // rows that came here by other replication entered the group here
        let forwarded = self.identity.forwarded
        try self.write(
            BeginMessage(
                commitLSN: begin.commitLSN, commitTime: begin.commitTime, xid: begin.xid,
                originNode: forwarded?.node ?? self.identity.nodeID,
                originLSN: forwarded == nil ? 0 : begin.originLSN))
        self.begun = true
        self.pendingBegin = nil
    }

    /// - Returns: whether anything of the transaction was written.
    func commit(commitLSN: UInt64, endLSN: UInt64, commitTime: Int64) throws -> Bool {
        self.pendingBegin = nil
        guard self.begun else {
            return false
        }
        self.begun = false
        try self.write(CommitMessage(commitLSN: commitLSN, endLSN: endLSN, commitTime: commitTime))
        try self.frames.flush()
        return true
    }

    // MARK: Transactions in progress

    func streamStart(xid: UInt32) {
        self.begun = false
        self.streamed = xid
    }

    func subtransaction(xid: UInt32) throws {
        try self.beginTransaction()
        try self.write(SubtransactionMessage(xid: xid))
    }

    func streamStop() throws {
        self.streamed = nil
        guard self.begun else {
            return
        }
        self.begun = false
        try self.write(StreamStopMessage())
        try self.frames.flush()
    }

    func streamAbort(xid: UInt32, subxid: UInt32) throws {
        try self.write(StreamAbortMessage(xid: xid, subxid: subxid))
        try self.frames.flush()
    }

    func streamCommit(xid: UInt32, commitLSN: UInt64, endLSN: UInt64, commitTime: Int64) throws {
        try self.write(StreamCommitMessage(xid: xid, commitLSN: commitLSN, endLSN: endLSN, commitTime: commitTime))
        try self.frames.flush()
    }

    // MARK: Relations

    /// Describes a relation under a new number, and forgets the one it replaces (0: none).
    func relation(_ number: Int32, replacing old: Int32, _ description: BdrRelationDesc) throws {
        self.forget(old)
        let (relation, message) = try OutputRelation.describe(number, description, self.negotiation)
        try self.beginTransaction()
        try self.write(message)
        self.relations[number] = relation
    }

    func forget(_ number: Int32) {
        self.relations[number] = nil
        if self.lastNumber == number {
            self.lastNumber = 0
            self.lastRelation = nil
        }
    }

    @inline(__always)
    private func relation(_ number: Int32) throws -> OutputRelation {
        if number == self.lastNumber, let relation = self.lastRelation {
            return relation
        }
        guard let relation = self.relations[number] else {
            throw BdrError(SQLSTATE.internalError, "a change names relation number \(number), which was not described")
        }
        self.lastNumber = number
        self.lastRelation = relation
        return relation
    }

    // MARK: Changes

    func change(_ change: BdrChange) throws {
        let relation = try self.relation(change.relation)
        try self.beginTransaction()
        switch change.action {
        case Int32(BDR_INSERT):
            try self.insert(change, relation)
        case Int32(BDR_UPDATE):
            try self.update(change, relation)
        case Int32(BDR_DELETE):
            try self.delete(change, relation)
        default:
            throw BdrError(SQLSTATE.internalError, "unknown kind of change \(change.action)")
        }
        if self.frames.isFull {
            try self.frames.flush()
        }
    }

    @inline(__always)
    private func insert(_ change: BdrChange, _ relation: OutputRelation) throws {
        let row = try self.rows.encode(
            relation, change.relation_handle, old: nil, keysOnly: false, new: change.new_tuple)
        guard let new = row.new else {
            throw Self.incomplete("INSERT", relation)
        }
        try self.frames.message(.insert, bodyLength: 4 + new.length) {
            try self.frames.buffer.append32(UInt32(bitPattern: change.relation))
            try new.write(to: self.frames)
        }
    }

    private func update(_ change: BdrChange, _ relation: OutputRelation) throws {
        guard relation.identity != .none else {
            throw Self.unidentified("UPDATE", relation)
        }
        let full = relation.identity == .full
        let row = try self.rows.encode(
            relation, change.relation_handle, old: change.old_tuple, keysOnly: !full, new: change.new_tuple)
        guard let new = row.new else {
            throw Self.incomplete("UPDATE", relation)
        }
        try self.frames.message(.update, bodyLength: 4 + 1 + (row.old?.length ?? 0) + new.length) {
            try self.frames.buffer.append32(UInt32(bitPattern: change.relation))
            try self.frames.buffer.append(UInt8(ascii: row.old == nil ? "N" : full ? "O" : "K"))
            try row.old?.write(to: self.frames)
            try new.write(to: self.frames)
        }
    }

    private func delete(_ change: BdrChange, _ relation: OutputRelation) throws {
        guard relation.identity != .none else {
            throw Self.unidentified("DELETE", relation)
        }
        let full = relation.identity == .full
        let row = try self.rows.encode(
            relation, change.relation_handle, old: change.old_tuple, keysOnly: !full, new: nil)
        guard let old = row.old else {
            throw Self.unidentified("DELETE", relation)
        }
        try self.frames.message(.delete, bodyLength: 4 + 1 + old.length) {
            try self.frames.buffer.append32(UInt32(bitPattern: change.relation))
            try self.frames.buffer.append(UInt8(ascii: full ? "O" : "K"))
            try old.write(to: self.frames)
        }
    }

    func truncate(_ numbers: UnsafeBufferPointer<Int32>, cascade: Bool, restartIdentity: Bool) throws {
        try self.beginTransaction()
        try self.write(
            TruncateMessage(
                cascade: cascade, restartIdentity: restartIdentity, relIds: numbers.map { UInt32(bitPattern: $0) }))
        if self.frames.isFull {
            try self.frames.flush()
        }
    }

    /// - Parameter content: lives as long as the callback.
    func message(transactional: Bool, lsn: UInt64, prefix: String, content: UnsafeRawBufferPointer) throws {
        if transactional {
            try self.beginTransaction()
        } else {
            try self.start()
        }
        let prefixBytes = Array(prefix.utf8)
        guard let prefixLength = UInt16(exactly: prefixBytes.count), let length = UInt32(exactly: content.count) else {
            throw BdrError(SQLSTATE.programLimitExceeded, "a logical decoding message is too large to be replicated")
        }
        try self.frames.message(.message, bodyLength: 1 + 8 + 2 + prefixBytes.count + 4 + content.count) {
            try self.frames.buffer.append(transactional ? 1 : 0 as UInt8)
            try self.frames.buffer.append64(lsn)
            try self.frames.buffer.append16(prefixLength)
            try prefixBytes.withUnsafeBytes { try self.frames.buffer.append(bytes: $0) }
            try self.frames.buffer.append32(length)
            try self.frames.append(content)
        }
        if !transactional || self.frames.isFull {
            try self.frames.flush()
        }
    }

    private func write(_ message: some WireMessage) throws {
        let start = self.frames.buffer.count
        do {
            try message.encode(into: self.frames.buffer)
        } catch {
            self.frames.buffer.truncate(to: start)
            throw error
        }
    }

    // MARK: Errors

    /// Such a statement is refused where it runs; should one be in the WAL all the same, stopping is the only way to keep the
    /// nodes equal.
    private static func unidentified(_ operation: String, _ relation: OutputRelation) -> BdrError {
        BdrError(
            SQLSTATE.objectNotInPrerequisiteState,
            "\(operation) of table \"\(relation.qualifiedName)\" can't be replicated: its rows have no replica identity",
            detail: "The table had neither a usable primary key nor another replica identity when the row was changed.",
            hint: "Advance the replication slot past this transaction and repeat the change on the peer by hand. Give "
                + "the table a primary key, or ALTER TABLE ... REPLICA IDENTITY FULL.")
    }

    private static func incomplete(_ operation: String, _ relation: OutputRelation) -> BdrError {
        BdrError(SQLSTATE.dataCorrupted, "\(operation) of table \"\(relation.qualifiedName)\" has no row in the WAL")
    }
}
