// Frames: what one XLogData message of the walsender carries. A byte of flags, then bytes of messages.

@usableFromInline
enum FrameFlags {
    /// The bytes go on in the next frame.
    static let continued: UInt8 = 1
    static let known: UInt8 = continued
}

/// Sending side.
public enum FrameSplitter {
    /// Above this many bytes messages are spread over several frames. Below, one frame costs less: the server copies it
    /// once, however large it is.
    public static let defaultThreshold = 64 << 20

    /// Hands out the frames for a whole number of messages.
    /// - Parameters:
    ///   - bytes: the messages; none gives no frame.
    ///   - maxFrame: most bytes of one frame, its flags counted, once frames are split; below 2 counts as 2.
    ///   - threshold: up to that many bytes all go into one frame.
    ///   - body: takes a frame's flags and the bytes that follow them, which are part of `bytes`. What it throws ends the
    ///     iteration.
    public static func forEachFrame<E: Error>(
        _ bytes: UnsafeRawBufferPointer, maxFrame: Int, threshold: Int = defaultThreshold,
        body: (_ flags: UInt8, _ bytes: UnsafeRawBufferPointer) throws(E) -> Void
    ) throws(E) {
        guard let base = bytes.baseAddress, bytes.count > 0 else {
            return
        }
        let size = max(2, maxFrame) - 1
        guard bytes.count > threshold && bytes.count > size else {
            return try body(0, bytes)
        }
        var start = 0
        while start < bytes.count {
            let count = min(size, bytes.count &- start)
            let isLast = count == bytes.count &- start
            try body(
                isLast ? 0 : FrameFlags.continued, UnsafeRawBufferPointer(start: base + start, count: count))
            start &+= count
        }
    }
}

/// Receiving side: puts frames together again until they hold a whole number of messages.
///
/// One of these belongs to one connection; copies share what they have collected.
public struct FrameAssembler {
    private let buffer: FrameBuffer
    /// The buffer's bytes were handed out; they go with the next push.
    private var isDelivered = false
    /// True after a frame that said it would go on. Positions received in this state must not be acknowledged: the rest
    /// of what they stand for is still under way.
    public private(set) var isIncomplete = false

    /// Memory kept for the next time that frames have to be collected.
    private static let keptCapacity = 1 << 20

    /// - Parameter limit: most bytes that are collected over several frames.
    public init(limit: Int) {
        self.buffer = FrameBuffer(limit: limit)
    }

    /// Takes one frame.
    /// - Parameter payload: flags and bytes.
    /// - Returns: the complete messages, or nil while more frames must follow. They lie in `payload` itself if it is
    ///   complete alone, else in this assembler's memory: valid as long as `payload` is, and no longer than to the next
    ///   push.
    /// - Throws: `unsupported` for unknown flags, `limitExceeded`, `truncated` for an empty payload. What was collected
    ///   before is dropped.
    public mutating func push(payload: UnsafeRawBufferPointer) throws(WireError) -> UnsafeRawBufferPointer? {
        if self.isDelivered {
            self.drop()
        }
        do throws(WireError) {
            var reader = ByteReader(payload)
            let flags = try reader.readUInt8()
            guard flags & ~FrameFlags.known == 0 else {
                throw WireError.unknownFlags(flags, of: "a frame", at: 0)
            }
            let bytes = try reader.readBytes(reader.remaining)
            let isContinued = flags & FrameFlags.continued != 0
            if !isContinued && !self.isIncomplete {
                return bytes
            }
            try self.buffer.append(bytes: bytes)
            self.isIncomplete = isContinued
        } catch {
            self.drop()
            throw error
        }
        if self.isIncomplete {
            return nil
        }
        self.isDelivered = true
        return self.buffer.bytes
    }

    private mutating func drop() {
        self.buffer.removeAll(keepingCapacityUpTo: Self.keptCapacity)
        self.isDelivered = false
        self.isIncomplete = false
    }
}
