-- Triggers of the user's before, beside and after capture: nested, recursive,
-- changing or suppressing the row.  Within a transaction (command, id) orders
-- the changes of a record; id alone does not.
-- edge cases 5, 9, 38, 115
CREATE SCHEMA capture_triggers;
SET search_path = capture_triggers;
CREATE VIEW log AS
  SELECT table_name AS "table", action_type AS action, record_id AS id, old_record_id AS old, changes
    FROM audit_log.audit_logs WHERE table_schema = 'capture_triggers' ORDER BY audit_logs.id;
CREATE FUNCTION mismatches(target regclass) RETURNS bigint LANGUAGE plpgsql AS $$
  DECLARE n bigint;
  BEGIN
    EXECUTE format('WITH r AS MATERIALIZED (SELECT whole_row AS x FROM audit_log.rebuild(NULL::%1$s) whole_row),
      t AS MATERIALIZED (SELECT whole_row AS x FROM %1$s whole_row)
      SELECT count(*) FROM (SELECT x FROM r UNION ALL SELECT x FROM t) u
       WHERE (SELECT count(*) FROM r WHERE r.x *= u.x) <> (SELECT count(*) FROM t WHERE t.x *= u.x)', target) INTO n;
    RETURN n;
  END $$;
-- the changes of one table replayed in either order
CREATE FUNCTION replay(target text, by_command boolean) RETURNS TABLE (id text, "row" jsonb) LANGUAGE plpgsql AS $$
  DECLARE
    c record;
    state jsonb := '{}';
  BEGIN
    FOR c IN SELECT l.*, max(l.id) OVER (PARTITION BY t.xid) AS at FROM audit_log.audit_logs l
               JOIN audit_log.transaction t ON t.id = l.transaction_id
              WHERE table_schema = 'capture_triggers' AND table_name = target
              ORDER BY at, CASE WHEN by_command THEN l.command END, l.id LOOP
      state := CASE c.action_type
        WHEN 'INSERT' THEN state || jsonb_build_object(c.record_id, c.changes)
        WHEN 'DELETE' THEN state - c.record_id
        ELSE state || jsonb_build_object(c.record_id, audit_log.jsonb_patch(state -> c.record_id, c.changes)) END;
    END LOOP;
    RETURN QUERY SELECT * FROM jsonb_each(state) ORDER BY 1;
  END $$;

-- BEFORE triggers: what is logged is what is stored
CREATE TABLE b (id int PRIMARY KEY, v text);
CREATE FUNCTION before_b() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF TG_OP = 'DELETE' THEN
      RETURN CASE WHEN old.v = 'keep' THEN NULL ELSE old END;
    END IF;
    IF new.v = 'skip' THEN RETURN NULL; END IF;
    new.v := upper(new.v);
    RETURN new;
  END $$;
CREATE TRIGGER zz_last BEFORE INSERT OR UPDATE OR DELETE ON b FOR EACH ROW EXECUTE FUNCTION before_b();
SELECT audit_log.enable('b');
INSERT INTO b VALUES (1, 'a'), (2, 'skip'), (3, 'b');
UPDATE b SET v = 'skip' WHERE id = 1;
UPDATE b SET v = 'a' WHERE id = 1;      -- made the same again: no trace
INSERT INTO b VALUES (1, 'c') ON CONFLICT (id) DO UPDATE SET v = 'd';
INSERT INTO b VALUES (1, 'skip') ON CONFLICT (id) DO UPDATE SET v = 'e';
ALTER TABLE b DISABLE TRIGGER zz_last;
UPDATE b SET v = 'keep' WHERE id = 3;
ALTER TABLE b ENABLE TRIGGER zz_last;
DELETE FROM b;
SELECT * FROM log;
SELECT mismatches('b');

-- only one address is the default: the trigger's UPDATE is a later command,
-- but comes to capture before the statement that fired it
CREATE TABLE address (id int PRIMARY KEY, is_default boolean NOT NULL);
CREATE FUNCTION one_default() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    UPDATE address SET is_default = false WHERE is_default AND id <> new.id;
    RETURN NULL;
  END $$;
CREATE TRIGGER a_first AFTER INSERT OR UPDATE ON address FOR EACH ROW WHEN (new.is_default) EXECUTE FUNCTION one_default();
SELECT audit_log.enable('address');
INSERT INTO address VALUES (1, true);
INSERT INTO address VALUES (2, true);
INSERT INTO address VALUES (3, true);
UPDATE address SET is_default = true WHERE id IN (1, 2);
SELECT * FROM address ORDER BY id;
SELECT * FROM replay('address', true);
SELECT * FROM replay('address', false);
SELECT mismatches('address');

-- a recursive trigger that changes the row it was fired for
CREATE TABLE countdown (id int PRIMARY KEY, n int);
CREATE FUNCTION count_down() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN UPDATE countdown SET n = n - 1 WHERE id = new.id; RETURN NULL; END $$;
CREATE TRIGGER aa AFTER INSERT OR UPDATE ON countdown FOR EACH ROW WHEN (new.n > 0) EXECUTE FUNCTION count_down();
CREATE TRIGGER zz AFTER INSERT OR UPDATE ON countdown FOR EACH ROW WHEN (new.n = 5) EXECUTE FUNCTION count_down();
SELECT audit_log.enable('countdown');
INSERT INTO countdown VALUES (1, 3), (2, 5);
SELECT rank() OVER (PARTITION BY transaction_id ORDER BY command) AS command, record_id, changes
  FROM audit_log.audit_logs WHERE table_name = 'countdown' AND table_schema = 'capture_triggers' ORDER BY record_id, 1;
SELECT mismatches('countdown');

-- a row deleted by an AFTER trigger of its own INSERT, and put back by one of its DELETE
CREATE TABLE revenant (id int PRIMARY KEY, v int);
CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF TG_OP = 'INSERT' AND new.v < 0 THEN DELETE FROM revenant WHERE id = new.id;
    ELSIF TG_OP = 'DELETE' AND old.v > 0 THEN INSERT INTO revenant VALUES (old.id, old.v - 1);
    END IF;
    RETURN NULL;
  END $$;
CREATE TRIGGER aa AFTER INSERT OR DELETE ON revenant FOR EACH ROW EXECUTE FUNCTION die();
SELECT audit_log.enable('revenant');
INSERT INTO revenant VALUES (1, -1), (2, 2);
DELETE FROM revenant;
DELETE FROM revenant;
SELECT action, id, changes FROM log WHERE "table" = 'revenant';
SELECT * FROM revenant;
SELECT mismatches('revenant');
BEGIN;
DELETE FROM revenant;
INSERT INTO revenant VALUES (2, 7);
DELETE FROM revenant;
COMMIT;
SELECT * FROM revenant;
SELECT mismatches('revenant');

-- triggers that write other tables; statement triggers; a function fired by a BEFORE trigger
CREATE TABLE total (k text PRIMARY KEY, n int);
CREATE TABLE part (id int PRIMARY KEY, k text, n int);
SELECT audit_log.enable('total'), audit_log.enable('part');
CREATE FUNCTION sum_up() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    INSERT INTO total VALUES (coalesce(new.k, old.k), coalesce(new.n, 0) - coalesce(old.n, 0))
      ON CONFLICT (k) DO UPDATE SET n = total.n + excluded.n;
    RETURN CASE TG_OP WHEN 'DELETE' THEN old ELSE new END;
  END $$;
CREATE TRIGGER sums BEFORE INSERT OR UPDATE OR DELETE ON part FOR EACH ROW EXECUTE FUNCTION sum_up();
CREATE FUNCTION clean_up() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN DELETE FROM total WHERE n = 0; RETURN NULL; END $$;
CREATE TRIGGER clean AFTER DELETE ON part FOR EACH STATEMENT EXECUTE FUNCTION clean_up();
INSERT INTO part VALUES (1, 'a', 1), (2, 'a', 2), (3, 'b', 3);
UPDATE part SET n = n + 10 WHERE k = 'a';
DELETE FROM part WHERE id <> 1;
SELECT * FROM log WHERE "table" IN ('part', 'total');
SELECT mismatches('part'), mismatches('total');
-- an INSTEAD OF trigger of a view
CREATE VIEW parts AS SELECT * FROM part;
CREATE FUNCTION into_part() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN INSERT INTO part VALUES (new.id, new.k, new.n); RETURN new; END $$;
CREATE TRIGGER instead INSTEAD OF INSERT ON parts FOR EACH ROW EXECUTE FUNCTION into_part();
SELECT count(*) AS seen FROM log \gset
INSERT INTO parts VALUES (9, 'c', 9);
UPDATE parts SET n = 90 WHERE id = 9;
SELECT * FROM log OFFSET :seen;
SELECT mismatches('part'), mismatches('total');

SET client_min_messages = warning;
DROP SCHEMA capture_triggers CASCADE;
