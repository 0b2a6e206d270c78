-- Triggers attached by hand.
CREATE SCHEMA capture_by_hand;
SET search_path = capture_by_hand;
CREATE VIEW log AS
  SELECT table_name AS "table", action_type AS action, record_id AS id, old_record_id AS old, changes
    FROM audit_log.audit_logs WHERE table_schema = 'capture_by_hand' ORDER BY audit_logs.id;
CREATE FUNCTION mismatches(target regclass) RETURNS bigint LANGUAGE plpgsql AS $$
  DECLARE n bigint;
  BEGIN
    EXECUTE format('WITH r AS MATERIALIZED (SELECT whole_row AS x FROM audit_log.rebuild(NULL::%1$s) whole_row),
      t AS MATERIALIZED (SELECT whole_row AS x FROM %1$s whole_row)
      SELECT count(*) FROM (SELECT x FROM r UNION ALL SELECT x FROM t) u
       WHERE (SELECT count(*) FROM r WHERE r.x *= u.x) <> (SELECT count(*) FROM t WHERE t.x *= u.x)', target) INTO n;
    RETURN n;
  END $$;
CREATE VIEW states AS SELECT t.table_name, s.kind, s.settings FROM audit_log.table_state s JOIN audit_log.tracked_table t ON t.id = s.table_id
  WHERE t.table_schema = 'capture_by_hand' AND table_name <> 'first' ORDER BY s.id;
-- the log's partitions, which only enable() makes
CREATE TABLE first ();
SELECT audit_log.enable('first');
CREATE TABLE t (id int PRIMARY KEY, v text, note text, "a b" text);
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION audit_log.capture('exclude=note');
INSERT INTO t VALUES (1, 'a', 'unseen'), (2, 'b', NULL);
SELECT * FROM log;
UPDATE t SET note = 'x';
UPDATE t SET v = 'c' WHERE id = 1;
DELETE FROM t WHERE id = 2;
COPY t FROM stdin;
3	copied	note	ab
\.
BEGIN;
SAVEPOINT a;
UPDATE t SET v = 'rolled back';
ROLLBACK TO a;
COMMIT;
SELECT * FROM log OFFSET 2;
SELECT * FROM states;
TRUNCATE t;                     -- not captured
SELECT count(*) AS seen FROM log \gset
-- two of them: one row is one change; with enable() the others are silent
CREATE TRIGGER audit2 AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION audit_log.capture('exclude={note,"a b"}');
INSERT INTO t VALUES (4, 'd', 'n', 'ab');
SELECT * FROM log OFFSET :seen;
SELECT audit_log.enable('t', mask => '{v}');
INSERT INTO t VALUES (5, 'e', 'n', 'ab');
SELECT action, id, changes - 'v' AS rest, length(changes ->> 'v') AS v FROM log OFFSET :seen + 1;
SELECT * FROM states OFFSET 1;
-- where ours does not fire, the one attached by hand does
ALTER TABLE t DISABLE TRIGGER audit_log_row;
INSERT INTO t VALUES (6, 'f', 'n', 'ab');
ALTER TABLE t ENABLE TRIGGER audit_log_row;
SELECT action, id, changes - 'v' AS rest, length(changes ->> 'v') AS v FROM log OFFSET :seen + 2;
SELECT audit_log.disable('t');
INSERT INTO t VALUES (7, 'g', 'n', 'ab');
DROP TRIGGER audit ON t;
INSERT INTO t VALUES (8, 'h', 'n', 'ab');
SELECT * FROM log OFFSET :seen + 3;
DROP TRIGGER audit2 ON t;
INSERT INTO t VALUES (9, 'i', 'n', 'ab');
SELECT count(*) - :seen FROM log;
\set SHOW_CONTEXT never
SELECT audit_log.disable('t');
\set SHOW_CONTEXT errors

-- enable() takes its settings over, also before it has ever fired
CREATE TABLE early (id int PRIMARY KEY, secret text);
CREATE TRIGGER audit AFTER INSERT ON early FOR EACH ROW EXECUTE FUNCTION audit_log.capture('mask=secret');
SELECT audit_log.enable('early');
DROP TRIGGER audit ON early;
INSERT INTO early VALUES (1, 'x');
SELECT action, id, changes ->> 'secret' = 'x' AS clear FROM log WHERE "table" = 'early';
DROP TABLE early;

-- WHEN, columns and fewer events narrow it
CREATE TABLE u (id int PRIMARY KEY, v int, w int);
CREATE TRIGGER only_v AFTER UPDATE OF v ON u FOR EACH ROW WHEN (new.v > 10) EXECUTE FUNCTION audit_log.capture();
INSERT INTO u VALUES (1, 1, 1);
UPDATE u SET w = 2;
UPDATE u SET v = 2;
UPDATE u SET v = 20, w = 3;
-- a second one without such limits is not silenced by it; what both see is one change
CREATE TRIGGER rest AFTER INSERT OR UPDATE OR DELETE ON u FOR EACH ROW EXECUTE FUNCTION audit_log.capture();
UPDATE u SET w = 4;
UPDATE u SET v = 30;
SELECT * FROM log WHERE "table" = 'u';

-- of a partitioned table, and of one partition alone
CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON p FOR EACH ROW EXECUTE FUNCTION audit_log.capture('actions={insert,update}');
INSERT INTO p VALUES (1), (11);
UPDATE p SET id = id + 14 WHERE id < 10;
UPDATE p2 SET id = id + 1 WHERE id > 14;
DELETE FROM p WHERE id = 11;
INSERT INTO p1 VALUES (3);
UPDATE p SET id = 13 WHERE id = 3;
SELECT * FROM log WHERE "table" LIKE 'p%';

CREATE TABLE q (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE q1 PARTITION OF q FOR VALUES FROM (0) TO (10);
CREATE TABLE q2 PARTITION OF q FOR VALUES FROM (10) TO (20);
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON q1 FOR EACH ROW EXECUTE FUNCTION audit_log.capture();
INSERT INTO q VALUES (1), (2), (11);
UPDATE q SET id = 12 WHERE id = 1;
UPDATE q SET id = 1 WHERE id = 11;
SELECT audit_log.enable('q');
INSERT INTO q VALUES (4);
UPDATE q SET id = 14 WHERE id = 4;
SELECT * FROM log WHERE "table" LIKE 'q%';

-- settings that may keep a trigger silent do not silence another
CREATE TABLE w (id int PRIMARY KEY, v int);
CREATE TRIGGER a AFTER INSERT OR UPDATE OR DELETE ON w FOR EACH ROW EXECUTE FUNCTION audit_log.capture('actions={INSERT}');
CREATE TRIGGER b AFTER INSERT OR UPDATE OR DELETE ON w FOR EACH ROW EXECUTE FUNCTION audit_log.capture('actions={update}', 'condition=new.v > 1');
CREATE TRIGGER c AFTER DELETE ON w FOR EACH ROW EXECUTE FUNCTION audit_log.capture();
INSERT INTO w VALUES (1, 1);
UPDATE w SET v = v + 1;
UPDATE w SET v = 0;
DELETE FROM w;
SELECT * FROM log WHERE "table" = 'w';

-- what cannot be
CREATE CONSTRAINT TRIGGER c AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit_log.capture();
INSERT INTO t VALUES (20);
DROP TRIGGER c ON t;
CREATE TRIGGER c AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION audit_log.capture();
INSERT INTO t VALUES (20);
DROP TRIGGER c ON t;
CREATE TRIGGER c BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION audit_log.capture();
INSERT INTO t VALUES (20);
DROP TRIGGER c ON t;
CREATE TRIGGER c AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION audit_log.capture_flush();
INSERT INTO t VALUES (20);
DROP TRIGGER c ON t;
CREATE TRIGGER c AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION audit_log.capture_truncate();
INSERT INTO t VALUES (20);
DROP TRIGGER c ON t;
SELECT audit_log.capture();
-- arguments that are none
CREATE FUNCTION try(argument text) RETURNS text LANGUAGE plpgsql AS $$
  DECLARE message text; detail text; hint text;
  BEGIN
    EXECUTE format('CREATE TRIGGER c AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION audit_log.capture(%L)', argument);
    INSERT INTO t VALUES (20);
    RAISE 'taken';
  EXCEPTION WHEN others THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
    RETURN SQLSTATE || ' ' || message || ' / ' || hint;
  END $$;
SELECT try(a) FROM unnest(ARRAY['', 'exclude', 'exclude=nothing', 'mask={nothing}', 'exclude={', 'Exclude=note', 'on_truncate=maybe', 'always=maybe',
  'actions=insert,delete', 'actions={insert,upsert}', 'user_column=nothing', 'condition=new.nothing > 1', 'condition=1 +', 'table=no uuid',
  'exclude=note', 'include=note', 'exclude="a b"', 'exclude=a b', 'exclude={"a b"}', 'exclude=id', 'actions=INSERT']) a;
SELECT count(*) FROM t WHERE id = 20;

SET client_min_messages = warning;
DROP SCHEMA capture_by_hand CASCADE;
