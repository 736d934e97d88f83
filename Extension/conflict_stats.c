/*
 * conflict_stats.c: how many conflicts there were of each table and type, and how large the history of each database is.
 *
 * In shared memory, and only since the server was started. Workers count when a transaction has been committed, so one that
 * is tried again counts once.
 *
 * The size of the history is measured by the manager now and then; in between, workers add what they write, so that
 * bdr.conflict_history_max_size holds at any rate of conflicts.
 */
#include "bdr.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* Tables and types with conflicts, in all databases; what does not fit is counted without its table. */
#define MAX_ENTRIES 4096
/* How often entries of tables that are gone are looked for when there is no room, µs. */
#define SWEEP_INTERVAL (60 * USECS_PER_SEC)
#define TYPE_LENGTH 32

typedef struct StatKey
{
	Oid			database;
	Oid			relation;		/* 0: any for which there was no room */
	char		type[TYPE_LENGTH];
} StatKey;

typedef struct StatEntry
{
	StatKey		key;
	uint64		counts[BDR_RESOLUTION_KINDS];
	uint64		unrecorded;
	TimestampTz last;
} StatEntry;

typedef struct HistorySize
{
	Oid			database;		/* 0: free */
	uint64		bytes;
} HistorySize;

typedef struct ConflictStats
{
	LWLock	   *lock;
	TimestampTz swept;
	HistorySize sizes[FLEXIBLE_ARRAY_MEMBER];	/* bdr_max_databases */
} ConflictStats;

static ConflictStats *stats = NULL;
static HTAB *entries = NULL;

PG_FUNCTION_INFO_V1(bdr_show_conflict_stats);

static Size
StructSize(void)
{
	return add_size(offsetof(ConflictStats, sizes), mul_size(bdr_max_databases, sizeof(HistorySize)));
}

Size
bdr_conflict_stats_shmem_size(void)
{
	return add_size(StructSize(), hash_estimate_size(MAX_ENTRIES, sizeof(StatEntry)));
}

/* With AddinShmemInitLock. */
void
bdr_conflict_stats_shmem_startup(void)
{
	HASHCTL		control;
	bool		found;

	stats = ShmemInitStruct("bdr conflict statistics", StructSize(), &found);
	if (!found)
	{
		memset(stats, 0, StructSize());
		stats->lock = &(GetNamedLWLockTranche("bdr"))[1].lock;
	}
	memset(&control, 0, sizeof(control));
	control.keysize = sizeof(StatKey);
	control.entrysize = sizeof(StatEntry);
	entries = ShmemInitHash("bdr conflict counters", MAX_ENTRIES, MAX_ENTRIES, &control, HASH_ELEM | HASH_BLOBS);
}

static void
MakeKey(StatKey *key, Oid relation, const char *type)
{
	memset(key, 0, sizeof(*key));
	key->database = MyDatabaseId;
	key->relation = relation;
	strlcpy(key->type, type, TYPE_LENGTH);
}

/* Removes the entries of tables of this database that no longer exist. Inside a transaction. */
static void
Sweep(void)
{
	Oid		   *known = palloc(sizeof(Oid) * MAX_ENTRIES);
	int			count = 0;
	HASH_SEQ_STATUS scan;
	StatEntry  *entry;

	LWLockAcquire(stats->lock, LW_SHARED);
	hash_seq_init(&scan, entries);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		if (entry->key.database == MyDatabaseId && OidIsValid(entry->key.relation) && count < MAX_ENTRIES)
			known[count++] = entry->key.relation;
	}
	LWLockRelease(stats->lock);
	for (int i = 0; i < count; i++)
	{
		if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(known[i])))
			known[i] = InvalidOid;
	}
	LWLockAcquire(stats->lock, LW_EXCLUSIVE);
	hash_seq_init(&scan, entries);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		for (int i = 0; i < count; i++)
		{
			if (entry->key.database == MyDatabaseId && OidIsValid(known[i]) && entry->key.relation == known[i])
			{
				hash_search(entries, &entry->key, HASH_REMOVE, NULL);
				break;
			}
		}
	}
	LWLockRelease(stats->lock);
	pfree(known);
}

/* With the lock. */
static StatEntry *
Enter(const StatKey *key)
{
	StatEntry  *entry = hash_search(entries, key, HASH_FIND, NULL);

	/* one place for each type stays free, for those that find no other */
	if (entry == NULL &&
		(!OidIsValid(key->relation) || hash_get_num_entries(entries) < MAX_ENTRIES - 32))
	{
		entry = hash_search(entries, key, HASH_ENTER_NULL, NULL);
		if (entry)
			memset((char *) entry + sizeof(StatKey), 0, sizeof(StatEntry) - sizeof(StatKey));
	}
	return entry;
}

/* Inside no transaction or any; never fails. */
void
bdr_host_conflict_count(uint32_t relation, const char *type, int32_t resolution, uint64_t n, uint64_t unrecorded)
{
	StatKey		key;
	StatEntry  *entry;

	if (stats == NULL || resolution < 0 || resolution >= BDR_RESOLUTION_KINDS)
		return;
	LWLockAcquire(stats->lock, LW_EXCLUSIVE);
	MakeKey(&key, relation, type);
	entry = Enter(&key);
	if (entry == NULL)
	{
		MakeKey(&key, InvalidOid, type);
		entry = Enter(&key);
	}
	if (entry)
	{
		entry->counts[resolution] += n;
		entry->unrecorded += unrecorded;
		entry->last = GetCurrentTimestamp();
	}
	LWLockRelease(stats->lock);
}

/* What the manager does from time to time. Inside a transaction. */
int32_t
bdr_host_conflict_sweep(void)
{
	HOST_BEGIN();
	if (stats != NULL)
	{
		TimestampTz now = GetCurrentTimestamp();
		bool		due;

		LWLockAcquire(stats->lock, LW_EXCLUSIVE);
		due = hash_get_num_entries(entries) > MAX_ENTRIES / 2 && now - stats->swept > SWEEP_INTERVAL;
		if (due)
			stats->swept = now;
		LWLockRelease(stats->lock);
		if (due)
			Sweep();
	}
	HOST_END();
	return BDR_OK;
}

void
bdr_conflict_stats_forget(Oid database)
{
	HASH_SEQ_STATUS scan;
	StatEntry  *entry;

	if (stats == NULL)
		return;
	LWLockAcquire(stats->lock, LW_EXCLUSIVE);
	hash_seq_init(&scan, entries);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		if (entry->key.database == database)
			hash_search(entries, &entry->key, HASH_REMOVE, NULL);
	}
	for (int i = 0; i < bdr_max_databases; i++)
	{
		if (stats->sizes[i].database == database)
			stats->sizes[i].database = InvalidOid;
	}
	LWLockRelease(stats->lock);
}

/* ---- size of the history -------------------------------------------------------------------------------------- */

/* With the lock. NULL when there is none and no room for one. */
static HistorySize *
FindSize(bool make)
{
	HistorySize *free_entry = NULL;

	for (int i = 0; i < bdr_max_databases; i++)
	{
		if (stats->sizes[i].database == MyDatabaseId)
			return &stats->sizes[i];
		if (free_entry == NULL && !OidIsValid(stats->sizes[i].database))
			free_entry = &stats->sizes[i];
	}
	if (make && free_entry)
	{
		free_entry->database = MyDatabaseId;
		free_entry->bytes = 0;
	}
	return make ? free_entry : NULL;
}

void
bdr_host_conflict_history_size(uint64_t bytes)
{
	HistorySize *size;

	if (stats == NULL)
		return;
	LWLockAcquire(stats->lock, LW_EXCLUSIVE);
	size = FindSize(true);
	if (size)
		size->bytes = bytes;
	LWLockRelease(stats->lock);
}

void
bdr_conflict_history_grew(uint64 bytes)
{
	HistorySize *size;

	if (stats == NULL)
		return;
	LWLockAcquire(stats->lock, LW_EXCLUSIVE);
	size = FindSize(true);
	if (size)
		size->bytes += bytes;
	LWLockRelease(stats->lock);
}

bool
bdr_conflict_history_has_room(void)
{
	HistorySize *size;
	uint64		bytes;

	if (bdr_conflict_history_max_size < 0)
		return true;
	if (bdr_conflict_history_max_size == 0 || stats == NULL)
		return false;
	LWLockAcquire(stats->lock, LW_SHARED);
	size = FindSize(false);
	bytes = size ? size->bytes : 0;
	LWLockRelease(stats->lock);
	return bytes < (uint64) bdr_conflict_history_max_size * 1024 * 1024;
}

/* ---- shown ---------------------------------------------------------------------------------------------------- */

Datum
bdr_show_conflict_stats(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	StatEntry  *copy;
	int			count = 0;
	HASH_SEQ_STATUS scan;
	StatEntry  *entry;

	InitMaterializedSRF(fcinfo, 0);
	if (stats == NULL)
		return (Datum) 0;
	copy = palloc(sizeof(StatEntry) * MAX_ENTRIES);
	LWLockAcquire(stats->lock, LW_SHARED);
	hash_seq_init(&scan, entries);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		if (entry->key.database == MyDatabaseId && count < MAX_ENTRIES)
			copy[count++] = *entry;
	}
	LWLockRelease(stats->lock);
	for (int i = 0; i < count; i++)
	{
		Datum		values[4 + BDR_RESOLUTION_KINDS];
		bool		nulls[4 + BDR_RESOLUTION_KINDS] = {false};
		int			column = 0;

		values[column++] = ObjectIdGetDatum(copy[i].key.relation);
		values[column++] = CStringGetTextDatum(copy[i].key.type);
		for (int kind = 0; kind < BDR_RESOLUTION_KINDS; kind++)
			values[column++] = Int64GetDatum((int64) copy[i].counts[kind]);
		values[column++] = Int64GetDatum((int64) copy[i].unrecorded);
		values[column++] = TimestampTzGetDatum(copy[i].last);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
