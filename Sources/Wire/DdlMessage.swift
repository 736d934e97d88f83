// DDL as it stands in the WAL: the content of a logical message with prefix "bdr.ddl".
//
// Texts are bytes in the encoding of the database, which is the same on all nodes; they contain no zero byte, as they become
// C strings.

/// A statement, and what it takes to have it mean on another node what it meant where it was typed.
public struct DdlMessage: Equatable, Sendable {
    public typealias Text = [UInt8]

    public static let version: UInt8 = 1
    /// Prefix of the logical messages.
    public static let prefix = "bdr.ddl"

    public struct Setting: Equatable, Sendable {
        public var name: Text
        public var value: Text

        public init(name: Text, value: Text) {
            self.name = name
            self.value = value
        }
    }

    /// Concerns the server and not only the database, so that it has been done already where several nodes are on one server.
    public var isOfServer = false
    /// For messages: "CREATE TABLE".
    public var tag: Text
    /// Whose rights it runs with.
    public var role: Text
    /// Who is logged in.
    public var sessionRole: Text
    public var statement: Text
    /// The server where it was typed.
    public var server: Text
    public var settings: [Setting]
    public var replicationSets: [Text]

    public init(
        tag: Text, role: Text, sessionRole: Text, statement: Text, server: Text, settings: [Setting] = [],
        replicationSets: [Text] = [], isOfServer: Bool = false
    ) {
        self.tag = tag
        self.role = role
        self.sessionRole = sessionRole
        self.statement = statement
        self.server = server
        self.settings = settings
        self.replicationSets = replicationSets
        self.isOfServer = isOfServer
    }

    private enum Flags {
        static let ofServer: UInt8 = 1
        static let known: UInt8 = 1
    }

    /// Kinds of fields. Of those a reader does not know it passes over the ones below `mandatory`, and refuses the others.
    private enum Field {
        static let tag: UInt8 = 1
        static let sessionRole: UInt8 = 2
        static let server: UInt8 = 3
        static let replicationSet: UInt8 = 4
        static let role: UInt8 = 129
        static let statement: UInt8 = 130
        static let setting: UInt8 = 131
        static let mandatory: UInt8 = 128
    }

    /// - Parameter content: of a logical message.
    public init(decoding content: UnsafeRawBufferPointer) throws(WireError) {
        var reader = ByteReader(content)
        let version = try reader.readUInt8()
        guard version == Self.version else {
            throw WireError.unsupported("version \(version) of a DDL message", at: 0)
        }
        let flags = try reader.readUInt8()
        guard flags & ~Flags.known == 0 else {
            throw WireError.unknownFlags(flags, of: "a DDL message", at: 1)
        }
        self.init(tag: [], role: [], sessionRole: [], statement: [], server: [], isOfServer: flags & Flags.ofServer != 0)
        while reader.remaining > 0 {
            let start = reader.offset
            let kind = try reader.readUInt8()
            let length = Int(try reader.readUInt32())
            let body = try reader.readBytes(length)
            switch kind {
            case Field.tag: self.tag = try Self.text(body, at: start)
            case Field.role: self.role = try Self.text(body, at: start)
            case Field.sessionRole: self.sessionRole = try Self.text(body, at: start)
            case Field.statement: self.statement = try Self.text(body, at: start)
            case Field.server: self.server = try Self.text(body, at: start)
            case Field.replicationSet: self.replicationSets.append(try Self.text(body, at: start))
            case Field.setting:
                var parts = ByteReader(body)
                let name = try parts.readBytes(Int(try parts.readUInt16()))
                let value = try parts.readBytes(parts.remaining)
                self.settings.append(Setting(name: try Self.text(name, at: start), value: try Self.text(value, at: start)))
            default:
                guard kind < Field.mandatory else {
                    throw WireError.unsupported("field \(kind) of a DDL message", at: start)
                }
            }
        }
        guard !self.role.isEmpty, !self.statement.isEmpty else {
            throw WireError.malformed("a DDL message without statement or role", at: reader.offset)
        }
    }

    private static func text(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(WireError) -> Text {
        guard !bytes.contains(0) else {
            throw WireError.malformed("a zero byte in a DDL message", at: offset)
        }
        return Text(bytes)
    }

    /// The content of a logical message.
    public func encoded() throws(WireError) -> [UInt8] {
        let buffer = FrameBuffer(limit: 1 << 30)
        try buffer.append(Self.version)
        try buffer.append(self.isOfServer ? Flags.ofServer : 0)
        try Self.append(Field.tag, self.tag, to: buffer)
        try Self.append(Field.role, self.role, to: buffer)
        try Self.append(Field.sessionRole, self.sessionRole, to: buffer)
        try Self.append(Field.server, self.server, to: buffer)
        for set in self.replicationSets {
            try Self.append(Field.replicationSet, set, to: buffer)
        }
        for setting in self.settings {
            guard let length = UInt16(exactly: setting.name.count) else {
                throw WireError.limitExceeded("a setting's name of \(setting.name.count) bytes", at: buffer.count)
            }
            var bytes: [UInt8] = [UInt8(truncatingIfNeeded: length), UInt8(truncatingIfNeeded: length >> 8)]
            bytes += setting.name
            bytes += setting.value
            try Self.append(Field.setting, bytes, to: buffer)
        }
        try Self.append(Field.statement, self.statement, to: buffer)
        return [UInt8](buffer.bytes)
    }

    private static func append(_ kind: UInt8, _ bytes: [UInt8], to buffer: FrameBuffer) throws(WireError) {
        guard let length = UInt32(exactly: bytes.count) else {
            throw WireError.limitExceeded("a field of \(bytes.count) bytes", at: buffer.count)
        }
        try buffer.append(kind)
        try buffer.append32(length)
        for byte in bytes {
            try buffer.append(byte)
        }
    }
}
