// The conflict-free data types as the SQL functions see them: states and numbers as bytes in, bytes out. A state says in its
// second byte which type it is of.

public enum CRDT {
    // MARK: New states

    /// A counter with an initial value.
    public static func counter(_ type: CRDTType, initial: Int64) throws(CRDTError) -> [UInt8] {
        guard !type.isSum else {
            throw self.wrongType(type)
        }
        return try CRDTState<CRDTInteger>(type: type, initial: initial).bytes
    }

    /// A sum with an initial value.
    /// - Parameter numeric: in numeric's binary format.
    public static func sum(_ type: CRDTType, initial numeric: UnsafeRawBufferPointer) throws(CRDTError) -> [UInt8] {
        guard type.isSum else {
            throw self.wrongType(type)
        }
        return try CRDTState<CRDTNumeric>(type: type, initial: try CRDTDecimal(numeric: numeric)).bytes
    }

    /// A state from its text.
    public static func parse(_ text: UnsafeRawBufferPointer, as type: CRDTType) throws(CRDTError) -> [UInt8] {
        type.isSum
            ? try CRDTState<CRDTNumeric>(text: text, type: type).bytes : try CRDTState<CRDTInteger>(text: text, type: type).bytes
    }

    /// - Throws: unless the bytes are a state of the type.
    public static func check(_ state: UnsafeRawBufferPointer, is type: CRDTType) throws(CRDTError) {
        if type.isSum {
            _ = try CRDTState<CRDTNumeric>(state, type: type)
        } else {
            _ = try CRDTState<CRDTInteger>(state, type: type)
        }
    }

    // MARK: Reading

    public static func type(of state: UnsafeRawBufferPointer) throws(CRDTError) -> CRDTType {
        guard state.count >= 2, let type = CRDTType(rawValue: state[1] & 0x7f) else {
            throw .malformed("it is of no known type")
        }
        return type
    }

    /// All of it, readable, and what `parse` reads.
    public static func stateText(_ state: UnsafeRawBufferPointer) throws(CRDTError) -> [UInt8] {
        let type = try self.type(of: state)
        var text: [UInt8] = []
        if type.isSum {
            try CRDTState<CRDTNumeric>(state, type: type).write(to: &text)
        } else {
            try CRDTState<CRDTInteger>(state, type: type).write(to: &text)
        }
        return text
    }

    /// The value as text, whatever its size.
    public static func valueText(_ state: UnsafeRawBufferPointer) throws(CRDTError) -> [UInt8] {
        let type = try self.type(of: state)
        var text: [UInt8] = []
        if type.isSum {
            CRDTNumeric.text(try CRDTState<CRDTNumeric>(state, type: type).total, to: &text)
        } else {
            CRDTInteger.text(try CRDTState<CRDTInteger>(state, type: type).total, to: &text)
        }
        return text
    }

    /// The value of a counter.
    public static func integer(_ state: UnsafeRawBufferPointer) throws(CRDTError) -> Int64 {
        guard let value = Int64(exactly: try CRDTState<CRDTInteger>(state, type: try self.counterType(state)).total) else {
            throw .outOfRange("bigint")
        }
        return value
    }

    /// The value of a sum, in numeric's binary format.
    public static func numeric(_ state: UnsafeRawBufferPointer) throws(CRDTError) -> [UInt8] {
        try CRDTState<CRDTNumeric>(state, type: try self.sumType(state)).total.numeric()
    }

    /// By value: -1, 0 or 1.
    public static func compare(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) throws(CRDTError) -> Int {
        let type = try self.type(of: left)
        return type.isSum
            ? CRDTNumeric.compareTotals(
                try CRDTState<CRDTNumeric>(left, type: type).total, try CRDTState<CRDTNumeric>(right, type: type).total)
            : CRDTInteger.compareTotals(
                try CRDTState<CRDTInteger>(left, type: type).total, try CRDTState<CRDTInteger>(right, type: type).total)
    }

    /// Bytes that are the same for equal values.
    public static func hashKey(_ state: UnsafeRawBufferPointer) throws(CRDTError) -> [UInt8] {
        let type = try self.type(of: state)
        var key: [UInt8] = []
        if type.isSum {
            CRDTNumeric.hashKey(try CRDTState<CRDTNumeric>(state, type: type).total, to: &key)
        } else {
            CRDTInteger.hashKey(try CRDTState<CRDTInteger>(state, type: type).total, to: &key)
        }
        return key
    }

    // MARK: Changing

    /// Adds to a counter, or subtracts.
    /// - Parameter node: the node that does it, and whose part of the state changes.
    public static func add(
        _ change: Int64, to state: UnsafeRawBufferPointer, by node: UInt32, subtract: Bool = false
    ) throws(CRDTError) -> [UInt8] {
        var result = try CRDTState<CRDTInteger>(state, type: try self.counterType(state))
        try result.add(change, by: node, subtract: subtract)
        return result.bytes
    }

    /// Adds to a sum, or subtracts.
    /// - Parameter numeric: the change, in numeric's binary format.
    public static func add(
        numeric: UnsafeRawBufferPointer, to state: UnsafeRawBufferPointer, by node: UInt32, subtract: Bool = false
    ) throws(CRDTError) -> [UInt8] {
        var result = try CRDTState<CRDTNumeric>(state, type: try self.sumType(state))
        try result.add(try CRDTDecimal(numeric: numeric), by: node, subtract: subtract)
        return result.bytes
    }

    /// Makes the value 0.
    public static func reset(_ state: UnsafeRawBufferPointer) throws(CRDTError) -> [UInt8] {
        let type = try self.type(of: state)
        if type.isSum {
            var result = try CRDTState<CRDTNumeric>(state, type: type)
            result.reset()
            return result.bytes
        }
        var result = try CRDTState<CRDTInteger>(state, type: type)
        result.reset()
        return result.bytes
    }

    /// What a column becomes when a row with the value `new` arrives and the local one has `local`.
    /// - Parameter old: what the sender's row had before; nil when that is not known, or the row is new.
    public static func merge(
        local: UnsafeRawBufferPointer, old: UnsafeRawBufferPointer?, new: UnsafeRawBufferPointer
    ) throws(CRDTError) -> [UInt8] {
        let type = try self.type(of: new)
        return type.isSum
            ? try self.merge(CRDTNumeric.self, type, local: local, old: old, new: new)
            : try self.merge(CRDTInteger.self, type, local: local, old: old, new: new)
    }

    private static func merge<Number: CRDTNumber>(
        _: Number.Type, _ type: CRDTType, local: UnsafeRawBufferPointer, old: UnsafeRawBufferPointer?,
        new: UnsafeRawBufferPointer
    ) throws(CRDTError) -> [UInt8] {
        var merged = try CRDTState<Number>(local, type: type)
        merged.merge(try CRDTState<Number>(new, type: type))
        let result = merged.bytes
        // What was added up can't come to less. If the new value lacks some of the old one, it was assigned, and as nobody has
        // changed the value here meanwhile, the assignment holds: otherwise the nodes would differ for ever.
        if let old, old.elementsEqual(local), !result.elementsEqual(new) {
            return [UInt8](new)
        }
        return result
    }

    /// The same for a column of type bdr.crdt_delta_counter, whose values are plain numbers.
    public static func mergeDelta(local: Int64, old: Int64, new: Int64) throws(CRDTError) -> Int64 {
        guard let result = Int64(exactly: Int128(local) &+ (Int128(new) &- Int128(old))) else {
            throw CRDTError(
                "22003", "bigint out of range",
                detail: "The local value \(local) can't take the change from \(old) to \(new) of another node.")
        }
        return result
    }

    // MARK: Types

    private static func counterType(_ state: UnsafeRawBufferPointer) throws(CRDTError) -> CRDTType {
        let type = try self.type(of: state)
        guard !type.isSum else {
            throw self.wrongType(type)
        }
        return type
    }

    private static func sumType(_ state: UnsafeRawBufferPointer) throws(CRDTError) -> CRDTType {
        let type = try self.type(of: state)
        guard type.isSum else {
            throw self.wrongType(type)
        }
        return type
    }

    private static func wrongType(_ type: CRDTType) -> CRDTError {
        CRDTError("42804", "a value of type \(type.name) can't be used here")
    }
}
