# What could not work is refused before anything is changed, with an error that says what to do.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;

my $a = BDR::Node->create('a');
my $b = BDR::Node->create('b', preload => '');
my $list_known = plugin_list_known($a);
note('output_plugin_libraries is ' . ($list_known ? 'known' : 'not known') . ' here');

# All that creating or joining could leave behind.
my $traces = q{SELECT (SELECT count(*) FROM bdr.node) + (SELECT count(*) FROM bdr.node_group) + (SELECT count(*) FROM bdr.node_interface)
	+ (SELECT count(*) FROM bdr.local_node) + (SELECT count(*) FROM bdr.subscription)
	+ (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()) + (SELECT count(*) FROM pg_replication_origin)
	+ (SELECT count(*) FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()))};
sub refused
{
	my ($node, $sql, $sqlstate, $message, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = $node->sql($traces);
	my $error = $node->error_of($sql);
	my $said = join "\n", map { $error->{$_} // '' } qw(message detail hint);
	ok(($error->{sqlstate} // '') eq $sqlstate && $said =~ $message, "$name: refused") or diag("wanted $sqlstate $message, got: $error->{all}");
	is($node->sql($traces), $before, "$name: nothing is changed");
	return $error;
}
sub create { my ($node, %o) = @_; return "SELECT bdr.create_node(node_name := '@{[$o{name} // 'x']}', local_dsn := @{[quote_literal($o{dsn} // $node->dsn)]})"; }
sub settings { my ($node, $remote) = @_; return 'bdr.check_settings(' . (defined $remote ? quote_literal($remote) : '') . ')'; }

# The library has to be preloaded.
my $error = $b->error_of('CREATE EXTENSION bdr; ' . create($b));
like(join("\n", $error->{message} // '', $error->{hint} // ''), qr/shared_preload_libraries/, 'without preloading the hint names shared_preload_libraries');
$b->value_ok('SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ $$^bdr$$', '0', 'and no worker runs');

# Settings of the server, one after the other.
$b->append_conf('postgresql.conf', "shared_preload_libraries = 'bdr'");
$b->restart;
$b->sql('CREATE EXTENSION IF NOT EXISTS bdr');
for my $case (
	[ 'wal_level', "wal_level = replica" ],
	[ 'track_commit_timestamp', 'track_commit_timestamp = off' ],
	[ 'max_worker_processes', 'max_worker_processes = 1' ],
	[ 'max_replication_slots', 'max_replication_slots = 0' ],
	[ 'max_wal_senders', 'max_wal_senders = 0' ])
{
	my ($setting, $line) = @$case;
	$b->append_conf('postgresql.conf', $line);
	$b->restart;
	refused($b, create($b), '55000', qr/\b$setting\b/, $line);
	my $row = $b->sql("SELECT status, name, hint FROM @{[settings($b)]} WHERE status !~* '^ok' AND concat(name, detail, hint) ~ '$setting'");
	like($row, qr/$setting/, "check_settings() tells about $setting");
	unlike($row, qr/^ok\|/i, "$setting is not ok in check_settings()");
	# The later line wins.
	my %good = (wal_level => 'logical', track_commit_timestamp => 'on', max_worker_processes => 24, max_replication_slots => 16, max_wal_senders => 16);
	$b->append_conf('postgresql.conf', "$setting = $good{$setting}");
}
$b->restart;

# Who may.
$b->sql('CREATE ROLE nobody LOGIN; CREATE ROLE app LOGIN');
my $as_nobody = 'SET ROLE nobody; ';
for my $call (create($b), "SELECT bdr.create_node_group('g')", "SELECT bdr.join_node_group('dbname=x')", 'SELECT * FROM bdr.check_settings()',
	'SELECT * FROM bdr.node_interface', 'SELECT bdr.wait_for_join_completion()')
{
	is($b->error_of($as_nobody . $call)->{sqlstate}, '42501', 'an ordinary user is refused: ' . substr($call, 0, 40));
}

# Names and connection strings.
for my $name ('', 'Upper', 'with space', 'quote"', "it''s", 'ünicode', 'x' x 64, 'semi;colon')
{
	my $error = $b->error_of(create($b, name => $name));
	like($error->{sqlstate} // 'none', qr/^(22023|42602|42622)$/, "node name <$name> is refused");
}
refused($b, create($b, dsn => 'host=/nonexistent dbname=db1'), '08001', qr/nonexistent/, 'unreachable DSN');
refused($b, create($b, dsn => 'this is = not a (dsn'), '42601', qr/dsn|connection string/i, 'malformed DSN');
refused($b, create($b, dsn => ''), '22023', qr/dsn|connection string/i, 'empty DSN');
refused($b, create($b, dsn => $b->dsn(dbname => 'postgres')), '22023', qr/database/, 'DSN of another database');
refused($b, create($b, dsn => $a->dsn), '22023', qr/another|this database|different/i, 'DSN of another server');
refused($b, create($b, dsn => $b->dsn(user => 'app')), '42501', qr/app/, 'DSN of a user without rights');
refused($b, create($b) =~ s/\)$/, node_kind := 'witness')/r, '0A000', qr/witness|node_kind/, 'a node kind that does not exist yet');

# Order of the steps.
refused($b, "SELECT bdr.create_node_group('g')", '55000', qr/create_node/, 'a group without a node');
refused($b, "SELECT bdr.join_node_group(@{[quote_literal($a->dsn)]})", '55000', qr/create_node/, 'a join without a node');
refused($b, 'SELECT bdr.wait_for_join_completion()', '55000', qr/./, 'waiting without a node');

# create_node permits the plugin for the database where the server has a list of permitted plugins.
my $notice = $b->error_of(create($b, name => 'node_b'))->{all};
my $list = "SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase WHERE datname = current_database() AND setconfig::text ~ 'output_plugin_libraries.*bdr'";
if ($list_known)
{
	like($notice, qr/NOTICE:.*output_plugin_libraries/s, 'create_node says that it permits the plugin');
	$b->value_ok($list, '1', 'and does so');
	$b->value_ok('SHOW output_plugin_libraries', 'pgoutput, test_decoding, bdr', 'adding to what was permitted');
}
else
{
	$b->value_ok($list, '0', 'create_node leaves an unknown setting alone');
}
refused($b, create($b, name => 'second'), '42710', qr/already|exists/, 'a second node in the same database');
refused($b, 'SELECT bdr.create_node_group(node_group_name := $$Bad Name$$)', '42602', qr/name/, 'a bad group name');
refused($b, 'SELECT bdr.create_node_group(node_group_name := $$g$$, node_group_type := $$subscriber-only$$)', '0A000', qr/subscriber-only|node_group_type/, 'a group type that does not exist yet');
refused($b, 'SELECT bdr.create_node_group(node_group_name := $$g$$, parent_group_name := $$p$$)', '0A000', qr/parent/, 'a parent group');

# Joining.
my $join = sub { my ($dsn, $more) = @_; return "SET statement_timeout = '60s'; SELECT bdr.join_node_group(@{[quote_literal($dsn)]}" . ($more ? ", $more" : '') . ')'; };
refused($b, $join->('host=/nonexistent dbname=db1'), '08001', qr/nonexistent/, 'join: target unreachable');
refused($b, $join->($b->dsn), '22023', qr/itself|same|own/i, 'join: itself');
refused($b, $join->($a->dsn(dbname => 'postgres')), '55000', qr/extension|bdr/, 'join: target without the extension');
refused($b, $join->($a->dsn), '55000', qr/extension|bdr/, 'join: target database without the extension');
$a->sql('CREATE EXTENSION bdr');
refused($b, $join->($a->dsn), '55000', qr/node/, 'join: target is no node');
$a->sql(create($a, name => 'node_a'));
refused($b, $join->($a->dsn), '55000', qr/group/, 'join: target is in no group');
$a->sql("SELECT bdr.create_node_group('g'); SELECT bdr.wait_for_join_completion()");
refused($a, "SELECT bdr.create_node_group('h')", '55000', qr/group/, 'a second group');
refused($a, $join->($b->dsn), '55000', qr/group/, 'join: already in a group');
refused($b, $join->($a->dsn, "node_group_name := 'other'"), '22023', qr/other/, 'join: group of another name');
refused($b, 'SELECT bdr.promote_node()', '55000', qr/not in standby/, 'promoting a node that is not in standby');
refused($b, $join->($a->dsn, "synchronize_structure := 'some'"), '22023', qr/synchronize_structure/, 'join: bad synchronize_structure');
refused($b, $join->($a->dsn(user => 'nobody')), '08001', qr/nobody/, 'join: target user unknown');
$b->sql('CREATE TABLE in_the_way (a int)');
refused($b, $join->($a->dsn), '55000', qr/in_the_way|empty/, 'join: database not empty');
$b->sql('DROP TABLE in_the_way');
my $latin = BDR::Node->create('latin', start => 0);
$latin->start;
$latin->safe_psql('postgres', "CREATE DATABASE db1 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
$latin->sql('CREATE EXTENSION bdr; ' . create($latin, name => 'latin'));
refused($latin, $join->($a->dsn), '0A000', qr/encoding|LATIN1/, 'join: another encoding');
$latin->stop;
if ($list_known)
{
	$a->sql('ALTER DATABASE db1 RESET output_plugin_libraries');
	my $error = refused($b, $join->($a->dsn), '55000', qr/output_plugin_libraries/, 'join: the target does not permit the plugin');
	like($error->{hint} // '', qr/ALTER DATABASE "?db1"? SET output_plugin_libraries = pgoutput, test_decoding, bdr/, 'the hint is the line to type');
	$a->sql($1) if ($error->{hint} // '') =~ /(ALTER DATABASE "?db1"? SET output_plugin_libraries = [a-z_, ]+)/;
}
$b->value_ok("SELECT count(*) FROM bdr.check_settings(@{[quote_literal($a->dsn)]}) WHERE status !~* '^(ok|info)'", '0', 'check_settings() of both sides has nothing to say now');
is($b->error_of($join->($a->dsn))->{sqlstate}, undef, 'and the join works after all the refusals');
replicating_ok($a, $b, 'both replicate');
refused($b, $join->($a->dsn), '55000', qr/already|group/, 'a second join');
$a->value_ok('SELECT count(*) FROM pg_replication_slots', '1', 'one slot on the target');

# A node of the same name.
my $c = BDR::Node->create('c', node_name => 'node_b');
$c->sql('CREATE EXTENSION bdr; ' . create($c, name => 'node_b'));
refused($c, $join->($a->dsn), '42710', qr/node_b/, 'join: name already taken');
$a->value_ok('SELECT count(*) FROM pg_replication_slots', '1', 'no slot is left on the target');

logs_ok($a, $b);
done_testing();
