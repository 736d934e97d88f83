// Kinds of sequences: what bdr.alter_sequence_set_kind and bdr.default_sequence_kind do. Their values are made in
// Extension/sequences.c.
//
// Called with the rights of a superuser, after the caller's were checked.

internal import CHost
internal import Sequences

enum SequenceKind: String {
    case local
    case snowflakeid
    case timeshard
    case galloc

    /// As in bdr.sequence_kind.
    var letter: String {
        switch self {
        case .local: "l"
        case .snowflakeid: "s"
        case .timeshard: "t"
        case .galloc: "g"
        }
    }

    var layout: TimeLayout? {
        switch self {
        case .snowflakeid: .snowflakeid
        case .timeshard: .timeshard
        default: nil
        }
    }

    static let names = "local, snowflakeid, timeshard, galloc, distributed"
}

/// A sequence as the catalog has it.
struct SequenceDescription {
    var oid: UInt32
    var namespace: String
    var name: String
    /// Quoted where it has to be.
    var qualifiedName: String
    var type: String
    var start: Int64
    var increment: Int64
    var minimum: Int64
    var maximum: Int64
    var isPermanent: Bool
    var cycles: Bool
    var kind: SequenceKind

    init(_ oid: UInt32) throws {
        let rows = try SQL.query(
            """
            SELECT n.nspname, c.relname, pg_catalog.format('%I.%I', n.nspname, c.relname),
                   s.seqtypid::pg_catalog.regtype::pg_catalog.text, s.seqstart, s.seqincrement, s.seqmin, s.seqmax,
                   c.relpersistence = 'p', k.seqkind, s.seqcycle
              FROM pg_catalog.pg_class c
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid
              LEFT JOIN bdr.sequence_kind k ON k.seqid = c.oid
             WHERE c.oid = $1::pg_catalog.oid
            """, [String(oid)])
        guard let namespace = rows[0, 0], let name = rows[0, 1], let qualified = rows[0, 2], let type = rows[0, 3],
            let start = rows[0, 4].flatMap({ Int64($0) }), let increment = rows[0, 5].flatMap({ Int64($0) }),
            let minimum = rows[0, 6].flatMap({ Int64($0) }), let maximum = rows[0, 7].flatMap({ Int64($0) })
        else {
            throw BdrError(SQLSTATE.undefinedObject, "there is no sequence with OID \(oid)")
        }
        self.oid = oid
        self.namespace = namespace
        self.name = name
        self.qualifiedName = qualified
        self.type = type
        self.start = start
        self.increment = increment
        self.minimum = minimum
        self.maximum = maximum
        self.isPermanent = rows[0, 8] == "t"
        self.cycles = rows[0, 10] == "t"
        self.kind =
            switch rows[0, 9] {
            case "s": .snowflakeid
            case "t": .timeshard
            case "g": .galloc
            default: .local
            }
    }

    /// The last value that it gave out here; nil if none.
    func lastValue() throws -> Int64? {
        let rows = try SQL.query("SELECT last_value FROM \(self.qualifiedName) WHERE is_called")
        return rows[0, 0].flatMap { Int64($0) }
    }
}

enum SequenceKinds {
    static func kind(named name: String, for sequence: SequenceDescription) throws -> SequenceKind {
        if name == "distributed" {
            return sequence.type == "bigint" ? .snowflakeid : .galloc
        }
        guard let kind = SequenceKind(rawValue: name) else {
            throw BdrError(
                SQLSTATE.invalidParameterValue, "unknown kind of sequence \"\(name)\"",
                hint: "Kinds are: \(SequenceKind.names).")
        }
        return kind
    }

    /// What a sequence must be to be of a kind.
    static func check(_ sequence: SequenceDescription, for kind: SequenceKind) throws {
        guard kind != .local else {
            return
        }
        guard sequence.isPermanent else {
            throw BdrError(
                SQLSTATE.featureNotSupported, "sequence \"\(sequence.name)\" is temporary or unlogged, which a global one can't be")
        }
        if kind == .galloc {
            guard !sequence.cycles else {
                throw BdrError(
                    SQLSTATE.featureNotSupported, "sequence \"\(sequence.name)\" starts again at its end, which a galloc sequence can't",
                    hint: "Type ALTER SEQUENCE \(sequence.qualifiedName) NO CYCLE;")
            }
            let size = GallocSequence.chunkSize(sequence.type)
            guard sequence.increment > 0, sequence.increment < size else {
                throw BdrError(
                    SQLSTATE.invalidParameterValue,
                    "sequence \"\(sequence.name)\" has an INCREMENT of \(sequence.increment), with which it can't be of kind galloc",
                    detail: "It must be positive, and smaller than the ranges that nodes get, which are of \(size) values.",
                    hint: "Type ALTER SEQUENCE \(sequence.qualifiedName) INCREMENT 1;")
            }
        }
        if kind.layout != nil {
            guard sequence.type == "bigint" else {
                throw BdrError(
                    SQLSTATE.featureNotSupported,
                    "sequence \"\(sequence.name)\" is of type \(sequence.type), in which a \(kind.rawValue) has no room",
                    hint: "Use kind galloc, or type ALTER SEQUENCE \(sequence.qualifiedName) AS bigint; and widen the column.")
            }
            guard sequence.maximum == Int64.max, sequence.minimum <= 1 << 40, sequence.increment > 0 else {
                throw BdrError(
                    SQLSTATE.objectNotInPrerequisiteState,
                    "sequence \"\(sequence.name)\" has bounds that values of kind \(kind.rawValue) go beyond",
                    detail: "They are numbers of about 19 digits, whatever INCREMENT and CACHE say.",
                    hint: "Type ALTER SEQUENCE \(sequence.qualifiedName) INCREMENT 1 NO MINVALUE NO MAXVALUE;")
            }
        }
    }

    /// - Parameters:
    ///   - used: up to where all nodes have counted, as another node has found out, for kind galloc.
    ///   - isNew: made by this statement.
    /// - Returns: `used` as found out here, for the other nodes.
    @discardableResult
    static func set(_ oid: UInt32, to name: String, start: Int64?, used: Int64? = nil, isNew: Bool = false) throws -> Int64? {
        let sequence = try SequenceDescription(oid)
        let kind = try self.kind(named: name, for: sequence)
        if kind != .local {
            let local = try LocalNode.require()
            guard local.isInGroup else {
                throw BdrError(
                    SQLSTATE.objectNotInPrerequisiteState, "a global sequence needs a node group",
                    detail: "Node \"\(local.name)\" is in none.",
                    hint: "Call bdr.create_node_group or bdr.join_node_group first.")
            }
        }
        try self.check(sequence, for: kind)
        if let start {
            guard kind.layout == nil else {
                throw BdrError(
                    SQLSTATE.invalidParameterValue, "a sequence of kind \(kind.rawValue) can't be given a start value",
                    hint: "Leave the third argument out.")
            }
            guard start >= sequence.minimum, start <= sequence.maximum else {
                throw BdrError(
                    SQLSTATE.invalidParameterValue,
                    "start value \(start) is outside the bounds of sequence \"\(sequence.name)\"",
                    detail: "They are \(sequence.minimum) and \(sequence.maximum).")
            }
        }
        guard kind != sequence.kind || start != nil else {
            // on a node that has it as another kind, that much at least is used
            return kind == .galloc ? try Galloc.used(sequence) : nil
        }
        var found: Int64?
        if let layout = kind.layout, !isNew {
            // A file of its own in this transaction: what is counted there goes when the kind is taken back. What was counted
            // so far stays visible, unless it would be read as a time to come.
            let last = try sequence.lastValue()
            let next = try last.map { try self.isAhead(layout, $0) ? sequence.start : min($0, sequence.maximum - 1) + 1 }
            try SQL.query("ALTER SEQUENCE \(sequence.qualifiedName) RESTART WITH \(next ?? sequence.start)")
        }
        if kind == .galloc && !isNew {
            found = try Galloc.prepare(sequence, start: start, used: used)
            if start == nil && sequence.kind.layout != nil {
                try SQL.query("ALTER SEQUENCE \(sequence.qualifiedName) RESTART")
            }
        }
        if let start {
            try SQL.query("ALTER SEQUENCE \(sequence.qualifiedName) RESTART WITH \(start)")
        }
        try self.store(sequence, kind)
        return start == nil ? found : nil
    }

    /// The kinds of all global sequences, by name.
    static func describe() throws -> Rows {
        try SQL.query(
            """
            SELECT n.nspname, c.relname, k.seqkind FROM bdr.sequence_kind k
              JOIN pg_catalog.pg_class c ON c.oid = k.seqid
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            """)
    }

    /// A joining node takes them over, for the sequences that it has. Inside a transaction.
    static func adopt(_ rows: Rows) throws {
        try self.forget()
        for row in 0..<rows.count {
            try SQL.query(
                """
                INSERT INTO bdr.sequence_kind (seqid, seqkind, nspname, relname)
                SELECT c.oid, $3::pg_catalog."char", n.nspname, c.relname FROM pg_catalog.pg_class c
                  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = $1::pg_catalog.name AND c.relname = $2::pg_catalog.name AND c.relkind = 'S'
                """, [rows[row, 0], rows[row, 1], rows[row, 2]])
        }
    }

    static func forget() throws {
        try SQL.query("DELETE FROM bdr.sequence_kind")
        try SQL.query("DELETE FROM bdr.sequence_vote")
        try SQL.query("DELETE FROM bdr.sequence_chunk")
        try SQL.query("DELETE FROM bdr.sequence_voter")
    }

    /// Warns where nodes would give out the same keys: keys that take their default from a local sequence.
    /// - Parameter table: nil for all tables.
    static func warnOfLocalOnes(table: UInt32? = nil) throws {
        let rows = try SQL.query(
            """
            SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.count(*) OVER (),
                   pg_catalog.quote_literal(pg_catalog.format('%I.%I', n.nspname, c.relname))
              FROM pg_catalog.pg_class c
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              LEFT JOIN bdr.sequence_kind k ON k.seqid = c.oid
             WHERE c.relkind = 'S' AND c.relpersistence = 'p' AND n.nspname <> 'bdr' AND k.seqid IS NULL
               AND EXISTS (
                   SELECT FROM pg_catalog.pg_index i
                     JOIN pg_catalog.pg_class t ON t.oid = i.indrelid AND t.relpersistence = 'p'
                    WHERE i.indisunique AND ($1::pg_catalog.oid IS NULL OR t.oid = $1::pg_catalog.oid)
                      AND (EXISTS (SELECT FROM pg_catalog.pg_attrdef a
                                     JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
                                      AND d.objid = a.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                                    WHERE d.refobjid = c.oid AND a.adrelid = i.indrelid AND a.adnum = ANY (i.indkey))
                           OR EXISTS (SELECT FROM pg_catalog.pg_depend d
                                       WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                                         AND d.refobjid = i.indrelid AND d.deptype = 'i' AND d.refobjsubid = ANY (i.indkey))))
             ORDER BY 1 LIMIT 10
            """, [table.map { String($0) }])
        guard rows.count > 0, let first = rows[0, 2], let count = rows[0, 1].flatMap({ Int($0) }) else {
            return
        }
        let names = (0..<rows.count).compactMap { rows[$0, 0] }.joined(separator: ", ")
        try Log.warning(
            "keys have defaults from local sequences, which give out the same values on all nodes",
            sqlstate: "01000", detail: "Sequences: \(names)\(count > rows.count ? ", and \(count - rows.count) more" : "").",
            hint: "Type for each: SELECT bdr.alter_sequence_set_kind(\(first), 'distributed');")
    }

    /// Ranges are stored by name.
    static func checkNames() throws {
        let rows = try SQL.query(
            """
            SELECT k.nspname, k.relname FROM bdr.sequence_kind k
              JOIN pg_catalog.pg_class c ON c.oid = k.seqid
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE k.seqkind = 'g' AND (n.nspname, c.relname) IS DISTINCT FROM (k.nspname, k.relname) LIMIT 1
            """)
        if let namespace = rows[0, 0], let name = rows[0, 1] {
            throw BdrError(
                SQLSTATE.featureNotSupported,
                "global sequence \"\(namespace).\(name)\" of kind galloc can't get another name or schema",
                detail: "Its values are granted to nodes under its name.",
                hint: "Make it a local one before, and a galloc sequence again afterwards: "
                    + "SELECT bdr.alter_sequence_set_kind(..., 'local');")
        }
    }

    /// Whether a value of another kind means a time that is more than a minute ahead.
    private static func isAhead(_ layout: TimeLayout, _ value: Int64) throws -> Bool {
        let clock = try SQL.query("SELECT (EXTRACT(epoch FROM pg_catalog.clock_timestamp()) * 1000)::pg_catalog.int8")
        return layout.time(of: value) > (clock[0, 0].flatMap { Int64($0) } ?? 0) + 60_000
    }

    static func store(_ sequence: SequenceDescription, _ kind: SequenceKind) throws {
        guard kind != .local else {
            try SQL.query("DELETE FROM bdr.sequence_kind WHERE seqid = $1::pg_catalog.oid", [String(sequence.oid)])
            return
        }
        try SQL.query(
            """
            INSERT INTO bdr.sequence_kind (seqid, seqkind, nspname, relname)
            VALUES ($1::pg_catalog.oid, $2::pg_catalog."char", $3::pg_catalog.name, $4::pg_catalog.name)
            ON CONFLICT (seqid) DO UPDATE
               SET seqkind = EXCLUDED.seqkind, nspname = EXCLUDED.nspname, relname = EXCLUDED.relname
            """, [String(sequence.oid), kind.letter, sequence.namespace, sequence.name])

    }

    /// A statement of this session, or one of another node, has made a sequence.
    static func made(_ oid: UInt32, defaultKind: String, isReplicated: Bool) throws {
        guard let local = try LocalNode.find(), local.isInGroup, local.state == .active || isReplicated else {
            return
        }
        try self.set(oid, to: defaultKind, start: nil, isNew: true)
    }
}

/// - Parameter used: in and out.
@c(bdr_engine_sequence_set_kind)
public func bdrEngineSequenceSetKind(
    _ oid: UInt32, _ kind: UnsafePointer<CChar>?, _ hasStart: Bool, _ start: Int64, _ hasUsed: UnsafeMutablePointer<Bool>?,
    _ used: UnsafeMutablePointer<Int64>?
) -> Int32 {
    entry {
        guard let hasUsed, let used else {
            return
        }
        let found = try SequenceKinds.set(
            oid, to: Argument.text(kind, "seqkind"), start: hasStart ? start : nil, used: hasUsed.pointee ? used.pointee : nil)
        hasUsed.pointee = found != nil
        used.pointee = found ?? 0
    }
}

@c(bdr_engine_sequence_made)
public func bdrEngineSequenceMade(_ oid: UInt32, _ kind: UnsafePointer<CChar>?, _ replicated: Bool) -> Int32 {
    entry { try SequenceKinds.made(oid, defaultKind: Argument.text(kind, "seqkind"), isReplicated: replicated) }
}

@c(bdr_engine_sequence_warn)
public func bdrEngineSequenceWarn(_ table: UInt32) -> Int32 {
    entry { try SequenceKinds.warnOfLocalOnes(table: table) }
}

@c(bdr_engine_sequence_check_names)
public func bdrEngineSequenceCheckNames() -> Int32 {
    entry { try SequenceKinds.checkNames() }
}

@c(bdr_engine_sequence_check)
public func bdrEngineSequenceCheck(_ oid: UInt32) -> Int32 {
    entry {
        let sequence = try SequenceDescription(oid)
        try SequenceKinds.check(sequence, for: sequence.kind)
    }
}
