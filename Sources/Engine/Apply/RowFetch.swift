// Asks the node that a stream comes from for values that an UPDATE leaves out as unchanged, where this node can't tell that it
// has the same ones.
//
// It asks for the version of the row that the very transaction wrote. When that is gone, something later has overwritten or
// deleted it there, which will arrive here, too; then the UPDATE need not be applied.

internal import CHost
internal import Wire

final class RowFetch {
    private let settings: ApplySettings
    private var connection: Connection?

    init(settings: ApplySettings) {
        self.settings = settings
    }

    /// - Parameters:
    ///   - key: names and values, as text.
    ///   - commitTime: of the transaction, microseconds since 2000-01-01 UTC.
    ///   - columns: names of the columns wanted.
    /// - Returns: their values as texts, nil where they are NULL; nil when the version is gone.
    func values(
        of relation: AppliedRelation, key: [(String, String?)], commitTime: Int64, columns: [String]
    ) throws -> [String?]? {
        do {
            let connection = try self.connect()
            let names = try Self.array(key.map { $0.0 })
            let values = try Self.array(key.map { $0.1 })
            let rows = try connection.query(
                """
                SELECT v.row IS NOT NULL, u.value
                  FROM (SELECT bdr.internal_row_version($1, $2, $3::pg_catalog.text[], $4::pg_catalog.text[],
                                                        \(RowStamps.timestamp(commitTime)), $5::pg_catalog.bool,
                                                        $6::pg_catalog.text[]) AS row) v
                  LEFT JOIN LATERAL pg_catalog.unnest(v.row) WITH ORDINALITY u (value, place) ON true
                 ORDER BY u.place
                """,
                [
                    relation.description.namespace, relation.description.name, names, values,
                    self.settings.isForwarded ? "f" : "t",
                    try Self.array(columns),
                ])
            guard rows[0, 0] == "t" else {
                return nil
            }
            guard rows.count == columns.count else {
                throw BdrError(
                    SQLSTATE.protocolViolation,
                    "node \"\(self.settings.sourceName)\" sent other columns than it was asked for")
            }
            return (0..<rows.count).map { rows[$0, 1] }
        } catch let error as RemoteError {
            self.connection = nil
            throw error.asError(
                "unchanged values of a row of \"\(relation.qualifiedName)\" could not be read from node "
                    + "\"\(self.settings.sourceName)\"")
        }
    }

    private func connect() throws -> Connection {
        if let connection = self.connection {
            return connection
        }
        let connection = try Session.open(dsn: self.settings.sourceDSN, "node \"\(self.settings.sourceName)\"")
        self.connection = connection
        return connection
    }

    /// Text of an array for the server.
    private static func array(_ values: [String?]) throws -> String {
        let elements = values.map { value -> String in
            guard let value else {
                return "NULL"
            }
            var quoted = "\""
            for character in value.unicodeScalars {
                if character == "\"" || character == "\\" {
                    quoted += "\\"
                }
                quoted.unicodeScalars.append(character)
            }
            return quoted + "\""
        }
        return "{" + elements.joined(separator: ",") + "}"
    }
}
