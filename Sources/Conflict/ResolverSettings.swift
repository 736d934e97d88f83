// One node's choice of a resolver for every conflict type, checked against the matrix of allowed pairs.

/// A resolver that may not be set, or a name that is none.
public struct ResolverError: Error, Equatable, Sendable {
    /// Five characters, as in PostgreSQL's errcodes.
    public var sqlstate: String
    public var message: String
    public var detail: String?
    public var hint: String?
}

/// Which resolver settles conflicts of which type. A value type: decisions take a copy along and never see half a
/// change.
public struct ResolverSettings: Equatable, Sendable {
    /// Where a new node differs from the defaults BDR documents.
    ///
    /// `update_recently_deleted`: an update that is later than the delete has to win on every node, as it does where it came
    /// first and the delete is the one that comes late.
    ///
    /// `delete_recently_updated`: with row versions it is also met by deletes that are later than the row; they win on the other
    /// nodes.
    public static let deviations: [ConflictType: Resolver] = [
        .updateRecentlyDeleted: .insertOrSkip, .deleteRecentlyUpdated: .updateIfNewer,
    ]

    private var overrides: [ConflictType: Resolver] = [:]

    /// Every type with the resolver a new node starts with.
    public init() {}

    /// The resolver in force.
    public func resolver(for type: ConflictType) -> Resolver {
        self.overrides[type] ?? Self.deviations[type] ?? type.defaultResolver
    }

    /// Whether a resolver was set for the type, be it the same one as the default.
    public func isOverridden(_ type: ConflictType) -> Bool {
        self.overrides[type] != nil
    }

    /// Sets the resolver of a type.
    /// - Throws: `ResolverError` when the type does not allow it; nothing is changed then.
    public mutating func set(_ resolver: Resolver, for type: ConflictType) throws(ResolverError) {
        guard type.allowedResolvers.contains(resolver) else {
            throw ResolverError(
                sqlstate: "22023",
                message:
                    "conflict resolver \"\(resolver.rawValue)\" can't be used for conflict type \"\(type.rawValue)\"",
                hint: "Resolvers of \"\(type.rawValue)\" are: \(Self.list(type.allowedResolvers)).")
        }
        self.overrides[type] = resolver
    }

    /// Sets the resolver of a type, both by the names users give.
    /// - Throws: `ResolverError` for an unknown name or a pair that is not allowed; nothing is changed then.
    public mutating func set(resolverName: String, forTypeName typeName: String) throws(ResolverError) {
        guard let type = ConflictType(rawValue: typeName) else {
            throw ResolverError(
                sqlstate: "22023", message: "unknown conflict type \"\(typeName)\"",
                hint: "Conflict types are: \(ConflictType.allCases.map(\.rawValue).joined(separator: ", ")).")
        }
        guard let resolver = Resolver(rawValue: resolverName) else {
            throw ResolverError(
                sqlstate: "22023", message: "unknown conflict resolver \"\(resolverName)\"",
                hint: "Resolvers of \"\(type.rawValue)\" are: \(Self.list(type.allowedResolvers)).")
        }
        try self.set(resolver, for: type)
    }

    /// Goes back to the resolver a new node starts with.
    public mutating func reset(_ type: ConflictType) {
        self.overrides[type] = nil
    }

    /// The names in the order of the declaration, so that messages don't change from run to run.
    private static func list(_ resolvers: Set<Resolver>) -> String {
        Resolver.allCases.filter { resolvers.contains($0) }.map(\.rawValue).joined(separator: ", ")
    }
}
