// The stamp by which two changes of one row are ordered, the same way on every node.

/// When and where a row was last changed.
///
/// Ordered by commit time, and for equal times by node id: the higher id is the later one. Since the order is total and
/// uses nothing but what travels with the change, every node picks the same winner.
public struct RowVersion: Comparable, Hashable, Sendable {
    /// Commit time on the node that made the change, in microseconds since 2000-01-01 UTC (PostgreSQL's epoch).
    public var time: Int64
    /// Id of the node that made the change.
    public var node: UInt32

    /// - Parameters:
    ///   - time: commit time, microseconds since 2000-01-01 UTC.
    ///   - node: id of the node where the change was first committed.
    public init(time: Int64, node: UInt32) {
        self.time = time
        self.node = node
    }

    public static func < (left: RowVersion, right: RowVersion) -> Bool {
        (left.time, left.node) < (right.time, right.node)
    }
}
