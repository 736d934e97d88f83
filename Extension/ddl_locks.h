/*
 * ddl_locks.h: what the whole group has to agree to before a replicated statement runs.
 */
#ifndef BDR_DDL_LOCKS_H
#define BDR_DDL_LOCKS_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "storage/lwlock.h"

typedef enum BdrDdlLock
{
	BDR_DDL_LOCK_NONE,
	BDR_DDL_LOCK_DDL,			/* no other node runs DDL */
	BDR_DDL_LOCK_DML			/* that, and nobody writes to the relation until all nodes have the statement */
} BdrDdlLock;

/*
 * Called once before a statement that is going to be replicated, with BDR_DDL_LOCK_DDL and InvalidOid, or for each relation
 * with BDR_DDL_LOCK_DML. Holds until the end of the transaction, at least. Raises ERROR when it can't be had.
 */
extern void bdr_ddl_lock(BdrDdlLock level, Oid relid);

/* Before a table is truncated, if bdr.truncate_locking says so. */
extern void bdr_truncate_lock(Oid relid);

/* ddl_locks.c */
#define BDR_LOCK_PREFIX "bdr.lock"
extern int	bdr_global_lock_max_locks;
extern int	bdr_global_lock_timeout;
extern void bdr_locks_define_settings(void);
extern void bdr_locks_init(void);

/* host_locks.c */
extern Size bdr_locks_shmem_size(void);
extern void bdr_locks_shmem_startup(LWLock *lock);
extern void bdr_locks_hook(void);
/* see bdr_host_token_take */
extern bool bdr_token_take(int32 kind, int64 id);
/* Before the transaction of an apply worker begins. origin: the node whose changes it applies. */
extern void bdr_locks_begin_apply(uint32 origin);
/*
 * Locks a table for the rows of another node: as a writer does, or, past a global DML lock that another node has, with a weaker
 * lock; then true.
 */
extern bool bdr_lock_for_apply(Oid relid);
/*
 * The same for all partitions of a table, which are given back. *passes: some have that weaker lock only, and so can't be locked
 * again as for a writer.
 */
extern List *bdr_lock_partitions_for_apply(Oid root, bool *passes);
extern void bdr_locks_end_transaction(void);

#endif
