// Reads from untrusted bytes.

import Testing
import Wire

@Suite struct ByteReaderTests {
    @Test func integers() throws {
        let all = packed(
            .u8(0x81), .u16(0x8203), .u32(0x8304_0506), .u64(0x8405_0607_0809_0a0b), .i16(-2), .i32(-3), .i64(-4))
        try withMemory(all) { (bytes) throws in
            var reader = ByteReader(bytes)
            #expect(reader.remaining == 29)
            #expect(try reader.readUInt8() == 0x81)
            #expect(try reader.readUInt16() == 0x8203)
            #expect(try reader.readUInt32() == 0x8304_0506)
            #expect(try reader.readUInt64() == 0x8405_0607_0809_0a0b)
            #expect(try reader.readInt16() == -2)
            #expect(try reader.readInt32() == -3)
            #expect(try reader.readInt64() == -4)
            #expect(reader.offset == 29)
            #expect(reader.remaining == 0)
        }
    }

    @Test func bigEndianIntegers() throws {
        try withMemory([1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8, 255, 255, 255, 255, 255, 255, 255, 254]) { (bytes) throws in
            var reader = ByteReader(bytes)
            #expect(try reader.readUInt32BE() == 0x0102_0304)
            #expect(try reader.readUInt64BE() == 0x0102_0304_0506_0708)
            #expect(try reader.readInt64BE() == -2)
        }
    }

    /// A read that goes beyond the end throws, says what was missing, and doesn't move.
    @Test func readsBeyondTheEnd() throws {
        let reads: [(Int, (inout ByteReader) throws -> Void)] = [
            (1, { _ = try $0.readUInt8() }), (2, { _ = try $0.readUInt16() }), (4, { _ = try $0.readUInt32() }),
            (8, { _ = try $0.readUInt64() }), (2, { _ = try $0.readInt16() }), (4, { _ = try $0.readInt32() }),
            (8, { _ = try $0.readInt64() }), (4, { _ = try $0.readUInt32BE() }), (8, { _ = try $0.readUInt64BE() }),
            (8, { _ = try $0.readInt64BE() }), (5, { _ = try $0.readBytes(5) }), (3, { try $0.skip(3) }),
        ]
        for (size, read) in reads {
            for left in 0..<size {
                try withMemory([UInt8](repeating: 1, count: left + 1)) {
                    var reader = ByteReader($0)
                    try reader.skip(1)
                    let error = #expect(throws: WireError.self) { try read(&reader) }
                    #expect(
                        error
                            == WireError(
                                code: .truncated, offset: 1, message: "\(size) bytes expected, \(left) left"))
                    #expect(reader.offset == 1)
                }
            }
            try withMemory([UInt8](repeating: 1, count: size)) {
                var reader = ByteReader($0)
                try read(&reader)
                #expect(reader.remaining == 0)
            }
        }
    }

    @Test func nothing() throws {
        var reader = ByteReader(UnsafeRawBufferPointer(start: nil, count: 0))
        #expect(reader.remaining == 0)
        #expect(try reader.readBytes(0).isEmpty)
        try reader.skip(0)
        #expect(throws: WireError.self) { try reader.readUInt8() }
    }

    @Test func impossibleCounts() {
        withMemory([1, 2, 3]) {
            for count in [-1, Int.min, 4, Int.max] {
                var reader = ByteReader($0)
                #expect(throws: WireError.self) { try reader.readBytes(count) }
                #expect(throws: WireError.self) { try reader.skip(count) }
                #expect(reader.offset == 0)
            }
        }
    }

    @Test func bytesAreNotCopied() throws {
        try withMemory([1, 2, 3, 4]) {
            var reader = ByteReader($0)
            try reader.skip(1)
            let part = try reader.readBytes(2)
            #expect(part.elementsEqual([2, 3]))
            #expect($0.contains(part))
        }
    }

    @Test(arguments: ["", "a", "größe", "数据库 🙂", String(repeating: "é", count: 32_767)])
    func strings(text: String) throws {
        try withMemory(packed(.string(text), .u8(7))) { (bytes) throws in
            var reader = ByteReader(bytes)
            #expect(try reader.readString() == text)
            #expect(try reader.readUInt8() == 7)
        }
    }

    @Test(
        arguments: [
            ([], WireError.Code.truncated, 0), ([1], .truncated, 0), ([1, 0], .truncated, 2),
            ([255, 255, 65], .truncated, 2),
            ([1, 0, 0], .malformed, 2), ([2, 0, 0x41, 0xff], .malformed, 3), ([1, 0, 0xc3, 0xa9], .malformed, 2),
        ] as [([UInt8], WireError.Code, Int)])
    func badStrings(bytes: [UInt8], code: WireError.Code, offset: Int) {
        withMemory(bytes) {
            var reader = ByteReader($0)
            let error = #expect(throws: WireError.self) { try reader.readString() }
            #expect(error?.code == code)
            #expect(error?.offset == offset)
            #expect(reader.offset == 0)
        }
    }

    @Test func errorsDescribeThemselves() {
        #expect("\(WireError(code: .malformed, offset: 7, message: "no sense"))" == "no sense (at byte 7)")
    }
}
