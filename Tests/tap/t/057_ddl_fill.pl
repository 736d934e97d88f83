# ADD COLUMN with a default that each node would evaluate for itself: the rows that are there get the same values on all nodes, those
# of the node where it was typed, also when others write to the table meanwhile.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::Test;
use BDR::Writer;
use Test::More;

my @nodes = map { BDR::Node->create($_, conf => "bdr.ddl_locking = on\nmax_worker_processes = 40") } qw(a b c);
my ($a, $b, $c) = @nodes;
$a->sql(q{
	CREATE ROLE other NOSUPERUSER;
	CREATE TABLE t (id bigint PRIMARY KEY, v text);
	INSERT INTO t SELECT i, repeat('x', i % 50) FROM generate_series(1, 500) i;
	CREATE TABLE far (id int PRIMARY KEY);
	INSERT INTO far VALUES (1);
});
create_first_node($a);
$_->sql('CREATE ROLE other NOSUPERUSER') for $b, $c;
join_node($b, $a);
join_node($c, $b);
active_ok(\@nodes, 'three nodes');

# Columns of a table as all nodes have them, and its constraints.
my $definition = q{SELECT c.relname, c.relreplident, a.attnum, a.attname, format_type(atttypid, atttypmod), attnotnull, attidentity, atthasmissing,
	pg_get_expr(adbin, adrelid), a.attcollation::regcollation, (SELECT array_agg(pg_get_constraintdef(o.oid) ORDER BY conname) FROM pg_constraint o WHERE conrelid = c.oid),
	(SELECT seqkind FROM bdr.sequences s WHERE format('%I.%I', nspname, s.relname) = pg_get_serial_sequence(format('%I', c.relname), a.attname))
	FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid LEFT JOIN pg_attrdef d ON adrelid = attrelid AND adnum = attnum
	WHERE c.relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped};
sub alike_ok
{
	my ($tables, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return all_same_ok(\@nodes, [ @$tables, $definition ], $name);
}

# Every kind of default.
$a->sql(q{
	CREATE FUNCTION next_one() RETURNS int LANGUAGE plpgsql VOLATILE AS 'BEGIN RETURN (random() * 1000000)::int; END';
	CREATE DOMAIN token AS uuid DEFAULT gen_random_uuid() CHECK (VALUE IS NOT NULL OR VALUE IS NULL);
	CREATE DOMAIN needed AS timestamptz NOT NULL;
});
$a->sql('ALTER TABLE t ADD COLUMN s serial');
alike_ok(['t'], 'serial');
$_->value_ok('SELECT count(DISTINCT s), count(*) FROM t WHERE s > 0', '500|500', 'its values on ' . $_->name) for @nodes;
$_->sql('INSERT INTO t (id) VALUES (1000 + ' . ord($_->name) . ')') for @nodes;
alike_ok(['t'], 'rows that come later');
$_->value_ok('SELECT count(DISTINCT s), count(*) FROM t', '503|503', 'on ' . $_->name) for @nodes;
$b->sql('ALTER TABLE t ADD COLUMN i bigint GENERATED ALWAYS AS IDENTITY UNIQUE');
alike_ok(['t'], 'an identity column with a constraint');
$_->value_ok('SELECT count(DISTINCT i), count(*) FROM t', '503|503', 'its values on ' . $_->name) for @nodes;
$b->fails_ok('INSERT INTO t (id, i) VALUES (5000, 1)', '428C9', qr/cannot insert a non-DEFAULT value into column "i"/, undef, 'it is GENERATED ALWAYS');
$c->sql('ALTER TABLE t ADD COLUMN u uuid DEFAULT gen_random_uuid() NOT NULL CONSTRAINT "one u" UNIQUE DEFERRABLE INITIALLY DEFERRED,
	ADD COLUMN at timestamptz DEFAULT now() CHECK (at > \'2000-01-01\'), ADD COLUMN n int DEFAULT next_one() CHECK (n >= 0), ADD COLUMN k text COLLATE "C" DEFAULT \'same\',
	ADD COLUMN tok token, ADD COLUMN plain int, ADD COLUMN f int DEFAULT nextval(\'t_s_seq\') % 1 + 1 REFERENCES far');
alike_ok(['t'], 'several columns');
$_->value_ok('SELECT count(DISTINCT u), count(DISTINCT tok), count(DISTINCT at), count(n), count(plain), min(k), max(f), count(*) FROM t',
	'503|503|1|503|0|same|1|503', 'their values on ' . $_->name) for @nodes;
$_->fails_ok('INSERT INTO t (id, u) SELECT 6000 + i, \'00000000-0000-0000-0000-000000000000\' FROM generate_series(1, 2) i', '23505', qr/"one u"/, undef,
	'the constraint is there on ' . $_->name) for @nodes;
$_->value_ok('INSERT INTO t (id) VALUES (2000 + ' . ord($_->name) . ') RETURNING u IS NOT NULL AND at IS NOT NULL AND tok IS NOT NULL', 't',
	'the defaults are there on ' . $_->name) for @nodes;
alike_ok(['t'], 'rows that come later still');
$a->fails_ok('ALTER TABLE t ADD COLUMN w needed', '23502', qr/null values|not allow null/, undef, 'what the server refuses is refused');
$a->fails_ok('ALTER TABLE t ADD COLUMN w int DEFAULT next_one() CHECK (w < 0)', '23514', qr/violated by some row/, undef, 'also in the second step');
$a->fails_ok('ALTER TABLE t ADD COLUMN w serial DEFAULT 5', '42601', qr/multiple default values/, undef, 'and what is wrong');
$a->fails_ok('ALTER TABLE t ADD COLUMN u uuid DEFAULT gen_random_uuid()', '42701', qr/already exists/, undef, 'and what is there');
$a->sql('ALTER TABLE t ADD COLUMN IF NOT EXISTS u uuid DEFAULT gen_random_uuid()');
$a->fails_ok('ALTER TABLE t ADD COLUMN w uuid DEFAULT gen_random_uuid(), ALTER COLUMN v SET NOT NULL', '0A000', undef, qr/statement of its own/, 'other changes');
$a->fails_ok('ALTER TABLE t ADD COLUMN w uuid DEFAULT gen_random_uuid(), ADD COLUMN x text GENERATED ALWAYS AS (w::text) STORED',
	'0A000', undef, qr/statement of its own/, 'generated columns');
$a->fails_ok(q{SELECT bdr.replicate_ddl_command('ALTER TABLE t ADD COLUMN w serial', execute_locally := false)}, '0A000', qr/on other nodes alone/, undef, 'elsewhere only');
alike_ok(['t'], 'nothing of that stays');
$a->sql(q{SELECT bdr.replicate_ddl_command('ALTER TABLE t ADD COLUMN forced serial')});
alike_ok(['t'], 'by bdr.replicate_ddl_command');

# The statements that a hint names.
$a->sql(q{ALTER TABLE t ADD COLUMN byhand uuid; ALTER TABLE t ALTER COLUMN byhand SET DEFAULT gen_random_uuid(); UPDATE t SET byhand = gen_random_uuid()});
alike_ok(['t'], 'by hand');

# Rules, triggers and policies have no part in it; neither has a missing right to UPDATE.
$a->sql(q{
	CREATE TABLE odd (id int PRIMARY KEY, big text, changed int DEFAULT 0);
	ALTER TABLE odd ALTER COLUMN big SET STORAGE EXTERNAL;
	INSERT INTO odd SELECT i, repeat(i::text, 10000) FROM generate_series(1, 20) i;
	CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.changed := NEW.changed + 1; RETURN NEW; END';
	CREATE TRIGGER count_up BEFORE UPDATE ON odd FOR EACH ROW EXECUTE FUNCTION count_up();
	CREATE RULE none AS ON UPDATE TO odd DO INSTEAD NOTHING;
	ALTER TABLE odd OWNER TO other;
	GRANT CREATE ON SCHEMA public TO other;
	REVOKE UPDATE ON odd FROM other;
	ALTER TABLE odd ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
	SET ROLE other;
	BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1;
	ALTER TABLE odd ADD COLUMN s bigserial, ADD COLUMN who text DEFAULT current_user;
	COMMIT;
});
alike_ok(['odd'], 'triggers, rules, policies, rights');
$_->value_ok('SELECT count(DISTINCT s), sum(changed), min(who), sum(length(big)) FROM odd', '20|0|other|310000', 'the values of all rows on ' . $_->name) for @nodes;

# What is stored about roles, by a session that has another one.
$a->sql(q{ALTER ROLE other SET role = 'other'; SET ROLE other; CREATE FUNCTION as_other() RETURNS name LANGUAGE sql SET role = 'other' AS 'SELECT current_user'});
all_same_ok(\@nodes, [q{SELECT r.rolname, setconfig FROM pg_db_role_setting JOIN pg_roles r ON r.oid = setrole}, q{SELECT proowner::regrole, proconfig FROM pg_proc WHERE proname = 'as_other'}],
	'settings of role');
$c->value_ok('SELECT as_other()', 'other', 'have effect');

# Partitions, inheritance, and tables without a key.
$b->sql(q{
	CREATE TABLE parts (id int, k int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
	CREATE TABLE part1 PARTITION OF parts FOR VALUES IN (1);
	CREATE TABLE part2 (extra text, k int NOT NULL, id int NOT NULL);
	ALTER TABLE part2 DROP COLUMN extra;
	ALTER TABLE parts ATTACH PARTITION part2 FOR VALUES IN (2);
	INSERT INTO parts SELECT i, 1 + i % 2 FROM generate_series(1, 100) i;
	ALTER TABLE parts ADD COLUMN s serial, ADD COLUMN u uuid DEFAULT gen_random_uuid() NOT NULL;
	CREATE TABLE old (id int PRIMARY KEY);
	CREATE TABLE young (PRIMARY KEY (id)) INHERITS (old);
	INSERT INTO old VALUES (1), (2);
	INSERT INTO young VALUES (3), (4);
	ALTER TABLE old ADD COLUMN u uuid DEFAULT gen_random_uuid();
	CREATE TABLE keyless (v text);
	INSERT INTO keyless SELECT 'same' FROM generate_series(1, 50);
	ALTER TABLE keyless ADD COLUMN id serial PRIMARY KEY;
	CREATE TABLE keyless2 (v text);
	ALTER TABLE keyless2 REPLICA IDENTITY NOTHING;
	INSERT INTO keyless2 SELECT 'same' FROM generate_series(1, 50);
	ALTER TABLE keyless2 ADD COLUMN u uuid DEFAULT gen_random_uuid();
	CREATE TABLE fullid (v text, w text);
	ALTER TABLE fullid REPLICA IDENTITY FULL;
	INSERT INTO fullid SELECT 'same' FROM generate_series(1, 50);
	ALTER TABLE fullid ADD COLUMN id int GENERATED BY DEFAULT AS IDENTITY;
});
alike_ok([qw(parts part1 part2 old young keyless keyless2 fullid)], 'partitions, inheritance, no key');
$_->value_ok('SELECT (SELECT count(DISTINCT s) FROM parts), (SELECT count(DISTINCT u) FROM old), (SELECT count(DISTINCT id) FROM keyless),
	(SELECT count(DISTINCT u) FROM keyless2), (SELECT count(DISTINCT id) FROM fullid)', '100|4|50|50|50', 'their values on ' . $_->name) for @nodes;
$a->sql('ALTER TABLE young ADD COLUMN w uuid');
$a->fails_ok('ALTER TABLE old ADD COLUMN w uuid DEFAULT gen_random_uuid()', '0A000', undef, qr/statement of its own/, 'a column of a child');
$a->fails_ok('ALTER TABLE old ADD COLUMN x int GENERATED ALWAYS AS IDENTITY', '42P16', qr/cannot recursively add identity column/, undef, 'identity of a parent');
$c->sql('UPDATE keyless SET v = id::text; DELETE FROM keyless WHERE id % 2 = 0');
alike_ok(['keyless'], 'the key is one');

# Other methods of conflict detection.
$a->sql(q{
	CREATE TABLE byversion (id int PRIMARY KEY, v int);
	CREATE TABLE bycolumn (id int PRIMARY KEY, v int);
	ALTER TABLE byversion REPLICA IDENTITY FULL;
	ALTER TABLE bycolumn REPLICA IDENTITY FULL;
	SELECT bdr.alter_table_conflict_detection('byversion', 'row_version');
	SELECT bdr.column_timestamps_enable('bycolumn');
});
all_same_ok(\@nodes, [$definition], 'tables with other methods');
my $number = 0;
$_->sql('INSERT INTO byversion VALUES (' . ++$number . ', 1); INSERT INTO bycolumn VALUES (' . $number . ', 1)') for @nodes;
all_same_ok(\@nodes, [qw(byversion bycolumn)], 'rows of all nodes in them');
$_->sql("UPDATE byversion SET v = 2 WHERE id = 1; UPDATE bycolumn SET v = v + 1 WHERE id = 2") for $b, $c;
$b->sql('ALTER TABLE byversion ADD COLUMN u uuid DEFAULT gen_random_uuid(); ALTER TABLE bycolumn ADD COLUMN u uuid DEFAULT gen_random_uuid()');
alike_ok([qw(byversion bycolumn)], 'get values');
$_->value_ok('SELECT (SELECT count(DISTINCT u) FROM byversion), (SELECT count(DISTINCT u) FROM bycolumn)', '3|3', 'on ' . $_->name) for @nodes;

# Writers of all nodes meanwhile, also in a table without a key.
{
	$a->sql($BDR::Writer::tables);
	all_same_ok(\@nodes, [$definition], 'tables for writers');
	my @writers = map { BDR::Writer->start($_, pause => 1000) } @nodes;
	my $wait = sub {
		my ($more, $name) = @_;
		my $then = $a->sql('SELECT count(*) FROM written');
		$_->wait_ok("SELECT bool_and(n) FROM (SELECT count(*) FILTER (WHERE node = w) > $then / 3 + $more AS n
			FROM written, unnest('{a,b,c}'::text[]) w GROUP BY w) x", 't', "$name on " . $_->name) for @nodes;
	};
	$wait->(50, 'writers write');
	$b->sql('ALTER TABLE last_written ADD COLUMN s bigserial');
	$c->sql('ALTER TABLE written ADD COLUMN key serial PRIMARY KEY');
	$wait->(50, 'and go on');
	$a->sql('ALTER TABLE last_written ADD COLUMN u uuid DEFAULT gen_random_uuid() UNIQUE');
	$a->sql('ALTER TABLE written ADD COLUMN u uuid NOT NULL DEFAULT gen_random_uuid()');
	$wait->(50, 'and once more');
	my $acknowledged = 0;
	$acknowledged += $_->finish for @writers;
	is(join('', map { $_->error } @writers), '', 'no writer was disturbed');
	alike_ok([qw(written last_written)], 'rows of writers');
	for my $node (@nodes)
	{
		is_deeply(BDR::Writer::count($node, @writers), { acknowledged => $acknowledged, lost => 0, doubled => 0 }, 'each row once on ' . $node->name);
		$node->value_ok('SELECT count(*) = count(DISTINCT key) AND count(*) = count(DISTINCT u) FROM written', 't', 'with values of its own on ' . $node->name);
		$node->value_ok("SELECT count(*) FROM bdr.worker_errors WHERE error_context_message ~ 'replicated statement'", '0', 'no errors on ' . $node->name);
	}
}

# Without global locks, and large enough to be streamed.
$a->sql(q{CREATE TABLE large (id int PRIMARY KEY); INSERT INTO large SELECT generate_series(1, 20000)});
all_same_ok(\@nodes, ['large'], 'a large table');
$a->sql(q{SET bdr.ddl_locking = off; SET logical_decoding_work_mem = '64kB'; ALTER TABLE large ADD COLUMN u uuid NOT NULL DEFAULT gen_random_uuid()});
alike_ok(['large'], 'its values');

done_testing();
