# What a DBA sees of a group: counters of what was applied and what it cost, whether nodes are connected, what all nodes say of
# themselves, and a node that does not answer. The roles that watch need no more than their grants.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use BDR::Group;
use JSON::PP ();
use Test::More;
use Time::HiRes qw(time);

my ($a, $b) = node_pair(
	conf => "track_io_timing = on\nbdr.ddl_replication = off",
	setup => q{CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY, v text UNIQUE)});

# ---- counters of subscriptions ----

my $counters = 'SELECT ncommit, ninsert, nupdate, ndelete, ntruncate FROM bdr.stat_subscription';
$b->sql('SELECT bdr.reset_subscription_stats()');
$b->value_ok($counters, '0|0|0|0|0', 'counters begin at 0 after a reset');
$a->sql("INSERT INTO t SELECT i, 'x' FROM generate_series(1, 100) i");
$a->sql("UPDATE t SET v = 'y' WHERE id <= 10");
$a->sql('DELETE FROM t WHERE id <= 5');
$a->sql('TRUNCATE u');
wait_caught_up($a, $b);
$b->value_ok($counters, '4|100|10|5|1', 'what was applied is counted');
$b->value_ok('SELECT nabort, nerror, nskippedtx, ndeadlocks, nretries, retries_at_same_lsn, curr_ncommit > 0, nconnect FROM bdr.stat_subscription',
	'0|0|0|0|0|0|t|0', 'and nothing failed');
$b->value_ok('SELECT shared_blks_hit > 0, shared_blks_read >= 0, shared_blks_dirtied > 0, shared_blks_written >= 0, blk_read_time >= 0, blk_write_time >= 0,
	mean_apply_time > 0, connect_time IS NOT NULL, start_lsn IS NOT NULL, stats_reset > connect_time FROM bdr.stat_subscription',
	't|t|t|t|t|t|t|t|t|t', 'buffers, times and the connection are shown');

sub set
{
	my ($node, $name, $value) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET $name = $value");
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	$node->wait_for("SHOW $name", $value);
	# the worker takes the setting before it applies what comes after
	$node->sql("SELECT pg_terminate_backend(worker_pid) FROM bdr.workers WHERE worker_role_name = 'apply'");
	$node->wait_for('SELECT connected FROM bdr.replication_status', 't');
	return;
}

set($b, 'bdr.track_subscription_apply', 'off');
$b->sql('SELECT bdr.reset_subscription_stats()');
$a->sql("INSERT INTO t VALUES (1000, 'not counted')");
wait_caught_up($a, $b);
$b->value_ok($counters, '0|0|0|0|0', 'nothing is counted when it is switched off');
set($b, 'bdr.track_subscription_apply', 'on');

# ---- counters of tables ----

$b->value_ok('SELECT count(*) FROM bdr.stat_relation', '0', 'tables are not counted by default');
set($b, 'bdr.track_apply_lock_timing', 'on');
set($b, 'bdr.track_relation_apply', 'on');
$a->sql("INSERT INTO t SELECT i, 'x' FROM generate_series(2001, 2100) i");
$a->sql("INSERT INTO u VALUES (1, 'x')");
$a->sql("UPDATE t SET v = 'z' WHERE id BETWEEN 2001 AND 2003");
$a->sql('DELETE FROM t WHERE id = 2004');
# a table that is held, so that there is a time to be seen
my $holder = $b->background_psql($b->db);
$holder->query_safe('BEGIN; LOCK TABLE u IN EXCLUSIVE MODE');
$a->sql("INSERT INTO u VALUES (2, 'waits')");
$b->wait_ok("SELECT count(*) FROM pg_locks WHERE relation = 'u'::regclass AND NOT granted", '1', 'a change waits for a lock');
$holder->query_safe('COMMIT');
$holder->quit;
$a->sql('TRUNCATE t');
wait_caught_up($a, $b);
$b->value_ok("SELECT ninsert, nupdate, ndelete, ntruncate FROM bdr.stat_relation WHERE nspname = 'public' AND relname = 't'", '100|3|1|1',
	'what was applied to a table is counted');
$b->value_ok("SELECT ninsert, total_time > 0, shared_blks_hit > 0, lock_acquire_time > 1 FROM bdr.stat_relation WHERE relname = 'u'", '2|t|t|t',
	'with time, buffers and the wait for its lock');
$b->sql('SELECT bdr.reset_relation_stats()');
$b->value_ok('SELECT count(*) FROM bdr.stat_relation', '0', 'and forgotten at a reset');
set($b, 'bdr.track_relation_apply', 'off');

# ---- a transaction that can't be applied ----

$b->value_ok('SELECT connected, replication_blocked, uptime > interval \'0\', node_name, origin_node_name FROM bdr.replication_status', 't|f|t|node_b|node_a', 'connected');
$b->sql('ALTER TABLE u ADD CONSTRAINT short CHECK (length(v) < 10)');
$a->sql("INSERT INTO u VALUES (3, 'longer than ten')");
$b->wait_ok('SELECT replication_blocked FROM bdr.replication_status', 't', 'a transaction that fails again and again is shown as blocking');
$b->value_ok('SELECT nabort >= 3, nerror >= 3, nretries >= 2, retries_at_same_lsn >= 2, curr_ncommit FROM bdr.stat_subscription', 't|t|t|t|0', 'and counted');
$b->value_ok(q{SELECT event_source, event_type, event_peer_name, event_message ~ 'short' FROM bdr.event_summary ORDER BY event_time DESC LIMIT 1},
	'worker apply|ERROR|node_a|t', 'it is an event');
$b->value_ok(q{SELECT count(*) FROM bdr.event_summary WHERE event_source = 'node state' AND event_type = 'ACTIVE'}, '2', 'the states of nodes are, too');
$b->sql('ALTER TABLE u DROP CONSTRAINT short');
$b->wait_ok('SELECT connected AND NOT replication_blocked FROM bdr.replication_status', 't', 'it goes on when the cause is gone');
same_ok($a, $b, 'u', 'nothing is missing');

# ---- what a client is told ----

$a->value_ok('SHOW bdr.local_node_id', $a->sql('SELECT node_id FROM bdr.local_node'), 'a session knows its node');
is((split /\n/, $a->safe_psql('postgres', 'SHOW bdr.local_node_id'))[0], '0', 'in no other database');
$a->fails_ok('SET bdr.local_node_id = 7', '55P02', qr/cannot be changed/, undef, 'which can not be changed');
my ($lsn) = (split /\n/, $a->sql("INSERT INTO t VALUES (1, 'told'); SHOW bdr.last_committed_lsn"))[-1];
like($lsn, qr{^[0-9A-F]+/[0-9A-F]+$}, 'a session knows where its commit ends');
$a->value_ok("SELECT '$lsn'::pg_lsn <= pg_current_wal_insert_lsn()", 't', 'in this server\'s WAL');
$b->sql("SELECT bdr.wait_for_apply_queue('node_a', '$lsn')");
$b->value_ok("SELECT v FROM t WHERE id = 1", 'told', 'for which another node can be waited for');
is((split /\n/, $a->sql("SELECT 1; SHOW bdr.last_committed_lsn"))[-1], '0/0', 'nothing when nothing was written');
my @shown = split /\n/, $a->sql("INSERT INTO t VALUES (3, 'x'); SHOW bdr.last_committed_lsn; SELECT 1; SHOW bdr.last_committed_lsn; INSERT INTO t VALUES (4, 'x'); SHOW bdr.last_committed_lsn");
is($shown[0], $shown[2], 'reading leaves it as it is');
isnt($shown[0], $shown[3], 'writing does not');
# as libpq's PQparameterStatus gets them: without asking
{
	require IO::Socket::UNIX;
	my $user = getpwuid $>;
	my $socket = IO::Socket::UNIX->new(Peer => $a->host . '/.s.PGSQL.' . $a->port) or die "connect: $!";
	my $startup = pack('N', 196608) . join('', map { "$_\0" } 'user', $user, 'database', $a->db) . "\0";
	print $socket pack('N', 4 + length $startup) . $startup;
	$socket->flush;
	my %status;
	my $until_ready = sub {
		while (1)
		{
			read($socket, my $header, 5) == 5 or die 'the server has closed the connection';
			my ($type, $length) = unpack 'aN', $header;
			read($socket, my $body, $length - 4);
			if ($type eq 'S') { my ($name, $value) = split /\0/, $body; $status{$name} = $value; }
			die $body if $type eq 'E';
			return if $type eq 'Z';
		}
	};
	my $query = sub { print $socket pack('aN', 'Q', 5 + length $_[0]) . "$_[0]\0"; $socket->flush; $until_ready->(); };
	$until_ready->();
	is($status{'bdr.local_node_id'}, $a->sql('SELECT node_id FROM bdr.local_node'), 'the id of the node is reported to a client that connects');
	$query->('BEGIN; INSERT INTO t VALUES (5, \'x\')');
	is($status{'bdr.last_committed_lsn'}, '0/0', 'no commit yet');
	$query->('COMMIT');
	isnt($status{'bdr.last_committed_lsn'}, '0/0', 'where a commit ends is reported');
	$query->('ROLLBACK');
}
wait_caught_up($a, $b);
$b->value_ok("SELECT bdr.get_node_sub_apply_lsn('node_a') >= '$lsn', bdr.get_node_sub_receive_lsn('node_a') >= '$lsn', bdr.get_node_sub_receive_lsn('node_a', false) >= '$lsn'",
	't|t|t', 'and how far it is can be asked');

# ---- connected, ready ----

$a->value_ok("SELECT bdr.is_node_connected('node_b'), bdr.is_node_ready('node_b'), bdr.is_node_ready('node_b', '1 hour')", 't|t|t', 'a peer is connected and ready');
$a->fails_ok("SELECT bdr.is_node_connected('node_x')", '42704', qr/no node node_x/, qr/node_summary/, 'an unknown node');
$a->value_ok("SELECT bdr.node_group_type('the_node_group')", 'normal', 'the type of the group');
$a->value_ok("SELECT bool_and(available) FROM bdr.bdr_features() WHERE feature IN ('row replication', 'conflict-free types')", 't', 'what this version can do');
$a->value_ok(q{SELECT count(*) > 0 FROM bdr.stat_activity WHERE backend_type = 'bdr apply' AND wait_event = 'BdrApplyWait'}, 't', 'what workers wait for has a name');

# ---- the whole group, by those who may only watch ----

for my $node ($a, $b)
{
	$node->sql('CREATE ROLE watcher LOGIN IN ROLE bdr_monitor; CREATE ROLE reader LOGIN IN ROLE bdr_read_all_stats; CREATE ROLE nobody LOGIN');
}
sub as { my ($node, $user, $sql) = @_; return $node->safe_psql($node->db, $sql, connstr => $node->dsn(user => $user)); }

is(as($a, 'watcher', 'SELECT node_name, bdr_version = bdr.bdr_version(), postgres_version ~ $$^PostgreSQL$$, error FROM bdr.group_versions_details ORDER BY 1'),
	"node_a|t|t|\nnode_b|t|t|", 'what all nodes run');
is(as($a, 'watcher', 'SELECT origin_name, target_name, active, state, sent_lag_bytes >= 0, replay_lag_byte >= 0, error FROM bdr.group_replslots_details ORDER BY 1'),
	"node_a|node_b|t|streaming|t|t|\nnode_b|node_a|t|streaming|t|t|", 'the slots of all nodes');
is(as($a, 'watcher', 'SELECT origin_node_name, target_node_name, subscription_status, error FROM bdr.group_subscription_summary ORDER BY 1'),
	"node_a|node_b|replicating|\nnode_b|node_a|replicating|", 'the subscriptions of all nodes');
is(as($a, 'watcher', 'SELECT * FROM bdr.monitor_group_versions()'), 'OK|All nodes are running same BDR versions', 'monitor_group_versions');
is(as($a, 'watcher', 'SELECT * FROM bdr.monitor_group_raft()'), 'OK|All nodes are accessible; this version works without Raft Consensus', 'monitor_group_raft');
is(as($a, 'watcher', 'SELECT * FROM bdr.monitor_local_replslots()'), 'OK|All BDR replication slots are working correctly', 'monitor_local_replslots');
is(as($a, 'watcher', 'SELECT state, active, sent_lsn IS NOT NULL, application_name <> $$$$ FROM bdr.node_slots'), 'streaming|t|t|t', 'who watches sees the state of walsenders');
my @readable = split /\n/, $a->sql(q{SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'bdr'::regnamespace AND relkind IN ('v', 'r')
	AND has_table_privilege('reader', c.oid, 'SELECT') AND NOT relispartition});
cmp_ok(scalar @readable, '>', 20, 'there is much to read');
for my $relation (@readable)
{
	my ($status, $out, $err) = $a->psql($a->db, "SELECT count(*) FROM $relation", connstr => $a->dsn(user => 'reader'));
	is($err, '', "bdr_read_all_stats reads $relation");
}
for my $sql ('SELECT * FROM bdr.group_versions_details', 'SELECT * FROM bdr.monitor_group_versions()', "SELECT * FROM bdr.internal_group_rows('versions')",
	'SELECT bdr.reset_subscription_stats()', 'SELECT bdr.reset_relation_stats()')
{
	is($a->error_of($sql, connstr => $a->dsn(user => 'reader'))->{sqlstate}, '42501', "not for bdr_read_all_stats: $sql");
}
is($a->error_of('SELECT * FROM bdr.node_slots', connstr => $a->dsn(user => 'nobody'))->{sqlstate}, '42501', 'nothing for others');
is($a->error_of("SELECT * FROM bdr.internal_group_rows('SELECT 1')", connstr => $a->dsn(user => 'watcher'))->{sqlstate}, '22023', 'no other question can be asked');

# what comes with it for postgres_exporter works as its user

SKIP:
{
	my ($yaml) = grep { -e } '../monitoring/postgres_exporter.yml';
	skip 'no monitoring folder here', 1 unless $yaml;
	my @queries = slurp_file($yaml) =~ /^\s+query: \|\n((?:^      .*\n|^\n)+)/mg;
	cmp_ok(scalar @queries, '>', 5, 'queries for postgres_exporter');
	for my $query (@queries)
	{
		my ($status, $out, $err) = $a->psql($a->db, $query, connstr => $a->dsn(user => 'watcher'));
		is($err, '', 'runs: ' . substr($query =~ s/\s+/ /gr, 0, 60));
	}
	my ($dashboard) = $yaml =~ s/postgres_exporter.yml/grafana-dashboard.json/r;
	ok(eval { JSON::PP::decode_json(slurp_file($dashboard))->{panels} }, 'the dashboard is JSON') or diag($@);
}

# ---- outside of a group ----

my $c = $a->other_database('other');
$c->sql('CREATE EXTENSION bdr');
for my $function (qw(monitor_group_versions monitor_group_raft monitor_local_replslots))
{
	$c->value_ok("SELECT * FROM bdr.$function()", 'UNKNOWN|This node is not part of any BDR group', "$function without a group");
}
$c->value_ok('SELECT count(*) FROM bdr.group_versions_details', '0', 'and nobody to ask');

# ---- a node that is down, and one that does not answer ----

$b->stop('fast');
$a->wait_ok('SELECT * FROM bdr.monitor_local_replslots()', 'CRITICAL|There is at least 1 BDR replication slot which is inactive', 'a node is down: its slot is inactive');
$a->value_ok("SELECT bdr.is_node_connected('node_b'), bdr.is_node_ready('node_b')", 'f|f', 'it is not connected');
$a->value_ok('SELECT node_name, bdr_version IS NULL, error IS NULL FROM bdr.group_versions_details ORDER BY 1', "node_a|f|t\nnode_b|t|f", 'it is shown as such');
$a->value_ok('SELECT origin_name, state FROM bdr.group_replslots_details ORDER BY 1', "node_a|disconnected\nnode_b|unreachable", 'also its slots');
$a->value_ok('SELECT * FROM bdr.monitor_group_versions()', 'WARNING|There is at least 1 node that is not accessible', 'monitor_group_versions tells');
$a->value_ok('SELECT * FROM bdr.monitor_group_raft()', 'CRITICAL|At least half of the nodes are not accessible', 'monitor_group_raft tells');
$a->value_ok('SELECT disconnect_time IS NOT NULL, connected FROM bdr.replication_status', 't|f', 'since when');
$a->sql("SELECT pg_drop_replication_slot(slot_name) FROM bdr.node_slots");
$a->value_ok('SELECT * FROM bdr.monitor_local_replslots()', 'CRITICAL|There is at least 1 BDR replication slot which is missing', 'a slot that is missing');
# a port that takes connections and says nothing
use IO::Socket::INET;
my $silent = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') or die "listen: $!";
$a->sql("SET bdr.internal_session = on; UPDATE bdr.node_interface SET if_dsn = 'host=127.0.0.1 dbname=x port=" . $silent->sockport . "' WHERE if_name <> ''
	AND node_id = (SELECT node_id FROM bdr.node WHERE node_name = 'node_b')");
my $begin = time;
$a->value_ok("SELECT error FROM bdr.group_versions_details WHERE node_name = 'node_b'", 'no answer for 5000 ms', 'a node that does not answer is given up');
cmp_ok(time - $begin, '<', 15, 'soon');
my $error = $a->error_of("SET statement_timeout = '500ms'; SELECT count(*) FROM bdr.group_versions_details");
is($error->{sqlstate}, '57014', 'the wait can be cancelled');

$b->start;
logs_ok($a, $b);
done_testing();
