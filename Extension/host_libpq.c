/*
 * host_libpq.c: libpq connections for Swift, never blocking longer than the process latch allows.
 */
#include "bdr.h"

#include <poll.h>
#include <sys/socket.h>

#include "libpq-fe.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/wait_event.h"

struct BdrConn
{
	PGconn	   *conn;
	char	   *buffer;			/* last CopyData, freed by the next receive */
	bool		external_fd;	/* accounted with AcquireExternalFD */
	int			timeout;		/* ms that a statement may go without an answer, 0 = any */
	bool		silent;			/* it has not answered in that time */
	BdrConn    *next_kept;		/* see bdr_host_conn_keep */
	char		sqlstate[6];
	char	   *message;		/* malloc'd like the rest: a connection outlives transactions */
	char	   *detail;
	char	   *hint;
};

PGconn *
bdr_conn_libpq(BdrConn *conn)
{
	return conn ? conn->conn : NULL;
}

static void
SetText(char **place, const char *text)
{
	free(*place);
	*place = text ? strdup(text) : NULL;
	if (*place)
	{
		size_t		n = strlen(*place);

		while (n > 0 && ((*place)[n - 1] == '\n' || (*place)[n - 1] == ' '))
			(*place)[--n] = '\0';
	}
}

/* Remembers why the last call failed, from a result when there is one, else from the connection. */
static void
SetFailure(BdrConn *conn, const PGresult *result)
{
	const char *sqlstate = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
	const char *primary = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : NULL;
	const char *text = primary ? primary : (conn->conn ? PQerrorMessage(conn->conn) : "out of memory");

	strlcpy(conn->sqlstate, sqlstate ? sqlstate : "08006", sizeof(conn->sqlstate));
	if (text == NULL || *text == '\0')
		text = "the connection was lost";
	SetText(&conn->message, text);
	SetText(&conn->detail, result ? PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL) : NULL);
	SetText(&conn->hint, result ? PQresultErrorField(result, PG_DIAG_MESSAGE_HINT) : NULL);
}

static void
SetFailureText(BdrConn *conn, const char *sqlstate, const char *message)
{
	strlcpy(conn->sqlstate, sqlstate, sizeof(conn->sqlstate));
	SetText(&conn->message, message);
	SetText(&conn->detail, NULL);
	SetText(&conn->hint, NULL);
}

const char *
bdr_host_conn_message(const BdrConn *conn)
{
	return conn && conn->message ? conn->message : "no connection";
}

const char *
bdr_host_conn_sqlstate(const BdrConn *conn)
{
	return conn && conn->sqlstate[0] ? conn->sqlstate : "08003";
}

const char *
bdr_host_conn_detail(const BdrConn *conn)
{
	return conn && conn->detail ? conn->detail : "";
}

const char *
bdr_host_conn_hint(const BdrConn *conn)
{
	return conn && conn->hint ? conn->hint : "";
}

/* Waits for the socket; false when the deadline (0 = none) has passed. */
static bool
WaitSocket(PGconn *pgconn, int event, TimestampTz deadline)
{
	long		timeout = -1;
	int			rc;
	int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | event;

	if (deadline != 0)
	{
		timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
		if (timeout <= 0)
			return false;
		events |= WL_TIMEOUT;
	}
	rc = WaitLatchOrSocket(MyLatch, events, PQsocket(pgconn), timeout, PG_WAIT_EXTENSION);
	if (rc & WL_LATCH_SET)
	{
		ResetLatch(MyLatch);
		bdr_process_interrupts();
	}
	return true;
}

int32_t
bdr_host_conn_open(const char *dsn, int32_t noptions, const char *const *keywords, const char *const *values,
				   int32_t timeout_ms, BdrConn **conn)
{
	BdrConn    *c;
	volatile int32_t outcome = BDR_REMOTE_ERROR;

	*conn = NULL;
	HOST_BEGIN();
	{
		TimestampTz deadline = timeout_ms > 0 ? GetCurrentTimestamp() + (TimestampTz) timeout_ms * 1000 : 0;
		const char **all_keywords = palloc(sizeof(char *) * (noptions + 2));
		const char **all_values = palloc(sizeof(char *) * (noptions + 2));
		PostgresPollingStatusType poll;

		c = calloc(1, sizeof(BdrConn));
		if (c == NULL)
			ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
		*conn = c;
		/* expand_dbname takes the whole DSN; later keywords win over what it says */
		all_keywords[0] = "dbname";
		all_values[0] = dsn;
		for (int i = 0; i < noptions; i++)
		{
			all_keywords[i + 1] = keywords[i];
			all_values[i + 1] = values[i];
		}
		all_keywords[noptions + 1] = NULL;
		all_values[noptions + 1] = NULL;

		if (!AcquireExternalFD())
			SetFailureText(c, "53000", "too many open files on this server");
		else
		{
			c->external_fd = true;
			c->conn = PQconnectStartParams(all_keywords, all_values, true);
			if (c->conn == NULL)
				ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
			poll = PQstatus(c->conn) == CONNECTION_BAD ? PGRES_POLLING_FAILED : PGRES_POLLING_WRITING;
			while (poll != PGRES_POLLING_OK && poll != PGRES_POLLING_FAILED)
			{
				if (!WaitSocket(c->conn, poll == PGRES_POLLING_READING ? WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE,
								deadline))
					break;
				poll = PQconnectPoll(c->conn);
			}
			if (poll == PGRES_POLLING_OK && PQstatus(c->conn) == CONNECTION_OK)
				outcome = BDR_OK;
			else if (poll == PGRES_POLLING_FAILED)
			{
				SetFailure(c, NULL);
				strlcpy(c->sqlstate, "08001", sizeof(c->sqlstate));
			}
			else
				SetFailureText(c, "08001", "timeout expired while connecting");
		}
		pfree(all_keywords);
		pfree(all_values);
	}
	HOST_END();
	return outcome;
}

void
bdr_host_conn_close(BdrConn *conn)
{
	if (conn == NULL)
		return;
	if (conn->buffer)
		PQfreemem(conn->buffer);
	if (conn->conn)
		PQfinish(conn->conn);
	if (conn->external_fd)
		ReleaseExternalFD();
	free(conn->message);
	free(conn->detail);
	free(conn->hint);
	free(conn);
}

void
bdr_host_conn_abandon(BdrConn *conn, const char *sql)
{
	if (conn && conn->conn && PQstatus(conn->conn) == CONNECTION_OK && PQtransactionStatus(conn->conn) == PQTRANS_IDLE &&
		PQsendQuery(conn->conn, sql))
	{
		struct pollfd answer = {.fd = PQsocket(conn->conn), .events = POLLIN};

		/* one that is near answers at once, and need not write into its log that nobody listened */
		for (int waits = 0; waits < 20 && PQflush(conn->conn) >= 0 && PQisBusy(conn->conn); waits++)
			if (poll(&answer, 1, 10) != 0 && !PQconsumeInput(conn->conn))
				break;
	}
	bdr_host_conn_close(conn);
}

/* ---- connections that are kept for the next transaction of a session ------------------------------------------- */

static BdrConn *kept = NULL;
static volatile sig_atomic_t kept_ended = false;
static TimeoutId kept_timeout = MAX_TIMEOUTS;

/* In a signal handler, while the session may be waiting for its client. To the other server the session is over. */
static void
EndKept(void)
{
	for (BdrConn *conn = kept; conn; conn = conn->next_kept)
		(void) shutdown(PQsocket(conn->conn), SHUT_RDWR);
	kept_ended = true;
}

bool
bdr_host_conn_keep(BdrConn *conn, int32_t milliseconds)
{
	if (conn == NULL || conn->conn == NULL || PQstatus(conn->conn) != CONNECTION_OK || PQtransactionStatus(conn->conn) != PQTRANS_IDLE ||
		(kept && kept_ended))
		return false;
	if (kept_timeout == MAX_TIMEOUTS)
		kept_timeout = RegisterTimeout(USER_TIMEOUT, EndKept);
	else
		disable_timeout(kept_timeout, false);
	if (kept == NULL)
		kept_ended = false;
	conn->next_kept = kept;
	kept = conn;
	enable_timeout_after(kept_timeout, milliseconds);
	return true;
}

/* An error takes all timeouts of the session along, so who keeps some lets go of them then. */
bool
bdr_conn_any_kept(void)
{
	return kept != NULL;
}

bool
bdr_host_conn_resume(BdrConn *conn)
{
	bool		alive;

	disable_timeout(kept_timeout, false);
	alive = !kept_ended;
	for (BdrConn **place = &kept; *place; place = &(*place)->next_kept)
	{
		if (*place == conn)
		{
			*place = conn->next_kept;
			break;
		}
	}
	conn->next_kept = NULL;
	return alive;
}

/* Waits until a result can be fetched without blocking; NULL when there is no more, or the other side is silent for too long. */
static PGresult *
NextResult(BdrConn *conn)
{
	TimestampTz deadline = 0;

	if (conn->timeout > 0)
		deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), conn->timeout);
	for (;;)
	{
		/* flush what is queued first, else both sides may wait for one another */
		int			flushed = PQflush(conn->conn);

		if (flushed < 0)
			break;
		if (!PQisBusy(conn->conn) && flushed == 0)
			break;
		if (!WaitSocket(conn->conn, flushed > 0 ? WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE : WL_SOCKET_READABLE, deadline))
		{
			conn->silent = true;
			return NULL;
		}
		if (PQconsumeInput(conn->conn) == 0)
			break;
	}
	return PQgetResult(conn->conn);
}

static void
CopyResult(PGresult *from, BdrSqlResult **result)
{
	int			rows = PQntuples(from);
	int			columns = PQnfields(from);
	BdrSqlResult *copy = bdr_make_result(rows, columns);

	*result = copy;
	for (int row = 0; row < rows; row++)
		for (int column = 0; column < columns; column++)
			bdr_result_set(copy, row, column, PQgetisnull(from, row, column) ? NULL : PQgetvalue(from, row, column));
	bdr_result_set_processed(copy, strtoull(PQcmdTuples(from), NULL, 10));
}

static void
SetSilent(BdrConn *conn)
{
	char		message[100];

	snprintf(message, sizeof(message), "the other server has not answered for %d ms", conn->timeout);
	SetFailureText(conn, "08006", message);
}

/* Reads results to the end. The last good one with rows is copied out; the first failure wins. */
static int32_t
DrainResults(BdrConn *conn, BdrSqlResult **result)
{
	volatile int32_t outcome = BDR_OK;
	PGresult   *volatile current = NULL;

	PG_TRY();
	{
		while ((current = NextResult(conn)) != NULL)
		{
			ExecStatusType status = PQresultStatus(current);

			if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK || status == PGRES_EMPTY_QUERY)
			{
				if (outcome == BDR_OK && result != NULL)
				{
					bdr_host_sql_free(*result);
					*result = NULL;
					CopyResult(current, result);
				}
			}
			else if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH)
			{
				PQclear(current);
				current = NULL;
				break;
			}
			else if (outcome == BDR_OK)
			{
				SetFailure(conn, current);
				outcome = BDR_REMOTE_ERROR;
			}
			PQclear(current);
			current = NULL;
		}
	}
	PG_CATCH();
	{
		if (current)
			PQclear(current);
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (conn->silent)
	{
		SetSilent(conn);
		outcome = BDR_REMOTE_ERROR;
	}
	else if (outcome == BDR_OK && PQstatus(conn->conn) != CONNECTION_OK)
	{
		SetFailure(conn, NULL);
		outcome = BDR_REMOTE_ERROR;
	}
	return outcome;
}

int32_t
bdr_host_conn_query(BdrConn *conn, const char *sql, int32_t nargs, const char *const *args, BdrSqlResult **result)
{
	volatile int32_t outcome = BDR_OK;

	*result = NULL;
	HOST_BEGIN();
	{
		int			sent;

		if (conn == NULL || conn->conn == NULL)
			elog(ERROR, "bdr: query on a closed connection");
		if (nargs == 0)
			sent = PQsendQuery(conn->conn, sql);
		else
			sent = PQsendQueryParams(conn->conn, sql, nargs, NULL, args, NULL, NULL, 0);
		if (!sent)
		{
			SetFailure(conn, NULL);
			outcome = BDR_REMOTE_ERROR;
		}
		else
			outcome = DrainResults(conn, result);
	}
	HOST_END();
	return outcome;
}

/* How a value looks in JSON: 'b' boolean, 'n' number, 'j' JSON already, 't' anything else. */
static const char *
JsonKind(Oid type)
{
	switch (type)
	{
		case BOOLOID:
			return "b";
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
			return "n";
		case JSONOID:
		case JSONBOID:
			return "j";
		default:
			return "t";
	}
}

/* Row 0: what the command says of itself; rows 1 and 2: names and kinds of the columns; then rows. */
static BdrSqlResult *
DescribedResult(const PGresult *from)
{
	int			rows = PQntuples(from);
	int			columns = PQnfields(from);
	BdrSqlResult *copy = bdr_make_result(rows + 3, Max(columns, 1));

	bdr_result_set_processed(copy, columns);
	bdr_result_set(copy, 0, 0, PQcmdStatus((PGresult *) from));
	for (int column = 0; column < columns; column++)
	{
		bdr_result_set(copy, 1, column, PQfname(from, column));
		bdr_result_set(copy, 2, column, JsonKind(PQftype(from, column)));
		for (int row = 0; row < rows; row++)
			bdr_result_set(copy, row + 3, column, PQgetisnull(from, row, column) ? NULL : PQgetvalue(from, row, column));
	}
	return copy;
}

int32_t
bdr_host_conn_run(BdrConn *conn, const char *sql, BdrSqlResult **result)
{
	volatile int32_t outcome = BDR_OK;

	*result = NULL;
	HOST_BEGIN();
	{
		PGresult   *current;

		if (conn == NULL || conn->conn == NULL)
			elog(ERROR, "bdr: query on a closed connection");
		if (!PQsendQuery(conn->conn, sql))
		{
			SetFailure(conn, NULL);
			outcome = BDR_REMOTE_ERROR;
		}
		else
		{
			while ((current = NextResult(conn)) != NULL)
			{
				ExecStatusType status = PQresultStatus(current);

				if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH)
				{
					PQclear(current);
					SetFailureText(conn, "0A000", "COPY to or from the client can't be run on other nodes");
					outcome = BDR_REMOTE_ERROR;
					break;
				}
				if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK || status == PGRES_EMPTY_QUERY)
				{
					bdr_host_sql_free(*result);
					*result = DescribedResult(current);
				}
				else if (outcome == BDR_OK)
				{
					SetFailure(conn, current);
					outcome = BDR_REMOTE_ERROR;
				}
				PQclear(current);
			}
			if (outcome == BDR_OK && PQstatus(conn->conn) != CONNECTION_OK)
			{
				SetFailure(conn, NULL);
				outcome = BDR_REMOTE_ERROR;
			}
		}
	}
	HOST_END();
	return outcome;
}

void
bdr_host_conn_set_timeout(BdrConn *conn, int32_t timeout_ms)
{
	if (conn)
		conn->timeout = Max(timeout_ms, 0);
}

int32_t
bdr_host_conn_start_copy_both(BdrConn *conn, const char *sql)
{
	volatile int32_t outcome = BDR_OK;

	HOST_BEGIN();
	{
		PGresult   *first;

		if (conn == NULL || conn->conn == NULL)
			elog(ERROR, "bdr: query on a closed connection");
		if (!PQsendQuery(conn->conn, sql))
		{
			SetFailure(conn, NULL);
			outcome = BDR_REMOTE_ERROR;
		}
		else
		{
			first = NextResult(conn);
			if (PQresultStatus(first) != PGRES_COPY_BOTH)
			{
				if (conn->silent)
					SetSilent(conn);
				else
					SetFailure(conn, first);
				outcome = BDR_REMOTE_ERROR;
			}
			if (first)
				PQclear(first);
		}
	}
	HOST_END();
	return outcome;
}

/* Starts a COPY; false with the failure set. */
static bool
BeginCopy(BdrConn *conn, const char *sql, ExecStatusType wanted)
{
	PGresult   *first;
	bool		good;

	if (!PQsendQuery(conn->conn, sql))
	{
		SetFailure(conn, NULL);
		return false;
	}
	first = NextResult(conn);
	good = PQresultStatus(first) == wanted;
	if (!good)
		SetFailure(conn, first);
	if (first)
		PQclear(first);
	if (!good)
	{
		/* leave the connection idle, keeping the first failure */
		PGresult   *rest;

		while ((rest = NextResult(conn)) != NULL)
			PQclear(rest);
	}
	return good;
}

int32_t
bdr_host_conn_receive(BdrConn *conn, const uint8_t **data, size_t *length)
{
	volatile int32_t outcome = BDR_RECV_NONE;

	*data = NULL;
	*length = 0;
	HOST_BEGIN();
	{
		int			n;

		if (conn->buffer)
		{
			PQfreemem(conn->buffer);
			conn->buffer = NULL;
		}
		n = PQgetCopyData(conn->conn, &conn->buffer, 1);
		if (n == 0)
		{
			if (PQconsumeInput(conn->conn) == 0)
			{
				SetFailure(conn, NULL);
				n = -3;
			}
			else
				n = PQgetCopyData(conn->conn, &conn->buffer, 1);
		}
		if (n > 0)
		{
			*data = (const uint8_t *) conn->buffer;
			*length = (size_t) n;
			outcome = BDR_RECV_DATA;
		}
		else if (n == -1)
		{
			/* the server ended the stream: in order, or with an error to fetch */
			BdrSqlResult *ignored = NULL;

			outcome = DrainResults(conn, &ignored) == BDR_OK ? BDR_RECV_END : BDR_RECV_FAILED;
			bdr_host_sql_free(ignored);
		}
		else if (n == -2)
		{
			SetFailure(conn, NULL);
			outcome = BDR_RECV_FAILED;
		}
		else if (n == -3)
			outcome = BDR_RECV_FAILED;
	}
	HOST_END();
	return outcome;
}

int32_t
bdr_host_conn_start_copy_out(BdrConn *conn, const char *sql)
{
	volatile int32_t outcome = BDR_OK;

	HOST_BEGIN();
	if (conn == NULL || conn->conn == NULL)
		elog(ERROR, "bdr: query on a closed connection");
	if (!BeginCopy(conn, sql, PGRES_COPY_OUT))
		outcome = BDR_REMOTE_ERROR;
	HOST_END();
	return outcome;
}

int32_t
bdr_host_conn_next(BdrConn *conn, const uint8_t **data, size_t *length)
{
	int32_t		outcome;

	for (;;)
	{
		outcome = bdr_host_conn_receive(conn, data, length);
		if (outcome != BDR_RECV_NONE)
			return outcome;
		HOST_BEGIN();
		(void) WaitSocket(conn->conn, WL_SOCKET_READABLE, 0);
		HOST_END();
	}
}

int32_t
bdr_host_conn_send(BdrConn *conn, const uint8_t *data, size_t length)
{
	volatile int32_t outcome = BDR_OK;

	HOST_BEGIN();
	if (length > INT_MAX || PQputCopyData(conn->conn, (const char *) data, (int) length) <= 0 ||
		PQflush(conn->conn) != 0)
	{
		SetFailure(conn, NULL);
		outcome = BDR_REMOTE_ERROR;
	}
	HOST_END();
	return outcome;
}

/* ---- copying ---------------------------------------------------------------------------------------------------- */

/* Rows are passed on in pieces of this size: a message and a system call each would cost more than the rows. */
#define COPY_BUFFER (64 * 1024)

/* How long poll() may sleep while the latch is not looked at, ms. */
#define COPY_POLL 100

struct BdrCopy
{
	BdrConn    *from;
	BdrConn    *to;				/* NULL: `from` stores the rows itself, and sends how many */
	char	   *buffer;
	size_t		used;
	bool		unsent;			/* libpq holds data for `to` that the socket did not take */
	bool		source_done;
	uint64_t	rows;
	uint64_t	bytes;
};

int32_t
bdr_host_copy_begin(BdrConn *from, const char *copy_out, BdrConn *to, const char *copy_in, BdrCopy **copy,
					BdrConn **failed)
{
	BdrConn    *volatile culprit = NULL;

	*copy = NULL;
	*failed = NULL;
	HOST_BEGIN();
	{
		BdrCopy    *c = calloc(1, sizeof(BdrCopy));

		*copy = c;
		if (c == NULL || (c->buffer = malloc(COPY_BUFFER)) == NULL)
			ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
		c->from = from;
		c->to = to;
		if (!BeginCopy(from, copy_out, PGRES_COPY_OUT))
			culprit = from;
		else if (to == NULL)
			;
		else if (!BeginCopy(to, copy_in, PGRES_COPY_IN))
			culprit = to;
		else
			PQsetnonblocking(to->conn, 1);
		*failed = culprit;
	}
	HOST_END();
	return culprit ? BDR_REMOTE_ERROR : BDR_OK;
}

void
bdr_host_copy_free(BdrCopy *copy)
{
	if (copy == NULL)
		return;
	free(copy->buffer);
	free(copy);
}

void
bdr_host_copy_progress(const BdrCopy *copy, uint64_t *rows, uint64_t *bytes)
{
	*rows = copy ? copy->rows : 0;
	*bytes = copy ? copy->bytes : 0;
}

/* Hands what was collected to libpq and as much as possible to the socket. */
static bool
SendCollected(BdrCopy *copy)
{
	if (copy->used > 0)
	{
		int			queued = PQputCopyData(copy->to->conn, copy->buffer, (int) copy->used);

		if (queued == 0)
		{
			copy->unsent = true;
			return true;
		}
		copy->used = 0;
		if (queued < 0)
			return false;
	}
	switch (PQflush(copy->to->conn))
	{
		case 0:
			copy->unsent = false;
			return true;
		case 1:
			copy->unsent = true;
			return true;
		default:
			return false;
	}
}

/* One line of a session that stores rows itself: rows and bytes since the last one. */
static void
CountLine(BdrCopy *copy, const char *data, int length)
{
	char		line[64];
	char	   *rest;

	strlcpy(line, data, Min(sizeof(line), (size_t) length + 1));
	copy->rows += strtoull(line, &rest, 10);
	copy->bytes += strtoull(rest, NULL, 10);
}

/* Moves what can be moved without waiting. NULL, or the connection that failed. */
static BdrConn *
MoveData(BdrCopy *copy)
{
	if (copy->unsent)
	{
		/* the target may have something to say before it takes more */
		if (PQconsumeInput(copy->to->conn) == 0 || !SendCollected(copy))
		{
			SetFailure(copy->to, NULL);
			return copy->to;
		}
		if (copy->unsent)
			return NULL;
	}
	if (PQconsumeInput(copy->from->conn) == 0)
	{
		SetFailure(copy->from, NULL);
		return copy->from;
	}
	for (;;)
	{
		char	   *data = NULL;
		int			n = PQgetCopyData(copy->from->conn, &data, 1);
		bool		good = true;

		if (n > 0 && copy->to == NULL)
		{
			CountLine(copy, data, n);
			PQfreemem(data);
		}
		else if (n > 0)
		{
			copy->rows++;
			copy->bytes += (uint64_t) n;
			if (copy->used + (size_t) n > COPY_BUFFER)
				good = SendCollected(copy);
			if (good && !copy->unsent && n <= COPY_BUFFER)
			{
				memcpy(copy->buffer + copy->used, data, (size_t) n);
				copy->used += (size_t) n;
			}
			else if (good)
			{
				/* a large row, or one that has no room: libpq keeps it, and nothing more is read until it is gone */
				if (copy->used > 0)
				{
					int			queued;

					while ((queued = PQputCopyData(copy->to->conn, copy->buffer, (int) copy->used)) == 0)
						(void) WaitSocket(copy->to->conn, WL_SOCKET_WRITEABLE, 0);
					copy->used = 0;
					good = queued > 0;
				}
				if (good)
				{
					int			queued;

					while ((queued = PQputCopyData(copy->to->conn, data, n)) == 0)
						(void) WaitSocket(copy->to->conn, WL_SOCKET_WRITEABLE, 0);
					good = queued > 0 && SendCollected(copy);
				}
			}
			PQfreemem(data);
			if (!good)
			{
				SetFailure(copy->to, NULL);
				return copy->to;
			}
			if (copy->unsent)
				return NULL;
		}
		else if (n == 0)
		{
			if (copy->to != NULL && !SendCollected(copy))
			{
				SetFailure(copy->to, NULL);
				return copy->to;
			}
			return NULL;
		}
		else
		{
			copy->source_done = true;
			return NULL;
		}
	}
}

/* After the last row: waits until the target has stored everything. NULL, or the connection that failed. */
static BdrConn *
FinishCopy(BdrCopy *copy)
{
	BdrSqlResult *result = NULL;
	BdrConn    *culprit = NULL;

	if (DrainResults(copy->from, &result) != BDR_OK)
		culprit = copy->from;
	bdr_host_sql_free(result);
	result = NULL;
	if (copy->to == NULL)
		return culprit;
	while (copy->used > 0 || copy->unsent)
	{
		if (!SendCollected(copy))
		{
			SetFailure(copy->to, NULL);
			return copy->to;
		}
		if (copy->used > 0 || copy->unsent)
		{
			(void) WaitSocket(copy->to->conn, WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE, 0);
			(void) PQconsumeInput(copy->to->conn);
		}
	}
	/* an unfinished source must never look like the end of the data */
	while (PQputCopyEnd(copy->to->conn, culprit == NULL ? NULL : "the source of the copy failed") == 0)
		(void) WaitSocket(copy->to->conn, WL_SOCKET_WRITEABLE, 0);
	PQsetnonblocking(copy->to->conn, 0);
	if (DrainResults(copy->to, &result) != BDR_OK)
	{
		/* when the source failed first, that is the reason to show */
		if (culprit == NULL)
			culprit = copy->to;
	}
	else if (culprit == NULL && result != NULL)
		copy->rows = bdr_host_sql_processed(result);
	bdr_host_sql_free(result);
	return culprit;
}

int32_t
bdr_host_copy_pump(BdrCopy *const *copies, int32_t n, int32_t timeout_ms, int32_t *finished, BdrConn **failed)
{
	BdrConn    *volatile culprit = NULL;

	*finished = -1;
	*failed = NULL;
	HOST_BEGIN();
	{
		TimestampTz deadline = GetCurrentTimestamp() + (TimestampTz) timeout_ms * 1000;
		struct pollfd *sockets = palloc0(sizeof(struct pollfd) * Max(n, 1));

		for (;;)
		{
			long		left;

			for (int i = 0; i < n; i++)
			{
				BdrCopy    *copy = copies[i];

				/* one whose socket is not ready is left alone: looking costs a system call */
				if (sockets[i].fd != 0 && sockets[i].revents == 0)
					continue;
				culprit = MoveData(copy);
				if (culprit == NULL && copy->source_done)
					culprit = FinishCopy(copy);
				if (culprit != NULL || copy->source_done)
				{
					*finished = i;
					break;
				}
				sockets[i].fd = PQsocket(copy->unsent ? copy->to->conn : copy->from->conn);
				sockets[i].events = copy->unsent ? POLLIN | POLLOUT : POLLIN;
				sockets[i].revents = 0;
			}
			if (*finished >= 0 || n == 0)
				break;
			left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
			if (left <= 0)
				break;
			if (poll(sockets, (nfds_t) n, (int) Min(left, COPY_POLL)) < 0 && errno != EINTR)
				ereport(ERROR, (errcode_for_socket_access(), errmsg("poll() failed: %m")));
			if (!PostmasterIsAlive())
				proc_exit(1);
			ResetLatch(MyLatch);
			bdr_process_interrupts();
		}
		pfree(sockets);
		*failed = culprit;
	}
	HOST_END();
	return culprit ? BDR_REMOTE_ERROR : BDR_OK;
}
