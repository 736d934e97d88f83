// The description of a table, sent before the first of its rows and again after it changed.

public struct RelationColumn: Equatable, Sendable {
    public var name: String
    public var typeNamespace: String
    public var typeName: String
    /// OID of a type that initdb makes, the same on every server; 0 for any other type.
    public var builtinType: UInt32
    /// -1 for none.
    public var typmod: Int32
    /// Bytes of a value; -1 varlena, -2 C string.
    public var attlen: Int16
    /// "c", "s", "i" or "d".
    public var attalign: UInt8
    /// Part of the replica identity.
    public var isKey: Bool
    public var isByValue: Bool

    public init(
        name: String, typeNamespace: String, typeName: String, builtinType: UInt32, typmod: Int32, attlen: Int16,
        attalign: UInt8, isKey: Bool, isByValue: Bool
    ) {
        self.name = name
        self.typeNamespace = typeNamespace
        self.typeName = typeName
        self.builtinType = builtinType
        self.typmod = typmod
        self.attlen = attlen
        self.attalign = attalign
        self.isKey = isKey
        self.isByValue = isByValue
    }

    private enum Flags {
        static let key: UInt8 = 1
        static let byValue: UInt8 = 2
        static let known: UInt8 = 3
    }

    fileprivate init(reading reader: inout ByteReader) throws(WireError) {
        let start = reader.offset
        let flags = try reader.readUInt8()
        guard flags & ~Flags.known == 0 else {
            throw WireError.unknownFlags(flags, of: "a column", at: start)
        }
        self.isKey = flags & Flags.key != 0
        self.isByValue = flags & Flags.byValue != 0
        self.name = try reader.readName("column")
        self.typeNamespace = try reader.readName("type schema")
        self.typeName = try reader.readName("type")
        self.builtinType = try reader.readUInt32()
        self.typmod = try reader.readInt32()
        self.attlen = try reader.readInt16()
        self.attalign = try reader.readUInt8()
        if let fault = self.layoutFault {
            throw WireError.malformed("column \"\(self.name)\": \(fault)", at: start)
        }
    }

    /// What is impossible about type, length, alignment and passing; nil when nothing is.
    private var layoutFault: String? {
        guard self.builtinType < Limits.firstUserObject else {
            return "type \(self.builtinType) is not one that every server has"
        }
        guard [UInt8(ascii: "c"), UInt8(ascii: "s"), UInt8(ascii: "i"), UInt8(ascii: "d")].contains(self.attalign) else {
            return "unknown alignment \(self.attalign)"
        }
        guard self.attlen > 0 || self.attlen == -1 || self.attlen == -2 else {
            return "impossible length \(self.attlen)"
        }
        if self.isByValue && ![1, 2, 4, 8].contains(self.attlen) {
            return "a type of length \(self.attlen) can't be passed by value"
        }
        if let known = RawType(oid: self.builtinType),
            known.attlen != self.attlen || known.attalign != self.attalign || known.isByValue != self.isByValue
        {
            return "length, alignment or passing is not that of type \(self.builtinType)"
        }
        return nil
    }

    fileprivate func append(to buffer: FrameBuffer) throws(WireError) {
        try buffer.append((self.isKey ? Flags.key : 0) | (self.isByValue ? Flags.byValue : 0))
        try buffer.appendString(self.name)
        try buffer.appendString(self.typeNamespace)
        try buffer.appendString(self.typeName)
        try buffer.append32(self.builtinType)
        try buffer.append32(self.typmod)
        try buffer.append16(self.attlen)
        try buffer.append(self.attalign)
    }
}

public struct RelationMessage: Equatable, Sendable {
    /// Number by which the rows that follow name the table; valid on this connection.
    public var relId: UInt32
    public var namespace: String
    public var name: String
    /// "d", "n", "f" or "i", as in pg_class.relreplident.
    public var replicaIdentity: UInt8
    /// Rows of it may come in raw form; then all columns have types that `RawType` knows.
    public var rawPossible: Bool
    public var columns: [RelationColumn]

    public init(
        relId: UInt32, namespace: String, name: String, replicaIdentity: UInt8, rawPossible: Bool,
        columns: [RelationColumn]
    ) {
        self.relId = relId
        self.namespace = namespace
        self.name = name
        self.replicaIdentity = replicaIdentity
        self.rawPossible = rawPossible
        self.columns = columns
    }

    private enum Flags {
        static let rawPossible: UInt8 = 1
        static let known: UInt8 = 1
    }

    /// - Parameter body: of a message of type `relation`.
    /// - Throws: also for names that no table can have (empty, longer than 63 bytes, a column named twice), for more
    ///   columns than a table can have, and for a built-in type described otherwise than it is.
    public init(decoding body: UnsafeRawBufferPointer) throws(WireError) {
        var reader = ByteReader(body)
        self.relId = try reader.readUInt32()
        self.namespace = try reader.readName("schema")
        self.name = try reader.readName("table")
        self.replicaIdentity = try reader.readUInt8()
        guard
            [UInt8(ascii: "d"), UInt8(ascii: "n"), UInt8(ascii: "f"), UInt8(ascii: "i")].contains(self.replicaIdentity)
        else {
            throw WireError.malformed("unknown replica identity \(self.replicaIdentity)", at: reader.offset - 1)
        }
        let flags = try reader.readUInt8()
        guard flags & ~Flags.known == 0 else {
            throw WireError.unknownFlags(flags, of: "a relation", at: reader.offset - 1)
        }
        self.rawPossible = flags & Flags.rawPossible != 0
        let count = Int(try reader.readUInt16())
        guard count <= Limits.columns else {
            throw WireError.tooManyColumns(count, at: reader.offset - 2)
        }
        self.columns = []
        self.columns.reserveCapacity(count)
        var names = Set<[UInt8]>(minimumCapacity: count)
        for _ in 0..<count {
            let start = reader.offset
            let column = try RelationColumn(reading: &reader)
            // Swift's String takes canonically equivalent texts for equal, PostgreSQL doesn't: compare what it compares
            guard names.insert(Array(column.name.utf8)).inserted else {
                throw WireError.malformed("column \"\(column.name)\" is there twice", at: start)
            }
            if self.rawPossible && RawType(oid: column.builtinType) == nil {
                throw WireError.malformed("column \"\(column.name)\" can't be part of a raw row", at: start)
            }
            self.columns.append(column)
        }
    }

    /// Appends the message. When it throws, nothing was appended.
    public func encode(into buffer: FrameBuffer) throws(WireError) {
        guard self.columns.count <= Limits.columns else {
            throw WireError.tooManyColumns(self.columns.count, at: buffer.count)
        }
        try buffer.appendMessage(.relation) { () throws(WireError) in
            try buffer.append32(self.relId)
            try buffer.appendString(self.namespace)
            try buffer.appendString(self.name)
            try buffer.append(self.replicaIdentity)
            try buffer.append(self.rawPossible ? Flags.rawPossible : 0)
            try buffer.append16(UInt16(truncatingIfNeeded: self.columns.count))
            for column in self.columns {
                try column.append(to: buffer)
            }
        }
    }
}

extension ByteReader {
    /// A string that can be the name of an object of PostgreSQL.
    fileprivate mutating func readName(_ what: String) throws(WireError) -> String {
        let start = self.offset
        let name = try self.readString()
        guard !name.isEmpty else {
            throw WireError.malformed("the name of a \(what) is empty", at: start)
        }
        guard name.utf8.count <= Limits.nameLength else {
            throw WireError.malformed("the name of a \(what) has more than \(Limits.nameLength) bytes", at: start)
        }
        return name
    }
}
