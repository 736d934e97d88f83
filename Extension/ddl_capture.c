/*
 * ddl_capture.c: puts the DDL of this node into its WAL, for the other nodes to run.
 *
 * A statement becomes a transactional logical message, which stands among the row changes of its transaction and shares
 * their fate, also that of a subtransaction. It is written before the statement runs: if that fails, the message is gone with
 * it; and rows that event triggers write into what was just created come behind it. Where it is known only afterwards
 * whether the statement concerns other nodes, it is written afterwards, and what ran inside follows it.
 *
 * Of CREATE TABLE AS and SELECT INTO other nodes get the definition, when the table is there and before its first row; the
 * rows are ordinary inserts.
 */
#include "ddl.h"
#include "compat.h"
#include "ddl_locks.h"

#include <unistd.h>

#include "access/htup_details.h"
#include "access/parallel.h"
#include "access/relation.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "replication/message.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

bool		bdr_ddl_replication = true;
bool		bdr_role_replication = true;

static object_access_hook_type previous_object_access = NULL;

/* While bdr.replicate_ddl_command runs a statement: it is sent in any case, for these replication sets. */
static bool forced = false;
static const char *const *forced_sets = NULL;

/* The innermost statement that is running. */
static BdrDdlFrame *innermost = NULL;

/* Settings of the session that are part of what a text means. Those that a server does not know are left out. */
const char *const bdr_ddl_settings[] = {
	"search_path",
	"default_table_access_method",
	"default_toast_compression",
	"default_text_search_config",
	"standard_conforming_strings",
	"backslash_quote",
	"DateStyle",
	"IntervalStyle",
	"TimeZone",
	"timezone_abbreviations",
	"bytea_output",
	"xmlbinary",
	"xmloption",
	"transform_null_equals",
	"array_nulls",
	"row_security",
	"extra_float_digits",
	"lc_monetary",
	"lc_numeric",
	"lc_time",
	"password_encryption",
	"createrole_self_grant",
	"event_triggers",
	"restrict_nonsystem_relation_kind",
	"plpgsql.variable_conflict",
	NULL
};

/* What they do is done on each node when it runs the statement, and is not sent. */
const char *const bdr_ddl_creation_settings[] = {
	"bdr.default_sequence_kind", "local",
	"bdr.default_conflict_detection", "row_origin",
	"bdr.default_replica_identity", "default",
	NULL
};

/*
 * Statements that run directly inside this one, or outside of any, follow from something that is sent, and are not. What event
 * triggers do on their occasion is further inside.
 */
static bool quiet = false;
static BdrDdlFrame *quiet_in = NULL;

/* ---- the message ---------------------------------------------------------------------------------------------- */

/*
 * The system identifier alone would not do: a node that was made as a physical copy of another one has the same.
 */
char *
bdr_ddl_server(void)
{
	char		host[256] = "";

	(void) gethostname(host, sizeof(host) - 1);
	return psprintf(UINT64_FORMAT "/%s%s", GetSystemIdentifier(), host, DataDir);
}

void
bdr_ddl_write(const char *content, Size length)
{
	(void) bdr_log_message(BDR_DDL_PREFIX, content, length, true);
}

static bytea *
Encode(const BdrDdlPlan *plan, const char *tag, const char *statement)
{
	const char *settings[2 * lengthof(bdr_ddl_settings) + lengthof(bdr_ddl_creation_settings) + 4];
	const char *none[] = {NULL};
	BdrDdl		ddl = {0};
	int			n = 0;
	bytea	   *content = NULL;
	const char *tablespace;

	for (int i = 0; bdr_ddl_settings[i] != NULL; i++)
	{
		const char *value = GetConfigOption(bdr_ddl_settings[i], true, false);

		if (value)
		{
			settings[n++] = bdr_ddl_settings[i];
			settings[n++] = pstrdup(value);
		}
	}
	/* the rows of a query come before that is done, so it is sent for itself afterwards */
	for (int i = 0; bdr_ddl_creation_settings[i] != NULL && plan->kind != BDR_DDL_TABLE_AS; i += 2)
	{
		settings[n++] = bdr_ddl_creation_settings[i];
		settings[n++] = pstrdup(GetConfigOption(bdr_ddl_creation_settings[i], false, false));
	}
	/* where tables lie by default is each server's own affair, unless the session said so */
	tablespace = GetConfigOption("default_tablespace", false, false);
	if (strcmp(tablespace, GetConfigOptionResetString("default_tablespace")) != 0)
	{
		settings[n++] = "default_tablespace";
		settings[n++] = pstrdup(tablespace);
	}
	if (plan->fill)
	{
		settings[n++] = BDR_DDL_FILL;
		settings[n++] = plan->fill;
	}
	settings[n] = NULL;
	ddl.tag = tag;
	ddl.role = GetUserNameFromId(GetUserId(), false);
	ddl.session_role = GetUserNameFromId(GetSessionUserId(), false);
	ddl.statement = statement;
	ddl.server = bdr_ddl_server();
	ddl.settings = settings;
	ddl.sets = forced_sets ? forced_sets : none;
	ddl.of_server = plan->of_role;
	ENGINE_CALL(bdr_engine_ddl_encode(&ddl, &content));
	return content;
}

/* Writes a message, or keeps it until the statement around this one is written. */
static void
Emit(bytea *content, BdrDdlFrame *outer)
{
	for (; outer != NULL; outer = outer->outer)
	{
		if (outer->captures && outer->plan.kind == BDR_DDL_TEXT && outer->plan.after)
		{
			outer->deferred = lappend(outer->deferred, content);
			return;
		}
	}
	bdr_ddl_write(VARDATA(content), VARSIZE(content) - VARHDRSZ);
}

/* ---- CREATE TABLE AS ------------------------------------------------------------------------------------------ */

static void
AppendOptions(StringInfo buffer, List *options)
{
	ListCell   *cell;
	const char *separator = " WITH (";

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		appendStringInfoString(buffer, separator);
		if (option->defnamespace)
			appendStringInfo(buffer, "%s.", quote_identifier(option->defnamespace));
		appendStringInfo(buffer, "%s = %s", quote_identifier(option->defname),
						 option->arg ? quote_literal_cstr(defGetString(option)) : "true");
		separator = ", ";
	}
	if (options)
		appendStringInfoChar(buffer, ')');
}

static char *
CollationName(Oid collation)
{
	HeapTuple	tuple = SearchSysCache1(COLLOID, ObjectIdGetDatum(collation));
	Form_pg_collation form;
	char	   *name;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for collation %u", collation);
	form = (Form_pg_collation) GETSTRUCT(tuple);
	name = quote_qualified_identifier(get_namespace_name(form->collnamespace), NameStr(form->collname));
	ReleaseSysCache(tuple);
	return name;
}

/* CREATE TABLE with the columns of a table that is just being made. */
static char *
DefinitionOf(Relation relation, const IntoClause *into)
{
	TupleDesc	desc = RelationGetDescr(relation);
	StringInfoData buffer;

	initStringInfo(&buffer);
	appendStringInfo(&buffer, "CREATE TABLE %s (",
					 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(relation)),
												RelationGetRelationName(relation)));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		appendStringInfo(&buffer, "%s%s %s", i > 0 ? ", " : "", quote_identifier(NameStr(column->attname)),
						 format_type_extended(column->atttypid, column->atttypmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
		if (OidIsValid(column->attcollation) && column->attcollation != get_typcollation(column->atttypid))
			appendStringInfo(&buffer, " COLLATE %s",
							 CollationName(column->attcollation));
	}
	appendStringInfoChar(&buffer, ')');
	if (into->accessMethod)
		appendStringInfo(&buffer, " USING %s", quote_identifier(into->accessMethod));
	AppendOptions(&buffer, into->options);
	if (into->tableSpaceName)
		appendStringInfo(&buffer, " TABLESPACE %s", quote_identifier(into->tableSpaceName));
	return buffer.data;
}

static void
ObjectAccess(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *argument)
{
	BdrDdlFrame *frame = innermost;

	if (previous_object_access)
		previous_object_access(access, class_id, object_id, sub_id, argument);
	/* the first relation is the table, others are its TOAST table, or made by functions that the query calls */
	if (access == OAT_POST_CREATE && class_id == RelationRelationId && sub_id == 0 && frame && frame->captures &&
		frame->plan.kind == BDR_DDL_TABLE_AS && !frame->table_seen)
	{
		Relation	relation = RelationIdGetRelation(object_id);

		frame->table_seen = true;
		if (!RelationIsValid(relation))
			elog(ERROR, "relation %u is not known while it is created", object_id);
		if (relation->rd_rel->relpersistence == RELPERSISTENCE_PERMANENT)
			Emit(Encode(&frame->plan, frame->tag, DefinitionOf(relation, frame->plan.into)), frame->outer);
		RelationClose(relation);
	}
}

/* ---- around statements ---------------------------------------------------------------------------------------- */

/* The part of a string that is one statement. */
static char *
StatementText(PlannedStmt *planned, const char *query)
{
	int			start = planned->stmt_location;
	int			length = planned->stmt_len;
	int			whole;

	if (query == NULL || start < 0)
		return NULL;
	whole = strlen(query);
	if (start >= whole)
		return NULL;
	if (length <= 0 || length > whole - start)
		length = whole - start;
	return pnstrdup(query + start, length);
}

/* around: the statement that another one, or a call, is running in. */
static bool
IsReplicating(const BdrDdlFrame *around)
{
	return !(quiet && around == quiet_in) && !bdr_is_worker() && !bdr_internal_session && !creating_extension && !IsInParallelMode() &&
		!RecoveryInProgress() && XLogLogicalInfoActive() && bdr_node_is_active();
}

void
bdr_ddl_begin(BdrDdlFrame *frame, PlannedStmt *planned, const char *query, ProcessUtilityContext context)
{
	Node	   *statement = planned->utilityStmt;
	bool		enforce;
	ListCell   *cell;

	memset(frame, 0, sizeof(*frame));
	frame->outer = innermost;
	innermost = frame;
	/* what a statement does by the way, other nodes do by the way, too */
	if (context == PROCESS_UTILITY_SUBCOMMAND || !IsReplicating(frame->outer))
		return;

	enforce = bdr_ddl_replication || forced;
	bdr_ddl_judge(statement, query, enforce, &frame->plan);
	/* as far as it says what it asks for */
	if (forced && IsA(statement, RefreshMatViewStmt))
		frame->plan.kind = BDR_DDL_TEXT;
	else if (forced && frame->plan.kind == BDR_DDL_LOCAL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s cannot be replicated", GetCommandTagName(CreateCommandTag(statement))),
				 errdetail("It concerns the server, or objects that are on this node only."),
				 errhint("Use bdr.run_on_all_nodes().")));
	if (frame->plan.kind == BDR_DDL_LOCAL || (frame->plan.of_role && !bdr_role_replication && !forced))
		return;
	frame->tag = GetCommandTagName(CreateCommandTag(statement));
	if (!enforce)
	{
		ereport(WARNING,
				(errmsg("%s is not replicated because bdr.ddl_replication is off", frame->tag)));
		return;
	}
	frame->text = StatementText(planned, query);
	if (frame->text == NULL && frame->plan.kind == BDR_DDL_TEXT)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s without a text cannot be replicated", frame->tag),
				 errdetail("The statement was made by another extension, which has not kept what it stands for."),
				 errhint("SET bdr.ddl_replication = off, and run it on every node.")));

	if (frame->plan.dml_locked == NIL)
		bdr_ddl_lock(BDR_DDL_LOCK_DDL, InvalidOid);
	foreach(cell, frame->plan.dml_locked)
		bdr_ddl_lock(BDR_DDL_LOCK_DML, lfirst_oid(cell));

	frame->captures = true;
	if (frame->plan.kind == BDR_DDL_TEXT && !frame->plan.after)
		Emit(Encode(&frame->plan, frame->tag, frame->text), frame->outer);
	frame->temp_flag = MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE;
	MyXactFlags &= ~XACT_FLAGS_ACCESSEDTEMPNAMESPACE;
}

static bool
IsTemporary(const RangeVar *name)
{
	Oid			relid = RangeVarGetRelid(name, NoLock, true);

	return OidIsValid(relid) && get_rel_persistence(relid) == RELPERSISTENCE_TEMP;
}

/* Rows of such a table can be inserted only. */
static void
WarnOfMissingKey(const RangeVar *name)
{
	Oid			relid = RangeVarGetRelid(name, NoLock, true);
	Relation	relation;

	if (!OidIsValid(relid))
		return;
	relation = try_relation_open(relid, AccessShareLock);
	if (relation == NULL)
		return;
	/* one that was there already was warned of then */
	if (relation->rd_createSubid == GetCurrentSubTransactionId() && !relation->rd_rel->relispartition &&
		!OidIsValid(RelationGetReplicaIndex(relation)) && relation->rd_rel->relreplident != REPLICA_IDENTITY_FULL &&
		!OidIsValid(relation->rd_pkindex))
		ereport(WARNING,
				(errmsg("table \"%s\" has no primary key: its rows can't be updated or deleted", RelationGetRelationName(relation)),
				 errhint("Add a primary key, or ALTER TABLE ... REPLICA IDENTITY FULL.")));
	relation_close(relation, NoLock);
}

/* Nodes would give out the same keys. */
static void
WarnOfLocalSequences(const RangeVar *name)
{
	Oid			relid = RangeVarGetRelid(name, NoLock, true);
	Relation	relation = OidIsValid(relid) ? try_relation_open(relid, AccessShareLock) : NULL;
	bool		is_new;
	Oid			user;
	int			context;

	if (relation == NULL)
		return;
	is_new = relation->rd_createSubid == GetCurrentSubTransactionId();
	relation_close(relation, NoLock);
	if (!is_new)
		return;
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
	ENGINE_CALL(bdr_engine_sequence_warn(relid));
	SetUserIdAndSecContext(user, context);
}

void
bdr_ddl_end(BdrDdlFrame *frame)
{
	ListCell   *cell;

	if (!frame->captures || frame->plan.kind != BDR_DDL_TEXT)
		return;
	if (frame->plan.view && IsTemporary(frame->plan.view))
		frame->captures = false;
	else if (frame->plan.uses_temporary || ((MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE) && !frame->plan.may_use_temporary))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s of a permanent object that uses a temporary one cannot be replicated", frame->tag),
				 errdetail("Temporary objects are not there on other nodes."),
				 errhint("Use permanent objects, or SET bdr.ddl_replication = off.")));
	if (frame->captures && frame->plan.after)
		Emit(Encode(&frame->plan, frame->tag, frame->text), frame->outer);
	foreach(cell, frame->deferred)
		Emit(lfirst(cell), frame->outer);
	frame->deferred = NIL;
}

void
bdr_ddl_warn(const BdrDdlFrame *frame)
{
	if (!frame->captures || frame->plan.table == NULL)
		return;
	WarnOfMissingKey(frame->plan.table);
	if (frame->plan.kind == BDR_DDL_TEXT)
		WarnOfLocalSequences(frame->plan.table);
}

void
bdr_ddl_pop(BdrDdlFrame *frame)
{
	if (frame->captures)
		MyXactFlags |= frame->temp_flag;
	innermost = frame->outer;
}

bool
bdr_ddl_announce(const char *tag, Oid relation, Oid table)
{
	if (!IsReplicating(innermost))
		return false;
	if (OidIsValid(relation) &&
		(get_rel_persistence(relation) != RELPERSISTENCE_PERMANENT || !bdr_is_user_namespace(get_rel_namespace(relation))))
		return false;
	if (!(bdr_ddl_replication || forced))
	{
		ereport(WARNING,
				(errmsg("%s is not replicated because bdr.ddl_replication is off", tag)));
		return false;
	}
	bdr_ddl_lock(OidIsValid(table) ? BDR_DDL_LOCK_DML : BDR_DDL_LOCK_DDL, table);
	return true;
}

void
bdr_ddl_send(const char *tag, const char *statement)
{
	BdrDdlPlan	plan = {BDR_DDL_TEXT};

	Emit(Encode(&plan, tag, statement), innermost);
}

bool
bdr_ddl_replicate(const char *tag, const char *statement, Oid relation)
{
	if (!bdr_ddl_announce(tag, relation, relation))
		return false;
	bdr_ddl_send(tag, statement);
	return true;
}

void
bdr_ddl_fill_constraints(BdrDdlFrame *frame)
{
	frame->plan.fill = BDR_FILL_CONSTRAINTS;
	Emit(Encode(&frame->plan, frame->tag, frame->text), frame->outer);
}

void
bdr_ddl_quietly(void (*run) (void *), void *argument)
{
	bool		was_quiet = quiet;
	BdrDdlFrame *was_in = quiet_in;

	quiet = true;
	quiet_in = innermost;
	PG_TRY();
	{
		run(argument);
	}
	PG_FINALLY();
	{
		quiet = was_quiet;
		quiet_in = was_in;
	}
	PG_END_TRY();
}

/* ---- bdr.replicate_ddl_command -------------------------------------------------------------------------------- */

/* Sends a statement without running it here. */
static void
QueueOnly(PlannedStmt *planned, const char *query)
{
	BdrDdlFrame frame;

	PG_TRY();
	{
		bdr_ddl_begin(&frame, planned, query, PROCESS_UTILITY_QUERY);
		if (frame.plan.kind == BDR_DDL_TABLE_AS)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("%s can't be run on other nodes alone", frame.tag)));
		if (frame.plan.fill)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("ALTER TABLE ... ADD COLUMN with a default that is not immutable can't be run on other nodes alone"),
					 errdetail("The values of rows come from this node."),
					 errhint("Add the column without a default, and set that by another statement.")));
		if (frame.captures && frame.plan.after)
			Emit(Encode(&frame.plan, frame.tag, frame.text), frame.outer);
	}
	PG_CATCH();
	{
		bdr_ddl_pop(&frame);
		PG_RE_THROW();
	}
	PG_END_TRY();
	bdr_ddl_pop(&frame);
}

/* One statement of a string. */
static void
RunForced(PlannedStmt *planned, const char *query, bool here)
{
	QueryCompletion completion;

	if (planned->commandType != CMD_UTILITY || GetCommandLogLevel(planned->utilityStmt) != LOGSTMT_DDL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("bdr.replicate_ddl_command runs DDL only"),
				 errdetail("The statement is %s.", GetCommandTagName(CreateCommandTag((Node *) planned))),
				 errhint("Rows are replicated by themselves; for anything else use bdr.run_on_all_nodes().")));
	if (here)
		ProcessUtility(planned, query, false, PROCESS_UTILITY_QUERY, NULL, NULL, None_Receiver, &completion);
	else
		QueueOnly(planned, query);
	CommandCounterIncrement();
}

static void
RunAllForced(const char *commands, bool here)
{
	ListCell   *cell;

	foreach(cell, pg_parse_query(commands))
	{
		List	   *planned = pg_plan_queries(pg_analyze_and_rewrite_fixedparams(lfirst_node(RawStmt, cell), commands, NULL, 0, NULL),
											  commands, CURSOR_OPT_PARALLEL_OK, NULL);
		ListCell   *each;

		foreach(each, planned)
			RunForced(lfirst_node(PlannedStmt, each), commands, here);
	}
}

void
bdr_ddl_run(const char *commands, const char *const *sets, const char *locking, bool here)
{
	bool		was_forced = forced;
	const char *const *outer_sets = forced_sets;
	int			guc_level;

	if (!bdr_node_is_active())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is not an active bdr node"),
				 errhint("See bdr.local_node_summary.")));
	guc_level = NewGUCNestLevel();
	if (locking && GetConfigOption("bdr.ddl_locking", true, false) != NULL)
		(void) set_config_option("bdr.ddl_locking", locking, superuser() ? PGC_SUSET : PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	forced = true;
	forced_sets = sets;
	PG_TRY();
	{
		RunAllForced(commands, here);
	}
	PG_FINALLY();
	{
		forced = was_forced;
		forced_sets = outer_sets;
	}
	PG_END_TRY();
	AtEOXact_GUC(true, guc_level);
}

/* ---- settings ------------------------------------------------------------------------------------------------- */

/*
 * Only who may administer the group may keep DDL from it. What stands in a configuration file, or was set for a role or
 * database, was checked there.
 */
static bool
CheckDdlReplication(bool *value, void **extra, GucSource source)
{
	if (*value == bdr_ddl_replication || source < PGC_S_CLIENT || source == PGC_S_OVERRIDE || InitializingParallelWorker)
		return true;
	if (bdr_may_administer())
		return true;
	GUC_check_errcode(ERRCODE_INSUFFICIENT_PRIVILEGE);
	GUC_check_errmsg("permission denied to set parameter \"%s\"", "bdr.ddl_replication");
	GUC_check_errdetail("Only superusers and members of %s may set it.", BDR_SUPERUSER_ROLE);
	return false;
}

void
bdr_ddl_define_settings(void)
{
	DefineCustomBoolVariable("bdr.ddl_replication",
							 "Sends the DDL of this session to the other nodes.",
							 "With off, each statement that would be sent gives a warning.",
							 &bdr_ddl_replication,
							 true,
							 PGC_USERSET,
							 0,
							 CheckDdlReplication, NULL, NULL);
	DefineCustomBoolVariable("bdr.role_replication",
							 "Sends statements about roles to the other nodes, too.",
							 "Roles belong to the server: of several databases that are nodes, one should have it on.",
							 &bdr_role_replication,
							 true,
							 PGC_SUSET,
							 0,
							 NULL, NULL, NULL);
}

void
bdr_ddl_init(void)
{
	previous_object_access = object_access_hook;
	object_access_hook = ObjectAccess;
}
