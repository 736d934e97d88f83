/*
 * host_stamps.c: what is remembered of deleted rows (row_stamps.c), for rows that are being applied.
 */
#include "host_executor.h"

int32_t
bdr_host_stamps(BdrRel *rel, BdrStamps *stamps)
{
	memset(stamps, 0, sizeof(*stamps));
	HOST_BEGIN();
	if (rel == NULL || rel->target == NULL)
		elog(ERROR, "bdr: relation is not open in this transaction");
	(void) FindStamps(rel->target, stamps);
	HOST_END();
	return BDR_OK;
}

static void
AddStamp(BdrRel *rel, const TimestampTz *time, uint32 node)
{
	Target	   *target = rel ? rel->target : NULL;
	BdrKey		key;
	Oid			root;

	if (target == NULL)
		elog(ERROR, "bdr: relation is not open in this transaction");
	root = RelationGetRelid(target->relation);
	if (target->leaf && target->leaf->is_found)
	{
		if (bdr_key_of(bdr_key_columns(target->leaf->relation), target->leaf->found, &key))
			bdr_stamp_add(root, &key, time, node);
	}
	else if (target->has_key)
		bdr_stamp_add(root, &target->key, time, node);
}

int32_t
bdr_host_stamp(BdrRel *rel)
{
	HOST_BEGIN();
	AddStamp(rel, NULL, 0);
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_stamp_missing(BdrRel *rel)
{
	HOST_BEGIN();
	if (rel == NULL || rel->target == NULL)
		elog(ERROR, "bdr: relation is not open in this transaction");
	if (rel->target->has_key)
		bdr_stamp_add(RelationGetRelid(rel->target->relation), &rel->target->key, NULL, 0);
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_stamp_at(BdrRel *rel, int64_t commit_time, uint32_t node)
{
	HOST_BEGIN();
	{
		TimestampTz time = commit_time;

		AddStamp(rel, &time, node);
	}
	HOST_END();
	return BDR_OK;
}
