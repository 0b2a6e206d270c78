-- Bad input: a clear error, and nothing half done.
-- edge cases 34, 66, 97
\set SHOW_CONTEXT never
CREATE SCHEMA settings_refused;
SET search_path = settings_refused;
CREATE TABLE t (id int, "K 2" int, v text, PRIMARY KEY (id, "K 2"));
CREATE VIEW v AS SELECT * FROM t;
CREATE MATERIALIZED VIEW mv AS SELECT * FROM t;
CREATE SEQUENCE s;
CREATE TYPE c AS (a int);
CREATE INDEX t_v ON t (v);
CREATE TEMPORARY TABLE temp (id int);
CREATE FOREIGN DATA WRAPPER settings_refused_fdw;
CREATE SERVER settings_refused_server FOREIGN DATA WRAPPER settings_refused_fdw;
CREATE FOREIGN TABLE f (id int) SERVER settings_refused_server;
CREATE TABLE p (id int) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TABLE pf (id int) PARTITION BY RANGE (id);
CREATE FOREIGN TABLE pf1 PARTITION OF pf FOR VALUES FROM (0) TO (10) SERVER settings_refused_server;
-- what is no table to be tracked
SELECT audit_log.enable('v');
SELECT audit_log.enable('mv');
SELECT audit_log.enable('s');
SELECT audit_log.enable('c');
SELECT audit_log.enable('t_v');
SELECT audit_log.enable('temp');
SELECT audit_log.enable('f');
SELECT audit_log.enable('p1');
SELECT audit_log.enable('pf');
SELECT audit_log.enable('pg_class');
SELECT audit_log.enable('pg_catalog.pg_authid');
SELECT audit_log.enable('information_schema.sql_features');
SELECT audit_log.enable('audit_log.change');
SELECT audit_log.enable('audit_log.transaction');
SELECT audit_log.enable('audit_log.tracked_table');
SELECT audit_log.enable('audit_log.change_default');
SELECT audit_log.enable('audit_log.audit_logs');
SELECT audit_log.enable(NULL);
SELECT audit_log.enable('no_such_table');
SELECT audit_log.enable(0::oid::regclass);
SELECT audit_log.enable(4294967295::oid::regclass);
-- nor can a foreign table become a partition of a tracked one, as it comes or later
CREATE FOREIGN TABLE pf2 (id int) SERVER settings_refused_server;
BEGIN;
SELECT audit_log.enable('p');
SAVEPOINT a;
CREATE FOREIGN TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20) SERVER settings_refused_server;
ROLLBACK TO a;
ALTER TABLE p ATTACH PARTITION pf2 FOR VALUES FROM (20) TO (30);
ROLLBACK TO a;
ALTER TABLE p ADD v text;
ROLLBACK;
-- a trigger of the user's under a name that we need stays what it is
CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'mine: %', TG_NAME; RETURN NULL; END $$;
CREATE TRIGGER audit_log_flush AFTER INSERT ON p1 FOR EACH STATEMENT EXECUTE FUNCTION theirs();
CREATE TABLE named (id int);
CREATE TRIGGER audit_log_row AFTER INSERT ON named FOR EACH ROW EXECUTE FUNCTION theirs();
SELECT audit_log.enable('p');
SELECT audit_log.enable('named');
INSERT INTO p1 VALUES (1);
INSERT INTO named VALUES (1);
DROP TABLE named;
ALTER TABLE p DETACH PARTITION p1;
BEGIN;
SELECT audit_log.enable('p');
ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (0) TO (10);
ROLLBACK;
DROP TRIGGER audit_log_flush ON p1;
-- settings that cannot be
SELECT audit_log.enable('t', exclude => '{nothing}');
SELECT audit_log.enable('t', exclude => '{v,V}');
SELECT audit_log.enable('t', exclude => '{ctid}');
SELECT audit_log.enable('t', include => '{"k 2"}');
SELECT audit_log.enable('t', mask => '{v,"x; DROP TABLE t"}');
SELECT audit_log.enable('t', exclude => '{"K 2"}');
SELECT audit_log.enable('t', exclude => '{id}');
SELECT audit_log.enable('t', exclude => '{v}', include => '{v}');
SELECT audit_log.enable('t', exclude => '{v}', mask => '{v}');
SELECT audit_log.enable('t', include => '{id}', mask => '{v}');
SELECT audit_log.enable('t', exclude => '{NULL}');
SELECT audit_log.enable('t', mask => '{v,NULL}');
SELECT audit_log.enable('t', user_column => 'nothing');
SELECT audit_log.enable('t', actions => '{insert,upsert}');
SELECT audit_log.enable('t', actions => '{NULL}');
SELECT audit_log.enable('t', on_truncate => 'maybe');
SELECT audit_log.enable('t', require => '{NULL}');
SELECT audit_log.enable('t', require => '{""}');
-- conditions
SELECT audit_log.enable('t', condition => 'new.id >');
SELECT audit_log.enable('t', condition => 'new.nothing > 1');
SELECT audit_log.enable('t', condition => 'id > 1');
SELECT audit_log.enable('t', condition => 'new.id');
SELECT audit_log.enable('t', condition => 'new.id > 1, true');
SELECT audit_log.enable('t', condition => 'true; DROP TABLE t');
SELECT audit_log.enable('t', condition => 'true FROM t');
SELECT audit_log.enable('t', condition => 'new.id IN (SELECT 1)');
SELECT audit_log.enable('t', condition => 'count(*) > 1');
SELECT audit_log.enable('t', condition => 'sum(new.id) OVER () > 1');
SELECT audit_log.enable('t', condition => 'generate_series(1, new.id) > 1');
SELECT audit_log.enable('t', condition => 'new.ctid IS NULL');
SELECT audit_log.enable('t', condition => '$1 > 1');
\set VERBOSITY terse
SELECT audit_log.enable('t', condition => 'no_such_function(new.id)');
\set VERBOSITY default
SELECT audit_log.enable('t', condition => 'new.id > ''x''');
-- other functions
SELECT audit_log.disable('t');
SELECT audit_log.disable('v');
SELECT audit_log.pause('t', 'not tracked');
SELECT audit_log.enable_schema('no_such_schema');
SELECT audit_log.enable_schema('audit_log');
SELECT audit_log.enable_schema('pg_catalog');
SELECT audit_log.enable_schema('settings_refused', auto => true, condition => 'true');
SELECT audit_log.enable_schema(NULL);
-- nothing half done
SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace = 'settings_refused'::regnamespace;
SELECT table_name FROM audit_log.tracked_table WHERE table_schema = 'settings_refused';
SELECT count(*) FROM audit_log.tracked_schema WHERE schema_name = 'settings_refused';
-- nor of a table that is tracked already
SET client_min_messages = warning;
SELECT audit_log.enable('t', mask => '{v}');
RESET client_min_messages;
SELECT audit_log.enable('t', mask => '{}', exclude => '{id}');
SELECT audit_log.enable('t', mask => '{}', condition => 'new.nothing > 1');
SELECT settings FROM audit_log.tracked_table WHERE table_schema = 'settings_refused';
SELECT kind FROM audit_log.table_state s JOIN audit_log.tracked_table t ON t.id = s.table_id WHERE table_schema = 'settings_refused';

-- who may: nobody by default, an admin his own tables, a superuser all
CREATE ROLE regress_audit_admin;
CREATE ROLE regress_audit_plain;
GRANT ALL ON SCHEMA settings_refused TO regress_audit_admin, regress_audit_plain;
SET ROLE regress_audit_plain;
CREATE TABLE plain (id int PRIMARY KEY);
SELECT audit_log.enable('plain');
SELECT audit_log.disable('plain');
SELECT audit_log.pause('plain', '');
SELECT audit_log.enable_schema('settings_refused');
CREATE TRIGGER c AFTER INSERT ON plain FOR EACH ROW EXECUTE FUNCTION audit_log.capture();
RESET ROLE;
SELECT audit_log.grant_admin('regress_audit_admin');
SET ROLE regress_audit_admin;
SELECT audit_log.enable('plain');
SELECT audit_log.enable('t');
SELECT audit_log.disable('t');
SELECT audit_log.pause('t', '');
SELECT audit_log.enable_schema('settings_refused');
SELECT audit_log.enable_schema('settings_refused', auto => true);
CREATE TABLE own (id int PRIMARY KEY);
SELECT audit_log.enable('own', always => true);
INSERT INTO own VALUES (1);
SELECT audit_log.pause('own', 'mine');
SELECT audit_log.disable('own');
CREATE TRIGGER c AFTER INSERT ON own FOR EACH ROW EXECUTE FUNCTION audit_log.capture();
INSERT INTO own VALUES (2);
RESET ROLE;
SELECT record_id FROM audit_log.audit_logs WHERE table_schema = 'settings_refused' ORDER BY id;
SELECT audit_log.revoke_admin('regress_audit_admin');
SET ROLE regress_audit_admin;
SELECT audit_log.enable('own');
RESET ROLE;

SET client_min_messages = warning;
DROP SCHEMA settings_refused CASCADE;
DROP TABLE temp;
DROP FOREIGN DATA WRAPPER settings_refused_fdw CASCADE;
DROP ROLE regress_audit_admin, regress_audit_plain;
