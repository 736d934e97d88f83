/*
 * conflict_detection.c: how conflicts of a table are detected: the version that method row_version keeps in a column of each
 * row, and the method and replica identity that new tables get (bdr.default_conflict_detection,
 * bdr.default_replica_identity).
 *
 * A version is counted up by a BEFORE UPDATE trigger, whose argument is the name of the column. Changes of other nodes bring
 * theirs along. That a row's version is not the one that a change was made with tells of a conflict also where the origin of
 * the row does not: it is compared where the change is applied (bdr_host_version_differs).
 */
#include "bdr.h"
#include "compat.h"
#include "ddl.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/primnodes.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(bdr_row_version_trigger);
PG_FUNCTION_INFO_V1(bdr_alter_table_conflict_detection);

/* ---- versions of rows ----------------------------------------------------------------------------------------- */

static bool
IsVersionType(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

/* 0 when the table has no such column (any more). */
static AttrNumber
VersionAttribute(TupleDesc desc, const Trigger *trigger)
{
	if (trigger->tgnargs < 1)
		return 0;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped && !attribute->attgenerated && IsVersionType(attribute->atttypid) &&
			strcmp(NameStr(attribute->attname), trigger->tgargs[0]) == 0)
			return attribute->attnum;
	}
	return 0;
}

/* Only whether two versions are the same matters, so that they may begin anew. */
static Datum
Next(Oid type, Datum version)
{
	switch (type)
	{
		case INT2OID:
			return Int16GetDatum((int16) ((uint16) DatumGetInt16(version) + 1));
		case INT4OID:
			return Int32GetDatum((int32) ((uint32) DatumGetInt32(version) + 1));
		default:
			return Int64GetDatum((int64) ((uint64) DatumGetInt64(version) + 1));
	}
}

/* BEFORE UPDATE, for each row. It does not fire where changes of other nodes are applied. */
Datum
bdr_row_version_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	int			column;
	Datum		version;
	bool		isnull;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) || !TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("bdr.row_version_trigger is for BEFORE UPDATE FOR EACH ROW")));
	desc = RelationGetDescr(trigger->tg_relation);
	column = VersionAttribute(desc, trigger->tg_trigger);
	if (column == 0)
		return PointerGetDatum(trigger->tg_newtuple);
	version = heap_getattr(trigger->tg_trigtuple, column, desc, &isnull);
	version = isnull ? (Datum) 0 : version;
	version = Next(TupleDescAttr(desc, column - 1)->atttypid, version);
	isnull = false;
	return PointerGetDatum(heap_modify_tuple_by_cols(trigger->tg_newtuple, desc, 1, &column, &version, &isnull));
}

static bool
IsVersionFunction(Oid function)
{
	HeapTuple	tuple;
	bool		result;

	if (function < FirstNormalObjectId)
		return false;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		return false;
	result = strcmp(NameStr(((Form_pg_proc) GETSTRUCT(tuple))->proname), "row_version_trigger") == 0 &&
		((Form_pg_proc) GETSTRUCT(tuple))->pronamespace == get_namespace_oid(BDR_SCHEMA, true);
	ReleaseSysCache(tuple);
	return result;
}

AttrNumber
bdr_row_version_attribute(Relation relation)
{
	for (int i = 0; relation->trigdesc && i < relation->trigdesc->numtriggers; i++)
	{
		const Trigger *trigger = &relation->trigdesc->triggers[i];

		if (trigger->tgenabled != TRIGGER_DISABLED && TRIGGER_FOR_UPDATE(trigger->tgtype) &&
			IsVersionFunction(trigger->tgfoid))
			return VersionAttribute(RelationGetDescr(relation), trigger);
	}
	return 0;
}

/* ---- new tables ----------------------------------------------------------------------------------------------- */

enum
{
	ROW_ORIGIN, ROW_VERSION, COLUMN_COMMIT_TIMESTAMP, COLUMN_MODIFY_TIMESTAMP
};

static const struct config_enum_entry methods[] = {
	{"row_origin", ROW_ORIGIN, false},
	{"row_version", ROW_VERSION, false},
	{"column_commit_timestamp", COLUMN_COMMIT_TIMESTAMP, false},
	{"column_modify_timestamp", COLUMN_MODIFY_TIMESTAMP, false},
	{NULL, 0, false}
};

static int	default_conflict_detection = ROW_ORIGIN;

enum
{
	IDENTITY_DEFAULT, IDENTITY_FULL, IDENTITY_NOTHING, IDENTITY_AUTO
};

static const struct config_enum_entry identities[] = {
	{"default", IDENTITY_DEFAULT, false},
	{"full", IDENTITY_FULL, false},
	{"nothing", IDENTITY_NOTHING, false},
	{"auto", IDENTITY_AUTO, false},
	{NULL, 0, false}
};

static int	default_replica_identity = IDENTITY_DEFAULT;

void
bdr_conflict_detection_init(void)
{
	DefineCustomEnumVariable("bdr.default_conflict_detection",
							 "Sets how conflicts are detected of tables that are created.",
							 "Other methods than row_origin add a column, a trigger or two, and REPLICA IDENTITY FULL.",
							 &default_conflict_detection,
							 ROW_ORIGIN,
							 methods,
							 PGC_USERSET,
							 0,
							 NULL, NULL, NULL);
	DefineCustomEnumVariable("bdr.default_replica_identity",
							 "Sets the replica identity of tables that are created.",
							 "auto: FULL for tables without a primary key. Conflict detection by other methods than row_origin "
							 "makes it FULL in any case.",
							 &default_replica_identity,
							 IDENTITY_DEFAULT,
							 identities,
							 PGC_USERSET,
							 0,
							 NULL, NULL, NULL);
}

/* A table that a statement is about to create, and that is replicated. */
BdrNewTable
bdr_new_table(Node *statement)
{
	BdrNewTable none = {InvalidOid};
	BdrNewTable table = none;
	const RangeVar *name = NULL;
	ListCell   *cell;

	/* a join creates tables as they are on the node it copies from */
	if ((default_conflict_detection == ROW_ORIGIN && default_replica_identity == IDENTITY_DEFAULT) || creating_extension ||
		(!bdr_ddl_applying && (bdr_internal_session || bdr_is_worker())))
		return none;
	if (IsA(statement, CreateStmt) && ((CreateStmt *) statement)->ofTypename == NULL)
	{
		name = ((CreateStmt *) statement)->relation;
		table.is_partition = ((CreateStmt *) statement)->partbound != NULL;
		foreach(cell, ((CreateStmt *) statement)->tableElts)
			table.is_like = table.is_like || IsA(lfirst(cell), TableLikeClause);
	}
	else if (IsA(statement, CreateTableAsStmt) && ((CreateTableAsStmt *) statement)->objtype == OBJECT_TABLE)
	{
		name = ((CreateTableAsStmt *) statement)->into->rel;
		table.is_filled = true;
	}
	if (name == NULL || name->relpersistence != RELPERSISTENCE_PERMANENT || bdr_local_node_id() == 0 ||
		(name->schemaname && !OidIsValid(get_namespace_oid(name->schemaname, true))))
		return none;
	table.namespace = RangeVarGetCreationNamespace(name);
	table.name = name->relname;
	if (isTempNamespace(table.namespace) || table.namespace == get_namespace_oid(BDR_SCHEMA, true) ||
		OidIsValid(get_relname_relid(table.name, table.namespace)))
		return none;
	return table;
}

/* A table of a dump comes with its column, and with its triggers later. */
static bool
IsPrepared(Relation relation)
{
	TupleDesc	desc = RelationGetDescr(relation);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped &&
			(bdr_is_column_timestamps(attribute->atttypid) || strcmp(NameStr(attribute->attname), "bdr_row_version") == 0))
			return true;
	}
	return false;
}

static char
IdentityOf(Oid table)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	char		identity = REPLICA_IDENTITY_DEFAULT;

	if (HeapTupleIsValid(tuple))
	{
		identity = ((Form_pg_class) GETSTRUCT(tuple))->relreplident;
		ReleaseSysCache(tuple);
	}
	return identity;
}

/* What is to be done to a table that was made, if anything. */
typedef struct Creation
{
	Oid			table;
	const char *identity;		/* REPLICA IDENTITY */
	bool		detects;		/* gets the method of detection */
} Creation;

/* Whoever creates a table need not have the right to call what this does to it. */
static void
Complete(void *argument)
{
	const Creation *creation = argument;
	Oid			table = creation->table;
	char	   *command;
	Oid			user;
	int			context;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	command = psprintf("ALTER TABLE %s REPLICA IDENTITY %s",
					   quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)), get_rel_name(table)),
					   creation->identity);
	if (SPI_execute(command, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not run %s", command);
	if (creation->detects)
	{
		command = psprintf("SELECT bdr.alter_table_conflict_detection(%u::pg_catalog.oid::pg_catalog.regclass, '%s')", table,
						   methods[default_conflict_detection].name);
		if (SPI_execute(command, false, 0) != SPI_OK_SELECT)
			elog(ERROR, "could not run %s", command);
	}
	SPI_finish();
	SetUserIdAndSecContext(user, context);
}

void
bdr_new_table_created(const BdrNewTable *table)
{
	Relation	relation;
	Creation	creation = {InvalidOid, NULL, false};
	bool		has_key;
	bool		detects = default_conflict_detection != ROW_ORIGIN;

	if (!OidIsValid(table->namespace))
		return;
	CommandCounterIncrement();
	creation.table = get_relname_relid(table->name, table->namespace);
	if (!OidIsValid(creation.table))
		return;
	relation = table_open(creation.table, NoLock);
	(void) RelationGetIndexList(relation);
	has_key = OidIsValid(relation->rd_pkindex);
	/* a partition has the columns and triggers of its table */
	if (table->is_partition)
		detects = detects && IdentityOf(get_partition_parent(creation.table, false)) == REPLICA_IDENTITY_FULL;
	else if (IsPrepared(relation) && !table->is_like)
		detects = false;
	table_close(relation, NoLock);
	if (detects || default_replica_identity == IDENTITY_FULL || (default_replica_identity == IDENTITY_AUTO && !has_key))
		creation.identity = "FULL";
	else if (default_replica_identity == IDENTITY_NOTHING)
		creation.identity = "NOTHING";
	else
		return;
	creation.detects = detects && !table->is_partition;
	/* the rows of a query were written to the table as it was created: other nodes get what follows as statements */
	if (table->is_filled)
		Complete(&creation);
	else
		bdr_ddl_quietly(Complete, &creation);
}

/* ---- bdr.alter_table_conflict_detection ----------------------------------------------------------------------- */

static void
CallInternal(void *argument)
{
	FunctionCallInfo outer = argument;
	Oid			types[] = {REGCLASSOID, TEXTOID, NAMEOID, TEXTOID};
	Oid			function = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum("internal_alter_conflict_detection"),
										   PointerGetDatum(buildoidvector(types, 4)),
										   ObjectIdGetDatum(get_namespace_oid(BDR_SCHEMA, false)));
	FmgrInfo	flinfo;

	LOCAL_FCINFO(inner, 4);

	if (!OidIsValid(function))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function bdr.internal_alter_conflict_detection is missing")));
	fmgr_info(function, &flinfo);
	InitFunctionCallInfoData(*inner, &flinfo, 4, InvalidOid, NULL, NULL);
	for (int i = 0; i < 4; i++)
		inner->args[i] = outer->args[i];
	(void) FunctionCallInvoke(inner);
}

static const char *
Literal(FunctionCallInfo fcinfo, int number, bool is_name)
{
	if (PG_ARGISNULL(number))
		return "NULL";
	return quote_literal_cstr(is_name ? NameStr(*PG_GETARG_NAME(number)) : text_to_cstring(PG_GETARG_TEXT_PP(number)));
}

/* What is wrong with the arguments, the function inside says. */
Datum
bdr_alter_table_conflict_detection(PG_FUNCTION_ARGS)
{
	if (!PG_ARGISNULL(0) && !PG_ARGISNULL(1) && get_rel_name(PG_GETARG_OID(0)) != NULL &&
		bdr_owns_table(PG_GETARG_OID(0), GetUserId()))
	{
		Oid			table = PG_GETARG_OID(0);
		const char *name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)), get_rel_name(table));

		(void) bdr_ddl_replicate("bdr.alter_table_conflict_detection()",
								 psprintf("SELECT bdr.alter_table_conflict_detection(%s, %s, %s, %s)", quote_literal_cstr(name),
										  Literal(fcinfo, 1, false), Literal(fcinfo, 2, true), Literal(fcinfo, 3, false)), table);
	}
	bdr_ddl_quietly(CallInternal, fcinfo);
	PG_RETURN_BOOL(true);
}
