/*
 * host_executor.c: opens tables for the rows of a transaction, and closes them; some stay open for the next ones. Of the files
 * that find and write rows (see host_executor.h) it is the one that knows of transactions.
 */
#include "host_executor.h"
#include "apply_stats.h"
#include "ddl_locks.h"

#include "access/genam.h"
#include "access/table.h"
#include "commands/trigger.h"
#include "nodes/makefuncs.h"
#include "utils/inval.h"
#include "utils/resowner.h"
#include "utils/syscache.h"

/* So many tables stay open between transactions, each for so many transactions. */
#define KEPT_LIMIT 64
#define KEPT_USES 10000

static dlist_head all_rels = DLIST_STATIC_INIT(all_rels);
static bool callbacks_registered = false;
static List *open_targets = NIL;	/* in TopTransactionContext */
bool		bdr_wrote_since_increment = false;
/* What targets that stay open hold: relations and row descriptions, never buffers or locks. */
static ResourceOwner kept_owner = NULL;
static MemoryContext kept_context = NULL;
static int	nkept = 0;
Oid			bdr_deferred_owner = InvalidOid;

/* ---- cache invalidation and ends of transactions -------------------------------------------------------------- */

static void
InvalidateRelation(Datum arg, Oid relid)
{
	dlist_iter	iter;

	dlist_foreach(iter, &all_rels)
	{
		BdrRel	   *rel = dlist_container(BdrRel, node, iter.cur);

		if (relid == InvalidOid || rel->oid == relid || !OidIsValid(rel->oid))
			rel->valid = false;
	}
}

static void
InvalidateAll(Datum arg, int cacheid, uint32 hashvalue)
{
	InvalidateRelation(arg, InvalidOid);
}

static void
ForgetTargets(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &all_rels)
		dlist_container(BdrRel, node, iter.cur)->target = NULL;
	open_targets = NIL;
	bdr_wrote_since_increment = false;
	bdr_deferred_owner = InvalidOid;
}

static void
AtEndOfTransaction(XactEvent event, void *arg)
{
	/* rows that would be lost */
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE)
	{
		ListCell   *cell;

		foreach(cell, open_targets)
		{
			if (((Target *) lfirst(cell))->npages > 0)
				elog(ERROR, "bdr: appended rows are not in their table yet");
		}
	}
	/*
	 * After an abort the resource owner has closed what was open, and the memory went with the transaction. Of what was kept
	 * nobody knows what state it is in: it is left behind (the process is about to end with the error).
	 */
	if (event == XACT_EVENT_ABORT)
	{
		ListCell   *cell;

		foreach(cell, open_targets)
		{
			Target	   *target = lfirst(cell);

			if (target->kept && target->rel)
				target->rel->kept = NULL;
		}
	}
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_COMMIT || event == XACT_EVENT_PREPARE)
	{
		ForgetTargets();
		bdr_stamps_close(false);
	}
}

static void
RegisterCallbacks(void)
{
	if (callbacks_registered)
		return;
	CacheRegisterRelcacheCallback(InvalidateRelation, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, InvalidateAll, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, InvalidateAll, (Datum) 0);
	/* functions of constraints and defaults may have become part of prepared expressions */
	CacheRegisterSyscacheCallback(PROCOID, InvalidateAll, (Datum) 0);
	RegisterXactCallback(AtEndOfTransaction, NULL);
	callbacks_registered = true;
}

/*
 * Deferred constraint triggers (ENABLE ALWAYS or REPLICA) would fire at commit, with this worker's rights: the server
 * keeps no role with the event. So they are fired just before, as the owner of their table, and when a row of another
 * owner's table comes in between, before that.
 */
void
bdr_fire_deferred_triggers(bool at_commit)
{
	ConstraintsSetStmt *statement;
	SavedUser	saved;

	if (!OidIsValid(bdr_deferred_owner))
		return;
	BecomeOwner(bdr_deferred_owner, &saved);
	bdr_deferred_owner = InvalidOid;
	statement = makeNode(ConstraintsSetStmt);
	statement->constraints = NIL;
	statement->deferred = false;
	AfterTriggerSetState(statement);
	if (!at_commit)
	{
		statement->deferred = true;
		AfterTriggerSetState(statement);
	}
	SetUserIdAndSecContext(saved.user, saved.context);
}

/* ---- opening -------------------------------------------------------------------------------------------------- */

/*
 * Whether a table stays open for the next transactions, as a plain table without triggers may: in a stream of small
 * transactions opening it costs as much as writing the row. Only in workers, which end when something fails.
 */
static bool
CanKeep(Relation relation)
{
	return bdr_is_worker() && nkept < KEPT_LIMIT && relation->rd_rel->relkind == RELKIND_RELATION &&
		relation->trigdesc == NULL && relation->rd_createSubid == InvalidSubTransactionId &&
		relation->rd_newRelfilenodeSubid == InvalidSubTransactionId;
}

static void
OpenTargetIn(Target *target)
{
	MemoryContext caller = CurrentMemoryContext;
	BdrRel	   *rel = target->rel;
	RangeTblEntry *entry;

	target->estate = CreateExecutorState();
	MemoryContextSwitchTo(target->estate->es_query_cxt);

	entry = makeNode(RangeTblEntry);
	entry->rtekind = RTE_RELATION;
	entry->relid = rel->oid;
	entry->relkind = target->relation->rd_rel->relkind;
	entry->rellockmode = AccessShareLock;
#if PG_VERSION_NUM >= 180000
	ExecInitRangeTable(target->estate, list_make1(entry), NIL, bms_make_singleton(1));
#elif PG_VERSION_NUM >= 160000
	ExecInitRangeTable(target->estate, list_make1(entry), NIL);
#else
	ExecInitRangeTable(target->estate, list_make1(entry));
#endif
	target->info = makeNode(ResultRelInfo);
	InitResultRelInfo(target->info, target->relation, 1, NULL, 0);
	target->estate->es_opened_result_relations =
		lappend(target->estate->es_opened_result_relations, target->info);
	target->row = ExecInitExtraTupleSlot(target->estate, RelationGetDescr(target->relation), &TTSOpsVirtual);
	target->raw = ExecInitExtraTupleSlot(target->estate, RelationGetDescr(target->relation), &TTSOpsHeapTuple);
	target->row_context = AllocSetContextCreate(target->estate->es_query_cxt, "bdr row", ALLOCSET_DEFAULT_SIZES);
	target->has_triggers = target->info->ri_TrigDesc != NULL;
	bdr_prepare_defaults(target);
	if (target->relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
	{
		target->has_triggers = true;	/* of partitions, perhaps */
		target->mtstate = makeNode(ModifyTableState);
		target->mtstate->ps.plan = NULL;
		target->mtstate->ps.state = target->estate;
		target->mtstate->operation = CMD_INSERT;
		target->mtstate->resultRelInfo = target->info;
		target->mtstate->rootResultRelInfo = target->info;
		target->routing = ExecSetupPartitionTupleRouting(target->estate, target->relation);
		target->key_routes = bdr_key_routes(rel, target->relation);
	}
	else
		target->leaf = bdr_make_leaf(target, target->info);
	MemoryContextSwitchTo(caller);
}

static Target *
OpenTarget(BdrRel *rel)
{
	MemoryContext old;
	Target	   *target;
	/* locked in bdr_host_rel_use */
	Relation	relation = table_open(rel->oid, NoLock);
	bool		keep = CanKeep(relation);
	ResourceOwner caller = CurrentResourceOwner;

	if (keep && kept_owner == NULL)
	{
		kept_owner = ResourceOwnerCreate(NULL, "bdr tables that stay open");
		kept_context = AllocSetContextCreate(TopMemoryContext, "bdr tables that stay open", ALLOCSET_DEFAULT_SIZES);
	}
	old = MemoryContextSwitchTo(keep ? kept_context : TopTransactionContext);
	target = palloc0(sizeof(Target));
	target->rel = rel;
	target->kept = keep;
	target->relation = relation;
	if (keep)
	{
		/* an error leaves something behind; the process ends with it */
		CurrentResourceOwner = kept_owner;
		target->relation = table_open(rel->oid, NoLock);
		OpenTargetIn(target);
		CurrentResourceOwner = caller;
		table_close(relation, NoLock);
		rel->kept = target;
		nkept++;
	}
	else
		OpenTargetIn(target);
	MemoryContextSwitchTo(TopTransactionContext);
	open_targets = lappend(open_targets, target);
	MemoryContextSwitchTo(old);
	rel->target = target;
	return target;
}

/* ---- closing -------------------------------------------------------------------------------------------------- */

/* Lets go of what belongs to the transaction; table and indexes stay open, and their locks go with the transaction. */
static void
RestTarget(Target *target)
{
	ListCell   *cell;

	foreach(cell, target->estate->es_tupleTable)
		ExecClearTuple(lfirst(cell));
	target->leaf->is_found = false;
	target->written = NULL;
	target->has_key = false;
	target->nin_way = 0;
	target->bulk = NULL;
	target->batch = NULL;
	target->batch_size = 0;
	target->pages = NULL;
	target->npages = 0;
	target->append_known = false;
	ResetPerTupleExprContext(target->estate);
	MemoryContextReset(target->row_context);
}

/* Closes a target that has stayed open, with no transaction using it. */
static void
CloseKeptTarget(Target *target)
{
	ResourceOwner caller = CurrentResourceOwner;
	ResultRelInfo *info;

	nkept--;
	CurrentResourceOwner = kept_owner;
	info = target->info;
	EvalPlanQualEnd(&target->leaf->epq);
	/* ExecCloseIndices would give back locks that went with the transaction that took them */
	for (int i = 0; i < info->ri_NumIndices; i++)
	{
		if (info->ri_IndexRelationDescs[i] == NULL)
			continue;
#if PG_VERSION_NUM >= 170000
		index_insert_cleanup(info->ri_IndexRelationDescs[i], info->ri_IndexRelationInfo[i]);
#endif
		index_close(info->ri_IndexRelationDescs[i], NoLock);
	}
	ExecResetTupleTable(target->estate->es_tupleTable, false);
	table_close(target->relation, NoLock);
	FreeExecutorState(target->estate);
	pfree(target);
	CurrentResourceOwner = caller;
}

static void
CloseKept(BdrRel *rel)
{
	Target	   *target = rel->kept;

	rel->kept = NULL;
	if (target)
		CloseKeptTarget(target);
}

void
bdr_close_all_kept(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &all_rels)
	{
		BdrRel	   *rel = dlist_container(BdrRel, node, iter.cur);

		if (rel->target == NULL)
			CloseKept(rel);
	}
}

void
bdr_close_targets(void)
{
	ListCell   *cell;

	foreach(cell, open_targets)
	{
		Target	   *target = lfirst(cell);
		ListCell   *leaf_cell;

		bdr_write_pages(target);
		if (target->bulk)
			FreeBulkInsertState(target->bulk);
		if (target->kept)
		{
			BdrRel	   *rel = target->rel;

			for (int i = 0; i < target->batch_size; i++)
				ExecDropSingleTupleTableSlot(target->batch[i]);
			if (target->pages)
				pfree(target->pages);
			if (target->batch)
				pfree(target->batch);
			RestTarget(target);
			if (rel == NULL)
			{
				CloseKeptTarget(target);
				continue;
			}
			rel->target = NULL;
			/* expressions and the like may have left something in the memory of the target */
			if (!rel->valid || ++target->uses > KEPT_USES)
				CloseKept(rel);
			continue;
		}
		foreach(leaf_cell, target->leaves)
		{
			Leaf	   *leaf = lfirst(leaf_cell);

			EvalPlanQualEnd(&leaf->epq);
			if (leaf->close_indexes && (leaf->relation == target->relation || leaf->own_relation))
				ExecCloseIndices(leaf->info);
		}
		for (int i = 0; i < target->batch_size; i++)
			ExecDropSingleTupleTableSlot(target->batch[i]);
		if (target->routing)
			ExecCleanupTupleRouting(target->mtstate, target->routing);
		ExecResetTupleTable(target->estate->es_tupleTable, false);
		foreach(leaf_cell, target->every_leaf)
			table_close(((Leaf *) lfirst(leaf_cell))->relation, NoLock);
		table_close(target->relation, NoLock);
		FreeExecutorState(target->estate);
		if (target->rel)
			target->rel->target = NULL;
	}
	list_free(open_targets);
	open_targets = NIL;
}

void
bdr_executor_close(void)
{
	bdr_fire_deferred_triggers(false);
	bdr_close_targets();
	bdr_close_all_kept();
	if (bdr_wrote_since_increment)
	{
		CommandCounterIncrement();
		bdr_wrote_since_increment = false;
	}
}

void
bdr_executor_end_transaction(bool commit)
{
	if (commit)
	{
		bdr_fire_deferred_triggers(true);
		bdr_close_targets();
		bdr_stamps_close(true);
	}
	ForgetTargets();
}

/* Closes what is open, without the end of the transaction: a subtransaction begins or ends. */
int32_t
bdr_host_executor_pause(void)
{
	HOST_BEGIN();
	bdr_close_targets();
	HOST_END();
	return BDR_OK;
}

/* Closes all, so that the tables can be altered. */
int32_t
bdr_host_executor_close(void)
{
	HOST_BEGIN();
	bdr_executor_end_transaction(true);
	bdr_close_all_kept();
	HOST_END();
	return BDR_OK;
}

/* ---- remote relations ----------------------------------------------------------------------------------------- */

static void
FillInfo(BdrRel *rel, BdrRelationInfo *info)
{
	*info = rel->info;
}

int32_t
bdr_host_rel_open(const BdrRemoteRelation *remote, BdrRel **result, BdrRelationInfo *info)
{
	*result = NULL;
	HOST_BEGIN();
	{
		MemoryContext context,
					old;
		BdrRel	   *rel;

		RegisterCallbacks();
		context = AllocSetContextCreate(TopMemoryContext, "bdr relation", ALLOCSET_SMALL_SIZES);
		old = MemoryContextSwitchTo(context);
		rel = palloc0(sizeof(BdrRel));
		rel->context = context;
		rel->map_context = AllocSetContextCreate(context, "bdr relation map", ALLOCSET_SMALL_SIZES);
		rel->namespace_name = pstrdup(remote->namespace_name);
		rel->name = pstrdup(remote->name);
		rel->replica_identity = remote->replica_identity;
		rel->raw_possible = remote->raw_possible;
		rel->ncolumns = remote->ncolumns;
		rel->columns = palloc0(sizeof(BdrColumnDesc) * Max(remote->ncolumns, 1));
		for (int i = 0; i < remote->ncolumns; i++)
		{
			rel->columns[i] = remote->columns[i];
			rel->columns[i].name = pstrdup(remote->columns[i].name);
			rel->columns[i].type_namespace = pstrdup(remote->columns[i].type_namespace);
			rel->columns[i].type_name = pstrdup(remote->columns[i].type_name);
		}
		if (rel->raw_possible)
		{
			rel->raw_desc = CreateTemplateTupleDesc(rel->ncolumns);
			for (int i = 0; i < rel->ncolumns; i++)
			{
				/* raw rows hold only types that are built in on both sides: our own pg_type describes them */
				TupleDescInitEntry(rel->raw_desc, i + 1, rel->columns[i].name, rel->columns[i].builtin_type, -1, 0);
			}
		}
		MemoryContextSwitchTo(old);
		dlist_push_tail(&all_rels, &rel->node);
		*result = rel;
		bdr_map_relation(rel);
		FillInfo(rel, info);
	}
	HOST_END();
	return BDR_OK;
}

void
bdr_host_rel_free(BdrRel *rel)
{
	if (rel == NULL)
		return;
	if (rel->target == NULL)
		CloseKept(rel);
	dlist_delete(&rel->node);
	if (rel->target)
		rel->target->rel = NULL;
	MemoryContextDelete(rel->context);
}

int32_t
bdr_host_rel_use(BdrRel *rel, BdrRelationInfo *info)
{
	BdrTiming	timing;

	HOST_BEGIN();
	AcceptInvalidationMessages();
	if (rel->target == NULL)
	{
		/* lock before looking: the definition can't change under the lock */
		for (int tries = 0;; tries++)
		{
			if (!rel->valid)
			{
				CloseKept(rel);
				bdr_map_relation(rel);
			}
			if (rel->info.status == BDR_REL_MISSING || rel->info.status == BDR_REL_WRONG_KIND)
				break;
			timing.on = bdr_measures_relations && bdr_track_apply_lock_timing;
			if (timing.on)
				bdr_timing_start(&timing);
			bdr_lock_for_apply(rel->oid);
			bdr_lock_timing_add(&timing, rel->oid);
			if (rel->valid)
				break;
			if (tries > 100)
				elog(ERROR, "definition of relation \"%s.%s\" does not settle", rel->namespace_name, rel->name);
		}
		if (rel->kept)
		{
			MemoryContext caller = MemoryContextSwitchTo(TopTransactionContext);

			rel->target = rel->kept;
			open_targets = lappend(open_targets, rel->target);
			MemoryContextSwitchTo(caller);
		}
		else if (rel->info.status == BDR_REL_OK || rel->info.status == BDR_REL_COLUMNS_MISSING)
			(void) OpenTarget(rel);
	}
	FillInfo(rel, info);
	HOST_END();
	return BDR_OK;
}

void
bdr_rel_runs_function(BdrRel *rel)
{
	/* it acts as this table's owner, whichever tables it writes to */
	if (OidIsValid(bdr_deferred_owner) && bdr_deferred_owner != rel->owner)
		bdr_fire_deferred_triggers(false);
	bdr_deferred_owner = rel->owner;
	IncrementIfWritten();
}
