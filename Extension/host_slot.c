/*
 * host_slot.c: replication slots of this node's peers.
 */
#include "bdr.h"

#include <signal.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "replication/slot.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

/* How long a process may take to let go of a slot, ms. */
#define RELEASE_TIMEOUT 10000
/* How often it is asked, ms. */
#define RELEASE_POLL 50

/* Asks the holder of a slot to end; true when it has one. With ReplicationSlotControlLock, so the slot stays. */
static bool
SignalHolder(ReplicationSlot *slot)
{
	int			pid;

	SpinLockAcquire(&slot->mutex);
	pid = slot->active_pid;
	SpinLockRelease(&slot->mutex);
	if (pid == 0 || pid == MyProcPid)
		return false;
	(void) kill(pid, SIGTERM);
	return true;
}

static bool
IsOurs(ReplicationSlot *slot, Oid database)
{
	return slot->in_use && SlotIsLogical(slot) && slot->data.database == database &&
		strcmp(NameStr(slot->data.plugin), BDR_PLUGIN) == 0;
}

int
bdr_terminate_slot_holders(Oid database)
{
	int			count = 0;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];

		if (IsOurs(slot, database) && SignalHolder(slot))
			count++;
	}
	LWLockRelease(ReplicationSlotControlLock);
	return count;
}

int32_t
bdr_host_slot_drop(const char *name)
{
	HOST_BEGIN();
	{
		TimestampTz deadline = GetCurrentTimestamp() + (TimestampTz) RELEASE_TIMEOUT * 1000;

		for (;;)
		{
			ReplicationSlot *slot;
			bool		exists;
			bool		ours = false;
			bool		held = false;

			LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
			slot = SearchNamedReplicationSlot(name, false);
			exists = slot != NULL;
			if (exists)
			{
				ours = IsOurs(slot, MyDatabaseId);
				held = ours && SignalHolder(slot);
			}
			LWLockRelease(ReplicationSlotControlLock);

			if (!exists)
				break;
			if (!ours)
				ereport(ERROR,
						(errcode(ERRCODE_WRONG_OBJECT_TYPE),
						 errmsg("replication slot \"%s\" is not one of bdr in this database", name)));
			if (!held || GetCurrentTimestamp() >= deadline)
			{
				/* raises object_in_use if somebody holds it still, or again */
				ReplicationSlotDrop(name, true);
				break;
			}
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, RELEASE_POLL,
							 PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			bdr_process_interrupts();
		}
	}
	HOST_END();
	return BDR_OK;
}
