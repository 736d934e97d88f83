/*
 * host_leaves.c: where rows of a table live: the table itself, or its partitions; and the index of one to find rows by.
 */
#include "host_executor.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/tupconvert.h"
#include "catalog/partition.h"
#include "catalog/pg_am.h"
#include "catalog/pg_inherits.h"
#include "commands/trigger.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"

Leaf *
bdr_make_leaf(Target *target, ResultRelInfo *info)
{
	Leaf	   *leaf = palloc0(sizeof(Leaf));
	EState	   *estate = target->estate;

	leaf->info = info;
	leaf->relation = info->ri_RelationDesc;
	if (info->ri_RelationDesc->rd_rel->relkind != RELKIND_RELATION)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot apply changes to \"%s\": it is not an ordinary table",
						RelationGetRelationName(info->ri_RelationDesc)),
				 errdetail("A row was routed to a partition of another kind, for example a foreign table.")));
	if (leaf->relation != target->relation)
	{
		/* maps are NULL when the columns agree */
		leaf->from_root = build_attrmap_by_name_if_req(RelationGetDescr(target->relation),
													   RelationGetDescr(leaf->relation)
#if PG_VERSION_NUM >= 160000
													   ,false
#endif
			);
		leaf->to_root = build_attrmap_by_name_if_req(RelationGetDescr(leaf->relation),
													 RelationGetDescr(target->relation)
#if PG_VERSION_NUM >= 160000
													 ,false
#endif
			);
	}
	/*
	 * Open again for speculative use: that prepares the operators with which ExecCheckIndexConstraints probes. Routing may
	 * have opened the indexes without.
	 */
	if (info->ri_NumIndices > 0 || info->ri_IndexRelationDescs != NULL)
		ExecCloseIndices(info);
	info->ri_NumIndices = 0;
	info->ri_IndexRelationDescs = NULL;
	info->ri_IndexRelationInfo = NULL;
	ExecOpenIndices(info, true);
	leaf->close_indexes = true;
	for (int i = 0; i < info->ri_NumIndices; i++)
	{
		Relation	index = info->ri_IndexRelationDescs[i];

		if (index && index->rd_index->indisunique && index->rd_index->indimmediate && index->rd_index->indisready)
		{
			/* the replica identity first: a conflict on it is the one to report */
			if (index->rd_index->indexrelid == RelationGetReplicaIndex(leaf->relation))
				leaf->arbiters = lcons_oid(index->rd_index->indexrelid, leaf->arbiters);
			else
				leaf->arbiters = lappend_oid(leaf->arbiters, index->rd_index->indexrelid);
		}
	}
	if (info->ri_TrigDesc)
	{
		for (int i = 0; i < info->ri_TrigDesc->numtriggers; i++)
		{
			Trigger    *trigger = &info->ri_TrigDesc->triggers[i];

			if (trigger->tgdeferrable && !trigger->tgisinternal &&
				(trigger->tgenabled == TRIGGER_FIRES_ALWAYS || trigger->tgenabled == TRIGGER_FIRES_ON_REPLICA))
				leaf->defers = true;
		}
	}
	leaf->search = ExecInitExtraTupleSlot(estate, RelationGetDescr(leaf->relation), &TTSOpsVirtual);
	leaf->row = ExecInitExtraTupleSlot(estate, RelationGetDescr(leaf->relation), &TTSOpsVirtual);
	leaf->found = table_slot_create(leaf->relation, &estate->es_tupleTable);
	EvalPlanQualInit(&leaf->epq, estate, NULL, NIL, -1
#if PG_VERSION_NUM >= 160000
					 ,NIL
#endif
		);
	target->leaves = lappend(target->leaves, leaf);
	return leaf;
}

/* ---- the index ------------------------------------------------------------------------------------------------ */

/* Equality on one index column, as the index itself sees it. */
static bool
InitKey(Relation index, int column, ScanKey key)
{
	Oid			family = index->rd_opfamily[column];
	Oid			type = index->rd_opcintype[column];
	Oid			op = get_opfamily_member(family, type, type, BTEqualStrategyNumber);

	if (!OidIsValid(op))
		return false;
	ScanKeyInit(key, column + 1, BTEqualStrategyNumber, get_opcode(op), (Datum) 0);
	key->sk_collation = index->rd_indcollation[column];
	key->sk_subtype = type;
	return true;
}

/*
 * Chooses the index to find rows by: one whose columns the peer sends as key. The replica identity first, then the
 * primary key, any unique index, and last (for whole-row keys) any index with a recheck of the whole row.
 */
void
bdr_choose_key(Target *target, Leaf *leaf)
{
	Oid			identity = RelationGetReplicaIndex(leaf->relation);
	Oid			primary = leaf->relation->rd_pkindex;
	int			best = -1,
				best_rank = 0;
	TupleDesc	desc = RelationGetDescr(leaf->relation);
	BdrRel	   *rel = target->rel;

	leaf->key_known = true;
	leaf->is_remote_key = palloc0(sizeof(bool) * Max(desc->natts, 1));
	leaf->nremote_keys = 0;
	for (int i = 0; i < rel->ncolumns; i++)
	{
		int			a = rel->map[i].attribute;

		if (a < 0 || (rel->replica_identity != REPLICA_IDENTITY_FULL && !rel->columns[i].key))
			continue;
		if (leaf->from_root)
		{
			/* root attribute number to ours */
			int			mine = -1;

			for (int m = 0; m < leaf->from_root->maplen; m++)
				if (leaf->from_root->attnums[m] == a + 1)
					mine = m;
			a = mine;
		}
		if (a >= 0)
		{
			leaf->is_remote_key[a] = true;
			leaf->nremote_keys++;
		}
	}
	for (int i = 0; i < leaf->info->ri_NumIndices; i++)
	{
		Relation	index = leaf->info->ri_IndexRelationDescs[i];
		Form_pg_index form;
		int			rank;
		bool		usable = true;

		if (index == NULL)
			continue;
		form = index->rd_index;
		if (index->rd_rel->relam != BTREE_AM_OID || !form->indisvalid || !form->indisready || !form->indislive ||
			!heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL) ||
			!heap_attisnull(index->rd_indextuple, Anum_pg_index_indexprs, NULL))
			continue;
		for (int k = 0; k < form->indnkeyatts; k++)
		{
			AttrNumber	attribute = form->indkey.values[k];

			if (attribute <= 0 || !leaf->is_remote_key[attribute - 1])
			{
				usable = false;
				break;
			}
		}
		if (!usable)
			continue;
		if (form->indexrelid == identity)
			rank = 5;
		else if (form->indexrelid == primary)
			rank = 4;
		else if (form->indisunique && form->indimmediate)
			rank = 3;
		else if (rel->replica_identity == REPLICA_IDENTITY_FULL)
			rank = 1;
		else
			continue;
		if (rank > best_rank)
		{
			best = i;
			best_rank = rank;
		}
	}
	if (best >= 0)
	{
		Relation	index = leaf->info->ri_IndexRelationDescs[best];
		KeyIndex   *key = palloc0(sizeof(KeyIndex));

		key->index = index;
		key->nkeys = index->rd_index->indnkeyatts;
		key->recheck = best_rank < 3;
		for (int k = 0; k < key->nkeys; k++)
		{
			key->attributes[k] = index->rd_index->indkey.values[k];
			if (!InitKey(index, k, &key->keys[k]))
				return;
		}
		leaf->key = key;
	}
}

/* ---- partitions ----------------------------------------------------------------------------------------------- */

/*
 * Do the peer's key columns tell the partition? Partitioning may differ per node, so they need not: then a row has to be
 * looked for in all partitions.
 */
bool
bdr_key_routes(BdrRel *rel, Relation root)
{
	List	   *tree = find_all_inheritors(RelationGetRelid(root), RowExclusiveLock, NULL);
	ListCell   *cell;
	bool		routes = true;

	if (rel->replica_identity == REPLICA_IDENTITY_FULL)
		return true;
	foreach(cell, tree)
	{
		Relation	member;
		PartitionKey key;

		if (get_rel_relkind(lfirst_oid(cell)) != RELKIND_PARTITIONED_TABLE)
			continue;
		member = table_open(lfirst_oid(cell), NoLock);
		key = RelationGetPartitionKey(member);
		for (int i = 0; i < key->partnatts && routes; i++)
		{
			bool		in_key = false;

			if (key->partattrs[i] != 0)
			{
				char	   *name = get_attname(RelationGetRelid(member), key->partattrs[i], false);

				for (int c = 0; c < rel->ncolumns; c++)
					if (rel->columns[c].key && strcmp(rel->columns[c].name, name) == 0)
						in_key = true;
			}
			routes = in_key;
		}
		table_close(member, NoLock);
		if (!routes)
			break;
	}
	list_free(tree);
	return routes;
}

/* Every partition that can hold rows, for a search that can't be routed. */
void
bdr_open_every_leaf(Target *target)
{
	MemoryContext old = MemoryContextSwitchTo(target->estate->es_query_cxt);
	List	   *tree = find_all_inheritors(RelationGetRelid(target->relation), RowExclusiveLock, NULL);
	ListCell   *cell;

	foreach(cell, tree)
	{
		ResultRelInfo *info;
		Leaf	   *leaf;

		if (get_rel_relkind(lfirst_oid(cell)) != RELKIND_RELATION)
			continue;
		info = makeNode(ResultRelInfo);
		InitResultRelInfo(info, table_open(lfirst_oid(cell), NoLock), 1, target->info, 0);
		target->estate->es_opened_result_relations = lappend(target->estate->es_opened_result_relations, info);
		leaf = bdr_make_leaf(target, info);
		leaf->own_relation = true;
		target->every_leaf = lappend(target->every_leaf, leaf);
	}
	MemoryContextSwitchTo(old);
}

/* RouteRow, for a partitioned table. */
Leaf *
bdr_route_row(Target *target, TupleTableSlot *row, TupleTableSlot **converted, bool to_search)
{
	ResultRelInfo *info;
	Leaf	   *leaf = NULL;
	ListCell   *cell;
	MemoryContext old;

	old = MemoryContextSwitchTo(GetPerTupleMemoryContext(target->estate));
	info = ExecFindPartition(target->mtstate, target->info, target->routing, row, target->estate);
	MemoryContextSwitchTo(old);
	foreach(cell, target->leaves)
	{
		if (((Leaf *) lfirst(cell))->info == info)
		{
			leaf = lfirst(cell);
			break;
		}
	}
	if (leaf == NULL)
	{
		old = MemoryContextSwitchTo(target->estate->es_query_cxt);
		leaf = bdr_make_leaf(target, info);
		MemoryContextSwitchTo(old);
	}
	target->leaf = leaf;
	if (leaf->from_root)
		*converted = execute_attr_map_slot(leaf->from_root, row, to_search ? leaf->search : leaf->row);
	else if (to_search)
		*converted = row;
	else
		*converted = row;
	return leaf;
}
