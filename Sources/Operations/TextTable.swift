// Tables for terminals, and text for other programs: JSON and Prometheus.

/// A table with a line of names, columns as wide as they have to be.
public struct TextTable {
    public var names: [String]
    public var rows: [[String]] = []

    public init(_ names: [String]) {
        self.names = names
    }

    public func rendered() -> String {
        var widths = self.names.map(\.count)
        for row in self.rows {
            for (column, value) in row.enumerated() where column < widths.count {
                widths[column] = max(widths[column], value.count)
            }
        }
        func line(_ cells: [String]) -> String {
            var text = ""
            for (column, width) in widths.enumerated() {
                let cell = column < cells.count ? cells[column] : ""
                text += cell
                if column + 1 < widths.count {
                    text += String(repeating: " ", count: width - cell.count + 2)
                }
            }
            while text.last == " " {
                text.removeLast()
            }
            return text
        }
        var lines = [line(self.names), line(widths.map { String(repeating: "-", count: $0) })]
        lines += self.rows.map(line)
        return lines.joined(separator: "\n")
    }
}

/// A JSON value, to be written.
public indirect enum JSON: Equatable, Sendable {
    case null
    case bool(Bool)
    case number(Int)
    case string(String)
    case array([JSON])
    case object([(String, JSON)])

    /// NULL becomes null.
    public static func text(_ value: String?) -> JSON {
        value.map { .string($0) } ?? .null
    }

    /// What is no number becomes null.
    public static func integer(_ value: String?) -> JSON {
        value.flatMap { Int($0) }.map { .number($0) } ?? .null
    }

    public static func == (left: JSON, right: JSON) -> Bool {
        left.rendered() == right.rendered()
    }

    public func rendered() -> String {
        switch self {
        case .null: "null"
        case .bool(let value): value ? "true" : "false"
        case .number(let value): String(value)
        case .string(let value): Self.quoted(value)
        case .array(let values): "[" + values.map { $0.rendered() }.joined(separator: ",") + "]"
        case .object(let fields):
            "{" + fields.map { Self.quoted($0.0) + ":" + $0.1.rendered() }.joined(separator: ",") + "}"
        }
    }

    static func quoted(_ value: String) -> String {
        var text = "\""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case "\n": text += "\\n"
            case "\r": text += "\\r"
            case "\t": text += "\\t"
            case _ where scalar.value < 0x20:
                let digits = String(scalar.value, radix: 16)
                text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: text.unicodeScalars.append(scalar)
            }
        }
        return text + "\""
    }
}

/// Metrics in the text format of Prometheus.
public struct Metrics {
    private var families: [(name: String, help: String, type: String, samples: [String])] = []

    public init() {}

    /// Adds a sample; samples of one name stand together.
    public mutating func add(
        _ name: String, _ type: String, _ help: String, labels: [(String, String)] = [], value: String
    ) {
        var sample = name
        if !labels.isEmpty {
            sample += "{" + labels.map { "\($0.0)=\"\(Self.escaped($0.1))\"" }.joined(separator: ",") + "}"
        }
        sample += " " + value
        if let place = self.families.firstIndex(where: { $0.name == name }) {
            self.families[place].samples.append(sample)
        } else {
            self.families.append((name, help, type, [sample]))
        }
    }

    public func rendered() -> String {
        self.families.map { family in
            "# HELP \(family.name) \(family.help)\n# TYPE \(family.name) \(family.type)\n"
                + family.samples.joined(separator: "\n") + "\n"
        }.joined()
    }

    static func escaped(_ value: String) -> String {
        var text = ""
        for character in value {
            switch character {
            case "\\": text += "\\\\"
            case "\"": text += "\\\""
            case "\n": text += "\\n"
            default: text.append(character)
            }
        }
        return text
    }
}

/// A bar of `width` places, filled to `percent`.
public func progressBar(percent: Int, width: Int = 30) -> String {
    let percent = min(100, max(0, percent))
    let filled = percent * width / 100
    return "[" + String(repeating: "#", count: filled) + String(repeating: ".", count: width - filled) + "] \(percent)%"
}

/// Bytes as one reads them.
public func readableSize(_ bytes: Int) -> String {
    var value = bytes
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if abs(value) < 10_240 || unit == "TB" {
            return "\(value) \(unit)"
        }
        value = (value + 512) / 1024
    }
    return "\(value) TB"
}

/// Bytes of '16MB', '512kB' or '1000'; nil when it is no size.
public func parseSize(_ text: String) -> Int? {
    let digits = text.prefix { $0.isASCII && $0.isNumber }
    guard let number = Int(digits) else {
        return nil
    }
    let shift: Int
    switch text.dropFirst(digits.count).drop(while: { $0 == " " }).lowercased() {
    case "", "b": shift = 0
    case "k", "kb": shift = 10
    case "m", "mb": shift = 20
    case "g", "gb": shift = 30
    default: return nil
    }
    let (result, overflow) = number.multipliedReportingOverflow(by: 1 << shift)
    return overflow ? nil : result
}
