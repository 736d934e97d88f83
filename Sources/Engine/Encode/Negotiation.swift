// What both ends of a stream can do, and the startup message that tells the receiver so.

internal import CHost
internal import Wire

struct Negotiation {
    static let supportedProtocols: ClosedRange<UInt32> = 1...1

    let protocolVersion: UInt16
    /// Rows of raw-safe types may travel as they are stored.
    let raw: Bool
    /// Values of built-in types may travel in binary.
    let binary: Bool
    /// Large transactions are sent while they are in progress.
    let streams: Bool
    /// Bytes after which a frame is written.
    let maxFrame: Int

    /// Of a node with one of the same kind, where both sides have been compared before.
    static var local: Negotiation {
        Negotiation(protocolVersion: 1, raw: true, binary: true, streams: false, maxFrame: 1 << 20)
    }

    private init(protocolVersion: UInt16, raw: Bool, binary: Bool, streams: Bool, maxFrame: Int) {
        self.protocolVersion = protocolVersion
        self.raw = raw
        self.binary = binary
        self.streams = streams
        self.maxFrame = maxFrame
    }

    /// - Throws: feature_not_supported when there is no protocol version that both know, or when the encodings differ.
    init(_ options: PeerOptions) throws {
        let version = min(options.protocolRange.upperBound, Self.supportedProtocols.upperBound)
        guard options.protocolRange.contains(version), Self.supportedProtocols.contains(version) else {
            throw BdrError(
                SQLSTATE.featureNotSupported,
                "node \"\(options.nodeName)\" speaks no protocol version that this node knows",
                detail: "It knows versions \(Self.text(options.protocolRange)), this node "
                    + "\(Self.text(Self.supportedProtocols)).",
                hint: "Bring both nodes to the same version of bdr.")
        }
        let encoding = String(cString: bdr_host_encoding_name())
        guard options.encoding == encoding else {
            throw BdrError(
                SQLSTATE.featureNotSupported, "the databases of a group must have one encoding",
                detail: "Node \"\(options.nodeName)\" has \(options.encoding), this node has \(encoding).")
        }
        self.protocolVersion = UInt16(clamping: version)
        self.raw =
            options.wantsRaw && options.endian == Self.localEndian && options.maxAlign == Self.localMaxAlign
            && options.float8ByValue && (encoding == "UTF8" || encoding == "SQL_ASCII")
        self.binary = options.wantsBinary
        self.streams = options.wantsStreaming
        self.maxFrame = options.maxFrame
    }

    private static func text(_ range: ClosedRange<UInt32>) -> String {
        range.count == 1 ? "\(range.lowerBound)" : "\(range.lowerBound) to \(range.upperBound)"
    }

    /// The platforms Swift runs on are 64-bit ones, where the server aligns to 8 bytes and passes float8 by value.
    private static var localEndian: String { 1.littleEndian == 1 ? "little" : "big" }
    private static var localMaxAlign: UInt32 { 8 }

    /// The first message of the stream.
    func startupMessage(_ identity: LocalIdentity) -> StartupMessage {
        StartupMessage(
            protocolVersion: self.protocolVersion,
            options: [
                ("version", String(self.protocolVersion)),
                ("node_id", String(identity.nodeID)),
                ("node_name", identity.nodeName),
                ("group_uuid", identity.groupUUID),
                ("pg_version", String(bdr_host_server_version())),
                ("encoding", String(cString: bdr_host_encoding_name())),
                ("raw", self.raw ? "1" : "0"),
                ("max_frame", String(self.maxFrame)),
            ])
    }
}
