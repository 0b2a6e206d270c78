-- Functions in a condition that do more than they should: they change the table itself, or roll
-- back a part of the transaction.
CREATE SCHEMA capture_conditions;
SET search_path = capture_conditions, public;
SET client_min_messages = warning;

-- the condition is evaluated for the row 11 while it is for row 1, whose 5 waits on the left
CREATE TABLE t (id int PRIMARY KEY, x int);
CREATE FUNCTION five(i int) RETURNS int LANGUAGE plpgsql AS $$
  BEGIN
    IF i < 10 THEN
      INSERT INTO t VALUES (i + 10, CASE WHEN i % 2 = 0 THEN 5 ELSE 999 END);
    END IF;
    RETURN 5;
  END $$;
SELECT audit_log.enable('t', condition => 'NEW.x = five(NEW.id)');
INSERT INTO t VALUES (1, 5);
INSERT INTO t VALUES (2, 999);
INSERT INTO t VALUES (3, 5), (4, 5);
SELECT record_id, changes FROM audit_log.audit_logs WHERE relation = 't'::regclass ORDER BY record_id::int;

-- what the first change of a table registers does not go with what the condition rolls back
CREATE TABLE first (id int PRIMARY KEY);
CREATE FUNCTION tries() RETURNS boolean LANGUAGE plpgsql AS $$
  BEGIN
    PERFORM 1 / 0;
  EXCEPTION WHEN division_by_zero THEN
    RETURN true;
  END $$;
CREATE TRIGGER by_hand AFTER INSERT OR UPDATE OR DELETE ON first FOR EACH ROW
  EXECUTE FUNCTION audit_log.capture('condition=capture_conditions.tries()');
INSERT INTO first VALUES (1);
INSERT INTO first VALUES (2), (3);
SELECT record_id, action_type FROM audit_log.audit_logs WHERE relation = 'first'::regclass ORDER BY id;
SELECT count(*) AS "of no table" FROM audit_log.change WHERE table_id = 0;

-- nor is a row that waits to be told moved from deleted
CREATE TABLE p (id int, k int) PARTITION BY LIST (k);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON p2 FOR EACH ROW WHEN (NEW.id = 1) EXECUTE FUNCTION refuse();
INSERT INTO p VALUES (1, 1), (2, 1), (3, 1);
CREATE TRIGGER by_hand AFTER INSERT OR UPDATE OR DELETE ON p FOR EACH ROW
  EXECUTE FUNCTION audit_log.capture('condition=capture_conditions.tries()');
UPDATE p SET k = 2;
SELECT action_type, changes FROM audit_log.audit_logs WHERE relation = 'p'::regclass ORDER BY command, changes::text;

DROP SCHEMA capture_conditions CASCADE;
