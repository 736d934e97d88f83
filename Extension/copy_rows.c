/*
 * copy_rows.c: rows of a join's copy as they are stored, in chunks.
 *
 * COPY would convert each value into its external form and back. Where the table has the same layout on both nodes, and types
 * whose bytes mean the same, that is most of the work. So the joining node asks the join target for chunks, in the form in which
 * rows travel in the stream of changes (bdr.internal_table_rows, inside a COPY ... TO). The session that stores them here asks
 * for them itself, over a connection of its own (bdr.internal_fetch_rows), so that they pass through no third process.
 */
#include "bdr.h"
#include "compat.h"

#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

/* their headers need not be installed; what depends on them is not used here */
#undef ENABLE_GSS
#undef USE_OPENSSL
#include "libpq/libpq.h"

PG_FUNCTION_INFO_V1(bdr_internal_table_rows);
PG_FUNCTION_INFO_V1(bdr_internal_fetch_begin);
PG_FUNCTION_INFO_V1(bdr_internal_fetch_rows);

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

		/* a row from before an ADD COLUMN lacks the column, whose value is in the catalog */
		if (HeapTupleHeaderGetNatts(tuple->t_data) < RelationGetDescr(state->relation)->natts)
		{
			HeapTuple	whole = heap_expand_tuple(tuple, RelationGetDescr(state->relation));

			if (free_tuple)
				heap_freetuple(tuple);
			tuple = whole;
			free_tuple = true;
		}
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

static void
RequireInternalSession(FunctionCallInfo fcinfo)
{
	if (!bdr_internal_session)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("function %s is for sessions in which a join copies rows", get_func_name(fcinfo->flinfo->fn_oid))));
}

/* bdr.internal_fetch_begin(snapshot text): connects to the target of this node's join, and sees what the snapshot contains. */
Datum
bdr_internal_fetch_begin(PG_FUNCTION_ARGS)
{
	RequireInternalSession(fcinfo);
	ENGINE_CALL(bdr_engine_fetch_begin(text_to_cstring(PG_GETARG_TEXT_PP(0))));
	PG_RETURN_VOID();
}

/*
 * bdr.internal_fetch_rows(table text, first_block bigint, end_block bigint): fetches rows as above and stores them. From time
 * to time returns how many rows and bytes it were since the last time, which reaches the client at once.
 */
Datum
bdr_internal_fetch_rows(PG_FUNCTION_ARGS)
{
	FuncCallContext *context;
	uint64_t	rows = 0;
	uint64_t	bytes = 0;

	if (SRF_IS_FIRSTCALL())
	{
		RequireInternalSession(fcinfo);
		/* what is open while rows are stored does not outlive an error */
		if (GetCurrentTransactionNestLevel() > 1)
			ereport(ERROR,
					(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION), errmsg("rows can't be copied in a subtransaction")));
		context = SRF_FIRSTCALL_INIT();
		ENGINE_CALL(bdr_engine_fetch_table(text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_INT64(1),
										   PG_GETARG_INT64(2)));
	}
	context = SRF_PERCALL_SETUP();
	/* what waits in the buffer: that COPY begins, or the line of the last call */
	if (whereToSendOutput == DestRemote)
		pq_flush_if_writable();
	ENGINE_CALL(bdr_engine_fetch_next(&rows, &bytes));
	if (rows > 0)
		SRF_RETURN_NEXT(context, PointerGetDatum(cstring_to_text(psprintf(UINT64_FORMAT " " UINT64_FORMAT, rows, bytes))));
	SRF_RETURN_DONE(context);
}
