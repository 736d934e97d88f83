// UUIDs that sort by the time when they were made.
//
// Version 2: 64 bits of microseconds since 2000, biased so that the order of bytes is that of time, then 64 random bits: the
// order of type uuid is that of time. Version 1 has the form of an RFC 4122 time-based UUID (100 ns since 1582), its random bits
// in place of clock sequence and node; it needs a comparison of its own.

public enum KSUUID {
    /// Microseconds from 1582-10-15 to 2000-01-01.
    private static let gregorian: Int64 = 13_165_977_600_000_000

    public static func version2(_ time: Int64, random: UInt64) -> [UInt8] {
        self.bytes(UInt64(bitPattern: time) ^ (1 &<< 63)) + self.bytes(random)
    }

    /// Microseconds since 2000.
    public static func time2(_ uuid: [UInt8]) -> Int64? {
        self.integer(uuid, from: 0).map { Int64(bitPattern: $0 ^ (1 &<< 63)) }
    }

    /// - Parameter time: microseconds since 2000; what can't be written counts as the nearest that can.
    public static func version1(_ time: Int64, random: UInt64) -> [UInt8] {
        let micros = UInt64(clamping: time.addingReportingOverflow(self.gregorian).partialValue)
        let ticks = min(micros, (1 &<< 60) / 10 - 1) &* 10
        let low = ticks & 0xffff_ffff
        let middle = (ticks &>> 32) & 0xffff
        let high = (ticks &>> 48) & 0x0fff | 0x1000
        let rest = random & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000
        return self.bytes(low &<< 32 | middle &<< 16 | high) + self.bytes(rest)
    }

    /// Microseconds since 2000; nil if it is not a time-based UUID.
    public static func time1(_ uuid: [UInt8]) -> Int64? {
        guard let ticks = self.ticks(uuid), uuid[6] &>> 4 == 1 else {
            return nil
        }
        return Int64(clamping: ticks / 10) &- self.gregorian
    }

    /// -1, 0 or 1 as the first is older, equal or newer.
    public static func compare1(_ left: [UInt8], _ right: [UInt8]) -> Int32 {
        let times = (self.ticks(left) ?? 0, self.ticks(right) ?? 0)
        if times.0 != times.1 {
            return times.0 < times.1 ? -1 : 1
        }
        return self.compare2(left, right)
    }

    public static func compare2(_ left: [UInt8], _ right: [UInt8]) -> Int32 {
        left.lexicographicallyPrecedes(right) ? -1 : left == right ? 0 : 1
    }

    /// 100 ns since 1582, whatever the version says.
    private static func ticks(_ uuid: [UInt8]) -> UInt64? {
        guard let first = self.integer(uuid, from: 0) else {
            return nil
        }
        return (first & 0x0fff) &<< 48 | ((first &>> 16) & 0xffff) &<< 32 | first &>> 32
    }

    private static func bytes(_ value: UInt64) -> [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: value &>> (56 &- 8 &* UInt64($0))) }
    }

    private static func integer(_ bytes: [UInt8], from start: Int) -> UInt64? {
        guard bytes.count == 16 else {
            return nil
        }
        return bytes[start..<(start &+ 8)].reduce(0) { $0 &<< 8 | UInt64($1) }
    }
}
