# The last update wins, the same way on both nodes: two inserts, two updates, on the primary key and on another unique key. A
# row that is missing never stops the stream.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;

my ($a, $b) = node_pair(setup => q{
	CREATE TABLE t (id int PRIMARY KEY, v text, w int DEFAULT 0);
	CREATE TABLE u (id int PRIMARY KEY, code text UNIQUE, v text);
	CREATE TABLE two_parts (x int, y int, v text, PRIMARY KEY (y, x));
	CREATE TABLE fullrow (id int, v text);
	ALTER TABLE fullrow REPLICA IDENTITY FULL;
	INSERT INTO t SELECT i, 'old' FROM generate_series(1, 100) i;
	INSERT INTO u SELECT i, 'code' || i, 'old' FROM generate_series(1, 20) i;
});

# Runs code while neither node applies what the other commits.
sub apart
{
	my ($code) = @_;
	wait_caught_up($a, $b);
	my @pids = map { $_->pids('apply') } ($a, $b);
	is(scalar @pids, 2, 'one apply worker on each node') or return;
	kill STOP => @pids;
	$code->();
	kill CONT => @pids;
	return;
}
my %in_order = ('a first' => [ $a, $b ], 'b first' => [ $b, $a ]);

my $base = 1000;
for my $order (sort keys %in_order)
{
	my ($first, $second) = @{ $in_order{$order} };
	my ($f, $s) = map { $_->name } ($first, $second);
	$base += 100;

	apart(sub {
		$first->sql("INSERT INTO t VALUES ($base, '$f', 1)");
		$second->sql("INSERT INTO t VALUES ($base, '$s', 2)");
		$first->sql("INSERT INTO two_parts VALUES (1, $base, '$f')");
		$second->sql("INSERT INTO two_parts VALUES (1, $base, '$s')");
	});
	same_ok($a, $b, $_, "insert/insert: same on both ($order): $_") for qw(t two_parts);
	$a->value_ok("SELECT v, w FROM t WHERE id = $base", "$s|2", "insert/insert: the later one wins ($order)");

	apart(sub {
		$first->sql("UPDATE t SET v = '$f' WHERE id = 1");
		$second->sql("UPDATE t SET w = 7 WHERE id = 1");
		$first->sql("UPDATE t SET v = '$f' WHERE id BETWEEN 2 AND 50");
		$second->sql("UPDATE t SET v = '$s' WHERE id BETWEEN 40 AND 90");
	});
	same_ok($a, $b, 't', "update/update: same on both ($order)");
	$a->value_ok("SELECT v FROM t WHERE id IN (2, 45, 90) ORDER BY id", "$f\n$s\n$s", "update/update: the later one wins ($order)");
	$a->sql("UPDATE t SET v = 'old', w = 0 WHERE id <= 100");

	# Many changes on each side between which only time decides.
	apart(sub {
		for my $i (1 .. 3)
		{
			$first->sql("UPDATE t SET v = '$f $i' WHERE id % 3 = 0");
			$second->sql("UPDATE t SET v = '$s $i' WHERE id % 2 = 0");
		}
		$first->sql("INSERT INTO t SELECT i, '$f' FROM generate_series($base + 10, $base + 50) i");
		$second->sql("INSERT INTO t SELECT i, '$s' FROM generate_series($base + 30, $base + 70) i");
		$first->sql("UPDATE t SET v = v || '+' WHERE id = $base + 40");
	});
	same_ok($a, $b, 't', "many of both: same on both ($order)");
	$a->value_ok("SELECT v FROM t WHERE id IN ($base + 20, $base + 35, $base + 40) ORDER BY id", "$f\n$s\n$f+", "and the right ones ($order)");

	# Insert against an insert that collides on another unique key.
	apart(sub {
		$first->sql("INSERT INTO u VALUES ($base, 'same$base', '$f')");
		$second->sql("INSERT INTO u VALUES ($base + 1, 'same$base', '$s')");
	});
	same_ok($a, $b, 'u', "two inserts with one unique value: same on both ($order)");
	$a->value_ok("SELECT count(*), max(v) FROM u WHERE code = 'same$base'", "1|$s", "and the later one is there ($order)");
	# NULLs in a unique key are no conflict.
	apart(sub {
		$first->sql("INSERT INTO u VALUES ($base + 2, NULL, '$f')");
		$second->sql("INSERT INTO u VALUES ($base + 3, NULL, '$s')");
	});
	same_ok($a, $b, 'u', "NULLs in a unique key ($order)");
	$a->value_ok("SELECT count(*) FROM u WHERE id IN ($base + 2, $base + 3)", '2', "do not collide ($order)");

	# Deletes have their own rules later; they must not stop the stream.
	apart(sub {
		$first->sql('DELETE FROM t WHERE id = 91');
		$second->sql('DELETE FROM t WHERE id = 91');
		$first->sql('DELETE FROM t WHERE id = 92');
		$second->sql("UPDATE t SET v = 'x' WHERE id = 92");
		$first->sql("UPDATE t SET v = 'x' WHERE id = 93");
		$second->sql('DELETE FROM t WHERE id = 93');
		$first->sql("INSERT INTO fullrow VALUES (1, 'x')");
		$second->sql("INSERT INTO fullrow VALUES (1, 'x')");
	});
	ok(wait_caught_up($a, $b), "deletes on one or both sides do not stop the stream ($order)");
	$a->value_ok('SELECT count(*) FROM t WHERE id = 91', '0', "a row deleted on both is gone ($order)");
	for my $node ($a, $b) { $node->sql("DELETE FROM t WHERE id IN (91, 92, 93)"); }
	wait_caught_up($a, $b);
	$a->sql("INSERT INTO t SELECT i, 'old' FROM generate_series(91, 93) i; TRUNCATE fullrow");
	same_ok($a, $b, 't', "ready for the next ($order)");
}

# Missing rows: deleted on one node only (under the name of a group's origin, so that the other does not hear of it).
$a->sql("INSERT INTO fullrow VALUES (1, 'a'), (2, 'b')");
wait_caught_up($a, $b);
$b->sql("SELECT pg_replication_origin_create('bdr_elsewhere')");
$b->sql("SELECT pg_replication_origin_session_setup('bdr_elsewhere');
	DELETE FROM t WHERE id IN (10, 11, 12); DELETE FROM fullrow; DELETE FROM u WHERE id = 10");
$a->value_ok('SELECT count(*) FROM t WHERE id IN (10, 11, 12)', '3', 'the rows are missing on one node only');
$a->sql("UPDATE t SET v = 'missing there' WHERE id = 10; DELETE FROM t WHERE id = 11; UPDATE t SET id = 5000 WHERE id = 12;
	UPDATE fullrow SET v = 'c' WHERE id = 1; DELETE FROM fullrow WHERE id = 2; UPDATE u SET code = 'moved' WHERE id = 10");
$a->sql("INSERT INTO t VALUES (6000, 'goes on')");
ok(wait_caught_up($a, $b), 'updates and deletes of missing rows do not stop the stream');
$b->value_ok('SELECT v FROM t WHERE id = 6000', 'goes on', 'what comes after is applied');
replicating_ok($a, $b, 'both replicate');

# A frozen row counts as old.
$a->sql("INSERT INTO t VALUES (7000, 'frozen')");
wait_caught_up($a, $b);
$_->sql('VACUUM FREEZE t') for ($a, $b);
$b->sql("UPDATE t SET v = 'thawed' WHERE id = 7000");
wait_caught_up($a, $b);
$a->value_ok('SELECT v FROM t WHERE id = 7000', 'thawed', 'a frozen row is older than any update');

logs_ok($a, $b);
done_testing();
