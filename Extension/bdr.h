/*
 * bdr.h: what the C files of the shim share. C knows PostgreSQL and decides nothing: decisions are made in Swift, which
 * is called through bdr_engine.h and calls back through bdr_host.h.
 */
#ifndef BDR_H
#define BDR_H

#include "postgres.h"

#include "access/attnum.h"
#include "access/xlogdefs.h"
#include "nodes/nodes.h"
#include "nodes/pg_list.h"
#include "storage/lwlock.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "bdr_host.h"
#include "bdr_engine.h"

/* 18 has another spelling of it */
#ifndef pg_attribute_noreturn
#define pg_attribute_noreturn() __attribute__((noreturn))
#endif

#define BDR_VERSION "1.0.0"
#define BDR_VERSION_NUM 10000
#define BDR_EXTENSION "bdr"
#define BDR_SCHEMA "bdr"
#define BDR_PLUGIN "bdr"
#define BDR_SUPERUSER_ROLE "bdr_superuser"

/*
 * The error boundary. A host function called from Swift has the form
 *
 *	int32_t host_function(...)
 *	{
 *		HOST_BEGIN();
 *		... server calls ...
 *		HOST_END();
 *		return BDR_OK;
 *	}
 *
 * A `return` inside the block would leave PG_exception_stack dangling: set a variable (volatile if it is assigned
 * inside the block and read after it) and return after HOST_END.
 */
#define HOST_BEGIN() \
	do { \
		MemoryContext host_caller_context = CurrentMemoryContext; \
		volatile bool host_failed = false; \
		if (bdr_host_error_pending()) \
			return BDR_HOST_ERROR; \
		PG_TRY(); \
		{

#define HOST_END() \
		} \
		PG_CATCH(); \
		{ \
			bdr_stash_error(host_caller_context); \
			host_failed = true; \
		} \
		PG_END_TRY(); \
		if (host_failed) \
			return BDR_HOST_ERROR; \
	} while (0)

/* host_error.c */
extern void bdr_stash_error(MemoryContext caller_context);
extern void bdr_rethrow(void) pg_attribute_noreturn();
extern void bdr_discard_error(void);

/* Calls a Swift entry point and raises the error it left pending, if any. */
#define ENGINE_CALL(call) \
	do { \
		if ((call) != 0) \
			bdr_rethrow(); \
	} while (0)

/* bdr.c: whether the current user is a superuser, or a member of bdr_superuser; false outside of a transaction */
extern bool bdr_may_administer(void);
/* settings */
extern int	bdr_min_worker_backoff_delay;
extern int	bdr_max_worker_backoff_delay;
extern int	bdr_synchronous_commit;
extern int	bdr_decoding_work_mem;
extern int	bdr_max_sync_workers;
extern int	bdr_replay_progress_frequency;
extern int	bdr_group_slot_keep_size;
extern int	bdr_maximum_clock_skew;
extern int	bdr_maximum_clock_skew_action;
extern int	bdr_row_stamp_keep_size;
extern int	bdr_max_databases;
extern int	bdr_conflict_log_level;
extern int	bdr_conflict_history_retention;
extern int	bdr_conflict_history_max_size;
extern bool bdr_accept_connections;
extern bool bdr_internal_session;
extern bool bdr_synchronize_failover_slots;
extern char *bdr_synchronize_failover_slots_dsn;
extern int	bdr_standby_slots_min_confirmed;
extern bool bdr_crdt_raw_value;

/* host_sql.c: lets other host functions hand out text results */
extern BdrSqlResult *bdr_make_result(int rows, int columns);
extern void bdr_result_set(BdrSqlResult *result, int row, int column, const char *value);
extern void bdr_result_set_processed(BdrSqlResult *result, uint64 processed);

/* workers.c */
extern void bdr_workers_init(void);
extern bool bdr_preloaded(void);
/* raises object_not_in_prerequisite_state unless the server preloaded the module */
extern void bdr_require_preload(void);
/* this process is a manager, apply or join worker */
extern bool bdr_is_worker(void);
extern uint32 bdr_worker_peer(void);
extern void bdr_assign_synchronous_commit(int value, void *extra);
extern void bdr_session_hygiene(void);
extern bool bdr_shutdown_requested(void);
/* What sessions must know of this database's node. known: its manager has told, or there is no node. If not, the rest is
 * to be read from the catalog. */
typedef struct BdrGate
{
	uint32		generation;
	bool		known;
	bool		refuse_writes;
	bool		check_identity;
	uint32		node_id;
	int			node_state;
} BdrGate;
extern bool bdr_gate_read(BdrGate *gate);
/* changes whenever bdr_gate_read may answer otherwise; 0 without shared memory */
extern uint32 bdr_gate_generation(void);
extern void bdr_manager_wakeup(Oid database);
extern void bdr_supervisor_request(Oid database);
/* bdr_supervisor_request for this database when, and if, the transaction commits */
extern void bdr_request_manager_at_commit(void);
/* DROP DATABASE and others that need it without sessions: keep workers out, as often as it is called (false: there is
 * nothing of ours in it); let them in again, or forget the database; stop those that are there */
extern bool bdr_close_database(Oid database);
extern void bdr_reopen_database(Oid database);
extern void bdr_forget_database(Oid database);
extern bool bdr_database_is_closing(Oid database);
extern int	bdr_terminate_workers(Oid database);
extern List *bdr_database_origins(Oid database);
/* reading the extension's own small tables without SPI: open (false: not there), next, column, close */
typedef struct BdrCatalogScan
{
	struct RelationData *relation;
	struct SysScanDescData *scan;
	struct HeapTupleData *tuple;
} BdrCatalogScan;
extern bool bdr_catalog_open(BdrCatalogScan *scan, const char *table);
extern bool bdr_catalog_next(BdrCatalogScan *scan);
extern bool bdr_catalog_column(BdrCatalogScan *scan, const char *column, Oid type, Datum *value);
extern void bdr_catalog_close(BdrCatalogScan *scan);

/* host_libpq.c: the libpq connection behind a handle, NULL for NULL */
struct pg_conn;
extern struct pg_conn *bdr_conn_libpq(BdrConn *conn);
extern bool bdr_conn_any_kept(void);

/* host_xact.c */
extern XLogRecPtr bdr_wal_end(void);

/* host_executor.c (see host_executor.h): closes what the applying transaction opened; commit = false after an error */
extern void bdr_executor_end_transaction(bool commit);
/* closes what is open, for a command that can't have it so; what was written is visible */
extern void bdr_executor_close(void);
/* getTypeBinaryInputInfo() that takes in whatever is sent */
extern void bdr_binary_input(Oid type, Oid *function, Oid *parameter);

/* What host_conflict.c shows of a relation, the row that was located last and the one that was written last. */
struct TupleTableSlot;
typedef struct BdrRelView
{
	Oid			oid;
	Oid			owner;
	const char *namespace_name;
	const char *name;
	bool		whole_row_key;
	int			ncolumns;
	const BdrColumnDesc *columns;
	struct TupleTableSlot *found;	/* NULL when there is none; with the columns of the partition where it lies */
	struct TupleTableSlot *written;
} BdrRelView;
extern bool bdr_rel_view(BdrRel *rel, BdrRelView *view);
/* whether a column of the peer's, counted from 0, is merged here, or dates what is */
extern bool bdr_rel_merges_column(BdrRel *rel, int column);
/* takes a raw row apart; values and nulls have room for the columns of the peer */
extern void bdr_raw_row_values(BdrRel *rel, const BdrRow *row, Datum *values, bool *nulls);

/* What host_stream_triggers.c needs of it. Rows are in the columns of the table that changes name; values in the current
 * memory context. */
struct RelationData;
typedef enum BdrRowPart
{
	BDR_ROW_AS_SENT,
	BDR_ROW_KEY,				/* the key columns of the peer */
	BDR_ROW_WITH_DEFAULTS		/* as sent, and defaults for columns that the peer does not have */
} BdrRowPart;
extern struct RelationData *bdr_rel_table(BdrRel *rel);
extern void bdr_rel_row_values(BdrRel *rel, const BdrRow *row, BdrRowPart part, Datum *values, bool *nulls, bool *provided);
/* whether old rows of the peer have all columns; whether all columns of the peer's that are here are provided */
extern bool bdr_rel_old_is_whole(BdrRel *rel);
extern bool bdr_rel_is_whole(BdrRel *rel, const bool *provided);
/* locks the located row; false when it is not the current version any more */
extern bool bdr_rel_hold_found(BdrRel *rel, struct HeapTupleData **tuple, TransactionId *xmin);
extern bool bdr_rel_still_found(BdrRel *rel);
/* before a user's function runs, which may leave deferred triggers */
extern void bdr_rel_runs_function(BdrRel *rel);
/* the column of the peer's in a kept row; false when it is not here or not provided */
extern bool bdr_rel_kept_value(BdrRel *rel, const BdrKept *kept, int column, Oid *type, int16 *length, Datum *value, bool *null);

/* host_stream_triggers.c: BDR_STREAM_TRANSFORM, BDR_STREAM_CONFLICT, both or none */
extern int	bdr_stream_triggers_of(struct RelationData *relation);
extern void bdr_stream_triggers_init(void);
extern void bdr_kept_values(const BdrKept *kept, int natts, Datum *values, bool *nulls, bool *provided);

/* conflict_stats.c */
extern Size bdr_conflict_stats_shmem_size(void);
extern void bdr_conflict_stats_shmem_startup(void);
extern void bdr_conflict_stats_forget(Oid database);
extern bool bdr_conflict_history_has_room(void);
extern void bdr_conflict_history_grew(uint64 bytes);

/* workers.c: what the apply worker of a peer has counted; the last is how often it has connected. All 0 when there is none. */
extern void bdr_worker_counters(uint32 peer, uint64 counters[BDR_COUNT_KINDS + 1]);

/* hooks.c */
extern void bdr_hooks_init(void);
/* While on, what this session does is bdr's own work: the refusal of writes on a joining node does not hold. Gives back what
 * it was; switched off by itself at the end of the transaction, and when the subtransaction aborts that switched it on. */
extern bool bdr_gate_exempt(bool on);
/* The id of this database's node while it is in a group, else 0. */
extern uint32 bdr_local_node_id(void);
/* whether this database is a node that takes part in its group in full */
extern bool bdr_node_is_active(void);
/* whether what is in a schema concerns other nodes: not the server's own, ours, and temporary ones */
extern bool bdr_is_user_namespace(Oid namespace);

/* host_slot.c: asks those who hold a bdr slot of a database to let go; returns how many hold one */
extern int	bdr_terminate_slot_holders(Oid database);

/* standby_slots.c: standbys that must have what peers get */
extern bool bdr_check_standby_slot_names(char **value, void **extra, GucSource source);
extern void bdr_assign_standby_slot_names(const char *value, void *extra);
/* up to where enough of them have this server's WAL; the largest position when none is asked for */
extern XLogRecPtr bdr_standby_position(void);
/* whether the wait for a position may end; warns of slots that are not there. waited: ms so far */
extern bool bdr_standby_has(XLogRecPtr lsn, long waited);

/* dropped_tables.c: remembers for a day which tables were dropped */
extern void bdr_dropped_tables_init(void);

/* sent_positions.c: what was sent on the slot that this process holds */
extern void bdr_wake_wal_writer(void);
extern int	bdr_worker_entry(void);
extern void bdr_progress_committed(void);
extern void bdr_writer_signals(void);
extern void bdr_writer_connect(int entry, Oid database);
extern void bdr_set_stream_origin(uint16 origin);
extern PGDLLEXPORT void bdr_writer_main(Datum arg);
struct XLogReaderState;
extern void bdr_send_batch_start(struct XLogReaderState *xlog_reader);
extern void bdr_send_batch_writing(bool is_writing);
extern void bdr_send_batch_flush(void);

extern Size bdr_sent_shmem_size(void);
extern void bdr_sent_shmem_startup(void);
extern void bdr_sent_forget(void);
extern void bdr_sent_commit(XLogRecPtr commit_lsn);

/* failover_slots.c: on a standby, keeps the slots of the primary's peers */
extern void bdr_failover_slots_init(void);

/* host_tuple.c: how the output plugin reads rows; it is also the relation_handle of a BdrChange */
typedef struct BdrRowReader BdrRowReader;
struct TupleDescData;
struct HeapTupleData;
extern BdrRowReader *bdr_row_reader_create(MemoryContext context, const BdrRelationDesc *description,
										   const int16 *attnums);
extern void bdr_row_reader_use(BdrRowReader *reader, struct TupleDescData *tupdesc);
/* output_plugin.c: what a peer is told of a relation */
extern void bdr_describe_relation(struct RelationData *relation, const char *schema, const char *name,
								  BdrRelationDesc *result, int16 **attnums, bool *user_types);
extern void bdr_row_describe(struct HeapTupleData *tuple, BdrTuple *result);

/*
 * crdt.c: conflict-free types, for the merging of rows. A column is merged when its type, or one that its domain is over, has a
 * row in bdr.crdt_handlers. Inside a transaction.
 */
extern bool bdr_is_crdt(Oid type);
/* whether a table has such a column; costs a look into a hash table for each column of a type that is not built in */
extern bool bdr_relation_has_crdt(struct RelationData *relation);
/* the attribute numbers of such columns (as they are, none is below 1), in the current memory context */
extern struct Bitmapset *bdr_crdt_columns(struct RelationData *relation);
/*
 * What such a column becomes when a remote row meets a local one, whichever of them wins. local: what is here; old and new:
 * what the origin's row had before and has now. old is NULL for an INSERT that meets a row; with types of the delta kind,
 * whose change is the difference of the two, it must be known for an UPDATE: the table needs REPLICA IDENTITY FULL. The
 * result is in the current memory context. A domain's constraints are not checked.
 */
extern NullableDatum bdr_crdt_merge(Oid type, NullableDatum local, NullableDatum old, NullableDatum new);

/* column_timestamps.c: conflicts column by column. Columns are known by a hash of their names. */
extern bool bdr_is_column_timestamps(Oid type);
extern uint32 bdr_column_hash(const char *name);
/* both values resolved: */
extern Datum bdr_column_timestamps_merge(Datum local, Datum remote, const uint32 *columns, int n, uint8 *later);
/* a value with commit timestamps, resolved: one that was sent, and one of a row that is here */
extern Datum bdr_column_timestamps_received(Datum value);
extern Datum bdr_column_timestamps_stored(Datum value, TransactionId xmin);

/* conflict_detection.c */
struct RelationData;
extern void bdr_conflict_detection_init(void);
/* attribute number of the version that an UPDATE trigger counts up; 0 when rows have none */
extern AttrNumber bdr_row_version_attribute(struct RelationData *relation);
/* a table that a command is about to create, to which bdr.default_conflict_detection and bdr.default_replica_identity apply
 * once it is there */
typedef struct BdrNewTable
{
	Oid			namespace;		/* InvalidOid: none */
	const char *name;
	bool		is_partition;
	bool		is_like;		/* columns of another table, without its triggers */
	bool		is_filled;		/* by a query */
} BdrNewTable;
extern BdrNewTable bdr_new_table(Node *statement);
extern void bdr_new_table_created(const BdrNewTable *table);

/* host_process.c */
extern void bdr_process_interrupts(void);

#endif
