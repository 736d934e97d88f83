-- How a row is found: primary key, another unique index, the whole row; and what is refused where it can't be.

SET bdr.ddl_replication = off; SET client_min_messages = error;
\set VERBOSITY verbose
CREATE TABLE by_index (a int NOT NULL, b text NOT NULL, c text);
CREATE UNIQUE INDEX by_index_key ON by_index (b, a);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_key;
CREATE TABLE whole (a int, b text, c numeric);
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE keyless (a int, b text);
CREATE TABLE nothing (a int PRIMARY KEY, b text);
ALTER TABLE nothing REPLICA IDENTITY NOTHING;
CREATE TABLE deferred (a int PRIMARY KEY DEFERRABLE, b text);
\c node2
SET bdr.ddl_replication = off; SET client_min_messages = error;
CREATE TABLE by_index (c text, a int NOT NULL, b text NOT NULL);
CREATE UNIQUE INDEX by_index_key ON by_index (b, a);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_key;
CREATE TABLE whole (b text, c numeric, a int);
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE keyless (a int, b text);
CREATE TABLE nothing (a int PRIMARY KEY, b text);
ALTER TABLE nothing REPLICA IDENTITY NOTHING;
CREATE TABLE deferred (a int PRIMARY KEY DEFERRABLE, b text);

\c node1
INSERT INTO by_index VALUES (1, 'x', 'c1'), (2, 'x', 'c2'), (1, 'y', 'c3');
UPDATE by_index SET c = 'changed' WHERE a = 1 AND b = 'x';
UPDATE by_index SET a = 20 WHERE a = 2;
DELETE FROM by_index WHERE b = 'y';
INSERT INTO whole VALUES (1, 'twin', 1.0), (1, 'twin', 1.0), (2, NULL, NULL), (3, 'three', 3);
UPDATE whole SET b = 'two' WHERE a = 2;
DELETE FROM whole WHERE a = 3;
-- one of two equal rows
DELETE FROM whole WHERE ctid = (SELECT min(ctid) FROM whole WHERE b = 'twin');
INSERT INTO keyless VALUES (1, 'one'), (1, 'one'), (NULL, NULL);
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT a, b, c FROM by_index ORDER BY b, a;
SELECT a, b, c FROM whole ORDER BY a;
SELECT * FROM keyless ORDER BY a;
UPDATE whole SET c = c + 1 WHERE b = 'twin';
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SET bdr.ddl_replication = off; SET client_min_messages = error;
SELECT * FROM whole ORDER BY a;

-- Refused where it is written, as for tables in a publication.
\set VERBOSITY default
UPDATE keyless SET b = 'x';
DELETE FROM keyless;
WITH gone AS (DELETE FROM keyless RETURNING 1) SELECT count(*) FROM gone;
MERGE INTO keyless k USING (VALUES (1)) v(a) ON k.a = v.a WHEN MATCHED THEN DELETE;
UPDATE nothing SET b = 'x';
INSERT INTO nothing VALUES (1, 'one') ON CONFLICT (a) DO UPDATE SET b = 'again';
DELETE FROM deferred;
DO $$ BEGIN DELETE FROM keyless; END $$;
-- What can be done all the same.
EXPLAIN (COSTS OFF) DELETE FROM keyless;
INSERT INTO nothing VALUES (1, 'one') ON CONFLICT (a) DO NOTHING;
TRUNCATE keyless;
ALTER TABLE keyless REPLICA IDENTITY FULL;
INSERT INTO keyless VALUES (7, 'seven');
UPDATE keyless SET b = 'can be found now';
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SET bdr.ddl_replication = off; SET client_min_messages = error;
SELECT * FROM keyless;
SELECT * FROM nothing;
DROP TABLE by_index, whole, keyless, nothing, deferred;
\c node1
SET bdr.ddl_replication = off; SET client_min_messages = error;
DROP TABLE by_index, whole, keyless, nothing, deferred;
