--
-- as_of across ALTER TABLE: today's columns, each with the value it had under
-- whatever name and type it had then
-- edge cases 1, 21, 22, 71, 72, 81
--
SET client_min_messages = warning;
CREATE SCHEMA time_columns;
SET search_path = time_columns;
CREATE TABLE t (id int PRIMARY KEY, a text, b int, c jsonb, d text DEFAULT 'd');
INSERT INTO t VALUES (1, 'a1', 1, '{"x": 1}'), (2, 'a2', 2, NULL), (3, 'a3', 3, '{"y": {"z": 1}}');
SELECT audit_log.enable('t');
SELECT audit_log.mark('start');
UPDATE t SET a = a || '!', b = b * 10, c = c || '{"x": 2}' WHERE id < 3;
-- two names exchanged, one that was another's before
ALTER TABLE t RENAME COLUMN a TO was_a;
ALTER TABLE t RENAME COLUMN d TO a;
ALTER TABLE t RENAME COLUMN was_a TO d;
UPDATE t SET a = 'now a' WHERE id = 1;
DELETE FROM t WHERE id = 2;
SELECT audit_log.mark('renamed');
SELECT * FROM audit_log.as_of(NULL::t, 'start') ORDER BY id;
-- added with a default: it was not there
ALTER TABLE t ADD COLUMN e int NOT NULL DEFAULT 7;
UPDATE t SET e = 8 WHERE id = 1;
SELECT audit_log.mark('added');
SELECT * FROM audit_log.as_of(NULL::t, 'renamed') ORDER BY id;
SELECT * FROM audit_log.as_of(NULL::t, 'added') ORDER BY id;
SELECT audit_log.row_as_of('t', '3', 'start') AS changed_never, audit_log.row_as_of('t', '2', 'start') AS gone;
-- types: read through the new type's input
ALTER TABLE t ALTER COLUMN b TYPE text USING b || ' pieces';
UPDATE t SET b = 'many' WHERE id = 3;
SELECT * FROM audit_log.as_of(NULL::t, 'start') ORDER BY id;
ALTER TABLE t ALTER COLUMN c TYPE json;
UPDATE t SET c = '{"y": {"z":  2}}' WHERE id = 3;
UPDATE t SET c = '{"y": {"z": 3}}' WHERE id = 3;
UPDATE t SET c = '{"y": {"z": 4}}' WHERE id = 3;
SELECT id, c FROM audit_log.as_of(NULL::t, 'start') ORDER BY id;
SELECT id, c FROM audit_log.as_of(NULL::t, 'added') ORDER BY id;
-- or refused
UPDATE t SET b = '5' WHERE id = 3;
UPDATE t SET b = '6' WHERE id = 1;
ALTER TABLE t ALTER COLUMN b TYPE int USING b::int;
SELECT id, b FROM audit_log.as_of(NULL::t, 'renamed') ORDER BY id;
-- dropped, and another of the same name; the only json of a change
ALTER TABLE t DROP COLUMN b, DROP COLUMN d;
ALTER TABLE t ADD COLUMN d text;
UPDATE t SET d = 'another d';
SELECT * FROM audit_log.as_of(NULL::t, 'start') ORDER BY id;
SELECT changeset, record FROM audit_log.history('t', '3');
SELECT record_id, action_type, changes FROM audit_log.diff('t', 'start', 'added') ORDER BY 1;
SELECT record_id, action_type, changes FROM audit_log.diff('t', 'start', clock_timestamp()) ORDER BY 1;
-- the key's columns: another name is no matter, nor another type
ALTER TABLE t RENAME COLUMN id TO key;
UPDATE t SET a = 'under another name' WHERE key = 3;
ALTER TABLE t ALTER COLUMN key TYPE numeric(5,2);
UPDATE t SET a = 'and type', key = 4 WHERE key = 1;
SELECT key, a FROM audit_log.as_of(NULL::t, 'start') ORDER BY key;
SELECT audit_log.row_as_of('t', '1', 'start') ->> 'a' AS one, audit_log.row_as_of('t', '3.0', 'start') ->> 'a' AS three;
SELECT version, action_type, record ->> 'key' AS key, changeset -> 'a' AS a FROM audit_log.history('t', '4') ORDER BY version;
-- a table without key
CREATE TABLE k (a int, b text);
INSERT INTO k VALUES (1, 'x'), (1, 'x'), (2, 'y');
SELECT audit_log.enable('k');
SELECT audit_log.mark('k');
INSERT INTO k VALUES (1, 'x');
DELETE FROM k WHERE a = 2;
ALTER TABLE k ADD COLUMN c int DEFAULT 3;
UPDATE k SET a = 5, c = 4 WHERE ctid = (SELECT min(ctid) FROM k);
ALTER TABLE k ALTER COLUMN a TYPE bigint;
ALTER TABLE k RENAME COLUMN b TO bb;
SELECT * FROM audit_log.as_of(NULL::k, 'k') ORDER BY 1, 2;
ALTER TABLE k ALTER COLUMN a TYPE text;
INSERT INTO k VALUES ('7', 'z');
SELECT * FROM audit_log.as_of(NULL::k, 'k') ORDER BY 1, 2;
SELECT action_type, before, after FROM audit_log.diff('k', 'k', clock_timestamp()) ORDER BY 1, 2, 3;
-- 1,600 columns
DO $$ BEGIN EXECUTE (SELECT format('CREATE TABLE w (id int PRIMARY KEY, %s)', string_agg('c' || g || ' int', ', ')) FROM generate_series(1, 1599) g); END $$;
SELECT audit_log.enable('w');
INSERT INTO w (id, c1, c1599) VALUES (1, 1, 1), (2, 2, 2);
SELECT audit_log.mark('w');
DO $$ BEGIN EXECUTE (SELECT format('UPDATE w SET %s', string_agg('c' || g || ' = ' || g, ', ')) FROM generate_series(1, 1599) g); END $$;
DELETE FROM w WHERE id = 2;
SELECT id, c1, c2, c1599 FROM audit_log.as_of(NULL::w, 'w') ORDER BY id;
SELECT count(*) FROM jsonb_object_keys(audit_log.row_as_of('w', '2', 'w'));
-- json of which the log has what changed inside, and that is text by now: taken back as long as it is an object's
CREATE TABLE j (id int PRIMARY KEY, j jsonb, n int);
INSERT INTO j VALUES (1, '{"a": {"b": 1}, "c": 1}', 1), (2, '{"a": 1}', 1), (3, '{"$pg": 1}', 1);
SELECT audit_log.enable('j');
SELECT audit_log.mark('json');
UPDATE j SET j = jsonb_set(j, '{a}', '{"b": 2}') WHERE id = 1;
UPDATE j SET j = j || '{"a": 5}' WHERE id > 1;
ALTER TABLE j ALTER COLUMN j TYPE text;
SELECT * FROM audit_log.as_of(NULL::j, 'json') ORDER BY id;
UPDATE j SET j = 'none', n = 2;
SELECT * FROM audit_log.as_of(NULL::j, 'json') ORDER BY id;
ALTER TABLE j ALTER COLUMN j TYPE text USING 'used';
UPDATE j SET n = 3;
SELECT * FROM audit_log.as_of(NULL::j, 'json') ORDER BY id;
INSERT INTO j VALUES (4, '{"x": 1}', 1);
ALTER TABLE j ALTER COLUMN j TYPE jsonb USING to_jsonb(j);
SELECT audit_log.mark('json again');
UPDATE j SET j = '{"x": 1}' WHERE id = 4;
UPDATE j SET j = '{"x": 2}' WHERE id = 4;
ALTER TABLE j ALTER COLUMN j TYPE text USING 'used';
SELECT audit_log.row_as_of('j', '4', 'json again');
SELECT audit_log.row_as_of('j', '4', 'json');
SELECT version, changeset, record FROM audit_log.history('j', '4') ORDER BY version;
-- a key that is widened keeps its ids; one that is not gets them anew
CREATE TABLE wide (a smallint, b varchar(3), v text, PRIMARY KEY (a, b));
INSERT INTO wide VALUES (1, 'x', 'first'), (2, 'y', 'first');
SELECT audit_log.enable('wide');
SELECT audit_log.mark('wide');
UPDATE wide SET v = 'second', b = 'z' WHERE a = 1;
ALTER TABLE wide ALTER COLUMN a TYPE bigint, ALTER COLUMN b TYPE text;
UPDATE wide SET v = 'third', a = 10000000000 WHERE a = 1;
SELECT * FROM audit_log.as_of(NULL::wide, 'wide') ORDER BY a;
SELECT audit_log.row_as_of('wide', '["1", "x"]', 'wide') AS then, audit_log.row_as_of('wide', '["10000000000", "z"]', 'wide') AS not_yet;
SELECT version, changeset, record FROM audit_log.history('wide', '["10000000000", "z"]') ORDER BY version;
ALTER TABLE wide ALTER COLUMN a TYPE text USING 'n' || a;
SELECT audit_log.row_as_of('wide', '["n2", "y"]', 'wide');
SELECT count(*) FROM audit_log.history('wide', '["n2", "y"]');
SET client_min_messages = error;
SELECT count(audit_log.drop_mark(name)) AS dropped FROM audit_log.marks;
DROP SCHEMA time_columns CASCADE;
