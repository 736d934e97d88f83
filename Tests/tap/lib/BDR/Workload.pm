# Random writes by sessions on all nodes, of which everything is remembered; and what the tables have to be afterwards.
#
# Each session is a process with a random number generator of its own: the statements depend on nothing but the seed and the
# session's name (what they meet depends on timing). A psql executes them; its output is the session's history: the
# statements, what each left behind in which key (its RETURNING), and the commit time of each transaction. So at rest
#   - all nodes have to have the same rows, and
#   - each key has to be as its latest operation left it, by (commit time, node id), be it a row or no row.
# Keys that a transaction touched whose end is not known, as its server was killed, are exempt from the second.
#
# The keys in use move on, so that what went wrong with one is not covered by what comes later.
#
# Last-update-wins has an answer for each of these tables, as no two rows can ever want the same unique value:
#   plain      an integer key
#   toasty     values that are stored out of line, changed one without the other
#   keyed      rows change their keys, and swap them in one transaction, and take values out of line along
#   coded      a second unique column, whose values belong to one key each (key * 10 + 0 .. 9)
#   named      a text key, which changes as well
#   measured   a numeric key that is written as 5, 5.0 or 5.00, and changes from one of them to another
#   composite  a key of three columns, which change as well
#   fullrow    REPLICA IDENTITY FULL, with values out of line

package BDR::Workload;

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Digest::MD5 ();
use POSIX ();
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(usleep);

# For each table: columns; what tells keys apart; what shows a row; the key literals; SET lists. In these, $tag is what
# tells which statement wrote the value, and $key a number from 0.
my $big = sub { my ($tag, $rng) = @_; return "repeat(md5('$tag'), " . (80 + $rng->below(150)) . ')'; };
my %table = (
	plain => {
		columns => 'id int PRIMARY KEY, note text, n int NOT NULL DEFAULT 0',
		key => 'id::text', shown => 'note, n',
		names => 'id', literal => sub { $_[0] + 1 },
		insert => sub { my ($tag) = @_; return ('note', "'$tag'") },
		set => sub { my ($tag, $rng) = @_; return ("note = '$tag'", "n = t.n + 1", "note = '$tag', n = 0")[ $rng->below(3) ] },
	},
	toasty => {
		columns => 'id int PRIMARY KEY, small text, big text, other text',
		more => 'ALTER TABLE toasty ALTER big SET STORAGE EXTERNAL; ALTER TABLE toasty ALTER other SET STORAGE EXTERNAL',
		key => 'id::text', shown => "small, left(md5(t.big), 6) || '*' || length(t.big), left(md5(t.other), 6) || '*' || length(t.other)",
		names => 'id', literal => sub { $_[0] + 1 },
		insert => sub { my ($tag, $rng) = @_; return ('small, big, other', "'$tag', " . $big->($tag, $rng) . ', ' . $big->("$tag other", $rng)) },
		set => sub {
			my ($tag, $rng) = @_;
			return (
				"small = '$tag'", "small = '$tag'",
				'big = ' . $big->($tag, $rng), "small = '$tag', big = " . $big->($tag, $rng),
				'other = ' . $big->($tag, $rng), "small = '$tag', big = 'short $tag'")[ $rng->below(6) ];
		},
	},
	keyed => {
		columns => 'id int PRIMARY KEY, note text, big text',
		more => 'ALTER TABLE keyed ALTER big SET STORAGE EXTERNAL',
		key => 'id::text', shown => "note, left(md5(t.big), 6) || '*' || length(t.big)", moves => 1,
		names => 'id', literal => sub { $_[0] + 1 }, spare => sub { -$_[0] },
		insert => sub { my ($tag, $rng) = @_; return ('note, big', "'$tag', " . $big->($tag, $rng)) },
		set => sub { my ($tag, $rng) = @_; return ("note = '$tag'", "note = '$tag'", 'big = ' . $big->($tag, $rng))[ $rng->below(3) ] },
	},
	coded => {
		columns => 'id int PRIMARY KEY, code int UNIQUE, note text',
		key => 'id::text', shown => 'code, note',
		names => 'id', literal => sub { $_[0] + 1 },
		insert => sub { my ($tag, $rng, $key) = @_; return ('code, note', (($key + 1) * 10 + $rng->below(10)) . ", '$tag'") },
		set => sub { my ($tag, $rng) = @_; return ("note = '$tag'", "note = '$tag', code = t.id * 10 + " . $rng->below(10))[ $rng->below(2) ] },
	},
	named => {
		columns => 'id text PRIMARY KEY, note text',
		key => 'id', shown => 'note', moves => 1,
		names => 'id', literal => sub { quote_literal('nämë-' . ('x' x ($_[0] % 30)) . $_[0]) }, spare => sub { "'spare-$_[0]'" },
		insert => sub { my ($tag) = @_; return ('note', "'$tag'") },
		set => sub { my ($tag) = @_; return "note = '$tag'" },
	},
	measured => {
		columns => 'id numeric PRIMARY KEY, note text',
		key => 'trim_scale(t.id)::text', shown => 'id, note',
		names => 'id', literal => sub { ($_[0] + 1) . ('', '.0', '.00')[ $_[1]->below(3) ] },
		insert => sub { my ($tag) = @_; return ('note', "'$tag'") },
		set => sub { my ($tag, $rng) = @_; return "note = '$tag'" . ('', '', ', id = round(t.id, ' . $rng->below(4) . ')')[ $rng->below(3) ] },
	},
	composite => {
		columns => "a int, note text, b text, c date, PRIMARY KEY (b, c, a)",
		key => "t.a || '/' || t.b || '/' || t.c", shown => 'note', moves => 1,
		names => 'a, b, c', literal => sub { my ($k) = @_; return ($k % 3) . ", 'b" . ($k % 5) . "', date '2020-01-01' + " . int($k / 3) },
		spare => sub { "$_[0], 'spare', date '1999-01-01'" },
		insert => sub { my ($tag) = @_; return ('note', "'$tag'") },
		set => sub { my ($tag) = @_; return "note = '$tag'" },
	},
	fullrow => {
		columns => 'id int PRIMARY KEY, note text, big text',
		more => 'ALTER TABLE fullrow REPLICA IDENTITY FULL; ALTER TABLE fullrow ALTER big SET STORAGE EXTERNAL',
		key => 'id::text', shown => "note, left(md5(t.big), 6) || '*' || length(t.big)",
		names => 'id', literal => sub { $_[0] + 1 },
		insert => sub { my ($tag, $rng) = @_; return ('note, big', "'$tag', " . $big->($tag, $rng)) },
		set => sub { my ($tag, $rng) = @_; return ("note = '$tag'", "note = '$tag', big = " . $big->($tag, $rng))[ $rng->below(2) ] },
	});

sub all_tables { return sort keys %table; }

# new(%options)
#   seed     what all is derived from
#   tables   names (default all)
#   keys     number of keys of each table that are in use at a time
#   verbs    the kinds of statements: insert upsert update delete replace move swap (default all)
sub new
{
	my ($class, %options) = @_;
	my $self = bless { sessions => [], verbs => [qw(insert upsert update delete replace move swap)], keys => 30, tables => [ all_tables() ], %options }, $class;
	$self->{dir} = PostgreSQL::Test::Utils::tempdir();
	return $self;
}

# All sessions move on to the next key after this many transactions.
my $pace = 3;
# So many keys have rows at first, or two thirds of them have.
my $rows = 500;

sub structure
{
	my ($self) = @_;
	my $rng = BDR::Workload::Random->new("$self->{seed} rows");
	# what makes transactions so large that they are applied while they are in progress
	my $sql = "CREATE TABLE ballast (made text, i int, filler text, PRIMARY KEY (made, i));\n";
	for my $name (@{ $self->{tables} })
	{
		$sql .= "CREATE TABLE $name ($table{$name}{columns}); " . ($table{$name}{more} // '') . ";\n";
		for my $key (0 .. $rows - 1)
		{
			my ($columns, $values) = $table{$name}{insert}->('first', $rng, $key);
			$sql .= "INSERT INTO $name ($table{$name}{names}, $columns) VALUES (@{[$table{$name}{literal}->($key, $rng)]}, $values);\n"
			  if $key % 3 || !grep { $_ eq 'insert' } @{ $self->{verbs} };
		}
	}
	return $sql;
}

# What a statement did, for RETURNING: the row it left, after, for a move, the key that it left.
sub _left
{
	my ($name, $from) = @_;
	my $left = "'W $name ' || $table{$name}{key} || ' ' || concat_ws(' ', $table{$name}{shown})";
	return $left unless defined $from;
	return "'D $name ' || (SELECT $table{$name}{key} FROM (VALUES ($from)) t ($table{$name}{names})) || chr(10) || $left";
}

# One random statement (or the three of a swap) on a table. Before each goes a line that names the keys.
sub _statement
{
	my ($self, $rng, $session, $tag, $from) = @_;
	my $name = $self->{tables}[ $rng->below(scalar @{ $self->{tables} }) ];
	my $t = $table{$name};
	my @verbs = grep { !/^(?:move|swap)$/ || $t->{moves} } @{ $self->{verbs} };
	my $verb = $verbs[ $rng->below(scalar @verbs) ];
	my $many = $rng->below(5) == 0 ? 2 + $rng->below(4) : 1;
	my %seen;
	my @keys = grep { !$seen{$_}++ } map { $from + $rng->below($self->{keys}) } 1 .. ($verb =~ /^(?:move|swap)$/ ? 2 : $many);
	my @literals = map { $t->{literal}->($_, $rng) } @keys;
	my $named = join "\n", map { "\\echo K $name @{[_key_text($name, $_)]}" } @keys;
	my $where = "($t->{names}) IN (" . join(', ', map { "($_)" } @literals) . ')';
	my $set = $t->{set}->($tag, $rng);
	my @values = map { $t->{insert}->($tag, $rng, $_) } @keys;
	my $columns = $values[0];
	my $insert = "INSERT INTO $name AS t ($t->{names}, $columns) VALUES " . join(', ', map { "($literals[$_], $values[2 * $_ + 1])" } 0 .. $#keys);
	my $left = _left($name);
	my $deleted = "DELETE FROM $name t WHERE $where RETURNING 'D $name ' || $t->{key};";
	return "$named\n$insert RETURNING $left;\n" if $verb eq 'insert';
	return "$named\n$insert ON CONFLICT ($t->{names}) DO UPDATE SET $set RETURNING $left;\n" if $verb eq 'upsert';
	return "$named\nUPDATE $name t SET $set WHERE $where RETURNING $left;\n" if $verb eq 'update';
	return "$named\n$deleted\n" if $verb eq 'delete';
	return "$named\n$deleted\n$insert RETURNING $left;\n" if $verb eq 'replace';
	return '' if @keys < 2;
	my $move = sub {
		my ($from, $to, $set) = @_;
		return "UPDATE $name t SET ($t->{names}) = ROW ($to)$set WHERE ($t->{names}) = ($from) RETURNING " . _left($name, $from) . ";\n";
	};
	return "$named\n" . $move->(@literals, rand_set($rng, $set)) if $verb eq 'move';
	my $spare = $t->{spare}->($session);
	return "$named\n\\echo K $name @{[_key_text($name, undef, $session)]}\n" . $move->($literals[0], $spare, '') . $move->($literals[1], $literals[0], '')
	  . $move->($spare, $literals[1], rand_set($rng, $set));
}

sub rand_set { my ($rng, $set) = @_; return $rng->below(2) ? ", $set" : ''; }

# The key as the server will show it.
sub _key_text
{
	my ($name, $key, $session) = @_;
	my $literal = defined $key ? $table{$name}{literal}->($key, BDR::Workload::Random->new(0)) : $table{$name}{spare}->($session);
	return POSIX::strftime("$1/$2/%Y-%m-%d", 0, 0, 0, 1 + ($4 // 0), 0, $3 - 1900)
	  if $literal =~ /^(\d+), '(\w+)', date '(\d+)-01-01'(?: \+ (\d+))?$/;
	$literal =~ s/^'(.*)'$/$1/;
	$literal =~ s/\.0+$//;
	return $literal;
}

# A transaction as psql reads it. T begins it, C ends it with its commit time (none: rolled back); S and R are savepoints
# and returns to them.
sub _transaction
{
	my ($self, $rng, $session, $number) = @_;
	my $text = "\\echo T $session.$number\nBEGIN;\nSELECT pg_current_xact_id()::xid AS x \\gset\n";
	my $statement = 0;
	my $from = int($number / $pace);
	my $some = sub {
		my ($most) = @_;
		return join '', map { $self->_statement($rng, $session, 's' . "$session.$number." . ++$statement, $from) } 1 .. 1 + $rng->below($most);
	};
	my $is_large = $rng->below(8) == 0;
	$text .= $some->(1) if $is_large && $rng->below(2);
	$text .= "INSERT INTO ballast SELECT '$session.$number', i, repeat('-', 100) FROM generate_series(1, 400) i;\n" if $is_large;
	$text .= $some->($rng->below(3) ? 1 : 4);
	if ($rng->below(5) == 0)
	{
		$text .= "SAVEPOINT one;\n\\echo S\n" . $some->(2);
		$text .= "ROLLBACK TO one;\n\\echo R\n" if $rng->below(2);
		$text .= $some->(2);
	}
	$text .= $rng->below(20) ? "COMMIT;\n" : "ROLLBACK;\n";
	return $text . "SELECT 'C ' || COALESCE((extract(epoch FROM pg_xact_commit_timestamp(:'x'))::numeric * 1000000)::bigint::text, 'none');\n";
}

# Begins to write to a node with this many sessions.
#   pause   longest pause between two transactions, in microseconds
#   after   number of transactions to begin after (position), so that it writes the keys that others are at
sub start
{
	my ($self, $node, $count, %options) = @_;
	for (1 .. $count)
	{
		my $number = @{ $self->{sessions} } + 1;
		my $session = { number => $number, node => $node, file => "$self->{dir}/session_$self->{seed}_$number" };
		push @{ $self->{sessions} }, $session;
		my @psql = (qw(psql -X -A -t -e -h), $node->host, '-p', $node->port, '-d', $node->db);
		$session->{pid} = fork // die "fork: $!";
		next if $session->{pid};
		my $stop = 0;
		local $SIG{TERM} = sub { $stop = 1; };
		local $SIG{PIPE} = 'IGNORE';
		open STDOUT, '>>', $session->{file};
		open STDERR, '>&', \*STDOUT;
		my $rng = BDR::Workload::Random->new("$self->{seed} session $number");
		my ($pipe, $id) = (undef, $options{after} // 0);
		until ($stop)
		{
			unless ($pipe)
			{
				open $pipe, '|-', @psql or POSIX::_exit(2);
				$pipe->autoflush(1);
				print $pipe "SET lock_timeout = '5s';\n";
			}
			# Its server was stopped: what was sent and not executed is gone, and the next transaction is tried.
			unless (print $pipe $self->_transaction($rng, $number, ++$id))
			{
				close $pipe;
				undef $pipe;
				usleep(100_000);
			}
			usleep($rng->below($options{pause} // 20_000));
		}
		close $pipe if $pipe;
		POSIX::_exit(0);
	}
	return;
}

# The number of the last transaction that is known to have begun in the session that has come furthest.
sub position
{
	my ($self) = @_;
	my $position = 0;
	for my $session (@{ $self->{sessions} })
	{
		my $text = -e $session->{file} ? slurp_file($session->{file}) : '';
		$position = $1 if $text =~ /.*^T \d+\.(\d+)$/ms && $1 > $position;
	}
	return $position;
}

# Ends all sessions, each after what was sent to it.
sub finish
{
	my ($self) = @_;
	my @running = grep { $_->{pid} } @{ $self->{sessions} };
	kill 'TERM', map { $_->{pid} } @running;
	waitpid delete $_->{pid}, 0 for @running;
	return;
}

# Reads the histories: { transactions (in the order of each session), operations (of each key), unknown (keys) }.
sub history
{
	my ($self) = @_;
	my %history = (transactions => [], operations => {}, unknown => {}, committed => 0, rolled_back => 0, cut_off => 0);
	for my $session (@{ $self->{sessions} })
	{
		my $current;
		my $end = sub {
			my $t = $current or return;
			undef $current;
			push @{ $history{transactions} }, $t;
			my $time = $t->{time};
			if (!defined $time)
			{
				$history{cut_off}++;
				$history{unknown}{$_} = 1 for keys %{ $t->{keys} };
			}
			elsif ($time eq 'none') { $history{rolled_back}++; }
			else
			{
				$history{committed}++;
				push @{ $history{operations}{ $_->{key} } }, { %$_, time => $time, node => $session->{node}, transaction => $t } for @{ $t->{done} };
			}
		};
		open my $in, '<', $session->{file} or next;
		while (my $line = <$in>)
		{
			chomp $line;
			if ($line =~ /^T (\S+)$/)
			{
				$end->();
				$current = { name => $1, node => $session->{node}, done => [], keys => {}, text => '' };
				next;
			}
			next unless $current;
			if ($line =~ /^K (\S+ \S+)$/) { $current->{keys}{$1} = 1; }
			elsif ($line =~ /^D (\S+ \S+)$/) { push @{ $current->{done} }, { key => $1 }; }
			elsif ($line =~ /^W (\S+ \S+) ?(.*)$/) { push @{ $current->{done} }, { key => $1, row => $2 }; }
			elsif ($line eq 'S') { $current->{savepoint} = @{ $current->{done} }; }
			elsif ($line eq 'R') { splice @{ $current->{done} }, $current->{savepoint}; }
			elsif ($line =~ /^C (none|\d+)$/) { $current->{time} = $1; $end->(); next; }
			$current->{text} .= "$line\n" unless $line =~ /^(?:SELECT '?(?:C|pg_current)|[KSR]\b)/;
		}
		$end->();
	}
	return \%history;
}

# The rows of a table on a node: key => { row, whole, stamp }.
sub rows
{
	my ($node, $name) = @_;
	my $t = $table{$name};
	my %rows;
	for my $line (split /\n/, $node->sql("SELECT $t->{key}, concat_ws(' ', $t->{shown}), md5(t::text), s.timestamp, COALESCE(o.roname, s.roident::text)
		FROM $name t, pg_xact_commit_timestamp_origin(t.xmin) s LEFT JOIN pg_replication_origin o ON o.roident = s.roident"))
	{
		my ($key, $row, $whole, @stamp) = split /\|/, $line;
		push @{ $rows{$key} }, { row => $row, whole => $whole, stamp => "@stamp" };
	}
	return \%rows;
}

# converged_ok(NODES, FIRST ROWS by table, TEST NAME): all nodes have the same rows, and those that the histories demand.
sub converged_ok
{
	my ($self, $nodes, $first, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $history = $self->history;
	my %id = map { split /\|/ } split /\n/, $nodes->[0]->sql('SELECT node_name, node_id FROM bdr.node_summary');
	my $good = 1;
	my $shown = 0;
	for my $name (@{ $self->{tables} })
	{
		my %rows = map { $_->name => rows($_, $name) } @$nodes;
		my %keys = map { $_ => 1 } map { keys %$_ } values %rows;
		/^\Q$name\E (.*)/ and $keys{$1} = 1 for keys %{ $history->{operations} };
		my (@different, @unlawful);
		for my $key (sort keys %keys)
		{
			my @found = map { $rows{ $_->name }{$key} // [] } @$nodes;
			# More than one row under a key only if its index is broken.
			my @states = map { join ' and ', sort map { $_->{whole} } @$_ } @found;
			if (grep { $_ ne $states[0] } @states) { push @different, $key; next; }
			next if $history->{unknown}{"$name $key"};
			my ($latest, @allowed);
			for my $operation (@{ $history->{operations}{"$name $key"} // [] })
			{
				my @version = ($operation->{time}, $id{ $operation->{node}->node_name });
				my $order = $latest ? $version[0] <=> $latest->[0] || $version[1] <=> $latest->[1] : 1;
				next if $order < 0;
				# Those of one transaction are in order. Of two in one microsecond, on one node, either.
				@allowed = () if $order > 0 || $allowed[-1]{transaction} == $operation->{transaction};
				$latest = \@version;
				push @allowed, $operation;
			}
			@allowed = { row => $first->{$name}{$key} ? $first->{$name}{$key}[0]{row} : undef } unless $latest;
			my $is = @{ $found[0] } ? $found[0][0]{row} : undef;
			push @unlawful, $key unless grep { defined $_->{row} ? defined $is && $is eq $_->{row} : !defined $is } @allowed;
		}
		ok(!@different, "$test: $name has the same rows on all nodes") or diag(scalar(@different) . ' keys differ');
		ok(!@unlawful, "$test: $name is as the latest operations left it") or diag(scalar(@unlawful) . ' keys are the same everywhere, and wrong');
		$good &&= !@different && !@unlawful;
		for my $key (@different, @unlawful)
		{
			last if ++$shown > ($ENV{BDR_SHOW} // 5);
			$self->show($history, $name, $key, $nodes, \%rows, $first->{$name}{$key});
		}
	}
	diag("$shown keys in all; BDR_SHOW=n shows the histories of more than 5") if $shown > 5;
	note("$test: $history->{committed} transactions committed, $history->{rolled_back} rolled back, of $history->{cut_off} the end is unknown");
	return $good;
}

# What is known about a key: its row on each node, and the last transactions that touched it (of these, what is about its table).
sub show
{
	my ($self, $history, $name, $key, $nodes, $rows, $first) = @_;
	diag("--- seed $self->{seed}: $name, key $key");
	for my $node (@$nodes)
	{
		my @found = @{ $rows->{ $node->name }{$key} // [] };
		diag('on ' . $node->name . ': ' . (@found ? join(' AND ', map { "$_->{row}   (committed $_->{stamp})" } @found) : 'no row'));
	}
	diag("at first: " . ($first ? $first->[0]{row} : 'no row'));
	my @about = grep { $_->{keys}{"$name $key"} && ($_->{time} // '') ne 'none' } @{ $history->{transactions} };
	@about = sort { ($a->{time} // 0) <=> ($b->{time} // 0) } @about;
	diag(scalar(@about) - 12 . ' earlier transactions') if @about > 12;
	for my $t (splice @about, @about > 12 ? -12 : 0)
	{
		my $time = defined $t->{time} ? POSIX::strftime('%H:%M:%S', gmtime($t->{time} / 1e6)) . sprintf('.%06d', $t->{time} % 1e6) : 'UNKNOWN';
		diag("$time " . $t->{node}->name . " transaction $t->{name}:");
		diag('    ' . substr($_, 0, 300)) for grep { /^(?:SAVEPOINT one|ROLLBACK)|\b\Q$name\E\b|ERROR|DETAIL|lost/ } split /\n/, $t->{text};
	}
	return;
}

sub DESTROY
{
	my ($self) = @_;
	kill 'KILL', $_->{pid} for grep { $_->{pid} } @{ $self->{sessions} };
	return;
}

package BDR::Workload::Random;

# The same numbers on every machine and in every version of Perl.

use strict;
use warnings FATAL => 'all';

sub new
{
	my ($class, $seed) = @_;
	my $state = unpack 'N', Digest::MD5::md5($seed);
	return bless \$state, $class;
}

# 0 .. $bound - 1
sub below
{
	my ($self, $bound) = @_;
	$$self = ($$self * 1664525 + 1013904223) % 4294967296;
	return int($$self / 65536) % $bound;
}

1;
