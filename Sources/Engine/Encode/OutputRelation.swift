// A relation as it was described to the peer: what has to be known to encode its rows.

internal import CHost
internal import Wire

final class OutputRelation {
    /// What identifies a row in an update or delete.
    enum Identity {
        case none
        /// The key columns.
        case key
        /// The whole old row.
        case full
    }

    let qualifiedName: String
    let columnCount: Int
    /// A row may travel as it is stored, if its tuple is plain, too.
    let raw: Bool
    let identity: Identity
    /// 1 for columns that travel in binary.
    let binary: [UInt8]

    /// The description for the peer, and what is kept of it.
    /// - Throws: data_corrupted for a description that is none.
    static func describe(
        _ number: Int32, _ description: BdrRelationDesc, _ negotiation: Negotiation
    ) throws -> (OutputRelation, RelationMessage) {
        guard let namespace = description.namespace_name, let name = description.name, description.ncolumns >= 0 else {
            throw BdrError(SQLSTATE.internalError, "relation \(description.oid) has no description")
        }
        var columns: [RelationColumn] = []
        var binary: [UInt8] = []
        var rawSafe = true
        for column in UnsafeBufferPointer(start: description.columns, count: Int(description.ncolumns)) {
            guard let name = column.name, let typeNamespace = column.type_namespace, let typeName = column.type_name else {
                throw BdrError(SQLSTATE.internalError, "a column of relation \(description.oid) has no description")
            }
            columns.append(
                RelationColumn(
                    name: String(cString: name), typeNamespace: String(cString: typeNamespace),
                    typeName: String(cString: typeName), builtinType: column.builtin_type, typmod: column.typmod,
                    attlen: column.attlen, attalign: column.attalign, isKey: column.key != 0,
                    isByValue: column.by_value != 0))
            rawSafe = rawSafe && RawLayout.isRawSafe(builtinType: column.builtin_type)
            binary.append(negotiation.binary && column.binary_io != 0 ? 1 : 0)
        }
        let identity: Identity =
            if description.replica_identity == UInt8(ascii: "f") {
                .full
            } else if columns.contains(where: { $0.isKey }) {
                .key
            } else {
                .none
            }
        let relation = OutputRelation(
            qualifiedName: "\(String(cString: namespace)).\(String(cString: name))", columnCount: columns.count,
            raw: negotiation.raw && description.plain_layout != 0 && rawSafe, identity: identity, binary: binary)
        let message = RelationMessage(
            relId: UInt32(bitPattern: number), namespace: String(cString: namespace), name: String(cString: name),
            replicaIdentity: description.replica_identity, rawPossible: relation.raw, columns: columns)
        return (relation, message)
    }

    private init(qualifiedName: String, columnCount: Int, raw: Bool, identity: Identity, binary: [UInt8]) {
        self.qualifiedName = qualifiedName
        self.columnCount = columnCount
        self.raw = raw
        self.identity = identity
        self.binary = binary
    }
}
