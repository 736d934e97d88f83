// Whether a server is set up for a node, and what to type when it is not. Nothing is created before this is settled.

/// What a server says about itself, gathered before a node is created or joins: nothing of the node exists yet.
public struct ServerSettings: Equatable, Sendable {
    /// The database of the node.
    public var databaseName: String
    /// `server_version_num`, for example 150020.
    public var serverVersionNum: Int
    /// Encoding of the database, for example "UTF8".
    public var encoding: String
    /// `datcollate` of the database; empty when not asked for.
    public var collation: String
    /// `wal_level`.
    public var walLevel: String
    public var trackCommitTimestamp: Bool
    /// `shared_preload_libraries`, split.
    public var preloadLibraries: [String]
    /// `output_plugin_libraries` as SHOW gives it in a session of this database; nil when the server has no such setting.
    public var outputPluginLibraries: String?
    public var maxReplicationSlots: Int
    public var usedSlots: Int
    /// `max_active_replication_origins` (PostgreSQL 18); nil when `max_replication_slots` limits the origins.
    public var maxReplicationOrigins: Int?
    public var usedOrigins: Int
    public var maxWalSenders: Int
    public var usedWalSenders: Int
    public var maxWorkerProcesses: Int
    /// About the role that connects.
    public var isSuperuser: Bool
    /// It has the REPLICATION attribute.
    public var isReplicationRole: Bool
    /// It is a member of bdr_superuser.
    public var isBdrSuperuser: Bool
    /// How many peers the node will have; 0 counts as 1, as a node alone waits for one.
    public var peers: Int
    /// Transactions in progress that are applied at a time, for each peer (`bdr.writers_per_subscription`).
    public var writers: Int

    public init(
        databaseName: String, serverVersionNum: Int, encoding: String, collation: String = "", walLevel: String,
        trackCommitTimestamp: Bool, preloadLibraries: [String], outputPluginLibraries: String?,
        maxReplicationSlots: Int, usedSlots: Int, maxReplicationOrigins: Int? = nil, usedOrigins: Int = 0,
        maxWalSenders: Int, usedWalSenders: Int, maxWorkerProcesses: Int, isSuperuser: Bool, isReplicationRole: Bool,
        isBdrSuperuser: Bool, peers: Int, writers: Int = 2
    ) {
        self.databaseName = databaseName
        self.serverVersionNum = serverVersionNum
        self.encoding = encoding
        self.collation = collation
        self.walLevel = walLevel
        self.trackCommitTimestamp = trackCommitTimestamp
        self.preloadLibraries = preloadLibraries
        self.outputPluginLibraries = outputPluginLibraries
        self.maxReplicationSlots = maxReplicationSlots
        self.usedSlots = usedSlots
        self.maxReplicationOrigins = maxReplicationOrigins
        self.usedOrigins = usedOrigins
        self.maxWalSenders = maxWalSenders
        self.usedWalSenders = usedWalSenders
        self.maxWorkerProcesses = maxWorkerProcesses
        self.isSuperuser = isSuperuser
        self.isReplicationRole = isReplicationRole
        self.isBdrSuperuser = isBdrSuperuser
        self.peers = peers
        self.writers = writers
    }
}

/// How a check came out, the worst last.
public enum CheckStatus: Int, Comparable, Sendable {
    case ok
    /// Works, but not for ever or not well.
    case warning
    /// Can't work.
    case error

    public static func < (left: CheckStatus, right: CheckStatus) -> Bool {
        left.rawValue < right.rawValue
    }
}

/// The outcome of one check.
public struct SettingCheck: Equatable, Sendable {
    /// The setting, or what else was looked at.
    public var name: String
    public var status: CheckStatus
    /// What was found.
    public var detail: String
    /// What to do; nil when all is well.
    public var hint: String?

    public init(name: String, status: CheckStatus, detail: String, hint: String? = nil) {
        self.name = name
        self.status = status
        self.detail = detail
        self.hint = hint
    }
}

/// Checks one server, always with the same checks in the same order.
public func checkSettings(_ settings: ServerSettings) -> [SettingCheck] {
    [
        checkVersion(settings), checkEncoding(settings), checkWalLevel(settings), checkCommitTimestamps(settings),
        checkPreload(settings), checkOutputPlugins(settings), checkSlots(settings), checkOrigins(settings),
        checkSenders(settings), checkWorkers(settings), checkRole(settings),
    ]
}

/// Checks that two servers can be nodes of one group, whatever each of them is like.
/// - Parameters:
///   - joining: the server of the new node.
///   - target: the server of the member that it joins through.
public func checkPair(joining: ServerSettings, target: ServerSettings) -> [SettingCheck] {
    var checks: [SettingCheck] = []
    let versions = "The joining node runs PostgreSQL \(major(joining)), the join target \(major(target))."
    checks.append(
        major(joining) < major(target)
            ? SettingCheck(
                name: "server versions", status: .error, detail: versions,
                hint: "The schema of a newer server can't be restored on an older one. Use PostgreSQL "
                    + "\(major(target)) or later for the joining node.")
            : SettingCheck(name: "server versions", status: .ok, detail: versions))
    let encodings = "The joining database has encoding \(joining.encoding), the target's has \(target.encoding)."
    checks.append(
        joining.encoding != target.encoding
            ? SettingCheck(
                name: "server encodings", status: .error, detail: encodings,
                hint: "Create the joining database anew: CREATE DATABASE \(quoted(joining.databaseName)) "
                    + "TEMPLATE template0 ENCODING '\(target.encoding)';")
            : SettingCheck(name: "server encodings", status: .ok, detail: encodings))
    let collations = "The joining database has collation \"\(joining.collation)\", the target's has "
        + "\"\(target.collation)\"."
    let differ = !joining.collation.isEmpty && !target.collation.isEmpty && joining.collation != target.collation
    checks.append(
        differ
            ? SettingCheck(
                name: "collations", status: .warning, detail: collations,
                hint: "Text sorts differently on the two nodes. Create the joining database with the target's "
                    + "collation if that matters.")
            : SettingCheck(name: "collations", status: .ok, detail: collations))
    return checks
}

/// Major versions of PostgreSQL that are supported.
private let supportedVersions = 15...18

private func major(_ settings: ServerSettings) -> Int {
    settings.serverVersionNum / 10_000
}

private func checkVersion(_ settings: ServerSettings) -> SettingCheck {
    let name = "server_version"
    let version = major(settings)
    let detail = "The server is PostgreSQL \(version)."
    if version < supportedVersions.lowerBound {
        return SettingCheck(
            name: name, status: .error, detail: detail,
            hint: "Use PostgreSQL \(supportedVersions.lowerBound) to \(supportedVersions.upperBound).")
    }
    if version > supportedVersions.upperBound {
        return SettingCheck(
            name: name, status: .warning, detail: detail,
            hint: "bdr was tested with PostgreSQL \(supportedVersions.lowerBound) to \(supportedVersions.upperBound).")
    }
    return SettingCheck(name: name, status: .ok, detail: detail)
}

private func checkEncoding(_ settings: ServerSettings) -> SettingCheck {
    let detail = "The database has encoding \(settings.encoding)."
    guard settings.encoding == "SQL_ASCII" else {
        return SettingCheck(name: "server_encoding", status: .ok, detail: detail)
    }
    return SettingCheck(
        name: "server_encoding", status: .warning, detail: detail,
        hint: "Nothing checks text in it. Prefer a database with encoding UTF8, on all nodes.")
}

private func checkWalLevel(_ settings: ServerSettings) -> SettingCheck {
    let detail = "wal_level is \(settings.walLevel)."
    guard settings.walLevel != "logical" else {
        return SettingCheck(name: "wal_level", status: .ok, detail: detail)
    }
    return SettingCheck(
        name: "wal_level", status: .error, detail: detail,
        hint: "ALTER SYSTEM SET wal_level = logical; then restart the server.")
}

private func checkCommitTimestamps(_ settings: ServerSettings) -> SettingCheck {
    let name = "track_commit_timestamp"
    guard !settings.trackCommitTimestamp else {
        return SettingCheck(name: name, status: .ok, detail: "\(name) is on.")
    }
    return SettingCheck(
        name: name, status: .error, detail: "\(name) is off; conflicts could not be resolved.",
        hint: "ALTER SYSTEM SET track_commit_timestamp = on; then restart the server.")
}

/// The name of the library, as users list it.
private let libraryName = "bdr"

/// Whether a library is ours, be it written with a path or a suffix.
private func isOurs(_ library: String) -> Bool {
    let file = library.split(separator: "/", omittingEmptySubsequences: true).last ?? ""
    return file == libraryName || file == libraryName + ".so"
}

private func checkPreload(_ settings: ServerSettings) -> SettingCheck {
    let name = "shared_preload_libraries"
    let detail = settings.preloadLibraries.isEmpty
        ? "\(name) is empty." : "\(name) is: \(listLiteral(settings.preloadLibraries))."
    guard !settings.preloadLibraries.contains(where: isOurs) else {
        return SettingCheck(name: name, status: .ok, detail: detail)
    }
    return SettingCheck(
        name: name, status: .error, detail: detail,
        hint: "ALTER SYSTEM SET \(name) = \(listLiteral(settings.preloadLibraries + [libraryName])); "
            + "then restart the server.")
}

private func checkOutputPlugins(_ settings: ServerSettings) -> SettingCheck {
    let name = "output_plugin_libraries"
    guard let value = settings.outputPluginLibraries else {
        return SettingCheck(name: name, status: .ok, detail: "This server has no list of allowed output plugins.")
    }
    let detail = "\(name) is: \(value)."
    let listed = parseList(value) ?? []
    guard !listed.contains(where: isOurs) else {
        return SettingCheck(name: name, status: .ok, detail: detail)
    }
    // 'a, b' in one pair of quotes, in ALTER ... SET, makes one name of it; it was surely meant as a list.
    let odd = listed.contains { $0.utf8.contains(UInt8(ascii: ",")) }
    var wanted: [String] = []
    for entry in listed.flatMap({ parseList($0) ?? [$0] }) + [libraryName] where !wanted.contains(entry) {
        wanted.append(entry)
    }
    return SettingCheck(
        name: name, status: .error, detail: detail,
        hint: "As a superuser: ALTER DATABASE \(quoted(settings.databaseName)) SET \(name) = \(listLiteral(wanted)); "
            + (odd ? "(without quotes around the whole list) " : "")
            + "new connections have it.")
}

/// A number far above any limit of the server stays far from overflow.
private func bounded(_ number: Int) -> Int {
    min(max(0, number), 10_000_000)
}

/// Compares what is free with what is needed.
/// - Parameters:
///   - setting: the setting that limits it.
///   - needed: without so many the node can't work.
///   - advised: with fewer it can't be joined through, or grow.
///   - name: of the check, where it isn't the setting's.
///   - floor: the hint gives no smaller value, where another check has one for the same setting.
private func checkCapacity(
    setting: String, limit: Int, used: Int, needed: Int, advised: Int, what: String, name: String? = nil,
    floor: Int = 0
) -> SettingCheck {
    let name = name ?? setting
    let limit = bounded(limit)
    let used = bounded(used)
    let needed = bounded(needed)
    let advised = max(needed, bounded(advised))
    let detail = "\(setting) is \(limit), of which \(used) are in use; \(what) needs \(needed)"
        + (advised > needed ? " and may use \(advised)." : ".")
    guard limit - used < advised else {
        return SettingCheck(name: name, status: .ok, detail: detail)
    }
    return SettingCheck(
        name: name, status: limit - used < needed ? .error : .warning, detail: detail,
        hint: "ALTER SYSTEM SET \(setting) = \(max(used + advised, floor)); then restart the server.")
}

/// Peers and writers to reckon with.
private func counts(_ settings: ServerSettings) -> (peers: Int, writers: Int) {
    (min(max(1, settings.peers), 1024), min(max(1, settings.writers), 1024))
}

/// One for every peer's stream and the group slot; as many again while peers join or catch up.
private func advisedSlots(_ settings: ServerSettings) -> Int {
    2 * counts(settings).peers + 1
}

/// The background workers of a node, among which are all roles of bdr_host.h.
enum NodeWorkers {
    /// Those that last, or that something waits for without: the supervisor of the server, the manager, for each peer one that
    /// applies and one that keeps its global locks, in groups of three and more nodes the one that serves the group, and one that
    /// joins or parts, or gets ranges of sequences.
    static func needed(peers: Int) -> Int {
        2 + 2 * peers + (peers > 1 ? 1 : 0) + 1
    }

    /// So that these two need not wait for one another, in groups of three and more nodes what a dead one has sent to others can
    /// be fetched at the same time, and large transactions are applied before they end.
    static func advised(peers: Int, writers: Int) -> Int {
        self.needed(peers: peers) + 1 + (peers > 1 ? 1 : 0) + peers * writers
    }
}

private func checkSlots(_ settings: ServerSettings) -> SettingCheck {
    // Where the setting limits origins too, both hints name a value that is enough for both: whoever follows the second
    // one must not undo the first.
    checkCapacity(
        setting: "max_replication_slots", limit: settings.maxReplicationSlots, used: settings.usedSlots,
        needed: counts(settings).peers + 1, advised: advisedSlots(settings), what: "the node",
        floor: settings.maxReplicationOrigins == nil
            ? bounded(settings.usedOrigins) + counts(settings).peers : 0)
}

private func checkOrigins(_ settings: ServerSettings) -> SettingCheck {
    checkCapacity(
        setting: settings.maxReplicationOrigins == nil ? "max_replication_slots" : "max_active_replication_origins",
        limit: settings.maxReplicationOrigins ?? settings.maxReplicationSlots, used: settings.usedOrigins,
        needed: counts(settings).peers, advised: counts(settings).peers, what: "tracking the progress of peers",
        name: "replication origins",
        floor: settings.maxReplicationOrigins == nil
            ? bounded(settings.usedSlots) + advisedSlots(settings) : 0)
}

private func checkSenders(_ settings: ServerSettings) -> SettingCheck {
    let peers = counts(settings).peers
    return checkCapacity(
        setting: "max_wal_senders", limit: settings.maxWalSenders, used: settings.usedWalSenders, needed: peers,
        advised: 2 * peers, what: "the node")
}

private func checkWorkers(_ settings: ServerSettings) -> SettingCheck {
    // how many others use can't be told
    let (peers, writers) = counts(settings)
    return checkCapacity(
        setting: "max_worker_processes", limit: settings.maxWorkerProcesses, used: 0,
        needed: NodeWorkers.needed(peers: peers), advised: NodeWorkers.advised(peers: peers, writers: writers), what: "the node")
}

private func checkRole(_ settings: ServerSettings) -> SettingCheck {
    if settings.isSuperuser || (settings.isReplicationRole && settings.isBdrSuperuser) {
        return SettingCheck(
            name: "role", status: .ok,
            detail: settings.isSuperuser
                ? "The role is a superuser." : "The role has REPLICATION and is a member of bdr_superuser.")
    }
    var missing: [String] = []
    var commands: [String] = []
    if !settings.isReplicationRole {
        missing.append("has no REPLICATION attribute")
        commands.append("ALTER ROLE ... REPLICATION;")
    }
    if !settings.isBdrSuperuser {
        missing.append("is no member of bdr_superuser")
        commands.append("GRANT bdr_superuser TO ...;")
    }
    return SettingCheck(
        name: "role", status: .error, detail: "The role \(missing.joined(separator: " and ")).",
        hint: "As a superuser, for the role of the connection string: " + commands.joined(separator: " "))
}
