// Values as people read them in error messages and logs. Never used to store anything.

public enum ValueText {
    /// Most bytes of a value that are shown.
    static let shown = 64

    /// - Parameters:
    ///   - builtinType: OID of the type, 0 for one that initdb didn't make.
    ///   - kind: how the value travelled.
    ///   - bytes: the value.
    public static func describe(builtinType: UInt32, kind: ColumnKind, bytes: UnsafeRawBufferPointer) -> String {
        switch kind {
        case .null: "NULL"
        case .unchanged, .unchangedBy: "(unchanged)"
        case .text: self.text(bytes)
        case .binary: self.value(builtinType, bytes, bigEndian: true)
        }
    }

    /// - Parameter bytes: a value of a raw tuple, without the header of a varlena.
    public static func describeRaw(builtinType: UInt32, bytes: UnsafeRawBufferPointer) -> String {
        self.value(builtinType, bytes, bigEndian: false)
    }

    private static func value(_ type: UInt32, _ bytes: UnsafeRawBufferPointer, bigEndian: Bool) -> String {
        func integer<T: FixedWidthInteger & BitwiseCopyable>(_: T.Type) -> String? {
            guard bytes.count == MemoryLayout<T>.size else {
                return nil
            }
            let stored = bytes.loadUnaligned(as: T.self)
            return String(bigEndian ? T(bigEndian: stored) : T(littleEndian: stored))
        }
        let known: String? =
            switch type {
            case 16: bytes.count == 1 ? (bytes[0] == 0 ? "f" : "t") : nil
            case 20: integer(Int64.self)
            case 21: integer(Int16.self)
            case 23: integer(Int32.self)
            case 26: integer(UInt32.self)
            case 18, 19, 25, 1042, 1043: self.text(bytes)
            case 2950: self.uuid(bytes)
            default: nil
            }
        return known ?? self.hex(bytes)
    }

    /// The start of a text; invalid UTF-8 shows as replacement characters.
    private static func text(_ bytes: UnsafeRawBufferPointer) -> String {
        guard bytes.count > self.shown else {
            return String(decoding: bytes, as: UTF8.self)
        }
        var end = self.shown
        // not in the middle of a character
        while end > 0 && bytes[end] & 0xC0 == 0x80 {
            end -= 1
        }
        return String(decoding: bytes.prefix(end), as: UTF8.self) + "..."
    }

    private static func hex(_ bytes: UnsafeRawBufferPointer) -> String {
        var result = "\\x"
        for byte in bytes.prefix(self.shown / 2) {
            result += self.digits(byte)
        }
        return bytes.count > self.shown / 2 ? result + "..." : result
    }

    private static func uuid(_ bytes: UnsafeRawBufferPointer) -> String? {
        guard bytes.count == 16 else {
            return nil
        }
        var result = ""
        for (index, byte) in bytes.enumerated() {
            if [4, 6, 8, 10].contains(index) {
                result += "-"
            }
            result += self.digits(byte)
        }
        return result
    }

    private static func digits(_ byte: UInt8) -> String {
        (byte < 16 ? "0" : "") + String(byte, radix: 16)
    }
}
