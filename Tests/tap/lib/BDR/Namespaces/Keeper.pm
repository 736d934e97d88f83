# The process that makes network namespaces and cuts links for a test (BDR::Namespaces), as it has the capabilities that the
# test has not. Nothing has a name outside: when it ends, because the test has ended, and the servers in the namespaces have,
# all is gone.
#
# It runs in the namespace of a bridge to which all nodes are connected, and takes commands from its standard input, a socket.
# As it may run as root, and whoever gives the commands does not, it knows only these few.

package BDR::Namespaces::Keeper;

use strict;
use warnings FATAL => 'all';

use File::Spec;
use IO::Socket::UNIX;
use POSIX ();

# A MAC address that nobody has.
my $nobody = '02:00:00:00:00:ff';

my $file = File::Spec->rel2abs(__FILE__);

# The command that is a keeper; what is added to it is a command that gives up privileges.
sub program { return ($^X, '-e', 'require shift; BDR::Namespaces::Keeper->main(@ARGV)', $file); }

# main(COMMAND THAT GIVES UP PRIVILEGES)
sub main
{
	my ($class, @unprivileged) = @_;
	$ENV{PATH} = '/usr/sbin:/sbin:/usr/bin:/bin';
	open my $control, '+<&=', 0 or die "standard input: $!";
	my $self = bless { unprivileged => \@unprivileged, nodes => {} }, $class;
	local $SIG{PIPE} = 'IGNORE';
	while (defined(my $line = readline $control))
	{
		chomp $line;
		my ($verb, @arguments) = split /\t/, $line;
		my $answer = eval {
			die "no such command: $verb\n" unless $verb =~ /^(?:hub|node|run|down|up|drop|pass)$/;
			$self->$verb(@arguments) // '';
		};
		$answer = defined $answer ? "ok\t$answer" : "failed\t$@";
		$answer =~ s/\s*\n\s*/ | /g;
		syswrite $control, "$answer\n";
	}
	return;
}

# Runs a command; gives back what it printed, or dies with that.
sub command
{
	my (@command) = @_;
	my $pid = open(my $out, '-|') // die "fork: $!\n";
	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDERR, '>&', \*STDOUT;
		{ no warnings 'exec'; exec { $command[0] } @command; }
		syswrite STDOUT, "$!";
		POSIX::_exit(127);
	}
	my $text = join '', <$out>;
	close $out or die "@command: $text\n";
	return $text;
}

sub known
{
	my ($self, $name) = @_;
	return $self->{nodes}{$name} // die "no such node: $name\n";
}

sub inside
{
	my ($self, $name, @command) = @_;
	return command('nsenter', '--net=/proc/' . $self->known($name)->{pid} . '/ns/net', '--', @command);
}

sub hub
{
	command(qw(ip link add hub type bridge));
	command(qw(ip link set hub up));
	return;
}

# Gives back the address of the node.
sub node
{
	my ($self, $name) = @_;
	die "not a name for a new node: $name\n" if $name !~ /^[a-z0-9_]{1,12}$/ || $self->{nodes}{$name};
	my $address = '10.99.0.' . (1 + keys %{ $self->{nodes} });
	# A process that ends with this one holds the namespace.
	pipe my $wait, my $held or die "pipe: $!\n";
	pipe my $ready, my $tell or die "pipe: $!\n";
	my $pid = fork // die "fork: $!\n";
	if ($pid == 0)
	{
		open STDIN, '<&', $wait;
		open STDOUT, '>&', $tell;
		exec 'unshare', '--net', '--', 'sh', '-c', 'echo ready; exec cat' or POSIX::_exit(127);
	}
	close $tell;
	die "no network namespace\n" unless defined readline $ready;
	$self->{nodes}{$name} = { pid => $pid, address => $address, held => $held };
	command('ip', 'link', 'add', "to_$name", 'type', 'veth', 'peer', 'name', 'eth0', 'netns', $pid);
	command('ip', 'link', 'set', "to_$name", 'master', 'hub', 'up');
	$self->inside($name, 'ip', 'address', 'add', "$address/24", 'dev', 'eth0');
	$self->inside($name, 'ip', 'link', 'set', $_, 'up') for qw(lo eth0);
	return $address;
}

# A command in the namespace of a node, without privileges.
sub run
{
	my ($self, $name, @command) = @_;
	return $self->inside($name, @{ $self->{unprivileged} }, @command);
}

sub down
{
	my ($self, $name) = @_;
	return $self->inside($name, 'ip', 'link', 'set', 'eth0', 'down');
}

sub up
{
	my ($self, $name) = @_;
	return $self->inside($name, 'ip', 'link', 'set', 'eth0', 'up');
}

# What one node sends to another one goes to nobody.
sub drop
{
	my ($self, $from, $to) = @_;
	return $self->inside($from, 'ip', 'neigh', 'replace', $self->known($to)->{address}, 'lladdr', $nobody, 'nud', 'permanent', 'dev', 'eth0');
}

sub pass
{
	my ($self, $from, $to) = @_;
	return $self->inside($from, 'ip', 'neigh', 'del', $self->known($to)->{address}, 'dev', 'eth0');
}

# serve(PATH, USER): for root. Starts a keeper, with a namespace of its own, for each connection to a socket of the user.
sub serve
{
	my ($class, $path, $user) = @_;
	my (undef, undef, $uid, $gid) = getpwnam $user or die "no user \"$user\"\n";
	my $old = umask 0177;
	my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM, Local => $path, Listen => 10) or die "$path: $!\n";
	umask $old;
	chown $uid, $gid, $path or die "$path: $!\n";
	local $SIG{CHLD} = 'IGNORE';
	while (1)
	{
		my $client = $socket->accept or next;
		my $pid = fork // die "fork: $!\n";
		if ($pid == 0)
		{
			open STDIN, '+<&', $client or POSIX::_exit(1);
			exec 'unshare', '--net', '--', program(), 'runuser', '-u', $user, '--' or POSIX::_exit(1);
		}
		close $client;
	}
	return;
}

1;
