# Global locks of three nodes: DDL at the same time everywhere, tables that nobody writes to meanwhile, and the ways out when
# somebody who has a lock is gone.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::Test;
use Test::More;
use Time::HiRes qw(time usleep);

my ($a, $b, $c) = map { BDR::Node->create($_, conf => "bdr.ddl_locking = on\nbdr.streaming_work_mem = '64kB'\nmax_worker_processes = 40") } qw(a b c);
my @nodes = ($a, $b, $c);
$a->sql('CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY, v text)');
create_first_node($a);
join_node($b, $a);
join_node($c, $b);
active_ok(\@nodes, 'three nodes');

# no locks are left on any node
sub free_ok
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $good = 1;
	$good &= $_->wait_ok('SELECT count(*) FROM bdr.global_locks', '0', "$name: no lock on " . $_->name) for @nodes;
	return $good;
}

# Cost.
{
	my $begin = time;
	$a->sql(join '', map { "CREATE TABLE cost_$_ (id int PRIMARY KEY);" } 1 .. 20);
	my $each = (time - $begin) / 20;
	diag sprintf 'CREATE TABLE: %.1f ms', $each * 1000;
	free_ok('after DDL');
	$begin = time;
	$b->sql('ALTER TABLE t DROP COLUMN v');
	diag sprintf 'ALTER TABLE that takes the DML lock: %.1f ms', (time - $begin) * 1000;
	$b->sql('ALTER TABLE t ADD COLUMN v text');
	all_same_ok(\@nodes, ['t'], 'a changed table');
	free_ok('after ALTER TABLE');
}


# A statement that is going to wait, in a session of its own.
sub start
{
	my ($node, $sql, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $session = session($node);
	$session->query_until(qr/started/, "\\echo started\n$sql;\n");
	$node->wait_ok("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE @{[quote_literal(substr($sql, 0, 40) . '%')]}", '1', $name);
	return $session;
}

sub waits_ok
{
	my ($node, $table, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $node->wait_ok("SELECT count(*) > 0 FROM pg_locks WHERE relation = '$table'::regclass AND NOT granted AND mode = 'RowExclusiveLock'", 't', $name);
}

sub session
{
	my ($node) = @_;
	my $session = $node->background_psql($node->db, on_error_stop => 0);
	$session->query_safe('SET client_min_messages = error');
	return $session;
}

# DDL on three nodes at once, of the same table.
{
	$a->sql('CREATE TABLE shared (id int PRIMARY KEY)');
	all_caught_up(@nodes);
	my @sessions = map { session($_) } @nodes;
	my $n = 0;
	for my $s (@sessions)
	{
		$n++;
		$s->query_until(qr/started/, "\\echo started\n" . join('', map { "ALTER TABLE shared ADD COLUMN c_${n}_$_ int; CREATE TABLE IF NOT EXISTS same_$_ (id int PRIMARY KEY);\n" } 1 .. 10));
	}
	$_->query_safe('SELECT 1') for @sessions;
	$_->quit for @sessions;
	all_same_ok(\@nodes, [ q{SELECT c.relname, a.attname, a.attnum FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
		WHERE c.relnamespace = 'public'::regnamespace AND attnum > 0 AND relkind = 'r'} ], 'DDL on three nodes at once');
	$c->value_ok("SELECT count(*) FROM pg_attribute WHERE attrelid = 'shared'::regclass AND attname ~ '^c_'", '30', 'all columns');
	$a->value_ok("SELECT count(*) FROM pg_class WHERE relname ~ '^same_[0-9]+\$'", '10', 'and tables');
	free_ok('afterwards');
}

# One after the other, and who is seen to wait for whom.
{
	my $holder = session($a);
	$holder->query_safe('BEGIN; CREATE TABLE x (id int PRIMARY KEY)');
	my $pid = $holder->query_safe('SELECT pg_backend_pid()');
	$a->value_ok("SELECT origin_node_name, lock_type, acquire_stage, pid = $pid, statement LIKE '%CREATE TABLE x%' FROM bdr.global_locks",
		'node_a|GLOBAL_LOCK_DDL|confirmed|t|t', 'the holder is shown');
	my $begin = time;
	my $error = $b->error_of("SET bdr.global_lock_timeout = '1s'; CREATE TABLE y (id int PRIMARY KEY)");
	is($error->{sqlstate}, '55P03', 'another node does not get the lock');
	like($error->{message}, qr/could not get the global DDL lock in time/, 'and says so');
	like($error->{detail}, qr/node "node_a": node "node_a", which has it/, 'and why');
	cmp_ok(time - $begin, '<', 5, 'after its time');
	my $waiter = start($b, 'CREATE TABLE y (id int PRIMARY KEY)', 'a node waits');
	$b->wait_ok("SELECT origin_node_name, acquire_stage, waiting_for FROM bdr.global_locks WHERE origin_node_name = 'node_b'",
		'node_b|asking|node_a, node_b, node_c', 'it shows for whom');
	$a->wait_ok("SELECT waiters FROM bdr.global_locks WHERE origin_node_name = 'node_a'", '1', 'the holder shows who waits');
	$holder->query_safe('ROLLBACK');
	$waiter->query_safe('SELECT 1');
	$b->value_ok("SELECT to_regclass('y')", 'y', 'it goes on when the other one rolls back');
	$waiter->quit;
	free_ok('after a rollback');

	# cancel
	$holder->query_safe('BEGIN; CREATE TABLE x (id int PRIMARY KEY)');
	$waiter = start($c, 'CREATE TABLE z (id int PRIMARY KEY)', 'c waits');
	$c->sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CREATE TABLE z%' AND state = 'active'");
	$c->wait_ok("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE TABLE z%' AND state = 'active'", '0', 'and is cancelled');
	$_->wait_ok("SELECT count(*) FROM bdr.global_locks WHERE origin_node_name = 'node_c'", '0', 'it no longer waits on ' . $_->name) for @nodes;
	$waiter->quit;
	$holder->query_safe('COMMIT');
	$c->wait_ok("SELECT to_regclass('x')", 'x', 'the holder commits');
	$holder->quit;
	free_ok('after a cancel');
}

# A table that is locked: its writers wait, others do not.
{
	$a->sql('INSERT INTO t VALUES (1, NULL)');
	all_caught_up(@nodes);
	my $holder = session($a);
	$holder->query_safe("BEGIN; SELECT bdr.global_lock_table('t')");
	$b->value_ok("SELECT lock_type, relation, acquire_stage FROM bdr.global_locks", 'GLOBAL_LOCK_DML|public.t|confirmed', 'shown on a peer');
	my @writers = map { start($nodes[$_], "INSERT INTO t VALUES (10 + $_)", 'a writer on ' . $nodes[$_]->name) } 0 .. 2;
	waits_ok($_, 't', 'writers of the table wait on ' . $_->name) for @nodes;
	$_->sql("INSERT INTO other VALUES (@{[ $_->port ]}, 'x')") for @nodes;
	$b->value_ok('SELECT count(*) FROM t', '1', 'readers do not wait');
	all_same_ok(\@nodes, ['other'], 'rows of another table');
	$holder->query_safe('COMMIT');
	$_->query_safe('SELECT 1') for @writers;
	$_->quit for @writers;
	all_same_ok(\@nodes, ['t'], 'the writers went on');
	$c->value_ok('SELECT count(*) FROM t', '4', 'all of them');
	free_ok('after the commit');

	# DDL that changes the shape: who waited finds the new one
	$holder->query_safe('BEGIN; ALTER TABLE t DROP COLUMN v');
	my $writer = start($b, 'INSERT INTO t SELECT 20', 'a writer on b');
	waits_ok($b, 't', 'waits for the DDL');
	$holder->query_safe('ALTER TABLE t ADD COLUMN w int NOT NULL DEFAULT 7; COMMIT');
	$writer->query_safe('SELECT 1');
	$writer->quit;
	all_same_ok(\@nodes, ['t'], 'writer and DDL');
	$a->value_ok('SELECT w FROM t WHERE id = 20', '7', 'the row has the new shape');
	$holder->quit;
	free_ok('after the DDL');
}

# What was written before is everywhere before the shape changes anywhere, though the table is locked.
{
	$b->sql("SELECT bdr.alter_subscription_disable(sub_name, true) FROM bdr.subscription s JOIN bdr.node n ON n.node_id = s.origin_node_id WHERE n.node_name = 'node_c'");
	$c->sql('INSERT INTO t SELECT i, i FROM generate_series(100, 199) i');
	my $error = $a->error_of("SET bdr.global_lock_timeout = '2s'; ALTER TABLE t DROP COLUMN w");
	is($error->{sqlstate}, '55P03', 'b has not got rows of c: a can not change the table');
	like($error->{detail}, qr/node "node_c": its changes have yet to be applied by node_b/, 'and says why');
	free_ok('after a failure');
	my $ddl = start($a, 'ALTER TABLE t DROP COLUMN w', 'a tries again');
	$c->wait_ok('SELECT acquire_stage FROM bdr.global_locks WHERE relation IS NOT NULL', 'drain', 'c has locked the table, and drains; b, which lacks its rows, has locked it, too');
	$b->sql("SELECT bdr.alter_subscription_enable(sub_name) FROM bdr.subscription s JOIN bdr.node n ON n.node_id = s.origin_node_id WHERE n.node_name = 'node_c'");
	$ddl->query_safe('SELECT 1');
	$ddl->quit;
	all_same_ok(\@nodes, ['t'], 'after the drain');
	$_->value_ok('SELECT count(*) FROM t WHERE id BETWEEN 100 AND 199', '100', 'all rows on ' . $_->name) for @nodes;
	$_->value_ok("SELECT count(*) FROM bdr.worker_errors WHERE error_message !~ 'starts anew'", '0', 'no worker has failed on ' . $_->name) for @nodes;
	free_ok('after the drain');
}

# A transaction that keeps out what it waits for.
{
	$a->sql('CREATE TABLE own (id int PRIMARY KEY, v text, w text)');
	all_caught_up(@nodes);
	my $s = session($a);
	$s->query_safe('BEGIN; ALTER TABLE own ADD COLUMN x int');
	$b->sql('INSERT INTO own VALUES (1)');
	$s->query('ALTER TABLE own DROP COLUMN v');
	like($s->{stderr}, qr/deadlock detected.*they wait for this transaction/s, 'a transaction that keeps out what it waits for');
	$s->{stderr} = '';
	$s->query_safe("ROLLBACK; BEGIN; SELECT bdr.global_lock_table('own'); ALTER TABLE own ADD COLUMN x int; ALTER TABLE own DROP COLUMN v; COMMIT");
	$s->quit;
	all_same_ok(\@nodes, ['own'], 'with the lock first');
	free_ok('afterwards');
}

# A transaction that others apply while it is in progress: they have its rows, and so locks of the table, before it wants that.
{
	$a->sql('CREATE TABLE streamed (id int PRIMARY KEY, v text)');
	all_caught_up(@nodes);
	my $s = session($a);
	$s->query_safe("BEGIN; INSERT INTO streamed SELECT i, repeat('x', 100) FROM generate_series(1, 20000) i");
	$b->wait_ok("SELECT count(*) > 0 FROM pg_locks WHERE relation = 'streamed'::regclass AND mode = 'RowExclusiveLock' AND granted", 't', 'b has begun to apply it');
	$s->query_safe('ALTER TABLE streamed DROP COLUMN v; COMMIT');
	$s->quit;
	all_same_ok(\@nodes, ['streamed'], 'rows and DDL of a large transaction');
	$c->value_ok('SELECT count(*) FROM streamed', '20000', 'all rows');
	free_ok('after a large transaction');
}

# Two nodes that want what the other one has.
{
	my ($s, $u) = (session($a), session($b));
	$s->query_safe('BEGIN; SELECT bdr.global_advisory_lock(1)');
	$u->query_safe('BEGIN; SELECT bdr.global_advisory_lock(2)');
	$s->query_until(qr/started/, "\\echo started\nSELECT bdr.global_advisory_lock(2);\n");
	$a->wait_ok('SELECT count(*) FROM bdr.global_lock WHERE blocked_by IS NOT NULL', '1', 'a waits for b');
	my $begin = time;
	$u->query('SELECT bdr.global_advisory_lock(1)');
	like($u->{stderr}, qr/deadlock detected.*nodes "node_a", "node_b" wait for one another/s, 'b, which asked later, gives in');
	cmp_ok(time - $begin, '<', 20, 'soon');
	$u->{stderr} = '';
	$u->query_safe('ROLLBACK');
	$s->query_safe('COMMIT');
	$_->quit for $s, $u;
	free_ok('after a deadlock');
}

# Limits of time.
{
	my $s = session($a);
	$s->query_safe("SET bdr.global_lock_statement_timeout = '500ms'; SET bdr.global_lock_idle_timeout = '700ms'");
	$s->query_safe('BEGIN; CREATE TABLE limits (id int PRIMARY KEY)');
	$s->query('SELECT pg_sleep(60)');
	like($s->{stderr}, qr/canceling statement due to statement timeout/, 'a statement takes too long');
	$s->{stderr} = '';
	$s->query_safe('ROLLBACK');
	free_ok('after the statement');
	$s->query_safe('BEGIN; CREATE TABLE limits (id int PRIMARY KEY)');
	free_ok('a transaction that idles is ended');
	eval { $s->quit };
	$a->value_ok("SELECT to_regclass('limits') IS NULL", 't', 'nothing came of it');
}

# bdr.ddl_locking.
{
	$a->sql('CREATE ROLE plain; GRANT ALL ON SCHEMA public TO plain');
	$a->fails_ok("SET ROLE plain; SET bdr.ddl_locking = off", '42501', qr/permission denied to set parameter "bdr.ddl_locking"/, undef, 'not for everybody');
	my $holder = session($a);
	$holder->query_safe('BEGIN; CREATE TABLE held (id int PRIMARY KEY)');
	$b->sql("SET bdr.ddl_locking = off; CREATE TABLE unlocked (id int PRIMARY KEY)");
	$b->sql("SET bdr.ddl_locking = dml; CREATE TABLE unlocked2 (id int PRIMARY KEY)");
	$holder->query_safe('COMMIT');
	$holder->quit;
	all_caught_up(@nodes);
	$_->value_ok("SELECT to_regclass('held'), to_regclass('unlocked'), to_regclass('unlocked2')", 'held|unlocked|unlocked2', 'locks that were not taken: ' . $_->name) for @nodes;
	$holder = session($b);
	$holder->query_safe("BEGIN; SET LOCAL bdr.truncate_locking = on; TRUNCATE t");
	my $writer = start($c, 'INSERT INTO t VALUES (500)', 'a writer on c');
	waits_ok($c, 't', 'waits for TRUNCATE');
	$holder->query_safe('COMMIT');
	$writer->query_safe('SELECT 1');
	$_->quit for $writer, $holder;
	all_same_ok(\@nodes, ['t'], 'TRUNCATE with its lock');
	$a->value_ok('SELECT id FROM t', '500', 'only the later row');
	free_ok('after TRUNCATE');
}

# Advisory locks.
{
	my $holder = session($a);
	$holder->query_safe('BEGIN; SELECT bdr.global_advisory_lock(7); SELECT bdr.global_advisory_lock(7); SELECT bdr.global_advisory_unlock(7)');
	$b->sql('SELECT bdr.global_advisory_lock(8), bdr.global_advisory_lock(0, 7)');
	$b->fails_ok("SET bdr.global_lock_timeout = '500ms'; SELECT bdr.global_advisory_lock(7)", '55P03', qr/could not get the global advisory lock/, undef, 'the same key is taken');
	$b->fails_ok('SELECT bdr.global_advisory_unlock(9)', '55000', qr/does not have that global advisory lock/, undef, 'nothing to unlock');
	$holder->query_safe('COMMIT');
	$b->sql('SELECT bdr.global_advisory_lock(7)');
	$holder->quit;
	free_ok('after advisory locks');
}

# The holder is killed.
{
	my $holder = session($a);
	$holder->query_safe("BEGIN; SELECT bdr.global_lock_table('t')");
	my $pid = $holder->query_safe('SELECT pg_backend_pid()');
	my $writer = start($b, 'INSERT INTO t VALUES (600)', 'a writer on b');
	waits_ok($b, 't', 'waits');
	$a->sql("SELECT pg_terminate_backend($pid)");
	$writer->query_safe('SELECT 1');
	$writer->quit;
	eval { $holder->quit };
	pass('the writer goes on when the session of the holder is ended');
	free_ok('afterwards');
}

# Its server crashes.
{
	my $holder = session($a);
	$holder->query_safe("BEGIN; SELECT bdr.global_lock_table('t')");
	my $writer_b = start($b, 'INSERT INTO t VALUES (700)', 'a writer on b');
	my $writer_c = start($c, 'INSERT INTO t VALUES (701)', 'a writer on c');
	$a->stop('immediate');
	eval { $holder->quit };
	waits_ok($_, 't', 'the table stays locked while the holder is down: ' . $_->name) for $b, $c;
	$b->value_ok("SELECT bdr.release_global_lock('node_a')", '1', 'an administrator can let go of it');
	$writer_b->query_safe('SELECT 1');
	waits_ok($c, 't', 'on that node only');
	# it holds over a crash of the one who gave it
	$c->stop('immediate');
	eval { $writer_c->quit };
	$c->start;
	$c->wait_ok("SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND mode = 'ExclusiveLock' AND granted", '1', 'a voter that crashed locks the table again');
	$a->start;
	free_ok('the holder is back');
	$writer_b->quit;
	$c->sql('INSERT INTO t VALUES (702)');
	all_same_ok(\@nodes, ['t'], 'after two crashes');
}

# A node is down: a majority goes on; what needs all nodes does not.
{
	$c->stop('immediate');
	$a->sql('CREATE TABLE by_majority (id int PRIMARY KEY)');
	$b->sql("INSERT INTO by_majority VALUES (1)") if $b->wait_ok("SELECT to_regclass('by_majority')", 'by_majority', 'two of three are enough');
	$b->sql('ALTER TABLE by_majority ADD COLUMN v text');
	my $error = $a->error_of("SET bdr.global_lock_timeout = '2s'; ALTER TABLE by_majority DROP COLUMN v");
	is($error->{sqlstate}, '55P03', 'a table is locked on all nodes or none');
	like($error->{detail}, qr/node_c/, 'it says who is missing');
	$b->stop;
	$error = $a->error_of("SET bdr.global_lock_timeout = '2s'; CREATE TABLE alone (id int PRIMARY KEY)");
	is($error->{sqlstate}, '55P03', 'one of three is not');
	$b->start;
	$c->start;
	all_same_ok(\@nodes, ['by_majority'], 'when they are back');
	free_ok('when they are back');
}

# A node joins.
{
	my $d = BDR::Node->create('d');
	$d->sql('CREATE ROLE plain');
	$a->sql('DROP TABLE by_majority');
	my $holder = session($a);
	$holder->query_safe("BEGIN; CREATE TABLE while_joining (id int PRIMARY KEY)");
	$d->sql('CREATE EXTENSION bdr CASCADE');
	$d->sql("SELECT bdr.create_node('node_d', @{[quote_literal($d->dsn)]})");
	$d->sql("SELECT bdr.join_node_group(@{[quote_literal($b->dsn)]}, wait_for_completion := false)");
	$holder->query_safe('COMMIT; BEGIN; ' . "SELECT bdr.global_lock_table('while_joining')");
	usleep(200_000);
	$holder->query_safe('ALTER TABLE while_joining ADD COLUMN v text; COMMIT');
	# it does not become active as long as a table is locked that would not be locked there
	$holder->query_safe("BEGIN; SELECT bdr.global_lock_table('other')");
	$d->wait_ok("SELECT concat_ws('; ', error_message, progress) LIKE '%a table is locked by the group%' FROM bdr.join_progress", 't', 'a join waits for who has locked a table');
	isnt($d->sql('SELECT peer_state_name FROM bdr.local_node_summary'), 'ACTIVE', 'it is not active before');
	$holder->query_safe('COMMIT');
	$holder->quit;
	is(join_outcome($d), 'ACTIVE', 'a node has joined meanwhile');
	push @nodes, $d;
	$d->sql('ALTER TABLE while_joining ADD COLUMN w text; ALTER TABLE while_joining DROP COLUMN v');
	$a->sql('ALTER TABLE while_joining ALTER COLUMN w SET NOT NULL');
	all_same_ok(\@nodes, [ q{SELECT attname, attnotnull FROM pg_attribute WHERE attrelid = 'while_joining'::regclass AND attnum > 0} ], 'and takes part');
	free_ok('with four nodes');
	# it leaves while a table is locked, which stays so
	$holder = session($b);
	$holder->query_safe("BEGIN; SELECT bdr.global_lock_table('while_joining')");
	$a->sql("SELECT bdr.part_node('node_d', wait_for_completion := true)");
	pop @nodes;
	my $writer = start($c, 'INSERT INTO while_joining VALUES (1, 1)', 'a writer');
	waits_ok($c, 'while_joining', 'waits when a node has left');
	$holder->query_safe('ALTER TABLE while_joining ADD COLUMN x int; COMMIT');
	$writer->query_safe('SELECT 1');
	$_->quit for $holder, $writer;
	all_same_ok(\@nodes, ['while_joining'], 'after a part under a lock');
	$b->sql('ALTER TABLE while_joining DROP COLUMN w');
	all_same_ok(\@nodes, [ q{SELECT attname FROM pg_attribute WHERE attrelid = 'while_joining'::regclass AND attnum > 0} ], 'and with three again');
}

done_testing;
