/*
 * failover_slots.c: on a standby, keeps copies of the slots from which the primary's peers receive, so that the standby can
 * be promoted and go on as the node.
 *
 * A process that runs while the server is in recovery asks the primary every few seconds for its slots and creates, moves
 * or drops the ones here. A slot that is not safe yet is temporary: it keeps WAL and catalog rows, and is gone when the
 * process ends, as it does at promotion. It becomes a lasting one when decoding from it must find everything:
 *
 * - WAL. The standby has it from the slot's restart_lsn on without a gap, and keeps it from there on.
 * - Replay has passed the slot's confirmed_flush_lsn. The slot never goes beyond, and never backwards.
 * - Consistency. At the primary's restart_lsn transactions may be running, and the snapshot that the primary has stored for
 *   that position is not here. So positions are not copied: WAL is decoded from the slot's own restart_lsn to the
 *   confirmed_flush_lsn of the primary, in the server's fast mode that looks at no row. If that finds a consistent state on
 *   the way, so will the walsender after promotion. It also stores snapshots here, and moves restart_lsn to one of them.
 * - Catalog rows. They are removed by what the primary's vacuum has written into WAL. Until the slot is here, the primary's
 *   slot has kept those it needs itself; from then on, its physical slot for this standby has to keep what the slot here
 *   needs, by hot_standby_feedback. The slot is safe as soon as the primary says that the physical slot's catalog_xmin is
 *   not newer than the slot's own there: nothing was removed in between.
 *
 * Decoding never looks into a database, so the process is connected to none. A database with a temporary slot is locked, as
 * replay of its DROP DATABASE would fail over a slot that is in use. The primary drops the slots first; then they go here, and
 * the lock, within seconds. If the primary can't be reached, all temporary slots go.
 */
#include "bdr.h"
#include "compat.h"

#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "access/xlogutils.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "replication/decode.h"
#include "replication/logical.h"
#include "replication/slot.h"
#include "replication/walreceiver.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/spin.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Time between two rounds, ms; more when a round is much work, as WAL is read again from the oldest running transaction on. */
#define ROUND_PAUSE 2000
#define ROUND_PAUSE_MAX 60000
#define ROUND_PAUSE_FACTOR 10
/* After an error, ms. */
#define ERROR_PAUSE 20000
/* How often it is looked whether the server was promoted, ms. */
#define LOOK_PAUSE 500
/* How long a round waits for replay to reach what the primary's peers have confirmed, ms. */
#define REPLAY_PATIENCE 3000
#define CONNECT_TIMEOUT 10000

/* A slot as the primary has it. */
typedef struct RemoteSlot
{
	NameData	name;
	Oid			database;
	bool		ready;			/* it is made, and was not invalidated */
	XLogRecPtr	restart_lsn;
	XLogRecPtr	confirmed_flush;
	TransactionId catalog_xmin;
} RemoteSlot;

/* All that one question to the primary has told. */
typedef struct Upstream
{
	RemoteSlot *slots;
	int			count;
	bool		has_standby_slot;
	TransactionId standby_catalog_xmin; /* of the physical slot for this standby */
} Upstream;

/* A slot as it is here. */
typedef struct LocalSlot
{
	NameData	name;
	Oid			database;
	bool		temporary;
	bool		invalid;
	bool		busy;			/* some other process holds it */
	XLogRecPtr	confirmed_flush;
} LocalSlot;

/* What is complained of once, until it is mended. */
typedef enum Complaint
{
	NO_CONNECTION_STRING,
	NOT_CONNECTED,
	OTHER_SYSTEM,
	WAL_LEVEL,
	NO_FEEDBACK,
	NO_SLOT_NAME,
	NO_SUCH_SLOT,
	BEHIND,
	COMPLAINTS
} Complaint;

static bool complained[COMPLAINTS];
static BdrConn *upstream_connection = NULL;
static char *connected_with = NULL;
static bool decoding = false;

PGDLLEXPORT void bdr_standby_main(Datum arg);

/* Called while shared_preload_libraries are loaded. */
void
bdr_failover_slots_init(void)
{
	BackgroundWorker worker;
	struct stat found;

	/* a server that is no standby now is none until it is started again */
	if (IsBinaryUpgrade || stat(STANDBY_SIGNAL_FILE, &found) != 0)
		return;
	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = 5;
	strlcpy(worker.bgw_library_name, "bdr", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "bdr_standby_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "bdr standby", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "bdr standby", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

/* True when there is something to complain of that was not written to the log yet. */
static bool
Complain(Complaint what, bool present)
{
	bool		first = present && !complained[what];

	complained[what] = present;
	return first;
}

/* The server writes of each start of decoding to the log; here that would be every few seconds. */
static emit_log_hook_type previous_emit_log = NULL;

static void
QuietDecoding(ErrorData *error)
{
	if (decoding && error->elevel == LOG)
		error->output_to_server = false;
	if (previous_emit_log)
		previous_emit_log(error);
}

/* ---- the primary ---------------------------------------------------------------------------------------------- */

static void
Disconnect(void)
{
	bdr_host_conn_close(upstream_connection);
	upstream_connection = NULL;
	if (connected_with)
		pfree(connected_with);
	connected_with = NULL;
}

/* Whether a connection string names a database to which a client can connect. */
static bool
NamesDatabase(const char *conninfo)
{
	PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
	bool		names = false;

	for (PQconninfoOption *option = options; option && option->keyword; option++)
	{
		if (strcmp(option->keyword, "dbname") == 0 && option->val && *option->val &&
			strcmp(option->val, "replication") != 0)
			names = true;
	}
	PQconninfoFree(options);
	return names;
}

/* Connects unless connected; false when that is not possible at present. */
static bool
Connect(void)
{
	const char *own = bdr_synchronize_failover_slots_dsn;
	bool		has_own = own && *own;
	const char *dsn = has_own ? own : PrimaryConnInfo;
	const char *keywords[] = {"fallback_application_name", "options", "dbname"};
	const char *values[] = {"bdr standby", "-c statement_timeout=0 -c search_path= -c DateStyle=ISO", "postgres"};
	int			count = has_own || NamesDatabase(dsn ? dsn : "") ? 2 : 3;
	int			status;

	if (Complain(NO_CONNECTION_STRING, dsn == NULL || *dsn == '\0'))
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("replication slots of bdr are not copied to this standby: it does not know its primary"),
				 errhint("Set primary_conninfo, or bdr.synchronize_failover_slots_dsn if the standby gets its WAL otherwise.")));
	if (complained[NO_CONNECTION_STRING])
	{
		Disconnect();
		return false;
	}
	if (upstream_connection && strcmp(connected_with, dsn) == 0)
		return true;
	Disconnect();
	status = bdr_host_conn_open(dsn, count, keywords, values, CONNECT_TIMEOUT, &upstream_connection);
	if (status == BDR_HOST_ERROR)
		bdr_rethrow();
	if (Complain(NOT_CONNECTED, status != BDR_OK))
		ereport(WARNING,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("replication slots of bdr are not copied to this standby at present: could not connect to the primary"),
				 errdetail("%s", bdr_host_conn_message(upstream_connection)),
				 errhint("The role of primary_conninfo needs access to database \"postgres\" in pg_hba.conf of the primary. "
						 "bdr.synchronize_failover_slots_dsn can name another way.")));
	if (status != BDR_OK)
	{
		Disconnect();
		return false;
	}
	connected_with = MemoryContextStrdup(TopMemoryContext, dsn);
	return true;
}

static XLogRecPtr
PositionValue(const BdrSqlResult *result, int row, int column)
{
	const char *text = bdr_host_sql_value(result, row, column);

	return text ? DatumGetLSN(DirectFunctionCall1(pg_lsn_in, CStringGetDatum(text))) : InvalidXLogRecPtr;
}

static uint32
NumberValue(const BdrSqlResult *result, int row, int column)
{
	const char *text = bdr_host_sql_value(result, row, column);

	return text ? (uint32) strtoul(text, NULL, 10) : 0;
}

/* Asks the primary for its slots. false: it can't be reached, or is not this standby's. */
static bool
AskUpstream(Upstream *upstream)
{
	BdrSqlResult *result = NULL;
	char		system[32];
	const char *arguments[1];
	const char *native = "";
	int			status;
	bool		same_system;

#if PG_VERSION_NUM >= 170000
	/* these the server copies itself */
	if (strcmp(GetConfigOption("sync_replication_slots", false, false), "on") == 0)
		native = " AND NOT s.failover";
#endif
	memset(upstream, 0, sizeof(*upstream));
	if (!Connect())
		return false;
	arguments[0] = PrimarySlotName ? PrimarySlotName : "";
	/* the standby's own slot may be read before or after the others: it can only be older than is assumed */
	status = bdr_host_conn_query(upstream_connection,
								 psprintf("SELECT c.system_identifier, s.slot_name, s.slot_type, s.datoid, s.restart_lsn,"
										  " s.confirmed_flush_lsn, s.catalog_xmin, s.wal_status"
										  " FROM pg_catalog.pg_control_system() c"
										  " LEFT JOIN pg_catalog.pg_replication_slots s"
										  " ON (s.slot_type = 'logical' AND s.plugin = '" BDR_PLUGIN "' AND NOT s.temporary%s)"
										  " OR (s.slot_type = 'physical' AND s.slot_name = $1::pg_catalog.name)", native),
								 1, arguments, &result);
	if (status == BDR_HOST_ERROR)
		bdr_rethrow();
	if (status != BDR_OK)
	{
		if (Complain(NOT_CONNECTED, true))
			ereport(WARNING,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("replication slots of bdr are not copied to this standby at present: the primary did not answer"),
					 errdetail("%s", bdr_host_conn_message(upstream_connection))));
		Disconnect();
		return false;
	}
	snprintf(system, sizeof(system), INT64_FORMAT, (int64) GetSystemIdentifier());
	same_system = bdr_host_sql_rows(result) > 0 && bdr_host_sql_value(result, 0, 0) &&
		strcmp(bdr_host_sql_value(result, 0, 0), system) == 0;
	if (Complain(OTHER_SYSTEM, !same_system))
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("replication slots of bdr are not copied to this standby: the server asked for them is not its primary"),
				 errhint("Correct bdr.synchronize_failover_slots_dsn.")));
	upstream->slots = palloc0(sizeof(RemoteSlot) * Max(bdr_host_sql_rows(result), 1));
	for (int row = 0; same_system && row < bdr_host_sql_rows(result); row++)
	{
		const char *name = bdr_host_sql_value(result, row, 1);
		const char *type = bdr_host_sql_value(result, row, 2);
		const char *wal_status = bdr_host_sql_value(result, row, 7);
		RemoteSlot *slot;

		if (name == NULL || type == NULL)
			continue;
		if (strcmp(type, "physical") == 0)
		{
			upstream->has_standby_slot = true;
			upstream->standby_catalog_xmin = NumberValue(result, row, 6);
			continue;
		}
		slot = &upstream->slots[upstream->count++];
		namestrcpy(&slot->name, name);
		slot->database = NumberValue(result, row, 3);
		slot->restart_lsn = PositionValue(result, row, 4);
		slot->confirmed_flush = PositionValue(result, row, 5);
		slot->catalog_xmin = NumberValue(result, row, 6);
		slot->ready = slot->restart_lsn != InvalidXLogRecPtr && slot->confirmed_flush != InvalidXLogRecPtr &&
			TransactionIdIsNormal(slot->catalog_xmin) && OidIsValid(slot->database) &&
			wal_status != NULL && strcmp(wal_status, "lost") != 0;
	}
	bdr_host_sql_free(result);
	return same_system;
}

/* ---- slots here ----------------------------------------------------------------------------------------------- */

/* The slots of bdr, copied. */
static LocalSlot *
ListLocalSlots(int *count)
{
	LocalSlot  *list = palloc(sizeof(LocalSlot) * max_replication_slots);

	*count = 0;
	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];
		LocalSlot  *entry = &list[*count];

		if (!slot->in_use || !SlotIsLogical(slot) || strcmp(NameStr(slot->data.plugin), BDR_PLUGIN) != 0 ||
			bdr_slot_is_synced_by_server(slot))
			continue;
		SpinLockAcquire(&slot->mutex);
		entry->name = slot->data.name;
		entry->database = slot->data.database;
		entry->temporary = slot->data.persistency != RS_PERSISTENT;
		entry->invalid = bdr_slot_is_invalid(slot);
		entry->busy = slot->active_pid != 0 && slot->active_pid != MyProcPid;
		entry->confirmed_flush = slot->data.confirmed_flush;
		SpinLockRelease(&slot->mutex);
		(*count)++;
	}
	LWLockRelease(ReplicationSlotControlLock);
	return list;
}

static void
LockDatabase(Oid database)
{
	LockSharedObjectForSession(DatabaseRelationId, database, 0, AccessShareLock);
}

static void
UnlockDatabase(Oid database)
{
	UnlockSharedObjectForSession(DatabaseRelationId, database, 0, AccessShareLock);
}

static void
DropLocalSlot(const LocalSlot *slot)
{
	bool		exists;

	if (slot->busy)
		return;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	/* replay of a DROP DATABASE drops it as well, and would fail if this process had it then */
	LockSharedObject(DatabaseRelationId, slot->database, 0, AccessShareLock);
	exists = SearchNamedReplicationSlot(NameStr(slot->name), true) != NULL;
	if (exists)
		ReplicationSlotDrop(NameStr(slot->name), true);
	/* the lock that has come with it */
	if (slot->temporary)
		UnlockDatabase(slot->database);
	CommitTransactionCommand();
}

/* name: that one only, or all for NULL */
static void
DropTemporarySlots(const char *name)
{
	MemoryContext caller = CurrentMemoryContext;
	int			count;
	LocalSlot  *slots = ListLocalSlots(&count);

	for (int i = 0; i < count; i++)
		if (slots[i].temporary && (name == NULL || strcmp(name, NameStr(slots[i].name)) == 0))
			DropLocalSlot(&slots[i]);
	MemoryContextSwitchTo(caller);
	pfree(slots);
}

/* Whether WAL is here without a gap from a position on. */
static bool
HasWalFrom(XLogRecPtr position)
{
	XLogSegNo	first;
	XLogSegNo	last;
	bool	   *present;
	uint64		missing;
	DIR		   *dir;
	struct dirent *entry;

	XLByteToSeg(position, first, wal_segment_size);
	XLByteToPrevSeg(GetXLogReplayRecPtr(NULL), last, wal_segment_size);
	if (first > last)
		return true;
	if (first <= XLogGetLastRemovedSegno() || last - first >= MaxAllocSize)
		return false;
	missing = last - first + 1;
	present = palloc0(missing);
	dir = AllocateDir(XLOGDIR);
	while ((entry = ReadDir(dir, XLOGDIR)) != NULL)
	{
		TimeLineID	timeline;
		XLogSegNo	segment;

		if (!IsXLogFileName(entry->d_name))
			continue;
		XLogFromFileName(entry->d_name, &timeline, &segment, wal_segment_size);
		if (segment >= first && segment <= last && !present[segment - first])
		{
			present[segment - first] = true;
			missing--;
		}
	}
	FreeDir(dir);
	pfree(present);
	return missing == 0;
}

/* Creates a temporary slot that keeps what the primary's needs, and holds it. */
static void
CreateLocalSlot(const RemoteSlot *remote)
{
	ReplicationSlot *slot;
	XLogRecPtr	start = remote->restart_lsn;

	bdr_slot_create_temporary(NameStr(remote->name));
	LockDatabase(remote->database);
	slot = MyReplicationSlot;
	for (;;)
	{
		SpinLockAcquire(&slot->mutex);
		namestrcpy(&slot->data.plugin, BDR_PLUGIN);
		slot->data.restart_lsn = start;
		slot->data.confirmed_flush = start;
		slot->data.catalog_xmin = remote->catalog_xmin;
		slot->effective_catalog_xmin = remote->catalog_xmin;
		SpinLockRelease(&slot->mutex);
		ReplicationSlotsComputeRequiredXmin(false);
		ReplicationSlotsComputeRequiredLSN();
		/* looked at when it can't be removed any more; if it is gone, then what comes from now on has to do */
		if (start != remote->restart_lsn || HasWalFrom(start))
			break;
		start = GetXLogReplayRecPtr(NULL);
	}
	ReplicationSlotMarkDirty();
	ReplicationSlotSave();
}

/*
 * Decodes WAL from the restart_lsn of the slot that is held up to a position, and moves the slot there. False when that has
 * not come to a consistent state yet: then the slot stays where it is.
 */
static bool
DecodeTo(XLogRecPtr position)
{
	ReplicationSlot *slot = MyReplicationSlot;
	LogicalDecodingContext *ctx;
	ResourceOwner owner = CurrentResourceOwner;
	Oid			own_database = MyDatabaseId;
	volatile bool ready = false;

	decoding = true;
	/* until 16 the server wants to be in the slot's database, also in the mode that has no use for it */
	MyDatabaseId = slot->data.database;
	PG_TRY();
	{
		ctx = CreateDecodingContext(InvalidXLogRecPtr, NIL, true,
									XL_ROUTINE(.page_read = read_local_xlog_page,
											   .segment_open = wal_segment_open,
											   .segment_close = wal_segment_close),
									NULL, NULL, NULL);
		XLogBeginRead(ctx->reader, slot->data.restart_lsn);
		while (ctx->reader->EndRecPtr < position)
		{
			char	   *problem = NULL;
			XLogRecord *record = XLogReadRecord(ctx->reader, &problem);

			if (problem)
				ereport(ERROR,
						(errcode(ERRCODE_DATA_CORRUPTED),
						 errmsg("could not read WAL for replication slot \"%s\": %s", NameStr(slot->data.name), problem)));
			if (record)
				LogicalDecodingProcessRecord(ctx, ctx->reader);
			/* restart_lsn takes one step at a time: the next is noted only when this one is taken */
			if (slot->candidate_restart_valid != InvalidXLogRecPtr && DecodingContextReady(ctx) &&
				slot->candidate_restart_valid <= Min(ctx->reader->EndRecPtr, position))
				LogicalConfirmReceivedLocation(Min(ctx->reader->EndRecPtr, position));
			CHECK_FOR_INTERRUPTS();
		}
		ready = DecodingContextReady(ctx);
		if (ready)
			LogicalConfirmReceivedLocation(position);
		FreeDecodingContext(ctx);
	}
	PG_FINALLY();
	{
		MyDatabaseId = own_database;
		decoding = false;
	}
	PG_END_TRY();
	CurrentResourceOwner = owner;
	return ready;
}

/* Keeps catalog rows from here on only; what is on disk must never say less than what is let go. */
static void
RaiseCatalogXmin(TransactionId xmin)
{
	ReplicationSlot *slot = MyReplicationSlot;

	if (!TransactionIdPrecedes(slot->data.catalog_xmin, xmin))
		return;
	SpinLockAcquire(&slot->mutex);
	slot->data.catalog_xmin = xmin;
	SpinLockRelease(&slot->mutex);
	ReplicationSlotMarkDirty();
	ReplicationSlotSave();
	SpinLockAcquire(&slot->mutex);
	slot->effective_catalog_xmin = xmin;
	SpinLockRelease(&slot->mutex);
	ReplicationSlotsComputeRequiredXmin(false);
}

/* Brings one slot to where the primary has it. */
static void
SynchronizeSlot(const RemoteSlot *remote, const LocalSlot *local, TransactionId standby_catalog_xmin)
{
	bool		was_temporary = local == NULL || local->temporary;
	bool		ready;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	/* its DROP DATABASE is not replayed meanwhile */
	LockSharedObject(DatabaseRelationId, remote->database, 0, AccessShareLock);
	if (get_database_name(remote->database) == NULL)
	{
		CommitTransactionCommand();
		return;
	}
	/* nothing is read from here on: decoding may wait for transactions, and a snapshot would keep rows on the primary */
	InvalidateCatalogSnapshot();
	if (local == NULL)
	{
		Oid			own_database = MyDatabaseId;

		/* where the server takes the new slot's database from */
		MyDatabaseId = remote->database;
		PG_TRY();
		{
			CreateLocalSlot(remote);
		}
		PG_FINALLY();
		{
			MyDatabaseId = own_database;
		}
		PG_END_TRY();
	}
	else
		bdr_slot_acquire(NameStr(remote->name));

	ready = DecodeTo(remote->confirmed_flush);
	if (ready || was_temporary)
		RaiseCatalogXmin(remote->catalog_xmin);
	if (ready)
	{
		ReplicationSlotMarkDirty();
		ReplicationSlotSave();
		ReplicationSlotsComputeRequiredLSN();
	}
	/* a slot that was made in this round is asked for in the next: the primary has not heard of it yet */
	if (local != NULL && was_temporary && ready && TransactionIdIsNormal(standby_catalog_xmin) &&
		TransactionIdPrecedesOrEquals(standby_catalog_xmin, MyReplicationSlot->data.catalog_xmin))
	{
		ReplicationSlotPersist();
		UnlockDatabase(remote->database);
		ereport(LOG,
				(errmsg("replication slot \"%s\" is ready on this standby", NameStr(remote->name)),
				 errdetail("It has what the peer needs from %X/%X on.", LSN_FORMAT_ARGS(remote->confirmed_flush))));
	}
	ReplicationSlotRelease();
	CommitTransactionCommand();
}

/* The same, with an error ending only that. True when it worked. */
static bool
TrySynchronizeSlot(const RemoteSlot *remote, const LocalSlot *local, TransactionId standby_catalog_xmin)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool good = true;

	PG_TRY();
	{
		SynchronizeSlot(remote, local, standby_catalog_xmin);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		HOLD_INTERRUPTS();
		errcontext("synchronizing replication slot \"%s\" of the primary", NameStr(remote->name));
		EmitErrorReport();
		FlushErrorState();
		if (MyReplicationSlot)
			ReplicationSlotRelease();
		AbortOutOfAnyTransaction();
		RESUME_INTERRUPTS();
		good = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	return good;
}

/* ---- rounds --------------------------------------------------------------------------------------------------- */

/* Waits until replay has reached a position, not for long; false when it has not, or when there is something else to do. */
static bool
WaitForReplay(XLogRecPtr position)
{
	TimestampTz begin = GetCurrentTimestamp();

	while (GetXLogReplayRecPtr(NULL) < position)
	{
		if (!RecoveryInProgress() || TimestampDifferenceExceeds(begin, GetCurrentTimestamp(), REPLAY_PATIENCE))
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 50, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		bdr_process_interrupts();
	}
	return true;
}

/* Whether slots that are made now can become safe. */
static bool
SettingsAreRight(const Upstream *upstream)
{
	bool		named = PrimarySlotName && *PrimarySlotName;

	if (upstream->count == 0)
		return false;
	if (Complain(NO_FEEDBACK, !hot_standby_feedback))
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("replication slots of bdr can't be made safe on this standby: hot_standby_feedback is off"),
				 errdetail("The primary may remove catalog rows that the slots need here. Peers could not go on when this "
						   "server is promoted."),
				 errhint("On this server: ALTER SYSTEM SET hot_standby_feedback = on; SELECT pg_reload_conf();")));
	if (Complain(NO_SLOT_NAME, !named))
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("replication slots of bdr can't be made safe on this standby: primary_slot_name is not set"),
				 errdetail("While this server is not connected, the primary may remove what the slots need here. Peers could "
						   "not go on when it is promoted."),
				 errhint("On the primary: SELECT pg_create_physical_replication_slot('...', true); on this server: ALTER "
						 "SYSTEM SET primary_slot_name = '...'; SELECT pg_reload_conf();")));
	if (Complain(NO_SUCH_SLOT, named && !upstream->has_standby_slot))
		ereport(WARNING,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("replication slots of bdr can't be made safe on this standby: the primary has no physical slot \"%s\"",
						PrimarySlotName),
				 errhint("On the primary: SELECT pg_create_physical_replication_slot('%s', true);", PrimarySlotName)));
	return hot_standby_feedback && named && upstream->has_standby_slot;
}

/* One round; false when something has failed. */
static bool
Synchronize(void)
{
	MemoryContext caller = CurrentMemoryContext;
	Upstream	upstream;
	LocalSlot  *locals;
	int			nlocals;
	bool		may_create;
	bool		good = true;
	bool		behind = false;
	const char *behind_name = "";
	XLogRecPtr	behind_position = InvalidXLogRecPtr;

	if (Complain(WAL_LEVEL, wal_level < WAL_LEVEL_LOGICAL))
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("replication slots of bdr are not copied to this standby: its wal_level is not logical"),
				 errhint("On this server: ALTER SYSTEM SET wal_level = logical; and restart it.")));
	if (!bdr_synchronize_failover_slots || wal_level < WAL_LEVEL_LOGICAL || !AskUpstream(&upstream))
	{
		DropTemporarySlots(NULL);
		if (!bdr_synchronize_failover_slots)
			Disconnect();
		return true;
	}
	may_create = SettingsAreRight(&upstream);

	/* those that the primary does not have go, and those that are of no use */
	locals = ListLocalSlots(&nlocals);
	for (int i = 0; i < nlocals; i++)
	{
		bool		wanted = !locals[i].invalid;
		bool		known = false;

		for (int j = 0; j < upstream.count && !known; j++)
			known = strcmp(NameStr(upstream.slots[j].name), NameStr(locals[i].name)) == 0 &&
				upstream.slots[j].database == locals[i].database;
		if (known && wanted)
			continue;
		ereport(LOG,
				(errmsg("dropping replication slot \"%s\" of this standby", NameStr(locals[i].name)),
				 known ? errdetail("It was invalidated.") : errdetail("The primary has no such slot.")));
		DropLocalSlot(&locals[i]);
	}

	MemoryContextSwitchTo(caller);
	locals = ListLocalSlots(&nlocals);
	for (int i = 0; i < upstream.count; i++)
	{
		const RemoteSlot *remote = &upstream.slots[i];
		const LocalSlot *local = NULL;

		for (int j = 0; j < nlocals; j++)
			if (strcmp(NameStr(locals[j].name), NameStr(remote->name)) == 0)
				local = &locals[j];
		if (!remote->ready || (local == NULL && !may_create) || (local && local->busy))
			continue;
		/* nothing new; one that is not safe yet may be now */
		if (local && !local->temporary && remote->confirmed_flush <= local->confirmed_flush)
			continue;
		if (behind ? GetXLogReplayRecPtr(NULL) < remote->confirmed_flush : !WaitForReplay(remote->confirmed_flush))
		{
			behind = true;
			behind_name = NameStr(remote->name);
			behind_position = remote->confirmed_flush;
			continue;
		}
		if (!RecoveryInProgress())
			return true;
		if (TrySynchronizeSlot(remote, local, upstream.standby_catalog_xmin))
			continue;
		good = false;
		DropTemporarySlots(NameStr(remote->name));
	}
	if (Complain(BEHIND, behind))
		ereport(LOG,
				(errmsg("this standby has not replayed what a peer of its primary has confirmed"),
				 errdetail("Slot \"%s\" is confirmed up to %X/%X, this server is at %X/%X.", behind_name,
						   LSN_FORMAT_ARGS(behind_position), LSN_FORMAT_ARGS(GetXLogReplayRecPtr(NULL))),
				 errhint("If it were promoted now, that peer would have to join again. bdr.standby_slot_names on the primary "
						 "prevents it.")));
	return good;
}

void
bdr_standby_main(Datum arg)
{
	MemoryContext round;
	TimestampTz last = 0;
	int64		pause = 0;

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	/* 0: not started again */
	if (!RecoveryInProgress())
		proc_exit(0);
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	bdr_session_hygiene();
	previous_emit_log = emit_log_hook;
	emit_log_hook = QuietDecoding;
	round = AllocSetContextCreate(TopMemoryContext, "bdr standby", ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();

		bdr_process_interrupts();
		if (!RecoveryInProgress())
			proc_exit(0);
		if (now < last || now - last >= pause * 1000)
		{
			clock_t		work = clock();
			bool		good;

			MemoryContextReset(round);
			MemoryContextSwitchTo(round);
			good = Synchronize();
			last = GetCurrentTimestamp();
			pause = good ? ROUND_PAUSE : ERROR_PAUSE;
			work = (clock() - work) / (CLOCKS_PER_SEC / 1000);
			pause = Max(pause, Min((int64) work * ROUND_PAUSE_FACTOR, ROUND_PAUSE_MAX));
			pgstat_report_activity(STATE_IDLE, NULL);
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOOK_PAUSE, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}
