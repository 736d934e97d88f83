# A network of links that can be cut, one for each pair of nodes: a process that forwards between sockets.
#
# All nodes have connection strings without a host, so libpq takes it from PGHOST, which is different in each server: a
# folder with a socket for every node, under the node's port. A node's own socket leads to itself; that of another one goes
# through the link of the two. So one string is right for everybody, and still each pair has a line of its own.
#
#   my $net = BDR::Link->new;
#   my $a = $net->node('a', %options of BDR::Node->create);
#   $net->cut($a, $b);               packets vanish: connections stay open, nothing passes, new ones get no answer
#   $net->cut($a, $b, 'reset');      connections break, new ones are refused
#   $net->heal($a, $b);              what was held back passes
#   $net->heal($a, $b, 'stale');     connections from before the cut never hear anything again; new ones work
#   $net->heal($a, $b, 'reset');     connections from before the cut break; new ones work
#
# A call returns when it holds.

package BDR::Link;

use strict;
use warnings FATAL => 'all';

use BDR::Node;
use Errno qw(EAGAIN EWOULDBLOCK EINTR);
use IO::Handle;
use IO::Select;
use IO::Socket::UNIX;
use POSIX ();
use PostgreSQL::Test::Utils ();
use Socket;

sub new
{
	my ($class) = @_;
	my $self = bless { dir => PostgreSQL::Test::Utils::tempdir_short(), nodes => [] }, $class;
	socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die "socketpair: $!";
	$self->{pid} = fork // die "fork: $!";
	if ($self->{pid} == 0)
	{
		close $ours;
		$SIG{PIPE} = 'IGNORE';
		eval { BDR::Link::Forwarder->new($theirs)->run; 1 } or print STDERR "# forwarder: $@";
		POSIX::_exit(0);
	}
	close $theirs;
	$ours->autoflush(1);
	$self->{control} = $ours;
	return $self;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $!);
	kill 'KILL', $self->{pid} if $self->{pid} && $self->{control};
	waitpid $self->{pid}, 0 if $self->{pid} && $self->{control};
	return;
}

sub _ask
{
	my ($self, @words) = @_;
	print { $self->{control} } join("\t", @words) . "\n" or die "the forwarder is gone";
	my $answer = readline($self->{control});
	die "the forwarder: " . ($answer // 'is gone') unless defined $answer && $answer eq "ok\n";
	return;
}

# A node whose server reaches the others over links; to be created before it is connected with any of them.
sub node
{
	my ($self, $name, %options) = @_;
	my $start = delete $options{start} // 1;
	my $node = BDR::Link::Node->create($name, %options, start => 0);
	my $home = $node->{bdr_link_home} = "$self->{dir}/$name";
	mkdir $home or die "$home: $!";
	symlink $node->host . '/.s.PGSQL.' . $node->port, "$home/.s.PGSQL." . $node->port or die $!;
	for my $other (@{ $self->{nodes} })
	{
		my $link = _name($node, $other);
		$self->_ask('listen', $link, "$home/.s.PGSQL." . $other->port, $other->host . '/.s.PGSQL.' . $other->port);
		$self->_ask('listen', $link, "$other->{bdr_link_home}/.s.PGSQL." . $node->port, $node->host . '/.s.PGSQL.' . $node->port);
	}
	push @{ $self->{nodes} }, $node;
	if ($start)
	{
		$node->start;
		$node->create_database;
	}
	return $node;
}

sub _name { return join '-', sort map { $_->name } @_; }

sub cut
{
	my ($self, $one, $other, $how) = @_;
	$self->_ask('cut', _name($one, $other), $how // 'silent');
	return;
}

sub heal
{
	my ($self, $one, $other, $how) = @_;
	$self->_ask('heal', _name($one, $other), $how // 'resume');
	return;
}

package BDR::Link::Node;

use strict;
use warnings FATAL => 'all';

use parent -norequire, 'BDR::Node';

# The string that is right on every node.
sub dsn
{
	my ($self, %further) = @_;
	my %part = (port => $self->port, dbname => $self->db, %further);
	return join ' ', map { "$_=$part{$_}" } sort keys %part;
}

sub start
{
	my ($self, @params) = @_;
	local $ENV{BDR_LINK_HOME} = $self->{bdr_link_home};
	return $self->SUPER::start(@params);
}

# Test::Cluster puts PGHOST of the node into the environment of what it runs; the server gets the one of its links.
sub _get_env
{
	my ($self, @params) = @_;
	my %env = $self->SUPER::_get_env(@params);
	$env{PGHOST} = $ENV{BDR_LINK_HOME} if $ENV{BDR_LINK_HOME};
	return wantarray ? %env : \%env;
}

package BDR::Link::Forwarder;

use strict;
use warnings FATAL => 'all';

use Errno qw(EAGAIN EWOULDBLOCK EINTR);
use Socket;

my $most = 262144;

sub new
{
	my ($class, $control) = @_;
	return bless { control => $control, listeners => {}, ends => {}, cut => {} }, $class;
}

sub run
{
	my ($self) = @_;
	while (1)
	{
		my ($read, $write) = ('', '');
		vec($read, fileno($self->{control}), 1) = 1;
		for my $fd (keys %{ $self->{listeners} })
		{
			vec($read, $fd, 1) = 1;
		}
		for my $fd (keys %{ $self->{ends} })
		{
			my $end = $self->{ends}{$fd};
			# While a link is cut, what was sent stays in the sender's buffers, as it would on a wire.
			next if $end->{stale} || $self->{cut}{ $end->{link} };
			vec($read, $fd, 1) = 1 if !$end->{eof} && length($end->{other}{out}) < $most;
			vec($write, $fd, 1) = 1 if length $end->{out};
		}
		my $found = select($read, $write, undef, undef);
		if ($found < 0)
		{
			next if $! == EINTR;
			die "select: $!";
		}
		for my $fd (keys %{ $self->{ends} })
		{
			my $end = $self->{ends}{$fd} or next;
			$self->write_end($end) if vec($write, $fd, 1);
			$self->read_end($end) if vec($read, $fd, 1) && $self->{ends}{$fd};
		}
		for my $fd (keys %{ $self->{listeners} })
		{
			$self->accept_at($self->{listeners}{$fd}) if vec($read, $fd, 1);
		}
		if (vec($read, fileno($self->{control}), 1))
		{
			defined(my $line = readline($self->{control})) or return;
			chomp $line;
			my ($verb, @arguments) = split /\t/, $line;
			$self->$verb(@arguments);
			syswrite $self->{control}, "ok\n";
		}
	}
	return;
}

sub listen
{
	my ($self, $link, $path, $target) = @_;
	my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM, Local => $path, Listen => 50) or die "$path: $!";
	$socket->blocking(0);
	$self->{listeners}{ fileno $socket } = { socket => $socket, link => $link, target => $target };
	return;
}

sub accept_at
{
	my ($self, $listener) = @_;
	my $client = $listener->{socket}->accept or return;
	my $cut = $self->{cut}{ $listener->{link} } // '';
	return close $client if $cut eq 'reset';
	my $server = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $listener->{target});
	return close $client unless $server;
	my ($one, $other) = map { { socket => $_, link => $listener->{link}, out => '', eof => 0, old => 0, stale => 0 } } ($client, $server);
	$_->{socket}->blocking(0) for ($one, $other);
	($one->{other}, $other->{other}) = ($other, $one);
	$self->{ends}{ fileno $_->{socket} } = $_ for ($one, $other);
	return;
}

sub read_end
{
	my ($self, $end) = @_;
	my $got = sysread $end->{socket}, my $bytes, 65536;
	if ($got)
	{
		$end->{other}{out} .= $bytes;
		return $self->write_end($end->{other});
	}
	return if !defined $got && ($! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR);
	# What it sent before is still delivered.
	$end->{eof} = 1;
	$self->drop($end) unless length $end->{other}{out};
	return;
}

sub write_end
{
	my ($self, $end) = @_;
	my $done = length $end->{out} ? syswrite $end->{socket}, $end->{out} : 0;
	if (!defined $done)
	{
		return if $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR;
		return $self->drop($end);
	}
	substr($end->{out}, 0, $done) = '';
	$self->drop($end) if $end->{other}{eof} && !length $end->{out};
	return;
}

sub drop
{
	my ($self, $end) = @_;
	for my $side ($end, $end->{other})
	{
		delete $self->{ends}{ fileno $side->{socket} };
	}
	close $_->{socket} for ($end, $end->{other});
	$end->{other}{other} = undef;
	return;
}

sub cut
{
	my ($self, $link, $how) = @_;
	$self->{cut}{$link} = $how;
	$_->{old} = 1 for grep { $_->{link} eq $link } values %{ $self->{ends} };
	$self->drop_all($link) if $how eq 'reset';
	return;
}

sub heal
{
	my ($self, $link, $how) = @_;
	delete $self->{cut}{$link};
	$self->drop_all($link) if $how eq 'reset';
	if ($how eq 'stale')
	{
		$_->{stale} = 1 for grep { $_->{link} eq $link && $_->{old} } values %{ $self->{ends} };
	}
	return;
}

sub drop_all
{
	my ($self, $link) = @_;
	for my $fd (keys %{ $self->{ends} })
	{
		my $end = $self->{ends}{$fd} or next;
		$self->drop($end) if $end->{link} eq $link;
	}
	return;
}

1;
