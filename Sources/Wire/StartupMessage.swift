// The first message of a connection: which version is spoken, and what the sender found about the two nodes.

public struct StartupMessage: Equatable, Sendable {
    public var protocolVersion: UInt16
    /// Keys and values in their order on the wire. Unknown keys are for later versions and to be ignored.
    public var options: [(String, String)]

    public init(protocolVersion: UInt16, options: [(String, String)]) {
        self.protocolVersion = protocolVersion
        self.options = options
    }

    /// The value of the first option with that key.
    public subscript(key: String) -> String? {
        self.options.first { $0.0 == key }?.1
    }

    public static func == (left: StartupMessage, right: StartupMessage) -> Bool {
        left.protocolVersion == right.protocolVersion && left.options.elementsEqual(right.options, by: ==)
    }

    /// - Parameter body: of a message of type `startup`.
    public init(decoding body: UnsafeRawBufferPointer) throws(WireError) {
        var reader = ByteReader(body)
        self.protocolVersion = try reader.readUInt16()
        let count = Int(try reader.readUInt16())
        // the two lengths of each option must at least be there, before memory is taken for them
        guard count <= reader.remaining / 4 else {
            throw WireError.truncated(needed: count * 4, left: reader.remaining, at: reader.offset)
        }
        self.options = []
        self.options.reserveCapacity(count)
        for _ in 0..<count {
            let key = try reader.readString()
            self.options.append((key, try reader.readString()))
        }
    }

    /// Appends the message. When it throws, nothing was appended.
    public func encode(into buffer: FrameBuffer) throws(WireError) {
        guard let count = UInt16(exactly: self.options.count) else {
            throw WireError.limitExceeded("\(self.options.count) startup options", at: buffer.count)
        }
        try buffer.appendMessage(.startup) { () throws(WireError) in
            try buffer.append16(self.protocolVersion)
            try buffer.append16(count)
            for (key, value) in self.options {
                try buffer.appendString(key)
                try buffer.appendString(value)
            }
        }
    }
}
