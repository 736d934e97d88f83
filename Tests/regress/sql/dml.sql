-- INSERT, UPDATE, DELETE, TRUNCATE, COPY, MERGE and ON CONFLICT, both ways.

-- Tables that are made on one node are on the other one, too.
CREATE TABLE dml (k int PRIMARY KEY, v text, n numeric DEFAULT 1.50);
CREATE TABLE dml_two (a int, b text, v int, PRIMARY KEY (b, a));
CREATE TABLE dml_child (id int PRIMARY KEY, k int REFERENCES dml ON DELETE CASCADE ON UPDATE CASCADE);

-- INSERT
\c node1
INSERT INTO dml VALUES (1, 'one', 1), (2, NULL, NULL);
INSERT INTO dml (k) VALUES (3);
INSERT INTO dml SELECT i, 'many ' || i, i FROM generate_series(11, 40) i;
INSERT INTO dml_two VALUES (1, 'x', 1), (2, 'x', 2), (1, 'y', 3);
INSERT INTO dml_child VALUES (1, 1), (2, 2), (3, 11);
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT * FROM dml WHERE k < 10 ORDER BY k;
SELECT count(*), min(k), max(k), sum(n), max(v) FROM dml WHERE k >= 10;
SELECT * FROM dml_two ORDER BY b, a;
SELECT * FROM dml_child ORDER BY id;

-- UPDATE, from the other node
UPDATE dml SET v = 'two', n = 2 WHERE k = 2;
UPDATE dml SET n = n + 100, v = NULL WHERE k BETWEEN 11 AND 20;
UPDATE dml_two SET v = v * 10;
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SELECT * FROM dml WHERE k < 10 ORDER BY k;
SELECT count(*), sum(n), count(v) FROM dml WHERE k >= 10;
SELECT * FROM dml_two ORDER BY b, a;

-- keys change; referencing rows follow by the writer's cascade
UPDATE dml SET k = 101 WHERE k = 11;
UPDATE dml SET k = k + 1000 WHERE k BETWEEN 31 AND 40;
UPDATE dml_two SET a = a + 5, b = 'z' WHERE b = 'y';
BEGIN;
UPDATE dml SET k = -1 WHERE k = 1;
UPDATE dml SET k = 1 WHERE k = 2;
UPDATE dml SET k = 2 WHERE k = -1;
COMMIT;
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT * FROM dml WHERE k < 10 ORDER BY k;
SELECT count(*), min(k), max(k) FROM dml WHERE k >= 10;
SELECT * FROM dml_two ORDER BY b, a;
SELECT * FROM dml_child ORDER BY id;

-- DELETE
DELETE FROM dml WHERE k > 1000 OR k = 1;
DELETE FROM dml_two WHERE b = 'x' AND a = 2;
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SELECT * FROM dml WHERE k < 10 ORDER BY k;
SELECT count(*), min(k), max(k) FROM dml WHERE k >= 10;
SELECT * FROM dml_two ORDER BY b, a;
SELECT * FROM dml_child ORDER BY id;

-- TRUNCATE
TRUNCATE dml_two;
TRUNCATE dml CASCADE;
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT (SELECT count(*) FROM dml) AS dml, (SELECT count(*) FROM dml_two) AS dml_two, (SELECT count(*) FROM dml_child) AS dml_child;

-- rows written before and after a TRUNCATE in one transaction
BEGIN;
INSERT INTO dml VALUES (1, 'before');
TRUNCATE dml, dml_child;
INSERT INTO dml VALUES (2, 'after');
COMMIT;
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SELECT * FROM dml ORDER BY k;

-- COPY
COPY dml FROM stdin;
10	ten	10
11	\N	\N
12	tab\tnewline\nbackslash\\	0.000
13		-1
\.
SELECT bdr.wait_slot_confirm_lsn();
\c node2
COPY dml_two (b, a) FROM stdin WITH (FORMAT csv);
"quoted, ""twice""",1
,2
\.
COPY dml_two (b, a) FROM stdin WITH (FORMAT csv);
"quoted, ""twice""",1
"",2
\.
SELECT * FROM dml ORDER BY k;
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SELECT * FROM dml_two ORDER BY b, a;

-- MERGE
MERGE INTO dml t USING (VALUES (10, 'merged'), (11, 'gone'), (20, 'new')) AS s (k, v) ON t.k = s.k
	WHEN MATCHED AND s.v = 'gone' THEN DELETE
	WHEN MATCHED THEN UPDATE SET v = s.v, n = n * 2
	WHEN NOT MATCHED THEN INSERT VALUES (s.k, s.v);
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT * FROM dml WHERE k IN (10, 11, 20) ORDER BY k;

-- ON CONFLICT
INSERT INTO dml VALUES (20, 'conflicts', 1), (21, 'is new', 1) ON CONFLICT DO NOTHING;
INSERT INTO dml VALUES (20, 'again', 1), (22, 'is new', 1) ON CONFLICT (k) DO UPDATE SET v = dml.v || ' + ' || EXCLUDED.v;
INSERT INTO dml VALUES (20, 'skipped', 1) ON CONFLICT (k) DO UPDATE SET v = 'never' WHERE false;
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SELECT * FROM dml WHERE k BETWEEN 20 AND 29 ORDER BY k;

-- WITH: several changes in one statement
WITH gone AS (DELETE FROM dml WHERE k IN (21, 22) RETURNING k, v, n)
	INSERT INTO dml SELECT k + 10, 'was ' || v, n FROM gone;
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT * FROM dml WHERE k BETWEEN 20 AND 39 ORDER BY k;

-- the same row again and again in one transaction
BEGIN;
INSERT INTO dml VALUES (50, 'v0');
UPDATE dml SET v = 'v1' WHERE k = 50;
UPDATE dml SET v = 'v2', k = 51 WHERE k = 50;
INSERT INTO dml VALUES (50, 'another 50');
DELETE FROM dml WHERE k = 51;
INSERT INTO dml VALUES (51, 'another 51');
UPDATE dml SET v = v || '!' WHERE k IN (50, 51);
COMMIT;
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SELECT * FROM dml WHERE k BETWEEN 50 AND 59 ORDER BY k;

-- savepoints, rolled-back subtransactions, rolled-back transactions
TRUNCATE dml CASCADE;
BEGIN;
INSERT INTO dml VALUES (1, 'kept');
SAVEPOINT a;
INSERT INTO dml VALUES (2, 'undone');
UPDATE dml SET v = 'undone' WHERE k = 1;
SAVEPOINT b;
INSERT INTO dml VALUES (3, 'undone with a');
RELEASE b;
ROLLBACK TO a;
INSERT INTO dml VALUES (4, 'kept');
SAVEPOINT c;
DELETE FROM dml WHERE k = 4;
TRUNCATE dml_two;
ROLLBACK TO c;
SAVEPOINT d;
INSERT INTO dml VALUES (5, 'kept');
RELEASE d;
COMMIT;
BEGIN;
INSERT INTO dml VALUES (6, 'rolled back');
DELETE FROM dml WHERE k = 1;
ROLLBACK;
DO $$
BEGIN
	INSERT INTO dml VALUES (7, 'kept');
	FOR i IN 1 .. 3 LOOP
		BEGIN
			INSERT INTO dml VALUES (7 + i, 'kept if odd: ' || i);
			IF i % 2 = 0 THEN
				RAISE 'undone';
			END IF;
		EXCEPTION WHEN raise_exception THEN
			INSERT INTO dml VALUES (70 + i, 'written by the handler');
		END;
	END LOOP;
END
$$;
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT * FROM dml ORDER BY k;
SELECT count(*) AS not_truncated FROM dml_two;

-- a failed statement leaves nothing on either side
INSERT INTO dml VALUES (100, 'first'), (1, 'duplicate');
BEGIN;
INSERT INTO dml VALUES (101, 'undone');
SELECT 1 / 0;
COMMIT;
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SELECT count(*) FROM dml WHERE k >= 100;

-- deferred constraints, triggers and defaults act where the row is written, not where it arrives
\c node2
SET bdr.ddl_replication = off; SET client_min_messages = error;
CREATE FUNCTION dml_mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := NEW.v || ' by ' || TG_OP; RETURN NEW; END $$;
CREATE TRIGGER dml_mark BEFORE INSERT OR UPDATE ON dml FOR EACH ROW EXECUTE FUNCTION dml_mark();
ALTER TABLE dml ALTER n SET DEFAULT 99;
\c node1
INSERT INTO dml (k, v) VALUES (200, 'from one');
SELECT bdr.wait_slot_confirm_lsn();
\c node2
INSERT INTO dml (k, v) VALUES (201, 'from two');
SELECT * FROM dml WHERE k >= 200 ORDER BY k;
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SELECT * FROM dml WHERE k >= 200 ORDER BY k;
\c node2
SET bdr.ddl_replication = off; SET client_min_messages = error;
DROP TRIGGER dml_mark ON dml;
DROP FUNCTION dml_mark;

-- a table that is written by both sides, and changes that change nothing
UPDATE dml SET v = v;
DELETE FROM dml WHERE false;
SELECT bdr.wait_slot_confirm_lsn();
\c node1
UPDATE dml SET k = k;
DELETE FROM dml_two;
SELECT bdr.wait_slot_confirm_lsn();
SELECT count(*), md5(string_agg(dml::text, ',' ORDER BY k)) AS content FROM dml \gset one_
\c node2
SELECT count(*) = :one_count AS same_count, md5(string_agg(dml::text, ',' ORDER BY k)) = :'one_content' AS same_content FROM dml;
SELECT nmissing, nconflict FROM bdr.stat_subscription;
