CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy "quoted", with commas');
CREATE TYPE pair AS (x int, m mood, note text);
CREATE DOMAIN positive AS numeric CHECK (VALUE > 0);
CREATE DOMAIN positives AS positive[];
CREATE TYPE floatrange AS RANGE (subtype = float8, multirange_type_name = floatranges);
CREATE TYPE nested AS (p pair, many pair[], r floatrange, d positive);
CREATE TABLE types_number (id int PRIMARY KEY, i2 int2, i8 int8, f4 float4, f8 float8, n numeric, n2 numeric(12, 3), m money,
	o oid, b bool);
CREATE TABLE types_text (id int PRIMARY KEY, t text, v varchar(20), c char(8), q "char", n name, b bytea, bi bit(5), bv varbit);
CREATE TABLE types_time (id int PRIMARY KEY, d date, t time, tz timetz, ts timestamp(3), tstz timestamptz, i interval, iy interval year);
CREATE TABLE types_other (id int PRIMARY KEY, u uuid, j json, jb jsonb, jp jsonpath, x :xml, tv tsvector, tq tsquery, lsn pg_lsn);
CREATE TABLE types_net_geo (id int PRIMARY KEY, net inet, ci cidr, mac macaddr, mac8 macaddr8, pt point, ln line, ls lseg, bx box,
	pa path, po polygon, cr circle);
CREATE TABLE types_many (id int PRIMARY KEY, ia int[], i2 int[][], ta text[], na numeric[], tsa timestamptz[], ir int4range, nr numrange,
	tr tstzrange, dr daterange, im int4multirange, nm nummultirange, ra int8range[]);
CREATE TABLE types_own (id int PRIMARY KEY, m mood, p pair, pos positive, ps positives, r floatrange, rs floatranges, ma mood[],
	pa pair[], n nested, ra floatrange[]);
CREATE TABLE types_key (m mood, r int4range, d date, v int, PRIMARY KEY (m, r, d));
