// Applies DDL of the origin: runs the statement where it stands among the changes of its transaction.

internal import CHost
internal import Conflict
internal import Wire

extension Applier {
    func ddl(_ content: UnsafeRawBufferPointer) throws {
        let transaction = try self.requireTransaction()
        self.change &+= 1
        if self.skipping {
            return
        }
        let message = try DdlMessage(decoding: content)
        // what this relation maps to may be another one afterwards, and it may not be open meanwhile
        for relation in self.relations.values {
            relation.forgetUse()
        }
        do {
            try Self.withHostDdl(message) { ddl in
                try host(bdr_host_ddl(ddl, content.baseAddress?.assumingMemoryBound(to: UInt8.self), content.count))
            }
        } catch {
            setPending(error)
            if self.conflicts.resolvers.resolver(for: .applyErrorDdl) == .skipTransaction, Self.isLasting {
                try self.leaveOut(transaction, message)
                return
            }
            bdr_host_error_add_context(
                "during apply of \(String(decoding: message.tag, as: UTF8.self)) from node \"\(self.settings.peerName)\", commit LSN "
                    + "\(LSN.text(transaction.commitLSN)), change #\(self.change)")
            throw LocatedError()
        }
        bdr_host_progress_count(Int32(BDR_COUNT_DDL), 1)
    }

    /// Whether the pending error would come again: not one of concurrency, resources, or an operator's.
    private static var isLasting: Bool {
        let state = String(cString: bdr_host_error_sqlstate())
        return !["08", "40", "53", "55", "57", "58", "XX"].contains(String(state.prefix(2)))
    }

    /// Undoes what was applied of the transaction, and drops the rest of it.
    private func leaveOut(_ transaction: BeginMessage, _ message: DdlMessage) throws {
        let reason = String(cString: bdr_host_error_message())
        try host(bdr_host_apply_abort())
        for relation in self.relations.values {
            relation.forgetUse()
        }
        self.transactionNumber &+= 1
        try host(bdr_host_apply_begin(transaction.commitLSN, transaction.commitTime))
        try self.conflicts.begin()
        try Log.warning(
            "left out a transaction of node \"\(self.settings.peerName)\" whose \(String(decoding: message.tag, as: UTF8.self)) failed: \(reason)",
            sqlstate: SQLSTATE.objectNotInPrerequisiteState,
            detail: "Commit LSN \(LSN.text(transaction.commitLSN)); statement: \(String(decoding: message.statement, as: UTF8.self))",
            hint: "The nodes differ now. The conflict resolver \"apply_error_ddl\" is \"skip_transaction\".")
        self.skipping = true
        self.leavesOut = true
        bdr_host_stats_skipped(self.settings.peerID)
    }

    /// The message as C has it, during the call.
    private static func withHostDdl(_ message: DdlMessage, _ body: (UnsafePointer<BdrDdl>) throws -> Int32) throws {
        let fixed = [message.tag, message.role, message.sessionRole, message.statement, message.server]
        let settings = message.settings.flatMap { [$0.name, $0.value] }
        let all = fixed + settings + message.replicationSets
        var storage: [CChar] = []
        var offsets: [Int] = []
        for text in all {
            offsets.append(storage.count)
            for byte in text {
                storage.append(CChar(bitPattern: byte))
            }
            storage.append(0)
        }
        try storage.withUnsafeBufferPointer { bytes in
            guard let base = bytes.baseAddress else {
                return
            }
            let pointers: [UnsafePointer<CChar>?] = offsets.map { base + $0 }
            let settingPointers = Array(pointers[fixed.count..<(fixed.count + settings.count)]) + [nil]
            let setPointers = Array(pointers[(fixed.count + settings.count)...]) + [nil]
            try settingPointers.withUnsafeBufferPointer { settings in
                try setPointers.withUnsafeBufferPointer { sets in
                    var ddl = BdrDdl()
                    ddl.tag = pointers[0]
                    ddl.role = pointers[1]
                    ddl.session_role = pointers[2]
                    ddl.statement = pointers[3]
                    ddl.server = pointers[4]
                    ddl.settings = settings.baseAddress
                    ddl.sets = sets.baseAddress
                    ddl.of_server = message.isOfServer
                    try host(body(&ddl))
                }
            }
        }
    }
}
