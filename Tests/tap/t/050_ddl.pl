# DDL reaches the other nodes, where it stands among the rows of its transaction.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;

my ($a, $b) = node_pair(setup => q{
	CREATE ROLE owner LOGIN;
	GRANT CREATE ON SCHEMA public TO owner;
	CREATE TABLE before (id int PRIMARY KEY, v text);
	INSERT INTO before VALUES (1, 'one');
}, setup_b => 'CREATE ROLE owner LOGIN');

# What a catalog says, on both.
sub alike_ok
{
	my ($query, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return same_ok($a, $b, $query, $name);
}

# Tables, from each side.
for my $pair ([ $a, $b ], [ $b, $a ])
{
	my ($from, $to) = @$pair;
	my $name = $from->name;
	$from->sql("CREATE TABLE t_$name (id int PRIMARY KEY, v text); INSERT INTO t_$name VALUES (1, 'one'), (2, 'two')");
	same_ok($a, $b, "t_$name", "a table made on $name, and its rows");
	$from->sql("BEGIN; INSERT INTO t_$name VALUES (3, 'three'); ALTER TABLE t_$name ADD COLUMN n int DEFAULT 7;
		INSERT INTO t_$name VALUES (4, 'four', 4); ALTER TABLE t_$name RENAME COLUMN v TO w; UPDATE t_$name SET w = 'x' WHERE id = 1;
		ALTER TABLE t_$name DROP COLUMN n; INSERT INTO t_$name VALUES (5, 'five'); COMMIT");
	same_ok($a, $b, "SELECT id, w FROM t_$name", "rows and columns in one transaction, on $name");
	$to->sql("INSERT INTO t_$name (id, w) VALUES (10, 'back')");
	same_ok($a, $b, "t_$name", "and the other way, $name");
}

# Definitions, not only tables.
$a->sql(q{
	CREATE SCHEMA "Odd ""Schema";
	SET search_path = "Odd ""Schema", public;
	CREATE TABLE "Quoted Table" ("Id" serial PRIMARY KEY, "Ünïcode" text COLLATE "C" CHECK ("Ünïcode" <> ''));
	CREATE TYPE colour AS ENUM ('red', 'green');
	CREATE DOMAIN percent AS numeric CHECK (VALUE BETWEEN 0 AND 100);
	CREATE TYPE pair AS (a int, b text);
	CREATE VIEW v AS SELECT "Id", upper("Ünïcode") AS u FROM "Quoted Table";
	CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1';
	CREATE INDEX "Quoted Index" ON "Quoted Table" (upper("Ünïcode"));
	COMMENT ON TABLE "Quoted Table" IS 'it''s quoted';
	CREATE SEQUENCE s INCREMENT BY 5;
	GRANT SELECT ON "Quoted Table" TO owner;
	CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM "Quoted Table";
	SET search_path = '';
	CREATE TABLE public.nowhere (a int);
	CREATE SCHEMA elements CREATE TABLE e (id int PRIMARY KEY) CREATE VIEW ev AS SELECT id FROM e CREATE INDEX ON e (id);
	ALTER TYPE "Odd ""Schema".colour ADD VALUE 'blue' BEFORE 'green';
});
my $user_schemas = q{n.nspname NOT IN ('pg_catalog', 'information_schema', 'bdr', 'pg_toast') AND n.nspname !~ '^pg_t'};
my $relations = qq{SELECT n.nspname, c.relname, c.relkind, c.relpersistence, pg_get_userbyid(c.relowner), c.relacl::text, c.reloptions,
	obj_description(c.oid, 'pg_class'), CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) WHEN c.relkind = 'i' THEN pg_get_indexdef(c.oid) END
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE $user_schemas};
my $columns = qq{SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attcollation::regcollation::text,
	pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
	LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum WHERE a.attnum > 0 AND NOT a.attisdropped AND $user_schemas};
alike_ok($relations, 'relations');
alike_ok($columns, 'columns');
alike_ok(q{SELECT enumlabel, enumsortorder FROM pg_enum}, 'labels of a type');
alike_ok(q{SELECT proname, prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname ~ 'Odd'}, 'functions');
$b->value_ok(q{SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'elements'}, '4',
	'a schema with elements');

# Materialized views: REFRESH has effect on one node, and what is made afterwards may read from one that is empty elsewhere.
$a->sql(q{
	CREATE MATERIALIZED VIEW unfilled AS SELECT 1 AS one WITH NO DATA;
	REFRESH MATERIALIZED VIEW unfilled;
	CREATE VIEW through_view AS SELECT one FROM unfilled;
	CREATE MATERIALIZED VIEW upon AS SELECT count(*) FROM (SELECT one FROM through_view) s;
	CREATE TABLE behind_upon (id int PRIMARY KEY);
});
$b->wait_ok(q{SELECT to_regclass('behind_upon') IS NOT NULL}, 't', 'a materialized view that reads one that is not filled everywhere');
$b->value_ok(q{SELECT relispopulated FROM pg_class WHERE relname = 'upon'}, 'f', 'it has no rows there');
$b->sql('REFRESH MATERIALIZED VIEW unfilled; REFRESH MATERIALIZED VIEW upon');
$b->value_ok('SELECT * FROM upon', '1', 'until it is refreshed');

# Fate of transactions and subtransactions; functions; blocks; several statements in one string.
$a->sql(q{
	BEGIN; CREATE TABLE gone (a int); ROLLBACK;
	BEGIN; CREATE TABLE kept (a int PRIMARY KEY); SAVEPOINT s; CREATE TABLE gone2 (a int); ALTER TABLE kept ADD COLUMN gone int;
	ROLLBACK TO s; INSERT INTO kept VALUES (1); COMMIT;
	CREATE FUNCTION make(name text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		EXECUTE format('CREATE TABLE %I (id int PRIMARY KEY)', name);
		EXECUTE format('INSERT INTO %I VALUES (1)', name);
		BEGIN EXECUTE 'CREATE TABLE half (a int)'; PERFORM 1/0; EXCEPTION WHEN division_by_zero THEN NULL; END;
	END $$;
	SELECT make('made by function');
	DO $$ BEGIN CREATE TABLE made_by_do (id int PRIMARY KEY); FOR i IN 1..3 LOOP EXECUTE format('CREATE TABLE loop_%s (a int)', i); END LOOP; END $$;
	CREATE PROCEDURE step() LANGUAGE plpgsql AS $$ BEGIN CREATE TABLE step1 (a int); COMMIT; CREATE TABLE step2 (a int); END $$;
	CALL step();
	CREATE FUNCTION in_sql() RETURNS void LANGUAGE sql AS 'CREATE TABLE from_sql (a int); CREATE TABLE from_sql2 (b int)';
	SELECT in_sql();
});
$a->sql('CREATE TABLE first (a int); /* in between */ CREATE TABLE second (b int); -- end');
alike_ok($relations, 'transactions, functions, blocks');
$b->value_ok(q{SELECT count(*) FROM pg_class WHERE relname ~ '^(gone|half)' AND relkind = 'r'}, '0', 'nothing of what was rolled back');
$b->value_ok(q{SELECT count(*) FROM pg_class WHERE relname ~ '^(step|loop_|from_sql|made|first|second)' AND relkind = 'r'}, '11', 'all of what was not');
same_ok($a, $b, '"made by function"', 'rows of what a function has made');

# CREATE TABLE AS: rows once.
$a->sql(q{
	CREATE TABLE numbers AS SELECT i, i::text AS t, 'x'::varchar(5) COLLATE "C" AS c FROM generate_series(1, 1000) i;
	SELECT i AS j INTO picked FROM numbers WHERE i <= 10;
	CREATE TABLE options WITH (fillfactor = 70, toast.autovacuum_enabled = false) AS SELECT t FROM numbers WITH NO DATA;
	CREATE TABLE IF NOT EXISTS numbers AS SELECT 1;
	PREPARE p AS SELECT 1 AS one; CREATE TABLE prepared AS EXECUTE p;
	EXPLAIN (ANALYZE, COSTS OFF) CREATE TABLE explained AS SELECT 2 AS two;
	CREATE TEMP TABLE temporary AS SELECT 1 AS x; CREATE TABLE from_temporary AS SELECT * FROM temporary;
	DO $$ DECLARE v int := 5; BEGIN CREATE TABLE with_variable AS SELECT v AS v, 'a'::text; END $$;
});
for my $table (qw(numbers picked options prepared explained from_temporary with_variable))
{
	same_ok($a, $b, $table, "CREATE TABLE AS: $table");
}
alike_ok($relations, 'CREATE TABLE AS: what they are');
alike_ok($columns, 'CREATE TABLE AS: columns');
$b->value_ok('SELECT count(*), count(DISTINCT i) FROM numbers', '1000|1000', 'no row twice');

# What concerns this node alone.
$a->sql(q{
	CREATE TEMP TABLE mine (a int); ALTER TABLE mine ADD COLUMN b int; CREATE INDEX ON mine (a); CREATE TEMP VIEW tv AS SELECT * FROM mine;
	CREATE VIEW looks_permanent AS SELECT * FROM mine; CREATE SEQUENCE pg_temp.ts; DROP TABLE mine CASCADE;
	CREATE UNLOGGED TABLE ul (a int); CREATE INDEX ON ul (a); COMMENT ON TABLE ul IS 'here'; DROP TABLE ul;
	CREATE FUNCTION pg_temp.tf() RETURNS int LANGUAGE sql AS 'SELECT 1';
});
same_ok($a, $b, 'before', 'temporary and unlogged tables disturb nobody');
$b->value_ok(q{SELECT count(*) FROM pg_class WHERE relname IN ('mine', 'tv', 'looks_permanent', 'ul')}, '0', 'and are nowhere else');

# The role that types it owns it.
$a->sql('SET SESSION AUTHORIZATION owner; CREATE TABLE owned (id int PRIMARY KEY)');
alike_ok($relations, 'owners');
$b->value_ok("SELECT tableowner FROM pg_tables WHERE tablename = 'owned'", 'owner', 'it belongs to who typed it');

# IF EXISTS and IF NOT EXISTS; dropping.
$a->sql(q{CREATE TABLE IF NOT EXISTS before (other int); DROP TABLE IF EXISTS never_was; DROP TABLE IF EXISTS first, second;
	DROP SCHEMA "Odd ""Schema" CASCADE; DROP VIEW elements.ev; DROP TABLE numbers});
alike_ok($relations, 'dropped');

replicating_ok($a, $b, 'both still replicate');
$a->value_ok('SELECT nddl > 0 FROM bdr.stat_subscription', 't', 'statements are counted');
logs_ok($a, $b);
done_testing();
