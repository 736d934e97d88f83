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

#include "access/xact.h"
#include "catalog/namespace.h"
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
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/syscache.h"

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

/* A table that this lock worker has locked, with its partitions and children. */
typedef struct Held
{
	Oid			relid;
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

void
bdr_token_take(int32 kind, int64 id)
{
	LOCKTAG		tag = TokenTag(kind, id);
	ResourceOwner owner = CurrentResourceOwner;

	if (kind == BDR_TOKEN_SESSION)
	{
		if (!bdr_lock_held(&tag, ExclusiveLock))
			(void) LockAcquire(&tag, ExclusiveLock, true, false);
		return;
	}
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
}

int32_t
bdr_host_token_take(int32_t kind, int64_t id)
{
	HOST_BEGIN();
	bdr_token_take(kind, id);
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

static void
SetTable(Oid relid, uint32 origin, TableState state)
{
	TableLock  *entry;

	LWLockAcquire(tables->lock, LW_EXCLUSIVE);
	entry = FindTable(relid);
	for (int i = 0; i < tables->size && entry == NULL; i++)
		if (tables->entries[i].database == InvalidOid)
		{
			entry = &tables->entries[i];
			memset(entry, 0, sizeof(*entry));
			pg_atomic_fetch_add_u32(&tables->count, 1);
		}
	if (entry)
	{
		entry->database = MyDatabaseId;
		entry->relid = relid;
		entry->origin = origin;
		entry->pid = MyProcPid;
		entry->state = state;
	}
	LWLockRelease(tables->lock);
	if (entry == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many global locks of tables"),
				 errhint("Increase bdr.global_lock_max_locks and restart the server.")));
}

/* False while apply workers pass the lock. */
static bool
ForgetTable(Oid relid)
{
	TableLock  *entry;
	bool		forgotten = true;

	LWLockAcquire(tables->lock, LW_EXCLUSIVE);
	entry = FindTable(relid);
	if (entry && entry->passing > 0)
		forgotten = false;
	else if (entry)
	{
		entry->database = InvalidOid;
		pg_atomic_fetch_sub_u32(&tables->count, 1);
	}
	LWLockRelease(tables->lock);
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
			SetTable(*relid, origin, TABLE_WAITED_FOR);
			PG_TRY();
			{
				List	   *oids = find_all_inheritors(*relid, NoLock, NULL);
				ListCell   *cell;

				LockTimeout = wait_ms;
				foreach(cell, oids)
				{
					LockRelId	id = {lfirst_oid(cell), MyDatabaseId};

					LockRelationIdForSession(&id, ExclusiveLock);
					MemoryContextSwitchTo(TopMemoryContext);
					locked = lappend_oid(locked, id.relId);
					MemoryContextSwitchTo(context);
				}
				LockTimeout = timeout;
				CommitTransactionCommand();
				for (int i = list_length(locked) - 1; i > 0; i--)
					SetTable(list_nth_oid(locked, i), origin, TABLE_HELD);
				SetTable(*relid, origin, TABLE_HELD);
				MemoryContextSwitchTo(TopMemoryContext);
				{
					Held	   *entry = palloc(sizeof(Held));

					entry->relid = *relid;
					entry->oids = locked;
					held = lappend(held, entry);
				}
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
bdr_host_table_unlock(uint32_t relid)
{
	volatile int32_t outcome = BDR_OK;

	HOST_BEGIN();
	{
		ListCell   *cell;

		foreach(cell, held)
		{
			Held	   *entry = lfirst(cell);
			ListCell   *each;

			if (entry->relid != relid)
				continue;
			foreach(each, entry->oids)
				if (!ForgetTable(lfirst_oid(each)))
					outcome = BDR_LOCK_NOT_YET;
			if (outcome == BDR_OK)
			{
				UnlockTables(entry->oids);
				held = foreach_delete_current(held, cell);
				list_free(entry->oids);
				pfree(entry);
			}
			break;
		}
		/* waited for only */
		if (outcome == BDR_OK)
			(void) ForgetTable(relid);
	}
	HOST_END();
	return outcome;
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

void
bdr_lock_for_apply(Oid relid)
{
	for (int waited = 0;; waited += 10)
	{
		TableLock  *entry = NULL;
		bool		pass = false;

		if (tables == NULL || pg_atomic_read_u32(&tables->count) == 0)
			break;
		if (ConditionalLockRelationOid(relid, RowExclusiveLock))
			return;
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
			return;
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
