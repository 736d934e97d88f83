/*
 * turns.c: processes that apply transactions of one origin at the same time, and commit them in its order.
 *
 * The transactions are numbered. A process claims the next number, applies that transaction, waits until it is its turn,
 * commits, and passes the turn on. The memory that tells whose turn it is belongs to the apply worker (the leader); its
 * writers share it.
 *
 * Waiting for a turn is no wait that the server knows of, so it can't see a deadlock in which it takes part: the transaction
 * whose turn it is waits for a lock, and whoever holds that waits (perhaps by way of other sessions) for a transaction that
 * waits for its turn. Therefore the one that waits looks whether the other waits for a lock, and gives up then: it rolls back,
 * and begins again when it is its turn.
 */
#include "bdr.h"
#include "turns.h"

#include "miscadmin.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/s_lock.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define MAX_OWNERS 72			/* more than bdr.writers_per_subscription may be, and the leader */

/* Looks at whose turn it is before the process goes to sleep: about as long as another one takes for a small transaction. */
#define SPINS 1000
/* While it sleeps, ms; nobody is woken to see that another one waits for a lock. */
#define LOOK_INTERVAL 2
/* A transaction that is applied waits no longer for its turn, µs: whatever the reason is, it may be that it is waited for. */
#define PATIENCE USECS_PER_SEC

typedef struct Turns
{
	pg_atomic_uint64 turn;		/* number of the transaction that may be committed */
	char		pad1[PG_CACHE_LINE_SIZE];
	pg_atomic_uint64 claimed;	/* the next number to be claimed */
	char		pad2[PG_CACHE_LINE_SIZE];
	pg_atomic_uint64 local_end; /* of the last commit record */
	pid_t		leader;
	/* who has claimed a number; as many are under way at most as there are processes */
	pg_atomic_uint32 owners[MAX_OWNERS];
	struct
	{
		PGPROC	   *proc;
		pg_atomic_uint64 waits_for; /* 0: it does not sleep */
	}			processes[MAX_OWNERS];
} Turns;

static dsm_segment *segment = NULL;
static Turns *turns = NULL;
static int	my_number = 0;		/* 0: the leader */

/* ---- who takes part ------------------------------------------------------------------------------------------- */

dsm_handle
bdr_turns_handle(void)
{
	if (segment == NULL)
	{
		segment = dsm_create(sizeof(Turns), 0);
		dsm_pin_mapping(segment);
		turns = dsm_segment_address(segment);
		memset(turns, 0, sizeof(Turns));
		pg_atomic_init_u64(&turns->turn, 1);
		pg_atomic_init_u64(&turns->claimed, 1);
		pg_atomic_init_u64(&turns->local_end, 0);
		for (int i = 0; i < MAX_OWNERS; i++)
		{
			pg_atomic_init_u32(&turns->owners[i], 0);
			pg_atomic_init_u64(&turns->processes[i].waits_for, 0);
		}
		turns->leader = MyProcPid;
		turns->processes[0].proc = MyProc;
	}
	return dsm_segment_handle(segment);
}

void
bdr_turns_attach(dsm_handle handle, int number)
{
	if (number <= 0 || number >= MAX_OWNERS)
		elog(ERROR, "bdr: writer number %d", number);
	segment = dsm_attach(handle);
	if (segment == NULL)
		proc_exit(0);			/* the leader has gone */
	dsm_pin_mapping(segment);
	turns = dsm_segment_address(segment);
	my_number = number;
	turns->processes[number].proc = MyProc;
}

void
bdr_host_turns_end(void)
{
	if (segment)
		dsm_detach(segment);
	segment = NULL;
	turns = NULL;
}

/* ---- taking turns --------------------------------------------------------------------------------------------- */

bool
bdr_host_turn_claim(uint64_t end, uint64_t *number)
{
	uint64		next = pg_atomic_read_u64(&turns->claimed);

	/* numbers from `end` on are of transactions that this process has not heard of */
	while (next < end)
	{
		if (pg_atomic_compare_exchange_u64(&turns->claimed, &next, next + 1))
		{
			pg_atomic_write_u32(&turns->owners[next % MAX_OWNERS], (uint32) my_number);
			*number = next;
			return true;
		}
	}
	return false;
}

uint64_t
bdr_host_turn_next(void)
{
	return pg_atomic_read_u64(&turns->claimed);
}

bool
bdr_host_turn_has_come(uint64_t number)
{
	return pg_atomic_read_u64(&turns->turn) >= number;
}

static bool
WaitsForLock(uint64 turn)
{
	PGPROC	   *proc = turns->processes[pg_atomic_read_u32(&turns->owners[turn % MAX_OWNERS]) % MAX_OWNERS].proc;

	return proc && proc != MyProc && (*(volatile uint32 *) &proc->wait_event_info & 0xFF000000) == PG_WAIT_LOCK;
}

int32_t
bdr_host_turn_wait(uint64_t number, bool applied)
{
	volatile int32_t outcome = BDR_OK;

	for (int spins = 0; spins < SPINS; spins++)
	{
		if (pg_atomic_read_u64(&turns->turn) >= number)
		{
			pg_read_barrier();
			return BDR_OK;
		}
		pg_spin_delay();
	}
	HOST_BEGIN();
	{
		TimestampTz began = GetCurrentTimestamp();
		uint64		blocked = 0;	/* the turn whose transaction was seen to wait for a lock */

		pg_atomic_write_u64(&turns->processes[my_number].waits_for, number);
		pg_memory_barrier();
		for (;;)
		{
			uint64		turn = pg_atomic_read_u64(&turns->turn);

			if (turn >= number)
				break;
			if (bdr_shutdown_requested() || turns->processes[0].proc->pid != turns->leader)
				ereport(ERROR, (errcode(ERRCODE_ADMIN_SHUTDOWN), errmsg("terminating while changes were applied")));
			if (applied && (blocked == turn || GetCurrentTimestamp() - began > PATIENCE))
			{
				outcome = BDR_RETRY;
				break;
			}
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOOK_INTERVAL, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			bdr_process_interrupts();
			if (applied && pg_atomic_read_u64(&turns->turn) == turn && WaitsForLock(turn))
				blocked = turn;
			/* the leader has to look after its writers, and its peer */
			if (my_number == 0 && GetCurrentTimestamp() - began > 100 * 1000 && pg_atomic_read_u64(&turns->turn) < number)
			{
				outcome = applied ? BDR_RETRY : BDR_LOOK;
				break;
			}
		}
		pg_atomic_write_u64(&turns->processes[my_number].waits_for, 0);
		pg_read_barrier();
	}
	HOST_END();
	return outcome;
}

void
bdr_host_turn_pass(uint64_t number, uint64_t local_end)
{
	pg_atomic_write_u64(&turns->local_end, local_end);
	pg_write_barrier();
	pg_atomic_write_u64(&turns->turn, number + 1);
	pg_memory_barrier();
	for (int i = 0; i < MAX_OWNERS && turns->processes[i].proc; i++)
	{
		uint64		waits_for = pg_atomic_read_u64(&turns->processes[i].waits_for);

		if (waits_for != 0 && waits_for <= number + 1)
			SetLatch(&turns->processes[i].proc->procLatch);
	}
}

uint64_t
bdr_host_turn_local_end(void)
{
	return pg_atomic_read_u64(&turns->local_end);
}
