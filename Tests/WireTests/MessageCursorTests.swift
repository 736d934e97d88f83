// From message to message.

import Testing
import Wire

@Suite struct MessageCursorTests {
    @Test func typesAreThoseOfTheProtocol() {
        for (letter, type) in [
            ("S", .startup), ("B", .begin), ("C", .commit), ("R", .relation), ("I", .insert), ("U", .update),
            ("D", .delete), ("T", .truncate), ("M", .message),
        ] as [(Unicode.Scalar, MessageType)] {
            #expect(type.rawValue == UInt8(ascii: letter))
        }
        #expect((0...255).filter { MessageType(rawValue: UInt8($0)) != nil }.count == 14)
    }

    @Test func nothing() throws {
        var cursor = MessageCursor(UnsafeRawBufferPointer(start: nil, count: 0))
        #expect(try cursor.next() == nil)
        #expect(try cursor.next() == nil)
        #expect(cursor.offset == 0)
    }

    @Test func passesAll() throws {
        try withMemory(Samples.all.flatMap(\.bytes)) {
            var cursor = MessageCursor($0)
            var offset = 0
            for sample in Samples.all {
                let (type, body) = try #require(try cursor.next())
                #expect(type == sample.type)
                #expect(body.elementsEqual(sample.body))
                #expect($0.contains(body))
                offset += sample.bytes.count
                #expect(cursor.offset == offset)
            }
            #expect(try cursor.next() == nil)
        }
    }

    @Test func emptyBody() throws {
        try withMemory(message("B", [])) {
            var cursor = MessageCursor($0)
            let next = try #require(try cursor.next())
            #expect(next.body.isEmpty)
            #expect(try cursor.next() == nil)
        }
    }

    /// The cursor stays before what it can't pass.
    @Test(
        arguments: [
            ("x", "\"x\""), ("q", "\"q\""), ("\u{1}", "with code 1"), (" ", "with code 32"), ("\0", "with code 0"),
            ("\u{7f}", "with code 127"),
        ] as [(Unicode.Scalar, String)])
    func unknownTypes(type: Unicode.Scalar, shown: String) throws {
        try withMemory(message("B", [1, 2]) + message(type, [3])) {
            var cursor = MessageCursor($0)
            _ = try cursor.next()
            for _ in 0..<2 {
                let error = #expect(throws: WireError.self) { try cursor.next() }
                #expect(
                    error == WireError(code: .unsupported, offset: 7, message: "unknown message type \(shown)"))
                #expect(cursor.offset == 7)
            }
        }
    }

    @Test(arguments: [[0x42], [0x42, 0, 0, 0], [0x42, 1, 0, 0, 0], [0x42, 255, 255, 255, 255, 1, 2]] as [[UInt8]])
    func truncated(bytes: [UInt8]) {
        withMemory(bytes) {
            var cursor = MessageCursor($0)
            let error = #expect(throws: WireError.self) { try cursor.next() }
            #expect(error?.code == .truncated)
            #expect(cursor.offset == 0)
        }
    }
}
