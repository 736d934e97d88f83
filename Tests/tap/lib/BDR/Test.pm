# Setting up groups of two nodes, waiting until both have everything, and comparing what they hold.

package BDR::Test;

use strict;
use warnings FATAL => 'all';

use BDR::Node;
use Exporter 'import';
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(node_pair create_first_node join_node wait_caught_up same_ok same_rows logs_ok plugin_list_known wait_until
  replicating_ok start_pgbench look_at_processes quote_literal quote_ident slurp_file);

sub quote_literal { return BDR::Node::quote_literal(@_); }
sub quote_ident { return BDR::Node::quote_ident(@_); }
sub slurp_file { return PostgreSQL::Test::Utils::slurp_file(@_); }

# Does the server know output_plugin_libraries (minor versions of 2026 and later)?
sub plugin_list_known
{
	my ($node) = @_;
	return $node->safe_psql('postgres', "SELECT count(*) FROM pg_settings WHERE name = 'output_plugin_libraries'") eq '1';
}

# Makes the node the first of a new group.
sub create_first_node
{
	my ($node, %options) = @_;
	my $group = $options{group} // 'the_node_group';
	$node->sql('CREATE EXTENSION bdr CASCADE');
	$node->sql("SELECT bdr.create_node(node_name := @{[quote_literal($node->node_name)]},
		local_dsn := @{[quote_literal($options{dsn} // $node->dsn)]})");
	$node->sql("SELECT bdr.create_node_group(node_group_name := @{[quote_literal($group)]})");
	$node->sql('SELECT bdr.wait_for_join_completion()');
	return;
}

# Lets a node join the group of the target.
sub join_node
{
	my ($node, $target, %options) = @_;
	my $structure = $options{synchronize_structure} // 'all';
	$node->sql('CREATE EXTENSION bdr CASCADE');
	$node->sql("SELECT bdr.create_node(node_name := @{[quote_literal($node->node_name)]},
		local_dsn := @{[quote_literal($options{dsn} // $node->dsn)]})");
	$node->sql("SELECT bdr.join_node_group(join_target_dsn := @{[quote_literal($options{target_dsn} // $target->dsn)]},
		wait_for_completion := true, synchronize_structure := '$structure')",
		timeout => $PostgreSQL::Test::Utils::timeout_default);
	return;
}

# node_pair(%options): two servers whose databases form a group. Options:
#   conf, conf_a, conf_b      postgresql.conf lines of both, or of one
#   db, db_a, db_b            database names (db1)
#   preload                   shared_preload_libraries
#   setup, setup_b            SQL run in A (B) before it becomes a node
#   structure                 'none': B keeps the structure that setup_b made
#   node_name_a, node_name_b  (node_a, node_b)
sub node_pair
{
	my (%options) = @_;
	my @nodes;
	for my $side (qw(a b))
	{
		my %for_node = (
			db => $options{"db_$side"} // $options{db} // 'db1',
			conf => join("\n", grep { defined } $options{conf}, $options{"conf_$side"}));
		$for_node{preload} = $options{preload} if defined $options{preload};
		$for_node{node_name} = $options{"node_name_$side"} if defined $options{"node_name_$side"};
		push @nodes, BDR::Node->create($side, %for_node);
	}
	my ($a, $b) = @nodes;
	$a->sql($options{setup}) if defined $options{setup};
	create_first_node($a);
	$b->sql($options{setup_b}) if defined $options{setup_b};
	join_node($b, $a, synchronize_structure => $options{structure});
	return ($a, $b);
}

# wait_until(CODE, %options): polls until CODE is true or the deadline has passed; gives back the last value.
sub wait_until
{
	my ($code, %options) = @_;
	my $end = time + ($options{timeout} // $PostgreSQL::Test::Utils::timeout_default);
	my $value;
	while (!($value = $code->()))
	{
		return $value if time > $end;
		usleep(50_000);
	}
	return $value;
}

# start_pgbench(NODE, SCRIPT, OPTIONS): runs the script again and again, until it gets an INT. Returns the process.
sub start_pgbench
{
	my ($node, $script, @options) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/pgbench';
	open my $out, '>', "$file.sql" or die "$file.sql: $!";
	print $out $script;
	close $out;
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		open STDOUT, '>', "$file.out";
		open STDERR, '>&', \*STDOUT;
		exec 'pgbench', '-n', '-T', '3600', @options, '-f', "$file.sql", '-h', $node->host, '-p', $node->port, $node->db;
	}
	return $pid;
}

# wait_caught_up(NODE, NODE, %options): until each has applied and flushed all that the other has committed so far. Fails
# a test and shows the state of both if it takes longer than the deadline; true when they are.
sub wait_caught_up
{
	my ($a, $b, %options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	for my $node ($a, $b)
	{
		my $lsn = $node->commit_position;
		my $done = $node->wait_for(
			"SELECT count(*) > 0 AND bool_and(confirmed_flush_lsn >= '$lsn') FROM pg_replication_slots
			 WHERE plugin = 'bdr' AND database = current_database() AND slot_name IS DISTINCT FROM bdr.local_group_slot_name()", 't', %options);
		next if $done;
		fail('the peer of ' . $node->name . " has everything up to $lsn");
		$_->show_state for ($a, $b);
		return 0;
	}
	return 1;
}

sub digest
{
	my ($node, $query) = @_;
	return $node->sql("SELECT count(*), md5(string_agg(d, '' ORDER BY d)) FROM
		(SELECT md5(x::text) COLLATE \"C\" AS d FROM ($query) x) y");
}

# Same rows of a table (or query) on both nodes, whatever their order; a short difference is shown.
sub same_rows
{
	my ($a, $b, $table, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $query = $table =~ /^\s*SELECT\b/i ? $table : "SELECT * FROM $table";
	my ($digest_a, $digest_b) = map { digest($_, $query) } ($a, $b);
	return pass($name) if $digest_a eq $digest_b;
	fail($name);
	my @digests = map { [ split /\n/, $_->sql("SELECT md5(x::text) FROM ($query) x") ] } ($a, $b);
	my %more;    # on the first node than on the second
	$more{$_}++ for @{ $digests[0] };
	$more{$_}-- for @{ $digests[1] };
	diag("rows: $digest_a and $digest_b");
	for ([ $a, grep { $more{$_} > 0 } sort keys %more ], [ $b, grep { $more{$_} < 0 } sort keys %more ])
	{
		my ($node, @only) = @$_;
		my $list = join ',', map { "'$_'" } @only[ 0 .. ($#only > 19 ? 19 : $#only) ];
		my $rows = @only ? $node->sql("SELECT left(x::text, 200) FROM ($query) x WHERE md5(x::text) IN ($list) ORDER BY 1") : '';
		diag(scalar(@only) . ' only on ' . $node->name . ":\n$rows");
	}
	return 0;
}

# Waits until both have everything and compares a table.
sub same_ok
{
	my ($a, $b, $table, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return wait_caught_up($a, $b) && same_rows($a, $b, $table, $name);
}

# Both directions of a pair are streaming.
sub replicating_ok
{
	my ($a, $b, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $good = 1;
	for my $node ($a, $b)
	{
		$good &&= $node->wait_for('SELECT string_agg(DISTINCT subscription_status, \',\') FROM bdr.subscription_summary',
			'replicating');
	}
	ok($good, $name) or map { $_->show_state } ($a, $b);
	return $good;
}

# look_at_processes(NEEDLE, SEEN): counts in $SEEN->{programs} which of pg_dump and pg_restore are at work, and adds to
# $SEEN->{betrayed} the command lines that show the needle. psql, which a test runs itself, may.
sub look_at_processes
{
	my ($needle, $seen) = @_;
	for my $file (glob '/proc/[0-9]*/cmdline')
	{
		my $in;
		next unless open $in, '<', $file;
		local $/;
		my $line = <$in> // '';
		close $in;
		$line =~ tr/\0/ /;
		$seen->{programs}{$1}++ if $line =~ m{^(?:\S*/)?(pg_dump|pg_restore) };
		push @{ $seen->{betrayed} }, $line if $line =~ /$needle/ && $line !~ /psql/;
	}
	return;
}

# No process of the servers has crashed or failed an assertion; to be called at the end of a test that kills none itself.
sub logs_ok
{
	my (@nodes) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	for my $node (@nodes)
	{
		my @bad = grep { /PANIC:|TRAP:|was terminated by signal|Fatal error:|leaked|still referenced|stack traceback/ }
		  split /\n/, slurp_file($node->logfile);
		ok(!@bad, 'log of ' . $node->name . ' shows no crash and no leak') or diag(join "\n", splice(@bad, 0, 10));
	}
	return;
}

1;
