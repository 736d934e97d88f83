// One replication stream: connects to a peer's walsender, asks for changes from the position this node has made durable, and
// answers with what is durable here.
//
// Feedback obeys one rule (invariant I3): a remote position is reported as flushed only when the local commit records of
// everything up to it are flushed. That is what makes asynchronous commit during apply safe.

internal import CHost
internal import Membership
internal import Wire

struct Stream {
    let connection: Connection
    private var assembler = FrameAssembler(limit: Stream.messageLimit)
    private var feedback = FeedbackQueue()
    private var lastReceived: Int64
    private var lastSent: Int64 = 0
    private var sentFlushed: UInt64 = 0
    private var sentWritten: UInt64 = 0
    private var pinged = false
    private let timeout: Int64
    private let statusInterval: Int64
    private let reply = FrameBuffer(limit: 4096)

    /// A row of several columns near 1 GB each is possible, so this is far above what one message needs; it only stops a peer that
    /// talks nonsense from taking all memory.
    static let messageLimit = 16 << 30

    /// Connects and starts the stream.
    /// - Parameters:
    ///   - from: the end of the last remote transaction that is committed here; the peer skips everything before.
    ///   - streaming: large transactions may come while they are in progress.
    init(settings: ApplySettings, from: UInt64, streaming: Bool) throws {
        do {
            self.connection = try Connection(
                dsn: settings.sourceDSN,
                options: [("replication", "database"), ("application_name", settings.subscription)])
        } catch let error as RemoteError {
            throw error.asError("could not connect to node \"\(settings.sourceName)\"")
        }
        self.lastReceived = bdr_host_now()
        self.timeout = Int64(bdr_host_setting_int("wal_receiver_timeout", 60_000)) * 1000
        self.statusInterval = Int64(bdr_host_setting_int("wal_receiver_status_interval", 10)) * 1_000_000
        // until the stream runs nothing else notices that the way to the peer has gone; a copy of a slot takes its time
        let timeout = bdr_host_setting_int("wal_receiver_timeout", 60_000)
        if timeout > 0 && !settings.isForwarded {
            bdr_host_conn_set_timeout(self.connection.raw, max(timeout, 10_000))
        }
        do {
            try self.connection.query("SET statement_timeout = 0")
            if !settings.isForwarded {
                try PeerTimeline.check(self.connection, settings: settings, progress: from)
            }
            let memory = bdr_host_setting_int(streaming ? "bdr.streaming_work_mem" : "bdr.decoding_work_mem", -1)
            if memory >= 64 {
                try self.connection.query("SET logical_decoding_work_mem = '\(memory)kB'")
            }
            var slot = settings.slot
            if settings.isForwarded {
                // the group slot itself stays where it is, for others and for another try
                let process = try self.connection.query("SELECT pg_catalog.pg_backend_pid()")[0, 0] ?? ""
                slot = Self.forwardSlot + process
                try self.connection.query(
                    """
                    SELECT FROM pg_catalog.pg_copy_logical_replication_slot(\(try SQL.quoteLiteral(settings.slot)),
                                                                            \(try SQL.quoteLiteral(slot)), true)
                    """)
            }
            try self.connection.startCopyBoth(
                try Self.startCommand(
                    settings: settings, slot: slot, from: settings.isForwarded ? 0 : from, streaming: streaming))
        } catch let error as RemoteError {
            throw error.asError("could not start replication from node \"\(settings.sourceName)\"")
        }
    }

    /// Prefix of the name of the temporary slot that forwarded changes come from; the rest is the process of the source.
    private static let forwardSlot = "bdr_forward_"

    private static func startCommand(settings: ApplySettings, slot: String, from: UInt64, streaming: Bool) throws -> String {
        let encoding = String(cString: bdr_host_encoding_name())
        let options: [(String, String)] = [
            ("proto_min", "1"), ("proto_max", "1"),
            ("group_name", settings.groupName), ("group_uuid", settings.groupUUID),
            ("node_name", settings.localName), ("node_id", String(settings.localID)),
            ("peer_name", settings.sourceName), ("peer_id", String(settings.sourceID)),
            ("pg_version", String(bdr_host_server_version())), ("encoding", encoding),
            ("endian", "little"), ("maxalign", "8"), ("float8_byval", "1"),
            ("raw", "1"), ("binary", "1"), ("forward", settings.isForwarded ? "1" : "0"), ("max_frame", "65536"),
            ("timeline", String(bdr_host_timeline())),
        ] + (streaming ? [("streaming", "1")] : []) + (settings.isForwarded ? [("forward_origin", String(settings.peerID))] : [("progress", LSN.text(from))])
        // replication commands know only one form of literal: quotes doubled, backslashes plain
        func literal(_ text: String) -> String {
            var quoted = "'"
            for character in text.unicodeScalars {
                if character == "'" {
                    quoted += "''"
                } else {
                    quoted.unicodeScalars.append(character)
                }
            }
            return quoted + "'"
        }
        let list = options.map { "\($0.0) \(literal($0.1))" }.joined(separator: ", ")
        return "START_REPLICATION SLOT \"\(slot)\" LOGICAL \(LSN.text(from)) (\(list))"
    }

    enum Event {
        /// Whole messages, valid until the next call; the position is the end of WAL they stand for.
        case messages(UnsafeRawBufferPointer, end: UInt64)
        case keepalive(end: UInt64, replyRequested: Bool)
        case nothing
    }

    /// The next event without waiting.
    mutating func next() throws -> Event {
        switch try self.connection.receive() {
        case .nothing:
            return .nothing
        case .end:
            throw BdrError(SQLSTATE.connectionFailure, "the peer ended the replication stream")
        case .data(let bytes):
            self.lastReceived = bdr_host_now()
            self.pinged = false
            switch try ReplicationMessage(decoding: bytes) {
            case .keepalive(let end, _, let replyRequested):
                return .keepalive(end: end, replyRequested: replyRequested)
            case .xlogData(let start, let end, _, let payload):
                guard let whole = try self.assembler.push(payload: payload) else {
                    return .messages(UnsafeRawBufferPointer(start: nil, count: 0), end: 0)
                }
                return .messages(whole, end: max(start, end))
            }
        }
    }

    /// Everything up to here has arrived and been dealt with, except for commits still in the queue.
    mutating func received(upTo position: UInt64) {
        self.feedback.received(upTo: position)
    }

    /// A remote transaction was committed here.
    mutating func committed(remoteEnd: UInt64, localEnd: UInt64) {
        self.feedback.committed(remoteEnd: remoteEnd, localEnd: localEnd)
    }

    /// Tells the peer what is durable here, when it changed, when it is time to, or when `force`d.
    mutating func sendFeedback(force: Bool, requestReply: Bool = false) throws {
        let now = bdr_host_now()
        let status = self.feedback.acknowledge(localFlushed: bdr_host_safe_lsn())
        let due = self.statusInterval > 0 && now &- self.lastSent >= self.statusInterval
        guard force || requestReply || due || status.flushed != self.sentFlushed || status.written != self.sentWritten
        else {
            return
        }
        self.reply.removeAll(keepingCapacityUpTo: 4096)
        try StandbyStatus.encode(
            written: status.written, flushed: status.flushed, applied: status.applied, sendTime: now,
            replyRequested: requestReply, into: self.reply)
        do {
            try self.connection.send(self.reply.bytes)
        } catch let error as RemoteError {
            throw error.asError("could not send feedback to the peer")
        }
        self.lastSent = now
        self.sentFlushed = status.flushed
        self.sentWritten = status.written
        bdr_host_progress_flushed(status.flushed)
    }

    /// True when so much time has passed since the last feedback that the peer should hear of us even while busy.
    var feedbackDue: Bool {
        self.statusInterval > 0 && bdr_host_now() &- self.lastSent >= self.statusInterval
    }

    /// Notices a peer that has gone silent: asks it to answer at half the timeout, gives up after the whole.
    mutating func checkSilence() throws {
        guard self.timeout > 0 else {
            return
        }
        let silent = bdr_host_now() &- self.lastReceived
        if silent > self.timeout {
            throw BdrError(
                SQLSTATE.connectionFailure, "the peer has been silent for longer than wal_receiver_timeout",
                detail: "Nothing was received for \(silent / 1_000_000) s.")
        }
        if silent > self.timeout / 2 && !self.pinged {
            self.pinged = true
            try self.sendFeedback(force: true, requestReply: true)
        }
    }

    /// How long to wait for the peer, in ms: short while commits here are not flushed yet, so that they are acknowledged soon.
    var waitTime: Int64 {
        self.feedback.isIdle ? 1000 : 100
    }
}

/// PostgreSQL's text form of a WAL position.
enum LSN {
    static func text(_ lsn: UInt64) -> String {
        "\(String(lsn >> 32, radix: 16, uppercase: true))/\(String(lsn & 0xFFFF_FFFF, radix: 16, uppercase: true))"
    }

    /// nil when the text is not a position.
    static func parse(_ text: String) -> UInt64? {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, let high = UInt32(parts[0], radix: 16), let low = UInt32(parts[1], radix: 16) else {
            return nil
        }
        return UInt64(high) << 32 | UInt64(low)
    }
}
