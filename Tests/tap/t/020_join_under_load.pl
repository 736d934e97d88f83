# Nodes two, three and four join one after the other, through different members, while pgbench writes on every member and a
# long transaction is open: afterwards each node has every acknowledged transaction once.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::Test;
use Test::More;
use Time::HiRes qw(time usleep);

my $clients = 2;
my @nodes = map { BDR::Node->create($_) } qw(a b c d);
my ($a, $b, $c, $d) = @nodes;
$a->sql("CREATE TABLE counter (node text, client int, value bigint, PRIMARY KEY (node, client));
	CREATE TABLE log (node text, client int, value bigint);
	CREATE TABLE bulk (node text, id bigint, filler text, PRIMARY KEY (node, id));
	INSERT INTO counter SELECT n, c, 0 FROM (VALUES ('a'), ('b'), ('c'), ('d')) v(n), generate_series(0, @{[$clients - 1]}) c;
	INSERT INTO bulk SELECT 'old', i, repeat('x', 100) FROM generate_series(1, 100000) i");
create_first_node($a);

my %writer;
sub start_writer
{
	my ($node) = @_;
	my $name = $node->name;
	$writer{$name} = start_pgbench($node, <<"SQL", '-c', $clients, '-R', '200');
BEGIN;
UPDATE counter SET value = value + 1 WHERE node = '$name' AND client = :client_id RETURNING value \\gset
INSERT INTO log VALUES ('$name', :client_id, :value);
COMMIT;
SQL
	return;
}
start_writer($a);

my %target = (b => $a, c => $b, d => $c);
my %count = (b => 1, c => 2, d => 3);
for my $joining ($b, $c, $d)
{
	my $name = $joining->name;
	my $target = $target{$name};
	# A transaction that is open when the join begins, on every member; it commits while the join waits for it.
	my @open;
	for my $member (grep { $writer{ $_->name } } @nodes)
	{
		my $session = $member->background_psql($member->db, on_error_stop => 1);
		$session->query_safe("BEGIN; INSERT INTO bulk SELECT '" . $member->name . "_for_$name', i, 'long' FROM generate_series(1, 1000) i");
		push @open, $session;
	}
	$joining->sql('CREATE EXTENSION bdr CASCADE');
	$joining->sql("SELECT bdr.create_node('@{[$joining->node_name]}', @{[quote_literal($joining->dsn)]})");
	$joining->sql("SELECT bdr.join_node_group(@{[quote_literal($target->dsn)]}, wait_for_completion := false)");
	$joining->wait_ok("SELECT progress ~ '^waiting for the transactions' FROM bdr.join_progress", 't',
		"$name: the join says that it waits for transactions");
	my $error = $joining->error_of("CREATE TABLE mine (i int)");
	is($error->{sqlstate}, '25006', "$name: a joining node accepts no writes");
	for my $session (@open)
	{
		$session->query_safe('COMMIT');
		$session->quit;
	}
	# A load that runs while the copy does.
	for my $member (grep { $writer{ $_->name } } @nodes)
	{
		$member->sql("INSERT INTO bulk SELECT '" . $member->name . "_during_$name', i, repeat('y', 50) FROM generate_series(1, 20000) i");
	}
	my $began = time;
	$joining->sql("SELECT bdr.wait_for_join_completion()", timeout => 180);
	note(sprintf '%s joined %.1f s after the long transactions', $name, time - $began);
	$joining->value_ok("SELECT string_agg(peer_state_name, ',') FROM bdr.node_summary", join(',', ('ACTIVE') x ($count{$name} + 1)),
		"$name sees all members active");
	start_writer($joining);
	wait_until(sub { $joining->sql("SELECT value > 20 FROM counter WHERE node = '$name' AND client = 0") eq 't' })
	  or fail("$name is written to");
}
usleep(1_000_000);
kill 'INT', values %writer;
waitpid $_, 0 for values %writer;

ok(all_caught_up(@nodes), 'everybody has everything of everybody');
for my $node (@nodes)
{
	my $name = $node->name;
	$node->value_ok('SELECT count(*) FROM (SELECT node, client, value FROM log GROUP BY 1, 2, 3 HAVING count(*) > 1) x', '0', "$name: no row doubled");
	$node->value_ok('SELECT count(*) FROM counter c WHERE value <> (SELECT count(DISTINCT l.value) FROM log l WHERE l.node = c.node AND l.client = c.client)',
		'0', "$name: no row lost");
	$node->value_ok("SELECT count(*), count(DISTINCT node) FROM bulk", (100000 + 6 * 21000) . '|13', "$name: the bulk loads are complete");
	$node->value_ok('SELECT count(*) FROM bdr.subscription WHERE sub_enabled', '3', "$name receives from the three others");
	$node->value_ok("SELECT (SELECT count(*) FROM bdr.join_tracking), (SELECT count(*) FROM bdr.node_group WHERE join_token IS NOT NULL)", '0|0',
		"$name: the join lock is free");
	next if $node == $a;
	same_rows($a, $node, $_, "$name has the same rows of $_ as a") for qw(counter log bulk);
}
$a->sql('DELETE FROM bulk WHERE id % 2 = 0');
$d->sql("UPDATE counter SET value = -1 WHERE node = 'b'");
all_caught_up(@nodes);
for my $node ($b, $c, $d)
{
	same_rows($a, $node, $_, $node->name . " after more writes: $_") for qw(counter bulk);
}
is_deeply([ map { $_->sql('SELECT string_agg(node_id::text || node_name, \',\' ORDER BY node_id) FROM bdr.node') } @nodes ],
	[ ('1node_a,2node_b,3node_c,4node_d') x 4 ], 'all nodes know the same ids');
logs_ok(@nodes);
done_testing();
