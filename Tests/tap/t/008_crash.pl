# SIGKILL of every kind of process and immediate restarts of either server under two-way load: no row is lost, none is
# there twice, and no operator is needed. BDR_CRASHES=100 makes it longer; BDR_SEED repeats a schedule.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use IPC::Run ();
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(usleep);

my $crashes = $ENV{BDR_CRASHES} // 14;
my $seed = $ENV{BDR_SEED} // (time ^ $$);
srand($seed);
note("BDR_SEED=$seed BDR_CRASHES=$crashes");

my ($a, $b) = node_pair(setup => q{
	CREATE TABLE counter (node text, client int, n bigint NOT NULL, PRIMARY KEY (node, client));
	CREATE TABLE ledger (node text, client int, n bigint, v text, PRIMARY KEY (node, client, n));
	CREATE TABLE journal (node text, client int, n bigint);
	INSERT INTO counter SELECT node, client, 0 FROM unnest(ARRAY['a', 'b']) node, generate_series(0, 3) client;
});

# Each client counts up; the journal has no key, so that a transaction applied twice is seen in it.
my $script = PostgreSQL::Test::Utils::tempdir() . '/load.sql';
PostgreSQL::Test::Utils::append_to_file($script, <<'SQL');
BEGIN;
UPDATE counter SET n = n + 1 WHERE node = :node AND client = :client_id RETURNING n \gset
INSERT INTO ledger VALUES (:node, :client_id, :n, repeat('v', 50));
INSERT INTO journal VALUES (:node, :client_id, :n);
DELETE FROM ledger WHERE node = :node AND client = :client_id AND n = :n - 100;
COMMIT;
SQL
my $stop = "$script.stop";
my @load;
for my $node ($a, $b)
{
	my $pgbench = sprintf q{pgbench -n -f '%s' -D "node='%s'" -c 4 -T 600 --rate=200 -h '%s' -p %d %s}, $script, $node->name, $node->host,
	  $node->port, $node->db;
	# pgbench ends when its server does: start it again until told to stop.
	my ($out, $err) = ('', '');
	push @load, IPC::Run::start([ 'sh', '-c', "while [ ! -e '$stop' ]; do $pgbench & p=\$!; while kill -0 \$p 2>/dev/null && [ ! -e '$stop' ]; do sleep 0.1; done; kill \$p 2>/dev/null; wait \$p; done" ],
		'<', \undef, '>', \$out, '2>', \$err);
}
END { PostgreSQL::Test::Utils::append_to_file($stop, '') if defined $stop && !-e $stop; }

my $answers = sub {
	my ($node) = @_;
	return $node->wait_for('SELECT 1', '1');
};
my $moving = sub {
	my ($node) = @_;
	my $n = $node->sql("SELECT sum(n) FROM counter WHERE node = '@{[$node->name]}'");
	return $node->wait_for("SELECT sum(n) > $n FROM counter WHERE node = '@{[$node->name]}'", 't');
};
$moving->($_) for ($a, $b);

my %count;
my @kinds = qw(apply manager supervisor walsender immediate apply walsender);
for my $i (1 .. $crashes)
{
	my $node = rand() < 0.5 ? $a : $b;
	# Every kind once, then as it comes.
	my $kind = $i <= @kinds ? $kinds[ $i - 1 ] : $kinds[ int(rand(@kinds)) ];
	usleep(int(rand(1_000_000)));
	if ($kind eq 'immediate')
	{
		$node->stop('immediate');
		$node->start;
	}
	else
	{
		my @pids;
		wait_until(sub { @pids = $node->pids($kind); return scalar @pids; })
		  or fail("there is a process of kind $kind on " . $node->name);
		next unless @pids;
		my $pid = $pids[ int(rand(@pids)) ];
		note("killing $kind $pid of " . $node->name);
		kill 9, $pid;
		# The postmaster starts everything anew; the killed process must be gone before we look.
		wait_until(sub { return !kill 0, $pid; });
	}
	$count{$kind}++;
	$answers->($node) or last;
}
diag('killed: ' . join ', ', map { "$_ $count{$_}" } sort keys %count);
ok($moving->($_), $_->name . ' takes writes at the end') for ($a, $b);

PostgreSQL::Test::Utils::append_to_file($stop, '');
$_->finish for @load;
replicating_ok($a, $b, 'both directions replicate again by themselves');
ok(wait_caught_up($a, $b, timeout => 180), 'both have caught up');

for my $node ($a, $b)
{
	my $name = $node->name;
	$node->value_ok('SELECT count(*) FROM (SELECT FROM journal GROUP BY node, client, n HAVING count(*) > 1) x', '0', "nothing is doubled on $name");
	$node->value_ok('SELECT coalesce(sum(c.n - coalesce(j.rows, 0)), 0) FROM counter c LEFT JOIN
		(SELECT node, client, count(DISTINCT n) AS rows FROM journal GROUP BY 1, 2) j USING (node, client)', '0', "nothing is lost on $name");
	$node->value_ok('SELECT count(*) FROM counter c WHERE n > 100 AND (SELECT count(*) FROM ledger l WHERE (l.node, l.client) = (c.node, c.client)) <> 100',
		'0', "every delete was applied on $name");
}
same_rows($a, $b, $_, "same rows: $_") for qw(counter ledger journal);
my $transactions = $a->sql('SELECT sum(n) FROM counter');
diag("$transactions transactions, $crashes crashes");
cmp_ok($transactions, '>', 100, 'the load was real');
done_testing();
