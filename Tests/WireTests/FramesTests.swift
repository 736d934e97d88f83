// Frames: taken apart, put together, and refused.

import Testing
import Wire

@Suite struct FramesTests {
    /// The frames for the bytes, as they go over the wire.
    static func split(_ bytes: [UInt8], maxFrame: Int, threshold: Int) -> [[UInt8]] {
        var frames: [[UInt8]] = []
        bytes.withUnsafeBytes { all in
            FrameSplitter.forEachFrame(all, maxFrame: maxFrame, threshold: threshold) { flags, part in
                #expect(all.contains(part))
                frames.append([flags] + part)
            }
        }
        return frames
    }

    static let sample: [UInt8] = Array(1...20)

    @Test func oneFrameUpToTheThreshold() {
        #expect(Self.split(Self.sample, maxFrame: 5, threshold: 20) == [[0] + Self.sample])
        #expect(Self.split(Self.sample, maxFrame: 21, threshold: 0) == [[0] + Self.sample])
        #expect(FrameSplitter.defaultThreshold >= 1 << 20)
    }

    @Test func splits() {
        #expect(
            Self.split(Self.sample, maxFrame: 9, threshold: 19)
                == [[1] + Array(1...8), [1] + Array(9...16), [0] + Array(17...20)])
        // No empty frame at the end.
        #expect(Self.split(Self.sample, maxFrame: 11, threshold: 0).map(\.count) == [11, 11])
    }

    @Test func nothingGivesNoFrame() {
        #expect(Self.split([], maxFrame: 10, threshold: 0) == [])
    }

    @Test(arguments: [2, 1, 0, -1, Int.min]) func smallestFrames(maxFrame: Int) {
        let frames = Self.split(Self.sample, maxFrame: maxFrame, threshold: 0)
        #expect(frames.count == 20)
        #expect(frames.allSatisfy { $0.count == 2 })
    }

    @Test func largestFrames() {
        #expect(Self.split(Self.sample, maxFrame: Int.max, threshold: Int.min) == [[0] + Self.sample])
    }

    struct Stop: Error {}

    @Test func errorsEndTheIteration() {
        var count = 0
        #expect(throws: Stop.self) {
            try Self.sample.withUnsafeBytes { bytes in
                try FrameSplitter.forEachFrame(bytes, maxFrame: 4, threshold: 0) { (_, _) throws(Stop) in
                    count += 1
                    if count == 2 {
                        throw Stop()
                    }
                }
            }
        }
        #expect(count == 2)
    }

    // MARK: assembling

    /// What comes of a frame, copied.
    static func push(_ frame: [UInt8], to assembler: inout FrameAssembler) throws -> [UInt8]? {
        try withMemory(frame) { try assembler.push(payload: $0).map(Array.init) }
    }

    @Test func roundTrips() throws {
        for maxFrame in 2...25 {
            var assembler = FrameAssembler(limit: 100)
            // Several times, so that nothing is left over from before.
            for _ in 0..<3 {
                let frames = Self.split(Self.sample, maxFrame: maxFrame, threshold: 0)
                for frame in frames.dropLast() {
                    #expect(try Self.push(frame, to: &assembler) == nil)
                    #expect(assembler.isIncomplete)
                }
                #expect(try Self.push(try #require(frames.last), to: &assembler) == Self.sample)
                #expect(!assembler.isIncomplete)
            }
        }
    }

    @Test func completeFramesAreNotCopied() throws {
        var assembler = FrameAssembler(limit: 0)
        try withMemory([0] + Self.sample) {
            let bytes = try #require(try assembler.push(payload: $0))
            #expect(bytes.elementsEqual(Self.sample))
            #expect($0.contains(bytes))
        }
    }

    @Test func emptyFrames() throws {
        var assembler = FrameAssembler(limit: 10)
        #expect(try Self.push([0], to: &assembler) == [])
        #expect(try Self.push([1], to: &assembler) == nil)
        #expect(assembler.isIncomplete)
        #expect(try Self.push([0], to: &assembler) == [])
        #expect(try Self.push([1, 5], to: &assembler) == nil)
        #expect(try Self.push([1], to: &assembler) == nil)
        #expect(try Self.push([0, 6], to: &assembler) == [5, 6])
    }

    @Test func emptyPayloadIsNoFrame() throws {
        var assembler = FrameAssembler(limit: 10)
        let error = try #require(throws: WireError.self) { try Self.push([], to: &assembler) }
        #expect(error.code == .truncated)
    }

    /// After an error what was collected is gone, and the next frame begins anew.
    @Test(arguments: [[2, 1], [0x80], [255, 1, 2], []] as [[UInt8]]) func badFrames(frame: [UInt8]) throws {
        var assembler = FrameAssembler(limit: 10)
        #expect(try Self.push([1, 1, 2, 3], to: &assembler) == nil)
        let error = try #require(throws: WireError.self) { try Self.push(frame, to: &assembler) }
        #expect(error.code == (frame.isEmpty ? .truncated : .unsupported))
        #expect(!assembler.isIncomplete)
        #expect(try Self.push([0, 9], to: &assembler) == [9])
    }

    @Test func limit() throws {
        var assembler = FrameAssembler(limit: 5)
        #expect(try Self.push([1, 1, 2, 3], to: &assembler) == nil)
        #expect(try Self.push([0, 4, 5], to: &assembler) == [1, 2, 3, 4, 5])
        #expect(try Self.push([1, 1, 2, 3], to: &assembler) == nil)
        let error = try #require(throws: WireError.self) { try Self.push([1, 4, 5, 6], to: &assembler) }
        #expect(error.code == .limitExceeded)
        #expect(!assembler.isIncomplete)
        // A frame that is complete alone isn't collected.
        #expect(try Self.push([0] + Self.sample, to: &assembler) == Self.sample)
    }
}
