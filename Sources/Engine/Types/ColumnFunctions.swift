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

@c(bdr_engine_columns_create)
public func bdrEngineColumnsCreate(_ time: Int64, _ node: UInt32, _ result: UnsafeMutableRawPointer?) -> Int32 {
    entry { try give(ColumnVersions(base: RowVersion(time: time, node: node)).bytes, to: result) }
}

@c(bdr_engine_columns_change)
public func bdrEngineColumnsChange(
    _ state: UnsafePointer<UInt8>?, _ length: Int, _ columns: UnsafePointer<UInt32>?,
    _ attributes: UnsafePointer<UInt16>?, _ count: Int32, _ time: Int64, _ node: UInt32,
    _ result: UnsafeMutableRawPointer?
) -> Int32 {
    entry {
        var changed: [(column: UInt32, attribute: UInt16)] = []
        if let columns, let attributes {
            for number in 0..<max(0, Int(count)) {
                changed.append((columns[number], attributes[number]))
            }
        }
        var state = try versions(state, length)
        state.change(changed, at: time, by: node)
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
        let text: String
        let entries = state.entries.sorted { $0.attribute < $1.attribute }
        if json {
            let map = entries.map { "\"\($0.attribute)\": \"\(time($0.version))\"" }.joined(separator: ", ")
            text = "{\"source\": \"current\", \"default\": \"\(time(state.base))\", \"map\": {\(map)}}"
        } else {
            let map = entries.map { "\($0.attribute) : \(time($0.version))" }.joined(separator: ", ")
            text = "{source: current, default: \(time(state.base)), map: [\(map)]}"
        }
        try give(Array(text.utf8), to: result)
    }
}
