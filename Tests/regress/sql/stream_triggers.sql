-- Stream triggers: functions that see the changes of the other node before they are applied. Conflicts are made as in conflict_log.

SET bdr.ddl_replication = off; SET client_min_messages = error;
\getenv dir PG_ABS_SRCDIR
\cd :dir/include
\i apart.sql
CREATE TABLE st (id int PRIMARY KEY, v int, w int, x int DEFAULT 7);
CREATE TABLE st_full (id int PRIMARY KEY, v text);
ALTER TABLE st_full REPLICA IDENTITY FULL;
CREATE TABLE st_parts (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE st_parts_all PARTITION OF st_parts DEFAULT;
\i two.sql
\i apart.sql
CREATE TABLE st (x int DEFAULT 8, id int PRIMARY KEY, v int, w int);
CREATE TABLE st_full (id int PRIMARY KEY, v text);
ALTER TABLE st_full REPLICA IDENTITY FULL;
CREATE TABLE st_parts (only_here int DEFAULT 7, v int, id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE st_parts_low (id int NOT NULL, v int, only_here int DEFAULT 7);
ALTER TABLE st_parts ATTACH PARTITION st_parts_low FOR VALUES FROM (0) TO (100);
CREATE TABLE st_parts_all PARTITION OF st_parts DEFAULT;
CREATE UNLOGGED TABLE st_seen (n int GENERATED ALWAYS AS IDENTITY, line text);
CREATE TABLE st_text (id int PRIMARY KEY, v text);
CREATE VIEW st_view AS SELECT 1 AS id;

-- What is called, and with what.
CREATE FUNCTION st_tell() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	target public.st;
	line text;
BEGIN
	line := pg_catalog.concat_ws(' ', TG_NAME, TG_WHEN, TG_LEVEL, TG_OP, TG_RELID::regclass, TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_NARGS, TG_ARGV[0], TG_ARGV[1],
		bdr.trigger_get_type(), bdr.trigger_get_conflict_type(), current_user);
	IF TG_OP <> 'INSERT' THEN
		line := line || ' OLD ' || OLD::text || ' same ' || (bdr.trigger_get_row('SOURCE_OLD')::text = OLD::text);
	END IF;
	IF TG_OP <> 'DELETE' THEN
		line := line || ' NEW ' || NEW::text || ' same ' || (bdr.trigger_get_row('SOURCE_NEW')::text = NEW::text);
	END IF;
	target := bdr.trigger_get_row('TARGET');
	line := line || ' TARGET ' || coalesce(target::text, '-') || ' from ' || coalesce(bdr.trigger_get_origin_node_id('SOURCE_NEW')::text, '-')
		|| ' to ' || coalesce(bdr.trigger_get_origin_node_id('TARGET')::text, '-')
		|| ' time ' || coalesce((bdr.trigger_get_committs('SOURCE_NEW') > bdr.trigger_get_committs('TARGET'))::text, '-')
		|| ' xid ' || (bdr.trigger_get_xid('TARGET') IS NOT NULL) || (bdr.trigger_get_xid('SOURCE_NEW') IS NOT NULL);
	INSERT INTO public.st_seen (line) VALUES (line);
	RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
SELECT bdr.trigger_get_row('TARGET'), bdr.trigger_get_committs('TARGET'), bdr.trigger_get_xid('TARGET'), bdr.trigger_get_type(),
	bdr.trigger_get_conflict_type(), bdr.trigger_get_origin_node_id('SOURCE_NEW');
SELECT bdr.trigger_get_row('target row');

-- What can't be made.
SELECT bdr.create_transform_trigger('x', '{}', 'st', 'st_tell()');
SELECT bdr.create_transform_trigger('x', '{INSERT,TRUNCATE}', 'st', 'st_tell()');
SELECT bdr.create_transform_trigger('x', '{INSERT,insert}', 'st', 'st_tell()');
SELECT bdr.create_transform_trigger('x', NULL, 'st', 'st_tell()');
SELECT bdr.create_transform_trigger('', '{INSERT}', 'st', 'st_tell()');
SELECT bdr.create_transform_trigger(repeat('x', 59), '{INSERT}', 'st', 'st_tell()');
SELECT bdr.create_transform_trigger('x', '{INSERT}', 'st', 'now()');
SELECT bdr.create_transform_trigger('x', '{INSERT}', 'st', 'st_tell()', '{NULL}');
SELECT bdr.create_transform_trigger('x', '{INSERT}', 'st_view', 'st_tell()');
SELECT bdr.create_conflict_trigger('x', '{INSERT}', 'st_parts_low', 'st_tell()');
SELECT bdr.create_conflict_trigger('x', '{INSERT}', 'st_text', 'st_tell()');
SELECT bdr.create_conflict_trigger('x', '{INSERT}', 'bdr.node', 'st_tell()');
SELECT bdr.create_conflict_trigger('x', '{INSERT}', 0, 'st_tell()');

-- Who may.
CREATE ROLE regress_st_owner;
CREATE ROLE regress_st_other;
GRANT bdr_application TO regress_st_owner, regress_st_other;
GRANT CREATE ON SCHEMA public TO regress_st_owner, regress_st_other;
CREATE TABLE st_owned (id int PRIMARY KEY);
ALTER TABLE st_owned OWNER TO regress_st_owner;
SET ROLE regress_st_other;
CREATE FUNCTION st_other() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION st_definer() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
SELECT bdr.create_conflict_trigger('mine', '{INSERT}', 'st_owned', 'st_other()');
SET ROLE regress_st_owner;
GRANT TRIGGER ON st_owned TO regress_st_other;
SET ROLE regress_st_other;
SELECT bdr.create_conflict_trigger('mine', '{INSERT}', 'st_owned', 'st_other()');
SELECT bdr.create_conflict_trigger('mine', '{INSERT}', 'st_owned', 'st_definer()');
SELECT bdr.drop_trigger('mine', 'st_owned');
REVOKE EXECUTE ON FUNCTION st_other() FROM PUBLIC;
SET ROLE regress_st_owner;
SELECT bdr.create_conflict_trigger('other', '{INSERT}', 'st_owned', 'st_other()');
SELECT bdr.drop_trigger('mine', 'st_owned');
RESET ROLE;
ALTER TABLE st OWNER TO regress_st_owner;
GRANT ALL ON st_seen TO regress_st_owner;

-- What is made.
SELECT bdr.create_transform_trigger('a tell', '{INSERT,UPDATE,DELETE}', 'st', 'st_tell()', '{one,"t wo"}');
SELECT bdr.create_conflict_trigger('tell', '{insert,update,delete}', 'st', 'st_tell()');
SELECT bdr.create_transform_trigger('tell', '{INSERT}', 'st', 'st_tell()');
SELECT trigger_reloid, trigger_type, trigger_name FROM bdr.trigger ORDER BY 3;
SELECT * FROM bdr.triggers ORDER BY 1, 2;
SELECT tgname, tgenabled, tgisinternal FROM pg_trigger WHERE tgrelid = 'st'::regclass ORDER BY 1;
DROP FUNCTION st_tell();
ALTER TABLE st ENABLE TRIGGER "tell_bdrc";
ALTER TABLE st ENABLE TRIGGER ALL;
ALTER TABLE st ENABLE TRIGGER USER;
ALTER TRIGGER tell_bdrc ON st RENAME TO ordinary;
-- Local statements don't fire them.
INSERT INTO st (id, v, w) VALUES (1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4);
SELECT bdr.wait_slot_confirm_lsn();
SELECT count(*) FROM st_seen;

-- Changes, and conflicts of each type.
CALL apart();
\c node1
CALL apart();
\c node2
UPDATE st SET v = 20 WHERE id = 2;
DELETE FROM st WHERE id IN (3, 4);
INSERT INTO st (id, v, w) VALUES (10, 20, 20);
\c node1
UPDATE st SET v = 21 WHERE id = 2;
UPDATE st SET v = 31 WHERE id = 3;
DELETE FROM st WHERE id = 4;
INSERT INTO st (id, v, w) VALUES (10, 21, 21), (11, 1, 1);
UPDATE st SET w = 2 WHERE id = 11;
UPDATE st SET id = 12 WHERE id = 11;
DELETE FROM st WHERE id = 12;
\c node2
CALL together();
\c node1
SELECT bdr.wait_slot_confirm_lsn();
CALL together();
\c node2
SELECT line FROM st_seen ORDER BY n;
SELECT * FROM st ORDER BY id;
SELECT conflict_type, conflict_resolution, remote_tuple, local_tuple, apply_tuple FROM bdr.conflict_history WHERE relname = 'st'
	ORDER BY local_time, remote_change_nr;
-- What they write is not sent.
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SELECT to_regclass('st_seen') IS NULL AS not_here;
SELECT * FROM st ORDER BY id;
\i two.sql
SELECT bdr.drop_trigger('a tell_bdrt', 'st'), bdr.drop_trigger('tell', 'st');
SELECT bdr.drop_trigger('tell', 'st');
SET client_min_messages = notice;
SELECT bdr.drop_trigger('tell', 'st', true);
SET client_min_messages = error;
TRUNCATE st_seen;

-- Transform: rows are changed and dropped, in the order of names, keys too.
CREATE FUNCTION st_add() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP = 'DELETE' THEN
		RETURN CASE WHEN OLD.id = 20 THEN NULL ELSE OLD END;
	END IF;
	IF NEW.v = -1 THEN
		RETURN NULL;
	END IF;
	NEW.v := NEW.v * TG_ARGV[0]::int + TG_ARGV[1]::int;
	NEW.x := NEW.v;
	IF NEW.id = 26 THEN
		NEW.id := 27;
	END IF;
	RETURN NEW;
END $$;
SELECT bdr.create_transform_trigger('b', '{INSERT,UPDATE,DELETE}', 'st', 'st_add()', '{1,1}');
SELECT bdr.create_transform_trigger('a', '{INSERT,UPDATE,DELETE}', 'st', 'st_add()', '{10,0}');
\c node1
INSERT INTO st (id, v, w) SELECT i, 1, 0 FROM generate_series(20, 40) i;
UPDATE st SET v = 2 WHERE id = 21;
UPDATE st SET v = -1 WHERE id = 22;
DELETE FROM st WHERE id IN (20, 23) OR id BETWEEN 30 AND 40;
UPDATE st SET id = 50 WHERE id = 24;
UPDATE st SET w = 5 WHERE id = 26;
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
SELECT * FROM st WHERE id >= 20 ORDER BY id;
SELECT bdr.drop_trigger('a', 'st'), bdr.drop_trigger('b', 'st');

-- Conflict: a row of both, NULL, and what the function does itself.
CREATE FUNCTION st_sum() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	target public.st := bdr.trigger_get_row('TARGET');
BEGIN
	IF TG_OP = 'DELETE' THEN
		RETURN CASE WHEN OLD.id = 65 THEN OLD END;
	END IF;
	IF NEW.id = 61 THEN
		RETURN NULL;
	ELSIF NEW.id = 62 THEN
		DELETE FROM public.st WHERE id = 62;
		RETURN NULL;
	END IF;
	NEW.v := NEW.v + coalesce(target.v, 1000);
	RETURN NEW;
END $$;
SELECT bdr.create_conflict_trigger('sum', '{INSERT,UPDATE,DELETE}', 'st', 'st_sum()');
TRUNCATE bdr.conflict_history;
INSERT INTO st (id, v) SELECT i, 0 FROM generate_series(63, 67) i;
SELECT bdr.wait_slot_confirm_lsn();
CALL apart();
\c node1
CALL apart();
\c node2
\c node1
INSERT INTO st VALUES (60, 1), (61, 1), (62, 1);
UPDATE st SET v = 5 WHERE id IN (63, 64);
DELETE FROM st WHERE id IN (65, 66);
UPDATE st SET id = 68, v = 7 WHERE id = 67;
\c node2
INSERT INTO st (id, v) VALUES (60, 2), (61, 2), (62, 2);
UPDATE st SET v = 10 WHERE id IN (63, 65, 66, 67);
DELETE FROM st WHERE id = 64;
CALL together();
\c node1
SELECT bdr.wait_slot_confirm_lsn();
CALL together();
\i two.sql
SELECT * FROM st WHERE id >= 60 ORDER BY id;
SELECT conflict_type, conflict_resolution, remote_tuple, local_tuple, apply_tuple FROM bdr.conflict_history WHERE relname = 'st'
	ORDER BY local_time, remote_change_nr;

-- Errors stop the stream and say where; it goes on when the cause is gone.
CREATE OR REPLACE FUNCTION st_sum() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.id = 70 THEN
		RAISE 'not this one';
	END IF;
	RETURN NEW;
END $$;
SELECT bdr.drop_trigger('sum', 'st');
SELECT bdr.create_transform_trigger('bad', '{INSERT}', 'st', 'st_sum()');
\c node1
INSERT INTO st VALUES (70, 1);
\i two.sql
CALL wait_for('EXISTS (SELECT FROM bdr.worker_error WHERE error_message LIKE ''%not this one%'')');
SELECT regexp_replace(error_context, 'commit LSN [0-9A-F/]+', 'commit LSN') FROM bdr.worker_error WHERE error_message LIKE '%not this one%' LIMIT 1;
SELECT bdr.drop_trigger('bad', 'st');
\c node1
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
SELECT id, v FROM st WHERE id = 70;

-- So does a conflict trigger that returns another key, or a row that it has changed itself.
CREATE FUNCTION st_wrong() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_ARGV[0] = 'key' THEN
		NEW.id := 81;
	ELSE
		UPDATE public.st SET v = 0 WHERE id = NEW.id;
	END IF;
	RETURN NEW;
END $$;
INSERT INTO st VALUES (0, 80, 0, 0);
SELECT bdr.wait_slot_confirm_lsn();
CALL apart();
UPDATE st SET v = 1 WHERE id = 80;
SELECT bdr.create_conflict_trigger('key', '{UPDATE}', 'st', 'st_wrong()', '{key}');
\c node1
CALL apart();
UPDATE st SET v = 2 WHERE id = 80;
\i two.sql
SELECT bdr.alter_subscription_enable();
CALL wait_for('EXISTS (SELECT FROM bdr.worker_error WHERE error_message LIKE ''%returned a row with another key'')');
SELECT bdr.drop_trigger('key', 'st'), bdr.create_conflict_trigger('own', '{UPDATE}', 'st', 'st_wrong()', '{own}');
CALL wait_for('EXISTS (SELECT FROM bdr.worker_error WHERE error_message LIKE ''%has changed the row that the conflict is about%'')');
SELECT bdr.drop_trigger('own', 'st');
\c node1
SELECT bdr.wait_slot_confirm_lsn();
CALL together();
\i two.sql
SELECT * FROM st WHERE id >= 80;

-- Values stored out of line; partitioned tables with other columns; DROP TABLE.
CREATE FUNCTION st_long() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.st_seen (line) VALUES (concat_ws(' ', TG_OP, TG_RELID::regclass, length(NEW.v::text), length(OLD.v::text), NEW.id));
	RETURN NEW;
END $$;
SELECT bdr.create_transform_trigger('t', '{UPDATE}', 'st_full', 'st_long()');
SELECT bdr.create_transform_trigger('t', '{INSERT,UPDATE}', 'st_parts', 'st_long()');
\c node1
INSERT INTO st_full SELECT 1, string_agg(md5(i::text), '') FROM generate_series(1, 1000) i;
UPDATE st_full SET id = 2;
INSERT INTO st_parts VALUES (1, 1), (200, 2);
UPDATE st_parts SET v = 30;
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
SELECT line FROM st_seen ORDER BY n;
SELECT id, length(v) FROM st_full;
SELECT tableoid::regclass, * FROM st_parts ORDER BY id;
DROP TABLE st_full, st_parts;
SELECT * FROM bdr.triggers;

DROP TABLE st, st_owned, st_seen, st_text;
DROP VIEW st_view;
DROP PROCEDURE apart, together;
DROP FUNCTION st_tell, st_add, st_sum, st_wrong, st_long, st_other, st_definer;
REVOKE CREATE ON SCHEMA public FROM regress_st_owner, regress_st_other;
DROP ROLE regress_st_owner, regress_st_other;
\i one.sql
DROP TABLE st, st_full, st_parts;
DROP PROCEDURE apart, together;
