-- Columns and tables that only one node has, with each resolver. Node one writes, two resolves.

\getenv dir PG_ABS_SRCDIR
\cd :dir/include
SET bdr.ddl_replication = off; SET client_min_messages = error;
CREATE TABLE more (id int PRIMARY KEY, v text, extra text, other int);
CREATE TABLE more_key (a int, b int, v text, PRIMARY KEY (a, b));
CREATE TABLE less (id int PRIMARY KEY, v text);
CREATE TABLE more_full (id int, extra text);
ALTER TABLE more_full REPLICA IDENTITY FULL;
SELECT bdr.alter_node_set_conflict_resolver('one', 'target_column_missing', 'ignore'),
	bdr.alter_node_set_conflict_resolver('one', 'source_column_missing', 'skip');
\i two.sql
CREATE ROLE regress_less;
GRANT CREATE ON SCHEMA public TO regress_less;
CREATE TABLE more (id int PRIMARY KEY, v text);
CREATE TABLE more_key (a int PRIMARY KEY, v text);
CREATE TABLE more_full (id int);
ALTER TABLE more_full REPLICA IDENTITY FULL;
CREATE TABLE less (own int DEFAULT 7, who text DEFAULT current_user, id int PRIMARY KEY, nothing text, v text, n serial,
	twice int GENERATED ALWAYS AS (own * 2) STORED);
ALTER TABLE less OWNER TO regress_less;
CREATE VIEW told AS SELECT conflict_type AS type, conflict_resolution AS resolution, relname, reloid IS NULL AS no_oid, key_tuple AS key,
	remote_tuple AS remote, local_tuple AS local, apply_tuple AS applied
	FROM bdr.conflict_history ORDER BY local_time, remote_change_nr;
CREATE VIEW counted AS SELECT coalesce(relname, relid::text) AS relname, conflict_type AS type, nconflict, napplied, nskipped
	FROM bdr.stat_conflicts WHERE conflict_type LIKE '%missing' AND (relname SIMILAR TO '(more|less)%' OR relid = 0);
CREATE PROCEDURE stops_until(message text, remedy text) LANGUAGE plpgsql AS $$
DECLARE
	shown record;
BEGIN
	CALL wait_for(format('EXISTS (SELECT FROM bdr.worker_error WHERE error_message LIKE %L)', '%' || message || '%'));
	FOR shown IN SELECT error_sqlstate, error_message, error_detail FROM bdr.worker_error
		WHERE error_message LIKE '%' || message || '%' LIMIT 1 LOOP
		RAISE NOTICE '%', shown;
	END LOOP;
	EXECUTE remedy;
END $$;
CREATE PROCEDURE resolve(type text, resolver text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM bdr.alter_node_set_conflict_resolver('two', type, resolver);
END $$;
TRUNCATE bdr.conflict_history;
ALTER SYSTEM SET bdr.max_worker_backoff_delay = '100ms';
SELECT pg_reload_conf();

-- target_column_missing: ignore_if_null. Without a value the column is left out, with one it is an error.
\i one.sql
INSERT INTO more VALUES (1, 'one');
UPDATE more SET v = 'one, changed';
SELECT bdr.wait_slot_confirm_lsn();
INSERT INTO more VALUES (2, 'two', NULL, 5);
\i two.sql
TABLE more;
\set message 'column "other" of table "public.more"'
\set remedy 'CALL resolve(''target_column_missing'', ''ignore'')'
\i stops_until.sql
-- ignore, also where a value was left out of the change as it had not changed
\i one.sql
INSERT INTO more SELECT 3, 'three', string_agg(md5(i::text), '') FROM generate_series(1, 1000) i;
UPDATE more SET v = 'three, changed' WHERE id = 3;
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
TABLE more ORDER BY id;
-- error: also without a value
CALL resolve('target_column_missing', 'error');
\i one.sql
UPDATE more SET v = 'one, again' WHERE id = 1;
\i two.sql
\set message 'column "extra" of table "public.more" does not'
\set remedy 'CALL resolve(''target_column_missing'', ''skip'')'
\i stops_until.sql
-- skip; a DELETE carries no columns
\i one.sql
INSERT INTO more VALUES (4, 'four');
UPDATE more SET v = 'two, skipped' WHERE id = 2;
DELETE FROM more WHERE id = 3;
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
TABLE more ORDER BY id;
CALL resolve('target_column_missing', 'ignore_if_null');
\i one.sql
UPDATE more SET v = 'large' WHERE id = 4;
INSERT INTO more SELECT 5, 'five';
-- of the key: not the row with half of it
\i two.sql
INSERT INTO more_key VALUES (1, 'two''s');
\i one.sql
SELECT bdr.wait_slot_confirm_lsn();
INSERT INTO more_key VALUES (2, 1, 'x');
\i two.sql
\set message 'column "b" of table "public.more_key"'
\set remedy 'CALL resolve(''target_column_missing'', ''skip'')'
\i stops_until.sql
INSERT INTO more_key VALUES (2, 'two''s');
CALL resolve('target_column_missing', 'ignore_if_null');
\i one.sql
DELETE FROM more_key WHERE a = 2;
\i two.sql
\set message 'column "b" of table "public.more_key"'
\set remedy 'CALL resolve(''target_column_missing'', ''skip'')'
\i stops_until.sql
TABLE more_key ORDER BY a;
CALL resolve('target_column_missing', 'ignore');
-- without a key a row is found by the columns that are here
\i one.sql
INSERT INTO more_full VALUES (1, 'x'), (2, 'y');
UPDATE more_full SET id = 3 WHERE id = 1;
DELETE FROM more_full WHERE id = 2;
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
TABLE more_full;
-- the column comes
CALL resolve('target_column_missing', 'ignore_if_null');
ALTER TABLE more ADD extra text, ADD other int;
\i one.sql
INSERT INTO more VALUES (6, 'six', 'here', 6);
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
TABLE more ORDER BY id;
SELECT type, resolution, relname, key, CASE WHEN length(remote::text) < 100 THEN remote END AS remote, local, applied FROM told;
SELECT * FROM counted ORDER BY 1, 2;
TRUNCATE bdr.conflict_history;

-- source_column_missing: use_default_value, for each row, as the owner. An UPDATE leaves them alone.
\i one.sql
INSERT INTO less SELECT i, 'new' FROM generate_series(1, 20) i;
UPDATE less SET v = 'changed' WHERE id = 1;
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
SELECT id, v, own, who, nothing, n, twice FROM less ORDER BY id LIMIT 3;
SELECT count(DISTINCT n) AS numbers, count(*) FROM less;
UPDATE less SET own = 8, nothing = 'kept' WHERE id IN (2, 3, 4);
SELECT bdr.wait_slot_confirm_lsn();
\i one.sql
UPDATE less SET v = 'changed' WHERE id = 2;
UPDATE less SET id = 31 WHERE id = 3;
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
SELECT id, v, own, nothing FROM less WHERE id IN (2, 3, 31);
ALTER TABLE less ALTER own SET DEFAULT 1 / 0;
\i one.sql
INSERT INTO less VALUES (40, 'new');
\i two.sql
\set message 'division by zero'
\set remedy 'ALTER TABLE less ALTER own SET DEFAULT 10'
\i stops_until.sql
SELECT id, v, own, nothing FROM less WHERE id = 40;
SELECT type, resolution, count(*), count(applied) AS applied, min(applied::text) FROM told WHERE type = 'source_column_missing' GROUP BY 1, 2;
-- skip
CALL resolve('source_column_missing', 'skip');
\i one.sql
INSERT INTO less VALUES (41, 'skipped');
UPDATE less SET v = 'changed' WHERE id IN (4, 41);
UPDATE less SET id = 42 WHERE id = 41;
UPDATE less SET id = 45 WHERE id = 6;
INSERT INTO less VALUES (43, 'skipped');
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
SELECT id, v, own, nothing FROM less WHERE id IN (4, 6) OR id > 40 ORDER BY id;
-- error
CALL resolve('source_column_missing', 'error');
\i one.sql
INSERT INTO less VALUES (44, 'new');
\i two.sql
\set message 'has no value for'
\set remedy 'CALL resolve(''source_column_missing'', ''use_default_value'')'
\i stops_until.sql
-- an UPDATE that becomes an INSERT
\i one.sql
UPDATE less SET v = 'changed' WHERE id = 43;
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
SELECT id, v, own, nothing FROM less WHERE id IN (42, 43, 44) ORDER BY id;
SELECT type, resolution, key, remote, local, applied IS NOT NULL AS applied FROM told WHERE resolution = 'skip' OR key ->> 'id' = '44';
SELECT * FROM counted WHERE relname = 'less' ORDER BY 1, 2;
TRUNCATE bdr.conflict_history;

-- target_table_missing: an error, as it was never here; it goes on when it is made.
\i one.sql
CREATE SCHEMA gone;
CREATE TABLE gone.t (id int PRIMARY KEY, v text);
CREATE TABLE gone.s (id serial PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE gone.s_all PARTITION OF gone.s DEFAULT;
CREATE TABLE gone_too (id int PRIMARY KEY);
INSERT INTO gone.t VALUES (1, 'one');
\i two.sql
CREATE SCHEMA gone;
\set message 'table "gone.t" does not exist'
\set remedy 'CREATE TABLE gone.t (id int PRIMARY KEY, v text)'
\i stops_until.sql
TABLE gone.t;
CREATE TABLE gone.s (id serial PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE gone.s_all PARTITION OF gone.s DEFAULT;
CREATE TABLE gone_too (id int PRIMARY KEY);
ALTER TABLE gone_too OWNER TO regress_less;
-- skip_if_recently_dropped: however it was dropped. What is not dropped is not remembered.
SELECT nspname, relname FROM bdr.dropped_table WHERE relname IN ('t', 's', 's_all', 'gone_too');
BEGIN;
DROP TABLE gone.t;
ROLLBACK;
ALTER TABLE gone.t ADD x int DEFAULT random();
ALTER TABLE gone.t DROP x;
CREATE TEMP TABLE t (id int);
DROP TABLE t;
VACUUM FULL gone.t;
SELECT nspname, relname FROM bdr.dropped_table WHERE relname IN ('t', 's', 's_all', 'gone_too') OR relname LIKE 'pg_%';
DROP SCHEMA gone CASCADE;
BEGIN;
DROP OWNED BY regress_less;
SAVEPOINT s;
ROLLBACK TO s;
COMMIT;
SELECT nspname, relname, clock_timestamp() - drop_time < interval '1 minute' AS now FROM bdr.dropped_table
	WHERE nspname = 'gone' OR relname IN ('gone_too', 'less') ORDER BY 1, 2;
\i one.sql
INSERT INTO gone.t VALUES (2, 'two'), (3, NULL);
UPDATE gone.t SET v = 'three' WHERE id = 3;
DELETE FROM gone.t WHERE id = 2;
BEGIN;
INSERT INTO gone.s VALUES (DEFAULT), (DEFAULT);
INSERT INTO gone_too VALUES (1);
TRUNCATE gone.t, gone.s, more_full;
COMMIT;
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
TABLE more_full;
SELECT * FROM told;
SELECT * FROM counted WHERE type = 'target_table_missing';
-- made again
CREATE SCHEMA gone;
CREATE TABLE gone.t (id int PRIMARY KEY, v text);
\i one.sql
INSERT INTO gone.t VALUES (5, 'five');
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
TABLE gone.t;
-- error, although it was dropped just now
DROP TABLE gone.t;
CALL resolve('target_table_missing', 'error');
\i one.sql
INSERT INTO gone.t VALUES (6, 'six');
\i two.sql
\set message 'table "gone.t" does not exist'
\set remedy 'CALL resolve(''target_table_missing'', ''skip_if_recently_dropped'')'
\i stops_until.sql
-- after a day it is forgotten; skip does not ask
UPDATE bdr.dropped_table SET drop_time = drop_time - interval '23 hours 50 minutes';
\i one.sql
INSERT INTO gone.t VALUES (7, 'seven');
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
UPDATE bdr.dropped_table SET drop_time = drop_time - interval '10 minutes';
\i one.sql
INSERT INTO gone.t VALUES (8, 'eight');
\i two.sql
\set message 'table "gone.t" does not exist'
\set remedy 'CALL resolve(''target_table_missing'', ''skip'')'
\i stops_until.sql
CALL wait_for('NOT EXISTS (SELECT FROM bdr.dropped_table WHERE nspname = ''gone'')');
\i one.sql
INSERT INTO gone.t VALUES (9, 'nine');
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
SELECT type, resolution, relname, key FROM told WHERE (remote ->> 'id')::int > 5;

SELECT count(*) AS errors FROM bdr.worker_errors;
ALTER SYSTEM RESET bdr.max_worker_backoff_delay;
SELECT pg_reload_conf();
DELETE FROM bdr.conflict_resolver;
TRUNCATE bdr.conflict_history;
DROP SCHEMA gone;
DROP VIEW told, counted;
DROP TABLE more, more_key, more_full;
DROP PROCEDURE stops_until, resolve;
DROP ROLE regress_less;
\i one.sql
SELECT bdr.wait_slot_confirm_lsn();
DROP SCHEMA gone CASCADE;
DROP TABLE more, more_key, less, more_full, gone_too;
DELETE FROM bdr.conflict_resolver;
SELECT count(*) AS errors FROM bdr.worker_errors;
TRUNCATE bdr.conflict_history;
