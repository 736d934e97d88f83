// Server log and client messages below ERROR.

internal import CHost

enum Log {
    static func log(_ message: String, detail: String? = nil, hint: String? = nil) throws {
        try host(bdr_host_log(Int32(BDR_LOG_LOG), nil, message, detail, hint))
    }

    static func debug(_ message: String) throws {
        try host(bdr_host_log(Int32(BDR_LOG_DEBUG), nil, message, nil, nil))
    }

    static func notice(_ message: String, detail: String? = nil, hint: String? = nil) throws {
        try host(bdr_host_log(Int32(BDR_LOG_NOTICE), nil, message, detail, hint))
    }

    static func warning(_ message: String, sqlstate: String? = nil, detail: String? = nil, hint: String? = nil) throws {
        try host(bdr_host_log(Int32(BDR_LOG_WARNING), sqlstate, message, detail, hint))
    }
}
