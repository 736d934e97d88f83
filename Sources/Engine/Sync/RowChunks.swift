// Rows of a table that is copied, as they are stored, in chunks: the join target packs them, a session of the joining node
// fetches and stores them.
//
// A chunk is what the stream of changes would contain: the description of the relation, and an INSERT for each row. So it is
// checked as thoroughly as that before anything is believed.

public import CHost
internal import Wire

/// On the join target.
private final class RowPacker {
    /// Bytes after which a chunk is complete.
    private static let chunkSize = 256 << 10

    private let relation: OutputRelation
    private let description: RelationMessage
    private let frames: FrameWriter
    /// No row is so large that it has to leave in pieces: nothing is ever written there.
    private let nowhere = UnsafeMutableRawPointer.allocate(byteCount: 8, alignment: 8)
    private var isTaken = true

    init(_ description: BdrRelationDesc) throws {
        let (relation, message) = try OutputRelation.describe(1, description, Negotiation.local)
        guard relation.raw else {
            throw BdrError(
                SQLSTATE.featureNotSupported, "rows of table \"\(relation.qualifiedName)\" can't be copied as they are stored")
        }
        self.relation = relation
        self.description = message
        self.frames = FrameWriter(output: self.nowhere, maxFrame: Self.chunkSize)
    }

    deinit {
        self.nowhere.deallocate()
    }

    /// - Returns: whether the chunk is complete.
    @inline(__always)
    func add(_ row: BdrTuple) throws -> Bool {
        guard row.has_external == 0, Int(row.attributes) == self.relation.columnCount else {
            throw BdrError(
                SQLSTATE.featureNotSupported,
                "a row of table \"\(self.relation.qualifiedName)\" can't be copied as it is stored")
        }
        if self.isTaken {
            self.frames.buffer.removeAll(keepingCapacityUpTo: 2 * Self.chunkSize)
            self.isTaken = false
            try self.description.encode(into: self.frames.buffer)
        }
        let tuple = EncodedTuple.raw(row)
        try self.frames.message(.insert, bodyLength: 4 + tuple.length) {
            try self.frames.buffer.append32(1 as UInt32)
            try tuple.write(to: self.frames)
        }
        return self.frames.isFull
    }

    /// The chunk, empty when no row was added; valid until the next one is.
    func take() -> UnsafeRawBufferPointer {
        if self.isTaken {
            return UnsafeRawBufferPointer(start: nil, count: 0)
        }
        self.isTaken = true
        return self.frames.buffer.bytes
    }
}

@c(bdr_engine_copy_begin)
public func bdrEngineCopyBegin(
    _ description: UnsafePointer<BdrRelationDesc>?, _ result: UnsafeMutablePointer<UnsafeMutableRawPointer?>?
) -> Int32 {
    entry {
        guard let description, let result else {
            throw BdrError(SQLSTATE.internalError, "a relation has no description")
        }
        result.pointee = Unmanaged.passRetained(try RowPacker(description.pointee)).toOpaque()
    }
}

@c(bdr_engine_copy_free)
public func bdrEngineCopyFree(_ packer: UnsafeMutableRawPointer?) {
    if let packer {
        Unmanaged<RowPacker>.fromOpaque(packer).release()
    }
}

@c(bdr_engine_copy_add)
public func bdrEngineCopyAdd(
    _ packer: UnsafeMutableRawPointer?, _ row: UnsafePointer<BdrTuple>?, _ full: UnsafeMutablePointer<Bool>?
) -> Int32 {
    entry {
        guard let packer, let row else {
            throw BdrError(SQLSTATE.internalError, "a row is missing")
        }
        full?.pointee = try Unmanaged<RowPacker>.fromOpaque(packer)._withUnsafeGuaranteedRef { try $0.add(row.pointee) }
    }
}

@c(bdr_engine_copy_take)
public func bdrEngineCopyTake(
    _ packer: UnsafeMutableRawPointer?, _ data: UnsafeMutablePointer<UnsafePointer<UInt8>?>?,
    _ length: UnsafeMutablePointer<Int>?
) -> Int32 {
    entry {
        guard let packer else {
            throw BdrError(SQLSTATE.internalError, "there are no rows to take")
        }
        let chunk = Unmanaged<RowPacker>.fromOpaque(packer).takeUnretainedValue().take()
        data?.pointee = chunk.bindMemory(to: UInt8.self).baseAddress
        length?.pointee = chunk.count
    }
}

/// On the joining node: stores chunks.
private final class RowStore {
    private var relation: AppliedRelation?
    /// Counts how often tables were closed.
    private var use: UInt64 = 1
    private var rows: [BdrRow] = []
    private var stored: UInt64 = 0

    private static let batchLimit = 1000

    /// Inside a transaction. The rows are in the table after `close`.
    /// - Returns: how many rows it were.
    func store(_ bytes: UnsafeRawBufferPointer) throws -> UInt64 {
        let before = self.stored
        var cursor = MessageCursor(bytes)
        guard let (type, body) = try cursor.next(), type == .relation else {
            throw BdrError(SQLSTATE.protocolViolation, "copied rows of an unknown table arrived")
        }
        let description = try RelationMessage(decoding: body)
        if self.relation?.description != description {
            self.relation = try AppliedRelation(description)
        }
        guard let relation = self.relation else {
            return 0
        }
        try relation.use(in: self.use)
        guard relation.info.same_layout != 0 else {
            throw BdrError(
                SQLSTATE.objectNotInPrerequisiteState,
                "table \"\(relation.qualifiedName)\" does not have the columns that it has on the join target")
        }
        self.rows.removeAll(keepingCapacity: true)
        while let (type, body) = try cursor.next() {
            guard type == .insert else {
                throw BdrError(SQLSTATE.protocolViolation, "something else than copied rows arrived")
            }
            var row = BdrRow()
            try RowBuilder.fillRaw(&row, InsertMessage(decoding: body).tuple, relation)
            self.rows.append(row)
            if self.rows.count >= Self.batchLimit {
                try self.flush(relation)
            }
        }
        try self.flush(relation)
        return self.stored &- before
    }

    /// Nothing stays open, as whoever called this may end the statement.
    func close() throws {
        try host(bdr_host_executor_close())
        self.use &+= 1
    }

    private func flush(_ relation: AppliedRelation) throws {
        var done: Int32 = 0
        try self.rows.withUnsafeBufferPointer { rows in
            let count = Int32(clamping: rows.count)
            if try host(bdr_host_append_batch(relation.handle, rows.baseAddress, count)) == BDR_DONE {
                done = count
            } else {
                _ = try host(bdr_host_insert_batch(relation.handle, rows.baseAddress, count, &done))
            }
        }
        for number in max(0, Int(done))..<max(0, Int(done), self.rows.count) {
            var found = BdrFound()
            if try host(bdr_host_insert(relation.handle, &self.rows[number], true, &found)) != BDR_DONE {
                throw BdrError(
                    "23505", "a copied row of table \"\(relation.qualifiedName)\" is there already",
                    detail: "A unique key of the table has this value twice.")
            }
        }
        self.stored &+= UInt64(self.rows.count)
        self.rows.removeAll(keepingCapacity: true)
    }
}

/// On the joining node: a session's connection to the join target, which lives from table to table.
private final class RowFetch {
    private let target: Connection
    private let store = RowStore()
    private var copy: CopyColumnReader?

    /// How long to go on without telling how far it is, microseconds.
    private static let reportInterval: Int64 = 200_000

    init(snapshot: String) throws {
        // not an argument, as those of statements are seen in views and in the log
        guard let join = try JoinRecord.load() else {
            throw BdrError(SQLSTATE.objectNotInPrerequisiteState, "this node does not join a group")
        }
        self.target = try Session.open(dsn: join.targetDSN, "the join target")
        do {
            try SnapshotCopy.importSnapshot(snapshot, into: self.target)
        } catch let error as RemoteError {
            throw error.asError("the data could not be copied")
        }
    }

    func begin(_ table: String, _ first: Int64, _ end: Int64) throws {
        guard self.copy == nil else {
            throw BdrError(SQLSTATE.objectNotInPrerequisiteState, "this session is about to copy another table")
        }
        self.copy = CopyColumnReader()
        try self.target.startCopyOut(
            """
            COPY (SELECT bdr.internal_table_rows(\(try SQL.quoteLiteral(table))::pg_catalog.regclass, \(first), \(end)))
            TO STDOUT (FORMAT binary)
            """)
    }

    /// - Returns: what was stored; none when all is.
    func next() throws -> (rows: UInt64, bytes: UInt64) {
        var rows: UInt64 = 0
        var bytes: UInt64 = 0
        let start = bdr_host_now()
        while self.copy != nil {
            guard let message = try self.target.next() else {
                self.copy = nil
                break
            }
            bytes &+= UInt64(message.count)
            if let chunk = try self.copy?.value(in: message) {
                rows &+= try self.store.store(chunk)
                if bdr_host_now() &- start > Self.reportInterval {
                    break
                }
            }
        }
        try self.store.close()
        return (rows, bytes)
    }
}

/// A backend has one thread.
nonisolated(unsafe) private var fetch: RowFetch?

/// After an error nobody knows where the connection is.
private func fetching(_ body: () throws -> Void) -> Int32 {
    entry {
        do {
            try body()
        } catch {
            fetch = nil
            throw error
        }
    }
}

private func current() throws -> RowFetch {
    guard let fetch else {
        throw BdrError(SQLSTATE.objectNotInPrerequisiteState, "this session is not connected to a join target")
    }
    return fetch
}

@c(bdr_engine_fetch_begin)
public func bdrEngineFetchBegin(_ snapshot: UnsafePointer<CChar>?) -> Int32 {
    fetching {
        fetch = nil
        fetch = try RowFetch(snapshot: snapshot.map { String(cString: $0) } ?? "")
    }
}

@c(bdr_engine_fetch_table)
public func bdrEngineFetchTable(_ table: UnsafePointer<CChar>?, _ first: Int64, _ end: Int64) -> Int32 {
    fetching {
        try current().begin(table.map { String(cString: $0) } ?? "", first, end)
    }
}

@c(bdr_engine_fetch_next)
public func bdrEngineFetchNext(_ rows: UnsafeMutablePointer<UInt64>?, _ bytes: UnsafeMutablePointer<UInt64>?) -> Int32 {
    fetching {
        let stored = try current().next()
        rows?.pointee = stored.rows
        bytes?.pointee = stored.bytes
    }
}
