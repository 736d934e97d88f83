// What the tests of the error boundary call (bdr.boundary_test): each way in which an error can cross between C and Swift.

internal import CHost

/// - what: the error to make: "c_error", "swift_error", "nested" (a Swift error inside a server call inside Swift), "sql"
///   (an error raised by SQL), "wait" (waits until cancelled), "loop" (a Swift loop that only cancel ends), "ok".
/// - repetitions: how many errors are made and caught inside before the last one is raised; the caller sees whether memory
///   grows.
@c(bdr_engine_boundary_test)
public func bdrEngineBoundaryTest(_ what: UnsafePointer<CChar>?, _ repetitions: Int64) -> Int32 {
    entry {
        let kind = what.map { String(cString: $0) } ?? ""
        switch kind {
        case "ok":
            try SQL.query("SELECT 1")
        case "c_error":
            try host(bdr_host_raise_for_test("22012", "raised in C", "the detail", "the hint"))
        case "swift_error":
            throw try deep(repetitions)
        case "sql":
            try SQL.query("SELECT 1/0")
        case "nested":
            try SQL.query("SELECT bdr.boundary_test('swift_error', $1::bigint)", [String(repetitions)])
        case "wait":
            while true {
                try host(bdr_host_wait(nil, 1000))
            }
        case "loop":
            var spin: UInt64 = 0
            while true {
                spin &+= 1
                if spin % 4096 == 0 {
                    try host(bdr_host_check_interrupts())
                }
            }
        default:
            throw BdrError(
                SQLSTATE.invalidParameterValue, "unknown boundary test \"\(kind)\"",
                hint: "Use ok, c_error, swift_error, sql, nested, wait or loop.")
        }
    }
}

/// An error thrown through a few frames that own memory.
private func deep(_ depth: Int64) throws -> BdrError {
    let ballast = [UInt8](repeating: UInt8(truncatingIfNeeded: depth), count: 64)
    if depth > 0 && depth < 50 {
        return try deep(depth - 1)
    }
    throw BdrError(
        SQLSTATE.externalRoutineException, "thrown in Swift", detail: "\(ballast.count) bytes were held.",
        hint: "the hint")
}
