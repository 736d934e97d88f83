# What was measured, as a table, as JSON and as an SVG bar chart. Native logical replication is what others are compared
# with: a ratio above 1 means that the other is faster.
package Bench::Report;
use strict;
use warnings;
use JSON::PP;

# Lines of the report in order. better: less or more; target: of the ratio; cpu: whether the target of CPU
# seconds is for it; per: CPU seconds are given for so many transactions.
our @lines = (
	{ name => 'insert', title => 'INSERT transaction: commit to visible', unit => 's', target => 3, cpu => 1 },
	{ name => 'insert_total', title => 'INSERT transaction: begin to visible, less the statement alone', unit => 's', target => 10 },
	{ name => 'update', title => 'UPDATE transaction: commit to visible', unit => 's', target => 2, cpu => 1 },
	{ name => 'delete', title => 'DELETE transaction: commit to visible', unit => 's', target => 2, cpu => 1 },
	{ name => 'backlog', title => 'backlog of pgbench -N', unit => 'tps', better => 'more', target => 2, per => 100_000, cpu => 1 },
	{ name => 'latency_p50', title => 'single rows: commit to visible, median', unit => 'ms', target => 1 },
	{ name => 'latency_p99', title => 'single rows: commit to visible, 99 of 100', unit => 'ms', target => 1 },
	{ name => 'upstream', title => 'pgbench TPC-B on the origin', unit => 'tps', better => 'more', target => 1, per => 100_000 },
	{ name => 'join', title => 'copy of a pgbench database', unit => 's', target => 2 },
	{ name => 'memory_value', title => 'one large value', unit => 's' },
	{ name => 'memory_rows', title => 'very large INSERT transaction', unit => 's' },
	{ name => 'growth_base', title => 'small transactions, one table', unit => 'tps', better => 'more', per => 100_000 },
	{ name => 'growth_tables', title => 'small transactions, many tables', unit => 'tps', better => 'more', per => 100_000 },
	{ name => 'growth_partitions', title => 'small transactions, many partitions', unit => 'tps', better => 'more', per => 100_000 },
	{ name => 'growth_peers', title => 'small transactions, many peers', unit => 'tps', better => 'more', per => 100_000 },
);
my $cpu_target = 0.5;

sub new { my ($class, %self) = @_; return bless { runs => {}, failures => [], %self }, $class }

# One measurement: value, cpu_a, cpu_b, mb_a, mb_b (the last four may be missing), count: of transactions.
sub add
{
	my ($self, $line, $system, %got) = @_;
	my ($known) = grep { $_->{name} eq $line } @lines;
	if ($known->{per} && $got{count}) { $_ = $_ * $known->{per} / $got{count} for grep { defined } @got{qw(cpu_a cpu_b)} }
	push @{ $self->{runs}{$line}{$system} }, {%got};
	my $text = sprintf '%-18s %-20s %10s %s', $line, $system, number($got{value}), $known->{unit};
	$text .= sprintf ', CPU %.2f + %.2f s, %.0f + %.0f MB', @got{qw(cpu_a cpu_b mb_a mb_b)} if defined $got{cpu_a};
	print STDERR "$text\n";
}

sub fail
{
	my ($self, $text) = @_;
	push @{ $self->{failures} }, $text;
	print STDERR "FAILED: $text\n";
}

sub number { my ($n) = @_; return sprintf abs($n) >= 1000 ? '%.0f' : abs($n) >= 100 ? '%.1f' : '%.3f', $n }

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return undef if !@sorted;
	return ($sorted[($#sorted) / 2] + $sorted[@sorted / 2]) / 2;
}

# For each line and system: min, median, max, ratio, medians of CPU seconds, largest memory, and shares of native's.
sub summary
{
	my ($self) = @_;
	my @summary;
	for my $line (@lines)
	{
		my $runs = $self->{runs}{ $line->{name} } or next;
		my $more = ($line->{better} // 'less') eq 'more';
		my $native;
		for my $system (grep { $runs->{$_} } @{ $self->{systems} })
		{
			my @of = @{ $runs->{$system} };
			my @values = sort { $a <=> $b } map { $_->{value} } @of;
			my %row = (line => $line->{name}, title => $line->{title}, system => $system, unit => $line->{unit},
				min => $values[0], median => median(@values), max => $values[-1], best => $values[$more ? -1 : 0]);
			for my $what (qw(cpu_a cpu_b))
			{
				my @got = grep { defined } map { $_->{$what} } @of;
				$row{$what} = median(@got) if @got;
			}
			for my $what (qw(mb_a mb_b))
			{
				my @got = sort { $a <=> $b } grep { defined } map { $_->{$what} } @of;
				$row{$what} = $got[-1] if @got;
			}
			$native = \%row if $system eq 'native';
			if ($native && $system ne 'native')
			{
				my ($upper, $lower) = $more ? ($row{best}, $native->{best}) : ($native->{best}, $row{best});
				# Begin to visible less the statement alone may come out as nothing at all.
				$row{ratio} = $upper / ($lower > 0.01 ? $lower : 0.01);
				for my $what (qw(cpu_a cpu_b))
				{
					$row{"share_$what"} = $row{$what} / $native->{$what} if defined $row{$what} && $native->{$what};
				}
				if ($system =~ /^bdr/)
				{
					$row{target} = $line->{target};
					$row{cpu_target} = $cpu_target if $line->{cpu};
					$row{reached} = $row{ratio} >= $line->{target} ? JSON::PP::true : JSON::PP::false if $line->{target};
				}
			}
			push @summary, \%row;
		}
	}
	return @summary;
}

sub table
{
	my ($self) = @_;
	my ($before, @late) = ('');
	my $text = sprintf "\n%-18s %-20s %9s %9s %9s %-4s %7s %-12s %14s %14s %7s %7s\n", 'workload', 'system', 'min', 'median', 'max',
		'', 'ratio', 'target', 'CPU s, A', 'CPU s, B', 'MB, A', 'MB, B';
	for my $row ($self->summary)
	{
		my $cpu = sub {
			my ($what) = @_;
			return '' if !defined $row->{$what};
			my $share = $row->{"share_$what"};
			return sprintf '%.2f%s', $row->{$what}, defined $share ? sprintf ' (%.2f)', $share : '';
		};
		$text .= sprintf "%-18s %-20s %9s %9s %9s %-4s %7s %-12s %14s %14s %7s %7s\n", $row->{line} eq $before ? '' : $row->{line},
			$row->{system}, (map { number($row->{$_}) } qw(min median max)), $row->{unit},
			defined $row->{ratio} ? sprintf('%.2f', $row->{ratio}) : '',
			defined $row->{target} ? ">= $row->{target} " . ($row->{reached} ? 'yes' : 'NO') : '',
			$cpu->('cpu_a'), $cpu->('cpu_b'), map { defined $row->{$_} ? sprintf '%.0f', $row->{$_} : '' } qw(mb_a mb_b);
		$before = $row->{line};
		next if !defined $row->{cpu_target};
		for (qw(a b))
		{
			push @late, sprintf '%s %s on %s (%.2f)', $row->{line}, $row->{system}, uc, $row->{"share_cpu_$_"}
				if defined $row->{"share_cpu_$_"} && $row->{"share_cpu_$_"} > $cpu_target;
		}
	}
	$text .= "\nratio: how many times as fast as native, best run against best run; CPU s: median, in parentheses the share of native's\n";
	$text .= "(backlog, upstream, growth: for 100,000 transactions); A: the origin, B: where changes are applied; MB: peak of private memory\n";
	$text .= "CPU target, at most $cpu_target of native's on each side for insert, update, delete and backlog: " . (@late ? 'not reached by ' . join(', ', @late) : 'reached') . "\n";
	$text .= "FAILED: $_\n" for @{ $self->{failures} };
	return $text;
}

sub json
{
	my ($self) = @_;
	return JSON::PP->new->pretty->canonical->encode({
		about => $self->{about}, runs => $self->{runs}, summary => [ $self->summary ], failures => $self->{failures} });
}

# Bars of the ratios, on a logarithmic scale: native is the line at 1, a small line across a bar the target.
sub svg
{
	my ($self) = @_;
	my @rows = grep { $_->{ratio} && $_->{ratio} > 0 } $self->summary;
	my ($low, $high) = (0.5, 4);
	for (@rows)
	{
		$low /= 2 while $_->{ratio} < $low && $low > 1 / 64;
		$high *= 2 while ($_->{ratio} > $high || ($_->{target} // 0) > $high) && $high < 1024;
	}
	my ($left, $width, $step, $top) = (330, 560, 24, 60);
	my $height = $top + $step * @rows + 40;
	my $x = sub {
		my ($ratio) = @_;
		$ratio = $low if $ratio < $low;
		$ratio = $high if $ratio > $high;
		return sprintf '%.1f', $left + $width * log($ratio / $low) / log($high / $low);
	};
	my $escape = sub { return $_[0] =~ s/&/&amp;/gr =~ s/</&lt;/gr };
	my $total = $left + $width + 80;
	my $svg = qq{<svg xmlns="http://www.w3.org/2000/svg" width="$total" height="$height" viewBox="0 0 $total $height" } .
		qq{font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n} .
		qq{<text x="12" y="24" font-size="16">How many times as fast as native logical replication</text>\n} .
		qq{<text x="12" y="42" fill="#555">} . $escape->($self->{about}{what} // '') . qq{</text>\n};
	for (my $mark = $low; $mark <= $high; $mark *= 2)
	{
		my $at = $x->($mark);
		my $bottom = $top + $step * @rows;
		my $colour = $mark == 1 ? '#000' : '#ddd';
		$svg .= qq{<line x1="$at" y1="$top" x2="$at" y2="$bottom" stroke="$colour"/>\n};
		$svg .= sprintf qq{<text x="%s" y="%d" text-anchor="middle">%s</text>\n}, $at, $bottom + 16, $mark >= 1 ? $mark : '1/' . 1 / $mark;
	}
	my $y = $top;
	for my $row (@rows)
	{
		my ($from, $to) = sort { $a <=> $b } $x->(1), $x->($row->{ratio});
		my $colour = $row->{system} !~ /^bdr/ ? '#b0b0b0' : !defined $row->{target} ? '#4f81bd' : $row->{reached} ? '#4c9a4c' : '#d98032';
		$svg .= sprintf qq{<text x="%d" y="%d" text-anchor="end">%s</text>\n}, $left - 8, $y + 16, $escape->("$row->{line}: $row->{system}");
		$svg .= sprintf qq{<rect x="%s" y="%d" width="%.1f" height="%d" fill="%s"><title>%s</title></rect>\n}, $from, $y + 4,
			$to - $from, $step - 8, $colour, $escape->("$row->{title}: " . number($row->{best}) . " $row->{unit}");
		$svg .= sprintf qq{<text x="%.1f" y="%d">%.2f</text>\n}, $to + 5, $y + 16, $row->{ratio};
		if ($row->{target})
		{
			my $at = $x->($row->{target});
			$svg .= sprintf qq{<line x1="%s" y1="%d" x2="%s" y2="%d" stroke="#c00" stroke-width="2"/>\n}, $at, $y + 2, $at, $y + $step - 2;
		}
		$y += $step;
	}
	$svg .= sprintf qq{<text x="12" y="%d" fill="#555">red line: target. Bars: best run against best run; to the right of 1 is faster</text>\n},
		$top + $step * @rows + 34;
	return "$svg</svg>\n";
}

1;
