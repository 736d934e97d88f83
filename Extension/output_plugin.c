/*
 * output_plugin.c: the callbacks of logical decoding, for walsenders that serve a peer of the group.
 *
 * C collects what the server knows (options, tuples, descriptions of relations) and hands it to the encoder in
 * Engine/Encode, which negotiates, decides and writes the messages. Per row that is one call, and no memory is allocated
 * when the row can travel raw.
 *
 * Relation numbers: a peer learns each relation once, under a number, and rows name the number. The cache here remembers
 * which relation has which. An invalidation makes the next use describe the relation again, and only a description that
 * came out differently gets a new number; so ANALYZE and the like cost the peer nothing.
 */
#include "bdr.h"
#include "compat.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "replication/logical.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "replication/origin.h"
#include "replication/output_plugin.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pidfile.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/syscache.h"

/* Entries are invalidated so often before the cache is searched for dropped tables. */
#define STALE_ENTRIES_MAX 4096

/* How long to wait between two looks at what standbys have, ms: at first, and at most. */
#define STANDBY_POLL_MIN 1
#define STANDBY_POLL_MAX 20
/* How often the peer hears of a sender that waits for standbys, ms. */
#define STANDBY_SIGN_OF_LIFE 1000

/* Rows of a partition are described under the root's name, a TRUNCATE of it under its own: two entries. */
typedef struct RelationKey
{
	Oid			relid;
	uint32		own_name;
} RelationKey;

typedef struct RelationEntry
{
	RelationKey key;			/* hash key, must be first */
	bool		valid;
	bool		built;			/* not left half made by an error */
	bool		replicated;
	bool		user_types;		/* has columns of types that can be altered */
	Oid			root;			/* whose name it is described by, when that is another relation */
	uint64		generation;		/* of the cache when it was built */
	uint64		type_generation;
	int32		number;			/* 0 until described */
	uint64		fingerprint[2]; /* of the description under that number */
	MemoryContext context;		/* NULL until described */
	BdrRowReader *reader;
	char	   *label;			/* for error messages */
} RelationEntry;

/* One decoding session. */
/* Origins remembered; more are looked up again for each of their transactions. */
#define MAX_KNOWN_ORIGINS 64

/* How the origins of a group's nodes are named (Membership/ObjectNames.swift). */
#define ORIGIN_PREFIX "bdr_"

typedef struct OutputState
{
	LogicalDecodingContext *ctx;
	MemoryContextCallback reset;
	MemoryContext row_context;	/* reset after every callback */
	MemoryContext cache_context;
	void	   *encoder;		/* Swift object, released by ReleaseEncoder */
	RepOriginId forward_origin; /* only changes of this origin are wanted; none: only ours */
	bool		sent;			/* something of this transaction went to the encoder */
	bool		skip;			/* this transaction is another node's */
	XLogRecPtr	wait_lsn;		/* standbys must have this before something is written */
	RepOriginId group_origins[MAX_KNOWN_ORIGINS];	/* origins known to be other nodes' */
	int			ngroup_origins;
	int			guc_level;		/* of our settings in a SQL session, 0 in a walsender */
	TransactionId subxid;		/* to which the changes of a piece of a streamed transaction belong */

	HTAB	   *relations;
	HTAB	   *roots;			/* OIDs of partitioned tables that entries are named by */
	RelationEntry *last;		/* of the last change */
	int32		last_number;
	int			stale;			/* entries invalidated since the last sweep */
	uint64		generation;		/* +1: every entry has to be checked */
	uint64		type_generation;	/* +1: entries with user types have to be checked */
} OutputState;

/* Invalidation callbacks can't be unregistered: they look here for the session of the process, if there is one. */
static OutputState *session = NULL;

extern PGDLLEXPORT void _PG_output_plugin_init(OutputPluginCallbacks *callbacks);

/* ---- relation cache ------------------------------------------------------------------------------------------- */

static void
InvalidateEntry(OutputState *state, RelationEntry *entry)
{
	if (entry->valid)
	{
		entry->valid = false;
		state->stale++;
	}
}

static void
RelationInvalidated(Datum arg, Oid relid)
{
	OutputState *state = session;
	RelationEntry *entry;
	RelationKey key = {0};

	if (state == NULL)
		return;
	if (!OidIsValid(relid))
	{
		state->generation++;
		return;
	}
	key.relid = relid;
	for (key.own_name = 0; key.own_name <= 1; key.own_name++)
	{
		entry = hash_search(state->relations, &key, HASH_FIND, NULL);
		if (entry)
			InvalidateEntry(state, entry);
	}
	if (hash_search(state->roots, &relid, HASH_FIND, NULL))
	{
		HASH_SEQ_STATUS scan;

		hash_seq_init(&scan, state->relations);
		while ((entry = hash_seq_search(&scan)) != NULL)
		{
			if (entry->root == relid)
				InvalidateEntry(state, entry);
		}
	}
}

static void
NamespaceInvalidated(Datum arg, int cacheid, uint32 hashvalue)
{
	if (session)
		session->generation++;
}

/* Numbers of origins are used again. */
static void
OriginInvalidated(Datum arg, int cacheid, uint32 hashvalue)
{
	if (session)
		session->ngroup_origins = 0;
}

static void
TypeInvalidated(Datum arg, int cacheid, uint32 hashvalue)
{
	if (session)
		session->type_generation++;
}

static void
InitRelationCache(OutputState *state)
{
	static bool registered = false;
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(RelationKey);
	ctl.entrysize = sizeof(RelationEntry);
	ctl.hcxt = state->cache_context;
	state->relations = hash_create("bdr output relations", 128, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(Oid);
	state->roots = hash_create("bdr output partition roots", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	session = state;
	if (!registered)
	{
		CacheRegisterRelcacheCallback(RelationInvalidated, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, NamespaceInvalidated, (Datum) 0);
		CacheRegisterSyscacheCallback(TYPEOID, TypeInvalidated, (Datum) 0);
		CacheRegisterSyscacheCallback(REPLORIGIDENT, OriginInvalidated, (Datum) 0);
		registered = true;
	}
}

/*
 * Forgets the entries of tables that are gone, once many entries have been invalidated. Called at the begin of a
 * transaction, when no entry is in use; if its snapshot is too old to see a table, that one is described again later.
 */
static void
SweepRelationCache(OutputState *state)
{
	HASH_SEQ_STATUS scan;
	RelationEntry *entry;

	if (state->stale < STALE_ENTRIES_MAX)
		return;
	state->stale = 0;
	state->last = NULL;
	hash_seq_init(&scan, state->relations);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		if (entry->valid || SearchSysCacheExists1(RELOID, ObjectIdGetDatum(entry->key.relid)))
			continue;
		if (entry->number != 0)
			bdr_engine_output_forget(state->encoder, entry->number);
		if (entry->context)
			MemoryContextDelete(entry->context);
		hash_search(state->relations, &entry->key, HASH_REMOVE, NULL);
	}
}

/* A name in UTF-8, as names travel. */
static const char *
ToUtf8(const char *name)
{
	return pg_server_to_any(name, strlen(name), PG_UTF8);
}

/*
 * True when values of the type mean the same on every server in binary: types of initdb with both functions, except those
 * whose binary form holds OIDs of other objects (reg* types, composite types, and what contains them).
 */
static bool
HasPortableBinary(Oid type)
{
	HeapTuple	tuple;
	Form_pg_type form;
	bool		portable;
	Oid			element = InvalidOid;

	if (type >= FirstGenbkiObjectId)
		return false;
	switch (type)
	{
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGCOLLATIONOID:
		case REGTYPEOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
			return false;
		default:
			break;
	}
	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for type %u", type);
	form = (Form_pg_type) GETSTRUCT(tuple);
	portable = (form->typtype == TYPTYPE_BASE || form->typtype == TYPTYPE_RANGE ||
				form->typtype == TYPTYPE_MULTIRANGE) &&
		OidIsValid(form->typsend) && OidIsValid(form->typreceive);
	if (portable && IsTrueArrayType(form))
		element = form->typelem;
	else if (portable && form->typtype == TYPTYPE_RANGE)
		element = get_range_subtype(type);
	else if (portable && form->typtype == TYPTYPE_MULTIRANGE)
		element = get_multirange_range(type);
	ReleaseSysCache(tuple);
	return portable && (!OidIsValid(element) || HasPortableBinary(element));
}

/* Attribute numbers (offset as in a Bitmapset of the relcache) of the columns that identify a row, NULL for none. */
static Bitmapset *
IdentityColumns(Relation relation)
{
	Bitmapset  *columns = NULL;
	Oid			index_oid;
	Relation	index;

	if (relation->rd_rel->relreplident == REPLICA_IDENTITY_FULL)
		index_oid = bdr_primary_key_index(relation);
	else
		index_oid = RelationGetReplicaIndex(relation);
	if (!OidIsValid(index_oid))
		return NULL;
	index = RelationIdGetRelation(index_oid);
	if (!RelationIsValid(index))
		elog(ERROR, "could not open relation with OID %u", index_oid);
	for (int i = 0; i < index->rd_index->indnkeyatts; i++)
	{
		AttrNumber	attnum = index->rd_index->indkey.values[i];

		if (attnum != 0)
			columns = bms_add_member(columns, attnum - FirstLowInvalidHeapAttributeNumber);
	}
	RelationClose(index);
	return columns;
}

/* Whether rows of the relation are replicated at all, by what the catalogs say of it. */
static bool
IsReplicated(Relation relation)
{
	char	   *schema;

	if (relation->rd_rel->relkind != RELKIND_RELATION && relation->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return false;
	if (relation->rd_rel->relpersistence != RELPERSISTENCE_PERMANENT || OidIsValid(relation->rd_rel->relrewrite))
		return false;
	if (IsCatalogNamespace(RelationGetNamespace(relation)) || IsToastNamespace(RelationGetNamespace(relation)))
		return false;
	schema = get_namespace_name(RelationGetNamespace(relation));
	if (schema == NULL)
		elog(ERROR, "cache lookup failed for namespace %u", RelationGetNamespace(relation));
	if (strcmp(schema, "information_schema") == 0 || strcmp(schema, BDR_SCHEMA) == 0)
		return false;
	return !OidIsValid(getExtensionOfObject(RelationRelationId, RelationGetRelid(relation)));
}

static void
HashBytes(uint64 fingerprint[2], const void *bytes, size_t length)
{
	fingerprint[0] = hash_combine64(fingerprint[0], hash_bytes_extended(bytes, (int) length, 0x6264720000000001));
	fingerprint[1] = hash_combine64(fingerprint[1], hash_bytes_extended(bytes, (int) length, 0x6264720000000002));
}

static void
HashString(uint64 fingerprint[2], const char *string)
{
	HashBytes(fingerprint, string, strlen(string) + 1);
}

/* All that the peer is told of a relation, and the attribute numbers that only we need. */
static void
Fingerprint(const BdrRelationDesc *description, const int16 *attnums, uint64 fingerprint[2])
{
	fingerprint[0] = fingerprint[1] = 0;
	HashString(fingerprint, description->namespace_name);
	HashString(fingerprint, description->name);
	HashBytes(fingerprint, &description->replica_identity, 1);
	HashBytes(fingerprint, &description->plain_layout, 1);
	HashBytes(fingerprint, &description->ncolumns, sizeof(description->ncolumns));
	for (int i = 0; i < description->ncolumns; i++)
	{
		const BdrColumnDesc *column = &description->columns[i];
		uint8		flags[4] = {column->attalign, column->by_value, column->key, column->binary_io};

		HashString(fingerprint, column->name);
		HashString(fingerprint, column->type_namespace);
		HashString(fingerprint, column->type_name);
		HashBytes(fingerprint, &column->builtin_type, sizeof(column->builtin_type));
		HashBytes(fingerprint, &column->type, sizeof(column->type));
		HashBytes(fingerprint, &column->typmod, sizeof(column->typmod));
		HashBytes(fingerprint, &column->attlen, sizeof(column->attlen));
		HashBytes(fingerprint, flags, sizeof(flags));
		HashBytes(fingerprint, &attnums[i], sizeof(attnums[i]));
	}
}

/*
 * What a peer is told of a relation, in memory of the current context; attnums are the attribute numbers of the columns.
 */
void
bdr_describe_relation(Relation relation, const char *schema, const char *name, BdrRelationDesc *result, int16 **attnums_result,
					  bool *user_types_result)
{
	TupleDesc	tupdesc = RelationGetDescr(relation);
	BdrRelationDesc description = {0};
	BdrColumnDesc *columns = palloc0(Max(tupdesc->natts, 1) * sizeof(BdrColumnDesc));
	int16	   *attnums = palloc(Max(tupdesc->natts, 1) * sizeof(int16));
	Bitmapset  *identity = IdentityColumns(relation);
	bool		full = relation->rd_rel->relreplident == REPLICA_IDENTITY_FULL;
	bool		user_types = false;

	/* an identity with a generated column can't be sent whole, so it is none */
	for (int i = 0; i < tupdesc->natts; i++)
	{
		if (TupleDescAttr(tupdesc, i)->attgenerated != '\0' &&
			bms_is_member(i + 1 - FirstLowInvalidHeapAttributeNumber, identity))
		{
			bms_free(identity);
			identity = NULL;
			break;
		}
	}

	description.oid = RelationGetRelid(relation);
	description.namespace_name = ToUtf8(schema);
	description.name = ToUtf8(name);
	description.replica_identity = relation->rd_rel->relreplident;
	description.plain_layout = 1;
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(tupdesc, i);
		BdrColumnDesc *column;
		HeapTuple	tuple;
		Form_pg_type type;
		char	   *type_schema;

		if (attribute->attisdropped || attribute->attgenerated != '\0')
		{
			description.plain_layout = 0;
			continue;
		}
		tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(attribute->atttypid));
		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for type %u", attribute->atttypid);
		type = (Form_pg_type) GETSTRUCT(tuple);
		type_schema = get_namespace_name(type->typnamespace);
		if (type_schema == NULL)
			elog(ERROR, "cache lookup failed for namespace %u", type->typnamespace);
		column = &columns[description.ncolumns];
		attnums[description.ncolumns++] = attribute->attnum;
		column->name = ToUtf8(NameStr(attribute->attname));
		column->type_namespace = ToUtf8(type_schema);
		column->type_name = ToUtf8(pstrdup(NameStr(type->typname)));
		ReleaseSysCache(tuple);
		column->builtin_type = attribute->atttypid < FirstGenbkiObjectId ? attribute->atttypid : InvalidOid;
		column->type = attribute->atttypid;
		column->typmod = attribute->atttypmod;
		column->attlen = attribute->attlen;
		column->attalign = attribute->attalign;
		column->by_value = attribute->attbyval;
		column->key = bms_is_member(attribute->attnum - FirstLowInvalidHeapAttributeNumber, identity) ||
			(full && identity == NULL);
		column->binary_io = HasPortableBinary(attribute->atttypid);
		user_types |= attribute->atttypid >= FirstGenbkiObjectId;
	}
	description.columns = columns;
	*result = description;
	*attnums_result = attnums;
	*user_types_result = user_types;
}

/*
 * Describes the relation to the encoder, under a new number unless it is described as before. Works from the catalogs as
 * they were at the change being decoded (a historic snapshot is active).
 */
static void
DescribeRelation(OutputState *state, RelationEntry *entry, Relation relation)
{
	BdrRelationDesc description;
	int16	   *attnums;
	Oid			name_schema = RelationGetNamespace(relation);
	char	   *name = RelationGetRelationName(relation);
	char	   *schema;
	bool		user_types;
	uint64		fingerprint[2];
	MemoryContext caller;

	entry->root = InvalidOid;
	if (relation->rd_rel->relispartition && !entry->key.own_name)
	{
		List	   *ancestors = get_partition_ancestors(RelationGetRelid(relation));

		if (ancestors != NIL)
		{
			entry->root = llast_oid(ancestors);
			(void) hash_search(state->roots, &entry->root, HASH_ENTER, NULL);
			name = get_rel_name(entry->root);
			name_schema = get_rel_namespace(entry->root);
			if (name == NULL)
				elog(ERROR, "cache lookup failed for relation %u", entry->root);
		}
	}
	schema = get_namespace_name(name_schema);
	if (schema == NULL)
		elog(ERROR, "cache lookup failed for namespace %u", name_schema);

	bdr_describe_relation(relation, schema, name, &description, &attnums, &user_types);
	entry->user_types = user_types;

	Fingerprint(&description, attnums, fingerprint);
	if (entry->number == 0 || memcmp(fingerprint, entry->fingerprint, sizeof(fingerprint)) != 0)
	{
		int32		old_number = entry->number;
		MemoryContext old_context = entry->context;

		if (state->last_number == PG_INT32_MAX)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("too many relations were described on this connection"),
					 errhint("The peer connects again by itself.")));
		entry->number = 0;
		entry->reader = NULL;
		entry->context = NULL;
		if (old_context)
			MemoryContextDelete(old_context);
		ENGINE_CALL(bdr_engine_output_relation(state->encoder, state->last_number + 1, old_number, &description));
		entry->number = ++state->last_number;
		memcpy(entry->fingerprint, fingerprint, sizeof(fingerprint));
	}
	else
	{
		/* described as before; still, functions of its types may be others now */
		MemoryContextReset(entry->context);
		entry->reader = NULL;
	}
	if (entry->context == NULL)
		entry->context = AllocSetContextCreate(state->cache_context, "bdr output relation", ALLOCSET_SMALL_SIZES);
	entry->reader = bdr_row_reader_create(entry->context, &description, attnums);
	caller = MemoryContextSwitchTo(entry->context);
	entry->label = psprintf("%s.%s", schema, name);
	MemoryContextSwitchTo(caller);
}

/*
 * The relation's entry, described to the encoder when it is replicated. The pointer is good until the next transaction.
 */
static RelationEntry *
GetRelation(OutputState *state, Relation relation, bool own_name)
{
	RelationEntry *entry = state->last;
	RelationKey key = {0};
	bool		found;

	key.relid = RelationGetRelid(relation);
	key.own_name = own_name && relation->rd_rel->relispartition;
	if (entry == NULL || entry->key.relid != key.relid || entry->key.own_name != key.own_name)
	{
		entry = hash_search(state->relations, &key, HASH_ENTER, &found);
		if (!found)
			memset((char *) entry + sizeof(RelationKey), 0, sizeof(RelationEntry) - sizeof(RelationKey));
		state->last = entry;
	}
	if (entry->valid && entry->built && entry->generation == state->generation &&
		(!entry->user_types || entry->type_generation == state->type_generation))
		return entry;

	/*
	 * An invalidation while the entry is built makes it be built again for the next change, and so does an error: that need not
	 * end the session, as the server goes on after one that says that a transaction in progress has been rolled back meanwhile.
	 */
	entry->built = false;
	entry->valid = true;
	entry->generation = state->generation;
	entry->type_generation = state->type_generation;
	entry->replicated = IsReplicated(relation);
	if (entry->replicated)
		DescribeRelation(state, entry, relation);
	entry->built = true;
	return entry;
}

/* ---- start and end -------------------------------------------------------------------------------------------- */

/*
 * Gives the Swift object back. It must not outlive the decoding context, also when that ends by an ERROR: this is a reset
 * callback of the context, too.
 */
static void
ReleaseEncoder(void *arg)
{
	OutputState *state = arg;
	void	   *encoder = state->encoder;

	state->encoder = NULL;
	if (session == state)
		session = NULL;
	/* a process that ends may still have frames of the encoder on its stack */
	if (encoder && !proc_exit_inprogress)
		bdr_engine_output_free(encoder);
}

/*
 * Settings that change how values are written as text, or that could cancel decoding: fixed, whatever ALTER SYSTEM,
 * DATABASE or ROLE or the connection say.
 */
static void
FixSettings(OutputState *state)
{
	static const struct
	{
		const char *name;
		const char *value;
		int			since;
	}			settings[] = {
		{"datestyle", "ISO", 0},
		{"intervalstyle", "postgres", 0},
		{"extra_float_digits", "3", 0},
		{"bytea_output", "hex", 0},
		{"xmlbinary", "base64", 0},
		{"lc_monetary", "C", 0},
		{"bdr.crdt_raw_value", "on", 0},
		{"search_path", "pg_catalog", 0},
		{"statement_timeout", "0", 0},
		{"lock_timeout", "0", 0},
		{"idle_in_transaction_session_timeout", "0", 0},
		{"idle_session_timeout", "0", 0},
		{"transaction_timeout", "0", 170000},
	};

	/* In a SQL session the settings last until the function ends; an abort of the (sub)transaction takes them back, too. */
	if (!am_walsender)
		state->guc_level = NewGUCNestLevel();
	for (int i = 0; i < lengthof(settings); i++)
	{
		if (settings[i].since > PG_VERSION_NUM)
			continue;
		if (am_walsender)
			SetConfigOption(settings[i].name, settings[i].value, PGC_SUSET, PGC_S_OVERRIDE);
		else if (strstr(settings[i].name, "timeout") == NULL)
			(void) set_config_option(settings[i].name, settings[i].value, PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
	}

	/* the peer would print warnings that are meant for this server's log */
	if (am_walsender)
		SetConfigOption("client_min_messages", "error", PGC_USERSET, PGC_S_OVERRIDE);
	/* send functions convert strings to the client's encoding; the peer's is ours (checked by the encoder) */
	if (am_walsender)
		SetConfigOption("client_encoding", GetDatabaseEncodingName(), PGC_USERSET, PGC_S_OVERRIDE);
	else if (pg_get_client_encoding() != GetDatabaseEncoding())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("client_encoding must be the encoding of the database for decoding with output plugin \"%s\"",
						BDR_PLUGIN),
				 errhint("SET client_encoding = '%s'.", GetDatabaseEncodingName())));
}

static void
Startup(LogicalDecodingContext *ctx, OutputPluginOptions *options, bool is_init)
{
	OutputState *state = MemoryContextAllocZero(ctx->context, sizeof(OutputState));
	int			noptions = list_length(ctx->output_plugin_options);
	BdrOption  *given;
	ResourceOwner owner = CurrentResourceOwner;
	ListCell   *lc;
	int			i = 0;

	/* from 16 on decoding is possible there, but a standby is not the node, and its peers' slots are not theirs to move */
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("this server is a standby and sends nothing to other nodes"),
				 errhint("Connect to the primary, or promote this server: SELECT pg_promote();")));
	options->output_type = OUTPUT_PLUGIN_BINARY_OUTPUT;
	options->receive_rewrites = false;
	state->ctx = ctx;
	ctx->output_plugin_private = state;
	if (is_init)
	{
		ctx->streaming = false;
		bdr_sent_forget();
		return;
	}

	state->reset.func = ReleaseEncoder;
	state->reset.arg = state;
	MemoryContextRegisterResetCallback(ctx->context, &state->reset);
	state->row_context = AllocSetContextCreate(ctx->context, "bdr output row", ALLOCSET_DEFAULT_SIZES);
	state->cache_context = AllocSetContextCreate(ctx->context, "bdr output relations", ALLOCSET_DEFAULT_SIZES);

	FixSettings(state);
	given = palloc0(Max(noptions, 1) * sizeof(BdrOption));
	foreach(lc, ctx->output_plugin_options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		given[i].name = option->defname;
		given[i].value = option->arg ? strVal(option->arg) : NULL;
		i++;
	}
	ENGINE_CALL(bdr_engine_output_startup(given, noptions, is_init, state, &state->encoder));
	/* the transaction that the checks ran in, if they needed one, has left these as every transaction does */
	MemoryContextSwitchTo(ctx->context);
	CurrentResourceOwner = owner;
	pfree(given);
	state->forward_origin = bdr_engine_output_forward_origin(state->encoder);
	ctx->streaming = ctx->streaming && state->forward_origin == InvalidRepOriginId &&
		bdr_engine_output_streams(state->encoder);
	InitRelationCache(state);
	bdr_send_batch_start(ctx->reader);
}

static void
Shutdown(LogicalDecodingContext *ctx)
{
	OutputState *state = ctx->output_plugin_private;

	if (state == NULL)
		return;
	bdr_send_batch_start(NULL);
	if (state->guc_level > 0)
		AtEOXact_GUC(false, state->guc_level);
	ReleaseEncoder(state);
}

/* ---- transactions --------------------------------------------------------------------------------------------- */

/*
 * Transactions that were applied here for another node of the group are that node's to send. What came here by other
 * replication (a native subscription, pglogical) enters the group here, and is sent as this node's.
 *
 * Asked for every WAL record that could belong to a transaction, outside of any, where catalogs can't be read: so an origin's
 * first transaction is collected, found out by the name of the origin in Begin, and skipped there; the others end here.
 */
static bool
FilterByOrigin(LogicalDecodingContext *ctx, RepOriginId origin)
{
	OutputState *state = ctx->output_plugin_private;

	if (state->forward_origin != InvalidRepOriginId)
		return origin != state->forward_origin;
	if (origin == InvalidRepOriginId)
		return false;
	for (int i = 0; i < state->ngroup_origins; i++)
	{
		if (state->group_origins[i] == origin)
			return true;
	}
	return false;
}

/* Whether a transaction is not for this stream. An origin without a name is that of a node that has left. */
static bool
IsUnwanted(OutputState *state, RepOriginId origin, const char *name)
{
	if (state->forward_origin != InvalidRepOriginId)
		return origin != state->forward_origin;
	if (origin == InvalidRepOriginId)
		return false;
	if (name != NULL && strncmp(name, ORIGIN_PREFIX, strlen(ORIGIN_PREFIX)) != 0)
		return false;
	if (state->ngroup_origins < MAX_KNOWN_ORIGINS)
		state->group_origins[state->ngroup_origins++] = origin;
	return true;
}

static void
Begin(LogicalDecodingContext *ctx, ReorderBufferTXN *txn)
{
	OutputState *state = ctx->output_plugin_private;
	MemoryContext caller = MemoryContextSwitchTo(state->row_context);
	char	   *origin_name = NULL;

	state->sent = false;
	state->skip = false;
	state->wait_lsn = txn->end_lsn;
	SweepRelationCache(state);
	if (txn->origin_id != InvalidRepOriginId && !replorigin_by_oid(txn->origin_id, true, &origin_name))
		origin_name = NULL;
	if (IsUnwanted(state, txn->origin_id, origin_name))
	{
		state->skip = true;
		MemoryContextSwitchTo(caller);
		MemoryContextReset(state->row_context);
		return;
	}
	ENGINE_CALL(bdr_engine_output_begin(state->encoder, txn->xid, txn->final_lsn, txn->xact_time.commit_time,
										txn->origin_lsn));
	MemoryContextSwitchTo(caller);
	MemoryContextReset(state->row_context);
}

static void
Commit(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, XLogRecPtr commit_lsn)
{
	OutputState *state = ctx->output_plugin_private;
	MemoryContext caller = MemoryContextSwitchTo(state->row_context);
	bool		sent;

	OutputPluginUpdateProgress(ctx, !state->sent);
	if (state->skip)
	{
		MemoryContextSwitchTo(caller);
		return;
	}
	ENGINE_CALL(bdr_engine_output_commit(state->encoder, commit_lsn, txn->end_lsn, txn->xact_time.commit_time, &sent));
	if (sent)
		bdr_sent_commit(commit_lsn);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(state->row_context);
}

/*
 * Keeps the connection alive while a long transaction is decoded of which nothing is sent. From 16 on the server does
 * this by itself.
 */
static void
KeepAlive(LogicalDecodingContext *ctx)
{
#if PG_VERSION_NUM < 160000
	static int	changes = 0;

	if (++changes >= 100)
	{
		changes = 0;
		OutputPluginUpdateProgress(ctx, false);
	}
#endif
}

/* ---- changes -------------------------------------------------------------------------------------------------- */

static void
RowContextLine(void *arg)
{
	errcontext("encoding a row of table \"%s\"", (const char *) arg);
}

/* In a streamed transaction: changes of which subtransaction follow. */
static void
NameSubtransaction(OutputState *state, ReorderBufferChange *change)
{
	TransactionId subxid = change->txn->xid;

	if (state->subxid == InvalidTransactionId || state->subxid == subxid)
		return;
	ENGINE_CALL(bdr_engine_output_subtransaction(state->encoder, subxid));
	state->subxid = subxid;
}

static void
Change(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, Relation relation, ReorderBufferChange *change)
{
	OutputState *state = ctx->output_plugin_private;
	MemoryContext caller = MemoryContextSwitchTo(state->row_context);
	RelationEntry *entry;

	KeepAlive(ctx);
	entry = state->skip ? NULL : GetRelation(state, relation, false);
	if (entry && entry->replicated)
	{
		HeapTuple	old_tuple = bdr_change_old_tuple(change);
		HeapTuple	new_tuple = bdr_change_new_tuple(change);
		BdrTuple	old_row;
		BdrTuple	new_row;
		BdrChange	row = {0};
		ErrorContextCallback callback;

		NameSubtransaction(state, change);

		switch (change->action)
		{
			case REORDER_BUFFER_CHANGE_INSERT:
				row.action = BDR_INSERT;
				break;
			case REORDER_BUFFER_CHANGE_UPDATE:
				row.action = BDR_UPDATE;
				break;
			case REORDER_BUFFER_CHANGE_DELETE:
				row.action = BDR_DELETE;
				break;
			default:
				elog(ERROR, "bdr: unexpected change %d of a row", (int) change->action);
		}
		row.relation = entry->number;
		row.relation_handle = entry->reader;
		if (old_tuple)
		{
			bdr_row_describe(old_tuple, &old_row);
			row.old_tuple = &old_row;
		}
		if (new_tuple)
		{
			bdr_row_describe(new_tuple, &new_row);
			row.new_tuple = &new_row;
		}
		bdr_row_reader_use(entry->reader, RelationGetDescr(relation));

		callback.callback = RowContextLine;
		callback.arg = entry->label;
		callback.previous = error_context_stack;
		error_context_stack = &callback;
		state->sent = true;
		ENGINE_CALL(bdr_engine_output_change(state->encoder, &row));
		error_context_stack = callback.previous;
	}
	MemoryContextSwitchTo(caller);
	MemoryContextReset(state->row_context);
}

static bool
HasListedAncestor(Relation relation, List *listed)
{
	ListCell   *lc;

	if (!relation->rd_rel->relispartition || listed == NIL)
		return false;
	foreach(lc, get_partition_ancestors(RelationGetRelid(relation)))
	{
		if (list_member_oid(listed, lfirst_oid(lc)))
			return true;
	}
	return false;
}

/*
 * The WAL lists every table that was truncated, and partitioned tables that were named or cascaded to. A partition below a
 * table of the list goes without saying; else it is named by its own name, as only its rows are gone.
 */
static void
Truncate(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, int nrelations, Relation relations[],
		 ReorderBufferChange *change)
{
	OutputState *state = ctx->output_plugin_private;
	MemoryContext caller = MemoryContextSwitchTo(state->row_context);
	int32	   *numbers = palloc(Max(nrelations, 1) * sizeof(int32));
	List	   *listed = NIL;
	int			n = 0;

	KeepAlive(ctx);
	if (state->skip)
		nrelations = 0;
	for (int i = 0; i < nrelations; i++)
	{
		if (relations[i]->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
			listed = lappend_oid(listed, RelationGetRelid(relations[i]));
	}
	for (int i = 0; i < nrelations; i++)
	{
		Relation	relation = relations[i];
		RelationEntry *entry;

		if (HasListedAncestor(relation, listed))
			continue;
		entry = GetRelation(state, relation, true);
		if (entry->replicated)
			numbers[n++] = entry->number;
	}
	if (n > 0)
	{
		NameSubtransaction(state, change);
		state->sent = true;
		ENGINE_CALL(bdr_engine_output_truncate(state->encoder, n, numbers, change->data.truncate.cascade,
											   change->data.truncate.restart_seqs));
	}
	MemoryContextSwitchTo(caller);
	MemoryContextReset(state->row_context);
}

static void
Message(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, XLogRecPtr message_lsn, bool transactional,
		const char *prefix, Size message_size, const char *message)
{
	OutputState *state = ctx->output_plugin_private;
	MemoryContext caller = MemoryContextSwitchTo(state->row_context);

	KeepAlive(ctx);
	/* other software's messages are none of our peers' business */
	if (strncmp(prefix, "bdr", 3) == 0 &&
		(transactional ? !state->skip : state->forward_origin == InvalidRepOriginId))
	{
		if (transactional)
			state->sent = true;
		ENGINE_CALL(bdr_engine_output_message(state->encoder, transactional, message_lsn, ToUtf8(prefix),
											  (const uint8_t *) message, message_size));
	}
	MemoryContextSwitchTo(caller);
	MemoryContextReset(state->row_context);
}

/* ---- transactions in progress ----------------------------------------------------------------------------------- */

/*
 * A transaction for which decoding has not enough memory is sent in pieces while it goes on, if the peer has asked for that
 * (streaming); and then rolled back there if it is rolled back here. txn->output_plugin_private says that something was sent.
 */
static void
StreamStart(LogicalDecodingContext *ctx, ReorderBufferTXN *txn)
{
	OutputState *state = ctx->output_plugin_private;
	MemoryContext caller = MemoryContextSwitchTo(state->row_context);

	state->sent = false;
	state->skip = false;
	/* whoever gets it does not make it durable before it is committed here */
	state->wait_lsn = InvalidXLogRecPtr;
	state->subxid = txn->xid;
	SweepRelationCache(state);
	ENGINE_CALL(bdr_engine_output_stream_start(state->encoder, txn->xid));
	MemoryContextSwitchTo(caller);
	MemoryContextReset(state->row_context);
}

static void
StreamStop(LogicalDecodingContext *ctx, ReorderBufferTXN *txn)
{
	OutputState *state = ctx->output_plugin_private;
	MemoryContext caller = MemoryContextSwitchTo(state->row_context);

	state->subxid = InvalidTransactionId;
	ENGINE_CALL(bdr_engine_output_stream_stop(state->encoder));
	if (state->sent)
		txn->output_plugin_private = state;
	MemoryContextSwitchTo(caller);
	MemoryContextReset(state->row_context);
}

/*
 * The origin of a transaction is known of its changes only, until it is committed. One that has come here from another node is
 * sent by that one.
 */
static bool
IsOthersChange(OutputState *state, ReorderBufferChange *change)
{
	char	   *name = NULL;

	if (change->origin_id == InvalidRepOriginId)
		return false;
	if (!replorigin_by_oid(change->origin_id, true, &name))
		name = NULL;
	return IsUnwanted(state, change->origin_id, name);
}

static void
StreamChange(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, Relation relation, ReorderBufferChange *change)
{
	OutputState *state = ctx->output_plugin_private;

	state->skip = IsOthersChange(state, change);
	Change(ctx, txn, relation, change);
}

static void
StreamTruncate(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, int nrelations, Relation relations[],
			   ReorderBufferChange *change)
{
	OutputState *state = ctx->output_plugin_private;

	state->skip = IsOthersChange(state, change);
	Truncate(ctx, txn, nrelations, relations, change);
}

/* Of a subtransaction, or of all. */
static void
StreamAbort(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, XLogRecPtr abort_lsn)
{
	OutputState *state = ctx->output_plugin_private;
	MemoryContext caller = MemoryContextSwitchTo(state->row_context);
	ReorderBufferTXN *top = txn->toptxn ? txn->toptxn : txn;

	if (top->output_plugin_private != NULL)
		ENGINE_CALL(bdr_engine_output_stream_abort(state->encoder, top->xid, txn->xid));
	MemoryContextSwitchTo(caller);
	MemoryContextReset(state->row_context);
}

static void
StreamCommit(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, XLogRecPtr commit_lsn)
{
	OutputState *state = ctx->output_plugin_private;
	MemoryContext caller = MemoryContextSwitchTo(state->row_context);
	bool		sent = txn->output_plugin_private != NULL;

	OutputPluginUpdateProgress(ctx, !sent);
	if (sent)
	{
		state->wait_lsn = txn->end_lsn;
		ENGINE_CALL(bdr_engine_output_stream_commit(state->encoder, txn->xid, commit_lsn, txn->end_lsn,
													txn->xact_time.commit_time));
		bdr_sent_commit(commit_lsn);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextReset(state->row_context);
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

/*
 * Whether the server is being shut down. A walsender is not told before it is back in its main loop, which it can't be while
 * it waits here; and the server would wait for it.
 */
static bool
ServerIsStopping(void)
{
	FILE	   *file = AllocateFile("postmaster.pid", "r");
	char		line[MAXPGPATH];
	bool		stopping = false;

	if (file == NULL)
		return false;
	for (int number = 1; fgets(line, sizeof(line), file) != NULL; number++)
	{
		if (number == LOCK_FILE_LINE_PM_STATUS)
			stopping = strncmp(line, PM_STATUS_STOPPING, strlen(PM_STATUS_STOPPING)) == 0;
	}
	FreeFile(file);
	return stopping;
}

/*
 * Waits until the standbys of bdr.standby_slot_names have the transaction that is about to be written. Empty frames keep the
 * peer from taking this node for dead; writing them also deals with what the peer sends.
 */
static void
WaitForStandbys(OutputState *state)
{
	LogicalDecodingContext *ctx = state->ctx;
	XLogRecPtr	lsn = state->wait_lsn;
	TimestampTz begin = GetCurrentTimestamp();
	TimestampTz sign = begin;
	long		pause = STANDBY_POLL_MIN;

	state->wait_lsn = InvalidXLogRecPtr;
	if (!am_walsender || bdr_standby_has(lsn, 0))
		return;
	bdr_send_batch_flush();
	while (!bdr_standby_has(lsn, TimestampDifferenceMilliseconds(begin, GetCurrentTimestamp())))
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, pause, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			SyncRepInitConfig();
		}
		pause = Min(pause * 2, STANDBY_POLL_MAX);
		if (TimestampDifferenceExceeds(sign, GetCurrentTimestamp(), STANDBY_SIGN_OF_LIFE))
		{
			sign = GetCurrentTimestamp();
			if (ServerIsStopping())
				ereport(ERROR,
						(errcode(ERRCODE_ADMIN_SHUTDOWN),
						 errmsg("the server is shutting down before standbys have what is to be sent"),
						 errdetail("Changes up to %X/%X are sent when the server is back.", LSN_FORMAT_ARGS(lsn))));
			OutputPluginPrepareWrite(ctx, false);
			appendStringInfoChar(ctx->out, '\0');
			OutputPluginWrite(ctx, false);
		}
	}
	/* the main loop looks whether there is more */
	SetLatch(MyLatch);
}

int32_t
bdr_host_output_write(void *output, const uint8_t *prefix, size_t prefix_length, const uint8_t *data, size_t length,
					  bool last)
{
	HOST_BEGIN();
	{
		OutputState *state = output;
		LogicalDecodingContext *ctx = state->ctx;

		if (prefix_length > MaxAllocSize / 2 || length > MaxAllocSize / 2)
			elog(ERROR, "bdr: a frame of %zu bytes is too large", prefix_length + length);
		if (state->wait_lsn != InvalidXLogRecPtr)
			WaitForStandbys(state);
		OutputPluginPrepareWrite(ctx, last);
		appendBinaryStringInfo(ctx->out, (const char *) prefix, (int) prefix_length);
		appendBinaryStringInfo(ctx->out, (const char *) data, (int) length);
		bdr_send_batch_writing(true);
		OutputPluginWrite(ctx, last);
		bdr_send_batch_writing(false);
	}
	HOST_END();
	return BDR_OK;
}

void
_PG_output_plugin_init(OutputPluginCallbacks *callbacks)
{
	callbacks->startup_cb = Startup;
	callbacks->begin_cb = Begin;
	callbacks->change_cb = Change;
	callbacks->truncate_cb = Truncate;
	callbacks->commit_cb = Commit;
	callbacks->message_cb = Message;
	callbacks->filter_by_origin_cb = FilterByOrigin;
	callbacks->stream_start_cb = StreamStart;
	callbacks->stream_stop_cb = StreamStop;
	callbacks->stream_abort_cb = StreamAbort;
	callbacks->stream_commit_cb = StreamCommit;
	callbacks->stream_change_cb = StreamChange;
	callbacks->stream_message_cb = Message;
	callbacks->stream_truncate_cb = StreamTruncate;
	callbacks->shutdown_cb = Shutdown;
}
