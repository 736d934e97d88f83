// Messages about transactions that are sent while they are in progress ("streamed"): pieces of one, between start and stop,
// may come at any time between whole transactions; then its end, one way or the other.

/// What follows, up to a `streamStop`, belongs to a transaction that is in progress on the sending node.
public struct StreamStartMessage: Equatable, Sendable {
    public var xid: UInt32

    public init(xid: UInt32) {
        self.xid = xid
    }

    /// - Parameter body: of a message of type `streamStart`.
    public init(decoding body: UnsafeRawBufferPointer) throws(WireError) {
        var reader = ByteReader(body)
        self.xid = try reader.readUInt32()
    }

    /// Appends the message. When it throws, nothing was appended.
    public func encode(into buffer: FrameBuffer) throws(WireError) {
        try buffer.appendMessage(.streamStart) { () throws(WireError) in
            try buffer.append32(self.xid)
        }
    }
}

/// The piece ends here.
public struct StreamStopMessage: Equatable, Sendable {
    public init() {}

    /// Appends the message. When it throws, nothing was appended.
    public func encode(into buffer: FrameBuffer) throws(WireError) {
        try buffer.appendMessage(.streamStop) { () throws(WireError) in }
    }
}

/// The changes that follow in this piece are of this subtransaction (or of the transaction itself), until another one is named.
/// A piece begins with the transaction itself.
public struct SubtransactionMessage: Equatable, Sendable {
    public var xid: UInt32

    public init(xid: UInt32) {
        self.xid = xid
    }

    /// - Parameter body: of a message of type `subtransaction`.
    public init(decoding body: UnsafeRawBufferPointer) throws(WireError) {
        var reader = ByteReader(body)
        self.xid = try reader.readUInt32()
    }

    /// Appends the message. When it throws, nothing was appended.
    public func encode(into buffer: FrameBuffer) throws(WireError) {
        try buffer.appendMessage(.subtransaction) { () throws(WireError) in
            try buffer.append32(self.xid)
        }
    }
}

/// A streamed transaction, or a subtransaction of it, was rolled back.
public struct StreamAbortMessage: Equatable, Sendable {
    public var xid: UInt32
    /// Equal to `xid`: all of it.
    public var subxid: UInt32

    public init(xid: UInt32, subxid: UInt32) {
        self.xid = xid
        self.subxid = subxid
    }

    /// - Parameter body: of a message of type `streamAbort`.
    public init(decoding body: UnsafeRawBufferPointer) throws(WireError) {
        var reader = ByteReader(body)
        self.xid = try reader.readUInt32()
        self.subxid = try reader.readUInt32()
    }

    /// Appends the message. When it throws, nothing was appended.
    public func encode(into buffer: FrameBuffer) throws(WireError) {
        try buffer.appendMessage(.streamAbort) { () throws(WireError) in
            try buffer.append32(self.xid)
            try buffer.append32(self.subxid)
        }
    }
}

/// A streamed transaction was committed; everything of it was sent before.
public struct StreamCommitMessage: Equatable, Sendable {
    public var xid: UInt32
    /// Position of the commit record on the sending node.
    public var commitLSN: UInt64
    /// Where that record ends: what to acknowledge, and where to resume.
    public var endLSN: UInt64
    /// Microseconds since 2000-01-01 UTC.
    public var commitTime: Int64

    public init(xid: UInt32, commitLSN: UInt64, endLSN: UInt64, commitTime: Int64) {
        self.xid = xid
        self.commitLSN = commitLSN
        self.endLSN = endLSN
        self.commitTime = commitTime
    }

    /// - Parameter body: of a message of type `streamCommit`.
    public init(decoding body: UnsafeRawBufferPointer) throws(WireError) {
        var reader = ByteReader(body)
        self.xid = try reader.readUInt32()
        self.commitLSN = try reader.readUInt64()
        self.endLSN = try reader.readUInt64()
        self.commitTime = try reader.readInt64()
    }

    /// Appends the message. When it throws, nothing was appended.
    public func encode(into buffer: FrameBuffer) throws(WireError) {
        try buffer.appendMessage(.streamCommit) { () throws(WireError) in
            try buffer.append32(self.xid)
            try buffer.append64(self.commitLSN)
            try buffer.append64(self.endLSN)
            try buffer.append64(self.commitTime)
        }
    }
}
