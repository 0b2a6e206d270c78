--
-- grant_admin: tables that the role owns, and no others; and nothing that the
-- owner of a table wrote is ever run with other rights than his own
-- edge cases 70, 92, 93, 97, 98
--
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE ROLE regress_group;
CREATE ROLE regress_admin;
GRANT regress_group TO regress_admin;
CREATE ROLE regress_owner;
CREATE SCHEMA pa;
GRANT USAGE, CREATE ON SCHEMA pa TO regress_group, regress_admin, regress_owner;
CREATE TABLE pa.mine (id int PRIMARY KEY, body text);
CREATE TABLE pa.ours (LIKE pa.mine INCLUDING ALL);
CREATE TABLE pa.others (LIKE pa.mine INCLUDING ALL);
CREATE TABLE pa.parted (id int PRIMARY KEY, body text) PARTITION BY RANGE (id);
CREATE TABLE pa.part1 PARTITION OF pa.parted FOR VALUES FROM (0) TO (10);
ALTER TABLE pa.mine OWNER TO regress_admin;
ALTER TABLE pa.ours OWNER TO regress_group;
ALTER TABLE pa.others OWNER TO regress_owner;
ALTER TABLE pa.part1 OWNER TO regress_admin;
INSERT INTO pa.mine VALUES (1, 'one');
SELECT audit_log.grant_admin('regress_admin');

-- the owner alone may not
SET ROLE regress_owner;
SELECT audit_log.enable('pa.others');
SELECT audit_log.disable('pa.others');
SELECT audit_log.pause('pa.others', 'x');
SELECT audit_log.enable_schema('pa');
CREATE TRIGGER audit AFTER INSERT ON pa.others FOR EACH ROW EXECUTE FUNCTION audit_log.capture();

-- the admin may, with what he owns, himself or through a role
SET ROLE regress_admin;
SELECT audit_log.enable('pa.mine'), audit_log.enable('pa.ours');
SELECT audit_log.enable('pa.others');
SELECT audit_log.enable('audit_log.transaction');
SELECT audit_log.enable('pg_catalog.pg_class');
SELECT audit_log.enable_schema('pa', auto => true);
SELECT audit_log.enable_schema('pa');
SELECT audit_log.pause('pa.mine', 'load'), audit_log.disable('pa.ours');
SELECT audit_log.pause('pa.others', 'x');
SELECT audit_log.disable('pa.others');
SELECT audit_log.mask_key();
SELECT audit_log.repair();
SELECT audit_log.grant_admin('regress_owner');
CALL audit_log.maintain();
SELECT count(*) FROM audit_log.audit_logs;
SELECT count(*) FROM audit_log.check() WHERE relation LIKE 'pa.%';
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON pa.ours FOR EACH ROW EXECUTE FUNCTION audit_log.capture('exclude=body');
INSERT INTO pa.ours VALUES (1, 'hidden');
CREATE TRIGGER audit AFTER INSERT ON pa.others FOR EACH ROW EXECUTE FUNCTION audit_log.capture();
RESET ROLE;
SELECT changes FROM audit_log.audit_logs WHERE relation = 'pa.ours'::regclass;
-- a partition's owner decides nothing about the table
SELECT audit_log.enable('pa.parted');
SET ROLE regress_admin;
SELECT audit_log.enable('pa.part1');
SELECT audit_log.pause('pa.part1', 'x');
SELECT audit_log.disable('pa.part1');
SELECT audit_log.enable('pa.parted');
-- current_user counts, not session_user: SET ROLE back and forth
SET ROLE regress_group;
SELECT audit_log.enable('pa.ours');
RESET ROLE;

-- what the owner of a table wrote: every place where it could be evaluated
SET ROLE regress_admin;
CREATE FUNCTION pa.evil(int) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN RAISE WARNING 'run as the owner: %', current_user = 'regress_admin'; RETURN true; END $$;
CREATE FUNCTION pa.evil_index(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
    $$ BEGIN RAISE WARNING 'index run as the owner: %', current_user = 'regress_admin'; RETURN $1; END $$;
CREATE FUNCTION pa.evil_trigger() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE WARNING 'trigger run as the owner: %', current_user = 'regress_admin'; RETURN NEW; END $$;
CREATE FUNCTION pa.evil_cast(pa.ours) RETURNS json LANGUAGE plpgsql AS
    $$ BEGIN RAISE WARNING 'cast run as the owner: %', current_user = 'regress_admin'; RETURN 'null'; END $$;
CREATE DOMAIN pa.number AS int;
CREATE TABLE pa.trap (id int PRIMARY KEY, d pa.number, o pa.ours, body text DEFAULT pa.evil_index('default'));
INSERT INTO pa.trap VALUES (1, 1, ROW (1, 'x'), 'body');
CREATE CAST (pa.ours AS json) WITH FUNCTION pa.evil_cast(pa.ours) AS IMPLICIT;
ALTER TABLE pa.trap ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY evil ON pa.trap USING (pa.evil(id));
CREATE TRIGGER evil AFTER TRUNCATE OR INSERT OR UPDATE OR DELETE ON pa.trap FOR EACH STATEMENT EXECUTE FUNCTION pa.evil_trigger();
\set VERBOSITY default
\set SHOW_CONTEXT never
-- (making these runs them, as him)
CREATE INDEX evil ON pa.trap (pa.evil_index(body));
ALTER DOMAIN pa.number ADD CHECK (pa.evil(VALUE));
\set VERBOSITY terse
RESET ROLE;
-- by a superuser, with a baseline: nothing is run
SELECT audit_log.enable('pa.trap', baseline => true);
SELECT audit_log.enable('pa.trap', mask => '{d,body}');
SELECT audit_log.disable('pa.trap');

-- conditions: read as who writes them
SET ROLE regress_admin;
SELECT audit_log.enable('pa.trap', condition => $$'{1}'::pa.number[] IS NOT NULL$$);
SET search_path = pa;
SELECT audit_log.enable('trap', condition => 'evil(new.id) AND old.body <> ''''');
RESET search_path;
-- evaluated as who writes the row, a baseline's as the table's owner
SELECT audit_log.enable('pa.trap', baseline => true);
RESET ROLE;
SELECT audit_log.enable('pa.trap', baseline => true);
SELECT settings ->> 'condition' FROM audit_log.tracked_tables WHERE relation = 'pa.trap'::regclass;
-- DDL by a superuser does not read them at all: here the constant would be evaluated
SELECT audit_log.disable('pa.trap');
SET ROLE regress_admin;
CREATE TRIGGER hand AFTER INSERT ON pa.trap FOR EACH ROW
    EXECUTE FUNCTION audit_log.capture($$condition='{1}'::pa.number[] IS NOT NULL AND NEW.body <> 'x'$$);
RESET ROLE;
DROP INDEX pa.evil;
ALTER TABLE pa.trap ADD another int;
ALTER TABLE pa.trap ALTER another TYPE bigint;
ALTER TABLE pa.trap RENAME TO trapped;
ALTER TABLE pa.trapped RENAME TO trap;
COMMENT ON COLUMN pa.trap.body IS 'no matter';
SELECT count(*) FROM audit_log.check() WHERE relation LIKE 'pa.trap%';

-- what a condition's function does has neither the log's rights nor its way
-- through the guards, and an error leaves none behind
CREATE TABLE pa.high (id int PRIMARY KEY);
INSERT INTO pa.high VALUES (1);
CREATE FUNCTION pa.tamper(int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM audit_log.change WHERE id = -1;
    RETURN true;
END $$;
SELECT audit_log.enable('pa.high', condition => 'pa.tamper(new.id)', baseline => true);
DO $$
BEGIN
    PERFORM audit_log.enable('pa.high', condition => 'pa.tamper(new.id)', baseline => true);
EXCEPTION WHEN others THEN
    RAISE WARNING 'caught: %', sqlerrm;
END $$;
DO $$
BEGIN
    PERFORM audit_log.enable('pa.nothing'::regclass);
EXCEPTION WHEN others THEN
    RAISE WARNING 'caught: %', sqlerrm;
END $$;
DO $$
BEGIN
    PERFORM audit_log.enable('pa.high', condition => '1 +');
EXCEPTION WHEN others THEN
    RAISE WARNING 'caught: %, search_path %', sqlerrm, current_setting('search_path') ~ 'public';
END $$;
DELETE FROM audit_log.change WHERE id = -1;

-- a masked column comes out in clear nowhere, not as the user either
CREATE TABLE pa.masked (id int PRIMARY KEY, who text);
SELECT audit_log.enable('pa.masked', mask => '{who}', user_column => 'who');
INSERT INTO pa.masked VALUES (1, 'secret'), (2, '');
SELECT record_id, user_id ~ '^[0-9a-f]{64}$' AS masked, user_id = changes ->> 'who' AS same
  FROM audit_log.audit_logs WHERE relation = 'pa.masked'::regclass ORDER BY id;

-- revoked: as before
SELECT audit_log.revoke_admin('regress_admin');
SET ROLE regress_admin;
SELECT audit_log.disable('pa.mine');
RESET ROLE;
-- bad roles
SELECT audit_log.grant_admin(NULL);
SELECT audit_log.grant_read('regress_nobody');
SELECT audit_log.grant_read('-');
DROP SCHEMA pa CASCADE;
DROP OWNED BY regress_admin, regress_group, regress_owner;
DROP ROLE regress_admin, regress_group, regress_owner;
