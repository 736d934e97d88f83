// Groups end equal, and as the law says, in every history of a few operations (GroupModel); and each promise that this rests
// on is needed: without it, a history is found that ends otherwise.
//
// BDR_FULL_MATRIX=1 goes through four operations in more ways; that takes some minutes and gigabytes.

import Conflict
import Glibc
import Testing

@Suite(.serialized) struct GroupTests {
    static let rules = DecisionRules()
    static let isFull = getenv("BDR_FULL_MATRIX") != nil
    /// An UPDATE of both columns is to the rules what an INSERT is.
    static let verbs: [ModelVerb] = [.insert, .updateA, .updateB, .delete]
    static let verbsWithMoves: [ModelVerb] = [.insert, .updateA, .updateB, .delete, .move]

    static func config(_ name: String, _ change: (inout GroupConfig) -> Void) -> GroupConfig {
        var config = GroupConfig(name: name)
        config.verbs = Self.verbs
        config.movesSendAll = true
        change(&config)
        return config
    }

    static func explore(_ config: GroupConfig) -> GroupFindings {
        var findings = GroupFindings()
        let time = ContinuousClock().measure {
            findings = GroupModel(config, rules: Self.rules).run()
        }
        print("\(config.name): \(findings.summary), \(time)")
        return findings
    }

    static let lawful: [GroupConfig] =
        [
            config("three operations on a new key") { _ in },
            config("three operations on an old row") { $0.firstRows = 1 },
            config("three operations on a row of node 1, two in a transaction") {
                $0.firstRows = 1
                $0.firstWriter = 1
                $0.perTransaction = 2
            },
            config("four operations on a new key") { $0.operations = 4 },
            config("four operations on a row of node 1, whole rows, ties") {
                $0.operations = 4
                $0.verbs = [.insert, .updateBoth, .delete]
                $0.firstRows = 1
                $0.firstWriter = 1
                $0.perTransaction = 2
                $0.tiesAtOneNode = true
            },
            config("two keys, one row of node 1") {
                $0.verbs = Self.verbsWithMoves
                $0.keys = 2
                $0.firstRows = 1
                $0.firstWriter = 1
            },
            config("two keys, one old row, two in a transaction") {
                $0.verbs = [.insert, .updateA, .delete, .move]
                $0.keys = 2
                $0.firstRows = 1
                $0.perTransaction = 2
            },
            config("three keys, swaps of two old rows") {
                $0.verbs = [.updateA, .move]
                $0.keys = 3
                $0.firstRows = 2
                $0.operations = 4
                $0.perTransaction = 3
                $0.nodes = 2
            },
            config("deletes are forgotten") {
                $0.firstRows = 1
                $0.firstWriter = 1
                $0.vacuum = true
            },
            config("the third node joins") {
                $0.firstRows = 1
                $0.firstWriter = 1
                $0.join = true
            },
            config("the third node joins, deletes are forgotten") {
                $0.firstRows = 1
                $0.join = true
                $0.vacuum = true
            },
        ]
        + (isFull
            ? [
                config("four operations on an old row") {
                    $0.operations = 4
                    $0.firstRows = 1
                },
                config("four operations on a row of node 1, four in a transaction") {
                    $0.operations = 4
                    $0.firstRows = 1
                    $0.firstWriter = 1
                    $0.perTransaction = 4
                },
                config("four nodes, three operations") {
                    $0.nodes = 4
                    $0.firstRows = 1
                    $0.firstWriter = 1
                },
                config("two keys, two rows of node 1, three in a transaction") {
                    $0.verbs = Self.verbsWithMoves
                    $0.keys = 2
                    $0.firstRows = 2
                    $0.firstWriter = 1
                    $0.perTransaction = 3
                },
                config("two keys, four operations, one old row, whole rows") {
                    $0.verbs = [.insert, .updateBoth, .delete, .move]
                    $0.keys = 2
                    $0.operations = 4
                    $0.firstRows = 1
                    $0.skewedClocks = false
                },
                config("two keys, key changes are forgotten") {
                    $0.verbs = Self.verbsWithMoves
                    $0.keys = 2
                    $0.firstRows = 1
                    $0.vacuum = true
                },
                config("four operations, the third node joins, deletes are forgotten") {
                    $0.operations = 4
                    $0.firstRows = 1
                    $0.firstWriter = 1
                    $0.join = true
                    $0.vacuum = true
                },
                config("two keys, the third node joins") {
                    $0.verbs = Self.verbsWithMoves
                    $0.keys = 2
                    $0.firstRows = 2
                    $0.join = true
                },
                config("the fourth node joins") {
                    $0.nodes = 4
                    $0.firstRows = 1
                    $0.firstWriter = 1
                    $0.join = true
                },
            ] : [])

    @Test(arguments: lawful)
    func obeysTheLaw(config: GroupConfig) {
        let findings = Self.explore(config)
        #expect(findings.endings > 0)
        for history in findings.diverged {
            Issue.record("\(config.name): nodes differ after\n  \(history.joined(separator: "\n  "))")
        }
        for history in findings.unlawful {
            Issue.record("\(config.name): equal, but wrong, after\n  \(history.joined(separator: "\n  "))")
        }
    }

    static let broken: [GroupConfig] = [
        config("apply does not wait for the clock") {
            $0.operations = 2
            $0.firstRows = 1
            $0.applyWaits = false
        },
        config("a clock is set back") {
            $0.verbs = [.updateBoth]
            $0.firstRows = 1
            $0.clocksStepBack = true
        },
        // Which of the two wrote a value can't be told.
        config("two transactions of a node have one time, and leave a value alone") {
            $0.firstRows = 1
            $0.firstWriter = 1
            $0.tiesAtOneNode = true
        },
        config("an unchanged value is never fetched") {
            $0.operations = 2
            $0.firstRows = 1
            $0.fetches = false
        },
        // One transaction wrote both rows, so both values have one stamp. Then a row comes to the other's key on one node,
        // and an update that leaves the value alone comes there from another one: the stamps are equal, the values are not.
        config("a row takes its value along to another key, two rows of one transaction") {
            $0.verbs = [.updateA, .delete, .move]
            $0.keys = 2
            $0.firstRows = 2
            $0.firstWriter = 1
            $0.movesSendAll = false
        },
        // Node 1 inserts a row; it applies node 3's row that comes to this key, with an older value; it updates that. Node 2
        // does not know of node 3's yet: the row there is node 1's, later than the value.
        config("a row takes its value along to another key") {
            $0.verbs = [.insert, .updateA, .move]
            $0.keys = 2
            $0.firstRows = 1
            $0.firstWriter = 1
            $0.movesSendAll = false
        },
        config("a key change that is superseded leaves the old key alone") {
            $0.verbs = [.insert, .updateA, .move]
            $0.keys = 2
            $0.firstRows = 1
            $0.movesSendAll = false
            $0.supersededMovesDelete = false
        },
        config("a joining node writes before its clock has passed what it copied") {
            $0.operations = 2
            $0.firstRows = 1
            $0.firstWriter = 1
            $0.join = true
            $0.joinWaits = false
        },
        config("a joining node gets no stamps") {
            $0.firstRows = 1
            $0.join = true
            $0.joinBringsStamps = false
        },
    ]

    @Test(arguments: broken)
    func eachPromiseIsNeeded(config: GroupConfig) {
        let findings = Self.explore(config)
        #expect(findings.divergedCount > 0, "\(config.name): still converges")
    }

    /// The model is not vacuous: a rule that is wrong is found out.
    @Test func findsWhatIsWrong() {
        struct NoTombstones: Rules {
            func takesEffect(_ kind: ChangeKind, known: Known, remote: RowVersion) -> Bool {
                !known.hasRow || LawRules().takesEffect(kind, known: known, remote: remote)
            }
            func keepsUnchanged(
                there: RowVersion?, here: RowVersion?, row: RowVersion?, remote: RowVersion, ownTransaction: Bool
            ) -> Bool { true }
        }
        struct KeepsAll: Rules {
            func takesEffect(_ kind: ChangeKind, known: Known, remote: RowVersion) -> Bool {
                LawRules().takesEffect(kind, known: known, remote: remote)
            }
            func keepsUnchanged(
                there: RowVersion?, here: RowVersion?, row: RowVersion?, remote: RowVersion, ownTransaction: Bool
            ) -> Bool { true }
        }
        let rows = Self.config("whole rows") {
            $0.verbs = [.insert, .updateBoth, .delete]
            $0.firstRows = 1
        }
        #expect(GroupModel(rows, rules: NoTombstones()).run().divergedCount > 0)
        let values = Self.config("values") {
            $0.verbs = [.updateA, .updateB]
            $0.operations = 2
            $0.firstRows = 1
        }
        #expect(GroupModel(values, rules: KeepsAll()).run().divergedCount > 0)
        #expect(GroupModel(values, rules: Self.rules).run().divergedCount == 0)
    }
}
