-- A primary key WITHOUT OVERLAPS (PostgreSQL 18) has an index that is no B-tree: its columns are the key all the
-- same, of the log and of versions.
SELECT current_setting('server_version_num')::int < 180000 AS before \gset
\if :before
\echo 'not tested: WITHOUT OVERLAPS came with PostgreSQL 18'
\quit
\endif
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE SCHEMA versions_overlaps;
SET search_path = versions_overlaps;
CREATE TABLE t (id int4range, at daterange, n int, PRIMARY KEY (id, at WITHOUT OVERLAPS));
INSERT INTO t VALUES ('[1,2)', '[2026-01-01,2026-02-01)', 1);
SELECT audit_log.enable('t', versioned => true);
\set chains 'SELECT id, at, operation_type AS op, n, transaction_id < end_transaction_id AS ended, end_transaction_id IS NOT DISTINCT FROM lead(transaction_id) OVER (PARTITION BY id, at ORDER BY transaction_id) AS whole FROM t_version v ORDER BY id, at, v.transaction_id'
INSERT INTO t VALUES ('[1,2)', '[2026-02-01,2026-03-01)', 2), ('[2,3)', '[2026-01-01,2026-02-01)', 3);
UPDATE t SET n = n * 10 WHERE id = '[1,2)';
-- a period is part of the key
UPDATE t SET at = '[2026-01-01,2026-01-16)' WHERE id = '[2,3)';
DELETE FROM t WHERE at @> '2026-02-02'::date;
:chains;
-- the key comes again before its going is delivered
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (OLD.id, OLD.at, OLD.n + 1); RETURN NULL; END $$;
CREATE TRIGGER aaa AFTER DELETE ON t FOR EACH ROW WHEN (OLD.n < 100) EXECUTE FUNCTION again();
DELETE FROM t;
SELECT * FROM t ORDER BY id, at;
:chains;
SELECT record_id, action_type, old_record_id FROM audit_log.audit_logs WHERE relation = 't'::regclass ORDER BY id;
SELECT * FROM audit_log.check();
SELECT audit_log.enable('t', versioned => false);
SELECT audit_log.enable('t', versioned => true);
SELECT count(*) FROM t_version WHERE end_transaction_id IS NULL AND operation_type <> 2;
SET client_min_messages = error;
DROP SCHEMA versions_overlaps CASCADE;
