-- What is rolled back, by a savepoint or an exception block, leaves nothing;
-- what is not, stays, under a transaction row that is there.
-- edge cases 10, 11, 40
CREATE SCHEMA capture_savepoints;
SET search_path = capture_savepoints;
CREATE VIEW log AS
  SELECT table_name AS "table", action_type AS action, record_id AS id, old_record_id AS old, changes
    FROM audit_log.audit_logs WHERE table_schema = 'capture_savepoints' ORDER BY audit_logs.id;
CREATE FUNCTION mismatches(target regclass) RETURNS bigint LANGUAGE plpgsql AS $$
  DECLARE n bigint;
  BEGIN
    EXECUTE format('WITH r AS MATERIALIZED (SELECT whole_row AS x FROM audit_log.rebuild(NULL::%1$s) whole_row),
      t AS MATERIALIZED (SELECT whole_row AS x FROM %1$s whole_row)
      SELECT count(*) FROM (SELECT x FROM r UNION ALL SELECT x FROM t) u
       WHERE (SELECT count(*) FROM r WHERE r.x *= u.x) <> (SELECT count(*) FROM t WHERE t.x *= u.x)', target) INTO n;
    RETURN n;
  END $$;
CREATE TABLE t (id int PRIMARY KEY, v text UNIQUE);
SELECT audit_log.enable('t');
-- the transaction row itself is made in what is rolled back
BEGIN;
SAVEPOINT a;
INSERT INTO t VALUES (1, 'gone');
ROLLBACK TO a;
INSERT INTO t VALUES (2, 'two');
SAVEPOINT b;
INSERT INTO t VALUES (3, 'three');
SAVEPOINT c;
INSERT INTO t VALUES (4, 'gone');
ROLLBACK TO c;
RELEASE b;
ROLLBACK TO a;
INSERT INTO t VALUES (5, 'five');
SAVEPOINT d;
SELECT audit_log.set_context('inner');
INSERT INTO t VALUES (6, 'six by inner');
SAVEPOINT e;
INSERT INTO t VALUES (7, 'seven by inner');
RELEASE e;
INSERT INTO t VALUES (8, 'eight by inner');
ROLLBACK TO d;
INSERT INTO t VALUES (9, 'nine by nobody');
COMMIT;
SELECT user_id, changes FROM audit_log.audit_logs WHERE table_schema = 'capture_savepoints' ORDER BY id;
SELECT count(*) AS rows, count(*) FILTER (WHERE xid IS NULL) AS lost FROM (SELECT DISTINCT transaction_id
  FROM audit_log.audit_logs WHERE table_schema = 'capture_savepoints') l LEFT JOIN audit_log.transaction t ON t.id = transaction_id;
SELECT mismatches('t');

-- a statement that fails half way, inside an exception block that goes on
DO $$
BEGIN
  INSERT INTO t VALUES (20, 'twenty');
  BEGIN
    INSERT INTO t VALUES (21, 'gone');
    INSERT INTO t VALUES (22, 'gone too'), (20, 'again');
  EXCEPTION WHEN unique_violation THEN
    INSERT INTO t VALUES (23, 'handled');
  END;
  BEGIN
    UPDATE t SET v = 'kept' WHERE id = 20;
    BEGIN
      DELETE FROM t;
      RAISE division_by_zero;
    EXCEPTION WHEN division_by_zero THEN NULL;
    END;
    INSERT INTO t VALUES (24, 'after');
  EXCEPTION WHEN others THEN RAISE;
  END;
END $$;
SELECT * FROM log OFFSET 2;
SELECT mismatches('t');

-- exception blocks in a trigger: in the middle of the outer statement's rows
CREATE TABLE u (id int PRIMARY KEY, v int);
SELECT audit_log.enable('u');
CREATE FUNCTION try_t() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    BEGIN
      INSERT INTO t VALUES (new.id, 'from u ' || new.id);
      INSERT INTO u VALUES (new.id + 100, 0);
      PERFORM 1 / (new.v % 2);
    EXCEPTION WHEN division_by_zero THEN
      INSERT INTO t VALUES (new.id + 500, 'even ' || new.v);
    END;
    RETURN NULL;
  END $$;
CREATE TRIGGER aa AFTER INSERT ON u FOR EACH ROW WHEN (new.v > 0) EXECUTE FUNCTION try_t();
CREATE TRIGGER zz AFTER INSERT ON u FOR EACH ROW WHEN (new.v = 4) EXECUTE FUNCTION try_t();
SELECT count(*) AS seen FROM log \gset
INSERT INTO u VALUES (31, 1), (32, 2), (33, 3);
SELECT * FROM log OFFSET :seen;
SELECT mismatches('t'), mismatches('u');
-- the second trigger's block fails for good: nothing of the statement stays
INSERT INTO u VALUES (41, 1), (44, 4);
SELECT mismatches('t'), mismatches('u');
SELECT count(*) FROM log WHERE id LIKE '%4_';

-- a savepoint between FETCHes of a query that writes
CREATE FUNCTION put(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (n, n::text); RETURN n; END $$;
BEGIN;
DECLARE c CURSOR FOR SELECT put(n) FROM generate_series(50, 53) n;
FETCH c;
SAVEPOINT a;
FETCH c;
ROLLBACK TO a;
FETCH c;
COMMIT;
SELECT mismatches('t');
-- a released level's buffer belongs to its parent; one rolled back two levels down does not
BEGIN;
SAVEPOINT a;
INSERT INTO t SELECT n, n::text FROM generate_series(1000, 1999) n;
SAVEPOINT b;
INSERT INTO t SELECT n, n::text FROM generate_series(2000, 2999) n;
SAVEPOINT c;
UPDATE t SET v = v || '!' WHERE id BETWEEN 1500 AND 2500;
RELEASE c;
ROLLBACK TO b;
DELETE FROM t WHERE id BETWEEN 1900 AND 1999;
RELEASE a;
COMMIT;
SELECT count(*) AS same FROM t JOIN audit_log.rebuild(NULL::t) r ON t *= r;
SELECT count(*) AS other FROM t FULL JOIN audit_log.rebuild(NULL::t) r USING (id) WHERE t.v IS DISTINCT FROM r.v;
DELETE FROM t WHERE id >= 1000;
BEGIN;
INSERT INTO t VALUES (60, 'rolled back as a whole');
ROLLBACK;
SELECT count(*) FROM log WHERE id = '60';
-- procedures that commit inside
CREATE PROCEDURE in_steps() LANGUAGE plpgsql AS $$
  BEGIN
    FOR n IN 70 .. 73 LOOP
      INSERT INTO t VALUES (n, n::text);
      IF n % 2 = 0 THEN COMMIT; ELSE ROLLBACK; END IF;
    END LOOP;
  END $$;
CALL in_steps();
SELECT id FROM log WHERE id LIKE '7_';
SELECT mismatches('t');

SET client_min_messages = warning;
DROP SCHEMA capture_savepoints CASCADE;
