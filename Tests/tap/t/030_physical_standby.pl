# A node's physical standby continues as the node when it is promoted: it has the slots of the peers, and neither loses nor
# doubles anything. A peer that is ahead of it is refused; with bdr.standby_slot_names no peer ever is.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;
use Time::HiRes qw(sleep);

my $quick = "wal_receiver_status_interval = 1s\nwal_sender_timeout = 4s\nwal_receiver_timeout = 4s";
my ($a, $b) = node_pair(
	conf => $quick,
	setup => q{CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'before' FROM generate_series(1, 10) i});

# Makes a standby of a node.
sub standby_of
{
	my ($primary, $name, %options) = @_;
	my $standby = BDR::Node->new($name);
	$primary->backup("for_$name");
	$standby->init_from_backup($primary, "for_$name", has_streaming => 1);
	$standby->{bdr_db} = $primary->db;
	$standby->{bdr_node_name} = $primary->node_name;
	my $slot = $options{slot} // "${name}_slot";
	my $feedback = $options{feedback} // 'on';
	$standby->append_conf('postgresql.conf', "primary_slot_name = '$slot'\nhot_standby_feedback = $feedback");
	$standby->start;
	return $standby;
}

# The standby has all WAL that the primary has now.
sub replayed
{
	my ($standby, $primary) = @_;
	my $lsn = $primary->commit_position;
	return $standby->wait_for("SELECT pg_last_wal_replay_lsn() >= '$lsn'", 't');
}

my $slots = "SELECT count(*) FROM pg_replication_slots WHERE plugin = 'bdr'";

# ---- a standby that can't have safe slots says so ---------------------------------------------------------------------

# A transaction that began before the WAL that the standby has, and runs while the slot is made.
my $long = $a->background_psql($a->db);
$long->query_safe("BEGIN; INSERT INTO t VALUES (100, 'long, before the standby')");
$a->sql('SELECT pg_switch_wal()');
my $s = standby_of($a, 's', slot => '', feedback => 'off');
ok(wait_until(sub { my $log = slurp_file($s->logfile); $log =~ /hot_standby_feedback is off/ && $log =~ /primary_slot_name is not set/ }),
	'without feedback and slot, the log says what is to be set');
$s->value_ok($slots, '0', 'and no slot is made');
$a->sql("SELECT pg_create_physical_replication_slot('s_slot', true)");

# ---- slots on the standby ---------------------------------------------------------------------------------------------

$s->append_conf('postgresql.conf', "primary_slot_name = 's_slot'\nhot_standby_feedback = on");
$s->reload;
$s->wait_ok($slots, '1', 'the slot of the peer comes to the standby');
$a->wait_ok("SELECT catalog_xmin IS NOT NULL FROM pg_replication_slots WHERE slot_name = 's_slot'", 't', 'the primary keeps catalog rows for it');
$a->sql("INSERT INTO t SELECT i, 'meanwhile' FROM generate_series(101, 110) i; CHECKPOINT");
wait_caught_up($a, $b);
sleep 5;
$s->value_ok("$slots AND NOT temporary", '0', 'it is not a lasting one while a transaction runs of which the standby has not all WAL');
$s->restart;
$s->wait_ok($slots, '1', 'such a standby can be restarted, and begins anew');
$long->query_safe('COMMIT');
$long->quit;
$s->wait_ok("$slots AND NOT temporary", '1', 'and is made a lasting one when it is safe');
is($s->sql("SELECT slot_name, database, slot_type FROM pg_replication_slots WHERE plugin = 'bdr'"),
	$a->sql("SELECT slot_name, database, slot_type FROM pg_replication_slots WHERE plugin = 'bdr'"), 'it is the same slot');
$s->value_ok("SELECT string_agg(backend_type, ',') FROM pg_stat_activity WHERE backend_type ~ '^bdr'", 'bdr standby',
	'no other process of bdr runs there');
my $confirmed = $a->commit_position;
$a->wait_ok("SELECT bool_and(confirmed_flush_lsn >= '$confirmed') FROM pg_replication_slots WHERE plugin = 'bdr'", 't', 'the peer has confirmed more');
$s->wait_ok("SELECT bool_and(confirmed_flush_lsn >= '$confirmed') FROM pg_replication_slots WHERE plugin = 'bdr'", 't', 'the slot there follows');

# Slots that the primary does not have any more go; a database can be dropped.
$a->safe_psql('postgres', 'CREATE DATABASE other');
$a->safe_psql('other', "CREATE EXTENSION bdr CASCADE; SELECT bdr.create_node('other', 'dbname=other host=" . $a->host . ' port=' . $a->port . "')");
$a->safe_psql('other', "SELECT bdr.create_node_group('other_group')");
$a->safe_psql('postgres', 'CREATE DATABASE other2');
$a->safe_psql('other2', "CREATE EXTENSION bdr CASCADE; SELECT bdr.create_node('other2', 'dbname=other2 host=" . $a->host . ' port=' . $a->port . "');
	SELECT bdr.join_node_group('dbname=other host=" . $a->host . ' port=' . $a->port . "')");
$s->wait_ok("$slots AND NOT temporary", '3', 'slots of other nodes of the server come as well');
my $position = $s->log_position;
$a->safe_psql('postgres', 'DROP DATABASE other2');
$a->safe_psql('other', "SELECT bdr.part_node('other2', force := true)");
$a->safe_psql('postgres', 'DROP DATABASE other');
$s->wait_ok($slots, '1', 'and go with them');
ok(replayed($s, $a), 'replay goes on');

# ---- failover ---------------------------------------------------------------------------------------------------------

my $running = $a->background_psql($a->db);
$running->query_safe("BEGIN; INSERT INTO t VALUES (200, 'runs across the last confirmation')");
$a->sql("INSERT INTO t VALUES (201, 'confirmed')");
wait_caught_up($a, $b);
$confirmed = $a->sql("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE plugin = 'bdr'");
$s->wait_ok("SELECT confirmed_flush_lsn >= '$confirmed' FROM pg_replication_slots WHERE plugin = 'bdr'", 't', 'the standby knows what the peer has');
$b->sql('SELECT bdr.alter_subscription_disable()');
ok(wait_until(sub { !$b->pids('apply') }), 'the peer receives nothing for a while');
$a->sql("INSERT INTO t SELECT i, 'while the peer was away' FROM generate_series(301, 400) i");
$a->sql("UPDATE t SET v = 'updated' WHERE id <= 5; DELETE FROM t WHERE id = 6");
$running->query_safe('COMMIT');
$running->quit;
$b->sql("INSERT INTO t SELECT i, 'from the peer' FROM generate_series(1001, 1100) i");
$a->wait_ok('SELECT count(*) FROM t WHERE id > 1000', '100', 'the peer is received from');
ok(replayed($s, $a), 'the standby has everything');
my $rows = $a->sql('SELECT count(*), sum(id) FROM t');
$a->stop('immediate');
$s->promote;
$s->value_ok("$slots AND NOT temporary", '1', 'the promoted server has the slot');
$s->sql('SELECT bdr.alter_node_interface(' . quote_literal('node_a') . ', ' . quote_literal($s->dsn) . ')');
$b->sql('SELECT bdr.alter_node_interface(' . quote_literal('node_a') . ', ' . quote_literal($s->dsn) . ')');
$s->sql("INSERT INTO t VALUES (500, 'after promotion')");
$b->sql("INSERT INTO t VALUES (1500, 'after promotion')");
$b->sql('SELECT bdr.alter_subscription_enable()');
replicating_ok($s, $b, 'the promoted standby is the node');
same_ok($s, $b, 't', 'nothing is lost and nothing doubled');
$rows =~ /^(\d+)\|(\d+)$/ or die $rows;
$b->value_ok('SELECT count(*), sum(id) FROM t', ($1 + 2) . '|' . ($2 + 2000), 'the peer has every row');
$b->value_ok("SELECT count(*) FROM t WHERE id IN (100, 200)", '2', 'of transactions that were running, too');
$b->value_ok("SELECT count(*) FROM t WHERE v = 'updated'", '5', 'and updates');
$b->value_ok('SELECT origin_timeline FROM bdr.subscription', '2', 'the peer has noted the timeline');
$s->wait_ok("SELECT string_agg(DISTINCT backend_type, ',' ORDER BY backend_type) FROM pg_stat_activity WHERE backend_type ~ '^bdr'",
	'bdr apply,bdr manager,bdr supervisor', 'the processes there are those of a node');
$s->restart;
$s->sql("INSERT INTO t VALUES (501, 'after a restart')");
$b->sql("UPDATE t SET v = 'by the peer' WHERE id = 7");
same_ok($s, $b, 't', 'both directions go on after a restart');

# The old primary comes back as it was, while the promoted server does not hold the slots.
$s->stop;
$a->start;
$a->wait_ok("SELECT count(*) > 0 FROM bdr.worker_errors WHERE error_message ~ 'connects as node .node_a. was replaced by another one'", 't',
	'an old primary that comes back gets nothing');
$b->sql('SELECT bdr.alter_node_interface(' . quote_literal('node_a') . ', ' . quote_literal($a->dsn) . ')');
$b->wait_ok("SELECT count(*) > 0 FROM bdr.worker_errors WHERE error_message ~ 'is not the one that this node has followed'", 't',
	'nor is anything taken from it');
$b->sql('SELECT bdr.alter_node_interface(' . quote_literal('node_a') . ', ' . quote_literal($s->dsn) . ')');
$a->stop;
$s->start;
same_ok($s, $b, 't', 'which does not disturb the nodes');

# ---- no peer is ahead of the standby ----------------------------------------------------------------------------------

$s->sql("SELECT pg_create_physical_replication_slot('s2_slot', true)");
my $s2 = standby_of($s, 's2');
$s2->wait_ok("$slots AND NOT temporary", '1', 'the promoted standby has a standby');
sub set
{
	my ($node, $setting, $value) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET $setting = $value");
	$node->reload;
	return;
}
set($s, 'bdr.standby_slot_names', "'s2_slot'");
$s->sql("INSERT INTO t VALUES (600, 'with the standby')");
same_ok($s, $b, 't', 'changes go to the peer when the standby has them');
$s2->stop;
my ($sender) = $s->sql("SELECT active_pid FROM pg_replication_slots WHERE plugin = 'bdr'");
$s->sql("INSERT INTO t VALUES (601, 'without the standby')");
$s->wait_ok("SELECT wait_event FROM pg_stat_activity WHERE pid = $sender", 'Extension', 'the sender waits for the standby');
my $at_b = $b->sql("INSERT INTO t VALUES (1600, 'of the peer'); SELECT pg_current_wal_insert_lsn()");
$s->wait_ok('SELECT count(*) FROM t WHERE id = 1600', '1', 'changes of the peer arrive');
sleep 6;
$b->value_ok('SELECT count(*) FROM t WHERE id = 601', '0', 'the peer does not get what the standby does not have');
$b->value_ok("SELECT bool_and(confirmed_flush_lsn < '$at_b') FROM pg_replication_slots WHERE plugin = 'bdr'", 't',
	'nor is confirmed to it what the standby does not have');
$s->value_ok("SELECT active_pid FROM pg_replication_slots WHERE plugin = 'bdr'", $sender, 'the waiting sender outlives timeouts of both sides');
$b->value_ok('SELECT subscription_status FROM bdr.subscription_summary', 'replicating', 'and the peer does not mind');
$s->stop('fast');
ok(1, 'the server can be stopped while it waits');
$s->start;
$s->wait_ok("SELECT wait_event FROM pg_stat_activity WHERE pid = (SELECT active_pid FROM pg_replication_slots WHERE plugin = 'bdr')", 'Extension',
	'the next sender waits again');
$s2->start;
same_ok($s, $b, 't', 'when the standby is back, all goes on');

$position = $s->log_position;
set($s, 'bdr.standby_slot_names', "'s2_slot, no_slot'");
$s->sql("INSERT INTO t VALUES (602, 'with a slot that is not there')");
ok(wait_until(sub { $s->log_since($position) =~ /no physical replication slot "no_slot"/ }), 'a slot that is not there is complained of');
set($s, 'bdr.standby_slots_min_confirmed', '1');
same_ok($s, $b, 't', 'one standby of two is enough if so set');
is(() = $s->log_since($position) =~ /no physical replication slot "no_slot"/g, 1, 'and it is complained of once');
$s->fails_ok("ALTER SYSTEM SET bdr.standby_slot_names = 's2_slot, No-Slot'", '22023', undef, undef, 'a list that can\'t be one is refused');

# ---- a peer that is ahead ---------------------------------------------------------------------------------------------

set($s, 'bdr.standby_slot_names', "''");
$s->sql("INSERT INTO t VALUES (700, 'on the standby')");
wait_caught_up($s, $b);
ok(replayed($s2, $s), 'the standby has this');
$s2->stop;
$b->sql("INSERT INTO t VALUES (1700, 'of the peer, not on the standby')");
$s->wait_ok('SELECT count(*) FROM t WHERE id = 1700', '1', 'a change of the peer is confirmed to it');
wait_caught_up($s, $b);
$s->sql("INSERT INTO t VALUES (701, 'not on the standby')");
$b->wait_ok('SELECT count(*) FROM t WHERE id = 701', '1', 'a peer may be ahead of the standby without the setting');
$s->stop('immediate');
$s2->start;
$s2->promote;
$s2->sql('SELECT bdr.alter_node_interface(' . quote_literal('node_a') . ', ' . quote_literal($s2->dsn) . ')');
$s2->sql("INSERT INTO t SELECT i, 'of another line' FROM generate_series(2001, 2500) i");
$b->sql('SELECT bdr.alter_node_interface(' . quote_literal('node_a') . ', ' . quote_literal($s2->dsn) . ')');
$b->wait_ok("SELECT count(*) > 0 FROM bdr.worker_errors WHERE error_message ~ '55000: node \"node_a\" was promoted or restored at an earlier point'", 't',
	'a peer that is ahead is refused');
$b->value_ok('SELECT subscription_status FROM bdr.subscription_summary', 'error', 'for good');
like($b->sql("SELECT error_context_message FROM bdr.worker_errors WHERE error_message ~ 'earlier point' LIMIT 1"),
	qr{changes up to [0-9A-F]+/[0-9A-F]+, but its timeline 3 goes on from [0-9A-F]+/[0-9A-F]+}, 'with the positions');
$b->value_ok('SELECT count(*) FROM t WHERE id > 2000', '0', 'nothing of the other line is applied');
$b->value_ok('SELECT origin_timeline FROM bdr.subscription', '2', 'and its timeline is not noted');

$s2->wait_ok("SELECT count(*) > 0 FROM bdr.worker_errors WHERE error_message ~ '55000: .*node \"node_a\" has lost changes of node \"node_b\" that it had confirmed'",
	't', 'nor does the promoted server go on without the changes that it has lost');
$s2->value_ok('SELECT count(*) FROM t WHERE id = 1700', '0', 'which it can\'t get any more');

logs_ok($a, $b, $s, $s2);
done_testing();
