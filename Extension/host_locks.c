/*
 * host_locks.c: what global locks need of this server's own lock manager.
 *
 * Tokens are advisory locks with numbers of their own kinds, which no function of users takes: they say who is there, and end
 * with the transaction or session that took them, however it ends.
 *
 * While another node has the DML lock of a table, a worker of this server (role lock, one for each such node) holds an EXCLUSIVE
 * lock on it. Two things must pass it nonetheless. The apply worker of the node that has the lock, when it comes to the DDL: it
 * is a member of the lock worker's lock group, so that it goes before all that wait. And other apply workers, with what their
 * nodes wrote before: they take a weaker lock, and the lock worker keeps its own until they are done.
 */
#include "bdr.h"
#include "compat.h"
#include "ddl_locks.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* How long an apply worker waits for the lock worker to get its lock, ms. */
#define MAX_WAIT_FOR_LOCKER 10000

typedef enum TableState
{
	TABLE_WAITED_FOR,
	TABLE_HELD
} TableState;

typedef struct TableLock
{
	Oid			database;		/* InvalidOid: free */
	Oid			relid;
	uint32		origin;
	int			pid;			/* of the lock worker */
	TableState	state;
	int			passing;		/* apply workers that write in spite of the lock */
} TableLock;

typedef struct TableLocks
{
	LWLock	   *lock;
	int			size;
	pg_atomic_uint32 count;		/* entries in use */
	TableLock	entries[FLEXIBLE_ARRAY_MEMBER];
} TableLocks;

static TableLocks *tables = NULL;

/* A table that this lock worker has locked, or is about to, with its partitions and children. */
typedef struct Held
{
	Oid			relid;
	bool		locked;
	List	   *oids;
} Held;
static List *held = NIL;

/* Tables that this apply worker writes in spite of a lock, until the end of its transaction. */
static List *passed = NIL;

/* ---- tokens --------------------------------------------------------------------------------------------------- */

static LOCKTAG
TokenTag(int32 kind, int64 id)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) ((uint64) id >> 32), (uint32) id, 0xBD00 + kind);
	return tag;
}

bool
bdr_token_take(int32 kind, int64 id)
{
	LOCKTAG		tag = TokenTag(kind, id);
	ResourceOwner owner = CurrentResourceOwner;

	if (kind == BDR_TOKEN_SESSION)
		return bdr_lock_held(&tag, ExclusiveLock) || LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
	/* a subtransaction that ends does not end it */
	PG_TRY();
	{
		CurrentResourceOwner = TopTransactionResourceOwner;
		(void) LockAcquire(&tag, ExclusiveLock, false, false);
	}
	PG_FINALLY();
	{
		CurrentResourceOwner = owner;
	}
	PG_END_TRY();
	return true;
}

int32_t
bdr_host_token_take(int32_t kind, int64_t id)
{
	volatile int32_t outcome = BDR_OK;

	HOST_BEGIN();
	if (!bdr_token_take(kind, id))
		outcome = BDR_LOCK_NOT_YET;
	HOST_END();
	return outcome;
}

int32_t
bdr_host_token_release(int32_t kind, int64_t id)
{
	HOST_BEGIN();
	{
		LOCKTAG		tag = TokenTag(kind, id);
		ResourceOwner owner = CurrentResourceOwner;

		CurrentResourceOwner = TopTransactionResourceOwner;
		if (bdr_lock_held(&tag, ExclusiveLock))
			LockRelease(&tag, ExclusiveLock, false);
		CurrentResourceOwner = owner;
	}
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_token_taken(int32_t kind, int64_t id, bool *taken)
{
	HOST_BEGIN();
	{
		LOCKTAG		tag = TokenTag(kind, id);

		*taken = true;
		if (!bdr_lock_held(&tag, ExclusiveLock) &&
			LockAcquire(&tag, ShareLock, false, true) != LOCKACQUIRE_NOT_AVAIL)
		{
			*taken = false;
			LockRelease(&tag, ShareLock, false);
		}
	}
	HOST_END();
	return BDR_OK;
}

/* ---- tables that are locked ----------------------------------------------------------------------------------- */

Size
bdr_locks_shmem_size(void)
{
	return add_size(offsetof(TableLocks, entries), mul_size(bdr_global_lock_max_locks, sizeof(TableLock)));
}

void
bdr_locks_shmem_startup(LWLock *lock)
{
	bool		found;

	tables = ShmemInitStruct("bdr table locks", bdr_locks_shmem_size(), &found);
	if (!found)
	{
		memset(tables, 0, bdr_locks_shmem_size());
		tables->lock = lock;
		tables->size = bdr_global_lock_max_locks;
		pg_atomic_init_u32(&tables->count, 0);
	}
}

/* With the lock held. */
static TableLock *
FindTable(Oid relid)
{
	for (int i = 0; i < tables->size; i++)
		if (tables->entries[i].database == MyDatabaseId && tables->entries[i].relid == relid)
			return &tables->entries[i];
	return NULL;
}

/* False while the lock worker of another node has not let go of the table. */
static bool
SetTable(Oid relid, uint32 origin, TableState state)
{
	TableLock  *entry;
	bool		ours;

	LWLockAcquire(tables->lock, LW_EXCLUSIVE);
	entry = FindTable(relid);
	for (int i = 0; i < tables->size && entry == NULL; i++)
		if (tables->entries[i].database == InvalidOid)
		{
			entry = &tables->entries[i];
			memset(entry, 0, sizeof(*entry));
			entry->database = MyDatabaseId;
			entry->relid = relid;
			entry->origin = origin;
			entry->pid = MyProcPid;
			pg_atomic_fetch_add_u32(&tables->count, 1);
		}
	ours = entry != NULL && entry->pid == MyProcPid;
	/* what is held stays so when the next transaction of the node wants it */
	if (ours && state == TABLE_HELD)
		entry->state = state;
	LWLockRelease(tables->lock);
	if (entry == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many global locks of tables"),
				 errhint("Increase bdr.global_lock_max_locks and restart the server.")));
	return ours;
}

/* False while apply workers pass the lock. */
static bool
ForgetTable(Oid relid)
{
	TableLock  *entry;
	bool		forgotten = true;

	LWLockAcquire(tables->lock, LW_EXCLUSIVE);
	entry = FindTable(relid);
	if (entry && entry->pid == MyProcPid && entry->passing > 0)
		forgotten = false;
	else if (entry && entry->pid == MyProcPid)
	{
		entry->database = InvalidOid;
		pg_atomic_fetch_sub_u32(&tables->count, 1);
	}
	LWLockRelease(tables->lock);
	return forgotten;
}

/* Of those that no other lock of the node needs. */
static bool
ForgetTables(Held *from)
{
	bool		forgotten = true;
	ListCell   *each;

	foreach(each, from->oids)
	{
		bool		needed = false;
		ListCell   *cell;

		foreach(cell, held)
			if (lfirst(cell) != from && list_member_oid(((Held *) lfirst(cell))->oids, lfirst_oid(each)))
				needed = true;
		if (!needed && !ForgetTable(lfirst_oid(each)))
			forgotten = false;
	}
	return forgotten;
}

/* A lock worker that ends takes its entries with it. */
static void
ForgetAllOfMine(int code, Datum arg)
{
	LWLockAcquire(tables->lock, LW_EXCLUSIVE);
	for (int i = 0; i < tables->size; i++)
		if (tables->entries[i].database != InvalidOid && tables->entries[i].pid == MyProcPid)
		{
			tables->entries[i].database = InvalidOid;
			pg_atomic_fetch_sub_u32(&tables->count, 1);
		}
	LWLockRelease(tables->lock);
}

static void
UnlockTables(List *oids)
{
	ListCell   *cell;

	foreach(cell, oids)
	{
		LockRelId	id = {lfirst_oid(cell), MyDatabaseId};

		UnlockRelationIdForSession(&id, ExclusiveLock);
	}
}

int32_t
bdr_host_lock_worker_begin(void)
{
	HOST_BEGIN();
	BecomeLockGroupLeader();
	before_shmem_exit(ForgetAllOfMine, 0);
	HOST_END();
	return BDR_OK;
}

/*
 * What has to be locked so that nobody writes a table: it and its children. Not partitioned tables below the root: they have
 * no rows, and an apply worker that puts rows of the root into their places locks them.
 */
static List *
TablesToLock(Oid relid)
{
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, find_all_inheritors(relid, NoLock, NULL))
	{
		char		kind = get_rel_relkind(lfirst_oid(cell));

		if (kind == RELKIND_RELATION || (kind == RELKIND_PARTITIONED_TABLE && !get_rel_relispartition(lfirst_oid(cell))))
			result = lappend_oid(result, lfirst_oid(cell));
	}
	return result;
}

/* The lock of a table that was waited for before, or a new one. */
static Held *
FindHeld(Oid relid, bool locked, bool make)
{
	ListCell   *cell;
	Held	   *entry;
	MemoryContext old;

	foreach(cell, held)
	{
		entry = lfirst(cell);
		if (entry->relid == relid && entry->locked == locked)
			return entry;
	}
	if (!make)
		return NULL;
	old = MemoryContextSwitchTo(TopMemoryContext);
	entry = palloc0(sizeof(Held));
	entry->relid = relid;
	held = lappend(held, entry);
	MemoryContextSwitchTo(old);
	return entry;
}

int32_t
bdr_host_table_lock(const char *schema, const char *name, uint32_t origin, int32_t wait_ms, uint32_t *relid)
{
	volatile int32_t outcome = BDR_OK;
	int			timeout = LockTimeout;

	*relid = InvalidOid;
	HOST_BEGIN();
	{
		MemoryContext context = CurrentMemoryContext;
		List	   *volatile locked = NIL;

		StartTransactionCommand();
		{
			Oid			namespace = get_namespace_oid(schema, true);

			*relid = OidIsValid(namespace) ? get_relname_relid(name, namespace) : InvalidOid;
		}
		if (!OidIsValid(*relid))
		{
			CommitTransactionCommand();
			outcome = BDR_LOCK_NO_TABLE;
		}
		else
		{
			Held	   *entry = FindHeld(*relid, false, true);
			List	   *oids = TablesToLock(*relid);

			if (!equal(oids, entry->oids))
			{
				(void) ForgetTables(entry);
				list_free(entry->oids);
				MemoryContextSwitchTo(TopMemoryContext);
				entry->oids = list_copy(oids);
				MemoryContextSwitchTo(context);
			}
			PG_TRY();
			{
				ListCell   *cell;

				/* all before the first one is locked: apply workers that wait for a lock would wait until it is given up */
				foreach(cell, entry->oids)
					if (!SetTable(lfirst_oid(cell), origin, TABLE_WAITED_FOR))
						outcome = BDR_LOCK_NOT_YET;
				LockTimeout = wait_ms;
				foreach(cell, entry->oids)
				{
					LockRelId	id = {lfirst_oid(cell), MyDatabaseId};

					if (outcome != BDR_OK)
						break;
					LockRelationIdForSession(&id, ExclusiveLock);
					MemoryContextSwitchTo(TopMemoryContext);
					locked = lappend_oid(locked, id.relId);
					MemoryContextSwitchTo(context);
				}
				LockTimeout = timeout;
				CommitTransactionCommand();
				if (outcome == BDR_OK)
				{
					/* the table itself last: then all are */
					for (int i = list_length(entry->oids) - 1; i >= 0; i--)
						(void) SetTable(list_nth_oid(entry->oids, i), origin, TABLE_HELD);
					entry->locked = true;
				}
				list_free(locked);
				MemoryContextSwitchTo(context);
			}
			PG_CATCH();
			{
				int			code = geterrcode();

				LockTimeout = timeout;
				if (code != ERRCODE_LOCK_NOT_AVAILABLE && code != ERRCODE_T_R_DEADLOCK_DETECTED)
					PG_RE_THROW();
				MemoryContextSwitchTo(context);
				FlushErrorState();
				AbortCurrentTransaction();
				UnlockTables(locked);
				list_free(locked);
				MemoryContextSwitchTo(context);
				outcome = BDR_LOCK_NOT_YET;
			}
			PG_END_TRY();
		}
	}
	HOST_END();
	return outcome;
}

int32_t
bdr_host_table_unlock(uint32_t relid, bool locked)
{
	volatile int32_t outcome = BDR_OK;

	HOST_BEGIN();
	{
		Held	   *entry = FindHeld(relid, locked, false);

		if (entry && !ForgetTables(entry))
			outcome = BDR_LOCK_NOT_YET;
		else if (entry)
		{
			if (entry->locked)
				UnlockTables(entry->oids);
			held = list_delete_ptr(held, entry);
			list_free(entry->oids);
			pfree(entry);
		}
	}
	HOST_END();
	return outcome;
}

/* ---- after a start of the server ------------------------------------------------------------------------------ */

static object_access_hook_type previous_object_access = NULL;

/* Whether all tables that other nodes have locked, as stored, are locked here. */
static bool
StoredLocksAreHeld(void)
{
	BdrCatalogScan scan;
	uint32		own = bdr_local_node_id();
	bool		all = true;

	if (own == 0 || !bdr_catalog_open(&scan, "global_lock"))
		return true;
	while (all && bdr_catalog_next(&scan))
	{
		Datum		type;
		Datum		origin;
		Datum		state;
		Datum		schema;
		Datum		name;
		Oid			namespace;
		Oid			relid;

		if (!bdr_catalog_column(&scan, "lock_type", OIDOID, &type) || DatumGetObjectId(type) != BDR_LOCK_DML ||
			!bdr_catalog_column(&scan, "origin_node_id", OIDOID, &origin) || DatumGetObjectId(origin) == own ||
			!bdr_catalog_column(&scan, "lock_state", TEXTOID, &state) ||
			strcmp(TextDatumGetCString(state), "confirmed") != 0 ||
			!bdr_catalog_column(&scan, "nspname", NAMEOID, &schema) || !bdr_catalog_column(&scan, "relname", NAMEOID, &name))
			continue;
		namespace = get_namespace_oid(NameStr(*DatumGetName(schema)), true);
		relid = OidIsValid(namespace) ? get_relname_relid(NameStr(*DatumGetName(name)), namespace) : InvalidOid;
		if (OidIsValid(relid))
		{
			ListCell   *cell;

			foreach(cell, TablesToLock(relid))
			{
				TableLock  *entry;

				LWLockAcquire(tables->lock, LW_SHARED);
				entry = FindTable(lfirst_oid(cell));
				all = all && entry && entry->state == TABLE_HELD;
				LWLockRelease(tables->lock);
			}
		}
	}
	bdr_catalog_close(&scan);
	return all;
}

/*
 * After a start of the server it takes a moment until the lock workers have the tables again that other nodes have locked. A
 * session waits for that when it looks for the first time for something in a schema of users: before it has any lock.
 */
static void
ObjectAccess(ObjectAccessType access, Oid class, Oid object, int sub, void *arg)
{
	static bool done = false;

	if (previous_object_access)
		previous_object_access(access, class, object, sub, arg);
	if (access != OAT_NAMESPACE_SEARCH || done || tables == NULL || MyBackendType != B_BACKEND || bdr_internal_session ||
		IsParallelWorker() || !IsNormalProcessingMode() || !IsTransactionState() || RecoveryInProgress() ||
		!bdr_is_user_namespace(object))
		return;
	done = true;
	PG_TRY();
	{
		TimestampTz begin = GetCurrentTimestamp();

		while (!StoredLocksAreHeld())
		{
			if (bdr_global_lock_timeout > 0 &&
				TimestampDifferenceExceeds(begin, GetCurrentTimestamp(), bdr_global_lock_timeout))
				ereport(ERROR,
						(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
						 errmsg("tables that another node has locked are not locked here again in time"),
						 errdetail("The server was started while they were locked."),
						 errhint("See bdr.global_locks, and the server's log for why lock workers do not run.")));
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 20, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
	}
	PG_CATCH();
	{
		done = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
}

void
bdr_locks_hook(void)
{
	previous_object_access = object_access_hook;
	object_access_hook = ObjectAccess;
}

/* ---- apply workers -------------------------------------------------------------------------------------------- */

void
bdr_locks_begin_apply(uint32 origin)
{
	PGPROC	   *leader;
	int			pid = 0;

	if (tables == NULL || pg_atomic_read_u32(&tables->count) == 0)
		return;
	LWLockAcquire(tables->lock, LW_SHARED);
	for (int i = 0; i < tables->size && pid == 0; i++)
		if (tables->entries[i].database == MyDatabaseId && tables->entries[i].origin == origin &&
			tables->entries[i].state == TABLE_HELD)
			pid = tables->entries[i].pid;
	LWLockRelease(tables->lock);
	if (pid == 0 || (MyProc->lockGroupLeader && MyProc->lockGroupLeader->pid == pid))
		return;
	/* no lock is held between transactions: this is the time to join the group, which can't be left */
	leader = MyProc->lockGroupLeader ? NULL : BackendPidGetProc(pid);
	if (leader == NULL || !BecomeLockGroupMember(leader, pid))
		ereport(ERROR,
				(errcode(ERRCODE_ADMIN_SHUTDOWN),
				 errmsg("apply worker starts anew to follow the lock worker of its node")));
}

bool
bdr_lock_for_apply(Oid relid)
{
	for (int waited = 0;; waited += 10)
	{
		TableLock  *entry = NULL;
		bool		pass = false;

		if (tables == NULL || pg_atomic_read_u32(&tables->count) == 0)
			break;
		if (ConditionalLockRelationOid(relid, RowExclusiveLock))
			return false;
		LWLockAcquire(tables->lock, LW_EXCLUSIVE);
		entry = FindTable(relid);
		if (entry && entry->state == TABLE_HELD)
		{
			pass = true;
			if (!list_member_oid(passed, relid))
				entry->passing++;
		}
		LWLockRelease(tables->lock);
		if (pass)
		{
			if (!list_member_oid(passed, relid))
			{
				MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

				passed = lappend_oid(passed, relid);
				MemoryContextSwitchTo(old);
			}
			LockRelationOid(relid, AccessShareLock);
			return true;
		}
		if (entry == NULL)
			break;
		/* nobody sees a deadlock of this wait: the one who waits for us shall get on */
		if (waited >= MAX_WAIT_FOR_LOCKER)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("relation %u is about to be locked by another node", relid),
					 errdetail("Transactions of this node that write to it have not ended.")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	LockRelationOid(relid, RowExclusiveLock);
	return false;
}

List *
bdr_lock_partitions_for_apply(Oid root, bool *passes)
{
	List	   *result = NIL;
	ListCell   *cell;

	*passes = false;
	if (tables == NULL || pg_atomic_read_u32(&tables->count) == 0)
		return find_all_inheritors(root, RowExclusiveLock, NULL);
	foreach(cell, find_all_inheritors(root, NoLock, NULL))
	{
		Oid			oid = lfirst_oid(cell);

		if (oid != root)
		{
			if (get_rel_relkind(oid) != RELKIND_RELATION)
				LockRelationOid(oid, RowExclusiveLock);
			else if (bdr_lock_for_apply(oid))
				*passes = true;
			/* dropped before it was locked */
			if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(oid)))
				continue;
		}
		result = lappend_oid(result, oid);
	}
	return result;
}


void
bdr_locks_end_transaction(void)
{
	ListCell   *cell;

	if (passed == NIL)
		return;
	LWLockAcquire(tables->lock, LW_EXCLUSIVE);
	foreach(cell, passed)
	{
		TableLock  *entry = FindTable(lfirst_oid(cell));

		if (entry && entry->passing > 0)
			entry->passing--;
	}
	LWLockRelease(tables->lock);
	/* its memory goes with the transaction */
	passed = NIL;
}
