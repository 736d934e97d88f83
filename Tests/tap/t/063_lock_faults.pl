# Global locks when something is in the way: a voter that restarts, partitions, transactions that wait for one another in a
# circle, sessions that are cancelled, and a network that fails at any time.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::Link;
use BDR::Test;
use Test::More;

my $net = BDR::Link->new;
my ($a, $b, $c) = map { $net->node($_, conf => "bdr.ddl_locking = on\nmax_worker_processes = 40\nbdr.min_worker_backoff_delay = 100ms\nwal_receiver_timeout = 5s\nwal_sender_timeout = 5s\nwal_receiver_status_interval = 500ms") } qw(a b c);
my @nodes = ($a, $b, $c);
$a->sql('CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY);
	CREATE TABLE p (id int, r int, v text, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
	CREATE TABLE p_1 PARTITION OF p FOR VALUES IN (1);
	CREATE TABLE p_2 PARTITION OF p FOR VALUES IN (2) PARTITION BY RANGE (id);
	CREATE TABLE p_2_low PARTITION OF p_2 FOR VALUES FROM (0) TO (1000);
	CREATE TABLE p_2_high PARTITION OF p_2 FOR VALUES FROM (1000) TO (100000);
	CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent)');
create_first_node($a);
join_node($b, $a);
join_node($c, $b);
active_ok(\@nodes, 'three nodes');

sub session
{
	my ($node) = @_;
	my $session = $node->background_psql($node->db, on_error_stop => 0);
	$session->query_safe('SET client_min_messages = error');
	return $session;
}

# Has a session begin a statement that is going to wait.
sub begin
{
	my ($session, $sql) = @_;
	$session->query_until(qr/started/, "\\echo started\n$sql;\n");
	return;
}

sub free_ok
{
	my ($name, @members) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$_->wait_ok('SELECT count(*) FROM bdr.global_locks', '0', "$name: no lock on " . $_->name) for @members ? @members : @nodes;
	return;
}

# Nobody can write there now.
sub locked_ok
{
	my ($node, $sql, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($node->error_of("SET statement_timeout = '1s'; $sql")->{sqlstate}, '57014', "$name: waits on " . $node->name);
}

# What the node gets from the other one waits.
sub stop_receiving
{
	my ($node, $from) = @_;
	$node->sql("SELECT bdr.alter_subscription_disable(sub_name, true) FROM bdr.subscription s JOIN bdr.node n ON n.node_id = s.origin_node_id WHERE n.node_name = '@{[$from->node_name]}'");
	return;
}

sub go_on_receiving
{
	my ($node, $from) = @_;
	$node->sql("SELECT bdr.alter_subscription_enable(sub_name) FROM bdr.subscription s JOIN bdr.node n ON n.node_id = s.origin_node_id WHERE n.node_name = '@{[$from->node_name]}'");
	return;
}

sub cancel
{
	my ($node, $like) = @_;
	$node->sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE @{[quote_literal($like)]} AND state = 'active' AND pid <> pg_backend_pid()");
	$node->wait_ok("SELECT count(*) FROM pg_stat_activity WHERE query LIKE @{[quote_literal($like)]} AND state = 'active' AND pid <> pg_backend_pid()", '0', 'it is cancelled');
	return;
}

# --- A voter restarts: from its first statement on it knows what is locked ---
{
	my $holder = session($a);
	$holder->query_safe("BEGIN; SELECT bdr.global_lock_table('t')");
	for my $how ('immediate', 'fast')
	{
		$c->stop($how);
		$c->start;
		locked_ok($c, 'INSERT INTO t VALUES (1)', "after a restart ($how) of the voter");
	}
	$c->sql('INSERT INTO public.other VALUES (1)');
	$c->stop('immediate');
	$c->start;
	locked_ok($c, "SET search_path = ''; INSERT INTO public.t VALUES (1)", 'by its full name');
	$c->stop('immediate');
	$c->start;
	locked_ok($c, 'TRUNCATE t', 'TRUNCATE after a restart');
	$holder->query_safe('COMMIT');
	$holder->quit;
	$c->sql('INSERT INTO t VALUES (1)');
	all_same_ok(\@nodes, [ 't', 'other' ], 'after restarts');
	free_ok('after restarts');
}

# --- Partitions and children ---
{
	my $holder = session($a);
	$holder->query_safe("BEGIN; SELECT bdr.global_lock_table('p'), bdr.global_lock_table('parent')");
	for my $node (@nodes)
	{
		locked_ok($node, 'INSERT INTO p VALUES (1, 1)', 'a partitioned table');
		locked_ok($node, 'INSERT INTO p_1 VALUES (1, 1)', 'its partition');
		locked_ok($node, 'INSERT INTO p_2 VALUES (1, 2)', 'one that has partitions');
		locked_ok($node, 'INSERT INTO p_2_high VALUES (1001, 2)', 'a partition of that');
		locked_ok($node, 'INSERT INTO child VALUES (1)', 'a child');
	}
	my $error = $b->error_of("SET bdr.global_lock_timeout = '1s'; SELECT bdr.global_lock_table('p_2_low')");
	is($error->{sqlstate}, '55P03', 'nobody else gets a partition');
	like($error->{detail}, qr/"node_a", which has it/, 'as the table is locked');
	$error = $a->error_of("SET bdr.global_lock_timeout = '1s'; SELECT bdr.global_lock_table('p_1')");
	is($error->{sqlstate}, '55P03', 'nor does another session of the same node');
	$holder->query_safe('COMMIT');
	$_->sql("INSERT INTO p SELECT i * 10 + @{[ord($_->name)]} % 10, 1 + i % 2 FROM generate_series(1, 200) i") for @nodes;
	all_same_ok(\@nodes, ['p'], 'rows of partitions');
	free_ok('after partitions');

	# rows that were written before arrive when the table is locked already
	for my $case ([ 'p', 'ALTER TABLE p ALTER COLUMN v SET NOT NULL' ], [ 'p_1', "SELECT bdr.global_lock_table('p_1')" ],
		[ 'p_2', "SELECT bdr.global_lock_table('p_2')" ], [ 'parent', "SELECT bdr.global_lock_table('parent')" ])
	{
		my ($table, $statement) = @$case;
		stop_receiving($b, $c);
		$c->sql("UPDATE p SET v = '$table' || id; UPDATE p SET r = 3 - r WHERE id % 3 = 0; DELETE FROM p WHERE id % 17 = 1;
			INSERT INTO p SELECT coalesce(max(id), 0) + i, i, 'new' FROM p, generate_series(1, 2) i GROUP BY i;
			INSERT INTO child SELECT coalesce(max(id), 0) + 1 FROM child");
		begin($holder, $statement);
		$c->wait_ok("SELECT acquire_stage FROM bdr.global_locks WHERE relation = 'public.$table'", 'drain', "$table: c drains");
		$b->wait_ok("SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity s USING (pid) WHERE s.backend_type = 'bdr lock' AND mode = 'ExclusiveLock' AND granted AND relation = ANY (ARRAY['p'::regclass, 'p_1', 'p_2_low', 'parent'])", 't', "$table: b has locked it");
		go_on_receiving($b, $c);
		$holder->query_safe('SELECT 1');
		is($holder->{stderr}, '', "$table: the statement has run");
		$holder->{stderr} = '';
		all_same_ok(\@nodes, [ 'p', 'p_1', 'p_2_high', 'child' ], "$table, after its rows");
	}
	$_->value_ok("SELECT count(*) FROM bdr.worker_errors WHERE error_message !~ '^(08|57)'", '0', 'no worker has failed on ' . $_->name) for @nodes;
	$holder->quit;
	free_ok('after rows of partitions');
}

# --- Circles ---
{
	my @sessions = map { session($_) } @nodes;
	my @pids = map { $_->query_safe('SELECT pg_backend_pid()') } @sessions;
	$sessions[$_]->query_safe("BEGIN; SELECT bdr.global_advisory_lock(100 + $_)") for 0 .. 2;
	for my $i (0, 1)
	{
		begin($sessions[$i], 'SELECT bdr.global_advisory_lock(100 + ' . ($i + 1) . ')');
		$nodes[$i]->wait_ok("SELECT count(*) FROM bdr.global_lock WHERE pid = $pids[$i] AND blocked_by IS NOT NULL", '1', $nodes[$i]->name . ' waits for the next one');
	}
	$sessions[2]->query('SELECT bdr.global_advisory_lock(100)');
	like($sessions[2]->{stderr}, qr/deadlock detected.*nodes "node_a", "node_b", "node_c" wait for one another.*HINT/s, 'of a circle of three the last one gives in');
	$sessions[2]->{stderr} = '';
	$sessions[2]->query_safe('ROLLBACK');
	$sessions[1]->query_safe('COMMIT');
	$sessions[0]->query_safe('COMMIT');
	is($sessions[$_]->{stderr}, '', $nodes[$_]->name . ' goes on') for 0, 1;
	free_ok('after a circle of three');

	# what is waited for is a table that a session uses which waits itself
	$sessions[0]->query_safe('BEGIN; INSERT INTO t VALUES (1000)');
	$sessions[1]->query_safe('BEGIN; INSERT INTO u VALUES (1000)');
	begin($sessions[0], "SELECT bdr.global_lock_table('u')");
	$a->wait_ok("SELECT count(*) FROM bdr.global_lock WHERE pid = $pids[0] AND blocked_by = lock_id", '1', 'a waits for a session of b');
	$sessions[1]->query("SELECT bdr.global_lock_table('t')");
	like($sessions[1]->{stderr}, qr/deadlock detected.*nodes "node_a", "node_b" wait for one another/s, 'two sessions that use what the other one wants');
	$sessions[1]->{stderr} = '';
	$sessions[1]->query_safe('ROLLBACK');
	$sessions[0]->query_safe('COMMIT');
	$_->quit for @sessions;
	all_same_ok(\@nodes, [ 't', 'u' ], 'after a circle');
	free_ok('after a circle of sessions');
}

# --- Who waits, for whom; and cancel ---
{
	my ($user, $waiter) = (session($c), session($a));
	$user->query_safe('BEGIN; INSERT INTO t VALUES (2000)');
	my $pid = $waiter->query_safe('SELECT pg_backend_pid()');
	begin($waiter, 'ALTER TABLE t DROP COLUMN v');
	$a->wait_ok("SELECT origin_node_name, pid, statement, global_lock_request_time > now() - interval '1 minute', waiting_for FROM bdr.global_locks WHERE lock_type = 'GLOBAL_LOCK_DML'",
		"node_a|$pid|ALTER TABLE t DROP COLUMN v;|t|node_c", 'who waits, with what, since when, for whom');
	$c->value_ok("SELECT origin_node_name, relation, acquire_stage FROM bdr.global_locks WHERE lock_type = 'GLOBAL_LOCK_DML'", 'node_a|public.t|lock', 'and on the node that has not agreed');
	locked_ok($b, 'INSERT INTO t VALUES (2001)', 'one that has agreed');
	$a->sql("SELECT pg_cancel_backend($pid)");
	free_ok('cancelled');
	$b->sql('INSERT INTO t VALUES (2001)');
	$waiter->{stderr} = '';
	$user->query_safe('COMMIT');
	$_->quit for $user, $waiter;
	all_same_ok(\@nodes, ['t'], 'after a cancel');
}

# --- The network: while a lock is asked for ---
{
	my ($user, $waiter) = (session($b), session($a));
	# the node does not hear that the statement was cancelled, and its session does not notice
	$user->query_safe('BEGIN; INSERT INTO t VALUES (3000)');
	begin($waiter, "SELECT bdr.global_lock_table('t')");
	$b->wait_ok("SELECT acquire_stage FROM bdr.global_locks WHERE relation IS NOT NULL", 'lock', 'b has been asked');
	$net->cut($a, $b);
	cancel($a, "SELECT bdr.global_lock_table('t')%");
	free_ok('cancelled without a network', $a, $c);
	$b->value_ok('SELECT count(*) FROM bdr.global_locks', '1', 'b does not know');
	$user->query_safe('COMMIT');
	$net->heal($a, $b, 'stale');
	free_ok('b finds out');
	$b->sql('INSERT INTO t VALUES (3001)');
	$waiter->query('SELECT 1');
	like($waiter->{stderr}, qr/canceling statement/, 'it was cancelled');
	$waiter->{stderr} = '';

	# the statement goes on when the network is back, over another connection
	$user->query_safe('BEGIN; INSERT INTO t VALUES (3002)');
	begin($waiter, "BEGIN; SELECT bdr.global_lock_table('t')");
	$b->wait_ok("SELECT acquire_stage FROM bdr.global_locks WHERE relation IS NOT NULL", 'lock', 'b has been asked');
	my $first = $b->sql('SELECT lock_id FROM bdr.global_lock');
	$net->cut($a, $b);
	$a->wait_ok("SELECT count(*) FROM bdr.global_lock WHERE lock_id = $first", '0', 'a has given up this attempt');
	$user->query_safe('COMMIT');
	$net->heal($a, $b, 'stale');
	$waiter->query_safe('SELECT 1');
	is($waiter->{stderr}, '', 'the lock is there');
	$_->wait_ok("SELECT count(*), min(acquire_stage), bool_or(lock_id = $first) FROM bdr.global_locks l JOIN bdr.global_lock g USING (origin_node_id)", '1|confirmed|f', 'once, on ' . $_->name) for @nodes;
	locked_ok($b, 'INSERT INTO t VALUES (3003)', 'it holds');

	# what was sent over the first connection arrives late: it does not take the lock away
	$waiter->query_safe('ROLLBACK');
	free_ok('given back');
	$user->query_safe('BEGIN; INSERT INTO t VALUES (3004)');
	begin($waiter, "BEGIN; SELECT bdr.global_lock_table('t')");
	$b->wait_ok("SELECT acquire_stage FROM bdr.global_locks WHERE relation IS NOT NULL", 'lock', 'b has been asked');
	$first = $b->sql('SELECT lock_id FROM bdr.global_lock');
	$net->cut($a, $b);
	$a->wait_ok("SELECT count(*) FROM bdr.global_lock WHERE lock_id = $first", '0', 'a has given up this attempt');
	$user->query_safe('COMMIT');
	$net->heal($a, $b);
	$waiter->query_safe('SELECT 1');
	is($waiter->{stderr}, '', 'the lock is there');
	$b->wait_ok("SELECT count(*), min(acquire_stage) FROM bdr.global_locks", '1|confirmed', 'b has confirmed it');
	locked_ok($_, 'INSERT INTO t VALUES (3005)', 'and keeps it') for @nodes;
	$waiter->query_safe('COMMIT');
	$_->quit for $user, $waiter;
	all_same_ok(\@nodes, ['t'], 'after cuts');
	free_ok('after cuts');
}

# --- While it is drained, and held ---
{
	my $s = session($a);
	# b and c can't send one another what they wrote
	$net->cut($b, $c, 'reset');
	$_->sql("INSERT INTO t SELECT i FROM generate_series(4000, 4040) i WHERE i % 10 = @{[ord($_->name) % 10]}") for $b, $c;
	begin($s, "ALTER TABLE t ADD CHECK (id > 0)");
	$b->wait_ok("SELECT acquire_stage, waiting_for FROM bdr.global_locks WHERE relation IS NOT NULL", 'drain|node_c', 'b waits until c has its rows');
	$net->heal($b, $c);
	$s->query_safe('SELECT 1');
	is($s->{stderr}, '', 'and goes on when the network is back');
	all_same_ok(\@nodes, [ 't', "SELECT conname FROM pg_constraint WHERE conrelid = 't'::regclass" ], 'after the drain');
	free_ok('after the drain');

	# committed, and rolled back, where a voter does not hear it
	for my $end ('COMMIT', 'ROLLBACK')
	{
		for my $how ('silent', 'reset')
		{
			$s->query_safe("BEGIN; SELECT bdr.global_lock_table('t')");
			$net->cut($a, $b, $how);
			$s->query_safe($end);
			locked_ok($b, 'INSERT INTO t VALUES (4100)', "$end without a network ($how)");
			$net->heal($a, $b, $how eq 'silent' ? 'stale' : 'resume');
			free_ok("$end, network back ($how)");
		}
	}
	# its session is killed, where a voter does not hear it
	$s->query_safe("BEGIN; SELECT bdr.global_lock_table('t')");
	$net->cut($a, $b);
	$a->sql("SELECT pg_terminate_backend(pid) FROM bdr.global_locks WHERE pid IS NOT NULL");
	eval { $s->quit };
	locked_ok($b, 'INSERT INTO t VALUES (4100)', 'the holder is killed without a network');
	$net->heal($a, $b, 'stale');
	free_ok('it was killed');
	$b->sql('INSERT INTO t VALUES (4100)');
	all_same_ok(\@nodes, ['t'], 'after locks without a network');
}

# --- A node that is dead, and parted ---
{
	my ($s, $held) = (session($a), session($b));
	$held->query_safe("BEGIN; SELECT bdr.global_lock_table('u')");
	$c->stop('immediate');
	begin($s, 'ALTER TABLE t DROP COLUMN v');
	$a->wait_ok("SELECT count(*) > 0 FROM bdr.global_locks WHERE lock_type = 'GLOBAL_LOCK_DML' AND pid IS NOT NULL AND waiting_for LIKE '%node_c'", 't', 'a waits for the dead node');
	$a->sql("SELECT bdr.part_node('node_c', force := true, wait_for_completion := true)");
	$s->query_safe('SELECT 1');
	is($s->{stderr}, '', 'the statement goes on when the dead node is parted');
	locked_ok($a, 'INSERT INTO u VALUES (5000)', 'what was locked stays locked');
	$held->query_safe('COMMIT');
	$_->quit for $s, $held;
	@nodes = ($a, $b);
	all_same_ok(\@nodes, [ 't', 'u', "SELECT attname FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped" ], 'of those that are left');
	free_ok('of those that are left');
}

logs_ok(@nodes);
done_testing;
