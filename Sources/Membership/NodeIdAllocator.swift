// Which id the next node of a group gets.

/// Allocates node ids: counted up, never derived from a name, never given twice.
///
/// An id stands in row versions and origins long after its node was parted; a new node with an old id would be taken for
/// the old one. The counter is a value for the caller to store in the transaction that stores the node record.
public struct NodeIdAllocator: Equatable, Sendable {
    /// Most node records of a group, active and parted ones together; each needs a number of its own in global sequences.
    public static let maximumRecords = 1024

    /// The next id, if no record has it or a higher one.
    public private(set) var counter: UInt32
    /// Ids of all node records.
    private var records: Set<UInt32>

    /// - Parameters:
    ///   - counter: as stored, 1 for a new group.
    ///   - records: ids of all node records of the group, parted nodes included.
    public init(counter: UInt32 = 1, records: some Sequence<UInt32> = []) {
        self.counter = max(1, counter)
        self.records = Set(records)
    }

    /// Gives out an id, and counts its record from now on.
    /// - Throws: `MembershipError` when the group is full, or ids have run out; nothing is changed then.
    public mutating func allocate() throws(MembershipError) -> UInt32 {
        guard self.records.count < Self.maximumRecords else {
            throw MembershipError(
                sqlstate: "54000", message: "group has too many nodes",
                detail: "A group holds at most \(Self.maximumRecords) node records, those of parted nodes included.",
                hint: "Remove records of parted nodes with bdr.drop_node(node_name).")
        }
        // The records count too, should the counter have been restored from an older copy.
        let id = max(self.counter, self.records.max().map { $0 < UInt32.max ? $0 + 1 : $0 } ?? 1)
        guard id < UInt32.max else {
            throw MembershipError(sqlstate: "54000", message: "group has run out of node ids")
        }
        self.counter = id + 1
        self.records.insert(id)
        return id
    }

    /// The number of a node in values of global sequences, which have room for 1024: the same as its id as long as there are
    /// that few, then one that no record has.
    /// - Parameter taken: those of all node records of the group.
    public static func sequenceNumber(of id: UInt32, taken: some Sequence<UInt32>) -> UInt32 {
        let taken = Set(taken)
        let count = UInt32(clamping: self.maximumRecords)
        var number = (max(1, id) - 1) % count + 1
        for _ in 0..<count where taken.contains(number) {
            number = number % count + 1
        }
        return number
    }
}
