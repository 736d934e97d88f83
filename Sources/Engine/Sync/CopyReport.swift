// The progress of the copy as those see it who watch the join: rows of bdr.join_table, totals in bdr.join_state, and lines.

internal import CHost
internal import Membership

struct CopyReport {
    private var stored: [TableProgress] = []
    /// When a table's last line was written, and at what share.
    private var lines: [Int: (time: Int64, percent: Int)] = [:]

    /// Between two lines about the same table, microseconds.
    private static let lineInterval: Int64 = 5_000_000

    /// Stores what has changed since the last call. Inside a transaction.
    mutating func store(_ tables: [CopiedTable], _ progress: [TableProgress]) throws {
        if self.stored.isEmpty {
            try self.begin(tables)
        }
        for (number, (table, now)) in zip(tables, progress).enumerated() {
            let before = number < self.stored.count ? self.stored[number] : TableProgress()
            guard now.rows != before.rows || now.isBegun != before.isBegun || now.isCopied != before.isCopied else {
                continue
            }
            try SQL.query(
                """
                UPDATE bdr.join_table SET rows_copied = $2::pg_catalog.int8, bytes_copied = $3::pg_catalog.int8,
                       copied = $4::pg_catalog.bool, started_time = COALESCE(started_time, pg_catalog.clock_timestamp()),
                       finished_time = CASE WHEN $4::pg_catalog.bool THEN pg_catalog.clock_timestamp() END
                 WHERE table_name = $1
                """, [table.name, String(now.rows), String(now.bytes), now.isCopied ? "t" : "f"])
            try self.line(number, table, before, now, progress)
        }
        self.stored = progress
        try SQL.query(
            """
            UPDATE bdr.join_state SET tables_total = $1::pg_catalog.int4, tables_done = $2::pg_catalog.int4,
                   rows_copied = $3::pg_catalog.int8, bytes_copied = $4::pg_catalog.int8
            """,
            [
                String(tables.count), String(progress.count { $0.isCopied }),
                String(progress.reduce(0) { $0 &+ $1.rows }), String(progress.reduce(0) { $0 &+ $1.bytes }),
            ])
    }

    private func begin(_ tables: [CopiedTable]) throws {
        try SQL.query("DELETE FROM bdr.join_table")
        for table in tables {
            try SQL.query(
                """
                INSERT INTO bdr.join_table (table_name, rows_estimated, size_on_target)
                VALUES ($1, $2::pg_catalog.int8, $3::pg_catalog.int8)
                """, [table.name, table.estimatedRows.map { String($0) }, String(table.size)])
        }
        try JoinRecord.note("copying \(tables.count) tables")
    }

    private mutating func line(
        _ number: Int, _ table: CopiedTable, _ before: TableProgress, _ now: TableProgress, _ all: [TableProgress]
    ) throws {
        if now.isCopied {
            let done = all.count { $0.isCopied }
            return try JoinRecord.note(
                "copied \(table.name): \(now.rows) rows, \(Self.size(now.bytes)) (\(done) of \(all.count) tables)")
        }
        let time = bdr_host_now()
        guard before.isBegun else {
            self.lines[number] = (time, 0)
            return try JoinRecord.note("copying \(table.name), about \(Self.size(table.size))")
        }
        let percent = Self.percent(table, now)
        if let last = self.lines[number], percent == last.percent || time &- last.time < Self.lineInterval {
            return
        }
        self.lines[number] = (time, percent)
        try JoinRecord.note("copying \(table.name): \(now.rows) rows, \(Self.size(now.bytes)) (\(percent) %)")
    }

    /// By rows where the target knows about how many there are, else by bytes; never all before the end.
    private static func percent(_ table: CopiedTable, _ progress: TableProgress) -> Int {
        let (part, whole) =
            if let rows = table.estimatedRows, rows > 0 {
                (progress.rows, rows)
            } else {
                (progress.bytes, table.size)
            }
        guard whole > 0 else {
            return 0
        }
        return min(99, Int(min(1, Double(part) / Double(whole)) * 100))
    }

    private static func size(_ bytes: UInt64) -> String {
        switch bytes {
        case ..<(10 << 10): "\(bytes) bytes"
        case ..<(10 << 20): "\(bytes >> 10) kB"
        case ..<(10 << 30): "\(bytes >> 20) MB"
        default: "\(bytes >> 30) GB"
        }
    }
}
