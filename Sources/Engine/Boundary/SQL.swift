// SQL inside this backend (SPI) and on another server (libpq), with text results.

internal import CHost

/// Rows of a statement as text. Owns the host's copy of them.
final class Rows {
    private var result: OpaquePointer?

    init(adopting result: OpaquePointer?) {
        self.result = result
    }

    deinit {
        bdr_host_sql_free(self.result)
    }

    /// Gives the host's copy away: to C, which then frees it.
    func release() -> OpaquePointer? {
        let result = self.result
        self.result = nil
        return result
    }

    var count: Int { Int(bdr_host_sql_rows(self.result)) }
    var processed: UInt64 { bdr_host_sql_processed(self.result) }

    /// The value as text; nil for SQL NULL and outside the result.
    subscript(row: Int, column: Int) -> String? {
        guard let value = bdr_host_sql_value(self.result, Int32(clamping: row), Int32(clamping: column)) else {
            return nil
        }
        return String(cString: value)
    }
}

/// Calls `body` with the arguments as C strings (nil = SQL NULL), valid during the call.
func withCStrings<R>(_ strings: [String?], _ body: (UnsafePointer<UnsafePointer<CChar>?>?) throws -> R) rethrows -> R {
    var storage: [CChar] = []
    var offsets: [Int?] = []
    for string in strings {
        if let string {
            offsets.append(storage.count)
            for byte in string.utf8 {
                storage.append(CChar(bitPattern: byte))
            }
            storage.append(0)
        } else {
            offsets.append(nil)
        }
    }
    return try storage.withUnsafeBufferPointer { bytes in
        var pointers: [UnsafePointer<CChar>?] = []
        for offset in offsets {
            if let offset, let base = bytes.baseAddress {
                pointers.append(base + offset)
            } else {
                pointers.append(nil)
            }
        }
        pointers.append(nil)
        return try pointers.withUnsafeBufferPointer { try body($0.baseAddress) }
    }
}

enum SQL {
    /// Runs one statement through SPI, inside the current transaction. Arguments are text: write `$1::int` and so on.
    @discardableResult
    static func query(_ sql: String, _ arguments: [String?] = []) throws -> Rows {
        var result: OpaquePointer?
        try withCStrings(arguments) { pointers in
            _ = try host(bdr_host_sql(sql, Int32(clamping: arguments.count), pointers, &result))
        }
        return Rows(adopting: result)
    }

    static func quoteIdentifier(_ name: String) throws -> String {
        guard let quoted = bdr_host_quote_identifier(name) else { throw HostError() }
        return String(cString: quoted)
    }

    static func quoteLiteral(_ text: String) throws -> String {
        guard let quoted = bdr_host_quote_literal(text) else { throw HostError() }
        return String(cString: quoted)
    }
}

enum Transaction {
    /// Runs `body` in a transaction of its own (background workers only) and commits it. On an error nothing is ended here:
    /// the worker ends with the error, and the server aborts the transaction.
    static func run<R>(_ body: () throws -> R) throws -> R {
        try host(bdr_host_xact_begin())
        let result = try body()
        try host(bdr_host_xact_commit())
        return result
    }
}
