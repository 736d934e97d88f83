/*
 * session_values.c: what a client is told of the node by ParameterStatus messages: bdr.local_node_id when it connects, and
 * bdr.last_committed_lsn after each commit that has written something.
 *
 * Both are shown by hooks and not kept as strings. What lies behind bdr.last_committed_lsn is a counter whose change makes the
 * server look, and send what it shows; changing it allocates nothing, as it happens where an ERROR is not allowed any more.
 */
#include "bdr.h"
#include "session_values.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "replication/walsender.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"

static int	node_id = 0;
static int	commits = 0;
static XLogRecPtr last_commit = InvalidXLogRecPtr;

/* By what the node's manager has told; a session may begin outside of a transaction. */
static uint32
NodeId(void)
{
	static BdrGate gate;

	if (!bdr_preloaded() || !OidIsValid(MyDatabaseId))
		return 0;
	if (!gate.known || gate.generation != bdr_gate_generation())
		(void) bdr_gate_read(&gate);
	return gate.known ? gate.node_id : 0;
}

static const char *
ShowNodeId(void)
{
	static char text[16];

	snprintf(text, sizeof(text), "%u", NodeId());
	return text;
}

static const char *
ShowLastCommit(void)
{
	static char text[32];

	snprintf(text, sizeof(text), "%X/%X", LSN_FORMAT_ARGS(last_commit));
	return text;
}

static void
AtCommit(XactEvent event, void *arg)
{
	char		text[16];

	if (event != XACT_EVENT_COMMIT || XactLastCommitEnd == last_commit || whereToSendOutput != DestRemote ||
		IsParallelWorker() || IsInParallelMode() || am_walsender || NodeId() == 0)
		return;
	last_commit = XactLastCommitEnd;
	snprintf(text, sizeof(text), "%d", commits == PG_INT32_MAX ? 0 : commits + 1);
	SetConfigOption("bdr.last_committed_lsn", text, PGC_INTERNAL, PGC_S_OVERRIDE);
}

void
bdr_session_values_init(void)
{
	DefineCustomIntVariable("bdr.local_node_id",
							"Shows the id of the node that this database is; 0: none.",
							NULL,
							&node_id,
							0, 0, PG_INT32_MAX,
							PGC_INTERNAL,
							GUC_REPORT | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE,
							NULL, NULL, ShowNodeId);
	DefineCustomIntVariable("bdr.last_committed_lsn",
							"Shows where in this node's WAL the session's last commit ends.",
							"bdr.wait_for_apply_queue waits for it on another node.",
							&commits,
							0, 0, PG_INT32_MAX,
							PGC_INTERNAL,
							GUC_REPORT | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE,
							NULL, NULL, ShowLastCommit);
	if (process_shared_preload_libraries_in_progress)
		RegisterXactCallback(AtCommit, NULL);
}
