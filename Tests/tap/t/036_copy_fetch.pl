# The sessions that store the rows of a join fetch them themselves, and put whole pages into tables that have no index yet: tables
# of many kinds; either end or the join worker killed in the middle of a table; a target that wants a password; a joining node
# whose WAL somebody else decodes.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;

my $secret = 'a NeedleInTheLog';
my $quick = "bdr.min_worker_backoff_delay = 50ms\nbdr.max_worker_backoff_delay = 500ms\nmax_wal_size = 64MB\n";
my $a = BDR::Node->create('a', start => 0, conf => "listen_addresses = '127.0.0.1'\npassword_encryption = 'scram-sha-256'\n");
open my $hba, '>', $a->data_dir . '/pg_hba.conf' or die "pg_hba.conf: $!";
print $hba "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
close $hba;
$a->start;
$a->create_database;
$a->sql('CREATE ROLE peer SUPERUSER LOGIN PASSWORD ' . quote_literal($secret));
my $target = $a->dsn(host => '127.0.0.1', user => 'peer', password => $secret);

# A row for which the function waits while the test holds the lock: the session that stores it is then in the middle of a table.
$a->sql(q{
	CREATE FUNCTION passes(int) RETURNS bool LANGUAGE plpgsql AS $$
	BEGIN
		IF $1 = 15000 THEN
			PERFORM pg_catalog.pg_advisory_xact_lock_shared(42);
		END IF;
		RETURN true;
	END $$;
	CREATE TABLE held (id int PRIMARY KEY CHECK (passes(id)), v text);
	-- far more than the buffers of a connection hold
	INSERT INTO held SELECT i, repeat('x', 500) FROM generate_series(1, 60000) i;
	CREATE TABLE plain (id int PRIMARY KEY, n numeric NOT NULL, v text, z timestamptz DEFAULT now(), b bool) WITH (fillfactor = 50);
	INSERT INTO plain SELECT i, i / 7.0, CASE WHEN i % 3 > 0 THEN md5(i::text) END, now(), CASE WHEN i % 5 > 0 THEN i % 2 = 0 END FROM generate_series(1, 100000) i;
	DELETE FROM plain WHERE id % 11 = 0; UPDATE plain SET v = 'new' WHERE id % 13 = 0;
	CREATE UNLOGGED TABLE unlogged AS SELECT i AS id, md5(i::text) AS v FROM generate_series(1, 5000) i;
	ALTER TABLE unlogged ADD PRIMARY KEY (id);
	CREATE TABLE few (id int PRIMARY KEY, v text); INSERT INTO few VALUES (1, 'one'), (2, NULL);
	CREATE TABLE empty (id int PRIMARY KEY);
	-- of every length up to where values leave the row, and compressed ones
	CREATE TABLE wide (id int PRIMARY KEY, v text COMPRESSION pglz, w text);
	ALTER TABLE wide ALTER w SET STORAGE PLAIN;
	INSERT INTO wide SELECT i, CASE WHEN i % 10 = 0 THEN repeat('compressed', 500) END, repeat('w', i) FROM generate_series(1, 4000) i;
	CREATE TABLE toasted (id int PRIMARY KEY, v text); ALTER TABLE toasted ALTER v SET STORAGE EXTERNAL;
	INSERT INTO toasted SELECT i, repeat('t', i) FROM generate_series(1, 4000, 3) i;
	CREATE TABLE dropped (gone int, id int PRIMARY KEY, v text); INSERT INTO dropped SELECT i, i, 'v' FROM generate_series(1, 1000) i;
	ALTER TABLE dropped DROP gone;
	CREATE TABLE generated (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED); INSERT INTO generated SELECT generate_series(1, 1000);
	CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
	CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (10000);
	CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (10000) TO (20000);
	INSERT INTO parts SELECT i, 'part ' || i FROM generate_series(1, 19999) i;
	-- columns that the stored rows lack
	CREATE TABLE added (id int PRIMARY KEY, v text); INSERT INTO added SELECT i, 'v' FROM generate_series(1, 1000) i;
	ALTER TABLE added ADD n int DEFAULT 5, ADD o text, ADD p text DEFAULT 'added';
	INSERT INTO added SELECT i, 'w', 6, 'o', NULL FROM generate_series(1001, 1100) i;
	CREATE TABLE added_full (id int, v text); INSERT INTO added_full SELECT i, 'v' FROM generate_series(1, 100) i;
	ALTER TABLE added_full ADD n int DEFAULT 5, ADD o text; ALTER TABLE added_full REPLICA IDENTITY FULL;
});
my @tables = qw(held plain unlogged few empty wide toasted dropped generated parts added added_full);
create_first_node($a);

my $b = BDR::Node->create('b', conf => $quick, initdb => ['--data-checksums']);
my $fetches = q{FROM pg_stat_activity WHERE datname = current_database() AND query ~ 'internal_fetch_rows' AND state = 'active' AND pid <> pg_backend_pid()};
my $serves = q{FROM pg_stat_activity WHERE query ~ 'internal_table_rows' AND state = 'active' AND pid <> pg_backend_pid()};
my $holder;

sub hold { $holder = $b->background_psql($b->db, on_error_stop => 1); $holder->query_safe('SELECT pg_advisory_lock(42)'); return; }
# also after the server has gone
sub let_go { eval { $holder->quit } if $holder; undef $holder; return; }

# Begins a join, or goes on with it, up to where a session waits in the middle of table held.
sub in_the_middle
{
	my ($name) = @_;
	return $b->wait_ok("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted", '1', "$name: in the middle of a table");
}

sub part
{
	$a->sql("SELECT bdr.part_node('node_b')");
	$a->sql("SELECT bdr.drop_node('node_b')");
	$b->sql("DROP EXTENSION bdr CASCADE; DROP EXTENSION IF EXISTS amcheck; DROP TABLE @{[join ', ', @tables]}; DROP FUNCTION passes");
	$b->wait_for("SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^bdr (manager|apply|join)'", '0');
	return;
}
sub join_again
{
	my ($name) = @_;
	$b->sql('CREATE EXTENSION bdr');
	$b->sql("SELECT bdr.create_node('node_b', @{[quote_literal($b->dsn)]})");
	hold();
	$b->sql("SELECT bdr.join_node_group(@{[quote_literal($target)]}, wait_for_completion := false)");
	return in_the_middle($name);
}
sub joined_ok
{
	my ($name) = @_;
	$b->wait_ok('SELECT peer_state_name FROM bdr.local_node_summary', 'ACTIVE', "$name: the join comes to its end") or $b->show_state;
	same_rows($a, $b, $_, "$name: same rows of $_") for @tables;
	$b->value_ok("SELECT count(*) FROM pg_replication_origin WHERE roname LIKE 'bdr_copy%'", '0', "$name: no origin of the copy is left");
	$b->value_ok("SELECT count(*) $fetches", '0', "$name: nobody fetches any more");
	$a->wait_ok("SELECT count(*) $serves", '0', "$name: and nobody is asked");
	return;
}

$b->sql('CREATE EXTENSION bdr');
$b->fails_ok("SELECT bdr.internal_fetch_begin('x')", '42501', qr/for sessions in which a join copies rows/, undef, 'no session of people connects');
$b->fails_ok("SELECT bdr.internal_fetch_rows('few', 0, -1)", '42501', qr/for sessions in which a join copies rows/, undef, 'or fetches');
$b->fails_ok("SET bdr.internal_session = on; SELECT bdr.internal_fetch_begin('x')", '55000', qr/does not join/, undef, 'not without a join');
$b->fails_ok("SET bdr.internal_session = on; SELECT bdr.internal_fetch_rows('few', 0, -1)", '55000', qr/not connected/, undef, 'not without a connection');
$b->sql("SELECT bdr.create_node('node_b', @{[quote_literal($b->dsn)]})");
hold();
my $position = $b->log_position;
$b->sql("SELECT bdr.join_node_group(@{[quote_literal($target)]}, wait_for_completion := false)");
in_the_middle('a join');
$b->value_ok("SELECT count(*) $fetches AND query ~ 'NeedleInTheLog'", '0', 'no statement shows the password');

# The target's session ends: the join says so, and begins its copy anew.
$a->sql("SELECT pg_terminate_backend(pid) $serves");
let_go();
$b->wait_ok("SELECT count(*) > 0 FROM bdr.join_progress_line WHERE line ~ 'the data could not be copied: (terminating connection|server closed the connection)'", 't', 'what ended the copy is told')
	or diag($b->sql('SELECT line FROM bdr.join_progress_line ORDER BY line_number'));
joined_ok('the session on the target ends');
$b->value_ok("SELECT count(*), min(pg_xact_commit_timestamp(xmin)), max(pg_xact_commit_timestamp(xmin)) FROM plain",
	$a->sql('SELECT count(*) FROM plain') . '|2000-01-01 00:00:01+00|2000-01-01 00:00:01+00', 'copied rows are older than any change');
$b->value_ok("SELECT bool_and(rows_copied = (xpath('//row/n/text()', query_to_xml('SELECT count(*) AS n FROM ' || table_name, false, false, '')))[1]::text::bigint) FROM bdr.join_table", 't', 'rows were counted');
$b->value_ok("SELECT pg_relation_size('plain') > 1.7 * (SELECT sum(pg_column_size(p)) FROM plain p)", 't', 'pages are filled as the table wants');
$b->sql('CREATE EXTENSION amcheck');
$b->value_ok("SELECT count(*) FROM pg_class c, verify_heapam(c.oid) WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace", '0', 'the pages are in order');
# out of WAL alone
$b->stop('immediate');
$b->start;
same_rows($a, $b, $_, "after a crash: same rows of $_") for grep { $_ ne 'unlogged' } @tables;
$b->value_ok("SELECT count(*) FROM pg_class c, verify_heapam(c.oid) WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace", '0', 'after a crash: the pages are in order');
$b->sql('VACUUM (FREEZE)');
$b->value_ok("SELECT count(*) FROM pg_class c, verify_heapam(c.oid) WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace", '0', 'after VACUUM, too');
$b->sql('TRUNCATE unlogged') if $b->sql('SELECT count(*) FROM unlogged') ne '0';
$a->sql('UPDATE plain SET n = n + 1 WHERE id % 100 = 0; DELETE FROM plain WHERE id % 101 = 0; INSERT INTO plain VALUES (-1, 0)');
same_ok($a, $b, 'plain', 'changes find the copied rows');
part();

# The join worker ends while the session that stores waits: it ends as well, and nothing of it stays.
join_again('the join worker ends');
my ($worker) = $b->pids('join');
my $storing = $b->sql("SELECT pid $fetches AND wait_event = 'advisory'");
$b->sql("SELECT pg_terminate_backend($worker)");
$b->wait_ok("SELECT count(*) FROM pg_stat_activity WHERE pid = $storing", '0', 'the session that stores notices');
let_go();
joined_ok('the join worker ends');
part();

# A server dies.
for my $victim ('the joining server', 'the session that stores', 'the target')
{
	join_again("$victim dies");
	if ($victim eq 'the target')
	{
		$a->stop('immediate');
		let_go();
		$a->start;
	}
	else
	{
		my $pid = $b->sql("SELECT pid $fetches AND wait_event = 'advisory'");
		if ($victim eq 'the joining server')
		{
			$b->stop('immediate');
			$b->start;
		}
		else
		{
			kill 'KILL', $pid;
			$b->wait_for('SELECT 1', '1');
		}
		let_go();
	}
	joined_ok("$victim dies");
	part();
}

# Whoever decodes the WAL of the joining node gets the copied rows.
$b->sql("SELECT pg_create_logical_replication_slot('other', 'test_decoding')");
join_again('a slot');
let_go();
joined_ok('a slot');
$b->value_ok("SELECT count(*) FROM pg_logical_slot_peek_changes('other', NULL, NULL) WHERE data LIKE 'table public.plain: INSERT%'", $a->sql('SELECT count(*) FROM plain'), 'a slot on the joining node has the copied rows');
$b->sql("SELECT pg_drop_replication_slot('other')");
done_testing();
