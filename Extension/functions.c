/*
 * functions.c: the SQL functions: take arguments from the server's calling convention, call the engine, give results back.
 */
#include "bdr.h"
#include "compat.h"
#include "ddl.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "utils/resowner.h"

PG_FUNCTION_INFO_V1(bdr_version);
PG_FUNCTION_INFO_V1(bdr_version_num);
PG_FUNCTION_INFO_V1(bdr_edition);
PG_FUNCTION_INFO_V1(bdr_create_node);
PG_FUNCTION_INFO_V1(bdr_create_node_group);
PG_FUNCTION_INFO_V1(bdr_join_node_group);
PG_FUNCTION_INFO_V1(bdr_wait_for_join_completion);
PG_FUNCTION_INFO_V1(bdr_part_node);
PG_FUNCTION_INFO_V1(bdr_drop_node);
PG_FUNCTION_INFO_V1(bdr_alter_node_interface);
PG_FUNCTION_INFO_V1(bdr_check_settings);
PG_FUNCTION_INFO_V1(bdr_wait_slot_confirm_lsn);
PG_FUNCTION_INFO_V1(bdr_wait_for_apply_queue);
PG_FUNCTION_INFO_V1(bdr_alter_subscription_enable);
PG_FUNCTION_INFO_V1(bdr_alter_subscription_disable);
PG_FUNCTION_INFO_V1(bdr_alter_subscription_skip_changes_upto);
PG_FUNCTION_INFO_V1(bdr_run_on_all_nodes);
PG_FUNCTION_INFO_V1(bdr_run_on_nodes);
PG_FUNCTION_INFO_V1(bdr_run_on_group);
PG_FUNCTION_INFO_V1(bdr_replicate_ddl_command);
PG_FUNCTION_INFO_V1(bdr_resynchronize_table_from_node);
PG_FUNCTION_INFO_V1(bdr_local_group_slot_name);
PG_FUNCTION_INFO_V1(bdr_request_replay_progress_update);
PG_FUNCTION_INFO_V1(bdr_promote_node);
PG_FUNCTION_INFO_V1(bdr_alter_node_set_conflict_resolver);
PG_FUNCTION_INFO_V1(bdr_alter_node_set_log_config);
PG_FUNCTION_INFO_V1(bdr_internal_conflict_types);
PG_FUNCTION_INFO_V1(bdr_peer_state_name);
PG_FUNCTION_INFO_V1(bdr_mask_dsn);
PG_FUNCTION_INFO_V1(bdr_object_name);
PG_FUNCTION_INFO_V1(bdr_internal_peer_call);
PG_FUNCTION_INFO_V1(bdr_internal_group_rows);
PG_FUNCTION_INFO_V1(bdr_boundary_test);

/* A text argument, NULL for SQL NULL. */
static char *
TextArgument(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(number));
}

static char *
NameArgument(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? NULL : pstrdup(NameStr(*PG_GETARG_NAME(number)));
}

/* A boolean argument; NULL is refused, as it could mean either. */
static bool
FlagArgument(FunctionCallInfo fcinfo, int number, const char *name)
{
	if (PG_ARGISNULL(number))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", name)));
	return PG_GETARG_BOOL(number);
}

/* A text result of the engine, from malloc. */
static Datum
EngineText(FunctionCallInfo fcinfo, char *text)
{
	Datum		result;

	if (text == NULL)
		PG_RETURN_NULL();
	result = CStringGetTextDatum(text);
	bdr_host_free(text);
	return result;
}

/* Rows of the engine as the rows of the function; all columns are text. */
static Datum
EngineRows(FunctionCallInfo fcinfo, BdrSqlResult *rows)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	PG_TRY();
	{
		int			columns;
		Datum	   *values;
		bool	   *nulls;

		InitMaterializedSRF(fcinfo, 0);
		columns = rsinfo->setDesc->natts;
		values = palloc0(sizeof(Datum) * columns);
		nulls = palloc0(sizeof(bool) * columns);
		for (int row = 0; row < bdr_host_sql_rows(rows); row++)
		{
			for (int column = 0; column < columns; column++)
			{
				const char *value = bdr_host_sql_value(rows, row, column);

				nulls[column] = value == NULL;
				values[column] = value ? CStringGetTextDatum(value) : (Datum) 0;
			}
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	PG_CATCH();
	{
		bdr_host_sql_free(rows);
		PG_RE_THROW();
	}
	PG_END_TRY();
	bdr_host_sql_free(rows);
	return (Datum) 0;
}

Datum
bdr_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(BDR_VERSION));
}

Datum
bdr_version_num(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(BDR_VERSION_NUM);
}

Datum
bdr_edition(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text("SE"));
}

Datum
bdr_create_node(PG_FUNCTION_ARGS)
{
	bdr_require_preload();
	ENGINE_CALL(bdr_engine_create_node(TextArgument(fcinfo, 0), TextArgument(fcinfo, 1), TextArgument(fcinfo, 2)));
	bdr_request_manager_at_commit();
	PG_RETURN_VOID();
}

Datum
bdr_create_node_group(PG_FUNCTION_ARGS)
{
	bdr_require_preload();
	ENGINE_CALL(bdr_engine_create_node_group(TextArgument(fcinfo, 0), TextArgument(fcinfo, 1),
											 FlagArgument(fcinfo, 2, "join_node_group"), TextArgument(fcinfo, 3)));
	bdr_request_manager_at_commit();
	PG_RETURN_VOID();
}

Datum
bdr_join_node_group(PG_FUNCTION_ARGS)
{
	bdr_require_preload();
	ENGINE_CALL(bdr_engine_join_node_group(TextArgument(fcinfo, 0), TextArgument(fcinfo, 1),
										   FlagArgument(fcinfo, 2, "pause_in_standby"),
										   FlagArgument(fcinfo, 3, "wait_for_completion"), TextArgument(fcinfo, 4)));
	PG_RETURN_VOID();
}

Datum
bdr_wait_for_join_completion(PG_FUNCTION_ARGS)
{
	bdr_require_preload();
	ENGINE_CALL(bdr_engine_wait_for_join_completion(FlagArgument(fcinfo, 0, "verbose_progress")));
	PG_RETURN_VOID();
}

Datum
bdr_part_node(PG_FUNCTION_ARGS)
{
	bdr_require_preload();
	ENGINE_CALL(bdr_engine_part_node(TextArgument(fcinfo, 0), FlagArgument(fcinfo, 1, "wait_for_completion"),
									 FlagArgument(fcinfo, 2, "force")));
	PG_RETURN_VOID();
}

Datum
bdr_drop_node(PG_FUNCTION_ARGS)
{
	bdr_require_preload();
	ENGINE_CALL(bdr_engine_drop_node(TextArgument(fcinfo, 0), FlagArgument(fcinfo, 1, "cascade"),
									 FlagArgument(fcinfo, 2, "force")));
	bdr_request_manager_at_commit();
	PG_RETURN_VOID();
}

Datum
bdr_alter_node_interface(PG_FUNCTION_ARGS)
{
	bdr_require_preload();
	ENGINE_CALL(bdr_engine_alter_node_interface(TextArgument(fcinfo, 0), TextArgument(fcinfo, 1)));
	bdr_request_manager_at_commit();
	PG_RETURN_VOID();
}

Datum
bdr_check_settings(PG_FUNCTION_ARGS)
{
	BdrSqlResult *rows = NULL;

	ENGINE_CALL(bdr_engine_check_settings(TextArgument(fcinfo, 0), &rows));
	return EngineRows(fcinfo, rows);
}

Datum
bdr_wait_slot_confirm_lsn(PG_FUNCTION_ARGS)
{
	XLogRecPtr	target = PG_ARGISNULL(1) ? bdr_wal_end() : PG_GETARG_LSN(1);

	ENGINE_CALL(bdr_engine_wait_slot_confirm(PG_ARGISNULL(0) ? NULL : TextArgument(fcinfo, 0), target));
	PG_RETURN_VOID();
}

Datum
bdr_wait_for_apply_queue(PG_FUNCTION_ARGS)
{
	ENGINE_CALL(bdr_engine_wait_for_apply_queue(TextArgument(fcinfo, 0), !PG_ARGISNULL(1),
												PG_ARGISNULL(1) ? 0 : PG_GETARG_LSN(1)));
	PG_RETURN_VOID();
}

static Datum
AlterSubscription(FunctionCallInfo fcinfo, bool enabled)
{
	int32		changed = 0;

	bdr_require_preload();
	ENGINE_CALL(bdr_engine_alter_subscription(NameArgument(fcinfo, 0), enabled, FlagArgument(fcinfo, 1, "immediate"),
											  &changed));
	bdr_request_manager_at_commit();
	PG_RETURN_INT32(changed);
}

Datum
bdr_alter_subscription_enable(PG_FUNCTION_ARGS)
{
	return AlterSubscription(fcinfo, true);
}

Datum
bdr_alter_subscription_disable(PG_FUNCTION_ARGS)
{
	return AlterSubscription(fcinfo, false);
}

Datum
bdr_local_group_slot_name(PG_FUNCTION_ARGS)
{
	char	   *name = NULL;

	ENGINE_CALL(bdr_engine_local_group_slot_name(&name));
	return EngineText(fcinfo, name);
}

Datum
bdr_promote_node(PG_FUNCTION_ARGS)
{
	bdr_require_preload();
	ENGINE_CALL(bdr_engine_promote_node(FlagArgument(fcinfo, 0, "wait_for_completion")));
	PG_RETURN_VOID();
}

Datum
bdr_request_replay_progress_update(PG_FUNCTION_ARGS)
{
	bdr_require_preload();
	ENGINE_CALL(bdr_engine_request_replay_progress_update());
	PG_RETURN_VOID();
}

Datum
bdr_alter_node_set_conflict_resolver(PG_FUNCTION_ARGS)
{
	ENGINE_CALL(bdr_engine_alter_conflict_resolver(TextArgument(fcinfo, 0), TextArgument(fcinfo, 1),
												   TextArgument(fcinfo, 2)));
	PG_RETURN_VOID();
}

/* Elements of an array of text, ended by NULL; NULL for SQL NULL. */
static const char **
TextArrayArgument(FunctionCallInfo fcinfo, int number, const char *name)
{
	const char **texts;
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	if (PG_ARGISNULL(number))
		return NULL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(number), TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &count);
	texts = palloc0(sizeof(char *) * (count + 1));
	for (int i = 0; i < count; i++)
	{
		if (nulls[i])
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not contain nulls", name)));
		texts[i] = TextDatumGetCString(elements[i]);
	}
	return texts;
}

Datum
bdr_alter_node_set_log_config(PG_FUNCTION_ARGS)
{
	ENGINE_CALL(bdr_engine_alter_conflict_log(TextArgument(fcinfo, 0), FlagArgument(fcinfo, 1, "log_to_file"),
											  FlagArgument(fcinfo, 2, "log_to_table"),
											  TextArrayArgument(fcinfo, 3, "conflict_type"),
											  TextArrayArgument(fcinfo, 4, "conflict_resolution")));
	PG_RETURN_VOID();
}

Datum
bdr_alter_subscription_skip_changes_upto(PG_FUNCTION_ARGS)
{
	bdr_require_preload();
	if (PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("skip_upto_and_including must not be null")));
	ENGINE_CALL(bdr_engine_skip_changes(TextArgument(fcinfo, 0), PG_GETARG_LSN(1)));
	PG_RETURN_VOID();
}

/* Whether those who build an index concurrently wait for the snapshots of this session. The end of the transaction resets it. */
static void
IgnoreForIndexes(bool ignore)
{
	LWLockAcquire(ProcArrayLock, LW_EXCLUSIVE);
	if (ignore)
		MyProc->statusFlags |= PROC_IN_SAFE_IC;
	else
		MyProc->statusFlags &= ~PROC_IN_SAFE_IC;
	ProcGlobal->statusFlags[MyProc->pgxactoff] = MyProc->statusFlags;
	LWLockRelease(ProcArrayLock);
}

/* JSON, which the server checks. */
static Datum
RunOnNodes(FunctionCallInfo fcinfo, const char *const *names, const char *group, const char *query)
{
	char	   *answers = NULL;
	Datum		answer;

	bdr_require_preload();
	/* CREATE INDEX CONCURRENTLY on this node would wait for ever for the session that waits for it; plans of this one are made */
	if (!IsolationUsesXactSnapshot())
		IgnoreForIndexes(true);
	ENGINE_CALL(bdr_engine_run_on_nodes(names, group, query, &answers));
	IgnoreForIndexes(false);
	answer = EngineText(fcinfo, answers);
	return DirectFunctionCall1(json_in, CStringGetDatum(TextDatumGetCString(answer)));
}

Datum
bdr_run_on_all_nodes(PG_FUNCTION_ARGS)
{
	return RunOnNodes(fcinfo, NULL, NULL, TextArgument(fcinfo, 0));
}

Datum
bdr_run_on_nodes(PG_FUNCTION_ARGS)
{
	const char *none[] = {NULL};
	const char **names = TextArrayArgument(fcinfo, 0, "node_names");

	return RunOnNodes(fcinfo, names ? names : none, NULL, TextArgument(fcinfo, 1));
}

Datum
bdr_run_on_group(PG_FUNCTION_ARGS)
{
	char	   *group = TextArgument(fcinfo, 0);

	if (group == NULL)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("node_group_name must not be null")));
	return RunOnNodes(fcinfo, NULL, group, TextArgument(fcinfo, 1));
}

Datum
bdr_replicate_ddl_command(PG_FUNCTION_ARGS)
{
	char	   *command = TextArgument(fcinfo, 0);

	bdr_require_preload();
	if (command == NULL)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("ddl_cmd must not be null")));
	bdr_ddl_run(command, TextArrayArgument(fcinfo, 1, "replication_sets"), TextArgument(fcinfo, 2),
				FlagArgument(fcinfo, 3, "execute_locally"));
	PG_RETURN_BOOL(true);
}

/* bdr.resynchronize_table_from_node(node_name name, relation regclass): by sessions of its own, which this one must not be in the
 * way of. */
Datum
bdr_resynchronize_table_from_node(PG_FUNCTION_ARGS)
{
	Oid			table;

	bdr_require_preload();
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("node_name and relation must not be null")));
	table = PG_GETARG_OID(1);
	if (get_rel_name(table) == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("there is no table with OID %u", table)));
	if (!bdr_owns_table(table, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(table));
	PreventCommandIfReadOnly("bdr.resynchronize_table_from_node()");
	if (IsTransactionBlock())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("bdr.resynchronize_table_from_node cannot run inside a transaction block"),
				 errdetail("It is committed by itself, and would wait for what the transaction has locked."),
				 errhint("Call it by a statement of its own.")));
	ENGINE_CALL(bdr_engine_resynchronize_table(NameStr(*PG_GETARG_NAME(0)), table));
	PG_RETURN_VOID();
}

Datum
bdr_internal_conflict_types(PG_FUNCTION_ARGS)
{
	BdrSqlResult *rows = NULL;

	ENGINE_CALL(bdr_engine_conflict_types(&rows));
	return EngineRows(fcinfo, rows);
}

Datum
bdr_peer_state_name(PG_FUNCTION_ARGS)
{
	char	   *name = NULL;

	ENGINE_CALL(bdr_engine_state_name(PG_GETARG_OID(0), &name));
	return EngineText(fcinfo, name);
}

Datum
bdr_mask_dsn(PG_FUNCTION_ARGS)
{
	char	   *masked = NULL;

	ENGINE_CALL(bdr_engine_mask_dsn(TextArgument(fcinfo, 0), &masked));
	return EngineText(fcinfo, masked);
}

Datum
bdr_object_name(PG_FUNCTION_ARGS)
{
	char	   *name = NULL;

	ENGINE_CALL(bdr_engine_object_name(TextArgument(fcinfo, 0), TextArgument(fcinfo, 1), TextArgument(fcinfo, 2),
									   TextArgument(fcinfo, 3), TextArgument(fcinfo, 4), &name));
	return EngineText(fcinfo, name);
}

Datum
bdr_internal_peer_call(PG_FUNCTION_ARGS)
{
	BdrSqlResult *rows = NULL;
	const char **arguments = NULL;
	int			count = 0;
	int			guc_level;

	bdr_require_preload();
	if (!PG_ARGISNULL(1))
	{
		Datum	   *elements;
		bool	   *nulls;

		deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &count);
		arguments = palloc0(sizeof(char *) * (count + 1));
		for (int i = 0; i < count; i++)
			arguments[i] = nulls[i] ? NULL : TextDatumGetCString(elements[i]);
	}
	/* the catalog's foreign keys cascade, whatever was set for the role that other nodes connect as */
	guc_level = NewGUCNestLevel();
	(void) set_config_option("session_replication_role", "origin", PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
							 false);
	ENGINE_CALL(bdr_engine_peer_call(TextArgument(fcinfo, 0), count, arguments, &rows));
	AtEOXact_GUC(true, guc_level);
	/* most of them change what the manager has to see to */
	bdr_request_manager_at_commit();
	return EngineRows(fcinfo, rows);
}

Datum
bdr_internal_group_rows(PG_FUNCTION_ARGS)
{
	BdrSqlResult *rows = NULL;

	bdr_require_preload();
	ENGINE_CALL(bdr_engine_group_rows(TextArgument(fcinfo, 0), &rows));
	return EngineRows(fcinfo, rows);
}

Datum
bdr_boundary_test(PG_FUNCTION_ARGS)
{
	char	   *what = TextArgument(fcinfo, 0);
	int64		repetitions = PG_GETARG_INT64(1);
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	/* errors that are made and undone: whoever calls this looks at the memory of the backend before and after */
	for (int64 i = 1; i < repetitions; i++)
	{
		BeginInternalSubTransaction(NULL);
		MemoryContextSwitchTo(context);
		if (bdr_engine_boundary_test(what, 1) != 0)
		{
			RollbackAndReleaseCurrentSubTransaction();
			bdr_discard_error();
		}
		else
			ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		CHECK_FOR_INTERRUPTS();
	}
	ENGINE_CALL(bdr_engine_boundary_test(what, 1));
	PG_RETURN_INT32(1);
}
