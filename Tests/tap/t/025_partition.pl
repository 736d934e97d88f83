# The network between nodes fails, one link at a time: connections break, or packets vanish. Between members; between a
# joining node and its target, or another member, at many steps of the join; while a node is parted. When it is back, all
# goes on by itself, and all nodes have the same rows.
#
# BDR_FULL_MATRIX=1 cuts each link in each way at each step; otherwise they take turns.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use BDR::Group;
use BDR::Link;
use BDR::Writer;
use Test::More;
use Time::HiRes qw(time);

my $conf = "bdr.min_worker_backoff_delay = 50ms\nbdr.max_worker_backoff_delay = 500ms
wal_receiver_timeout = 2s\nwal_sender_timeout = 2s\nwal_receiver_status_interval = 1s";
my $full = $ENV{BDR_FULL_MATRIX};
my $net = BDR::Link->new;
my ($a, $b, $c) = map { $net->node($_, conf => $conf) } qw(a b c);
my @tables = qw(t written last_written);
$a->sql("$BDR::Writer::tables CREATE TABLE t (id int PRIMARY KEY, v text UNIQUE, n int DEFAULT 0);
	INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 2000) i");
create_first_node($a);
join_node($b, $a);
my $row = 10000;

# Writes of all kinds, on each of these nodes; another row on each is updated.
sub write_on
{
	for my $node (@_)
	{
		$row++;
		$node->sql("INSERT INTO t VALUES ($row, 'written on @{[$node->name]} $row'); UPDATE t SET n = n + 1 WHERE id = $row % 2000 + 1;
			DELETE FROM t WHERE id = $row - 500 AND id > 10000");
	}
	return;
}

# Does the node receive from the other one?
sub status
{
	my ($node, $other) = @_;
	return $node->sql("SELECT subscription_status FROM bdr.subscription_summary WHERE origin_name = '@{[$other->node_name]}'");
}

# --- Between a joining node and a member, at steps of the join ---
my %peer = (target => $a, other => $b);
my @cases;
my @places = $ENV{BDR_PLACES} ? split(/ /, $ENV{BDR_PLACES})
  : $full ? qw(reserve create_peer_slots create_peer_slots:done await_peer_positions create_slot create_slot:done copy_structure
	copy_structure:done copy_data copy_data:done copy_indexes set_origins create_local_slots create_local_slots:done catchup promote promote:done)
  : qw(create_peer_slots await_peer_positions create_slot:done copy_structure:done create_local_slots create_local_slots:done promote);
my $turn = 0;
for my $place (@places)
{
	my @ways = map { my $how = $_; map { [ $place, $_, $how ] } qw(target other) } qw(silent reset);
	push @cases, $full ? @ways : $ways[ (0, 3, 1, 2)[ $turn++ % 4 ] ];
}
for my $case (@cases)
{
	my ($place, $who, $how) = @$case;
	my $name = "the link to the $who fails ($how) at $place";
	make_node($c);
	pause_joins($place, $c);
	begin_join($c, $a);
	$c->wait_for('SELECT progress FROM bdr.join_progress', "paused at $place", timeout => 60)
	  or do { fail("$name: the join comes there"); $c->show_state; last; };
	$net->cut($c, $peer{$who}, $how);
	write_on($a, $b);
	resume_joins($c);
	write_on($a, $b);
	# A connection that breaks is seen at once; that nothing comes, later.
	if ($how eq 'reset')
	{
		my ($which, $node) = $who eq 'target' ? ('the join target', 'node_a') : ('node "node_b"', 'node_b');
		my $seen = wait_until(sub {
			my $shown = $c->sql("SELECT concat_ws('; ', error_message, progress,
				(SELECT error_message FROM bdr.worker_errors ORDER BY error_time DESC LIMIT 1)) FROM bdr.join_progress");
			return $shown =~ /could not connect to (?:\Q$which\E|the origin)|waiting until node "$node" streams/;
		}, timeout => 15);
		ok($seen || $place =~ /promote:done/, "$name: it says so") or diag($c->sql('SELECT * FROM bdr.join_progress'));
	}
	isnt($c->sql('SELECT peer_state_name FROM bdr.local_node_summary'), 'ACTIVE', "$name: no join without it") if $place !~ /promote/;
	$net->heal($c, $peer{$who});
	my $outcome = join_outcome($c, timeout => 60) // 'nothing';
	is($outcome, 'ACTIVE', "$name: the join is completed") or do { $_->show_state for ($c, $a); last; };
	write_on($a, $b, $c);
	all_same_ok([ $a, $b, $c ], ['t'], $name) or last;
	traces_ok($_, 2, "$name: " . $_->name . ' has what it needs, and nothing else') for ($a, $b, $c);
	last if $case == $cases[-1];
	$a->sql("SELECT bdr.part_node('node_c')", timeout => 60);
	$c->sql('DROP TABLE t, written, last_written');
}

# --- Between two members, while all write; the third one has both ---
for my $case ([ 'silent', 'resume' ], [ 'silent', 'stale' ], [ 'reset', 'resume' ])
{
	my ($how, $then) = @$case;
	my $name = "cut ($how), healed ($then)";
	my @writers = map { BDR::Writer->start($_) } ($a, $b, $c);
	$net->cut($a, $b, $how);
	# Some rows are changed on both sides.
	$a->sql("UPDATE t SET n = 1000 + id WHERE id BETWEEN 1 AND 60");
	$b->sql("UPDATE t SET n = 2000 + id WHERE id BETWEEN 40 AND 100");
	for my $pair ([ $a, $b ], [ $b, $a ])
	{
		my ($node, $other) = @$pair;
		ok(wait_until(sub { status($node, $other) ne 'replicating' }, timeout => 30), "$name: " . $node->name . ' notices');
	}
	is(status($c, $_), 'replicating', "$name: c receives from " . $_->name) for ($a, $b);
	for my $writer (@writers[ 0, 1 ])
	{
		my $number = $writer->number;
		my $last = ($writer->acknowledged)[-1] + 20;
		$c->wait_ok("SELECT max(id) >= $last FROM written WHERE writer = $number", 't', "$name: c gets what " . $writer->node->name . ' goes on writing');
		my $cut_off = $writer->node == $a ? $b : $a;
		isnt($cut_off->sql("SELECT COALESCE(max(id), 0) >= $last FROM written WHERE writer = $number"), 't', "$name: " . $cut_off->name . ' does not');
	}
	$net->heal($a, $b, $then);
	$_->finish for @writers;
	all_same_ok([ $a, $b, $c ], \@tables, $name) or last;
	written_ok([ $a, $b, $c ], \@writers, $name);
}

# --- While a node is parted ---
# What it committed has to reach the member that is cut off from it before it may go.
my $writer = BDR::Writer->start($c);
wait_until(sub { $writer->acknowledged > 10 });
$net->cut($b, $c);
my $last = ($writer->acknowledged)[-1] + 10;
$c->wait_ok("SELECT max(id) >= $last FROM written WHERE writer = @{[$writer->number]}", 't', 'c writes what b does not get');
$a->sql("SELECT bdr.part_node('node_c', wait_for_completion := false)");
$a->wait_ok('SELECT step, progress FROM bdr.part_progress', 'drain|waiting until node_b has all that node "node_c" committed',
	'parting waits for the member that is cut off, and names it');
$c->value_ok('SELECT peer_state_name FROM bdr.local_node_summary', 'PART_START', 'the node is leaving');
# And the one that carries it out loses sight of the node as well.
$net->cut($a, $c, 'reset');
$a->wait_ok('SELECT progress ~ \'could not connect to node "node_c"\' FROM bdr.part_progress', 't', 'parting says that it can not reach the node');
$net->heal($a, $c);
$a->wait_ok('SELECT progress FROM bdr.part_progress', 'waiting until node_b has all that node "node_c" committed', 'it goes on');
$net->heal($b, $c);
$_->wait_ok("SELECT peer_state_name FROM bdr.node_summary WHERE node_name = 'node_c'", 'PARTED', 'parted as seen on ' . $_->name) for ($a, $b, $c);
$writer->finish;
all_same_ok([ $a, $b ], \@tables, 'after the parting');
written_ok([ $a, $b, $c ], [$writer], 'after the parting');
traces_ok($_, 1, $_->name . ' has nothing left of c') for ($a, $b);
traces_ok($c, 0, 'c has nothing left');

# A member can't be told: the parting says so, and is completed later.
$c->sql('DROP TABLE t, written, last_written');
make_node($c);
$c->sql("SELECT bdr.join_node_group(@{[quote_literal($b->dsn)]})", timeout => 60);
$net->cut($a, $b, 'reset');
$a->sql("SELECT bdr.part_node('node_c', wait_for_completion := false)");
$a->wait_ok("SELECT progress ~ 'could not connect to node \"node_b\"' FROM bdr.part_progress", 't', 'parting says which member it can not reach');
$net->heal($a, $b);
$_->wait_ok("SELECT peer_state_name FROM bdr.node_summary WHERE node_name = 'node_c'", 'PARTED', 'parted as seen on ' . $_->name) for ($a, $b, $c);

# --- A join while a member can't be reached ---
for my $how ('reset', 'silent')
{
	my $name = "a member can not be reached ($how)";
	$c->sql('DROP TABLE IF EXISTS t, written, last_written');
	make_node($c) if $how eq 'reset';
	$net->cut($c, $b, $how);
	begin_join($c, $a);
	$c->wait_ok("SELECT step, error_message ~ 'could not connect to node \"node_b\"', progress ~ 'node_b' FROM bdr.join_progress", 'reserve|t|t', "$name: the join names it",
		timeout => 20);
	# Nobody else has to wait for this join.
	$a->wait_ok('SELECT count(*) FROM bdr.node_group WHERE join_token IS NOT NULL', '0', "$name: the join does not hold the lock") if $how eq 'reset';
	$c->sql("SELECT bdr.part_node('node_c', wait_for_completion := false)");
	if ($how eq 'reset')
	{
		$c->wait_ok("SELECT step, error_sqlstate, progress ~ 'node_b' FROM bdr.join_progress", 'rollback|57014|t', "$name: a cancelled join says where it has to look");
		$a->value_ok("SELECT count(*) FROM bdr.node_summary WHERE peer_state_name NOT IN ('ACTIVE', 'PARTED')", '0', "$name: the target does not know it any more");
	}
	$net->heal($c, $b);
	$c->wait_ok('SELECT step, error_sqlstate FROM bdr.join_progress', 'failed|57014', "$name: the join is cancelled", timeout => 40);
	traces_ok($c, 0, "$name: it leaves nothing on c");
	traces_ok($_, 1, "$name: it leaves nothing on " . $_->name) for ($a, $b);
}

# --- A member is lost for good while a node joins: the join can be given up, and the member parted, without it ---
pause_joins('create_peer_slots:done', $c);
begin_join($c, $a);
$c->wait_ok('SELECT progress FROM bdr.join_progress', 'paused at create_peer_slots:done', 'a join has its place and its slots');
$b->stop('immediate');
resume_joins($c);
$c->wait_ok("SELECT progress ~ 'node_b' OR error_message ~ 'node_b' FROM bdr.join_progress", 't', 'the join names the member that is down');
$c->sql("SELECT bdr.part_node('node_c', wait_for_completion := false)");
$a->wait_ok('SELECT count(*) FROM bdr.node_group WHERE join_token IS NOT NULL', '0', 'the lock is free when the join was cancelled');
$a->sql("SELECT bdr.part_node('node_b', force := true)", timeout => 60);
traces_ok($a, 0, 'nothing is left on a');
$c->wait_ok('SELECT step, error_sqlstate FROM bdr.join_progress', 'failed|57014', 'the join does not wait for the member that was parted');
traces_ok($c, 0, 'nothing is left on c');
$c->sql("SELECT bdr.join_node_group(@{[quote_literal($a->dsn)]})", timeout => 60);
active_ok([ $a, $c ], 'it can join');
all_same_ok([ $a, $c ], \@tables, 'in the end');
done_testing();
