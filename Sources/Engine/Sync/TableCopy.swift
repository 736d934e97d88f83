// The rows of many tables, copied by several sessions of this node at once. They fetch rows that are copied as they are stored
// from the join target themselves; others pass through here, from a session there. All see the same snapshot; large tables are
// copied in pieces, so that one of them keeps all sessions busy, too.

internal import CHost
internal import Membership
internal import Wire

/// A table to copy; names are quoted.
struct CopiedTable {
    /// With its schema.
    var name: String
    /// Those that hold data, separated by commas.
    var columns: String
    var binary: Bool
    /// Its rows lie in partitions.
    var isPartitioned: Bool
    /// Blocks of the table itself; 0 when it can't be read by blocks.
    var blocks: UInt64
    /// Bytes on the target's disk, indexes left out.
    var size: UInt64
    /// Rows by the target's statistics; nil when it has none.
    var estimatedRows: UInt64?

    /// Names and types of the columns; nil when rows can't be copied as they are stored.
    var rawLayout: String?
    /// Rows are copied as they are stored: both tables have that layout.
    var isRaw = false
    /// What gives the columns: timestamps of columns are completed where it is known who wrote the row.
    var selected: String

    /// What COPY ... TO reads: on the join target or, where rows are copied as they are stored, on this node.
    func source(_ range: Range<UInt64>?) throws -> String {
        if self.isRaw {
            let end = range.map { $0.upperBound >= self.blocks ? -1 : Int64(clamping: $0.upperBound) } ?? -1
            return "(SELECT bdr.internal_fetch_rows(\(try SQL.quoteLiteral(self.name)), \(range?.lowerBound ?? 0), \(end)))"
        }
        guard let range else {
            return self.isPartitioned || self.selected != self.columns
                ? "(SELECT \(self.selected) FROM \(self.isPartitioned ? "" : "ONLY ")\(self.name))" : self.target
        }
        // what was added since the table was measured belongs to the last piece
        let end = range.upperBound >= self.blocks ? "" : " AND ctid < '(\(range.upperBound),0)'"
        return "(SELECT \(self.selected) FROM ONLY \(self.name) WHERE ctid >= '(\(range.lowerBound),0)'\(end))"
    }

    /// What COPY ... FROM writes.
    var target: String {
        return self.columns.isEmpty ? self.name : "\(self.name) (\(self.columns))"
    }

    /// Rows of tables that have the same layout here are copied as they are stored.
    static func compareLayouts(_ tables: inout [CopiedTable], local: Connection) throws {
        let rows = try local.query(
            """
            SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), \(self.layout)
              FROM pg_catalog.pg_class c
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
             WHERE c.relkind = 'r'
             GROUP BY c.oid, n.nspname, c.relname
            """)
        var here: [String: String] = [:]
        for row in 0..<rows.count {
            if let name = rows[row, 0], let layout = rows[row, 1] {
                here[name] = layout
            }
        }
        for number in tables.indices {
            if let layout = tables[number].rawLayout {
                tables[number].isRaw = here[tables[number].name] == layout
            }
        }
    }

    /// Null where a row may have another form than the columns say: a column was dropped, is generated, or was added later.
    private static let layout = """
        CASE WHEN pg_catalog.bool_and(NOT a.attisdropped AND a.attgenerated = '' AND NOT a.atthasmissing
                                      AND a.atttypid < 16384)
             THEN pg_catalog.string_agg(a.atttypid || ' ' || pg_catalog.quote_ident(a.attname), ',' ORDER BY a.attnum) END
        """

    /// Ordinary tables that are not part of an extension, the largest first, with the columns that hold data.
    /// - Parameter partitions: those of partitioned tables, one by one; else partitioned tables as a whole, which may be
    ///   partitioned otherwise here.
    static func list(of target: Connection, partitions: Bool) throws -> [CopiedTable] {
        let rows = try target.query(
            """
            SELECT pg_catalog.quote_ident(n.nspname), pg_catalog.quote_ident(c.relname),
                   pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum),
                   COALESCE(pg_catalog.bool_and(
                       t.oid < 16384 AND t.typsend <> 0 AND t.typreceive <> 0 AND t.typtype IN ('b', 'r', 'm')
                       AND t.oid::pg_catalog.regtype::pg_catalog.text !~ '^(pg_catalog[.])?reg|^aclitem|^record'), true),
                   c.relkind = 'p' AND pg_catalog.count(a.attnum) > 0,
                   CASE WHEN c.relkind = 'r' AND m.amname = 'heap' AND pg_catalog.count(a.attnum) > 0
                        THEN pg_catalog.pg_relation_size(c.oid)
                             / pg_catalog.current_setting('block_size')::pg_catalog.int8
                        ELSE 0 END,
                   CASE WHEN c.relkind = 'p'
                        THEN (SELECT pg_catalog.sum(pg_catalog.pg_table_size(relid))
                                FROM pg_catalog.pg_partition_tree(c.oid))
                        ELSE pg_catalog.pg_table_size(c.oid) END::pg_catalog.int8 AS size,
                   CASE WHEN c.reltuples >= 0 THEN c.reltuples::pg_catalog.int8 END,
                   CASE WHEN c.relkind = 'r' AND m.amname = 'heap'
                             AND COALESCE(pg_catalog.pg_relation_size(NULLIF(c.reltoastrelid, 0)), 0) = 0
                        THEN (SELECT \(self.layout) FROM pg_catalog.pg_attribute a
                               WHERE a.attrelid = c.oid AND a.attnum > 0) END,
                   ARRAY(SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0),
                   pg_catalog.string_agg(CASE WHEN t.typname = 'column_timestamps'
                                                   AND t.typnamespace = 'bdr'::pg_catalog.regnamespace
                                              THEN 'bdr.column_timestamps_resolve(' || pg_catalog.quote_ident(a.attname) || ', xmin)'
                                              ELSE pg_catalog.quote_ident(a.attname) END, ', ' ORDER BY a.attnum)
              FROM pg_catalog.pg_class c
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam
              LEFT JOIN pg_catalog.pg_attribute a
                ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
              LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
             WHERE \(partitions ? "c.relkind = 'r'" : "c.relkind IN ('r', 'p') AND NOT c.relispartition")
               AND c.relpersistence IN ('p', 'u')
               AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'bdr')
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                                WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                                  AND d.deptype = 'e')
             GROUP BY c.oid, n.nspname, c.relname, m.amname
             ORDER BY size DESC NULLS LAST, c.oid
            """)
        return (0..<rows.count).map { row in
            CopiedTable(
                name: "\(rows[row, 0] ?? "").\(rows[row, 1] ?? "")", columns: rows[row, 2] ?? "",
                binary: rows[row, 3] == "t", isPartitioned: rows[row, 4] == "t",
                blocks: rows[row, 5].flatMap { UInt64($0) } ?? 0, size: rows[row, 6].flatMap { UInt64($0) } ?? 0,
                estimatedRows: rows[row, 7].flatMap { UInt64($0) },
                rawLayout: self.areRawSafe(rows[row, 9] ?? "") ? rows[row, 8] : nil, selected: rows[row, 10] ?? "")
        }
    }
}

extension CopiedTable {
    /// - Parameter types: an array of OIDs as text.
    private static func areRawSafe(_ types: String) -> Bool {
        let encoding = String(cString: bdr_host_encoding_name())
        let oids = types.filter { $0 != "{" && $0 != "}" }.split(separator: ",")
        return (encoding == "UTF8" || encoding == "SQL_ASCII") && !oids.isEmpty
            && oids.allSatisfy { UInt32($0).map { RawLayout.isRawSafe(builtinType: $0) } ?? false }
    }
}

/// How far the copy of one table is.
struct TableProgress {
    var rows: UInt64 = 0
    var bytes: UInt64 = 0
    var isBegun = false
    var isCopied = false
}

struct TableCopy {
    let tables: [CopiedTable]
    /// Opens one more session that sees the snapshot.
    let openReader: () throws -> Connection
    /// Opens one more session that writes here; the number tells them apart.
    let openWriter: (Int) throws -> Connection
    /// Has a session that writes here connect to the join target.
    let openFetch: (Connection) throws -> Void
    /// What a writer runs between BEGIN and COPY.
    let begin: String
    /// Sessions that write, at most.
    let workers: Int

    /// Blocks of a piece: 32 MB, so that pieces are worth their transaction and the last ones end at about the same time.
    private static let pieceBlocks: UInt64 = 4096
    /// How often the progress is reported while nothing ends, milliseconds.
    private static let reportInterval: Int32 = 1000

    private struct Piece {
        var table: Int
        var blocks: Range<UInt64>?
    }

    private final class Pair {
        let writer: Connection
        /// For rows that the writer can't fetch.
        var reader: Connection?
        var canFetch = false
        var piece: Piece?
        var copy: OpaquePointer?

        init(writer: Connection, reader: Connection?) {
            self.writer = writer
            self.reader = reader
        }

        deinit {
            bdr_host_copy_free(self.copy)
        }

        var progress: (rows: UInt64, bytes: UInt64) {
            var rows: UInt64 = 0
            var bytes: UInt64 = 0
            bdr_host_copy_progress(self.copy, &rows, &bytes)
            return (rows, bytes)
        }
    }

    /// - Parameters:
    ///   - reader: the first one.
    ///   - report: gets the progress of all tables, in their order, about once a second and whenever one begins or ends.
    /// - Throws: `RemoteError` of the side that failed; what was committed until then stays.
    func run(reader: Connection, _ report: ([TableProgress]) throws -> Void) throws {
        var pieces = self.pieces()
        var open = [Int](repeating: 0, count: self.tables.count)
        for piece in pieces {
            open[piece.table] += 1
        }
        // rows of pieces that are committed
        var done = [TableProgress](repeating: TableProgress(), count: self.tables.count)
        var pairs: [Pair] = []
        var wanted = max(1, min(self.workers, pieces.count))
        pieces.reverse()

        func current() -> [TableProgress] {
            var all = done
            for pair in pairs {
                if let piece = pair.piece {
                    let (rows, bytes) = pair.progress
                    all[piece.table].rows &+= rows
                    all[piece.table].bytes &+= bytes
                }
            }
            return all
        }

        while true {
            while !pieces.isEmpty && pairs.count < wanted && pairs.allSatisfy({ $0.piece != nil }) {
                do {
                    let writer = try self.openWriter(pairs.count)
                    let pair = Pair(writer: writer, reader: pairs.isEmpty ? reader : nil)
                    try self.beginNext(&pieces, on: pair, &done)
                    pairs.append(pair)
                } catch let error as BdrError where !pairs.isEmpty && SQLState.isTransient(error.sqlstate) {
                    // one of the servers has no more connections to give: go on with those there are
                    wanted = pairs.count
                }
            }
            for pair in pairs where pair.piece == nil && !pieces.isEmpty {
                do {
                    try self.beginNext(&pieces, on: pair, &done)
                } catch let error as BdrError
                    where pairs.contains(where: { $0.piece != nil }) && SQLState.isTransient(error.sqlstate)
                {
                    pairs.removeAll { $0 === pair }
                    wanted = pairs.count
                }
            }
            guard pairs.contains(where: { $0.piece != nil }) else {
                return
            }
            try report(current())
            try self.moveOn(pairs, &done, &open)
            try report(current())
        }
    }

    private func pieces() -> [Piece] {
        var pieces: [Piece] = []
        for (number, table) in self.tables.enumerated() {
            guard table.blocks > Self.pieceBlocks else {
                pieces.append(Piece(table: number, blocks: nil))
                continue
            }
            var start: UInt64 = 0
            while start < table.blocks {
                let end = min(table.blocks, start + Self.pieceBlocks)
                pieces.append(Piece(table: number, blocks: start..<end))
                start = end
            }
        }
        return pieces
    }

    /// - Throws: `BdrError` when there is no connection for the next piece, which then stays where it is.
    private func beginNext(_ pieces: inout [Piece], on pair: Pair, _ done: inout [TableProgress]) throws {
        guard let piece = pieces.last, piece.table < self.tables.count else {
            return
        }
        let table = self.tables[piece.table]
        if table.isRaw && !pair.canFetch {
            try self.openFetch(pair.writer)
            pair.canFetch = true
        } else if !table.isRaw && pair.reader == nil {
            pair.reader = try self.openReader()
        }
        pieces.removeLast()
        done[piece.table].isBegun = true
        try pair.writer.query("BEGIN")
        try pair.writer.query(self.begin)
        bdr_host_copy_free(pair.copy)
        pair.copy = nil
        var copy: OpaquePointer?
        var failed: OpaquePointer?
        let source = try table.source(piece.blocks)
        let status =
            if table.isRaw {
                try host(bdr_host_copy_begin(pair.writer.raw, "COPY \(source) TO STDOUT", nil, nil, &copy, &failed))
            } else {
                try host(
                    bdr_host_copy_begin(
                        pair.reader?.raw, "COPY \(source) TO STDOUT (FORMAT \(table.binary ? "binary" : "text"))",
                        pair.writer.raw, "COPY \(table.target) FROM STDIN (FORMAT \(table.binary ? "binary" : "text"))",
                        &copy, &failed))
            }
        pair.copy = copy
        pair.piece = piece
        if status != BDR_OK {
            throw self.error(of: pair, failed)
        }
    }

    private func error(of pair: Pair, _ failed: OpaquePointer?) -> RemoteError {
        if let reader = pair.reader, failed == reader.raw {
            return reader.lastError
        }
        return pair.writer.lastError
    }

    /// Moves rows until a piece has ended or it is time to report.
    private func moveOn(_ pairs: [Pair], _ done: inout [TableProgress], _ open: inout [Int]) throws {
        let busy = pairs.filter { $0.piece != nil }
        let copies = busy.map { $0.copy }
        var finished: Int32 = -1
        var failed: OpaquePointer?
        let status = try copies.withUnsafeBufferPointer { copies in
            try host(
                bdr_host_copy_pump(
                    copies.baseAddress, Int32(clamping: copies.count), Self.reportInterval, &finished, &failed))
        }
        guard finished >= 0, Int(finished) < busy.count, let piece = busy[Int(finished)].piece else {
            if status != BDR_OK {
                throw BdrError(SQLSTATE.internalError, "a copy failed without saying where")
            }
            return
        }
        let pair = busy[Int(finished)]
        if status != BDR_OK {
            throw self.error(of: pair, failed)
        }
        let (rows, bytes) = pair.progress
        try pair.writer.query("COMMIT")
        done[piece.table].rows &+= rows
        done[piece.table].bytes &+= bytes
        open[piece.table] -= 1
        done[piece.table].isCopied = open[piece.table] == 0
        pair.piece = nil
    }
}
