// Appends rows to a buffer without building values first: the sender's hot path.
//
// What throws here may leave a part of a message behind, except where it is said otherwise: the caller truncates to the
// position at which the message began.

extension FrameBuffer {
    /// Starts the message of an insert; its tuple follows, then `endMessage`.
    @inlinable
    public func beginInsert(relId: UInt32) throws(WireError) -> Int {
        let token = try self.beginMessage(type: MessageType.insert.rawValue)
        try self.append32(relId)
        return token
    }

    /// Starts the message of an update; unless `oldKind` is `.none` the old tuple follows, then the new one, then
    /// `endMessage`.
    @inlinable
    public func beginUpdate(relId: UInt32, oldKind: OldTupleKind) throws(WireError) -> Int {
        let token = try self.beginMessage(type: MessageType.update.rawValue)
        try self.append32(relId)
        try self.append(oldKind.rawValue)
        return token
    }

    /// Starts the message of a delete; the old tuple follows, then `endMessage`.
    @inlinable
    public func beginDelete(relId: UInt32, oldKind: OldTupleKind) throws(WireError) -> Int {
        guard oldKind != .none else {
            throw WireError.malformed("a delete without its old row", at: self.count)
        }
        let token = try self.beginMessage(type: MessageType.delete.rawValue)
        try self.append32(relId)
        try self.append(oldKind.rawValue)
        return token
    }

    /// Starts a tuple in column form; exactly `count` times `appendColumnValue` follow.
    @inlinable
    public func beginColumnsTuple(count: Int) throws(WireError) {
        guard count >= 0 && count <= Limits.columns else {
            throw WireError.tooManyColumns(count, at: self.count)
        }
        let target = try self.room(for: 3)
        target.storeBytes(of: TupleForm.columns, as: UInt8.self)
        target.storeBytes(of: UInt16(truncatingIfNeeded: count).littleEndian, toByteOffset: 1, as: UInt16.self)
        self.commit(3)
    }

    /// One value of a tuple in column form.
    /// - Parameter bytes: ignored for `null` and `unchanged`; without the terminator, which is added here.
    @inlinable
    public func appendColumnValue(
        kind: ColumnKind, bytes: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
    ) throws(WireError) {
        switch kind {
        case .null, .unchanged:
            try self.append(kind.rawValue)
        case .unchangedBy:
            guard bytes.count == UnchangedValue.length else {
                throw WireError.malformed("an unchanged value takes 28 bytes", at: self.count)
            }
            try self.append(kind.rawValue)
            try self.append(bytes: bytes)
        case .binary, .text:
            guard let length = UInt32(exactly: bytes.count) else {
                throw WireError.limitExceeded("a value of 4 GB or more", at: self.count)
            }
            let total = 6 &+ bytes.count
            let target = try self.room(for: total)
            target.storeBytes(of: kind.rawValue, as: UInt8.self)
            target.storeBytes(of: length.littleEndian, toByteOffset: 1, as: UInt32.self)
            if let source = bytes.baseAddress, bytes.count > 0 {
                (target + 5).copyMemory(from: source, byteCount: bytes.count)
            }
            target.storeBytes(of: 0, toByteOffset: total &- 1, as: UInt8.self)
            self.commit(total)
        }
    }

    /// A tuple in raw form.
    /// - Parameters:
    ///   - bitmap: exactly (attributeCount + 7) / 8 bytes when `hasNulls`, else empty.
    ///   - data: the user data area of the heap tuple.
    @inlinable
    public func appendRawTuple(
        attributeCount: Int, hasNulls: Bool, hasVarWidth: Bool, bitmap: UnsafeRawBufferPointer,
        data: UnsafeRawBufferPointer
    ) throws(WireError) {
        let size = try self.rawTupleSize(attributeCount, hasNulls, bitmap, data)
        Self.storeRawTuple(try self.room(for: size), attributeCount, hasNulls, hasVarWidth, bitmap, data)
        self.commit(size)
    }

    /// A whole insert message with a raw tuple. When it throws, nothing was appended.
    @inlinable
    public func appendInsertRaw(
        relId: UInt32, attributeCount: Int, hasNulls: Bool, hasVarWidth: Bool, bitmap: UnsafeRawBufferPointer,
        data: UnsafeRawBufferPointer
    ) throws(WireError) {
        let tupleSize = try self.rawTupleSize(attributeCount, hasNulls, bitmap, data)
        let body = 4 &+ tupleSize
        let target = try self.room(for: Self.messageHeader &+ body)
        target.storeBytes(of: MessageType.insert.rawValue, as: UInt8.self)
        target.storeBytes(of: UInt32(truncatingIfNeeded: body).littleEndian, toByteOffset: 1, as: UInt32.self)
        target.storeBytes(of: relId.littleEndian, toByteOffset: 5, as: UInt32.self)
        Self.storeRawTuple(target + 9, attributeCount, hasNulls, hasVarWidth, bitmap, data)
        self.commit(Self.messageHeader &+ body)
    }

    /// A whole update message with a raw new tuple and no old one. When it throws, nothing was appended.
    @inlinable
    public func appendUpdateRaw(
        relId: UInt32, attributeCount: Int, hasNulls: Bool, hasVarWidth: Bool, bitmap: UnsafeRawBufferPointer,
        data: UnsafeRawBufferPointer
    ) throws(WireError) {
        let tupleSize = try self.rawTupleSize(attributeCount, hasNulls, bitmap, data)
        let body = 5 &+ tupleSize
        let target = try self.room(for: Self.messageHeader &+ body)
        target.storeBytes(of: MessageType.update.rawValue, as: UInt8.self)
        target.storeBytes(of: UInt32(truncatingIfNeeded: body).littleEndian, toByteOffset: 1, as: UInt32.self)
        target.storeBytes(of: relId.littleEndian, toByteOffset: 5, as: UInt32.self)
        target.storeBytes(of: OldTupleKind.none.rawValue, toByteOffset: 9, as: UInt8.self)
        Self.storeRawTuple(target + 10, attributeCount, hasNulls, hasVarWidth, bitmap, data)
        self.commit(Self.messageHeader &+ body)
    }

    /// A tuple as it was decoded.
    public func appendTuple(_ tuple: TupleView) throws(WireError) {
        switch tuple {
        case .columns(let count, let bytes):
            try self.beginColumnsTuple(count: count)
            try self.append(bytes: bytes)
        case .raw(let attributeCount, let hasNulls, let hasVarWidth, let bitmap, let data):
            try self.appendRawTuple(
                attributeCount: attributeCount, hasNulls: hasNulls, hasVarWidth: hasVarWidth, bitmap: bitmap,
                data: data)
        case .kept:
            throw WireError.malformed("a row that is no tuple of a message", at: self.count)
        }
    }

    /// Bytes of a raw tuple before bitmap and data.
    @usableFromInline static let rawHeader = 8

    /// Checks the parts of a raw tuple and adds up their size, which together with a message's header fits into 32 bits.
    @inlinable
    @inline(__always)
    func rawTupleSize(
        _ attributeCount: Int, _ hasNulls: Bool, _ bitmap: UnsafeRawBufferPointer, _ data: UnsafeRawBufferPointer
    ) throws(WireError) -> Int {
        guard attributeCount >= 0 && attributeCount <= Limits.columns else {
            throw WireError.tooManyColumns(attributeCount, at: self.count)
        }
        guard bitmap.count == (hasNulls ? (attributeCount &+ 7) / 8 : 0) else {
            throw WireError.malformed("the null bitmap of a raw tuple has the wrong size", at: self.count)
        }
        // a tuple of the heap is below 1 GB
        guard data.count <= 1 << 30 else {
            throw WireError.limitExceeded("a raw tuple of more than 1 GB", at: self.count)
        }
        return Self.rawHeader &+ bitmap.count &+ data.count
    }

    @inlinable
    @inline(__always)
    static func storeRawTuple(
        _ target: UnsafeMutableRawPointer, _ attributeCount: Int, _ hasNulls: Bool, _ hasVarWidth: Bool,
        _ bitmap: UnsafeRawBufferPointer, _ data: UnsafeRawBufferPointer
    ) {
        let flags = (hasNulls ? RawFlags.hasNulls : 0) | (hasVarWidth ? RawFlags.hasVarWidth : 0)
        target.storeBytes(of: TupleForm.raw, as: UInt8.self)
        target.storeBytes(of: UInt16(truncatingIfNeeded: attributeCount).littleEndian, toByteOffset: 1, as: UInt16.self)
        target.storeBytes(of: flags, toByteOffset: 3, as: UInt8.self)
        target.storeBytes(of: UInt32(truncatingIfNeeded: data.count).littleEndian, toByteOffset: 4, as: UInt32.self)
        if let source = bitmap.baseAddress {
            (target + Self.rawHeader).copyMemory(from: source, byteCount: bitmap.count)
        }
        if let source = data.baseAddress {
            (target + (Self.rawHeader &+ bitmap.count)).copyMemory(from: source, byteCount: data.count)
        }
    }
}
