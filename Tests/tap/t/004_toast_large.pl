# Large values and rows: unchanged TOAST, 200 MB in one value, 1,200 columns.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;

my $columns = join ', ', map { "c$_ int" } 1 .. 1199;
my $texts = join ', ', map { "t$_ text" } 1 .. 1199;
my ($a, $b) = node_pair(
	conf => "bdr.decoding_work_mem = '64kB'",
	setup => qq{
	CREATE TABLE toasted (id int PRIMARY KEY, big text, small int, big2 bytea);
	ALTER TABLE toasted ALTER big SET STORAGE EXTERNAL;
	CREATE TABLE toast_full (id int, big text, small int);
	ALTER TABLE toast_full REPLICA IDENTITY FULL;
	CREATE TABLE toast_key (big text PRIMARY KEY, small int);
	CREATE TABLE wide (id int PRIMARY KEY, $columns);
	CREATE TABLE wide_text (id int PRIMARY KEY, $texts);
	CREATE TABLE huge (id int PRIMARY KEY, v bytea, t text);
	CREATE TABLE compressed (id int PRIMARY KEY, p text COMPRESSION pglz, l text COMPRESSION lz4);
	});

# Bytes that do not compress.
my $noise = q{(SELECT string_agg(md5(i::text || random()), '') FROM generate_series(1, %d) i)};

# What an update did not change is looked at while decoding, when the table may be gone, empty, or in another file.
$a->sql('CREATE TABLE ' . $_ . ' (id int PRIMARY KEY, big text, small int); INSERT INTO ' . $_ . ' SELECT 1, ' . sprintf($noise, 1000) . ', 1')
	for ('gone', 'emptied', 'rewritten', 'reindexed');
same_ok($a, $b, $_, "$_ before") for ('gone', 'emptied', 'rewritten', 'reindexed');
$b->stop;
$a->sql("SET client_min_messages = error; SET bdr.ddl_locking = off; UPDATE $_ SET small = 2") for ('gone', 'emptied', 'rewritten', 'reindexed');
$a->sql('SET client_min_messages = error; SET bdr.ddl_locking = off; DROP TABLE gone; TRUNCATE emptied');
$a->sql($_) for ('VACUUM FULL rewritten', 'REINDEX TABLE reindexed', 'CHECKPOINT');
$b->start;
$a->sql("INSERT INTO toasted VALUES (-1)");
same_ok($a, $b, $_, "$_ afterwards") for ('toasted', 'emptied', 'rewritten', 'reindexed');
$b->value_ok(q{SELECT to_regclass('gone') IS NULL}, 't', 'and a table that was dropped');

# Rewritten by ALTER TABLE without locks: the values are somewhere else.
$a->sql(q{CREATE TABLE "al tered" (k timestamptz, "K 2" bytea, big text, small int, other int, PRIMARY KEY (k, "K 2"));
	ALTER TABLE "al tered" ALTER big SET STORAGE EXTERNAL;
	CREATE TABLE altparts (id int PRIMARY KEY, big text, small int, other int) PARTITION BY RANGE (id);
	CREATE TABLE altpart1 PARTITION OF altparts FOR VALUES FROM (0) TO (10);
	ALTER TABLE altpart1 ALTER big SET STORAGE EXTERNAL});
$a->sql("INSERT INTO \"al tered\" SELECT '2000-01-01'::timestamptz + n * interval '1.5 days', decode(repeat('ab', n), 'hex'), repeat('v' || n, 5000), 1, 1 FROM generate_series(1, 9) n");
$a->sql("INSERT INTO altparts SELECT n, repeat('v' || n, 5000), 1, 1 FROM generate_series(1, 9) n");
same_ok($a, $b, $_, "$_ before it is altered") for ('"al tered"', 'altparts');
$b->stop;
for my $table ('"al tered"', 'altparts')
{
	my ($key, $length) = $table eq 'altparts' ? ('id', 'id') : ('"K 2"', 'length("K 2")');
	my $other = $table eq 'altparts' ? "id = 0 WHERE id = 8" : qq{"K 2" = 'x' WHERE length("K 2") = 8};
	$a->sql("SET client_min_messages = error; SET bdr.ddl_locking = off; UPDATE $table SET small = 2;
		ALTER TABLE $table ALTER COLUMN other TYPE bigint; UPDATE $table SET small = 3 WHERE $length = 2; UPDATE $table SET big = 'new' WHERE $length = 3;
		UPDATE $table SET big = NULL WHERE $length = 4; DELETE FROM $table WHERE $length = 5; UPDATE $table SET $other;
		UPDATE $table SET small = 4 WHERE $length = 6; ALTER TABLE $table ALTER COLUMN other TYPE numeric; UPDATE $table SET small = 5 WHERE $length = 7");
}
$b->start;
same_ok($a, $b, $_, "$_ afterwards") for ('"al tered"', 'altparts');
$b->value_ok(qq{SELECT count(*) FILTER (WHERE small >= 2), count(*) FILTER (WHERE length(big) = 10000), count(*) FROM $_}, '8|6|8', 'with updates and values') for ('"al tered"', 'altparts');

for my $pair ([ $a, $b, 0 ], [ $b, $a, 100 ])
{
	my ($from, $to, $base) = @$pair;
	my $side = 'from ' . $from->name;

	$from->sql('INSERT INTO toasted SELECT ' . ($base + 1) . ', ' . sprintf($noise, 1000) . ', 1, decode(' . sprintf($noise, 500) . ", 'hex')");
	$from->sql("INSERT INTO toasted VALUES ($base + 2, repeat('x', 100000), 1, NULL)");
	same_ok($from, $to, 'toasted', "toasted values $side");
	$from->sql("UPDATE toasted SET small = small + 1");
	same_ok($from, $to, 'toasted', "an unchanged toasted column keeps its value $side");
	$to->value_ok("SELECT length(big) FROM toasted WHERE id = $base + 1", '32000', "it is still there $side");
	$from->sql("UPDATE toasted SET big = NULL WHERE id = $base + 1; UPDATE toasted SET big2 = big::bytea WHERE id = $base + 2");
	same_ok($from, $to, 'toasted', "one toasted column changes and the other does not $side");
	$from->sql("UPDATE toasted SET id = id + 50 WHERE id = $base + 1");
	same_ok($from, $to, 'toasted', "a key change beside unchanged toast $side");
	$from->sql("BEGIN; UPDATE toasted SET small = 10; UPDATE toasted SET small = 11, big = big || '!'; UPDATE toasted SET small = 12; COMMIT");
	same_ok($from, $to, 'toasted', "several updates of a toasted row in one transaction $side");

	$from->sql('INSERT INTO toast_full SELECT ' . ($base + 1) . ', ' . sprintf($noise, 1000) . ', 1');
	$from->sql("UPDATE toast_full SET small = 2");
	same_ok($from, $to, 'toast_full', "identity FULL with a toasted column $side");
	$from->sql("DELETE FROM toast_full");
	same_ok($from, $to, 'toast_full', "DELETE by identity FULL with a toasted column $side");

	$from->sql("INSERT INTO toast_key VALUES (repeat('key$base', 3000), 1); UPDATE toast_key SET small = 2");
	same_ok($from, $to, 'toast_key', "a long compressed key $side");

	$from->sql("INSERT INTO compressed VALUES ($base, repeat('pglz ', 1000), repeat('lz4 ', 1000)), ($base + 1, repeat('p', 100000), repeat('l', 100000))");
	$from->sql("UPDATE compressed SET p = p || 'x' WHERE id = $base");
	same_ok($from, $to, 'compressed', "compressed inline values $side");

	my $values = join ', ', map { $_ % 3 ? $_ : 'NULL' } 1 .. 1199;
	$from->sql("INSERT INTO wide VALUES ($base, $values), ($base + 1" . ', NULL' x 1199 . ')');
	$from->sql("UPDATE wide SET c1199 = -1, c1 = NULL WHERE id = $base; UPDATE wide SET c600 = 6 WHERE id = $base + 1");
	same_ok($from, $to, 'wide', "1,200 columns $side");
	$from->sql("INSERT INTO wide_text (id, t1, t600, t1199) VALUES ($base, 'first', repeat('m', 50000), 'last')");
	$from->sql("UPDATE wide_text SET t2 = 'second' WHERE id = $base");
	same_ok($from, $to, 'wide_text', "1,200 columns of variable width with toast $side");
}

# 200 MB: a transaction far beyond the memory for decoding, a value far beyond a frame.
$a->sql("INSERT INTO huge (id, v) SELECT 1, decode(repeat(md5('seed'), 200 * 1024 * 1024 / 16), 'hex')");
ok(wait_caught_up($a, $b, timeout => 180), 'a bytea of 200 MB arrives');
same_rows($a, $b, 'SELECT id, length(v), md5(v) FROM huge', 'and is the same');
$a->value_ok('SELECT length(v) FROM huge', 200 * 1024 * 1024, 'and is that long');
$b->sql("UPDATE huge SET t = 'beside 200 MB' WHERE id = 1");
ok(wait_caught_up($a, $b, timeout => 180), 'an update beside it arrives');
same_rows($a, $b, 'SELECT id, length(v), md5(v), t FROM huge', 'and leaves the large value alone');

logs_ok($a, $b);
done_testing();
