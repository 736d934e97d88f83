// Which names nodes and groups may have.

/// Longest name, in bytes: what PostgreSQL's type `name` holds.
let maximumNameLength = 63

/// Names that PostgreSQL gives a meaning of its own wherever it takes the name of a replication origin.
private let reservedNames: Set<String> = ["any", "none"]

/// Checks the name of a node: lower case letters, digits, hyphens and underscores, 1 to 63 bytes.
/// - Throws: `MembershipError`.
public func validateNodeName(_ name: String) throws(MembershipError) {
    // "decoder" would give the peer's slot the name that is kept for the decoding worker's slot.
    try validate(
        name, kind: "node", reserved: reservedNames.union(["decoder"]), allowsHyphen: true,
        rule: "Node names consist of lower case letters, digits, hyphens and underscores.")
}

/// Checks the name of a group: lower case letters, digits and underscores, 1 to 63 bytes.
/// - Throws: `MembershipError`.
public func validateGroupName(_ name: String) throws(MembershipError) {
    try validate(
        name, kind: "group", reserved: reservedNames, allowsHyphen: false,
        rule: "Group names consist of lower case letters, digits and underscores.")
}

private func validate(
    _ name: String, kind: String, reserved: Set<String>, allowsHyphen: Bool, rule: String
) throws(MembershipError) {
    guard !name.isEmpty else {
        throw MembershipError(sqlstate: "42602", message: "\(kind) name must not be empty", hint: rule)
    }
    let length = name.utf8.count
    guard length <= maximumNameLength else {
        throw MembershipError(
            sqlstate: "42622", message: "\(kind) name \"\(clipped(name))\" is too long",
            detail: "It has \(length) bytes.", hint: "Use at most \(maximumNameLength) bytes.")
    }
    for scalar in name.unicodeScalars {
        switch scalar {
        case "a"..."z", "0"..."9", "_":
            continue
        case "-" where allowsHyphen:
            continue
        default:
            var hint = rule
            if let suggestion = suggestion(for: name, allowsHyphen: allowsHyphen), !reserved.contains(suggestion) {
                hint += " \"\(suggestion)\" would be possible."
            }
            throw MembershipError(
                sqlstate: "42602",
                message: "\(kind) name \"\(name)\" contains invalid character \(described(scalar))", hint: hint)
        }
    }
    guard !reserved.contains(name) else {
        throw MembershipError(
            sqlstate: "42939", message: "\(kind) name \"\(name)\" is reserved",
            hint: "Choose another name, for example \"\(name)1\".")
    }
}

/// The character in quotes, or its number when it can't be shown.
private func described(_ scalar: Unicode.Scalar) -> String {
    switch scalar.value {
    case 0..<0x20, 0x7f..<0xa0: "U+" + hexadecimal(UInt64(scalar.value), digits: 4)
    default: "\"\(scalar)\""
    }
}

/// The name in lower case with underscores for what isn't allowed; nil when little of it would be left.
private func suggestion(for name: String, allowsHyphen: Bool) -> String? {
    var bytes: [UInt8] = []
    var kept = 0
    for scalar in name.unicodeScalars {
        guard let byte = UInt8(exactly: scalar.value) else {
            bytes.append(UInt8(ascii: "_"))
            continue
        }
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"):
            bytes.append(byte)
            kept += 1
        case UInt8(ascii: "A")...UInt8(ascii: "Z"):
            bytes.append(byte | 0x20)
            kept += 1
        case UInt8(ascii: "-") where allowsHyphen:
            bytes.append(byte)
        default:
            bytes.append(UInt8(ascii: "_"))
        }
    }
    return 2 * kept >= bytes.count ? String(decoding: bytes, as: UTF8.self) : nil
}

/// The start of a name that is too long to be repeated in a message.
private func clipped(_ name: String) -> String {
    var result = ""
    for scalar in name.unicodeScalars {
        guard result.utf8.count < maximumNameLength else {
            break
        }
        result.unicodeScalars.append(scalar)
    }
    return result + "..."
}
