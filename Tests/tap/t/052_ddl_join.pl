# DDL on the members while a node joins: it has each statement once, by the copy or by a stream.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::Test;
use Test::More;

my ($a, $b) = node_pair(setup => q{CREATE TABLE t_a (id int PRIMARY KEY, v text); INSERT INTO t_a SELECT i, 'v' FROM generate_series(1, 1000) i;
	CREATE TABLE t_b (id int PRIMARY KEY, v text); INSERT INTO t_b SELECT i, 'v' FROM generate_series(1, 1000) i});
# Stream triggers are DDL, too, and no dump has them.
$a->sql(q{CREATE TABLE watched (id int PRIMARY KEY, v text); ALTER TABLE watched REPLICA IDENTITY FULL;
	CREATE SCHEMA "Odd"; CREATE FUNCTION "Odd"."pass ""on"() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := TG_ARGV[3]; RETURN NEW; END';
	SELECT bdr.create_conflict_trigger('settle', '{INSERT,UPDATE}', 'watched', '"Odd"."pass ""on"()')});
my $n = 0;
my @tables = ('t_a', 't_b');

# From each member: tables, changes of one that is there, and rows. Each has tables of its own, as what two members do has no order.
sub migrate
{
	for my $node ($a, $b)
	{
		my $t = 't_' . $node->name;
		$n++;
		$node->sql("SET client_min_messages = error;
			BEGIN; CREATE TABLE made_$n (id int PRIMARY KEY, v text); INSERT INTO made_$n SELECT i, 'v' FROM generate_series(1, 100) i;
			ALTER TABLE made_$n ADD COLUMN w int DEFAULT $n; INSERT INTO made_$n VALUES (1000, 'x', 0); COMMIT; CREATE INDEX ON made_$n (v);
			CREATE TABLE copied_$n AS SELECT * FROM made_$n; CREATE TABLE gone_$n AS SELECT * FROM made_$n; DROP TABLE gone_$n;
			ALTER TABLE $t ADD COLUMN c_$n int DEFAULT $n; UPDATE $t SET v = 'round $n' WHERE id % 10 = 0; ALTER TABLE $t ALTER COLUMN c_$n TYPE bigint;
			SELECT bdr.create_transform_trigger('on $n', '{UPDATE}', 'watched', '\"Odd\".\"pass \"\"on\"()', ARRAY['a b', E'back\\\\', '', 'n\xc3\xbc $n'])");
		push @tables, "made_$n", "copied_$n";
	}
	return;
}

migrate();
for my $place ('create_slot', 'create_slot:done', 'copy_data', 'set_origins', 'catchup')
{
	(my $name = $place) =~ tr/:/_/;
	my $c = BDR::Node->create("c_$name", node_name => "node_" . ($name =~ tr/_/-/r));
	pause_joins($place, $c);
	make_node($c);
	begin_join($c, $a);
	$c->wait_for('SELECT count(*) > 0 FROM bdr.join_progress', 't');
	my $step = $place =~ s/:.*//r;
	$c->wait_ok('SELECT step FROM bdr.join_progress', $step, "the join waits at $place") unless $place eq 'create_slot:done';
	migrate();
	resume_joins($c);
	is(join_outcome($c), 'ACTIVE', "joined with DDL at $place");
	migrate();
	all_caught_up($a, $b, $c);
	same_rows($a, $c, $_, "$place: $_") for @tables;
	same_rows($a, $c, q{SELECT c.relname, c.relkind, a.attname, a.atttypid::regtype FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
		WHERE c.relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped}, "$place: definitions");
	same_rows($a, $c, q{SELECT tgname, tgrelid::regclass, tgfoid::regproc, tgtype, tgenabled, tgisinternal, tgnargs, tgargs FROM pg_trigger WHERE tgname ~ '_bdr[ct]$'},
		"$place: stream triggers");
	$c->value_ok(q{SELECT count(*) > 2 FROM pg_trigger WHERE tgname ~ '_bdr[ct]$'}, 't', "$place: there are some");
	$c->value_ok("SELECT count(*) FROM bdr.worker_errors WHERE error_message !~ 'was changed while it was copied'", '0', "$place: without an error");
	$a->sql("SELECT bdr.part_node(@{[quote_literal($c->node_name)]})", timeout => 120);
	$c->stop('immediate');
}

logs_ok($a, $b);
done_testing();
