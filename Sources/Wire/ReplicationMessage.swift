// The messages of PostgreSQL's streaming replication protocol inside CopyData, in which our frames travel: big-endian, as
// documented in "Streaming Replication Protocol" of the server's manual.

/// What a walsender sends.
public enum ReplicationMessage {
    /// "w": `payload` is part of the message, valid as long as its bytes.
    case xlogData(walStart: UInt64, walEnd: UInt64, sendTime: Int64, payload: UnsafeRawBufferPointer)
    /// "k"
    case keepalive(walEnd: UInt64, sendTime: Int64, replyRequested: Bool)

    /// - Parameter bytes: one CopyData message.
    /// - Throws: `unsupported` for another kind of message, `truncated`.
    public init(decoding bytes: UnsafeRawBufferPointer) throws(WireError) {
        var reader = ByteReader(bytes)
        let type = try reader.readUInt8()
        switch type {
        case UInt8(ascii: "w"):
            let start = try reader.readUInt64BE()
            let end = try reader.readUInt64BE()
            let time = try reader.readInt64BE()
            self = .xlogData(
                walStart: start, walEnd: end, sendTime: time, payload: try reader.readBytes(reader.remaining))
        case UInt8(ascii: "k"):
            let end = try reader.readUInt64BE()
            let time = try reader.readInt64BE()
            self = .keepalive(walEnd: end, sendTime: time, replyRequested: try reader.readUInt8() != 0)
        default:
            throw WireError.unsupported("unknown replication message with code \(type)", at: 0)
        }
    }
}

/// "r": what a walreceiver answers.
public enum StandbyStatus {
    /// - Parameters:
    ///   - written, flushed, applied: ends of WAL on the sending node.
    ///   - sendTime: microseconds since 2000-01-01 UTC.
    ///   - replyRequested: the walsender shall answer at once.
    public static func encode(
        written: UInt64, flushed: UInt64, applied: UInt64, sendTime: Int64, replyRequested: Bool,
        into buffer: FrameBuffer
    ) throws(WireError) {
        try buffer.append(UInt8(ascii: "r"))
        try buffer.append64BE(written)
        try buffer.append64BE(flushed)
        try buffer.append64BE(applied)
        try buffer.append64BE(UInt64(bitPattern: sendTime))
        try buffer.append(replyRequested ? 1 : 0)
    }
}
