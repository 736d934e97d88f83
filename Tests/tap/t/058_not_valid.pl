# Constraints that are NOT VALID: rows that they do not hold for are applied as their origin has them.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;

my ($a, $b) = node_pair(setup => q{
	CREATE DOMAIN small AS int;
	CREATE DOMAIN smaller AS small CHECK (VALUE <> 13);
	CREATE DOMAIN word AS varchar(5);
	CREATE DOMAIN spot AS point;
	CREATE TABLE byfull (id int, s small, r smaller, w word, p spot, n int);
	ALTER TABLE byfull REPLICA IDENTITY FULL;
	CREATE TABLE bykey (id int PRIMARY KEY, s small, r smaller, w word, p spot, n int);
	INSERT INTO byfull SELECT i, i, 1000 - i, 'w' || i, point(i, i), 0 FROM generate_series(1, 200) i;
	INSERT INTO bykey SELECT * FROM byfull;
});
my @tables = qw(byfull bykey);
# the functions of the columns are in use when the constraints come
$_->sql('UPDATE byfull SET n = 1 WHERE id = 1; UPDATE bykey SET n = 1 WHERE id = 1') for $a, $b;
same_ok($a, $b, $_, "$_ before there are constraints") for @tables;
$a->sql(q{
	ALTER DOMAIN small ADD CONSTRAINT "is small" CHECK (VALUE < 100) NOT VALID;
	ALTER DOMAIN word ADD CONSTRAINT "is short" CHECK (length(VALUE) < 3) NOT VALID;
	ALTER DOMAIN spot ADD CONSTRAINT "is near" CHECK (VALUE <-> point(0, 0) < 50) NOT VALID;
});
for my $table (@tables)
{
	for my $node ($a, $b)
	{
		my $rest = $node == $a ? 0 : 1;
		$node->sql("BEGIN; UPDATE $table SET n = id + 1 WHERE id % 2 = $rest; DELETE FROM $table WHERE id > 100 AND id % 5 = 0 AND id % 2 = $rest;
			UPDATE $table SET s = 5, w = 'x', p = NULL WHERE id % 7 = 0 AND id % 2 = $rest; COMMIT");
	}
	same_ok($a, $b, $table, "$table: rows that constraints of domains do not hold for");
}
$b->value_ok('SELECT count(*) FILTER (WHERE s >= 100) > 10, count(*) FILTER (WHERE length(w) >= 3) > 50 FROM byfull', 't|t', 'there are some');
$_->fails_ok('INSERT INTO bykey VALUES (1000, 1000)', '23514', qr/is small/, undef, 'new ones are refused on ' . $_->name) for $a, $b;

# A CHECK constraint of a table, and a row from where there is none yet.
$b->sql(q{SET bdr.ddl_replication = off; ALTER TABLE bykey ADD CONSTRAINT positive CHECK (n > 0) NOT VALID, ADD CONSTRAINT known CHECK (id < 10000)});
$a->sql('INSERT INTO bykey (id, n) VALUES (2000, -1); UPDATE bykey SET n = -id WHERE id < 50; INSERT INTO bykey (id, n) SELECT i, -1 FROM generate_series(3000, 3500) i');
same_ok($a, $b, 'bykey', 'rows that a constraint of the table does not hold for');
$_->value_ok('SELECT count(*) FROM bdr.worker_errors', '0', 'no error on ' . $_->name) for $a, $b;
$b->fails_ok('UPDATE bykey SET n = -2 WHERE id = 2000', '23514', qr/positive/, undef, 'it holds for statements');
$a->sql('INSERT INTO bykey (id, n) VALUES (20000, -1)');
$b->wait_ok(q{SELECT count(*) > 0 FROM bdr.worker_errors WHERE error_message ~ '"known"'}, 't', 'others hold for rows of other nodes, too');
$b->sql('SET bdr.ddl_replication = off; ALTER TABLE bykey DROP CONSTRAINT known');
same_ok($a, $b, 'bykey', 'until they are gone');

# Made valid, they hold again.
$b->sql('SET bdr.ddl_replication = off; ALTER TABLE bykey DROP CONSTRAINT positive');
$a->sql(q{UPDATE byfull SET s = 1, r = 1, w = 'x', p = NULL; UPDATE bykey SET s = 1, r = 1, w = 'x', p = NULL;
	ALTER DOMAIN small VALIDATE CONSTRAINT "is small"});
$b->wait_ok(q{SELECT convalidated FROM pg_constraint WHERE conname = 'is small'}, 't', 'validated everywhere');
$a->sql(q{SET bdr.ddl_replication = off; ALTER DOMAIN small DROP CONSTRAINT "is small"; UPDATE bykey SET s = 500 WHERE id = 1});
$b->wait_ok(q{SELECT count(*) > 0 FROM bdr.worker_errors WHERE error_message ~ 'is small'}, 't', 'one that is valid is checked');
$b->sql(q{SET bdr.ddl_replication = off; ALTER DOMAIN small DROP CONSTRAINT "is small"});
same_ok($a, $b, $_, "$_ in the end") for @tables;

done_testing();
