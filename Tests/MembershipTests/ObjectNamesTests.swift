// Names of slots, origins and subscriptions. The fixed strings here are stored on servers: they must stay.

import TestSupport
import Testing

@testable import Membership

@Suite struct ObjectNamesTests {
    @Test(arguments: [
        ("app", "main", "node2", "bdr_app_main_node2"),
        ("my_app", "main", "node2", "bdr_my_app5bf676d_main_node2"),
        ("My App", "main", "node-2", "bdr_my_app7b5bf8b_main_node_2916a7b2"),
        ("daten_größe", "g", "n", "bdr_daten_gr__ef3d0b83_g_n"),
        ("数据库", "g", "n", "bdr____62a08cd_g_n"),
        ("a\"b'c;d", "g", "n", "bdr_a_b_c_d7286b65_g_n"),
        // Equal for Swift's String, but two databases for PostgreSQL.
        ("e\u{301}", "g", "n", "bdr_e_21d6f51_g_n"),
        ("\u{e9}", "g", "n", "bdr__b396e70_g_n"),
        (
            String(repeating: "d", count: 63), "main", "node2",
            "bdr_ddddddddddddddddddddddddddddddddddddddddd649a77f_main_node2"
        ),
        (
            "app", "main", String(repeating: "n", count: 63),
            "bdr_app_main_nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn3b0c904"
        ),
        (
            String(repeating: "d", count: 63), String(repeating: "g", count: 63), String(repeating: "n", count: 63),
            "bdr_dddddddddddd649a77f_ggggggggggggad4bfd9_nnnnnnnnnnnn3b0c904"
        ),
    ])
    func fixed(database: String, group: String, node: String, name: String) {
        #expect(ObjectNames.slotName(database: database, group: group, peer: node) == name)
        #expect(ObjectNames.originName(database: database, group: group, node: node) == name)
    }

    @Test func fixedOfTwoAndFourParts() {
        #expect(ObjectNames.groupSlotName(database: "app", group: "main") == "bdr_app_main")
        #expect(
            ObjectNames.subscriptionName(database: "app", group: "main", origin: "node1", target: "node2")
                == "bdr_app_main_node1_node2")
        #expect(
            ObjectNames.subscriptionName(
                database: String(repeating: "d", count: 63), group: String(repeating: "g", count: 63),
                origin: String(repeating: "a", count: 63), target: String(repeating: "b", count: 63))
                == "bdr_ddddddd649a77f_gggggggad4bfd9_aaaaaaa6f09785_bbbbbbb7879e02")
    }

    @Test(arguments: [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)])
    func hashIsFNV1a(text: String, hash: UInt64) {
        #expect(fnv1a(text.utf8) == hash)
    }

    @Test func hexadecimalHasLeadingZeros() {
        #expect(hexadecimal(0, digits: 7) == "0000000")
        #expect(hexadecimal(0xabc, digits: 7) == "0000abc")
        #expect(hexadecimal(0x1234_5678, digits: 7) == "12345678")
    }

    /// Scalars that databases are named with, the awkward ones more often.
    static let alphabet: [Unicode.Scalar] = Array("ab_-A Z0.\"'%é数🙂\u{301}\n".unicodeScalars)

    static func randomName(_ random: inout SplitMix64, maximumBytes: Int) -> String {
        let wanted = Int(random.next() % UInt64(maximumBytes)) + 1
        var name = ""
        while let scalar = Self.alphabet.randomElement(using: &random) {
            guard name.utf8.count + String(scalar).utf8.count <= wanted else {
                break
            }
            name.unicodeScalars.append(scalar)
        }
        return name.isEmpty ? "x" : name
    }

    static func randomValidName(_ random: inout SplitMix64) -> String {
        let count = Int(random.next() % 63) + 1
        return String(
            String.UnicodeScalarView(
                (0..<count).compactMap { _ in "abn_-019".unicodeScalars.randomElement(using: &random) }))
    }

    /// Whatever the parts, the server takes the name, and it is the same each time.
    @Test func serverTakesThem() {
        var random = SplitMix64(seed: 5)
        let allowed = Set("abcdefghijklmnopqrstuvwxyz0123456789_".utf8)
        for _ in 0..<5000 {
            let database = Self.randomName(&random, maximumBytes: 63)
            let group = Self.randomName(&random, maximumBytes: 63)
            let node = Self.randomName(&random, maximumBytes: 63)
            let other = Self.randomName(&random, maximumBytes: 63)
            let names = [
                ObjectNames.slotName(database: database, group: group, peer: node),
                ObjectNames.groupSlotName(database: database, group: group),
                ObjectNames.subscriptionName(database: database, group: group, origin: node, target: other),
            ]
            for name in names {
                if name.utf8.count > 63 || !name.hasPrefix("bdr_") || !name.utf8.allSatisfy(allowed.contains) {
                    Issue.record("\(name)")
                }
            }
            #expect(names[0] == ObjectNames.slotName(database: database, group: group, peer: node))
        }
    }

    /// Slots and origins of all databases of a server share one space of names.
    @Test func databasesDoNotClash() {
        var random = SplitMix64(seed: 6)
        var databases: Set<[UInt8]> = []
        for _ in 0..<5000 {
            databases.insert(Array(Self.randomName(&random, maximumBytes: 63).utf8))
        }
        var names: Set<String> = []
        for database in databases {
            names.insert(
                ObjectNames.slotName(database: String(decoding: database, as: UTF8.self), group: "main", peer: "n1"))
        }
        #expect(names.count == databases.count)
    }

    @Test func peersOfAGroupDoNotClash() {
        var random = SplitMix64(seed: 7)
        var nodes: Set<String> = []
        for _ in 0..<5000 {
            nodes.insert(Self.randomValidName(&random))
        }
        var names: Set<String> = [ObjectNames.groupSlotName(database: "app", group: "main")]
        for node in nodes {
            names.insert(ObjectNames.slotName(database: "app", group: "main", peer: node))
        }
        #expect(names.count == nodes.count + 1)
    }

    /// Pairs that would give one name if parts were just put together and cut.
    @Test func lookAlikes() {
        let groups = [
            ["App", "app", "APP", "app ", "app-", "app.", "app_"].map {
                ObjectNames.slotName(database: $0, group: "main", peer: "n")
            },
            ["node-1", "node_1", "node--1", "node_-1", "node-_1"].map {
                ObjectNames.slotName(database: "app", group: "main", peer: $0)
            },
            ["a", "b", "c"].map {
                ObjectNames.slotName(
                    database: String(repeating: "d", count: 62) + $0, group: "main", peer: "n")
            },
        ]
        for names in groups {
            #expect(Set(names).count == names.count, "\(names)")
        }
        // Within one database the group is one; only the database must be told apart.
        #expect(
            ObjectNames.slotName(database: "a_b", group: "c", peer: "n")
                != ObjectNames.slotName(database: "a", group: "b_c", peer: "n"))
    }

    @Test func everyPartCounts() {
        #expect(
            ObjectNames.slotName(database: "app", group: "main", peer: "node1")
                != ObjectNames.slotName(database: "app", group: "main", peer: "node10"))
        #expect(
            ObjectNames.subscriptionName(database: "app", group: "main", origin: "a", target: "b")
                != ObjectNames.subscriptionName(database: "app", group: "main", origin: "b", target: "a"))
    }
}
