# One psql that stays connected. Statements are sent, and their answer awaited at once or later; while waiting, a callback
# runs every tenth of a second, which is when CPU seconds and memory of the servers' processes are read.
package Bench::Session;
use strict;
use warnings;
use IPC::Open3;
use IO::Select;
use Time::HiRes qw(time);

our $tick;                      # code that runs while an answer is awaited
our $deadline = 1800;           # seconds that one answer may take

sub new
{
	my ($class, %self) = @_;    # psql, host, port, db
	my $self = bless \%self, $class;
	# The application's name keeps what we do ourselves out of the CPU seconds of replication.
	local $ENV{PGAPPNAME} = 'bench';
	local $ENV{PGOPTIONS} = '-c client_min_messages=error';
	$self->{pid} = open3(my $in, my $out, undef, $self->{psql}, qw(-X -q -A -t -v ON_ERROR_STOP=1 -v VERBOSITY=verbose),
		'-h', $self->{host}, '-p', $self->{port}, '-U', 'bench', '-d', $self->{db}, '-f', '-');
	$in->autoflush(1);
	@$self{qw(in out)} = ($in, $out);
	return $self;
}

sub send
{
	my ($self, $sql) = @_;
	local $SIG{PIPE} = 'IGNORE';
	$sql =~ s/;?\s*$/;/;
	print { $self->{in} } "$sql\n\\echo --end--\n";
	$self->{sent} = $sql;
}

# The answer of what was sent: lines, columns parted by |.
sub receive
{
	my ($self) = @_;
	my $select = IO::Select->new($self->{out});
	my $until = time + $deadline;
	my $text = '';
	until ($text =~ s/^--end--\n\z//m)
	{
		if (!$select->can_read(0.1))
		{
			$tick->() if $tick;
			next if time < $until;
			# Its answer must not be taken for that of the next statement.
			kill 'TERM', $self->{pid};
			$self->close;
			die "no answer within $deadline s: $self->{sent}\n";
		}
		if (!sysread($self->{out}, $text, 65536, length $text))
		{
			waitpid $self->{pid}, 0;
			$self->{gone} = 1;
			chomp $text;
			die "$self->{db} (port $self->{port}): $text\nin: " . substr($self->{sent}, 0, 300) . "\n";
		}
	}
	chomp $text;
	return $text;
}

sub query
{
	my ($self, $sql) = @_;
	$self->send($sql);
	return $self->receive;
}

sub close
{
	my ($self) = @_;
	return if $self->{gone}++;
	CORE::close $self->{in};
	waitpid $self->{pid}, 0;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $@);
	$self->close;
}

1;
