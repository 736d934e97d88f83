// A model of a group of nodes that write a few keys and replicate to one another, explored exhaustively.
//
// Any node may execute any operation that its rows permit at any time, with any commit time that its clock may show, and may
// apply the next transaction of any other node at any time. So every history of a number of operations is gone through, in
// every order of delivery that keeps each origin's order. At the end of each (everything delivered) all nodes have to be
// equal, and every key as the operation with the greatest (commit time, node) on it left it.
//
// Histories that lead to the same state go on from there together: states are canonical (commit times are ranks, values are
// numbered as they are met, transactions that all have applied are dropped) and kept in a table.
//
// The rules come from outside (`Rules`), so that the module's decisions, or others, can be put to the test.

import Conflict

/// What a node knows of a key when a change of it arrives.
struct Known {
    var hasRow: Bool
    /// Of the latest operation that is known, be it that of the row or a remembered delete; nil when none is.
    var stamp: RowVersion?
    var sameOrigin: Bool
    var ownTransaction: Bool
}

enum ChangeKind {
    case insert, update, delete
    /// The two halves of an UPDATE that changes the key.
    case oldKey, newKey
}

protocol Rules {
    /// Whether the change takes effect: a row that it writes replaces what is there; a delete removes the row, if there is
    /// one, and is remembered in any case.
    func takesEffect(_ kind: ChangeKind, known: Known, remote: RowVersion) -> Bool
    /// Whether a value that the change says to be unchanged is the one that the row has here.
    /// - Parameters:
    ///   - there: which operation wrote it at the origin, as far as that is known; `here`: likewise.
    ///   - row: which operation wrote the row here last.
    func keepsUnchanged(
        there: RowVersion?, here: RowVersion?, row: RowVersion?, remote: RowVersion, ownTransaction: Bool
    ) -> Bool
}

/// The law, as it is told.
struct LawRules: Rules {
    func takesEffect(_ kind: ChangeKind, known: Known, remote: RowVersion) -> Bool {
        guard !known.ownTransaction, !known.sameOrigin, let stamp = known.stamp else {
            return true
        }
        return remote > stamp
    }

    func keepsUnchanged(
        there: RowVersion?, here: RowVersion?, row: RowVersion?, remote: RowVersion, ownTransaction: Bool
    ) -> Bool {
        if ownTransaction {
            return true
        }
        guard let there else {
            return false
        }
        if here == there {
            return true
        }
        guard let row else {
            return false
        }
        return row.node == remote.node && row >= there
    }
}

/// What an operation does to one key: two columns, `a`, which is always sent, and `b`, which an UPDATE that leaves it alone
/// only says to be unchanged.
enum ModelVerb: UInt8, CaseIterable {
    case insert
    case updateA
    case updateB
    case updateBoth
    case delete
    /// To every other key.
    case move
}

/// What there is to be explored, and which promises hold.
struct GroupConfig {
    var name: String
    var nodes = 3
    var keys = 1
    /// Operations in all.
    var operations = 3
    /// Operations in one transaction, at most.
    var perTransaction = 1
    var verbs = ModelVerb.allCases
    /// Rows that all nodes have at first. 0: written so long ago that nobody knows by whom; n: in one transaction of node n.
    var firstRows = 0
    var firstWriter = 0

    /// A node's clock may be behind or ahead of others by any time. If not, commit times are in the order of the commits.
    var skewedClocks = true
    /// Two transactions of one node may have the same commit time.
    var tiesAtOneNode = false
    /// A node's clock may be set back.
    var clocksStepBack = false
    /// A node commits nothing that is not dated after all it has applied.
    var applyWaits = true

    /// A delete is forgotten when everything up to its time was received from all nodes.
    var vacuum = false
    /// The last node joins at some time, through any other one.
    var join = false
    /// It writes nothing that is not dated after what it has copied, also where it does not know the time of it any more.
    var joinWaits = true
    /// Stamps that are newer than the horizon come along.
    var joinBringsStamps = true

    /// An UPDATE that changes the key writes `b` anew, and sends it.
    var movesSendAll = false
    /// When the origin's row turns out to be superseded, the delete of the old key is done all the same.
    var supersededMovesDelete = true
    /// The fetch asks for the key's row as it is, and takes it if its stamp is the change's.
    var fetches = true
}

struct GroupFindings {
    var states = 0
    /// Ways from the beginning to an end.
    var histories = 0.0
    var endings = 0
    var fetches = 0
    var superseded = 0
    /// The first that were found, with what happened.
    var diverged: [[String]] = []
    var unlawful: [[String]] = []
    var divergedCount = 0
    var unlawfulCount = 0

    var summary: String {
        "\(self.states) states, \(self.histories) histories, \(self.endings) different endings, "
            + "\(self.fetches) fetches (\(self.superseded) superseded); "
            + "\(self.divergedCount) diverge, \(self.unlawfulCount) break the law"
    }
}

/// A state as the key of a table: an array hashes its elements one by one.
private struct Seen: Hashable {
    var state: [UInt8]

    func hash(into hasher: inout Hasher) {
        self.state.withUnsafeBytes { hasher.combine(bytes: $0) }
    }

    static func == (left: Seen, right: Seen) -> Bool {
        left.state.withUnsafeBytes { one in
            right.state.withUnsafeBytes { other in one.elementsEqual(other) }
        }
    }
}

/// Explores one configuration.
final class GroupModel<R: Rules> {
    private let config: GroupConfig
    private let rules: R
    private let nodes: Int
    private let keys: Int
    /// Histories of which a bad ending is told.
    private let most: Int
    private(set) var findings = GroupFindings()
    private var known: [Seen: Double] = [:]
    /// How the state at hand came about.
    private var path: [() -> String] = []
    /// The commit times that its ranks stand for, as told: they stay the same throughout a history.
    private var told: [Double] = [0, 1]
    /// Set while a step is told once more.
    private var tale: String?

    typealias State = [UInt8]

    // A state is a row of bytes. Stamps are bytes, too: commit time * 8 + node, 0 for none, so that their order is that of
    // the stamps. Times are ranks from 1.
    //
    //   0                 operations left
    //   1                 has the last node joined
    //   per node:         the time that its commits have to be after; that of its last commit;
    //                     per key: a (0: no row), b, stamp, stamp of b, stamp of the remembered delete;
    //                     per origin: how many of its logged changes are applied
    //   per key:          the latest operation: stamp, a (0: delete), b
    //   per origin:       number of logged changes; each: time, kind and flags, key, a, b, stamp of b
    private let nodeSize: Int
    private let rowSize = 5
    private let changeSize = 6
    private let logSize: Int
    private let latestBase: Int
    private let logBase: Int
    private let size: Int

    // Kind of a logged change in the low 4 bits, the key moved to in `key`'s high 4 bits.
    private let startsTransaction: UInt8 = 0x10
    private let sendsB: UInt8 = 0x20

    init(_ config: GroupConfig, rules: R, most: Int = 1) {
        self.config = config
        self.rules = rules
        self.most = most
        self.nodes = config.nodes
        self.keys = config.keys
        self.nodeSize = 2 + self.rowSize * config.keys + config.nodes
        self.latestBase = 2 + self.nodeSize * config.nodes
        self.logBase = self.latestBase + 3 * config.keys
        self.logSize = 1 + self.changeSize * config.operations
        self.size = self.logBase + self.logSize * config.nodes
    }

    private func nodeAt(_ node: Int) -> Int { 2 + self.nodeSize * node }
    private func rowAt(_ node: Int, _ key: Int) -> Int { self.nodeAt(node) + 2 + self.rowSize * key }
    private func appliedAt(_ node: Int, _ origin: Int) -> Int {
        self.nodeAt(node) + 2 + self.rowSize * self.keys + origin
    }
    private func latestAt(_ key: Int) -> Int { self.latestBase + 3 * key }
    private func logAt(_ origin: Int) -> Int { self.logBase + self.logSize * origin }
    private func changeAt(_ origin: Int, _ index: Int) -> Int { self.logAt(origin) + 1 + self.changeSize * index }

    private func version(_ stamp: UInt8) -> RowVersion? {
        stamp == 0 ? nil : RowVersion(time: Int64(stamp >> 3), node: UInt32(stamp & 7))
    }
    private func members(_ state: State) -> Int { self.config.join && state[1] == 0 ? self.nodes - 1 : self.nodes }

    // Offsets in a row.
    private let aIs = 0, bIs = 1, stampIs = 2, bStampIs = 3, tombIs = 4

    func run() -> GroupFindings {
        var state = State(repeating: 0, count: self.size)
        state[0] = UInt8(self.config.operations)
        state[1] = self.config.join ? 0 : 1
        let stamp: UInt8 = self.config.firstWriter == 0 ? 0 : UInt8(8 + self.config.firstWriter)
        for key in 0..<self.config.firstRows {
            for node in 0..<self.members(state) {
                let row = self.rowAt(node, key)
                state[row + self.aIs] = 200 + UInt8(key)
                state[row + self.bIs] = 210 + UInt8(key)
                state[row + self.stampIs] = stamp
                state[row + self.bStampIs] = stamp
            }
            let latest = self.latestAt(key)
            state[latest] = stamp
            state[latest + 1] = 200 + UInt8(key)
            state[latest + 2] = 210 + UInt8(key)
        }
        if stamp != 0 {
            for node in 0..<self.nodes {
                state[self.nodeAt(node)] = 1
                state[self.nodeAt(node) + 1] = 1
            }
        }
        self.findings = GroupFindings()
        self.known.removeAll(keepingCapacity: true)
        self.findings.histories = self.visit(self.canonical(state).state)
        self.findings.states = self.known.count
        return self.findings
    }

    /// Goes on from a state, which is not canonical yet.
    private func step(_ next: State, times: [Double]? = nil, _ tell: @escaping ([Double]) -> String) -> Double {
        let (state, used) = self.canonical(next)
        if let found = self.known[Seen(state: state)] {
            return found
        }
        let before = self.told
        let all = times ?? before
        self.told = [0] + all.indices.filter { $0 > 0 && used & (1 << UInt32($0)) != 0 }.map { all[$0] }
        self.path.append { tell(all) }
        let ways = self.visit(state)
        self.path.removeLast()
        self.told = before
        return ways
    }

    /// The number of ways from here to an end.
    private func visit(_ state: State) -> Double {
        var ways = 0.0
        var isEnd = true
        let members = self.members(state)
        // When nobody writes any more and nothing has to be fetched, what one node applies is nothing to another, so that
        // they need not take turns in every way: one after the other will do.
        let isQuiet = self.isQuiet(state)
        for node in 0..<members {
            if isQuiet && !isEnd {
                break
            }
            for origin in 0..<members where origin != node {
                if state[self.appliedAt(node, origin)] < state[self.logAt(origin)] {
                    isEnd = false
                    var next = state
                    self.apply(&next, node, origin)
                    ways += self.step(next) { times in self.tell(state, node, origin, times) }
                }
            }
        }
        if state[0] > 0 {
            for node in 0..<members {
                self.write(state, node, &ways)
            }
        }
        if self.config.vacuum && !isEnd {
            for node in 0..<members {
                for key in 0..<self.keys {
                    if let next = self.forget(state, node, key) {
                        ways += self.step(next) { _ in "\(self.name(node)) forgets the delete of \(key)" }
                    }
                }
            }
        }
        if self.config.join && state[1] == 0 {
            for target in 0..<members {
                self.join(state, through: target, &ways)
            }
        }
        if isEnd {
            ways += 1
            self.end(state)
        }
        self.known[Seen(state: state)] = ways
        return ways
    }

    private func isQuiet(_ state: State) -> Bool {
        if state[0] > 0 || self.config.vacuum || state[1] == 0 {
            return false
        }
        for origin in 0..<self.nodes {
            for index in 0..<Int(state[self.logAt(origin)]) {
                let flags = state[self.changeAt(origin, index) + 1]
                if flags & self.sendsB == 0 && flags & 15 != ModelVerb.delete.rawValue {
                    return false
                }
            }
        }
        return true
    }

    private func name(_ node: Int) -> String { "n\(node + 1)" }

    // MARK: A node writes

    private func write(_ state: State, _ node: Int, _ ways: inout Double) {
        // Times are doubled, so that there is room between any two.
        let base = self.nodeAt(node)
        var doubled = state
        let latest = doubled.withUnsafeMutableBufferPointer { self.mapTimes($0) { $0 * 2 } }
        let after = self.config.applyWaits ? doubled[base] : 0
        let last = doubled[base + 1]
        var times = self.told
        for index in self.told.indices {
            let next = index + 1 < self.told.count ? self.told[index + 1] : self.told[index] + 2
            times.insert((self.told[index] + next) / 2, at: index * 2 + 1)
        }
        for time in 1...(latest * 2 + 1) {
            guard time > after else {
                continue
            }
            guard self.config.clocksStepBack || time > last || (time == last && self.config.tiesAtOneNode) else {
                continue
            }
            guard self.config.skewedClocks || time >= latest * 2 else {
                continue
            }
            var next = doubled
            next[base + 1] = time
            self.extend(next, node, UInt8(time << 3) | UInt8(node + 1), operation: 0, text: "", times, &ways)
        }
    }

    /// Adds each possible operation to the transaction, and goes on both with its commit and with more operations.
    private func extend(
        _ state: State, _ node: Int, _ stamp: UInt8, operation: Int, text: String, _ times: [Double],
        _ ways: inout Double
    ) {
        guard state[0] > 0, operation < self.config.perTransaction else {
            return
        }
        let log = self.logAt(node)
        for verb in self.config.verbs {
            for key in 0..<self.keys {
                let row = self.rowAt(node, key)
                let exists = state[row] != 0
                guard exists == (verb != .insert) else {
                    continue
                }
                for other in verb == .move ? 0..<self.keys : key..<(key + 1) {
                    let target = self.rowAt(node, other)
                    if verb == .move && (other == key || state[target] != 0) {
                        continue
                    }
                    var next = state
                    let number = next[log]
                    let change = self.changeAt(node, Int(number))
                    // Values that are not in use yet; the canonical state gives them their numbers.
                    let fresh = 220 + UInt8(operation) * 2
                    next[0] -= 1
                    next[log] = number + 1
                    next[change] = stamp >> 3
                    next[change + 2] = UInt8(key) | UInt8(other << 4)
                    var flags = verb.rawValue | (operation == 0 ? self.startsTransaction : 0)
                    if verb == .delete {
                        for index in 0..<self.rowSize {
                            next[row + index] = 0
                        }
                    } else {
                        if verb == .move {
                            for index in 0..<4 {
                                next[target + index] = next[row + index]
                                next[row + index] = 0
                            }
                            if self.config.movesSendAll {
                                next[target + self.bStampIs] = stamp
                                flags |= self.sendsB
                            }
                        }
                        if [.insert, .updateA, .updateBoth].contains(verb) {
                            next[target + self.aIs] = fresh
                        }
                        if [.insert, .updateB, .updateBoth].contains(verb) {
                            next[target + self.bIs] = fresh + 1
                            next[target + self.bStampIs] = stamp
                            flags |= self.sendsB
                        }
                        next[target + self.stampIs] = stamp
                        next[change + 3] = next[target + self.aIs]
                        next[change + 4] = next[target + self.bIs]
                        next[change + 5] = next[target + self.bStampIs]
                    }
                    next[change + 1] = flags
                    if verb == .delete || verb == .move {
                        next[row + self.tombIs] = stamp
                    }
                    for affected in Set([key, other]) {
                        let law = self.latestAt(affected)
                        // The same node's later one wins.
                        guard stamp >= next[law] || stamp & 7 == next[law] & 7 else {
                            continue
                        }
                        let here = self.rowAt(node, affected)
                        next[law] = stamp
                        next[law + 1] = next[here + self.aIs]
                        next[law + 2] = next[here + self.bIs]
                    }
                    let word = verb == .move ? "move \(key)->\(other)" : "\(verb) \(key)"
                    let sentence = text.isEmpty ? word : text + ", " + word
                    ways += self.step(next, times: times) { times in
                        "\(self.name(node)) commits: \(sentence) @\(times[Int(stamp >> 3)])"
                    }
                    self.extend(next, node, stamp, operation: operation + 1, text: sentence, times, &ways)
                }
            }
        }
    }

    // MARK: A node applies

    private func apply(_ state: inout State, _ node: Int, _ origin: Int) {
        var index = Int(state[self.appliedAt(node, origin)])
        let count = Int(state[self.logAt(origin)])
        let time = state[self.changeAt(origin, index)]
        let stamp = UInt8(time << 3) | UInt8(origin + 1)
        guard let remote = self.version(stamp) else {
            return
        }
        var own: UInt8 = 0
        var isFirst = true
        while index < count {
            let change = self.changeAt(origin, index)
            let flags = state[change + 1]
            if flags & self.startsTransaction != 0 && !isFirst {
                break
            }
            isFirst = false
            index += 1
            let key = Int(state[change + 2] & 15)
            let target = Int(state[change + 2] >> 4)
            guard let verb = ModelVerb(rawValue: flags & 15) else {
                continue
            }
            switch verb {
            case .delete:
                let done = self.delete(&state, node, key, .delete, remote, stamp, &own)
                self.tale? += " delete \(key)\(done ? "" : " skipped")"
            case .insert:
                let done = self.decide(state, node, key, .insert, remote, own)
                if done {
                    self.put(&state, node, key, change, b: state[change + 4], bStamp: stamp, stamp, &own)
                }
                self.tale? += " insert \(key)\(done ? "" : " skipped")"
            case .updateA, .updateB, .updateBoth:
                guard self.decide(state, node, key, .update, remote, own) else {
                    self.tale? += " update \(key) skipped"
                    continue
                }
                guard let b = self.value(state, node, key, key, change, origin, stamp, remote, own) else {
                    self.tale? += " update \(key) superseded"
                    continue
                }
                self.put(&state, node, key, change, b: b.value, bStamp: b.stamp, stamp, &own)
                self.tale? += " update \(key)" + (b.isFetched ? " fetched" : "")
            case .move:
                let isWanted = self.decide(state, node, target, .newKey, remote, own)
                let b = isWanted ? self.value(state, node, key, target, change, origin, stamp, remote, own) : nil
                if b != nil || !isWanted || self.config.supersededMovesDelete {
                    let done = self.delete(&state, node, key, .oldKey, remote, stamp, &own)
                    self.tale? += " move from \(key)\(done ? "" : " skipped")"
                }
                if let b {
                    self.put(&state, node, target, change, b: b.value, bStamp: b.stamp, stamp, &own)
                }
                self.tale? += " to \(target)" + (!isWanted ? " skipped" : b == nil ? " superseded" : "")
            }
        }
        state[self.appliedAt(node, origin)] = UInt8(index)
        let floor = self.nodeAt(node)
        state[floor] = max(state[floor], time)
    }

    private func tell(_ state: State, _ node: Int, _ origin: Int, _ times: [Double]) -> String {
        let time = state[self.changeAt(origin, Int(state[self.appliedAt(node, origin)]))]
        self.tale = "\(self.name(node)) applies of \(self.name(origin)) @\(times[Int(time)]):"
        var next = state
        self.apply(&next, node, origin)
        defer { self.tale = nil }
        return self.tale ?? ""
    }

    private func knowledge(_ state: State, _ node: Int, _ key: Int, _ remote: RowVersion, _ own: UInt8) -> Known {
        let row = self.rowAt(node, key)
        let stamp = self.version(max(state[row + self.stampIs], state[row + self.tombIs]))
        return Known(
            hasRow: state[row] != 0, stamp: stamp, sameOrigin: stamp?.node == remote.node,
            ownTransaction: own & (1 << UInt8(key)) != 0)
    }

    private func decide(
        _ state: State, _ node: Int, _ key: Int, _ kind: ChangeKind, _ remote: RowVersion, _ own: UInt8
    ) -> Bool {
        self.rules.takesEffect(kind, known: self.knowledge(state, node, key, remote, own), remote: remote)
    }

    private func delete(
        _ state: inout State, _ node: Int, _ key: Int, _ kind: ChangeKind, _ remote: RowVersion, _ stamp: UInt8,
        _ own: inout UInt8
    ) -> Bool {
        guard self.decide(state, node, key, kind, remote, own) else {
            return false
        }
        let row = self.rowAt(node, key)
        for index in 0..<4 {
            state[row + index] = 0
        }
        state[row + self.tombIs] = stamp
        own |= 1 << UInt8(key)
        return true
    }

    private func put(
        _ state: inout State, _ node: Int, _ key: Int, _ change: Int, b: UInt8, bStamp: UInt8, _ stamp: UInt8,
        _ own: inout UInt8
    ) {
        let row = self.rowAt(node, key)
        state[row + self.aIs] = state[change + 3]
        state[row + self.bIs] = b
        state[row + self.stampIs] = stamp
        state[row + self.bStampIs] = bStamp
        // Same origin, and its clock was set back: what was known is not what counts any more.
        if state[row + self.tombIs] > stamp {
            state[row + self.tombIs] = 0
        }
        own |= 1 << UInt8(key)
    }

    /// The value of `b` that a change leaves: sent, kept, or fetched; nil when the change is superseded at its origin.
    private func value(
        _ state: State, _ node: Int, _ key: Int, _ target: Int, _ change: Int, _ origin: Int, _ stamp: UInt8,
        _ remote: RowVersion, _ own: UInt8
    ) -> (value: UInt8, stamp: UInt8, isFetched: Bool)? {
        if state[change + 1] & self.sendsB != 0 {
            return (state[change + 4], stamp, false)
        }
        let row = self.rowAt(node, key)
        let there = state[change + 5]
        if state[row] != 0,
            self.rules.keepsUnchanged(
                there: self.version(there), here: self.version(state[row + self.bStampIs]),
                row: self.version(max(state[row + self.stampIs], state[row + self.tombIs])), remote: remote,
                ownTransaction: own & (1 << UInt8(key)) != 0)
        {
            return (state[row + self.bIs], state[row + self.bStampIs], false)
        }
        self.findings.fetches += 1
        let at = self.rowAt(origin, target)
        guard self.config.fetches, state[at] != 0, state[at + self.stampIs] == stamp else {
            self.findings.superseded += 1
            return nil
        }
        return (state[at + self.bIs], stamp, true)
    }

    // MARK: Forgetting, joining

    /// Whether a node has everything of another one that is not after a time, and will not get more.
    private func passes(_ state: inout State, _ node: Int, _ origin: Int, _ time: UInt8) -> Bool {
        let applied = state[self.appliedAt(node, origin)]
        if applied < state[self.logAt(origin)], state[self.changeAt(origin, Int(applied))] <= time {
            return false
        }
        // The origin has told that its clock is past that time.
        let floor = self.nodeAt(origin)
        state[floor] = max(state[floor], time)
        return true
    }

    private func forget(_ state: State, _ node: Int, _ key: Int) -> State? {
        let stamp = state[self.rowAt(node, key) + self.tombIs]
        guard stamp != 0 else {
            return nil
        }
        var next = state
        for origin in 0..<self.members(state) where origin != node {
            guard self.passes(&next, node, origin, stamp >> 3) else {
                return nil
            }
        }
        next[self.rowAt(node, key) + self.tombIs] = 0
        return next
    }

    /// The last node copies the rows of another one. It knows the stamps of those that are after the horizon.
    private func join(_ state: State, through target: Int, _ ways: inout Double) {
        let joining = self.nodes - 1
        var times: Set<UInt8> = [0]
        for key in 0..<self.keys {
            let row = self.rowAt(target, key)
            times.insert(max(state[row + self.stampIs], state[row + self.tombIs]) >> 3)
        }
        next: for horizon in times.sorted() {
            var next = state
            if horizon > 0 {
                for origin in 0..<joining {
                    if origin == target {
                        next[self.nodeAt(origin)] = max(next[self.nodeAt(origin)], horizon)
                    } else if !self.passes(&next, target, origin, horizon) {
                        continue next
                    }
                }
            }
            next[1] = 1
            var floor: UInt8 = 0
            for key in 0..<self.keys {
                let from = self.rowAt(target, key)
                let to = self.rowAt(joining, key)
                next[to + self.aIs] = next[from + self.aIs]
                next[to + self.bIs] = next[from + self.bIs]
                let stamp = max(next[from + self.stampIs], next[from + self.tombIs])
                if stamp >> 3 > horizon && self.config.joinBringsStamps {
                    next[to + self.tombIs] = stamp
                }
                floor = max(floor, stamp >> 3)
            }
            if self.config.joinWaits {
                // Also what was forgotten: the target's clock is past it.
                next[self.nodeAt(joining)] = max(floor, next[self.nodeAt(target)], next[self.nodeAt(target) + 1])
            }
            for origin in 0..<joining {
                next[self.appliedAt(joining, origin)] =
                    origin == target ? next[self.logAt(target)] : next[self.appliedAt(target, origin)]
            }
            ways += self.step(next) { times in
                "\(self.name(joining)) joins through \(self.name(target)), horizon \(times[Int(horizon)])"
            }
        }
    }

    // MARK: States

    private func end(_ state: State) {
        self.findings.endings += 1
        let members = self.members(state)
        var isEqual = true
        var isLawful = true
        for key in 0..<self.keys {
            let law = self.latestAt(key)
            for node in 0..<members {
                let row = self.rowAt(node, key)
                let first = self.rowAt(0, key)
                isEqual = isEqual && state[row] == state[first] && state[row + 1] == state[first + 1]
                isLawful = isLawful && state[row] == state[law + 1] && (state[row] == 0 || state[row + 1] == state[law + 2])
            }
        }
        if !isEqual {
            self.findings.divergedCount += 1
            if self.findings.diverged.count < self.most {
                self.findings.diverged.append(self.path.map { $0() } + [self.describe(state)])
            }
        } else if !isLawful {
            self.findings.unlawfulCount += 1
            if self.findings.unlawful.count < self.most {
                self.findings.unlawful.append(self.path.map { $0() } + [self.describe(state)])
            }
        }
    }

    private func describe(_ state: State) -> String {
        (0..<self.keys).map { key in
            let nodes = (0..<self.members(state)).map { node -> String in
                let row = self.rowAt(node, key)
                return state[row] == 0 ? "\(self.name(node)) none" : "\(self.name(node)) (a\(state[row]), b\(state[row + 1]))"
            }
            let law = self.latestAt(key)
            let right = state[law + 1] == 0 ? "none" : "(a\(state[law + 1]), b\(state[law + 2]))"
            return "key \(key): " + nodes.joined(separator: ", ") + "; law: \(right)"
        }.joined(separator: "; ")
    }

    /// Changes all times. Gives back the greatest one before.
    @discardableResult
    private func mapTimes(_ state: UnsafeMutableBufferPointer<UInt8>, _ map: (UInt8) -> UInt8) -> UInt8 {
        var greatest: UInt8 = 0
        func time(_ index: Int) {
            let value = state[index]
            if value != 0 {
                greatest = max(greatest, value)
                state[index] = map(value)
            }
        }
        func stamp(_ index: Int) {
            let value = state[index]
            if value != 0 {
                greatest = max(greatest, value >> 3)
                state[index] = map(value >> 3) << 3 | value & 7
            }
        }
        for node in 0..<self.nodes {
            let base = self.nodeAt(node)
            time(base)
            time(base + 1)
            for key in 0..<self.keys {
                let row = self.rowAt(node, key)
                stamp(row + self.stampIs)
                stamp(row + self.bStampIs)
                stamp(row + self.tombIs)
            }
            for index in 0..<Int(state[self.logAt(node)]) {
                let change = self.changeAt(node, index)
                time(change)
                stamp(change + 5)
            }
        }
        for key in 0..<self.keys {
            stamp(self.latestAt(key))
        }
        return greatest
    }

    /// The same state for all that go on alike.
    private func canonical(_ from: State) -> (state: State, times: UInt32) {
        var state = from
        let times = state.withUnsafeMutableBufferPointer { self.makeCanonical($0, members: self.members(from)) }
        return (state, times)
    }

    private func makeCanonical(_ state: UnsafeMutableBufferPointer<UInt8>, members: Int) -> UInt32 {
        // Remembered deletes that a later row covers say nothing.
        for node in 0..<self.nodes {
            for key in 0..<self.keys {
                let row = self.rowAt(node, key)
                if state[row] != 0 && state[row + self.stampIs] >= state[row + self.tombIs] {
                    state[row + self.tombIs] = 0
                }
            }
        }
        // Changes that all have applied. A node that joins has them with its copy, if its target has.
        for origin in 0..<self.nodes {
            let log = self.logAt(origin)
            var least = state[log]
            for node in 0..<members where node != origin {
                least = min(least, state[self.appliedAt(node, origin)])
            }
            guard least > 0 else {
                continue
            }
            let count = Int(state[log] - least)
            for index in 0..<(self.changeSize * self.config.operations) {
                let source = index + self.changeSize * Int(least)
                state[log + 1 + index] =
                    index < self.changeSize * count && source < self.logSize - 1 ? state[log + 1 + source] : 0
            }
            state[log] = UInt8(count)
            for node in 0..<members where node != origin {
                state[self.appliedAt(node, origin)] -= least
            }
        }
        // When nobody writes any more, clocks don't matter.
        if state[0] == 0 && !self.config.vacuum && !(self.config.join && state[1] == 0) {
            for node in 0..<self.nodes {
                state[self.nodeAt(node)] = 0
                state[self.nodeAt(node) + 1] = 0
            }
        }
        var used: UInt32 = 0
        self.mapTimes(state) {
            used |= 1 << UInt32($0)
            return $0
        }
        self.mapTimes(state) { time in
            UInt8((used & ((1 << UInt32(time)) - 1)).nonzeroBitCount) + 1
        }
        // Values, by their first appearance.
        var next: UInt8 = 0
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 256) { names in
            names.initialize(repeating: 0)
            func value(_ index: Int) {
                let old = Int(state[index])
                guard old != 0 else {
                    return
                }
                if names[old] == 0 {
                    next += 1
                    names[old] = next
                }
                state[index] = names[old]
            }
            for node in 0..<self.nodes {
                for key in 0..<self.keys {
                    value(self.rowAt(node, key))
                    value(self.rowAt(node, key) + 1)
                }
                for index in 0..<Int(state[self.logAt(node)]) {
                    value(self.changeAt(node, index) + 3)
                    value(self.changeAt(node, index) + 4)
                }
            }
            for key in 0..<self.keys {
                value(self.latestAt(key) + 1)
                value(self.latestAt(key) + 2)
            }
        }
        return used
    }
}
