-- Partitions attached, detached, made and dropped in the middle of transactions,
-- also ones that are rolled back; partitioning by hash, with NULL and default.
-- edge cases 10, 23, 132
SET client_min_messages = warning;
CREATE SCHEMA capture_partitions_ddl;
SET search_path = capture_partitions_ddl;
CREATE VIEW log AS
  SELECT table_name AS "table", action_type AS action, record_id AS id, old_record_id AS old, changes
    FROM audit_log.audit_logs WHERE table_schema = 'capture_partitions_ddl' ORDER BY audit_logs.id;
CREATE FUNCTION mismatches(target regclass) RETURNS bigint LANGUAGE plpgsql AS $$
  DECLARE n bigint;
  BEGIN
    EXECUTE format('WITH r AS MATERIALIZED (SELECT whole_row AS x FROM audit_log.rebuild(NULL::%1$s) whole_row),
      t AS MATERIALIZED (SELECT whole_row AS x FROM %1$s whole_row)
      SELECT count(*) FROM (SELECT x FROM r UNION ALL SELECT x FROM t) u
       WHERE (SELECT count(*) FROM r WHERE r.x *= u.x) <> (SELECT count(*) FROM t WHERE t.x *= u.x)', target) INTO n;
    RETURN n;
  END $$;
CREATE VIEW states AS SELECT s.kind, s.detail FROM audit_log.table_state s JOIN audit_log.tracked_table t ON t.id = s.table_id
  WHERE t.table_schema = 'capture_partitions_ddl' AND table_name = 'p' ORDER BY s.id;
CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
SELECT audit_log.enable('p');
BEGIN;
INSERT INTO p VALUES (1, 'a'), (11, 'b');
ALTER TABLE p DETACH PARTITION p2;
UPDATE p2 SET v = 'detached';
TRUNCATE p2;
INSERT INTO p2 VALUES (12, 'x');
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20);
UPDATE p SET id = id + 10 WHERE id = 1;
UPDATE p SET v = 'c';
SELECT action, id, old, changes FROM log;
ROLLBACK;
SELECT * FROM states;
BEGIN;
INSERT INTO p VALUES (1, 'a'), (12, 'b');
SAVEPOINT s;
ALTER TABLE p DETACH PARTITION p2;
UPDATE p2 SET v = 'detached';
ROLLBACK TO s;
UPDATE p SET v = v || '!';
CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (20) TO (30);
UPDATE p SET id = id + 10;
SELECT mismatches('p');
ALTER TABLE p3 RENAME TO p4;
DROP TABLE p4;
COMMIT;
SELECT action, id, old, changes FROM log;
SELECT * FROM p;
SELECT * FROM states;
SELECT audit_log.enable('p', baseline => true);
SELECT mismatches('p');
-- a root that comes later: what was a table of its own becomes a partition, and the other way round
CREATE TABLE later (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
ALTER TABLE p DETACH PARTITION p1;
CREATE TABLE above (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
SELECT audit_log.enable('above');
ALTER TABLE later ATTACH PARTITION p1 FOR VALUES FROM (0) TO (10);
INSERT INTO p1 VALUES (5, 'not tracked');
ALTER TABLE above ATTACH PARTITION later FOR VALUES FROM (0) TO (100);
INSERT INTO p1 VALUES (6, 'tracked');
INSERT INTO later VALUES (7, 'tracked');
TRUNCATE later;
SELECT * FROM log WHERE "table" = 'above';
SELECT tgname, count(*) FROM pg_trigger WHERE tgrelid IN ('above'::regclass, 'later'::regclass, 'p1'::regclass) GROUP BY 1 ORDER BY 1;
ALTER TABLE above DETACH PARTITION later;
INSERT INTO p1 VALUES (8, 'not tracked');
SELECT tgname FROM pg_trigger WHERE tgrelid IN ('later'::regclass, 'p1'::regclass) AND tgname LIKE 'audit%';
SELECT count(*) FROM log WHERE "table" = 'above';
SELECT audit_log.enable('later', baseline => true);
DELETE FROM p1;
SELECT action, id, changes FROM log WHERE "table" = 'later';

-- default partition, hash, a list with NULL
CREATE TABLE h (id int, v int) PARTITION BY LIST (v);
CREATE TABLE h1 PARTITION OF h FOR VALUES IN (NULL, 1);
CREATE TABLE h2 PARTITION OF h DEFAULT PARTITION BY HASH (id);
CREATE TABLE h21 PARTITION OF h2 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE h22 PARTITION OF h2 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
SELECT audit_log.enable('h');
INSERT INTO h SELECT n, nullif(n % 3, 0) FROM generate_series(1, 8) n;
UPDATE h SET v = coalesce(v, 0) + 1, id = id + 1;
DELETE FROM h WHERE v = 2;
UPDATE h SET v = NULL;
SELECT mismatches('h');
SELECT action, count(*) FROM log WHERE "table" = 'h' GROUP BY 1 ORDER BY 1;

DROP SCHEMA capture_partitions_ddl CASCADE;
