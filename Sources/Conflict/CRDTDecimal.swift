// Decimal numbers as PostgreSQL's type numeric has them: exact, with as many digits as there are, and a display scale. Only
// what adding up takes. Groups of four digits, as in numeric's own binary format, so that none of it has to be converted.

/// A finite decimal number.
struct CRDTDecimal: Equatable, Sendable {
    private static let base: UInt16 = 10000
    /// Of numeric: digits after the decimal point, and the largest power of `base`.
    static let maxScale = 0x3fff
    static let maxWeight = 0x7fff
    private static let minWeight = -4096

    var isNegative: Bool
    /// Power of `base` of the first group; 0 when there is none.
    private(set) var weight: Int
    /// Most significant first; neither the first nor the last is 0.
    private(set) var groups: [UInt16]
    /// Digits after the decimal point when it is shown: at least as many as it has.
    private(set) var scale: Int

    static let zero = CRDTDecimal(isNegative: false, weight: 0, groups: [], scale: 0)

    private init(isNegative: Bool, weight: Int, groups: [UInt16], scale: Int) {
        self.isNegative = isNegative
        self.weight = weight
        self.groups = groups
        self.scale = scale
        self.strip()
    }

    var isZero: Bool { self.groups.isEmpty }

    /// Fits into numeric.
    var isInRange: Bool { self.weight <= Self.maxWeight }

    private mutating func strip() {
        if let last = self.groups.last, last == 0 {
            let kept = self.groups.lastIndex { $0 != 0 }.map { $0 &+ 1 } ?? 0
            self.groups.removeLast(self.groups.count &- kept)
        }
        if let first = self.groups.first, first == 0 {
            let zeros = self.groups.firstIndex { $0 != 0 } ?? self.groups.count
            self.groups.removeFirst(zeros)
            self.weight &-= zeros
        }
        if self.groups.isEmpty {
            self.weight = 0
            self.isNegative = false
        }
    }

    /// Power of `base` of the last group.
    private var lowest: Int { self.weight &- (self.groups.count &- 1) }

    /// The group of a power of `base`; 0 beyond both ends.
    private func group(_ power: Int) -> UInt16 {
        let index = self.weight &- power
        return index >= 0 && index < self.groups.count ? self.groups[index] : 0
    }

    // MARK: Arithmetic

    var negated: CRDTDecimal {
        var result = self
        result.isNegative = !self.isNegative && !self.isZero
        return result
    }

    static func compareMagnitudes(_ left: CRDTDecimal, _ right: CRDTDecimal) -> Int {
        guard !left.isZero && !right.isZero else {
            return left.isZero ? (right.isZero ? 0 : -1) : 1
        }
        if left.weight != right.weight {
            return left.weight < right.weight ? -1 : 1
        }
        for (a, b) in zip(left.groups, right.groups) where a != b {
            return a < b ? -1 : 1
        }
        return left.groups.count == right.groups.count ? 0 : left.groups.count < right.groups.count ? -1 : 1
    }

    /// By value.
    static func compare(_ left: CRDTDecimal, _ right: CRDTDecimal) -> Int {
        if left.isNegative != right.isNegative {
            return left.isNegative ? -1 : 1
        }
        let magnitudes = self.compareMagnitudes(left, right)
        return left.isNegative ? 0 &- magnitudes : magnitudes
    }

    /// By value, and for equal values by scale, so that of two numbers one is always the greater or they are the same.
    static func compareTotally(_ left: CRDTDecimal, _ right: CRDTDecimal) -> Int {
        let values = self.compare(left, right)
        guard values == 0 else {
            return values
        }
        return left.scale == right.scale ? 0 : left.scale < right.scale ? -1 : 1
    }

    static func + (left: CRDTDecimal, right: CRDTDecimal) -> CRDTDecimal {
        let scale = max(left.scale, right.scale)
        guard left.isNegative != right.isNegative else {
            return self.sum(left, right, negative: left.isNegative, scale: scale)
        }
        return self.compareMagnitudes(left, right) >= 0
            ? self.difference(left, right, negative: left.isNegative, scale: scale)
            : self.difference(right, left, negative: right.isNegative, scale: scale)
    }

    /// The powers that either has.
    private static func powers(_ left: CRDTDecimal, _ right: CRDTDecimal) -> (lowest: Int, highest: Int) {
        if left.isZero {
            return (right.lowest, right.weight)
        }
        if right.isZero {
            return (left.lowest, left.weight)
        }
        return (min(left.lowest, right.lowest), max(left.weight, right.weight))
    }

    private static func sum(_ left: CRDTDecimal, _ right: CRDTDecimal, negative: Bool, scale: Int) -> CRDTDecimal {
        let (lowest, highest) = self.powers(left, right)
        var groups: [UInt16] = []
        groups.reserveCapacity(highest &- lowest &+ 2)
        var carry: UInt16 = 0
        var power = lowest
        while power <= highest {
            let total = left.group(power) &+ right.group(power) &+ carry
            carry = total >= self.base ? 1 : 0
            groups.append(carry == 1 ? total &- self.base : total)
            power &+= 1
        }
        groups.append(carry)
        groups.reverse()
        return CRDTDecimal(isNegative: negative, weight: highest &+ 1, groups: groups, scale: scale)
    }

    /// Of magnitudes; the first is not smaller.
    private static func difference(_ left: CRDTDecimal, _ right: CRDTDecimal, negative: Bool, scale: Int) -> CRDTDecimal {
        let (lowest, highest) = self.powers(left, right)
        var groups: [UInt16] = []
        groups.reserveCapacity(highest &- lowest &+ 1)
        var borrow: UInt16 = 0
        var power = lowest
        while power <= highest {
            let taken = right.group(power) &+ borrow
            let from = left.group(power)
            borrow = from < taken ? 1 : 0
            groups.append(borrow == 1 ? from &+ self.base &- taken : from &- taken)
            power &+= 1
        }
        groups.reverse()
        return CRDTDecimal(isNegative: negative, weight: highest, groups: groups, scale: scale)
    }

    // MARK: numeric's binary format (numeric_send): big-endian words for groups, weight, sign, scale, then the groups

    init(numeric bytes: UnsafeRawBufferPointer) throws(CRDTError) {
        func word(_ index: Int) -> UInt16? {
            let offset = index &* 2
            guard offset >= 0, offset &+ 2 <= bytes.count else {
                return nil
            }
            return UInt16(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
        }
        guard let count = word(0), let weight = word(1), let sign = word(2), let scale = word(3),
            bytes.count == 8 &+ 2 &* Int(count)
        else {
            throw .malformed("a number has the wrong length")
        }
        guard sign == 0 || sign == 0x4000 else {
            throw CRDTError(
                "22003", "NaN and infinity are not permitted in a conflict-free sum", hint: "Use finite numbers.")
        }
        var groups: [UInt16] = []
        groups.reserveCapacity(Int(count))
        for index in 0..<Int(count) {
            groups.append(word(4 &+ index) ?? 0)
        }
        try self.init(
            checking: sign == 0x4000, weight: Int(Int16(bitPattern: weight)), groups: groups, scale: Int(scale))
    }

    /// - Throws: when it does not fit into numeric.
    func numeric() throws(CRDTError) -> [UInt8] {
        guard self.isInRange, let count = UInt16(exactly: self.groups.count), let scale = UInt16(exactly: self.scale) else {
            throw .outOfRange("numeric")
        }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(8 &+ 2 &* self.groups.count)
        func append(_ word: UInt16) {
            bytes.append(UInt8(truncatingIfNeeded: word >> 8))
            bytes.append(UInt8(truncatingIfNeeded: word))
        }
        append(count)
        append(UInt16(truncatingIfNeeded: self.weight))
        append(self.isNegative ? 0x4000 : 0)
        append(scale)
        for group in self.groups {
            append(group)
        }
        return bytes
    }

    /// - Throws: when the parts make no number of numeric.
    private init(checking negative: Bool, weight: Int, groups: [UInt16], scale: Int) throws(CRDTError) {
        guard groups.allSatisfy({ $0 < Self.base }) else {
            throw .malformed("a number has a wrong digit")
        }
        guard scale >= 0 && scale <= Self.maxScale && weight <= Self.maxWeight && weight >= Self.minWeight else {
            throw .malformed("a number is out of range")
        }
        self.init(isNegative: negative, weight: weight, groups: groups, scale: scale)
        // numeric has no digits beyond those that it shows
        guard self.digitsAfterPoint <= scale else {
            throw .malformed("a number has more digits than its scale")
        }
    }

    private var digitsAfterPoint: Int {
        guard let last = self.groups.last, self.lowest < 0 else {
            return 0
        }
        let zeros = last % 1000 == 0 ? 3 : last % 100 == 0 ? 2 : last % 10 == 0 ? 1 : 0
        return 0 &- self.lowest &* 4 &- zeros
    }

    // MARK: States

    /// Whether a number can be negative is known from its place.
    init(from reader: inout CRDTReader, signed: Bool) throws(CRDTError) {
        let head = try reader.varint()
        let count = try reader.varint()
        let negative = signed && head & 1 == 1
        let scale = signed ? head >> 1 : head
        guard count <= UInt64(reader.remaining / 2), scale <= UInt64(Self.maxScale) else {
            throw .malformed("a number is too long")
        }
        guard count > 0 else {
            guard !negative else {
                throw .malformed("zero is negative")
            }
            self.init(isNegative: false, weight: 0, groups: [], scale: Int(scale))
            return
        }
        let weight = try reader.zigzag()
        guard weight <= Int64(Self.maxWeight) && weight >= Int64(Self.minWeight) else {
            throw .malformed("a number is out of range")
        }
        var groups: [UInt16] = []
        groups.reserveCapacity(Int(count))
        for _ in 0..<Int(count) {
            groups.append(try reader.word())
        }
        try self.init(checking: negative, weight: Int(weight), groups: groups, scale: Int(scale))
        guard self.groups.count == Int(count) else {
            throw .malformed("a number is longer than it has to be")
        }
    }

    func write(to writer: inout CRDTWriter, signed: Bool) {
        let scale = UInt64(UInt32(truncatingIfNeeded: self.scale))
        writer.varint(signed ? scale << 1 | (self.isNegative ? 1 : 0) : scale)
        writer.varint(UInt64(self.groups.count))
        guard !self.groups.isEmpty else {
            return
        }
        writer.zigzag(Int64(self.weight))
        for group in self.groups {
            writer.word(group)
        }
    }

    /// - digits: with or without a decimal point among them, nothing else.
    init(digits: UnsafeRawBufferPointer) throws(CRDTError) {
        let point = digits.firstIndex(of: 0x2e) ?? digits.count
        let scale = max(digits.count &- point &- 1, 0)
        // whole groups on both sides of the decimal point
        let weight = (point &+ 3) / 4 &- 1
        guard weight <= Self.maxWeight && scale <= Self.maxScale else {
            throw .outOfRange("numeric")
        }
        var groups: [UInt16] = []
        groups.reserveCapacity(digits.count / 4 &+ 2)
        func digit(_ index: Int) -> UInt16 {
            index >= 0 && index < digits.count ? UInt16(digits[index] &- 0x30) : 0
        }
        func group(_ index: Int, _ end: Int) -> UInt16 {
            var value: UInt16 = 0
            for offset in 0..<4 {
                let at = index &+ offset
                value = value &* 10 &+ (at < end ? digit(at) : 0)
            }
            return value
        }
        var index = point &- (weight &+ 1) &* 4
        while index < point {
            groups.append(group(index, point))
            index &+= 4
        }
        index = point &+ 1
        while index < digits.count {
            groups.append(group(index, digits.count))
            index &+= 4
        }
        self.init(isNegative: false, weight: weight, groups: groups, scale: scale)
    }

    /// As numeric writes it.
    func text(to text: inout [UInt8]) {
        if self.isNegative {
            text.append(0x2d)
        }
        func digits(_ power: Int) -> [UInt8] {
            let group = self.group(power)
            return [group / 1000, group / 100 % 10, group / 10 % 10, group % 10].map { 0x30 &+ UInt8(truncatingIfNeeded: $0) }
        }
        if self.isZero || self.weight < 0 {
            text.append(0x30)
        } else {
            text.append(contentsOf: digits(self.weight).drop { $0 == 0x30 })
            var power = self.weight &- 1
            while power >= 0 {
                text.append(contentsOf: digits(power))
                power &-= 1
            }
        }
        guard self.scale > 0 else {
            return
        }
        text.append(0x2e)
        var left = self.scale
        var power = -1
        while left > 0 {
            text.append(contentsOf: digits(power).prefix(left))
            left &-= 4
            power &-= 1
        }
    }

    /// The same for equal values.
    func hashKey(to key: inout [UInt8]) {
        key.append(self.isNegative ? 1 : 0)
        var writer = CRDTWriter(capacity: 4 &+ 2 &* self.groups.count)
        writer.zigzag(Int64(self.weight))
        for group in self.groups {
            writer.word(group)
        }
        key.append(contentsOf: writer.bytes)
    }
}
