# A server is killed at every step of a join, before what the step does and after it: the joining node, the join target or
# another member. The join then goes on by itself or is given up and can be run again; in the end all nodes have the same
# rows, and nothing is left over.
#
# BDR_FULL_MATRIX=1 kills each of the three at each place; otherwise they take turns.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;
use Time::HiRes qw(usleep);

my @steps = qw(preflight reserve create_peer_slots await_peer_positions create_slot copy_structure copy_data copy_indexes set_origins
  create_local_slots catchup standby promote active);
my @places = map { ($_, "$_:done") } @steps;
pop @places for 1 .. 2;    # a join that is active is over
@places = split / /, $ENV{BDR_PLACES} if $ENV{BDR_PLACES};
my $full = $ENV{BDR_FULL_MATRIX};

my ($target, $other) = node_pair(
	conf => "bdr.min_worker_backoff_delay = 50ms\nbdr.max_worker_backoff_delay = 500ms",
	setup => 'CREATE TABLE t (id int PRIMARY KEY, v text UNIQUE, n int DEFAULT 0);
		CREATE SEQUENCE s; CREATE VIEW w AS SELECT count(*) FROM t;
		INSERT INTO t SELECT i, \'row \' || i FROM generate_series(1, 2000) i');
my $joiner = BDR::Node->create('c', conf => "bdr.min_worker_backoff_delay = 50ms\nbdr.max_worker_backoff_delay = 500ms");
my %server = (joiner => $joiner, target => $target, other => $other);

sub traces
{
	my ($node) = @_;
	return $node->sql("SELECT (SELECT count(*) FROM pg_replication_slots WHERE slot_name IS DISTINCT FROM bdr.local_group_slot_name()),
		(SELECT count(*) FROM pg_replication_origin),
		(SELECT count(*) FROM bdr.subscription), (SELECT count(*) FROM bdr.node), (SELECT count(*) FROM bdr.node_group WHERE join_token IS NOT NULL)");
}
sub pause_at
{
	my ($place) = @_;
	$joiner->safe_psql('postgres', "ALTER SYSTEM SET bdr.debug_join_pause_at = '$place'");
	$joiner->safe_psql('postgres', 'SELECT pg_reload_conf()');
	$joiner->wait_for('SHOW bdr.debug_join_pause_at', $place);
	return;
}

my $writes = 10000;
my $turn = 0;
my ($went_on, $again) = (0, 0);
for my $place (@places)
{
	for my $victim ($full ? qw(joiner target other) : (qw(joiner target other))[ $turn++ % 3 ])
	{
		my $name = "$victim killed at $place";
		$joiner->sql('CREATE EXTENSION bdr');
		$joiner->sql("SELECT bdr.create_node('node_c', @{[quote_literal($joiner->dsn)]})");
		pause_at($place);
		$joiner->sql("SELECT bdr.join_node_group(@{[quote_literal($target->dsn)]}, wait_for_completion := false)");
		unless ($joiner->wait_for("SELECT progress FROM bdr.join_progress", "paused at $place", timeout => 60))
		{
			fail("$name: the join comes there");
			$joiner->show_state;
			last;
		}
		# What is written while the join stands still.
		for my $node ($target, $other)
		{
			$writes++;
			$node->sql("INSERT INTO t VALUES ($writes, 'written on @{[$node->name]} $writes'); UPDATE t SET n = n + 1 WHERE id = $writes % 2000 + 1");
		}
		$server{$victim}->stop('immediate');
		if ($victim ne 'joiner')
		{
			$server{$victim}->start if $turn % 2;
			pause_at('');
			$server{$victim}->start unless $turn % 2;
		}
		else
		{
			$joiner->append_conf('postgresql.auto.conf', "bdr.debug_join_pause_at = ''");
			$joiner->start;
		}
		# It goes on, or it is given up and run again.
		my $state;
		wait_until(sub {
			my ($status, $out) = $joiner->psql($joiner->db, "SELECT peer_state_name, (SELECT step FROM bdr.join_progress) FROM bdr.local_node_summary");
			$state = $out if $status == 0;
			return $status == 0 && $out =~ /^(ACTIVE\|active|CREATED\|failed)$/;
		}, timeout => 90) or do { fail("$name: the join ends (" . ($state // '') . ')'); $_->show_state for ($joiner, $target); last; };
		if ($state =~ /failed/)
		{
			$again++;
			$_->wait_ok("SELECT count(*) FROM pg_replication_slots WHERE slot_name !~ 'node_[a-z]\$'", '0', "$name: no group slot is left on " . $_->name) for ($target, $other, $joiner);
			is(traces($joiner), '0|0|0|1|0', "$name: the join is given up and leaves nothing on the joining node");
			is(traces($_), '1|1|1|2|0', "$name: nothing is left on " . $_->name) for ($target, $other);
			$joiner->sql("SELECT bdr.join_node_group(@{[quote_literal($target->dsn)]})");
		}
		else
		{
			$went_on++;
		}
		my $good = 1;
		for my $node ($target, $other, $joiner)
		{
			$writes++;
			$node->sql("INSERT INTO t VALUES ($writes, 'after on @{[$node->name]} $writes')");
			$good &&= $node->wait_for("SELECT count(*) FROM pg_replication_slots WHERE active", '2', timeout => 60);
			my $lsn = $node->commit_position;
			$good &&= $node->wait_for("SELECT count(*), bool_and(confirmed_flush_lsn >= '$lsn') FROM bdr.node_slots WHERE NOT is_group_slot", '2|t', timeout => 60);
		}
		ok($good, "$name: all nodes have everything") or $joiner->show_state;
		same_rows($target, $_, 't', "$name: " . $_->name . ' has the same rows') for ($other, $joiner);
		$_->value_ok('SELECT count(*) FROM pg_replication_slots WHERE slot_name = bdr.local_group_slot_name()', '1', "$name: " . $_->name . ' has a group slot')
			for ($target, $other, $joiner);
		is(traces($_), '2|2|2|3|0', "$name: " . $_->name . ' has what it needs and nothing else') for ($target, $other, $joiner);
		$joiner->value_ok("SELECT count(*) FROM pg_indexes WHERE tablename = 't'", '2', "$name: the indexes are there once");
		# And out again, for the next one.
		$target->sql("SELECT bdr.part_node('node_c')");
		$target->sql("SELECT bdr.drop_node('node_c')");
		$other->sql("SELECT bdr.drop_node('node_c')");
		$joiner->sql('DROP EXTENSION bdr CASCADE; DROP VIEW w; DROP TABLE t; DROP SEQUENCE s');
		$joiner->wait_for("SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^bdr (manager|apply|join)'", '0');
	}
}
diag("went on by itself: $went_on, given up and run again: $again");
done_testing();
