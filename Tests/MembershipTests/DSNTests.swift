// Connection strings: read as libpq does, and shown without secrets.

import TestSupport
import Testing

@testable import Membership

@Suite struct DSNTests {
    /// Keywords and values as "key=value" in their order.
    static func pairs(_ dsn: String) throws -> [String] {
        try DSN.parse(dsn).map { "\($0.key)=\($0.value)" }
    }

    // MARK: key/value form

    @Test(
        arguments: [
            ("", []), ("  \t\n", []),
            ("host=a", ["host=a"]), ("host=a port=5432 dbname=x", ["host=a", "port=5432", "dbname=x"]),
            ("  host = a   port\t=\n5432  ", ["host=a", "port=5432"]),
            ("host=", ["host="]), ("host='' port=1", ["host=", "port=1"]),
            // libpq takes the next word for the value.
            ("host= port=5", ["host=port=5"]),
            ("dbname='a b'", ["dbname=a b"]), ("dbname='it\\'s' user='a\\\\b'", ["dbname=it's", "user=a\\b"]),
            ("dbname='a\\bc'", ["dbname=abc"]), ("dbname=a\\ b", ["dbname=a b"]), ("dbname=a\\'b", ["dbname=a'b"]),
            ("dbname=a'b'", ["dbname=a'b'"]), ("dbname=a\\", ["dbname=a"]),
            // No space is needed after a closing quote.
            ("host='a'port=5", ["host=a", "port=5"]),
            ("dbname='a=b' options='-c x=y'", ["dbname=a=b", "options=-c x=y"]), ("password=a=b=c", ["password=a=b=c"]),
            ("dbname=größe user=数", ["dbname=größe", "user=数"]),
            ("host=a host=b", ["host=a", "host=b"]), ("nonsense=1", ["nonsense=1"]),
            ("host=/var/run/x,/tmp port=1,2", ["host=/var/run/x,/tmp", "port=1,2"]),
        ] as [(String, [String])])
    func keywords(dsn: String, expected: [String]) throws {
        #expect(try Self.pairs(dsn) == expected)
    }

    @Test(arguments: [
        "host", "host port=1", "=a", " = a", "host=a =b", "host='a", "host='a\\'", "host='", "host='a\\", "'host'=a b",
        "host=a\0b", "\0", "app", "host=a secret words here",
    ])
    func malformedKeywords(dsn: String) throws {
        let error = try #require(throws: MembershipError.self) { try DSN.parse(dsn) }
        #expect(error.sqlstate == "42601")
        #expect(error.message.hasPrefix("invalid connection string: "))
        #expect(throws: MembershipError.self) { try DSN.endpoint(dsn) }
        #expect(DSN.masked(dsn) == "********")
    }

    // MARK: URI form

    @Test(
        arguments: [
            ("postgresql://", []), ("postgres://", []), ("postgresql:///", []), ("postgresql:///?", []),
            ("postgresql://h", ["host=h"]), ("postgres://h:5433/db", ["host=h", "port=5433", "dbname=db"]),
            ("postgresql://u@h", ["user=u", "host=h"]), ("postgresql://u:p@h", ["user=u", "password=p", "host=h"]),
            ("postgresql://u:@h", ["user=u", "host=h"]), ("postgresql://:p@h", ["password=p", "host=h"]),
            ("postgresql://@h", ["host=h"]), ("postgresql://u:a:b@h", ["user=u", "password=a:b", "host=h"]),
            ("postgresql://u:p?q@h", ["user=u", "password=p?q", "host=h"]),
            ("postgresql://h:/db", ["host=h", "dbname=db"]), ("postgresql://:5/db", ["port=5", "dbname=db"]),
            ("postgresql:///db?host=/tmp&port=7", ["dbname=db", "host=/tmp", "port=7"]),
            ("postgresql://h?a=b&c=", ["host=h", "a=b", "c="]), ("postgresql://h?a=b&", ["host=h", "a=b"]),
            ("postgresql://h?sslmode=require", ["host=h", "sslmode=require"]),
            ("postgresql://h?ssl=true", ["host=h", "sslmode=require"]), ("postgresql://h?ssl=1", ["host=h", "ssl=1"]),
            // Several hosts.
            ("postgresql://a:1,b:2/d", ["host=a,b", "port=1,2", "dbname=d"]),
            ("postgresql://a,b", ["host=a,b", "port=,"]),
            ("postgresql://a,b:2", ["host=a,b", "port=,2"]), ("postgresql://,", ["host=,", "port=,"]),
            // IPv6.
            ("postgresql://[::1]", ["host=::1"]), ("postgresql://[::1]:5/d", ["host=::1", "port=5", "dbname=d"]),
            ("postgresql://[::1]:5,[fe80::1%25eth0],c:6", ["host=::1,fe80::1%eth0,c", "port=5,,6"]),
            ("postgresql://u@[::1]?a=b", ["user=u", "host=::1", "a=b"]),
            // What stands before an "@" is user and password, even so.
            ("postgresql://[::1]@h", ["user=[", "password=:1]", "host=h"]),
            // Percent encoding, in every part.
            (
                "postgresql://u%40x:p%3A%2f%40@%2Ftmp%2fs:54%332/a%20b?application%5Fname=%e2%82%ac",
                ["user=u@x", "password=p:/@", "host=/tmp/s", "port=5432", "dbname=a b", "application_name=€"]
            ),
            ("postgresql:///a/b", ["dbname=a/b"]),
        ] as [(String, [String])])
    func uri(dsn: String, expected: [String]) throws {
        #expect(try Self.pairs(dsn) == expected)
    }

    @Test(arguments: [
        "postgresql://[", "postgresql://[::1", "postgresql://[]", "postgresql://[::1]x",
        "postgresql://h?a", "postgresql://h?a&b=c", "postgresql://h?a=b=c", "postgresql://h?&a=b",
        "postgresql://h?a=b&&c=d", "postgresql://h%", "postgresql://h%4", "postgresql://h%4x", "postgresql://h%zz",
        "postgresql://h/%00", "postgresql://u%00@h", "postgresql://u:%@h", "postgresql://h:%3/x", "postgresql:///%e",
        "postgresql://h?%=1", "postgresql://h?a=%a", "postgresql://h%,1", "postgresql://h\0",
    ])
    func malformedURI(dsn: String) throws {
        let error = try #require(throws: MembershipError.self) { try DSN.parse(dsn) }
        #expect(error.sqlstate == "42601")
        #expect(DSN.masked(dsn) == "********")
    }

    /// Schemes are in lower case; anything else is key/value form.
    @Test(arguments: ["PostgreSQL://h", "postgresql:/h", "postgresqls://h", " postgresql://h"])
    func notURI(dsn: String) {
        #expect(throws: MembershipError.self) { try DSN.parse(dsn) }
    }

    // MARK: endpoint

    @Test func endpoints() throws {
        let full = try DSN.endpoint("host=a port=1 user=u dbname=d password=p")
        #expect(full == DSN.Endpoint(host: "a", port: "1", user: "u", dbname: "d"))
        #expect(try DSN.endpoint("") == DSN.Endpoint())
        #expect(try DSN.endpoint("postgresql://u:p@a,b:2/d") == .init(host: "a,b", port: ",2", user: "u", dbname: "d"))
        // The last one counts, also when it is empty.
        #expect(try DSN.endpoint("host=a host=b").host == "b")
        #expect(try DSN.endpoint("host=a host=''").host == nil)
        #expect(try DSN.endpoint("postgresql://a?host=b").host == "b")
        #expect(try DSN.endpoint("hostaddr=10.0.0.1").host == "10.0.0.1")
        #expect(try DSN.endpoint("hostaddr=10.0.0.1 host=a").host == "a")
    }

    // MARK: errors and masks

    static let secret = "S3cr-t"

    /// Wherever the secret stands, and whatever is wrong with the string, no error repeats it.
    @Test(arguments: [
        "password=\(secret) word", "password='\(secret)", "\(secret)", "x=\(secret) \(secret)", "password \(secret)",
        "postgresql://u:\(secret)%@h", "postgresql://u:\(secret)@[h", "postgresql://h?password=\(secret)=1",
        "postgresql://h?\(secret)", "password=\(secret)\0",
    ])
    func errorsHideSecrets(dsn: String) throws {
        let error = try #require(throws: MembershipError.self) { try DSN.parse(dsn) }
        for text in [error.message, error.detail ?? "", error.hint ?? ""] {
            #expect(!text.contains(Self.secret))
        }
        #expect(!DSN.masked(dsn).contains(Self.secret))
    }

    @Test func errorsSayWhere() throws {
        let error = try #require(throws: MembershipError.self) { try DSN.parse("host=a port") }
        #expect(error.message == "invalid connection string: a keyword is not followed by \"=\"")
        #expect(error.detail?.hasPrefix("At byte 8 of the string") == true)
        #expect(error.hint?.contains("host=10.0.0.1 port=5432 dbname=app") == true)
    }

    /// Nothing is secret: shown as it is.
    @Test(arguments: [
        "", "host=a port=5432 dbname='a b' user=u sslmode=require", "  host = a ", "postgresql://u@h:5432/db?sslmode=x",
        "postgresql://", "postgresql://[::1]:5,b/d", "host=/tmp passfile=/x/y sslkey=/k service=s",
        "host=größe", "password=", "postgresql://u:@h", "postgresql://h?password=", "postgresql://h/a%20b",
    ])
    func shownAsItIs(dsn: String) {
        #expect(DSN.masked(dsn) == dsn)
    }

    @Test(arguments: [
        ("host=a password=\(secret)", "host=a password=********"),
        ("password=\(secret) host=a", "password=******** host=a"),
        ("password = \(secret)  host=a", "password = ********  host=a"),
        ("password='\(secret) \\' x' host=a", "password=******** host=a"),
        ("password=\(secret)\\ \(secret) host=a", "password=******** host=a"),
        ("password= \(secret)", "password= ********"), ("password='\(secret)'host=a", "password=********host=a"),
        ("password= host=\(secret)", "password= ********"),
        ("password=\(secret) password=\(secret)2", "password=******** password=********"),
        ("password=''", "password=********"),
        ("sslpassword=\(secret) sslkey=/k", "sslpassword=******** sslkey=/k"),
        (
            "oauth_client_secret=\(secret) scram_client_key=\(secret) scram_server_key=\(secret)",
            "oauth_client_secret=******** scram_client_key=******** scram_server_key=********"
        ),
        ("postgresql://u:\(secret)@h:5/d", "postgresql://u:********@h:5/d"),
        ("postgres://:\(secret)@h", "postgres://:********@h"),
        ("postgresql://u:\(secret):\(secret)@h", "postgresql://u:********@h"),
        ("postgresql://u:%53\(secret)@h", "postgresql://u:********@h"),
        ("postgresql://h?password=\(secret)", "postgresql://h?password=********"),
        ("postgresql://h?sslpassword=\(secret)&port=5", "postgresql://h?sslpassword=********&port=5"),
        ("postgresql://h?pass%77ord=\(secret)", "postgresql://h?pass%77ord=********"),
        (
            "postgresql://u:\(secret)@h/d?password=\(secret)&sslmode=a",
            "postgresql://u:********@h/d?password=********&sslmode=a"
        ),
        // A whole connection string as the name of the database.
        ("dbname='host=a password=\(secret)' port=1", "dbname=******** port=1"),
        ("dbname=postgresql://u:\(secret)@h/d", "dbname=********"),
        ("postgresql://h?dbname=password%3D\(secret)", "postgresql://h?dbname=********"),
        ("postgresql://h/password%3d\(secret)", "postgresql://h/********"),
        // Perhaps a piece of a password: all is hidden.
        ("PASSWORD=\(secret)", "********"), ("passwd=\(secret) host=a", "********"),
        ("password=a \(secret)=b", "********"), ("host=a x=\(secret)", "********"),
        ("postgresql://u:12@\(secret)@h", "********"), ("postgresql://u:\(secret)/x@h/d", "********"),
        ("postgresql://u:12/\(secret)@h/d", "********"), ("postgresql://h:\(secret)/d", "********"),
        ("postgresql://h?\(secret)=1", "********"), ("postgresql://u:a@h/d?user=\(secret)@x", "********"),
        ("postgresql://u:a@\(secret)@", "********"),
    ])
    func masked(dsn: String, expected: String) {
        #expect(DSN.masked(dsn) == expected)
    }

    /// Values of known keywords, put together and quoted at random: the secret never shows, the rest does, and what is
    /// shown is a connection string again.
    @Test func maskedByChance() throws {
        var random = SplitMix64(seed: 9)
        let keywords = ["host", "port", "user", "dbname", "sslmode", "application_name", "options"]
        for _ in 0..<3000 {
            var dsn = ""
            var shown: [String] = []
            for _ in 0..<(random.next() % 5 + 1) {
                let isSecret = random.next() % 3 == 0
                let value = isSecret ? Self.secret + (random.next() % 2 == 0 ? "'\\ =" : "") : "v\(random.next() % 99)"
                let key = (isSecret ? ["password", "sslpassword"] : keywords).randomElement(using: &random) ?? ""
                let isQuoted = random.next() % 2 == 0
                var written = ""
                for character in value {
                    let needsEscape = character == "'" || character == "\\" || (character == " " && !isQuoted)
                    written += (needsEscape ? "\\" : "") + String(character)
                }
                let padding = ["", " ", "\t"].randomElement(using: &random) ?? ""
                dsn += "\(key)\(padding)=\(padding)\(isQuoted ? "'\(written)'" : written) "
                if !isSecret {
                    shown.append("\(key)=\(value)")
                }
            }
            let masked = DSN.masked(dsn)
            #expect(!masked.contains(Self.secret))
            let pairs = try Self.pairs(masked)
            #expect(pairs.filter { !$0.hasSuffix("=********") } == shown)
            #expect(pairs.count == (try Self.pairs(dsn)).count)
        }
    }

    /// Any bytes: an answer, and soon.
    @Test func survivesAnything() {
        var random = SplitMix64(seed: 10)
        let fragments = [
            "postgresql://", "host", "password", "=", "'", "\\", "@", ":", "/", "?", "&", ",", "%", "%41", "[", "]",
            " ", "a", "5", "é", "\0", "dbname",
        ]
        for _ in 0..<20_000 {
            var dsn = random.next() % 2 == 0 ? "postgresql://" : ""
            for _ in 0..<(random.next() % 12) {
                dsn += fragments.randomElement(using: &random) ?? ""
            }
            let isValid = (try? DSN.parse(dsn)) != nil
            let masked = DSN.masked(dsn)
            #expect(isValid || masked == "********")
            #expect((try? DSN.endpoint(dsn)) != nil || !isValid)
        }
    }
}
