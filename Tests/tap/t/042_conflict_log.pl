# What is told of conflicts under pressure: lines of the log are limited, the history is bounded and never in the way, settings
# reach running workers, and a joining node takes them over.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;

my $a = BDR::Node->create('a');
$a->sql(q{
	CREATE TABLE t (id int PRIMARY KEY, v text);
	INSERT INTO t SELECT i, 'old' FROM generate_series(1, 30000) i;
});
create_first_node($a);
$a->sql(q{
	SELECT bdr.alter_node_set_conflict_resolver('node_a', 'multiple_unique_conflicts', 'update_if_newer');
	SELECT bdr.alter_node_set_conflict_resolver('node_a', 'update_missing', 'skip');
	SELECT bdr.alter_node_set_log_config('node_a', true, false, '{delete_missing,insert_exists}', '{skip}');
});
$a->wait_ok("SELECT count(*) FROM pg_inherits WHERE inhparent = 'bdr.conflict_history'::regclass", '9', 'a node alone has partitions');

# b has settings of its own, which those of the group's member replace
my $b = BDR::Node->create('b');
$b->sql('CREATE EXTENSION bdr CASCADE');
$b->sql("SELECT bdr.create_node('node_b', @{[quote_literal($b->dsn)]})");
$b->sql("SELECT bdr.alter_node_set_conflict_resolver('node_b', 'insert_exists', 'error')");
$b->sql("SELECT bdr.join_node_group(@{[quote_literal($a->dsn)]})");
same_rows($a, $b, 'bdr.node_conflict_resolvers', 'a joining node takes the resolvers over');
same_rows($a, $b, 'bdr.node_log_config', 'and the log settings');
$b->value_ok('SELECT count(*) FROM bdr.conflict_resolver', '2', 'of the join target alone');
$_->sql('DELETE FROM bdr.conflict_resolver; SELECT bdr.alter_node_set_log_config((SELECT node_name FROM bdr.local_node_summary))')
  for ($a, $b);
$b->sql("SELECT pg_replication_origin_create('bdr_elsewhere')");

# Changes on b that a does not hear of.
sub unheard
{
	my ($sql) = @_;
	$b->sql("SELECT pg_replication_origin_session_setup('bdr_elsewhere'); $sql");
	return;
}
sub counted
{
	my ($column, $type) = @_;
	return $b->sql("SELECT COALESCE(sum($column), 0) FROM bdr.stat_conflicts WHERE conflict_type = '$type'");
}

# Copied rows are changed by the first who comes.
$a->sql("UPDATE t SET v = 'first' WHERE id IN (1, 2)");
wait_caught_up($a, $b);
$b->value_ok('SELECT count(*) FROM bdr.stat_conflicts', '0', 'the first change of a copied row is no conflict');

# Settings reach the running worker.
my ($worker) = $b->pids('apply');
$b->sql("SELECT bdr.alter_node_set_conflict_resolver('node_b', 'update_origin_change', 'skip')");
unheard("UPDATE t SET v = 'b' WHERE id = 1");
$a->sql("UPDATE t SET v = 'a' WHERE id = 1");
wait_caught_up($a, $b);
$b->value_ok('SELECT v FROM t WHERE id = 1', 'b', 'the new resolver is used');
$b->sql("SELECT bdr.alter_node_set_conflict_resolver('node_b', 'update_origin_change', 'update_if_newer')");
$a->sql("UPDATE t SET v = 'a again' WHERE id = 1");
wait_caught_up($a, $b);
$b->value_ok('SELECT v FROM t WHERE id = 1', 'a again', 'and the next one');
is(($b->pids('apply'))[0], $worker, 'by the same worker');

# Lines of the log
like($b->log_since, qr/LOG:  conflict update_origin_change on table public\.t, resolution skip\n.*DETAIL:  Change #1 of the transaction that node "node_a" committed at .* The local row was last changed by node "node_b" at .*Key \{"id": 1\}\./,
	'a conflict is told in the log');
$b->sql("ALTER SYSTEM SET bdr.conflict_log_level = warning; SELECT pg_reload_conf()");
my $position = $b->log_position;
unheard('DELETE FROM t WHERE id BETWEEN 101 AND 400');
$a->sql('DELETE FROM t WHERE id BETWEEN 101 AND 400');
wait_caught_up($a, $b);
is(counted('nskipped', 'delete_missing'), '300', 'all conflicts are counted');
my $lines = () = $b->log_since($position) =~ /conflict delete_missing on table/g;
cmp_ok($lines, '>', 0, 'some are in the log');
cmp_ok($lines, '<=', 60, 'but not all of them');
ok(wait_until(sub {
	$a->sql("UPDATE t SET v = v || '.' WHERE id = 2");
	wait_caught_up($a, $b);
	my $log = $b->log_since($position);
	my $told = () = $log =~ /conflict delete_missing on table/g;
	$told += $1 while $log =~ /(\d+) further conflicts with changes of node "node_a" were not logged one by one/g;
	return $told == 300;
}), 'and the others are told as a number') or diag($b->log_since($position));
like($b->log_since($position), qr/WARNING:  conflict delete_missing/, 'at the level that is set');
$b->value_ok("SELECT count(*), count(DISTINCT remote_change_nr) FROM bdr.conflict_history WHERE conflict_type = 'delete_missing'", '300|300',
	'the history has all');

# A transaction with very many conflicts: not as many subtransactions.
$b->sql("SELECT bdr.alter_node_set_log_config('node_b', log_to_file := false)");
unheard("UPDATE t SET v = 'b' WHERE id > 1000");
my $before = $b->sql('SELECT txid_current()');
$a->sql("UPDATE t SET v = 'a' WHERE id > 1000");
wait_caught_up($a, $b);
cmp_ok($b->sql('SELECT txid_current()') - $before, '<', 500, '29000 conflicts take few transaction numbers');
$b->value_ok("SELECT count(*) FROM bdr.conflict_history WHERE conflict_type = 'update_origin_change' AND remote_tuple->>'v' = 'a'
	AND local_tuple->>'v' = 'b' AND apply_tuple->>'v' = 'a'", '29000', 'and all are in the history');

# Bounded in size, within one transaction, too.
$b->sql('TRUNCATE bdr.conflict_history');
$b->sql("ALTER SYSTEM SET bdr.conflict_history_max_size = '2MB'; SELECT pg_reload_conf()");
# what was there before counts until the manager measures anew
my $key = 500;
ok(wait_until(sub {
	unheard("DELETE FROM t WHERE id = $key");
	$a->sql("DELETE FROM t WHERE id = $key");
	$key++;
	return wait_caught_up($a, $b) && $b->sql('SELECT count(*) FROM bdr.conflict_history') > 0;
}), 'an empty history takes conflicts again');
my $without_room = counted('nunrecorded', 'update_origin_change');
$b->sql("SELECT bdr.alter_subscription_disable()");
$b->wait_for("SELECT count(*) FROM bdr.workers WHERE worker_role_name = 'apply'", '0');
unheard("UPDATE t SET v = 'b' WHERE id > 1000");
$a->sql("UPDATE t SET v = 'a 2' WHERE id > 1000");
$b->sql('SELECT bdr.alter_subscription_enable()');
ok(wait_caught_up($a, $b), 'replication goes on');
my $stored = $b->sql("SELECT count(*) FROM bdr.conflict_history WHERE conflict_type = 'update_origin_change'");
cmp_ok($stored, '>', 1000, 'there is room for some conflicts');
cmp_ok($b->sql("SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('bdr.conflict_history')"), '<', 6_000_000, 'but not for all of them');
is(counted('nunrecorded', 'update_origin_change') - $without_room, 29000 - $stored, 'the others are counted');
same_ok($a, $b, 't', 'rows are as without');
$b->sql("ALTER SYSTEM RESET bdr.conflict_history_max_size; SELECT pg_reload_conf()");

# Somebody has locked the history.
$b->sql('TRUNCATE bdr.conflict_history');
my $unrecorded = counted('nunrecorded', 'delete_missing');
unheard('DELETE FROM t WHERE id = 10');
my $locker = $b->background_psql($b->db);
$locker->query_safe('BEGIN; LOCK TABLE bdr.conflict_history IN ACCESS EXCLUSIVE MODE');
$position = $b->log_position;
$a->sql('DELETE FROM t WHERE id = 10');
ok(wait_caught_up($a, $b), 'a lock on the history does not hold up replication');
is(counted('nunrecorded', 'delete_missing') - $unrecorded, 1, 'the conflict is counted as one that is not recorded');
like($b->log_since($position), qr/1 conflicts could not be stored in bdr\.conflict_history: canceling statement due to lock timeout/, 'and the log says why');
$locker->query_safe('COMMIT');
$locker->quit;

# Settings and history stay over a restart.
$b->sql("INSERT INTO bdr.conflict_history (local_time, conflict_type, conflict_resolution) VALUES (now(), 'x', 'skip')");
$b->restart;
$b->value_ok('SELECT count(*) FROM bdr.conflict_history', '1', 'the history is there after a restart');
$b->value_ok('SELECT log_to_file FROM bdr.node_log_config', 'f', 'and so are the settings');
same_ok($a, $b, 't', 'both nodes have the same rows');
$_->value_ok('SELECT count(*) FROM bdr.worker_errors WHERE error_message !~ ' . quote_literal('terminat|connect|server closed'), '0', 'no worker of ' . $_->name . ' failed')
  for ($a, $b);
logs_ok($a, $b);
done_testing();
