// What the functions of bdr.column_timestamps and the merging of rows call (Extension/column_timestamps.c).

internal import CHost
internal import Conflict

private func versions(_ data: UnsafePointer<UInt8>?, _ length: Int) throws -> ColumnVersions {
    guard let versions = ColumnVersions(UnsafeRawBufferPointer(start: data, count: data == nil ? 0 : max(0, length))) else {
        throw BdrError("22P03", "malformed value of type bdr.column_timestamps")
    }
    return versions
}

private func give(_ bytes: [UInt8], to result: UnsafeMutableRawPointer?) throws {
    try host(bytes.withUnsafeBufferPointer { bdr_host_crdt_result(result, $0.baseAddress, $0.count) })
}

@c(bdr_engine_columns_check)
public func bdrEngineColumnsCheck(_ state: UnsafePointer<UInt8>?, _ length: Int) -> Int32 {
    entry { _ = try versions(state, length) }
}

private func list(
    _ columns: UnsafePointer<UInt32>?, _ attributes: UnsafePointer<UInt16>?, _ count: Int32
) -> [(column: UInt32, attribute: UInt16)] {
    guard let columns, let attributes else {
        return []
    }
    return (0..<max(0, Int(count))).map { (columns[$0], attributes[$0]) }
}

@c(bdr_engine_columns_create)
public func bdrEngineColumnsCreate(
    _ commit: Bool, _ time: Int64, _ node: UInt32, _ result: UnsafeMutableRawPointer?
) -> Int32 {
    entry {
        let state = ColumnVersions(base: RowVersion(time: time, node: node), source: commit ? .commit : .current)
        try give(state.bytes, to: result)
    }
}

/// A row is inserted that its commit will date.
@c(bdr_engine_columns_insert)
public func bdrEngineColumnsInsert(
    _ columns: UnsafePointer<UInt32>?, _ attributes: UnsafePointer<UInt16>?, _ count: Int32, _ time: Int64,
    _ node: UInt32, _ result: UnsafeMutableRawPointer?
) -> Int32 {
    entry {
        let state = ColumnVersions(
            inserted: list(columns, attributes, count), base: RowVersion(time: time, node: node))
        try give(state.bytes, to: result)
    }
}

/// - Parameter commit: the commit will date the change, not `time`.
@c(bdr_engine_columns_change)
public func bdrEngineColumnsChange(
    _ state: UnsafePointer<UInt8>?, _ length: Int, _ columns: UnsafePointer<UInt32>?,
    _ attributes: UnsafePointer<UInt16>?, _ count: Int32, _ commit: Bool, _ time: Int64, _ node: UInt32,
    _ result: UnsafeMutableRawPointer?
) -> Int32 {
    entry {
        let changed = list(columns, attributes, count)
        var state = try versions(state, length)
        if commit {
            state.modify(changed)
        } else {
            state.resolve(RowVersion(time: time, node: node))
            state.source = .current
            state.change(changed, at: time, by: node)
        }
        try give(state.bytes, to: result)
    }
}

/// - Parameter known: false when it is not known any more when the transaction was committed.
@c(bdr_engine_columns_resolve)
public func bdrEngineColumnsResolve(
    _ state: UnsafePointer<UInt8>?, _ length: Int, _ known: Bool, _ time: Int64, _ node: UInt32,
    _ result: UnsafeMutableRawPointer?
) -> Int32 {
    entry {
        var state = try versions(state, length)
        state.resolve(known ? RowVersion(time: time, node: node) : nil)
        try give(state.bytes, to: result)
    }
}

@c(bdr_engine_columns_merge)
public func bdrEngineColumnsMerge(
    _ local: UnsafePointer<UInt8>?, _ localLength: Int, _ remote: UnsafePointer<UInt8>?, _ remoteLength: Int,
    _ columns: UnsafePointer<UInt32>?, _ count: Int32, _ later: UnsafeMutablePointer<UInt8>?,
    _ result: UnsafeMutableRawPointer?
) -> Int32 {
    entry {
        let local = try versions(local, localLength)
        let remote = try versions(remote, remoteLength)
        let columns = Array(UnsafeBufferPointer(start: columns, count: columns == nil ? 0 : max(0, Int(count))))
        for (number, isLater) in laterColumns(local: local, remote: remote, columns: columns).enumerated() {
            later?[number] = isLater ? 1 : 0
        }
        try give(local.merged(with: remote).bytes, to: result)
    }
}

/// For people: as text, or as JSON.
@c(bdr_engine_columns_text)
public func bdrEngineColumnsText(
    _ state: UnsafePointer<UInt8>?, _ length: Int, _ json: Bool, _ result: UnsafeMutableRawPointer?
) -> Int32 {
    entry {
        func time(_ version: RowVersion) -> String { String(cString: bdr_host_time_text(version.time)) }
        let state = try versions(state, length)
        let source = state.source == .commit ? "commit" : "current"
        let modified = state.modified.map { $0.attribute }.sorted().map { String($0) }
        let entries = state.entries
            .filter { entry in !state.modified.contains { $0.column == entry.column } }
            .sorted { $0.attribute < $1.attribute }
        var text: String
        if json {
            let map = entries.map { "\"\($0.attribute)\": \"\(time($0.version))\"" }.joined(separator: ", ")
            text = "{\"source\": \"\(source)\", \"default\": \"\(time(state.base))\", \"map\": {\(map)}"
            if !state.isResolved {
                text += ", \"modified\": [\(modified.joined(separator: ", "))]"
            }
        } else {
            let map = entries.map { "\($0.attribute) : \(time($0.version))" }.joined(separator: ", ")
            text = "{source: \(source), default: \(time(state.base)), map: [\(map)]"
            if !state.isResolved {
                text += ", modified: [\(modified.joined(separator: ", "))]"
            }
        }
        text += "}"
        try give(Array(text.utf8), to: result)
    }
}
