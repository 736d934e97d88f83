# Who is not a peer gets no changes: the output plugin answers every other way of asking with an error that says what to do,
# the slot stays as it was, and the server runs on.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use IPC::Run ();
use PostgreSQL::Test::Utils ();
use Test::More;

my ($a, $b) = node_pair(setup => q{CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'one')});
my $list_known = plugin_list_known($a);
# For later. bdr looks at each database once, and removes slots of its plugin where they are of no use: not those to come.
$a->create_database('plain');
$a->restart;
replicating_ok($a, $b, 'the pair replicates');

my $slot = $a->sql("SELECT slot_name FROM bdr.node_slots WHERE target_name = 'node_b'");
my ($group, $uuid) = split /\|/, $a->sql('SELECT node_group_name, node_group_uuid FROM bdr.node_group');
my %id = map { split /\|/ } split /\n/, $a->sql('SELECT node_name, node_id FROM bdr.node');

# What node b would ask node a for.
my @good = (
	proto_min => '1', proto_max => '1', group_name => $group, group_uuid => $uuid, node_name => 'node_b', node_id => $id{node_b},
	peer_name => 'node_a', peer_id => $id{node_a}, pg_version => '150020', encoding => 'UTF8', endian => 'little', maxalign => '8',
	float8_byval => '1', raw => '1', binary => '1', forward => '0', max_frame => '65536');

# The same with some options replaced (undef: left away), and further ones.
sub options
{
	my ($changes, @further) = @_;
	my @options;
	my %change = %{ $changes // {} };
	for (my $i = 0; $i < @good; $i += 2)
	{
		my ($name, $value) = @good[ $i, $i + 1 ];
		$value = delete $change{$name} if exists $change{$name};
		push @options, $name, $value if defined $value;
	}
	die 'unknown option' if %change;
	return (@options, @further);
}

sub start_command
{
	my ($which, @options) = @_;
	my @list;
	push @list, sprintf '"%s" %s', splice(@options, 0, 1), quote_literal(splice(@options, 0, 1)) while @options;
	return "START_REPLICATION SLOT \"$which\" LOGICAL 0/0" . (@list ? ' (' . join(', ', @list) . ')' : '');
}

# Streams to the end of what there is; gives back exit status, bytes and messages.
sub receive
{
	my ($node, $which, %params) = @_;
	my @options = map { ('-o', $_) } map { "$_->[0]=$_->[1]" } @{ $params{options} // [] };
	my $end = $node->sql('SELECT pg_current_wal_flush_lsn()');
	my ($out, $err) = ('', '');
	my $timer = IPC::Run::timer(60, exception => 'too long');
	my $ok = eval
	{
		IPC::Run::run([ 'pg_recvlogical', '-n', '-S', $which, '-d', $node->dsn(user => $params{user} // 'postgres'), '--start', '-E', $end, '-f', '-', @options ],
			'<', \undef, '>', \$out, '2>', \$err, $timer);
	};
	$err .= $@ if $@;
	return ($ok ? 0 : 1, $out, $err);
}

sub pairs
{
	my @pairs;
	push @pairs, [ splice @_, 0, 2 ] while @_;
	return \@pairs;
}

# A command in a replication session has to fail with an error that has a hint.
sub refused
{
	my ($node, $command, $sqlstate, $message, $name, %params) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $error = $node->error_of($command, replication => 'database', %params);
	my $good = defined $error->{sqlstate} && $error->{sqlstate} eq $sqlstate && $error->{message} =~ $message;
	$good &&= defined $error->{hint} unless $params{no_hint};
	ok($good, $name . ': ' . ($error->{message} // ''))
	  or diag("expected $sqlstate $message with a hint; got: $error->{all}");
	return $error;
}

# The receiver is away, so its slot can be asked for; what it has then must not be touched by any of this.
$b->stop;
$a->sql("INSERT INTO t VALUES (2, 'while away')");
$a->wait_ok("SELECT active FROM pg_replication_slots WHERE slot_name = '$slot'", 'f', 'the slot is free');
my $state = "SELECT plugin, slot_type, restart_lsn, catalog_xmin, confirmed_flush_lsn, wal_status FROM pg_replication_slots WHERE slot_name = '$slot'";
my $before = $a->sql($state);

# Without options, as any program would ask.
my $nodes_only = qr/serves only nodes of a bdr group/;
my $error = refused($a, start_command($slot), '22023', qr/option "proto_min" is missing/, 'no options');
like($error->{hint} // '', $nodes_only, 'the hint says whom the plugin is for');
my ($status, $out, $err) = receive($a, $slot);
isnt($status, 0, 'pg_recvlogical fails');
like($err, qr/ERROR:.*proto_min.*HINT:.*$nodes_only/s, 'and shows the error');
is($out, '', 'and has got nothing');
for (my $i = 0; $i < @good; $i += 2)
{
	refused($a, start_command($slot, options({ $good[$i] => undef })), '22023', qr/option "$good[$i]" is missing/, "without $good[$i]");
}

# Somebody else, or somebody else's peer.
refused($a, start_command($slot, options({ group_name => 'other_group' })), '22023', qr/belongs to another group/, 'wrong group name');
refused($a, start_command($slot, options({ group_name => uc $group })), '22023', qr/belongs to another group/, 'group name in capitals');
refused($a, start_command($slot, options({ group_uuid => '00112233-4455-6677-8899-aabbccddeeff' })), '22023', qr/belongs to another group/,
	'wrong group uuid');
refused($a, start_command($slot, options({ group_uuid => "$uuid " })), '22023', qr/belongs to another group/, 'no uuid at all');
refused($a, start_command($slot, options({ node_name => 'node_c' })), '42501', qr/"node_c" .* is not a peer/, 'unknown node');
refused($a, start_command($slot, options({ node_id => '4000000000' })), '42501', qr/is not a peer/, 'unknown node id');
refused($a, start_command($slot, options({ node_name => 'node_a', node_id => $id{node_a} })), '42501', qr/is not a peer/, 'the node itself');
refused($a, start_command($slot, options({ node_id => $id{node_a} })), '42501', qr/is not a peer/, 'name and id of two nodes');
refused($a, start_command($slot, options({ peer_name => 'node_x' })), '22023', qr/this is node "node_a" .*, not node "node_x"/, 'wrong peer name');
refused($a, start_command($slot, options({ peer_id => '77' })), '22023', qr/this is node "node_a" .*, not node "node_a" \(id 77\)/, 'wrong peer id');

# What nobody means.
my @malformed = (
	[ proto_min => '' ], [ proto_min => '0' ], [ proto_min => '-1' ], [ proto_min => '+1' ], [ proto_min => '1.0' ], [ proto_min => ' 1' ],
	[ proto_min => '4294967296' ], [ proto_min => '99999999999999999999999' ], [ proto_max => 'x' ], [ node_id => '' ], [ node_id => '0' ],
	[ node_id => "1'; DROP TABLE t" ], [ peer_id => '١' ], [ pg_version => '90600' ], [ pg_version => 'fifteen' ], [ endian => 'middle' ],
	[ endian => 'Little' ], [ maxalign => '0' ], [ float8_byval => '2' ], [ raw => 'true' ], [ binary => '' ], [ forward => '10' ],
	[ max_frame => '0' ], [ max_frame => '1023' ], [ max_frame => '1000000000' ], [ group_name => '' ], [ node_name => '' ]);
for my $case (@malformed)
{
	my ($name, $value) = @$case;
	refused($a, start_command($slot, options({ $name => $value })), '22023', qr/option "$name"/, "$name '$value'");
}
refused($a, start_command($slot, options({ node_name => 'x' x 100_000 })), '22023', qr/"node_name" is too long/, 'a name of 100 kB');
refused($a, start_command($slot, options({ node_name => 'node_b' . 'x' x 100 })), '42501', qr/is not a peer/, 'a name that begins like one');
refused($a, start_command($slot, options({ proto_min => '2' })), '22023', qr/"proto_max".*/, 'an empty range of versions');
refused($a, start_command($slot, options({ proto_min => '2', proto_max => '9' })), '0A000', qr/no protocol version/, 'a version to come');
refused($a, start_command($slot, options({ encoding => 'LATIN1' })), '0A000', qr/one encoding/, 'another encoding', no_hint => 1);
refused($a, start_command($slot, options(undef, proto_min => '1')), '22023', qr/"proto_min" is given more than once/, 'an option twice');
{
	my $command = start_command($slot, options());
	$command =~ s/"raw" '1'/"raw"/;
	refused($a, $command, '22023', qr/"raw" needs a value/, 'an option without a value');
	$command = start_command($slot, options());
	$command =~ s/\)$//;
	refused($a, $command, '42601', qr/syntax error/, 'no end of the list', no_hint => 1);
}
# Bytes that are no UTF-8 may be compared, or refused, but not believed.
{
	my ($ret, undef, $message) = receive($a, $slot, options => pairs(options({ node_name => "node_b\xff\xfe" })));
	isnt($ret, 0, 'bytes that are no text are refused');
	like($message, qr/ERROR:/, 'with an error');
}

# Parted nodes.
$a->sql("UPDATE bdr.node SET node_state = 12 WHERE node_name = 'node_b'");
refused($a, start_command($slot, options()), '42501', qr/"node_b" .* is not a peer/, 'a parted receiver');
$a->sql("UPDATE bdr.node SET node_state = CASE node_name WHEN 'node_a' THEN 12 ELSE 8 END");
refused($a, start_command($slot, options()), '55000', qr/"node_a" was parted/, 'a parted node');
$a->sql("UPDATE bdr.node SET node_state = 8");

# Roles.
$a->sql('CREATE ROLE replicator LOGIN REPLICATION; CREATE ROLE member LOGIN REPLICATION IN ROLE bdr_superuser; CREATE ROLE nobody LOGIN;
	CREATE ROLE stats LOGIN REPLICATION IN ROLE bdr_read_all_stats, bdr_monitor, bdr_application');
for my $role ('replicator', 'stats')
{
	refused($a, start_command($slot, options()), '42501', qr/role "$role" may not receive/, "role $role", connstr => $a->dsn(user => $role));
}
like($a->error_of('IDENTIFY_SYSTEM', replication => 'database', connstr => $a->dsn(user => 'nobody'))->{all}, qr/must be superuser or replication role/,
	'a role without REPLICATION does not get as far');

# From SQL.
my $list = join ', ', map { quote_literal($_) } options();
for my $function ('pg_logical_slot_get_changes', 'pg_logical_slot_peek_changes', 'pg_logical_slot_get_binary_changes', 'pg_logical_slot_peek_binary_changes')
{
	$error = $a->fails_ok("SELECT * FROM $function('$slot', NULL, NULL)", '22023', qr/"proto_min" is missing/, $nodes_only, "$function");
	for my $role ('nobody', 'replicator')
	{
		$error = $a->error_of("SELECT * FROM $function('$slot', NULL, NULL, VARIADIC ARRAY[$list])", connstr => $a->dsn(user => $role));
		is($error->{sqlstate}, '42501', "$function with all options as $role: " . ($error->{message} // '')) or diag($error->{all});
	}
}
for my $function ('pg_logical_slot_get_changes', 'pg_logical_slot_peek_changes')
{
	$error = $a->fails_ok("SELECT * FROM $function('$slot', NULL, NULL, VARIADIC ARRAY[$list])", '0A000', qr/binary/, undef,
		"$function gives no bytes as text");
}
is($a->sql($state), $before, 'after all that the slot is as it was');

# The settings of a session are its own again, whether the function failed or not.
is($a->sql(qq{SET DateStyle = 'German'; SET search_path = nowhere; SET extra_float_digits = -3; SET bytea_output = escape;
	DO \$\$ BEGIN PERFORM * FROM pg_logical_slot_peek_binary_changes('$slot', NULL, NULL); EXCEPTION WHEN OTHERS THEN NULL; END \$\$;
	SHOW DateStyle; SHOW search_path; SHOW extra_float_digits; SHOW bytea_output}), "German, DMY\nnowhere\n-3\nescape", 'settings after an error');
is($a->sql(qq{SET DateStyle = 'German'; SET search_path = nowhere; SET extra_float_digits = -3; SET bytea_output = escape;
	SELECT count(*) > 0 FROM pg_logical_slot_peek_binary_changes('$slot', NULL, NULL, VARIADIC ARRAY[$list]);
	SHOW DateStyle; SHOW search_path; SHOW extra_float_digits; SHOW bytea_output}), "t\nGerman, DMY\nnowhere\n-3\nescape", 'settings after success');
is($a->sql($state), $before, 'looking leaves the slot as it is');

# Whoever may, gets something: else all of the above would prove nothing. Into slots of their own.
for my $role ('postgres', 'member')
{
	my ($code, $output) = $a->psql($a->db, "CREATE_REPLICATION_SLOT probe LOGICAL bdr (SNAPSHOT 'nothing')", replication => 'database',
		connstr => $a->dsn(user => $role));
	is($code, 0, "$role creates a slot");
	$a->sql("INSERT INTO t (v, id) VALUES ('for $role', (SELECT max(id) + 1 FROM t))");
	my ($ret, $bytes, $message) = receive($a, 'probe', user => $role, options => pairs(options({ group_uuid => uc $uuid }, of_a_later_version => 'x')));
	is($ret, 0, "$role receives") or diag($message);
	is(substr($bytes, 0, 2), "\0S", 'frames, the first with the startup message');
	like($bytes, qr/for $role/, 'and the row');
	$a->sql("SELECT pg_drop_replication_slot('probe')");
}

# Connections can be switched off; those that are there go on.
$b->start;
replicating_ok($a, $b, 'the peer is back');
same_ok($a, $b, 't', 'and has everything');
$a->sql('ALTER SYSTEM SET bdr.accept_connections = off');
$a->reload;
$a->wait_ok('SHOW bdr.accept_connections', 'off', 'connections are switched off');
$a->sql("INSERT INTO t VALUES (100, 'to one that is there')");
$b->wait_ok('SELECT v FROM t WHERE id = 100', 'to one that is there', 'a connection that is there goes on');
my $position = $b->log_position;
$a->sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '$slot'");
$a->sql("INSERT INTO t VALUES (101, 'to nobody')");
ok(wait_until(sub { $b->log_since($position) =~ /accepts no connections of other nodes at present/ }), 'a new one is refused, and the peer says why');
$a->sql("SELECT pg_create_logical_replication_slot('probe', 'bdr')");
refused($a, start_command('probe', options()), '57P03', qr/accepts no connections/, 'bdr.accept_connections = off');
$a->sql("SELECT pg_drop_replication_slot('probe')");
$b->value_ok('SELECT count(*) FROM t WHERE id = 101', '0', 'nothing arrives');
$a->sql('ALTER SYSTEM RESET bdr.accept_connections');
$a->reload;
same_ok($a, $b, 't', 'switched on again, everything arrives');
refused($a, start_command($slot, options()), '55006', qr/is active for PID/, 'a slot that is in use', no_hint => 1);

# Databases that are no node. Where the server has a list of permitted plugins, it keeps ours out of them at first.
sub permit
{
	my ($name) = @_;
	return unless $list_known;
	$error = $a->error_of("SELECT pg_create_logical_replication_slot('probe', 'bdr')", connstr => $a->dsn(dbname => $name));
	like($error->{message} // '', qr/may not be used as an output plugin/, "the server keeps the plugin out of database $name");
	$a->sql("ALTER DATABASE \"$name\" SET output_plugin_libraries = bdr");
	return;
}
permit('plain');
$a->sql("SELECT pg_create_logical_replication_slot('plain_probe', 'bdr')", connstr => $a->dsn(dbname => 'plain'));
my $plain = $a->dsn(dbname => 'plain');
refused($a, start_command('plain_probe', options()), '55000', qr/not a bdr node/, 'a database without the extension', connstr => $plain);
refused($a, start_command('plain_probe'), '22023', qr/"proto_min" is missing/, 'the same without options', connstr => $plain);
$a->sql('CREATE EXTENSION bdr', connstr => $plain);
refused($a, start_command('plain_probe', options()), '55000', qr/not a bdr node/, 'a database without a node', connstr => $plain);
# What is called like the extension's tables is not looked at: it would run with the rights of the peer.
$a->sql(q{DROP EXTENSION bdr; CREATE SCHEMA bdr;
	CREATE FUNCTION bdr.trap() RETURNS oid LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trap sprung'; END $$;
	CREATE VIEW bdr.local_node AS SELECT bdr.trap() AS node_id, 1::bigint AS system_identifier, 1::oid AS database_oid},
	connstr => $plain);
refused($a, start_command('plain_probe', options()), '55000', qr/not a bdr node/, 'a schema bdr of somebody else', connstr => $plain);
$a->sql("SELECT pg_drop_replication_slot('plain_probe')", connstr => $plain);

$a->sql('CREATE DATABASE "copy" TEMPLATE ' . quote_ident($a->db), connstr => $a->dsn(dbname => 'postgres'));
my $copy = $a->dsn(dbname => 'copy');
permit('copy');
$a->sql("SELECT pg_create_logical_replication_slot('copy_probe', 'bdr')", connstr => $copy);
$error = refused($a, start_command('copy_probe', options()), '55000', qr/is a copy of a bdr node/, 'a copy of a node', connstr => $copy);
like($error->{hint} // '', qr/DROP EXTENSION bdr/, 'the hint says how to make it an ordinary database');
$a->sql("SELECT pg_drop_replication_slot('copy_probe')", connstr => $copy);
replicating_ok($a, $b, 'the node replicates again after it was copied');

# A node has permitted the plugin for itself, for all who may create slots.
SKIP:
{
	skip 'this server has no output_plugin_libraries', 1 unless $list_known;
	$a->value_ok('SHOW output_plugin_libraries', 'pgoutput, test_decoding, bdr', "create_node has put bdr into the node's list");
}

$a->sql("INSERT INTO t VALUES (200, 'at the end')");
$b->sql("INSERT INTO t VALUES (201, 'at the end')");
same_ok($a, $b, 't', 'the group goes on');
logs_ok($a, $b);
done_testing();
