# Several nodes join at once, and nodes are parted meanwhile: one after the other, in whatever order; those that wait say for
# whom; a join that is cancelled in the queue leaves nothing; the one whose turn it is may crash and come back.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use BDR::Group;
use BDR::Writer;
use Test::More;

my $conf = "bdr.min_worker_backoff_delay = 50ms\nbdr.max_worker_backoff_delay = 500ms";
my ($a, $b) = node_pair(conf => $conf,
	setup => "$BDR::Writer::tables CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 5000) i");
my @joining = map { BDR::Node->create($_, conf => $conf) } qw(c d e);
my @all = ($a, $b, @joining);
my @tables = qw(t written last_written);
my @writers = map { BDR::Writer->start($_) } ($a, $b);

# Three at once, through different members and the same one.
my $place = 'create_peer_slots:done';
make_node($_) for @joining;
pause_joins($place, @joining);
my %target = (c => $a, d => $b, e => $a);
my %session;
for my $node (@joining)
{
	my $session = $session{ $node->name } = $node->background_psql($node->db, on_error_stop => 0);
	my $dsn = quote_literal($target{ $node->name }->dsn);
	# returns when the join has begun, which is what all do now
	$session->query_until(qr/asked/, "\\echo asked\nSELECT bdr.join_node_group($dsn);\n");
}
my ($holder, @waiting);
ok(wait_until(sub {
	my %progress = map { $_->name => progress_of($_) } @joining;
	($holder) = grep { $progress{ $_->name } eq "paused at $place" } @joining;
	return 0 unless $holder;
	my $wanted = 'waiting for node "' . $holder->node_name . '", which is joining or leaving the group now';
	@waiting = grep { $progress{ $_->name } eq $wanted } @joining;
	return @waiting == 2;
}), 'one has its turn, the two others say whom they wait for') or $_->show_state for @joining;
note($holder->name . ' came first');
my $wait_line = 'waiting for node "' . $holder->node_name . '", which is joining or leaving the group now';
for my $member ($a, $b)
{
	$member->value_ok("SELECT string_agg(node_name, ',') FROM bdr.node_summary WHERE peer_state_name <> 'ACTIVE'", $holder->node_name,
		$member->name . ' knows of the one only');
	$member->value_ok('SELECT join_node_name FROM bdr.node_group', $holder->node_name, $member->name . ' says who has the lock');
}

# One of those who wait is cancelled.
my ($cancelled, $other) = @waiting;
$cancelled->sql("SELECT bdr.part_node('@{[$cancelled->node_name]}')", timeout => 60);
$cancelled->value_ok('SELECT step, error_sqlstate FROM bdr.join_progress', 'failed|57014', 'a join is cancelled while it waits');
$cancelled->value_ok('SELECT peer_state_name, node_group_name FROM bdr.local_node_summary', 'CREATED|', 'the node is in no group');
traces_ok($cancelled, 0, 'it has nothing of the join');
$cancelled->value_ok("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace", '0', 'and no table');
my $name = $cancelled->name;
like($session{$name}->query('SELECT 1'), qr/1/, 'the session that waited for it goes on');
like($session{$name}->{stderr}, qr/could not join: the join was cancelled/, 'and was told');
$session{$name}->{stderr} = '';
for my $member ($a, $b)
{
	$member->value_ok("SELECT string_agg(node_name, ',' ORDER BY node_id) FROM bdr.node_summary", join(',', 'node_a', 'node_b', $holder->node_name),
		$member->name . ' does not know it');
	$member->value_ok('SELECT join_node_name FROM bdr.node_group', $holder->node_name, $member->name . ': the lock is where it was');
}

# A member is to be parted while a node joins: that waits, too. Asked again, it is the same request.
$a->sql("SELECT bdr.part_node('node_b', wait_for_completion := false)") for 1 .. 2;
$a->wait_ok('SELECT step, progress FROM bdr.part_progress', "lock|waiting for node \"@{[$holder->node_name]}\", which is joining or leaving the group now",
	'parting a member waits for the join');
$b->value_ok("SELECT peer_state_name FROM bdr.local_node_summary", 'ACTIVE', 'the member goes on meanwhile');

# The server of the one whose turn it is crashes. The others stay where they are, and see why.
$holder->stop('immediate');
$session{ $holder->name }->{run}->finish;
begin_join($cancelled, $a);
$cancelled->wait_ok('SELECT progress FROM bdr.join_progress', $wait_line, 'the cancelled node can ask again, and waits');
is(progress_of($other), $wait_line, 'the other one waits still');
$other->value_ok('SELECT step, error_sqlstate FROM bdr.join_progress', 'reserve|', 'with no error');
$a->value_ok('SELECT step, join_node_name FROM bdr.part_progress, bdr.node_group', 'lock|' . $holder->node_name, 'so does the parting');
$a->sql("INSERT INTO t SELECT i, 'meanwhile' FROM generate_series(5001, 6000) i");
resume_joins(@waiting);
$holder->append_conf('postgresql.auto.conf', "bdr.debug_join_pause_at = ''");
$holder->start;

# All go on, in an order that nobody fixed: a node whose target was parted before its turn came is told so, and joins through
# another one.
is(join_outcome($holder), 'ACTIVE', 'the one that crashed completes its join') or $holder->show_state;
$a->wait_ok("SELECT peer_state_name FROM bdr.node_summary WHERE node_name = 'node_b'", 'PARTED', 'the member is parted');
for my $node ($cancelled, $other)
{
	my $outcome = join_outcome($node) // 'nothing';
	if ($target{ $node->name } == $b && $outcome ne 'ACTIVE')
	{
		like($outcome, qr/^55000\|.*node_b/, $node->name . ' could not join through a node that is parted');
		begin_join($node, $a);
		$outcome = join_outcome($node) // 'nothing';
	}
	is($outcome, 'ACTIVE', $node->name . ' has joined') or $node->show_state;
}
note('order: ' . $a->sql("SELECT string_agg(node_name || ' ' || state_name, ', ' ORDER BY state_counter) FROM bdr.state_journal_details WHERE state_name IN ('ACTIVE', 'PARTED')"));
my @members = ($a, @joining);
active_ok(\@members, 'all are active, under the same ids everywhere');
$a->value_ok('SELECT count(DISTINCT node_id) FROM bdr.node', '5', 'ids are distinct');
like($writers[1]->error, qr/leaving its group/, 'the writer of the parted node was refused in the end');
$_->finish for @writers;
all_same_ok(\@members, \@tables, 'after three joins and a parting');
written_ok([@members], \@writers, 'all members');
traces_ok($_, 3, $_->name . ' has what it needs for three peers, and nothing else') for @members;
traces_ok($b, 0, 'the parted node has nothing');

# A join whose target is parted before its turn is given up, and keeps nobody waiting.
my ($c, $d, $e) = @joining;
$a->sql("SELECT bdr.part_node('node_e')");
$e->sql('DROP TABLE t, written, last_written');
make_node($e);
pause_joins('reserve', $e);
begin_join($e, $d);
$e->wait_ok('SELECT progress FROM bdr.join_progress', 'paused at reserve', 'a join has been stored');
$a->sql("SELECT bdr.part_node('node_d')", timeout => 60);
$a->value_ok("SELECT peer_state_name FROM bdr.node_summary WHERE node_name = 'node_d'", 'PARTED', 'its target is parted');
resume_joins($e);
like(join_outcome($e, timeout => 30) // progress_of($e), qr/^55000\|.*node_d/, 'the join is given up') or $e->show_state;
$_->wait_ok('SELECT count(*) FROM bdr.node_group WHERE join_token IS NOT NULL', '0', $_->name . ': the lock is free') for ($a, $c);
$e->sql("SELECT bdr.part_node('node_e')") if $e->sql('SELECT step FROM bdr.join_progress') ne 'failed';
$e->sql("SELECT bdr.join_node_group(@{[quote_literal($c->dsn)]})", timeout => 60);
active_ok([ $a, $c, $e ], 'through another member it joins');
all_same_ok([ $a, $c, $e ], \@tables, 'after that');

# All members know that a node has joined before it does itself: the next one waits for it.
for my $node ($b, $d)
{
	$node->sql('DROP TABLE t, written, last_written');
	make_node($node);
}
pause_joins('promote:done', $d);
begin_join($d, $a);
$d->wait_ok('SELECT progress FROM bdr.join_progress', 'paused at promote:done', 'a join is all but over');
$_->value_ok("SELECT peer_state_name FROM bdr.node_summary WHERE node_name = 'node_d'", 'ACTIVE', $_->name . ' takes it for an active member') for ($a, $c, $e);
begin_join($b, $a);
$b->wait_ok('SELECT step, progress, error_message FROM bdr.join_progress', 'reserve|waiting for node "node_d", which is joining or leaving the group now|',
	'the next join waits');
resume_joins($d);
is(join_outcome($_), 'ACTIVE', $_->name . ' has joined') or $_->show_state for ($d, $b);
active_ok(\@all, 'all are members');
all_same_ok(\@all, \@tables, 'in the end');
$_->quit for grep { $_->{run}->pumpable } values %session;
done_testing();
