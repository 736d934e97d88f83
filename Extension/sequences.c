/*
 * sequences.c: global sequences: what stands in for nextval(), currval(), lastval() and setval(), and the state that backends
 * share. sequence_plans.c puts these functions into plans. Why it is done like this: docs/sequences.md.
 *
 * Kinds, one letter in bdr.sequence_kind: 's' snowflakeid and 't' timeshard make values of time, node and a counter; 'g' galloc
 * lets the ordinary sequence count, inside ranges that the group has granted to this node. A sequence without a row is local.
 *
 * A sequence of a time-based kind never goes back. The last state is in shared memory. The sequence's own tuple holds a mark
 * some seconds ahead, which is on disk before a value from below it is given out: after a restart, values begin above it.
 */
#include "bdr.h"
#include "compat.h"
#include "sequences.h"
#include "sql_function.h"

#include <sys/time.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "catalog/pg_authid.h"
#include "commands/sequence.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/primnodes.h"
#include "port/atomics.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(bdr_seq_nextval);
PG_FUNCTION_INFO_V1(bdr_seq_currval);
PG_FUNCTION_INFO_V1(bdr_seq_lastval);
PG_FUNCTION_INFO_V1(bdr_internal_seq_setval);
PG_FUNCTION_INFO_V1(bdr_internal_sequence_last);

/* How far ahead of what is given out the mark on disk is set, ms. After a restart values may be ahead of the clock by this. */
#define RESERVED_AHEAD 2000

/* Shared states: a sequence that finds no place takes that of the one in its bucket whose last value is the oldest, which is
 * then read from disk when it is used again. */
#define BUCKETS 1024
#define BUCKET_SIZE 8
#define LOCKS 16

#define MS_FROM_1970_TO_2000 ((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * 1000)

typedef struct SharedSequence
{
	slock_t		mutex;
	char		kind;			/* 0: free */
	Oid			database;
	Oid			sequence;
	uint64		last;			/* state that was given out last */
	uint64		reserved;		/* values before this millisecond may be given out */
} SharedSequence;

typedef struct SharedSequences
{
	LWLock	   *locks[LOCKS];	/* for changing which sequence a place belongs to, and for reserving */
	SharedSequence places[BUCKETS * BUCKET_SIZE];
} SharedSequences;

/* What a session knows of a sequence. */
typedef struct Sequence
{
	Oid			oid;
	bool		loaded;			/* kind and what follows is known */
	char		kind;			/* BDR_SEQUENCE_... */
	SharedSequence *place;
	LocalTransactionId locked_in;
	/* galloc: the granted range that the last value was in */
	int64		first;
	int64		last;
	/* for currval; galloc and local leave that to the server */
	bool		has_current;
	int64		current;
} Sequence;

static SharedSequences *shared = NULL;
static HTAB *sequences = NULL;
static Sequence *recent = NULL;
/* for lastval: the sequence that gave the last value of this session, if it was one of a time-based kind */
static Oid	last_used = InvalidOid;

/* ---- shared memory -------------------------------------------------------------------------------------------- */

Size
bdr_sequences_shmem_size(void)
{
	return sizeof(SharedSequences);
}

void
bdr_sequences_shmem_request(void)
{
	RequestAddinShmemSpace(bdr_sequences_shmem_size());
	RequestNamedLWLockTranche("bdr sequences", LOCKS);
}

/* With AddinShmemInitLock. */
void
bdr_sequences_shmem_startup(void)
{
	bool		found;
	LWLockPadded *locks;

	shared = ShmemInitStruct("bdr sequences", bdr_sequences_shmem_size(), &found);
	if (found)
		return;
	memset(shared, 0, sizeof(SharedSequences));
	locks = GetNamedLWLockTranche("bdr sequences");
	for (int i = 0; i < LOCKS; i++)
		shared->locks[i] = &locks[i].lock;
	for (int i = 0; i < BUCKETS * BUCKET_SIZE; i++)
		SpinLockInit(&shared->places[i].mutex);
}

static uint32
Bucket(Oid sequence)
{
	return hash_combine(hash_bytes_uint32(MyDatabaseId), hash_bytes_uint32(sequence)) % BUCKETS;
}

static LWLock *
LockOf(Oid sequence)
{
	return shared->locks[Bucket(sequence) % LOCKS];
}

/* ---- what a session knows ------------------------------------------------------------------------------------- */

static void
SequenceChanged(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	Sequence   *sequence;

	if (OidIsValid(relid))
	{
		sequence = hash_search(sequences, &relid, HASH_FIND, NULL);
		if (sequence)
			sequence->loaded = false;
		return;
	}
	hash_seq_init(&status, sequences);
	while ((sequence = hash_seq_search(&status)) != NULL)
		sequence->loaded = false;
}

static Sequence *
FindSequence(Oid oid)
{
	Sequence   *sequence;
	bool		found;

	if (recent && recent->oid == oid)
		return recent;
	if (sequences == NULL)
	{
		HASHCTL		control = {0};

		control.keysize = sizeof(Oid);
		control.entrysize = sizeof(Sequence);
		control.hcxt = TopMemoryContext;
		sequences = hash_create("bdr sequences", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		CacheRegisterRelcacheCallback(SequenceChanged, (Datum) 0);
	}
	sequence = hash_search(sequences, &oid, HASH_ENTER, &found);
	if (!found)
	{
		memset(sequence, 0, sizeof(Sequence));
		sequence->oid = oid;
	}
	recent = sequence;
	return sequence;
}

/* DISCARD SEQUENCES */
void
bdr_sequences_discard(void)
{
	HASH_SEQ_STATUS status;
	Sequence   *sequence;

	last_used = InvalidOid;
	if (sequences == NULL)
		return;
	hash_seq_init(&status, sequences);
	while ((sequence = hash_seq_search(&status)) != NULL)
		sequence->has_current = false;
}

/* The kind of a sequence as the catalog has it. */
char
bdr_sequence_kind(Oid sequence)
{
	Oid			namespace = get_namespace_oid(BDR_SCHEMA, true);
	Oid			relid = OidIsValid(namespace) ? get_relname_relid("sequence_kind", namespace) : InvalidOid;
	Oid			index;
	Relation	relation;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char		kind = BDR_SEQUENCE_LOCAL;

	if (!OidIsValid(relid) || get_rel_relkind(relid) != RELKIND_RELATION)
		return kind;
	index = get_relname_relid("sequence_kind_pkey", namespace);
	relation = try_relation_open(relid, AccessShareLock);
	if (relation == NULL)
		return kind;
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(sequence));
	scan = systable_beginscan(relation, index, OidIsValid(index), NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, 2, RelationGetDescr(relation), &isnull);

		if (!isnull)
			kind = DatumGetChar(value);
	}
	systable_endscan(scan);
	relation_close(relation, AccessShareLock);
	return kind;
}

/* The sequence's tuple, as the server keeps it. */
static FormData_pg_sequence_data
ReadTuple(Oid sequence)
{
	Relation	relation = relation_open(sequence, NoLock);
	Buffer		buffer = ReadBuffer(relation, 0);
	Page		page;
	HeapTupleData tuple;
	FormData_pg_sequence_data data;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	tuple.t_data = (HeapTupleHeader) PageGetItem(page, PageGetItemId(page, FirstOffsetNumber));
	data = *(Form_pg_sequence_data) GETSTRUCT(&tuple);
	UnlockReleaseBuffer(buffer);
	relation_close(relation, NoLock);
	return data;
}

/* Like nextval(): once in a transaction, and until its end. */
static void
LockSequence(Sequence *sequence)
{
	LocalTransactionId transaction = bdr_my_lxid();

	if (sequence->locked_in != transaction)
	{
		ResourceOwner owner = CurrentResourceOwner;

		/* not given back when a subtransaction is */
		CurrentResourceOwner = TopTransactionResourceOwner;
		LockRelationOid(sequence->oid, RowExclusiveLock);
		CurrentResourceOwner = owner;
		sequence->locked_in = transaction;
	}
}

/* Finds, or makes, the sequence's place in shared memory. */
static void
FindPlace(Sequence *sequence)
{
	FormData_pg_sequence_data tuple = ReadTuple(sequence->oid);
	uint64		mark = tuple.is_called ? bdr_engine_sequence_mark(sequence->kind, tuple.last_value) : 0;
	uint64		marked = bdr_engine_sequence_milliseconds(sequence->kind, mark);
	SharedSequence *bucket = &shared->places[Bucket(sequence->oid) * BUCKET_SIZE];
	SharedSequence *place = NULL;
	SharedSequence *oldest = bucket;

	LWLockAcquire(LockOf(sequence->oid), LW_EXCLUSIVE);
	for (int i = 0; i < BUCKET_SIZE && place == NULL; i++)
	{
		if (bucket[i].kind == sequence->kind && bucket[i].sequence == sequence->oid && bucket[i].database == MyDatabaseId)
			place = &bucket[i];
		else if (oldest->kind != 0 && (bucket[i].kind == 0 || bucket[i].last < oldest->last))
			oldest = &bucket[i];
	}
	if (place)
	{
		/* somebody has reset the sequence: what was reserved is not on disk any more */
		SpinLockAcquire(&place->mutex);
		if (place->reserved > marked)
			place->reserved = 0;
		SpinLockRelease(&place->mutex);
	}
	else
	{
		place = oldest;
		SpinLockAcquire(&place->mutex);
		place->kind = sequence->kind;
		place->sequence = sequence->oid;
		place->database = MyDatabaseId;
		place->last = mark;
		place->reserved = 0;
		SpinLockRelease(&place->mutex);
	}
	LWLockRelease(LockOf(sequence->oid));
	sequence->place = place;
}

static void
LoadSequence(Sequence *sequence)
{
	if (get_rel_relkind(sequence->oid) != RELKIND_SEQUENCE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a sequence", get_rel_name(sequence->oid) ? get_rel_name(sequence->oid) : "?")));
	sequence->locked_in = InvalidLocalTransactionId;
	LockSequence(sequence);
	/* the lock may have told of a change */
	for (;;)
	{
		sequence->loaded = true;
		sequence->place = NULL;
		sequence->first = 1;
		sequence->last = 0;
		sequence->kind = bdr_sequence_kind(sequence->oid);
		if (BDR_SEQUENCE_BY_TIME(sequence->kind) && shared)
			FindPlace(sequence);
		if (sequence->loaded)
			return;
	}
}

static void
CheckRights(Oid sequence, AclMode mode)
{
	if (pg_class_aclcheck(sequence, GetUserId(), mode) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for sequence %s", get_rel_name(sequence) ? get_rel_name(sequence) : "?")));
}

/* The number of the local node in values; it stays the same while the node is in its group. */
static int32
LocalNodeNumber(Oid sequence)
{
	static uint32 generation;
	static int32 number = 0;
	BdrCatalogScan scan;
	Datum		id;
	Datum		value;
	uint32		node;

	if (number != 0 && generation == bdr_gate_generation())
		return number;
	number = 0;
	generation = bdr_gate_generation();
	node = bdr_local_node_id();
	if (node != 0 && bdr_catalog_open(&scan, "node"))
	{
		while (bdr_catalog_next(&scan))
		{
			if (bdr_catalog_column(&scan, "node_id", OIDOID, &id) && DatumGetObjectId(id) == node &&
				bdr_catalog_column(&scan, "seq_id", INT4OID, &value))
				number = DatumGetInt32(value);
		}
		bdr_catalog_close(&scan);
	}
	if (number <= 0)
	{
		number = 0;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot give out a value of global sequence \"%s\": this database is not a node of a group",
						get_rel_name(sequence)),
				 errhint("Make it a node again, or type SELECT bdr.alter_sequence_set_kind('%s', 'local');",
						 get_rel_name(sequence))));
	}
	return number;
}

/* ---- values of time, node and counter ------------------------------------------------------------------------- */

static int64
ClockMilliseconds(void)
{
	struct timeval now;

	gettimeofday(&now, NULL);
	return (int64) now.tv_sec * 1000 + now.tv_usec / 1000;
}

/* Calls setval() whatever the user's rights; it is done when the record is on disk. */
static void
SetSequence(Oid sequence, int64 value, bool called)
{
	Oid			user;
	int			context;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
	/* an error ends the (sub)transaction, which sets both back */
	DirectFunctionCall3(setval3_oid, ObjectIdGetDatum(sequence), Int64GetDatum(value), BoolGetDatum(called));
	SetUserIdAndSecContext(user, context);
}

static void
Reserve(Sequence *sequence, uint64 milliseconds, int32 node)
{
	SharedSequence *place = sequence->place;
	uint64		until = milliseconds + RESERVED_AHEAD;
	bool		mine;
	bool		done;

	LWLockAcquire(LockOf(sequence->oid), LW_EXCLUSIVE);
	SpinLockAcquire(&place->mutex);
	mine = place->kind == sequence->kind && place->sequence == sequence->oid && place->database == MyDatabaseId;
	done = place->reserved > milliseconds;
	SpinLockRelease(&place->mutex);
	if (mine && !done)
	{
		SetSequence(sequence->oid, bdr_engine_sequence_reservation(sequence->kind, until, node), true);
		XLogFlush(XactLastRecEnd);
		/* the place can't change hands meanwhile */
		SpinLockAcquire(&place->mutex);
		place->reserved = until;
		SpinLockRelease(&place->mutex);
	}
	LWLockRelease(LockOf(sequence->oid));
}

static int64
NextByTime(Sequence *sequence)
{
	int32		node = LocalNodeNumber(sequence->oid);

	if (shared == NULL)
		bdr_require_preload();
	for (;;)
	{
		SharedSequence *place = sequence->place;
		int64		clock = ClockMilliseconds();
		uint64		next = 0;
		int			step;
		bool		mine;
		bool		reserved = false;

		SpinLockAcquire(&place->mutex);
		mine = place->kind == sequence->kind && place->sequence == sequence->oid && place->database == MyDatabaseId;
		step = mine ? bdr_engine_sequence_step(sequence->kind, place->last, clock, &next) : 0;
		if (mine && step == 0)
		{
			reserved = bdr_engine_sequence_milliseconds(sequence->kind, next) < place->reserved;
			if (reserved)
				place->last = next;
		}
		SpinLockRelease(&place->mutex);

		if (!mine)
			FindPlace(sequence);
		else if (reserved)
			return bdr_engine_sequence_value(sequence->kind, next, node);
		else if (step == 0)
			Reserve(sequence, bdr_engine_sequence_milliseconds(sequence->kind, next), node);
		else if (step == 1)
		{
			CHECK_FOR_INTERRUPTS();
			pg_usleep(50);
		}
		else
			ereport(ERROR,
					(errcode(ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED),
					 errmsg("sequence \"%s\" has no later value", get_rel_name(sequence->oid)),
					 errdetail("Its last value, or the server's clock, is past the end of the time that values can hold."),
					 errhint("Check the clock; if setval() was used, type ALTER SEQUENCE %s RESTART;",
							 get_rel_name(sequence->oid))));
	}
}

/* ---- values from granted ranges ------------------------------------------------------------------------------- */

/*
 * The range of this node's that a value is in, or the first one above it. As of now, whatever the transaction's snapshot: ranges
 * are stored by other transactions.
 */
static bool
FindRange(Oid sequence, int64 value, int64 *first, int64 *last)
{
	Oid			namespace = get_namespace_oid(BDR_SCHEMA, false);
	Oid			index = get_relname_relid("sequence_chunk_pkey", namespace);
	char	   *schema = get_namespace_name(get_rel_namespace(sequence));
	char	   *name = get_rel_name(sequence);
	Relation	relation;
	Snapshot	snapshot;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	NameData	names[2];
	bool		found = false;

	if (schema == NULL || name == NULL)
		return false;
	namestrcpy(&names[0], schema);
	namestrcpy(&names[1], name);
	for (int i = 0; i < 2; i++)
		ScanKeyInit(&keys[i], i + 1, BTEqualStrategyNumber, F_NAMEEQ, NameGetDatum(&names[i]));
	relation = table_open(get_relname_relid("sequence_chunk", namespace), AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan(relation, index, OidIsValid(index), snapshot, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		int64		from = DatumGetInt64(heap_getattr(tuple, 3, RelationGetDescr(relation), &isnull));
		int64		to = DatumGetInt64(heap_getattr(tuple, 4, RelationGetDescr(relation), &isnull));

		if (to >= value && (!found || from < *first))
		{
			*first = from;
			*last = to;
			found = true;
		}
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(relation, AccessShareLock);
	return found;
}

/*
 * Lets the ordinary sequence go on at the beginning of a range. Others count meanwhile only up to here: whoever takes a value
 * holds the lock, too.
 */
static void
MoveTo(Oid sequence, int64 value)
{
	FormData_pg_sequence_data tuple;

	LWLockAcquire(LockOf(sequence), LW_EXCLUSIVE);
	tuple = ReadTuple(sequence);
	if (tuple.last_value < value)
		SetSequence(sequence, value, false);
	LWLockRelease(LockOf(sequence));
}

static void
ObtainRange(Oid sequence, int64 value)
{
	Oid			user;
	int			context;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
	ENGINE_CALL(bdr_engine_sequence_obtain(sequence, value));
	SetUserIdAndSecContext(user, context);
}

/* The ordinary sequence counts; a value outside of what was granted to this node is not given out. */
static int64
NextGranted(Sequence *sequence, bool check_rights)
{
	if (shared == NULL)
		bdr_require_preload();
	(void) LocalNodeNumber(sequence->oid);
	for (;;)
	{
		int64		value;
		int64		first;
		int64		last;

		CHECK_FOR_INTERRUPTS();
		LWLockAcquire(LockOf(sequence->oid), LW_SHARED);
		value = nextval_internal(sequence->oid, check_rights);
		LWLockRelease(LockOf(sequence->oid));
		if (value >= sequence->first && value <= sequence->last)
			return value;
		while (!FindRange(sequence->oid, value, &first, &last))
			ObtainRange(sequence->oid, value);
		if (first <= value)
		{
			sequence->first = first;
			sequence->last = last;
			/* the last range is in use now: the manager sees to the next one */
			if (!FindRange(sequence->oid, last == PG_INT64_MAX ? last : last + 1, &first, &last))
				bdr_manager_wakeup(MyDatabaseId);
			return value;
		}
		else
			MoveTo(sequence->oid, first);
	}
}

/* ---- what stands in for the server's functions ---------------------------------------------------------------- */

Datum
bdr_seq_nextval(PG_FUNCTION_ARGS)
{
	Oid			oid = PG_GETARG_OID(0);
	Sequence   *sequence = FindSequence(oid);
	Node	   *call = fcinfo->flinfo ? fcinfo->flinfo->fn_expr : NULL;
	/* of an identity column, which needs no rights on the sequence; no statement can say so */
	bool		identity = call && IsA(call, FuncExpr) && ((FuncExpr *) call)->location == BDR_IDENTITY_CALL;
	int64		value;

	if (!sequence->loaded)
		LoadSequence(sequence);
	if (sequence->kind == BDR_SEQUENCE_LOCAL)
	{
		value = nextval_internal(oid, !identity);
		last_used = InvalidOid;
		PG_RETURN_INT64(value);
	}
	LockSequence(sequence);
	/* the lock may have told of a change */
	if (!sequence->loaded)
		LoadSequence(sequence);
	if (!BDR_SEQUENCE_BY_TIME(sequence->kind))
	{
		value = sequence->kind == BDR_SEQUENCE_GALLOC ? NextGranted(sequence, !identity) : nextval_internal(oid, !identity);
		last_used = InvalidOid;
		PG_RETURN_INT64(value);
	}
	if (!identity)
		CheckRights(oid, ACL_USAGE | ACL_UPDATE);
	PreventCommandIfReadOnly("nextval()");
	PreventCommandIfParallelMode("nextval()");
	value = NextByTime(sequence);
	sequence->has_current = true;
	sequence->current = value;
	last_used = oid;
	PG_RETURN_INT64(value);
}

Datum
bdr_seq_currval(PG_FUNCTION_ARGS)
{
	Oid			oid = PG_GETARG_OID(0);
	Sequence   *sequence = FindSequence(oid);

	if (!sequence->loaded)
		LoadSequence(sequence);
	if (!BDR_SEQUENCE_BY_TIME(sequence->kind))
		return DirectFunctionCall1(currval_oid, ObjectIdGetDatum(oid));
	CheckRights(oid, ACL_SELECT | ACL_USAGE);
	if (!sequence->has_current)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("currval of sequence \"%s\" is not yet defined in this session", get_rel_name(oid))));
	PG_RETURN_INT64(sequence->current);
}

Datum
bdr_seq_lastval(PG_FUNCTION_ARGS)
{
	Sequence   *sequence;

	if (!OidIsValid(last_used))
		return lastval(fcinfo);
	sequence = FindSequence(last_used);
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(last_used)) || !sequence->has_current)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("lastval is not yet defined in this session")));
	CheckRights(last_used, ACL_SELECT | ACL_USAGE);
	PG_RETURN_INT64(sequence->current);
}

/* setval(regclass, bigint [, boolean]): a dump that is restored into a node must not move a global sequence. */
Datum
bdr_internal_seq_setval(PG_FUNCTION_ARGS)
{
	Oid			oid = PG_GETARG_OID(0);
	int64		value = PG_GETARG_INT64(1);
	bool		called = PG_NARGS() > 2 ? PG_GETARG_BOOL(2) : true;
	Sequence   *sequence = FindSequence(oid);

	if (!sequence->loaded)
		LoadSequence(sequence);
	if (sequence->kind == BDR_SEQUENCE_LOCAL)
		return DirectFunctionCall3(setval3_oid, ObjectIdGetDatum(oid), Int64GetDatum(value), BoolGetDatum(called));
	CheckRights(oid, ACL_UPDATE);
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("setval() has no effect on global sequence \"%s\"", get_rel_name(oid)),
			 errhint("To have it continue at another value, type SELECT bdr.alter_sequence_set_kind('%s', kind, start);",
					 get_rel_name(oid))));
	PG_RETURN_INT64(value);
}

/*
 * The last value that a sequence has counted; NULL if none, if it is not there, or if it is locked and is not to be waited for.
 * pg_sequence_last_value() would wait for everybody who is about to alter it.
 */
Datum
bdr_internal_sequence_last(PG_FUNCTION_ARGS)
{
	Oid			oid = PG_GETARG_OID(0);
	FormData_pg_sequence_data tuple;

	if (PG_GETARG_BOOL(1))
		LockRelationOid(oid, AccessShareLock);
	else if (!ConditionalLockRelationOid(oid, AccessShareLock))
		PG_RETURN_NULL();
	if (get_rel_relkind(oid) != RELKIND_SEQUENCE)
	{
		UnlockRelationOid(oid, AccessShareLock);
		PG_RETURN_NULL();
	}
	tuple = ReadTuple(oid);
	UnlockRelationOid(oid, AccessShareLock);
	if (!tuple.is_called)
		PG_RETURN_NULL();
	PG_RETURN_INT64(tuple.last_value);
}

/* ---- values taken apart --------------------------------------------------------------------------------------- */

typedef struct Parts
{
	int64		time;			/* ms since 1970 */
	int32		node;
	int32		counter;
} Parts;

static Parts
PartsOf(char kind, int64 value)
{
	Parts		parts;

	bdr_engine_sequence_parts(kind, value, &parts.time, &parts.node, &parts.counter);
	return parts;
}

static Datum
TimeOf(Parts parts)
{
	return TimestampTzGetDatum((parts.time - MS_FROM_1970_TO_2000) * 1000);
}

static Datum
SmallestAt(char kind, const char *name, TimestampTz time)
{
	int64		value;

	/* rounded down to the millisecond */
	if (TIMESTAMP_NOT_FINITE(time) ||
		!bdr_engine_sequence_smallest(kind, (time - (time % 1000 + 1000) % 1000) / 1000 + MS_FROM_1970_TO_2000, &value))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range for a %s", name)));
	return Int64GetDatum(value);
}

SQL_FUNCTION(bdr_extract_timestamp_from_snowflakeid, TimeOf(PartsOf(BDR_SEQUENCE_SNOWFLAKEID, PG_GETARG_INT64(0))));
SQL_FUNCTION(bdr_extract_nodeid_from_snowflakeid, Int32GetDatum(PartsOf(BDR_SEQUENCE_SNOWFLAKEID, PG_GETARG_INT64(0)).node));
SQL_FUNCTION(bdr_extract_localseqid_from_snowflakeid,
			 Int32GetDatum(PartsOf(BDR_SEQUENCE_SNOWFLAKEID, PG_GETARG_INT64(0)).counter));
SQL_FUNCTION(bdr_timestamp_to_snowflakeid, SmallestAt(BDR_SEQUENCE_SNOWFLAKEID, "snowflakeid", PG_GETARG_TIMESTAMPTZ(0)));
SQL_FUNCTION(bdr_extract_timestamp_from_timeshard, TimeOf(PartsOf(BDR_SEQUENCE_TIMESHARD, PG_GETARG_INT64(0))));
SQL_FUNCTION(bdr_extract_nodeid_from_timeshard, Int32GetDatum(PartsOf(BDR_SEQUENCE_TIMESHARD, PG_GETARG_INT64(0)).node));
SQL_FUNCTION(bdr_extract_localseqid_from_timeshard, Int32GetDatum(PartsOf(BDR_SEQUENCE_TIMESHARD, PG_GETARG_INT64(0)).counter));
SQL_FUNCTION(bdr_timestamp_to_timeshard, SmallestAt(BDR_SEQUENCE_TIMESHARD, "timeshard", PG_GETARG_TIMESTAMPTZ(0)));

/* ---- UUIDs ---------------------------------------------------------------------------------------------------- */

static Datum
MakeKsuuid(int version, TimestampTz time)
{
	pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));
	uint64		random;

	if (TIMESTAMP_NOT_FINITE(time))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range for a KSUUID")));
	if (!pg_strong_random(&random, sizeof(random)))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random values")));
	bdr_engine_ksuuid_make(version, time, random, uuid->data);
	PG_RETURN_UUID_P(uuid);
}

static Datum
KsuuidTime(FunctionCallInfo fcinfo, int version)
{
	int64		time;

	if (!bdr_engine_ksuuid_time(version, PG_GETARG_UUID_P(0)->data, &time) || !IS_VALID_TIMESTAMP(time))
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(time);
}

SQL_FUNCTION(bdr_gen_ksuuid, MakeKsuuid(1, GetCurrentTimestamp()));
SQL_FUNCTION(bdr_gen_ksuuid_v2, MakeKsuuid(2, PG_ARGISNULL(0) ? GetCurrentTimestamp() : PG_GETARG_TIMESTAMPTZ(0)));
SQL_FUNCTION(bdr_ksuuid_cmp, Int32GetDatum(bdr_engine_ksuuid_compare(1, PG_GETARG_UUID_P(0)->data, PG_GETARG_UUID_P(1)->data)));
SQL_FUNCTION(bdr_ksuuid_v2_cmp,
			 Int32GetDatum(bdr_engine_ksuuid_compare(2, PG_GETARG_UUID_P(0)->data, PG_GETARG_UUID_P(1)->data)));
SQL_FUNCTION(bdr_extract_timestamp_from_ksuuid, KsuuidTime(fcinfo, 1));
SQL_FUNCTION(bdr_extract_timestamp_from_ksuuid_v2, KsuuidTime(fcinfo, 2));
