/*
 * workers.c: the processes of bdr and what they share.
 *
 * Shared memory holds two tables, both under one lock: databases (those that have a node, and the one being looked at)
 * and workers (one entry for each database, role and peer). A worker's entry outlives its process, because counters and
 * the last error are wanted when it is down; it goes when its database's entry goes, or when another needs the room.
 *
 * Starting: the starter claims the entry under the lock, so there is one worker for each (database, role, peer) whoever
 * asks; then it registers the process, which finds entry and generation in its start arguments and exits if the entry has
 * moved on. Before anything else the process makes sure that its entry is cleaned up when it goes, however it goes; a
 * SIGKILL makes the postmaster begin anew with fresh shared memory. A process that never came is found by its handle, or
 * after a minute by whoever has no handle.
 *
 * Stopping: SIGTERM is the server's die() and sets bdr_shutdown_requested() as well. So a worker ends at the next
 * CHECK_FOR_INTERRUPTS with FATAL, also while it waits for a lock, a peer or a program; a loop that wants to end cleanly
 * asks bdr_shutdown_requested() before it lets interrupts be handled. Not an error in either case.
 *
 * The supervisor has no database and no open transaction except while it reads pg_database. It starts a manager in each
 * database once, to look for a node, and later where it is asked to or where a manager failed.
 */
#include "bdr.h"
#include "apply_stats.h"
#include "ddl_locks.h"
#include "sequences.h"
#include "row_stamps.h"
#include "compat.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "replication/origin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* How long a process may take from registration to its first line of ours, if nobody can ask the postmaster, µs. */
#define ATTACH_TIMEOUT (60 * USECS_PER_SEC)
/* How long the first look at one database may keep the next one waiting, µs. */
#define SETTLE_TIMEOUT (10 * USECS_PER_SEC)
/* How often the supervisor looks for databases it has not seen, µs. */
#define RESCAN_INTERVAL (60 * USECS_PER_SEC)
/* How soon it tries again when the server had no worker slot free, µs. */
#define NO_SLOT_DELAY (5 * USECS_PER_SEC)
#define MESSAGE_SIZE 1024

typedef enum WorkerState
{
	WORKER_FREE = 0,			/* entry not in use */
	WORKER_IDLE,				/* no process; history kept */
	WORKER_STARTING,			/* registered, not there yet */
	WORKER_RUNNING
} WorkerState;

/* What other sessions want to see of an apply worker; each field is read whole, but not all at one instant. */
typedef struct Progress
{
	pg_atomic_uint32 status;	/* BDR_SUB_* */
	pg_atomic_uint64 receive_lsn;
	pg_atomic_uint64 receive_commit_lsn;
	pg_atomic_uint64 replay_lsn;
	pg_atomic_uint64 replay_time;
	pg_atomic_uint64 flush_lsn;
	pg_atomic_uint64 connect_time;	/* 0 while not connected */
	pg_atomic_uint64 disconnect_time;
	/* of the other direction, told by the manager: how fast the peer confirms, bytes/s, and when it had everything last */
	pg_atomic_uint64 confirm_rate;
	pg_atomic_uint64 complete_time;
	pg_atomic_uint64 connects;
	pg_atomic_uint64 stream_after;	/* transactions in progress are not asked for before; for the next process, too */
	pg_atomic_uint64 counters[BDR_COUNT_KINDS];
} Progress;

typedef struct Worker
{
	/* all but progress is protected by the lock */
	WorkerState state;
	Oid			database;
	int32		role;
	uint32		peer;
	uint32		generation;		/* of the start; tells a late process that it is not the one */
	bool		stop;			/* asked to stop before it was there */
	bool		failed;			/* ended with an error, and the manager has not looked since */
	bool		exit_seen;		/* the supervisor has dealt with this manager's end */
	int			exit_code;
	pid_t		pid;
	PGPROC	   *proc;
	TimestampTz requested_at;
	TimestampTz started_at;
	TimestampTz ended_at;
	TimestampTz error_at;		/* 0 when it never failed */
	uint64		errors;
	char		sqlstate[6];
	char		message[MESSAGE_SIZE];
	char		origin[NAMEDATALEN];	/* replication origin of an apply worker, "" if not known */
	Progress	progress;
} Worker;

typedef struct Database
{
	Oid			oid;			/* 0 when the entry is free */
	bool		published;		/* its manager has told the following */
	bool		refuse_writes;
	bool		check_identity;
	uint32		node_id;
	int32		node_state;
	int			closing;		/* how many commands need it without sessions */
	bool		wanted;			/* a manager shall be started */
	bool		no_slot_logged;
	int			failures;		/* of the manager, one after the other */
	TimestampTz next_start;
	uint32		requests;		/* how often somebody has changed what its manager tells */
	int			members;		/* of the group, besides this node; also those that join */
	/* How often a stamp was written, and how often it had been when there were none: equal, there are none. */
	pg_atomic_uint64 stamps_written;
	pg_atomic_uint64 stamps_settled;
	pg_atomic_uint64 last_commit;	/* latest commit time of what was committed here, also by other nodes' changes */
} Database;

typedef struct Shared
{
	LWLock	   *lock;
	PGPROC	   *supervisor;
	bool		scanned;		/* every database has been looked at since the server started */
	uint32		next_generation;
	int			ndatabases;
	int			nworkers;
	pg_atomic_uint32 gate_generation;	/* changes with anything that bdr_gate reports */
} Shared;

/*
 * Which keys may have stamps, by bits of their hash, so that most inserts need not look. Two filters: writers set bits in the
 * current one; the other has the bits of what was written before the last turn.
 */
#define FILTER_WORDS 4096
typedef struct StampFilter
{
	pg_atomic_uint32 current;	/* 0 or 1 */
	pg_atomic_uint64 turned_at;	/* next transaction number after the last turn, with its epoch */
	pg_atomic_uint64 bits[2][FILTER_WORDS];
} StampFilter;

/* How a worker process learns what it is: bgw_extra. */
typedef struct StartArguments
{
	int32		entry;
	uint32		generation;
	Oid			database;
	int32		role;
	uint32		peer;
} StartArguments;

StaticAssertDecl(sizeof(StartArguments) <= BGW_EXTRALEN, "start arguments must fit");

static Shared *shared = NULL;
static Database *databases;
static Worker *workers;
static StampFilter *filters;	/* one for each database */

static shmem_request_hook_type previous_shmem_request = NULL;
static shmem_startup_hook_type previous_shmem_startup = NULL;

/* this process, when it is a worker of ours */
static Worker *my_worker = NULL;
static bool my_error_recorded = false;
static volatile sig_atomic_t shutdown_requested = false;

/* handles of the workers that this process started, by entry */
static BackgroundWorkerHandle **handles = NULL;
static uint32 *handle_generations = NULL;

static void AtCommit(XactEvent event, void *arg);

PGDLLEXPORT void bdr_supervisor_main(Datum arg);
PGDLLEXPORT void bdr_manager_main(Datum arg);
PGDLLEXPORT void bdr_apply_main(Datum arg);
PGDLLEXPORT void bdr_join_main(Datum arg);
PGDLLEXPORT void bdr_group_main(Datum arg);
PGDLLEXPORT void bdr_recover_main(Datum arg);
PGDLLEXPORT void bdr_lock_main(Datum arg);
PGDLLEXPORT void bdr_sequence_main(Datum arg);

PG_FUNCTION_INFO_V1(bdr_show_subscription_status);
PG_FUNCTION_INFO_V1(bdr_show_workers);

/* ---- shared memory -------------------------------------------------------------------------------------------- */

/* Room for a manager, a join and a group worker a database, and for the workers of peers that can run, twice: some are down. */
static int
WorkerCapacity(void)
{
	return 3 * bdr_max_databases + 2 * max_worker_processes;
}

static Size
SharedSize(void)
{
	Size		size = MAXALIGN(sizeof(Shared));

	size = add_size(size, MAXALIGN(mul_size(bdr_max_databases, sizeof(Database))));
	size = add_size(size, MAXALIGN(mul_size(bdr_max_databases, sizeof(StampFilter))));
	return add_size(size, mul_size(WorkerCapacity(), sizeof(Worker)));
}

static void
RequestShmem(void)
{
	if (previous_shmem_request)
		previous_shmem_request();
	RequestAddinShmemSpace(SharedSize());
	RequestAddinShmemSpace(bdr_sent_shmem_size());
	bdr_sequences_shmem_request();
	RequestAddinShmemSpace(bdr_conflict_stats_shmem_size());
	RequestAddinShmemSpace(bdr_locks_shmem_size());
	RequestNamedLWLockTranche("bdr", 3);
	RequestAddinShmemSpace(bdr_apply_stats_shmem_size());
	RequestNamedLWLockTranche("bdr_apply_stats", 1);
}

static void
StartupShmem(void)
{
	bool		found;

	if (previous_shmem_startup)
		previous_shmem_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("bdr", SharedSize(), &found);
	databases = (Database *) ((char *) shared + MAXALIGN(sizeof(Shared)));
	if (!found)
	{
		memset(shared, 0, SharedSize());
		shared->lock = &(GetNamedLWLockTranche("bdr"))->lock;
		shared->ndatabases = bdr_max_databases;
		shared->nworkers = WorkerCapacity();
		pg_atomic_init_u32(&shared->gate_generation, 1);
	}
	filters = (StampFilter *) ((char *) databases + MAXALIGN(mul_size(shared->ndatabases, sizeof(Database))));
	workers = (Worker *) ((char *) filters + MAXALIGN(mul_size(shared->ndatabases, sizeof(StampFilter))));
	if (!found)
	{
		for (int i = 0; i < shared->nworkers; i++)
		{
			Progress   *progress = &workers[i].progress;

			pg_atomic_init_u32(&progress->status, BDR_SUB_DOWN);
			pg_atomic_init_u64(&progress->receive_lsn, 0);
			pg_atomic_init_u64(&progress->receive_commit_lsn, 0);
			pg_atomic_init_u64(&progress->replay_lsn, 0);
			pg_atomic_init_u64(&progress->replay_time, 0);
			pg_atomic_init_u64(&progress->flush_lsn, 0);
			pg_atomic_init_u64(&progress->connect_time, 0);
			pg_atomic_init_u64(&progress->disconnect_time, 0);
			pg_atomic_init_u64(&progress->confirm_rate, 0);
			pg_atomic_init_u64(&progress->complete_time, 0);
			pg_atomic_init_u64(&progress->connects, 0);
			pg_atomic_init_u64(&progress->stream_after, 0);
			for (int kind = 0; kind < BDR_COUNT_KINDS; kind++)
				pg_atomic_init_u64(&progress->counters[kind], 0);
		}
	}
	bdr_sent_shmem_startup();
	bdr_sequences_shmem_startup();
	bdr_conflict_stats_shmem_startup();
	bdr_locks_shmem_startup(&(GetNamedLWLockTranche("bdr") + 2)->lock);
	bdr_apply_stats_shmem_startup();
	LWLockRelease(AddinShmemInitLock);
}

/* Called while shared_preload_libraries are loaded. */
void
bdr_workers_init(void)
{
	BackgroundWorker worker;

	RegisterXactCallback(AtCommit, NULL);

	previous_shmem_request = shmem_request_hook;
	shmem_request_hook = RequestShmem;
	previous_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = StartupShmem;

	/* pg_upgrade's server must not replicate, nor write anything by itself */
	if (IsBinaryUpgrade)
		return;
	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	strlcpy(worker.bgw_library_name, "bdr", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "bdr_supervisor_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "bdr supervisor", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "bdr supervisor", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

bool
bdr_preloaded(void)
{
	return shared != NULL;
}

/* Raises ERROR unless the server preloaded the module. */
void
bdr_require_preload(void)
{
	if (shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("bdr is not loaded by the server"),
				 errhint("Add bdr to shared_preload_libraries and restart the server.")));
}

/* The following need the lock. */

static Database *
FindDatabase(Oid oid)
{
	for (int i = 0; i < shared->ndatabases; i++)
		if (databases[i].oid == oid)
			return &databases[i];
	return NULL;
}

/* What was written before the server started has left no bits: everything is possible until none of it is there any more. */
static void
InitFilter(StampFilter *filter)
{
	pg_atomic_init_u32(&filter->current, 0);
	pg_atomic_init_u64(&filter->turned_at, U64FromFullTransactionId(ReadNextFullTransactionId()));
	for (int i = 0; i < FILTER_WORDS; i++)
	{
		pg_atomic_init_u64(&filter->bits[0][i], 0);
		pg_atomic_init_u64(&filter->bits[1][i], PG_UINT64_MAX);
	}
}

/* The entry of a database, a new one if it has none; NULL when the table is full. */
static Database *
ClaimDatabase(Oid oid)
{
	Database   *database = FindDatabase(oid);

	if (database == NULL && (database = FindDatabase(InvalidOid)) != NULL)
	{
		memset(database, 0, sizeof(Database));
		database->oid = oid;
		pg_atomic_init_u64(&database->stamps_written, 1);
		pg_atomic_init_u64(&database->stamps_settled, 0);
		pg_atomic_init_u64(&database->last_commit, 0);
		InitFilter(&filters[database - databases]);
		pg_atomic_fetch_add_u32(&shared->gate_generation, 1);
	}
	return database;
}

static bool
IsAlive(const Worker *worker)
{
	return worker->state == WORKER_STARTING || worker->state == WORKER_RUNNING;
}

static Worker *
FindWorker(Oid database, int32 role, uint32 peer)
{
	for (int i = 0; i < shared->nworkers; i++)
	{
		Worker	   *worker = &workers[i];

		if (worker->state != WORKER_FREE && worker->database == database && worker->role == role &&
			worker->peer == peer)
			return worker;
	}
	return NULL;
}

/*
 * Takes an entry for a worker that has none: a free one, or what is left of a database that is gone; else that of the apply
 * worker that ended first. NULL if none.
 */
static Worker *
NewWorker(Oid database, int32 role, uint32 peer)
{
	Worker	   *found = NULL;
	Progress   *progress;

	for (int i = 0; i < shared->nworkers; i++)
	{
		Worker	   *worker = &workers[i];

		if (worker->state == WORKER_FREE || (worker->state == WORKER_IDLE && FindDatabase(worker->database) == NULL))
		{
			found = worker;
			break;
		}
		/* the others are bounded by bdr.max_databases */
		if (worker->state == WORKER_IDLE && worker->role == BDR_ROLE_APPLY &&
			(found == NULL || worker->ended_at < found->ended_at))
			found = worker;
	}
	if (found == NULL)
		return NULL;
	memset(found, 0, offsetof(Worker, progress));
	found->state = WORKER_IDLE;
	found->database = database;
	found->role = role;
	found->peer = peer;
	found->exit_seen = true;
	progress = &found->progress;
	pg_atomic_write_u32(&progress->status, BDR_SUB_DOWN);
	pg_atomic_write_u64(&progress->receive_lsn, 0);
	pg_atomic_write_u64(&progress->receive_commit_lsn, 0);
	pg_atomic_write_u64(&progress->replay_lsn, 0);
	pg_atomic_write_u64(&progress->replay_time, 0);
	pg_atomic_write_u64(&progress->flush_lsn, 0);
	pg_atomic_write_u64(&progress->connect_time, 0);
	pg_atomic_write_u64(&progress->disconnect_time, 0);
	pg_atomic_write_u64(&progress->confirm_rate, 0);
	pg_atomic_write_u64(&progress->complete_time, 0);
	pg_atomic_write_u64(&progress->connects, 0);
	for (int kind = 0; kind < BDR_COUNT_KINDS; kind++)
		pg_atomic_write_u64(&progress->counters[kind], 0);
	return found;
}

/* Forgets a database and what is known of its workers, which must not run. */
static void
FreeDatabase(Database *database)
{
	for (int i = 0; i < shared->nworkers; i++)
		if (workers[i].state == WORKER_IDLE && workers[i].database == database->oid)
			workers[i].state = WORKER_FREE;
	memset(database, 0, sizeof(Database));
	pg_atomic_fetch_add_u32(&shared->gate_generation, 1);
}

static void
NoteEnd(Worker *worker, int exit_code, bool failed)
{
	worker->state = WORKER_IDLE;
	worker->pid = 0;
	worker->proc = NULL;
	worker->exit_code = exit_code;
	worker->exit_seen = false;
	worker->failed = failed;
	worker->ended_at = GetCurrentTimestamp();
	pg_atomic_write_u32(&worker->progress.status, failed ? BDR_SUB_ERROR : BDR_SUB_DOWN);
	if (pg_atomic_read_u64(&worker->progress.connect_time) != 0)
	{
		pg_atomic_write_u64(&worker->progress.connect_time, 0);
		pg_atomic_write_u64(&worker->progress.disconnect_time, (uint64) worker->ended_at);
	}
}

static void
NoteError(Worker *worker, const char *sqlstate, const char *message)
{
	int			length = pg_mbcliplen(message, strlen(message), MESSAGE_SIZE - 1);

	strlcpy(worker->sqlstate, sqlstate, sizeof(worker->sqlstate));
	memcpy(worker->message, message, length);
	worker->message[length] = '\0';
	worker->error_at = GetCurrentTimestamp();
	worker->errors++;
}

static void
Signal(Worker *worker)
{
	if (worker->state == WORKER_RUNNING)
		(void) kill(worker->pid, SIGTERM);
	else if (worker->state == WORKER_STARTING)
		worker->stop = true;
}

static void
Wake(PGPROC *proc)
{
	if (proc)
		SetLatch(&proc->procLatch);
}

static void
WakeManager(Oid database)
{
	Worker	   *manager = FindWorker(database, BDR_ROLE_MANAGER, 0);

	if (manager && manager->state == WORKER_RUNNING)
		Wake(manager->proc);
}

/* ---- starting and stopping ------------------------------------------------------------------------------------ */

/* What a role is called in bgw_type, the views and messages. */
static const char *
RoleName(int32 role)
{
	switch (role)
	{
		case BDR_ROLE_MANAGER:
			return "manager";
		case BDR_ROLE_APPLY:
			return "apply";
		case BDR_ROLE_JOIN:
			return "join";
		case BDR_ROLE_GROUP:
			return "group";
		case BDR_ROLE_RECOVER:
			return "recover";
		case BDR_ROLE_LOCK:
			return "lock";
		case BDR_ROLE_SEQUENCE:
			return "sequence";
		default:
			return "unknown";
	}
}

/*
 * If a worker that shall be starting is not coming any more, notes its end. Call without the lock.
 */
static void
CheckArrival(int entry, uint32 generation)
{
	Worker	   *worker = &workers[entry];
	bool		gone;
	pid_t		pid;

	if (handles && handles[entry] && handle_generations[entry] == generation)
		gone = GetBackgroundWorkerPid(handles[entry], &pid) == BGWH_STOPPED;
	else
	{
		LWLockAcquire(shared->lock, LW_SHARED);
		gone = worker->state == WORKER_STARTING && worker->generation == generation &&
			GetCurrentTimestamp() - worker->requested_at > ATTACH_TIMEOUT;
		LWLockRelease(shared->lock);
	}
	if (!gone)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (worker->state == WORKER_STARTING && worker->generation == generation)
	{
		NoteError(worker, "58000", "the worker process ended before it could begin");
		NoteEnd(worker, 1, true);
	}
	LWLockRelease(shared->lock);
}

/* Starts a worker unless it is there already. BDR_OK, or 1 when there is no room for it or its database is closing. */
static int32_t
StartWorker(Oid database_oid, int32 role, uint32 peer, const char *name)
{
	BackgroundWorker registration;
	StartArguments arguments;
	BackgroundWorkerHandle *handle = NULL;
	MemoryContext caller;
	Database   *database;
	Worker	   *worker;
	bool		started;

	if (handles == NULL)
	{
		handles = MemoryContextAllocZero(TopMemoryContext, sizeof(BackgroundWorkerHandle *) * shared->nworkers);
		handle_generations = MemoryContextAllocZero(TopMemoryContext, sizeof(uint32) * shared->nworkers);
	}

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	database = FindDatabase(database_oid);
	worker = FindWorker(database_oid, role, peer);
	if (worker && IsAlive(worker))
	{
		LWLockRelease(shared->lock);
		return BDR_OK;
	}
	if (database == NULL || database->closing ||
		(worker == NULL && (worker = NewWorker(database_oid, role, peer)) == NULL))
	{
		LWLockRelease(shared->lock);
		return 1;
	}
	worker->state = WORKER_STARTING;
	worker->generation = ++shared->next_generation;
	worker->stop = false;
	worker->failed = false;
	worker->requested_at = GetCurrentTimestamp();
	pg_atomic_write_u32(&worker->progress.status, BDR_SUB_STARTING);
	arguments.entry = worker - workers;
	arguments.generation = worker->generation;
	LWLockRelease(shared->lock);

	arguments.database = database_oid;
	arguments.role = role;
	arguments.peer = peer;
	memset(&registration, 0, sizeof(registration));
	registration.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	registration.bgw_start_time = BgWorkerStart_RecoveryFinished;
	registration.bgw_restart_time = BGW_NEVER_RESTART;
	registration.bgw_notify_pid = MyProcPid;
	registration.bgw_main_arg = Int32GetDatum(arguments.entry);
	memcpy(registration.bgw_extra, &arguments, sizeof(arguments));
	strlcpy(registration.bgw_library_name, "bdr", BGW_MAXLEN);
	snprintf(registration.bgw_function_name, BGW_MAXLEN, "bdr_%s_main", RoleName(role));
	snprintf(registration.bgw_type, BGW_MAXLEN, "bdr %s", RoleName(role));
	strlcpy(registration.bgw_name, name, BGW_MAXLEN);
	registration.bgw_name[pg_mbcliplen(name, strlen(name), BGW_MAXLEN - 1)] = '\0';

	caller = MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&registration, &handle);
	MemoryContextSwitchTo(caller);
	if (started)
	{
		if (handles[arguments.entry])
			pfree(handles[arguments.entry]);
		handles[arguments.entry] = handle;
		handle_generations[arguments.entry] = arguments.generation;
		return BDR_OK;
	}

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (worker->state == WORKER_STARTING && worker->generation == arguments.generation)
	{
		worker->state = WORKER_IDLE;
		worker->exit_seen = true;
		worker->ended_at = GetCurrentTimestamp();
		pg_atomic_write_u32(&worker->progress.status, BDR_SUB_DOWN);
	}
	LWLockRelease(shared->lock);
	return 1;
}

/* Cleans up the entry of this process when it goes. */
static void
DetachWorker(int code, Datum arg)
{
	Worker	   *worker = my_worker;

	if (worker == NULL)
		return;
	my_worker = NULL;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (worker->state == WORKER_RUNNING && worker->pid == MyProcPid)
	{
		bool		failed = code != 0 && !shutdown_requested;

		if (failed && !my_error_recorded)
			NoteError(worker, "58000", "the worker process ended unexpectedly; see the server log");
		NoteEnd(worker, code, failed);
		if (worker->role == BDR_ROLE_MANAGER)
			Wake(shared->supervisor);
		else
			WakeManager(worker->database);
	}
	LWLockRelease(shared->lock);
}

/* Makes this process the worker of its entry; false when it is not wanted any more. */
static bool
AttachWorker(const StartArguments *arguments)
{
	Worker	   *worker;
	Database   *database;
	bool		stopped;

	if (shared == NULL || arguments->entry < 0 || arguments->entry >= shared->nworkers)
		return false;
	worker = &workers[arguments->entry];
	before_shmem_exit(DetachWorker, (Datum) 0);
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (worker->state != WORKER_STARTING || worker->generation != arguments->generation)
	{
		LWLockRelease(shared->lock);
		ereport(LOG,
				(errmsg("bdr %s worker for database %u and peer %u is not wanted any more", RoleName(arguments->role),
						arguments->database, arguments->peer)));
		return false;
	}
	database = FindDatabase(arguments->database);
	stopped = worker->stop || database == NULL || database->closing;
	if (stopped)
		NoteEnd(worker, 0, false);
	else
	{
		worker->state = WORKER_RUNNING;
		worker->pid = MyProcPid;
		worker->proc = MyProc;
		worker->started_at = GetCurrentTimestamp();
		my_worker = worker;
	}
	LWLockRelease(shared->lock);
	return !stopped;
}

int32_t
bdr_host_worker_info(int32_t role, uint32_t peer, BdrWorkerInfo *info)
{
	memset(info, 0, sizeof(*info));
	HOST_BEGIN();
	{
		Worker	   *worker;
		int			starting = -1;
		uint32		generation = 0;

		bdr_require_preload();
		LWLockAcquire(shared->lock, LW_SHARED);
		worker = FindWorker(MyDatabaseId, role, peer);
		if (worker && worker->state == WORKER_STARTING)
		{
			starting = worker - workers;
			generation = worker->generation;
		}
		LWLockRelease(shared->lock);
		if (starting >= 0)
			CheckArrival(starting, generation);

		LWLockAcquire(shared->lock, LW_EXCLUSIVE);
		worker = FindWorker(MyDatabaseId, role, peer);
		if (worker)
		{
			info->in_use = 1;
			info->running = IsAlive(worker);
			info->role = worker->role;
			info->peer = worker->peer;
			info->pid = worker->pid;
			info->failed = worker->failed;
			strlcpy(info->sqlstate, worker->sqlstate, sizeof(info->sqlstate));
			info->ended_at = worker->ended_at;
			/* "since the manager last looked": others may look as often as they like */
			if (my_worker && my_worker->role == BDR_ROLE_MANAGER)
				worker->failed = false;
		}
		LWLockRelease(shared->lock);
	}
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_worker_start(int32_t role, uint32_t peer, const char *name)
{
	volatile int32_t outcome = BDR_OK;

	HOST_BEGIN();
	bdr_require_preload();
	outcome = StartWorker(MyDatabaseId, role, peer, name);
	HOST_END();
	return outcome;
}

int32_t
bdr_host_worker_wake(int32_t role, uint32_t peer)
{
	HOST_BEGIN();
	{
		Worker	   *worker;

		bdr_require_preload();
		LWLockAcquire(shared->lock, LW_SHARED);
		worker = FindWorker(MyDatabaseId, role, peer);
		if (worker && worker->state == WORKER_RUNNING)
			Wake(worker->proc);
		else
			WakeManager(MyDatabaseId);
		LWLockRelease(shared->lock);
	}
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_worker_stop(int32_t role, uint32_t peer)
{
	HOST_BEGIN();
	{
		Worker	   *worker;

		bdr_require_preload();
		LWLockAcquire(shared->lock, LW_EXCLUSIVE);
		worker = FindWorker(MyDatabaseId, role, peer);
		if (worker)
			Signal(worker);
		LWLockRelease(shared->lock);
	}
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_worker_forget(int32_t role, uint32_t peer)
{
	HOST_BEGIN();
	{
		Worker	   *worker;

		bdr_require_preload();
		LWLockAcquire(shared->lock, LW_EXCLUSIVE);
		worker = FindWorker(MyDatabaseId, role, peer);
		if (worker && worker->state == WORKER_IDLE)
			worker->state = WORKER_FREE;
		LWLockRelease(shared->lock);
	}
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_worker_peers(uint32_t *peers, int32_t capacity)
{
	volatile int32_t count = 0;

	HOST_BEGIN();
	bdr_require_preload();
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers; i++)
	{
		if (workers[i].state == WORKER_FREE || workers[i].database != MyDatabaseId || workers[i].role != BDR_ROLE_APPLY)
			continue;
		if (count < capacity)
			peers[count++] = workers[i].peer;
	}
	LWLockRelease(shared->lock);
	HOST_END();
	return count;
}

/* ---- databases ------------------------------------------------------------------------------------------------ */

bool
bdr_database_is_closing(Oid oid)
{
	Database   *database;
	bool		closing;

	if (shared == NULL)
		return false;
	LWLockAcquire(shared->lock, LW_SHARED);
	database = FindDatabase(oid);
	closing = database && database->closing;
	LWLockRelease(shared->lock);
	return closing;
}

bool
bdr_host_database_closing(void)
{
	return bdr_database_is_closing(MyDatabaseId);
}

/* One more than the count of requests when the manager began to read what it publishes; 0: it doesn't say. */
static uint32 requests_seen = 0;

void
bdr_host_publish_begin(void)
{
	Database   *database;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_SHARED);
	database = FindDatabase(MyDatabaseId);
	requests_seen = database ? database->requests + 1 : 0;
	LWLockRelease(shared->lock);
}

int32_t
bdr_host_publish_node(uint32_t node_id, int32_t state, bool refuse_writes, bool check_identity, int32_t members)
{
	HOST_BEGIN();
	{
		Database   *database;

		bdr_require_preload();
		LWLockAcquire(shared->lock, LW_EXCLUSIVE);
		database = ClaimDatabase(MyDatabaseId);
		if (database)
		{
			/* what was read before somebody changed it is not told; the manager has been woken to read it again */
			bool		published = node_id != 0 && (requests_seen == 0 || requests_seen == database->requests + 1);

			database->members = members;
			if (database->published != published || database->node_id != node_id || database->node_state != state ||
				database->refuse_writes != refuse_writes || database->check_identity != check_identity)
			{
				database->published = published;
				database->node_id = node_id;
				database->node_state = state;
				database->refuse_writes = refuse_writes;
				database->check_identity = check_identity;
				pg_atomic_fetch_add_u32(&shared->gate_generation, 1);
				Wake(shared->supervisor);
			}
			/*
			 * Whoever wanted a manager has one that knows of the node. One that leaves, as it found no node, must not take back
			 * the request of a session that has made one since it looked.
			 */
			if (published && my_worker && my_worker->role == BDR_ROLE_MANAGER)
				database->wanted = false;
		}
		LWLockRelease(shared->lock);
		if (database == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("too many databases of this server are bdr nodes"),
					 errhint("Increase bdr.max_databases and restart the server.")));
	}
	HOST_END();
	return BDR_OK;
}

bool
bdr_gate_read(BdrGate *gate)
{
	Database   *database;

	memset(gate, 0, sizeof(*gate));
	if (shared == NULL)
		return true;
	gate->generation = pg_atomic_read_u32(&shared->gate_generation);
	LWLockAcquire(shared->lock, LW_SHARED);
	database = FindDatabase(MyDatabaseId);
	if (database && database->published)
	{
		gate->known = true;
		gate->refuse_writes = database->refuse_writes;
		gate->check_identity = database->check_identity;
		gate->node_id = database->node_id;
		gate->node_state = database->node_state;
	}
	else
		gate->known = database == NULL && shared->scanned;
	LWLockRelease(shared->lock);
	return gate->known;
}

uint32
bdr_gate_generation(void)
{
	return shared ? pg_atomic_read_u32(&shared->gate_generation) : 0;
}

int32_t
bdr_host_members(void)
{
	Database   *database;
	int32_t		members;

	if (shared == NULL)
		return 0;
	LWLockAcquire(shared->lock, LW_SHARED);
	database = FindDatabase(MyDatabaseId);
	members = database ? database->members : 0;
	LWLockRelease(shared->lock);
	return members;
}

/* ---- whether there are stamps of rows (row_stamps.c) ---- */

/* This database's entry, NULL if it has none. */
static Database *
MyDatabase(void)
{
	static Database *mine = NULL;

	if (shared && (mine == NULL || mine->oid != MyDatabaseId))
	{
		LWLockAcquire(shared->lock, LW_SHARED);
		mine = FindDatabase(MyDatabaseId);
		LWLockRelease(shared->lock);
	}
	return mine;
}

uint64
bdr_stamps_generation(void)
{
	Database   *database = MyDatabase();

	return database ? pg_atomic_read_u64(&database->stamps_written) : 0;
}

bool
bdr_stamps_possible(void)
{
	Database   *database = MyDatabase();

	return database == NULL ||
		pg_atomic_read_u64(&database->stamps_written) != pg_atomic_read_u64(&database->stamps_settled);
}

/* Places of a key's two bits. */
static inline void
FilterPlaces(uint64 hash, int place[2], uint64 mask[2])
{
	for (int i = 0; i < 2; i++)
	{
		uint32		bit = (uint32) (i == 0 ? hash : hash >> 32) % (FILTER_WORDS * 64);

		place[i] = bit / 64;
		mask[i] = UINT64CONST(1) << (bit % 64);
	}
}

/* To be called before a stamp is written, and after it. */
void
bdr_stamps_written(uint64 hash)
{
	Database   *database = MyDatabase();
	StampFilter *filter;
	int			place[2];
	uint64		mask[2];

	if (database == NULL)
		return;
	filter = &filters[database - databases];
	FilterPlaces(hash, place, mask);
	for (int i = 0; i < 2; i++)
		pg_atomic_fetch_or_u64(&filter->bits[pg_atomic_read_u32(&filter->current) & 1][place[i]], mask[i]);
	pg_atomic_fetch_add_u64(&database->stamps_written, 1);
}

/* False: the key has no stamps. */
bool
bdr_stamp_possible(uint64 hash)
{
	Database   *database = MyDatabase();
	StampFilter *filter;
	int			place[2];
	uint64		mask[2];

	if (database == NULL)
		return true;
	if (pg_atomic_read_u64(&database->stamps_written) == pg_atomic_read_u64(&database->stamps_settled))
		return false;
	filter = &filters[database - databases];
	FilterPlaces(hash, place, mask);
	for (int i = 0; i < 2; i++)
		if (((pg_atomic_read_u64(&filter->bits[0][place[i]]) | pg_atomic_read_u64(&filter->bits[1][place[i]])) & mask[i]) == 0)
			return false;
	return true;
}

/* Stamps written by transactions with this number or a later one have left their bits in the current filter. */
TransactionId
bdr_stamps_turned_at(void)
{
	Database   *database = MyDatabase();

	return database ? (TransactionId) pg_atomic_read_u64(&filters[database - databases].turned_at) : InvalidTransactionId;
}

/* No stamp that was written before the last turn is left: their filter is emptied, and becomes the current one. */
void
bdr_stamps_turn(void)
{
	Database   *database = MyDatabase();
	StampFilter *filter;
	uint32		next;

	if (database == NULL)
		return;
	filter = &filters[database - databases];
	next = (pg_atomic_read_u32(&filter->current) & 1) ^ 1;
	for (int i = 0; i < FILTER_WORDS; i++)
		pg_atomic_write_u64(&filter->bits[next][i], 0);
	pg_memory_barrier();
	pg_atomic_write_u32(&filter->current, next);
	/* whoever gets a number from now on sees the new one */
	pg_memory_barrier();
	pg_atomic_write_u64(&filter->turned_at, U64FromFullTransactionId(ReadNextFullTransactionId()));
}

/* There was none, and none was written since the generation. */
void
bdr_stamps_settled(uint64 generation)
{
	Database   *database = MyDatabase();

	if (database)
		pg_atomic_write_u64(&database->stamps_settled, generation);
}

/* ---- commit times that go forward ---- */

/* A clock that was set back by more than this is not waited for, µs. */
#define CLOCK_PATIENCE USECS_PER_SEC

void
bdr_note_commit_time(TimestampTz time)
{
	Database   *database = MyDatabase();
	uint64		last;

	if (database == NULL || time <= 0)
		return;
	last = pg_atomic_read_u64(&database->last_commit);
	while (last < (uint64) time && !pg_atomic_compare_exchange_u64(&database->last_commit, &last, (uint64) time))
		;
}

/*
 * A transaction must not be dated before what it overwrites, or other nodes would take it for the older one. Clocks are
 * set back a little now and then, so a commit waits until the clock has passed the latest commit time.
 */
static void
AtCommit(XactEvent event, void *arg)
{
	static TimestampTz warned = 0;
	static bool writes = false;
	Database   *database;
	TimestampTz last;
	TimestampTz now;

	if ((event != XACT_EVENT_PRE_COMMIT && event != XACT_EVENT_COMMIT) || my_worker != NULL || shared == NULL)
		return;
	database = MyDatabase();
	if (database == NULL || !database->check_identity)
		return;
	if (event == XACT_EVENT_COMMIT)
	{
		if (writes)
			bdr_note_commit_time(GetCurrentTransactionStopTimestamp());
		return;
	}
	/* others have no commit time */
	writes = TransactionIdIsValid(GetTopTransactionIdIfAny());
	if (!writes)
		return;
	for (;;)
	{
		now = GetCurrentTimestamp();
		last = (TimestampTz) pg_atomic_read_u64(&database->last_commit);
		if (now > last)
			return;
		if (last - now > CLOCK_PATIENCE)
			break;
		pg_usleep(Min(last - now + 1, 10000));
	}
	if (now - warned > 60 * USECS_PER_SEC || now < warned)
	{
		warned = now;
		ereport(LOG,
				(errmsg("the clock of this server is %.1f s behind the latest commit", (last - now) / 1e6),
				 errdetail("What is written now is dated before what it overwrites, and may lose against that on other nodes."),
				 errhint("Have the clock synchronised in small steps (NTP).")));
	}
}

/* This process is one of ours, which writes what others have written. */
bool
bdr_is_worker(void)
{
	return my_worker != NULL;
}

/* The node whose changes this apply worker gets, else 0. */
uint32
bdr_worker_peer(void)
{
	return my_worker && my_worker->role == BDR_ROLE_APPLY ? my_worker->peer : 0;
}

void
bdr_manager_wakeup(Oid database)
{
	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_SHARED);
	WakeManager(database);
	LWLockRelease(shared->lock);
}

void
bdr_host_wake_manager(void)
{
	bdr_manager_wakeup(MyDatabaseId);
}

/*
 * Asks for a manager in a database, or wakes the one that is there. What the last one told may be wrong from now on: until
 * it tells again, sessions look at the catalog. Never raises: it is called after a commit.
 */
void
bdr_supervisor_request(Oid oid)
{
	Database   *database;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	database = ClaimDatabase(oid);
	if (database)
	{
		database->wanted = true;
		database->next_start = 0;
		database->published = false;
		database->requests++;
		pg_atomic_fetch_add_u32(&shared->gate_generation, 1);
		WakeManager(oid);
		Wake(shared->supervisor);
	}
	LWLockRelease(shared->lock);
	if (database == NULL)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many databases of this server are bdr nodes"),
				 errdetail("This database's node does not replicate."),
				 errhint("Increase bdr.max_databases and restart the server.")));
}

static bool request_at_commit = false;

static void
RequestAtCommit(XactEvent event, void *arg)
{
	if (!request_at_commit)
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			request_at_commit = false;
			bdr_supervisor_request(MyDatabaseId);
			break;
		case XACT_EVENT_ABORT:
			request_at_commit = false;
			break;
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has changed the bdr node")));
			break;
		default:
			break;
	}
}

/* Asks for a manager of this database when the transaction commits. */
void
bdr_request_manager_at_commit(void)
{
	static bool registered = false;

	bdr_require_preload();
	if (!registered)
	{
		RegisterXactCallback(RequestAtCommit, NULL);
		registered = true;
	}
	request_at_commit = true;
}

/*
 * Keeps workers out of a database that shall be dropped, or left alone for a while; false when there is nothing of ours in
 * it. As long as not every database has been looked at, there may be.
 */
bool
bdr_close_database(Oid oid)
{
	Database   *database;

	if (shared == NULL)
		return false;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	database = shared->scanned ? FindDatabase(oid) : ClaimDatabase(oid);
	if (database)
		database->closing++;
	LWLockRelease(shared->lock);
	return database != NULL;
}

/* It was not dropped after all. The manager is back when the last of those who closed it is done. */
void
bdr_reopen_database(Oid oid)
{
	Database   *database;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	database = FindDatabase(oid);
	if (database && database->closing > 0 && --database->closing == 0)
	{
		Worker	   *manager = FindWorker(oid, BDR_ROLE_MANAGER, 0);

		/* it was stopped on purpose: no failure to wait for */
		if (manager && !IsAlive(manager))
			manager->exit_seen = true;
		database->wanted = true;
		database->next_start = 0;
		Wake(shared->supervisor);
	}
	LWLockRelease(shared->lock);
}

/* It is gone. */
void
bdr_forget_database(Oid oid)
{
	Database   *database;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	database = FindDatabase(oid);
	if (database)
		FreeDatabase(database);
	LWLockRelease(shared->lock);
	bdr_conflict_stats_forget(oid);
	bdr_apply_stats_forget(oid);
}

/* Asks all workers of a database to stop; returns how many are still there. */
int
bdr_terminate_workers(Oid database)
{
	int			count = 0;

	if (shared == NULL)
		return 0;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < shared->nworkers; i++)
	{
		if (workers[i].database == database && IsAlive(&workers[i]))
		{
			Signal(&workers[i]);
			count++;
		}
	}
	LWLockRelease(shared->lock);
	return count;
}

/* Names of the replication origins that apply workers of a database have used, palloc'd. */
List *
bdr_database_origins(Oid database)
{
	NameData   *names;
	List	   *result = NIL;
	int			count = 0;

	if (shared == NULL)
		return NIL;
	names = palloc(sizeof(NameData) * shared->nworkers);
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers; i++)
	{
		if (workers[i].state != WORKER_FREE && workers[i].database == database && workers[i].origin[0] != '\0')
			strlcpy(NameStr(names[count++]), workers[i].origin, NAMEDATALEN);
	}
	LWLockRelease(shared->lock);
	for (int i = 0; i < count; i++)
		result = lappend(result, pstrdup(NameStr(names[i])));
	pfree(names);
	return result;
}

int32_t
bdr_host_database_origins(BdrSqlResult **result)
{
	*result = NULL;
	HOST_BEGIN();
	{
		List	   *names = bdr_database_origins(MyDatabaseId);
		ListCell   *lc;
		int			row = 0;

		*result = bdr_make_result(list_length(names), 1);
		foreach(lc, names)
			bdr_result_set(*result, row++, 0, lfirst(lc));
	}
	HOST_END();
	return BDR_OK;
}

/* ---- progress of an apply worker ------------------------------------------------------------------------------ */

/*
 * Only the worker itself writes its progress, once or so a transaction; a plain store of 64 bits is never seen torn. Its writers
 * count with it.
 */
static inline Progress *
MyProgress(void)
{
	return my_worker ? &my_worker->progress : NULL;
}

/* Of a transaction that may be applied once more. */
static bool holds_counts = false;
static uint64 held_counts[BDR_COUNT_KINDS];

void
bdr_host_progress_status(int32_t status)
{
	Progress   *progress = MyProgress();
	bool		connected = status == BDR_SUB_CATCHUP || status == BDR_SUB_REPLICATING;

	if (progress == NULL)
		return;
	if (connected && pg_atomic_read_u64(&progress->connect_time) == 0)
	{
		pg_atomic_write_u64(&progress->connect_time, (uint64) GetCurrentTimestamp());
		pg_atomic_write_u64(&progress->connects, pg_atomic_read_u64(&progress->connects) + 1);
	}
	else if (!connected && pg_atomic_read_u64(&progress->connect_time) != 0)
	{
		pg_atomic_write_u64(&progress->connect_time, 0);
		pg_atomic_write_u64(&progress->disconnect_time, (uint64) GetCurrentTimestamp());
	}
	pg_atomic_write_u32(&progress->status, (uint32) status);
}

void
bdr_host_progress_received(uint64_t receive_lsn, uint64_t receive_commit_lsn)
{
	Progress   *progress = MyProgress();

	if (progress == NULL)
		return;
	pg_atomic_write_u64(&progress->receive_lsn, receive_lsn);
	/* 0: no commit came with it */
	if (receive_commit_lsn != 0)
		pg_atomic_write_u64(&progress->receive_commit_lsn, receive_commit_lsn);
}

void
bdr_host_progress_applied(uint64_t remote_lsn, int64_t commit_time)
{
	Progress   *progress = MyProgress();

	if (progress == NULL)
		return;
	pg_atomic_write_u64(&progress->replay_lsn, remote_lsn);
	pg_atomic_write_u64(&progress->replay_time, (uint64) commit_time);
}

void
bdr_host_progress_flushed(uint64_t remote_lsn)
{
	Progress   *progress = MyProgress();

	if (progress)
		pg_atomic_write_u64(&progress->flush_lsn, remote_lsn);
}

void
bdr_host_publish_peer(uint32_t peer, uint64_t confirm_rate, int64_t complete_time)
{
	Worker	   *worker;

	LWLockAcquire(shared->lock, LW_SHARED);
	worker = FindWorker(MyDatabaseId, BDR_ROLE_APPLY, peer);
	if (worker)
	{
		pg_atomic_write_u64(&worker->progress.confirm_rate, confirm_rate);
		pg_atomic_write_u64(&worker->progress.complete_time, (uint64) complete_time);
	}
	LWLockRelease(shared->lock);
}

void
bdr_host_stream_after(int64_t time)
{
	Progress   *progress = MyProgress();

	if (progress)
		pg_atomic_write_u64(&progress->stream_after, (uint64) time);
}

int64_t
bdr_host_streams_after(void)
{
	Progress   *progress = MyProgress();

	return progress ? (int64) pg_atomic_read_u64(&progress->stream_after) : 0;
}

void
bdr_host_lock_timeout(int32_t milliseconds)
{
	LockTimeout = milliseconds;
}

void
bdr_host_progress_count(int32_t kind, uint64_t n)
{
	Progress   *progress = MyProgress();

	if (progress == NULL || kind < 0 || kind >= BDR_COUNT_KINDS || !bdr_track_subscription_apply)
		return;
	if (holds_counts)
		held_counts[kind] += n;
	else
		pg_atomic_fetch_add_u64(&progress->counters[kind], n);
}

void
bdr_host_progress_hold(bool hold)
{
	holds_counts = hold;
	memset(held_counts, 0, sizeof(held_counts));
}

void
bdr_progress_committed(void)
{
	if (!holds_counts)
		return;
	holds_counts = false;
	for (int kind = 0; kind < BDR_COUNT_KINDS; kind++)
	{
		if (held_counts[kind] > 0)
			bdr_host_progress_count(kind, held_counts[kind]);
	}
}

void
bdr_worker_counters(uint32 peer, uint64 counters[BDR_COUNT_KINDS + 1])
{
	Worker	   *worker;

	memset(counters, 0, sizeof(uint64) * (BDR_COUNT_KINDS + 1));
	LWLockAcquire(shared->lock, LW_SHARED);
	worker = FindWorker(MyDatabaseId, BDR_ROLE_APPLY, peer);
	if (worker)
	{
		for (int kind = 0; kind < BDR_COUNT_KINDS; kind++)
			counters[kind] = pg_atomic_read_u64(&worker->progress.counters[kind]);
		counters[BDR_COUNT_KINDS] = pg_atomic_read_u64(&worker->progress.connects);
	}
	LWLockRelease(shared->lock);
}

/* ---- the session of a worker ---------------------------------------------------------------------------------- */

typedef struct Override
{
	const char *name;
	const char *value;
} Override;

/* What a worker must have as it is here, whatever ALTER SYSTEM, DATABASE or ROLE say. */
static const Override overrides[] = {
	{"search_path", ""},
	{"row_security", "off"},
	{"check_function_bodies", "off"},
	{"bdr.internal_session", "on"},
	/* nothing may end a worker's wait but itself */
	{"statement_timeout", "0"},
	{"lock_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
	{"idle_session_timeout", "0"},
	{"transaction_timeout", "0"},	/* 17 */
	{"exit_on_error", "off"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	/* text of values must mean the same on all nodes */
	{"DateStyle", "ISO, MDY"},
	{"IntervalStyle", "postgres"},
	{"extra_float_digits", "3"},
	{"bytea_output", "hex"},
	{"lc_monetary", "C"},
	{"xmloption", "content"},
	{"xmlbinary", "base64"},
	{"bdr.crdt_raw_value", "off"},
	{"array_nulls", "on"},
	{"standard_conforming_strings", "on"},
	{"backslash_quote", "safe_encoding"},
	{"transform_null_equals", "off"},
	{"quote_all_identifiers", "off"},
	/* statements must find what they look for, and objects be made where they are on other nodes */
	{"gin_fuzzy_search_limit", "0"},
	{"restrict_nonsystem_relation_kind", ""},	/* 15.8 */
	{"default_tablespace", ""},
	{"temp_tablespaces", ""},
	{"default_table_access_method", "heap"},
	{"createrole_self_grant", ""},	/* 16 */
	/* compiling costs more than it gains for statements that touch a row or a few */
	{"jit", "off"},
};

/*
 * Sets what the table says for this process. PGC_S_OVERRIDE outranks files, databases and roles, also when the
 * configuration is reloaded later. Settings that this server version does not have are passed over.
 */
void
bdr_session_hygiene(void)
{
	const char *durability = "local";
	/* the catalog's own foreign keys hold for everybody but the applier of other nodes' rows */
	const char *replication_role = "origin";

	for (int i = 0; i < lengthof(overrides); i++)
	{
		if (GetConfigOption(overrides[i].name, true, false) != NULL)
			SetConfigOption(overrides[i].name, overrides[i].value, PGC_SUSET, PGC_S_OVERRIDE);
	}
	if (OidIsValid(MyDatabaseId))
		SetConfigOption("client_encoding", GetDatabaseEncodingName(), PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("application_name", MyBgworkerEntry ? MyBgworkerEntry->bgw_name : "bdr", PGC_SUSET, PGC_S_OVERRIDE);

	/*
	 * Steps that a manager or join worker takes are known to other nodes as soon as they are done, so they must be on
	 * disk here; but they must not wait for a standby, which may itself wait for this node.
	 */
	if (my_worker && my_worker->role == BDR_ROLE_APPLY)
		durability = GetConfigOption("bdr.synchronous_commit", false, false);
	if (my_worker && (my_worker->role == BDR_ROLE_APPLY || my_worker->role == BDR_ROLE_RECOVER))
		replication_role = "replica";
	SetConfigOption("session_replication_role", replication_role, PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("synchronous_commit", durability, PGC_SUSET, PGC_S_OVERRIDE);
}

/*
 * A reload that changes bdr.synchronous_commit reaches running apply workers. Other settings can't be set from here, but
 * the variable behind synchronous_commit can: nothing depends on how it came to its value.
 */
void
bdr_assign_synchronous_commit(int value, void *extra)
{
	if (my_worker && my_worker->role == BDR_ROLE_APPLY)
		synchronous_commit = value;
}

/* True once this worker was asked to stop. */
bool
bdr_shutdown_requested(void)
{
	return shutdown_requested;
}

static void
HandleWorkerShutdown(SIGNAL_ARGS)
{
	shutdown_requested = true;
	die(postgres_signal_arg);
}

/* The supervisor ends in its loop, silently, unless it waits inside the server. */
static void
HandleSupervisorShutdown(SIGNAL_ARGS)
{
	int			save_errno = errno;

	shutdown_requested = true;
	if (IsTransactionState())
		die(postgres_signal_arg);
	SetLatch(MyLatch);
	errno = save_errno;
}

/* ---- reading the extension's own tables ----------------------------------------------------------------------- */

/*
 * C reads them in two places: before anything else runs in a worker, and in the gate (hooks.c), where SPI would need the
 * user's privileges and run the gate again. Only tables of a few rows. False when extension or table is not there.
 */
bool
bdr_catalog_open(BdrCatalogScan *scan, const char *table)
{
	Oid			namespace;
	Oid			relid;

	memset(scan, 0, sizeof(*scan));
	if (!OidIsValid(get_extension_oid(BDR_EXTENSION, true)))
		return false;
	namespace = get_namespace_oid(BDR_SCHEMA, true);
	if (!OidIsValid(namespace))
		return false;
	relid = get_relname_relid(table, namespace);
	if (!OidIsValid(relid) || get_rel_relkind(relid) != RELKIND_RELATION)
		return false;
	scan->relation = try_relation_open(relid, AccessShareLock);
	if (scan->relation == NULL)
		return false;
	/* no index, and a fresh snapshot that leaves the transaction's own alone */
	scan->scan = systable_beginscan(scan->relation, InvalidOid, false, NULL, 0, NULL);
	return true;
}

bool
bdr_catalog_next(BdrCatalogScan *scan)
{
	scan->tuple = systable_getnext(scan->scan);
	return HeapTupleIsValid(scan->tuple);
}

/* A column of the current row; false when it is NULL, or not there with that type. */
bool
bdr_catalog_column(BdrCatalogScan *scan, const char *column, Oid type, Datum *value)
{
	AttrNumber	number = get_attnum(RelationGetRelid(scan->relation), column);
	TupleDesc	descriptor = RelationGetDescr(scan->relation);
	bool		isnull;

	if (number <= 0 || number > descriptor->natts || TupleDescAttr(descriptor, number - 1)->atttypid != type)
		return false;
	*value = heap_getattr(scan->tuple, number, descriptor, &isnull);
	return !isnull;
}

void
bdr_catalog_close(BdrCatalogScan *scan)
{
	systable_endscan(scan->scan);
	relation_close(scan->relation, AccessShareLock);
}

/* Notes the name of the origin that this apply worker commits under, so that DROP DATABASE can drop it. */
static void
RememberOrigin(uint32 peer)
{
	BdrCatalogScan scan;
	NameData	origin = {{0}};

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (bdr_catalog_open(&scan, "subscription"))
	{
		while (bdr_catalog_next(&scan))
		{
			Datum		node;
			Datum		name;

			if (bdr_catalog_column(&scan, "origin_node_id", OIDOID, &node) && DatumGetObjectId(node) == peer &&
				bdr_catalog_column(&scan, "sub_origin_name", NAMEOID, &name))
				origin = *DatumGetName(name);
		}
		bdr_catalog_close(&scan);
	}
	CommitTransactionCommand();
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	strlcpy(my_worker->origin, NameStr(origin), NAMEDATALEN);
	LWLockRelease(shared->lock);
}

static bool
ExtensionExists(void)
{
	bool		exists;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	exists = OidIsValid(get_extension_oid(BDR_EXTENSION, true));
	CommitTransactionCommand();
	return exists;
}

/* ---- main functions of workers -------------------------------------------------------------------------------- */

/* Reports the error being handled, for the log, shared memory and the catalog, after ending what failed. */
static void
HandleWorkerError(const StartArguments *arguments, MemoryContext context)
{
	ErrorData  *error;
	char	   *sqlstate;

	MemoryContextSwitchTo(context);
	HOLD_INTERRUPTS();
	EmitErrorReport();
	error = CopyErrorData();
	FlushErrorState();
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(context);
	sqlstate = pstrdup(unpack_sql_state(error->sqlerrcode));

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	NoteError(my_worker, sqlstate, error->message ? error->message : "");
	LWLockRelease(shared->lock);
	my_error_recorded = true;
	if (!shutdown_requested)
		bdr_apply_stats_error(error->sqlerrcode);
	RESUME_INTERRUPTS();

	/* a process that was asked to go has no business in the database any more */
	if (shutdown_requested || bdr_database_is_closing(arguments->database))
		return;
	PG_TRY();
	{
		bdr_discard_error();
		ENGINE_CALL(bdr_engine_record_worker_error(arguments->role, arguments->peer, sqlstate,
												   error->message ? error->message : "", error->detail,
												   error->context));
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		FlushErrorState();
		AbortOutOfAnyTransaction();
	}
	PG_END_TRY();
}

static void
WorkerMain(int32 role)
{
	StartArguments arguments;
	MemoryContext context;
	volatile int exit_code = 0;

	memcpy(&arguments, MyBgworkerEntry->bgw_extra, sizeof(arguments));
	pqsignal(SIGTERM, HandleWorkerShutdown);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	if (arguments.role != role || !AttachWorker(&arguments))
		proc_exit(0);

	BackgroundWorkerInitializeConnectionByOid(arguments.database, InvalidOid, 0);
	bdr_session_hygiene();
	context = AllocSetContextCreate(TopMemoryContext, "bdr worker", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	pgstat_report_activity(STATE_IDLE, NULL);

	PG_TRY();
	{
		switch (role)
		{
			case BDR_ROLE_MANAGER:
				/* without it there may be slots of a node that was dropped with it, while its manager was not there */
				if (ExtensionExists())
					ENGINE_CALL(bdr_engine_manager_main());
				else
					ENGINE_CALL(bdr_engine_manager_leftovers());
				break;
			case BDR_ROLE_APPLY:
				RememberOrigin(arguments.peer);
				ENGINE_CALL(bdr_engine_apply_main(arguments.peer));
				break;
			case BDR_ROLE_JOIN:
				ENGINE_CALL(bdr_engine_join_main());
				break;
			case BDR_ROLE_GROUP:
				ENGINE_CALL(bdr_engine_group_main());
				break;
			case BDR_ROLE_RECOVER:
				ENGINE_CALL(bdr_engine_recover_main(arguments.peer));
				break;
			case BDR_ROLE_LOCK:
				ENGINE_CALL(bdr_engine_lock_main(arguments.peer));
				break;
			case BDR_ROLE_SEQUENCE:
				ENGINE_CALL(bdr_engine_sequence_main());
				break;
		}
	}
	PG_CATCH();
	{
		HandleWorkerError(&arguments, context);
		exit_code = 1;
	}
	PG_END_TRY();

	/* a manager that was stopped has not said that there is nothing to manage */
	if (role == BDR_ROLE_MANAGER && shutdown_requested)
		exit_code = 1;
	proc_exit(exit_code);
}

/* ---- writers (stream_writer.c), which are part of the apply worker that started them ---- */

int
bdr_worker_entry(void)
{
	return my_worker ? (int) (my_worker - workers) : -1;
}

void
bdr_writer_signals(void)
{
	pqsignal(SIGTERM, HandleWorkerShutdown);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
}

void
bdr_writer_connect(int entry, Oid database)
{
	if (shared == NULL || entry < 0 || entry >= shared->nworkers || workers[entry].database != database)
		elog(ERROR, "bdr: a writer without an apply worker");
	my_worker = &workers[entry];
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	bdr_session_hygiene();
	pgstat_report_activity(STATE_IDLE, NULL);
}

void
bdr_manager_main(Datum arg)
{
	WorkerMain(BDR_ROLE_MANAGER);
}

void
bdr_apply_main(Datum arg)
{
	WorkerMain(BDR_ROLE_APPLY);
}

void
bdr_join_main(Datum arg)
{
	WorkerMain(BDR_ROLE_JOIN);
}

void
bdr_group_main(Datum arg)
{
	WorkerMain(BDR_ROLE_GROUP);
}

void
bdr_recover_main(Datum arg)
{
	WorkerMain(BDR_ROLE_RECOVER);
}

void
bdr_lock_main(Datum arg)
{
	WorkerMain(BDR_ROLE_LOCK);
}

void
bdr_sequence_main(Datum arg)
{
	WorkerMain(BDR_ROLE_SEQUENCE);
}

/* ---- supervisor ----------------------------------------------------------------------------------------------- */

/* A set of databases, in the supervisor's memory. */
typedef struct OidSet
{
	Oid		   *items;
	int			count;
	int			size;
} OidSet;

static OidSet seen;				/* connectable at the last scan */
static OidSet to_look_at;		/* a queue: those not looked at yet, from next_look on */
static int	next_look = 0;
static Oid	looking_at = InvalidOid;
static TimestampTz looking_since;
static TimestampTz next_scan = 0;

static void
AddOid(OidSet *set, Oid oid)
{
	if (set->items == NULL)
	{
		set->size = 64;
		set->items = MemoryContextAlloc(TopMemoryContext, sizeof(Oid) * set->size);
	}
	else if (set->count == set->size)
	{
		set->size *= 2;
		set->items = repalloc_huge(set->items, sizeof(Oid) * set->size);
	}
	set->items[set->count++] = oid;
}

static bool
HasOid(const OidSet *set, Oid oid)
{
	return set->count > 0 && bsearch(&oid, set->items, set->count, sizeof(Oid), oid_cmp) != NULL;
}

/* Queues the databases that were not there, or could not be connected to, at the last scan. */
static void
ScanDatabases(void)
{
	OidSet		now = {0};
	Relation	relation;
	TableScanDesc scan;
	HeapTuple	tuple;

	if (next_look > 0)
	{
		to_look_at.count -= next_look;
		memmove(to_look_at.items, to_look_at.items + next_look, sizeof(Oid) * to_look_at.count);
		next_look = 0;
	}
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	relation = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(relation, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		if (!form->datallowconn || form->datistemplate || database_is_invalid_form(form))
			continue;
		AddOid(&now, form->oid);
		if (!HasOid(&seen, form->oid))
			AddOid(&to_look_at, form->oid);
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	CommitTransactionCommand();
	if (now.count > 1)
		qsort(now.items, now.count, sizeof(Oid), oid_cmp);
	if (seen.items)
		pfree(seen.items);
	seen = now;
}

/* Whether a manager could connect; it may have been dropped since its entry was made. */
static bool
IsConnectable(Oid oid, char *name)
{
	HeapTuple	tuple;
	bool		connectable = false;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(oid));
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		connectable = form->datallowconn && !database_is_invalid_form(form);
		strlcpy(name, NameStr(form->datname), NAMEDATALEN);
		ReleaseSysCache(tuple);
	}
	CommitTransactionCommand();
	return connectable;
}

/* The first look at a database is over: there is no node, its manager has told of one, or it failed or takes long. */
static bool
LookIsOver(TimestampTz now)
{
	Database   *database;
	Worker	   *manager;
	bool		over;

	LWLockAcquire(shared->lock, LW_SHARED);
	database = FindDatabase(looking_at);
	manager = FindWorker(looking_at, BDR_ROLE_MANAGER, 0);
	if (database == NULL || database->published || database->failures > 0 || database->closing)
		over = true;
	else if (manager == NULL || !IsAlive(manager))
		over = !database->wanted;
	else
		over = now - looking_since > SETTLE_TIMEOUT;
	LWLockRelease(shared->lock);
	return over;
}

/* Goes on with looking at databases, one at a time so that one worker slot of the server is enough. */
static void
LookAtDatabases(TimestampTz now)
{
	while (!OidIsValid(looking_at) || LookIsOver(now))
	{
		Database   *database;
		Oid			oid;

		if (next_look >= to_look_at.count)
		{
			looking_at = InvalidOid;
			LWLockAcquire(shared->lock, LW_EXCLUSIVE);
			if (!shared->scanned)
			{
				shared->scanned = true;
				pg_atomic_fetch_add_u32(&shared->gate_generation, 1);
			}
			LWLockRelease(shared->lock);
			return;
		}
		oid = to_look_at.items[next_look];
		LWLockAcquire(shared->lock, LW_EXCLUSIVE);
		database = ClaimDatabase(oid);
		if (database && !database->closing)
			database->wanted = true;
		LWLockRelease(shared->lock);
		if (database == NULL)
		{
			static bool logged = false;

			/* stays in the queue, and the scan incomplete: databases are not known to have no node */
			if (!logged)
				ereport(LOG,
						(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						 errmsg("bdr: %d databases of this server are nodes; others are not looked at",
								shared->ndatabases),
						 errhint("Increase bdr.max_databases and restart the server.")));
			logged = true;
			looking_at = InvalidOid;
			return;
		}
		next_look++;
		looking_at = oid;
		looking_since = now;
	}
}

/* How long a manager that failed waits, µs. */
static int64
ManagerDelay(int failures)
{
	int64		delay = 1000;

	for (int i = 1; i < failures && delay < bdr_max_worker_backoff_delay; i++)
		delay *= 2;
	return Max(Min(delay, bdr_max_worker_backoff_delay), 1) * 1000;
}

/* Deals with a manager that has ended; with the lock. */
static void
NoteManagerEnd(Database *database, Worker *manager)
{
	manager->exit_seen = true;
	if (manager->exit_code == 0)
	{
		database->failures = 0;
		return;
	}
	if (manager->ended_at - manager->started_at > (int64) bdr_max_worker_backoff_delay * 1000)
		database->failures = 0;
	database->failures++;
	database->wanted = true;
	database->next_start = manager->ended_at + ManagerDelay(database->failures);
}

/* Starts the manager of a database. */
static void
StartManager(Oid oid, TimestampTz now)
{
	char		name[NAMEDATALEN];
	char		title[BGW_MAXLEN];
	bool		connectable = IsConnectable(oid, name);
	bool		log = false;
	Database   *database;

	if (!connectable)
		bdr_terminate_workers(oid);
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	database = FindDatabase(oid);
	if (database)
	{
		database->wanted = false;
		if (!connectable && !database->closing)
			FreeDatabase(database);
	}
	LWLockRelease(shared->lock);
	if (database == NULL || !connectable)
		return;

	snprintf(title, sizeof(title), "bdr manager %s", name);
	if (StartWorker(oid, BDR_ROLE_MANAGER, 0, title) == BDR_OK)
	{
		LWLockAcquire(shared->lock, LW_EXCLUSIVE);
		if ((database = FindDatabase(oid)) != NULL)
			database->no_slot_logged = false;
		LWLockRelease(shared->lock);
		return;
	}
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((database = FindDatabase(oid)) != NULL && !database->closing)
	{
		database->wanted = true;
		database->next_start = now + NO_SLOT_DELAY;
		log = !database->no_slot_logged;
		database->no_slot_logged = true;
	}
	LWLockRelease(shared->lock);
	if (log)
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("bdr: no worker slot is free for database \"%s\", trying again later", name),
				 errhint("Increase max_worker_processes and restart the server.")));
}

/* One round. Returns when the next one is due. */
static TimestampTz
Supervise(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz due;
	Oid		   *start = palloc(sizeof(Oid) * shared->ndatabases);
	int			nstart = 0;
	StartArguments *starting = palloc(sizeof(StartArguments) * shared->nworkers);
	int			nstarting = 0;

	if (now >= next_scan || next_scan - now > RESCAN_INTERVAL)
	{
		ScanDatabases();
		next_scan = now + RESCAN_INTERVAL;
	}
	due = next_scan;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers; i++)
	{
		if (workers[i].state == WORKER_STARTING)
		{
			starting[nstarting].entry = i;
			starting[nstarting++].generation = workers[i].generation;
		}
	}
	LWLockRelease(shared->lock);
	for (int i = 0; i < nstarting; i++)
		CheckArrival(starting[i].entry, starting[i].generation);
	if (nstarting > 0)
		due = Min(due, now + USECS_PER_SEC);

	/* ends of managers first: they tell whether the look at a database is over */
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < shared->ndatabases; i++)
	{
		Database   *database = &databases[i];
		Worker	   *manager;
		bool		busy = false;

		if (!OidIsValid(database->oid) || database->closing)
			continue;
		manager = FindWorker(database->oid, BDR_ROLE_MANAGER, 0);
		if (manager && IsAlive(manager))
			continue;
		if (manager && !manager->exit_seen)
			NoteManagerEnd(database, manager);
		if (database->wanted)
			continue;
		/* no node any more: the last workers go, then the entry */
		for (int j = 0; j < shared->nworkers; j++)
		{
			if (workers[j].database == database->oid && IsAlive(&workers[j]))
			{
				Signal(&workers[j]);
				busy = true;
			}
		}
		if (busy)
			due = Min(due, now + USECS_PER_SEC);
		else
			FreeDatabase(database);
	}
	LWLockRelease(shared->lock);

	LookAtDatabases(now);
	if (OidIsValid(looking_at))
		due = Min(due, now + USECS_PER_SEC);

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->ndatabases; i++)
	{
		Database   *database = &databases[i];
		Worker	   *manager;

		if (!OidIsValid(database->oid) || database->closing || !database->wanted)
			continue;
		manager = FindWorker(database->oid, BDR_ROLE_MANAGER, 0);
		if (manager && IsAlive(manager))
			continue;
		/* a clock that was set back makes nobody wait for longer than the longest delay */
		if (database->next_start <= now ||
			database->next_start - now > Max((int64) bdr_max_worker_backoff_delay * 1000, NO_SLOT_DELAY))
			start[nstart++] = database->oid;
		else
			due = Min(due, database->next_start);
	}
	LWLockRelease(shared->lock);
	for (int i = 0; i < nstart; i++)
		StartManager(start[i], now);
	/* find out soon what could not be started */
	if (nstart > 0)
		due = Min(due, now + USECS_PER_SEC);
	return due;
}

static void
DetachSupervisor(int code, Datum arg)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (shared->supervisor == MyProc)
		shared->supervisor = NULL;
	LWLockRelease(shared->lock);
}

void
bdr_supervisor_main(Datum arg)
{
	MemoryContext round;

	pqsignal(SIGTERM, HandleSupervisorShutdown);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	/* it has no statement that pg_cancel_backend could mean, and would be away for seconds */
	pqsignal(SIGINT, SIG_IGN);
	BackgroundWorkerUnblockSignals();
	before_shmem_exit(DetachSupervisor, (Datum) 0);
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->supervisor = MyProc;
	LWLockRelease(shared->lock);

	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	bdr_session_hygiene();
	round = AllocSetContextCreate(TopMemoryContext, "bdr supervisor", ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		TimestampTz due;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		/* status 1: should it not be the server that stops, another one is started */
		if (shutdown_requested)
			proc_exit(1);
		MemoryContextReset(round);
		MemoryContextSwitchTo(round);
		due = Supervise();
		pgstat_report_activity(STATE_IDLE, NULL);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 TimestampDifferenceMilliseconds(GetCurrentTimestamp(), due), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

/* ---- views ---------------------------------------------------------------------------------------------------- */

/* A value of a row, found by the name of the result's column. */
typedef struct Cell
{
	const char *name;
	Oid			type;
	Datum		value;
	bool		isnull;
} Cell;

/* Adds a row whose columns are whichever of the cells the function was declared with. */
static void
PutCells(ReturnSetInfo *rsinfo, const Cell *cells, int ncells)
{
	TupleDesc	descriptor = rsinfo->setDesc;
	Datum	   *values = palloc0(sizeof(Datum) * descriptor->natts);
	bool	   *nulls = palloc0(sizeof(bool) * descriptor->natts);

	for (int i = 0; i < descriptor->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(descriptor, i);
		const Cell *cell = NULL;

		for (int j = 0; j < ncells && cell == NULL; j++)
			if (strcmp(cells[j].name, NameStr(attribute->attname)) == 0)
				cell = &cells[j];
		if (cell == NULL || cell->type != attribute->atttypid)
			elog(ERROR, "unknown column \"%s\" or wrong type", NameStr(attribute->attname));
		values[i] = cell->value;
		nulls[i] = cell->isnull;
	}
	tuplestore_putvalues(rsinfo->setResult, descriptor, values, nulls);
	pfree(values);
	pfree(nulls);
}

/* Copies the entries of this database's workers. */
static Worker *
CopyWorkers(int *count)
{
	Worker	   *copy = palloc(sizeof(Worker) * shared->nworkers);

	*count = 0;
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers; i++)
	{
		Worker	   *from = &workers[i];
		Worker	   *to = &copy[*count];

		if (from->state == WORKER_FREE || from->database != MyDatabaseId)
			continue;
		memcpy(to, from, offsetof(Worker, progress));
		pg_atomic_init_u32(&to->progress.status, pg_atomic_read_u32(&from->progress.status));
#define COPY(field) pg_atomic_init_u64(&to->progress.field, pg_atomic_read_u64(&from->progress.field))
		COPY(receive_lsn);
		COPY(receive_commit_lsn);
		COPY(replay_lsn);
		COPY(replay_time);
		COPY(flush_lsn);
		COPY(connect_time);
		COPY(disconnect_time);
		COPY(confirm_rate);
		COPY(complete_time);
		COPY(connects);
		for (int kind = 0; kind < BDR_COUNT_KINDS; kind++)
			COPY(counters[kind]);
#undef COPY
		(*count)++;
	}
	LWLockRelease(shared->lock);
	return copy;
}

static const char *
StatusName(const Worker *worker)
{
	switch (pg_atomic_read_u32((pg_atomic_uint32 *) &worker->progress.status))
	{
		case BDR_SUB_STARTING:
			return "starting";
		case BDR_SUB_CATCHUP:
			return "catchup";
		case BDR_SUB_REPLICATING:
			return "replicating";
		case BDR_SUB_ERROR:
			return "error";
		default:
			return "down";
	}
}

/*
 * bdr.show_subscription_status(): a row for each apply worker of this database that was ever started, also when it is
 * down. Unknown positions and times are NULL.
 */
Datum
bdr_show_subscription_status(PG_FUNCTION_ARGS)
{
	Worker	   *copy;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	if (shared == NULL)
		return (Datum) 0;
	copy = CopyWorkers(&count);
	for (int i = 0; i < count; i++)
	{
		Worker	   *worker = &copy[i];
		bool		errors = worker->error_at != 0;

#define NUMBER(field) pg_atomic_read_u64(&worker->progress.field)
#define LSN(name, field) {name, PG_LSNOID, LSNGetDatum(NUMBER(field)), NUMBER(field) == 0}
#define TIME(name, field) \
	{name, TIMESTAMPTZOID, TimestampTzGetDatum((TimestampTz) NUMBER(field)), NUMBER(field) == 0}
#define COUNT(name, field) {name, INT8OID, Int64GetDatum((int64) NUMBER(field)), false}
		Cell		cells[] = {
			{"peer", OIDOID, ObjectIdGetDatum(worker->peer), false},
			{"worker_pid", INT4OID, Int32GetDatum(worker->pid), worker->pid == 0},
			{"status", TEXTOID, CStringGetTextDatum(StatusName(worker)), false},
			LSN("receive_lsn", receive_lsn),
			LSN("receive_commit_lsn", receive_commit_lsn),
			LSN("last_xact_replay_lsn", replay_lsn),
			LSN("last_xact_flush_lsn", flush_lsn),
			TIME("last_xact_replay_timestamp", replay_time),
			TIME("connect_time", connect_time),
			TIME("disconnect_time", disconnect_time),
			{"confirm_rate", INT8OID, Int64GetDatum((int64) NUMBER(confirm_rate)), NUMBER(complete_time) == 0},
			TIME("complete_time", complete_time),
			COUNT("nconnect", connects),
			COUNT("ninsert", counters[BDR_COUNT_INSERT]),
			COUNT("nupdate", counters[BDR_COUNT_UPDATE]),
			COUNT("ndelete", counters[BDR_COUNT_DELETE]),
			COUNT("ntruncate", counters[BDR_COUNT_TRUNCATE]),
			COUNT("ncommit", counters[BDR_COUNT_COMMIT]),
			COUNT("nconflict", counters[BDR_COUNT_CONFLICT]),
			COUNT("nmissing", counters[BDR_COUNT_MISSING]),
			COUNT("nddl", counters[BDR_COUNT_DDL]),
			{"nerror", INT8OID, Int64GetDatum((int64) worker->errors), false},
			{"last_error_sqlstate", TEXTOID, CStringGetTextDatum(worker->sqlstate), !errors},
			{"last_error_message", TEXTOID, CStringGetTextDatum(worker->message), !errors},
			{"last_error_time", TIMESTAMPTZOID, TimestampTzGetDatum(worker->error_at), !errors},
		};
#undef NUMBER
#undef LSN
#undef TIME
#undef COUNT
		if (worker->role == BDR_ROLE_APPLY)
			PutCells((ReturnSetInfo *) fcinfo->resultinfo, cells, lengthof(cells));
	}
	return (Datum) 0;
}

/* bdr.show_workers(): the running workers of this database. */
Datum
bdr_show_workers(PG_FUNCTION_ARGS)
{
	Worker	   *copy;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	if (shared == NULL)
		return (Datum) 0;
	copy = CopyWorkers(&count);
	for (int i = 0; i < count; i++)
	{
		Worker	   *worker = &copy[i];
		Cell		cells[] = {
			{"worker_pid", INT4OID, Int32GetDatum(worker->pid), false},
			{"worker_role", INT4OID, Int32GetDatum(worker->role), false},
			{"worker_role_name", TEXTOID, CStringGetTextDatum(RoleName(worker->role)), false},
			{"worker_peer", OIDOID, ObjectIdGetDatum(worker->peer), false},
			{"started", TIMESTAMPTZOID, TimestampTzGetDatum(worker->started_at), false},
		};

		if (worker->state == WORKER_RUNNING)
			PutCells((ReturnSetInfo *) fcinfo->resultinfo, cells, lengthof(cells));
	}
	return (Datum) 0;
}
