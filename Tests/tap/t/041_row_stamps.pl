# Of all operations on a key the latest decides on every node, in whatever order they arrive: deletes that come before what
# they are later than, updates that come before their insert, values that the WAL leaves out, changes of the key, and rows that
# a join copied. Three nodes; apply workers are stopped so that operations arrive in the order wanted.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::Test;
use Test::More;

my @all = map { BDR::Node->create($_, conf => "bdr.replay_progress_frequency = '300ms'") } qw(a b c);
my ($a, $b, $c) = @all;
$a->sql(q{
	CREATE TABLE t (id int PRIMARY KEY, v text, w int DEFAULT 0);
	CREATE TABLE big (id int PRIMARY KEY, doc text, n int DEFAULT 0);
	ALTER TABLE big ALTER doc SET STORAGE EXTERNAL;
	CREATE TABLE u (id int PRIMARY KEY, code text UNIQUE, v text);
	CREATE TABLE parent (id int PRIMARY KEY);
	CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE, v text);
	CREATE TABLE parts (id int, kind int, v text, PRIMARY KEY (kind, id)) PARTITION BY LIST (kind);
	CREATE TABLE parts1 PARTITION OF parts FOR VALUES IN (1);
	CREATE TABLE parts2 (v text, kind int NOT NULL, id int NOT NULL);
	ALTER TABLE parts ATTACH PARTITION parts2 FOR VALUES IN (2);
	CREATE TABLE names (name text, place numeric, v text, PRIMARY KEY (place, name));
});
create_first_node($a);
join_node($b, $a);
join_node($c, $b);
my @tables = qw(t big u parent child parts names);

# ---- deletes and what comes late ----

my $id = 100;
$id++;
hold($c, $a);
$a->sql("INSERT INTO t VALUES ($id, 'a')");
applied_ok($b, $a);
$b->sql("DELETE FROM t WHERE id = $id");
applied_ok($c, $b);
outcome_is(\@all, "SELECT count(*) FROM t WHERE id = $id", '0', 'an insert that comes after its delete');

$id++;
$a->sql("INSERT INTO t VALUES ($id, 'a')");
all_caught_up(@all);
hold($c, $a);
$a->sql("UPDATE t SET v = 'late' WHERE id = $id");
applied_ok($b, $a);
$b->sql("DELETE FROM t WHERE id = $id");
applied_ok($c, $b);
outcome_is(\@all, "SELECT count(*) FROM t WHERE id = $id", '0', 'an update that comes after the later delete');

$id++;
hold($c, $a);
$a->sql("INSERT INTO t VALUES ($id, 'a')");
applied_ok($b, $a);
$b->sql("UPDATE t SET v = 'b' WHERE id = $id");
applied_ok($c, $b);
$c->value_ok("SELECT v FROM t WHERE id = $id", 'b', 'an update before its insert inserts the row');
outcome_is(\@all, "SELECT v, w FROM t WHERE id = $id", 'b|0', 'an update that comes before its insert');

for my $order (0, 1)
{
	my ($first, $second) = $order ? ($b, $a) : ($a, $b);
	$id++;
	$a->sql("INSERT INTO t VALUES ($id, 'a')");
	all_caught_up(@all);
	hold_all(@all);
	$first->sql("DELETE FROM t WHERE id = $id");
	$second->sql("UPDATE t SET v = 'newer', w = 5 WHERE id = $id");
	outcome_is(\@all, "SELECT v, w FROM t WHERE id = $id", 'newer|5', 'an update that is later than a delete (' . $first->name . ' first)');

	hold_all(@all);
	$first->sql("UPDATE t SET v = 'older' WHERE id = $id");
	$second->sql("DELETE FROM t WHERE id = $id");
	outcome_is(\@all, "SELECT count(*) FROM t WHERE id = $id", '0', 'a delete that is later than an update (' . $first->name . ' first)');

	# deleted and made anew on one node, in between deleted on another one
	$id++;
	$a->sql("INSERT INTO t VALUES ($id, 'a')");
	all_caught_up(@all);
	hold_all(@all);
	$first->sql("DELETE FROM t WHERE id = $id");
	$first->sql("INSERT INTO t VALUES ($id, 'again')");
	$second->sql("DELETE FROM t WHERE id = $id");
	outcome_is(\@all, "SELECT count(*) FROM t WHERE id = $id", '0', 'a row made anew before the last delete (' . $first->name . ' first)');

	$id++;
	$a->sql("INSERT INTO t VALUES ($id, 'a')");
	all_caught_up(@all);
	hold_all(@all);
	$second->sql("DELETE FROM t WHERE id = $id");
	$first->sql("BEGIN; DELETE FROM t WHERE id = $id; INSERT INTO t VALUES ($id, 'again'); COMMIT");
	outcome_is(\@all, "SELECT v FROM t WHERE id = $id", 'again', 'a row made anew after the last delete (' . $first->name . ' first)');

	# a batch of inserts, one of which is older than a delete
	my ($from, $to) = ($id + 1, $id + 100);
	$id = $to;
	hold($c, $first);
	$first->sql("INSERT INTO t SELECT i, 'batch' FROM generate_series($from, $to) i");
	applied_ok($second, $first);
	$second->sql("DELETE FROM t WHERE id = $from + 50");
	applied_ok($c, $second);
	outcome_is(\@all, "SELECT count(*), bool_or(id = $from + 50) FROM t WHERE id BETWEEN $from AND $to", '99|f', 'many inserts, one of which comes after its delete (' . $first->name . ' first)');
}

# ---- deletes by other means ----

$a->sql("INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (10, 1, 'x'), (20, 2, 'x')");
all_caught_up(@all);
hold($c, $a);
$a->sql("UPDATE child SET v = 'late' WHERE id = 10");
applied_ok($b, $a);
$b->sql('DELETE FROM parent WHERE id = 1');
applied_ok($c, $b);
outcome_is(\@all, 'SELECT id, v FROM child ORDER BY id', '20|x', 'rows deleted by a cascade');

$a->sql("INSERT INTO parts VALUES (1, 1, 'x'), (2, 2, 'x'), (3, 1, 'x')");
$a->sql("INSERT INTO names VALUES ('n', 1.0, 'x')");
all_caught_up(@all);
hold($c, $a);
$a->sql("UPDATE parts SET v = 'late'; UPDATE names SET v = 'late'");
applied_ok($b, $a);
$b->sql('DELETE FROM parts WHERE id IN (1, 2)');
$b->sql("UPDATE parts SET kind = 2, v = 'moved' WHERE id = 3");
$b->sql('DELETE FROM names WHERE place = 1.00');
$b->sql("INSERT INTO names VALUES ('n', 1.000, 'new')");
$b->sql("DELETE FROM names");
applied_ok($c, $b);
outcome_is(\@all, 'SELECT id, kind, v FROM parts ORDER BY id', '3|2|moved', 'rows of partitions');
$_->value_ok('SELECT count(*) FROM names', '0', 'a key of several columns, on ' . $_->name) for @all;

$a->sql("INSERT INTO t VALUES (1, 'x')");
all_caught_up(@all);
hold($c, $a);
$a->sql("UPDATE t SET v = 'late' WHERE id = 1");
applied_ok($b, $a);
$b->sql(q{WITH gone AS (DELETE FROM t WHERE id = 1 RETURNING id) SELECT count(*) FROM gone});
applied_ok($c, $b);
outcome_is(\@all, 'SELECT count(*) FROM t WHERE id = 1', '0', 'a row deleted in a WITH');

# ---- keys that change ----

for my $order (0, 1)
{
	my ($first, $second) = $order ? ($b, $a) : ($a, $b);
	my ($old, $new) = ($id + 1, $id + 2);
	$id += 2;
	$a->sql("INSERT INTO t VALUES ($old, 'x')");
	all_caught_up(@all);
	hold_all(@all);
	$first->sql("UPDATE t SET id = $new, v = 'renamed' WHERE id = $old");
	$second->sql("UPDATE t SET v = 'newer' WHERE id = $old");
	outcome_is(\@all, "SELECT id - $old, v FROM t WHERE id IN ($old, $new) ORDER BY id", "0|newer\n1|renamed", 'a key change, then an update of the old key (' . $first->name . ' first)');

	($old, $new) = ($id + 1, $id + 2);
	$id += 2;
	$a->sql("INSERT INTO t VALUES ($old, 'x'), ($new, 'y')");
	all_caught_up(@all);
	hold_all(@all);
	$first->sql("UPDATE t SET v = 'older' WHERE id = $old");
	$second->sql("DELETE FROM t WHERE id = $new; UPDATE t SET id = $new, v = 'renamed' WHERE id = $old");
	outcome_is(\@all, "SELECT id - $old, v FROM t WHERE id IN ($old, $new) ORDER BY id", '1|renamed', 'an update, then a key change (' . $first->name . ' first)');

	# two rows change their keys in one transaction, and on another node a moment later
	($old, $new) = ($id + 1, $id + 2);
	$id += 2;
	$a->sql("INSERT INTO t VALUES ($old, 'x'), ($new, 'y')");
	all_caught_up(@all);
	hold_all(@all);
	for my $node ($first, $second)
	{
		my $n = $node->name;
		$node->sql("BEGIN; UPDATE t SET id = -$old WHERE id = $old; UPDATE t SET id = $old, v = v || '$n' WHERE id = $new; UPDATE t SET id = $new, v = v || '$n' WHERE id = -$old; COMMIT");
	}
	my $s = $second->name;
	outcome_is(\@all, "SELECT id - $old, v FROM t WHERE id IN ($old, $new, -$old) ORDER BY id", "0|y$s\n1|x$s", "two keys swapped on two nodes ($s last)");
}

# ---- values that the WAL leaves out ----

my %doc = map { $_ => "repeat('$_' || md5('$_'), 300)" } qw(o a b c);
for my $order (0, 1)
{
	my ($first, $second) = $order ? ($b, $a) : ($a, $b);
	my ($f, $s) = map { $_->name } ($first, $second);
	$id++;
	$a->sql("INSERT INTO big VALUES ($id, $doc{o})");
	all_caught_up(@all);
	hold_all(@all);
	$first->sql("UPDATE big SET doc = $doc{$f} WHERE id = $id");
	$second->sql("UPDATE big SET n = 1 WHERE id = $id");
	outcome_is(\@all, "SELECT doc = $doc{o}, n FROM big WHERE id = $id", 't|1', "the later update has not touched the large value ($s last)");

	# it has overwritten one that the third node knows nothing of
	hold($c, $first);
	$first->sql("UPDATE big SET doc = $doc{$f}, n = 2 WHERE id = $id");
	applied_ok($second, $first);
	$second->sql("UPDATE big SET n = 3 WHERE id = $id");
	applied_ok($c, $second);
	$c->value_ok("SELECT doc = $doc{$f}, n FROM big WHERE id = $id", 't|3', "the value that the update has seen is fetched ($s last)");
	outcome_is(\@all, "SELECT doc = $doc{$f}, n FROM big WHERE id = $id", 't|3', "a large value that comes after an update that has seen it ($s last)");

	# after a delete
	hold_all(@all);
	$first->sql("DELETE FROM big WHERE id = $id");
	$second->sql("UPDATE big SET n = 4 WHERE id = $id");
	outcome_is(\@all, "SELECT doc = $doc{$f}, n FROM big WHERE id = $id", 't|4', "an update without the large value is later than a delete ($s last)");

	# superseded at its origin before anybody asks
	hold_all(@all);
	$first->sql("UPDATE big SET doc = $doc{c}, n = 5 WHERE id = $id");
	$second->sql("UPDATE big SET n = 6 WHERE id = $id");
	$second->sql("UPDATE big SET n = 7 WHERE id = $id");
	$second->sql("UPDATE big SET n = 8, doc = $doc{b} WHERE id = $id");
	$second->sql('VACUUM big');
	outcome_is(\@all, "SELECT doc = $doc{b}, n FROM big WHERE id = $id", 't|8', "updates that are superseded at their origin ($s last)");

	# with a change of the key
	hold_all(@all);
	$first->sql("UPDATE big SET doc = $doc{c} WHERE id = $id");
	$second->sql("UPDATE big SET id = $id + 1000 WHERE id = $id");
	outcome_is(\@all, "SELECT id - $id, doc = $doc{b}, n FROM big WHERE id IN ($id, $id + 1000)", '1000|t|8', "a key change without the large value ($s last)");
}

# No value is fetched where nothing is in doubt: many updates one after the other, on two nodes by turns.
$id++;
$a->sql("INSERT INTO big VALUES ($id, $doc{o})");
my @positions = map { $_->log_position } @all;
for my $turn (1 .. 6)
{
	all_caught_up(@all);
	$all[$turn % 3]->sql("UPDATE big SET n = $turn WHERE id = $id");
}
all_caught_up(@all);
$_->value_ok("SELECT doc = $doc{o}, n FROM big WHERE id = $id", 't|6', 'updates by turns, on ' . $_->name) for @all;

# ---- another unique key ----

for my $order (0, 1)
{
	my ($first, $second) = $order ? ($b, $a) : ($a, $b);
	$a->sql('DELETE FROM u');
	all_caught_up(@all);
	hold_all(@all);
	$first->sql("INSERT INTO u VALUES (1, 'x', 'first')");
	$c->sql("INSERT INTO u VALUES (2, 'x', 'between')");
	$second->sql("INSERT INTO u VALUES (3, 'x', 'last')");
	outcome_is(\@all, 'SELECT id, code, v FROM u ORDER BY id', '3|x|last', 'one value of another unique key on three nodes (' . $first->name . ' first)');
	$first->sql("UPDATE u SET code = 'y' WHERE id = 3; INSERT INTO u VALUES (1, 'x', 'again')");
	outcome_is(\@all, 'SELECT id, code, v FROM u ORDER BY id', "1|x|again\n3|y|last", 'the rows that lost can come again (' . $first->name . ' first)');
}

# ---- stamps are kept as long as they are needed ----

$_->wait_ok('SELECT count(*) FROM bdr.row_stamp', '0', 'stamps go when everybody has passed them: ' . $_->name) for @all;
hold($_, $c) for $a, $b;
$a->sql('DELETE FROM u');
applied_ok($b, $a);
$_->value_ok('SELECT count(*) > 0 FROM bdr.row_stamp', 't', 'a delete leaves stamps: ' . $_->name) for ($a, $b);
release($b, $c);
$b->wait_ok('SELECT count(*) FROM bdr.row_stamp', '0', 'b has everything of all others');
$a->value_ok('SELECT count(*) > 0 FROM bdr.row_stamp', 't', 'a lacks something of c and keeps them');
$c->sql("INSERT INTO u VALUES (3, 'z', 'c')");
release_all();
$a->wait_ok('SELECT count(*) FROM bdr.row_stamp', '0', 'then they go there, too');
$_->wait_ok('SELECT id FROM u', '3', 'and replication goes on: ' . $_->name) for @all;

# ---- a join between an operation and an older one ----

my $d = BDR::Node->create('d', conf => "bdr.replay_progress_frequency = '300ms'");
make_node($d);
$a->sql("INSERT INTO t VALUES (1, 'x'), (2, 'x'), (3, 'x')");
all_caught_up(@all);
pause_joins('create_slot', $d);
begin_join($d, $a);
$d->wait_for("SELECT step FROM bdr.join_state", 'create_slot') or fail('the join is before its snapshot');
# what a has not got from b when it is copied, and is older than what a has
hold($a, $b);
hold($c, $b);
$b->sql("UPDATE t SET v = 'late' WHERE id IN (1, 2); INSERT INTO t VALUES (4, 'late')");
$a->sql("UPDATE t SET v = 'a' WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (4, 'a'); UPDATE t SET v = 'a' WHERE id = 3");
resume_joins($d);
$d->wait_ok("SELECT count(*) FROM bdr.join_state WHERE step IN ('catchup', 'promote', 'active')", '1', 'the copy is made');
$_->value_ok('SELECT count(*) > 0 FROM bdr.row_stamp', 't', 'it has stamps of what is not settled: ' . $_->name) for ($d);
release_all();
push @all, $d;
active_ok(\@all, 'd has joined');
all_caught_up(@all);
$_->value_ok('SELECT id, v FROM t WHERE id <= 4 ORDER BY id', "1|a\n3|a\n4|a", 'older changes that arrive after the copy, on ' . $_->name) for @all;
for my $table (@tables)
{
	same_rows($a, $_, $table, "same rows of $table on a and " . $_->name) for ($b, $c, $d);
}
$_->wait_ok('SELECT count(*) FROM bdr.row_stamp', '0', 'no stamps are left: ' . $_->name) for @all;

done_testing();
