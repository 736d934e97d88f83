// Errors as the engine throws them, and the guard around every entry point that C calls.
//
// Two kinds travel through Swift frames: `BdrError`, made in Swift, which becomes the pending error of the boundary when it
// reaches the entry point; and `HostError`, a token that says that the server raised an ERROR, which is pending already.

internal import CHost
internal import Conflict
internal import Membership
internal import Wire

/// An error with everything that a server ERROR shows its user.
struct BdrError: Error {
    /// Five characters, for example "0A000".
    var sqlstate: String
    var message: String
    var detail: String?
    var hint: String?
    var context: String?

    init(_ sqlstate: String, _ message: String, detail: String? = nil, hint: String? = nil, context: String? = nil) {
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail
        self.hint = hint
        self.context = context
    }
}

/// The server raised an ERROR inside a host call; the boundary holds it. Never swallow it: unwind to the entry point.
struct HostError: Error {}

/// Throws `HostError` when a host call reported a pending error, else gives back its outcome.
@discardableResult
@inline(__always)
func host(_ status: Int32) throws -> Int32 {
    if status == BDR_HOST_ERROR {
        throw HostError()
    }
    return status
}

/// Runs the body of an entry point. Returns 0, or 1 with an error pending at the boundary.
func entry(_ body: () throws -> Void) -> Int32 {
    do {
        try body()
        return 0
    } catch {
        setPending(error)
        return 1
    }
}

/// Makes any error the boundary's pending one (a no-op for `HostError`, which is pending already).
func setPending(_ error: any Error) {
    switch error {
    case is HostError:
        break
    case let error as BdrError:
        bdr_host_error_set(error.sqlstate, error.message, error.detail, error.hint, error.context)
    case let error as WireError:
        let code =
            switch error.code {
            case .unsupported: SQLSTATE.featureNotSupported
            case .limitExceeded: SQLSTATE.programLimitExceeded
            default: SQLSTATE.protocolViolation
            }
        bdr_host_error_set(
            code, "replication message could not be decoded: \(error.message)", "At byte \(error.offset) of the message.",
            nil, nil)
    case let error as RemoteError:
        bdr_host_error_set(
            error.sqlstate, error.message, error.detail.isEmpty ? nil : error.detail,
            error.hint.isEmpty ? nil : error.hint, nil)
    case let error as CRDTError:
        bdr_host_error_set(error.sqlstate, error.message, error.detail, error.hint, nil)
    case let error as MembershipError:
        bdr_host_error_set(error.sqlstate, error.message, error.detail, error.hint, nil)
    default:
        bdr_host_error_set(SQLSTATE.internalError, "\(error)", nil, nil, nil)
    }
}

/// SQLSTATEs that the engine raises itself; names as in PostgreSQL's errcodes.
enum SQLSTATE {
    static let featureNotSupported = "0A000"
    static let connectionException = "08000"
    static let connectionFailure = "08006"
    static let protocolViolation = "08P01"
    static let invalidParameterValue = "22023"
    static let insufficientPrivilege = "42501"
    static let undefinedTable = "42P01"
    static let undefinedColumn = "42703"
    static let undefinedObject = "42704"
    static let duplicateObject = "42710"
    static let objectInUse = "55006"
    static let objectNotInPrerequisiteState = "55000"
    static let programLimitExceeded = "54000"
    static let tooManyConnections = "53300"
    static let configurationLimitExceeded = "53400"
    static let cannotConnectNow = "57P03"
    static let externalRoutineException = "38000"
    static let internalError = "XX000"
    static let dataCorrupted = "XX001"
}
