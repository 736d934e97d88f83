# Migrations on three nodes at once, while rows are written on all: each of its own tables, and all of the same ones. At the end,
# schemas and rows are equal.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::Link;
use BDR::Test;
use BDR::Writer;
use Test::More;

my $net = BDR::Link->new;
my @nodes = map { $net->node($_, conf => "bdr.ddl_locking = on\nmax_worker_processes = 40\nwal_receiver_timeout = 2s
wal_sender_timeout = 2s\nwal_receiver_status_interval = 1s\nbdr.max_worker_backoff_delay = 500ms") } qw(a b c);
my ($a, $b, $c) = @nodes;
$a->sql("$BDR::Writer::tables CREATE TABLE shared (id int PRIMARY KEY, n int DEFAULT 0);
	INSERT INTO shared SELECT i FROM generate_series(1, 300) i");
create_first_node($a);
join_node($b, $a);
join_node($c, $b);
active_ok(\@nodes, 'three nodes');

sub schema_ok
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	all_caught_up(@nodes) or return;
	my @schemas = map {
		my $node = $_;
		my ($out, $err) = PostgreSQL::Test::Utils::run_command([ 'pg_dump', '-s', '-h', $node->host, '-p', $node->port, $node->db ]);
		$out =~ s/^\\(?:un)?restrict .*$//mg;
		$out;
	} @nodes;
	like($schemas[0], qr/CREATE TABLE public.shared/, "$name: there is a schema");
	# not is(): what differs would be printed as a whole
	ok($schemas[$_] eq $schemas[0], "$name: the schema of " . $nodes[$_]->name . ' is that of a') for 1, 2;
	return;
}

# Each statement is a transaction of its own; none may fail.
sub migrate
{
	my ($node, @statements) = @_;
	my $session = $node->background_psql($node->db, on_error_stop => 0);
	$session->query_until(qr/begun/, join '', "\\echo begun\nSET client_min_messages = error; SET bdr.global_lock_timeout = '120s';\n", map { "$_;\n" } @statements);
	return $session;
}

sub done_ok
{
	my ($name, @sessions) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $n = 0;
	for my $session (@sessions)
	{
		$session->query('SELECT 1');
		is($session->{stderr}, '', "$name: " . $nodes[$n]->name . ' has run all');
		$session->quit;
		$n++;
	}
	return;
}

my @writers = map { BDR::Writer->start($_) } @nodes;

# A session keeps what it has opened on other nodes for its next DDL; not for long, and not after an error.
{
	my $kept = "SELECT count(*) > 0 FROM pg_stat_activity WHERE state = 'idle' AND query LIKE '%internal_peer_call%' AND backend_type = 'client backend'";
	my $session = $a->background_psql($a->db, on_error_stop => 0);
	$session->query_safe('CREATE TABLE kept_1 (id int PRIMARY KEY)');
	$a->value_ok($kept, 't', 'a session is kept');
	my $pids = q{SELECT string_agg(pid::text, ',' ORDER BY pid) FROM pg_stat_activity WHERE query LIKE '%internal_peer_call%' AND backend_type = 'client backend' AND pid <> pg_backend_pid()};
	my $before = $a->sql($pids);
	$session->query_safe('CREATE TABLE kept_2 (id int PRIMARY KEY); CREATE TABLE kept_3 (id int PRIMARY KEY)');
	is($a->sql($pids), $before, 'and used again');
	$_->wait_ok($kept, 'f', 'it ends while the client is silent: ' . $_->name, timeout => 30) for @nodes;
	$session->query_safe('CREATE TABLE kept_4 (id int PRIMARY KEY)');
	$session->query('SELECT 1/0');
	$session->{stderr} = '';
	$_->wait_ok($kept, 'f', 'and after an error: ' . $_->name, timeout => 3) for @nodes;
	$session->query_safe('CREATE TABLE kept_5 (id int PRIMARY KEY)');
	$session->quit;
}

# Each its own tables.
my $round = sub {
	my ($name) = @_;
	return ("CREATE TABLE own_$name (id serial PRIMARY KEY, v text)", "INSERT INTO own_$name (v) SELECT 'x' FROM generate_series(1, 50)",
		"ALTER TABLE own_$name ADD COLUMN w int DEFAULT 7", "CREATE INDEX ON own_$name (w)", "CREATE VIEW see_$name AS SELECT id, w FROM own_$name",
		"ALTER TABLE own_$name ADD CHECK (w > 0)", "UPDATE own_$name SET w = id", "COMMENT ON TABLE own_$name IS 'of $name'"); };
done_ok('own tables', map { migrate($_, $round->($_->name . 1), $round->($_->name . 2)) } @nodes);
schema_ok('own tables');

# The same table, of which rows are changed meanwhile.
my @same = map { my $name = $_->name; migrate($_, map { ("ALTER TABLE shared ADD COLUMN of_${name}_$_ int DEFAULT $_",
	"UPDATE shared SET n = n + 1, of_${name}_$_ = id WHERE id % 3 = $_", "CREATE INDEX index_${name}_$_ ON shared (of_${name}_$_)",
	"ALTER TABLE shared ALTER COLUMN of_${name}_$_ SET NOT NULL", "CREATE TABLE IF NOT EXISTS common_$_ (id int PRIMARY KEY)") } 0 .. 2) } @nodes;
done_ok('the same table', @same);
schema_ok('the same table');
$c->value_ok("SELECT count(*) FROM pg_attribute WHERE attrelid = 'shared'::regclass AND attname ~ '^of_'", '9', 'all columns');

# A link is cut while a node has the lock of the table: nobody loses anything; who has it goes on when the link is back.
my $holder = $a->background_psql($a->db, on_error_stop => 0);
$holder->query_safe("SET client_min_messages = error; BEGIN; SELECT bdr.global_lock_table('shared')");
$net->cut($a, $c);
$holder->query_safe('ALTER TABLE shared DROP COLUMN of_a_0; COMMIT');
$holder->quit;
$b->wait_ok("SELECT count(*) FROM pg_attribute WHERE attrelid = 'shared'::regclass AND attname = 'of_a_0'", '0', 'what could be reached has it');
$c->value_ok("SELECT count(*) FROM pg_locks WHERE relation = 'shared'::regclass AND mode = 'ExclusiveLock' AND granted", '1', 'the other one keeps the table locked');
$net->heal($a, $c);
$c->wait_ok("SELECT count(*) FROM pg_attribute WHERE attrelid = 'shared'::regclass AND attname = 'of_a_0'", '0', 'and has it when the link is back');
$_->finish for @writers;
schema_ok('a link that was cut');
all_same_ok(\@nodes, [ 'shared', 'written', map { my $n = $_->name; ("own_${n}1", "own_${n}2") } @nodes ], 'rows');
written_ok(\@nodes, \@writers, 'writers');
$_->wait_ok('SELECT count(*) FROM bdr.global_locks', '0', 'no lock is left on ' . $_->name) for @nodes;
logs_ok(@nodes);
done_testing();
