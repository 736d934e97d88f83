// The state of a conflict-free counter or sum, and how two states become one.
//
// A state keeps, for each node that has changed the value, what this node has added and subtracted since the row is there,
// and how much of that resets have cancelled. Only the node itself changes its amounts, and they only grow: of two amounts
// of one node the greater is the later one. A reset marks all amounts that it sees as cancelled; marks only grow, too. So
// two states are merged by taking the greater one of everything, in whatever order and however often.
//
// A change that a reset did not see, because its node made it at the same time, is not cancelled: after all has been
// exchanged, the value is what was added beside the resets. Of the resets of two nodes at the same time each cancels what
// it saw, and nothing twice.

/// The four types. Raw values are stored; the names are those of the SQL types.
public enum CRDTType: UInt8, CaseIterable, Sendable {
    case gcounter = 1
    case gsum = 2
    case pncounter = 3
    case pnsum = 4

    public var name: String {
        switch self {
        case .gcounter: "bdr.crdt_gcounter"
        case .gsum: "bdr.crdt_gsum"
        case .pncounter: "bdr.crdt_pncounter"
        case .pnsum: "bdr.crdt_pnsum"
        }
    }

    /// Can be made smaller.
    var hasNegative: Bool { self == .pncounter || self == .pnsum }
    /// Counts in numeric, not in bigint.
    public var isSum: Bool { self == .gsum || self == .pnsum }

    /// What to use instead of one that only grows.
    private var signedName: String { self == .gcounter ? CRDTType.pncounter.name : CRDTType.pnsum.name }

    func cannotDecrease() -> CRDTError {
        CRDTError(
            "22003", "a value of type \(self.name) can't be decreased",
            hint: "Use \(self.signedName) for a value that is also made smaller.")
    }

    func cannotBeNegative() -> CRDTError {
        CRDTError(
            "22003", "a value of type \(self.name) can't be negative",
            hint: "Use \(self.signedName) for a value that can be negative.")
    }
}

/// What one node has done to a value.
struct CRDTEntry<Number: CRDTNumber> {
    var node: UInt32
    var added = Number.zero
    var subtracted = Number.zero
    /// How much of both is cancelled.
    var addedReset = Number.zero
    var subtractedReset = Number.zero

    var hasReset: Bool { !Number.isZero(self.addedReset) || !Number.isZero(self.subtractedReset) }
}

struct CRDTState<Number: CRDTNumber> {
    /// The first byte of every state; the high half is the version of this format.
    static var version: UInt8 { 0x10 }

    let type: CRDTType
    /// What the value was inserted or assigned with. Belongs to no node.
    var initial: Number.Change
    var initialReset = false
    /// By node, each once; none without an amount.
    var entries: [CRDTEntry<Number>] = []

    /// - Throws: when the type permits no such value.
    init(type: CRDTType, initial: Number.Change) throws(CRDTError) {
        guard type.hasNegative || !Number.isNegative(initial) else {
            throw type.cannotBeNegative()
        }
        self.type = type
        self.initial = initial
    }

    // MARK: What can be done

    /// The sum of what was not cancelled.
    var total: Number.Total {
        var total = Number.total(of: self.initial)
        if self.initialReset {
            Number.add(&total, Number.magnitude(self.initial), negative: !Number.isNegative(self.initial))
        }
        for entry in self.entries {
            Number.add(&total, entry.added, negative: false)
            Number.add(&total, entry.addedReset, negative: true)
            Number.add(&total, entry.subtracted, negative: true)
            Number.add(&total, entry.subtractedReset, negative: false)
        }
        return total
    }

    /// Adds a change of a node to what this node did before. Nothing of another node is touched.
    mutating func add(_ change: Number.Change, by node: UInt32, subtract: Bool) throws(CRDTError) {
        let amount = Number.magnitude(change)
        let negative = Number.isNegative(change) != subtract
        guard self.type.hasNegative || !negative || Number.isZero(amount) else {
            throw self.type.cannotDecrease()
        }
        guard !Number.isZero(amount) else {
            return
        }
        let index = self.entries.firstIndex { $0.node >= node } ?? self.entries.count
        if index == self.entries.count || self.entries[index].node != node {
            self.entries.insert(CRDTEntry(node: node), at: index)
        }
        if negative {
            self.entries[index].subtracted = try Number.add(self.entries[index].subtracted, amount)
        } else {
            self.entries[index].added = try Number.add(self.entries[index].added, amount)
        }
        guard Number.isInRange(self.total) else {
            throw .outOfRange(self.type.isSum ? "numeric" : "bigint")
        }
    }

    /// Cancels what there is.
    mutating func reset() {
        self.initialReset = true
        for index in self.entries.indices {
            self.entries[index].addedReset = self.entries[index].added
            self.entries[index].subtractedReset = self.entries[index].subtracted
        }
    }

    /// The greater one of everything: commutative, associative, and the same again for what is in it already.
    mutating func merge(_ other: CRDTState) {
        self.initial = Number.greater(self.initial, other.initial)
        self.initialReset = self.initialReset || other.initialReset
        var merged: [CRDTEntry<Number>] = []
        merged.reserveCapacity(max(self.entries.count, other.entries.count))
        var left = self.entries[...]
        var right = other.entries[...]
        while let a = left.first, let b = right.first {
            if a.node < b.node {
                merged.append(a)
                left = left.dropFirst()
            } else if b.node < a.node {
                merged.append(b)
                right = right.dropFirst()
            } else {
                merged.append(
                    CRDTEntry(
                        node: a.node, added: Self.greater(a.added, b.added),
                        subtracted: Self.greater(a.subtracted, b.subtracted),
                        addedReset: Self.greater(a.addedReset, b.addedReset),
                        subtractedReset: Self.greater(a.subtractedReset, b.subtractedReset)))
                left = left.dropFirst()
                right = right.dropFirst()
            }
        }
        merged.append(contentsOf: left)
        merged.append(contentsOf: right)
        self.entries = merged
    }

    private static func greater(_ left: Number.Amount, _ right: Number.Amount) -> Number.Amount {
        Number.compare(left, right) >= 0 ? left : right
    }

    // MARK: Bytes
    //
    // version; type, with bit 7 when the initial value is cancelled; initial value; number of entries; of each: node, flags
    // (bit 0: has subtracted, bit 1: has cancelled), added, [subtracted], [cancelled of added, [of subtracted]].

    init(_ bytes: UnsafeRawBufferPointer, type: CRDTType) throws(CRDTError) {
        var reader = CRDTReader(bytes)
        guard try reader.byte() == Self.version else {
            throw .malformed("another version of bdr has written it")
        }
        let head = try reader.byte()
        guard head & 0x7f == type.rawValue else {
            throw .malformed("it belongs to another type than \(type.name)")
        }
        try self.init(type: type, initial: try Number.readChange(&reader))
        self.initialReset = head & 0x80 != 0
        let count = try reader.varint()
        // an entry takes three bytes at least
        guard count <= UInt64(reader.remaining / 3) else {
            throw .malformed("it ends too early")
        }
        self.entries.reserveCapacity(Int(count))
        for _ in 0..<Int(count) {
            guard let node = UInt32(exactly: try reader.varint()) else {
                throw .malformed("a node id is out of range")
            }
            let flags = try reader.byte()
            guard flags <= 3 && (type.hasNegative || flags & 1 == 0) else {
                throw .malformed("unknown flags")
            }
            var entry = CRDTEntry<Number>(node: node, added: try Number.readAmount(&reader))
            if flags & 1 != 0 {
                entry.subtracted = try Number.readAmount(&reader)
            }
            if flags & 2 != 0 {
                entry.addedReset = try Number.readAmount(&reader)
                if flags & 1 != 0 {
                    entry.subtractedReset = try Number.readAmount(&reader)
                }
            }
            guard (flags & 1 != 0) == !Number.isZero(entry.subtracted), (flags & 2 != 0) == entry.hasReset else {
                throw .malformed("flags that say nothing")
            }
            try self.append(entry)
        }
        guard reader.remaining == 0 else {
            throw .malformed("something follows it")
        }
    }

    /// Appends an entry that somebody has written.
    private mutating func append(_ entry: CRDTEntry<Number>) throws(CRDTError) {
        if let last = self.entries.last {
            guard last.node < entry.node else {
                throw .malformed("nodes are not in order")
            }
        }
        guard !Number.isZero(entry.added) || !Number.isZero(entry.subtracted) else {
            throw .malformed("a node without an amount")
        }
        guard Self.isPlain(entry.added), Self.isPlain(entry.subtracted), Self.isPlain(entry.addedReset),
            Self.isPlain(entry.subtractedReset)
        else {
            throw .malformed("zero has a scale")
        }
        guard Number.compare(entry.addedReset, entry.added) <= 0,
            Number.compare(entry.subtractedReset, entry.subtracted) <= 0
        else {
            throw .malformed("more is cancelled than there is")
        }
        self.entries.append(entry)
    }

    private static func isPlain(_ amount: Number.Amount) -> Bool {
        !Number.isZero(amount) || amount == Number.zero
    }

    var bytes: [UInt8] {
        var writer = CRDTWriter(capacity: 16 &+ 16 &* self.entries.count)
        writer.byte(Self.version)
        writer.byte(self.type.rawValue | (self.initialReset ? 0x80 : 0))
        Number.writeChange(self.initial, to: &writer)
        writer.varint(UInt64(self.entries.count))
        for entry in self.entries {
            let subtracted = !Number.isZero(entry.subtracted)
            let reset = entry.hasReset
            writer.varint(UInt64(entry.node))
            writer.byte((subtracted ? 1 : 0) | (reset ? 2 : 0))
            Number.writeAmount(entry.added, to: &writer)
            if subtracted {
                Number.writeAmount(entry.subtracted, to: &writer)
            }
            if reset {
                Number.writeAmount(entry.addedReset, to: &writer)
                if subtracted {
                    Number.writeAmount(entry.subtractedReset, to: &writer)
                }
            }
        }
        return writer.bytes
    }

    // MARK: Text
    //
    // {initial: 5, nodes: [1: 7, 3: 2]}; with subtracted: [1: +7 -2]; after a reset: {initial: 5 reset, nodes: [1: 7 reset 7]}

    func write(to text: inout [UInt8]) {
        func append(_ word: String) {
            text.append(contentsOf: word.utf8)
        }
        func append(_ added: Number.Amount, _ subtracted: Number.Amount) {
            guard self.type.hasNegative else {
                self.append(added, to: &text)
                return
            }
            append("+")
            self.append(added, to: &text)
            append(" -")
            self.append(subtracted, to: &text)
        }
        append("{initial: ")
        Number.text(Number.total(of: self.initial), to: &text)
        append(self.initialReset ? " reset, nodes: [" : ", nodes: [")
        for (index, entry) in self.entries.enumerated() {
            append("\(index == 0 ? "" : ", ")\(entry.node): ")
            append(entry.added, entry.subtracted)
            if entry.hasReset {
                append(" reset ")
                append(entry.addedReset, entry.subtractedReset)
            }
        }
        append("]}")
    }

    private func append(_ amount: Number.Amount, to text: inout [UInt8]) {
        var total = Number.zeroTotal
        Number.add(&total, amount, negative: false)
        Number.text(total, to: &text)
    }

    init(text: UnsafeRawBufferPointer, type: CRDTType) throws(CRDTError) {
        var scanner = CRDTScanner(text)
        func amounts() throws(CRDTError) -> (Number.Amount, Number.Amount) {
            guard type.hasNegative else {
                return (try Number.scanAmount(&scanner), Number.zero)
            }
            try scanner.require("+")
            let added = try Number.scanAmount(&scanner)
            try scanner.require("-")
            return (added, try Number.scanAmount(&scanner))
        }
        try scanner.require("{")
        try scanner.require("initial")
        try scanner.require(":")
        try self.init(type: type, initial: try Number.scanChange(&scanner))
        self.initialReset = scanner.take("reset")
        try scanner.require(",")
        try scanner.require("nodes")
        try scanner.require(":")
        try scanner.require("[")
        while !scanner.take("]") {
            if !self.entries.isEmpty {
                try scanner.require(",")
            }
            let id = try CRDTInteger.scanAmount(&scanner)
            guard let node = UInt32(exactly: id) else {
                throw .outOfRange("node id")
            }
            try scanner.require(":")
            var entry = CRDTEntry<Number>(node: node)
            (entry.added, entry.subtracted) = try amounts()
            if scanner.take("reset") {
                (entry.addedReset, entry.subtractedReset) = try amounts()
            }
            try self.append(entry)
        }
        try scanner.require("}")
        guard scanner.peek() == nil else {
            throw .malformed("something follows it")
        }
    }
}
