// PostgreSQL's own client programs, run by the join worker.

internal import CHost
internal import Membership

enum Program {
    /// Runs a program beside this server's own, to its end.
    /// - Throws: external_routine_exception with the end of its output when it fails.
    static func run(_ name: String, _ arguments: [String], _ environment: [String]) throws {
        var output: UnsafeMutablePointer<CChar>?
        let status = try withCStrings([name] + arguments) { argv in
            try withCStrings(environment + ["PGCONNECT_TIMEOUT=30", "LC_ALL=C"]) { variables in
                try host(bdr_host_run_program(name, argv, variables, &output))
            }
        }
        let text = output.map { String(cString: $0) } ?? ""
        bdr_host_free(output)
        guard status == 0 else {
            throw BdrError(
                SQLSTATE.externalRoutineException, "\(name) failed with status \(status)",
                detail: text.isEmpty ? nil : text)
        }
    }
}

/// A connection string for a program's command line, which everybody on the machine can read: passwords go into its
/// environment instead, and what has no variable there into a file.
struct ProgramDSN {
    let text: String
    let environment: [String]
    private let file: TemporaryFile?

    /// - Parameter options: settings of the session.
    init(_ dsn: String, options: [String]) throws {
        var entries = try DSN.parse(dsn)
        var environment: [String] = []
        if let password = entries.last(where: { $0.key == "password" })?.value {
            environment.append("PGPASSWORD=\(password)")
            entries.removeAll { $0.key == "password" }
        }
        if let secret = entries.last(where: { $0.key == "sslpassword" })?.value {
            guard !entries.contains(where: { $0.key == "service" }), !secret.contains(where: \.isNewline),
                secret.last?.isWhitespace != true
            else {
                throw BdrError(
                    SQLSTATE.invalidParameterValue, "sslpassword can't be given to pg_dump and pg_restore",
                    detail: "It can't stand in a service file when it ends with a space, or when the string names a service.",
                    hint: "Put sslpassword into the service file, or use a key without one.")
            }
            let file = try TemporaryFile("service")
            try host(bdr_host_write_file(file.path, "[bdr]\nsslpassword=\(secret)\n"))
            self.file = file
            environment.append("PGSERVICEFILE=\(file.path)")
            entries.removeAll { $0.key == "sslpassword" }
            entries.append(("service", "bdr"))
        } else {
            self.file = nil
        }
        entries.removeAll { $0.key == "options" }
        entries.append(("options", try SessionSettings.options(for: dsn, further: options)))
        self.text = entries.map { "\($0.key)='\(Self.escaped($0.value))'" }.joined(separator: " ")
        self.environment = environment
    }

    /// When the program has ended.
    func remove() {
        self.file?.remove()
    }

    private static func escaped(_ value: String) -> String {
        var result = ""
        for scalar in value.unicodeScalars {
            if scalar == "'" || scalar == "\\" {
                result += "\\"
            }
            result.unicodeScalars.append(scalar)
        }
        return result
    }
}

struct TemporaryFile {
    let path: String

    /// - Parameter suffix: of its name. The file itself is made by whoever writes it.
    init(_ suffix: String) throws {
        var buffer = [CChar](repeating: 0, count: 4096)
        let size = buffer.count
        try buffer.withUnsafeMutableBufferPointer { bytes in
            _ = try host(bdr_host_temp_path(suffix, bytes.baseAddress, size))
        }
        self.path = buffer.withUnsafeBufferPointer { bytes in
            bytes.baseAddress.map { String(cString: $0) } ?? ""
        }
    }

    /// Never throws: an error while it is removed must not hide the one that came before.
    func remove() {
        _ = bdr_host_remove_file(self.path)
    }
}
