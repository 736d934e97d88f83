-- The roles that come with bdr: what their members can read and do, as they find it.

SET bdr.ddl_replication = off; SET client_min_messages = error;
CREATE FUNCTION may(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'yes';
EXCEPTION WHEN insufficient_privilege THEN
	RETURN SQLERRM;
END $$;
CREATE ROLE regress_nobody;
CREATE ROLE regress_stats IN ROLE bdr_read_all_stats;
CREATE ROLE regress_monitor IN ROLE bdr_monitor;
CREATE ROLE regress_application IN ROLE bdr_application;
CREATE ROLE regress_conflicts IN ROLE bdr_read_all_conflicts;
CREATE ROLE regress_admin IN ROLE bdr_superuser;
-- What there is to read and to call
CREATE VIEW relations AS SELECT relname AS name, format('SELECT * FROM %s', oid::regclass) AS statement
	FROM pg_class WHERE relnamespace = 'bdr'::regnamespace AND relkind IN ('r', 'v', 'm', 'p') AND NOT relispartition;
-- unlogged: not replicated
CREATE UNLOGGED TABLE calls (name text PRIMARY KEY, statement text);
INSERT INTO calls VALUES
	('bdr_version', 'SELECT bdr.bdr_version()'), ('bdr_version_num', 'SELECT bdr.bdr_version_num()'), ('bdr_edition', 'SELECT bdr.bdr_edition()'),
	('peer_state_name', 'SELECT bdr.peer_state_name(1)'), ('show_subscription_status', 'SELECT bdr.show_subscription_status()'),
	('show_workers', 'SELECT bdr.show_workers()'), ('local_group_slot_name', 'SELECT bdr.local_group_slot_name()'),
	('wait_slot_confirm_lsn', 'SELECT bdr.wait_slot_confirm_lsn(NULL, ''0/1'')'), ('wait_for_apply_queue', 'SELECT bdr.wait_for_apply_queue(''two'', ''0/1'')'),
	('wait_for_join_completion', 'SELECT bdr.wait_for_join_completion()'), ('check_settings', 'SELECT bdr.check_settings()'),
	('alter_subscription_enable', 'SELECT bdr.alter_subscription_enable()'), ('alter_node_interface', 'UPDATE bdr.node_interface SET if_dsn = if_dsn'),
	('internal_peer_call', 'SELECT bdr.internal_peer_call(''describe'', NULL)'), ('internal_fetch_begin', 'SELECT bdr.internal_fetch_begin(''x'')'),
	('internal_fetch_rows', 'SELECT bdr.internal_fetch_rows(''x'', 0, -1)'), ('boundary_test', 'SELECT bdr.boundary_test(''ok'')'),
	('internal_session', 'SET LOCAL bdr.internal_session = on'), ('synchronous_commit', 'SET LOCAL bdr.synchronous_commit = on');
GRANT SELECT ON calls, relations TO PUBLIC;

SET ROLE regress_nobody;
SELECT may, string_agg(name, ', ' ORDER BY name COLLATE "C") FROM relations, may(statement) GROUP BY 1 ORDER BY 1;
SELECT may, string_agg(name, ', ' ORDER BY name COLLATE "C") FROM calls, may(statement) GROUP BY 1 ORDER BY 1;
SET ROLE regress_stats;
SELECT may, string_agg(name, ', ' ORDER BY name COLLATE "C") FROM relations, may(statement) GROUP BY 1 ORDER BY 1;
SELECT may, string_agg(name, ', ' ORDER BY name COLLATE "C") FROM calls, may(statement) GROUP BY 1 ORDER BY 1;
SET ROLE regress_monitor;
SELECT string_agg(name, ', ' ORDER BY name COLLATE "C") FROM relations WHERE may(statement) = 'yes';
SELECT string_agg(name, ', ' ORDER BY name COLLATE "C") FROM calls WHERE may(statement) = 'yes';
SET ROLE regress_application;
SELECT string_agg(name, ', ' ORDER BY name COLLATE "C") FROM relations WHERE may(statement) = 'yes';
SELECT string_agg(name, ', ' ORDER BY name COLLATE "C") FROM calls WHERE may(statement) = 'yes';
SET ROLE regress_conflicts;
SELECT string_agg(name, ', ' ORDER BY name COLLATE "C") FROM relations WHERE may(statement) = 'yes';
SELECT string_agg(name, ', ' ORDER BY name COLLATE "C") FROM calls WHERE may(statement) = 'yes';
SET ROLE regress_admin;
SELECT name, may FROM relations, may(statement) WHERE may <> 'yes';
SELECT name, may FROM calls, may(statement) WHERE may <> 'yes' ORDER BY 1;
RESET ROLE;

-- What monitoring shows is not less than what a superuser sees.
SELECT count(*) AS subscriptions, max(subscription_status) FROM bdr.subscription_summary;
SET ROLE regress_stats;
SELECT count(*) AS subscriptions, max(subscription_status) FROM bdr.subscription_summary;
SELECT node_name, interface_connstr IS NOT NULL AS has_connstr FROM bdr.node_summary ORDER BY 1;
SELECT slot_name, active FROM bdr.node_slots WHERE NOT is_group_slot;
SELECT worker_role_name FROM bdr.workers ORDER BY 1;
SELECT bdr.local_group_slot_name();
RESET ROLE;

-- Passwords of connection strings are shown to nobody by views; only who manages nodes reads them in the catalog.
BEGIN;
UPDATE bdr.node_interface SET if_dsn = 'host=h dbname=d password=''very secret'' sslpassword=hidden' WHERE node_id = 2;
UPDATE bdr.join_state SET target_dsn = 'postgresql://user:secret@h/d?password=secret';
INSERT INTO bdr.join_state (step, reached, target_dsn, synchronize_structure, join_token)
	SELECT 'failed', 'failed', 'postgresql://user:secret@h/d?password=secret', 'all', 'token' WHERE NOT EXISTS (SELECT FROM bdr.join_state);
SELECT interface_connstr FROM bdr.node_summary WHERE node_name = 'two';
SELECT join_target_connstr FROM bdr.join_progress;
SET ROLE regress_monitor;
SELECT interface_connstr FROM bdr.node_summary WHERE node_name = 'two';
SELECT join_target_connstr FROM bdr.join_progress;
RESET ROLE;
ROLLBACK;

-- Rows of a user's own table replicate whoever the user is, and whatever rights the user has on the other node.
GRANT CREATE ON SCHEMA public TO regress_nobody;
\c node2
SET bdr.ddl_replication = off; SET client_min_messages = error;
GRANT CREATE ON SCHEMA public TO regress_nobody;
SET ROLE regress_nobody;
CREATE TABLE roles_own (id int PRIMARY KEY, v text);
RESET ROLE;
ALTER TABLE roles_own OWNER TO regress_admin;
ALTER TABLE roles_own ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
\c node1
SET bdr.ddl_replication = off; SET client_min_messages = error;
SET ROLE regress_nobody;
CREATE TABLE roles_own (id int PRIMARY KEY, v text);
INSERT INTO roles_own VALUES (1, 'one');
RESET ROLE;
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SET bdr.ddl_replication = off; SET client_min_messages = error;
SELECT * FROM roles_own;
DROP TABLE roles_own;
REVOKE CREATE ON SCHEMA public FROM regress_nobody;
\c node1
SET bdr.ddl_replication = off; SET client_min_messages = error;
DROP TABLE roles_own;
REVOKE CREATE ON SCHEMA public FROM regress_nobody;
DROP VIEW relations;
DROP TABLE calls;
DROP FUNCTION may;
DROP ROLE regress_nobody, regress_stats, regress_monitor, regress_application, regress_conflicts, regress_admin;
