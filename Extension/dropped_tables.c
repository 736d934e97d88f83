/*
 * dropped_tables.c: remembers in bdr.dropped_table which tables were dropped here, so that changes of them which other nodes
 * made before they dropped them, too, are no error.
 *
 * The row is written by the transaction that drops the table, however it does (DROP SCHEMA, DROP OWNED), and removed by the
 * manager after a day.
 */
#include "bdr.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* Columns of bdr.dropped_table. */
enum
{
	DROPPED_SCHEMA = 1,
	DROPPED_NAME,
	DROPPED_TIME,
	DROPPED_COLUMNS = DROPPED_TIME
};

static object_access_hook_type previous_object_access = NULL;

static void
Remember(Oid schema, const char *schema_name, const char *name)
{
	Oid			relid = get_relname_relid("dropped_table", schema);
	Relation	table;
	NameData	names[2];
	Datum		values[DROPPED_COLUMNS] = {0};
	bool		nulls[DROPPED_COLUMNS] = {0};
	HeapTuple	tuple;

	/* the extension is being dropped, too */
	if (!OidIsValid(relid))
		return;
	table = table_open(relid, RowExclusiveLock);
	if (RelationGetNumberOfAttributes(table) != DROPPED_COLUMNS)
		elog(ERROR, "table bdr.dropped_table has not the columns it should have");
	namestrcpy(&names[0], schema_name);
	namestrcpy(&names[1], name);
	values[DROPPED_SCHEMA - 1] = NameGetDatum(&names[0]);
	values[DROPPED_NAME - 1] = NameGetDatum(&names[1]);
	values[DROPPED_TIME - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	tuple = heap_form_tuple(RelationGetDescr(table), values, nulls);
	CatalogTupleInsert(table, tuple);
	heap_freetuple(tuple);
	table_close(table, RowExclusiveLock);
}

static void
ObjectAccess(ObjectAccessType access, Oid class, Oid object, int sub, void *arg)
{
	Oid			schema;
	HeapTuple	tuple;
	Form_pg_class form;
	char	   *schema_name;

	if (previous_object_access)
		previous_object_access(access, class, object, sub, arg);
	if (access != OAT_DROP || class != RelationRelationId || sub != 0 ||
		/* what a rewrite of a table leaves behind */
		(arg && (((ObjectAccessDrop *) arg)->dropflags & PERFORM_DELETION_INTERNAL)))
		return;
	schema = get_namespace_oid(BDR_SCHEMA, true);
	if (!OidIsValid(schema) || bdr_local_node_id() == 0)
		return;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(object));
	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_class) GETSTRUCT(tuple);
	if ((form->relkind == RELKIND_RELATION || form->relkind == RELKIND_PARTITIONED_TABLE) &&
		form->relpersistence == RELPERSISTENCE_PERMANENT && form->relnamespace != schema &&
		!IsCatalogNamespace(form->relnamespace))
	{
		schema_name = get_namespace_name(form->relnamespace);
		if (schema_name)
			Remember(schema, schema_name, NameStr(form->relname));
	}
	ReleaseSysCache(tuple);
}

void
bdr_dropped_tables_init(void)
{
	previous_object_access = object_access_hook;
	object_access_hook = ObjectAccess;
}
