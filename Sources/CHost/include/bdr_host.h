/*
 * bdr_host.h: the host interface, all that Swift may ask of the server.
 *
 * No PostgreSQL header is included: only plain data and function declarations, so that Swift never parses a
 * structure of the server. Defined in Extension/host_*.c.
 *
 * Error boundary: a function that returns int32_t returns BDR_OK (0) or a positive outcome of its own when it worked,
 * and BDR_HOST_ERROR (-1) when the server raised an ERROR. The error is then *pending*: stashed by the boundary, and
 * every further host call fails at once with BDR_HOST_ERROR. Swift unwinds its frames by throwing and returns nonzero
 * from its entry point; the C entry point raises the pending error again. Nothing ever jumps over a Swift frame.
 *
 * Threads: none. Every call comes from the process's main thread.
 */
#ifndef BDR_HOST_H
#define BDR_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BDR_OK 0
#define BDR_HOST_ERROR (-1)

/* ---- errors (host_error.c) ------------------------------------------------------------------------------------ */

/* Makes a Swift error the pending one, unless an error is pending already. Strings are copied; detail, hint and
 * context may be NULL. sqlstate has five characters. Never fails and never raises. */
void bdr_host_error_set(const char *sqlstate, const char *message, const char *detail, const char *hint,
						const char *context);
/* Adds a line to the context of the pending error. */
void bdr_host_error_add_context(const char *context);
/* True while an error is pending. */
bool bdr_host_error_pending(void);
/* SQLSTATE (five characters) and message of the pending error, for logs; "" when none is pending. */
const char *bdr_host_error_sqlstate(void);
const char *bdr_host_error_message(void);

enum { BDR_LOG_DEBUG = 0, BDR_LOG_LOG = 1, BDR_LOG_NOTICE = 2, BDR_LOG_WARNING = 3, BDR_LOG_INFO = 4 };

/* ereport below ERROR. sqlstate, detail and hint may be NULL. */
int32_t bdr_host_log(int32_t level, const char *sqlstate, const char *message, const char *detail, const char *hint);
/* CHECK_FOR_INTERRUPTS inside the boundary. */
int32_t bdr_host_check_interrupts(void);
/* Raises an ERROR of the server on purpose (tests of the boundary). */
int32_t bdr_host_raise_for_test(const char *sqlstate, const char *message, const char *detail, const char *hint);

/* ---- SQL inside this backend (host_sql.c) --------------------------------------------------------------------- */

typedef struct BdrSqlResult BdrSqlResult;

/* Runs one statement through SPI; must be inside a transaction. Arguments are passed as text ($1::text …, NULL =
 * SQL NULL). On BDR_OK *result owns copies of all values as text; free it with bdr_host_sql_free. */
int32_t bdr_host_sql(const char *sql, int32_t nargs, const char *const *args, BdrSqlResult **result);
int32_t bdr_host_sql_rows(const BdrSqlResult *result);
int32_t bdr_host_sql_columns(const BdrSqlResult *result);
/* The value as text, or NULL for SQL NULL and for places outside the result. Owned by the result. */
const char *bdr_host_sql_value(const BdrSqlResult *result, int32_t row, int32_t column);
uint64_t bdr_host_sql_processed(const BdrSqlResult *result);
void bdr_host_sql_free(BdrSqlResult *result);

/* ---- transactions and positions (host_xact.c) ----------------------------------------------------------------- */

int32_t bdr_host_xact_begin(void);
int32_t bdr_host_xact_commit(void);
int32_t bdr_host_xact_abort(void);
bool bdr_host_in_xact(void);

int64_t bdr_host_now(void);			  /* µs since 2000-01-01 UTC */
uint64_t bdr_host_safe_lsn(void);	  /* local WAL flushed up to here, and on the standbys of bdr.standby_slot_names */
int32_t bdr_host_wal_end(uint64_t *lsn); /* end of the local WAL, made durable: what a peer is able to confirm */

/* A position of the local WAL, flushed, such that everything committed before it shows in the progress of the origins. */
int32_t bdr_host_wal_mark(uint64_t *lsn);

/* A time (µs since 2000) such that every transaction of this server which is dated at or before it has written its commit
 * record. */
int32_t bdr_host_clock_mark(int64_t *time);

/* Replication origin of this session (apply worker). */
int32_t bdr_host_origin_setup(const char *origin_name, uint64_t *remote_lsn);

/* Removes an origin if it exists, after the session that uses it has let go of it. Inside a transaction. */
int32_t bdr_host_origin_drop(const char *origin_name);

/* Apply transactions. begin: starts a local transaction for a remote one. commit: commits it with the remote end LSN and
 * commit time in its commit record, which there is even when nothing was changed; *local_end is the end of that record. */
int32_t bdr_host_apply_begin(uint64_t remote_lsn, int64_t commit_time);
int32_t bdr_host_apply_abort(void);
/* Commit of the remote transaction and the node that made it: they date what it changed (type bdr.column_timestamps). */
int32_t bdr_host_columns_version(int64_t time, uint32_t node);
int32_t bdr_host_apply_commit(uint64_t remote_end_lsn, int64_t commit_time, uint64_t *local_end);

/* ---- libpq connections (host_libpq.c) ------------------------------------------------------------------------- */

typedef struct BdrConn BdrConn;

enum { BDR_REMOTE_ERROR = 1 };

/* Opens a connection, waiting on the latch so that it can be cancelled. dsn may be key/value or URI; options are further
 * keyword/value pairs that win over it. On failure returns BDR_REMOTE_ERROR and *conn still has to be closed: its
 * error text is bdr_host_conn_message. timeout in ms, 0 = none. */
int32_t bdr_host_conn_open(const char *dsn, int32_t noptions, const char *const *keywords, const char *const *values,
						   int32_t timeout_ms, BdrConn **conn);
void bdr_host_conn_close(BdrConn *conn);
/* Sends a last statement and closes without waiting long for its answer. Never fails. */
void bdr_host_conn_abandon(BdrConn *conn, const char *sql);
/* Keeps an idle connection for that long, also while the session waits for its client; then it ends. False, and closed by nobody, if
 * it can't be kept. Whoever uses or closes it takes it back first: false when it has ended. Never fail. */
bool bdr_host_conn_keep(BdrConn *conn, int32_t milliseconds);
bool bdr_host_conn_resume(BdrConn *conn);
/* Last error of the connection: message without trailing newline, SQLSTATE ("08006" for a lost connection), detail and hint ("" when none). */
const char *bdr_host_conn_message(const BdrConn *conn);
const char *bdr_host_conn_sqlstate(const BdrConn *conn);
const char *bdr_host_conn_detail(const BdrConn *conn);
const char *bdr_host_conn_hint(const BdrConn *conn);
/* Runs one statement (text arguments; nargs 0 uses the simple protocol, needed for replication commands) and waits on
 * the latch. BDR_OK or BDR_REMOTE_ERROR. */
int32_t bdr_host_conn_query(BdrConn *conn, const char *sql, int32_t nargs, const char *const *args,
							BdrSqlResult **result);
/* The same for statements of users, by the simple protocol. Row 0 of the result is what the last command says of itself, rows 1 and
 * 2 are the names of its columns (processed: how many) and what they are in JSON ('b', 'n', 'j', 't'); its rows follow. */
int32_t bdr_host_conn_run(BdrConn *conn, const char *sql, BdrSqlResult **result);
/* Statements fail from now on (connection_failure) when no answer comes for so long; 0 = never. */
void bdr_host_conn_set_timeout(BdrConn *conn, int32_t timeout_ms);
/* Asks several servers one thing at the same time, and waits for at most timeout_ms. labels: two for each, given back with its
 * rows. Rows: both labels, why there is no answer (NULL: there is one), and columns of the answer. */
int32_t bdr_host_ask_nodes(int32_t n, const char *const *dsns, const char *const *options, const char *const *labels,
						   const char *sql, int32_t columns, int32_t timeout_ms, BdrSqlResult **result);
/* Sends a statement that ends in COPY BOTH (START_REPLICATION). */
int32_t bdr_host_conn_start_copy_both(BdrConn *conn, const char *sql);

enum { BDR_RECV_NONE = 0, BDR_RECV_DATA = 1, BDR_RECV_END = 2, BDR_RECV_FAILED = 3 };

/* Next CopyData without waiting. BDR_RECV_DATA: *data stays valid until the next receive or close. */
int32_t bdr_host_conn_receive(BdrConn *conn, const uint8_t **data, size_t *length);
/* Sends a statement that ends in COPY OUT (COPY ... TO STDOUT). */
int32_t bdr_host_conn_start_copy_out(BdrConn *conn, const char *sql);
/* Next CopyData, waited for: never BDR_RECV_NONE. */
int32_t bdr_host_conn_next(BdrConn *conn, const uint8_t **data, size_t *length);
/* Sends one CopyData and flushes it; BDR_OK or BDR_REMOTE_ERROR. */
int32_t bdr_host_conn_send(BdrConn *conn, const uint8_t *data, size_t length);
/* Copies between connections, several at once. begin: runs COPY … TO STDOUT on `from` and COPY … FROM STDIN on `to`; without
 * `to`, what `from` sends are lines of two numbers, rows and bytes that it has stored itself since the last line. pump:
 * moves data of all n copies until one has ended (*finished is its number) or the timeout (ms) has passed (*finished is
 * -1); BDR_REMOTE_ERROR when it ended with a failure of connection *failed. free closes no connection. */
typedef struct BdrCopy BdrCopy;
int32_t bdr_host_copy_begin(BdrConn *from, const char *copy_out, BdrConn *to, const char *copy_in, BdrCopy **copy,
							BdrConn **failed);
int32_t bdr_host_copy_pump(BdrCopy *const *copies, int32_t n, int32_t timeout_ms, int32_t *finished, BdrConn **failed);
/* Rows and bytes moved so far; after the end, rows that the target has stored. */
void bdr_host_copy_progress(const BdrCopy *copy, uint64_t *rows, uint64_t *bytes);
void bdr_host_copy_free(BdrCopy *copy);
/* Quotes; returns memory of the current memory context, or NULL with a pending error. */
const char *bdr_host_quote_identifier(const char *name);
const char *bdr_host_quote_literal(const char *text);

/* ---- waiting and processes (host_process.c) ------------------------------------------------------------------- */

enum { BDR_WAIT_LATCH = 1, BDR_WAIT_SOCKET = 2, BDR_WAIT_TIMEOUT = 4, BDR_WAIT_SHUTDOWN = 8 };

/* Waits for the latch, the connection's socket (conn may be NULL) or the timeout (ms, -1 = none); handles interrupts and
 * configuration reload. Returns a set of BDR_WAIT_*; BDR_WAIT_SHUTDOWN when the worker was asked to stop. */
int32_t bdr_host_wait(BdrConn *conn, int64_t timeout_ms);
/* Runs a program (path looked up beside this server's binaries) and waits on the latch. argv and extra environment
 * ("NAME=value") end with NULL. Output of the program goes to *output (last 8 kB, memory of the result, free with
 * bdr_host_free). Returns the exit status 0…255, or 256 + signal. */
int32_t bdr_host_run_program(const char *program, const char *const *argv, const char *const *environment,
							 char **output);
void bdr_host_free(void *memory);
/* A copy of a text for C, freed with bdr_host_free; NULL when there is no memory. */
char *bdr_host_copy_text(const char *text);
/* A path for a temporary file that the server removes by itself at its next start. */
int32_t bdr_host_temp_path(const char *suffix, char *buffer, size_t size);
/* Makes a file that only this user can read. */
int32_t bdr_host_write_file(const char *path, const char *text);
int32_t bdr_host_remove_file(const char *path);

/* ---- this server and database --------------------------------------------------------------------------------- */

const char *bdr_host_setting(const char *name); /* value of a GUC, NULL when unknown; valid until the next call */
int32_t bdr_host_setting_int(const char *name, int32_t fallback);
int32_t bdr_host_server_version(void);			/* 150020 */
uint32_t bdr_host_database_oid(void);
const char *bdr_host_database_name(void);		/* inside a transaction */
uint64_t bdr_host_system_identifier(void);
uint32_t bdr_host_timeline(void);				/* of the WAL that this server writes */
int64_t bdr_host_start_time(void);				/* of the postmaster, µs since 2000 */
int32_t bdr_host_encoding(void);
const char *bdr_host_encoding_name(void);
uint32_t bdr_host_random(void);
int32_t bdr_host_pid(void);

/* ---- workers (workers.c) -------------------------------------------------------------------------------------- */

enum { BDR_ROLE_MANAGER = 1, BDR_ROLE_APPLY = 2, BDR_ROLE_JOIN = 3, BDR_ROLE_GROUP = 4, BDR_ROLE_RECOVER = 5,
	   BDR_ROLE_SEQUENCE = 6, BDR_ROLE_LOCK = 7 };

typedef struct BdrWorkerInfo
{
	int32_t in_use;
	int32_t running;
	int32_t role;
	uint32_t peer;			/* node id the worker is for (apply, recover), else 0 */
	int32_t pid;
	int32_t failed;			/* ended with an error since the manager last looked */
	char sqlstate[6];		/* of that error */
	int64_t ended_at;
} BdrWorkerInfo;

/* The worker of this database with that role and peer; in_use = 0 when there is none. */
int32_t bdr_host_worker_info(int32_t role, uint32_t peer, BdrWorkerInfo *info);
/* Starts one; BDR_OK, or 1 when no worker slot of the server is free. */
int32_t bdr_host_worker_start(int32_t role, uint32_t peer, const char *name);
/* Asks one to stop (SIGTERM). */
int32_t bdr_host_worker_stop(int32_t role, uint32_t peer);
/* Has one look at once. */
int32_t bdr_host_worker_wake(int32_t role, uint32_t peer);
/* Forgets counters and last error of a worker that does not run (its peer has left). */
int32_t bdr_host_worker_forget(int32_t role, uint32_t peer);
/* Peers (node ids) for which this database has apply worker entries. Returns the count. */
int32_t bdr_host_worker_peers(uint32_t *peers, int32_t capacity);
/* Names of the origins that apply workers of this database have used since the server was started; one column. */
int32_t bdr_host_database_origins(BdrSqlResult **result);
/* For the views: how fast a peer confirms what is committed here, bytes/s, and when it had everything last (µs since 2000). */
void bdr_host_publish_peer(uint32_t peer, uint64_t confirm_rate, int64_t complete_time);
/* Has the manager of this database look at the catalog now; what it shall see must be committed. */
void bdr_host_wake_manager(void);
/* True when this database's workers shall stop (DROP DATABASE is waiting). */
bool bdr_host_database_closing(void);
/* To be called before what bdr_host_publish_node will tell is read: it is not told if it has changed meanwhile. */
void bdr_host_publish_begin(void);
/* Tells the other processes of the server what state the local node of this database is in (gate for writes). */
int32_t bdr_host_publish_node(uint32_t node_id, int32_t state, bool refuse_writes, bool check_identity,
							   int32_t members);

/* Other members of the group, also those that join; 0 when that is not known. */
int32_t bdr_host_members(void);

enum { BDR_SUB_STARTING = 0, BDR_SUB_CATCHUP = 1, BDR_SUB_REPLICATING = 2, BDR_SUB_DOWN = 3, BDR_SUB_ERROR = 4 };

/* Progress of this apply worker, for the views. LSNs of the origin; times in µs since 2000. */
void bdr_host_progress_status(int32_t status);
void bdr_host_progress_received(uint64_t receive_lsn, uint64_t receive_commit_lsn);
void bdr_host_progress_applied(uint64_t remote_lsn, int64_t commit_time);
void bdr_host_progress_flushed(uint64_t remote_lsn);
enum { BDR_COUNT_INSERT = 0, BDR_COUNT_UPDATE, BDR_COUNT_DELETE, BDR_COUNT_TRUNCATE, BDR_COUNT_COMMIT, BDR_COUNT_CONFLICT,
	   BDR_COUNT_MISSING, BDR_COUNT_DDL, BDR_COUNT_KINDS };
void bdr_host_progress_count(int32_t kind, uint64_t n);
/* What it costs (apply_stats.c). connected: the stream of a peer begins, at this position. skipped: one of its transactions was
 * passed over because somebody wanted that. */
void bdr_host_stats_connected(uint32_t peer, uint64_t start_lsn);
void bdr_host_stats_skipped(uint32_t peer);

/* ---- DDL (host_ddl.c) ----------------------------------------------------------------------------------------- */

/* A statement. Texts are in the encoding of the database. */
typedef struct BdrDdl {
	const char *tag;
	const char *role;
	const char *session_role;		/* may be empty */
	const char *statement;
	const char *server;
	const char *const *settings;	/* names and values in turn, ended by NULL */
	const char *const *sets;		/* ended by NULL */
	bool of_server;
} BdrDdl;
/* Runs a statement of another node in the transaction that is being applied. content: of the message, for the WAL of this node.
 * Whatever is open of relations is closed before. */
int32_t bdr_host_ddl(const BdrDdl *ddl, const uint8_t *content, size_t length);

/* ---- global locks (host_locks.c) ------------------------------------------------------------------------------ */

/* Who is there: a transaction that has asked for a global lock, a session that asked for another node's; whoever decides about
 * votes; and, with a number of their own each, transactions of this node that want the same lock. */
enum { BDR_TOKEN_HOLDER = 1, BDR_TOKEN_SESSION = 2, BDR_TOKEN_VOTE = 3, BDR_TOKEN_DDL = 4, BDR_TOKEN_TABLE = 5,
	   BDR_TOKEN_KEY = 6, BDR_TOKEN_PAIR = 7 };
/* SESSION: until the session ends; BDR_LOCK_NOT_YET if another one has it. Others are waited for, and last until the whole
 * transaction ends. */
int32_t bdr_host_token_take(int32_t kind, int64_t id);
/* Of this transaction, before its end. */
int32_t bdr_host_token_release(int32_t kind, int64_t id);
int32_t bdr_host_token_taken(int32_t kind, int64_t id, bool *taken);

enum { BDR_LOCK_DDL = 1, BDR_LOCK_DML = 2, BDR_LOCK_ADVISORY = 3 };

typedef struct BdrLockRequest {
	int64_t id;					/* another one when it was got with a later attempt */
	int32_t kind;
	uint32_t relid;				/* DML */
	const char *schema;
	const char *relation;
	int64_t key;				/* advisory */
	bool key_is_pair;			/* it is two numbers */
	const char *statement;
	int32_t timeout;			/* ms, 0: none */
} BdrLockRequest;

enum { BDR_LOCK_NOT_YET = 1, BDR_LOCK_NO_TABLE = 2 };

/* In a lock worker, outside of transactions. Locks a table against all but readers, and the apply workers, with a deadline. */
int32_t bdr_host_lock_worker_begin(void);
int32_t bdr_host_table_lock(const char *schema, const char *name, uint32_t origin, int32_t wait_ms, uint32_t *relid);
/* BDR_LOCK_NOT_YET while apply workers write in spite of it. locked: whether it was locked, or only waited for. */
int32_t bdr_host_table_unlock(uint32_t relid, bool locked);

/* ---- writers of an apply worker (stream_writer.c) -------------------------------------------------------------- */

typedef struct BdrWriter BdrWriter;

enum { BDR_WRITER_STARTING = 0, BDR_WRITER_READY, BDR_WRITER_BUSY, BDR_WRITER_DONE, BDR_WRITER_REFUSED, BDR_WRITER_FAILED,
	   BDR_WRITER_GONE };
/* Kinds of messages to a writer: descriptions of relations; a transaction begins; changes of it; it, or a subtransaction, was
 * rolled back; it is to be committed. And whole transactions, of which the writer claims some. */
enum { BDR_STREAM_RELATIONS = 'r', BDR_STREAM_BEGIN = 'b', BDR_STREAM_CHANGES = 'd', BDR_STREAM_ABORT = 'a',
	   BDR_STREAM_COMMIT = 'c', BDR_STREAM_RUN = 't' };

/* Transactions in progress are not asked for before this time (µs since 2000): what the last process left, too. */
void bdr_host_stream_after(int64_t time);
int64_t bdr_host_streams_after(void);
/* How long this process waits for a lock; 0: for ever. */
void bdr_host_lock_timeout(int32_t milliseconds);

/* The leader's side. Starts a writer; 1 when no worker slot of the server is free. number: from 1, of those of this leader. */
int32_t bdr_host_writer_start(uint32_t peer, const char *name, int32_t number, BdrWriter **writer);
/* BDR_RETRY: the queue is full; call again with the same message. 1: the writer has gone. */
int32_t bdr_host_writer_send(BdrWriter *writer, uint8_t kind, const uint8_t *data, size_t length);
/* BDR_WRITER_*; *local_end: of its last commit. The latch is set when it changes. */
int32_t bdr_host_writer_state(BdrWriter *writer, uint64_t *local_end);
/* SQLSTATE and message of the error that it ended with. */
const char *bdr_host_writer_error(BdrWriter *writer);
/* Ends it, and frees the handle. Also while an error is pending. */
int32_t bdr_host_writer_stop(BdrWriter *writer);
/* Lets the origin go for as long as a writer comes to share it; bdr_host_origin_setup takes it again. */
int32_t bdr_host_origin_release(void);

/* The writer's side. The next message, valid until the next call; 1 when the leader has gone. */
int32_t bdr_host_writer_receive(uint8_t *kind, const uint8_t **data, size_t *length);
void bdr_host_writer_report(int32_t state, uint64_t local_end);
int32_t bdr_host_origin_share(const char *origin_name, uint64_t *remote_lsn);
int32_t bdr_host_subxact_begin(void);
int32_t bdr_host_subxact_release(void);
int32_t bdr_host_subxact_rollback(void);

/* ---- transactions applied at the same time, and committed one after the other (turns.c) ------------------------- */

/* Claims the next transaction with a number below `end`; false: there is none. */
bool bdr_host_turn_claim(uint64_t end, uint64_t *number);
/* The number that is claimed next. */
uint64_t bdr_host_turn_next(void);
/* All transactions below the number are committed. */
bool bdr_host_turn_has_come(uint64_t number);
/* BDR_LOOK: look after the writers, and call again. */
enum { BDR_LOOK = 1 };
/* Waits until it has come. applied: the transaction that waits has been applied, so others may wait for it; BDR_RETRY: it has
 * to be rolled back, and applied when it is its turn. */
int32_t bdr_host_turn_wait(uint64_t number, bool applied);
/* The transaction is committed. local_end: end of its commit record. */
void bdr_host_turn_pass(uint64_t number, uint64_t local_end);
/* Of the last one that passed the turn on. */
uint64_t bdr_host_turn_local_end(void);
/* The leader, when its writers have ended. */
void bdr_host_turns_end(void);
/* Counts of bdr_host_progress_count wait until the transaction is committed, and go if it is rolled back. */
void bdr_host_progress_hold(bool hold);

/* ---- replication slots (host_slot.c) -------------------------------------------------------------------------- */

/* Drops a logical slot of this database if it exists, ending a walsender that still holds it. */
int32_t bdr_host_slot_drop(const char *name);

/* ---- what was sent (sent_positions.c) ------------------------------------------------------------------------- */

/* Where the commit record begins of the last transaction that is known to have been sent on the slot of this session and
 * confirmed; 0 when none is. *confirmed: up to where the peer has confirmed. */
uint64_t bdr_host_sent_and_confirmed(uint64_t *confirmed);

/* ---- output plugin (output_plugin.c) -------------------------------------------------------------------------- */

typedef struct BdrOption
{
	const char *name;
	const char *value;		/* NULL for an option without a value */
} BdrOption;

/* One column of a relation, as described to a peer. */
typedef struct BdrColumnDesc
{
	const char *name;
	const char *type_namespace;
	const char *type_name;
	uint32_t builtin_type;	/* OID if initdb made the type, else 0 */
	uint32_t type;			/* OID on this server */
	int32_t typmod;
	int16_t attlen;
	uint8_t attalign;		/* 'c' 's' 'i' 'd' */
	uint8_t by_value;
	uint8_t key;			/* part of the replica identity */
	uint8_t binary_io;		/* may travel in binary: built-in, not composite/enum/domain/reg*, has send and receive */
} BdrColumnDesc;

typedef struct BdrRelationDesc
{
	uint32_t oid;			/* of the relation the WAL names */
	const char *namespace_name;
	const char *name;		/* of the root when it is a partition */
	uint8_t replica_identity;	/* 'd' 'n' 'f' 'i' */
	uint8_t plain_layout;	/* no dropped and no generated column: rows may travel raw */
	int32_t ncolumns;		/* live, non-generated columns */
	const BdrColumnDesc *columns;
} BdrRelationDesc;

enum { BDR_VALUE_NULL = 'n', BDR_VALUE_UNCHANGED = 'u', BDR_VALUE_UNCHANGED_BY = 'U', BDR_VALUE_BINARY = 'b',
	   BDR_VALUE_TEXT = 't' };

#define BDR_TIME_UNKNOWN INT64_MIN

/* The data of an unchanged value: who wrote it, and where it is stored. It travels so, in this order, little-endian. */
typedef struct BdrValueVersion
{
	int64_t commit_time;	/* µs since 2000; BDR_TIME_UNKNOWN */
	uint32_t origin;		/* local replication origin number; the encoder puts the node's id in its place */
	int32_t raw_size;		/* the pointer, as the server has it */
	uint32_t external_info;
	uint32_t value_id;
	uint32_t toast_table;
	uint32_t unused;
} BdrValueVersion;


/* One value in transit. data of 'b' and 't' is followed by a NUL byte that length does not count when it comes from the
 * wire; values made by the host need not have it. */
typedef struct BdrValue
{
	const uint8_t *data;
	uint32_t length;
	uint8_t kind;
} BdrValue;

/* A heap tuple as the WAL had it. */
typedef struct BdrTuple
{
	const void *handle;		/* for bdr_host_tuple_values */
	const uint8_t *bitmap;	/* NULL when it has no NULLs */
	const uint8_t *data;	/* user data area */
	uint32_t data_length;
	uint16_t attributes;
	uint8_t has_nulls;
	uint8_t has_varwidth;
	uint8_t has_external;
} BdrTuple;

enum { BDR_INSERT = 1, BDR_UPDATE = 2, BDR_DELETE = 3 };

typedef struct BdrChange
{
	int32_t action;
	int32_t relation;		/* number given by bdr_engine_output_relation's caller */
	const void *relation_handle;
	const BdrTuple *old_tuple;	/* NULL when WAL has none */
	const BdrTuple *new_tuple;
} BdrChange;

/* Values of the described columns of a tuple: binary where `binary[i]`, else text; memory lasts until the end of the
 * callback. keys_only: other columns come as NULL. */
int32_t bdr_host_tuple_values(const void *relation_handle, const void *tuple_handle, const uint8_t *binary,
							  bool keys_only, int32_t ncolumns, BdrValue *values);
/* One network write of the output plugin; last: nothing more follows in this callback. */
int32_t bdr_host_output_write(void *output, const uint8_t *prefix, size_t prefix_length, const uint8_t *data,
							  size_t length, bool last);

/* ---- applying rows (Extension/host_executor.h tells the files) -------------------------------------------------- */

typedef struct BdrRel BdrRel;

typedef struct BdrRemoteRelation
{
	const char *namespace_name;
	const char *name;
	uint8_t replica_identity;
	uint8_t raw_possible;
	int32_t ncolumns;
	const BdrColumnDesc *columns;
} BdrRemoteRelation;

enum { BDR_REL_OK = 0, BDR_REL_MISSING = 1, BDR_REL_WRONG_KIND = 2, BDR_REL_COLUMNS_MISSING = 3, BDR_REL_NO_KEY = 4 };

/* What changes of other rows may do to a change of one row: nothing, as rows meet only by the replica identity; it is not certain,
 * because of other unique indexes, or there is no identity; a trigger fires, which may do and see anything. */
enum { BDR_ORDER_BY_KEY = 0, BDR_ORDER_TOGETHER, BDR_ORDER_ALONE };

typedef struct BdrRelationInfo
{
	int32_t status;			/* BDR_REL_* */
	uint32_t oid;
	uint32_t file;			/* another one when it was emptied; 0 for a partitioned table */
	uint8_t relkind;
	uint8_t same_layout;	/* raw rows can be adopted as they are */
	uint8_t has_key;		/* an identity index or FULL lookup is possible */
	uint8_t stream_triggers;	/* BDR_STREAM_TRANSFORM, BDR_STREAM_CONFLICT */
	uint8_t merges;			/* has columns of conflict-free types */
	uint8_t lacks_columns;	/* the peer has not all columns that are here (and not computed) */
	uint8_t row_version;	/* rows have a version by which conflicts are detected, and the peer sends it */
	uint8_t order;			/* BDR_ORDER_* */
	int32_t missing_column;	/* index of the first remote column that does not exist here, with BDR_REL_COLUMNS_MISSING */
} BdrRelationInfo;

/* A row in the form of the local table, in place of one that was sent. */
typedef struct BdrKept BdrKept;

/* A row in transit: columns (ncolumns values in the order of the remote relation), or a raw area already validated. */
typedef struct BdrRow BdrRow;

struct BdrRow
{
	const BdrValue *values;	/* NULL for a raw row */
	int32_t ncolumns;
	const uint8_t *bitmap;
	const uint8_t *data;
	uint32_t data_length;
	uint16_t attributes;
	uint8_t has_nulls;
	uint8_t has_varwidth;
	uint8_t deep_check;		/* has compressed values whose content must be checked */
	const BdrKept *kept;	/* if set, this is the row */
	/* how it meets the row that is here; values of conflict-free types are merged with those of that row */
	uint8_t separate;		/* it takes the place of another row: nothing is merged */
	uint8_t keep_all;		/* the local row stays, but for what is merged */
	uint8_t old_unknown;	/* it is of an UPDATE, and `old` is not known: what needs it is not merged */
	uint8_t probe;			/* it is not to be inserted yet: see BDR_FREE */
	uint8_t pending;		/* its INSERT is still to come: what that will add is not in it yet */
	const struct BdrRow *old;	/* what the sender had before; NULL: nothing, or unknown */
	const uint8_t *keep;	/* by column: not 0, the local value stays; NULL: none does */
};

/* What was found under a key. */
typedef struct BdrFound
{
	int32_t found;			/* 0 none, 1 one row, 2 several rows under different unique keys */
	int32_t by_identity;	/* found under the replica identity / primary key; of several, one is */
	int32_t own_transaction;	/* written by this very transaction */
	int32_t has_version;	/* commit time and origin are known */
	int64_t commit_time;	/* µs since 2000 */
	uint32_t origin;		/* local replication origin number; 0 = written here */
	uint32_t index;			/* OID of the unique index */
} BdrFound;

#define BDR_STAMPS_MAX 4

/* When and by whom a key was written or deleted last, where no row says so. */
typedef struct BdrStamp
{
	int64_t commit_time;	/* µs since 2000 */
	uint32_t node;			/* 0: the one behind the origin */
	uint32_t origin;		/* local replication origin number; 0 = here */
} BdrStamp;

typedef struct BdrStamps
{
	int32_t n;				/* newest stamps of the key; more than one only when they have the same time */
	int32_t own_transaction;	/* this very transaction has left one */
	BdrStamp stamps[BDR_STAMPS_MAX];
} BdrStamps;

/* Resolves a remote relation to a local one and caches the mapping under a handle that lives until bdr_host_rel_free;
 * it is revalidated by itself when the local schema changes. Inside a transaction. */
int32_t bdr_host_rel_open(const BdrRemoteRelation *remote, BdrRel **rel, BdrRelationInfo *info);
/* To be called before the first use in each transaction and cheap afterwards: locks the relation and refreshes info if the
 * local definition changed. */
int32_t bdr_host_rel_use(BdrRel *rel, BdrRelationInfo *info);
void bdr_host_rel_free(BdrRel *rel);
/* Looks at what a row has in columns that do not exist here; from then on such values are left out, which is an error before.
 * key_only: at the peer's key columns only. *missing is the first such column, *valued the first with a value; -1: none. */
int32_t bdr_host_missing_values(BdrRel *rel, const BdrRow *row, bool key_only, int32_t *missing, int32_t *valued);
/* Names of columns that are here and that the peer does not have, separated by commas; valid until the transaction ends. */
int32_t bdr_host_lacked_columns(BdrRel *rel, const char **names);

/* BDR_RETRY: the located row changed meanwhile; locate and decide again. BDR_STAMPED: no row has the key, but it has stamps.
 * BDR_SAME: the row would not change, and was not written. BDR_FREE: nothing is in the way of a row that was a probe. */
enum { BDR_DONE = 0, BDR_CONFLICT = 1, BDR_RETRY = 2, BDR_STAMPED = 3, BDR_SAME = 4, BDR_FREE = 5 };

/* Inserts a row unless a row with the same value of any unique key exists: then BDR_CONFLICT, with *found, and the
 * located row is held for bdr_host_update_found. Nor is it inserted when its key has stamps (BDR_STAMPED, see bdr_host_stamps),
 * unless despite_stamps. */
int32_t bdr_host_insert(BdrRel *rel, const BdrRow *row, bool despite_stamps, BdrFound *found);
/* Inserts up to n raw rows; stops before the first that has a conflict. *done rows were inserted. Returns BDR_DONE, or
 * BDR_CONFLICT when row *done has to go through bdr_host_insert. */
int32_t bdr_host_insert_batch(BdrRel *rel, const BdrRow *rows, int32_t n, int32_t *done);
/* Inserts n raw rows that a join copies: page by page, into a table without indexes and triggers; BDR_CONFLICT when that can't
 * be, and none is inserted. They are there after bdr_host_executor_close. */
int32_t bdr_host_append_batch(BdrRel *rel, const BdrRow *rows, int32_t n);
/* Finds and locks the row that `key` names: by replica identity index, primary key, or whole-row comparison. */
int32_t bdr_host_find(BdrRel *rel, const BdrRow *key, BdrFound *found);
/* Stamps of the key that bdr_host_find or bdr_host_insert was called with last. */
int32_t bdr_host_stamps(BdrRel *rel, BdrStamps *stamps);
/* Leaves a stamp of this transaction for that key; for the located row's key when one is located. */
int32_t bdr_host_stamp(BdrRel *rel);
/* Whether two rows have the same key: 1, or 0. Values that travelled as unchanged count as equal. */
int32_t bdr_host_same_key(BdrRel *rel, const BdrRow *a, const BdrRow *b);
/* Leaves a stamp of this transaction for the key of the row looked for last, whatever is located. */
int32_t bdr_host_stamp_missing(BdrRel *rel);
/* Leaves a stamp with a time of its own for the located row's key, or for that of the row looked for last. */
int32_t bdr_host_stamp_at(BdrRel *rel, int64_t commit_time, uint32_t node);
/* Who wrote the located row's value of the peer's column (counted from 0), if it is stored out of line; found = 0 when that is
 * not known. */
/* Whether the located row has another version (method row_version, BdrRelationInfo.row_version) than a row of the sender: 0, 1. */
int32_t bdr_host_version_differs(BdrRel *rel, const BdrRow *before);
int32_t bdr_host_value_version(BdrRel *rel, int32_t column, BdrFound *version);
/* If there are no stamps, they need not be looked for until one is written. */
int32_t bdr_host_stamps_settle(void);
bool bdr_host_stamps_possible(void);
/* Updates / deletes the row located last by bdr_host_find or bdr_host_insert. Unchanged values keep their local value. An
 * update is not made when another row has one of its unique values: BDR_CONFLICT, with *found, and that row is the located
 * one then. BDR_SAME only of a row that has keep_all. */
int32_t bdr_host_update_found(BdrRel *rel, const BdrRow *row, BdrFound *found);
/* After BDR_CONFLICT: makes one of the rows in the way, counted from 0, the located one. found = 0 when there are no more;
 * BDR_RETRY when it is gone. */
int32_t bdr_host_in_the_way(BdrRel *rel, int32_t number, BdrFound *found);
int32_t bdr_host_delete_found(BdrRel *rel);
/* Closes the relations that are in use in this transaction; they can be used again. */
int32_t bdr_host_executor_close(void);
/* Closes what is open, as a subtransaction begins or ends; bdr_host_rel_use opens again. */
int32_t bdr_host_executor_pause(void);
int32_t bdr_host_truncate(BdrRel *const *rels, int32_t n, bool cascade, bool restart_identity);

/* ---- stream triggers (host_stream_triggers.c) ------------------------------------------------------------------ */

enum { BDR_STREAM_TRANSFORM = 1, BDR_STREAM_CONFLICT = 2 };
enum { BDR_STREAM_INSERT = 0, BDR_STREAM_UPDATE, BDR_STREAM_DELETE };
/* No trigger was called; one returned NULL; all returned a row; the located row changed meanwhile: locate and decide again. */
enum { BDR_STREAM_NONE = 0, BDR_STREAM_SKIP, BDR_STREAM_ROW, BDR_STREAM_AGAIN };

/* Begins a change of a relation with stream triggers, and calls those that transform. *replaced is the new row that they give
 * (BDR_STREAM_ROW), valid until the next change; NULL for a DELETE. */
int32_t bdr_host_stream_change(BdrRel *rel, int32_t event, const BdrRow *old, const BdrRow *new_row, int64_t commit_time,
							   uint32_t node, const BdrKept **replaced);
/* Calls the conflict triggers for that change; the row that it is about is the located one, if one is found. */
int32_t bdr_host_stream_conflict(BdrRel *rel, const char *type, bool is_found, bool has_version, int64_t commit_time,
								 uint32_t node, const BdrKept **row);

/* ---- conflict-free values (crdt.c) ---------------------------------------------------------------------------- */

/* Hands bytes to the SQL function that asked for them; result is what it gave. */
int32_t bdr_host_crdt_result(void *result, const uint8_t *data, size_t length);
/* ---- record of conflicts (host_conflict.c, conflict_stats.c) --------------------------------------------------- */

/* In the order of Conflict.Resolution. */
enum { BDR_RESOLUTION_APPLY_REMOTE = 0, BDR_RESOLUTION_SKIP, BDR_RESOLUTION_MERGE, BDR_RESOLUTION_USER, BDR_RESOLUTION_KINDS };

typedef struct BdrConflict
{
	const char *type;
	const char *resolution;
	uint32_t subscription;	/* 0: none */
	uint32_t remote_xid;
	uint64_t remote_lsn;
	int64_t remote_time;
	uint32_t origin_node;
	uint32_t change;
	uint32_t index;			/* OID, 0: none */
	uint8_t has_local;		/* the row that was located last is the one in the way */
	uint8_t has_written;	/* the row that was stored last is the outcome */
	uint8_t merged;			/* columns of conflict-free types don't make the rows differ */
	uint8_t has_local_version;
	uint32_t local_node;
	int64_t local_time;
} BdrConflict;

enum { BDR_RECORD_DONE = 0, BDR_RECORD_SAME_ROWS = 1 };

/* Keeps a conflict, to be written by bdr_host_conflict_flush; to be called when it is resolved and before anything else is
 * located or written. `key` and `row` are what the peer sent, either may be NULL. to_table false: only *key_text is wanted,
 * the key as JSON, valid until the next call; NULL when it can't be shown. Returns BDR_RECORD_SAME_ROWS, and keeps
 * nothing, when the local row equals the peer's. */
int32_t bdr_host_conflict_add(BdrRel *rel, const BdrConflict *conflict, const BdrRow *key, const BdrRow *row, bool to_table,
							  const char **key_text);
/* Bytes kept. */
size_t bdr_host_conflict_pending(void);
/* Writes what is kept into bdr.conflict_history, as part of this transaction. What can't be written is passed over: its
 * number is *lost. */
int32_t bdr_host_conflict_flush(int32_t *lost);
/* Forgets what is kept. */
void bdr_host_conflict_forget(void);
/* Whether the history takes conflicts now: there is room, and it has not failed just before. */
bool bdr_host_conflict_history_open(void);
/* A message at bdr.conflict_log_level. */
int32_t bdr_host_conflict_log(const char *message, const char *detail);
/* True once after the catalog of resolvers and log settings has, or may have, changed; inside a transaction. */
int32_t bdr_host_conflict_settings_changed(bool *changed);
/* Tells all sessions, when this transaction is committed, that it has changed. */
int32_t bdr_host_conflict_settings_notify(void);
/* Time in the form in which the server shows it; valid until the next call. */
const char *bdr_host_time_text(int64_t time);

/* Counts conflicts that are resolved and committed; unrecorded: of these, how many are not in the history for want of room. */
void bdr_host_conflict_count(uint32_t relation, const char *type, int32_t resolution, uint64_t n, uint64_t unrecorded);
/* Size of the history as measured. */
void bdr_host_conflict_history_size(uint64_t bytes);
/* Forgets counters of tables that are gone, if there are many. Inside a transaction. */
int32_t bdr_host_conflict_sweep(void);

/* Runs statements that may fail, in a subtransaction: *result is NULL then, and the log has the reason (unless it is a lock
 * that was not to be had within lock_timeout ms). */
int32_t bdr_host_sql_attempt(const char *sql, int32_t lock_timeout, BdrSqlResult **result);

#endif
