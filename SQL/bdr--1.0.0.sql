/* bdr--1.0.0.sql: roles, catalog, functions and views of schema bdr */

\echo Use "CREATE EXTENSION bdr" to load this file. \quit

-- ---------------------------------------------------------------------------------------------------------------------
-- Roles. They belong to the server, not to this database: they may exist already, another database may be creating them
-- at this moment, and they stay when the extension is dropped.
-- ---------------------------------------------------------------------------------------------------------------------

DO LANGUAGE plpgsql $roles$
DECLARE
	roles pg_catalog.text[] := ARRAY[
		'bdr_superuser', 'manages nodes and groups: all rights in schema bdr',
		'bdr_read_all_stats', 'reads the state of replication',
		'bdr_monitor', 'reads the state of replication and runs the monitoring functions',
		'bdr_application', 'uses bdr functions that applications need',
		'bdr_read_all_conflicts', 'reads the history of all conflicts'];
BEGIN
	FOR i IN 1 .. pg_catalog.array_length(roles, 1) BY 2 LOOP
		IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = roles[i]) THEN
			BEGIN
				EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', roles[i]);
				EXECUTE pg_catalog.format('COMMENT ON ROLE %I IS %L', roles[i], roles[i + 1]);
			EXCEPTION WHEN duplicate_object OR unique_violation THEN
				NULL;
			END;
		END IF;
	END LOOP;
	IF NOT pg_catalog.pg_has_role('bdr_monitor', 'bdr_read_all_stats', 'MEMBER') THEN
		BEGIN
			GRANT bdr_read_all_stats TO bdr_monitor;
		EXCEPTION WHEN unique_violation OR internal_error THEN
			NULL;
		END;
	END IF;
END
$roles$;

CREATE SCHEMA bdr;
COMMENT ON SCHEMA bdr IS 'multi-master logical replication: catalog, functions and views';

-- ---------------------------------------------------------------------------------------------------------------------
-- Catalog. Ordinary tables: every step of a join is a transaction, and what was committed survives a crash. None of it is
-- configuration for pg_dump: a restored copy of a node is an ordinary database.
-- ---------------------------------------------------------------------------------------------------------------------

CREATE TABLE bdr.node_group (
	node_group_id oid PRIMARY KEY,
	node_group_name name NOT NULL UNIQUE,
	node_group_default_repset oid NOT NULL DEFAULT 0,
	node_group_default_repset_ext oid NOT NULL DEFAULT 0,
	node_group_parent_id oid NOT NULL DEFAULT 0,
	node_group_flags int NOT NULL DEFAULT 0,
	node_group_uuid uuid NOT NULL UNIQUE,
	node_group_apply_delay interval NOT NULL DEFAULT '0',
	node_group_check_constraints bool NOT NULL DEFAULT true,
	node_group_num_writers int NOT NULL DEFAULT -1,
	node_group_enable_wal_decoder bool NOT NULL DEFAULT false,
	node_group_next_node_id oid NOT NULL DEFAULT 1,
	join_token text,
	join_node_name name,
	join_owner_id oid
);
COMMENT ON COLUMN bdr.node_group.join_token IS 'of the node that is joining or leaving: only one does at a time';
COMMENT ON COLUMN bdr.node_group.join_owner_id IS 'the member that takes a node out of the group; null during a join';
COMMENT ON TABLE bdr.node_group IS 'the group that the local node belongs to';
COMMENT ON COLUMN bdr.node_group.node_group_next_node_id IS 'id that the next node of the group gets; ids are never used again';

CREATE TABLE bdr.node (
	node_id oid PRIMARY KEY,
	node_name name NOT NULL UNIQUE,
	node_group_id oid NOT NULL DEFAULT 0,
	source_node_id oid NOT NULL DEFAULT 0,
	node_state oid NOT NULL,
	target_state oid NOT NULL,
	seq_id int4 NOT NULL DEFAULT 0,
	dbname name NOT NULL,
	proto_version_ranges int[] NOT NULL DEFAULT ARRAY[1, 1],
	reserved int2 NOT NULL DEFAULT 0,
	synchronize_structure "char" NOT NULL DEFAULT 'n',
	generation smallint NOT NULL DEFAULT 0,
	node_kind oid NOT NULL DEFAULT 0,
	node_join_finished boolean NOT NULL DEFAULT false,
	join_token text UNIQUE
);
COMMENT ON COLUMN bdr.node.join_token IS 'by which the request of a joining node is known again';
COMMENT ON TABLE bdr.node IS 'all nodes of the group, as known here';
COMMENT ON COLUMN bdr.node.node_id IS 'number of the node in its group; provisional while the node is in none';

CREATE TABLE bdr.node_interface (
	if_id oid PRIMARY KEY,
	if_name name NOT NULL,
	node_id oid NOT NULL REFERENCES bdr.node ON UPDATE CASCADE ON DELETE CASCADE,
	if_dsn text NOT NULL,
	UNIQUE (node_id, if_name)
);
COMMENT ON TABLE bdr.node_interface IS 'how nodes reach one another: connection strings, which may contain passwords';

CREATE TABLE bdr.local_node (
	node_id oid PRIMARY KEY REFERENCES bdr.node ON UPDATE CASCADE ON DELETE CASCADE,
	system_identifier bigint NOT NULL,
	database_oid oid NOT NULL,
	only_one bool NOT NULL DEFAULT true UNIQUE CHECK (only_one)
);
COMMENT ON TABLE bdr.local_node IS 'which node this database is; server and database tell the node from a copy of it';

CREATE TABLE bdr.node_local_info (
	node_id oid PRIMARY KEY REFERENCES bdr.node ON UPDATE CASCADE ON DELETE CASCADE,
	applied_state oid NOT NULL,
	ddl_epoch int8 NOT NULL DEFAULT 0,
	pub_repsets text[],
	sub_repsets text[],
	slot_name name
);
COMMENT ON TABLE bdr.node_local_info IS 'what this node keeps about each node';
COMMENT ON COLUMN bdr.node_local_info.slot_name IS 'slot on that node from which this one receives; null for the local node';

CREATE TABLE bdr.subscription (
	pgl_subscription_id oid PRIMARY KEY,
	sub_name name NOT NULL UNIQUE,
	nodegroup_id oid NOT NULL,
	origin_node_id oid NOT NULL REFERENCES bdr.node ON UPDATE CASCADE ON DELETE CASCADE,
	target_node_id oid NOT NULL REFERENCES bdr.node ON UPDATE CASCADE ON DELETE CASCADE,
	subscription_mode "char" NOT NULL DEFAULT 'n',
	source_node_id oid NOT NULL,
	ddl_epoch int8 NOT NULL DEFAULT 0,
	sub_enabled bool NOT NULL DEFAULT true,
	sub_slot_name name NOT NULL,
	sub_origin_name name NOT NULL,
	origin_timeline int,
	UNIQUE (origin_node_id, target_node_id)
);
COMMENT ON TABLE bdr.subscription IS 'from which nodes the local node receives changes';
COMMENT ON COLUMN bdr.subscription.origin_timeline IS 'timeline of the origin''s WAL that was followed so far';

CREATE TABLE bdr.state_journal (
	node_id oid NOT NULL,
	state_counter oid NOT NULL,
	state oid NOT NULL,
	entered_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (node_id, state_counter)
);
COMMENT ON TABLE bdr.state_journal IS 'when each node entered which state, as seen here';

CREATE TABLE bdr.join_state (
	only_one bool PRIMARY KEY DEFAULT true CHECK (only_one),
	step text NOT NULL,
	reached text NOT NULL,
	restarts int NOT NULL DEFAULT 0,
	target_dsn text NOT NULL,
	synchronize_structure text NOT NULL,
	requested_group name,
	join_token text NOT NULL,
	target_node_id oid,
	target_node_name name,
	group_name name,
	remote_slot_name name,
	remote_lsn pg_lsn,
	local_slot_name name,
	local_lsn pg_lsn,
	origin_name name,
	catchup_lsn pg_lsn,
	cancel_requested bool NOT NULL DEFAULT false,
	pause_in_standby bool NOT NULL DEFAULT false,
	progress text,
	tables_total int,
	tables_done int NOT NULL DEFAULT 0,
	rows_copied bigint NOT NULL DEFAULT 0,
	bytes_copied bigint NOT NULL DEFAULT 0,
	kept_extensions name[] NOT NULL DEFAULT '{}',
	started_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	changed_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	error_sqlstate text,
	error_message text,
	error_detail text,
	error_hint text
);
COMMENT ON TABLE bdr.join_state IS 'how far the local node has come in joining its group; contains a connection string';

CREATE TABLE bdr.join_peer (
	peer_node_id oid PRIMARY KEY,
	remote_slot_name name NOT NULL,
	start_lsn pg_lsn,
	position pg_lsn,
	local_slot_name name NOT NULL,
	local_lsn pg_lsn,
	origin_name name NOT NULL,
	catchup_lsn pg_lsn
);
COMMENT ON TABLE bdr.join_peer IS 'what connects a joining node with each member of the group';
COMMENT ON COLUMN bdr.join_peer.start_lsn IS 'where the slot on the peer begins';
COMMENT ON COLUMN bdr.join_peer.position IS 'up to where the copy contains the peer''s changes';

CREATE TABLE bdr.join_tracking (
	join_token text PRIMARY KEY
);
COMMENT ON TABLE bdr.join_tracking IS 'joins through this node during which applied transactions note their position in bdr.origin_position';

CREATE TABLE bdr.origin_position (
	origin_node_id oid PRIMARY KEY,
	position pg_lsn NOT NULL
);
COMMENT ON TABLE bdr.origin_position IS
	'up to where each node''s changes are applied, as a row: a snapshot shows exactly what it contains of each node';

CREATE TABLE bdr.copied_position (
	relid oid,
	node_id oid,
	position pg_lsn NOT NULL,
	PRIMARY KEY (relid, node_id)
);
COMMENT ON TABLE bdr.copied_position IS
	'up to where each node''s changes are in a table that was copied from another node: these are not applied to it again';

CREATE TABLE bdr.part_state (
	part_node_id oid PRIMARY KEY REFERENCES bdr.node ON DELETE CASCADE,
	part_token text NOT NULL UNIQUE,
	force bool NOT NULL,
	step text NOT NULL DEFAULT 'lock',
	drain_transactions text,
	drain_lsn pg_lsn,
	progress text,
	requested_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	changed_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE bdr.part_state IS 'nodes that the local node takes out of the group';

CREATE TABLE bdr.part_pending (
	part_node_id oid NOT NULL REFERENCES bdr.part_state ON DELETE CASCADE,
	member_id oid NOT NULL REFERENCES bdr.node ON DELETE CASCADE,
	PRIMARY KEY (part_node_id, member_id)
);
COMMENT ON TABLE bdr.part_pending IS 'members that have not removed a parted node yet';

CREATE TABLE bdr.kept_origin (
	origin_node_id oid PRIMARY KEY REFERENCES bdr.node ON DELETE CASCADE,
	origin_name text NOT NULL
);
COMMENT ON TABLE bdr.kept_origin IS
	'replication origins of parted nodes, kept until all members have been told: their changes may have to be forwarded';

CREATE TABLE bdr.recovery (
	origin_node_id oid PRIMARY KEY REFERENCES bdr.node ON DELETE CASCADE,
	source_node_id oid NOT NULL REFERENCES bdr.node ON DELETE CASCADE,
	source_position pg_lsn NOT NULL,
	target_lsn pg_lsn NOT NULL,
	applied bool NOT NULL DEFAULT false,
	requested_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE bdr.recovery IS 'dead nodes whose last changes this node gets from another one';

CREATE TABLE bdr.missing_changes (
	node_id oid NOT NULL,
	node_name name NOT NULL,
	origin_node_id oid NOT NULL,
	origin_name name NOT NULL,
	after_lsn pg_lsn NOT NULL,
	upto_lsn pg_lsn NOT NULL,
	noted_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (node_id, origin_node_id)
);
COMMENT ON TABLE bdr.missing_changes IS
	'nodes that lack changes of a node that died, which others have and nobody can send any more: they are to be parted and joined again';

CREATE TABLE bdr.group_slot_mark (
	mark_lsn pg_lsn PRIMARY KEY,
	origins oid[] NOT NULL,
	positions pg_lsn[] NOT NULL,
	forced bool NOT NULL DEFAULT false,
	marked_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE bdr.group_slot_mark IS
	'up to where the changes of each other node were applied here before a position of the local WAL; the group slot moves from one to the next';
COMMENT ON COLUMN bdr.group_slot_mark.forced IS 'the slot was moved here because it held too much WAL, though not all peers had passed';

-- when a key was written or deleted last, where no row says so: after deletes, and for rows that a join copied
CREATE TABLE bdr.row_stamp (
	relid oid NOT NULL,
	key_hash bigint NOT NULL,
	key_check bigint NOT NULL,
	commit_time timestamptz,
	node_id oid
) WITH (autovacuum_freeze_min_age = 1000000000, autovacuum_vacuum_threshold = 10000);
CREATE INDEX row_stamp_key_hash ON bdr.row_stamp (key_hash);
COMMENT ON TABLE bdr.row_stamp IS
	'keys of deleted rows, until all peers have passed the delete; dated by xmin unless commit_time is given';

-- changes of such a table may still come from nodes where it was dropped later
CREATE TABLE bdr.dropped_table (
	nspname name NOT NULL,
	relname name NOT NULL,
	drop_time timestamptz NOT NULL
);
CREATE INDEX dropped_table_relname ON bdr.dropped_table (relname);
COMMENT ON TABLE bdr.dropped_table IS 'tables that were dropped here within a day';

-- up to which commit time this node has everything of a peer
CREATE TABLE bdr.peer_clock (
	node_id oid PRIMARY KEY REFERENCES bdr.node ON DELETE CASCADE,
	passed timestamptz NOT NULL
);
COMMENT ON TABLE bdr.peer_clock IS 'up to which commit time all transactions of a peer have been applied here';

CREATE TABLE bdr.global_lock (
	ddl_epoch int8 NOT NULL DEFAULT 0,
	origin_node_id oid NOT NULL,
	lock_type oid NOT NULL,
	nspname name,
	relname name,
	groupid oid,
	key1 integer,
	key2 integer,
	key_is_bigint boolean,
	lock_id bigint PRIMARY KEY,
	lock_state text NOT NULL,
	ready bool NOT NULL DEFAULT false,
	stage text,
	drain_lsn pg_lsn,
	request_time timestamptz NOT NULL,
	pid int4,
	statement text,
	waiting_for text,
	blocked_by bigint,
	local_request_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	last_state_change_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE bdr.global_lock IS 'requests for global locks that this node was asked to agree to, and its votes';
COMMENT ON COLUMN bdr.global_lock.lock_type IS '1 DDL, 2 DML of a table, 3 advisory';
COMMENT ON COLUMN bdr.global_lock.lock_state IS 'asking: of this node, which asks another one first; waiting; granted; confirmed: survives the session that asked';

CREATE TABLE bdr.ddl_epoch (
	ddl_epoch int8 NOT NULL,
	origin_node_id oid NOT NULL,
	epoch_consume_timeout timestamptz,
	epoch_consumed boolean NOT NULL DEFAULT false,
	lock_id bigint PRIMARY KEY,
	position pg_lsn
);
COMMENT ON TABLE bdr.ddl_epoch IS
	'transactions with global locks that have committed: for each other node the last one, and those of this node';

CREATE TABLE bdr.join_script (
	only_one bool PRIMARY KEY DEFAULT true CHECK (only_one),
	script text NOT NULL
);
COMMENT ON TABLE bdr.join_script IS 'indexes, constraints and triggers that a join has yet to create';

CREATE TABLE bdr.join_table (
	table_name text PRIMARY KEY,
	rows_copied bigint NOT NULL DEFAULT 0,
	bytes_copied bigint NOT NULL DEFAULT 0,
	copied bool NOT NULL DEFAULT false,
	rows_estimated bigint,
	size_on_target bigint,
	started_time timestamptz,
	finished_time timestamptz
);
COMMENT ON TABLE bdr.join_table IS 'tables that a join copies';
COMMENT ON COLUMN bdr.join_table.rows_estimated IS 'by the statistics of the join target; null when it has none';
COMMENT ON COLUMN bdr.join_table.size_on_target IS 'bytes of the table and its TOAST there';

CREATE TABLE bdr.join_progress_line (
	line_number int PRIMARY KEY,
	line_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	line text NOT NULL
);
COMMENT ON TABLE bdr.join_progress_line IS 'what the join has done so far, in words';

CREATE TABLE bdr.node_peer_progress (
	node_id oid NOT NULL,
	peer_node_id oid NOT NULL,
	last_update_sent_time timestamptz,
	last_update_recv_time timestamptz,
	last_update_node_lsn pg_lsn,
	peer_position pg_lsn,
	peer_replay_time timestamptz,
	last_update_horizon_xid oid,
	last_update_horizon_lsn pg_lsn,
	PRIMARY KEY (node_id, peer_node_id)
);
COMMENT ON TABLE bdr.node_peer_progress IS 'what each node has reported of its progress with each other one';

CREATE TABLE bdr.worker_error (
	error_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	worker_role int4 NOT NULL,
	peer_node_id oid NOT NULL,
	worker_pid int4 NOT NULL DEFAULT pg_catalog.pg_backend_pid(),
	error_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	error_sqlstate text NOT NULL,
	error_message text NOT NULL,
	error_detail text,
	error_context text
);
CREATE INDEX worker_error_of_worker ON bdr.worker_error (worker_role, peer_node_id, error_id);
COMMENT ON TABLE bdr.worker_error IS 'last errors of background workers, a bounded number of each';

CREATE TABLE bdr.sequence_kind (
	seqid oid PRIMARY KEY,
	seqkind "char" NOT NULL CHECK (seqkind IN ('s', 't', 'g')),
	nspname name NOT NULL,
	relname name NOT NULL
);
COMMENT ON TABLE bdr.sequence_kind IS 'global sequences: s snowflakeid, t timeshard, g galloc; all others are local';

COMMENT ON COLUMN bdr.sequence_kind.relname IS 'the name that it had then: a galloc sequence has it still';

-- By name, as a sequence has another OID on each node. They outlive it, so that one of the same name goes on.
CREATE TABLE bdr.sequence_vote (
	nspname name NOT NULL,
	relname name NOT NULL,
	highest bigint NOT NULL,
	first_value bigint,
	node_id oid,
	grants bigint NOT NULL DEFAULT 0,
	last_grant timestamptz,
	PRIMARY KEY (nspname, relname)
);
COMMENT ON COLUMN bdr.sequence_vote.node_id IS 'which node it said yes to last, for the range from first_value';
COMMENT ON TABLE bdr.sequence_vote IS 'galloc: up to where this node knows values to be granted or used; it only votes for ranges above';

CREATE TABLE bdr.sequence_voter (
	node_id oid PRIMARY KEY
);
COMMENT ON TABLE bdr.sequence_voter IS 'the local node, once it may vote';

CREATE TABLE bdr.sequence_chunk (
	nspname name NOT NULL,
	relname name NOT NULL,
	first_value bigint NOT NULL,
	last_value bigint NOT NULL,
	granted_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (nspname, relname, first_value)
);
COMMENT ON TABLE bdr.sequence_chunk IS 'galloc: ranges of values that belong to this node';

CREATE TABLE bdr.conflict_resolver (
	conflict_type text PRIMARY KEY,
	conflict_resolver text NOT NULL
);
COMMENT ON TABLE bdr.conflict_resolver IS 'resolvers that this node was told to use in place of the defaults';

CREATE TABLE bdr.conflict_log_config (
	log_name text PRIMARY KEY DEFAULT 'default' CHECK (log_name = 'default'),
	log_to_file bool NOT NULL DEFAULT true,
	log_to_table bool NOT NULL DEFAULT true,
	log_conflict_type text[],
	log_conflict_res text[]
);
COMMENT ON TABLE bdr.conflict_log_config IS 'which conflicts are logged, and where to; a null list: all';

-- The manager of a node makes a partition for each day, and the policies: pg_dump would write policies of an extension's
-- table into its output beside the extension, and the dump could not be restored.
CREATE TABLE bdr.conflict_history (
	sub_id oid,
	local_xid xid,
	local_lsn pg_lsn,
	local_time timestamptz NOT NULL,
	remote_xid xid,
	remote_commit_lsn pg_lsn,
	remote_commit_time timestamptz,
	conflict_type text NOT NULL,
	conflict_resolution text NOT NULL,
	conflict_index regclass,
	reloid oid,
	nspname text,
	relname text,
	key_tuple json,
	remote_tuple json,
	local_tuple json,
	apply_tuple json,
	local_tuple_xmin xid,
	local_tuple_node_id oid,
	local_tuple_commit_time timestamptz,
	origin_node_id oid,
	remote_change_nr oid
) PARTITION BY RANGE (local_time);
ALTER TABLE bdr.conflict_history ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE bdr.conflict_history IS 'conflicts that this node has resolved';
COMMENT ON COLUMN bdr.conflict_history.origin_node_id IS 'where the change was first committed';
COMMENT ON COLUMN bdr.conflict_history.remote_change_nr IS 'number of the change in its transaction, from 1';
COMMENT ON COLUMN bdr.conflict_history.apply_tuple IS 'the row that was stored; null when none was';

-- so that a conflict finds a partition whatever the manager has come to
CREATE TABLE bdr.conflict_history_default PARTITION OF bdr.conflict_history DEFAULT;
COMMENT ON TABLE bdr.conflict_history_default IS 'conflicts of days for which there was no partition';

-- ---------------------------------------------------------------------------------------------------------------------
-- Functions. Those that run SQL fix their search_path, so that no object of a user can come between.
-- ---------------------------------------------------------------------------------------------------------------------

CREATE FUNCTION bdr.bdr_version() RETURNS text
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bdr_version';
COMMENT ON FUNCTION bdr.bdr_version() IS 'version of the extension''s library';

CREATE FUNCTION bdr.bdr_version_num() RETURNS integer
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bdr_version_num';
COMMENT ON FUNCTION bdr.bdr_version_num() IS 'version as a number: major * 10000 + minor * 100 + patch';

CREATE FUNCTION bdr.bdr_edition() RETURNS text
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bdr_edition';
COMMENT ON FUNCTION bdr.bdr_edition() IS 'SE: works on community PostgreSQL; there is no other edition';

CREATE FUNCTION bdr.create_node(node_name text, local_dsn text, node_kind text DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_create_node';
COMMENT ON FUNCTION bdr.create_node(text, text, text) IS
	'makes this database a node; local_dsn is how the other nodes will connect to it';

CREATE FUNCTION bdr.create_node_group(node_group_name text, parent_group_name text DEFAULT NULL,
									  join_node_group boolean DEFAULT true, node_group_type text DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_create_node_group';
COMMENT ON FUNCTION bdr.create_node_group(text, text, boolean, text) IS
	'creates a group with the local node as its only member';

CREATE FUNCTION bdr.join_node_group(join_target_dsn text, node_group_name text DEFAULT NULL,
									pause_in_standby boolean DEFAULT false,
									wait_for_completion boolean DEFAULT true,
									synchronize_structure text DEFAULT 'all')
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_join_node_group';
COMMENT ON FUNCTION bdr.join_node_group(text, text, boolean, boolean, text) IS
	'makes the local node a member of the group of the node at join_target_dsn, copying structure and data from it';

CREATE FUNCTION bdr.promote_node(wait_for_completion boolean DEFAULT true) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_promote_node';
COMMENT ON FUNCTION bdr.promote_node(boolean) IS 'makes the local node, which has paused its join in standby, a full member';

CREATE FUNCTION bdr.wait_for_join_completion(verbose_progress boolean DEFAULT false) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_wait_for_join_completion';
COMMENT ON FUNCTION bdr.wait_for_join_completion(boolean) IS
	'waits until the local node is an active member of its group, or raises the error that ended the join';

CREATE FUNCTION bdr.check_settings(remote_dsn text DEFAULT NULL, OUT name text, OUT status text, OUT detail text,
								   OUT hint text)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_check_settings';
COMMENT ON FUNCTION bdr.check_settings(text) IS
	'what of this server''s (and a remote node''s) settings is right for a node, and what to type where it is not';

CREATE FUNCTION bdr.part_node(node_name text, wait_for_completion boolean DEFAULT true, force boolean DEFAULT false)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_part_node';
COMMENT ON FUNCTION bdr.part_node(text, boolean, boolean) IS
	'takes a node out of the group, after the others have all that it committed; force: a node that is down';

CREATE FUNCTION bdr.drop_node(node_name text, cascade boolean DEFAULT false, force boolean DEFAULT false) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_drop_node';
COMMENT ON FUNCTION bdr.drop_node(text, boolean, boolean) IS
	'removes the record of a parted node here; of the local node: everything that makes this database a node';

CREATE FUNCTION bdr.alter_node_interface(node_name text, interface_dsn text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_alter_node_interface';
COMMENT ON FUNCTION bdr.alter_node_interface(text, text) IS
	'changes how a node is reached from here; to be called on every node';

CREATE FUNCTION bdr.wait_slot_confirm_lsn(slot_name text DEFAULT NULL, target_lsn pg_lsn DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_wait_slot_confirm_lsn';
COMMENT ON FUNCTION bdr.wait_slot_confirm_lsn(text, pg_lsn) IS
	'waits until the peer of a slot (all peers) has confirmed an LSN of this node (the current one)';

CREATE FUNCTION bdr.wait_for_apply_queue(peer_node_name text, target_lsn pg_lsn) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_wait_for_apply_queue';
COMMENT ON FUNCTION bdr.wait_for_apply_queue(text, pg_lsn) IS
	'waits until what comes from a peer (all peers, if null) up to an LSN of it (what was received, if null) is applied here';

CREATE FUNCTION bdr.alter_subscription_enable(subscription_name name DEFAULT NULL, immediate boolean DEFAULT false)
	RETURNS integer
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_alter_subscription_enable';
COMMENT ON FUNCTION bdr.alter_subscription_enable(name, boolean) IS
	'lets the local node receive again; returns how many subscriptions were switched on';

CREATE FUNCTION bdr.alter_subscription_disable(subscription_name name DEFAULT NULL, immediate boolean DEFAULT false)
	RETURNS integer
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_alter_subscription_disable';
COMMENT ON FUNCTION bdr.alter_subscription_disable(name, boolean) IS
	'stops receiving, at commit or at once; returns how many subscriptions were switched off';

CREATE FUNCTION bdr.alter_subscription_skip_changes_upto(subname text, skip_upto_and_including pg_lsn) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_alter_subscription_skip_changes_upto';
COMMENT ON FUNCTION bdr.alter_subscription_skip_changes_upto(text, pg_lsn) IS
	'gives transactions of another node up that can''t be applied here';

CREATE FUNCTION bdr.run_on_all_nodes(query text) RETURNS json
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_run_on_all_nodes';
COMMENT ON FUNCTION bdr.run_on_all_nodes(text) IS 'runs statements on each node, and tells what each answered';

CREATE FUNCTION bdr.run_on_nodes(node_names text[], query text) RETURNS json
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_run_on_nodes';
COMMENT ON FUNCTION bdr.run_on_nodes(text[], text) IS 'the same on some nodes';

CREATE FUNCTION bdr.run_on_group(node_group_name text, query text) RETURNS json
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_run_on_group';
COMMENT ON FUNCTION bdr.run_on_group(text, text) IS 'the same on the nodes of a group';

-- the search_path of the session is part of what the statement means
CREATE FUNCTION bdr.replicate_ddl_command(ddl_cmd text, replication_sets text[] DEFAULT NULL, ddl_locking text DEFAULT NULL,
		execute_locally boolean DEFAULT true)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bdr_replicate_ddl_command';
COMMENT ON FUNCTION bdr.replicate_ddl_command(text, text[], text, boolean) IS
	'runs DDL here and on the other nodes, whatever bdr.ddl_replication says';

CREATE FUNCTION bdr.resynchronize_table_from_node(node_name name, relation regclass) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_resynchronize_table_from_node';
COMMENT ON FUNCTION bdr.resynchronize_table_from_node(name, regclass) IS 'empties a table here and copies that of another node';

CREATE FUNCTION bdr.request_replay_progress_update() RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_request_replay_progress_update';
COMMENT ON FUNCTION bdr.request_replay_progress_update() IS 'tells the others now how far this node is, and asks them to do the same';

CREATE FUNCTION bdr.alter_node_set_conflict_resolver(node_name text, conflict_type text, conflict_resolver text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_alter_node_set_conflict_resolver';
COMMENT ON FUNCTION bdr.alter_node_set_conflict_resolver(text, text, text) IS
	'sets how the local node resolves conflicts of a type';

CREATE FUNCTION bdr.alter_node_set_log_config(node_name text, log_to_file bool DEFAULT true, log_to_table bool DEFAULT true,
											  conflict_type text[] DEFAULT NULL, conflict_resolution text[] DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_alter_node_set_log_config';
COMMENT ON FUNCTION bdr.alter_node_set_log_config(text, bool, bool, text[], text[]) IS
	'sets which conflicts the local node logs, to the server''s log and to bdr.conflict_history; null lists: all';

-- for those who may wait for peers but not read the catalog
CREATE FUNCTION bdr.local_group_slot_name() RETURNS text
	LANGUAGE c STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_local_group_slot_name';
COMMENT ON FUNCTION bdr.local_group_slot_name() IS 'name of the slot that holds WAL for the whole group';

CREATE FUNCTION bdr.peer_state_name(state oid) RETURNS text
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bdr_peer_state_name';
COMMENT ON FUNCTION bdr.peer_state_name(oid) IS 'name of a node state';

CREATE FUNCTION bdr.show_subscription_status(
		OUT peer oid, OUT worker_pid int, OUT status text, OUT receive_lsn pg_lsn, OUT receive_commit_lsn pg_lsn,
		OUT last_xact_replay_lsn pg_lsn, OUT last_xact_flush_lsn pg_lsn, OUT last_xact_replay_timestamp timestamptz,
		OUT connect_time timestamptz, OUT nconnect bigint, OUT ninsert bigint, OUT nupdate bigint, OUT ndelete bigint,
		OUT ntruncate bigint, OUT nddl bigint, OUT ncommit bigint, OUT nconflict bigint, OUT nmissing bigint, OUT last_error_sqlstate text,
		OUT last_error_message text, OUT last_error_time timestamptz, OUT confirm_rate bigint,
		OUT complete_time timestamptz, OUT disconnect_time timestamptz)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'bdr_show_subscription_status';
COMMENT ON FUNCTION bdr.show_subscription_status() IS 'progress of the workers that receive and apply';

CREATE FUNCTION bdr.show_workers(OUT worker_pid int, OUT worker_role int, OUT worker_role_name text, OUT worker_peer oid,
								 OUT started timestamptz)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'bdr_show_workers';
COMMENT ON FUNCTION bdr.show_workers() IS 'background workers of this database';

CREATE FUNCTION bdr.show_conflict_stats(
		OUT relid oid, OUT conflict_type text, OUT napplied bigint, OUT nskipped bigint, OUT nmerged bigint, OUT nuser bigint,
		OUT nunrecorded bigint, OUT last_time timestamptz)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'bdr_show_conflict_stats';
COMMENT ON FUNCTION bdr.show_conflict_stats() IS 'conflicts that were counted since the server started';

-- Internal: what views and other nodes call. Not for people.

CREATE FUNCTION bdr.internal_conflict_types(OUT conflict_type text, OUT default_resolver text) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'bdr_internal_conflict_types';
COMMENT ON FUNCTION bdr.internal_conflict_types() IS 'all conflict types with the resolver that a new node uses';

CREATE FUNCTION bdr.internal_mask_dsn(dsn text) RETURNS text
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bdr_mask_dsn';
COMMENT ON FUNCTION bdr.internal_mask_dsn(text) IS 'connection string without its secrets';

CREATE FUNCTION bdr.internal_object_name(kind text, database text, node_group text, origin text, target text) RETURNS text
	LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'bdr_object_name';
COMMENT ON FUNCTION bdr.internal_object_name(text, text, text, text, text) IS
	'name of a slot, group_slot, origin or subscription by the naming rule';

CREATE FUNCTION bdr.global_lock_table(relation regclass) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'bdr_global_lock_table';
COMMENT ON FUNCTION bdr.global_lock_table(regclass) IS 'keeps all nodes from writing to a table until the end of the transaction';

CREATE FUNCTION bdr.global_advisory_lock(key bigint) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'bdr_global_advisory_lock';
CREATE FUNCTION bdr.global_advisory_lock(key1 integer, key2 integer) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'bdr_global_advisory_lock_pair';
CREATE FUNCTION bdr.global_advisory_unlock(key bigint) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'bdr_global_advisory_unlock';
CREATE FUNCTION bdr.global_advisory_unlock(key1 integer, key2 integer) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'bdr_global_advisory_unlock_pair';
COMMENT ON FUNCTION bdr.global_advisory_lock(bigint) IS 'an advisory lock of the whole group, until the end of the transaction';
COMMENT ON FUNCTION bdr.global_advisory_lock(integer, integer) IS 'an advisory lock of the whole group, until the end of the transaction';
COMMENT ON FUNCTION bdr.global_advisory_unlock(bigint) IS 'as often as it was locked; it is given up at the end of the transaction';
COMMENT ON FUNCTION bdr.global_advisory_unlock(integer, integer) IS 'as often as it was locked; it is given up at the end of the transaction';

CREATE FUNCTION bdr.release_global_lock(node_name name) RETURNS integer
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'bdr_release_global_lock';
COMMENT ON FUNCTION bdr.release_global_lock(name) IS
	'forgets, on this node, the global locks of another node that does not come back soon; returns how many there were';

CREATE FUNCTION bdr.internal_peer_call(verb text, VARIADIC args text[],
									   OUT f1 text, OUT f2 text, OUT f3 text, OUT f4 text, OUT f5 text, OUT f6 text,
									   OUT f7 text, OUT f8 text, OUT f9 text, OUT f10 text, OUT f11 text, OUT f12 text)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_internal_peer_call';
COMMENT ON FUNCTION bdr.internal_peer_call(text, text[]) IS 'what nodes ask of one another while one of them joins';

CREATE FUNCTION bdr.internal_table_rows(copied_table regclass, first_block bigint, end_block bigint) RETURNS SETOF bytea
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bdr_internal_table_rows';
COMMENT ON FUNCTION bdr.internal_table_rows(regclass, bigint, bigint) IS 'rows of a table as they are stored, for a join to copy';

CREATE FUNCTION bdr.internal_fetch_begin(snapshot text) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_internal_fetch_begin';
COMMENT ON FUNCTION bdr.internal_fetch_begin(text) IS 'connects to the join target, to copy under a snapshot';

CREATE FUNCTION bdr.internal_fetch_rows(copied_table text, first_block bigint, end_block bigint) RETURNS SETOF text
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bdr_internal_fetch_rows';
COMMENT ON FUNCTION bdr.internal_fetch_rows(text, bigint, bigint) IS
	'copies rows of a table of the join target; from time to time, the number of rows and bytes';

CREATE FUNCTION bdr.internal_stamp_row() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bdr_internal_stamp_row';
COMMENT ON FUNCTION bdr.internal_stamp_row() IS 'remembers keys of rows that are deleted';

CREATE FUNCTION bdr.internal_recent_rows(written_table regclass, since timestamptz,
										 OUT key_hash bigint, OUT key_check bigint, OUT commit_time timestamptz, OUT origin oid)
	RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bdr_internal_recent_rows';
COMMENT ON FUNCTION bdr.internal_recent_rows(regclass, timestamptz) IS 'keys of the rows of a table that were written after a time';

CREATE FUNCTION bdr.internal_add_stamp(stamped_table regclass, key_hash bigint, key_check bigint, commit_time timestamptz,
									   node_id oid) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bdr_internal_add_stamp';
COMMENT ON FUNCTION bdr.internal_add_stamp(regclass, bigint, bigint, timestamptz, oid) IS 'adds a row to bdr.row_stamp';

CREATE FUNCTION bdr.internal_stored_value(nspname text, relname text, column_name text, raw_size int, external_info bigint,
										  value_id oid, toast_table oid) RETURNS text
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bdr_internal_stored_value';
COMMENT ON FUNCTION bdr.internal_stored_value(text, text, text, int, bigint, oid, oid) IS
	'a value that is stored out of line, for a peer that got only the pointer to it';

CREATE FUNCTION bdr.boundary_test(what text, repetitions bigint DEFAULT 1) RETURNS integer
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_boundary_test';
COMMENT ON FUNCTION bdr.boundary_test(text, bigint) IS 'for tests: makes an error cross the border between C and Swift';

-- ---------------------------------------------------------------------------------------------------------------------
-- Conflict-free types. Four keep a state, and have functions of the same kinds; the other two are plain numbers. Operators and
-- aggregates are in pg_catalog, so that they are found whatever the search_path is.
-- ---------------------------------------------------------------------------------------------------------------------

CREATE DOMAIN bdr.crdt_delta_counter AS bigint;
COMMENT ON DOMAIN bdr.crdt_delta_counter IS 'integer whose concurrent changes add up; the table needs REPLICA IDENTITY FULL';
CREATE DOMAIN bdr.crdt_delta_sum AS numeric;
COMMENT ON DOMAIN bdr.crdt_delta_sum IS 'number whose concurrent changes add up; the table needs REPLICA IDENTITY FULL';

DO LANGUAGE plpgsql $crdt$
DECLARE
	t record;
	f record;
	o record;
BEGIN
	-- number: what it stands for; kind: how the library's functions for this kind of number are called
	FOR t IN SELECT v.name, 'bdr.' || v.name AS type, v.number, v.kind, v.grows, v.comment FROM (VALUES
		('crdt_gcounter', 'bigint', 'counter', true, 'counter that only grows: increments of all nodes add up'),
		('crdt_gsum', 'numeric', 'sum', true, 'sum that only grows: what all nodes add adds up'),
		('crdt_pncounter', 'bigint', 'counter', false, 'counter: increments and decrements of all nodes add up'),
		('crdt_pnsum', 'numeric', 'sum', false, 'sum: what all nodes add and subtract adds up'))
		AS v(name, number, kind, grows, comment)
	LOOP
		EXECUTE pg_catalog.format('CREATE TYPE %s', t.type);
		FOR f IN SELECT v.suffix, v.arguments, v.result, v.symbol, v.attributes, v.comment FROM (VALUES
			('_in', 'cstring', t.type, t.name || '_in', 'IMMUTABLE STRICT', 'input'),
			('_out', t.type, 'cstring', 'crdt_out', 'STABLE STRICT', 'output'),
			('_recv', 'internal', t.type, t.name || '_recv', 'IMMUTABLE STRICT', 'binary input'),
			('_send', t.type, 'bytea', 'crdt_send', 'IMMUTABLE STRICT', 'binary output'),
			('_to_text', t.type, 'text', 'crdt_to_text', 'IMMUTABLE STRICT', 'the whole state: what each node has done'),
			('_value', t.type, t.number, CASE t.kind WHEN 'counter' THEN 'crdt_counter_to_int8' ELSE 'crdt_sum_to_numeric' END,
				'IMMUTABLE STRICT', 'implementation of # operator and cast'),
			('_numeric', CASE t.kind WHEN 'counter' THEN t.type END, 'numeric', 'crdt_counter_to_numeric', 'IMMUTABLE STRICT',
				'implementation of cast'),
			('_from_numeric', CASE t.kind WHEN 'counter' THEN 'numeric' END, t.type, t.name || '_from_numeric',
				'IMMUTABLE STRICT', 'implementation of cast'),
			('_add', t.type || ', ' || t.number, t.type,
				CASE t.kind WHEN 'counter' THEN 'crdt_add_int8' ELSE 'crdt_add_numeric' END, 'STABLE STRICT',
				'implementation of + operator'),
			('_subtract', CASE WHEN NOT t.grows THEN t.type || ', ' || t.number END, t.type,
				CASE t.kind WHEN 'counter' THEN 'crdt_subtract_int8' ELSE 'crdt_subtract_numeric' END, 'STABLE STRICT',
				'implementation of - operator'),
			('_reset', t.type, t.type, 'crdt_reset', 'IMMUTABLE STRICT', 'implementation of ! operator'),
			('_lt', t.type || ', ' || t.type, 'boolean', 'crdt_lt', 'IMMUTABLE STRICT', 'implementation of < operator'),
			('_le', t.type || ', ' || t.type, 'boolean', 'crdt_le', 'IMMUTABLE STRICT', 'implementation of <= operator'),
			('_eq', t.type || ', ' || t.type, 'boolean', 'crdt_eq', 'IMMUTABLE STRICT', 'implementation of = operator'),
			('_ne', t.type || ', ' || t.type, 'boolean', 'crdt_ne', 'IMMUTABLE STRICT', 'implementation of <> operator'),
			('_ge', t.type || ', ' || t.type, 'boolean', 'crdt_ge', 'IMMUTABLE STRICT', 'implementation of >= operator'),
			('_gt', t.type || ', ' || t.type, 'boolean', 'crdt_gt', 'IMMUTABLE STRICT', 'implementation of > operator'),
			('_cmp', t.type || ', ' || t.type, 'integer', 'crdt_cmp', 'IMMUTABLE STRICT', 'order, by value'),
			('_hash', t.type, 'integer', 'crdt_hash', 'IMMUTABLE STRICT', 'hash, of the value'),
			('_hash_extended', t.type || ', bigint', 'bigint', 'crdt_hash_extended', 'IMMUTABLE STRICT', 'hash, of the value'),
			('_accum', 'internal, ' || t.type, 'internal', 'crdt_' || t.kind || '_accum', 'IMMUTABLE',
				'aggregate transition function'),
			('_larger', t.number || ', ' || t.type, t.number, 'crdt_' || t.kind || '_larger', 'IMMUTABLE',
				'aggregate transition function'),
			('_smaller', t.number || ', ' || t.type, t.number, 'crdt_' || t.kind || '_smaller', 'IMMUTABLE',
				'aggregate transition function'),
			('_merge', t.type || ', ' || t.type || ', ' || t.type, t.type, 'crdt_merge_state', 'IMMUTABLE',
				'merges local value, old and new remote value'))
			AS v(suffix, arguments, result, symbol, attributes, comment)
			WHERE v.arguments IS NOT NULL
		LOOP
			EXECUTE pg_catalog.format('CREATE FUNCTION %s%s(%s) RETURNS %s LANGUAGE c %s PARALLEL SAFE AS %L, %L',
				t.type, f.suffix, f.arguments, f.result, f.attributes, 'MODULE_PATHNAME', 'bdr_' || f.symbol);
			EXECUTE pg_catalog.format('COMMENT ON FUNCTION %s%s(%s) IS %L', t.type, f.suffix, f.arguments, f.comment);
			-- the first four are what a type takes
			IF f.suffix = '_send' THEN
				EXECUTE pg_catalog.format('CREATE TYPE %1$s (INPUT = %1$s_in, OUTPUT = %1$s_out, RECEIVE = %1$s_recv,'
					'SEND = %1$s_send, INTERNALLENGTH = VARIABLE, ALIGNMENT = int4, STORAGE = extended)', t.type);
				EXECUTE pg_catalog.format('COMMENT ON TYPE %s IS %L', t.type, t.comment);
			END IF;
		END LOOP;

		EXECUTE pg_catalog.format('CREATE OPERATOR pg_catalog.# (RIGHTARG = %1$s, FUNCTION = %1$s_value)', t.type);
		EXECUTE pg_catalog.format('CREATE OPERATOR pg_catalog.! (RIGHTARG = %1$s, FUNCTION = %1$s_reset)', t.type);
		EXECUTE pg_catalog.format('CREATE OPERATOR pg_catalog.+ (LEFTARG = %1$s, RIGHTARG = %2$s, FUNCTION = %1$s_add)',
			t.type, t.number);
		IF NOT t.grows THEN
			EXECUTE pg_catalog.format('CREATE OPERATOR pg_catalog.- (LEFTARG = %1$s, RIGHTARG = %2$s, FUNCTION = %1$s_subtract)',
				t.type, t.number);
		END IF;
		FOR o IN SELECT v.operator, v.suffix, v.commutator, v.negator, v.estimator, v.further FROM (VALUES
			('<', '_lt', '>', '>=', 'scalarlt', ''), ('<=', '_le', '>=', '>', 'scalarle', ''),
			('=', '_eq', '=', '<>', 'eq', ', HASHES, MERGES'), ('<>', '_ne', '<>', '=', 'neq', ''),
			('>=', '_ge', '<=', '<', 'scalarge', ''), ('>', '_gt', '<', '<=', 'scalargt', ''))
			AS v(operator, suffix, commutator, negator, estimator, further)
		LOOP
			EXECUTE pg_catalog.format('CREATE OPERATOR pg_catalog.%2$s (LEFTARG = %1$s, RIGHTARG = %1$s, FUNCTION = %1$s%3$s,'
				'COMMUTATOR = OPERATOR(pg_catalog.%4$s), NEGATOR = OPERATOR(pg_catalog.%5$s),'
				'RESTRICT = pg_catalog.%6$ssel, JOIN = pg_catalog.%6$sjoinsel%7$s)',
				t.type, o.operator, o.suffix, o.commutator, o.negator, o.estimator, o.further);
		END LOOP;
		EXECUTE pg_catalog.format('CREATE OPERATOR CLASS %1$s_ops DEFAULT FOR TYPE %1$s USING btree AS OPERATOR 1 pg_catalog.<,'
			'OPERATOR 2 pg_catalog.<=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pg_catalog.>=, OPERATOR 5 pg_catalog.>,'
			'FUNCTION 1 %1$s_cmp(%1$s, %1$s)', t.type);
		EXECUTE pg_catalog.format('CREATE OPERATOR CLASS %1$s_ops DEFAULT FOR TYPE %1$s USING hash AS OPERATOR 1 pg_catalog.=,'
			'FUNCTION 1 %1$s_hash(%1$s), FUNCTION 2 %1$s_hash_extended(%1$s, bigint)', t.type);

		-- none is implicit: c + 1 must never be taken for the addition of two numbers, which would be assigned
		EXECUTE pg_catalog.format('CREATE CAST (%1$s AS %2$s) WITH FUNCTION %1$s_value(%1$s) AS ASSIGNMENT', t.type, t.number);
		IF t.kind = 'counter' THEN
			EXECUTE pg_catalog.format('CREATE CAST (%1$s AS numeric) WITH FUNCTION %1$s_numeric(%1$s) AS ASSIGNMENT', t.type);
			EXECUTE pg_catalog.format('CREATE CAST (numeric AS %1$s) WITH FUNCTION %1$s_from_numeric(numeric) AS ASSIGNMENT',
				t.type);
		ELSE
			EXECUTE pg_catalog.format('CREATE CAST (numeric AS %s) WITH INOUT AS ASSIGNMENT', t.type);
		END IF;
		EXECUTE pg_catalog.format('CREATE CAST (smallint AS %s) WITH INOUT AS ASSIGNMENT', t.type);
		EXECUTE pg_catalog.format('CREATE CAST (integer AS %s) WITH INOUT AS ASSIGNMENT', t.type);
		EXECUTE pg_catalog.format('CREATE CAST (bigint AS %s) WITH INOUT AS ASSIGNMENT', t.type);

		FOR o IN SELECT v.name, v.final FROM (VALUES ('sum', 'numeric_sum'), ('avg', 'numeric_avg')) AS v(name, final) LOOP
			EXECUTE pg_catalog.format('CREATE AGGREGATE pg_catalog.%2$s(%1$s) (SFUNC = %1$s_accum, STYPE = internal, SSPACE = 128,'
				'FINALFUNC = pg_catalog.%3$s, COMBINEFUNC = pg_catalog.numeric_avg_combine,'
				'SERIALFUNC = pg_catalog.numeric_avg_serialize, DESERIALFUNC = pg_catalog.numeric_avg_deserialize,'
				'PARALLEL = SAFE)', t.type, o.name, o.final);
		END LOOP;
		FOR o IN SELECT v.name, v.suffix,
			CASE t.kind WHEN 'counter' THEN 'int8' || v.suffix ELSE 'numeric_' || v.suffix END AS combine
			FROM (VALUES ('max', 'larger'), ('min', 'smaller')) AS v(name, suffix) LOOP
			EXECUTE pg_catalog.format('CREATE AGGREGATE pg_catalog.%2$s(%1$s) (SFUNC = %1$s_%3$s, STYPE = %4$s,'
				'COMBINEFUNC = pg_catalog.%5$s, PARALLEL = SAFE)', t.type, o.name, o.suffix, t.number, o.combine);
		END LOOP;
	END LOOP;
END
$crdt$;

CREATE FUNCTION bdr.crdt_delta_counter_merge(bdr.crdt_delta_counter, bdr.crdt_delta_counter, bdr.crdt_delta_counter)
	RETURNS bdr.crdt_delta_counter
	LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'bdr_crdt_merge_delta_counter';
COMMENT ON FUNCTION bdr.crdt_delta_counter_merge(bdr.crdt_delta_counter, bdr.crdt_delta_counter, bdr.crdt_delta_counter) IS
	'merges local value, old and new remote value';

CREATE FUNCTION bdr.crdt_delta_sum_merge(bdr.crdt_delta_sum, bdr.crdt_delta_sum, bdr.crdt_delta_sum) RETURNS bdr.crdt_delta_sum
	LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'bdr_crdt_merge_delta_sum';
COMMENT ON FUNCTION bdr.crdt_delta_sum_merge(bdr.crdt_delta_sum, bdr.crdt_delta_sum, bdr.crdt_delta_sum) IS
	'merges local value, old and new remote value';

CREATE FUNCTION bdr.internal_crdt_merge(anyelement, anyelement, anyelement) RETURNS anyelement
	LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'bdr_internal_crdt_merge';
COMMENT ON FUNCTION bdr.internal_crdt_merge(anyelement, anyelement, anyelement) IS
	'what a column of this type becomes of local value, old and new remote value';

-- The functions are kept by name: pg_upgrade takes no table along that has their OIDs.
CREATE TABLE bdr.crdt_handler (
	crdt_type_id regtype PRIMARY KEY,
	merge_function text NOT NULL
);
COMMENT ON TABLE bdr.crdt_handler IS 'types whose columns are merged, and by which function';
INSERT INTO bdr.crdt_handler
SELECT v.type::regtype, pg_catalog.format('%1$s_merge(%1$s,%1$s,%1$s)', v.type)
FROM (VALUES ('bdr.crdt_gcounter'), ('bdr.crdt_gsum'), ('bdr.crdt_pncounter'), ('bdr.crdt_pnsum'), ('bdr.crdt_delta_counter'),
	('bdr.crdt_delta_sum')) v(type);

CREATE VIEW bdr.crdt_handlers AS
SELECT h.crdt_type_id, pg_catalog.to_regprocedure(h.merge_function)::regproc AS crdt_merge_id
FROM bdr.crdt_handler h;
COMMENT ON VIEW bdr.crdt_handlers IS 'types whose columns are merged, and by which function';

-- ---------------------------------------------------------------------------------------------------------------------
-- Stream triggers. They are rows of pg_trigger, internal and disabled, so that the server keeps their dependencies; the names
-- of the two kinds end in _bdrc and _bdrt.
-- ---------------------------------------------------------------------------------------------------------------------

CREATE TYPE bdr.trigger_type AS ENUM ('CONFLICT', 'TRANSFORM');
COMMENT ON TYPE bdr.trigger_type IS 'kind of a stream trigger';

CREATE FUNCTION bdr.create_conflict_trigger(trigger_name text, events text[], relation regclass, function regprocedure,
	args text[] DEFAULT '{}') RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bdr_create_conflict_trigger';
COMMENT ON FUNCTION bdr.create_conflict_trigger(text, text[], regclass, regprocedure, text[]) IS
	'has a function settle conflicts of changes of a table';

CREATE FUNCTION bdr.create_transform_trigger(trigger_name text, events text[], relation regclass, function regprocedure,
	args text[] DEFAULT '{}') RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bdr_create_transform_trigger';
COMMENT ON FUNCTION bdr.create_transform_trigger(text, text[], regclass, regprocedure, text[]) IS
	'has a function change or drop changes of a table before they are applied';

CREATE FUNCTION bdr.drop_trigger(trigger_name text, relation regclass, ifexists boolean DEFAULT false) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bdr_drop_trigger';
COMMENT ON FUNCTION bdr.drop_trigger(text, regclass, boolean) IS 'drops a stream trigger of either kind';

CREATE FUNCTION bdr.trigger_get_row(row_id text) RETURNS record
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bdr_trigger_get_row';
COMMENT ON FUNCTION bdr.trigger_get_row(text) IS 'row that a stream trigger is about: SOURCE_OLD, SOURCE_NEW or TARGET';

CREATE FUNCTION bdr.trigger_get_committs(row_id text) RETURNS timestamptz
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bdr_trigger_get_committs';
COMMENT ON FUNCTION bdr.trigger_get_committs(text) IS 'when the row was committed';

CREATE FUNCTION bdr.trigger_get_xid(row_id text) RETURNS xid
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bdr_trigger_get_xid';
COMMENT ON FUNCTION bdr.trigger_get_xid(text) IS 'local transaction that wrote the TARGET row';

CREATE FUNCTION bdr.trigger_get_type() RETURNS text
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bdr_trigger_get_type';
COMMENT ON FUNCTION bdr.trigger_get_type() IS 'CONFLICT or TRANSFORM inside a stream trigger';

CREATE FUNCTION bdr.trigger_get_conflict_type() RETURNS text
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bdr_trigger_get_conflict_type';
COMMENT ON FUNCTION bdr.trigger_get_conflict_type() IS 'type of the conflict inside a conflict trigger';

CREATE FUNCTION bdr.trigger_get_origin_node_id(row_id text) RETURNS oid
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bdr_trigger_get_origin_node_id';
COMMENT ON FUNCTION bdr.trigger_get_origin_node_id(text) IS 'node that changed the row last';

CREATE VIEW bdr.trigger AS
SELECT t.oid AS trigger_id, t.tgrelid::regclass AS trigger_reloid, t.oid AS trigger_pgtgid,
	(CASE WHEN pg_catalog.right(t.tgname::text, 1) = 'c' THEN 'c' ELSE 't' END)::"char" AS trigger_type,
	pg_catalog.left(t.tgname::text, -5)::name AS trigger_name
FROM pg_catalog.pg_trigger t
WHERE t.tgisinternal AND t.tgconstraint = 0 AND t.tgparentid = 0 AND pg_catalog.right(t.tgname::text, 5) IN ('_bdrc', '_bdrt')
	AND pg_catalog.length(t.tgname::text) > 5;
COMMENT ON VIEW bdr.trigger IS 'stream triggers';

CREATE VIEW bdr.triggers AS
SELECT s.trigger_name, e.event AS event_manipulation,
	(CASE s.trigger_type WHEN 'c' THEN 'CONFLICT' ELSE 'TRANSFORM' END)::bdr.trigger_type AS trigger_type,
	s.trigger_reloid AS trigger_table, p.proname AS trigger_function
FROM bdr.trigger s JOIN pg_catalog.pg_trigger t ON t.oid = s.trigger_id JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
	JOIN (VALUES (4, 'INSERT'), (8, 'DELETE'), (16, 'UPDATE')) e(bit, event) ON t.tgtype::int & e.bit <> 0;
COMMENT ON VIEW bdr.triggers IS 'stream triggers, a row for each event';

-- ---------------------------------------------------------------------------------------------------------------------
-- Foreign keys, which are not checked when changes of other nodes are applied
-- ---------------------------------------------------------------------------------------------------------------------

CREATE FUNCTION bdr.ri_fkey_trigger() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bdr_ri_fkey_trigger';
COMMENT ON FUNCTION bdr.ri_fkey_trigger() IS 'sets foreign keys to NULL whose row is not there';
CREATE FUNCTION bdr.ri_fkey_on_del_trigger() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bdr_ri_fkey_on_del_trigger';
COMMENT ON FUNCTION bdr.ri_fkey_on_del_trigger() IS 'sets foreign keys to NULL that refer to the row which is deleted';

-- ---------------------------------------------------------------------------------------------------------------------
-- Detection of conflicts: by versions of rows, and column by column
-- ---------------------------------------------------------------------------------------------------------------------

CREATE TYPE bdr.column_timestamps;
CREATE FUNCTION bdr.column_timestamps_in(cstring) RETURNS bdr.column_timestamps
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bdr_column_timestamps_in';
COMMENT ON FUNCTION bdr.column_timestamps_in(cstring) IS 'input';
CREATE FUNCTION bdr.column_timestamps_out(bdr.column_timestamps) RETURNS cstring
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bdr_column_timestamps_out';
COMMENT ON FUNCTION bdr.column_timestamps_out(bdr.column_timestamps) IS 'output';
CREATE FUNCTION bdr.column_timestamps_recv(internal) RETURNS bdr.column_timestamps
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bdr_column_timestamps_recv';
COMMENT ON FUNCTION bdr.column_timestamps_recv(internal) IS 'binary input';
CREATE FUNCTION bdr.column_timestamps_send(bdr.column_timestamps) RETURNS bytea
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bdr_column_timestamps_send';
COMMENT ON FUNCTION bdr.column_timestamps_send(bdr.column_timestamps) IS 'binary output';
CREATE TYPE bdr.column_timestamps (INPUT = bdr.column_timestamps_in, OUTPUT = bdr.column_timestamps_out,
	RECEIVE = bdr.column_timestamps_recv, SEND = bdr.column_timestamps_send, INTERNALLENGTH = VARIABLE, ALIGNMENT = int4,
	STORAGE = extended);
COMMENT ON TYPE bdr.column_timestamps IS 'when each column of a row was changed last';

CREATE FUNCTION bdr.column_timestamps_create(p_source cstring, p_timestamp timestamptz) RETURNS bdr.column_timestamps
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bdr_column_timestamps_create';
COMMENT ON FUNCTION bdr.column_timestamps_create(cstring, timestamptz) IS 'a value that dates all columns alike';
CREATE FUNCTION bdr.column_timestamps_resolve(bdr.column_timestamps, xid) RETURNS bdr.column_timestamps
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bdr_column_timestamps_resolve';
COMMENT ON FUNCTION bdr.column_timestamps_resolve(bdr.column_timestamps, xid) IS
	'the timestamps, with the commit of a transaction in place of what it has modified; to be called with xmin';
CREATE FUNCTION bdr.column_timestamps_to_text(bdr.column_timestamps) RETURNS text
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bdr_column_timestamps_to_text';
COMMENT ON FUNCTION bdr.column_timestamps_to_text(bdr.column_timestamps) IS 'the timestamps, to be read';
CREATE FUNCTION bdr.column_timestamps_to_jsonb(bdr.column_timestamps) RETURNS jsonb
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bdr_column_timestamps_to_jsonb';
COMMENT ON FUNCTION bdr.column_timestamps_to_jsonb(bdr.column_timestamps) IS 'the timestamps, as JSON';
CREATE CAST (bdr.column_timestamps AS text) WITH FUNCTION bdr.column_timestamps_to_text(bdr.column_timestamps);
CREATE CAST (bdr.column_timestamps AS jsonb) WITH FUNCTION bdr.column_timestamps_to_jsonb(bdr.column_timestamps);

CREATE FUNCTION bdr.column_timestamps_trigger() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bdr_column_timestamps_trigger';
COMMENT ON FUNCTION bdr.column_timestamps_trigger() IS 'dates the columns that a statement changes';

CREATE FUNCTION bdr.row_version_trigger() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bdr_row_version_trigger';
COMMENT ON FUNCTION bdr.row_version_trigger() IS 'counts up the version of a row';

CREATE FUNCTION bdr.alter_table_conflict_detection(relation regclass, method text, column_name name DEFAULT NULL,
	detector_args text DEFAULT NULL) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bdr_alter_table_conflict_detection';
COMMENT ON FUNCTION bdr.alter_table_conflict_detection(regclass, text, name, text) IS
	'how conflicts of a table are detected: row by row, or column by column';

-- on this node; called by the function above
CREATE FUNCTION bdr.internal_alter_conflict_detection(relation regclass, method text, column_name name, detector_args text)
	RETURNS boolean LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
	t pg_catalog.pg_class;
	is_column boolean := method IN ('column_commit_timestamp', 'column_modify_timestamp');
	wanted name := COALESCE(column_name, CASE WHEN is_column THEN 'bdr_column_timestamps' ELSE 'bdr_row_version' END);
	wanted_type regtype := 'integer';
	source text := CASE method WHEN 'column_commit_timestamp' THEN 'commit' ELSE 'current' END;
	former text := 'row_origin';
	former_column name;
	former_type regtype;
	is_complete boolean := true;
	part regclass;
	former_trigger name;
BEGIN
	IF relation IS NULL OR method IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'relation and method must not be null';
	END IF;
	IF method NOT IN ('row_origin', 'row_version', 'column_commit_timestamp', 'column_modify_timestamp') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown conflict detection %L', method),
			HINT = 'Use ''row_origin'', ''row_version'', ''column_commit_timestamp'' or ''column_modify_timestamp''.';
	END IF;
	IF detector_args IS NOT NULL THEN
		wanted_type := CASE WHEN method = 'row_version' AND detector_args ~* '^\s*(smallint|int2|integer|int|int4|bigint|int8)\s*$'
			THEN to_regtype(detector_args) END;
		IF wanted_type IS NULL THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown argument %L of conflict detection %L', detector_args, method),
				HINT = 'Leave detector_args out; ''row_version'' takes the type of its column: ''smallint'', ''integer'' or ''bigint''.';
		END IF;
	END IF;
	SELECT * INTO t FROM pg_catalog.pg_class WHERE oid = relation;
	IF NOT FOUND OR t.relkind NOT IN ('r', 'p') OR t.relispartition THEN
		RAISE EXCEPTION USING ERRCODE = 'wrong_object_type', MESSAGE = format('%s is not a table, or a partition of one', relation),
			HINT = 'Name a table, or the partitioned table.';
	END IF;
	IF NOT pg_has_role(t.relowner, 'USAGE') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('must be owner of table %s', relation);
	END IF;

	-- as it is
	SELECT a.attname INTO former_column FROM pg_catalog.pg_attribute a
		WHERE a.attrelid = relation AND a.atttypid = 'bdr.column_timestamps'::regtype AND NOT a.attisdropped LIMIT 1;
	IF former_column IS NOT NULL THEN
		SELECT CASE WHEN bool_or(g.tgargs = '\x636f6d6d697400'::bytea) THEN 'column_commit_timestamp'
				ELSE 'column_modify_timestamp' END, count(*) = 2
			INTO former, is_complete FROM pg_catalog.pg_trigger g
			WHERE g.tgrelid = relation AND g.tgfoid = 'bdr.column_timestamps_trigger'::regproc;
	ELSE
		SELECT 'row_version', a.attname, a.atttypid INTO former, former_column, former_type
			FROM pg_catalog.pg_trigger g LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = g.tgrelid AND NOT a.attisdropped
				AND convert_to(a.attname::text, getdatabaseencoding()) || '\x00'::bytea = g.tgargs
			WHERE g.tgrelid = relation AND g.tgfoid = 'bdr.row_version_trigger'::regproc LIMIT 1;
		is_complete := former_column IS NOT NULL;
		former := COALESCE(former, 'row_origin');
	END IF;

	FOR part IN SELECT c.oid FROM pg_catalog.pg_class c
		WHERE method <> 'row_origin' AND c.relreplident <> 'f'
			AND (c.oid = relation OR c.oid IN (SELECT p.relid FROM pg_partition_tree(relation) p))
	LOOP
		IF is_column THEN
			RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
				MESSAGE = format('conflict detection %L needs whole old rows, which table %s does not have', method, part),
				HINT = format('Type ALTER TABLE %s REPLICA IDENTITY FULL;', part);
		END IF;
		RAISE WARNING USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('conflict detection %L needs whole old rows, which table %s does not have', method, part),
			DETAIL = 'Until it has, conflicts are detected by row_origin.',
			HINT = format('Type ALTER TABLE %s REPLICA IDENTITY FULL;', part);
	END LOOP;

	IF former_column IS NOT NULL AND ((NOT is_complete AND is_column)
			OR (is_complete AND former = method AND (former_type = wanted_type OR is_column OR detector_args IS NULL)))
	THEN
		IF column_name IS NOT NULL AND column_name <> former_column THEN
			RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
				MESSAGE = format('column %I of %s has the %s already', former_column, relation,
					CASE WHEN is_column THEN 'timestamps' ELSE 'version' END),
				HINT = 'Switch to ''row_origin'' first.';
		END IF;
		IF is_complete THEN
			RETURN true;
		END IF;
	END IF;

	FOR former_trigger IN SELECT g.tgname FROM pg_catalog.pg_trigger g WHERE g.tgrelid = relation
		AND g.tgfoid IN ('bdr.column_timestamps_trigger'::regproc, 'bdr.row_version_trigger'::regproc)
	LOOP
		EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', former_trigger, relation);
	END LOOP;
	-- a column that has come without triggers gets these: somebody has added it, or it is that of CREATE TABLE ... (LIKE ...)
	IF former_column IS NOT NULL AND NOT (is_column AND NOT is_complete) THEN
		EXECUTE format('ALTER TABLE %s DROP COLUMN IF EXISTS %I', relation, former_column);
		former_column := NULL;
	END IF;
	IF method = 'row_origin' THEN
		RETURN true;
	END IF;

	IF former_column IS NULL AND NOT is_column AND wanted = 'bdr_row_version' THEN
		SELECT a.attname INTO former_column FROM pg_catalog.pg_attribute a WHERE a.attrelid = relation AND a.attname = wanted
			AND NOT a.attisdropped AND a.attnotnull AND a.attgenerated = '' AND a.atttypid = wanted_type;
	END IF;
	IF former_column IS NOT NULL THEN
		wanted := former_column;
	ELSIF EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = relation AND a.attname = wanted AND NOT a.attisdropped) THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_column', MESSAGE = format('%s has a column %I already', relation, wanted),
			HINT = 'Give another name as column_name.';
	-- the same for the rows that are there on all nodes, and older than any change; constants, so that no row is written anew
	ELSIF is_column THEN
		EXECUTE format('ALTER TABLE %s ADD COLUMN %I bdr.column_timestamps NOT NULL DEFAULT '
			'bdr.column_timestamps_create(%L, ''2000-01-01 00:00:00+00'')', relation, wanted, source);
	ELSE
		EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s NOT NULL DEFAULT 1', relation, wanted, wanted_type);
	END IF;
	IF is_column THEN
		EXECUTE format('CREATE TRIGGER pgl_clcd_before_insert BEFORE INSERT ON %s FOR EACH ROW '
			'EXECUTE FUNCTION bdr.column_timestamps_trigger(%L)', relation, source);
		EXECUTE format('CREATE TRIGGER pgl_clcd_before_update BEFORE UPDATE ON %s FOR EACH ROW '
			'EXECUTE FUNCTION bdr.column_timestamps_trigger(%L)', relation, source);
	ELSE
		EXECUTE format('CREATE TRIGGER bdr_row_version_before_update BEFORE UPDATE ON %s FOR EACH ROW '
			'EXECUTE FUNCTION bdr.row_version_trigger(%L)', relation, wanted);
	END IF;
	RETURN true;
END
$function$;
COMMENT ON FUNCTION bdr.internal_alter_conflict_detection(regclass, text, name, text) IS
	'changes columns and triggers of a table on this node';

CREATE FUNCTION bdr.column_timestamps_enable(relation regclass, column_name name DEFAULT 'cts', from_commit boolean DEFAULT false)
	RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $function$
	SELECT bdr.alter_table_conflict_detection(relation,
		CASE WHEN from_commit THEN 'column_commit_timestamp' ELSE 'column_modify_timestamp' END, column_name)
$function$;
COMMENT ON FUNCTION bdr.column_timestamps_enable(regclass, name, boolean) IS
	'resolves conflicts of a table column by column';

CREATE FUNCTION bdr.column_timestamps_disable(relation regclass, column_name name DEFAULT NULL)
	RETURNS boolean LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
	IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = relation AND NOT a.attisdropped
		AND a.atttypid = 'bdr.column_timestamps'::regtype AND a.attname = COALESCE(column_name, a.attname))
	THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_column',
			MESSAGE = format('%s has no column%s of type bdr.column_timestamps', relation, COALESCE(' ' || quote_ident(column_name), '')),
			HINT = 'bdr.tables shows how conflicts of each table are detected.';
	END IF;
	RETURN bdr.alter_table_conflict_detection(relation, 'row_origin');
END
$function$;
COMMENT ON FUNCTION bdr.column_timestamps_disable(regclass, name) IS
	'resolves conflicts of a table row by row';

-- ---------------------------------------------------------------------------------------------------------------------
-- Global sequences
-- ---------------------------------------------------------------------------------------------------------------------

CREATE FUNCTION bdr.alter_sequence_set_kind(seqoid regclass, seqkind text, start bigint DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bdr_alter_sequence_set_kind';
COMMENT ON FUNCTION bdr.alter_sequence_set_kind(regclass, text, bigint) IS 'makes a sequence local, snowflakeid, timeshard or galloc';
CREATE FUNCTION bdr.internal_sequence_set_kind(seqoid regclass, seqkind text, used bigint) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bdr_internal_sequence_set_kind';
COMMENT ON FUNCTION bdr.internal_sequence_set_kind(regclass, text, bigint) IS 'does what another node did, which has asked all up to where they have counted';
CREATE FUNCTION bdr.seq_nextval(sequence regclass) RETURNS bigint
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bdr_seq_nextval';
COMMENT ON FUNCTION bdr.seq_nextval(regclass) IS 'what nextval() does for sequences of all kinds';
CREATE FUNCTION bdr.seq_currval(sequence regclass) RETURNS bigint
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bdr_seq_currval';
COMMENT ON FUNCTION bdr.seq_currval(regclass) IS 'what currval() does for sequences of all kinds';
CREATE FUNCTION bdr.seq_lastval() RETURNS bigint
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bdr_seq_lastval';
COMMENT ON FUNCTION bdr.seq_lastval() IS 'what lastval() does for sequences of all kinds';
CREATE FUNCTION bdr.internal_seq_setval(sequence regclass, value bigint) RETURNS bigint
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bdr_internal_seq_setval';
COMMENT ON FUNCTION bdr.internal_seq_setval(regclass, bigint) IS 'what setval() does for sequences of all kinds';
CREATE FUNCTION bdr.internal_seq_setval(sequence regclass, value bigint, called boolean) RETURNS bigint
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bdr_internal_seq_setval';
COMMENT ON FUNCTION bdr.internal_seq_setval(regclass, bigint, boolean) IS 'what setval() does for sequences of all kinds';
CREATE FUNCTION bdr.internal_sequence_last(seqid oid, wait boolean) RETURNS bigint
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bdr_internal_sequence_last';
COMMENT ON FUNCTION bdr.internal_sequence_last(oid, boolean) IS 'internal: the last value that a sequence has counted';
CREATE FUNCTION bdr.extract_timestamp_from_timeshard(timeshard_seq bigint) RETURNS timestamptz
	LANGUAGE c IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'bdr_extract_timestamp_from_timeshard';
COMMENT ON FUNCTION bdr.extract_timestamp_from_timeshard(bigint) IS 'when a timeshard was made, to the millisecond';
CREATE FUNCTION bdr.extract_nodeid_from_timeshard(timeshard_seq bigint) RETURNS integer
	LANGUAGE c IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'bdr_extract_nodeid_from_timeshard';
COMMENT ON FUNCTION bdr.extract_nodeid_from_timeshard(bigint) IS 'the node_seq_id of the node that made a timeshard';
CREATE FUNCTION bdr.extract_localseqid_from_timeshard(timeshard_seq bigint) RETURNS integer
	LANGUAGE c IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'bdr_extract_localseqid_from_timeshard';
COMMENT ON FUNCTION bdr.extract_localseqid_from_timeshard(bigint) IS 'the counter of a timeshard within its millisecond and node';
CREATE FUNCTION bdr.timestamp_to_timeshard(ts timestamptz) RETURNS bigint
	LANGUAGE c IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'bdr_timestamp_to_timeshard';
COMMENT ON FUNCTION bdr.timestamp_to_timeshard(timestamptz) IS 'the smallest timeshard of a time, to search with';
CREATE FUNCTION bdr.extract_timestamp_from_snowflakeid(snowflakeid bigint) RETURNS timestamptz
	LANGUAGE c IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'bdr_extract_timestamp_from_snowflakeid';
COMMENT ON FUNCTION bdr.extract_timestamp_from_snowflakeid(bigint) IS 'when a snowflakeid was made, to the millisecond';
CREATE FUNCTION bdr.extract_nodeid_from_snowflakeid(snowflakeid bigint) RETURNS integer
	LANGUAGE c IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'bdr_extract_nodeid_from_snowflakeid';
COMMENT ON FUNCTION bdr.extract_nodeid_from_snowflakeid(bigint) IS 'the node_seq_id of the node that made a snowflakeid';
CREATE FUNCTION bdr.extract_localseqid_from_snowflakeid(snowflakeid bigint) RETURNS integer
	LANGUAGE c IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'bdr_extract_localseqid_from_snowflakeid';
COMMENT ON FUNCTION bdr.extract_localseqid_from_snowflakeid(bigint) IS 'the counter of a snowflakeid within its millisecond and node';
CREATE FUNCTION bdr.timestamp_to_snowflakeid(ts timestamptz) RETURNS bigint
	LANGUAGE c IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'bdr_timestamp_to_snowflakeid';
COMMENT ON FUNCTION bdr.timestamp_to_snowflakeid(timestamptz) IS 'the smallest snowflakeid of a time, to search with';
CREATE FUNCTION bdr.gen_ksuuid() RETURNS uuid
	LANGUAGE c VOLATILE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'bdr_gen_ksuuid';
COMMENT ON FUNCTION bdr.gen_ksuuid() IS 'a KSUUID of version 1; new ones should be of version 2';
CREATE FUNCTION bdr.uuid_v1_cmp(uuid1 uuid, uuid2 uuid) RETURNS integer
	LANGUAGE c IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'bdr_ksuuid_cmp';
COMMENT ON FUNCTION bdr.uuid_v1_cmp(uuid, uuid) IS '1 if the first KSUUID of version 1 is newer, -1 if it is older, 0 if they are equal';
CREATE FUNCTION bdr.extract_timestamp_from_ksuuid(uuid uuid) RETURNS timestamptz
	LANGUAGE c IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'bdr_extract_timestamp_from_ksuuid';
COMMENT ON FUNCTION bdr.extract_timestamp_from_ksuuid(uuid) IS 'when a KSUUID of version 1, or another time-based UUID, was made';
CREATE FUNCTION bdr.gen_ksuuid_v2(ts timestamptz) RETURNS uuid
	LANGUAGE c VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'bdr_gen_ksuuid_v2';
COMMENT ON FUNCTION bdr.gen_ksuuid_v2(timestamptz) IS 'a KSUUID of version 2 for a time, or for now if it is null';
CREATE FUNCTION bdr.ksuuid_v2_cmp(uuid1 uuid, uuid2 uuid) RETURNS integer
	LANGUAGE c IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'bdr_ksuuid_v2_cmp';
COMMENT ON FUNCTION bdr.ksuuid_v2_cmp(uuid, uuid) IS '1 if the first KSUUID of version 2 is newer, -1 if it is older, 0 if they are equal';
CREATE FUNCTION bdr.extract_timestamp_from_ksuuid_v2(uuid uuid) RETURNS timestamptz
	LANGUAGE c IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'bdr_extract_timestamp_from_ksuuid_v2';
COMMENT ON FUNCTION bdr.extract_timestamp_from_ksuuid_v2(uuid) IS 'when a KSUUID of version 2 was made';

-- ---------------------------------------------------------------------------------------------------------------------
-- Views
-- ---------------------------------------------------------------------------------------------------------------------

CREATE VIEW bdr.node_summary AS
SELECT n.node_name, g.node_group_name, i.if_name AS interface_name, bdr.internal_mask_dsn(i.if_dsn) AS interface_connstr,
	bdr.peer_state_name(n.node_state) AS peer_state_name, bdr.peer_state_name(n.target_state) AS peer_target_state_name,
	n.seq_id AS node_seq_id, n.dbname AS node_local_dbname, NULL::text[] AS pub_repsets, NULL::text[] AS sub_repsets,
	'INSERT, UPDATE, DELETE, TRUNCATE'::text AS set_repl_ops, n.node_id, n.node_group_id, i.if_id
FROM bdr.node n
	LEFT JOIN bdr.node_group g ON g.node_group_id = n.node_group_id
	LEFT JOIN bdr.node_interface i ON i.node_id = n.node_id;
COMMENT ON VIEW bdr.node_summary IS 'all nodes known to the local one';

CREATE VIEW bdr.local_node_summary AS
SELECT s.node_name, s.node_group_name, s.interface_name, s.interface_connstr, s.peer_state_name,
	s.peer_target_state_name, s.node_seq_id, s.node_local_dbname, i.pub_repsets, i.sub_repsets, s.set_repl_ops, s.node_id,
	s.node_group_id, s.if_id
FROM bdr.node_summary s
	JOIN bdr.local_node l ON l.node_id = s.node_id
	LEFT JOIN bdr.node_local_info i ON i.node_id = s.node_id;
COMMENT ON VIEW bdr.local_node_summary IS 'the local node';

CREATE VIEW bdr.state_journal_details AS
SELECT j.state_counter, j.node_id, n.node_name, j.state,
	'BDR_PEER_STATE_' || bdr.peer_state_name(j.state) AS state_name, j.entered_time
FROM bdr.state_journal j
	LEFT JOIN bdr.node n ON n.node_id = j.node_id;
COMMENT ON VIEW bdr.state_journal_details IS 'when each node entered which state, with names';

-- for those who watch, to whom pg_stat_replication shows nothing of others' sessions
CREATE FUNCTION bdr.internal_walsenders() RETURNS SETOF pg_catalog.pg_stat_replication
	LANGUAGE sql STABLE PARALLEL RESTRICTED SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
	SELECT a FROM pg_stat_replication a WHERE a.pid IN (SELECT s.active_pid FROM pg_replication_slots s
		WHERE s.plugin = 'bdr' AND s.database = current_database())
$function$;
COMMENT ON FUNCTION bdr.internal_walsenders() IS 'pg_stat_replication of those to whom this node sends';

CREATE VIEW bdr.node_slots AS
SELECT w.target_dbname, w.node_group_name, w.origin_name, w.target_name, w.node_group_id, w.origin_id, w.target_id,
	w.local_slot_name, s.slot_name, w.is_group_slot, false AS is_decoder_slot, s.plugin, s.slot_type, s.datoid, s.database,
	s.temporary, s.active, s.active_pid, s.xmin, s.catalog_xmin, s.restart_lsn, s.confirmed_flush_lsn,
	a.usesysid, a.usename, a.application_name, a.client_addr, a.client_hostname, a.client_port, a.backend_start,
	COALESCE(a.state, 'disconnected') AS state,
	COALESCE(a.sent_lsn, s.confirmed_flush_lsn) AS sent_lsn, COALESCE(a.write_lsn, s.confirmed_flush_lsn) AS write_lsn,
	COALESCE(a.flush_lsn, s.confirmed_flush_lsn) AS flush_lsn, COALESCE(a.replay_lsn, s.confirmed_flush_lsn) AS replay_lsn,
	a.write_lag, a.flush_lag, a.replay_lag,
	b.sent_lag_bytes, b.write_lag_bytes, b.flush_lag_bytes, b.replay_lag_bytes,
	pg_catalog.pg_size_pretty(b.sent_lag_bytes) AS sent_lag_size,
	pg_catalog.pg_size_pretty(b.write_lag_bytes) AS write_lag_size,
	pg_catalog.pg_size_pretty(b.flush_lag_bytes) AS flush_lag_size,
	pg_catalog.pg_size_pretty(b.replay_lag_bytes) AS replay_lag_size
FROM (
		SELECT t.dbname AS target_dbname, g.node_group_name, o.node_name AS origin_name, t.node_name AS target_name,
			g.node_group_id, o.node_id AS origin_id, t.node_id AS target_id,
			bdr.internal_object_name('slot', pg_catalog.current_database(), g.node_group_name, o.node_name,
									 t.node_name)::name AS local_slot_name,
			false AS is_group_slot
		FROM bdr.local_node l
			JOIN bdr.node o ON o.node_id = l.node_id
			JOIN bdr.node_group g ON g.node_group_id = o.node_group_id
			JOIN bdr.node t ON t.node_group_id = g.node_group_id AND t.node_id <> o.node_id AND t.node_state <> 12
		UNION ALL
		SELECT NULL, g.node_group_name, o.node_name, NULL, g.node_group_id, o.node_id, NULL,
			r.slot_name, true
		FROM bdr.local_node l
			JOIN bdr.node o ON o.node_id = l.node_id
			JOIN bdr.node_group g ON g.node_group_id = o.node_group_id
			JOIN pg_catalog.pg_replication_slots r ON r.slot_name =
				bdr.internal_object_name('group_slot', pg_catalog.current_database(), g.node_group_name, NULL, NULL)
	) w
	LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = w.local_slot_name
	LEFT JOIN bdr.internal_walsenders() a ON a.pid = s.active_pid
	LEFT JOIN LATERAL (
		SELECT pg_catalog.pg_wal_lsn_diff(c.now_lsn, COALESCE(a.sent_lsn, s.confirmed_flush_lsn))::int8 AS sent_lag_bytes,
			pg_catalog.pg_wal_lsn_diff(c.now_lsn, COALESCE(a.write_lsn, s.confirmed_flush_lsn))::int8 AS write_lag_bytes,
			pg_catalog.pg_wal_lsn_diff(c.now_lsn, COALESCE(a.flush_lsn, s.confirmed_flush_lsn))::int8 AS flush_lag_bytes,
			pg_catalog.pg_wal_lsn_diff(c.now_lsn, COALESCE(a.replay_lsn, s.confirmed_flush_lsn))::int8 AS replay_lag_bytes
		FROM (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
						  ELSE pg_catalog.pg_current_wal_lsn() END AS now_lsn) c
	) b ON true;
COMMENT ON VIEW bdr.node_slots IS 'the slots from which the other nodes receive, and how far behind each is';

CREATE VIEW bdr.subscription_summary AS
SELECT g.node_group_name, s.sub_name, o.node_name AS origin_name, t.node_name AS target_name, s.sub_enabled,
	s.sub_slot_name, ARRAY[g.node_group_name::text] AS sub_replication_sets, '{}'::text[] AS sub_forward_origins,
	g.node_group_apply_delay AS sub_apply_delay, s.sub_origin_name, s.subscription_mode AS bdr_subscription_mode,
	CASE WHEN NOT s.sub_enabled THEN 'disabled' ELSE COALESCE(w.status, 'down') END AS subscription_status,
	s.nodegroup_id AS node_group_id, s.pgl_subscription_id AS sub_id, s.origin_node_id AS origin_id,
	s.target_node_id AS target_id, w.receive_lsn, w.receive_commit_lsn, w.last_xact_replay_lsn, w.last_xact_flush_lsn,
	w.last_xact_replay_timestamp
FROM bdr.subscription s
	JOIN bdr.node_group g ON g.node_group_id = s.nodegroup_id
	JOIN bdr.node o ON o.node_id = s.origin_node_id
	JOIN bdr.node t ON t.node_id = s.target_node_id
	LEFT JOIN bdr.show_subscription_status() w ON w.peer = s.origin_node_id;
COMMENT ON VIEW bdr.subscription_summary IS 'from which nodes the local one receives, and how far it is';

CREATE VIEW bdr.workers AS
SELECT w.worker_pid, w.worker_role, w.worker_role_name, s.pgl_subscription_id AS worker_subid,
	p.last_xact_replay_timestamp AS worker_commit_timestamp, NULL::timestamptz AS worker_local_timestamp
FROM bdr.show_workers() w
	LEFT JOIN bdr.subscription s ON s.origin_node_id = w.worker_peer
	LEFT JOIN bdr.show_subscription_status() p ON p.peer = w.worker_peer AND p.worker_pid = w.worker_pid;
COMMENT ON VIEW bdr.workers IS 'background workers of this database';

CREATE VIEW bdr.worker_errors AS
SELECT g.node_group_name, o.node_name AS origin_name, c.node_name AS source_name, t.node_name AS target_name, s.sub_name,
	e.worker_role,
	CASE e.worker_role WHEN 1 THEN 'manager' WHEN 2 THEN 'apply' WHEN 3 THEN 'join' WHEN 4 THEN 'group' WHEN 5 THEN 'recover'
		WHEN 6 THEN 'sequence' END AS worker_role_name,
	e.worker_pid, e.error_time, pg_catalog.clock_timestamp() - e.error_time AS error_age,
	e.error_sqlstate || ': ' || e.error_message AS error_message,
	NULLIF(pg_catalog.concat_ws(E'\n', e.error_detail, e.error_context), '') AS error_context_message,
	NULL::oid AS remoterelid, NULL::oid AS subwriter_id, NULL::name AS subwriter_name
FROM bdr.worker_error e
	LEFT JOIN bdr.local_node l ON true
	LEFT JOIN bdr.node t ON t.node_id = l.node_id
	LEFT JOIN bdr.node_group g ON g.node_group_id = t.node_group_id
	LEFT JOIN bdr.node o ON o.node_id = e.peer_node_id
	LEFT JOIN bdr.subscription s ON s.origin_node_id = e.peer_node_id AND e.worker_role = 2
	LEFT JOIN bdr.node c ON c.node_id = s.source_node_id;
COMMENT ON VIEW bdr.worker_errors IS 'why background workers failed';

CREATE VIEW bdr.part_progress AS
SELECT n.node_name, p.step, p.force, p.progress, p.requested_time, p.changed_time,
	ARRAY(SELECT m.node_name::text FROM bdr.part_pending w JOIN bdr.node m ON m.node_id = w.member_id
		   WHERE w.part_node_id = p.part_node_id ORDER BY 1) AS waiting_for
FROM bdr.part_state p
	JOIN bdr.node n ON n.node_id = p.part_node_id;
COMMENT ON VIEW bdr.part_progress IS 'how far the parting of nodes, by the local one, has come';

CREATE VIEW bdr.group_slot_retention AS
SELECT n.node_id AS peer_node_id, n.node_name AS peer_name, s.slot_name, s.restart_lsn, s.confirmed_flush_lsn, p.passed_lsn,
	b.held_bytes, pg_catalog.pg_size_pretty(b.held_bytes) AS held_size,
	EXISTS (SELECT FROM bdr.group_slot_mark m WHERE m.forced AND (p.passed_lsn IS NULL OR p.passed_lsn < m.mark_lsn))
		AS past_bound,
	(SELECT pg_catalog.max(r.last_update_recv_time) FROM bdr.node_peer_progress r WHERE r.node_id = n.node_id)
		AS last_report_time
FROM bdr.local_node l
	JOIN bdr.node o ON o.node_id = l.node_id
	JOIN bdr.node_group g ON g.node_group_id = o.node_group_id
	JOIN pg_catalog.pg_replication_slots s ON s.slot_name =
		bdr.internal_object_name('group_slot', pg_catalog.current_database(), g.node_group_name, NULL, NULL)
	JOIN bdr.node n ON n.node_group_id = g.node_group_id AND n.node_id <> l.node_id AND n.node_state <> 12
	CROSS JOIN LATERAL (
		SELECT pg_catalog.max(m.mark_lsn) AS passed_lsn FROM bdr.group_slot_mark m
		 WHERE NOT EXISTS (
			SELECT FROM ROWS FROM (pg_catalog.unnest(m.origins), pg_catalog.unnest(m.positions)) u(origin_id, origin_position)
				LEFT JOIN bdr.node_peer_progress r ON r.node_id = n.node_id AND r.peer_node_id = u.origin_id
			 WHERE u.origin_id <> n.node_id AND COALESCE(r.peer_position, '0/0') < u.origin_position
			   AND (EXISTS (SELECT FROM bdr.node x WHERE x.node_id = u.origin_id AND x.node_state <> 12)
					OR EXISTS (SELECT FROM bdr.kept_origin k WHERE k.origin_node_id = u.origin_id)))) p
	CROSS JOIN LATERAL (
		SELECT pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
											   ELSE pg_catalog.pg_current_wal_lsn() END,
										  GREATEST(p.passed_lsn, s.confirmed_flush_lsn))::int8 AS held_bytes) b;
COMMENT ON VIEW bdr.group_slot_retention IS
	'how much WAL the group slot keeps for each peer; past_bound: more was needed than may be kept, so should another node die now, this peer has to join again';

CREATE VIEW bdr.node_replication_rates AS
SELECT s.target_id AS peer_node_id, s.target_name, s.sent_lsn, s.replay_lsn,
	COALESCE(s.replay_lag, CASE WHEN s.replay_lag_bytes <= 0 THEN '0'::interval
								ELSE pg_catalog.clock_timestamp() - w.complete_time END) AS replay_lag,
	s.replay_lag_bytes, s.replay_lag_size, w.confirm_rate AS apply_rate,
	CASE WHEN s.replay_lag_bytes <= 0 THEN '0'::interval
		 WHEN w.confirm_rate > 0 THEN pg_catalog.make_interval(secs => s.replay_lag_bytes::float8 / w.confirm_rate) END
		AS catchup_interval,
	pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
								   ELSE pg_catalog.pg_current_wal_lsn() END, s.restart_lsn)::int8 AS retained_wal_bytes,
	s.state, CASE WHEN NOT b.sub_enabled THEN 'disabled' ELSE COALESCE(w.status, 'down') END AS subscription_status,
	w.last_error_sqlstate, w.last_error_message, w.last_error_time
FROM bdr.node_slots s
	LEFT JOIN bdr.subscription b ON b.origin_node_id = s.target_id
	LEFT JOIN bdr.show_subscription_status() w ON w.peer = s.target_id
WHERE NOT s.is_group_slot;
COMMENT ON VIEW bdr.node_replication_rates IS
	'how far behind each peer is, how much WAL is kept for it, and how what comes from it is doing';

CREATE VIEW bdr.join_progress AS
SELECT j.step, bdr.internal_mask_dsn(j.target_dsn) AS join_target_connstr, j.target_node_name, j.group_name,
	j.synchronize_structure, j.progress, j.tables_done, j.tables_total, j.rows_copied, j.bytes_copied, j.started_time,
	j.changed_time, j.error_sqlstate, j.error_message, j.error_detail, j.error_hint
FROM bdr.join_state j;
COMMENT ON VIEW bdr.join_progress IS 'how far the local node has come in joining its group';

CREATE VIEW bdr.join_table_progress AS
SELECT t.table_name,
	CASE WHEN t.started_time IS NULL THEN 'waiting' WHEN NOT t.copied THEN 'copying'
		 WHEN j.step IN ('copy_data', 'copy_indexes') AND j.synchronize_structure <> 'none' THEN 'indexes'
		 ELSE 'done' END AS phase,
	t.rows_copied, t.rows_estimated, t.bytes_copied, t.size_on_target,
	CASE WHEN t.copied THEN 100
		 WHEN t.rows_estimated > 0 THEN LEAST(99, t.rows_copied * 100 / t.rows_estimated)::int
		 WHEN t.size_on_target > 0 THEN LEAST(99, t.bytes_copied * 100 / t.size_on_target)::int
		 ELSE 0 END AS percent,
	t.started_time, t.finished_time
FROM bdr.join_table t
	CROSS JOIN bdr.join_state j;
COMMENT ON VIEW bdr.join_table_progress IS 'how far the copy of each table has come; indexes: waits for them, or has them created now';

CREATE VIEW bdr.sequences AS
SELECT n.nspname, c.relname,
	CASE k.seqkind WHEN 's' THEN 'snowflakeid' WHEN 't' THEN 'timeshard' WHEN 'g' THEN 'galloc' ELSE 'local' END AS seqkind
FROM pg_catalog.pg_class c
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	LEFT JOIN bdr.sequence_kind k ON k.seqid = c.oid
WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname <> 'bdr';
COMMENT ON VIEW bdr.sequences IS 'sequences of this database, and their kinds';

CREATE VIEW bdr.sequence_alloc AS
SELECT k.seqid::regclass AS seqid,
	CASE s.seqtypid WHEN 'smallint'::regtype THEN 1000 WHEN 'integer'::regtype THEN 1000000 ELSE 1000000000 END::bigint
		AS seq_chunk_size,
	v.highest AS seq_allocated_up_to, COALESCE(v.grants, 0) AS seq_nallocs, v.last_grant AS seq_last_alloc
FROM bdr.sequence_kind k
	JOIN pg_catalog.pg_sequence s ON s.seqrelid = k.seqid
	LEFT JOIN bdr.sequence_vote v ON v.nspname = k.nspname AND v.relname = k.relname
WHERE k.seqkind = 'g';
COMMENT ON VIEW bdr.sequence_alloc IS 'galloc sequences, and up to where this node knows their values to be granted to nodes';
CREATE VIEW bdr.tables AS
SELECT c.oid AS relid, n.nspname, c.relname, g.node_group_name AS set_name,
	CASE WHEN g.node_group_name IS NOT NULL THEN '{INSERT,UPDATE,DELETE,TRUNCATE}'::text[] END AS set_ops,
	NULL::text[] AS rel_columns, NULL::text AS row_filter,
	CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_attribute a
			WHERE a.attrelid = c.oid AND a.atttypid = 'bdr.column_timestamps'::regtype AND NOT a.attisdropped) THEN 'column_level'
		WHEN c.relreplident = 'f' AND EXISTS (SELECT FROM pg_catalog.pg_trigger t
			WHERE t.tgrelid = c.oid AND t.tgfoid = 'bdr.row_version_trigger'::regproc AND t.tgenabled <> 'D') THEN 'row_version'
		ELSE 'row_origin' END AS conflict_detection
FROM pg_catalog.pg_class c
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	LEFT JOIN (bdr.local_node l JOIN bdr.node m ON m.node_id = l.node_id
		JOIN bdr.node_group g ON g.node_group_id = m.node_group_id) ON true
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'bdr')
	AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
		WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e');
COMMENT ON VIEW bdr.tables IS 'tables that are replicated, and how their conflicts are detected';

CREATE VIEW bdr.node_conflict_resolvers AS
SELECT t.conflict_type, COALESCE(r.conflict_resolver, t.default_resolver) AS conflict_resolver
FROM bdr.internal_conflict_types() t
	LEFT JOIN bdr.conflict_resolver r ON r.conflict_type = t.conflict_type;
COMMENT ON VIEW bdr.node_conflict_resolvers IS 'how the local node resolves conflicts of each type';

CREATE VIEW bdr.node_log_config AS
SELECT d.log_name, COALESCE(c.log_to_file, true) AS log_to_file, COALESCE(c.log_to_table, true) AS log_to_table,
	c.log_conflict_type, c.log_conflict_res
FROM (VALUES ('default'::text)) d (log_name)
	LEFT JOIN bdr.conflict_log_config c ON c.log_name = d.log_name;
COMMENT ON VIEW bdr.node_log_config IS 'which conflicts the local node logs, and where to; a null list: all';

CREATE VIEW bdr.conflict_history_summary AS
SELECT h.nspname, h.relname, h.local_time, h.local_tuple_commit_time, h.remote_commit_time, h.conflict_type,
	h.conflict_resolution, h.origin_node_id, h.remote_commit_lsn, h.remote_change_nr
FROM bdr.conflict_history h;
COMMENT ON VIEW bdr.conflict_history_summary IS 'conflicts that this node has resolved, without the contents of rows';

CREATE VIEW bdr.stat_conflicts AS
SELECT n.nspname, c.relname, s.relid, s.conflict_type, s.napplied + s.nskipped + s.nmerged + s.nuser AS nconflict, s.napplied,
	s.nskipped, s.nmerged, s.nuser, s.nunrecorded, s.last_time AS last_conflict_time
FROM bdr.show_conflict_stats() s
	LEFT JOIN pg_catalog.pg_class c ON c.oid = s.relid
	LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace;
COMMENT ON VIEW bdr.stat_conflicts IS 'conflicts of each table and type since the server started; relid 0: of tables for which there was no room';

CREATE VIEW bdr.global_locks AS
SELECT
	l.origin_node_id,
	n.node_name AS origin_node_name,
	CASE l.lock_type WHEN 1 THEN 'GLOBAL_LOCK_DDL' WHEN 2 THEN 'GLOBAL_LOCK_DML' ELSE 'GLOBAL_LOCK_ADVISORY' END AS lock_type,
	CASE l.lock_type
		WHEN 2 THEN pg_catalog.format('%I.%I', l.nspname, l.relname)
		WHEN 3 THEN CASE WHEN l.key_is_bigint
			THEN ((l.key1::int8 << 32) | (l.key2::int8 & 4294967295))::text
			ELSE pg_catalog.format('%s, %s', l.key1, l.key2) END
	END AS relation,
	CASE WHEN l.origin_node_id = local.node_id THEN l.pid END AS pid,
	COALESCE(CASE WHEN l.lock_state = 'granted' AND NOT l.ready THEN COALESCE(l.stage, 'lock') END, l.lock_state) AS acquire_stage,
	(SELECT pg_catalog.count(*)::int4 FROM bdr.global_lock w
	  WHERE w.lock_state IN ('waiting', 'asking') AND w.lock_id <> l.lock_id
		AND (w.lock_type, w.nspname, w.relname, w.key1, w.key2) IS NOT DISTINCT FROM
			(l.lock_type, l.nspname, l.relname, l.key1, l.key2)) AS waiters,
	CASE WHEN l.origin_node_id = local.node_id THEN l.request_time END AS global_lock_request_time,
	l.local_request_time AS local_lock_request_time,
	l.last_state_change_time,
	l.statement,
	l.waiting_for
FROM bdr.global_lock l
CROSS JOIN bdr.local_node local
LEFT JOIN bdr.node n ON n.node_id = l.origin_node_id;
COMMENT ON VIEW bdr.global_locks IS 'global locks that nodes have or wait for, as far as this node is concerned';

-- ---------------------------------------------------------------------------------------------------------------------
-- Watching: what applying costs, whether nodes are connected, and the whole group
-- ---------------------------------------------------------------------------------------------------------------------

CREATE FUNCTION bdr.get_subscription_stats(
		OUT peer oid, OUT nconnect bigint, OUT ncommit bigint, OUT nabort bigint, OUT nerror bigint, OUT nskippedtx bigint,
		OUT ninsert bigint, OUT nupdate bigint, OUT ndelete bigint, OUT ntruncate bigint, OUT nddl bigint, OUT ndeadlocks bigint,
		OUT nretries bigint, OUT shared_blks_hit bigint, OUT shared_blks_read bigint, OUT shared_blks_dirtied bigint,
		OUT shared_blks_written bigint, OUT blk_read_time double precision, OUT blk_write_time double precision,
		OUT start_lsn pg_lsn, OUT retries_at_same_lsn bigint, OUT curr_ncommit bigint, OUT mean_apply_time double precision,
		OUT stats_reset timestamptz, OUT nconflict bigint, OUT nmissing bigint)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'bdr_get_subscription_stats';
COMMENT ON FUNCTION bdr.get_subscription_stats() IS 'what was applied from each node, and what it cost; bdr.stat_subscription shows it';

CREATE FUNCTION bdr.get_relation_stats(
		OUT relid oid, OUT total_time double precision, OUT ninsert bigint, OUT nupdate bigint, OUT ndelete bigint,
		OUT ntruncate bigint, OUT shared_blks_hit bigint, OUT shared_blks_read bigint, OUT shared_blks_dirtied bigint,
		OUT shared_blks_written bigint, OUT blk_read_time double precision, OUT blk_write_time double precision,
		OUT lock_acquire_time double precision, OUT stats_reset timestamptz)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'bdr_get_relation_stats';
COMMENT ON FUNCTION bdr.get_relation_stats() IS 'what was applied to each table, and what it cost; bdr.stat_relation shows it';

CREATE FUNCTION bdr.reset_subscription_stats() RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'bdr_reset_subscription_stats';
COMMENT ON FUNCTION bdr.reset_subscription_stats() IS 'lets the counters of bdr.stat_subscription begin at 0 again';

CREATE FUNCTION bdr.reset_relation_stats() RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'bdr_reset_relation_stats';
COMMENT ON FUNCTION bdr.reset_relation_stats() IS 'empties bdr.stat_relation';

CREATE VIEW bdr.stat_subscription AS
SELECT s.sub_name, s.pgl_subscription_id AS subid, w.nconnect, w.ncommit, w.nabort, w.nerror, w.nskippedtx, w.ninsert, w.nupdate,
	w.ndelete, w.ntruncate, w.nddl, w.ndeadlocks, w.nretries, w.shared_blks_hit, w.shared_blks_read, w.shared_blks_dirtied,
	w.shared_blks_written, w.blk_read_time, w.blk_write_time, p.connect_time, p.disconnect_time AS last_disconnect_time,
	w.start_lsn, w.retries_at_same_lsn, w.curr_ncommit, w.nconflict, w.nmissing, w.mean_apply_time, w.stats_reset
FROM bdr.subscription s
	LEFT JOIN bdr.get_subscription_stats() w ON w.peer = s.origin_node_id
	LEFT JOIN bdr.show_subscription_status() p ON p.peer = s.origin_node_id;
COMMENT ON VIEW bdr.stat_subscription IS 'what was applied from each node since the server started, and what it cost';

CREATE VIEW bdr.stat_relation AS
SELECT n.nspname, c.relname, s.relid, s.total_time, s.ninsert, s.nupdate, s.ndelete, s.ntruncate, s.shared_blks_hit,
	s.shared_blks_read, s.shared_blks_dirtied, s.shared_blks_written, s.blk_read_time, s.blk_write_time, s.lock_acquire_time,
	s.stats_reset
FROM bdr.get_relation_stats() s
	JOIN pg_catalog.pg_class c ON c.oid = s.relid
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace;
COMMENT ON VIEW bdr.stat_relation IS 'what was applied to each table, and what it cost, while bdr.track_relation_apply is on; times in ms';

CREATE VIEW bdr.replication_status AS
SELECT t.node_id, t.node_name, o.node_id AS origin_node_id, o.node_name AS origin_node_name, s.pgl_subscription_id AS sub_id,
	s.sub_name, w.connect_time IS NOT NULL AS connected,
	s.sub_enabled AND COALESCE(c.retries_at_same_lsn >= 2 AND c.curr_ncommit = 0, false) AS replication_blocked, w.connect_time,
	w.disconnect_time, pg_catalog.clock_timestamp() - w.connect_time AS uptime
FROM bdr.subscription s
	JOIN bdr.node t ON t.node_id = s.target_node_id
	JOIN bdr.node o ON o.node_id = s.origin_node_id
	LEFT JOIN bdr.show_subscription_status() w ON w.peer = s.origin_node_id
	LEFT JOIN bdr.get_subscription_stats() c ON c.peer = s.origin_node_id;
COMMENT ON VIEW bdr.replication_status IS
	'whether the local node is connected to each other one; replication_blocked: a transaction fails again and again';

CREATE VIEW bdr.stat_activity AS
SELECT a.datid, a.datname, a.pid, a.leader_pid, a.usesysid, a.usename, a.application_name, a.client_addr, a.client_hostname,
	a.client_port, a.backend_start, a.xact_start, a.query_start, a.state_change, a.wait_event_type,
	CASE WHEN a.wait_event_type = 'Extension' AND a.wait_event = 'Extension' AND pg_catalog.starts_with(a.backend_type, 'bdr ')
		THEN 'Bdr' || pg_catalog.initcap(pg_catalog.substr(a.backend_type, 5)) || 'Wait' ELSE a.wait_event END AS wait_event,
	a.state, a.backend_xid, a.backend_xmin, a.query_id, a.query, a.backend_type
FROM pg_catalog.pg_stat_activity a;
COMMENT ON VIEW bdr.stat_activity IS 'pg_stat_activity, with the names of what workers of bdr wait for';

CREATE VIEW bdr.node_catchup_info AS
SELECT l.node_id, p.peer_node_id AS node_source_id, p.remote_slot_name AS slot_name, p.catchup_lsn AS min_node_lsn,
	(CASE WHEN j.step IN ('preflight', 'reserve', 'create_peer_slots', 'await_peer_positions', 'create_slot') THEN 10
		WHEN j.step IN ('copy_structure', 'copy_data', 'copy_indexes', 'set_origins', 'create_local_slots') THEN 20
		WHEN j.step IN ('catchup', 'standby', 'promote') THEN 30 ELSE 40 END)::oid AS catchup_state,
	p.peer_node_id AS origin_node_id
FROM bdr.local_node l CROSS JOIN bdr.join_state j CROSS JOIN bdr.join_peer p
WHERE j.step NOT IN ('active', 'failed')
UNION ALL
SELECT l.node_id, j.target_node_id, j.remote_slot_name, j.catchup_lsn,
	(CASE WHEN j.step IN ('preflight', 'reserve', 'create_peer_slots', 'await_peer_positions', 'create_slot') THEN 10
		WHEN j.step IN ('copy_structure', 'copy_data', 'copy_indexes', 'set_origins', 'create_local_slots') THEN 20
		WHEN j.step IN ('catchup', 'standby', 'promote') THEN 30 ELSE 40 END)::oid,
	j.target_node_id
FROM bdr.local_node l CROSS JOIN bdr.join_state j
WHERE j.step NOT IN ('active', 'failed') AND j.target_node_id IS NOT NULL
UNION ALL
SELECT l.node_id, r.source_node_id, NULL, r.target_lsn, (CASE WHEN r.applied THEN 40 ELSE 30 END)::oid, r.origin_node_id
FROM bdr.local_node l CROSS JOIN bdr.recovery r;
COMMENT ON VIEW bdr.node_catchup_info IS 'what the local node still has to get of others while it joins, or when one has died';

CREATE VIEW bdr.node_catchup_info_details AS
SELECT n.node_name AS target_node_name, s.node_name AS source_node_name, o.node_name AS origin_node_name,
	CASE i.catchup_state WHEN 10 THEN 'setup' WHEN 20 THEN 'start' WHEN 30 THEN 'catchup' ELSE 'done' END AS catchup_state_name,
	i.slot_name, i.min_node_lsn, i.node_id, i.node_source_id, i.origin_node_id, i.catchup_state
FROM bdr.node_catchup_info i
	LEFT JOIN bdr.node n ON n.node_id = i.node_id
	LEFT JOIN bdr.node s ON s.node_id = i.node_source_id
	LEFT JOIN bdr.node o ON o.node_id = i.origin_node_id;
COMMENT ON VIEW bdr.node_catchup_info_details IS 'bdr.node_catchup_info with names';

CREATE VIEW bdr.event_summary AS
SELECT e.error_time AS event_time, e.target_name AS event_node_name, 'worker ' || e.worker_role_name AS event_source,
	'ERROR'::text AS event_type, e.origin_name AS event_peer_name, e.error_message AS event_message
FROM bdr.worker_errors e
UNION ALL
SELECT j.entered_time, j.node_name, 'node state', bdr.peer_state_name(j.state), NULL, 'node has entered state ' || bdr.peer_state_name(j.state)
FROM bdr.state_journal_details j
UNION ALL
SELECT m.noted_time, m.node_name, 'missing changes', 'WARNING', m.origin_name,
	pg_catalog.format('lacks changes of %s after %s, up to %s, which nobody can send any more: part it and let it join again',
					  m.origin_name, m.after_lsn, m.upto_lsn)
FROM bdr.missing_changes m;
COMMENT ON VIEW bdr.event_summary IS 'what has happened to nodes and workers, as this node has seen it';

-- Questions that are asked of all nodes: a fixed list, so that those who watch need no rights there.
CREATE FUNCTION bdr.internal_group_rows(what text, OUT node_id text, OUT node_name text, OUT error text,
										OUT f1 text, OUT f2 text, OUT f3 text, OUT f4 text, OUT f5 text, OUT f6 text,
										OUT f7 text, OUT f8 text, OUT f9 text, OUT f10 text, OUT f11 text, OUT f12 text)
	RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'bdr_internal_group_rows';
COMMENT ON FUNCTION bdr.internal_group_rows(text) IS 'what all nodes of the group answer to a question; behind the views bdr.group_...';

CREATE VIEW bdr.group_versions_details AS
SELECT g.node_id::oid AS node_id, g.node_name::name AS node_name, g.f1 AS postgres_version, g.f2 AS bdr_version, g.f3 AS bdr_edition,
	g.error
FROM bdr.internal_group_rows('versions') g;
COMMENT ON VIEW bdr.group_versions_details IS 'what each node of the group runs; error: why it did not answer';

CREATE VIEW bdr.group_replslots_details AS
SELECT g.f1 AS node_group_name, COALESCE(g.f2, g.node_name) AS origin_name, g.f3 AS target_name, g.f4 AS slot_name, g.f5 AS active,
	CASE WHEN g.error IS NULL THEN g.f6 ELSE 'unreachable' END AS state, g.f7::interval AS write_lag, g.f8::interval AS flush_lag,
	g.f9::interval AS replay_lag, g.f10::int8 AS sent_lag_bytes, g.f11::int8 AS write_lag_bytes, g.f12::int8 AS flush_lag_bytes,
	g.f12::int8 AS replay_lag_byte, g.error
FROM bdr.internal_group_rows('slots') g;
COMMENT ON VIEW bdr.group_replslots_details IS
	'the slots of all nodes of the group; state unreachable: the node did not answer, and error says why';

CREATE VIEW bdr.group_subscription_summary AS
SELECT g.f1 AS origin_node_name, COALESCE(g.f2, g.node_name) AS target_node_name, g.f3 AS last_xact_replay_timestamp,
	g.f4 AS sub_lag_seconds, CASE WHEN g.error IS NULL THEN g.f5 ELSE 'unreachable' END AS subscription_status, g.error
FROM bdr.internal_group_rows('subscriptions') g
WHERE g.error IS NOT NULL OR g.f1 IS NOT NULL;
COMMENT ON VIEW bdr.group_subscription_summary IS 'what all nodes of the group receive from one another, and how long ago they applied something';

CREATE FUNCTION bdr.monitor_group_versions(OUT status text, OUT message text) RETURNS SETOF record
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
	unreachable bigint;
	versions bigint;
	editions bigint;
	nodes bigint;
BEGIN
	IF NOT EXISTS (SELECT FROM bdr.local_node_summary WHERE node_group_name IS NOT NULL) THEN
		RETURN QUERY SELECT 'UNKNOWN', 'This node is not part of any BDR group';
		RETURN;
	END IF;
	SELECT count(*), count(error), count(DISTINCT bdr_version), count(DISTINCT bdr_edition)
		INTO nodes, unreachable, versions, editions FROM bdr.group_versions_details;
	IF unreachable > 0 THEN
		RETURN QUERY SELECT 'WARNING', 'There is at least 1 node that is not accessible';
	ELSIF versions > 1 THEN
		RETURN QUERY SELECT 'WARNING', 'There are node(s) running different BDR versions when compared to other nodes';
	ELSIF editions > 1 THEN
		RETURN QUERY SELECT 'WARNING', 'There are node(s) running different BDR editions when compared to other nodes';
	ELSE
		RETURN QUERY SELECT 'OK', 'All nodes are running same BDR versions';
	END IF;
END
$function$;
COMMENT ON FUNCTION bdr.monitor_group_versions() IS 'whether all nodes answer and run the same version: OK, WARNING or UNKNOWN';

-- There is no consensus of a majority: what changes the group is agreed on by all of its nodes.
CREATE FUNCTION bdr.monitor_group_raft(OUT status text, OUT message text) RETURNS SETOF record
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
	unreachable bigint;
	nodes bigint;
BEGIN
	IF NOT EXISTS (SELECT FROM bdr.local_node_summary WHERE node_group_name IS NOT NULL) THEN
		RETURN QUERY SELECT 'UNKNOWN', 'This node is not part of any BDR group';
		RETURN;
	END IF;
	SELECT count(*), count(error) INTO nodes, unreachable FROM bdr.group_versions_details;
	IF unreachable * 2 >= nodes THEN
		RETURN QUERY SELECT 'CRITICAL', 'At least half of the nodes are not accessible';
	ELSIF unreachable > 0 THEN
		RETURN QUERY SELECT 'WARNING', 'There is at least 1 node that is not accessible';
	ELSE
		RETURN QUERY SELECT 'OK', 'All nodes are accessible; this version works without Raft Consensus';
	END IF;
END
$function$;
COMMENT ON FUNCTION bdr.monitor_group_raft() IS 'whether the nodes that agree on joins and partings answer: OK, WARNING, CRITICAL or UNKNOWN';

CREATE FUNCTION bdr.monitor_local_replslots(OUT status text, OUT message text) RETURNS SETOF record
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
	missing bigint;
	inactive bigint;
BEGIN
	IF NOT EXISTS (SELECT FROM bdr.local_node_summary WHERE node_group_name IS NOT NULL) THEN
		RETURN QUERY SELECT 'UNKNOWN', 'This node is not part of any BDR group';
		RETURN;
	END IF;
	SELECT count(*) FILTER (WHERE slot_name IS NULL), count(*) FILTER (WHERE NOT active) INTO missing, inactive
		FROM bdr.node_slots WHERE NOT is_group_slot;
	IF missing > 0 THEN
		RETURN QUERY SELECT 'CRITICAL', 'There is at least 1 BDR replication slot which is missing';
	ELSIF inactive > 0 THEN
		RETURN QUERY SELECT 'CRITICAL', 'There is at least 1 BDR replication slot which is inactive';
	ELSE
		RETURN QUERY SELECT 'OK', 'All BDR replication slots are working correctly';
	END IF;
END
$function$;
COMMENT ON FUNCTION bdr.monitor_local_replslots() IS 'whether all peers receive from their slots here: OK, CRITICAL or UNKNOWN';

CREATE FUNCTION bdr.get_node_sub_receive_lsn(node_name name, committed boolean DEFAULT true) RETURNS pg_lsn
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $function$
	SELECT CASE WHEN committed THEN s.receive_commit_lsn ELSE s.receive_lsn END FROM bdr.subscription_summary s
	WHERE s.origin_name = node_name
$function$;
COMMENT ON FUNCTION bdr.get_node_sub_receive_lsn(name, boolean) IS 'up to where this node has received what another one has committed';

CREATE FUNCTION bdr.get_node_sub_apply_lsn(node_name name) RETURNS pg_lsn
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $function$
	SELECT s.last_xact_replay_lsn FROM bdr.subscription_summary s WHERE s.origin_name = node_name
$function$;
COMMENT ON FUNCTION bdr.get_node_sub_apply_lsn(name) IS 'up to where this node has applied what another one has committed';

CREATE FUNCTION bdr.node_group_type(node_group_name text) RETURNS text
	LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $function$
	SELECT 'normal' FROM bdr.node_group g WHERE g.node_group_name = node_group_type.node_group_name::name
$function$;
COMMENT ON FUNCTION bdr.node_group_type(text) IS 'type of a group';

CREATE FUNCTION bdr.bdr_features(OUT feature text, OUT available boolean) RETURNS SETOF record
	LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $function$
	SELECT v.feature, EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'bdr'::regnamespace AND p.proname = v.function
		AND obj_description(p.oid, 'pg_proc') !~ '^refused: ')
	FROM (VALUES ('row replication', 'create_node_group'), ('conflict resolution', 'alter_node_set_conflict_resolver'),
		('conflict history', 'alter_node_set_log_config'), ('column-level conflict detection', 'alter_table_conflict_detection'),
		('conflict-free types', 'crdt_gcounter_in'), ('stream triggers', 'create_conflict_trigger'),
		('DDL replication', 'replicate_ddl_command'), ('global locks', 'global_lock_table'),
		('global sequences', 'alter_sequence_set_kind'), ('replication sets', 'create_replication_set'),
		('commit scopes', 'add_commit_scope')) v(feature, function)
$function$;
COMMENT ON FUNCTION bdr.bdr_features() IS 'what this version can do';

-- what the columns of the views that are looked at first mean
COMMENT ON COLUMN bdr.replication_status.node_id IS 'the local node';
COMMENT ON COLUMN bdr.replication_status.node_name IS 'its name';
COMMENT ON COLUMN bdr.replication_status.origin_node_id IS 'the node that it receives from';
COMMENT ON COLUMN bdr.replication_status.origin_node_name IS 'its name';
COMMENT ON COLUMN bdr.replication_status.sub_id IS 'the subscription';
COMMENT ON COLUMN bdr.replication_status.sub_name IS 'its name';
COMMENT ON COLUMN bdr.replication_status.connected IS 'the stream is open';
COMMENT ON COLUMN bdr.replication_status.replication_blocked IS 'the same transaction has failed at least twice since one was applied: see bdr.worker_errors';
COMMENT ON COLUMN bdr.replication_status.connect_time IS 'since when the stream is open';
COMMENT ON COLUMN bdr.replication_status.disconnect_time IS 'when it was closed last';
COMMENT ON COLUMN bdr.replication_status.uptime IS 'how long it is open';
COMMENT ON COLUMN bdr.node_replication_rates.peer_node_id IS 'the node that receives';
COMMENT ON COLUMN bdr.node_replication_rates.target_name IS 'its name';
COMMENT ON COLUMN bdr.node_replication_rates.sent_lsn IS 'up to where it was sent to';
COMMENT ON COLUMN bdr.node_replication_rates.replay_lsn IS 'up to where it has applied';
COMMENT ON COLUMN bdr.node_replication_rates.replay_lag IS 'how long it is behind';
COMMENT ON COLUMN bdr.node_replication_rates.replay_lag_bytes IS 'how much WAL it is behind';
COMMENT ON COLUMN bdr.node_replication_rates.replay_lag_size IS 'the same, to be read';
COMMENT ON COLUMN bdr.node_replication_rates.apply_rate IS 'how fast it confirms, bytes a second';
COMMENT ON COLUMN bdr.node_replication_rates.catchup_interval IS 'how long it needs at that rate';
COMMENT ON COLUMN bdr.node_replication_rates.retained_wal_bytes IS 'WAL that the server keeps for it';
COMMENT ON COLUMN bdr.node_replication_rates.state IS 'of its walsender; disconnected: there is none';
COMMENT ON COLUMN bdr.node_replication_rates.subscription_status IS 'how receiving from it is doing';
COMMENT ON COLUMN bdr.node_replication_rates.last_error_sqlstate IS 'of applying what comes from it';
COMMENT ON COLUMN bdr.node_replication_rates.last_error_message IS 'of applying what comes from it';
COMMENT ON COLUMN bdr.node_replication_rates.last_error_time IS 'of applying what comes from it';
COMMENT ON COLUMN bdr.event_summary.event_time IS 'when it happened';
COMMENT ON COLUMN bdr.event_summary.event_node_name IS 'the node that it happened to';
COMMENT ON COLUMN bdr.event_summary.event_source IS 'worker and its role, node state, or missing changes';
COMMENT ON COLUMN bdr.event_summary.event_type IS 'ERROR, WARNING, or the state of a node';
COMMENT ON COLUMN bdr.event_summary.event_peer_name IS 'the other node that it is about';
COMMENT ON COLUMN bdr.event_summary.event_message IS 'what happened';
COMMENT ON COLUMN bdr.group_slot_retention.peer_node_id IS 'a peer';
COMMENT ON COLUMN bdr.group_slot_retention.peer_name IS 'its name';
COMMENT ON COLUMN bdr.group_slot_retention.slot_name IS 'the group slot';
COMMENT ON COLUMN bdr.group_slot_retention.restart_lsn IS 'from where the server keeps WAL for it';
COMMENT ON COLUMN bdr.group_slot_retention.confirmed_flush_lsn IS 'the mark where it is';
COMMENT ON COLUMN bdr.group_slot_retention.passed_lsn IS 'the last mark that this peer has passed';
COMMENT ON COLUMN bdr.group_slot_retention.held_bytes IS 'WAL that it keeps for this peer';
COMMENT ON COLUMN bdr.group_slot_retention.held_size IS 'the same, to be read';
COMMENT ON COLUMN bdr.group_slot_retention.past_bound IS 'the peer needs more than may be kept';
COMMENT ON COLUMN bdr.group_slot_retention.last_report_time IS 'when the peer has told last how far it is';

-- ---------------------------------------------------------------------------------------------------------------------
-- Health: may a node get traffic? Poolers ask this often, so it reads shared memory and small tables only. In PL/pgSQL, as the
-- views are defined above and a node that is not in a group has to answer, too.
-- ---------------------------------------------------------------------------------------------------------------------

CREATE FUNCTION bdr.node_health(OUT ready boolean, OUT state text, OUT reason text, OUT node_name name, OUT lag_bytes bigint)
	RETURNS record
	LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
	peer record;
BEGIN
	ready := false;
	SELECT l.node_name, l.peer_state_name INTO node_name, state FROM bdr.local_node_summary l;
	IF state IS NULL THEN
		state := 'NONE';
		reason := 'this database is no node';
		RETURN;
	ELSIF pg_is_in_recovery() THEN
		reason := 'the server is a standby';
		RETURN;
	ELSIF state <> 'ACTIVE' THEN
		reason := format('the node is %s', state);
		RETURN;
	END IF;
	lag_bytes := 0;
	FOR peer IN SELECT o.node_name, CASE WHEN s.sub_enabled THEN COALESCE(w.status, 'down') ELSE 'disabled' END AS status,
			COALESCE(pg_wal_lsn_diff(w.receive_lsn, w.last_xact_flush_lsn), 0) AS behind, w.last_error_sqlstate, w.last_error_message
		FROM bdr.subscription s JOIN bdr.node o ON o.node_id = s.origin_node_id AND o.node_state = 8
			LEFT JOIN bdr.show_subscription_status() w ON w.peer = s.origin_node_id
		ORDER BY o.node_name
	LOOP
		lag_bytes := GREATEST(lag_bytes, peer.behind::bigint);
		-- a peer that can't be reached keeps nobody from working: that is when this node is needed
		CONTINUE WHEN peer.status = 'replicating' OR peer.status <> 'disabled' AND peer.last_error_sqlstate ~ '^(08|57P)'
			AND peer.status <> 'catchup';
		reason := concat_ws('; ', reason, CASE peer.status
			WHEN 'disabled' THEN format('receiving from %s is disabled', peer.node_name)
			WHEN 'error' THEN format('applying from %s fails: %s', peer.node_name, peer.last_error_message)
			WHEN 'catchup' THEN format('catching up with %s', peer.node_name)
			ELSE format('receiving from %s is starting', peer.node_name) END);
	END LOOP;
	ready := reason IS NULL;
END $function$;
COMMENT ON FUNCTION bdr.node_health() IS 'whether the local node may get traffic, and why not';

CREATE FUNCTION bdr.is_node_connected(node_name name) RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
	wanted alias FOR node_name;
	connected boolean;
BEGIN
	SELECT n.node_id = l.node_id
		   OR EXISTS (SELECT FROM bdr.node_slots s WHERE s.target_id = n.node_id AND s.active)
			  AND EXISTS (SELECT FROM bdr.subscription_summary r
						   WHERE r.origin_id = n.node_id AND r.subscription_status IN ('replicating', 'catchup'))
		INTO connected
		FROM bdr.local_node_summary l, bdr.node n WHERE n.node_name = wanted;
	IF connected IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = format('there is no node %I', wanted),
			HINT = 'See bdr.node_summary.';
	END IF;
	RETURN connected;
END $function$;
COMMENT ON FUNCTION bdr.is_node_connected(name) IS 'whether the local node sends to a node and receives from it';

CREATE FUNCTION bdr.is_node_ready(node_name name, span interval DEFAULT NULL) RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
	wanted alias FOR node_name;
BEGIN
	IF EXISTS (SELECT FROM bdr.local_node_summary l WHERE l.node_name = wanted) THEN
		RETURN (SELECT h.ready FROM bdr.node_health() h);
	END IF;
	RETURN bdr.is_node_connected(wanted)
		AND EXISTS (SELECT FROM bdr.node n WHERE n.node_name = wanted AND n.node_state = 8)
		AND EXISTS (SELECT FROM bdr.node_replication_rates r WHERE r.target_name = wanted AND r.state = 'streaming'
					   AND (span IS NULL OR r.replay_lag_bytes <= 0 OR r.replay_lag <= span));
END $function$;
COMMENT ON FUNCTION bdr.is_node_ready(name, interval) IS
	'whether a node is an active member that has everything of the local one, or had it no longer than a span ago';

-- ---------------------------------------------------------------------------------------------------------------------
-- What tools ask for that know BDR: what of it has a meaning here answers. The rest says that it is not there, and what to do
-- instead, which is more than that a function does not exist.
-- ---------------------------------------------------------------------------------------------------------------------

CREATE VIEW bdr.replication_sets AS
SELECT g.node_group_id AS set_id, g.node_group_name AS set_name, true AS replicate_insert, true AS replicate_update,
	true AS replicate_delete, true AS replicate_truncate, true AS set_autoadd_tables, false AS set_autoadd_seqs
FROM bdr.local_node l JOIN bdr.node m ON m.node_id = l.node_id JOIN bdr.node_group g ON g.node_group_id = m.node_group_id;
COMMENT ON VIEW bdr.replication_sets IS 'the only one, which has the name of the group and all tables';

CREATE VIEW bdr.node_group_replication_sets AS
SELECT g.node_group_name, g.node_group_name AS def_repset, '{INSERT,UPDATE,DELETE,TRUNCATE}'::text[] AS def_repset_ops,
	NULL::name AS def_repset_ext, NULL::text[] AS def_repset_ext_ops
FROM bdr.node_group g;
COMMENT ON VIEW bdr.node_group_replication_sets IS 'the default replication set of the group';

CREATE VIEW bdr.node_group_summary AS
SELECT g.node_group_name, g.node_group_name AS default_repset, NULL::name AS parent_group_name, 'global'::text AS node_group_type,
	g.node_group_apply_delay AS apply_delay, g.node_group_check_constraints AS check_constraints,
	g.node_group_num_writers AS num_writers, g.node_group_enable_wal_decoder AS enable_wal_decoder,
	(SELECT count(*) FROM bdr.node n WHERE n.node_group_id = g.node_group_id AND n.node_state = 8) AS active_nodes
FROM bdr.node_group g;
COMMENT ON VIEW bdr.node_group_summary IS 'the group';

CREATE FUNCTION bdr.get_global_locks() RETURNS SETOF bdr.global_locks
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS 'SELECT * FROM bdr.global_locks';
COMMENT ON FUNCTION bdr.get_global_locks() IS 'what the view bdr.global_locks shows';

-- Votes are counted anew for each question, so nobody leads.
CREATE FUNCTION bdr.get_raft_status(OUT node_id oid, OUT node_name name, OUT state text, OUT leader_id oid, OUT current_term int,
									OUT commit_index int, OUT nodes int, OUT voting_nodes int, OUT protocol_version int)
	RETURNS SETOF record
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $function$
	SELECT m.node_id, m.node_name, CASE m.node_state WHEN 8 THEN 'VOTER' ELSE bdr.peer_state_name(m.node_state) END, NULL::oid, NULL::int,
		NULL::int, count(n.node_id)::int, (count(n.node_id) FILTER (WHERE n.node_state = 8))::int, 1
	FROM bdr.local_node_summary l JOIN bdr.node m ON m.node_id = l.node_id
		JOIN bdr.node n ON n.node_group_id = m.node_group_id AND n.node_state < 12
	GROUP BY m.node_id, m.node_name, m.node_state
$function$;
COMMENT ON FUNCTION bdr.get_raft_status() IS
	'whether this node votes, and how many do; there is no leader: what has to be agreed on is voted on each time';

CREATE FUNCTION bdr.get_consensus_status(OUT node_id oid, OUT node_name name, OUT state text, OUT leader_id oid, OUT current_term int,
										 OUT commit_index int, OUT nodes int, OUT voting_nodes int, OUT protocol_version int)
	RETURNS SETOF record
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS 'SELECT * FROM bdr.get_raft_status()';
COMMENT ON FUNCTION bdr.get_consensus_status() IS 'another name of bdr.get_raft_status()';

CREATE VIEW bdr.group_raft_details AS
SELECT v.node_id, v.node_name, CASE WHEN v.error IS NOT NULL THEN 'UNREACHABLE' WHEN m.node_state = 8 THEN 'VOTER'
		ELSE bdr.peer_state_name(m.node_state) END AS state,
	NULL::oid AS leader_id, NULL::int AS current_term, NULL::int AS commit_index, s.nodes, s.voting_nodes, s.protocol_version, v.error
FROM bdr.group_versions_details v LEFT JOIN bdr.node m ON m.node_id = v.node_id CROSS JOIN bdr.get_raft_status() s;
COMMENT ON VIEW bdr.group_raft_details IS
	'which nodes can vote on global locks, joins and partings; there is no leader, so what is about one is NULL';

CREATE VIEW bdr.group_camo_details AS
SELECT n.node_id::text, n.node_name::text, NULL::text AS camo_partner_of, NULL::text AS camo_origin_for,
	NULL::text AS is_camo_partner_connected, NULL::text AS is_camo_partner_ready, NULL::text AS camo_transactions_resolved, NULL::text AS apply_lsn, NULL::text AS receive_lsn,
	NULL::text AS apply_queue_size
FROM bdr.node n WHERE n.node_state < 12;
COMMENT ON VIEW bdr.group_camo_details IS 'nodes and their partners, of which none has any';

CREATE FUNCTION bdr.wal_sender_stats(OUT pid int, OUT is_using_lcr boolean, OUT decoder_slot_name text, OUT lcr_file_name text)
	RETURNS SETOF record
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS
	'SELECT s.active_pid, false, NULL::text, NULL::text FROM bdr.node_slots s WHERE s.active_pid IS NOT NULL';
COMMENT ON FUNCTION bdr.wal_sender_stats() IS 'walsenders that serve peers; each decodes for itself';

CREATE FUNCTION bdr.get_decoding_worker_stat(OUT pid int, OUT decoded_upto_lsn pg_lsn, OUT waiting boolean, OUT waiting_for_lsn pg_lsn)
	RETURNS SETOF record
	LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS
	'SELECT NULL::int, NULL::pg_lsn, NULL::boolean, NULL::pg_lsn WHERE false';
COMMENT ON FUNCTION bdr.get_decoding_worker_stat() IS 'no rows: each walsender decodes for itself';

CREATE FUNCTION bdr.move_group_slot_all_nodes() RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS
	$function$ SELECT bdr.run_on_all_nodes('SELECT bdr.request_replay_progress_update()') $function$;
COMMENT ON FUNCTION bdr.move_group_slot_all_nodes() IS
	'has all nodes report at once what they have applied, by which the group slots of the others move on';

CREATE FUNCTION bdr.alter_node_group_config(node_group_name text, insert_to_update boolean DEFAULT NULL,
											update_to_insert boolean DEFAULT NULL, ignore_redundant_updates boolean DEFAULT NULL,
											check_full_tuple boolean DEFAULT NULL, apply_delay interval DEFAULT NULL,
											check_constraints boolean DEFAULT NULL, num_writers int DEFAULT NULL,
											enable_wal_decoder boolean DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
	wanted record;
BEGIN
	IF NOT EXISTS (SELECT FROM bdr.local_node_summary l WHERE l.node_group_name = alter_node_group_config.node_group_name::name) THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('the local node is in no group "%s"', node_group_name), HINT = 'See bdr.local_node_summary.';
	END IF;
	-- what is so already may be said again
	FOR wanted IN SELECT * FROM (VALUES
		('insert_to_update', NOT insert_to_update, 'Use bdr.alter_node_set_conflict_resolver() for insert_exists.'),
		('update_to_insert', NOT update_to_insert, 'Use bdr.alter_node_set_conflict_resolver() for update_missing.'),
		('ignore_redundant_updates', ignore_redundant_updates, 'Leave it out: all updates are sent.'),
		('check_full_tuple', NOT check_full_tuple, 'Leave it out: it goes by how the conflicts of a table are detected.'),
		('apply_delay', apply_delay <> '0', 'Leave it out: changes are applied when they arrive.'),
		('check_constraints', NOT check_constraints, 'Leave it out: constraints are checked where changes are applied.'),
		('num_writers', num_writers <> -1, 'Set bdr.writers_per_subscription on each node.'),
		('enable_wal_decoder', enable_wal_decoder, 'Leave it out: each walsender decodes for itself.')) v(name, is_other, hint)
		WHERE is_other
	LOOP
		RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
			MESSAGE = format('this value of %s is not supported', wanted.name), HINT = wanted.hint;
	END LOOP;
END $function$;
COMMENT ON FUNCTION bdr.alter_node_group_config(text, boolean, boolean, boolean, boolean, interval, boolean, int, boolean) IS
	'accepts what is so already; other values are refused with what to use instead';

CREATE FUNCTION bdr.alter_node_group_option(node_group_name text, config_key text, config_value text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
	CASE config_key
		WHEN 'apply_delay' THEN PERFORM bdr.alter_node_group_config(node_group_name, apply_delay := config_value::interval);
		WHEN 'check_constraints' THEN PERFORM bdr.alter_node_group_config(node_group_name, check_constraints := config_value::boolean);
		WHEN 'enable_wal_decoder' THEN PERFORM bdr.alter_node_group_config(node_group_name, enable_wal_decoder := config_value::boolean);
		WHEN 'num_writers' THEN PERFORM bdr.alter_node_group_config(node_group_name, num_writers := config_value::int);
		ELSE
			RAISE EXCEPTION USING ERRCODE = 'feature_not_supported', MESSAGE = format('groups have no option "%s"', config_key),
				HINT = 'There are apply_delay, check_constraints, enable_wal_decoder and num_writers. For what a node does, see its settings.';
	END CASE;
END $function$;
COMMENT ON FUNCTION bdr.alter_node_group_option(text, text, text) IS
	'accepts what is so already; other values are refused with what to use instead';

DO LANGUAGE plpgsql $not_there$
DECLARE
	f record;
BEGIN
	FOR f IN SELECT v.message, v.hint, pg_catalog.btrim(s.signature, E' \n\t') AS signature
		FROM (VALUES
			('replication sets are not supported',
			 'All tables are replicated to all nodes. What is to stay on a node: CREATE UNLOGGED TABLE, or a database of its own.',
			 'create_replication_set(set_name name, replicate_insert boolean DEFAULT true, replicate_update boolean DEFAULT true,
				replicate_delete boolean DEFAULT true, replicate_truncate boolean DEFAULT true, autoadd_tables boolean DEFAULT false,
				autoadd_existing boolean DEFAULT true);
			 alter_replication_set(set_name name, replicate_insert boolean DEFAULT NULL, replicate_update boolean DEFAULT NULL,
				replicate_delete boolean DEFAULT NULL, replicate_truncate boolean DEFAULT NULL, autoadd_tables boolean DEFAULT NULL);
			 drop_replication_set(set_name name);
			 alter_node_replication_sets(node_name name, set_names text[]);
			 replication_set_add_table(relation regclass, set_name name DEFAULT NULL, columns text[] DEFAULT NULL, row_filter text DEFAULT NULL);
			 replication_set_remove_table(relation regclass, set_name name DEFAULT NULL)'),
			('DDL filters are not supported', 'For statements that are to stay on a node: SET LOCAL bdr.ddl_replication = off;',
			 'replication_set_add_ddl_filter(set_name name, ddl_filter_name text, command_tag text, role_name text DEFAULT NULL);
			 replication_set_remove_ddl_filter(set_name name, ddl_filter_name text)'),
			('groups within a group are not supported',
			 'All nodes are in one group and receive from one another. For copies that are only read, see docs/standby.md.',
			 'switch_node_group(node_group_name text, wait_for_completion boolean DEFAULT true)'),
			('nodes have no leader and no log of decisions',
			 'Nothing has to be done: a node that has to ask the others puts it to the vote. See bdr.group_raft_details.',
			 'raft_leadership_transfer(node_name text, wait_for_completion boolean);
			 consensus_disable();
			 consensus_enable();
			 consensus_proto_version();
			 consensus_snapshot_export(version integer DEFAULT NULL);
			 consensus_snapshot_import(snapshot bytea);
			 consensus_snapshot_verify(snapshot bytea)'),
			('transactions are not waited for by their number',
			 'SELECT bdr.wait_slot_confirm_lsn(); on the node of the transaction waits until all nodes have it.',
			 'wait_for_xid_progress(origin_node_id oid, origin_topxid int, allnodes boolean DEFAULT true)'),
			('commit scopes are not supported',
			 'After a COMMIT, SELECT bdr.wait_slot_confirm_lsn(); waits until all nodes have it; or set synchronous_standby_names.',
			 'add_commit_scope(commit_scope_name name, origin_node_group name, rule text, wait_for_ready boolean DEFAULT true);
			 create_commit_scope(commit_scope_name name, origin_node_group name, rule text, wait_for_ready boolean DEFAULT true);
			 alter_commit_scope(commit_scope_name name, origin_node_group name, rule text);
			 remove_commit_scope(commit_scope_name name, origin_node_group name)'),
			('pairs of nodes that commit a transaction at most once are not supported',
			 'Give transactions a key of their own and look for it after a lost connection. '
				'pg_xact_status() tells about a transaction on its own node.',
			 'add_camo_pair(node_group text, left_node text, right_node text, require_raft boolean);
			 alter_camo_pair(node_group text, left_node text, right_node text, require_raft boolean);
			 remove_camo_pair(node_group text, left_node text, right_node text);
			 is_camo_partner_connected();
			 is_camo_partner_ready();
			 get_configured_camo_partner();
			 get_configured_camo_partner_of();
			 get_configured_camo_origin_for();
			 wait_for_camo_partner_queue();
			 camo_transactions_resolved();
			 logical_transaction_status(node_id oid, xid oid, require_camo_partner boolean DEFAULT true)'),
			('partitions are not made and dropped automatically',
			 'CREATE TABLE ... PARTITION OF and DROP TABLE are replicated: have a scheduled job on one node type them.',
			 'autopartition(relation regclass, partition_increment text, partition_initial_lowerbound text DEFAULT NULL,
				partition_autocreate_expression text DEFAULT NULL, minimum_advance_partitions integer DEFAULT 2,
				maximum_advance_partitions integer DEFAULT 5, data_retention_period interval DEFAULT NULL,
				managed_locally boolean DEFAULT false, enabled boolean DEFAULT true);
			 drop_autopartition(relation regclass);
			 autopartition_create_partition(relname regclass, partname name, lowerb text, upperb text, nodes oid[]);
			 autopartition_drop_partition(relname regclass);
			 autopartition_wait_for_partitions(relation regclass, bound text);
			 autopartition_wait_for_partitions_on_all_nodes(relation regclass, bound text);
			 autopartition_find_partition(relname regclass, searchkey text);
			 autopartition_enable(relname regclass);
			 autopartition_disable(relname regclass);
			 autopartition_get_last_completed_workitem();
			 autopartition_work_queue_check_status(workid bigint, local boolean DEFAULT false)')) v(message, hint, signatures),
			pg_catalog.string_to_table(v.signatures, ';') s(signature)
	LOOP
		EXECUTE pg_catalog.format('CREATE FUNCTION bdr.%s RETURNS void LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp '
			'AS %L', f.signature, pg_catalog.format('BEGIN RAISE EXCEPTION USING ERRCODE = ''feature_not_supported'', MESSAGE = %L, HINT = %L; END',
			f.message, f.hint));
		EXECUTE pg_catalog.format('COMMENT ON FUNCTION bdr.%I IS %L', pg_catalog.split_part(f.signature, '(', 1), 'refused: ' || f.message);
	END LOOP;
END $not_there$;

-- ---------------------------------------------------------------------------------------------------------------------
-- Rights
-- ---------------------------------------------------------------------------------------------------------------------

REVOKE ALL ON ALL ROUTINES IN SCHEMA bdr FROM PUBLIC;

-- For everybody: the owner of a table may read the conflicts of its rows, and row security keeps the others out.
GRANT USAGE ON SCHEMA bdr TO PUBLIC;
GRANT SELECT ON bdr.conflict_history TO PUBLIC;
GRANT USAGE ON SCHEMA bdr TO bdr_superuser, bdr_read_all_stats, bdr_monitor, bdr_application, bdr_read_all_conflicts;
GRANT ALL ON ALL TABLES IN SCHEMA bdr TO bdr_superuser;
GRANT ALL ON ALL SEQUENCES IN SCHEMA bdr TO bdr_superuser;
GRANT ALL ON ALL ROUTINES IN SCHEMA bdr TO bdr_superuser;
-- what is in rows is for their owners; there is no row security on partitions
REVOKE ALL ON bdr.conflict_history_default FROM bdr_superuser;
REVOKE ALL ON FUNCTION bdr.boundary_test(text, bigint) FROM bdr_superuser;

GRANT SELECT ON bdr.local_node_summary, bdr.node, bdr.node_group, bdr.node_local_info, bdr.node_peer_progress,
	bdr.node_slots, bdr.node_summary, bdr.state_journal_details, bdr.stat_subscription, bdr.subscription,
	bdr.subscription_summary, bdr.worker_errors, bdr.workers, bdr.join_progress, bdr.join_table_progress, bdr.part_progress,
	bdr.node_replication_rates, bdr.group_slot_retention, bdr.missing_changes, bdr.conflict_history_summary,
	bdr.node_conflict_resolvers, bdr.node_log_config, bdr.stat_conflicts, bdr.tables, bdr.sequences,
	bdr.sequence_alloc, bdr.global_locks, bdr.global_lock, bdr.ddl_epoch TO bdr_read_all_stats;
GRANT SELECT ON bdr.stat_relation, bdr.replication_status, bdr.stat_activity, bdr.node_catchup_info, bdr.node_catchup_info_details,
	bdr.event_summary, bdr.replication_sets, bdr.node_group_replication_sets, bdr.node_group_summary TO bdr_read_all_stats;
GRANT EXECUTE ON FUNCTION bdr.get_subscription_stats(), bdr.get_relation_stats(), bdr.internal_walsenders(), bdr.bdr_features(),
	bdr.get_node_sub_receive_lsn(name, boolean),
	bdr.get_node_sub_apply_lsn(name), bdr.node_group_type(text), bdr.get_global_locks(), bdr.get_raft_status(),
	bdr.get_consensus_status(), bdr.wal_sender_stats(), bdr.get_decoding_worker_stat() TO bdr_read_all_stats;
-- they ask other nodes
GRANT SELECT ON bdr.group_versions_details, bdr.group_replslots_details, bdr.group_subscription_summary, bdr.group_raft_details,
	bdr.group_camo_details TO bdr_monitor;
GRANT EXECUTE ON FUNCTION bdr.monitor_group_versions(), bdr.monitor_group_raft(), bdr.monitor_local_replslots(),
	bdr.internal_group_rows(text) TO bdr_monitor;
GRANT EXECUTE ON FUNCTION bdr.bdr_edition(), bdr.bdr_version(), bdr.bdr_version_num(), bdr.peer_state_name(oid),
	bdr.show_subscription_status(), bdr.show_workers(), bdr.show_conflict_stats(), bdr.internal_conflict_types(),
	bdr.internal_mask_dsn(text),
	bdr.internal_object_name(text, text, text, text, text), bdr.local_group_slot_name(), bdr.node_health(),
	bdr.is_node_connected(name), bdr.is_node_ready(name, interval) TO bdr_read_all_stats;
GRANT EXECUTE ON FUNCTION bdr.wait_slot_confirm_lsn(text, pg_lsn), bdr.local_group_slot_name(), bdr.global_lock_table(regclass),
	bdr.create_conflict_trigger(text, text[], regclass, regprocedure, text[]),
	bdr.create_transform_trigger(text, text[], regclass, regprocedure, text[]), bdr.drop_trigger(text, regclass, boolean),
	bdr.ri_fkey_trigger(), bdr.ri_fkey_on_del_trigger(), bdr.get_configured_camo_partner(), bdr.get_configured_camo_partner_of(),
	bdr.get_configured_camo_origin_for(),
	bdr.is_camo_partner_connected(), bdr.is_camo_partner_ready(), bdr.wait_for_camo_partner_queue(),
	bdr.logical_transaction_status(oid, oid, boolean),
	bdr.alter_table_conflict_detection(regclass, text, name, text), bdr.column_timestamps_enable(regclass, name, boolean),
	bdr.column_timestamps_disable(regclass, name)
	TO bdr_application;
-- A stream trigger's function runs as the owner of the table; elsewhere they give NULL.
GRANT EXECUTE ON FUNCTION bdr.trigger_get_row(text), bdr.trigger_get_committs(text), bdr.trigger_get_xid(text),
	bdr.trigger_get_type(), bdr.trigger_get_conflict_type(), bdr.trigger_get_origin_node_id(text) TO PUBLIC;
GRANT SELECT ON bdr.trigger, bdr.triggers TO bdr_application;
GRANT EXECUTE ON FUNCTION bdr.alter_sequence_set_kind(regclass, text, bigint),
	bdr.internal_sequence_set_kind(regclass, text, bigint) TO bdr_application;
-- They stand in plans for functions that everybody may call, and ask for the same rights on the sequence.
GRANT EXECUTE ON FUNCTION bdr.seq_nextval(regclass), bdr.seq_currval(regclass), bdr.seq_lastval(),
	bdr.internal_seq_setval(regclass, bigint), bdr.internal_seq_setval(regclass, bigint, boolean) TO PUBLIC;

-- What other nodes are told in messages of the WAL, DDL above all, they do as whom the message names. So not everybody may write
-- messages.
DO LANGUAGE plpgsql $rights$
DECLARE
	f regprocedure;
BEGIN
	FOR f IN SELECT p.oid::regprocedure FROM pg_catalog.pg_proc p
		WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = 'pg_logical_emit_message'
	LOOP
		EXECUTE pg_catalog.format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
		EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO bdr_superuser', f);
	END LOOP;
END
$rights$;

-- Whoever may use a table may do with its conflict-free columns and its timestamps what operators, casts, defaults and aggregates do,
-- create partitions with their triggers, and make and take apart global values; none shows or changes anything but its
-- arguments.
DO LANGUAGE plpgsql $rights$
DECLARE
	f regprocedure;
BEGIN
	FOR f IN SELECT p.oid::regprocedure FROM pg_catalog.pg_proc p
		WHERE p.pronamespace = 'bdr'::regnamespace AND (pg_catalog.starts_with(p.proname::text, 'crdt_')
			OR p.proname ~ '^column_timestamps_(in|out|recv|send|create|resolve|to_text|to_jsonb|trigger)$' OR p.proname = 'row_version_trigger'
			OR p.proname ~ 'ksuuid|uuid_v1_cmp|(snowflakeid|timeshard)$')
	LOOP
		EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', f);
	END LOOP;
END
$rights$;

-- Members of bdr_superuser may let a node join without being superusers; PostgreSQL gives these to superusers only.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_replication_origin_create(text), pg_catalog.pg_replication_origin_drop(text),
	pg_catalog.pg_replication_origin_oid(text), pg_catalog.pg_replication_origin_advance(text, pg_lsn),
	pg_catalog.pg_replication_origin_progress(text, boolean), pg_catalog.pg_replication_origin_session_setup(text),
	pg_catalog.pg_replication_origin_session_reset(), pg_catalog.pg_replication_origin_session_is_setup(),
	pg_catalog.pg_replication_origin_session_progress(boolean),
	pg_catalog.pg_replication_origin_xact_setup(pg_lsn, timestamptz), pg_catalog.pg_replication_origin_xact_reset()
	TO bdr_superuser;

-- Nor do they need to be superusers to set what is bdr's, to write what a join copies without triggers, or to keep connection
-- strings out of a log of statements. Parameters belong to the
-- server: another database may be granting the same at this moment.
DO LANGUAGE plpgsql $settings$
DECLARE
	parameter text;
BEGIN
	FOR parameter IN SELECT s.name FROM pg_catalog.pg_settings s
		WHERE pg_catalog.starts_with(s.name, 'bdr.') AND s.context = 'superuser'
		UNION ALL VALUES ('session_replication_role'), ('log_parameter_max_length')
	LOOP
		FOR attempt IN 1 .. 10 LOOP
			BEGIN
				IF NOT pg_catalog.has_parameter_privilege('bdr_superuser', parameter, 'SET') THEN
					EXECUTE pg_catalog.format('GRANT SET ON PARAMETER %s TO bdr_superuser', parameter);
				END IF;
				EXIT;
			EXCEPTION WHEN unique_violation OR internal_error THEN
				NULL;
			END;
		END LOOP;
	END LOOP;
END
$settings$;
