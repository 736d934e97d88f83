# Real networks fail: each server has a network namespace, and an address, of its own. The interface of a node goes down, the
# packets between two nodes vanish, or those of one direction only; while a node joins, and while it is parted. The nodes
# notice and say so, and when the network is back, all goes on by itself: all nodes have the same rows, and no slot, origin,
# session or worker is left that nobody needs.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use BDR::Group;
use BDR::Namespaces;
use BDR::Writer;
use Test::More;

if (my $why = BDR::Namespaces->refused)
{
	plan skip_all => $why;
}

my $conf = "bdr.min_worker_backoff_delay = 50ms\nbdr.max_worker_backoff_delay = 500ms
wal_receiver_timeout = 2s\nwal_sender_timeout = 2s\nwal_receiver_status_interval = 500ms
tcp_keepalives_idle = 1s\ntcp_keepalives_interval = 1s\ntcp_keepalives_count = 2\ntcp_user_timeout = 2s";
my %tcp = (keepalives_idle => 1, keepalives_interval => 1, keepalives_count => 2, tcp_user_timeout => 2000);
my $net = BDR::Namespaces->new;
my ($a, $b, $c) = map { $net->node($_, conf => $conf, tcp => \%tcp) } qw(a b c);
my @tables = qw(t written last_written);

# Does what the other node sends arrive at this one? Datagrams to a port on which nobody listens are counted.
sub hears
{
	my ($node, $other, $timeout) = @_;
	my $count = sub { return ($node->inside('cat', '/proc/net/snmp') =~ /Udp: \d+ (\d+)/)[0]; };
	my $before = $count->();
	return wait_until(sub {
		$other->inside('bash', '-c', "echo > /dev/udp/@{[$node->address]}/9; true");
		return $count->() > $before;
	}, timeout => $timeout);
}

# What connects each node with the others is there, and nothing else.
sub clean_ok
{
	my ($name, @members) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $peers = @members - 1;
	for my $node (@members)
	{
		my $who = "$name: " . $node->name;
		traces_ok($node, $peers, "$who has the slots and origins that it needs");
		$node->wait_ok("SELECT count(*) FILTER (WHERE backend_type ~ '^bdr apply'), count(*) FILTER (WHERE backend_type = 'walsender'),
				count(*) FILTER (WHERE backend_type ~ '^bdr (join|recover)'),
				count(*) FILTER (WHERE backend_type = 'client backend' AND client_addr IS NOT NULL) FROM pg_stat_activity",
			"$peers|$peers|0|0", "$who has the workers that it needs, and no session from before", timeout => 20);
	}
	return;
}

# A join of c through a, when the network fails (a cut as for BDR::Namespaces) before one of its steps. It has to show something
# like that before the network is back. Then it is completed, unless it was cancelled meanwhile.
sub join_ok
{
	my ($name, $place, $cut, $shows, %options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @writers = map { BDR::Writer->start($_, pause => 30_000) } ($a, $b);
	make_node($c);
	pause_joins($place, $c);
	begin_join($c, $a);
	$c->wait_for('SELECT progress FROM bdr.join_progress', "paused at $place") or return fail("$name: the join comes to $place");
	$net->cut(@$cut);
	resume_joins($c);
	shows_ok($c, "SELECT concat_ws('; ', error_message, progress) FROM bdr.join_progress", $shows, "$name: the join");
	isnt($c->sql('SELECT peer_state_name FROM bdr.local_node_summary'), 'ACTIVE', "$name: no join without it");
	if ($options{cancel})
	{
		$c->sql("SELECT bdr.part_node('node_c', wait_for_completion := false)");
		shows_ok($c, 'SELECT step, error_sqlstate, progress FROM bdr.join_progress', qr/^rollback\|57014\|.*node_b/, "$name: the cancelled join");
	}
	$net->heal(@$cut);
	my $outcome = join_outcome($c) // 'nothing';
	like($outcome, $options{cancel} ? qr/^57014\|/ : qr/^ACTIVE$/, "$name: the join is " . ($options{cancel} ? 'cancelled' : 'completed'))
	  or map { $_->show_state } ($a, $b, $c);
	my @members = $options{cancel} ? ($a, $b) : ($a, $b, $c);
	active_ok(\@members, "$name: all are members");
	$_->finish for @writers;
	all_same_ok(\@members, \@tables, $name);
	written_ok(\@members, \@writers, $name);
	clean_ok($name, @members);
	clean_ok($name, $c) if $options{cancel};
	return;
}

# c is parted, as asked for on a, when the network has failed, while c takes writes.
sub part_ok
{
	my ($name, $cut, $shows) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @writers = map { BDR::Writer->start($_, pause => 30_000) } ($a, $c);
	my $writes_on = sub {
		my ($writer) = @_;
		my $seen = $writer->acknowledged;
		return wait_until(sub { $writer->acknowledged > $seen + 10 });
	};
	$writes_on->($_) for @writers;
	$net->cut(@$cut);
	$writes_on->($_) for @writers;
	$a->sql("SELECT bdr.part_node('node_c', wait_for_completion := false)");
	shows_ok($a, 'SELECT step, progress FROM bdr.part_progress', $shows, "$name: the parting");
	isnt($a->sql("SELECT peer_state_name FROM bdr.node_summary WHERE node_name = 'node_c'"), 'PARTED', "$name: no parting without it");
	$net->heal(@$cut);
	$_->wait_ok("SELECT peer_state_name FROM bdr.node_summary WHERE node_name = 'node_c'", 'PARTED', "$name: parted as seen on " . $_->name)
	  for ($a, $b, $c);
	$_->finish for @writers;
	all_same_ok([ $a, $b ], \@tables, $name);
	written_ok([ $a, $b ], \@writers, $name);
	clean_ok($name, $a, $b);
	clean_ok($name, $c);
	$c->sql('DROP TABLE t, written, last_written');
	return;
}

# What a node shows is, sooner or later, like that.
sub shows_ok
{
	my ($node, $query, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $shown = '';
	wait_until(sub { ($shown = $node->sql($query)) =~ $expected; }, timeout => 30);
	return like($shown, $expected, "$name notices");
}

# --- The cuts are what they are called ---
my @pairs = ([ $a, $b ], [ $b, $a ], [ $a, $c ], [ $c, $a ], [ $b, $c ], [ $c, $b ]);
my $who_hears = sub {
	my ($timeout) = @_;
	return join ' ', map { hears(@$_, $timeout) ? $_->[0]->name . $_->[1]->name : '--' } @pairs;
};
for my $case ([ [$a], '-- -- -- -- bc cb' ], [ [ $a, $b ], '-- -- ac ca bc cb' ], [ [ $a, $b, 'one way' ], 'ab -- ac ca bc cb' ])
{
	my ($cut, $expected) = @$case;
	my $name = 'cut ' . join ' ', map { ref $_ ? $_->name : $_ } @$cut;
	$net->cut(@$cut);
	is($who_hears->(0.3), $expected, "$name: who hears whom");
	$net->heal(@$cut);
	# Each pair, so that nothing is under way any more that was sent before.
	is($who_hears->(10), 'ab ba ac ca bc cb', "$name, and healed: all hear all");
}

$a->sql("$BDR::Writer::tables CREATE TABLE t (id int PRIMARY KEY, v text UNIQUE);
	INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 2000) i");
create_first_node($a);
join_node($b, $a);

# The joining node has no network.
join_ok('c is down', 'copy_data', [$c], qr/could not connect to .*: (?:Network is unreachable|Connection timed out)/);
# Its last rows do not reach one of the members.
part_ok('b does not hear c', [ $c, $b, 'one way' ], qr/^drain\|waiting until node_b has all that node "node_c" committed/);

# The join target does not hear the other member.
join_ok('a does not hear b', 'create_peer_slots', [ $b, $a, 'one way' ], qr/^waiting until the join target has applied what node "node_b" committed/);
# The node that is to leave has no network.
part_ok('c is down', [$c], qr/could not connect to node "node_c": .*: (?:No route to host|Connection timed out)/);

# Packets between the joining node and its target vanish.
join_ok('a and c do not hear each other', 'catchup', [ $a, $c ], qr/could not connect to the join target: /);
# So do those to a member that has to be told.
part_ok('a and b do not hear each other', [ $a, $b ], qr/could not connect to node "node_b": /);

# A member does not hear the joining node, and the join is cancelled.
join_ok('b does not hear c', 'create_local_slots', [ $c, $b, 'one way' ], qr/could not connect to node "node_b": /, cancel => 1);

logs_ok($a, $b, $c);
done_testing();
