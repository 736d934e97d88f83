/*
 * compat.h: differences between the server versions 15 to 18.
 */
#ifndef BDR_COMPAT_H
#define BDR_COMPAT_H

#include "postgres.h"

#include "replication/reorderbuffer.h"
#include "replication/slot.h"
#include "storage/proc.h"
#include "utils/relcache.h"

/* The tuples of a decoded change, NULL when it has none. */
#if PG_VERSION_NUM >= 170000
#define bdr_change_old_tuple(change) ((change)->data.tp.oldtuple)
#define bdr_change_new_tuple(change) ((change)->data.tp.newtuple)
#else
#define bdr_change_old_tuple(change) ((change)->data.tp.oldtuple ? &(change)->data.tp.oldtuple->tuple : NULL)
#define bdr_change_new_tuple(change) ((change)->data.tp.newtuple ? &(change)->data.tp.newtuple->tuple : NULL)
#endif

/* The primary key's index, unless the key is deferrable. */
#if PG_VERSION_NUM >= 180000
#define bdr_primary_key_index(relation) RelationGetPrimaryKeyIndex(relation, false)
#else
#define bdr_primary_key_index(relation) RelationGetPrimaryKeyIndex(relation)
#endif

/* Whether the current user owns a database (or is superuser). */
#if PG_VERSION_NUM >= 160000
#define bdr_owns_database(oid) object_ownercheck(DatabaseRelationId, (oid), GetUserId())
#else
#define bdr_owns_database(oid) pg_database_ownercheck((oid), GetUserId())
#endif

#if PG_VERSION_NUM >= 160000
#define bdr_owns_table(oid, role) object_ownercheck(RelationRelationId, (oid), (role))
#define bdr_may_execute(oid, role) (object_aclcheck(ProcedureRelationId, (oid), (role), ACL_EXECUTE) == ACLCHECK_OK)
#define bdr_may_use_schema(oid, role) (object_aclcheck(NamespaceRelationId, (oid), (role), ACL_USAGE) == ACLCHECK_OK)
#else
#define bdr_owns_table(oid, role) pg_class_ownercheck((oid), (role))
#define bdr_may_execute(oid, role) (pg_proc_aclcheck((oid), (role), ACL_EXECUTE) == ACLCHECK_OK)
#define bdr_may_use_schema(oid, role) (pg_namespace_aclcheck((oid), (role), ACL_USAGE) == ACLCHECK_OK)
#endif

/* The local number of this backend's transaction. */
#if PG_VERSION_NUM >= 170000
#define bdr_my_lxid() (MyProc->vxid.lxid)
#else
#define bdr_my_lxid() (MyProc->lxid)
#endif

/* Whether this backend holds this lock. */
#if PG_VERSION_NUM >= 170000
#define bdr_lock_held(tag, mode) LockHeldByMe((tag), (mode), false)
#else
#define bdr_lock_held(tag, mode) LockHeldByMe((tag), (mode))
#endif

/* Slots. A slot that was invalidated keeps nothing any more; one that the server itself copies (17) is not ours to touch. */
#if PG_VERSION_NUM >= 160000
#define bdr_slot_is_invalid(slot) ((slot)->data.invalidated != RS_INVAL_NONE)
#else
#define bdr_slot_is_invalid(slot) \
	(!XLogRecPtrIsInvalid((slot)->data.invalidated_at) && XLogRecPtrIsInvalid((slot)->data.restart_lsn))
#endif
#if PG_VERSION_NUM >= 170000
#define bdr_slot_is_synced_by_server(slot) ((slot)->data.synced)
#define bdr_slot_create_temporary(name) ReplicationSlotCreate((name), true, RS_TEMPORARY, false, false, false)
#else
#define bdr_slot_is_synced_by_server(slot) false
#define bdr_slot_create_temporary(name) ReplicationSlotCreate((name), true, RS_TEMPORARY, false)
#endif
#if PG_VERSION_NUM >= 180000
#define bdr_slot_acquire(name) ReplicationSlotAcquire((name), true, true)
#else
#define bdr_slot_acquire(name) ReplicationSlotAcquire((name), true)
#endif

/* How long reading and writing shared buffers took. */
#if PG_VERSION_NUM >= 170000
#define bdr_blk_read_time shared_blk_read_time
#define bdr_blk_write_time shared_blk_write_time
#else
#define bdr_blk_read_time blk_read_time
#define bdr_blk_write_time blk_write_time
#endif

/* A logical message; as before 17, its record is flushed with the transaction. */
#if PG_VERSION_NUM >= 170000
#define bdr_log_message(prefix, content, length, transactional) \
	LogLogicalMessage((prefix), (content), (length), (transactional), false)
#else
#define bdr_log_message(prefix, content, length, transactional) \
	LogLogicalMessage((prefix), (content), (length), (transactional))
#endif

/* Memory for what a check hook hands to the assign hook. */
#if PG_VERSION_NUM >= 160000
#define bdr_guc_malloc(size) guc_malloc(LOG, (size))
#else
#define bdr_guc_malloc(size) malloc(size)
#endif

#endif
