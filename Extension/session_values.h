/*
 * session_values.h: what a client is told of the node.
 */
#ifndef BDR_SESSION_VALUES_H
#define BDR_SESSION_VALUES_H

extern void bdr_session_values_init(void);

#endif
