/*
 * row_stamps.h: keys of rows, and what is remembered of them.
 */
#ifndef BDR_ROW_STAMPS_H
#define BDR_ROW_STAMPS_H

#include "bdr.h"

#include "access/htup.h"
#include "access/commit_ts.h"
#include "executor/execdesc.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/relcache.h"
#include "utils/typcache.h"

typedef struct BdrKeyColumn
{
	NameData	name;
	AttrNumber	attnum;
	Oid			type;
	Oid			collation;
	bool		by_value;
	int16		length;
	TypeCacheEntry *cache;
} BdrKeyColumn;

/* What tells the rows of a table apart: replica identity, or else the primary key. */
typedef struct BdrKeyColumns
{
	Oid			relid;
	bool		valid;
	Oid			root;			/* of a partition, the root; else the relation itself */
	int			n;				/* 0: nothing */
	BdrKeyColumn columns[INDEX_MAX_KEYS];
} BdrKeyColumns;

typedef struct BdrKey
{
	uint64		hash;
	uint64		check;
} BdrKey;

/* Commit time of the rows that a join copies (SnapshotCopy.copyTime). */
#define BDR_COPY_TIME USECS_PER_SEC

/* Valid until the next call that accepts invalidation messages. */
extern const BdrKeyColumns *bdr_key_columns(Relation relation);
extern bool bdr_key_of(const BdrKeyColumns *columns, TupleTableSlot *slot, BdrKey *key);

extern bool bdr_tuple_version(HeapTupleHeader header, TimestampTz *time, RepOriginId *origin);
extern bool bdr_toast_version(Datum value, TimestampTz *time, RepOriginId *origin);

extern void bdr_stamp_add(Oid root, const BdrKey *key, const TimestampTz *time, uint32 node);
extern void bdr_stamps_close(bool commit);
extern int	bdr_stamps_find(Oid root, const BdrKey *key, BdrStamps *stamps);
extern void bdr_stamps_watch(QueryDesc *query, ResultRelInfo *info, bool deletes, bool updates, int flags);

/* workers.c: whether there may be stamps in this database */
extern uint64 bdr_stamps_generation(void);
extern bool bdr_stamps_possible(void);
extern void bdr_stamps_written(uint64 hash);
extern bool bdr_stamp_possible(uint64 hash);
extern TransactionId bdr_stamps_turned_at(void);
extern void bdr_stamps_turn(void);
extern void bdr_stamps_settled(uint64 generation);
/* workers.c: of a transaction that was committed here, perhaps for another node */
extern void bdr_note_commit_time(TimestampTz time);

#endif
