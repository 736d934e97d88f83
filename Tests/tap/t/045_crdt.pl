# Conflict-free values before there is a node, in the copy of a join, in dumps, and on a server that has not preloaded bdr: nothing
# of their states is lost, and who adds does so in its own part.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;

my ($a, $b) = map { BDR::Node->create($_) } qw(a b);
my $states = 'SELECT id, bdr.crdt_gcounter_to_text(g) AS g, bdr.crdt_pncounter_to_text(p) AS p, bdr.crdt_gsum_to_text(s) AS s,
	bdr.crdt_pnsum_to_text(q) AS q, d, e, bdr.crdt_gcounter_send(g) AS bytes FROM crdt';
my $values = 'SELECT id, g::bigint, p::bigint, s::numeric, q::numeric, d, e FROM crdt ORDER BY id';
my $counter = 'SELECT bdr.crdt_pncounter_to_text(p) FROM crdt WHERE id = 1';

# A database that is no node
$a->sql('CREATE EXTENSION bdr');
$a->sql("CREATE TABLE crdt (id int PRIMARY KEY, g bdr.crdt_gcounter NOT NULL DEFAULT 0, p bdr.crdt_pncounter NOT NULL DEFAULT 0,
		s bdr.crdt_gsum NOT NULL DEFAULT 0.00, q bdr.crdt_pnsum DEFAULT 0, d bdr.crdt_delta_counter NOT NULL DEFAULT 0,
		e bdr.crdt_delta_sum);
	ALTER TABLE crdt REPLICA IDENTITY FULL;
	INSERT INTO crdt SELECT i, i, -i, i / 8.0, i - 0.5, i, i FROM generate_series(1, 500) i;
	UPDATE crdt SET g = g + 1, p = p - 1, s = s + 0.5, q = q - 0.5;
	UPDATE crdt SET p = !p WHERE id % 2 = 0; UPDATE crdt SET p = p + 5");
$a->value_ok($counter, '{initial: -1, nodes: [0: +5 -1]}', 'a database that is no node counts as node 0');
$a->sql("SELECT bdr.create_node('node_a', @{[quote_literal($a->dsn)]})");
$a->sql('UPDATE crdt SET p = p + 1 WHERE id = 1');
$a->value_ok($counter, '{initial: -1, nodes: [0: +6 -1]}', 'so does a node that is in no group');
$a->sql("SELECT bdr.create_node_group('the_node_group')");
$a->sql('SELECT bdr.wait_for_join_completion()');
$a->sql('UPDATE crdt SET p = p + 10 WHERE id = 1');
$a->value_ok($counter, '{initial: -1, nodes: [0: +6 -1, 1: +10 -0]}', 'in a group it is itself');

# What a join copies
$b->sql("ALTER DATABASE @{[quote_ident($b->db)]} SET bdr.crdt_raw_value = off");
join_node($b, $a);
same_rows($a, $b, $states, 'the copy has the same states');
$b->sql('UPDATE crdt SET p = p - 100, q = q + 0.25 WHERE id = 1; UPDATE crdt SET g = !g WHERE id = 2');
same_ok($a, $b, $states, 'and changes of the new node arrive');
$a->value_ok($counter, '{initial: -1, nodes: [0: +6 -1, 1: +10 -0, 2: +0 -100]}', 'in its own part');

# Dumps: values, or with the setting states
for my $raw ('off', 'on')
{
	my $copy = "restored_$raw";
	my $file = $a->basedir . "/dump_$raw";
	local $ENV{PGOPTIONS} = "-c bdr.crdt_raw_value=$raw";
	$a->command_ok([ 'pg_dump', '-d', $a->connstr($a->db), '-Fc', '-f', $file ], "dump with raw values $raw");
	$a->safe_psql('postgres', "CREATE DATABASE $copy");
	$a->command_ok([ 'pg_restore', '-d', $a->connstr($copy), '--exit-on-error', $file ], "restore with raw values $raw");
	is($a->safe_psql($copy, $values), $a->sql($values), 'the same values');
	my $expected = $raw eq 'on' ? $a->sql($counter) : '{initial: -86, nodes: []}';
	is($a->safe_psql($copy, $counter), $expected, $raw eq 'on' ? 'the same state' : 'and no state');
	$a->safe_psql($copy, 'UPDATE crdt SET p = p + 1 WHERE id = 3');
	is($a->safe_psql($copy, 'SELECT #p FROM crdt WHERE id = 3'), '2', 'that go on');
}

# Without the library preloaded there is no shared memory that says which node this is, and it is the node all the same.
$a->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$a->restart;
$a->sql('UPDATE crdt SET p = p + 1 WHERE id = 1');
$a->value_ok($counter, '{initial: -1, nodes: [0: +6 -1, 1: +11 -0, 2: +0 -100]}', 'a node without preloaded library is itself');
$a->append_conf('postgresql.conf', "shared_preload_libraries = 'bdr'");
$a->restart;
same_ok($a, $b, $states, 'and what it did there arrives');

# The extension goes with what it brought, and comes back.
$a->safe_psql('restored_on', 'DROP EXTENSION bdr CASCADE');
is($a->safe_psql('restored_on', "SELECT count(*) FROM pg_operator o WHERE oprnamespace = 'pg_catalog'::regnamespace AND o.oid >= 16384"),
	'0', 'no operator is left');
$a->safe_psql('restored_on', 'CREATE EXTENSION bdr');

done_testing();
