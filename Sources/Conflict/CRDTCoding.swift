// How numbers of a state are written as bytes and text. Every number has one form only, so that equal states are equal bytes;
// whatever has another form is refused.

/// Reads a state from bytes that a client, a peer or the disk gave: every step is checked.
struct CRDTReader {
    private let bytes: UnsafeRawBufferPointer
    private var position = 0

    init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
    }

    var remaining: Int { self.bytes.count &- self.position }

    mutating func byte() throws(CRDTError) -> UInt8 {
        guard self.position < self.bytes.count else {
            throw .malformed("it ends too early")
        }
        let byte = self.bytes[self.position]
        self.position &+= 1
        return byte
    }

    /// Seven bits a byte, the lowest first; the last byte is not 0 unless it is the only one.
    mutating func varint() throws(CRDTError) -> UInt64 {
        let first = try self.byte()
        if first < 0x80 {
            return UInt64(first)
        }
        var value = UInt64(first & 0x7f)
        var shift: UInt64 = 7
        while true {
            let byte = try self.byte()
            // the tenth byte holds one bit
            guard shift < 63 || (shift == 63 && byte <= 1) else {
                throw .malformed("a number is too large")
            }
            value |= UInt64(byte & 0x7f) << shift
            if byte < 0x80 {
                guard byte != 0 else {
                    throw .malformed("a number is longer than it has to be")
                }
                return value
            }
            shift &+= 7
        }
    }

    /// Signed: 0, -1, 1, -2, …
    mutating func zigzag() throws(CRDTError) -> Int64 {
        let value = try self.varint()
        return Int64(bitPattern: (value >> 1) ^ (0 &- (value & 1)))
    }

    mutating func word() throws(CRDTError) -> UInt16 {
        let low = try self.byte()
        return UInt16(low) | UInt16(try self.byte()) << 8
    }
}

struct CRDTWriter {
    private(set) var bytes: [UInt8] = []

    init(capacity: Int) {
        self.bytes.reserveCapacity(capacity)
    }

    mutating func byte(_ byte: UInt8) {
        self.bytes.append(byte)
    }

    mutating func varint(_ value: UInt64) {
        var value = value
        while value >= 0x80 {
            self.bytes.append(UInt8(truncatingIfNeeded: value) | 0x80)
            value >>= 7
        }
        self.bytes.append(UInt8(truncatingIfNeeded: value))
    }

    mutating func zigzag(_ value: Int64) {
        self.varint(UInt64(bitPattern: (value << 1) ^ (value >> 63)))
    }

    mutating func word(_ word: UInt16) {
        self.bytes.append(UInt8(truncatingIfNeeded: word))
        self.bytes.append(UInt8(truncatingIfNeeded: word >> 8))
    }
}

/// Reads a state from text. Spaces may stand between all parts.
struct CRDTScanner {
    private let bytes: UnsafeRawBufferPointer
    private var position = 0

    init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
    }

    /// The next byte that is no space, not taken; nil at the end.
    mutating func peek() -> UInt8? {
        while self.position < self.bytes.count {
            let byte = self.bytes[self.position]
            guard byte == 0x20 || (byte >= 0x09 && byte <= 0x0d) else {
                return byte
            }
            self.position &+= 1
        }
        return nil
    }

    /// Takes a word or sign if it comes next.
    mutating func take(_ expected: String) -> Bool {
        guard self.peek() != nil, self.bytes[self.position...].starts(with: expected.utf8) else {
            return false
        }
        self.position &+= expected.utf8.count
        return true
    }

    mutating func require(_ expected: String) throws(CRDTError) {
        if !self.take(expected) {
            throw self.unexpected(expected)
        }
    }

    /// Digits, with a decimal point among them if the number may have one.
    mutating func digits(decimalPoint: Bool) throws(CRDTError) -> UnsafeRawBufferPointer {
        _ = self.peek()
        let start = self.position
        var points = 0
        while self.position < self.bytes.count {
            let byte = self.bytes[self.position]
            if byte == 0x2e, decimalPoint, points == 0, self.position > start {
                points = 1
            } else if byte < 0x30 || byte > 0x39 {
                break
            }
            self.position &+= 1
        }
        guard self.position > start, self.bytes[self.position &- 1] != 0x2e else {
            throw self.unexpected("a number")
        }
        return UnsafeRawBufferPointer(rebasing: self.bytes[start..<self.position])
    }

    private func unexpected(_ expected: String) -> CRDTError {
        CRDTError(
            "22P02", "malformed state of a conflict-free value",
            detail: "At byte \(self.position), \"\(expected)\" was expected.")
    }
}
