/*
 * stream_writer.c: processes that apply transactions which are still in progress on their origin, or small ones at the same
 * time as their leader (turns.c).
 *
 * The apply worker of a peer (the leader) goes on with whole transactions and hands the pieces of one in progress to a writer,
 * through a queue in shared memory; at the commit it waits for the writer's. Both commit under the same replication origin:
 * the leader holds it, the writers share it. A writer that fails ends; the leader has its transaction sent again then, applies
 * that by itself, and meets what the error was about.
 */
#include "bdr.h"
#include "apply_stats.h"
#include "turns.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "replication/origin.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shm_mq.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/wait_event.h"

#define QUEUE_SIZE (1024 * 1024)

typedef struct WriterShared
{
	pg_atomic_uint32 state;		/* BDR_WRITER_* */
	pg_atomic_uint64 local_end; /* of the last commit */
	PGPROC	   *leader;
	Oid			database;
	uint32		peer;
	int			entry;			/* of the leader, whose progress the writer adds to */
	int			number;			/* of this writer, from 1 */
	dsm_handle	turns;
	char		error[1024];	/* SQLSTATE and message, when it has failed */
} WriterShared;

/* As the leader has it. */
struct BdrWriter
{
	dsm_segment *segment;
	WriterShared *shared;
	shm_mq_handle *queue;
	BackgroundWorkerHandle *handle;
};

#define QUEUE_OFFSET MAXALIGN(sizeof(WriterShared))

/* ---- the leader's side ---------------------------------------------------------------------------------------- */

int32_t
bdr_host_writer_start(uint32_t peer, const char *name, int32_t number, BdrWriter **result)
{
	volatile int32_t outcome = BDR_OK;

	*result = NULL;
	HOST_BEGIN();
	{
		MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);
		BdrWriter  *writer = palloc0(sizeof(BdrWriter));
		BackgroundWorker registration;
		shm_mq	   *queue;

		writer->segment = dsm_create(QUEUE_OFFSET + QUEUE_SIZE, 0);
		dsm_pin_mapping(writer->segment);
		writer->shared = dsm_segment_address(writer->segment);
		memset(writer->shared, 0, sizeof(WriterShared));
		pg_atomic_init_u32(&writer->shared->state, BDR_WRITER_STARTING);
		pg_atomic_init_u64(&writer->shared->local_end, 0);
		writer->shared->leader = MyProc;
		writer->shared->database = MyDatabaseId;
		writer->shared->peer = peer;
		writer->shared->entry = bdr_worker_entry();
		writer->shared->number = number;
		writer->shared->turns = bdr_turns_handle();
		queue = shm_mq_create((char *) writer->shared + QUEUE_OFFSET, QUEUE_SIZE);
		shm_mq_set_sender(queue, MyProc);

		memset(&registration, 0, sizeof(registration));
		registration.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
		registration.bgw_start_time = BgWorkerStart_RecoveryFinished;
		registration.bgw_restart_time = BGW_NEVER_RESTART;
		registration.bgw_notify_pid = MyProcPid;
		registration.bgw_main_arg = UInt32GetDatum(dsm_segment_handle(writer->segment));
		strlcpy(registration.bgw_library_name, "bdr", BGW_MAXLEN);
		strlcpy(registration.bgw_function_name, "bdr_writer_main", BGW_MAXLEN);
		strlcpy(registration.bgw_type, "bdr writer", BGW_MAXLEN);
		strlcpy(registration.bgw_name, name, BGW_MAXLEN);
		if (RegisterDynamicBackgroundWorker(&registration, &writer->handle))
		{
			writer->queue = shm_mq_attach(queue, writer->segment, writer->handle);
			*result = writer;
		}
		else
		{
			dsm_detach(writer->segment);
			pfree(writer);
			outcome = 1;
		}
		MemoryContextSwitchTo(caller);
	}
	HOST_END();
	return outcome;
}

int32_t
bdr_host_writer_send(BdrWriter *writer, uint8_t kind, const uint8_t *data, size_t length)
{
	volatile int32_t outcome = BDR_OK;

	HOST_BEGIN();
	{
		shm_mq_iovec parts[2];

		/* it is idle: what it said last was of another transaction */
		if (kind == BDR_STREAM_BEGIN)
			pg_atomic_write_u32(&writer->shared->state, BDR_WRITER_BUSY);
		parts[0].data = (const char *) &kind;
		parts[0].len = 1;
		parts[1].data = (const char *) data;
		parts[1].len = length;
		switch (shm_mq_sendv(writer->queue, parts, length > 0 ? 2 : 1, true, true))
		{
			case SHM_MQ_SUCCESS:
				break;
			case SHM_MQ_WOULD_BLOCK:
				outcome = BDR_RETRY;
				break;
			case SHM_MQ_DETACHED:
				outcome = 1;
				break;
		}
	}
	HOST_END();
	return outcome;
}

int32_t
bdr_host_writer_state(BdrWriter *writer, uint64_t *local_end)
{
	volatile int32_t state = BDR_WRITER_GONE;

	HOST_BEGIN();
	{
		pid_t		pid;

		/* first the process, then what it has left */
		BgwHandleStatus status = GetBackgroundWorkerPid(writer->handle, &pid);

		state = pg_atomic_read_u32(&writer->shared->state);
		*local_end = pg_atomic_read_u64(&writer->shared->local_end);
		if (status == BGWH_STOPPED && state != BDR_WRITER_FAILED && state != BDR_WRITER_REFUSED)
			state = BDR_WRITER_GONE;
	}
	HOST_END();
	return state;
}

const char *
bdr_host_writer_error(BdrWriter *writer)
{
	return writer->shared->error;
}

/* Ends the process, and waits until it has: it may hold locks on what its transaction is about to be applied to again. */
int32_t
bdr_host_writer_stop(BdrWriter *writer)
{
	if (writer == NULL)
		return BDR_OK;
	PG_TRY();
	{
		TerminateBackgroundWorker(writer->handle);
		dsm_detach(writer->segment);
		(void) WaitForBackgroundWorkerShutdown(writer->handle);
		pfree(writer->handle);
		pfree(writer);
	}
	PG_CATCH();
	{
		/* asked to stop as well: the postmaster ends both */
		if (bdr_host_error_pending())
			FlushErrorState();
		else
			bdr_stash_error(CurrentMemoryContext);
	}
	PG_END_TRY();
	return bdr_host_error_pending() ? BDR_HOST_ERROR : BDR_OK;
}

/* ---- the writer's side ---------------------------------------------------------------------------------------- */

static WriterShared *my_shared = NULL;
static shm_mq_handle *my_queue = NULL;

int32_t
bdr_host_writer_receive(uint8_t *kind, const uint8_t **data, size_t *length)
{
	volatile int32_t outcome = BDR_OK;

	*kind = 0;
	*data = NULL;
	*length = 0;
	HOST_BEGIN();
	{
		Size		size;
		void	   *bytes;
		shm_mq_result result = shm_mq_receive(my_queue, &size, &bytes, true);

		if (result == SHM_MQ_WOULD_BLOCK)
		{
			bdr_wake_wal_writer();
			result = shm_mq_receive(my_queue, &size, &bytes, false);
		}
		bdr_process_interrupts();
		if (result != SHM_MQ_SUCCESS || size == 0)
			outcome = 1;
		else
		{
			*kind = *(const uint8_t *) bytes;
			*data = (const uint8_t *) bytes + 1;
			*length = size - 1;
		}
	}
	HOST_END();
	return outcome;
}

void
bdr_host_writer_report(int32_t state, uint64_t local_end)
{
	pg_atomic_write_u64(&my_shared->local_end, local_end);
	pg_memory_barrier();
	pg_atomic_write_u32(&my_shared->state, (uint32) state);
	SetLatch(&my_shared->leader->procLatch);
}

/*
 * Until 15 a replication origin is for one process. It looks whether another process is noted in the origin's entry, and
 * notes itself there; so a writer, which must not be noted, has no number while it does. The leader has let the origin go
 * meanwhile, and takes it again afterwards, so that it is held.
 */
int32_t
bdr_host_origin_share(const char *origin_name, uint64_t *remote_lsn)
{
	HOST_BEGIN();
	{
		RepOriginId origin;

		StartTransactionCommand();
		origin = replorigin_by_name(origin_name, false);
#if PG_VERSION_NUM >= 160000
		replorigin_session_setup(origin, my_shared->leader->pid);
#else
		{
			int			pid = MyProcPid;

			MyProcPid = 0;
			PG_TRY();
			{
				replorigin_session_setup(origin);
			}
			PG_CATCH();
			{
				MyProcPid = pid;
				PG_RE_THROW();
			}
			PG_END_TRY();
			MyProcPid = pid;
		}
#endif
		bdr_set_stream_origin(origin);
		*remote_lsn = replorigin_session_get_progress(false);
		CommitTransactionCommand();
	}
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_subxact_begin(void)
{
	HOST_BEGIN();
	BeginInternalSubTransaction(NULL);
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_subxact_release(void)
{
	HOST_BEGIN();
	ReleaseCurrentSubTransaction();
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_subxact_rollback(void)
{
	HOST_BEGIN();
	RollbackAndReleaseCurrentSubTransaction();
	HOST_END();
	return BDR_OK;
}

static void
KeepError(WriterShared *shared, const ErrorData *error)
{
	snprintf(shared->error, sizeof(shared->error), "%s: %s", unpack_sql_state(error->sqlerrcode),
			 error->message ? error->message : "");
}

void
bdr_writer_main(Datum arg)
{
	dsm_segment *segment;
	shm_mq	   *queue;
	MemoryContext context;

	bdr_writer_signals();
	context = AllocSetContextCreate(TopMemoryContext, "bdr writer", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	segment = dsm_attach(DatumGetUInt32(arg));
	if (segment == NULL)
		proc_exit(0);			/* the leader has gone */
	dsm_pin_mapping(segment);
	my_shared = dsm_segment_address(segment);
	queue = (shm_mq *) ((char *) my_shared + QUEUE_OFFSET);
	shm_mq_set_receiver(queue, MyProc);
	my_queue = shm_mq_attach(queue, segment, NULL);

	PG_TRY();
	{
		bdr_writer_connect(my_shared->entry, my_shared->database);
		bdr_turns_attach(my_shared->turns, my_shared->number);
		bdr_apply_stats_writer(my_shared->peer);
		ENGINE_CALL(bdr_engine_writer_main(my_shared->peer));
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		HOLD_INTERRUPTS();
		error = CopyErrorData();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		if (pg_atomic_read_u32(&my_shared->state) != BDR_WRITER_REFUSED)
		{
			KeepError(my_shared, error);
			bdr_host_writer_report(BDR_WRITER_FAILED, 0);
		}
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	proc_exit(0);
}
