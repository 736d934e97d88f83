-- Errors cross the border between C and Swift in both directions and come out whole; nothing is left behind.
\pset null NULL

-- What an error looks like, without the line of the source that raised it.
CREATE FUNCTION shown(statement text, OUT code text, OUT message text, OUT detail text, OUT hint text)
	LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	message := 'no error';
EXCEPTION WHEN OTHERS OR query_canceled THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
		hint = PG_EXCEPTION_HINT;
END $$;

SELECT bdr.boundary_test('ok');
SELECT bdr.boundary_test('c_error');
SELECT bdr.boundary_test('swift_error');
\set SHOW_CONTEXT always
SELECT bdr.boundary_test('sql');
SELECT bdr.boundary_test('nested');
DO $$ BEGIN PERFORM bdr.boundary_test('swift_error'); END $$;
DO $$ BEGIN PERFORM bdr.boundary_test('c_error'); END $$;
DO $$ BEGIN PERFORM bdr.boundary_test('nested'); END $$;
\set SHOW_CONTEXT errors
SELECT * FROM shown($$SELECT bdr.boundary_test('c_error')$$);
SELECT * FROM shown($$SELECT bdr.boundary_test('swift_error')$$);
SELECT * FROM shown($$SELECT bdr.boundary_test('swift_error', 20)$$);
SELECT * FROM shown($$SELECT bdr.boundary_test('sql')$$);
SELECT * FROM shown($$SELECT bdr.boundary_test('nested')$$);
SELECT * FROM shown($$SELECT bdr.boundary_test('nonsense')$$);

-- Cancelled while waiting, and in the middle of a computation.
SET statement_timeout = '100ms';
SELECT * FROM shown($$SELECT bdr.boundary_test('wait')$$);
SELECT * FROM shown($$SELECT bdr.boundary_test('loop')$$);
RESET statement_timeout;

-- The session goes on, inside and outside of a transaction.
BEGIN;
CREATE TEMP TABLE kept (what text);
SAVEPOINT s;
\set VERBOSITY terse
SELECT bdr.boundary_test('swift_error');
ROLLBACK TO s;
INSERT INTO kept VALUES ('after a Swift error');
SAVEPOINT s2;
SELECT bdr.boundary_test('sql');
ROLLBACK TO s2;
INSERT INTO kept VALUES ('after an SQL error');
COMMIT;
SELECT * FROM kept ORDER BY what;

-- Ended while waiting: the connection goes, the server stays.
SELECT pg_backend_pid() AS pid, pg_postmaster_start_time() AS started \gset
CREATE FUNCTION end_session(dsn text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	deadline timestamptz := clock_timestamp() + interval '30 s';
	victim int;
BEGIN
	PERFORM dblink_connect('victim', dsn);
	PERFORM dblink_send_query('victim', $q$SELECT bdr.boundary_test('wait')$q$);
	WHILE clock_timestamp() < deadline LOOP
		PERFORM pg_stat_clear_snapshot();
		SELECT pid INTO victim FROM pg_stat_activity WHERE query LIKE '%boundary_test(''wait'')%' AND state = 'active' AND pid <> pg_backend_pid();
		EXIT WHEN victim IS NOT NULL;
	END LOOP;
	PERFORM pg_terminate_backend(victim, 10000);
	PERFORM dblink_disconnect('victim');
	PERFORM pg_stat_clear_snapshot();
	RETURN victim IS NOT NULL AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = victim);
END $$;
CREATE EXTENSION dblink;
SELECT end_session(format('host=%s dbname=node1 user=regress', current_setting('unix_socket_directories')));
SELECT pg_postmaster_start_time() = :'started' AS same_server;
DROP FUNCTION end_session;
DROP EXTENSION dblink;

-- 100,000 times each: neither the server's contexts nor the memory of the process grow (less what it shares with others, of
-- which it touches more with time). Warm up first.
CREATE FUNCTION memory(OUT contexts bigint, OUT private bigint) LANGUAGE sql AS $$
	SELECT (SELECT sum(total_bytes)::bigint FROM pg_backend_memory_contexts),
		(SELECT (f[2]::bigint - f[3]::bigint) * 4096 FROM string_to_array(pg_read_file('/proc/self/statm'), ' ') f) $$;
CREATE FUNCTION grows(kind text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	before record;
	afterwards record;
BEGIN
	PERFORM shown(format('SELECT bdr.boundary_test(%L, 2000)', kind));
	SELECT * INTO before FROM memory();
	PERFORM shown(format('SELECT bdr.boundary_test(%L, 100000)', kind));
	SELECT * INTO afterwards FROM memory();
	IF afterwards.contexts - before.contexts > 1000000 OR afterwards.private - before.private > 1000000 THEN
		RETURN format('contexts %s, process %s', afterwards.contexts - before.contexts, afterwards.private - before.private);
	END IF;
	RETURN 'no';
END $$;
SELECT kind, grows(kind) FROM unnest(ARRAY['ok', 'c_error', 'swift_error', 'sql', 'nested']) kind;
DROP FUNCTION grows, memory, shown;
