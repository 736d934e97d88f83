# Functions that act like DDL: called on one node, they take effect on all, once and in the order of the stream. Settings of the
# session that creates an object decide on all nodes, whatever is set there.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::Test;
use Test::More;

# each node has settings of its own for what it creates
my ($a, $b, $c) = (
	BDR::Node->create('a', conf => "bdr.default_sequence_kind = 'distributed'"),
	BDR::Node->create('b', conf => "bdr.default_sequence_kind = 'local'\nbdr.default_conflict_detection = 'row_version'"),
	BDR::Node->create('c', conf => "bdr.default_sequence_kind = 'timeshard'\nbdr.default_replica_identity = 'full'"));
my @nodes = ($a, $b, $c);
$a->sql('CREATE ROLE owner; CREATE TABLE "T t" (id int PRIMARY KEY, v text, w text); ALTER TABLE "T t" REPLICA IDENTITY FULL; CREATE SEQUENCE l; CREATE SEQUENCE g AS int');
create_first_node($a);
$_->sql('CREATE ROLE owner') for $b, $c;
join_node($b, $a);
join_node($c, $b);
active_ok(\@nodes, 'three nodes');

my $objects = q{SELECT c.relname, c.relkind, c.relreplident, array_agg(a.attname::text || ' ' || format_type(a.atttypid, a.atttypmod) ORDER BY a.attname),
		ARRAY(SELECT tgname::text || tgtype FROM pg_trigger t WHERE t.tgrelid = c.oid ORDER BY tgname) AS triggers,
		(SELECT seqkind FROM bdr.sequences s WHERE s.relname = c.relname) AS kind
	FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped
	WHERE c.relnamespace = 'public'::regnamespace GROUP BY c.oid};
sub alike_ok
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return all_same_ok(\@nodes, [$objects], $name);
}
# Conflict detection. Once: each node counts what it has run for others.
my $ran = "SELECT sum(nddl) FROM bdr.stat_subscription";
my $before = $b->sql($ran);
$a->value_ok(q{SELECT bdr.alter_table_conflict_detection('"T t"', 'row_version', 'ver sion', 'smallint')}, 't', 'conflict detection by versions');
alike_ok('is that of all nodes');
$b->value_ok("SELECT conflict_detection FROM bdr.tables WHERE relname = 'T t'", 'row_version', 'as shown on b');
is($b->sql($ran) - $before, 1, 'by one statement');
$b->sql(q{SELECT bdr.column_timestamps_enable('"T t"', from_commit := true)});
alike_ok('timestamps of columns');
$c->value_ok("SELECT conflict_detection FROM bdr.tables WHERE relname = 'T t'", 'column_level', 'as shown on c');
$c->sql(q{SELECT bdr.column_timestamps_disable('"T t"')});
alike_ok('no timestamps of columns');
is($b->sql($ran) - $before, 2, 'one statement from each other node');

# In the order of the stream, and with the transaction.
$a->sql(q{BEGIN; CREATE TABLE o (id int PRIMARY KEY, v int); ALTER TABLE o REPLICA IDENTITY FULL; INSERT INTO o VALUES (1, 1);
	SELECT bdr.alter_table_conflict_detection('o', 'row_version'); UPDATE o SET v = 2; INSERT INTO o VALUES (2, 1);
	SAVEPOINT s; SELECT bdr.alter_table_conflict_detection('o', 'row_origin'); ROLLBACK TO s; UPDATE o SET v = 3; COMMIT;
	BEGIN; SELECT bdr.column_timestamps_enable('o'); ROLLBACK});
alike_ok('in the middle of a transaction');
all_same_ok(\@nodes, ['o'], 'its rows');
$c->value_ok('SELECT bdr_row_version FROM o WHERE id = 1', '3', 'with their versions');
$a->sql('CREATE TEMP TABLE x (id int PRIMARY KEY); ALTER TABLE x REPLICA IDENTITY FULL; SELECT bdr.alter_table_conflict_detection(\'x\', \'row_version\')');
alike_ok('temporary tables are nobody else\'s');

# Off: on this node alone.
my ($status, $out, $err) = $a->psql($a->db, "SET bdr.ddl_replication = off; SELECT bdr.alter_table_conflict_detection('o', 'row_origin')");
like($err, qr/bdr\.alter_table_conflict_detection\(\) is not replicated because/, 'with bdr.ddl_replication = off there is a warning');
unlike($err, qr/ALTER TABLE is not|DROP TRIGGER is not/, 'one');
wait_caught_up($a, $b);
$b->value_ok("SELECT conflict_detection FROM bdr.tables WHERE relname = 'o'", 'row_version', 'and the others stay as they are');
$a->sql("SET bdr.ddl_replication = off; SELECT bdr.alter_table_conflict_detection('o', 'row_version')");

# Rights: those of who calls.
$a->fails_ok(q{SET ROLE owner; SELECT bdr.alter_table_conflict_detection('"T t"', 'row_origin')}, '42501', undef, undef, 'not everybody may');
$a->sql('GRANT bdr_application TO owner; CREATE SCHEMA own AUTHORIZATION owner');
$a->fails_ok(q{SET ROLE owner; SELECT bdr.alter_table_conflict_detection('"T t"', 'row_origin')}, '42501', undef, undef, 'nor whoever does not own the table');
$a->sql(q{SET ROLE owner; SET search_path = own; CREATE TABLE mine (id int PRIMARY KEY); ALTER TABLE mine REPLICA IDENTITY FULL; SELECT bdr.alter_table_conflict_detection('mine', 'row_version')});
all_same_ok(\@nodes, [q{SELECT attname FROM pg_attribute WHERE attrelid = 'own.mine'::regclass AND attnum > 0}], 'as the owner');

# Stream triggers.
$b->sql(q{CREATE FUNCTION settle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN bdr.trigger_get_row('TARGET'); END $$;
	SELECT bdr.create_conflict_trigger('it''s \\"one"', ARRAY['INSERT', 'UPDATE'], '"T t"', 'settle()', ARRAY['x', 'a "b" ''c'' \\']);
	SELECT bdr.create_transform_trigger('two', '{DELETE}', '"T t"', 'settle'::regproc)});
my $triggers = 'SELECT tgname, tgtype, tgargs FROM pg_trigger WHERE tgrelid = \'"T t"\'::regclass';
$b->value_ok("SELECT count(*) FROM ($triggers) t", '2', 'stream triggers');
all_same_ok(\@nodes, [$triggers], 'stream triggers');
$c->sql(q{SELECT bdr.drop_trigger('two', '"T t"'); SELECT bdr.drop_trigger('none', '"T t"', true)});
$c->value_ok("SELECT count(*) FROM ($triggers) t", '1', 'dropped');
all_same_ok(\@nodes, [$triggers], 'everywhere');
$a->sql(q{SELECT bdr.drop_trigger('it''s \\"one"', '"T t"')});

# Sequences.
my $kinds = 'SELECT relname, seqkind FROM bdr.sequences';
$a->sql("SELECT nextval('g') FROM generate_series(1, 10)");
$b->sql("SELECT nextval('g') FROM generate_series(1, 500)");
$a->sql("SELECT bdr.alter_sequence_set_kind('l', 'distributed')");
$a->sql("SELECT bdr.alter_sequence_set_kind('g', 'galloc')");
all_same_ok(\@nodes, [$kinds], 'kinds of sequences');
$c->value_ok("SELECT string_agg(relname || ' ' || seqkind, ', ' ORDER BY relname) FROM bdr.sequences WHERE relname IN ('l', 'g')", 'g galloc, l snowflakeid', 'as shown on c');
my @values = map { split /\n/, $_->sql("SELECT nextval('g') FROM generate_series(1, 50)") } @nodes;
my %seen;
is(scalar(grep { $seen{$_}++ } @values), 0, 'no value of a galloc sequence comes twice');
is(scalar(grep { $_ <= 500 } @values), 0, 'nor one that a node had counted');
$b->sql("SELECT bdr.alter_sequence_set_kind('l', 'local', 70)");
$c->wait_ok("SELECT seqkind FROM bdr.sequences WHERE relname = 'l'", 'local', 'local again');
$c->value_ok("SELECT nextval('l')", '70', 'from where it was said');
alike_ok('sequences');

# What is created: the creator's settings count.
$a->sql('CREATE TABLE ad (id bigserial PRIMARY KEY, i int GENERATED ALWAYS AS IDENTITY, v text); CREATE SEQUENCE am');
$b->sql('CREATE TABLE bd (id bigserial PRIMARY KEY, v text); CREATE SEQUENCE bm; CREATE TABLE bc AS SELECT i AS id, \'x\' AS v FROM generate_series(1, 100) i;
	CREATE SCHEMA bs CREATE TABLE inside (id int PRIMARY KEY, v text); CREATE TABLE bl (LIKE bd INCLUDING ALL);
	CREATE TABLE bp (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE bp1 PARTITION OF bp FOR VALUES FROM (1) TO (100)');
$c->sql('CREATE TABLE cd (id bigserial PRIMARY KEY, v text); CREATE TABLE ck (v text); CREATE TABLE cc AS SELECT 1 AS id');
$c->sql('SET bdr.default_replica_identity = auto; CREATE TABLE ca (id bigserial PRIMARY KEY); CREATE TABLE cn (v text); SET bdr.default_replica_identity = nothing; CREATE TABLE co (id bigserial PRIMARY KEY)');
alike_ok('new objects');
all_same_ok(\@nodes, [ 'bc', 'cc', q{SELECT relname, relreplident FROM pg_class WHERE relnamespace = 'bs'::regnamespace} ], 'rows of queries');
all_same_ok(\@nodes, [$kinds], 'kinds of new sequences');
$c->value_ok("SELECT string_agg(relname || ' ' || seqkind, ', ' ORDER BY relname) FROM bdr.sequences WHERE relname ~ '^(am|bm|[abc]d_)'",
	'ad_i_seq galloc, ad_id_seq snowflakeid, am snowflakeid, bd_id_seq local, bm local, cd_id_seq timeshard', 'kinds are the creator\'s');
$a->value_ok("SELECT string_agg(relname || ' ' || relreplident::text, ', ' ORDER BY relname) FROM pg_class WHERE relname ~ '^(ad|b[cdlp]1?|c[acdkno])\$'",
	'ad d, bc f, bd f, bl f, bp f, bp1 f, ca d, cc f, cd f, ck f, cn f, co n', 'replica identities, too');
$a->value_ok("SELECT string_agg(relname || ' ' || conflict_detection, ', ' ORDER BY relname) FROM bdr.tables WHERE relname ~ '^(ad|b[cdlp]|inside|cd)\$'",
	'ad row_origin, bc row_version, bd row_version, bl row_version, bp row_version, cd row_origin, inside row_version', 'and detection of conflicts');

# Keys from all nodes at once.
$a->sql('BEGIN; CREATE TABLE later (id int, v text); ALTER TABLE later ADD COLUMN k bigserial PRIMARY KEY; ALTER TABLE later ADD COLUMN n int GENERATED BY DEFAULT AS IDENTITY UNIQUE; COMMIT');
wait_caught_up($a, $_) for $b, $c;
my @sessions = map { $_->background_psql($_->db) } @nodes;
for my $round (1 .. 5)
{
	for my $i (0 .. 2)
	{
		my $n = $nodes[$i]->name;
		$sessions[$i]->query_safe("INSERT INTO ad (v) SELECT '$n' FROM generate_series(1, 200); INSERT INTO later (id, v) SELECT i, '$n' FROM generate_series(1, 200) i");
	}
}
$_->quit for @sessions;
all_same_ok(\@nodes, [ 'ad', 'later' ], 'serial and identity columns');
$b->value_ok('SELECT count(*), count(DISTINCT id), count(DISTINCT i) FROM ad', '3000|3000|3000', 'no key comes twice');
$b->value_ok('SELECT count(*), count(DISTINCT k), count(DISTINCT n) FROM later', '3000|3000|3000', 'nor in columns that were added');

# Keys that nodes would give out twice.
($status, $out, $err) = $b->psql($b->db, 'CREATE TABLE warned (id serial PRIMARY KEY)');
like($err, qr/keys have defaults from local sequences/, 'a warning of a key from a local sequence');
like($err, qr/HINT:  Type for each: SELECT bdr\.alter_sequence_set_kind\('public\.warned_id_seq', 'distributed'\)/, 'that says what to type');
($status, $out, $err) = $b->psql($b->db, 'CREATE TABLE unwarned (id int PRIMARY KEY, n serial)');
unlike($err, qr/local sequences/, 'none of a column that is no key');
($status, $out, $err) = $a->psql($a->db, 'CREATE TABLE distributed (id serial PRIMARY KEY)');
unlike($err, qr/local sequences/, 'nor of a global sequence');
alike_ok('at the end');

done_testing();
