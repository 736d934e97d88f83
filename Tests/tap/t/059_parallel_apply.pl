# Small transactions that wait are applied by several processes: each exactly once, in the order of the origin, whatever they have
# to do with one another, with the other node's writes, with locks of users, and with what fails.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;

my ($a, $b) = node_pair(
	conf => "bdr.writers_per_subscription = 4\ndeadlock_timeout = '100ms'\nmax_worker_processes = 30\n"
		. "bdr.min_worker_backoff_delay = 50ms\nbdr.max_worker_backoff_delay = 500ms",
	setup => q{
	CREATE TABLE t (id int PRIMARY KEY, x text, n int NOT NULL DEFAULT 0);
	CREATE TABLE log (id int, x text);
	CREATE TABLE mail (id int PRIMARY KEY, address text UNIQUE);
	CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES t ON DELETE CASCADE);
	CREATE TABLE part (id int PRIMARY KEY, x text) PARTITION BY RANGE (id);
	CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (MINVALUE) TO (500);
	CREATE TABLE part_high PARTITION OF part FOR VALUES FROM (500) TO (MAXVALUE);
	CREATE TABLE counted (id int PRIMARY KEY);
	CREATE TABLE numbers (id int, CONSTRAINT numbers_pk PRIMARY KEY (id));
	CREATE UNLOGGED TABLE seen (id int, others int);
	ALTER TABLE t REPLICA IDENTITY DEFAULT;
	});

# Writers are started when enough waits, which depends on how fast it comes; here it surely does.
my $shared = 1;
sub off { $b->sql('SELECT bdr.alter_subscription_disable()');
	return $b->wait_ok(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('bdr apply', 'bdr writer')}, '0', 'nothing is applied'); }
sub on { return $b->sql('SELECT bdr.alter_subscription_enable()'); }
sub same
{
	my ($name, @tables) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_caught_up($a, $b);
	my $writers = $b->sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'bdr writer'});
	cmp_ok($writers, '>=', 1, "$name: writers took part") if $shared;
	note("$name: $writers writers");
	same_rows($a, $b, $_, "$name: rows of $_") for @tables;
	return;
}
# Runs a statement in as many transactions as there are numbers; %d stands for the number.
sub many
{
	my ($node, $from, $to, @statements) = @_;
	my $text = join '; ', map { "EXECUTE format(\$f\$$_\$f\$, i)" } @statements;
	$text =~ s/%d/%1\$s/g;
	$node->sql("DO \$do\$ BEGIN FOR i IN $from..$to LOOP $text; COMMIT; END LOOP; END \$do\$");
	return;
}

# independent ones
off();
many($a, 1, 4000, q{INSERT INTO t VALUES (%d, 'row', 0)}, q{INSERT INTO log VALUES (%d, 'x')});
on();
same('independent rows', 't', 'log');
$shared = 0;

# in the order of the origin
$b->sql(q{
	CREATE FUNCTION order_seen() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.seen VALUES (NEW.id, (SELECT count(*) FROM public.counted));
		RETURN NEW;
	END $$;
	CREATE TRIGGER seen BEFORE INSERT ON counted FOR EACH ROW EXECUTE FUNCTION order_seen();
	ALTER TABLE counted ENABLE ALWAYS TRIGGER seen;});
off();
many($a, 1, 1500, q{INSERT INTO t VALUES (10000 + %d, 'between')}, q{INSERT INTO counted SELECT %d WHERE %d %% 10 = 0});
on();
same('with a trigger', 't', 'counted');
$b->value_ok('SELECT count(*), count(*) FILTER (WHERE others = id / 10 - 1) FROM seen', '150|150', 'a trigger sees all that came before, and no more');

# one row again and again, rows that come and go under one key, keys that change
off();
many($a, 1, 1500, q{UPDATE t SET n = n + 1, x = 'v%d' WHERE id = %d %% 7 + 1}, q{UPDATE t SET n = n + 1 WHERE id = %d %% 50 + 100});
many($a, 1, 1000, q{INSERT INTO t VALUES (20000 + %d %% 5, 'there')}, q{DELETE FROM t WHERE id = 20000 + %d %% 5});
many($a, 1, 1000, q{INSERT INTO t VALUES (30000 + %d, 'new')});
many($a, 1, 1000, q{UPDATE t SET id = id + 10000 WHERE id = 30000 + %d});
many($a, 1, 1000, q{UPDATE t SET id = 31000 + %d WHERE id = 40000 + %d}, q{DELETE FROM t WHERE id = 31000 + %d AND %d %% 3 = 0});
on();
same('dependent changes', 't');

# values of another unique index that move from row to row, a foreign key, partitions
off();
$a->sql(q{INSERT INTO mail SELECT i, 'address ' || i FROM generate_series(1, 10) i});
many($a, 1, 1000, q{UPDATE mail SET address = 'cold ' || id WHERE address = 'hot'}, q{UPDATE mail SET address = 'hot' WHERE id = %d %% 10 + 1});
many($a, 1, 1000, q{DELETE FROM mail WHERE id = %d %% 10 + 1},
	q{INSERT INTO mail SELECT %d %% 10 + 1, 'again ' || %d %% 4 ON CONFLICT DO NOTHING});
many($a, 1, 800, q{INSERT INTO t VALUES (50000 + %d, 'parent')});
many($a, 1, 800, q{INSERT INTO child VALUES (%d, 50000 + %d)});
many($a, 1, 800, q{DELETE FROM t WHERE id = 50000 + %d AND %d %% 2 = 0});
many($a, 1, 1000, q{INSERT INTO part VALUES (%d, 'p')});
many($a, 1, 1000, q{UPDATE part SET id = id + 1000, x = 'other side' WHERE id = %d AND id < 300}, q{DELETE FROM part WHERE id = 1000 + %d - 50 AND %d %% 3 = 0});
on();
same('other ways to meet', 't', 'mail', 'child', 'part');

# the node that applies writes the same rows
{
	my $before = $b->sql(q{SELECT count(*) FROM bdr.conflict_history});
	off();
	many($a, 1, 1000, q{UPDATE t SET x = 'a%d' WHERE id = %d}, q{INSERT INTO t VALUES (60000 + %d, 'a')});
	many($b, 1, 1000, q{UPDATE t SET x = 'b%d' WHERE id = 1 + (%d * 3) %% 1000}, q{INSERT INTO t VALUES (60000 + %d * 2, 'b')},
		q{DELETE FROM t WHERE id = 2000 + %d});
	many($a, 1, 1000, q{UPDATE t SET n = -1 WHERE id = 2000 + %d}, q{DELETE FROM t WHERE id = 10000 + %d});
	on();
	same('conflicts', 't');
	cmp_ok($b->sql(q{SELECT count(*) FROM bdr.conflict_history}), '>=', $before + 1000, 'conflicts are recorded');
	$b->value_ok(q{SELECT count(*) FROM bdr.conflict_history GROUP BY remote_commit_lsn, remote_change_nr, conflict_type HAVING count(*) > 1 LIMIT 1},
		'', 'each of them once');
}

# users hold locks: on a row of an early transaction, while they wait for one of a late transaction
{
	off();
	many($a, 1, 600, q{UPDATE t SET n = 5 WHERE id = %d});
	many($a, 601, 1200, q{INSERT INTO t VALUES (70000 + %d, 'late')}, q{UPDATE t SET n = 5 WHERE id = %d});
	my @sessions = map { my $s = $b->background_psql($b->db); $s->query_safe("BEGIN; UPDATE t SET n = 7 WHERE id = $_ * 97"); $s } 1 .. 6;
	on();
	$b->wait_ok(q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type IN ('bdr apply', 'bdr writer') AND wait_event_type = 'Lock'}, 't',
		'a user holds up the stream');
	# rows in front of it, which others may have written already
	for my $i (0 .. $#sessions)
	{
		$sessions[$i]->query(sprintf 'SET lock_timeout = 300; UPDATE t SET n = 8 WHERE id BETWEEN %d AND %d', ($i + 1) * 97 + 1, ($i + 1) * 97 + 3);
		$sessions[$i]->query_safe('ROLLBACK');
		$sessions[$i]->quit;
	}
	same('held up by users', 't');
}

# a user waits for a row that a later transaction has written, and holds one of an earlier transaction
{
	$_->sql(q{INSERT INTO numbers SELECT generate_series(1, 3000)}) for $a;
	wait_caught_up($a, $b);
	off();
	many($a, 1, 3000, q{DELETE FROM numbers WHERE id = %d});
	my @sessions = map { my $s = $b->background_psql($b->db); $s->query_safe('BEGIN; SELECT FROM numbers WHERE id = ' . (100 * $_) . ' FOR UPDATE'); $s } 1 .. 5;
	on();
	for my $i (1 .. 5)
	{
		$b->wait_ok(q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type IN ('bdr apply', 'bdr writer') AND wait_event_type = 'Lock'},
			't', "held up, $i");
		# deadlocks are for the server to end, everything else for us
		$sessions[ $i - 1 ]->query('SELECT count(*) FROM (SELECT FROM numbers WHERE id BETWEEN ' . (100 * $i + 1) . ' AND ' . (100 * $i + 8) . ' FOR UPDATE) x');
		$sessions[ $i - 1 ]->query('ROLLBACK');
		$sessions[ $i - 1 ]->quit;
	}
	same('a user in between', 'numbers');
	$b->value_ok('SELECT count(*) FROM numbers', '0', 'all are deleted');
}

# errors: what is in the way is told as ever, nothing before it is lost, nothing after it is applied, and it goes on
{
	$b->sql(q{SET bdr.ddl_replication = off; ALTER TABLE log ADD CONSTRAINT no_bad CHECK (x <> 'bad')});
	off();
	many($a, 1, 900, q{INSERT INTO t VALUES (80000 + %d, 'e')}, q{INSERT INTO log SELECT 80000 + %d, CASE WHEN %d = 555 THEN 'bad' ELSE 'good' END});
	on();
	$b->wait_ok(q{SELECT DISTINCT left(error_message, 6) FROM bdr.worker_errors WHERE error_message LIKE '%no_bad%'}, '23514:', 'the error is told');
	$b->wait_ok(q{SELECT max(id) FROM t}, '80554', 'all before is there, and nothing after');
	$b->value_ok(q{SELECT count(*) FROM log WHERE id >= 80000}, '554', 'in both tables');
	$b->sql('SET bdr.ddl_replication = off; ALTER TABLE log DROP CONSTRAINT no_bad');
	same('after an error', 't', 'log');
}

# a crash in the middle, of all or of one process
for my $round (1 .. 4)
{
	off();
	many($a, 1, 2500, "INSERT INTO t VALUES (100000 * $round + %d, 'crash')", q{UPDATE t SET n = n + 1 WHERE id = %d %% 40 + 1}, q{INSERT INTO log VALUES (%d, 'crash')});
	on();
	$b->wait_ok("SELECT count(*) > 300 FROM t WHERE id BETWEEN 100000 * $round AND 100000 * $round + 99999", 't', "it is being applied, $round");
	if ($round % 2)
	{
		$b->stop('immediate');
		$b->start;
	}
	else
	{
		# then one process goes on
		$b->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'bdr writer'});
	}
	same("after a crash $round", 't', 'log');
}
$b->value_ok(q{SELECT count(*) FROM log WHERE x = 'crash'}, '10000', 'each row once');

# with one process it works, too
$b->sql('ALTER SYSTEM SET bdr.writers_per_subscription = 2; SELECT pg_reload_conf()');
off();
many($a, 1, 500, q{INSERT INTO log VALUES (%d, 'alone')});
on();
same('one process', 'log');
$b->value_ok(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'bdr writer'}, '0', 'without a writer');

done_testing();
