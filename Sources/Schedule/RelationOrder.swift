// In which order changes of one relation have to be applied, and by what two of them are known to be about the same row.

public import Wire

/// How far changes of different rows of a relation are independent of one another.
public enum ChangeOrder: Sendable {
    /// Rows meet only by the replica identity; where there is none, rows are only added.
    case byKey
    /// Each change of the relation after the ones before.
    case together
    /// A transaction with such a change is applied when all before it are committed, and before all after it.
    case alone
}

/// What the scheduler knows of a relation.
public final class RelationOrder {
    let order: ChangeOrder
    /// Seeds the hashes of its keys, so that equal keys of two relations are two.
    private let seed: UInt64
    private let layout: RawLayout?
    private let keys: [(number: Int, isSwapped: Bool)]
    private var values: [ColumnValue] = []
    /// Numbers of the last transaction that has changed it, in the run at hand; 0: none has.
    var last = 0
    var run: UInt64 = 0

    /// - Parameters:
    ///   - description: as the peer sent it.
    ///   - layout: of its raw rows; nil when there are none.
    ///   - relation: identifies the local relation.
    public init(_ order: ChangeOrder, _ description: RelationMessage, layout: RawLayout?, relation: UInt32) {
        self.order = order
        self.layout = layout
        self.seed = KeyHash.seed(relation)
        // in a raw row numbers lie as in memory, else the highest byte comes first
        self.keys = description.columns.enumerated().filter { $0.element.isKey }
            .map { ($0.offset, [2, 4, 8].contains($0.element.attlen)) }
    }

    var hasKey: Bool { !self.keys.isEmpty }

    /// - Returns: nil when the key can't be read.
    /// - Throws: for a tuple that is malformed.
    func hash(_ tuple: TupleView) throws(WireError) -> UInt64? {
        var hash = KeyHash(self.seed)
        switch tuple {
        case .raw:
            guard let layout = self.layout else {
                return nil
            }
            for key in self.keys {
                guard case .value(let bytes) = try layout.attribute(key.number, of: tuple) else {
                    return nil
                }
                hash.add(bytes, swapped: key.isSwapped)
            }
        case .columns:
            try tuple.decodeColumns(into: &self.values)
            for key in self.keys {
                guard key.number < self.values.count else {
                    return nil
                }
                let value = self.values[key.number]
                guard value.kind == .binary || value.kind == .text else {
                    return nil
                }
                hash.add(value.bytes, swapped: false)
            }
        case .kept:
            return nil
        }
        return hash.value
    }
}

/// FNV-1a, a word at a time where the bytes are a number. Two keys of one hash are taken for one, which is only slower.
struct KeyHash {
    private(set) var value: UInt64

    private static let prime: UInt64 = 0x100_0000_01B3

    static func seed(_ number: UInt32) -> UInt64 {
        var hash = KeyHash(0xCBF2_9CE4_8422_2325)
        hash.mix(UInt64(number))
        return hash.value
    }

    init(_ value: UInt64) {
        self.value = value
    }

    private mutating func mix(_ word: UInt64) {
        self.value = (self.value ^ word) &* Self.prime
        self.value ^= self.value >> 29
    }

    /// - Parameter swapped: the bytes come lowest first; hashed as if they came highest first.
    mutating func add(_ bytes: UnsafeRawBufferPointer, swapped: Bool) {
        var word: UInt64 = 0
        var filled = 0
        func byte(_ index: Int) -> UInt8 { swapped ? bytes[bytes.count &- 1 &- index] : bytes[index] }
        for index in 0..<bytes.count {
            word = word << 8 | UInt64(byte(index))
            filled &+= 1
            if filled == 8 {
                self.mix(word)
                (word, filled) = (0, 0)
            }
        }
        self.mix(word)
        self.mix(UInt64(bytes.count))
    }
}
