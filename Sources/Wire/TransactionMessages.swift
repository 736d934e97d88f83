// The messages around the changes of a transaction.

public struct BeginMessage: Equatable, Sendable {
    /// Position of the commit record on the sending node.
    public var commitLSN: UInt64
    /// Microseconds since 2000-01-01 UTC.
    public var commitTime: Int64
    public var xid: UInt32
    /// Id of the node where the transaction was first committed.
    public var originNode: UInt32
    /// Position of the commit record on that node; 0 when it is the sending node, so that `commitLSN` says it.
    public var originLSN: UInt64

    public init(commitLSN: UInt64, commitTime: Int64, xid: UInt32, originNode: UInt32, originLSN: UInt64) {
        self.commitLSN = commitLSN
        self.commitTime = commitTime
        self.xid = xid
        self.originNode = originNode
        self.originLSN = originLSN
    }

    /// - Parameter body: of a message of type `begin`.
    public init(decoding body: UnsafeRawBufferPointer) throws(WireError) {
        var reader = ByteReader(body)
        self.commitLSN = try reader.readUInt64()
        self.commitTime = try reader.readInt64()
        self.xid = try reader.readUInt32()
        self.originNode = try reader.readUInt32()
        self.originLSN = try reader.readUInt64()
    }

    /// Appends the message. When it throws, nothing was appended.
    public func encode(into buffer: FrameBuffer) throws(WireError) {
        try buffer.appendMessage(.begin) { () throws(WireError) in
            try buffer.append64(self.commitLSN)
            try buffer.append64(self.commitTime)
            try buffer.append32(self.xid)
            try buffer.append32(self.originNode)
            try buffer.append64(self.originLSN)
        }
    }
}

public struct CommitMessage: Equatable, Sendable {
    /// Position of the commit record on the sending node.
    public var commitLSN: UInt64
    /// Where that record ends: what to acknowledge, and where to resume.
    public var endLSN: UInt64
    /// Microseconds since 2000-01-01 UTC.
    public var commitTime: Int64

    public init(commitLSN: UInt64, endLSN: UInt64, commitTime: Int64) {
        self.commitLSN = commitLSN
        self.endLSN = endLSN
        self.commitTime = commitTime
    }

    /// - Parameter body: of a message of type `commit`.
    public init(decoding body: UnsafeRawBufferPointer) throws(WireError) {
        var reader = ByteReader(body)
        let flags = try reader.readUInt8()
        guard flags == 0 else {
            throw WireError.unknownFlags(flags, of: "a commit", at: 0)
        }
        self.commitLSN = try reader.readUInt64()
        self.endLSN = try reader.readUInt64()
        self.commitTime = try reader.readInt64()
    }

    /// Appends the message. When it throws, nothing was appended.
    public func encode(into buffer: FrameBuffer) throws(WireError) {
        try buffer.appendMessage(.commit) { () throws(WireError) in
            try buffer.append(0)
            try buffer.append64(self.commitLSN)
            try buffer.append64(self.endLSN)
            try buffer.append64(self.commitTime)
        }
    }
}
