// Conflict detection by the version of rows (method row_version).

internal import CHost
internal import Wire

extension Applier {
    /// Whether the located row has another version than the one that a change was made with.
    /// - Parameters:
    ///   - old: the row as it was at the origin.
    ///   - kind: how much of it is known.
    /// - Returns: nil when the table is not of that method, or something that it needs is missing.
    func differs(
        _ old: TupleView?, _ kind: OldTupleKind, _ relation: AppliedRelation, _ found: BdrFound
    ) throws -> Bool? {
        guard relation.info.row_version != 0, kind == .full, found.found != 0, let old else {
            return nil
        }
        return try self.oldBuilder.withRow(old, relation) { row in
            try host(bdr_host_version_differs(relation.handle, &row)) != 0
        }
    }
}
