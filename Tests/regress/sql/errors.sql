-- Bad input: an error with its SQLSTATE and the way out, and nothing is changed.

SELECT format('host=%s dbname=', current_setting('unix_socket_directories')) AS server \gset
-- What an error says, without what differs from one run to the next.
CREATE FUNCTION try(statement text, OUT code text, OUT message text, OUT detail text, OUT hint text)
	LANGUAGE plpgsql AS $$
DECLARE
	server text := format('host=%s port=%s user=regress dbname=', current_setting('unix_socket_directories'), current_setting('port'));
BEGIN
	EXECUTE replace(statement, 'SERVER', server);
	message := 'no error';
EXCEPTION WHEN OTHERS OR query_canceled THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
		hint = PG_EXCEPTION_HINT;
	message := regexp_replace(message, '"[^"]*/\.s\.PGSQL\.\d+"', '"SOCKET"');
END $$;
-- What bdr has made so far.
CREATE FUNCTION all_of_it() RETURNS text LANGUAGE sql AS $$
	SELECT md5(concat_ws(E'\n',
		(SELECT string_agg(n::text, ',' ORDER BY node_id) FROM bdr.node n),
		(SELECT string_agg(g::text, ',' ORDER BY node_group_id) FROM bdr.node_group g),
		(SELECT string_agg(i::text, ',' ORDER BY if_id) FROM bdr.node_interface i),
		(SELECT string_agg(l::text, ',' ORDER BY node_id) FROM bdr.node_local_info l),
		(SELECT string_agg(s::text, ',' ORDER BY pgl_subscription_id) FROM bdr.subscription s),
		(SELECT string_agg(j::text, ',' ORDER BY node_id, state_counter) FROM bdr.state_journal j),
		(SELECT string_agg(j::text, ',') FROM bdr.join_state j),
		(SELECT string_agg(p::text, ',') FROM bdr.part_state p),
		(SELECT string_agg(slot_name, ',' ORDER BY slot_name) FROM pg_replication_slots),
		(SELECT string_agg(roname, ',' ORDER BY roname) FROM pg_replication_origin))) $$;
SELECT all_of_it() AS before \gset

\x on
-- null where a value is needed
SELECT * FROM try($$SELECT bdr.create_node(NULL, 'dbname=x')$$);
SELECT * FROM try($$SELECT bdr.create_node('n', NULL)$$);
SELECT * FROM try($$SELECT bdr.create_node_group(NULL)$$);
SELECT * FROM try($$SELECT bdr.create_node_group('g', join_node_group := NULL)$$);
SELECT * FROM try($$SELECT bdr.join_node_group(NULL)$$);
SELECT * FROM try($$SELECT bdr.join_node_group('dbname=x', pause_in_standby := NULL)$$);
SELECT * FROM try($$SELECT bdr.join_node_group('dbname=x', wait_for_completion := NULL)$$);
SELECT * FROM try($$SELECT bdr.join_node_group('dbname=x', synchronize_structure := NULL)$$);
SELECT * FROM try($$SELECT bdr.wait_for_join_completion(NULL)$$);
SELECT * FROM try($$SELECT bdr.part_node(NULL)$$);
SELECT * FROM try($$SELECT bdr.part_node('two', wait_for_completion := NULL)$$);
SELECT * FROM try($$SELECT bdr.part_node('two', force := NULL)$$);
SELECT * FROM try($$SELECT bdr.drop_node(NULL)$$);
SELECT * FROM try($$SELECT bdr.drop_node('two', cascade := NULL)$$);
SELECT * FROM try($$SELECT bdr.drop_node('two', force := NULL)$$);
SELECT * FROM try($$SELECT bdr.alter_node_interface(NULL, 'dbname=x')$$);
SELECT * FROM try($$SELECT bdr.alter_node_interface('two', NULL)$$);
SELECT * FROM try($$SELECT bdr.alter_subscription_enable(immediate := NULL)$$);
SELECT * FROM try($$SELECT bdr.alter_subscription_disable(immediate := NULL)$$);
SELECT * FROM try($$SELECT bdr.internal_object_name(NULL, 'd', 'g', NULL, NULL)$$);
SELECT * FROM try($$SELECT bdr.internal_object_name('slot', 'd', 'g', 'o', NULL)$$);
SELECT * FROM try($$SELECT * FROM bdr.internal_peer_call(NULL, 'x')$$);
SELECT * FROM try($$SELECT * FROM bdr.internal_peer_call('lock', NULL, NULL)$$);
SELECT * FROM try($$SELECT * FROM bdr.internal_peer_call('reserve', VARIADIC NULL::text[])$$);
-- names
SELECT * FROM try($$SELECT bdr.create_node('', 'dbname=x')$$);
SELECT * FROM try($$SELECT bdr.create_node('Upper', 'dbname=x')$$);
SELECT * FROM try($$SELECT bdr.create_node('with space', 'dbname=x')$$);
SELECT * FROM try($$SELECT bdr.create_node('knoten-ü', 'dbname=x')$$);
SELECT * FROM try($$SELECT bdr.create_node(E'new\nline', 'dbname=x')$$);
SELECT * FROM try($$SELECT bdr.create_node(E'quo\'te', 'dbname=x')$$);
SELECT * FROM try($$SELECT bdr.create_node('none', 'dbname=x')$$);
SELECT * FROM try($$SELECT bdr.create_node(repeat('n', 64), 'dbname=x')$$);
SELECT * FROM try($$SELECT bdr.create_node(repeat('N', 1000000), 'dbname=x')$$);
SELECT * FROM try($$SELECT bdr.create_node_group('')$$);
SELECT * FROM try($$SELECT bdr.create_node_group('Bad Group')$$);
SELECT * FROM try($$SELECT bdr.create_node_group('no-hyphens')$$);
SELECT * FROM try($$SELECT bdr.create_node_group('any')$$);
SELECT * FROM try($$SELECT bdr.create_node_group(repeat('g', 64))$$);
-- connection strings: never repeated, as they may contain passwords
SELECT * FROM try($$SELECT bdr.create_node('n', 'secret')$$);
SELECT * FROM try($$SELECT bdr.create_node('n', '')$$);
SELECT * FROM try($$SELECT bdr.create_node('n', '   ')$$);
SELECT * FROM try($$SELECT bdr.create_node('n', 'password=''secret')$$);
SELECT * FROM try($$SELECT bdr.create_node('n', 'pasword=secret host=h')$$);
SELECT * FROM try($$SELECT bdr.create_node('n', 'postgresql://u:secret@[::1/d')$$);
SELECT * FROM try($$SELECT bdr.create_node('n', 'postgresql://u:secret%zz@h/d')$$);
SELECT * FROM try($$SELECT bdr.join_node_group('secret')$$);
SELECT * FROM try($$SELECT bdr.alter_node_interface('two', 'secret')$$);
SELECT * FROM try($$SELECT bdr.alter_node_interface('two', '')$$);
SELECT * FROM try($$SELECT bdr.check_settings('secret')$$);
-- what later versions may support, and what none will
SELECT * FROM try($$SELECT bdr.create_node('n', 'dbname=x', 'witness')$$);
SELECT * FROM try($$SELECT bdr.create_node('n', 'dbname=x', node_kind := 'standby')$$);
SELECT * FROM try($$SELECT bdr.create_node('n', 'dbname=x', 'teapot')$$);
SELECT * FROM try($$SELECT bdr.create_node_group('g', parent_group_name := 'p')$$);
SELECT * FROM try($$SELECT bdr.create_node_group('g', join_node_group := false)$$);
SELECT * FROM try($$SELECT bdr.create_node_group('g', node_group_type := 'subscriber-only')$$);
SELECT * FROM try($$SELECT bdr.create_node_group('g', node_group_type := 'teapot')$$);
SELECT * FROM try($$SELECT bdr.join_node_group('dbname=x', synchronize_structure := 'half')$$);
SELECT * FROM try($$SELECT * FROM bdr.internal_peer_call('no_such_call', 'x')$$);
SELECT * FROM try($$SELECT bdr.internal_object_name('teapot', 'd', 'g', 'o', 't')$$);
SELECT * FROM try($$SELECT bdr.boundary_test('teapot')$$);
-- in the wrong state, or about somebody who is not there
SELECT * FROM try($$SELECT bdr.create_node('another', 'dbname=node1')$$);
SELECT * FROM try($$SELECT bdr.create_node_group('another')$$);
SELECT * FROM try($$SELECT bdr.join_node_group('dbname=node2')$$);
SELECT * FROM try($$SELECT bdr.part_node('nobody')$$);
SELECT * FROM try($$SELECT bdr.part_node('one')$$);
SELECT * FROM try($$SELECT bdr.drop_node('two')$$);
SELECT * FROM try($$SELECT bdr.drop_node('one')$$);
SELECT * FROM try($$SELECT bdr.drop_node('nobody')$$);
SELECT * FROM try($$SELECT bdr.alter_node_interface('nobody', 'dbname=x')$$);
SELECT * FROM try($$SELECT bdr.wait_slot_confirm_lsn('no_such_slot')$$);
SELECT * FROM try($$SELECT bdr.wait_for_apply_queue('nobody', NULL)$$);
SELECT * FROM try($$SELECT bdr.wait_for_apply_queue('one', NULL)$$);
SELECT * FROM try($$SELECT bdr.alter_subscription_enable('no_such_subscription')$$);
SELECT * FROM try($$SELECT bdr.alter_subscription_disable('no_such_subscription')$$);
SELECT bdr.peer_state_name(4711);
-- nonsense from another node
SELECT * FROM try($$SELECT * FROM bdr.internal_peer_call('lock', 'token', 'Bad Name')$$);
SELECT * FROM try($$SELECT * FROM bdr.internal_peer_call('lock', 'token', 'two')$$);
SELECT * FROM try($$SELECT * FROM bdr.internal_peer_call('reserve', 'no such token', 'three', 'dbname=x', 'node3', '3')$$);
SELECT * FROM try($$SELECT * FROM bdr.internal_peer_call('subscribe', 'no such token', 'slot')$$);
SELECT * FROM try($$SELECT * FROM bdr.internal_peer_call('promote', 'no such token')$$);
SELECT * FROM try($$SELECT * FROM bdr.internal_peer_call('confirmed', 'no such slot', 'no position')$$);
SELECT * FROM try($$SELECT * FROM bdr.internal_peer_call('check_back', 'secret', '1', '2', '3')$$);
SELECT * FROM try($$SELECT * FROM bdr.internal_peer_call('check_back', 'SERVERnode2', '1', '2', '3')$$);
SELECT * FROM try($$SELECT * FROM bdr.internal_peer_call('begin_join', 'dbname=x', 'all')$$);
SELECT * FROM try($$SELECT * FROM bdr.internal_peer_call('begin_part', 'nobody', 'f')$$);
-- waiting ends with the statement's time
SET statement_timeout = '200ms';
SELECT * FROM try($$SELECT bdr.wait_slot_confirm_lsn(NULL, 'FFFFFFFF/FFFFFFFF')$$);
SELECT * FROM try($$SELECT bdr.wait_for_apply_queue('two', 'FFFFFFFF/FFFFFFFF')$$);
RESET statement_timeout;
-- in a transaction that may not, or must not, have written
BEGIN READ ONLY;
SELECT * FROM try($$SELECT bdr.alter_subscription_disable()$$);
SELECT * FROM try($$SELECT bdr.alter_node_interface('two', 'dbname=x')$$);
ROLLBACK;
BEGIN;
CREATE TEMP TABLE written ();
SELECT * FROM try($$SELECT bdr.part_node('two')$$);
ROLLBACK;
-- settings
SELECT * FROM try($$SET bdr.synchronous_commit = 'sometimes'$$);
SELECT * FROM try($$SET bdr.decoding_work_mem = '1kB'$$);
SELECT * FROM try($$SET bdr.max_databases = 3$$);
SELECT * FROM try($$SET bdr.min_worker_backoff_delay = '-1'$$);
SELECT * FROM try($$SET bdr.no_such_setting = 1$$);
\x off
-- slots that are not bdr's are not touched
SELECT slot_name FROM pg_create_logical_replication_slot('regress_foreign', 'pgoutput');
SELECT code, message FROM try($$SELECT * FROM bdr.internal_peer_call('drop_slot', 'regress_foreign')$$);
SELECT code, message FROM try($$SELECT bdr.wait_slot_confirm_lsn('regress_foreign')$$);
SELECT pg_drop_replication_slot('regress_foreign');
-- nothing of it left a trace
SELECT all_of_it() = :'before' AS unchanged;

-- A database that is not a node, then a node without a group
SET client_min_messages = warning;
DROP DATABASE IF EXISTS node3;
DROP DATABASE IF EXISTS "Node 4";
RESET client_min_messages;
CREATE DATABASE node3;
SELECT format('CREATE FUNCTION try(statement text, OUT code text, OUT message text, OUT detail text, OUT hint text) LANGUAGE plpgsql AS %L',
	prosrc) AS create_try FROM pg_proc WHERE proname = 'try' \gset
\c node3
CREATE EXTENSION bdr;
CREATE SCHEMA try;
ALTER EXTENSION bdr ADD SCHEMA try;
SET search_path = try, public;
:create_try;
ALTER EXTENSION bdr ADD FUNCTION try;
\x on
SELECT * FROM try($$SELECT bdr.create_node_group('g')$$);
SELECT * FROM try($$SELECT bdr.join_node_group('dbname=node1')$$);
SELECT * FROM try($$SELECT bdr.wait_for_join_completion()$$);
SELECT * FROM try($$SELECT bdr.part_node('one')$$);
SELECT * FROM try($$SELECT bdr.drop_node('one')$$);
SELECT * FROM try($$SELECT bdr.alter_node_interface('one', 'dbname=x')$$);
SELECT * FROM try($$SELECT bdr.alter_subscription_enable()$$);
SELECT * FROM try($$SELECT bdr.alter_subscription_disable()$$);
SELECT * FROM try($$SELECT bdr.wait_for_apply_queue('one', NULL)$$);
SELECT * FROM try($$SELECT bdr.wait_for_apply_queue(NULL, NULL)$$);
SELECT * FROM try($$SELECT bdr.wait_slot_confirm_lsn()$$);
SELECT * FROM try($$SELECT * FROM bdr.internal_peer_call('lock', 'token', 'name')$$);
-- create_node: where the connection string leads
SELECT * FROM try($$SELECT bdr.create_node('three', 'SERVERnode1')$$);
SELECT * FROM try($$SELECT bdr.create_node('three', 'SERVERno_such_database')$$);
SELECT * FROM try($$SELECT bdr.create_node('three', 'SERVERnode3 user=regress_no_such_role')$$);
SELECT * FROM try($$SELECT bdr.create_node('three', 'SERVERnode3 host=/nonexistent')$$);
CREATE ROLE regress_plain LOGIN;
SELECT * FROM try($$SELECT bdr.create_node('three', 'SERVERnode3 user=regress_plain')$$);
ALTER ROLE regress_plain REPLICATION;
SELECT * FROM try($$SELECT bdr.create_node('three', 'SERVERnode3 user=regress_plain')$$);
DROP ROLE regress_plain;
BEGIN READ ONLY;
SELECT * FROM try($$SELECT bdr.create_node('three', 'SERVERnode3')$$);
ROLLBACK;
\x off
SELECT count(*) AS nodes, (SELECT count(*) FROM bdr.node_interface) AS interfaces FROM bdr.node;
SELECT name, status FROM bdr.check_settings('host=/nonexistent') WHERE name LIKE '%dsn%';
SET client_min_messages = warning;
SELECT bdr.create_node(repeat('n', 63), :'server' || 'node3 user=regress');
RESET client_min_messages;
SELECT bdr.drop_node(repeat('n', 63));
SELECT count(*) AS nodes, (SELECT count(*) FROM bdr.local_node) AS local FROM bdr.node;
SELECT bdr.create_node('three', :'server' || 'node3 user=regress');
\x on
SELECT * FROM try($$SELECT bdr.create_node('four', 'SERVERnode3')$$);
SELECT * FROM try($$SELECT bdr.wait_for_join_completion()$$);
SELECT * FROM try($$SELECT bdr.part_node('three')$$);
SELECT * FROM try($$SELECT bdr.part_node('one')$$);
SELECT * FROM try($$SELECT bdr.alter_subscription_disable('none')$$);
-- join_node_group: where it leads
SELECT * FROM try($$SELECT bdr.join_node_group('SERVERno_such_database')$$);
SELECT * FROM try($$SELECT bdr.join_node_group('SERVERnode1 host=/nonexistent')$$);
SELECT * FROM try($$SELECT bdr.join_node_group('SERVERnode1 user=regress_no_such_role')$$);
SELECT * FROM try($$SELECT bdr.join_node_group('SERVERnode3')$$);
SELECT * FROM try($$SELECT bdr.join_node_group('SERVERpostgres')$$);
SELECT * FROM try($$SELECT bdr.join_node_group('SERVERnode1', 'another_group')$$);
-- a target that is no node, one without a group
\x off
CREATE DATABASE "Node 4";
\c "Node 4"
CREATE EXTENSION bdr;
\c node3
SET search_path = try, public;
\x on
SELECT * FROM try($$SELECT bdr.join_node_group('SERVER''Node 4''')$$);
\x off
\c "Node 4"
SET client_min_messages = warning;
SELECT bdr.create_node('four', :'server' || '''Node 4'' user=regress');
RESET client_min_messages;
\c node3
SET search_path = try, public;
\x on
SELECT * FROM try($$SELECT bdr.join_node_group('SERVER''Node 4''')$$);
-- this side: not empty, or not the same tables; a name that is taken; in a transaction that has written
CREATE TABLE public.in_the_way ();
CREATE FUNCTION public.in_the_way() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE TYPE public.in_the_way_too AS ENUM ();
SELECT * FROM try($$SELECT bdr.join_node_group('SERVERnode1')$$);
DROP TABLE public.in_the_way;
DROP FUNCTION public.in_the_way;
DROP TYPE public.in_the_way_too;
SELECT * FROM try($$SELECT bdr.join_node_group('SERVERnode1', synchronize_structure := 'none')$$);
BEGIN;
CREATE TEMP TABLE written ();
SELECT * FROM try($$SELECT bdr.join_node_group('SERVERnode1')$$);
ROLLBACK;
\x off
SELECT node_name, peer_state_name, node_group_name FROM bdr.node_summary;
SELECT count(*) AS joins FROM bdr.join_state;
SELECT count(*) AS slots FROM pg_replication_slots WHERE database = current_database();
SELECT bdr.drop_node('three');
SELECT bdr.create_node('two', :'server' || 'node3 user=regress');
\x on
SELECT * FROM try($$SELECT bdr.join_node_group('SERVERnode1')$$);
\x off
\c node1
SELECT all_of_it() = :'before' AS unchanged;
-- Databases of nodes can be dropped like any other.
DROP DATABASE node3;
DROP DATABASE "Node 4";
DROP FUNCTION all_of_it, try;
SELECT bdr.wait_slot_confirm_lsn();
SELECT count(*) AS errors FROM bdr.worker_errors;
