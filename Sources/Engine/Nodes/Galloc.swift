// Ranges of values for sequences of kind galloc: how this node gets them, and how it votes on those of others. Why no value is
// granted twice is said in Sources/Sequences/Galloc.swift.
//
// What is stored goes by the sequence's name, and in transactions of their own (over the node's own connection string): a
// sequence may get values before the statement that made it is committed, and a yes that was told must not be rolled back.

internal import CHost
internal import Membership
internal import Sequences

/// A sequence by name, and what of it matters.
struct GallocSequence {
    var namespace: String
    var name: String
    var type: String
    var maximum: Int64

    var chunkSize: Int64 { Self.chunkSize(self.type) }

    static func chunkSize(_ type: String) -> Int64 {
        switch type {
        case "smallint": 1000
        case "integer": 1_000_000
        default: 1_000_000_000
        }
    }
}

enum Galloc {
    /// How long a statement waits for a range, microseconds.
    private static let patience: Int64 = 10_000_000
    /// How long a member is waited for, milliseconds.
    private static let connectTimeout: Int32 = 3000

    private struct Member {
        var id: UInt32
        var name: String
        var dsn: String
        var isLocal: Bool
    }

    /// All members of the group: each counts from when it is known, and until it has left.
    private static func members(_ local: LocalNode) throws -> [Member] {
        let rows = try SQL.query(
            """
            SELECT n.node_id, n.node_name, i.if_dsn FROM bdr.node n
              JOIN bdr.node_interface i ON i.node_id = n.node_id
             WHERE n.node_group_id = $1::pg_catalog.oid AND n.node_state <> $2::pg_catalog.oid
            """, [local.groupID, String(NodeState.parted.rawValue)])
        return (0..<rows.count).compactMap { row in
            guard let id = rows[row, 0].flatMap({ UInt32($0) }), let name = rows[row, 1], let dsn = rows[row, 2] else {
                return nil
            }
            return Member(id: id, name: name, dsn: dsn, isLocal: id == local.id)
        }
    }

    /// Connections to members, opened when they are needed; members that can't be reached are not tried again.
    private final class Members {
        let list: [Member]
        private var connections: [UInt32: Connection] = [:]
        private(set) var failures: [UInt32: String] = [:]

        init(_ list: [Member]) {
            self.list = list
        }

        /// nil: it can't be reached, or refuses.
        func ask(_ id: UInt32, _ call: PeerCall, _ arguments: [String?]) throws -> Rows? {
            guard self.failures[id] == nil, let member = self.list.first(where: { $0.id == id }) else {
                return nil
            }
            do {
                let connection = try self.connections[id] ?? Connection(dsn: member.dsn, timeout: Galloc.connectTimeout)
                self.connections[id] = connection
                // a member that hangs counts as one that is not there
                try connection.query("SET statement_timeout = \(Galloc.connectTimeout)")
                return try call.ask(connection, arguments)
            } catch let error as RemoteError {
                self.failures[id] = error.message
                self.connections[id] = nil
                return nil
            }
        }

        func fail(_ id: UInt32, _ reason: String) {
            self.failures[id] = reason
        }

        /// For messages.
        var complaints: String {
            self.failures.sorted { $0.key < $1.key }.map { failure in
                "node \"\(self.list.first { $0.id == failure.key }?.name ?? "")\": \(failure.value)"
            }.joined(separator: "; ")
        }
    }

    enum Outcome {
        case granted
        case exhausted
        case failed(String)
    }

    /// One attempt. A range that is granted is stored when this returns.
    static func request(_ sequence: GallocSequence, above: Int64) throws -> Outcome {
        let local = try LocalNode.require()
        guard local.isInGroup, local.state == .active else {
            return .failed("The local node is not active.")
        }
        let members = Members(try self.members(local))
        var proposal = Proposal(
            members: members.list.map(\.id), size: sequence.chunkSize, above: above, maximum: sequence.maximum)
        while true {
            switch proposal.step {
            case .ask(let member, let first, let last):
                let answer = try members.ask(
                    member, .sequenceVote, [sequence.namespace, sequence.name, String(first), String(last), String(local.id)])
                let count = answer?[0, 2].flatMap { Int($0) } ?? 0
                switch answer?[0, 0] {
                case "yes":
                    proposal.take(.yes(members: count))
                case "no":
                    proposal.take(.no(highest: answer?[0, 1].flatMap { Int64($0) } ?? last, members: count))
                default:
                    if answer != nil {
                        members.fail(member, "it may not vote yet")
                    }
                    proposal.take(.none)
                }
            case .granted(let first, let last):
                guard try members.ask(
                    local.id, .sequenceChunk, [sequence.namespace, sequence.name, String(first), String(last)]) != nil
                else {
                    return .failed("The local node can't be reached with its own connection string. \(members.complaints)")
                }
                return .granted
            case .noMajority:
                return .failed(members.complaints.isEmpty ? "No majority was found." : "Without a vote: \(members.complaints).")
            case .exhausted:
                _ = try members.ask(
                    local.id, .sequenceSeen, [sequence.namespace, sequence.name, String(sequence.maximum)])
                return .exhausted
            }
        }
    }

    /// Up to where this node owns values.
    private static func owned(_ namespace: String, _ name: String) throws -> Int64 {
        let rows = try SQL.query(
            """
            SELECT pg_catalog.max(last_value) FROM bdr.sequence_chunk
             WHERE nspname = $1::pg_catalog.name AND relname = $2::pg_catalog.name
            """, [namespace, name])
        return rows[0, 0].flatMap { Int64($0) } ?? Int64.min
    }

    /// Gets a range for a statement that needs a value now.
    /// - Parameter value: what the sequence has come to, which nobody has been given.
    static func obtain(_ sequence: SequenceDescription, value: Int64) throws {
        let wanted = GallocSequence(
            namespace: sequence.namespace, name: sequence.name, type: sequence.type, maximum: sequence.maximum)
        let start = bdr_host_now()
        while true {
            switch try self.request(
                wanted, above: max(max(value, sequence.start, Int64.min + 1) - 1, self.owned(sequence.namespace, sequence.name)))
            {
            case .granted:
                return
            case .exhausted:
                throw BdrError(
                    "2200H", "all values of global sequence \"\(sequence.name)\" are given to nodes",
                    detail: "It ends at \(sequence.maximum), and is granted in ranges of \(wanted.chunkSize).",
                    hint: "Widen the column, and then type ALTER SEQUENCE \(sequence.qualifiedName) AS bigint NO MAXVALUE;")
            case .failed(let why):
                guard bdr_host_now() &- start < self.patience else {
                    throw BdrError(
                        SQLSTATE.objectNotInPrerequisiteState,
                        "this node has no values of global sequence \"\(sequence.name)\" left, and can't get more",
                        detail: why,
                        hint: "A majority of the group's nodes must be reachable; see bdr.node_summary. Nodes that won't come "
                            + "back have to be parted: SELECT bdr.part_node('...', force := true);")
                }
                // nothing else is waited for: cancel and shutdown are
                try host(bdr_host_wait(nil, 300))
            }
        }
    }

    // MARK: What others ask

    private static func isLearned(_ local: LocalNode) throws -> Bool {
        if try SQL.query("SELECT FROM bdr.sequence_voter WHERE node_id = $1::pg_catalog.oid", [String(local.id)]).count > 0 {
            return true
        }
        guard try self.members(local).count == 1 else {
            return false
        }
        try self.setLearned(local)
        return true
    }

    private static func setLearned(_ local: LocalNode) throws {
        try SQL.query("DELETE FROM bdr.sequence_voter WHERE node_id <> $1::pg_catalog.oid", [String(local.id)])
        try SQL.query(
            "INSERT INTO bdr.sequence_voter (node_id) VALUES ($1::pg_catalog.oid) ON CONFLICT DO NOTHING", [String(local.id)])
    }

    private static func raise(_ namespace: String, _ name: String, _ highest: Int64) throws {
        try SQL.query(
            """
            INSERT INTO bdr.sequence_vote AS v (nspname, relname, highest)
            VALUES ($1::pg_catalog.name, $2::pg_catalog.name, $3::pg_catalog.int8)
            ON CONFLICT (nspname, relname) DO UPDATE SET highest = EXCLUDED.highest, first_value = NULL, node_id = NULL
             WHERE v.highest < EXCLUDED.highest
            """, [namespace, name, String(highest)])
    }

    /// The last value that a sequence of this node has given out, if it counts; nil if none, or it is not there.
    static func lastCounted(_ namespace: String, _ name: String) throws -> Int64? {
        let rows = try SQL.query(
            """
            SELECT bdr.internal_sequence_last(c.oid, true) FROM pg_catalog.pg_class c
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              LEFT JOIN bdr.sequence_kind k ON k.seqid = c.oid
             WHERE n.nspname = $1::pg_catalog.name AND c.relname = $2::pg_catalog.name AND c.relkind = 'S'
               AND COALESCE(k.seqkind, 'g') = 'g'
            """, [namespace, name])
        return rows[0, 0].flatMap { Int64($0) }
    }

    /// - Returns: yes, no or wait; above which value to ask; how many members there are.
    static func vote(_ namespace: String, _ name: String, _ first: String, _ last: String, _ node: String) throws -> Rows {
        guard let first = Int64(first), let last = Int64(last), let node = UInt32(node) else {
            throw BdrError(SQLSTATE.invalidParameterValue, "malformed range of a sequence")
        }
        try SQL.query("LOCK TABLE bdr.sequence_vote IN SHARE ROW EXCLUSIVE MODE")
        let local = try LocalNode.require()
        let members = try self.members(local).count
        guard local.isInGroup, local.state == .active, try self.isLearned(local) else {
            return try SQL.query("SELECT 'wait', NULL, $1", [String(members)])
        }
        let known = try SQL.query(
            """
            SELECT highest, first_value, node_id FROM bdr.sequence_vote
             WHERE nspname = $1::pg_catalog.name AND relname = $2::pg_catalog.name
            """, [namespace, name])
        var voter = Voter(highest: known[0, 0].flatMap { Int64($0) } ?? Int64.min)
        if let yes = known[0, 1].flatMap({ Int64($0) }), let to = known[0, 2].flatMap({ UInt32($0) }) {
            voter = Voter(highest: voter.highest, last: Voter.Yes(first: yes, node: to))
        }
        // this node's own statements take no value that is not theirs
        if node != local.id, let counted = try self.lastCounted(namespace, name) {
            voter.learn(counted)
        }
        let before = voter
        let refusal = voter.answer(first: first, last: last, to: node)
        if voter != before {
            try SQL.query(
                """
                INSERT INTO bdr.sequence_vote AS v (nspname, relname, highest, first_value, node_id, grants, last_grant)
                VALUES ($1::pg_catalog.name, $2::pg_catalog.name, $3::pg_catalog.int8, $4::pg_catalog.int8,
                        $5::pg_catalog.oid, 1, pg_catalog.clock_timestamp())
                ON CONFLICT (nspname, relname) DO UPDATE
                   SET highest = EXCLUDED.highest, first_value = EXCLUDED.first_value, node_id = EXCLUDED.node_id,
                       grants = v.grants + 1, last_grant = EXCLUDED.last_grant
                """, [namespace, name, String(last), String(first), String(node)])
        }
        return try SQL.query(
            "SELECT $1, $2, $3", [refusal == nil ? "yes" : "no", refusal.map { String($0) }, String(members)])
    }

    /// This node has got a range.
    static func store(_ namespace: String, _ name: String, _ first: String, _ last: String) throws -> Rows {
        try self.raise(namespace, name, Int64(last) ?? Int64.min)
        return try SQL.query(
            """
            INSERT INTO bdr.sequence_chunk (nspname, relname, first_value, last_value)
            VALUES ($1::pg_catalog.name, $2::pg_catalog.name, $3::pg_catalog.int8, $4::pg_catalog.int8)
            ON CONFLICT DO NOTHING RETURNING 't'::pg_catalog.text
            """, [namespace, name, first, last])
    }

    static func see(_ namespace: String, _ name: String, _ highest: String) throws -> Rows {
        try self.raise(namespace, name, Int64(highest) ?? Int64.min)
        return try PeerCall.nothing()
    }

    static func votes() throws -> Rows {
        try SQL.query("SELECT nspname, relname, highest FROM bdr.sequence_vote")
    }

    // MARK: A sequence becomes one of kind galloc

    /// Nothing that any node has used may be granted.
    /// - Parameters:
    ///   - start: what the user says: nothing below it is granted, and nobody is asked.
    ///   - known: up to where all have counted, if another node has asked.
    /// - Returns: up to where values count as used.
    static func prepare(_ sequence: SequenceDescription, start: Int64?, used known: Int64?) throws -> Int64 {
        let local = try LocalNode.require()
        let members = Members(try self.members(local))
        var used = sequence.start - (sequence.start > Int64.min ? 1 : 0)
        if let start {
            used = max(start - (start > Int64.min ? 1 : 0), sequence.minimum - (sequence.minimum > Int64.min ? 1 : 0))
        } else {
            if sequence.kind.layout == nil {
                used = max(used, try sequence.lastValue() ?? used)
            }
            used = max(used, known ?? used)
            for member in members.list where !member.isLocal && known == nil {
                guard let answer = try members.ask(member.id, .sequenceLast, [sequence.namespace, sequence.name]) else {
                    throw BdrError(
                        SQLSTATE.objectNotInPrerequisiteState,
                        "node \"\(member.name)\" can't say which values of sequence \"\(sequence.name)\" it has used",
                        detail: members.complaints,
                        hint: "Say from where it is to count, above all that is used: SELECT "
                            + "bdr.alter_sequence_set_kind('\(sequence.qualifiedName)', 'galloc', ...);")
                }
                used = max(used, answer[0, 0].flatMap { Int64($0) } ?? used)
            }
        }
        guard try members.ask(local.id, .sequenceSeen, [sequence.namespace, sequence.name, String(used)]) != nil else {
            throw BdrError(
                SQLSTATE.connectionFailure, "the local node can't be reached with its own connection string",
                detail: members.complaints, hint: "Correct it with bdr.alter_node_interface.")
        }
        return used
    }

    /// Up to where values of a galloc sequence are used or granted, as this node knows.
    static func used(_ sequence: SequenceDescription) throws -> Int64 {
        let rows = try SQL.query(
            "SELECT highest FROM bdr.sequence_vote WHERE nspname = $1 AND relname = $2", [sequence.namespace, sequence.name])
        return try rows[0, 0].flatMap { Int64($0) } ?? sequence.lastValue() ?? sequence.start
    }

    // MARK: Ahead of time

    /// Whether a range is to be requested, or votes are to be learned.
    static func isWanted() throws -> Bool {
        // of sequences that were dropped, before another one gets their OID
        try SQL.query(
            """
            DELETE FROM bdr.sequence_kind k
             WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = k.seqid AND c.relkind = 'S')
            """)
        guard try SQL.query("SELECT FROM bdr.sequence_kind LIMIT 1").count > 0 || !self.hasVoter() else {
            return false
        }
        return try !self.hasVoter() || !self.needy(limit: 1).isEmpty
    }

    private static func hasVoter() throws -> Bool {
        try SQL.query(
            "SELECT FROM bdr.sequence_voter v JOIN bdr.local_node l ON l.node_id = v.node_id").count > 0
    }

    private struct Needy {
        var sequence: GallocSequence
        var above: Int64
    }

    /// Sequences that have not one range besides the one that is in use.
    private static func needy(limit: Int) throws -> [Needy] {
        let rows = try SQL.query(
            """
            SELECT n.nspname, c.relname, s.seqtypid::pg_catalog.regtype::pg_catalog.text, s.seqmax,
                   GREATEST(u.used - 1, s.seqstart - 1, (SELECT pg_catalog.max(h.last_value) FROM bdr.sequence_chunk h
                                                           WHERE h.nspname = n.nspname AND h.relname = c.relname))
              FROM bdr.sequence_kind k
              JOIN pg_catalog.pg_class c ON c.oid = k.seqid
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid
              CROSS JOIN LATERAL (SELECT bdr.internal_sequence_last(c.oid, false) AS used OFFSET 0) u
              LEFT JOIN bdr.sequence_vote v ON v.nspname = n.nspname AND v.relname = c.relname
             WHERE k.seqkind = 'g' AND COALESCE(v.highest < s.seqmax, true)
               AND (SELECT pg_catalog.count(*) FROM bdr.sequence_chunk h
                     WHERE h.nspname = n.nspname AND h.relname = c.relname
                       AND h.last_value > COALESCE(u.used, s.seqstart - 1)) < 2
             LIMIT $1::pg_catalog.int4
            """, [String(limit)])
        return (0..<rows.count).compactMap { row in
            guard let namespace = rows[row, 0], let name = rows[row, 1], let type = rows[row, 2],
                let maximum = rows[row, 3].flatMap({ Int64($0) }), let above = rows[row, 4].flatMap({ Int64($0) })
            else {
                return nil
            }
            return Needy(
                sequence: GallocSequence(namespace: namespace, name: name, type: type, maximum: maximum), above: above)
        }
    }

    static func work() throws {
        try Transaction.run { try self.learn() }
        while true {
            let needy = try Transaction.run { try self.needy(limit: 100) }
            for sequence in needy {
                // it names the sequence: granted or not, this node's own number grows
                let outcome = try Transaction.run { try self.request(sequence.sequence, above: sequence.above) }
                if case .failed(let why) = outcome {
                    throw BdrError(
                        SQLSTATE.objectNotInPrerequisiteState,
                        "no further values of global sequence \"\(sequence.sequence.name)\" could be got", detail: why,
                        hint: "Statements go on until those that this node has are used up.")
                }
                if try host(bdr_host_wait(nil, 0)) & Int32(BDR_WAIT_SHUTDOWN) != 0 {
                    return
                }
            }
            if needy.isEmpty {
                return
            }
        }
    }

    /// Takes over the numbers of the others, so that this node may vote.
    private static func learn() throws {
        let local = try LocalNode.require()
        guard local.isInGroup, local.state == .active, try !self.isLearned(local) else {
            return
        }
        let members = Members(try self.members(local))
        let others = members.list.filter { !$0.isLocal }
        var heard = 0
        var answers: [Rows] = []
        for member in others {
            if let rows = try members.ask(member.id, .sequenceVotes, []) {
                heard += 1
                answers.append(rows)
            }
        }
        guard heard >= Learning.required(others: others.count) else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "this node may not vote on values of global sequences yet",
                detail: "It has to ask a majority of the other nodes first. \(members.complaints)")
        }
        try SQL.query("LOCK TABLE bdr.sequence_vote IN SHARE ROW EXCLUSIVE MODE")
        for rows in answers {
            for row in 0..<rows.count {
                if let namespace = rows[row, 0], let name = rows[row, 1], let highest = rows[row, 2].flatMap({ Int64($0) }) {
                    try self.raise(namespace, name, highest)
                }
            }
        }
        try self.setLearned(local)
    }
}

@c(bdr_engine_sequence_main)
public func bdrEngineSequenceMain() -> Int32 {
    entry { try Galloc.work() }
}

/// Gets a range for the value that the sequence has come to.
@c(bdr_engine_sequence_obtain)
public func bdrEngineSequenceObtain(_ oid: UInt32, _ value: Int64) -> Int32 {
    entry { try Galloc.obtain(SequenceDescription(oid), value: value) }
}
