# bdrctl: what each subcommand prints and with which exit code, on servers that are well and on some that are not.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::HA;
use BDR::Node;
use BDR::Test;
use PostgreSQL::Test::Utils ();
use Test::More;

if (grep { $_ eq 'bdrctl' } BDR::HA::missing())
{
	plan skip_all => 'bdrctl is not there';
}

my $dir = PostgreSQL::Test::Utils::tempdir();

# runs_ok(ARGUMENTS, EXIT CODE, REGEX for what is printed, TEST NAME): gives back what was printed.
sub runs_ok
{
	my ($arguments, $expected, $regex, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($status, $out, $err) = BDR::HA::run_bdrctl(@$arguments);
	my $all = "$out$err";
	ok($status == $expected && $all =~ $regex, $name) or diag("exit code $status, expected $expected\n$out\n--\n$err");
	return $all;
}

# Before there is a node
my $a = BDR::Node->create('a', conf => "listen_addresses = '127.0.0.1'");
my $b = BDR::Node->create('b', conf => "listen_addresses = '127.0.0.1'");
my $bare = BDR::Node->create('bare', preload => '', conf => "wal_level = replica\ntrack_commit_timestamp = off\nmax_replication_slots = 1");
my ($on_a, $on_b, $on_bare) = map { [ '--dsn', $_->dsn(host => '127.0.0.1') ] } ($a, $b, $bare);
$on_bare = [ '--dsn', $bare->dsn ];

runs_ok([ 'check', @$on_a ], 0, qr/wal_level +ok +wal_level is logical.*extension +ok /s, 'check: a server that is set up');
runs_ok([ 'check', @$on_bare ], 1, qr/wal_level +error.*What to do:.*ALTER SYSTEM SET wal_level = logical.*shared_preload_libraries = bdr/s,
	'check: one that is not, and what to type');
runs_ok([ 'check', '--json', @$on_bare ], 1, qr/^\[\{"name":"server_version","status":"ok".*"name":"track_commit_timestamp","status":"error"/,
	'check as JSON');
$bare->sql('CREATE TABLE no_key (i int)');
runs_ok([ 'check', @$on_bare, '--target', 'host=/nowhere dbname=x' ], 1,
	qr/target +error.*empty database +warning|empty database +warning.*Without a primary key: public\.no_key.*target +error/s, 'check: a target that is not there');
runs_ok([ 'check', '--dsn', 'host=/nowhere' ], 2, qr/could not connect/, 'no server: exit code 2');
runs_ok(['nothing'], 64, qr/Usage: bdrctl/, 'wrong arguments: exit code 64');
runs_ok(['--version'], 0, qr/^bdrctl 1\.0\.0/, 'version');
runs_ok([ 'status', @$on_a ], 1, qr/extension bdr is not in this database.*HINT: CREATE EXTENSION/s, 'status: no extension');

# A group
$a->sql('CREATE TABLE items (id int, part text, note text, amount numeric, PRIMARY KEY (id, part));
	INSERT INTO items SELECT i, repeat(chr(97 + i % 3), 2), md5(i::text), i / 7.0 FROM generate_series(1, 5000) i;
	CREATE TABLE plain (n int); ALTER TABLE plain REPLICA IDENTITY FULL; INSERT INTO plain VALUES (1), (1), (NULL);
	CREATE TABLE "Odd Name" ("The Key" timestamptz PRIMARY KEY, v float8);
	INSERT INTO "Odd Name" SELECT \'2026-01-01\'::timestamptz + i * interval \'1 hour\', i / 3.0 FROM generate_series(1, 300) i;
	CREATE TABLE parted (i int PRIMARY KEY) PARTITION BY RANGE (i); CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100);
	INSERT INTO parted SELECT generate_series(1, 50)' =~ s/\\'/'/gr);
runs_ok([ 'init', @$on_a, '--name', 'a_node', '--group', 'g' ], 0, qr/created extension bdr\ncreated node a_node\ncreated group g\nnode a_node is active/,
	'init');
runs_ok([ 'init', @$on_a, '--name', 'a_node', '--group', 'g' ], 0, qr/the database is node a_node already\nnode a_node is active/, 'init again');
runs_ok([ 'init', @$on_a, '--name', 'x', '--group', 'g' ], 1, qr/is node "a_node" already/, 'init under another name');
runs_ok([ 'check', @$on_b, '--target', $on_a->[1] ], 0, qr/target +ok +A replication connection.*target: wal_level +ok.*collations +ok/s,
	'check of a pair');
runs_ok([ 'join', @$on_b, '--name', 'b_node', '--target', 'host=/nowhere dbname=x' ], 2, qr/SQLSTATE/, 'join: no such target');
my $joined = runs_ok([ 'join', @$on_b, '--name', 'b_node', '--target', $on_a->[1] ], 0, qr/the join has begun.*copying the data.*node b_node is active/s,
	'join');
like($joined, qr/\[#+\.*\] \d+%  \d of 4 tables/, 'with a bar of the tables');
runs_ok([ 'join', @$on_b, '--name', 'b_node', '--target', $on_a->[1] ], 0, qr/node b_node is active/, 'join again');
replicating_ok($a, $b, 'both replicate');

# Looking
my $status = runs_ok([ 'status', @$on_a ], 0, qr/^Group g\n/, 'status');
like($status, qr/^a_node +1 +ACTIVE +yes +0$/m, 'it has the node');
like($status, qr/^a_node +b_node +streaming +replicating +\d+ B/m, 'the stream to the other one');
like($status, qr/^b_node +a_node +streaming +replicating/m, 'and the one back');
my $json = runs_ok([ 'status', '--json', @$on_b ], 0, qr/^\{"group":"g","nodes":\[/, 'status as JSON');
$a->value_ok("SELECT (x -> 'nodes' -> 0 ->> 'node') || (x -> 'nodes' -> 1 -> 'sends_to' -> 0 ->> 'node') FROM (SELECT @{[quote_literal($json)]}::json x) y",
	'a_nodea_node', 'it is JSON');
runs_ok([ 'status', '--watch', '--interval', 0.1, '--count', 3, @$on_a ], 0, qr/(Group g.*){3}/s, 'status again and again');
runs_ok([ 'health', @$on_a ], 0, qr/^ready$/, 'health');
runs_ok([ 'doctor', @$on_a ], 0, qr/^Nothing is wrong\.$/, 'doctor');
my $metrics = runs_ok([ 'metrics', @$on_a ], 0, qr/^bdr_node_ready\{node="a_node"\} 1$/m, 'metrics');
like($metrics, qr/^bdr_peer_lag_bytes\{node="a_node",peer="b_node"\} \d+$/m, 'with the lag');
is(scalar(grep { !/^(#|\w+\{[^}]*\} [-\d.e+]+$)/ } split /\n/, $metrics), 0, 'every line has the form of Prometheus');
$a->value_ok("SELECT ready, state, reason, node_name FROM bdr.node_health()", 't|ACTIVE||a_node', 'the same by SQL');
$a->value_ok("SELECT bdr.is_node_ready('a_node'), bdr.is_node_ready('b_node'), bdr.is_node_ready('b_node', '1 hour'), bdr.is_node_connected('b_node')",
	't|t|t|t', 'also of the other node');
$a->fails_ok("SELECT bdr.is_node_ready('nobody')", '42704', qr/there is no node nobody/, qr/bdr\.node_summary/, 'there is no such node');
$a->sql('CREATE ROLE watcher LOGIN IN ROLE bdr_monitor');
runs_ok([ 'health', '--dsn', $a->dsn(user => 'watcher') ], 0, qr/^ready$/, 'a member of bdr_monitor may ask');
runs_ok([ 'metrics', '--dsn', $a->dsn(user => 'watcher') ], 0, qr/bdr_node_ready/, 'and read the metrics');

# Comparing
wait_caught_up($a, $b);
my $same = runs_ok([ 'compare', @$on_a, '--chunk', 700 ], 0, qr/"public"\."items": 5000 rows, the same/, 'compare: all the same');
like($same, qr/"public"\."plain": 3 rows, the same/, 'a table without a key, too');
like($same, qr/"public"\."parted_1": 50 rows, the same/, 'and a partition');
# Changes that are not replicated: made as if they came from the other node
sub behind_its_back
{
	my ($node, $sql) = @_;
	$node->sql('SELECT bdr.alter_subscription_disable(immediate := true)');
	$node->wait_for("SELECT count(*) FROM bdr.workers WHERE worker_role_name = 'apply'", 0);
	$node->sql("SELECT pg_replication_origin_session_setup(sub_origin_name) FROM bdr.subscription_summary;
		BEGIN; SELECT pg_replication_origin_xact_setup('0/1', now()); $sql; COMMIT");
	$node->sql('SELECT bdr.alter_subscription_enable()');
	return;
}
behind_its_back($b, "UPDATE items SET note = 'other' WHERE id = 4321; DELETE FROM items WHERE id = 17; INSERT INTO items VALUES (9000, 'zz', 'more', 1)");
replicating_ok($a, $b, 'both replicate after that');
my $differ = runs_ok([ 'compare', @$on_a, '--chunk', 700, '--settle', 1, 'public.items' ], 1, qr/"public"\."items": 4999 rows|"public"\."items": 5000 rows, 3 differ/,
	'compare: rows that differ');
like($differ, qr/"public"\."items" id=17, part=cc: only on a_node, not on b_node/, 'one is missing');
like($differ, qr/id=4321, part=bb: differs between a_node and b_node|id=4321, part=aa: differs between a_node and b_node/, 'one is another');
like($differ, qr/id=9000, part=zz: only on b_node, not on a_node/, 'one is too many');
unlike($differ, qr/Odd Name/, 'only the table that was named');
runs_ok([ 'compare', @$on_b, '--with', 'a_node', '--settle', 0, '--json', 'public.items' ], 1, qr/"difference":"onlySecond","node":"a_node"/, 'the other way round, as JSON');
runs_ok([ 'compare', @$on_a, '--with', 'nobody' ], 2, qr/no other node "nobody"/, 'compare with nobody');
runs_ok([ 'compare', @$on_a, 'public.nothing' ], 2, qr/there is no table public\.nothing/, 'compare nothing');
# It goes on where it was cut off.
my @resumed = ('compare', @$on_a, '--chunk', 700, '--settle', 0, '--state', "$dir/state", 'public.items');
runs_ok([ @resumed, '--stop-after', 5 ], 2, qr/id=17.*stopped after 5 ranges/s, 'compare is cut off');
my $rest = runs_ok([ @resumed, ], 1, qr/items": \d+ rows, 3 differ/, 'and goes on, knowing what it has found');
unlike($rest, qr/id=17/, 'where it was');
like($rest, qr/id=4321/, 'to the end');
ok(!-e "$dir/state", 'then the state is removed');
# While rows are on their way, they are waited for.
$b->sql("SELECT bdr.alter_subscription_disable(immediate := true)");
$a->sql("UPDATE plain SET n = 5 WHERE n IS NULL; INSERT INTO \"Odd Name\" VALUES ('2027-01-01', 1)");
runs_ok([ 'compare', @$on_a, '--settle', 0, 'public."Odd Name"' ], 1, qr/The Key=2027-01-01 00:00:00\+00: only on a_node/, 'what has not arrived differs');

# Something is wrong
runs_ok([ 'doctor', @$on_a ], 1, qr/b_node does not receive from a_node: the subscription is disabled.*alter_subscription_enable\('bdr_db1_g_a_node_b_node'\)/s,
	'doctor: a disabled subscription');
runs_ok([ 'status', @$on_a ], 1, qr/b_node +2 +ACTIVE +no .*receiving from a_node is disabled/, 'status: not ready');
runs_ok([ 'health', @$on_b ], 1, qr/not ready: receiving from a_node is disabled/, 'health, too');
runs_ok([ 'health', '--json', @$on_b ], 1, qr/"ready":false,"node":"b_node","state":"ACTIVE"/, 'as JSON');
$a->value_ok("SELECT bdr.is_node_connected('b_node'), bdr.is_node_ready('b_node')", 'f|f', 'and by SQL');
$b->sql("SELECT bdr.alter_subscription_enable()");
replicating_ok($a, $b, 'enabled again');
runs_ok([ 'compare', @$on_a, 'public."Odd Name"', 'public.plain' ], 0, qr/Odd Name": 301 rows, the same/, 'compare waits until it is the same');
$_->sql('SET bdr.ddl_replication = off; CREATE TABLE keyless (i int)') for $a, $b;
runs_ok([ 'doctor', '--json', @$on_a ], 1, qr/"weight":"warning","what":"UPDATE and DELETE are refused.*public\.keyless/, 'doctor: a table without a key');
$b->stop;
runs_ok([ 'doctor', @$on_a ], 1, qr/error: b_node can't be asked.*bdrctl part b_node --force/s, 'doctor: a node that is down');
runs_ok([ 'status', @$on_a ], 1, qr/b_node +2 +ACTIVE +- +- +unreachable: /, 'status: unreachable');
runs_ok([ 'health', @$on_a ], 0, qr/^ready/, 'the other one stays ready');
$b->start;
$a->wait_ok('SELECT state FROM bdr.node_slots', 'streaming', 'it is back');

# Files for HAProxy and PgBouncer
runs_ok([ 'ha-config', @$on_a, '--directory', "$dir/ha", '--first', 'b_node', '--proxy-host', 'proxy1' ], 0, qr/wrote .*haproxy\.cfg.*pgbouncer\.ini.*bdrctl\.conf.*agent\.service/s,
	'ha-config');
my $haproxy = slurp_file("$dir/ha/haproxy.cfg");
like($haproxy, qr/server bdr_b_node 127\.0\.0\.1:@{[$b->port]} check\n.*server bdr_a_node 127\.0\.0\.1:@{[$a->port]} check backup/s, 'nodes of the group, the chosen one first');
like(slurp_file("$dir/ha/pgbouncer.ini"), qr/^\* = host=proxy1 port=5433$/m, 'PgBouncer leads to HAProxy');
runs_ok([ 'ha-config', @$on_a, '--directory', "$dir/ha" ], 2, qr/is there already.*HINT: Add --force/s, 'files are not replaced unasked');
runs_ok([ 'ha-config', '--node', 'odd' ], 64, qr/not of the form/, 'a node that is none');
runs_ok([ 'switchover', '--haproxy', "$dir/nothing", @$on_a, '--to', 'b_node' ], 2, qr/could not connect to HAProxy's socket.*stats socket/s, 'switchover without HAProxy');
SKIP:
{
	skip 'haproxy and pgbouncer are not there', 3 if BDR::HA::missing();
	# the other kind of check
	my $ha = BDR::HA->new([ $a, $b ], check => 'external');
	$ha->server_status_ok($a, qr/^UP$/, 'HAProxy with an external check takes a node for up');
	$ha->serving_ok('a_node', 'clients come to it');
	$a->stop;
	$ha->serving_ok('b_node', 'and to the other one when it is down');
	$a->start;
}

# Completion and manual
for my $shell (qw(bash zsh fish))
{
	runs_ok([ '--generate-completion-script', $shell ], 0, qr/switchover/, "completion for $shell");
}
runs_ok([ 'help', 'switchover' ], 0, qr/--pause-timeout/, 'help');

# Parting
replicating_ok($a, $b, 'both are there');
runs_ok([ 'part', 'nobody', @$on_a ], 2, qr/no node "nobody"/, 'part nobody');
runs_ok([ 'part', 'b_node', @$on_a ], 0, qr/node b_node is parted/, 'part');
runs_ok([ 'part', 'b_node', @$on_a ], 0, qr/parted already/, 'part again');
runs_ok([ 'status', @$on_a ], 0, qr/b_node +2 +PARTED/, 'status of what is left');
runs_ok([ 'health', @$on_b ], 1, qr/not ready: the node is PARTED/, 'a parted node is not ready');
runs_ok([ 'doctor', @$on_b, '--local' ], 1, qr/b_node is parted/, 'doctor says so');

# and back again
$b->sql('DROP TABLE items, plain, "Odd Name", parted, keyless');
runs_ok([ 'join', @$on_b, '--name', 'b_node', '--target', $on_a->[1] ], 0, qr/the join has begun.*node b_node is active/s, 'a parted node joins again');
runs_ok([ 'compare', @$on_a ], 0, qr/"public"\."items": \d+ rows, the same/, 'and has all rows');

logs_ok($a, $b);
done_testing();
