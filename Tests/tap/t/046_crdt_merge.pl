# Conflict-free columns are merged whenever rows meet: what nodes add at the same time all counts, in whatever order changes
# arrive, whichever of them wins the row. Apply workers are stopped so that changes arrive in the order wanted. First with two
# nodes, then with three.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::Test;
use Test::More;

my ($a, $b, $c) = map { BDR::Node->create($_, conf => "bdr.replay_progress_frequency = '300ms'") } qw(a b c);
my @all = ($a, $b);
my $columns = "g bdr.crdt_gcounter NOT NULL DEFAULT 0, p bdr.crdt_pncounter NOT NULL DEFAULT 0,
	s bdr.crdt_gsum NOT NULL DEFAULT 0, q bdr.crdt_pnsum NOT NULL DEFAULT 0,
	d bdr.crdt_delta_counter NOT NULL DEFAULT 0, e bdr.crdt_delta_sum NOT NULL DEFAULT 0";
create_first_node($a);
$a->sql("CREATE TABLE t (id int PRIMARY KEY, v text, $columns);
	ALTER TABLE t REPLICA IDENTITY FULL;
	CREATE TABLE parts (id int, kind int, v text, $columns, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind);
	CREATE TABLE parts1 PARTITION OF parts FOR VALUES IN (1);
	CREATE TABLE parts2 (e bdr.crdt_delta_sum NOT NULL, q bdr.crdt_pnsum NOT NULL, v text, kind int NOT NULL, id int NOT NULL,
		d bdr.crdt_delta_counter NOT NULL, p bdr.crdt_pncounter NOT NULL, g bdr.crdt_gcounter NOT NULL, s bdr.crdt_gsum NOT NULL);
	ALTER TABLE parts ATTACH PARTITION parts2 FOR VALUES IN (2);
	ALTER TABLE parts REPLICA IDENTITY FULL; ALTER TABLE parts1 REPLICA IDENTITY FULL; ALTER TABLE parts2 REPLICA IDENTITY FULL;
	CREATE TABLE part_key (id int PRIMARY KEY, d bdr.crdt_delta_counter NOT NULL DEFAULT 0, p bdr.crdt_pncounter NOT NULL DEFAULT 0)");
join_node($b, $a);

sub values_of
{
	my ($table, $where) = @_;
	return "SELECT v, #g, #p, #s, #q, d, e FROM $table WHERE $where ORDER BY id";
}

my $add = 'g = g + 1, p = p - 2, s = s + 0.5, q = q - 0.25, d = d + 1, e = e + 0.5';
my $id = 0;

# Every node twice in two transactions, and twice in one; the last node is the latest.
sub all_add
{
	my ($table, $more, @order) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$id++;
	$order[0]->sql("INSERT INTO $table (id, v, g, p, s, q, d, e, kind) VALUES ($id, 'new', 10, 10, 10, 10, 10, 10, 2)") if $more;
	$order[0]->sql("INSERT INTO $table (id, v, g, p, s, q, d, e) VALUES ($id, 'new', 10, 10, 10, 10, 10, 10)") unless $more;
	all_caught_up(@all);
	hold_all(@all);
	for my $node (@order)
	{
		$node->sql("UPDATE $table SET $add, v = '@{[$node->name]}1' WHERE id = $id");
		$node->sql("UPDATE $table SET $add, v = '@{[$node->name]}2' WHERE id = $id");
		$node->sql("BEGIN; UPDATE $table SET $add, v = '@{[$node->name]}3' WHERE id = $id;
			UPDATE $table SET $add, v = '@{[$node->name]}4' WHERE id = $id; COMMIT");
	}
	my $n = 4 * @order;
	my $expected = join '|', $order[-1]->name . '4', 10 + $n, 10 - 2 * $n, sprintf('%.1f', 10 + $n / 2), sprintf('%.2f', 10 - $n / 4),
		10 + $n, sprintf('%.1f', 10 + $n / 2);
	outcome_is(\@all, values_of($table, "id = $id"), $expected, "all additions to $table count, last " . $order[-1]->name);
	# and it goes on from there
	$order[0]->sql("UPDATE $table SET $add, v = 'after' WHERE id = $id");
	all_caught_up(@all);
	$_->value_ok("SELECT v, #g, d FROM $table WHERE id = $id", join('|', 'after', 11 + $n, 11 + $n), 'the next change too, on ' . $_->name)
		for @all;
	return;
}
all_add('t', 0, $a, $b);
all_add('t', 0, $b, $a);

join_node($c, $b);
push @all, $c;
all_add('t', 0, @$_) for [ $a, $b, $c ], [ $c, $b, $a ], [ $b, $c, $a ];
all_add('parts', 1, $c, $a, $b);

# of each origin by itself: what comes late loses, and counts
$id++;
$a->sql("INSERT INTO t (id, v) VALUES ($id, 'new')");
all_caught_up(@all);
hold($c, $a);
$a->sql("UPDATE t SET $add, v = 'a' WHERE id = $id");
$b->wait_ok("SELECT v FROM t WHERE id = $id", 'a', 'b has seen the change');
$b->sql("UPDATE t SET $add, v = 'b' WHERE id = $id");
applied_ok($c, $b);
$c->value_ok("SELECT v, #g, d FROM t WHERE id = $id", 'b|2|1', 'c has only the later one');
outcome_is(\@all, values_of('t', "id = $id"), 'b|2|-4|1.0|-0.50|2|1.0', 'a change that comes after a later one that knew of it');

# an update before its insert
$id++;
hold($c, $a);
$a->sql("INSERT INTO t VALUES ($id, 'new', 5, 5, 5, 5, 5, 5)");
$b->wait_ok("SELECT count(*) FROM t WHERE id = $id", '1', 'b has the row');
$b->sql("UPDATE t SET $add, v = 'b' WHERE id = $id");
applied_ok($c, $b);
$c->value_ok("SELECT v, #g FROM t WHERE id = $id", 'b|6', 'the update inserts the row');
outcome_is(\@all, values_of('t', "id = $id"), 'b|6|3|5.5|4.75|6|5.5', 'an update that comes before its insert');

# two inserts of one key
$id++;
hold_all(@all);
$a->sql("INSERT INTO t VALUES ($id, 'a', 5, 5, 5, 5, 5, 5)");
$c->sql("INSERT INTO t VALUES ($id, 'c', 3, 3, 3, 3, 3, 3); UPDATE t SET $add WHERE id = $id");
outcome_is(\@all, values_of('t', "id = $id"), 'c|6|3|5.5|4.75|9|8.5', 'two inserts of one key');

# reset, and what is added meanwhile
$id++;
$a->sql("INSERT INTO t VALUES ($id, 'a', 5, 5, 5, 5, 5, 5)");
all_caught_up(@all);
hold_all(@all);
$a->sql("UPDATE t SET g = !g, p = !p, s = !s, q = !q, v = 'reset' WHERE id = $id");
$b->sql("UPDATE t SET $add WHERE id = $id");
$c->sql("UPDATE t SET g = g + 1, d = 100, v = 'c' WHERE id = $id");
outcome_is(\@all, values_of('t', "id = $id"), 'c|2|-2|0.5|-0.25|101|5.5', 'reset, additions and an assignment at the same time');

# a losing update is recorded as merged
$a->value_ok("SELECT count(*) > 0 FROM bdr.conflict_history WHERE conflict_resolution = 'merge' AND conflict_type = 'update_origin_change'",
	't', 'conflicts that are settled by merging are recorded as such');

# without a whole old row, states are merged, and numbers are not
$a->sql('INSERT INTO part_key VALUES (1)');
all_caught_up(@all);
hold_all(@all);
$a->sql('UPDATE part_key SET d = d + 1, p = p + 1');
$b->sql('UPDATE part_key SET d = d + 10, p = p + 10');
outcome_is(\@all, 'SELECT d, #p FROM part_key', '10|11', 'without REPLICA IDENTITY FULL');

# at random
my %sum = (g => 0, p => 0, d => 0);
my @rows = map { 1000 + $_ } 1 .. 3;
$a->sql("INSERT INTO t (id, v) VALUES ($_, 'new')") for @rows;
all_caught_up(@all);
for my $round (1 .. 90)
{
	my $node = $all[ int rand @all ];
	my ($g, $p, $d) = (int rand 5, int(rand 9) - 4, int(rand 9) - 4);
	my $row = $rows[ int rand @rows ];
	$node->sql("UPDATE t SET g = g + $g, p = p + $p, d = d + $d, v = '" . $node->name . "$round' WHERE id = $row");
	$sum{g} += $g;
	$sum{p} += $p;
	$sum{d} += $d;
}
all_caught_up(@all);
$_->value_ok('SELECT sum(g), sum(p), sum(d) FROM t WHERE id > 1000', "$sum{g}|$sum{p}|$sum{d}", 'all of many additions count on ' . $_->name)
	for @all;
for my $table (qw(t parts part_key))
{
	same_rows($a, $_, "SELECT * FROM $table", "same rows of $table on a and " . $_->name) for ($b, $c);
}
$_->wait_ok('SELECT count(*) FROM bdr.row_stamp', '0', 'no stamps are left: ' . $_->name) for @all;

done_testing();
