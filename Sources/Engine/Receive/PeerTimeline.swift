// Whether the server that is reached as a node still has what this node has applied of it. Where a standby was promoted, or a
// backup restored, that lacks some of it, positions are used again: new changes would count as applied, and be skipped.

internal import CHost
internal import Membership

enum PeerTimeline {
    /// Asks the server for its timeline and notes a new one, for the next time.
    /// - Parameters:
    ///   - connection: a replication connection that does not stream yet.
    ///   - progress: end of the last remote transaction that is committed here.
    /// - Throws: `RemoteError`; `BdrError` when the stream must not go on.
    static func check(_ connection: Connection, settings: ApplySettings, progress: UInt64) throws {
        let system = try connection.query("IDENTIFY_SYSTEM")
        guard let current = system[0, 1].flatMap({ UInt32($0) }), let end = system[0, 2].flatMap({ LSN.parse($0) }) else {
            throw BdrError(SQLSTATE.protocolViolation, "node \"\(settings.peerName)\" did not say where its WAL ends")
        }
        var history: [TimelineSwitch] = []
        if let known = settings.originTimeline, known < current {
            let file = try connection.query("TIMELINE_HISTORY \(current)")
            guard let switches = file[0, 1].flatMap({ TimelineHistory.parse($0) }) else {
                throw BdrError(
                    SQLSTATE.protocolViolation,
                    "the history of timeline \(current) of node \"\(settings.peerName)\" could not be read")
            }
            history = switches
        }
        let applied = "This node has applied that node's changes up to \(LSN.text(progress))"
        let again =
            "This node has changes that node \"\(settings.peerName)\" has lost. Part this node, on node "
            + "\"\(settings.peerName)\": SELECT bdr.part_node('\(settings.localName)', force := true); and let it join again "
            + "with an empty database."
        switch Continuation.judge(
            known: settings.originTimeline, current: current, history: history, progress: progress, end: end)
        {
        case .possible:
            break
        case .left(let switchPoint):
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState,
                "node \"\(settings.peerName)\" was promoted or restored at an earlier point than this node has applied",
                detail: "\(applied), but its timeline \(current) goes on from \(LSN.text(switchPoint)).", hint: again)
        case .beyondEnd:
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState,
                "node \"\(settings.peerName)\" was restored at an earlier point than this node has applied",
                detail: "\(applied), but its WAL ends at \(LSN.text(end)).", hint: again)
        case .unrelated:
            let known = settings.originTimeline ?? 0
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState,
                "the server reached as node \"\(settings.peerName)\" is not the one that this node has followed",
                detail: "It is on timeline \(current), which does not come from timeline \(known).",
                hint: "If it is the server that was replaced by a promoted standby, stop it; the node's connection string must "
                    + "lead to the promoted one: SELECT bdr.alter_node_interface('\(settings.peerName)', '...');")
        }
        guard current != settings.originTimeline else {
            return
        }
        // committed before any change of the new timeline is: once progress has passed the switch, the old one would not do
        _ = try Transaction.run {
            try SQL.query(
                """
                UPDATE bdr.subscription SET origin_timeline = $2::pg_catalog.int4
                 WHERE origin_node_id = $1::pg_catalog.oid
                """, [String(settings.peerID), String(current)])
        }
        if let known = settings.originTimeline {
            try Log.log(
                "node \"\(settings.peerName)\" has gone from timeline \(known) to \(current)",
                detail: "\(applied), which it has.")
        }
    }
}
