// Settings that are lists of names, such as shared_preload_libraries, as PostgreSQL reads and writes them.

/// Splits the value of a list setting into its names: separated by commas, with spaces around them, in double quotes when
/// they contain either; a doubled quote inside stands for one.
/// - Returns: the names, none for an empty value; nil when PostgreSQL would refuse the value.
public func parseList(_ value: String) -> [String]? {
    let bytes = Array(value.utf8)
    let comma = UInt8(ascii: ",")
    let quote = UInt8(ascii: "\"")
    func isSpace(_ byte: UInt8) -> Bool {
        byte == 0x20 || (0x09...0x0d).contains(byte)
    }
    var names: [String] = []
    var position = 0
    func skipSpaces() {
        while position < bytes.count, isSpace(bytes[position]) {
            position += 1
        }
    }
    skipSpaces()
    guard position < bytes.count else {
        return []
    }
    while true {
        var name: [UInt8] = []
        if position < bytes.count, bytes[position] == quote {
            position += 1
            while true {
                guard position < bytes.count else {
                    return nil
                }
                let byte = bytes[position]
                position += 1
                if byte == quote {
                    guard position < bytes.count, bytes[position] == quote else {
                        break
                    }
                    position += 1
                }
                name.append(byte)
            }
        } else {
            while position < bytes.count, bytes[position] != comma {
                name.append(bytes[position])
                position += 1
            }
            while let last = name.last, isSpace(last) {
                name.removeLast()
            }
            guard !name.isEmpty else {
                return nil
            }
        }
        names.append(String(decoding: name, as: UTF8.self))
        skipSpaces()
        guard position < bytes.count else {
            return names
        }
        guard bytes[position] == comma else {
            return nil
        }
        position += 1
        skipSpaces()
    }
}

/// A name as SQL takes it, in double quotes; in single quotes, a string.
func quoted(_ name: String, by quote: Unicode.Scalar = "\"") -> String {
    var result = String.UnicodeScalarView()
    result.append(quote)
    for scalar in name.unicodeScalars {
        if scalar == quote {
            result.append(quote)
        }
        result.append(scalar)
    }
    result.append(quote)
    return String(result)
}

/// A list of names as ALTER ... SET takes it: quoted where they have to be. The server cuts what stands in double quotes to
/// the length of a name, which paths of libraries may exceed; in single quotes it stays.
func listLiteral(_ names: [String]) -> String {
    names.map { name in
        let isPlain = name.utf8.enumerated().allSatisfy { index, byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "_"): true
            case UInt8(ascii: "0")...UInt8(ascii: "9"): index > 0
            default: false
            }
        }
        if name.utf8.count > maximumNameLength {
            return quoted(name, by: "'")
        }
        return isPlain && !name.isEmpty ? name : quoted(name)
    }.joined(separator: ", ")
}
