/*
 * host_conflict.c: the record of conflicts: rows as JSON, the rows of bdr.conflict_history, lines of the server's log.
 *
 * Recording must not disturb applying. What may fail is done in subtransactions: rows are turned into JSON, which may run
 * output functions of users' types, in one that writes nothing; and what was collected is written by one for many conflicts,
 * so that a transaction with a million conflicts does not take a million transaction numbers. What can't be shown is left
 * out, what can't be written is passed over, with a line in the log.
 *
 * Nothing large is made: a value beyond MAX_TUPLE bytes is never detoasted, and a tuple beyond it is replaced by a mark.
 */
#include "bdr.h"
#include "attempt.h"
#include "compat.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/jsonapi.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* The largest tuple that is shown, as JSON; larger ones would not be read, and would cost memory and disk. */
#define MAX_TUPLE (64 * 1024)
/* How long a write may wait for a lock on the history, ms. */
#define LOCK_TIMEOUT "1000"
/* How long the history is left alone after a failure, µs. */
#define FAILURE_PAUSE (10 * USECS_PER_SEC)

/* One row of bdr.conflict_history to be. */
typedef struct Pending
{
	BdrConflict conflict;
	Oid			relation;
	const char *namespace_name;
	const char *name;
	TimestampTz time;
	XLogRecPtr	lsn;
	TransactionId local_xmin;	/* invalid: none */
	const char *key;
	const char *remote;
	const char *local;
	const char *written;
} Pending;

static MemoryContext pending_context = NULL;
static List *pending = NIL;
static Size pending_bytes = 0;
static TimestampTz closed_until = 0;
static SPIPlanPtr insert_plan = NULL;

/* ---- values as JSON ------------------------------------------------------------------------------------------- */

/* Columns of a row as JSON, by number; NULL where there is no column. */
typedef struct JsonRow
{
	int			ncolumns;
	const char **names;
	char	  **values;
	Size		bytes;
	bool		too_large;
} JsonRow;

static char *
LargeMark(Size bytes)
{
	return psprintf("{\"bdr_omitted\": \"large\", \"bytes\": %zu}", bytes);
}

/* Numbers and JSON as what they are, all else as a string. */
static char *
TextAsJson(Oid type, char *text)
{
	StringInfoData buffer;

	switch (type)
	{
		case BOOLOID:
			return strcmp(text, "t") == 0 ? "true" : "false";
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
			if (IsValidJsonNumber(text, strlen(text)))
				return text;
			break;
		case JSONOID:
		case JSONBOID:
			return text;
		default:
			break;
	}
	initStringInfo(&buffer);
	escape_json(&buffer, text);
	return buffer.data;
}

static char *
DatumAsJson(Oid type, Datum value, int16 length)
{
	Oid			function;
	bool		is_varlena;

	if (length == -1)
	{
		Size		size = toast_raw_datum_size(value);

		if (size > MAX_TUPLE)
			return LargeMark(size - VARHDRSZ);
	}
	getTypeOutputInfo(type, &function, &is_varlena);
	return TextAsJson(type, OidOutputFunctionCall(function, value));
}

static void
InitRow(JsonRow *row, int ncolumns)
{
	memset(row, 0, sizeof(*row));
	row->ncolumns = ncolumns;
	row->names = palloc0(sizeof(char *) * Max(ncolumns, 1));
	row->values = palloc0(sizeof(char *) * Max(ncolumns, 1));
}

/* False when the row is beyond the limit: no more of it is wanted. */
static bool
AddValue(JsonRow *row, int number, const char *name, char *value)
{
	row->names[number] = name;
	row->values[number] = value;
	row->bytes += strlen(name) + strlen(value) + 6;
	row->too_large = row->bytes > MAX_TUPLE;
	return !row->too_large;
}

/* A value that travels in binary, of a type that is built in here as well. */
static char *
BinaryAsJson(const BdrColumnDesc *column, const BdrValue *value)
{
	StringInfoData buffer;
	Oid			function;
	Oid			parameter;

	if (column->builtin_type == 0)
		return "{\"bdr_omitted\": \"unknown type\"}";
	bdr_binary_input(column->builtin_type, &function, &parameter);
	buffer.data = (char *) value->data;
	buffer.len = value->length;
	buffer.maxlen = value->length + 1;
	buffer.cursor = 0;
	return DatumAsJson(column->builtin_type, OidReceiveFunctionCall(function, &buffer, parameter, column->typmod),
					   get_typlen(column->builtin_type));
}

/* A row that the peer sent, also columns that do not exist here. */
static void
RemoteRow(BdrRel *rel, const BdrRelView *view, const BdrRow *source, bool key_only, JsonRow *row)
{
	Datum	   *values = NULL;
	bool	   *nulls = NULL;

	InitRow(row, view->ncolumns);
	if (source->kept)
	{
		for (int i = 0; i < view->ncolumns; i++)
		{
			Oid			type;
			int16		length;
			Datum		value;
			bool		null;

			if ((key_only && !view->columns[i].key && !view->whole_row_key) ||
				!bdr_rel_kept_value(rel, source->kept, i, &type, &length, &value, &null))
				continue;
			if (!AddValue(row, i, view->columns[i].name, null ? "null" : DatumAsJson(type, value, length)))
				return;
		}
		return;
	}
	if (source->values == NULL)
	{
		if (source->data_length > 16 * MAX_TUPLE)
		{
			row->too_large = true;
			row->bytes = source->data_length;
			return;
		}
		values = palloc(sizeof(Datum) * Max(view->ncolumns, 1));
		nulls = palloc(sizeof(bool) * Max(view->ncolumns, 1));
		bdr_raw_row_values(rel, source, values, nulls);
	}
	else if (source->ncolumns != view->ncolumns)
		elog(ERROR, "a row does not have the columns that were described");
	for (int i = 0; i < view->ncolumns; i++)
	{
		const BdrColumnDesc *column = &view->columns[i];
		char	   *text;

		if (key_only && !column->key && !view->whole_row_key)
			continue;
		if (values)
			text = nulls[i] ? "null" : DatumAsJson(column->builtin_type, values[i], column->attlen);
		else
		{
			const BdrValue *value = &source->values[i];

			if (value->kind == BDR_VALUE_NULL)
				text = "null";
			else if (value->kind == BDR_VALUE_UNCHANGED || value->kind == BDR_VALUE_UNCHANGED_BY)
				text = "{\"bdr_omitted\": \"unchanged\"}";
			else if (value->length > MAX_TUPLE)
				text = LargeMark(value->length);
			else if (value->kind == BDR_VALUE_TEXT)
			{
				(void) pg_verifymbstr((const char *) value->data, value->length, false);
				text = TextAsJson(column->builtin_type, (char *) value->data);
			}
			else
				text = BinaryAsJson(column, value);
		}
		if (!AddValue(row, i, column->name, text))
			return;
	}
}

/* A row of a local table. */
static void
LocalRow(TupleTableSlot *slot, JsonRow *row)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;

	InitRow(row, desc->natts);
	slot_getallattrs(slot);
	for (int a = 0; a < desc->natts; a++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, a);

		/* 'v': not stored (18) */
		if (attribute->attisdropped || attribute->attgenerated == 'v')
			continue;
		if (!AddValue(row, a, NameStr(attribute->attname),
					  slot->tts_isnull[a] ? "null" :
					  DatumAsJson(attribute->atttypid, slot->tts_values[a], attribute->attlen)))
			return;
	}
}

/* Whether both show the same in all columns that the peer sent; merged: but for those that are merged. */
static bool
SameRows(BdrRel *rel, bool merged, const JsonRow *remote, const JsonRow *local)
{
	if (remote->too_large || local->too_large)
		return false;
	for (int i = 0; i < remote->ncolumns; i++)
	{
		int			place = -1;

		if (remote->values[i] == NULL || strcmp(remote->values[i], "{\"bdr_omitted\": \"unchanged\"}") == 0)
			continue;
		if (merged && bdr_rel_merges_column(rel, i))
			continue;
		/* most often at the same place */
		for (int n = 0; n < local->ncolumns && place < 0; n++)
		{
			int			a = (i + n) % local->ncolumns;

			if (local->values[a] && strcmp(local->names[a], remote->names[i]) == 0)
				place = a;
		}
		/* of what was cut only the size is known */
		if (strcmp(remote->values[i], place < 0 ? "null" : local->values[place]) != 0 ||
			strncmp(remote->values[i], "{\"bdr_omitted\"", 14) == 0)
			return false;
	}
	return true;
}

/* The row as one JSON object, valid whatever an output function or a peer gave. Memory: the current context. */
static char *
ObjectOf(const JsonRow *row)
{
	StringInfoData buffer;

	if (row->too_large)
		return LargeMark(row->bytes);
	initStringInfo(&buffer);
	appendStringInfoChar(&buffer, '{');
	for (int i = 0; i < row->ncolumns; i++)
	{
		if (row->values[i] == NULL)
			continue;
		if (buffer.len > 1)
			appendStringInfoString(&buffer, ", ");
		escape_json(&buffer, row->names[i]);
		appendStringInfoString(&buffer, ": ");
		appendStringInfoString(&buffer, row->values[i]);
	}
	appendStringInfoChar(&buffer, '}');
	(void) DirectFunctionCall1(json_in, CStringGetDatum(buffer.data));
	return buffer.data;
}

/* ---- subtransactions ------------------------------------------------------------------------------------------ */

/* In PG_CATCH. An error that says that this process shall stop what it does is raised again. */
static ErrorData *
FailedAttempt(const Attempt *attempt)
{
	ErrorData  *error = UndoAttempt(attempt);

	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	return error;
}

int32_t
bdr_host_sql_attempt(const char *sql, int32_t lock_timeout, BdrSqlResult **result)
{
	*result = NULL;
	HOST_BEGIN();
	{
		Attempt		attempt;
		char		timeout[16];

		snprintf(timeout, sizeof(timeout), "%d", lock_timeout);
		BeginAttempt(&attempt);
		PG_TRY();
		{
			(void) set_config_option("lock_timeout", timeout, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
			if (bdr_host_sql(sql, 0, NULL, result) != BDR_OK)
				bdr_rethrow();
			EndAttempt(&attempt);
		}
		PG_CATCH();
		{
			ErrorData  *error = FailedAttempt(&attempt);

			if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
				ereport(LOG,
						(errcode(error->sqlerrcode),
						 errmsg("the conflict history could not be kept in order: %s", error->message),
						 errdetail_internal("%s", sql)));
			FreeErrorData(error);
			bdr_host_sql_free(*result);
			*result = NULL;
		}
		PG_END_TRY();
	}
	HOST_END();
	return BDR_OK;
}

/* ---- collecting ----------------------------------------------------------------------------------------------- */

void
bdr_host_conflict_forget(void)
{
	pending = NIL;
	pending_bytes = 0;
	if (pending_context)
		MemoryContextReset(pending_context);
}

size_t
bdr_host_conflict_pending(void)
{
	return pending_bytes;
}

bool
bdr_host_conflict_history_open(void)
{
	TimestampTz now;

	if (closed_until != 0)
	{
		now = GetCurrentTimestamp();
		/* a clock that was set back must not keep it closed */
		if (now < closed_until && closed_until - now <= FAILURE_PAUSE)
			return false;
		closed_until = 0;
	}
	return bdr_conflict_history_has_room();
}

static const char *
Keep(const char *text)
{
	if (text == NULL)
		return NULL;
	pending_bytes += strlen(text) + 1;
	return MemoryContextStrdup(pending_context, text);
}

/* What is shown of a conflict, as JSON. */
typedef struct Shown
{
	char	   *key;
	char	   *remote;
	char	   *local;
	char	   *written;
	bool		same;			/* the local row and the peer's show no difference */
} Shown;

/* False when something can't be shown. Memory: the current context. */
static bool
ShowRows(BdrRel *rel, const BdrRelView *view, const BdrConflict *conflict, const BdrRow *key, const BdrRow *row, bool all,
		 Shown *shown)
{
	bool		with_local = conflict->has_local && view->found != NULL;
	volatile bool complete = false;
	Attempt		attempt;

	memset(shown, 0, sizeof(*shown));
	BeginAttempt(&attempt);
	PG_TRY();
	{
		JsonRow		remote,
					local,
					other;
		Oid			user;
		int			security;

		/* what belongs to a user's type runs with the rights of the table's owner, as when the row is written */
		GetUserIdAndSecContext(&user, &security);
		/* (of a table that is not here there are only built-in types) */
		SetUserIdAndSecContext(OidIsValid(view->owner) ? view->owner : user, security | SECURITY_RESTRICTED_OPERATION);
		if (row)
			RemoteRow(rel, view, row, false, &remote);
		if (with_local && (row || all))
			LocalRow(view->found, &local);
		shown->same = row && with_local && SameRows(rel, conflict->merged, &remote, &local);
		if (key && !shown->same)
		{
			RemoteRow(rel, view, key, true, &other);
			shown->key = ObjectOf(&other);
		}
		if (all && !shown->same)
		{
			if (row)
				shown->remote = ObjectOf(&remote);
			if (with_local)
				shown->local = ObjectOf(&local);
			if (conflict->has_written && view->written)
			{
				LocalRow(view->written, &other);
				shown->written = ObjectOf(&other);
			}
		}
		SetUserIdAndSecContext(user, security);
		EndAttempt(&attempt);
		complete = true;
	}
	PG_CATCH();
	{
		ErrorData  *error = FailedAttempt(&attempt);

		ereport(DEBUG1,
				(errmsg_internal("rows of a conflict on \"%s.%s\" can't be shown: %s", view->namespace_name, view->name,
								 error->message)));
		FreeErrorData(error);
	}
	PG_END_TRY();
	if (!complete)
		memset(shown, 0, sizeof(*shown));
	return complete;
}

int32_t
bdr_host_conflict_add(BdrRel *rel, const BdrConflict *conflict, const BdrRow *key, const BdrRow *row, bool to_table,
					  const char **key_text)
{
	static MemoryContext work_context = NULL;
	volatile int32_t outcome = BDR_RECORD_DONE;

	*key_text = NULL;
	HOST_BEGIN();
	{
		BdrRelView	view;
		Shown		shown;
		MemoryContext old;

		if (work_context == NULL)
			work_context = AllocSetContextCreate(TopMemoryContext, "bdr conflict", ALLOCSET_DEFAULT_SIZES);
		if (pending_context == NULL)
			pending_context = AllocSetContextCreate(TopMemoryContext, "bdr pending conflicts", ALLOCSET_DEFAULT_SIZES);
		MemoryContextReset(work_context);
		if (!bdr_rel_view(rel, &view))
			elog(ERROR, "bdr: relation is not open in this transaction");
		old = MemoryContextSwitchTo(work_context);
		/* the key alone is better than nothing */
		if (!ShowRows(rel, &view, conflict, key, row, to_table, &shown))
			(void) ShowRows(rel, &view, conflict, key, NULL, false, &shown);
		if (shown.same)
			outcome = BDR_RECORD_SAME_ROWS;
		*key_text = shown.key;
		if (to_table && outcome == BDR_RECORD_DONE)
		{
			Pending    *entry = MemoryContextAllocZero(pending_context, sizeof(Pending));
			bool		isnull;

			entry->conflict = *conflict;
			entry->conflict.type = Keep(conflict->type);
			entry->conflict.resolution = Keep(conflict->resolution);
			entry->relation = view.oid;
			entry->namespace_name = Keep(view.namespace_name);
			entry->name = Keep(view.name);
			entry->time = GetCurrentTimestamp();
			entry->lsn = GetXLogInsertRecPtr();
			if (conflict->has_local && view.found)
				entry->local_xmin =
					DatumGetTransactionId(slot_getsysattr(view.found, MinTransactionIdAttributeNumber, &isnull));
			entry->key = Keep(shown.key);
			entry->remote = Keep(shown.remote);
			entry->local = Keep(shown.local);
			entry->written = Keep(shown.written);
			pending_bytes += sizeof(Pending);
			MemoryContextSwitchTo(pending_context);
			pending = lappend(pending, entry);
		}
		MemoryContextSwitchTo(old);
	}
	HOST_END();
	return outcome;
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

#define COLUMNS 22

static void
Prepare(void)
{
	static const char insert[] =
		"INSERT INTO bdr.conflict_history (sub_id, local_xid, local_lsn, local_time, remote_xid, remote_commit_lsn,"
		" remote_commit_time, conflict_type, conflict_resolution, conflict_index, reloid, nspname, relname, key_tuple,"
		" remote_tuple, local_tuple, apply_tuple, local_tuple_xmin, local_tuple_node_id, local_tuple_commit_time,"
		" origin_node_id, remote_change_nr) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,"
		" $17, $18, $19, $20, $21, $22)";
	Oid			types[COLUMNS] = {
		OIDOID, XIDOID, PG_LSNOID, TIMESTAMPTZOID, XIDOID, PG_LSNOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, REGCLASSOID, OIDOID,
		TEXTOID, TEXTOID, JSONOID, JSONOID, JSONOID, JSONOID, XIDOID, OIDOID, TIMESTAMPTZOID, OIDOID, OIDOID
	};

	if (insert_plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(insert, COLUMNS, types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "SPI failed: %s", SPI_result_code_string(SPI_result));
		insert_plan = plan;
	}
}

static Datum
TextValue(const char *text, char *null)
{
	*null = text ? ' ' : 'n';
	return text ? CStringGetTextDatum(text) : (Datum) 0;
}

static void
WriteOne(const Pending *entry, bool with_rows)
{
	const BdrConflict *conflict = &entry->conflict;
	bool		with_local = TransactionIdIsNormal(entry->local_xmin);
	Datum		values[COLUMNS];
	char		nulls[COLUMNS + 1];
	int			c = 0;
	int			rc;

	memset(nulls, ' ', sizeof(nulls));
	nulls[c] = conflict->subscription ? ' ' : 'n';
	values[c++] = ObjectIdGetDatum(conflict->subscription);
	values[c++] = TransactionIdGetDatum(GetTopTransactionId());
	values[c++] = LSNGetDatum(entry->lsn);
	values[c++] = TimestampTzGetDatum(entry->time);
	values[c++] = TransactionIdGetDatum(conflict->remote_xid);
	values[c++] = LSNGetDatum(conflict->remote_lsn);
	values[c++] = TimestampTzGetDatum(conflict->remote_time);
	values[c] = TextValue(conflict->type, &nulls[c]);
	c++;
	values[c] = TextValue(conflict->resolution, &nulls[c]);
	c++;
	nulls[c] = conflict->index ? ' ' : 'n';
	values[c++] = ObjectIdGetDatum(conflict->index);
	nulls[c] = OidIsValid(entry->relation) ? ' ' : 'n';
	values[c++] = ObjectIdGetDatum(entry->relation);
	values[c] = TextValue(entry->namespace_name, &nulls[c]);
	c++;
	values[c] = TextValue(entry->name, &nulls[c]);
	c++;
	/* text and json are stored alike */
	values[c] = TextValue(with_rows ? entry->key : NULL, &nulls[c]);
	c++;
	values[c] = TextValue(with_rows ? entry->remote : NULL, &nulls[c]);
	c++;
	values[c] = TextValue(with_rows ? entry->local : NULL, &nulls[c]);
	c++;
	values[c] = TextValue(with_rows ? entry->written : NULL, &nulls[c]);
	c++;
	nulls[c] = with_local ? ' ' : 'n';
	values[c++] = TransactionIdGetDatum(entry->local_xmin);
	nulls[c] = conflict->has_local_version ? ' ' : 'n';
	values[c++] = ObjectIdGetDatum(conflict->local_node);
	nulls[c] = conflict->has_local_version ? ' ' : 'n';
	values[c++] = TimestampTzGetDatum(conflict->local_time);
	values[c++] = ObjectIdGetDatum(conflict->origin_node);
	values[c++] = ObjectIdGetDatum(conflict->change);
	Assert(c == COLUMNS);
	rc = SPI_execute_plan(insert_plan, values, nulls, false, 0);
	if (rc < 0)
		elog(ERROR, "SPI failed: %s", SPI_result_code_string(rc));
}

/* Writes all that is kept, or nothing. *reason: why it failed, if it is to be told. */
static bool
WritePending(bool with_rows, ErrorData **reason)
{
	volatile bool written = false;
	Attempt		attempt;

	*reason = NULL;
	BeginAttempt(&attempt);
	PG_TRY();
	{
		ListCell   *cell;

		/* whoever locks the history must not hold up replication; the setting ends with the subtransaction */
		(void) set_config_option("lock_timeout", LOCK_TIMEOUT, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
		SPI_connect();
		Prepare();
		foreach(cell, pending)
			WriteOne(lfirst(cell), with_rows);
		SPI_finish();
		EndAttempt(&attempt);
		written = true;
	}
	PG_CATCH();
	{
		*reason = FailedAttempt(&attempt);
	}
	PG_END_TRY();
	return written;
}

int32_t
bdr_host_conflict_flush(int32_t *lost)
{
	*lost = 0;
	HOST_BEGIN();
	if (pending != NIL)
	{
		ErrorData  *reason;
		uint64		bytes = pending_bytes;

		if (!WritePending(true, &reason))
		{
			if (reason->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			{
				FreeErrorData(reason);
				if (WritePending(false, &reason))
					reason = NULL;
			}
			if (reason)
			{
				*lost = list_length(pending);
				bytes = 0;
				closed_until = GetCurrentTimestamp() + FAILURE_PAUSE;
				ereport(LOG,
						(errcode(reason->sqlerrcode),
						 errmsg("%d conflicts could not be stored in bdr.conflict_history: %s", *lost, reason->message),
						 errdetail("None will be stored for 10 seconds. What was replicated is not affected.")));
				FreeErrorData(reason);
			}
		}
		bdr_conflict_history_grew(bytes);
		bdr_host_conflict_forget();
	}
	HOST_END();
	return BDR_OK;
}

/* ---- log and settings ----------------------------------------------------------------------------------------- */

int32_t
bdr_host_conflict_log(const char *message, const char *detail)
{
	HOST_BEGIN();
	ereport(bdr_conflict_log_level,
			(errmsg_internal("%s", message),
			 detail ? errdetail_internal("%s", detail) : 0));
	HOST_END();
	return BDR_OK;
}

const char *
bdr_host_time_text(int64_t time)
{
	return IS_VALID_TIMESTAMP(time) ? timestamptz_to_str(time) : "?";
}

static bool settings_changed = true;
static Oid	settings_tables[2];

static void
SettingsInvalidated(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == settings_tables[0] || relid == settings_tables[1])
		settings_changed = true;
}

static void
FindSettingsTables(void)
{
	Oid			schema = get_namespace_oid(BDR_SCHEMA, true);

	settings_tables[0] = OidIsValid(schema) ? get_relname_relid("conflict_resolver", schema) : InvalidOid;
	settings_tables[1] = OidIsValid(schema) ? get_relname_relid("conflict_log_config", schema) : InvalidOid;
}

int32_t
bdr_host_conflict_settings_changed(bool *changed)
{
	static bool registered = false;

	*changed = false;
	HOST_BEGIN();
	if (!registered)
	{
		CacheRegisterRelcacheCallback(SettingsInvalidated, (Datum) 0);
		registered = true;
	}
	if (settings_changed)
	{
		FindSettingsTables();
		*changed = true;
		/* before they are read: what is told meanwhile must not be missed */
		settings_changed = false;
	}
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_conflict_settings_notify(void)
{
	HOST_BEGIN();
	FindSettingsTables();
	for (int i = 0; i < 2; i++)
	{
		if (OidIsValid(settings_tables[i]))
			CacheInvalidateRelcacheByRelid(settings_tables[i]);
	}
	HOST_END();
	return BDR_OK;
}
