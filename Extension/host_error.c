/*
 * host_error.c: the error boundary between the server's longjmp and Swift's throw.
 *
 * Going down (Swift calls the server): every host function runs its server calls in PG_TRY and stashes an ERROR here.
 * Going up (C called Swift): the entry point returned nonzero, and bdr_rethrow raises what is stashed, be it the
 * server's own ErrorData or a Swift error described by bdr_host_error_set. One error is pending at most; the first wins.
 *
 * The stash lives in a memory context of its own that is reset when the next error is stashed, so a session that fails a
 * hundred thousand times holds one error's memory.
 */
#include "bdr.h"

#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"

static MemoryContext stash_context = NULL;
static ErrorData *pending_data = NULL;	/* NULL while pending means that even copying failed */
static bool pending = false;
static bool pending_is_new = false;	/* made in Swift: the server has not raised it yet */

static MemoryContext
StashContext(void)
{
	if (stash_context == NULL)
		stash_context = AllocSetContextCreate(TopMemoryContext, "bdr pending error", ALLOCSET_SMALL_SIZES);
	else if (!pending)
		MemoryContextReset(stash_context);
	return stash_context;
}

/*
 * Takes the error that is being handled in PG_CATCH over into the stash. Only an allocation failure can make the copy
 * fail; it is then reported as out of memory, which is what it is.
 */
void
bdr_stash_error(MemoryContext caller_context)
{
	MemoryContext context;

	if (pending)
	{
		/* can't happen: host calls refuse to run while an error is pending */
		FlushErrorState();
		MemoryContextSwitchTo(caller_context);
		return;
	}
	context = StashContext();
	MemoryContextSwitchTo(context);
	pending_data = CopyErrorData();
	pending = true;
	pending_is_new = false;
	FlushErrorState();
	MemoryContextSwitchTo(caller_context);
}

static char *
CopyText(MemoryContext context, const char *text)
{
	size_t		length;
	char	   *copy;

	if (text == NULL)
		return NULL;
	length = strlen(text);
	if (length > 64 * 1024)
		length = 64 * 1024;
	copy = MemoryContextAllocExtended(context, length + 1, MCXT_ALLOC_NO_OOM);
	if (copy != NULL)
	{
		memcpy(copy, text, length);
		copy[length] = '\0';
	}
	return copy;
}

void
bdr_host_error_set(const char *sqlstate, const char *message, const char *detail, const char *hint,
				   const char *context_line)
{
	MemoryContext context;
	ErrorData  *data;

	if (pending)
		return;
	context = StashContext();
	pending = true;
	pending_is_new = true;
	pending_data = NULL;
	data = MemoryContextAllocExtended(context, sizeof(ErrorData), MCXT_ALLOC_NO_OOM | MCXT_ALLOC_ZERO);
	if (data == NULL)
		return;
	data->elevel = ERROR;
	data->output_to_server = true;
	/* a worker has nobody at the other end, and sending would be another error */
	data->output_to_client = whereToSendOutput == DestRemote;
	data->sqlerrcode = (sqlstate != NULL && strlen(sqlstate) == 5)
		? MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2], sqlstate[3], sqlstate[4])
		: ERRCODE_INTERNAL_ERROR;
	data->message = CopyText(context, message ? message : "unknown error");
	data->detail = CopyText(context, detail);
	data->hint = CopyText(context, hint);
	data->context = CopyText(context, context_line);
	data->assoc_context = context;
	pending_data = data;
}

void
bdr_host_error_add_context(const char *line)
{
	char	   *joined;
	size_t		size;

	if (!pending || pending_data == NULL || line == NULL)
		return;
	size = strlen(line) + (pending_data->context ? strlen(pending_data->context) + 1 : 0) + 1;
	joined = MemoryContextAllocExtended(stash_context, size, MCXT_ALLOC_NO_OOM);
	if (joined == NULL)
		return;
	if (pending_data->context)
		snprintf(joined, size, "%s\n%s", pending_data->context, line);
	else
		snprintf(joined, size, "%s", line);
	pending_data->context = joined;
}

bool
bdr_host_error_pending(void)
{
	return pending;
}

const char *
bdr_host_error_sqlstate(void)
{
	if (!pending)
		return "";
	return pending_data ? unpack_sql_state(pending_data->sqlerrcode) : "53200";
}

const char *
bdr_host_error_message(void)
{
	if (!pending)
		return "";
	return pending_data && pending_data->message ? pending_data->message : "out of memory";
}

/* Forgets a pending error: only where the transaction that failed has been aborted as a whole. */
void
bdr_discard_error(void)
{
	pending = false;
	pending_data = NULL;
}

/*
 * Raises the pending error. A Swift entry point that failed without leaving one has a bug; say so rather than crash.
 */
void
bdr_rethrow(void)
{
	ErrorData  *data = pending_data;
	bool		was_pending = pending;

	pending = false;
	pending_data = NULL;
	if (!was_pending)
		elog(ERROR, "the bdr engine reported a failure without an error");
	if (data == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	/* whoever called (PL/pgSQL, SPI) has yet to add where it was; to an error of the server they have done so */
	if (pending_is_new)
		ThrowErrorData(data);
	ReThrowError(data);
}

int32_t
bdr_host_log(int32_t level, const char *sqlstate, const char *message, const char *detail, const char *hint)
{
	volatile int elevel;

	switch (level)
	{
		case BDR_LOG_LOG:
			elevel = LOG;
			break;
		case BDR_LOG_NOTICE:
			elevel = NOTICE;
			break;
		case BDR_LOG_WARNING:
			elevel = WARNING;
			break;
		case BDR_LOG_INFO:
			elevel = INFO;
			break;
		default:
			elevel = DEBUG1;
			break;
	}
	HOST_BEGIN();
	ereport(elevel,
			((sqlstate && strlen(sqlstate) == 5)
			 ? errcode(MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2], sqlstate[3], sqlstate[4])) : 0,
			 errmsg_internal("%s", message),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0));
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_check_interrupts(void)
{
	HOST_BEGIN();
	CHECK_FOR_INTERRUPTS();
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_raise_for_test(const char *sqlstate, const char *message, const char *detail, const char *hint)
{
	HOST_BEGIN();
	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2], sqlstate[3], sqlstate[4])),
			 errmsg_internal("%s", message),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0));
	HOST_END();
	return BDR_OK;
}
