/*
 * column_timestamps.c: type bdr.column_timestamps, by which conflicts are resolved column by column: its SQL functions, the
 * triggers that keep it, and the merging of two values.
 *
 * What a value means is in Sources/Conflict/ColumnMerge.swift; here it is bytes. Columns are told apart by a hash of their
 * names, as nodes may have them at different places.
 */
#include "bdr.h"
#include "sql_function.h"

#include "access/commit_ts.h"
#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "libpq/pqformat.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#define BYTES(value) (const uint8_t *) VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)

PG_FUNCTION_INFO_V1(bdr_column_timestamps_out);
PG_FUNCTION_INFO_V1(bdr_column_timestamps_create);
PG_FUNCTION_INFO_V1(bdr_column_timestamps_resolve);
PG_FUNCTION_INFO_V1(bdr_column_timestamps_trigger);

static Datum
Checked(Datum value)
{
	bytea	   *bytes = DatumGetByteaPP(value);

	ENGINE_CALL(bdr_engine_columns_check(BYTES(bytes)));
	return PointerGetDatum(bytes);
}

/* In text a value is what a bytea is, in hex: the form for people loses something. */
SQL_FUNCTION(bdr_column_timestamps_in, Checked(DirectFunctionCall1(byteain, PG_GETARG_DATUM(0))));

Datum
bdr_column_timestamps_out(PG_FUNCTION_ARGS)
{
	bytea	   *value = PG_GETARG_BYTEA_PP(0);
	Size		length = VARSIZE_ANY_EXHDR(value);
	char	   *text = palloc(length * 2 + 3);

	text[0] = '\\';
	text[1] = 'x';
	text[2 + hex_encode(VARDATA_ANY(value), length, text + 2)] = '\0';
	PG_RETURN_CSTRING(text);
}

SQL_FUNCTION(bdr_column_timestamps_recv, Checked(DirectFunctionCall1(bytearecv, PG_GETARG_DATUM(0))));
SQL_FUNCTION(bdr_column_timestamps_send, DirectFunctionCall1(byteasend, PG_GETARG_DATUM(0)));

/* bdr.column_timestamps_create(p_source cstring, p_timestamp timestamptz): a value for rows that no node has changed yet. */
Datum
bdr_column_timestamps_create(PG_FUNCTION_ARGS)
{
	const char *source = PG_GETARG_CSTRING(0);
	bytea	   *result = NULL;

	bool		commit = strcmp(source, "commit") == 0;

	if (!commit && strcmp(source, "current") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown source of timestamps \"%s\"", source), errhint("Use 'current' or 'commit'.")));
	ENGINE_CALL(bdr_engine_columns_create(commit, PG_GETARG_TIMESTAMPTZ(1), 0, &result));
	return PointerGetDatum(result);
}

static char *
TextOf(Datum value, bool json)
{
	bytea	   *state = DatumGetByteaPP(value);
	bytea	   *text = NULL;

	ENGINE_CALL(bdr_engine_columns_text(BYTES(state), json, &text));
	return text_to_cstring((struct varlena *) text);
}

SQL_FUNCTION(bdr_column_timestamps_to_text, PointerGetDatum(cstring_to_text(TextOf(PG_GETARG_DATUM(0), false))));
SQL_FUNCTION(bdr_column_timestamps_to_jsonb, DirectFunctionCall1(jsonb_in, CStringGetDatum(TextOf(PG_GETARG_DATUM(0), true))));

bool
bdr_is_column_timestamps(Oid type)
{
	Oid			schema;

	if (type < FirstGenbkiObjectId)
		return false;
	schema = get_namespace_oid(BDR_SCHEMA, true);
	return OidIsValid(schema) &&
		GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum("column_timestamps"), ObjectIdGetDatum(schema)) == type;
}

/* FNV-1a: the same on all machines. */
uint32
bdr_column_hash(const char *name)
{
	uint32		hash = 2166136261u;

	for (; *name; name++)
		hash = (hash ^ (uint8) *name) * 16777619u;
	return hash;
}

/* ---- commit timestamps ---------------------------------------------------------------------------------------- */

/* Commit of the remote transaction that is being applied. */
static TimestampTz received_time;
static uint32 received_node;

int32_t
bdr_host_columns_version(int64_t time, uint32_t node)
{
	received_time = time;
	received_node = node;
	return BDR_OK;
}

/* Whether the commit of who wrote the row has yet to date columns: a flag of the value (ColumnVersions.unresolved). */
static bool
IsUnresolved(const bytea *value)
{
	return VARSIZE_ANY_EXHDR(value) >= 14 && ((const uint8 *) VARDATA_ANY(value))[13] & 0x40;
}

static bytea *
Resolve(bytea *value, bool known, TimestampTz time, uint32 node)
{
	bytea	   *result = NULL;

	ENGINE_CALL(bdr_engine_columns_resolve(BYTES(value), known, time, node, &result));
	return result;
}

/*
 * Of a row that this server has: xmin wrote it. What other nodes wrote is resolved when it is stored, so that this was here. Not
 * known: the commit is older than those that the server keeps.
 */
static bytea *
ResolveByXid(bytea *value, TransactionId xmin, bool *known)
{
	TimestampTz time = 0;
	RepOriginId origin = InvalidRepOriginId;

	*known = track_commit_timestamp && TransactionIdIsNormal(xmin) && TransactionIdGetCommitTsData(xmin, &time, &origin);
	return Resolve(value, *known, time, bdr_local_node_id());
}

/* A value that has been sent, on its way into a table. */
Datum
bdr_column_timestamps_received(Datum value)
{
	bytea	   *state = DatumGetByteaPP(value);

	if (!IsUnresolved(state))
		return value;
	return PointerGetDatum(Resolve(state, true, received_time, received_node));
}

/* The value of a row that is here. */
Datum
bdr_column_timestamps_stored(Datum value, TransactionId xmin)
{
	bytea	   *state = DatumGetByteaPP(value);
	bool		known;

	if (!IsUnresolved(state))
		return value;
	return PointerGetDatum(ResolveByXid(state, xmin, &known));
}

/*
 * bdr.column_timestamps_resolve(bdr.column_timestamps, xid): by the commit of that transaction; the value as it is while that is
 * not committed, or when its commit is forgotten.
 */
Datum
bdr_column_timestamps_resolve(PG_FUNCTION_ARGS)
{
	bytea	   *state = PG_GETARG_BYTEA_PP(0);
	TransactionId xid = PG_GETARG_TRANSACTIONID(1);
	bytea	   *result;
	bool		known;

	if (!IsUnresolved(state))
		PG_RETURN_BYTEA_P(state);
	result = ResolveByXid(state, xid, &known);
	PG_RETURN_BYTEA_P(known ? result : state);
}

/* ---- merging and the triggers --------------------------------------------------------------------------------- */

/* What local and remote value become; later: by column, whether the remote row has the later one. */
Datum
bdr_column_timestamps_merge(Datum local, Datum remote, const uint32 *columns, int n, uint8 *later)
{
	bytea	   *here = DatumGetByteaPP(local);
	bytea	   *sent = DatumGetByteaPP(remote);
	bytea	   *result = NULL;

	ENGINE_CALL(bdr_engine_columns_merge(BYTES(here), BYTES(sent), columns, n, later, &result));
	return PointerGetDatum(result);
}

/*
 * BEFORE INSERT OR UPDATE, for each row: what was written now. It does not fire where changes of other nodes are applied, as
 * these bring their timestamps along.
 */
Datum
bdr_column_timestamps_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	HeapTuple	tuple;
	bytea	   *result = NULL;
	int			column = 0;
	bool		commit;
	bool		isnull;
	Datum		value;
	uint32	   *columns;
	uint16	   *attributes;
	int			n = 0;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!(TRIGGER_FIRED_BY_INSERT(trigger->tg_event) || TRIGGER_FIRED_BY_UPDATE(trigger->tg_event)))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("bdr.column_timestamps_trigger is for BEFORE INSERT OR UPDATE FOR EACH ROW")));
	/* its argument is the source of timestamps */
	commit = trigger->tg_trigger->tgnargs > 0 && strcmp(trigger->tg_trigger->tgargs[0], "commit") == 0;
	desc = RelationGetDescr(trigger->tg_relation);
	tuple = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple : trigger->tg_trigtuple;
	for (int i = 0; i < desc->natts && column == 0; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped && bdr_is_column_timestamps(TupleDescAttr(desc, i)->atttypid))
			column = i + 1;
	}
	if (column == 0)
		return PointerGetDatum(tuple);
	value = (Datum) 0;
	isnull = true;
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		value = heap_getattr(trigger->tg_trigtuple, column, desc, &isnull);
	columns = palloc(sizeof(uint32) * desc->natts);
	attributes = palloc(sizeof(uint16) * desc->natts);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		Datum		before,
					after;
		bool		before_null,
					after_null;

		if (attribute->attisdropped || attribute->attgenerated || i + 1 == column)
			continue;
		if (!isnull)
		{
			before = heap_getattr(trigger->tg_trigtuple, i + 1, desc, &before_null);
			after = heap_getattr(trigger->tg_newtuple, i + 1, desc, &after_null);
			if (before_null == after_null &&
				(before_null || datum_image_eq(before, after, attribute->attbyval, attribute->attlen)))
				continue;
		}
		columns[n] = bdr_column_hash(NameStr(attribute->attname));
		attributes[n++] = (uint16) attribute->attnum;
	}
	if (!isnull)
	{
		bytea	   *state = DatumGetByteaPP(value);
		TransactionId xmin = HeapTupleHeaderGetRawXmin(trigger->tg_trigtuple->t_data);
		bool		known;

		/* what this transaction itself has changed is still to be dated */
		if (IsUnresolved(state) && !TransactionIdIsCurrentTransactionId(xmin))
			state = ResolveByXid(state, xmin, &known);
		ENGINE_CALL(bdr_engine_columns_change(BYTES(state), columns, attributes, n, commit, GetCurrentTimestamp(),
											  bdr_local_node_id(), &result));
	}
	else if (commit)
		ENGINE_CALL(bdr_engine_columns_insert(columns, attributes, n, GetCurrentTimestamp(), bdr_local_node_id(), &result));
	else
		ENGINE_CALL(bdr_engine_columns_create(false, GetCurrentTimestamp(), bdr_local_node_id(), &result));
	value = PointerGetDatum(result);
	isnull = false;
	return PointerGetDatum(heap_modify_tuple_by_cols(tuple, desc, 1, &column, &value, &isnull));
}
