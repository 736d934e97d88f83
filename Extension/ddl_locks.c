/*
 * ddl_locks.c: global locks, as far as a transaction of this node is concerned: when it takes them, and what it does about
 * them at its end. How they are got from the other nodes is in Sources/Engine/Locks.
 *
 * A transaction that commits writes a message for each of its locks into its stream: a peer that has applied it gives the
 * lock up. One that rolls back tells them at once, over the connections that it has; those that don't hear it ask.
 */
#include "bdr.h"
#include "compat.h"
#include "ddl_locks.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "replication/message.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "bdr_engine.h"

enum
{
	LOCKING_OFF,
	LOCKING_DML,
	LOCKING_ON
};

static const struct config_enum_entry locking_values[] = {
	{"on", LOCKING_ON, false},
	{"all", LOCKING_ON, false},
	{"true", LOCKING_ON, true},
	{"yes", LOCKING_ON, true},
	{"1", LOCKING_ON, true},
	{"dml", LOCKING_DML, false},
	{"off", LOCKING_OFF, false},
	{"false", LOCKING_OFF, true},
	{"no", LOCKING_OFF, true},
	{"0", LOCKING_OFF, true},
	{NULL, 0, false}
};

static int	ddl_locking = LOCKING_ON;
static bool truncate_locking = false;
int			bdr_global_lock_timeout = 60000;
static int	statement_timeout = 600000;
static int	idle_timeout = 600000;
int			bdr_global_lock_max_locks = 1000;

/* A lock that this transaction has. */
typedef struct OwnLock
{
	int			kind;			/* BDR_LOCK_… */
	int64		key;			/* relation, or advisory key */
	bool		key_is_pair;
	int64		id;
	int			count;			/* advisory: how often it was taken */
} OwnLock;

/* In TopTransactionContext. */
static List *own_locks = NIL;
/* Something was asked of other nodes in this transaction. */
static bool asked = false;
static bool warned_ddl = false;
static bool warned_dml = false;

PG_FUNCTION_INFO_V1(bdr_global_lock_table);
PG_FUNCTION_INFO_V1(bdr_global_advisory_lock);
PG_FUNCTION_INFO_V1(bdr_global_advisory_lock_pair);
PG_FUNCTION_INFO_V1(bdr_global_advisory_unlock);
PG_FUNCTION_INFO_V1(bdr_global_advisory_unlock_pair);
PG_FUNCTION_INFO_V1(bdr_release_global_lock);

static OwnLock *
FindOwn(int kind, int64 key, bool key_is_pair)
{
	ListCell   *cell;

	foreach(cell, own_locks)
	{
		OwnLock    *lock = lfirst(cell);

		if (lock->kind == kind && lock->key == key && lock->key_is_pair == key_is_pair)
			return lock;
	}
	return NULL;
}

/* ---- taking a lock -------------------------------------------------------------------------------------------- */

/* From now on no statement may take too long, nor the transaction idle: others wait for it. */
static void
SetTimeouts(void)
{
	const struct
	{
		const char *setting;
		int			ours;
	}			limits[] = {{"statement_timeout", statement_timeout}, {"idle_in_transaction_session_timeout", idle_timeout}};

	for (int i = 0; i < lengthof(limits); i++)
	{
		int			present = i == 0 ? StatementTimeout : IdleInTransactionSessionTimeout;

		if (limits[i].ours > 0 && (present == 0 || present > limits[i].ours))
			(void) set_config_option(limits[i].setting, psprintf("%d", limits[i].ours), PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_LOCAL, true, 0, false);
	}
	/* the statement that is running, too */
	if (statement_timeout > 0 && !get_timeout_active(STATEMENT_TIMEOUT))
		enable_timeout_after(STATEMENT_TIMEOUT, statement_timeout);
}

static void
Acquire(int kind, Oid relid, int64 key, bool key_is_pair)
{
	BdrLockRequest request = {0};
	OwnLock    *lock;
	Oid			user;
	int			context;
	int			server_lock_timeout = LockTimeout;
	int64		local;

	if (IsInParallelMode())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("global locks cannot be taken during a parallel operation")));
	request.kind = kind;
	request.statement = debug_query_string ? debug_query_string : "";
	request.timeout = bdr_global_lock_timeout;
	request.key = key;
	request.key_is_pair = key_is_pair;
	if (kind == BDR_LOCK_DML)
	{
		request.schema = get_namespace_name(get_rel_namespace(relid));
		request.relation = get_rel_name(relid);
		if (request.schema == NULL || request.relation == NULL)
			return;
		request.relid = relid;
	}
	/* transactions of this node wait for each other here, where the server sees who waits for whom */
	local = kind == BDR_LOCK_DDL ? 0 : key;
	GetUserIdAndSecContext(&user, &context);
	PG_TRY();
	{
		TimestampTz begin = GetCurrentTimestamp();

		if (bdr_global_lock_timeout > 0 && (LockTimeout == 0 || LockTimeout > bdr_global_lock_timeout))
			LockTimeout = bdr_global_lock_timeout;
		if (kind == BDR_LOCK_DML)
		{
			ListCell   *cell;

			foreach(cell, find_all_inheritors(relid, NoLock, NULL))
				(void) bdr_token_take(BDR_TOKEN_TABLE, (int64) lfirst_oid(cell));
		}
		else
			(void) bdr_token_take(kind == BDR_LOCK_DDL ? BDR_TOKEN_DDL : key_is_pair ? BDR_TOKEN_PAIR : BDR_TOKEN_KEY, local);
		LockTimeout = server_lock_timeout;
		if (bdr_global_lock_timeout > 0)
			request.timeout = Max(1, bdr_global_lock_timeout - (int) TimestampDifferenceMilliseconds(begin, GetCurrentTimestamp()));
		do
		{
			request.id = (int64) ((((uint64) bdr_host_random()) << 31 ^ bdr_host_random()) & PG_INT64_MAX);
		} while (request.id == 0);
		(void) bdr_token_take(BDR_TOKEN_HOLDER, request.id);
		SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
		asked = true;
		ENGINE_CALL(bdr_engine_lock_acquire(&request));
	}
	PG_FINALLY();
	{
		LockTimeout = server_lock_timeout;
		SetUserIdAndSecContext(user, context);
	}
	PG_END_TRY();

	{
		MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

		lock = palloc0(sizeof(OwnLock));
		lock->kind = kind;
		lock->key = kind == BDR_LOCK_DML ? (int64) relid : key;
		lock->key_is_pair = key_is_pair;
		lock->id = request.id;
		lock->count = 1;
		own_locks = lappend(own_locks, lock);
		MemoryContextSwitchTo(old);
	}
	SetTimeouts();
	/* other nodes have what was written here before, when they get to the statement; here, too, nobody writes any more */
	if (kind == BDR_LOCK_DML)
	{
		LockRelationOid(relid, ExclusiveLock);
		(void) find_all_inheritors(relid, ExclusiveLock, NULL);
	}
}

/* Whether other transactions can know of a relation. */
static bool
IsKnownToOthers(Oid relid)
{
	Relation	relation;
	bool		known;

	if (!OidIsValid(relid))
		return false;
	relation = RelationIdGetRelation(relid);
	if (!RelationIsValid(relation))
		return false;
	known = relation->rd_createSubid == InvalidSubTransactionId && relation->rd_rel->relpersistence == RELPERSISTENCE_PERMANENT;
	RelationClose(relation);
	return known;
}

static void
AcquireTable(Oid relid)
{
	/* the lock of a partitioned table covers its partitions */
	if (get_rel_relispartition(relid))
	{
		ListCell   *cell;

		foreach(cell, get_partition_ancestors(relid))
			if (FindOwn(BDR_LOCK_DML, (int64) lfirst_oid(cell), false))
				return;
	}
	if (FindOwn(BDR_LOCK_DML, (int64) relid, false) == NULL && IsKnownToOthers(relid))
		Acquire(BDR_LOCK_DML, relid, 0, false);
}

static void
WarnOnce(bool *warned, const char *which)
{
	if (*warned)
		return;
	*warned = true;
	ereport(WARNING,
			(errmsg("the global %s lock is not taken because bdr.ddl_locking is \"%s\"", which,
					ddl_locking == LOCKING_OFF ? "off" : "dml"),
			 errdetail("What other nodes do at the same time may not fit to it.")));
}

void
bdr_ddl_lock(BdrDdlLock level, Oid relid)
{
	if (level == BDR_DDL_LOCK_NONE || bdr_host_members() == 0)
		return;
	if (ddl_locking == LOCKING_ON)
	{
		if (FindOwn(BDR_LOCK_DDL, 0, false) == NULL)
			Acquire(BDR_LOCK_DDL, InvalidOid, 0, false);
	}
	else
		WarnOnce(&warned_ddl, "DDL");
	if (level != BDR_DDL_LOCK_DML)
		return;
	if (ddl_locking != LOCKING_OFF)
		AcquireTable(relid);
	else if (IsKnownToOthers(relid))
		WarnOnce(&warned_dml, "DML");
}

void
bdr_truncate_lock(Oid relid)
{
	if (truncate_locking && ddl_locking != LOCKING_OFF && bdr_node_is_active() && bdr_host_members() != 0)
		AcquireTable(relid);
}

/* ---- the end of the transaction ------------------------------------------------------------------------------- */

/* What commits with the transaction: a message for the peers, and for this node a row that says how it ended. */
static void
WriteEnds(void)
{
	Oid			user;
	int			context;
	ListCell   *cell;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
	PG_TRY();
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		SPI_connect();
		foreach(cell, own_locks)
		{
			const OwnLock *lock = lfirst(cell);
			char	   *id = psprintf(INT64_FORMAT, lock->id);

			(void) bdr_log_message(BDR_LOCK_PREFIX, id, strlen(id), true);
			(void) SPI_execute(psprintf("INSERT INTO bdr.ddl_epoch (lock_id, origin_node_id, ddl_epoch) SELECT %s, node_id,"
										" (SELECT COALESCE(pg_catalog.max(ddl_epoch), 0) + 1 FROM bdr.ddl_epoch)"
										" FROM bdr.local_node", id), false, 0);
		}
		SPI_finish();
		PopActiveSnapshot();
	}
	PG_FINALLY();
	{
		SetUserIdAndSecContext(user, context);
	}
	PG_END_TRY();
}

static void
AtTransactionEnd(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			if (own_locks != NIL)
				WriteEnds();
			return;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			if (asked)
				bdr_engine_lock_end(false);
			break;
		case XACT_EVENT_ABORT:
			if (asked || bdr_conn_any_kept())
				bdr_engine_lock_end(true);
			break;
		default:
			return;
	}
	bdr_locks_end_transaction();
	own_locks = NIL;
	asked = warned_ddl = warned_dml = false;
}

/* ---- functions ------------------------------------------------------------------------------------------------ */

static void
RequireActive(void)
{
	bdr_require_preload();
	if (!bdr_node_is_active())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is not an active bdr node"),
				 errhint("See bdr.local_node_summary.")));
}

Datum
bdr_global_lock_table(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	char		kind = get_rel_relkind(relid);

	RequireActive();
	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", get_rel_name(relid) ? get_rel_name(relid) : "?")));
	if (get_rel_persistence(relid) != RELPERSISTENCE_PERMANENT)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("table \"%s\" is not on other nodes", get_rel_name(relid)),
				 errdetail("Temporary and unlogged tables are not replicated.")));
	if (pg_class_aclmask(relid, GetUserId(), ACL_UPDATE | ACL_DELETE | ACL_TRUNCATE, ACLMASK_ANY) == 0)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(relid));
	if (bdr_host_members() != 0)
		AcquireTable(relid);
	else
		LockRelationOid(relid, ExclusiveLock);
	PG_RETURN_VOID();
}

static void
AdvisoryLock(int64 key, bool pair)
{
	OwnLock    *lock;

	RequireActive();
	lock = FindOwn(BDR_LOCK_ADVISORY, key, pair);
	if (lock)
		lock->count++;
	else
		Acquire(BDR_LOCK_ADVISORY, InvalidOid, key, pair);
}

static void
AdvisoryUnlock(int64 key, bool pair)
{
	OwnLock    *lock;

	RequireActive();
	lock = FindOwn(BDR_LOCK_ADVISORY, key, pair);
	if (lock == NULL || lock->count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this transaction does not have that global advisory lock"),
				 errhint("Locks end with their transaction; unlock as often as it was locked.")));
	/* given back at the end of the transaction, which might yet return to a savepoint */
	lock->count--;
}

#define PAIR_KEY(a, b) ((int64) (((uint64) (uint32) (a)) << 32 | (uint32) (b)))

Datum
bdr_global_advisory_lock(PG_FUNCTION_ARGS)
{
	AdvisoryLock(PG_GETARG_INT64(0), false);
	PG_RETURN_VOID();
}

Datum
bdr_global_advisory_lock_pair(PG_FUNCTION_ARGS)
{
	AdvisoryLock(PAIR_KEY(PG_GETARG_INT32(0), PG_GETARG_INT32(1)), true);
	PG_RETURN_VOID();
}

Datum
bdr_global_advisory_unlock(PG_FUNCTION_ARGS)
{
	AdvisoryUnlock(PG_GETARG_INT64(0), false);
	PG_RETURN_VOID();
}

Datum
bdr_global_advisory_unlock_pair(PG_FUNCTION_ARGS)
{
	AdvisoryUnlock(PAIR_KEY(PG_GETARG_INT32(0), PG_GETARG_INT32(1)), true);
	PG_RETURN_VOID();
}

Datum
bdr_release_global_lock(PG_FUNCTION_ARGS)
{
	int32		released = 0;

	bdr_require_preload();
	ENGINE_CALL(bdr_engine_lock_release(NameStr(*PG_GETARG_NAME(0)), &released));
	PG_RETURN_INT32(released);
}

/* ---- settings ------------------------------------------------------------------------------------------------- */

/* As for bdr.ddl_replication: what stands in a file, or was set for a role or database, was checked there. */
static bool
CheckDdlLocking(int *value, void **extra, GucSource source)
{
	if (*value == ddl_locking || source < PGC_S_CLIENT || source == PGC_S_OVERRIDE || InitializingParallelWorker)
		return true;
	if (bdr_may_administer())
		return true;
	GUC_check_errcode(ERRCODE_INSUFFICIENT_PRIVILEGE);
	GUC_check_errmsg("permission denied to set parameter \"%s\"", "bdr.ddl_locking");
	GUC_check_errdetail("Only superusers and members of %s may set it.", BDR_SUPERUSER_ROLE);
	return false;
}

void
bdr_locks_define_settings(void)
{
	DefineCustomEnumVariable("bdr.ddl_locking",
							 "Sets which global locks replicated DDL takes.",
							 "on: no other node runs DDL, and nobody writes to a table whose shape changes. dml: only the latter. off: none.",
							 &ddl_locking,
							 LOCKING_ON, locking_values,
							 PGC_USERSET,
							 0,
							 CheckDdlLocking, NULL, NULL);
	DefineCustomBoolVariable("bdr.truncate_locking",
							 "Has TRUNCATE take the global DML lock of its tables.",
							 NULL,
							 &truncate_locking,
							 false,
							 PGC_USERSET,
							 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("bdr.global_lock_timeout",
							"Sets how long a statement waits for a global lock.",
							"0 means for ever.",
							&bdr_global_lock_timeout,
							60000, 0, INT_MAX,
							PGC_USERSET,
							GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("bdr.global_lock_statement_timeout",
							"Sets how long a statement may take in a transaction that has a global lock.",
							"0 means for ever. A shorter statement_timeout stays.",
							&statement_timeout,
							600000, 0, INT_MAX,
							PGC_USERSET,
							GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("bdr.global_lock_idle_timeout",
							"Sets how long a transaction that has a global lock may be idle.",
							"0 means for ever. A shorter idle_in_transaction_session_timeout stays.",
							&idle_timeout,
							600000, 0, INT_MAX,
							PGC_USERSET,
							GUC_UNIT_MS,
							NULL, NULL, NULL);
	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable("bdr.global_lock_max_locks",
							"Sets how many tables can be locked by other nodes at a time.",
							NULL,
							&bdr_global_lock_max_locks,
							1000, 1, 100000,
							PGC_POSTMASTER,
							0,
							NULL, NULL, NULL);
}

void
bdr_locks_init(void)
{
	RegisterXactCallback(AtTransactionEnd, NULL);
	bdr_locks_hook();
}
