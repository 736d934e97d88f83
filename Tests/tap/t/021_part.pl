# Nodes leave: alive (drained first), dead (by force), in the middle of a join; nothing of them stays on the others, and the
# same name can join again.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;
use Time::HiRes qw(usleep);

my ($a, $b) = node_pair(setup => 'CREATE TABLE t (node text, id int, v text, PRIMARY KEY (node, id))');
my $c = BDR::Node->create('c');
join_node($c, $b);
my @all = ($a, $b, $c);

# What is left of other nodes: slots, origins, subscriptions.
sub traces
{
	my ($node) = @_;
	return $node->sql("SELECT (SELECT count(*) FROM pg_replication_slots WHERE plugin = 'bdr' AND slot_name <> bdr.local_group_slot_name()),
		(SELECT count(*) FROM pg_replication_origin),
		(SELECT count(*) FROM bdr.subscription), (SELECT count(*) FROM bdr.node_group WHERE join_token IS NOT NULL), (SELECT count(*) FROM bdr.join_tracking)");
}
sub caught_up
{
	my ($peers, @nodes) = @_;
	for my $node (@nodes)
	{
		my $lsn = $node->commit_position;
		$node->wait_ok("SELECT count(*), bool_and(confirmed_flush_lsn >= '$lsn') FROM bdr.node_slots WHERE NOT is_group_slot",
			"$peers|t", 'the peers of ' . $node->name . ' have everything');
	}
	return;
}
is(traces($_), '2|2|2|0|0', $_->name . ' is connected with two others') for @all;

# Wrong calls.
$a->fails_ok("SELECT bdr.part_node('nobody')", '42704', qr/no node "nobody"/, undef, 'an unknown node');
$a->fails_ok("SELECT bdr.part_node('node_a')", '55000', qr/cannot wait/, qr/another node/, 'waiting for oneself');
$a->fails_ok("SELECT bdr.drop_node('node_c')", '55000', qr/not parted/, qr/part_node/, 'dropping a member');

# A live node, in the middle of writing.
my $session = $c->background_psql($c->db, on_error_stop => 1);
$session->query_safe("BEGIN; INSERT INTO t SELECT 'c', i, 'open' FROM generate_series(1, 500) i");
$a->sql("SELECT bdr.part_node('node_c', wait_for_completion := false)");
$a->wait_ok("SELECT progress ~ 'waiting for transactions' FROM bdr.part_progress", 't', 'parting says what it waits for');
$c->wait_ok("SELECT peer_state_name FROM bdr.local_node_summary", 'PART_START', 'the node knows that it leaves');
$c->fails_ok("INSERT INTO t VALUES ('c', 1000, 'too late')", '25006', qr/leaving its group/, undef, 'new writes are refused there');
$b->sql("INSERT INTO t SELECT 'b', i, 'meanwhile' FROM generate_series(1, 100) i");
$session->query_safe('COMMIT');
$session->quit;
$a->wait_ok("SELECT peer_state_name FROM bdr.node_summary WHERE node_name = 'node_c'", 'PARTED', 'parted as seen on a');
$b->wait_ok("SELECT peer_state_name FROM bdr.node_summary WHERE node_name = 'node_c'", 'PARTED', 'parted as seen on b');
$c->wait_ok("SELECT peer_state_name FROM bdr.local_node_summary", 'PARTED', 'parted as seen on c');
is(traces($_), '1|1|1|0|0', $_->name . ' is connected with one other') for ($a, $b);
$c->wait_ok("SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_replication_origin) + (SELECT count(*) FROM bdr.subscription)
	+ (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'bdr apply')", '0', 'c is connected with nobody');
$_->value_ok("SELECT count(*) FROM t WHERE node = 'c'", '500', $_->name . ' has the last transaction of c') for @all;
$c->sql("INSERT INTO t VALUES ('c', 2000, 'on my own')");
caught_up(1, $a, $b);
$_->value_ok("SELECT count(*) FROM t", '600', $_->name . ' goes on without c') for ($a, $b);
same_rows($a, $b, 't', 'a and b are equal');
$a->sql("SELECT bdr.part_node('node_c')");
pass('parting a parted node is no error');
$a->sql("SELECT bdr.drop_node('node_c')");
$a->value_ok('SELECT count(*) FROM bdr.node', '2', 'its record can be dropped');

# The same name again, with nothing stale, and under a new id.
$c->sql("DROP TABLE t");
$c->sql("SELECT bdr.create_node('node_c', @{[quote_literal($c->dsn)]})");
$c->sql("SELECT bdr.join_node_group(@{[quote_literal($b->dsn)]})");
$c->value_ok('SELECT node_id FROM bdr.local_node', '4', 'an id is never used again');
$_->value_ok("SELECT string_agg(node_id::text, ',' ORDER BY node_id) FROM bdr.node", '1,2,4', $_->name . ' knows the new id') for @all;
is(traces($_), '2|2|2|0|0', $_->name . ' is connected with two others again') for @all;
$c->sql("INSERT INTO t SELECT 'c2', i, 'new life' FROM generate_series(1, 100) i");
$a->sql("UPDATE t SET v = 'seen' WHERE node = 'b' AND id <= 10");
caught_up(2, @all);
same_rows($a, $_, 't', 'a and ' . $_->name . ' are equal') for ($b, $c);

# A dead node, while another member is down as well.
$c->stop('immediate');
$b->stop('immediate');
$a->fails_ok("SET statement_timeout = '2s'; SELECT bdr.part_node('node_c')", '57014', undef, undef, 'a dead node can not be drained');
$a->value_ok("SELECT waiting_for = '{}' AND NOT force FROM bdr.part_progress", 't', 'parting waits');
$a->sql("SELECT bdr.part_node('node_c', force := true)");
$a->value_ok("SELECT peer_state_name FROM bdr.node_summary WHERE node_name = 'node_c'", 'PARTED', 'parted by force');
is($a->sql("SELECT waiting_for FROM bdr.part_progress"), '{node_b}', 'the member that is down is still to be told');
is(traces($a), '1|2|1|0|0', 'nothing of it stays on a but the origin, as b may have to forward something');
$b->start;
$b->wait_ok("SELECT peer_state_name FROM bdr.node_summary WHERE node_name = 'node_c'", 'PARTED', 'the member that was down is told');
$a->wait_ok('SELECT count(*) FROM bdr.part_progress', '0', 'then parting is over');
is(traces($_), '1|1|1|0|0', $_->name . ' has nothing of it') for ($a, $b);
replicating_ok($a, $b, 'a and b replicate');
# It comes back and is refused.
$c->start;
$c->wait_ok("SELECT count(*) > 0 FROM bdr.worker_errors WHERE error_message ~ 'parted|not a peer|does not exist'", 't', 'a node that was parted by force is refused');
$c->sql("INSERT INTO t VALUES ('c3', 1, 'nobody hears it')");
$a->sql("INSERT INTO t VALUES ('a', 1, 'x')");
same_ok($a, $b, 't', 'a and b are not disturbed by it');
$c->sql("SELECT bdr.drop_node('node_c', force := true)");
$c->wait_ok("SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_replication_origin)", '0', 'it can be made an ordinary database');

# A join that can not go on is given up, by the node itself and by a member.
my $d = BDR::Node->create('d');
$d->sql('CREATE EXTENSION bdr');
$d->sql("SELECT bdr.create_node('node_d', @{[quote_literal($d->dsn)]})");
for my $way ('itself', 'member')
{
	$b->stop;
	$d->sql("SELECT bdr.join_node_group(@{[quote_literal($a->dsn)]}, wait_for_completion := false)");
	$d->wait_ok("SELECT progress ~ 'node_b' FROM bdr.join_progress", 't', "the join names the member that is down ($way)");
	if ($way eq 'itself')
	{
		$d->sql("SELECT bdr.part_node('node_d', wait_for_completion := false)");
		$b->start;
	}
	else
	{
		$b->start;
		$d->wait_ok("SELECT peer_state_name FROM bdr.local_node_summary", 'ACTIVE', 'the join goes on when the member is back');
		last;
	}
	$d->wait_ok("SELECT step, error_sqlstate FROM bdr.join_progress", 'failed|57014', "the join is given up ($way)");
	$d->value_ok("SELECT peer_state_name FROM bdr.local_node_summary", 'CREATED', "the node is as before ($way)");
	is(traces($d), '0|0|0|0|0', "d has nothing left ($way)");
	is(traces($_), '1|1|1|0|0', $_->name . " has nothing left of d ($way)") for ($a, $b);
	$_->value_ok("SELECT count(*) FROM bdr.node WHERE node_name = 'node_d'", '0', $_->name . " does not know d ($way)") for ($a, $b);
}

# Another way to reach a node, while it is in use.
$a->sql("SELECT bdr.alter_node_interface('node_b', @{[quote_literal($b->dsn(application_name => 'by_new_way'))]})");
$b->wait_ok("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'", '2', 'replication goes on over another interface');
$a->value_ok("SELECT interface_connstr ~ 'by_new_way' FROM bdr.node_summary WHERE node_name = 'node_b'", 't', 'which is shown');
$b->sql("INSERT INTO t VALUES ('b', 5000, 'over the new interface')");
caught_up(2, $a, $b, $d);
same_rows($a, $_, 't', 'a and ' . $_->name . ' are equal at the end') for ($b, $d);
logs_ok($a, $d);
done_testing();
