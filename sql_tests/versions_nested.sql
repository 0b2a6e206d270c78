-- Statements inside statements: cascades, triggers and functions that change the
-- same record again, under another user, in blocks that are rolled back, and
-- that bring a deleted record back, into another partition too.
-- edge case 115
CREATE SCHEMA versions_nested;
SET search_path = versions_nested;
SET client_min_messages = warning;
CREATE TABLE t (id int PRIMARY KEY, v int);
CREATE TABLE child (id int PRIMARY KEY REFERENCES t ON DELETE CASCADE ON UPDATE CASCADE, n int);
DO $$ BEGIN PERFORM audit_log.enable('t', versioned => true); PERFORM audit_log.enable('child', versioned => true); END $$;
INSERT INTO t VALUES (1, 1), (2, 2);
INSERT INTO child VALUES (1, 1), (2, 2);
-- cascades of a key and of a deletion, in one transaction
BEGIN;
UPDATE t SET id = id + 10;
DELETE FROM t WHERE id = 11;
COMMIT;
SELECT id, v, operation_type AS op FROM t_version ORDER BY id, transaction_id;
SELECT id, n, operation_type AS op FROM child_version ORDER BY id, transaction_id;
-- a trigger behind ours, in a block that stays or is rolled back, partly under another user
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.v < 100 THEN
    BEGIN
      UPDATE t SET v = NEW.v + 100 WHERE id = NEW.id;
      PERFORM audit_log.set_context('inner');
      UPDATE t SET v = NEW.v + 200 WHERE id = NEW.id;
      IF NEW.v = 7 THEN RAISE division_by_zero; END IF;
    EXCEPTION WHEN division_by_zero THEN NULL;
    END;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER z AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION again();
UPDATE t SET v = 5 WHERE id = 12;
UPDATE t SET v = 7 WHERE id = 12;
SELECT v.v, v.operation_type AS op, x.user_id, v.end_transaction_id IS NULL AS open FROM t_version v JOIN audit_log.transaction x ON x.id = v.transaction_id
 WHERE v.id = 12 ORDER BY v.transaction_id;
-- the same before ours: what it overtook makes no version
DROP TRIGGER z ON t;
CREATE TRIGGER a AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION again();
UPDATE t SET v = 6 WHERE id = 12;
SELECT v.v, v.operation_type AS op, x.user_id FROM t_version v JOIN audit_log.transaction x ON x.id = v.transaction_id
 WHERE v.id = 12 AND v.v > 205 ORDER BY v.transaction_id;
SELECT * FROM t;
DROP TRIGGER a ON t;
-- a deleted record that a trigger brings back, deletes again, brings back
CREATE FUNCTION back() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('versions_nested.how') = '' THEN RETURN NULL; END IF;
  INSERT INTO t VALUES (OLD.id, 1000);
  IF current_setting('versions_nested.how') = 'gone' THEN
    PERFORM set_config('versions_nested.how', '', true);
    UPDATE t SET v = 1001 WHERE id = OLD.id;
    DELETE FROM t WHERE id = OLD.id;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER a AFTER DELETE ON t FOR EACH ROW EXECUTE FUNCTION back();
SET versions_nested.how = 'back';
DELETE FROM t WHERE id = 12;
SELECT v, operation_type AS op, end_transaction_id IS NULL AS open FROM t_version WHERE id = 12 ORDER BY transaction_id DESC LIMIT 1;
SET versions_nested.how = 'gone';
DELETE FROM t WHERE id = 12;
SELECT v, operation_type AS op, end_transaction_id IS NULL AS open FROM t_version WHERE id = 12 ORDER BY transaction_id DESC LIMIT 1;
SELECT count(*) FROM t WHERE id = 12;
DROP TRIGGER a ON t;
-- into another partition
CREATE TABLE p (id int, part int DEFAULT 1, v int, UNIQUE (id, part)) PARTITION BY LIST (part);
ALTER TABLE p ALTER id SET NOT NULL, ALTER part SET NOT NULL;
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1, 2);
CREATE TABLE p2 PARTITION OF p FOR VALUES IN (3);
DO $$ BEGIN PERFORM audit_log.enable('p', versioned => true); END $$;
CREATE FUNCTION back_p() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO p VALUES (OLD.id, OLD.part, 1000);
  INSERT INTO p VALUES (OLD.id, 3, 1000) ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$;
CREATE TRIGGER a AFTER DELETE ON p FOR EACH ROW EXECUTE FUNCTION back_p();
INSERT INTO p VALUES (1, 1, 1), (2, 2, 2);
DELETE FROM p WHERE part < 3;
SELECT id, part, v, operation_type AS op FROM p_version ORDER BY id, part, transaction_id;
-- a function inside the statement changes the record before, or after, it does
CREATE FUNCTION raise_it(record int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN UPDATE t SET v = v + 1 WHERE id = record; RETURN 1; END $$;
INSERT INTO t VALUES (20, 0), (21, 0);
SELECT v + raise_it(20) AS v FROM t WHERE id = 20;
UPDATE t SET v = v + raise_it(21) WHERE id = 20;
UPDATE t SET v = v + 10 + raise_it(21) WHERE id IN (20, 21) AND raise_it(20) = 1;
SELECT id, v, operation_type AS op FROM t_version WHERE id IN (20, 21) ORDER BY id, transaction_id;
SELECT id, v FROM t ORDER BY id;
-- an inner UPDATE of nothing that is kept overtakes nothing
CREATE TABLE touched (id int PRIMARY KEY, v int, at int);
DO $$ BEGIN PERFORM audit_log.enable('touched', exclude => '{at}', versioned => true); END $$;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF pg_trigger_depth() > 1 THEN RETURN NULL; END IF;
  UPDATE touched SET at = 1 WHERE id = NEW.id;
  UPDATE touched SET v = v WHERE id = NEW.id;
  BEGIN
    UPDATE touched SET v = -1 WHERE id = NEW.id;
    RAISE division_by_zero;
  EXCEPTION WHEN division_by_zero THEN NULL;
  END;
  UPDATE touched SET v = v + 100 WHERE id = NEW.id AND id = 3;
  RETURN NULL;
END $$;
CREATE TRIGGER a AFTER INSERT OR UPDATE ON touched FOR EACH ROW EXECUTE FUNCTION touch();
INSERT INTO touched VALUES (1, 1), (2, 2), (3, 3);
UPDATE touched SET v = v + 10 WHERE id <> 2;
UPDATE touched SET id = 20 WHERE id = 2;
SELECT id, v, operation_type AS op, end_transaction_id IS NULL AS open FROM touched_version ORDER BY id, transaction_id;
-- an index of a version table whose function changes rows while versions are written
CREATE TABLE outer_rows (id int PRIMARY KEY, v int);
CREATE TABLE inner_rows (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int);
DO $$ BEGIN PERFORM audit_log.enable('outer_rows', versioned => true); PERFORM audit_log.enable('inner_rows', versioned => true); END $$;
CREATE FUNCTION add_inner(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO versions_nested.inner_rows (v) VALUES ($1); RETURN $1; END $$;
CREATE FUNCTION not_immutable(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN versions_nested.add_inner($1); END $$;
CREATE INDEX ON outer_rows_version (not_immutable(v));
INSERT INTO outer_rows SELECT g, g FROM generate_series(1, 40) g;
SELECT (SELECT count(*) FROM outer_rows_version) AS outer_versions, count(*) AS inner_rows,
       (SELECT count(DISTINCT id) FROM inner_rows_version) AS inner_records FROM inner_rows;
SELECT * FROM audit_log.check() WHERE relation LIKE 'versions_nested%';
-- one whose function changes the very records that are written, also when the key's index is the newer of both
CREATE TABLE own_rows (id int PRIMARY KEY, v int);
DO $$ BEGIN PERFORM audit_log.enable('own_rows', versioned => true); END $$;
INSERT INTO own_rows SELECT g, 0 FROM generate_series(1, 1500) g;
CREATE FUNCTION change_next(record int, value int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
  IF value % 10 = 1 AND record % 100 < 3 THEN
    PERFORM audit_log.set_context('inner');
    UPDATE versions_nested.own_rows SET v = value + 1 WHERE id IN (record - 1, record, record + 1) AND v = value;
    PERFORM audit_log.set_context('outer');
  END IF;
  RETURN value;
END $$;
CREATE FUNCTION not_immutable(int, int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN versions_nested.change_next($1, $2); END $$;
CREATE INDEX own_rows_evaluated ON own_rows_version (not_immutable(id, v));
UPDATE own_rows SET v = 11;
REINDEX INDEX CONCURRENTLY own_rows_version_pkey;
UPDATE own_rows SET v = 21;
SELECT t.*, x.v FROM own_rows t LEFT JOIN own_rows_version x ON x.id = t.id AND x.end_transaction_id IS NULL WHERE t.v IS DISTINCT FROM x.v;
SELECT v.v, x.user_id, count(*) FROM own_rows_version v JOIN audit_log.transaction x ON x.id = v.transaction_id WHERE v.v % 10 = 2 GROUP BY 1, 2 ORDER BY 1, 2;
SELECT * FROM audit_log.check() WHERE relation LIKE 'versions_nested%';
DROP SCHEMA versions_nested CASCADE;
