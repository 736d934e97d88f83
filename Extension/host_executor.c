/*
 * host_executor.c: finds and writes rows for the apply worker, with the server's executor.
 *
 * Three layers. A BdrRel maps one remote relation to a local one and lives as long as the stream. A Target is that relation
 * opened for the current transaction: locked, indexes open, executor state ready; it is made at the first row and closed at
 * commit, so that a run of rows pays for it once. A Leaf is where rows of the target really live: the table itself, or one
 * partition of it.
 *
 * A located row is not locked: the write is done against exactly the version that was looked at, and when somebody else got
 * there first the caller is told to look again (BDR_RETRY). That saves a lock record in WAL for each row.
 *
 * Everything that may run a user's code (triggers, defaults, index expressions, CHECK constraints, input functions of
 * domains) runs as the owner of the table in a security-restricted operation.
 */
#include "bdr.h"
#include "apply_stats.h"
#include "ddl_locks.h"
#include "sequences.h"

#include "access/commit_ts.h"
#include "access/detoast.h"
#include "access/genam.h"
#include "access/heapam.h"
#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/tupconvert.h"
#include "access/xact.h"
#include "access/xloginsert.h"
#include "access/xlogrecord.h"
#include "catalog/catalog.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_am.h"
#include "catalog/pg_control.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/tablecmds.h"
#include "commands/trigger.h"
#include "common/int.h"
#include "executor/execPartition.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "lib/ilist.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "pgstat.h"
#include "replication/slot.h"
#include "rewrite/rewriteHandler.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/lmgr.h"
#include "storage/spin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "compat_executor.h"
#include "row_stamps.h"

/* So many tables stay open between transactions, each for so many transactions. */
#define KEPT_LIMIT 64
#define KEPT_USES 10000

/* How one remote column reaches its local one. */
typedef struct ColumnMap
{
	int			attribute;		/* local attribute number - 1, or -1: not here, or computed here */
	bool		missing;		/* no such column here */
	bool		merged;			/* its local type is a conflict-free one */
	bool		timestamps;		/* its local type is bdr.column_timestamps */
	Oid			type;			/* local type */
	int32		typmod;
	bool		same_type;		/* local type is the built-in type that travels, with the same modifier */
	bool		functions_ready;
	FmgrInfo	input;
	FmgrInfo	receive;
	Oid			input_param;
	Oid			receive_param;
	/* of the type that travels, for a conversion through text */
	bool		remote_ready;
	FmgrInfo	remote_output;
	FmgrInfo	remote_receive;
	Oid			remote_param;
} ColumnMap;

/* An index that can find a row by the columns a peer sends. */
typedef struct KeyIndex
{
	Relation	index;
	int			nkeys;
	AttrNumber	attributes[INDEX_MAX_KEYS];
	ScanKeyData keys[INDEX_MAX_KEYS];
	bool		recheck;		/* not unique: compare the whole row */
} KeyIndex;

typedef struct Leaf
{
	ResultRelInfo *info;
	Relation	relation;
	bool		close_indexes;	/* we opened them */
	AttrMap    *from_root;		/* root's columns to ours, NULL when equal */
	AttrMap    *to_root;
	KeyIndex   *key;			/* NULL: sequential scan */
	bool		key_known;
	List	   *arbiters;		/* OIDs of unique indexes to probe before an insert */
	TupleTableSlot *search;
	TupleTableSlot *row;		/* new version */
	TupleTableSlot *found;		/* located version */
	bool		is_found;
	bool		defers;			/* has deferrable triggers that fire here */
	bool		own_relation;	/* opened by us, not by tuple routing */
	int			nremote_keys;	/* key attributes (ours) for a scan without index */
	bool	   *is_remote_key;	/* by attribute */
	EPQState	epq;
} Leaf;

/* A row that has a unique value of a row to be written. */
typedef struct RowInWay
{
	Oid			index;
	ItemPointerData tid;
} RowInWay;

typedef struct Target
{
	BdrRel	   *rel;
	Relation	relation;
	EState	   *estate;
	ResultRelInfo *info;
	ModifyTableState *mtstate;	/* partitioned only */
	PartitionTupleRouting *routing;
	TupleTableSlot *row;		/* virtual, root's columns */
	TupleTableSlot *raw;		/* heap tuple, root's columns */
	Leaf	   *leaf;			/* of a plain table, or the last one used */
	TupleTableSlot *written;	/* the row that was stored last */
	List	   *leaves;
	bool		has_triggers;
	bool		key_routes;		/* the peer's key columns decide the partition */
	List	   *every_leaf;		/* otherwise: all partitions, made at the first search */
	/* defaults of local columns the peer doesn't have */
	int			ndefaults;
	int		   *default_attributes;
	ExprState **defaults;
	MemoryContext row_context;	/* reset for each row */
	BulkInsertState bulk;
	TupleTableSlot **batch;
	int			batch_size;
	bool		has_key;		/* key of the row that was looked for last */
	BdrKey		key;
	RowInWay   *in_way;			/* of the row that could not be written last */
	int			in_way_size;
	int			nin_way;
	char	   *pages;			/* filled by bdr_host_append_batch, not in the table yet */
	int			npages;
	bool		append_known;
	bool		append_possible;
	TupleDesc	batch_desc;		/* not counted: a thousand slots would each be remembered by the resource owner */
	bool		kept;			/* stays open between transactions */
	int			uses;			/* transactions, if so */
} Target;

struct BdrRel
{
	dlist_node	node;
	MemoryContext context;
	MemoryContext map_context;
	char	   *namespace_name;
	char	   *name;
	uint8		replica_identity;
	bool		raw_possible;
	int			ncolumns;
	BdrColumnDesc *columns;
	TupleDesc	raw_desc;		/* layout of a raw row as the peer described it */

	bool		valid;
	bool		leaves_out;		/* values for columns that are missing here */
	Oid			oid;
	Oid			owner;
	BdrRelationInfo info;
	ColumnMap  *map;
	AttrNumber	version_attribute;	/* method row_version; 0: rows have none */
	Target	   *target;			/* in this transaction */
	Target	   *kept;			/* open from an earlier transaction; not locked */
};

static dlist_head all_rels = DLIST_STATIC_INIT(all_rels);
static bool callbacks_registered = false;
static List *open_targets = NIL;	/* in TopTransactionContext */
static bool wrote_since_increment = false;
/* What targets that stay open hold: relations and row descriptions, never buffers or locks. */
static ResourceOwner kept_owner = NULL;
static MemoryContext kept_context = NULL;
static int	nkept = 0;
static Oid deferred_owner = InvalidOid; /* owner whose deferred triggers may be pending */

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
	wrote_since_increment = false;
	deferred_owner = InvalidOid;
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

/* ---- acting as the owner -------------------------------------------------------------------------------------- */

typedef struct SavedUser
{
	Oid			user;
	int			context;
} SavedUser;

static void
BecomeOwner(Oid owner, SavedUser *saved)
{
	GetUserIdAndSecContext(&saved->user, &saved->context);
	SetUserIdAndSecContext(owner, saved->context | SECURITY_RESTRICTED_OPERATION);
}

/*
 * Deferred constraint triggers (ENABLE ALWAYS or REPLICA) would fire at commit, with this worker's rights: the server
 * keeps no role with the event. So they are fired just before, as the owner of their table, and when a row of another
 * owner's table comes in between, before that.
 */
static void
FireDeferredTriggers(bool at_commit)
{
	ConstraintsSetStmt *statement;
	SavedUser	saved;

	if (!OidIsValid(deferred_owner))
		return;
	BecomeOwner(deferred_owner, &saved);
	deferred_owner = InvalidOid;
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

/* Called before each row: keeps the triggers of different owners apart. */
static void
BecomeOwnerForRow(Oid owner, SavedUser *saved)
{
	if (OidIsValid(deferred_owner) && deferred_owner != owner)
		FireDeferredTriggers(false);
	BecomeOwner(owner, saved);
}

/* On an error the abort of the transaction restores the user. */
static void
BecomeOurselves(const SavedUser *saved)
{
	SetUserIdAndSecContext(saved->user, saved->context);
}

/* ---- mapping a remote relation -------------------------------------------------------------------------------- */

/*
 * Resolves names. Columns map by name; a local generated column is computed here whatever the peer sends.
 */
static void
MapRelation(BdrRel *rel)
{
	Oid			schema;
	Relation	local;
	TupleDesc	desc;
	bool		same = rel->raw_possible;
	int			live = 0;
	int			mapped = 0;
	MemoryContext old;

	MemoryContextReset(rel->map_context);
	rel->map = NULL;
	rel->leaves_out = false;
	memset(&rel->info, 0, sizeof(rel->info));
	rel->info.missing_column = -1;
	rel->oid = InvalidOid;
	/* set first: an invalidation that arrives while we look must not be lost */
	rel->valid = true;

	schema = get_namespace_oid(rel->namespace_name, true);
	if (OidIsValid(schema))
		rel->oid = get_relname_relid(rel->name, schema);
	if (!OidIsValid(rel->oid))
	{
		rel->info.status = BDR_REL_MISSING;
		rel->valid = false;		/* look again next time */
		return;
	}
	bdr_lock_for_apply(rel->oid);
	local = try_relation_open(rel->oid, NoLock);
	if (local == NULL)
	{
		rel->oid = InvalidOid;
		rel->info.status = BDR_REL_MISSING;
		rel->valid = false;
		return;
	}
	rel->info.oid = rel->oid;
	rel->info.relkind = local->rd_rel->relkind;
	rel->info.file = local->rd_rel->relfilenode;
	rel->owner = local->rd_rel->relowner;
	if (local->rd_rel->relkind != RELKIND_RELATION && local->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
	{
		rel->info.status = BDR_REL_WRONG_KIND;
		relation_close(local, NoLock);
		return;
	}

	desc = RelationGetDescr(local);
	old = MemoryContextSwitchTo(rel->map_context);
	rel->map = palloc0(sizeof(ColumnMap) * Max(rel->ncolumns, 1));
	for (int i = 0; i < rel->ncolumns; i++)
	{
		ColumnMap  *map = &rel->map[i];
		BdrColumnDesc *column = &rel->columns[i];

		map->attribute = -1;
		map->missing = true;
		for (int a = 0; a < desc->natts; a++)
		{
			Form_pg_attribute attribute = TupleDescAttr(desc, a);

			if (attribute->attisdropped || strcmp(NameStr(attribute->attname), column->name) != 0)
				continue;
			map->missing = false;
			if (attribute->attgenerated)
				same = false;
			else
				map->attribute = a;
			map->type = attribute->atttypid;
			map->typmod = attribute->atttypmod;
			map->merged = bdr_is_crdt(map->type);
			map->timestamps = bdr_is_column_timestamps(map->type);
			if ((map->merged || map->timestamps) && map->attribute >= 0)
				rel->info.merges = 1;
			map->same_type = column->builtin_type != 0 && attribute->atttypid == column->builtin_type &&
				(attribute->atttypmod == column->typmod || attribute->atttypmod < 0);
			if (a != i || !map->same_type)
				same = false;
			break;
		}
		if (map->attribute >= 0)
			mapped++;
		if (map->missing)
		{
			same = false;
			if (rel->info.missing_column < 0)
			{
				rel->info.missing_column = i;
				rel->info.status = BDR_REL_COLUMNS_MISSING;
			}
		}
	}
	for (int a = 0; a < desc->natts; a++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, a);

		if (attribute->attisdropped || attribute->attgenerated)
			same = false;
		else
			live++;
	}
	rel->info.lacks_columns = mapped < live;
	rel->info.stream_triggers = bdr_stream_triggers_of(local);
	rel->version_attribute = bdr_row_version_attribute(local);
	for (int i = 0; i < rel->ncolumns && rel->version_attribute > 0; i++)
		if (rel->map[i].attribute == rel->version_attribute - 1)
			rel->info.row_version = 1;
	rel->info.same_layout = same && live == rel->ncolumns && live == desc->natts;
	MemoryContextSwitchTo(old);
	relation_close(local, NoLock);
}

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
		MapRelation(rel);
		FillInfo(rel, info);
	}
	HOST_END();
	return BDR_OK;
}

static void CloseKept(BdrRel *rel);

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

/* ---- opening and closing for a transaction -------------------------------------------------------------------- */

static void
PrepareColumn(BdrRel *rel, ColumnMap *map)
{
	MemoryContext old = MemoryContextSwitchTo(rel->map_context);
	Oid			function;

	getTypeInputInfo(map->type, &function, &map->input_param);
	fmgr_info(function, &map->input);
	map->functions_ready = true;
	MemoryContextSwitchTo(old);
}

/*
 * The function that reads what the type's send function has written. Types of the server's catalogs are sent, but their own
 * functions take nothing in, lest a user makes a value; but a table can hold them (CREATE TABLE x AS SELECT * FROM pg_class), and a
 * peer has them from its catalogs. They are sent, and kept, as text or bytea is.
 */
void
bdr_binary_input(Oid type, Oid *function, Oid *parameter)
{
	getTypeBinaryInputInfo(type, function, parameter);
	switch (*function)
	{
		case F_PG_NODE_TREE_RECV:
			*function = F_TEXTRECV;
			break;
		case F_PG_NDISTINCT_RECV:
		case F_PG_DEPENDENCIES_RECV:
		case F_PG_MCV_LIST_RECV:
		case F_BRIN_BLOOM_SUMMARY_RECV:
		case F_BRIN_MINMAX_MULTI_SUMMARY_RECV:
			*function = F_BYTEARECV;
			break;
		default:
			break;
	}
}

static void
PrepareReceive(BdrRel *rel, ColumnMap *map)
{
	if (map->receive.fn_oid == InvalidOid)
	{
		MemoryContext old = MemoryContextSwitchTo(rel->map_context);
		Oid			function;

		bdr_binary_input(map->type, &function, &map->receive_param);
		fmgr_info(function, &map->receive);
		MemoryContextSwitchTo(old);
	}
}

static void
PrepareRemote(BdrRel *rel, ColumnMap *map, Oid type)
{
	if (!map->remote_ready)
	{
		MemoryContext old = MemoryContextSwitchTo(rel->map_context);
		Oid			function;
		bool		varlena;

		getTypeOutputInfo(type, &function, &varlena);
		fmgr_info(function, &map->remote_output);
		bdr_binary_input(type, &function, &map->remote_param);
		fmgr_info(function, &map->remote_receive);
		map->remote_ready = true;
		MemoryContextSwitchTo(old);
	}
}

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
static void
ChooseKey(Target *target, Leaf *leaf)
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

static Leaf *
MakeLeaf(Target *target, ResultRelInfo *info)
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

/*
 * Do the peer's key columns tell the partition? Partitioning may differ per node, so they need not: then a row has to be
 * looked for in all partitions.
 */
static bool
KeyRoutes(BdrRel *rel, Relation root)
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
static void
OpenEveryLeaf(Target *target)
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
		leaf = MakeLeaf(target, info);
		leaf->own_relation = true;
		target->every_leaf = lappend(target->every_leaf, leaf);
	}
	MemoryContextSwitchTo(old);
}

/* Default expressions of the local columns that the peer does not have. */
static void
PrepareDefaults(Target *target)
{
	TupleDesc	desc = RelationGetDescr(target->relation);
	BdrRel	   *rel = target->rel;

	target->default_attributes = palloc(sizeof(int) * Max(desc->natts, 1));
	target->defaults = palloc(sizeof(ExprState *) * Max(desc->natts, 1));
	for (int a = 0; a < desc->natts; a++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, a);
		bool		mapped = false;
		Expr	   *expression;

		if (attribute->attisdropped || attribute->attgenerated)
			continue;
		for (int i = 0; i < rel->ncolumns && !mapped; i++)
			mapped = rel->map[i].attribute == a;
		if (mapped)
			continue;
		expression = (Expr *) build_column_default(target->relation, a + 1);
		if (expression != NULL)
		{
			expression = bdr_sequence_default(expression_planner(expression));
			target->defaults[target->ndefaults] = ExecInitExpr(expression, NULL);
			target->default_attributes[target->ndefaults] = a;
			target->ndefaults++;
		}
	}
}

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
OpenTargetIn(Target *target);

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
	PrepareDefaults(target);
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
		target->key_routes = KeyRoutes(rel, target->relation);
	}
	else
		target->leaf = MakeLeaf(target, target->info);
	MemoryContextSwitchTo(caller);
}

/* ---- appending pages ------------------------------------------------------------------------------------------ */

/* So many go into a table, and into WAL, at a time: a record takes no more. */
#define APPEND_PAGES XLR_MAX_BLOCK_ID

static int
AppendLimit(void)
{
	/* all of them are pinned at once */
	return Max(1, Min(APPEND_PAGES, NBuffers / 64));
}

static char *
AppendedPage(Target *target, int number)
{
	return target->pages + (Size) number * BLCKSZ;
}

/*
 * Puts the pages that were filled at the end of the table. Sessions that copy pieces of one table would otherwise wait for one
 * another at each page: here they do so once for many, and a page is logged once and not row by row.
 */
static void
WritePages(Target *target)
{
	Relation	relation = target->relation;
	Buffer		buffers[APPEND_PAGES];
	int			n = target->npages;

	if (n == 0)
		return;
	target->npages = 0;
	if (RelationNeedsWAL(relation))
		XLogEnsureRecordSpace(n - 1, 0);
	LockRelationForExtension(relation, ExclusiveLock);
	for (int i = 0; i < n; i++)
		buffers[i] = ReadBufferExtended(relation, MAIN_FORKNUM, P_NEW, RBM_ZERO_AND_LOCK, NULL);
	UnlockRelationForExtension(relation, ExclusiveLock);

	START_CRIT_SECTION();
	for (int i = 0; i < n; i++)
	{
		Page		page = BufferGetPage(buffers[i]);
		BlockNumber block = BufferGetBlockNumber(buffers[i]);

		memcpy(page, AppendedPage(target, i), BLCKSZ);
		for (OffsetNumber offset = FirstOffsetNumber; offset <= PageGetMaxOffsetNumber(page); offset++)
			ItemPointerSet(&((HeapTupleHeader) PageGetItem(page, PageGetItemId(page, offset)))->t_ctid, block, offset);
		MarkBufferDirty(buffers[i]);
	}
	if (RelationNeedsWAL(relation))
	{
		XLogRecPtr	lsn;

		XLogBeginInsert();
		for (int i = 0; i < n; i++)
			XLogRegisterBuffer(i, buffers[i], REGBUF_FORCE_IMAGE | REGBUF_STANDARD);
		lsn = XLogInsert(RM_XLOG_ID, XLOG_FPI);
		for (int i = 0; i < n; i++)
			PageSetLSN(BufferGetPage(buffers[i]), lsn);
	}
	END_CRIT_SECTION();
	for (int i = 0; i < n; i++)
		UnlockReleaseBuffer(buffers[i]);
}

/* Does anybody decode the WAL of this database? Images of pages are nothing that can be decoded. */
static bool
HasLogicalSlots(void)
{
	bool		found = false;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots && !found; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];

		SpinLockAcquire(&slot->mutex);
		found = slot->in_use && slot->data.database == MyDatabaseId;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);
	return found;
}

/*
 * May whole pages be put into the table? A slot that comes later does no harm: what it decodes begins after the transactions
 * that ran then, and this one runs, as it has its number.
 */
static bool
CanAppend(Target *target)
{
	if (!target->append_known)
	{
		Relation	relation = target->relation;

		(void) GetCurrentTransactionId();
		target->append_possible = target->routing == NULL && target->leaf != NULL && target->rel->info.same_layout &&
			relation->rd_rel->relkind == RELKIND_RELATION && relation->rd_rel->relam == HEAP_TABLE_AM_OID &&
			!RELATION_IS_LOCAL(relation) && target->leaf->info->ri_NumIndices == 0 &&
			target->leaf->info->ri_TrigDesc == NULL && !(RelationIsLogicallyLogged(relation) && HasLogicalSlots());
		target->append_known = true;
	}
	return target->append_possible;
}

/* Adds a row, whose header says nothing of transactions yet, to the pages. */
static void
AppendTuple(Target *target, HeapTuple tuple)
{
	Relation	relation = target->relation;
	HeapTupleHeader header = tuple->t_data;
	Size		spared = RelationGetTargetPageFreeSpace(relation, HEAP_DEFAULT_FILLFACTOR);
	Page		page = NULL;

	HeapTupleHeaderSetXmin(header, GetCurrentTransactionId());
	HeapTupleHeaderSetCmin(header, GetCurrentCommandId(true));
	HeapTupleHeaderSetXmax(header, InvalidTransactionId);
	header->t_infomask |= HEAP_XMAX_INVALID;

	if (target->npages > 0)
	{
		page = AppendedPage(target, target->npages - 1);
		if (PageGetHeapFreeSpace(page) < MAXALIGN(tuple->t_len) + spared)
			page = NULL;
	}
	if (page == NULL)
	{
		if (target->npages >= AppendLimit())
			WritePages(target);
		page = AppendedPage(target, target->npages);
		PageInit(page, BLCKSZ, 0);
		target->npages++;
	}
	if (PageAddItem(page, (Item) header, tuple->t_len, InvalidOffsetNumber, false, true) == InvalidOffsetNumber)
		elog(ERROR, "bdr: a row of %u bytes does not fit into a page", (unsigned) tuple->t_len);
}

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

static void
CloseAllKept(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &all_rels)
	{
		BdrRel	   *rel = dlist_container(BdrRel, node, iter.cur);

		if (rel->target == NULL)
			CloseKept(rel);
	}
}

static void
CloseTargets(void)
{
	ListCell   *cell;

	foreach(cell, open_targets)
	{
		Target	   *target = lfirst(cell);
		ListCell   *leaf_cell;

		WritePages(target);
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
	FireDeferredTriggers(false);
	CloseTargets();
	CloseAllKept();
	if (wrote_since_increment)
	{
		CommandCounterIncrement();
		wrote_since_increment = false;
	}
}

void
bdr_executor_end_transaction(bool commit)
{
	if (commit)
	{
		FireDeferredTriggers(true);
		CloseTargets();
		bdr_stamps_close(true);
	}
	ForgetTargets();
}

/* Closes what is open, without the end of the transaction: a subtransaction begins or ends. */
int32_t
bdr_host_executor_pause(void)
{
	HOST_BEGIN();
	CloseTargets();
	HOST_END();
	return BDR_OK;
}

/* Closes all, so that the tables can be altered. */
int32_t
bdr_host_executor_close(void)
{
	HOST_BEGIN();
	bdr_executor_end_transaction(true);
	CloseAllKept();
	HOST_END();
	return BDR_OK;
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
				MapRelation(rel);
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

/* ---- columns that only one side has --------------------------------------------------------------------------- */

int32_t
bdr_host_missing_values(BdrRel *rel, const BdrRow *row, bool key_only, int32_t *missing, int32_t *valued)
{
	*missing = *valued = -1;
	HOST_BEGIN();
	{
		MemoryContext old;
		Datum	   *values = NULL;
		bool	   *nulls = NULL;

		if (rel == NULL || rel->target == NULL)
			elog(ERROR, "bdr: relation is not open in this transaction");
		old = MemoryContextSwitchTo(rel->target->row_context);
		if (row->values == NULL && row->kept == NULL)
		{
			values = palloc(sizeof(Datum) * Max(rel->ncolumns, 1));
			nulls = palloc(sizeof(bool) * Max(rel->ncolumns, 1));
			bdr_raw_row_values(rel, row, values, nulls);
		}
		else if (row->kept == NULL && row->ncolumns != rel->ncolumns)
			ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION), errmsg("a row does not have the columns that were described")));
		for (int i = 0; i < rel->ncolumns && row->kept == NULL; i++)
		{
			if (!rel->map[i].missing ||
				(key_only && (rel->replica_identity == REPLICA_IDENTITY_FULL || !rel->columns[i].key)))
				continue;
			if (*missing < 0)
				*missing = i;
			if (*valued < 0 && (nulls ? !nulls[i] : row->values[i].kind != BDR_VALUE_NULL))
				*valued = i;
		}
		rel->leaves_out = true;
		MemoryContextSwitchTo(old);
	}
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_lacked_columns(BdrRel *rel, const char **names)
{
	*names = "";
	HOST_BEGIN();
	{
		TupleDesc	desc;
		StringInfoData buffer;
		MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

		if (rel == NULL || rel->target == NULL)
			elog(ERROR, "bdr: relation is not open in this transaction");
		desc = RelationGetDescr(rel->target->relation);
		initStringInfo(&buffer);
		for (int a = 0; a < desc->natts; a++)
		{
			Form_pg_attribute attribute = TupleDescAttr(desc, a);
			bool		mapped = attribute->attisdropped || attribute->attgenerated;

			for (int i = 0; i < rel->ncolumns && !mapped; i++)
				mapped = rel->map[i].attribute == a;
			if (!mapped)
				appendStringInfo(&buffer, "%s\"%s\"", buffer.len > 0 ? ", " : "", NameStr(attribute->attname));
		}
		*names = buffer.data;
		MemoryContextSwitchTo(old);
	}
	HOST_END();
	return BDR_OK;
}

static Target *
UseTarget(BdrRel *rel)
{
	if (rel == NULL || rel->target == NULL)
		elog(ERROR, "bdr: relation is not open in this transaction");
	ResetPerTupleExprContext(rel->target->estate);
	MemoryContextReset(rel->target->row_context);
	return rel->target;
}

/* ---- building rows -------------------------------------------------------------------------------------------- */

static void
CheckRowShape(BdrRel *rel, const BdrRow *row)
{
	if (row->values != NULL ? row->ncolumns != rel->ncolumns :
		(row->attributes != rel->ncolumns || rel->raw_desc == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("a row of \"%s.%s\" does not have the columns that were described", rel->namespace_name,
						rel->name)));
}

/* A heap tuple around a raw area; the area was validated against the described layout. */
static HeapTuple
MakeRawTuple(const BdrRow *row)
{
	Size		bitmap = row->has_nulls ? BITMAPLEN(row->attributes) : 0;
	Size		hoff = MAXALIGN(SizeofHeapTupleHeader + bitmap);
	Size		length = hoff + row->data_length;
	HeapTuple	tuple = palloc(HEAPTUPLESIZE + length);
	HeapTupleHeader header = (HeapTupleHeader) ((char *) tuple + HEAPTUPLESIZE);

	tuple->t_len = length;
	ItemPointerSetInvalid(&tuple->t_self);
	tuple->t_tableOid = InvalidOid;
	tuple->t_data = header;
	memset(header, 0, hoff);
	HeapTupleHeaderSetNatts(header, row->attributes);
	header->t_hoff = hoff;
	ItemPointerSetInvalid(&header->t_ctid);
	if (row->has_nulls)
	{
		header->t_infomask |= HEAP_HASNULL;
		memcpy(header->t_bits, row->bitmap, bitmap);
	}
	if (row->has_varwidth)
		header->t_infomask |= HEAP_HASVARWIDTH;
	memcpy((char *) header + hoff, row->data, row->data_length);
	return tuple;
}

/* As RawLayout.isNumeric does for values that are not compressed. */
static bool
IsNumeric(const char *payload, Size length)
{
	uint16		header;
	Size		offset;

	if (length < sizeof(header) || length % 2 != 0)
		return false;
	memcpy(&header, payload, sizeof(header));
	if ((header & 0xC000) == 0xC000)
		return length == sizeof(header) && (header == 0xC000 || header == 0xD000 || header == 0xF000);
	offset = (header & 0xC000) == 0x8000 ? 2 : 4;
	if (length < offset)
		return false;
	for (; offset < length; offset += 2)
	{
		int16		digit;

		memcpy(&digit, payload + offset, sizeof(digit));
		if (digit < 0 || digit >= 10000)
			return false;
	}
	return true;
}

/* Looks into compressed values: bounds were checked, but what they hold was not. */
static void
DeepCheck(BdrRel *rel, TupleDesc desc, Datum *values, bool *nulls)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (attribute->attlen == -1 && !nulls[i] && VARATT_IS_COMPRESSED(DatumGetPointer(values[i])))
		{
			struct varlena *plain = PG_DETOAST_DATUM(values[i]);

			if (attribute->atttypid == TEXTOID || attribute->atttypid == VARCHAROID || attribute->atttypid == BPCHAROID)
				(void) pg_verifymbstr(VARDATA_ANY(plain), VARSIZE_ANY_EXHDR(plain), false);
			else if (attribute->atttypid == NUMERICOID && !IsNumeric(VARDATA_ANY(plain), VARSIZE_ANY_EXHDR(plain)))
				ereport(ERROR,
						(errcode(ERRCODE_PROTOCOL_VIOLATION),
						 errmsg("malformed compressed numeric value in a raw row of \"%s.%s\"", rel->namespace_name, rel->name)));
			pfree(plain);
		}
	}
}

/* Through text, for a column whose type differs here. */
static Datum
ConvertDatum(BdrRel *rel, ColumnMap *map, BdrColumnDesc *column, Datum value)
{
	PrepareRemote(rel, map, column->builtin_type);
	return InputFunctionCall(&map->input, OutputFunctionCall(&map->remote_output, value), map->input_param,
							 map->typmod);
}

static Datum
ReceiveDatum(FmgrInfo *function, const BdrValue *value, Oid param, int32 typmod, BdrColumnDesc *column)
{
	StringInfoData buffer;
	Datum		result;

	/* the wire put a NUL behind the value, as receive functions may expect */
	buffer.data = (char *) value->data;
	buffer.len = value->length;
	buffer.maxlen = value->length + 1;
	buffer.cursor = 0;
	result = ReceiveFunctionCall(function, &buffer, param, typmod);
	if (buffer.cursor != buffer.len)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("incorrect binary data format in column \"%s\"", column->name)));
	return result;
}

static void
MissingColumn(BdrRel *rel, BdrColumnDesc *column)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of table \"%s.%s\" does not exist on this node, and the peer sent a value for it",
					column->name, rel->namespace_name, rel->name),
			 errhint("Add the column here, for example with ALTER TABLE %s ADD COLUMN %s %s; replication then goes on by itself.",
					 quote_qualified_identifier(rel->namespace_name, rel->name), quote_identifier(column->name),
					 column->type_name)));
}

/*
 * Puts the sent values into a slot of the target's (root's) columns. provided[a] tells which attributes were sent; others
 * are left as they are. Memory: current context.
 */
static void
StoreValues(Target *target, const BdrRow *row, Datum *values, bool *nulls, bool *provided)
{
	BdrRel	   *rel = target->rel;
	Datum	   *raw_values = NULL;
	bool	   *raw_nulls = NULL;

	if (row->kept)
	{
		bdr_kept_values(row->kept, RelationGetDescr(target->relation)->natts, values, nulls, provided);
		return;
	}
	CheckRowShape(rel, row);
	if (row->values == NULL)
	{
		HeapTuple	tuple = MakeRawTuple(row);

		raw_values = palloc(sizeof(Datum) * Max(rel->ncolumns, 1));
		raw_nulls = palloc(sizeof(bool) * Max(rel->ncolumns, 1));
		heap_deform_tuple(tuple, rel->raw_desc, raw_values, raw_nulls);
		if (row->deep_check)
			DeepCheck(rel, rel->raw_desc, raw_values, raw_nulls);
	}
	for (int i = 0; i < rel->ncolumns; i++)
	{
		ColumnMap  *map = &rel->map[i];
		BdrColumnDesc *column = &rel->columns[i];
		int			a = map->attribute;
		uint8		kind = row->values ? row->values[i].kind : (raw_nulls[i] ? BDR_VALUE_NULL : 0);

		if (map->missing && !rel->leaves_out && kind != BDR_VALUE_NULL && kind != BDR_VALUE_UNCHANGED && kind != BDR_VALUE_UNCHANGED_BY)
			MissingColumn(rel, column);
		if (a < 0 || (kind == BDR_VALUE_UNCHANGED || kind == BDR_VALUE_UNCHANGED_BY))
			continue;
		provided[a] = true;
		if (kind == BDR_VALUE_NULL)
		{
			nulls[a] = true;
			values[a] = (Datum) 0;
			/* a domain may refuse NULL */
			if (get_typtype(map->type) == TYPTYPE_DOMAIN)
			{
				if (!map->functions_ready)
					PrepareColumn(rel, map);
				(void) InputFunctionCall(&map->input, NULL, map->input_param, map->typmod);
			}
			continue;
		}
		nulls[a] = false;
		if (!map->functions_ready)
			PrepareColumn(rel, map);
		if (kind == BDR_VALUE_TEXT)
			values[a] = InputFunctionCall(&map->input, (char *) row->values[i].data, map->input_param, map->typmod);
		else if (kind == BDR_VALUE_BINARY)
		{
			if (column->builtin_type == 0 || column->builtin_type == map->type)
			{
				PrepareReceive(rel, map);
				values[a] = ReceiveDatum(&map->receive, &row->values[i], map->receive_param, map->typmod, column);
			}
			else
			{
				PrepareRemote(rel, map, column->builtin_type);
				values[a] = ConvertDatum(rel, map, column,
										 ReceiveDatum(&map->remote_receive, &row->values[i], map->remote_param, -1,
													  column));
			}
		}
		else
		{
			if (map->same_type)
				values[a] = raw_values[i];
			else
				values[a] = ConvertDatum(rel, map, column, raw_values[i]);
		}
		if (map->timestamps)
			values[a] = bdr_column_timestamps_received(values[a]);
	}
}

/* In the per-tuple memory of the target. */
static void
FillDefaults(Target *target, Datum *values, bool *nulls, const bool *provided)
{
	ExprContext *econtext = target->ndefaults > 0 ? GetPerTupleExprContext(target->estate) : NULL;

	for (int i = 0; i < target->ndefaults; i++)
	{
		int			a = target->default_attributes[i];

		if (!provided[a])
			values[a] = ExecEvalExpr(target->defaults[i], econtext, &nulls[a]);
	}
}

/* Whether a conflict-free type is a plain number, to which differences are added. */
static bool
IsNumber(Oid type)
{
	Oid			base = getBaseType(type);

	return base == INT8OID || base == NUMERICOID;
}

/* Takes from the numbers of a row what they were before. */
static void
KeepWhatWasAdded(Target *target, const BdrRow *before, TupleTableSlot *slot)
{
	BdrRel	   *rel = target->rel;
	int			natts = RelationGetDescr(target->relation)->natts;
	Datum	   *values = palloc0(sizeof(Datum) * Max(natts, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(natts, 1));
	bool	   *provided = palloc0(sizeof(bool) * Max(natts, 1));

	memset(nulls, true, sizeof(bool) * Max(natts, 1));
	StoreValues(target, before, values, nulls, provided);
	for (int i = 0; i < rel->ncolumns; i++)
	{
		ColumnMap  *map = &rel->map[i];
		int			a = map->attribute;
		NullableDatum zero = {0, false},
					old,
					new;

		if (a < 0 || !map->merged || !IsNumber(map->type) || slot->tts_isnull[a] || nulls[a])
			continue;
		if (getBaseType(map->type) == NUMERICOID)
			zero.value = DirectFunctionCall1(int8_numeric, Int64GetDatum(0));
		else
			zero.value = Int64GetDatum(0);
		old.value = values[a];
		old.isnull = false;
		new.value = slot->tts_values[a];
		new.isnull = false;
		slot->tts_values[a] = bdr_crdt_merge(map->type, zero, old, new).value;
	}
}

/* A full row for an insert, in the root's columns. */
static TupleTableSlot *
BuildInsertRow(Target *target, const BdrRow *row)
{
	TupleTableSlot *slot;
	TupleDesc	desc = RelationGetDescr(target->relation);
	MemoryContext old = MemoryContextSwitchTo(target->row_context);
	bool	   *provided;

	if (row->values == NULL && row->kept == NULL && target->rel->info.same_layout)
	{
		CheckRowShape(target->rel, row);
		slot = target->raw;
		ExecClearTuple(slot);
		ExecStoreHeapTuple(MakeRawTuple(row), slot, false);
		if (row->deep_check)
		{
			slot_getallattrs(slot);
			DeepCheck(target->rel, desc, slot->tts_values, slot->tts_isnull);
		}
		MemoryContextSwitchTo(old);
		return slot;
	}
	slot = target->row;
	ExecClearTuple(slot);
	for (int a = 0; a < desc->natts; a++)
	{
		slot->tts_values[a] = (Datum) 0;
		slot->tts_isnull[a] = true;
	}
	provided = palloc0(sizeof(bool) * Max(desc->natts, 1));
	StoreValues(target, row, slot->tts_values, slot->tts_isnull, provided);
	if (!row->probe)
		FillDefaults(target, slot->tts_values, slot->tts_isnull, provided);
	if (target->rel->info.merges && row->pending && row->old)
		KeepWhatWasAdded(target, row->old, slot);
	ExecStoreVirtualTuple(slot);
	MemoryContextSwitchTo(old);
	return slot;
}

/* Finds the leaf for a row in the root's columns; *converted is the row in the leaf's. */
static Leaf *
RouteRow(Target *target, TupleTableSlot *row, TupleTableSlot **converted, bool to_search)
{
	ResultRelInfo *info;
	Leaf	   *leaf = NULL;
	ListCell   *cell;
	MemoryContext old;

	if (target->routing == NULL)
	{
		*converted = row;
		return target->leaf;
	}
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
		leaf = MakeLeaf(target, info);
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

/* ---- finding -------------------------------------------------------------------------------------------------- */

static void
IncrementIfWritten(void)
{
	if (wrote_since_increment)
	{
		CommandCounterIncrement();
		wrote_since_increment = false;
	}
}

/*
 * Does a candidate equal the searched row in the columns that were sent? First by the exact stored values: rows that were
 * replicated are equal to the bit. `loosely` asks the types' own equality instead, for values that travelled as text or
 * were stored differently; types without equality (json, xml, point) are equal only exactly.
 */
static bool
RowMatches(Leaf *leaf, TupleTableSlot *candidate, TupleTableSlot *search, bool loosely)
{
	TupleDesc	desc = RelationGetDescr(leaf->relation);

	slot_getallattrs(candidate);
	for (int a = 0; a < desc->natts; a++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, a);

		if (attribute->attisdropped || attribute->attgenerated || !leaf->is_remote_key[a])
			continue;
		if (candidate->tts_isnull[a] != search->tts_isnull[a])
			return false;
		if (candidate->tts_isnull[a])
			continue;
		if (datum_image_eq(candidate->tts_values[a], search->tts_values[a], attribute->attbyval, attribute->attlen))
			continue;
		if (loosely)
		{
			TypeCacheEntry *type = lookup_type_cache(attribute->atttypid, TYPECACHE_EQ_OPR_FINFO);

			if (OidIsValid(type->eq_opr_finfo.fn_oid) &&
				DatumGetBool(FunctionCall2Coll(&type->eq_opr_finfo, attribute->attcollation, candidate->tts_values[a],
											   search->tts_values[a])))
				continue;
		}
		return false;
	}
	return true;
}

/* One pass under a snapshot. */
static bool
ScanOnce(Leaf *leaf, TupleTableSlot *search, Snapshot snapshot, bool loosely)
{
	bool		found = false;
	KeyIndex   *key = leaf->key;

	/* an index can't be asked for NULL here */
	if (key)
	{
		for (int k = 0; k < key->nkeys; k++)
		{
			int			a = key->attributes[k] - 1;

			if (search->tts_isnull[a])
			{
				key = NULL;
				break;
			}
		}
	}
	ExecClearTuple(leaf->found);
	if (key)
	{
		ScanKeyData keys[INDEX_MAX_KEYS];
		IndexScanDesc scan;

		memcpy(keys, key->keys, sizeof(ScanKeyData) * key->nkeys);
		for (int k = 0; k < key->nkeys; k++)
			keys[k].sk_argument = search->tts_values[key->attributes[k] - 1];
		scan = bdr_index_beginscan(leaf->relation, key->index, snapshot, key->nkeys);
		index_rescan(scan, keys, key->nkeys, NULL, 0);
		while (index_getnext_slot(scan, ForwardScanDirection, leaf->found))
		{
			if (key->recheck && !RowMatches(leaf, leaf->found, search, loosely))
				continue;
			found = true;
			break;
		}
		/* the slot keeps a pin of its own */
		index_endscan(scan);
	}
	else
	{
		TableScanDesc scan = table_beginscan(leaf->relation, snapshot, 0, NULL);

		while (table_scan_getnextslot(scan, ForwardScanDirection, leaf->found))
		{
			if (!RowMatches(leaf, leaf->found, search, loosely))
			{
				CHECK_FOR_INTERRUPTS();
				continue;
			}
			found = true;
			break;
		}
		table_endscan(scan);
	}
	return found;
}

/*
 * Locates the current version of the row. A fresh MVCC snapshot decides what is there: unlike a dirty scan it can't miss a
 * row that is being moved by an update. Only when it shows nothing is a dirty scan made for a row that is just being
 * written, whose writer is waited for.
 */
static bool
FindRow(Leaf *leaf, TupleTableSlot *search)
{
	for (;;)
	{
		Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
		bool		found;
		SnapshotData dirty;
		TransactionId writer;

		slot_getallattrs(search);
		found = ScanOnce(leaf, search, snapshot, false);
		if (!found && (leaf->key == NULL || leaf->key->recheck))
			found = ScanOnce(leaf, search, snapshot, true);
		UnregisterSnapshot(snapshot);
		if (found)
			return true;

		InitDirtySnapshot(dirty);
		if (!ScanOnce(leaf, search, &dirty, leaf->key == NULL || leaf->key->recheck))
			return false;
		writer = TransactionIdIsValid(dirty.xmin) ? dirty.xmin : dirty.xmax;
		if (!TransactionIdIsValid(writer))
			return true;
		XactLockTableWait(writer, leaf->relation, &leaf->found->tts_tid, XLTW_None);
	}
}

static void
DescribeFound(Leaf *leaf, BdrFound *found, Oid index)
{
	TimestampTz time;
	RepOriginId origin;
	bool		free_tuple;
	HeapTuple	tuple = ExecFetchSlotHeapTuple(leaf->found, false, &free_tuple);

	memset(found, 0, sizeof(*found));
	found->found = 1;
	found->index = index;
	leaf->is_found = true;
	if (TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetRawXmin(tuple->t_data)))
		found->own_transaction = 1;
	else if (bdr_tuple_version(tuple->t_data, &time, &origin))
	{
		found->has_version = 1;
		found->commit_time = time;
		found->origin = origin;
	}
	if (free_tuple)
		heap_freetuple(tuple);
}

/* Keeps the key of a row in the root's columns. provided: which of them have a value, NULL: all. */
static void
KeepKey(Target *target, TupleTableSlot *row, const bool *provided)
{
	const BdrKeyColumns *columns = bdr_key_columns(target->relation);

	target->has_key = false;
	if (provided)
	{
		for (int i = 0; i < columns->n; i++)
			if (!provided[columns->columns[i].attnum - 1])
				return;
	}
	target->has_key = bdr_key_of(columns, row, &target->key);
}

/* Adds to the rows in the way, unless it is there. */
static void
AddInWay(Target *target, Leaf *leaf, Oid index, ItemPointer tid)
{
	for (int i = 0; i < target->nin_way; i++)
		if (ItemPointerEquals(&target->in_way[i].tid, tid))
			return;
	if (target->nin_way == target->in_way_size)
	{
		int			size = Max(list_length(leaf->arbiters), target->in_way_size + 1);

		if (target->in_way == NULL)
			target->in_way = MemoryContextAlloc(target->estate->es_query_cxt, sizeof(RowInWay) * size);
		else
			target->in_way = repalloc(target->in_way, sizeof(RowInWay) * size);
		target->in_way_size = size;
	}
	target->in_way[target->nin_way].index = index;
	target->in_way[target->nin_way].tid = *tid;
	target->nin_way++;
}

static bool
IsIdentity(Leaf *leaf, Oid index)
{
	return index == RelationGetReplicaIndex(leaf->relation) || index == leaf->relation->rd_pkindex;
}

int32_t
bdr_host_in_the_way(BdrRel *rel, int32_t number, BdrFound *found)
{
	volatile int32_t outcome = BDR_DONE;

	memset(found, 0, sizeof(*found));
	HOST_BEGIN();
	{
		Target	   *target = UseTarget(rel);
		Leaf	   *leaf = target->leaf;

		IncrementIfWritten();
		if (leaf && number >= 0 && number < target->nin_way)
		{
			RowInWay   *row = &target->in_way[number];

			leaf->is_found = false;
			if (table_tuple_fetch_row_version(leaf->relation, &row->tid, SnapshotAny, leaf->found))
			{
				DescribeFound(leaf, found, row->index);
				found->by_identity = IsIdentity(leaf, row->index);
			}
			else
				outcome = BDR_RETRY;
		}
	}
	HOST_END();
	return outcome;
}

/* Locates a row in one leaf and makes it the one to write. */
static bool
LocateIn(Target *target, Leaf *leaf, TupleTableSlot *search, BdrFound *found)
{
	BdrRel	   *rel = target->rel;

	if (!leaf->key_known)
	{
		MemoryContext old = MemoryContextSwitchTo(target->estate->es_query_cxt);

		ChooseKey(target, leaf);
		MemoryContextSwitchTo(old);
	}
	if (leaf->nremote_keys == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot find rows of \"%s.%s\": the peer sent no key", rel->namespace_name, rel->name),
				 errhint("Add a primary key to the table, or use ALTER TABLE … REPLICA IDENTITY.")));
	leaf->is_found = false;
	target->leaf = leaf;
	if (!FindRow(leaf, search))
		return false;
	DescribeFound(leaf, found, leaf->key ? RelationGetRelid(leaf->key->index) : InvalidOid);
	found->by_identity = 1;
	return true;
}

int32_t
bdr_host_find(BdrRel *rel, const BdrRow *row, BdrFound *found)
{
	BdrTiming	timing;

	memset(found, 0, sizeof(*found));
	bdr_timing_begin(&timing);
	HOST_BEGIN();
	{
		Target	   *target = UseTarget(rel);
		TupleTableSlot *slot = target->row;
		TupleDesc	desc = RelationGetDescr(target->relation);
		MemoryContext old;
		Leaf	   *leaf;
		TupleTableSlot *search;
		bool	   *provided;
		SavedUser	saved;

		IncrementIfWritten();
		BecomeOwner(rel->owner, &saved);
		old = MemoryContextSwitchTo(target->row_context);
		ExecClearTuple(slot);
		for (int a = 0; a < desc->natts; a++)
		{
			slot->tts_values[a] = (Datum) 0;
			slot->tts_isnull[a] = true;
		}
		provided = palloc0(sizeof(bool) * Max(desc->natts, 1));
		StoreValues(target, row, slot->tts_values, slot->tts_isnull, provided);
		ExecStoreVirtualTuple(slot);
		if (target->routing && !target->key_routes)
		{
			ListCell   *cell;

			if (target->every_leaf == NIL)
				OpenEveryLeaf(target);
			foreach(cell, target->every_leaf)
			{
				leaf = lfirst(cell);
				search = leaf->from_root ? execute_attr_map_slot(leaf->from_root, slot, leaf->search) : slot;
				if (LocateIn(target, leaf, search, found))
					break;
			}
		}
		else
		{
			leaf = RouteRow(target, slot, &search, true);
			(void) LocateIn(target, leaf, search, found);
		}
		KeepKey(target, slot, provided);
		MemoryContextSwitchTo(old);
		BecomeOurselves(&saved);
	}
	bdr_timing_end(&timing, rel->oid, BDR_COUNT_UPDATE, 0);
	HOST_END();
	return BDR_OK;
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

/* The new row of an insert, without any look for conflicts. */
static void
InsertInto(Target *target, Leaf *leaf, TupleTableSlot *row)
{
	ResultRelInfo *info = leaf->info;
	EState	   *estate = target->estate;
	bool		triggers = info->ri_TrigDesc != NULL;

	if (leaf->defers)
		deferred_owner = target->rel->owner;
	if (triggers)
		AfterTriggerBeginQuery();
	ExecSimpleRelationInsert(info, estate, row);
	if (triggers)
		AfterTriggerEndQuery(estate);
	target->written = row;
	wrote_since_increment = true;
}

/* Looks for stamps of the key, if there can be any. */
static int
FindStamps(Target *target, BdrStamps *stamps)
{
	memset(stamps, 0, sizeof(*stamps));
	if (!target->has_key || !bdr_stamp_possible(target->key.hash))
		return 0;
	return bdr_stamps_find(RelationGetRelid(target->relation), &target->key, stamps);
}

int32_t
bdr_host_insert(BdrRel *rel, const BdrRow *row, bool despite_stamps, BdrFound *found)
{
	volatile int32_t outcome = BDR_DONE;
	BdrTiming	timing;

	memset(found, 0, sizeof(*found));
	bdr_timing_begin(&timing);
	HOST_BEGIN();
	{
		Target	   *target = UseTarget(rel);
		TupleTableSlot *slot;
		TupleTableSlot *converted;
		Leaf	   *leaf;
		SavedUser	saved;
		MemoryContext old;
		ListCell   *cell;
		uint64		generation = bdr_stamps_generation();
		BdrStamps	stamps;
		int			nstamps = 0;

		IncrementIfWritten();
		BecomeOwnerForRow(rel->owner, &saved);
		slot = BuildInsertRow(target, row);
		old = MemoryContextSwitchTo(GetPerTupleMemoryContext(target->estate));
		leaf = RouteRow(target, slot, &converted, false);
		leaf->is_found = false;
		KeepKey(target, slot, NULL);
		target->nin_way = 0;
		foreach(cell, leaf->arbiters)
		{
			Oid			index = lfirst_oid(cell);
			ItemPointerData conflict;
			List	   *arbiter = list_make1_oid(index);

			if (bdr_check_index_constraints(leaf->info, converted, target->estate, &conflict, arbiter))
				continue;
			AddInWay(target, leaf, index, &conflict);
			if (outcome == BDR_CONFLICT)
			{
				if (target->nin_way > 1)
					found->found = 2;
				if (IsIdentity(leaf, index))
					found->by_identity = 1;
				continue;
			}
			if (!table_tuple_fetch_row_version(leaf->relation, &conflict, SnapshotAny, leaf->found))
			{
				/* gone between the probe and now: the caller looks again */
				outcome = BDR_RETRY;
				break;
			}
			DescribeFound(leaf, found, index);
			found->by_identity = IsIdentity(leaf, index);
			outcome = BDR_CONFLICT;
		}
		if (outcome == BDR_DONE)
		{
			nstamps = FindStamps(target, &stamps);
			if (nstamps > 0 && !despite_stamps)
				outcome = BDR_STAMPED;
		}
		if (outcome == BDR_DONE && row->probe)
			outcome = BDR_FREE;
		if (outcome == BDR_DONE)
		{
			InsertInto(target, leaf, converted);
			/* a delete that came in between has not seen the row */
			pg_memory_barrier();
			if (generation != bdr_stamps_generation() && FindStamps(target, &stamps) != nstamps)
				ereport(ERROR,
						(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						 errmsg("a row of \"%s.%s\" was deleted while it was inserted", rel->namespace_name, rel->name)));
		}
		MemoryContextSwitchTo(old);
		BecomeOurselves(&saved);
	}
	bdr_timing_end(&timing, rel->oid, BDR_COUNT_INSERT, outcome == BDR_DONE ? 1 : 0);
	HOST_END();
	return outcome;
}

int32_t
bdr_host_stamps(BdrRel *rel, BdrStamps *stamps)
{
	memset(stamps, 0, sizeof(*stamps));
	HOST_BEGIN();
	if (rel == NULL || rel->target == NULL)
		elog(ERROR, "bdr: relation is not open in this transaction");
	(void) FindStamps(rel->target, stamps);
	HOST_END();
	return BDR_OK;
}

static void
AddStamp(BdrRel *rel, const TimestampTz *time, uint32 node)
{
	Target	   *target = rel ? rel->target : NULL;
	BdrKey		key;
	Oid			root;

	if (target == NULL)
		elog(ERROR, "bdr: relation is not open in this transaction");
	root = RelationGetRelid(target->relation);
	if (target->leaf && target->leaf->is_found)
	{
		if (bdr_key_of(bdr_key_columns(target->leaf->relation), target->leaf->found, &key))
			bdr_stamp_add(root, &key, time, node);
	}
	else if (target->has_key)
		bdr_stamp_add(root, &target->key, time, node);
}

int32_t
bdr_host_stamp(BdrRel *rel)
{
	HOST_BEGIN();
	AddStamp(rel, NULL, 0);
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_stamp_missing(BdrRel *rel)
{
	HOST_BEGIN();
	if (rel == NULL || rel->target == NULL)
		elog(ERROR, "bdr: relation is not open in this transaction");
	if (rel->target->has_key)
		bdr_stamp_add(RelationGetRelid(rel->target->relation), &rel->target->key, NULL, 0);
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_stamp_at(BdrRel *rel, int64_t commit_time, uint32_t node)
{
	HOST_BEGIN();
	{
		TimestampTz time = commit_time;

		AddStamp(rel, &time, node);
	}
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_same_key(BdrRel *rel, const BdrRow *a, const BdrRow *b)
{
	volatile int32_t same = 1;

	HOST_BEGIN();
	{
		Target	   *target = UseTarget(rel);
		TupleTableSlot *slot = target->row;
		TupleDesc	desc = RelationGetDescr(target->relation);
		const BdrKeyColumns *columns;
		MemoryContext old = MemoryContextSwitchTo(target->row_context);
		bool	   *provided = palloc(sizeof(bool) * Max(desc->natts, 1));
		Datum	   *values = palloc(sizeof(Datum) * Max(desc->natts, 1));
		bool	   *nulls = palloc(sizeof(bool) * Max(desc->natts, 1));
		BdrKey		keys[2];
		bool		has_key = true;
		SavedUser	saved;

		BecomeOwner(rel->owner, &saved);
		for (int i = 0; i < desc->natts; i++)
		{
			values[i] = (Datum) 0;
			nulls[i] = true;
		}
		/* what the new row does not say is as the old one has it */
		for (int which = 0; which < 2 && has_key; which++)
		{
			memset(provided, 0, sizeof(bool) * Max(desc->natts, 1));
			StoreValues(target, which == 0 ? a : b, values, nulls, provided);
			ExecClearTuple(slot);
			memcpy(slot->tts_values, values, sizeof(Datum) * desc->natts);
			memcpy(slot->tts_isnull, nulls, sizeof(bool) * desc->natts);
			ExecStoreVirtualTuple(slot);
			columns = bdr_key_columns(target->relation);
			has_key = bdr_key_of(columns, slot, &keys[which]);
		}
		if (has_key && (keys[0].hash != keys[1].hash || keys[0].check != keys[1].check))
			same = 0;
		ExecClearTuple(slot);
		MemoryContextSwitchTo(old);
		BecomeOurselves(&saved);
	}
	HOST_END();
	return same;
}

int32_t
bdr_host_value_version(BdrRel *rel, int32_t column, BdrFound *version)
{
	memset(version, 0, sizeof(*version));
	HOST_BEGIN();
	{
		Target	   *target = rel ? rel->target : NULL;
		Leaf	   *leaf = target ? target->leaf : NULL;
		TimestampTz time;
		RepOriginId origin;
		bool		isnull;
		int			a;

		if (leaf == NULL || !leaf->is_found || column < 0 || column >= rel->ncolumns)
			elog(ERROR, "bdr: no row was located");
		a = rel->map[column].attribute;
		if (a >= 0 && leaf->to_root)
			a = leaf->to_root->attnums[a] - 1;
		if (a >= 0)
		{
			Datum		value = slot_getattr(leaf->found, a + 1, &isnull);

			if (!isnull && TupleDescAttr(RelationGetDescr(leaf->relation), a)->attlen == -1 &&
				bdr_toast_version(value, &time, &origin))
			{
				version->found = 1;
				version->has_version = 1;
				version->commit_time = time;
				version->origin = origin;
			}
		}
	}
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_version_differs(BdrRel *rel, const BdrRow *before)
{
	volatile int32_t differs = 0;

	HOST_BEGIN();
	{
		Target	   *target = UseTarget(rel);
		Leaf	   *leaf = target->leaf;
		TupleDesc	desc = RelationGetDescr(target->relation);
		int			a = rel->version_attribute - 1;
		MemoryContext old = MemoryContextSwitchTo(target->row_context);
		bool	   *provided = palloc0(sizeof(bool) * Max(desc->natts, 1));
		Datum	   *values = palloc0(sizeof(Datum) * Max(desc->natts, 1));
		bool	   *nulls = palloc0(sizeof(bool) * Max(desc->natts, 1));
		SavedUser	saved;

		if (leaf == NULL || !leaf->is_found || a < 0)
			elog(ERROR, "bdr: no row with a version was located");
		BecomeOwner(rel->owner, &saved);
		StoreValues(target, before, values, nulls, provided);
		if (provided[a])
		{
			Form_pg_attribute attribute = TupleDescAttr(desc, a);
			bool		isnull;
			Datum		here = slot_getattr(leaf->found, leaf->to_root ? leaf->to_root->attnums[a] : a + 1, &isnull);

			differs = isnull != nulls[a] ||
				(!isnull && !datum_image_eq(here, values[a], attribute->attbyval, attribute->attlen));
		}
		MemoryContextSwitchTo(old);
		BecomeOurselves(&saved);
	}
	HOST_END();
	return differs;
}

/* Deletes the located version. BDR_RETRY when it is no longer the current one. */
static int
DeleteLocated(Target *target, Leaf *leaf, bool moving)
{
	ResultRelInfo *info = leaf->info;
	EState	   *estate = target->estate;
	ItemPointer tid = &leaf->found->tts_tid;
	TM_FailureData failure;
	TM_Result	result;
	bool		triggers = info->ri_TrigDesc != NULL;

	if (leaf->defers)
		deferred_owner = target->rel->owner;
	if (triggers && info->ri_TrigDesc->trig_delete_before_row)
	{
		/* triggers see a row that can't change under them */
		result = table_tuple_lock(leaf->relation, tid, GetLatestSnapshot(), leaf->found, GetCurrentCommandId(false),
								  LockTupleExclusive, LockWaitBlock, 0, &failure);
		if (result != TM_Ok)
			return result == TM_SelfModified ? BDR_DONE : BDR_RETRY;
		/* the server locks once more, and must see rows of this transaction */
		estate->es_output_cid = GetCurrentCommandId(false);
		AfterTriggerBeginQuery();
		if (!bdr_exec_br_delete_triggers(estate, &leaf->epq, info, tid))
		{
			AfterTriggerEndQuery(estate);
			return BDR_DONE;
		}
		AfterTriggerEndQuery(estate);
	}
	result = table_tuple_delete(leaf->relation, tid, GetCurrentCommandId(true), GetActiveSnapshot(), InvalidSnapshot,
								true, &failure, moving);
	if (result == TM_Updated || result == TM_Deleted)
		return BDR_RETRY;
	if (result != TM_Ok && result != TM_SelfModified)
		elog(ERROR, "unexpected result of a delete: %u", result);
	if (triggers)
	{
		AfterTriggerBeginQuery();
		ExecARDeleteTriggers(estate, info, tid, NULL, NULL, false);
		AfterTriggerEndQuery(estate);
	}
	wrote_since_increment = true;
	return BDR_DONE;
}

/* Writes a new version of the located row. */
static int
UpdateLocated(Target *target, Leaf *leaf, TupleTableSlot *row)
{
	ResultRelInfo *info = leaf->info;
	EState	   *estate = target->estate;
	Relation	relation = leaf->relation;
	ItemPointer tid = &leaf->found->tts_tid;
	TM_FailureData failure;
	LockTupleMode lock_mode;
	BdrUpdateIndexes update_indexes;
	TM_Result	result;
	List	   *recheck = NIL;
	bool		triggers = info->ri_TrigDesc != NULL;

	if (leaf->defers)
		deferred_owner = target->rel->owner;
	if (triggers && info->ri_TrigDesc->trig_update_before_row)
	{
		bool		go_on;

		result = table_tuple_lock(relation, tid, GetLatestSnapshot(), leaf->found, GetCurrentCommandId(false),
								  LockTupleExclusive, LockWaitBlock, 0, &failure);
		if (result != TM_Ok)
			return result == TM_SelfModified ? BDR_DONE : BDR_RETRY;
		/* the server locks once more, and must see rows of this transaction */
		estate->es_output_cid = GetCurrentCommandId(false);
		AfterTriggerBeginQuery();
		EvalPlanQualSetSlot(&leaf->epq, row);
		go_on = bdr_exec_br_update_triggers(estate, &leaf->epq, info, tid, row);
		AfterTriggerEndQuery(estate);
		if (!go_on)
			return BDR_DONE;
	}
	if (relation->rd_att->constr && relation->rd_att->constr->has_generated_stored)
		ExecComputeStoredGenerated(info, estate, row, CMD_UPDATE);
	if (relation->rd_att->constr)
		ExecConstraints(info, row, estate);
	if (relation->rd_rel->relispartition)
		ExecPartitionCheck(info, row, estate, true);
	result = table_tuple_update(relation, tid, row, GetCurrentCommandId(true), GetActiveSnapshot(), InvalidSnapshot,
								true, &failure, &lock_mode, &update_indexes);
	if (result == TM_Updated || result == TM_Deleted)
		return BDR_RETRY;
	if (result != TM_Ok)
		elog(ERROR, "unexpected result of an update: %u", result);
	if (info->ri_NumIndices > 0 && bdr_needs_index_update(update_indexes))
		recheck = bdr_insert_index_tuples(info, row, estate, true, update_indexes);
	if (triggers)
	{
		AfterTriggerBeginQuery();
		ExecARUpdateTriggers(estate, info, NULL, NULL, tid, NULL, row, recheck, NULL, false);
		AfterTriggerEndQuery(estate);
	}
	list_free(recheck);
	target->written = row;
	wrote_since_increment = true;
	return BDR_DONE;
}

/*
 * Whether other rows have unique values of the row that shall take the located one's place; the first of them is located then.
 * The replica identity is not looked at: the caller has.
 */
static bool
HasOtherRow(Target *target, Leaf *leaf, TupleTableSlot *row, BdrFound *found)
{
	ItemPointerData located = leaf->found->tts_tid;
	ListCell   *cell;

	target->nin_way = 0;
	foreach(cell, leaf->arbiters)
	{
		Oid			index = lfirst_oid(cell);
		ItemPointerData conflict;

		if (!IsIdentity(leaf, index) &&
			!bdr_check_index_constraints(leaf->info, row, target->estate, &conflict, list_make1_oid(index)) &&
			!ItemPointerEquals(&conflict, &located))
			AddInWay(target, leaf, index, &conflict);
	}
	if (target->nin_way == 0)
		return false;
	/* gone between the probe and now: found stays empty, and the caller looks again */
	if (table_tuple_fetch_row_version(leaf->relation, &target->in_way[0].tid, SnapshotAny, leaf->found))
		DescribeFound(leaf, found, target->in_way[0].index);
	return true;
}

/*
 * Merges the timestamps of columns, if both rows have them. Returns which columns, of the peer's, the sent row has later; NULL
 * when the row is resolved as a whole.
 */
static uint8 *
MergeTimestamps(Target *target, Leaf *leaf, TupleTableSlot *slot, const bool *provided)
{
	BdrRel	   *rel = target->rel;
	uint32	   *columns;
	uint8	   *later;
	TransactionId xmin;
	bool		isnull;

	for (int i = 0; i < rel->ncolumns; i++)
	{
		int			a = rel->map[i].attribute;
		int			l;

		if (!rel->map[i].timestamps || a < 0 || !provided[a] || slot->tts_isnull[a])
			continue;
		l = leaf->to_root ? leaf->to_root->attnums[a] - 1 : a;
		if (l < 0 || leaf->found->tts_isnull[l])
			continue;
		columns = palloc(sizeof(uint32) * rel->ncolumns);
		later = palloc0(rel->ncolumns);
		for (int n = 0; n < rel->ncolumns; n++)
			columns[n] = bdr_column_hash(rel->columns[n].name);
		xmin = DatumGetTransactionId(slot_getsysattr(leaf->found, MinTransactionIdAttributeNumber, &isnull));
		slot->tts_values[a] = bdr_column_timestamps_merge(bdr_column_timestamps_stored(leaf->found->tts_values[l], xmin),
														  slot->tts_values[a], columns, rel->ncolumns, later);
		return later;
	}
	return NULL;
}

/*
 * Merges what was sent, a row in the root's columns, with the located version; provided: which of its columns count
 * afterwards. Returns whether a value of a conflict-free type differs from what is here.
 */
static bool
MergeValues(Target *target, Leaf *leaf, const BdrRow *row, TupleTableSlot *slot, bool *provided)
{
	BdrRel	   *rel = target->rel;
	TupleDesc	desc = RelationGetDescr(target->relation);
	Datum	   *old_values = NULL;
	bool	   *old_nulls = NULL;
	bool	   *old_provided = NULL;
	uint8	   *later = NULL;	/* conflicts are resolved column by column: which the sent row has later */
	bool		changed = false;

	if (rel->info.merges && !row->separate && row->old)
	{
		old_values = palloc0(sizeof(Datum) * Max(desc->natts, 1));
		old_nulls = palloc(sizeof(bool) * Max(desc->natts, 1));
		old_provided = palloc0(sizeof(bool) * Max(desc->natts, 1));
		memset(old_nulls, true, sizeof(bool) * Max(desc->natts, 1));
		StoreValues(target, row->old, old_values, old_nulls, old_provided);
	}
	if (rel->info.merges && !row->separate)
		later = MergeTimestamps(target, leaf, slot, provided);
	for (int i = 0; i < rel->ncolumns; i++)
	{
		ColumnMap  *map = &rel->map[i];
		int			a = map->attribute;
		int			l;
		NullableDatum local,
					before = {0, true},
					sent,
					merged;
		int16		length;
		bool		by_value;

		if (a < 0)
			continue;
		l = leaf->to_root ? leaf->to_root->attnums[a] - 1 : a;
		get_typlenbyval(map->type, &length, &by_value);
		if (later && !map->merged && l >= 0)
		{
			if (!map->timestamps && !later[i])
			{
				provided[a] = false;
				continue;
			}
			/* a value that was left out, as it had not changed */
			if (!provided[a] && old_values && old_provided[a])
			{
				slot->tts_values[a] = old_values[a];
				slot->tts_isnull[a] = old_nulls[a];
				provided[a] = true;
			}
			if (provided[a] &&
				(slot->tts_isnull[a] != leaf->found->tts_isnull[l] ||
				 (!slot->tts_isnull[a] &&
				  !datum_image_eq(slot->tts_values[a], leaf->found->tts_values[l], by_value, length))))
				changed = true;
			continue;
		}
		if (!provided[a])
			continue;
		if (!map->merged || row->separate)
		{
			if (row->keep_all || (row->keep && row->keep[i]))
				provided[a] = false;
			continue;
		}
		if (l < 0)
			continue;
		if (row->old_unknown && IsNumber(map->type))
		{
			if (row->keep_all || (row->keep && row->keep[i]))
				provided[a] = false;
			continue;
		}
		local.value = leaf->found->tts_values[l];
		local.isnull = leaf->found->tts_isnull[l];
		sent.value = slot->tts_values[a];
		sent.isnull = slot->tts_isnull[a];
		if (old_values)
		{
			before.value = old_values[a];
			before.isnull = old_nulls[a];
		}
		merged = bdr_crdt_merge(map->type, local, before, sent);
		slot->tts_values[a] = merged.value;
		slot->tts_isnull[a] = merged.isnull;
		if (merged.isnull != local.isnull ||
			(!merged.isnull && !datum_image_eq(merged.value, local.value, by_value, length)))
			changed = true;
		else
			provided[a] = false;
	}
	return changed;
}

int32_t
bdr_host_update_found(BdrRel *rel, const BdrRow *row, BdrFound *found)
{
	volatile int32_t outcome = BDR_DONE;
	BdrTiming	timing;

	memset(found, 0, sizeof(*found));
	bdr_timing_begin(&timing);
	HOST_BEGIN();
	{
		Target	   *target = UseTarget(rel);
		Leaf	   *leaf = target->leaf;
		TupleDesc	desc = RelationGetDescr(target->relation);
		TupleDesc	leaf_desc;
		TupleTableSlot *slot = target->row;
		MemoryContext old;
		SavedUser	saved;
		bool	   *provided;

		if (leaf == NULL || !leaf->is_found)
			elog(ERROR, "bdr: no row was located");
		IncrementIfWritten();
		leaf_desc = RelationGetDescr(leaf->relation);
		BecomeOwnerForRow(rel->owner, &saved);
		old = MemoryContextSwitchTo(target->row_context);

		/* what was sent, in the root's columns */
		ExecClearTuple(slot);
		for (int a = 0; a < desc->natts; a++)
		{
			slot->tts_values[a] = (Datum) 0;
			slot->tts_isnull[a] = true;
		}
		provided = palloc0(sizeof(bool) * Max(desc->natts, 1));
		StoreValues(target, row, slot->tts_values, slot->tts_isnull, provided);
		slot_getallattrs(leaf->found);
		if (!MergeValues(target, leaf, row, slot, provided) && row->keep_all)
			outcome = BDR_SAME;
		ExecStoreVirtualTuple(slot);

		/* laid over the located version, in the leaf's columns */
		ExecClearTuple(leaf->row);
		for (int a = 0; a < leaf_desc->natts; a++)
		{
			int			root = a;

			if (leaf->from_root)
				root = leaf->from_root->attnums[a] - 1;
			if (root >= 0 && provided[root])
			{
				leaf->row->tts_values[a] = slot->tts_values[root];
				leaf->row->tts_isnull[a] = slot->tts_isnull[root];
			}
			else
			{
				leaf->row->tts_values[a] = leaf->found->tts_values[a];
				leaf->row->tts_isnull[a] = leaf->found->tts_isnull[a];
			}
		}
		ExecStoreVirtualTuple(leaf->row);

		if (outcome == BDR_SAME)
			 /* nothing to write */ ;
		else if (leaf->relation->rd_rel->relispartition && target->routing &&
			!ExecPartitionCheck(leaf->info, leaf->row, target->estate, false))
		{
			/* the row moves to another partition: delete and insert, as the server does it */
			TupleTableSlot *moved = slot;
			TupleTableSlot *converted;
			Leaf	   *destination;

			/* values kept from the located version must not point into its TOAST table */
			for (int a = 0; a < leaf_desc->natts; a++)
			{
				if (!leaf->row->tts_isnull[a] && TupleDescAttr(leaf_desc, a)->attlen == -1 &&
					VARATT_IS_EXTERNAL(DatumGetPointer(leaf->row->tts_values[a])))
					leaf->row->tts_values[a] =
						PointerGetDatum(detoast_external_attr((struct varlena *) DatumGetPointer(leaf->row->tts_values[a])));
			}
			ExecClearTuple(moved);
			if (leaf->to_root)
				moved = execute_attr_map_slot(leaf->to_root, leaf->row, moved);
			else
			{
				for (int a = 0; a < desc->natts; a++)
				{
					moved->tts_values[a] = leaf->row->tts_values[a];
					moved->tts_isnull[a] = leaf->row->tts_isnull[a];
				}
				ExecStoreVirtualTuple(moved);
			}
			outcome = DeleteLocated(target, leaf, true);
			if (outcome == BDR_DONE)
			{
				destination = RouteRow(target, moved, &converted, false);
				InsertInto(target, destination, converted);
			}
		}
		else if (list_length(leaf->arbiters) > 1 && HasOtherRow(target, leaf, leaf->row, found))
			outcome = found->found ? BDR_CONFLICT : BDR_RETRY;
		else
			outcome = UpdateLocated(target, leaf, leaf->row);
		if (outcome != BDR_CONFLICT)
			leaf->is_found = false;
		MemoryContextSwitchTo(old);
		BecomeOurselves(&saved);
	}
	bdr_timing_end(&timing, rel->oid, BDR_COUNT_UPDATE, outcome == BDR_DONE ? 1 : 0);
	HOST_END();
	return outcome;
}

int32_t
bdr_host_delete_found(BdrRel *rel)
{
	volatile int32_t outcome = BDR_DONE;
	BdrTiming	timing;

	bdr_timing_begin(&timing);
	HOST_BEGIN();
	{
		Target	   *target = UseTarget(rel);
		Leaf	   *leaf = target->leaf;
		SavedUser	saved;

		if (leaf == NULL || !leaf->is_found)
			elog(ERROR, "bdr: no row was located");
		IncrementIfWritten();
		BecomeOwnerForRow(rel->owner, &saved);
		outcome = DeleteLocated(target, leaf, false);
		leaf->is_found = false;
		BecomeOurselves(&saved);
	}
	bdr_timing_end(&timing, rel->oid, BDR_COUNT_DELETE, outcome == BDR_DONE ? 1 : 0);
	HOST_END();
	return outcome;
}

/*
 * Inserts many raw rows at once, hoping that none has a conflict: a subtransaction makes the hope safe. When a unique key
 * is violated all of it is undone and the caller goes row by row.
 */
int32_t
bdr_host_insert_batch(BdrRel *rel, const BdrRow *rows, int32_t n, int32_t *done)
{
	volatile int32_t outcome = BDR_DONE;
	BdrTiming	timing;

	*done = 0;
	bdr_timing_begin(&timing);
	HOST_BEGIN();
	{
		Target	   *target = UseTarget(rel);
		Leaf	   *leaf = target->leaf;
		uint64		generation = bdr_stamps_generation();
		volatile bool stamped = bdr_stamps_possible();

		if (n < 10 || target->routing != NULL || !rel->info.same_layout || leaf->info->ri_TrigDesc != NULL)
			outcome = BDR_CONFLICT;
		else
		{
			MemoryContext caller = CurrentMemoryContext;
			ResourceOwner owner = CurrentResourceOwner;
			SavedUser	saved;
			Relation	relation = leaf->relation;
			CommandId	command;

			IncrementIfWritten();
			if (target->batch_size < n)
			{
				MemoryContextSwitchTo(target->estate->es_query_cxt);
				if (target->batch == NULL)
				{
					target->batch = palloc(sizeof(TupleTableSlot *) * n);
					target->batch_desc = CreateTupleDescCopyConstr(RelationGetDescr(relation));
				}
				else
					target->batch = repalloc(target->batch, sizeof(TupleTableSlot *) * n);
				while (target->batch_size < n)
					target->batch[target->batch_size++] =
						MakeSingleTupleTableSlot(target->batch_desc, &TTSOpsHeapTuple);
				MemoryContextSwitchTo(caller);
			}
			BeginInternalSubTransaction(NULL);
			MemoryContextSwitchTo(target->row_context);
			PG_TRY();
			{
				BecomeOwner(rel->owner, &saved);
				command = GetCurrentCommandId(true);
				for (int i = 0; i < n; i++)
				{
					TupleTableSlot *slot = target->batch[i];

					CheckRowShape(rel, &rows[i]);
					/* the slot owns it: it would be copied else */
					ExecStoreHeapTuple(MakeRawTuple(&rows[i]), slot, true);
					if (rows[i].deep_check)
					{
						slot_getallattrs(slot);
						DeepCheck(rel, RelationGetDescr(relation), slot->tts_values, slot->tts_isnull);
					}
					if (relation->rd_att->constr)
						ExecConstraints(leaf->info, slot, target->estate);
					slot->tts_tableOid = RelationGetRelid(relation);
				}
				table_multi_insert(relation, target->batch, n, command, 0, NULL);
				if (leaf->info->ri_NumIndices > 0)
				{
					for (int i = 0; i < n; i++)
					{
						MemoryContext tuple_context = MemoryContextSwitchTo(GetPerTupleMemoryContext(target->estate));

						list_free(bdr_insert_index_tuples(leaf->info, target->batch[i], target->estate, false,
														  BDR_UPDATE_ALL_INDEXES));
						MemoryContextSwitchTo(tuple_context);
						ResetPerTupleExprContext(target->estate);
					}
				}
				/* after they are there, so that a delete that comes now sees them */
				pg_memory_barrier();
				stamped = stamped || generation != bdr_stamps_generation();
				for (int i = 0; i < n && stamped; i++)
				{
					BdrStamps	stamps;

					KeepKey(target, target->batch[i], NULL);
					if (FindStamps(target, &stamps) > 0)
						ereport(ERROR, (errcode(ERRCODE_UNIQUE_VIOLATION), errmsg("a row has stamps")));
				}
				for (int i = 0; i < n; i++)
					ExecClearTuple(target->batch[i]);
				BecomeOurselves(&saved);
				ReleaseCurrentSubTransaction();
				MemoryContextSwitchTo(caller);
				CurrentResourceOwner = owner;
				*done = n;
				wrote_since_increment = true;
			}
			PG_CATCH();
			{
				ErrorData  *error;

				MemoryContextSwitchTo(caller);
				error = CopyErrorData();
				FlushErrorState();
				RollbackAndReleaseCurrentSubTransaction();
				MemoryContextSwitchTo(caller);
				CurrentResourceOwner = owner;
				for (int i = 0; i < n; i++)
					ExecClearTuple(target->batch[i]);
				if (error->sqlerrcode != ERRCODE_UNIQUE_VIOLATION)
					ReThrowError(error);
				FreeErrorData(error);
				outcome = BDR_CONFLICT;
			}
			PG_END_TRY();
		}
	}
	bdr_timing_end(&timing, rel->oid, BDR_COUNT_INSERT, *done);
	HOST_END();
	return outcome;
}

/*
 * Inserts raw rows that a join copies into a table without indexes and triggers. They are in the table when it is closed
 * (bdr_host_executor_close), perhaps earlier.
 */
int32_t
bdr_host_append_batch(BdrRel *rel, const BdrRow *rows, int32_t n)
{
	volatile int32_t outcome = BDR_DONE;

	HOST_BEGIN();
	{
		Target	   *target = UseTarget(rel);
		bool		possible = CanAppend(target);

		for (int i = 0; i < n && possible; i++)
		{
			Size		header = SizeofHeapTupleHeader + (rows[i].has_nulls ? BITMAPLEN(rows[i].attributes) : 0);

			/* others get their values out of line */
			possible = MAXALIGN(header) + rows[i].data_length <= TOAST_TUPLE_THRESHOLD;
		}
		if (!possible)
			outcome = BDR_CONFLICT;
		else
		{
			TupleTableSlot *slot = target->raw;
			MemoryContext caller = MemoryContextSwitchTo(target->row_context);
			SavedUser	saved;

			if (target->pages == NULL)
				target->pages = MemoryContextAlloc(target->estate->es_query_cxt, (Size) AppendLimit() * BLCKSZ);
			BecomeOwner(rel->owner, &saved);
			for (int i = 0; i < n; i++)
			{
				HeapTuple	tuple;

				CheckRowShape(rel, &rows[i]);
				tuple = MakeRawTuple(&rows[i]);
				ExecStoreHeapTuple(tuple, slot, false);
				if (rows[i].deep_check)
				{
					slot_getallattrs(slot);
					DeepCheck(rel, RelationGetDescr(target->relation), slot->tts_values, slot->tts_isnull);
				}
				if (target->relation->rd_att->constr)
					ExecConstraints(target->leaf->info, slot, target->estate);
				AppendTuple(target, tuple);
			}
			ExecClearTuple(slot);
			BecomeOurselves(&saved);
			MemoryContextSwitchTo(caller);
			pgstat_count_heap_insert(target->relation, n);
			wrote_since_increment = true;
		}
	}
	HOST_END();
	return outcome;
}

/* ---- TRUNCATE ------------------------------------------------------------------------------------------------- */

/* Adds a relation, and the partitions or children that the peer truncated with it when it is partitioned here. */
static void
AddTruncated(Oid oid, List **relations, List **oids, List **logged)
{
	Relation	relation;

	if (list_member_oid(*oids, oid))
		return;
	relation = table_open(oid, AccessExclusiveLock);
	*relations = lappend(*relations, relation);
	*oids = lappend_oid(*oids, oid);
	if (RelationIsLogicallyLogged(relation))
		*logged = lappend_oid(*logged, oid);
	if (relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
	{
		ListCell   *cell;
		List	   *children = find_all_inheritors(oid, AccessExclusiveLock, NULL);

		foreach(cell, children)
		{
			Oid			child = lfirst_oid(cell);
			Relation	child_relation;

			if (list_member_oid(*oids, child))
				continue;
			child_relation = table_open(child, NoLock);
			if (RELATION_IS_OTHER_TEMP(child_relation))
			{
				table_close(child_relation, AccessExclusiveLock);
				continue;
			}
			*relations = lappend(*relations, child_relation);
			*oids = lappend_oid(*oids, child);
			if (RelationIsLogicallyLogged(child_relation))
				*logged = lappend_oid(*logged, child);
		}
	}
}

int32_t
bdr_host_truncate(BdrRel *const *rels, int32_t n, bool cascade, bool restart_identity)
{
	BdrTiming	timing;

	bdr_timing_begin(&timing);
	HOST_BEGIN();
	{
		List	   *relations = NIL,
				   *oids = NIL,
				   *logged = NIL;
		ListCell   *cell;
		Oid			owner = InvalidOid;
		Oid			trigger_owner = InvalidOid;
		SavedUser	saved;

		/* TRUNCATE refuses a table that this session still has open */
		CloseTargets();
		CloseAllKept();
		IncrementIfWritten();
		for (int i = 0; i < n; i++)
		{
			if (!rels[i]->valid)
				MapRelation(rels[i]);
			if (rels[i]->info.status == BDR_REL_MISSING)
				continue;
			AddTruncated(rels[i]->oid, &relations, &oids, &logged);
		}
		foreach(cell, relations)
		{
			Relation	relation = lfirst(cell);

			if (!OidIsValid(owner))
				owner = relation->rd_rel->relowner;
			if (relation->trigdesc &&
				(relation->trigdesc->trig_truncate_before_statement || relation->trigdesc->trig_truncate_after_statement))
			{
				if (OidIsValid(trigger_owner) && trigger_owner != relation->rd_rel->relowner)
					ereport(ERROR,
							(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							 errmsg("cannot apply a TRUNCATE of several tables with TRUNCATE triggers and different owners"),
							 errhint("Give the tables one owner, or truncate them one by one.")));
				trigger_owner = relation->rd_rel->relowner;
			}
		}
		if (relations != NIL)
		{
			BecomeOwner(OidIsValid(trigger_owner) ? trigger_owner : owner, &saved);
			/* what CASCADE reached on the peer is listed; it must not reach further here */
			bdr_truncate_guts(relations, oids, logged, DROP_RESTRICT, restart_identity);
			BecomeOurselves(&saved);
		}
		foreach(cell, relations)
			table_close((Relation) lfirst(cell), NoLock);
		CommandCounterIncrement();
	}
	/* they are truncated together: each counts, and the time of all goes to the first */
	for (int i = 0; i < n && timing.on; i++)
	{
		if (rels[i]->info.status == BDR_REL_MISSING)
			continue;
		bdr_timing_end(&timing, rels[i]->oid, BDR_COUNT_TRUNCATE, 1);
		bdr_timing_start(&timing);
	}
	HOST_END();
	return BDR_OK;
}

/* ---- for the record of conflicts ------------------------------------------------------------------------------ */

/* False when the relation is not open in this transaction. Rows are those of the last call for it. */
bool
bdr_rel_view(BdrRel *rel, BdrRelView *view)
{
	Target	   *target = rel ? rel->target : NULL;

	memset(view, 0, sizeof(*view));
	/* a table that is not here has nothing but what the peer sent */
	if (target == NULL && (rel == NULL || rel->info.status != BDR_REL_MISSING))
		return false;
	view->oid = rel->oid;
	view->owner = rel->owner;
	view->namespace_name = rel->namespace_name;
	view->name = rel->name;
	view->whole_row_key = rel->replica_identity == REPLICA_IDENTITY_FULL;
	view->ncolumns = rel->ncolumns;
	view->columns = rel->columns;
	if (target == NULL)
	{
		view->oid = view->owner = InvalidOid;
		return true;
	}
	if (target->leaf && !TTS_EMPTY(target->leaf->found))
		view->found = target->leaf->found;
	if (target->written && !TTS_EMPTY(target->written))
		view->written = target->written;
	return true;
}

bool
bdr_rel_merges_column(BdrRel *rel, int column)
{
	return rel->map != NULL && (rel->map[column].merged || rel->map[column].timestamps);
}

void
bdr_raw_row_values(BdrRel *rel, const BdrRow *row, Datum *values, bool *nulls)
{
	CheckRowShape(rel, row);
	heap_deform_tuple(MakeRawTuple(row), rel->raw_desc, values, nulls);
	if (row->deep_check)
		DeepCheck(rel, rel->raw_desc, values, nulls);
}

/* ---- for stream triggers -------------------------------------------------------------------------------------- */

Relation
bdr_rel_table(BdrRel *rel)
{
	if (rel == NULL || rel->target == NULL)
		elog(ERROR, "bdr: relation is not open in this transaction");
	return rel->target->relation;
}

void
bdr_rel_row_values(BdrRel *rel, const BdrRow *row, BdrRowPart part, Datum *values, bool *nulls, bool *provided)
{
	Target	   *target = UseTarget(rel);
	TupleDesc	desc = RelationGetDescr(target->relation);

	StoreValues(target, row, values, nulls, provided);
	if (part == BDR_ROW_KEY && rel->replica_identity != REPLICA_IDENTITY_FULL)
	{
		for (int i = 0; i < rel->ncolumns; i++)
		{
			int			a = rel->map[i].attribute;

			if (a < 0 || rel->columns[i].key)
				continue;
			provided[a] = false;
			nulls[a] = true;
			values[a] = (Datum) 0;
		}
	}
	if (part == BDR_ROW_WITH_DEFAULTS && target->ndefaults > 0)
	{
		FillDefaults(target, values, nulls, provided);
		for (int i = 0; i < target->ndefaults; i++)
		{
			int			a = target->default_attributes[i];
			Form_pg_attribute attribute = TupleDescAttr(desc, a);

			if (!provided[a] && !nulls[a])
				values[a] = datumCopy(values[a], attribute->attbyval, attribute->attlen);
			provided[a] = true;
		}
	}
}

bool
bdr_rel_old_is_whole(BdrRel *rel)
{
	return rel->replica_identity == REPLICA_IDENTITY_FULL;
}

bool
bdr_rel_is_whole(BdrRel *rel, const bool *provided)
{
	for (int i = 0; i < rel->ncolumns; i++)
	{
		if (rel->map[i].attribute >= 0 && !provided[rel->map[i].attribute])
			return false;
	}
	return true;
}

bool
bdr_rel_hold_found(BdrRel *rel, HeapTuple *tuple, TransactionId *xmin)
{
	Target	   *target = rel->target;
	Leaf	   *leaf = target->leaf;
	TM_FailureData failure;
	TM_Result	result;

	if (leaf == NULL || !leaf->is_found)
		elog(ERROR, "bdr: no row was located");
	IncrementIfWritten();
	result = table_tuple_lock(leaf->relation, &leaf->found->tts_tid, GetLatestSnapshot(), leaf->found,
							  GetCurrentCommandId(false), LockTupleExclusive, LockWaitBlock, 0, &failure);
	if (result != TM_Ok)
	{
		leaf->is_found = false;
		return false;
	}
	if (leaf->to_root)
	{
		TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(target->relation), &TTSOpsVirtual);

		*tuple = ExecCopySlotHeapTuple(execute_attr_map_slot(leaf->to_root, leaf->found, slot));
		ExecDropSingleTupleTableSlot(slot);
	}
	else
		*tuple = ExecCopySlotHeapTuple(leaf->found);
	(*tuple)->t_tableOid = RelationGetRelid(target->relation);
	{
		bool		isnull;

		*xmin = DatumGetTransactionId(slot_getsysattr(leaf->found, MinTransactionIdAttributeNumber, &isnull));
	}
	return true;
}

bool
bdr_rel_still_found(BdrRel *rel)
{
	Leaf	   *leaf = rel->target->leaf;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool		found = table_tuple_satisfies_snapshot(leaf->relation, leaf->found, snapshot);

	UnregisterSnapshot(snapshot);
	return found;
}

void
bdr_rel_runs_function(BdrRel *rel)
{
	/* it acts as this table's owner, whichever tables it writes to */
	if (OidIsValid(deferred_owner) && deferred_owner != rel->owner)
		FireDeferredTriggers(false);
	deferred_owner = rel->owner;
	IncrementIfWritten();
}

bool
bdr_rel_kept_value(BdrRel *rel, const BdrKept *kept, int column, Oid *type, int16 *length, Datum *value, bool *null)
{
	TupleDesc	desc = RelationGetDescr(rel->target->relation);
	int			a = rel->map[column].attribute;
	Datum	   *values;
	bool	   *nulls;
	bool	   *provided;

	if (a < 0)
		return false;
	values = palloc(sizeof(Datum) * desc->natts);
	nulls = palloc(sizeof(bool) * desc->natts);
	provided = palloc0(sizeof(bool) * desc->natts);
	bdr_kept_values(kept, desc->natts, values, nulls, provided);
	if (!provided[a])
		return false;
	*type = TupleDescAttr(desc, a)->atttypid;
	*length = TupleDescAttr(desc, a)->attlen;
	*value = values[a];
	*null = nulls[a];
	return true;
}
