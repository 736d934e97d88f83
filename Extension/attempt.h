/*
 * attempt.h: what may fail without failing the transaction: a subtransaction around it, in the memory context and with the
 * resource owner of the caller.
 */
#ifndef BDR_ATTEMPT_H
#define BDR_ATTEMPT_H

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

typedef struct Attempt
{
	MemoryContext caller;
	ResourceOwner owner;
} Attempt;

static inline void
BeginAttempt(Attempt *attempt)
{
	attempt->caller = CurrentMemoryContext;
	attempt->owner = CurrentResourceOwner;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(attempt->caller);
}

static inline void
EndAttempt(const Attempt *attempt)
{
	ReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(attempt->caller);
	CurrentResourceOwner = attempt->owner;
}

/* In PG_CATCH. */
static inline ErrorData *
UndoAttempt(const Attempt *attempt)
{
	ErrorData  *error;

	MemoryContextSwitchTo(attempt->caller);
	error = CopyErrorData();
	FlushErrorState();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(attempt->caller);
	CurrentResourceOwner = attempt->owner;
	return error;
}

#endif
