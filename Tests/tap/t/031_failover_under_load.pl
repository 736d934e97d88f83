# The primary of a node dies under load, twice, and each time its standby goes on as the node: no peer has what the standby
# does not have, no transaction is lost or doubled, and tables that were dropped meanwhile are still decoded.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;
use Time::HiRes qw(sleep);

my $clients = 3;
my ($a, $b) = node_pair(
	conf => "wal_receiver_status_interval = 1s\nautovacuum_naptime = 1s",
	setup => "CREATE TABLE counter (node text, client int, value bigint, PRIMARY KEY (node, client));
		CREATE TABLE log (node text, client int, value bigint);
		CREATE TABLE gone_1 (id int PRIMARY KEY, v text); CREATE TABLE gone_2 (id int PRIMARY KEY, v text);
		INSERT INTO counter SELECT n, c, 0 FROM (VALUES ('node_a'), ('node_b')) v(n), generate_series(0, @{[$clients - 1]}) c");

# Transactions that overlap, so that some are running at every moment.
sub start_writer
{
	my ($node) = @_;
	my $name = $node->node_name;
	return start_pgbench($node, <<"SQL", '-c', $clients);
BEGIN;
UPDATE counter SET value = value + 1 WHERE node = '$name' AND client = :client_id RETURNING value \\gset
\\sleep 20 ms
INSERT INTO log VALUES ('$name', :client_id, :value);
COMMIT;
SQL
}

sub set
{
	my ($node, $setting, $value) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET $setting = $value");
	$node->reload;
	return;
}

my $primary = $a;
my $writer_b = start_writer($b);
my @servers = ($a, $b);
for my $round (1 .. 2)
{
	my $writer = start_writer($primary);
	$primary->sql("SELECT pg_create_physical_replication_slot('slot_$round', true)");
	my $standby = BDR::Node->new("s$round");
	$primary->backup("backup_$round");
	$standby->init_from_backup($primary, "backup_$round", has_streaming => 1);
	@{$standby}{qw(bdr_db bdr_node_name)} = ($primary->db, $primary->node_name);
	$standby->append_conf('postgresql.conf', "primary_slot_name = 'slot_$round'\nhot_standby_feedback = on");
	$standby->start;
	push @servers, $standby;
	set($primary, 'bdr.standby_slot_names', "'slot_$round'");
	# decoding begins with what the primary writes of running transactions: every 15 s, and at a checkpoint
	my $slot = sub { my ($status, $out) = $standby->psql($standby->db, "SELECT $_[0] FROM pg_replication_slots WHERE plugin = 'bdr'"); return $out };
	my $comes_true = sub { my ($condition) = @_; return wait_until(sub { $primary->sql('CHECKPOINT'); sleep 1; $slot->($condition) eq 't' }) };
	ok($comes_true->('NOT temporary'), "round $round: the standby gets the slot under load");
	# it moves
	my ($confirmed, $restart) = map { $slot->($_) } qw(confirmed_flush_lsn restart_lsn);
	ok($comes_true->("confirmed_flush_lsn > '$confirmed' AND restart_lsn > '$restart'"), "round $round: and it moves with the primary's");

	# Rows that are still to be sent when their table is gone.
	if ($round == 1)
	{
		$b->sql('SELECT bdr.alter_subscription_disable()');
		ok(wait_until(sub { !$b->pids('apply') }), 'the peer receives nothing for a while');
	}
	$primary->sql("INSERT INTO gone_$round SELECT i, 'v' FROM generate_series(1, 100) i");
	$primary->sql_here("DROP TABLE gone_$round");
	$primary->sql("VACUUM $_") for qw(pg_class pg_attribute pg_type pg_index);
	my $lsn = $primary->commit_position;
	$standby->wait_ok("SELECT pg_last_wal_replay_lsn() >= '$lsn'", 't', "round $round: the standby has this");
	$primary->stop('immediate');
	waitpid $writer, 0;
	$standby->promote;
	set($standby, 'bdr.standby_slot_names', "''");
	for my $node ($standby, $b)
	{
		$node->sql('SELECT bdr.alter_node_interface(' . quote_literal('node_a') . ', ' . quote_literal($standby->dsn) . ')');
	}
	$standby->sql("VACUUM $_") for qw(pg_class pg_attribute pg_type pg_index);
	$b->sql('SELECT bdr.alter_subscription_enable()') if $round == 1;
	replicating_ok($standby, $b, "round $round: the standby goes on as the node");
	$b->wait_ok("SELECT count(*) FROM gone_$round", '100', "round $round: rows of the dropped table arrive");
	$primary = $standby;
}
my $writer = start_writer($primary);
sleep 1;
for my $pid ($writer, $writer_b)
{
	kill 'INT', $pid;
	waitpid $pid, 0;
}
wait_caught_up($primary, $b);
same_rows($primary, $b, $_, "$_ is the same on both") for qw(counter log);
for my $node ($primary, $b)
{
	$node->value_ok("SELECT count(*) FROM counter c WHERE value = 0 OR (value, value, value) IS DISTINCT FROM
		(SELECT (count(*), count(DISTINCT l.value), max(l.value)) FROM log l WHERE l.node = c.node AND l.client = c.client)", '0',
		'every transaction is there once on ' . $node->name);
}
cmp_ok($primary->sql('SELECT count(*) FROM log'), '>', 500, 'there were many');
logs_ok(@servers);
done_testing();
