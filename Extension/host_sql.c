/*
 * host_sql.c: SQL through SPI for Swift, with results copied out as text.
 *
 * Results live in a memory context of their own below TopMemoryContext, so they survive the end of the transaction and
 * are freed by exactly one bdr_host_sql_free; the same structure carries results of libpq queries (host_libpq.c).
 */
#include "bdr.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

struct BdrSqlResult
{
	MemoryContext context;
	int			rows;
	int			columns;
	uint64		processed;
	char	  **values;			/* rows * columns, NULL for SQL NULL */
};

/* Makes an empty result; raises ERROR when memory is short. */
BdrSqlResult *
bdr_make_result(int rows, int columns)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "bdr sql result", ALLOCSET_SMALL_SIZES);
	BdrSqlResult *result;

	PG_TRY();
	{
		result = MemoryContextAllocZero(context, sizeof(BdrSqlResult));
		result->context = context;
		result->rows = rows;
		result->columns = columns;
		if (rows > 0 && columns > 0)
			result->values = MemoryContextAllocExtended(context, mul_size(mul_size(rows, columns), sizeof(char *)),
														MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	}
	PG_CATCH();
	{
		MemoryContextDelete(context);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return result;
}

void
bdr_result_set(BdrSqlResult *result, int row, int column, const char *value)
{
	Assert(row >= 0 && row < result->rows && column >= 0 && column < result->columns);
	result->values[(size_t) row * result->columns + column] =
		value ? MemoryContextStrdup(result->context, value) : NULL;
}

void
bdr_result_set_processed(BdrSqlResult *result, uint64 processed)
{
	result->processed = processed;
}

int32_t
bdr_host_sql(const char *sql, int32_t nargs, const char *const *args, BdrSqlResult **result)
{
	*result = NULL;
	HOST_BEGIN();
	{
		Oid		   *types;
		Datum	   *values;
		char	   *nulls;
		BdrSqlResult *volatile copy = NULL;
		int			rc;

		/* from here on memory is SPI's own, so that a caller that asks again and again in one statement holds nothing */
		SPI_connect();
		types = palloc(sizeof(Oid) * (nargs + 1));
		values = palloc(sizeof(Datum) * (nargs + 1));
		nulls = palloc(nargs + 1);
		for (int i = 0; i < nargs; i++)
		{
			types[i] = TEXTOID;
			nulls[i] = args[i] ? ' ' : 'n';
			values[i] = args[i] ? CStringGetTextDatum(args[i]) : (Datum) 0;
		}
		rc = SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0);
		if (rc < 0)
			elog(ERROR, "SPI failed: %s", SPI_result_code_string(rc));
		if (SPI_tuptable != NULL)
		{
			TupleDesc	desc = SPI_tuptable->tupdesc;

			copy = bdr_make_result((int) SPI_processed, desc->natts);
			PG_TRY();
			{
				for (uint64 row = 0; row < SPI_processed; row++)
				{
					for (int column = 0; column < desc->natts; column++)
					{
						char	   *value = SPI_getvalue(SPI_tuptable->vals[row], desc, column + 1);

						bdr_result_set(copy, (int) row, column, value);
						if (value)
							pfree(value);
					}
				}
			}
			PG_CATCH();
			{
				bdr_host_sql_free(copy);
				PG_RE_THROW();
			}
			PG_END_TRY();
		}
		else
			copy = bdr_make_result(0, 0);
		copy->processed = SPI_processed;
		*result = copy;
		SPI_finish();
	}
	HOST_END();
	return BDR_OK;
}

int32_t
bdr_host_sql_rows(const BdrSqlResult *result)
{
	return result ? result->rows : 0;
}

int32_t
bdr_host_sql_columns(const BdrSqlResult *result)
{
	return result ? result->columns : 0;
}

const char *
bdr_host_sql_value(const BdrSqlResult *result, int32_t row, int32_t column)
{
	if (result == NULL || row < 0 || row >= result->rows || column < 0 || column >= result->columns)
		return NULL;
	return result->values[(size_t) row * result->columns + column];
}

uint64_t
bdr_host_sql_processed(const BdrSqlResult *result)
{
	return result ? result->processed : 0;
}

void
bdr_host_sql_free(BdrSqlResult *result)
{
	if (result)
		MemoryContextDelete(result->context);
}

const char *
bdr_host_quote_identifier(const char *name)
{
	const char *volatile quoted = NULL;

	if (bdr_host_error_pending())
		return NULL;
	PG_TRY();
	{
		/* quote_identifier depends on quote_all_identifiers only; force quotes so that keywords of other versions are safe */
		StringInfoData buffer;

		initStringInfo(&buffer);
		appendStringInfoChar(&buffer, '"');
		for (const char *c = name; *c; c++)
		{
			if (*c == '"')
				appendStringInfoChar(&buffer, '"');
			appendStringInfoChar(&buffer, *c);
		}
		appendStringInfoChar(&buffer, '"');
		quoted = buffer.data;
	}
	PG_CATCH();
	{
		bdr_stash_error(CurrentMemoryContext);
	}
	PG_END_TRY();
	return quoted;
}

const char *
bdr_host_quote_literal(const char *text)
{
	const char *volatile quoted = NULL;

	if (bdr_host_error_pending())
		return NULL;
	PG_TRY();
	{
		quoted = quote_literal_cstr(text);
	}
	PG_CATCH();
	{
		bdr_stash_error(CurrentMemoryContext);
	}
	PG_END_TRY();
	return quoted;
}
