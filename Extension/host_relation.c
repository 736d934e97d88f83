/*
 * host_relation.c: which local table and columns a remote relation means, what only one side has, and what other files are told
 * of it.
 */
#include "host_executor.h"
#include "ddl_locks.h"

#include "catalog/namespace.h"
#include "utils/lsyscache.h"

/*
 * Resolves names. Columns map by name; a local generated column is computed here whatever the peer sends.
 */
void
bdr_map_relation(BdrRel *rel)
{
	Oid			schema;
	Relation	local;
	TupleDesc	desc;
	bool		same = rel->raw_possible;
	int			live = 0;
	int			mapped = 0;
	MemoryContext old;

	MemoryContextReset(rel->map_context);
	rel->map = NULL;
	rel->leaves_out = false;
	memset(&rel->info, 0, sizeof(rel->info));
	rel->info.missing_column = -1;
	rel->oid = InvalidOid;
	/* set first: an invalidation that arrives while we look must not be lost */
	rel->valid = true;

	schema = get_namespace_oid(rel->namespace_name, true);
	if (OidIsValid(schema))
		rel->oid = get_relname_relid(rel->name, schema);
	if (!OidIsValid(rel->oid))
	{
		rel->info.status = BDR_REL_MISSING;
		rel->valid = false;		/* look again next time */
		return;
	}
	bdr_lock_for_apply(rel->oid);
	local = try_relation_open(rel->oid, NoLock);
	if (local == NULL)
	{
		rel->oid = InvalidOid;
		rel->info.status = BDR_REL_MISSING;
		rel->valid = false;
		return;
	}
	rel->info.oid = rel->oid;
	rel->info.relkind = local->rd_rel->relkind;
	rel->info.file = local->rd_rel->relfilenode;
	rel->owner = local->rd_rel->relowner;
	if (local->rd_rel->relkind != RELKIND_RELATION && local->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
	{
		rel->info.status = BDR_REL_WRONG_KIND;
		relation_close(local, NoLock);
		return;
	}

	desc = RelationGetDescr(local);
	old = MemoryContextSwitchTo(rel->map_context);
	rel->map = palloc0(sizeof(ColumnMap) * Max(rel->ncolumns, 1));
	for (int i = 0; i < rel->ncolumns; i++)
	{
		ColumnMap  *map = &rel->map[i];
		BdrColumnDesc *column = &rel->columns[i];

		map->attribute = -1;
		map->missing = true;
		for (int a = 0; a < desc->natts; a++)
		{
			Form_pg_attribute attribute = TupleDescAttr(desc, a);

			if (attribute->attisdropped || strcmp(NameStr(attribute->attname), column->name) != 0)
				continue;
			map->missing = false;
			if (attribute->attgenerated)
				same = false;
			else
				map->attribute = a;
			map->type = attribute->atttypid;
			map->typmod = attribute->atttypmod;
			map->merged = bdr_is_crdt(map->type);
			map->timestamps = bdr_is_column_timestamps(map->type);
			if ((map->merged || map->timestamps) && map->attribute >= 0)
				rel->info.merges = 1;
			map->same_type = column->builtin_type != 0 && attribute->atttypid == column->builtin_type &&
				(attribute->atttypmod == column->typmod || attribute->atttypmod < 0);
			if (a != i || !map->same_type)
				same = false;
			break;
		}
		if (map->attribute >= 0)
			mapped++;
		if (map->missing)
		{
			same = false;
			if (rel->info.missing_column < 0)
			{
				rel->info.missing_column = i;
				rel->info.status = BDR_REL_COLUMNS_MISSING;
			}
		}
	}
	for (int a = 0; a < desc->natts; a++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, a);

		if (attribute->attisdropped || attribute->attgenerated)
			same = false;
		else
			live++;
	}
	rel->info.lacks_columns = mapped < live;
	rel->info.stream_triggers = bdr_stream_triggers_of(local);
	rel->version_attribute = bdr_row_version_attribute(local);
	for (int i = 0; i < rel->ncolumns && rel->version_attribute > 0; i++)
		if (rel->map[i].attribute == rel->version_attribute - 1)
			rel->info.row_version = 1;
	rel->info.same_layout = same && live == rel->ncolumns && live == desc->natts;
	MemoryContextSwitchTo(old);
	relation_close(local, NoLock);
}

/* ---- columns that only one side has --------------------------------------------------------------------------- */

int32_t
bdr_host_missing_values(BdrRel *rel, const BdrRow *row, bool key_only, int32_t *missing, int32_t *valued)
{
	*missing = *valued = -1;
	HOST_BEGIN();
	{
		MemoryContext old;
		Datum	   *values = NULL;
		bool	   *nulls = NULL;

		if (rel == NULL || rel->target == NULL)
			elog(ERROR, "bdr: relation is not open in this transaction");
		old = MemoryContextSwitchTo(rel->target->row_context);
		if (row->values == NULL && row->kept == NULL)
		{
			values = palloc(sizeof(Datum) * Max(rel->ncolumns, 1));
			nulls = palloc(sizeof(bool) * Max(rel->ncolumns, 1));
			bdr_raw_row_values(rel, row, values, nulls);
		}
		else if (row->kept == NULL && row->ncolumns != rel->ncolumns)
			ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION), errmsg("a row does not have the columns that were described")));
		for (int i = 0; i < rel->ncolumns && row->kept == NULL; i++)
		{
			if (!rel->map[i].missing ||
				(key_only && (rel->replica_identity == REPLICA_IDENTITY_FULL || !rel->columns[i].key)))
				continue;
			if (*missing < 0)
				*missing = i;
			if (*valued < 0 && (nulls ? !nulls[i] : row->values[i].kind != BDR_VALUE_NULL))
				*valued = i;
		}
		rel->leaves_out = true;
		MemoryContextSwitchTo(old);
	}
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_lacked_columns(BdrRel *rel, const char **names)
{
	*names = "";
	HOST_BEGIN();
	{
		TupleDesc	desc;
		StringInfoData buffer;
		MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

		if (rel == NULL || rel->target == NULL)
			elog(ERROR, "bdr: relation is not open in this transaction");
		desc = RelationGetDescr(rel->target->relation);
		initStringInfo(&buffer);
		for (int a = 0; a < desc->natts; a++)
		{
			Form_pg_attribute attribute = TupleDescAttr(desc, a);
			bool		mapped = attribute->attisdropped || attribute->attgenerated;

			for (int i = 0; i < rel->ncolumns && !mapped; i++)
				mapped = rel->map[i].attribute == a;
			if (!mapped)
				appendStringInfo(&buffer, "%s\"%s\"", buffer.len > 0 ? ", " : "", NameStr(attribute->attname));
		}
		*names = buffer.data;
		MemoryContextSwitchTo(old);
	}
	HOST_END();
	return BDR_OK;
}

/* ---- for the record of conflicts, and stream triggers --------------------------------------------------------- */

/* False when the relation is not open in this transaction. Rows are those of the last call for it. */
bool
bdr_rel_view(BdrRel *rel, BdrRelView *view)
{
	Target	   *target = rel ? rel->target : NULL;

	memset(view, 0, sizeof(*view));
	/* a table that is not here has nothing but what the peer sent */
	if (target == NULL && (rel == NULL || rel->info.status != BDR_REL_MISSING))
		return false;
	view->oid = rel->oid;
	view->owner = rel->owner;
	view->namespace_name = rel->namespace_name;
	view->name = rel->name;
	view->whole_row_key = rel->replica_identity == REPLICA_IDENTITY_FULL;
	view->ncolumns = rel->ncolumns;
	view->columns = rel->columns;
	if (target == NULL)
	{
		view->oid = view->owner = InvalidOid;
		return true;
	}
	if (target->leaf && !TTS_EMPTY(target->leaf->found))
		view->found = target->leaf->found;
	if (target->written && !TTS_EMPTY(target->written))
		view->written = target->written;
	return true;
}

bool
bdr_rel_merges_column(BdrRel *rel, int column)
{
	return rel->map != NULL && (rel->map[column].merged || rel->map[column].timestamps);
}

Relation
bdr_rel_table(BdrRel *rel)
{
	if (rel == NULL || rel->target == NULL)
		elog(ERROR, "bdr: relation is not open in this transaction");
	return rel->target->relation;
}

bool
bdr_rel_old_is_whole(BdrRel *rel)
{
	return rel->replica_identity == REPLICA_IDENTITY_FULL;
}

bool
bdr_rel_is_whole(BdrRel *rel, const bool *provided)
{
	for (int i = 0; i < rel->ncolumns; i++)
	{
		if (rel->map[i].attribute >= 0 && !provided[rel->map[i].attribute])
			return false;
	}
	return true;
}
