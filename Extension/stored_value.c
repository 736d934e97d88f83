/*
 * stored_value.c: one value that is stored out of line, by the pointer to it.
 *
 * A peer that gets an UPDATE without the values that it left unchanged, and can't tell that it has the same ones, asks for
 * them here. The pointer came with the change, so it is the very value that the row had then. A value that is gone is one
 * whose row has been overwritten or deleted since, and that operation comes to the peer, too.
 */
#include "bdr.h"
#include "attempt.h"

#include "access/detoast.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/toast_compression.h"
#include "access/toast_internals.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

PG_FUNCTION_INFO_V1(bdr_internal_stored_value);

/* Whether a TOAST table is that of a table or of one of its partitions. */
static bool
IsToastOf(Oid toast, Oid relid)
{
	List	   *tree;
	ListCell   *cell;

	LockRelationOid(relid, AccessShareLock);
	tree = find_all_inheritors(relid, AccessShareLock, NULL);
	foreach(cell, tree)
	{
		Relation	relation = table_open(lfirst_oid(cell), NoLock);
		Oid			own = relation->rd_rel->reltoastrelid;

		table_close(relation, NoLock);
		if (OidIsValid(own) && own == toast)
			return true;
	}
	return false;
}

/*
 * bdr.internal_stored_value(nspname text, relname text, column_name text, raw_size int, external_info bigint, value_id oid,
 * toast_table oid) RETURNS text: the value as text; NULL when it is gone.
 */
Datum
bdr_internal_stored_value(PG_FUNCTION_ARGS)
{
	char	   *schema = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char	   *column = text_to_cstring(PG_GETARG_TEXT_PP(2));
	struct varatt_external pointer;
	Oid			relid = get_relname_relid(name, get_namespace_oid(schema, true));
	AttrNumber	number;
	Oid			output;
	bool		varlena;
	struct varlena *value = palloc0(TOAST_POINTER_SIZE);
	Attempt		attempt;
	char	   *volatile result = NULL;

	pointer.va_rawsize = PG_GETARG_INT32(3);
	pointer.va_extinfo = (uint32) PG_GETARG_INT64(4);
	pointer.va_valueid = PG_GETARG_OID(5);
	pointer.va_toastrelid = PG_GETARG_OID(6);
	/* dropped with its values; if it has got another name, they are there, and the caller has to come again with that */
	if (!OidIsValid(relid) && !SearchSysCacheExists1(RELOID, ObjectIdGetDatum(pointer.va_toastrelid)))
		PG_RETURN_NULL();
	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE), errmsg("relation \"%s.%s\" does not exist", schema, name)));
	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK ||
		check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("permission denied for table %s", name)));
	number = get_attnum(relid, column);
	if (number <= 0 || get_typlen(get_atttype(relid, number)) != -1)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("table \"%s.%s\" has no column \"%s\" that could be stored out of line", schema, name, column)));
	if (pointer.va_rawsize < VARHDRSZ || !AllocSizeIsValid(pointer.va_rawsize) ||
		!AllocSizeIsValid(VARATT_EXTERNAL_GET_EXTSIZE(pointer) + VARHDRSZ))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("there is no value of such a size")));
	/* the table may have been rewritten, or made anew under its name */
	if (!IsToastOf(pointer.va_toastrelid, relid))
		PG_RETURN_NULL();
	getTypeOutputInfo(get_atttype(relid, number), &output, &varlena);
	SET_VARTAG_EXTERNAL(value, VARTAG_ONDISK);
	memcpy(VARDATA_EXTERNAL(value), &pointer, sizeof(pointer));

	BeginAttempt(&attempt);
	PG_TRY();
	{
		result = OidOutputFunctionCall(output, PointerGetDatum(PG_DETOAST_DATUM(PointerGetDatum(value))));
		EndAttempt(&attempt);
	}
	PG_CATCH();
	{
		ErrorData  *error = UndoAttempt(&attempt);

		/* what the server says of chunks that are not there */
		if (error->sqlerrcode != ERRCODE_DATA_CORRUPTED)
			ReThrowError(error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(result));
}
