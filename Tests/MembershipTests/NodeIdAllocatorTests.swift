// Node ids are counted up and never given twice.

import Membership
import TestSupport
import Testing

@Suite struct NodeIdAllocatorTests {
    @Test func countsUp() throws {
        var allocator = NodeIdAllocator()
        #expect(try allocator.allocate() == 1)
        #expect(try allocator.allocate() == 2)
        #expect(try allocator.allocate() == 3)
        #expect(allocator.counter == 4)
    }

    @Test func zeroIsNoId() throws {
        var allocator = NodeIdAllocator(counter: 0)
        #expect(try allocator.allocate() == 1)
    }

    /// The record of a parted node was dropped: its id isn't given again.
    @Test func goesOnFromTheCounter() throws {
        var allocator = NodeIdAllocator(counter: 9, records: [1, 3] as [UInt32])
        #expect(try allocator.allocate() == 9)
        #expect(allocator.counter == 10)
    }

    @Test func goesOnFromTheRecordsWhenTheCounterIsOld() throws {
        var allocator = NodeIdAllocator(counter: 2, records: [1, 7, 3] as [UInt32])
        #expect(try allocator.allocate() == 8)
        #expect(try allocator.allocate() == 9)
        #expect(allocator.counter == 10)
    }

    @Test func fullGroup() throws {
        let records = Array(1...UInt32(NodeIdAllocator.maximumRecords - 1))
        var allocator = NodeIdAllocator(counter: 5000, records: records + records)
        #expect(try allocator.allocate() == 5000)
        let before = allocator
        let error = try #require(throws: MembershipError.self) { try allocator.allocate() }
        #expect(error.sqlstate == "54000")
        #expect(error.hint?.contains("bdr.drop_node") == true)
        #expect(allocator == before)
    }

    @Test(arguments: [
        NodeIdAllocator(counter: UInt32.max), NodeIdAllocator(counter: 1, records: [UInt32.max]),
        NodeIdAllocator(counter: 1, records: [UInt32.max - 1]),
    ])
    func idsRunOut(allocator: NodeIdAllocator) {
        var changed = allocator
        #expect(throws: MembershipError.self) { try changed.allocate() }
        #expect(changed == allocator)
    }

    @Test func lastId() throws {
        var allocator = NodeIdAllocator(counter: UInt32.max - 1)
        #expect(try allocator.allocate() == UInt32.max - 1)
        #expect(throws: MembershipError.self) { try allocator.allocate() }
    }

    /// Stored and read again in between, with records dropped at random.
    @Test func neverGivesAnIdTwice() throws {
        var random = SplitMix64(seed: 11)
        var given: Set<UInt32> = []
        var records: Set<UInt32> = []
        var counter: UInt32 = 1
        for _ in 0..<2000 {
            var allocator = NodeIdAllocator(counter: counter, records: records)
            let id = try allocator.allocate()
            #expect(given.insert(id).inserted)
            records.insert(id)
            counter = allocator.counter
            if records.count > 5 || random.next() % 3 == 0, let dropped = records.randomElement(using: &random) {
                records.remove(dropped)
            }
        }
    }

    @Test func sequenceNumbersFitAndAreNotTaken() {
        #expect(NodeIdAllocator.sequenceNumber(of: 1, taken: []) == 1)
        #expect(NodeIdAllocator.sequenceNumber(of: 1024, taken: [1, 2]) == 1024)
        #expect(NodeIdAllocator.sequenceNumber(of: 1025, taken: [1, 2, 1024]) == 3)
        #expect(NodeIdAllocator.sequenceNumber(of: 1024, taken: [1, 1024]) == 2)
        #expect(NodeIdAllocator.sequenceNumber(of: 5000, taken: Array(1...1023)) == 1024)
        #expect(NodeIdAllocator.sequenceNumber(of: 0, taken: []) == 1)
    }
}
