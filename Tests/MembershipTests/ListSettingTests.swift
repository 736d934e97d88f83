// List settings, read and written as PostgreSQL does.

import TestSupport
import Testing

@testable import Membership

@Suite struct ListSettingTests {
    @Test(
        arguments: [
            ("", []), ("   ", []), ("\t\n", []),
            ("bdr", ["bdr"]), (" bdr ", ["bdr"]), ("a,b", ["a", "b"]), (" a ,\tb , c", ["a", "b", "c"]),
            // Only outer spaces go; case stays.
            ("a b, C", ["a b", "C"]),
            ("\"a, b\"", ["a, b"]), ("\" a \",b", [" a ", "b"]), ("\"a\"\"b\"", ["a\"b"]), ("\"\"\"\"", ["\""]),
            ("\"\"", [""]), ("\"\",a", ["", "a"]),
            ("$libdir/bdr, \"/opt/x y/z.so\"", ["$libdir/bdr", "/opt/x y/z.so"]),
            // A quote inside a name that doesn't begin with one means nothing.
            ("a\"b", ["a\"b"]), ("größe,数", ["größe", "数"]),
        ] as [(String, [String])])
    func reads(value: String, names: [String]) {
        #expect(parseList(value) == names)
    }

    @Test(arguments: [
        ",", "a,", ",a", "a,,b", "a, ,b", "\"a", "\"a\"\"", "\"", "\"a\"b", "\"a\" b", "\"a\",", "\"a\"\"b",
    ])
    func refuses(value: String) {
        #expect(parseList(value) == nil)
    }

    @Test(
        arguments: [
            (["bdr"], "bdr"), (["pg_stat_statements", "bdr"], "pg_stat_statements, bdr"), (["a1"], "a1"),
            (["1a"], "\"1a\""), (["A"], "\"A\""), (["a b"], "\"a b\""), (["a,b", "c"], "\"a,b\", c"),
            (["$libdir/bdr"], "\"$libdir/bdr\""), (["a\"b"], "\"a\"\"b\""), ([""], "\"\""), (["é"], "\"é\""), ([], ""),
            ([String(repeating: "x", count: 63)], String(repeating: "x", count: 63)),
            // Double quotes would have the server cut it after 63 bytes.
            ([String(repeating: "x", count: 64)], "'" + String(repeating: "x", count: 64) + "'"),
            (["'" + String(repeating: "é", count: 32), "b"], "'''" + String(repeating: "é", count: 32) + "', b"),
        ] as [([String], String)])
    func writes(names: [String], literal: String) {
        #expect(listLiteral(names) == literal)
    }

    @Test func quotesNames() {
        #expect(quoted("app") == "\"app\"")
        #expect(quoted("My \"App\"") == "\"My \"\"App\"\"\"")
        #expect(quoted("") == "\"\"")
        // A quote with a combining character after it is one Character, and is doubled all the same.
        #expect(quoted("\"\u{301}").unicodeScalars.elementsEqual("\"\"\"\u{301}\"".unicodeScalars))
    }

    /// What is written in double quotes reads back.
    @Test func roundTrips() {
        var random = SplitMix64(seed: 3)
        let alphabet = Array("ab_,\" 'é1/$A\t".unicodeScalars)
        for _ in 0..<3000 {
            let names = (0..<(random.next() % 4)).map { _ in
                var name = ""
                for _ in 0..<(random.next() % 12) {
                    if let scalar = alphabet.randomElement(using: &random) {
                        name.unicodeScalars.append(scalar)
                    }
                }
                return name
            }
            #expect(parseList(listLiteral(names)) == names)
        }
    }
}
