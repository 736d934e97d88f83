/*
 * turns.h: processes that apply transactions of one origin at the same time, and commit them in its order.
 */
#ifndef BDR_TURNS_H
#define BDR_TURNS_H

#include "storage/dsm.h"

/* the leader's: to be given to its writers */
extern dsm_handle bdr_turns_handle(void);
/* number: from 1, of the writers of one leader */
extern void bdr_turns_attach(dsm_handle handle, int number);

#endif
