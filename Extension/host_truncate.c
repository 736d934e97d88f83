/*
 * host_truncate.c: truncates the tables that the peer truncated together.
 */
#include "host_executor.h"
#include "apply_stats.h"

#include "access/table.h"
#include "catalog/catalog.h"
#include "catalog/pg_inherits.h"
#include "commands/tablecmds.h"

#include "compat_executor.h"

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
		bdr_close_targets();
		bdr_close_all_kept();
		IncrementIfWritten();
		for (int i = 0; i < n; i++)
		{
			if (!rels[i]->valid)
				bdr_map_relation(rels[i]);
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
