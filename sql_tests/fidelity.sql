-- Nothing is lost: for each built-in type and what can be made of them, the
-- value that decode makes of encode's JSON has the same image, whatever the
-- session's settings are when it is written and when it is read.
SET client_min_messages = warning;
SET TimeZone = 'UTC';
\getenv srcdir PG_ABS_SRCDIR
\set ECHO none
\i :srcdir/sql/fidelity_types.inc
\set ECHO all
SELECT probin AS library FROM pg_proc WHERE oid = 'audit_log.capture()'::regprocedure \gset
CREATE FUNCTION fidelity.encode_row(record) RETURNS jsonb LANGUAGE c AS :'library', 'audit_log_encode_row';
CREATE FUNCTION fidelity.decode_row(anyelement, jsonb) RETURNS anyelement LANGUAGE c AS :'library', 'audit_log_decode_row';

-- And all of that as a composite and as an array of composites. (Its values come
-- from decode and not from the table: some there are compressed, which within a
-- composite makes another image.)
CREATE TABLE fidelity.nested AS SELECT e.id, d AS whole, ARRAY[d, NULL] AS list
  FROM fidelity.everything e, fidelity.decode_row(NULL::fidelity.everything, fidelity.encode_row(e)) d;

-- Each built-in type that a column can have is among the samples, but for those
-- that no input function reads.
SELECT t.oid::regtype AS "type without sample" FROM pg_type t
  WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm', 'e', 'd') AND typoutput <> 'array_out'::regproc
    AND t.oid NOT IN (SELECT to_regtype(type) FROM fidelity.sample)
  ORDER BY t.oid::regtype::text COLLATE "C";

-- Written and read under three different sets of settings; each set reads what
-- the one before it has written.
CREATE TABLE fidelity.written (settings int, id int, everything jsonb, nested jsonb);
CREATE TABLE fidelity.read1 (LIKE fidelity.everything);
CREATE TABLE fidelity.read2 (LIKE fidelity.everything);
CREATE TABLE fidelity.read3 (LIKE fidelity.everything);
CREATE TABLE fidelity.nested1 (LIKE fidelity.nested);
CREATE TABLE fidelity.nested2 (LIKE fidelity.nested);
CREATE TABLE fidelity.nested3 (LIKE fidelity.nested);

SET extra_float_digits = 1;
INSERT INTO fidelity.written SELECT 1, e.id, fidelity.encode_row(e), fidelity.encode_row(n)
  FROM fidelity.everything e JOIN fidelity.nested n ON n.id = e.id;

-- traps: names that come before those of pg_catalog
CREATE SCHEMA trap;
CREATE DOMAIN trap.text AS pg_catalog.int4;
CREATE DOMAIN trap.timestamptz AS pg_catalog.int4;
CREATE TYPE trap.mood AS ENUM ('sad');
CREATE TYPE trap.int4 AS (x pg_catalog.int4);
CREATE TABLE trap.pg_class (x pg_catalog.int4);
CREATE TEMPORARY TABLE pg_type (x pg_catalog.int4);
CREATE TEMPORARY TABLE pg_proc (x pg_catalog.int4);
CREATE FUNCTION trap.now() RETURNS pg_catalog.int4 LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION trap.abs(pg_catalog.int4) RETURNS pg_catalog.int4 LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION trap.wrong(pg_catalog.int4, pg_catalog.int4) RETURNS pg_catalog.int4 LANGUAGE sql AS 'SELECT 1';
CREATE OPERATOR trap.+ (LEFTARG = pg_catalog.int4, RIGHTARG = pg_catalog.int4, FUNCTION = trap.wrong);
CREATE OPERATOR trap.|/ (RIGHTARG = pg_catalog.int4, FUNCTION = trap.abs);
CREATE COLLATION trap."C" FROM pg_catalog."POSIX";
CREATE TEXT SEARCH CONFIGURATION trap.simple (COPY = pg_catalog.simple);
CREATE TEXT SEARCH DICTIONARY trap.simple (TEMPLATE = pg_catalog.simple);

SET TimeZone = 'America/St_Johns';
SET DateStyle = 'German, DMY';
SET IntervalStyle = sql_standard;
SET bytea_output = escape;
SET extra_float_digits = -15;
SET xmloption = document;
SELECT coalesce(min(collcollate), 'POSIX') AS money FROM pg_collation WHERE collprovider = 'c' AND collcollate ~ '^(de|en|nl)_' \gset
SET lc_monetary = :'money';
SET search_path = trap, fidelity, pg_catalog;
INSERT INTO fidelity.written SELECT 2, e.id, fidelity.encode_row(e), fidelity.encode_row(n)
  FROM fidelity.everything e, fidelity.nested n WHERE n.id OPERATOR(pg_catalog.=) e.id;
INSERT INTO fidelity.read1 SELECT d.* FROM fidelity.written w, fidelity.decode_row(NULL::fidelity.everything, w.everything) d WHERE w.settings OPERATOR(pg_catalog.=) 1;
INSERT INTO fidelity.nested1 SELECT d.* FROM fidelity.written w, fidelity.decode_row(NULL::fidelity.nested, w.nested) d WHERE w.settings OPERATOR(pg_catalog.=) 1;
-- nothing of the session has changed by that
BEGIN;
DO $$ BEGIN PERFORM fidelity.encode_row(ROW(1::pg_catalog.money)); END $$;
DO $$ BEGIN PERFORM fidelity.decode_row(NULL::fidelity.pair, '{"a": "x"}'); EXCEPTION WHEN invalid_text_representation THEN NULL; END $$;
SELECT current_setting('TimeZone') AS zone, current_setting('search_path') AS path, '2026-01-02 03:04:05+00'::pg_catalog.timestamptz, '-1 mon 2 days'::pg_catalog.interval,
  '\x00'::pg_catalog.bytea, 0.1::pg_catalog.float8 OPERATOR(pg_catalog./) 3 AS float, current_setting('lc_monetary') OPERATOR(pg_catalog.<>) 'C' AS money;
COMMIT;

SET TimeZone = 'Europe/Amsterdam';
SET DateStyle = 'SQL, YMD';
SET IntervalStyle = iso_8601;
SET extra_float_digits = 3;
SET xmloption = content;
SET search_path = '';
INSERT INTO fidelity.written SELECT 3, e.id, fidelity.encode_row(e), fidelity.encode_row(n)
  FROM fidelity.everything e JOIN fidelity.nested n ON n.id = e.id;
INSERT INTO fidelity.read2 SELECT d.* FROM fidelity.written w, fidelity.decode_row(NULL::fidelity.everything, w.everything) d WHERE w.settings = 2;
INSERT INTO fidelity.nested2 SELECT d.* FROM fidelity.written w, fidelity.decode_row(NULL::fidelity.nested, w.nested) d WHERE w.settings = 2;
RESET ALL;
SET client_min_messages = warning;
SET TimeZone = 'UTC';
INSERT INTO fidelity.read3 SELECT d.* FROM fidelity.written w, fidelity.decode_row(NULL::fidelity.everything, w.everything) d WHERE w.settings = 3;
INSERT INTO fidelity.nested3 SELECT d.* FROM fidelity.written w, fidelity.decode_row(NULL::fidelity.nested, w.nested) d WHERE w.settings = 3;

-- the same was written each time
SELECT id FROM fidelity.written GROUP BY id HAVING count(DISTINCT everything::text) <> 1 OR count(DISTINCT nested::text) <> 1 OR count(*) <> 3;
-- and the same values come back, to the image
CREATE FUNCTION fidelity.differences(was regclass, became regclass) RETURNS TABLE ("table" regclass, "column" name, id int, value jsonb) LANGUAGE plpgsql AS $$
BEGIN
  FOR "column" IN SELECT attname FROM pg_attribute WHERE attrelid = was AND attnum > 0 LOOP
    RETURN QUERY EXECUTE format('SELECT %L::regclass, %L::name, a.id, (w.everything || w.nested)->%2$L FROM %s a FULL JOIN %1$s b ON b.id = a.id
      JOIN fidelity.written w ON w.id = a.id AND settings = 1 WHERE record_image_eq(ROW(a.%2$I), ROW(b.%2$I)) IS NOT TRUE', became, "column", was);
  END LOOP;
END $$;
SELECT d.* FROM unnest(ARRAY['read1', 'read2', 'read3']) r, fidelity.differences('fidelity.everything', ('fidelity.' || r)::regclass) d;
SELECT d.* FROM unnest(ARRAY['nested1', 'nested2', 'nested3']) r, fidelity.differences('fidelity.nested', ('fidelity.' || r)::regclass) d;

-- $pg stands only where it must: never for an ordinary value (but for that of a
-- composite whose only attribute has that name)
SELECT key FROM fidelity.written, jsonb_each(everything || nested) WHERE settings = 1 AND id = 0 AND value ? '$pg';
-- what it looks like
SELECT type, expr, everything->type AS "in the log" FROM (SELECT *, row_number() OVER (PARTITION BY type ORDER BY n) AS id FROM fidelity.sample) s
  JOIN fidelity.written w USING (id) WHERE settings = 1 AND length(expr) < 80 AND length((everything->type)::text) < 150 AND since = 15
    AND type IN ('bool', '"char"', 'int8', 'oid', 'float4', 'float8', 'numeric', 'money', 'bpchar', 'bytea', 'date', 'timetz', 'timestamptz', 'interval', 'point', 'json', 'jsonb', 'int2vector', 'regclass',
      'regtype', 'regproc', 'tstzrange', 'int4multirange', 'fidelity.mood', 'fidelity.colour', 'int4[]', 'text[]', 'json[]', 'jsonb[]', 'char(5)', 'numeric(6,2)',
      'fidelity.matrix', 'fidelity.matrix[]', 'fidelity.doc', 'fidelity.pair', 'fidelity.pair[]', 'fidelity.only_pg', 'fidelity.nothing', 'fidelity.mixed', 'fidelity.floats') ORDER BY n;

-- What is not stable: the type's own text does not make the image again. The
-- log has that text, and what the input function makes of it.
CREATE TYPE fidelity.grown AS (a int);
CREATE TYPE fidelity.shrunk AS (a int, b int);
CREATE TABLE fidelity.stored (a int, grown fidelity.grown, shrunk fidelity.shrunk, list int[], ordinary fidelity.pair);
INSERT INTO fidelity.stored VALUES (1, ROW(1), ROW(1, 2), '{1,NULL}', (repeat('x', 3000), 1));
ALTER TYPE fidelity.grown ADD ATTRIBUTE b int;
ALTER TYPE fidelity.shrunk DROP ATTRIBUTE b;
UPDATE fidelity.stored SET list[2] = 2;
CREATE TABLE fidelity.part (b text, a float8);
INSERT INTO fidelity.part VALUES (repeat('x', 3000), 1);
CREATE TABLE fidelity.exception (n serial, type text, expr text, reason text);
INSERT INTO fidelity.exception (type, expr, reason) VALUES
  ('float8', $$-('NaN'::float8)$$, 'NaN with the sign bit'),
  ('point', $$point(-('NaN'::float8), 1)$$, 'the same inside a value'),
  ('int4[]', $$('{NULL,2}'::int4[])[2:2]$$, 'array with a bitmap of NULLs but no NULL'),
  ('int4[]', $$(SELECT list FROM fidelity.stored)$$, 'the same after a NULL was overwritten'),
  ('tsquery', $$'a'::tsquery && 'b'::tsquery$$, 'tsquery made by an operator'),
  ('fidelity.grown', $$(SELECT grown FROM fidelity.stored)$$, 'composite stored before ADD ATTRIBUTE'),
  ('fidelity.shrunk', $$(SELECT shrunk FROM fidelity.stored)$$, 'composite stored before DROP ATTRIBUTE'),
  ('fidelity.part', $$(SELECT part FROM fidelity.part)$$, 'composite with a field compressed in storage'),
  ('xml', $$'<?xml version="1.0" encoding="UTF-8"?><a/>'$$, 'xml declaration that says nothing'),
  ('xml', $$'<?xml version="1.1" encoding="latin1"?><a/>'$$, 'encoding in an xml declaration'),
  ('regproc', $$'abs(int4)'::regprocedure::oid$$, 'regproc of an overloaded function'),
  ('regoper', $$'+(int4,int4)'::regoperator::oid$$, 'regoper of an overloaded operator');
CREATE FUNCTION fidelity.try(INOUT type text, expr text, INOUT reason text, OUT "in the log" jsonb, OUT "read back" text) LANGUAGE plpgsql AS $try$
DECLARE same boolean;
BEGIN
  EXECUTE format('DROP TABLE IF EXISTS pg_temp.one; CREATE TEMPORARY TABLE one (v %s); INSERT INTO one SELECT (%s)::%1$s', type, expr);
  EXECUTE $$SELECT fidelity.encode_row(one)->'v' FROM one$$ INTO "in the log";
  IF length("in the log"::text) > 100 THEN "in the log" := '"(long)"'; END IF;
  EXECUTE 'SELECT one *= fidelity.decode_row(one, fidelity.encode_row(one)) FROM one' INTO same;
  "read back" := CASE WHEN same THEN 'same image' ELSE 'other image' END;
EXCEPTION WHEN undefined_function OR ambiguous_function THEN
  "read back" := SQLERRM;
END $try$;
SELECT t.* FROM fidelity.exception e, fidelity.try(type, expr, reason) t ORDER BY n;
-- Rows of other times: columns and attributes that came since are NULL, dropped
-- attributes fall away; what is not there any more or cannot be read is refused.
SELECT fidelity.decode_row(NULL::fidelity.stored, '{"a": 1, "grown": {"a": 1}, "shrunk": {"a": 1, "b": 2}}');
SELECT fidelity.decode_row(NULL::fidelity.stored, '{"a": 1, "gone": 2}');
SELECT fidelity.decode_row(NULL::fidelity.stored, '{"grown": {"a": 1, "renamed": 2}}');
SELECT fidelity.decode_row(NULL::fidelity.stored, '{"a": 1.5}');
\set VERBOSITY terse
SELECT fidelity.decode_row(NULL::fidelity.stored, '{"list": {"x": 1}}');
\set VERBOSITY default
SELECT fidelity.decode_row(NULL::fidelity.stored, '[1]');
SELECT fidelity.decode_row(1, '{}');
CREATE TABLE fidelity.changed (a text, b text[], c jsonb, d json, e numeric(4,1), f fidelity.positive, g int GENERATED ALWAYS AS (1) STORED);
SELECT fidelity.decode_row(NULL::fidelity.changed, '{"a": {"x": [1, null]}, "b": [1, true], "c": "x", "d": "x", "e": "1.25", "g": 7}');
SELECT fidelity.decode_row(NULL::fidelity.changed, '{"a": {"$pg": 1}, "c": {"$pg": "[null]"}, "d": {"$pg": "x", "y": 1}}');
SELECT fidelity.decode_row(NULL::fidelity.changed, '{"f": 0}');
ALTER TABLE fidelity.changed ADD h fidelity.doc;
SELECT fidelity.decode_row(NULL::fidelity.changed, '{"h": true}');
SELECT fidelity.encode_row(x) FROM (SELECT 1 AS a, 2 AS a) x;
SELECT fidelity.encode_row(x) FROM (SELECT 'NaN'::float8 AS a, NULL AS b, ARRAY['x'] AS c) x;

-- A type whose text is not in the database's encoding cannot be logged.
CREATE TYPE fidelity.bytes;
CREATE FUNCTION fidelity.bytes_in(cstring) RETURNS fidelity.bytes LANGUAGE internal IMMUTABLE STRICT AS 'byteain';
CREATE FUNCTION fidelity.bytes_out(fidelity.bytes) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE fidelity.bytes (INPUT = fidelity.bytes_in, OUTPUT = fidelity.bytes_out, LIKE = bytea);
SELECT fidelity.encode_row(ROW('\xc3a4'::fidelity.bytes));
SELECT fidelity.encode_row(ROW('\xc3'::fidelity.bytes));
SELECT fidelity.encode_row(ROW('[0:0]={"\\xc3"}'::fidelity.bytes[]));

DROP SCHEMA fidelity CASCADE;
DROP SCHEMA trap CASCADE;
DROP TABLE pg_temp.one, pg_temp.pg_type, pg_temp.pg_proc;
