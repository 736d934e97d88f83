/*
 * host_tuple.c: rows out of decoded heap tuples, for the output plugin.
 *
 * A row that travels raw is only pointed at. Otherwise its columns are taken apart here: detoasted where the WAL has the
 * value, marked unchanged where it has not, and written in binary (send function) or as text (output function). What a
 * relation needs for that is looked up once and kept with the relation.
 *
 * Memory: values are made in the current memory context, which the output plugin resets after every change. Each value
 * is a chunk of its own, so a row may be larger than 1 GB as long as no value is; text and bytea aren't copied at all when
 * they are stored plain.
 */
#include "bdr.h"
#include "row_stamps.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/tupdesc.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "port/pg_bswap.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* Both ways to write a column; looked up when the first row needs them. */
typedef struct ColumnWriter
{
	Oid			type;
	int16		attnum;
	bool		key;
	bool		text_ready;
	bool		binary_ready;
	FmgrInfo	text;
	FmgrInfo	binary;
} ColumnWriter;

struct BdrRowReader
{
	MemoryContext context;
	TupleDesc	tupdesc;		/* of the change at hand */
	int			ncolumns;
	ColumnWriter *columns;		/* made with the first row that needs it, as most relations travel raw */
	int16	   *attnums;
	Oid		   *types;
	bool	   *keys;
	int			natts;			/* size of the arrays below */
	Datum	   *datums;
	bool	   *nulls;
};

/*
 * Makes a reader for rows of a described relation; attnums are the attribute numbers of the described columns. It lives
 * in `context` and goes with it.
 */
BdrRowReader *
bdr_row_reader_create(MemoryContext context, const BdrRelationDesc *description, const int16 *attnums)
{
	BdrRowReader *reader = MemoryContextAllocZero(context, sizeof(BdrRowReader));
	int			n = description->ncolumns;

	reader->context = context;
	reader->ncolumns = n;
	reader->attnums = MemoryContextAlloc(context, Max(n, 1) * sizeof(int16));
	reader->types = MemoryContextAlloc(context, Max(n, 1) * sizeof(Oid));
	reader->keys = MemoryContextAlloc(context, Max(n, 1) * sizeof(bool));
	for (int i = 0; i < n; i++)
	{
		reader->attnums[i] = attnums[i];
		reader->types[i] = description->columns[i].type;
		reader->keys[i] = description->columns[i].key != 0;
	}
	return reader;
}

/* Sets the descriptor that the tuples of the next change follow. */
void
bdr_row_reader_use(BdrRowReader *reader, TupleDesc tupdesc)
{
	reader->tupdesc = tupdesc;
}

/* Points at the parts of a tuple. */
void
bdr_row_describe(HeapTuple tuple, BdrTuple *result)
{
	HeapTupleHeader header = tuple->t_data;

	result->handle = tuple;
	result->has_nulls = (header->t_infomask & HEAP_HASNULL) != 0;
	result->has_varwidth = (header->t_infomask & HEAP_HASVARWIDTH) != 0;
	result->has_external = (header->t_infomask & HEAP_HASEXTERNAL) != 0;
	result->bitmap = result->has_nulls ? (const uint8_t *) header->t_bits : NULL;
	result->data = (const uint8_t *) header + header->t_hoff;
	result->data_length = tuple->t_len > header->t_hoff ? tuple->t_len - header->t_hoff : 0;
	result->attributes = HeapTupleHeaderGetNatts(header);
}

/* What bdr_host_tuple_values needs besides the description. */
static void
PrepareReader(BdrRowReader *reader)
{
	if (reader->columns == NULL)
	{
		ColumnWriter *columns = MemoryContextAllocZero(reader->context,
													   Max(reader->ncolumns, 1) * sizeof(ColumnWriter));

		for (int i = 0; i < reader->ncolumns; i++)
		{
			columns[i].type = reader->types[i];
			columns[i].attnum = reader->attnums[i];
			columns[i].key = reader->keys[i];
		}
		reader->columns = columns;
	}
	if (reader->natts < reader->tupdesc->natts)
	{
		reader->natts = 0;
		reader->datums = MemoryContextAlloc(reader->context, reader->tupdesc->natts * sizeof(Datum));
		reader->nulls = MemoryContextAlloc(reader->context, reader->tupdesc->natts * sizeof(bool));
		reader->natts = reader->tupdesc->natts;
	}
}

static FmgrInfo *
TextWriter(BdrRowReader *reader, ColumnWriter *column)
{
	if (!column->text_ready)
	{
		Oid			function;
		bool		is_varlena;

		getTypeOutputInfo(column->type, &function, &is_varlena);
		fmgr_info_cxt(function, &column->text, reader->context);
		column->text_ready = true;
	}
	return &column->text;
}

static FmgrInfo *
BinaryWriter(BdrRowReader *reader, ColumnWriter *column)
{
	if (!column->binary_ready)
	{
		Oid			function;
		bool		is_varlena;

		getTypeBinaryOutputInfo(column->type, &function, &is_varlena);
		fmgr_info_cxt(function, &column->binary, reader->context);
		column->binary_ready = true;
	}
	return &column->binary;
}

static inline void
SetVarlena(BdrValue *value, Datum datum)
{
	struct varlena *plain = PG_DETOAST_DATUM_PACKED(datum);

	value->data = (const uint8_t *) VARDATA_ANY(plain);
	value->length = VARSIZE_ANY_EXHDR(plain);
}

/*
 * Writes values of the commonest types without their send function; false for the others. `scratch` has room for 8 bytes.
 * The formats are those of the send functions, which are fixed by the wire protocol of the server. Strings are as they
 * are stored: client_encoding is the database's while decoding (see the output plugin's startup).
 */
static bool
WriteBinaryDirectly(Oid type, Datum datum, uint8_t *scratch, BdrValue *value)
{
	switch (type)
	{
		case BYTEAOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case JSONOID:
			SetVarlena(value, datum);
			return true;
		case UUIDOID:
			value->data = (const uint8_t *) DatumGetPointer(datum);
			value->length = UUID_LEN;
			return true;
		case BOOLOID:
			scratch[0] = DatumGetBool(datum) ? 1 : 0;
			value->length = 1;
			break;
		case INT2OID:
			{
				uint16		bits = pg_hton16((uint16) DatumGetInt16(datum));

				memcpy(scratch, &bits, sizeof(bits));
				value->length = sizeof(bits);
				break;
			}
		case INT4OID:
		case OIDOID:
		case DATEOID:
		case FLOAT4OID:
			{
				/* the Datum of a float is its bits */
				uint32		bits = pg_hton32((uint32) DatumGetInt32(datum));

				memcpy(scratch, &bits, sizeof(bits));
				value->length = sizeof(bits);
				break;
			}
#ifdef USE_FLOAT8_BYVAL
		case INT8OID:
		case TIMEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case FLOAT8OID:
			{
				uint64		bits = pg_hton64((uint64) DatumGetInt64(datum));

				memcpy(scratch, &bits, sizeof(bits));
				value->length = sizeof(bits);
				break;
			}
#endif
		default:
			return false;
	}
	value->data = scratch;
	return true;
}

/* Types whose text is what is stored, for any receiver that wants no binary. */
static bool
WriteTextDirectly(Oid type, Datum datum, BdrValue *value)
{
	switch (type)
	{
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case JSONOID:
			SetVarlena(value, datum);
			return true;
		default:
			return false;
	}
}

/* Of a value that was not changed: who wrote it, and where it is. */
static void
DescribeUnchanged(Datum datum, BdrValue *value)
{
	struct varatt_external pointer;
	BdrValueVersion *version = palloc0(sizeof(BdrValueVersion));
	TimestampTz time;
	RepOriginId origin;

	VARATT_EXTERNAL_GET_POINTER(pointer, DatumGetPointer(datum));
	version->commit_time = BDR_TIME_UNKNOWN;
	if (bdr_toast_version(datum, &time, &origin))
	{
		version->commit_time = time;
		version->origin = origin;
	}
	version->raw_size = pointer.va_rawsize;
	version->external_info = pointer.va_extinfo;
	version->value_id = pointer.va_valueid;
	version->toast_table = pointer.va_toastrelid;
	value->kind = BDR_VALUE_UNCHANGED_BY;
	value->data = (const uint8_t *) version;
	value->length = sizeof(BdrValueVersion);
}

int32_t
bdr_host_tuple_values(const void *relation_handle, const void *tuple_handle, const uint8_t *binary, bool keys_only,
					  int32_t ncolumns, BdrValue *values)
{
	HOST_BEGIN();
	{
		BdrRowReader *reader = unconstify(BdrRowReader *, (const BdrRowReader *) relation_handle);
		HeapTuple	tuple = unconstify(HeapTupleData *, (const HeapTupleData *) tuple_handle);
		uint8_t    *scratch;

		if (ncolumns != reader->ncolumns)
			elog(ERROR, "bdr: %d columns were asked of a relation with %d", ncolumns, reader->ncolumns);
		PrepareReader(reader);
		scratch = palloc(Max(ncolumns, 1) * sizeof(uint64));
		/* fills in what was added later with a default, too */
		heap_deform_tuple(tuple, reader->tupdesc, reader->datums, reader->nulls);
		for (int i = 0; i < ncolumns; i++)
		{
			ColumnWriter *column = &reader->columns[i];
			BdrValue   *value = &values[i];
			Form_pg_attribute attribute = TupleDescAttr(reader->tupdesc, column->attnum - 1);
			Datum		datum = reader->datums[column->attnum - 1];

			value->data = NULL;
			value->length = 0;
			if (reader->nulls[column->attnum - 1] || (keys_only && !column->key))
			{
				value->kind = BDR_VALUE_NULL;
				continue;
			}
			/* core has put in the values that the WAL carried: what is still a pointer into the TOAST table was not changed */
			if (attribute->attlen == -1 && VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(datum)))
			{
				value->kind = BDR_VALUE_UNCHANGED;
				if (!keys_only)
					DescribeUnchanged(datum, value);
				continue;
			}
			if (binary[i])
			{
				value->kind = BDR_VALUE_BINARY;
				if (!WriteBinaryDirectly(column->type, datum, scratch + i * sizeof(uint64), value))
				{
					bytea	   *bytes = SendFunctionCall(BinaryWriter(reader, column), datum);

					value->data = (const uint8_t *) VARDATA(bytes);
					value->length = VARSIZE(bytes) - VARHDRSZ;
				}
			}
			else
			{
				value->kind = BDR_VALUE_TEXT;
				if (!WriteTextDirectly(column->type, datum, value))
				{
					char	   *text = OutputFunctionCall(TextWriter(reader, column), datum);

					value->data = (const uint8_t *) text;
					value->length = strlen(text);
				}
			}
		}
	}
	HOST_END();
	return BDR_OK;
}
