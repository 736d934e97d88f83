// The leader's side of writers: hands them the pieces of transactions in progress, one for each transaction, or runs of small
// transactions, which all of them apply together.

internal import CHost
internal import Wire

final class StreamWriters {
    private let settings: ApplySettings
    private let limit: Int
    private var writers: [Writer] = []
    /// Descriptions of relations as they came, for writers that are started later.
    private var descriptions: [UInt32: [UInt8]] = [:]
    /// The transaction whose piece is being received, and where in the bytes at hand its changes begin.
    private var open: (xid: UInt32, from: Int)?
    /// The server had no room for one more.
    private var hasNoMore = false
    /// How long a lock is waited for while transactions are in progress, and a writer for one while others are, ms: they may
    /// wait for one another, by a unique index that their origin does not have, without a deadlock that the server could see.
    private static let patience: Int32 = 10_000
    /// Called from time to time while a writer is waited for.
    var whileWaiting: () throws -> Void = {}

    private final class Writer {
        let handle: OpaquePointer
        /// nil: it is idle.
        var xid: UInt32?

        init(_ handle: OpaquePointer) {
            self.handle = handle
        }
    }

    /// A queue takes no larger messages.
    private static let pieceLimit = 512 << 20

    /// - Parameter limit: of writers.
    init(settings: ApplySettings, limit: Int) {
        self.settings = settings
        self.limit = limit
    }

    /// Takes a message that belongs to a piece. Changes are handed over when the piece or the bytes end.
    /// - Parameter place: of the message in `bytes`.
    /// - Returns: false: it is for the leader. Descriptions of relations inside a piece are for both.
    func take(
        _ type: MessageType, _ body: UnsafeRawBufferPointer, _ bytes: UnsafeRawBufferPointer, _ place: Range<Int>
    ) throws -> Bool {
        switch type {
        case .streamStart:
            guard self.open == nil else {
                throw BdrError(SQLSTATE.protocolViolation, "a piece of a transaction began inside another one")
            }
            let xid = try StreamStartMessage(decoding: body).xid
            _ = try self.writer(of: xid, body)
            self.open = (xid, place.upperBound)
            return true
        case .streamStop:
            guard let open = self.open else {
                throw BdrError(SQLSTATE.protocolViolation, "a piece of a transaction ended that had not begun")
            }
            self.open = nil
            try self.handOver(open.xid, bytes, open.from..<place.lowerBound)
            return true
        case .relation:
            let whole = UnsafeRawBufferPointer(rebasing: bytes[place])
            self.descriptions[try RelationMessage(decoding: body).relId] = Array(whole)
            for writer in self.writers where writer.xid == nil || writer.xid != self.open?.xid {
                try self.send(writer, BDR_STREAM_RELATIONS, whole)
            }
            return self.open != nil
        default:
            return self.open != nil
        }
    }

    /// The bytes are about to be reused.
    func endOfBytes(_ bytes: UnsafeRawBufferPointer) throws {
        if let open = self.open {
            try self.handOver(open.xid, bytes, open.from..<bytes.count)
            self.open = (open.xid, 0)
        }
    }

    func abort(_ message: StreamAbortMessage) throws {
        guard let writer = self.writers.first(where: { $0.xid == message.xid }) else {
            // of a transaction that was sent before this stream began
            return
        }
        let buffer = FrameBuffer(limit: 64)
        try buffer.append32(message.xid)
        try buffer.append32(message.subxid)
        try self.send(writer, BDR_STREAM_ABORT, buffer.bytes)
        if message.subxid == message.xid {
            self.ended(writer)
        }
    }

    /// - Returns: end of the local commit record; nil when the transaction is not known.
    func commit(_ message: StreamCommitMessage) throws -> UInt64? {
        guard let writer = self.writers.first(where: { $0.xid == message.xid }) else {
            throw BdrError(SQLSTATE.protocolViolation, "the end of a transaction in progress arrived, of which nothing has come")
        }
        let buffer = FrameBuffer(limit: 64)
        try buffer.append32(message.xid)
        try buffer.append64(message.commitLSN)
        try buffer.append64(message.endLSN)
        try buffer.append64(message.commitTime)
        try self.send(writer, BDR_STREAM_COMMIT, buffer.bytes)
        let end = try self.wait(writer, for: BDR_WRITER_DONE)
        self.ended(writer)
        return end
    }

    /// Ends all writers, and with them what they have not committed.
    func stop() {
        for writer in self.writers {
            _ = bdr_host_writer_stop(writer.handle)
        }
        self.writers = []
        self.open = nil
        bdr_host_turns_end()
        bdr_host_lock_timeout(0)
    }

    // MARK: Small transactions

    /// Sees to it that there are idle writers.
    /// - Returns: how many there are.
    func prepare(_ count: Int) throws -> Int {
        try self.ofRun {
            while !self.hasNoMore && self.writers.count < count {
                self.hasNoMore = try self.start() == nil
            }
        }
        return self.writers.count
    }

    func handOver(_ run: UnsafeRawBufferPointer) throws {
        try self.ofRun {
            for writer in self.writers {
                try self.send(writer, BDR_STREAM_RUN, run)
            }
        }
    }

    private func ofRun(_ body: () throws -> Void) throws {
        do {
            try body()
        } catch var refused as StreamRefused {
            refused.isOfRun = true
            throw refused
        }
    }

    /// To be called while others are waited for.
    /// - Throws: when one of them has failed.
    func look() throws {
        try self.ofRun {
            for writer in self.writers {
                try self.check(writer)
            }
        }
        try self.whileWaiting()
    }

    var areBusy: Bool { self.writers.contains { $0.xid != nil } }

    private func ended(_ writer: Writer) {
        writer.xid = nil
        if !self.areBusy {
            bdr_host_lock_timeout(0)
        }
    }

    // MARK: Writers

    private func writer(of xid: UInt32, _ begin: UnsafeRawBufferPointer) throws -> Writer {
        if let writer = self.writers.first(where: { $0.xid == xid }) {
            return writer
        }
        guard let writer = try self.writers.first(where: { $0.xid == nil }) ?? self.startForStream() else {
            throw StreamRefused(reason: "no worker slot of the server is free (max_worker_processes)")
        }
        writer.xid = xid
        bdr_host_lock_timeout(Self.patience)
        try self.send(writer, BDR_STREAM_BEGIN, begin)
        return writer
    }

    private func startForStream() throws -> Writer? {
        guard self.writers.count < self.limit else {
            throw StreamRefused(reason: "\(self.limit) transactions in progress are being applied already")
        }
        return try self.start()
    }

    /// - Returns: nil when the server has no room for one.
    private func start() throws -> Writer? {
        var progress: UInt64 = 0
        // first: the writer may be quick
        try host(bdr_host_origin_release())
        var handle: OpaquePointer?
        guard
            try host(
                bdr_host_writer_start(
                    self.settings.peerID, "bdr writer \(self.settings.subscription)", Int32(clamping: self.writers.count + 1),
                    &handle)) == BDR_OK,
            let handle
        else {
            try host(bdr_host_origin_setup(self.settings.origin, &progress))
            return nil
        }
        let writer = Writer(handle)
        self.writers.append(writer)
        _ = try self.wait(writer, for: BDR_WRITER_READY)
        try host(bdr_host_origin_setup(self.settings.origin, &progress))
        for description in self.descriptions.values {
            try description.withUnsafeBytes { try self.send(writer, BDR_STREAM_RELATIONS, $0) }
        }
        return writer
    }

    private func handOver(_ xid: UInt32, _ bytes: UnsafeRawBufferPointer, _ range: Range<Int>) throws {
        guard let writer = self.writers.first(where: { $0.xid == xid }), range.upperBound <= bytes.count else {
            throw BdrError(SQLSTATE.internalError, "a piece of a transaction has no writer")
        }
        if range.isEmpty {
            return
        }
        guard range.count <= Self.pieceLimit else {
            throw StreamRefused(reason: "it has a row of \(range.count) bytes")
        }
        try self.send(writer, BDR_STREAM_CHANGES, UnsafeRawBufferPointer(rebasing: bytes[range]))
    }

    private func send(_ writer: Writer, _ kind: Int, _ bytes: UnsafeRawBufferPointer) throws {
        let began = bdr_host_now()
        while true {
            let outcome = try host(
                bdr_host_writer_send(
                    writer.handle, UInt8(truncatingIfNeeded: kind), bytes.bindMemory(to: UInt8.self).baseAddress, bytes.count))
            if outcome == BDR_OK {
                return
            }
            try self.check(writer)
            if bdr_host_now() &- began > Int64(Self.patience) * 1000, self.writers.contains(where: { $0 !== writer && $0.xid != nil }) {
                throw StreamRefused(reason: "it waits, and others are in progress that may hold what it waits for")
            }
            try self.pause()
        }
    }

    /// - Returns: end of its last commit.
    private func wait(_ writer: Writer, for wanted: Int) throws -> UInt64 {
        while true {
            var end: UInt64 = 0
            let state = Int(try host(bdr_host_writer_state(writer.handle, &end)))
            if state == wanted {
                return end
            }
            try self.check(writer)
            try self.pause()
        }
    }

    /// - Throws: what the writer has ended with, if it has.
    private func check(_ writer: Writer) throws {
        var end: UInt64 = 0
        switch Int(try host(bdr_host_writer_state(writer.handle, &end))) {
        case BDR_WRITER_REFUSED:
            throw StreamRefused(reason: "its writer could not apply it before its commit")
        case BDR_WRITER_FAILED:
            // a deadlock, say; and any other error is met again, and told with all that belongs to it
            throw StreamRefused(reason: "its writer failed: " + String(cString: bdr_host_writer_error(writer.handle)))
        case BDR_WRITER_GONE:
            throw StreamRefused(reason: "its writer has gone")
        default:
            break
        }
    }

    private func pause() throws {
        try self.whileWaiting()
        if try host(bdr_host_wait(nil, 1000)) & Int32(BDR_WAIT_SHUTDOWN) != 0 {
            throw BdrError("57P01", "terminating while a transaction in progress was applied")
        }
    }
}
