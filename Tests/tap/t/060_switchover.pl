# The high-availability set-up with a real HAProxy and a real PgBouncer: under load through both, planned switchovers cost no
# client an error and lose no row; after a crash everything that was acknowledged is there once the node returns; a node that
# is joining or behind gets no traffic.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::HA;
use BDR::Node;
use BDR::Test;
use BDR::Writer;
use IPC::Run ();
use List::Util qw(max min sum);
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(time usleep);

if (my @missing = BDR::HA::missing())
{
	plan skip_all => "not installed: @missing";
}

my $full = $ENV{BDR_FULL_MATRIX};

# Figures that somebody asked for.
sub figures
{
	my ($text) = @_;
	return $full ? diag($text) : note($text);
}

my %tcp = (conf => "listen_addresses = '127.0.0.1'");
my ($a, $b, $c) = map { BDR::Node->create($_, %tcp, node_name => "${_}_node") } qw(a b c);
$a->sql($BDR::Writer::tables);
$a->sql('CREATE TABLE pairs (id bigint PRIMARY KEY, client int); CREATE TABLE counters (client int PRIMARY KEY, n int);
	CREATE TABLE locked (id int PRIMARY KEY, note text);
	INSERT INTO counters SELECT i, 0 FROM generate_series(0, 3) i');
create_first_node($a, dsn => $a->dsn(host => '127.0.0.1'));
join_node($b, $a, dsn => $b->dsn(host => '127.0.0.1'), target_dsn => $a->dsn(host => '127.0.0.1'));
my $ha = BDR::HA->new([ $a, $b, $c ]);

$ha->server_status_ok($a, qr/^UP$/, 'HAProxy takes the first node for up');
$ha->server_status_ok($b, qr/^UP$/, 'and the second');
$ha->server_status_ok($c, qr/^DOWN/, 'but not a server that is no node yet');
$ha->serving_ok('a_node', 'clients come to the first node');

# Each pgbench transaction writes, and then looks in another transaction whether what it wrote is there: division by zero if not.
my $script = PostgreSQL::Test::Utils::tempdir() . '/load.sql';
PostgreSQL::Test::Utils::append_to_file($script, <<'SQL');
\set id random(1, 9000000000000000000)
BEGIN;
INSERT INTO pairs VALUES (:id, :client_id);
UPDATE counters SET n = n + 1 WHERE client = :client_id;
COMMIT;
SELECT 1 / count(*) FROM pairs WHERE id = :id;
\sleep 5 ms
SQL
my $transactions = 0;

# load_begin(SECONDS, OPTIONS OF PGBENCH)
sub load_begin
{
	my ($seconds, @options) = @_;
	my ($out, $err) = ('', '');
	my @psql = ('pgbench', '-n', '-c', 4, '-j', 1, '-T', $seconds, @options, '-f', $script, '-h', '127.0.0.1', '-p', $ha->{port}, $a->db);
	return { handle => IPC::Run::start(\@psql, '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(300)), out => \$out, err => \$err };
}

sub load_ended_ok
{
	my ($load, $name) = @_;
	ok($load->{handle}->pumpable, "$name: the load lasted longer");
	IPC::Run::finish($load->{handle});
	my ($done) = ${ $load->{out} } =~ /transactions actually processed: (\d+)/;
	$transactions += $done // 0;
	my ($failed) = ${ $load->{out} } =~ /failed transactions: (\d+)/;
	figures("$name: " . ($done // 0) . ' transactions acknowledged, ' . ($failed // 0) . ' failed');
	ok($? == 0 && ${ $load->{err} } !~ /error|abort/i && ($done // 0) > 50, "$name: no client error in " . ($done // 0) . ' transactions')
	  or diag("${ $load->{out} }\n${ $load->{err} }");
	return;
}

my @waited;

sub switchover_ok
{
	my ($to, @further) = @_;
	my ($status, $out, $err) = $ha->switchover('--to', $to->node_name, @further);
	is($status, 0, join ' ', 'switchover to', $to->node_name, @further) or diag("$out\n$err\n" . $ha->state);
	is($ha->serving, $to->node_name, 'clients come there');
	push @waited, $1 if $out =~ /clients waited for (\d+) ms/;
	return $out;
}

# How long clients waited in the switchovers since it was asked last.
sub waited
{
	my @all = splice @waited;
	return sprintf '%d switchovers, in which clients waited for %d ms on average, %d ms at most', scalar @all, sum(@all) / @all, max(@all);
}

# Planned, both ways, several times, under load
my $rounds = $full ? 10 : 2;
my $load = load_begin(8 * $rounds + 9);
my @writers = map { BDR::Writer->start($ha->endpoint, pause => 3000) } 1 .. 3;
ok(wait_until(sub { $writers[-1]->acknowledged > 20 }), 'the load is on');
my ($status, $out, $err) = $ha->switchover('--to', 'b_node', '--dry-run');
is($status, 0, 'dry run') or diag($err);
like($out, qr/disable server bk_db\/bdr_a_node.*nothing was done/s, 'it shows what would be done');
is($ha->serving, 'a_node', 'and does nothing');
for my $round (1 .. $rounds)
{
	like(switchover_ok($b), qr/clients waited for \d+ ms/, 'it says how long clients waited');
	$ha->server_status_ok($a, qr/^UP$/, 'the other node is enabled again, to take over');
	is($ha->serving, 'b_node', 'and clients stay');
	usleep(500_000);
	switchover_ok($a);
	usleep(500_000);
}
load_ended_ok($load, 'planned');
figures('planned: ' . waited());
# For a moment both nodes are written to: only with the writers, each of which has rows of its own and reads none.
switchover_ok($b, '--rolling');
switchover_ok($a, '--rolling');

# As the guide does it by hand, with its own words: there, after the maintenance, and back
my ($page) = grep { -e } map { "$_/docs/high-availability.md" } '..', '../..';
my ($section) = slurp_file($page) =~ /^## By hand\n(.*?)^## /ms;
my @by_hand = $section =~ /^```\n(.*?)^```/msg;
is(scalar @by_hand, 3, 'the guide has three blocks of commands');
my %here = ('/run/haproxy/admin.sock' => "UNIX-CONNECT:$ha->{socket}", 'initial_node' => 'a_node', 'next_node' => 'b_node',
	'-h proxy_server' => "-h 127.0.0.1 -p $ha->{port}", '-U pgbouncer' => '-U ' . getpwuid($<));
my $said = join '|', map { quotemeta } keys %here;

sub type_ok
{
	my ($block) = @_;
	for my $command (split /\n/, $block =~ s/($said)/$here{$1}/gr)
	{
		my ($out, $err) = ('', '');
		ok(IPC::Run::run([ 'sh', '-c', $command ], '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60)) && $err eq '' && $out =~ /^\s*(RECONNECT\s*WAIT_CLOSE)?\s*$/,
			"by hand: $command") or diag("$out\n$err");
	}
	return;
}

sub moved_ok
{
	my ($from, $to) = @_;
	is($ha->serving, $to->node_name, 'the traffic is on the other node');
	is($from->sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name = 'psql' AND pid <> pg_backend_pid()"),
		'0', 'the first one has none');
	return;
}

my $acknowledged = sum(map { scalar $_->acknowledged } @writers);
for my $round (1 .. ($full ? 10 : 1))
{
	type_ok($by_hand[0]);
	moved_ok($a, $b);
	$a->restart if $round == 1;
	type_ok($by_hand[1]);
	$ha->server_status_ok($a, qr/^UP$/, 'the node is back');
	is($ha->serving, 'b_node', 'and the traffic stays where it is');
	my ($back, $enable) = $by_hand[2] =~ /^(.*\n)(.*enable server.*\n)$/s;
	type_ok($back);
	moved_ok($b, $a);
	type_ok($enable);
	$ha->server_status_ok($b, qr/^UP$/, 'the other one stands by');
	is($ha->serving, 'a_node', 'and the traffic stays');
}
figures('by hand: ' . (sum(map { scalar $_->acknowledged } @writers) - $acknowledged) . ' rows acknowledged');
is($_->error, '', 'a writer had no error') for @writers;
$_->finish for @writers;
all_same_ok([ $a, $b ], [qw(written last_written pairs counters)], 'after planned switchovers');
written_ok([ $a, $b ], \@writers, 'planned switchovers');
$_->value_ok('SELECT (SELECT count(*) FROM pairs), (SELECT sum(n) FROM counters)', "$transactions|$transactions",
	'each acknowledged transaction is there once on ' . $_->name) for $a, $b;

# A pool of sessions: clients move when they connect again, which these do for each transaction.
{
	$ha->pool_mode('session');
	my $load = load_begin(8 * $rounds, '-C');
	for my $round (1 .. $rounds)
	{
		switchover_ok($_), usleep(500_000) for $b, $a;
	}
	load_ended_ok($load, 'a pool of sessions');
	figures('a pool of sessions: ' . waited());
	# those who stay connected keep it from pausing, and are left alone
	my $session = $ha->session;
	$session->ask('SELECT 1');
	my ($status, $out, $err) = $ha->switchover('--to', 'b_node', '--pause-timeout', 1);
	is($status, 3, 'a session that stays: the switchover is called back');
	like($err, qr/HINT: PgBouncer pools sessions, .*pool_mode = transaction/, 'and says why');
	is($session->ask('SELECT node_name FROM bdr.local_node_summary'), 'a_node', 'the session is where it was');
	$session->quit;
	$ha->pool_mode('transaction');
	all_same_ok([ $a, $b ], [qw(pairs counters)], 'after switchovers of sessions');
	$_->value_ok('SELECT (SELECT count(*) FROM pairs), (SELECT sum(n) FROM counters)', "$transactions|$transactions",
		'each acknowledged transaction is there once on ' . $_->name) for $a, $b;
}

# For maintenance the other node stays disabled, until the traffic has been moved back, or it is told to stand by.
switchover_ok($b, '--maintenance');
$ha->server_status_ok($a, qr/^MAINT/, 'with --maintenance the other node stays disabled');
switchover_ok($b);
$ha->server_status_ok($a, qr/^UP$/, 'and is enabled when asked again');
switchover_ok($a);

# A transaction that stays open: called back.
{
	my $session = $ha->session;
	$session->ask('BEGIN; INSERT INTO pairs VALUES (-1, -1)');
	($status, $out, $err) = $ha->switchover('--to', 'b_node', '--pause-timeout', 1);
	is($status, 3, 'a transaction that stays open: the switchover is called back');
	like($err, qr/HINT: A transaction that stays open keeps PgBouncer from pausing/, 'and says why');
	is($ha->serving, 'a_node', 'clients go on where they were');
	$session->ask('COMMIT');
	$session->quit;
	$a->value_ok('SELECT count(*) FROM pairs WHERE id = -1', 1, 'the transaction itself was not harmed');
}

# A node that is behind gets no traffic, neither on demand nor when HAProxy chooses.
my $blocker = $b->background_psql($b->db);
$blocker->query_safe('BEGIN; LOCK TABLE locked');
$a->sql("INSERT INTO locked VALUES (0, 'waits')");
($status, $out, $err) = $ha->switchover('--to', 'b_node', '--timeout', 1);
is($status, 3, 'switchover to a node that is behind is refused') or diag($out);
like($err, qr/b_node is still \d+ \w+ behind a_node.*HINT: Nothing has been moved/s, 'with how much, and what to do');
is($ha->serving, 'a_node', 'the traffic is where it was');
$a->sql("INSERT INTO locked SELECT i, repeat('x', 1000) FROM generate_series(1, 5000) i");
$ha->server_status_ok($b, qr/^DOWN/, 'HAProxy takes a node for down that is far behind another');
like(($ha->ready($b))[1], qr/^not ready: \d+ \w+ behind/, 'its agent says why');
($status, $out, $err) = $ha->switchover('--to', 'b_node', '--timeout', 1);
like($err, qr/HAProxy takes bdr_b_node for down/, 'then so does a switchover');
$blocker->query_safe('COMMIT');
$blocker->quit;
$ha->server_status_ok($b, qr/^UP$/, 'it is up again when it has caught up');

# A joining node gets none.
pause_joins('copy_data', $c);
make_node($c, dsn => $c->dsn(host => '127.0.0.1'));
begin_join($c, $a, target_dsn => $a->dsn(host => '127.0.0.1'));
$c->wait_ok('SELECT peer_state_name FROM bdr.local_node_summary', 'JOINING', 'a third node joins');
ok(wait_until(sub { ($ha->ready($c))[1] =~ /^not ready: the node is JOINING/ }), 'its agent says that it is joining') or diag(join ' ', $ha->ready($c));
like($ha->server_status($c), qr/^DOWN/, 'HAProxy takes it for down');
($status, $out, $err) = $ha->switchover('--to', 'c_node');
is($status, 3, 'no switchover to it');
resume_joins($c);
is(join_outcome($c), 'ACTIVE', 'it joins');
$ha->server_status_ok($c, qr/^UP$/, 'then it may get traffic');
switchover_ok($c);
switchover_ok($a);

# The node with the traffic crashes, and comes back, one after the other. Clients connect again after an error.
my @clients = map { BDR::Writer->start($ha->endpoint, pause => 2000, reconnect => 1) } 1 .. 3;
my $written = sub { return min(map { scalar $_->acknowledged } @clients); };
my @away;
my ($active, $other) = ($a, $b);
for my $round (1 .. ($full ? 10 : 1))
{
	my $before = $written->();
	ok(wait_until(sub { $written->() > $before + 100 }), 'under load');
	$round % 2 ? $active->stop('immediate') : $active->kill9;
	my $crash = time;
	# c_node stands by, too, and is the last in HAProxy's order
	$ha->serving_ok($other->node_name, 'after a crash of ' . $active->node_name . ' clients come to another node');
	push @away, time - $crash;
	$before = $written->();
	ok(wait_until(sub { $written->() > $before + 50 }), 'which takes their writes');
	$active->start;
	$ha->server_status_ok($active, qr/^UP$/, 'the node that crashed is back');
	usleep(1_000_000);
	is($ha->serving, $other->node_name, 'and the traffic stays where it is');
	($active, $other) = ($other, $active);
}
figures(sprintf '%d crashes: clients were served again after %.1f s on average, %.1f s at most', scalar @away, sum(@away) / @away, max(@away));
my @after = map { BDR::Writer->start($ha->endpoint, pause => 2000) } 1 .. 2;
ok(wait_until(sub { $after[-1]->acknowledged > 50 }), 'further clients');
switchover_ok($active == $a ? $b : $a);
$_->finish for @clients, @after;
is($_->error, '', 'the way back cost no error') for @after;
all_same_ok([ $a, $b, $c ], [qw(written last_written pairs counters)], 'after the crash');
written_ok([ $a, $b, $c ], [ @writers, @clients, @after ], 'crash and return');
figures('crashes: ' . sum(map { scalar $_->acknowledged } @clients) . ' rows acknowledged, '
	. max(map { BDR::Writer::count($_, @clients)->{lost} } $a, $b, $c) . ' lost');

undef $ha;
done_testing();
