-- What the other node does of DDL that is typed here: the same, nothing, or it is refused. One server has one set of roles.

-- Replicated: what is in a database.
SET client_min_messages = error;
CREATE SCHEMA ddl;
SET search_path = ddl, public;
CREATE TABLE one (id int PRIMARY KEY, v text, n int DEFAULT 5);
CREATE TABLE two (id int PRIMARY KEY, one int REFERENCES one) WITH (fillfactor = 80);
CREATE TABLE parts (id int, k int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE part1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE part2 (k int NOT NULL, id int NOT NULL);
ALTER TABLE parts ATTACH PARTITION part2 FOR VALUES IN (2);
CREATE TABLE heir (extra int) INHERITS (one);
CREATE TABLE liked (LIKE one INCLUDING ALL);
CREATE SEQUENCE seq INCREMENT BY 3;
ALTER SEQUENCE seq INCREMENT BY 7;
CREATE VIEW see AS SELECT id, v FROM one;
CREATE OR REPLACE RECURSIVE VIEW numbers (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM numbers WHERE n < 5;
CREATE MATERIALIZED VIEW filled AS SELECT count(*) AS n FROM one;
CREATE UNIQUE INDEX ON filled (n);
CREATE INDEX by_v ON one (lower(v)) WHERE n > 0;
ALTER INDEX by_v SET (fillfactor = 70);
CREATE TYPE colour AS ENUM ('red', 'blue');
ALTER TYPE colour ADD VALUE 'green' AFTER 'red';
ALTER TYPE colour RENAME VALUE 'blue' TO 'azure';
CREATE TYPE pair AS (a int, b text);
ALTER TYPE pair ADD ATTRIBUTE c colour;
CREATE TYPE span AS RANGE (subtype = float8);
CREATE DOMAIN small AS int CHECK (VALUE < 100);
ALTER DOMAIN small ADD CONSTRAINT positive CHECK (VALUE > 0);
CREATE FUNCTION plus(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1';
ALTER FUNCTION plus(int) COST 7;
CREATE FUNCTION atomic(x int) RETURNS int IMMUTABLE BEGIN ATOMIC SELECT x * 2; END;
CREATE PROCEDURE proc() LANGUAGE plpgsql AS 'BEGIN END';
CREATE AGGREGATE total (int) (SFUNC = int4pl, STYPE = int);
CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);
CREATE CAST (pair AS text) WITH INOUT;
CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE STATISTICS stats (dependencies) ON id, n FROM one;
CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER trg BEFORE INSERT ON one FOR EACH ROW EXECUTE FUNCTION trg();
ALTER TABLE one DISABLE TRIGGER trg;
CREATE RULE nothing AS ON DELETE TO two DO INSTEAD NOTHING;
ALTER TABLE two ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON two USING (id > 0);
ALTER POLICY mine ON two USING (id > 1);
CREATE TEXT SEARCH CONFIGURATION conf (COPY = simple);
CREATE TEXT SEARCH DICTIONARY dict (TEMPLATE = simple);
CREATE PUBLICATION pub FOR TABLE one;
CREATE FOREIGN DATA WRAPPER wrapper;
CREATE SERVER server FOREIGN DATA WRAPPER wrapper;
CREATE FOREIGN TABLE far (a int) SERVER server;
CREATE FUNCTION evt() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER evt ON sql_drop EXECUTE FUNCTION evt();
ALTER EVENT TRIGGER evt DISABLE;
COMMENT ON COLUMN one.v IS 'a text';
COMMENT ON FUNCTION plus(int) IS 'adds';
COMMENT ON CONSTRAINT two_one_fkey ON two IS 'refers';
GRANT SELECT, INSERT (v) ON one TO PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ddl TO PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA ddl GRANT SELECT ON TABLES TO PUBLIC;
ALTER TABLE one ADD COLUMN added numeric DEFAULT 1.5 NOT NULL, ADD CONSTRAINT sane CHECK (n < 1000), ALTER COLUMN v SET STATISTICS 50;
ALTER TABLE one ALTER COLUMN n TYPE bigint, ADD UNIQUE (v);
ALTER TABLE one RENAME COLUMN added TO renamed;
ALTER TABLE liked RENAME TO loved;
ALTER VIEW see RENAME COLUMN v TO w;
ALTER TABLE loved SET SCHEMA public;
DROP TABLE public.loved;
CREATE TABLE "as" AS SELECT i, 'x' AS "odd ""name""" FROM generate_series(1, 3) i;
SELECT i AS j INTO "into" FROM generate_series(1, 2) i;
CREATE TABLE none AS SELECT 1 AS a WITH NO DATA;

-- Both say the same of all that.
SET search_path = pg_catalog;
SET extra_float_digits = 1;
CREATE VIEW public.ddl_is AS
SELECT format('%s %s %s %s %s', c.relkind, c.relname, c.relacl, c.reloptions, c.relrowsecurity) AS line FROM pg_class c WHERE relnamespace = 'ddl'::regnamespace
UNION ALL SELECT format('column %s %s %s %s %s %s %s %s', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull, attacl, attstattarget,
	pg_get_expr(d.adbin, d.adrelid), col_description(attrelid, attnum)) FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid LEFT JOIN pg_attrdef d ON d.adrelid = attrelid AND adnum = attnum
	WHERE relnamespace = 'ddl'::regnamespace AND attnum > 0 AND NOT attisdropped
UNION ALL SELECT format('constraint %s %s %s', conname, pg_get_constraintdef(oid), obj_description(oid, 'pg_constraint')) FROM pg_constraint WHERE connamespace = 'ddl'::regnamespace
UNION ALL SELECT pg_get_indexdef(oid) FROM pg_class WHERE relkind IN ('i', 'I') AND relnamespace = 'ddl'::regnamespace
UNION ALL SELECT format('view %s %s', oid::regclass, pg_get_viewdef(oid)) FROM pg_class WHERE relkind IN ('v', 'm') AND relnamespace = 'ddl'::regnamespace
UNION ALL SELECT format('function %s %s %s %s %s', oid::regprocedure, prosrc, procost, proacl, obj_description(oid, 'pg_proc')) FROM pg_proc WHERE pronamespace = 'ddl'::regnamespace
UNION ALL SELECT format('type %s %s %s %s', oid::regtype, typtype, typcategory, format_type(typbasetype, typtypmod)) FROM pg_type WHERE typnamespace = 'ddl'::regnamespace
UNION ALL SELECT format('label %s %s %s', enumtypid::regtype, enumlabel, enumsortorder) FROM pg_enum e JOIN pg_type t ON t.oid = enumtypid WHERE typnamespace = 'ddl'::regnamespace
UNION ALL SELECT format('sequence %s %s', seqrelid::regclass, seqincrement) FROM pg_sequence JOIN pg_class c ON c.oid = seqrelid WHERE relnamespace = 'ddl'::regnamespace
UNION ALL SELECT format('trigger %s %s %s', tgrelid::regclass, tgname, tgenabled) FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace = 'ddl'::regnamespace AND NOT tgisinternal
UNION ALL SELECT pg_get_ruledef(r.oid) FROM pg_rewrite r JOIN pg_class c ON c.oid = ev_class WHERE relnamespace = 'ddl'::regnamespace AND rulename <> '_RETURN'
UNION ALL SELECT format('policy %s %s', polname, pg_get_expr(polqual, polrelid)) FROM pg_policy
UNION ALL SELECT format('operator %s', oid::regoperator) FROM pg_operator WHERE oprnamespace = 'ddl'::regnamespace
UNION ALL SELECT format('cast %s %s', castsource::regtype, casttarget::regtype) FROM pg_cast WHERE oid >= 16384
UNION ALL SELECT format('other %s', x) FROM (SELECT collname FROM pg_collation WHERE collnamespace = 'ddl'::regnamespace UNION ALL SELECT pg_get_statisticsobjdef(oid)::text FROM pg_statistic_ext
	UNION ALL SELECT cfgname FROM pg_ts_config WHERE cfgnamespace = 'ddl'::regnamespace UNION ALL SELECT dictname FROM pg_ts_dict WHERE dictnamespace = 'ddl'::regnamespace
	UNION ALL SELECT pubname FROM pg_publication UNION ALL SELECT srvname FROM pg_foreign_server UNION ALL SELECT fdwname FROM pg_foreign_data_wrapper
	UNION ALL SELECT format('%s %s', evtname, evtenabled) FROM pg_event_trigger UNION ALL SELECT defaclacl::text FROM pg_default_acl) o (x);
SELECT count(*) > 100 AS many, md5(string_agg(line, E'\n' ORDER BY line COLLATE "C")) AS content FROM public.ddl_is \gset one_
SELECT :'one_many' AS many;
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SET search_path = pg_catalog;
SELECT md5(string_agg(line, E'\n' ORDER BY line COLLATE "C")) = :'one_content' AS same FROM public.ddl_is;
SELECT i, "odd ""name""" FROM ddl."as" ORDER BY i;
SELECT count(*) FROM ddl."into";
SELECT count(*) AS errors FROM bdr.worker_errors WHERE error_context_message ~ 'replicated statement';

-- For this node alone: nothing of it is run by the other one.
SELECT nddl FROM bdr.stat_subscription \gset before_
\c node1
SET client_min_messages = error;
CREATE TEMP TABLE t (a int PRIMARY KEY);
ALTER TABLE t ADD COLUMN b serial;
CREATE INDEX ON t (b);
CREATE VIEW of_temporary AS SELECT * FROM t;
CREATE TYPE pg_temp.e AS ENUM ('a');
CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE SEQUENCE pg_temp.s;
COMMENT ON COLUMN t.a IS 'x';
GRANT SELECT ON t TO PUBLIC;
CREATE RULE r AS ON INSERT TO t DO ALSO NOTHING;
DROP TYPE pg_temp.e;
DROP VIEW of_temporary;
DROP TABLE t;
CREATE UNLOGGED TABLE u (a int PRIMARY KEY, b text);
ALTER TABLE u ADD COLUMN c int;
CREATE INDEX ON u (c);
COMMENT ON TABLE u IS 'u';
GRANT SELECT ON u TO PUBLIC;
CREATE TRIGGER trg BEFORE INSERT ON u FOR EACH ROW EXECUTE FUNCTION ddl.trg();
ALTER TABLE u RENAME TO u2;
DROP TABLE u2;
REFRESH MATERIALIZED VIEW ddl.filled;
CLUSTER ddl.one USING one_pkey;
REINDEX TABLE ddl.one;
ANALYZE ddl.one;
COMMENT ON DATABASE node1 IS 'one';
ALTER DATABASE node1 SET work_mem = '5MB';
ALTER DATABASE node1 RESET work_mem;
ALTER ROLE CURRENT_USER IN DATABASE node1 RESET ALL;
CREATE SUBSCRIPTION sub CONNECTION 'dbname=nowhere' PUBLICATION pub WITH (connect = false, slot_name = NONE);
DROP SUBSCRIPTION sub;
COMMENT ON EXTENSION bdr IS 'multi-master';
GRANT USAGE ON SCHEMA bdr TO PUBLIC;
CREATE TEMP TABLE ta AS SELECT 1 AS x;
EXPLAIN (COSTS OFF) CREATE TABLE explained AS SELECT 1;
SET bdr.role_replication = off;
CREATE ROLE regress_ddl;
COMMENT ON ROLE regress_ddl IS 'r';
ALTER ROLE regress_ddl NOLOGIN;
GRANT regress_ddl TO CURRENT_USER;
DROP ROLE regress_ddl;
RESET bdr.role_replication;
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT nddl - :before_nddl AS statements FROM bdr.stat_subscription;

-- Switched off, it says so.
\c node1
SET bdr.ddl_replication = off;
CREATE TABLE ddl.alone (id int);
CREATE TEMP TABLE alone (id int);
DROP TABLE ddl.alone;
RESET bdr.ddl_replication;

-- Refused.
CREATE INDEX CONCURRENTLY ON ddl.one (n);
DROP INDEX CONCURRENTLY ddl.by_v;
ALTER TABLE ddl.parts DETACH PARTITION ddl.part2 CONCURRENTLY;
ALTER TABLE ddl.parts DETACH PARTITION ddl.part2 FINALIZE;
ALTER TABLE ddl.one ADD COLUMN x uuid DEFAULT gen_random_uuid(), ALTER COLUMN v SET NOT NULL;
ALTER TABLE ddl.one ADD COLUMN x uuid DEFAULT gen_random_uuid(), ADD COLUMN y text GENERATED ALWAYS AS (x::text) STORED;
ALTER TABLE ddl.one ADD COLUMN x serial, ADD COLUMN IF NOT EXISTS v text;
ALTER TABLE ddl.one ADD COLUMN extra uuid DEFAULT gen_random_uuid();
ALTER TABLE ddl.one ALTER COLUMN v TYPE timestamptz USING v::timestamptz;
ALTER TABLE ddl.one ADD CONSTRAINT x EXCLUDE (n WITH =);
ALTER TABLE ddl.one ALTER COLUMN id SET STORAGE EXTERNAL;
CREATE TABLE ddl.times (at timestamptz PRIMARY KEY) PARTITION BY RANGE (at);
CREATE TABLE ddl.past PARTITION OF ddl.times FOR VALUES FROM (MINVALUE) TO (current_timestamp);
CREATE TABLE ddl.past PARTITION OF ddl.times FOR VALUES FROM (MINVALUE) TO (date_trunc('month', now()));
CREATE TABLE ddl.past PARTITION OF ddl.times FOR VALUES FROM (MINVALUE) TO ('today'::timestamptz);
CREATE TABLE ddl.past (at timestamptz PRIMARY KEY);
ALTER TABLE ddl.times ATTACH PARTITION ddl.past FOR VALUES FROM (now() - interval '1 day') TO (now());
ALTER TABLE ddl.times ATTACH PARTITION ddl.past FOR VALUES FROM (MINVALUE) TO ('2020-01-01'::timestamptz + interval '1 day');
CREATE TABLE ddl.later PARTITION OF ddl.times FOR VALUES FROM ('2020-01-02') TO (MAXVALUE);
CREATE TEMP TABLE t (a int PRIMARY KEY);
CREATE UNLOGGED TABLE u (a int PRIMARY KEY);
CREATE TABLE ddl.x (LIKE t);
CREATE TABLE ddl.x (LIKE u);
CREATE TABLE ddl.x () INHERITS (u);
CREATE RULE x AS ON INSERT TO ddl.one DO ALSO INSERT INTO t VALUES (1);
CREATE POLICY x ON ddl.two USING (EXISTS (SELECT FROM t));
DROP TABLE t, ddl.one;
GRANT SELECT ON u, ddl.one TO PUBLIC;
ALTER TABLE u SET LOGGED;
SELECT lo_create(4711);
ALTER LARGE OBJECT 4711 OWNER TO CURRENT_USER;
SELECT lo_unlink(4711);
SELECT bdr.replicate_ddl_command('CREATE TEMP TABLE x (a int)');
SELECT bdr.replicate_ddl_command('VACUUM ddl.one');
SELECT bdr.replicate_ddl_command('SELECT 1');
DROP TABLE t, u;
-- but not for a new table that is empty, and not what is the same everywhere
BEGIN;
CREATE TABLE ddl.fresh (id int PRIMARY KEY);
ALTER TABLE ddl.fresh ADD COLUMN n serial, ADD COLUMN at timestamptz DEFAULT now();
COMMIT;
ALTER TABLE ddl.fresh ALTER COLUMN at TYPE timestamp USING at AT TIME ZONE 'UTC', ADD COLUMN t date DEFAULT '2000-01-01';
-- a table without a key
CREATE TABLE ddl.keyless (a int);
SELECT bdr.replicate_ddl_command('REFRESH MATERIALIZED VIEW ddl.filled');
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid IN ('ddl.past'::regclass, 'ddl.later'::regclass) ORDER BY relname;
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'ddl.fresh'::regclass AND attnum > 0 ORDER BY attnum;
SELECT count(*) AS errors FROM bdr.worker_errors WHERE error_context_message ~ 'replicated statement';

-- Columns whose values come from the node where they are typed.
\c node1
SET client_min_messages = error;
CREATE TABLE ddl.given (id int PRIMARY KEY);
INSERT INTO ddl.given SELECT generate_series(1, 20);
ALTER TABLE ddl.given ADD COLUMN at timestamptz DEFAULT now();
ALTER TABLE ddl.given ADD COLUMN day timestamptz DEFAULT 'today', ADD COLUMN u uuid DEFAULT gen_random_uuid() UNIQUE, ADD COLUMN s serial,
	ADD COLUMN zoned timestamptz NOT NULL DEFAULT timestamp '2000-01-01';
ALTER TABLE ddl.given ADD COLUMN i int GENERATED BY DEFAULT AS IDENTITY (START 100 INCREMENT 5);
ALTER TABLE ddl.one ADD COLUMN s smallserial CHECK (s > 0);
SELECT md5(string_agg(g::text, '' ORDER BY id)) AS rows FROM ddl.given g \gset
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT md5(string_agg(g::text, '' ORDER BY id)) = :'rows' AS same, count(DISTINCT u), count(DISTINCT s), min(i), max(i) FROM ddl.given g;
SELECT attname, format_type(atttypid, atttypmod), attnotnull, attidentity, pg_get_expr(adbin, adrelid) FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
	WHERE attrelid = 'ddl.given'::regclass AND attnum > 0 AND attname <> 'day' ORDER BY attnum;
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'ddl.given'::regclass ORDER BY conname;

-- Roles in what is stored.
\c node1
SET bdr.role_replication = off;
CREATE ROLE regress_ddl;
RESET bdr.role_replication;
CREATE FUNCTION ddl.as_role() RETURNS name LANGUAGE sql SET role = 'regress_ddl' AS 'SELECT current_user';
CREATE PROCEDURE ddl.as_role2() LANGUAGE plpgsql SET "role" TO DEFAULT AS 'BEGIN END';
ALTER FUNCTION ddl.plus(int) SET role = 'regress_ddl';
ALTER ROLE regress_ddl SET role = 'regress_ddl';
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT proname, proconfig FROM pg_proc WHERE pronamespace = 'ddl'::regnamespace AND proconfig IS NOT NULL ORDER BY proname;
SELECT ddl.as_role();
SELECT count(*) AS errors FROM bdr.worker_errors WHERE error_context_message ~ 'replicated statement';
-- Rights on the server's objects, and on the database, which has another name there. Functions over what is here only.
\c node1
GRANT CREATE ON DATABASE node1 TO PUBLIC;
GRANT SELECT (rolname), SELECT (rolsuper) ON pg_authid TO PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_sleep(float8) FROM PUBLIC;
GRANT SELECT ON information_schema.sql_features TO pg_monitor;
CREATE TEMP TABLE t (a int PRIMARY KEY);
CREATE TYPE pg_temp.e AS ENUM ('a');
CREATE FUNCTION ddl.reads() RETURNS SETOF int LANGUAGE sql AS 'SELECT a FROM t';
CREATE FUNCTION ddl.takes(t) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION ddl.takes(x t[]) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
CREATE FUNCTION ddl.gives() RETURNS SETOF e LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION ddl.atomic_reads() RETURNS SETOF int LANGUAGE sql BEGIN ATOMIC SELECT a FROM t; END;
CREATE DOMAIN ddl.over AS t[];
CREATE TYPE ddl.over AS (x e);
CREATE TABLE ddl.over (id int PRIMARY KEY, x e);
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT datname, datacl::text ~ '[{,]=[^/]*C' AS all_create FROM pg_database WHERE datname IN ('node1', 'node2') ORDER BY 1;
SELECT attname, attacl IS NOT NULL AS granted FROM pg_attribute WHERE attrelid = 'pg_authid'::regclass AND attname IN ('rolname', 'rolsuper') ORDER BY 1;
SELECT proacl::text ~ '[{,]=X' AS all_sleep FROM pg_proc WHERE oid = 'pg_sleep(float8)'::regprocedure;
SELECT relacl::text ~ 'pg_monitor=r' AS monitor FROM pg_class WHERE oid = 'information_schema.sql_features'::regclass;
SELECT proname FROM pg_proc WHERE pronamespace = 'ddl'::regnamespace AND proname IN ('reads', 'takes', 'gives', 'atomic_reads');
SELECT count(*) AS errors FROM bdr.worker_errors WHERE error_context_message ~ 'replicated statement';
REVOKE CREATE ON DATABASE node2 FROM PUBLIC;
REVOKE SELECT (rolname), SELECT (rolsuper) ON pg_authid FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_sleep(float8) TO PUBLIC;
REVOKE SELECT ON information_schema.sql_features FROM pg_monitor;

-- Dropped together, from the other side.
SET client_min_messages = error;
DROP EVENT TRIGGER evt;
DROP PUBLICATION pub;
DROP FOREIGN DATA WRAPPER wrapper CASCADE;
DROP VIEW public.ddl_is;
DROP SCHEMA ddl CASCADE;
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SELECT count(*) FROM pg_namespace WHERE nspname = 'ddl';
SELECT count(*) AS errors FROM bdr.worker_errors WHERE error_context_message ~ 'replicated statement';
SET bdr.role_replication = off;
DROP ROLE regress_ddl;
