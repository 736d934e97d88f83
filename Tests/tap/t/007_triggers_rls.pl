# Applied rows fire only REPLICA and ALWAYS triggers, pass row security (also FORCE), and run nothing with more rights than
# the table's owner has.

use strict;
use warnings FATAL => 'all';

use BDR::Test;
use Test::More;

my ($a, $b) = node_pair(setup => q{
	CREATE TABLE t (id int PRIMARY KEY, v text);
	-- Without a key, so that what the receiver's triggers write can't collide with what arrives.
	CREATE TABLE seen (trigger text, op text, node text DEFAULT current_setting('cluster_name'), time_ok bool);
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.seen (trigger, op, time_ok) VALUES (TG_NAME, TG_OP, now() > '2020-01-01');
		RETURN COALESCE(NEW, OLD);
	END $$;
	CREATE TRIGGER is_origin AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note();
	CREATE TRIGGER is_replica AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note();
	CREATE TRIGGER is_always BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note();
	CREATE TRIGGER is_disabled AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note();
	ALTER TABLE t ENABLE REPLICA TRIGGER is_replica, ENABLE ALWAYS TRIGGER is_always, DISABLE TRIGGER is_disabled;
	CREATE TABLE changed (id int PRIMARY KEY, v text, stamp text);
	CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.stamp := 'by trigger'; RETURN NEW; END $$;
	CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON changed FOR EACH ROW EXECUTE FUNCTION stamp();
	CREATE TABLE refused (id int PRIMARY KEY, v text);
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
	CREATE TABLE parent (id int PRIMARY KEY);
	CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
	CREATE RULE no_rule AS ON INSERT TO parent WHERE NEW.id = 42 DO INSTEAD NOTHING;
});

$a->sql("INSERT INTO t VALUES (1, 'one'), (2, 'two'); UPDATE t SET v = 'uno' WHERE id = 1; DELETE FROM t WHERE id = 2");
same_ok($a, $b, 't', 'rows of a table with triggers');
my $fired = "SELECT trigger, op, count(*) FROM seen WHERE node = '%s' GROUP BY 1, 2 ORDER BY 1, 2";
my $expected = "is_always|DELETE|1\nis_always|INSERT|2\nis_always|UPDATE|1\nis_%1\$s|DELETE|1\nis_%1\$s|INSERT|2\nis_%1\$s|UPDATE|1";
$a->value_ok(sprintf($fired, 'a'), sprintf($expected, 'origin'), 'at the writer ORIGIN and ALWAYS triggers fire');
$b->value_ok(sprintf($fired, 'b'), sprintf($expected, 'replica'), 'at the receiver REPLICA and ALWAYS triggers fire');
$b->value_ok(sprintf($fired, 'a'), sprintf($expected, 'origin'), 'what the writer\'s triggers wrote arrives as rows');
$a->value_ok("SELECT count(*) FROM seen WHERE node = 'b'", '0', 'what the receiver\'s triggers write stays there');
$b->value_ok('SELECT bool_and(time_ok) FROM seen', 't', 'now() is sane in them');

# A BEFORE trigger of the origin kind does not touch applied rows; a REPLICA one does.
$a->sql("INSERT INTO changed VALUES (1, 'v')");
same_ok($a, $b, 'changed', 'the stamp of the writer arrives');
$b->sql_here(q{CREATE OR REPLACE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.stamp := 'receiver'; RETURN NEW; END $$;
	ALTER TABLE changed ENABLE REPLICA TRIGGER stamp});
$a->sql("INSERT INTO changed VALUES (2, 'v'); UPDATE changed SET v = 'w' WHERE id = 1");
wait_caught_up($a, $b);
$b->value_ok('SELECT id, v, stamp FROM changed ORDER BY id', "1|w|receiver\n2|v|receiver", 'a BEFORE REPLICA trigger changes applied rows');
$b->sql_here('CREATE TRIGGER refuse BEFORE INSERT OR UPDATE OR DELETE ON refused FOR EACH ROW EXECUTE FUNCTION refuse();
	ALTER TABLE refused ENABLE ALWAYS TRIGGER refuse');
$a->sql("INSERT INTO refused VALUES (1, 'v'); UPDATE refused SET v = 'w'; DELETE FROM refused");
ok(wait_caught_up($a, $b), 'a trigger that suppresses rows does not stop the stream');
$b->value_ok('SELECT count(*) FROM refused', '0', 'and suppresses them');

# Foreign keys and rules of the receiver are not run again.
$a->sql('INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (10, 1), (20, 2); UPDATE parent SET id = 3 WHERE id = 1; DELETE FROM parent WHERE id = 2');
same_ok($a, $b, 'child', 'ON DELETE and ON UPDATE CASCADE are carried out once');

# Row security, owners and their rights.
{
	$a->sql(q{
		CREATE ROLE owner LOGIN; CREATE ROLE mallory LOGIN;
		GRANT CREATE ON SCHEMA public TO owner, mallory;
		SET ROLE owner;
		CREATE TABLE guarded (id int PRIMARY KEY, who text, v text);
		ALTER TABLE guarded ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
		CREATE POLICY nobody ON guarded USING (who = current_user AND id < 0) WITH CHECK (false);
		RESET ROLE;
		CREATE TABLE secret (v text);
		SET ROLE mallory;
		CREATE TABLE trap (id int PRIMARY KEY, v text);
		CREATE FUNCTION spring() RETURNS trigger LANGUAGE plpgsql AS $f$
		BEGIN
			BEGIN
				EXECUTE 'ALTER ROLE mallory SUPERUSER';
			EXCEPTION WHEN insufficient_privilege THEN
				NEW.v := current_setting('cluster_name') || ' refused to ' || current_user;
			END;
			RETURN NEW;
		END $f$;
		CREATE TRIGGER spring BEFORE INSERT ON trap FOR EACH ROW EXECUTE FUNCTION spring();
		ALTER TABLE trap ENABLE ALWAYS TRIGGER spring;
		CREATE FUNCTION grab() RETURNS void LANGUAGE plpgsql AS $f$
		BEGIN
			EXECUTE 'ALTER ROLE mallory CREATEROLE';
		EXCEPTION WHEN insufficient_privilege THEN NULL;
		END $f$;
		CREATE FUNCTION sneaky(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $f$ BEGIN PERFORM public.grab(); RETURN $1; END $f$;
		CREATE TABLE trap_check (id int PRIMARY KEY CHECK (sneaky(id) = id), d int DEFAULT sneaky(5));
		CREATE INDEX ON trap_check (sneaky(id));
		RESET ROLE;
	});
}
$a->sql("INSERT INTO guarded VALUES (1, 'x', 'v'), (2, 'y', 'v'); UPDATE guarded SET v = 'w' WHERE id = 1; DELETE FROM guarded WHERE id = 2");
same_ok($a, $b, 'guarded', 'FORCE ROW LEVEL SECURITY does not stand in the way');
$b->value_ok('SELECT id, v FROM guarded', '1|w', 'and the rows are there');
$a->sql('SET ROLE mallory; INSERT INTO trap VALUES (1); INSERT INTO trap_check (id) VALUES (1), (2)');
wait_caught_up($a, $b);
$b->value_ok('SELECT id, v FROM trap', '1|b refused to mallory', 'a trigger runs with the rights of the table\'s owner');
$b->value_ok("SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = 'mallory'", 'f|f', 'and gets nobody any rights');
same_ok($a, $b, 'trap_check', 'functions of CHECK, DEFAULT and indexes as well');

replicating_ok($a, $b, 'still replicating');
logs_ok($a, $b);
done_testing();
