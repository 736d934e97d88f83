# What is decided of a row holds when it is written: a delete of its key, or a newer row of it, that comes while another row makes
# room for it. And tables that were dropped are remembered over a crash. Three nodes; triggers that wait for an advisory lock
# keep an apply worker where it is.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::Test;
use Test::More;

my @all = map { BDR::Node->create($_, conf => "bdr.max_worker_backoff_delay = '100ms'") } qw(a b c);
my ($a, $b, $c) = @all;
$a->sql(q{
	CREATE TABLE u (id int PRIMARY KEY, code text UNIQUE, other text UNIQUE, v text);
	CREATE TABLE dropped (id int PRIMARY KEY);
	CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF OLD.v = 'waits' THEN
			PERFORM pg_advisory_xact_lock_shared(42);
		END IF;
		RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
	END $$;
	CREATE TRIGGER wait BEFORE UPDATE OR DELETE ON u FOR EACH ROW EXECUTE FUNCTION wait();
});
create_first_node($a);
join_node($b, $a);
join_node($c, $a);
$c->sql_here(q{
	ALTER TABLE u ENABLE REPLICA TRIGGER wait;
	SELECT bdr.alter_node_set_conflict_resolver('node_c', 'multiple_unique_conflicts', 'update_if_newer')});

my $waits = q{SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted};
my $holder;
sub close_gate
{
	$holder = $c->background_psql($c->db, on_error_stop => 1);
	$holder->query_safe('SELECT pg_advisory_lock(42)');
	return;
}
sub open_gate { $holder->quit; return; }
# All that a has committed so far.
sub applied_on_c
{
	my $slot = $a->sql(q{SELECT slot_name FROM bdr.node_slots WHERE target_name = 'node_c'});
	$a->sql("SELECT bdr.wait_slot_confirm_lsn(@{[quote_literal($slot)]})");
	return;
}

# ---- a row takes the place of another one, and its own key is deleted meanwhile ----

hold($a, $c);
hold($b, $c);
$c->sql(q{INSERT INTO u VALUES (2, 'code', 'o2', 'waits')});
close_gate();
$a->sql(q{INSERT INTO u VALUES (1, 'code', 'o1', 'of a')});
$c->wait_ok($waits, 't', 'the insert waits while it takes the place of another row');
$b->wait_ok('SELECT v FROM u WHERE id = 1', 'of a', 'the third node has it already');
$b->sql('DELETE FROM u WHERE id = 1');
$c->wait_ok(q{SELECT count(*) FROM bdr.row_stamp WHERE relid = 'u'::regclass}, '1', 'the delete has come before it is there');
open_gate();
applied_on_c();
$c->value_ok('SELECT id, code, v FROM u ORDER BY id', '2|code|waits', 'the row that was deleted meanwhile has not come back');

# ---- several rows make room, and a newer row of the key comes meanwhile ----

$c->sql(q{DELETE FROM bdr.conflict_history; INSERT INTO u VALUES (11, 'c11', 'o11', 'free'), (12, 'c12', 'o12', 'waits')});
close_gate();
$a->sql(q{INSERT INTO u VALUES (10, 'c11', 'o12', 'of a')});
$c->wait_ok($waits, 't', 'the insert waits while it removes the rows in its way');
$c->sql(q{INSERT INTO u VALUES (10, 'x', 'y', 'newer')});
open_gate();
applied_on_c();
$c->value_ok('SELECT id, v FROM u WHERE id >= 10 ORDER BY id', "10|newer\n11|free\n12|waits", 'neither the newer row nor the others are lost');
$c->value_ok(q{SELECT conflict_type, conflict_resolution FROM bdr.conflict_history}, 'multiple_unique_conflicts|skip', 'it is told as it came out');
release_all();

# ---- a table that was dropped is remembered ----

$c->sql_here('DROP TABLE dropped');
$c->stop('immediate');
$c->start;
$a->sql('INSERT INTO dropped VALUES (1); TRUNCATE dropped');
applied_on_c();
$c->value_ok(q{SELECT relname, conflict_resolution FROM bdr.conflict_history WHERE conflict_type = 'target_table_missing'},
	"dropped|skip\ndropped|skip", 'changes of a table that was dropped before a crash are skipped');
done_testing();
