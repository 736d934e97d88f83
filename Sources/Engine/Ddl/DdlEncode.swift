// What the capture of DDL calls (Extension/ddl_capture.c).

internal import CHost
internal import Wire

private func text(_ string: UnsafePointer<CChar>?) -> DdlMessage.Text {
    guard let string else {
        return []
    }
    var bytes: DdlMessage.Text = []
    var next = string
    while next.pointee != 0 {
        bytes.append(UInt8(bitPattern: next.pointee))
        next += 1
    }
    return bytes
}

/// The strings of a list that a null pointer ends.
private func texts(_ list: UnsafePointer<UnsafePointer<CChar>?>?) -> [DdlMessage.Text] {
    guard var next = list else {
        return []
    }
    var texts: [DdlMessage.Text] = []
    while let string = next.pointee {
        texts.append(text(string))
        next += 1
    }
    return texts
}

@c(bdr_engine_ddl_encode)
public func bdrEngineDdlEncode(_ ddl: UnsafeRawPointer?, _ result: UnsafeMutableRawPointer?) -> Int32 {
    entry {
        guard let ddl = ddl?.assumingMemoryBound(to: BdrDdl.self).pointee else {
            throw BdrError(SQLSTATE.internalError, "no statement to encode")
        }
        let settings = texts(ddl.settings)
        var message = DdlMessage(
            tag: text(ddl.tag), role: text(ddl.role), sessionRole: text(ddl.session_role), statement: text(ddl.statement),
            server: text(ddl.server), replicationSets: texts(ddl.sets), isOfServer: ddl.of_server)
        for (index, name) in settings.enumerated() where index % 2 == 0 && index + 1 < settings.count {
            message.settings.append(DdlMessage.Setting(name: name, value: settings[index + 1]))
        }
        let bytes = try message.encoded()
        try host(bytes.withUnsafeBufferPointer { bdr_host_crdt_result(result, $0.baseAddress, $0.count) })
    }
}
