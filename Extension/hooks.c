/*
 * hooks.c: what bdr adds to the statements of ordinary sessions.
 *
 * The write gate refuses writes while the local node is joining or leaving its group: what a session wrote then would be lost
 * under the copy, or be known to no other node. Statements that the planner made are judged when they start, so that
 * functions, DO, prepared statements and referential actions need no thought; utility commands are judged by their kind
 * and target.
 *
 * The identity check refuses UPDATE and DELETE of a replicated table whose rows other nodes could not find, as the
 * server does it for tables of a publication.
 *
 * Commands that need a database without sessions find those of bdr gone: its workers, and the walsenders that serve its
 * peers. The last part of this file.
 */
#include "bdr.h"
#include "attempt.h"
#include "compat.h"
#include "ddl.h"
#include "ddl_locks.h"
#include "row_stamps.h"

#include "access/htup_details.h"
#include "access/parallel.h"
#include "access/relation.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/plannodes.h"
#include "parser/parsetree.h"
#include "pgstat.h"
#include "replication/origin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/syscache.h"

/* How long a command that needs a quiet database waits for bdr's processes to go, ms; then the server decides. */
#define QUIET_TIMEOUT 5000
/* How often they are asked, ms. */
#define QUIET_POLL 50

/* Node states that matter before the manager has told; numbers are those of NodeState (Membership/NodeState.swift). */
enum
{
	STATE_JOIN_START = 2,
	STATE_ACTIVE = 8,
	STATE_PARTED = 12
};

/* What a ProcessUtility hook is called with, to be handed on. */
typedef struct Utility
{
	PlannedStmt *planned;
	const char *query;
	bool		read_only_tree;
	ProcessUtilityContext context;
	ParamListInfo parameters;
	QueryEnvironment *environment;
	DestReceiver *destination;
	QueryCompletion *completion;
} Utility;

static ExecutorStart_hook_type previous_executor_start = NULL;
static ProcessUtility_hook_type previous_utility = NULL;

/* ---- sections of bdr itself ----------------------------------------------------------------------------------- */

/* Nesting level of the transaction that switched the exemption on, 0 while it is off. */
static int	exempt_level = 0;

static void
EndExemption(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			exempt_level = 0;
			break;
		default:
			break;
	}
}

static void
EndSubExemption(SubXactEvent event, SubTransactionId id, SubTransactionId parent, void *arg)
{
	if (exempt_level == 0 || exempt_level < GetCurrentTransactionNestLevel())
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		exempt_level = 0;
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		exempt_level--;
}

bool
bdr_gate_exempt(bool on)
{
	static bool registered = false;
	bool		was = exempt_level > 0;

	if (on && !registered)
	{
		RegisterXactCallback(EndExemption, NULL);
		RegisterSubXactCallback(EndSubExemption, NULL);
		registered = true;
	}
	if (!on)
		exempt_level = 0;
	else if (!was)
		exempt_level = GetCurrentTransactionNestLevel();
	return was;
}

/* ---- what this database's node demands ------------------------------------------------------------------------ */

/*
 * Fills in what the manager has not told yet, from the tables that it will read. After a start of the server this keeps
 * the window closed in which a joining node would take writes, or an active one changes that other nodes can't follow.
 */
static void
ReadCatalogs(BdrGate *gate)
{
	BdrCatalogScan scan;
	Datum		node;
	Datum		system;
	Datum		database;
	Datum		state;

	if (!IsTransactionState() || !bdr_catalog_open(&scan, "local_node"))
		return;
	/* a copy of a node, on another server or in another database, is none */
	while (bdr_catalog_next(&scan))
	{
		if (bdr_catalog_column(&scan, "node_id", OIDOID, &node) &&
			bdr_catalog_column(&scan, "system_identifier", INT8OID, &system) &&
			bdr_catalog_column(&scan, "database_oid", OIDOID, &database) &&
			(uint64) DatumGetInt64(system) == GetSystemIdentifier() && DatumGetObjectId(database) == MyDatabaseId)
			gate->node_id = DatumGetObjectId(node);
	}
	bdr_catalog_close(&scan);
	if (gate->node_id == 0 || !bdr_catalog_open(&scan, "node"))
		return;
	while (bdr_catalog_next(&scan))
	{
		if (bdr_catalog_column(&scan, "node_id", OIDOID, &node) && DatumGetObjectId(node) == gate->node_id &&
			bdr_catalog_column(&scan, "node_state", OIDOID, &state))
			gate->node_state = (int) DatumGetObjectId(state);
	}
	bdr_catalog_close(&scan);
	gate->refuse_writes = gate->node_state >= STATE_JOIN_START && gate->node_state < STATE_PARTED &&
		gate->node_state != STATE_ACTIVE;
	gate->check_identity = gate->node_state >= STATE_JOIN_START && gate->node_state < STATE_PARTED;
}

/* Costs one read of shared memory as long as nothing has changed. */
static const BdrGate *
CurrentGate(void)
{
	static BdrGate gate;
	static LocalTransactionId read_in;	/* what is not known holds for one transaction */

	if (gate.generation == bdr_gate_generation() && (gate.known || read_in == bdr_my_lxid()))
		return &gate;
	if (!bdr_gate_read(&gate))
	{
		ReadCatalogs(&gate);
		read_in = bdr_my_lxid();
	}
	return &gate;
}

/*
 * A database that is in no group counts as node 0: what it writes reaches nobody, and whoever joins it later gets a copy. A
 * server that has not preloaded the module has no shared memory to look into; its nodes are nodes all the same.
 */
uint32
bdr_local_node_id(void)
{
	const BdrGate *gate;

	if (bdr_preloaded())
		gate = CurrentGate();
	else
	{
		static BdrGate read;
		static LocalTransactionId read_in;

		if (read_in != bdr_my_lxid())
		{
			memset(&read, 0, sizeof(read));
			ReadCatalogs(&read);
			read_in = bdr_my_lxid();
		}
		gate = &read;
	}
	return gate->node_state >= STATE_JOIN_START && gate->node_state < STATE_PARTED ? gate->node_id : 0;
}

bool
bdr_node_is_active(void)
{
	return CurrentGate()->node_state == STATE_ACTIVE;
}

/* Whether this session may not write now. */
static bool
IsRefused(void)
{
	return exempt_level == 0 && !bdr_internal_session && !bdr_is_worker() && CurrentGate()->refuse_writes;
}

static void Refuse(void) pg_attribute_noreturn();

static void
Refuse(void)
{
	const BdrGate *gate = CurrentGate();
	BdrCatalogScan scan;
	Datum		node;
	Datum		name;
	NameData	found = {{0}};
	char	   *state = NULL;
	char	   *shown;

	ENGINE_CALL(bdr_engine_state_name((uint32) gate->node_state, &state));
	if (bdr_catalog_open(&scan, "node"))
	{
		while (bdr_catalog_next(&scan))
		{
			if (bdr_catalog_column(&scan, "node_id", OIDOID, &node) && DatumGetObjectId(node) == gate->node_id &&
				bdr_catalog_column(&scan, "node_name", NAMEOID, &name))
				found = *DatumGetName(name);
		}
		bdr_catalog_close(&scan);
	}
	shown = pstrdup(state ? state : "unknown");
	bdr_host_free(state);
	if (gate->node_state > STATE_ACTIVE)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 NameStr(found)[0] != '\0'
				 ? errmsg("cannot write to this database: node \"%s\" is leaving its group", NameStr(found))
				 : errmsg("cannot write to this database: the local node is leaving its group"),
				 errdetail("The node's state is %s.", shown),
				 errhint("Write on another node of the group, or here when the node has left.")));
	ereport(ERROR,
			(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
			 NameStr(found)[0] != '\0'
			 ? errmsg("cannot write to this database: node \"%s\" is still joining its group", NameStr(found))
			 : errmsg("cannot write to this database: the local node is still joining its group"),
			 errdetail("The node's state is %s.", shown),
			 errhint("Wait for the join: SELECT bdr.wait_for_join_completion();")));
}

bool
bdr_is_user_namespace(Oid namespace)
{
	char	   *name;

	if (IsCatalogNamespace(namespace) || IsToastNamespace(namespace) || isAnyTempNamespace(namespace))
		return false;
	name = get_namespace_name(namespace);
	return name == NULL || (strcmp(name, "information_schema") != 0 && strcmp(name, BDR_SCHEMA) != 0);
}

/* Whether rows of a table may concern other nodes. Not those of views, whose triggers write what they write. */
static bool
IsUserTable(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class class;
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	class = (Form_pg_class) GETSTRUCT(tuple);
	result = (class->relkind == RELKIND_RELATION || class->relkind == RELKIND_PARTITIONED_TABLE) &&
		class->relpersistence != RELPERSISTENCE_TEMP && bdr_is_user_namespace(class->relnamespace);
	ReleaseSysCache(tuple);
	/* tables of extensions are theirs, on each node */
	return result && !OidIsValid(getExtensionOfObject(RelationRelationId, relid));
}

/* ---- write gate: planned statements --------------------------------------------------------------------------- */

/* Whether a plan writes a table that concerns other nodes: modifying CTEs are among the result relations. */
static bool
PlanWrites(PlannedStmt *plan)
{
	ListCell   *cell;

	foreach(cell, plan->resultRelations)
	{
		if (IsUserTable(rt_fetch(lfirst_int(cell), plan->rtable)->relid))
			return true;
	}
	return false;
}

/* ---- write gate: utility commands ----------------------------------------------------------------------------- */

/* A relation that is there already. Of one that is not, the server says so. */
static bool
IsUserRelation(const RangeVar *name)
{
	Oid			relid = RangeVarGetRelid(name, NoLock, true);

	return OidIsValid(relid) && bdr_is_user_namespace(get_rel_namespace(relid));
}

static bool
IsUserTableName(const RangeVar *name)
{
	Oid			relid = RangeVarGetRelid(name, NoLock, true);

	return OidIsValid(relid) && IsUserTable(relid);
}

/* A relation that would be made. */
static bool
WouldBeUserRelation(const RangeVar *name)
{
	return name->relpersistence != RELPERSISTENCE_TEMP && bdr_is_user_namespace(RangeVarGetCreationNamespace(name));
}

/* An object that is no relation: one that is not said to be in a schema of ours or a temporary one. */
static bool
IsUserObject(List *names)
{
	const char *schema;
	Oid			namespace;

	if (list_length(names) < 2)
		return true;
	schema = strVal(list_nth(names, list_length(names) - 2));
	if (strcmp(schema, "pg_temp") == 0)
		return false;
	namespace = get_namespace_oid(schema, true);
	return !OidIsValid(namespace) || bdr_is_user_namespace(namespace);
}

/* Objects of the server, or of this database alone whatever its node does. */
static bool
IsLocalKind(ObjectType type)
{
	return type == OBJECT_DATABASE || type == OBJECT_ROLE || type == OBJECT_TABLESPACE ||
		type == OBJECT_PARAMETER_ACL || type == OBJECT_SUBSCRIPTION;
}

/* An object of a kind, by the node that the parser has for it in DROP, COMMENT and the like. */
static bool
IsUserObjectOfKind(ObjectType type, Node *object)
{
	RangeVar   *relation;

	if (IsLocalKind(type))
		return false;
	if (bdr_object_relation(type, object, &relation))
		return relation == NULL || IsUserRelation(relation);
	if (type == OBJECT_EXTENSION)
		return !IsA(object, String) || strcmp(strVal(object), BDR_EXTENSION) != 0;
	if (IsA(object, ObjectWithArgs))
		return IsUserObject(((ObjectWithArgs *) object)->objname);
	if (IsA(object, TypeName))
		return IsUserObject(((TypeName *) object)->names);
	return true;
}

static bool
DropWrites(DropStmt *statement)
{
	ListCell   *cell;

	foreach(cell, statement->objects)
	{
		if (IsUserObjectOfKind(statement->removeType, lfirst(cell)))
			return true;
	}
	return false;
}

static bool
GrantWrites(GrantStmt *statement)
{
	ListCell   *cell;

	if (IsLocalKind(statement->objtype))
		return false;
	if (statement->targtype != ACL_TARGET_OBJECT ||
		(statement->objtype != OBJECT_TABLE && statement->objtype != OBJECT_SEQUENCE))
		return true;
	foreach(cell, statement->objects)
	{
		if (IsUserRelation(lfirst_node(RangeVar, cell)))
			return true;
	}
	return false;
}

/*
 * Whether a utility command writes what concerns other nodes: rows, or the schema that they shall be written into.
 * Kinds that are not named here are judged by how the server logs them, so that a new kind of DDL is refused.
 */
static bool
UtilityWrites(Node *statement)
{
	ListCell   *cell;

	switch (nodeTag(statement))
	{
			/* what these run comes by on its own */
		case T_PrepareStmt:
		case T_ExecuteStmt:
			return false;
		case T_ExplainStmt:
			{
				Query	   *query = (Query *) ((ExplainStmt *) statement)->query;

				/* with ANALYZE, or the command would not have got here: it makes the table */
				return IsA(query, Query) && query->commandType == CMD_UTILITY &&
					IsA(query->utilityStmt, CreateTableAsStmt) && UtilityWrites(query->utilityStmt);
			}

			/* the server's own */
		case T_CreatedbStmt:
		case T_AlterDatabaseStmt:
		case T_AlterDatabaseRefreshCollStmt:
		case T_AlterDatabaseSetStmt:
		case T_DropdbStmt:
		case T_CreateRoleStmt:
		case T_AlterRoleStmt:
		case T_AlterRoleSetStmt:
		case T_DropRoleStmt:
		case T_GrantRoleStmt:
		case T_CreateTableSpaceStmt:
		case T_AlterTableSpaceOptionsStmt:
		case T_DropTableSpaceStmt:
		case T_AlterSystemStmt:
			return false;

			/* rows and schema stay as they are; and who has a subscription that disturbs must be able to stop it */
		case T_ClusterStmt:
		case T_AlterSubscriptionStmt:
		case T_DropSubscriptionStmt:
			return false;

		case T_CreateExtensionStmt:
			return strcmp(((CreateExtensionStmt *) statement)->extname, BDR_EXTENSION) != 0;
		case T_AlterExtensionStmt:
			return strcmp(((AlterExtensionStmt *) statement)->extname, BDR_EXTENSION) != 0;
		case T_AlterExtensionContentsStmt:
			return strcmp(((AlterExtensionContentsStmt *) statement)->extname, BDR_EXTENSION) != 0;

		case T_CopyStmt:
			{
				CopyStmt   *copy = (CopyStmt *) statement;

				return copy->is_from && copy->relation && IsUserTableName(copy->relation);
			}
		case T_TruncateStmt:
			foreach(cell, ((TruncateStmt *) statement)->relations)
			{
				if (IsUserTableName(lfirst_node(RangeVar, cell)))
					return true;
			}
			return false;

		case T_CreateStmt:
		case T_CreateForeignTableStmt:
			return WouldBeUserRelation(((CreateStmt *) statement)->relation);
		case T_CreateTableAsStmt:
			return WouldBeUserRelation(((CreateTableAsStmt *) statement)->into->rel);
			/* not to be seen here: that a view will be temporary because a table in it is */
		case T_ViewStmt:
			return WouldBeUserRelation(((ViewStmt *) statement)->view);
		case T_CreateSeqStmt:
			return WouldBeUserRelation(((CreateSeqStmt *) statement)->sequence);
		case T_CompositeTypeStmt:
			return WouldBeUserRelation(((CompositeTypeStmt *) statement)->typevar);

		case T_AlterTableStmt:
			return IsUserRelation(((AlterTableStmt *) statement)->relation);
		case T_IndexStmt:
			return IsUserRelation(((IndexStmt *) statement)->relation);
		case T_RuleStmt:
			return IsUserRelation(((RuleStmt *) statement)->relation);
		case T_CreateTrigStmt:
			return IsUserRelation(((CreateTrigStmt *) statement)->relation);
		case T_CreatePolicyStmt:
			return IsUserRelation(((CreatePolicyStmt *) statement)->table);
		case T_AlterPolicyStmt:
			return IsUserRelation(((AlterPolicyStmt *) statement)->table);
		case T_AlterSeqStmt:
			return IsUserRelation(((AlterSeqStmt *) statement)->sequence);
		case T_RefreshMatViewStmt:
			return IsUserRelation(((RefreshMatViewStmt *) statement)->relation);
		case T_CreateStatsStmt:
			foreach(cell, ((CreateStatsStmt *) statement)->relations)
			{
				if (!IsA(lfirst(cell), RangeVar) || IsUserRelation(lfirst_node(RangeVar, cell)))
					return true;
			}
			return false;

		case T_CreateFunctionStmt:
			return IsUserObject(((CreateFunctionStmt *) statement)->funcname);
		case T_AlterFunctionStmt:
			return IsUserObject(((AlterFunctionStmt *) statement)->func->objname);
		case T_DefineStmt:
			return IsUserObject(((DefineStmt *) statement)->defnames);
		case T_CreateDomainStmt:
			return IsUserObject(((CreateDomainStmt *) statement)->domainname);
		case T_AlterDomainStmt:
			return IsUserObject(((AlterDomainStmt *) statement)->typeName);
		case T_CreateEnumStmt:
			return IsUserObject(((CreateEnumStmt *) statement)->typeName);
		case T_AlterEnumStmt:
			return IsUserObject(((AlterEnumStmt *) statement)->typeName);
		case T_CreateRangeStmt:
			return IsUserObject(((CreateRangeStmt *) statement)->typeName);
		case T_AlterTypeStmt:
			return IsUserObject(((AlterTypeStmt *) statement)->typeName);

		case T_DropStmt:
			return DropWrites((DropStmt *) statement);
		case T_GrantStmt:
			return GrantWrites((GrantStmt *) statement);
		case T_CommentStmt:
			return IsUserObjectOfKind(((CommentStmt *) statement)->objtype, ((CommentStmt *) statement)->object);
		case T_SecLabelStmt:
			return IsUserObjectOfKind(((SecLabelStmt *) statement)->objtype, ((SecLabelStmt *) statement)->object);
		case T_AlterOwnerStmt:
			return IsUserObjectOfKind(((AlterOwnerStmt *) statement)->objectType,
									  ((AlterOwnerStmt *) statement)->object);
		case T_RenameStmt:
			{
				RenameStmt *rename = (RenameStmt *) statement;

				if (rename->relation)
					return IsUserRelation(rename->relation);
				return !IsLocalKind(rename->renameType);
			}
		case T_AlterObjectSchemaStmt:
			{
				AlterObjectSchemaStmt *alter = (AlterObjectSchemaStmt *) statement;

				if (alter->relation)
					return IsUserRelation(alter->relation);
				return alter->objectType != OBJECT_EXTENSION || IsUserObjectOfKind(OBJECT_EXTENSION, alter->object);
			}
		case T_AlterObjectDependsStmt:
			{
				AlterObjectDependsStmt *alter = (AlterObjectDependsStmt *) statement;

				return alter->relation == NULL || IsUserRelation(alter->relation);
			}

		default:
			return GetCommandLogLevel(statement) == LOGSTMT_DDL;
	}
}

/* ---- identity check ------------------------------------------------------------------------------------------- */

/* Roots of partitioned tables all of whose partitions have an identity; as of a generation. */
typedef struct CheckedRoot
{
	Oid			relid;
	uint64		generation;
} CheckedRoot;

static HTAB *checked_roots = NULL;
static uint64 checked_generation = 0;

static void
RelationChanged(Datum arg, Oid relid)
{
	checked_generation++;
}

/* Raises ERROR if rows of the relation are replicated and other nodes could not find one that is updated or deleted. */
static void
CheckRelation(Relation relation, CmdType command)
{
	/* of a partitioned table, the partitions are looked at */
	if (relation->rd_rel->relkind != RELKIND_RELATION ||
		relation->rd_rel->relpersistence != RELPERSISTENCE_PERMANENT ||
		OidIsValid(RelationGetReplicaIndex(relation)) || relation->rd_rel->relreplident == REPLICA_IDENTITY_FULL ||
		!IsUserTable(RelationGetRelid(relation)))
		return;
	if (command == CMD_UPDATE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot update table \"%s\" because it does not have a replica identity and is replicated by bdr",
						RelationGetRelationName(relation)),
				 errhint("To enable updating the table, add a primary key or set REPLICA IDENTITY using ALTER TABLE.")));
	else
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot delete from table \"%s\" because it does not have a replica identity and is replicated by bdr",
						RelationGetRelationName(relation)),
				 errhint("To enable deleting from the table, add a primary key or set REPLICA IDENTITY using ALTER TABLE.")));
}

/*
 * Checks the partitions of a table, for a statement that chooses among them row by row. They need not be locked yet: a
 * change of one that comes later waits for the end of a statement that has chosen it, or is seen by the next one.
 */
static void
CheckPartitions(Oid root, CmdType command)
{
	CheckedRoot *checked;
	uint64		generation;
	List	   *partitions;
	ListCell   *cell;

	if (checked_roots == NULL)
	{
		HASHCTL		control = {0};

		control.keysize = sizeof(Oid);
		control.entrysize = sizeof(CheckedRoot);
		control.hcxt = TopMemoryContext;
		checked_roots = hash_create("bdr checked tables", 16, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		CacheRegisterRelcacheCallback(RelationChanged, (Datum) 0);
	}
	checked = hash_search(checked_roots, &root, HASH_FIND, NULL);
	if (checked && checked->generation == checked_generation)
		return;

	generation = checked_generation;
	partitions = find_all_inheritors(root, NoLock, NULL);
	foreach(cell, partitions)
	{
		Relation	partition = RelationIdGetRelation(lfirst_oid(cell));

		/* detached and dropped meanwhile */
		if (!RelationIsValid(partition))
			continue;
		CheckRelation(partition, command);
		RelationClose(partition);
	}
	list_free(partitions);
	/* what changed while it was looked at is looked at again */
	checked = hash_search(checked_roots, &root, HASH_ENTER, NULL);
	checked->generation = generation;
}

/*
 * Looks at a table that a statement changes: whether other nodes could follow, and what of it has to leave stamps.
 */
static void
CheckTarget(QueryDesc *query, ModifyTable *node, int index, int flags)
{
	EState	   *estate = query->estate;
	int			number = list_nth_int(node->resultRelations, index) - 1;
	Relation	relation = estate->es_relations[number];
	ResultRelInfo *info = estate->es_result_relations ? estate->es_result_relations[number] : NULL;
	bool		deletes = false;
	bool		updates = false;

	/* not opened: its partition can't have rows that the statement looks for */
	if (relation == NULL)
		return;
	switch (node->operation)
	{
		case CMD_UPDATE:
			CheckRelation(relation, node->operation);
			/* a row that moves to another partition is deleted here */
			deletes = relation->rd_rel->relispartition;
			updates = true;
			break;
		case CMD_DELETE:
			CheckRelation(relation, node->operation);
			deletes = true;
			break;
		case CMD_MERGE:
			{
				List	   *actions = list_nth(node->mergeActionLists, index);
				ListCell   *cell;

				foreach(cell, actions)
				{
					CmdType		command = lfirst_node(MergeAction, cell)->commandType;

					if (command == CMD_UPDATE || command == CMD_DELETE)
						CheckRelation(relation, command);
					deletes |= command == CMD_DELETE || (command == CMD_UPDATE && relation->rd_rel->relispartition);
					updates |= command == CMD_UPDATE;
				}
				break;
			}
		default:
			if (relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
				CheckPartitions(RelationGetRelid(relation), CMD_UPDATE);
			else
				CheckRelation(relation, CMD_UPDATE);
			updates = true;
			break;
	}
	if ((deletes || updates) && info && relation->rd_rel->relkind == RELKIND_RELATION &&
		relation->rd_rel->relpersistence == RELPERSISTENCE_PERMANENT && IsUserTable(RelationGetRelid(relation)))
		bdr_stamps_watch(query, info, deletes, updates, flags);
}

/* A plan, or subplan, that modifies has its ModifyTable on top; a scrollable cursor puts a Material over it. */
static void
CheckPlan(QueryDesc *query, Plan *plan, int flags)
{
	ModifyTable *node;

	if (plan && IsA(plan, Material))
		plan = plan->lefttree;
	if (plan == NULL || !IsA(plan, ModifyTable))
		return;
	node = (ModifyTable *) plan;
	if (node->operation == CMD_INSERT && node->onConflictAction != ONCONFLICT_UPDATE)
		return;
	for (int i = 0; i < list_length(node->resultRelations); i++)
		CheckTarget(query, node, i, flags);
}

/* ---- executor hook -------------------------------------------------------------------------------------------- */

static void
StartExecutor(QueryDesc *query, int flags)
{
	PlannedStmt *plan = query->plannedstmt;
	bool		writes = plan->resultRelations != NIL && !(flags & EXEC_FLAG_EXPLAIN_ONLY) && !bdr_is_worker();

	if (writes && IsRefused() && PlanWrites(plan))
		Refuse();

	if (previous_executor_start)
		previous_executor_start(query, flags);
	else
		standard_ExecutorStart(query, flags);

	/* now the relations are locked and open */
	if (writes && CurrentGate()->check_identity)
	{
		ListCell   *cell;

		CheckPlan(query, plan->planTree, flags);
		foreach(cell, plan->subplans)
			CheckPlan(query, lfirst(cell), flags);
	}
}

/* ---- commands that need a database without sessions ----------------------------------------------------------- */

static void
RunNext(const void *argument)
{
	const Utility *utility = argument;
	ProcessUtility_hook_type next = previous_utility ? previous_utility : standard_ProcessUtility;

	next(utility->planned, utility->query, utility->read_only_tree, utility->context, utility->parameters,
		 utility->environment, utility->destination, utility->completion);
}

static DefElem *
FindOption(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, name) == 0)
			return option;
	}
	return NULL;
}

/* Name of the database in which a command tolerates no sessions, NULL if it is no such command. */
static const char *
QuietDatabase(const Utility *utility)
{
	Node	   *statement = utility->planned->utilityStmt;
	DefElem    *option;

	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) statement)->dbname;
		case T_CreatedbStmt:
			option = FindOption(((CreatedbStmt *) statement)->options, "template");
			return option && option->arg ? defGetString(option) : "template1";
		case T_AlterDatabaseStmt:
			if (FindOption(((AlterDatabaseStmt *) statement)->options, "tablespace") == NULL)
				return NULL;
			return ((AlterDatabaseStmt *) statement)->dbname;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType != OBJECT_DATABASE)
				return NULL;
			return ((RenameStmt *) statement)->subname;
		default:
			return NULL;
	}
}

static bool
MayCreateDatabases(void)
{
	HeapTuple	tuple;
	bool		result = false;

	if (superuser())
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(tuple))
	{
		result = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return result;
}

static bool
IsTemplate(Oid database)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool		result = false;

	if (HeapTupleIsValid(tuple))
	{
		result = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
		ReleaseSysCache(tuple);
	}
	return result;
}

/* Whether the server is going to let the user do it, so that nobody else can stop workers. It checks again itself. */
static bool
IsPermitted(NodeTag command, Oid database)
{
	if (XactReadOnly || RecoveryInProgress())
		return false;
	switch (command)
	{
		case T_DropdbStmt:
			return database != MyDatabaseId && bdr_owns_database(database) && !IsTemplate(database);
		case T_AlterDatabaseStmt:
			return database != MyDatabaseId && bdr_owns_database(database);
		case T_RenameStmt:
			return database != MyDatabaseId && bdr_owns_database(database) && MayCreateDatabases();
		case T_CreatedbStmt:
			return MayCreateDatabases() && (bdr_owns_database(database) || IsTemplate(database));
		default:
			return false;
	}
}

/* As the server will say, but before workers are stopped for nothing. Renaming is possible in a transaction block. */
static void
RequireNoTransactionBlock(const Utility *utility)
{
	bool		top = utility->context == PROCESS_UTILITY_TOPLEVEL;

	switch (nodeTag(utility->planned->utilityStmt))
	{
		case T_DropdbStmt:
			PreventInTransactionBlock(top, "DROP DATABASE");
			break;
		case T_CreatedbStmt:
			PreventInTransactionBlock(top, "CREATE DATABASE");
			break;
		case T_AlterDatabaseStmt:
			PreventInTransactionBlock(top, "ALTER DATABASE SET TABLESPACE");
			break;
		default:
			break;
	}
}

/* Makes bdr's processes leave a database that is closed to new ones. */
static void
Quieten(Oid database)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), QUIET_TIMEOUT);

	for (;;)
	{
		int			left = bdr_terminate_workers(database);

		left += bdr_terminate_slot_holders(database);
		if (left == 0 || GetCurrentTimestamp() >= deadline)
			return;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, QUIET_POLL, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Drops replication origins of a database that is gone. That they stay must not undo what can't be undone. */
static void
DropOrigins(List *names)
{
	ListCell   *cell;

	foreach(cell, names)
	{
		char	   *name = lfirst(cell);
		Attempt		attempt;

		BeginAttempt(&attempt);
		PG_TRY();
		{
			replorigin_drop_by_name(name, true, true);
			EndAttempt(&attempt);
		}
		PG_CATCH();
		{
			ErrorData  *error = UndoAttempt(&attempt);

			ereport(WARNING,
					(errcode(error->sqlerrcode),
					 errmsg("could not drop replication origin \"%s\" of the database: %s", name, error->message),
					 errhint("Drop it with pg_replication_origin_drop.")));
			FreeErrorData(error);
		}
		PG_END_TRY();
	}
}

static void
Reopen(int code, Datum database)
{
	bdr_reopen_database(DatumGetObjectId(database));
}

/* Runs a command that needs a database without sessions; bdr's come back afterwards, unless the database is dropped. */
static void
RunQuietly(const Utility *utility, const char *name)
{
	NodeTag		command = nodeTag(utility->planned->utilityStmt);
	Oid			database = get_database_oid(name, true);
	List	   *volatile origins = NIL;
	volatile bool dropping = false;

	if (!OidIsValid(database) || !IsPermitted(command, database))
	{
		RunNext(utility);
		return;
	}
	RequireNoTransactionBlock(utility);
	if (!bdr_close_database(database))
	{
		RunNext(utility);
		return;
	}

	/* also if the session is terminated meanwhile */
	PG_ENSURE_ERROR_CLEANUP(Reopen, ObjectIdGetDatum(database));
	{
		/* The lock that the command takes anyway: it keeps peers that connect again out, and lasts until the end. */
		LockSharedObject(DatabaseRelationId, database, 0,
						 command == T_CreatedbStmt ? ShareLock : AccessExclusiveLock);
		/* while it waited, another database may have got the name */
		if (get_database_oid(name, true) == database)
		{
			Quieten(database);
			dropping = command == T_DropdbStmt;
			if (dropping)
				origins = bdr_database_origins(database);
		}
		RunNext(utility);
	}
	PG_END_ENSURE_ERROR_CLEANUP(Reopen, ObjectIdGetDatum(database));

	if (!dropping)
	{
		bdr_reopen_database(database);
		return;
	}
	bdr_forget_database(database);
	DropOrigins(origins);
}

/* bdr.truncate_locking */
static void
LockTruncated(Node *statement)
{
	ListCell   *cell;

	if (!IsA(statement, TruncateStmt) || bdr_internal_session || bdr_is_worker())
		return;
	foreach(cell, ((TruncateStmt *) statement)->relations)
	{
		Oid			relid = RangeVarGetRelid(lfirst(cell), NoLock, true);

		if (OidIsValid(relid))
			bdr_truncate_lock(relid);
	}
}

/* ---- utility hook --------------------------------------------------------------------------------------------- */

static void
RunUtility(PlannedStmt *planned, const char *query, bool read_only_tree, ProcessUtilityContext context,
		   ParamListInfo parameters, QueryEnvironment *environment, DestReceiver *destination,
		   QueryCompletion *completion)
{
	Utility		utility = {planned, query, read_only_tree, context, parameters, environment, destination,
	completion};
	const char *database;
	BdrDdlFrame frame;
	BdrNewTable table;

	/* most commands end here; the script of an extension is judged with the command that runs it */
	if (GetCommandLogLevel(planned->utilityStmt) == LOGSTMT_ALL || !IsTransactionState())
	{
		RunNext(&utility);
		return;
	}
	if (!creating_extension && IsRefused() && UtilityWrites(planned->utilityStmt))
		Refuse();

	database = QuietDatabase(&utility);
	if (database)
	{
		RunQuietly(&utility, database);
		return;
	}
	LockTruncated(planned->utilityStmt);
	table = bdr_new_table(planned->utilityStmt);
	PG_TRY();
	{
		bdr_ddl_begin(&frame, planned, query, context);
		bdr_with_trigger_rights(planned->utilityStmt, RunNext, &utility);
		bdr_ddl_end(&frame);
	}
	PG_FINALLY();
	{
		bdr_ddl_pop(&frame);
	}
	PG_END_TRY();
	bdr_new_table_created(&table);
	bdr_ddl_warn(&frame);
}

/* Called while shared_preload_libraries are loaded. */
void
bdr_hooks_init(void)
{
	previous_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = StartExecutor;
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = RunUtility;
	bdr_stream_triggers_init();
	bdr_ddl_init();
}
