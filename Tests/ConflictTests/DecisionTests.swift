// Each pair of a change and a local row, by table.

import Conflict
import Testing

@Suite struct DecisionTests {
    static let remote = RowVersion(time: 100, node: 5)

    /// A local row of another origin.
    static func other(_ time: Int64, node: UInt32 = 4) -> LocalState {
        .present(version: RowVersion(time: time, node: node), sameOrigin: false, ownTransaction: false)
    }

    /// A local row of the change's origin.
    static func same(_ time: Int64) -> LocalState {
        .present(version: RowVersion(time: time, node: 5), sameOrigin: true, ownTransaction: false)
    }

    /// No row, and another origin's delete.
    static func deleted(_ time: Int64, node: UInt32 = 4) -> LocalState {
        .missing(stamp: RowVersion(time: time, node: node), sameOrigin: false, ownTransaction: false)
    }

    /// No row, and a delete of the change's origin.
    static func deletedBySame(_ time: Int64) -> LocalState {
        .missing(stamp: RowVersion(time: time, node: 5), sameOrigin: true, ownTransaction: false)
    }

    static let ownDelete: LocalState = .missing(stamp: nil, sameOrigin: false, ownTransaction: true)
    static let frozen: LocalState = .present(version: nil, sameOrigin: false, ownTransaction: false)
    static let own: LocalState = .present(version: nil, sameOrigin: true, ownTransaction: true)
    /// As `own`, told with the version that the row will have.
    static let ownKnown: LocalState = .present(version: remote, sameOrigin: true, ownTransaction: true)

    @Test(arguments: [
        (LocalState.unknown, Decision.apply),
        (deleted(99), .apply),
        (deleted(101), .skip(.insertRecentlyDeleted)),
        (deleted(100, node: 4), .apply),
        (deleted(100, node: 6), .skip(.insertRecentlyDeleted)),
        (deletedBySame(101), .apply),
        (ownDelete, .apply),
        (other(99), .applyConflict(.insertExists)),
        (other(101), .skip(.insertExists)),
        (other(100, node: 4), .applyConflict(.insertExists)),
        (other(100, node: 6), .skip(.insertExists)),
        (same(99), .applyConflict(.insertExists)),
        (same(100), .applyConflict(.insertExists)),
        (same(101), .applyConflict(.insertExists)),
        (frozen, .applyConflict(.insertExists)),
        (own, .applyConflict(.insertExists)),
        (ownKnown, .applyConflict(.insertExists)),
    ])
    func insert(local: LocalState, decision: Decision) {
        #expect(decideInsert(local: local, remote: Self.remote) == decision)
    }

    @Test(arguments: [
        (LocalState.unknown, Decision.insertInstead(.updateMissing, orError: false)),
        (deleted(99), .insertInstead(.updateRecentlyDeleted, orError: false)),
        (deleted(101), .skip(.updateRecentlyDeleted)),
        (deletedBySame(101), .insertInstead(.updateRecentlyDeleted, orError: false)),
        (ownDelete, .insertInstead(.updateRecentlyDeleted, orError: false)),
        (other(99), .applyConflict(.updateOriginChange)),
        (other(101), .skip(.updateOriginChange)),
        (other(100, node: 4), .applyConflict(.updateOriginChange)),
        (other(100, node: 6), .skip(.updateOriginChange)),
        (same(99), .apply),
        (same(100), .apply),
        (same(101), .apply),
        (frozen, .apply),
        (own, .apply),
        (ownKnown, .apply),
    ])
    func update(local: LocalState, decision: Decision) {
        #expect(decideUpdate(local: local, remote: Self.remote) == decision)
    }

    @Test(arguments: [
        (LocalState.unknown, Decision.skip(.deleteMissing)),
        (deleted(99), .skip(.deleteMissing)), (deleted(101), .skip(.deleteMissing)),
        (other(99), .apply), (other(101), .skip(.deleteRecentlyUpdated)),
        (other(100, node: 4), .apply), (other(100, node: 6), .skip(.deleteRecentlyUpdated)),
        (same(99), .apply), (same(101), .apply), (frozen, .apply), (own, .apply),
    ])
    func delete(local: LocalState, decision: Decision) {
        #expect(decideDelete(local: local, remote: Self.remote) == decision)
    }

    @Test(arguments: [
        (other(99), true, Decision.applyConflict(.updateDiffering)), (other(101), true, .skip(.updateDiffering)),
        (same(101), true, .applyConflict(.updateDiffering)), (frozen, true, .applyConflict(.updateDiffering)),
        (own, true, .apply), (ownKnown, true, .apply),
        (other(99), false, .apply), (other(101), false, .skip(.updateOriginChange)),
        (same(101), false, .apply), (frozen, false, .apply),
        (deleted(101), true, .skip(.updateRecentlyDeleted)),
    ])
    func updateByRowVersion(local: LocalState, differs: Bool, decision: Decision) {
        #expect(decideUpdate(local: local, remote: Self.remote, differs: differs) == decision)
    }

    @Test(arguments: [
        (other(99), true, Decision.applyConflict(.deleteRecentlyUpdated)),
        (other(101), true, .skip(.deleteRecentlyUpdated)), (same(101), true, .applyConflict(.deleteRecentlyUpdated)),
        (frozen, true, .applyConflict(.deleteRecentlyUpdated)), (own, true, .apply),
        (other(99), false, .apply), (other(101), false, .skip(.deleteRecentlyUpdated)),
        (LocalState.unknown, true, .skip(.deleteMissing)),
    ])
    func deleteByRowVersion(local: LocalState, differs: Bool, decision: Decision) {
        #expect(decideDelete(local: local, remote: Self.remote, differs: differs) == decision)
    }

    /// As BDR has it, unless told otherwise.
    @Test func deletesOfOtherVersionsCanBeSkipped() throws {
        let settings = try Self.with(.skip, for: .deleteRecentlyUpdated)
        #expect(
            decideDelete(local: Self.other(99), remote: Self.remote, settings: settings, differs: true)
                == .skip(.deleteRecentlyUpdated))
        #expect(decideDelete(local: Self.other(99), remote: Self.remote, settings: settings, differs: false) == .apply)
    }

    static func with(_ resolver: Resolver, for type: ConflictType) throws -> ResolverSettings {
        var settings = ResolverSettings()
        try settings.set(resolver, for: type)
        return settings
    }

    @Test func resolversOfExistingRows() throws {
        for (type, decide) in [
            (ConflictType.insertExists, { decideInsert(local: $0, remote: Self.remote, settings: $1) }),
            (.updateOriginChange, { decideUpdate(local: $0, remote: Self.remote, settings: $1) }),
        ] as [(ConflictType, (LocalState, ResolverSettings) -> Decision)] {
            for local in [Self.other(99), Self.other(101)] {
                #expect(try decide(local, Self.with(.update, for: type)) == .applyConflict(type))
                #expect(try decide(local, Self.with(.skip, for: type)) == .skip(type))
                #expect(try decide(local, Self.with(.error, for: type)) == .error(type))
            }
        }
        // No conflict, no resolver.
        for local in [Self.same(99), Self.frozen, Self.own] {
            let settings = try Self.with(.error, for: .updateOriginChange)
            #expect(decideUpdate(local: local, remote: Self.remote, settings: settings) == .apply)
        }
    }

    @Test(arguments: [
        (Resolver.skip, Decision.skip(.updateMissing)),
        (.error, .error(.updateMissing)),
        (.insertOrSkip, .insertInstead(.updateMissing, orError: false)),
        (.insertOrError, .insertInstead(.updateMissing, orError: true)),
    ])
    func updateMissing(resolver: Resolver, decision: Decision) throws {
        let settings = try Self.with(resolver, for: .updateMissing)
        #expect(decideUpdate(local: .unknown, remote: Self.remote, settings: settings) == decision)
    }

    @Test(arguments: [
        (unknown, Decision.apply), (deleted(99), .apply), (deleted(101), .skip(.updateRecentlyDeleted)),
        (other(99), .applyConflict(.updatePkeyExists)), (other(101), .skip(.updatePkeyExists)),
        (own, .applyConflict(.updatePkeyExists)),
    ])
    func newKey(local: LocalState, decision: Decision) {
        #expect(decideNewKey(local: local, remote: Self.remote) == decision)
    }

    static let unknown = LocalState.unknown

    /// Of values that an UPDATE leaves out: who wrote it there, who here, who the row here; whether it is the same.
    @Test(arguments: [
        (RowVersion(time: 7, node: 3), RowVersion(time: 7, node: 3), RowVersion(time: 90, node: 4), true),
        (RowVersion(time: 7, node: 3), RowVersion(time: 7, node: 4), RowVersion(time: 90, node: 4), false),
        (RowVersion(time: 7, node: 3), nil, RowVersion(time: 90, node: 5), true),
        (RowVersion(time: 90, node: 5), nil, RowVersion(time: 90, node: 5), true),
        (RowVersion(time: 91, node: 3), nil, RowVersion(time: 90, node: 5), false),
        (nil, nil, RowVersion(time: 90, node: 5), false),
        (nil, RowVersion(time: 7, node: 3), nil, false),
        (RowVersion(time: 7, node: 3), nil, nil, false),
    ] as [(RowVersion?, RowVersion?, RowVersion?, Bool)])
    func unchangedValue(there: RowVersion?, here: RowVersion?, row: RowVersion?, isSame: Bool) {
        func keeps(_ ownTransaction: Bool) -> Bool {
            keepsUnchanged(there: there, here: here, row: row, remote: Self.remote, ownTransaction: ownTransaction)
        }
        #expect(keeps(false) == isSame)
        #expect(keeps(true))
    }

    @Test func deleteMissingAsError() throws {
        let settings = try Self.with(.error, for: .deleteMissing)
        #expect(decideDelete(local: .unknown, remote: Self.remote, settings: settings) == .error(.deleteMissing))
    }

    @Test func otherTypesOfConflictUseTheSameCore() throws {
        let settings = ResolverSettings()
        #expect(
            resolve(.updatePkeyExists, local: Self.other(99), remote: Self.remote, settings: settings)
                == .applyConflict(.updatePkeyExists))
        #expect(
            resolve(.updatePkeyExists, local: Self.other(101), remote: Self.remote, settings: settings)
                == .skip(.updatePkeyExists))
        #expect(
            resolve(.multipleUniqueConflicts, local: Self.other(99), remote: Self.remote, settings: settings)
                == .error(.multipleUniqueConflicts))
        // Needs to know columns or tables: never guessed.
        for type in [ConflictType.targetColumnMissing, .sourceColumnMissing, .targetTableMissing, .applyErrorDdl] {
            #expect(resolve(type, local: .unknown, remote: Self.remote, settings: settings) == .error(type))
        }
    }

    @Test func whatIsRecorded() {
        #expect(Decision.apply.conflictType == nil)
        #expect(Decision.apply.resolution == nil)
        #expect(Decision.applyConflict(.insertExists).resolution == .applyRemote)
        #expect(Decision.insertInstead(.updateMissing, orError: false).resolution == .applyRemote)
        #expect(Decision.skip(.updateMissing).resolution == .skip)
        #expect(Decision.error(.deleteMissing).resolution == nil)
        #expect(Decision.error(.deleteMissing).conflictType == .deleteMissing)
    }
}
