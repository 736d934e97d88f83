-- All that an extension's scripts have made, as text: the same after an installation and after an upgrade, whatever the order in
-- which it was made. Numbers of objects and of columns are not part of it.
\pset format unaligned
\pset tuples_only on

CREATE TEMP VIEW members AS
SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
	WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'bdr';
CREATE FUNCTION pg_temp.rights(acl aclitem[]) RETURNS text LANGUAGE sql AS
	$$ SELECT COALESCE((SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(acl) a), 'default') $$;

SELECT concat_ws(' ', 'member', pg_describe_object(classid, objid, 0)) FROM members ORDER BY 1;
SELECT concat_ws(' ', 'comment', pg_describe_object(m.classid, m.objid, d.objsubid), d.description)
	FROM members m JOIN pg_description d ON d.classoid = m.classid AND d.objoid = m.objid ORDER BY 1;
SELECT concat_ws(' ', 'function', p.oid::regprocedure, pg_get_userbyid(proowner), pg_temp.rights(proacl),
		CASE WHEN prokind <> 'a' THEN E'\n' || pg_get_functiondef(p.oid) END)
	FROM members m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid ORDER BY 1;
SELECT concat_ws(' ', 'aggregate', a.aggfnoid::regprocedure, a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggtranstype::regtype)
	FROM members m JOIN pg_aggregate a ON m.classid = 'pg_proc'::regclass AND m.objid = a.aggfnoid ORDER BY 1;
SELECT concat_ws(' ', 'relation', c.oid::regclass, relkind, relpersistence, pg_get_userbyid(relowner), relrowsecurity,
		array_to_string(reloptions, ','), pg_temp.rights(relacl), CASE WHEN relkind = 'v' THEN E'\n' || pg_get_viewdef(c.oid) END)
	FROM members m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND m.objid = c.oid ORDER BY 1;
SELECT concat_ws(' ', 'column', c.oid::regclass, row_number() OVER (PARTITION BY c.oid ORDER BY attnum), attname,
		format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated, pg_get_expr(d.adbin, d.adrelid))
	FROM members m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
	JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped
	LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum ORDER BY 1;
SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(k.oid))
	FROM members m JOIN pg_constraint k ON m.classid = 'pg_class'::regclass AND m.objid = k.conrelid ORDER BY 1;
SELECT concat_ws(' ', 'index', pg_get_indexdef(indexrelid))
	FROM members m JOIN pg_index i ON m.classid = 'pg_class'::regclass AND m.objid = i.indrelid ORDER BY 1;
SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(t.oid))
	FROM members m JOIN pg_trigger t ON m.classid = 'pg_class'::regclass AND m.objid = t.tgrelid AND NOT tgisinternal ORDER BY 1;
SELECT concat_ws(' ', 'type', t.oid::regtype, typtype, typcategory, typlen, typstorage, typalign, typbasetype::regtype,
		(SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid))
	FROM members m JOIN pg_type t ON m.classid = 'pg_type'::regclass AND m.objid = t.oid ORDER BY 1;
SELECT concat_ws(' ', 'operator', o.oid::regoperator, oprcode, oprcom::regoperator, oprnegate::regoperator, oprrest, oprjoin, oprcanmerge, oprcanhash)
	FROM members m JOIN pg_operator o ON m.classid = 'pg_operator'::regclass AND m.objid = o.oid ORDER BY 1;
SELECT concat_ws(' ', 'cast', castsource::regtype, casttarget::regtype, castfunc::regproc, castcontext, castmethod)
	FROM members m JOIN pg_cast c ON m.classid = 'pg_cast'::regclass AND m.objid = c.oid ORDER BY 1;
SELECT concat_ws(' ', 'schema', nspname, pg_temp.rights(nspacl)) FROM pg_namespace WHERE nspname = 'bdr';
SELECT concat_ws(' ', 'row of crdt_handler', crdt_type_id, merge_function) FROM bdr.crdt_handler ORDER BY 1;
