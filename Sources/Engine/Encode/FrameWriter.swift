// Collects messages and writes them as frames: one network write for many messages.

internal import CHost
internal import Wire

/// The frames of one stream. A message that is larger than `pieceLimit` leaves in pieces while it is made, so that the memory
/// held here stays small whatever the size of a row.
final class FrameWriter {
    /// Largest number of bytes in one network write.
    static let pieceLimit = 8 << 20
    /// Values shorter than this are copied into the buffer also while a large message leaves in pieces.
    private static let copyLimit = 64 << 10

    let buffer: FrameBuffer
    /// The server's side of the stream, for bdr_host_output_write.
    private let output: UnsafeMutableRawPointer
    private let maxFrame: Int
    /// True while a message is made that is too large for one write.
    private var inPieces = false
    /// A message has left in part, and will not be whole.
    private var isBroken = false
    /// A piece of the message at hand was written.
    private var hasLeft = false

    /// - Parameter maxFrame: bytes after which `isFull` says so; at most `pieceLimit` are kept in any case.
    init(output: UnsafeMutableRawPointer, maxFrame: Int) {
        self.output = output
        self.maxFrame = min(maxFrame, Self.pieceLimit)
        self.buffer = FrameBuffer(limit: 2 * Self.pieceLimit + Self.copyLimit)
    }

    var isFull: Bool { self.buffer.count >= self.maxFrame }

    /// Writes the start of a message and has `body` write the rest: exactly `bodyLength` bytes. After an error the buffer
    /// holds nothing of the message.
    /// - Throws: program_limit_exceeded when the message is longer than its length field can say.
    @inline(__always)
    func message(_ type: MessageType, bodyLength: Int, _ body: () throws -> Void) throws {
        guard let length = UInt32(exactly: bodyLength) else {
            throw BdrError(
                SQLSTATE.programLimitExceeded, "a row of \(bodyLength) bytes is too large to be replicated",
                detail: "A row may have 4 GB as it is sent.")
        }
        let start = self.buffer.count
        do {
            self.inPieces = bodyLength > Self.pieceLimit
            self.hasLeft = false
            try self.buffer.append(type.rawValue)
            try self.buffer.append32(length)
            try body()
            self.inPieces = false
        } catch {
            // after a piece has left there is no way back: the session ends, with the error or, should that be one after which the
            // server goes on (a transaction in progress was rolled back meanwhile), with the next write
            self.isBroken = self.isBroken || (self.inPieces && self.hasLeft)
            self.buffer.truncate(to: min(start, self.buffer.count))
            self.inPieces = false
            throw error
        }
    }

    /// Bytes of the message being made, of any length.
    @inline(__always)
    func append(_ bytes: UnsafeRawBufferPointer) throws {
        if self.inPieces {
            try self.appendInPieces(bytes)
        } else {
            try self.buffer.append(bytes: bytes)
        }
    }

    private func appendInPieces(_ bytes: UnsafeRawBufferPointer) throws {
        if self.buffer.count >= Self.pieceLimit {
            try self.write(self.buffer.bytes, continued: true, last: false)
            self.buffer.removeAll(keepingCapacityUpTo: 2 * Self.pieceLimit)
        }
        if bytes.count < Self.copyLimit {
            try self.buffer.append(bytes: bytes)
            return
        }
        // straight from the row's memory
        if self.buffer.count > 0 {
            try self.write(self.buffer.bytes, continued: true, last: false)
            self.buffer.removeAll(keepingCapacityUpTo: 2 * Self.pieceLimit)
        }
        var rest = bytes
        while !rest.isEmpty {
            let piece = UnsafeRawBufferPointer(rebasing: rest.prefix(Self.pieceLimit))
            try self.write(piece, continued: true, last: false)
            rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(piece.count))
        }
    }

    /// Writes what was collected, the last write of the callback.
    func flush() throws {
        try self.write(self.buffer.bytes, continued: false, last: true)
        self.buffer.removeAll(keepingCapacityUpTo: 2 * Self.pieceLimit)
    }

    private func write(_ bytes: UnsafeRawBufferPointer, continued: Bool, last: Bool) throws {
        guard !self.isBroken else {
            throw BdrError(
                SQLSTATE.connectionFailure, "a row of a transaction that was rolled back had been sent in part",
                hint: "The peer connects again by itself.")
        }
        self.hasLeft = true
        var flags: UInt8 = continued ? 1 : 0
        try host(
            bdr_host_output_write(
                self.output, &flags, 1, bytes.bindMemory(to: UInt8.self).baseAddress, bytes.count, last))
    }
}
