-- Every way in which a row can be changed is in the log, visible to the same
-- transaction as soon as the statement has ended.
-- edge cases 4, 6, 7, 8, 14, 20, 25, 33, 36, 39
CREATE SCHEMA capture_paths;
SET search_path = capture_paths;
CREATE VIEW log AS
  SELECT table_name AS "table", action_type AS action, record_id AS id, old_record_id AS old, changes
    FROM audit_log.audit_logs WHERE table_schema = 'capture_paths' ORDER BY audit_logs.id;
CREATE FUNCTION mismatches(target regclass) RETURNS bigint LANGUAGE plpgsql AS $$
  DECLARE n bigint;
  BEGIN
    EXECUTE format('WITH r AS MATERIALIZED (SELECT whole_row AS x FROM audit_log.rebuild(NULL::%1$s) whole_row),
      t AS MATERIALIZED (SELECT whole_row AS x FROM %1$s whole_row)
      SELECT count(*) FROM (SELECT x FROM r UNION ALL SELECT x FROM t) u
       WHERE (SELECT count(*) FROM r WHERE r.x *= u.x) <> (SELECT count(*) FROM t WHERE t.x *= u.x)', target) INTO n;
    RETURN n;
  END $$;
CREATE TABLE item (id int PRIMARY KEY, qty int, note text);
SELECT audit_log.enable('item');

-- one statement after the other in one transaction: each sees its own changes
BEGIN;
INSERT INTO item VALUES (1, 10, 'a'), (2, 20, NULL), (3, NULL, NULL);
SELECT count(*) FROM log;
UPDATE item SET qty = qty + 1 WHERE id < 3;
SELECT count(*) FROM log;
UPDATE item SET qty = qty;              -- nothing changes: no trace
UPDATE item SET qty = 0 WHERE id > 100; -- no row: no trace
DELETE FROM item WHERE id > 100;
INSERT INTO item SELECT * FROM item WHERE false;
SELECT count(*) FROM log;
UPDATE item SET qty = NULL, note = 'b' WHERE id = 1;
UPDATE item SET id = 30 WHERE id = 3;
DELETE FROM item WHERE id = 2;
INSERT INTO item VALUES (4, 4, 'here and gone');
DELETE FROM item WHERE id = 4;
SELECT * FROM log;
COMMIT;

-- prepared statements, functions, cursors
PREPARE put (int, int) AS INSERT INTO item VALUES ($1, $2);
PREPARE add (int) AS UPDATE item SET qty = qty + $1 WHERE id >= 40 RETURNING qty;
EXECUTE put (40, 0);
EXECUTE add (1);
EXECUTE add (1);
DEALLOCATE put;
DEALLOCATE add;
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM item WHERE id >= 40 FOR UPDATE;
FETCH c;
UPDATE item SET note = 'current' WHERE CURRENT OF c;
DELETE FROM item WHERE CURRENT OF c;
COMMIT;
SELECT * FROM log OFFSET 9;

-- ON CONFLICT: no phantom INSERT, nothing at all of what does nothing
TRUNCATE item;
INSERT INTO item VALUES (50, 1, 'x');
SELECT count(*) AS seen FROM log \gset
INSERT INTO item VALUES (50, 2, 'y') ON CONFLICT DO NOTHING;
INSERT INTO item VALUES (50, 3, 'z'), (51, 3, 'z') ON CONFLICT (id) DO UPDATE SET qty = excluded.qty;
INSERT INTO item VALUES (50, 9, 'z') ON CONFLICT (id) DO UPDATE SET qty = 9 WHERE item.qty > 5;
INSERT INTO item VALUES (50, 9, 'z') ON CONFLICT (id) DO UPDATE SET qty = item.qty;
SELECT * FROM log OFFSET :seen;
-- MERGE with every action; which row it comes to first is the plan's choice
SELECT count(*) AS seen FROM log \gset
MERGE INTO item USING (VALUES (50, 'update'), (51, 'delete'), (52, 'insert'), (53, 'nothing')) AS s (id, what)
  ON item.id = s.id
  WHEN MATCHED AND what = 'delete' THEN DELETE
  WHEN MATCHED THEN UPDATE SET note = what
  WHEN NOT MATCHED AND what = 'nothing' THEN DO NOTHING
  WHEN NOT MATCHED THEN INSERT (id, note) VALUES (s.id, what);
SELECT * FROM (SELECT * FROM log OFFSET :seen) l ORDER BY id;
SELECT count(*) AS seen FROM log \gset
-- writable CTEs, one of them read by nobody
WITH gone AS (DELETE FROM item WHERE id = 52 RETURNING *),
     unread AS (UPDATE item SET qty = 0 WHERE id = 50)
  INSERT INTO item SELECT id + 1, qty, note || '!' FROM gone;
SELECT * FROM log OFFSET :seen;
SELECT mismatches('item');

-- volatile functions that write, called from a query and from RETURNING
CREATE TABLE side (n int PRIMARY KEY, by text);
SELECT audit_log.enable('side');
CREATE FUNCTION put_side(n int, by text) RETURNS int LANGUAGE plpgsql AS $$
  BEGIN INSERT INTO side VALUES (n, by); RETURN (SELECT count(*) FROM log WHERE "table" = 'side'); END $$;
SELECT put_side(n, 'query') FROM generate_series(1, 3) n;
INSERT INTO item VALUES (60, 60), (61, 61) RETURNING put_side(id, 'returning');
UPDATE item SET qty = put_side(id + 10, 'set') WHERE id >= 60;
SELECT * FROM log WHERE "table" = 'side' OR changes ? 'qty' AND id >= '60';
SELECT mismatches('item'), mismatches('side');

-- tables made with their rows: CTAS and SELECT INTO are not tracked by themselves
CREATE TABLE copied AS SELECT * FROM item;
SELECT * INTO copied_too FROM item;
SELECT count(*) FROM log WHERE "table" LIKE 'copied%';

-- COPY with defaults, and one that fails half way
CREATE TABLE feed (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text DEFAULT 'default', double text GENERATED ALWAYS AS (v || v) STORED);
SELECT audit_log.enable('feed');
COPY feed (v) FROM stdin;
one
\N
three
\.
COPY feed (id, v) FROM stdin;
70	seventy
70	again
\.
COPY (SELECT * FROM feed) TO stdout;
BEGIN;
CREATE TABLE frozen (id int PRIMARY KEY);
SELECT audit_log.enable('frozen');
COPY frozen FROM stdin (FREEZE);
1
2
\.
SELECT * FROM log WHERE "table" IN ('feed', 'frozen');
COMMIT;
SELECT mismatches('feed'), mismatches('frozen');

-- nothing but a key; no columns at all
CREATE TABLE only_key (id int PRIMARY KEY);
CREATE TABLE nothing ();
SELECT audit_log.enable('only_key'), audit_log.enable('nothing');
INSERT INTO only_key VALUES (1), (2);
UPDATE only_key SET id = 3 WHERE id = 1;
DELETE FROM only_key WHERE id = 2;
INSERT INTO nothing DEFAULT VALUES;
INSERT INTO nothing DEFAULT VALUES;
DELETE FROM nothing;
INSERT INTO nothing DEFAULT VALUES;
SELECT * FROM log WHERE "table" IN ('only_key', 'nothing');
SELECT mismatches('only_key'), (SELECT count(*) FROM audit_log.rebuild(NULL::nothing)) AS nothing;

SET client_min_messages = warning;
DROP SCHEMA capture_paths CASCADE;
