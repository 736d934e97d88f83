// The messages about rows, as the receiver reads them. The sender writes rows without building these: see TupleEncoding.

/// Which old row comes with an update or delete. The raw value is the byte on the wire.
public enum OldTupleKind: UInt8, Sendable {
    /// "N": none, the new row's key finds the row.
    case none = 0x4E
    /// "K": only the columns of the replica identity mean something.
    case key = 0x4B
    /// "O": the whole row.
    case full = 0x4F
}

/// A message that can be written as it is.
public protocol WireMessage {
    /// Appends the message. When it throws, nothing was appended.
    func encode(into buffer: FrameBuffer) throws(WireError)
}

extension StartupMessage: WireMessage {}
extension BeginMessage: WireMessage {}
extension CommitMessage: WireMessage {}
extension RelationMessage: WireMessage {}
extension StreamStartMessage: WireMessage {}
extension StreamStopMessage: WireMessage {}
extension SubtransactionMessage: WireMessage {}
extension StreamAbortMessage: WireMessage {}
extension StreamCommitMessage: WireMessage {}

public struct InsertMessage {
    public var relId: UInt32
    /// Part of the message, valid as long as its bytes.
    public var tuple: TupleView

    /// - Parameter body: of a message of type `insert`.
    @inlinable
    public init(decoding body: UnsafeRawBufferPointer) throws(WireError) {
        var reader = ByteReader(body)
        self.relId = try reader.readUInt32()
        self.tuple = try reader.readTuple(.inserted)
    }
}

public struct UpdateMessage {
    public var relId: UInt32
    public var oldKind: OldTupleKind
    /// nil when `oldKind` is `.none`.
    public var old: TupleView?
    public var new: TupleView

    /// - Parameter body: of a message of type `update`.
    public init(decoding body: UnsafeRawBufferPointer) throws(WireError) {
        var reader = ByteReader(body)
        self.relId = try reader.readUInt32()
        self.oldKind = try reader.readOldKind()
        self.old = self.oldKind == .none ? nil : try reader.readTuple(.other)
        self.new = try reader.readTuple(.other)
    }
}

public struct DeleteMessage {
    public var relId: UInt32
    public var oldKind: OldTupleKind
    public var old: TupleView

    /// - Parameter body: of a message of type `delete`.
    public init(decoding body: UnsafeRawBufferPointer) throws(WireError) {
        var reader = ByteReader(body)
        self.relId = try reader.readUInt32()
        self.oldKind = try reader.readOldKind()
        guard self.oldKind != .none else {
            throw WireError.malformed("a delete without its old row", at: 4)
        }
        self.old = try reader.readTuple(.other)
    }
}

extension ByteReader {
    fileprivate mutating func readOldKind() throws(WireError) -> OldTupleKind {
        let raw = try self.readUInt8()
        guard let kind = OldTupleKind(rawValue: raw) else {
            throw WireError.malformed("unknown kind \(raw) of an old row", at: self.offset - 1)
        }
        return kind
    }
}
