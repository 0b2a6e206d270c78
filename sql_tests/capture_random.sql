-- Random changes with savepoints, exception blocks and triggers that change
-- more rows; then each table rebuilt from its log, image by image.
-- edge cases 7, 8, 10, 18, 19, 23, 24, 112, 115
SET client_min_messages = warning;
CREATE SCHEMA capture_random;
SET search_path = capture_random;
CREATE VIEW log AS
  SELECT table_name AS "table", action_type AS action, record_id AS id, old_record_id AS old, changes
    FROM audit_log.audit_logs WHERE table_schema = 'capture_random' ORDER BY audit_logs.id;
CREATE FUNCTION mismatches(target regclass) RETURNS bigint LANGUAGE plpgsql AS $$
  DECLARE n bigint;
  BEGIN
    EXECUTE format('WITH r AS MATERIALIZED (SELECT whole_row AS x FROM audit_log.rebuild(NULL::%1$s) whole_row),
      t AS MATERIALIZED (SELECT whole_row AS x FROM %1$s whole_row)
      SELECT count(*) FROM (SELECT x FROM r UNION ALL SELECT x FROM t) u
       WHERE (SELECT count(*) FROM r WHERE r.x *= u.x) <> (SELECT count(*) FROM t WHERE t.x *= u.x)', target) INTO n;
    RETURN n;
  END $$;
-- a single key; a key of two columns of which one may be swapped; none; partitions
CREATE TABLE keyed (id int PRIMARY KEY, grp int, v text, doc jsonb);
CREATE TABLE composite (id int, grp int, v text, doc jsonb, PRIMARY KEY (grp, id));
CREATE TABLE keyless (id int, grp int, v text, doc jsonb);
CREATE TABLE parted (id int, grp int, v text, doc jsonb, PRIMARY KEY (id, grp)) PARTITION BY LIST (grp);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (0, 1);
CREATE TABLE parted_2 (doc jsonb, x int, v text, grp int NOT NULL, id int NOT NULL);
ALTER TABLE parted_2 DROP x;
ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES IN (2, 3);
CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, grp int, v text, doc jsonb);
CREATE FUNCTION spread() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF pg_trigger_depth() < 3 AND random() < 0.3 THEN
      BEGIN
        EXECUTE format('UPDATE %s SET v = v || %L WHERE id = $1', TG_ARGV[0], pg_trigger_depth()) USING new.id + floor(random() * 3)::int - 1;
        IF random() < 0.3 THEN RAISE division_by_zero; END IF;
        IF random() < 0.2 THEN
          EXECUTE format('DELETE FROM %s WHERE id = $1', TG_ARGV[0]) USING new.id;
        END IF;
      EXCEPTION WHEN division_by_zero THEN NULL;
      END;
    END IF;
    RETURN NULL;
  END $$;
DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY '{keyed,composite,keyless,parted,deferred}'::text[] LOOP
    EXECUTE format('CREATE TRIGGER aa AFTER INSERT OR UPDATE ON %I FOR EACH ROW EXECUTE FUNCTION spread(%L)', t, t);
    EXECUTE format('CREATE TRIGGER zz AFTER INSERT OR UPDATE ON %I FOR EACH ROW EXECUTE FUNCTION spread(%L)', t, t);
    PERFORM audit_log.enable(t::regclass);
  END LOOP;
END $$;
CREATE FUNCTION some_doc() RETURNS jsonb LANGUAGE sql VOLATILE AS $$
  SELECT CASE floor(random() * 7)
    WHEN 0 THEN NULL WHEN 1 THEN 'null' WHEN 2 THEN to_jsonb(floor(random() * 3)) WHEN 3 THEN '[1, {"a": null}]'
    WHEN 4 THEN '{"$pg": "x"}' ELSE jsonb_build_object('a', floor(random() * 2), 'b', jsonb_build_object('c', floor(random() * 2), chr(97 + floor(random() * 3)::int), null)) END $$;
CREATE FUNCTION one(t text) RETURNS void LANGUAGE plpgsql AS $$
  BEGIN
    CASE floor(random() * 12)
      WHEN 0, 1, 2 THEN EXECUTE format('INSERT INTO %I SELECT n + $1, floor(random() * 4), chr(97 + n), some_doc() FROM generate_series(1, 3) n %s', t, CASE WHEN t <> 'deferred' THEN 'ON CONFLICT DO NOTHING' END) USING floor(random() * 20)::int;
      WHEN 3, 4 THEN EXECUTE format('UPDATE %I SET doc = some_doc() WHERE id %% 5 = $1', t) USING floor(random() * 5)::int;
      WHEN 5 THEN EXECUTE format('UPDATE %I SET grp = floor(random() * 4) WHERE id = $1', t) USING floor(random() * 24)::int;
      WHEN 6 THEN EXECUTE format('UPDATE %I SET id = id + 1 WHERE id = $1', t) USING floor(random() * 24)::int;
      WHEN 7 THEN EXECUTE format('UPDATE %I SET id = 24 - id WHERE id BETWEEN 11 AND 13', t);
      WHEN 8 THEN EXECUTE format('DELETE FROM %I WHERE id = $1', t) USING floor(random() * 24)::int;
      WHEN 9 THEN EXECUTE format('WITH gone AS (DELETE FROM %1$I WHERE id < 4 RETURNING *) INSERT INTO %1$I SELECT id + 30, grp, v, doc FROM gone', t);
      WHEN 10 THEN IF random() < 0.1 THEN EXECUTE format('TRUNCATE %I', t); END IF;
      ELSE EXECUTE format('MERGE INTO %I m USING (VALUES (5, 0), (6, 1), (40, 2)) s (id, grp) ON m.id = s.id AND m.grp = s.grp
        WHEN MATCHED AND m.v < ''d'' THEN DELETE WHEN MATCHED THEN UPDATE SET v = v || ''m''
        WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.grp, ''e'', some_doc())', t);
    END CASE;
  END $$;
CREATE FUNCTION several(t text, n int, depth int) RETURNS void LANGUAGE plpgsql AS $$
  BEGIN
    FOR i IN 1 .. n LOOP
      IF depth > 0 AND random() < 0.25 THEN
        BEGIN
          IF random() < 0.2 THEN PERFORM audit_log.set_context(floor(random() * 3)::text); END IF;
          PERFORM several(t, 3, depth - 1);
          IF random() < 0.4 THEN RAISE division_by_zero; END IF;
        EXCEPTION WHEN division_by_zero OR unique_violation THEN NULL;
        END;
      ELSE
        BEGIN
          PERFORM one(t);
        EXCEPTION WHEN unique_violation OR triggered_data_change_violation OR cardinality_violation OR object_in_use THEN NULL;
        END;
      END IF;
    END LOOP;
  END $$;
CREATE PROCEDURE run(t text, times int) LANGUAGE plpgsql AS $$
  BEGIN
    FOR i IN 1 .. times LOOP
      BEGIN
        PERFORM several(t, 6, 3);
        SET CONSTRAINTS ALL IMMEDIATE;
      EXCEPTION WHEN unique_violation THEN NULL;
      END;
      IF random() < 0.9 THEN COMMIT; ELSE ROLLBACK; END IF;
    END LOOP;
  END $$;
SELECT setseed(0.42);
CALL run('keyed', 60);
CALL run('composite', 60);
CALL run('keyless', 60);
CALL run('parted', 60);
CALL run('deferred', 60);
-- enough has happened, in every way, and the log tells it all
SELECT "table", count(*) > 100 AS enough, count(DISTINCT action) FILTER (WHERE action <> 'TRUNCATE') AS actions,
       count(old) > 0 AS key_changes FROM log GROUP BY 1 ORDER BY 1;
SELECT t, mismatches(t) FROM unnest('{keyed,composite,keyless,parted,deferred}'::regclass[]) t;
-- no row of the log without its transaction row, and none but ours after it
SELECT count(*) FROM audit_log.change c LEFT JOIN audit_log.transaction t ON t.id = c.transaction_id WHERE t.id IS NULL;
SELECT count(*) AS out_of_order FROM (
  SELECT c.id, lag(c.id) OVER (PARTITION BY table_id, record_id ORDER BY transaction_id) AS before
    FROM (SELECT table_id, record_id, transaction_id, min(id) AS id FROM audit_log.change
           WHERE table_id IN (SELECT id FROM audit_log.tracked_table WHERE table_schema = 'capture_random')
           GROUP BY 1, 2, 3) c) o WHERE before > id;

DROP SCHEMA capture_random CASCADE;
