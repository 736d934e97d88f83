/*
 * ddl_statements.c: what a utility statement is to the other nodes: nothing, a text to be run there, or something that they
 * can't be sent.
 *
 * Whatever the server counts as DDL is replicated unless a rule here says otherwise, so that statements of later versions
 * are. What can't be sent is refused before it runs.
 */
#include "ddl.h"
#include "compat.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "catalog/heap.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/event_trigger.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_expr.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "parser/parse_type.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/evtcache.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* How far objects that a statement names are known. */
enum
{
	MISSING = 1,				/* not there, or not yet */
	OURS = 2,					/* the server's or this extension's */
	TEMPORARY = 4,
	UNLOGGED = 8,
	SHARED = 16					/* on all nodes */
};

#define LOCAL_SCOPES (OURS | TEMPORARY | UNLOGGED)

/* ---- refusals ------------------------------------------------------------------------------------------------- */

#define HINT_ALL_NODES "To run it on all nodes at their own time: SET bdr.ddl_replication = off; SELECT bdr.run_on_all_nodes($ddl$ ... $ddl$);"

static void Refuse(const char *message, const char *detail, const char *hint) pg_attribute_noreturn();

static void
Refuse(const char *message, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s", message),
			 detail ? errdetail("%s", detail) : 0,
			 errhint("%s", hint)));
}

static void
RefuseConcurrently(const char *command)
{
	Refuse(psprintf("%s cannot be replicated", command),
		   "It does not run inside a transaction.", HINT_ALL_NODES);
}

/* ---- what a statement names ----------------------------------------------------------------------------------- */

static int
ScopeOfSchema(Oid namespace)
{
	if (isAnyTempNamespace(namespace))
		return TEMPORARY;
	return bdr_is_user_namespace(namespace) ? SHARED : OURS;
}

static int
ScopeOfRelid(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class class;
	int			scope;

	if (!HeapTupleIsValid(tuple))
		return MISSING;
	class = (Form_pg_class) GETSTRUCT(tuple);
	if (class->relpersistence == RELPERSISTENCE_TEMP)
		scope = TEMPORARY;
	else
	{
		scope = ScopeOfSchema(class->relnamespace);
		if (scope == SHARED && class->relpersistence == RELPERSISTENCE_UNLOGGED)
			scope = UNLOGGED;
	}
	ReleaseSysCache(tuple);
	return scope;
}

static int
ScopeOfRelation(const RangeVar *name)
{
	Oid			relid = RangeVarGetRelid(name, NoLock, true);

	return OidIsValid(relid) ? ScopeOfRelid(relid) : MISSING;
}

/* Of a relation that would be made. */
static int
ScopeOfNewRelation(const RangeVar *name)
{
	if (name->relpersistence == RELPERSISTENCE_TEMP)
		return TEMPORARY;
	switch (ScopeOfSchema(RangeVarGetCreationNamespace(name)))
	{
		case TEMPORARY:
			return TEMPORARY;
		case OURS:
			return OURS;
		default:
			return name->relpersistence == RELPERSISTENCE_UNLOGGED ? UNLOGGED : SHARED;
	}
}

static int
ScopeOfSchemaName(const char *name)
{
	Oid			namespace;

	if (strcmp(name, "pg_temp") == 0)
		return TEMPORARY;
	namespace = get_namespace_oid(name, true);
	return OidIsValid(namespace) ? ScopeOfSchema(namespace) : MISSING;
}

/* Of an object that is no relation, by its name; without a schema it is one that all nodes have. */
static int
ScopeOfNames(List *names)
{
	if (list_length(names) < 2)
		return SHARED;
	return ScopeOfSchemaName(strVal(list_nth(names, list_length(names) - 2)));
}

/* Of one that would be made. */
static int
ScopeOfNewNames(List *names)
{
	char	   *name;

	return ScopeOfSchema(QualifiedNameGetCreationNamespace(names, &name));
}

/* Unlike functions, types are found in the temporary schema without being told. */
static int
ScopeOfType(TypeName *name)
{
	Oid			type = LookupTypeNameOid(NULL, name, true);
	HeapTuple	tuple;
	int			scope;

	if (!OidIsValid(type))
		return MISSING;
	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (!HeapTupleIsValid(tuple))
		return MISSING;
	scope = ScopeOfSchema(((Form_pg_type) GETSTRUCT(tuple))->typnamespace);
	ReleaseSysCache(tuple);
	return scope;
}

/* The server says of relations in the temporary schema that they were used, but not of their types. */
static bool
IsTemporaryType(TypeName *name)
{
	TypeName	plain;

	if (name == NULL || name->pct_type)
		return false;
	/* what is wrong with the modifier, the statement says better */
	plain = *name;
	plain.typmods = NIL;
	return ScopeOfType(&plain) == TEMPORARY;
}

static bool
UseTemporaryTypes(List *columns)
{
	ListCell   *cell;

	foreach(cell, columns)
	{
		if (IsA(lfirst(cell), ColumnDef) && IsTemporaryType(lfirst_node(ColumnDef, cell)->typeName))
			return true;
	}
	return false;
}

static int
ScopeOfTypeNames(List *names)
{
	return ScopeOfType(makeTypeNameFromNameList(names));
}

/* Kinds that belong to the server, or are each node's own affair. */
static bool
IsLocalKind(ObjectType type)
{
	return type == OBJECT_DATABASE || type == OBJECT_TABLESPACE || type == OBJECT_PARAMETER_ACL ||
		type == OBJECT_SUBSCRIPTION || type == OBJECT_LARGEOBJECT;
}

bool
bdr_object_relation(ObjectType type, Node *object, RangeVar **relation)
{
	List	   *names;

	switch (type)
	{
		case OBJECT_TABLE:
		case OBJECT_SEQUENCE:
		case OBJECT_VIEW:
		case OBJECT_MATVIEW:
		case OBJECT_INDEX:
		case OBJECT_FOREIGN_TABLE:
			*relation = makeRangeVarFromNameList(castNode(List, object));
			return true;
		case OBJECT_COLUMN:
		case OBJECT_TRIGGER:
		case OBJECT_RULE:
		case OBJECT_POLICY:
		case OBJECT_TABCONSTRAINT:
			/* the last one is the name of the part */
			names = castNode(List, object);
			*relation = list_length(names) < 2 ? NULL :
				makeRangeVarFromNameList(list_truncate(list_copy(names), list_length(names) - 1));
			return true;
		default:
			return false;
	}
}

/* By the node that the parser has for an object in DROP, COMMENT and the like. */
static int
ScopeOfObject(ObjectType type, Node *object)
{
	RangeVar   *relation;

	if (IsLocalKind(type))
		return OURS;
	if (bdr_object_relation(type, object, &relation))
		return relation ? ScopeOfRelation(relation) : SHARED;
	switch (type)
	{
		case OBJECT_SCHEMA:
			return ScopeOfSchemaName(strVal(object));
		case OBJECT_EXTENSION:
			return IsA(object, String) && strcmp(strVal(object), BDR_EXTENSION) == 0 ? OURS : SHARED;
		case OBJECT_DOMCONSTRAINT:
			{
				List	   *parts = castNode(List, object);

				return IsA(linitial(parts), TypeName) ? ScopeOfType(linitial(parts)) : SHARED;
			}
		case OBJECT_TYPE:
		case OBJECT_DOMAIN:
			if (IsA(object, TypeName))
				return ScopeOfType((TypeName *) object);
			return IsA(object, List) ? ScopeOfTypeNames((List *) object) : SHARED;
		default:
			if (IsA(object, ObjectWithArgs))
				return ScopeOfNames(((ObjectWithArgs *) object)->objname);
			if (IsA(object, List) && list_length((List *) object) > 0 && IsA(linitial((List *) object), String) &&
				(type == OBJECT_COLLATION || type == OBJECT_CONVERSION || type == OBJECT_STATISTIC_EXT ||
				 type == OBJECT_TSCONFIGURATION || type == OBJECT_TSDICTIONARY || type == OBJECT_TSPARSER ||
				 type == OBJECT_TSTEMPLATE))
				return ScopeOfNames((List *) object);
			return SHARED;
	}
}

/* A statement about several objects: those of other nodes and those that only this one has don't go together. */
static BdrDdlKind
KindOf(int scopes, const char *command, bool enforce)
{
	if ((scopes & LOCAL_SCOPES) == 0)
		return BDR_DDL_TEXT;
	if (enforce && (scopes & SHARED) && (scopes & (TEMPORARY | UNLOGGED)))
		Refuse(psprintf("%s of objects that other nodes have and of others cannot be replicated", command),
			   "Temporary and unlogged tables are not there on other nodes.",
			   "Name them in statements of their own.");
	return scopes & SHARED ? BDR_DDL_TEXT : BDR_DDL_LOCAL;
}

/* Relations that others are made from, or hang together with. */
static void
RequireShared(const RangeVar *name, const char *command)
{
	int			scope = ScopeOfRelation(name);

	if (scope & (TEMPORARY | UNLOGGED))
		Refuse(psprintf("%s with %s table \"%s\" cannot be replicated", command,
						scope == TEMPORARY ? "temporary" : "unlogged", name->relname),
			   "Temporary and unlogged tables are not there on other nodes.",
			   "Use a permanent table, or SET bdr.ddl_replication = off.");
}

/* ---- values that would differ between nodes ------------------------------------------------------------------- */

/* 'now' and the like: each node would read it as something else. */
static bool
IsRelativeTime(Node *raw, Oid type)
{
	static const char *const words[] = {"now", "today", "tomorrow", "yesterday"};
	char	   *text;

	while (raw && IsA(raw, TypeCast))
		raw = ((TypeCast *) raw)->arg;
	if (raw == NULL || !IsA(raw, A_Const) || ((A_Const *) raw)->isnull || nodeTag(&((A_Const *) raw)->val) != T_String)
		return false;
	type = getBaseType(type);
	if (type != DATEOID && type != TIMEOID && type != TIMETZOID && type != TIMESTAMPOID && type != TIMESTAMPTZOID)
		return false;
	text = strVal(&((A_Const *) raw)->val);
	for (; *text; text++)
	{
		for (int i = 0; i < lengthof(words); i++)
		{
			if (pg_strncasecmp(text, words[i], strlen(words[i])) == 0)
				return true;
		}
	}
	return false;
}

static void
RefuseDefault(const ColumnDef *column, const char *detail)
{
	Refuse(psprintf("ALTER TABLE ... ADD COLUMN \"%s\" with a default that is not immutable cannot be replicated like this",
					column->colname),
		   detail,
		   "ALTER TABLE ... ADD COLUMN it in a statement of its own, before or after the others; or without a default, "
		   "then ALTER COLUMN ... SET DEFAULT, and UPDATE the rows that are there.");
}

/* A table of this transaction that has no row yet has none anywhere. */
static bool
IsNewAndEmpty(Relation relation)
{
	if (relation->rd_createSubid == InvalidSubTransactionId || relation->rd_rel->relhassubclass)
		return false;
	return relation->rd_rel->relkind != RELKIND_RELATION || RelationGetNumberOfBlocks(relation) == 0;
}

static void
CheckForeignKey(const Constraint *constraint)
{
	Oid			relid;

	if (constraint->pktable == NULL)
		return;
	relid = RangeVarGetRelid(constraint->pktable, NoLock, true);
	if (!OidIsValid(relid))
		return;
	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK || check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED)
		Refuse("ALTER TABLE ... ADD FOREIGN KEY cannot be replicated when the user can't read the whole referenced table",
			   psprintf("The user \"%s\" may not read all rows of \"%s\".", GetUserNameFromId(GetUserId(), false),
						get_rel_name(relid)),
			   "GRANT SELECT on the referenced table, or do it as a user that row-level security does not hold for.");
}

/* Returns whether nodes would fill the rows that are there with different values. */
static bool
CheckAddColumn(Relation relation, AlterTableCmd *command, const char *query)
{
	ColumnDef  *column = castNode(ColumnDef, command->def);
	ListCell   *cell;
	Node	   *raw = column->raw_default;
	bool		identity = false;
	bool		differs = false;
	Oid			type;
	int32		typmod;
	Type		typetuple;
	ParseState *parse;

	foreach(cell, column->constraints)
	{
		Constraint *constraint = lfirst_node(Constraint, cell);

		if (constraint->contype == CONSTR_FOREIGN)
			CheckForeignKey(constraint);
		else if (constraint->contype == CONSTR_DEFAULT)
			raw = constraint->raw_expr;
		else if (constraint->contype == CONSTR_IDENTITY)
			identity = true;
		else if (constraint->contype == CONSTR_GENERATED)
			return false;
	}
	if (column->typeName == NULL || IsNewAndEmpty(relation) ||
		(relation->rd_rel->relkind != RELKIND_RELATION && relation->rd_rel->relkind != RELKIND_PARTITIONED_TABLE))
		return false;
	/* nothing is done then */
	if (command->missing_ok && get_attnum(RelationGetRelid(relation), column->colname) != InvalidAttrNumber)
		return false;
	if (identity || OidIsValid(bdr_fill_serial(column->typeName)))
		return true;
	parse = make_parsestate(NULL);
	parse->p_sourcetext = query;
	typetuple = LookupTypeName(parse, column->typeName, &typmod, true);
	if (typetuple == NULL || !((Form_pg_type) GETSTRUCT(typetuple))->typisdefined)
	{
		if (typetuple)
			ReleaseSysCache(typetuple);
		return false;
	}
	type = ((Form_pg_type) GETSTRUCT(typetuple))->oid;
	ReleaseSysCache(typetuple);
	if (raw)
	{
		Node	   *expression = cookDefault(parse, copyObject(raw), type, typmod, column->colname, '\0');

		differs = IsRelativeTime(raw, type) || contain_mutable_functions(expression);
	}
	else if (get_typtype(type) == TYPTYPE_DOMAIN)
	{
		Node	   *expression = get_typdefault(type);

		differs = expression && contain_mutable_functions(expression);
	}
	free_parsestate(parse);
	return differs;
}

/*
 * Has this node alone fill the columns that a statement adds. What it does is done in two steps on each node, so it must not do
 * anything else.
 */
static void
PlanFill(Relation relation, const AlterTableStmt *statement, const ColumnDef *filled, BdrDdlPlan *plan)
{
	Oid			relid = RelationGetRelid(relation);
	bool		inherited = relation->rd_rel->relhassubclass && relation->rd_rel->relkind == RELKIND_RELATION;
	List	   *tree = statement->relation->inh ? find_all_inheritors(relid, NoLock, NULL) : list_make1_oid(relid);
	ListCell   *cell;

	foreach(cell, statement->cmds)
	{
		AlterTableCmd *command = lfirst_node(AlterTableCmd, cell);
		ColumnDef  *column = (ColumnDef *) command->def;
		ListCell   *each;

		if (command->subtype != AT_AddColumn)
			RefuseDefault(filled, "The statement also changes something else.");
		if (command->missing_ok && get_attnum(relid, column->colname) != InvalidAttrNumber)
			RefuseDefault(filled, psprintf("Column \"%s\" is there already.", column->colname));
		foreach(each, column->constraints)
		{
			if (lfirst_node(Constraint, each)->contype == CONSTR_GENERATED)
				RefuseDefault(filled, psprintf("The statement also adds a generated column, \"%s\".", column->colname));
			/* the server says that it can't be */
			if (lfirst_node(Constraint, each)->contype == CONSTR_IDENTITY && relation->rd_rel->relhassubclass &&
				(inherited || PG_VERSION_NUM < 170000))
				return;
		}
		if (bdr_fill_defaults(column) > 1)
			return;
		if (!bdr_fill_can(column))
			RefuseDefault(filled, psprintf("Column \"%s\" has a constraint of a kind that is not known.", column->colname));
		foreach(each, tree)
		{
			if (lfirst_oid(each) != relid && get_attnum(lfirst_oid(each), column->colname) != InvalidAttrNumber)
				RefuseDefault(filled, psprintf("Table \"%s\", which inherits, has a column \"%s\" of its own.",
											   get_rel_name(lfirst_oid(each)), column->colname));
		}
	}
	plan->fill = BDR_FILL_COLUMNS;
	if (relation->rd_createSubid == InvalidSubTransactionId)
		plan->dml_locked = inherited ? tree : list_make1_oid(relid);
}

/* Returns whether the rows have to be written anew. */
static bool
CheckColumnType(Relation relation, const AlterTableCmd *command, const char *query)
{
	ColumnDef  *column = castNode(ColumnDef, command->def);
	AttrNumber	number = get_attnum(RelationGetRelid(relation), command->name);
	ParseState *parse;
	ParseNamespaceItem *item;
	Node	   *expression;
	Oid			type;
	int32		typmod;
	Type		typetuple;

	/* the server is going to say what is wrong */
	if (number <= 0 || relation->rd_rel->relkind == RELKIND_COMPOSITE_TYPE || relation->rd_rel->relkind == RELKIND_FOREIGN_TABLE)
		return true;
	parse = make_parsestate(NULL);
	parse->p_sourcetext = query;
	typetuple = LookupTypeName(parse, column->typeName, &typmod, true);
	if (typetuple == NULL)
		return true;
	type = ((Form_pg_type) GETSTRUCT(typetuple))->oid;
	ReleaseSysCache(typetuple);
	if (column->raw_default)
	{
		item = addRangeTableEntryForRelation(parse, relation, AccessShareLock, NULL, false, true);
		addNSItemToQuery(parse, item, false, true, true);
		expression = transformExpr(parse, copyObject(column->raw_default), EXPR_KIND_ALTER_COL_TRANSFORM);
	}
	else
	{
		Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(relation), number - 1);

		expression = (Node *) makeVar(1, number, attribute->atttypid, attribute->atttypmod, attribute->attcollation, 0);
	}
	expression = coerce_to_target_type(parse, expression, exprType(expression), type, typmod, COERCION_ASSIGNMENT,
									   COERCE_IMPLICIT_CAST, -1);
	free_parsestate(parse);
	if (expression == NULL)
		return true;
	if (contain_mutable_functions(expression) && !IsNewAndEmpty(relation))
		Refuse("ALTER TABLE ... ALTER COLUMN TYPE that rewrites table data may not affect replicated tables on a BDR node",
			   psprintf("The new values of column \"%s\" do not depend on the old ones alone: each node would have its own.",
						command->name),
			   "Add a column of the new type, UPDATE it, then drop the old one and rename. Or use an immutable expression with USING.");
	while (IsA(expression, RelabelType))
		expression = (Node *) ((RelabelType *) expression)->arg;
	return !IsA(expression, Var);
}

/* ---- ALTER TABLE ---------------------------------------------------------------------------------------------- */

/* Returns whether a part of ALTER TABLE may go on while others write to the table. */
static bool
LeavesRowsAlone(const AlterTableCmd *command)
{
	switch (command->subtype)
	{
		case AT_AddColumn:
		case AT_ColumnDefault:
		case AT_SetStatistics:
		case AT_ValidateConstraint:
		case AT_AttachPartition:
		case AT_DetachPartition:
		case AT_EnableTrig:
		case AT_EnableTrigAll:
		case AT_EnableTrigUser:
		case AT_ClusterOn:
		case AT_DropCluster:
		case AT_SetRelOptions:
		case AT_ResetRelOptions:
		case AT_ChangeOwner:
			return true;
		case AT_AddConstraint:
			return IsA(command->def, Constraint) && ((Constraint *) command->def)->skip_validation;
		default:
			return false;
	}
}

static void
CheckStorage(Relation relation, const AlterTableCmd *command)
{
	AttrNumber	number;

	if (!IsA(command->def, String) || pg_strcasecmp(strVal(command->def), "external") != 0)
		return;
	number = get_attnum(RelationGetRelid(relation), command->name);
	if (number > 0 && bms_is_member(number - FirstLowInvalidHeapAttributeNumber,
									RelationGetIndexAttrBitmap(relation, INDEX_ATTR_BITMAP_IDENTITY_KEY)))
		Refuse(psprintf("ALTER TABLE ... ALTER COLUMN \"%s\" SET STORAGE EXTERNAL cannot be replicated", command->name),
			   "The column is part of the replica identity.", "Use another storage.");
}

/* Whether an expression has another value on each node, because it is run at another time or is volatile. */
static bool
IsOfNow(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, SQLValueFunction))
		return true;
	if (IsA(node, FuncExpr))
	{
		Oid			function = ((FuncExpr *) node)->funcid;

		/* also statement_timestamp() and transaction_timestamp(); what is stable otherwise depends on settings, which are sent */
		if (function == F_NOW || function == F_STATEMENT_TIMESTAMP || function == F_TRANSACTION_TIMESTAMP)
			return true;
	}
	return expression_tree_walker(node, IsOfNow, context);
}

/* The bounds would differ, and a row of one node find no partition on another. */
static void
CheckBounds(const PartitionBoundSpec *bounds)
{
	List	   *values;
	ListCell   *cell;

	if (bounds == NULL)
		return;
	values = list_concat(list_concat(list_copy(bounds->listdatums), bounds->lowerdatums), bounds->upperdatums);
	foreach(cell, values)
	{
		Node	   *raw = lfirst(cell);
		Node	   *value;

		/* MINVALUE and MAXVALUE; the server finds what is wrong with others */
		if (IsA(raw, ColumnRef) || IsA(raw, A_Const))
			continue;
		value = transformExpr(make_parsestate(NULL), copyObject(raw), EXPR_KIND_PARTITION_BOUND);
		if (IsOfNow(value, NULL) || contain_volatile_functions(value) || IsRelativeTime(raw, exprType(value)))
			Refuse("a partition whose bounds depend on when the statement runs cannot be replicated",
				   "Each node would give it other bounds.", "Write the value that the bound is to have, for example with format() and EXECUTE.");
	}
}

static void
JudgeAlterTable(AlterTableStmt *statement, const char *query, bool enforce, BdrDdlPlan *plan)
{
	Oid			relid = RangeVarGetRelid(statement->relation, NoLock, true);
	int			scope = OidIsValid(relid) ? ScopeOfRelid(relid) : MISSING;
	bool		rewrites = false;
	const ColumnDef *filled = NULL;
	Relation	relation;
	ListCell   *cell;

	if (scope & LOCAL_SCOPES)
	{
		if (enforce && scope == UNLOGGED)
		{
			foreach(cell, statement->cmds)
			{
				if (lfirst_node(AlterTableCmd, cell)->subtype == AT_SetLogged)
					Refuse("ALTER TABLE ... SET LOGGED cannot be replicated",
						   "The rows of an unlogged table are not there on other nodes.",
						   "Create another table and INSERT the rows into it.");
			}
		}
		return;
	}
	plan->kind = BDR_DDL_TEXT;
	if (scope == MISSING || !enforce)
		return;
	/* not kept: two sessions that both keep it could not both get a stronger one */
	relation = try_relation_open(relid, AccessShareLock);
	if (relation == NULL)
		return;
	foreach(cell, statement->cmds)
	{
		AlterTableCmd *command = lfirst_node(AlterTableCmd, cell);
		bool		alone = LeavesRowsAlone(command);

		switch (command->subtype)
		{
			case AT_AddColumn:
				if (CheckAddColumn(relation, command, query))
					filled = castNode(ColumnDef, command->def);
				break;
			case AT_AlterColumnType:
				alone = !CheckColumnType(relation, command, query);
				break;
			case AT_SetStorage:
				CheckStorage(relation, command);
				break;
			case AT_SetUnLogged:
				/* it would be there on other nodes, but nothing that is done to it later would be sent */
				Refuse("ALTER TABLE ... SET UNLOGGED cannot be replicated",
					   "What is done to an unlogged table concerns one node only, also DROP TABLE.",
					   "Create another table that is unlogged on the node that needs it.");
				break;
			case AT_AddConstraint:
				if (!IsA(command->def, Constraint))
					break;
				if (((Constraint *) command->def)->contype == CONSTR_EXCLUSION)
					Refuse("ALTER TABLE ... ADD CONSTRAINT ... EXCLUDE cannot be replicated",
						   "Rows that do not exclude one another on one node can do so on another one.", HINT_ALL_NODES);
				if (((Constraint *) command->def)->contype == CONSTR_FOREIGN)
					CheckForeignKey((Constraint *) command->def);
				break;
			case AT_AttachPartition:
				RequireShared(castNode(PartitionCmd, command->def)->name, "ALTER TABLE ... ATTACH PARTITION");
				CheckBounds(castNode(PartitionCmd, command->def)->bound);
				break;
			case AT_DetachPartition:
				if (castNode(PartitionCmd, command->def)->concurrent)
					RefuseConcurrently("ALTER TABLE ... DETACH PARTITION CONCURRENTLY");
				break;
			case AT_DetachPartitionFinalize:
				RefuseConcurrently("ALTER TABLE ... DETACH PARTITION FINALIZE");
				break;
			case AT_AddInherit:
				RequireShared(castNode(RangeVar, command->def), "ALTER TABLE ... INHERIT");
				break;
			default:
				break;
		}
		rewrites |= !alone;
	}
	if (rewrites && relation->rd_createSubid == InvalidSubTransactionId &&
		(relation->rd_rel->relkind == RELKIND_RELATION || relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE))
		plan->dml_locked = list_make1_oid(relid);
	if (filled)
		PlanFill(relation, statement, filled, plan);
	relation_close(relation, AccessShareLock);
}

/* ---- other statements ----------------------------------------------------------------------------------------- */

static void
LockDml(BdrDdlPlan *plan, const RangeVar *name)
{
	Oid			relid = RangeVarGetRelid(name, NoLock, true);
	Relation	relation;

	if (!OidIsValid(relid))
		return;
	/* nobody else has written to what this transaction has made */
	relation = try_relation_open(relid, AccessShareLock);
	if (relation == NULL)
		return;
	if (relation->rd_createSubid == InvalidSubTransactionId)
		plan->dml_locked = list_append_unique_oid(plan->dml_locked, relid);
	relation_close(relation, AccessShareLock);
}

static bool
IsInvalidIndex(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(relid));
	bool		result = false;

	if (HeapTupleIsValid(tuple))
	{
		result = !((Form_pg_index) GETSTRUCT(tuple))->indisvalid && get_rel_relkind(relid) == RELKIND_INDEX;
		ReleaseSysCache(tuple);
	}
	return result;
}

static void
JudgeDrop(DropStmt *statement, bool enforce, BdrDdlPlan *plan)
{
	int			scopes = 0;
	ListCell   *cell;

	foreach(cell, statement->objects)
		scopes |= ScopeOfObject(statement->removeType, lfirst(cell));
	plan->kind = KindOf(scopes, "DROP", enforce);
	/* what falls with it falls on other nodes, too */
	plan->may_use_temporary = true;
	if (plan->kind == BDR_DDL_LOCAL || !enforce)
		return;
	if (statement->concurrent)
		RefuseConcurrently("DROP INDEX CONCURRENTLY");
	foreach(cell, statement->objects)
	{
		RangeVar   *name;

		if (statement->removeType != OBJECT_TABLE && statement->removeType != OBJECT_INDEX)
			break;
		name = makeRangeVarFromNameList(castNode(List, lfirst(cell)));
		if (statement->removeType == OBJECT_TABLE)
			LockDml(plan, name);
		else if (IsInvalidIndex(RangeVarGetRelid(name, NoLock, true)))
			Refuse(psprintf("DROP INDEX of the invalid index \"%s\" cannot be replicated", name->relname),
				   "Other nodes may not have it.",
				   "SET bdr.ddl_replication = off, and DROP INDEX on the nodes that have it.");
	}
}

/* Objects of the server are alike on all nodes, and rights on them are given to the same roles. */
static int
ScopeForRights(Oid namespace, int scope)
{
	return scope == OURS && OidIsValid(namespace) &&
		(namespace == PG_CATALOG_NAMESPACE || namespace == get_namespace_oid("information_schema", true)) ? SHARED : scope;
}

static void
JudgeGrant(GrantStmt *statement, bool enforce, BdrDdlPlan *plan)
{
	int			scopes = 0;
	ListCell   *cell;

	/* rights on this database are part of it, and what is created by them; each node has it under its own name */
	if (statement->objtype == OBJECT_DATABASE && statement->targtype == ACL_TARGET_OBJECT && list_length(statement->objects) == 1 &&
		get_database_oid(strVal(linitial(statement->objects)), true) == MyDatabaseId)
	{
		plan->kind = BDR_DDL_TEXT;
		return;
	}
	if (IsLocalKind(statement->objtype))
		return;
	plan->kind = BDR_DDL_TEXT;
	foreach(cell, statement->objects)
	{
		Node	   *object = lfirst(cell);

		if (statement->targtype != ACL_TARGET_OBJECT || statement->objtype == OBJECT_SCHEMA)
			scopes |= IsA(object, String) ? ScopeForRights(get_namespace_oid(strVal(object), true), ScopeOfSchemaName(strVal(object))) : SHARED;
		else if (IsA(object, RangeVar))
			scopes |= ScopeForRights(get_rel_namespace(RangeVarGetRelid((RangeVar *) object, NoLock, true)),
									 ScopeOfRelation((RangeVar *) object));
		else if (IsA(object, ObjectWithArgs))
		{
			List	   *names = ((ObjectWithArgs *) object)->objname;
			Oid			namespace = list_length(names) < 2 ? InvalidOid :
				get_namespace_oid(strVal(list_nth(names, list_length(names) - 2)), true);

			scopes |= ScopeForRights(namespace, ScopeOfNames(names));
		}
		else if (IsA(object, List) && (statement->objtype == OBJECT_TYPE || statement->objtype == OBJECT_DOMAIN))
			scopes |= ScopeOfTypeNames((List *) object);
		else
			scopes |= SHARED;
	}
	plan->kind = KindOf(scopes, statement->is_grant ? "GRANT" : "REVOKE", enforce);
}

static void
JudgeCreateTable(CreateStmt *statement, bool enforce, BdrDdlPlan *plan)
{
	ListCell   *cell;

	if (ScopeOfNewRelation(statement->relation) != SHARED)
		return;
	plan->kind = BDR_DDL_TEXT;
	if (IsA(statement, CreateStmt))
		plan->table = statement->relation;
	if (!enforce)
		return;
	CheckBounds(statement->partbound);
	foreach(cell, statement->inhRelations)
		RequireShared(lfirst_node(RangeVar, cell), statement->partbound ? "CREATE TABLE ... PARTITION OF" : "CREATE TABLE ... INHERITS");
	foreach(cell, statement->tableElts)
	{
		if (IsA(lfirst(cell), TableLikeClause))
			RequireShared(((TableLikeClause *) lfirst(cell))->relation, "CREATE TABLE ... LIKE");
	}
}

static void
JudgeTableAs(CreateTableAsStmt *statement, BdrDdlPlan *plan)
{
	if (ScopeOfNewRelation(statement->into->rel) != SHARED)
		return;
	if (statement->objtype == OBJECT_MATVIEW)
		plan->kind = BDR_DDL_TEXT;
	else
	{
		plan->kind = BDR_DDL_TABLE_AS;
		plan->into = statement->into;
		plan->table = statement->into->rel;
	}
}

static void
ByScope(int scope, BdrDdlPlan *plan)
{
	plan->kind = (scope & LOCAL_SCOPES) ? BDR_DDL_LOCAL : BDR_DDL_TEXT;
}

static void
ByKind(ObjectType type, Node *object, BdrDdlPlan *plan)
{
	if (type == OBJECT_ROLE)
	{
		plan->kind = BDR_DDL_TEXT;
		plan->of_role = true;
	}
	else
		ByScope(ScopeOfObject(type, object), plan);
}

/* Event triggers may use what they like. */
static bool
HasEventTriggers(void)
{
	return EventCacheLookup(EVT_DDLCommandStart) != NIL || EventCacheLookup(EVT_DDLCommandEnd) != NIL ||
		EventCacheLookup(EVT_SQLDrop) != NIL || EventCacheLookup(EVT_TableRewrite) != NIL;
}

void
bdr_ddl_judge(Node *statement, const char *query, bool enforce, BdrDdlPlan *plan)
{
	ListCell   *cell;

	memset(plan, 0, sizeof(*plan));
	plan->kind = BDR_DDL_LOCAL;
	switch (nodeTag(statement))
	{
			/* the server's own, or each node's */
		case T_CreatedbStmt:
		case T_AlterDatabaseStmt:
		case T_AlterDatabaseRefreshCollStmt:
		case T_AlterDatabaseSetStmt:
		case T_DropdbStmt:
		case T_CreateTableSpaceStmt:
		case T_AlterTableSpaceOptionsStmt:
		case T_DropTableSpaceStmt:
		case T_AlterTableMoveAllStmt:
		case T_AlterSystemStmt:
		case T_CreateSubscriptionStmt:
		case T_AlterSubscriptionStmt:
		case T_DropSubscriptionStmt:
		case T_ClusterStmt:
		case T_RefreshMatViewStmt:
		case T_ReindexStmt:
		case T_PrepareStmt:
		case T_ExecuteStmt:
			return;

		case T_ExplainStmt:
			{
				Query	   *explained = (Query *) ((ExplainStmt *) statement)->query;

				/* with ANALYZE, or it would not count as DDL */
				if (IsA(explained, Query) && explained->commandType == CMD_UTILITY &&
					IsA(explained->utilityStmt, CreateTableAsStmt))
					JudgeTableAs((CreateTableAsStmt *) explained->utilityStmt, plan);
				break;
			}
		case T_CreateTableAsStmt:
			JudgeTableAs((CreateTableAsStmt *) statement, plan);
			break;

		case T_CreateRoleStmt:
		case T_AlterRoleStmt:
		case T_DropRoleStmt:
		case T_GrantRoleStmt:
			plan->kind = BDR_DDL_TEXT;
			plan->of_role = true;
			break;
		case T_AlterRoleSetStmt:
			/* databases have names of their own on each server */
			if (((AlterRoleSetStmt *) statement)->database)
				return;
			plan->kind = BDR_DDL_TEXT;
			plan->of_role = true;
			break;

		case T_CreateExtensionStmt:
			ByScope(strcmp(((CreateExtensionStmt *) statement)->extname, BDR_EXTENSION) == 0 ? OURS : SHARED, plan);
			break;
		case T_AlterExtensionStmt:
			ByScope(strcmp(((AlterExtensionStmt *) statement)->extname, BDR_EXTENSION) == 0 ? OURS : SHARED, plan);
			break;
		case T_AlterExtensionContentsStmt:
			ByScope(strcmp(((AlterExtensionContentsStmt *) statement)->extname, BDR_EXTENSION) == 0 ? OURS : SHARED, plan);
			break;

		case T_CreateStmt:
		case T_CreateForeignTableStmt:
			JudgeCreateTable((CreateStmt *) statement, enforce, plan);
			plan->uses_temporary = UseTemporaryTypes(((CreateStmt *) statement)->tableElts);
			break;
		case T_ViewStmt:
			ByScope(ScopeOfNewRelation(((ViewStmt *) statement)->view), plan);
			plan->after = true;
			plan->view = ((ViewStmt *) statement)->view;
			break;
		case T_CreateSeqStmt:
			ByScope(ScopeOfNewRelation(((CreateSeqStmt *) statement)->sequence), plan);
			break;
		case T_CompositeTypeStmt:
			ByScope(ScopeOfNewRelation(((CompositeTypeStmt *) statement)->typevar), plan);
			plan->uses_temporary = UseTemporaryTypes(((CompositeTypeStmt *) statement)->coldeflist);
			break;

		case T_AlterTableStmt:
			JudgeAlterTable((AlterTableStmt *) statement, query, enforce, plan);
			break;
		case T_IndexStmt:
			ByScope(ScopeOfRelation(((IndexStmt *) statement)->relation), plan);
			if (plan->kind == BDR_DDL_LOCAL || !enforce)
				break;
			if (((IndexStmt *) statement)->concurrent)
				RefuseConcurrently("CREATE INDEX CONCURRENTLY");
			LockDml(plan, ((IndexStmt *) statement)->relation);
			break;
		case T_RuleStmt:
			ByScope(ScopeOfRelation(((RuleStmt *) statement)->relation), plan);
			break;
		case T_CreateTrigStmt:
			ByScope(ScopeOfRelation(((CreateTrigStmt *) statement)->relation), plan);
			break;
		case T_CreatePolicyStmt:
			ByScope(ScopeOfRelation(((CreatePolicyStmt *) statement)->table), plan);
			if (plan->kind == BDR_DDL_TEXT && enforce)
				LockDml(plan, ((CreatePolicyStmt *) statement)->table);
			break;
		case T_AlterPolicyStmt:
			ByScope(ScopeOfRelation(((AlterPolicyStmt *) statement)->table), plan);
			break;
		case T_AlterSeqStmt:
			ByScope(ScopeOfRelation(((AlterSeqStmt *) statement)->sequence), plan);
			if (plan->kind == BDR_DDL_TEXT && enforce)
				LockDml(plan, ((AlterSeqStmt *) statement)->sequence);
			break;
		case T_CreateStatsStmt:
			plan->kind = BDR_DDL_TEXT;
			foreach(cell, ((CreateStatsStmt *) statement)->relations)
			{
				if (IsA(lfirst(cell), RangeVar))
					ByScope(ScopeOfRelation(lfirst_node(RangeVar, cell)), plan);
			}
			break;

		case T_CreateFunctionStmt:
			{
				CreateFunctionStmt *create = (CreateFunctionStmt *) statement;

				ByScope(ScopeOfNewNames(create->funcname), plan);
				/* other nodes do not look into a body that is a string; the rest of it is looked at everywhere */
				plan->may_use_temporary = create->sql_body == NULL;
				foreach(cell, create->parameters)
				{
					FunctionParameter *parameter = lfirst_node(FunctionParameter, cell);

					plan->uses_temporary |= IsTemporaryType(parameter->argType);
					plan->may_use_temporary &= parameter->defexpr == NULL;
				}
				plan->uses_temporary |= IsTemporaryType(create->returnType);
				break;
			}
		case T_AlterFunctionStmt:
			ByScope(ScopeOfNames(((AlterFunctionStmt *) statement)->func->objname), plan);
			break;
		case T_DefineStmt:
			ByScope(ScopeOfNewNames(((DefineStmt *) statement)->defnames), plan);
			break;
		case T_CreateDomainStmt:
			ByScope(ScopeOfNewNames(((CreateDomainStmt *) statement)->domainname), plan);
			plan->uses_temporary = IsTemporaryType(((CreateDomainStmt *) statement)->typeName);
			break;
		case T_CreateEnumStmt:
			ByScope(ScopeOfNewNames(((CreateEnumStmt *) statement)->typeName), plan);
			break;
		case T_CreateRangeStmt:
			ByScope(ScopeOfNewNames(((CreateRangeStmt *) statement)->typeName), plan);
			break;
		case T_AlterDomainStmt:
			ByScope(ScopeOfTypeNames(((AlterDomainStmt *) statement)->typeName), plan);
			break;
		case T_AlterEnumStmt:
			ByScope(ScopeOfTypeNames(((AlterEnumStmt *) statement)->typeName), plan);
			break;
		case T_AlterTypeStmt:
			ByScope(ScopeOfTypeNames(((AlterTypeStmt *) statement)->typeName), plan);
			break;

		case T_DropStmt:
			JudgeDrop((DropStmt *) statement, enforce, plan);
			break;
		case T_DropOwnedStmt:
		case T_ReassignOwnedStmt:
			plan->kind = BDR_DDL_TEXT;
			plan->may_use_temporary = true;
			break;
		case T_GrantStmt:
			JudgeGrant((GrantStmt *) statement, enforce, plan);
			break;
		case T_CommentStmt:
			ByKind(((CommentStmt *) statement)->objtype, ((CommentStmt *) statement)->object, plan);
			break;
		case T_SecLabelStmt:
			ByKind(((SecLabelStmt *) statement)->objtype, ((SecLabelStmt *) statement)->object, plan);
			break;
		case T_AlterOwnerStmt:
			{
				AlterOwnerStmt *alter = (AlterOwnerStmt *) statement;

				if (alter->objectType == OBJECT_LARGEOBJECT && enforce)
					Refuse("ALTER LARGE OBJECT cannot be replicated", "Large objects are not replicated.",
						   "SET bdr.ddl_replication = off to change that of this node.");
				ByKind(alter->objectType, alter->object, plan);
				break;
			}
		case T_RenameStmt:
			{
				RenameStmt *rename = (RenameStmt *) statement;

				if (rename->renameType == OBJECT_ROLE)
				{
					plan->kind = BDR_DDL_TEXT;
					plan->of_role = true;
				}
				else if (rename->relation)
				{
					ByScope(ScopeOfRelation(rename->relation), plan);
					if (plan->kind == BDR_DDL_TEXT && enforce &&
						(rename->renameType == OBJECT_TABLE || rename->renameType == OBJECT_COLUMN))
						LockDml(plan, rename->relation);
				}
				else if (rename->object)
					ByScope(ScopeOfObject(rename->renameType, rename->object), plan);
				else if (rename->renameType == OBJECT_SCHEMA)
					ByScope(ScopeOfSchemaName(rename->subname), plan);
				else
					ByScope(IsLocalKind(rename->renameType) ? OURS : SHARED, plan);
				break;
			}
		case T_AlterObjectSchemaStmt:
			{
				AlterObjectSchemaStmt *alter = (AlterObjectSchemaStmt *) statement;

				if (alter->relation)
				{
					ByScope(ScopeOfRelation(alter->relation), plan);
					if (plan->kind == BDR_DDL_TEXT && enforce && alter->objectType == OBJECT_TABLE)
						LockDml(plan, alter->relation);
				}
				else
					ByScope(ScopeOfObject(alter->objectType, alter->object), plan);
				break;
			}
		case T_AlterObjectDependsStmt:
			{
				AlterObjectDependsStmt *alter = (AlterObjectDependsStmt *) statement;

				ByScope(alter->relation ? ScopeOfRelation(alter->relation) : SHARED, plan);
				break;
			}

		default:
			if (GetCommandLogLevel(statement) == LOGSTMT_DDL)
				plan->kind = BDR_DDL_TEXT;
			break;
	}
	if (plan->kind == BDR_DDL_TEXT && !plan->may_use_temporary && enforce)
		plan->may_use_temporary = HasEventTriggers();
}
