// What bdrctl doctor makes of what it is told.

import Operations
import Testing

@Suite struct DiagnosisTests {
    static func facts(_ change: (inout NodeFacts) -> Void) -> [Finding] {
        var facts = NodeFacts(name: "a", state: "ACTIVE")
        change(&facts)
        return diagnose(facts)
    }

    @Test func nothing() {
        #expect(Self.facts { $0.peers = [.init(name: "b"), .init(name: "c", receiving: "catchup")] } == [])
        #expect(Self.facts { $0.join = ("active", nil, nil) } == [])
        #expect(Self.facts { $0.oldestTransaction = ("1", 3600, "active") } == [])
    }

    @Test func disabled() {
        let found = Self.facts { $0.peers = [.init(name: "b", receiving: "disabled", subscription: "s'1")] }
        #expect(found.map(\.weight) == [.error])
        #expect(found[0].advice == "On a: SELECT bdr.alter_subscription_enable('s''1');")
    }

    @Test func peerIsDown() {
        let found = Self.facts {
            $0.peers = [.init(name: "b", receiving: "error", errorSQLState: "08006", errorMessage: "x", connectError: "refused")]
        }
        #expect(found.count == 1 && found[0].what.contains("can't be reached: refused"))
        #expect(found[0].advice.contains("bdrctl part b --force"))
    }

    @Test func applyFails() {
        let found = Self.facts {
            $0.peers = [.init(name: "b", receiving: "error", errorSQLState: "42P01", errorMessage: "no table")]
        }
        #expect(found.map(\.what) == ["a does not receive from b (error): no table (SQLSTATE 42P01)"])
    }

    @Test func slots() {
        #expect(Self.facts { $0.peers = [.init(name: "b", slotExists: false)] }.map(\.weight) == [.error])
        #expect(Self.facts { $0.peers = [.init(name: "b", lagBytes: 65 << 20)] }.map(\.weight) == [.warning])
        #expect(Self.facts { $0.peers = [.init(name: "b", retainedBytes: 5 << 30)] }.map(\.weight) == [.warning])
    }

    @Test func states() {
        #expect(Self.facts { $0.state = "CREATED" }.count == 1)
        #expect(Self.facts { $0.state = "STANDBY" }[0].advice == "On it: SELECT bdr.promote_node();")
        #expect(Self.facts { $0.state = "JOINING" }[0].what == "a is JOINING: it refuses writes until that is over.")
        let given = Self.facts {
            $0.state = "CREATED"
            $0.join = ("failed", "no", "type this")
        }
        #expect(given[0] == Finding(.error, "The join of a was given up: no", "type this"))
        #expect(
            Self.facts {
                $0.isStandby = true
                $0.hasManager = false
            }.count == 1)
    }

    @Test func rest() {
        let found = Self.facts {
            $0.hasManager = false
            $0.missingChanges = ["c"]
            $0.tablesWithoutIdentity = ["public.t"]
            $0.partings = [("d", "drain")]
            $0.oldestTransaction = ("7", 7200, "idle in transaction")
            $0.preparedTransactions = ["it's"]
        }
        #expect(found.map(\.weight) == [.error, .warning, .error, .warning, .warning, .warning])
        #expect(found[4].advice == "SELECT pg_terminate_backend(7);")
        #expect(found[5].advice == "COMMIT PREPARED 'it''s';  or: ROLLBACK PREPARED 'it''s';")
    }
}
