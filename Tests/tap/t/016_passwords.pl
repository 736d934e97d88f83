# Nodes that need passwords: in the connection string, or in a password file of the server's user. The password is shown to
# nobody: not by views, not to roles that watch, not in the log, not in the list of processes, not in a dump.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(time usleep);

# What has to be quoted somewhere, around what can be searched for.
my $needle = 'NeedleInTheLog';
my %secret = (
	a => "it's $needle \\ \"a\" = : / % 41 é",
	b => "b ${needle}B'\\\\");

# A server that trusts its own socket, and wants a password by TCP.
sub create
{
	my ($name, %options) = @_;
	my $node = BDR::Node->create($name, start => 0, conf => "listen_addresses = '127.0.0.1'\npassword_encryption = 'scram-sha-256'\n");
	open my $hba, '>', $node->data_dir . '/pg_hba.conf' or die "pg_hba.conf: $!";
	print $hba "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
	close $hba;
	$node->start;
	$node->create_database;
	$node->sql('CREATE ROLE peer SUPERUSER LOGIN PASSWORD ' . quote_literal($options{password}));
	return $node;
}

sub tcp { my ($node, %further) = @_; return $node->dsn(host => '127.0.0.1', user => 'peer', %further); }

# What processes of the machine show.
my %seen;

my ($a, $b) = map { create($_, password => $secret{$_}) } qw(a b);
my %dsn = map { $_->name => tcp($_, password => $secret{ $_->name }) } ($a, $b);
my %position = map { $_->name => $_->log_position } ($a, $b);

# Enough of it that pg_dump can be seen.
$a->sql(q{
	CREATE TABLE t (id int PRIMARY KEY, v text);
	INSERT INTO t SELECT i, 'x' FROM generate_series(1, 1000) i;
	DO $$ BEGIN FOR i IN 1 .. 400 LOOP EXECUTE format('CREATE TABLE many_%s (id int PRIMARY KEY, v text UNIQUE, w int CHECK (w > 0))', i); END LOOP; END $$;
});

#
# In the connection string.
#
create_first_node($a, dsn => $dsn{a});
$b->sql('CREATE EXTENSION bdr');
$b->sql('SELECT bdr.create_node(\'node_b\', ' . quote_literal($dsn{b}) . ')');
$b->sql('SELECT bdr.join_node_group(' . quote_literal($dsn{a}) . ', wait_for_completion := false)');
my $end = time + 60;
my @activity;
while (time < $end)
{
	look_at_processes($needle, \%seen);
	last if $b->sql('SELECT peer_state_name FROM bdr.local_node_summary') =~ /ACTIVE|FAILED/;
	for my $node ($a, $b)
	{
		push @activity, $node->sql("SELECT query FROM pg_stat_activity WHERE query ~ ('Needle' || 'InTheLog') AND application_name !~ 'psql|[.]pl'");
	}
}
$b->wait_ok('SELECT peer_state_name FROM bdr.local_node_summary', 'ACTIVE', 'a node joins with passwords in the connection strings');
replicating_ok($a, $b, 'both directions replicate');
same_ok($a, $b, 't', 'copied');
for my $pair ([ $a, $b ], [ $b, $a ])
{
	my ($from, $to) = @$pair;
	$from->sql("INSERT INTO t VALUES (" . $from->port . ", 'from " . $from->name . "')");
	same_ok($from, $to, 't', 'changes from ' . $from->name);
}
$_->restart for ($a, $b);
replicating_ok($a, $b, 'they connect again');

ok(!$seen{betrayed}, 'no process shows a password') or diag(@{ $seen{betrayed} });
ok($seen{programs}{pg_dump}, 'pg_dump was seen at work') or diag(join ' ', %{ $seen{programs} // {} });
is(join('', grep { $_ } @activity), '', 'no session of bdr shows one');

# The views, to whoever may read them.
for my $node ($a, $b)
{
	$node->sql_here('CREATE ROLE watcher LOGIN IN ROLE bdr_read_all_stats, bdr_monitor, bdr_application, bdr_read_all_conflicts');
	my @views = split /\n/, $node->sql("SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'bdr'::regnamespace AND relkind = 'v'");
	cmp_ok(scalar @views, '>', 5, 'there are views');
	for my $view (@views)
	{
		unlike($node->sql("SELECT x::text FROM $view x"), qr/$needle/, "$view of " . $node->name . ' shows no password');
	}
	like($node->sql("SELECT string_agg(interface_connstr, ' ') FROM bdr.node_summary"), qr/password='?\*+.*password='?\*+/s, 'but that there is one');
	my $readable = 0;
	for my $relation (split /\n/, $node->sql("SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'bdr'::regnamespace AND relkind IN ('r', 'v', 'm', 'p')"))
	{
		my ($status, $out, $err) = $node->psql($node->db, "SELECT x::text FROM $relation x", connstr => $node->dsn(user => 'watcher'));
		next if $status != 0 && $err =~ /permission denied/;
		$readable++;
		unlike("$out$err", qr/$needle/, "$relation shows none to roles that watch");
	}
	cmp_ok($readable, '>', 5, 'they can read some of it');
	for my $call ("SELECT * FROM bdr.internal_peer_call('nodes', VARIADIC '{}')", "SELECT * FROM bdr.internal_peer_call('describe', VARIADIC '{}')", 'SELECT if_dsn FROM bdr.node_interface',
		'SELECT target_dsn FROM bdr.join_state', "SELECT bdr.check_settings('host=127.0.0.1')")
	{
		is($node->error_of($call, connstr => $node->dsn(user => 'watcher'))->{sqlstate}, '42501', "not for roles that watch: $call");
	}
	# what people can do with a database
	my ($dump) = PostgreSQL::Test::Utils::run_command([ 'pg_dump', '-d', $node->dsn ]);
	like($dump, qr/CREATE EXTENSION.*bdr/, 'a dump of the database has the extension');
	unlike($dump, qr/$needle/, 'and no connection string');
}

# What people type wrongly, and what goes wrong later.
my $wrong = "wrong ${needle}X";
for my $case (
	[ tcp($b), qr/no password supplied/, 'no password' ],
	[ tcp($b, password => $wrong), qr/password authentication failed/, 'a wrong password' ],
	[ tcp($b, password => $wrong) . ' nonsense', qr/./, 'a malformed string' ],
	[ tcp($b, password => $wrong, port => 'many'), qr/./, 'a malformed port' ],
	[ tcp($b, password => $wrong, sslmode => 'maybe'), qr/./, 'a wrong option' ],
	[ "postgresql://peer:$wrong\@127.0.0.1/db1", qr/./, 'a URI with a space' ])
{
	my ($dsn, $message, $name) = @$case;
	for my $call ('bdr.check_settings(%s)', 'bdr.alter_node_interface(\'node_b\', %s)', 'bdr.join_node_group(%s)')
	{
		my $sql = 'SELECT ' . sprintf($call, quote_literal($dsn));
		my ($status, $out, $err) = $b->psql($b->db, $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
		# psql shows the line that failed when the parser has a place for it, which is what was typed
		$err =~ s/^LINE \d+:.*$//mg;
		unlike("$out$err", qr/$needle/, "$name: no message of $call repeats it");
		next unless $call =~ /check/ && $status == 0;
		like($out, $message, "$name: check_settings says so: " . ((split /\n/, $out)[-1] // ''));
	}
}
for my $case ([ tcp($b), qr/no password supplied/ ], [ tcp($b, password => $wrong), qr/password authentication failed/ ])
{
	$b->create_database('other') unless $b->safe_psql('postgres', "SELECT count(*) FROM pg_database WHERE datname = 'other'");
	my $error = $b->error_of('CREATE EXTENSION IF NOT EXISTS bdr; SELECT bdr.create_node(\'other\', ' . quote_literal($case->[0]) . ')', connstr => $b->dsn(dbname => 'other'));
	like($error->{message} // '', $case->[1], 'create_node: ' . ($error->{message} // ''));
	unlike($error->{message} . ($error->{detail} // '') . ($error->{hint} // ''), qr/$needle/, 'without what was given');
}

# A password is changed.
my $new = "the new ${needle}N";
$b->sql('ALTER ROLE peer PASSWORD ' . quote_literal($new));
$a->sql(q{SELECT pg_terminate_backend(worker_pid) FROM bdr.workers WHERE worker_role_name = 'apply'});
$a->wait_ok("SELECT count(*) > 0 FROM bdr.worker_errors WHERE error_message ~ 'password authentication failed'", 't', 'a changed password stops the stream, and is named');
unlike($a->sql('SELECT x::text FROM bdr.worker_errors x'), qr/$needle/, 'without the old one');
for my $node ($b, $a)
{
	$node->sql("SELECT bdr.alter_node_interface('node_b', " . quote_literal(tcp($b, password => $new)) . ')');
}
replicating_ok($a, $b, 'with the new connection string it goes on');
$b->sql("INSERT INTO t VALUES (-1, 'after the change')");
same_ok($a, $b, 't', 'nothing is missing');

# The log has what people typed where it failed, which is the server's doing; nothing else.
for my $node ($a, $b)
{
	my @lines;
	my $statement = 0;
	for my $line (split /\n/, $node->log_since($position{ $node->name }))
	{
		# lines of a statement go on with a tab
		$statement = $line =~ /STATEMENT:/ unless $line =~ /^\t/;
		push @lines, $line if $line =~ /$needle/ && !$statement;
	}
	ok(!@lines, 'no message in the log of ' . $node->name . ' shows a password') or diag(join "\n", splice(@lines, 0, 10));
}

#
# In a password file that the servers find by their environment, or by the connection string.
#
my $passfile = PostgreSQL::Test::Utils::tempdir() . '/pass';
{
	local $ENV{PGPASSFILE} = $passfile;
	my ($c, $d) = map { create($_, password => $secret{a}) } qw(c d);
	my $password = $secret{a};
	$password =~ s/([\\:])/\\$1/g;
	PostgreSQL::Test::Utils::append_to_file($passfile, join '', map { '127.0.0.1:' . $_->port . ":*:peer:$password\n" } ($c, $d));
	chmod 0600, $passfile or die $!;
	$c->sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'c')");
	create_first_node($c, dsn => tcp($c));
	join_node($d, $c, dsn => tcp($d), target_dsn => tcp($c, passfile => $passfile));
	replicating_ok($c, $d, 'a node joins with a password file');
	$d->sql("INSERT INTO t VALUES (2, 'd')");
	$c->sql("INSERT INTO t VALUES (3, 'c')");
	same_ok($c, $d, 't', 'both directions');
	$d->value_ok('SELECT count(*) FROM bdr.node_interface WHERE if_dsn ~ $$assword$$', '0', 'no password is stored');
	unlike($_->log_since(0), qr/$needle/, 'none in the log of ' . $_->name) for ($c, $d);
	logs_ok($c, $d);
}
logs_ok($a, $b);
done_testing();
