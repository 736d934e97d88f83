// Ranges, statements and differences of a comparison, and what is kept of it.

import Operations
import Testing

@Suite struct CompareTests {
    static let table = CompareTable(
        schema: "public", name: "odd\"name",
        columns: [
            CompareColumn(name: "b", type: "text"), CompareColumn(name: "a", type: "integer"),
            CompareColumn(name: "k", type: "timestamp with time zone"),
        ],
        key: [CompareColumn(name: "a", type: "integer"), CompareColumn(name: "k", type: "timestamp with time zone")])

    @Test func statements() {
        let name = #""public"."odd""name""#
        let first = Self.table.boundary(after: nil, rows: 100)
        #expect(
            first.statement == #"SELECT c."a"::pg_catalog.text, c."k"::pg_catalog.text FROM ONLY "# + name
                + #" c ORDER BY c."a", c."k" OFFSET 99 LIMIT 1"#)
        #expect(first.arguments == [])
        let next = Self.table.boundary(after: ["5", "x"], rows: 1)
        #expect(next.statement.contains(#"WHERE (c."a", c."k") > ($1::integer, $2::timestamp with time zone) ORDER BY c."a", c."k" OFFSET 0"#))
        #expect(next.arguments == ["5", "x"])
        let range = Self.table.checksum(after: ["1", "x"], upto: ["2", "y"])
        // columns by name: nodes can have them in different orders
        #expect(range.statement.contains(#"ROW(c."a", c."b", c."k")::pg_catalog.text"#))
        #expect(
            range.statement.hasSuffix(
                #"WHERE (c."a", c."k") > ($1::integer, $2::timestamp with time zone) AND (c."a", c."k") <= ($3::integer, $4::timestamp with time zone)"#
            ))
        #expect(range.arguments == ["1", "x", "2", "y"])
        #expect(Self.table.checksum(after: nil, upto: ["2", "y"]).arguments == ["2", "y"])
        #expect(!Self.table.checksum(after: nil, upto: nil).statement.contains("WHERE"))
        #expect(Self.table.row(key: ["1", "x"]).statement.hasSuffix(#"WHERE (c."a", c."k") = ($1::integer, $2::timestamp with time zone)"#))
    }

    @Test func differing() {
        func row(_ key: String, _ digest: String) -> RowDigest { RowDigest(key: key, digest: digest, values: [key]) }
        let found = differences([row("1", "a"), row("2", "b"), row("3", "c")], [row("4", "d"), row("3", "x"), row("1", "a")])
        #expect(
            found == [
                RowDifference(key: "2", values: ["2"], kind: .onlyFirst), RowDifference(key: "3", values: ["3"], kind: .changed),
                RowDifference(key: "4", values: ["4"], kind: .onlySecond),
            ])
        #expect(differences([], []) == [])
        #expect(differences([row("1", "a")], [row("1", "a")]) == [])
    }

    @Test func state() throws {
        var state = CompareState(nodes: ["a", "b"])
        state.done = ["\"public\".\"x\ty\"": 3, "\"s\".\"t\"": 0]
        state.table = "\"public\".\"z\""
        state.after = ["1\t\\t", "two\nlines", ""]
        state.differing = 7
        #expect(try CompareState(parsing: state.rendered()) == state)
        let empty = CompareState(nodes: ["a", "b"])
        #expect(try CompareState(parsing: empty.rendered()) == empty)
        for text in ["", "nodes\ta\tb\nodd\tx\n", "at\tt\n"] {
            #expect(throws: OperationsError("the file is no state of a comparison")) { try CompareState(parsing: text) }
        }
    }

    @Test func quoting() {
        #expect(quotedIdentifier("a\"b") == "\"a\"\"b\"")
        #expect(quotedLiteral("it's") == "'it''s'")
        #expect(quotedLiteral("a\\b'") == "E'a\\\\b'''")
    }
}
