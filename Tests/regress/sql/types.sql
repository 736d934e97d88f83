-- Values of every kind of type arrive as they were written, whatever the order and the history of the columns.

\getenv dir PG_ABS_SRCDIR
\cd :dir/include
-- Types are found by name: on the second node their OIDs differ. A server without libxml keeps its documents as text.
SELECT CASE WHEN setting LIKE '%libxml%' THEN 'xml' ELSE 'text' END AS xml FROM pg_config WHERE name = 'CONFIGURE' \gset
\i two.sql
CREATE TYPE types_before AS ENUM ('moves the OIDs');
DROP TYPE types_before;
\i one.sql
\i types.sql
\i two.sql
\i types.sql

-- From the first node to the second
\c node1
INSERT INTO types_number VALUES
	(1, -32768, -9223372036854775808, 1.17549435e-38, 0.1::float8 + 0.2, 1234567890.098765432109876543210, 123456789.0625, '-12.34', 4294967295, true),
	(2, 32767, 9223372036854775807, 'NaN', '-Infinity', 'NaN', 'NaN', '1234567.89', 0, false),
	(3, 0, 0, '-0', 'Infinity', 'Infinity', -0.0005, 0, 1, NULL),
	(4, NULL, NULL, 1e38, 5e-324, '-Infinity', NULL, NULL, NULL, NULL),
	(5, 1, 1, 1/3.0, 1/3.0::float8, 1e-200, 0.000, NULL, NULL, NULL),
	(6, 1, 1, 1, 1, ('1' || repeat('0', 300))::numeric + 1, 0, NULL, NULL, NULL);
INSERT INTO types_text VALUES
	(1, E'tab\tnew\nline\\back''quote', 'varying', 'padded', 'c', 'a name', '\x00ff5c27'::bytea, B'10101', B'1'),
	(2, 'ÄÖÜß € 𝄞 中文', 'ü', 'ü', '', 'Ünï', '\x', B'00000', B''),
	(3, '', '', '', NULL, '', NULL, NULL, NULL),
	(4, repeat('long ', 5), NULL, NULL, NULL, repeat('n', 63), decode(repeat('00', 40), 'hex'), NULL, repeat('01', 40)::varbit);
INSERT INTO types_time VALUES
	(1, '2024-02-29', '23:59:59.999999', '12:00:00.5+05:45', '2001-02-03 04:05:06.7891', '2024-10-27 02:30:00+02', '1 year 2 mons -3 days 04:05:06.7', '7 years'),
	(2, 'infinity', '00:00', '24:00:00-12', 'infinity', 'infinity', '0', '0'),
	(3, '-infinity', '24:00', '00:00+14', '-infinity', '-infinity', '-178000000 years', NULL),
	(4, '4713-01-01 BC', NULL, NULL, '0001-01-01 BC', '294276-12-31 23:59:59.999999+00', '-1 day +1 us', NULL);
-- an empty tsquery is worth a notice
SET client_min_messages = warning;
INSERT INTO types_other VALUES
	(1, '00112233-4455-6677-8899-aabbccddeeff', '{"a" :  1, "a": 2}', '{"b": [1, null, 1.50], "a": {}}', '$.a[*] ? (@ > 1)', '<a b="c">text &amp; more</a>',
		'a:1 fat:2,4B ''with space''', 'a & !(b | c:AB*)', '16/B374D848'),
	(2, NULL, 'null', 'null', '$', '', '', '', '0/0'),
	(3, NULL, '[]', '"a string"', NULL, NULL, NULL, NULL, 'FFFFFFFF/FFFFFFFF');
RESET client_min_messages;
INSERT INTO types_net_geo VALUES
	(1, '10.1.2.3/8', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', '(1.5,-2)', '{1,2,3}', '[(0,0),(1,1)]', '(2,2),(0,0)',
		'[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(2,0))', '<(1,1),2>'),
	(2, '2001:db8::1', '::/0', NULL, NULL, '(NaN,Infinity)', NULL, NULL, NULL, '((0,0))', NULL, '<(0,0),0>');
INSERT INTO types_many VALUES
	(1, '{1,NULL,3}', '{{1,2},{3,4}}', ARRAY['a"b', NULL, 'NULL', '', E'back\\slash'], '{1.50,NaN,Infinity}', ARRAY['2024-05-06 07:08:09+00'::timestamptz],
		'[1,10)', '(,5.5]', '[2024-01-01 00:00+00,)', '[2024-01-01,2024-02-01)', '{[1,3),[5,7)}', '{(,1),[2,2]}', ARRAY['[1,2)', 'empty', NULL]::int8range[]),
	(2, '{}', '{}', '{}', '[5:6]={1,2}', '{infinity}', 'empty', 'empty', '(,)', 'empty', '{}', '{}', '{}');
INSERT INTO types_own VALUES
	(1, 'happy "quoted", with commas', ROW(1, 'sad', 'n,"o)te'), 1.5, '{1,2.50}', '[1.1,2.2)', '{[1,2),[3,4)}', '{sad,"happy \"quoted\", with commas"}',
		ARRAY[ROW(1, 'ok', NULL)::pair, NULL, ROW(NULL, NULL, '')::pair], ROW(ROW(1, 'ok', 'x'), ARRAY[ROW(2, 'sad', 'y')::pair], '[0.1,0.2]', 7),
		ARRAY['[1,2)'::floatrange]),
	(2, NULL, NULL, NULL, NULL, 'empty', '{}', '{}', '{}', ROW(NULL, NULL, NULL, NULL), '{}'),
	(3, 'sad', NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO types_key VALUES ('sad', '[1,5)', '2024-01-01', 1), ('ok', '[1,5)', 'infinity', 2), ('ok', 'empty', '2024-01-01', 3);
SELECT bdr.wait_slot_confirm_lsn();
\c node2
\x on
SELECT * FROM types_number ORDER BY id;
SELECT * FROM types_text ORDER BY id;
SELECT * FROM types_time ORDER BY id;
SELECT * FROM types_other ORDER BY id;
SELECT * FROM types_net_geo ORDER BY id;
SELECT * FROM types_many ORDER BY id;
SELECT * FROM types_own ORDER BY id;
SELECT id, (p).m, (n).many[1].note, pa[1].m FROM types_own ORDER BY id;
\x off
SELECT * FROM types_key ORDER BY m, r, d;

-- To the last bit, and from the second node to the first
SELECT md5(string_agg(float4send(f4)::text || float8send(f8)::text || numeric_send(n)::text, ',' ORDER BY id)) AS bits FROM types_number \gset two_
UPDATE types_number SET f8 = 1/3.0::float8, n = n * 2 WHERE id = 1;
UPDATE types_text SET t = upper(t), b = b || '\x00' WHERE b IS NOT NULL;
UPDATE types_time SET tstz = '2030-01-01 00:00:00.000001+00', i = i - '1 us'::interval WHERE id = 1;
UPDATE types_other SET jb = jsonb_set(jb, '{a}', '[1]'), tv = tv || 'more:7' WHERE id = 1;
UPDATE types_net_geo SET net = '::1', pt = pt + point '(1,1)' WHERE id = 1;
UPDATE types_many SET ia[2] = 2, ta[7] = 'sparse', im = im + '{[20,30)}' WHERE id = 1;
UPDATE types_own SET m = 'ok', p.note = 'new', pos = pos + 1, ma[1] = 'ok' WHERE id IN (1, 3);
UPDATE types_key SET v = v * 10 WHERE m = 'ok';
UPDATE types_key SET r = '[2,3)', m = 'happy "quoted", with commas' WHERE m = 'sad';
DELETE FROM types_key WHERE d = 'infinity';
INSERT INTO types_own (id, m, rs) VALUES (10, 'sad', '{[0.1,0.2)}');
DELETE FROM types_own WHERE id = 2;
SELECT bdr.wait_slot_confirm_lsn();
\i one.sql
SELECT md5(string_agg(float4send(f4)::text || float8send(f8)::text || numeric_send(n)::text, ',' ORDER BY id)) = :'two_bits' AS same_bits
	FROM (SELECT id, f4, CASE id WHEN 1 THEN 0.1::float8 + 0.2 ELSE f8 END AS f8, CASE id WHEN 1 THEN n / 2 ELSE n END AS n FROM types_number) x;
\x on
SELECT * FROM types_number WHERE id = 1;
SELECT * FROM types_text ORDER BY id;
SELECT * FROM types_time WHERE id = 1;
SELECT * FROM types_other WHERE id = 1;
SELECT * FROM types_net_geo WHERE id = 1;
SELECT * FROM types_many WHERE id = 1;
SELECT * FROM types_own ORDER BY id;
\x off
SELECT * FROM types_key ORDER BY m, r, d;

-- Columns: another order, dropped ones, ones that only the receiver has, generated and identity columns
CREATE TABLE columns_shuffled (id int PRIMARY KEY, a int, b text, c numeric);
CREATE TABLE columns_dropped (gone int, id int PRIMARY KEY, a int, gone_too text, b text);
ALTER TABLE columns_dropped DROP COLUMN gone, DROP COLUMN gone_too;
CREATE TABLE columns_more (id int PRIMARY KEY, a int);
CREATE TABLE columns_generated (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED);
CREATE TABLE columns_identity (id int GENERATED BY DEFAULT AS IDENTITY (START 100) PRIMARY KEY, a serial, b text);
CREATE TABLE "Columns ""quoted""" ("I d" int PRIMARY KEY, "select" text, "ÄÖ" text);
\i two.sql
CREATE TABLE columns_shuffled (c numeric, b text, id int PRIMARY KEY, a int);
CREATE TABLE columns_dropped (id int PRIMARY KEY, gone bigint NOT NULL DEFAULT 7, b text, a int);
ALTER TABLE columns_dropped DROP COLUMN gone;
CREATE TABLE columns_more (more text DEFAULT 'filled here', id int PRIMARY KEY, nothing date, a int, twice int GENERATED ALWAYS AS (a * 2) STORED);
CREATE TABLE columns_generated (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED);
CREATE TABLE columns_identity (id int GENERATED BY DEFAULT AS IDENTITY (START 100) PRIMARY KEY, a serial, b text);
CREATE TABLE "Columns ""quoted""" ("ÄÖ" text, "select" text, "I d" int PRIMARY KEY);
\c node1
INSERT INTO columns_shuffled VALUES (1, 10, 'b', 1.5), (2, NULL, NULL, NULL);
INSERT INTO columns_dropped VALUES (1, 10, 'b'), (2, NULL, 'c'), (3, 30, NULL);
INSERT INTO columns_more VALUES (1, 10), (2, NULL);
INSERT INTO columns_generated (a) VALUES (10), (NULL), (30);
INSERT INTO columns_identity (b) VALUES ('x'), ('y');
INSERT INTO "Columns ""quoted""" VALUES (1, 's', 'ä');
UPDATE columns_shuffled SET a = a + 1, c = NULL WHERE id = 1;
UPDATE columns_dropped SET b = 'changed' WHERE id = 2;
UPDATE columns_more SET a = a + 1;
UPDATE columns_generated SET a = 11 WHERE a = 10;
DELETE FROM columns_dropped WHERE id = 3;
SELECT bdr.wait_slot_confirm_lsn();
\c node2
SELECT * FROM columns_shuffled ORDER BY id;
SELECT * FROM columns_dropped ORDER BY id;
SELECT * FROM columns_more ORDER BY id;
SELECT * FROM columns_generated ORDER BY id;
SELECT * FROM columns_identity ORDER BY id;
SELECT * FROM "Columns ""quoted""";
UPDATE columns_shuffled SET id = id + 10;
UPDATE columns_dropped SET a = 0 WHERE id = 1;
INSERT INTO columns_dropped (id, a) VALUES (4, 40);
UPDATE columns_generated SET a = 12 WHERE a = 11;
INSERT INTO columns_generated OVERRIDING SYSTEM VALUE VALUES (100, 1);
UPDATE "Columns ""quoted""" SET "I d" = 2, "ÄÖ" = 'ö';
SELECT bdr.wait_slot_confirm_lsn();
\i one.sql
SELECT * FROM columns_shuffled ORDER BY id;
SELECT * FROM columns_dropped ORDER BY id;
SELECT * FROM columns_generated ORDER BY id;
SELECT * FROM "Columns ""quoted""";

-- Structure that changes while both replicate: added and dropped columns, another type, another key
ALTER TABLE columns_shuffled ADD COLUMN d int DEFAULT 5;
\i two.sql
ALTER TABLE columns_shuffled ADD COLUMN d int DEFAULT 5;
INSERT INTO columns_shuffled (id, d) VALUES (20, 50);
ALTER TABLE columns_shuffled DROP COLUMN b;
SELECT bdr.wait_slot_confirm_lsn();
\i one.sql
ALTER TABLE columns_shuffled DROP COLUMN b, ALTER COLUMN a TYPE bigint;
\i two.sql
ALTER TABLE columns_shuffled ALTER COLUMN a TYPE bigint;
\c node1
UPDATE columns_shuffled SET a = 10000000000 WHERE id = 11;
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
SELECT id, a, c, d FROM columns_shuffled ORDER BY id;
ALTER TABLE columns_shuffled DROP CONSTRAINT columns_shuffled_pkey, ADD PRIMARY KEY (d, id);
\i one.sql
ALTER TABLE columns_shuffled DROP CONSTRAINT columns_shuffled_pkey, ADD PRIMARY KEY (d, id);
UPDATE columns_shuffled SET d = 6 WHERE id = 12;
DELETE FROM columns_shuffled WHERE id = 20;
SELECT bdr.wait_slot_confirm_lsn();
\i two.sql
SELECT id, a, c, d FROM columns_shuffled ORDER BY id;

-- Values that are stored out of line and not changed
CREATE TABLE columns_long (id int PRIMARY KEY, small int, t text, b bytea);
ALTER TABLE columns_long ALTER t SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL;
\i one.sql
CREATE TABLE columns_long (id int PRIMARY KEY, small int, t text, b bytea);
ALTER TABLE columns_long ALTER t SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL;
INSERT INTO columns_long SELECT i, i, repeat('t' || i, 10000 * i), decode(repeat('ab', 5000 * i), 'hex') FROM generate_series(1, 3) i;
UPDATE columns_long SET small = small + 10;
UPDATE columns_long SET t = t || 'end' WHERE id = 2;
UPDATE columns_long SET id = id + 100 WHERE id = 3;
SELECT bdr.wait_slot_confirm_lsn();
SELECT md5(string_agg(columns_long::text, ',' ORDER BY id)) AS content FROM columns_long \gset one_
\i two.sql
SELECT id, small, length(t), right(t, 5), length(b) FROM columns_long ORDER BY id;
SELECT md5(string_agg(columns_long::text, ',' ORDER BY id)) = :'one_content' AS same FROM columns_long;

-- Away with it, on both nodes
DROP TABLE types_number, types_text, types_time, types_other, types_net_geo, types_many, types_own, types_key;
DROP TABLE columns_shuffled, columns_dropped, columns_more, columns_generated, columns_identity, "Columns ""quoted""", columns_long;
DROP TYPE nested, floatrange, pair, mood;
DROP DOMAIN positives, positive;
SELECT count(*) AS errors FROM bdr.worker_errors;
\i one.sql
DROP TABLE types_number, types_text, types_time, types_other, types_net_geo, types_many, types_own, types_key;
DROP TABLE columns_shuffled, columns_dropped, columns_more, columns_generated, columns_identity, "Columns ""quoted""", columns_long;
DROP TYPE nested, floatrange, pair, mood;
DROP DOMAIN positives, positive;
SELECT count(*) AS errors FROM bdr.worker_errors;
