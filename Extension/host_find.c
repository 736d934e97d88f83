/*
 * host_find.c: finds the local row that a row of the peer means, by index or scan, and tells what is known of its version.
 */
#include "host_executor.h"
#include "apply_stats.h"

#include "access/commit_ts.h"
#include "access/genam.h"
#include "access/relscan.h"
#include "access/sysattr.h"
#include "access/tableam.h"
#include "access/tupconvert.h"
#include "storage/lmgr.h"
#include "utils/datum.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

#include "compat_executor.h"

/*
 * Does a candidate equal the searched row in the columns that were sent? First by the exact stored values: rows that were
 * replicated are equal to the bit. `loosely` asks the types' own equality instead, for values that travelled as text or
 * were stored differently; types without equality (json, xml, point) are equal only exactly.
 */
static bool
RowMatches(Leaf *leaf, TupleTableSlot *candidate, TupleTableSlot *search, bool loosely)
{
	TupleDesc	desc = RelationGetDescr(leaf->relation);

	slot_getallattrs(candidate);
	for (int a = 0; a < desc->natts; a++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, a);

		if (attribute->attisdropped || attribute->attgenerated || !leaf->is_remote_key[a])
			continue;
		if (candidate->tts_isnull[a] != search->tts_isnull[a])
			return false;
		if (candidate->tts_isnull[a])
			continue;
		if (datum_image_eq(candidate->tts_values[a], search->tts_values[a], attribute->attbyval, attribute->attlen))
			continue;
		if (loosely)
		{
			TypeCacheEntry *type = lookup_type_cache(attribute->atttypid, TYPECACHE_EQ_OPR_FINFO);

			if (OidIsValid(type->eq_opr_finfo.fn_oid) &&
				DatumGetBool(FunctionCall2Coll(&type->eq_opr_finfo, attribute->attcollation, candidate->tts_values[a],
											   search->tts_values[a])))
				continue;
		}
		return false;
	}
	return true;
}

/* One pass under a snapshot. */
static bool
ScanOnce(Leaf *leaf, TupleTableSlot *search, Snapshot snapshot, bool loosely)
{
	bool		found = false;
	KeyIndex   *key = leaf->key;

	/* an index can't be asked for NULL here */
	if (key)
	{
		for (int k = 0; k < key->nkeys; k++)
		{
			int			a = key->attributes[k] - 1;

			if (search->tts_isnull[a])
			{
				key = NULL;
				break;
			}
		}
	}
	ExecClearTuple(leaf->found);
	if (key)
	{
		ScanKeyData keys[INDEX_MAX_KEYS];
		IndexScanDesc scan;

		memcpy(keys, key->keys, sizeof(ScanKeyData) * key->nkeys);
		for (int k = 0; k < key->nkeys; k++)
			keys[k].sk_argument = search->tts_values[key->attributes[k] - 1];
		scan = bdr_index_beginscan(leaf->relation, key->index, snapshot, key->nkeys);
		index_rescan(scan, keys, key->nkeys, NULL, 0);
		while (index_getnext_slot(scan, ForwardScanDirection, leaf->found))
		{
			if (key->recheck && !RowMatches(leaf, leaf->found, search, loosely))
				continue;
			found = true;
			break;
		}
		/* the slot keeps a pin of its own */
		index_endscan(scan);
	}
	else
	{
		TableScanDesc scan = table_beginscan(leaf->relation, snapshot, 0, NULL);

		while (table_scan_getnextslot(scan, ForwardScanDirection, leaf->found))
		{
			if (!RowMatches(leaf, leaf->found, search, loosely))
			{
				CHECK_FOR_INTERRUPTS();
				continue;
			}
			found = true;
			break;
		}
		table_endscan(scan);
	}
	return found;
}

/*
 * Locates the current version of the row. A fresh MVCC snapshot decides what is there: unlike a dirty scan it can't miss a
 * row that is being moved by an update. Only when it shows nothing is a dirty scan made for a row that is just being
 * written, whose writer is waited for.
 */
static bool
FindRow(Leaf *leaf, TupleTableSlot *search)
{
	for (;;)
	{
		Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
		bool		found;
		SnapshotData dirty;
		TransactionId writer;

		slot_getallattrs(search);
		found = ScanOnce(leaf, search, snapshot, false);
		if (!found && (leaf->key == NULL || leaf->key->recheck))
			found = ScanOnce(leaf, search, snapshot, true);
		UnregisterSnapshot(snapshot);
		if (found)
			return true;

		InitDirtySnapshot(dirty);
		if (!ScanOnce(leaf, search, &dirty, leaf->key == NULL || leaf->key->recheck))
			return false;
		writer = TransactionIdIsValid(dirty.xmin) ? dirty.xmin : dirty.xmax;
		if (!TransactionIdIsValid(writer))
			return true;
		XactLockTableWait(writer, leaf->relation, &leaf->found->tts_tid, XLTW_None);
	}
}

void
bdr_describe_found(Leaf *leaf, BdrFound *found, Oid index)
{
	TimestampTz time;
	RepOriginId origin;
	bool		free_tuple;
	HeapTuple	tuple = ExecFetchSlotHeapTuple(leaf->found, false, &free_tuple);

	memset(found, 0, sizeof(*found));
	found->found = 1;
	found->index = index;
	leaf->is_found = true;
	if (TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetRawXmin(tuple->t_data)))
		found->own_transaction = 1;
	else if (bdr_tuple_version(tuple->t_data, &time, &origin))
	{
		found->has_version = 1;
		found->commit_time = time;
		found->origin = origin;
	}
	if (free_tuple)
		heap_freetuple(tuple);
}

/* Keeps the key of a row in the root's columns. provided: which of them have a value, NULL: all. */
void
bdr_keep_key(Target *target, TupleTableSlot *row, const bool *provided)
{
	const BdrKeyColumns *columns = bdr_key_columns(target->relation);

	target->has_key = false;
	if (provided)
	{
		for (int i = 0; i < columns->n; i++)
			if (!provided[columns->columns[i].attnum - 1])
				return;
	}
	target->has_key = bdr_key_of(columns, row, &target->key);
}

/* Locates a row in one leaf and makes it the one to write. */
static bool
LocateIn(Target *target, Leaf *leaf, TupleTableSlot *search, BdrFound *found)
{
	BdrRel	   *rel = target->rel;

	if (!leaf->key_known)
	{
		MemoryContext old = MemoryContextSwitchTo(target->estate->es_query_cxt);

		bdr_choose_key(target, leaf);
		MemoryContextSwitchTo(old);
	}
	if (leaf->nremote_keys == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot find rows of \"%s.%s\": the peer sent no key", rel->namespace_name, rel->name),
				 errhint("Add a primary key to the table, or use ALTER TABLE … REPLICA IDENTITY.")));
	leaf->is_found = false;
	target->leaf = leaf;
	if (!FindRow(leaf, search))
		return false;
	bdr_describe_found(leaf, found, leaf->key ? RelationGetRelid(leaf->key->index) : InvalidOid);
	found->by_identity = 1;
	return true;
}

int32_t
bdr_host_find(BdrRel *rel, const BdrRow *row, BdrFound *found)
{
	BdrTiming	timing;

	memset(found, 0, sizeof(*found));
	bdr_timing_begin(&timing);
	HOST_BEGIN();
	{
		Target	   *target = UseTarget(rel);
		TupleTableSlot *slot = target->row;
		MemoryContext old;
		Leaf	   *leaf;
		TupleTableSlot *search;
		bool	   *provided;
		SavedUser	saved;

		IncrementIfWritten();
		BecomeOwner(rel->owner, &saved);
		old = MemoryContextSwitchTo(target->row_context);
		provided = bdr_store_row(target, row, slot);
		ExecStoreVirtualTuple(slot);
		if (target->routing && !target->key_routes)
		{
			ListCell   *cell;

			if (target->every_leaf == NIL)
				bdr_open_every_leaf(target);
			foreach(cell, target->every_leaf)
			{
				leaf = lfirst(cell);
				search = leaf->from_root ? execute_attr_map_slot(leaf->from_root, slot, leaf->search) : slot;
				if (LocateIn(target, leaf, search, found))
					break;
			}
		}
		else
		{
			leaf = RouteRow(target, slot, &search, true);
			(void) LocateIn(target, leaf, search, found);
		}
		bdr_keep_key(target, slot, provided);
		MemoryContextSwitchTo(old);
		BecomeOurselves(&saved);
	}
	bdr_timing_end(&timing, rel->oid, BDR_COUNT_UPDATE, 0);
	HOST_END();
	return BDR_OK;
}

/* ---- rows in the way of one ----------------------------------------------------------------------------------- */

/* Adds to the rows in the way, unless it is there. */
void
bdr_add_in_way(Target *target, Leaf *leaf, Oid index, ItemPointer tid)
{
	for (int i = 0; i < target->nin_way; i++)
		if (ItemPointerEquals(&target->in_way[i].tid, tid))
			return;
	if (target->nin_way == target->in_way_size)
	{
		int			size = Max(list_length(leaf->arbiters), target->in_way_size + 1);

		if (target->in_way == NULL)
			target->in_way = MemoryContextAlloc(target->estate->es_query_cxt, sizeof(RowInWay) * size);
		else
			target->in_way = repalloc(target->in_way, sizeof(RowInWay) * size);
		target->in_way_size = size;
	}
	target->in_way[target->nin_way].index = index;
	target->in_way[target->nin_way].tid = *tid;
	target->nin_way++;
}

int32_t
bdr_host_in_the_way(BdrRel *rel, int32_t number, BdrFound *found)
{
	volatile int32_t outcome = BDR_DONE;

	memset(found, 0, sizeof(*found));
	HOST_BEGIN();
	{
		Target	   *target = UseTarget(rel);
		Leaf	   *leaf = target->leaf;

		IncrementIfWritten();
		if (leaf && number >= 0 && number < target->nin_way)
		{
			RowInWay   *row = &target->in_way[number];

			leaf->is_found = false;
			if (table_tuple_fetch_row_version(leaf->relation, &row->tid, SnapshotAny, leaf->found))
			{
				bdr_describe_found(leaf, found, row->index);
				found->by_identity = IsIdentity(leaf, row->index);
			}
			else
				outcome = BDR_RETRY;
		}
	}
	HOST_END();
	return outcome;
}

/* ---- versions ------------------------------------------------------------------------------------------------- */

int32_t
bdr_host_same_key(BdrRel *rel, const BdrRow *a, const BdrRow *b)
{
	volatile int32_t same = 1;

	HOST_BEGIN();
	{
		Target	   *target = UseTarget(rel);
		TupleTableSlot *slot = target->row;
		TupleDesc	desc = RelationGetDescr(target->relation);
		const BdrKeyColumns *columns;
		MemoryContext old = MemoryContextSwitchTo(target->row_context);
		bool	   *provided = palloc(sizeof(bool) * Max(desc->natts, 1));
		Datum	   *values = palloc(sizeof(Datum) * Max(desc->natts, 1));
		bool	   *nulls = palloc(sizeof(bool) * Max(desc->natts, 1));
		BdrKey		keys[2];
		bool		has_key = true;
		SavedUser	saved;

		BecomeOwner(rel->owner, &saved);
		for (int i = 0; i < desc->natts; i++)
		{
			values[i] = (Datum) 0;
			nulls[i] = true;
		}
		/* what the new row does not say is as the old one has it */
		for (int which = 0; which < 2 && has_key; which++)
		{
			memset(provided, 0, sizeof(bool) * Max(desc->natts, 1));
			bdr_store_values(target, which == 0 ? a : b, values, nulls, provided);
			ExecClearTuple(slot);
			memcpy(slot->tts_values, values, sizeof(Datum) * desc->natts);
			memcpy(slot->tts_isnull, nulls, sizeof(bool) * desc->natts);
			ExecStoreVirtualTuple(slot);
			columns = bdr_key_columns(target->relation);
			has_key = bdr_key_of(columns, slot, &keys[which]);
		}
		if (has_key && (keys[0].hash != keys[1].hash || keys[0].check != keys[1].check))
			same = 0;
		ExecClearTuple(slot);
		MemoryContextSwitchTo(old);
		BecomeOurselves(&saved);
	}
	HOST_END();
	return same;
}

int32_t
bdr_host_value_version(BdrRel *rel, int32_t column, BdrFound *version)
{
	memset(version, 0, sizeof(*version));
	HOST_BEGIN();
	{
		Target	   *target = rel ? rel->target : NULL;
		Leaf	   *leaf = target ? target->leaf : NULL;
		TimestampTz time;
		RepOriginId origin;
		bool		isnull;
		int			a;

		if (leaf == NULL || !leaf->is_found || column < 0 || column >= rel->ncolumns)
			elog(ERROR, "bdr: no row was located");
		a = rel->map[column].attribute;
		if (a >= 0 && leaf->to_root)
			a = leaf->to_root->attnums[a] - 1;
		if (a >= 0)
		{
			Datum		value = slot_getattr(leaf->found, a + 1, &isnull);

			if (!isnull && TupleDescAttr(RelationGetDescr(leaf->relation), a)->attlen == -1 &&
				bdr_toast_version(value, &time, &origin))
			{
				version->found = 1;
				version->has_version = 1;
				version->commit_time = time;
				version->origin = origin;
			}
		}
	}
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_version_differs(BdrRel *rel, const BdrRow *before)
{
	volatile int32_t differs = 0;

	HOST_BEGIN();
	{
		Target	   *target = UseTarget(rel);
		Leaf	   *leaf = target->leaf;
		TupleDesc	desc = RelationGetDescr(target->relation);
		int			a = rel->version_attribute - 1;
		MemoryContext old = MemoryContextSwitchTo(target->row_context);
		bool	   *provided = palloc0(sizeof(bool) * Max(desc->natts, 1));
		Datum	   *values = palloc0(sizeof(Datum) * Max(desc->natts, 1));
		bool	   *nulls = palloc0(sizeof(bool) * Max(desc->natts, 1));
		SavedUser	saved;

		if (leaf == NULL || !leaf->is_found || a < 0)
			elog(ERROR, "bdr: no row with a version was located");
		BecomeOwner(rel->owner, &saved);
		bdr_store_values(target, before, values, nulls, provided);
		if (provided[a])
		{
			Form_pg_attribute attribute = TupleDescAttr(desc, a);
			bool		isnull;
			Datum		here = slot_getattr(leaf->found, leaf->to_root ? leaf->to_root->attnums[a] : a + 1, &isnull);

			differs = isnull != nulls[a] ||
				(!isnull && !datum_image_eq(here, values[a], attribute->attbyval, attribute->attlen));
		}
		MemoryContextSwitchTo(old);
		BecomeOurselves(&saved);
	}
	HOST_END();
	return differs;
}

/* ---- for stream triggers -------------------------------------------------------------------------------------- */

bool
bdr_rel_hold_found(BdrRel *rel, HeapTuple *tuple, TransactionId *xmin)
{
	Target	   *target = rel->target;
	Leaf	   *leaf = target->leaf;
	TM_FailureData failure;
	TM_Result	result;

	if (leaf == NULL || !leaf->is_found)
		elog(ERROR, "bdr: no row was located");
	IncrementIfWritten();
	result = table_tuple_lock(leaf->relation, &leaf->found->tts_tid, GetLatestSnapshot(), leaf->found,
							  GetCurrentCommandId(false), LockTupleExclusive, LockWaitBlock, 0, &failure);
	if (result != TM_Ok)
	{
		leaf->is_found = false;
		return false;
	}
	if (leaf->to_root)
	{
		TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(target->relation), &TTSOpsVirtual);

		*tuple = ExecCopySlotHeapTuple(execute_attr_map_slot(leaf->to_root, leaf->found, slot));
		ExecDropSingleTupleTableSlot(slot);
	}
	else
		*tuple = ExecCopySlotHeapTuple(leaf->found);
	(*tuple)->t_tableOid = RelationGetRelid(target->relation);
	{
		bool		isnull;

		*xmin = DatumGetTransactionId(slot_getsysattr(leaf->found, MinTransactionIdAttributeNumber, &isnull));
	}
	return true;
}

bool
bdr_rel_still_found(BdrRel *rel)
{
	Leaf	   *leaf = rel->target->leaf;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool		found = table_tuple_satisfies_snapshot(leaf->relation, leaf->found, snapshot);

	UnregisterSnapshot(snapshot);
	return found;
}
