// The entry points of the output plugin: what Extension/output_plugin.c calls.
//
// The encoder is handed to C as a retained opaque pointer and given back with bdr_engine_output_free, which C also calls when
// decoding ends by an error.

public import CHost
internal import Wire

/// - Parameters:
///   - options: `noptions` options of START_REPLICATION.
///   - isInit: a slot is being created: nothing to check, and no encoder is made.
///   - output: passed back in bdr_host_output_write.
///   - result: the encoder, retained.
@c(bdr_engine_output_startup)
public func bdrEngineOutputStartup(
    _ options: UnsafePointer<BdrOption>?, _ noptions: Int32, _ isInit: Bool, _ output: UnsafeMutableRawPointer?,
    _ result: UnsafeMutablePointer<UnsafeMutableRawPointer?>?
) -> Int32 {
    entry {
        if isInit {
            return
        }
        guard let output, let result else {
            throw BdrError(SQLSTATE.internalError, "the output plugin has no output")
        }
        let given = UnsafeBufferPointer(start: options, count: options == nil ? 0 : Int(max(0, noptions)))
        let peer = try PeerOptions(
            given.map { option in
                (option.name.map { String(cString: $0) } ?? "", option.value.map { String(cString: $0) })
            })
        let identity = try PeerCheck.run(peer)
        try requireConfirmed(peer)
        let encoder = Encoder(negotiation: try Negotiation(peer), identity: identity, output: output)
        result.pointee = Unmanaged.passRetained(encoder).toOpaque()
    }
}

/// What a peer has confirmed it must have: it is not sent again.
private func requireConfirmed(_ peer: PeerOptions) throws {
    var confirmed: UInt64 = 0
    let last = bdr_host_sent_and_confirmed(&confirmed)
    // as the peer does it: a transaction whose commit record begins before its progress is one that it has
    guard let progress = peer.progress, last != 0, last >= progress else {
        return
    }
    throw BdrError(
        SQLSTATE.objectNotInPrerequisiteState,
        "node \"\(peer.nodeName)\" has lost changes of node \"\(peer.peerName)\" that it had confirmed",
        detail: "It has applied changes up to \(LSN.text(progress)); it had confirmed them up to \(LSN.text(confirmed)), with a "
            + "transaction that was committed at \(LSN.text(last)).",
        hint: "Its server was probably promoted, or restored, at an earlier point. Part it, on node \"\(peer.peerName)\": "
            + "SELECT bdr.part_node('\(peer.nodeName)', force := true); and let it join again with an empty database.")
}

@c(bdr_engine_output_free)
public func bdrEngineOutputFree(_ encoder: UnsafeMutableRawPointer?) {
    if let encoder {
        Unmanaged<Encoder>.fromOpaque(encoder).release()
    }
}

@c(bdr_engine_output_forward_origin)
public func bdrEngineOutputForwardOrigin(_ encoder: UnsafeMutableRawPointer?) -> UInt16 {
    guard let encoder else {
        return 0
    }
    return Unmanaged<Encoder>.fromOpaque(encoder).takeUnretainedValue().identity.forwarded?.origin ?? 0
}

/// Runs `body` with the encoder that C holds.
@inline(__always)
private func withEncoder(_ encoder: UnsafeMutableRawPointer?, _ body: (Encoder) throws -> Void) -> Int32 {
    entry {
        guard let encoder else {
            throw BdrError(SQLSTATE.internalError, "the output plugin has no encoder")
        }
        try Unmanaged<Encoder>.fromOpaque(encoder)._withUnsafeGuaranteedRef(body)
    }
}

@c(bdr_engine_output_begin)
public func bdrEngineOutputBegin(
    _ encoder: UnsafeMutableRawPointer?, _ xid: UInt32, _ commitLSN: UInt64, _ commitTime: Int64, _ originLSN: UInt64
) -> Int32 {
    withEncoder(encoder) {
        $0.begin(xid: xid, commitLSN: commitLSN, commitTime: commitTime, originLSN: originLSN)
    }
}

@c(bdr_engine_output_relation)
public func bdrEngineOutputRelation(
    _ encoder: UnsafeMutableRawPointer?, _ relation: Int32, _ replaces: Int32,
    _ description: UnsafePointer<BdrRelationDesc>?
) -> Int32 {
    withEncoder(encoder) {
        guard let description else {
            throw BdrError(SQLSTATE.internalError, "a relation has no description")
        }
        try $0.relation(relation, replacing: replaces, description.pointee)
    }
}

@c(bdr_engine_output_forget)
public func bdrEngineOutputForget(_ encoder: UnsafeMutableRawPointer?, _ relation: Int32) {
    if let encoder {
        Unmanaged<Encoder>.fromOpaque(encoder).takeUnretainedValue().forget(relation)
    }
}

@c(bdr_engine_output_change)
public func bdrEngineOutputChange(_ encoder: UnsafeMutableRawPointer?, _ change: UnsafePointer<BdrChange>?) -> Int32 {
    withEncoder(encoder) {
        guard let change else {
            throw BdrError(SQLSTATE.internalError, "a change is missing")
        }
        try $0.change(change.pointee)
    }
}

@c(bdr_engine_output_truncate)
public func bdrEngineOutputTruncate(
    _ encoder: UnsafeMutableRawPointer?, _ nrelations: Int32, _ relations: UnsafePointer<Int32>?, _ cascade: Bool,
    _ restartIdentity: Bool
) -> Int32 {
    withEncoder(encoder) {
        try $0.truncate(
            UnsafeBufferPointer(start: relations, count: relations == nil ? 0 : Int(max(0, nrelations))),
            cascade: cascade, restartIdentity: restartIdentity)
    }
}

@c(bdr_engine_output_message)
public func bdrEngineOutputMessage(
    _ encoder: UnsafeMutableRawPointer?, _ transactional: Bool, _ lsn: UInt64, _ prefix: UnsafePointer<CChar>?,
    _ data: UnsafePointer<UInt8>?, _ length: Int
) -> Int32 {
    withEncoder(encoder) {
        try $0.message(
            transactional: transactional, lsn: lsn, prefix: prefix.map { String(cString: $0) } ?? "",
            content: UnsafeRawBufferPointer(start: data, count: data == nil ? 0 : max(0, length)))
    }
}

@c(bdr_engine_output_commit)
public func bdrEngineOutputCommit(
    _ encoder: UnsafeMutableRawPointer?, _ commitLSN: UInt64, _ endLSN: UInt64, _ commitTime: Int64,
    _ sent: UnsafeMutablePointer<Bool>?
) -> Int32 {
    sent?.pointee = false
    return withEncoder(encoder) {
        let written = try $0.commit(commitLSN: commitLSN, endLSN: endLSN, commitTime: commitTime)
        sent?.pointee = written
    }
}

@c(bdr_engine_output_streams)
public func bdrEngineOutputStreams(_ encoder: UnsafeMutableRawPointer?) -> Bool {
    guard let encoder else {
        return false
    }
    return Unmanaged<Encoder>.fromOpaque(encoder).takeUnretainedValue().negotiation.streams
}

@c(bdr_engine_output_stream_start)
public func bdrEngineOutputStreamStart(_ encoder: UnsafeMutableRawPointer?, _ xid: UInt32) -> Int32 {
    withEncoder(encoder) { $0.streamStart(xid: xid) }
}

@c(bdr_engine_output_subtransaction)
public func bdrEngineOutputSubtransaction(_ encoder: UnsafeMutableRawPointer?, _ xid: UInt32) -> Int32 {
    withEncoder(encoder) { try $0.subtransaction(xid: xid) }
}

@c(bdr_engine_output_stream_stop)
public func bdrEngineOutputStreamStop(_ encoder: UnsafeMutableRawPointer?) -> Int32 {
    withEncoder(encoder) { try $0.streamStop() }
}

@c(bdr_engine_output_stream_abort)
public func bdrEngineOutputStreamAbort(_ encoder: UnsafeMutableRawPointer?, _ xid: UInt32, _ subxid: UInt32) -> Int32 {
    withEncoder(encoder) { try $0.streamAbort(xid: xid, subxid: subxid) }
}

@c(bdr_engine_output_stream_commit)
public func bdrEngineOutputStreamCommit(
    _ encoder: UnsafeMutableRawPointer?, _ xid: UInt32, _ commitLSN: UInt64, _ endLSN: UInt64, _ commitTime: Int64
) -> Int32 {
    withEncoder(encoder) {
        try $0.streamCommit(xid: xid, commitLSN: commitLSN, endLSN: endLSN, commitTime: commitTime)
    }
}
