-- Transactions prepared and finished by another session: the log is prepared
-- with them.
-- edge case 40
CREATE SCHEMA capture_prepared;
SET search_path = capture_prepared;
SELECT current_setting('max_prepared_transactions')::int = 0 AS off \gset
\if :off
  -- the server has max_prepared_transactions = 0: nothing to be tried
  DROP SCHEMA capture_prepared;
  \quit
\endif
CREATE VIEW log AS
  SELECT table_name AS "table", action_type AS action, record_id AS id, old_record_id AS old, changes
    FROM audit_log.audit_logs WHERE table_schema = 'capture_prepared' ORDER BY audit_logs.id;
CREATE TABLE t (id int PRIMARY KEY, v text);
SELECT audit_log.enable('t');
BEGIN;
SELECT audit_log.set_context('preparer', '{"why": "2pc"}');
INSERT INTO t VALUES (1, 'prepared');
SAVEPOINT a;
INSERT INTO t VALUES (2, 'gone');
ROLLBACK TO a;
SAVEPOINT b;
UPDATE t SET v = 'twice';
RELEASE b;
PREPARE TRANSACTION 'regress_audit_log_1';
SELECT count(*) FROM log;
-- the session goes on with a transaction of its own, not under the prepared one's row
INSERT INTO t VALUES (3, 'in between');
\c -
SET search_path = capture_prepared;
SELECT * FROM log;
COMMIT PREPARED 'regress_audit_log_1';
SELECT user_id, context, record_id, changes FROM audit_log.audit_logs WHERE table_schema = 'capture_prepared' ORDER BY id;
SELECT count(DISTINCT transaction_id) FROM audit_log.audit_logs WHERE table_schema = 'capture_prepared';
SELECT count(*) FROM audit_log.rebuild(NULL::t) r JOIN t ON r *= t;
BEGIN;
DELETE FROM t;
PREPARE TRANSACTION 'regress_audit_log_2';
ROLLBACK PREPARED 'regress_audit_log_2';
SELECT count(*) FROM log;
-- enable and the first change in what is prepared, and rolled back: nothing is remembered
CREATE TABLE u (id int PRIMARY KEY);
BEGIN;
SELECT audit_log.enable('u');
INSERT INTO u VALUES (1);
PREPARE TRANSACTION 'regress_audit_log_3';
ROLLBACK PREPARED 'regress_audit_log_3';
INSERT INTO u VALUES (2);
SELECT audit_log.enable('u');
INSERT INTO u VALUES (3);
SELECT * FROM log WHERE "table" = 'u';

SET client_min_messages = warning;
DROP SCHEMA capture_prepared CASCADE;
