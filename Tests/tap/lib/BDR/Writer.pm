# A client that writes to a node for as long as it is let, and remembers what was acknowledged: each row that it was told to
# be committed has to be on every node in the end, once.
#
# It ends by itself at the first error: when the node refuses writes (it is being parted) or its server is gone; or connects again
# then, if it is told to.

package BDR::Writer;

use strict;
use warnings FATAL => 'all';

use POSIX ();
use PostgreSQL::Test::Utils ();
use Time::HiRes qw(usleep);

my $number = 0;

# What the writers need, to be created before the first one is started.
our $tables = <<'SQL';
CREATE TABLE written (writer int, id int, node text);
CREATE TABLE last_written (writer int PRIMARY KEY, id int, note text);
SQL

# start(NODE, %options)
#   pause      microseconds between two transactions (default 10000)
#   reconnect  connect again after an error; a transaction that failed is not tried again
sub start
{
	my ($class, $node, %options) = @_;
	my $self = bless { number => ++$number, node => $node }, $class;
	$self->{file} = PostgreSQL::Test::Utils::tempdir() . "/writer_$number";
	my @psql = (
		'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-h', $node->host, '-p', $node->port, '-d', $node->db);
	my $pause = $options{pause} // 10_000;
	my $name = $node->name;
	$self->{pid} = fork // die "fork: $!";
	if ($self->{pid} == 0)
	{
		my $stop = 0;
		local $SIG{TERM} = sub { $stop = 1; };
		local $SIG{PIPE} = 'IGNORE';
		open STDOUT, '>>', $self->{file};
		open STDERR, '>>', "$self->{file}.err";
		my $pipe;
		for (my $id = 1; !$stop; $id++)
		{
			if (!$pipe)
			{
				open $pipe, '|-', @psql or POSIX::_exit(2);
				$pipe->autoflush(1);
			}
			# A third of the transactions writes another table as well, with a row that changes again and again.
			my $more =
			  $id % 3
			  ? ''
			  : "WITH u AS (INSERT INTO last_written VALUES ($number, $id, '$name') ON CONFLICT (writer) DO UPDATE SET id = EXCLUDED.id) ";
			if (!print $pipe "${more}INSERT INTO written VALUES ($number, $id, '$name') RETURNING id;\n")
			{
				last if !$options{reconnect};
				close $pipe;
				$pipe = undef;
				usleep(100_000);
			}
			usleep($pause);
		}
		close $pipe if $pipe;
		POSIX::_exit(0);
	}
	return $self;
}

# Lets it end after the statement that runs; to be called once. Gives back how many rows were acknowledged.
sub finish
{
	my ($self) = @_;
	kill 'TERM', $self->{pid};
	waitpid $self->{pid}, 0;
	delete $self->{pid};
	return scalar $self->acknowledged;
}

sub number { return $_[0]->{number}; }
sub node { return $_[0]->{node}; }

# The ids that were acknowledged so far; in scalar context their number.
sub acknowledged
{
	my ($self) = @_;
	my @ids;
	if (open my $in, '<', $self->{file})
	{
		@ids = map { /^(\d+)$/ ? $1 : () } <$in>;
	}
	return @ids;
}

sub error
{
	my ($self) = @_;
	my $file = "$self->{file}.err";
	return -s $file ? PostgreSQL::Test::Utils::slurp_file($file) : '';
}

# count(NODE, WRITERS): how many rows these writers were acknowledged, and how many of them are missing or more than once on
# a node.
sub count
{
	my ($node, @writers) = @_;
	my %result = (acknowledged => 0, lost => 0, doubled => 0);
	$result{doubled} = $node->sql('SELECT count(*) FROM (SELECT FROM written GROUP BY writer, id HAVING count(*) > 1) x');
	for my $writer (@writers)
	{
		my %there = map { $_ => 1 } split /\n/, $node->sql("SELECT DISTINCT id FROM written WHERE writer = $writer->{number}");
		for my $id ($writer->acknowledged)
		{
			$result{acknowledged}++;
			$result{lost}++ unless $there{$id};
		}
	}
	return \%result;
}

sub DESTROY
{
	my ($self) = @_;
	kill 'KILL', $self->{pid} if $self->{pid};
	return;
}

1;
