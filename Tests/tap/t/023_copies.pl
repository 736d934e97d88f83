# Copies of a node are not the node: a clone of its data directory, a database made from it as template, a restored dump.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;

my ($a, $b) = node_pair(setup => 'CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, $$before$$)');

# A clone of the data directory, started while the node runs.
$b->backup('copy');
my $clone = BDR::Node->new('clone');
$clone->init_from_backup($b, 'copy');
$clone->{bdr_db} = 'db1';
$clone->start;
ok(wait_until(sub { slurp_file($clone->logfile) =~ /this server seems to be a copy of node "node_b"/ }), 'the clone finds out that it is one');
$a->sql("INSERT INTO t VALUES (2, 'after the clone')");
$b->sql("INSERT INTO t VALUES (3, 'from the node')");
same_ok($a, $b, 't', 'the nodes replicate');
$clone->value_ok('SELECT count(*) FROM t', '1', 'the clone gets nothing');
$clone->value_ok("SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ 'bdr (apply|join)'", '0', 'and has no worker for it');
$clone->sql("INSERT INTO t VALUES (99, 'on the clone')");
$clone->sql('DROP EXTENSION bdr CASCADE');
$clone->wait_ok("SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'bdr manager')", '0',
	'it can be made an ordinary database');
$a->sql("UPDATE t SET v = 'still there' WHERE id = 1");
same_ok($a, $b, 't', 'which does not disturb the nodes');
$clone->stop;

# A database with the node as template.
$b->safe_psql('postgres', 'CREATE DATABASE templated TEMPLATE db1');
$b->fails_ok("SELECT bdr.wait_slot_confirm_lsn('x')", '42704', undef, undef, 'the node is the node');
my ($status, $out, $err) = $b->psql('templated', "SELECT bdr.create_node('x', 'dbname=templated')");
like($err, qr/copy of the database of node "node_b"/, 'the other database is a copy');
$b->safe_psql('templated', "INSERT INTO t VALUES (77, 'in the copy')");
$b->safe_psql('templated', 'DROP EXTENSION bdr CASCADE');
$a->sql("INSERT INTO t VALUES (4, 'after the template')");
same_ok($a, $b, 't', 'the nodes replicate beside it');
$_->value_ok("SELECT count(*) FROM t WHERE id IN (77, 99)", '0', $_->name . ' has nothing of the copies') for ($a, $b);

# A dump restores as an ordinary database.
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$b->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-h', $b->host, '-p', $b->port, 'db1' ], 'pg_dump of a node');
$b->safe_psql('postgres', 'CREATE DATABASE restored');
$b->command_ok([ 'pg_restore', '--exit-on-error', '-d', 'restored', '-h', $b->host, '-p', $b->port, $dump ], 'restores');
is($b->safe_psql('restored', 'SELECT count(*) FROM t'), '4', 'with all rows');
is($b->safe_psql('restored', 'SELECT count(*) FROM bdr.node'), '0', 'as no node');
$b->safe_psql('restored', "DELETE FROM t WHERE id = 1");
$b->value_ok('SELECT count(*) FROM t', '4', 'and apart from it');
logs_ok($a, $b);
done_testing();
