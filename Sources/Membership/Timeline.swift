// Timelines of another node's WAL. A promoted standby, or a server restored to a point in time, begins a new timeline: the
// positions behind the point where it left the old one are used again, for other changes.

/// One line of a timeline's history: a timeline that it comes from, and where that one was left.
public struct TimelineSwitch: Equatable, Sendable {
    public var timeline: UInt32
    /// End of what was taken over from it.
    public var end: UInt64

    public init(timeline: UInt32, end: UInt64) {
        self.timeline = timeline
        self.end = end
    }
}

public enum TimelineHistory {
    /// Reads a history file of PostgreSQL: lines of timeline, position and reason, separated by white space. Empty lines and
    /// comments are passed over.
    /// - Returns: nil when a line is none of that.
    public static func parse(_ text: String) -> [TimelineSwitch]? {
        var switches: [TimelineSwitch] = []
        for line in text.split(whereSeparator: { $0.isNewline }) {
            let fields = line.split(maxSplits: 2, whereSeparator: { $0 == "\t" || $0 == " " })
            guard let first = fields.first, !first.hasPrefix("#") else {
                continue
            }
            guard fields.count >= 2, let timeline = UInt32(first), let end = position(fields[1]) else {
                return nil
            }
            switches.append(TimelineSwitch(timeline: timeline, end: end))
        }
        return switches
    }

    private static func position(_ text: Substring) -> UInt64? {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, let high = UInt32(parts[0], radix: 16), let low = UInt32(parts[1], radix: 16) else {
            return nil
        }
        return UInt64(high) << 32 | UInt64(low)
    }
}

/// Whether a stream can go on with the server that is reached as a node now.
public enum Continuation: Equatable, Sendable {
    /// What was applied is part of the server's WAL.
    case possible
    /// The server left the timeline that was followed at `end`, and more than that was applied.
    case left(end: UInt64)
    /// The server's WAL ends before what was applied.
    case beyondEnd
    /// The server does not come from the timeline that was followed: it is the one that was replaced, or a stranger.
    case unrelated

    /// - Parameters:
    ///   - known: the timeline that was followed so far; nil if none was noted.
    ///   - current: the server's.
    ///   - history: of the current timeline; not looked at when it is the known one.
    ///   - progress: up to where this node has applied the node's changes.
    ///   - end: of the server's WAL.
    public static func judge(
        known: UInt32?, current: UInt32, history: [TimelineSwitch], progress: UInt64, end: UInt64
    ) -> Continuation {
        if let known, known != current {
            // a timeline has a greater number than all that it comes from
            guard known < current, let left = history.first(where: { $0.timeline == known }) else {
                return .unrelated
            }
            if progress > left.end {
                return .left(end: left.end)
            }
        }
        return progress > end ? .beyondEnd : .possible
    }
}
