// The module's decisions as the rules of the model.

import Conflict

struct DecisionRules: Rules {
    var settings = ResolverSettings()

    func takesEffect(_ kind: ChangeKind, known: Known, remote: RowVersion) -> Bool {
        let local: LocalState =
            known.hasRow
            ? .present(version: known.stamp, sameOrigin: known.sameOrigin, ownTransaction: known.ownTransaction)
            : .missing(stamp: known.stamp, sameOrigin: known.sameOrigin, ownTransaction: known.ownTransaction)
        let decision =
            switch kind {
            case .insert: decideInsert(local: local, remote: remote, settings: self.settings)
            case .update: decideUpdate(local: local, remote: remote, settings: self.settings)
            case .newKey: decideNewKey(local: local, remote: remote, settings: self.settings)
            case .delete, .oldKey: decideDelete(local: local, remote: remote, settings: self.settings)
            }
        switch decision {
        case .apply, .applyConflict, .insertInstead: return true
        // A delete that finds no row is remembered, unless something later is known.
        case .skip(.deleteMissing): return local.isOlder(than: remote)
        case .skip, .error: return false
        }
    }

    func keepsUnchanged(
        there: RowVersion?, here: RowVersion?, row: RowVersion?, remote: RowVersion, ownTransaction: Bool
    ) -> Bool {
        Conflict.keepsUnchanged(there: there, here: here, row: row, remote: remote, ownTransaction: ownTransaction)
    }
}
