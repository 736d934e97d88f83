// Asks the node that a stream comes from for values that an UPDATE leaves out as unchanged, where this node can't tell that it
// has the same ones.
//
// It asks by the pointer that came with the change. A value that is gone there was part of a row that has been overwritten
// or deleted since by something that will arrive here, too; then the UPDATE need not be applied. Unless the table was
// rewritten since, by ALTER TABLE without the DML lock: then all values are somewhere else, and it asks for that of the row. If that has
// been overwritten, what did it arrives here, too.

internal import CHost
internal import Wire

final class ValueFetch {
    private let settings: ApplySettings
    private var connection: Connection?

    init(settings: ApplySettings) {
        self.settings = settings
    }

    /// - Parameter column: name.
    /// - Returns: the value as text; nil when it is gone.
    func text(of value: UnchangedValue, _ column: String, _ relation: AppliedRelation) throws -> String? {
        do {
            return try self.connect().query(
                """
                SELECT bdr.internal_stored_value($1, $2, $3, $4::pg_catalog.int4, $5::pg_catalog.int8, $6::pg_catalog.oid,
                                                 $7::pg_catalog.oid)
                """,
                [
                    relation.description.namespace, relation.description.name, column, String(value.rawSize),
                    String(value.externalInfo), String(value.valueID), String(value.toastTable),
                ])[0, 0]
        } catch let error as RemoteError {
            self.connection = nil
            throw error.asError(
                "an unchanged value of a row of \"\(relation.qualifiedName)\" could not be read from node "
                    + "\"\(self.settings.sourceName)\"")
        }
    }

    /// The value that the row has now, if its table was rewritten since.
    /// - Parameter key: of the row, as JSON.
    /// - Returns: nil when the table was not rewritten, the row is gone, or the value NULL.
    func textNow(_ value: UnchangedValue, _ column: String, _ relation: AppliedRelation, key: String) throws -> String? {
        let names = try relation.description.columns.filter { $0.isKey }.map { try SQL.quoteIdentifier($0.name) }
        guard !names.isEmpty else {
            return nil
        }
        let table = try SQL.quoteIdentifier(relation.description.namespace) + "." + SQL.quoteIdentifier(relation.description.name)
        do {
            // a table that was dropped is dropped here, too, by what follows
            let isThere = try self.connect().query(
                """
                SELECT pg_catalog.to_regclass($1) IS NOT NULL
                       AND NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = $2::pg_catalog.oid)
                """, [table, String(value.toastTable)])
            guard isThere[0, 0] == "t" else {
                return nil
            }
            let rows = try self.connect().query(
                """
                SELECT t.\(try SQL.quoteIdentifier(column))
                  FROM \(table) t, pg_catalog.jsonb_populate_record(NULL::\(table), $1::pg_catalog.jsonb) k
                 WHERE \(names.map { "t.\($0) = k.\($0)" }.joined(separator: " AND "))
                """, [key])
            return rows.count == 1 ? rows[0, 0] : nil
        } catch let error as RemoteError {
            self.connection = nil
            throw error.asError(
                "an unchanged value of a row of \"\(relation.qualifiedName)\", which was rewritten since, could not be read from node "
                    + "\"\(self.settings.sourceName)\"")
        }
    }

    private func connect() throws -> Connection {
        if let connection = self.connection {
            return connection
        }
        let connection = try Session.open(dsn: self.settings.sourceDSN, "node \"\(self.settings.sourceName)\"")
        // as for the stream: the way may be gone without a word
        bdr_host_conn_set_timeout(connection.raw, bdr_host_setting_int("wal_receiver_timeout", 60_000))
        self.connection = connection
        return connection
    }
}
