/*
 * host_ddl.c: runs the DDL of another node.
 */
#include "ddl.h"
#include "compat.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parser.h"
#include "pgstat.h"
#include "replication/origin.h"
#include "rewrite/rewriteHandler.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

bool		bdr_ddl_applying = false;

static void
InStatement(void *arg)
{
	errcontext("replicated statement: %s", (const char *) arg);
}

static void
CheckText(const char *text)
{
	(void) pg_verify_mbstr(GetDatabaseEncoding(), text, strlen(text), false);
}

static Oid
RoleOf(const BdrDdl *ddl)
{
	Oid			role = get_role_oid(ddl->role, true);

	if (!OidIsValid(role))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\", which ran %s on another node, does not exist here", ddl->role, ddl->tag),
				 errdetail("DDL is run on each node as the role that typed it."),
				 errhint("CREATE ROLE %s, with the rights it has there; replication then goes on by itself.",
						 quote_identifier(ddl->role))));
	return role;
}

static void
Use(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

static void
UseSettings(const BdrDdl *ddl)
{
	/* it was checked where it was typed, and what it names need not be here: a temporary table, or one that is created later */
	Use("check_function_bodies", "off");
	/* the origin's decide, also when they are not sent */
	for (int i = 0; bdr_ddl_creation_settings[i] != NULL; i += 2)
		Use(bdr_ddl_creation_settings[i], bdr_ddl_creation_settings[i + 1]);
	for (int i = 0; ddl->settings[i] != NULL; i += 2)
	{
		const char *name = ddl->settings[i];
		bool		known = strcmp(name, "default_tablespace") == 0;

		for (int j = 0; bdr_ddl_settings[j] != NULL && !known; j++)
			known = strcmp(name, bdr_ddl_settings[j]) == 0;
		for (int j = 0; bdr_ddl_creation_settings[j] != NULL && !known; j += 2)
			known = strcmp(name, bdr_ddl_creation_settings[j]) == 0;
		/* of another version, or of a language that is not loaded here */
		if (!known || GetConfigOption(name, true, false) == NULL)
			continue;
		CheckText(ddl->settings[i + 1]);
		Use(name, ddl->settings[i + 1]);
	}
}

/* Whether a query reads a materialized view that has not been filled here; also through views. */
static bool
ReadsUnfilled(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *entry = (RangeTblEntry *) node;
		Relation	relation;
		bool		result = false;

		/* a view's query has the view itself, as OLD and NEW */
		if (entry->rtekind != RTE_RELATION || entry->relid == *(Oid *) context ||
			(entry->relkind != RELKIND_MATVIEW && entry->relkind != RELKIND_VIEW))
			return false;
		check_stack_depth();
		relation = table_open(entry->relid, AccessShareLock);
		if (entry->relkind == RELKIND_MATVIEW)
			result = !RelationIsPopulated(relation);
		else
			result = ReadsUnfilled((Node *) get_view_query(relation), &entry->relid);
		table_close(relation, NoLock);
		return result;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, ReadsUnfilled, context, QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, ReadsUnfilled, context);
}

/*
 * REFRESH is each node's own affair: a materialized view that was filled on the origin may be empty here, and then so is one
 * that is made from it.
 */
static void
LeaveUnfilled(Node *statement)
{
	CreateTableAsStmt *create = (CreateTableAsStmt *) statement;
	Oid			none = InvalidOid;

	if (!IsA(statement, CreateTableAsStmt) || create->objtype != OBJECT_MATVIEW || create->into->skipData ||
		!ReadsUnfilled(create->query, &none))
		return;
	create->into->skipData = true;
	ereport(LOG,
			(errmsg("materialized view \"%s\" of another node is created without rows", create->into->rel->relname),
			 errdetail("It reads a materialized view that has not been filled here."),
			 errhint("REFRESH MATERIALIZED VIEW both on this node.")));
}

/* The step of a statement that fills columns, or NULL. */
static const char *
FillStep(const BdrDdl *ddl)
{
	for (int i = 0; ddl->settings[i] != NULL; i += 2)
	{
		if (strcmp(ddl->settings[i], BDR_DDL_FILL) == 0)
			return ddl->settings[i + 1];
	}
	return NULL;
}

/* Rights on the database: it has another name here. */
static void
NameDatabase(Node *statement)
{
	GrantStmt  *grant = (GrantStmt *) statement;

	if (IsA(statement, GrantStmt) && grant->objtype == OBJECT_DATABASE)
		grant->objects = list_make1(makeString(get_database_name(MyDatabaseId)));
}

/* As the server runs a string that it gets as a query. */
static void
RunStatement(const BdrDdl *ddl)
{
	const char *step = FillStep(ddl);
	List	   *parsed = pg_parse_query(ddl->statement);
	List	   *planned;
	ListCell   *cell;

	if (list_length(parsed) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("a replicated statement consists of %d statements", list_length(parsed))));
	planned = pg_plan_queries(pg_analyze_and_rewrite_fixedparams(linitial_node(RawStmt, parsed), ddl->statement, NULL, 0, NULL),
							  ddl->statement, CURSOR_OPT_PARALLEL_OK, NULL);
	foreach(cell, planned)
	{
		PlannedStmt *statement = lfirst_node(PlannedStmt, cell);
		QueryCompletion completion;

		if (statement->commandType != CMD_UTILITY)
		{
			/* the call of a function of ours */
			SPI_connect();
			if (SPI_execute(ddl->statement, false, 0) < 0)
				elog(ERROR, "could not run a replicated call");
			SPI_finish();
			continue;
		}
		if (step)
		{
			bdr_fill_run(bdr_fill_statements(statement->utilityStmt, step), ddl->statement, NULL);
			continue;
		}
		LeaveUnfilled(statement->utilityStmt);
		NameDatabase(statement->utilityStmt);
		/* not top level: what can't run inside a transaction must not end the one that is being applied */
		ProcessUtility(statement, ddl->statement, false, PROCESS_UTILITY_QUERY, NULL, NULL, None_Receiver, &completion);
	}
}

static bool
IsOfRole(const VariableSetStmt *setting)
{
	return setting && setting->name && (strcmp(setting->name, "role") == 0 || strcmp(setting->name, "session_authorization") == 0);
}

/* CREATE FUNCTION ... SET role and the like, which the server refuses while the user is only lent. They run nobody's code. */
static bool
StoresRole(const char *text)
{
	List	   *parsed = pg_parse_query(text);
	Node	   *statement = list_length(parsed) == 1 ? linitial_node(RawStmt, parsed)->stmt : NULL;
	List	   *options;
	ListCell   *cell;

	if (statement == NULL)
		return false;
	if (IsA(statement, AlterRoleSetStmt))
		return IsOfRole(((AlterRoleSetStmt *) statement)->setstmt);
	if (IsA(statement, CreateFunctionStmt))
		options = ((CreateFunctionStmt *) statement)->options;
	else if (IsA(statement, AlterFunctionStmt))
		options = ((AlterFunctionStmt *) statement)->actions;
	else
		return false;
	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, "set") == 0 && option->arg && IsA(option->arg, VariableSetStmt) &&
			IsOfRole((VariableSetStmt *) option->arg))
			return true;
	}
	return false;
}

/* As the role, and with the settings, of the origin; both are taken back, also after an error. */
static void
RunAsOrigin(const BdrDdl *ddl)
{
	ErrorContextCallback callback = {error_context_stack, InStatement, (void *) ddl->statement};
	const char *query = debug_query_string;
	Oid			session = GetSessionUserId();
	Oid			user;
	int			security;

	CheckText(ddl->statement);
	CheckText(ddl->role);
	GetUserIdAndSecContext(&user, &security);
	error_context_stack = &callback;
	debug_query_string = ddl->statement;
	pgstat_report_activity(STATE_RUNNING, ddl->statement);
	PG_TRY();
	{
		Oid			role = RoleOf(ddl);
		Oid			session_role = get_role_oid(ddl->session_role, true);
		int			guc_level;

		if (!OidIsValid(session_role))
			session_role = role;
		SetSessionAuthorization(session_role, superuser_arg(session_role));
		/* user functions that run inside must not become this worker: it was started as a superuser */
		SetUserIdAndSecContext(role, StoresRole(ddl->statement) ? 0 : SECURITY_LOCAL_USERID_CHANGE);
		guc_level = NewGUCNestLevel();
		UseSettings(ddl);
		bdr_ddl_applying = true;
		PushActiveSnapshot(GetTransactionSnapshot());
		RunStatement(ddl);
		PopActiveSnapshot();
		CommandCounterIncrement();
		AtEOXact_GUC(false, guc_level);
	}
	PG_FINALLY();
	{
		bdr_ddl_applying = false;
		SetSessionAuthorization(session, true);
		SetUserIdAndSecContext(user, security);
		debug_query_string = query;
		error_context_stack = callback.previous;
	}
	PG_END_TRY();
	pgstat_report_activity(STATE_RUNNING, NULL);
	elog(DEBUG1, "bdr: ran %s of another node: %s", ddl->tag, ddl->statement);
}

int32_t
bdr_host_ddl(const BdrDdl *ddl, const uint8_t *content, size_t length)
{
	HOST_BEGIN();
	{
		MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "bdr replicated statement", ALLOCSET_DEFAULT_SIZES);
		MemoryContext caller = MemoryContextSwitchTo(context);

		bdr_executor_close();
		/* who completes the others when the origin dies has to find it in WAL; it is part of a transaction of the origin's */
		bdr_ddl_write((const char *) content, length);
		/* nodes on one server have one set of roles */
		if (!(ddl->of_server && strcmp(ddl->server, bdr_ddl_server()) == 0))
			RunAsOrigin(ddl);
		MemoryContextSwitchTo(caller);
		MemoryContextDelete(context);
		/* what follows sees what was done */
		if (ActiveSnapshotSet())
			PopActiveSnapshot();
		PushActiveSnapshot(GetTransactionSnapshot());
	}
	HOST_END();
	return BDR_OK;
}
