// Conflict-free counters and sums: what they compute, that their states converge, and that nothing but a state is taken for one.

import Conflict
import TestSupport
import Testing

private typealias State = [UInt8]

private func with<T>(_ bytes: State, _ body: (UnsafeRawBufferPointer) throws -> T) rethrows -> T {
    try bytes.withUnsafeBytes(body)
}

private func parse(_ text: String, as type: CRDTType) throws -> State {
    try with(Array(text.utf8)) { try CRDT.parse($0, as: type) }
}

private func text(_ state: State) throws -> String {
    String(decoding: try with(state) { try CRDT.stateText($0) }, as: UTF8.self)
}

private func value(_ state: State) throws -> String {
    String(decoding: try with(state) { try CRDT.valueText($0) }, as: UTF8.self)
}

private func merge(_ local: State, _ new: State) throws -> State {
    try merge(local, nil, new)
}

private func merge(_ local: State, _ old: State?, _ new: State) throws -> State {
    try with(local) { local in
        try with(new) { new in
            guard let old else {
                return try CRDT.merge(local: local, old: nil, new: new)
            }
            return try with(old) { try CRDT.merge(local: local, old: $0, new: new) }
        }
    }
}

/// A number in numeric's binary format.
private func numeric(_ number: String) throws -> [UInt8] {
    try with(parse("{initial: \(number), nodes: []}", as: .pnsum)) { try CRDT.numeric($0) }
}

/// Adds a number that is written as text.
private func add(_ change: String, to state: State, by node: UInt32, subtract: Bool = false) throws -> State {
    try with(state) { state in
        if try CRDT.type(of: state).isSum {
            return try with(numeric(change)) { try CRDT.add(numeric: $0, to: state, by: node, subtract: subtract) }
        }
        return try CRDT.add(#require(Int64(change)), to: state, by: node, subtract: subtract)
    }
}

private func check(_ state: State, is type: CRDTType) throws {
    try with(state) { try CRDT.check($0, is: type) }
}

private func integer(_ state: State) throws -> Int64 {
    try with(state) { try CRDT.integer($0) }
}

private func compare(_ left: State, _ right: State) throws -> Int {
    try with(left) { left in try with(right) { try CRDT.compare(left, $0) } }
}

private func hash(_ state: State) throws -> [UInt8] {
    try with(state) { try CRDT.hashKey($0) }
}

private func reset(_ state: State) throws -> State {
    try with(state) { try CRDT.reset($0) }
}

private func sqlstate(_ body: () throws -> Void) -> String? {
    do {
        try body()
        return nil
    } catch {
        return (error as? CRDTError)?.sqlstate
    }
}

@Suite struct CRDTTests {
    @Test(arguments: [
        (CRDTType.gcounter, "{initial: 129824, nodes: [1: 7, 3: 2]}", "129833"),
        (.gcounter, "{initial: 0, nodes: []}", "0"),
        (.gcounter, "{initial: 5 reset, nodes: [0: 7 reset 6, 4294967295: 1]}", "2"),
        (.gcounter, "{initial: 9223372036854775807, nodes: [1: 18446744073709551615]}", "27670116110564327422"),
        (.pncounter, "{initial: -9223372036854775808, nodes: [1: +0 -1, 2: +5 -0]}", "-9223372036854775804"),
        (.pncounter, "{initial: 3, nodes: [7: +10 -4 reset +10 -3, 8: +0 -2 reset +0 -2]}", "2"),
        (.gsum, "{initial: 0.00, nodes: [1: 0.5, 2: 10000.0001]}", "10000.5001"),
        (.gsum, "{initial: 12345678901234567890.5 reset, nodes: []}", "0.0"),
        (.pnsum, "{initial: -2.50, nodes: [1: +0.001 -99999999]}", "-100000001.499"),
        (.pnsum, "{initial: 0, nodes: [1: +0.0001 -0.00009999]}", "0.00000001"),
    ])
    func textIsReadAndWritten(type: CRDTType, written: String, expected: String) throws {
        let state = try parse(written, as: type)
        #expect(try text(state) == written)
        #expect(try value(state) == expected)
        try check(state, is: type)
        for other in CRDTType.allCases where other != type {
            #expect(sqlstate { try check(state, is: other) } == "22P03")
        }
    }

    @Test func spacesMayBeAnywhere() throws {
        #expect(
            try text(parse(" {initial :-5 reset,nodes:[ 1:+2-3reset+1 -0 ]}\n", as: .pncounter))
                == "{initial: -5 reset, nodes: [1: +2 -3 reset +1 -0]}")
    }

    @Test(arguments: [
        "", "{", "5", "{initial: 5}", "{initial: 5, nodes: [1: 7}", "{initial: 5, nodes: [1: 7]} x", "{initial: , nodes: []}",
        "{initial: 5, nodes: [1 7]}", "{initial: 5, nodes: [1: 7 2: 8]}", "{initial: 5, nodes: [2: 7, 1: 8]}",
        "{initial: 5, nodes: [1: 7, 1: 8]}", "{initial: 5, nodes: [1: 0]}", "{initial: 5, nodes: [1: 7 reset 8]}",
        "{initial: 5, nodes: [4294967296: 7]}", "{initial: 9223372036854775808, nodes: []}", "{initial: 5, nodes: [1: -7]}",
        "{initial: 5, nodes: [1: 18446744073709551616]}", "{initial: 1.5, nodes: []}", "{initial: -1, nodes: []}",
    ])
    func otherTextIsRefused(written: String) {
        #expect(["22P02", "22P03", "22003"].contains(sqlstate { _ = try parse(written, as: .gcounter) }))
    }

    @Test func aNodeChangesItsOwnPart() throws {
        var state = try CRDT.counter(.pncounter, initial: 100)
        state = try add("5", to: state, by: 2)
        state = try add("7", to: state, by: 1, subtract: true)
        state = try add("-3", to: state, by: 2)
        state = try add("0", to: state, by: 3)
        #expect(try text(state) == "{initial: 100, nodes: [1: +0 -7, 2: +5 -3]}")
        state = try reset(state)
        state = try add("1", to: state, by: 1)
        #expect(try text(state) == "{initial: 100 reset, nodes: [1: +1 -7 reset +0 -7, 2: +5 -3 reset +5 -3]}")
        #expect(try value(state) == "1")
        #expect(try integer(state) == 1)
    }

    @Test func whatOnlyGrowsIsNotMadeSmaller() throws {
        for (type, other) in [(CRDTType.gcounter, "bdr.crdt_pncounter"), (.gsum, "bdr.crdt_pnsum")] {
            let state = try parse("{initial: 5, nodes: []}", as: type)
            let negative = #expect(throws: CRDTError.self) { try add("-1", to: state, by: 1) }
            #expect(negative?.sqlstate == "22003" && negative?.hint?.contains(other) == true)
            #expect(throws: CRDTError.self) { try add("1", to: state, by: 1, subtract: true) }
            #expect(try value(add("-1", to: state, by: 1, subtract: true)) == "6")
        }
        #expect(sqlstate { _ = try CRDT.counter(.gcounter, initial: -1) } == "22003")
    }

    @Test func whatDoesNotFitIsRefusedWhereItIsAdded() throws {
        let state = try CRDT.counter(.pncounter, initial: 9_223_372_036_854_775_800)
        #expect(sqlstate { _ = try add("8", to: state, by: 1) } == "22003")
        #expect(try value(add("7", to: state, by: 1)) == "9223372036854775807")
        let low = try CRDT.counter(.pncounter, initial: -1)
        #expect(try value(add("-9223372036854775807", to: low, by: 1)) == "-9223372036854775808")
        #expect(sqlstate { _ = try add("-9223372036854775808", to: low, by: 1) } == "22003")
        let full = try parse("{initial: 0, nodes: [1: +18446744073709551615 -18446744073709551615]}", as: .pncounter)
        #expect(sqlstate { _ = try add("1", to: full, by: 1) } == "22003")
        // two nodes at once can come to more: that merges, is shown, and can be brought back, but is no bigint
        let both = try merge(add("7", to: state, by: 1), add("7", to: state, by: 2))
        #expect(try value(both) == "9223372036854775814")
        #expect(sqlstate { _ = try integer(both) } == "22003")
        #expect(try value(add("-7", to: both, by: 3)) == "9223372036854775807")
    }

    @Test func sumsTakeNumbersAsLargeAsNumeric() throws {
        let large = "9" + String(repeating: "0", count: 131_071)
        let small = "0." + String(repeating: "0", count: 16_382) + "1"
        let state = try parse("{initial: \(large), nodes: [1: \(small)]}", as: .gsum)
        #expect(try value(state) == large + small.dropFirst())
        #expect(sqlstate { _ = try add(large, to: state, by: 1) } == "22003")
        #expect(sqlstate { _ = try parse("{initial: 1\(large)0000, nodes: []}", as: .gsum) } == "22003")
        #expect(sqlstate { _ = try parse("{initial: \(small)0, nodes: []}", as: .gsum) } == "22003")
        for special in [[0xc0, 0x00], [0xd0, 0x00], [0xf0, 0x00]] as [[UInt8]] {
            let bytes = [0, 0, 0, 0] + special + [0, 0]
            #expect(sqlstate { _ = try with(bytes) { try CRDT.sum(.pnsum, initial: $0) } } == "22003")
        }
    }

    /// Against integers of hundredths and less.
    @Test func decimalsAddUpExactly() throws {
        var random = SplitMix64(seed: 1)
        func decimal(_ number: Int128, scale: Int) -> String {
            var digits = String(number.magnitude)
            digits = String(repeating: "0", count: max(scale + 1 - digits.count, 0)) + digits
            let point = digits.index(digits.endIndex, offsetBy: -scale)
            return (number < 0 ? "-" : "") + digits[..<point] + (scale > 0 ? "." : "") + digits[point...]
        }
        func power(_ exponent: Int) -> Int128 { (0..<exponent).reduce(1) { power, _ in power * 10 } }
        for _ in 0..<600 {
            var scale = 0
            var total: Int128 = 0
            var state = try parse("{initial: 0, nodes: []}", as: .pnsum)
            for _ in 0..<6 {
                let places = Int.random(in: 0...9, using: &random)
                let digits = Int.random(in: 1...18, using: &random)
                var number = Int128.random(in: 0..<power(digits), using: &random)
                number -= Bool.random(using: &random) ? 0 : number % power(digits / 2)
                number *= Bool.random(using: &random) ? 1 : -1
                state = try add(decimal(number, scale: places), to: state, by: UInt32.random(in: 0...2, using: &random))
                if number != 0 {
                    total = total * power(max(places - scale, 0)) + number * power(max(scale - places, 0))
                    scale = max(scale, places)
                }
                #expect(try value(state) == decimal(total, scale: scale))
                let bytes = try with(state) { try CRDT.numeric($0) }
                #expect(try bytes == numeric(decimal(total, scale: scale)))
            }
        }
    }

    @Test func equalValuesAreEqualHoweverTheyCameAbout() throws {
        let pairs: [(CRDTType, String, String)] = [
            (.gcounter, "{initial: 5, nodes: []}", "{initial: 0, nodes: [1: 2, 9: 3]}"),
            (.pncounter, "{initial: 5 reset, nodes: [1: +0 -1]}", "{initial: -1, nodes: []}"),
            (.gsum, "{initial: 1.50, nodes: []}", "{initial: 0, nodes: [1: 1.5]}"),
            (.pnsum, "{initial: 0.00, nodes: []}", "{initial: 7, nodes: [2: +3 -10]}"),
        ]
        for (type, one, other) in pairs {
            let (a, b) = (try parse(one, as: type), try parse(other, as: type))
            let more = try add("1", to: b, by: 1)
            #expect(try compare(a, b) == 0)
            #expect(try hash(a) == hash(b))
            #expect(try compare(a, more) == -1)
            #expect(try compare(more, a) == 1)
            #expect(try hash(a) != hash(more))
        }
    }

    @Test func anAssignmentHoldsWhereNobodyChangedTheValue() throws {
        let before = try parse("{initial: 1, nodes: [1: 4, 2: 5]}", as: .gcounter)
        let assigned = try CRDT.counter(.gcounter, initial: 3)
        #expect(try merge(before, before, assigned) == assigned)
        let changed = try add("1", to: before, by: 2)
        #expect(try text(merge(changed, before, assigned)) == "{initial: 3, nodes: [1: 4, 2: 6]}")
        // an increment is none
        let grown = try add("1", to: before, by: 1)
        #expect(try merge(before, before, grown) == grown)
        #expect(try text(merge(changed, before, grown)) == "{initial: 1, nodes: [1: 5, 2: 6]}")
    }

    @Test func deltas() throws {
        #expect(try CRDT.mergeDelta(local: 2, old: 0, new: 2) == 4)
        #expect(try CRDT.mergeDelta(local: 10, old: 7, new: 3) == 6)
        // only the result has to fit
        #expect(try CRDT.mergeDelta(local: .min, old: .min, new: .max) == .max)
        #expect(try CRDT.mergeDelta(local: .max, old: .max, new: .min) == .min)
        let error = #expect(throws: CRDTError.self) { try CRDT.mergeDelta(local: .max, old: 0, new: 1) }
        #expect(error?.sqlstate == "22003")
        #expect(sqlstate { _ = try CRDT.mergeDelta(local: -2, old: 0, new: .min) } == "22003")
    }
}

// MARK: Convergence

/// A node with its copy of a value, and what it must be: the changes that have arrived here, less those that a reset saw.
private struct Replica {
    var state: State
    var changes: [Int: Int]
    var cancelled: Set<Int> = []

    /// In hundredths.
    var expected: Int { self.changes.filter { !self.cancelled.contains($0.key) }.values.reduce(0, +) }
}

@Suite struct CRDTConvergenceTests {
    private static func number(_ hundredths: Int, _ type: CRDTType) -> String {
        guard type.isSum else {
            return "\(hundredths)"
        }
        let (whole, rest) = hundredths.magnitude.quotientAndRemainder(dividingBy: 100)
        return "\(hundredths < 0 ? "-" : "")\(whole).\(rest < 10 ? "0" : "")\(rest)"
    }

    private static func examine(_ replica: Replica, _ type: CRDTType) throws {
        let state = replica.state
        let expected = try parse("{initial: \(self.number(replica.expected, type)), nodes: []}", as: type)
        #expect(try compare(state, expected) == 0)
        // what is written is what is read
        #expect(try parse(text(state), as: type) == state)
    }

    /// Changes, resets and exchanges in random order; then all have everything: equal bytes, the right value.
    @Test(arguments: CRDTType.allCases) func nodesComeToTheSame(type: CRDTType) throws {
        let grows = type == .gcounter || type == .gsum
        var random = SplitMix64(seed: UInt64(type.rawValue))
        for round in 0..<120 {
            let initial = Int.random(in: (grows ? 0 : -500)...500, using: &random)
            let start = try parse("{initial: \(Self.number(initial, type)), nodes: []}", as: type)
            var nodes = (0..<Int.random(in: 2...4, using: &random)).map { _ in Replica(state: start, changes: [0: initial]) }
            for step in 1...30 {
                let node = Int.random(in: 0..<nodes.count, using: &random)
                switch Int.random(in: 0..<10, using: &random) {
                case 0:
                    nodes[node].state = try reset(nodes[node].state)
                    nodes[node].cancelled.formUnion(nodes[node].changes.keys)
                case 1..<6:
                    let change = Int.random(in: (grows ? 1 : -300)...300, using: &random)
                    nodes[node].state = try add(
                        Self.number(change, type), to: nodes[node].state, by: UInt32(node + 1))
                    nodes[node].changes[step] = change
                default:
                    try self.send(from: Int.random(in: 0..<nodes.count, using: &random), to: node, &nodes)
                }
                try Self.examine(nodes[node], type)
            }
            // twice: to the first one and back
            for node in nodes.indices {
                try self.send(from: node, to: 0, &nodes)
            }
            for node in nodes.indices {
                try self.send(from: 0, to: node, &nodes)
                try Self.examine(nodes[node], type)
                #expect(nodes[node].state == nodes[0].state, "round \(round)")
            }
        }
    }

    private func send(from: Int, to: Int, _ nodes: inout [Replica]) throws {
        nodes[to].state = try merge(nodes[to].state, nodes[from].state)
        nodes[to].changes.merge(nodes[from].changes) { here, _ in here }
        nodes[to].cancelled.formUnion(nodes[from].cancelled)
    }

    /// Any states at all, not only such as belong to one value.
    @Test(arguments: CRDTType.allCases) func mergingIsALeastUpperBound(type: CRDTType) throws {
        var random = SplitMix64(seed: 40 + UInt64(type.rawValue))
        let signed = type == .pncounter || type == .pnsum
        func amount(_ most: Int) -> (text: String, value: Int) {
            let value = Int.random(in: 0...most, using: &random)
            // 1.5 and 1.50 are two amounts
            let zero = type.isSum && value % 10 != 0 && Bool.random(using: &random) ? "0" : ""
            return (Self.number(value, type) + zero, value)
        }
        func entry(_ node: Int) -> String {
            let (added, subtracted) = (amount(3), amount(3))
            guard added.value + (signed ? subtracted.value : 0) > 0 else {
                return signed ? "\(node): +\(Self.number(1, type)) -0" : "\(node): \(Self.number(1, type))"
            }
            func plain(_ amount: (text: String, value: Int)) -> String { amount.value == 0 ? "0" : amount.text }
            let reset = Bool.random(using: &random)
            guard signed else {
                return "\(node): \(plain(added))" + (reset ? " reset \(plain(added))" : "")
            }
            let all = "+\(plain(added)) -\(plain(subtracted))"
            return "\(node): " + all + (reset ? " reset " + all : "")
        }
        func state() throws -> State {
            let nodes = (1...4).filter { _ in Bool.random(using: &random) }.map(entry).joined(separator: ", ")
            let reset = Bool.random(using: &random) ? " reset" : ""
            return try parse("{initial: \(amount(3).text)\(reset), nodes: [\(nodes)]}", as: type)
        }
        for _ in 0..<500 {
            let (a, b, c) = (try state(), try state(), try state())
            #expect(try merge(a, a) == a)
            #expect(try merge(a, b) == merge(b, a))
            #expect(try merge(merge(a, b), c) == merge(a, merge(b, c)))
            #expect(try merge(merge(a, b), b) == merge(a, b))
            let merged = try merge(a, b)
            try check(merged, is: type)
        }
    }

    @Test func concurrentResetsCancelOnceWhatTheySaw() throws {
        var start = try CRDT.counter(.gcounter, initial: 10)
        start = try add("5", to: start, by: 1)
        // one resets; two adds first and resets then; three only adds
        let one = try reset(start)
        let two = try add("1", to: reset(add("7", to: start, by: 2)), by: 2)
        let three = try add("100", to: start, by: 3)
        let all = try merge(merge(one, two), three)
        #expect(try text(all) == "{initial: 10 reset, nodes: [1: 5 reset 5, 2: 8 reset 7, 3: 100]}")
        #expect(try value(all) == "101")
    }
}

// MARK: Hostile bytes

@Suite struct CRDTBytesTests {
    private static let samples: [(CRDTType, String)] = [
        (.gcounter, "{initial: 300 reset, nodes: [1: 7 reset 5, 300: 70000]}"),
        (.pncounter, "{initial: -3, nodes: [1: +7 -500 reset +0 -3, 2: +0 -1]}"),
        (.gsum, "{initial: 12345.678, nodes: [1: 0.5, 3: 10000 reset 9999.9]}"),
        (.pnsum, "{initial: -0.0001, nodes: [1: +7 -500 reset +0 -3.0, 2: +0 -1]}"),
    ]

    /// What is taken for a state is one, and is written as it was.
    fileprivate func look(at bytes: State) {
        for type in CRDTType.allCases {
            guard (try? check(bytes, is: type)) != nil else {
                continue
            }
            do {
                #expect(try parse(text(bytes), as: type) == bytes)
                #expect(try merge(bytes, bytes) == bytes)
                _ = try (value(bytes), reset(bytes))
            } catch {
                Issue.record("\(bytes): \(error)")
            }
        }
        _ = try? value(bytes)
        _ = try? integer(bytes)
        _ = try? with(bytes) { try CRDT.numeric($0) }
        _ = try? with(bytes) { try CRDT.add(1, to: $0, by: 1) }
        _ = try? compare(bytes, bytes)
    }

    @Test func everyTruncationIsRefused() throws {
        for (type, written) in Self.samples {
            let state = try parse(written, as: type)
            for length in 0..<state.count {
                #expect(sqlstate { try check(Array(state.prefix(length)), is: type) } == "22P03")
            }
            #expect(sqlstate { try check(state + [0], is: type) } == "22P03")
        }
    }

    @Test func everyByteOfEveryValue() throws {
        for (type, written) in Self.samples {
            let state = try parse(written, as: type)
            for index in state.indices {
                for byte in UInt8.min...UInt8.max {
                    var changed = state
                    changed[index] = byte
                    self.look(at: changed)
                }
            }
        }
    }

    @Test func randomBytes() throws {
        var random = SplitMix64(seed: 3)
        for _ in 0..<20_000 {
            var bytes: State = [0x10, UInt8.random(in: 1...4, using: &random)]
            for _ in 0..<Int.random(in: 0...24, using: &random) {
                bytes.append(.random(in: 0...(Bool.random(using: &random) ? 4 : 255), using: &random))
            }
            self.look(at: bytes)
        }
    }

    @Test(arguments: [
        [0x11, 1, 0, 0],  // version
        [0x10, 1, 0x80, 0, 0],  // a number with a byte too many
        [0x10, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0],  // more than 64 bits
        [0x10, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f],  // four billion nodes
        [0x10, 1, 0, 1, 1, 1, 5, 1],  // a gcounter that subtracts
        [0x10, 1, 0, 1, 1, 2, 5, 0],  // cancels nothing, and says so
        [0x10, 1, 0, 1, 1, 2, 5, 6],  // cancels more than there is
        [0x10, 1, 1, 0],  // a negative gcounter
        [0x10, 2, 0, 1, 0, 0x10, 0x27, 0],  // a digit that is 10000
        [0x10, 2, 0, 1, 1, 1, 0, 0],  // digits beyond the scale
        [0x10, 2, 0, 0xff, 0xff, 0xff, 0xff, 0x0f],  // four billion digits
    ] as [[UInt8]])
    func refused(bytes: [UInt8]) throws {
        let type = try #require(CRDTType(rawValue: bytes[1]))
        #expect(["22P03", "22003"].contains(sqlstate { try check(bytes, is: type) }))
    }
}
