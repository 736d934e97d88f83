// The apply worker of one peer: a process that streams the peer's changes and applies them, until it is told to stop or fails.
//
// It never repairs a connection or an error by itself: it ends with the error, and the manager starts it again after a pause.
// Progress lives in the commit records (replication origin), so a new process goes on exactly after the last transaction
// that is committed here.

internal import CHost
internal import Wire

@c(bdr_engine_apply_main)
public func bdrEngineApplyMain(_ peer: UInt32) -> Int32 {
    entry {
        guard let settings = try Transaction.run({ try ApplySettings.load(peer: peer) }) else {
            try Log.log("apply worker for node id \(peer) ends: there is no enabled subscription for it")
            return
        }
        try ApplyWorker(settings: settings).run()
    }
}

struct ApplyWorker {
    let settings: ApplySettings

    /// - Parameter target: end when everything before this position of the source's WAL is applied; nil: go on for ever.
    /// - Returns: whether the target was reached.
    @discardableResult
    func run(until target: UInt64? = nil) throws -> Bool {
        // transactions in progress are asked for until one could not be applied, and then for some time not
        let mayStream = target == nil && !self.settings.isForwarded
        var refusals = 0
        while true {
            do {
                switch try self.session(until: target, streaming: mayStream && Self.streams) {
                case .reached: return true
                case .stopped: return false
                case .changeStreaming: break
                }
            } catch let refused as StreamRefused {
                // it is sent again as a whole, and others after it; those that were being applied meanwhile, too
                try host(bdr_host_apply_abort())
                bdr_host_stream_after(bdr_host_now() &+ Self.refusalPause << min(refusals, Self.longestPause))
                refusals += 1
                if refused.isOfRun {
                    try Log.log(
                        "transactions of node \"\(self.settings.peerName)\" are applied by one process for some time",
                        detail: "They were being applied by several: \(refused.reason).")
                } else {
                    try Log.log(
                        "a transaction that is in progress on node \"\(self.settings.peerName)\" is applied when it is committed",
                        detail: "It was begun to be applied before: \(refused.reason).")
                }
            }
        }
    }

    /// None of them has failed shortly before.
    static var mayUseWriters: Bool {
        bdr_host_now() >= bdr_host_streams_after()
    }

    private static var streams: Bool {
        Self.mayUseWriters
            && bdr_host_setting("bdr.default_streaming_mode").map { String(cString: $0) } != "off"
    }

    /// Microseconds without streaming after one refusal; doubled with each further one, so many times at most.
    private static let refusalPause: Int64 = 60_000_000
    private static let longestPause = 6

    private enum Outcome {
        case reached
        case stopped
        /// Connect again, with transactions in progress or without.
        case changeStreaming
    }

    private func session(until target: UInt64?, streaming: Bool) throws -> Outcome {
        bdr_host_progress_status(Int32(BDR_SUB_STARTING))
        var progress: UInt64 = 0
        try host(bdr_host_origin_setup(self.settings.origin, &progress))
        var stream = try Stream(settings: self.settings, from: progress, streaming: streaming)
        // what an earlier stream was told may be of a timeline that the peer has left
        bdr_host_progress_flushed(self.settings.isForwarded ? 0 : progress)
        let applier = Applier(settings: self.settings, progress: progress)
        applier.whileWaiting = { try stream.sendFeedback(force: false) }
        let writers = Int(bdr_host_setting_int("bdr.writers_per_subscription", 2))
        // one is left for a transaction in progress; with two processors, sharing small ones gains nothing
        let processes = writers - 1
        let mayShare = target == nil && !self.settings.isForwarded && !self.settings.tracksPosition && processes > 1
        var parallel: ParallelApply?
        if streaming || mayShare {
            let streams = StreamWriters(settings: self.settings, limit: writers)
            streams.whileWaiting = applier.whileWaiting
            applier.streams = streams
            if mayShare {
                parallel = ParallelApply(applier: applier, streams: streams, processes: processes)
            }
        }
        defer {
            applier.whileWaiting = {}
            if applier.streams?.areBusy == true {
                // whatever it was, it may have to do with them
                bdr_host_stream_after(max(bdr_host_streams_after(), bdr_host_now() &+ Self.refusalPause))
            }
            applier.streams?.stop()
        }
        try Log.log(
            "replicating from node \"\(self.settings.peerName)\""
                + (self.settings.isForwarded ? ", forwarded by node \"\(self.settings.sourceName)\"" : ""),
            detail: "Slot \"\(self.settings.slot)\", from LSN \(LSN.text(progress)).")
        bdr_host_progress_status(Int32(BDR_SUB_CATCHUP))
        if !self.settings.isForwarded {
            bdr_host_stats_connected(self.settings.peerID, progress)
        }
        var caughtUp = false
        var reached: UInt64 = 0

        func applyCollected() throws -> Bool {
            guard let end = try parallel?.flush({ stream.committed(remoteEnd: $0, localEnd: $1) }) else {
                return false
            }
            stream.received(upTo: end)
            bdr_host_progress_received(end, end)
            reached = end
            return true
        }

        while true {
            var busy = true
            while busy {
                switch try stream.next() {
                case .messages(let bytes, let end):
                    if try bytes.count > 0 && parallel?.collect(bytes, end: end) == true {
                        if parallel?.isFull == true {
                            _ = try applyCollected()
                        }
                        // as long as there are more
                        continue
                    }
                    _ = try applyCollected()
                    if bytes.count > 0 {
                        try applier.apply(bytes) { remoteEnd, localEnd in
                            stream.committed(remoteEnd: remoteEnd, localEnd: localEnd)
                        }
                        // in the middle of a transaction nothing of it may look acknowledged
                        if applier.transaction == nil {
                            stream.received(upTo: end)
                            bdr_host_progress_received(end, end)
                            reached = end
                        }
                    }
                case .keepalive(let end, let replyRequested):
                    _ = try applyCollected()
                    if applier.transaction == nil {
                        stream.received(upTo: end)
                        bdr_host_progress_received(end, 0)
                        reached = end
                    }
                    if replyRequested {
                        try stream.sendFeedback(force: true)
                    }
                case .nothing:
                    busy = try applyCollected()
                }
                try host(bdr_host_check_interrupts())
                if busy && stream.feedbackDue {
                    try stream.sendFeedback(force: false)
                }
            }
            if !caughtUp && applier.transaction == nil {
                caughtUp = true
                bdr_host_progress_status(Int32(BDR_SUB_REPLICATING))
            }
            if let target {
                if reached >= target && applier.transaction == nil {
                    return .reached
                }
                // where the source is, it says when it is asked
                try stream.sendFeedback(force: true, requestReply: true)
            } else {
                try stream.sendFeedback(force: false)
            }
            try stream.checkSilence()
            let happened = try host(bdr_host_wait(stream.connection.raw, stream.waitTime))
            if happened & Int32(BDR_WAIT_SHUTDOWN) != 0 {
                return .stopped
            }
            if target == nil, !self.settings.isForwarded, applier.transaction == nil, applier.streams?.areBusy != true,
                streaming != Self.streams
            {
                return .changeStreaming
            }
        }
    }
}
