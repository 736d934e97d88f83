-- How conflicts of a table are detected: switching between the methods, what new tables get, and who may do it.

SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE VIEW detection AS SELECT c.relname, c.relreplident AS identity, t.conflict_detection AS method,
	(SELECT string_agg(format('%s %s%s', attname, format_type(atttypid, NULL), CASE WHEN attnotnull THEN ' NOT NULL' END), ', ' ORDER BY attnum)
		FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attname NOT IN ('id', 'x')) AS columns,
	(SELECT string_agg(tgname || ' ' || encode(tgargs, 'escape'), ', ' ORDER BY tgname) FROM pg_trigger WHERE tgrelid = c.oid) AS triggers
	FROM pg_class c LEFT JOIN bdr.tables t ON t.relid = c.oid WHERE c.relname LIKE 'cd\_%' AND c.relkind IN ('r', 'p') ORDER BY 1;

CREATE TABLE cd_one (id int PRIMARY KEY, x text);
\d bdr.tables
SELECT nspname, relname, set_name, set_ops, rel_columns, row_filter, conflict_detection FROM bdr.tables WHERE relname = 'cd_one';

-- Errors
SELECT bdr.alter_table_conflict_detection('cd_one', 'newest');
SELECT bdr.alter_table_conflict_detection(NULL, 'row_version');
SELECT bdr.alter_table_conflict_detection('cd_one', 'column_commit_timestamp');
SELECT bdr.alter_table_conflict_detection('cd_one', 'row_version', 'x');
SELECT bdr.alter_table_conflict_detection('cd_one', 'row_version', detector_args := 'text');
SELECT bdr.alter_table_conflict_detection('cd_one', 'row_origin', detector_args := 'integer');
SELECT bdr.alter_table_conflict_detection('detection', 'row_version');
SELECT bdr.column_timestamps_disable('cd_one');
SELECT bdr.column_timestamps_create('later', now());

-- Methods; none writes the table anew
SELECT pg_relation_filenode('cd_one') AS file \gset
SELECT bdr.alter_table_conflict_detection('cd_one', 'row_version');
TABLE detection;
ALTER TABLE cd_one REPLICA IDENTITY FULL;
SELECT bdr.alter_table_conflict_detection('cd_one', 'row_version');
TABLE detection;
SELECT bdr.alter_table_conflict_detection('cd_one', 'row_version', 'other');
SELECT bdr.alter_table_conflict_detection('cd_one', 'row_version', detector_args := 'bigint');
TABLE detection;
SELECT bdr.alter_table_conflict_detection('cd_one', 'column_modify_timestamp');
TABLE detection;
SELECT bdr.column_timestamps_enable('cd_one');
SELECT bdr.column_timestamps_enable('cd_one', from_commit := true);
TABLE detection;
SELECT bdr.column_timestamps_disable('cd_one', 'other');
SELECT bdr.column_timestamps_disable('cd_one');
TABLE detection;
-- a column that is there gets its triggers
ALTER TABLE cd_one ADD own bdr.column_timestamps NOT NULL DEFAULT bdr.column_timestamps_create('commit', '2020-02-02 02:02:02+00');
TABLE detection;
SELECT bdr.column_timestamps_enable('cd_one', from_commit := true);
SELECT bdr.alter_table_conflict_detection('cd_one', 'column_commit_timestamp');
TABLE detection;
SELECT bdr.alter_table_conflict_detection('cd_one', 'row_version', 'ver', 'int2');
TABLE detection;
-- whose column is gone counts for nothing
ALTER TABLE cd_one RENAME ver TO version;
SELECT bdr.alter_table_conflict_detection('cd_one', 'row_version', 'again');
TABLE detection;
SELECT bdr.alter_table_conflict_detection('cd_one', 'row_origin');
TABLE detection;
SELECT pg_relation_filenode('cd_one') = :file AS not_written_anew;

-- Values
SET timezone = 'UTC';
SELECT v::text, v::jsonb FROM bdr.column_timestamps_create('current', '2020-02-02 02:02:02.000002+00') v;
SELECT v::text, v::jsonb, bdr.column_timestamps_resolve(v, '3')::text FROM bdr.column_timestamps_create('commit', '2020-02-02 02:02:02+00') v;
SELECT '\x00'::bdr.column_timestamps;

-- Whoever may write the table may, with the columns of these methods; only owners may change methods
CREATE ROLE cd_user;
CREATE ROLE cd_owner;
GRANT bdr_application TO cd_owner;
CREATE SCHEMA cd AUTHORIZATION cd_owner;
SET ROLE cd_owner;
CREATE TABLE cd.cd_own (id int PRIMARY KEY, x text);
ALTER TABLE cd.cd_own REPLICA IDENTITY FULL;
GRANT USAGE ON SCHEMA cd TO cd_user;
GRANT ALL ON cd.cd_own TO cd_user;
SELECT bdr.column_timestamps_enable('cd.cd_own', from_commit := true);
SELECT bdr.alter_table_conflict_detection('cd_one', 'row_version');
SET ROLE cd_user;
SELECT bdr.column_timestamps_enable('cd.cd_own');
BEGIN;
INSERT INTO cd.cd_own VALUES (1, 'x');
UPDATE cd.cd_own SET x = 'y';
SELECT id, x, cts::jsonb->'source' AS source, cts::jsonb->'modified' AS modified FROM cd.cd_own;
ROLLBACK;
RESET ROLE;
DROP SCHEMA cd CASCADE;

-- New tables
SET bdr.default_conflict_detection = newest;
SHOW bdr.default_conflict_detection;
ALTER DATABASE node1 SET bdr.default_conflict_detection = row_origin;
ALTER DATABASE node1 RESET bdr.default_conflict_detection;
CREATE SCHEMA cd AUTHORIZATION cd_user;
SET ROLE cd_user;
SET search_path = cd, public;
SET bdr.default_conflict_detection = row_version;
CREATE TABLE cd_a (id int PRIMARY KEY, x text);
CREATE TABLE IF NOT EXISTS cd_a (id int);
CREATE TABLE cd_a2 (LIKE cd_a INCLUDING ALL);
CREATE TABLE cd_a3 (id int, bdr_row_version int);
SET bdr.default_conflict_detection = column_modify_timestamp;
CREATE TABLE IF NOT EXISTS cd_a (id int);
CREATE TABLE cd.cd_b AS SELECT 1 AS id, 'x' AS x WITH NO DATA;
SET bdr.default_conflict_detection = column_commit_timestamp;
SELECT 1 AS id, 'x' AS x INTO cd_c WHERE false;
CREATE TABLE cd_d (id int, x text) PARTITION BY LIST (id);
CREATE TABLE cd_d1 PARTITION OF cd_d FOR VALUES IN (1);
CREATE TABLE cd_d2 PARTITION OF cd_d FOR VALUES IN (2) PARTITION BY LIST (x);
CREATE TABLE cd_d2x PARTITION OF cd_d2 FOR VALUES IN ('x');
CREATE TABLE cd_e (id int, cts bdr.column_timestamps);
CREATE TABLE cd_f (LIKE cd_b INCLUDING ALL);
CREATE TEMPORARY TABLE cd_g (id int);
CREATE UNLOGGED TABLE cd_h (id int);
CREATE TYPE cd_type AS (id int, x text);
CREATE TABLE cd_i OF cd_type;
CREATE TABLE cd_j (x text) INHERITS (cd_e);
CREATE TABLE nowhere.cd_k (id int);
CREATE TABLE cd_l (id int, "X y" text DEFAULT 'a''b');
DO $$ BEGIN CREATE TABLE cd_m (id int PRIMARY KEY, x text); INSERT INTO cd_m SELECT 1, 'x' WHERE false; END $$;
SELECT current_user;
RESET ROLE;
CREATE SCHEMA cd_n CREATE TABLE cd_n (id int);
RESET bdr.default_conflict_detection;
CREATE TABLE cd_o (id int);
\x on
TABLE detection;
\x off
DROP TABLE pg_temp.cd_g;
RESET search_path;
DROP SCHEMA cd CASCADE;
DROP SCHEMA cd_n CASCADE;
-- roles are those of the other node, too, which has to have dropped what they own
SELECT bdr.wait_slot_confirm_lsn();
DROP ROLE cd_user;
DROP ROLE cd_owner;
DROP VIEW detection;
DROP TABLE cd_one;
