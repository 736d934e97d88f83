# Two groups whose nodes share servers, node names and table names, beside a database that is no node: what one group writes,
# how its nodes leave, and dropping its databases do not disturb the other. And a node whose server was down while the others
# wrote on for very long continues where it was.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use BDR::Group;
use BDR::Writer;
use Test::More;

# Small segments, of which no more are kept than are needed: what is kept for a peer is kept for it alone.
my $conf = "bdr.min_worker_backoff_delay = 50ms\nbdr.max_worker_backoff_delay = 500ms\nmax_wal_size = 8MB\nmin_wal_size = 2MB\nwal_keep_size = 0";
my ($a, $b, $c) = map { BDR::Node->create($_, db => 'one', conf => $conf, initdb => ['--wal-segsize=1']) } qw(a b c);
my ($a2, $b2) = map { $_->other_database('two') } ($a, $b);
my $plain = $a->other_database('plain');
my @one = ($a, $b, $c);
my @two = ($a2, $b2);
my @tables = qw(t written last_written);
for my $node ($a, $a2, $plain)
{
	$node->sql("$BDR::Writer::tables CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, '" . $node->db . "' FROM generate_series(1, 1000) i");
}
create_first_node($a, group => 'group_one');
create_first_node($a2, group => 'group_two');
$_->value_ok('SELECT node_name, node_id FROM bdr.local_node_summary', 'node_a|1', $_->db . ': both first nodes have the same name and id') for ($a, $a2);

# A node of one group is none of the other, whatever its name.
$b->sql('CREATE EXTENSION bdr CASCADE');
make_node($b2);
$a2->fails_ok("SELECT bdr.join_node_group(@{[quote_literal($a->dsn)]})", '55000', undef, undef, 'a member of one group can not join the other one');
$a2->value_ok('SELECT peer_state_name, node_group_name FROM bdr.local_node_summary', 'ACTIVE|group_two', 'and stays where it is');

# Both groups grow at once, on the same servers.
make_node($b);
begin_join($b, $a);
begin_join($b2, $a2);
is(join_outcome($_), 'ACTIVE', $_->db . ' has joined its group') or $_->show_state for ($b, $b2);
join_node($c, $b);
active_ok(\@one, 'group one is complete');
active_ok(\@two, 'group two is complete');
my @writers_one = map { BDR::Writer->start($_) } @one;
my @writers_two = map { BDR::Writer->start($_) } @two;
my $writer_plain = BDR::Writer->start($plain);

sub written_to_ok
{
	my ($name, @writers) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %before;
	$before{$_} = () = $_->acknowledged for @writers;
	my $good = wait_until(sub { !grep { my $now = () = $_->acknowledged; $now < $before{$_} + 20 } @writers });
	return ok($good, $name) || diag(map { $_->error } @writers);
}

# Processes, slots and origins of one group on a server, which what happens to the other one leaves alone.
sub belongings
{
	my (@nodes) = @_;
	my %slots = map {
		$_->name => $_->sql("SELECT string_agg(slot_name || ' ' || active_pid, ',' ORDER BY slot_name) FROM pg_replication_slots
			WHERE database = current_database() AND slot_name IS DISTINCT FROM bdr.local_group_slot_name()")
	} @nodes;
	my %workers = map {
		$_->name => $_->sql("SELECT string_agg(backend_type || ' ' || pid, ',' ORDER BY pid) FROM pg_stat_activity
			WHERE datname = current_database() AND backend_type ~ '^bdr (manager|apply)'")
	} @nodes;
	return { slots => \%slots, workers => \%workers };
}

# Only its own rows are in each database.
sub separate_ok
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %number = (one => [ map { $_->number } @writers_one ], two => [ map { $_->number } @writers_two ], plain => [ $writer_plain->number ]);
	for my $node (@_[ 1 .. $#_ ])
	{
		my $own = join ',', @{ $number{ $node->db } };
		$node->value_ok("SELECT (SELECT count(*) FROM written WHERE writer NOT IN ($own)), (SELECT count(*) FROM t WHERE v <> '@{[$node->db]}')", '0|0',
			"$name: database " . $node->db . ' of ' . $node->name . ' has rows of its own group only');
	}
	return;
}

written_to_ok('all are written to', @writers_one, @writers_two, $writer_plain);
separate_ok('under load', @one, @two, $plain);
$a->value_ok("SELECT count(*) FROM pg_replication_slots WHERE database = 'plain'", '0', 'the plain database has no slot');
traces_ok($_, 2, $_->name . ': slots and origins of group one') for @one;
traces_ok($_, 1, $_->name . ': slots and origins of group two') for @two;

# A node of group two leaves; the other one's extension is dropped, while it is written to.
my $before = belongings(@one);
my $log = $a->log_position;
$a2->sql("SELECT bdr.part_node('node_b')");
$b2->wait_ok('SELECT peer_state_name FROM bdr.local_node_summary', 'PARTED', 'node_b of group two has left');
$_->value_ok("SELECT peer_state_name FROM bdr.node_summary WHERE node_name = 'node_b'", 'ACTIVE', $_->name . ': node_b of group one has not') for @one;
$b2->sql("SELECT bdr.drop_node('node_b', force := true)");
$a2->sql("SELECT bdr.drop_node('node_b')");
# and back again, so that a member is dropped next
$_->finish for @writers_two;
$b2->sql('DROP TABLE t, written, last_written');
make_node($b2);
begin_join($b2, $a2);
is(join_outcome($b2), 'ACTIVE', 'node_b of group two is back') or $b2->show_state;
all_same_ok(\@two, \@tables, 'group two');
written_ok(\@two, \@writers_two, 'group two');
$a2->sql('DROP EXTENSION bdr CASCADE');
$a2->wait_ok("SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = 'two'),
	(SELECT count(*) FROM pg_replication_origin WHERE roname ~ '^bdr_two_'),
	(SELECT count(*) FROM pg_stat_activity WHERE datname = 'two' AND backend_type ~ '^bdr')", '0|0|0', 'nothing of group two is left on a');
# The database of a node that still has its subscription and slot.
$b2->value_ok('SELECT count(*) FROM bdr.subscription', '1', 'node_b of group two still has a peer');
$b->safe_psql('postgres', 'DROP DATABASE two');
$a->safe_psql('postgres', 'DROP DATABASE two');
$b->wait_ok("SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = 'two' OR slot_name ~ '^bdr_two_'),
	(SELECT count(*) FROM pg_replication_origin WHERE roname ~ '^bdr_two_'),
	(SELECT count(*) FROM pg_stat_activity WHERE datname = 'two')", '0|0|0', 'nothing of group two is left on b');
written_to_ok('group one and the plain database are written to', @writers_one, $writer_plain);
is_deeply(belongings(@one), $before, 'slots and processes of group one are the same as before');
$a->safe_psql('postgres', 'DROP DATABASE plain') if $writer_plain->finish;
active_ok(\@one, 'group one is as it was');
separate_ok('after that', @one);

# The server of c crashes, and is down for as long as it takes to write many times as much WAL as would be kept without it.
my $segments_before = $a->sql('SELECT count(*) FROM pg_ls_waldir()');
$c->stop('immediate');
$writers_one[2]->finish;
my $slot = "SELECT s.restart_lsn FROM bdr.node_slots JOIN pg_replication_slots s USING (slot_name) WHERE target_name = 'node_c'";
my %held = map { $_->name => $_->sql($slot) } ($a, $b);
my $days = 25;
for my $day (1 .. $days)
{
	for my $node ($a, $b)
	{
		my $name = $node->name;
		$node->sql("INSERT INTO t SELECT @{[$name eq 'a' ? 10000 : 20000]} + $day * 100 + i, 'one' FROM generate_series(0, 99) i;
			UPDATE t SET v = v WHERE id BETWEEN @{[$name eq 'a' ? 1 : 501]} AND @{[$name eq 'a' ? 500 : 1000]}");
		$node->sql('SELECT pg_switch_wal()');
		$node->sql('CHECKPOINT');
	}
	$_->sql('VACUUM (FREEZE, ANALYZE) t, written, last_written; VACUUM pg_catalog.pg_class') for $day % 5 ? () : ($a, $b);
	# the others are restarted as well
	if ($day == 10)
	{
		$_->finish for @writers_one[ 0, 1 ];
		$_->restart for ($a, $b);
		push @writers_one, map { BDR::Writer->start($_) } ($a, $b);
	}
}
for my $node ($a, $b)
{
	$node->value_ok($slot, $held{ $node->name }, $node->name . ' keeps what c has not confirmed');
	$node->value_ok("SELECT pg_current_wal_lsn() - '$held{ $node->name }'::pg_lsn > @{[$days - 2]} * 1024 * 1024", 't', $node->name . ' has written many segments');
	$node->value_ok("SELECT count(*), bool_and(NOT active) FROM pg_replication_slots WHERE slot_name IN (SELECT slot_name FROM bdr.node_slots WHERE target_name = 'node_c')",
		'1|t', $node->name . ' has one slot for c, in which nobody streams');
}
note('files in pg_wal of a: ' . $segments_before . ' before, ' . $a->sql('SELECT count(*) FROM pg_ls_waldir()') . ' now');
$c->start;
active_ok(\@one, 'c is back');
push @writers_one, BDR::Writer->start($c);
written_to_ok('c is written to again', $writers_one[-1]);
$_->finish for @writers_one[ 3 .. $#writers_one ];
all_same_ok(\@one, \@tables, 'after that');
written_ok(\@one, \@writers_one, 'group one');
$_->value_ok('SELECT count(*) FROM t', 1000 + 2 * 100 * $days, $_->name . ' has all rows') for @one;
traces_ok($_, 2, $_->name . ' has what it needs for two peers, and nothing else') for @one;

# What was kept for c is let go.
for my $node ($a, $b)
{
	$node->sql('SELECT pg_switch_wal(); CHECKPOINT');
	my $gone = wait_until(sub {
		$node->sql("INSERT INTO t VALUES (0, 'one') ON CONFLICT (id) DO UPDATE SET v = 'one'");
		$node->sql('CHECKPOINT');
		return $node->sql("SELECT ($slot) > '$held{ $node->name }'::pg_lsn + @{[$days - 2]} * 1024 * 1024") eq 't';
	}, timeout => 60);
	ok($gone, $node->name . ' lets go of what it kept for c') or $node->show_state;
}
logs_ok($a, $b);
done_testing();
