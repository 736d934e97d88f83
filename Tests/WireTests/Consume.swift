// Decodes a message of whatever type and looks at all that it says.

import Testing
import Wire

/// Layouts that raw tuples are tried with.
let sampleLayouts: [RawLayout] = {
    let relation = Samples.rawRelation.withUnsafeBytes { try? RelationMessage(decoding: $0) }
    let columns = relation?.columns ?? []
    return [try? RawLayout(columns), try? RawLayout(columns, isUTF8: false)].compactMap { $0 }
}()

/// - Throws: what the decoder does. Records an issue when something handed out lies outside of the body.
func consume(_ type: MessageType, _ body: UnsafeRawBufferPointer) throws(WireError) {
    func inside(_ part: UnsafeRawBufferPointer) {
        if !body.contains(part) {
            Issue.record("\(type) hands out bytes that are not its own")
        }
        // Reads each, so that tools that watch memory have something to see.
        _ = part.reduce(0) { $0 ^ $1 }
    }
    func tuple(_ tuple: TupleView) throws(WireError) {
        switch tuple {
        case .columns(let count, let bytes):
            inside(bytes)
            var values: [ColumnValue] = []
            try tuple.decodeColumns(into: &values)
            if values.count != count {
                Issue.record("\(values.count) values of \(count)")
            }
            for (index, value) in values.enumerated() {
                inside(value.bytes)
                let type: UInt32 = [0, 16, 20, 21, 23, 25, 26, 2950][index % 8]
                _ = ValueText.describe(builtinType: type, kind: value.kind, bytes: value.bytes)
            }
        case .kept:
            Issue.record("a message has no such tuple")
        case .raw(let attributeCount, _, _, let bitmap, let data):
            inside(bitmap)
            inside(data)
            for layout in sampleLayouts {
                let check = Result { () throws(WireError) in try layout.validate(tuple) }
                for number in Set([-1, 0, 1, 2, 3, attributeCount - 1, attributeCount]) {
                    // Not even a tuple that was refused leads outside.
                    let attribute = Result { () throws(WireError) in try layout.attribute(number, of: tuple) }
                    if case .success(.value(let bytes)) = attribute {
                        inside(bytes)
                        _ = ValueText.describeRaw(builtinType: 25, bytes: bytes)
                    }
                    if case .success = check, number >= 0, number < attributeCount, case .failure(let error) = attribute
                    {
                        Issue.record("attribute \(number) of a valid tuple: \(error)")
                    }
                }
                _ = try check.get()
            }
        }
    }
    switch type {
    case .startup: _ = try StartupMessage(decoding: body)["raw"]
    case .begin: _ = try BeginMessage(decoding: body)
    case .commit: _ = try CommitMessage(decoding: body)
    case .relation:
        let relation = try RelationMessage(decoding: body)
        if relation.rawPossible {
            _ = try RawLayout(relation.columns)
        }
    case .insert: try tuple(try InsertMessage(decoding: body).tuple)
    case .update:
        let update = try UpdateMessage(decoding: body)
        if (update.old == nil) != (update.oldKind == .none) {
            Issue.record("old row and its kind contradict")
        }
        if let old = update.old {
            try tuple(old)
        }
        try tuple(update.new)
    case .delete: try tuple(try DeleteMessage(decoding: body).old)
    case .truncate:
        if try TruncateMessage(decoding: body).relIds.isEmpty {
            Issue.record("a truncate of nothing")
        }
    case .message: inside(try LogicalMessage(decoding: body).content)
    case .streamStart: _ = try StreamStartMessage(decoding: body)
    case .streamStop: break
    case .subtransaction: _ = try SubtransactionMessage(decoding: body)
    case .streamAbort: _ = try StreamAbortMessage(decoding: body)
    case .streamCommit: _ = try StreamCommitMessage(decoding: body)
    }
}

/// Decodes all messages, as they come in one frame.
func consumeAll(_ bytes: UnsafeRawBufferPointer) throws(WireError) {
    var cursor = MessageCursor(bytes)
    while let (type, body) = try cursor.next() {
        try consume(type, body)
    }
}
