# The high-availability set-up around nodes: an agent for each, a real HAProxy and a real PgBouncer, with the files that
# bdrctl ha-config writes.

package BDR::HA;

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use IPC::Run ();
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(time usleep);

# missing(): programs that are not there.
sub missing
{
	local $ENV{PATH} = "$ENV{PATH}:/usr/sbin:/usr/local/sbin";
	return grep { my $program = $_; !grep { -x "$_/$program" } split /:/, $ENV{PATH} } qw(haproxy pgbouncer socat bdrctl);
}

# run_bdrctl(ARGUMENTS): gives back exit code, standard output, standard error.
sub run_bdrctl
{
	my (@arguments) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'bdrctl', @arguments ], '<', \undef, '>', \$out, '2>', \$err,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return ($? >> 8, $out, $err);
}

# new(NODES, %options): starts everything; the first node gets the traffic. Nodes listen on 127.0.0.1.
#   check     agent (default) or external
#   dsn_node  node that bdrctl asks (default the first)
sub new
{
	my ($class, $nodes, %options) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	# sockets have short paths only
	my $short = PostgreSQL::Test::Utils::tempdir_short();
	my $self = bless { nodes => $nodes, dir => "$dir/ha", pids => {}, short => $short, config => "$dir/ha/bdrctl.conf" }, $class;
	$self->{port} = PostgreSQL::Test::Cluster::get_free_port();
	$self->{proxy_port} = PostgreSQL::Test::Cluster::get_free_port();
	$self->{socket} = "$short/admin.sock";
	my $check = $options{check} // 'agent';
	my $user = (getpwuid $<)[0];

	my $users = "$dir/users.txt";
	PostgreSQL::Test::Utils::append_to_file($users, qq("$user" ""\n));
	my ($status, $out, $err) = run_bdrctl(
		'ha-config', '--directory', $self->{dir}, '--unprivileged', '--check', $check, '--dsn', $nodes->[0]->dsn(host => '127.0.0.1'),
		'--socket', $self->{socket}, '--bind', '127.0.0.1', '--bind-port', $self->{proxy_port}, '--proxy-host', '127.0.0.1',
		'--pool-address', '127.0.0.1', '--pool-port', $self->{port}, '--pool-socket-directory', $short,
		'--pool-auth-type', 'trust', '--pool-auth-file', $users, '--pool-admin', $user, '--check-user', $user,
		map { ('--node', $_->node_name . '=127.0.0.1:' . $_->port) } @$nodes);
	die "ha-config: $err" if $status;
	my $haproxy = "$self->{dir}/haproxy.cfg";
	if ($check eq 'agent')
	{
		# All machines are one here, so agents have ports of their own.
		my $text = slurp_file($haproxy);
		for my $node (@$nodes)
		{
			my $port = $self->{agent_port}{ $node->node_name } = PostgreSQL::Test::Cluster::get_free_port();
			my $server = 'bdr_' . $node->node_name;
			$text =~ s/^(\s*server \Q$server\E \S+) check/$1 check port $port/m or die "no server $server in $haproxy";
			$self->start_agent($node);
		}
		unlink $haproxy;
		PostgreSQL::Test::Utils::append_to_file($haproxy, $text);
	}
	else
	{
		# HAProxy runs the check with this path only.
		my $text = slurp_file($haproxy);
		$text =~ s/external-check path "/external-check path "$ENV{PATH}:/;
		unlink $haproxy;
		PostgreSQL::Test::Utils::append_to_file($haproxy, $text);
	}
	$self->start('haproxy', 'haproxy', '-f', $haproxy);
	$self->start('pgbouncer', 'pgbouncer', "$self->{dir}/pgbouncer.ini");
	return $self;
}

sub start
{
	my ($self, $name, @command) = @_;
	local $ENV{PATH} = "$ENV{PATH}:/usr/sbin:/usr/local/sbin";
	my $log = "$self->{dir}/$name.out";
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', $log;
		open STDERR, '>&', \*STDOUT;
		exec @command or POSIX::_exit(127);
	}
	$self->{pids}{$name} = $pid;
	return;
}

sub stop
{
	my ($self, $name) = @_;
	my $pid = delete $self->{pids}{$name} or return;
	kill 'TERM', $pid;
	waitpid $pid, 0;
	return;
}

sub start_agent
{
	my ($self, $node) = @_;
	my $name = $node->node_name;
	return $self->start("agent_$name", 'bdrctl', 'agent', '--dsn', $node->dsn, '--port', $self->{agent_port}{$name}, '--interval',
		'0.2', '--max-lag', '1MB');
}

# What stands for a node where the load goes: PgBouncer.
sub endpoint
{
	my ($self) = @_;
	return bless { host => '127.0.0.1', port => $self->{port}, db => $self->{nodes}[0]->db, name => 'pgbouncer' }, 'BDR::HA::Endpoint';
}

# The name of the node that a client comes to; undefined if it comes to none.
sub serving
{
	my ($self) = @_;
	my ($out, $err);
	my $dsn = "host=127.0.0.1 port=$self->{port} dbname=@{[$self->{nodes}[0]->db]} connect_timeout=5";
	IPC::Run::run([ 'psql', '-XAtq', '-d', $dsn, '-c', 'SELECT node_name FROM bdr.local_node_summary' ], '<', \undef, '>', \$out,
		'2>', \$err, IPC::Run::timeout(60)) or return;
	chomp $out;
	return $out;
}

sub serving_ok
{
	my ($self, $expected, $name, %options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $got;
	my $good = wait_until(sub { ($got = $self->serving // '') eq $expected }, %options);
	return ok($good, $name) || diag("clients come to [$got]\n" . $self->state);
}

# HAProxy's command, by socat as the guide gives it.
sub proxy
{
	my ($self, $command) = @_;
	return $self->socat("$command\n", "UNIX-CONNECT:$self->{socket}");
}

# Sends a text to an address and gives back the answer.
sub socat
{
	my ($self, $text, $address) = @_;
	my ($out, $err) = ('', '');
	# nobody may listen there yet
	local $SIG{PIPE} = 'IGNORE';
	eval { IPC::Run::run([ 'socat', '-t', '5', 'stdio', $address ], '<', \$text, '>', \$out, '2>', \$err, IPC::Run::timeout(30)); 1 }
	  or $err .= $@;
	return $out ne '' ? $out : $err;
}

# PgBouncer's command.
sub pooler
{
	my ($self, $command) = @_;
	my ($out, $err);
	IPC::Run::run([ 'psql', '-XAtq', '-d', "host=127.0.0.1 port=$self->{port} dbname=pgbouncer", '-c', $command ], '<', \undef,
		'>', \$out, '2>', \$err, IPC::Run::timeout(60)) or return "error: $err";
	return $out;
}

# Pools sessions or transactions from now on. Nobody may be connected: connections keep the mode that they began with.
sub pool_mode
{
	my ($self, $mode) = @_;
	my $file = "$self->{dir}/pgbouncer.ini";
	my $text = slurp_file($file);
	$text =~ s/^pool_mode = .*$/pool_mode = $mode/m or die "no pool_mode in $file";
	unlink $file;
	PostgreSQL::Test::Utils::append_to_file($file, $text);
	my $answer = $self->pooler('RELOAD');
	die "RELOAD: $answer" if $answer ne '';
	return;
}

# A session of a client, through everything: ask() and quit().
sub session
{
	my ($self) = @_;
	my $session = bless { in => '', out => '', err => '' }, 'BDR::HA::Session';
	my $dsn = "host=127.0.0.1 port=$self->{port} dbname=@{[$self->{nodes}[0]->db]}";
	$session->{handle} = IPC::Run::start([ 'psql', '-XAtq', '-d', $dsn ], '<', \$session->{in}, '>', \$session->{out}, '2>', \$session->{err},
		IPC::Run::timeout(120));
	return $session;
}

# Status of a node's server in HAProxy.
sub server_status
{
	my ($self, $node) = @_;
	my $name = 'bdr_' . $node->node_name;
	for (split /\n/, $self->proxy('show stat'))
	{
		my @field = split /,/;
		return $field[17] if @field > 17 && $field[1] eq $name;
	}
	return '';
}

sub server_status_ok
{
	my ($self, $node, $expected, $name, %options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $got;
	return ok(wait_until(sub { ($got = $self->server_status($node)) =~ $expected }, %options), $name)
	  || diag("got [$got]\n" . $self->state);
}

# What the agent of a node answers: code and text.
sub ready
{
	my ($self, $node, $path) = @_;
	my $port = $self->{agent_port}{ $node->node_name };
	my $out = $self->socat("GET @{[$path // '/ready']} HTTP/1.0\r\n\r\n", "TCP:127.0.0.1:$port");
	return $out =~ m{^HTTP/1\.0 (\d+) .*?\r\n\r\n(.*)}s ? ($1, $2) : (0, $out);
}

sub state
{
	my ($self) = @_;
	my $state = $self->proxy('show stat') . $self->proxy('show table bk_db');
	for my $name (sort keys %{ $self->{pids} })
	{
		my $file = "$self->{dir}/$name.out";
		$state .= "$name: " . substr(-e $file ? slurp_file($file) : '', -1000) . "\n";
	}
	$state .= $self->pooler('SHOW POOLS');
	return $state;
}

sub switchover
{
	my ($self, @arguments) = @_;
	return run_bdrctl('switchover', '--config', $self->{config}, @arguments);
}

sub DESTROY
{
	my ($self) = @_;
	local $?;
	# in the order in which nobody misses anybody
	$self->stop($_) for sort { $b cmp $a } keys %{ $self->{pids} };
	return;
}

package BDR::HA::Endpoint;

sub host { return $_[0]->{host}; }
sub port { return $_[0]->{port}; }
sub db { return $_[0]->{db}; }
sub name { return $_[0]->{name}; }

package BDR::HA::Session;

# Gives back what a statement prints.
sub ask
{
	my ($self, $sql) = @_;
	$self->{out} = '';
	$self->{in} = "$sql;\n\\echo so far\n";
	$self->{handle}->pump until $self->{out} =~ /^so far$/m;
	return $self->{out} =~ s/\n?^so far\n//mr;
}

sub quit
{
	my ($self) = @_;
	$self->{in} = "\\q\n";
	return $self->{handle}->finish;
}

1;
