\i apart.sql
CREATE TABLE clog (id int PRIMARY KEY, code text UNIQUE, v text);
CREATE TYPE clog_mood AS ENUM ('fine', 'bad');
CREATE TABLE clog_types (id bigint PRIMARY KEY, n numeric, f float8, b boolean, t text, j json, jb jsonb, a int[], ts timestamptz,
	by bytea, mood clog_mood, g int GENERATED ALWAYS AS (id * 2) STORED, nothing text);
CREATE TABLE clog_full (x int, y text);
ALTER TABLE clog_full REPLICA IDENTITY FULL;
CREATE TABLE clog_parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
