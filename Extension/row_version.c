/*
 * row_version.c: one version of a row, as a certain transaction wrote it.
 *
 * A peer that gets an UPDATE without the values that it left unchanged, and has other ones itself, asks for them here. It
 * names the transaction by its commit time, which its subtransactions share: what is wanted is what that one wrote, be it
 * visible yet or overwritten since. When the version is gone, a later operation has overwritten or deleted the row, and the
 * peer gets that one, too.
 */
#include "bdr.h"
#include "compat.h"
#include "row_stamps.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "compat_executor.h"

PG_FUNCTION_INFO_V1(bdr_internal_row_version);

typedef struct Wanted
{
	int			nkeys;
	Datum	   *names;
	Datum	   *values;
	bool	   *nulls;
	TimestampTz time;
	bool		own;
	int			ncolumns;
	Datum	   *columns;
} Wanted;

/* The value given for a key column, as a value of its type; false when there is none. */
static bool
KeyValue(const Wanted *wanted, const char *column, Oid type, int32 typmod, Datum *value)
{
	for (int i = 0; i < wanted->nkeys; i++)
	{
		char	   *name = TextDatumGetCString(wanted->names[i]);

		if (strcmp(name, column) == 0 && !wanted->nulls[i])
		{
			Oid			function;
			Oid			param;

			getTypeInputInfo(type, &function, &param);
			*value = OidInputFunctionCall(function, TextDatumGetCString(wanted->values[i]), param, typmod);
			return true;
		}
	}
	return false;
}

static Datum
Texts(const Wanted *wanted, TupleTableSlot *slot)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	Datum	   *texts = palloc0(sizeof(Datum) * Max(wanted->ncolumns, 1));
	bool	   *nulls = palloc0(sizeof(bool) * Max(wanted->ncolumns, 1));
	int			dims[1] = {wanted->ncolumns};
	int			bounds[1] = {1};

	slot_getallattrs(slot);
	for (int i = 0; i < wanted->ncolumns; i++)
	{
		char	   *name = TextDatumGetCString(wanted->columns[i]);
		int			a;

		for (a = 0; a < desc->natts; a++)
			if (!TupleDescAttr(desc, a)->attisdropped && strcmp(NameStr(TupleDescAttr(desc, a)->attname), name) == 0)
				break;
		if (a == desc->natts)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN), errmsg("column \"%s\" does not exist any more", name)));
		nulls[i] = slot->tts_isnull[a];
		if (!nulls[i])
		{
			Oid			function;
			bool		varlena;

			getTypeOutputInfo(TupleDescAttr(desc, a)->atttypid, &function, &varlena);
			texts[i] = CStringGetTextDatum(OidOutputFunctionCall(function, slot->tts_values[a]));
		}
	}
	return PointerGetDatum(construct_md_array(texts, nulls, 1, dims, bounds, TEXTOID, -1, false, TYPALIGN_INT));
}

/*
 * The same, of a version that may be dead: what it has in the TOAST table can be gone before it. Then false.
 */
static bool
TextsIfThere(const Wanted *wanted, TupleTableSlot *slot, Datum *result)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool found = true;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		*result = Texts(wanted, slot);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (error->sqlerrcode != ERRCODE_DATA_CORRUPTED)
			ReThrowError(error);
		FreeErrorData(error);
		found = false;
	}
	PG_END_TRY();
	return found;
}

/* Looks in one table; false when the version is not there. */
static bool
LookIn(Relation relation, const Wanted *wanted, Datum *result)
{
	Oid			index_oid = RelationGetReplicaIndex(relation);
	Relation	index;
	ScanKeyData keys[INDEX_MAX_KEYS];
	IndexScanDesc scan;
	TupleTableSlot *slot;
	bool		found = false;
	int			nkeys;

	if (!OidIsValid(index_oid))
		index_oid = bdr_primary_key_index(relation);
	if (!OidIsValid(index_oid))
		return false;
	index = index_open(index_oid, AccessShareLock);
	nkeys = index->rd_rel->relam == BTREE_AM_OID ? index->rd_index->indnkeyatts : 0;
	for (int i = 0; i < nkeys; i++)
	{
		AttrNumber	number = index->rd_index->indkey.values[i];
		Form_pg_attribute attribute;
		Oid			op;
		Datum		value;

		attribute = number > 0 ? TupleDescAttr(RelationGetDescr(relation), number - 1) : NULL;
		op = get_opfamily_member(index->rd_opfamily[i], index->rd_opcintype[i], index->rd_opcintype[i],
								 BTEqualStrategyNumber);
		if (attribute == NULL || !OidIsValid(op) ||
			!KeyValue(wanted, NameStr(attribute->attname), attribute->atttypid, attribute->atttypmod, &value))
		{
			index_close(index, AccessShareLock);
			return false;
		}
		ScanKeyInit(&keys[i], i + 1, BTEqualStrategyNumber, get_opcode(op), value);
		keys[i].sk_collation = index->rd_indcollation[i];
		keys[i].sk_subtype = index->rd_opcintype[i];
	}
	slot = table_slot_create(relation, NULL);
	scan = bdr_index_beginscan(relation, index, SnapshotAny, nkeys);
	index_rescan(scan, keys, nkeys, NULL, 0);
	while (nkeys > 0 && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		bool		free_tuple;
		HeapTuple	tuple = ExecFetchSlotHeapTuple(slot, false, &free_tuple);

		TimestampTz time;
		RepOriginId origin;

		/* the last one of several; of what came here by other replication, if there is nothing else */
		if (!HeapTupleHeaderXminInvalid(tuple->t_data) && bdr_tuple_version(tuple->t_data, &time, &origin) &&
			time == wanted->time && (!wanted->own || origin == InvalidRepOriginId || !found))
			found = TextsIfThere(wanted, slot, result);
		if (free_tuple)
			heap_freetuple(tuple);
		CHECK_FOR_INTERRUPTS();
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	return found;
}

/*
 * bdr.internal_row_version(nspname text, relname text, key_columns text[], key_values text[], commit_time timestamptz,
 * own boolean, columns text[]) RETURNS text[]: values of the columns in the version of the row that was committed at that time,
 * by this node itself if own; NULL when that is gone.
 */
Datum
bdr_internal_row_version(PG_FUNCTION_ARGS)
{
	char	   *schema = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Oid			relid = get_relname_relid(name, get_namespace_oid(schema, false));
	Wanted		wanted = {0};
	Datum		result = (Datum) 0;
	bool		found = false;
	bool	   *column_nulls;
	bool	   *name_nulls;
	int			nvalues;
	List	   *tree;
	ListCell   *cell;

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE), errmsg("relation \"%s.%s\" does not exist", schema, name)));
	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK ||
		check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("permission denied for table %s", name)));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), TEXTOID, -1, false, TYPALIGN_INT, &wanted.names, &name_nulls,
					  &wanted.nkeys);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(3), TEXTOID, -1, false, TYPALIGN_INT, &wanted.values, &wanted.nulls,
					  &nvalues);
	wanted.time = PG_GETARG_TIMESTAMPTZ(4);
	wanted.own = PG_GETARG_BOOL(5);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(6), TEXTOID, -1, false, TYPALIGN_INT, &wanted.columns, &column_nulls,
					  &wanted.ncolumns);
	if (nvalues != wanted.nkeys)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("there must be a value for each key column")));
	for (int i = 0; i < wanted.nkeys; i++)
		if (name_nulls[i])
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("a key column has no name")));
	for (int i = 0; i < wanted.ncolumns; i++)
		if (column_nulls[i])
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("a column has no name")));

	tree = find_all_inheritors(relid, AccessShareLock, NULL);
	foreach(cell, tree)
	{
		Relation	relation = table_open(lfirst_oid(cell), NoLock);

		if (!found && relation->rd_rel->relkind == RELKIND_RELATION &&
			(relation->rd_rel->relispartition || RelationGetRelid(relation) == relid))
			found = LookIn(relation, &wanted, &result);
		table_close(relation, AccessShareLock);
	}
	if (!found)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(result);
}
