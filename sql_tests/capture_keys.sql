-- Which key names a record, and how it is written; keys that change, swap,
-- are deferrable, or are missing.
-- edge cases 18, 19, 20, 21, 22, 66, 116
CREATE SCHEMA capture_keys;
SET search_path = capture_keys;
CREATE VIEW log AS
  SELECT table_name AS "table", action_type AS action, record_id AS id, old_record_id AS old, changes
    FROM audit_log.audit_logs WHERE table_schema = 'capture_keys' ORDER BY audit_logs.id;
CREATE FUNCTION mismatches(target regclass) RETURNS bigint LANGUAGE plpgsql AS $$
  DECLARE n bigint;
  BEGIN
    EXECUTE format('WITH r AS MATERIALIZED (SELECT whole_row AS x FROM audit_log.rebuild(NULL::%1$s) whole_row),
      t AS MATERIALIZED (SELECT whole_row AS x FROM %1$s whole_row)
      SELECT count(*) FROM (SELECT x FROM r UNION ALL SELECT x FROM t) u
       WHERE (SELECT count(*) FROM r WHERE r.x *= u.x) <> (SELECT count(*) FROM t WHERE t.x *= u.x)', target) INTO n;
    RETURN n;
  END $$;
-- the choice: primary key, replica identity, fewest columns, name
CREATE TABLE a1 (x int, y int NOT NULL UNIQUE, PRIMARY KEY (x));
CREATE TABLE a2 (b int NOT NULL, a int NOT NULL, c int NOT NULL, UNIQUE (b, a), CONSTRAINT zz UNIQUE (c), CONSTRAINT aa UNIQUE (b));
CREATE TABLE a3 (LIKE a2 INCLUDING ALL);
ALTER TABLE a3 REPLICA IDENTITY USING INDEX a3_b_a_key;
-- none of these will do: nullable, partial, of an expression, deferrable, not unique
CREATE TABLE a4 (n int UNIQUE, p int NOT NULL, e text NOT NULL, d int NOT NULL UNIQUE DEFERRABLE, i int NOT NULL);
CREATE UNIQUE INDEX ON a4 (p) WHERE p > 0;
CREATE UNIQUE INDEX ON a4 (lower(e));
CREATE INDEX ON a4 (i);
CREATE TABLE a5 (id int PRIMARY KEY DEFERRABLE INITIALLY IMMEDIATE, other int NOT NULL UNIQUE);
CREATE TABLE a6 (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);
-- columns of INCLUDE are none of the key; its order is the index's, not the table's
CREATE TABLE a7 (a int, b int, c int, PRIMARY KEY (c, a) INCLUDE (b));
CREATE TABLE a8 (a int NOT NULL, b int NOT NULL);
CREATE UNIQUE INDEX ON a8 (b DESC, a);
SELECT audit_log.enable(t) FROM unnest('{a1,a2,a3,a4,a5,a6,a7,a8}'::regclass[]) t;
INSERT INTO a7 VALUES (1, 2, 3);
INSERT INTO a8 VALUES (1, 2);
UPDATE a7 SET b = 20;
UPDATE a7 SET a = 10;
SELECT * FROM log;

-- the text of a record's id is what changes shows, whatever the session's settings
CREATE TABLE typed (t timestamptz, u uuid, "a b" text, n numeric, f float8, b bytea, bo boolean, PRIMARY KEY (t, u, "a b", n, f, b, bo));
CREATE TABLE doc (id jsonb PRIMARY KEY);
CREATE TABLE word ("Q ""x" text PRIMARY KEY);
SELECT audit_log.enable(t) FROM unnest('{typed,doc,word}'::regclass[]) t;
SET TimeZone = 'Asia/Tokyo';
SET DateStyle = 'SQL, DMY';
SET bytea_output = 'escape';
SET extra_float_digits = -3;
INSERT INTO typed VALUES ('2026-01-02 03:04:05.6+00', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', E'q"\\,\tz', 1.50, 0.1, '\x00ff', true);
UPDATE typed SET n = 1.5, f = '-0';     -- equal by =, not by image
DELETE FROM typed;
RESET TimeZone;
RESET DateStyle;
RESET bytea_output;
RESET extra_float_digits;
INSERT INTO doc VALUES ('{"a": [1, null]}'), ('"text"'), ('null'), ('1.0');
INSERT INTO word VALUES (''), ('007'), ('{"$pg": "x"}'), ('null'), (E'line\nbreak');
SELECT "table", action, id, old FROM log WHERE "table" IN ('typed', 'doc', 'word');
SELECT mismatches('typed'), mismatches('doc'), mismatches('word');
-- as long as the table's own index takes it
INSERT INTO word SELECT string_agg(md5(n::text), '') FROM generate_series(1, 80) n;
UPDATE word SET "Q ""x" = "Q ""x" || '!' WHERE length("Q ""x") > 1000;
SELECT action, length(id) AS id, length(old) AS old FROM log WHERE length(id) > 1000;
SELECT mismatches('word');

-- keys that change: chains, swaps, sets that shift by one
CREATE TABLE s (id int PRIMARY KEY, v text);
SELECT audit_log.enable('s');
INSERT INTO s SELECT n, 'v' || n FROM generate_series(1, 5) n;
UPDATE s SET id = id + 10;
UPDATE s SET id = -id;
BEGIN;
UPDATE s SET id = 0 WHERE id = -11;
UPDATE s SET id = -11 WHERE id = -12;
UPDATE s SET id = -12 WHERE id = 0;
DELETE FROM s WHERE id = -13;
UPDATE s SET id = -13 WHERE id = -14;
INSERT INTO s VALUES (-14, 'new');
COMMIT;
SELECT mismatches('s');
SELECT action, id, old, changes FROM log WHERE "table" = 's' OFFSET 15;
-- within one statement too: a trigger that gives the key away again
CREATE FUNCTION reuse() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN INSERT INTO s VALUES (old.id, 'in place of ' || new.id); RETURN NULL; END $$;
CREATE TRIGGER aa AFTER UPDATE OF id ON s FOR EACH ROW EXECUTE FUNCTION reuse();
UPDATE s SET id = id - 100 WHERE id IN (-11, -12);
SELECT mismatches('s');
DROP TRIGGER aa ON s;

-- deferrable keys: rows swap them within one command, so there is no key
INSERT INTO a6 VALUES (1), (2), (3);
UPDATE a6 SET id = 4 - id;
BEGIN;
INSERT INTO a6 VALUES (1);
DELETE FROM a6 WHERE ctid = (SELECT min(ctid) FROM a6 WHERE id = 1);
COMMIT;
SELECT * FROM log WHERE "table" = 'a6';
SELECT mismatches('a6');

-- a table without key: whole rows, duplicates told apart by nothing
CREATE TABLE bag (v int, doc jsonb, note text);
SELECT audit_log.enable('bag');
INSERT INTO bag VALUES (1, '{"a": 1}'), (1, '{"a": 1}'), (NULL, NULL), (NULL, NULL);
UPDATE bag SET doc = '{"a": 2}' WHERE ctid = (SELECT min(ctid) FROM bag WHERE v = 1);
UPDATE bag SET note = 'x' WHERE v IS NULL;
DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag WHERE note = 'x');
UPDATE bag SET v = v;
SELECT * FROM log WHERE "table" = 'bag';
SELECT mismatches('bag');

-- jsonb keys: a string that reads as JSON keeps its quotes, or two records had one id
CREATE TABLE documents (k jsonb PRIMARY KEY, v int);
SELECT audit_log.enable('documents');
INSERT INTO documents VALUES ('1', 1), ('"1"', 2), ('"a"', 3), ('null', 4), ('"null"', 5), ('[1]', 6), ('"[1]"', 7), ('"\"1\""', 8);
UPDATE documents SET v = -v WHERE k = '"1"';
DELETE FROM documents WHERE k = 'null';
SELECT action, id, changes FROM log WHERE "table" = 'documents';
SELECT mismatches('documents');

-- a key that comes, goes, or is another from now on: a state each time
CREATE TABLE later (a int NOT NULL, b int NOT NULL);
SELECT audit_log.enable('later');
INSERT INTO later VALUES (1, 2);
ALTER TABLE later ADD PRIMARY KEY (a);
UPDATE later SET b = 3;
ALTER TABLE later DROP CONSTRAINT later_pkey;
CREATE UNIQUE INDEX later_b ON later (b);
UPDATE later SET a = 4;
DROP INDEX later_b;
UPDATE later SET a = 5;
SELECT action, id, changes FROM log WHERE "table" = 'later';
SELECT kind, key_columns FROM audit_log.table_state s JOIN audit_log.tracked_table t ON t.id = s.table_id
 WHERE table_schema = 'capture_keys' AND table_name = 'later' ORDER BY s.id;
-- key columns renamed after the index was made
ALTER TABLE a7 RENAME c TO "the c";
UPDATE a7 SET "the c" = 30;
SELECT action, id, old, changes FROM log WHERE "table" = 'a7' OFFSET 3;

SET client_min_messages = warning;
DROP SCHEMA capture_keys CASCADE;
