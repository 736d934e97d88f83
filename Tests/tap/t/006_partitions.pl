# Partitioned and inherited tables: same and different partitioning on the two nodes, rows that move, TRUNCATE, partitions
# that come and go.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;

my ($a, $b) = node_pair(
	structure => 'none',
	setup => q{
	CREATE TABLE same (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
	CREATE TABLE same_eu PARTITION OF same FOR VALUES IN ('eu');
	CREATE TABLE same_us (v text, region text NOT NULL, id int NOT NULL, dropped int);
	ALTER TABLE same_us DROP COLUMN dropped;
	ALTER TABLE same ATTACH PARTITION same_us FOR VALUES IN ('us');
	CREATE TABLE other (id int PRIMARY KEY, v text) PARTITION BY HASH (id);
	CREATE TABLE other_0 PARTITION OF other FOR VALUES WITH (MODULUS 2, REMAINDER 0);
	CREATE TABLE other_1 PARTITION OF other FOR VALUES WITH (MODULUS 2, REMAINDER 1);
	CREATE TABLE flat_on_b (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
	CREATE TABLE flat_on_b_1 PARTITION OF flat_on_b FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id);
	CREATE TABLE flat_on_b_11 PARTITION OF flat_on_b_1 FOR VALUES FROM (0) TO (50);
	CREATE TABLE flat_on_b_12 PARTITION OF flat_on_b_1 FOR VALUES FROM (50) TO (100);
	CREATE TABLE flat_on_b_2 PARTITION OF flat_on_b DEFAULT;
	CREATE TABLE flat_on_a (id int PRIMARY KEY, v text);
	CREATE TABLE base (id int PRIMARY KEY, v text);
	CREATE TABLE heir (PRIMARY KEY (id), more text) INHERITS (base);
	},
	setup_b => q{
	CREATE TABLE same (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
	CREATE TABLE same_eu PARTITION OF same FOR VALUES IN ('eu');
	CREATE TABLE same_us PARTITION OF same FOR VALUES IN ('us');
	CREATE TABLE other (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
	CREATE TABLE other_low PARTITION OF other FOR VALUES FROM (MINVALUE) TO (50);
	CREATE TABLE other_high PARTITION OF other FOR VALUES FROM (50) TO (MAXVALUE);
	CREATE TABLE flat_on_b (id int PRIMARY KEY, v text);
	CREATE TABLE flat_on_a (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
	CREATE TABLE flat_on_a_1 PARTITION OF flat_on_a FOR VALUES FROM (0) TO (100);
	CREATE TABLE flat_on_a_2 PARTITION OF flat_on_a DEFAULT;
	CREATE TABLE base (id int PRIMARY KEY, v text);
	CREATE TABLE heir (PRIMARY KEY (id), more text) INHERITS (base);
	});

my $id = 0;
for my $pair ([ $a, $b ], [ $b, $a ])
{
	my ($from, $to) = @$pair;
	my $side = 'from ' . $from->name;

	$from->sql("INSERT INTO same VALUES ($id + 1, 'eu', 'x'), ($id + 2, 'us', 'y'), ($id + 3, 'us', 'z');
		UPDATE same SET v = v || '!' WHERE id > $id;
		UPDATE same SET region = 'eu' WHERE id = $id + 2;
		DELETE FROM same WHERE id = $id + 3");
	same_ok($from, $to, 'SELECT tableoid::regclass, * FROM same', "same partitions, one with another layout; a row moves $side");
	for my $table (qw(other flat_on_b flat_on_a))
	{
		$from->sql("INSERT INTO $table SELECT i, 'v' || i FROM generate_series($id, $id + 99, 3) i;
			UPDATE $table SET v = v || '+' WHERE id % 2 = 0;
			UPDATE $table SET id = id + 1 WHERE id BETWEEN $id + 48 AND $id + 51;
			UPDATE $table SET id = 1000 + id WHERE id = $id + 99;
			DELETE FROM $table WHERE id BETWEEN $id + 10 AND $id + 20");
		same_ok($from, $to, $table, "$table is partitioned in another way $side");
	}
	$from->sql("INSERT INTO base VALUES ($id, 'base'); INSERT INTO heir VALUES ($id + 1, 'heir', 'more');
		UPDATE base SET v = v || '!'; UPDATE heir SET more = NULL; DELETE FROM ONLY base WHERE id = -1");
	same_ok($from, $to, 'SELECT tableoid::regclass, * FROM base', "inheritance $side");
	same_ok($from, $to, 'heir', "the heir itself $side");
	$id += 200;
}

# Partitions that come and go.
$a->sql(q{
	ALTER TABLE same DETACH PARTITION same_us; ALTER TABLE same ATTACH PARTITION same_us FOR VALUES IN ('us', 'ca');
	INSERT INTO same VALUES (500, 'us', 'attached again')});
same_ok($a, $b, 'same', 'detached and attached again');
$a->sql("CREATE TABLE same_asia PARTITION OF same FOR VALUES IN ('asia')");
wait_caught_up($a, $b);
$b->sql("INSERT INTO same VALUES (501, 'asia', 'new partition')");
same_ok($a, $b, 'same', 'a new partition replicates');

# TRUNCATE of the root and of a leaf.
$a->sql('TRUNCATE same_eu');
same_ok($a, $b, 'same', 'TRUNCATE of one partition');
$a->value_ok("SELECT count(*) > 0 FROM same", 't', 'leaves the others');
$b->sql('TRUNCATE same, other');
same_ok($a, $b, $_, "TRUNCATE of the root: $_") for qw(same other);
$a->value_ok('SELECT count(*) FROM other', '0', 'the root is empty');
$a->sql('TRUNCATE flat_on_b');
wait_caught_up($a, $b);
$b->value_ok('SELECT count(*) FROM flat_on_b', '0', 'TRUNCATE of a root that is a plain table on the peer');

replicating_ok($a, $b, 'still replicating');
logs_ok($a, $b);
done_testing();
