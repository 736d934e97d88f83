# A node dies after only some of the others have received its last transactions: when it is parted, the others get them from
# the one that is furthest, whatever was killed or down meanwhile; and the slot that makes it possible keeps no more than it may.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;

my @nodes = map { BDR::Node->create($_, conf => "bdr.replay_progress_frequency = '200ms'\nbdr.max_worker_backoff_delay = '1s'") } qw(a b c d);
my ($a, $b, $c, $d) = @nodes;
$a->sql('CREATE TABLE t (node text, id int, v text, PRIMARY KEY (node, id)); CREATE TABLE big (id int PRIMARY KEY, v text)');
create_first_node($a);
join_node($b, $a);
$_->value_ok("SELECT count(*) FROM bdr.node_slots WHERE is_group_slot", '0', $_->name . ': two nodes need no group slot') for ($a, $b);
join_node($c, $b);
for my $node ($a, $b, $c)
{
	$node->value_ok("SELECT count(*) FROM pg_replication_slots WHERE slot_name = bdr.local_group_slot_name()", '1', $node->name . ' has a group slot');
}

# It moves with what the peers report.
$a->sql("INSERT INTO t SELECT 'a', i, 'x' FROM generate_series(1, 1000) i");
$_->sql('SELECT bdr.request_replay_progress_update()') for ($a, $b, $c);
my $lsn = $b->sql('SELECT pg_current_wal_lsn()');
$a->sql("INSERT INTO t SELECT 'a', i, 'x' FROM generate_series(1001, 1100) i");
$b->wait_ok("SELECT confirmed_flush_lsn > '$lsn' FROM bdr.node_slots WHERE is_group_slot", 't', 'the group slot of b moves on');
$b->wait_ok("SELECT count(*), bool_or(past_bound), bool_and(passed_lsn IS NOT NULL) FROM bdr.group_slot_retention", '2|f|t', 'b knows what each peer has');

# blind(RECEIVER, ORIGIN): the receiver gets nothing more of the origin.
sub blind
{
	my ($receiver, $origin) = @_;
	$receiver->sql("SELECT bdr.alter_subscription_disable((SELECT sub_name FROM bdr.subscription_summary WHERE origin_name = 'node_" . $origin->name . "'), true)");
	$receiver->wait_ok("SELECT count(*) FROM bdr.show_workers() w JOIN bdr.node n ON n.node_id = w.worker_peer WHERE n.node_name = 'node_" . $origin->name . "'", '0',
		$receiver->name . ' is cut off from ' . $origin->name);
	return;
}
# Its peers that are not cut off have everything.
sub received
{
	my ($origin, @peers) = @_;
	my $lsn = $origin->commit_position;
	for my $peer (@peers)
	{
		$origin->wait_ok("SELECT confirmed_flush_lsn >= '$lsn' FROM bdr.node_slots WHERE target_name = 'node_" . $peer->name . "'", 't',
			$peer->name . ' has everything of ' . $origin->name);
	}
	return;
}
sub part_dead
{
	my ($coordinator, $dead) = @_;
	$coordinator->sql("SELECT bdr.part_node('node_" . $dead->name . "', force := true)");
	$coordinator->wait_ok('SELECT count(*) FROM bdr.part_progress', '0', $dead->name . ' is parted');
	return;
}
sub nothing_left
{
	my ($dead, @nodes) = @_;
	my $name = $dead->name;
	for my $node (@nodes)
	{
		$node->value_ok("SELECT (SELECT count(*) FROM pg_replication_slots WHERE slot_name ~ 'node_$name'), (SELECT count(*) FROM pg_replication_origin WHERE roname ~ 'node_$name'),
			(SELECT count(*) FROM bdr.kept_origin), (SELECT count(*) FROM bdr.recovery), (SELECT count(*) FROM bdr.node_group WHERE join_token IS NOT NULL)",
			'0|0|0|0|0', $node->name . " has nothing left of $name");
	}
	return;
}

# Four nodes; a is cut off from d, b gets some of it, c gets all; then d dies.
join_node($d, $a);
blind($a, $d);
$d->sql("INSERT INTO t SELECT 'd', i, 'first' FROM generate_series(1, 500) i");
$d->sql("INSERT INTO big SELECT i, repeat('b', 50) FROM generate_series(1, 20000) i");
received($d, $b, $c);
blind($b, $d);
$d->sql("INSERT INTO t SELECT 'd', i, 'second' FROM generate_series(501, 900) i");
$d->sql("UPDATE t SET v = 'changed' WHERE node = 'd' AND id <= 100");
$d->sql("DELETE FROM t WHERE node = 'd' AND id BETWEEN 101 AND 150");
$d->sql("BEGIN; INSERT INTO t VALUES ('d', 1000, 'kept'); SAVEPOINT s; INSERT INTO t VALUES ('d', 1001, 'undone'); ROLLBACK TO s; COMMIT");
received($d, $c);
$d->stop('immediate');
$_->sql("INSERT INTO t SELECT '" . $_->name . "2', i, 'meanwhile' FROM generate_series(1, 100) i") for ($a, $b, $c);
is($a->sql("SELECT count(*) FROM t WHERE node = 'd'"), '0', 'a has nothing of d');
part_dead($a, $d);
for my $node ($a, $b, $c)
{
	$node->value_ok("SELECT count(*), count(*) FILTER (WHERE v = 'changed') FROM t WHERE node = 'd'", '851|100', $node->name . ' has all of d');
	$node->value_ok("SELECT count(*) FROM big", '20000', $node->name . ' has the large transaction of d');
	$node->value_ok("SELECT peer_state_name FROM bdr.node_summary WHERE node_name = 'node_d'", 'PARTED', $node->name . ' knows that d has left');
}
nothing_left($d, $a, $b, $c);
# conflicts go on being decided by the true origin's time
my $time = $c->sql("SELECT max(pg_xact_commit_timestamp(xmin)) FROM t WHERE node = 'd'");
$_->value_ok("SELECT max(pg_xact_commit_timestamp(xmin)) FROM t WHERE node = 'd'", $time, $_->name . ': forwarded rows have the commit time of their origin') for ($a, $b);
received($_, grep { $_ != $d } grep { $_ != $a } @nodes) for ($a);
same_rows($a, $_, 't', 'a and ' . $_->name . ' are equal') for ($b, $c);

# The same name joins again and resumes nothing stale.
$d->start;
$d->sql("SELECT bdr.drop_node('node_d', force := true)");
$d->wait_ok('SELECT count(*) FROM pg_replication_slots', '0', 'd is an ordinary database');
$a->sql("SELECT bdr.drop_node('node_d')");
$_->sql("SELECT bdr.drop_node('node_d', force := true)") for ($b, $c);
$d->sql('DROP TABLE t, big; DROP EXTENSION bdr CASCADE');
join_node($d, $c);
received($_, grep { my $peer = $_; $peer != $a } @nodes) for ($a);
same_rows($a, $d, 't', 'd has joined again');

# Again, with one survivor down that has most, and the receiver killed in the middle.
blind($a, $d);
blind($b, $d);
$d->sql("INSERT INTO t SELECT 'd3', i, 'x' FROM generate_series(1, 300) i");
received($d, $c);
$d->stop('immediate');
$c->stop('immediate');
$a->sql("SELECT bdr.part_node('node_d', force := true)");
$a->value_ok("SELECT count(*) FROM t WHERE node = 'd3'", '0', 'who is up has nothing of the last transaction of d');
$a->value_ok("SELECT peer_state_name FROM bdr.node_summary WHERE node_name = 'node_d'", 'PARTED', 'those who are up have parted it');
is($a->sql('SELECT waiting_for FROM bdr.part_progress'), '{node_c}', 'c is still to be told');
$b->stop('immediate');
$c->start;
# b was told before anybody up had anything; while it is down, what c has must not be forgotten
$a->wait_ok("SELECT count(*) FROM t WHERE node = 'd3'", '300', 'a gets the last transaction of d when c is back');
$a->wait_ok("SELECT step, progress ~ '^waiting for node_b' FROM bdr.part_progress", 'notify|t', 'parting waits for b, which may lack it, too');
$b->start;
$a->wait_ok('SELECT count(*) FROM bdr.part_progress', '0', 'c is told');
for my $node ($a, $b, $c)
{
	$node->wait_ok("SELECT count(*) FROM t WHERE node = 'd3'", '300', $node->name . ' has the last transaction of d, from c');
}
nothing_left($d, $a, $b, $c);
replicating_ok($a, $_, 'a and ' . $_->name . ' replicate') for ($b, $c);

# Three nodes; who parts the dead one dies as well, in the middle.
$_->sql("SELECT bdr.drop_node('node_d', force := true)") for ($a, $b, $c);
$d->start;
$d->sql("SELECT bdr.drop_node('node_d', force := true)");
$d->wait_ok('SELECT count(*) FROM pg_replication_slots', '0', 'd is an ordinary database again');
$d->sql('DROP TABLE t, big; DROP EXTENSION bdr CASCADE');
join_node($d, $b);
blind($a, $d);
$d->sql("INSERT INTO t SELECT 'd4', i, 'x' FROM generate_series(1, 50) i");
received($d, $b, $c);
$d->stop('immediate');
$b->stop('immediate');
$c->stop('immediate');
$a->sql("SELECT bdr.part_node('node_d', wait_for_completion := false, force := true)");
$a->wait_ok("SELECT step FROM bdr.part_progress", 'notify', 'a begins to part d');
$a->stop('immediate');
$b->start;
$c->start;
$b->sql("SELECT bdr.part_node('node_d', wait_for_completion := false, force := true)");
$a->start;
$_->wait_ok('SELECT count(*) FROM bdr.part_progress', '0', $_->name . ': parting is over') for ($a, $b);
$_->wait_ok("SELECT count(*) FROM t WHERE node = 'd4'", '50', $_->name . ' has it') for ($a, $b, $c);
nothing_left($d, $a, $b, $c);

# The same, when another member's parting of the same node has come further, and some have forgotten what they kept.
$_->sql("SELECT bdr.drop_node('node_d', force := true)") for ($a, $b, $c);
$d->start;
$d->sql("SELECT bdr.drop_node('node_d', force := true)");
$d->wait_ok('SELECT count(*) FROM pg_replication_slots', '0', 'd is an ordinary database once more');
$d->sql('DROP TABLE t, big; DROP EXTENSION bdr CASCADE');
join_node($d, $b);
$d->sql("INSERT INTO t VALUES ('d6', 1, 'x')");
received($d, $a, $b, $c);
$_->stop('immediate') for ($d, $c);
$a->sql("SELECT bdr.part_node('node_d', force := true)");
is($a->sql('SELECT waiting_for FROM bdr.part_progress'), '{node_c}', 'c is to be told');
$b->sql("SELECT pg_replication_origin_drop(origin_name) FROM bdr.kept_origin; DELETE FROM bdr.kept_origin");
$c->start;
$a->wait_ok('SELECT count(*) FROM bdr.part_progress', '0', 'd is parted once more');
for my $node ($a, $b, $c)
{
	$node->value_ok('SELECT count(*) FROM bdr.missing_changes', '0', $node->name . ': nobody lacks anything');
	$node->value_ok("SELECT count(*) FROM t WHERE node = 'd6'", '1', $node->name . ' has the row');
}
nothing_left($d, $a, $b, $c);

# The bound: a peer that needs more than may be kept is named, and what it lacks of a node that dies is reported.
$_->append_conf('postgresql.conf', "bdr.group_slot_keep_size = '16MB'") for ($a, $b, $c);
$_->reload for ($a, $b, $c);
blind($a, $c);
$c->sql("INSERT INTO t VALUES ('c5', 1, 'x')");
received($c, $b);
for my $round (1 .. 8)
{
	$b->sql("INSERT INTO big SELECT 100000 * $round + i, repeat('y', 200) FROM generate_series(1, 10000) i; DELETE FROM big WHERE id > 100000; SELECT pg_switch_wal(); CHECKPOINT");
}
$b->wait_ok("SELECT past_bound FROM bdr.group_slot_retention WHERE peer_name = 'node_a'", 't', 'b no longer keeps what a lacks');
$b->wait_ok("SELECT past_bound FROM bdr.group_slot_retention WHERE peer_name = 'node_c'", 'f', 'c lacks nothing');
like($b->log_since(0), qr/the group slot no longer keeps what node "node_a" lacks of other nodes/, 'the log says so');
$c->stop('immediate');
$b->sql("SELECT bdr.part_node('node_c', force := true)");
$_->wait_ok("SELECT node_name, origin_name FROM bdr.missing_changes", 'node_a|node_c', $_->name . ' knows that a has to join again') for ($a, $b);
$a->value_ok("SELECT count(*) FROM t WHERE node = 'c5'", '0', 'indeed it lacks a row');
$_->wait_ok('SELECT count(*) FROM bdr.part_progress', '0', $_->name . ': c is parted all the same') for ($b);
$b->wait_ok("SELECT count(*) FROM pg_replication_slots WHERE slot_name = bdr.local_group_slot_name()", '0', 'two nodes are left, and no group slot');
$b->sql("SELECT bdr.part_node('node_a')");
$b->value_ok('SELECT count(*) FROM bdr.missing_changes', '0', 'a has left');
$_->stop for grep { $_ != $c && $_ != $d } @nodes;
done_testing();
