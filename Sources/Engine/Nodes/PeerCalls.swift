// What nodes ask of one another while one of them joins: bdr.internal_peer_call(verb, arguments). Each call is a transaction of
// its own on the node that is asked. All can be repeated: whoever did not get the answer asks again.

internal import CHost
internal import Membership

@c(bdr_engine_peer_call)
public func bdrEnginePeerCall(
    _ verb: UnsafePointer<CChar>?, _ nargs: Int32, _ args: UnsafePointer<UnsafePointer<CChar>?>?,
    _ result: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
    entry {
        let name = try Argument.text(verb, "verb")
        var arguments: [String?] = []
        for number in 0..<max(0, Int(nargs)) {
            arguments.append(args?[number].map { String(cString: $0) })
        }
        guard let call = PeerCall(rawValue: name) else {
            throw BdrError(
                SQLSTATE.featureNotSupported, "unknown call \"\(name)\" of another node",
                hint: "Bring both nodes to the same version of bdr.")
        }
        let rows = try call.run(arguments)
        result?.pointee = rows.release()
    }
}

enum PeerCall: String {
    case describe
    case checkBack = "check_back"
    case beginJoin = "begin_join"
    case lock
    case unlock
    case reserve
    case track
    case restartApply = "restart_apply"
    case positions
    case heartbeat
    case nodes
    case state
    case dropSlot = "drop_slot"
    case subscribe
    case position
    case confirmed
    case promote
    case unsubscribe
    case cancel
    case cancelJoin = "cancel_join"
    case beginPart = "begin_part"
    case lockPart = "lock_part"
    case nodeState = "node_state"
    case setNodeState = "set_node_state"
    case runningTransactions = "running_transactions"
    case stillRunning = "still_running"
    case peersConfirmed = "peers_confirmed"
    case stopReceiving = "stop_receiving"
    case removeNode = "remove_node"
    case leave
    case release
    case wake
    case promoteStandby = "promote_standby"
    case hasGroupSlot = "has_group_slot"
    case originPosition = "origin_position"
    case containedPositions = "contained_positions"
    case recover
    case noteMissing = "note_missing"
    case forgetOrigin = "forget_origin"
    case conflictSettings = "conflict_settings"
    case globalLockRequest = "global_lock_request"
    case globalLockNote = "global_lock_note"
    case globalLockConfirm = "global_lock_confirm"
    case globalLockRelease = "global_lock_release"
    case globalLockStatus = "global_lock_status"
    case globalLockWaits = "global_lock_waits"
    case groupRows = "group_rows"
    case sequenceKinds = "sequence_kinds"
    case sequenceVote = "sequence_vote"
    case sequenceChunk = "sequence_chunk"
    case sequenceSeen = "sequence_seen"
    case sequenceLast = "sequence_last"
    case sequenceVotes = "sequence_votes"

    /// Arguments contain a connection string, which may contain a password.
    private var hasSecrets: Bool {
        switch self {
        case .checkBack, .beginJoin, .reserve: true
        default: false
        }
    }

    /// Asks a node.
    @discardableResult
    func ask(_ connection: Connection, _ arguments: [String?] = []) throws -> Rows {
        if self.hasSecrets {
            // a server that logs statements would log the arguments, too
            try connection.query(
                """
                SELECT pg_catalog.set_config('log_parameter_max_length_on_error', '0', false),
                       CASE WHEN pg_catalog.has_parameter_privilege('log_parameter_max_length', 'SET')
                            THEN pg_catalog.set_config('log_parameter_max_length', '0', false) END
                """)
        }
        let list = (0..<arguments.count).map { "$\($0 + 2)" }.joined(separator: ", ")
        return try connection.query(
            "SELECT * FROM bdr.internal_peer_call($1, VARIADIC ARRAY[\(list)]::pg_catalog.text[])",
            [self.rawValue] + arguments)
    }

    func run(_ arguments: [String?]) throws -> Rows {
        func argument(_ number: Int) throws -> String {
            guard number < arguments.count, let value = arguments[number] else {
                throw BdrError("22004", "argument \(number + 1) of call \"\(self.rawValue)\" is missing")
            }
            return value
        }
        switch self {
        case .describe: return try Self.describe()
        case .checkBack: return try Self.checkBack(argument(0), argument(1), argument(2), argument(3))
        case .beginJoin:
            return try Self.beginJoin(
                argument(0), argument(1), arguments.count > 2 ? arguments[2] : nil,
                pauseInStandby: arguments.count > 3 && arguments[3] == "t")
        case .lock: return try Self.lock(argument(0), argument(1))
        case .unlock:
            if try Self.joining(argument(0)) == nil {
                try Self.release(argument(0))
            }
            return try Self.nothing()
        case .reserve: return try Self.reserve(argument)
        case .track:
            try SQL.query("INSERT INTO bdr.join_tracking (join_token) VALUES ($1) ON CONFLICT DO NOTHING", [try argument(0)])
            return try Self.nothing()
        case .restartApply: return try Self.restartApply()
        case .positions:
            return try SQL.query("SELECT origin_node_id, position FROM bdr.origin_position")
        case .heartbeat:
            return try SQL.query("SELECT pg_catalog.pg_logical_emit_message(true, 'bdr', 'heartbeat')")
        case .nodes: return try Self.nodes()
        case .state:
            let joining = try Self.joining(argument(0))
            if let state = UInt32(try argument(1)).flatMap({ NodeState(rawValue: $0) }), let joining,
                joining.state != .active, state != .active
            {
                try NodeCatalog.setState(joining.id, state)
            }
            return try Self.nothing()
        case .dropSlot:
            try host(bdr_host_slot_drop(argument(0)))
            return try Self.nothing()
        case .subscribe: return try Self.subscribe(argument(0), slot: argument(1))
        case .position:
            var end: UInt64 = 0
            try host(bdr_host_wal_end(&end))
            return try SQL.query("SELECT $1::pg_catalog.pg_lsn", [LSN.text(end)])
        case .confirmed:
            return try SQL.query(
                """
                SELECT confirmed_flush_lsn >= $2::pg_catalog.pg_lsn, active, confirmed_flush_lsn
                  FROM pg_catalog.pg_replication_slots WHERE slot_name = $1
                """, [try argument(0), try argument(1)])
        case .promote: return try Self.promote(argument(0))
        case .unsubscribe:
            if let joining = try Self.joining(argument(0)), joining.state != .active {
                try SQL.query(
                    "DELETE FROM bdr.subscription WHERE origin_node_id = $1::pg_catalog.oid", [String(joining.id)])
            }
            return try Self.nothing()
        case .cancel: return try Self.cancel(argument(0))
        case .cancelJoin:
            return try SQL.query(
                """
                UPDATE bdr.join_state SET cancel_requested = true
                 WHERE step NOT IN ('active', 'failed', 'rollback') RETURNING 't'::pg_catalog.text
                """)
        case .beginPart: return try Parting.begin(argument(0), force: argument(1) == "t")
        case .lockPart:
            return try Parting.lock(
                token: argument(0), name: argument(1), owner: argument(2), force: argument(3) == "t")
        case .nodeState:
            return try SQL.query(
                "SELECT node_state, node_id FROM bdr.node WHERE node_name = $1::pg_catalog.name", [try argument(0)])
        case .setNodeState: return try Parting.setState(argument(0), argument(1))
        case .runningTransactions: return try Parting.runningTransactions()
        case .stillRunning: return try Parting.stillRunning(argument(0))
        case .peersConfirmed: return try Parting.peersConfirmed(argument(0))
        case .stopReceiving:
            // a transaction of its own: while it is not committed, the manager starts again what is stopped
            try SQL.query(
                "DELETE FROM bdr.subscription WHERE origin_node_id = COALESCE($1::pg_catalog.oid, origin_node_id)",
                [arguments.first ?? nil])
            return try Self.nothing()
        case .removeNode: return try Parting.remove(argument(0), keepOrigin: argument(1) == "t")
        case .leave: return try Parting.leave()
        case .wake:
            bdr_host_wake_manager()
            return try Self.nothing()
        case .promoteStandby: return try Self.promoteStandby()
        case .hasGroupSlot:
            return try SQL.query("SELECT $1::pg_catalog.bool", [try GroupSlot.isReady() ? "t" : "f"])
        case .originPosition: return try Recovery.position(of: argument(0))
        case .containedPositions: return try Resynchronization.positions()
        case .recover:
            return try Recovery.perform(argument(0), source: argument(1), position: argument(2), target: argument(3))
        case .noteMissing:
            return try Recovery.noteMissing(argument(0), argument(1), after: argument(2), upTo: argument(3))
        case .forgetOrigin: return try Recovery.forget(argument(0))
        case .conflictSettings: return try ConflictSettings.describe()
        case .globalLockRequest: return try LockVotes.request(LockVotes.Request(arguments))
        case .globalLockNote: return try LockVotes.note(LockVotes.Request(arguments))
        case .globalLockConfirm: return try LockVotes.confirm(argument(0))
        case .globalLockRelease: return try LockVotes.release(argument(0))
        case .globalLockStatus: return try LockVotes.status(argument(0))
        case .globalLockWaits: return try LockVotes.waits(argument(0))
        case .groupRows: return try GroupViews.answer(argument(0))
        case .sequenceKinds: return try SequenceKinds.describe()
        case .sequenceVote:
            return try Galloc.vote(argument(0), argument(1), argument(2), argument(3), argument(4))
        case .sequenceChunk: return try Galloc.store(argument(0), argument(1), argument(2), argument(3))
        case .sequenceSeen: return try Galloc.see(argument(0), argument(1), argument(2))
        case .sequenceLast:
            let last = try Galloc.lastCounted(argument(0), argument(1))
            return try SQL.query("SELECT $1", [last.map { String($0) }])
        case .sequenceVotes: return try Galloc.votes()
        case .release:
            try Self.release(argument(0))
            return try Self.nothing()
        }
    }

    static func nothing() throws -> Rows {
        try SQL.query("SELECT 't'::pg_catalog.text")
    }

    /// Node id, node name, state, dsn, group id, group name, group uuid, number of nodes, whether one is joining; no row when
    /// the database has no node.
    private static func describe() throws -> Rows {
        _ = try LocalNode.find()
        return try SQL.query(
            """
            SELECT n.node_id, n.node_name, n.node_state, i.if_dsn, g.node_group_id, g.node_group_name, g.node_group_uuid,
                   (SELECT pg_catalog.count(*) FROM bdr.node WHERE node_state <> 12),
                   (SELECT pg_catalog.string_agg(node_name, ', ') FROM bdr.node
                     WHERE node_state <> n.node_state AND node_id <> n.node_id),
                   (SELECT pg_catalog.string_agg(node_name, ' ') FROM bdr.node WHERE node_state <> 12)
              FROM bdr.local_node l
              JOIN bdr.node n ON n.node_id = l.node_id
              JOIN bdr.node_interface i ON i.node_id = n.node_id
              LEFT JOIN bdr.node_group g ON g.node_group_id = n.node_group_id
            """)
    }

    /// Whether a connection string, used here, leads to the database that the caller says it is.
    private static func checkBack(_ dsn: String, _ system: String, _ database: String, _ start: String) throws -> Rows {
        let expected = DatabaseIdentity(systemIdentifier: system, databaseOID: database, startTime: start)
        do {
            let connection = try Connection(dsn: dsn)
            guard try DatabaseIdentity.read({ try connection.query($0, $1) }) == expected else {
                throw BdrError(
                    SQLSTATE.invalidParameterValue, "the connection string leads to another database when it is used there",
                    hint: "It must be one that every node can use.")
            }
            connection.close()
            try Connection(dsn: dsn, options: [("replication", "database")]).query("IDENTIFY_SYSTEM")
        } catch let error as RemoteError {
            throw error.asError("could not connect back")
        }
        return try self.nothing()
    }

    /// Stores the request of the local node to join; called over the node's own connection string, so that it is committed
    /// when the caller begins to wait.
    private static func beginJoin(
        _ dsn: String, _ structure: String, _ group: String?, pauseInStandby: Bool
    ) throws -> Rows {
        try SQL.query("LOCK TABLE bdr.local_node IN SHARE ROW EXCLUSIVE MODE")
        let node = try LocalNode.require()
        guard !node.isInGroup, try SQL.query(
            "SELECT FROM bdr.join_state WHERE step NOT IN ('active', 'failed')").count == 0
        else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState, "node \"\(node.name)\" is in a group already, or joining one")
        }
        try SQL.query("DELETE FROM bdr.join_state")
        try SQL.query("DELETE FROM bdr.join_script")
        try SQL.query("DELETE FROM bdr.join_table")
        try SQL.query("DELETE FROM bdr.join_progress_line")
        try SQL.query(
            """
            INSERT INTO bdr.join_state (step, reached, target_dsn, synchronize_structure, requested_group, join_token,
                                        pause_in_standby, kept_extensions)
            VALUES ('preflight', 'preflight', $1, $2, $3::pg_catalog.name, pg_catalog.gen_random_uuid()::pg_catalog.text,
                    $4::pg_catalog.bool, ARRAY(SELECT extname FROM pg_catalog.pg_extension))
            """, [dsn, structure, group, pauseInStandby ? "t" : "f"])
        try self.setTarget(pauseInStandby ? .standby : .active)
        return try self.nothing()
    }

    /// The state that the local node is to reach.
    private static func setTarget(_ state: NodeState) throws {
        try SQL.query(
            """
            UPDATE bdr.node SET target_state = $1::pg_catalog.oid
             WHERE node_id = (SELECT node_id FROM bdr.local_node)
            """, [String(state.rawValue)])
    }

    /// The local node goes on from where it has paused.
    private static func promoteStandby() throws -> Rows {
        try SQL.query("UPDATE bdr.join_state SET pause_in_standby = false WHERE step = $1", [JoinStep.standby.rawValue])
        try self.setTarget(.active)
        return try self.nothing()
    }

    // MARK: On the join target

    private static func joining(_ token: String) throws -> LocalNode? {
        let rows = try SQL.query(
            "SELECT node_id, node_name, node_state, node_group_id FROM bdr.node WHERE join_token = $1", [token])
        guard let id = rows[0, 0].flatMap({ UInt32($0) }), let name = rows[0, 1],
            let state = rows[0, 2].flatMap({ UInt32($0) }).flatMap({ NodeState(rawValue: $0) })
        else {
            return nil
        }
        return LocalNode(id: id, name: name, state: state, groupID: rows[0, 3] ?? "0", dsn: "")
    }

    /// The names of what connects two nodes, as the local node sees it.
    private static func names(of joining: LocalNode, local: LocalNode) throws -> (
        slot: String, origin: String, subscription: String, database: String, group: String
    ) {
        let rows = try SQL.query(
            """
            SELECT g.node_group_name, pg_catalog.current_database() FROM bdr.node_group g
             WHERE g.node_group_id = $1::pg_catalog.oid
            """, [local.groupID])
        let group = rows[0, 0] ?? ""
        let database = rows[0, 1] ?? ""
        return (
            ObjectNames.slotName(database: database, group: group, peer: joining.name),
            ObjectNames.originName(database: database, group: group, node: joining.name),
            ObjectNames.subscriptionName(
                database: database, group: group, origin: joining.name, target: local.name), database, group
        )
    }

    /// Takes this node's part of the group's join lock, which a joining node takes on all members in the order of their ids.
    /// - Returns: whether it is taken, the next node id here (or the one that the join has got already), and the name of
    ///   the node that holds the lock.
    private static func lock(_ token: String, _ name: String) throws -> Rows {
        try SQL.query("LOCK TABLE bdr.local_node IN SHARE ROW EXCLUSIVE MODE")
        let local = try LocalNode.require()
        guard local.state == .active else {
            // it has just left, or begun to: the join target will know soon
            return try SQL.query("SELECT false, NULL::pg_catalog.oid, $1, false", [local.name])
        }
        try validateNodeName(name)
        if try SQL.query(
            """
            SELECT FROM bdr.node WHERE node_name = $1::pg_catalog.name AND join_token IS DISTINCT FROM $2
               AND node_state <> $3::pg_catalog.oid
            """, [name, token, String(NodeState.parted.rawValue)]
        ).count > 0
        {
            throw BdrError(
                SQLSTATE.duplicateObject, "the group has a node \"\(name)\" already",
                hint: "Create the node under another name.")
        }
        try SQL.query(
            """
            UPDATE bdr.node_group SET join_token = $1, join_node_name = $2::pg_catalog.name
             WHERE join_token IS NULL OR join_token = $1
            """, [token, name])
        return try SQL.query(
            """
            SELECT g.join_token = $1,
                   COALESCE((SELECT node_id FROM bdr.node WHERE join_token = $1), g.node_group_next_node_id),
                   g.join_node_name, EXISTS (SELECT FROM bdr.node WHERE join_token = $1)
              FROM bdr.node_group g
            """, [token])
    }

    /// Gives a joining node its place in the group. Arguments: token, name, dsn, database, node id.
    /// - Returns: node id, sequence number, group id, name, uuid, next node id, own id, own name.
    private static func reserve(_ argument: (Int) throws -> String) throws -> Rows {
        let token = try argument(0)
        let id = try argument(4)
        try SQL.query("LOCK TABLE bdr.local_node IN SHARE ROW EXCLUSIVE MODE")
        let local = try LocalNode.require()
        guard try SQL.query("SELECT FROM bdr.node_group WHERE join_token = $1", [token]).count == 1 else {
            throw BdrError(SQLSTATE.objectInUse, "another node is joining the group")
        }
        if try self.joining(token) == nil {
            guard let number = UInt32(id), try SQL.query(
                "SELECT FROM bdr.node WHERE node_id = $1::pg_catalog.oid", [id]).count == 0
            else {
                throw BdrError(SQLSTATE.duplicateObject, "node id \(id) is not free")
            }
            let nodes = try SQL.query("SELECT node_id FROM bdr.node")
            var allocator = NodeIdAllocator(
                counter: number, records: (0..<nodes.count).compactMap { nodes[$0, 0].flatMap { UInt32($0) } })
            guard try allocator.allocate() == number else {
                throw BdrError(SQLSTATE.duplicateObject, "node id \(id) was in use before")
            }
            try SQL.query(
                """
                UPDATE bdr.node_group
                   SET node_group_next_node_id = GREATEST(node_group_next_node_id, $1::pg_catalog.oid)
                """, [String(allocator.counter)])
            // the record of a parted node of that name goes; its id is never used again
            try SQL.query(
                "DELETE FROM bdr.node WHERE node_name = $1::pg_catalog.name AND node_state = $2::pg_catalog.oid",
                [try argument(1), String(NodeState.parted.rawValue)])
            let numbers = try SQL.query("SELECT seq_id FROM bdr.node")
            let sequence = NodeIdAllocator.sequenceNumber(
                of: number, taken: (0..<numbers.count).compactMap { numbers[$0, 0].flatMap { UInt32($0) } })
            try NodeCatalog.addPeer(
                id: id, name: argument(1), group: local.groupID, state: String(NodeState.joinStart.rawValue),
                database: argument(3), sequence: String(sequence), dsn: argument(2), token: token)
            try NodeCatalog.journal(number, .joinStart)
        }
        return try SQL.query(
            """
            SELECT n.node_id, n.seq_id, g.node_group_id, g.node_group_name, g.node_group_uuid, g.node_group_next_node_id,
                   l.node_id, l.node_name
              FROM bdr.node n
              JOIN bdr.node_group g ON g.node_group_id = n.node_group_id
              JOIN bdr.node l ON l.node_id = $2::pg_catalog.oid
             WHERE n.join_token = $1
            """, [token, String(local.id)])
    }

    /// Ends the apply workers; those that take their place read the catalog anew. So when this returns, every transaction
    /// whose applying began before is over.
    private static func restartApply() throws -> Rows {
        let peers = try SQL.query("SELECT origin_node_id FROM bdr.subscription WHERE sub_enabled")
        for row in 0..<peers.count {
            if let peer = peers[row, 0].flatMap({ UInt32($0) }) {
                try Workers.restartApply(of: peer)
            }
        }
        return try self.nothing()
    }

    /// The join has ended, one way or the other.
    static func release(_ token: String) throws {
        try SQL.query(
            """
            UPDATE bdr.node_group SET join_token = NULL, join_node_name = NULL, join_owner_id = NULL WHERE join_token = $1
            """, [token])
        try SQL.query("DELETE FROM bdr.join_tracking WHERE join_token = $1", [token])
    }

    private static func nodes() throws -> Rows {
        try SQL.query(
            """
            SELECT n.node_id, n.node_name, n.node_state, n.dbname, n.seq_id, i.if_dsn
              FROM bdr.node n JOIN bdr.node_interface i ON i.node_id = n.node_id ORDER BY n.node_id
            """)
    }

    /// The joining node's slot for this one exists: stream from it.
    private static func subscribe(_ token: String, slot: String) throws -> Rows {
        let local = try LocalNode.require()
        guard let joining = try self.joining(token) else {
            throw BdrError(SQLSTATE.undefinedObject, "this node knows of no such join")
        }
        let known = try SQL.query(
            "SELECT FROM bdr.subscription WHERE origin_node_id = $1::pg_catalog.oid", [String(joining.id)])
        if known.count == 0 {
            let names = try self.names(of: joining, local: local)
            try NodeCatalog.createOrigin(names.origin)
            try NodeCatalog.subscribe(
                to: String(joining.id), local: String(local.id), group: local.groupID, slot: slot,
                origin: names.origin, name: names.subscription)
        }
        return try self.nothing()
    }

    private static func promote(_ token: String) throws -> Rows {
        guard let joining = try self.joining(token) else {
            throw BdrError(SQLSTATE.undefinedObject, "this node knows of no such join")
        }
        if joining.state != .active {
            // a table that is locked everywhere would not be locked there
            try LockVotes.requireNoTables()
            try NodeCatalog.setState(joining.id, .active)
            try SQL.query(
                "UPDATE bdr.node SET node_join_finished = true WHERE node_id = $1::pg_catalog.oid", [String(joining.id)])
        }
        try self.release(token)
        return try self.nothing()
    }

    /// Forgets a join that was given up; `unsubscribe` was called before.
    private static func cancel(_ token: String) throws -> Rows {
        try self.release(token)
        guard let joining = try self.joining(token), joining.state != .active else {
            return try self.nothing()
        }
        let local = try LocalNode.require()
        let names = try self.names(of: joining, local: local)
        try Workers.stopApply(of: joining.id)
        try NodeCatalog.dropOrigin(names.origin)
        try host(bdr_host_slot_drop(names.slot))
        try SQL.query("DELETE FROM bdr.state_journal WHERE node_id = $1::pg_catalog.oid", [String(joining.id)])
        try SQL.query("DELETE FROM bdr.node WHERE node_id = $1::pg_catalog.oid", [String(joining.id)])
        return try self.nothing()
    }
}
