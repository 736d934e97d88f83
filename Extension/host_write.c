/*
 * host_write.c: inserts a row, and updates and deletes the one that was located.
 */
#include "host_executor.h"
#include "apply_stats.h"

#include "access/detoast.h"
#include "access/tableam.h"
#include "access/tupconvert.h"
#include "commands/trigger.h"
#include "executor/nodeModifyTable.h"
#include "port/atomics.h"
#include "utils/snapmgr.h"

#include "compat_executor.h"

/* The new row of an insert, without any look for conflicts. */
static void
InsertInto(Target *target, Leaf *leaf, TupleTableSlot *row)
{
	ResultRelInfo *info = leaf->info;
	EState	   *estate = target->estate;
	bool		triggers = info->ri_TrigDesc != NULL;

	if (leaf->defers)
		bdr_deferred_owner = target->rel->owner;
	if (triggers)
		AfterTriggerBeginQuery();
	ExecSimpleRelationInsert(info, estate, row);
	if (triggers)
		AfterTriggerEndQuery(estate);
	target->written = row;
	bdr_wrote_since_increment = true;
}

int32_t
bdr_host_insert(BdrRel *rel, const BdrRow *row, bool despite_stamps, BdrFound *found)
{
	volatile int32_t outcome = BDR_DONE;
	BdrTiming	timing;

	memset(found, 0, sizeof(*found));
	bdr_timing_begin(&timing);
	HOST_BEGIN();
	{
		Target	   *target = UseTarget(rel);
		TupleTableSlot *slot;
		TupleTableSlot *converted;
		Leaf	   *leaf;
		SavedUser	saved;
		MemoryContext old;
		ListCell   *cell;
		uint64		generation = bdr_stamps_generation();
		BdrStamps	stamps;
		int			nstamps = 0;

		IncrementIfWritten();
		BecomeOwnerForRow(rel->owner, &saved);
		slot = bdr_build_insert_row(target, row);
		old = MemoryContextSwitchTo(GetPerTupleMemoryContext(target->estate));
		leaf = RouteRow(target, slot, &converted, false);
		leaf->is_found = false;
		bdr_keep_key(target, slot, NULL);
		target->nin_way = 0;
		foreach(cell, leaf->arbiters)
		{
			Oid			index = lfirst_oid(cell);
			ItemPointerData conflict;
			List	   *arbiter = list_make1_oid(index);

			if (bdr_check_index_constraints(leaf->info, converted, target->estate, &conflict, arbiter))
				continue;
			bdr_add_in_way(target, leaf, index, &conflict);
			if (outcome == BDR_CONFLICT)
			{
				if (target->nin_way > 1)
					found->found = 2;
				if (IsIdentity(leaf, index))
					found->by_identity = 1;
				continue;
			}
			if (!table_tuple_fetch_row_version(leaf->relation, &conflict, SnapshotAny, leaf->found))
			{
				/* gone between the probe and now: the caller looks again */
				outcome = BDR_RETRY;
				break;
			}
			bdr_describe_found(leaf, found, index);
			found->by_identity = IsIdentity(leaf, index);
			outcome = BDR_CONFLICT;
		}
		if (outcome == BDR_DONE)
		{
			nstamps = FindStamps(target, &stamps);
			if (nstamps > 0 && !despite_stamps)
				outcome = BDR_STAMPED;
		}
		if (outcome == BDR_DONE && row->probe)
			outcome = BDR_FREE;
		if (outcome == BDR_DONE)
		{
			InsertInto(target, leaf, converted);
			/* a delete that came in between has not seen the row */
			pg_memory_barrier();
			if (generation != bdr_stamps_generation() && FindStamps(target, &stamps) != nstamps)
				ereport(ERROR,
						(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						 errmsg("a row of \"%s.%s\" was deleted while it was inserted", rel->namespace_name, rel->name)));
		}
		MemoryContextSwitchTo(old);
		BecomeOurselves(&saved);
	}
	bdr_timing_end(&timing, rel->oid, BDR_COUNT_INSERT, outcome == BDR_DONE ? 1 : 0);
	HOST_END();
	return outcome;
}

/* Deletes the located version. BDR_RETRY when it is no longer the current one. */
static int
DeleteLocated(Target *target, Leaf *leaf, bool moving)
{
	ResultRelInfo *info = leaf->info;
	EState	   *estate = target->estate;
	ItemPointer tid = &leaf->found->tts_tid;
	TM_FailureData failure;
	TM_Result	result;
	bool		triggers = info->ri_TrigDesc != NULL;

	if (leaf->defers)
		bdr_deferred_owner = target->rel->owner;
	if (triggers && info->ri_TrigDesc->trig_delete_before_row)
	{
		/* triggers see a row that can't change under them */
		result = table_tuple_lock(leaf->relation, tid, GetLatestSnapshot(), leaf->found, GetCurrentCommandId(false),
								  LockTupleExclusive, LockWaitBlock, 0, &failure);
		if (result != TM_Ok)
			return result == TM_SelfModified ? BDR_DONE : BDR_RETRY;
		/* the server locks once more, and must see rows of this transaction */
		estate->es_output_cid = GetCurrentCommandId(false);
		AfterTriggerBeginQuery();
		if (!bdr_exec_br_delete_triggers(estate, &leaf->epq, info, tid))
		{
			AfterTriggerEndQuery(estate);
			return BDR_DONE;
		}
		AfterTriggerEndQuery(estate);
	}
	result = table_tuple_delete(leaf->relation, tid, GetCurrentCommandId(true), GetActiveSnapshot(), InvalidSnapshot,
								true, &failure, moving);
	if (result == TM_Updated || result == TM_Deleted)
		return BDR_RETRY;
	if (result != TM_Ok && result != TM_SelfModified)
		elog(ERROR, "unexpected result of a delete: %u", result);
	if (triggers)
	{
		AfterTriggerBeginQuery();
		ExecARDeleteTriggers(estate, info, tid, NULL, NULL, false);
		AfterTriggerEndQuery(estate);
	}
	bdr_wrote_since_increment = true;
	return BDR_DONE;
}

/* Writes a new version of the located row. */
static int
UpdateLocated(Target *target, Leaf *leaf, TupleTableSlot *row)
{
	ResultRelInfo *info = leaf->info;
	EState	   *estate = target->estate;
	Relation	relation = leaf->relation;
	ItemPointer tid = &leaf->found->tts_tid;
	TM_FailureData failure;
	LockTupleMode lock_mode;
	BdrUpdateIndexes update_indexes;
	TM_Result	result;
	List	   *recheck = NIL;
	bool		triggers = info->ri_TrigDesc != NULL;

	if (leaf->defers)
		bdr_deferred_owner = target->rel->owner;
	if (triggers && info->ri_TrigDesc->trig_update_before_row)
	{
		bool		go_on;

		result = table_tuple_lock(relation, tid, GetLatestSnapshot(), leaf->found, GetCurrentCommandId(false),
								  LockTupleExclusive, LockWaitBlock, 0, &failure);
		if (result != TM_Ok)
			return result == TM_SelfModified ? BDR_DONE : BDR_RETRY;
		/* the server locks once more, and must see rows of this transaction */
		estate->es_output_cid = GetCurrentCommandId(false);
		AfterTriggerBeginQuery();
		EvalPlanQualSetSlot(&leaf->epq, row);
		go_on = bdr_exec_br_update_triggers(estate, &leaf->epq, info, tid, row);
		AfterTriggerEndQuery(estate);
		if (!go_on)
			return BDR_DONE;
	}
	if (relation->rd_att->constr && relation->rd_att->constr->has_generated_stored)
		ExecComputeStoredGenerated(info, estate, row, CMD_UPDATE);
	if (relation->rd_att->constr)
		ExecConstraints(info, row, estate);
	if (relation->rd_rel->relispartition)
		ExecPartitionCheck(info, row, estate, true);
	result = table_tuple_update(relation, tid, row, GetCurrentCommandId(true), GetActiveSnapshot(), InvalidSnapshot,
								true, &failure, &lock_mode, &update_indexes);
	if (result == TM_Updated || result == TM_Deleted)
		return BDR_RETRY;
	if (result != TM_Ok)
		elog(ERROR, "unexpected result of an update: %u", result);
	if (info->ri_NumIndices > 0 && bdr_needs_index_update(update_indexes))
		recheck = bdr_insert_index_tuples(info, row, estate, true, update_indexes);
	if (triggers)
	{
		AfterTriggerBeginQuery();
		ExecARUpdateTriggers(estate, info, NULL, NULL, tid, NULL, row, recheck, NULL, false);
		AfterTriggerEndQuery(estate);
	}
	list_free(recheck);
	target->written = row;
	bdr_wrote_since_increment = true;
	return BDR_DONE;
}

/*
 * Whether other rows have unique values of the row that shall take the located one's place; the first of them is located then.
 * The replica identity is not looked at: the caller has.
 */
static bool
HasOtherRow(Target *target, Leaf *leaf, TupleTableSlot *row, BdrFound *found)
{
	ItemPointerData located = leaf->found->tts_tid;
	ListCell   *cell;

	target->nin_way = 0;
	foreach(cell, leaf->arbiters)
	{
		Oid			index = lfirst_oid(cell);
		ItemPointerData conflict;

		if (!IsIdentity(leaf, index) &&
			!bdr_check_index_constraints(leaf->info, row, target->estate, &conflict, list_make1_oid(index)) &&
			!ItemPointerEquals(&conflict, &located))
			bdr_add_in_way(target, leaf, index, &conflict);
	}
	if (target->nin_way == 0)
		return false;
	/* gone between the probe and now: found stays empty, and the caller looks again */
	if (table_tuple_fetch_row_version(leaf->relation, &target->in_way[0].tid, SnapshotAny, leaf->found))
		bdr_describe_found(leaf, found, target->in_way[0].index);
	return true;
}

int32_t
bdr_host_update_found(BdrRel *rel, const BdrRow *row, BdrFound *found)
{
	volatile int32_t outcome = BDR_DONE;
	BdrTiming	timing;

	memset(found, 0, sizeof(*found));
	bdr_timing_begin(&timing);
	HOST_BEGIN();
	{
		Target	   *target = UseTarget(rel);
		Leaf	   *leaf = target->leaf;
		TupleDesc	desc = RelationGetDescr(target->relation);
		TupleDesc	leaf_desc;
		TupleTableSlot *slot = target->row;
		MemoryContext old;
		SavedUser	saved;
		bool	   *provided;

		if (leaf == NULL || !leaf->is_found)
			elog(ERROR, "bdr: no row was located");
		IncrementIfWritten();
		leaf_desc = RelationGetDescr(leaf->relation);
		BecomeOwnerForRow(rel->owner, &saved);
		old = MemoryContextSwitchTo(target->row_context);

		/* what was sent, in the root's columns */
		provided = bdr_store_row(target, row, slot);
		slot_getallattrs(leaf->found);
		if (!bdr_merge_values(target, leaf, row, slot, provided) && row->keep_all)
			outcome = BDR_SAME;
		ExecStoreVirtualTuple(slot);

		/* laid over the located version, in the leaf's columns */
		ExecClearTuple(leaf->row);
		for (int a = 0; a < leaf_desc->natts; a++)
		{
			int			root = a;

			if (leaf->from_root)
				root = leaf->from_root->attnums[a] - 1;
			if (root >= 0 && provided[root])
			{
				leaf->row->tts_values[a] = slot->tts_values[root];
				leaf->row->tts_isnull[a] = slot->tts_isnull[root];
			}
			else
			{
				leaf->row->tts_values[a] = leaf->found->tts_values[a];
				leaf->row->tts_isnull[a] = leaf->found->tts_isnull[a];
			}
		}
		ExecStoreVirtualTuple(leaf->row);

		if (outcome == BDR_SAME)
			 /* nothing to write */ ;
		else if (leaf->relation->rd_rel->relispartition && target->routing &&
			!ExecPartitionCheck(leaf->info, leaf->row, target->estate, false))
		{
			/* the row moves to another partition: delete and insert, as the server does it */
			TupleTableSlot *moved = slot;
			TupleTableSlot *converted;
			Leaf	   *destination;

			/* values kept from the located version must not point into its TOAST table */
			for (int a = 0; a < leaf_desc->natts; a++)
			{
				if (!leaf->row->tts_isnull[a] && TupleDescAttr(leaf_desc, a)->attlen == -1 &&
					VARATT_IS_EXTERNAL(DatumGetPointer(leaf->row->tts_values[a])))
					leaf->row->tts_values[a] =
						PointerGetDatum(detoast_external_attr((struct varlena *) DatumGetPointer(leaf->row->tts_values[a])));
			}
			ExecClearTuple(moved);
			if (leaf->to_root)
				moved = execute_attr_map_slot(leaf->to_root, leaf->row, moved);
			else
			{
				for (int a = 0; a < desc->natts; a++)
				{
					moved->tts_values[a] = leaf->row->tts_values[a];
					moved->tts_isnull[a] = leaf->row->tts_isnull[a];
				}
				ExecStoreVirtualTuple(moved);
			}
			outcome = DeleteLocated(target, leaf, true);
			if (outcome == BDR_DONE)
			{
				destination = RouteRow(target, moved, &converted, false);
				InsertInto(target, destination, converted);
			}
		}
		else if (list_length(leaf->arbiters) > 1 && HasOtherRow(target, leaf, leaf->row, found))
			outcome = found->found ? BDR_CONFLICT : BDR_RETRY;
		else
			outcome = UpdateLocated(target, leaf, leaf->row);
		if (outcome != BDR_CONFLICT)
			leaf->is_found = false;
		MemoryContextSwitchTo(old);
		BecomeOurselves(&saved);
	}
	bdr_timing_end(&timing, rel->oid, BDR_COUNT_UPDATE, outcome == BDR_DONE ? 1 : 0);
	HOST_END();
	return outcome;
}

int32_t
bdr_host_delete_found(BdrRel *rel)
{
	volatile int32_t outcome = BDR_DONE;
	BdrTiming	timing;

	bdr_timing_begin(&timing);
	HOST_BEGIN();
	{
		Target	   *target = UseTarget(rel);
		Leaf	   *leaf = target->leaf;
		SavedUser	saved;

		if (leaf == NULL || !leaf->is_found)
			elog(ERROR, "bdr: no row was located");
		IncrementIfWritten();
		BecomeOwnerForRow(rel->owner, &saved);
		outcome = DeleteLocated(target, leaf, false);
		leaf->is_found = false;
		BecomeOurselves(&saved);
	}
	bdr_timing_end(&timing, rel->oid, BDR_COUNT_DELETE, outcome == BDR_DONE ? 1 : 0);
	HOST_END();
	return outcome;
}
