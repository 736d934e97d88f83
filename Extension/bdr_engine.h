/*
 * bdr_engine.h: the entry points that Swift exports (Sources/Engine, @c functions). A nonzero result means that an error
 * is pending: the caller raises it with bdr_rethrow() (ENGINE_CALL does).
 */
#ifndef BDR_ENGINE_H
#define BDR_ENGINE_H

#include "bdr_host.h"

/* Tests of the error boundary (Boundary/BoundaryTests.swift). */
extern int32_t bdr_engine_boundary_test(const char *what, int64_t repetitions);

/* Output plugin (Encode/). startup reads the options of START_REPLICATION and negotiates; *encoder is an opaque object
 * owned by the decoding session, given back with bdr_engine_output_free. is_init: a slot is being created. */
extern int32_t bdr_engine_output_startup(const BdrOption *options, int32_t noptions, bool is_init, void *output,
										 void **encoder);
extern void bdr_engine_output_free(void *encoder);
/* Whether the peer takes transactions in pieces while they are in progress. */
extern bool bdr_engine_output_streams(void *encoder);
/* A piece of such a transaction; changes are given as in others. Nothing is written if it has none. */
extern int32_t bdr_engine_output_stream_start(void *encoder, uint32_t xid);
extern int32_t bdr_engine_output_subtransaction(void *encoder, uint32_t subxid);
extern int32_t bdr_engine_output_stream_stop(void *encoder);
/* Its end, if anything of it was written. */
extern int32_t bdr_engine_output_stream_abort(void *encoder, uint32_t xid, uint32_t subxid);
extern int32_t bdr_engine_output_stream_commit(void *encoder, uint32_t xid, uint64_t commit_lsn, uint64_t end_lsn,
											   int64_t commit_time);
/* True when changes that were first committed elsewhere (origin != 0) are wanted; read once after startup. */
/* The only origin whose transactions are wanted, 0: those of this node. */
extern uint16_t bdr_engine_output_forward_origin(void *encoder);
/* origin_lsn: of a forwarded transaction, where it ends in its origin's WAL. */
extern int32_t bdr_engine_output_begin(void *encoder, uint32_t xid, uint64_t commit_lsn, int64_t commit_time,
									   uint64_t origin_lsn);
/* relation: a new number > 0; replaces: the number under which this relation was described before, 0 for none. */
extern int32_t bdr_engine_output_relation(void *encoder, int32_t relation, int32_t replaces,
										  const BdrRelationDesc *description);
/* No change will name this number again. */
extern void bdr_engine_output_forget(void *encoder, int32_t relation);
extern int32_t bdr_engine_output_change(void *encoder, const BdrChange *change);
extern int32_t bdr_engine_output_truncate(void *encoder, int32_t nrelations, const int32_t *relations, bool cascade,
										  bool restart_identity);
/* A logical decoding message (pg_logical_emit_message); non-transactional ones are written at once. */
extern int32_t bdr_engine_output_message(void *encoder, bool transactional, uint64_t lsn, const char *prefix,
										 const uint8_t *data, size_t length);
/* *sent: something of this transaction was written. */
extern int32_t bdr_engine_output_commit(void *encoder, uint64_t commit_lsn, uint64_t end_lsn, int64_t commit_time,
										bool *sent);

/* Workers (Workers/, Apply/, Sync/): return 0 when the worker is to end normally. */
extern int32_t bdr_engine_manager_main(void);
/* In a database without the extension: removes slots and origins of a node that was. */
extern int32_t bdr_engine_manager_leftovers(void);
extern int32_t bdr_engine_apply_main(uint32_t peer);
extern int32_t bdr_engine_join_main(void);
extern int32_t bdr_engine_group_main(void);
/* Rows of a table that is copied: a packer collects them into chunks. */
extern int32_t bdr_engine_copy_begin(const BdrRelationDesc *description, void **packer);
extern void bdr_engine_copy_free(void *packer);
extern int32_t bdr_engine_copy_add(void *packer, const BdrTuple *row, bool *full);
extern int32_t bdr_engine_copy_take(void *packer, const uint8_t **data, size_t *length);
/* The other end: begin connects to the join target, table asks for the rows of a table there, next stores them until some time
 * has passed (rows: how many it were), or all are stored (rows: 0). */
extern int32_t bdr_engine_fetch_begin(const char *snapshot);
extern int32_t bdr_engine_fetch_table(const char *table, int64_t first_block, int64_t end_block);
extern int32_t bdr_engine_fetch_next(uint64_t *rows, uint64_t *bytes);
extern int32_t bdr_engine_promote_node(bool wait_for_completion);
extern int32_t bdr_engine_writer_main(uint32_t peer);
extern int32_t bdr_engine_recover_main(uint32_t peer);

/* Records an error of a worker that has ended its transaction (own transaction inside). */
extern int32_t bdr_engine_record_worker_error(int32_t role, uint32_t peer, const char *sqlstate, const char *message,
											  const char *detail, const char *context);

/* SQL functions (Nodes/). Text arguments may be NULL where the SQL function allows NULL. *result: text value or NULL,
 * freed with bdr_host_free. */
extern int32_t bdr_engine_create_node(const char *node_name, const char *local_dsn, const char *node_kind);
extern int32_t bdr_engine_create_node_group(const char *group_name, const char *parent_group, bool join,
											const char *group_type);
extern int32_t bdr_engine_join_node_group(const char *join_target_dsn, const char *group_name, bool pause_in_standby,
										  bool wait_for_completion, const char *synchronize_structure);
extern int32_t bdr_engine_wait_for_join_completion(bool verbose_progress);
extern int32_t bdr_engine_part_node(const char *node_name, bool wait_for_completion, bool force);
extern int32_t bdr_engine_drop_node(const char *node_name, bool cascade, bool force);
extern int32_t bdr_engine_alter_node_interface(const char *node_name, const char *interface_dsn);
/* Rows (name, status, detail, hint); freed with bdr_host_sql_free. */
extern int32_t bdr_engine_check_settings(const char *remote_dsn, BdrSqlResult **result);
/* Internal calls between nodes: a verb and text arguments, text result (see Nodes/PeerCalls.swift). */
extern int32_t bdr_engine_peer_call(const char *verb, int32_t nargs, const char *const *args, BdrSqlResult **result);
extern int32_t bdr_engine_mask_dsn(const char *dsn, char **result);
extern int32_t bdr_engine_object_name(const char *kind, const char *database, const char *group, const char *origin,
									  const char *target, char **result);
extern int32_t bdr_engine_wait_slot_confirm(const char *slot_name, uint64_t target_lsn);
/* Without has_target: up to what was received when the function was called. */
extern int32_t bdr_engine_wait_for_apply_queue(const char *peer_name, bool has_target, uint64_t target_lsn);
extern int32_t bdr_engine_alter_subscription(const char *name, bool enabled, bool immediate, int32_t *changed);
extern int32_t bdr_engine_local_group_slot_name(char **result);
extern int32_t bdr_engine_request_replay_progress_update(void);
extern int32_t bdr_engine_alter_conflict_resolver(const char *node_name, const char *type, const char *resolver);
/* Lists end with NULL; a list that is NULL means all. */
extern int32_t bdr_engine_alter_conflict_log(const char *node_name, bool to_file, bool to_table, const char *const *types,
											 const char *const *resolutions);
extern int32_t bdr_engine_conflict_types(BdrSqlResult **result);
/* Asks all nodes of the group a question (Nodes/GroupViews.swift). */
extern int32_t bdr_engine_group_rows(const char *what, BdrSqlResult **result);
/* names: ended by NULL, NULL for all nodes; group: NULL for any. *result: JSON. */
/* Sync/Resynchronization.swift */
extern int32_t bdr_engine_resynchronize_table(const char *node, uint32_t table);
extern int32_t bdr_engine_run_on_nodes(const char *const *names, const char *group, const char *query, char **result);
/* subscription: NULL for the only one there is. */
extern int32_t bdr_engine_skip_changes(const char *subscription, uint64_t lsn);
/* The content of a logical message for a statement; goes through bdr_host_crdt_result. settings: names and values in turn, ended
 * by NULL; sets: ended by NULL. */
extern int32_t bdr_engine_ddl_encode(const BdrDdl *ddl, void *result);
/* Global locks (Locks/). acquire: as a superuser. end: at the end of a transaction that has called it; never fails.
 * release: of a node, on this one; *released: how many. */
extern int32_t bdr_engine_lock_acquire(BdrLockRequest *request);
extern void bdr_engine_lock_end(bool aborted);
extern int32_t bdr_engine_lock_release(const char *node, int32_t *released);
extern int32_t bdr_engine_lock_main(uint32_t peer);
extern int32_t bdr_engine_state_name(uint32_t state, char **result);

/* Conflict-free values (Types/CRDTFunctions.swift). type: 1 gcounter, 2 gsum, 3 pncounter, 4 pnsum. A state and a numeric (in
 * numeric's binary format) are bytes; bytes that come back go through bdr_host_crdt_result. */
extern int32_t bdr_engine_crdt_counter(uint8_t type, int64_t initial, void *result);
extern int32_t bdr_engine_crdt_sum(uint8_t type, const uint8_t *initial, size_t length, void *result);
extern int32_t bdr_engine_crdt_parse(uint8_t type, const uint8_t *text, size_t length, void *result);
extern int32_t bdr_engine_crdt_check(uint8_t type, const uint8_t *state, size_t length);
/* Text of the whole state, or of the value. */
extern int32_t bdr_engine_crdt_text(const uint8_t *state, size_t length, bool whole, void *result);
extern int32_t bdr_engine_crdt_integer(const uint8_t *state, size_t length, int64_t *value);
extern int32_t bdr_engine_crdt_numeric(const uint8_t *state, size_t length, void *result);
extern int32_t bdr_engine_crdt_compare(const uint8_t *left, size_t left_length, const uint8_t *right, size_t right_length,
									   int32_t *order);
extern int32_t bdr_engine_crdt_hash_key(const uint8_t *state, size_t length, void *result);
extern int32_t bdr_engine_crdt_add_integer(const uint8_t *state, size_t length, int64_t change, uint32_t node, bool subtract,
										   void *result);
extern int32_t bdr_engine_crdt_add_numeric(const uint8_t *state, size_t length, const uint8_t *change, size_t change_length,
										   uint32_t node, bool subtract, void *result);
extern int32_t bdr_engine_crdt_reset(const uint8_t *state, size_t length, void *result);
/* old: NULL when it is not known. */
extern int32_t bdr_engine_crdt_merge(const uint8_t *local, size_t local_length, const uint8_t *old, size_t old_length,
									 const uint8_t *new_state, size_t new_length, void *result);
extern int32_t bdr_engine_crdt_merge_delta(int64_t local, int64_t old, int64_t new_value, int64_t *result);

/* Versions of the columns of a row (Types/ColumnFunctions.swift), as bytes; results as above. */
extern int32_t bdr_engine_columns_check(const uint8_t *state, size_t length);
extern int32_t bdr_engine_columns_create(bool commit, int64_t time, uint32_t node, void *result);
extern int32_t bdr_engine_columns_insert(const uint32_t *columns, const uint16_t *attributes, int32_t n, int64_t time,
										 uint32_t node, void *result);
/* commit: the commit will date the change, and not the time. */
extern int32_t bdr_engine_columns_change(const uint8_t *state, size_t length, const uint32_t *columns,
										 const uint16_t *attributes, int32_t n, bool commit, int64_t time, uint32_t node,
										 void *result);
/* known: false when the commit of the transaction that wrote the row is forgotten. */
extern int32_t bdr_engine_columns_resolve(const uint8_t *state, size_t length, bool known, int64_t time, uint32_t node,
										  void *result);
/* later: by column, 1 if the remote row has the later one, else 0. */
extern int32_t bdr_engine_columns_merge(const uint8_t *local, size_t local_length, const uint8_t *remote,
										size_t remote_length, const uint32_t *columns, int32_t n, uint8_t *later, void *result);
extern int32_t bdr_engine_columns_text(const uint8_t *state, size_t length, bool json, void *result);

/*
 * Global sequences (Types/SequenceFunctions.swift). kind: 's' snowflakeid, 't' timeshard. A state is a value without its node;
 * clock and times are in ms since 1970. These don't fail and may be called under a spinlock.
 */
extern int32_t bdr_engine_sequence_step(char kind, uint64_t last, int64_t clock, uint64_t *next);
extern int64_t bdr_engine_sequence_value(char kind, uint64_t state, int32_t node);
extern uint64_t bdr_engine_sequence_mark(char kind, int64_t value);
extern uint64_t bdr_engine_sequence_milliseconds(char kind, uint64_t state);
extern int64_t bdr_engine_sequence_reservation(char kind, uint64_t milliseconds, int32_t node);
extern void bdr_engine_sequence_parts(char kind, int64_t value, int64_t *time, int32_t *node, int32_t *counter);
extern bool bdr_engine_sequence_smallest(char kind, int64_t milliseconds, int64_t *value);
/* Nodes/SequenceKinds.swift, with a superuser's rights. */
extern int32_t bdr_engine_sequence_set_kind(uint32_t oid, const char *kind, bool has_start, int64_t start, bool *has_used, int64_t *used);
extern int32_t bdr_engine_sequence_made(uint32_t oid, const char *kind, bool replicated);
extern int32_t bdr_engine_sequence_warn(uint32_t table);
extern int32_t bdr_engine_sequence_check_names(void);
extern int32_t bdr_engine_sequence_check(uint32_t oid);
/* Nodes/Galloc.swift: gets a range for a value that the sequence has come to, with a superuser's rights; the worker that does so ahead of time. */
extern int32_t bdr_engine_sequence_obtain(uint32_t oid, int64_t value);
extern int32_t bdr_engine_sequence_main(void);
/* UUIDs of 16 bytes, times in us since 2000. */
extern void bdr_engine_ksuuid_make(int32_t version, int64_t time, uint64_t random, uint8_t *uuid);
extern bool bdr_engine_ksuuid_time(int32_t version, const uint8_t *uuid, int64_t *time);
extern int32_t bdr_engine_ksuuid_compare(int32_t version, const uint8_t *left, const uint8_t *right);

#endif
