/*
 * sequence_plans.c: puts the functions of sequences.c into what the server executes.
 *
 * In each finished plan, calls of nextval(), currval(), lastval() and setval() become calls of ours, and so do the values of
 * identity columns: also those that came in by inlining a function, or by a default. They look the kind up when they run, so
 * that a plan stays right when the kind changes. COPY plans no statement: it is run from here when a column that it leaves to
 * its default takes values of a sequence. Arguments of CALL and EXECUTE are replaced in the statement.
 *
 * Plans made before the extension was there are made again, as creating and dropping a schema makes the server forget all.
 */
#include "bdr.h"
#include "compat.h"
#include "ddl.h"
#include "sequences.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/copy.h"
#include "commands/copyfrom_internal.h"
#include "commands/extension.h"
#include "commands/sequence.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/plannodes.h"
#include "optimizer/optimizer.h"
#include "optimizer/planner.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_relation.h"
#include "rewrite/rewriteHandler.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#define SET_KIND "bdr.alter_sequence_set_kind()"

PG_FUNCTION_INFO_V1(bdr_alter_sequence_set_kind);
PG_FUNCTION_INFO_V1(bdr_internal_sequence_set_kind);

int			bdr_default_sequence_kind = BDR_DEFAULT_DISTRIBUTED;

static planner_hook_type previous_planner = NULL;
static ProcessUtility_hook_type previous_utility = NULL;

/* ---- which function for which --------------------------------------------------------------------------------- */

enum
{
	NEXTVAL, CURRVAL, LASTVAL, SETVAL, SETVAL3, NFUNCTIONS
};

/* Ours in this database, once looked up; all are there or none. */
static Oid	functions[NFUNCTIONS];
static bool functions_known = false;

static void
FunctionsChanged(Datum arg, int cache, uint32 hash)
{
	functions_known = false;
}

static Oid
FindFunction(Oid namespace, const char *name, int nargs)
{
	Oid			types[] = {REGCLASSOID, INT8OID, BOOLOID};

	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(name),
						   PointerGetDatum(buildoidvector(types, nargs)), ObjectIdGetDatum(namespace));
}

static bool
HasFunctions(void)
{
	static bool registered = false;
	Oid			namespace;

	if (functions_known)
		return OidIsValid(functions[NEXTVAL]);
	if (!IsTransactionState() || !OidIsValid(MyDatabaseId))
		return false;
	if (!registered)
	{
		CacheRegisterSyscacheCallback(PROCOID, FunctionsChanged, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, FunctionsChanged, (Datum) 0);
		registered = true;
	}
	functions_known = true;
	memset(functions, 0, sizeof(functions));
	namespace = get_namespace_oid(BDR_SCHEMA, true);
	if (OidIsValid(namespace))
	{
		functions[NEXTVAL] = FindFunction(namespace, "seq_nextval", 1);
		functions[CURRVAL] = FindFunction(namespace, "seq_currval", 1);
		functions[LASTVAL] = FindFunction(namespace, "seq_lastval", 0);
		functions[SETVAL] = FindFunction(namespace, "internal_seq_setval", 2);
		functions[SETVAL3] = FindFunction(namespace, "internal_seq_setval", 3);
		for (int i = 0; i < NFUNCTIONS; i++)
		{
			if (!OidIsValid(functions[i]))
				functions[NEXTVAL] = InvalidOid;
		}
	}
	return OidIsValid(functions[NEXTVAL]);
}

/* Ours for a function of the server, InvalidOid for one that stays. */
static Oid
Replacement(Oid function)
{
	switch (function)
	{
		case F_NEXTVAL:
			return functions[NEXTVAL];
		case F_CURRVAL:
			return functions[CURRVAL];
		case F_LASTVAL:
			return functions[LASTVAL];
		case F_SETVAL_REGCLASS_INT8:
			return functions[SETVAL];
		case F_SETVAL_REGCLASS_INT8_BOOL:
			return functions[SETVAL3];
		default:
			return InvalidOid;
	}
}

/* ---- expressions ---------------------------------------------------------------------------------------------- */

static bool
Uses(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, NextValueExpr))
		return true;
	if (IsA(node, FuncExpr) && OidIsValid(Replacement(((FuncExpr *) node)->funcid)))
		return true;
	return expression_tree_walker(node, Uses, context);
}

/* The call for an identity column, as wide as the column. */
static Node *
IdentityCall(const NextValueExpr *identity)
{
	Const	   *sequence = makeConst(REGCLASSOID, -1, InvalidOid, sizeof(Oid), ObjectIdGetDatum(identity->seqid), false, true);
	FuncExpr   *call = makeFuncExpr(functions[NEXTVAL], INT8OID, list_make1(sequence), InvalidOid, InvalidOid,
									COERCE_EXPLICIT_CALL);

	call->location = BDR_IDENTITY_CALL;
	if (identity->typeId == INT8OID)
		return (Node *) call;
	return (Node *) makeFuncExpr(identity->typeId == INT4OID ? F_INT4_INT8 : F_INT2_INT8, identity->typeId,
								 list_make1(call), InvalidOid, InvalidOid, COERCE_IMPLICIT_CAST);
}

static Node *
Replace(Node *node, void *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, NextValueExpr))
		return IdentityCall((NextValueExpr *) node);
	node = expression_tree_mutator(node, Replace, context);
	if (IsA(node, FuncExpr))
	{
		Oid			replacement = Replacement(((FuncExpr *) node)->funcid);

		if (OidIsValid(replacement))
			((FuncExpr *) node)->funcid = replacement;
	}
	return node;
}

#define REPLACE(field) \
	do { \
		if (Uses((Node *) (field), NULL)) \
			(field) = (void *) Replace((Node *) (field), NULL); \
	} while (0)

/* A default as it is to be executed, for rows of peers that lack the column. */
Expr *
bdr_sequence_default(Expr *expression)
{
	return HasFunctions() && Uses((Node *) expression, NULL) ? (Expr *) Replace((Node *) expression, NULL) : expression;
}

/* ---- plans ---------------------------------------------------------------------------------------------------- */

static void ReplaceInPlan(Plan *plan);

static void
ReplaceInPlans(List *plans)
{
	ListCell   *cell;

	foreach(cell, plans)
		ReplaceInPlan(lfirst(cell));
}

/* Conditions that indexes, hashes and the like are searched with have no volatile functions: they stay as they are. */
static void
ReplaceInPlan(Plan *plan)
{
	if (plan == NULL)
		return;
	check_stack_depth();
	REPLACE(plan->targetlist);
	REPLACE(plan->qual);
	switch (nodeTag(plan))
	{
		case T_Result:
			REPLACE(((Result *) plan)->resconstantqual);
			break;
		case T_ModifyTable:
			REPLACE(((ModifyTable *) plan)->withCheckOptionLists);
			REPLACE(((ModifyTable *) plan)->returningLists);
			REPLACE(((ModifyTable *) plan)->onConflictSet);
			REPLACE(((ModifyTable *) plan)->onConflictWhere);
			REPLACE(((ModifyTable *) plan)->mergeActionLists);
#if PG_VERSION_NUM >= 170000
			REPLACE(((ModifyTable *) plan)->mergeJoinConditions);
#endif
			break;
		case T_Append:
			ReplaceInPlans(((Append *) plan)->appendplans);
			break;
		case T_MergeAppend:
			ReplaceInPlans(((MergeAppend *) plan)->mergeplans);
			break;
		case T_SubqueryScan:
			ReplaceInPlan(((SubqueryScan *) plan)->subplan);
			break;
		case T_CustomScan:
			REPLACE(((CustomScan *) plan)->custom_exprs);
			ReplaceInPlans(((CustomScan *) plan)->custom_plans);
			break;
		case T_ForeignScan:
			REPLACE(((ForeignScan *) plan)->fdw_exprs);
			break;
		case T_FunctionScan:
			REPLACE(((FunctionScan *) plan)->functions);
			break;
		case T_TableFuncScan:
			REPLACE(((TableFuncScan *) plan)->tablefunc);
			break;
		case T_ValuesScan:
			REPLACE(((ValuesScan *) plan)->values_lists);
			break;
		case T_NestLoop:
		case T_MergeJoin:
		case T_HashJoin:
			REPLACE(((Join *) plan)->joinqual);
			break;
		case T_WindowAgg:
			REPLACE(((WindowAgg *) plan)->startOffset);
			REPLACE(((WindowAgg *) plan)->endOffset);
			break;
		case T_Limit:
			REPLACE(((Limit *) plan)->limitOffset);
			REPLACE(((Limit *) plan)->limitCount);
			break;
		default:
			break;
	}
	ReplaceInPlan(plan->lefttree);
	ReplaceInPlan(plan->righttree);
}

static PlannedStmt *
PlanStatement(Query *query, const char *text, int options, ParamListInfo parameters)
{
	PlannedStmt *planned;

	if (previous_planner)
		planned = previous_planner(query, text, options, parameters);
	else
		planned = standard_planner(query, text, options, parameters);
	if (HasFunctions())
	{
		ReplaceInPlan(planned->planTree);
		ReplaceInPlans(planned->subplans);
	}
	return planned;
}

/* ---- COPY ----------------------------------------------------------------------------------------------------- */

/* Whether COPY FROM has a column that it leaves to a default which takes values of a sequence. */
static bool
CopyUses(const CopyStmt *statement)
{
	Relation	relation;
	TupleDesc	descriptor;
	bool		uses = false;

	if (!statement->is_from || statement->relation == NULL || !HasFunctions())
		return false;
	relation = table_openrv_extended(statement->relation, RowExclusiveLock, true);
	if (relation == NULL)
		return false;
	descriptor = RelationGetDescr(relation);
	if (relation->rd_rel->relkind == RELKIND_RELATION || relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
	{
		for (int i = 0; i < descriptor->natts && !uses; i++)
		{
			Form_pg_attribute attribute = TupleDescAttr(descriptor, i);

			/* the columns that it does not leave, too: its option DEFAULT (16) may */
			if (!attribute->attisdropped && !attribute->attgenerated && (attribute->atthasdef || attribute->attidentity))
			{
				/* as it will be: functions in it may be inlined */
				Node	   *expression = build_column_default(relation, i + 1);

				uses = expression && Uses((Node *) expression_planner((Expr *) expression), NULL);
			}
		}
	}
	/* the lock stays, as COPY takes it anyway */
	table_close(relation, NoLock);
	return uses;
}

static ExprState *
ReplacedDefault(ExprState *state)
{
	if (state == NULL || !Uses((Node *) state->expr, NULL))
		return state;
	return ExecInitExpr((Expr *) Replace((Node *) state->expr, NULL), NULL);
}

/* As the server reads the WHERE of COPY. */
static Node *
CopyCondition(ParseState *state, const CopyStmt *statement, ParseNamespaceItem *item)
{
	Node	   *condition;

	if (statement->whereClause == NULL)
		return NULL;
	addNSItemToQuery(state, item, false, true, true);
	condition = transformExpr(state, statement->whereClause, EXPR_KIND_COPY_WHERE);
	condition = coerce_to_boolean(state, condition, "WHERE");
	assign_expr_collations(state, condition);
	condition = eval_const_expressions(NULL, condition);
	condition = (Node *) canonicalize_qual((Expr *) condition, false);
	return Replace((Node *) make_ands_implicit((Expr *) condition), NULL);
}

/*
 * COPY table FROM, as the server does it, but that defaults are ours. What it checks, and in which order, is what DoCopy()
 * checks.
 */
static uint64
CopyFromWithSequences(CopyStmt *statement, const char *text, const PlannedStmt *planned)
{
	ParseState *state = make_parsestate(NULL);
	Relation	relation;
	ParseNamespaceItem *item;
	Node	   *condition;
	List	   *attributes;
	ListCell   *cell;
	CopyFromState copy;
	MemoryContext context;
	uint64		rows;
	Bitmapset  *inserted = NULL;

	state->p_sourcetext = text;
	if (statement->filename)
	{
		if (statement->is_program && !has_privs_of_role(GetUserId(), ROLE_PG_EXECUTE_SERVER_PROGRAM))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied to COPY to or from an external program"),
					 errdetail("Only superusers and roles with privileges of the \"%s\" role may do it.",
							   "pg_execute_server_program"),
					 errhint("Anyone can COPY to stdout or from stdin. psql's \\copy command also works for anyone.")));
		if (!statement->is_program && !has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied to COPY from a file"),
					 errdetail("Only superusers and roles with privileges of the \"%s\" role may do it.",
							   "pg_read_server_files"),
					 errhint("Anyone can COPY to stdout or from stdin. psql's \\copy command also works for anyone.")));
	}
	relation = table_openrv(statement->relation, RowExclusiveLock);
	item = addRangeTableEntryForRelation(state, relation, RowExclusiveLock, NULL, false, false);
	condition = CopyCondition(state, statement, item);
	attributes = CopyGetAttnums(RelationGetDescr(relation), relation, statement->attlist);
	foreach(cell, attributes)
		inserted = bms_add_member(inserted, lfirst_int(cell) - FirstLowInvalidHeapAttributeNumber);
#if PG_VERSION_NUM >= 160000
	item->p_perminfo->requiredPerms = ACL_INSERT;
	item->p_perminfo->insertedCols = inserted;
	ExecCheckPermissions(state->p_rtable, list_make1(item->p_perminfo), true);
#else
	item->p_rte->requiredPerms = ACL_INSERT;
	item->p_rte->insertedCols = inserted;
	ExecCheckRTPerms(state->p_rtable, true);
#endif
	if (check_enable_rls(RelationGetRelid(relation), InvalidOid, false) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("COPY FROM not supported with row-level security"),
				 errhint("Use INSERT statements instead.")));
	if (XactReadOnly && !relation->rd_islocaltemp)
		PreventCommandIfReadOnly("COPY FROM");

	copy = BeginCopyFrom(state, relation, condition, statement->filename, statement->is_program, NULL, statement->attlist,
						 statement->options);
	context = MemoryContextSwitchTo(copy->copycontext);
#if PG_VERSION_NUM >= 160000
	for (int i = 0; i < RelationGetDescr(relation)->natts; i++)
		copy->defexprs[i] = ReplacedDefault(copy->defexprs[i]);
#else
	for (int i = 0; i < copy->num_defaults; i++)
		copy->defexprs[i] = ReplacedDefault(copy->defexprs[i]);
#endif
	MemoryContextSwitchTo(context);
	rows = CopyFrom(copy);
	EndCopyFrom(copy);
	table_close(relation, NoLock);
	free_parsestate(state);
	return rows;
}

/* ---- other commands ------------------------------------------------------------------------------------------- */

/* In arguments that are not analyzed yet; what would not be the server's function is left alone. */
static bool
ReplaceNames(Node *node, void *context)
{
	static const char *const names[][2] = {
		{"nextval", "seq_nextval"}, {"currval", "seq_currval"}, {"lastval", "seq_lastval"},
		{"setval", "internal_seq_setval"}
	};

	if (node == NULL)
		return false;
	if (IsA(node, FuncCall))
	{
		FuncCall   *call = (FuncCall *) node;
		const char *name = strVal(llast(call->funcname));

		if (list_length(call->funcname) == 1 ||
			(list_length(call->funcname) == 2 && strcmp(strVal(linitial(call->funcname)), "pg_catalog") == 0))
		{
			for (int i = 0; i < lengthof(names); i++)
			{
				if (strcmp(name, names[i][0]) == 0)
					call->funcname = list_make2(makeString(BDR_SCHEMA), makeString(pstrdup(names[i][1])));
			}
		}
	}
	return raw_expression_tree_walker(node, ReplaceNames, context);
}

/* Sequences that the statement has made, while it runs; of the outermost one that may make some. */
static List *made = NIL;
static bool collecting = false;

static void
ApplyDefaultKinds(void)
{
	List	   *oids = made;
	ListCell   *cell;

	made = NIL;
	foreach(cell, oids)
	{
		Oid			oid = lfirst_oid(cell);
		Oid			user;
		int			context;
		static const char *const kinds[] = {"local", "snowflakeid", "timeshard", "galloc", "distributed"};

		/* renamed away or dropped by the same statement */
		if (get_rel_relkind(oid) != RELKIND_SEQUENCE || get_rel_persistence(oid) != RELPERSISTENCE_PERMANENT)
			continue;
		GetUserIdAndSecContext(&user, &context);
		SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
		ENGINE_CALL(bdr_engine_sequence_made(oid, kinds[bdr_default_sequence_kind], bdr_ddl_applying));
		SetUserIdAndSecContext(user, context);
		CacheInvalidateRelcacheByRelid(oid);
	}
}

/* ALTER SEQUENCE must not make of a global sequence what could not be of its kind. */
static void
CheckAltered(Oid sequence)
{
	Oid			user;
	int			context;

	if (!OidIsValid(sequence) || bdr_sequence_kind(sequence) == BDR_SEQUENCE_LOCAL)
		return;
	CommandCounterIncrement();
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
	ENGINE_CALL(bdr_engine_sequence_check(sequence));
	SetUserIdAndSecContext(user, context);
}

static void
NextUtility(PlannedStmt *planned, const char *query, bool read_only_tree, ProcessUtilityContext context,
			ParamListInfo parameters, QueryEnvironment *environment, DestReceiver *destination,
			QueryCompletion *completion)
{
	(previous_utility ? previous_utility : standard_ProcessUtility) (planned, query, read_only_tree, context, parameters,
																	 environment, destination, completion);
}

/* A statement that may make sequences. They get their kind when it is through: it may count with a new one itself. */
static void
RunCreating(PlannedStmt *planned, const char *query, bool read_only_tree, ProcessUtilityContext context,
			ParamListInfo parameters, QueryEnvironment *environment, DestReceiver *destination,
			QueryCompletion *completion)
{
	CreateSeqStmt *creates = IsA(planned->utilityStmt, CreateSeqStmt) ? (CreateSeqStmt *) planned->utilityStmt : NULL;
	bool		outermost = !collecting;
	Oid			before = creates ? RangeVarGetRelid(creates->sequence, NoLock, true) : InvalidOid;

	if (outermost)
		made = NIL;
	collecting = true;
	PG_TRY();
	{
		NextUtility(planned, query, read_only_tree, context, parameters, environment, destination, completion);
		if (creates)
		{
			Oid			oid = RangeVarGetRelid(creates->sequence, NoLock, true);
			MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

			if (OidIsValid(oid) && oid != before)
				made = lappend_oid(made, oid);
			MemoryContextSwitchTo(old);
		}
		if (outermost)
		{
			CommandCounterIncrement();
			ApplyDefaultKinds();
		}
	}
	PG_FINALLY();
	{
		if (outermost)
		{
			collecting = false;
			made = NIL;
		}
	}
	PG_END_TRY();
}

static void
RunUtility(PlannedStmt *planned, const char *query, bool read_only_tree, ProcessUtilityContext context,
		   ParamListInfo parameters, QueryEnvironment *environment, DestReceiver *destination,
		   QueryCompletion *completion)
{
	Node	   *statement = planned->utilityStmt;

	switch (nodeTag(statement))
	{
		case T_CopyStmt:
			if (!CopyUses((CopyStmt *) statement))
				break;
			{
				uint64		rows = CopyFromWithSequences(copyObject((CopyStmt *) statement), query, planned);

				if (completion)
					SetQueryCompletion(completion, CMDTAG_COPY, rows);
			}
			return;
		case T_CallStmt:
		case T_ExecuteStmt:
			if (!HasFunctions())
				break;
			if (IsA(statement, CallStmt) && !Uses((Node *) ((CallStmt *) statement)->funcexpr, NULL))
				break;
			if (IsA(statement, ExecuteStmt) && ((ExecuteStmt *) statement)->params == NIL)
				break;
			planned = copyObject(planned);
			read_only_tree = false;
			if (IsA(statement, CallStmt))
			{
				CallStmt   *call = (CallStmt *) planned->utilityStmt;

				call->funcexpr = (FuncExpr *) Replace((Node *) call->funcexpr, NULL);
			}
			else
				ReplaceNames((Node *) ((ExecuteStmt *) planned->utilityStmt)->params, NULL);
			break;
		case T_RenameStmt:
		case T_AlterObjectSchemaStmt:
			NextUtility(planned, query, read_only_tree, context, parameters, environment, destination, completion);
			if (HasFunctions() && !creating_extension && bdr_local_node_id() != 0)
			{
				Oid			user;
				int			security;

				CommandCounterIncrement();
				GetUserIdAndSecContext(&user, &security);
				SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, security | SECURITY_LOCAL_USERID_CHANGE);
				ENGINE_CALL(bdr_engine_sequence_check_names());
				SetUserIdAndSecContext(user, security);
			}
			return;
		case T_AlterSeqStmt:
			NextUtility(planned, query, read_only_tree, context, parameters, environment, destination, completion);
			if (HasFunctions() && !creating_extension && bdr_local_node_id() != 0)
				CheckAltered(RangeVarGetRelid(((AlterSeqStmt *) statement)->sequence, NoLock, true));
			return;
		case T_DiscardStmt:
			if (((DiscardStmt *) statement)->target == DISCARD_ALL ||
				((DiscardStmt *) statement)->target == DISCARD_SEQUENCES)
				bdr_sequences_discard();
			break;
		case T_CreateStmt:
		case T_AlterTableStmt:
		case T_CreateSeqStmt:
		case T_CreateSchemaStmt:
			if (!HasFunctions() || bdr_default_sequence_kind == BDR_DEFAULT_LOCAL || creating_extension ||
				(!bdr_ddl_applying && (bdr_internal_session || bdr_is_worker())) || bdr_local_node_id() == 0)
				break;
			RunCreating(planned, query, read_only_tree, context, parameters, environment, destination, completion);
			return;
		default:
			break;
	}
	NextUtility(planned, query, read_only_tree, context, parameters, environment, destination, completion);
}

typedef struct KindChange
{
	Oid			sequence;
	const char *kind;
	bool		has_start;
	int64		start;
	bool		has_used;
	int64		used;
} KindChange;

static void
ChangeKind(void *argument)
{
	KindChange *change = argument;
	Oid			user;
	int			context;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
	ENGINE_CALL(bdr_engine_sequence_set_kind(change->sequence, change->kind, change->has_start, change->start,
											 &change->has_used, &change->used));
	SetUserIdAndSecContext(user, context);
}

/* Other nodes need not ask around again for what is used, and couldn't while they all do the same. */
static void
SendKind(const KindChange *change)
{
	const char *sequence = quote_qualified_identifier(get_namespace_name(get_rel_namespace(change->sequence)),
													  get_rel_name(change->sequence));

	if (change->has_used)
		bdr_ddl_send(SET_KIND, psprintf("SELECT bdr.internal_sequence_set_kind(%s, %s, " INT64_FORMAT ")",
										quote_literal_cstr(sequence), quote_literal_cstr(change->kind), change->used));
	else
		bdr_ddl_send(SET_KIND, psprintf("SELECT bdr.alter_sequence_set_kind(%s, %s, %s)",
										quote_literal_cstr(sequence), quote_literal_cstr(change->kind),
										change->has_start ? psprintf("'" INT64_FORMAT "'", change->start) : "NULL"));
}

static Datum
SetKind(FunctionCallInfo fcinfo, bool is_start)
{
	KindChange	change = {InvalidOid};
	Oid			table = InvalidOid;
	int32		column;
	bool		sends;

	bdr_require_preload();
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("seqoid and seqkind must not be null")));
	change.sequence = PG_GETARG_OID(0);
	change.kind = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (!PG_ARGISNULL(2) && is_start)
	{
		change.has_start = true;
		change.start = PG_GETARG_INT64(2);
	}
	else if (!PG_ARGISNULL(2))
	{
		change.has_used = true;
		change.used = PG_GETARG_INT64(2);
	}
	PreventCommandIfReadOnly(SET_KIND);
	if (get_rel_relkind(change.sequence) != RELKIND_SEQUENCE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 get_rel_name(change.sequence) ? errmsg("\"%s\" is not a sequence", get_rel_name(change.sequence))
				 : errmsg("there is no sequence with OID %u", change.sequence)));
	if (!bdr_owns_table(change.sequence, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_SEQUENCE, get_rel_name(change.sequence));
	if (!sequenceIsOwned(change.sequence, DEPENDENCY_AUTO, &table, &column))
		(void) sequenceIsOwned(change.sequence, DEPENDENCY_INTERNAL, &table, &column);
	/* who writes to the table takes values; of others nobody knows */
	sends = bdr_ddl_announce(SET_KIND, change.sequence, table);
	/* nobody takes a value until the end of the transaction: others wait, and find the new kind */
	LockRelationOid(change.sequence, ShareRowExclusiveLock);
	bdr_ddl_quietly(ChangeKind, &change);
	if (sends)
		SendKind(&change);
	CacheInvalidateRelcacheByRelid(change.sequence);
	if (OidIsValid(table))
		CacheInvalidateRelcacheByRelid(table);
	PG_RETURN_VOID();
}

/* bdr.alter_sequence_set_kind(seqoid regclass, seqkind text, start bigint) */
Datum
bdr_alter_sequence_set_kind(PG_FUNCTION_ARGS)
{
	return SetKind(fcinfo, true);
}

/* bdr.internal_sequence_set_kind(seqoid regclass, seqkind text, used bigint): what another node did, which has found out up to
 * where all have counted. */
Datum
bdr_internal_sequence_set_kind(PG_FUNCTION_ARGS)
{
	return SetKind(fcinfo, false);
}

/* Called while shared_preload_libraries are loaded, before the hooks that judge statements, which then come first. */
void
bdr_sequence_plans_init(void)
{
	previous_planner = planner_hook;
	planner_hook = PlanStatement;
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = RunUtility;
}
