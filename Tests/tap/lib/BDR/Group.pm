# Groups of any number of nodes: joining step by step, waiting until all have everything, comparing all with all.

package BDR::Group;

use strict;
use warnings FATAL => 'all';

use BDR::Node;
use BDR::Test;
use BDR::Writer;
use Exporter 'import';
use PostgreSQL::Test::Utils ();
use Test::More;

our @EXPORT = qw(make_node begin_join pause_joins resume_joins traces_ok all_caught_up all_same_ok active_ok progress_of
  join_outcome written_ok hold hold_all release release_all applied_ok outcome_is);

# Makes the database a node that is in no group.
sub make_node
{
	my ($node, %options) = @_;
	$node->sql('CREATE EXTENSION IF NOT EXISTS bdr CASCADE');
	$node->sql("SELECT bdr.create_node(@{[quote_literal($node->node_name)]}, @{[quote_literal($options{dsn} // $node->dsn)]})");
	return;
}

# Asks for a join and does not wait for it.
sub begin_join
{
	my ($node, $target, %options) = @_;
	my $dsn = quote_literal($options{target_dsn} // $target->dsn);
	$node->sql("SELECT bdr.join_node_group($dsn, wait_for_completion := false)");
	return;
}

# Joins of these nodes wait at a place (see bdr.debug_join_pause_at), or, with '', go on.
sub pause_joins
{
	my ($place, @nodes) = @_;
	for my $node (@nodes)
	{
		$node->safe_psql('postgres', "ALTER SYSTEM SET bdr.debug_join_pause_at = '$place'");
		$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
		$node->wait_for('SHOW bdr.debug_join_pause_at', $place, db => 'postgres');
	}
	return;
}

sub resume_joins { return pause_joins('', @_); }

sub progress_of
{
	my ($node) = @_;
	return $node->sql('SELECT progress FROM bdr.join_progress');
}

# 'ACTIVE', or the SQLSTATE and message that ended a join; undefined if it has not ended in time.
sub join_outcome
{
	my ($node, %options) = @_;
	my $outcome;
	wait_until(sub {
		my ($status, $out) = $node->psql($node->db, "SELECT l.peer_state_name, p.step, p.error_sqlstate, p.error_message
			FROM bdr.local_node_summary l, bdr.join_progress p");
		return 0 unless $status == 0;
		$outcome = $out =~ /^ACTIVE\|active\|/ ? 'ACTIVE' : $out =~ /^CREATED\|failed\|(.*)/s ? $1 : undef;
		return defined $outcome;
	}, %options);
	return $outcome;
}

# traces_ok(NODE, NUMBER OF PEERS, TEST NAME): what connects the node with others is there once for each, and nobody joins.
sub traces_ok
{
	my ($node, $peers, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $query = "SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()
			AND slot_name IS DISTINCT FROM bdr.local_group_slot_name()), (SELECT count(*) FROM bdr.subscription),
		(SELECT count(*) FROM pg_replication_origin WHERE roname ~ ('^bdr_' || current_database() || '_')),
		(SELECT count(*) FROM bdr.node_group WHERE join_token IS NOT NULL), (SELECT count(*) FROM bdr.join_tracking)";
	return $node->wait_ok($query, "$peers|$peers|$peers|0|0", $name, timeout => 20);
}

# Each node has what all others have committed so far. All are nodes of one group, and the only ones.
sub all_caught_up
{
	my (@nodes) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $peers = @nodes - 1;
	for my $node (@nodes)
	{
		my $lsn = $node->commit_position;
		next if $node->wait_for("SELECT count(*), COALESCE(bool_and(confirmed_flush_lsn >= '$lsn'), true) FROM bdr.node_slots WHERE NOT is_group_slot", "$peers|t");
		fail("the $peers peers of " . $node->name . " have everything up to $lsn");
		$_->show_state for @nodes;
		return 0;
	}
	return 1;
}

# all_same_ok(NODES, TABLES, TEST NAME): all have everything, and the same rows.
sub all_same_ok
{
	my ($nodes, $tables, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($first, @others) = @$nodes;
	return 0 unless all_caught_up(@$nodes);
	my $good = 1;
	for my $table (@$tables)
	{
		for my $node (@others)
		{
			same_rows($first, $node, $table, "$name: $table on " . $node->name) or $good = 0;
		}
	}
	return $good;
}

# All these nodes, and no others, are active members, as seen by each, under the same ids, and receive from one another.
sub active_ok
{
	my ($nodes, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $expected = join ',', map { $_->node_name . ' ACTIVE' } sort { $a->node_name cmp $b->node_name } @$nodes;
	my $good = 1;
	for my $node (@$nodes)
	{
		$good &&= $node->wait_for("SELECT string_agg(node_name || ' ' || peer_state_name, ',' ORDER BY node_name)
			FROM bdr.node_summary WHERE peer_state_name <> 'PARTED'", $expected);
		$good &&= $node->wait_for("SELECT count(*) FROM bdr.subscription_summary WHERE subscription_status = 'replicating'",
			scalar(@$nodes) - 1);
	}
	my %ids;
	$ids{ $_->sql("SELECT string_agg(node_id || ' ' || node_name, ',' ORDER BY node_id) FROM bdr.node_summary WHERE peer_state_name <> 'PARTED'") }++
	  for @$nodes;
	$good &&= keys %ids == 1;
	ok($good, $name) or do { diag(join "\n", keys %ids); $_->show_state for @$nodes; };
	return $good;
}

# written_ok(NODES, WRITERS, TEST NAME): what was acknowledged to the writers is on all nodes, once.
sub written_ok
{
	my ($nodes, $writers, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my (@bad, $acknowledged);
	for my $node (@$nodes)
	{
		my $count = BDR::Writer::count($node, @$writers);
		$acknowledged = $count->{acknowledged};
		push @bad, $node->name . ": $count->{lost} lost, $count->{doubled} doubled" if $count->{lost} || $count->{doubled};
	}
	ok(!@bad && $acknowledged > 0, "$name: $acknowledged rows acknowledged, none lost, none doubled") or diag(join "\n", @bad);
	return !@bad;
}

# Apply workers that are stopped in the middle of what they do: what an origin writes meanwhile meets what the receiver does.
my @held;
END { kill CONT => @held if @held; }

sub apply_worker
{
	my ($receiver, $origin) = @_;
	my $pid = $receiver->sql("SELECT w.worker_pid FROM bdr.show_workers() w JOIN bdr.node n ON n.node_id = w.worker_peer
		WHERE n.node_name = @{[quote_literal($origin->node_name)]} AND w.worker_role_name = 'apply'");
	BAIL_OUT('no apply worker on ' . $receiver->name . ' for ' . $origin->name) unless $pid =~ /^\d+$/;
	return $pid;
}

# What the origin commits from now on waits before it is applied by the receiver.
sub hold
{
	my $pid = apply_worker(@_);
	kill STOP => $pid;
	push @held, $pid;
	return;
}

# Of all of these nodes, for one another.
sub hold_all
{
	my @nodes = @_;
	for my $receiver (@nodes)
	{
		hold($receiver, $_) for grep { $_ != $receiver } @nodes;
	}
	return;
}

sub release
{
	kill CONT => apply_worker(@_);
	return;
}

sub release_all
{
	kill CONT => @held;
	@held = ();
	return;
}

# Waits until the receiver has applied all that the origin has committed so far.
sub applied_ok
{
	my ($receiver, $origin) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $lsn = $origin->commit_position;
	$origin->wait_for("SELECT confirmed_flush_lsn >= '$lsn' FROM bdr.node_slots
		WHERE target_name = @{[quote_literal($receiver->node_name)]}", 't')
		or fail($receiver->name . ' has everything of ' . $origin->name);
	return;
}

# outcome_is(NODES, QUERY, EXPECTED, TEST NAME): what all of them have once nothing is held any more.
sub outcome_is
{
	my ($nodes, $query, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	release_all();
	all_caught_up(@$nodes) or return;
	$_->value_ok($query, $expected, "$name, on " . $_->name) for @$nodes;
	return;
}

1;
