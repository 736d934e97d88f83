/*
 * ddl_fill.c: ALTER TABLE ... ADD COLUMN with a default that each node would evaluate for itself: serial and identity columns,
 * now(), gen_random_uuid().
 *
 * The rows that are there get their values on one node only, and these are replicated as an update of each row. So a
 * statement is run in two steps, on this node and, of the same text, on the others: the columns with their defaults, and,
 * behind the rows, the constraints, for which the values have to be there. The DML lock of the table sees to it that no row is
 * missed. Until its value comes, the column of a row is NULL, or 0 if it has to be NOT NULL, so that nodes agree on what
 * a row is before it has been filled, too.
 */
#include "ddl.h"
#include "compat.h"
#include "compat_executor.h"
#include "sequences.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parser.h"
#include "rewrite/rewriteHandler.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* ---- columns -------------------------------------------------------------------------------------------------- */

Oid
bdr_fill_serial(const TypeName *type)
{
	static const struct
	{
		const char *name;
		Oid			type;
	}			serials[] = {
		{"serial", INT4OID}, {"serial4", INT4OID}, {"bigserial", INT8OID}, {"serial8", INT8OID}, {"smallserial", INT2OID},
		{"serial2", INT2OID}
	};

	if (type == NULL || list_length(type->names) != 1 || type->pct_type || type->arrayBounds != NIL)
		return InvalidOid;
	for (int i = 0; i < lengthof(serials); i++)
	{
		if (strcmp(strVal(linitial(type->names)), serials[i].name) == 0)
			return serials[i].type;
	}
	return InvalidOid;
}

static Constraint *
FindConstraint(const ColumnDef *column, ConstrType type)
{
	ListCell   *cell;

	foreach(cell, column->constraints)
	{
		if (lfirst_node(Constraint, cell)->contype == type)
			return lfirst_node(Constraint, cell);
	}
	return NULL;
}

int
bdr_fill_defaults(const ColumnDef *column)
{
	int			defaults = column->raw_default != NULL || OidIsValid(bdr_fill_serial(column->typeName)) ? 1 : 0;
	ListCell   *cell;

	foreach(cell, column->constraints)
	{
		ConstrType	type = lfirst_node(Constraint, cell)->contype;

		if (type == CONSTR_DEFAULT || type == CONSTR_IDENTITY)
			defaults++;
	}
	return defaults;
}

bool
bdr_fill_can(const ColumnDef *column)
{
	ListCell   *cell;

	foreach(cell, column->constraints)
	{
		switch (lfirst_node(Constraint, cell)->contype)
		{
			case CONSTR_DEFAULT:
			case CONSTR_IDENTITY:
			case CONSTR_NULL:
			case CONSTR_NOTNULL:
			case CONSTR_CHECK:
			case CONSTR_UNIQUE:
			case CONSTR_PRIMARY:
			case CONSTR_FOREIGN:
			case CONSTR_ATTR_DEFERRABLE:
			case CONSTR_ATTR_NOT_DEFERRABLE:
			case CONSTR_ATTR_DEFERRED:
			case CONSTR_ATTR_IMMEDIATE:
				break;
			default:
				return false;
		}
	}
	return true;
}

static AlterTableStmt *
Alter(const AlterTableStmt *statement, List *commands)
{
	AlterTableStmt *alter = makeNode(AlterTableStmt);

	alter->relation = copyObject(statement->relation);
	alter->objtype = statement->objtype;
	alter->missing_ok = statement->missing_ok;
	alter->cmds = commands;
	return alter;
}

static AlterTableCmd *
Command(AlterTableType type, const char *column, Node *definition)
{
	AlterTableCmd *command = makeNode(AlterTableCmd);

	command->subtype = type;
	command->name = column ? pstrdup(column) : NULL;
	command->def = definition;
	command->behavior = DROP_RESTRICT;
	return command;
}

static Constraint *
MakeConstraint(ConstrType type)
{
	Constraint *constraint = makeNode(Constraint);

	constraint->contype = type;
	constraint->location = -1;
	constraint->initially_valid = true;
	return constraint;
}

/* The column without what it does to rows; of a domain with a default it has none, either. */
static ColumnDef *
Bare(const ColumnDef *column)
{
	ColumnDef  *bare = (ColumnDef *) copyObject((void *) column);
	Constraint *value = MakeConstraint(CONSTR_DEFAULT);
	A_Const    *constant = makeNode(A_Const);
	Oid			serial = bdr_fill_serial(column->typeName);

	constant->location = -1;
	bare->raw_default = NULL;
	bare->constraints = list_make1(value);
	if (OidIsValid(serial) || FindConstraint(column, CONSTR_IDENTITY))
	{
		constant->val.ival.type = T_Integer;
		constant->val.ival.ival = 0;
		bare->constraints = lappend(bare->constraints, MakeConstraint(CONSTR_NOTNULL));
	}
	else
		constant->isnull = true;
	value->raw_expr = (Node *) constant;
	if (OidIsValid(serial))
	{
		bare->typeName->names = NIL;
		bare->typeName->typeOid = serial;
	}
	return bare;
}

/* As the server makes of a serial type. */
static List *
SerialStatements(const AlterTableStmt *statement, const ColumnDef *column, Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class class;
	char	   *schema;
	char	   *name;
	CreateSeqStmt *create = makeNode(CreateSeqStmt);
	AlterSeqStmt *alter = makeNode(AlterSeqStmt);
	A_Const    *literal = makeNode(A_Const);
	TypeCast   *cast = makeNode(TypeCast);
	FuncCall   *call;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	class = (Form_pg_class) GETSTRUCT(tuple);
	schema = get_namespace_name(class->relnamespace);
	name = ChooseRelationName(NameStr(class->relname), column->colname, "seq", class->relnamespace, false);
	create->sequence = makeRangeVar(schema, name, -1);
	create->options = list_make1(makeDefElem("as", (Node *) makeTypeNameFromOid(bdr_fill_serial(column->typeName), -1), -1));
	create->ownerId = class->relowner;
	alter->sequence = makeRangeVar(schema, name, -1);
	alter->options = list_make1(makeDefElem("owned_by", (Node *) list_make3(makeString(schema),
																			makeString(pstrdup(NameStr(class->relname))),
																			makeString(column->colname)), -1));
	ReleaseSysCache(tuple);
	literal->val.sval.type = T_String;
	literal->val.sval.sval = quote_qualified_identifier(schema, name);
	literal->location = -1;
	cast->typeName = SystemTypeName("regclass");
	cast->arg = (Node *) literal;
	cast->location = -1;
	call = makeFuncCall(SystemFuncName("nextval"), list_make1(cast), COERCE_EXPLICIT_CALL, -1);
	return list_make3(create, Alter(statement, list_make1(Command(AT_ColumnDefault, column->colname, (Node *) call))), alter);
}

/* The columns, and what rows that are written from now on get. */
static List *
ColumnStatements(const AlterTableStmt *statement)
{
	Oid			relid = RangeVarGetRelid(statement->relation, NoLock, true);
	List	   *commands = NIL;
	List	   *statements;
	ListCell   *cell;

	foreach(cell, statement->cmds)
	{
		AlterTableCmd *command = copyObject(lfirst_node(AlterTableCmd, cell));

		command->def = (Node *) Bare(castNode(ColumnDef, command->def));
		commands = lappend(commands, command);
	}
	statements = list_make1(Alter(statement, commands));
	/* the server is going to say so */
	if (!OidIsValid(relid))
		return statements;
	foreach(cell, statement->cmds)
	{
		ColumnDef  *column = castNode(ColumnDef, lfirst_node(AlterTableCmd, cell)->def);
		Constraint *identity = FindConstraint(column, CONSTR_IDENTITY);
		Constraint *given = FindConstraint(column, CONSTR_DEFAULT);
		Node	   *expression = given ? given->raw_expr : column->raw_default;

		if (OidIsValid(bdr_fill_serial(column->typeName)))
		{
			statements = list_concat(statements, SerialStatements(statement, column, relid));
			continue;
		}
		/* without one of its own it goes by its domain's again */
		statements = lappend(statements, Alter(statement, list_make1(Command(AT_ColumnDefault, column->colname,
																			 copyObject(expression)))));
		if (identity)
			statements = lappend(statements, Alter(statement, list_make1(Command(AT_AddIdentity, column->colname,
																				 (Node *) copyObject(identity)))));
	}
	return statements;
}

/* What the values have to be there for; none, or one statement. */
static List *
ConstraintStatements(const AlterTableStmt *statement)
{
	List	   *commands = NIL;
	ListCell   *cell;

	foreach(cell, statement->cmds)
	{
		ColumnDef  *column = castNode(ColumnDef, lfirst_node(AlterTableCmd, cell)->def);
		Constraint *last = NULL;
		ListCell   *each;

		foreach(each, column->constraints)
		{
			Constraint *constraint = copyObject(lfirst_node(Constraint, each));

			switch (constraint->contype)
			{
				case CONSTR_NOTNULL:
#if PG_VERSION_NUM >= 180000
					constraint->keys = list_make1(makeString(column->colname));
					break;
#else
					commands = lappend(commands, Command(AT_SetNotNull, column->colname, NULL));
					continue;
#endif
				case CONSTR_UNIQUE:
				case CONSTR_PRIMARY:
					constraint->keys = list_make1(makeString(column->colname));
					break;
				case CONSTR_FOREIGN:
					constraint->fk_attrs = list_make1(makeString(column->colname));
					break;
				case CONSTR_CHECK:
					break;
				case CONSTR_ATTR_DEFERRABLE:
					if (last)
						last->deferrable = true;
					continue;
				case CONSTR_ATTR_DEFERRED:
					if (last)
						last->deferrable = last->initdeferred = true;
					continue;
				default:
					continue;
			}
			last = constraint;
			commands = lappend(commands, Command(AT_AddConstraint, NULL, (Node *) constraint));
		}
	}
	return commands ? list_make1(Alter(statement, commands)) : NIL;
}

List *
bdr_fill_statements(Node *statement, const char *step)
{
	AlterTableStmt *alter = (AlterTableStmt *) statement;
	ListCell   *cell;

	/* on another node it comes out of a message */
	if (!IsA(statement, AlterTableStmt))
		elog(ERROR, "a statement that fills columns is not ALTER TABLE");
	foreach(cell, alter->cmds)
	{
		if (lfirst_node(AlterTableCmd, cell)->subtype != AT_AddColumn)
			elog(ERROR, "a statement that fills columns does more than that");
	}
	return strcmp(step, BDR_FILL_COLUMNS) == 0 ? ColumnStatements(alter) : ConstraintStatements(alter);
}

void
bdr_fill_run(List *statements, const char *query, QueryEnvironment *environment)
{
	ListCell   *cell;

	foreach(cell, statements)
	{
		PlannedStmt *planned = makeNode(PlannedStmt);
		QueryCompletion completion;

		planned->commandType = CMD_UTILITY;
		planned->utilityStmt = lfirst(cell);
		planned->stmt_location = -1;
		planned->canSetTag = false;
		InitializeQueryCompletion(&completion);
		ProcessUtility(planned, query, false, PROCESS_UTILITY_QUERY, NULL, environment, None_Receiver, &completion);
		CommandCounterIncrement();
	}
}

/* ---- rows ----------------------------------------------------------------------------------------------------- */

typedef struct Filled
{
	int			attribute;		/* from 0 */
	ExprState  *value;
} Filled;

/* Leaves of a table's triggers those by which this extension tells which change of a row is the later one. */
static void
KeepOwnTriggers(ResultRelInfo *info)
{
	TriggerDesc *all = info->ri_TrigDesc;
	TriggerDesc *own = palloc0(sizeof(TriggerDesc));
	Oid			namespace = get_namespace_oid(BDR_SCHEMA, true);

	info->ri_TrigDesc = NULL;
	if (all == NULL || !all->trig_update_before_row)
		return;
	own->triggers = palloc(sizeof(Trigger) * all->numtriggers);
	for (int i = 0; i < all->numtriggers; i++)
	{
		Trigger    *trigger = &all->triggers[i];

		if (TRIGGER_FOR_ROW(trigger->tgtype) && TRIGGER_FOR_BEFORE(trigger->tgtype) && TRIGGER_FOR_UPDATE(trigger->tgtype) &&
			get_func_namespace(trigger->tgfoid) == namespace)
			own->triggers[own->numtriggers++] = *trigger;
	}
	if (own->numtriggers == 0)
		return;
	own->trig_update_before_row = true;
	info->ri_TrigDesc = own;
}

/*
 * Gives the rows of one table their values. It is not done by UPDATE: neither the user's triggers nor rules nor policies have
 * a part in ADD COLUMN.
 */
static void
FillTable(Oid relid, List *names)
{
	Relation	relation = table_open(relid, NoLock);
	TupleDesc	desc = RelationGetDescr(relation);
	EState	   *estate = CreateExecutorState();
	ExprContext *context = GetPerTupleExprContext(estate);
	ResultRelInfo *info = makeNode(ResultRelInfo);
	TupleTableSlot *old = table_slot_create(relation, NULL);
	TupleTableSlot *new = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	Filled	   *columns = palloc(sizeof(Filled) * list_length(names));
	int			ncolumns = 0;
	TableScanDesc scan;
	EPQState	epq;
	ListCell   *cell;

	foreach(cell, names)
	{
		AttrNumber	number = get_attnum(relid, lfirst(cell));
		Expr	   *expression = number > 0 ? (Expr *) build_column_default(relation, number) : NULL;

		if (expression == NULL)
			continue;
		columns[ncolumns].attribute = number - 1;
		columns[ncolumns++].value = ExecPrepareExpr(bdr_sequence_default(expression_planner(expression)), estate);
	}
	InitResultRelInfo(info, relation, 0, NULL, 0);
	KeepOwnTriggers(info);
	ExecOpenIndices(info, false);
	estate->es_snapshot = GetActiveSnapshot();
	EvalPlanQualInit(&epq, estate, NULL, NIL, -1
#if PG_VERSION_NUM >= 160000
					 ,NIL
#endif
		);
	scan = ncolumns > 0 ? table_beginscan(relation, GetActiveSnapshot(), 0, NULL) : NULL;
	while (scan && table_scan_getnextslot(scan, ForwardScanDirection, old))
	{
		TM_FailureData failure;
		LockTupleMode lock_mode;
		BdrUpdateIndexes update_indexes;
		MemoryContext caller;

		CHECK_FOR_INTERRUPTS();
		ResetPerTupleExprContext(estate);
		slot_getallattrs(old);
		ExecClearTuple(new);
		memcpy(new->tts_values, old->tts_values, sizeof(Datum) * desc->natts);
		memcpy(new->tts_isnull, old->tts_isnull, sizeof(bool) * desc->natts);
		for (int i = 0; i < ncolumns; i++)
			new->tts_values[columns[i].attribute] = ExecEvalExprSwitchContext(columns[i].value, context,
																			  &new->tts_isnull[columns[i].attribute]);
		ExecStoreVirtualTuple(new);
		estate->es_output_cid = GetCurrentCommandId(true);
		if (info->ri_TrigDesc && !bdr_exec_br_update_triggers(estate, &epq, info, &old->tts_tid, new))
			continue;
		if (table_tuple_update(relation, &old->tts_tid, new, GetCurrentCommandId(true), GetActiveSnapshot(), InvalidSnapshot,
							   true, &failure, &lock_mode, &update_indexes) != TM_Ok)
			elog(ERROR, "a row of table \"%s\" was changed while its columns were filled", RelationGetRelationName(relation));
		caller = MemoryContextSwitchTo(GetPerTupleMemoryContext(estate));
		/* values of unique ones are what they were */
		if (info->ri_NumIndices > 0 && bdr_needs_index_update(update_indexes))
			(void) bdr_insert_index_tuples(info, new, estate, true, update_indexes);
		MemoryContextSwitchTo(caller);
	}
	if (scan)
		table_endscan(scan);
	EvalPlanQualEnd(&epq);
	ExecCloseIndices(info);
	ExecDropSingleTupleTableSlot(old);
	ExecDropSingleTupleTableSlot(new);
	FreeExecutorState(estate);
	table_close(relation, NoLock);
}

/* Tables without a replica identity, whose updates others could not follow. */
static List *
WithoutIdentity(List *relids)
{
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, relids)
	{
		Relation	relation = table_open(lfirst_oid(cell), NoLock);

		if ((relation->rd_rel->relkind == RELKIND_RELATION || relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE) &&
			relation->rd_rel->relreplident != REPLICA_IDENTITY_FULL && !OidIsValid(RelationGetReplicaIndex(relation)))
			result = lappend_oid(result, lfirst_oid(cell));
		table_close(relation, NoLock);
	}
	return result;
}

typedef struct Step
{
	List	   *statements;
	const char *query;
	QueryEnvironment *environment;
} Step;

static void
RunStep(void *argument)
{
	Step	   *step = argument;

	bdr_fill_run(step->statements, step->query, step->environment);
}

static void
SetIdentity(Oid relid, char identity)
{
	ReplicaIdentityStmt *definition = makeNode(ReplicaIdentityStmt);
	AlterTableStmt *alter = makeNode(AlterTableStmt);
	Step		step = {0};
	char	   *schema = get_namespace_name(get_rel_namespace(relid));
	char	   *name = get_rel_name(relid);
	char	   *text = psprintf("ALTER TABLE ONLY %s REPLICA IDENTITY %s", quote_qualified_identifier(schema, name),
								identity == REPLICA_IDENTITY_FULL ? "FULL" :
								identity == REPLICA_IDENTITY_NOTHING ? "NOTHING" : "DEFAULT");

	definition->identity_type = identity;
	alter->relation = makeRangeVar(schema, name, -1);
	alter->relation->inh = false;
	alter->objtype = OBJECT_TABLE;
	alter->cmds = list_make1(Command(AT_ReplicaIdentity, NULL, (Node *) definition));
	step.statements = list_make1(alter);
	step.query = text;
	bdr_ddl_send("ALTER TABLE", text);
	bdr_ddl_quietly(RunStep, &step);
}

void
bdr_fill(BdrDdlFrame *frame, PlannedStmt *planned, const char *query, QueryEnvironment *environment)
{
	AlterTableStmt *statement = castNode(AlterTableStmt, planned->utilityStmt);
	Step		step = {bdr_fill_statements((Node *) statement, BDR_FILL_COLUMNS), query, environment};
	Oid			relid;
	List	   *tree;
	List	   *names = NIL;
	List	   *keyless;
	List	   *identities = NIL;
	ListCell   *cell;
	ListCell   *identity;

	/* others run it when they meet the message, which is there already */
	bdr_ddl_quietly(RunStep, &step);
	relid = RangeVarGetRelid(statement->relation, NoLock, false);
	tree = statement->relation->inh ? find_all_inheritors(relid, NoLock, NULL) : list_make1_oid(relid);
	foreach(cell, statement->cmds)
		names = lappend(names, castNode(ColumnDef, lfirst_node(AlterTableCmd, cell)->def)->colname);

	keyless = WithoutIdentity(tree);
	foreach(cell, keyless)
	{
		Relation	relation = table_open(lfirst_oid(cell), NoLock);

		identities = lappend_int(identities, relation->rd_rel->relreplident);
		table_close(relation, NoLock);
		SetIdentity(lfirst_oid(cell), REPLICA_IDENTITY_FULL);
	}
	/* that of the transaction may be from before the lock, and does not see rows that have come since */
	PushActiveSnapshot(GetLatestSnapshot());
	foreach(cell, tree)
	{
		if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_RELATION)
			FillTable(lfirst_oid(cell), names);
	}
	PopActiveSnapshot();
	CommandCounterIncrement();
	forboth(cell, keyless, identity, identities)
		SetIdentity(lfirst_oid(cell), (char) lfirst_int(identity));

	step.statements = bdr_fill_statements((Node *) statement, BDR_FILL_CONSTRAINTS);
	if (step.statements == NIL)
		return;
	bdr_ddl_fill_constraints(frame);
	bdr_ddl_quietly(RunStep, &step);
}
