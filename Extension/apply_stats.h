/*
 * apply_stats.h: what applying the changes of other nodes costs, by subscription and by table.
 */
#ifndef BDR_APPLY_STATS_H
#define BDR_APPLY_STATS_H

#include "executor/instrument.h"
#include "portability/instr_time.h"

extern bool bdr_track_subscription_apply;
extern bool bdr_track_relation_apply;
extern bool bdr_track_apply_lock_timing;

/* Work on one table that is being measured. Costs one comparison while nothing is. */
typedef struct BdrTiming
{
	bool		on;
	instr_time	start;
	BufferUsage usage;
} BdrTiming;

/* this process is an apply worker, and tables are measured */
extern bool bdr_measures_relations;
extern void bdr_timing_start(BdrTiming *timing);
extern void bdr_timing_add(const BdrTiming *timing, Oid relation, int32 kind, uint64 n);
extern void bdr_lock_timing_add(const BdrTiming *timing, Oid relation);

static inline void
bdr_timing_begin(BdrTiming *timing)
{
	timing->on = bdr_measures_relations;
	if (unlikely(timing->on))
		bdr_timing_start(timing);
}

/* kind: BDR_COUNT_*; n: how many rows were written, 0 while one was only looked for */
static inline void
bdr_timing_end(const BdrTiming *timing, Oid relation, int32 kind, uint64 n)
{
	if (unlikely(timing->on))
		bdr_timing_add(timing, relation, kind, n);
}

extern void bdr_apply_stats_define_settings(void);
extern Size bdr_apply_stats_shmem_size(void);
extern void bdr_apply_stats_shmem_startup(void);
extern void bdr_apply_stats_forget(Oid database);
/* a transaction of another node begins; it was committed here; the worker ends with an error */
extern void bdr_apply_stats_begin(void);
extern void bdr_apply_stats_commit(void);
extern void bdr_apply_stats_error(int sqlerrcode);
/* this process applies transactions in progress for the apply worker of a peer */
extern void bdr_apply_stats_writer(uint32 peer);

#endif
