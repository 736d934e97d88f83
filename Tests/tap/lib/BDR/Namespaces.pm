# A network of servers each of which has a network namespace of its own, with an address in it, and is connected with the
# others by a bridge. Its links can be cut, for the kernel, not for a proxy as in BDR::Link.
#
#   plan(skip_all => $_) for grep { $_ } BDR::Namespaces->refused;
#   my $net = BDR::Namespaces->new;
#   my $a = $net->node('a', %options of BDR::Node->create, tcp => settings for each connection string of it);
#   $net->cut($a);                   its interface is down: there is no network for it, and no host for the others
#   $net->cut($a, $b);               packets between the two vanish
#   $net->cut($a, $b, 'one way');    what $a sends to $b vanishes, and not what $b sends to $a
#   $net->heal(...);                 with the same arguments
#
# A call returns when it holds. The test reaches all servers through their unix sockets, whatever is cut.
#
# That takes CAP_SYS_ADMIN and CAP_NET_ADMIN, which everybody has in a user namespace of his own. Where such are forbidden
# (always within a chroot), scripts/check, run as root, offers a keeper at the socket BDR_NAMESPACES.

package BDR::Namespaces;

use strict;
use warnings FATAL => 'all';

use BDR::Namespaces::Keeper;
use BDR::Node;
use IO::Handle;
use IO::Socket::UNIX;
use POSIX ();
use Socket;

my @own_space = qw(unshare --user --map-current-user --keep-caps --net --);

# Why there can be no network namespaces; '' if there can.
sub refused
{
	return '' if $ENV{BDR_NAMESPACES};
	local $ENV{PATH} = "$ENV{PATH}:/usr/sbin:/sbin";
	eval {
		BDR::Namespaces::Keeper::command('ip', '-V');
		BDR::Namespaces::Keeper::command(@own_space, 'sh', '-c', 'ip link add hub type bridge && ip link add one type veth peer name two');
		1;
	} and return '';
	my $why = $@;
	$why =~ s/\s*\n\s*/ /g;
	return "no network namespaces ($why): needs iproute2, and root or unprivileged user namespaces";
}

sub new
{
	my ($class) = @_;
	my $self = bless { test => $$ }, $class;
	if ($ENV{BDR_NAMESPACES})
	{
		$self->{control} = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $ENV{BDR_NAMESPACES}) or die "$ENV{BDR_NAMESPACES}: $!";
	}
	else
	{
		socketpair($self->{control}, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die "socketpair: $!";
		my $pid = fork // die "fork: $!";
		if ($pid == 0)
		{
			open STDIN, '+<&', $theirs or POSIX::_exit(1);
			exec @own_space, BDR::Namespaces::Keeper::program(), qw(setpriv --ambient-caps=-all --inh-caps=-all --) or POSIX::_exit(1);
		}
		$self->{pid} = $pid;
	}
	$self->{control}->autoflush(1);
	$self->_ask('hub');
	return $self;
}

# The keeper ends when nobody can give it commands any more.
sub DESTROY
{
	my ($self) = @_;
	local ($?, $!);
	return if $self->{test} != $$;
	close $self->{control};
	waitpid $self->{pid}, 0 if $self->{pid};
	return;
}

sub _ask
{
	my ($self, @words) = @_;
	print { $self->{control} } join("\t", @words) . "\n" or die "the keeper of namespaces is gone";
	my $answer = readline($self->{control}) // die 'the keeper of namespaces is gone';
	chomp $answer;
	$answer =~ s/^ok\t// or die "the keeper of namespaces: $answer";
	return $answer;
}

# A node whose server is in a namespace of its own.
sub node
{
	my ($self, $name, %options) = @_;
	my $start = delete $options{start} // 1;
	my $tcp = delete $options{tcp} // {};
	my $node = BDR::Namespaces::Node->create($name, %options, start => 0);
	$node->{bdr_net} = $self;
	$node->{bdr_tcp} = $tcp;
	$node->{bdr_address} = $self->_ask('node', $name);
	$node->append_conf('postgresql.conf', "listen_addresses = '$node->{bdr_address}'");
	$node->append_conf('pg_hba.conf', 'host all all 10.99.0.0/24 trust');
	if ($start)
	{
		$node->start;
		$node->create_database;
	}
	return $node;
}

sub cut { return shift->_links([ 'down', 'drop' ], @_); }
sub heal { return shift->_links([ 'up', 'pass' ], @_); }

sub _links
{
	my ($self, $verbs, $one, $other, $how) = @_;
	die "unknown way of cutting: $how" if defined $how && $how ne 'one way';
	return $self->_ask($verbs->[0], $one->name) unless defined $other;
	$self->_ask($verbs->[1], $one->name, $other->name);
	$self->_ask($verbs->[1], $other->name, $one->name) unless defined $how;
	return;
}

package BDR::Namespaces::Node;

use strict;
use warnings FATAL => 'all';

use parent -norequire, 'BDR::Node';

sub address { return $_[0]->{bdr_address}; }

sub dsn
{
	my ($self, %further) = @_;
	return $self->SUPER::dsn(host => $self->address, %{ $self->{bdr_tcp} }, %further);
}

# Runs a command in the namespace of the node; gives back what it prints, in one line.
sub inside
{
	my ($self, @command) = @_;
	return $self->{bdr_net}->_ask('run', $self->name, @command);
}

# The server is started by the keeper, in the namespace; everything else finds it by its process id and unix socket.
sub start
{
	my ($self, @params) = @_;
	no warnings 'redefine';
	local *PostgreSQL::Test::Utils::system_log = sub {
		my @env = map { "$_=$ENV{$_}" } grep { $ENV{$_} !~ /[\t\n]/ } keys %ENV;
		eval { $self->inside('env', '-i', @env, @_); 1 } and return 0;
		print "# $@\n";
		return 1;
	};
	return $self->SUPER::start(@params);
}

sub restart
{
	my ($self) = @_;
	$self->stop('fast');
	return $self->start;
}

1;
