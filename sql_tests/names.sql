-- Names of every kind: quotes, spaces, upper case, 63 bytes, reserved words;
-- the same name in two schemas; a caller's search_path full of traps.
-- edge cases 22, 64-71, 83, 92, 97
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE SCHEMA "Sch""ema '1\";
CREATE SCHEMA names_other;

CREATE TABLE "Sch""ema '1\"."Ta ble""'\" (
    "Id"" '\" int, "user" text, "a,b" text, "{x}" text, "$pg" int, "changes" text,
    PRIMARY KEY ("Id"" '\", "user"));
SELECT audit_log.enable('"Sch""ema ''1\"."Ta ble""''\"', exclude => ARRAY['a,b', '{x}']::name[]);
INSERT INTO "Sch""ema '1\"."Ta ble""'\" VALUES (1, E'a"b\\c\nd', 'out', 'out', 7, 'in');
UPDATE "Sch""ema '1\"."Ta ble""'\" SET "$pg" = 8, "a,b" = 'out again';
UPDATE "Sch""ema '1\"."Ta ble""'\" SET "a,b" = 'only out';
SELECT table_schema, table_name, relation, action_type, record_id, changes FROM audit_log.audit_logs
 WHERE table_schema = E'Sch"ema ''1\\' ORDER BY id;
SELECT column_name, path, old_value, new_value FROM audit_log.column_changes
 WHERE table_schema = E'Sch"ema ''1\\' ORDER BY change_id, column_name;
-- the arguments follow a rename into another hostile name
ALTER TABLE "Sch""ema '1\"."Ta ble""'\" RENAME "a,b" TO "q""}',";
ALTER TABLE "Sch""ema '1\"."Ta ble""'\" RENAME "{x}" TO " ";
ALTER TABLE "Sch""ema '1\"."Ta ble""'\" RENAME TO "T=2";
INSERT INTO "Sch""ema '1\"."T=2" VALUES (2, 'u', 'out', 'out', 1, NULL);
SELECT table_name, record_id, changes FROM audit_log.audit_logs
 WHERE table_schema = E'Sch"ema ''1\\' ORDER BY id DESC LIMIT 1;
SELECT settings FROM audit_log.tracked_tables WHERE table_name = 'T=2';

-- 63 bytes, and names that differ in the 63rd only
SELECT repeat('n', 62) || '1' AS long1, repeat('n', 62) || '2' AS long2 \gset
CREATE TABLE :"long1" (:"long1" int PRIMARY KEY, :"long2" int);
CREATE TABLE :"long2" (:"long1" int PRIMARY KEY, :"long2" int);
SELECT audit_log.enable(:'long1'), audit_log.enable(:'long2', exclude => ARRAY[:'long2']::name[]);
INSERT INTO :"long1" VALUES (1, 2);
INSERT INTO :"long2" VALUES (1, 2);
SELECT right(table_name, 2) AS name, (SELECT string_agg(right(k, 2), ' ' ORDER BY k) FROM jsonb_object_keys(changes) k) AS columns
  FROM audit_log.audit_logs WHERE table_name LIKE 'nnn%' ORDER BY id;
-- a multi-byte name of 63 bytes
CREATE TABLE "ééééééééééééééééééééééééééééééx" ("Ünïcödé" int PRIMARY KEY);
SELECT audit_log.enable('"ééééééééééééééééééééééééééééééx"');
INSERT INTO "ééééééééééééééééééééééééééééééx" VALUES (1);
SELECT table_name, changes FROM audit_log.audit_logs WHERE table_name LIKE 'éé%';

-- one name in two schemas, a reserved word
CREATE TABLE "user" (id int PRIMARY KEY);
CREATE TABLE names_other."user" (id int PRIMARY KEY);
SELECT audit_log.enable('"user"'), audit_log.enable('names_other."user"');
INSERT INTO "user" VALUES (1);
INSERT INTO names_other."user" VALUES (2);
SELECT table_schema, record_id FROM audit_log.audit_logs WHERE table_name = 'user' ORDER BY id;
SELECT record_id FROM audit_log.table_changes('names_other."user"');

-- column names of our own columns and arguments
CREATE TABLE names_own (id int PRIMARY KEY, transaction_id int, record_id text, "timestamp" text, old text, new text, "table" text);
SELECT audit_log.enable('names_own', condition => 'new.old IS NOT NULL AND old.new IS NOT NULL', user_column => 'table');
INSERT INTO names_own VALUES (1, 2, '3', '4', '5', '6', 'who'), (2, 2, '3', '4', NULL, '6', 'nobody');
SELECT user_id, record_id, changes FROM audit_log.audit_logs WHERE table_name = 'names_own' ORDER BY id;
SELECT settings ->> 'condition' AS condition FROM audit_log.tracked_tables WHERE table_name = 'names_own';

-- traps in front on the search_path: operators, functions, types, tables and casts of well-known names
CREATE SCHEMA names_trap;
CREATE FUNCTION names_trap.spring(anycompatible, anycompatible) RETURNS boolean LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'trap sprung'; END $$;
CREATE FUNCTION names_trap.spring_text(text, text) RETURNS boolean LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'trap sprung'; END $$;
CREATE OPERATOR names_trap.= (FUNCTION = names_trap.spring_text, LEFTARG = text, RIGHTARG = text);
CREATE FUNCTION names_trap.spring_int(int, int) RETURNS boolean LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'trap sprung'; END $$;
CREATE OPERATOR names_trap.= (FUNCTION = names_trap.spring_int, LEFTARG = int, RIGHTARG = int);
CREATE OPERATOR names_trap.> (FUNCTION = names_trap.spring_int, LEFTARG = int, RIGHTARG = int);
CREATE FUNCTION names_trap.spring_jsonb(jsonb, text) RETURNS text LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'trap sprung'; END $$;
CREATE OPERATOR names_trap.->> (FUNCTION = names_trap.spring_jsonb, LEFTARG = jsonb, RIGHTARG = text);
CREATE FUNCTION names_trap.jsonb_in(cstring) RETURNS text LANGUAGE internal STRICT IMMUTABLE AS 'textin';
CREATE FUNCTION names_trap.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT '1999-01-01'::timestamptz $$;
CREATE FUNCTION names_trap.format(text, VARIADIC "any") RETURNS text LANGUAGE internal AS 'text_format';
CREATE FUNCTION names_trap.lower(text) RETURNS text LANGUAGE sql AS $$ SELECT 'trapped' $$;
CREATE TYPE names_trap.jsonb AS (trapped int);
CREATE TYPE names_trap.regclass AS (trapped int);
CREATE DOMAIN names_trap.text AS pg_catalog.int4;
CREATE TABLE names_trap.pg_class (relname pg_catalog.text);
CREATE TABLE names_trap.pg_trigger (tgname pg_catalog.text);
CREATE TABLE names_trap.change (id int);
CREATE TABLE names_trap.tracked_table (id int);
CREATE TABLE names_trapped (id int PRIMARY KEY, v pg_catalog.text, n pg_catalog.numeric, t timestamptz, m money, r int4range[]);
SET search_path = names_trap, public, pg_catalog;
SELECT audit_log.enable('names_trapped', condition => 'new.id OPERATOR(pg_catalog.>) 0', exclude => '{}');
INSERT INTO names_trapped VALUES (1, 'a', 1.50, '2026-01-02 03:04:05.6+00', '1.5', '{"[1,2)"}');
UPDATE names_trapped SET v = 'b', m = '2.5';
ALTER TABLE names_trapped RENAME v TO vv;
UPDATE names_trapped SET vv = 'c';
DELETE FROM names_trapped;
RESET search_path;
SELECT action_type, record_id, changes, timestamp > '2020-01-01' AS now FROM audit_log.audit_logs WHERE table_name = 'names_trapped' ORDER BY id;
-- an operator that is not pg_catalog's stays what it meant
CREATE FUNCTION names_trap.longer(pg_catalog.text, pg_catalog.text) RETURNS boolean LANGUAGE sql IMMUTABLE
    AS $$ SELECT pg_catalog.length($1) OPERATOR(pg_catalog.>) pg_catalog.length($2) $$;
CREATE OPERATOR names_trap.>>> (FUNCTION = names_trap.longer, LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text);
CREATE TABLE names_operator (id int PRIMARY KEY, v pg_catalog.text);
SET search_path = public, names_trap;
SELECT audit_log.enable('names_operator', condition => 'new.v >>> old.v OR longer(new.v, ''xxx'')');
RESET search_path;
SELECT settings ->> 'condition' AS condition FROM audit_log.tracked_tables WHERE table_name = 'names_operator';
INSERT INTO names_operator VALUES (1, 'a'), (2, 'long');
UPDATE names_operator SET v = v || 'b' WHERE id = 1;
UPDATE names_operator SET v = 'b' WHERE id = 1;
SELECT action_type, record_id, changes FROM audit_log.audit_logs WHERE table_name = 'names_operator' ORDER BY id;

-- settings of names that are none of ours
SET audit_log.nothing = 'x';

SET client_min_messages = error;
DROP SCHEMA "Sch""ema '1\" CASCADE;
DROP SCHEMA names_other CASCADE;
DROP TABLE "user", "ééééééééééééééééééééééééééééééx", :"long1", :"long2", names_own, names_trapped, names_operator;
DROP SCHEMA names_trap CASCADE;
