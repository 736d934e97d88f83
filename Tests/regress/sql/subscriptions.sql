-- Switching subscriptions off and on, waiting for what they bring, and how they fare when something is in the way.

CREATE TABLE subs (id int PRIMARY KEY, v text);
SELECT bdr.wait_slot_confirm_lsn();

-- Off: what the other node writes does not come, what is written here goes
\c node1
SELECT bdr.alter_subscription_disable();
SELECT bdr.alter_subscription_disable();
CALL wait_for('NOT EXISTS (SELECT FROM bdr.workers WHERE worker_role_name = ''apply'')');
SELECT sub_enabled, subscription_status FROM bdr.subscription_summary;
INSERT INTO subs VALUES (1, 'from one');
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT * FROM subs;
INSERT INTO subs VALUES (2, 'from two');
SELECT active FROM pg_replication_slots WHERE slot_name = 'bdr_node2_the_group_one';
\set SHOW_CONTEXT never
SET statement_timeout = '100ms';
SELECT bdr.wait_slot_confirm_lsn();
RESET statement_timeout;
\c node1
SELECT * FROM subs ORDER BY id;
-- On again: it comes, once.
SELECT bdr.alter_subscription_enable();
SELECT bdr.alter_subscription_enable();
\c node2
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SELECT * FROM subs ORDER BY id;
SELECT sub_enabled FROM bdr.subscription_summary;

-- By name, and at once
SELECT bdr.alter_subscription_disable('bdr_node1_the_group_two_one', immediate := true);
CALL wait_for('NOT EXISTS (SELECT FROM bdr.workers WHERE worker_role_name = ''apply'')');
SELECT bdr.alter_subscription_enable('bdr_node1_the_group_two_one', immediate := true);
-- A transaction that is rolled back, or a savepoint, switches nothing.
BEGIN;
SELECT bdr.alter_subscription_disable();
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT bdr.alter_subscription_disable(immediate := true);
ROLLBACK TO s;
COMMIT;
SELECT sub_enabled FROM bdr.subscription;
\c node2
INSERT INTO subs VALUES (3, 'after a rollback');
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SELECT * FROM subs WHERE id = 3;

-- Waiting: for a slot's peer, for a position, with nothing to wait for
INSERT INTO subs VALUES (4, 'waited for');
SELECT bdr.wait_slot_confirm_lsn('bdr_node1_the_group_two');
SELECT bdr.wait_slot_confirm_lsn(target_lsn := '0/1');
SELECT bdr.wait_slot_confirm_lsn('bdr_node1_the_group_two', pg_current_wal_flush_lsn());
SELECT confirmed_flush_lsn AS confirmed FROM pg_replication_slots WHERE slot_name = 'bdr_node1_the_group_two' \gset
SELECT bdr.wait_slot_confirm_lsn('bdr_node1_the_group_two', :'confirmed');
-- for what this transaction has written: it is flushed, and sent once it is committed
BEGIN;
INSERT INTO subs VALUES (5, 'not committed');
SET LOCAL statement_timeout = '5s';
SELECT bdr.wait_slot_confirm_lsn();
COMMIT;
-- and when WAL ends with a page
DO $$
DECLARE
	place int;
	overhead int := 56;
BEGIN
	FOR attempt IN 1 .. 1000 LOOP
		place := (pg_current_wal_insert_lsn() - '0/0') % 8192;
		EXIT WHEN place = 24;
		IF 8192 - place BETWEEN overhead + 1 AND 255 + overhead THEN
			PERFORM pg_logical_emit_message(false, '', repeat('x', 8192 - place - overhead));
		ELSE
			PERFORM pg_logical_emit_message(false, '', repeat('x', least(3000, greatest(8, 8192 - place - overhead - 150))));
		END IF;
		place := (pg_current_wal_insert_lsn() - '0/0') % 8192;
		IF place <> 24 AND (place < 200 OR place > 8100) THEN
			overhead := 48 + (overhead - 48 + 1) % 16;
		END IF;
	END LOOP;
	RAISE NOTICE 'at the end of a page: %', place = 24;
END $$;
SET statement_timeout = '5s';
SELECT bdr.wait_slot_confirm_lsn();
RESET statement_timeout;
\c node2
INSERT INTO subs VALUES (6, 'applied');
SELECT pg_current_wal_flush_lsn() AS written \gset
\c node1
SELECT bdr.wait_for_apply_queue('two', :'written');
SELECT * FROM subs WHERE id = 6;
SELECT bdr.wait_for_apply_queue('two', NULL);
SELECT bdr.wait_for_apply_queue(NULL, NULL);
SELECT bdr.wait_for_apply_queue(NULL, '0/1');

-- What is counted
SELECT ninsert, nupdate, ndelete, ntruncate, ncommit FROM bdr.stat_subscription \gset before_
\c node2
BEGIN;
INSERT INTO subs SELECT i, 'counted' FROM generate_series(101, 110) i;
UPDATE subs SET v = 'counted again' WHERE id BETWEEN 101 AND 105;
DELETE FROM subs WHERE id > 107;
COMMIT;
TRUNCATE subs;
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SELECT ninsert - :before_ninsert AS inserts, nupdate - :before_nupdate AS updates, ndelete - :before_ndelete AS deletes,
	ntruncate - :before_ntruncate AS truncates, ncommit - :before_ncommit >= 2 AS commits, nconflict, nmissing
	FROM bdr.stat_subscription;

-- Something is missing: replication stops with an error that says what, and goes on by itself once it is there.
SELECT count(*) AS errors FROM bdr.worker_errors;
SET bdr.ddl_replication = off; SET client_min_messages = error;
ALTER TABLE subs RENAME TO subs_before;
\c node2
INSERT INTO subs VALUES (1, 'for a table that is not there'), (2, 'second');
\c node1
CALL wait_for('EXISTS (SELECT FROM bdr.worker_errors)');
SELECT DISTINCT node_group_name, origin_name, source_name, target_name, sub_name, worker_role_name, error_message FROM bdr.worker_errors;
SELECT DISTINCT regexp_replace(error_context_message, 'LSN [0-9A-F/]+', 'LSN ...') AS context FROM bdr.worker_errors;
CALL wait_for('(SELECT subscription_status <> ''replicating'' FROM bdr.subscription_summary)');
SET bdr.ddl_replication = off; SET client_min_messages = error;
DROP TABLE subs_before;
CREATE TABLE subs (id int PRIMARY KEY, v text);
\c node2
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SELECT * FROM subs ORDER BY id;

-- A row is there already, or not there: the later change wins, replication goes on, and it is counted.
SELECT nconflict, nmissing FROM bdr.stat_subscription \gset before_
SELECT bdr.alter_subscription_disable();
CALL wait_for('NOT EXISTS (SELECT FROM bdr.workers WHERE worker_role_name = ''apply'')');
\c node2
BEGIN;
INSERT INTO subs VALUES (10, 'earlier, on two');
UPDATE subs SET v = 'updated on two' WHERE id = 1;
DELETE FROM subs WHERE id = 2;
COMMIT;
\c node1
BEGIN;
INSERT INTO subs VALUES (10, 'later, on one');
DELETE FROM subs WHERE id IN (1, 2);
COMMIT;
SELECT bdr.alter_subscription_enable();
\c node2
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SELECT bdr.wait_slot_confirm_lsn();
SELECT * FROM subs ORDER BY id;
\c node2
SELECT * FROM subs ORDER BY id;
SET bdr.ddl_replication = off; SET client_min_messages = error;
DROP TABLE subs;
\c node1
SELECT nconflict - :before_nconflict AS conflicts, nmissing - :before_nmissing AS missing FROM bdr.stat_subscription;
SET bdr.ddl_replication = off; SET client_min_messages = error;
DROP TABLE subs;
