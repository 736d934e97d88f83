// Binary COPY of one column.

import Testing
import Wire

@Suite struct CopyColumnReaderTests {
    /// The header, with so many bytes of extension.
    private func header(flags: UInt32 = 0, extension size: Int = 0) -> [UInt8] {
        [0x50, 0x47, 0x43, 0x4F, 0x50, 0x59, 0x0A, 0xFF, 0x0D, 0x0A, 0x00]
            + packed(.u32BE(flags), .u32BE(UInt32(size))) + [UInt8](repeating: 9, count: size)
    }

    private func row(_ value: [UInt8]) -> [UInt8] {
        [0, 1] + packed(.u32BE(UInt32(value.count))) + value
    }

    /// What each message gives; nil for none.
    private func read(_ messages: [[UInt8]]) throws -> [[UInt8]?] {
        var reader = CopyColumnReader()
        return try messages.map { message in
            try withMemory(message) { bytes in try reader.value(in: bytes).map { [UInt8]($0) } }
        }
    }

    @Test func rows() throws {
        let first = self.header() + self.row([1, 2, 3])
        #expect(try self.read([first, self.row([]), self.row([4]), [0xFF, 0xFF]]) == [[1, 2, 3], [], [4], nil])
    }

    @Test func headerAlone() throws {
        #expect(try self.read([self.header(extension: 5), self.row([7])]) == [nil, [7]])
    }

    @Test func noRow() throws {
        #expect(try self.read([self.header() + [0xFF, 0xFF]]) == [nil])
    }

    @Test func null() throws {
        #expect(try self.read([self.header(), [0, 1, 255, 255, 255, 255], self.row([1])]) == [nil, nil, [1]])
    }

    @Test func cutOff() {
        let message = self.header() + self.row([1, 2, 3])
        for length in 1..<message.count where length != self.header().count {
            #expect(throws: WireError.self) { try self.read([Array(message.prefix(length))]) }
        }
    }

    @Test func malformed() {
        let header = self.header()
        for messages in [
            [self.row([1])],  // no header
            [self.header(flags: 1 << 16)],
            [header + [0, 2] + Array(self.row([1]).dropFirst(2))],  // two columns
            [header + [0, 0]],
            [header + self.row([1]) + [0]],
            [header + self.row([1]) + self.row([2])],
            [header + [0xFF, 0xFF, 0]],
            [header + [0xFF, 0xFF], self.row([1])],
            [header, [0, 1, 255, 255, 255, 254]],
        ] as [[[UInt8]]] {
            #expect(throws: WireError.self) { try self.read(messages) }
        }
    }
}
