// The matrix of conflict types and resolvers, and the settings that keep to it.

import Conflict
import Testing

@Suite struct ResolverTests {
    @Test func namesAreTheDocumentedOnes() {
        #expect(
            ConflictType.allCases.map(\.rawValue) == [
                "insert_exists", "update_differing", "update_origin_change", "update_missing",
                "update_recently_deleted", "update_pkey_exists", "multiple_unique_conflicts",
                "delete_recently_updated", "delete_missing", "target_column_missing", "source_column_missing",
                "target_table_missing", "apply_error_ddl", "insert_recently_deleted",
            ])
        #expect(
            Resolver.allCases.map(\.rawValue) == [
                "error", "skip", "skip_if_recently_dropped", "skip_transaction", "update_if_newer", "update",
                "insert_or_skip", "insert_or_error", "ignore", "ignore_if_null", "use_default_value",
            ])
        #expect(Resolution.allCases.map(\.rawValue) == ["apply_remote", "skip", "merge", "user"])
    }

    @Test(arguments: [
        ("insert_exists", "update_if_newer"), ("update_differing", "update_if_newer"),
        ("update_origin_change", "update_if_newer"), ("update_missing", "insert_or_skip"),
        ("update_recently_deleted", "skip"), ("update_pkey_exists", "update_if_newer"),
        ("multiple_unique_conflicts", "error"), ("delete_recently_updated", "skip"), ("delete_missing", "skip"),
        ("target_column_missing", "ignore_if_null"), ("source_column_missing", "use_default_value"),
        ("target_table_missing", "skip_if_recently_dropped"), ("apply_error_ddl", "error"),
        ("insert_recently_deleted", "skip"),
    ])
    func documentedDefault(type: String, resolver: String) throws {
        let type = try #require(ConflictType(rawValue: type))
        #expect(type.defaultResolver.rawValue == resolver)
        #expect(type.allowedResolvers.contains(type.defaultResolver))
    }

    /// The matrix the other way round: where each resolver may be used.
    @Test(arguments: [
        ("error", "*"), ("skip", "* but apply_error_ddl"), ("skip_if_recently_dropped", "target_table_missing"),
        ("skip_transaction", "apply_error_ddl"),
        (
            "update_if_newer",
            "insert_exists update_differing update_origin_change update_pkey_exists multiple_unique_conflicts "
                + "delete_recently_updated"
        ),
        (
            "update",
            "insert_exists update_differing update_origin_change update_pkey_exists multiple_unique_conflicts "
                + "delete_recently_updated insert_recently_deleted"
        ),
        ("insert_or_skip", "update_missing update_recently_deleted"),
        ("insert_or_error", "update_missing update_recently_deleted"), ("ignore", "target_column_missing"),
        ("ignore_if_null", "target_column_missing"), ("use_default_value", "source_column_missing"),
    ])
    func allowedFor(resolver: String, types: String) throws {
        let resolver = try #require(Resolver(rawValue: resolver))
        let all = Set(ConflictType.allCases.map(\.rawValue))
        let expected =
            switch types {
            case "*": all
            case "* but apply_error_ddl": all.subtracting(["apply_error_ddl"])
            default: Set(types.split(separator: " ").map(String.init))
            }
        let found = ConflictType.allCases.filter { $0.allowedResolvers.contains(resolver) }.map(\.rawValue)
        #expect(Set(found) == expected)
    }

    @Test func conflictTriggersAreForRowConflicts() {
        #expect(ConflictType.allCases.filter(\.allowsConflictTrigger).count == 10)
        #expect(!ConflictType.applyErrorDdl.allowsConflictTrigger)
        #expect(ConflictType.deleteMissing.allowsConflictTrigger)
    }

    @Test func settingsStartWithDefaultsAndTheStatedDeviations() {
        let settings = ResolverSettings()
        for type in ConflictType.allCases {
            let expected: Resolver =
                switch type {
                case .updateRecentlyDeleted: .insertOrSkip
                case .deleteRecentlyUpdated: .updateIfNewer
                default: type.defaultResolver
                }
            #expect(settings.resolver(for: type) == expected)
            #expect(!settings.isOverridden(type))
        }
        #expect(ResolverSettings.deviations == [.updateRecentlyDeleted: .insertOrSkip, .deleteRecentlyUpdated: .updateIfNewer])
    }

    @Test func settingsTakeExactlyTheAllowedPairs() {
        for type in ConflictType.allCases {
            for resolver in Resolver.allCases {
                var settings = ResolverSettings()
                if type.allowedResolvers.contains(resolver) {
                    #expect(throws: Never.self) { try settings.set(resolver, for: type) }
                    #expect(settings.resolver(for: type) == resolver)
                    #expect(settings.isOverridden(type))
                    settings.reset(type)
                } else {
                    #expect(throws: ResolverError.self) { try settings.set(resolver, for: type) }
                }
                #expect(settings == ResolverSettings())
            }
        }
    }

    @Test func refusalsSayWhatIsAllowed() throws {
        var settings = ResolverSettings()
        let pair = #expect(throws: ResolverError.self) {
            try settings.set(resolverName: "update", forTypeName: "delete_missing")
        }
        #expect(pair?.sqlstate == "22023")
        #expect(
            pair?.message == "conflict resolver \"update\" can't be used for conflict type \"delete_missing\"")
        #expect(pair?.hint == "Resolvers of \"delete_missing\" are: error, skip.")
        let resolver = #expect(throws: ResolverError.self) {
            try settings.set(resolverName: "newest", forTypeName: "insert_exists")
        }
        #expect(resolver?.message == "unknown conflict resolver \"newest\"")
        #expect(resolver?.hint == "Resolvers of \"insert_exists\" are: error, skip, update_if_newer, update.")
        let type = #expect(throws: ResolverError.self) {
            try settings.set(resolverName: "skip", forTypeName: "insert")
        }
        #expect(type?.message == "unknown conflict type \"insert\"")
        try settings.set(resolverName: "update", forTypeName: "insert_exists")
        #expect(settings.resolver(for: .insertExists) == .update)
    }
}
