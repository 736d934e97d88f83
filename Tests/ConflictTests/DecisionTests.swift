// Each pair of a change and a local row, by table.

import Conflict
import Testing

@Suite struct DecisionTests {
    static let remote = RowVersion(time: 100, node: 5)

    /// A local row of another origin.
    static func other(_ time: Int64, node: UInt32 = 4) -> LocalRow {
        .present(version: RowVersion(time: time, node: node), sameOrigin: false, ownTransaction: false)
    }

    /// A local row of the change's origin.
    static func same(_ time: Int64) -> LocalRow {
        .present(version: RowVersion(time: time, node: 5), sameOrigin: true, ownTransaction: false)
    }

    static let frozen: LocalRow = .present(version: nil, sameOrigin: false, ownTransaction: false)
    static let own: LocalRow = .present(version: nil, sameOrigin: true, ownTransaction: true)
    /// As `own`, told with the version that the row will have.
    static let ownKnown: LocalRow = .present(version: remote, sameOrigin: true, ownTransaction: true)

    @Test(arguments: [
        (LocalRow.missing, Decision.apply),
        (other(99), .applyConflict(.insertExists)),
        (other(101), .skip(.insertExists)),
        (other(100, node: 4), .applyConflict(.insertExists)),
        (other(100, node: 6), .skip(.insertExists)),
        (same(99), .applyConflict(.insertExists)),
        (same(100), .applyConflict(.insertExists)),
        (same(101), .skip(.insertExists)),
        (frozen, .applyConflict(.insertExists)),
        (own, .applyConflict(.insertExists)),
        (ownKnown, .applyConflict(.insertExists)),
    ])
    func insert(local: LocalRow, decision: Decision) {
        #expect(decideInsert(local: local, remote: Self.remote) == decision)
    }

    @Test(arguments: [
        (LocalRow.missing, Decision.skip(.updateMissing)),
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
    func update(local: LocalRow, decision: Decision) {
        #expect(decideUpdate(local: local, remote: Self.remote) == decision)
    }

    @Test(arguments: [
        (LocalRow.missing, Decision.skip(.deleteMissing)),
        (other(99), .apply), (other(101), .apply), (other(100, node: 6), .apply),
        (same(99), .apply), (same(101), .apply), (frozen, .apply), (own, .apply),
    ])
    func delete(local: LocalRow, decision: Decision) {
        #expect(decideDelete(local: local, remote: Self.remote) == decision)
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
        ] as [(ConflictType, (LocalRow, ResolverSettings) -> Decision)] {
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
        (Resolver.skip, true, Decision.skip(.updateMissing)),
        (.skip, false, .skip(.updateMissing)),
        (.error, true, .error(.updateMissing)),
        (.insertOrSkip, true, .insertInstead(.updateMissing)),
        (.insertOrSkip, false, .skip(.updateMissing)),
        (.insertOrError, true, .insertInstead(.updateMissing)),
        (.insertOrError, false, .error(.updateMissing)),
    ])
    func updateMissing(resolver: Resolver, complete: Bool, decision: Decision) throws {
        let settings = try Self.with(resolver, for: .updateMissing)
        let found = decideUpdate(local: .missing, remote: Self.remote, newRowComplete: complete, settings: settings)
        #expect(found == decision)
    }

    @Test func deleteMissingAsError() throws {
        let settings = try Self.with(.error, for: .deleteMissing)
        #expect(decideDelete(local: .missing, remote: Self.remote, settings: settings) == .error(.deleteMissing))
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
            #expect(resolve(type, local: .missing, remote: Self.remote, settings: settings) == .error(type))
        }
    }

    @Test func whatIsRecorded() {
        #expect(Decision.apply.conflictType == nil)
        #expect(Decision.apply.resolution == nil)
        #expect(Decision.applyConflict(.insertExists).resolution == .applyRemote)
        #expect(Decision.insertInstead(.updateMissing).resolution == .applyRemote)
        #expect(Decision.skip(.updateMissing).resolution == .skip)
        #expect(Decision.error(.deleteMissing).resolution == nil)
        #expect(Decision.error(.deleteMissing).conflictType == .deleteMissing)
    }
}
