-- Random changes of several tables, partitioned and with cascades too, in random blocks, from triggers before and
-- behind ours too, under changing users: of each transaction row the log and the versions name the same records, chains
-- are whole, operations follow from what was there before, and the open versions are the tables.
-- edge cases 7, 8, 10, 18, 115
SET client_min_messages = warning;
CREATE SCHEMA versions_random;
SET search_path = versions_random;
CREATE TABLE t (id int PRIMARY KEY, v int, w text);
CREATE TABLE c (id int PRIMARY KEY REFERENCES t ON DELETE CASCADE ON UPDATE CASCADE, v int, w text);
CREATE TABLE p (id int, part int, v int, w text, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE p2 (w text, v int, gone int, part int NOT NULL, id int NOT NULL);
ALTER TABLE p2 DROP COLUMN gone;
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (2, 3);
DO $$ BEGIN PERFORM audit_log.enable(x::regclass, versioned => true) FROM unnest(ARRAY['t', 'c', 'p']) x; END $$;
CREATE FUNCTION upto(n int) RETURNS int LANGUAGE sql AS $$ SELECT floor(random() * n)::int $$;
CREATE FUNCTION change() RETURNS void LANGUAGE plpgsql AS $$
DECLARE a int := upto(8); b int := upto(8); q int := 1 + upto(3);
BEGIN
  CASE upto(15)
    WHEN 0 THEN INSERT INTO t VALUES (a, 0) ON CONFLICT (id) DO UPDATE SET v = t.v + 1;
    WHEN 1 THEN DELETE FROM t WHERE id = a;
    WHEN 2 THEN UPDATE t SET v = v + 1 WHERE id IN (a, b);
    WHEN 3 THEN UPDATE t SET id = b WHERE id = a AND NOT EXISTS (SELECT FROM t x WHERE x.id = b);
    WHEN 4 THEN INSERT INTO c SELECT id, 0 FROM t WHERE id = a ON CONFLICT (id) DO UPDATE SET v = c.v + 1;
    WHEN 5 THEN INSERT INTO p VALUES (a, q, 0) ON CONFLICT (id, part) DO UPDATE SET v = p.v + 1;
    WHEN 6 THEN UPDATE p SET part = q WHERE id = a AND NOT EXISTS (SELECT FROM p x WHERE x.id = a AND x.part = q);
    WHEN 7 THEN DELETE FROM p WHERE id = a;
    WHEN 8 THEN UPDATE p SET v = v + 1;
    WHEN 9 THEN MERGE INTO t USING (VALUES (a), (b)) s (i) ON t.id = s.i AND a <> b WHEN MATCHED AND t.v > 3 THEN DELETE
                 WHEN MATCHED THEN UPDATE SET v = t.v + 1 WHEN NOT MATCHED AND a <> b THEN INSERT VALUES (s.i, 0);
    WHEN 10 THEN WITH d AS (DELETE FROM p WHERE id = a AND part = q RETURNING *) INSERT INTO t SELECT id + 20, v FROM d ON CONFLICT DO NOTHING;
    WHEN 11 THEN WITH x AS (UPDATE t SET v = v + 1 WHERE id = a RETURNING id), y AS (UPDATE t SET v = v + 10 WHERE id = b AND b <> a RETURNING id) SELECT count(*) INTO a FROM x, y;
    WHEN 12 THEN TRUNCATE p2;
    WHEN 13 THEN UPDATE t SET v = v WHERE id = a;
    ELSE UPDATE t SET w = 'w' WHERE id = a;
  END CASE;
END $$;
CREATE FUNCTION blocks(depth int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM change();
  -- between statements: a change that was overtaken under another row has its log there, but no version
  IF depth = 0 AND random() < 0.15 THEN PERFORM audit_log.set_context(upto(3)::text); END IF;
  IF random() < 0.15 THEN RAISE division_by_zero; END IF;
EXCEPTION WHEN division_by_zero OR unique_violation OR foreign_key_violation OR triggered_data_change_violation
            OR object_in_use OR cardinality_violation OR object_not_in_prerequisite_state THEN NULL;
END $$;
CREATE FUNCTION further() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF pg_trigger_depth() < 4 AND random() < 0.25 THEN PERFORM blocks(pg_trigger_depth()); END IF;
  RETURN NULL;
END $$;
DO $$ BEGIN
  EXECUTE (SELECT string_agg(format('CREATE TRIGGER %s AFTER INSERT OR UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION further();', n, x), '')
             FROM unnest(ARRAY['a_before_ours', 'z_behind_ours']) n, unnest(ARRAY['t', 'c', 'p']) x);
END $$;
CREATE PROCEDURE run(n int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1 .. n LOOP
    FOR j IN 1 .. 1 + upto(5) LOOP PERFORM blocks(0); END LOOP;
    COMMIT;
  END LOOP;
END $$;
SELECT setseed(0.42);
CALL run(400);
CREATE VIEW versions AS
  SELECT 't' AS name, id::text AS record, transaction_id, operation_type FROM t_version
  UNION ALL SELECT 'c', id::text, transaction_id, operation_type FROM c_version
  UNION ALL SELECT 'p', jsonb_build_array(id::text, part::text)::text, transaction_id, operation_type FROM p_version;
CREATE VIEW logged AS
  SELECT DISTINCT l.table_name AS name, k AS record, l.transaction_id FROM audit_log.audit_logs l, unnest(ARRAY[l.record_id, l.old_record_id]) k
   WHERE l.table_schema = 'versions_random' AND k IS NOT NULL;
SELECT name, count(*) > 50 AS many FROM versions GROUP BY 1 ORDER BY 1;
SELECT * FROM (SELECT name, record, transaction_id FROM logged EXCEPT SELECT name, record, transaction_id FROM versions) missing;
SELECT * FROM (SELECT name, record, transaction_id FROM versions EXCEPT SELECT name, record, transaction_id FROM logged) invented;
SELECT * FROM (SELECT v.*, coalesce(lag(operation_type) OVER (PARTITION BY name, record ORDER BY transaction_id), 2) AS before FROM versions v) x
 WHERE operation_type < 2 AND (operation_type = 0) <> (before = 2);
SELECT * FROM audit_log.check() WHERE relation LIKE 'versions_random%';
SELECT * FROM (TABLE t EXCEPT SELECT id, v, w FROM t_version WHERE end_transaction_id IS NULL AND operation_type <> 2) x;
SELECT * FROM (TABLE c EXCEPT SELECT id, v, w FROM c_version WHERE end_transaction_id IS NULL AND operation_type <> 2) x;
SELECT * FROM (TABLE p EXCEPT SELECT id, part, v, w FROM p_version WHERE end_transaction_id IS NULL AND operation_type <> 2) x;
DROP SCHEMA versions_random CASCADE;
