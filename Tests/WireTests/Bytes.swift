// Bytes as a test writes them down, put together without the module's own encoders; and memory for the decoders.

import Testing
import Wire

/// A field, as it is on the wire: little-endian, unless it says otherwise.
enum Field {
    case u8(UInt8)
    case u16(UInt16)
    case u32(UInt32)
    case u64(UInt64)
    case i16(Int16)
    case i32(Int32)
    case i64(Int64)
    case u32BE(UInt32)
    case u64BE(UInt64)
    /// One ASCII character.
    case char(Unicode.Scalar)
    /// Two bytes of length before it.
    case string(String)
    case bytes([UInt8])

    var packed: [UInt8] {
        switch self {
        case .u8(let value): [value]
        case .u16(let value): (0..<2).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
        case .u32(let value): (0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
        case .u64(let value): (0..<8).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
        case .i16(let value): Field.u16(UInt16(bitPattern: value)).packed
        case .i32(let value): Field.u32(UInt32(bitPattern: value)).packed
        case .i64(let value): Field.u64(UInt64(bitPattern: value)).packed
        case .u32BE(let value): Field.u32(value).packed.reversed()
        case .u64BE(let value): Field.u64(value).packed.reversed()
        case .char(let scalar): [UInt8(ascii: scalar)]
        case .string(let value): Field.u16(UInt16(value.utf8.count)).packed + Array(value.utf8)
        case .bytes(let value): value
        }
    }
}

func packed(_ fields: Field...) -> [UInt8] {
    fields.flatMap(\.packed)
}

/// A message: type, length, body.
func message(_ type: Unicode.Scalar, _ body: [UInt8]) -> [UInt8] {
    packed(.char(type), .u32(UInt32(body.count)), .bytes(body))
}

/// What `build` appends to an empty buffer.
func encoded(limit: Int = 1 << 20, _ build: (FrameBuffer) throws -> Void) rethrows -> [UInt8] {
    let buffer = FrameBuffer(limit: limit)
    try build(buffer)
    return Array(buffer.bytes)
}

/// Gives a copy of the bytes in memory of just that size, at an odd address.
func withMemory<R>(_ bytes: [UInt8], _ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: bytes.count + 1, alignment: 16)
    defer { memory.deallocate() }
    let copy = UnsafeMutableRawBufferPointer(start: memory + 1, count: bytes.count)
    copy.copyBytes(from: bytes)
    return try body(UnsafeRawBufferPointer(copy))
}

/// The code of the error that decoding the bytes ends in; nil when it doesn't.
func failure(_ bytes: [UInt8], _ decode: (UnsafeRawBufferPointer) throws -> Void) -> WireError.Code? {
    do {
        try withMemory(bytes, decode)
        return nil
    } catch let error as WireError {
        return error.code
    } catch {
        Issue.record(error)
        return nil
    }
}

/// Bytes from digits.
func hex(_ digits: String) -> [UInt8] {
    let values = digits.compactMap(\.hexDigitValue).map { UInt8($0) }
    return stride(from: 0, to: values.count - 1, by: 2).map { values[$0] << 4 | values[$0 + 1] }
}

extension UnsafeRawBufferPointer {
    /// Whether another range lies in this one. An empty one may be nowhere.
    func contains(_ part: UnsafeRawBufferPointer) -> Bool {
        guard part.count > 0 else {
            return true
        }
        guard let base = self.baseAddress, let start = part.baseAddress else {
            return false
        }
        return start >= base && start + part.count <= base + self.count
    }
}
