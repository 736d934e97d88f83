/*
 * apply_stats.c: what applying the changes of other nodes costs: counters, buffers and time, by subscription and by table.
 *
 * In shared memory, since the server was started or somebody reset them. A worker measures in its own memory and adds to what
 * is shared when a transaction has been committed; so one that is tried again is counted once, as aborted before.
 */
#include "bdr.h"
#include "apply_stats.h"
#include "compat.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* Subscriptions and tables of all databases; what does not fit is not counted. */
#define MAX_SUBSCRIPTIONS 1024
#define MAX_RELATIONS 8192

bool		bdr_track_subscription_apply = true;
bool		bdr_track_relation_apply = false;
bool		bdr_track_apply_lock_timing = false;
bool		bdr_measures_relations = false;

/* Times are in ms. */
typedef struct BlockCost
{
	int64		hit;
	int64		read;
	int64		dirtied;
	int64		written;
	double		read_time;
	double		write_time;
} BlockCost;

typedef struct SubscriptionKey
{
	Oid			database;
	uint32		peer;
} SubscriptionKey;

typedef struct SubscriptionEntry
{
	SubscriptionKey key;
	slock_t		mutex;			/* protects the rest */
	uint64		aborts;
	uint64		errors;
	uint64		skipped;
	uint64		deadlocks;
	uint64		retries;
	uint64		retries_at_same;
	uint64		current_commits;	/* since the present connection */
	uint64		commits;
	double		time;			/* of those, from begin to commit */
	BlockCost		cost;
	XLogRecPtr	start;			/* where the present connection, or the last one, began */
	bool		aborted;		/* the last transaction was, and none has been committed since */
	TimestampTz reset_at;
	uint64		base[BDR_COUNT_KINDS + 1];	/* what the counters of the worker were when they were reset */
} SubscriptionEntry;

typedef struct RelationKey
{
	Oid			database;
	Oid			relation;
} RelationKey;

/* What was done to a table, by the shared entry or in the transaction at hand. */
typedef struct RelationWork
{
	uint64		counts[BDR_COUNT_TRUNCATE + 1];
	double		time;
	double		lock_time;
	BlockCost		cost;
} RelationWork;

typedef struct RelationEntry
{
	RelationKey key;
	RelationWork work;
} RelationEntry;

typedef struct PendingRelation
{
	Oid			relation;
	RelationWork work;
} PendingRelation;

typedef struct ApplyStats
{
	LWLock	   *lock;			/* of both tables; entries of subscriptions stay while their database does */
	TimestampTz reset_at;		/* of those of tables */
	uint64		lost;			/* tables for which there was no room */
} ApplyStats;

static ApplyStats *stats = NULL;
static HTAB *subscriptions = NULL;
static HTAB *relations = NULL;

/* of this process, when it is an apply worker */
static SubscriptionEntry *mine = NULL;
static HTAB *pending = NULL;
static bool in_transaction = false;
static bool is_writer = false;	/* of transactions in progress, whose time is that of their origin */
static BufferUsage usage_at_begin;
static instr_time begun;

PG_FUNCTION_INFO_V1(bdr_get_subscription_stats);
PG_FUNCTION_INFO_V1(bdr_get_relation_stats);
PG_FUNCTION_INFO_V1(bdr_reset_subscription_stats);
PG_FUNCTION_INFO_V1(bdr_reset_relation_stats);

/* ---- settings and shared memory ------------------------------------------------------------------------------- */

static void
AssignTrackRelations(bool value, void *extra)
{
	bdr_measures_relations = value && mine != NULL;
}

void
bdr_apply_stats_define_settings(void)
{
	DefineCustomBoolVariable("bdr.track_subscription_apply",
							 "Counts what is applied for each subscription.",
							 "bdr.stat_subscription shows it.",
							 &bdr_track_subscription_apply,
							 true,
							 PGC_SUSET,
							 0,
							 NULL, NULL, NULL);
	DefineCustomBoolVariable("bdr.track_relation_apply",
							 "Counts and times what is applied to each table.",
							 "bdr.stat_relation shows it. It takes two readings of the clock for each row.",
							 &bdr_track_relation_apply,
							 false,
							 PGC_SUSET,
							 0,
							 NULL, AssignTrackRelations, NULL);
	DefineCustomBoolVariable("bdr.track_apply_lock_timing",
							 "Times how long applying waits for locks of tables.",
							 "Column lock_acquire_time of bdr.stat_relation; needs bdr.track_relation_apply.",
							 &bdr_track_apply_lock_timing,
							 false,
							 PGC_SUSET,
							 0,
							 NULL, NULL, NULL);
}

Size
bdr_apply_stats_shmem_size(void)
{
	Size		size = MAXALIGN(sizeof(ApplyStats));

	size = add_size(size, hash_estimate_size(MAX_SUBSCRIPTIONS, sizeof(SubscriptionEntry)));
	return add_size(size, hash_estimate_size(MAX_RELATIONS, sizeof(RelationEntry)));
}

/* With AddinShmemInitLock. */
void
bdr_apply_stats_shmem_startup(void)
{
	HASHCTL		control;
	bool		found;

	stats = ShmemInitStruct("bdr apply statistics", sizeof(ApplyStats), &found);
	if (!found)
	{
		memset(stats, 0, sizeof(ApplyStats));
		stats->lock = &(GetNamedLWLockTranche("bdr_apply_stats"))->lock;
		stats->reset_at = GetCurrentTimestamp();
	}
	memset(&control, 0, sizeof(control));
	control.keysize = sizeof(SubscriptionKey);
	control.entrysize = sizeof(SubscriptionEntry);
	subscriptions = ShmemInitHash("bdr subscription statistics", MAX_SUBSCRIPTIONS, MAX_SUBSCRIPTIONS, &control,
								  HASH_ELEM | HASH_BLOBS);
	memset(&control, 0, sizeof(control));
	control.keysize = sizeof(RelationKey);
	control.entrysize = sizeof(RelationEntry);
	relations = ShmemInitHash("bdr relation statistics", MAX_RELATIONS, MAX_RELATIONS, &control, HASH_ELEM | HASH_BLOBS);
}

void
bdr_apply_stats_forget(Oid database)
{
	HASH_SEQ_STATUS scan;
	SubscriptionEntry *subscription;
	RelationEntry *relation;

	if (stats == NULL)
		return;
	LWLockAcquire(stats->lock, LW_EXCLUSIVE);
	hash_seq_init(&scan, subscriptions);
	while ((subscription = hash_seq_search(&scan)) != NULL)
	{
		if (subscription->key.database == database)
			hash_search(subscriptions, &subscription->key, HASH_REMOVE, NULL);
	}
	hash_seq_init(&scan, relations);
	while ((relation = hash_seq_search(&scan)) != NULL)
	{
		if (relation->key.database == database)
			hash_search(relations, &relation->key, HASH_REMOVE, NULL);
	}
	LWLockRelease(stats->lock);
}

/* ---- measuring ------------------------------------------------------------------------------------------------ */

/* Adds what was used since a reading. */
static void
AddCost(BlockCost *cost, const BufferUsage *since)
{
	cost->hit += pgBufferUsage.shared_blks_hit - since->shared_blks_hit;
	cost->read += pgBufferUsage.shared_blks_read - since->shared_blks_read;
	cost->dirtied += pgBufferUsage.shared_blks_dirtied - since->shared_blks_dirtied;
	cost->written += pgBufferUsage.shared_blks_written - since->shared_blks_written;
	cost->read_time += INSTR_TIME_GET_MILLISEC(pgBufferUsage.bdr_blk_read_time) -
		INSTR_TIME_GET_MILLISEC(since->bdr_blk_read_time);
	cost->write_time += INSTR_TIME_GET_MILLISEC(pgBufferUsage.bdr_blk_write_time) -
		INSTR_TIME_GET_MILLISEC(since->bdr_blk_write_time);
}

static void
AddWork(RelationWork *to, const RelationWork *from)
{
	for (int kind = 0; kind < lengthof(to->counts); kind++)
		to->counts[kind] += from->counts[kind];
	to->time += from->time;
	to->lock_time += from->lock_time;
	to->cost.hit += from->cost.hit;
	to->cost.read += from->cost.read;
	to->cost.dirtied += from->cost.dirtied;
	to->cost.written += from->cost.written;
	to->cost.read_time += from->cost.read_time;
	to->cost.write_time += from->cost.write_time;
}

static double
MillisecondsSince(const instr_time *start)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, *start);
	return INSTR_TIME_GET_MILLISEC(now);
}

void
bdr_timing_start(BdrTiming *timing)
{
	timing->usage = pgBufferUsage;
	INSTR_TIME_SET_CURRENT(timing->start);
}

/* What is kept of a table until the transaction ends; NULL without memory. */
static RelationWork *
PendingWork(Oid relation)
{
	PendingRelation *entry;
	bool		found;

	if (!in_transaction)
		return NULL;
	if (pending == NULL)
	{
		HASHCTL		control;

		memset(&control, 0, sizeof(control));
		control.keysize = sizeof(Oid);
		control.entrysize = sizeof(PendingRelation);
		control.hcxt = TopMemoryContext;
		pending = hash_create("bdr work on tables", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	entry = hash_search(pending, &relation, HASH_ENTER, &found);
	if (!found)
		memset(&entry->work, 0, sizeof(entry->work));
	return &entry->work;
}

void
bdr_timing_add(const BdrTiming *timing, Oid relation, int32 kind, uint64 n)
{
	RelationWork *work = PendingWork(relation);

	if (work == NULL || kind < 0 || kind >= lengthof(work->counts))
		return;
	work->counts[kind] += n;
	work->time += MillisecondsSince(&timing->start);
	AddCost(&work->cost, &timing->usage);
}

void
bdr_lock_timing_add(const BdrTiming *timing, Oid relation)
{
	RelationWork *work = timing->on ? PendingWork(relation) : NULL;

	if (work)
		work->lock_time += MillisecondsSince(&timing->start);
}

static void
ForgetPending(void)
{
	HASH_SEQ_STATUS scan;
	PendingRelation *entry;

	if (pending == NULL || hash_get_num_entries(pending) == 0)
		return;
	hash_seq_init(&scan, pending);
	while ((entry = hash_seq_search(&scan)) != NULL)
		hash_search(pending, &entry->relation, HASH_REMOVE, NULL);
}

/* ---- an apply worker ------------------------------------------------------------------------------------------ */

/* The entry of a peer's subscription; NULL when there is none, and no room for one. */
static SubscriptionEntry *
FindSubscription(uint32 peer)
{
	SubscriptionKey key;
	SubscriptionEntry *entry;
	bool		found;

	memset(&key, 0, sizeof(key));
	key.database = MyDatabaseId;
	key.peer = peer;
	LWLockAcquire(stats->lock, LW_EXCLUSIVE);
	entry = hash_search(subscriptions, &key, HASH_FIND, &found);
	if (!found && hash_get_num_entries(subscriptions) < MAX_SUBSCRIPTIONS)
	{
		entry = hash_search(subscriptions, &key, HASH_ENTER_NULL, NULL);
		if (entry)
		{
			memset((char *) entry + sizeof(SubscriptionKey), 0, sizeof(SubscriptionEntry) - sizeof(SubscriptionKey));
			SpinLockInit(&entry->mutex);
			entry->reset_at = GetCurrentTimestamp();
		}
	}
	LWLockRelease(stats->lock);
	return entry;
}

void
bdr_apply_stats_writer(uint32 peer)
{
	mine = stats ? FindSubscription(peer) : NULL;
	is_writer = true;
	bdr_measures_relations = bdr_track_relation_apply && mine != NULL;
}

void
bdr_host_stats_connected(uint32_t peer, uint64_t start_lsn)
{
	if (stats == NULL || !bdr_is_worker())
		return;
	mine = FindSubscription(peer);
	if (mine)
	{
		SpinLockAcquire(&mine->mutex);
		if (mine->aborted)
		{
			mine->retries++;
			mine->retries_at_same = mine->start == start_lsn ? mine->retries_at_same + 1 : 1;
		}
		else
			mine->retries_at_same = 0;
		mine->start = start_lsn;
		mine->current_commits = 0;
		SpinLockRelease(&mine->mutex);
	}
	bdr_measures_relations = bdr_track_relation_apply && mine != NULL;
}

void
bdr_apply_stats_begin(void)
{
	if (mine == NULL)
		return;
	ForgetPending();
	in_transaction = true;
	if (bdr_track_subscription_apply)
	{
		usage_at_begin = pgBufferUsage;
		INSTR_TIME_SET_CURRENT(begun);
	}
	else
		INSTR_TIME_SET_ZERO(begun);
}

void
bdr_apply_stats_commit(void)
{
	if (!in_transaction)
		return;
	in_transaction = false;
	if (bdr_track_subscription_apply && !INSTR_TIME_IS_ZERO(begun))
	{
		BlockCost		cost;
		double		time = MillisecondsSince(&begun);

		memset(&cost, 0, sizeof(cost));
		AddCost(&cost, &usage_at_begin);
		SpinLockAcquire(&mine->mutex);
		mine->current_commits++;
		if (!is_writer)
		{
			mine->commits++;
			mine->time += time;
		}
		mine->cost.hit += cost.hit;
		mine->cost.read += cost.read;
		mine->cost.dirtied += cost.dirtied;
		mine->cost.written += cost.written;
		mine->cost.read_time += cost.read_time;
		mine->cost.write_time += cost.write_time;
		mine->aborted = false;
		mine->retries_at_same = 0;
		SpinLockRelease(&mine->mutex);
	}
	if (pending && hash_get_num_entries(pending) > 0)
	{
		HASH_SEQ_STATUS scan;
		PendingRelation *from;

		LWLockAcquire(stats->lock, LW_EXCLUSIVE);
		hash_seq_init(&scan, pending);
		while ((from = hash_seq_search(&scan)) != NULL)
		{
			RelationKey key;
			RelationEntry *to;
			bool		found;

			memset(&key, 0, sizeof(key));
			key.database = MyDatabaseId;
			key.relation = from->relation;
			to = hash_search(relations, &key, HASH_FIND, &found);
			if (!found && hash_get_num_entries(relations) < MAX_RELATIONS)
			{
				to = hash_search(relations, &key, HASH_ENTER_NULL, NULL);
				if (to)
					memset(&to->work, 0, sizeof(to->work));
			}
			if (to)
				AddWork(&to->work, &from->work);
			else
				stats->lost++;
		}
		LWLockRelease(stats->lock);
		ForgetPending();
	}
}

/* What was being applied is lost, but for what it cost the server. */
void
bdr_apply_stats_error(int sqlerrcode)
{
	bool		in_apply = in_transaction;

	in_transaction = false;
	ForgetPending();
	if (mine == NULL)
		return;
	SpinLockAcquire(&mine->mutex);
	mine->errors++;
	if (in_apply)
	{
		mine->aborts++;
		mine->aborted = true;
	}
	if (sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED)
		mine->deadlocks++;
	SpinLockRelease(&mine->mutex);
}

/* A transaction of the peer was passed over, because somebody wanted that. */
void
bdr_host_stats_skipped(uint32_t peer)
{
	SubscriptionEntry *entry = stats ? FindSubscription(peer) : NULL;

	if (entry == NULL)
		return;
	SpinLockAcquire(&entry->mutex);
	entry->skipped++;
	entry->aborted = false;
	entry->retries_at_same = 0;
	SpinLockRelease(&entry->mutex);
}

/* ---- shown ---------------------------------------------------------------------------------------------------- */

static SubscriptionEntry *
CopySubscriptions(int *count)
{
	SubscriptionEntry *copy = palloc(sizeof(SubscriptionEntry) * MAX_SUBSCRIPTIONS);
	HASH_SEQ_STATUS scan;
	SubscriptionEntry *entry;

	*count = 0;
	LWLockAcquire(stats->lock, LW_SHARED);
	hash_seq_init(&scan, subscriptions);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		if (entry->key.database != MyDatabaseId || *count >= MAX_SUBSCRIPTIONS)
			continue;
		SpinLockAcquire(&entry->mutex);
		copy[(*count)++] = *entry;
		SpinLockRelease(&entry->mutex);
	}
	LWLockRelease(stats->lock);
	return copy;
}

/* Since the reset; a worker whose entry was used for another one meanwhile counts from 0. */
static Datum
Since(uint64 count, uint64 base)
{
	return Int64GetDatum((int64) (count >= base ? count - base : count));
}

Datum
bdr_get_subscription_stats(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	SubscriptionEntry *copy;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	if (stats == NULL)
		return (Datum) 0;
	copy = CopySubscriptions(&count);
	for (int i = 0; i < count; i++)
	{
		SubscriptionEntry *entry = &copy[i];
		uint64		counters[BDR_COUNT_KINDS + 1];
		Datum		values[28];
		bool		nulls[28] = {false};
		int			n = 0;

		bdr_worker_counters(entry->key.peer, counters);
		values[n++] = ObjectIdGetDatum(entry->key.peer);
		values[n++] = Since(counters[BDR_COUNT_KINDS], entry->base[BDR_COUNT_KINDS]);
		values[n++] = Since(counters[BDR_COUNT_COMMIT], entry->base[BDR_COUNT_COMMIT]);
		values[n++] = Int64GetDatum((int64) entry->aborts);
		values[n++] = Int64GetDatum((int64) entry->errors);
		values[n++] = Int64GetDatum((int64) entry->skipped);
		values[n++] = Since(counters[BDR_COUNT_INSERT], entry->base[BDR_COUNT_INSERT]);
		values[n++] = Since(counters[BDR_COUNT_UPDATE], entry->base[BDR_COUNT_UPDATE]);
		values[n++] = Since(counters[BDR_COUNT_DELETE], entry->base[BDR_COUNT_DELETE]);
		values[n++] = Since(counters[BDR_COUNT_TRUNCATE], entry->base[BDR_COUNT_TRUNCATE]);
		values[n++] = Since(counters[BDR_COUNT_DDL], entry->base[BDR_COUNT_DDL]);
		values[n++] = Int64GetDatum((int64) entry->deadlocks);
		values[n++] = Int64GetDatum((int64) entry->retries);
		values[n++] = Int64GetDatum(entry->cost.hit);
		values[n++] = Int64GetDatum(entry->cost.read);
		values[n++] = Int64GetDatum(entry->cost.dirtied);
		values[n++] = Int64GetDatum(entry->cost.written);
		values[n++] = Float8GetDatum(entry->cost.read_time);
		values[n++] = Float8GetDatum(entry->cost.write_time);
		values[n] = LSNGetDatum(entry->start);
		nulls[n++] = entry->start == InvalidXLogRecPtr;
		values[n++] = Int64GetDatum((int64) entry->retries_at_same);
		values[n++] = Int64GetDatum((int64) entry->current_commits);
		values[n] = Float8GetDatum(entry->commits ? entry->time / entry->commits : 0);
		nulls[n++] = entry->commits == 0;
		values[n++] = TimestampTzGetDatum(entry->reset_at);
		values[n++] = Since(counters[BDR_COUNT_CONFLICT], entry->base[BDR_COUNT_CONFLICT]);
		values[n++] = Since(counters[BDR_COUNT_MISSING], entry->base[BDR_COUNT_MISSING]);
		if (n != rsinfo->setDesc->natts)
			elog(ERROR, "bdr: function returns %d columns, not %d", n, rsinfo->setDesc->natts);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

Datum
bdr_get_relation_stats(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	RelationEntry *copy;
	int			count = 0;
	HASH_SEQ_STATUS scan;
	RelationEntry *entry;
	TimestampTz reset_at;

	InitMaterializedSRF(fcinfo, 0);
	if (stats == NULL)
		return (Datum) 0;
	copy = palloc(sizeof(RelationEntry) * MAX_RELATIONS);
	LWLockAcquire(stats->lock, LW_SHARED);
	hash_seq_init(&scan, relations);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		if (entry->key.database == MyDatabaseId && count < MAX_RELATIONS)
			copy[count++] = *entry;
	}
	reset_at = stats->reset_at;
	LWLockRelease(stats->lock);
	for (int i = 0; i < count; i++)
	{
		RelationWork *work = &copy[i].work;
		Datum		values[14];
		bool		nulls[14] = {false};
		int			n = 0;

		values[n++] = ObjectIdGetDatum(copy[i].key.relation);
		values[n++] = Float8GetDatum(work->time);
		values[n++] = Int64GetDatum((int64) work->counts[BDR_COUNT_INSERT]);
		values[n++] = Int64GetDatum((int64) work->counts[BDR_COUNT_UPDATE]);
		values[n++] = Int64GetDatum((int64) work->counts[BDR_COUNT_DELETE]);
		values[n++] = Int64GetDatum((int64) work->counts[BDR_COUNT_TRUNCATE]);
		values[n++] = Int64GetDatum(work->cost.hit);
		values[n++] = Int64GetDatum(work->cost.read);
		values[n++] = Int64GetDatum(work->cost.dirtied);
		values[n++] = Int64GetDatum(work->cost.written);
		values[n++] = Float8GetDatum(work->cost.read_time);
		values[n++] = Float8GetDatum(work->cost.write_time);
		values[n++] = Float8GetDatum(work->lock_time);
		values[n++] = TimestampTzGetDatum(reset_at);
		if (n != rsinfo->setDesc->natts)
			elog(ERROR, "bdr: function returns %d columns, not %d", n, rsinfo->setDesc->natts);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* Where a connection began and how often it failed there is a state, not a counter: it stays. */
Datum
bdr_reset_subscription_stats(PG_FUNCTION_ARGS)
{
	HASH_SEQ_STATUS scan;
	SubscriptionEntry *entry;
	TimestampTz now = GetCurrentTimestamp();

	bdr_require_preload();
	LWLockAcquire(stats->lock, LW_EXCLUSIVE);
	hash_seq_init(&scan, subscriptions);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		uint64		counters[BDR_COUNT_KINDS + 1];

		if (entry->key.database != MyDatabaseId)
			continue;
		bdr_worker_counters(entry->key.peer, counters);
		SpinLockAcquire(&entry->mutex);
		entry->aborts = entry->errors = entry->skipped = entry->deadlocks = entry->retries = 0;
		entry->commits = 0;
		entry->time = 0;
		memset(&entry->cost, 0, sizeof(entry->cost));
		memcpy(entry->base, counters, sizeof(counters));
		entry->reset_at = now;
		SpinLockRelease(&entry->mutex);
	}
	LWLockRelease(stats->lock);
	PG_RETURN_BOOL(true);
}

Datum
bdr_reset_relation_stats(PG_FUNCTION_ARGS)
{
	HASH_SEQ_STATUS scan;
	RelationEntry *entry;

	bdr_require_preload();
	LWLockAcquire(stats->lock, LW_EXCLUSIVE);
	hash_seq_init(&scan, relations);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		if (entry->key.database == MyDatabaseId)
			hash_search(relations, &entry->key, HASH_REMOVE, NULL);
	}
	stats->reset_at = GetCurrentTimestamp();
	LWLockRelease(stats->lock);
	PG_RETURN_BOOL(true);
}
