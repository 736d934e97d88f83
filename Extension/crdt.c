/*
 * crdt.c: conflict-free types: their SQL functions, and the way of a column's type to the function that merges it.
 *
 * What a state is and what is done with it is in Sources/Conflict/CRDT*.swift. Here arguments and results pass through, as bytes:
 * a value is a varlena that holds the state, and a numeric goes in and out in its own binary format.
 */
#include "bdr.h"
#include "sql_function.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "libpq/pqformat.h"
#include "nodes/bitmapset.h"
#include "parser/scansup.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

enum { GCOUNTER = 1, GSUM = 2, PNCOUNTER = 3, PNSUM = 4 };

/* ---- bytes to and from the engine ----------------------------------------------------------------------------- */

int32_t
bdr_host_crdt_result(void *result, const uint8_t *data, size_t length)
{
	HOST_BEGIN();
	{
		bytea	   *bytes = palloc(VARHDRSZ + length);

		SET_VARSIZE(bytes, VARHDRSZ + length);
		memcpy(VARDATA(bytes), data, length);
		*(bytea **) result = bytes;
	}
	HOST_END();
	return BDR_OK;
}

/* A varlena as two arguments. */
#define BYTES(value) (const uint8_t *) VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)

static Numeric
NumericFromBytes(bytea *bytes)
{
	StringInfoData buffer;

	buffer.data = VARDATA(bytes);
	buffer.len = VARSIZE(bytes) - VARHDRSZ;
	buffer.maxlen = buffer.len;
	buffer.cursor = 0;
	return DatumGetNumeric(DirectFunctionCall3(numeric_recv, PointerGetDatum(&buffer), ObjectIdGetDatum(InvalidOid),
											   Int32GetDatum(-1)));
}

static int64
CounterValue(bytea *state)
{
	int64		value = 0;

	ENGINE_CALL(bdr_engine_crdt_integer(BYTES(state), &value));
	return value;
}

static Numeric
SumValue(bytea *state)
{
	bytea	   *bytes = NULL;

	ENGINE_CALL(bdr_engine_crdt_numeric(BYTES(state), &bytes));
	return NumericFromBytes(bytes);
}

/* ---- input and output ----------------------------------------------------------------------------------------- */

/* A state that is written out; NULL when it is a number. */
static bytea *
StateInput(uint8 type, const char *text)
{
	bytea	   *result = NULL;

	while (scanner_isspace(*text))
		text++;
	if (*text == '{')
		ENGINE_CALL(bdr_engine_crdt_parse(type, (const uint8_t *) text, strlen(text), &result));
	return result;
}

static Datum
CounterInput(uint8 type, const char *text)
{
	bytea	   *result = StateInput(type, text);

	if (result == NULL)
		ENGINE_CALL(bdr_engine_crdt_counter(type, DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(text))), &result));
	return PointerGetDatum(result);
}

static Datum
CounterFromNumeric(uint8 type, Datum numeric)
{
	bytea	   *result = NULL;

	ENGINE_CALL(bdr_engine_crdt_counter(type, DatumGetInt64(DirectFunctionCall1(numeric_int8, numeric)), &result));
	return PointerGetDatum(result);
}

static Datum
SumInput(uint8 type, const char *text)
{
	bytea	   *result = StateInput(type, text);

	if (result == NULL)
	{
		Datum		numeric = DirectFunctionCall3(numeric_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid),
												  Int32GetDatum(-1));
		bytea	   *bytes = DatumGetByteaP(DirectFunctionCall1(numeric_send, numeric));

		ENGINE_CALL(bdr_engine_crdt_sum(type, BYTES(bytes), &result));
	}
	return PointerGetDatum(result);
}

static Datum
Receive(uint8 type, StringInfo buffer)
{
	int			length = buffer->len - buffer->cursor;
	const char *data = pq_getmsgbytes(buffer, length);
	bytea	   *result;

	ENGINE_CALL(bdr_engine_crdt_check(type, (const uint8_t *) data, length));
	result = palloc(VARHDRSZ + length);
	SET_VARSIZE(result, VARHDRSZ + length);
	memcpy(VARDATA(result), data, length);
	return PointerGetDatum(result);
}

PG_FUNCTION_INFO_V1(bdr_crdt_out);
PG_FUNCTION_INFO_V1(bdr_crdt_to_text);

SQL_FUNCTION(bdr_crdt_gcounter_in, CounterInput(GCOUNTER, PG_GETARG_CSTRING(0)));
SQL_FUNCTION(bdr_crdt_gcounter_recv, Receive(GCOUNTER, (StringInfo) PG_GETARG_POINTER(0)));
SQL_FUNCTION(bdr_crdt_gcounter_from_numeric, CounterFromNumeric(GCOUNTER, PG_GETARG_DATUM(0)));
SQL_FUNCTION(bdr_crdt_gsum_in, SumInput(GSUM, PG_GETARG_CSTRING(0)));
SQL_FUNCTION(bdr_crdt_gsum_recv, Receive(GSUM, (StringInfo) PG_GETARG_POINTER(0)));
SQL_FUNCTION(bdr_crdt_pncounter_in, CounterInput(PNCOUNTER, PG_GETARG_CSTRING(0)));
SQL_FUNCTION(bdr_crdt_pncounter_recv, Receive(PNCOUNTER, (StringInfo) PG_GETARG_POINTER(0)));
SQL_FUNCTION(bdr_crdt_pncounter_from_numeric, CounterFromNumeric(PNCOUNTER, PG_GETARG_DATUM(0)));
SQL_FUNCTION(bdr_crdt_pnsum_in, SumInput(PNSUM, PG_GETARG_CSTRING(0)));
SQL_FUNCTION(bdr_crdt_pnsum_recv, Receive(PNSUM, (StringInfo) PG_GETARG_POINTER(0)));

Datum
bdr_crdt_out(PG_FUNCTION_ARGS)
{
	bytea	   *state = PG_GETARG_BYTEA_PP(0);
	bytea	   *result = NULL;

	ENGINE_CALL(bdr_engine_crdt_text(BYTES(state), bdr_crdt_raw_value, &result));
	PG_RETURN_CSTRING(text_to_cstring(result));
}

/* All of it: a client that reads binary has no other way to get it. */
SQL_FUNCTION(bdr_crdt_send, PointerGetDatum(PG_GETARG_BYTEA_P_COPY(0)));

Datum
bdr_crdt_to_text(PG_FUNCTION_ARGS)
{
	bytea	   *state = PG_GETARG_BYTEA_PP(0);
	bytea	   *result = NULL;

	ENGINE_CALL(bdr_engine_crdt_text(BYTES(state), true, &result));
	PG_RETURN_TEXT_P(result);
}

/* ---- reading and changing ------------------------------------------------------------------------------------- */

PG_FUNCTION_INFO_V1(bdr_crdt_reset);

SQL_FUNCTION(bdr_crdt_counter_to_int8, Int64GetDatum(CounterValue(PG_GETARG_BYTEA_PP(0))));
SQL_FUNCTION(bdr_crdt_counter_to_numeric, NumericGetDatum(int64_to_numeric(CounterValue(PG_GETARG_BYTEA_PP(0)))));
SQL_FUNCTION(bdr_crdt_sum_to_numeric, NumericGetDatum(SumValue(PG_GETARG_BYTEA_PP(0))));

static Datum
AddInteger(FunctionCallInfo fcinfo, bool subtract)
{
	bytea	   *state = PG_GETARG_BYTEA_PP(0);
	bytea	   *result = NULL;

	ENGINE_CALL(bdr_engine_crdt_add_integer(BYTES(state), PG_GETARG_INT64(1), bdr_local_node_id(), subtract, &result));
	PG_RETURN_BYTEA_P(result);
}

static Datum
AddNumeric(FunctionCallInfo fcinfo, bool subtract)
{
	bytea	   *state = PG_GETARG_BYTEA_PP(0);
	bytea	   *change = DatumGetByteaP(DirectFunctionCall1(numeric_send, PG_GETARG_DATUM(1)));
	bytea	   *result = NULL;

	ENGINE_CALL(bdr_engine_crdt_add_numeric(BYTES(state), BYTES(change), bdr_local_node_id(), subtract, &result));
	PG_RETURN_BYTEA_P(result);
}

SQL_FUNCTION(bdr_crdt_add_int8, AddInteger(fcinfo, false));
SQL_FUNCTION(bdr_crdt_subtract_int8, AddInteger(fcinfo, true));
SQL_FUNCTION(bdr_crdt_add_numeric, AddNumeric(fcinfo, false));
SQL_FUNCTION(bdr_crdt_subtract_numeric, AddNumeric(fcinfo, true));

Datum
bdr_crdt_reset(PG_FUNCTION_ARGS)
{
	bytea	   *state = PG_GETARG_BYTEA_PP(0);
	bytea	   *result = NULL;

	ENGINE_CALL(bdr_engine_crdt_reset(BYTES(state), &result));
	PG_RETURN_BYTEA_P(result);
}

/* ---- order: by value ------------------------------------------------------------------------------------------ */

static int32
Compare(FunctionCallInfo fcinfo)
{
	bytea	   *left = PG_GETARG_BYTEA_PP(0);
	bytea	   *right = PG_GETARG_BYTEA_PP(1);
	int32		order = 0;

	ENGINE_CALL(bdr_engine_crdt_compare(BYTES(left), BYTES(right), &order));
	/* sorting calls this in one long-lived context */
	PG_FREE_IF_COPY(left, 0);
	PG_FREE_IF_COPY(right, 1);
	return order;
}

PG_FUNCTION_INFO_V1(bdr_crdt_hash);
PG_FUNCTION_INFO_V1(bdr_crdt_hash_extended);

SQL_FUNCTION(bdr_crdt_lt, BoolGetDatum(Compare(fcinfo) < 0));
SQL_FUNCTION(bdr_crdt_le, BoolGetDatum(Compare(fcinfo) <= 0));
SQL_FUNCTION(bdr_crdt_eq, BoolGetDatum(Compare(fcinfo) == 0));
SQL_FUNCTION(bdr_crdt_ne, BoolGetDatum(Compare(fcinfo) != 0));
SQL_FUNCTION(bdr_crdt_ge, BoolGetDatum(Compare(fcinfo) >= 0));
SQL_FUNCTION(bdr_crdt_gt, BoolGetDatum(Compare(fcinfo) > 0));
SQL_FUNCTION(bdr_crdt_cmp, Int32GetDatum(Compare(fcinfo)));

static bytea *
HashKey(FunctionCallInfo fcinfo)
{
	bytea	   *state = PG_GETARG_BYTEA_PP(0);
	bytea	   *key = NULL;

	ENGINE_CALL(bdr_engine_crdt_hash_key(BYTES(state), &key));
	PG_FREE_IF_COPY(state, 0);
	return key;
}

Datum
bdr_crdt_hash(PG_FUNCTION_ARGS)
{
	bytea	   *key = HashKey(fcinfo);
	uint32		hash = hash_bytes((unsigned char *) VARDATA(key), VARSIZE(key) - VARHDRSZ);

	pfree(key);
	PG_RETURN_UINT32(hash);
}

Datum
bdr_crdt_hash_extended(PG_FUNCTION_ARGS)
{
	bytea	   *key = HashKey(fcinfo);
	uint64		hash = hash_bytes_extended((unsigned char *) VARDATA(key), VARSIZE(key) - VARHDRSZ, PG_GETARG_INT64(1));

	pfree(key);
	PG_RETURN_UINT64(hash);
}

/* ---- aggregates: of values, as those of bigint and numeric ---------------------------------------------------- */

PG_FUNCTION_INFO_V1(bdr_crdt_counter_accum);
PG_FUNCTION_INFO_V1(bdr_crdt_sum_accum);

/* The server's own transition function, with the value in place of the state. */
Datum
bdr_crdt_counter_accum(PG_FUNCTION_ARGS)
{
	if (!PG_ARGISNULL(1))
		fcinfo->args[1].value = NumericGetDatum(int64_to_numeric(CounterValue(PG_GETARG_BYTEA_PP(1))));
	return numeric_avg_accum(fcinfo);
}

Datum
bdr_crdt_sum_accum(PG_FUNCTION_ARGS)
{
	if (!PG_ARGISNULL(1))
		fcinfo->args[1].value = NumericGetDatum(SumValue(PG_GETARG_BYTEA_PP(1)));
	return numeric_avg_accum(fcinfo);
}

static Datum
CounterExtreme(FunctionCallInfo fcinfo, bool larger)
{
	int64		value;

	if (PG_ARGISNULL(1))
	{
		if (PG_ARGISNULL(0))
			PG_RETURN_NULL();
		PG_RETURN_INT64(PG_GETARG_INT64(0));
	}
	value = CounterValue(PG_GETARG_BYTEA_PP(1));
	if (!PG_ARGISNULL(0) && (larger ? PG_GETARG_INT64(0) > value : PG_GETARG_INT64(0) < value))
		value = PG_GETARG_INT64(0);
	PG_RETURN_INT64(value);
}

static Datum
SumExtreme(FunctionCallInfo fcinfo, PGFunction choose)
{
	Datum		value;

	if (PG_ARGISNULL(1))
	{
		if (PG_ARGISNULL(0))
			PG_RETURN_NULL();
		PG_RETURN_DATUM(PG_GETARG_DATUM(0));
	}
	value = NumericGetDatum(SumValue(PG_GETARG_BYTEA_PP(1)));
	PG_RETURN_DATUM(PG_ARGISNULL(0) ? value : DirectFunctionCall2(choose, PG_GETARG_DATUM(0), value));
}

SQL_FUNCTION(bdr_crdt_counter_larger, CounterExtreme(fcinfo, true));
SQL_FUNCTION(bdr_crdt_counter_smaller, CounterExtreme(fcinfo, false));
SQL_FUNCTION(bdr_crdt_sum_larger, SumExtreme(fcinfo, numeric_larger));
SQL_FUNCTION(bdr_crdt_sum_smaller, SumExtreme(fcinfo, numeric_smaller));

/* ---- merging: (local, old, new) ------------------------------------------------------------------------------- */

PG_FUNCTION_INFO_V1(bdr_crdt_merge_state);
PG_FUNCTION_INFO_V1(bdr_crdt_merge_delta_counter);
PG_FUNCTION_INFO_V1(bdr_crdt_merge_delta_sum);

/* NULL is less than any state: it gives way to one on either side. */
Datum
bdr_crdt_merge_state(PG_FUNCTION_ARGS)
{
	bytea	   *local = PG_ARGISNULL(0) ? NULL : PG_GETARG_BYTEA_PP(0);
	bytea	   *old = PG_ARGISNULL(1) ? NULL : PG_GETARG_BYTEA_PP(1);
	bytea	   *new = PG_ARGISNULL(2) ? NULL : PG_GETARG_BYTEA_PP(2);
	bytea	   *result = NULL;

	if (local == NULL && new == NULL)
		PG_RETURN_NULL();
	if (local == NULL || new == NULL)
		PG_RETURN_BYTEA_P(local ? local : new);
	ENGINE_CALL(bdr_engine_crdt_merge(BYTES(local), old ? (const uint8_t *) VARDATA_ANY(old) : NULL,
									  old ? VARSIZE_ANY_EXHDR(old) : 0, BYTES(new), &result));
	PG_RETURN_BYTEA_P(result);
}

/*
 * A number that becomes NULL, or was NULL here, is NULL; one that begins to be there counts as increased from 0. True when
 * that settles it, with the result.
 */
static bool
DeltaOfNull(FunctionCallInfo fcinfo, Datum *result)
{
	*result = (Datum) 0;
	if (PG_ARGISNULL(2) || (PG_ARGISNULL(0) && !PG_ARGISNULL(1)))
		fcinfo->isnull = true;
	else if (PG_ARGISNULL(0))
		*result = PG_GETARG_DATUM(2);
	else
		return false;
	return true;
}

Datum
bdr_crdt_merge_delta_counter(PG_FUNCTION_ARGS)
{
	Datum		settled;
	int64		result = 0;

	if (DeltaOfNull(fcinfo, &settled))
		return settled;
	ENGINE_CALL(bdr_engine_crdt_merge_delta(PG_GETARG_INT64(0), PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1),
											PG_GETARG_INT64(2), &result));
	PG_RETURN_INT64(result);
}

Datum
bdr_crdt_merge_delta_sum(PG_FUNCTION_ARGS)
{
	Datum		settled;
	Datum		change;

	if (DeltaOfNull(fcinfo, &settled))
		return settled;
	change = PG_GETARG_DATUM(2);
	if (!PG_ARGISNULL(1))
		change = DirectFunctionCall2(numeric_sub, change, PG_GETARG_DATUM(1));
	return DirectFunctionCall2(numeric_add, PG_GETARG_DATUM(0), change);
}

/* ---- handlers ------------------------------------------------------------------------------------------------- */

typedef struct Handler
{
	Oid			type;			/* hash key */
	bool		found;
	FmgrInfo	merge;
} Handler;

static HTAB *handlers = NULL;
static MemoryContext handlers_context = NULL;
static bool handlers_stale = false;

static void
ForgetHandlers(Datum arg, int cache, uint32 hash)
{
	handlers_stale = true;
}

static void
PrepareHandlers(void)
{
	static bool registered = false;
	HASHCTL		control = {0};

	if (!registered)
	{
		CacheRegisterSyscacheCallback(TYPEOID, ForgetHandlers, (Datum) 0);
		CacheRegisterSyscacheCallback(PROCOID, ForgetHandlers, (Datum) 0);
		registered = true;
	}
	if (handlers_stale && handlers_context)
	{
		handlers = NULL;
		MemoryContextDelete(handlers_context);
		handlers_context = NULL;
	}
	handlers_stale = false;
	if (handlers_context == NULL)
		handlers_context = AllocSetContextCreate(TopMemoryContext, "bdr conflict-free types", ALLOCSET_SMALL_SIZES);
	if (handlers == NULL)
	{
		control.keysize = sizeof(Oid);
		control.entrysize = sizeof(Handler);
		control.hcxt = handlers_context;
		handlers = hash_create("bdr conflict-free types", 16, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
}

/* The merge function of a type as bdr.crdt_handlers shows it, without the view: InvalidOid when there is none. */
static Oid
ReadHandler(Oid type)
{
	BdrCatalogScan scan;
	Oid			result = InvalidOid;

	if (!bdr_catalog_open(&scan, "crdt_handler"))
		return InvalidOid;
	while (!OidIsValid(result) && bdr_catalog_next(&scan))
	{
		Datum		crdt_type;
		Datum		function;

		if (bdr_catalog_column(&scan, "crdt_type_id", REGTYPEOID, &crdt_type) && DatumGetObjectId(crdt_type) == type &&
			bdr_catalog_column(&scan, "merge_function", TEXTOID, &function))
			result = DatumGetObjectId(DirectFunctionCall1(regprocedurein, CStringGetDatum(TextDatumGetCString(function))));
	}
	bdr_catalog_close(&scan);
	if (OidIsValid(result) && get_func_nargs(result) != 3)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("merge function %s of type %s must have three arguments", format_procedure(result),
						format_type_be(type))));
	return result;
}

static Handler *
FindHandler(Oid type)
{
	Handler    *handler;
	Handler		made = {0};
	Oid			function = InvalidOid;
	Oid			base = type;

	/* those that come with the server are none */
	if (type < FirstGenbkiObjectId)
		return NULL;
	if (handlers && !handlers_stale && (handler = hash_search(handlers, &type, HASH_FIND, NULL)) != NULL)
		return handler->found ? handler : NULL;

	PrepareHandlers();
	while (OidIsValid(base) && !OidIsValid(function))
	{
		HeapTuple	tuple;

		function = ReadHandler(base);
		if (OidIsValid(function))
			break;
		tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(base));
		if (!HeapTupleIsValid(tuple))
			break;
		base = ((Form_pg_type) GETSTRUCT(tuple))->typtype == TYPTYPE_DOMAIN
			? ((Form_pg_type) GETSTRUCT(tuple))->typbasetype : InvalidOid;
		ReleaseSysCache(tuple);
	}
	if (OidIsValid(function))
	{
		fmgr_info_cxt(function, &made.merge, handlers_context);
		made.found = true;
	}
	/* an entry that is there is whole: nothing from here on raises but for want of memory */
	handler = hash_search(handlers, &type, HASH_ENTER, NULL);
	handler->found = made.found;
	handler->merge = made.merge;
	return handler->found ? handler : NULL;
}

bool
bdr_is_crdt(Oid type)
{
	return FindHandler(type) != NULL;
}

Bitmapset *
bdr_crdt_columns(Relation relation)
{
	TupleDesc	descriptor = RelationGetDescr(relation);
	Bitmapset  *columns = NULL;

	for (int i = 0; i < descriptor->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(descriptor, i);

		if (!attribute->attisdropped && FindHandler(attribute->atttypid))
			columns = bms_add_member(columns, attribute->attnum);
	}
	return columns;
}

bool
bdr_relation_has_crdt(Relation relation)
{
	Bitmapset  *columns = bdr_crdt_columns(relation);
	bool		result = columns != NULL;

	bms_free(columns);
	return result;
}

NullableDatum
bdr_crdt_merge(Oid type, NullableDatum local, NullableDatum old, NullableDatum new)
{
	Handler    *handler = FindHandler(type);
	NullableDatum result;

	LOCAL_FCINFO(fcinfo, 3);

	if (handler == NULL)
		elog(ERROR, "type %s has no merge function", format_type_be(type));
	InitFunctionCallInfoData(*fcinfo, &handler->merge, 3, InvalidOid, NULL, NULL);
	fcinfo->args[0] = local;
	fcinfo->args[1] = old;
	fcinfo->args[2] = new;
	result.value = FunctionCallInvoke(fcinfo);
	result.isnull = fcinfo->isnull;
	return result;
}

/* The same for SQL: tests reach bdr_crdt_merge through it, with any type of column. */
PG_FUNCTION_INFO_V1(bdr_internal_crdt_merge);

Datum
bdr_internal_crdt_merge(PG_FUNCTION_ARGS)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 0);
	NullableDatum result;

	if (!bdr_is_crdt(type))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("type %s is not merged", format_type_be(type))));
	result = bdr_crdt_merge(type, fcinfo->args[0], fcinfo->args[1], fcinfo->args[2]);
	fcinfo->isnull = result.isnull;
	return result.value;
}
