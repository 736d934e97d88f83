// libFuzzer's entry point: the bytes that a peer sends, to all decoders that meet them. Compiled into one module with the decoders
// (scripts/fuzz). The first byte says which decoder gets the rest: a digit, or the type of a message. Whatever it is, it is read or refused.
//
// Traps of Swift and reads outside of the input end the process; what is checked besides does so by `require`.

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    guard let data, size > 0 else {
        return 0
    }
    // memory of its own, of exactly that size
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: size - 1, alignment: 8)
    defer { bytes.deallocate() }
    bytes.copyMemory(from: UnsafeRawBufferPointer(start: data + 1, count: size - 1))
    let input = UnsafeRawBufferPointer(bytes)
    switch data[0] {
    case UInt8(ascii: "1"): _ = try? consumeAll(input)
    case UInt8(ascii: "2"): frames(input)
    case UInt8(ascii: "3"): _ = try? ReplicationMessage(decoding: input)
    case UInt8(ascii: "4"): rawRow(input)
    case UInt8(ascii: "5"): copy(input)
    case UInt8(ascii: "6"): state(input)
    case UInt8(ascii: "7"): dsn(input)
    case UInt8(ascii: "8"): ddl(input)
    default:
        guard let type = MessageType(rawValue: data[0]) else {
            return 0
        }
        _ = try? consume(type, input)
    }
    return 0
}

func require(_ condition: Bool, _ what: String) {
    if !condition {
        fatalError(what)
    }
}

func inside(_ part: UnsafeRawBufferPointer, _ whole: UnsafeRawBufferPointer, _ what: String) {
    guard part.count > 0 else {
        return
    }
    guard let start = whole.baseAddress, let at = part.baseAddress else {
        fatalError("\(what): nothing is outside of nothing")
    }
    require(at >= start && at + part.count <= start + whole.count, "\(what) hands out bytes that are not its own")
    // so that what watches memory has something to see
    blackHole = part.reduce(blackHole) { $0 ^ $1 }
}

nonisolated(unsafe) var blackHole: UInt8 = 0

// MARK: Messages

let layouts: [RawLayout] = {
    let types: [[UInt32]] = [[23, 25, 16, 1700], [20, 1043, 1184, 2950], [25], [1700, 1700], [17, 1042, 19]]
    return types.flatMap { types -> [RawLayout] in
        let columns = types.compactMap { oid -> RelationColumn? in
            guard let type = RawType(oid: oid) else {
                return nil
            }
            return RelationColumn(
                name: "c", typeNamespace: "pg_catalog", typeName: "t", builtinType: oid, typmod: -1, attlen: type.attlen,
                attalign: type.attalign, isKey: false, isByValue: type.isByValue)
        }
        return [try? RawLayout(columns), try? RawLayout(columns, isUTF8: false)].compactMap { $0 }
    }
}()

func consume(_ tuple: TupleView, of body: UnsafeRawBufferPointer) throws(WireError) {
    switch tuple {
    case .columns(let count, let bytes):
        inside(bytes, body, "a tuple")
        var values: [ColumnValue] = []
        try tuple.decodeColumns(into: &values)
        require(values.count == count, "values are missing")
        for (index, value) in values.enumerated() {
            inside(value.bytes, body, "a value")
            let type: UInt32 = [0, 16, 20, 21, 23, 25, 26, 2950][index % 8]
            _ = ValueText.describe(builtinType: type, kind: value.kind, bytes: value.bytes)
        }
    case .kept:
        fatalError("a message has no such tuple")
    case .raw(let count, _, _, let bitmap, let data):
        inside(bitmap, body, "a bitmap")
        inside(data, body, "a raw tuple")
        for layout in layouts {
            let isValid = (try? layout.validate(tuple)) != nil
            for number in [-1, 0, 1, 2, 3, count - 1, count] {
                let attribute = try? layout.attribute(number, of: tuple)
                if case .value(let bytes)? = attribute {
                    inside(bytes, body, "an attribute")
                    _ = ValueText.describeRaw(builtinType: 25, bytes: bytes)
                }
                require(!isValid || number < 0 || number >= count || attribute != nil, "an attribute of a valid tuple is refused")
            }
        }
    }
}

func consume(_ type: MessageType, _ body: UnsafeRawBufferPointer) throws(WireError) {
    switch type {
    case .startup: _ = try StartupMessage(decoding: body)["raw"]
    case .begin: _ = try BeginMessage(decoding: body)
    case .commit: _ = try CommitMessage(decoding: body)
    case .relation:
        let relation = try RelationMessage(decoding: body)
        if relation.rawPossible {
            _ = try RawLayout(relation.columns)
        }
        // what was understood can be said again, and means the same
        let buffer = FrameBuffer(limit: 1 << 20)
        try relation.encode(into: buffer)
    case .insert: try consume(try InsertMessage(decoding: body).tuple, of: body)
    case .update:
        let update = try UpdateMessage(decoding: body)
        require((update.old == nil) == (update.oldKind == .none), "old row and its kind contradict")
        if let old = update.old {
            try consume(old, of: body)
        }
        try consume(update.new, of: body)
    case .delete: try consume(try DeleteMessage(decoding: body).old, of: body)
    case .truncate: require(try !TruncateMessage(decoding: body).relIds.isEmpty, "a truncate of nothing")
    case .message: inside(try LogicalMessage(decoding: body).content, body, "a message")
    case .streamStart: _ = try StreamStartMessage(decoding: body)
    case .streamStop: break
    case .subtransaction: _ = try SubtransactionMessage(decoding: body)
    case .streamAbort: _ = try StreamAbortMessage(decoding: body)
    case .streamCommit: _ = try StreamCommitMessage(decoding: body)
    }
}

func consumeAll(_ bytes: UnsafeRawBufferPointer) throws(WireError) {
    var cursor = MessageCursor(bytes)
    while let (type, body) = try cursor.next() {
        inside(body, bytes, "a frame")
        try consume(type, body)
    }
}

/// Payloads, each behind its length in one byte.
func frames(_ bytes: UnsafeRawBufferPointer) {
    var assembler = FrameAssembler(limit: 10_000)
    var offset = 0
    while offset < bytes.count {
        let end = min(bytes.count, offset + 1 + Int(bytes[offset]))
        let payload = UnsafeRawBufferPointer(rebasing: bytes[(offset + 1)..<end])
        if let messages = try? assembler.push(payload: payload) {
            _ = try? consumeAll(messages)
        }
        offset = end
    }
}

/// Layout, flags, length of the bitmap; bitmap; data.
func rawRow(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= 3 else {
        return
    }
    let number = Int(bytes[0]) % max(1, layouts.count)
    let flags = bytes[1]
    let middle = min(bytes.count, 3 + Int(bytes[2]))
    let tuple = TupleView.raw(
        attributeCount: Int(flags >> 2), hasNulls: flags & 1 != 0, hasVarWidth: flags & 2 != 0,
        bitmap: UnsafeRawBufferPointer(rebasing: bytes[3..<middle]), data: UnsafeRawBufferPointer(rebasing: bytes[middle...]))
    let isValid = (try? layouts[number].validate(tuple)) != nil
    for attribute in 0..<Int(flags >> 2) {
        let value = try? layouts[number].attribute(attribute, of: tuple)
        if case .value(let part)? = value {
            inside(part, bytes, "an attribute")
        }
        require(!isValid || value != nil, "an attribute of a valid row is refused")
    }
}

/// Rows of a binary COPY, each behind its length in one byte.
func copy(_ bytes: UnsafeRawBufferPointer) {
    var reader = CopyColumnReader()
    var offset = 0
    while offset < bytes.count {
        let end = min(bytes.count, offset + 1 + Int(bytes[offset]))
        let message = UnsafeRawBufferPointer(rebasing: bytes[(offset + 1)..<end])
        if let value = try? reader.value(in: message) {
            inside(value, message, "a copied row")
        }
        offset = end
    }
}

/// What was understood can be written, and is understood again.
func ddl(_ bytes: UnsafeRawBufferPointer) {
    guard let message = try? DdlMessage(decoding: bytes) else {
        return
    }
    guard let written = try? message.encoded() else {
        return
    }
    require(written.withUnsafeBytes { (try? DdlMessage(decoding: $0)) != nil }, "a statement can't be read again")
}

// MARK: Conflict-free values

/// Type, length of the first; two states, or what would be one.
func state(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= 2, let type = CRDTType(rawValue: bytes[0] % 5) else {
        return
    }
    let middle = min(bytes.count, 2 + Int(bytes[1]))
    let first = UnsafeRawBufferPointer(rebasing: bytes[2..<middle])
    let second = UnsafeRawBufferPointer(rebasing: bytes[middle...])
    if let parsed = try? CRDT.parse(first, as: type) {
        parsed.withUnsafeBytes { parsed in
            require((try? CRDT.check(parsed, is: type)) != nil, "a state that was parsed is refused")
            guard let text = try? CRDT.stateText(parsed), let again = try? text.withUnsafeBytes({ try CRDT.parse($0, as: type) }) else {
                fatalError("a state can't be written and read again")
            }
            require(again.elementsEqual(parsed), "a state changes when it is written and read again")
        }
    }
    states(first, second, type)
    if let one = try? CRDT.parse(first, as: type), let other = try? CRDT.parse(second, as: type) {
        one.withUnsafeBytes { one in other.withUnsafeBytes { states(one, $0, type) } }
    }
}

func states(_ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer, _ type: CRDTType) {
    guard (try? CRDT.check(first, is: type)) != nil else {
        return
    }
    _ = try? CRDT.valueText(first)
    _ = try? CRDT.integer(first)
    _ = try? CRDT.numeric(first)
    _ = try? CRDT.hashKey(first)
    _ = try? CRDT.reset(first)
    _ = try? CRDT.stateText(first)
    if (try? CRDT.check(second, is: type)) != nil {
        _ = try? CRDT.compare(first, second)
        let there = try? CRDT.merge(local: first, old: nil, new: second)
        let back = try? CRDT.merge(local: second, old: nil, new: first)
        require(there == back, "the order of a merge matters")
    }
}

// MARK: Connection strings

/// None that is shown has its password.
func dsn(_ bytes: UnsafeRawBufferPointer) {
    guard let text = String(validating: bytes, as: UTF8.self) else {
        return
    }
    _ = try? DSN.parse(text)
    let masked = DSN.masked(text)
    guard let parts = try? DSN.parse(text), let shown = try? DSN.parse(masked) else {
        return
    }
    // a short one may be part of something else
    for part in parts where ["password", "sslpassword"].contains(part.key) && part.value.utf8.count > 8 {
        require(!shown.contains { $0.value.contains(part.value) && ["password", "sslpassword"].contains($0.key) }, "a password is shown")
    }
}
