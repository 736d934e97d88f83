# A peer that is away for a while, connections that break, locks and deadlocks: retried until it works, nothing skipped. An
# error in the data stops that one stream, says where, and goes on when it is mended.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;
use Time::HiRes qw(time sleep);

my ($a, $b) = node_pair(
	conf => "wal_sender_timeout = '3s'\nwal_receiver_timeout = '3s'\ndeadlock_timeout = '200ms'",
	setup => q{CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 10) i});
my $status = 'SELECT subscription_status FROM bdr.subscription_summary';

# The peer stops for a while.
$b->stop;
$a->sql("INSERT INTO t SELECT i, 'while away' FROM generate_series(101, 200) i");
ok(wait_until(sub { $a->sql($status) ne 'replicating' }), 'the view says that the peer is away: ' . $a->sql($status));
$a->value_ok("SELECT active, state FROM bdr.node_slots WHERE target_name = 'node_b'", 'f|disconnected', 'and so does its slot');
$a->wait_ok("SELECT count(*) > 0 FROM bdr.worker_errors", 't', 'the failing connection is in worker_errors');
$a->wait_ok("SELECT replay_lag > '1s', replay_lag_bytes > 0, retained_wal_bytes > 0, state, subscription_status, last_error_sqlstate, last_error_time IS NOT NULL
	FROM bdr.node_replication_rates", 't|t|t|disconnected|error|08001|t', 'and how far behind it is, in bytes and in time');
my $position = $a->log_position;
sleep 4;
my $attempts = () = $a->log_since($position) =~ /could not connect|connection to server|could not receive/g;
cmp_ok($attempts, '<', 30, "the worker does not hammer ($attempts lines in 4 s)");
$b->start;
replicating_ok($a, $b, 'both reconnect by themselves');
$a->wait_ok("SELECT apply_rate > 0 AND catchup_interval < '1min' AND replay_lag < '10s' FROM bdr.node_replication_rates", 't', 'how fast it catches up is shown');
same_ok($a, $b, 't', 'nothing is missing after the peer was away');

# Both away at once, writes on each before the other is back.
$b->stop('immediate');
$a->sql("INSERT INTO t VALUES (301, 'a')");
$a->stop;
$b->start;
$b->sql("INSERT INTO t VALUES (302, 'b')");
$a->start;
same_ok($a, $b, 't', 'each was written while the other was down');

# Connections are cut while idle and while busy.
for my $round (1 .. 3)
{
	$_->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walsender'") for ($a, $b);
	$a->sql("INSERT INTO t SELECT i, 'round $round' FROM generate_series($round * 1000, $round * 1000 + 100) i");
}
same_ok($a, $b, 't', 'walsenders terminated');
$b->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type ~ '^bdr (apply|manager|supervisor)'");
$a->sql("INSERT INTO t VALUES (5000, 'after')");
same_ok($a, $b, 't', 'bdr workers terminated');
{
	my $backend = join ' ', sort $a->pids('walsender');
	sleep 5;
	is(join(' ', sort $a->pids('walsender')), $backend, 'an idle connection outlives wal_sender_timeout');
}

# Locks: apply waits and goes on.
{
	my $session = $b->background_psql($b->db);
	$session->query_safe('BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE');
	$a->sql("UPDATE t SET v = 'behind a lock' WHERE id = 1");
	sleep 1;
	$session->query_safe('COMMIT');
	$session->quit;
	same_ok($a, $b, 't', 'apply waited for a table lock');
}
{
	my $session = $b->background_psql($b->db, on_error_stop => 0);
	$session->query_safe("BEGIN; UPDATE t SET v = 'by b' WHERE id = 2");
	$a->sql("BEGIN; UPDATE t SET v = 'by a' WHERE id = 1; UPDATE t SET v = 'by a' WHERE id = 2; COMMIT");
	$b->wait_ok("SELECT count(*) FROM pg_locks WHERE NOT granted", '1', 'apply waits for a row lock');
	$session->query("UPDATE t SET v = 'by b' WHERE id = 1; COMMIT");
	$session->quit;
	same_ok($a, $b, 't', 'a deadlock between apply and a user was resolved and retried');
}

# An error in the data.
$a->sql_here('CREATE TABLE only_on_a (id int PRIMARY KEY, v text)');
$position = $b->log_position;
$a->sql("BEGIN; INSERT INTO t VALUES (6000, 'same transaction'); INSERT INTO only_on_a VALUES (1, 'x'); COMMIT");
$a->sql("INSERT INTO t VALUES (6001, 'after it')");
$b->wait_ok("SELECT subscription_status FROM bdr.subscription_summary", 'error', 'the stream with the error shows it');
$b->wait_ok("SELECT count(*) > 0 FROM bdr.worker_errors WHERE error_message ~ 'only_on_a'", 't', 'and the error is recorded');
my $error = $b->sql('SELECT error_message || E\'\n\' || error_context_message FROM bdr.worker_errors ORDER BY error_time DESC LIMIT 1');
like($error, qr/only_on_a/, 'the message names the table');
like($error, qr/INSERT.*"?public"?\."?only_on_a"? from node "node_a".*commit LSN [0-9A-F]+\/[0-9A-F]+.*change #\d+/s, 'the context names operation, table, node, commit and change');
like($b->log_since($position), qr/during apply of INSERT to .*only_on_a/, 'the log as well');
$b->value_ok('SELECT count(*) FROM t WHERE id >= 6000', '0', 'nothing of the transaction, and nothing after it, is applied');
$b->sql("INSERT INTO t VALUES (7000, 'other direction')");
$a->wait_ok('SELECT v FROM t WHERE id = 7000', 'other direction', 'the other direction goes on');
$b->sql_here('CREATE TABLE only_on_a (id int PRIMARY KEY, v text)');
same_ok($a, $b, 'only_on_a', 'it goes on when the table is there');
same_ok($a, $b, 't', 'with nothing skipped');
replicating_ok($a, $b, 'both replicate again');

$b->sql_here("ALTER TABLE t ADD CONSTRAINT strict CHECK (v <> 'bad')");
$a->sql("INSERT INTO t VALUES (8000, 'bad')");
$b->wait_ok($status, 'error', 'a CHECK of the receiver stops the stream');
$error = $b->sql('SELECT error_message || E\'\n\' || error_context_message FROM bdr.worker_errors ORDER BY error_time DESC LIMIT 1');
like($error, qr/strict.*during apply of INSERT to .*t.* from node "node_a"/s, 'and is named: ' . (split /\n/, $error)[0]);
$b->restart;
$b->wait_ok($status, 'error', 'after a restart as well');
$b->sql_here('ALTER TABLE t DROP CONSTRAINT strict');
same_ok($a, $b, 't', 'it goes on without the CHECK');

logs_ok($a, $b);
done_testing();
