# How the row to change is found: primary key, REPLICA IDENTITY USING INDEX, FULL (with equal rows), and no key at all.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;

my ($a, $b) = node_pair(setup => q{
	CREATE TABLE by_pk (k1 int, k2 text, v text, PRIMARY KEY (k2, k1));
	CREATE TABLE by_index (id serial, code text NOT NULL, v text);
	CREATE UNIQUE INDEX by_index_code ON by_index (code);
	ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code;
	CREATE TABLE pk_and_index (id int PRIMARY KEY, code text NOT NULL, v text);
	CREATE UNIQUE INDEX pk_and_index_code ON pk_and_index (code);
	ALTER TABLE pk_and_index REPLICA IDENTITY USING INDEX pk_and_index_code;
	CREATE TABLE by_full (a int, b text, c float8);
	ALTER TABLE by_full REPLICA IDENTITY FULL;
	CREATE TABLE full_with_pk (id int PRIMARY KEY, b text);
	ALTER TABLE full_with_pk REPLICA IDENTITY FULL;
	CREATE TABLE no_key (a int, b text);
	CREATE TABLE nothing (id int PRIMARY KEY, b text);
	ALTER TABLE nothing REPLICA IDENTITY NOTHING;
	CREATE TABLE switched (id int PRIMARY KEY, code text NOT NULL UNIQUE, v text);
	CREATE TABLE json_full (a json, b xml, c point, d int);
	ALTER TABLE json_full REPLICA IDENTITY FULL;
});

for my $pair ([ $a, $b ], [ $b, $a ])
{
	my ($from, $to) = @$pair;
	my $side = 'from ' . $from->name;

	$from->sql("INSERT INTO by_pk SELECT i, 'k' || i, 'old' FROM generate_series(1, 10) i;
		UPDATE by_pk SET v = 'new' WHERE k1 % 2 = 0;
		UPDATE by_pk SET k2 = 'moved' WHERE k1 = 3;
		DELETE FROM by_pk WHERE k1 > 7");
	same_ok($from, $to, 'by_pk', "primary key of two columns in another order $side");

	$from->sql("INSERT INTO by_index (id, code, v) SELECT i, 'c' || i, NULL FROM generate_series(1, 10) i;
		UPDATE by_index SET v = 'x', id = id + 100 WHERE id % 2 = 0;
		UPDATE by_index SET code = 'renamed' WHERE id = 1;
		DELETE FROM by_index WHERE id IN (3, 5)");
	same_ok($from, $to, 'by_index', "identity by a unique index without a primary key $side");

	$from->sql("INSERT INTO pk_and_index SELECT i, 'c' || i, 'v' FROM generate_series(1, 5) i;
		UPDATE pk_and_index SET id = 50 WHERE id = 5;
		UPDATE pk_and_index SET code = 'other', v = 'w' WHERE id = 4;
		DELETE FROM pk_and_index WHERE id = 1");
	same_ok($from, $to, 'pk_and_index', "identity by another index than the primary key $side");

	$from->sql("INSERT INTO by_full VALUES (1, 'twin', 0.5), (1, 'twin', 0.5), (1, 'twin', 0.5), (2, NULL, NULL), (2, NULL, NULL),
		(3, 'x', 'NaN'), (NULL, NULL, NULL)");
	$from->sql("UPDATE by_full SET b = 'changed' WHERE ctid = (SELECT min(ctid) FROM by_full WHERE b = 'twin')");
	$from->sql("DELETE FROM by_full WHERE ctid = (SELECT max(ctid) FROM by_full WHERE b = 'twin')");
	$from->sql("UPDATE by_full SET c = 7 WHERE ctid = (SELECT min(ctid) FROM by_full WHERE a = 2)");
	same_ok($from, $to, 'by_full', "FULL: of equal rows exactly one is touched $side");
	$to->value_ok("SELECT count(*) FILTER (WHERE b = 'twin'), count(*) FILTER (WHERE b = 'changed'), count(*) FILTER (WHERE a = 2 AND c IS NULL)
		FROM by_full", '1|1|1', "FULL: the twins are still there $side");
	$from->sql("DELETE FROM by_full WHERE a IS NULL OR c = 'NaN'");
	same_ok($from, $to, 'by_full', "FULL: rows of NULLs and NaN are found $side");

	$from->sql("INSERT INTO full_with_pk SELECT i, 'b' || i FROM generate_series(1, 5) i;
		UPDATE full_with_pk SET id = id + 10, b = NULL WHERE id < 3; DELETE FROM full_with_pk WHERE id = 4");
	same_ok($from, $to, 'full_with_pk', "FULL with a primary key $side");

	$from->sql("INSERT INTO json_full VALUES ('{\"a\": 1}', '<a/>', '(1,2)', 1), ('{\"a\": 1}', '<a/>', '(1,2)', 2)");
	$from->sql("UPDATE json_full SET d = 3 WHERE d = 2; DELETE FROM json_full WHERE d = 1");
	same_ok($from, $to, 'json_full', "FULL with types that have no equality $side");

	$from->sql("INSERT INTO no_key VALUES (1, 'a'), (1, 'a')");
	same_ok($from, $to, 'no_key', "INSERT without a key $side");
	$from->fails_ok("UPDATE no_key SET b = 'c'", '55000', qr/no_key/, undef, "UPDATE without a key is refused at the writer $side");
	$from->fails_ok('DELETE FROM no_key', '55000', qr/no_key/, undef, "DELETE without a key is refused at the writer $side");
	$from->sql("INSERT INTO nothing VALUES (1, 'a') ON CONFLICT DO NOTHING");
	$from->fails_ok("UPDATE nothing SET b = 'c'", '55000', qr/nothing/, undef, "UPDATE with REPLICA IDENTITY NOTHING is refused $side");
	$from->sql('TRUNCATE no_key');
	same_ok($from, $to, 'no_key', "TRUNCATE without a key is fine $side");
	$from->sql('CREATE TEMP TABLE scratch (a int); INSERT INTO scratch VALUES (1); UPDATE scratch SET a = 2; DELETE FROM scratch');
	$from->sql('CREATE UNLOGGED TABLE not_logged (a int); INSERT INTO not_logged VALUES (1); UPDATE not_logged SET a = 2; DROP TABLE not_logged');
	pass("temporary and unlogged tables without a key can be updated $side");

	$from->sql('TRUNCATE by_pk, by_index, pk_and_index, by_full, full_with_pk, json_full, nothing');
	wait_caught_up($from, $to);
}

# The kind of identity changes while rows flow; receivers must not use the index chosen before.
$a->sql("INSERT INTO switched VALUES (1, 'one', 'v'), (2, 'two', 'v')");
wait_caught_up($a, $b);
for my $identity ('FULL', 'USING INDEX switched_code_key', 'DEFAULT')
{
	$a->sql("ALTER TABLE switched REPLICA IDENTITY $identity");
	wait_caught_up($a, $b);
	$a->sql("UPDATE switched SET v = v || '+' WHERE id = 1");
	$b->sql("UPDATE switched SET v = v || '-' WHERE id = 2");
	same_ok($a, $b, 'switched', "after REPLICA IDENTITY $identity");
}
$a->value_ok('SELECT v FROM switched ORDER BY id', "v+++\nv---", 'each change was applied once');

# An index that apply has used goes away and comes back.
$b->sql_here('DROP INDEX by_index_code; CREATE UNIQUE INDEX by_index_code ON by_index (code); ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code');
$a->sql("INSERT INTO by_index (id, code) VALUES (900, 'late'); UPDATE by_index SET v = 'late' WHERE id = 900");
same_ok($a, $b, 'by_index', 'index dropped and made anew under the apply worker');

logs_ok($a, $b);
done_testing();
