// TRUNCATE, and what pg_logical_emit_message wrote.

public struct TruncateMessage: Equatable, Sendable, WireMessage {
    public var cascade: Bool
    public var restartIdentity: Bool
    /// Relations as they were described on this connection, at least one.
    public var relIds: [UInt32]

    private enum Flags {
        static let cascade: UInt8 = 1
        static let restartIdentity: UInt8 = 2
        static let known: UInt8 = 3
    }

    public init(cascade: Bool, restartIdentity: Bool, relIds: [UInt32]) {
        self.cascade = cascade
        self.restartIdentity = restartIdentity
        self.relIds = relIds
    }

    /// - Parameter body: of a message of type `truncate`.
    public init(decoding body: UnsafeRawBufferPointer) throws(WireError) {
        var reader = ByteReader(body)
        let flags = try reader.readUInt8()
        guard flags & ~Flags.known == 0 else {
            throw WireError.unknownFlags(flags, of: "a truncate", at: 0)
        }
        self.cascade = flags & Flags.cascade != 0
        self.restartIdentity = flags & Flags.restartIdentity != 0
        let count = Int(try reader.readUInt32())
        guard count > 0 else {
            throw WireError.malformed("a truncate of no table", at: 1)
        }
        // before memory is taken for them
        guard count <= reader.remaining / 4 else {
            throw WireError.truncated(needed: count &* 4, left: reader.remaining, at: reader.offset)
        }
        self.relIds = []
        self.relIds.reserveCapacity(count)
        for _ in 0..<count {
            self.relIds.append(try reader.readUInt32())
        }
    }

    public func encode(into buffer: FrameBuffer) throws(WireError) {
        guard let count = UInt32(exactly: self.relIds.count) else {
            throw WireError.limitExceeded("\(self.relIds.count) tables in one truncate", at: buffer.count)
        }
        try buffer.appendMessage(.truncate) { () throws(WireError) in
            try buffer.append((self.cascade ? Flags.cascade : 0) | (self.restartIdentity ? Flags.restartIdentity : 0))
            try buffer.append32(count)
            for relId in self.relIds {
                try buffer.append32(relId)
            }
        }
    }
}

public struct LogicalMessage {
    /// Belongs to the transaction at hand.
    public var isTransactional: Bool
    /// Position of the message on the sending node.
    public var lsn: UInt64
    public var prefix: String
    /// Part of the message, valid as long as its bytes.
    public var content: UnsafeRawBufferPointer

    private enum Flags {
        static let transactional: UInt8 = 1
    }

    /// - Parameter body: of a message of type `message`.
    public init(decoding body: UnsafeRawBufferPointer) throws(WireError) {
        var reader = ByteReader(body)
        let flags = try reader.readUInt8()
        guard flags & ~Flags.transactional == 0 else {
            throw WireError.unknownFlags(flags, of: "a logical message", at: 0)
        }
        self.isTransactional = flags & Flags.transactional != 0
        self.lsn = try reader.readUInt64()
        self.prefix = try reader.readString()
        let length = Int(try reader.readUInt32())
        self.content = try reader.readBytes(length)
    }
}
