// Three nodes that change the columns of a row come to one row, whatever the order.

import Conflict
import Testing

@Suite struct ColumnMergeTests {
    /// A row of three columns, as a node has it.
    struct Row: Equatable {
        var values: [String]
        var versions: ColumnVersions
        static let columns: [UInt32] = [7, 11, 13]

        mutating func write(_ column: Int, _ value: String, at time: Int64, by node: UInt32) {
            self.values[column] = value
            self.versions.change([(Self.columns[column], UInt16(column + 1))], at: time, by: node)
        }

        mutating func receive(_ other: Row) {
            let later = laterColumns(local: self.versions, remote: other.versions, columns: Self.columns)
            for (column, isLater) in later.enumerated() where isLater {
                self.values[column] = other.values[column]
            }
            self.versions = self.versions.merged(with: other.versions)
        }
    }

    static let permutations = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]

    /// Each node changes one or two of the columns at one of two times, from one row or from an insert of its own; then each
    /// receives what the others have sent, in each order.
    @Test func threeNodesConverge() {
        let start = Row(values: ["", "", ""], versions: ColumnVersions(base: RowVersion(time: 0, node: 0)))
        // 3 columns x 3 second columns (the same: only one) x 2 times x 2 beginnings
        let choices = 36
        for number in 0..<(choices * choices * choices) {
            var rest = number
            var sent: [Row] = []
            for node in UInt32(1)...3 {
                let choice = rest % choices
                rest /= choices
                let time = Int64(choice / 9 % 2 + 1)
                var row = start
                if choice >= 18 {
                    row = Row(
                        values: Array(repeating: "insert \(node)", count: 3),
                        versions: ColumnVersions(base: RowVersion(time: time, node: node)))
                }
                row.write(choice % 3, "\(node) first", at: time, by: node)
                if choice / 3 % 3 != choice % 3 {
                    row.write(choice / 3 % 3, "\(node) second", at: time, by: node)
                }
                sent.append(row)
            }
            var outcome: Row?
            for order in Self.permutations {
                // the first is the local row
                var row = sent[order[0]]
                row.receive(sent[order[1]])
                row.receive(sent[order[2]])
                row.receive(sent[order[1]])
                if outcome == nil {
                    outcome = row
                } else if outcome != row {
                    Issue.record("choice \(number): \(row) in order \(order), before \(String(describing: outcome))")
                    return
                }
            }
        }
    }

    @Test func bothContribute() {
        var first = Row(values: ["a", "b", "c"], versions: ColumnVersions(base: RowVersion(time: 5, node: 1)))
        var second = first
        first.write(0, "first", at: 10, by: 1)
        second.write(1, "second", at: 9, by: 2)
        first.receive(second)
        #expect(first.values == ["first", "second", "c"])
    }

    @Test func equalTimes() {
        var low = Row(values: ["a", "b", "c"], versions: ColumnVersions(base: RowVersion(time: 5, node: 1)))
        var high = low
        low.write(0, "low", at: 10, by: 2)
        high.write(0, "high", at: 10, by: 3)
        low.receive(high)
        #expect(low.values[0] == "high")
    }

    /// What is written on top of another node's change is later, also if the clock is behind.
    @Test func clockBehind() {
        var versions = ColumnVersions(base: RowVersion(time: 100, node: 2))
        versions.change([(7, 1)], at: 50, by: 1)
        #expect(versions.version(of: 7) == RowVersion(time: 101, node: 1))
        #expect(versions.version(of: 11) == RowVersion(time: 100, node: 2))
        versions.change([(7, 1)], at: .max, by: 1)
        versions.change([(7, 1)], at: .max, by: 1)
        #expect(versions.version(of: 7).time == .max)
    }

    @Test func bytes() {
        var versions = ColumnVersions(base: RowVersion(time: -1, node: 2))
        versions.change([(0xFFFF_FFFE, 3), (7, 1)], at: 50, by: 0xFFFF_FFFF)
        var bytes = versions.bytes
        #expect(bytes.withUnsafeBytes { ColumnVersions($0) } == versions)
        for length in 0..<bytes.count {
            #expect(bytes.withUnsafeBytes { ColumnVersions(UnsafeRawBufferPointer(rebasing: $0[..<length])) } == nil)
        }
        bytes[12] = 3
        #expect(bytes.withUnsafeBytes { ColumnVersions($0) } == nil)
    }

    /// What a transaction has changed is dated by its commit, the same wherever that becomes known.
    @Test func commitDates() {
        let before = RowVersion(time: 100, node: 1)
        var versions = ColumnVersions(base: before, source: .commit)
        versions.modify([(11, 2)])
        versions.modify([(7, 1), (11, 2)])
        #expect(versions.modified.map(\.column) == [7, 11])
        #expect(!versions.isResolved)
        #expect(versions.version(of: 7) == before)
        var forgotten = versions
        versions.resolve(RowVersion(time: 200, node: 2))
        #expect(versions.isResolved)
        #expect(versions.version(of: 7) == RowVersion(time: 200, node: 2))
        #expect(versions.version(of: 13) == before)
        // again: nothing is left to date
        versions.resolve(RowVersion(time: 300, node: 3))
        #expect(versions.version(of: 7) == RowVersion(time: 200, node: 2))
        // a clock that was set back
        versions.modify([(7, 1)])
        versions.resolve(RowVersion(time: 150, node: 1))
        #expect(versions.version(of: 7) == RowVersion(time: 201, node: 1))
        forgotten.resolve(nil)
        #expect(forgotten == ColumnVersions(base: before, source: .commit))
    }

    @Test func commitDatesInserts() {
        var versions = ColumnVersions(inserted: [(11, 2), (7, 1)], base: RowVersion(time: 500, node: 1))
        versions.modify([(7, 1)])
        #expect(versions.modified.map(\.column) == [7, 11])
        versions.resolve(RowVersion(time: 200, node: 2))
        #expect(versions == ColumnVersions(base: RowVersion(time: 200, node: 2), source: .commit))
    }

    @Test func bytesOfUnresolved() {
        var versions = ColumnVersions(base: RowVersion(time: -1, node: 2))
        versions.change([(0xFFFF_FFFE, 3)], at: 50, by: 0xFFFF_FFFF)
        versions.modify([(9, 2), (7, 1)])
        let inserted = ColumnVersions(inserted: [(7, 1)], base: RowVersion(time: 1, node: 2))
        let nothing = ColumnVersions(inserted: [], base: RowVersion(time: 1, node: 2))
        for versions in [versions, inserted, nothing, ColumnVersions(base: versions.base, source: .commit)] {
            var bytes = versions.bytes
            #expect(bytes.withUnsafeBytes { ColumnVersions($0) } == versions)
            for length in 0..<bytes.count {
                #expect(bytes.withUnsafeBytes { ColumnVersions(UnsafeRawBufferPointer(rebasing: $0[..<length])) } == nil)
            }
            // Extension/column_timestamps.c looks at this bit
            #expect((bytes[13] & 0x40 != 0) == !versions.isResolved)
            bytes.append(0)
            #expect(bytes.withUnsafeBytes { ColumnVersions($0) } == nil)
        }
        // the time of a change comes from the clock alone
        var bytes = versions.bytes
        bytes[13] &= 0x7F
        #expect(bytes.withUnsafeBytes { ColumnVersions($0) } == nil)
    }
}
