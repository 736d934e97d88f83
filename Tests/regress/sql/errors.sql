-- Bad input: an error with its SQLSTATE and the way out, and nothing is changed.

CREATE TABLE before AS SELECT (SELECT count(*) FROM bdr.node) AS nodes, (SELECT count(*) FROM bdr.subscription) AS subscriptions,
	(SELECT count(*) FROM pg_replication_slots) AS slots, (SELECT count(*) FROM pg_replication_origin) AS origins,
	(SELECT count(*) FROM bdr.state_journal) AS journal, (SELECT string_agg(if_dsn, ',' ORDER BY if_id) FROM bdr.node_interface) AS dsn;
\set VERBOSITY verbose
-- The SQLSTATE is shown by \errverbose-like output; the line of the source is not.
CREATE FUNCTION try(statement text, OUT code text, OUT message text, OUT detail text, OUT hint text)
	LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	message := 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
		hint = PG_EXCEPTION_HINT;
END $$;
\x on
-- arguments
SELECT * FROM try($$SELECT bdr.create_node(NULL, 'dbname=x')$$);
SELECT * FROM try($$SELECT bdr.create_node('n', NULL)$$);
SELECT * FROM try($$SELECT bdr.create_node('Upper', 'dbname=x')$$);
SELECT * FROM try($$SELECT bdr.create_node('n', 'not a dsn')$$);
SELECT * FROM try($$SELECT bdr.create_node('n', '')$$);
SELECT * FROM try($$SELECT bdr.create_node('n', 'dbname=x', 'witness')$$);
SELECT * FROM try($$SELECT bdr.create_node('n', 'dbname=x', 'teapot')$$);
SELECT * FROM try($$SELECT bdr.create_node_group(NULL)$$);
SELECT * FROM try($$SELECT bdr.create_node_group('Bad Group')$$);
SELECT * FROM try($$SELECT bdr.create_node_group('g', parent_group_name := 'p')$$);
SELECT * FROM try($$SELECT bdr.create_node_group('g', join_node_group := false)$$);
SELECT * FROM try($$SELECT bdr.create_node_group('g', node_group_type := 'subscriber-only')$$);
SELECT * FROM try($$SELECT bdr.create_node_group('g', node_group_type := 'teapot')$$);
SELECT * FROM try($$SELECT bdr.join_node_group(NULL)$$);
SELECT * FROM try($$SELECT bdr.join_node_group('dbname=x', pause_in_standby := true)$$);
SELECT * FROM try($$SELECT bdr.join_node_group('dbname=x', synchronize_structure := 'half')$$);
-- in the wrong state
SELECT * FROM try($$SELECT bdr.create_node('another', 'dbname=node1')$$);
SELECT * FROM try($$SELECT bdr.create_node_group('another')$$);
SELECT * FROM try($$SELECT bdr.join_node_group('dbname=node2')$$);
SELECT * FROM try($$SELECT bdr.part_node('nobody')$$);
SELECT * FROM try($$SELECT bdr.part_node('one')$$);
SELECT * FROM try($$SELECT bdr.drop_node('two')$$);
SELECT * FROM try($$SELECT bdr.drop_node('one')$$);
SELECT * FROM try($$SELECT bdr.drop_node('nobody')$$);
SELECT * FROM try($$SELECT bdr.alter_node_interface('nobody', 'dbname=x')$$);
SELECT * FROM try($$SELECT bdr.alter_node_interface('two', 'x y')$$);
SELECT * FROM try($$SELECT bdr.wait_slot_confirm_lsn('no_such_slot')$$);
SELECT * FROM try($$SELECT bdr.wait_for_apply_queue('nobody', NULL)$$);
SELECT * FROM try($$SELECT bdr.alter_subscription_disable('no_such_subscription')$$);
SELECT * FROM try($$SELECT * FROM bdr.internal_peer_call('no_such_call', 'x')$$);
\x off
-- an ordinary user
CREATE ROLE regress_nobody;
SET ROLE regress_nobody;
\set VERBOSITY terse
SELECT bdr.create_node('n', 'dbname=x');
SELECT * FROM bdr.node_interface;
SELECT bdr.part_node('two');
SELECT * FROM bdr.internal_peer_call('describe');
SELECT bdr.boundary_test('ok');
SET bdr.internal_session = on;
RESET ROLE;
DROP ROLE regress_nobody;
-- nothing of it left a trace
SELECT b.nodes = (SELECT count(*) FROM bdr.node) AND b.subscriptions = (SELECT count(*) FROM bdr.subscription)
	AND b.slots = (SELECT count(*) FROM pg_replication_slots) AND b.origins = (SELECT count(*) FROM pg_replication_origin)
	AND b.journal = (SELECT count(*) FROM bdr.state_journal) AND b.dsn = (SELECT string_agg(if_dsn, ',' ORDER BY if_id) FROM bdr.node_interface)
	AS unchanged FROM before b;
DROP TABLE before;
DROP FUNCTION try;
