// Values as messages show them.

import Testing
import Wire

@Suite struct ValueTextTests {
    static func text(_ type: UInt32, _ kind: ColumnKind, _ bytes: [UInt8]) -> String {
        withMemory(bytes) { ValueText.describe(builtinType: type, kind: kind, bytes: $0) }
    }

    static func raw(_ type: UInt32, _ bytes: [UInt8]) -> String {
        withMemory(bytes) { ValueText.describeRaw(builtinType: type, bytes: $0) }
    }

    @Test func withoutValue() {
        #expect(Self.text(23, .null, []) == "NULL")
        #expect(Self.text(25, .unchanged, []) == "(unchanged)")
    }

    /// Big-endian as typsend writes them, little-endian as they lie in the heap.
    @Test(
        arguments: [
            (16, [0], "f"), (16, [1], "t"), (20, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe], "-2"),
            (20, [0x80, 0, 0, 0, 0, 0, 0, 0], "-9223372036854775808"), (21, [0x01, 0x2c], "300"),
            (21, [0x80, 0], "-32768"),
            (23, [0, 1, 0x11, 0x70], "70000"), (26, [0xee, 0x6b, 0x28, 0], "4000000000"),
        ] as [(UInt32, [UInt8], String)])
    func numbers(type: UInt32, bytes: [UInt8], shown: String) {
        #expect(Self.text(type, .binary, bytes) == shown)
        #expect(Self.raw(type, bytes.reversed()) == shown)
    }

    @Test(arguments: [18, 19, 25, 1042, 1043] as [UInt32]) func texts(type: UInt32) {
        #expect(Self.text(type, .binary, Array("größe".utf8)) == "größe")
        #expect(Self.raw(type, Array("größe".utf8)) == "größe")
        #expect(Self.text(type, .binary, []) == "")
    }

    /// What came as text is shown as text, of whatever type.
    @Test func textOfAnyType() {
        for type: UInt32 in [0, 16, 17, 23, 2950, 16_384] {
            #expect(Self.text(type, .text, Array("4 (2)".utf8)) == "4 (2)")
        }
    }

    @Test func uuid() {
        let bytes = hex("00112233445566778899aabbccddeeff")
        #expect(Self.text(2950, .binary, bytes) == "00112233-4455-6677-8899-aabbccddeeff")
        #expect(Self.raw(2950, bytes) == "00112233-4455-6677-8899-aabbccddeeff")
    }

    /// Other types, and lengths that the type doesn't have.
    @Test(
        arguments: [
            (0, [1, 0xab], "\\x01ab"), (17, [], "\\x"), (1700, [0, 0x80], "\\x0080"), (16, [], "\\x"),
            (16, [1, 1], "\\x0101"),
            (20, [1], "\\x01"), (21, [1], "\\x01"), (23, [0, 0, 0, 0, 7], "\\x0000000007"), (26, [], "\\x"),
            (2950, [0xff], "\\xff"),
        ] as [(UInt32, [UInt8], String)])
    func digits(type: UInt32, bytes: [UInt8], shown: String) {
        #expect(Self.text(type, .binary, bytes) == shown)
        #expect(Self.raw(type, bytes) == shown)
    }

    @Test func longValuesAreCut() {
        let shown = String(repeating: "x", count: 64)
        #expect(Self.text(25, .text, Array(shown.utf8)) == shown)
        #expect(Self.text(25, .text, Array((shown + "y").utf8)) == shown + "...")
        #expect(Self.text(17, .binary, [UInt8](repeating: 0, count: 32)) == "\\x" + String(repeating: "0", count: 64))
        #expect(
            Self.text(17, .binary, [UInt8](repeating: 0, count: 33)) == "\\x" + String(repeating: "0", count: 64)
                + "...")
        // Never in the middle of a character.
        for before in 60...64 {
            let text = String(repeating: "x", count: before) + "🙂" + String(repeating: "y", count: 20)
            #expect(
                Self.text(25, .text, Array(text.utf8))
                    == String(repeating: "x", count: before) + (before == 60 ? "🙂" : "") + "...")
        }
    }

    @Test func textThatIsNone() {
        #expect(Self.text(25, .text, [0x61, 0xff, 0x62]) == "a\u{fffd}b")
        #expect(Self.text(25, .text, [UInt8](repeating: 0x80, count: 100)) == "...")
        #expect(Self.text(25, .text, [UInt8](repeating: 0xff, count: 100)).hasSuffix("..."))
    }
}
