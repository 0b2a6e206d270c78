-- Nothing is lost on the way through the log either: after random changes to a
-- table with a column of each type, in random transactions and under random
-- settings, the log alone makes the table again, to the image.
SET client_min_messages = warning;
SET TimeZone = 'UTC';
\getenv srcdir PG_ABS_SRCDIR
\set ECHO none
\i :srcdir/sql/fidelity_types.inc
\set ECHO all

CREATE TABLE fidelity.tracked (LIKE fidelity.everything);
ALTER TABLE fidelity.tracked ADD PRIMARY KEY (id), ADD computed text GENERATED ALWAYS AS (upper(text)) STORED;
CREATE TABLE fidelity.keyless (LIKE fidelity.everything);
SELECT audit_log.enable('fidelity.tracked');
SELECT audit_log.enable('fidelity.keyless');

-- One random change of one of the tables.
CREATE FUNCTION fidelity.change() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  target text := CASE WHEN random() < 0.8 THEN 'tracked' ELSE 'keyless' END;
  columns text[] := ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = 'fidelity.everything'::regclass AND attnum > 1 ORDER BY random() LIMIT 1 + 200 * random() ^ 4);
  list text := (SELECT string_agg(quote_ident(c), ', ') FROM unnest(columns) c);
  sources text := (SELECT string_agg(format('s%s.%I', n % 3, c), ', ') FROM unnest(columns) WITH ORDINALITY u(c, n));
  tables text := format('(SELECT * FROM fidelity.everything WHERE id = %s) s0, (SELECT * FROM fidelity.everything WHERE id = %s) s1, (SELECT * FROM fidelity.everything WHERE id = %s) s2',
    (random() * 48)::int, (random() * 10)::int, (random() * 5)::int);
  picked text := CASE WHEN random() < 0.9 THEN format('id = %s', (random() * 40)::int) ELSE format('id %% 7 = %s', (random() * 6)::int) END;
BEGIN
  CASE (random() * 9)::int
    WHEN 0, 1 THEN
      EXECUTE format('INSERT INTO fidelity.%I (id, %s) SELECT %s, %s FROM %s %s', target, list, (random() * 40)::int, sources, tables,
        CASE WHEN target = 'tracked' THEN 'ON CONFLICT DO NOTHING' END);
    WHEN 2 THEN
      EXECUTE format('INSERT INTO fidelity.tracked (id, %s) SELECT %s, %s FROM %s ON CONFLICT (id) DO UPDATE SET (%1$s) = ROW(%5$s)', list, (random() * 40)::int, sources, tables,
        (SELECT string_agg(format('excluded.%I', c), ', ') FROM unnest(columns) c));
    WHEN 3 THEN
      EXECUTE format('DELETE FROM fidelity.%I WHERE %s', target, picked);
    WHEN 4 THEN
      EXECUTE format('UPDATE fidelity.%I SET %I = NULL WHERE %s', target, columns[1], picked);
    WHEN 5 THEN
      IF random() < 0.05 THEN
        EXECUTE format('TRUNCATE fidelity.%I', target);
      ELSE
        EXECUTE format('UPDATE fidelity.tracked t SET id = 40 - id WHERE %s AND NOT EXISTS (SELECT FROM fidelity.tracked o WHERE o.id = 40 - t.id)', picked);
      END IF;
    ELSE
      EXECUTE format('UPDATE fidelity.%I t SET (%s) = ROW(%s) FROM %s WHERE t.%s', target, list, sources, tables, picked);
  END CASE;
END $$;

-- Random transactions, with savepoints of which some are rolled back.
CREATE PROCEDURE fidelity.run(transactions int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1 .. transactions LOOP
    PERFORM set_config('TimeZone', (ARRAY['UTC', 'Asia/Kathmandu', 'America/St_Johns'])[1 + (random() * 2)::int], true),
      set_config('DateStyle', (ARRAY['ISO, DMY', 'German', 'SQL, MDY', 'Postgres, YMD'])[1 + (random() * 3)::int], true),
      set_config('IntervalStyle', (ARRAY['postgres', 'sql_standard', 'iso_8601', 'postgres_verbose'])[1 + (random() * 3)::int], true),
      set_config('bytea_output', (ARRAY['hex', 'escape'])[1 + (random())::int], true),
      set_config('extra_float_digits', (ARRAY['1', '-15', '3', '0'])[1 + (random() * 3)::int], true);
    FOR j IN 0 .. (random() ^ 3 * 8)::int LOOP
      BEGIN
        PERFORM fidelity.change();
        BEGIN
          IF random() < 0.3 THEN PERFORM fidelity.change(); END IF;
          IF random() < 0.3 THEN RAISE SQLSTATE 'FTEST'; END IF;
        EXCEPTION WHEN SQLSTATE 'FTEST' THEN NULL;
        END;
        IF random() < 0.2 THEN RAISE SQLSTATE 'FTEST'; END IF;
      EXCEPTION WHEN SQLSTATE 'FTEST' THEN NULL;
      END;
    END LOOP;
    IF random() < 0.1 THEN ROLLBACK; ELSE COMMIT; END IF;
  END LOOP;
END $$;

-- The columns in which the table and its log differ.
CREATE FUNCTION fidelity.differences() RETURNS TABLE (id int, columns text[]) LANGUAGE sql AS $$
  SELECT coalesce(t.id, r.id), ARRAY(SELECT key FROM jsonb_each_text(to_jsonb(t)) a FULL JOIN jsonb_each_text(to_jsonb(r)) b USING (key) WHERE a.value IS DISTINCT FROM b.value LIMIT 5)
    FROM fidelity.tracked t FULL JOIN audit_log.rebuild(NULL::fidelity.tracked) r ON r.id = t.id WHERE record_image_eq(t, r) IS NOT TRUE
$$;
-- Of the table without key: what one side has more often than the other.
CREATE FUNCTION fidelity.keyless_differences() RETURNS bigint LANGUAGE sql AS $$
  WITH t AS (SELECT k::text, count(*) FROM fidelity.keyless k GROUP BY 1), r AS (SELECT k::text, count(*) FROM audit_log.rebuild(NULL::fidelity.keyless) k GROUP BY 1)
  SELECT count(*) FROM t FULL JOIN r USING (k, count) WHERE t.k IS NULL OR r.k IS NULL
$$;

SELECT setseed(0.42) \gset
CALL fidelity.run(100);
SELECT * FROM fidelity.differences();
SELECT fidelity.keyless_differences();
CALL fidelity.run(100);
SELECT * FROM fidelity.differences();
SELECT fidelity.keyless_differences();
-- (it was not nothing)
SELECT count(*) > 150 AS changes, count(DISTINCT action_type) > 2 AS kinds, (SELECT count(*) > 3 FROM fidelity.tracked) AS rows
  FROM audit_log.audit_logs WHERE table_schema = 'fidelity';

-- A session that has captured a type follows its changes.
CREATE TYPE fidelity.growing AS (a int);
CREATE TABLE fidelity.follows (id int PRIMARY KEY, v fidelity.growing, l fidelity.growing[], m fidelity.mood);
SELECT audit_log.enable('fidelity.follows');
SET TimeZone = 'Asia/Tokyo';
INSERT INTO fidelity.follows VALUES (1, ROW(1), ARRAY[ROW(1)::fidelity.growing], 'sad');
ALTER TYPE fidelity.growing ADD ATTRIBUTE b tstzrange;
INSERT INTO fidelity.follows VALUES (2, ROW(2, '[2026-01-02 00:00+00,)'), ARRAY[(2, '[2026-01-02 00:00+00,)')]::fidelity.growing[], 'sad');
ALTER TYPE fidelity.growing ADD ATTRIBUTE c regclass;
ALTER TYPE fidelity.mood RENAME VALUE 'sad' TO 'very sad';
SET search_path = fidelity;
INSERT INTO fidelity.follows VALUES (3, ROW(3, 'empty', 'follows'), ARRAY[(3, 'empty', 'follows')]::growing[], 'very sad');
SET search_path = public;
ALTER TYPE fidelity.growing RENAME ATTRIBUTE a TO z;
ALTER TYPE fidelity.growing DROP ATTRIBUTE b;
INSERT INTO fidelity.follows VALUES (4, ROW(4, 'fidelity.follows'), '{}', 'very sad');
SELECT changes FROM audit_log.audit_logs WHERE relation = 'fidelity.follows'::regclass ORDER BY id;
RESET TimeZone;

-- Integers, and objects with ever other keys, are to the byte what jsonb makes of them.
CREATE TABLE fidelity.integers (id bigint PRIMARY KEY, "a longer name" smallint, i int, b bigint, t text, f float8);
SELECT audit_log.enable('fidelity.integers');
INSERT INTO fidelity.integers
SELECT n, CASE WHEN n BETWEEN -32768 AND 32767 AND random() < 0.8 THEN n END, CASE WHEN n BETWEEN -2147483648 AND 2147483647 AND random() < 0.8 THEN n END,
       CASE WHEN random() < 0.8 THEN n END, CASE WHEN random() < 0.5 THEN 'x' END, CASE WHEN abs(n::numeric) < 9007199254740992 AND random() < 0.8 THEN n END
  FROM (SELECT DISTINCT (sign * (m * 10::numeric ^ k + d))::bigint AS n
          FROM generate_series(0, 18) k, unnest(ARRAY[1, 2, 5, 9]) m, generate_series(-1, 1) d, unnest(ARRAY[1, -1]) sign
         WHERE m * 10::numeric ^ k + d < 9223372036854775807
         UNION SELECT unnest(ARRAY[0, 32767, -32768, 2147483647, -2147483648, 9223372036854775807, -9223372036854775808, 10001, 100000000, 100010000])) numbers;
UPDATE fidelity.integers SET b = -(b + 1), i = CASE WHEN random() < 0.5 THEN i / 10 ELSE i END, t = CASE WHEN random() < 0.5 THEN 'y' END WHERE b < 9223372036854775807;
SELECT count(*) > 300 AS enough, count(*) FILTER (WHERE l.record_id <> t.id::text) AS other_id,
       count(*) FILTER (WHERE NOT record_image_eq(ROW(l.changes), ROW(l.changes::text::jsonb))) AS other_image
  FROM audit_log.audit_logs l JOIN fidelity.integers t ON t.id = l.record_id::bigint WHERE relation = 'fidelity.integers'::regclass AND l.action_type = 'INSERT';
SELECT count(*) AS differences FROM fidelity.integers x FULL JOIN audit_log.rebuild(NULL::fidelity.integers) y USING (id) WHERE record_image_eq(x, y) IS NOT TRUE;
SELECT count(*) AS other_image FROM audit_log.audit_logs l, jsonb_each(l.changes) c (key, value)
 WHERE relation = 'fidelity.integers'::regclass AND NOT record_image_eq(ROW(c.value), ROW(c.value::text::jsonb));
DELETE FROM fidelity.integers;
SELECT count(*) AS differences FROM audit_log.rebuild(NULL::fidelity.integers);

DROP SCHEMA fidelity CASCADE;
