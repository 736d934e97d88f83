/*
 * ask_nodes.c: asks several servers one thing at the same time, for the views that show a whole group.
 *
 * All connections are made and read in one loop, so that the slowest server decides how long it takes, and none longer than the
 * timeout: whoever watches a group wants to know that a node does not answer, not to wait for it.
 */
#include "bdr.h"

#include <poll.h>

#include "libpq-fe.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

typedef enum AskState
{
	ASK_CONNECTING, ASK_WAITING, ASK_DONE, ASK_FAILED
} AskState;

typedef struct Ask
{
	AskState	state;
	PGconn	   *conn;
	PostgresPollingStatusType polling;
	PGresult   *answer;
	char	   *error;
} Ask;

static void
Fail(Ask *ask, const char *message)
{
	char	   *end;

	ask->error = pstrdup(message && *message ? message : "the connection was lost");
	end = ask->error + strlen(ask->error);
	while (end > ask->error && (end[-1] == '\n' || end[-1] == ' '))
		*--end = '\0';
	ask->state = ASK_FAILED;
}

static void
Begin(Ask *ask, const char *dsn, const char *options)
{
	const char *keywords[] = {"dbname", "options", NULL};
	const char *values[] = {dsn, options, NULL};

	if (!AcquireExternalFD())
	{
		Fail(ask, "too many open files on this server");
		return;
	}
	ask->conn = PQconnectStartParams(keywords, values, true);
	if (ask->conn == NULL)
	{
		ReleaseExternalFD();
		Fail(ask, "out of memory");
	}
	else if (PQstatus(ask->conn) == CONNECTION_BAD)
		Fail(ask, PQerrorMessage(ask->conn));
	else
		ask->polling = PGRES_POLLING_WRITING;
}

/* What came may have finished a step. */
static void
Advance(Ask *ask, const char *sql)
{
	PGresult   *result;

	if (ask->state == ASK_CONNECTING)
	{
		ask->polling = PQconnectPoll(ask->conn);
		if (ask->polling == PGRES_POLLING_FAILED)
			Fail(ask, PQerrorMessage(ask->conn));
		else if (ask->polling == PGRES_POLLING_OK)
		{
			if (!PQsendQuery(ask->conn, sql))
				Fail(ask, PQerrorMessage(ask->conn));
			else
				ask->state = ASK_WAITING;
		}
		return;
	}
	if (PQconsumeInput(ask->conn) == 0)
	{
		Fail(ask, PQerrorMessage(ask->conn));
		return;
	}
	while (ask->state == ASK_WAITING && !PQisBusy(ask->conn))
	{
		result = PQgetResult(ask->conn);
		if (result == NULL)
		{
			if (ask->answer)
				ask->state = ASK_DONE;
			else
				Fail(ask, NULL);
		}
		else if (PQresultStatus(result) == PGRES_TUPLES_OK && ask->answer == NULL)
			ask->answer = result;
		else
		{
			const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

			Fail(ask, message ? message : PQresultErrorMessage(result));
			PQclear(result);
		}
	}
}

static void
Close(Ask *asks, int n)
{
	for (int i = 0; i < n; i++)
	{
		PQclear(asks[i].answer);
		asks[i].answer = NULL;
		if (asks[i].conn)
		{
			PQfinish(asks[i].conn);
			ReleaseExternalFD();
			asks[i].conn = NULL;
		}
	}
}

static BdrSqlResult *
Collect(Ask *asks, int n, const char *const *labels, int columns)
{
	BdrSqlResult *result;
	int			rows = 0;
	int			row = 0;

	for (int i = 0; i < n; i++)
		rows += asks[i].state == ASK_DONE ? PQntuples(asks[i].answer) : 1;
	result = bdr_make_result(rows, columns + 3);
	for (int i = 0; i < n; i++)
	{
		bool		done = asks[i].state == ASK_DONE;

		for (int from = 0; from < (done ? PQntuples(asks[i].answer) : 1); from++, row++)
		{
			bdr_result_set(result, row, 0, labels[2 * i]);
			bdr_result_set(result, row, 1, labels[2 * i + 1]);
			if (!done)
				bdr_result_set(result, row, 2, asks[i].error);
			for (int column = 0; done && column < Min(columns, PQnfields(asks[i].answer)); column++)
				bdr_result_set(result, row, column + 3,
							   PQgetisnull(asks[i].answer, from, column) ? NULL : PQgetvalue(asks[i].answer, from, column));
		}
	}
	return result;
}

/* Until all have answered, or have not. */
static void
Talk(Ask *asks, int n, const char *sql, int timeout_ms)
{
	struct pollfd *fds = palloc(sizeof(struct pollfd) * Max(n, 1));
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);

	for (;;)
	{
		int			open = 0;
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < n; i++)
		{
			Ask		   *ask = &asks[i];

			fds[i].fd = -1;
			fds[i].revents = 0;
			if (ask->state != ASK_CONNECTING && ask->state != ASK_WAITING)
				continue;
			fds[i].fd = PQsocket(ask->conn);
			if (ask->state == ASK_CONNECTING)
				fds[i].events = ask->polling == PGRES_POLLING_READING ? POLLIN : POLLOUT;
			else
				fds[i].events = PQflush(ask->conn) > 0 ? POLLIN | POLLOUT : POLLIN;
			open++;
		}
		if (open == 0)
			break;
		if (left <= 0)
		{
			for (int i = 0; i < n; i++)
			{
				if (fds[i].fd >= 0)
					Fail(&asks[i], psprintf("no answer for %d ms", timeout_ms));
			}
			break;
		}
		/* a signal that came before poll() began is seen a little later */
		if (poll(fds, n, (int) Min(left, 200)) <= 0)
			continue;
		for (int i = 0; i < n; i++)
		{
			if (fds[i].fd >= 0 && fds[i].revents != 0)
				Advance(&asks[i], sql);
		}
	}
	pfree(fds);
}

int32_t
bdr_host_ask_nodes(int32_t n, const char *const *dsns, const char *const *options, const char *const *labels, const char *sql,
				   int32_t columns, int32_t timeout_ms, BdrSqlResult **result)
{
	*result = NULL;
	HOST_BEGIN();
	{
		Ask		   *asks = palloc0(sizeof(Ask) * Max(n, 1));

		PG_TRY();
		{
			for (int i = 0; i < n; i++)
				Begin(&asks[i], dsns[i], options[i]);
			Talk(asks, n, sql, timeout_ms);
			*result = Collect(asks, n, labels, columns);
		}
		PG_CATCH();
		{
			Close(asks, n);
			PG_RE_THROW();
		}
		PG_END_TRY();
		Close(asks, n);
		pfree(asks);
	}
	HOST_END();
	return BDR_OK;
}
