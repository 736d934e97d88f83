# What is compared: databases of one name on a and b between which one system replicates. Each kind knows how to connect
# them and how to stop and continue. Only the system that is measured runs; the others are stopped, and read the WAL
# that has been written meanwhile when they continue, which is not measured.
package Bench::System;
use strict;
use warnings;
use Time::HiRes qw(time sleep);
use Bench::Server;

# name: also that of its databases; label: in the report; kind: none, native, bdr or pglogical;
# options: of CREATE SUBSCRIPTION; settings, statements: of a bdr variant; targets: databases of B, if several receive.
sub new
{
	my ($class, %self) = @_;
	return bless { label => $self{name}, targets => [ $self{name} ], active => 0, %self }, $class;
}

sub a { my ($self, $sql) = @_; return Bench::Server::sql('a', $self->{name}, $sql) }
sub b { my ($self, $sql) = @_; return Bench::Server::sql('b', $self->{name}, $sql) }

# Makes both databases, has the code fill that of A, and connects them.
sub create
{
	my ($self, %how) = @_;      # template, fill, copy: whether rows are there that have to be copied
	Bench::Server::create_database('a', $self->{name}, $how{template});
	$how{fill}->($self) if $how{fill};
	$self->a('CREATE TABLE IF NOT EXISTS bench_marker (n bigint PRIMARY KEY)');
	return if $self->{kind} eq 'none';
	$self->prepare_a;
	for my $target (@{ $self->{targets} })
	{
		$self->prepare_b($target);
		$self->connect($target, $how{copy});
	}
	$self->{active} = 1;
	$self->sync;
}

sub prepare_a
{
	my ($self) = @_;
	if ($self->{kind} eq 'native')
	{
		$self->a('CREATE PUBLICATION bench FOR ALL TABLES');
	}
	elsif ($self->{kind} eq 'pglogical')
	{
		$self->pglogical_node('a', $self->{name});
		$self->a(q{SELECT pglogical.replication_set_add_table(CASE WHEN EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND
			indisprimary) THEN 'default' ELSE 'default_insert_only' END, c.oid)
			FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace});
	}
	elsif ($self->{kind} eq 'bdr')
	{
		$self->bdr_node('a', $self->{name});
		$self->a("SELECT bdr.create_node_group('bench'); SELECT bdr.wait_for_join_completion()");
	}
}

# All that is not part of what a user waits for when he has the rows copied.
sub prepare_b
{
	my ($self, $target) = @_;
	Bench::Server::create_database('b', $target);
	if ($self->{kind} eq 'native') { Bench::Server::copy_structure($self->{name}, $target) }
	elsif ($self->{kind} eq 'pglogical') { $self->pglogical_node('b', $target) }
	elsif ($self->{kind} eq 'bdr') { $self->bdr_node('b', $target) }
}

sub pglogical_node
{
	my ($self, $side, $db) = @_;
	my $dsn = Bench::Server::dsn($side, $db);
	Bench::Server::sql($side, $db, "CREATE EXTENSION pglogical; SELECT pglogical.create_node('${side}_$db', '$dsn')");
}

sub bdr_node
{
	my ($self, $side, $db) = @_;
	$self->set($side, $db);
	my $dsn = Bench::Server::dsn($side, $db);
	Bench::Server::sql($side, $db, "CREATE EXTENSION bdr CASCADE; SELECT bdr.create_node('${side}_$db', '$dsn')");
}

# Returns when the rows are copied (copy: native ones, too; the others always copy).
sub connect
{
	my ($self, $target, $copy) = @_;
	my $from = Bench::Server::dsn('a', $self->{name});
	if ($self->{kind} eq 'native')
	{
		my $options = join ', ', 'binary = true', $copy ? () : 'copy_data = false', @{ $self->{options} // [] };
		Bench::Server::sql('b', $target, "CREATE SUBSCRIPTION $target CONNECTION '$from' PUBLICATION bench WITH ($options)");
		until_true('b', $target, "SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel", 0.02);
	}
	elsif ($self->{kind} eq 'pglogical')
	{
		Bench::Server::sql('b', $target, "SELECT pglogical.create_subscription('$target', '$from',
			ARRAY['default', 'default_insert_only'], synchronize_structure := true)");
		Bench::Server::sql('b', $target, "SELECT pglogical.wait_for_subscription_sync_complete('$target')");
	}
	elsif ($self->{kind} eq 'bdr')
	{
		Bench::Server::sql('b', $target, "SELECT bdr.join_node_group('$from')");
		for (@{ $self->{statements} // [] })
		{
			$self->a($_) if $target eq $self->{targets}[0];
			Bench::Server::sql('b', $target, $_);
		}
	}
}

# Takes the connection away again, and the databases of B with it.
sub disconnect
{
	my ($self) = @_;
	for my $target (@{ $self->{targets} })
	{
		if ($self->{kind} eq 'native') { Bench::Server::sql('b', $target, "DROP SUBSCRIPTION $target") }
		elsif ($self->{kind} eq 'pglogical')
		{
			Bench::Server::sql('b', $target, "SELECT pglogical.drop_subscription('$target')");
		}
		elsif ($self->{kind} eq 'bdr')
		{
			$self->a("SELECT bdr.part_node('b_$target')");
			$self->a("SELECT bdr.drop_node('b_$target')");
		}
		Bench::Server::drop_database('b', $target);
	}
}

# Settings of a variant: kept with the database, which workers read when they start. Those that only the server's
# configuration can have are set while the variant runs.
sub set
{
	my ($self, $side, $db) = @_;
	for (@{ $self->{settings} // [] })
	{
		my ($name, $value) = @$_;
		my $context = Bench::Server::sql($side, 'postgres', "SELECT context FROM pg_settings WHERE name = lower('$name')");
		die "there is no setting $name\n" if $context eq '';
		die "$name can be set at server start only: use --server-setting\n" if $context =~ /^(?:postmaster|internal)$/;
		if ($context eq 'sighup') { $self->{of_server}{$name} = $value }
		else { Bench::Server::sql($side, 'postgres', "ALTER DATABASE $db SET $name = '$value'") }
	}
	$self->set_server($side, 1);
}

sub set_server
{
	my ($self, $side, $on) = @_;
	my $of_server = $self->{of_server} or return;
	Bench::Server::sql($side, 'postgres', "ALTER SYSTEM " . ($on ? "SET $_ = '$of_server->{$_}'" : "RESET $_")) for keys %$of_server;
	Bench::Server::sql($side, 'postgres', 'SELECT pg_reload_conf()');
}

sub switch
{
	my ($self, $on) = @_;
	my $word = $on ? 'enable' : 'disable';
	$self->{active} = $on;
	my @places = map { [ 'b', $_ ] } @{ $self->{targets} };
	push @places, [ 'a', $self->{name} ] if $self->{kind} eq 'bdr';
	for (@places)
	{
		my ($side, $db) = @$_;
		$self->set_server($side, $on) if $self->{kind} eq 'bdr';
		Bench::Server::sql($side, $db,
			$self->{kind} eq 'native' ? "ALTER SUBSCRIPTION $db $word"
			: $self->{kind} eq 'pglogical' ? "SELECT pglogical.alter_subscription_$word('$db', true)"
			: "SELECT bdr.alter_subscription_$word(immediate := true)");
	}
	return if $on;
	until_true(@$_, 'SELECT count(*) = 0 FROM pg_replication_slots WHERE database = current_database() AND active')
		for [ 'a', $self->{name} ], @places;
}

# Running, with all applied that there was.
sub activate
{
	my ($self) = @_;
	return if $self->{kind} eq 'none';
	$self->switch(1) if !$self->{active};
	$self->sync;
}

sub deactivate { my ($self) = @_; $self->switch(0) if $self->{active} }

sub until_true
{
	my ($side, $db, $query, $pause) = @_;
	my $until = time + $Bench::Session::deadline;
	until (Bench::Server::sql($side, $db, $query) eq 't')
	{
		die "not true within $Bench::Session::deadline s: $query\n" if time > $until;
		$Bench::Session::tick->() if $Bench::Session::tick;
		sleep($pause // 0.05);
	}
}

# Rows of table bench_marker tell that what was committed with or before them has arrived.
my $last_marker = 0;
sub next_marker { return ++$last_marker }

# Has B wait for a marker. arrived() gives the time at which it (the last of several) saw it.
sub await
{
	my ($self, $marker) = @_;
	Bench::Server::session('b', $_)->send("DO \$\$ BEGIN WHILE NOT EXISTS (SELECT FROM bench_marker WHERE n = $marker) LOOP
		COMMIT; PERFORM pg_sleep(0.001); END LOOP; END \$\$;\nSELECT extract(epoch FROM clock_timestamp())")
		for @{ $self->{targets} };
}

sub arrived
{
	my ($self) = @_;
	my $last = 0;
	for (@{ $self->{targets} })
	{
		my $time = Bench::Server::session('b', $_)->receive;
		$last = $time if $time > $last;
	}
	return $last;
}

sub sync
{
	my ($self) = @_;
	return if $self->{kind} eq 'none';
	my $marker = next_marker();
	$self->a("INSERT INTO bench_marker VALUES ($marker)");
	$self->await($marker);
	$self->arrived;
}

# Undef if all ends hold the same rows, else what differs.
sub difference
{
	my ($self, @tables) = @_;
	for my $table (@tables)
	{
		my $query = "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) FROM $table t";
		my $here = $self->a($query);
		for my $target (@{ $self->{targets} })
		{
			my $there = Bench::Server::sql('b', $target, $query);
			return "$self->{label}: rows of $table differ: count|sum are $here on A, $there on B" if $here ne $there;
		}
	}
	return undef;
}

1;
