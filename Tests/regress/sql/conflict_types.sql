-- Every type of conflict that is found by who changed a row last, with every resolver: rows on both nodes, history, counters.
--
-- Rows are described once and written in each round into a table of its own, while the nodes are apart: in the order of the
-- steps, so that what two does in step 1 is older than what one does in step 2, and what it does in step 3 is newer. Node one
-- resolves as the round says, two as a new node does.

SET bdr.ddl_replication = off; SET client_min_messages = error;
\getenv dir PG_ABS_SRCDIR
\cd :dir/include
\i conflict_types.sql
CREATE PROCEDURE resolve(types text[], resolver text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM bdr.alter_node_set_conflict_resolver('one', t, resolver) FROM unnest(types) t;
END $$;
CREATE PROCEDURE stops_until(type text, resolver text) LANGUAGE plpgsql AS $$
BEGIN
	CALL wait_for(format('EXISTS (SELECT FROM bdr.worker_errors WHERE error_message || error_context_message LIKE %L)',
						 '%conflict%' || type || '%"error".%'));
	PERFORM bdr.alter_node_set_conflict_resolver('one', type, resolver);
	COMMIT;
END $$;
CREATE VIEW counted AS SELECT relname, conflict_type, nconflict, napplied, nskipped, nunrecorded FROM bdr.stat_conflicts;
\i two.sql
\i conflict_types.sql
TRUNCATE bdr.conflict_history;

\i one.sql
TRUNCATE bdr.conflict_history;
ALTER SYSTEM SET bdr.max_worker_backoff_delay = '100ms';
SELECT pg_reload_conf();
INSERT INTO ct_step (step, statement) VALUES
	('two 0', $$INSERT INTO @ SELECT i, 'c' || i, 'o' || i, # FROM unnest('{7,8,9,10,11,12,13,15,23,30,31,32,34}'::int[]) i$$),
	-- insert_exists, on the primary key: older, newer
	('two 1', $$INSERT INTO @ VALUES (1, 'c1', 'o1', #)$$),
	('one 2', $$INSERT INTO @ VALUES (1, 'c1', 'o1', #)$$),
	('one 2', $$INSERT INTO @ VALUES (2, 'c2', 'o2', #)$$),
	('two 3', $$INSERT INTO @ VALUES (2, 'c2', 'o2', #)$$),
	-- on another key
	('two 1', $$INSERT INTO @ VALUES (3, 'c3', 'o3', #)$$),
	('one 2', $$INSERT INTO @ VALUES (4, 'c3', 'o4', #)$$),
	('one 2', $$INSERT INTO @ VALUES (5, 'c5', 'o5', #)$$),
	('two 3', $$INSERT INTO @ VALUES (6, 'c5', 'o6', #)$$),
	-- update_missing: the delete is forgotten (before all others)
	('one 2 forgets', $$DELETE FROM @ WHERE id = 10$$),
	('one 2 forgets', $$DELETE FROM bdr.row_stamp WHERE relid = '@'::regclass$$),
	('two 3', $$UPDATE @ SET v = # WHERE id = 10$$),
	-- insert_recently_deleted
	('two 1', $$DELETE FROM @ WHERE id = 7$$),
	('two 1', $$INSERT INTO @ VALUES (7, 'c7', 'o7', #)$$),
	('one 2', $$DELETE FROM @ WHERE id = 7$$),
	-- the same, and another row, which is older, has its code
	('one 0', $$INSERT INTO @ VALUES (39, 'c38', 'o39', #)$$),
	('two 1', $$INSERT INTO @ VALUES (38, 'c38', 'o38', #)$$),
	('one 2', $$INSERT INTO @ VALUES (38, 'x38', 'x38', #)$$),
	('one 2', $$DELETE FROM @ WHERE id = 38$$),
	-- update_origin_change: older, newer
	('two 1', $$UPDATE @ SET v = # WHERE id = 8$$),
	('one 2', $$UPDATE @ SET v = # WHERE id IN (8, 9)$$),
	('two 3', $$UPDATE @ SET v = # WHERE id = 9$$),
	-- of the key
	('two 1', $$UPDATE @ SET id = 33, v = # WHERE id = 32$$),
	('one 2', $$UPDATE @ SET v = # WHERE id IN (32, 34)$$),
	('two 3', $$UPDATE @ SET id = 35, v = # WHERE id = 34$$),
	-- update_recently_deleted: older, newer
	('two 1', $$UPDATE @ SET v = # WHERE id = 11$$),
	('one 2', $$DELETE FROM @ WHERE id IN (11, 12)$$),
	('two 3', $$UPDATE @ SET v = # WHERE id = 12$$),
	-- update_pkey_exists: older, newer
	('two 1', $$UPDATE @ SET id = 14, v = # WHERE id = 13$$),
	('one 2', $$INSERT INTO @ VALUES (14, 'c14', 'o14', #), (16, 'c16', 'o16', #)$$),
	('two 3', $$UPDATE @ SET id = 16, v = # WHERE id = 15$$),
	-- multiple_unique_conflicts: all in the way are newer, all are older, one of them
	('two 1', $$INSERT INTO @ VALUES (17, 'c17', 'o17', #)$$),
	('one 2', $$INSERT INTO @ VALUES (18, 'c17', 'o18', #), (19, 'c19', 'o17', #)$$),
	('one 2', $$INSERT INTO @ VALUES (20, 'c20', 'o20', #), (21, 'c21', 'o21', #)$$),
	('two 3', $$INSERT INTO @ VALUES (22, 'c20', 'o21', #)$$),
	('one 0', $$INSERT INTO @ VALUES (27, 'c27', 'o27', #)$$),
	('two 1', $$INSERT INTO @ VALUES (29, 'c27', 'o28', #)$$),
	('one 2', $$INSERT INTO @ VALUES (28, 'c28', 'o28', #)$$),
	-- by an UPDATE, and with the row of the same key
	('one 2', $$INSERT INTO @ VALUES (24, 'c24', 'o24', #)$$),
	('two 3', $$UPDATE @ SET code = 'c24', v = # WHERE id = 23$$),
	('one 2', $$INSERT INTO @ VALUES (25, 'c25', 'o25', #), (26, 'c26', 'o26', #)$$),
	('two 3', $$INSERT INTO @ VALUES (25, 'x25', 'o26', #)$$),
	-- delete_recently_updated
	('two 1', $$DELETE FROM @ WHERE id = 30$$),
	('one 2', $$UPDATE @ SET v = # WHERE id = 30$$),
	-- delete_missing
	('two 1', $$DELETE FROM @ WHERE id = 31$$),
	('one 2', $$DELETE FROM @ WHERE id = 31$$);
SELECT bdr.wait_slot_confirm_lsn();

-- skip: the local state stays.
CALL resolve('{insert_exists,insert_recently_deleted,update_origin_change,update_missing,update_recently_deleted,update_pkey_exists,
	multiple_unique_conflicts,delete_recently_updated,delete_missing}', 'skip');
\set relation ct_skip
\i conflict_types_apart.sql
\i conflict_types_together.sql
SELECT * FROM told;
SELECT * FROM counted WHERE relname = 'ct_skip' ORDER BY conflict_type;
TABLE ct_skip ORDER BY id;
TRUNCATE bdr.conflict_history;
\c node2
TABLE ct_skip ORDER BY id;
TRUNCATE bdr.conflict_history;
\c node1

-- update, insert_or_error: the change takes effect, be it older or newer; what was deleted comes back only if it is newer.
CALL resolve('{insert_exists,insert_recently_deleted,update_origin_change,update_pkey_exists,multiple_unique_conflicts,
	delete_recently_updated}', 'update');
CALL resolve('{update_missing,update_recently_deleted}', 'insert_or_error');
\set relation ct_update
\i conflict_types_apart.sql
\i conflict_types_together.sql
SELECT * FROM told;
SELECT * FROM counted WHERE relname = 'ct_update' ORDER BY conflict_type;
TABLE ct_update ORDER BY id;
TRUNCATE bdr.conflict_history;
\c node2
TABLE ct_update ORDER BY id;
TRUNCATE bdr.conflict_history;
\c node1

-- update_if_newer, insert_or_skip: the later one wins. Those of a new node, and update_if_newer for multiple_unique_conflicts.
CALL resolve('{insert_exists,update_origin_change,update_pkey_exists,multiple_unique_conflicts}', 'update_if_newer');
CALL resolve('{insert_recently_deleted,delete_recently_updated,delete_missing}', 'skip');
CALL resolve('{update_missing,update_recently_deleted}', 'insert_or_skip');
\set relation ct_newer
\i conflict_types_apart.sql
\i conflict_types_together.sql
SELECT * FROM told;
SELECT * FROM counted WHERE relname = 'ct_newer' ORDER BY conflict_type;
TABLE ct_newer ORDER BY id;
TRUNCATE bdr.conflict_history;
\c node2
SELECT * FROM told;
TABLE ct_newer ORDER BY id;
TRUNCATE bdr.conflict_history;
\c node1

-- error: each stops replication until another resolver is chosen.
CALL resolve('{insert_exists,insert_recently_deleted,update_origin_change,update_missing,update_recently_deleted,update_pkey_exists,
	multiple_unique_conflicts,delete_recently_updated,delete_missing}', 'error');
\set relation ct_error
\i conflict_types_apart.sql
SELECT bdr.alter_subscription_enable();
CALL stops_until('insert_exists', 'update_if_newer');
CALL stops_until('delete_missing', 'skip');
CALL stops_until('insert_recently_deleted', 'skip');
CALL stops_until('update_origin_change', 'update_if_newer');
CALL stops_until('update_pkey_exists', 'update_if_newer');
CALL stops_until('update_recently_deleted', 'insert_or_skip');
CALL stops_until('multiple_unique_conflicts', 'update_if_newer');
CALL stops_until('delete_recently_updated', 'skip');
CALL stops_until('update_missing', 'insert_or_skip');
DELETE FROM bdr.worker_error;
\i conflict_types_together.sql
SELECT count(*) AS told, count(*) FILTER (WHERE resolution = 'skip') AS skipped FROM told;
SELECT * FROM counted WHERE relname = 'ct_error' ORDER BY conflict_type;
TABLE ct_error ORDER BY id;
TRUNCATE bdr.conflict_history;
\c node2
TABLE ct_error ORDER BY id;
TRUNCATE bdr.conflict_history;
\i one.sql

SELECT count(*) AS errors FROM bdr.worker_errors;
ALTER SYSTEM RESET bdr.max_worker_backoff_delay;
SELECT pg_reload_conf();
DELETE FROM bdr.conflict_resolver;
DROP VIEW told, counted;
DROP TABLE ct_step, ct_skip, ct_update, ct_newer, ct_error;
DROP PROCEDURE run, apart, together, resolve, stops_until;
\i two.sql
SELECT count(*) AS errors FROM bdr.worker_errors;
DROP VIEW told;
DROP TABLE ct_step, ct_skip, ct_update, ct_newer, ct_error;
DROP PROCEDURE run, apart, together;
