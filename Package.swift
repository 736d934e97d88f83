// swift-tools-version: 6.2
//
// The Swift half of bdr: one static library, linked with the C objects of Extension/ into bdr.so.
// Dependencies point one way: Wire, Conflict, Membership and Sequences know nothing of PostgreSQL; Engine joins them
// to the server through the host interface declared in CHost.

import PackageDescription

let package = Package(
    name: "bdr",
    products: [
        .library(name: "BDR", type: .static, targets: ["Engine"])
    ],
    targets: [
        .target(name: "Wire"),
        .target(name: "Conflict"),
        .target(name: "Membership"),
        .target(name: "Sequences"),
        .target(name: "CHost"),
        .target(name: "Engine", dependencies: ["CHost", "Wire", "Conflict", "Membership", "Sequences"]),
        .testTarget(name: "WireTests", dependencies: ["Wire"]),
        // Its model goes through millions of states.
        .testTarget(
            name: "ConflictTests", dependencies: ["Conflict"],
            swiftSettings: [.unsafeFlags(["-O"], .when(configuration: .debug))]),
        .testTarget(name: "MembershipTests", dependencies: ["Membership"]),
        .testTarget(
            name: "SequencesTests", dependencies: ["Sequences"],
            swiftSettings: [.unsafeFlags(["-O"], .when(configuration: .debug))]),
    ]
)
