/*
 * host_stream_triggers.c: stream triggers, functions of users that see changes of other nodes before they are applied.
 *
 * A stream trigger is a row of pg_trigger, internal and disabled: no session fires it, dumps leave it out, and the server
 * itself keeps its dependencies and tells of changes through the relation cache. It belongs to the table that changes name,
 * so there is one for a partitioned table and none for its partitions. Its kind is in the name: _bdrc for a conflict
 * trigger, _bdrt for a transform trigger.
 *
 * Functions run as the owner of the table, in a security-restricted operation. What they write is part of the applying
 * transaction, and like it not sent to other nodes.
 *
 * The change at hand is kept as rows of the local table from its begin to the next one: transform triggers run at its
 * begin, conflict triggers perhaps later, and perhaps more than once.
 */
#include "bdr.h"
#include "compat.h"
#include "ddl.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/relation.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#include "row_stamps.h"

#define SUFFIX_LENGTH 5
#define CONFLICT_SUFFIX "_bdrc"
#define TRANSFORM_SUFFIX "_bdrt"

PG_FUNCTION_INFO_V1(bdr_create_conflict_trigger);
PG_FUNCTION_INFO_V1(bdr_create_transform_trigger);
PG_FUNCTION_INFO_V1(bdr_drop_trigger);
PG_FUNCTION_INFO_V1(bdr_trigger_get_row);
PG_FUNCTION_INFO_V1(bdr_trigger_get_committs);
PG_FUNCTION_INFO_V1(bdr_trigger_get_xid);
PG_FUNCTION_INFO_V1(bdr_trigger_get_type);
PG_FUNCTION_INFO_V1(bdr_trigger_get_conflict_type);
PG_FUNCTION_INFO_V1(bdr_trigger_get_origin_node_id);

static object_access_hook_type previous_object_access = NULL;

/* ---- which triggers are ours ---------------------------------------------------------------------------------- */

/* BDR_STREAM_TRANSFORM, BDR_STREAM_CONFLICT, or 0. */
static int
KindOfName(const char *name)
{
	size_t		length = strlen(name);

	if (length <= SUFFIX_LENGTH)
		return 0;
	if (strcmp(name + length - SUFFIX_LENGTH, TRANSFORM_SUFFIX) == 0)
		return BDR_STREAM_TRANSFORM;
	if (strcmp(name + length - SUFFIX_LENGTH, CONFLICT_SUFFIX) == 0)
		return BDR_STREAM_CONFLICT;
	return 0;
}

static int
KindOfForm(const FormData_pg_trigger *form)
{
	if (!form->tgisinternal || OidIsValid(form->tgconstraint) || OidIsValid(form->tgparentid))
		return 0;
	return KindOfName(NameStr(form->tgname));
}

static int
KindOf(const Trigger *trigger)
{
	if (!trigger->tgisinternal || OidIsValid(trigger->tgconstraint) || trigger->tgisclone)
		return 0;
	return KindOfName(trigger->tgname);
}

int
bdr_stream_triggers_of(Relation relation)
{
	TriggerDesc *triggers = relation->trigdesc;
	int			kinds = 0;

	for (int i = 0; triggers && i < triggers->numtriggers; i++)
		kinds |= KindOf(&triggers->triggers[i]);
	return kinds;
}

/* ---- the change at hand --------------------------------------------------------------------------------------- */

struct BdrKept
{
	Datum	   *values;
	bool	   *nulls;
	bool	   *provided;
};

typedef struct StreamChange
{
	BdrRel	   *rel;
	int			event;			/* BDR_STREAM_INSERT, … */
	bool		has_new;
	TimestampTz time;
	uint32		node;
	HeapTuple	old;
	BdrKept		new;
} StreamChange;

/* What the row access functions tell, while a function runs. */
typedef struct StreamCall
{
	int			kind;
	const char *conflict;
	Relation	relation;
	HeapTuple	old;
	HeapTuple	new;
	HeapTuple	target;
	TransactionId target_xmin;
	bool		has_version;	/* of the target */
	TimestampTz target_time;
	uint32		target_node;
	/* for messages */
	const char *name;
	int			event;
} StreamCall;

static MemoryContext change_context = NULL;
static StreamChange change;
static StreamCall *running = NULL;

static const char *
EventName(int event)
{
	return event == BDR_STREAM_INSERT ? "INSERT" : event == BDR_STREAM_UPDATE ? "UPDATE" : "DELETE";
}

void
bdr_kept_values(const BdrKept *kept, int natts, Datum *values, bool *nulls, bool *provided)
{
	for (int a = 0; a < natts; a++)
	{
		if (!kept->provided[a])
			continue;
		values[a] = kept->values[a];
		nulls[a] = kept->nulls[a];
		provided[a] = true;
	}
}

static void
InitKept(BdrKept *kept, int natts)
{
	kept->values = palloc0(sizeof(Datum) * Max(natts, 1));
	kept->nulls = palloc(sizeof(bool) * Max(natts, 1));
	memset(kept->nulls, true, sizeof(bool) * Max(natts, 1));
	kept->provided = palloc0(sizeof(bool) * Max(natts, 1));
}

/* A copy of a value that needs no other table. */
static Datum
CopyValue(Form_pg_attribute attribute, Datum value)
{
	if (attribute->attlen == -1 && VARATT_IS_EXTERNAL(DatumGetPointer(value)))
		return PointerGetDatum(detoast_external_attr((struct varlena *) DatumGetPointer(value)));
	return datumCopy(value, attribute->attbyval, attribute->attlen);
}

static HeapTuple
TupleOf(Relation relation, const BdrKept *row)
{
	HeapTuple	tuple = heap_form_tuple(RelationGetDescr(relation), row->values, row->nulls);

	tuple->t_tableOid = RelationGetRelid(relation);
	return tuple;
}

/* Takes over what a function returned; what it did not change is as it was, provided or not. */
static void
TakeTuple(Relation relation, HeapTuple tuple, BdrKept *row)
{
	TupleDesc	desc = RelationGetDescr(relation);
	Datum	   *values = palloc(sizeof(Datum) * Max(desc->natts, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(desc->natts, 1));

	heap_deform_tuple(tuple, desc, values, nulls);
	for (int a = 0; a < desc->natts; a++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, a);

		if (attribute->attisdropped || attribute->attgenerated)
			continue;
		if (nulls[a] != row->nulls[a] ||
			(!nulls[a] && !datum_image_eq(values[a], row->values[a], attribute->attbyval, attribute->attlen)))
		{
			row->values[a] = nulls[a] ? (Datum) 0 : CopyValue(attribute, values[a]);
			row->nulls[a] = nulls[a];
			row->provided[a] = true;
		}
	}
}

static void
CopyKept(BdrKept *to, const BdrKept *from, int natts)
{
	InitKept(to, natts);
	memcpy(to->values, from->values, sizeof(Datum) * natts);
	memcpy(to->nulls, from->nulls, sizeof(bool) * natts);
	memcpy(to->provided, from->provided, sizeof(bool) * natts);
}

/* ---- calling a function --------------------------------------------------------------------------------------- */

static void
DescribeCall(void *arg)
{
	StreamCall *call = arg;
	const char *table = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(call->relation)),
												   RelationGetRelationName(call->relation));

	if (call->conflict)
		errcontext("conflict trigger \"%s\" of table %s, for %s with conflict %s", call->name, table,
				   EventName(call->event), call->conflict);
	else
		errcontext("transform trigger \"%s\" of table %s, for %s", call->name, table, EventName(call->event));
}

/* Calls a trigger's function as trigger.c does it. NULL: it returned NULL. */
static HeapTuple
CallFunction(Trigger *trigger, StreamCall *call, TriggerData *data)
{
	LOCAL_FCINFO(fcinfo, 0);
	FmgrInfo	function;
	PgStat_FunctionCallUsage usage;
	Datum		result;

	fmgr_info(trigger->tgfoid, &function);
	data->tg_trigger = trigger;
	InitFunctionCallInfoData(*fcinfo, &function, 0, InvalidOid, (Node *) data, NULL);
	pgstat_init_function_usage(fcinfo, &usage);
	result = FunctionCallInvoke(fcinfo);
	pgstat_end_function_usage(&usage, true);
	if (fcinfo->isnull)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger function %u returned null value", trigger->tgfoid)));
	return (HeapTuple) DatumGetPointer(result);
}

static HeapTuple
RunAsOwner(Trigger *trigger, StreamCall *call, TriggerData *data)
{
	HeapTuple	returned;
	ErrorContextCallback context;
	Oid			user;
	int			security;
	int			guc_level;

	GetUserIdAndSecContext(&user, &security);
	context.callback = DescribeCall;
	context.arg = call;
	context.previous = error_context_stack;
	error_context_stack = &context;
	PushActiveSnapshot(GetTransactionSnapshot());
	guc_level = NewGUCNestLevel();
	running = call;
	PG_TRY();
	{
		SetUserIdAndSecContext(call->relation->rd_rel->relowner, security | SECURITY_RESTRICTED_OPERATION);
		returned = CallFunction(trigger, call, data);
	}
	PG_FINALLY();
	{
		running = NULL;
	}
	PG_END_TRY();
	AtEOXact_GUC(false, guc_level);
	SetUserIdAndSecContext(user, security);
	PopActiveSnapshot();
	error_context_stack = context.previous;
	/* what it wrote is seen by what comes */
	CommandCounterIncrement();
	return returned;
}

/*
 * Runs the triggers of a kind for the change at hand, in order. *row is what they make of its new row.
 * Returns BDR_STREAM_NONE when there was none, BDR_STREAM_SKIP when one returned NULL, or BDR_STREAM_ROW.
 */
static int
RunTriggers(StreamCall *call, BdrKept *row)
{
	Relation	relation = call->relation;
	TriggerDesc *triggers = relation->trigdesc;
	int			outcome = BDR_STREAM_NONE;
	int			type = change.event == BDR_STREAM_INSERT ? TRIGGER_TYPE_INSERT :
		change.event == BDR_STREAM_UPDATE ? TRIGGER_TYPE_UPDATE : TRIGGER_TYPE_DELETE;

	for (int i = 0; triggers && i < triggers->numtriggers && outcome != BDR_STREAM_SKIP; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];
		TriggerData data = {0};
		TupleTableSlot *first,
				   *second = NULL;
		HeapTuple	given,
					returned;

		if (KindOf(trigger) != call->kind || (trigger->tgtype & type) == 0)
			continue;
		bdr_rel_runs_function(change.rel);
		call->name = trigger->tgname;
		call->event = change.event;
		call->old = change.old;
		call->new = change.has_new ? TupleOf(relation, row) : NULL;
		given = call->new ? call->new : call->old;

		data.type = T_TriggerData;
		data.tg_event = TRIGGER_EVENT_ROW | TRIGGER_EVENT_BEFORE |
			(change.event == BDR_STREAM_INSERT ? TRIGGER_EVENT_INSERT :
			 change.event == BDR_STREAM_UPDATE ? TRIGGER_EVENT_UPDATE : TRIGGER_EVENT_DELETE);
		data.tg_relation = relation;
		data.tg_trigtuple = change.event == BDR_STREAM_INSERT ? call->new : call->old;
		first = MakeSingleTupleTableSlot(RelationGetDescr(relation), &TTSOpsHeapTuple);
		ExecStoreHeapTuple(data.tg_trigtuple, first, false);
		data.tg_trigslot = first;
		if (change.event == BDR_STREAM_UPDATE)
		{
			data.tg_newtuple = call->new;
			second = MakeSingleTupleTableSlot(RelationGetDescr(relation), &TTSOpsHeapTuple);
			ExecStoreHeapTuple(data.tg_newtuple, second, false);
			data.tg_newslot = second;
		}

		returned = RunAsOwner(trigger, call, &data);
		outcome = returned ? BDR_STREAM_ROW : BDR_STREAM_SKIP;
		if (returned && returned != given && change.has_new)
			TakeTuple(relation, returned, row);
		ExecDropSingleTupleTableSlot(first);
		if (second)
			ExecDropSingleTupleTableSlot(second);
	}
	return outcome;
}

/* ---- transform triggers --------------------------------------------------------------------------------------- */

int32_t
bdr_host_stream_change(BdrRel *rel, int32_t event, const BdrRow *old, const BdrRow *new, int64_t commit_time, uint32_t node,
					   const BdrKept **replaced)
{
	volatile int32_t outcome = BDR_STREAM_NONE;

	*replaced = NULL;
	HOST_BEGIN();
	{
		Relation	relation = bdr_rel_table(rel);
		TupleDesc	desc = RelationGetDescr(relation);
		MemoryContext caller;
		BdrKept		before;
		StreamCall	call = {0};
		Oid			user;
		int			security;

		if (change_context == NULL)
			change_context = AllocSetContextCreate(TopMemoryContext, "bdr stream change", ALLOCSET_DEFAULT_SIZES);
		MemoryContextReset(change_context);
		memset(&change, 0, sizeof(change));
		caller = MemoryContextSwitchTo(change_context);
		change.rel = rel;
		change.event = event;
		change.time = commit_time;
		change.node = node;
		change.has_new = new != NULL;

		GetUserIdAndSecContext(&user, &security);
		/* input functions of domains, and defaults, are users' code too */
		SetUserIdAndSecContext(relation->rd_rel->relowner, security | SECURITY_RESTRICTED_OPERATION);
		InitKept(&before, desc->natts);
		if (old)
			bdr_rel_row_values(rel, old, event == BDR_STREAM_UPDATE ? BDR_ROW_AS_SENT : BDR_ROW_KEY, before.values,
							   before.nulls, before.provided);
		else if (event == BDR_STREAM_UPDATE)
			bdr_rel_row_values(rel, new, BDR_ROW_KEY, before.values, before.nulls, before.provided);
		if (event != BDR_STREAM_INSERT)
			change.old = TupleOf(relation, &before);
		if (new)
		{
			InitKept(&change.new, desc->natts);
			bdr_rel_row_values(rel, new, event == BDR_STREAM_INSERT ? BDR_ROW_WITH_DEFAULTS : BDR_ROW_AS_SENT,
							   change.new.values, change.new.nulls, change.new.provided);
			if (old && event == BDR_STREAM_UPDATE && bdr_rel_old_is_whole(rel))
			{
				/* values that were left out because they did not change */
				for (int a = 0; a < desc->natts; a++)
				{
					if (change.new.provided[a] || !before.provided[a])
						continue;
					change.new.values[a] = before.values[a];
					change.new.nulls[a] = before.nulls[a];
					change.new.provided[a] = true;
				}
			}
			if (!bdr_rel_is_whole(rel, change.new.provided))
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("an UPDATE for the stream triggers of \"%s\" lacks values that are stored out of line",
								RelationGetRelationName(relation)),
						 errhint("Use ALTER TABLE %s REPLICA IDENTITY FULL, or drop the stream triggers.",
								 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(relation)),
															RelationGetRelationName(relation)))));
		}
		SetUserIdAndSecContext(user, security);

		call.kind = BDR_STREAM_TRANSFORM;
		call.relation = relation;
		outcome = RunTriggers(&call, &change.new);
		if (outcome == BDR_STREAM_ROW && change.has_new)
		{
			BdrKept    *kept = palloc(sizeof(BdrKept));

			CopyKept(kept, &change.new, desc->natts);
			*replaced = kept;
		}
		MemoryContextSwitchTo(caller);
	}
	HOST_END();
	return outcome;
}

/* ---- conflict triggers ---------------------------------------------------------------------------------------- */

static bool
KeyOf(Relation relation, const BdrKept *row, BdrKey *key)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(relation), &TTSOpsVirtual);
	int			natts = RelationGetDescr(relation)->natts;
	bool		has_key;

	memcpy(slot->tts_values, row->values, sizeof(Datum) * natts);
	memcpy(slot->tts_isnull, row->nulls, sizeof(bool) * natts);
	ExecStoreVirtualTuple(slot);
	has_key = bdr_key_of(bdr_key_columns(relation), slot, key);
	ExecDropSingleTupleTableSlot(slot);
	return has_key;
}

int32_t
bdr_host_stream_conflict(BdrRel *rel, const char *type, bool is_found, bool has_version, int64_t time, uint32_t node,
						 const BdrKept **row)
{
	volatile int32_t outcome = BDR_STREAM_NONE;

	*row = NULL;
	HOST_BEGIN();
	{
		Relation	relation = bdr_rel_table(rel);
		TupleDesc	desc = RelationGetDescr(relation);
		MemoryContext caller;
		StreamCall	call = {0};
		BdrKept    *kept;

		if (change.rel != rel)
			elog(ERROR, "bdr: the stream triggers don't know the change at hand");
		caller = MemoryContextSwitchTo(change_context);
		call.kind = BDR_STREAM_CONFLICT;
		call.conflict = type;
		call.relation = relation;
		/* held, so that the function is called once and what it writes is written once */
		if (is_found && !bdr_rel_hold_found(rel, &call.target, &call.target_xmin))
			outcome = BDR_STREAM_AGAIN;
		else
		{
			call.has_version = is_found && has_version;
			call.target_time = time;
			call.target_node = node;
			kept = palloc0(sizeof(BdrKept));
			if (change.has_new)
			{
				CopyKept(kept, &change.new, desc->natts);
				/* of several rows in the way, the one that is shown need not be the row's own */
				if (call.target && strcmp(type, "multiple_unique_conflicts") != 0)
				{
					/* columns that only this node has */
					Datum	   *values = palloc(sizeof(Datum) * Max(desc->natts, 1));
					bool	   *nulls = palloc(sizeof(bool) * Max(desc->natts, 1));

					heap_deform_tuple(call.target, desc, values, nulls);
					for (int a = 0; a < desc->natts; a++)
					{
						Form_pg_attribute attribute = TupleDescAttr(desc, a);

						if (kept->provided[a] || attribute->attisdropped || attribute->attgenerated)
							continue;
						kept->values[a] = nulls[a] ? (Datum) 0 : CopyValue(attribute, values[a]);
						kept->nulls[a] = nulls[a];
					}
				}
			}
			outcome = RunTriggers(&call, kept);
			if (outcome == BDR_STREAM_ROW)
			{
				BdrKey		key,
							sent;

				if (is_found && !bdr_rel_still_found(rel))
					ereport(ERROR,
							(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
							 errmsg("conflict trigger \"%s\" has changed the row that the conflict is about, and returned a row",
									call.name),
							 errhint("Return NULL after the row is changed or deleted, or return the row and leave the table alone.")));
				if (change.has_new)
				{
					if (KeyOf(relation, kept, &key) && KeyOf(relation, &change.new, &sent) &&
						(key.hash != sent.hash || key.check != sent.check))
						ereport(ERROR,
								(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
								 errmsg("conflict trigger \"%s\" of table \"%s\" returned a row with another key", call.name,
										RelationGetRelationName(relation)),
								 errhint("Leave the key columns as SOURCE_NEW has them.")));
					*row = kept;
				}
			}
		}
		MemoryContextSwitchTo(caller);
	}
	HOST_END();
	return outcome;
}

/* ---- what the functions ask ----------------------------------------------------------------------------------- */

typedef enum RowId
{
	SOURCE_OLD,
	SOURCE_NEW,
	TARGET
} RowId;

static RowId
RowIdOf(text *name)
{
	char	   *id = text_to_cstring(name);

	if (pg_strcasecmp(id, "SOURCE_OLD") == 0)
		return SOURCE_OLD;
	if (pg_strcasecmp(id, "SOURCE_NEW") == 0)
		return SOURCE_NEW;
	if (pg_strcasecmp(id, "TARGET") == 0)
		return TARGET;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown row \"%s\"", id),
			 errhint("Say 'SOURCE_OLD', 'SOURCE_NEW' or 'TARGET'.")));
	return TARGET;
}

Datum
bdr_trigger_get_row(PG_FUNCTION_ARGS)
{
	RowId		id = RowIdOf(PG_GETARG_TEXT_PP(0));
	HeapTuple	tuple;

	if (running == NULL)
		PG_RETURN_NULL();
	tuple = id == SOURCE_OLD ? running->old : id == SOURCE_NEW ? running->new : running->target;
	if (tuple == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(heap_copy_tuple_as_datum(tuple, RelationGetDescr(running->relation)));
}

Datum
bdr_trigger_get_committs(PG_FUNCTION_ARGS)
{
	RowId		id = RowIdOf(PG_GETARG_TEXT_PP(0));

	if (running && id == SOURCE_NEW && running->new)
		PG_RETURN_TIMESTAMPTZ(change.time);
	if (running && id == TARGET && running->has_version)
		PG_RETURN_TIMESTAMPTZ(running->target_time);
	PG_RETURN_NULL();
}

Datum
bdr_trigger_get_xid(PG_FUNCTION_ARGS)
{
	RowId		id = RowIdOf(PG_GETARG_TEXT_PP(0));

	if (running && id == TARGET && running->target && TransactionIdIsNormal(running->target_xmin))
		PG_RETURN_TRANSACTIONID(running->target_xmin);
	PG_RETURN_NULL();
}

Datum
bdr_trigger_get_type(PG_FUNCTION_ARGS)
{
	if (running == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(running->kind == BDR_STREAM_CONFLICT ? "CONFLICT" : "TRANSFORM"));
}

Datum
bdr_trigger_get_conflict_type(PG_FUNCTION_ARGS)
{
	if (running == NULL || running->conflict == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(running->conflict));
}

Datum
bdr_trigger_get_origin_node_id(PG_FUNCTION_ARGS)
{
	RowId		id = RowIdOf(PG_GETARG_TEXT_PP(0));

	if (running && id == SOURCE_NEW && running->new)
		PG_RETURN_OID(change.node);
	if (running && id == TARGET && running->has_version)
		PG_RETURN_OID(running->target_node);
	PG_RETURN_NULL();
}

/* ---- making and dropping -------------------------------------------------------------------------------------- */

static int16
EventsOf(ArrayType *array)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	int16		events = 0;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		char	   *event = nulls[i] ? "" : TextDatumGetCString(elements[i]);
		int16		bit = pg_strcasecmp(event, "INSERT") == 0 ? TRIGGER_TYPE_INSERT :
			pg_strcasecmp(event, "UPDATE") == 0 ? TRIGGER_TYPE_UPDATE :
			pg_strcasecmp(event, "DELETE") == 0 ? TRIGGER_TYPE_DELETE : 0;

		if (bit == 0 || (events & bit))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 bit == 0 ? errmsg("a stream trigger can't be called for \"%s\"", event) :
					 errmsg("event %s is given twice", event),
					 errhint("Events are 'INSERT', 'UPDATE' and 'DELETE'.")));
		events |= bit;
	}
	if (events == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("a stream trigger needs an event"),
				 errhint("Give one or more of 'INSERT', 'UPDATE' and 'DELETE', for example ARRAY['INSERT'].")));
	return events;
}

/* As pg_trigger keeps them: one after the other, each with a zero byte. */
static bytea *
ArgumentsOf(ArrayType *array, int16 *count)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	StringInfoData buffer;
	bytea	   *result;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	if (n > PG_INT16_MAX)
		ereport(ERROR, (errcode(ERRCODE_TOO_MANY_ARGUMENTS), errmsg("too many arguments for a trigger: %d", n)));
	initStringInfo(&buffer);
	for (int i = 0; i < n; i++)
	{
		char	   *argument;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("an argument of a trigger can't be NULL")));
		argument = TextDatumGetCString(elements[i]);
		appendBinaryStringInfo(&buffer, argument, strlen(argument) + 1);
	}
	*count = n;
	result = palloc(VARHDRSZ + buffer.len);
	SET_VARSIZE(result, VARHDRSZ + buffer.len);
	memcpy(VARDATA(result), buffer.data, buffer.len);
	return result;
}

static void
RequireArguments(FunctionCallInfo fcinfo, int n)
{
	for (int i = 0; i < n; i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("argument %d can't be NULL", i + 1)));
}

/* The stream trigger with that name, with or without suffix; an oid, or InvalidOid. */
static Oid
FindTrigger(Oid table, const char *name)
{
	Relation	catalog = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			found = InvalidOid;

	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(table));
	scan = systable_beginscan(catalog, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);
		const char *full = NameStr(form->tgname);

		if (KindOfForm(form) != 0 &&
			(strcmp(full, name) == 0 ||
			 (strlen(full) == strlen(name) + SUFFIX_LENGTH && strncmp(full, name, strlen(name)) == 0)))
		{
			found = form->oid;
			break;
		}
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return found;
}

static void
CheckTable(Relation relation)
{
	const char *name = RelationGetRelationName(relation);
	TupleDesc	desc = RelationGetDescr(relation);

	if (relation->rd_rel->relkind != RELKIND_RELATION && relation->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a table", name)));
	if (relation->rd_rel->relispartition)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is a partition", name),
				 errdetail("Changes name the partitioned table."),
				 errhint("Create the trigger for the partitioned table.")));
	if (!RelationIsPermanent(relation) || IsCatalogRelation(relation) ||
		OidIsValid(getExtensionOfObject(RelationRelationId, RelationGetRelid(relation))))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("table \"%s\" is not replicated", name),
				 errdetail("Temporary and unlogged tables, system catalogs and tables of extensions are not.")));
	if (relation->rd_rel->relreplident == REPLICA_IDENTITY_FULL)
		return;
	for (int a = 0; a < desc->natts; a++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, a);

		if (!attribute->attisdropped && attribute->attlen == -1 && attribute->attstorage != TYPSTORAGE_PLAIN)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("table \"%s\" can't have stream triggers without REPLICA IDENTITY FULL", name),
					 errdetail("Values of column \"%s\" may be stored out of line; an UPDATE that leaves such a value alone does not carry it.",
							   NameStr(attribute->attname)),
					 errhint("Use ALTER TABLE %s REPLICA IDENTITY FULL.",
							 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(relation)), name))));
	}
}

static void
CheckRights(Relation relation, Oid function)
{
	Oid			table = RelationGetRelid(relation);
	HeapTuple	tuple;
	Form_pg_proc form;

	if (!bdr_may_administer() && pg_class_aclcheck(table, GetUserId(), ACL_TRIGGER) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, get_relkind_objtype(relation->rd_rel->relkind), RelationGetRelationName(relation));
	if (!bdr_may_execute(function, GetUserId()))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, get_func_name(function));
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION), errmsg("function with OID %u does not exist", function)));
	form = (Form_pg_proc) GETSTRUCT(tuple);
	if (form->prorettype != TRIGGEROID)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("function %s must return type %s", NameStr(form->proname), "trigger")));
	ReleaseSysCache(tuple);
	bdr_check_trigger_function(table, function);
}

static void
StoreTrigger(const char *name, Relation relation, Oid function, int16 type, int16 nargs, bytea *arguments)
{
	Oid			table = RelationGetRelid(relation);
	Relation	catalog = table_open(TriggerRelationId, RowExclusiveLock);
	Relation	classes;
	Datum		values[Natts_pg_trigger] = {0};
	bool		nulls[Natts_pg_trigger] = {0};
	NameData	stored;
	HeapTuple	tuple;
	Oid			oid = GetNewOidWithIndex(catalog, TriggerOidIndexId, Anum_pg_trigger_oid);
	ObjectAddress self,
				other;

	namestrcpy(&stored, name);
	values[Anum_pg_trigger_oid - 1] = ObjectIdGetDatum(oid);
	values[Anum_pg_trigger_tgrelid - 1] = ObjectIdGetDatum(table);
	values[Anum_pg_trigger_tgparentid - 1] = ObjectIdGetDatum(InvalidOid);
	values[Anum_pg_trigger_tgname - 1] = NameGetDatum(&stored);
	values[Anum_pg_trigger_tgfoid - 1] = ObjectIdGetDatum(function);
	values[Anum_pg_trigger_tgtype - 1] = Int16GetDatum(type);
	values[Anum_pg_trigger_tgenabled - 1] = CharGetDatum(TRIGGER_DISABLED);
	values[Anum_pg_trigger_tgisinternal - 1] = BoolGetDatum(true);
	values[Anum_pg_trigger_tgconstrrelid - 1] = ObjectIdGetDatum(InvalidOid);
	values[Anum_pg_trigger_tgconstrindid - 1] = ObjectIdGetDatum(InvalidOid);
	values[Anum_pg_trigger_tgconstraint - 1] = ObjectIdGetDatum(InvalidOid);
	values[Anum_pg_trigger_tgdeferrable - 1] = BoolGetDatum(false);
	values[Anum_pg_trigger_tginitdeferred - 1] = BoolGetDatum(false);
	values[Anum_pg_trigger_tgnargs - 1] = Int16GetDatum(nargs);
	values[Anum_pg_trigger_tgattr - 1] = PointerGetDatum(buildint2vector(NULL, 0));
	values[Anum_pg_trigger_tgargs - 1] = PointerGetDatum(arguments);
	nulls[Anum_pg_trigger_tgqual - 1] = true;
	nulls[Anum_pg_trigger_tgoldtable - 1] = true;
	nulls[Anum_pg_trigger_tgnewtable - 1] = true;
	CatalogTupleInsert(catalog, heap_form_tuple(RelationGetDescr(catalog), values, nulls));
	table_close(catalog, RowExclusiveLock);

	classes = table_open(RelationRelationId, RowExclusiveLock);
	tuple = SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(table));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", table);
	if (!((Form_pg_class) GETSTRUCT(tuple))->relhastriggers)
	{
		((Form_pg_class) GETSTRUCT(tuple))->relhastriggers = true;
		CatalogTupleUpdate(classes, &tuple->t_self, tuple);
	}
	else
		CacheInvalidateRelcacheByTuple(tuple);
	table_close(classes, RowExclusiveLock);

	ObjectAddressSet(self, TriggerRelationId, oid);
	ObjectAddressSet(other, ProcedureRelationId, function);
	recordDependencyOn(&self, &other, DEPENDENCY_NORMAL);
	ObjectAddressSet(other, RelationRelationId, table);
	recordDependencyOn(&self, &other, DEPENDENCY_AUTO);
	InvokeObjectPostCreateHook(TriggerRelationId, oid, 0);
	CommandCounterIncrement();
}

static const char *
TableLiteral(Oid table)
{
	return quote_literal_cstr(quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)), get_rel_name(table)));
}

/* An array without NULLs. */
static const char *
ArrayLiteral(ArrayType *array)
{
	Oid			output;
	bool		varlena;

	getTypeOutputInfo(TEXTARRAYOID, &output, &varlena);
	return quote_literal_cstr(OidOutputFunctionCall(output, PointerGetDatum(array)));
}

static void
MakeTrigger(FunctionCallInfo fcinfo, const char *suffix)
{
	const char *maker = strcmp(suffix, CONFLICT_SUFFIX) == 0 ? "bdr.create_conflict_trigger" : "bdr.create_transform_trigger";
	char	   *name;
	int16		events;
	Oid			table;
	Oid			function;
	int16		nargs;
	bytea	   *arguments;
	Relation	relation;

	RequireArguments(fcinfo, 5);
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	events = EventsOf(PG_GETARG_ARRAYTYPE_P(1));
	table = PG_GETARG_OID(2);
	function = PG_GETARG_OID(3);
	arguments = ArgumentsOf(PG_GETARG_ARRAYTYPE_P(4), &nargs);
	if (name[0] == '\0' || strlen(name) + SUFFIX_LENGTH >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(name[0] ? ERRCODE_NAME_TOO_LONG : ERRCODE_INVALID_NAME),
				 errmsg("invalid name \"%s\" of a stream trigger", name),
				 errdetail("It has 1 to %d bytes; \"%s\" is added.", NAMEDATALEN - 1 - SUFFIX_LENGTH, suffix)));
	/* before anything is locked */
	if (get_rel_name(table) == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("relation with OID %u does not exist", table)));
	if (!bdr_may_administer() && pg_class_aclcheck(table, GetUserId(), ACL_TRIGGER) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(table));
	if (get_func_name(function) != NULL)
		(void) bdr_ddl_replicate(psprintf("%s()", maker),
								 psprintf("SELECT %s(%s, %s, %s, %s, %s)", maker, quote_literal_cstr(name),
										  ArrayLiteral(PG_GETARG_ARRAYTYPE_P(1)), TableLiteral(table),
										  quote_literal_cstr(format_procedure_qualified(function)),
										  ArrayLiteral(PG_GETARG_ARRAYTYPE_P(4))), table);
	relation = relation_open(table, ShareRowExclusiveLock);
	CheckTable(relation);
	CheckRights(relation, function);
	if (OidIsValid(FindTrigger(table, name)))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("stream trigger \"%s\" of table \"%s\" exists already", name, RelationGetRelationName(relation)),
				 errhint("Choose another name, or drop it with bdr.drop_trigger.")));
	StoreTrigger(psprintf("%s%s", name, suffix), relation, function, TRIGGER_TYPE_ROW | TRIGGER_TYPE_BEFORE | events, nargs,
				 arguments);
	relation_close(relation, NoLock);
}

Datum
bdr_create_conflict_trigger(PG_FUNCTION_ARGS)
{
	MakeTrigger(fcinfo, CONFLICT_SUFFIX);
	PG_RETURN_VOID();
}

Datum
bdr_create_transform_trigger(PG_FUNCTION_ARGS)
{
	MakeTrigger(fcinfo, TRANSFORM_SUFFIX);
	PG_RETURN_VOID();
}

Datum
bdr_drop_trigger(PG_FUNCTION_ARGS)
{
	char	   *name;
	Oid			table;
	bool		if_exists;
	Relation	relation;
	ObjectAddress address;
	Oid			oid;

	RequireArguments(fcinfo, 3);
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	table = PG_GETARG_OID(1);
	if_exists = PG_GETARG_BOOL(2);
	if (get_rel_name(table) == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("relation with OID %u does not exist", table)));
	if (!bdr_owns_table(table, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(table));
	(void) bdr_ddl_replicate("bdr.drop_trigger()",
							 psprintf("SELECT bdr.drop_trigger(%s, %s, %s)", quote_literal_cstr(name), TableLiteral(table),
									  if_exists ? "true" : "false"), table);
	/* the lock that dropping any trigger takes */
	relation = relation_open(table, AccessExclusiveLock);
	oid = FindTrigger(table, name);
	if (OidIsValid(oid))
	{
		ObjectAddressSet(address, TriggerRelationId, oid);
		relation_close(relation, NoLock);
		performDeletion(&address, DROP_RESTRICT, 0);
		PG_RETURN_VOID();
	}
	if (!if_exists)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" has no stream trigger \"%s\"", RelationGetRelationName(relation), name),
				 errhint("SELECT * FROM bdr.triggers shows them.")));
	ereport(NOTICE,
			(errmsg("table \"%s\" has no stream trigger \"%s\", skipping", RelationGetRelationName(relation), name)));
	relation_close(relation, NoLock);
	PG_RETURN_VOID();
}

/* ---- what other statements must not do ------------------------------------------------------------------------ */

static bool
ReadTrigger(Oid oid, Snapshot snapshot, FormData_pg_trigger *form)
{
	Relation	catalog = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(oid));
	scan = systable_beginscan(catalog, TriggerOidIndexId, true, snapshot, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		memcpy(form, GETSTRUCT(tuple), offsetof(FormData_pg_trigger, tgattr));
		found = true;
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return found;
}

/* An enabled stream trigger would fire for local statements, and a renamed one is none any more. */
static void
ObjectAccess(ObjectAccessType access, Oid class, Oid object, int sub, void *arg)
{
	if (previous_object_access)
		previous_object_access(access, class, object, sub, arg);
	if (class == TriggerRelationId && access == OAT_POST_ALTER)
	{
		FormData_pg_trigger before;
		FormData_pg_trigger after;

		if (ReadTrigger(object, NULL, &before) && KindOfForm(&before) != 0 && ReadTrigger(object, SnapshotSelf, &after) &&
			(after.tgenabled != TRIGGER_DISABLED || KindOfForm(&after) != KindOfForm(&before)))
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("stream trigger \"%s\" can't be %s", NameStr(before.tgname),
							after.tgenabled != TRIGGER_DISABLED ? "enabled" : "renamed"),
					 errdetail("It is called for changes of other nodes, although it shows as disabled."),
					 after.tgenabled != TRIGGER_DISABLED ?
					 errhint("Use ALTER TABLE … ENABLE TRIGGER USER for all ordinary triggers.") :
					 errhint("Use bdr.drop_trigger, and create it again.")));
	}
}

void
bdr_stream_triggers_init(void)
{
	previous_object_access = object_access_hook;
	object_access_hook = ObjectAccess;
}
