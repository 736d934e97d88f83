-- Conflict triggers and several rows in the way; conflicts of rows that differ only in what was merged.

SET bdr.ddl_replication = off; SET client_min_messages = error;
\getenv dir PG_ABS_SRCDIR
\cd :dir/include
\i apart.sql
CREATE TABLE cm (id int PRIMARY KEY, code text UNIQUE, other text UNIQUE, v text);
CREATE TABLE cm_crdt (id int PRIMARY KEY, n bdr.crdt_pncounter DEFAULT 0, d bdr.crdt_delta_counter DEFAULT 0, v text);
ALTER TABLE cm_crdt REPLICA IDENTITY FULL;
ALTER TABLE cm REPLICA IDENTITY FULL;
\i two.sql
\i apart.sql
CREATE TABLE cm (only_here int DEFAULT 7, id int PRIMARY KEY, code text UNIQUE, other text UNIQUE, v text);
CREATE TABLE cm_crdt (id int PRIMARY KEY, n bdr.crdt_pncounter DEFAULT 0, d bdr.crdt_delta_counter DEFAULT 0, v text);
ALTER TABLE cm_crdt REPLICA IDENTITY FULL;
ALTER TABLE cm REPLICA IDENTITY FULL;
CREATE UNLOGGED TABLE cm_seen (n int GENERATED ALWAYS AS IDENTITY, line text);
CREATE VIEW told AS SELECT conflict_type AS type, conflict_resolution AS resolution, key_tuple ->> 'id' AS key, remote_tuple ->> 'v' AS remote,
	local_tuple ->> 'id' AS lid, apply_tuple ->> 'v' AS applied
	FROM bdr.conflict_history ORDER BY local_time, remote_change_nr;
CREATE FUNCTION cm_decide() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	target public.cm := bdr.trigger_get_row('TARGET');
BEGIN
	INSERT INTO public.cm_seen (line) VALUES (pg_catalog.concat_ws(' ', TG_OP, bdr.trigger_get_conflict_type(), NEW.id, NEW.v, 'over', target.id, target.v));
	IF NEW.v = 'none' THEN
		RETURN NULL;
	ELSIF NEW.v = 'elsewhere' THEN
		NEW.code := 'free ' || NEW.id;
		NEW.other := 'free ' || NEW.id;
	ELSIF NEW.v = 'itself' THEN
		DELETE FROM public.cm WHERE code = NEW.code OR other = NEW.other;
		INSERT INTO public.cm (id, v) VALUES (NEW.id + 1000, 'by the trigger');
		RETURN NULL;
	END IF;
	NEW.v := NEW.v || ', decided';
	RETURN NEW;
END $$;
DELETE FROM bdr.worker_error;
SELECT bdr.create_conflict_trigger('decide', '{INSERT,UPDATE}', 'cm', 'cm_decide()');
TRUNCATE bdr.conflict_history;
CALL apart();
\c node1
SELECT bdr.alter_node_set_conflict_resolver('one', 'target_column_missing', 'ignore');
CALL apart();
-- Rows of both, and those in the way only on two. The resolver is error: it is not asked.
\c node2
INSERT INTO cm (id, code, other, v) SELECT i, 'c' || i, 'o' || i, 'two' FROM generate_series(1, 20) i;
\c node1
INSERT INTO cm VALUES (50, 'x50', 'y50', 'one'), (51, 'x51', 'y51', 'one'), (52, 'x52', 'y52', 'one'), (53, 'x53', 'y53', 'one');
-- all that is in the way goes, but the row's own key
INSERT INTO cm VALUES (101, 'c1', 'o2', 'all'), (3, 'c4', 'o5', 'own');
-- nothing does
INSERT INTO cm VALUES (102, 'c6', 'o7', 'none');
-- the row goes elsewhere
INSERT INTO cm VALUES (103, 'c8', 'o9', 'elsewhere');
-- the trigger does it itself
INSERT INTO cm VALUES (104, 'c10', 'o11', 'itself');
-- the same for updates
UPDATE cm SET code = 'c12', other = 'o13', v = 'all' WHERE id = 50;
UPDATE cm SET code = 'c14', v = 'none' WHERE id = 51;
UPDATE cm SET code = 'c15', v = 'elsewhere' WHERE id = 52;
UPDATE cm SET id = 53, code = 'c16', other = 'o17', v = 'itself' WHERE id = 53;
\c node2
SELECT bdr.alter_subscription_enable();
\c node1
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT * FROM cm ORDER BY id;
SELECT line FROM cm_seen ORDER BY n;
SELECT * FROM told WHERE type <> 'source_column_missing';
SELECT count(*) AS errors FROM bdr.worker_errors;

-- What differs only in conflict-free columns is counted, and not told.
TRUNCATE bdr.conflict_history;
\c node1
TRUNCATE cm;
SELECT bdr.alter_subscription_enable();
CALL together();
INSERT INTO cm_crdt SELECT i, 10, 10, 'same' FROM generate_series(1, 4) i;
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT bdr.wait_slot_confirm_lsn();
CALL apart();
\c node1
CALL apart();
UPDATE cm_crdt SET n = n + 1, d = d + 1 WHERE id IN (1, 2);
UPDATE cm_crdt SET n = n + 1, v = 'one' WHERE id = 3;
INSERT INTO cm_crdt VALUES (5, 1, 1, 'new'), (6, 1, 1, 'new, one');
\c node2
UPDATE cm_crdt SET n = n + 2, d = d + 2 WHERE id IN (1, 2);
UPDATE cm_crdt SET n = n + 2, v = 'two' WHERE id = 3;
INSERT INTO cm_crdt VALUES (5, 2, 2, 'new'), (6, 2, 2, 'new, two');
SELECT bdr.alter_subscription_enable();
\c node1
SELECT bdr.alter_subscription_enable();
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT bdr.wait_slot_confirm_lsn();
SELECT id, #n AS n, d, v FROM cm_crdt ORDER BY id;
SELECT type, resolution, key FROM told;
SELECT relname, conflict_type, nconflict FROM bdr.stat_conflicts WHERE relname = 'cm_crdt' ORDER BY 2;
\i one.sql
SELECT id, #n AS n, d, v FROM cm_crdt ORDER BY id;
SELECT conflict_type, conflict_resolution, key_tuple ->> 'id' AS key FROM bdr.conflict_history WHERE relname = 'cm_crdt' ORDER BY local_time;

SELECT count(*) AS errors FROM bdr.worker_errors;
DELETE FROM bdr.conflict_resolver;
TRUNCATE bdr.conflict_history;
DROP TABLE cm, cm_crdt;
DROP PROCEDURE apart, together;
\i two.sql
SELECT count(*) AS errors FROM bdr.worker_errors;
TRUNCATE bdr.conflict_history;
DROP VIEW told;
DROP TABLE cm, cm_crdt, cm_seen;
DROP FUNCTION cm_decide;
DROP PROCEDURE apart, together;
