// Which errors are tried again.

import Membership
import Testing

@Suite struct SQLStateTests {
    @Test(arguments: [
        "08000", "08001", "08003", "08004", "08006", "40000", "40001", "40003", "40P01", "53000", "53100", "53200",
        "53300", "53400", "25P03", "55006", "55P03", "57014", "57P01", "57P02", "57P03", "57P05", "58000", "58030",
        "72000",
    ])
    func passesByItself(sqlstate: String) {
        #expect(SQLState.isTransient(sqlstate))
        #expect(!SQLState.isRace(sqlstate))
    }

    /// About the data, the setup or the program; and what is no SQLSTATE at all.
    @Test(arguments: [
        "08P01", "40002", "22P02", "23502", "23503", "28000", "28P01", "3D000", "42501", "42601", "42P01", "55000",
        "57000", "57P04", "58P01", "58P02", "0A000", "P0001", "XX001", "XX002",
        "", "08", "40", "5300", "530000", "0800é", " 08006", "xx000",
    ])
    func staysAsItIs(sqlstate: String) {
        #expect(!SQLState.isTransient(sqlstate))
        #expect(!SQLState.isRace(sqlstate))
    }

    @Test(arguments: ["23505", "23P01", "XX000"]) func race(sqlstate: String) {
        #expect(SQLState.isRace(sqlstate))
        #expect(!SQLState.isTransient(sqlstate))
    }
}
