// What PostgreSQL accepts as text in a database whose encoding is UTF8.

/// The rules of pg_utf8_islegal plus "no NUL": shortest form only, no surrogates, nothing above U+10FFFF.
enum UTF8Validation {
    private static let highBits: UInt64 = 0x8080_8080_8080_8080
    private static let ones: UInt64 = 0x0101_0101_0101_0101

    /// Eight bytes that are all from 1 to 127. With all high bits clear, a borrow can only come from a zero byte.
    @inline(__always)
    private static func isPlain(_ word: UInt64) -> Bool {
        (word | (word &- Self.ones)) & Self.highBits == 0
    }

    /// The offset of the first byte of the first sequence that is not valid; nil when the text is valid.
    static func firstInvalid(in text: UnsafeRawBufferPointer) -> Int? {
        guard let base = text.baseAddress else {
            return nil
        }
        let count = text.count
        var index = 0
        while index < count {
            while count &- index >= 8 && Self.isPlain(base.loadUnaligned(fromByteOffset: index, as: UInt64.self)) {
                index &+= 8
            }
            // Something is not ASCII here, or the end is near: by character, for at least eight bytes, so that text
            // without any ASCII isn't looked at twice everywhere.
            let pause = min(count, index &+ 8)
            while index < pause {
                let length = Self.sequenceLength(base + index, left: count &- index)
                if length == 0 {
                    return index
                }
                index &+= length
            }
        }
        return nil
    }

    /// Length of the valid sequence at a position; 0 when there is none.
    /// - Parameter left: bytes from there to the end, at least 1.
    @inline(__always)
    private static func sequenceLength(_ start: UnsafeRawPointer, left: Int) -> Int {
        func byte(_ offset: Int) -> UInt8 { start.load(fromByteOffset: offset, as: UInt8.self) }
        func isTrail(_ offset: Int) -> Bool { byte(offset) & 0xC0 == 0x80 }
        let first = byte(0)
        switch first {
        case 0x01...0x7F:
            return 1
        case 0xC2...0xDF:
            return left >= 2 && isTrail(1) ? 2 : 0
        case 0xE0...0xEF:
            guard left >= 3 && isTrail(1) && isTrail(2) else {
                return 0
            }
            // not the long form of something shorter, not a surrogate
            if first == 0xE0 && byte(1) < 0xA0 || first == 0xED && byte(1) > 0x9F {
                return 0
            }
            return 3
        case 0xF0...0xF4:
            guard left >= 4 && isTrail(1) && isTrail(2) && isTrail(3) else {
                return 0
            }
            if first == 0xF0 && byte(1) < 0x90 || first == 0xF4 && byte(1) > 0x8F {
                return 0
            }
            return 4
        default:
            return 0
        }
    }

    /// The offset of the first NUL byte: the only thing that a database with encoding SQL_ASCII refuses.
    static func firstNUL(in text: UnsafeRawBufferPointer) -> Int? {
        text.firstIndex(of: 0)
    }
}
