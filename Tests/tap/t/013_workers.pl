# The processes of bdr come and go with what they work for: killed ones come back without an operator, a database or the
# extension can be dropped under them, a server stops quickly, and where there is no node there is no process.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use IPC::Run ();
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(time usleep);

my ($a, $b) = node_pair(setup => q{CREATE TABLE t (id bigserial PRIMARY KEY, v text); CREATE TABLE load (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), v text)});
# Rows of the two nodes have different keys.
$a->sql("INSERT INTO t (v) VALUES ('first')");
wait_caught_up($a, $b);
$b->sql_here("ALTER SEQUENCE t_id_seq RESTART 1000000");

sub both_ways_ok
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	replicating_ok($a, $b, "$name: both directions replicate by themselves") or return;
	$_->sql("INSERT INTO t (v) VALUES (" . quote_literal($name) . ')') for ($a, $b);
	same_ok($a, $b, 't', "$name: nothing is missing");
	return;
}

my $slots_of_bdr = "SELECT count(*) FROM pg_replication_slots WHERE plugin = 'bdr'";
my $origins = "SELECT count(*) FROM pg_replication_origin WHERE roname ~ '^bdr'";
my $processes = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^bdr' AND backend_type <> 'bdr supervisor'};

# pg_ctl stop -m fast has 10 s.
sub stop_ok
{
	my ($node, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $begin = time;
	$node->stop('fast');
	my $took = time - $begin;
	cmp_ok($took, '<', 10, sprintf '%s stops within 10 s %s', $node->name, $name) or diag(sprintf '%.1f s', $took);
	return;
}

# Writes until its server goes.
my @load;
my $script = PostgreSQL::Test::Utils::tempdir() . '/load.sql';
PostgreSQL::Test::Utils::append_to_file($script, "INSERT INTO load (v) SELECT 'x' FROM generate_series(1, 10);\n");
sub start_load
{
	my ($node) = @_;
	my ($out, $err) = ('', '');
	push @load, IPC::Run::start([ 'pgbench', '-n', '-f', $script, '-c', '2', '-T', '300', '--rate=100', '-h', $node->host, '-p', $node->port, $node->db ],
		'<', \undef, '>', \$out, '2>', \$err);
	my $n = $node->sql('SELECT count(*) FROM load');
	$node->wait_for("SELECT count(*) > $n FROM load", 't');
	return;
}
sub stop_load
{
	for my $run (@load)
	{
		$run->signal('TERM');
		$run->finish;
	}
	@load = ();
	return;
}
END { $_->kill_kill for @load; }

#
# A process that is terminated is back soon, and nothing else is harmed.
#
for my $node ($a, $b)
{
	my $started = $node->sql('SELECT pg_postmaster_start_time()');
	for my $kind (qw(supervisor manager apply walsender))
	{
		for my $call ($kind eq 'walsender' ? 'pg_terminate_backend' : ('pg_terminate_backend', 'pg_cancel_backend'))
		{
			my $pid;
			ok(wait_until(sub { ($pid) = $node->pids($kind); return $pid; }), "there is a $kind on " . $node->name);
			$node->sql("SELECT $call($pid)");
			if ($call eq 'pg_cancel_backend' && $kind eq 'supervisor')
			{
				both_ways_ok("pg_cancel_backend(supervisor) on " . $node->name);
				is(join(' ', $node->pids('supervisor')), $pid, 'the supervisor is not to be cancelled');
				next;
			}
			if ($call eq 'pg_terminate_backend')
			{
				my $new;
				ok(wait_until(sub { ($new) = $node->pids($kind); return defined $new && $new ne $pid; }, timeout => 30),
					"$kind of " . $node->name . ' is back within 30 s');
			}
			both_ways_ok("$call($kind) on " . $node->name);
		}
	}
	is($node->sql('SELECT pg_postmaster_start_time()'), $started, 'the server was not touched');
}
logs_ok($a, $b);

#
# SIGKILL makes the postmaster begin anew with everything.
#
for my $kind (qw(supervisor manager apply walsender backend))
{
	my $node = $kind =~ /^(supervisor|apply)/ ? $b : $a;
	my ($pid, $session);
	if ($kind eq 'backend')
	{
		$session = $node->background_psql($node->db);
		$pid = $session->query_safe('SELECT pg_backend_pid()');
	}
	else
	{
		wait_until(sub { ($pid) = $node->pids($kind); return $pid; });
	}
	my $position = $node->log_position;
	kill 9, $pid;
	ok(wait_until(sub { $node->log_since($position) =~ /all server processes terminated; reinitializing/ }), "SIGKILL of a $kind restarts the server");
	eval { $session->quit } if $session;
	$node->wait_for('SELECT 1', '1');
	both_ways_ok("SIGKILL of a $kind on " . $node->name);
}

#
# Stopping.
#
start_load($_) for ($a, $b);
stop_ok($a, 'while replicating');
stop_ok($b, 'while its peer is away and writes go on');
stop_load();
$_->start for ($a, $b);
both_ways_ok('after stops under load');

stop_ok($b, 'when idle');
{
	my $position = $a->log_position;
	ok(wait_until(sub { $a->log_since($position) =~ /could not connect/ }), 'the peer is down and the worker tries again');
}
stop_ok($a, 'while the peer is down');
$_->start for ($a, $b);
replicating_ok($a, $b, 'both are back');

# An apply that waits for a lock.
{
	my $session = $b->background_psql($b->db);
	$session->query_safe('BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE');
	$a->sql("INSERT INTO t (v) VALUES ('behind a lock')");
	$b->wait_ok('SELECT count(*) FROM pg_locks WHERE NOT granted', '1', 'apply waits for a lock');
	stop_ok($b, 'while apply waits for a lock');
	eval { $session->quit };
	$b->start;
	both_ways_ok('after apply was stopped in a lock');
}

# A peer that takes connections and says nothing.
{
	my $postmaster = (split /\n/, slurp_file($b->data_dir . '/postmaster.pid'))[0];
	kill 'STOP', $postmaster;
	my ($walsender) = $a->sql('SELECT worker_pid FROM bdr.workers WHERE worker_role_name = $$apply$$');
	$a->sql("SELECT pg_terminate_backend($walsender)");
	$a->wait_ok(q{SELECT count(*) FROM bdr.subscription_summary WHERE subscription_status = 'starting'}, '1', 'apply waits for a peer that does not answer');
	stop_ok($a, 'while it connects to a peer that does not answer');
	kill 'CONT', $postmaster;
	$a->start;
	both_ways_ok('after a peer did not answer');
}

#
# A join that waits.
#
my $c = BDR::Node->create('c');
{
	my $session = $a->background_psql($a->db);
	$session->query_safe("BEGIN; INSERT INTO t (v) VALUES ('in the way of the join')");
	$c->sql('CREATE EXTENSION bdr');
	$c->sql('SELECT bdr.create_node(\'node_c\', ' . quote_literal($c->dsn) . ')');
	my $join = 'SELECT bdr.join_node_group(' . quote_literal($a->dsn) . ', wait_for_completion := false)';
	$c->sql($join);
	# with a third node the members get group slots first
	my $waits = q{SELECT count(*) > 0 FROM pg_stat_activity WHERE (backend_type = 'bdr group' OR query ~ 'CREATE_REPLICATION_SLOT') AND wait_event_type = 'Lock'};
	$a->wait_ok($waits, 't', 'the join waits for a transaction of its target');
	my ($worker) = $c->pids('join');
	ok(defined $worker, 'there is a join worker');

	for my $kind (qw(join manager))
	{
		my ($pid) = $c->pids($kind);
		$c->sql("SELECT pg_terminate_backend($pid)");
		ok(wait_until(sub { my ($new) = $c->pids($kind); return defined $new && $new ne $pid; }), "$kind is back after pg_terminate_backend");
		$a->wait_ok($waits, 't', 'the join waits again');
	}
	stop_ok($c, 'while a join waits');
	$c->start;
	$a->wait_ok($waits, 't', 'after a restart the join goes on waiting by itself');
	stop_ok($a, 'while a joining node waits for it');
	eval { $session->quit };
	$a->start;
}
$c->wait_ok('SELECT peer_state_name FROM bdr.local_node_summary', 'ACTIVE', 'the join comes to its end by itself');
same_ok($a, $c, 't', 'the node that joined has everything');
replicating_ok($a, $b, 'the others replicate');

#
# Not enough workers.
#
{
	my $set = sub {
		my ($workers) = @_;
		$c->append_conf('postgresql.conf', "max_worker_processes = $workers");
		$c->restart;
	};
	# The server's launcher and our supervisor take one each; another looks at one database after the other.
	my $position = $c->log_position;
	$set->(2);
	ok(wait_until(sub { $c->log_since($position) =~ /no worker slot is free for database "\w+"[^\n]*\n[^\n]*HINT:\s+Increase max_worker_processes/ }),
		'no room for a manager: the log says what to do');
	$c->sql("SELECT count(*) FROM t");
	is($c->sql("SELECT count(*) FROM bdr.subscription_summary WHERE subscription_status = 'down'"), '2', 'and the view that nothing is received');
	$position = $c->log_position;
	$set->(3);
	ok(wait_until(sub { $c->log_since($position) =~ /WARNING:\s+no background worker is free for "apply node_[ab]"[^\n]*\n[^\n]*HINT:\s+Increase max_worker_processes/ }),
		'no room for apply workers: the log says what to do');
	$position = $c->log_position;
	$set->(4);
	ok(wait_until(sub { $c->log_since($position) =~ /WARNING:\s+no background worker is free for "apply node_[ab]"/ }), 'no room for the second one');
	$c->wait_ok("SELECT count(*) FROM bdr.subscription_summary WHERE subscription_status = 'replicating'", '1', 'one of two works');
	my $lines = () = $c->log_since($position) =~ /no background worker is free/g;
	cmp_ok($lines, '<', 40, "the log is not flooded ($lines lines)");
	$set->(24);
	$c->wait_ok("SELECT count(*) FROM bdr.subscription_summary WHERE subscription_status = 'replicating'", '2', 'all work when there is room');
	$_->sql("INSERT INTO t (v) VALUES ('with enough workers')") for ($a, $b);
	same_ok($_, $c, 't', 'nothing is missing from ' . $_->name) for ($a, $b);
}

#
# DROP EXTENSION under load.
#
{
	$a->sql("INSERT INTO t (v) SELECT 'before it goes' FROM generate_series(1, 20000)");
	$c->sql('BEGIN; DROP EXTENSION bdr CASCADE; ROLLBACK');
	$c->wait_ok("SELECT count(*) FROM bdr.subscription_summary WHERE subscription_status = 'replicating'", '2', 'DROP EXTENSION that is rolled back does nothing');
	same_ok($a, $c, 't', 'and nothing is missing');
	$a->sql("INSERT INTO t (v) SELECT 'while it goes' FROM generate_series(1, 20000)");
	my $begin = time;
	$c->sql('DROP EXTENSION bdr CASCADE', timeout => 60);
	cmp_ok(time - $begin, '<', 30, 'DROP EXTENSION returns');
	$c->wait_ok($slots_of_bdr, '0', 'its slots are gone', timeout => 30);
	$c->wait_ok($origins, '0', 'its origins are gone', timeout => 30);
	$c->wait_ok($processes, '0', 'its processes are gone', timeout => 30);
	$c->sql(q{CREATE TABLE no_key (v text); INSERT INTO no_key VALUES ('x'); UPDATE no_key SET v = 'y'; DELETE FROM no_key; DELETE FROM t; DROP TABLE no_key});
	$c->sql('VACUUM');
	pass('the database is an ordinary one');
	$c->sql('CREATE EXTENSION bdr');
	$c->sql('SELECT bdr.create_node(\'node_c\', ' . quote_literal($c->dsn) . ')');
	$c->sql("SELECT bdr.create_node_group('another_group')");
	$c->wait_ok('SELECT node_group_name, peer_state_name FROM bdr.local_node_summary', 'another_group|ACTIVE', 'it becomes a node again');
	$c->fails_ok('DELETE FROM pg_catalog.pg_class WHERE false; CREATE TABLE no_key (v text); DELETE FROM no_key', '55000', qr/replica identity/, undef,
		'which it is for all sessions');
	$c->sql('DROP EXTENSION bdr CASCADE; DROP TABLE t, load');
	$c->wait_ok($processes, '0', 'and stops being one');
	$a->sql("SELECT bdr.part_node('node_c', force := true)", timeout => 60);
	both_ways_ok('after a member is gone without a word and was parted by force');
}

#
# Two nodes of one server; and databases that are none.
#
{
	$c->create_database($_) for ('second', 'plain', 'extension only');
	$c->sql('CREATE EXTENSION bdr', connstr => $c->dsn(dbname => 'extension only'));
	$c->sql('CREATE TABLE own (id int PRIMARY KEY, v text); INSERT INTO own SELECT i FROM generate_series(1, 1000) i');
	my $second = bless { %$c, bdr_db => 'second', bdr_node_name => 'node_2' }, 'BDR::Node';
	create_first_node($c, group => 'one_server');
	join_node($second, $c);
	replicating_ok($c, $second, 'two databases of one server are nodes');
	$c->sql("UPDATE own SET v = 'first' WHERE id < 100");
	$second->sql("UPDATE own SET v = 'second' WHERE id > 900; INSERT INTO own VALUES (2000, 'second')");
	same_ok($c, $second, 'own', 'and have the same rows');

	$c->restart;
	replicating_ok($c, $second, 'both replicate after a restart');
	my $elsewhere = q{SELECT count(*) FROM pg_stat_activity WHERE (backend_type ~ '^bdr' OR application_name ~ 'bdr')
		AND datname NOT IN ('db1', 'second')};
	$c->wait_ok($elsewhere, '0', 'nothing runs in databases without a node');
	my $seen = 0;
	for (1 .. 30)
	{
		$seen += $c->sql($elsewhere);
		usleep(100_000);
	}
	is($seen, 0, 'nor later');

	# Without FORCE the server wants a database without sessions: ours go by themselves.
	$c->sql("INSERT INTO own SELECT i, 'before the end' FROM generate_series(10001, 30000) i");
	$second->sql("INSERT INTO own SELECT i, 'before the end' FROM generate_series(30001, 50000) i");
	my $begin = time;
	$c->safe_psql('postgres', 'DROP DATABASE second', timeout => 60);
	cmp_ok(time - $begin, '<', 20, 'DROP DATABASE of a node while replicating');
	$c->wait_ok("SELECT count(*) FROM pg_replication_slots WHERE database = 'second'", '0', 'its slots are gone');
	$c->wait_ok("SELECT count(*) FROM pg_replication_origin WHERE roname ~ 'second'", '0', 'its origins are gone');
	$c->wait_ok("$processes AND datname IS DISTINCT FROM 'db1'", '0', 'its processes are gone');
	$c->wait_ok("$processes AND datname = 'db1' AND backend_type = 'bdr manager'", '1', 'those of the other node are not');
	$c->sql("INSERT INTO own VALUES (60000, 'alone')");
	pass('the other node goes on');
	$begin = time;
	$c->safe_psql('postgres', 'DROP DATABASE db1 WITH (FORCE)', timeout => 60);
	cmp_ok(time - $begin, '<', 20, 'DROP DATABASE WITH (FORCE)');
	$c->wait_ok($slots_of_bdr, '0', 'all slots are gone', db => 'postgres');
	$c->wait_ok($origins, '0', 'all origins are gone', db => 'postgres');
	$c->wait_ok($processes, '0', 'all processes are gone', db => 'postgres');
}

#
# DROP EXTENSION whose manager has no chance to clean up, as the server crashes.
#
{
	my $third = bless { %$c, bdr_db => 'third', bdr_node_name => 'node_3' }, 'BDR::Node';
	$third->create_database;
	join_node($third, $a);
	$third->wait_ok("SELECT count(*) FROM bdr.subscription_summary WHERE subscription_status = 'replicating'", '2', 'a third node again');
	my ($manager) = $third->pids('manager');
	kill 'STOP', $manager;
	$third->sql('DROP EXTENSION bdr CASCADE');
	$third->value_ok($slots_of_bdr, '3', 'nobody has cleaned up');
	$third->value_ok($origins, '2', 'neither origins');
	my $position = $third->log_position;
	kill 'KILL', $manager;
	ok(wait_until(sub { $third->log_since($position) =~ /all server processes terminated; reinitializing/ }), 'the server crashes');
	$third->wait_ok($slots_of_bdr, '0', 'slots are gone afterwards');
	$third->wait_ok($origins, '0', 'so are origins');
	$a->sql("SELECT bdr.part_node('node_3', force := true)", timeout => 60);
}

#
# The databases of two servers, one after the other.
#
{
	# what was asked for and is refused changes nothing
	my $session = $a->background_psql($a->db);
	$session->query_safe('SELECT 1');
	like($a->error_of('DROP DATABASE db1', db => 'postgres')->{message}, qr/is being accessed by other users/, 'a database with a session of a user stays');
	$session->quit;
	like($a->error_of('BEGIN; DROP DATABASE db1', db => 'postgres')->{message}, qr/cannot run inside a transaction block/, 'a command at a wrong place');
	both_ways_ok('after refused commands');

	my $backlog = "INSERT INTO t (v) SELECT repeat('backlog', 20) FROM generate_series(1, 30000)";
	$_->sql($backlog) for ($a, $b);
	my $position = $b->log_position;
	for my $node ($a, $b)
	{
		my $begin = time;
		$node->safe_psql('postgres', 'DROP DATABASE db1' . ($node == $b ? ' WITH (FORCE)' : ''), timeout => 60);
		cmp_ok(time - $begin, '<', 20, 'DROP DATABASE on ' . $node->name);
		$node->wait_ok($slots_of_bdr, '0', 'slots are gone', db => 'postgres');
		$node->wait_ok($origins, '0', 'origins are gone', db => 'postgres');
		$node->wait_ok($processes, '0', 'processes are gone', db => 'postgres');
		ok(wait_until(sub { $b->log_since($position) =~ /database "db1" does not exist/ }), 'its peer says why it receives nothing') if $node == $a;
	}
	# the name is free for another
	$a->safe_psql('postgres', 'CREATE DATABASE db1');
	$a->value_ok($slots_of_bdr, '0', 'a new database of the same name has nothing of the old one');
	stop_ok($_, 'with no node') for ($a, $b, $c);
}
done_testing();
