// What bdrctl prints: tables, JSON, metrics, sizes.

import Operations
import Testing

@Suite struct RenderingTests {
    @Test func table() {
        var table = TextTable(["node", "lag"])
        table.rows = [["initial_node", "0 B"], ["b", ""]]
        #expect(
            table.rendered() == """
                node          lag
                ------------  ---
                initial_node  0 B
                b
                """)
    }

    @Test func json() {
        let value = JSON.object([
            ("text", .string("a\"b\\c\n\u{1}é")), ("none", .text(nil)), ("list", .array([.number(-1), .bool(true)])),
            ("count", .integer("12")), ("odd", .integer("x")),
        ])
        #expect(value.rendered() == #"{"text":"a\"b\\c\n\u0001é","none":null,"list":[-1,true],"count":12,"odd":null}"#)
    }

    @Test func metrics() {
        var metrics = Metrics()
        metrics.add("a", "gauge", "First.", labels: [("peer", "x\"y\\\n")], value: "1")
        metrics.add("b", "counter", "Second.", value: "2")
        metrics.add("a", "gauge", "First.", labels: [("peer", "z")], value: "3")
        #expect(
            metrics.rendered() == #"""
                # HELP a First.
                # TYPE a gauge
                a{peer="x\"y\\\n"} 1
                a{peer="z"} 3
                # HELP b Second.
                # TYPE b counter
                b 2

                """#)
    }

    @Test func sizes() {
        #expect(["0", "10", "16MB", "512kB", "1 GB", "3k"].map(parseSize) == [0, 10, 16 << 20, 512 << 10, 1 << 30, 3 << 10])
        #expect(["", "MB", "-1", "1x", "99999999999999GB"].map(parseSize) == [nil, nil, nil, nil, nil])
        #expect([0, 10_239, 10_240, 16 << 20].map(readableSize) == ["0 B", "10239 B", "10 kB", "16 MB"])
    }

    @Test func bar() {
        #expect(progressBar(percent: 50, width: 4) == "[##..] 50%")
        #expect(progressBar(percent: -5, width: 4) == "[....] 0%")
        #expect(progressBar(percent: 400, width: 4) == "[####] 100%")
    }
}
