// The order of row versions is total and the same seen from either side.

import Conflict
import Testing

@Suite struct RowVersionTests {
    static let versions: [RowVersion] = [Int64.min, -1, 0, 1, Int64.max].flatMap { time in
        [UInt32.min, 1, 2, UInt32.max].map { RowVersion(time: time, node: $0) }
    }

    @Test func timeComesFirstThenNode() {
        #expect(RowVersion(time: 1, node: 9) < RowVersion(time: 2, node: 1))
        #expect(RowVersion(time: 2, node: 1) < RowVersion(time: 2, node: 2))
        #expect(RowVersion(time: -5, node: 7) < RowVersion(time: 0, node: 0))
    }

    @Test func exactlyOneOfLessEqualGreater() {
        for left in Self.versions {
            for right in Self.versions {
                #expect([left < right, left == right, left > right].filter { $0 }.count == 1)
                #expect((left < right) == (right > left))
            }
        }
    }

    @Test func transitive() {
        for a in Self.versions {
            for b in Self.versions where a < b {
                for c in Self.versions where b < c {
                    #expect(a < c)
                }
            }
        }
    }

    /// Two nodes, each with its own version of the row, get the other's: exactly one of them applies.
    @Test func nodesAgreeOnTheWinner() {
        for left in Self.versions {
            for right in Self.versions where left.node != right.node {
                for decide in [decideUpdateOf, decideInsertOf] {
                    let here = decide(left, right)
                    let there = decide(right, left)
                    #expect((here.resolution == .applyRemote) != (there.resolution == .applyRemote), "\(left) \(right)")
                }
            }
        }
    }

    private func decideUpdateOf(_ local: RowVersion, _ remote: RowVersion) -> Decision {
        decideUpdate(local: .present(version: local, sameOrigin: false, ownTransaction: false), remote: remote)
    }

    private func decideInsertOf(_ local: RowVersion, _ remote: RowVersion) -> Decision {
        decideInsert(local: .present(version: local, sameOrigin: false, ownTransaction: false), remote: remote)
    }
}
