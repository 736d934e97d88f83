/*
 * host_executor.h: what the files share that find and write rows for the apply worker, with the server's executor.
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
#ifndef BDR_HOST_EXECUTOR_H
#define BDR_HOST_EXECUTOR_H

#include "bdr.h"

#include "access/attmap.h"
#include "access/heapam.h"
#include "access/skey.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "executor/execPartition.h"
#include "executor/executor.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "row_stamps.h"

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

/* hidden: called without a detour, for every row */
#pragma GCC visibility push(hidden)

/* host_executor.c: opening and closing */
extern bool bdr_wrote_since_increment;
extern Oid	bdr_deferred_owner;	/* whose deferred triggers may be pending */
extern void bdr_fire_deferred_triggers(bool at_commit);
extern void bdr_close_targets(void);
/* those that stay open between transactions and are not in use */
extern void bdr_close_all_kept(void);

/* host_relation.c: which local table and columns a remote relation means */
extern void bdr_map_relation(BdrRel *rel);

/* host_leaves.c: partitions, and the index to find rows by */
extern Leaf *bdr_make_leaf(Target *target, ResultRelInfo *info);
extern bool bdr_key_routes(BdrRel *rel, Relation root);
extern void bdr_open_every_leaf(Target *target);
extern void bdr_choose_key(Target *target, Leaf *leaf);
extern Leaf *bdr_route_row(Target *target, TupleTableSlot *row, TupleTableSlot **converted, bool to_search);

/* host_rows.c: rows out of what the peer sent */
extern void bdr_prepare_defaults(Target *target);
extern HeapTuple bdr_make_raw_tuple(const BdrRow *row);
extern void bdr_deep_check(BdrRel *rel, TupleDesc desc, Datum *values, bool *nulls);
extern void bdr_store_values(Target *target, const BdrRow *row, Datum *values, bool *nulls, bool *provided);
extern bool *bdr_store_row(Target *target, const BdrRow *row, TupleTableSlot *slot);
extern TupleTableSlot *bdr_build_insert_row(Target *target, const BdrRow *row);

/* host_merge.c: conflict-free values, and conflicts column by column */
extern void bdr_keep_what_was_added(Target *target, const BdrRow *before, TupleTableSlot *slot);
extern bool bdr_merge_values(Target *target, Leaf *leaf, const BdrRow *row, TupleTableSlot *slot, bool *provided);

/* host_find.c: the local row */
extern void bdr_describe_found(Leaf *leaf, BdrFound *found, Oid index);
extern void bdr_keep_key(Target *target, TupleTableSlot *row, const bool *provided);
extern void bdr_add_in_way(Target *target, Leaf *leaf, Oid index, ItemPointer tid);

/* host_bulk.c: many rows at once */
extern void bdr_write_pages(Target *target);

#pragma GCC visibility pop

/* ---- acting as the owner -------------------------------------------------------------------------------------- */

typedef struct SavedUser
{
	Oid			user;
	int			context;
} SavedUser;

static inline void
BecomeOwner(Oid owner, SavedUser *saved)
{
	GetUserIdAndSecContext(&saved->user, &saved->context);
	SetUserIdAndSecContext(owner, saved->context | SECURITY_RESTRICTED_OPERATION);
}

/* Called before each row: keeps the triggers of different owners apart. */
static inline void
BecomeOwnerForRow(Oid owner, SavedUser *saved)
{
	if (OidIsValid(bdr_deferred_owner) && bdr_deferred_owner != owner)
		bdr_fire_deferred_triggers(false);
	BecomeOwner(owner, saved);
}

/* On an error the abort of the transaction restores the user. */
static inline void
BecomeOurselves(const SavedUser *saved)
{
	SetUserIdAndSecContext(saved->user, saved->context);
}

/* ---- what is done for each row -------------------------------------------------------------------------------- */

static inline Target *
UseTarget(BdrRel *rel)
{
	if (rel == NULL || rel->target == NULL)
		elog(ERROR, "bdr: relation is not open in this transaction");
	ResetPerTupleExprContext(rel->target->estate);
	MemoryContextReset(rel->target->row_context);
	return rel->target;
}

static inline void
IncrementIfWritten(void)
{
	if (bdr_wrote_since_increment)
	{
		CommandCounterIncrement();
		bdr_wrote_since_increment = false;
	}
}

static inline void
CheckRowShape(BdrRel *rel, const BdrRow *row)
{
	if (row->values != NULL ? row->ncolumns != rel->ncolumns :
		(row->attributes != rel->ncolumns || rel->raw_desc == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("a row of \"%s.%s\" does not have the columns that were described", rel->namespace_name,
						rel->name)));
}

/* Finds the leaf for a row in the root's columns; *converted is the row in the leaf's. */
static inline Leaf *
RouteRow(Target *target, TupleTableSlot *row, TupleTableSlot **converted, bool to_search)
{
	if (target->routing == NULL)
	{
		*converted = row;
		return target->leaf;
	}
	return bdr_route_row(target, row, converted, to_search);
}

static inline bool
IsIdentity(Leaf *leaf, Oid index)
{
	return index == RelationGetReplicaIndex(leaf->relation) || index == leaf->relation->rd_pkindex;
}

/* Looks for stamps of the key, if there can be any. */
static inline int
FindStamps(Target *target, BdrStamps *stamps)
{
	memset(stamps, 0, sizeof(*stamps));
	if (!target->has_key || !bdr_stamp_possible(target->key.hash))
		return 0;
	return bdr_stamps_find(RelationGetRelid(target->relation), &target->key, stamps);
}

#endif
