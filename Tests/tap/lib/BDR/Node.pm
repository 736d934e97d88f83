# A server that is to be a node of a bdr group: PostgreSQL::Test::Cluster plus the database under test, waiting with a
# deadline, and looking at errors as a client sees them.

package BDR::Node;

use strict;
use warnings FATAL => 'all';

use parent 'PostgreSQL::Test::Cluster';

use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(time usleep);

# Settings of every test server; a test's own come after and win.
my $base_conf = <<'CONF';
log_statement = none
max_connections = 60
max_worker_processes = 24
max_replication_slots = 16
max_wal_senders = 16
shared_buffers = 32MB
max_wal_size = 1GB
wal_level = logical
track_commit_timestamp = on
restart_after_crash = on
timezone = 'UTC'
bdr.min_worker_backoff_delay = 100ms
bdr.max_worker_backoff_delay = 2s
# tests that are not about locks type DDL while other nodes are down
bdr.ddl_locking = off
CONF

# BDR::Node->create(NAME, %options): initdb, configure, start, create the database.
#   db       name of the database (default db1)
#   preload  shared_preload_libraries (default bdr; '' for none)
#   conf     further lines of postgresql.conf
#   start    0: leave it stopped, without the database
#   initdb   further arguments for initdb, as an array
#   auth     further arguments for pg_regress --config-auth
sub create
{
	my ($class, $name, %options) = @_;
	my $self = $class->new($name);
	$self->{bdr_db} = $options{db} // 'db1';
	$self->{bdr_node_name} = $options{node_name} // "node_$name";
	$self->init(
		allows_streaming => 'logical',
		extra => [ '--encoding=UTF8', '--locale=C.UTF-8', @{ $options{initdb} // [] } ]);
	$self->append_conf('postgresql.conf', $base_conf);
	my $preload = $options{preload} // 'bdr';
	$self->append_conf('postgresql.conf', "shared_preload_libraries = '$preload'");
	$self->append_conf('postgresql.conf', $options{conf}) if defined $options{conf};
	if ($options{start} // 1)
	{
		$self->start;
		$self->create_database;
	}
	return $self;
}

sub create_database
{
	my ($self, $name) = @_;
	$name //= $self->{bdr_db};
	$self->safe_psql('postgres', 'CREATE DATABASE ' . quote_ident($name));
	return;
}

# Another database of the same server, to be a node of its own. The server is started and stopped through the first one.
sub other_database
{
	my ($self, $db, %options) = @_;
	my $other = bless { %$self, bdr_db => $db }, ref $self;
	$other->{bdr_node_name} = $options{node_name} if defined $options{node_name};
	$other->create_database;
	return $other;
}

sub db { return $_[0]->{bdr_db}; }
sub node_name { return $_[0]->{bdr_node_name}; }
sub running { return defined $_[0]->{_pid}; }

sub quote_ident
{
	my ($name) = @_;
	$name =~ s/"/""/g;
	return qq("$name");
}

sub quote_literal
{
	my ($text) = @_;
	$text =~ s/'/''/g;
	return "'$text'";
}

# The connection string by which other nodes reach this one's database.
sub dsn
{
	my ($self, %further) = @_;
	my %part = (host => $self->host, port => $self->port, dbname => $self->db, %further);
	return join ' ', map { my $value = $part{$_}; $value =~ s/([\\'])/\\$1/g; "$_='$value'" } sort keys %part;
}

# As the server's own, but a psql that ended before it has read its script (the server restarts, and took no connection) has
# failed with status 2, like any other that got none.
sub psql
{
	my ($self, $db, $sql, %params) = @_;
	local $SIG{PIPE} = 'IGNORE';
	my @result;
	my $list = wantarray;
	return $list ? @result : $result[0]
	  if eval { @result = $list ? $self->SUPER::psql($db, $sql, %params) : scalar($self->SUPER::psql($db, $sql, %params)); 1 };
	my $error = $@;
	die $error if $params{on_error_die} || $error !~ /Broken pipe/i;
	return $list ? (2, '', $error) : 2;
}

# Runs SQL in the database under test; dies with the server's message if it fails. Gives back what it printed.
sub sql
{
	my ($self, $sql, %params) = @_;
	return $self->safe_psql($self->db, $sql, %params);
}

# The same on this node alone: DDL in it is not replicated.
sub sql_here
{
	my ($self, $sql, %params) = @_;
	return $self->sql("SET bdr.ddl_replication = off; SET client_min_messages = error; $sql", %params);
}

# Runs a statement that has to fail; gives back { sqlstate, message, detail, hint, context, all }, with an undefined
# sqlstate if it did not.
sub error_of
{
	my ($self, $sql, %params) = @_;
	my $db = delete $params{db} // $self->db;
	my ($status, $out, $err) =
	  $self->psql($db, $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ], %params);
	my %error = (all => $err, out => $out);
	# Messages of several lines go on until the next field.
	if ($status != 0 && $err =~ /(?:ERROR|FATAL):\s+([0-9A-Z]{5}): (.*?)(?=\n(?:DETAIL|HINT|CONTEXT|LOCATION|LINE \d+|QUERY|STATEMENT):|\z)/s)
	{
		@error{qw(sqlstate message)} = ($1, $2);
		for my $field (qw(DETAIL HINT CONTEXT))
		{
			$error{ lc $field } = $1
			  if $err =~ /\n$field:\s+(.*?)(?=\n(?:DETAIL|HINT|CONTEXT|LOCATION|QUERY|STATEMENT):|\z)/s;
		}
	}
	elsif ($status != 0)
	{
		$error{message} = $err;
	}
	return \%error;
}

# fails_ok(SQL, SQLSTATE, MESSAGE REGEX or undef, HINT REGEX or undef, TEST NAME)
sub fails_ok
{
	my ($self, $sql, $sqlstate, $message, $hint, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $error = $self->error_of($sql);
	my $good = defined $error->{sqlstate} && $error->{sqlstate} eq $sqlstate;
	$good &&= $error->{message} =~ $message if defined $message;
	$good &&= ($error->{hint} // '') =~ $hint if defined $hint;
	ok($good, $name) or diag("expected $sqlstate; got: " . ($error->{all} || "success: $error->{out}"));
	return $error;
}

# value_ok(QUERY, EXPECTED, TEST NAME): what a query prints now.
sub value_ok
{
	my ($self, $query, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($self->sql($query), $expected, $name);
}

# wait_for(QUERY, EXPECTED, %options): polls until the query prints the expected text or the deadline has passed; true if
# it did. Errors (a server that is just starting) count as "not yet".
#   timeout  seconds
#   db       another database
sub wait_for
{
	my ($self, $query, $expected, %options) = @_;
	my $timeout = $options{timeout} // $PostgreSQL::Test::Utils::timeout_default;
	my $end = time + $timeout;
	my ($status, $out, $err);
	while (1)
	{
		($status, $out, $err) = $self->psql($options{db} // $self->db, $query);
		return 1 if $status == 0 && $out eq $expected;
		last if time > $end;
		usleep(50_000);
	}
	diag($self->name . ": after $timeout s [$query] still gives [$out$err] and not [$expected]");
	return 0;
}

# wait_ok(QUERY, EXPECTED, TEST NAME, %options): wait_for as a test.
sub wait_ok
{
	my ($self, $query, $expected, $name, %options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $good = $self->wait_for($query, $expected, %options);
	ok($good, $name) or $self->show_state;
	return $good;
}

# All this server's commits so far: the LSN that a peer has to reach to have them.
sub commit_position
{
	my ($self) = @_;
	# The first statement commits with an xid of its own, so WAL up to it is flushed.
	my $out = $self->sql("SET synchronous_commit = on; SELECT txid_current() IS NULL; SELECT pg_current_wal_flush_lsn()");
	return (split /\n/, $out)[-1];
}

# Prints what a failed wait needs to be understood.
sub show_state
{
	my ($self) = @_;
	for my $query (
		'SELECT * FROM bdr.node_summary',
		'SELECT * FROM bdr.subscription_summary',
		'SELECT * FROM bdr.worker_errors ORDER BY error_time DESC LIMIT 3',
		'SELECT slot_name, plugin, active, restart_lsn, confirmed_flush_lsn, pg_current_wal_flush_lsn() FROM pg_replication_slots',
		'SELECT pid, backend_type, state, wait_event, query FROM pg_stat_activity WHERE pid <> pg_backend_pid()')
	{
		my ($status, $out, $err) = $self->psql($self->db, $query, extra_params => ['-x']);
		diag($self->name . ": $query\n$out$err");
	}
	my $log = PostgreSQL::Test::Utils::slurp_file($self->logfile);
	diag($self->name . ' log ends: ' . substr($log, -3000));
	return;
}

# Pids of this database's processes of a kind: 'apply', 'manager', 'join', 'walsender', or the server's 'supervisor'.
sub pids
{
	my ($self, $kind) = @_;
	my %condition = (
		supervisor => "backend_type ~ '^bdr supervisor'",
		walsender => "backend_type = 'walsender'",
		map { $_ => "backend_type ~ '^bdr $_' AND datname = current_database()" } qw(manager apply join));
	die "unknown kind of process: $kind" unless $condition{$kind};
	my ($status, $out) = $self->psql($self->db, "SELECT pid FROM pg_stat_activity WHERE $condition{$kind} ORDER BY pid");
	return $status == 0 ? split(/\n/, $out) : ();
}

# Position in the log, for wait_for_log and log_since.
sub log_position { return -s $_[0]->logfile; }
sub log_since { return PostgreSQL::Test::Utils::slurp_file($_[0]->logfile, $_[1] // 0); }

1;
