// Arithmetic of global sequences for C (Extension/sequences.c). Nothing here fails, calls the server or takes memory: the steps
// of a sequence are made under a spinlock.

internal import CHost
internal import Sequences

@inline(__always)
private func layout(_ kind: CChar) -> TimeLayout {
    kind == CChar(UInt8(ascii: "t")) ? .timeshard : .snowflakeid
}

/// 0: *next is the state that follows; 1: not before the next millisecond; 2: there is none.
@c(bdr_engine_sequence_step)
public func bdrEngineSequenceStep(
    _ kind: CChar, _ last: UInt64, _ clock: Int64, _ next: UnsafeMutablePointer<UInt64>
) -> Int32 {
    switch layout(kind).step(after: last, clock: clock) {
    case .next(let state):
        next.pointee = state
        return 0
    case .wait: return 1
    case .exhausted: return 2
    }
}

@c(bdr_engine_sequence_value)
public func bdrEngineSequenceValue(_ kind: CChar, _ state: UInt64, _ node: Int32) -> Int64 {
    layout(kind).value(of: state, node: node)
}

@c(bdr_engine_sequence_mark)
public func bdrEngineSequenceMark(_ kind: CChar, _ value: Int64) -> UInt64 { layout(kind).mark(of: value) }

/// Milliseconds of a state, since the kind's epoch.
@c(bdr_engine_sequence_milliseconds)
public func bdrEngineSequenceMilliseconds(_ kind: CChar, _ state: UInt64) -> UInt64 {
    layout(kind).milliseconds(of: state)
}

@c(bdr_engine_sequence_reservation)
public func bdrEngineSequenceReservation(_ kind: CChar, _ milliseconds: UInt64, _ node: Int32) -> Int64 {
    layout(kind).reservation(milliseconds, node: node)
}

@c(bdr_engine_sequence_parts)
public func bdrEngineSequenceParts(
    _ kind: CChar, _ value: Int64, _ time: UnsafeMutablePointer<Int64>, _ node: UnsafeMutablePointer<Int32>,
    _ counter: UnsafeMutablePointer<Int32>
) {
    let layout = layout(kind)
    time.pointee = layout.time(of: value)
    node.pointee = layout.node(of: value)
    counter.pointee = layout.counter(of: value)
}

/// False: the time has no value.
@c(bdr_engine_sequence_smallest)
public func bdrEngineSequenceSmallest(_ kind: CChar, _ milliseconds: Int64, _ value: UnsafeMutablePointer<Int64>) -> Bool {
    guard let smallest = layout(kind).smallest(at: milliseconds) else {
        return false
    }
    value.pointee = smallest
    return true
}

@c(bdr_engine_ksuuid_make)
public func bdrEngineKSUUIDMake(_ version: Int32, _ time: Int64, _ random: UInt64, _ uuid: UnsafeMutablePointer<UInt8>) {
    let bytes = version == 1 ? KSUUID.version1(time, random: random) : KSUUID.version2(time, random: random)
    for (number, byte) in bytes.prefix(16).enumerated() {
        uuid[number] = byte
    }
}

/// False: it has no time.
@c(bdr_engine_ksuuid_time)
public func bdrEngineKSUUIDTime(_ version: Int32, _ uuid: UnsafePointer<UInt8>, _ time: UnsafeMutablePointer<Int64>) -> Bool {
    let bytes = Array(UnsafeBufferPointer(start: uuid, count: 16))
    guard let found = version == 1 ? KSUUID.time1(bytes) : KSUUID.time2(bytes) else {
        return false
    }
    time.pointee = found
    return true
}

@c(bdr_engine_ksuuid_compare)
public func bdrEngineKSUUIDCompare(_ version: Int32, _ left: UnsafePointer<UInt8>, _ right: UnsafePointer<UInt8>) -> Int32 {
    let left = Array(UnsafeBufferPointer(start: left, count: 16))
    let right = Array(UnsafeBufferPointer(start: right, count: 16))
    return version == 1 ? KSUUID.compare1(left, right) : KSUUID.compare2(left, right)
}
