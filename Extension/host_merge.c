/*
 * host_merge.c: merges a row that was sent with the one that is here: values of conflict-free types, and conflicts that are
 * resolved column by column.
 */
#include "host_executor.h"

#include "access/sysattr.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"

/* Whether a conflict-free type is a plain number, to which differences are added. */
static bool
IsNumber(Oid type)
{
	Oid			base = getBaseType(type);

	return base == INT8OID || base == NUMERICOID;
}

/* Takes from the numbers of a row what they were before. */
void
bdr_keep_what_was_added(Target *target, const BdrRow *before, TupleTableSlot *slot)
{
	BdrRel	   *rel = target->rel;
	int			natts = RelationGetDescr(target->relation)->natts;
	Datum	   *values = palloc0(sizeof(Datum) * Max(natts, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(natts, 1));
	bool	   *provided = palloc0(sizeof(bool) * Max(natts, 1));

	memset(nulls, true, sizeof(bool) * Max(natts, 1));
	bdr_store_values(target, before, values, nulls, provided);
	for (int i = 0; i < rel->ncolumns; i++)
	{
		ColumnMap  *map = &rel->map[i];
		int			a = map->attribute;
		NullableDatum zero = {0, false},
					old,
					new;

		if (a < 0 || !map->merged || !IsNumber(map->type) || slot->tts_isnull[a] || nulls[a])
			continue;
		if (getBaseType(map->type) == NUMERICOID)
			zero.value = DirectFunctionCall1(int8_numeric, Int64GetDatum(0));
		else
			zero.value = Int64GetDatum(0);
		old.value = values[a];
		old.isnull = false;
		new.value = slot->tts_values[a];
		new.isnull = false;
		slot->tts_values[a] = bdr_crdt_merge(map->type, zero, old, new).value;
	}
}

/*
 * Merges the timestamps of columns, if both rows have them. Returns which columns, of the peer's, the sent row has later; NULL
 * when the row is resolved as a whole.
 */
static uint8 *
MergeTimestamps(Target *target, Leaf *leaf, TupleTableSlot *slot, const bool *provided)
{
	BdrRel	   *rel = target->rel;
	uint32	   *columns;
	uint8	   *later;
	TransactionId xmin;
	bool		isnull;

	for (int i = 0; i < rel->ncolumns; i++)
	{
		int			a = rel->map[i].attribute;
		int			l;

		if (!rel->map[i].timestamps || a < 0 || !provided[a] || slot->tts_isnull[a])
			continue;
		l = leaf->to_root ? leaf->to_root->attnums[a] - 1 : a;
		if (l < 0 || leaf->found->tts_isnull[l])
			continue;
		columns = palloc(sizeof(uint32) * rel->ncolumns);
		later = palloc0(rel->ncolumns);
		for (int n = 0; n < rel->ncolumns; n++)
			columns[n] = bdr_column_hash(rel->columns[n].name);
		xmin = DatumGetTransactionId(slot_getsysattr(leaf->found, MinTransactionIdAttributeNumber, &isnull));
		slot->tts_values[a] = bdr_column_timestamps_merge(bdr_column_timestamps_stored(leaf->found->tts_values[l], xmin),
														  slot->tts_values[a], columns, rel->ncolumns, later);
		return later;
	}
	return NULL;
}

/*
 * Merges what was sent, a row in the root's columns, with the located version; provided: which of its columns count
 * afterwards. Returns whether a value of a conflict-free type differs from what is here.
 */
bool
bdr_merge_values(Target *target, Leaf *leaf, const BdrRow *row, TupleTableSlot *slot, bool *provided)
{
	BdrRel	   *rel = target->rel;
	TupleDesc	desc = RelationGetDescr(target->relation);
	Datum	   *old_values = NULL;
	bool	   *old_nulls = NULL;
	bool	   *old_provided = NULL;
	uint8	   *later = NULL;	/* conflicts are resolved column by column: which the sent row has later */
	bool		changed = false;

	if (rel->info.merges && !row->separate && row->old)
	{
		old_values = palloc0(sizeof(Datum) * Max(desc->natts, 1));
		old_nulls = palloc(sizeof(bool) * Max(desc->natts, 1));
		old_provided = palloc0(sizeof(bool) * Max(desc->natts, 1));
		memset(old_nulls, true, sizeof(bool) * Max(desc->natts, 1));
		bdr_store_values(target, row->old, old_values, old_nulls, old_provided);
	}
	if (rel->info.merges && !row->separate)
		later = MergeTimestamps(target, leaf, slot, provided);
	for (int i = 0; i < rel->ncolumns; i++)
	{
		ColumnMap  *map = &rel->map[i];
		int			a = map->attribute;
		int			l;
		NullableDatum local,
					before = {0, true},
					sent,
					merged;
		int16		length;
		bool		by_value;

		if (a < 0)
			continue;
		l = leaf->to_root ? leaf->to_root->attnums[a] - 1 : a;
		get_typlenbyval(map->type, &length, &by_value);
		if (later && !map->merged && l >= 0)
		{
			if (!map->timestamps && !later[i])
			{
				provided[a] = false;
				continue;
			}
			/* a value that was left out, as it had not changed */
			if (!provided[a] && old_values && old_provided[a])
			{
				slot->tts_values[a] = old_values[a];
				slot->tts_isnull[a] = old_nulls[a];
				provided[a] = true;
			}
			if (provided[a] &&
				(slot->tts_isnull[a] != leaf->found->tts_isnull[l] ||
				 (!slot->tts_isnull[a] &&
				  !datum_image_eq(slot->tts_values[a], leaf->found->tts_values[l], by_value, length))))
				changed = true;
			continue;
		}
		if (!provided[a])
			continue;
		if (!map->merged || row->separate)
		{
			if (row->keep_all || (row->keep && row->keep[i]))
				provided[a] = false;
			continue;
		}
		if (l < 0)
			continue;
		if (row->old_unknown && IsNumber(map->type))
		{
			if (row->keep_all || (row->keep && row->keep[i]))
				provided[a] = false;
			continue;
		}
		local.value = leaf->found->tts_values[l];
		local.isnull = leaf->found->tts_isnull[l];
		sent.value = slot->tts_values[a];
		sent.isnull = slot->tts_isnull[a];
		if (old_values)
		{
			before.value = old_values[a];
			before.isnull = old_nulls[a];
		}
		merged = bdr_crdt_merge(map->type, local, before, sent);
		slot->tts_values[a] = merged.value;
		slot->tts_isnull[a] = merged.isnull;
		if (merged.isnull != local.isnull ||
			(!merged.isnull && !datum_image_eq(merged.value, local.value, by_value, length)))
			changed = true;
		else
			provided[a] = false;
	}
	return changed;
}
