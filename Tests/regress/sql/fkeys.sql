-- Triggers that set foreign keys to NULL whose row is gone.

SET bdr.ddl_replication = off; SET client_min_messages = error;
\getenv abs_srcdir PG_ABS_SRCDIR
\set apart :abs_srcdir '/include/apart.sql'
\set tables :abs_srcdir '/include/fkeys.sql'
\i :apart
\i :tables
\c node2
SET bdr.ddl_replication = off; SET client_min_messages = error;
\i :apart
\i :tables

-- What can't be.
SELECT bdr.ri_fkey_trigger();
CREATE TRIGGER wrong AFTER INSERT ON fk_child FOR EACH ROW EXECUTE FUNCTION bdr.ri_fkey_trigger();
INSERT INTO fk_child (id) VALUES (100);
DROP TRIGGER wrong ON fk_child;
CREATE TRIGGER wrong BEFORE INSERT ON fk_child FOR EACH ROW EXECUTE FUNCTION bdr.ri_fkey_on_del_trigger();
INSERT INTO fk_child (id) VALUES (100);
DROP TRIGGER wrong ON fk_child;

-- Rows that are there.
\c node1
INSERT INTO fk_parent SELECT i, i * 10, 'p' || i FROM generate_series(1, 9) i;
INSERT INTO fk_parts SELECT i FROM generate_series(1, 9) i;
INSERT INTO fk_self VALUES (1, NULL), (2, 1), (3, 3), (4, 3);
INSERT INTO fk_self_parts VALUES (1, NULL), (2, 1), (3, 3), (4, 3);
SELECT bdr.wait_slot_confirm_lsn();
\c node2
TABLE fk_all;

-- One node deletes rows to which the other one refers meanwhile: both come to the same.
CALL apart();
\c node1
CALL apart();
DELETE FROM fk_parent WHERE a IN (1, 2, 3);
DELETE FROM fk_parts WHERE id IN (1, 2);
DELETE FROM fk_self WHERE id IN (3, 4);
DELETE FROM fk_self_parts WHERE id IN (3, 4);
\c node2
-- all columns, and a reference that is none, as a part is NULL
INSERT INTO fk_child VALUES (1, 1, 10), (2, 4, 40), (3, 1, NULL), (4, NULL, 77);
INSERT INTO fk_full VALUES (1, 2, 20), (2, 5, 50), (3, NULL, NULL);
-- only those that can be NULL, or that ON DELETE names
INSERT INTO fk_tenant VALUES (1, 3, 30), (2, 4, 40);
INSERT INTO fk_listed VALUES (1, 3, 30);
-- of another type; partitioned tables; the table itself
INSERT INTO fk_name VALUES (1, 'p1'), (2, 'p5');
INSERT INTO fk_of_parts (id, up) VALUES (1, 1), (2, 2), (3, 3), (4, NULL), (5, 2);
INSERT INTO fk_self VALUES (5, 3), (6, 6), (7, 1);
UPDATE fk_self SET up = 3 WHERE id = 2;
INSERT INTO fk_self_parts VALUES (5, 3), (6, 6), (7, 1);
UPDATE fk_self_parts SET up = 3 WHERE id = 2;
CALL together();
\c node1
SELECT bdr.wait_slot_confirm_lsn();
CALL together();
\c node2
SELECT bdr.wait_slot_confirm_lsn();
TABLE fk_all;
\c node1
SET bdr.ddl_replication = off; SET client_min_messages = error;
TABLE fk_all;
SELECT count(*) AS errors FROM bdr.worker_errors;

-- For local statements the server sees to it. As in replication:
INSERT INTO fk_child VALUES (10, 77, 77);
SET session_replication_role = replica;
INSERT INTO fk_child VALUES (10, 77, 77), (11, 5, 50);
INSERT INTO fk_full VALUES (10, 5, NULL);
UPDATE fk_child SET a = 78, b = 78 WHERE id = 10;
UPDATE fk_child SET a = 6, b = 60 WHERE id = 11;
INSERT INTO fk_must VALUES (1, 'p5');
INSERT INTO fk_must VALUES (2, 'none');
DELETE FROM fk_parent WHERE a IN (5, 6);
DELETE FROM fk_parent WHERE a = 4;
RESET session_replication_role;
SELECT * FROM fk_all WHERE of IN ('child', 'full', 'name', 'tenant');

-- The other table is read and written as its owner.
CREATE ROLE regress_fk;
CREATE UNLOGGED TABLE fk_private (id int PRIMARY KEY);
INSERT INTO fk_private VALUES (1);
CREATE UNLOGGED TABLE fk_public (id int REFERENCES fk_private);
ALTER TABLE fk_public OWNER TO regress_fk;
CREATE TRIGGER heal BEFORE INSERT ON fk_public FOR EACH ROW EXECUTE FUNCTION bdr.ri_fkey_trigger();
SET ROLE regress_fk;
INSERT INTO fk_public VALUES (1);
INSERT INTO fk_public VALUES (2);
SELECT * FROM fk_private;
RESET ROLE;
TABLE fk_public;
DROP TABLE fk_public, fk_private;
DROP ROLE regress_fk;

SELECT bdr.wait_slot_confirm_lsn();
DROP VIEW fk_all;
DROP TABLE fk_parent, fk_parts, fk_child, fk_full, fk_tenant, fk_listed, fk_name, fk_must, fk_of_parts, fk_self, fk_self_parts;
DROP PROCEDURE apart, together;
\c node2
SET bdr.ddl_replication = off; SET client_min_messages = error;
DROP VIEW fk_all;
DROP TABLE fk_parent, fk_parts, fk_child, fk_full, fk_tenant, fk_listed, fk_name, fk_must, fk_of_parts, fk_self, fk_self_parts;
DROP PROCEDURE apart, together;
TRUNCATE bdr.conflict_history;
