# Nodes join and leave again and again, in a group of up to four, while all members are written to: after each round all have
# the same rows, and every row that a client was told to be committed is there once. What is counted is shown.
#
# Three rounds; BDR_FULL_MATRIX=1 makes all ten. A node that joins again under the same name does so in a new database, or
# in the one that it had.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use BDR::Group;
use BDR::Writer;
use Test::More;
use Time::HiRes qw(time);

my $conf = "bdr.min_worker_backoff_delay = 50ms\nbdr.max_worker_backoff_delay = 500ms";
my $full = $ENV{BDR_FULL_MATRIX};
# Which node joins through which one. One that is a member is parted first, by the one behind the slash.
my @rounds = qw(b>a c>b b/a>c d>a c/d>d d/b>c b/c>d a/b>c c/a>a d/b>b);
@rounds = @rounds[ 0 .. 2 ] unless $full;
my %node = map { $_ => BDR::Node->create($_, conf => $conf) } $full ? qw(a b c d) : qw(a b c);
my @tables = qw(written last_written accounts history);

# Beside the writers, which count what they were told, pgbench's own kind of load: large tables, rows that change often.
$node{a}->sql("$BDR::Writer::tables
	CREATE TABLE accounts (node text, id int, balance bigint NOT NULL DEFAULT 0, filler char(80) NOT NULL DEFAULT '', PRIMARY KEY (node, id));
	CREATE INDEX ON accounts (balance);
	CREATE TABLE history (node text, id int, delta int, mtime timestamptz DEFAULT now(), PRIMARY KEY (node, id, mtime));
	INSERT INTO accounts SELECT n, i FROM unnest('{a,b,c,d}'::text[]) n, generate_series(1, 10000) i");
create_first_node($node{a});
my %member = (a => $node{a});
my (@writers, %writing, %pgbench);

sub begin_writing
{
	for my $name (sort keys %member)
	{
		next if $writing{$name};
		push @writers, $writing{$name} = BDR::Writer->start($member{$name}, pause => 5000);
		$pgbench{$name} = start_pgbench($member{$name}, <<"SQL", '-c', '2', '-R', '150');
\\set id random(1, 10000)
\\set delta random(-5000, 5000)
BEGIN;
UPDATE accounts SET balance = balance + :delta WHERE node = '$name' AND id = :id;
INSERT INTO history VALUES ('$name', :id, :delta, clock_timestamp());
DELETE FROM history WHERE node = '$name' AND id = :id % 100;
COMMIT;
SQL
	}
	return;
}

sub end_writing
{
	for my $name (@_)
	{
		my $writer = delete $writing{$name} or next;
		$writer->finish;
		kill 'INT', $pgbench{$name};
		waitpid delete $pgbench{$name}, 0;
	}
	return;
}

my %total = (acknowledged => 0, lost => 0, doubled => 0);
my $round = 0;
my %again;
begin_writing();
for (@rounds)
{
	my ($name, $by, $target) = m{^(\w)(?:/(\w))?>(\w)$} or die;
	my $joining = $node{$name};
	my $began = time;
	$round++;
	if ($by)
	{
		# It is written to until it refuses.
		$node{$by}->sql("SELECT bdr.part_node('node_$name')", timeout => 120);
		$joining->value_ok("SELECT peer_state_name FROM bdr.local_node_summary", 'PARTED', "round $round: $name is parted");
		like($writing{$name}->error, qr/leaving its group/, "round $round: $name refused writes when it left");
		end_writing($name);
		delete $member{$name};
		# Before it forgets: all that it acknowledged is on the others.
		my $count = BDR::Writer::count($node{$by}, $writers[-1]{node} == $joining ? $writers[-1] : grep { $_->node == $joining } @writers);
		is("$count->{lost}, $count->{doubled}", '0, 0', "round $round: what $name acknowledged is on $by");
		$_->sql("SELECT bdr.drop_node('node_$name')") for values %member;
		if ($again{$name}++ % 2)
		{
			$joining->sql('DROP TABLE ' . join(', ', @tables));
		}
		else
		{
			$joining->safe_psql('postgres', 'DROP DATABASE db1');
			$joining->create_database;
		}
	}
	my $parted = time;
	make_node($joining);
	$joining->sql("SELECT bdr.join_node_group(@{[quote_literal($node{$target}->dsn)]})", timeout => 120);
	my $joined = time;
	$member{$name} = $joining;
	my @members = map { $member{$_} } sort keys %member;
	begin_writing();
	wait_until(sub { $writing{$name}->acknowledged > 50 }) or fail("round $round: $name is written to");
	active_ok(\@members, "round $round: $name joined through $target, " . @members . ' nodes are active') or last;
	# Nobody writes while all are compared.
	end_writing(keys %writing);
	all_same_ok(\@members, \@tables, "round $round") or last;
	my ($lost, $doubled, $acknowledged) = (0, 0, 0);
	for my $node (@members)
	{
		my $count = BDR::Writer::count($node, @writers);
		$lost += $count->{lost};
		$doubled += $count->{doubled};
		$acknowledged = $count->{acknowledged};
	}
	is("$lost, $doubled", '0, 0', "round $round: of $acknowledged rows that were acknowledged none is lost or doubled on any node");
	@total{qw(acknowledged lost doubled)} = ($acknowledged, $total{lost} + $lost, $total{doubled} + $doubled);
	traces_ok($_, @members - 1, "round $round: " . $_->name . ' has what it needs, and nothing else') for @members;
	note(sprintf 'round %d (%s): parting %.1f s, join %.1f s, all %.1f s; %d rows acknowledged so far', $round, $_, $parted - $began, $joined - $parted,
		time - $began, $acknowledged);
	begin_writing();
}
end_writing(keys %writing);
$_->value_ok("SELECT count(*) FROM bdr.worker_errors WHERE error_message !~ '^(08|57|55006)'", '0', $_->name . ': no worker failed otherwise than by a lost connection, or by the old one that still has the slot')
  for map { $member{$_} } sort keys %member;
note("$round rounds: $total{acknowledged} rows acknowledged, $total{lost} lost, $total{doubled} doubled");
logs_ok(map { $node{$_} } sort keys %node);
done_testing();
END { kill 'KILL', values %pgbench; }
