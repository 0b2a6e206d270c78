--
-- DDL by which tables come, change their columns, names or partitions, or go,
-- other than CREATE, ALTER and DROP TABLE; and DDL that only looks so
-- edge cases 71, 74, 75, 77
--
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE SCHEMA od;
CREATE VIEW od.known AS
    SELECT t.table_schema, t.table_name, t.dropped_at IS NULL AS live,
           (SELECT array_agg(s.kind ORDER BY s.id) FROM audit_log.table_state s WHERE s.table_id = t.id) AS states
      FROM audit_log.tracked_table t WHERE t.table_schema LIKE 'od%' ORDER BY t.id;

-- what makes nothing
CREATE TABLE od.t (id int PRIMARY KEY, body text);
SELECT audit_log.enable('od.t');
CREATE TABLE IF NOT EXISTS od.t (id int);
CREATE TABLE IF NOT EXISTS od.t AS SELECT 1 AS id;
CREATE SCHEMA IF NOT EXISTS od;
INSERT INTO od.t VALUES (1, 'one');
SELECT * FROM od.known;
-- what runs in transactions of its own, or makes and drops tables inside
CREATE INDEX CONCURRENTLY t_body ON od.t (body);
REINDEX TABLE CONCURRENTLY od.t;
DROP INDEX CONCURRENTLY od.t_body;
CREATE MATERIALIZED VIEW od.m AS SELECT * FROM od.t;
CREATE UNIQUE INDEX ON od.m (id);
REFRESH MATERIALIZED VIEW CONCURRENTLY od.m;
DROP MATERIALIZED VIEW od.m;
CLUSTER od.t USING t_pkey;
VACUUM FULL od.t;
ALTER TABLE od.t SET UNLOGGED;
ALTER TABLE od.t SET LOGGED;
SELECT * FROM od.known;

-- names: by ALTER INDEX, several times in one transaction, back again, in a savepoint
ALTER INDEX od.t RENAME TO t2;
BEGIN;
ALTER TABLE od.t2 RENAME TO t3;
SAVEPOINT s;
ALTER TABLE od.t3 RENAME TO t4;
ROLLBACK TO s;
ALTER TABLE od.t3 ADD more int;
ALTER TABLE od.t3 RENAME TO t;
COMMIT;
SELECT * FROM od.known;
-- the same of a table that is not tracked any more; two that change names
SELECT audit_log.disable('od.t');
CREATE TABLE od.other (id int PRIMARY KEY);
SELECT audit_log.enable('od.other');
SELECT audit_log.disable('od.other');
BEGIN;
ALTER TABLE od.t RENAME TO tmp;
ALTER TABLE od.other RENAME TO t;
ALTER TABLE od.tmp RENAME TO other;
ALTER TABLE od.other ALTER body SET STATISTICS 5;
COMMIT;
SELECT table_schema, table_name, live, states[array_upper(states, 1)] AS latest FROM od.known;
SELECT table_name, changes FROM audit_log.audit_logs WHERE table_schema = 'od';
CREATE SCHEMA od2;
ALTER TABLE od.other SET SCHEMA od2;
ALTER SCHEMA od2 RENAME TO od3;
SELECT table_schema, table_name, live FROM od.known;
-- enabled again, it is the same table
SELECT audit_log.enable('od3.other');
INSERT INTO od3.other VALUES (2, 'two');
SELECT table_schema, table_name, record_id FROM audit_log.audit_logs WHERE relation = 'od3.other'::regclass ORDER BY id;
DROP SCHEMA od3 CASCADE;

-- tables of a type follow it, and go with it
CREATE TYPE od.row AS (id int, secret text, note text);
CREATE TABLE od.typed OF od.row (PRIMARY KEY (id));
SELECT audit_log.enable('od.typed', mask => '{secret}', exclude => '{note}');
ALTER TYPE od.row RENAME ATTRIBUTE secret TO concealed CASCADE;
ALTER TYPE od.row RENAME ATTRIBUTE note TO remark CASCADE;
ALTER TYPE od.row ADD ATTRIBUTE more int CASCADE;
INSERT INTO od.typed VALUES (1, 'secret', 'remark', 2);
SELECT settings FROM audit_log.tracked_tables WHERE relation = 'od.typed'::regclass;
SELECT changes - 'concealed' AS changes, changes ->> 'concealed' ~ '^[0-9a-f]{64}$' AS masked
  FROM audit_log.audit_logs WHERE relation = 'od.typed'::regclass;
DROP TYPE od.row CASCADE;
SELECT table_name, live, states FROM od.known WHERE table_name = 'typed';

-- a partition made by CREATE SCHEMA
CREATE TABLE od.parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
SELECT audit_log.enable('od.parted');
CREATE SCHEMA od4 CREATE TABLE part1 PARTITION OF od.parted FOR VALUES FROM (0) TO (10)
    CREATE TABLE alone (id int);
SELECT t.tgrelid::regclass, t.tgname FROM pg_trigger t WHERE t.tgrelid::regclass::text LIKE 'od4.%' ORDER BY 2;
INSERT INTO od.parted VALUES (1);
TRUNCATE od4.part1;
SELECT action_type, record_id, changes FROM audit_log.audit_logs WHERE relation = 'od.parted'::regclass ORDER BY id;
ALTER TABLE od.parted DETACH PARTITION od4.part1 CONCURRENTLY;
SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = 'od4.part1'::regclass;
SELECT table_name, live, states FROM od.known WHERE table_name = 'parted';
SELECT * FROM audit_log.check() WHERE relation LIKE 'od%';
DROP SCHEMA od, od4 CASCADE;

-- a context that no jsonb can hold
BEGIN;
CREATE TABLE od_context (id int PRIMARY KEY);
SELECT audit_log.enable('od_context');
SELECT set_config('audit_log.context', repeat('x', 268435456), true) IS NULL;
INSERT INTO od_context VALUES (1);
SELECT jsonb_typeof(context), length(context #>> '{}') FROM audit_log.audit_logs WHERE relation = 'od_context'::regclass;
ROLLBACK;

-- a user whose name no index can hold; a trigger of ours on the log itself
CREATE TABLE od_user (id int PRIMARY KEY, by text);
SELECT audit_log.enable('od_user', user_column => 'by');
INSERT INTO od_user SELECT 1, string_agg(md5(i::text), '') FROM generate_series(1, 1000) i;
SELECT u.record_id, length(u.user_id)
  FROM od_user t, LATERAL audit_log.user_changes(t.by) u;
CREATE TRIGGER od AFTER INSERT ON audit_log.transaction FOR EACH ROW EXECUTE FUNCTION audit_log.capture();
INSERT INTO audit_log.transaction SELECT * FROM audit_log.transaction LIMIT 1 ON CONFLICT DO NOTHING;
INSERT INTO audit_log.transaction
    SELECT -id, xid, timestamp, started_at, continues, user_id, db_user, db_role, application_name, client_addr,
           client_port, backend_pid, context, undoes FROM audit_log.transaction LIMIT 1;
UPDATE od_user SET id = 2;
DROP TRIGGER od ON audit_log.transaction;
SELECT count(*) FROM audit_log.tracked_table WHERE table_schema = 'audit_log';
DROP TABLE od_user;
