# DDL among three nodes: from each of them, behind a peer, with errors, with roles, and of a node that dies.

use strict;
use warnings FATAL => 'all';

use BDR::Group;
use BDR::Test;
use Test::More;

my ($a, $b, $c) = map { BDR::Node->create($_, conf => "bdr.ddl_locking = on") } qw(a b c);
my @nodes = ($a, $b, $c);
$a->sql('CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE log (node text, n int, what text, PRIMARY KEY (node, n))');
create_first_node($a);
join_node($b, $a);
join_node($c, $b);
active_ok(\@nodes, 'three nodes');

sub alike_ok
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return all_same_ok(\@nodes, [
		q{SELECT n.nspname, c.relname, c.relkind, pg_get_userbyid(c.relowner), c.relacl::text FROM pg_class c
			JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^(pg_|bdr$|information_schema)'},
		q{SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
			WHERE c.relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped}], $name);
}

# Three migrations at once, each of its own tables.
my @sessions = map { $_->background_psql($_->db, on_error_stop => 0) } @nodes;
for my $round (1 .. 3)
{
	for my $i (0 .. 2)
	{
		my $name = "m_$nodes[$i]{_name}_$round";
		$sessions[$i]->query_until(qr/begun $round/, "\\echo begun $round\nBEGIN; CREATE TABLE $name (id int PRIMARY KEY, v text); INSERT INTO $name SELECT i, 'v' FROM generate_series(1, 500) i;
			ALTER TABLE $name ADD COLUMN w int DEFAULT 3; CREATE INDEX ON $name (v); INSERT INTO $name VALUES (1000, 'x', 4); COMMIT;\n");
	}
	# one goes on when the one before it has committed
	$_->query_safe('SELECT 1') for @sessions;
}
$_->quit for @sessions;
alike_ok('migrations on three nodes at once');
all_same_ok(\@nodes, [ map { my $n = $_; map { "m_${n}_$_" } 1 .. 3 } qw(a b c) ], 'their rows');

# A large transaction, with DDL in the middle, to a peer that is behind; so global locks of tables can't be had.
$c->sql('SELECT bdr.alter_subscription_disable(immediate := true)');
$a->sql(q{SET bdr.ddl_locking = off; SET client_min_messages = error; BEGIN; CREATE TABLE large (id int PRIMARY KEY, v text); INSERT INTO large SELECT i, 'before' FROM generate_series(1, 40000) i;
	ALTER TABLE large ADD COLUMN n int DEFAULT 1; SAVEPOINT s; ALTER TABLE large DROP COLUMN v; ROLLBACK TO s;
	UPDATE large SET n = id WHERE id % 100 = 0; ALTER TABLE large ALTER COLUMN n TYPE bigint; INSERT INTO large VALUES (100000, 'after', 10000000000);
	CREATE TABLE copied AS SELECT * FROM large WHERE n > 1; COMMIT;
	ALTER TABLE large RENAME TO huge; INSERT INTO huge VALUES (100001, 'renamed', 5); ALTER TABLE huge DROP COLUMN v});
$b->wait_ok('SELECT count(*) FROM huge', '40002', 'b has it');
$b->sql("INSERT INTO huge VALUES (200000, 7)");
$c->sql('SELECT bdr.alter_subscription_enable()');
alike_ok('a large transaction with DDL, behind');
all_same_ok(\@nodes, [ 'huge', 'copied' ], 'its rows');
$b->sql('UPDATE huge SET n = n + 1 WHERE id < 10'); $c->sql('DELETE FROM huge WHERE id = 11');
all_same_ok(\@nodes, ['huge'], 'a table that was written anew takes changes from everywhere');

# Roles.
$a->sql(q{CREATE ROLE app LOGIN PASSWORD 'secret'; CREATE ROLE readers; GRANT readers TO app; GRANT CREATE ON SCHEMA public TO app;
	ALTER ROLE app SET work_mem = '8MB'; COMMENT ON ROLE app IS 'the application'});
my $roles = "SELECT rolname, rolcanlogin, rolconfig::text, shobj_description(oid, 'pg_authid'), pg_has_role('app', 'readers', 'MEMBER') FROM pg_roles WHERE rolname IN ('app', 'readers')";
all_same_ok(\@nodes, [$roles], 'roles');
$b->value_ok("SELECT count(*) FROM pg_roles WHERE rolname IN ('app', 'readers')", '2', 'are there');
$b->sql('SET ROLE app; CREATE TABLE of_app (id int PRIMARY KEY); INSERT INTO of_app VALUES (1)');
alike_ok('and own what they make');
$a->sql('SET bdr.role_replication = off; CREATE ROLE only_on_a');
all_caught_up(@nodes);
$b->value_ok("SELECT count(*) FROM pg_roles WHERE rolname = 'only_on_a'", '0', 'bdr.role_replication keeps them');
$a->fails_ok('SET ROLE app; SET bdr.ddl_replication = off', '42501', qr/permission denied to set parameter "bdr.ddl_replication"/, undef,
	'not everybody may keep DDL from the group');

$a->fails_ok(q{SET ROLE app; SELECT pg_logical_emit_message(true, 'bdr.ddl', 'x')}, '42501', qr/permission denied for function pg_logical_emit_message/, undef,
	'nor write what other nodes take for DDL');

# What a user's function does while the statement runs elsewhere, it does as that user.
$a->sql(q{SET SESSION AUTHORIZATION app;
	CREATE FUNCTION climb(int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
		BEGIN EXECUTE 'SET SESSION AUTHORIZATION ' || (SELECT quote_ident(rolname) FROM pg_roles WHERE oid = 10); EXECUTE 'ALTER ROLE app SUPERUSER';
		EXCEPTION WHEN OTHERS THEN NULL; END;
		BEGIN EXECUTE 'RESET SESSION AUTHORIZATION'; EXECUTE 'ALTER ROLE app SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
		BEGIN EXECUTE 'RESET ROLE'; EXECUTE 'ALTER ROLE app SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
		RETURN true; END $$;
	ALTER TABLE of_app ADD CONSTRAINT climbing CHECK (climb(id))});
alike_ok('a constraint with a function');
$_->value_ok("SELECT rolsuper FROM pg_roles WHERE rolname = 'app'", 'f', $_->name . ': it gets nobody any rights') for @nodes;

# Errors: what is there already, a role that is not.
$c->sql_here('CREATE TABLE in_the_way (other int)');
$a->sql("BEGIN; INSERT INTO t VALUES (1, 'same transaction'); CREATE TABLE in_the_way (id int PRIMARY KEY); INSERT INTO in_the_way VALUES (1); COMMIT");
$c->wait_ok("SELECT count(*) > 0 FROM bdr.worker_errors WHERE error_message ~ 'relation \"in_the_way\" already exists'", 't', 'a table in the way stops the stream');
my $context = $c->sql("SELECT error_context_message FROM bdr.worker_errors WHERE error_message ~ 'in_the_way' LIMIT 1");
like($context, qr/replicated statement: CREATE TABLE in_the_way \(id int PRIMARY KEY\)/, 'the context has the statement');
like($context, qr/during apply of CREATE TABLE from node "node_a", commit LSN [0-9A-F]+\/[0-9A-F]+, change #2/, 'and where it comes from');
$c->value_ok('SELECT count(*) FROM t', '0', 'nothing of the transaction is applied');
$b->wait_ok('SELECT count(*) FROM in_the_way', '1', 'other nodes go on');
$b->sql("INSERT INTO t VALUES (2, 'from b')");
$c->wait_ok('SELECT id FROM t', '2', 'other directions go on');
$c->sql_here('DROP TABLE in_the_way');
all_same_ok(\@nodes, [ 't', 'in_the_way' ], 'it goes on when the way is free');
$a->sql_here('ALTER TABLE t OWNER TO only_on_a');
$a->sql('SET ROLE only_on_a; ALTER TABLE t ADD COLUMN w int');
for my $node ($b, $c)
{
	$node->wait_ok("SELECT count(*) > 0 FROM bdr.worker_errors WHERE error_message ~ 'role \"only_on_a\", which ran ALTER TABLE'", 't', $node->name . ' misses a role');
	$node->sql_here('CREATE ROLE only_on_a SUPERUSER');
}
all_caught_up(@nodes);
$_->value_ok("SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'w'", '1', $_->name . ' goes on when it is there') for $b, $c;
$_->sql_here('ALTER TABLE t OWNER TO app') for @nodes;

# Giving one up: by resolver, and by hand.
$c->sql("SELECT bdr.alter_node_set_conflict_resolver('node_c', 'apply_error_ddl', 'skip_transaction')");
$c->sql_here('CREATE TABLE in_the_way_2 (other int)');
my $position = $c->log_position;
$a->sql("BEGIN; INSERT INTO t VALUES (3, 'left out'); CREATE TABLE in_the_way_2 (id int PRIMARY KEY); INSERT INTO in_the_way_2 VALUES (1); COMMIT; INSERT INTO t VALUES (4, 'next')");
all_caught_up(@nodes);
$c->value_ok('SELECT string_agg(id::text, $$,$$ ORDER BY id) FROM t WHERE id > 2', '4', 'skip_transaction leaves out the transaction, and nothing else');
like($c->log_since($position), qr/WARNING:.*left out a transaction of node "node_a" whose CREATE TABLE failed: relation "in_the_way_2" already exists/, 'and says so');
$c->sql("SELECT bdr.alter_node_set_conflict_resolver('node_c', 'apply_error_ddl', 'error')");
$c->sql_here('CREATE TABLE in_the_way_3 (other int)');
$a->sql("BEGIN; INSERT INTO t VALUES (5, 'skipped'); CREATE TABLE in_the_way_3 (id int PRIMARY KEY); COMMIT; INSERT INTO t VALUES (6, 'next')");
$c->wait_ok("SELECT count(*) > 0 FROM bdr.worker_errors WHERE error_message ~ 'in_the_way_3'", 't', 'stopped again');
my ($lsn) = $c->sql("SELECT error_context_message FROM bdr.worker_errors WHERE error_message ~ 'in_the_way_3' LIMIT 1") =~ /commit LSN ([0-9A-F\/]+)/;
my $sub = $c->sql("SELECT sub_name FROM bdr.subscription_summary WHERE origin_name = 'node_a'");
$c->fails_ok("SELECT bdr.alter_subscription_skip_changes_upto('$sub', '$lsn')", '55000', qr/is still receiving/, qr/alter_subscription_disable/, 'not while it receives');
$c->sql("SELECT bdr.alter_subscription_disable('$sub', immediate := true)");
$c->wait_ok("SELECT count(worker_pid) FROM bdr.show_subscription_status() JOIN bdr.node ON node_id = peer WHERE node_name = 'node_a'", '0', 'disabled');
$c->fails_ok("SELECT bdr.alter_subscription_skip_changes_upto('$sub', '0/1')", '22023', qr/have been applied already/, undef, 'not backwards');
$c->sql("SELECT bdr.alter_subscription_skip_changes_upto('$sub', '$lsn')");
$c->sql("SELECT bdr.alter_subscription_enable('$sub')");
all_caught_up(@nodes);
$c->value_ok('SELECT string_agg(id::text, $$,$$ ORDER BY id) FROM t WHERE id > 4', '6', 'skipped by hand');
$_->sql_here('DROP TABLE in_the_way_2, in_the_way_3; DELETE FROM t WHERE id IN (3, 5)') for $a, $c;
$b->sql_here('DROP TABLE in_the_way_2, in_the_way_3');
all_caught_up(@nodes);

# Extensions: the statement travels, what its script does does not.
$a->sql('CREATE EXTENSION hstore; CREATE TABLE with_hstore (id int PRIMARY KEY, h hstore)');
$a->sql(q{INSERT INTO with_hstore VALUES (1, 'a=>1')});
alike_ok('an extension');
all_same_ok(\@nodes, ['with_hstore'], 'rows of its types');
$b->sql('DROP EXTENSION hstore CASCADE');
alike_ok('is dropped');

# Event triggers run where the statement is typed; what they do travels.
$a->sql(q{CREATE FUNCTION note_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN
		FOR r IN SELECT * FROM pg_event_trigger_ddl_commands() LOOP
			IF r.command_tag IN ('CREATE TABLE', 'CREATE VIEW') THEN
				INSERT INTO log SELECT current_setting('cluster_name'), count(*), r.object_identity FROM log;
				EXECUTE 'GRANT SELECT ON ' || r.object_identity || ' TO readers';
				IF r.command_tag = 'CREATE TABLE' THEN EXECUTE 'INSERT INTO ' || r.object_identity || ' VALUES (0)'; END IF;
			END IF;
		END LOOP; END $$;
	CREATE EVENT TRIGGER note_ddl ON ddl_command_end EXECUTE FUNCTION note_ddl()});
all_caught_up(@nodes);
$a->sql('CREATE TABLE noted (id int PRIMARY KEY); INSERT INTO noted VALUES (1); CREATE VIEW noted_view AS SELECT id FROM noted');
$b->sql('CREATE TABLE noted_b (id int PRIMARY KEY)') if all_caught_up(@nodes);
alike_ok('rights that an event trigger gives');
all_same_ok(\@nodes, [ 'log', 'noted', 'noted_b', 'noted_view' ], 'rows that it writes, once');
$a->value_ok('SELECT count(*) FROM log', '3', 'all of them');
$a->sql('DROP EVENT TRIGGER note_ddl');
all_caught_up(@nodes);

# Statements for all or some nodes.
my $answer = $a->sql(q{SELECT count(*), count(DISTINCT e->>'node_id'), bool_and(e->'response'->>'command_status' = 'CREATE INDEX')
	FROM json_array_elements(bdr.run_on_all_nodes($$ CREATE INDEX CONCURRENTLY huge_n ON huge (n) $$)) e});
is($answer, '3|3|t', 'CREATE INDEX CONCURRENTLY on all nodes');
alike_ok('it is on all');
is($a->sql(q{SELECT bdr.run_on_nodes(ARRAY['node_b'], 'SELECT 1 AS one, NULL AS nothing, true AS yes, ''a"b'' AS t, ''NaN''::float8 AS f')->0->'response'}),
	'{"command_status":"SELECT 1","command_tuples":[{"one":1,"nothing":null,"yes":true,"t":"a\"b","f":"NaN"}]}', 'what a node answers');
$a->fails_ok(q{SELECT bdr.run_on_nodes(ARRAY['nobody'], 'SELECT 1')}, '42704', qr/there is no node "nobody"/, undef, 'an unknown node');
$a->fails_ok(q{SELECT bdr.run_on_group('other', 'SELECT 1')}, '42704', qr/there is no node group "other"/, undef, 'an unknown group');
is($a->sql(q{SELECT e->>'node_name', e->'response'->>'error_sqlstate' FROM json_array_elements(bdr.run_on_group('the_node_group',
	'SELECT 1/0')) e ORDER BY 1}), "node_a|22012\nnode_b|22012\nnode_c|22012", 'errors are answers');
$a->sql(q{SET bdr.ddl_replication = off; SELECT bdr.replicate_ddl_command('CREATE TABLE public.by_command (id int PRIMARY KEY); ALTER TABLE public.by_command ADD COLUMN v int')});
alike_ok('bdr.replicate_ddl_command');
$a->sql(q{SELECT bdr.replicate_ddl_command('CREATE TABLE public.elsewhere (id int PRIMARY KEY)', execute_locally := false)});
$_->wait_ok("SELECT to_regclass('elsewhere') IS NOT NULL", 't', $_->name . ' has what a did not do') for $b, $c;
$a->value_ok("SELECT to_regclass('elsewhere') IS NULL", 't', 'a has not');
$a->sql_here('CREATE TABLE elsewhere (id int PRIMARY KEY)');
$a->fails_ok(q{SELECT bdr.replicate_ddl_command('INSERT INTO t VALUES (99)')}, '0A000', qr/runs DDL only/, undef, 'DDL only');

# A node dies that one of the others has not heard: the DDL comes from who has.
$c->sql("SELECT bdr.alter_subscription_disable('$sub', immediate := true)");
$c->wait_ok("SELECT count(worker_pid) FROM bdr.show_subscription_status() JOIN bdr.node ON node_id = peer WHERE node_name = 'node_a'", '0', 'c does not listen to a');
$a->sql('BEGIN; CREATE TABLE last_words (id int PRIMARY KEY, v text); INSERT INTO last_words VALUES (1, $$x$$); ALTER TABLE last_words ADD COLUMN n int DEFAULT 5; COMMIT;
	INSERT INTO last_words VALUES (2, $$y$$, 6)');
$b->wait_ok("SELECT count(*) FROM last_words", '2', 'b has heard it');
$a->stop('immediate');
$b->sql("SELECT bdr.part_node('node_a', force := true)", timeout => 120);
$c->wait_ok("SELECT count(*), sum(n) FROM last_words", '2|11', 'c gets it from b');

logs_ok($b, $c);
done_testing();
