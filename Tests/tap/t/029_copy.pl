# A join copies many tables at once, and large ones in pieces, and shows how far it is; it may pause in standby. With
# BDR_FULL_MATRIX=1 the twenty tables have about 1 GB.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;

my $rows = $ENV{BDR_FULL_MATRIX} ? 400_000 : 20_000;
my ($a, $b) = map { BDR::Node->create($_) } qw(a b);
for my $n (1 .. 18)
{
	$a->sql("CREATE TABLE t$n (id int PRIMARY KEY, a bigint, v text, z timestamptz DEFAULT now());
		INSERT INTO t$n SELECT i, i * $n, repeat(md5(i::text), 3) FROM generate_series(1, $rows - $n * 500) i");
}
# one so large that it is cut into pieces, with holes, and rows that end in the last block
$a->sql("CREATE TABLE large (id int PRIMARY KEY, v text, w text);
	INSERT INTO large SELECT i, repeat('x', 900), CASE WHEN i % 5000 = 0 THEN repeat('compressed', 2000) END FROM generate_series(1, 300000) i;
	DELETE FROM large WHERE id % 7 = 0; UPDATE large SET v = 'short' WHERE id % 1000 = 1; VACUUM large");
# as large, but with values out of line, and columns that came and went: these rows can not travel as they are stored
$a->sql("CREATE TABLE toasted (id int PRIMARY KEY, gone int, v text, w text);
	ALTER TABLE toasted ALTER w SET STORAGE EXTERNAL;
	INSERT INTO toasted SELECT i, i, repeat('x', 900), CASE WHEN i % 1000 = 0 THEN repeat('toast', 2000) END FROM generate_series(1, 160000) i;
	ALTER TABLE toasted DROP gone, ADD later text DEFAULT 'by default';
	CREATE TABLE added (id int PRIMARY KEY); INSERT INTO added SELECT generate_series(1, 1000); ALTER TABLE added ADD later text DEFAULT 'by default'; ANALYZE");
$a->sql("CREATE TYPE mood AS ENUM ('sad', 'happy');
	CREATE TABLE \"Odd Names\" (\"Key\" int PRIMARY KEY, \"when\" mood, o oid, r regclass, g int GENERATED ALWAYS AS (\"Key\" * 2) STORED);
	INSERT INTO \"Odd Names\" SELECT i, 'happy', i, 'large' FROM generate_series(1, 1000) i;
	CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES; CREATE TABLE empty (i int PRIMARY KEY)");
create_first_node($a);
$b->sql('CREATE EXTENSION bdr');
$b->sql("SELECT bdr.create_node('node_b', @{[quote_literal($b->dsn)]})");
$b->append_conf('postgresql.conf', "bdr.debug_join_pause_at = 'copy_data:done'\nbdr.max_sync_workers = 3");
$b->reload;
$b->sql("SELECT bdr.join_node_group(@{[quote_literal($a->dsn)]}, wait_for_completion := false, pause_in_standby := true)");
$b->wait_ok("SELECT progress FROM bdr.join_progress", 'paused at copy_data:done', 'the data is copied');
$b->value_ok("SELECT count(*), count(*) FILTER (WHERE phase = 'indexes'), min(percent), bool_and(finished_time >= started_time) FROM bdr.join_table_progress", '24|24|100|t', 'every table is shown as copied');
$b->value_ok("SELECT rows_copied, bytes_copied > 200000000, rows_estimated > 0 FROM bdr.join_table_progress WHERE table_name = 'public.large'", (300000 - 42857) . '|t|t', 'the large table with all its rows');
$b->value_ok("SELECT sum(rows_copied) = (SELECT rows_copied FROM bdr.join_state) FROM bdr.join_table", 't', 'the sum is right');
$b->value_ok("SELECT count(*) FROM pg_replication_origin WHERE roname LIKE 'bdr_copy%'", '0', 'origins of the copy are gone');
$b->value_ok("SELECT max(pg_xact_commit_timestamp(xmin)) FROM large", '2000-01-01 00:00:01+00', 'and are older than any change');
$b->value_ok("SELECT count(*) > 0 FROM bdr.join_progress_line WHERE line ~ '^copied public.large: 257143 rows, .* MB [(][0-9]+ of 24 tables[)]\$'", 't', 'lines tell of each table');
# killed here, it copies again
$b->stop('immediate');
$b->append_conf('postgresql.conf', "bdr.debug_join_pause_at = ''");
$b->start;
my ($status, $out, $err) = $b->psql($b->db, 'SELECT bdr.wait_for_join_completion(verbose_progress := true)', timeout => 300);
is($status, 0, 'the join comes to its end');
like($err, qr/NOTICE:  copying public\.large, about 2\d\d MB/, 'notices tell what is copied');
like($err, qr/NOTICE:  copied public\."Odd Names": 1000 rows/, 'and what was');
$b->value_ok('SELECT peer_state_name, peer_target_state_name FROM bdr.local_node_summary', 'STANDBY|STANDBY', 'the node waits in standby');
$b->value_ok("SELECT bool_and(phase = 'done') FROM bdr.join_table_progress", 't', 'the copy is done');
same_rows($a, $b, $_, "same rows of $_") for (map { "t$_" } 1 .. 18), 'large', 'toasted', 'added', '"Odd Names"';
$b->value_ok('SELECT (SELECT count(*) FROM nothing), (SELECT count(*) FROM empty)', '1|0', 'tables without columns or rows');
$b->value_ok("SELECT count(*) FROM pg_replication_origin WHERE roname LIKE 'bdr_copy%'", '0', 'no origin of either copy is left');
$b->fails_ok('INSERT INTO empty VALUES (1)', '25006', undef, undef, 'a node in standby refuses writes');
$a->sql('INSERT INTO empty VALUES (1)');
$b->wait_ok('SELECT count(*) FROM empty', '1', 'and receives');
$b->restart;
$a->sql('INSERT INTO empty VALUES (2)');
$b->wait_ok('SELECT count(*) FROM empty', '2', 'also after a restart');
$b->value_ok('SELECT peer_state_name FROM bdr.local_node_summary', 'STANDBY', 'still in standby');
$a->value_ok("SELECT peer_state_name FROM bdr.node_summary WHERE node_name = 'node_b'", 'STANDBY', 'as others see, too');
$b->sql('SELECT bdr.promote_node()');
$b->value_ok('SELECT peer_state_name, peer_target_state_name FROM bdr.local_node_summary', 'ACTIVE|ACTIVE', 'promoted');
replicating_ok($a, $b, 'both replicate');
$b->fails_ok('SELECT bdr.promote_node()', '55000', qr/not in standby/, qr/pause_in_standby/, 'a member can not be promoted');
logs_ok($a, $b);
done_testing();
