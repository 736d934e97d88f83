-- Prints docs/reference.md from the catalog of a database that has the extension; run by psql -AtqX. What is internal is left
-- out, and so are functions that only serve a type, an operator, a cast, an aggregate or an index.
-- `SELECT * FROM uncommented` gives objects that should have a COMMENT (Tests/tap/t/072_reference.pl).

SET client_min_messages = warning;
SET search_path = pg_catalog;

CREATE TEMP TABLE subject (place int, title text, pages text, functions text, relations text);
INSERT INTO subject VALUES
	(1, 'Nodes and groups', 'functions.md#nodes-and-groups',
		'^(create_node|create_node_group|join_node_group|promote_node|part_node|drop_node|alter_node_interface|wait_for_join_completion|alter_node_.*|.*node_group.*)$',
		'^(node|node_group|node_interface|local_node|node_local_info|node_summary|local_node_summary|state_journal.*|join_.*|part_.*)$'),
	(2, 'Replication: subscriptions, slots, progress', 'replication.md',
		'(subscription|replay_progress|replicat.*_set|group_slot|slot_name|recover|worker|xact_|apply_queue|slot_confirm|node_sub_)',
		'(subscription|slot|node_peer_progress|replication_rates|worker|origin|recovery|missing_changes|peer_clock|catchup)'),
	(3, 'Checking, health and monitoring', 'monitoring.md',
		'(check_settings|health|is_node_|monitor|version|edition|features|peer_state_name|stat)',
		'(monitor|health|stat_|status|event|group_version)'),
	(4, 'DDL', 'ddl.md', '(ddl|run_on_)', '(ddl|dropped_table)'),
	(5, 'Global locks', 'ddl.md#two-nodes-at-the-same-time', '(global_.*lock|lock)', 'lock'),
	(6, 'Sequences and global values', 'sequences.md',
		'(sequence|seq_|snowflake|timeshard|ksuuid|galloc|uuid)', 'sequence'),
	(7, 'Conflicts', 'conflicts.md', '(conflict|column_timestamps|row_version|log_config|ri_fkey)',
		'(conflict|row_stamp|log_config|^tables$)'),
	(8, 'Stream triggers', 'triggers.md', 'trigger', 'trigger'),
	(9, 'Conflict-free types', 'crdt.md', 'crdt', 'crdt'),
	(10, 'Other', 'functions.md', '', '');

-- Some names have words of several subjects.
CREATE FUNCTION pg_temp.subject_of(name text, kind text) RETURNS int LANGUAGE sql AS $$
	SELECT CASE WHEN kind = 'f' AND name ~ '^(trigger_get_|create_(conflict|transform)_trigger|drop_trigger)' THEN 8
		WHEN name ~ '(conflict_resolver|conflict_stat|stat_conflict|log_config|row_version)' THEN 7
		ELSE (SELECT min(s.place) FROM subject s WHERE name ~ CASE kind WHEN 'f' THEN s.functions ELSE s.relations END) END
$$;

CREATE FUNCTION pg_temp.cell(t text) RETURNS text LANGUAGE sql AS $$ SELECT replace(replace(COALESCE(t, ''), '|', '\|'), E'\n', ' ') $$;

-- '# Reference' and so on are lines of their own, in this order.
CREATE TEMP TABLE line (part int, subject int, kind int, name text, sub int, n int, text text);

CREATE TEMP TABLE function AS
SELECT p.oid, p.proname::text AS name, pg_temp.subject_of(p.proname::text, 'f') AS subject, p.prokind,
	row_number() OVER (PARTITION BY p.proname ORDER BY pg_get_function_identity_arguments(p.oid)) AS n,
	'bdr.' || p.proname || '(' || pg_get_function_arguments(p.oid) || ')' AS signature,
	CASE p.prokind WHEN 'p' THEN '' ELSE ' RETURNS ' || pg_get_function_result(p.oid) END
		|| CASE p.prokind WHEN 'a' THEN ' (aggregate)' WHEN 'p' THEN ' (procedure)' ELSE '' END AS result,
	obj_description(p.oid, 'pg_proc') AS about
FROM pg_proc p
WHERE p.pronamespace = 'bdr'::regnamespace AND p.proname !~ '^(internal_|boundary_test$)'
	AND NOT EXISTS (SELECT FROM pg_type t
		WHERE p.oid IN (t.typinput, t.typoutput, t.typreceive, t.typsend, t.typmodin, t.typmodout, t.typanalyze, t.typsubscript))
	AND NOT EXISTS (SELECT FROM pg_operator o WHERE p.oid IN (o.oprcode, o.oprrest, o.oprjoin))
	AND NOT EXISTS (SELECT FROM pg_cast c WHERE c.castfunc = p.oid)
	AND NOT EXISTS (SELECT FROM pg_amproc a WHERE a.amproc = p.oid)
	AND NOT EXISTS (SELECT FROM pg_aggregate a WHERE p.oid IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn,
		a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn));

CREATE TEMP TABLE relation AS
SELECT c.oid, c.relname::text AS name, pg_temp.subject_of(c.relname::text, 'r') AS subject, c.relkind,
	obj_description(c.oid, 'pg_class') AS about
FROM pg_class c
WHERE c.relnamespace = 'bdr'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
	AND c.relname !~ '^internal_';

CREATE TEMP TABLE type AS
SELECT t.oid, t.typname::text AS name, t.typtype, obj_description(t.oid, 'pg_type') AS about,
	CASE WHEN t.typtype = 'd' THEN 'domain over ' || format_type(t.typbasetype, t.typtypmod)
		WHEN t.typtype = 'e' THEN 'enum: ' || (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
			FROM pg_enum e WHERE e.enumtypid = t.oid)
		WHEN t.typtype = 'c' THEN 'composite' ELSE 'base type' END AS what
FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
WHERE t.typnamespace = 'bdr'::regnamespace AND t.typtype IN ('b', 'd', 'e', 'c', 'r') AND t.typelem = 0
	AND (c.oid IS NULL OR c.relkind = 'c') AND t.typname !~ '^internal_';

CREATE TEMP TABLE setting AS
SELECT s.* FROM pg_settings s WHERE s.name LIKE 'bdr.%' AND s.name !~ '^bdr\.(internal|debug)_';

CREATE TEMP VIEW uncommented AS
	SELECT signature AS object FROM function WHERE COALESCE(about, '') = ''
	UNION ALL SELECT 'bdr.' || name FROM relation WHERE COALESCE(about, '') = ''
	UNION ALL SELECT 'type bdr.' || name FROM type WHERE COALESCE(about, '') = ''
	UNION ALL SELECT name FROM setting WHERE COALESCE(short_desc, '') = '';

INSERT INTO line (part, n, text)
SELECT 0, row_number() OVER (), t FROM unnest(ARRAY[
	'# Reference', '',
	'Every function, view, table, type and setting of the extension. This page is made from the catalog by `make reference`; change the',
	'`COMMENT`s, not the page. What they mean is in [functions.md](functions.md), [settings.md](settings.md) and the pages named below.',
	'Internal objects are left out, and so are functions that only serve a type, an operator, a cast, an aggregate or an index.', '']) t;

INSERT INTO line (part, subject, n, text)
SELECT 0, s.place, 100, format('- [%s](#%s)', s.title, regexp_replace(replace(lower(s.title), ' ', '-'), '[^a-z-]', '', 'g'))
FROM subject s
WHERE EXISTS (SELECT FROM function f WHERE f.subject = s.place) OR EXISTS (SELECT FROM relation r WHERE r.subject = s.place)
UNION ALL SELECT 0, 100, 100, '- [Types](#types)'
UNION ALL SELECT 0, 101, 100, '- [Settings](#settings)';

INSERT INTO line (part, subject, kind, n, text)
SELECT 1, s.place, 0, l.n, l.text
FROM subject s, LATERAL (VALUES (1, ''), (2, '## ' || s.title), (3, ''), (4, format('See [%s](%s).', split_part(s.pages, '#', 1), s.pages)))
	l (n, text)
WHERE EXISTS (SELECT FROM function f WHERE f.subject = s.place) OR EXISTS (SELECT FROM relation r WHERE r.subject = s.place);

-- functions, with all that have the same name together
INSERT INTO line (part, subject, kind, name, sub, n, text)
SELECT 1, f.subject, 1, f.name, l.sub, l.n, l.text
FROM function f, LATERAL (VALUES
	(0, 1, CASE WHEN f.n = 1 THEN '' END), (0, 2, CASE WHEN f.n = 1 THEN '### bdr.' || f.name END), (0, 3, CASE WHEN f.n = 1 THEN '' END),
	(0, 4, CASE WHEN f.n = 1 THEN '```' END),
	(1, f.n::int, CASE WHEN length(f.signature || f.result) <= 126 THEN f.signature || f.result
		ELSE replace(f.signature, ', ', E',\n    ') || f.result END),
	(2, 1, CASE WHEN f.n = 1 THEN '```' END), (2, 2, CASE WHEN f.n = 1 THEN '' END)) l (sub, n, text)
WHERE l.text IS NOT NULL;
INSERT INTO line (part, subject, kind, name, sub, n, text)
SELECT 1, f.subject, 1, f.name, 3, 1, string_agg(DISTINCT f.about, '; ') FROM function f GROUP BY f.subject, f.name;

-- views, then tables
INSERT INTO line (part, subject, kind, name, sub, n, text)
SELECT 1, r.subject, CASE r.relkind WHEN 'v' THEN 2 ELSE 3 END, r.name, 0, l.n, l.text
FROM relation r, LATERAL (VALUES (1, ''),
	(2, format('### %s bdr.%s', CASE WHEN r.relkind IN ('v', 'm') THEN 'View' ELSE 'Table' END, r.name)), (3, ''),
	(4, COALESCE(r.about, '') || CASE WHEN r.relkind = 'p' THEN ' (partitioned)' ELSE '' END), (5, ''),
	(6, '| column | type | |'), (7, '|---|---|---|')) l (n, text);
INSERT INTO line (part, subject, kind, name, sub, n, text)
SELECT 1, r.subject, CASE r.relkind WHEN 'v' THEN 2 ELSE 3 END, r.name, 1, a.attnum,
	format('| `%s` | `%s` | %s |', a.attname, pg_temp.cell(format_type(a.atttypid, a.atttypmod)), pg_temp.cell(col_description(r.oid, a.attnum)))
FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped;

INSERT INTO line (part, n, text)
SELECT 2, row_number() OVER (), t FROM unnest(ARRAY['', '## Types', '', 'See [crdt.md](crdt.md) and [conflicts.md](conflicts.md#column-by-column).',
	'', '| type | kind | |', '|---|---|---|']) t;
INSERT INTO line (part, n, name, text)
SELECT 2, 100, t.name, format('| `bdr.%s` | %s | %s |', t.name, pg_temp.cell(t.what), pg_temp.cell(t.about)) FROM type t;

INSERT INTO line (part, n, text)
SELECT 3, row_number() OVER (), t FROM unnest(ARRAY['', '## Settings', '',
	'See [settings.md](settings.md). Who may change a setting, and when it takes effect: `user` anybody in a session, `superuser` superusers in a',
	'session, `sighup` at a reload, `backend` at a connection, `postmaster` at a restart.', '',
	'| setting | default | values | context | |', '|---|---|---|---|---|']) t;
INSERT INTO line (part, n, name, text)
SELECT 3, 100, s.name, format('| `%s` | %s | %s | `%s` | %s |', s.name,
	CASE WHEN s.vartype = 'string' AND COALESCE(s.boot_val, '') = '' THEN 'empty'
		ELSE '`' || s.boot_val || '`' || CASE WHEN s.unit IS NOT NULL AND s.boot_val !~ '^(0|-\d+)$' THEN ' ' || s.unit ELSE '' END END,
	CASE s.vartype WHEN 'enum' THEN (SELECT string_agg('`' || v || '`', ', ' ORDER BY n) FROM unnest(s.enumvals) WITH ORDINALITY e (v, n))
		WHEN 'bool' THEN '`on`, `off`' WHEN 'string' THEN 'text'
		ELSE s.min_val || ' to ' || s.max_val || COALESCE(' (in ' || s.unit || ')', '') END,
	s.context, pg_temp.cell(concat_ws(' ', s.short_desc, s.extra_desc)))
FROM setting s;

SELECT l.text FROM line l ORDER BY l.part, l.n = 100 AND l.part = 0, COALESCE(l.subject, 0), COALESCE(l.kind, 0),
	CASE WHEN l.part > 1 THEN l.n END, l.name COLLATE "C" NULLS FIRST, COALESCE(l.sub, 0), l.n;
