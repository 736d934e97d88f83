/*
 * bdr.c: the module: its settings, and what it registers when the server preloads it.
 *
 * Loaded without shared_preload_libraries it defines its settings and nothing else: there is no shared memory then, no
 * worker and no hook, and functions that need them say so (bdr_require_preload).
 */
#include "bdr.h"
#include "apply_stats.h"
#include "session_values.h"
#include "ddl.h"
#include "ddl_locks.h"
#include "sequences.h"

#include <limits.h>

#include "access/parallel.h"
#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

int			bdr_min_worker_backoff_delay = 1000;
int			bdr_max_worker_backoff_delay = 60000;
int			bdr_synchronous_commit = SYNCHRONOUS_COMMIT_OFF;
int			bdr_replay_progress_frequency = 60000;
int			bdr_group_slot_keep_size = 10240;
int			bdr_maximum_clock_skew = 0;
int			bdr_maximum_clock_skew_action;
int			bdr_row_stamp_keep_size = 1024;
int			bdr_max_sync_workers = 4;
int			bdr_decoding_work_mem = 262144;
int			bdr_default_streaming_mode = 0;
int			bdr_streaming_work_mem = 16384;
int			bdr_writers_per_subscription = 2;
int			bdr_max_databases = 64;
bool		bdr_accept_connections = true;
bool		bdr_internal_session = false;
bool		bdr_synchronize_failover_slots = true;
char	   *bdr_synchronize_failover_slots_dsn = NULL;
int			bdr_standby_slots_min_confirmed = -1;
bool		bdr_crdt_raw_value = false;
int			bdr_conflict_log_level = LOG;
int			bdr_conflict_history_retention = 30 * 24 * 60;
int			bdr_conflict_history_max_size = 1024;
static char *bdr_standby_slot_names = NULL;
static char *bdr_debug_join_pause_at = NULL;

void		_PG_init(void);

/* What to do about a change that is dated ahead of this server's clock. */
enum
{
	CLOCK_WARN, CLOCK_WAIT
};

static const struct config_enum_entry clock_actions[] = {
	{"wait", CLOCK_WAIT, false},
	{"warn", CLOCK_WARN, false},
	{NULL, 0, false}
};

enum { BDR_STREAMING_AUTO, BDR_STREAMING_WRITER, BDR_STREAMING_OFF };
static const struct config_enum_entry streaming_modes[] = {
	{"auto", BDR_STREAMING_AUTO, false},
	{"writer", BDR_STREAMING_WRITER, false},
	{"off", BDR_STREAMING_OFF, false},
	{NULL, 0, false}
};
static const struct config_enum_entry sequence_kinds[] = {
	{"local", BDR_DEFAULT_LOCAL, false},
	{"snowflakeid", BDR_DEFAULT_SNOWFLAKEID, false},
	{"timeshard", BDR_DEFAULT_TIMESHARD, false},
	{"galloc", BDR_DEFAULT_GALLOC, false},
	{"distributed", BDR_DEFAULT_DISTRIBUTED, false},
	{NULL, 0, false}
};

/* As for synchronous_commit, whose own table the server keeps to itself. */
static const struct config_enum_entry synchronous_commit_values[] = {
	{"local", SYNCHRONOUS_COMMIT_LOCAL_FLUSH, false},
	{"remote_write", SYNCHRONOUS_COMMIT_REMOTE_WRITE, false},
	{"remote_apply", SYNCHRONOUS_COMMIT_REMOTE_APPLY, false},
	{"on", SYNCHRONOUS_COMMIT_ON, false},
	{"off", SYNCHRONOUS_COMMIT_OFF, false},
	{"true", SYNCHRONOUS_COMMIT_ON, true},
	{"false", SYNCHRONOUS_COMMIT_OFF, true},
	{"yes", SYNCHRONOUS_COMMIT_ON, true},
	{"no", SYNCHRONOUS_COMMIT_OFF, true},
	{"1", SYNCHRONOUS_COMMIT_ON, true},
	{"0", SYNCHRONOUS_COMMIT_OFF, true},
	{NULL, 0, false}
};

/* None that would end the transaction. */
static const struct config_enum_entry conflict_log_levels[] = {
	{"debug5", DEBUG5, false},
	{"debug4", DEBUG4, false},
	{"debug3", DEBUG3, false},
	{"debug2", DEBUG2, false},
	{"debug1", DEBUG1, false},
	{"debug", DEBUG2, true},
	{"log", LOG, false},
	{"info", INFO, true},
	{"notice", NOTICE, false},
	{"warning", WARNING, false},
	{NULL, 0, false}
};

/* Same limits as logical_decoding_work_mem; -1 leaves that one alone. */
static bool
CheckDecodingWorkMem(int *value, void **extra, GucSource source)
{
	if (*value != -1 && *value < 64)
	{
		GUC_check_errdetail("The smallest amount is 64 kB; -1 leaves it to the origin's logical_decoding_work_mem.");
		return false;
	}
	return true;
}

bool
bdr_may_administer(void)
{
	Oid			role;

	if (!IsTransactionState())
		return false;
	if (superuser())
		return true;
	role = get_role_oid(BDR_SUPERUSER_ROLE, true);
	return OidIsValid(role) && has_privs_of_role(GetUserId(), role);
}

/*
 * bdr.internal_session lifts the refusal of writes on a joining node, so only those may turn it on who could break the
 * node anyway. A source below a client's is C code of ours.
 */
static bool
CheckInternalSession(bool *value, void **extra, GucSource source)
{
	if (!*value || source < PGC_S_GLOBAL || source == PGC_S_OVERRIDE || InitializingParallelWorker)
		return true;
	if (bdr_may_administer())
		return true;
	GUC_check_errcode(ERRCODE_INSUFFICIENT_PRIVILEGE);
	GUC_check_errmsg("permission denied to set parameter \"%s\"", "bdr.internal_session");
	GUC_check_errdetail("Only superusers and members of %s may set it.", BDR_SUPERUSER_ROLE);
	return false;
}

static void
DefineSettings(void)
{
	DefineCustomEnumVariable("bdr.synchronous_commit",
							 "Sets synchronous_commit of the workers that apply other nodes' transactions.",
							 "With off, the default, applying does not wait for the disk: a transaction is confirmed to its "
							 "origin only once it is on disk here, and after a crash the origin sends again what was lost.",
							 &bdr_synchronous_commit,
							 SYNCHRONOUS_COMMIT_OFF,
							 synchronous_commit_values,
							 PGC_SUSET,
							 0,
							 NULL, bdr_assign_synchronous_commit, NULL);
	DefineCustomIntVariable("bdr.min_worker_backoff_delay",
							"Sets how long a worker that failed waits at first before it is started again.",
							"The delay doubles with each further failure, up to bdr.max_worker_backoff_delay.",
							&bdr_min_worker_backoff_delay,
							1000, 0, INT_MAX,
							PGC_SUSET,
							GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("bdr.max_worker_backoff_delay",
							"Sets the longest delay between two starts of a worker that keeps failing.",
							NULL,
							&bdr_max_worker_backoff_delay,
							60000, 0, INT_MAX,
							PGC_SUSET,
							GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomBoolVariable("bdr.accept_connections",
							 "Lets other nodes connect and receive changes from this one.",
							 "When off, new replication connections of other nodes are refused; existing ones go on.",
							 &bdr_accept_connections,
							 true,
							 PGC_SUSET,
							 0,
							 NULL, NULL, NULL);
	DefineCustomEnumVariable("bdr.default_streaming_mode",
							 "Sets whether this node applies large transactions while they are still in progress on their origin.",
							 "auto and writer: yes, by processes of their own (see bdr.writers_per_subscription). off: when they "
							 "are committed.",
							 &bdr_default_streaming_mode,
							 BDR_STREAMING_AUTO,
							 streaming_modes,
							 PGC_SIGHUP,
							 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("bdr.streaming_work_mem",
							"Sets how large a transaction in progress has to be to be streamed.",
							"Memory that it takes for decoding on its origin. It takes the place of bdr.decoding_work_mem where "
							"transactions are streamed.",
							&bdr_streaming_work_mem,
							16384, 64, MAX_KILOBYTES,
							PGC_SIGHUP,
							GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("bdr.writers_per_subscription",
							"Sets how many transactions of one origin are applied at the same time.",
							"In progress, or small ones that wait, which are committed in the order of the origin. Each writer "
							"takes a worker process (max_worker_processes). Further ones in progress are applied when they are "
							"committed. Small ones are shared only where it is 3 or more.",
							&bdr_writers_per_subscription,
							2, 1, 64,
							PGC_SIGHUP,
							0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("bdr.decoding_work_mem",
							"Sets the memory that this node asks each origin to use for decoding its changes.",
							"It takes the place of logical_decoding_work_mem on the connections that this node opens to its "
							"peers: larger transactions are spilled to disk on the origin. -1 leaves it to the origin's own "
							"setting.",
							&bdr_decoding_work_mem,
							262144, -1, MAX_KILOBYTES,
							PGC_SUSET,
							GUC_UNIT_KB,
							CheckDecodingWorkMem, NULL, NULL);
	DefineCustomIntVariable("bdr.replay_progress_frequency",
							"Sets how often this node tells the others how far it has applied their changes.",
							"In groups of three and more nodes; by what they are told they know how much WAL the group slot has to "
							"keep.",
							&bdr_replay_progress_frequency,
							60000, 100, INT_MAX,
							PGC_SIGHUP,
							GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("bdr.maximum_clock_skew",
							"Sets how far the commit time of another node's change may be ahead of this server's clock.",
							"-1: no limit. With 0, the default, nothing that is written here can be dated before what it overwrites, "
							"so that all nodes agree on what came last.",
							&bdr_maximum_clock_skew,
							0, -1, INT_MAX,
							PGC_SIGHUP,
							GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomEnumVariable("bdr.maximum_clock_skew_action",
							 "Sets what is done about a change that is dated too far ahead.",
							 "wait: it is applied once the clock of this server has come so far. warn: the log tells of it.",
							 &bdr_maximum_clock_skew_action,
							 CLOCK_WAIT, clock_actions,
							 PGC_SIGHUP,
							 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("bdr.group_slot_keep_size",
							"Sets how much WAL the group slot may keep for peers that are behind.",
							"A peer that needs more can't be completed by this node when another node dies. -1 means no limit.",
							&bdr_group_slot_keep_size,
							10240, -1, MAX_KILOBYTES,
							PGC_SIGHUP,
							GUC_UNIT_MB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("bdr.row_stamp_keep_size",
							"Sets how large bdr.row_stamp may become for peers that are behind.",
							"It tells of deleted rows until every peer has passed the delete. A peer that is further behind may bring "
							"rows back that were deleted meanwhile, and has to be parted and joined again. -1 means no limit.",
							&bdr_row_stamp_keep_size,
							1024, -1, MAX_KILOBYTES,
							PGC_SIGHUP,
							GUC_UNIT_MB,
							NULL, NULL, NULL);
	DefineCustomEnumVariable("bdr.conflict_log_level",
							 "Sets the level of messages about conflicts in the server's log.",
							 "Which conflicts are logged is set with bdr.alter_node_set_log_config().",
							 &bdr_conflict_log_level,
							 LOG,
							 conflict_log_levels,
							 PGC_SUSET,
							 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("bdr.conflict_history_retention",
							"Sets how long conflicts are kept in bdr.conflict_history.",
							"Partitions, one for each day, are dropped when all of their time is past it. -1 keeps them for ever.",
							&bdr_conflict_history_retention,
							30 * 24 * 60, -1, INT_MAX,
							PGC_SIGHUP,
							GUC_UNIT_MIN,
							NULL, NULL, NULL);
	DefineCustomIntVariable("bdr.conflict_history_max_size",
							"Sets how large bdr.conflict_history may grow.",
							"Conflicts for which there is no room are only counted. 0: none is stored. -1: no limit.",
							&bdr_conflict_history_max_size,
							1024, -1, INT_MAX,
							PGC_SIGHUP,
							GUC_UNIT_MB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("bdr.max_sync_workers",
							"Sets how many tables, or pieces of large ones, a join copies at the same time.",
							"Each takes a connection to the join target and one to this node.",
							&bdr_max_sync_workers,
							4, 1, 64,
							PGC_SUSET,
							0,
							NULL, NULL, NULL);
	DefineCustomBoolVariable("bdr.internal_session",
							 "Marks a session of bdr itself, which may write while its node is still joining.",
							 NULL,
							 &bdr_internal_session,
							 false,
							 PGC_USERSET,
							 GUC_NOT_IN_SAMPLE | GUC_NO_SHOW_ALL | GUC_DISALLOW_IN_FILE,
							 CheckInternalSession, NULL, NULL);
	DefineCustomEnumVariable("bdr.default_sequence_kind",
							 "Sets the kind of sequences that are created in a node's database.",
							 "By CREATE SEQUENCE, serial types and identity columns. distributed: snowflakeid for bigint, galloc "
							 "for integer and smallint.",
							 &bdr_default_sequence_kind,
							 BDR_DEFAULT_DISTRIBUTED, sequence_kinds,
							 PGC_USERSET,
							 0,
							 NULL, NULL, NULL);
	DefineCustomBoolVariable("bdr.crdt_raw_value",
							 "Shows the whole state of conflict-free values instead of the number they stand for.",
							 "It changes how columns of such types are written, and nothing else.",
							 &bdr_crdt_raw_value,
							 false,
							 PGC_USERSET,
							 0,
							 NULL, NULL, NULL);
	DefineCustomBoolVariable("bdr.synchronize_failover_slots",
							 "On a standby, keeps copies of the slots from which the primary's peers receive.",
							 "A standby that is promoted needs them to go on as the node.",
							 &bdr_synchronize_failover_slots,
							 true,
							 PGC_SIGHUP,
							 0,
							 NULL, NULL, NULL);
	DefineCustomStringVariable("bdr.synchronize_failover_slots_dsn",
							   "Sets how a standby connects to the server whose slots it copies.",
							   "Empty: as primary_conninfo says, to database postgres.",
							   &bdr_synchronize_failover_slots_dsn,
							   "",
							   PGC_SIGHUP,
							   GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomStringVariable("bdr.standby_slot_names",
							   "Lists physical replication slots of standbys that must have a transaction before peers get it.",
							   "Names of slots of this server, separated by commas. Nor is a peer's transaction confirmed to it "
							   "before the standbys have it.",
							   &bdr_standby_slot_names,
							   "",
							   PGC_SIGHUP,
							   GUC_LIST_INPUT,
							   bdr_check_standby_slot_names, bdr_assign_standby_slot_names, NULL);
	DefineCustomIntVariable("bdr.standby_slots_min_confirmed",
							"Sets how many of bdr.standby_slot_names must have a transaction.",
							"-1: all of them. 0: none, so that nothing is waited for.",
							&bdr_standby_slots_min_confirmed,
							-1, -1, INT_MAX,
							PGC_SIGHUP,
							0,
							NULL, NULL, NULL);
	bdr_conflict_detection_init();
	bdr_apply_stats_define_settings();
	bdr_session_values_init();
	DefineCustomStringVariable("bdr.debug_join_pause_at",
							   "Lets a join wait at a step, for tests.",
							   "The name of a step, before which it waits, or the name with \":done\", when what it does is done but "
							   "not stored yet.",
							   &bdr_debug_join_pause_at,
							   "",
							   PGC_SIGHUP,
							   GUC_NOT_IN_SAMPLE,
							   NULL, NULL, NULL);
	bdr_ddl_define_settings();
	bdr_locks_define_settings();
	if (process_shared_preload_libraries_in_progress)
	{
		DefineCustomIntVariable("bdr.max_databases",
								"Sets how many databases of this server can be nodes.",
								"Each takes a little shared memory; the workers they need count against "
								"max_worker_processes.",
								&bdr_max_databases,
								64, 1, 10000,
								PGC_POSTMASTER,
								0,
								NULL, NULL, NULL);
		MarkGUCPrefixReserved("bdr");
	}
}

void
_PG_init(void)
{
	DefineSettings();
	if (!process_shared_preload_libraries_in_progress)
		return;
	bdr_workers_init();
	bdr_locks_init();
	bdr_failover_slots_init();
	/* pg_upgrade's server runs no worker and must be able to write everywhere */
	if (!IsBinaryUpgrade)
	{
		/* first: the hooks that judge statements then come before it */
		bdr_sequence_plans_init();
		bdr_hooks_init();
		bdr_dropped_tables_init();
	}
}
