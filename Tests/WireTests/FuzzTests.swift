// Mutated messages: each decodes or throws, and nothing that was handed out leads outside of the bytes. The same
// mutations in every run.

import TestSupport
import Testing
import Wire

@Suite(.serialized) struct FuzzTests {
    struct Mutator {
        var random: SplitMix64

        mutating func below(_ bound: Int) -> Int {
            Int(self.random.next() % UInt64(max(1, bound)))
        }

        static let numbers: [[UInt8]] = [
            [0], [1], [0xff], [0x7f], [0x80], [0, 0], [0xff, 0xff], [0x40, 0x06], [0x41, 0x06], [0, 0, 0, 0],
            [0xff, 0xff, 0xff, 0xff], [0xff, 0xff, 0xff, 0x7f], [0, 0, 0, 0x80], [0, 0, 0, 0x40], [1, 0x12],
            [2, 0, 0, 0],
        ]

        /// A few changes to the bytes: bits, bytes, interesting numbers, parts removed or taken from another one.
        mutating func mutated(_ original: [UInt8], other: [UInt8]) -> [UInt8] {
            var bytes = original
            for _ in 0...self.below(3) {
                let position = self.below(bytes.count)
                switch self.below(8) {
                case 0 where !bytes.isEmpty:
                    bytes[position] ^= 1 << UInt8(self.below(8))
                case 1 where !bytes.isEmpty:
                    bytes[position] = UInt8(truncatingIfNeeded: self.random.next())
                case 2 where !bytes.isEmpty:
                    bytes[position] = bytes[position] &+ (self.below(2) == 0 ? 1 : 255)
                case 3, 4:
                    let number = Self.numbers[self.below(Self.numbers.count)]
                    let end = min(bytes.count, position + number.count)
                    bytes.replaceSubrange(position..<end, with: number.prefix(end - position))
                case 5:
                    bytes.removeSubrange(position..<min(bytes.count, position + self.below(6)))
                case 6:
                    let start = self.below(other.count)
                    bytes.insert(
                        contentsOf: other[start..<min(other.count, start + self.below(12))], at: position)
                default:
                    bytes.removeLast(bytes.count - position)
                }
            }
            return bytes
        }
    }

    /// Bodies that are whole, but say anything.
    @Test func bodies() {
        var mutator = Mutator(random: SplitMix64(seed: 2024))
        var decoded = 0
        var refused = 0
        let time = ContinuousClock().measure {
            for _ in 0..<20_000 {
                let sample = Samples.all[mutator.below(Samples.all.count)]
                let other = Samples.all[mutator.below(Samples.all.count)]
                let bytes = mutator.mutated(sample.body, other: other.body)
                if failure(bytes, { try consume(sample.type, $0) }) == nil {
                    decoded += 1
                } else {
                    refused += 1
                }
            }
        }
        // Both ways were taken, and often.
        #expect(decoded > 2000)
        #expect(refused > 5000)
        #expect(time < .seconds(5))
    }

    /// Frames of several messages, cut to pieces as the sender does and changed on the way.
    @Test func streams() {
        var mutator = Mutator(random: SplitMix64(seed: 2025))
        var refused = 0
        let time = ContinuousClock().measure {
            for _ in 0..<5000 {
                var bytes: [UInt8] = []
                for _ in 0...mutator.below(4) {
                    bytes += Samples.all[mutator.below(Samples.all.count)].bytes
                }
                bytes = mutator.mutated(bytes, other: Samples.relation)
                var frames: [[UInt8]] = []
                bytes.withUnsafeBytes {
                    FrameSplitter.forEachFrame($0, maxFrame: 2 + mutator.below(200), threshold: 0) { flags, part in
                        frames.append([flags] + part)
                    }
                }
                if mutator.below(8) == 0 {
                    let index = mutator.below(frames.count)
                    frames.isEmpty ? () : (frames[index] = mutator.mutated(frames[index], other: bytes))
                }
                var assembler = FrameAssembler(limit: 10_000)
                for frame in frames {
                    let code = failure(packed(.char("w"), .u64BE(1), .u64BE(2), .u64BE(3), .bytes(frame))) {
                        guard case .xlogData(_, _, _, let payload) = try ReplicationMessage(decoding: $0) else {
                            return
                        }
                        if let messages = try assembler.push(payload: payload) {
                            try consumeAll(messages)
                        }
                    }
                    refused += code == nil ? 0 : 1
                }
            }
        }
        #expect(refused > 1000)
        #expect(time < .seconds(5))
    }

    /// Nothing but chance.
    @Test func noise() {
        var mutator = Mutator(random: SplitMix64(seed: 2026))
        let types = Samples.all.map(\.type)
        let time = ContinuousClock().measure {
            for _ in 0..<10_000 {
                let bytes = (0..<mutator.below(60)).map { _ in UInt8(truncatingIfNeeded: mutator.random.next()) }
                _ = failure(bytes) { try consume(types[mutator.below(types.count)], $0) }
                _ = failure(bytes) { try consumeAll($0) }
                _ = failure(bytes) { _ = try ReplicationMessage(decoding: $0) }
            }
        }
        #expect(time < .seconds(5))
    }

    /// The data of raw rows, whose walk is what the server would do without looking.
    @Test func rawRows() {
        var mutator = Mutator(random: SplitMix64(seed: 2027))
        var valid = 0
        let time = ContinuousClock().measure {
            for _ in 0..<15_000 {
                let row = ServerRows.all[mutator.below(ServerRows.all.count)]
                let data = mutator.mutated(row.data, other: ServerRows.all[mutator.below(2)].data)
                let bitmap =
                    row.bitmap.isEmpty || mutator.below(2) == 0
                    ? row.bitmap : mutator.mutated(row.bitmap, other: row.data)
                withMemory(data) { data in
                    withMemory(bitmap) { bitmap in
                        let tuple = TupleView.raw(
                            attributeCount: row.columns, hasNulls: !row.bitmap.isEmpty,
                            hasVarWidth: row.hasVarWidth || mutator.below(2) == 0, bitmap: bitmap, data: data)
                        let isValid = (try? row.layout?.validate(tuple)) != nil
                        valid += isValid ? 1 : 0
                        for number in 0..<row.columns {
                            guard case .value(let bytes)? = try? row.layout?.attribute(number, of: tuple) else {
                                continue
                            }
                            if !data.contains(bytes) {
                                Issue.record("attribute \(number) of \(Array(data)) is outside")
                            }
                        }
                    }
                }
            }
        }
        #expect(valid > 500)
        #expect(time < .seconds(5))
    }
}
