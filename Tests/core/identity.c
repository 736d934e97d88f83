/*
 * identity.c: for scripts/core-regress. Makes the replica identity of each permanent table without a primary key FULL when it is
 * made or altered, as a user of the node would do it, because a node refuses UPDATE and DELETE of others. An event trigger
 * would do the same, but shows in the output of tests, and makes bdr judge DDL differently.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static ProcessUtility_hook_type next_utility = NULL;

static bool
IsWithoutIdentity(Oid relid)
{
	Relation	relation = try_relation_open(relid, NoLock);
	bool		result;

	if (relation == NULL)
		return false;
	(void) RelationGetReplicaIndex(relation);
	result = (relation->rd_rel->relkind == RELKIND_RELATION || relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE) &&
		relation->rd_rel->relpersistence == RELPERSISTENCE_PERMANENT &&
		relation->rd_rel->relreplident == REPLICA_IDENTITY_DEFAULT && !OidIsValid(relation->rd_pkindex);
	relation_close(relation, NoLock);
	return result;
}

static void
Identify(Oid relid)
{
	char	   *command = psprintf("ALTER TABLE ONLY %s REPLICA IDENTITY FULL",
								   quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid)));
	int			level = NewGUCNestLevel();

	(void) set_config_option("client_min_messages", "error", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
	SPI_execute(command, false, 0);
	SPI_finish();
	AtEOXact_GUC(false, level);
}

static void
Utility(PlannedStmt *planned, const char *query, bool read_only, ProcessUtilityContext context, ParamListInfo parameters,
		QueryEnvironment *environment, DestReceiver *destination, QueryCompletion *completion)
{
	Node	   *statement = planned->utilityStmt;
	const RangeVar *name = NULL;
	Oid			relid;

	if (IsA(statement, CreateStmt))
		name = ((CreateStmt *) statement)->relation;
	else if (IsA(statement, CreateTableAsStmt))
		name = ((CreateTableAsStmt *) statement)->into->rel;
	else if (IsA(statement, AlterTableStmt))
		name = ((AlterTableStmt *) statement)->relation;
	if (next_utility)
		next_utility(planned, query, read_only, context, parameters, environment, destination, completion);
	else
		standard_ProcessUtility(planned, query, read_only, context, parameters, environment, destination, completion);
	if (name == NULL || !IsTransactionState())
		return;
	CommandCounterIncrement();
	relid = RangeVarGetRelid(name, NoLock, true);
	if (OidIsValid(relid) && IsWithoutIdentity(relid))
		Identify(relid);
}

void
_PG_init(void)
{
	next_utility = ProcessUtility_hook;
	ProcessUtility_hook = Utility;
}
