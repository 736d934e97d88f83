# Under writes on all of four nodes one dies again and again, after some of the others were cut off from it at different
# moments; it is parted by force, and the survivors have to be equal. Then it joins again. With BDR_FULL_MATRIX=1 ten times.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::Test;
use BDR::Writer;
use Test::More;
use Time::HiRes qw(usleep);

my $rounds = $ENV{BDR_FULL_MATRIX} ? 10 : 2;
my $seed = $ENV{BDR_SEED} // int(rand(1_000_000));
srand($seed);
note("BDR_SEED=$seed");
my %node = map { $_ => BDR::Node->create($_, conf => "bdr.replay_progress_frequency = '300ms'") } qw(a b c d);
my @tables = qw(written last_written);
$node{a}->sql($BDR::Writer::tables);
$node{a}->sql('ALTER TABLE written ADD PRIMARY KEY (writer, id)');
create_first_node($node{a});
join_node($node{$_}, $node{a}) for qw(b c d);

my (%writer, @ended);
$writer{$_} = BDR::Writer->start($node{$_}, pause => 2000) for keys %node;
my %count = (acknowledged => 0, lost => 0, doubled => 0, forwarded => 0);
for my $round (1 .. $rounds)
{
	my $dead = (sort keys %node)[ int(rand(4)) ];
	my @others = grep { $_ ne $dead } sort keys %node;
	usleep(500_000);
	# one keeps receiving until the end, the others stop earlier
	my @blind = (sort { rand() <=> 0.5 } @others)[ 0, 1 ];
	for my $name (@blind)
	{
		$node{$name}->sql("SELECT bdr.alter_subscription_disable((SELECT sub_name FROM bdr.subscription_summary WHERE origin_name = 'node_$dead'), true)");
		usleep(int(rand(400_000)));
	}
	$node{$dead}->stop('immediate');
	push @ended, delete $writer{$dead};
	$ended[-1]->finish;
	my %before = map { $_ => $node{$_}->sql('SELECT count(*) FROM written WHERE writer = ' . $ended[-1]->number) } @others;
	my $by = $others[ int(rand(3)) ];
	$node{$by}->sql("SELECT bdr.part_node('node_$dead', force := true)", timeout => 120);
	$node{$by}->wait_ok('SELECT count(*) FROM bdr.part_progress', '0', "round $round: $dead is parted by $by");
	my ($first, @more) = map { $_->sql('SELECT count(*) FROM written WHERE writer = ' . $ended[-1]->number) } @node{@others};
	is_deeply(\@more, [ $first, $first ], "round $round: all have the same of $dead ($before{$others[0]}, $before{$others[1]} and $before{$others[2]} before, $first now)");
	$count{forwarded} += 3 * $first - $before{ $others[0] } - $before{ $others[1] } - $before{ $others[2] };
	$_->value_ok('SELECT count(*) FROM bdr.missing_changes', '0', "round $round: nothing is missing on " . $_->name) for @node{@others};
	# it joins again, with an empty database
	$_->sql("SELECT bdr.drop_node('node_$dead', force := true)") for @node{@others};
	my $joining = $node{$dead};
	$joining->start;
	$joining->safe_psql('postgres', 'DROP DATABASE db1 WITH (FORCE)');
	$joining->create_database;
	join_node($joining, $node{ $others[ int(rand(3)) ] });
	$writer{$dead} = BDR::Writer->start($joining, pause => 2000);
}
$_->finish for values %writer;
all_same_ok([ @node{ sort keys %node } ], \@tables, 'in the end');
my $count = BDR::Writer::count($node{a}, values %writer);
is("$count->{lost}, $count->{doubled}", '0, 0', 'what was acknowledged by those who live is there, once');
note("$rounds deaths, $count{forwarded} rows forwarded to others");
cmp_ok($count{forwarded}, '>', 0, 'something had to be forwarded');
done_testing();
