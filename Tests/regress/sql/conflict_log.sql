-- What is told of conflicts, and how they are resolved: history, counters, resolvers, settings, rights.

SET bdr.ddl_replication = off; SET client_min_messages = error;
\getenv dir PG_ABS_SRCDIR
\cd :dir/include
\i conflict_log.sql
CREATE TABLE clog_columns (id int PRIMARY KEY, v text, only_on_one text);
CREATE TABLE clog_parts_low PARTITION OF clog_parts FOR VALUES FROM (0) TO (1000);
\i two.sql
\i conflict_log.sql
CREATE TABLE clog_columns (id int PRIMARY KEY, v text, only_on_two text);
CREATE TABLE clog_parts_all PARTITION OF clog_parts DEFAULT;
CREATE VIEW told AS SELECT conflict_type, conflict_resolution AS res, relname, conflict_index AS index, key_tuple AS key, remote_tuple,
	local_tuple, apply_tuple, local_tuple_node_id AS local_node, origin_node_id AS origin, remote_change_nr AS nr,
	remote_commit_time > local_tuple_commit_time AS newer
	FROM bdr.conflict_history ORDER BY local_time, remote_change_nr;

-- Defaults
SELECT * FROM bdr.node_conflict_resolvers;
SELECT * FROM bdr.node_log_config;
-- Partitions are there before they are needed.
CALL wait_for('(SELECT count(*) = 9 FROM pg_inherits WHERE inhparent = ''bdr.conflict_history''::regclass)');
SELECT count(*) AS today FROM pg_class
	WHERE relname IN ('conflict_history_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD'));
SELECT polname, polroles::regrole[] FROM pg_policy WHERE polrelid = 'bdr.conflict_history'::regclass ORDER BY 1;
TRUNCATE bdr.conflict_history;

-- The later one wins, on both nodes, over rows as well as over deletes.
INSERT INTO clog VALUES (1, 'seen by both', 'old'), (2, 'deleted on two', 'old'), (3, 'deleted on two, too', 'old'),
	(4, 'deleted on one', 'old'), (5, 'five', 'old'), (7, 'seven', 'old');
SELECT bdr.wait_slot_confirm_lsn();
CALL apart();
\c node1
CALL apart();
BEGIN;
INSERT INTO clog VALUES (10, 'ten', 'from one');
INSERT INTO clog VALUES (11, 'eleven', 'the same');
INSERT INTO clog VALUES (12, 'twelve', 'from one');
INSERT INTO clog_types VALUES (1, 1.50, 'NaN', true, E'quo"te\\\n', '{"a":  1}', '{"b": [1, 2]}', '{1,NULL}', '2001-02-03 04:05:06+00', '\x00ff',
	'bad', DEFAULT, NULL);
INSERT INTO clog_columns VALUES (1, 'from one', NULL);
INSERT INTO clog_parts VALUES (1, 'from one');
COMMIT;
UPDATE clog SET v = 'from one' WHERE id IN (1, 2);
DELETE FROM clog WHERE id IN (3, 4, 5);
\c node2
INSERT INTO clog VALUES (10, 'ten', 'from two'), (11, 'eleven', 'the same'), (13, 'twelve', 'other key');
INSERT INTO clog_types VALUES (1, 'Infinity', 0.25, false, 'ü', '[]', 'null', '{}', NULL, '', 'fine', DEFAULT, 'x');
INSERT INTO clog_columns VALUES (1, 'from two');
INSERT INTO clog_parts VALUES (1, 'from two');
UPDATE clog SET v = 'from two' WHERE id IN (1, 4, 5);
DELETE FROM clog WHERE id IN (2, 3);
CALL together();
\c node1
SELECT bdr.wait_slot_confirm_lsn();
\c node2
\x on
SELECT * FROM told;
\x off
\i one.sql
CREATE VIEW told AS SELECT conflict_type, conflict_resolution AS res, relname, conflict_index AS index, key_tuple AS key, remote_tuple,
	local_tuple, apply_tuple, local_tuple_node_id AS local_node, origin_node_id AS origin, remote_change_nr AS nr,
	remote_commit_time > local_tuple_commit_time AS newer
	FROM bdr.conflict_history ORDER BY local_time, remote_change_nr;
TRUNCATE bdr.conflict_history;
CALL together();
\c node2
SELECT bdr.wait_slot_confirm_lsn();
\c node1
\x on
SELECT * FROM told;
\x off
SELECT * FROM clog ORDER BY id;
SELECT h.sub_id = s.pgl_subscription_id AS sub, local_xid IS NOT NULL AS xid, local_lsn <= pg_current_wal_lsn() AS lsn, remote_xid IS NOT NULL AS rxid,
	remote_commit_lsn <= pg_current_wal_lsn() AS rlsn, reloid = 'clog'::regclass AS oid, nspname, relname, local_tuple_xmin IS NOT NULL AS xmin,
	pg_xact_commit_timestamp(local_xid) = remote_commit_time AS same_time
	FROM bdr.conflict_history h, bdr.subscription s WHERE relname = 'clog' AND conflict_type = 'update_origin_change';
SELECT tableoid::regclass::text = 'bdr.conflict_history_' || to_char(local_time AT TIME ZONE 'UTC', 'YYYYMMDD') AS in_the_partition_of_its_day
	FROM bdr.conflict_history GROUP BY 1;
SELECT nspname, relname, conflict_type, conflict_resolution, origin_node_id, remote_change_nr FROM bdr.conflict_history_summary
	WHERE relname = 'clog' ORDER BY local_time, remote_change_nr;
SELECT nspname, relname, relid::regclass, conflict_type, nconflict, napplied, nskipped, nmerged, nuser, nunrecorded, last_conflict_time <= now() AS time
	FROM bdr.stat_conflicts WHERE relname LIKE 'clog%' ORDER BY relname, conflict_type;

-- Resolvers. Whoever is told nothing goes on with what was set before.
SELECT bdr.alter_node_set_conflict_resolver('one', 'insert_exists', 'skip');
SELECT bdr.alter_node_set_conflict_resolver('one', 'update_origin_change', 'update');
SELECT * FROM bdr.node_conflict_resolvers WHERE conflict_type IN ('insert_exists', 'update_origin_change');
BEGIN;
SELECT bdr.alter_node_set_conflict_resolver('one', 'delete_missing', 'error');
ROLLBACK;
TRUNCATE bdr.conflict_history;
\c node2
SELECT conflict_resolver FROM bdr.node_conflict_resolvers WHERE conflict_type = 'insert_exists';
CALL apart();
UPDATE clog SET v = 'is older' WHERE id = 7;
\c node1
INSERT INTO clog VALUES (20, 'twenty', 'from one');
UPDATE clog SET v = 'is newer' WHERE id = 7;
INSERT INTO clog VALUES (21, 'another', 'from one');
\c node2
INSERT INTO clog VALUES (20, 'twenty', 'is newer');
DELETE FROM clog WHERE id = 7;
UPDATE clog SET v = 'x' WHERE id = 10;
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SELECT conflict_type, res, key, remote_tuple, apply_tuple, newer FROM told;
SELECT * FROM clog WHERE id IN (7, 20);
SELECT bdr.alter_node_set_conflict_resolver('one', 'insert_exists', 'update');
SELECT bdr.alter_node_set_conflict_resolver('one', 'update_origin_change', 'skip');
TRUNCATE bdr.conflict_history;
\c node2
INSERT INTO clog VALUES (21, 'another', 'from two');
UPDATE clog SET v = 'y' WHERE id = 1;
SELECT bdr.wait_slot_confirm_lsn();
\i one.sql
SELECT conflict_type, res, key, remote_tuple, apply_tuple FROM told;

-- error: replication from there stops, and goes on when another resolver is chosen
ALTER SYSTEM SET bdr.max_worker_backoff_delay = '100ms';
SELECT pg_reload_conf();
SELECT bdr.alter_node_set_conflict_resolver('one', t, 'error') FROM unnest(ARRAY['update_missing', 'delete_missing', 'insert_exists', 'update_origin_change']) t;
TRUNCATE bdr.conflict_history;
SELECT napplied, nskipped FROM bdr.stat_conflicts WHERE relname = 'clog' AND conflict_type = 'delete_missing' \gset before_
CREATE PROCEDURE stops_until(type text, resolver text) LANGUAGE plpgsql AS $$
BEGIN
	CALL wait_for(format('EXISTS (SELECT FROM bdr.worker_errors WHERE error_message LIKE %L)', '%conflict ' || type || ' is set to stop replication'));
	PERFORM bdr.alter_node_set_conflict_resolver('one', type, resolver);
	COMMIT;
END $$;
SELECT pg_replication_origin_create('bdr_regress_unheard') IS NOT NULL AS created;
-- what is done under the name of an origin of a group is not sent
SELECT pg_replication_origin_session_setup('bdr_regress_unheard');
DELETE FROM clog WHERE id IN (11, 13);
-- remembered deletes would make it update_recently_deleted
DELETE FROM bdr.row_stamp WHERE relid = 'clog'::regclass;
INSERT INTO clog VALUES (30, 'thirty', 'from one');
UPDATE clog SET v = 'from one' WHERE id = 21;
SELECT pg_replication_origin_session_reset();
\c node2
UPDATE clog SET v = 'missing on one' WHERE id = 11;
DELETE FROM clog WHERE id = 13;
INSERT INTO clog VALUES (30, 'thirty', 'from two');
UPDATE clog SET v = 'from two' WHERE id = 21;
\c node1
CALL stops_until('update_missing', 'skip');
CALL stops_until('delete_missing', 'skip');
CALL stops_until('insert_exists', 'update_if_newer');
CALL stops_until('update_origin_change', 'update_if_newer');
\c node2
SELECT bdr.wait_slot_confirm_lsn();
\i one.sql
SELECT conflict_type, res, key, remote_tuple, local_tuple, apply_tuple, newer FROM told;
SELECT nskipped - :before_nskipped AS counted_once FROM bdr.stat_conflicts WHERE relname = 'clog' AND conflict_type = 'delete_missing';
SELECT pg_replication_origin_drop('bdr_regress_unheard');
DELETE FROM bdr.worker_error;
DROP PROCEDURE stops_until;
ALTER SYSTEM RESET bdr.max_worker_backoff_delay;
SELECT pg_reload_conf();
\c node2
CALL together();
\c node1
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
SELECT bdr.wait_slot_confirm_lsn();

-- Refused
\set VERBOSITY terse
SELECT bdr.alter_node_set_conflict_resolver('one', 'insert_exists', 'skip');
SELECT bdr.alter_node_set_conflict_resolver('nobody', 'insert_exists', 'skip');
SELECT bdr.alter_node_set_conflict_resolver(NULL, 'insert_exists', 'skip');
SELECT bdr.alter_node_set_log_config('one');
\set VERBOSITY default
SELECT bdr.alter_node_set_conflict_resolver('two', 'insert_exists', 'insert_or_skip');
SELECT bdr.alter_node_set_conflict_resolver('two', 'insert_exists', 'newest');
SELECT bdr.alter_node_set_conflict_resolver('two', 'inserts_exist', 'skip');
SELECT bdr.alter_node_set_conflict_resolver('two', 'insert_recently_deleted', 'update_if_newer');
SELECT bdr.alter_node_set_log_config('two', conflict_type := '{}');
SELECT bdr.alter_node_set_log_config('two', conflict_type := '{insert_exists,x}');
SELECT bdr.alter_node_set_log_config('two', conflict_resolution := '{applied}');
SELECT bdr.alter_node_set_log_config('two', conflict_resolution := '{NULL}');
SELECT bdr.alter_node_set_log_config('two', log_to_file := NULL);
SELECT count(*) AS set FROM bdr.conflict_resolver;
-- every pair that is allowed is taken
BEGIN;
SELECT count(bdr.alter_node_set_conflict_resolver('two', t, r)::text) FROM (VALUES ('multiple_unique_conflicts', 'update_if_newer'),
	('insert_recently_deleted', 'update'), ('update_missing', 'insert_or_error'), ('apply_error_ddl', 'skip_transaction')) p (t, r);
ROLLBACK;

-- Which conflicts are logged
CREATE PROCEDURE deletes_missing(key int) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_replication_origin_session_setup('bdr_regress_unheard');
	DELETE FROM clog WHERE id = key;
	COMMIT;
	PERFORM pg_replication_origin_session_reset();
END $$;
SELECT pg_replication_origin_create('bdr_regress_unheard') IS NOT NULL AS created;
TRUNCATE bdr.conflict_history;
SELECT bdr.alter_node_set_log_config('two', conflict_type := '{delete_missing,update_missing}', conflict_resolution := '{skip}');
SELECT * FROM bdr.node_log_config;
CALL deletes_missing(20);
\c node1
DELETE FROM clog WHERE id = 20;
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT conflict_type, res, key FROM told;
SELECT bdr.alter_node_set_log_config('two', conflict_resolution := '{apply_remote}');
CALL deletes_missing(21);
\c node1
DELETE FROM clog WHERE id = 21;
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT conflict_type, res, key FROM told;
SELECT bdr.alter_node_set_log_config('two', log_to_table := false);
CALL deletes_missing(30);
\c node1
DELETE FROM clog WHERE id = 30;
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT conflict_type, res, key FROM told;
SELECT nconflict, nunrecorded FROM bdr.stat_conflicts WHERE relname = 'clog' AND conflict_type = 'delete_missing';
SELECT bdr.alter_node_set_log_config('two');
SELECT * FROM bdr.node_log_config;

-- Large rows are cut, whole rows are keys.
\c node1
INSERT INTO clog_full VALUES (1, 'a'), (1, 'a');
INSERT INTO clog SELECT 100, 'large', string_agg(md5(i::text), '') FROM generate_series(1, 40000) i;
INSERT INTO clog VALUES (101, 'not so large', 'x');
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT pg_replication_origin_session_setup('bdr_regress_unheard');
DELETE FROM clog_full;
UPDATE clog SET code = 'grown' WHERE id = 100;
UPDATE clog SET v = 'y' WHERE id = 101;
SELECT pg_replication_origin_session_reset();
\c node1
DELETE FROM clog_full;
UPDATE clog SET code = 'large as well' WHERE id = 100;
UPDATE clog SET code = repeat('0123456789', 250), v = repeat('x', 64000) WHERE id = 101;
UPDATE clog SET v = 'small again' WHERE id = 101;
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
\x on
SELECT conflict_type, res, index, key, left(remote_tuple::text, 100) AS remote, left(local_tuple::text, 100) AS local, left(apply_tuple::text, 100) AS applied FROM told;
\x off
TRUNCATE bdr.conflict_history;

-- What can't be logged does not disturb: an output function that fails, a history that takes no rows, or none with contents.
CREATE TYPE fragile;
CREATE FUNCTION fragile_in(cstring) RETURNS fragile LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION fragile_out(fragile) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
CREATE FUNCTION fragile_fails(fragile) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'shell_out';
CREATE TYPE fragile (INPUT = fragile_in, OUTPUT = fragile_out, LIKE = int4);
CREATE TABLE clog_fragile (id int PRIMARY KEY, f fragile);
CALL apart();
\i one.sql
CREATE TABLE clog_fragile (id int PRIMARY KEY, f int);
CALL apart();
INSERT INTO clog_fragile VALUES (1, 1), (2, 2);
\c node2
INSERT INTO clog_fragile VALUES (1, '11'), (2, '22');
UPDATE pg_type SET typoutput = 'fragile_fails'::regproc WHERE typname = 'fragile';
CALL together();
\c node1
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
SELECT conflict_type, res, index, key, remote_tuple, local_tuple, apply_tuple, local_node, newer FROM told;
UPDATE pg_type SET typoutput = 'fragile_out'::regproc WHERE typname = 'fragile';
TRUNCATE bdr.conflict_history;
ALTER TABLE bdr.conflict_history ADD CONSTRAINT no_contents CHECK (key_tuple IS NULL);
CALL apart();
CALL together();
CALL deletes_missing(100);
\c node1
CALL together();
DELETE FROM clog WHERE id = 100;
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
SELECT conflict_type, res, relname, key FROM told;
ALTER TABLE bdr.conflict_history DROP CONSTRAINT no_contents, ADD CONSTRAINT no_rows CHECK (conflict_type = '') NOT VALID;
CALL deletes_missing(101);
\c node1
DELETE FROM clog WHERE id = 101;
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
SELECT count(*) FROM told;
SELECT nconflict, nunrecorded FROM bdr.stat_conflicts WHERE relname = 'clog' AND conflict_type = 'delete_missing';
SELECT count(*) AS errors FROM bdr.worker_errors;
ALTER TABLE bdr.conflict_history DROP CONSTRAINT no_rows;
-- without room they are counted
ALTER SYSTEM SET bdr.conflict_history_max_size = 0;
SELECT pg_reload_conf();
CALL apart();
CALL wait_for('current_setting(''bdr.conflict_history_max_size'') = ''0''');
CALL together();
SELECT nconflict, nunrecorded FROM bdr.stat_conflicts WHERE relname = 'clog' AND conflict_type = 'delete_missing' \gset before_
CALL deletes_missing(1);
\c node1
DELETE FROM clog WHERE id = 1;
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
SELECT count(*) FROM told;
SELECT nconflict - :before_nconflict AS nconflict, nunrecorded - :before_nunrecorded AS nunrecorded
	FROM bdr.stat_conflicts WHERE relname = 'clog' AND conflict_type = 'delete_missing';
ALTER SYSTEM RESET bdr.conflict_history_max_size;

-- Old partitions go, whoever made them.
CREATE TABLE bdr.conflict_history_20200101 PARTITION OF bdr.conflict_history FOR VALUES FROM ('2020-01-01 00:00:00+00') TO ('2020-01-02 00:00:00+00');
INSERT INTO bdr.conflict_history (local_time, conflict_type, conflict_resolution) VALUES ('2020-01-01 12:00:00+00', 'x', 'x'),
	('2020-01-02 12:00:00+00', 'x', 'x');
SELECT CASE tableoid::regclass::text WHEN 'bdr.conflict_history_' || to_char(local_time AT TIME ZONE 'UTC', 'YYYYMMDD') THEN 'of its day'
	ELSE tableoid::regclass::text END AS partition, count(*) FROM bdr.conflict_history GROUP BY 1 ORDER BY 1;
ALTER SYSTEM SET bdr.conflict_history_retention = '20d';
SELECT pg_reload_conf();
-- one after the other: who waits holds its locks
CALL wait_for('NOT EXISTS (SELECT FROM pg_class WHERE relname = ''conflict_history_20200101'')');
CALL wait_for('NOT EXISTS (SELECT FROM bdr.conflict_history_default)');
ALTER SYSTEM RESET bdr.conflict_history_retention;
SELECT pg_reload_conf();
-- partitions belong to the extension, so that a dump leaves them out
SELECT count(*) AS not_of_the_extension FROM pg_inherits WHERE inhparent = 'bdr.conflict_history'::regclass
	AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = inhrelid AND deptype = 'e');

-- Who sees what: owners the conflicts of their tables, unless row security is forced upon them; others none
CREATE ROLE regress_owner;
CREATE ROLE regress_other;
CREATE ROLE regress_member IN ROLE regress_owner;
CREATE ROLE regress_reader IN ROLE bdr_read_all_conflicts;
CREATE ROLE regress_stats IN ROLE bdr_read_all_stats;
CREATE ROLE regress_admin IN ROLE bdr_superuser;
ALTER TABLE clog_full OWNER TO regress_owner;
\c node1
INSERT INTO clog_full VALUES (5, 'owned');
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT pg_replication_origin_session_setup('bdr_regress_unheard');
DELETE FROM clog_full;
SELECT pg_replication_origin_session_reset();
CALL deletes_missing(10);
\c node1
DELETE FROM clog_full;
DELETE FROM clog WHERE id = 10;
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
SELECT relname FROM bdr.conflict_history ORDER BY 1;
SET ROLE regress_owner;
SELECT relname, key_tuple FROM bdr.conflict_history;
SELECT * FROM bdr.conflict_history_summary;
SELECT * FROM bdr.conflict_history_default;
DELETE FROM bdr.conflict_history;
SET ROLE regress_member;
SELECT relname FROM bdr.conflict_history;
SET ROLE regress_other;
SELECT relname FROM bdr.conflict_history;
SET ROLE regress_admin;
SELECT relname FROM bdr.conflict_history;
SET ROLE regress_reader;
SELECT relname FROM bdr.conflict_history ORDER BY 1;
SET ROLE regress_stats;
SELECT relname FROM bdr.conflict_history;
SELECT relname, conflict_type FROM bdr.conflict_history_summary ORDER BY 1;
SELECT count(*) > 0 AS counters FROM bdr.stat_conflicts;
SELECT count(*) AS types FROM bdr.node_conflict_resolvers;
SELECT log_to_file FROM bdr.node_log_config;
SELECT bdr.alter_node_set_log_config('two');
SET ROLE regress_admin;
SELECT bdr.alter_node_set_log_config('two');
SELECT bdr.alter_node_set_conflict_resolver('two', 'delete_missing', 'skip');
RESET ROLE;
ALTER TABLE clog_full FORCE ROW LEVEL SECURITY;
SET ROLE regress_owner;
SELECT relname FROM bdr.conflict_history;
RESET ROLE;

-- Nothing of it is sent.
SELECT count(*) AS errors FROM bdr.worker_errors;
DELETE FROM bdr.conflict_resolver;
DELETE FROM bdr.conflict_log_config;
TRUNCATE bdr.conflict_history;
DROP TABLE clog, clog_types, clog_full, clog_columns, clog_parts, clog_fragile;
DROP TYPE clog_mood;
DROP TYPE fragile CASCADE;
DROP VIEW told;
DROP PROCEDURE apart, together, deletes_missing;
DROP ROLE regress_owner, regress_other, regress_member, regress_reader, regress_stats, regress_admin;
SELECT pg_replication_origin_drop('bdr_regress_unheard');
\i one.sql
DELETE FROM bdr.conflict_resolver;
TRUNCATE bdr.conflict_history;
DROP TABLE clog, clog_types, clog_full, clog_columns, clog_parts, clog_fragile;
DROP TYPE clog_mood;
DROP VIEW told;
DROP PROCEDURE apart, together;
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT bdr.wait_slot_confirm_lsn();
