-- The walk: the first node, its group, and a second node that joins with a copy of what is there.

SELECT format('host=%s dbname=node1 user=regress', current_setting('unix_socket_directories')) AS dsn1,
	format('host=%s dbname=node2 user=regress', current_setting('unix_socket_directories')) AS dsn2 \gset

-- Whatever waits for something that does not come fails instead of waiting for ever; workers are not concerned.
ALTER DATABASE node1 SET statement_timeout = '60s';
ALTER DATABASE node2 SET statement_timeout = '60s';
SET statement_timeout = '60s';

-- What can't be seen by waiting for a position is waited for with this one; the second node gets a copy.
CREATE PROCEDURE wait_for(condition text) LANGUAGE plpgsql AS $$
DECLARE
	reached boolean;
	deadline timestamptz := clock_timestamp() + interval '30 s';
BEGIN
	LOOP
		EXECUTE 'SELECT ' || condition INTO reached;
		EXIT WHEN reached;
		IF clock_timestamp() > deadline THEN
			RAISE 'waited for too long: %', condition;
		END IF;
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;

-- What exists before there are nodes.
CREATE SCHEMA "Own Schema";
CREATE TYPE colour AS ENUM ('red', 'green', 'blue');
CREATE TABLE "Own Schema"."Some Table" (id serial PRIMARY KEY, "The Colour" colour DEFAULT 'green', note text UNIQUE);
CREATE INDEX some_colour ON "Own Schema"."Some Table" ("The Colour") WHERE note IS NOT NULL;
CREATE TABLE referring (id int PRIMARY KEY, other int REFERENCES "Own Schema"."Some Table", CHECK (id > 0));
CREATE TABLE without_key (line text);
CREATE VIEW greens AS SELECT id FROM "Own Schema"."Some Table" WHERE "The Colour" = 'green';
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
INSERT INTO "Own Schema"."Some Table" ("The Colour", note) VALUES ('red', 'one'), ('blue', NULL), (DEFAULT, E'three\twith\\"');
INSERT INTO referring VALUES (1, 1), (2, NULL);
INSERT INTO without_key VALUES ('twin'), ('twin');

-- The first node.
CREATE EXTENSION bdr CASCADE;
SELECT bdr.bdr_version() = (SELECT extversion FROM pg_extension WHERE extname = 'bdr') AS library_is_version_of_extension,
	bdr.bdr_version_num() >= 10000 AS has_number, bdr.bdr_edition();
-- Servers with a list of permitted output plugins say so.
SET client_min_messages = warning;
SELECT bdr.create_node(node_name := 'one', local_dsn := :'dsn1');
SELECT node_name, node_group_name, peer_state_name, peer_target_state_name, node_seq_id, node_local_dbname
	FROM bdr.local_node_summary;
SELECT bdr.local_group_slot_name();
SELECT bdr.create_node_group(node_group_name := 'the_group');
SELECT bdr.wait_for_join_completion();
SELECT node_name, node_group_name, interface_name, peer_state_name, peer_target_state_name, node_seq_id,
	node_local_dbname, pub_repsets, sub_repsets, set_repl_ops, node_id, if_id, node_group_id = g.id AS of_the_group
	FROM bdr.local_node_summary, (SELECT node_group_id AS id FROM bdr.node_group) g;
SELECT node_group_name, node_group_default_repset = node_group_id AS default_repset, node_group_parent_id,
	node_group_flags, node_group_apply_delay, node_group_check_constraints, node_group_num_writers,
	node_group_enable_wal_decoder, node_group_next_node_id
	FROM bdr.node_group;
SELECT bdr.local_group_slot_name();
SELECT count(*) AS subscriptions FROM bdr.subscription;
SELECT name, status FROM bdr.check_settings();

-- The second one.
\c node2
CREATE EXTENSION bdr CASCADE;
SET client_min_messages = warning;
SELECT bdr.create_node(node_name := 'two', local_dsn := :'dsn2');
SELECT node_name, node_group_name, peer_state_name FROM bdr.node_summary;
SELECT bdr.join_node_group(join_target_dsn := :'dsn1', wait_for_completion := true);
SELECT bdr.wait_for_join_completion();
SELECT bdr.wait_for_join_completion(verbose_progress := true);
SELECT node_name, node_group_name, interface_name, peer_state_name, peer_target_state_name, node_seq_id,
	node_local_dbname, node_id, if_id
	FROM bdr.node_summary ORDER BY node_id;
SELECT node_name, pub_repsets, sub_repsets FROM bdr.local_node_summary;
SELECT sub_name, node_group_name, origin_name, target_name, sub_enabled, sub_slot_name, sub_replication_sets,
	sub_forward_origins, sub_apply_delay, sub_origin_name, bdr_subscription_mode, origin_id, target_id
	FROM bdr.subscription_summary;
SELECT step, target_node_name, group_name, synchronize_structure, tables_done = tables_total AS all_tables, tables_total,
	rows_copied, bytes_copied > 0 AS bytes, error_sqlstate, error_message, error_detail, error_hint
	FROM bdr.join_progress;
SELECT node_name, state_name, state_counter FROM bdr.state_journal_details ORDER BY node_id, state_counter;
SELECT name, status FROM bdr.check_settings(:'dsn1');

-- What it has got.
SELECT * FROM "Own Schema"."Some Table" ORDER BY id;
SELECT * FROM referring ORDER BY id;
SELECT * FROM without_key;
SELECT * FROM greens;
SELECT twice(21);
SELECT c.conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint c
	WHERE conrelid IN ('"Own Schema"."Some Table"'::regclass, 'referring'::regclass) ORDER BY conrelid::regclass::text, conname;
SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'Own Schema' ORDER BY indexname;
SELECT column_default FROM information_schema.columns WHERE table_name = 'Some Table' AND column_name = 'id';

-- The first one knows of it.
\c node1
SELECT node_name, node_group_name, interface_name, peer_state_name, peer_target_state_name, node_seq_id,
	node_local_dbname, node_id, if_id
	FROM bdr.node_summary ORDER BY node_id;
SELECT sub_name, node_group_name, origin_name, target_name, sub_enabled, sub_slot_name, sub_replication_sets,
	sub_forward_origins, sub_apply_delay, sub_origin_name, bdr_subscription_mode, origin_id, target_id
	FROM bdr.subscription_summary;
SELECT node_name, state_name, state_counter FROM bdr.state_journal_details ORDER BY node_id, state_counter;
SELECT node_group_next_node_id, join_token, join_node_name FROM bdr.node_group;

-- Both are connected with one another.
SELECT bdr.wait_slot_confirm_lsn();
SELECT origin_name, target_name, target_dbname, slot_name, local_slot_name = slot_name AS right_name, is_group_slot,
	is_decoder_slot, plugin, slot_type, database, temporary, active, usename, state, active_pid IS NOT NULL AS has_pid
	FROM bdr.node_slots WHERE NOT is_group_slot;
\c node2
SELECT bdr.wait_slot_confirm_lsn();
SELECT origin_name, target_name, target_dbname, slot_name, local_slot_name = slot_name AS right_name, is_group_slot,
	is_decoder_slot, plugin, slot_type, database, temporary, active, usename, state, active_pid IS NOT NULL AS has_pid
	FROM bdr.node_slots WHERE NOT is_group_slot;
SELECT worker_role_name, count(*) FROM bdr.workers WHERE worker_role_name <> 'sequence' GROUP BY 1 ORDER BY 1;
SELECT count(*) AS errors FROM bdr.worker_errors;

-- Rows go both ways.
INSERT INTO "Own Schema"."Some Table" (id, "The Colour", note) VALUES (100, 'blue', 'written on two');
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SELECT * FROM "Own Schema"."Some Table" WHERE id = 100;
UPDATE "Own Schema"."Some Table" SET note = 'written on one' WHERE id = 100;
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT * FROM "Own Schema"."Some Table" WHERE id = 100;
SELECT origin_name, target_name, subscription_status FROM bdr.subscription_summary;
