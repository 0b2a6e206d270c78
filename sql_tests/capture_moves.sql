-- A row that moves from one partition to another is one UPDATE, whatever
-- stands between its DELETE and its INSERT.
-- edge cases 5, 18, 24, 25, 131
CREATE SCHEMA capture_moves;
SET search_path = capture_moves;
CREATE VIEW log AS
  SELECT table_name AS "table", action_type AS action, record_id AS id, old_record_id AS old, changes
    FROM audit_log.audit_logs WHERE table_schema = 'capture_moves' ORDER BY audit_logs.id;
CREATE FUNCTION mismatches(target regclass) RETURNS bigint LANGUAGE plpgsql AS $$
  DECLARE n bigint;
  BEGIN
    EXECUTE format('WITH r AS MATERIALIZED (SELECT whole_row AS x FROM audit_log.rebuild(NULL::%1$s) whole_row),
      t AS MATERIALIZED (SELECT whole_row AS x FROM %1$s whole_row)
      SELECT count(*) FROM (SELECT x FROM r UNION ALL SELECT x FROM t) u
       WHERE (SELECT count(*) FROM r WHERE r.x *= u.x) <> (SELECT count(*) FROM t WHERE t.x *= u.x)', target) INTO n;
    RETURN n;
  END $$;
CREATE TABLE m (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10);
CREATE TABLE m2 (v text, junk int, k int NOT NULL, id int NOT NULL);
ALTER TABLE m2 DROP junk;
ALTER TABLE m ATTACH PARTITION m2 FOR VALUES FROM (10) TO (20);
CREATE TABLE m3 PARTITION OF m FOR VALUES FROM (20) TO (40) PARTITION BY RANGE (k);
CREATE TABLE m31 PARTITION OF m3 FOR VALUES FROM (20) TO (30);
CREATE TABLE m32 PARTITION OF m3 FOR VALUES FROM (30) TO (40);
SELECT audit_log.enable('m');
INSERT INTO m SELECT n, n, 'row ' || n FROM generate_series(1, 4) n;
SELECT count(*) AS seen FROM log \gset
UPDATE m SET k = k + 10 WHERE id <= 2;
UPDATE m SET k = 25, v = 'moved' WHERE id = 1;
UPDATE m3 SET k = 35 WHERE k = 25;
UPDATE m SET k = k + 1;         -- some stay, some move
MERGE INTO m USING (VALUES (1, 5), (2, 22), (9, 9)) s (id, k) ON m.id = s.id
  WHEN MATCHED THEN UPDATE SET k = s.k
  WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.k, 'new');
SELECT * FROM log OFFSET :seen;
SELECT mismatches('m');

-- INSERT suppressed by a BEFORE trigger of the target: the row is deleted
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER b BEFORE INSERT ON m2 FOR EACH ROW WHEN (new.id = 3) EXECUTE FUNCTION nothing();
SELECT count(*) AS seen FROM log \gset
UPDATE m SET k = 15;
SELECT * FROM (SELECT * FROM log OFFSET :seen) l ORDER BY id;
SELECT mismatches('m');
-- the same of the only row; and as the last thing before a savepoint is rolled back
INSERT INTO m VALUES (3, 3, 'again');
BEGIN;
SAVEPOINT a;
UPDATE m SET k = 15 WHERE id = 3;
ROLLBACK TO a;
UPDATE m SET k = 16 WHERE id = 3;
COMMIT;
SELECT * FROM log OFFSET :seen + 5;
SELECT mismatches('m');
-- DELETE suppressed: nothing happens at all
CREATE TRIGGER d BEFORE DELETE ON m2 FOR EACH ROW WHEN (old.id = 4) EXECUTE FUNCTION nothing();
UPDATE m SET k = 5 WHERE id = 4;
SELECT count(*) - :seen - 7 AS captured FROM log;
SELECT mismatches('m');
DROP TRIGGER b ON m2;
DROP TRIGGER d ON m2;

-- AFTER triggers of the user between the two halves: they write other rows,
-- move others, and move the very row on
CREATE TABLE note (id serial PRIMARY KEY, v text);
SELECT audit_log.enable('note');
TRUNCATE m;
INSERT INTO m VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c');
CREATE FUNCTION after_half() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    INSERT INTO note (v) VALUES (TG_OP || ' ' || TG_TABLE_NAME);
    IF TG_OP = 'DELETE' AND old.id = 1 THEN
      UPDATE m SET k = k + 10 WHERE id = 2 AND k < 10;
      DELETE FROM m WHERE id = 3;
    ELSIF TG_OP = 'INSERT' AND new.id = 1 AND new.k BETWEEN 10 AND 19 THEN
      UPDATE m SET k = k + 10 WHERE id = 1;
    END IF;
    RETURN NULL;
  END $$;
CREATE TRIGGER aa AFTER INSERT OR DELETE ON m FOR EACH ROW EXECUTE FUNCTION after_half();
CREATE TRIGGER zz AFTER INSERT OR DELETE ON m FOR EACH ROW EXECUTE FUNCTION after_half();
SELECT count(*) AS seen FROM log \gset
UPDATE m SET k = k + 10 WHERE id = 1;
SELECT * FROM (SELECT * FROM log OFFSET :seen) l WHERE "table" = 'm';
SELECT mismatches('m'), mismatches('note');
DROP TRIGGER aa ON m;
DROP TRIGGER zz ON m;

-- an exception block round a move; the table's foreign key both ways
CREATE TABLE owner (id int PRIMARY KEY);
INSERT INTO owner VALUES (1), (2), (3);
ALTER TABLE m ADD FOREIGN KEY (id) REFERENCES owner;
CREATE TABLE of_m (id int PRIMARY KEY, m_id int, m_k int, FOREIGN KEY (m_id, m_k) REFERENCES m ON UPDATE CASCADE ON DELETE CASCADE);
SELECT audit_log.enable('of_m');
INSERT INTO of_m SELECT id, id, k FROM m;
SELECT count(*) AS seen FROM log \gset
DO $$
BEGIN
  BEGIN
    UPDATE m SET k = 39 - k;
    RAISE division_by_zero;
  EXCEPTION WHEN division_by_zero THEN NULL;
  END;
  UPDATE m SET k = 5 + id;
END $$;
SELECT * FROM (SELECT * FROM log OFFSET :seen) l ORDER BY "table", id;
SELECT mismatches('m'), mismatches('of_m');
DROP TABLE of_m;

-- without a key, with the partition key left out, and with a condition
CREATE TABLE n (k int, v text, secret text) PARTITION BY LIST (k);
CREATE TABLE n1 PARTITION OF n FOR VALUES IN (1);
CREATE TABLE n2 PARTITION OF n FOR VALUES IN (2);
SELECT audit_log.enable('n');
INSERT INTO n VALUES (1, 'a'), (1, 'a'), (2, 'a');
UPDATE n SET k = 2 WHERE k = 1;
SELECT * FROM log WHERE "table" = 'n';
SELECT mismatches('n');
SELECT audit_log.enable('n', exclude => '{k,secret}');
UPDATE n SET k = 1;                     -- nothing tracked changes: no trace
UPDATE n SET secret = 'x';
UPDATE n SET k = 2, v = 'b';
SELECT * FROM log WHERE "table" = 'n' OFFSET 5;
SELECT audit_log.enable('n', exclude => '{}', condition => 'new.k = 1 and old.k = 2');
UPDATE n SET k = 2, v = 'c';
UPDATE n SET k = 1, v = 'd';
SELECT * FROM log WHERE "table" = 'n' OFFSET 8;
SELECT audit_log.enable('n', condition => '', actions => '{insert,delete}');
UPDATE n SET k = 2, v = 'e';            -- an UPDATE, so not wanted
SELECT * FROM log WHERE "table" = 'n' OFFSET 11;

-- who moves a row is told by its new state: nobody else is noted or asked for
CREATE TABLE u (id int, k int, by text) PARTITION BY LIST (k);
CREATE TABLE u1 PARTITION OF u FOR VALUES IN (1);
CREATE TABLE u2 PARTITION OF u FOR VALUES IN (2);
SELECT audit_log.enable('u', user_column => 'by', require => '{user_id}', exclude => '{k}');
INSERT INTO u VALUES (1, 1, 'ann'), (2, 1, 'ann');
BEGIN;
UPDATE u SET k = 2, by = 'bob';
SELECT t.user_id, count(*) AS changes FROM audit_log.transaction t LEFT JOIN audit_log.change c ON c.transaction_id = t.id
 WHERE t.xid = pg_current_xact_id() GROUP BY t.id;
COMMIT;
BEGIN;
UPDATE u SET k = 1;
SELECT count(*) AS "no trace" FROM audit_log.transaction WHERE xid = pg_current_xact_id();
COMMIT;
-- that nobody deletes it is found when it turns out to be deleted
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON u2 FOR EACH ROW EXECUTE FUNCTION refuse();
UPDATE u SET k = 2 WHERE id = 1;
BEGIN;
SELECT audit_log.set_context('carl');
UPDATE u SET k = 2 WHERE id = 1;
COMMIT;
SELECT t.user_id, c.action_type, c.changes FROM audit_log.change c JOIN audit_log.transaction t ON t.id = c.transaction_id
 WHERE c.table_id = (SELECT id FROM audit_log.tracked_table WHERE table_schema = 'capture_moves' AND table_name = 'u') ORDER BY c.id;

SET client_min_messages = warning;
DROP SCHEMA capture_moves CASCADE;
