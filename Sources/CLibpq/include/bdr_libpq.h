/*
 * bdr_libpq.h: what bdrctl uses of libpq. Declared here rather than taken from libpq-fe.h, so that building it takes no
 * search path for headers; libpq keeps these functions as they are.
 */
#ifndef BDR_LIBPQ_H
#define BDR_LIBPQ_H

#include <poll.h>

typedef struct pg_conn PGconn;
typedef struct pg_result PGresult;
typedef struct pg_notice_arg PGnoticeArg;

/* ConnStatusType, PostgresPollingStatusType and ExecStatusType, as far as they matter here */
enum { BDR_CONNECTION_OK = 0, BDR_CONNECTION_BAD = 1 };
enum { BDR_POLLING_FAILED = 0, BDR_POLLING_READING = 1, BDR_POLLING_WRITING = 2, BDR_POLLING_OK = 3 };
enum { BDR_EMPTY_QUERY = 0, BDR_COMMAND_OK = 1, BDR_TUPLES_OK = 2 };
enum { BDR_DIAG_SQLSTATE = 'C', BDR_DIAG_MESSAGE = 'M', BDR_DIAG_DETAIL = 'D', BDR_DIAG_HINT = 'H' };

PGconn *PQconnectStartParams(const char *const *keywords, const char *const *values, int expand_dbname);
int PQconnectPoll(PGconn *conn);
int PQstatus(const PGconn *conn);
int PQsocket(const PGconn *conn);
char *PQerrorMessage(const PGconn *conn);
void PQfinish(PGconn *conn);
int PQsetnonblocking(PGconn *conn, int arg);
int PQsendQuery(PGconn *conn, const char *query);
int PQsendQueryParams(PGconn *conn, const char *command, int nParams, const unsigned int *paramTypes,
					  const char *const *paramValues, const int *paramLengths, const int *paramFormats, int resultFormat);
int PQflush(PGconn *conn);
int PQconsumeInput(PGconn *conn);
int PQisBusy(PGconn *conn);
PGresult *PQgetResult(PGconn *conn);
int PQresultStatus(const PGresult *res);
char *PQresultErrorField(const PGresult *res, int fieldcode);
char *PQresultErrorMessage(const PGresult *res);
int PQntuples(const PGresult *res);
int PQnfields(const PGresult *res);
char *PQfname(const PGresult *res, int field_num);
char *PQgetvalue(const PGresult *res, int tup_num, int field_num);
int PQgetisnull(const PGresult *res, int tup_num, int field_num);
void PQclear(PGresult *res);
void (*PQsetNoticeProcessor(PGconn *conn, void (*proc)(void *arg, const char *message), void *arg))(void *, const char *);

#endif
