# Random conflicting writes on all nodes, random disturbances; at rest all nodes have the same rows, and each key is as its
# latest operation left it. What is written, and how it is checked, is in lib/BDR/Workload.pm.
#
# The seed says all about a run. Its remainder by 5 is the kind:
#   0   three nodes, updates that leave keys and large values alone, nobody disturbs
#   1   three nodes, all statements, nobody disturbs
#   2   three nodes, all statements; processes are killed, a server stops, links are cut, subscriptions are off for a while
#   3   two nodes, as 2, and a third one joins
#   4   three nodes, as 2, and a fourth one joins
# Kinds 0, 2 and 3 or 4 in an ordinary run. BDR_FULL_MATRIX=1 makes 50 runs, BDR_RUNS=n n of them; BDR_SEED=n repeats one,
# BDR_TABLES='plain toasty' with some of the tables only.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::Link;
use BDR::Test;
use BDR::Workload;
use Test::More;
use Time::HiRes qw(time usleep);

my $conf = <<'CONF';
bdr.min_worker_backoff_delay = 50ms
bdr.max_worker_backoff_delay = 500ms
wal_receiver_timeout = 2s
wal_sender_timeout = 2s
wal_receiver_status_interval = 1s
deadlock_timeout = 100ms
bdr.streaming_work_mem = 64kB
max_worker_processes = 40
CONF
my $runs = $ENV{BDR_RUNS} // ($ENV{BDR_FULL_MATRIX} ? 50 : 0);
my $seconds = $ENV{BDR_SECONDS} // ($runs ? 12 : 6);
my $base = 5 * int(rand(1_000_000));
my @seeds = defined $ENV{BDR_SEED} ? $ENV{BDR_SEED} : $runs ? map { $base + $_ } 0 .. $runs - 1 : ($base, $base + 2, $base + 3 + int(rand(2)));
my (%done, @bad);

# Until the node answers again after one of its processes was killed.
sub up { my ($node) = @_; return wait_until(sub { $node->psql($node->db, 'SELECT 1') == 0 }) || die $node->name . ' is down'; }

# Runs a statement until it succeeds: a server may just be starting again.
sub insist
{
	my ($node, $sql) = @_;
	return wait_until(sub { $node->psql($node->db, $sql) == 0 }, timeout => 30) || die $node->name . ": $sql";
}

# Each begins one kind of disturbance on node $x (or between it and $y) and gives back how to end it, or nothing.
my %disturb = (
	kill => sub {
		my ($rng, $net, $x) = @_;
		my @pids = $x->pids((qw(apply walsender))[ $rng->below(2) ]) or return;
		kill 'KILL', $pids[ $rng->below(scalar @pids) ];
		return;
	},
	pause => sub {
		my ($rng, $net, $x) = @_;
		my @pids = $x->pids('apply');
		kill 'STOP', @pids;
		return sub { kill 'CONT', @pids; };
	},
	restart => sub {
		my ($rng, $net, $x) = @_;
		up($x);
		$x->stop('immediate');
		$x->start;
		return;
	},
	link => sub {
		my ($rng, $net, $x, $y) = @_;
		$net->cut($x, $y, (qw(silent reset))[ $rng->below(2) ]);
		return sub { $net->heal($x, $y, (qw(resume stale reset))[ $rng->below(3) ]); };
	},
	disable => sub {
		my ($rng, $net, $x, $y) = @_;
		my $name = "(SELECT sub_name FROM bdr.subscription_summary WHERE origin_name = '@{[$y->node_name]}')";
		my $immediate = (qw(true false))[ $rng->below(2) ];
		insist($x, "SELECT bdr.alter_subscription_disable($name, $immediate)");
		return sub { insist($x, "SELECT bdr.alter_subscription_enable($name, $immediate)"); };
	});

sub run
{
	my ($seed) = @_;
	my $kind = $seed % 5;
	my $count = $kind == 3 ? 2 : 3;
	my $rng = BDR::Workload::Random->new("$seed disturbances");
	my $load = BDR::Workload->new(
		seed => $seed, keys => 8 + $rng->below(20),
		$ENV{BDR_TABLES} ? (tables => [ split ' ', $ENV{BDR_TABLES} ]) : (),
		$kind ? () : (tables => [qw(plain coded named measured composite fullrow)], verbs => ['update']));
	my $began = time;
	my $net = BDR::Link->new;
	my @nodes = map { $net->node("${_}_$seed", node_name => $_, conf => $conf) } (qw(a b c d))[ 0 .. ($kind >= 3 ? $count : $count - 1) ];
	my $joining = $kind >= 3 ? pop @nodes : undef;
	$nodes[0]->sql($load->structure);
	create_first_node($nodes[0]);
	join_node($nodes[$_], $nodes[ $rng->below($_) ]) for 1 .. $#nodes;
	my %first = map { $_ => BDR::Workload::rows($nodes[0], $_) } @{ $load->{tables} };
	my $ready = time;
	$load->start($_, 2) for @nodes;

	# Several disturbances may be on at the same time; none begins while a node joins.
	my (@active, %did);
	my $calm = sub { my @over = splice @active; $_->{end}->() for @over; return; };
	my $end = time + $seconds;
	my $join_at = time + $seconds / 4;
	while (time < $end)
	{
		usleep(200_000 + $rng->below(500_000));
		next unless $kind >= 2;
		my @over = grep { time > $_->{until} } @active;
		@active = grep { my $one = $_; !grep { $_ == $one } @over } @active;
		$_->{end}->() for @over;
		if ($joining && time > $join_at)
		{
			$calm->();
			up($_) for @nodes;
			make_node($joining);
			begin_join($joining, $nodes[ $rng->below(scalar @nodes) ]);
			my $outcome = join_outcome($joining, timeout => 90);
			is($outcome, 'ACTIVE', "seed $seed: a node joins") or do { $joining->show_state; last; };
			$load->start($joining, 2, after => $load->position);
			push @nodes, $joining;
			undef $joining;
			$end = time + $seconds * 0.75;
		}
		my $what = (qw(kill pause pause restart link link disable))[ $rng->below(7) ];
		my $x = $nodes[ $rng->below(scalar @nodes) ];
		my $y = (grep { $_ != $x } @nodes)[ $rng->below($#nodes) ];
		# One of a kind at a time, or one would end the other.
		next if grep { $_->{what} eq $what } @active;
		# A stopped process would keep the server from coming to its end.
		next if $what =~ /^(?:kill|restart|disable)$/ && grep { $_->{what} eq 'pause' } @active;
		$did{$what}++;
		my $undo = $disturb{$what}->($rng, $net, $x, $y);
		push @active, { what => $what, end => $undo, until => time + 0.2 + $rng->below(1800) / 1000 } if $undo;
	}
	$calm->();
	$load->finish;
	up($_) for @nodes;
	my $wrote = time;
	my $good = 1;
	my $peers = $#nodes;
	for my $node (@nodes)
	{
		my $lsn = $node->commit_position;
		my $has = $node->wait_for("SELECT count(*), bool_and(confirmed_flush_lsn >= '$lsn') FROM bdr.node_slots WHERE NOT is_group_slot", "$peers|t",
			timeout => 60);
		ok($has, "seed $seed: the peers of " . $node->name . ' have everything') and next;
		$good = 0;
		last;
	}
	unless ($good)
	{
		diag($_->name . ": " . $_->sql('SELECT * FROM bdr.worker_errors ORDER BY error_time DESC LIMIT 3')) for @nodes;
	}
	$load->converged_ok(\@nodes, \%first, "seed $seed") or $good = 0;
	same_rows($nodes[0], $_, 'ballast', "seed $seed: large transactions on " . $_->name) or $good = 0 for @nodes[ 1 .. $#nodes ];
	for my $node (@nodes)
	{
		my ($conflicts, $missing) = split /\|/, $node->sql('SELECT COALESCE(sum(nconflict), 0), COALESCE(sum(nmissing), 0) FROM bdr.stat_subscription');
		$done{conflicts} += $conflicts + $missing;
		$did{'conflicts seen since the last restart on ' . $node->name} = $conflicts + $missing;
		# Killed on purpose: signal 9. Anything else is a fault of ours.
		my @crashes = grep { /PANIC:|TRAP:|was terminated by signal (?!9:)|Fatal error:|leaked|still referenced|don't own a lock|for toast value/ } split /\n/, slurp_file($node->logfile);
		ok(!@crashes, "seed $seed: no crash, no leak on " . $node->name) or diag(join "\n", splice @crashes, 0, 5) or $good = 0;
	}
	note(sprintf 'seed %d, kind %d, %d keys: group %.1f s, writes %.1f s, rest %.1f s; %s', $seed, $kind, $load->{keys}, $ready - $began, $wrote - $ready,
		time - $wrote, join ', ', map { "$_ $did{$_}" } sort keys %did);
	push @bad, $seed unless $good;
	for my $node (@nodes, grep { defined } $joining)
	{
		$node->stop('fast');
		$node->clean_node if $good;
	}
	return;
}

run($_) for @seeds;
cmp_ok($done{conflicts}, '>', 0, 'there were conflicts') unless defined $ENV{BDR_SEED};
diag("to repeat: " . join ' ', map { "BDR_SEED=$_" } @bad) if @bad;
note(scalar(@seeds) . ' runs, ' . @bad . ' of them bad');
done_testing();
