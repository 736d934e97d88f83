// Names of the slots, origins and subscriptions of a group: bdr_<database>_<group>_<node>.
//
// Slot names allow [a-z0-9_] and 63 bytes, while databases may be named anything. A part that can't stand as it is has its
// odd characters replaced (upper case by lower case, others by an underscore), is cut when it is too long, and gets a tail of
// 7 hexadecimal digits, the hash of the part as it was. Names are stored on other nodes and outlive upgrades: the same input
// must give the same name in every version.
//
// Underscores could be read in two ways: database "a_b" with group "c", or database "a" with group "b_c". Slots and origins
// are named per server, where each database has one node in one group. So it is enough that the database can be read off the
// name, and the database part gets the tail when it contains an underscore; group and node stay as they are. What is left is
// one database with leftovers of another group, which whoever creates the object finds out, as the name is taken.

/// Names of server objects, by what they belong to. Parts are the true names, as in the catalogs.
public enum ObjectNames {
    /// The slot from which a peer streams this node's changes.
    /// - Parameters:
    ///   - database: the database of the slot.
    ///   - group: the node's group.
    ///   - peer: the node that streams from it.
    public static func slotName(database: String, group: String, peer: String) -> String {
        self.join([database, group, peer])
    }

    /// The slot that holds WAL back for the whole group.
    public static func groupSlotName(database: String, group: String) -> String {
        self.join([database, group])
    }

    /// The origin under which this node commits the changes of another one.
    /// - Parameters:
    ///   - database: this node's database.
    ///   - group: the node's group.
    ///   - node: the node whose changes they are.
    public static func originName(database: String, group: String, node: String) -> String {
        self.join([database, group, node])
    }

    /// The subscription of `target`, in this database, to `origin`.
    public static func subscriptionName(
        database: String, group: String, origin: String, target: String
    ) -> String {
        self.join([database, group, origin, target])
    }

    private static let hashDigits = 7

    private struct Part {
        /// With nothing but allowed characters.
        var stem: [UInt8]
        /// Hash of the original, as digits.
        var tail: [UInt8]
        var showsTail: Bool

        var length: Int { self.stem.count + (self.showsTail ? self.tail.count : 0) }
    }

    private static func join(_ names: [String]) -> String {
        var parts: [Part] = []
        for (index, name) in names.enumerated() {
            let stem = self.replaced(name)
            let changed = !stem.elementsEqual(name.utf8)
            let ambiguous = index == 0 && stem.contains(UInt8(ascii: "_"))
            parts.append(Part(stem: stem, tail: self.tail(of: name), showsTail: changed || ambiguous))
        }
        let prefix = Array("bdr".utf8)
        // At most 4 parts: each has room for its tail and more.
        let room = maximumNameLength - prefix.count - parts.count
        let limit = self.limit(lengths: parts.map(\.length), room: room)
        var result = prefix
        for var part in parts {
            if part.length > limit {
                part.stem = Array(part.stem.prefix(max(0, limit - part.tail.count)))
                part.showsTail = true
            }
            result.append(UInt8(ascii: "_"))
            result += part.stem
            if part.showsTail {
                result += part.tail
            }
        }
        return String(decoding: result, as: UTF8.self)
    }

    /// The greatest length per part with which all of them fit: short parts stay whole, long ones share what is left.
    private static func limit(lengths: [Int], room: Int) -> Int {
        var limit = room
        while limit > self.hashDigits, lengths.reduce(0, { $0 + min($1, limit) }) > room {
            limit -= 1
        }
        return limit
    }

    /// The name with what slot names don't allow replaced, one byte a character.
    private static func replaced(_ name: String) -> [UInt8] {
        name.unicodeScalars.map { scalar in
            guard let byte = UInt8(exactly: scalar.value) else {
                return UInt8(ascii: "_")
            }
            return switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"): byte
            case UInt8(ascii: "A")...UInt8(ascii: "Z"): byte | 0x20
            default: UInt8(ascii: "_")
            }
        }
    }

    /// 28 bits of the hash, as digits.
    private static func tail(of name: String) -> [UInt8] {
        let hash = fnv1a(name.utf8)
        let folded = hash ^ (hash >> 28) ^ (hash >> 56)
        return Array(hexadecimal(folded & 0xfff_ffff, digits: self.hashDigits).utf8)
    }
}

/// FNV-1a with 64 bits: small, without a seed, and the same for ever. Not for anything an attacker gains by colliding: two
/// names that clash are refused when the second object is created.
func fnv1a(_ bytes: some Sequence<UInt8>) -> UInt64 {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in bytes {
        hash ^= UInt64(byte)
        hash = hash &* 0x100_0000_01b3
    }
    return hash
}

/// Lower case digits, with leading zeros.
func hexadecimal(_ value: UInt64, digits: Int) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: max(0, digits - text.utf8.count)) + text
}
