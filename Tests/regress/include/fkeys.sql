CREATE TABLE fk_parent (a int, b int, name varchar(20) UNIQUE, PRIMARY KEY (a, b));
CREATE TABLE fk_parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE fk_parts_low PARTITION OF fk_parts FOR VALUES FROM (0) TO (2);
CREATE TABLE fk_parts_all PARTITION OF fk_parts DEFAULT;
CREATE TABLE fk_child (id int PRIMARY KEY, a int, b int, FOREIGN KEY (a, b) REFERENCES fk_parent);
CREATE TABLE fk_full (id int PRIMARY KEY, a int, b int, FOREIGN KEY (a, b) REFERENCES fk_parent MATCH FULL);
CREATE TABLE fk_tenant (id int PRIMARY KEY, a int NOT NULL, b int, FOREIGN KEY (a, b) REFERENCES fk_parent);
CREATE TABLE fk_listed (id int PRIMARY KEY, a int, b int, FOREIGN KEY (a, b) REFERENCES fk_parent ON DELETE SET NULL (b));
CREATE TABLE fk_name (id int PRIMARY KEY, name text REFERENCES fk_parent (name));
CREATE TABLE fk_must (id int PRIMARY KEY, name text NOT NULL REFERENCES fk_parent (name));
CREATE TABLE fk_of_parts (up int REFERENCES fk_parts, id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE fk_of_parts_low (id int NOT NULL, up int);
ALTER TABLE fk_of_parts ATTACH PARTITION fk_of_parts_low FOR VALUES FROM (0) TO (3);
CREATE TABLE fk_of_parts_all PARTITION OF fk_of_parts DEFAULT;
CREATE TABLE fk_self (id int PRIMARY KEY, up int REFERENCES fk_self);
CREATE TABLE fk_self_parts (id int PRIMARY KEY, up int REFERENCES fk_self_parts) PARTITION BY RANGE (id);
CREATE TABLE fk_self_parts_all (up int, id int NOT NULL);
ALTER TABLE fk_self_parts ATTACH PARTITION fk_self_parts_all DEFAULT;
DO $$
DECLARE
	t text;
BEGIN
	FOREACH t IN ARRAY '{fk_child,fk_full,fk_tenant,fk_listed,fk_name,fk_must,fk_of_parts,fk_self,fk_self_parts}'::text[] LOOP
		EXECUTE format('CREATE TRIGGER heal BEFORE INSERT OR UPDATE ON %I FOR EACH ROW EXECUTE FUNCTION bdr.ri_fkey_trigger()', t);
		EXECUTE format('ALTER TABLE %I ENABLE REPLICA TRIGGER heal', t);
	END LOOP;
	FOREACH t IN ARRAY '{fk_parent,fk_parts,fk_self,fk_self_parts}'::text[] LOOP
		EXECUTE format('CREATE TRIGGER heal_others BEFORE DELETE ON %I FOR EACH ROW EXECUTE FUNCTION bdr.ri_fkey_on_del_trigger()', t);
		EXECUTE format('ALTER TABLE %I ENABLE REPLICA TRIGGER heal_others', t);
	END LOOP;
END $$;
CREATE VIEW fk_all AS
	SELECT 'child' AS of, id, concat_ws(' ', coalesce(a::text, '-'), coalesce(b::text, '-')) AS refers FROM fk_child
	UNION ALL SELECT 'full', id, concat_ws(' ', coalesce(a::text, '-'), coalesce(b::text, '-')) FROM fk_full
	UNION ALL SELECT 'tenant', id, concat_ws(' ', coalesce(a::text, '-'), coalesce(b::text, '-')) FROM fk_tenant
	UNION ALL SELECT 'listed', id, concat_ws(' ', coalesce(a::text, '-'), coalesce(b::text, '-')) FROM fk_listed
	UNION ALL SELECT 'name', id, coalesce(name, '-') FROM fk_name
	UNION ALL SELECT 'of_parts', id, coalesce(up::text, '-') FROM fk_of_parts
	UNION ALL SELECT 'self', id, coalesce(up::text, '-') FROM fk_self
	UNION ALL SELECT 'self_parts', id, coalesce(up::text, '-') FROM fk_self_parts
	ORDER BY 1, 2;
