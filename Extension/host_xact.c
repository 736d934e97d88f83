/*
 * host_xact.c: transactions, WAL positions and the replication origin, for Swift.
 */
#include "bdr.h"
#include "apply_stats.h"
#include "ddl_locks.h"
#include "row_stamps.h"

#include "access/commit_ts.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_control.h"
#include "commands/dbcommands.h"
#include "common/pg_prng.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "replication/origin.h"
#include "replication/worker_internal.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

/* The origin that applied transactions carry. */
static RepOriginId stream_origin = InvalidRepOriginId;
/* This process holds it. */
static bool is_setup = false;

int32_t
bdr_host_xact_begin(void)
{
	HOST_BEGIN();
	if (IsTransactionState())
		elog(ERROR, "bdr: a transaction is already in progress");
	/*
	 * What this process does for itself (recording an error, say) must not carry the progress of the peer's stream: the
	 * transaction that failed would count as applied.
	 */
	replorigin_session_origin = InvalidRepOriginId;
	replorigin_session_origin_lsn = InvalidXLogRecPtr;
	replorigin_session_origin_timestamp = 0;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_xact_commit(void)
{
	HOST_BEGIN();
	if (ActiveSnapshotSet())
		PopActiveSnapshot();
	CommitTransactionCommand();
	HOST_END();
	return BDR_OK;
}

/*
 * Aborts even while an error is pending: that is when it is needed. Failing here would leave nothing sane to do, so errors
 * of the abort itself replace nothing.
 */
int32_t
bdr_host_xact_abort(void)
{
	AbortCurrentTransaction();
	return BDR_OK;
}

bool
bdr_host_in_xact(void)
{
	return IsTransactionState();
}

int64_t
bdr_host_now(void)
{
	return GetCurrentTimestamp();
}

uint64_t
bdr_host_safe_lsn(void)
{
	XLogRecPtr	flushed;
	XLogRecPtr	on_standbys;

	if (RecoveryInProgress())
		return 0;
	flushed = GetFlushRecPtr(NULL);
	on_standbys = bdr_standby_position();
	return Min(flushed, on_standbys);
}

/*
 * The end of WAL, flushed: the position that whoever has received everything is going to confirm. The insert position is
 * not always it: when a record ends with its page, the next one begins behind the header of a page that is not there yet.
 * And what a transaction has written without committing nobody flushes soon, so it would not be sent.
 */
XLogRecPtr
bdr_wal_end(void)
{
	XLogRecPtr	end;

	if (RecoveryInProgress())
		return GetXLogReplayRecPtr(NULL);
	end = GetXLogInsertRecPtr();
	if (XLogSegmentOffset(end, wal_segment_size) == SizeOfXLogLongPHD)
		end -= SizeOfXLogLongPHD;
	else if (end % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		end -= SizeOfXLogShortPHD;
	XLogFlush(end);
	return end;
}

uint32_t
bdr_host_timeline(void)
{
	return RecoveryInProgress() ? 0 : GetWALInsertionTimeLine();
}

int32_t
bdr_host_wal_end(uint64_t *lsn)
{
	HOST_BEGIN();
	*lsn = bdr_wal_end();
	HOST_END();
	return BDR_OK;
}

/*
 * A commit record is written before the progress of its origin is advanced; both happen while the checkpointer is kept from
 * beginning. So as the checkpointer does, wait for those who are in between.
 */
static void
WaitForCommitting(void)
{
	VirtualTransactionId *committing;
	int			n;

	committing = GetVirtualXIDsDelayingChkpt(&n, DELAY_CHKPT_START);
	while (n > 0 && HaveVirtualXIDsDelayingChkpt(committing, n, DELAY_CHKPT_START))
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		bdr_process_interrupts();
	}
	pfree(committing);
}

int32_t
bdr_host_wal_mark(uint64_t *lsn)
{
	HOST_BEGIN();
	*lsn = bdr_wal_end();
	WaitForCommitting();
	HOST_END();
	return BDR_OK;
}

/* A transaction is dated in the same section in which its commit record is written. */
int32_t
bdr_host_clock_mark(int64_t *time)
{
	HOST_BEGIN();
	*time = GetCurrentTimestamp();
	WaitForCommitting();
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_origin_setup(const char *origin_name, uint64_t *remote_lsn)
{
	HOST_BEGIN();
	{
		RepOriginId origin;
		bool		own = !IsTransactionState();

		if (own)
			StartTransactionCommand();
		origin = replorigin_by_name(origin_name, false);
		if (!is_setup)
		{
#if PG_VERSION_NUM >= 160000
			replorigin_session_setup(origin, 0);
#else
			replorigin_session_setup(origin);
#endif
			is_setup = true;
		}
		stream_origin = origin;
		*remote_lsn = replorigin_session_get_progress(false);
		if (own)
			CommitTransactionCommand();
	}
	HOST_END();
	return BDR_OK;
}

void
bdr_set_stream_origin(RepOriginId origin)
{
	stream_origin = origin;
}

int32_t
bdr_host_origin_release(void)
{
	HOST_BEGIN();
	/* from 16 on a process can share the origin of another one */
#if PG_VERSION_NUM < 160000
	replorigin_session_reset();
	is_setup = false;
#endif
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_origin_drop(const char *origin_name)
{
	HOST_BEGIN();
	replorigin_drop_by_name(origin_name, true, false);
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_apply_begin(uint64_t remote_lsn, int64_t commit_time)
{
	HOST_BEGIN();
	bdr_locks_begin_apply(bdr_worker_peer());
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	bdr_apply_stats_begin();
	replorigin_session_origin = stream_origin;
	/* set from the start: an error in between aborts, and an aborted transaction advances nothing */
	replorigin_session_origin_lsn = remote_lsn;
	replorigin_session_origin_timestamp = commit_time;
	HOST_END();
	return BDR_OK;
}

/* After an error: what of the remote transaction was applied is undone, and the error forgotten. */
int32_t
bdr_host_apply_abort(void)
{
	AbortCurrentTransaction();
	bdr_executor_end_transaction(false);
	bdr_discard_error();
	return BDR_OK;
}

/* ---- the WAL writer --------------------------------------------------------------------------------------------- */

/*
 * Until 17 every asynchronous commit wakes the WAL writer as soon as there is a full page of WAL that is not flushed, which is
 * nearly always while a stream is applied: a signal for each transaction, a fifth of what applying a small one costs. So it is
 * woken once in a while instead, as later versions do: a commit in between finds the latch of the WAL writer set, and does not
 * send the signal. A wake-up by others that falls into these microseconds is made good by the next one of ours, which comes
 * at the latest before this process waits.
 */
#define WAKE_INTERVAL 10000		/* microseconds */

static TimestampTz woken_at = 0;
static bool owes_wakeup = false;

static void
CommitQuietly(void)
{
#if PG_VERSION_NUM < 170000
	Latch	   *latch = ProcGlobal->walwriterLatch;
	TimestampTz now = GetCurrentTimestamp();
	bool		quiet = synchronous_commit == SYNCHRONOUS_COMMIT_OFF && latch != NULL && !latch->is_set &&
		now >= woken_at && now < woken_at + WAKE_INTERVAL;

	if (quiet)
	{
		/* should the commit fail, the WAL writer finds the latch set when its delay is over, and resets it */
		latch->is_set = true;
		pg_memory_barrier();
	}
	CommitTransactionCommand();
	if (quiet)
	{
		latch->is_set = false;
		owes_wakeup = true;
	}
	else
	{
		woken_at = now;
		bdr_wake_wal_writer();
	}
#else
	CommitTransactionCommand();
#endif
}

/* Before this process waits. */
void
bdr_wake_wal_writer(void)
{
	if (!owes_wakeup)
		return;
	owes_wakeup = false;
	if (ProcGlobal->walwriterLatch)
		SetLatch(ProcGlobal->walwriterLatch);
}

int32_t
bdr_host_apply_commit(uint64_t remote_end_lsn, int64_t commit_time, uint64_t *local_end)
{
	*local_end = 0;
	HOST_BEGIN();
	bdr_executor_end_transaction(true);
	if (ActiveSnapshotSet())
		PopActiveSnapshot();
	replorigin_session_origin_lsn = remote_end_lsn;
	replorigin_session_origin_timestamp = commit_time;
	/*
	 * Also when everything was skipped there has to be a commit record, which carries the progress: the origin takes a peer that
	 * has confirmed a transaction, and asks for it again, for one that has lost changes.
	 */
	(void) GetCurrentTransactionId();
	bdr_note_commit_time(commit_time);
	CommitQuietly();
	*local_end = XactLastCommitEnd;
	bdr_apply_stats_commit();
	bdr_progress_committed();
	HOST_END();
	return BDR_OK;
}

/* ---- this server and database ---- */

const char *
bdr_host_setting(const char *name)
{
	const char *volatile value = NULL;

	if (bdr_host_error_pending())
		return NULL;
	PG_TRY();
	{
		value = GetConfigOption(name, true, false);
	}
	PG_CATCH();
	{
		bdr_stash_error(CurrentMemoryContext);
	}
	PG_END_TRY();
	return value;
}

int32_t
bdr_host_setting_int(const char *name, int32_t fallback)
{
	const char *value = bdr_host_setting(name);
	char	   *end;
	long		number;

	if (value == NULL || *value == '\0')
		return fallback;
	errno = 0;
	number = strtol(value, &end, 10);
	if (errno != 0 || *end != '\0' || number < PG_INT32_MIN || number > PG_INT32_MAX)
		return fallback;
	return (int32_t) number;
}

int32_t
bdr_host_server_version(void)
{
	/* the running server's, which may be a later minor than the headers */
	return bdr_host_setting_int("server_version_num", PG_VERSION_NUM);
}

uint32_t
bdr_host_database_oid(void)
{
	return MyDatabaseId;
}

const char *
bdr_host_database_name(void)
{
	const char *volatile name = NULL;

	if (bdr_host_error_pending())
		return NULL;
	PG_TRY();
	{
		name = get_database_name(MyDatabaseId);
	}
	PG_CATCH();
	{
		bdr_stash_error(CurrentMemoryContext);
	}
	PG_END_TRY();
	return name;
}

uint64_t
bdr_host_system_identifier(void)
{
	return GetSystemIdentifier();
}

int32_t
bdr_host_pid(void)
{
	return MyProcPid;
}

int64_t
bdr_host_start_time(void)
{
	return PgStartTime;
}

int32_t
bdr_host_encoding(void)
{
	return GetDatabaseEncoding();
}

const char *
bdr_host_encoding_name(void)
{
	return GetDatabaseEncodingName();
}

uint32_t
bdr_host_random(void)
{
	return pg_prng_uint32(&pg_global_prng_state);
}
