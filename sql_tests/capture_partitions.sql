-- A partitioned table is one table: what is written to a partition carries the
-- root, whichever way it came, and whatever the partition looks like.
-- edge cases 1, 23, 27, 132
CREATE SCHEMA capture_partitions;
SET search_path = capture_partitions;
CREATE VIEW log AS
  SELECT table_name AS "table", action_type AS action, record_id AS id, old_record_id AS old, changes
    FROM audit_log.audit_logs WHERE table_schema = 'capture_partitions' ORDER BY audit_logs.id;
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
  WHERE t.table_schema = 'capture_partitions' ORDER BY s.id;
CREATE TABLE p (id int, k text, v text DEFAULT 'root', PRIMARY KEY (k, id)) PARTITION BY LIST (k);
CREATE TABLE pa PARTITION OF p FOR VALUES IN ('a');
-- other order, other numbers, dropped columns, another default
CREATE TABLE pb (junk int, v text DEFAULT 'leaf', junk2 int[], id int NOT NULL, k text NOT NULL, junk3 text DEFAULT 'x');
ALTER TABLE pb DROP junk, DROP junk2, DROP junk3;
ALTER TABLE p ATTACH PARTITION pb FOR VALUES IN ('b');
-- two levels more
CREATE TABLE pc PARTITION OF p FOR VALUES IN ('c', 'd') PARTITION BY RANGE (id);
CREATE TABLE pc1 PARTITION OF pc FOR VALUES FROM (0) TO (10);
SELECT audit_log.enable('p');
INSERT INTO p (id, k) VALUES (1, 'a'), (1, 'b'), (1, 'c');
INSERT INTO pa VALUES (2, 'a', 'direct');
INSERT INTO pb (k, id, v) VALUES ('b', 2, 'direct');
INSERT INTO pb (k, id) VALUES ('b', 3);
INSERT INTO pc VALUES (2, 'd', 'middle');
INSERT INTO pc1 VALUES (3, 'c', 'direct');
UPDATE pb SET v = 'changed' WHERE id = 2;
UPDATE pc SET v = 'changed' WHERE id = 2;
DELETE FROM pc1 WHERE id = 3;
COPY pc1 FROM stdin;
4	c	copied
\.
MERGE INTO pb USING (VALUES (2), (9)) s (id) ON pb.id = s.id
  WHEN MATCHED THEN UPDATE SET v = 'merged'
  WHEN NOT MATCHED THEN INSERT (id, k, v) VALUES (s.id, 'b', 'merged');
SELECT * FROM log;
SELECT mismatches('p');

-- partitions that come later, by every way; nothing of a partition needs enable()
CREATE TABLE pe PARTITION OF p FOR VALUES IN ('e');
CREATE TABLE pf (LIKE p INCLUDING ALL);
INSERT INTO pf VALUES (1, 'f', 'before attach');
ALTER TABLE p ATTACH PARTITION pf FOR VALUES IN ('f');
CREATE TABLE pc2 PARTITION OF pc FOR VALUES FROM (10) TO (20);
CREATE TABLE pg (v text, id int NOT NULL, k text NOT NULL) PARTITION BY RANGE (id);
CREATE TABLE pg1 PARTITION OF pg DEFAULT;
ALTER TABLE p ATTACH PARTITION pg FOR VALUES IN ('g');
SELECT count(*) AS seen FROM log \gset
INSERT INTO pe VALUES (1, 'e');
UPDATE pf SET v = 'after attach';
INSERT INTO pc2 VALUES (10, 'd');
INSERT INTO pg1 (k, id) VALUES ('g', 1);
INSERT INTO p VALUES (2, 'g', 'through the root');
SELECT * FROM log OFFSET :seen;
SELECT * FROM states;
-- the rows that came with a partition were not captured: the log says so
\set VERBOSITY terse
SELECT mismatches('p');
\set VERBOSITY default
SELECT audit_log.enable('p', baseline => true);
SELECT mismatches('p');
SELECT * FROM audit_log.check() WHERE relation LIKE '%capture_partitions%';

-- a partition that leaves is a table of its own again, with nothing of ours
ALTER TABLE p DETACH PARTITION pb;
SELECT tgname FROM pg_trigger WHERE tgrelid = 'pb'::regclass AND NOT tgisinternal;
SELECT count(*) AS seen FROM log \gset
UPDATE pb SET v = 'on its own';
TRUNCATE pb;
ALTER TABLE p DETACH PARTITION pg;
UPDATE pg1 SET v = 'on its own';
TRUNCATE pg1;
DROP TABLE pe;
DROP TABLE pc2;
SELECT count(*) - :seen AS captured FROM log;
-- concurrently too, and back again under its old name
ALTER TABLE p DETACH PARTITION pf CONCURRENTLY;
UPDATE pf SET v = 'on its own';
ALTER TABLE p ATTACH PARTITION pf FOR VALUES IN ('f');
UPDATE pf SET v = 'back';
SELECT * FROM log OFFSET :seen;
SELECT * FROM states OFFSET 6;
-- rows that left or came are not known to the log
\set VERBOSITY terse
SELECT mismatches('p');
\set VERBOSITY default
\set SHOW_CONTEXT never
SELECT audit_log.enable('p', baseline => true);
UPDATE p SET v = v || '!';
SELECT mismatches('p');
SELECT * FROM audit_log.check() WHERE relation LIKE '%capture_partitions%';

-- partitions are known by name, so their renames are followed
ALTER TABLE pa RENAME TO "P a";
CREATE SCHEMA capture_partitions_2;
ALTER TABLE pf SET SCHEMA capture_partitions_2;
SELECT mismatches('p');
SELECT kind, detail FROM states OFFSET 14;
ALTER SCHEMA capture_partitions_2 RENAME TO capture_partitions_3;
UPDATE capture_partitions_3.pf SET v = 'elsewhere';
SELECT mismatches('p');
DROP TABLE capture_partitions_3.pf;
DROP SCHEMA capture_partitions_3;
ALTER TABLE "P a" RENAME TO pa;
SELECT kind, detail FROM states OFFSET 16;
\set VERBOSITY terse
SELECT mismatches('p');
\set VERBOSITY default
-- what cannot be: a partition alone; attaching a table that is tracked by itself
SELECT audit_log.enable('pa');
SELECT audit_log.enable('pc');
SELECT audit_log.disable('pa');
SELECT audit_log.pause('pa', 'why not');
CREATE TABLE px (LIKE p);
SELECT audit_log.enable('px');
INSERT INTO px VALUES (1, 'x');
ALTER TABLE p ATTACH PARTITION px FOR VALUES IN ('x');
CREATE TABLE untracked (LIKE p) PARTITION BY LIST (k);
ALTER TABLE untracked ATTACH PARTITION px DEFAULT;
SELECT audit_log.disable('px');
ALTER TABLE p ATTACH PARTITION px FOR VALUES IN ('x');
INSERT INTO px VALUES (2, 'x');
SELECT DISTINCT "table" FROM log WHERE changes ->> 'k' = 'x' ORDER BY 1;
-- disable takes all triggers away, everywhere
SELECT audit_log.disable('p');
SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
 WHERE relnamespace = 'capture_partitions'::regnamespace AND NOT tgisinternal;

-- ordinary inheritance children are tables of their own
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
SELECT audit_log.enable('parent');
SELECT count(*) AS seen FROM log \gset
INSERT INTO child VALUES (1);
INSERT INTO parent VALUES (2);
UPDATE parent SET id = id + 10;
DELETE FROM ONLY parent;
SELECT * FROM log OFFSET :seen;

SET client_min_messages = warning;
DROP SCHEMA capture_partitions CASCADE;
