-- Conflict-free types: counters and sums that every node adds to in a part of its own.

-- What there is
SET bdr.ddl_replication = off; SET client_min_messages = error;
SELECT typname, typtype, format_type(typbasetype, NULL) AS base, typstorage, obj_description(oid, 'pg_type') AS comment FROM pg_type
	WHERE typnamespace = 'bdr'::regnamespace AND typname LIKE 'crdt\_%' AND typtype IN ('b', 'd') ORDER BY 1;
SELECT * FROM bdr.crdt_handlers ORDER BY crdt_type_id::text;
SELECT typname, string_agg(substr(proname, length(typname) + 2), ' ' ORDER BY proname COLLATE "C") AS functions
	FROM pg_proc JOIN pg_type ON starts_with(proname, typname || '_')
	WHERE pronamespace = 'bdr'::regnamespace AND typnamespace = pronamespace AND proname LIKE 'crdt\_%' GROUP BY 1 ORDER BY 1;
SELECT oprnamespace::regnamespace, oprleft::regtype, string_agg(oprname, ' ' ORDER BY oprname COLLATE "C") AS operators, oprright::regtype
	FROM pg_operator WHERE oprcode::text LIKE 'bdr.crdt%' GROUP BY 1, 2, 4 ORDER BY oprright::regtype::text, oprleft;
SELECT p.oid::regprocedure, prorettype::regtype FROM pg_aggregate a JOIN pg_proc p ON p.oid = aggfnoid
	WHERE aggtransfn::text LIKE 'bdr.crdt%' ORDER BY proargtypes[0]::regtype::text, proname;
SELECT opcname, amname FROM pg_opclass JOIN pg_am a ON a.oid = opcmethod WHERE opcnamespace = 'bdr'::regnamespace ORDER BY 1, 2;
SELECT castsource::regtype, casttarget::regtype, castcontext FROM pg_cast WHERE castsource::regtype::text LIKE 'bdr.crdt%'
	OR casttarget::regtype::text LIKE 'bdr.crdt%' ORDER BY castsource::regtype::text, casttarget::regtype::text;

-- The values of a row: assigned, changed, read
CREATE TABLE crdt (id int PRIMARY KEY, g bdr.crdt_gcounter NOT NULL DEFAULT 0, s bdr.crdt_gsum NOT NULL DEFAULT 0.00,
	p bdr.crdt_pncounter NOT NULL DEFAULT 0, q bdr.crdt_pnsum DEFAULT 0, d bdr.crdt_delta_counter NOT NULL DEFAULT 0,
	e bdr.crdt_delta_sum DEFAULT 0);
ALTER TABLE crdt REPLICA IDENTITY FULL;
\c node2
SET bdr.ddl_replication = off; SET client_min_messages = error;
CREATE TABLE crdt (gone int, id int PRIMARY KEY, q bdr.crdt_pnsum DEFAULT 0, p bdr.crdt_pncounter NOT NULL DEFAULT 0,
	s bdr.crdt_gsum NOT NULL DEFAULT 0.00, g bdr.crdt_gcounter NOT NULL DEFAULT 0, d bdr.crdt_delta_counter NOT NULL DEFAULT 0,
	e bdr.crdt_delta_sum DEFAULT 0);
ALTER TABLE crdt DROP COLUMN gone;
ALTER TABLE crdt REPLICA IDENTITY FULL;
\c node1
INSERT INTO crdt (id) VALUES (1);
INSERT INTO crdt VALUES (2, 129824, 17.5, -129824, -17.25, 5, 5.5), (3, 0, 0, 0, NULL, 0, NULL);
INSERT INTO crdt (id, g, s, p, q) SELECT 4, 1::smallint, 2::smallint, 3::bigint, 4::bigint;
INSERT INTO crdt (id, g, p) VALUES (5, 4.5, -4.5);
SELECT * FROM crdt ORDER BY id;
UPDATE crdt SET g = g + 1, s = s + 0.125, p = p - 2, q = q + 1.5, d = d + 1, e = e - 0.5;
UPDATE crdt SET g = g + 10::bigint, s = s + 1, p = p + 3::smallint, q = q - 1e3, d = 7;
SELECT *, #g AS "#g", #s AS "#s", #p AS "#p", #q AS "#q" FROM crdt ORDER BY id;
SELECT pg_typeof(#g), pg_typeof(#s), pg_typeof(#p), pg_typeof(#q), pg_typeof(d), pg_typeof(d + 1), g::bigint, g::numeric, s::numeric
	FROM crdt WHERE id = 2;
SELECT id, bdr.crdt_gcounter_to_text(g) AS g, bdr.crdt_gsum_to_text(s) AS s, bdr.crdt_pncounter_to_text(p) AS p,
	bdr.crdt_pnsum_to_text(q) AS q FROM crdt ORDER BY id;
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT id, bdr.crdt_gcounter_to_text(g) AS g, bdr.crdt_gsum_to_text(s) AS s, bdr.crdt_pncounter_to_text(p) AS p,
	bdr.crdt_pnsum_to_text(q) AS q, d, e FROM crdt ORDER BY id;
-- the other node's part is its own
UPDATE crdt SET g = g + 5, s = s + 5.5, p = p - 5, q = q - 5.55, d = d - 10, e = e - 10 WHERE id IN (1, 2);
UPDATE crdt SET p = !p, q = !q WHERE id = 2;
DELETE FROM crdt WHERE id = 3;
SELECT bdr.wait_slot_confirm_lsn();
\c node1
SELECT id, bdr.crdt_gcounter_to_text(g) AS g, bdr.crdt_gsum_to_text(s) AS s, bdr.crdt_pncounter_to_text(p) AS p,
	bdr.crdt_pnsum_to_text(q) AS q, d, e FROM crdt ORDER BY id;
UPDATE crdt SET g = !g, s = !s, p = p + 1, q = q + 1 WHERE id = 2;
UPDATE crdt SET g = g + 1 WHERE id = 2;
SELECT * FROM crdt ORDER BY id;
SELECT bdr.wait_slot_confirm_lsn();
-- bytes are equal on both
SELECT md5(string_agg(concat(id, bdr.crdt_gcounter_send(g), bdr.crdt_gsum_send(s), bdr.crdt_pncounter_send(p), bdr.crdt_pnsum_send(q), d, e),
	',' ORDER BY id)) AS bytes FROM crdt \gset one_
\c node2
SELECT md5(string_agg(concat(id, bdr.crdt_gcounter_send(g), bdr.crdt_gsum_send(s), bdr.crdt_pncounter_send(p), bdr.crdt_pnsum_send(q), d, e),
	',' ORDER BY id)) = :'one_bytes' AS same_bytes FROM crdt;
SELECT * FROM crdt ORDER BY id;
\c node1
SET bdr.ddl_replication = off; SET client_min_messages = error;
-- who reads, and who is not an administrator
CREATE ROLE regress_user;
GRANT SELECT, UPDATE ON crdt TO regress_user;
SET ROLE regress_user;
UPDATE crdt SET g = g + 1 WHERE #g > 1000;
SELECT sum(g), max(p) FROM crdt;
RESET ROLE;
DROP OWNED BY regress_user;
DROP ROLE regress_user;
-- an unchanged row, whatever the setting of the session or of the user says
ALTER DATABASE node1 SET bdr.crdt_raw_value = off;
ALTER DATABASE node2 SET bdr.crdt_raw_value = on;
SET bdr.crdt_raw_value = on;
SELECT * FROM crdt ORDER BY id;
SELECT #g, g::bigint, sum(s) OVER () FROM crdt WHERE id = 1;
COPY crdt TO STDOUT;
INSERT INTO crdt (id, g, q) VALUES (6, '{initial: 5, nodes: [1: 7, 2: 8 reset 3]}', '{initial:-1.5 reset,nodes:[1:+1 -2.5]}');
RESET bdr.crdt_raw_value;
SELECT g, q FROM crdt WHERE id = 6;
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SET bdr.ddl_replication = off; SET client_min_messages = error;
SELECT g, q FROM crdt WHERE id = 6;
RESET bdr.crdt_raw_value;
SET bdr.crdt_raw_value = off;
SELECT g, q FROM crdt WHERE id = 6;
ALTER DATABASE node1 RESET bdr.crdt_raw_value;
ALTER DATABASE node2 RESET bdr.crdt_raw_value;
\c node1
SET bdr.ddl_replication = off; SET client_min_messages = error;

-- Order, groups, aggregates, statistics, indexes: by value
CREATE TEMPORARY TABLE many AS SELECT i, (i % 10)::bdr.crdt_gcounter AS g, (i % 10 - 5)::bdr.crdt_pncounter AS p, (i % 10 * 0.25)::bdr.crdt_gsum AS s,
	(i % 10 - 5.5)::bdr.crdt_pnsum AS q FROM generate_series(1, 1000) i;
UPDATE many SET g = g + 1, p = p - 1, s = s + 1, q = q - 1 WHERE i <= 500;
SELECT sum(g), avg(g), min(g), max(g) FROM many;
SELECT sum(p), avg(p), min(p), max(p) FROM many;
SELECT sum(s), avg(s), min(s), max(s) FROM many;
SELECT sum(q), avg(q), min(q), max(q) FROM many;
SELECT sum(g), avg(s), min(p), max(q) FROM many WHERE i < 0;
SELECT pg_typeof(sum(g)), pg_typeof(avg(g)), pg_typeof(min(g)), pg_typeof(max(q)) FROM many;
SELECT g, count(*) FROM many GROUP BY g ORDER BY g DESC;
SELECT DISTINCT q FROM many ORDER BY q LIMIT 3;
SET enable_sort = off;
SELECT count(*) FROM (SELECT s FROM many GROUP BY s) x;
RESET enable_sort;
SELECT count(*) FROM many a JOIN (SELECT '5'::bdr.crdt_gcounter + 1 AS g) b USING (g);
SELECT '1.50'::bdr.crdt_gsum = '1.5' AS equal, '5'::bdr.crdt_pncounter < '6' AS less, '5'::bdr.crdt_pncounter + 1 >= '6' AS greater_or_equal,
	'-1'::bdr.crdt_pnsum <> '1' AS different;
ANALYZE many;
SELECT attname, n_distinct, most_common_vals::text IS NOT NULL AS has_common, array_length(most_common_freqs, 1) AS common FROM pg_stats
	WHERE tablename = 'many' AND attname <> 'i' ORDER BY 1;
CREATE INDEX many_p ON many (p);
CREATE INDEX many_q ON many USING hash (q);
SET enable_seqscan = off;
SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) SELECT count(*) FROM many WHERE p < '-5';
SELECT count(*) FROM many WHERE p < '-5';
EXPLAIN (COSTS OFF) SELECT count(*) FROM many WHERE q = '-5.5';
SELECT count(*) FROM many WHERE q = '-5.5';
RESET enable_seqscan;
RESET enable_bitmapscan;
CREATE TEMPORARY TABLE crdt_partitioned (id int PRIMARY KEY, g bdr.crdt_gcounter DEFAULT 0, CHECK (#g < 100)) PARTITION BY HASH (id);
CREATE TEMPORARY TABLE crdt_part PARTITION OF crdt_partitioned FOR VALUES WITH (MODULUS 1, REMAINDER 0);
INSERT INTO crdt_partitioned VALUES (1) RETURNING g, g + 5 AS next;
UPDATE crdt_partitioned SET g = g + 100;
DROP TABLE crdt_partitioned;

-- Large ones are compressed
SELECT ('{initial: 0, nodes: [' || string_agg(n || ': 1000', ', ' ORDER BY n) || ']}')::bdr.crdt_gcounter AS g INTO TEMPORARY crdt_large
	FROM generate_series(1, 5000) n;
SELECT g, pg_column_size(g) < 30000 AS compressed FROM crdt_large;
UPDATE crdt_large SET g = g + 1;
SELECT #g FROM crdt_large;

-- What is not permitted
UPDATE crdt SET g = g - 1;
UPDATE crdt SET g = g + -1;
UPDATE crdt SET s = s + -0.5;
UPDATE crdt SET s = s + 'NaN';
UPDATE crdt SET q = q - 'infinity'::numeric;
UPDATE crdt SET g = g + 1.5;
UPDATE crdt SET g = g * 2;
UPDATE crdt SET g = g + p;
INSERT INTO crdt (id, g) VALUES (10, -1);
INSERT INTO crdt (id, s) VALUES (10, -1);
INSERT INTO crdt (id, g) VALUES (10, 'many');
INSERT INTO crdt (id, g) VALUES (10, 99999999999999999999);
INSERT INTO crdt (id, q) VALUES (10, 'NaN');
INSERT INTO crdt (id, g) VALUES (10, '{initial: 5}');
INSERT INTO crdt (id, g) VALUES (10, '{initial: 5, nodes: [1: 7 reset 8]}');
INSERT INTO crdt (id, g) VALUES (10, true);
\set VERBOSITY sqlstate
UPDATE crdt SET g = g + 9223372036854775807 WHERE id = 1;
UPDATE crdt SET p = p - 9223372036854775807 WHERE id = 1;
UPDATE crdt SET q = q + ('9' || repeat('0', 131071))::numeric * 2 WHERE id = 1;
\set VERBOSITY default
SELECT ('{initial: 0, nodes: [1: 9223372036854775807, 2: 9223372036854775807]}')::bdr.crdt_gcounter AS beyond_bigint;
SELECT #('{initial: 0, nodes: [1: 9223372036854775807, 2: 9223372036854775807]}')::bdr.crdt_gcounter;

-- Binary: a state and nothing else
SELECT bdr.crdt_pnsum_send('-1.5');
CREATE TEMPORARY TABLE binary_copy (g bdr.crdt_gcounter, s bdr.crdt_gsum, p bdr.crdt_pncounter, q bdr.crdt_pnsum);
INSERT INTO binary_copy SELECT g, s, p, q FROM crdt;
SELECT format('%s/crdt_binary', current_setting('data_directory')) AS file \gset
COPY binary_copy TO :'file' (FORMAT binary);
CREATE TEMPORARY TABLE binary_read (LIKE binary_copy);
COPY binary_read FROM :'file' (FORMAT binary);
SELECT (SELECT array_agg(binary_copy::text ORDER BY binary_copy::text COLLATE "C") FROM binary_copy)
	= (SELECT array_agg(binary_read::text ORDER BY binary_read::text COLLATE "C") FROM binary_read) AS same;
CREATE TEMPORARY TABLE binary_other (g bdr.crdt_pncounter, s bdr.crdt_gsum, p bdr.crdt_pncounter, q bdr.crdt_pnsum);
COPY binary_other FROM :'file' (FORMAT binary);

-- Merging, as apply does it: (local, old, new)
SELECT bdr.crdt_gcounter_to_text(bdr.internal_crdt_merge('{initial: 5, nodes: [1: 7]}'::bdr.crdt_gcounter, '5', '{initial: 5, nodes: [2: 3]}'));
SELECT bdr.crdt_pnsum_to_text(bdr.internal_crdt_merge('{initial: 5 reset, nodes: [1: +7 -1 reset +7 -0]}'::bdr.crdt_pnsum, '5',
	'{initial: 5, nodes: [1: +7 -0, 2: +0.5 -1.25]}'));
SELECT bdr.crdt_pncounter_to_text(bdr.crdt_pncounter_merge('{initial: 5, nodes: [1: +7 -1]}', NULL, '8'));
SELECT bdr.crdt_gsum_merge(NULL, NULL, '3') AS only_new, bdr.crdt_gsum_merge('2', '1', NULL) AS only_local, bdr.crdt_gsum_merge(NULL, '1', NULL) AS none;
SELECT bdr.internal_crdt_merge(2::bdr.crdt_delta_counter, 0::bdr.crdt_delta_counter, 2::bdr.crdt_delta_counter) AS both_set_2,
	bdr.crdt_delta_sum_merge(10.5, 7.25, 3) AS sum, bdr.crdt_delta_counter_merge(5, NULL, 3) AS both_inserted,
	bdr.crdt_delta_counter_merge(NULL, NULL, 3) AS first_value, bdr.crdt_delta_counter_merge(NULL, 5, 6) AS null_here,
	bdr.crdt_delta_counter_merge(5, 5, NULL) AS becomes_null;
SELECT bdr.crdt_delta_counter_merge(9223372036854775807, 0, 1);
SELECT bdr.crdt_delta_counter_merge(-9223372036854775808, -9223372036854775808, 9223372036854775807) AS fits;
CREATE DOMAIN visits AS bdr.crdt_gcounter CHECK (#VALUE < 1000);
CREATE DOMAIN stock AS bdr.crdt_delta_counter;
CREATE DOMAIN plain AS bigint;
SELECT bdr.internal_crdt_merge('{initial: 5, nodes: [1: 7]}'::visits, '5', '{initial: 5, nodes: [2: 3]}') AS domain_of_state,
	bdr.internal_crdt_merge(2::stock, 0::stock, 2::stock) AS domain_of_delta;
SELECT bdr.internal_crdt_merge(2::plain, 0::plain, 2::plain);
SELECT bdr.internal_crdt_merge(2, 0, 2);
CREATE TEMPORARY TABLE visited (id int, v visits DEFAULT 0, n stock DEFAULT 0);
INSERT INTO visited VALUES (1);
UPDATE visited SET v = v + 7, n = n - 1;
SELECT * FROM visited;
UPDATE visited SET v = v + 1000;
-- what changes a type or function is heard of
ALTER FUNCTION bdr.crdt_gcounter_merge COST 2;
SELECT bdr.internal_crdt_merge('1'::visits, '1', '{initial: 1, nodes: [2: 3]}');
ALTER FUNCTION bdr.crdt_gcounter_merge COST 1;
DROP TABLE visited;
DROP DOMAIN visits, stock, plain;

SELECT bdr.wait_slot_confirm_lsn();
DROP TABLE crdt;
SELECT count(*) AS errors FROM bdr.worker_errors;
\c node2
SET bdr.ddl_replication = off; SET client_min_messages = error;
DROP TABLE crdt;
SELECT count(*) AS errors FROM bdr.worker_errors;
