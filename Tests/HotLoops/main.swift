// Runs one of the loops through which every row goes, a number of times: scripts/check-counts counts the instructions and
// allocations of that, which are the same on every run where times are not.
//
// hot-loops encode|decode|decide NUMBER

import Conflict
import Wire

#if canImport(Glibc)
    import Glibc
#endif

func column(_ name: String, _ type: String, _ oid: UInt32, _ length: Int16, _ alignment: Character) -> RelationColumn {
    RelationColumn(
        name: name, typeNamespace: "pg_catalog", typeName: type, builtinType: oid, typmod: -1, attlen: length,
        attalign: alignment.asciiValue ?? 0, isKey: name == "id", isByValue: length > 0)
}

/// As the rows of `make bench` are.
let columns = [
    column("id", "int8", 20, 8, "d"), column("a", "int4", 23, 4, "i"), column("b", "text", 25, -1, "i"),
    column("c", "timestamptz", 1184, 8, "d"), column("d", "numeric", 1700, -1, "i"),
]

/// (1, 7, 'text of row 12345', some time, 5), as it is in the heap.
let row: [UInt8] =
    [1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0x25] + Array("text of row 12345".utf8) + [0, 0]
    + [1, 2, 3, 4, 5, 6, 2, 0, 0x0b, 0, 0x80, 5, 0]

func appendRow(to buffer: FrameBuffer) throws {
    try row.withUnsafeBytes {
        try buffer.appendInsertRaw(
            relId: 1, attributeCount: 5, hasNulls: false, hasVarWidth: true,
            bitmap: UnsafeRawBufferPointer(start: nil, count: 0), data: $0)
    }
}

let frame = 64 << 10

/// The sender: rows into frames.
func encode(_ number: Int) throws {
    let buffer = FrameBuffer(limit: 1 << 20)
    for _ in 0..<number {
        try appendRow(to: buffer)
        if buffer.count >= frame {
            buffer.removeAll(keepingCapacityUpTo: 1 << 20)
        }
    }
}

/// The receiver: messages, tuples, and the check of what the server is going to trust.
func decode(_ number: Int) throws {
    let layout = try RawLayout(columns)
    let buffer = FrameBuffer(limit: 1 << 20)
    var inFrame = 0
    while buffer.count < frame {
        try appendRow(to: buffer)
        inFrame += 1
    }
    var seen = 0
    while seen < number {
        var cursor = MessageCursor(buffer.bytes)
        while let (type, body) = try cursor.next(), seen < number {
            guard type == .insert else {
                exit(2)
            }
            let message = try InsertMessage(decoding: body)
            guard try !layout.validate(message.tuple).needsDeepCheck else {
                exit(2)
            }
            seen += 1
        }
    }
}

/// A row that was changed last by another node, and is older.
func decide(_ number: Int) -> Int {
    let settings = ResolverSettings()
    var applied = 0
    for round in 0..<number {
        let local = LocalState.present(
            version: RowVersion(time: Int64(round), node: 2), sameOrigin: round % 2 == 0, ownTransaction: false)
        let remote = RowVersion(time: Int64(round + 1), node: 1)
        switch decideUpdate(local: local, remote: remote, settings: settings) {
        case .apply, .applyConflict: applied += 1
        default: break
        }
    }
    return applied
}

guard CommandLine.arguments.count == 3, let number = Int(CommandLine.arguments[2]) else {
    print("usage: hot-loops encode|decode|decide NUMBER")
    exit(2)
}
switch CommandLine.arguments[1] {
case "encode": try encode(number)
case "decode": try decode(number)
case "decide": print(decide(number))
default: exit(2)
}
