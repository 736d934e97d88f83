// Connection strings as libpq reads them, in key/value and URI form: what they point at, and how to show them to people who
// must not see passwords.

/// Connection strings. Nothing here puts any part of a string into an error message: a typing error easily turns a piece of
/// a password into what looks like a keyword.
public enum DSN {
    /// Where a connection string leads; nil where it leaves the choice to libpq.
    public struct Endpoint: Equatable, Sendable {
        /// Host name, address or socket directory; several are separated by commas.
        public var host: String?
        /// Port number, or several separated by commas.
        public var port: String?
        public var user: String?
        public var dbname: String?
    }

    /// Splits a connection string into keywords and values, in their order. Of several with one keyword libpq takes the
    /// last. Keywords are not checked against those that libpq knows.
    /// - Throws: `MembershipError` when libpq would not accept the form of the string.
    public static func parse(_ dsn: String) throws(MembershipError) -> [(key: String, value: String)] {
        try self.entries(of: Array(dsn.utf8)).map { ($0.key, String(decoding: $0.value, as: UTF8.self)) }
    }

    /// Where a connection string leads.
    /// - Throws: `MembershipError` when libpq would not accept the form of the string.
    public static func endpoint(_ dsn: String) throws(MembershipError) -> Endpoint {
        var values: [String: String] = [:]
        for (key, value) in try self.parse(dsn) {
            values[key] = value.isEmpty ? nil : value
        }
        return Endpoint(
            host: values["host"] ?? values["hostaddr"], port: values["port"], user: values["user"],
            dbname: values["dbname"])
    }

    /// The string with asterisks for the values of secrets.
    ///
    /// A string that libpq would refuse, and one in which a secret might have spilled over into something else (an
    /// unknown keyword, an "@" that is not encoded in a URI, a port that is no number), comes out as asterisks alone.
    public static func masked(_ dsn: String) -> String {
        let bytes = Array(dsn.utf8)
        guard let entries = try? self.entries(of: bytes) else {
            return self.mask
        }
        var result: [UInt8] = []
        var shown = 0
        for entry in entries.sorted(by: { $0.range.lowerBound < $1.range.lowerBound }) {
            guard !entry.isSuspicious, self.harmless.contains(entry.key) || self.secrets.contains(entry.key) else {
                return self.mask
            }
            // libpq takes a database name that looks like a connection string for one, in some calls.
            let isNested =
                entry.key == "dbname"
                && (self.uriStart(of: entry.value) != nil || entry.value.contains(Ascii.equals))
            if isNested || self.secrets.contains(entry.key), !entry.range.isEmpty {
                guard shown <= entry.range.lowerBound else {
                    return self.mask
                }
                result += bytes[shown..<entry.range.lowerBound]
                result += self.mask.utf8
                shown = entry.range.upperBound
            }
        }
        result += bytes[shown...]
        return String(decoding: result, as: UTF8.self)
    }

    private static let mask = "********"

    private static let secrets: Set<String> = [
        "password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key",
    ]

    /// All other keywords of libpq 15 to 18, and old ones that it still takes.
    private static let harmless: Set<String> = [
        "application_name", "authtype", "channel_binding", "client_encoding", "connect_timeout", "dbname",
        "fallback_application_name", "gssdelegation", "gssencmode", "gsslib", "host", "hostaddr", "keepalives",
        "keepalives_count", "keepalives_idle", "keepalives_interval", "krbsrvname", "load_balance_hosts",
        "max_protocol_version", "min_protocol_version", "oauth_client_id", "oauth_issuer", "oauth_scope", "options",
        "passfile", "port", "replication", "require_auth", "requirepeer", "requiressl", "service", "servicefile",
        "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcertmode", "sslcompression", "sslcrl",
        "sslcrldir", "sslkey", "sslkeylogfile", "sslmode", "sslnegotiation", "sslrootcert", "sslsni",
        "target_session_attrs", "tcp_user_timeout", "tty", "user",
    ]

    /// One keyword with its value.
    private struct Entry {
        var key: String
        /// Unquoted or decoded.
        var value: [UInt8]
        /// Where the value stands in the string, quotes included.
        var range: Range<Int>
        /// May be a piece of something else.
        var isSuspicious = false
    }

    private enum Ascii {
        static let equals = UInt8(ascii: "=")
        static let quote = UInt8(ascii: "'")
        static let backslash = UInt8(ascii: "\\")
        static let at = UInt8(ascii: "@")
        static let colon = UInt8(ascii: ":")
        static let slash = UInt8(ascii: "/")
        static let question = UInt8(ascii: "?")
        static let ampersand = UInt8(ascii: "&")
        static let comma = UInt8(ascii: ",")
        static let percent = UInt8(ascii: "%")
        static let open = UInt8(ascii: "[")
        static let close = UInt8(ascii: "]")
    }

    private static func malformed(_ what: String, at offset: Int) -> MembershipError {
        MembershipError(
            sqlstate: "42601", message: "invalid connection string: \(what)",
            detail: "At byte \(offset + 1) of the string, which is not shown as it may contain a password.",
            hint: "Write it as libpq expects, for example \"host=10.0.0.1 port=5432 dbname=app\" "
                + "or \"postgresql://10.0.0.1:5432/app\"; a value with spaces needs single quotes around it.")
    }

    private static func entries(of bytes: [UInt8]) throws(MembershipError) -> [Entry] {
        if let zero = bytes.firstIndex(of: 0) {
            throw self.malformed("it contains a zero byte", at: zero)
        }
        if let start = self.uriStart(of: bytes) {
            return try self.uriEntries(of: bytes, from: start)
        }
        return try self.keywordEntries(of: bytes)
    }

    /// Where the part after the scheme begins, nil when the string is no URI.
    private static func uriStart(of bytes: [UInt8]) -> Int? {
        for scheme in ["postgresql://", "postgres://"] where bytes.starts(with: scheme.utf8) {
            return scheme.utf8.count
        }
        return nil
    }

    // MARK: key/value form

    /// What C's isspace() says in the C locale.
    private static func isSpace(_ byte: UInt8) -> Bool {
        byte == 0x20 || (0x09...0x0d).contains(byte)
    }

    private static func keywordEntries(of bytes: [UInt8]) throws(MembershipError) -> [Entry] {
        var entries: [Entry] = []
        var position = 0
        func skipSpaces() {
            while position < bytes.count, self.isSpace(bytes[position]) {
                position += 1
            }
        }
        while true {
            skipSpaces()
            guard position < bytes.count else {
                return entries
            }
            let nameStart = position
            while position < bytes.count, bytes[position] != Ascii.equals, !self.isSpace(bytes[position]) {
                position += 1
            }
            let name = bytes[nameStart..<position]
            skipSpaces()
            guard position < bytes.count, bytes[position] == Ascii.equals else {
                throw self.malformed("a keyword is not followed by \"=\"", at: nameStart)
            }
            guard !name.isEmpty else {
                throw self.malformed("\"=\" without a keyword", at: position)
            }
            position += 1
            skipSpaces()
            let valueStart = position
            var value: [UInt8] = []
            if position < bytes.count, bytes[position] == Ascii.quote {
                position += 1
                while true {
                    guard position < bytes.count else {
                        throw self.malformed("a quoted value does not end", at: valueStart)
                    }
                    let byte = bytes[position]
                    position += 1
                    if byte == Ascii.quote {
                        break
                    }
                    if byte != Ascii.backslash {
                        value.append(byte)
                    } else if position < bytes.count {
                        value.append(bytes[position])
                        position += 1
                    }
                }
            } else {
                while position < bytes.count, !self.isSpace(bytes[position]) {
                    if bytes[position] == Ascii.backslash {
                        position += 1
                        guard position < bytes.count else {
                            break
                        }
                    }
                    value.append(bytes[position])
                    position += 1
                }
            }
            entries.append(
                Entry(key: String(decoding: name, as: UTF8.self), value: value, range: valueStart..<position))
        }
    }

    // MARK: URI form

    private static func uriEntries(of bytes: [UInt8], from start: Int) throws(MembershipError) -> [Entry] {
        var entries: [Entry] = []
        var position = start
        /// The next byte, nil at the end.
        func next() -> UInt8? {
            position < bytes.count ? bytes[position] : nil
        }
        /// Goes on to the first of `stops`, or the end; returns what was passed.
        func pass(until stops: [UInt8]) -> Range<Int> {
            let from = position
            while position < bytes.count, !stops.contains(bytes[position]) {
                position += 1
            }
            return from..<position
        }

        // user[:password]@, when there is an "@" before the first "/".
        _ = pass(until: [Ascii.at, Ascii.slash])
        if next() == Ascii.at {
            let end = position
            position = start
            let user = pass(until: [Ascii.colon, Ascii.at])
            if !user.isEmpty {
                entries.append(Entry(key: "user", value: try self.decoded(bytes, user), range: user))
            }
            if next() == Ascii.colon, position + 1 < end {
                let password = (position + 1)..<end
                entries.append(Entry(key: "password", value: try self.decoded(bytes, password), range: password))
            }
            position = end + 1
        } else {
            position = start
        }

        // host[:port], separated by commas.
        let netloc = position
        var hosts: [UInt8] = []
        var ports: [UInt8] = []
        while true {
            if next() == Ascii.open {
                position += 1
                let host = pass(until: [Ascii.close])
                guard next() != nil else {
                    throw self.malformed("an IPv6 address has no \"]\"", at: host.lowerBound)
                }
                guard !host.isEmpty else {
                    throw self.malformed("an IPv6 address is empty", at: host.lowerBound)
                }
                hosts += try self.decoded(bytes, host)
                position += 1
                if let byte = next(), ![Ascii.colon, Ascii.slash, Ascii.question, Ascii.comma].contains(byte) {
                    throw self.malformed("an IPv6 address is followed by something else than \":\" or \"/\"", at: position)
                }
            } else {
                hosts += try self.decoded(bytes, pass(until: [Ascii.colon, Ascii.slash, Ascii.question, Ascii.comma]))
            }
            if next() == Ascii.colon {
                position += 1
                ports += try self.decoded(bytes, pass(until: [Ascii.slash, Ascii.question, Ascii.comma]))
            }
            guard next() == Ascii.comma else {
                break
            }
            position += 1
            hosts.append(Ascii.comma)
            ports.append(Ascii.comma)
        }
        // A second "@", or a port that is no number: user name and password were not encoded, and landed elsewhere.
        let isPort = { (byte: UInt8) in (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || byte == Ascii.comma }
        let isSuspicious = bytes[netloc...].contains(Ascii.at) || !ports.allSatisfy(isPort)
        for (key, value) in [("host", hosts), ("port", ports)] where !value.isEmpty {
            entries.append(Entry(key: key, value: value, range: netloc..<position, isSuspicious: isSuspicious))
        }

        if next() == Ascii.slash {
            position += 1
            let dbname = pass(until: [Ascii.question])
            if !dbname.isEmpty {
                entries.append(
                    Entry(
                        key: "dbname", value: try self.decoded(bytes, dbname), range: dbname,
                        isSuspicious: isSuspicious))
            }
        }
        if next() == Ascii.question {
            position += 1
        }
        while next() != nil {
            let key = pass(until: [Ascii.equals, Ascii.ampersand])
            guard next() == Ascii.equals else {
                throw self.malformed("a parameter of the URI has no \"=\"", at: key.lowerBound)
            }
            position += 1
            let value = pass(until: [Ascii.equals, Ascii.ampersand])
            guard next() != Ascii.equals else {
                throw self.malformed("a parameter of the URI has more than one \"=\"", at: key.lowerBound)
            }
            var name = String(decoding: try self.decoded(bytes, key), as: UTF8.self)
            var text = try self.decoded(bytes, value)
            if name == "ssl", text.elementsEqual("true".utf8) {
                // As JDBC writes it.
                name = "sslmode"
                text = Array("require".utf8)
            }
            entries.append(Entry(key: name, value: text, range: value, isSuspicious: isSuspicious))
            if next() == Ascii.ampersand {
                position += 1
            }
        }
        return entries
    }

    /// Replaces %XX by the byte.
    private static func decoded(_ bytes: [UInt8], _ range: Range<Int>) throws(MembershipError) -> [UInt8] {
        func digit(at index: Int) -> UInt8? {
            guard range.contains(index) else {
                return nil
            }
            return switch bytes[index] {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): bytes[index] - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): bytes[index] - UInt8(ascii: "a") + 10
            case UInt8(ascii: "A")...UInt8(ascii: "F"): bytes[index] - UInt8(ascii: "A") + 10
            default: nil
            }
        }
        var result: [UInt8] = []
        var index = range.lowerBound
        while index < range.upperBound {
            guard bytes[index] == Ascii.percent else {
                result.append(bytes[index])
                index += 1
                continue
            }
            guard let high = digit(at: index + 1), let low = digit(at: index + 2) else {
                throw self.malformed("\"%\" is not followed by two hexadecimal digits", at: index)
            }
            guard high | low != 0 else {
                throw self.malformed("\"%00\" is not allowed", at: index)
            }
            result.append(high << 4 | low)
            index += 3
        }
        return result
    }
}
