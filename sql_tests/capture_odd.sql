-- Tuples with odd headers, statements rewritten by rules, TRUNCATE that fails
-- inside a block; and DDL in the middle of a transaction or of a statement.
-- edge cases 10, 11, 12, 73, 111
\set SHOW_CONTEXT never
CREATE SCHEMA capture_odd;
SET search_path = capture_odd;
CREATE VIEW log AS
  SELECT table_name AS "table", action_type AS action, record_id AS id, old_record_id AS old, changes
    FROM audit_log.audit_logs WHERE table_schema = 'capture_odd' ORDER BY audit_logs.id;
CREATE FUNCTION mismatches(target regclass) RETURNS bigint LANGUAGE plpgsql AS $$
  DECLARE n bigint;
  BEGIN
    EXECUTE format('WITH r AS MATERIALIZED (SELECT whole_row AS x FROM audit_log.rebuild(NULL::%1$s) whole_row),
      t AS MATERIALIZED (SELECT whole_row AS x FROM %1$s whole_row)
      SELECT count(*) FROM (SELECT x FROM r UNION ALL SELECT x FROM t) u
       WHERE (SELECT count(*) FROM r WHERE r.x *= u.x) <> (SELECT count(*) FROM t WHERE t.x *= u.x)', target) INTO n;
    RETURN n;
  END $$;
SET client_min_messages = warning;
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE c (id int PRIMARY KEY, t int REFERENCES t);
SELECT audit_log.enable('t'), audit_log.enable('c');
-- rows locked, changed and deleted by several levels of one transaction
INSERT INTO t VALUES (1), (2), (3);
BEGIN;
SELECT * FROM t WHERE id = 1 FOR SHARE;
SAVEPOINT a;
SELECT * FROM t WHERE id = 2 FOR UPDATE;
SAVEPOINT b;
INSERT INTO c VALUES (1, 3);
UPDATE t SET v = 'x';
SAVEPOINT d;
DELETE FROM c;
DELETE FROM t;
INSERT INTO t VALUES (1, 'again');
SAVEPOINT e;
UPDATE t SET v = 'y';
DELETE FROM t;
ROLLBACK TO e;
SELECT * FROM t FOR NO KEY UPDATE;
SAVEPOINT f;
DELETE FROM t;
INSERT INTO t VALUES (1, 'third');
COMMIT;
SELECT action, id, changes FROM log WHERE "table" = 't' OFFSET 3;
SELECT mismatches('t'), mismatches('c');
-- a TRUNCATE that fails before or after the rows are gone; the table can be written again
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE division_by_zero; END $$;
CREATE TRIGGER zz BEFORE TRUNCATE ON c FOR EACH STATEMENT EXECUTE FUNCTION fail();
INSERT INTO c VALUES (1, 1);
DO $$ BEGIN BEGIN TRUNCATE c; EXCEPTION WHEN division_by_zero THEN NULL; END; INSERT INTO c VALUES (2, 1); END $$;
DROP TRIGGER zz ON c;
CREATE TRIGGER zz AFTER TRUNCATE ON c FOR EACH STATEMENT EXECUTE FUNCTION fail();
DO $$ BEGIN BEGIN TRUNCATE c; EXCEPTION WHEN division_by_zero THEN NULL; END; INSERT INTO c VALUES (3, 1); END $$;
DROP TRIGGER zz ON c;
SELECT mismatches('c'), (SELECT count(*) FROM c);
-- rules
SELECT count(*) AS seen FROM log \gset
CREATE RULE r AS ON INSERT TO c DO ALSO UPDATE t SET v = 'rule';
INSERT INTO c VALUES (4, 1);
DROP RULE r ON c;
CREATE RULE r AS ON DELETE TO c DO INSTEAD UPDATE c SET t = NULL WHERE id = old.id;
DELETE FROM c WHERE id = 4;
DROP RULE r ON c;
SELECT * FROM log OFFSET :seen;
SELECT mismatches('t'), mismatches('c');

-- the table altered, renamed, untracked and tracked again between its changes
CREATE TABLE d (id int PRIMARY KEY, v text);
SELECT audit_log.enable('d');
DO $$ BEGIN
  INSERT INTO d VALUES (1, 'a');
  ALTER TABLE d ADD w int DEFAULT 5;
  UPDATE d SET v = 'b';
  ALTER TABLE d DROP v;
  UPDATE d SET w = 6;
  ALTER TABLE d ALTER w TYPE text;
  UPDATE d SET w = 'x';
  ALTER TABLE d RENAME TO d2;
  INSERT INTO d2 VALUES (2, 'y');
  PERFORM audit_log.disable('d2');
  INSERT INTO d2 VALUES (3, 'z');
  PERFORM audit_log.enable('d2');
  INSERT INTO d2 VALUES (4, 'z');
END $$;
SELECT * FROM log WHERE "table" = 'd2';
-- the same from a trigger of the table, in the middle of its own statement
CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE TG_ARGV[0]; RETURN NULL; END $$;
CREATE TRIGGER aa AFTER INSERT ON d2 FOR EACH ROW EXECUTE FUNCTION meddle('ALTER TABLE capture_odd.d2 ADD zz int');
INSERT INTO d2 VALUES (5, 'z');
DROP TRIGGER aa ON d2;
CREATE TRIGGER aa AFTER INSERT ON d2 FOR EACH ROW EXECUTE FUNCTION meddle('SELECT audit_log.enable(''capture_odd.d2'', exclude => ''{w}'')');
INSERT INTO d2 VALUES (6, 'z');
DROP TRIGGER aa ON d2;
-- what was changed before its triggers were dropped is still logged
CREATE TRIGGER aa AFTER INSERT ON d2 FOR EACH ROW EXECUTE FUNCTION meddle('SELECT audit_log.disable(''capture_odd.d2'')');
INSERT INTO d2 VALUES (7, 'z');
INSERT INTO d2 VALUES (8, 'not tracked, and the trigger knows it');
DROP TRIGGER aa ON d2;
SELECT audit_log.enable('d2');
CREATE TRIGGER aa AFTER INSERT ON d2 FOR EACH ROW EXECUTE FUNCTION meddle('DROP TRIGGER audit_log_row ON capture_odd.d2;
  DROP TRIGGER audit_log_flush ON capture_odd.d2; DROP TRIGGER audit_log_truncate ON capture_odd.d2; DROP TRIGGER aa ON capture_odd.d2');
INSERT INTO d2 VALUES (9, 'the table has no trigger left');
SELECT action, id, changes FROM log WHERE "table" = 'd2' OFFSET 6;
SELECT relation, problem FROM audit_log.check() WHERE relation LIKE '%capture_odd%' ORDER BY 1, 2;

-- a pause is not talked over by enable() in the same transaction
BEGIN;
SELECT audit_log.pause('t', 'why');
INSERT INTO t VALUES (50);
SAVEPOINT a;
SELECT audit_log.enable('t', baseline => true);
ROLLBACK TO a;
SELECT audit_log.disable('t');
SELECT audit_log.enable('t');
ROLLBACK;
SELECT mismatches('t');
-- of a partitioned table it holds for every partition
CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
SELECT audit_log.enable('p');
BEGIN;
SELECT audit_log.pause('p', 'why');
INSERT INTO p VALUES (1);
INSERT INTO p1 VALUES (2);
UPDATE p SET id = id + 10;
TRUNCATE p1;
TRUNCATE p;
COMMIT;
INSERT INTO p1 VALUES (3);
SELECT * FROM log WHERE "table" = 'p';

DROP SCHEMA capture_odd CASCADE;
