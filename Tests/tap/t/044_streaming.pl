# Large transactions are applied while they are in progress: what is committed, rolled back (all of it, or savepoints),
# several at a time, with others in between; and where one can't be applied before its commit, it is applied after it.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;

my ($a, $b) = node_pair(
	conf => "bdr.streaming_work_mem = '64kB'\nbdr.writers_per_subscription = 2\ndeadlock_timeout = '200ms'\nmax_worker_processes = 30",
	setup => q{
	CREATE TABLE t (id int PRIMARY KEY, x text, y int);
	CREATE TABLE other (id int PRIMARY KEY, x text);
	CREATE TABLE big (id int PRIMARY KEY, x text);
	ALTER TABLE big ALTER x SET STORAGE EXTERNAL;
	});

my $writers = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'bdr writer'};
my $applied = q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'bdr writer' AND backend_xid IS NOT NULL};

sub insert_text
{
	my ($from, $to) = @_;
	return "INSERT INTO t SELECT i, repeat('x', 200), 0 FROM generate_series($from, $to) i";
}
sub same
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_caught_up($a, $b);
	same_rows($a, $b, $_, "$name: rows of $_") for 't', 'other', 'big';
	return;
}
# A session with a transaction that is being applied on the peer.
sub session
{
	my ($node, @statements) = @_;
	my $session = $node->background_psql($node->db);
	$session->query_safe($_) for 'BEGIN', @statements;
	return $session;
}
# How often the log says that a transaction had to be applied as a whole.
sub refusals
{
	my ($node) = @_;
	my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
	return scalar(() = $log =~ /is applied when it is committed/g);
}

# in progress here, in progress there
{
	my $session = session($a, insert_text(1, 5000));
	$b->wait_ok($applied, 't', 'a writer applies the transaction in progress');
	$b->wait_ok(q{SELECT pg_relation_size('t') > 500000}, 't', 'its rows are being written');
	$b->value_ok('SELECT count(*) FROM t', '0', 'nobody sees them');
	$a->sql(q{INSERT INTO other SELECT i, 'in between' FROM generate_series(1, 10) i});
	$b->wait_ok('SELECT count(*) FROM other', '10', 'other transactions pass it');
	$session->query_safe($_)
		for 'UPDATE t SET y = id WHERE id % 2 = 0', 'DELETE FROM t WHERE id % 5 = 0', 'UPDATE t SET id = id + 10000 WHERE id % 7 = 0';
	$session->query_safe('COMMIT');
	$session->quit;
	same('committed');
	$b->value_ok('SELECT count(DISTINCT pg_xact_commit_timestamp(xmin)) FROM t', '1', 'one commit');
	is($b->sql('SELECT DISTINCT pg_xact_commit_timestamp(xmin) FROM t'), $a->sql('SELECT DISTINCT pg_xact_commit_timestamp(xmin) FROM t'),
		'dated as on the origin');
	$b->value_ok('SELECT count(DISTINCT (pg_xact_commit_timestamp_origin(xmin)).roident) FROM t', '1', 'and marked with the origin');
	is(refusals($b), 0, 'none was refused');
}

# rolled back
{
	my $session = session($a, insert_text(20001, 24000), 'UPDATE t SET y = -1 WHERE id < 100');
	$b->wait_ok($applied, 't', 'another one is applied');
	$session->query_safe('ROLLBACK');
	$session->quit;
	$a->sql(q{INSERT INTO other VALUES (11, 'after a rollback')});
	same('rolled back');
	$b->wait_ok($applied, 'f', 'and gone on the peer');
}

# savepoints: released, rolled back, nested, with changes before and after
{
	my $session = session($a, insert_text(20001, 21000),
		'SAVEPOINT s1', insert_text(21001, 22000), 'UPDATE t SET y = 1 WHERE id BETWEEN 20001 AND 20010', 'ROLLBACK TO s1',
		'SAVEPOINT s2', insert_text(22001, 23000), 'SAVEPOINT s3', insert_text(23001, 24000), 'RELEASE s3',
		'UPDATE t SET y = 2 WHERE id BETWEEN 20011 AND 20020', 'SAVEPOINT s4', 'DELETE FROM t WHERE id BETWEEN 22001 AND 22500',
		'SAVEPOINT s5', insert_text(24001, 25000), 'ROLLBACK TO s4', insert_text(25001, 26000), 'RELEASE s2',
		insert_text(26001, 27000), 'SAVEPOINT s6', insert_text(27001, 28000), 'SAVEPOINT s7', insert_text(28001, 29000), 'ROLLBACK TO s6',
		insert_text(27001, 27500));
	$b->wait_ok($applied, 't', 'one with savepoints is applied');
	$session->query_safe('COMMIT');
	$session->quit;
	same('savepoints');
	$b->value_ok('SELECT count(*) FROM t WHERE id BETWEEN 20001 AND 29999', '5500', 'the right rows are there');
	# each row in a subtransaction, some fail
	$a->sql(q{DO $$ BEGIN FOR i IN 1..500 LOOP
		BEGIN INSERT INTO t VALUES (30000 + i, repeat('s', 500), i); IF i % 3 = 0 THEN RAISE division_by_zero; END IF;
		EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$});
	same('many subtransactions');
	is(refusals($b), 0, 'none was refused');
	$a->sql(q{DO $$ BEGIN FOR i IN 1..3000 LOOP
		BEGIN INSERT INTO t VALUES (40000 + i, repeat('s', 500), i); EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$});
	same('more subtransactions than there may be levels');
	is(refusals($b), 1, 'those are applied after the commit');
}
# Streaming begins again after a pause of a minute; a new worker begins with it.
sub stream_again
{
	$b->sql('SELECT bdr.alter_subscription_disable()');
	$b->wait_ok(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('bdr apply', 'bdr writer')}, '0', 'the worker has ended');
	# the new one's pause is that of the last
	$b->stop('fast');
	$b->start;
	$b->sql('SELECT bdr.alter_subscription_enable()');
	wait_caught_up($a, $b);
	return;
}
stream_again();

# two at a time, which end in the other order; and more than there are writers
{
	my $before = refusals($b);
	my @sessions = map { session($a, insert_text(100000 + $_ * 10000, 100000 + $_ * 10000 + 3000)) } 1 .. 2;
	$b->wait_ok($writers, '2', 'two writers');
	$sessions[1]->query_safe('COMMIT');
	wait_caught_up($a, $b);
	$b->value_ok('SELECT count(*) FROM t WHERE id BETWEEN 120000 AND 129999', '3001', 'the second is committed first');
	$sessions[0]->query_safe('COMMIT');
	$_->quit for @sessions;
	same('two at a time');
	is(refusals($b), $before, 'none was refused');
	@sessions = map { session($a, insert_text(200000 + $_ * 10000, 200000 + $_ * 10000 + 3000)) } 1 .. 4;
	$_->query_safe('COMMIT') for @sessions;
	$_->quit for @sessions;
	same('more than there are writers');
	stream_again();
}

# Tables that are met first in a transaction which turns out to have been rolled back: what comes later of them is sent.
{
	$_->sql('SET bdr.ddl_replication = off; CREATE TABLE met (id int PRIMARY KEY, x text)') for $a, $b;
	$b->sql('SELECT bdr.alter_subscription_disable()');
	$b->wait_ok(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('bdr apply', 'bdr writer')}, '0', 'the worker has ended');
	# the sender has opened it for a row that came from the other node, and which it does not send
	$b->sql(q{INSERT INTO met VALUES (0, 'not sent back')});
	$a->wait_ok('SELECT count(*) FROM met', '1', 'a row of the other node is here');
	for my $round (1 .. 20)
	{
		$a->sql(q{BEGIN; INSERT INTO met SELECT -i, repeat('x', 200) FROM generate_series(1, 2000) i; ROLLBACK});
		$a->sql("INSERT INTO met SELECT i, repeat('y', 200) FROM generate_series($round * 1000, $round * 1000 + 500) i");
	}
	$b->sql('SELECT bdr.alter_subscription_enable()');
	wait_caught_up($a, $b);
	same_rows($a, $b, 'met', 'a table that a transaction met first which was rolled back');
	stream_again();
}

# large values, a TRUNCATE
$a->sql(q{INSERT INTO big SELECT i, repeat(md5(i::text), 1000) FROM generate_series(1, 50) i});
$a->sql(q{BEGIN; UPDATE big SET x = x || 'y' WHERE id % 2 = 0; } . insert_text(300001, 303000) . q{; UPDATE big SET id = id + 100 WHERE id < 10; COMMIT});
same('large values');
$a->sql('BEGIN; TRUNCATE t; ' . insert_text(1, 3000) . '; COMMIT');
same('a TRUNCATE');

# A row that this node has changed is a conflict: decided when the commit is known, by its time.
{
	$b->sql(q{UPDATE t SET y = 77 WHERE id = 5});
	wait_caught_up($a, $b);
	my $session = session($a, 'UPDATE t SET y = 1 WHERE id < 3000');
	$session->query_safe('COMMIT');
	$session->quit;
	same('an update of a row of the other node');
	$b->value_ok('SELECT y FROM t WHERE id = 5', '1', 'the later one wins');
	stream_again();
	# changed by somebody before it arrives, and committed after that is
	$session = session($a, insert_text(400001, 403000), 'UPDATE t SET y = 2 WHERE id < 2000');
	$b->wait_ok($applied, 't', 'applied while in progress');
	my $is_locked = 'SELECT count(*) FROM (SELECT FROM t WHERE id = 1000 FOR UPDATE SKIP LOCKED) AS free';
	$b->wait_ok($is_locked, '0', 'up to the row');
	my $writer = $b->background_psql($b->db);
	$writer->query_until(qr/begun/, "\\echo begun\nUPDATE t SET y = 78 WHERE id IN (1000, 2500);\n");
	$b->wait_ok(q{SELECT count(*) > 0 FROM pg_locks WHERE NOT granted}, 't', 'for which a local session waits');
	$session->query_safe('COMMIT');
	$session->quit;
	$writer->quit;
	same('updated on both nodes');
	$b->value_ok('SELECT y FROM t WHERE id = 1000', '78', 'who waited for the row has changed it last');
	stream_again();
}

# A deadlock with a local session, and one of the writer's errors, end with the transaction applied as a whole.
{
	my $session = session($a, 'UPDATE t SET y = 3 WHERE id < 900', insert_text(500001, 503000));
	$b->wait_ok($applied, 't', 'applied while in progress');
	# whoever is chosen to fail
	my $local = $b->background_psql($b->db, on_error_stop => 0);
	$local->query_safe($_) for 'BEGIN', 'UPDATE t SET y = 4 WHERE id = 2999';
	$local->query_until(qr/begun/, "\\echo begun\nUPDATE t SET y = 4 WHERE id = 10;\n");
	$b->wait_ok(q{SELECT count(*) > 0 FROM pg_locks WHERE NOT granted}, 't', 'a local session waits for it');
	$session->query_safe('UPDATE t SET y = 3 WHERE id = 2999');
	$session->query_safe($_) for insert_text(503001, 504000), 'COMMIT';
	$session->quit;
	$local->query('COMMIT');
	$local->quit;
	same('after a deadlock');
	stream_again();
}
{
	$b->sql('SET bdr.ddl_replication = off; ALTER TABLE t ADD CONSTRAINT small CHECK (y <> 1234567)');
	my $session = session($a, insert_text(600001, 603000), 'UPDATE t SET y = 1234567 WHERE id = 600001');
	$session->query_safe('COMMIT');
	$session->quit;
	$b->wait_ok(q{SELECT count(*) > 0 FROM bdr.worker_errors WHERE error_message LIKE '23514:%small%'}, 't', 'an error is told as always');
	$b->sql('SET bdr.ddl_replication = off; ALTER TABLE t DROP CONSTRAINT small');
	same('when its cause is gone');
	stream_again();
}

# What they wait for one another here, but not on their origin, ends, too: by a unique index that is here only.
{
	$b->sql('SET bdr.ddl_replication = off; CREATE UNIQUE INDEX only_here ON other (x) WHERE id >= 1000');
	my $session = session($a, q{INSERT INTO other VALUES (1000, 'same')}, insert_text(650001, 653000));
	$b->wait_ok($applied, 't', 'applied while in progress');
	$a->sql(q{INSERT INTO other VALUES (1001, 'same')});
	$b->wait_ok(q{SELECT count(*) FROM bdr.worker_errors WHERE error_message LIKE '55P03:%'}, '1', 'a transaction does not wait for it for ever');
	$b->wait_ok(q{SELECT count(*) FROM other WHERE id = 1001}, '1', 'and is applied first');
	$b->sql('SET bdr.ddl_replication = off; DROP INDEX only_here');
	$session->query_safe('COMMIT');
	$session->quit;
	same('after waiting for one another');
	stream_again();
}

# killed: the writer, the worker, the server
for my $victim ('writer', 'apply', 'server')
{
	my $session = session($a, insert_text(700001, 703000));
	$b->wait_ok($applied, 't', 'applied while in progress');
	if ($victim eq 'server')
	{
		$b->stop('immediate');
		$b->start;
	}
	elsif ($victim eq 'writer')
	{
		$b->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'bdr writer'});
	}
	else
	{
		$b->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'bdr apply'});
	}
	$session->query_safe($_) for insert_text(703001, 706000), 'COMMIT';
	$session->quit;
	same("$victim killed");
	$b->value_ok('SELECT count(*) FROM t WHERE id > 700000', '6000', "$victim killed: all is there, once");
	$a->sql('DELETE FROM t WHERE id > 700000');
	same('deleted');
	stream_again();
}

# off
$b->sql("ALTER SYSTEM SET bdr.default_streaming_mode = 'off'");
$b->sql('SELECT pg_reload_conf()');
stream_again();
{
	my $session = session($a, insert_text(800001, 803000));
	$a->sql(q{INSERT INTO other VALUES (12, 'x')});
	wait_caught_up($a, $b);
	$b->value_ok($writers, '0', 'no writer when streaming is off');
	$session->query_safe('COMMIT');
	$session->quit;
	same('not streamed');
}
$b->sql('SELECT bdr.alter_subscription_disable()');
$b->wait_ok($writers, '0', 'no writer is left');

done_testing();
