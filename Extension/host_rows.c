/*
 * host_rows.c: makes rows out of what the peer sent, with defaults for columns that only this node has.
 */
#include "host_executor.h"
#include "utils/syscache.h"
#include "utils/fmgroids.h"
#include "catalog/pg_constraint.h"
#include "access/table.h"
#include "access/genam.h"
#include "sequences.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

/* ---- functions of types --------------------------------------------------------------------------------------- */

/* Whether there may be values of a domain that one of its constraints does not hold for. */
static bool
HasNotValid(Oid domain)
{
	Relation	constraints = table_open(ConstraintRelationId, AccessShareLock);
	bool		found = false;

	while (!found && get_typtype(domain) == TYPTYPE_DOMAIN)
	{
		ScanKeyData key;
		SysScanDesc scan;
		HeapTuple	tuple;

		ScanKeyInit(&key, Anum_pg_constraint_contypid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(domain));
		scan = systable_beginscan(constraints, ConstraintTypidIndexId, true, NULL, 1, &key);
		while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
			found = !((Form_pg_constraint) GETSTRUCT(tuple))->convalidated;
		systable_endscan(scan);
		tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(domain));
		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for type %u", domain);
		domain = ((Form_pg_type) GETSTRUCT(tuple))->typbasetype;
		ReleaseSysCache(tuple);
	}
	table_close(constraints, AccessShareLock);
	return found;
}

/*
 * The type whose functions read the values of a column. With a constraint that is NOT VALID a row may hold a value that its domain
 * would refuse; it was looked at where the value was written, and is taken as it is.
 */
static Oid
InputType(ColumnMap *map)
{
	if (get_typtype(map->type) != TYPTYPE_DOMAIN || !HasNotValid(map->type))
		return map->type;
	return getBaseTypeAndTypmod(map->type, &map->typmod);
}

static void
PrepareColumn(BdrRel *rel, ColumnMap *map)
{
	MemoryContext old = MemoryContextSwitchTo(rel->map_context);
	Oid			function;

	getTypeInputInfo(InputType(map), &function, &map->input_param);
	fmgr_info(function, &map->input);
	map->functions_ready = true;
	MemoryContextSwitchTo(old);
}

/*
 * The function that reads what the type's send function has written. Types of the server's catalogs are sent, but their own
 * functions take nothing in, lest a user makes a value; but a table can hold them (CREATE TABLE x AS SELECT * FROM pg_class), and a
 * peer has them from its catalogs. They are sent, and kept, as text or bytea is.
 */
void
bdr_binary_input(Oid type, Oid *function, Oid *parameter)
{
	getTypeBinaryInputInfo(type, function, parameter);
	switch (*function)
	{
		case F_PG_NODE_TREE_RECV:
			*function = F_TEXTRECV;
			break;
		case F_PG_NDISTINCT_RECV:
		case F_PG_DEPENDENCIES_RECV:
		case F_PG_MCV_LIST_RECV:
		case F_BRIN_BLOOM_SUMMARY_RECV:
		case F_BRIN_MINMAX_MULTI_SUMMARY_RECV:
			*function = F_BYTEARECV;
			break;
		default:
			break;
	}
}

static void
PrepareReceive(BdrRel *rel, ColumnMap *map)
{
	if (map->receive.fn_oid == InvalidOid)
	{
		MemoryContext old = MemoryContextSwitchTo(rel->map_context);
		Oid			function;

		bdr_binary_input(InputType(map), &function, &map->receive_param);
		fmgr_info(function, &map->receive);
		MemoryContextSwitchTo(old);
	}
}

static void
PrepareRemote(BdrRel *rel, ColumnMap *map, Oid type)
{
	if (!map->remote_ready)
	{
		MemoryContext old = MemoryContextSwitchTo(rel->map_context);
		Oid			function;
		bool		varlena;

		getTypeOutputInfo(type, &function, &varlena);
		fmgr_info(function, &map->remote_output);
		bdr_binary_input(type, &function, &map->remote_param);
		fmgr_info(function, &map->remote_receive);
		map->remote_ready = true;
		MemoryContextSwitchTo(old);
	}
}

/* ---- raw rows ------------------------------------------------------------------------------------------------- */

/* A heap tuple around a raw area; the area was validated against the described layout. */
HeapTuple
bdr_make_raw_tuple(const BdrRow *row)
{
	Size		bitmap = row->has_nulls ? BITMAPLEN(row->attributes) : 0;
	Size		hoff = MAXALIGN(SizeofHeapTupleHeader + bitmap);
	Size		length = hoff + row->data_length;
	HeapTuple	tuple = palloc(HEAPTUPLESIZE + length);
	HeapTupleHeader header = (HeapTupleHeader) ((char *) tuple + HEAPTUPLESIZE);

	tuple->t_len = length;
	ItemPointerSetInvalid(&tuple->t_self);
	tuple->t_tableOid = InvalidOid;
	tuple->t_data = header;
	memset(header, 0, hoff);
	HeapTupleHeaderSetNatts(header, row->attributes);
	header->t_hoff = hoff;
	ItemPointerSetInvalid(&header->t_ctid);
	if (row->has_nulls)
	{
		header->t_infomask |= HEAP_HASNULL;
		memcpy(header->t_bits, row->bitmap, bitmap);
	}
	if (row->has_varwidth)
		header->t_infomask |= HEAP_HASVARWIDTH;
	memcpy((char *) header + hoff, row->data, row->data_length);
	return tuple;
}

/* As RawLayout.isNumeric does for values that are not compressed. */
static bool
IsNumeric(const char *payload, Size length)
{
	uint16		header;
	Size		offset;

	if (length < sizeof(header) || length % 2 != 0)
		return false;
	memcpy(&header, payload, sizeof(header));
	if ((header & 0xC000) == 0xC000)
		return length == sizeof(header) && (header == 0xC000 || header == 0xD000 || header == 0xF000);
	offset = (header & 0xC000) == 0x8000 ? 2 : 4;
	if (length < offset)
		return false;
	for (; offset < length; offset += 2)
	{
		int16		digit;

		memcpy(&digit, payload + offset, sizeof(digit));
		if (digit < 0 || digit >= 10000)
			return false;
	}
	return true;
}

/* Looks into compressed values: bounds were checked, but what they hold was not. */
void
bdr_deep_check(BdrRel *rel, TupleDesc desc, Datum *values, bool *nulls)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (attribute->attlen == -1 && !nulls[i] && VARATT_IS_COMPRESSED(DatumGetPointer(values[i])))
		{
			struct varlena *plain = PG_DETOAST_DATUM(values[i]);

			if (attribute->atttypid == TEXTOID || attribute->atttypid == VARCHAROID || attribute->atttypid == BPCHAROID)
				(void) pg_verifymbstr(VARDATA_ANY(plain), VARSIZE_ANY_EXHDR(plain), false);
			else if (attribute->atttypid == NUMERICOID && !IsNumeric(VARDATA_ANY(plain), VARSIZE_ANY_EXHDR(plain)))
				ereport(ERROR,
						(errcode(ERRCODE_PROTOCOL_VIOLATION),
						 errmsg("malformed compressed numeric value in a raw row of \"%s.%s\"", rel->namespace_name, rel->name)));
			pfree(plain);
		}
	}
}

void
bdr_raw_row_values(BdrRel *rel, const BdrRow *row, Datum *values, bool *nulls)
{
	CheckRowShape(rel, row);
	heap_deform_tuple(bdr_make_raw_tuple(row), rel->raw_desc, values, nulls);
	if (row->deep_check)
		bdr_deep_check(rel, rel->raw_desc, values, nulls);
}

/* ---- values --------------------------------------------------------------------------------------------------- */

/* Through text, for a column whose type differs here. */
static Datum
ConvertDatum(BdrRel *rel, ColumnMap *map, BdrColumnDesc *column, Datum value)
{
	PrepareRemote(rel, map, column->builtin_type);
	return InputFunctionCall(&map->input, OutputFunctionCall(&map->remote_output, value), map->input_param,
							 map->typmod);
}

static Datum
ReceiveDatum(FmgrInfo *function, const BdrValue *value, Oid param, int32 typmod, BdrColumnDesc *column)
{
	StringInfoData buffer;
	Datum		result;

	/* the wire put a NUL behind the value, as receive functions may expect */
	buffer.data = (char *) value->data;
	buffer.len = value->length;
	buffer.maxlen = value->length + 1;
	buffer.cursor = 0;
	result = ReceiveFunctionCall(function, &buffer, param, typmod);
	if (buffer.cursor != buffer.len)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("incorrect binary data format in column \"%s\"", column->name)));
	return result;
}

static void
MissingColumn(BdrRel *rel, BdrColumnDesc *column)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of table \"%s.%s\" does not exist on this node, and the peer sent a value for it",
					column->name, rel->namespace_name, rel->name),
			 errhint("Add the column here, for example with ALTER TABLE %s ADD COLUMN %s %s; replication then goes on by itself.",
					 quote_qualified_identifier(rel->namespace_name, rel->name), quote_identifier(column->name),
					 column->type_name)));
}

/*
 * Puts the sent values into a slot of the target's (root's) columns. provided[a] tells which attributes were sent; others
 * are left as they are. Memory: current context.
 */
void
bdr_store_values(Target *target, const BdrRow *row, Datum *values, bool *nulls, bool *provided)
{
	BdrRel	   *rel = target->rel;
	Datum	   *raw_values = NULL;
	bool	   *raw_nulls = NULL;

	if (row->kept)
	{
		bdr_kept_values(row->kept, RelationGetDescr(target->relation)->natts, values, nulls, provided);
		return;
	}
	CheckRowShape(rel, row);
	if (row->values == NULL)
	{
		HeapTuple	tuple = bdr_make_raw_tuple(row);

		raw_values = palloc(sizeof(Datum) * Max(rel->ncolumns, 1));
		raw_nulls = palloc(sizeof(bool) * Max(rel->ncolumns, 1));
		heap_deform_tuple(tuple, rel->raw_desc, raw_values, raw_nulls);
		if (row->deep_check)
			bdr_deep_check(rel, rel->raw_desc, raw_values, raw_nulls);
	}
	for (int i = 0; i < rel->ncolumns; i++)
	{
		ColumnMap  *map = &rel->map[i];
		BdrColumnDesc *column = &rel->columns[i];
		int			a = map->attribute;
		uint8		kind = row->values ? row->values[i].kind : (raw_nulls[i] ? BDR_VALUE_NULL : 0);

		if (map->missing && !rel->leaves_out && kind != BDR_VALUE_NULL && kind != BDR_VALUE_UNCHANGED && kind != BDR_VALUE_UNCHANGED_BY)
			MissingColumn(rel, column);
		if (a < 0 || (kind == BDR_VALUE_UNCHANGED || kind == BDR_VALUE_UNCHANGED_BY))
			continue;
		provided[a] = true;
		if (kind == BDR_VALUE_NULL)
		{
			nulls[a] = true;
			values[a] = (Datum) 0;
			/* a domain may refuse NULL */
			if (get_typtype(map->type) == TYPTYPE_DOMAIN)
			{
				if (!map->functions_ready)
					PrepareColumn(rel, map);
				(void) InputFunctionCall(&map->input, NULL, map->input_param, map->typmod);
			}
			continue;
		}
		nulls[a] = false;
		if (!map->functions_ready)
			PrepareColumn(rel, map);
		if (kind == BDR_VALUE_TEXT)
			values[a] = InputFunctionCall(&map->input, (char *) row->values[i].data, map->input_param, map->typmod);
		else if (kind == BDR_VALUE_BINARY)
		{
			if (column->builtin_type == 0 || column->builtin_type == map->type)
			{
				PrepareReceive(rel, map);
				values[a] = ReceiveDatum(&map->receive, &row->values[i], map->receive_param, map->typmod, column);
			}
			else
			{
				PrepareRemote(rel, map, column->builtin_type);
				values[a] = ConvertDatum(rel, map, column,
										 ReceiveDatum(&map->remote_receive, &row->values[i], map->remote_param, -1,
													  column));
			}
		}
		else
		{
			if (map->same_type)
				values[a] = raw_values[i];
			else
				values[a] = ConvertDatum(rel, map, column, raw_values[i]);
		}
		if (map->timestamps)
			values[a] = bdr_column_timestamps_received(values[a]);
	}
}

/* Into a virtual slot of the root's columns; what was not sent is NULL. Returns which of them were. */
bool *
bdr_store_row(Target *target, const BdrRow *row, TupleTableSlot *slot)
{
	int			natts = slot->tts_tupleDescriptor->natts;
	bool	   *provided = palloc0(sizeof(bool) * Max(natts, 1));

	ExecClearTuple(slot);
	memset(slot->tts_values, 0, sizeof(Datum) * natts);
	memset(slot->tts_isnull, true, sizeof(bool) * natts);
	bdr_store_values(target, row, slot->tts_values, slot->tts_isnull, provided);
	return provided;
}

/* ---- defaults ------------------------------------------------------------------------------------------------- */

/* Default expressions of the local columns that the peer does not have. */
void
bdr_prepare_defaults(Target *target)
{
	TupleDesc	desc = RelationGetDescr(target->relation);
	BdrRel	   *rel = target->rel;

	target->default_attributes = palloc(sizeof(int) * Max(desc->natts, 1));
	target->defaults = palloc(sizeof(ExprState *) * Max(desc->natts, 1));
	for (int a = 0; a < desc->natts; a++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, a);
		bool		mapped = false;
		Expr	   *expression;

		if (attribute->attisdropped || attribute->attgenerated)
			continue;
		for (int i = 0; i < rel->ncolumns && !mapped; i++)
			mapped = rel->map[i].attribute == a;
		if (mapped)
			continue;
		expression = (Expr *) build_column_default(target->relation, a + 1);
		if (expression != NULL)
		{
			expression = bdr_sequence_default(expression_planner(expression));
			target->defaults[target->ndefaults] = ExecInitExpr(expression, NULL);
			target->default_attributes[target->ndefaults] = a;
			target->ndefaults++;
		}
	}
}

/* In the per-tuple memory of the target. */
static void
FillDefaults(Target *target, Datum *values, bool *nulls, const bool *provided)
{
	ExprContext *econtext = target->ndefaults > 0 ? GetPerTupleExprContext(target->estate) : NULL;

	for (int i = 0; i < target->ndefaults; i++)
	{
		int			a = target->default_attributes[i];

		if (!provided[a])
			values[a] = ExecEvalExpr(target->defaults[i], econtext, &nulls[a]);
	}
}

/* ---- rows ----------------------------------------------------------------------------------------------------- */

/* A full row for an insert, in the root's columns. */
TupleTableSlot *
bdr_build_insert_row(Target *target, const BdrRow *row)
{
	TupleTableSlot *slot;
	TupleDesc	desc = RelationGetDescr(target->relation);
	MemoryContext old = MemoryContextSwitchTo(target->row_context);
	bool	   *provided;

	if (row->values == NULL && row->kept == NULL && target->rel->info.same_layout)
	{
		CheckRowShape(target->rel, row);
		slot = target->raw;
		ExecClearTuple(slot);
		ExecStoreHeapTuple(bdr_make_raw_tuple(row), slot, false);
		if (row->deep_check)
		{
			slot_getallattrs(slot);
			bdr_deep_check(target->rel, desc, slot->tts_values, slot->tts_isnull);
		}
		MemoryContextSwitchTo(old);
		return slot;
	}
	slot = target->row;
	provided = bdr_store_row(target, row, slot);
	if (!row->probe)
		FillDefaults(target, slot->tts_values, slot->tts_isnull, provided);
	if (target->rel->info.merges && row->pending && row->old)
		bdr_keep_what_was_added(target, row->old, slot);
	ExecStoreVirtualTuple(slot);
	MemoryContextSwitchTo(old);
	return slot;
}

void
bdr_rel_row_values(BdrRel *rel, const BdrRow *row, BdrRowPart part, Datum *values, bool *nulls, bool *provided)
{
	Target	   *target = UseTarget(rel);
	TupleDesc	desc = RelationGetDescr(target->relation);

	bdr_store_values(target, row, values, nulls, provided);
	if (part == BDR_ROW_KEY && rel->replica_identity != REPLICA_IDENTITY_FULL)
	{
		for (int i = 0; i < rel->ncolumns; i++)
		{
			int			a = rel->map[i].attribute;

			if (a < 0 || rel->columns[i].key)
				continue;
			provided[a] = false;
			nulls[a] = true;
			values[a] = (Datum) 0;
		}
	}
	if (part == BDR_ROW_WITH_DEFAULTS && target->ndefaults > 0)
	{
		FillDefaults(target, values, nulls, provided);
		for (int i = 0; i < target->ndefaults; i++)
		{
			int			a = target->default_attributes[i];
			Form_pg_attribute attribute = TupleDescAttr(desc, a);

			if (!provided[a] && !nulls[a])
				values[a] = datumCopy(values[a], attribute->attbyval, attribute->attlen);
			provided[a] = true;
		}
	}
}

bool
bdr_rel_kept_value(BdrRel *rel, const BdrKept *kept, int column, Oid *type, int16 *length, Datum *value, bool *null)
{
	TupleDesc	desc = RelationGetDescr(rel->target->relation);
	int			a = rel->map[column].attribute;
	Datum	   *values;
	bool	   *nulls;
	bool	   *provided;

	if (a < 0)
		return false;
	values = palloc(sizeof(Datum) * desc->natts);
	nulls = palloc(sizeof(bool) * desc->natts);
	provided = palloc0(sizeof(bool) * desc->natts);
	bdr_kept_values(kept, desc->natts, values, nulls, provided);
	if (!provided[a])
		return false;
	*type = TupleDescAttr(desc, a)->atttypid;
	*length = TupleDescAttr(desc, a)->attlen;
	*value = values[a];
	*null = nulls[a];
	return true;
}
