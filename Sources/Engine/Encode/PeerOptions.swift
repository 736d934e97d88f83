// The options of START_REPLICATION: who the receiver says it is, and what it can take.

internal import CHost

/// What the receiving node asks for. Options with names we don't know are a later version's and are passed over: what a peer
/// can't do without, it announces by a higher `proto_min`.
struct PeerOptions {
    let protocolRange: ClosedRange<UInt32>
    let groupName: String
    /// In lower case.
    let groupUUID: String
    /// The receiver.
    let nodeName: String
    let nodeID: UInt32
    /// The node it believes to talk to.
    let peerName: String
    let peerID: UInt32
    let serverVersion: UInt32
    let encoding: String
    let endian: String
    let maxAlign: UInt32
    let float8ByValue: Bool
    let wantsRaw: Bool
    let wantsBinary: Bool
    /// Large transactions may be sent while they are in progress.
    let wantsStreaming: Bool
    /// Only what was applied here for this node is wanted; nil: only what was committed here first.
    let forwardOrigin: UInt32?
    /// Bytes after which a frame is written.
    let maxFrame: Int
    /// Up to where it has applied our changes; nil when it does not say.
    let progress: UInt64?
    /// Of its own WAL; nil when it does not say.
    let timeline: UInt32?

    static let frameRange: ClosedRange<UInt32> = 1024...(16 << 20)

    /// - Parameter options: names with values (nil: an option without a value), in the order given.
    /// - Throws: an error that names the option that is missing, doubled or malformed.
    init(_ options: [(name: String, value: String?)]) throws {
        var values = Values()
        for (name, value) in options {
            try values.add(name, value)
        }
        let low = try values.number("proto_min", in: 1...UInt32.max)
        let high = try values.number("proto_max", in: 1...UInt32.max)
        guard low <= high else {
            throw Self.invalid("proto_max", String(high), "It is below proto_min.")
        }
        self.protocolRange = low...high
        self.groupName = try values.text("group_name")
        self.groupUUID = try values.text("group_uuid").lowercased()
        self.nodeName = try values.text("node_name")
        self.nodeID = try values.number("node_id", in: 1...UInt32.max)
        self.peerName = try values.text("peer_name")
        self.peerID = try values.number("peer_id", in: 1...UInt32.max)
        self.serverVersion = try values.number("pg_version", in: 150_000...999_999)
        self.encoding = try values.text("encoding")
        self.endian = try values.text("endian", among: ["little", "big"])
        self.maxAlign = try values.number("maxalign", in: 1...64)
        self.float8ByValue = try values.flag("float8_byval")
        self.wantsRaw = try values.flag("raw")
        self.wantsBinary = try values.flag("binary")
        self.wantsStreaming = try values.has("streaming") && values.flag("streaming")
        self.forwardOrigin =
            try values.flag("forward") ? try values.number("forward_origin", in: 1...UInt32.max) : nil
        self.maxFrame = Int(try values.number("max_frame", in: Self.frameRange))
        self.progress = try values.position("progress")
        self.timeline = try values.has("timeline") ? values.number("timeline", in: 1...UInt32.max) : nil
    }

    static func invalid(_ name: String, _ value: String, _ detail: String) -> BdrError {
        BdrError(
            SQLSTATE.invalidParameterValue, "invalid value for output plugin option \"\(name)\": \"\(value)\"",
            detail: detail, hint: self.hint)
    }

    /// Bytes of a value. Names have 63 at most.
    private static let maxLength = 255

    private static let hint = "This output plugin serves only nodes of a bdr group."

    /// The options by name, and the ways to read one.
    private struct Values {
        private var byName: [String: String?] = [:]

        mutating func add(_ name: String, _ value: String?) throws {
            guard self.byName.updateValue(value, forKey: name) == nil else {
                throw BdrError(
                    SQLSTATE.invalidParameterValue, "output plugin option \"\(name)\" is given more than once",
                    hint: PeerOptions.hint)
            }
        }

        func text(_ name: String) throws -> String {
            guard let given = self.byName[name] else {
                throw BdrError(
                    SQLSTATE.invalidParameterValue, "output plugin option \"\(name)\" is missing",
                    hint: PeerOptions.hint)
            }
            guard let value = given, !value.isEmpty else {
                throw BdrError(
                    SQLSTATE.invalidParameterValue, "output plugin option \"\(name)\" needs a value",
                    hint: PeerOptions.hint)
            }
            // messages repeat values, and whoever may connect may send what he likes
            guard value.utf8.count <= PeerOptions.maxLength else {
                throw BdrError(
                    SQLSTATE.invalidParameterValue, "value of output plugin option \"\(name)\" is too long",
                    detail: "It has \(value.utf8.count) bytes; \(PeerOptions.maxLength) are permitted.",
                    hint: PeerOptions.hint)
            }
            return value
        }

        func text(_ name: String, among allowed: [String]) throws -> String {
            let value = try self.text(name)
            guard allowed.contains(value) else {
                throw PeerOptions.invalid(name, value, "Allowed are \(allowed.joined(separator: ", ")).")
            }
            return value
        }

        func number(_ name: String, in range: ClosedRange<UInt32>) throws -> UInt32 {
            let value = try self.text(name)
            // UInt32(_:) also takes a sign
            guard value.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
                let number = UInt32(value), range.contains(number)
            else {
                throw PeerOptions.invalid(
                    name, value, "It must be a number from \(range.lowerBound) to \(range.upperBound).")
            }
            return number
        }

        func has(_ name: String) -> Bool {
            self.byName[name] != nil
        }

        func position(_ name: String) throws -> UInt64? {
            guard self.has(name) else {
                return nil
            }
            let value = try self.text(name)
            guard let position = LSN.parse(value) else {
                throw PeerOptions.invalid(name, value, "It must be a WAL position.")
            }
            return position
        }

        func flag(_ name: String) throws -> Bool {
            try self.text(name, among: ["0", "1"]) == "1"
        }
    }
}
