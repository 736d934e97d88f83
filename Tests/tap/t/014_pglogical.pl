# Beside other logical replication: pglogical preloaded before or after bdr, its nodes and replication sets in the same
# database, native publications and subscriptions. Nobody disturbs another, and rows that come from outside enter the
# group once.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use PostgreSQL::Test::Utils ();
use Test::More;

my ($sharedir) = PostgreSQL::Test::Utils::run_command([ 'pg_config', '--sharedir' ]);
if (!-e "$sharedir/extension/pglogical.control")
{
	plan skip_all => 'pglogical is not installed';
}

# Each order on one of the nodes.
my $conf = "max_worker_processes = 40\npglogical.conflict_resolution = 'last_update_wins'\n";
my $a = BDR::Node->create('a', preload => 'pglogical, bdr', conf => $conf);
my $b = BDR::Node->create('b', preload => 'bdr, pglogical', conf => $conf);
# Outside of the group: a publisher and a subscriber.
my $source = BDR::Node->create('source', preload => 'pglogical', conf => 'max_worker_processes = 20');
my $sink = BDR::Node->create('sink', preload => 'pglogical', conf => "max_worker_processes = 20\n");

# Where the server has a list of permitted plugins, pglogical's is not in it by itself. What bdr adds to the list for its
# database has to keep that.
if (plugin_list_known($a))
{
	for my $node ($a, $source)
	{
		$node->sql("ALTER SYSTEM SET output_plugin_libraries = 'pgoutput', 'test_decoding', 'pglogical_output'");
		$node->reload;
		$node->wait_for("SHOW output_plugin_libraries", 'pgoutput, test_decoding, pglogical_output');
	}
}

my $tables = q{
	CREATE TABLE t (id int PRIMARY KEY, v text);
	CREATE TABLE incoming (id int PRIMARY KEY, v text);
	CREATE TABLE pgl_incoming (id int PRIMARY KEY, v text);
	CREATE TABLE arrived (v text);
	CREATE TABLE outgoing (id int PRIMARY KEY, v text);
	CREATE TABLE pgl_outgoing (id int PRIMARY KEY, v text);
};
$_->sql($tables) for ($a, $source, $sink);
$a->sql("INSERT INTO t SELECT i, 'a' FROM generate_series(1, 1000) i");
# One is there before the group is, one comes later.
$a->sql('CREATE EXTENSION pglogical');
$a->sql("CREATE PUBLICATION native_pub FOR TABLE outgoing, t");

create_first_node($a);
join_node($b, $a);
replicating_ok($a, $b, 'two nodes with pglogical preloaded replicate');
same_ok($a, $b, 't', 'copied');
$b->value_ok("SELECT count(*) FROM pg_extension WHERE extname = 'pglogical'", '1', 'the extension came along');
$b->value_ok('SELECT count(*) FROM pg_publication', '0', 'publications are not copied');

my $next = 10000;
sub changes
{
	my ($when) = @_;
	for my $pair ([ $a, $b ], [ $b, $a ])
	{
		my ($from, $to) = @$pair;
		$from->sql("INSERT INTO t SELECT i, 'x' FROM generate_series($next, $next + 99) i; UPDATE t SET v = v || '!' WHERE id >= $next;
			DELETE FROM t WHERE id = $next + 5; UPDATE t SET id = id + 1000 WHERE id = $next + 6");
		same_ok($from, $to, 't', 'changes from ' . $from->name . " $when");
		$next += 10000;
	}
	return;
}
changes('with pglogical idle');

# Out of the group by native replication, from either node; in, at node a.
$sink->sql('CREATE SUBSCRIPTION from_a CONNECTION ' . quote_literal($a->dsn) . ' PUBLICATION native_pub');
$source->sql("INSERT INTO incoming VALUES (1, 'copied'); CREATE PUBLICATION source_pub FOR TABLE incoming, arrived; INSERT INTO arrived VALUES ('copied')");
$a->sql('CREATE SUBSCRIPTION from_source CONNECTION ' . quote_literal($source->dsn) . ' PUBLICATION source_pub');
# Into it and out of it by pglogical.
$source->sql('CREATE EXTENSION pglogical; SELECT pglogical.create_node(\'source\', ' . quote_literal($source->dsn) . ");
	INSERT INTO pgl_incoming VALUES (1, 'copied'); SELECT pglogical.replication_set_add_table('default', 'pgl_incoming')");
$a->sql('SELECT pglogical.create_node(\'pgl_a\', ' . quote_literal($a->dsn) . ");
	SELECT pglogical.replication_set_add_table('default', 'pgl_outgoing')");
$a->sql("SELECT pglogical.create_subscription('from_source', " . quote_literal($source->dsn) . ", synchronize_data := true)");
$sink->sql('CREATE EXTENSION pglogical; SELECT pglogical.create_node(\'sink\', ' . quote_literal($sink->dsn) . ');
	SELECT pglogical.create_subscription(\'from_pgl_a\', ' . quote_literal($a->dsn) . ", synchronize_data := true)");

$a->wait_ok("SELECT string_agg(DISTINCT srsubstate::text, '') FROM pg_subscription_rel", 'r', 'the native subscription into the group is ready');
$sink->wait_ok("SELECT string_agg(DISTINCT srsubstate::text, '') FROM pg_subscription_rel", 'r', 'the one out of it too');
$a->wait_ok("SELECT status FROM pglogical.show_subscription_status()", 'replicating', 'pglogical receives');
$sink->wait_ok("SELECT status FROM pglogical.show_subscription_status()", 'replicating', 'and sends');
changes('with everything set up');

# Rows from outside.
for my $table ('incoming', 'pgl_incoming')
{
	$source->sql("INSERT INTO $table SELECT i, 'from outside' FROM generate_series(10, 19) i; UPDATE $table SET v = 'changed' WHERE id < 12;
		DELETE FROM $table WHERE id = 19");
	$source->sql("INSERT INTO $table VALUES (99, 'last')");
	my $rows = $source->sql("SELECT * FROM $table ORDER BY id");
	$a->wait_ok("SELECT * FROM $table ORDER BY id", $rows, "$table: rows come into the group at one node");
	$b->wait_ok("SELECT * FROM $table ORDER BY id", $rows, "$table: and from there to the other");
	my $before = $a->sql("SELECT xmin, id FROM $table WHERE id = 99");
	wait_caught_up($a, $b);
	is($a->sql("SELECT xmin, id FROM $table WHERE id = 99"), $before, "$table: nothing came back");
	$b->sql("UPDATE $table SET v = 'by b' WHERE id = 10");
	same_ok($a, $b, $table, "$table: an update at the other node");
	$source->sql("UPDATE $table SET v = 'by source' WHERE id = 10");
	$b->wait_ok("SELECT v FROM $table WHERE id = 10", 'by source', "$table: and one from outside again");
	same_rows($a, $b, $table, "$table: same rows");
}

# Without a key nothing hides that a row came twice.
$source->sql("INSERT INTO arrived SELECT 'streamed' FROM generate_series(1, 10)");
$_->wait_ok('SELECT v, count(*) FROM arrived GROUP BY v ORDER BY v', "copied|1\nstreamed|10", 'each row is once on ' . $_->name) for ($a, $b);
wait_caught_up($a, $b);
same_rows($a, $b, 'arrived', 'and stays so');

# Rows that go outside: those of this node, and what other nodes wrote, once.
for my $table ('outgoing', 'pgl_outgoing')
{
	$a->sql("INSERT INTO $table VALUES (1, 'a'), (2, 'a')");
	$b->wait_ok("SELECT count(*) FROM $table", '2', "$table: in the group");
	$b->sql("INSERT INTO $table VALUES (3, 'b'); UPDATE $table SET v = 'b' WHERE id = 2");
	$sink->wait_ok("SELECT id, v FROM $table ORDER BY id", "1|a\n2|b\n3|b", "$table: outside");
	same_ok($a, $b, $table, "$table: same rows in the group");
}

# TRUNCATE, which pglogical does with a trigger.
$a->sql('TRUNCATE pgl_outgoing');
same_ok($a, $b, 'pgl_outgoing', 'TRUNCATE of a table of a replication set');
$sink->wait_ok('SELECT count(*) FROM pgl_outgoing', '0', 'which reaches the subscriber of pglogical');
$b->sql("INSERT INTO pgl_outgoing VALUES (5, 'b')");
same_ok($a, $b, 'pgl_outgoing', 'and goes on');

# Neither knows the other's objects as its own.
$a->value_ok("SELECT count(*) FROM bdr.node_slots", '1', "node_slots shows bdr's slots only");
$a->value_ok("SELECT count(*) FROM bdr.subscription_summary", '1', 'as the subscriptions do');
$a->value_ok("SELECT count(*) FROM pg_replication_slots WHERE plugin = 'bdr'", '1', 'and there is one');

for my $node ($a, $b)
{
	$node->restart;
}
replicating_ok($a, $b, 'after restarts');
changes('after restarts');
$source->sql("INSERT INTO incoming VALUES (200, 'after restart'); INSERT INTO pgl_incoming VALUES (200, 'after restart')");
$b->wait_ok("SELECT v FROM $_ WHERE id = 200", 'after restart', "$_ goes on") for ('incoming', 'pgl_incoming');

# Crash of one server with all of it.
$a->stop('immediate');
$source->sql("INSERT INTO incoming VALUES (201, 'while down'); INSERT INTO pgl_incoming VALUES (201, 'while down')");
$a->start;
$b->wait_ok("SELECT v FROM $_ WHERE id = 201", 'while down', "$_ goes on after a crash") for ('incoming', 'pgl_incoming');
same_ok($a, $b, $_, "$_: same rows") for ('t', 'incoming', 'arrived', 'pgl_incoming', 'outgoing', 'pgl_outgoing');
$a->value_ok('SELECT count(*) FROM arrived', '11', 'no row is there twice');

# The extension goes, the others stay.
$a->sql("SELECT pglogical.drop_subscription('from_source')");
$a->sql('DROP SUBSCRIPTION from_source');
changes('when the subscriptions are gone');
$b->sql('DROP EXTENSION bdr CASCADE');
$b->wait_ok("SELECT count(*) FROM pg_replication_slots WHERE plugin = 'bdr'", '0', 'DROP EXTENSION bdr takes its slots');
$a->sql('DROP EXTENSION bdr CASCADE');
$a->wait_ok("SELECT count(*) FROM pg_replication_slots WHERE plugin = 'bdr'", '0', 'here as well');
$a->value_ok("SELECT count(*) > 0 FROM pg_replication_slots WHERE plugin <> 'bdr'", 't', "and leaves the others'");
$a->sql("INSERT INTO outgoing VALUES (50, 'without bdr'); INSERT INTO pgl_outgoing VALUES (50, 'without bdr')");
$sink->wait_ok("SELECT v FROM $_ WHERE id = 50", 'without bdr', "$_ goes on without bdr") for ('outgoing', 'pgl_outgoing');

logs_ok($a, $b);
done_testing();
