/*
 * fkey_triggers.c: bdr.ri_fkey_trigger() and bdr.ri_fkey_on_del_trigger(), ordinary triggers that keep foreign keys whole where
 * the server does not: changes of other nodes are applied without looking at them, as the other rows may have gone meanwhile.
 *
 * The foreign keys are those of the table, so there is nothing to configure. What refers to a row that is not there is set to
 * NULL: of a foreign key whose parts may be NULL one by one (MATCH SIMPLE) the columns that can be, and only those that ON DELETE
 * SET NULL names if it names any.
 *
 * As with the server's own checks, the other table is read, or written, as its owner.
 */
#include "bdr.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(bdr_ri_fkey_trigger);
PG_FUNCTION_INFO_V1(bdr_ri_fkey_on_del_trigger);

/* One foreign key. */
typedef struct ForeignKey
{
	Oid			referencing;
	Oid			referenced;
	char		match;
	int			n;
	AttrNumber	keys[INDEX_MAX_KEYS];		/* of the referencing table */
	AttrNumber	referred[INDEX_MAX_KEYS];	/* of the referenced one */
	Oid			operators[INDEX_MAX_KEYS];	/* referenced = referencing */
	int			nset;			/* columns of ON DELETE SET NULL (...) */
	AttrNumber	set[INDEX_MAX_KEYS];
} ForeignKey;

/* ---- what the catalog says ------------------------------------------------------------------------------------ */

/* False when the constraint is none that counts: that of a partition of the referenced table only repeats another one. */
static bool
ReadForeignKey(Oid constraint, bool skip_repeated, ForeignKey *key)
{
	HeapTuple	tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
	Form_pg_constraint form;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_constraint) GETSTRUCT(tuple);
	if (form->contype != CONSTRAINT_FOREIGN
#if PG_VERSION_NUM >= 180000
		/* a period is not there or gone as a row is */
		|| form->conperiod || !form->conenforced
#endif
		)
	{
		ReleaseSysCache(tuple);
		return false;
	}
	if (skip_repeated && OidIsValid(form->conparentid))
	{
		HeapTuple	parent = SearchSysCache1(CONSTROID, ObjectIdGetDatum(form->conparentid));
		bool		repeats = HeapTupleIsValid(parent) &&
			((Form_pg_constraint) GETSTRUCT(parent))->conrelid == form->conrelid;

		if (HeapTupleIsValid(parent))
			ReleaseSysCache(parent);
		if (repeats)
		{
			ReleaseSysCache(tuple);
			return false;
		}
	}
	memset(key, 0, sizeof(*key));
	key->referencing = form->conrelid;
	key->referenced = form->confrelid;
	key->match = form->confmatchtype;
	DeconstructFkConstraintRow(tuple, &key->n, key->keys, key->referred, key->operators, NULL, NULL, &key->nset, key->set);
	ReleaseSysCache(tuple);
	return true;
}

/* Which columns of the referencing table become NULL; returns how many. */
static int
ColumnsToClear(Relation referencing, const ForeignKey *key, AttrNumber *columns)
{
	int			n = 0;

	if (key->match == FKCONSTR_MATCH_FULL)
	{
		memcpy(columns, key->keys, key->n * sizeof(AttrNumber));
		return key->n;
	}
	for (int i = 0; i < (key->nset > 0 ? key->nset : key->n); i++)
	{
		AttrNumber	column = key->nset > 0 ? key->set[i] : key->keys[i];

		if (!TupleDescAttr(RelationGetDescr(referencing), column - 1)->attnotnull)
			columns[n++] = column;
	}
	if (n == 0)
	{
		/* the server refuses it then, and says which column */
		memcpy(columns, key->keys, key->n * sizeof(AttrNumber));
		n = key->n;
	}
	return n;
}

/* ---- queries as the owner of a table -------------------------------------------------------------------------- */

static void
AppendTable(StringInfo buffer, Relation relation)
{
	if (relation->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		appendStringInfoString(buffer, "ONLY ");
	appendStringInfo(buffer, "%s.%s", quote_identifier(get_namespace_name(RelationGetNamespace(relation))),
					 quote_identifier(RelationGetRelationName(relation)));
}

static const char *
ColumnName(Relation relation, AttrNumber column)
{
	return quote_identifier(NameStr(TupleDescAttr(RelationGetDescr(relation), column - 1)->attname));
}

static Oid
ColumnType(Relation relation, AttrNumber column)
{
	return TupleDescAttr(RelationGetDescr(relation), column - 1)->atttypid;
}

/* Runs a statement with the rights of a table's owner; returns how many rows it was about. */
static uint64
RunAsOwnerOf(Relation relation, const char *sql, int n, Oid *types, Datum *values)
{
	Oid			user;
	int			security;
	int			rc;
	uint64		processed;

	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(RelationGetForm(relation)->relowner,
						   security | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	rc = SPI_execute_with_args(sql, n, types, values, NULL, false, 0);
	if (rc < 0)
		elog(ERROR, "SPI failed: %s", SPI_result_code_string(rc));
	processed = SPI_processed;
	SPI_finish();
	SetUserIdAndSecContext(user, security);
	return processed;
}

/* Whether a row is there that has these values; it is held until the transaction ends, as the server does it. */
static bool
IsReferred(Relation referencing, const ForeignKey *key, Datum *values)
{
	Relation	referenced = table_open(key->referenced, RowShareLock);
	StringInfoData sql;
	Oid			types[INDEX_MAX_KEYS];
	bool		found;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT 1 FROM ");
	AppendTable(&sql, referenced);
	appendStringInfoString(&sql, " x");
	for (int i = 0; i < key->n; i++)
	{
		char		parameter[16];

		types[i] = ColumnType(referencing, key->keys[i]);
		snprintf(parameter, sizeof(parameter), "$%d", i + 1);
		appendStringInfoString(&sql, i == 0 ? " WHERE " : " AND ");
		generate_operator_clause(&sql, ColumnName(referenced, key->referred[i]), ColumnType(referenced, key->referred[i]),
								 key->operators[i], parameter, types[i]);
	}
	appendStringInfoString(&sql, " FOR KEY SHARE OF x");
	found = RunAsOwnerOf(referenced, sql.data, key->n, types, values) > 0;
	table_close(referenced, NoLock);
	return found;
}

/* ---- the triggers --------------------------------------------------------------------------------------------- */

static TriggerData *
RequireTrigger(FunctionCallInfo fcinfo, const char *name, bool is_delete)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED), errmsg("function \"%s\" was not called by a trigger", name)));
	if (!TRIGGER_FIRED_BEFORE(data->tg_event) || !TRIGGER_FIRED_FOR_ROW(data->tg_event) ||
		(is_delete ? !TRIGGER_FIRED_BY_DELETE(data->tg_event) :
		 !TRIGGER_FIRED_BY_INSERT(data->tg_event) && !TRIGGER_FIRED_BY_UPDATE(data->tg_event)))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired %s for each row", name,
						is_delete ? "before DELETE" : "before INSERT or UPDATE"),
				 errhint("Use CREATE TRIGGER … BEFORE %s ON … FOR EACH ROW EXECUTE FUNCTION bdr.%s(), then ALTER TABLE … ENABLE REPLICA TRIGGER ….",
						 is_delete ? "DELETE" : "INSERT OR UPDATE", name)));
	return data;
}

/* Whether the new row itself is the one that it refers to. */
static bool
RefersToItself(Relation relation, const ForeignKey *key, HeapTuple tuple, Datum *values)
{
	bool		same = key->referenced == RelationGetRelid(relation);
	Relation	referenced;
	bool		result = true;

	if (!same && relation->rd_rel->relispartition)
	{
		List	   *ancestors = get_partition_ancestors(RelationGetRelid(relation));

		same = list_member_oid(ancestors, key->referenced);
		list_free(ancestors);
	}
	if (!same)
		return false;
	referenced = table_open(key->referenced, AccessShareLock);
	for (int i = 0; i < key->n && result; i++)
	{
		AttrNumber	column = key->referred[i];
		bool		isnull = true;
		Datum		value = 0;

		if (key->referenced != RelationGetRelid(relation))
			column = get_attnum(RelationGetRelid(relation),
								NameStr(TupleDescAttr(RelationGetDescr(referenced), column - 1)->attname));
		if (column > 0)
			value = heap_getattr(tuple, column, RelationGetDescr(relation), &isnull);
		result = !isnull && ColumnType(relation, column) == ColumnType(relation, key->keys[i]) &&
			DatumGetBool(OidFunctionCall2Coll(get_opcode(key->operators[i]),
											  TupleDescAttr(RelationGetDescr(relation), column - 1)->attcollation, value,
											  values[i]));
	}
	table_close(referenced, AccessShareLock);
	return result;
}

Datum
bdr_ri_fkey_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *data = RequireTrigger(fcinfo, "ri_fkey_trigger", false);
	Relation	relation = data->tg_relation;
	HeapTuple	tuple = TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newtuple : data->tg_trigtuple;
	List	   *constraints = NIL;
	ListCell   *cell;

	foreach(cell, RelationGetFKeyList(relation))
		constraints = lappend_oid(constraints, ((ForeignKeyCacheInfo *) lfirst(cell))->conoid);
	foreach(cell, constraints)
	{
		ForeignKey	key;
		Datum		values[INDEX_MAX_KEYS];
		AttrNumber	columns[INDEX_MAX_KEYS];
		Datum		cleared[INDEX_MAX_KEYS] = {0};
		bool		nulls[INDEX_MAX_KEYS];
		int			numbers[INDEX_MAX_KEYS];
		int			nnulls = 0;
		int			n;

		if (!ReadForeignKey(lfirst_oid(cell), true, &key))
			continue;
		for (int i = 0; i < key.n; i++)
		{
			bool		isnull;

			values[i] = heap_getattr(tuple, key.keys[i], RelationGetDescr(relation), &isnull);
			nnulls += isnull ? 1 : 0;
		}
		if (nnulls == key.n || (nnulls > 0 && key.match != FKCONSTR_MATCH_FULL))
			continue;
		if (nnulls == 0 && (RefersToItself(relation, &key, tuple, values) || IsReferred(relation, &key, values)))
			continue;
		n = ColumnsToClear(relation, &key, columns);
		for (int i = 0; i < n; i++)
		{
			numbers[i] = columns[i];
			nulls[i] = true;
		}
		/* the next foreign key may have columns in common */
		tuple = heap_modify_tuple_by_cols(tuple, RelationGetDescr(relation), n, numbers, cleared, nulls);
	}
	return PointerGetDatum(tuple);
}

/* Sets to NULL what refers to a row by one foreign key. */
static void
ClearReferences(Relation relation, HeapTuple tuple, const ForeignKey *key)
{
	Relation	referencing;
	StringInfoData sql;
	AttrNumber	columns[INDEX_MAX_KEYS];
	Datum		values[INDEX_MAX_KEYS + 2];
	Oid			types[INDEX_MAX_KEYS + 2];
	int			n;

	for (int i = 0; i < key->n; i++)
	{
		bool		isnull;

		values[i] = heap_getattr(tuple, key->referred[i], RelationGetDescr(relation), &isnull);
		types[i] = ColumnType(relation, key->referred[i]);
		/* nothing can refer to it */
		if (isnull)
			return;
	}
	referencing = table_open(key->referencing, RowExclusiveLock);
	initStringInfo(&sql);
	appendStringInfoString(&sql, "UPDATE ");
	AppendTable(&sql, referencing);
	appendStringInfoString(&sql, " SET ");
	n = ColumnsToClear(referencing, key, columns);
	for (int i = 0; i < n; i++)
		appendStringInfo(&sql, "%s%s = NULL", i == 0 ? "" : ", ", ColumnName(referencing, columns[i]));
	for (int i = 0; i < key->n; i++)
	{
		char		parameter[16];

		snprintf(parameter, sizeof(parameter), "$%d", i + 1);
		appendStringInfoString(&sql, i == 0 ? " WHERE " : " AND ");
		generate_operator_clause(&sql, parameter, types[i], key->operators[i], ColumnName(referencing, key->keys[i]),
								 ColumnType(referencing, key->keys[i]));
	}
	/* a row that refers to itself is deleted with what it refers to */
	n = key->n;
	types[n] = TIDOID;
	values[n] = PointerGetDatum(&tuple->t_self);
	types[n + 1] = OIDOID;
	values[n + 1] = ObjectIdGetDatum(RelationGetRelid(relation));
	appendStringInfo(&sql, " AND NOT (ctid OPERATOR(pg_catalog.=) $%d AND tableoid OPERATOR(pg_catalog.=) $%d)", n + 1, n + 2);
	(void) RunAsOwnerOf(referencing, sql.data, n + 2, types, values);
	table_close(referencing, NoLock);
}

Datum
bdr_ri_fkey_on_del_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *data = RequireTrigger(fcinfo, "ri_fkey_on_del_trigger", true);
	Relation	relation = data->tg_relation;
	TriggerDesc *triggers = relation->trigdesc;
	List	   *constraints = NIL;
	ListCell   *cell;

	/* the server's own triggers on the table tell who refers to it; a partition has them, too */
	for (int i = 0; triggers && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];

		if (trigger->tgisinternal && OidIsValid(trigger->tgconstraint) && TRIGGER_FOR_DELETE(trigger->tgtype) &&
			RI_FKey_trigger_type(trigger->tgfoid) == RI_TRIGGER_PK)
			constraints = list_append_unique_oid(constraints, trigger->tgconstraint);
	}
	foreach(cell, constraints)
	{
		ForeignKey	key;

		if (ReadForeignKey(lfirst_oid(cell), false, &key) && key.referenced == RelationGetRelid(relation))
			ClearReferences(relation, data->tg_trigtuple, &key);
	}
	return PointerGetDatum(data->tg_trigtuple);
}
