-- Several changes of a record under one transaction row make one version, of
-- their net effect: every combination of two and of three, of a record that was
-- there, one that was not, and one that had been deleted before; each in
-- several statements, with another transaction row between them, over savepoints
-- released and rolled back, in exception blocks, and from nested triggers.
CREATE SCHEMA versions_net;
SET search_path = versions_net;
SET client_min_messages = warning;
CREATE TABLE t (id int PRIMARY KEY, v int);
DO $$ BEGIN PERFORM audit_log.enable('t', versioned => true); END $$;

-- what a record's versions must be, from what it was before and the changes that stayed
CREATE FUNCTION expected(before text, steps text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE present boolean := before = 'there'; first boolean := present; n int := cardinality(steps);
BEGIN
  IF n = 0 THEN RETURN ''; END IF;
  present := steps[n] <> 'delete';
  RETURN CASE WHEN NOT present THEN '2' WHEN first THEN '1' ELSE '0' END;
END $$;
CREATE FUNCTION possible(before text, steps text[]) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE present boolean := before = 'there'; s text;
BEGIN
  FOREACH s IN ARRAY steps LOOP
    IF (s = 'insert') = present THEN RETURN false; END IF;
    present := s <> 'delete';
  END LOOP;
  RETURN true;
END $$;
CREATE FUNCTION step(what text, record int, value int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  CASE what WHEN 'insert' THEN INSERT INTO t VALUES (record, value);
            WHEN 'update' THEN UPDATE t SET v = value + current_setting('versions_net.round')::int WHERE id = record;
            WHEN 'delete' THEN DELETE FROM t WHERE id = record; END CASE;
END $$;
-- the versions that transaction rows after since have made: operation, value, and whether it is the open one
CREATE FUNCTION made(record int, since bigint) RETURNS text LANGUAGE sql AS $$
  SELECT coalesce(string_agg(operation_type::text, ',' ORDER BY transaction_id), '') FROM t_version WHERE id = record AND transaction_id > since
$$;
-- no gap or overlap, ids and times rise, one open end, which says what the table says
CREATE FUNCTION broken(record int) RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(format('%s: %s', c.transaction_id, c.problem), '; ') FROM (
    SELECT v.transaction_id, CASE
        WHEN v.end_transaction_id IS DISTINCT FROM lead(v.transaction_id) OVER w THEN 'end'
        WHEN v.valid_to IS DISTINCT FROM lead(v.valid_from) OVER w THEN 'time'
        WHEN v.valid_to <= v.valid_from THEN 'order'
        WHEN v.operation_type = 0 AND coalesce(lag(v.operation_type) OVER w, 2) <> 2 THEN 'inserted twice'
        WHEN v.operation_type = 1 AND coalesce(lag(v.operation_type) OVER w, 2) = 2 THEN 'updated from nothing'
        WHEN v.end_transaction_id IS NULL AND (v.operation_type = 2) = EXISTS (SELECT FROM t WHERE t.id = record) THEN 'current'
        WHEN v.end_transaction_id IS NULL AND v.operation_type <> 2 AND v.v IS DISTINCT FROM (SELECT t.v FROM t WHERE t.id = record) THEN 'value' END AS problem
      FROM t_version v WHERE v.id = record WINDOW w AS (ORDER BY v.transaction_id)) c WHERE c.problem IS NOT NULL
$$;
CREATE TABLE combination (id int GENERATED ALWAYS AS IDENTITY, before text, steps text[], way text, since bigint, value int, result text, problem text, expected text);
INSERT INTO combination (before, steps, way)
SELECT b, s, w
  FROM unnest(ARRAY['there', 'never', 'deleted']) b,
       (SELECT ARRAY[x] FROM unnest(ARRAY['insert', 'update', 'delete']) x
        UNION ALL SELECT ARRAY[x, y] FROM unnest(ARRAY['insert', 'update', 'delete']) x, unnest(ARRAY['insert', 'update', 'delete']) y
        UNION ALL SELECT ARRAY[x, y, z] FROM unnest(ARRAY['insert', 'update', 'delete']) x, unnest(ARRAY['insert', 'update', 'delete']) y,
                         unnest(ARRAY['insert', 'update', 'delete']) z) steps (s),
       unnest(ARRAY['statements', 'savepoints', 'last undone', 'first undone', 'rows', 'nested', 'nested undone']) w
 WHERE possible(b, s)
 ORDER BY array_length(s, 1), b, s, w;
-- records that are there, and that are deleted
INSERT INTO t SELECT id, -1 FROM combination WHERE before IN ('there', 'deleted');
DELETE FROM t WHERE id IN (SELECT id FROM combination WHERE before = 'deleted');

-- for "nested": a trigger of the row does all steps but the first, when the first is delivered
CREATE FUNCTION run(c combination) RETURNS text LANGUAGE plpgsql AS $$
DECLARE i int; made text[] := c.steps; expect text;
BEGIN
  CASE c.way
  WHEN 'statements' THEN
    FOR i IN 1 .. cardinality(c.steps) LOOP PERFORM step(c.steps[i], c.id, i); END LOOP;
  WHEN 'rows' THEN  -- another transaction row for each
    FOR i IN 1 .. cardinality(c.steps) LOOP PERFORM audit_log.new_transaction(); PERFORM step(c.steps[i], c.id, i); END LOOP;
    RETURN NULL;
  WHEN 'savepoints' THEN
    FOR i IN 1 .. cardinality(c.steps) LOOP
      BEGIN PERFORM step(c.steps[i], c.id, i); EXCEPTION WHEN division_by_zero THEN NULL; END;
    END LOOP;
  WHEN 'last undone' THEN
    FOR i IN 1 .. cardinality(c.steps) LOOP
      BEGIN
        PERFORM step(c.steps[i], c.id, i);
        IF i = cardinality(c.steps) THEN RAISE division_by_zero; END IF;
      EXCEPTION WHEN division_by_zero THEN NULL; END;
    END LOOP;
    made := c.steps[1 : cardinality(c.steps) - 1];
  WHEN 'first undone' THEN  -- a savepoint over all of it is rolled back, then all is done again
    BEGIN
      FOR i IN 1 .. cardinality(c.steps) LOOP PERFORM step(c.steps[i], c.id, -i); END LOOP;
      RAISE division_by_zero;
    EXCEPTION WHEN division_by_zero THEN NULL; END;
    FOR i IN 1 .. cardinality(c.steps) LOOP PERFORM step(c.steps[i], c.id, i); END LOOP;
  ELSE  -- a trigger before ours and one after it do the further steps while the first is delivered
    PERFORM set_config('versions_net.steps', array_to_string(c.steps[2:], ','), true);
    PERFORM set_config('versions_net.undo', (c.way = 'nested undone')::text, true);
    PERFORM step(c.steps[1], c.id, 1);
    PERFORM set_config('versions_net.steps', '', true);
    IF c.way = 'nested undone' THEN made := c.steps[1:1]; END IF;
  END CASE;
  RETURN expected(c.before, made);
END $$;
CREATE FUNCTION further() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE steps text[] := string_to_array(nullif(current_setting('versions_net.steps', true), ''), ','); i int;
BEGIN
  IF steps IS NULL OR cardinality(steps) = 0 OR TG_NAME <> current_setting('versions_net.trigger') THEN RETURN NULL; END IF;
  PERFORM set_config('versions_net.steps', '', true);
  BEGIN
    FOR i IN 1 .. cardinality(steps) LOOP PERFORM step(steps[i], coalesce(NEW.id, OLD.id), 10 + i); END LOOP;
    IF current_setting('versions_net.undo')::boolean THEN RAISE division_by_zero; END IF;
  EXCEPTION WHEN division_by_zero THEN NULL;
  END;
  RETURN NULL;
END $$;
CREATE TRIGGER a_before_ours AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION further();
CREATE TRIGGER z_after_ours AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION further();

-- each in a transaction of its own, once for each place of the trigger
CREATE PROCEDURE run_all(trigger text, round int) LANGUAGE plpgsql AS $$
DECLARE c combination; e text;
BEGIN
  PERFORM set_config('versions_net.round', round::text, false);
  PERFORM set_config('versions_net.trigger', trigger, false);
  PERFORM set_config('search_path', 'versions_net', false);
  FOR c IN SELECT * FROM combination ORDER BY id LOOP
    UPDATE combination SET since = (SELECT max(id) FROM audit_log.transaction) WHERE id = c.id;
    COMMIT;
    e := run(c);
    COMMIT;
    UPDATE combination SET result = made(id, since), problem = broken(id), expected = e,
      value = (SELECT v FROM t_version v WHERE v.id = combination.id AND v.end_transaction_id IS NULL) WHERE id = c.id;
    COMMIT;
  END LOOP;
END $$;
CALL run_all('a_before_ours', 0);
SELECT count(*) AS combinations, count(*) FILTER (WHERE problem IS NOT NULL) AS broken,
       count(*) FILTER (WHERE way <> 'rows' AND result <> expected) AS wrong FROM combination;
SELECT id, before, steps, way, result, expected, problem FROM combination WHERE problem IS NOT NULL OR (way <> 'rows' AND result <> expected) ORDER BY id;
-- what a version of each combination says, by name, of those within one transaction row
SELECT before, array_to_string(steps, ', ') AS changes, result AS version, value FROM combination WHERE way = 'statements' ORDER BY id;
-- one transaction row each makes a version each
SELECT before, array_to_string(steps, ', ') AS changes, result AS versions FROM combination WHERE way = 'rows' ORDER BY id;
SELECT way, count(*), string_agg(DISTINCT value::text, ' ' ORDER BY value::text) AS values FROM combination WHERE way LIKE '%nested%' OR way LIKE '%undone' GROUP BY way ORDER BY way;
-- once more, with the records as that left them, and the trigger behind ours
UPDATE combination SET before = CASE WHEN EXISTS (SELECT FROM t WHERE t.id = combination.id) THEN 'there' ELSE 'deleted' END;
UPDATE combination SET before = 'never' WHERE NOT EXISTS (SELECT FROM t_version v WHERE v.id = combination.id);
DELETE FROM combination WHERE NOT possible(before, steps);
CALL run_all('z_after_ours', 100);
SELECT count(*) FILTER (WHERE problem IS NOT NULL) AS broken,
       count(*) FILTER (WHERE way <> 'rows' AND result <> expected) AS wrong FROM combination;
SELECT id, before, steps, way, result, expected, problem FROM combination WHERE problem IS NOT NULL OR (way <> 'rows' AND result <> expected) ORDER BY id;
SELECT * FROM audit_log.check() WHERE relation LIKE '%versions_net%' OR relation = 't';
DROP SCHEMA versions_net CASCADE;
