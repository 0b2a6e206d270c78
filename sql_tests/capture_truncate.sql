-- TRUNCATE: the rows, then one event; the event alone; or not at all.
-- edge cases 28, 29
CREATE SCHEMA capture_truncate;
SET search_path = capture_truncate;
CREATE VIEW log AS
  SELECT table_name AS "table", action_type AS action, record_id AS id, old_record_id AS old, changes
    FROM audit_log.audit_logs WHERE table_schema = 'capture_truncate' ORDER BY audit_logs.id;
CREATE FUNCTION mismatches(target regclass) RETURNS bigint LANGUAGE plpgsql AS $$
  DECLARE n bigint;
  BEGIN
    EXECUTE format('WITH r AS MATERIALIZED (SELECT whole_row AS x FROM audit_log.rebuild(NULL::%1$s) whole_row),
      t AS MATERIALIZED (SELECT whole_row AS x FROM %1$s whole_row)
      SELECT count(*) FROM (SELECT x FROM r UNION ALL SELECT x FROM t) u
       WHERE (SELECT count(*) FROM r WHERE r.x *= u.x) <> (SELECT count(*) FROM t WHERE t.x *= u.x)', target) INTO n;
    RETURN n;
  END $$;
CREATE VIEW states AS SELECT t.table_name, s.kind, s.detail FROM audit_log.table_state s JOIN audit_log.tracked_table t ON t.id = s.table_id
  WHERE t.table_schema = 'capture_truncate' ORDER BY s.id;
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE u (id int PRIMARY KEY, t int REFERENCES t);
SELECT audit_log.enable('t'), audit_log.enable('u');
INSERT INTO t VALUES (1, 'a'), (2, NULL);
INSERT INTO u VALUES (10, 1);
SELECT count(*) AS seen FROM log \gset
TRUNCATE t, u;
TRUNCATE u;                                     -- of an empty table: the event
INSERT INTO t VALUES (3, 'c');
INSERT INTO u VALUES (30, 3);
TRUNCATE t CASCADE;
INSERT INTO t VALUES (4, 'd');
INSERT INTO u VALUES (40, 4);
TRUNCATE t;                                     -- core refuses: no trace
BEGIN;
SAVEPOINT a;
TRUNCATE t, u RESTART IDENTITY;
SELECT count(*) - :seen AS captured FROM log;
ROLLBACK TO a;
TRUNCATE u;
INSERT INTO u VALUES (41, 4);
COMMIT;
SELECT * FROM log OFFSET :seen;
SELECT mismatches('t'), mismatches('u');
-- the event only: a gap; DELETE not wanted: no rows; TRUNCATE not wanted: only rows
SELECT audit_log.enable('u', on_truncate => 'Event');
SELECT count(*) AS seen FROM log \gset
TRUNCATE u;
SELECT * FROM states WHERE kind = 'gap';
SELECT audit_log.enable('u', on_truncate => '', actions => '{INSERT,truncate}');
INSERT INTO u VALUES (50, NULL);
TRUNCATE u;
SELECT audit_log.enable('u', actions => '{delete,insert}');
INSERT INTO u VALUES (60, NULL);
TRUNCATE u;
SELECT audit_log.enable('u', actions => '{update}');
INSERT INTO u VALUES (70, NULL);
TRUNCATE u;
SELECT * FROM log OFFSET :seen;
-- forbidden, also when it comes by CASCADE, or beside another table
SELECT audit_log.enable('u', on_truncate => 'forbid', actions => '{}');
INSERT INTO u VALUES (80, 4);
\set SHOW_CONTEXT never
TRUNCATE u;
TRUNCATE t CASCADE;
TRUNCATE t, u;
\set SHOW_CONTEXT errors
SELECT count(*) FROM t, u;
SELECT audit_log.enable('u', on_truncate => 'rows');
-- a condition holds for the rows; a masked or excluded column is so here too
SELECT audit_log.enable('t', condition => 'new.id > 4', mask => '{v}');
INSERT INTO t VALUES (5, 'e'), (6, NULL);
SELECT count(*) AS seen FROM log \gset
TRUNCATE t CASCADE;
SELECT "table", action, id, changes - 'v' AS rest, changes ? 'v' AS v, changes ->> 'v' = 'e' AS clear FROM log OFFSET :seen;

-- a table without key
CREATE TABLE k (v int);
SELECT audit_log.enable('k');
INSERT INTO k VALUES (1), (1), (NULL);
TRUNCATE k;
SELECT * FROM log WHERE "table" = 'k' AND action <> 'INSERT';

-- partitions: of the root, of one, of a middle one, of both in one statement
CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (30) PARTITION BY RANGE (id);
CREATE TABLE p21 PARTITION OF p2 FOR VALUES FROM (10) TO (20);
CREATE TABLE p22 PARTITION OF p2 FOR VALUES FROM (20) TO (30);
CREATE TABLE "P 3" (junk int, v text, id int NOT NULL);
ALTER TABLE "P 3" DROP junk;
SELECT audit_log.enable('p');
ALTER TABLE p ATTACH PARTITION "P 3" FOR VALUES FROM (30) TO (40);
CREATE FUNCTION fill() RETURNS void BEGIN ATOMIC
  INSERT INTO p SELECT n, 'x' FROM unnest('{1,11,21,31}'::int[]) n ON CONFLICT DO NOTHING; END;
CREATE FUNCTION emptied(what text) RETURNS TABLE (rows text, events text) LANGUAGE plpgsql AS $$
  DECLARE
    seen bigint := (SELECT count(*) FROM log);
  BEGIN
    EXECUTE 'TRUNCATE ' || what;
    SELECT string_agg(l.id, ' ' ORDER BY l.id) FILTER (WHERE action = 'DELETE'),
           string_agg(coalesce(l.changes ->> 'partition', '-'), ', ' ORDER BY l.changes ->> 'partition') FILTER (WHERE action = 'TRUNCATE')
      INTO rows, events FROM (SELECT * FROM log OFFSET seen) l;
    RETURN NEXT;
    PERFORM fill();
  END $$;
SELECT fill();
SELECT w, e.* FROM unnest(ARRAY['p', 'p1', 'p2', '"P 3"', 'p21, p1', 'p, p1', 'p1, p', 'p22, p2', 'ONLY p1',
  'p1, p2, "P 3"', 'p21, p22', 'p, k, p21']) w, emptied(w) e;
SELECT mismatches('p');
-- COPY after it; two TRUNCATEs of one transaction; a table made and emptied in it
BEGIN;
TRUNCATE p;
COPY p (id, v) FROM stdin;
2	two
\.
TRUNCATE p1;
INSERT INTO p VALUES (3, 'three');
CREATE TABLE made (id int PRIMARY KEY);
SELECT audit_log.enable('made');
INSERT INTO made VALUES (1);
TRUNCATE made;
INSERT INTO made VALUES (1);
COMMIT;
SELECT mismatches('p'), mismatches('made');
-- a partition whose own triggers were taken away loses no rows by the root's TRUNCATE
SELECT fill();
DROP TRIGGER audit_log_truncate ON p21;
DROP TRIGGER audit_log_flush ON p21;
INSERT INTO p21 VALUES (12, 'row by row');
SELECT * FROM emptied('p');
SELECT relation, problem FROM audit_log.check() WHERE relation LIKE '%capture_truncate%' ORDER BY 1, 2;
-- (the dropped triggers are a gap, which rebuild does not pass: a new beginning)
SELECT kind, detail ->> 'reason' AS reason FROM audit_log.table_state ORDER BY id DESC LIMIT 1;
SELECT audit_log.enable('p', baseline => true);
SELECT mismatches('p');
-- a trigger of the user's that writes while the table is being emptied
CREATE FUNCTION writes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO made VALUES (nextval('s')); RETURN NULL; END $$;
CREATE SEQUENCE s START 100;
CREATE TRIGGER zz_before BEFORE TRUNCATE ON made FOR EACH STATEMENT EXECUTE FUNCTION writes();
TRUNCATE made;
DROP TRIGGER zz_before ON made;
CREATE TRIGGER aa_before BEFORE TRUNCATE ON made FOR EACH STATEMENT EXECUTE FUNCTION writes();
CREATE TRIGGER zz_after AFTER TRUNCATE ON made FOR EACH STATEMENT EXECUTE FUNCTION writes();
TRUNCATE made;
SELECT * FROM log WHERE "table" = 'made';
SELECT mismatches('made'), (SELECT count(*) FROM made);
CREATE TRIGGER aa_after AFTER TRUNCATE ON made FOR EACH STATEMENT EXECUTE FUNCTION writes();
TRUNCATE made;
SELECT mismatches('made');

-- another partition's TRUNCATE inside, rolled back: the event of the outer one stays
CREATE TABLE twice (id int, k int) PARTITION BY LIST (k);
CREATE TABLE twice1 PARTITION OF twice FOR VALUES IN (1);
CREATE TABLE twice2 PARTITION OF twice FOR VALUES IN (2);
SELECT audit_log.enable('twice');
CREATE FUNCTION truncates() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    TRUNCATE twice2;
    RAISE division_by_zero;
  EXCEPTION WHEN division_by_zero THEN
    RETURN NULL;
  END $$;
CREATE TRIGGER zz_before BEFORE TRUNCATE ON twice1 FOR EACH STATEMENT EXECUTE FUNCTION truncates();
INSERT INTO twice VALUES (1, 1), (2, 2);
TRUNCATE twice1;
SELECT action_type, changes FROM audit_log.audit_logs WHERE relation = 'twice'::regclass ORDER BY id;
SELECT mismatches('twice');
-- not rolled back: the outer one goes on, so that its partition takes no row
CREATE OR REPLACE FUNCTION truncates() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    TRUNCATE twice2;
    IF (SELECT count(*) FROM twice1) > 1 THEN
      INSERT INTO twice1 VALUES (3, 1);
    END IF;
    RETURN NULL;
  END $$;
INSERT INTO twice VALUES (4, 1);
TRUNCATE twice1;
INSERT INTO twice VALUES (5, 1), (6, 1);
TRUNCATE twice1;
SELECT action_type, changes FROM (SELECT id, action_type, changes FROM audit_log.audit_logs WHERE relation = 'twice'::regclass ORDER BY id OFFSET 4) l ORDER BY id;
SELECT mismatches('twice');

SET client_min_messages = warning;
DROP SCHEMA capture_truncate CASCADE;
