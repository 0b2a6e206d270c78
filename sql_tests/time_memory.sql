--
-- as_of keeps what the log has of each row that has changed since: of former values
-- no more than they take. Looked at by a type's check, while rows are put together
--
CREATE SCHEMA time_memory;
SET search_path = time_memory;
SET client_min_messages = warning;
CREATE FUNCTION look(value int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF value = 7777 THEN
        PERFORM pg_catalog.set_config('time_memory.own', (SELECT pg_catalog.sum(total_bytes)
          FROM pg_catalog.pg_backend_memory_contexts WHERE name LIKE 'audit\_log past%')::text, false);
    END IF;
    RETURN true;
END $$;
CREATE DOMAIN watching AS int CHECK (time_memory.look(value));
CREATE TABLE wide (id int PRIMARY KEY, w watching, a int, b text, c numeric, d date, e text);
SELECT audit_log.enable('wide');
INSERT INTO wide SELECT n, n, n, n, n, date '2026-01-01' + n % 100, 'e' FROM generate_series(1, 20000) n;
SELECT audit_log.mark('time_memory');
UPDATE wide SET w = w - 1, a = a + 1, b = b || '.', c = c + 0.5, d = d + 1, e = NULL;
SELECT count(*), count(*) FILTER (WHERE w = id AND a = id AND b = id::text AND c = id AND e = 'e') AS right
  FROM audit_log.as_of(NULL::wide, 'time_memory');
-- six values of each of 20,000 rows
SELECT CASE WHEN own BETWEEN 2 * 1024 * 1024 AND 48 * 1024 * 1024 THEN 'in no more than it takes' ELSE own || ' bytes' END AS kept
  FROM (SELECT current_setting('time_memory.own')::bigint AS own) o;
SELECT audit_log.drop_mark('time_memory');
DROP SCHEMA time_memory CASCADE;
