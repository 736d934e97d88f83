/*
 * sent_positions.c: which transactions were sent on each slot of a peer, and confirmed.
 *
 * A peer that has confirmed a transaction has it. If it says later that it does not, it was replaced by a standby that had
 * not received it, or restored: the stream can't give the transaction again, so this must be noticed. The slot's
 * confirmed_flush_lsn alone does not tell: peers confirm WAL without changes for them, too.
 *
 * In shared memory, for each slot, and only since the server was started. The process that holds the slot is alone with its
 * entry.
 */
#include "bdr.h"

#include "replication/slot.h"
#include "storage/shmem.h"

/* Commits remembered that need not be confirmed yet. */
#define TAIL_LENGTH 256

typedef struct SentPositions
{
	NameData	slot;
	XLogRecPtr	confirmed;		/* the last commit known to be confirmed that is not in the tail any more */
	uint64		count;			/* of commits sent */
	XLogRecPtr	tail[TAIL_LENGTH];
} SentPositions;

static SentPositions *positions = NULL;

Size
bdr_sent_shmem_size(void)
{
	return mul_size(Max(max_replication_slots, 1), sizeof(SentPositions));
}

/* With AddinShmemInitLock. */
void
bdr_sent_shmem_startup(void)
{
	bool		found;

	positions = ShmemInitStruct("bdr sent positions", bdr_sent_shmem_size(), &found);
	if (!found)
		memset(positions, 0, bdr_sent_shmem_size());
}

/* The entry of the slot that this process holds; NULL if there is none. */
static SentPositions *
MyPositions(void)
{
	SentPositions *entry;

	if (positions == NULL || MyReplicationSlot == NULL)
		return NULL;
	entry = &positions[ReplicationSlotIndex(MyReplicationSlot)];
	if (strcmp(NameStr(entry->slot), NameStr(MyReplicationSlot->data.name)) != 0)
	{
		memset(entry, 0, sizeof(SentPositions));
		entry->slot = MyReplicationSlot->data.name;
	}
	return entry;
}

/* The slot is a new one, though there may have been one of the same name. */
void
bdr_sent_forget(void)
{
	SentPositions *entry = MyPositions();

	if (entry)
		memset(entry, 0, sizeof(SentPositions));
}

/* A transaction was sent; commit_lsn: where its commit record begins. */
void
bdr_sent_commit(XLogRecPtr commit_lsn)
{
	SentPositions *entry = MyPositions();
	XLogRecPtr *place;

	if (entry == NULL)
		return;
	place = &entry->tail[entry->count % TAIL_LENGTH];
	if (entry->count >= TAIL_LENGTH && *place < MyReplicationSlot->data.confirmed_flush)
		entry->confirmed = Max(entry->confirmed, *place);
	*place = commit_lsn;
	entry->count++;
}

uint64_t
bdr_host_sent_and_confirmed(uint64_t *confirmed)
{
	SentPositions *entry = MyPositions();
	XLogRecPtr	last = InvalidXLogRecPtr;

	*confirmed = MyReplicationSlot ? MyReplicationSlot->data.confirmed_flush : InvalidXLogRecPtr;
	if (entry == NULL)
		return InvalidXLogRecPtr;
	last = entry->confirmed;
	for (int i = 0; i < Min(entry->count, TAIL_LENGTH); i++)
	{
		if (entry->tail[i] < *confirmed)
			last = Max(last, entry->tail[i]);
	}
	return last;
}
