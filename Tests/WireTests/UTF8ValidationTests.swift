// Text as PostgreSQL accepts it, against a decoder that goes by code points.

import TestSupport
import Testing

@testable import Wire

@Suite struct UTF8ValidationTests {
    /// Length of the valid character at the start, 0 when there is none: by the value that the bytes spell.
    static func characterLength(_ bytes: ArraySlice<UInt8>) -> Int {
        guard let first = bytes.first else {
            return 0
        }
        let length =
            first < 0x80 ? 1 : first >> 5 == 0b110 ? 2 : first >> 4 == 0b1110 ? 3 : first >> 3 == 0b11110 ? 4 : 0
        guard length > 0, bytes.count >= length else {
            return 0
        }
        var value = UInt32(length == 1 ? first : first & (0xff >> UInt8(length + 1)))
        for byte in bytes.dropFirst().prefix(length - 1) {
            guard byte >> 6 == 0b10 else {
                return 0
            }
            value = value << 6 | UInt32(byte & 0x3f)
        }
        let smallest: UInt32 = [0, 1, 0x80, 0x800, 0x10000][length]
        return value >= smallest && Unicode.Scalar(value) != nil ? length : 0
    }

    static func expected(_ bytes: [UInt8]) -> Int? {
        var index = 0
        while index < bytes.count {
            let length = Self.characterLength(bytes[index...])
            guard length > 0 else {
                return index
            }
            index += length
        }
        return nil
    }

    /// Compares for the bytes; records only what differs, as there are many.
    static func compare(_ bytes: [UInt8]) {
        let found = bytes.withUnsafeBytes { UTF8Validation.firstInvalid(in: $0) }
        if found != Self.expected(bytes) {
            Issue.record("\(bytes): \(found.map(String.init) ?? "valid")")
        }
    }

    @Test func nothing() {
        #expect(UTF8Validation.firstInvalid(in: UnsafeRawBufferPointer(start: nil, count: 0)) == nil)
    }

    /// Every character there is, with its neighbours at hand.
    @Test func everyCharacter() {
        var bytes: [UInt8] = []
        for value in (1 as UInt32)...0x10ffff {
            if value % 17 == 0 || value < 0x900 || (0xd700...0xe100).contains(value) || value > 0x10ff00,
                let scalar = Unicode.Scalar(value)
            {
                bytes += String(scalar).utf8
            }
        }
        #expect(bytes.withUnsafeBytes { UTF8Validation.firstInvalid(in: $0) } == nil)
    }

    @Test func allOfOneAndTwoBytes() {
        for first in (0 as UInt8)...255 {
            Self.compare([first])
            for second in (0 as UInt8)...255 {
                Self.compare([first, second])
            }
        }
    }

    /// The bounds of all ranges in every place, after each number of plain characters before a word's end.
    @Test func bounds() {
        let leads: [UInt8] = [
            0x00, 0x7f, 0x80, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4,
            0xf5, 0xf7, 0xf8, 0xff,
        ]
        let trails: [UInt8] = [0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff]
        for lead in leads {
            for second in trails {
                for third in trails {
                    Self.compare([lead, second, third])
                    for fourth in trails {
                        Self.compare([lead, second, third, fourth])
                    }
                }
            }
        }
    }

    @Test(
        arguments: [
            [0xc0, 0x80], [0xe0, 0x80, 0x80], [0xf0, 0x80, 0x80, 0x80], [0xed, 0xa0, 0x80], [0xed, 0xbf, 0xbf],
            [0xf4, 0x90, 0x80, 0x80], [0xf8, 0x88, 0x80, 0x80, 0x80], [0x00], [0xc3], [0xe2, 0x82], [0xf0, 0x9f, 0x99],
            [0x80], [0xff], [0xfe],
        ] as [[UInt8]])
    func refusedWherever(sequence: [UInt8]) {
        for before in 0...20 {
            for after in [0, 1, 7, 8, 20] {
                let bytes =
                    [UInt8](repeating: 0x61, count: before) + sequence + [UInt8](repeating: 0x62, count: after)
                #expect(bytes.withUnsafeBytes { UTF8Validation.firstInvalid(in: $0) } == before)
            }
        }
    }

    @Test func byChance() {
        var random = SplitMix64(seed: 1)
        for _ in 0..<20_000 {
            var bytes: [UInt8] = []
            for _ in 0..<(random.next() % 24) {
                switch random.next() % 8 {
                case 0: bytes.append(UInt8(truncatingIfNeeded: random.next()))
                case 1: bytes += "é".utf8
                case 2: bytes += "数".utf8
                case 3: bytes += "🙂".utf8
                default: bytes.append(UInt8(random.next() % 127 + 1))
                }
            }
            Self.compare(bytes)
        }
    }

    @Test func firstNUL() {
        #expect(([] as [UInt8]).withUnsafeBytes { UTF8Validation.firstNUL(in: $0) } == nil)
        #expect(([0xff, 0x80] as [UInt8]).withUnsafeBytes { UTF8Validation.firstNUL(in: $0) } == nil)
        #expect(([0xff, 0, 0] as [UInt8]).withUnsafeBytes { UTF8Validation.firstNUL(in: $0) } == 1)
    }
}
