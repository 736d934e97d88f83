# Two groups under the same names of group and nodes, in databases of the same two servers: a connection string that leads
# to the other group; a database that is made from a dump or as a copy of a node becomes a node of the other group. Then one
# server is away for long, while a transaction is open all the time on the other one, which crashes when it is over.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use BDR::Group;
use Test::More;

# WAL is recycled soon, as far as nobody needs it.
my $conf = "max_wal_size = 64MB\nmin_wal_size = 32MB\nwal_init_zero = off\nbdr.min_worker_backoff_delay = 50ms\nbdr.max_worker_backoff_delay = 500ms";
my ($a, $b) = node_pair(conf => $conf, setup => 'CREATE TABLE t (id int PRIMARY KEY, v text)');
my ($a2, $b2) = map { $_->other_database('db2') } ($a, $b);
$a2->sql("CREATE TABLE t (id int PRIMARY KEY, v text)");
create_first_node($a2);
join_node($b2, $a2);
my @one = ($a, $b);
my @two = ($a2, $b2);

# Whom nobody may disturb: the processes that connect the nodes of a group.
sub processes
{
	return join ' ', map { $_->sql("SELECT string_agg(pid::text, ',' ORDER BY pid) FROM pg_stat_activity
		WHERE datname = current_database() AND backend_type IN ('bdr apply', 'bdr manager', 'walsender')") } @_;
}

$_->sql("INSERT INTO t VALUES (1, 'on a in ' || current_database())") for ($a, $a2);
$_->sql("INSERT INTO t VALUES (2, 'on b in ' || current_database())") for ($b, $b2);
same_ok(@one, 't', 'group one is equal');
same_ok(@two, 't', 'group two is equal');

# A string that leads to the node of the same name in the other group.
my $before = processes(@two);
# The transaction stays open for as long as a worker needs to start again before it is committed.
$a->sql("BEGIN; SELECT bdr.alter_node_interface('node_b', @{[quote_literal($b2->dsn)]}); SELECT pg_sleep(1); COMMIT");
$a->wait_ok("SELECT error_message ~ 'was not created in this database' FROM bdr.worker_errors ORDER BY error_time DESC LIMIT 1", 't',
	'a node of another group is not the peer');
$b2->sql("INSERT INTO t VALUES (3, 'for group two')");
$b->sql("INSERT INTO t VALUES (3, 'for group one')");
same_ok(@two, 't', 'group two goes on');
is(processes(@two), $before, 'with the same processes');
$a->sql("SELECT bdr.alter_node_interface('node_b', @{[quote_literal($b->dsn)]})");
same_ok(@one, 't', 'with the right string group one goes on');
$a->value_ok("SELECT v FROM t WHERE id = 3", 'for group one', 'and got nothing else');

# One group goes: parted, dropped with its database, and another one without ceremony.
replicating_ok(@one, 'group one replicates');
$before = processes(@one);
$b2->sql("SELECT bdr.part_node('node_a')");
$a->safe_psql('postgres', 'DROP DATABASE db2');
$b2->sql('DROP EXTENSION bdr CASCADE');
$_->wait_ok("SELECT (SELECT count(*) FROM pg_replication_slots WHERE database <> 'db1') + (SELECT count(*) FROM pg_replication_origin WHERE roname !~ '^bdr_db1_')
	+ (SELECT count(*) FROM pg_stat_activity WHERE datname = 'db2' AND backend_type ~ 'bdr|walsender')", '0', 'nothing of group two is left on ' . $_->name) for @one;
$a->sql("UPDATE t SET v = 'changed' WHERE id = 1");
$b->sql("DELETE FROM t WHERE id = 2");
same_ok(@one, 't', 'group one goes on');
is(processes(@one), $before, 'with the same processes');

# And is made again, from a dump of group one, as a group of its own that knows of nothing.
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$a->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-h', $a->host, '-p', $a->port, 'db1' ], 'pg_dump of a node');
$a->create_database('db2');
$a->command_ok([ 'pg_restore', '--exit-on-error', '-d', 'db2', '-h', $a->host, '-p', $a->port, $dump ], 'restores into a new database');
$a2->value_ok('SELECT count(*) FROM bdr.local_node', '0', 'which is no node');
$a2->sql("SELECT bdr.create_node('node_a', @{[quote_literal($a2->dsn)]})");
$a2->sql("SELECT bdr.create_node_group('the_node_group')");
$a2->sql('SELECT bdr.wait_for_join_completion()');
is(processes(@one), $before, 'group one has never been disturbed');
# A copy by template is none either, once it has forgotten, and can join. The template may have no sessions: bdr's come back.
$b->safe_psql('postgres', 'DROP DATABASE db2');
$b->safe_psql('postgres', 'CREATE DATABASE db2 TEMPLATE db1');
$b2->sql('DROP EXTENSION bdr CASCADE; DROP TABLE t');
join_node($b2, $a2);
isnt($a2->sql('SELECT node_group_uuid FROM bdr.node_group'), $a->sql('SELECT node_group_uuid FROM bdr.node_group'), 'it is another group');
$a->sql("INSERT INTO t VALUES (10, 'one')");
$b2->sql("INSERT INTO t VALUES (10, 'two')");
same_ok(@one, 't', 'group one is equal');
same_ok(@two, 't', 'the new group is equal');
is($a->sql('SELECT v FROM t WHERE id = 10') . $a2->sql('SELECT v FROM t WHERE id = 10'), 'onetwo', 'each has its own');

# One server is away for long: many segments of WAL, checkpoints, vacuumed catalogs, and a transaction that was open all
# the time.
my $start = $a->sql('SELECT min(restart_lsn) FROM pg_replication_slots');
my $session = $a->background_psql('db1', on_error_stop => 1);
$session->query_safe("BEGIN; INSERT INTO t SELECT i, 'open all the time' FROM generate_series(1000, 1999) i");
$b->stop;
for my $day (1 .. 12)
{
	$a->sql("INSERT INTO t SELECT i, 'day $day' FROM generate_series($day * 10000, $day * 10000 + 999) i;
		UPDATE t SET v = v || ', changed on day $day' WHERE id % 10 = 0 AND id >= 2000;
		DELETE FROM t WHERE id % 7 = 0 AND id >= 10000;
		CREATE TABLE other (i int); ALTER TABLE other ADD day_$day int; DROP TABLE other");
	$a2->sql("INSERT INTO t SELECT i, 'day $day' FROM generate_series($day * 10000, $day * 10000 + 99) i");
	$session->query_safe("INSERT INTO t VALUES (2000 + $day, 'open on day $day')");
	$a->sql('VACUUM pg_class; VACUUM pg_attribute; VACUUM t') if $day % 4 == 0;
	$a->sql('SELECT pg_switch_wal()');
	$a->safe_psql('postgres', 'CHECKPOINT');
}
$session->query_safe('SAVEPOINT x; INSERT INTO t VALUES (3000, $$gone$$); ROLLBACK TO x');
$session->query_safe('COMMIT');
$session->quit;
$a->value_ok("SELECT bool_and(retained_wal_bytes > 10 * 16 * 1024 * 1024) FROM bdr.node_replication_rates", 't', 'its WAL is kept');
$a->value_ok("SELECT count(*) FROM pg_replication_slots WHERE NOT active AND wal_status IN ('reserved', 'extended')", '2', 'for both groups');
# The server that was not away crashes, too.
$a->stop('immediate');
$b->start;
$b->sql("INSERT INTO t VALUES (5000, 'when it was back')");
$a->start;
same_ok(@one, 't', 'when it is back group one becomes equal');
same_ok(@two, 't', 'and group two');
$b->value_ok("SELECT count(*) FROM t WHERE v ~ '^open'", '1012', 'with the transaction that was open all the time');
$a->sql("INSERT INTO t VALUES (5001, 'x')");
ok(wait_until(sub {
	$a->safe_psql('postgres', 'CHECKPOINT');
	$_->sql('SELECT txid_current()') for ($a, $a2);
	$a->sql("SELECT bool_and(restart_lsn > '$start'::pg_lsn + 10 * 16 * 1024 * 1024) FROM pg_replication_slots WHERE slot_type = 'logical'") eq 't';
}, timeout => 60), 'WAL is no longer kept') or $a->show_state;
ok(wait_until(sub { $a->safe_psql('postgres', 'CHECKPOINT'); $a->sql('SELECT count(*) FROM pg_ls_waldir()') < 10 }, timeout => 30), 'and goes');
done_testing();
