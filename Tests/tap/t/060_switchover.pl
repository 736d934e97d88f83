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
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(time usleep);

if (my @missing = BDR::HA::missing())
{
	plan skip_all => "not installed: @missing";
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

sub load_begin
{
	my ($seconds) = @_;
	my ($out, $err) = ('', '');
	my @psql = ('pgbench', '-n', '-c', 4, '-j', 1, '-T', $seconds, '-f', $script, '-h', '127.0.0.1', '-p', $ha->{port}, $a->db);
	return { handle => IPC::Run::start(\@psql, '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(300)), out => \$out, err => \$err };
}

sub load_ended_ok
{
	my ($load, $name) = @_;
	IPC::Run::finish($load->{handle});
	my ($done) = ${ $load->{out} } =~ /transactions actually processed: (\d+)/;
	$transactions += $done // 0;
	ok($? == 0 && ${ $load->{err} } !~ /error|abort/i && ($done // 0) > 50, "$name: no client error in " . ($done // 0) . ' transactions')
	  or diag("${ $load->{out} }\n${ $load->{err} }");
	return;
}

sub switchover_ok
{
	my ($to, @further) = @_;
	my ($status, $out, $err) = $ha->switchover('--to', $to->node_name, @further);
	is($status, 0, join ' ', 'switchover to', $to->node_name, @further) or diag("$out\n$err\n" . $ha->state);
	is($ha->serving, $to->node_name, 'clients come there');
	return $out;
}

# Planned, both ways, several times, under load
my $load = load_begin(25);
my @writers = map { BDR::Writer->start($ha->endpoint, pause => 3000) } 1 .. 3;
ok(wait_until(sub { $writers[-1]->acknowledged > 20 }), 'the load is on');
my ($status, $out, $err) = $ha->switchover('--to', 'b_node', '--dry-run');
is($status, 0, 'dry run') or diag($err);
like($out, qr/disable server bk_db\/bdr_a_node.*nothing was done/s, 'it shows what would be done');
is($ha->serving, 'a_node', 'and does nothing');
for my $round (1 .. 2)
{
	like(switchover_ok($b), qr/clients waited for \d+ ms/, 'it says how long clients waited');
	$ha->server_status_ok($a, qr/^UP$/, 'the other node is enabled again, to take over');
	is($ha->serving, 'b_node', 'and clients stay');
	usleep(500_000);
	switchover_ok($a);
	usleep(500_000);
}
load_ended_ok($load, 'planned');
# For a moment both nodes are written to: only with the writers, each of which has rows of its own and reads none.
switchover_ok($b, '--rolling');
switchover_ok($a, '--rolling');

# As the guide does it by hand
is($ha->proxy('disable server bk_db/bdr_a_node') =~ s/\s//gr, '', 'by hand: HAProxy is told');
is($ha->pooler('RECONNECT'), '', 'PgBouncer, too');
is($ha->pooler('WAIT_CLOSE'), '', 'all connections are new');
is($ha->serving, 'b_node', 'the traffic is on the second node');
is($a->sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name = 'psql' AND pid <> pg_backend_pid()"), '0',
	'the first one has none');
$a->restart;
$ha->proxy('enable server bk_db/bdr_a_node');
$ha->server_status_ok($a, qr/^UP$/, 'the first node is back');
is($ha->serving, 'b_node', 'and the traffic stays on the second');
switchover_ok($a);
is($_->error, '', 'a writer had no error') for @writers;
$_->finish for @writers;
all_same_ok([ $a, $b ], [qw(written last_written pairs counters)], 'after planned switchovers');
written_ok([ $a, $b ], \@writers, 'planned switchovers');
$_->value_ok('SELECT (SELECT count(*) FROM pairs), (SELECT sum(n) FROM counters)', "$transactions|$transactions",
	'each acknowledged transaction is there once on ' . $_->name) for $a, $b;

# For maintenance the other node stays disabled, until the traffic has been moved back, or it is told to stand by.
switchover_ok($b, '--maintenance');
$ha->server_status_ok($a, qr/^MAINT/, 'with --maintenance the other node stays disabled');
switchover_ok($b);
$ha->server_status_ok($a, qr/^UP$/, 'and is enabled when asked again');
switchover_ok($a);

# A transaction that stays open: called back.
{
	my ($in, $idle_out, $idle_err) = ('', '', '');
	my $handle = IPC::Run::start([ 'psql', '-XAtq', '-d', "host=127.0.0.1 port=$ha->{port} dbname=" . $a->db ], '<', \$in, '>', \$idle_out, '2>', \$idle_err,
		IPC::Run::timeout(120));
	$in = "BEGIN; INSERT INTO pairs VALUES (-1, -1); SELECT 'open';\n";
	$handle->pump until $idle_out =~ /open/;
	($status, $out, $err) = $ha->switchover('--to', 'b_node', '--pause-timeout', 1);
	is($status, 3, 'a transaction that stays open: the switchover is called back');
	like($err, qr/HINT: A transaction that stays open keeps PgBouncer from pausing/, 'and says why');
	is($ha->serving, 'a_node', 'clients go on where they were');
	$in = "COMMIT; SELECT 'done';\n";
	$handle->pump until $idle_out =~ /done/;
	$in = "\\q\n";
	$handle->finish;
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

# The node with the traffic crashes, and comes back.
my @before = map { BDR::Writer->start($ha->endpoint, pause => 2000) } 1 .. 3;
ok(wait_until(sub { $before[-1]->acknowledged > 100 }), 'load again');
$a->stop('immediate');
my $crash = time;
$ha->serving_ok('b_node', 'after a crash clients come to the second node');
note(sprintf 'clients were served again after %.1f s', time - $crash);
$_->finish for @before;
my @after = map { BDR::Writer->start($ha->endpoint, pause => 2000) } 1 .. 2;
ok(wait_until(sub { $after[-1]->acknowledged > 50 }), 'which takes their writes');
$a->start;
$ha->server_status_ok($a, qr/^UP$/, 'the node that crashed is back');
usleep(1_000_000);
is($ha->serving, 'b_node', 'and the traffic stays where it is');
switchover_ok($a);
$_->finish for @after;
is($_->error, '', 'the way back cost no error') for @after;
all_same_ok([ $a, $b, $c ], [qw(written last_written pairs counters)], 'after the crash');
written_ok([ $a, $b, $c ], [ @writers, @before, @after ], 'crash and return');

undef $ha;
done_testing();
