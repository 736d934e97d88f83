/*
 * compat_executor.h: the executor calls whose signatures changed between PostgreSQL 15 and 18.
 */
#ifndef BDR_COMPAT_EXECUTOR_H
#define BDR_COMPAT_EXECUTOR_H

#include "access/genam.h"
#include "access/tableam.h"
#include "commands/tablecmds.h"
#include "commands/trigger.h"
#include "executor/executor.h"

/* which indexes an update has to touch: a bool until 15, an enum from 16 (HOT with summarizing indexes) */
#if PG_VERSION_NUM >= 160000
typedef TU_UpdateIndexes BdrUpdateIndexes;
#define BDR_UPDATE_ALL_INDEXES TU_All
#define bdr_needs_index_update(u) ((u) != TU_None)
#else
typedef bool BdrUpdateIndexes;
#define BDR_UPDATE_ALL_INDEXES true
#define bdr_needs_index_update(u) (u)
#endif

static inline List *
bdr_insert_index_tuples(ResultRelInfo *info, TupleTableSlot *slot, EState *estate, bool update,
						BdrUpdateIndexes which)
{
#if PG_VERSION_NUM >= 160000
	return ExecInsertIndexTuples(info, slot, estate, update, false, NULL, NIL, which == TU_Summarizing);
#else
	return ExecInsertIndexTuples(info, slot, estate, update, false, NULL, NIL);
#endif
}

static inline bool
bdr_check_index_constraints(ResultRelInfo *info, TupleTableSlot *slot, EState *estate, ItemPointer conflict,
							List *arbiters)
{
#if PG_VERSION_NUM >= 180000
	ItemPointerData invalid;

	ItemPointerSetInvalid(&invalid);
	return ExecCheckIndexConstraints(info, slot, estate, conflict, &invalid, arbiters);
#else
	return ExecCheckIndexConstraints(info, slot, estate, conflict, arbiters);
#endif
}

static inline bool
bdr_exec_br_update_triggers(EState *estate, EPQState *epq, ResultRelInfo *info, ItemPointer tid, TupleTableSlot *slot)
{
#if PG_VERSION_NUM >= 180000
	return ExecBRUpdateTriggers(estate, epq, info, tid, NULL, slot, NULL, NULL, false);
#elif PG_VERSION_NUM >= 160000
	return ExecBRUpdateTriggers(estate, epq, info, tid, NULL, slot, NULL, NULL);
#else
	return ExecBRUpdateTriggers(estate, epq, info, tid, NULL, slot, NULL);
#endif
}

static inline bool
bdr_exec_br_delete_triggers(EState *estate, EPQState *epq, ResultRelInfo *info, ItemPointer tid)
{
#if PG_VERSION_NUM >= 180000
	return ExecBRDeleteTriggers(estate, epq, info, tid, NULL, NULL, NULL, NULL, false);
#elif PG_VERSION_NUM >= 160000
	return ExecBRDeleteTriggers(estate, epq, info, tid, NULL, NULL, NULL, NULL);
#else
	return ExecBRDeleteTriggers(estate, epq, info, tid, NULL, NULL);
#endif
}

static inline IndexScanDesc
bdr_index_beginscan(Relation heap, Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(heap, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(heap, index, snapshot, nkeys, 0);
#endif
}

static inline void
bdr_truncate_guts(List *relations, List *oids, List *logged, DropBehavior behavior, bool restart_identity)
{
#if PG_VERSION_NUM >= 160000
	ExecuteTruncateGuts(relations, oids, logged, behavior, restart_identity, false);
#else
	ExecuteTruncateGuts(relations, oids, logged, behavior, restart_identity);
#endif
}

#endif
