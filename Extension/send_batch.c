/*
 * send_batch.c: lets a walsender hand what it has written to the kernel in portions, not once for every WAL record.
 *
 * The walsender tries to send after each write and after each record that it has read, so a backlog of small transactions
 * costs a system call, and a wake-up of the peer, for each of them. Here the calls that would send little are let pass while
 * the walsender is moving through the WAL. When it has nothing to read it tries to send at a position where it has tried
 * before, without having moved: then everything is sent at once, before it sleeps. So nothing is held while there is nothing to
 * do, nor for longer than HOLD_TIME.
 *
 * The functions of the connection are replaced (PqCommMethods), as the server itself does in parallel workers.
 */
#include "bdr.h"

#include "access/xlogreader.h"
#include "replication/walsender.h"

/* libpq/libpq.h wants the headers of GSSAPI, which are not needed for anything else. The same from 14 to 18. */
typedef struct
{
	void		(*comm_reset) (void);
	int			(*flush) (void);
	int			(*flush_if_writable) (void);
	bool		(*is_send_pending) (void);
	int			(*putmessage) (char type, const char *data, size_t length);
	void		(*putmessage_noblock) (char type, const char *data, size_t length);
} PQcommMethods;
extern PGDLLIMPORT const PQcommMethods *PqCommMethods;

/* Bytes that are worth a system call of their own. */
#define HOLD_BYTES (64 * 1024)
/* How long bytes are held at most while WAL is read, microseconds. */
#define HOLD_TIME 2000

static const PQcommMethods *server_methods = NULL;
static PQcommMethods methods;

/* Whose position says whether the walsender has moved. */
static XLogReaderState *reader = NULL;
static XLogRecPtr tried_at = InvalidXLogRecPtr;
static size_t pending = 0;
static TimestampTz pending_since = 0;
/* A call was let pass: what is pending need not be waited for. */
static bool holding = false;
/* The plugin is writing. */
static bool writing = false;

static void
Sent(void)
{
	holding = false;
	pending = 0;
}

static int
Flush(void)
{
	Sent();
	return server_methods->flush();
}

static int
FlushIfWritable(void)
{
	XLogRecPtr	position = reader ? reader->EndRecPtr : InvalidXLogRecPtr;
	bool		moved = position != tried_at;

	if (!writing)
		tried_at = position;
	if (pending > 0 && pending < HOLD_BYTES && (writing || moved) && GetCurrentTimestamp() < pending_since + HOLD_TIME)
	{
		holding = true;
		return 0;
	}
	Sent();
	return server_methods->flush_if_writable();
}

static bool
IsSendPending(void)
{
	return !holding && server_methods->is_send_pending();
}

static void
Count(size_t length)
{
	if (pending == 0)
		pending_since = GetCurrentTimestamp();
	pending += length;
}

static int
PutMessage(char type, const char *data, size_t length)
{
	Count(length);
	return server_methods->putmessage(type, data, length);
}

static void
PutMessageNoBlock(char type, const char *data, size_t length)
{
	Count(length);
	server_methods->putmessage_noblock(type, data, length);
}

static void
CommReset(void)
{
	server_methods->comm_reset();
}

/*
 * From now on this walsender sends in portions. `xlog_reader` is where it reads; NULL: it does not read any more.
 */
void
bdr_send_batch_start(XLogReaderState *xlog_reader)
{
	if (!am_walsender)
		return;
	reader = xlog_reader;
	writing = false;
	tried_at = InvalidXLogRecPtr;
	if (server_methods == NULL)
	{
		server_methods = PqCommMethods;
		methods.comm_reset = CommReset;
		methods.flush = Flush;
		methods.flush_if_writable = FlushIfWritable;
		methods.is_send_pending = IsSendPending;
		methods.putmessage = PutMessage;
		methods.putmessage_noblock = PutMessageNoBlock;
		PqCommMethods = &methods;
	}
}

/* Around a write of the plugin, which says so. */
void
bdr_send_batch_writing(bool is_writing)
{
	writing = is_writing && reader != NULL;
}

/* What is held is sent, as the walsender is going to wait for something else than WAL. */
void
bdr_send_batch_flush(void)
{
	if (holding)
	{
		Sent();
		(void) server_methods->flush_if_writable();
	}
}
