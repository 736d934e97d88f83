# Conflicts that are resolved column by column: of each column the latest change stays on all nodes, in whatever order changes
# arrive, with either kind of timestamps. Apply workers are stopped so that changes arrive in the order wanted.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::Test;
use Test::More;

my ($a, $b, $c) = map { BDR::Node->create($_, conf => "bdr.replay_progress_frequency = '300ms'") } qw(a b c);
my @all = ($a, $b, $c);
create_first_node($a);
$a->sql(q{
	CREATE ROLE nobody_special;
	CREATE TABLE t (id int PRIMARY KEY, gone int, x text, y text, z text, d bdr.crdt_delta_counter NOT NULL DEFAULT 0);
	INSERT INTO t VALUES (1, 0, 'x', 'y', 'z');
	CREATE TABLE tc (LIKE t INCLUDING ALL);
	INSERT INTO tc VALUES (1, 0, 'x', 'y', 'z');
	CREATE TABLE parts (id int, kind int, x text, y text, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind);
	CREATE TABLE parts1 PARTITION OF parts FOR VALUES IN (1);
});
my $on = "SELECT bdr.alter_table_conflict_detection('t', 'column_modify_timestamp')";
$a->fails_ok($on, '55000', qr/needs whole old rows/, qr/REPLICA IDENTITY FULL/, 'whole old rows are needed');
$a->sql('ALTER TABLE t REPLICA IDENTITY FULL; ALTER TABLE tc REPLICA IDENTITY FULL; ALTER TABLE parts REPLICA IDENTITY FULL; ALTER TABLE parts1 REPLICA IDENTITY FULL');
$a->fails_ok("SELECT bdr.alter_table_conflict_detection('t', 'newest')", '22023', qr/unknown conflict detection/, undef, 'an unknown method');
$a->fails_ok("GRANT USAGE ON SCHEMA bdr TO nobody_special; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA bdr TO nobody_special;
	SET ROLE nobody_special; $on", '42501', qr/must be owner/, undef, 'only the owner');
my $file = $a->sql("SELECT pg_relation_filenode('t')");
$a->value_ok($on, 't', 'switched on');
is($a->sql("SELECT pg_relation_filenode('t')"), $file, 'without writing the table anew');
$a->value_ok("SELECT bdr.column_timestamps_enable('tc', 'bdr_column_timestamps', true)", 't', 'with commit timestamps');
# what a join copies is dated by who wrote it
$a->sql("INSERT INTO tc VALUES (10, 0, 'x', 'y', 'z'); UPDATE tc SET x = 'new' WHERE id = 1");
$a->value_ok("SELECT bdr.alter_table_conflict_detection('parts', 'column_modify_timestamp', 'ts')", 't', 'and for a partitioned table');
$_->sql('CREATE ROLE nobody_special') for $b, $c;
join_node($b, $a);
join_node($c, $b);
# attribute numbers differ from now on
$c->sql_here("ALTER TABLE $_ DROP COLUMN gone; ALTER TABLE $_ ADD COLUMN gone int") for 't', 'tc';

# Who wrote which column when is the same everywhere, also of rows that no conflict has met. (Rows are called x where they are
# compared, so that no column may be.)
sub versions_same
{
	my ($t, $name) = @_;
	same_rows($a, $_, "SELECT id, x AS first, y, z, d, v->>'source', v->>'default', v->>'modified', ARRAY(SELECT value FROM jsonb_each_text(v->'map') ORDER BY 1)
		FROM $t, LATERAL (SELECT bdr.column_timestamps_resolve(bdr_column_timestamps, $t.xmin)::jsonb) AS resolved(v)", "$name: rows of a and " . $_->name)
		for $b, $c;
	return;
}
$b->value_ok("SELECT count(*) FROM tc WHERE bdr_column_timestamps::jsonb ? 'modified'", '0', 'a join brings complete timestamps');
for my $t ('t', 'tc')
{
	all_caught_up(@all);
	versions_same($t, "$t, as copied");
	for my $order ([ $a, $b, $c ], [ $c, $b, $a ], [ $b, $a, $c ], [ $c, $a, $b ])
	{
		my ($first, $second, $third) = @$order;
		my $names = join '', map { $_->name } @$order;
		hold_all(@all);
		$first->sql("UPDATE $t SET x = '$names first', y = 'lost', d = d + 1 WHERE id = 1");
		$second->sql("UPDATE $t SET y = '$names second', z = 'lost', d = d + 1 WHERE id = 1; UPDATE $t SET d = d + 1, x = x WHERE id = 1");
		$third->sql("UPDATE $t SET z = '$names third', d = d + 1 WHERE id = 1");
		outcome_is(\@all, "SELECT x, y, z FROM $t WHERE id = 1", "$names first|$names second|$names third", "$t: of each column the latest ($names)");
		versions_same($t, "$t, $names");
	}
	$_->value_ok("SELECT d FROM $t WHERE id = 1", '16', "$t: and additions count, on " . $_->name) for @all;

	# two inserts, and an update of one of them
	hold_all(@all);
	$a->sql("INSERT INTO $t VALUES (2, 0, 'a', 'a', 'a'); UPDATE $t SET x = 'a2' WHERE id = 2");
	$b->sql("INSERT INTO $t (id, x, y, z) VALUES (2, 'b', 'b', 'b')");
	$a->sql("UPDATE $t SET y = 'a3' WHERE id = 2");
	outcome_is(\@all, "SELECT x, y, z FROM $t WHERE id = 2", 'b|a3|b', "$t: two inserts of one key, and an update of one that lost");

	# values out of line, which a change of another column leaves out
	$a->sql("INSERT INTO $t VALUES (3, 0, 'x', 'y', 'z')");
	all_caught_up(@all);
	hold_all(@all);
	$a->sql_here("ALTER TABLE $t ALTER x SET STORAGE EXTERNAL; UPDATE $t SET x = repeat('large', 1000) WHERE id = 3; UPDATE $t SET z = 'a' WHERE id = 3");
	$b->sql("UPDATE $t SET y = 'b' WHERE id = 3");
	outcome_is(\@all, "SELECT length(x), y, z FROM $t WHERE id = 3", '5000|b|a', "$t: a large value");
	versions_same($t, "$t, at the end");
}

# partitions
$a->sql("INSERT INTO parts VALUES (1, 1, 'x', 'y')");
all_caught_up(@all);
hold_all(@all);
$a->sql("UPDATE parts SET x = 'a'");
$b->sql("UPDATE parts SET y = 'b'");
outcome_is(\@all, 'SELECT x, y FROM parts', 'a|b', 'partitions');

# a delete is of the row
hold_all(@all);
$a->sql('DELETE FROM t WHERE id = 2');
$b->sql("UPDATE t SET y = 'later' WHERE id = 2");
outcome_is(\@all, 'SELECT x, y, z FROM t WHERE id = 2', 'b|later|b', 'an update that is later than a delete');

$a->value_ok("SELECT bdr_column_timestamps::text LIKE '{source: current, default: %, map: [%}' FROM t WHERE id = 1", 't', 'as text');
# several statements of a transaction count as one change, and a commit dates it
$a->value_ok(q{BEGIN; INSERT INTO tc VALUES (20, 0, 'x', 'y', 'z'); SAVEPOINT s; UPDATE tc SET x = 'x2' WHERE id = 20;
	SELECT bdr_column_timestamps::jsonb->'modified' FROM tc WHERE id = 20; COMMIT}, '[1, 2, 3, 4, 5, 6]', 'an insert modifies all columns');
$a->value_ok(q{SELECT v->>'modified' IS NULL AND v->'map' = '{}' AND (v->>'default')::timestamptz = pg_xact_commit_timestamp(xmin)
	FROM tc, LATERAL (SELECT bdr.column_timestamps_resolve(bdr_column_timestamps, xmin)::jsonb) AS resolved(v) WHERE id = 20}, 't',
	'which its commit dates');
$a->value_ok(q{BEGIN; UPDATE tc SET x = 'x3' WHERE id = 20; UPDATE tc SET y = y WHERE id = 20; UPDATE tc SET z = 'z3' WHERE id = 20;
	SELECT bdr_column_timestamps::jsonb->'modified' FROM tc WHERE id = 20; COMMIT}, '[3, 5]', 'an update those that differ');
$a->value_ok(q{SELECT (v->'map'->>'3')::timestamptz = pg_xact_commit_timestamp(xmin) AND v->'map'->'3' = v->'map'->'5' AND v->'map'->'4' IS NULL
	FROM tc, LATERAL (SELECT bdr.column_timestamps_resolve(bdr_column_timestamps, xmin)::jsonb) AS resolved(v) WHERE id = 20}, 't',
	'and the commit these');
$a->value_ok("SELECT bdr_column_timestamps::text ~ '^{source: commit, default: .*, map: \\[\\], modified: \\[3, 5\\]}\$' FROM tc WHERE id = 20", 't', 'as text');
all_caught_up(@all);
$b->value_ok("SELECT bdr_column_timestamps::jsonb ? 'modified' FROM tc WHERE id = 20", 'f', 'resolved where it is applied');
$a->value_ok("SELECT count(*) > 0 FROM bdr.conflict_history WHERE conflict_resolution = 'merge'", 't', 'recorded as merged');
$a->value_ok("SELECT bdr.alter_table_conflict_detection('t', 'row_origin')", 't', 'switched off');
all_caught_up(@all);
for my $node (@all)
{
	$node->value_ok("SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'bdr_column_timestamps'", '0', 'the column is gone');
	$node->value_ok("SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass", '0', 'and so are the triggers');
}

done_testing();
