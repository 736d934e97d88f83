// A model of two nodes that write one row and replicate to each other, explored exhaustively.
//
// Each node runs its own transactions and applies the other's in the order they were made; in between, anything may
// happen in any order. The decisions are those of the module; the rest is what PostgreSQL does with a row.

import Conflict

enum Verb: Character, CaseIterable {
    case insert = "I"
    case update = "U"
    case delete = "D"
}

/// A transaction of one node: what it does to the row, and its commit time.
struct ModelTransaction {
    var verbs: [Verb]
    var time: Int64
}

/// How the row stands on both nodes before anything happens.
enum Start: String, CaseIterable {
    case absent
    /// There, older than commit timestamps reach back.
    case frozen
    /// There, written by node 1 (or 2) at time 0.
    case fromNode1 = "from 1"
    case fromNode2 = "from 2"
}

/// Who promises what about the clocks.
enum Clocks {
    /// A node's commit times never step back, and are later than that of anything it applied before.
    case synchronised
    /// Any time at all.
    case free
}

struct Scenario {
    var start: Start
    /// Of node 1 and node 2, in the order they commit.
    var transactions: [[ModelTransaction]]

    /// For example "absent; 1: I@1 (UD)@2 | 2: I@1".
    var name: String {
        let sides = self.transactions.enumerated().map { index, list in
            "\(index + 1): " + list.map { transaction in
                let verbs = String(transaction.verbs.map(\.rawValue))
                return (transaction.verbs.count > 1 ? "(\(verbs))" : verbs) + "@\(transaction.time)"
            }.joined(separator: " ")
        }
        return "\(self.start.rawValue); " + sides.joined(separator: " | ")
    }
}

extension Scenario {
    /// What the row ought to be at rest: the outcome of the operation that is the latest by (time, node). Nil when it
    /// ought to be gone.
    var latestValue: Int? {
        var latest: (version: RowVersion, value: Int?)?
        for (node, list) in self.transactions.enumerated() {
            for (index, transaction) in list.enumerated() {
                let version = RowVersion(time: transaction.time, node: UInt32(node + 1))
                for (position, verb) in transaction.verbs.enumerated() {
                    if let known = latest, version < known.version {
                        continue
                    }
                    let value = ModelState.value(node: node, transaction: index, verb: position)
                    latest = (version, verb == .delete ? nil : value)
                }
            }
        }
        return latest?.value
    }
}

struct ModelRow: Equatable {
    /// Which operation wrote it: equal rows come from the same operation.
    var value: Int
    var version: RowVersion?
}

struct ModelState {
    var rows: [ModelRow?]
    /// The last delete of the key, per node.
    var stamps: [RowVersion?] = [nil, nil]
    /// Transactions each node has committed itself.
    var committed = [0, 0]
    /// Transactions of each node that the other one has applied.
    var applied = [0, 0]
    /// Commit time of the last own transaction, and the latest of any applied one, per node.
    var ownTime: [Int64] = [0, 0]
    var appliedTime: [Int64] = [0, 0]

    init(_ start: Start) {
        let row: ModelRow? =
            switch start {
            case .absent: nil
            case .frozen: ModelRow(value: 0, version: nil)
            case .fromNode1: ModelRow(value: 0, version: RowVersion(time: 0, node: 1))
            case .fromNode2: ModelRow(value: 0, version: RowVersion(time: 0, node: 2))
            }
        self.rows = [row, row]
    }

    static func value(node: Int, transaction: Int, verb: Int) -> Int {
        100 * (node + 1) + 10 * transaction + verb + 1
    }

    /// Runs the node's next own transaction; false when it can't happen here and now.
    mutating func commit(_ scenario: Scenario, node: Int, clocks: Clocks) -> Bool {
        let index = self.committed[node]
        let transaction = scenario.transactions[node][index]
        if clocks == .synchronised {
            guard transaction.time >= self.ownTime[node], transaction.time > self.appliedTime[node] else {
                return false
            }
        }
        let version = RowVersion(time: transaction.time, node: UInt32(node + 1))
        for (position, verb) in transaction.verbs.enumerated() {
            let exists = self.rows[node] != nil
            guard exists == (verb != .insert) else {
                return false
            }
            let value = Self.value(node: node, transaction: index, verb: position)
            if verb == .delete {
                self.stamps[node] = version
            }
            self.rows[node] = verb == .delete ? nil : ModelRow(value: value, version: version)
        }
        self.committed[node] += 1
        self.ownTime[node] = transaction.time
        return true
    }

    /// Applies the next transaction of `origin` on the other node. False when a decision was an error.
    mutating func apply(_ scenario: Scenario, origin: Int, settings: ResolverSettings) -> Bool {
        let target = 1 - origin
        let index = self.applied[origin]
        let transaction = scenario.transactions[origin][index]
        let remote = RowVersion(time: transaction.time, node: UInt32(origin + 1))
        var ownTransaction = false
        for (position, verb) in transaction.verbs.enumerated() {
            let local: LocalState =
                if let row = self.rows[target] {
                    // As in the server: what the own transaction wrote has no commit time yet.
                    .present(
                        version: ownTransaction ? nil : row.version,
                        sameOrigin: ownTransaction || row.version?.node == remote.node, ownTransaction: ownTransaction)
                } else {
                    .missing(
                        stamp: ownTransaction ? nil : self.stamps[target],
                        sameOrigin: self.stamps[target]?.node == remote.node, ownTransaction: ownTransaction)
                }
            if verb == .delete {
                self.stamps[target] = max(self.stamps[target] ?? remote, remote)
            }
            let decision =
                switch verb {
                case .insert: decideInsert(local: local, remote: remote, settings: settings)
                case .update: decideUpdate(local: local, remote: remote, settings: settings)
                case .delete: decideDelete(local: local, remote: remote, settings: settings)
                }
            switch decision {
            case .skip:
                break
            case .error:
                return false
            case .apply, .applyConflict, .insertInstead:
                ownTransaction = true
                let value = Self.value(node: origin, transaction: index, verb: position)
                self.rows[target] = verb == .delete ? nil : ModelRow(value: value, version: remote)
            }
        }
        self.applied[origin] += 1
        self.appliedTime[target] = max(self.appliedTime[target], transaction.time)
        return true
    }
}

/// What the exploration of one scenario found.
struct Findings {
    var endings = 0
    /// Endings with unequal rows, or with an origin that an error stopped.
    var diverged = 0
    /// Endings with equal rows which are not those of the latest operation by (time, node).
    var unlawful = 0
}

/// Runs a scenario in every order that it can happen in.
func explore(
    _ scenario: Scenario, clocks: Clocks, settings: ResolverSettings = ResolverSettings()
) -> Findings {
    var findings = Findings()
    func visit(_ state: ModelState) {
        var ended = true
        for node in 0...1 {
            if state.committed[node] < scenario.transactions[node].count {
                ended = false
                var next = state
                if next.commit(scenario, node: node, clocks: clocks) {
                    visit(next)
                }
            }
            if state.applied[node] < state.committed[node] {
                ended = false
                var next = state
                if next.apply(scenario, origin: node, settings: settings) {
                    visit(next)
                } else {
                    findings.endings += 1
                    findings.diverged += 1
                }
            }
        }
        if ended {
            findings.endings += 1
            if state.rows[0] != state.rows[1] {
                findings.diverged += 1
            } else if state.rows[0]?.value != scenario.latestValue {
                findings.unlawful += 1
            }
        }
    }
    visit(ModelState(scenario.start))
    return findings
}

/// Every scenario with up to `operations` operations, split over both nodes and into transactions in every way, with
/// every choice of commit times from 1 up to the number of transactions.
func scenarios(operations: Int) -> [Scenario] {
    /// The ways to cut a list of verbs into transactions.
    func cuts(_ verbs: [Verb]) -> [[[Verb]]] {
        guard let first = verbs.first else {
            return [[]]
        }
        return cuts(Array(verbs.dropFirst())).flatMap { rest -> [[[Verb]]] in
            var result = [[[first]] + rest]
            if let head = rest.first {
                result.append([[first] + head] + rest.dropFirst())
            }
            return result
        }
    }
    func tuples<T>(_ choices: [T], length: Int) -> [[T]] {
        length == 0 ? [[]] : tuples(choices, length: length - 1).flatMap { head in choices.map { head + [$0] } }
    }
    var result: [Scenario] = []
    for total in 1...operations {
        for first in 0...total {
            for verbs in tuples(Verb.allCases, length: total) {
                for one in cuts(Array(verbs.prefix(first))) {
                    for two in cuts(Array(verbs.dropFirst(first))) {
                        let count = one.count + two.count
                        for times in tuples((1...Int64(count)).map { $0 }, length: count) {
                            // Ranks must be used without gaps, or a scenario would come up several times.
                            guard Set(times) == Set(1...(times.max() ?? 1)) else {
                                continue
                            }
                            let all = zip(one + two, times).map { ModelTransaction(verbs: $0, time: $1) }
                            for start in Start.allCases {
                                result.append(
                                    Scenario(
                                        start: start,
                                        transactions: [Array(all.prefix(one.count)), Array(all.dropFirst(one.count))]))
                            }
                        }
                    }
                }
            }
        }
    }
    return result
}
