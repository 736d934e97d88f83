// What the functions of the conflict-free types call (Extension/crdt.c).

internal import CHost
internal import Conflict

private func bytes(_ data: UnsafePointer<UInt8>?, _ length: Int) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: data, count: data == nil ? 0 : length)
}

private func give(_ bytes: [UInt8], to result: UnsafeMutableRawPointer?) throws {
    try host(bytes.withUnsafeBufferPointer { bdr_host_crdt_result(result, $0.baseAddress, $0.count) })
}

private func type(_ number: UInt8) throws -> CRDTType {
    guard let type = CRDTType(rawValue: number) else {
        throw BdrError(SQLSTATE.internalError, "unknown conflict-free type \(number)")
    }
    return type
}

@c(bdr_engine_crdt_counter)
public func bdrEngineCRDTCounter(_ number: UInt8, _ initial: Int64, _ result: UnsafeMutableRawPointer?) -> Int32 {
    entry { try give(CRDT.counter(type(number), initial: initial), to: result) }
}

@c(bdr_engine_crdt_sum)
public func bdrEngineCRDTSum(
    _ number: UInt8, _ initial: UnsafePointer<UInt8>?, _ length: Int, _ result: UnsafeMutableRawPointer?
) -> Int32 {
    entry { try give(CRDT.sum(type(number), initial: bytes(initial, length)), to: result) }
}

@c(bdr_engine_crdt_parse)
public func bdrEngineCRDTParse(
    _ number: UInt8, _ text: UnsafePointer<UInt8>?, _ length: Int, _ result: UnsafeMutableRawPointer?
) -> Int32 {
    entry { try give(CRDT.parse(bytes(text, length), as: type(number)), to: result) }
}

@c(bdr_engine_crdt_check)
public func bdrEngineCRDTCheck(_ number: UInt8, _ state: UnsafePointer<UInt8>?, _ length: Int) -> Int32 {
    entry { try CRDT.check(bytes(state, length), is: type(number)) }
}

@c(bdr_engine_crdt_text)
public func bdrEngineCRDTText(
    _ state: UnsafePointer<UInt8>?, _ length: Int, _ whole: Bool, _ result: UnsafeMutableRawPointer?
) -> Int32 {
    entry {
        let state = bytes(state, length)
        try give(whole ? CRDT.stateText(state) : CRDT.valueText(state), to: result)
    }
}

@c(bdr_engine_crdt_integer)
public func bdrEngineCRDTInteger(
    _ state: UnsafePointer<UInt8>?, _ length: Int, _ value: UnsafeMutablePointer<Int64>?
) -> Int32 {
    entry { value?.pointee = try CRDT.integer(bytes(state, length)) }
}

@c(bdr_engine_crdt_numeric)
public func bdrEngineCRDTNumeric(
    _ state: UnsafePointer<UInt8>?, _ length: Int, _ result: UnsafeMutableRawPointer?
) -> Int32 {
    entry { try give(CRDT.numeric(bytes(state, length)), to: result) }
}

@c(bdr_engine_crdt_compare)
public func bdrEngineCRDTCompare(
    _ left: UnsafePointer<UInt8>?, _ leftLength: Int, _ right: UnsafePointer<UInt8>?, _ rightLength: Int,
    _ order: UnsafeMutablePointer<Int32>?
) -> Int32 {
    entry {
        order?.pointee = Int32(
            truncatingIfNeeded: try CRDT.compare(bytes(left, leftLength), bytes(right, rightLength)))
    }
}

@c(bdr_engine_crdt_hash_key)
public func bdrEngineCRDTHashKey(
    _ state: UnsafePointer<UInt8>?, _ length: Int, _ result: UnsafeMutableRawPointer?
) -> Int32 {
    entry { try give(CRDT.hashKey(bytes(state, length)), to: result) }
}

@c(bdr_engine_crdt_add_integer)
public func bdrEngineCRDTAddInteger(
    _ state: UnsafePointer<UInt8>?, _ length: Int, _ change: Int64, _ node: UInt32, _ subtract: Bool,
    _ result: UnsafeMutableRawPointer?
) -> Int32 {
    entry { try give(CRDT.add(change, to: bytes(state, length), by: node, subtract: subtract), to: result) }
}

@c(bdr_engine_crdt_add_numeric)
public func bdrEngineCRDTAddNumeric(
    _ state: UnsafePointer<UInt8>?, _ length: Int, _ change: UnsafePointer<UInt8>?, _ changeLength: Int, _ node: UInt32,
    _ subtract: Bool, _ result: UnsafeMutableRawPointer?
) -> Int32 {
    entry {
        try give(
            CRDT.add(numeric: bytes(change, changeLength), to: bytes(state, length), by: node, subtract: subtract),
            to: result)
    }
}

@c(bdr_engine_crdt_reset)
public func bdrEngineCRDTReset(
    _ state: UnsafePointer<UInt8>?, _ length: Int, _ result: UnsafeMutableRawPointer?
) -> Int32 {
    entry { try give(CRDT.reset(bytes(state, length)), to: result) }
}

@c(bdr_engine_crdt_merge)
public func bdrEngineCRDTMerge(
    _ local: UnsafePointer<UInt8>?, _ localLength: Int, _ old: UnsafePointer<UInt8>?, _ oldLength: Int,
    _ new: UnsafePointer<UInt8>?, _ newLength: Int, _ result: UnsafeMutableRawPointer?
) -> Int32 {
    entry {
        try give(
            CRDT.merge(
                local: bytes(local, localLength), old: old.map { bytes($0, oldLength) }, new: bytes(new, newLength)),
            to: result)
    }
}

@c(bdr_engine_crdt_merge_delta)
public func bdrEngineCRDTMergeDelta(
    _ local: Int64, _ old: Int64, _ new: Int64, _ result: UnsafeMutablePointer<Int64>?
) -> Int32 {
    entry { result?.pointee = try CRDT.mergeDelta(local: local, old: old, new: new) }
}
