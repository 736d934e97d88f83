-- Views and functions are those of the guides, with the rights that the roles have; secrets in connection strings stay secret.

SELECT table_name, string_agg(column_name || ' ' || CASE data_type WHEN 'USER-DEFINED' THEN udt_name WHEN 'ARRAY' THEN udt_name
	ELSE data_type END, ', ' ORDER BY ordinal_position) AS columns
	FROM information_schema.columns JOIN pg_views v ON v.schemaname = table_schema AND v.viewname = table_name
	WHERE table_schema = 'bdr' GROUP BY 1 ORDER BY 1;
-- Those of the conflict-free types are listed by test crdt.
SELECT p.oid::regprocedure, pg_get_function_result(p.oid) FROM pg_proc p WHERE pronamespace = 'bdr'::regnamespace
	AND proname NOT LIKE 'crdt\_%' ORDER BY p.oid::regprocedure::text COLLATE "C";
-- Everything is commented.
SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'bdr'::regnamespace AND relkind IN ('r', 'v', 'p') AND obj_description(oid, 'pg_class') IS NULL;
SELECT p.oid::regprocedure FROM pg_proc p WHERE pronamespace = 'bdr'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL;
SELECT t.oid::regtype FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid WHERE typnamespace = 'bdr'::regnamespace AND typelem = 0
	AND (t.typrelid = 0 OR c.relkind = 'c') AND t.typcategory <> 'A' AND obj_description(t.oid, 'pg_type') IS NULL;
-- Of a view, columns that the guides do not explain by their names in PostgreSQL's own views.
SELECT c.oid::regclass, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped
	WHERE relnamespace = 'bdr'::regnamespace AND c.relname IN ('replication_status', 'node_replication_rates', 'event_summary', 'group_slot_retention')
	AND col_description(c.oid, attnum) IS NULL ORDER BY 1, attnum;
-- Who may read and call what.
SELECT rolname, (SELECT string_agg(relname, ', ' ORDER BY relname COLLATE "C") FROM pg_class c WHERE relnamespace = 'bdr'::regnamespace
	AND relkind IN ('r', 'v', 'p') AND NOT relispartition AND has_table_privilege(r.oid, c.oid, 'SELECT')) AS reads
	FROM pg_roles r WHERE rolname IN ('bdr_read_all_stats', 'bdr_monitor', 'bdr_application', 'bdr_read_all_conflicts') ORDER BY 1;
SELECT rolname, (SELECT string_agg(proname, ', ' ORDER BY proname COLLATE "C") FROM pg_proc p WHERE pronamespace = 'bdr'::regnamespace
	AND has_function_privilege(r.oid, p.oid, 'EXECUTE') AND NOT has_function_privilege('public', p.oid, 'EXECUTE')) AS calls
	FROM pg_roles r WHERE rolname IN ('bdr_read_all_stats', 'bdr_monitor', 'bdr_application', 'bdr_read_all_conflicts') ORDER BY 1;
SELECT count(*) AS not_for_bdr_superuser FROM pg_class c WHERE relnamespace = 'bdr'::regnamespace AND relkind IN ('r', 'v', 'p')
	AND NOT relispartition AND NOT has_table_privilege('bdr_superuser', c.oid, 'SELECT');
-- Secrets.
SELECT d, bdr.internal_mask_dsn(d) FROM unnest(ARRAY['host=h password=secret dbname=d', 'postgresql://u:secret@h:5432/d?sslpassword=hidden',
	'host=h', $$password='se cret' host=h$$, 'no dsn with secret']) d;
