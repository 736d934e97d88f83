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
/// environment instead.
struct ProgramDSN {
    let text: String
    let environment: [String]

    /// - Parameter options: settings of the session.
    init(_ dsn: String, options: [String]) throws {
        var entries = try DSN.parse(dsn)
        var environment: [String] = []
        if let password = entries.last(where: { $0.key == "password" })?.value {
            environment.append("PGPASSWORD=\(password)")
            entries.removeAll { $0.key == "password" }
        }
        entries.removeAll { $0.key == "options" }
        entries.append(("options", try SessionSettings.options(for: dsn, further: options)))
        self.text = entries.map { "\($0.key)='\(Self.escaped($0.value))'" }.joined(separator: " ")
        self.environment = environment
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
