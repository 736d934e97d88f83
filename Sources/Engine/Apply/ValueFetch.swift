// Asks the node that a stream comes from for values that an UPDATE leaves out as unchanged, where this node can't tell that it
// has the same ones.
//
// It asks by the pointer that came with the change. A value that is gone there was part of a row that has been overwritten
// or deleted since by something that will arrive here, too; then the UPDATE need not be applied.

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
