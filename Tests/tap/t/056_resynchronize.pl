# bdr.resynchronize_table_from_node: a table becomes what it is on another node while all nodes go on writing. Nothing is lost,
# nothing comes twice, and the nodes stay alike.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::Test;
use Test::More;

my ($a, $b, $c) = map { BDR::Node->create($_) } qw(a b c);
my @nodes = ($a, $b, $c);
$a->sql(q{CREATE TABLE t (id bigint PRIMARY KEY, v text, n int NOT NULL); CREATE TABLE nokey (node text, n int);
	CREATE TABLE child (id int PRIMARY KEY, t bigint REFERENCES t); CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
	CREATE TABLE g (id int PRIMARY KEY, "up per" text GENERATED ALWAYS AS (id::text || '!') STORED, k int GENERATED ALWAYS AS IDENTITY);
	CREATE ROLE clerk});
$_->sql('CREATE ROLE clerk') for $b, $c;
create_first_node($a);
join_node($b, $a);
join_node($c, $b);
active_ok(\@nodes, 'three nodes');
$a->sql(q{INSERT INTO t SELECT i, 'a', 0 FROM generate_series(1, 2000) i; INSERT INTO child SELECT i, i FROM generate_series(1, 100) i;
	INSERT INTO g (id) SELECT i FROM generate_series(1, 100) i});
all_same_ok(\@nodes, [ 't', 'child', 'g' ], 'before');

# what it refuses
my $copy = "SELECT bdr.resynchronize_table_from_node('node_a', 't')";
$b->fails_ok("BEGIN; $copy", '25001', qr/transaction block/, qr/statement of its own/, 'not in a transaction');
$b->fails_ok("SELECT bdr.resynchronize_table_from_node('node_b', 't')", '22023', qr/node that it is on/, qr/another one/, 'not from itself');
$b->fails_ok("SELECT bdr.resynchronize_table_from_node('nowhere', 't')", '42704', qr/there is no node/, qr/node_summary/, 'an unknown node');
$b->fails_ok("SELECT bdr.resynchronize_table_from_node('node_a', 'parts')", '42809', qr/not an ordinary table/, qr/Name a table/, 'a partitioned table');
$b->fails_ok("SET ROLE clerk; $copy", '42501', undef, undef, 'not everybody may');
$b->sql('SET bdr.ddl_replication = off; CREATE TABLE alone (id int PRIMARY KEY)');
$b->fails_ok("SELECT bdr.resynchronize_table_from_node('node_a', 'alone')", '42P01', undef, undef, 'a table that the other node lacks');

# Repaired: rows that differ, with replication kept away from them.
my $damage = q{SET session_replication_role = replica; SELECT pg_replication_origin_create('bdr_damage') WHERE NOT EXISTS (SELECT FROM pg_replication_origin WHERE roname = 'bdr_damage');
	SELECT pg_replication_origin_session_setup('bdr_damage');
	DELETE FROM t WHERE id % 3 = 0; UPDATE t SET v = 'damaged', n = -1 WHERE id % 5 = 0; INSERT INTO t SELECT 100000000 + i, 'surplus', 1 FROM generate_series(1, 100) i;
	DELETE FROM g WHERE id > 50};
$b->sql($damage);
isnt($b->sql("SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM t"), $a->sql("SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM t"), 'damaged');
$b->sql($copy);
$b->sql("SELECT bdr.resynchronize_table_from_node('node_c', 'g')");
all_same_ok(\@nodes, [ 't', 'child', 'g' ], 'repaired');
$b->value_ok("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND conrelid = 'child'::regclass AND convalidated", '1', 'foreign keys are there again');
$b->value_ok("SELECT count(*) FROM pg_replication_origin WHERE roname ~ '^bdr_copied'", '0', 'nothing is left behind');

# Again and again while everybody writes: rows of their own and each other's, keys that come again, a table without key.
my %writers;
for my $node (@nodes)
{
	my $i = $node->name eq 'a' ? 0 : $node->name eq 'b' ? 1 : 2;
	my $script = PostgreSQL::Test::Utils::tempdir() . '/' . $node->name . '.sql';
	PostgreSQL::Test::Utils::append_to_file($script, qq{\\set k random(1, 2000)
\\set d random(1, 300)
\\set own 1000000 * (:client_id + 1) + 10000000 * $i
BEGIN;
INSERT INTO nokey SELECT '} . $node->name . qq{', (random() * 1e9)::int;
UPDATE t SET n = n + 1, v = '} . $node->name . qq{' WHERE id = :k;
COMMIT;
DELETE FROM t WHERE id = :own + :d;
INSERT INTO t VALUES (:own + :d, 'own', :k);
});
	$writers{ $node->name } = $script;
}
my %handle;
for my $node (@nodes)
{
	$handle{ $node->name } = IPC::Run::start(
		[ 'pgbench', '-n', '-c', '1', '-T', '12', '--max-tries', '100', '-R', '60', '-f', $writers{ $node->name }, $node->connstr($node->db) ],
		'<', \undef, '>', \my $out, '2>', \my $err);
}
my $deadline = time + 10;
my $rounds = 0;
while (time < $deadline)
{
	for my $pair ([ $b, 'node_a', 't' ], [ $b, 'node_c', 'nokey' ], [ $c, 'node_b', 't' ], [ $a, 'node_c', 'nokey' ])
	{
		my ($node, $from, $table) = @$pair;
		my ($status, $out, $err) = $node->psql($node->db, "SELECT bdr.resynchronize_table_from_node('$from', '$table')");
		is($status, 0, "copy of $table from $from to " . $node->name) or diag $err;
	}
	$rounds++;
}
cmp_ok($rounds, '>', 0, "$rounds rounds");
for my $name (sort keys %handle)
{
	$handle{$name}->finish;
	is($handle{$name}->result(0), 0, "the writer of $name was not disturbed");
}
all_same_ok(\@nodes, [ 't', 'nokey' ], 'after copies among writers');
my $total = 0;
for my $node (@nodes)
{
	my $written = $node->sql("SELECT count(*) FROM nokey WHERE node = '" . $node->name . "'");
	cmp_ok($written, '>', 100, $node->name . " has written $written rows");
	$total += $written;
}
$a->value_ok('SELECT count(*), count(DISTINCT (node, n)) FROM nokey', "$total|$total", 'none is lost, none comes twice');
$_->value_ok('SELECT count(*) FROM bdr.worker_errors', '0', 'no errors on ' . $_->name) for @nodes;
$a->sql("UPDATE t SET v = 'at last' WHERE id < 100"); $b->sql('DELETE FROM t WHERE id BETWEEN 200 AND 300'); $c->sql("INSERT INTO t VALUES (-1, 'new', 0)");
all_same_ok(\@nodes, ['t'], 'replication goes on');

done_testing();
