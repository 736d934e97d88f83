/*
 * ddl_locks.h: what the whole group has to agree to before a replicated statement runs.
 */
#ifndef BDR_DDL_LOCKS_H
#define BDR_DDL_LOCKS_H

#include "postgres.h"

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

#endif
