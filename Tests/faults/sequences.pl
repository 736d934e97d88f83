# Values of global sequences on four nodes at once, while servers crash: none may come twice.
#
#   scripts/chaos-sequences [MILLIONS [SEED]]
#
# Four clients on each node take MILLIONS of values each (1; a quarter of that of kinds that no other node is asked for), 10,000 in
# a transaction, while a random server is stopped with -m immediate and started again, one after the other. What a client has seen of
# a transaction that was committed counts. The galloc sequence is of type integer: its ranges of a million values run out.
use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::Node;
use BDR::Test;
use POSIX ();
use Test::More;
use Time::HiRes qw(time usleep);

my $millions = $ENV{SEQUENCE_MILLIONS} // 1;
my $seed = $ENV{CHAOS_SEED} // int(rand(1e9));
srand($seed);
diag("$millions million values, seed $seed");

my $block = 10_000;
my $clients = 4;
my @nodes = map { BDR::Node->create($_, conf => "bdr.default_sequence_kind = 'local'\nrestart_after_crash = on") } qw(a b c d);
$nodes[0]->sql('CREATE SEQUENCE of_galloc AS integer; CREATE SEQUENCE of_snowflakeid; CREATE SEQUENCE of_timeshard');
create_first_node($nodes[0]);
join_node($_, $nodes[0]) for @nodes[ 1 .. 3 ];
for my $kind (qw(galloc snowflakeid timeshard))
{
	$nodes[0]->sql("SELECT bdr.alter_sequence_set_kind('of_$kind', '$kind')");
	$_->wait_ok("SELECT seqkind FROM bdr.sequences WHERE relname = 'of_$kind'", $kind, "$kind on " . $_->name) for @nodes;
}

my $dir = PostgreSQL::Test::Utils::tempdir();

# Values of committed transactions only: the line behind a block says that it was.
sub client
{
	my ($node, $kind, $blocks, $out) = @_;
	my $done = 0;
	open my $kept, '>', $out or die "$out: $!";
	while ($done < $blocks)
	{
		my $left = $blocks - $done;
		open my $script, '>', "$out.sql" or die "$out.sql: $!";
		print $script "COPY (SELECT nextval('of_$kind') FROM generate_series(1, $block)) TO STDOUT;\n\\echo committed\n" x $left;
		close $script;
		open my $in, '-|', "psql -X -q -v ON_ERROR_STOP=1 -h '@{[$node->host]}' -p @{[$node->port]} -f '$out.sql' '@{[$node->db]}' 2>>'$out.err'" or die $!;
		my @values;
		while (<$in>)
		{
			if ($_ eq "committed\n")
			{
				print $kept @values if @values == $block;
				$done++ if @values == $block;
				@values = ();
			}
			else { push @values, $_ if /^\d+\n\z/; }
		}
		close $in;
		usleep(100_000) if $done < $blocks;
	}
	close $kept;
	return;
}

for my $kind (qw(galloc snowflakeid timeshard))
{
	my $blocks = int($millions * 1_000_000 / $block / ($kind eq 'galloc' ? 1 : 4)) || 1;
	my $began = time;
	my (@pids, @files);
	for my $node (@nodes)
	{
		for my $n (1 .. $clients)
		{
			my $file = "$dir/$kind." . $node->name . ".$n";
			push @files, $file;
			my $pid = fork // die $!;
			if ($pid == 0)
			{
				eval { client($node, $kind, $blocks, $file); 1 } or print STDERR "# $@";
				POSIX::_exit(0);
			}
			push @pids, $pid;
		}
	}
	my $crashes = 0;
	my %running = map { $_ => 1 } @pids;
	my $deadline = time + 3600;
	while (%running && time < $deadline)
	{
		# the first crash comes before anybody can be done
		usleep($crashes ? 1_000_000 + int(rand(3_000_000)) : 300_000);
		delete $running{$_} for grep { waitpid($_, POSIX::WNOHANG()) != 0 } keys %running;
		last unless %running;
		my $node = $nodes[ int(rand(@nodes)) ];
		$node->stop('immediate');
		$node->start;
		$crashes++;
		$node->wait_for('SELECT 1', '1');
	}
	ok(!%running, "$kind: all clients have their values");
	my $count = 16 * $blocks * $block;
	my $given = `cat @files | wc -l` + 0;
	my $distinct = `cat @files | LC_ALL=C sort -S 1G -T $dir -u | wc -l` + 0;
	is($given, $count, "$kind: $count values");
	is($given - $distinct, 0, "$kind: none twice");
	cmp_ok($crashes, '>', 0, "$kind: servers crashed meanwhile");
	diag(sprintf '%s: %d values on four nodes, %d twice, %d crashes, %d s', $kind, $given, $given - $distinct, $crashes, time - $began);
	if ($kind eq 'galloc')
	{
		my @ranges = sort { $a->[0] <=> $b->[0] } map { [ split /\|/ ] } map { split /\n/,
			$_->sql("SELECT first_value, last_value FROM bdr.sequence_chunk WHERE relname = 'of_galloc'") } @nodes;
		my $overlaps = grep { $ranges[$_][0] <= $ranges[ $_ - 1 ][1] } 1 .. $#ranges;
		is($overlaps, 0, 'no range overlaps another one');
	}
	unlink @files;
}
done_testing();
