// Comparing a table on two nodes: statements for ranges of keys, and what to make of the answers.

/// A column of a table.
public struct CompareColumn: Equatable, Sendable {
    public var name: String
    public var type: String

    public init(name: String, type: String) {
        self.name = name
        self.type = type
    }
}

/// A table with its key columns in their order; without any it can only be compared as a whole.
public struct CompareTable: Equatable, Sendable {
    public var schema: String
    public var name: String
    public var columns: [CompareColumn]
    public var key: [CompareColumn]

    public init(schema: String, name: String, columns: [CompareColumn], key: [CompareColumn]) {
        self.schema = schema
        self.name = name
        self.columns = columns
        self.key = key
    }

    public var qualified: String {
        quotedIdentifier(self.schema) + "." + quotedIdentifier(self.name)
    }

    /// Columns by name: nodes may have them in different orders.
    private var row: String {
        "ROW(" + self.columns.sorted { $0.name < $1.name }.map { Self.column($0) }.joined(separator: ", ")
            + ")::pg_catalog.text"
    }

    private var keyList: String {
        self.key.map { Self.column($0) }.joined(separator: ", ")
    }

    /// With the table's alias: ORDER BY would take a bare name for that of an output column, which is the value as text.
    private static func column(_ column: CompareColumn) -> String {
        "c." + quotedIdentifier(column.name)
    }

    private func values(_ first: Int) -> String {
        self.key.enumerated().map { "$\(first + $0)::\($1.type)" }.joined(separator: ", ")
    }

    /// Condition for keys after `after` and up to `upto`, and its arguments.
    private func range(after: [String]?, upto: [String]?) -> (condition: String, arguments: [String]) {
        var conditions: [String] = []
        var arguments: [String] = []
        if let after {
            conditions.append("(\(self.keyList)) > (\(self.values(arguments.count + 1)))")
            arguments += after
        }
        if let upto {
            conditions.append("(\(self.keyList)) <= (\(self.values(arguments.count + 1)))")
            arguments += upto
        }
        return (conditions.isEmpty ? "" : " WHERE " + conditions.joined(separator: " AND "), arguments)
    }

    /// The key of the last of the next `rows` rows after a key; no row when there are fewer.
    public func boundary(after: [String]?, rows: Int) -> (statement: String, arguments: [String]) {
        let (condition, arguments) = self.range(after: after, upto: nil)
        let keys = self.key.map { Self.column($0) + "::pg_catalog.text" }.joined(separator: ", ")
        return (
            "SELECT \(keys) FROM ONLY \(self.qualified) c\(condition) ORDER BY \(self.keyList) "
                + "OFFSET \(max(1, rows) - 1) LIMIT 1", arguments
        )
    }

    /// Number of rows and checksum, whatever the order of the rows.
    public func checksum(after: [String]?, upto: [String]?) -> (statement: String, arguments: [String]) {
        let (condition, arguments) = self.range(after: after, upto: upto)
        return (
            "SELECT pg_catalog.count(*), COALESCE(pg_catalog.sum(pg_catalog.hashtextextended(\(self.row) COLLATE \"C\", 0)), 0) "
                + "FROM ONLY \(self.qualified) c\(condition)", arguments
        )
    }

    /// Keys, as one text each and column by column, with a digest of the row.
    public func rows(after: [String]?, upto: [String]?) -> (statement: String, arguments: [String]) {
        let (condition, arguments) = self.range(after: after, upto: upto)
        let keys = self.key.map { Self.column($0) + "::pg_catalog.text" }.joined(separator: ", ")
        return (
            "SELECT ROW(\(self.keyList))::pg_catalog.text, pg_catalog.hashtextextended(\(self.row) COLLATE \"C\", 0), \(keys) "
                + "FROM ONLY \(self.qualified) c\(condition)", arguments
        )
    }

    /// The same for one key.
    public func row(key: [String]) -> (statement: String, arguments: [String]) {
        (
            "SELECT pg_catalog.hashtextextended(\(self.row) COLLATE \"C\", 0) FROM ONLY \(self.qualified) c "
                + "WHERE (\(self.keyList)) = (\(self.values(1)))", key
        )
    }
}

/// A row that differs, by its key.
public struct RowDifference: Equatable, Sendable {
    public enum Kind: String, Sendable {
        case onlyFirst = "only on the first"
        case onlySecond = "only on the second"
        case changed = "differs"
    }
    /// The key as one text, for people.
    public var key: String
    /// Its columns.
    public var values: [String]
    public var kind: Kind

    public init(key: String, values: [String], kind: Kind) {
        self.key = key
        self.values = values
        self.kind = kind
    }
}

/// A row as `CompareTable.rows` gives it.
public struct RowDigest: Equatable, Sendable {
    public var key: String
    public var digest: String
    public var values: [String]

    public init(key: String, digest: String, values: [String]) {
        self.key = key
        self.digest = digest
        self.values = values
    }
}

/// Rows that are on one side only, or not the same; in the order of the first side, then of the second.
public func differences(_ first: [RowDigest], _ second: [RowDigest]) -> [RowDifference] {
    var others: [String: RowDigest] = [:]
    for row in second {
        others[row.key] = row
    }
    var result: [RowDifference] = []
    var seen: Set<String> = []
    for row in first {
        seen.insert(row.key)
        if let other = others[row.key] {
            if other.digest != row.digest {
                result.append(RowDifference(key: row.key, values: row.values, kind: .changed))
            }
        } else {
            result.append(RowDifference(key: row.key, values: row.values, kind: .onlyFirst))
        }
    }
    for row in second where !seen.contains(row.key) {
        result.append(RowDifference(key: row.key, values: row.values, kind: .onlySecond))
    }
    return result
}

/// Where a comparison is, to go on from there: lines of fields that are separated by tabs.
public struct CompareState: Equatable, Sendable {
    /// Which nodes; a state of others is of no use.
    public var nodes: [String]
    /// Tables that are done, with the number of differing rows.
    public var done: [String: Int] = [:]
    /// The table that is being compared, the last key that was, and how many rows differed.
    public var table: String?
    public var after: [String] = []
    public var differing = 0

    public init(nodes: [String]) {
        self.nodes = nodes
    }

    public func rendered() -> String {
        var lines = [(["nodes"] + self.nodes)]
        lines += self.done.sorted { $0.key < $1.key }.map { ["done", $0.key, String($0.value)] }
        if let table = self.table {
            lines.append(["at", table, String(self.differing)] + self.after)
        }
        return lines.map { $0.map(Self.escaped).joined(separator: "\t") + "\n" }.joined()
    }

    public init(parsing text: String) throws(OperationsError) {
        self.nodes = []
        for line in text.split(separator: "\n") {
            let fields = line.split(separator: "\t", omittingEmptySubsequences: false).map { Self.unescaped($0) }
            switch fields[0] {
            case "nodes":
                self.nodes = Array(fields.dropFirst())
            case "done" where fields.count == 3:
                self.done[fields[1]] = Int(fields[2]) ?? 0
            case "at" where fields.count >= 4:
                self.table = fields[1]
                self.differing = Int(fields[2]) ?? 0
                self.after = Array(fields.dropFirst(3))
            default:
                throw OperationsError("the file is no state of a comparison")
            }
        }
        guard !self.nodes.isEmpty else {
            throw OperationsError("the file is no state of a comparison")
        }
    }

    private static func escaped(_ text: String) -> String {
        var result = ""
        for character in text.unicodeScalars {
            switch character {
            case "\\": result += "\\\\"
            case "\t": result += "\\t"
            case "\n": result += "\\n"
            default: result.unicodeScalars.append(character)
            }
        }
        return result
    }

    private static func unescaped(_ text: Substring) -> String {
        var result = ""
        var escape = false
        for character in text.unicodeScalars {
            if escape {
                switch character {
                case "t": result += "\t"
                case "n": result += "\n"
                default: result.unicodeScalars.append(character)
                }
                escape = false
            } else if character == "\\" {
                escape = true
            } else {
                result.unicodeScalars.append(character)
            }
        }
        return result
    }
}

public func quotedIdentifier(_ name: String) -> String {
    "\"" + name.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"") + "\""
}

public func quotedLiteral(_ text: String) -> String {
    let backslash = text.contains("\\")
    let quoted = text.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "''")
    guard backslash else {
        return "'\(quoted)'"
    }
    return "E'" + quoted.split(separator: "\\", omittingEmptySubsequences: false).joined(separator: "\\\\") + "'"
}
