/*
 * standby_slots.c: standbys of this server that must have a transaction before other nodes get it, or before it is
 * confirmed to the node where it was first committed (bdr.standby_slot_names).
 *
 * A standby that is promoted in this server's place continues as the node. What it does not have then must not be known to
 * other nodes: its positions are used again. And what this server has confirmed to a peer the peer does not send again.
 *
 * What a standby has is the restart_lsn of its physical slot: it moves as the standby reports WAL on its disk.
 */
#include "bdr.h"
#include "compat.h"

#include "replication/slot.h"
#include "storage/spin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#define LARGEST_POSITION PG_UINT64_MAX
/* A standby that has not come so far after this long is written of in the log, ms. */
#define PATIENCE 10000

typedef struct Standby
{
	NameData	name;			/* of the slot */
	XLogRecPtr	position;		/* at the last look */
} Standby;

typedef struct SlotNames
{
	int			count;
	Standby		standbys[FLEXIBLE_ARRAY_MEMBER];
} SlotNames;

static SlotNames *slot_names = NULL;
/* what was found last: positions do not go back, so it may be asked for often */
static XLogRecPtr known_position = InvalidXLogRecPtr;

bool
bdr_check_standby_slot_names(char **value, void **extra, GucSource source)
{
	char	   *copy = pstrdup(*value);
	List	   *list = NIL;
	ListCell   *lc;
	SlotNames  *names;
	bool		good = SplitIdentifierString(copy, ',', &list);

	if (!good)
		GUC_check_errdetail("List syntax is invalid.");
	foreach(lc, list)
	{
		const char *name = lfirst(lc);

		if (strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != strlen(name))
		{
			GUC_check_errdetail("\"%s\" is not the name of a replication slot.", name);
			good = false;
		}
	}
	if (good)
	{
		names = bdr_guc_malloc(offsetof(SlotNames, standbys) + sizeof(Standby) * list_length(list));
		if (names == NULL)
			good = false;
		else
		{
			names->count = 0;
			foreach(lc, list)
			{
				bool		listed = false;

				for (int i = 0; i < names->count; i++)
					listed |= strcmp(NameStr(names->standbys[i].name), lfirst(lc)) == 0;
				if (!listed)
					namestrcpy(&names->standbys[names->count++].name, lfirst(lc));
			}
			*extra = names;
		}
	}
	list_free(list);
	pfree(copy);
	return good;
}

void
bdr_assign_standby_slot_names(const char *value, void *extra)
{
	slot_names = extra;
	known_position = InvalidXLogRecPtr;
}

/* What a standby has; 0 when there is no such slot, or not a physical one. */
static XLogRecPtr
PositionOf(const char *name, bool *exists)
{
	ReplicationSlot *slot;
	XLogRecPtr	position = InvalidXLogRecPtr;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	slot = SearchNamedReplicationSlot(name, false);
	*exists = slot != NULL && SlotIsPhysical(slot);
	if (*exists)
	{
		SpinLockAcquire(&slot->mutex);
		if (!bdr_slot_is_invalid(slot))
			position = slot->data.restart_lsn;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);
	return position;
}

/* Called from Swift outside of the error boundary: takes no memory, and raises nothing. */
XLogRecPtr
bdr_standby_position(void)
{
	int			count = slot_names ? slot_names->count : 0;
	int			wanted = bdr_standby_slots_min_confirmed;
	XLogRecPtr	result = InvalidXLogRecPtr;

	if (wanted < 0 || wanted > count)
		wanted = count;
	if (wanted == 0)
		return LARGEST_POSITION;
	for (int i = 0; i < count; i++)
	{
		bool		exists;

		slot_names->standbys[i].position = PositionOf(NameStr(slot_names->standbys[i].name), &exists);
	}
	/* the largest position that as many have as is wanted */
	for (int i = 0; i < count; i++)
	{
		XLogRecPtr	position = slot_names->standbys[i].position;
		int			having = 0;

		for (int j = 0; j < count; j++)
			having += slot_names->standbys[j].position >= position;
		if (having >= wanted)
			result = Max(result, position);
	}
	return result;
}

bool
bdr_standby_has(XLogRecPtr lsn, long waited)
{
	static int	known_for = -1;
	static bool missing_logged = false;
	static bool waiting_logged = false;
	XLogRecPtr	position;

	if (known_for != bdr_standby_slots_min_confirmed)
	{
		known_for = bdr_standby_slots_min_confirmed;
		known_position = InvalidXLogRecPtr;
	}
	if (lsn <= known_position)
		return true;
	position = bdr_standby_position();
	if (lsn <= position)
	{
		if (position != LARGEST_POSITION)
			known_position = position;
		missing_logged = false;
		waiting_logged = false;
		return true;
	}
	for (int i = 0; slot_names && i < slot_names->count && !missing_logged; i++)
	{
		const char *name = NameStr(slot_names->standbys[i].name);
		bool		exists;

		(void) PositionOf(name, &exists);
		if (exists)
			continue;
		missing_logged = true;
		ereport(WARNING,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no physical replication slot \"%s\", which is in bdr.standby_slot_names", name),
				 errdetail("Changes are not sent to other nodes until the standbys that are listed have them."),
				 errhint("Create it: SELECT pg_create_physical_replication_slot('%s'); or take it from the list: "
						 "ALTER SYSTEM SET bdr.standby_slot_names = '...'; SELECT pg_reload_conf();", name)));
	}
	if (waited >= PATIENCE && !missing_logged && !waiting_logged)
	{
		waiting_logged = true;
		ereport(LOG,
				(errmsg("changes up to %X/%X wait for the standbys of bdr.standby_slot_names", LSN_FORMAT_ARGS(lsn)),
				 errdetail("They have this server's changes up to %X/%X.", LSN_FORMAT_ARGS(position)),
				 errhint("See pg_replication_slots and pg_stat_replication. To wait no longer, take the standby's slot from "
						 "the list: ALTER SYSTEM SET bdr.standby_slot_names = '...'; SELECT pg_reload_conf();")));
	}
	return false;
}
