-- Nothing is lost: for each built-in type and what can be made of them, the
-- value that decode makes of encode's JSON has the same image, whatever the
-- session's settings are when it is written and when it is read.
SET client_min_messages = warning;
SET TimeZone = 'UTC';
CREATE SCHEMA fidelity;
CREATE FUNCTION fidelity.encode_row(record) RETURNS jsonb LANGUAGE c
  AS '$libdir/audit_log', 'audit_log_encode_row';
CREATE FUNCTION fidelity.decode_row(anyelement, jsonb) RETURNS anyelement LANGUAGE c
  AS '$libdir/audit_log', 'audit_log_decode_row';

-- Types made of others.
CREATE TYPE fidelity.mood AS ENUM ('sad', 'so, so', '"quoted"', 'null', '{happy}');
CREATE DOMAIN fidelity.positive AS int CHECK (value > 0);
CREATE DOMAIN fidelity.short AS varchar(5);
CREATE DOMAIN fidelity.padded AS char(4);
CREATE DOMAIN fidelity.matrix AS int[];
CREATE DOMAIN fidelity.doc AS jsonb CHECK (jsonb_typeof(value) <> 'boolean');
CREATE DOMAIN fidelity.rawdoc AS json;
CREATE TYPE fidelity.pair AS (b text, a float8);
CREATE TYPE fidelity.only_pg AS ("$pg" text);
CREATE TYPE fidelity.nothing AS ();
CREATE TYPE fidelity.mixed AS (dropped int, "in" fidelity.pair, list int[], "when" timestamptz,
  bytes bytea, doc jsonb, raw json, "Über ""q""" fidelity.mood, pairs fidelity.pair[], cost money,
  fixed char(3), scaled numeric(6,2), dom fidelity.positive, grid fidelity.matrix);
ALTER TYPE fidelity.mixed DROP ATTRIBUTE dropped;
CREATE DOMAIN fidelity.upward AS fidelity.pair CHECK ((value).a > 0);
CREATE TYPE fidelity.floats AS RANGE (subtype = float8);
CREATE TYPE fidelity.pairs AS RANGE (subtype = fidelity.pair);
CREATE TYPE fidelity.moneys AS RANGE (subtype = money);
-- as an extension makes one, with a cast to json that the log must not use
CREATE TYPE fidelity.colour;
CREATE FUNCTION fidelity.colour_in(cstring) RETURNS fidelity.colour LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION fidelity.colour_out(fidelity.colour) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE fidelity.colour (INPUT = fidelity.colour_in, OUTPUT = fidelity.colour_out, LIKE = text);
CREATE TYPE fidelity.span;
CREATE FUNCTION fidelity.span_in(cstring, oid, int4) RETURNS fidelity.span LANGUAGE internal IMMUTABLE STRICT AS 'interval_in';
CREATE FUNCTION fidelity.span_out(fidelity.span) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'interval_out';
CREATE TYPE fidelity.span (INPUT = fidelity.span_in, OUTPUT = fidelity.span_out, LIKE = interval);
CREATE FUNCTION fidelity.wrong(fidelity.colour) RETURNS json LANGUAGE sql IMMUTABLE AS $$ SELECT '"wrong"'::json $$;
CREATE FUNCTION fidelity.wrong(fidelity.mood) RETURNS json LANGUAGE sql IMMUTABLE AS $$ SELECT '"wrong"'::json $$;
CREATE CAST (fidelity.colour AS json) WITH FUNCTION fidelity.wrong(fidelity.colour) AS IMPLICIT;
CREATE CAST (fidelity.mood AS json) WITH FUNCTION fidelity.wrong(fidelity.mood) AS IMPLICIT;
CREATE TABLE fidelity."Odd Name" (i int);

-- What is tried: SQL expressions of each type, the first always an ordinary
-- value. "since" is the version that has it.
CREATE TABLE fidelity.sample (n serial, type text, expr text, since int DEFAULT 15);
INSERT INTO fidelity.sample (type, expr) SELECT 'bool', unnest(ARRAY['true', 'false']);
INSERT INTO fidelity.sample (type, expr) SELECT '"char"', unnest(ARRAY[$$'a'$$, $$''$$, $$'\377'$$, $$'\200'$$,
  $$'\'$$, $$'"'$$, $$' '$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'name', unnest(ARRAY[$$'ordinary'$$, $$''$$, $$'a"b\c''d, {e}'$$,
  $$repeat('ü', 31)$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'int2', unnest(ARRAY['1', '0', '-32768', '32767', '10000', '-9999']);
INSERT INTO fidelity.sample (type, expr) SELECT 'int4', unnest(ARRAY['1', '0', '-1', '-2147483648', '2147483647', '99990000']);
INSERT INTO fidelity.sample (type, expr) SELECT 'int8', unnest(ARRAY['1', '0', '-1', $$'-9223372036854775808'$$,
  '9223372036854775807', '9007199254740993', '100000000']);
INSERT INTO fidelity.sample (type, expr) SELECT 'oid', unnest(ARRAY['1', '0', $$'4294967295'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'tid', unnest(ARRAY[$$'(1,2)'$$, $$'(0,0)'$$, $$'(4294967295,65535)'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'xid', unnest(ARRAY[$$'1'$$, $$'0'$$, $$'4294967295'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'cid', unnest(ARRAY[$$'1'$$, $$'0'$$, $$'4294967295'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'xid8', unnest(ARRAY[$$'1'$$, $$'0'$$, $$'18446744073709551615'$$]);
INSERT INTO fidelity.sample (type, expr, since) SELECT 'oid8', unnest(ARRAY[$$'1'$$, $$'0'$$, $$'18446744073709551615'$$]), 19;
INSERT INTO fidelity.sample (type, expr) SELECT 'float4', unnest(ARRAY['1.5', '0', $$'-0'$$, $$'NaN'$$, $$'Infinity'$$,
  $$'-Infinity'$$, $$'1e-45'$$, $$'-1e-45'$$, $$'3.4028235e38'$$, $$'1.17549435e-38'$$, '0.1', '16777215', '16777216', '16777218',
  '123456789', $$'-7.038531e-26'$$, '1e10', '100000']);
INSERT INTO fidelity.sample (type, expr) SELECT 'float8', unnest(ARRAY['1.5', '0', $$'-0'$$, $$'NaN'$$, $$'Infinity'$$,
  $$'-Infinity'$$, $$'5e-324'$$, $$'-5e-324'$$, $$'1.7976931348623157e308'$$, $$'2.2250738585072014e-308'$$,
  $$'2.225073858507201e-308'$$, '0.1', '1e15', '1e16', '1e22', '1e23', '9007199254740991', '9007199254740992',
  $$'9007199254740993'$$, '-9007199254740994', '1e300', '1e-300', '123456789012345678', '0.30000000000000004']);
INSERT INTO fidelity.sample (type, expr) SELECT 'numeric', unnest(ARRAY['1.50', '0', '0.000', '-0.0', '1.0', '1.00', '10000',
  '100000000.00000000', $$'NaN'$$, $$'Infinity'$$, $$'-Infinity'$$, $$'1e131071'$$, $$'-1e-16383'$$, $$repeat('9', 5000) || '.' || repeat('9', 5000)$$,
  '123456789012345678901234567890.123456789', '1e64', '1e-60']);
INSERT INTO fidelity.sample (type, expr) SELECT 'money', unnest(ARRAY[$$'1234.56'$$, $$'0'$$, $$'-0.01'$$,
  $$'92233720368547758.07'$$, $$'-92233720368547758.08'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT t, unnest(ARRAY[$$'ordinary'$$, $$''$$, $$' spaces '$$, $$E'line\nbreak\t\r\b\f\x01\x1f\x7f'$$,
  $$'back\slash "double" ''single'''$$, $$'{"$pg": "x"}'$$, $$'null'$$, $$'NULL'$$, $$'{1,2}'$$, $$'(1,2)'$$, $$U&'\00e4\+01F600\FFFF\0085\2028'$$,
  $$'\u0000'$$, $$repeat('x', 5000)$$, $$repeat('ü"\ ', 400)$$])
  FROM unnest(ARRAY['text', 'varchar', 'bpchar', 'refcursor', 'fidelity.colour']) t;
INSERT INTO fidelity.sample (type, expr) SELECT 'text', $$repeat('megabyte', 131072)$$;
INSERT INTO fidelity.sample (type, expr) SELECT 'text', $$(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 32768) i)$$;
INSERT INTO fidelity.sample (type, expr) SELECT 'bytea', unnest(ARRAY[$$'ordinary'$$, $$''$$, $$'\x00'$$, $$'\x00ff5c2722ff00'$$, $$'\\x41'$$,
  $$'\x41'$$, $$decode(repeat('00ff', 100000), 'hex')$$]);
INSERT INTO fidelity.sample (type, expr) SELECT t, unnest(ARRAY[$$B'101'$$, $$B'0'$$, $$B''$$, $$repeat('10', 700)::bit varying$$])
  FROM unnest(ARRAY['"bit"', 'varbit']) t;
INSERT INTO fidelity.sample (type, expr) SELECT 'date', unnest(ARRAY[$$'2026-01-02'$$, $$'infinity'$$, $$'-infinity'$$, $$'0001-01-01'$$,
  $$'0001-12-31 BC'$$, $$'0044-03-15 BC'$$, $$'4714-11-24 BC'$$, $$'5874897-12-31'$$, $$'10000-01-01'$$, $$'2000-02-29'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'time', unnest(ARRAY[$$'12:34:56.7'$$, $$'00:00'$$, $$'24:00:00'$$, $$'23:59:59.999999'$$, $$'00:00:00.000001'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'timetz', unnest(ARRAY[$$'12:34:56.7+02'$$, $$'00:00+00'$$, $$'24:00:00+15:59'$$, $$'00:00-15:59:59'$$,
  $$'24:00:00-15:59:59'$$, $$'23:59:59.999999+05:30:15'$$, $$'00:00:00.000001-00:00:01'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT t, unnest(ARRAY[$$'2026-01-02 03:04:05.6'$$, $$'infinity'$$, $$'-infinity'$$,
  $$'4714-11-24 00:00:00 BC'$$, $$'294276-12-31 23:59:59.999999'$$, $$'0001-01-01 00:00 BC'$$, $$'0001-12-31 23:59:59.999999 BC'$$,
  $$'0001-01-01'$$, $$'10000-01-01 00:00'$$, $$'9999-12-31 24:00'$$, $$'1970-01-01'$$, $$'2000-01-01'$$, $$'1999-12-31 23:59:59.999999'$$,
  $$'1890-05-06 07:08:09.000001'$$, $$'2026-03-29 02:30'$$, $$'2026-10-25 02:30'$$, $$'0099-01-01'$$, $$'4713-01-01 BC'$$])
  FROM unnest(ARRAY['timestamp', 'timestamptz']) t;
INSERT INTO fidelity.sample (type, expr) SELECT 'interval', unnest(ARRAY[$$'1 year 2 mons 3 days 04:05:06.789'$$, $$'0'$$, $$'-1 mon +2 days -03:00'$$,
  $$'1 mon -2 days 03:00'$$, $$'-1 year -2 mons -3 days -04:05:06.000001'$$, $$'178000000 years'$$, $$'-178000000 years'$$, $$'2147483647 days'$$,
  $$'-2147483648 days'$$, $$'-1 day 1 second'$$, $$'-00:00:00.000001'$$, $$'1 year -1 mon'$$, $$'100 hours'$$, $$'2562047788:00:54.775807'$$, $$'2147483647 mons'$$, $$'-2147483648 mons'$$, $$'1 day -00:00:01'$$]);
INSERT INTO fidelity.sample (type, expr, since) SELECT 'interval', unnest(ARRAY[$$'infinity'$$, $$'-infinity'$$]), 17;
INSERT INTO fidelity.sample (type, expr) SELECT 'inet', unnest(ARRAY[$$'10.0.0.1'$$, $$'10.0.0.1/8'$$, $$'0.0.0.0/0'$$, $$'255.255.255.255'$$,
  $$'::'$$, $$'::1/64'$$, $$'2001:db8::ff00:42:8329'$$, $$'::ffff:1.2.3.4'$$, $$'::/0'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'cidr', unnest(ARRAY[$$'10.0.0.0/8'$$, $$'10.1.2.3/32'$$, $$'0.0.0.0/0'$$, $$'2001:db8::/32'$$, $$'::/0'$$, $$'::1/128'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'macaddr', unnest(ARRAY[$$'08:00:2b:01:02:03'$$, $$'00:00:00:00:00:00'$$, $$'ff:ff:ff:ff:ff:ff'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'macaddr8', unnest(ARRAY[$$'08:00:2b:01:02:03:04:05'$$, $$'ff:ff:ff:ff:ff:ff:ff:ff'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'uuid', unnest(ARRAY[$$'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'$$,
  $$'00000000-0000-0000-0000-000000000000'$$, $$'ffffffff-ffff-ffff-ffff-ffffffffffff'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'point', unnest(ARRAY[$$'(1.5,2)'$$, $$'(-0,NaN)'$$, $$'(Infinity,-Infinity)'$$, $$'(5e-324,0.1)'$$,
  $$'(0.30000000000000004,1.7976931348623157e308)'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'line', unnest(ARRAY[$$'{1,2,3}'$$, $$'{-0,0.1,5e-324}'$$, $$'{NaN,1,Infinity}'$$, $$line(point(0,0), point(0,1))$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'lseg', unnest(ARRAY[$$'[(1,2),(3,4)]'$$, $$'[(-0,NaN),(0.1,Infinity)]'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'box', unnest(ARRAY[$$'(3,4),(1,2)'$$, $$'(0.1,0.2),(-0.1,-Infinity)'$$, $$'(1,2),(3,4)'$$, $$'(0,0),(-0,-0)'$$, $$'(NaN,1),(2,NaN)'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'path', unnest(ARRAY[$$'((1,2),(3,4))'$$, $$'[(1,2),(3,4),(-0,NaN)]'$$, $$'((1,2))'$$, $$'[(1,2)]'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'polygon', unnest(ARRAY[$$'((1,2),(3,4),(5,0))'$$, $$'((-0,0.1))'$$, $$'((NaN,1),(2,-0))'$$,  $$'((1,2),(0.30000000000000004,4))'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'circle', unnest(ARRAY[$$'<(1,2),3>'$$, $$'<(-0,0.1),0>'$$, $$'<(NaN,Infinity),5e-324>'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'json', unnest(ARRAY[$${"a": 1, "b": [true, null, "x"]}$$, $${"a":1}$$, $$null$$, $$ null $$,
  $$"text"$$, $$1$$, $$1.0$$, $$-0$$, $$-0.0$$, $$1e5$$, $$1E400000$$, $$true$$, $$false$$, $$[]$$, $${}$$, $$[1, 2]$$, $$[1,2]$$, $${"b": 1, "a": 2}$$,
  $${"a": 1, "a": 2}$$, $${"$pg": "x"}$$, $${"$pg": 1}$$, $${"x": {"$pg": 1}}$$, $${"a": "\u0000"}$$, $$"\u0000"$$, $$"\u00e4"$$, $$"\ud83d\ude00"$$,
  $$"\ud83d"$$, $$"\/"$$, $$"\u0001\u001f"$$, $$"\u001F"$$, $$"\b\f\n\r\t\"\\"$$, $$"\u000a"$$, $${"a": {"b": {"c": []}}}$$, $$ {"a": 1}$$, $${"a": 1} $$,
  $${"a" : 1}$$, $${"a":  1}$$, $$"$$ || 'a, b: "' , $${"aa": 1, "b": 2}$$, $${"b": 1, "aa": [{"$pg": null}]}$$, '"' || U&'\+01F600' || '"',
  repeat('[', 900) || repeat(']', 900), repeat('[', 5000) || repeat(']', 5000), '[' || repeat('9', 5000) || ']', '1' || repeat('0', 200000),
  '0.' || repeat('0', 20000) || '1', '"' || repeat('x', 300000) || '"', '[' || repeat('"x", ', 20000) || '1.10]']);
INSERT INTO fidelity.sample (type, expr) SELECT 'jsonb', unnest(ARRAY[$${"a": 1, "b": [true, null, "x"]}$$, $$null$$, $$"text"$$, $$""$$, $$"null"$$, $$1$$, $$1.0$$,
  $$1.00$$, $$-0$$, $$-0.0$$, $$1e5$$, $$1e-5$$, $$1e131071$$, $$true$$, $$false$$, $$[]$$, $${}$$, $$[null]$$, $$[[]]$$, $$[1, [2, [3]]]$$, $${"$pg": "x"}$$, $${"$pg": 1}$$,
  $${"$pg": {"$pg": "null"}}$$, $${"$pg": "x", "b": 1}$$, $${"x": {"$pg": 1}}$$, $$[{"$pg": "x"}]$$, $${"": 1}$$, $${"a": ""}$$, $$"\ud83d\ude00"$$, $$"\u0001\u001f\u007f"$$,
  $${"a": {"b": {"c": [1.10, null]}}}$$, '[' || repeat('"x", ', 20000) || '1.10]', '"' || repeat('x', 300000) || '"', repeat('[', 900) || '1.5' || repeat(']', 900),
  '{"' || repeat('k', 70000) || '": {"a": 1.5}}']);
UPDATE fidelity.sample SET expr = quote_literal(expr) WHERE type IN ('json', 'jsonb');
INSERT INTO fidelity.sample (type, expr) VALUES ('jsonb', $$(SELECT jsonb_object_agg(i, i * 1.10) FROM generate_series(1, 1000) i)$$);
INSERT INTO fidelity.sample (type, expr) SELECT 'jsonpath', unnest(ARRAY[$$'$.a[*] ? (@ > 1)'$$, $$'$'$$, $$'strict $."a b"[1 to last, 3].**{2 to 5}'$$,
  $$'$ ? (@.a like_regex "^x.*\"" flag "iq" && !(@.b starts with "y"))'$$, $$'-$.a + 1.50 * 2 - +3'$$, $$'$.a.size() == 1e10'$$, $$'$ ? (exists(@.x) || (@.y == null) is unknown)'$$,
  $$'$.keyvalue().datetime("HH24").double().ceiling()'$$, $$'$"variable".a'$$, $$'$.* ? (@ == "\u00e4\n\"")'$$, $$'$[-1] ? (@ > -1.50)'$$, $$'-1'$$, $$'-(-(1))'$$, $$'lax $[*] + -1 - (2 - 3)'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'xml', unnest(ARRAY[$$'<a b="1">text</a>'$$, $$''$$, $$'text'$$, $$'text<a/>text'$$, $$' <a/> '$$, $$'<a>&lt;&amp;&#228;</a>'$$,
  $$'<!-- c --><a/>'$$, $$'<a><![CDATA[ <x> ]]></a>'$$, $$E'<a>\n\t</a>'$$, $$'<?pi x?><a/>'$$, $$'<!DOCTYPE a><a/>'$$, $$'<?xml version="1.1"?><a/>'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'tsvector', unnest(ARRAY[$$'a fat cat'$$, $$''$$, $$'''it''''s'':1A,2B,16383D ''\\'':3C "q"'$$, $$to_tsvector('simple', 'the fat the rat')$$,
  $$array_to_tsvector(ARRAY['b', 'a', ' '])$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'tsquery', unnest(ARRAY[$$'fat & (rat | cat)'$$, $$''$$, $$'!a:AB* & ''it''''s'''$$, $$'a <-> b <3> c'$$, $$to_tsquery('simple', 'x & !!y')$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'pg_lsn', unnest(ARRAY[$$'1/ABCDEF'$$, $$'0/0'$$, $$'FFFFFFFF/FFFFFFFF'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT t, unnest(ARRAY[$$'10:20:10,14,15'$$, $$'1:1:'$$, $$'9223372036854775807:9223372036854775807:'$$])
  FROM unnest(ARRAY['txid_snapshot', 'pg_snapshot']) t;
INSERT INTO fidelity.sample (type, expr) SELECT t, unnest(ARRAY[$$'1 2 3'$$, $$''$$, $$'0'$$]) FROM unnest(ARRAY['int2vector', 'oidvector']) t;
INSERT INTO fidelity.sample (type, expr) SELECT 'aclitem', unnest(ARRAY[$$format('%I=arwdDxt/%1$I', current_user)$$, $$format('=r*/%I', current_user)$$, $$format('=/%I', current_user)$$]);
INSERT INTO fidelity.sample (type, expr) SELECT t, unnest(ARRAY[e, $$0$$, $$4294967295$$]) FROM (VALUES
  ('regclass', $$'pg_catalog.pg_class'$$), ('regtype', $$'pg_catalog.int4'$$), ('regproc', $$'pg_catalog.now'$$), ('regprocedure', $$'pg_catalog.abs(int4)'$$), ('regoper', $$'pg_catalog.||/'$$),
  ('regoperator', $$'pg_catalog.+(int4,int4)'$$), ('regrole', $$current_user$$), ('regnamespace', $$'pg_catalog'$$), ('regconfig', $$'pg_catalog.simple'$$),
  ('regdictionary', $$'pg_catalog.simple'$$), ('regcollation', $$'pg_catalog."C"'$$)) r(t, e);
INSERT INTO fidelity.sample (type, expr) VALUES ('regclass', $$'fidelity."Odd Name"'$$), ('regclass', $$'fidelity.sample_n_seq'$$), ('regtype', $$'fidelity.mood[]'$$), ('regtype', $$'time with time zone'$$),
  ('regtype', $$'"char"'$$), ('regproc', $$'fidelity.colour_in'$$), ('regprocedure', $$'fidelity.wrong(fidelity.mood)'$$), ('regnamespace', $$'fidelity'$$);
INSERT INTO fidelity.sample (type, expr, since) VALUES ('regdatabase', $$'template1'$$, 19), ('regdatabase', $$0$$, 19);
INSERT INTO fidelity.sample (type, expr) SELECT t, unnest(ARRAY[format('%L', '[' || l || ',' || u || ')'), $$'empty'$$, $$'(,)'$$,
    format('%L', '(' || l || ',' || u || ']'), format('%L', '(,' || u || ')')])
  FROM (VALUES ('int4range', '1', '3'), ('int8range', '1', '9223372036854775806'), ('numrange', '1.0', '2.50'), ('daterange', '2026-01-02', 'infinity'),
    ('tsrange', '"2026-01-02 03:04:05.6"', 'infinity'), ('fidelity.floats', '0.1', 'Infinity'), ('fidelity.moneys', '1.5', '12345.67'),
    ('fidelity.pairs', '"(""x, \\""y"",1)"', '"(z\\\\,5)"')) v(t, l, u);
INSERT INTO fidelity.sample (type, expr) SELECT 'tstzrange', unnest(ARRAY[$$'["2026-01-02 03:04:05.6+00",infinity)'$$, $$'empty'$$, $$'(,)'$$, $$'("0044-03-15 00:00:00+00 BC","0001-01-01 00:00:01+00")'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'fidelity.floats', unnest(ARRAY[$$'[-0,NaN]'$$, $$'[5e-324,0.30000000000000004)'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT t, unnest(ARRAY[format('%L', r), $$'{}'$$, $$'{(,)}'$$])
  FROM (VALUES ('int4multirange', '{[1,3),[7,8)}'), ('int8multirange', '{[1,3),[7,8)}'), ('nummultirange', '{[1.0,2.50),(7,)}'), ('datemultirange', '{[2026-01-02,2026-01-03),[2027-01-01,)}'),
    ('tsmultirange', '{["2026-01-02 03:04:05.6",infinity]}'), ('tstzmultirange', '{["2026-01-02 03:04:05.6+00",infinity]}')) v(t, r);
INSERT INTO fidelity.sample (type, expr) SELECT 'fidelity.mood', quote_literal(unnest(enum_range(NULL::fidelity.mood)));
INSERT INTO fidelity.sample (type, expr) SELECT 'fidelity.span', unnest(ARRAY[$$'1 mon -2 days'$$, $$'-1 mon +2 days'$$]);
INSERT INTO fidelity.sample (type, expr) VALUES ('fidelity.positive', '7'), ('fidelity.short', $$'a'$$), ('fidelity.short', $$'abc  '$$), ('fidelity.padded', $$'x'$$),
  ('fidelity.matrix', $$'{{1,2},{3,NULL}}'$$), ('fidelity.matrix', $$'{}'$$), ('fidelity.matrix', $$'[0:0]={1}'$$),
  ('fidelity.doc', $$'{"a": 1.0}'$$), ('fidelity.doc', $$'null'$$), ('fidelity.doc', $$'{"$pg": "x"}'$$), ('fidelity.doc', $$'[1]'$$), ('fidelity.rawdoc', $$'{"a": 1.0}'$$), ('fidelity.rawdoc', $$'{"a":1.0}'$$),
  ('fidelity.pair', $$('x', 1.5)$$), ('fidelity.pair', $$(NULL, NULL)$$), ('fidelity.pair', $$('', 'NaN')$$), ('fidelity.pair', $$('a "b" \c, (d)', -0.0)$$), ('fidelity.pair', $$('NULL', '-0')$$),
  ('fidelity.only_pg', $$ROW('x')$$), ('fidelity.only_pg', $$ROW(NULL)$$), ('fidelity.nothing', $$ROW()$$),
  ('fidelity.upward', $$('x', 1)::fidelity.pair$$), ('fidelity.upward', $$('x', 'Infinity')::fidelity.pair$$), ('fidelity.upward', $$(NULL, NULL)::fidelity.pair$$),
  ('fidelity.mixed', $$(('i"n', 1), '{1,NULL}', '2026-01-02 03:04:05.6+00', '\x00ff', '{"$pg": "x"}', '[1, 2]', '"quoted"', ARRAY[('a', 1), NULL, (NULL, NULL)]::fidelity.pair[], -1234.5, 'x', 1.5, 3, '{{1}}')$$),
  ('fidelity.mixed', $$(NULL, '{}', 'infinity', '', 'true', '"s"', NULL, '{}', 0, '', 0, NULL, '{}')$$),
  ('fidelity.mixed', $$(('x', 'NaN'), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)$$),
  ('fidelity.mixed', $$(NULL, '[0:1]={1,2}', NULL, NULL, 'null', '{"a":1}', NULL, NULL, NULL, NULL, NULL, NULL, NULL)$$),
  ('fidelity.mixed', $$(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)$$);
INSERT INTO fidelity.sample (type, expr) VALUES ('numeric(6,2)', '1.5'), ('numeric(6,2)', '-9999.99'), ('numeric(3,-2)', '12300'), ('char(5)', $$'ab'$$), ('char(5)', $$''$$),
  ('char(5)[]', $$'{ab,NULL,"a,\"b"}'$$), ('varchar(3)', $$'ab '$$), ('varchar(3)', $$''$$), ('"bit"(3)', $$B'101'$$), ('bit varying(5)', $$B'10'$$), ('bit varying(5)', $$B''$$),
  ('interval(3)', $$'1 day 00:00:01.2345'$$), ('interval day to second(0)', $$'1 mon 2 days 00:00:01.5'$$), ('time(2)', $$'12:34:56.789'$$), ('time(0)', $$'23:59:59.9'$$),
  ('timetz(0)', $$'12:34:56.7+02'$$), ('timestamp(0)', $$'2026-01-02 03:04:05.6'$$), ('timestamptz(3)', $$'2026-01-02 03:04:05.6789'$$), ('numeric(6,2)[]', $$'{1,2.5,NULL}'$$);
INSERT INTO fidelity.sample (type, expr) SELECT t || '[]', unnest(ARRAY[format($$ARRAY['1 2'::%s]$$, t), $$'{}'$$, format($$ARRAY['1 2'::%s, NULL, '']$$, t)]) FROM unnest(ARRAY['int2vector', 'oidvector']) t;
INSERT INTO fidelity.sample (type, expr) VALUES ('tsvector[]', $$ARRAY['a:1 b'::tsvector, NULL, '']$$);
INSERT INTO fidelity.sample (type, expr) SELECT 'int4[]', unnest(ARRAY[$$'{1,2}'$$, $$'{}'$$, $$'{NULL}'$$, $$'{{1,2},{3,NULL}}'$$, $$'{{{{{{1}}}}}}'$$, $$'[0:1]={1,2}'$$, $$'[1:1][-2:-1]={{1,2}}'$$,
  $$'[1:2]={1,2}'$$, $$ARRAY(SELECT i FROM generate_series(1, 20000) i)$$, $$array_fill(7, ARRAY[40, 3, 40])$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'text[]', unnest(ARRAY[$$'{a,b}'$$, $$'{"",NULL,"NULL","null","{}","a,b","\"","\\"," x "}'$$, $$'{{a,b},{c,NULL}}'$$, $$ARRAY['x', repeat('y', 100000)]$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'json[]', unnest(ARRAY[$$ARRAY['{"a": 1}', '1', '"x"', NULL]::json[]$$, $$ARRAY['[1]']::json[]$$, $$ARRAY['null']::json[]$$,
  $$ARRAY['{"a":1}']::json[]$$, $$ARRAY['{"$pg": 1}']::json[]$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'jsonb[]', unnest(ARRAY[$$ARRAY['{"a": 1}', '1', '"x"', NULL]::jsonb[]$$, $$ARRAY['[1]']::jsonb[]$$, $$ARRAY['null']::jsonb[]$$, $$ARRAY['{"$pg": 1}', '{"a": [null]}']::jsonb[]$$,
  $$ARRAY[ARRAY['1', '2'], ARRAY['"3"', '{}']]::jsonb[]$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'fidelity.matrix[]', unnest(ARRAY[$$ARRAY['{1,2}'::fidelity.matrix, '{3}', NULL]$$, $$'{}'$$]);
INSERT INTO fidelity.sample (type, expr) SELECT 'fidelity.pair[]', unnest(ARRAY[$$ARRAY[('a "b" \c', 1), (NULL, NULL), NULL]::fidelity.pair[]$$, $$ARRAY[('a', 'NaN')]::fidelity.pair[]$$, $$ARRAY[ARRAY[('', 1), ('x', 2)], ARRAY[NULL, (NULL, 3)]]::fidelity.pair[]$$]);


-- One table with a column of each type, and one of arrays of each. Row 0 holds
-- only ordinary values.
CREATE TABLE fidelity.everything (id int);
CREATE FUNCTION fidelity.fill() RETURNS void LANGUAGE plpgsql AS $fill$
DECLARE t text; k int; ex text; ar text;
BEGIN
  DELETE FROM fidelity.sample WHERE since > current_setting('server_version_num')::int / 10000;
  FOR t IN SELECT type FROM fidelity.sample GROUP BY type ORDER BY min(n) LOOP
    EXECUTE format('ALTER TABLE fidelity.everything ADD %I %s', t, t);
  END LOOP;
  INSERT INTO fidelity.everything SELECT generate_series(0, (SELECT max(count) FROM (SELECT count(*) FROM fidelity.sample GROUP BY type) s));
  FOR t, ex, k IN SELECT type, expr, row_number() OVER (PARTITION BY type ORDER BY n) FROM fidelity.sample LOOP
    EXECUTE format('UPDATE fidelity.everything SET %I = (%s)::%s WHERE id = %s', t, ex, t, k);
  END LOOP;
  FOR t IN SELECT type FROM fidelity.sample GROUP BY type ORDER BY min(n) LOOP
    IF t <> 'fidelity.matrix[]' THEN  -- which has no plain form
      EXECUTE format('UPDATE fidelity.everything SET %I = (SELECT %1$I FROM fidelity.everything WHERE id = 1) WHERE id = 0', t);
    END IF;
    CONTINUE WHEN to_regtype(t || '[]') IS NULL OR t ~ '[)\]]$|vector$|matrix$';
    ar := t || ' each';
    EXECUTE format('ALTER TABLE fidelity.everything ADD %I %s[]', ar, t);
    EXECUTE format($$UPDATE fidelity.everything SET %I = CASE id
        WHEN 0 THEN ARRAY[%2$I] WHEN 1 THEN ARRAY[ARRAY[%2$I, NULL], ARRAY[NULL, %2$I]]
        WHEN 2 THEN (SELECT array_agg(%2$I ORDER BY id) FROM fidelity.everything)
        WHEN 3 THEN array_fill(%2$I, ARRAY[2], ARRAY[0]) WHEN 4 THEN '{}' END WHERE id < 5$$, ar, t);
  END LOOP;
END $fill$;
SELECT fidelity.fill();
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
SELECT current_setting('TimeZone') AS zone, current_setting('search_path') AS path, '2026-01-02 03:04:05+00'::pg_catalog.timestamptz, '-1 mon 2 days'::pg_catalog.interval,
  '\x00'::pg_catalog.bytea, 0.1::pg_catalog.float8 OPERATOR(pg_catalog./) 3 AS float, current_setting('lc_monetary') OPERATOR(pg_catalog.<>) 'C' AS money;

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
    AND type IN ('bool', '"char"', 'int8', 'oid', 'float8', 'numeric', 'money', 'bpchar', 'bytea', 'date', 'timetz', 'timestamptz', 'interval', 'point', 'json', 'jsonb', 'int2vector', 'regclass',
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
