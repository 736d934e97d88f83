// What is wrong with a node, from what it says of itself, and what to type.

/// What was found out about a node; what could not be is nil.
public struct NodeFacts: Equatable, Sendable {
    public struct Peer: Equatable, Sendable {
        public var name: String
        /// Of the peer's stream to here.
        public var receiving: String
        public var subscription: String
        public var errorSQLState: String?
        public var errorMessage: String?
        /// Of the stream to the peer.
        public var slotExists: Bool
        public var sending: String
        public var lagBytes: Int
        public var retainedBytes: Int
        /// Can the peer be connected to, from here; what libpq says if not.
        public var connectError: String?

        public init(
            name: String, receiving: String = "replicating", subscription: String = "", errorSQLState: String? = nil,
            errorMessage: String? = nil, slotExists: Bool = true, sending: String = "streaming", lagBytes: Int = 0,
            retainedBytes: Int = 0, connectError: String? = nil
        ) {
            self.name = name
            self.receiving = receiving
            self.subscription = subscription
            self.errorSQLState = errorSQLState
            self.errorMessage = errorMessage
            self.slotExists = slotExists
            self.sending = sending
            self.lagBytes = lagBytes
            self.retainedBytes = retainedBytes
            self.connectError = connectError
        }
    }
    public var name: String
    public var state: String
    public var isStandby = false
    public var peers: [Peer] = []
    /// Error of a join that was given up, or goes on trying: step, message, hint.
    public var join: (step: String, message: String?, hint: String?)?
    /// Partings that go on: node and what is waited for.
    public var partings: [(name: String, progress: String)] = []
    /// Tables whose rows other nodes could not find.
    public var tablesWithoutIdentity: [String] = []
    /// Nodes that lack changes of a dead one.
    public var missingChanges: [String] = []
    public var hasManager = true
    /// Oldest transaction that runs: its pid, seconds, and state.
    public var oldestTransaction: (pid: String, seconds: Int, state: String)?
    /// Prepared transactions that are an hour old and more.
    public var preparedTransactions: [String] = []

    public init(name: String, state: String) {
        self.name = name
        self.state = state
    }

    public static func == (left: NodeFacts, right: NodeFacts) -> Bool {
        left.name == right.name && left.state == right.state && left.peers == right.peers
    }
}

public struct Finding: Equatable, Sendable {
    public enum Weight: String, Sendable {
        case error, warning
    }
    public var weight: Weight
    public var what: String
    /// What to type, or to do.
    public var advice: String

    public init(_ weight: Weight, _ what: String, _ advice: String) {
        self.weight = weight
        self.what = what
        self.advice = advice
    }
}

/// Bytes of WAL from which on a lag, or what is kept for a peer, is worth a line.
private let muchLag = 64 << 20
private let muchWAL = 4 << 30

public func diagnose(_ facts: NodeFacts) -> [Finding] {
    var findings: [Finding] = []
    if facts.isStandby {
        findings.append(
            Finding(
                .warning, "\(facts.name) is a physical standby: it is no node as long as it is one.",
                "Ask its primary, or promote it when that is gone: SELECT pg_promote();"))
        return findings
    }
    if let join = facts.join, let message = join.message {
        if join.step == "failed" {
            findings.append(
                Finding(.error, "The join of \(facts.name) was given up: \(message)", join.hint ?? "Remove the cause, then bdrctl join again."))
        } else if facts.state != "ACTIVE" {
            findings.append(
                Finding(
                    .warning, "The join of \(facts.name) is at step \(join.step) and tries again: \(message)",
                    join.hint ?? "Remove the cause; to give it up: bdrctl part \(facts.name)"))
        }
    }
    switch facts.state {
    case "ACTIVE": break
    case "CREATED":
        findings.append(Finding(.warning, "\(facts.name) is in no group.", "bdrctl join, or bdrctl init with --group."))
    case "STANDBY":
        findings.append(Finding(.warning, "\(facts.name) has joined and waits.", "On it: SELECT bdr.promote_node();"))
    case "PARTED":
        findings.append(
            Finding(
                .warning, "\(facts.name) is parted: nothing of it goes anywhere.",
                "To have it in the group again, empty the database and bdrctl join; or DROP EXTENSION bdr CASCADE;"))
    default:
        if facts.join?.message == nil {
            findings.append(
                Finding(.warning, "\(facts.name) is \(facts.state): it refuses writes until that is over.", "bdrctl status --watch"))
        }
    }
    if !facts.hasManager {
        findings.append(
            Finding(
                .error, "No manager runs in the database of \(facts.name).",
                "See the server's log. Are there enough max_worker_processes, and is bdr in shared_preload_libraries? bdrctl check"))
    }
    for peer in facts.peers {
        switch peer.receiving {
        case "replicating", "catchup": break
        case "disabled":
            findings.append(
                Finding(
                    .error, "\(facts.name) does not receive from \(peer.name): the subscription is disabled.",
                    "On \(facts.name): SELECT bdr.alter_subscription_enable(\(quotedLiteral(peer.subscription)));"))
        default:
            if let error = peer.connectError {
                findings.append(
                    Finding(
                        .error, "\(facts.name) does not receive from \(peer.name), which can't be reached: \(error)",
                        "Start it, or mend the network or pg_hba.conf there. If it is down for good: bdrctl part \(peer.name) --force"))
            } else {
                let message = peer.errorMessage.map { ": " + $0 } ?? ""
                findings.append(
                    Finding(
                        .error,
                        "\(facts.name) does not receive from \(peer.name) (\(peer.receiving))\(message)"
                            + (peer.errorSQLState.map { " (SQLSTATE \($0))" } ?? ""),
                        "docs/troubleshooting.md has it by SQLSTATE; more: SELECT * FROM bdr.worker_errors ORDER BY error_time DESC LIMIT 1;"
                    ))
            }
        }
        if !peer.slotExists {
            findings.append(
                Finding(
                    .error, "\(facts.name) has no replication slot for \(peer.name): what it commits is lost to it.",
                    "Part \(peer.name) and let it join again: bdrctl part \(peer.name) --force"))
        } else if peer.lagBytes > muchLag {
            findings.append(
                Finding(
                    .warning, "\(peer.name) is \(readableSize(peer.lagBytes)) behind \(facts.name) (\(peer.sending)).",
                    "bdrctl status --watch shows whether it gets less; bdrctl doctor with the --dsn of \(peer.name) why not."))
        }
        if peer.retainedBytes > muchWAL {
            findings.append(
                Finding(
                    .warning, "\(facts.name) keeps \(readableSize(peer.retainedBytes)) of WAL for \(peer.name).",
                    "Watch the disk. If \(peer.name) does not come back: bdrctl part \(peer.name) --force"))
        }
    }
    for parting in facts.partings {
        findings.append(
            Finding(
                .warning, "The parting of \(parting.name) goes on: \(parting.progress)",
                "If \(parting.name) is down for good: bdrctl part \(parting.name) --force"))
    }
    for name in facts.missingChanges {
        findings.append(
            Finding(
                .error, "\(name) lacks changes of a node that died, and nobody can send them any more.",
                "bdrctl part \(name), empty its database, bdrctl join"))
    }
    if !facts.tablesWithoutIdentity.isEmpty {
        findings.append(
            Finding(
                .warning, "UPDATE and DELETE are refused on tables without a primary key: "
                    + facts.tablesWithoutIdentity.joined(separator: ", "),
                "ALTER TABLE ... ADD PRIMARY KEY (...);  or: ALTER TABLE ... REPLICA IDENTITY FULL;  on every node"))
    }
    if let oldest = facts.oldestTransaction, oldest.seconds > 3600 {
        findings.append(
            Finding(
                .warning, "A transaction of process \(oldest.pid) runs for \(oldest.seconds / 60) minutes (\(oldest.state)): WAL is kept for it, and joins wait for it.",
                "SELECT pg_terminate_backend(\(oldest.pid));"))
    }
    for name in facts.preparedTransactions {
        findings.append(
            Finding(
                .warning, "The prepared transaction \(name) waits for more than an hour: WAL is kept for it, and joins wait for it.",
                "COMMIT PREPARED \(quotedLiteral(name));  or: ROLLBACK PREPARED \(quotedLiteral(name));"))
    }
    return findings
}
