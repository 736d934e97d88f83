/*
 * sequences.h: global sequences: what sequences.c and sequence_plans.c share.
 */
#ifndef BDR_SEQUENCES_H
#define BDR_SEQUENCES_H

#include "postgres.h"

/* As in bdr.sequence_kind. */
#define BDR_SEQUENCE_LOCAL 'l'
#define BDR_SEQUENCE_SNOWFLAKEID 's'
#define BDR_SEQUENCE_TIMESHARD 't'
#define BDR_SEQUENCE_GALLOC 'g'
#define BDR_SEQUENCE_BY_TIME(kind) ((kind) == BDR_SEQUENCE_SNOWFLAKEID || (kind) == BDR_SEQUENCE_TIMESHARD)

/* FuncExpr.location of a call that stands for an identity column: the parser gives positions in a text. */
#define BDR_IDENTITY_CALL (-7701)

/* bdr.default_sequence_kind */
typedef enum BdrDefaultKind
{
	BDR_DEFAULT_LOCAL,
	BDR_DEFAULT_SNOWFLAKEID,
	BDR_DEFAULT_TIMESHARD,
	BDR_DEFAULT_GALLOC,
	BDR_DEFAULT_DISTRIBUTED
} BdrDefaultKind;
extern int	bdr_default_sequence_kind;

/* sequences.c */
extern void bdr_sequences_shmem_request(void);
extern Size bdr_sequences_shmem_size(void);
extern void bdr_sequences_shmem_startup(void);
extern char bdr_sequence_kind(Oid sequence);
extern void bdr_sequences_discard(void);

/* sequence_plans.c */
extern void bdr_sequence_plans_init(void);
struct Expr;
extern struct Expr *bdr_sequence_default(struct Expr *expression);

#endif
