-- Whose database role a change is made under, and what a table requires of it.
-- edge cases 93, 94
CREATE ROLE regress_audit_writer;
CREATE ROLE regress_audit_other;
CREATE ROLE regress_audit_definer;
CREATE SCHEMA attribution_roles;
GRANT USAGE ON SCHEMA attribution_roles TO PUBLIC;
SET search_path = attribution_roles;
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE u (id int PRIMARY KEY, v text);
GRANT SELECT, INSERT, UPDATE, DELETE ON t, u TO regress_audit_writer, regress_audit_other, regress_audit_definer;
SET client_min_messages = warning;
SELECT audit_log.enable('t'), audit_log.enable('u');
RESET client_min_messages;
CREATE VIEW who AS
  SELECT dense_rank() OVER (ORDER BY transaction_id) AS row, CASE db_user WHEN current_user THEN 'superuser' ELSE db_user END AS db_user,
         CASE db_role WHEN current_user THEN 'superuser' ELSE db_role END AS db_role, table_name, record_id
    FROM audit_log.audit_logs l WHERE table_schema = 'attribution_roles' ORDER BY l.id;
-- SET ROLE and SET SESSION AUTHORIZATION, midway too
INSERT INTO t VALUES (1);
BEGIN;
SET LOCAL ROLE regress_audit_writer;
INSERT INTO t VALUES (2);
SET LOCAL ROLE regress_audit_other;
INSERT INTO t VALUES (3), (4);
RESET ROLE;
INSERT INTO t VALUES (5);
SAVEPOINT a;
SET LOCAL ROLE regress_audit_writer;
ROLLBACK TO a;
INSERT INTO t VALUES (6);
COMMIT;
SET SESSION AUTHORIZATION regress_audit_writer;
INSERT INTO t VALUES (7);
RESET SESSION AUTHORIZATION;
SELECT * FROM who;
-- a SECURITY DEFINER trigger, and a function of another's that writes: no further rows
CREATE FUNCTION definer() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS $$
  BEGIN INSERT INTO attribution_roles.u VALUES (new.id, current_user); RETURN NULL; END $$;
ALTER FUNCTION definer() OWNER TO regress_audit_definer;
CREATE TRIGGER aa AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION definer();
CREATE FUNCTION put(n int) RETURNS void SECURITY DEFINER LANGUAGE sql AS 'INSERT INTO attribution_roles.u VALUES (n, current_user)';
ALTER FUNCTION put(int) OWNER TO regress_audit_definer;
SELECT max(row) AS seen, count(*) AS n FROM who \gset
BEGIN;
SET LOCAL ROLE regress_audit_writer;
INSERT INTO t SELECT generate_series(11, 13);
SELECT count(put(n)) FROM generate_series(21, 22) n;
INSERT INTO t VALUES (14);
RESET ROLE;
COMMIT;
SELECT row - :seen AS row, db_user, db_role, table_name, record_id FROM who OFFSET :n;
SELECT DISTINCT v FROM u;

-- require
SET client_min_messages = warning;
SELECT audit_log.enable('t', require => '{user_id,reason,"a b"}');
RESET client_min_messages;
SET ROLE regress_audit_writer;
INSERT INTO t VALUES (31);
SELECT count(*) FROM t WHERE id = 31;
BEGIN;
SELECT audit_log.set_context('ann');
SAVEPOINT a;
UPDATE t SET v = 'x';
ROLLBACK TO a;
UPDATE t SET v = v;             -- changes nothing: nothing is asked
DELETE FROM t WHERE false;
SELECT audit_log.set_context('ann', '{"reason": null, "a b": 1}');
SAVEPOINT a;
DELETE FROM t WHERE id = 1;
ROLLBACK TO a;
SELECT audit_log.set_context('ann', '{"deeper": {"reason": 1, "a b": 1}}');
SAVEPOINT a;
DELETE FROM t WHERE id = 1;
ROLLBACK TO a;
SET LOCAL audit_log.context = '["reason", "a b"]';
SAVEPOINT a;
DELETE FROM t WHERE id = 1;
ROLLBACK TO a;
SELECT audit_log.set_context('', '{"reason": "", "a b": false}');
SAVEPOINT a;
DELETE FROM t WHERE id = 1;
ROLLBACK TO a;
SELECT audit_log.set_context('ann', '{"reason": "", "a b": false}');
DELETE FROM t WHERE id = 1;
COMMIT;
RESET ROLE;
TRUNCATE t;
-- a row's own claim will do for user_id
SET client_min_messages = warning;
SELECT audit_log.enable('t', require => '{user_id}', user_column => 'v');
RESET client_min_messages;
INSERT INTO t VALUES (41, 'claimed');
INSERT INTO t VALUES (42, NULL);
DELETE FROM t WHERE id = 41;
-- nothing is asked of replicated changes; they are logged with always only
BEGIN;
SET LOCAL session_replication_role = replica;
SELECT count(*) AS n FROM who \gset
INSERT INTO t VALUES (51);
SELECT table_name, record_id FROM who OFFSET :n;
COMMIT;
SET client_min_messages = warning;
SELECT audit_log.enable('t', always => true);
RESET client_min_messages;
BEGIN;
SET LOCAL session_replication_role = replica;
INSERT INTO t VALUES (52);
UPDATE t SET v = NULL;
SELECT table_name, record_id FROM who OFFSET :n;
COMMIT;
DELETE FROM t WHERE id = 52;
SET client_min_messages = warning;
SELECT audit_log.enable('t', always => false, require => '{}');
RESET client_min_messages;
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 't'::regclass AND tgname LIKE 'audit%' ORDER BY 1;
SELECT count(*) AS n FROM who \gset
BEGIN;
SET LOCAL session_replication_role = replica;
DELETE FROM t WHERE id = 52;
COMMIT;
INSERT INTO t VALUES (53);
SELECT table_name, record_id FROM who OFFSET :n;

SET client_min_messages = warning;
DROP SCHEMA attribution_roles CASCADE;
DROP ROLE regress_audit_writer, regress_audit_other, regress_audit_definer;
