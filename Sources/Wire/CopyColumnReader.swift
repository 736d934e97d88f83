// COPY ... TO STDOUT (FORMAT binary) of one column, as libpq hands it out: CopyData messages, each with a row.

public struct CopyColumnReader {
    private var isBegun = false
    private var isEnded = false

    public init() {}

    /// "PGCOPY", and bytes that a transfer as text would change.
    private static let signature: [UInt8] = [0x50, 0x47, 0x43, 0x4F, 0x50, 0x59, 0x0A, 0xFF, 0x0D, 0x0A, 0x00]

    /// The value in a message, which is part of the message's bytes; nil for a message without one: the end, or SQL NULL.
    public mutating func value(in message: UnsafeRawBufferPointer) throws(WireError) -> UnsafeRawBufferPointer? {
        var reader = ByteReader(message)
        if !self.isBegun {
            for byte in Self.signature {
                guard try reader.readUInt8() == byte else {
                    throw WireError.malformed("not the binary format of COPY", at: 0)
                }
            }
            guard try reader.readUInt32BE() == 0 else {
                throw WireError.unsupported("unknown flags of a binary COPY", at: Self.signature.count)
            }
            try reader.skip(Int(clamping: try reader.readUInt32BE()))
            self.isBegun = true
        }
        guard reader.remaining > 0 else {
            return nil
        }
        guard !self.isEnded else {
            throw WireError.malformed("a binary COPY goes on after its end", at: reader.offset)
        }
        var value: UnsafeRawBufferPointer?
        // how many columns; -1: the end
        switch try reader.readUInt16BE() {
        case 0xFFFF:
            self.isEnded = true
        case 1:
            let length = try reader.readUInt32BE()
            if length != UInt32.max {
                value = try reader.readBytes(Int(clamping: length))
            }
        case let columns:
            throw WireError.malformed("a row of a binary COPY has \(columns) columns", at: reader.offset)
        }
        guard reader.remaining == 0 else {
            throw WireError.malformed("a message of a binary COPY has more than a row", at: reader.offset)
        }
        return value
    }
}
