# Conflicts that are found by the version of rows, method row_version: which are told, which not, and that all nodes come to the
# same rows whatever the order. Apply workers are stopped so that changes arrive in the order wanted.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::Test;
use BDR::Workload;
use Test::More;

my ($a, $b, $c) = map { BDR::Node->create($_, conf => "bdr.replay_progress_frequency = '300ms'") } qw(a b c);
my @all = ($a, $b, $c);
create_first_node($a);
$a->sql(q{
	CREATE TABLE v (gone int, id int PRIMARY KEY, x text, y text);
	CREATE TABLE weak (id int PRIMARY KEY, x text);
	ALTER TABLE v REPLICA IDENTITY FULL;
	ALTER TABLE v DROP COLUMN gone;
	SELECT bdr.alter_table_conflict_detection('v', 'row_version', 'version', 'smallint');
	SET client_min_messages = error;
	SELECT bdr.alter_table_conflict_detection('weak', 'row_version');
	INSERT INTO v SELECT i, 'x', 'y', 32760 FROM generate_series(1, 9) i;
	INSERT INTO weak VALUES (1, 'x');
});
join_node($b, $a);
join_node($c, $b);

# What was told of the rows of v since the last call.
sub told_ok
{
	my ($node, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->value_ok("WITH told AS (DELETE FROM bdr.conflict_history WHERE relname = 'v' RETURNING conflict_type, conflict_resolution, key_tuple->>'id' AS id)
		SELECT string_agg(DISTINCT id || ' ' || conflict_type || ' ' || conflict_resolution, ', ') FROM told", $expected, "$name, told on " . $node->name);
	return;
}
sub same_everywhere
{
	my ($name) = @_;
	same_rows($a, $_, 'SELECT id, x AS text, y, version FROM v', "$name: rows of a and " . $_->name) for $b, $c;
	return;
}

# one after the other, and past the end of the numbers
for my $round (1 .. 4)
{
	for my $node (@all)
	{
		all_caught_up(@all);
		$node->sql("UPDATE v SET x = '$round' || x WHERE id = 1");
	}
}
all_caught_up(@all);
$_->value_ok('SELECT version, x FROM v WHERE id = 1', '-32764|444333222111x', 'versions are counted, on ' . $_->name) for @all;
told_ok($_, '', 'one after the other') for @all;
$a->value_ok('UPDATE v SET version = 7 WHERE id = 9 RETURNING version', '32761', 'what is assigned to the version does not count');

# at the same time
all_caught_up(@all);
hold_all(@all);
$a->sql("UPDATE v SET x = 'a' WHERE id = 2");
$b->sql("UPDATE v SET x = 'b' WHERE id = 2");
release_all();
all_caught_up(@all);
$_->value_ok('SELECT x FROM v WHERE id = 2', 'b', 'the later one, on ' . $_->name) for @all;
told_ok($a, '2 update_differing apply_remote', 'at the same time');
told_ok($b, '2 update_differing skip', 'at the same time');

# the same number, by another row: the times have the last word
hold_all(@all);
$b->sql("UPDATE v SET x = 'b1' WHERE id = 3; UPDATE v SET x = 'b2' WHERE id = 3");
$a->sql("UPDATE v SET x = 'a' WHERE id = 3");
release_all();
all_caught_up(@all);
$_->value_ok('SELECT x FROM v WHERE id = 3', 'a', 'the later one of two, on ' . $_->name) for @all;
$_->sql('TRUNCATE bdr.conflict_history') for @all;

# a row whose origin is forgotten, where row_origin sees no conflict
hold_all(@all);
$b->sql("UPDATE v SET x = 'b' WHERE id = 4");
$b->sql('VACUUM (FREEZE) v');
$a->sql("UPDATE v SET x = 'a' WHERE id = 4");
release_all();
all_caught_up(@all);
$_->value_ok('SELECT x FROM v WHERE id = 4', 'a', 'a frozen row, on ' . $_->name) for @all;
told_ok($b, '4 update_differing apply_remote', 'a frozen row');
$_->sql('TRUNCATE bdr.conflict_history') for @all;

# deletes: the later operation wins
hold_all(@all);
$b->sql("UPDATE v SET x = 'b' WHERE id = 5");
$a->sql('DELETE FROM v WHERE id = 5');
$a->sql('DELETE FROM v WHERE id = 6');
$b->sql("UPDATE v SET x = 'b' WHERE id = 6");
release_all();
all_caught_up(@all);
$_->value_ok("SELECT string_agg(id || x, ' ' ORDER BY id) FROM v WHERE id IN (5, 6)", '6b', 'a later and an earlier delete, on ' . $_->name) for @all;
told_ok($b, '5 delete_recently_updated apply_remote, 6 delete_recently_updated skip', 'deletes');
$_->sql('TRUNCATE bdr.conflict_history') for @all;

# or another version stays, if that is wanted
$b->sql("SELECT bdr.alter_node_set_conflict_resolver('node_b', 'delete_recently_updated', 'skip')");
hold_all(@all);
$b->sql("UPDATE v SET x = 'b' WHERE id = 7");
$a->sql('DELETE FROM v WHERE id = 7');
release_all();
all_caught_up(@all);
$b->value_ok('SELECT x FROM v WHERE id = 7', 'b', 'a delete of another version is skipped');
told_ok($b, '7 delete_recently_updated skip', 'a later delete');
$b->sql("DELETE FROM v WHERE id = 7; SELECT bdr.alter_node_set_conflict_resolver('node_b', 'delete_recently_updated', 'update_if_newer')");
all_caught_up(@all);

# resolvers of update_differing
for my $case ([ 'skip', 'b' ], [ 'update', 'a' ], [ 'update_if_newer', 'b' ])
{
	my ($resolver, $winner) = @$case;
	$b->sql("SELECT bdr.alter_node_set_conflict_resolver('node_b', 'update_differing', '$resolver')");
	hold_all(@all);
	$a->sql("UPDATE v SET x = 'a' WHERE id = 8");
	$b->sql("UPDATE v SET x = 'b' WHERE id = 8");
	release_all();
	all_caught_up(@all);
	$b->value_ok('SELECT x FROM v WHERE id = 8', $winner, "update_differing, $resolver");
	told_ok($b, '8 update_differing ' . ($winner eq 'a' ? 'apply_remote' : 'skip'), $resolver);
	$a->sql("UPDATE v SET x = 'again' WHERE id = 8");
	all_caught_up(@all);
	$_->sql('TRUNCATE bdr.conflict_history') for @all;
}

# a change of the key
hold_all(@all);
$b->sql("UPDATE v SET y = 'b' WHERE id = 9");
$a->sql("UPDATE v SET id = 90, x = 'a' WHERE id = 9");
release_all();
all_caught_up(@all);
$_->value_ok('SELECT id, x, y FROM v WHERE id IN (9, 90)', '90|a|y', 'a change of the key, on ' . $_->name) for @all;
told_ok($b, '9 update_differing apply_remote', 'a change of the key');

# without whole old rows it is row_origin
$a->sql("UPDATE weak SET x = 'a'");
all_caught_up(@all);
$b->sql("UPDATE weak SET x = 'b'");
all_caught_up(@all);
hold_all(@all);
$a->sql("UPDATE weak SET x = 'a'");
$b->sql("UPDATE weak SET x = 'b'");
release_all();
all_caught_up(@all);
$a->value_ok("SELECT string_agg(DISTINCT conflict_type, ' ') FROM bdr.conflict_history WHERE relname = 'weak'", 'update_origin_change', 'row_origin');
$_->value_ok("SELECT string_agg(relname || ' ' || conflict_detection, ', ' ORDER BY relname) FROM bdr.tables", 'v row_version, weak row_origin',
	'as bdr.tables says, on ' . $_->name) for @all;

# in any order: what a few random changes of few rows leave is the same everywhere
my $rng = BDR::Workload::Random->new($ENV{BDR_SEED} // 48);
for my $round (1 .. 6)
{
	hold_all() if $round % 2;
	for my $number (1 .. 40)
	{
		my $node = $all[ $rng->below(3) ];
		my $id = 100 + $rng->below(4);
		my $kind = $rng->below(6);
		my $text = "$round $number";
		$node->sql($kind == 0 ? "DELETE FROM v WHERE id = $id"
			: $kind == 1 ? "UPDATE v SET id = $id + 10, x = '$text' WHERE id = $id AND NOT EXISTS (SELECT FROM v WHERE id = $id + 10)"
			: $kind == 2 ? "UPDATE v SET id = $id, x = '$text' WHERE id = $id + 10 AND NOT EXISTS (SELECT FROM v WHERE id = $id)"
			: $kind == 3 ? "INSERT INTO v VALUES ($id, '$text') ON CONFLICT (id) DO NOTHING"
			: "UPDATE v SET x = '$text' WHERE id IN ($id, $id + 10)");
	}
	release_all();
	all_caught_up(@all);
	same_everywhere("round $round");
}

done_testing();
