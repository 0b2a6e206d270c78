-- Version tables whose word is not enough: restored without the log, or without their owner, dropped, made again by
-- others. Nobody gets another table's versions by naming them, and nothing is written where it does not belong.
SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE ROLE regress_claims_owner;
CREATE ROLE regress_claims_other;
CREATE SCHEMA versions_claims;
GRANT ALL ON SCHEMA versions_claims TO regress_claims_owner, regress_claims_other;
SET search_path = versions_claims;
DO $$ BEGIN PERFORM audit_log.grant_admin('regress_claims_owner'), audit_log.grant_admin('regress_claims_other'); END $$;
CREATE VIEW readers AS SELECT c.relname, pg_get_userbyid(c.relowner) !~ '^regress_claims' AS ours,
       (SELECT string_agg(a.grantee::regrole::text || CASE WHEN a.is_grantable THEN '*' ELSE '' END, ' ' ORDER BY a.grantee::regrole::text) FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner) AS readers
  FROM pg_class c WHERE c.relkind = 'r' AND c.relname ~ '_version$' AND c.relnamespace = 'versions_claims'::regnamespace ORDER BY 1;

-- as a dump of the schema alone brings them: a version table of ours with versions in it, its key, and nothing known of it
CREATE FUNCTION restore(name text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        EXECUTE format('CREATE TABLE %1$I (id int, v text, transaction_id bigint, end_transaction_id bigint, operation_type smallint NOT NULL,
            valid_from timestamptz NOT NULL, valid_to timestamptz, PRIMARY KEY (id, transaction_id))', name);
        EXECUTE format('INSERT INTO %I VALUES (1, ''first'', 1, 2, 0, ''2020-01-01'', ''2020-01-02''), (1, ''secret'', 2, NULL, 1, ''2020-01-02'', NULL)', name);
    END $$;
SELECT restore('mine_version');
-- another's trigger names it: it gets nothing, writes nothing, by no way
SET ROLE regress_claims_other;
CREATE TABLE thief (id int PRIMARY KEY, v text);
CREATE TRIGGER audit_log_row AFTER INSERT OR UPDATE OR DELETE ON thief FOR EACH ROW EXECUTE FUNCTION audit_log.capture('versioned=true', 'version_table=mine_version');
INSERT INTO thief VALUES (1, 'forged');
INSERT INTO thief VALUES (9, 'forged');
ALTER TABLE thief ADD COLUMN w int;
GRANT SELECT ON thief TO regress_claims_other;
SELECT audit_log.enable('thief');
SELECT audit_log.disable('thief');
INSERT INTO thief VALUES (8, 'not tracked');
CREATE TRIGGER audit_log_row AFTER INSERT OR UPDATE OR DELETE ON thief FOR EACH ROW EXECUTE FUNCTION audit_log.capture('versioned=true', 'version_table=mine_version');
INSERT INTO thief VALUES (9, 'forged');
CREATE TABLE mine (id int PRIMARY KEY, v text);
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON mine FOR EACH ROW EXECUTE FUNCTION audit_log.capture('versioned=true');
INSERT INTO mine VALUES (9, 'forged');
DROP TABLE mine;
RESET ROLE;
SELECT * FROM readers;
SELECT relation, problem FROM audit_log.check() WHERE relation ~ 'claims';
-- while two name it, neither has it
CREATE TABLE mine (id int PRIMARY KEY, v text);
INSERT INTO mine VALUES (1, 'secret');
CREATE TRIGGER audit_log_row AFTER INSERT OR UPDATE OR DELETE ON mine FOR EACH ROW EXECUTE FUNCTION audit_log.capture('versioned=true', 'version_table=mine_version');
UPDATE mine SET v = 'third';
SELECT audit_log.enable('mine');
SELECT relation, problem FROM audit_log.check() WHERE relation ~ 'claims' ORDER BY 1;
DROP TRIGGER audit_log_row ON thief;
UPDATE mine SET v = 'third';
SELECT v, operation_type, transaction_id > 2 AS new, end_transaction_id IS NULL AS open FROM mine_version ORDER BY transaction_id;
SELECT audit_log.enable('mine');
SELECT relation, problem FROM audit_log.check() WHERE relation ~ 'claims';
-- known now: a further trigger does not come near it, nor keep the owner from it
SET ROLE regress_claims_other;
CREATE TRIGGER audit_log_row AFTER INSERT OR UPDATE OR DELETE ON thief FOR EACH ROW EXECUTE FUNCTION audit_log.capture('versioned=true', 'version_table=mine_version');
INSERT INTO thief VALUES (9, 'forged');
RESET ROLE;
UPDATE mine SET v = 'fourth';
SELECT audit_log.enable('mine');
SELECT count(*) FROM mine_version;
DROP TABLE thief, mine, mine_version;

-- the table's owner, who might let others read it, goes on with his own; one without that right does not, until a superuser says so
SELECT restore('a_version'), restore('b_version'), restore('c_version');
GRANT SELECT ON a_version TO regress_claims_owner WITH GRANT OPTION;
GRANT SELECT ON b_version TO regress_claims_owner;
DELETE FROM c_version;
SET ROLE regress_claims_owner;
CREATE TABLE a (id int PRIMARY KEY, v text);
CREATE TABLE b (id int PRIMARY KEY, v text);
CREATE TABLE c (id int PRIMARY KEY, v text);
INSERT INTO a VALUES (1, 'secret');
INSERT INTO b VALUES (1, 'secret');
DO $$ BEGIN FOR i IN 1 .. 3 LOOP
    EXECUTE format('CREATE TRIGGER audit_log_row AFTER INSERT OR UPDATE OR DELETE ON %1$I FOR EACH ROW EXECUTE FUNCTION audit_log.capture(''versioned=true'', ''version_table=%1$s_version'')', chr(96 + i));
END LOOP; END $$;
UPDATE a SET v = 'third';
UPDATE b SET v = 'third';
INSERT INTO c VALUES (1, 'first');
SELECT audit_log.enable('b');
RESET ROLE;
SELECT audit_log.enable('b');
SET ROLE regress_claims_owner;
UPDATE b SET v = 'third';
SELECT v, operation_type, end_transaction_id IS NULL AS open FROM b_version ORDER BY transaction_id;
RESET ROLE;
SELECT * FROM readers;
SELECT count(*) FROM a_version;
SELECT v, operation_type FROM c_version;
SELECT audit_log.enable('a'), audit_log.enable('c');

-- restored without its owner: of the table's owner, or of somebody else
ALTER TABLE a_version OWNER TO regress_claims_owner;
ALTER TABLE b_version OWNER TO regress_claims_other;
SELECT relation, problem, remedy FROM audit_log.check() WHERE relation ~ 'claims' ORDER BY 1;
SET ROLE regress_claims_owner;
UPDATE a SET v = 'fourth';
UPDATE b SET v = 'fourth';
RESET ROLE;
SELECT audit_log.repair() AS repaired;
SELECT relation, problem, remedy FROM audit_log.check() WHERE relation ~ 'claims' ORDER BY 1;
SELECT * FROM readers;
SET ROLE regress_claims_owner;
UPDATE a SET v = 'fifth';
UPDATE b SET v = 'fifth';
RESET ROLE;
SELECT (SELECT count(*) FROM a_version), (SELECT count(*) FROM b_version);
-- enable() takes one back, too
ALTER TABLE b_version OWNER TO regress_claims_other;
SELECT audit_log.enable('b');
SELECT * FROM readers;

-- the owner of the schema drops one: changes are refused, not unnoticed, until it is made again
ALTER SCHEMA versions_claims OWNER TO regress_claims_owner;
SET ROLE regress_claims_owner;
DROP TABLE a_version;
UPDATE a SET v = 'sixth';
DELETE FROM a;
TRUNCATE a;
RESET ROLE;
SELECT relation, problem, remedy FROM audit_log.check() WHERE relation ~ 'claims' ORDER BY 1;
SELECT audit_log.repair() AS repaired;
-- a table put in its place is nothing of ours: read and written as its owner's only
SET ROLE regress_claims_owner;
CREATE VIEW a_version AS SELECT 1 AS id;
UPDATE a SET v = 'sixth';
DROP VIEW a_version;
CREATE TABLE a_version (LIKE b_version);
UPDATE a SET v = 'sixth';
ALTER TABLE a_version ADD PRIMARY KEY (id, transaction_id);
UPDATE a SET v = 'sixth';
RESET ROLE;
SELECT relation, problem, remedy FROM audit_log.check() WHERE relation ~ 'claims' ORDER BY 1;
SET ROLE regress_claims_owner;
SELECT audit_log.enable('a');
UPDATE a SET v = 'seventh';
SELECT v, operation_type, end_transaction_id IS NULL AS open FROM a_version ORDER BY transaction_id;
RESET ROLE;
SELECT * FROM readers;
SELECT relation, problem, remedy FROM audit_log.check() WHERE relation ~ 'claims' ORDER BY 1;
-- and a column
ALTER TABLE b_version DROP COLUMN v;
UPDATE b SET v = 'seventh';
SELECT relation, problem, remedy FROM audit_log.check() WHERE relation ~ 'claims' ORDER BY 1;
SELECT audit_log.enable('b');
UPDATE b SET v = 'seventh';
SELECT v, operation_type, end_transaction_id IS NULL AS open FROM b_version ORDER BY transaction_id;
ALTER TABLE b_version DROP COLUMN valid_to;
UPDATE b SET v = 'eighth';
SELECT relation, problem, remedy FROM audit_log.check() WHERE relation ~ 'claims' ORDER BY 1;
SELECT audit_log.enable('b');
UPDATE b SET v = 'eighth';
SELECT relation, problem, remedy FROM audit_log.check() WHERE relation ~ 'claims' ORDER BY 1;
ALTER TABLE b_version DROP COLUMN transaction_id;
UPDATE b SET v = 'ninth';
SELECT relation, problem, remedy FROM audit_log.check() WHERE relation ~ 'claims' ORDER BY 1;
SELECT audit_log.enable('b');

SET client_min_messages = error;
DROP SCHEMA versions_claims CASCADE;
DROP OWNED BY regress_claims_owner, regress_claims_other;
DROP ROLE regress_claims_owner, regress_claims_other;
