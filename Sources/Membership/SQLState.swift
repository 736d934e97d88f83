// Which errors pass by themselves, so that a worker tries again, and which are about the data or the setup, so that it stops
// and shows them.

/// Classification of SQLSTATEs, five characters each.
public enum SQLState {
    /// Whether the same attempt may succeed later with nobody doing anything about it.
    ///
    /// - 08 connection, but not 08P01: a peer that breaks the protocol will break it again.
    /// - 40 rollback (serialization, deadlock), but not 40002, a constraint.
    /// - 53 resources: disk, memory, connections, and 53400, no free slot or worker.
    /// - 55P03 lock timeout; 55006 in use: the slot's old walsender has not noticed that we are gone.
    /// - 57014 cancelled: a timeout, or someone ended one statement; 57P01 to 57P03 and 57P05, 25P03: shutdown, crash of
    ///   another process, start-up, idle timeouts. Not 57P04, the database is gone.
    /// - 58000 and 58030: system and I/O errors. Not 58P01: a missing file (a library, or WAL already removed) stays so.
    /// - 72000: snapshot too old.
    ///
    /// Not XX000: an internal error that comes back every time must not be retried unseen; but see `isRace`.
    public static func isTransient(_ sqlstate: String) -> Bool {
        switch sqlstate {
        case "08P01", "40002": false
        case "25P03", "55006", "55P03", "57014", "57P01", "57P02", "57P03", "57P05", "58000", "58030", "72000": true
        default: ["08", "40", "53"].contains { sqlstate.utf8.count == 5 && sqlstate.hasPrefix($0) }
        }
    }

    /// Whether the error may come from another session having been faster, so that it is worth one more attempt before it
    /// counts as an error of the data.
    ///
    /// - 23505 and 23P01: a local row took the key between looking and inserting.
    /// - XX000: "tuple concurrently updated", "could not open relation", and other signs of concurrent DDL.
    public static func isRace(_ sqlstate: String) -> Bool {
        ["23505", "23P01", "XX000"].contains(sqlstate)
    }
}
