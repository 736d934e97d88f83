/*
 * row_stamps.c: what is remembered of a key whose row can't tell by itself: bdr.row_stamp.
 *
 * An operation is dated by the commit time of its transaction and by the node where that was committed first. Of a row that
 * is there, its xmin says both. A row that was deleted says nothing, so the delete leaves a stamp: an operation that comes
 * late and is older must not bring the row back. The same is kept of rows that a join has copied, whose xmin is the copy's.
 *
 * A stamp names its key by a hash of 128 bits. It is dated by its own xmin, unless it has a time of its own; stamps are only
 * added and removed, never changed, and the newest one counts. Rows of one key are written one after the other by the
 * locks on them; writers of stamps and of missing rows keep apart by each looking for the other one's work, also of a
 * transaction that runs still, after it has done its own.
 *
 * Deletes of ordinary sessions are seen through a trigger that no catalog has: it is put into the running statement.
 */
#include "bdr.h"
#include "compat.h"

#include "access/commit_ts.h"
#include "access/detoast.h"
#include "access/genam.h"
#include "access/heapam.h"
#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/toast_internals.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "compat_executor.h"
#include "row_stamps.h"

/* Columns of bdr.row_stamp. */
enum
{
	STAMP_RELID = 1,
	STAMP_HASH,
	STAMP_CHECK,
	STAMP_TIME,
	STAMP_NODE,
	STAMP_COLUMNS = STAMP_NODE
};

/* Seeds of the two halves of a key's hash. */
#define SEED_HASH UINT64CONST(0x9e3779b97f4a7c15)
#define SEED_CHECK UINT64CONST(0xc2b2ae3d27d4eb4f)

PG_FUNCTION_INFO_V1(bdr_internal_stamp_row);
PG_FUNCTION_INFO_V1(bdr_internal_recent_rows);
PG_FUNCTION_INFO_V1(bdr_internal_add_stamp);

/* ---- keys ----------------------------------------------------------------------------------------------------- */

static HTAB *key_columns = NULL;

static void
ForgetKeyColumns(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	BdrKeyColumns *entry;

	/* partitions have what their root has: forget all */
	hash_seq_init(&status, key_columns);
	while ((entry = hash_seq_search(&status)) != NULL)
		entry->valid = false;
}

/* The index by which the rows of a table are told apart, InvalidOid if there is none. */
static Oid
KeyIndexOf(Relation relation)
{
	Oid			index = RelationGetReplicaIndex(relation);

	if (!OidIsValid(index))
		index = bdr_primary_key_index(relation);
	return index;
}

static int
CompareNames(const void *a, const void *b)
{
	return strcmp(NameStr(((const BdrKeyColumn *) a)->name), NameStr(((const BdrKeyColumn *) b)->name));
}

/* Columns in the order of their names, so that it is the same for a table and its partitions. */
static void
FillKeyColumns(BdrKeyColumns *key, Relation relation)
{
	Relation	owner = relation;	/* whose index says what the key is */
	Oid			index_oid;
	Relation	index;

	key->root = RelationGetRelid(relation);
	key->n = 0;
	if (relation->rd_rel->relispartition)
	{
		List	   *ancestors = get_partition_ancestors(RelationGetRelid(relation));

		if (ancestors != NIL)
			key->root = llast_oid(ancestors);
		list_free(ancestors);
		owner = RelationIdGetRelation(key->root);
		if (!RelationIsValid(owner))
			return;
	}
	index_oid = KeyIndexOf(owner);
	if (!OidIsValid(index_oid) && owner != relation)
	{
		RelationClose(owner);
		owner = relation;
		index_oid = KeyIndexOf(owner);
	}
	if (OidIsValid(index_oid))
	{
		index = RelationIdGetRelation(index_oid);
		for (int i = 0; RelationIsValid(index) && i < index->rd_index->indnkeyatts; i++)
		{
			AttrNumber	number = index->rd_index->indkey.values[i];
			BdrKeyColumn *column = &key->columns[key->n];

			if (number <= 0)
			{
				key->n = 0;
				break;
			}
			column->name = TupleDescAttr(RelationGetDescr(owner), number - 1)->attname;
			column->attnum = owner == relation ? number : get_attnum(RelationGetRelid(relation), NameStr(column->name));
			if (column->attnum <= 0)
			{
				key->n = 0;
				break;
			}
			column->type = TupleDescAttr(RelationGetDescr(owner), number - 1)->atttypid;
			column->by_value = TupleDescAttr(RelationGetDescr(owner), number - 1)->attbyval;
			column->length = TupleDescAttr(RelationGetDescr(owner), number - 1)->attlen;
			column->collation = index->rd_indcollation[i];
			column->cache = lookup_type_cache(column->type, TYPECACHE_HASH_EXTENDED_PROC_FINFO);
			key->n++;
		}
		if (RelationIsValid(index))
			RelationClose(index);
	}
	if (owner != relation)
		RelationClose(owner);
	qsort(key->columns, key->n, sizeof(BdrKeyColumn), CompareNames);
}

const BdrKeyColumns *
bdr_key_columns(Relation relation)
{
	Oid			relid = RelationGetRelid(relation);
	BdrKeyColumns *entry;
	bool		found;

	if (key_columns == NULL)
	{
		HASHCTL		control = {0};

		control.keysize = sizeof(Oid);
		control.entrysize = sizeof(BdrKeyColumns);
		control.hcxt = TopMemoryContext;
		key_columns = hash_create("bdr key columns", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		CacheRegisterRelcacheCallback(ForgetKeyColumns, (Datum) 0);
	}
	entry = hash_search(key_columns, &relid, HASH_ENTER, &found);
	if (!found || !entry->valid)
	{
		/* set first: what changes while we look is looked at again */
		entry->valid = true;
		FillKeyColumns(entry, relation);
	}
	return entry;
}

static uint64
HashValue(const BdrKeyColumn *column, Datum value, uint64 seed)
{
	FmgrInfo   *function = &column->cache->hash_extended_proc_finfo;

	if (OidIsValid(function->fn_oid))
		return DatumGetUInt64(FunctionCall2Coll(function, column->collation, value, UInt64GetDatum(seed)));
	if (column->by_value)
		return hash_bytes_extended((const unsigned char *) &value, sizeof(Datum), seed);
	if (column->length == -1)
	{
		struct varlena *plain = PG_DETOAST_DATUM_PACKED(value);

		return hash_bytes_extended((const unsigned char *) VARDATA_ANY(plain), VARSIZE_ANY_EXHDR(plain), seed);
	}
	return hash_bytes_extended((const unsigned char *) DatumGetPointer(value),
							   column->length > 0 ? column->length : strlen(DatumGetCString(value)), seed);
}

/* The key of a row in the columns of the relation that `columns` are of; false when its rows have no key. */
bool
bdr_key_of(const BdrKeyColumns *columns, TupleTableSlot *slot, BdrKey *key)
{
	key->hash = SEED_HASH;
	key->check = SEED_CHECK;
	for (int i = 0; i < columns->n; i++)
	{
		bool		isnull;
		Datum		value = slot_getattr(slot, columns->columns[i].attnum, &isnull);

		key->hash = hash_combine64(key->hash, isnull ? 0 : HashValue(&columns->columns[i], value, SEED_HASH));
		key->check = hash_combine64(key->check, isnull ? 0 : HashValue(&columns->columns[i], value, SEED_CHECK));
	}
	return columns->n > 0;
}

/* ---- versions ------------------------------------------------------------------------------------------------- */

/*
 * When and where the transaction was committed that wrote a tuple. The header keeps xmin when the row is frozen. That is
 * wanted: as long as its commit time is kept, a row that was vacuumed on one node only must not count as older there. Once
 * transaction numbers have begun anew, a frozen row's may be that of a later transaction.
 */
bool
bdr_tuple_version(HeapTupleHeader header, TimestampTz *time, RepOriginId *origin)
{
	TransactionId xmin = HeapTupleHeaderGetRawXmin(header);

	if (!TransactionIdIsNormal(xmin))
		return false;
	if (HeapTupleHeaderXminFrozen(header) && EpochFromFullTransactionId(ReadNextFullTransactionId()) > 0)
		return false;
	return TransactionIdGetCommitTsData(xmin, time, origin);
}

/*
 * Whether the file of a relation is still the one that its entry says. While decoding, the entry is that of the time of the
 * change: the relation may have been dropped, truncated or written anew since. With our lock on it, it can't be any more.
 */
static bool
HasItsFile(Relation relation)
{
	Relation	classes;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		result;

	if (!HistoricSnapshotActive())
		return true;
	classes = table_open(RelationRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_class_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(RelationGetRelid(relation)));
	scan = systable_beginscan(classes, ClassOidIndexId, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	result = HeapTupleIsValid(tuple) &&
		((Form_pg_class) GETSTRUCT(tuple))->relfilenode == relation->rd_rel->relfilenode;
	systable_endscan(scan);
	table_close(classes, AccessShareLock);
	return result;
}

/* The same of a value that is stored out of line: who wrote it. False when that is not known any more. */
bool
bdr_toast_version(Datum value, TimestampTz *time, RepOriginId *origin)
{
	struct varatt_external pointer;
	Relation	toast;
	Relation   *indexes;
	int			nindexes;
	int			valid;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	if (!VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(value)))
		return false;
	VARATT_EXTERNAL_GET_POINTER(pointer, DatumGetPointer(value));
	toast = try_relation_open(pointer.va_toastrelid, AccessShareLock);
	if (toast == NULL)
		return false;
	valid = toast_open_indexes(toast, AccessShareLock, &indexes, &nindexes);
	if (!HasItsFile(toast) || !HasItsFile(indexes[valid]))
	{
		toast_close_indexes(indexes, nindexes, AccessShareLock);
		relation_close(toast, AccessShareLock);
		return false;
	}
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(pointer.va_valueid));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(0));
	scan = systable_beginscan_ordered(toast, indexes[valid], SnapshotAny, 2, keys);
	tuple = systable_getnext_ordered(scan, ForwardScanDirection);
	/* what was copied says nothing: each join has copied another state */
	if (HeapTupleIsValid(tuple) && !TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetRawXmin(tuple->t_data)))
		found = bdr_tuple_version(tuple->t_data, time, origin) && *time > BDR_COPY_TIME;
	systable_endscan_ordered(scan);
	toast_close_indexes(indexes, nindexes, AccessShareLock);
	relation_close(toast, AccessShareLock);
	return found;
}

/* ---- the table ------------------------------------------------------------------------------------------------ */

static Oid
StampTable(void)
{
	Oid			namespace = get_namespace_oid(BDR_SCHEMA, true);

	return OidIsValid(namespace) ? get_relname_relid("row_stamp", namespace) : InvalidOid;
}

/* What an apply worker keeps open for its transaction, as it may add many. */
static Relation kept_table = NULL;
static CatalogIndexState kept_indexes = NULL;

/* At the end of a transaction; after an abort the server has closed them. */
void
bdr_stamps_close(bool commit)
{
	if (commit && kept_table)
	{
		CatalogCloseIndexes(kept_indexes);
		table_close(kept_table, NoLock);
	}
	kept_table = NULL;
	kept_indexes = NULL;
}

static Relation
OpenStamps(void)
{
	Oid			relid = StampTable();
	Relation	table;

	/* an extension that was dropped meanwhile */
	if (!OidIsValid(relid))
		return NULL;
	table = table_open(relid, RowExclusiveLock);
	if (RelationGetNumberOfAttributes(table) < STAMP_COLUMNS)
		elog(ERROR, "table bdr.row_stamp has not the columns it should have");
	return table;
}

/*
 * Adds a stamp to a key. time: when it is not that of this very transaction.
 */
void
bdr_stamp_add(Oid root, const BdrKey *key, const TimestampTz *time, uint32 node)
{
	bool		keep = bdr_is_worker() && GetCurrentTransactionNestLevel() == 1;
	Relation	table = keep && kept_table ? kept_table : OpenStamps();
	Datum		values[STAMP_COLUMNS] = {0};
	bool		nulls[STAMP_COLUMNS] = {0};
	HeapTuple	tuple;

	if (table == NULL)
		return;
	if (keep && kept_table == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

		kept_indexes = CatalogOpenIndexes(table);
		kept_table = table;
		MemoryContextSwitchTo(old);
	}
	values[STAMP_RELID - 1] = ObjectIdGetDatum(root);
	values[STAMP_HASH - 1] = Int64GetDatum((int64) key->hash);
	values[STAMP_CHECK - 1] = Int64GetDatum((int64) key->check);
	nulls[STAMP_TIME - 1] = time == NULL;
	nulls[STAMP_NODE - 1] = time == NULL;
	if (time)
	{
		values[STAMP_TIME - 1] = TimestampTzGetDatum(*time);
		values[STAMP_NODE - 1] = ObjectIdGetDatum(node);
	}
	tuple = heap_form_tuple(RelationGetDescr(table), values, nulls);
	/* first the sign that there are stamps, for those who don't look otherwise */
	bdr_stamps_written(key->hash);
	if (keep)
		CatalogTupleInsertWithInfo(table, tuple, kept_indexes);
	else
		CatalogTupleInsert(table, tuple);
	bdr_stamps_written(key->hash);
	heap_freetuple(tuple);
	if (!keep)
		table_close(table, RowExclusiveLock);
}

/*
 * The newest stamps of a key (several only if they have the same time). Waits for transactions that are about to add one.
 * Returns how many stamps the key has altogether.
 */
int
bdr_stamps_find(Oid root, const BdrKey *key, BdrStamps *stamps)
{
	Oid			relid = StampTable();
	Relation	table;
	Relation	index = NULL;
	List	   *indexes;
	TupleTableSlot *slot;
	ScanKeyData scankey;
	int			count;

	memset(stamps, 0, sizeof(*stamps));
	if (!OidIsValid(relid))
		return 0;
	table = table_open(relid, AccessShareLock);
	indexes = RelationGetIndexList(table);
	if (indexes != NIL)
		index = index_open(linitial_oid(indexes), AccessShareLock);
	list_free(indexes);
	if (index == NULL || index->rd_index->indkey.values[0] != STAMP_HASH)
		elog(ERROR, "table bdr.row_stamp has lost its index");
	slot = table_slot_create(table, NULL);
	ScanKeyInit(&scankey, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum((int64) key->hash));
	for (;;)
	{
		SnapshotData dirty;
		IndexScanDesc scan;
		TransactionId writer = InvalidTransactionId;

		InitDirtySnapshot(dirty);
		memset(stamps, 0, sizeof(*stamps));
		count = 0;
		scan = bdr_index_beginscan(table, index, &dirty, 1);
		index_rescan(scan, &scankey, 1, NULL, 0);
		while (index_getnext_slot(scan, ForwardScanDirection, slot))
		{
			bool		isnull;
			BdrStamp	stamp = {0};
			HeapTuple	tuple;
			bool		free_tuple;

			if (DatumGetObjectId(slot_getattr(slot, STAMP_RELID, &isnull)) != root ||
				(uint64) DatumGetInt64(slot_getattr(slot, STAMP_CHECK, &isnull)) != key->check)
				continue;
			if (TransactionIdIsValid(dirty.xmin))
			{
				writer = dirty.xmin;
				break;
			}
			count++;
			stamp.commit_time = DatumGetTimestampTz(slot_getattr(slot, STAMP_TIME, &isnull));
			if (!isnull)
				stamp.node = DatumGetObjectId(slot_getattr(slot, STAMP_NODE, &isnull));
			else
			{
				RepOriginId origin = InvalidRepOriginId;
				TimestampTz time = 0;
				bool		dated = false;

				tuple = ExecFetchSlotHeapTuple(slot, false, &free_tuple);
				if (TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetRawXmin(tuple->t_data)))
					stamps->own_transaction = 1;
				else
					dated = bdr_tuple_version(tuple->t_data, &time, &origin);
				if (free_tuple)
					heap_freetuple(tuple);
				if (!dated)
					continue;
				stamp.commit_time = time;
				stamp.origin = origin;
			}
			if (stamps->n > 0 && stamp.commit_time < stamps->stamps[0].commit_time)
				continue;
			if (stamps->n > 0 && stamp.commit_time > stamps->stamps[0].commit_time)
				stamps->n = 0;
			if (stamps->n < BDR_STAMPS_MAX)
				stamps->stamps[stamps->n++] = stamp;
		}
		index_endscan(scan);
		ExecClearTuple(slot);
		if (!TransactionIdIsValid(writer))
			break;
		XactLockTableWait(writer, table, NULL, XLTW_None);
	}
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(table, AccessShareLock);
	return count;
}

/*
 * Looks at all stamps, also at those that are just being added: whether there are any, and whether any was written by a
 * transaction with a number before the given one.
 */
static void
LookAtStamps(TransactionId before, bool *any, bool *older)
{
	Oid			relid = StampTable();
	Relation	table;
	TableScanDesc scan;
	TupleTableSlot *slot;
	SnapshotData dirty;

	*any = *older = !OidIsValid(relid);
	if (!OidIsValid(relid))
		return;
	table = table_open(relid, AccessShareLock);
	slot = table_slot_create(table, NULL);
	InitDirtySnapshot(dirty);
	scan = table_beginscan(table, &dirty, 0, NULL);
	while (!*older && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		free_tuple;
		HeapTuple	tuple = ExecFetchSlotHeapTuple(slot, false, &free_tuple);
		TransactionId xmin = HeapTupleHeaderGetRawXmin(tuple->t_data);

		*any = true;
		*older = HeapTupleHeaderXminFrozen(tuple->t_data) || !TransactionIdIsNormal(before) ||
			!TransactionIdIsNormal(xmin) || TransactionIdPrecedes(xmin, before);
		if (free_tuple)
			heap_freetuple(tuple);
		CHECK_FOR_INTERRUPTS();
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(table, AccessShareLock);
}

bool
bdr_host_stamps_possible(void)
{
	return bdr_stamps_possible();
}

int32_t
bdr_host_stamps_settle(void)
{
	HOST_BEGIN();
	{
		uint64		written = bdr_stamps_generation();
		TransactionId turned_at = bdr_stamps_turned_at();
		/* those from before the turn that are still to write have set their bits already */
		bool		over = TransactionIdIsNormal(turned_at) &&
			!TransactionIdPrecedes(GetOldestActiveTransactionId(), turned_at);
		bool		any;
		bool		older;

		pg_memory_barrier();
		LookAtStamps(turned_at, &any, &older);
		if (!any)
			bdr_stamps_settled(written);
		if (!older && over)
			bdr_stamps_turn();
	}
	HOST_END();
	return BDR_OK;
}

/* ---- deletes of ordinary sessions ----------------------------------------------------------------------------- */

/* A trigger of its own number in no catalog; that of the function it calls will not be one of another trigger. */
static void
AddTrigger(EState *estate, ResultRelInfo *info, Oid function, int16 type, const BdrKeyColumns *columns, int instrument)
{
	TriggerDesc *desc;
	Trigger    *trigger;
	MemoryContext old = MemoryContextSwitchTo(estate->es_query_cxt);
	int			n = info->ri_TrigDesc ? info->ri_TrigDesc->numtriggers : 0;
	FmgrInfo   *functions = palloc0(sizeof(FmgrInfo) * (n + 1));
	ExprState **conditions = palloc0(sizeof(ExprState *) * (n + 1));

	desc = palloc0(sizeof(TriggerDesc));
	if (info->ri_TrigDesc)
		*desc = *info->ri_TrigDesc;
	desc->triggers = palloc0(sizeof(Trigger) * (n + 1));
	if (n > 0)
		memcpy(desc->triggers, info->ri_TrigDesc->triggers, sizeof(Trigger) * n);
	desc->numtriggers = n + 1;
	trigger = &desc->triggers[n];
	/* only AFTER triggers are looked for by it, and of these there is one */
	trigger->tgoid = function;
	trigger->tgname = pstrdup("bdr_row_stamp");
	trigger->tgfoid = function;
	trigger->tgtype = TRIGGER_TYPE_ROW | type;
	trigger->tgenabled = TRIGGER_FIRES_ALWAYS;
	trigger->tgisinternal = true;
	if (columns)
	{
		trigger->tgnattr = columns->n;
		trigger->tgattr = palloc(sizeof(int16) * columns->n);
		for (int i = 0; i < columns->n; i++)
			trigger->tgattr[i] = columns->columns[i].attnum;
	}
	if (type & TRIGGER_TYPE_BEFORE)
	{
		desc->trig_delete_before_row |= (type & TRIGGER_TYPE_DELETE) != 0;
		desc->trig_update_before_row |= (type & TRIGGER_TYPE_UPDATE) != 0;
	}
	else
	{
		desc->trig_delete_after_row |= (type & TRIGGER_TYPE_DELETE) != 0;
		desc->trig_update_after_row |= (type & TRIGGER_TYPE_UPDATE) != 0;
	}
	info->ri_TrigDesc = desc;
	info->ri_TrigFunctions = functions;
	info->ri_TrigWhenExprs = conditions;
	if (instrument)
		info->ri_TrigInstrument = InstrAlloc(n + 1, instrument, false);
	MemoryContextSwitchTo(old);
}

/*
 * Has a statement that is about to run leave stamps: for rows of the relation that it deletes, or updates in key columns.
 * flags: of ExecutorStart. A statement of a referential action has its AFTER triggers fired by the one that caused it, which
 * would look for them in the catalog: there, it is a BEFORE trigger, and the last one.
 */
void
bdr_stamps_watch(QueryDesc *query, ResultRelInfo *info, bool deletes, bool updates, int flags)
{
	EState	   *estate = query->estate;
	Relation	relation = info->ri_RelationDesc;
	const BdrKeyColumns *columns = bdr_key_columns(relation);
	bool		restricted = true;
	Oid			function;
	int16		timing = flags & EXEC_FLAG_SKIP_TRIGGERS ? TRIGGER_TYPE_BEFORE : TRIGGER_TYPE_AFTER;

	if (columns->n == 0)
		return;
	if (updates)
	{
		/* what a BEFORE trigger changes is not in the list */
		if (info->ri_TrigDesc && info->ri_TrigDesc->trig_update_before_row)
			restricted = false;
		else
		{
			Bitmapset  *updated = ExecGetUpdatedCols(info, estate);
			Bitmapset  *generated = ExecGetExtraUpdatedCols(info, estate);
			bool		concerned = false;

			for (int i = 0; i < columns->n; i++)
			{
				int			bit = columns->columns[i].attnum - FirstLowInvalidHeapAttributeNumber;

				concerned |= bms_is_member(bit, updated) || bms_is_member(bit, generated);
			}
			updates = concerned;
		}
	}
	if (!deletes && !updates)
		return;
	function = LookupFuncName(list_make2(makeString(BDR_SCHEMA), makeString("internal_stamp_row")), 0, NULL, true);
	if (!OidIsValid(function))
		return;
	if (deletes)
		AddTrigger(estate, info, function, timing | TRIGGER_TYPE_DELETE, NULL, query->instrument_options);
	/* before the row is written, as it may have to be written otherwise */
	if (updates)
		AddTrigger(estate, info, function, TRIGGER_TYPE_BEFORE | TRIGGER_TYPE_UPDATE, restricted ? columns : NULL,
				   query->instrument_options);
}

/*
 * The trigger: leaves a stamp for the key that the row had. A row that gets another key takes no values that are stored out
 * of line along, but writes them anew: who wrote such a value tells it only from others that the same key has had.
 */
Datum
bdr_internal_stamp_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	const BdrKeyColumns *columns;
	BdrKey		old_key;
	BdrKey		new_key;
	bool		update;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED), errmsg("not called as the trigger that it is")));
	update = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	columns = bdr_key_columns(trigger->tg_relation);
	if (bdr_key_of(columns, trigger->tg_trigslot, &old_key) &&
		(!update || (bdr_key_of(columns, trigger->tg_newslot, &new_key) &&
					 (old_key.hash != new_key.hash || old_key.check != new_key.check))))
	{
		bdr_stamp_add(columns->root, &old_key, NULL, 0);
		if (update && HeapTupleHasExternal(trigger->tg_newtuple))
			return PointerGetDatum(toast_flatten_tuple(trigger->tg_newtuple, RelationGetDescr(trigger->tg_relation)));
	}
	return PointerGetDatum(update ? trigger->tg_newtuple : trigger->tg_trigtuple);
}

/* ---- joins ---------------------------------------------------------------------------------------------------- */

/*
 * bdr.internal_recent_rows(table regclass, since timestamptz): keys of the rows that were written after a time, as the
 * snapshot of the query sees them, with the commit time and the number of the replication origin.
 */
Datum
bdr_internal_recent_rows(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	TimestampTz since = PG_GETARG_TIMESTAMPTZ(1);
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Relation	relation;
	const BdrKeyColumns *columns;
	TableScanDesc scan;
	TupleTableSlot *slot;
	TransactionId last = InvalidTransactionId;
	TimestampTz time = 0;
	RepOriginId origin = 0;
	bool		is_recent = false;
	bool		was_frozen = false;

	SetSingleFuncCall(fcinfo, 0);
	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK ||
		check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", get_rel_name(relid))));
	relation = table_open(relid, AccessShareLock);
	columns = bdr_key_columns(relation);
	if (relation->rd_rel->relkind == RELKIND_RELATION && columns->n > 0)
	{
		slot = table_slot_create(relation, NULL);
		scan = table_beginscan(relation, GetActiveSnapshot(), 0, NULL);
		while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		{
			bool		free_tuple;
			HeapTuple	tuple = ExecFetchSlotHeapTuple(slot, false, &free_tuple);
			TransactionId xmin = HeapTupleHeaderGetRawXmin(tuple->t_data);
			bool		frozen = HeapTupleHeaderXminFrozen(tuple->t_data);

			if (xmin != last || frozen != was_frozen)
			{
				is_recent = bdr_tuple_version(tuple->t_data, &time, &origin) && time > since && time > BDR_COPY_TIME;
				last = xmin;
				was_frozen = frozen;
			}
			if (free_tuple)
				heap_freetuple(tuple);
			if (is_recent)
			{
				BdrKey		key;
				Datum		values[4];
				bool		nulls[4] = {0};

				(void) bdr_key_of(columns, slot, &key);
				values[0] = Int64GetDatum((int64) key.hash);
				values[1] = Int64GetDatum((int64) key.check);
				values[2] = TimestampTzGetDatum(time);
				values[3] = ObjectIdGetDatum(origin);
				tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
			}
			CHECK_FOR_INTERRUPTS();
		}
		table_endscan(scan);
		ExecDropSingleTupleTableSlot(slot);
	}
	table_close(relation, NoLock);
	return (Datum) 0;
}

/* bdr.internal_add_stamp(table regclass, key_hash bigint, key_check bigint, commit_time timestamptz, node_id oid) */
Datum
bdr_internal_add_stamp(PG_FUNCTION_ARGS)
{
	BdrKey		key = {(uint64) PG_GETARG_INT64(1), (uint64) PG_GETARG_INT64(2)};
	TimestampTz time = PG_GETARG_TIMESTAMPTZ(3);

	if (!bdr_internal_session)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("only a join brings stamps of rows")));
	bdr_stamp_add(PG_GETARG_OID(0), &key, &time, PG_GETARG_OID(4));
	PG_RETURN_VOID();
}
