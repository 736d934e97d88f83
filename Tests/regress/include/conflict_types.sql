-- What both nodes have for conflict_types.
CREATE TABLE ct_step (nr serial PRIMARY KEY, step text, statement text);
CREATE TABLE ct_skip (id int PRIMARY KEY, code text UNIQUE, other text UNIQUE, v text);
CREATE TABLE ct_update (LIKE ct_skip INCLUDING ALL);
CREATE TABLE ct_newer (LIKE ct_skip INCLUDING ALL);
CREATE TABLE ct_error (LIKE ct_skip INCLUDING ALL);
CREATE PROCEDURE run(which text, relation text) LANGUAGE plpgsql AS $$
DECLARE
	s record;
BEGIN
	FOR s IN SELECT statement FROM ct_step WHERE step = which ORDER BY nr LOOP
		EXECUTE replace(replace(s.statement, '@', relation), '#', quote_literal(which));
	END LOOP;
END $$;
\i apart.sql
CREATE VIEW told AS SELECT conflict_type AS type, conflict_resolution AS resolution, conflict_index AS index, key_tuple ->> 'id' AS key,
	remote_tuple ->> 'id' AS rid, remote_tuple ->> 'v' AS remote, local_tuple ->> 'id' AS lid, local_tuple ->> 'v' AS local,
	apply_tuple ->> 'id' AS aid, apply_tuple ->> 'v' AS applied, remote_commit_time > local_tuple_commit_time AS newer
	FROM bdr.conflict_history ORDER BY local_time, remote_change_nr;
