/*
 * host_bulk.c: writes many rows at once: raw rows that follow one another, and, while a node joins, whole pages.
 */
#include "host_executor.h"
#include "apply_stats.h"
#include "attempt.h"

#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xloginsert.h"
#include "access/xlogrecord.h"
#include "catalog/catalog.h"
#include "catalog/pg_am.h"
#include "catalog/pg_control.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "replication/slot.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/resowner.h"

#include "compat_executor.h"

/*
 * Inserts many raw rows at once, hoping that none has a conflict: a subtransaction makes the hope safe. When a unique key
 * is violated all of it is undone and the caller goes row by row.
 */
int32_t
bdr_host_insert_batch(BdrRel *rel, const BdrRow *rows, int32_t n, int32_t *done)
{
	volatile int32_t outcome = BDR_DONE;
	BdrTiming	timing;

	*done = 0;
	bdr_timing_begin(&timing);
	HOST_BEGIN();
	{
		Target	   *target = UseTarget(rel);
		Leaf	   *leaf = target->leaf;
		uint64		generation = bdr_stamps_generation();
		volatile bool stamped = bdr_stamps_possible();

		if (n < 10 || target->routing != NULL || !rel->info.same_layout || leaf->info->ri_TrigDesc != NULL)
			outcome = BDR_CONFLICT;
		else
		{
			MemoryContext caller = CurrentMemoryContext;
			Attempt		attempt;
			SavedUser	saved;
			Relation	relation = leaf->relation;
			CommandId	command;

			IncrementIfWritten();
			if (target->batch_size < n)
			{
				MemoryContextSwitchTo(target->estate->es_query_cxt);
				if (target->batch == NULL)
				{
					target->batch = palloc(sizeof(TupleTableSlot *) * n);
					target->batch_desc = CreateTupleDescCopyConstr(RelationGetDescr(relation));
				}
				else
					target->batch = repalloc(target->batch, sizeof(TupleTableSlot *) * n);
				while (target->batch_size < n)
					target->batch[target->batch_size++] =
						MakeSingleTupleTableSlot(target->batch_desc, &TTSOpsHeapTuple);
				MemoryContextSwitchTo(caller);
			}
			BeginAttempt(&attempt);
			MemoryContextSwitchTo(target->row_context);
			PG_TRY();
			{
				BecomeOwner(rel->owner, &saved);
				command = GetCurrentCommandId(true);
				for (int i = 0; i < n; i++)
				{
					TupleTableSlot *slot = target->batch[i];

					CheckRowShape(rel, &rows[i]);
					/* the slot owns it: it would be copied else */
					ExecStoreHeapTuple(bdr_make_raw_tuple(&rows[i]), slot, true);
					if (rows[i].deep_check)
					{
						slot_getallattrs(slot);
						bdr_deep_check(rel, RelationGetDescr(relation), slot->tts_values, slot->tts_isnull);
					}
					if (relation->rd_att->constr)
						ExecConstraints(leaf->info, slot, target->estate);
					slot->tts_tableOid = RelationGetRelid(relation);
				}
				table_multi_insert(relation, target->batch, n, command, 0, NULL);
				if (leaf->info->ri_NumIndices > 0)
				{
					for (int i = 0; i < n; i++)
					{
						MemoryContext tuple_context = MemoryContextSwitchTo(GetPerTupleMemoryContext(target->estate));

						list_free(bdr_insert_index_tuples(leaf->info, target->batch[i], target->estate, false,
														  BDR_UPDATE_ALL_INDEXES));
						MemoryContextSwitchTo(tuple_context);
						ResetPerTupleExprContext(target->estate);
					}
				}
				/* after they are there, so that a delete that comes now sees them */
				pg_memory_barrier();
				stamped = stamped || generation != bdr_stamps_generation();
				for (int i = 0; i < n && stamped; i++)
				{
					BdrStamps	stamps;

					bdr_keep_key(target, target->batch[i], NULL);
					if (FindStamps(target, &stamps) > 0)
						ereport(ERROR, (errcode(ERRCODE_UNIQUE_VIOLATION), errmsg("a row has stamps")));
				}
				for (int i = 0; i < n; i++)
					ExecClearTuple(target->batch[i]);
				BecomeOurselves(&saved);
				EndAttempt(&attempt);
				*done = n;
				bdr_wrote_since_increment = true;
			}
			PG_CATCH();
			{
				ErrorData  *error = UndoAttempt(&attempt);

				for (int i = 0; i < n; i++)
					ExecClearTuple(target->batch[i]);
				if (error->sqlerrcode != ERRCODE_UNIQUE_VIOLATION)
					ReThrowError(error);
				FreeErrorData(error);
				outcome = BDR_CONFLICT;
			}
			PG_END_TRY();
		}
	}
	bdr_timing_end(&timing, rel->oid, BDR_COUNT_INSERT, *done);
	HOST_END();
	return outcome;
}

/* ---- appending pages ------------------------------------------------------------------------------------------ */

/* So many go into a table, and into WAL, at a time: a record takes no more. */
#define APPEND_PAGES XLR_MAX_BLOCK_ID

static int
AppendLimit(void)
{
	/* all of them are pinned at once */
	return Max(1, Min(APPEND_PAGES, NBuffers / 64));
}

static char *
AppendedPage(Target *target, int number)
{
	return target->pages + (Size) number * BLCKSZ;
}

/*
 * Puts the pages that were filled at the end of the table. Sessions that copy pieces of one table would otherwise wait for one
 * another at each page: here they do so once for many, and a page is logged once and not row by row.
 */
void
bdr_write_pages(Target *target)
{
	Relation	relation = target->relation;
	Buffer		buffers[APPEND_PAGES];
	int			n = target->npages;

	if (n == 0)
		return;
	target->npages = 0;
	if (RelationNeedsWAL(relation))
		XLogEnsureRecordSpace(n - 1, 0);
	LockRelationForExtension(relation, ExclusiveLock);
	for (int i = 0; i < n; i++)
		buffers[i] = ReadBufferExtended(relation, MAIN_FORKNUM, P_NEW, RBM_ZERO_AND_LOCK, NULL);
	UnlockRelationForExtension(relation, ExclusiveLock);

	START_CRIT_SECTION();
	for (int i = 0; i < n; i++)
	{
		Page		page = BufferGetPage(buffers[i]);
		BlockNumber block = BufferGetBlockNumber(buffers[i]);

		memcpy(page, AppendedPage(target, i), BLCKSZ);
		for (OffsetNumber offset = FirstOffsetNumber; offset <= PageGetMaxOffsetNumber(page); offset++)
			ItemPointerSet(&((HeapTupleHeader) PageGetItem(page, PageGetItemId(page, offset)))->t_ctid, block, offset);
		MarkBufferDirty(buffers[i]);
	}
	if (RelationNeedsWAL(relation))
	{
		XLogRecPtr	lsn;

		XLogBeginInsert();
		for (int i = 0; i < n; i++)
			XLogRegisterBuffer(i, buffers[i], REGBUF_FORCE_IMAGE | REGBUF_STANDARD);
		lsn = XLogInsert(RM_XLOG_ID, XLOG_FPI);
		for (int i = 0; i < n; i++)
			PageSetLSN(BufferGetPage(buffers[i]), lsn);
	}
	END_CRIT_SECTION();
	for (int i = 0; i < n; i++)
		UnlockReleaseBuffer(buffers[i]);
}

/* Does anybody decode the WAL of this database? Images of pages are nothing that can be decoded. */
static bool
HasLogicalSlots(void)
{
	bool		found = false;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots && !found; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];

		SpinLockAcquire(&slot->mutex);
		found = slot->in_use && slot->data.database == MyDatabaseId;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);
	return found;
}

/*
 * May whole pages be put into the table? A slot that comes later does no harm: what it decodes begins after the transactions
 * that ran then, and this one runs, as it has its number.
 */
static bool
CanAppend(Target *target)
{
	if (!target->append_known)
	{
		Relation	relation = target->relation;

		(void) GetCurrentTransactionId();
		target->append_possible = target->routing == NULL && target->leaf != NULL && target->rel->info.same_layout &&
			relation->rd_rel->relkind == RELKIND_RELATION && relation->rd_rel->relam == HEAP_TABLE_AM_OID &&
			!RELATION_IS_LOCAL(relation) && target->leaf->info->ri_NumIndices == 0 &&
			target->leaf->info->ri_TrigDesc == NULL && !(RelationIsLogicallyLogged(relation) && HasLogicalSlots());
		target->append_known = true;
	}
	return target->append_possible;
}

/* Adds a row, whose header says nothing of transactions yet, to the pages. */
static void
AppendTuple(Target *target, HeapTuple tuple)
{
	Relation	relation = target->relation;
	HeapTupleHeader header = tuple->t_data;
	Size		spared = RelationGetTargetPageFreeSpace(relation, HEAP_DEFAULT_FILLFACTOR);
	Page		page = NULL;

	HeapTupleHeaderSetXmin(header, GetCurrentTransactionId());
	HeapTupleHeaderSetCmin(header, GetCurrentCommandId(true));
	HeapTupleHeaderSetXmax(header, InvalidTransactionId);
	header->t_infomask |= HEAP_XMAX_INVALID;

	if (target->npages > 0)
	{
		page = AppendedPage(target, target->npages - 1);
		if (PageGetHeapFreeSpace(page) < MAXALIGN(tuple->t_len) + spared)
			page = NULL;
	}
	if (page == NULL)
	{
		if (target->npages >= AppendLimit())
			bdr_write_pages(target);
		page = AppendedPage(target, target->npages);
		PageInit(page, BLCKSZ, 0);
		target->npages++;
	}
	if (PageAddItem(page, (Item) header, tuple->t_len, InvalidOffsetNumber, false, true) == InvalidOffsetNumber)
		elog(ERROR, "bdr: a row of %u bytes does not fit into a page", (unsigned) tuple->t_len);
}

/*
 * Inserts raw rows that a join copies into a table without indexes and triggers. They are in the table when it is closed
 * (bdr_host_executor_close), perhaps earlier.
 */
int32_t
bdr_host_append_batch(BdrRel *rel, const BdrRow *rows, int32_t n)
{
	volatile int32_t outcome = BDR_DONE;

	HOST_BEGIN();
	{
		Target	   *target = UseTarget(rel);
		bool		possible = CanAppend(target);

		for (int i = 0; i < n && possible; i++)
		{
			Size		header = SizeofHeapTupleHeader + (rows[i].has_nulls ? BITMAPLEN(rows[i].attributes) : 0);

			/* others get their values out of line */
			possible = MAXALIGN(header) + rows[i].data_length <= TOAST_TUPLE_THRESHOLD;
		}
		if (!possible)
			outcome = BDR_CONFLICT;
		else
		{
			TupleTableSlot *slot = target->raw;
			MemoryContext caller = MemoryContextSwitchTo(target->row_context);
			SavedUser	saved;

			if (target->pages == NULL)
				target->pages = MemoryContextAlloc(target->estate->es_query_cxt, (Size) AppendLimit() * BLCKSZ);
			BecomeOwner(rel->owner, &saved);
			for (int i = 0; i < n; i++)
			{
				HeapTuple	tuple;

				CheckRowShape(rel, &rows[i]);
				tuple = bdr_make_raw_tuple(&rows[i]);
				ExecStoreHeapTuple(tuple, slot, false);
				if (rows[i].deep_check)
				{
					slot_getallattrs(slot);
					bdr_deep_check(rel, RelationGetDescr(target->relation), slot->tts_values, slot->tts_isnull);
				}
				if (target->relation->rd_att->constr)
					ExecConstraints(target->leaf->info, slot, target->estate);
				AppendTuple(target, tuple);
			}
			ExecClearTuple(slot);
			BecomeOurselves(&saved);
			MemoryContextSwitchTo(caller);
			pgstat_count_heap_insert(target->relation, n);
			bdr_wrote_since_increment = true;
		}
	}
	HOST_END();
	return outcome;
}
