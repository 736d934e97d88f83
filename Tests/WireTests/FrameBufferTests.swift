// The buffer of the encoders: what is in it, and what is left when something doesn't fit.

import Testing
import Wire

@Suite struct FrameBufferTests {
    @Test func appends() throws {
        let bytes = try encoded {
            try $0.append(0x81)
            try $0.append16(0x8203 as UInt16)
            try $0.append32(0x8304_0506 as UInt32)
            try $0.append64(0x8405_0607_0809_0a0b as UInt64)
            try $0.append16(-2 as Int16)
            try $0.append32(-3 as Int32)
            try $0.append64(-4 as Int64)
            try $0.append64BE(0x0102_0304_0506_0708)
            try $0.appendString("größe")
            try $0.appendString("")
            for part: [UInt8] in [[9, 8], [], [7]] {
                try part.append(to: $0)
            }
        }
        #expect(
            bytes
                == packed(
                    .u8(0x81), .u16(0x8203), .u32(0x8304_0506), .u64(0x8405_0607_0809_0a0b), .i16(-2), .i32(-3),
                    .i64(-4),
                    .u64BE(0x0102_0304_0506_0708), .string("größe"), .string(""), .bytes([9, 8, 7])))
    }

    @Test func startsEmpty() throws {
        let buffer = FrameBuffer(limit: 10)
        #expect(buffer.count == 0)
        #expect(buffer.bytes.isEmpty)
        #expect(buffer.limit == 10)
        try buffer.append(bytes: UnsafeRawBufferPointer(start: nil, count: 0))
        #expect(buffer.count == 0)
    }

    /// Each append that doesn't fit throws and leaves everything as it was; one that just fits doesn't.
    @Test func limit() throws {
        let appends: [(Int, (FrameBuffer) throws -> Void)] = [
            (1, { try $0.append(1) }), (2, { try $0.append16(1 as UInt16) }), (4, { try $0.append32(1 as UInt32) }),
            (8, { try $0.append64(1 as UInt64) }), (2, { try $0.append16(1 as Int16) }),
            (4, { try $0.append32(1 as Int32) }), (8, { try $0.append64(1 as Int64) }), (8, { try $0.append64BE(1) }),
            (7, { try $0.appendString("abcde") }), (3, { try [1, 2, 3].append(to: $0) }),
            (5, { _ = try $0.beginMessage(.begin) }), (3, { try $0.beginColumnsTuple(count: 0) }),
            (1, { try $0.appendColumnValue(kind: .null) }), (6, { try $0.appendColumnValue(kind: .text) }),
        ]
        for (size, append) in appends {
            for limit in 3..<(3 + size) {
                let buffer = FrameBuffer(limit: limit)
                try [1, 2, 3].append(to: buffer)
                let error = #expect(throws: WireError.self) { try append(buffer) }
                #expect(error?.code == .limitExceeded)
                #expect(error?.offset == 3)
                #expect(buffer.bytes.elementsEqual([1, 2, 3]))
            }
            let buffer = FrameBuffer(limit: 3 + size)
            try [1, 2, 3].append(to: buffer)
            try append(buffer)
            #expect(buffer.count == 3 + size)
        }
    }

    @Test(arguments: [-1, 0, Int.min]) func noLimitMeansNothingFits(limit: Int) {
        let buffer = FrameBuffer(limit: limit)
        #expect(buffer.limit == 0)
        #expect(throws: WireError.self) { try buffer.append(1) }
    }

    @Test func largeLimitTakesNoMemory() throws {
        let buffer = FrameBuffer(limit: Int.max)
        try buffer.append(1)
        #expect(buffer.capacity <= 4096)
        for _ in 0..<100_000 {
            try buffer.append(2)
        }
        #expect(buffer.count == 100_001)
        #expect(buffer.capacity < 400_000)
    }

    @Test func longStrings() throws {
        let longest = String(repeating: "x", count: 65_535)
        #expect(try encoded { try $0.appendString(longest) } == packed(.string(longest)))
        let buffer = FrameBuffer(limit: 1 << 20)
        let error = #expect(throws: WireError.self) { try buffer.appendString(longest + "x") }
        #expect(error?.code == .limitExceeded)
        #expect(buffer.count == 0)
    }

    @Test func truncation() throws {
        let buffer = FrameBuffer(limit: 100)
        try [1, 2, 3, 4].append(to: buffer)
        for (position, count) in [(9, 4), (4, 4), (2, 2), (Int.max, 2), (-1, 0)] {
            buffer.truncate(to: position)
            #expect(buffer.count == count)
        }
    }

    @Test func emptying() throws {
        let buffer = FrameBuffer(limit: 100_000)
        try [UInt8](repeating: 1, count: 50_000).append(to: buffer)
        buffer.removeAll()
        #expect(buffer.count == 0)
        #expect(buffer.capacity >= 50_000)
        buffer.removeAll(keepingCapacityUpTo: 2000)
        #expect(buffer.capacity == 2000)
        try [UInt8](repeating: 2, count: 3000).append(to: buffer)
        #expect(buffer.bytes.allSatisfy { $0 == 2 } && buffer.count == 3000)
        for size in [0, -5] {
            buffer.removeAll(keepingCapacityUpTo: size)
            #expect(buffer.capacity == 0)
            #expect(buffer.bytes.isEmpty)
            try buffer.append(3)
        }
        #expect(buffer.bytes.elementsEqual([3]))
    }

    @Test func messages() throws {
        let bytes = try encoded {
            let first = try $0.beginMessage(.begin)
            try $0.append(1)
            try $0.append(2)
            try $0.endMessage(first)
            let second = try $0.beginMessage(type: UInt8(ascii: "x"))
            #expect(second == 7)
            try $0.endMessage(second)
        }
        #expect(bytes == message("B", [1, 2]) + message("x", []))
    }

    /// A message that was begun and can't be ended is removed by its token.
    @Test func abandonedMessage() throws {
        let buffer = FrameBuffer(limit: 12)
        try buffer.append(9)
        let token = try buffer.beginMessage(.begin)
        #expect(throws: WireError.self) { try buffer.appendString("too long") }
        buffer.truncate(to: token)
        #expect(buffer.bytes.elementsEqual([9]))
    }

    @Test(arguments: [-1, 1, 3, Int.max, Int.min]) func tokensThatAreNone(token: Int) throws {
        let buffer = FrameBuffer(limit: 100)
        #expect(throws: WireError.self) { try buffer.endMessage(token) }
        _ = try buffer.beginMessage(.begin)
        #expect(throws: WireError.self) { try buffer.endMessage(token) }
        #expect(buffer.bytes.elementsEqual(message("B", [])))
    }
}

extension [UInt8] {
    /// Appends these bytes to a buffer.
    func append(to buffer: FrameBuffer) throws {
        try self.withUnsafeBytes { try buffer.append(bytes: $0) }
    }
}
