// swift-tools-version: 6.2
//
// The Swift half of bdr: one static library, linked with the C objects of Extension/ into bdr.so.
// Dependencies point one way: Wire, Conflict, Membership and Sequences know nothing of PostgreSQL; Engine joins them
// to the server through the host interface declared in CHost.
//
// And bdrctl, the operator's tool: a program of its own, which speaks SQL only and is not part of bdr.so. It alone needs a
// package; with BDR_SERVER_ONLY set in the environment (as Extension/pgxs.mk does) it is left out, so that building the
// module fetches nothing.

import PackageDescription

let package = Package(
    name: "bdr",
    products: [
        .library(name: "BDR", type: .static, targets: ["Engine"]),
        // Counted by scripts/check-counts.
        .executable(name: "hot-loops", targets: ["HotLoops"]),
    ],
    targets: [
        .target(name: "Wire"),
        .target(name: "Conflict"),
        .target(name: "Membership"),
        .target(name: "Sequences"),
        .target(name: "CHost"),
        .target(name: "Engine", dependencies: ["CHost", "Wire", "Conflict", "Membership", "Sequences"]),
        .executableTarget(name: "HotLoops", dependencies: ["Wire", "Conflict"], path: "Tests/HotLoops"),
        .target(name: "TestSupport", path: "Tests/TestSupport"),
        .testTarget(name: "WireTests", dependencies: ["Wire", "TestSupport"]),
        // Its model goes through millions of states.
        .testTarget(
            name: "ConflictTests", dependencies: ["Conflict", "TestSupport"],
            swiftSettings: [.unsafeFlags(["-O"], .when(configuration: .debug))]),
        .testTarget(name: "MembershipTests", dependencies: ["Membership", "TestSupport"]),
        .testTarget(
            name: "SequencesTests", dependencies: ["Sequences"],
            swiftSettings: [.unsafeFlags(["-O"], .when(configuration: .debug))]),
    ]
)

if Context.environment["BDR_SERVER_ONLY"] == nil {
    package.dependencies.append(.package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"))
    package.products.append(.executable(name: "bdrctl", targets: ["bdrctl"]))
    package.targets += [
        .target(name: "CLibpq", linkerSettings: [.linkedLibrary("pq")]),
        .target(name: "Operations", dependencies: ["Membership"]),
        .executableTarget(
            name: "bdrctl",
            dependencies: [
                "CLibpq", "Membership", "Operations", .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ]),
        .testTarget(name: "OperationsTests", dependencies: ["Operations", "bdrctl"]),
    ]
}
