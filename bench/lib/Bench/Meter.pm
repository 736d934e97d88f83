# CPU seconds and memory of the processes that replicate one database: walsenders and workers, on a and on b apart. Whoever
# is connected as an application of ours is left out. Processes may come and go: read() is called often, and what a
# process had used when it was last seen counts.
package Bench::Meter;
use strict;
use warnings;
use POSIX ();
use Bench::Server;

my $ticks = POSIX::sysconf(POSIX::_SC_CLK_TCK());

sub new
{
	my ($class, @databases) = @_;
	my $self = bless { databases => \@databases }, $class;
	$self->{first} = 1;
	$self->read;
	$self->{first} = 0;
	return $self;
}

sub read
{
	my ($self) = @_;
	local $Bench::Session::tick;
	my $names = join ', ', map { "'$_'" } @{ $self->{databases} };
	for my $side (qw(a b))
	{
		# Autovacuum is not replication, nor are parallel workers of our own queries (they carry our name).
		my $pids = Bench::Server::sql($side, 'postgres', "SELECT pid FROM pg_stat_activity WHERE datname IN ($names)
			AND application_name <> 'bench' AND backend_type <> 'autovacuum worker'");
		my $kb = 0;
		for my $pid (split /\n/, $pids)
		{
			my $process = $self->{$side}{$pid} //= {};
			my $cpu = cpu($pid) // next;
			$process->{start} //= $self->{first} ? $cpu : 0;
			$process->{end} = $cpu;
			$kb += private_kb($pid);
		}
		$self->{kb}{$side} = $kb if $kb > ($self->{kb}{$side} // 0);
	}
}

sub cpu
{
	my ($pid) = @_;
	open my $stat, '<', "/proc/$pid/stat" or return undef;
	my $line = <$stat> // return undef;
	my @field = split ' ', $line =~ s/^.*\) //r;
	return ($field[11] + $field[12]) / $ticks;
}

# RssAnon: what the process has for itself. (Private_* of smaps_rollup would count pages of shared buffers that only this
# process has touched so far, and takes milliseconds during which the process can't get memory.)
sub private_kb
{
	my ($pid) = @_;
	open my $status, '<', "/proc/$pid/status" or return 0;
	while (my $line = <$status>) { return $1 if $line =~ /^RssAnon:\s+(\d+)/ }
	return 0;
}

# CPU seconds of a side since new().
sub seconds
{
	my ($self, $side) = @_;
	my $sum = 0;
	$sum += $_->{end} - $_->{start} for grep { defined $_->{end} } values %{ $self->{$side} };
	return $sum;
}

# Most that the processes of a side had together at any one time, in MB.
sub megabytes
{
	my ($self, $side) = @_;
	return ($self->{kb}{$side} // 0) / 1024;
}

1;
