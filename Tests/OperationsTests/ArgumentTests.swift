// What bdrctl takes as arguments, and what it refuses.

import ArgumentParser
import Operations
import Testing

@testable import bdrctl

@Suite struct ArgumentTests {
    static func parse<Command: ParsableCommand>(_ arguments: String, as type: Command.Type) throws -> Command {
        try #require(try BDRControl.parseAsRoot(arguments.split(separator: " ").map(String.init)) as? Command)
    }

    @Test func switchover() throws {
        let command = try Self.parse("switchover --to next_node --config c --pgbouncer host=a --pgbouncer host=b --dry-run", as: Switchover.self)
        #expect(command.to == "next_node" && command.pgbouncer == ["host=a", "host=b"] && command.dryRun && !command.rolling)
        #expect(command.timeout == 60 && command.pauseTimeout == 10)
    }

    @Test func others() throws {
        #expect(try Self.parse("status --watch --interval 0.5 --json", as: Status.self).interval == 0.5)
        #expect(try Self.parse("compare public.a public.b --with n --chunk 5", as: Compare.self).tables == ["public.a", "public.b"])
        #expect(try Self.parse("part b --force", as: Part.self).force)
        #expect(try Self.parse("ha-config --check external", as: HAConfigCommand.self).check == .external)
        #expect(try Self.parse("join --name x --target t", as: Join.self).structure == "all")
        #expect(try Self.parse("health -d host=a", as: Health.self).node.dsn == "host=a")
    }

    @Test(arguments: [
        "switchover --to", "switchover --to x --timeout -1", "status --interval 0", "compare --chunk 0", "ha-config --check ping",
        "ha-config --bind-port 70000", "join --name x", "join --name x --target t --structure some", "health --max-lag much",
        "agent --interval 0", "check --nodes 0", "nothing", "part",
    ])
    func refused(arguments: String) {
        do {
            _ = try BDRControl.parseAsRoot(arguments.split(separator: " ").map(String.init))
            Issue.record("\(arguments) was accepted")
        } catch {
            #expect(BDRControl.exitCode(for: error) == .validationFailure)
        }
    }

    @Test func nodes() {
        #expect(parseNode("a-1=host:5432") == HANode(name: "a-1", host: "host", port: 5432))
        #expect(parseNode("a=[fd00::1]:5") == HANode(name: "a", host: "fd00::1", port: 5))
        for text in ["", "a", "a=host", "=host:1", "a=:1", "a=host:0", "a=host:65536", "a b=host:1", "a=ho st:1", "a:1=b"] {
            #expect(parseNode(text) == nil)
        }
    }
}
