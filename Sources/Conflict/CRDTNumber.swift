// What a state counts in: bigint (counters) or numeric (sums). The logic of states is the same for both.

/// Numbers of which a state is made.
protocol CRDTNumber {
    /// What a node has added or subtracted since the row is there. Never negative, only grows.
    associatedtype Amount: Equatable
    /// An initial value, or a change: with a sign.
    associatedtype Change
    /// The sum of all.
    associatedtype Total

    static var zero: Amount { get }
    static func isZero(_ amount: Amount) -> Bool
    /// Of two amounts of a node the greater one is the later one: a total order.
    static func compare(_ left: Amount, _ right: Amount) -> Int
    static func isNegative(_ change: Change) -> Bool
    static func magnitude(_ change: Change) -> Amount
    /// The later of two initial values, by a total order.
    static func greater(_ left: Change, _ right: Change) -> Change
    /// - Throws: when the sum can't be kept.
    static func add(_ left: Amount, _ right: Amount) throws(CRDTError) -> Amount

    static var zeroTotal: Total { get }
    static func total(of change: Change) -> Total
    static func add(_ total: inout Total, _ amount: Amount, negative: Bool)
    static func compareTotals(_ left: Total, _ right: Total) -> Int
    static func isInRange(_ total: Total) -> Bool
    static func text(_ total: Total, to text: inout [UInt8])
    static func hashKey(_ total: Total, to key: inout [UInt8])

    static func readAmount(_ reader: inout CRDTReader) throws(CRDTError) -> Amount
    static func readChange(_ reader: inout CRDTReader) throws(CRDTError) -> Change
    static func writeAmount(_ amount: Amount, to writer: inout CRDTWriter)
    static func writeChange(_ change: Change, to writer: inout CRDTWriter)
    static func scanAmount(_ scanner: inout CRDTScanner) throws(CRDTError) -> Amount
    static func scanChange(_ scanner: inout CRDTScanner) throws(CRDTError) -> Change
}

/// bigint. What a node adds and subtracts may come to twice as much over the years; concurrent changes may take the sum
/// beyond bigint, which then can't be read as one, but merges and can be brought back.
enum CRDTInteger: CRDTNumber {
    static var zero: UInt64 { 0 }
    static func isZero(_ amount: UInt64) -> Bool { amount == 0 }
    static func compare(_ left: UInt64, _ right: UInt64) -> Int { left == right ? 0 : left < right ? -1 : 1 }
    static func isNegative(_ change: Int64) -> Bool { change < 0 }
    static func magnitude(_ change: Int64) -> UInt64 { change.magnitude }
    static func greater(_ left: Int64, _ right: Int64) -> Int64 { max(left, right) }

    static func add(_ left: UInt64, _ right: UInt64) throws(CRDTError) -> UInt64 {
        let (sum, overflow) = left.addingReportingOverflow(right)
        guard !overflow else {
            throw .outOfRange("bigint")
        }
        return sum
    }

    static var zeroTotal: Int128 { 0 }
    static func total(of change: Int64) -> Int128 { Int128(change) }

    /// The number of nodes is limited by the size of a value, so that this can't overflow.
    static func add(_ total: inout Int128, _ amount: UInt64, negative: Bool) {
        total = negative ? total &- Int128(amount) : total &+ Int128(amount)
    }

    static func compareTotals(_ left: Int128, _ right: Int128) -> Int { left == right ? 0 : left < right ? -1 : 1 }
    static func isInRange(_ total: Int128) -> Bool { Int64(exactly: total) != nil }
    static func text(_ total: Int128, to text: inout [UInt8]) { text.append(contentsOf: total.description.utf8) }

    static func hashKey(_ total: Int128, to key: inout [UInt8]) {
        for shift in 0..<16 {
            key.append(UInt8(truncatingIfNeeded: total >> (Int128(shift) &* 8)))
        }
    }

    static func readAmount(_ reader: inout CRDTReader) throws(CRDTError) -> UInt64 { try reader.varint() }
    static func readChange(_ reader: inout CRDTReader) throws(CRDTError) -> Int64 { try reader.zigzag() }
    static func writeAmount(_ amount: UInt64, to writer: inout CRDTWriter) { writer.varint(amount) }
    static func writeChange(_ change: Int64, to writer: inout CRDTWriter) { writer.zigzag(change) }

    static func scanAmount(_ scanner: inout CRDTScanner) throws(CRDTError) -> UInt64 {
        var amount: UInt64 = 0
        for digit in try scanner.digits(decimalPoint: false) {
            let (tens, tooLarge) = amount.multipliedReportingOverflow(by: 10)
            guard !tooLarge else {
                throw .outOfRange("bigint")
            }
            amount = try self.add(tens, UInt64(digit &- 0x30))
        }
        return amount
    }

    static func scanChange(_ scanner: inout CRDTScanner) throws(CRDTError) -> Int64 {
        let negative = scanner.take("-")
        let amount = Int128(try self.scanAmount(&scanner))
        guard let change = Int64(exactly: negative ? 0 &- amount : amount) else {
            throw .outOfRange("bigint")
        }
        return change
    }
}

/// numeric.
enum CRDTNumeric: CRDTNumber {
    static var zero: CRDTDecimal { .zero }
    static func isZero(_ amount: CRDTDecimal) -> Bool { amount.isZero }
    static func compare(_ left: CRDTDecimal, _ right: CRDTDecimal) -> Int { CRDTDecimal.compareTotally(left, right) }
    static func isNegative(_ change: CRDTDecimal) -> Bool { change.isNegative }
    static func magnitude(_ change: CRDTDecimal) -> CRDTDecimal { change.isNegative ? change.negated : change }

    static func greater(_ left: CRDTDecimal, _ right: CRDTDecimal) -> CRDTDecimal {
        CRDTDecimal.compareTotally(left, right) >= 0 ? left : right
    }

    static func add(_ left: CRDTDecimal, _ right: CRDTDecimal) throws(CRDTError) -> CRDTDecimal {
        let sum = left + right
        guard sum.isInRange else {
            throw .outOfRange("numeric")
        }
        return sum
    }

    static var zeroTotal: CRDTDecimal { .zero }
    static func total(of change: CRDTDecimal) -> CRDTDecimal { change }

    static func add(_ total: inout CRDTDecimal, _ amount: CRDTDecimal, negative: Bool) {
        total = total + (negative ? amount.negated : amount)
    }

    static func compareTotals(_ left: CRDTDecimal, _ right: CRDTDecimal) -> Int { CRDTDecimal.compare(left, right) }
    static func isInRange(_ total: CRDTDecimal) -> Bool { total.isInRange }
    static func text(_ total: CRDTDecimal, to text: inout [UInt8]) { total.text(to: &text) }
    static func hashKey(_ total: CRDTDecimal, to key: inout [UInt8]) { total.hashKey(to: &key) }

    static func readAmount(_ reader: inout CRDTReader) throws(CRDTError) -> CRDTDecimal {
        try CRDTDecimal(from: &reader, signed: false)
    }

    static func readChange(_ reader: inout CRDTReader) throws(CRDTError) -> CRDTDecimal {
        try CRDTDecimal(from: &reader, signed: true)
    }

    static func writeAmount(_ amount: CRDTDecimal, to writer: inout CRDTWriter) { amount.write(to: &writer, signed: false) }
    static func writeChange(_ change: CRDTDecimal, to writer: inout CRDTWriter) { change.write(to: &writer, signed: true) }

    static func scanAmount(_ scanner: inout CRDTScanner) throws(CRDTError) -> CRDTDecimal {
        try CRDTDecimal(digits: scanner.digits(decimalPoint: true))
    }

    static func scanChange(_ scanner: inout CRDTScanner) throws(CRDTError) -> CRDTDecimal {
        let negative = scanner.take("-")
        let amount = try self.scanAmount(&scanner)
        return negative ? amount.negated : amount
    }
}
