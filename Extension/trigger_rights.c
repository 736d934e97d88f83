/*
 * trigger_rights.c: who may create a trigger on a table of somebody else.
 *
 * Where changes of other nodes are applied, triggers fire as the owner of the table. So who has got the right TRIGGER on it from
 * the owner can't have just any function run, but one that is the owner's, or one that runs as its own owner. Members of
 * bdr_superuser administer nodes: they may create triggers on all tables.
 */
#include "bdr.h"
#include "compat.h"
#include "ddl.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

static Oid
OwnerOf(Oid table)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	Oid			owner = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
		ReleaseSysCache(tuple);
	}
	return owner;
}

void
bdr_check_trigger_function(Oid table, Oid function)
{
	Oid			owner = OwnerOf(table);
	HeapTuple	tuple;
	Form_pg_proc form;

	if (!OidIsValid(owner) || has_privs_of_role(GetUserId(), owner) || bdr_may_administer())
		return;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_proc) GETSTRUCT(tuple);
	if (!form->prosecdef && form->proowner != owner)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to have function %s run as the owner of table \"%s\"", NameStr(form->proname),
						get_rel_name(table)),
				 errhint("Use a function that belongs to the owner of the table, or one with SECURITY DEFINER.")));
	ReleaseSysCache(tuple);
}

/* Names in the statement are looked up as the owner of the table. */
static void
CheckSchema(Oid schema, Oid owner)
{
	const char *name = get_namespace_name(schema);

	if (name && !bdr_may_use_schema(schema, owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for schema %s", name),
				 errdetail("The owner of the table has to be able to use it."),
				 errhint("Use GRANT USAGE ON SCHEMA %s TO %s.", quote_identifier(name),
						 quote_identifier(GetUserNameFromId(owner, false)))));
}

/*
 * Raises ERROR if the function of a new trigger must not run as the owner of the table. Gives back as whom the statement is to
 * run, InvalidOid if as who typed it. What the server refuses anyway is left to it.
 */
static Oid
RunsAs(CreateTrigStmt *statement)
{
	Oid			table;
	Oid			function;

	if (superuser() || bdr_local_node_id() == 0)
		return InvalidOid;
	table = RangeVarGetRelid(statement->relation, NoLock, true);
	function = LookupFuncName(statement->funcname, 0, NULL, true);
	if (!OidIsValid(table) || !OidIsValid(function) || !bdr_is_user_namespace(get_rel_namespace(table)) ||
		!bdr_may_execute(function, GetUserId()))
		return InvalidOid;
	if (bdr_may_administer() && pg_class_aclcheck(table, GetUserId(), ACL_TRIGGER) != ACLCHECK_OK)
	{
		Oid			owner = OwnerOf(table);

		CheckSchema(get_func_namespace(function), owner);
		CheckSchema(get_rel_namespace(table), owner);
		return owner;
	}
	/* what was permitted on its origin is on every node */
	if (!bdr_ddl_applying && pg_class_aclcheck(table, GetUserId(), ACL_TRIGGER) == ACLCHECK_OK)
		bdr_check_trigger_function(table, function);
	return InvalidOid;
}

/* As another user, names are to mean what they meant: "$user" in search_path would be somebody else. */
static void
KeepSearchPath(void)
{
	List	   *schemas = fetch_search_path(false);
	StringInfoData path;
	ListCell   *cell;

	initStringInfo(&path);
	foreach(cell, schemas)
	{
		char	   *name = get_namespace_name(lfirst_oid(cell));

		if (name)
			appendStringInfo(&path, "%s%s", path.len > 0 ? ", " : "", quote_identifier(name));
	}
	(void) set_config_option("search_path", path.data, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	list_free(schemas);
	pfree(path.data);
}

/* Runs a statement, by the function that is given, with the rights that it needs. */
void
bdr_with_trigger_rights(Node *statement, void (*run) (const void *), const void *argument)
{
	Oid			owner = IsA(statement, CreateTrigStmt) ? RunsAs((CreateTrigStmt *) statement) : InvalidOid;
	Oid			user;
	int			context;
	int			level;

	if (!OidIsValid(owner))
	{
		run(argument);
		return;
	}
	/* after an error, the end of the (sub)transaction puts both back */
	GetUserIdAndSecContext(&user, &context);
	level = NewGUCNestLevel();
	KeepSearchPath();
	SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE);
	run(argument);
	SetUserIdAndSecContext(user, context);
	AtEOXact_GUC(true, level);
}
