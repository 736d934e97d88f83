# Chaos: kills replication processes and servers at random while both nodes are written to, then counts rows.
#
#   scripts/chaos [ROUNDS [SEED]]
#
# Each round sends SIGKILL to a random replication process (supervisor, manager, apply worker, walsender) or stops a random
# server with -m immediate and starts it again, under pgbench on both nodes with disjoint keys. Every transaction raises a
# client's counter and logs the new value in a table without any key, so that at the end
#   lost     = acknowledged transactions (pgbench's own log) whose row is missing on some node, or a gap in the values;
#   doubled  = values that stand twice on some node.
use strict;
use warnings FATAL => 'all';

use BDR::Node;
use BDR::Test;
use POSIX qw(:sys_wait_h);
use Test::More;
use Time::HiRes qw(time usleep);

my $rounds = $ENV{CHAOS_ROUNDS} // 100;
my $seed = $ENV{CHAOS_SEED} // int(rand(1e9));
srand($seed);
diag("rounds $rounds, seed $seed");

my $clients = 2;
my ($a, $b) = node_pair(
	conf => "restart_after_crash = on\nwal_retrieve_retry_interval = 100ms\nbdr.max_worker_backoff_delay = 2s",
	setup => "CREATE TABLE counter (node text, client int, value bigint, PRIMARY KEY (node, client));
		CREATE TABLE log (node text, client int, value bigint);
		INSERT INTO counter SELECT n, c, 0 FROM (VALUES ('a'), ('b')) v(n), generate_series(0, @{[$clients - 1]}) c");

my $dir = PostgreSQL::Test::Utils::tempdir();
my @writers;
for my $node ($a, $b)
{
	my $name = $node->name;
	my $script = "$dir/$name.sql";
	open my $out, '>', $script or die $!;
	print $out <<"SQL";
BEGIN;
UPDATE counter SET value = value + 1 WHERE node = '$name' AND client = :client_id RETURNING value \\gset
INSERT INTO log VALUES ('$name', :client_id, :value);
COMMIT;
SQL
	close $out;
	my $pid = fork // die $!;
	if ($pid == 0)
	{
		my $stop = 0;
		$SIG{TERM} = sub { $stop = 1; };
		open STDOUT, '>', "$dir/$name.out";
		open STDERR, '>&', \*STDOUT;
		my $run = 0;
		until ($stop)
		{
			$run++;
			system('pgbench', '-n', '-c', $clients, '-T', '5', '-f', $script, '-l', "--log-prefix=$dir/$name.$run",
				'-h', $node->host, '-p', $node->port, $node->db);
			usleep(100_000) if $? != 0;
		}
		POSIX::_exit(0);
	}
	push @writers, $pid;
}

sub is_up { return $_[0]->psql($_[0]->db, 'SELECT 1') == 0; }

my %killed;
my $began = time;
for my $round (1 .. $rounds)
{
	my $node = (rand() < 0.5) ? $a : $b;
	my $kind = (qw(supervisor manager apply apply walsender walsender immediate))[ int(rand(7)) ];
	wait_until(sub { is_up($node) }) or die 'server ' . $node->name . ' did not come up';
	usleep(int(rand(700_000)));
	if ($kind eq 'immediate')
	{
		$node->stop('immediate');
		$node->start;
		$killed{$kind}++;
	}
	else
	{
		# the process may be between two lives: wait for it
		my $pid = wait_until(sub { ($node->pids($kind))[0] }, timeout => 60);
		unless ($pid)
		{
			diag("round $round: no $kind on " . $node->name);
			$node->show_state;
			next;
		}
		if (kill 'KILL', $pid)
		{
			$killed{$kind}++;
			# a killed process takes the server through crash recovery
			wait_until(sub { !kill(0, $pid) });
		}
	}
	diag(sprintf 'round %d of %d after %d s', $round, $rounds, time - $began) if $round % 10 == 0;
}
kill 'TERM', @writers;
waitpid $_, 0 for @writers;
wait_until(sub { is_up($a) && is_up($b) }) or die 'a server did not come up';
diag(join ', ', map { "$_ $killed{$_}" } sort keys %killed);

ok(wait_caught_up($a, $b, timeout => 300), 'both nodes have everything');

my %acked;
for my $file (glob "$dir/*.*.*")
{
	my ($name) = $file =~ m{/([ab])\.\d+\.\d+(?:\.\d+)?$} or next;
	open my $in, '<', $file or die $!;
	while (<$in>) { my ($client) = split; $acked{"$name|$client"}++; }
	close $in;
}
my ($acked, $lost, $doubled) = (0, 0, 0);
$acked += $_ for values %acked;
for my $node ($a, $b)
{
	for my $line (split /\n/, $node->sql('SELECT c.node, c.client, c.value, count(l.value), count(DISTINCT l.value),
		coalesce(max(l.value), 0) FROM counter c LEFT JOIN log l USING (node, client) GROUP BY 1, 2, 3'))
	{
		my ($name, $client, $value, $count, $distinct, $max) = split /\|/, $line;
		my $promised = $acked{"$name|$client"} // 0;
		my $expected = $value > $promised ? $value : $promised;
		$lost += $expected - $distinct;
		$doubled += $count - $distinct;
		diag($node->name . ": $line, acknowledged $promised") if $distinct != $expected || $count != $distinct || $max != $value;
	}
}
is($lost, 0, 'rows lost');
is($doubled, 0, 'rows doubled');
same_ok($a, $b, 'log', 'log is equal on both nodes');
same_ok($a, $b, 'counter', 'counter is equal on both nodes');
diag("acknowledged $acked, lost $lost, doubled $doubled, " . int(time - $began) . ' s');
cmp_ok($acked, '>', 0, 'something was written');
done_testing();
