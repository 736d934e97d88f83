/*
 * sql_function.h: SQL functions whose side in C is one expression.
 */
#ifndef BDR_SQL_FUNCTION_H
#define BDR_SQL_FUNCTION_H

#include "fmgr.h"

/* To be followed by a semicolon, as PG_FUNCTION_INFO_V1. The result is a Datum; arguments are had by PG_GETARG_… */
#define SQL_FUNCTION(name, result) \
	PG_FUNCTION_INFO_V1(name); \
	Datum \
	name(PG_FUNCTION_ARGS) \
	{ \
		return (result); \
	} \
	extern int	no_such_variable

#endif
