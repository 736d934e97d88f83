/*
 * ddl_locks.c: locks that hold in the whole group. There are none yet.
 */
#include "ddl_locks.h"

void
bdr_ddl_lock(BdrDdlLock level, Oid relid)
{
}
