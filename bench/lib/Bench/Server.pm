# Two servers, a (where is written) and b (where is read), of a private copy of the installed one.
package Bench::Server;
use strict;
use warnings;
use FindBin;
use POSIX ();
use Bench::Session;

our ($work, $bindir, $user, $knows_plugin_list, $pglogical);
our %port = (a => 6001, b => 6002);
my %session;
my $running;                    # a program that run() waits for, as pid
my $may_be_ended;

sub prepare
{
	# What the caller has set for his own servers must not lead psql elsewhere.
	delete $ENV{$_} for grep { /^PG/ && $_ ne 'PG_CONFIG' } keys %ENV;
	my @answer = split /\n/, qx("$FindBin::Bin/lib/prepare"), -1;
	die "could not prepare a server\n" if $? || @answer < 4;
	($work, $bindir, $user) = @answer;
	$knows_plugin_list = $answer[3] eq 'yes';
}

# Runs a program to its end; as the server user if we are root and the program insists.
sub run
{
	my (@command) = @_;
	my $as = ref $command[0] ? shift @command : undef;
	my $file = "$work/command.log";
	my @prefix = $as && $user ? ('runuser', '-u', $user, '--', 'env', "HOME=$work") : ();
	$command[0] = "$bindir/$command[0]";
	my $pid = fork // die "fork: $!\n";
	if (!$pid)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', $file;
		open STDERR, '>&', \*STDOUT;
		# (A server hands what it inherits to the connections that it makes.)
		$ENV{PGAPPNAME} = 'bench' if !$as;
		exec @prefix, @command or POSIX::_exit(127);
	}
	($running, $may_be_ended) = ($pid, !$as);
	while (waitpid($pid, POSIX::WNOHANG()) == 0)
	{
		select undef, undef, undef, 0.1;
		$Bench::Session::tick->() if $Bench::Session::tick;
	}
	my $status = $?;
	$running = undef;
	open my $log, '<', $file or die "$file: $!\n";
	my $text = do { local $/; <$log> } // '';
	die "failed: @command\n$text\n" if $status;
	return $text;
}

sub start
{
	my (%setting) = @_;
	$pglogical = $setting{pglogical};
	for my $side (qw(a b))
	{
		run(['server'], 'initdb', '-D', "$work/$side", qw(-U bench -A trust --encoding=UTF8 --locale=C.UTF-8 -N));
		my $plugins = join ', ', 'pgoutput', 'test_decoding', 'bdr', $setting{pglogical} ? 'pglogical_output' : ();
		my $libraries = $setting{pglogical} ? 'pglogical, bdr' : 'bdr';
		open my $conf, '>>', "$work/$side/postgresql.conf" or die "$work/$side/postgresql.conf: $!\n";
		# wal_retrieve_retry_interval: a native subscription that is enabled again starts at once. No autovacuum and no
		# checkpoint by time: they would hit one run and not the other.
		print $conf <<CONF;
listen_addresses = ''
unix_socket_directories = '$work'
port = $port{$side}
cluster_name = '$side'
fsync = on
wal_level = logical
track_commit_timestamp = on
shared_preload_libraries = '$libraries'
shared_buffers = 512MB
max_wal_size = 8GB
checkpoint_timeout = 1h
autovacuum = off
max_connections = 200
max_worker_processes = 200
max_replication_slots = 200
max_wal_senders = 200
max_logical_replication_workers = 24
max_sync_workers_per_subscription = 4
max_locks_per_transaction = 512
wal_retrieve_retry_interval = 100ms
CONF
		print $conf "output_plugin_libraries = '$plugins'\n" if $knows_plugin_list;
		print $conf "$_\n" for @{ $setting{lines} };
		close $conf;
		# Servers take what their programs print for themselves: without a log file of its own pg_ctl would keep our pipe open.
		run(['server'], 'pg_ctl', '-D', "$work/$side", '-l', "$work/$side.log", '-w', '-t', 120, 'start');
	}
}

sub stop
{
	# We may have been interrupted while a server was being made or started: nothing of that may go on after us.
	if ($running)
	{
		kill 'TERM', $running if $may_be_ended;
		waitpid $running, 0;
	}
	%session = ();
	for my $side (qw(a b))
	{
		eval { run(['server'], 'pg_ctl', '-D', "$work/$side", '-m', 'immediate', '-w', 'stop') } if -f "$work/$side/postmaster.pid";
	}
}

sub dsn { return "host=$work port=$port{$_[0]} dbname=$_[1] user=bench" }

sub new_session
{
	my ($side, $db) = @_;
	return Bench::Session->new(psql => "$bindir/psql", host => $work, port => $port{$side}, db => $db);
}

sub session
{
	my ($side, $db) = @_;
	my $known = $session{"$side $db"};
	return $known && !$known->{gone} ? $known : ($session{"$side $db"} = new_session($side, $db));
}

sub sql { my ($side, $db, $sql) = @_; return session($side, $db)->query($sql) }

sub create_database
{
	my ($side, $db, $template) = @_;
	# Files of a template that is not small are copied faster than logged.
	sql($side, 'postgres', "CREATE DATABASE $db" . ($template ? " TEMPLATE $template STRATEGY file_copy" : ''));
}

sub drop_database
{
	my ($side, $db) = @_;
	delete $session{"$side $db"};
	# pglogical's supervisor never lets DROP DATABASE end.
	sql($side, 'postgres', "DROP DATABASE IF EXISTS $db WITH (FORCE)") if !$pglogical;
}

sub pgbench
{
	my ($side, $db, @options) = @_;
	return run('pgbench', '-h', $work, '-p', $port{$side}, '-U', 'bench', @options, $db);
}

# Structure of a database of A into the same one of B.
sub copy_structure
{
	my ($db, $target) = @_;
	$target //= $db;
	run('pg_dump', '-s', '-h', $work, '-p', $port{a}, '-U', 'bench', '-f', "$work/structure.sql",
		'--no-publications', '--no-subscriptions', $db);
	run('psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-h', $work, '-p', $port{b}, '-U', 'bench', '-f', "$work/structure.sql", $target);
}

sub log_ends
{
	my $text = '';
	for my $side (qw(a b))
	{
		open my $log, '<', "$work/$side.log" or next;
		my @lines = <$log>;
		splice @lines, 0, -15 if @lines > 15;
		$text .= "--- end of the log of $side\n" . join '', @lines;
	}
	return $text;
}

1;
