// Names of nodes and groups.

import Membership
import Testing

@Suite struct NamesTests {
    static func nodeError(_ name: String) throws -> MembershipError {
        try #require(throws: MembershipError.self) { try validateNodeName(name) }
    }

    static func groupError(_ name: String) throws -> MembershipError {
        try #require(throws: MembershipError.self) { try validateGroupName(name) }
    }

    @Test(arguments: ["a", "0", "_", "node1", "node_1", "1node", String(repeating: "x", count: 63), "any1", "none_"])
    func validForBoth(name: String) throws {
        try validateNodeName(name)
        try validateGroupName(name)
    }

    @Test(arguments: ["node-1", "-", "--x", "a-b-c"]) func hyphensAreForNodes(name: String) throws {
        try validateNodeName(name)
        let error = try Self.groupError(name)
        #expect(error.sqlstate == "42602")
        #expect(error.message == "group name \"\(name)\" contains invalid character \"-\"")
    }

    @Test func empty() throws {
        #expect(try Self.nodeError("").sqlstate == "42602")
        #expect(try Self.nodeError("").message == "node name must not be empty")
        #expect(try Self.groupError("").message == "group name must not be empty")
    }

    @Test func tooLong() throws {
        let error = try Self.nodeError(String(repeating: "x", count: 64))
        #expect(error.sqlstate == "42622")
        #expect(error.message == "node name \"\(String(repeating: "x", count: 63))...\" is too long")
        #expect(error.detail == "It has 64 bytes.")
        #expect(error.hint == "Use at most 63 bytes.")
        // Bytes count, not characters; and what is repeated of it stays short.
        let long = try Self.groupError(String(repeating: "é", count: 10_000))
        #expect(long.sqlstate == "42622")
        #expect(long.detail == "It has 20000 bytes.")
        #expect(long.message.utf8.count < 150)
    }

    @Test(arguments: [
        ("Node1", "\"N\"", "node1"), ("node 1", "\" \"", "node_1"), ("node.1", "\".\"", "node_1"),
        ("MiX-ed", "\"M\"", "mix-ed"), ("über", "\"ü\"", "_ber"), ("a\nb", "U+000a", "a_b"),
        ("a\u{7f}", "U+007f", "a_"), ("a\u{85}", "U+0085", "a_"), ("x'y", "\"'\"", "x_y"),
    ])
    func invalidCharacter(name: String, shown: String, suggestion: String) throws {
        let error = try Self.nodeError(name)
        #expect(error.sqlstate == "42602")
        #expect(error.message == "node name \"\(name)\" contains invalid character \(shown)")
        #expect(error.hint?.hasSuffix("\"\(suggestion)\" would be possible.") == true)
        try validateNodeName(suggestion)
    }

    /// Too little would be left of the name, or something reserved.
    @Test(arguments: ["数据库", "É", "...a", "  ", "Any", "NONE", "DECODER"]) func noSuggestion(name: String) throws {
        let error = try Self.nodeError(name)
        #expect(error.sqlstate == "42602")
        #expect(error.hint == "Node names consist of lower case letters, digits, hyphens and underscores.")
    }

    @Test(arguments: ["any", "none", "decoder"]) func reservedForNodes(name: String) throws {
        let error = try Self.nodeError(name)
        #expect(error.sqlstate == "42939")
        #expect(error.message == "node name \"\(name)\" is reserved")
        #expect(error.hint?.contains("\"\(name)1\"") == true)
    }

    @Test(arguments: ["any", "none"]) func reservedForGroups(name: String) throws {
        #expect(try Self.groupError(name).sqlstate == "42939")
    }

    /// No group is called "decoder" by the decoding worker's slot: that name ends with it, it doesn't begin.
    @Test func decoderIsAGroupName() throws {
        try validateGroupName("decoder")
    }

    @Test func suggestionsOfGroupsHaveNoHyphens() throws {
        #expect(try Self.groupError("my-Group").hint?.hasSuffix("\"my_group\" would be possible.") == true)
    }

    /// All of Unicode but the letters that are allowed.
    @Test func everyOtherCharacterIsRefused() {
        let allowed = Set("abcdefghijklmnopqrstuvwxyz0123456789_-".unicodeScalars)
        for value in (0...0x2fff) as ClosedRange<UInt32> {
            guard let scalar = Unicode.Scalar(value) else {
                continue
            }
            var name = "a"
            name.unicodeScalars.append(scalar)
            let isValid = (try? validateNodeName(name)) != nil
            #expect(isValid == allowed.contains(scalar), "U+\(String(value, radix: 16))")
        }
    }
}
