/*
 * copy_rows.c: rows of a join's copy as they are stored, in chunks.
 *
 * COPY would convert each value into its external form and back. Where the table has the same layout on both nodes, and types
 * whose bytes mean the same, that is most of the work. So the joining node asks the join target for chunks, in the form in which
 * rows travel in the stream of changes (bdr.internal_table_rows, inside a COPY ... TO), and stores them through the trigger of
 * a table that is always empty (bdr.copied_rows, by COPY ... FROM).
 */
#include "bdr.h"
#include "compat.h"

#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_am.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(bdr_internal_table_rows);
PG_FUNCTION_INFO_V1(bdr_internal_store_rows);
PG_FUNCTION_INFO_V1(bdr_internal_copied_rows);

typedef struct TableRows
{
	MemoryContextCallback reset;
	Relation	relation;
	TableScanDesc scan;
	TupleTableSlot *slot;
	bool		at_end;			/* a scan that has ended would begin anew */
	void	   *packer;			/* Swift object */
} TableRows;

static void
ReleasePacker(void *arg)
{
	TableRows  *state = arg;

	if (state->packer)
		bdr_engine_copy_free(state->packer);
	state->packer = NULL;
}

/* The rows of a table between two blocks, as the snapshot of the query sees them. */
static TableRows *
BeginRows(Oid oid, BlockNumber first, BlockNumber end, MemoryContext context)
{
	TableRows  *state = MemoryContextAllocZero(context, sizeof(TableRows));
	BdrRelationDesc description;
	int16	   *attnums;
	bool		user_types;
	ItemPointerData low;
	ItemPointerData high;

	state->relation = table_open(oid, AccessShareLock);
	if (state->relation->rd_rel->relkind != RELKIND_RELATION || state->relation->rd_rel->relam != HEAP_TABLE_AM_OID)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not an ordinary table", RelationGetRelationName(state->relation))));
	if (pg_class_aclcheck(oid, GetUserId(), ACL_SELECT) != ACLCHECK_OK ||
		check_enable_rls(oid, InvalidOid, true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", RelationGetRelationName(state->relation))));
	bdr_describe_relation(state->relation, get_namespace_name(RelationGetNamespace(state->relation)),
						  RelationGetRelationName(state->relation), &description, &attnums, &user_types);
	state->reset.func = ReleasePacker;
	state->reset.arg = state;
	MemoryContextRegisterResetCallback(context, &state->reset);
	ENGINE_CALL(bdr_engine_copy_begin(&description, &state->packer));
	ItemPointerSet(&low, first, 0);
	if (end == InvalidBlockNumber)
		ItemPointerSet(&high, InvalidBlockNumber, PG_UINT16_MAX);
	else
		ItemPointerSet(&high, end - 1, PG_UINT16_MAX);
	state->slot = table_slot_create(state->relation, NULL);
	state->scan = table_beginscan_tidrange(state->relation, GetActiveSnapshot(), &low, &high);
	return state;
}

/* bdr.internal_table_rows(table regclass, first_block bigint, end_block bigint); end_block -1: to the end. */
Datum
bdr_internal_table_rows(PG_FUNCTION_ARGS)
{
	FuncCallContext *context;
	TableRows  *state;
	bool		full = false;
	const uint8_t *data;
	size_t		length;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext caller;
		int64		first = PG_GETARG_INT64(1);
		int64		end = PG_GETARG_INT64(2);

		if (first < 0 || first >= MaxBlockNumber || end < -1 || end > MaxBlockNumber || (end != -1 && end <= first))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("not a range of blocks")));
		context = SRF_FIRSTCALL_INIT();
		caller = MemoryContextSwitchTo(context->multi_call_memory_ctx);
		context->user_fctx = BeginRows(PG_GETARG_OID(0), (BlockNumber) first,
									   end == -1 ? InvalidBlockNumber : (BlockNumber) end,
									   context->multi_call_memory_ctx);
		MemoryContextSwitchTo(caller);
	}
	context = SRF_PERCALL_SETUP();
	state = context->user_fctx;
	while (!full && !state->at_end)
	{
		bool		free_tuple;
		HeapTuple	tuple;
		BdrTuple	row;

		if (!table_scan_getnextslot_tidrange(state->scan, ForwardScanDirection, state->slot))
		{
			state->at_end = true;
			break;
		}
		tuple = ExecFetchSlotHeapTuple(state->slot, false, &free_tuple);

		bdr_row_describe(tuple, &row);
		ENGINE_CALL(bdr_engine_copy_add(state->packer, &row, &full));
		if (free_tuple)
			heap_freetuple(tuple);
		CHECK_FOR_INTERRUPTS();
	}
	ENGINE_CALL(bdr_engine_copy_take(state->packer, &data, &length));
	if (length > 0)
	{
		bytea	   *chunk = palloc(VARHDRSZ + length);

		SET_VARSIZE(chunk, VARHDRSZ + length);
		memcpy(VARDATA(chunk), data, length);
		SRF_RETURN_NEXT(context, PointerGetDatum(chunk));
	}
	table_endscan(state->scan);
	ExecDropSingleTupleTableSlot(state->slot);
	table_close(state->relation, NoLock);
	SRF_RETURN_DONE(context);
}

/* Trigger: stores the rows of a chunk, and lets the chunk itself vanish. */
Datum
bdr_internal_store_rows(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	bool		isnull;
	Datum		value;
	bytea	   *chunk;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) || !TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED), errmsg("not called as the trigger that it is")));
	if (!bdr_internal_session)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("\"%s\" takes only the rows that a join copies", RelationGetRelationName(trigger->tg_relation))));
	value = heap_getattr(trigger->tg_trigtuple, 1, RelationGetDescr(trigger->tg_relation), &isnull);
	if (!isnull)
	{
		chunk = DatumGetByteaPP(value);
		ENGINE_CALL(bdr_engine_store_rows((const uint8_t *) VARDATA_ANY(chunk), VARSIZE_ANY_EXHDR(chunk)));
	}
	return PointerGetDatum(NULL);
}

/* Rows that this session has stored so since it was asked last. */
Datum
bdr_internal_copied_rows(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64((int64) bdr_engine_copied_rows());
}
