// The checks before a node is created or joins: what each of them finds, and the line to type.

import Membership
import Testing

@Suite struct PreflightTests {
    /// A server on which all is well, with one peer.
    static let good = ServerSettings(
        databaseName: "app", serverVersionNum: 150_020, encoding: "UTF8", collation: "C.UTF-8", walLevel: "logical",
        trackCommitTimestamp: true, preloadLibraries: ["bdr"], outputPluginLibraries: nil, maxReplicationSlots: 10,
        usedSlots: 0, maxWalSenders: 10, usedWalSenders: 0, maxWorkerProcesses: 8, isSuperuser: true,
        isReplicationRole: false, isBdrSuperuser: false, peers: 1)

    static let names = [
        "server_version", "server_encoding", "wal_level", "track_commit_timestamp", "shared_preload_libraries",
        "output_plugin_libraries", "max_replication_slots", "replication origins", "max_wal_senders",
        "max_worker_processes", "role",
    ]

    /// The check of that name, after a change to the good server; every other one is expected to be as it was.
    static func check(_ name: String, _ change: (inout ServerSettings) -> Void) throws -> SettingCheck {
        var settings = Self.good
        change(&settings)
        let checks = checkSettings(settings)
        #expect(checks.map(\.name) == Self.names)
        #expect(checks.filter { $0.name != name && $0.status != .ok } == [])
        return try #require(checks.first { $0.name == name })
    }

    @Test func allIsWell() {
        let checks = checkSettings(Self.good)
        #expect(checks.map(\.name) == Self.names)
        #expect(checks.allSatisfy { $0.status == .ok && $0.hint == nil && !$0.detail.isEmpty })
    }

    @Test func statusesAreOrdered() {
        #expect([CheckStatus.error, .ok, .warning].max() == .error)
        #expect(CheckStatus.ok < .warning)
    }

    @Test(
        arguments: [
            (140_019, CheckStatus.error, "Use PostgreSQL 15 to 18."), (90_624, .error, "Use PostgreSQL 15 to 18."),
            (150_000, .ok, nil), (180_002, .ok, nil), (190_000, .warning, "bdr was tested with PostgreSQL 15 to 18."),
        ] as [(Int, CheckStatus, String?)])
    func versions(number: Int, status: CheckStatus, hint: String?) throws {
        let check = try Self.check("server_version") { $0.serverVersionNum = number }
        #expect(check.status == status)
        #expect(check.detail == "The server is PostgreSQL \(number / 10_000).")
        #expect(check.hint == hint)
    }

    @Test func encoding() throws {
        let check = try Self.check("server_encoding") { $0.encoding = "SQL_ASCII" }
        #expect(check.status == .warning)
        #expect(check.hint == "Nothing checks text in it. Prefer a database with encoding UTF8, on all nodes.")
        #expect(try Self.check("server_encoding") { $0.encoding = "LATIN1" }.status == .ok)
    }

    @Test(arguments: ["minimal", "replica", ""]) func walLevel(level: String) throws {
        let check = try Self.check("wal_level") { $0.walLevel = level }
        #expect(check.status == .error)
        #expect(check.detail == "wal_level is \(level).")
        #expect(check.hint == "ALTER SYSTEM SET wal_level = logical; then restart the server.")
    }

    @Test func commitTimestamps() throws {
        let check = try Self.check("track_commit_timestamp") { $0.trackCommitTimestamp = false }
        #expect(check.status == .error)
        #expect(check.hint == "ALTER SYSTEM SET track_commit_timestamp = on; then restart the server.")
    }

    // MARK: lists of libraries

    /// The hint keeps what is there.
    @Test(
        arguments: [
            ([], "bdr", "shared_preload_libraries is empty."),
            (["pg_stat_statements"], "pg_stat_statements, bdr", "shared_preload_libraries is: pg_stat_statements."),
            (
                ["$libdir/x", "a,b"], "\"$libdir/x\", \"a,b\", bdr",
                "shared_preload_libraries is: \"$libdir/x\", \"a,b\"."
            ),
            (["bdr2", "xbdr"], "bdr2, xbdr, bdr", "shared_preload_libraries is: bdr2, xbdr."),
        ] as [([String], String, String)])
    func preloadMissing(libraries: [String], list: String, detail: String) throws {
        let check = try Self.check("shared_preload_libraries") { $0.preloadLibraries = libraries }
        #expect(check.status == .error)
        #expect(check.detail == detail)
        #expect(
            check.hint == "ALTER SYSTEM SET shared_preload_libraries = \(list); then restart the server.")
    }

    @Test(arguments: [["bdr"], ["x", "$libdir/bdr"], ["/usr/lib/postgresql/15/lib/bdr.so", "y"], ["bdr.so"]])
    func preloadThere(libraries: [String]) throws {
        #expect(try Self.check("shared_preload_libraries") { $0.preloadLibraries = libraries }.status == .ok)
    }

    @Test(arguments: [
        ("", "bdr", false), ("pgoutput", "pgoutput, bdr", false),
        ("pgoutput, test_decoding", "pgoutput, test_decoding, bdr", false),
        // Quoted as a whole, and so one name with a comma in it.
        ("\"pgoutput, bdr\"", "pgoutput, bdr", true), ("\"pgoutput, x\"", "pgoutput, x, bdr", true),
        // Not a list at all: written anew.
        ("\"", "bdr", false), ("pgoutput, pgoutput", "pgoutput, bdr", false),
    ])
    func outputPluginMissing(value: String, list: String, odd: Bool) throws {
        let check = try Self.check("output_plugin_libraries") { $0.outputPluginLibraries = value }
        #expect(check.status == .error)
        #expect(check.detail == "output_plugin_libraries is: \(value).")
        #expect(
            check.hint == "As a superuser: ALTER DATABASE \"app\" SET output_plugin_libraries = \(list); "
                + (odd ? "(without quotes around the whole list) " : "") + "new connections have it.")
    }

    @Test(arguments: ["bdr", "pgoutput, bdr", "\"$libdir/bdr\"", " bdr "])
    func outputPluginThere(value: String) throws {
        #expect(try Self.check("output_plugin_libraries") { $0.outputPluginLibraries = value }.status == .ok)
    }

    @Test func oddDatabaseName() throws {
        var settings = Self.good
        settings.databaseName = "My \"App\""
        settings.outputPluginLibraries = "pgoutput"
        let check = try #require(checkSettings(settings).first { $0.name == "output_plugin_libraries" })
        #expect(check.hint?.contains("ALTER DATABASE \"My \"\"App\"\"\" SET ") == true)
    }

    // MARK: capacities

    /// One peer: two slots are needed, three advised.
    @Test(
        arguments: [
            (10, 8, CheckStatus.warning, 11), (10, 7, .ok, nil), (10, 9, .error, 12), (10, 10, .error, 13),
            (2, 0, .warning, 3), (3, 0, .ok, nil),
        ] as [(Int, Int, CheckStatus, Int?)])
    func slots(limit: Int, used: Int, status: CheckStatus, value: Int?) throws {
        let check = try Self.check("max_replication_slots") {
            $0.maxReplicationSlots = limit
            $0.usedSlots = used
        }
        #expect(check.status == status)
        #expect(
            check.detail == "max_replication_slots is \(limit), of which \(used) are in use; the node needs 2 and may "
                + "use 3.")
        #expect(
            check.hint == value.map { "ALTER SYSTEM SET max_replication_slots = \($0); then restart the server." })
    }

    @Test func originsOfAServerBefore18() throws {
        let check = try Self.check("replication origins") {
            $0.usedOrigins = 10
        }
        #expect(check.status == .error)
        #expect(
            check.detail == "max_replication_slots is 10, of which 10 are in use; tracking the progress of peers "
                + "needs 1.")
        #expect(check.hint == "ALTER SYSTEM SET max_replication_slots = 11; then restart the server.")
    }

    @Test func originsSince18() throws {
        let check = try Self.check("replication origins") {
            $0.maxReplicationOrigins = 2
            $0.usedOrigins = 2
            $0.writers = 2
        }
        #expect(check.status == .error)
        #expect(
            check.detail == "max_active_replication_origins is 2, of which 2 are in use; tracking the progress of "
                + "peers needs 1.")
        #expect(check.hint == "ALTER SYSTEM SET max_active_replication_origins = 3; then restart the server.")
    }

    /// One setting for both: whichever hint is followed last, it is enough for both.
    @Test(arguments: [(0, 0), (5, 0), (0, 30), (9, 10)]) func slotAndOriginHintsAgree(slots: Int, origins: Int) throws {
        var settings = Self.good
        settings.maxReplicationSlots = 1
        settings.usedSlots = slots
        settings.usedOrigins = origins
        settings.peers = 4
        let hints = Set(
            checkSettings(settings).filter { $0.detail.hasPrefix("max_replication_slots") }.map(\.hint))
        let value = max(slots + 9, origins + 4)
        #expect(hints == ["ALTER SYSTEM SET max_replication_slots = \(value); then restart the server."])
    }

    @Test(
        arguments: [(10, 8, CheckStatus.ok, nil), (10, 9, .warning, 11), (10, 10, .error, 12), (0, 0, .error, 2)]
            as [(Int, Int, CheckStatus, Int?)])
    func senders(limit: Int, used: Int, status: CheckStatus, value: Int?) throws {
        let check = try Self.check("max_wal_senders") {
            $0.maxWalSenders = limit
            $0.usedWalSenders = used
        }
        #expect(check.status == status)
        #expect(check.hint == value.map { "ALTER SYSTEM SET max_wal_senders = \($0); then restart the server." })
    }

    @Test(
        arguments: [
            (1, 8, CheckStatus.ok, nil), (1, 7, .warning, 8), (1, 5, .warning, 8), (1, 4, .error, 8), (1, 0, .error, 8),
            (2, 14, .ok, nil), (2, 8, .warning, 14), (2, 7, .error, 14), (4, 22, .ok, nil), (4, 21, .warning, 22),
        ] as [(Int, Int, CheckStatus, Int?)])
    func workers(peers: Int, limit: Int, status: CheckStatus, value: Int?) throws {
        let check = try Self.check("max_worker_processes") {
            $0.maxWorkerProcesses = limit
            $0.peers = peers
        }
        #expect(check.status == status)
        #expect(check.hint == value.map { "ALTER SYSTEM SET max_worker_processes = \($0); then restart the server." })
    }

    /// Whoever does what the hints say has a server on which all is well.
    @Test func hintsAreEnough() throws {
        for peers in [0, 1, 2, 7, 40] {
            for writers in [1, 2, 4] {
                var settings = Self.good
                (settings.peers, settings.writers) = (peers, writers)
                (settings.maxReplicationSlots, settings.usedSlots, settings.usedOrigins) = (0, 3, 5)
                (settings.maxWalSenders, settings.usedWalSenders, settings.maxWorkerProcesses) = (0, 2, 0)
                for check in checkSettings(settings) where check.status != .ok {
                    let words = try #require(check.hint).split(whereSeparator: { " ;".contains($0) })
                    let value = try #require(words.compactMap { Int($0) }.first)
                    switch words[3] {
                    case "max_replication_slots": settings.maxReplicationSlots = value
                    case "max_wal_senders": settings.maxWalSenders = value
                    case "max_worker_processes": settings.maxWorkerProcesses = value
                    default: Issue.record("\(words)")
                    }
                }
                #expect(checkSettings(settings).allSatisfy { $0.status == .ok })
            }
        }
    }

    @Test func extremeNumbersDoNotOverflow() {
        for number in [Int.min, -1, 0, Int.max] {
            var settings = Self.good
            settings.serverVersionNum = number
            settings.maxReplicationSlots = number
            settings.usedSlots = number
            settings.maxReplicationOrigins = number
            settings.usedOrigins = number
            settings.maxWalSenders = number
            settings.usedWalSenders = number
            settings.maxWorkerProcesses = number
            settings.peers = number
            settings.writers = number
            #expect(checkSettings(settings).map(\.name) == Self.names)
            settings.maxReplicationOrigins = nil
            #expect(checkSettings(settings).map(\.name) == Self.names)
            #expect(checkPair(joining: settings, target: settings).count == 3)
        }
    }

    // MARK: role

    @Test(
        arguments: [
            (true, false, false, nil), (true, true, true, nil), (false, true, true, nil),
            (false, true, false, "GRANT bdr_superuser TO ...;"), (false, false, true, "ALTER ROLE ... REPLICATION;"),
            (false, false, false, "ALTER ROLE ... REPLICATION; GRANT bdr_superuser TO ...;"),
        ] as [(Bool, Bool, Bool, String?)])
    func role(superuser: Bool, replication: Bool, bdrSuperuser: Bool, commands: String?) throws {
        let check = try Self.check("role") {
            $0.isSuperuser = superuser
            $0.isReplicationRole = replication
            $0.isBdrSuperuser = bdrSuperuser
        }
        #expect(check.status == (commands == nil ? .ok : .error))
        #expect(check.hint == commands.map { "As a superuser, for the role of the connection string: " + $0 })
    }

    // MARK: pairs

    /// The checks of a pair, after a change to the joining one.
    static func pair(_ change: (inout ServerSettings) -> Void) -> [SettingCheck] {
        var joining = Self.good
        change(&joining)
        let checks = checkPair(joining: joining, target: Self.good)
        #expect(checks.map(\.name) == ["server versions", "server encodings", "collations"])
        return checks
    }

    @Test func likePair() {
        #expect(Self.pair { _ in }.allSatisfy { $0.status == .ok && $0.hint == nil })
        #expect(Self.pair { $0.serverVersionNum = 180_001 }.allSatisfy { $0.status == .ok })
        #expect(Self.pair { $0.serverVersionNum = 150_001 }.allSatisfy { $0.status == .ok })
        #expect(Self.pair { $0.collation = "" }.allSatisfy { $0.status == .ok })
    }

    @Test func olderServerCannotJoin() {
        var target = Self.good
        target.serverVersionNum = 170_004
        let check = checkPair(joining: Self.good, target: target)[0]
        #expect(check.status == .error)
        #expect(check.detail == "The joining node runs PostgreSQL 15, the join target 17.")
        #expect(check.hint?.hasSuffix("Use PostgreSQL 17 or later for the joining node.") == true)
    }

    @Test func otherEncodingCannotJoin() {
        let check = Self.pair {
            $0.encoding = "LATIN1"
            $0.databaseName = "x\"y"
        }[1]
        #expect(check.status == .error)
        #expect(check.detail == "The joining database has encoding LATIN1, the target's has UTF8.")
        #expect(
            check.hint
                == "Create the joining database anew: CREATE DATABASE \"x\"\"y\" TEMPLATE template0 ENCODING 'UTF8';")
    }

    @Test func otherCollationIsAWarning() {
        let check = Self.pair { $0.collation = "de_DE.UTF-8" }[2]
        #expect(check.status == .warning)
        #expect(check.detail == "The joining database has collation \"de_DE.UTF-8\", the target's has \"C.UTF-8\".")
        #expect(check.hint != nil)
    }
}
