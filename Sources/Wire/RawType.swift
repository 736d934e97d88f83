// The types whose values may travel as they lie in the heap: built in, the same in every server version, and such that
// their bytes can be checked without asking the type.

/// How a raw-safe type is laid out, as in pg_type.
public struct RawType: Equatable, Sendable {
    /// What can be wrong with the bytes of a value.
    enum Content: UInt8, Sendable {
        /// Nothing: any bytes are a value.
        case any
        case boolean
        /// Must be valid in the database's encoding.
        case text
        case numeric
    }

    /// Bytes; -1 for a varlena.
    public let attlen: Int16
    /// "c", "s", "i" or "d".
    public let attalign: UInt8
    public let isByValue: Bool
    let content: Content

    private init(_ attlen: Int16, _ attalign: Unicode.Scalar, byValue: Bool, _ content: Content = .any) {
        self.attlen = attlen
        self.attalign = UInt8(ascii: attalign)
        self.isByValue = byValue
        self.content = content
    }

    /// nil when values of the type don't travel raw.
    /// - Parameter oid: in pg_type.
    public init?(oid: UInt32) {
        switch oid {
        case 16: self.init(1, "c", byValue: true, .boolean)
        case 17: self.init(-1, "i", byValue: false)  // bytea
        case 18: self.init(1, "c", byValue: true)  // "char"
        case 20: self.init(8, "d", byValue: true)  // int8
        case 21: self.init(2, "s", byValue: true)  // int2
        case 23, 26: self.init(4, "i", byValue: true)  // int4, oid
        case 25, 1042, 1043: self.init(-1, "i", byValue: false, .text)  // text, bpchar, varchar
        case 700: self.init(4, "i", byValue: true)  // float4
        case 701: self.init(8, "d", byValue: true)  // float8
        case 1082: self.init(4, "i", byValue: true)  // date
        case 1083, 1114, 1184: self.init(8, "d", byValue: true)  // time, timestamp, timestamptz
        case 1186: self.init(16, "d", byValue: false)  // interval
        case 1266: self.init(12, "d", byValue: false)  // timetz
        case 1700: self.init(-1, "i", byValue: false, .numeric)
        case 2950: self.init(16, "c", byValue: false)  // uuid
        default: return nil
        }
    }

    /// Bytes to which a value is aligned.
    var alignment: Int {
        switch self.attalign {
        case UInt8(ascii: "s"): 2
        case UInt8(ascii: "i"): 4
        case UInt8(ascii: "d"): 8
        default: 1
        }
    }
}
