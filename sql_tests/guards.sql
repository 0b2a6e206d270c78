--
-- The log refuses UPDATE, DELETE and TRUNCATE from everybody: superusers, on
-- every partition, under replica role, by every statement that can do them
-- edge cases 28, 98, 125
--
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE TABLE guarded (id int PRIMARY KEY, body text);
SELECT audit_log.enable('guarded', mask => '{body}');
INSERT INTO guarded VALUES (1, 'one');
CREATE FUNCTION pg_temp.attempt(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE sql;
    RETURN 'done';
EXCEPTION WHEN others THEN
    RETURN sqlstate;
END
$$;
-- every table of the log with every statement, by catalog
CREATE TEMP VIEW attempts AS
    SELECT c.oid::regclass AS relation, format(f, c.oid::regclass, a.attname) AS sql
      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = 1,
           unnest(ARRAY['UPDATE %1$s SET %2$I = %2$I', 'UPDATE %1$s SET %2$I = %2$I WHERE false', 'DELETE FROM %1$s',
                        'UPDATE ONLY %1$s SET %2$I = %2$I', 'DELETE FROM ONLY %1$s', 'DELETE FROM %1$s WHERE false',
                        'TRUNCATE %1$s', 'TRUNCATE guarded, %1$s CASCADE', 'TRUNCATE ONLY %1$s',
                        'WITH d AS (DELETE FROM %1$s RETURNING *) SELECT count(*) FROM d',
                        'MERGE INTO %1$s t USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE',
                        'MERGE INTO %1$s t USING (SELECT 1) s ON true WHEN MATCHED THEN UPDATE SET %2$I = t.%2$I']) f
     WHERE c.relnamespace = 'audit_log'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> 'tracked_schema'
       -- (of the parent alone there is nothing to truncate)
       AND NOT (c.relkind = 'p' AND f = 'TRUNCATE ONLY %1$s');
SELECT count(DISTINCT relation) >= 18 AS all_partitions FROM attempts;
SELECT DISTINCT relation, sql, ended FROM attempts, LATERAL (SELECT pg_temp.attempt(sql)) e (ended)
 WHERE ended <> '42501';
SET session_replication_role = replica;
SELECT DISTINCT relation, sql, ended FROM attempts, LATERAL (SELECT pg_temp.attempt(sql)) e (ended)
 WHERE ended <> '42501';
SET session_replication_role = local;
SELECT DISTINCT relation, sql, ended FROM attempts, LATERAL (SELECT pg_temp.attempt(sql)) e (ended)
 WHERE ended <> '42501';
RESET session_replication_role;

-- INSERT … ON CONFLICT DO UPDATE, where there is a unique index
INSERT INTO audit_log.transaction SELECT * FROM audit_log.transaction LIMIT 1 ON CONFLICT (id) DO UPDATE SET user_id = 'forged';
INSERT INTO audit_log.tracked_table SELECT * FROM audit_log.tracked_table LIMIT 1 ON CONFLICT (id) DO UPDATE SET table_name = 'forged';
INSERT INTO audit_log.table_state SELECT * FROM audit_log.table_state LIMIT 1 ON CONFLICT (id) DO UPDATE SET kind = 'gap';
-- a cursor, a prepared statement
BEGIN;
DECLARE c CURSOR FOR SELECT 'a row' AS found FROM audit_log.transaction FOR UPDATE;
FETCH 1 FROM c;
UPDATE audit_log.transaction SET user_id = 'forged' WHERE CURRENT OF c;
ROLLBACK;
PREPARE forge AS DELETE FROM audit_log.change_default;
EXECUTE forge;
DEALLOCATE forge;
-- the message
\set VERBOSITY default
DELETE FROM audit_log.change;
TRUNCATE audit_log.transaction;
\set VERBOSITY terse
-- called by hand
SELECT audit_log.guard();

-- a guard that is missing, disabled or no longer ALWAYS is noticed, and repaired
BEGIN;
ALTER TABLE audit_log.transaction DISABLE TRIGGER audit_log_guard;
ALTER TABLE audit_log.table_state DISABLE TRIGGER ALL;
ALTER TABLE audit_log.table_state ENABLE TRIGGER ALL;
DROP TRIGGER audit_log_guard ON audit_log.change_default;
SELECT relation, problem, remedy FROM audit_log.check() WHERE problem LIKE '%guard%' ORDER BY 1;
SELECT audit_log.repair();
SELECT count(*) FROM audit_log.check() WHERE problem LIKE '%guard%';
DELETE FROM audit_log.change_default;
ROLLBACK;
-- all of it was in vain
SELECT action_type, record_id FROM audit_log.audit_logs WHERE relation = 'guarded'::regclass;
DROP TABLE guarded;

-- an event trigger that is gone is told, and made again as a member
BEGIN;
ALTER EXTENSION audit_log DROP EVENT TRIGGER audit_log_drop;
DROP EVENT TRIGGER audit_log_drop;
SELECT * FROM audit_log.check() WHERE relation LIKE 'event trigger %';
SELECT audit_log.repair();
SELECT * FROM audit_log.check() WHERE relation LIKE 'event trigger %';
SELECT e.evtevent, e.evttags, x.extname FROM pg_event_trigger e
  JOIN pg_depend d ON d.classid = 'pg_event_trigger'::regclass AND d.objid = e.oid AND d.deptype = 'e'
  JOIN pg_extension x ON x.oid = d.refobjid
 WHERE e.evtname = 'audit_log_drop';
ROLLBACK;
