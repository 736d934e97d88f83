# Session hygiene: whatever ALTER SYSTEM, ALTER DATABASE and ALTER ROLE set on both nodes, before and after the join, and
# whatever a user's objects are called: the join and the replication go on, and values arrive as they were.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;
use Time::HiRes qw(time);

# What our own sessions do without; all others, those of bdr among them, get what is set below.
my $plain = join ' ', map { "-c $_" } 'statement_timeout=0', 'lock_timeout=0', 'idle_in_transaction_session_timeout=0',
	'idle_session_timeout=0', 'search_path=public', 'default_transaction_read_only=off', 'exit_on_error=off',
	'client_encoding=UTF8', 'default_transaction_isolation=read\ committed', 'default_transaction_deferrable=off',
	'session_replication_role=origin', 'xmloption=content';

my %hostile = (
	statement_timeout => '1ms',
	lock_timeout => '1ms',
	idle_in_transaction_session_timeout => '1ms',
	idle_session_timeout => '20ms',
	default_transaction_read_only => 'on',
	default_transaction_isolation => 'serializable',
	default_transaction_deferrable => 'on',
	search_path => ['trap', 'pg_catalog', 'public'],
	DateStyle => ['SQL', 'DMY'],
	IntervalStyle => 'sql_standard',
	TimeZone => 'Asia/Kathmandu',
	extra_float_digits => '0',
	bytea_output => 'escape',
	xmloption => 'document',
	xmlbinary => 'hex',
	row_security => 'off',
	session_replication_role => 'replica',
	check_function_bodies => 'on',
	synchronous_commit => 'remote_apply',
	client_encoding => 'LATIN1',
	transform_null_equals => 'on',
	quote_all_identifiers => 'on',
	array_nulls => 'off',
	standard_conforming_strings => 'off',
	escape_string_warning => 'on',
	backslash_quote => 'off',
	exit_on_error => 'on',
	gin_fuzzy_search_limit => '1',
	enable_seqscan => 'off',
	enable_indexscan => 'off',
	enable_indexonlyscan => 'off',
	plan_cache_mode => 'force_custom_plan',
	jit_above_cost => '0',
	lc_monetary => 'C.UTF-8',
	client_min_messages => 'error');

# Sets all that, or takes it back, at every level, of both roles that bdr's processes and sessions run as.
sub hostile
{
	my ($node, $on) = @_;
	my $sql = '';
	for my $name (sort keys %hostile)
	{
		my $value = $hostile{$name};
		$value = join ', ', map { quote_literal($_) } ref $value ? @$value : $value;
		for my $level ('ALTER SYSTEM', 'ALTER DATABASE ' . quote_ident($node->db), 'ALTER ROLE postgres', 'ALTER ROLE peer')
		{
			$sql .= $on ? "$level SET $name = $value;\n" : "$level RESET $name;\n";
		}
	}
	# the schema is not there on both yet, which is only noticed
	$node->sql("SET client_min_messages = error;\n$sql");
	return;
}

# The server itself must not inherit what our sessions are given.
sub restart
{
	my ($node) = @_;
	delete local $ENV{PGOPTIONS};
	$node->restart;
	return;
}

my $tables = q{
	CREATE TYPE mood AS ENUM ('sad', 'ok');
	CREATE TYPE odd AS (ts timestamptz, d date, iv interval, f8 float8, f4 float4, by bytea, a int[], t text, x xml);
	CREATE DOMAIN positive AS float8 CHECK (VALUE > 0);
	CREATE TYPE floats AS RANGE (subtype = float8);
	CREATE TABLE plain (
		id int PRIMARY KEY, ts timestamptz, t0 timestamp, d date, iv interval, f8 float8, f4 float4, n numeric, by bytea,
		t text, b bool);
	CREATE TABLE other (
		id int PRIMARY KEY, m mood, o odd, os odd[], p positive, r floats, x xml, a int[], ta text[], mo money, tr tstzrange,
		j jsonb);
	CREATE TABLE parent (id int PRIMARY KEY, "select" text);
	CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE);
	CREATE INDEX ON other USING gin (ta);
	CREATE TABLE no_key (ts timestamptz, f8 float8, t text);
	ALTER TABLE no_key REPLICA IDENTITY FULL;
	CREATE TABLE "Odd ""name""" ("Küche" int PRIMARY KEY, "say ""x""" text DEFAULT 'a\b');
	CREATE TABLE guarded (id int PRIMARY KEY, t text);
	ALTER TABLE guarded ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
	CREATE POLICY own ON guarded USING (t = current_user);
};
my $rows = q{
	SET standard_conforming_strings = on; SET array_nulls = on;
	INSERT INTO plain VALUES
		(%1$d, '2001-02-03 04:05:06.789+00', '2001-02-03 04:05:06', '2001-02-03', '1 year -2 mons 3 days -04:05:06', 0.1::float8 + 0.2,
		 1/3.0, 1/3.0, '\x00ff5c27', E'back\\slash ''quoted'' Küche €', true),
		(%1$d + 1, 'infinity', '-infinity', '4000-12-31', '-1 day +00:00:00.000001', '-Infinity', 'NaN', 'NaN', '', '', NULL),
		(%1$d + 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false);
	INSERT INTO other VALUES
		(%1$d, 'ok', ROW('2001-02-03 04:05:06.789+00', '2001-02-03', '1 year -2 mons 3 days -04:05:06', 0.1::float8 + 0.2, 1/3.0,
						 '\x00ff5c27', '{1,NULL}', E'back\\slash ''quoted'', "x"', 'text <a/>')::odd,
		 ARRAY[ROW(NULL, '2004-10-11', '-1 mon', 1/3.0, NULL, '\x', '{}', NULL, NULL)::odd, NULL], 1/3.0, '[0.1,0.3)', 'text <a/>',
		 '{1,NULL,3}', ARRAY['NULL', NULL, 'a\b', ''], 1234.5, '[2001-02-03 04:05+00,2001-03-02 00:00+00)', '{"a": [1.10, null]}'),
		(%1$d + 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
	INSERT INTO parent VALUES (%1$d, 'x'), (%1$d + 1, 'y');
	INSERT INTO child VALUES (%1$d, %1$d), (%1$d + 1, %1$d + 1);
	INSERT INTO no_key VALUES ('2001-02-03 04:05:06.789+00', 0.1::float8 + 0.2, 'from %1$d'), (NULL, 1/3.0, 'NULL %1$d');
	INSERT INTO "Odd ""name""" VALUES (%1$d);
	INSERT INTO guarded VALUES (%1$d, 'nobody');
};
my @all = ('plain', 'other', 'parent', 'child', 'no_key', '"Odd ""name"""', 'guarded');

# Every name that is not qualified finds one of these.
my $traps = q{
	CREATE SCHEMA trap;
	CREATE FUNCTION trap.sprung() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trap sprung'; END $$;
	DO $do$
	DECLARE type text; op text; fn text;
	BEGIN
		FOREACH type IN ARRAY ARRAY['oid', 'name', 'text', 'bool', 'int4', 'int8', 'uuid', 'pg_lsn', '"char"', 'timestamptz', 'regclass']
		LOOP
			EXECUTE format('CREATE FUNCTION trap.op(pg_catalog.%1$s, pg_catalog.%1$s) RETURNS pg_catalog.bool LANGUAGE plpgsql
				AS $$ BEGIN RAISE EXCEPTION ''trap sprung''; END $$', type);
			FOREACH op IN ARRAY ARRAY['=', '<>', '<', '<=', '>', '>=', '||', '~', '!~', '+', '-']
			LOOP
				EXECUTE format('CREATE OPERATOR trap.%2$s (FUNCTION = trap.op, LEFTARG = pg_catalog.%1$s, RIGHTARG = pg_catalog.%1$s)', type, op);
			END LOOP;
		END LOOP;
		FOREACH fn IN ARRAY ARRAY['now()', 'clock_timestamp()', 'current_database()', 'version()', 'pg_backend_pid()', 'current_setting(text)',
			'set_config(text, text, bool)', 'to_regclass(text)', 'quote_ident(text)', 'quote_literal(text)', 'length(text)', 'lower(text)',
			'count(oid)', 'max(oid)', 'max(int8)', 'format_type(oid, int4)', 'obj_description(oid, name)', 'pg_is_in_recovery()',
			'pg_replication_origin_create(text)', 'pg_replication_origin_drop(text)', 'pg_replication_origin_advance(text, pg_lsn)',
			'pg_replication_origin_oid(text)', 'pg_replication_origin_progress(text, bool)', 'pg_current_wal_lsn()',
			'pg_current_wal_flush_lsn()', 'gen_random_uuid()', 'nextval(regclass)', 'setval(regclass, int8)', 'pg_get_userbyid(oid)',
			'pg_current_xact_id_if_assigned()', 'pg_encoding_to_char(int4)', 'array_to_string(_text, text)', 'pg_control_system()']
		LOOP
			EXECUTE format('CREATE FUNCTION trap.%s RETURNS pg_catalog.text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION ''trap sprung''; END $$', fn);
		END LOOP;
		FOREACH type IN ARRAY ARRAY['oid', 'name', 'text', 'int4', 'int8', 'int2', 'bool', 'uuid', 'pg_lsn', 'timestamptz', 'bytea', '_text', 'interval', 'regclass']
		LOOP
			EXECUTE format('CREATE DOMAIN trap.%1$I AS pg_catalog.%1$I CHECK (trap.sprung() IS NULL)', type);
		END LOOP;
		FOREACH fn IN ARRAY ARRAY['pg_class', 'pg_namespace', 'pg_attribute', 'pg_type', 'pg_database', 'pg_roles', 'pg_extension',
			'pg_replication_slots', 'pg_replication_origin', 'pg_stat_replication', 'pg_stat_activity', 'pg_settings', 'pg_depend', 'pg_index']
		LOOP
			EXECUTE format('CREATE TABLE trap.%I (gone pg_catalog.int4 PRIMARY KEY)', fn);
		END LOOP;
	END
	$do$;
};

my ($a, $b) = map { BDR::Node->create($_) } qw(a b);
for my $node ($a, $b)
{
	$node->sql('CREATE ROLE peer SUPERUSER LOGIN');
}
$a->sql($tables . sprintf($rows, 1));
$a->sql($traps);
like($a->error_of('SET search_path = trap, pg_catalog; SELECT current_database()')->{message}, qr/trap sprung/, 'the traps are set');
like($a->error_of(q{SET search_path = trap, pg_catalog; SELECT 1 FROM pg_catalog.pg_class WHERE relname = 'x'::pg_catalog.name})->{message},
	qr/trap sprung/, 'operators too');

for my $node ($a, $b)
{
	hostile($node, 1);
	local $ENV{PGOPTIONS} = $plain;
	restart($node);
}
is($b->sql('SHOW search_path; SHOW timezone; SHOW default_transaction_read_only'), "trap, pg_catalog, public\nAsia/Kathmandu\non",
	'sessions get the settings');
$ENV{PGOPTIONS} = $plain;
my %position = map { $_->name => $_->log_position } ($a, $b);

create_first_node($a, dsn => $a->dsn(user => 'peer'));
join_node($b, $a, dsn => $b->dsn(user => 'peer'), target_dsn => $a->dsn(user => 'peer'));
replicating_ok($a, $b, 'joined, both directions replicate');
same_rows($a, $b, $_, "copied: $_") for @all;
same_rows($a, $b, 'SELECT id, float8send(f8) f8, float4send(f4) f4, interval_send(iv) iv, timestamptz_send(ts) ts FROM plain', 'copied to the last bit');
$b->value_ok(q{SELECT count(*) FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace WHERE n.nspname = 'trap'},
	$a->sql(q{SELECT count(*) FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace WHERE n.nspname = 'trap'}), 'the traps came along');

my $first = 100;
sub changes
{
	my ($when) = @_;
	for my $pair ([ $a, $b ], [ $b, $a ])
	{
		my ($from, $to) = @$pair;
		my $side = 'from ' . $from->name . " $when";
		$from->sql(sprintf $rows, $first);
		same_ok($from, $to, $_, "INSERT $_ $side") for @all;
		$from->sql(qq{
			UPDATE plain SET f8 = f8 * 1.1, iv = iv * 2, t = t || E'\\n\\\\' WHERE id >= $first;
			UPDATE other SET o.f8 = 2/3.0, o.iv = '-3 days +1 hour', a = a || NULL::int, x = 'more <b/>' WHERE id >= $first;
			UPDATE no_key SET t = t || '!', f8 = f8 / 7 WHERE t ~ '$first';
			UPDATE parent SET "select" = NULL WHERE id = $first;
			DELETE FROM parent WHERE id = $first + 1;
			DELETE FROM plain WHERE id = $first + 2;
			UPDATE "Odd ""name""" SET "say ""x""" = E'\\\\' WHERE "Küche" = $first;
			UPDATE guarded SET t = 'somebody' WHERE id = $first;
			});
		same_ok($from, $to, $_, "UPDATE and DELETE $_ $side") for @all;
		same_rows($from, $to, 'SELECT id, float8send(f8) f8, float4send(f4) f4, interval_send(iv) iv, timestamptz_send(ts) ts FROM plain',
			"to the last bit $side");
		$from->sql('TRUNCATE guarded');
		same_ok($from, $to, 'guarded', "TRUNCATE $side");
		$first += 100;
	}
	return;
}
changes('with the settings of the join');

restart($_) for ($a, $b);
replicating_ok($a, $b, 'after a restart under these settings');
changes('after a restart');

# The manager's work, too: subscriptions go off and on, errors are recorded.
$b->value_ok('SELECT bdr.alter_subscription_disable()', '1', 'a subscription is disabled');
$b->wait_ok('SELECT count(*) FROM bdr.workers WHERE worker_role_name = $$apply$$', '0', 'its worker ends');
$b->value_ok('SELECT bdr.alter_subscription_enable()', '1', 'and enabled');
replicating_ok($a, $b, 'it replicates again');
$b->sql_here('CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION $x$told to fail$x$; END $$;
	CREATE TRIGGER fail BEFORE INSERT ON parent FOR EACH ROW EXECUTE FUNCTION fail(); ALTER TABLE parent ENABLE ALWAYS TRIGGER fail');
$a->sql("INSERT INTO parent VALUES (90, 'for the error')");
$b->wait_ok("SELECT count(*) > 0 FROM bdr.worker_errors WHERE error_message ~ 'told to fail'", 't', 'an error is recorded');
$b->sql_here('DROP TRIGGER fail ON parent');
same_ok($a, $b, 'parent', 'and passes');

# Commits that wait for a peer: the appliers must not wait in turn, nor those who keep the workers going.
for my $node ($a, $b)
{
	$node->sql("ALTER SYSTEM SET synchronous_standby_names = '*'");
	$node->reload;
}
for my $round (1 .. 3)
{
	for my $node ($a, $b)
	{
		my $begin = time;
		$node->sql("SET synchronous_commit = remote_apply; INSERT INTO no_key VALUES (now(), $round, 'sync')", timeout => 60);
		cmp_ok(time - $begin, '<', 30, 'a synchronous commit on ' . $node->name . ' returns');
	}
}
same_ok($a, $b, 'no_key', 'synchronous commits');
for my $node ($a, $b)
{
	$node->sql('ALTER SYSTEM RESET synchronous_standby_names');
	$node->reload;
}

# They go away and come back while everything runs.
for my $on (0, 1)
{
	hostile($_, $on) for ($a, $b);
	$_->reload for ($a, $b);
	# new sessions of everything
	$_->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type ~ '^(bdr|walsender)'}) for ($a, $b);
	replicating_ok($a, $b, $on ? 'and set anew' : 'settings reset');
	changes($on ? 'with the settings set while running' : 'with none of the settings');
}
# Restarts find them in the configuration again.
restart($b);
replicating_ok($a, $b, 'after a restart of one node');

for my $node ($a, $b)
{
	my $log = $node->log_since($position{ $node->name });
	my @sprung = grep { /trap sprung|ERROR:.*trap/ } split /\n/, $log;
	ok(!@sprung, 'no trap was sprung on ' . $node->name) or diag(join "\n", splice(@sprung, 0, 10));
	my @stopped = grep { /(ERROR|FATAL):.*(timeout|read-only transaction|could not serialize)/ } split /\n/, $log;
	ok(!@stopped, 'no timeout and no read-only transaction stopped anything on ' . $node->name)
	  or diag(join "\n", splice(@stopped, 0, 20));
}
logs_ok($a, $b);
done_testing();
