// A relation of the peer as the apply worker sees it: its description, and the handle of the local relation it maps to.

internal import CHost
internal import Wire

final class AppliedRelation {
    let description: RelationMessage
    /// For rows that come raw; nil when the peer promised none.
    let layout: RawLayout?
    private(set) var handle: OpaquePointer?
    private(set) var info = BdrRelationInfo()
    /// The transaction (counted by the worker) in which the handle was last made ready.
    private var usedIn: UInt64 = 0
    /// Changes of the peer up to there are in the table already: it was copied from a node that had them.
    var contained: UInt64 = 0
    /// The table, and its file, for which that was looked up.
    private var lookedUp: (oid: UInt32, file: UInt32)?
    /// The transaction in which it was known last that the local relation was dropped recently.
    var droppedIn: UInt64 = 0

    init(_ description: RelationMessage) throws {
        self.description = description
        self.layout = description.rawPossible
            ? try RawLayout(
                description.columns, isUTF8: String(cString: bdr_host_encoding_name()) == "UTF8") : nil
    }

    deinit {
        bdr_host_rel_free(self.handle)
    }

    var qualifiedName: String { "\(self.description.namespace).\(self.description.name)" }

    /// Makes the local relation ready for the current transaction: opened, locked, and known to be usable.
    /// - Parameter transaction: a number that differs for each transaction.
    /// - Throws: an error that says what the local schema lacks.
    @inline(__always)
    func use(in transaction: UInt64) throws {
        guard try self.isHere(in: transaction) else {
            throw self.missing()
        }
    }

    /// The same, but that a local relation is missing is an answer.
    @inline(__always)
    func isHere(in transaction: UInt64) throws -> Bool {
        if self.usedIn != transaction {
            guard try self.prepare() else {
                return false
            }
            self.usedIn = transaction
        }
        return true
    }

    /// Whether `contained` has to be looked up, in the transaction in which the table was locked. Answers so once.
    @inline(__always)
    func isNew() -> Bool {
        if let lookedUp = self.lookedUp, lookedUp.oid == self.info.oid, lookedUp.file == self.info.file {
            return false
        }
        self.lookedUp = (self.info.oid, self.info.file)
        return true
    }

    /// - Parameter detail: why that is an error.
    func missing(detail: String? = nil) -> BdrError {
        BdrError(
            SQLSTATE.undefinedTable, "table \"\(self.qualifiedName)\" does not exist on this node", detail: detail,
            hint: "Create the table here as it is on the peer; replication then goes on by itself.")
    }

    /// After a TRUNCATE closed what was open.
    func forgetUse() {
        self.usedIn = 0
    }

    private func prepare() throws -> Bool {
        if self.handle == nil {
            try self.open()
        }
        try host(bdr_host_rel_use(self.handle, &self.info))
        switch self.info.status {
        case Int32(BDR_REL_OK), Int32(BDR_REL_COLUMNS_MISSING):
            return true
        case Int32(BDR_REL_WRONG_KIND):
            throw BdrError(
                "42809", "\"\(self.qualifiedName)\" is not a table on this node",
                detail: "Changes are applied to ordinary and partitioned tables only.")
        default:
            return false
        }
    }

    private func open() throws {
        let columns = self.description.columns
        var strings: [String?] = [self.description.namespace, self.description.name]
        for column in columns {
            strings.append(column.name)
            strings.append(column.typeNamespace)
            strings.append(column.typeName)
        }
        try withCStrings(strings) { pointers in
            guard let pointers else {
                throw BdrError(SQLSTATE.internalError, "no relation description")
            }
            var described: [BdrColumnDesc] = []
            for (number, column) in columns.enumerated() {
                var entry = BdrColumnDesc()
                entry.name = pointers[2 + 3 * number]
                entry.type_namespace = pointers[3 + 3 * number]
                entry.type_name = pointers[4 + 3 * number]
                entry.builtin_type = column.builtinType
                entry.typmod = column.typmod
                entry.attlen = column.attlen
                entry.attalign = column.attalign
                entry.by_value = column.isByValue ? 1 : 0
                entry.key = column.isKey ? 1 : 0
                described.append(entry)
            }
            try described.withUnsafeBufferPointer { columns in
                var remote = BdrRemoteRelation()
                remote.namespace_name = pointers[0]
                remote.name = pointers[1]
                remote.replica_identity = self.description.replicaIdentity
                remote.raw_possible = self.layout == nil ? 0 : 1
                remote.ncolumns = Int32(clamping: columns.count)
                remote.columns = columns.baseAddress
                try host(bdr_host_rel_open(&remote, &self.handle, &self.info))
            }
        }
    }
}
