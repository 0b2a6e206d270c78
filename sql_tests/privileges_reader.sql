--
-- What a reader sees through the views and functions: the tables on which he
-- has SELECT on all columns, and none whose row security applies to him.
-- edge cases 93, 97, 99, 101
--
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE ROLE regress_reader;
CREATE ROLE regress_bypass BYPASSRLS;
CREATE ROLE regress_stranger;
CREATE SCHEMA pr;
GRANT USAGE ON SCHEMA pr TO PUBLIC;
CREATE TABLE pr."all" (id int PRIMARY KEY, body text);
CREATE TABLE pr.columns (LIKE pr."all" INCLUDING ALL);
CREATE TABLE pr.some (LIKE pr."all" INCLUDING ALL);
CREATE TABLE pr.policy (LIKE pr."all" INCLUDING ALL);
CREATE TABLE pr.forced (LIKE pr."all" INCLUDING ALL);
CREATE TABLE pr.owned (LIKE pr."all" INCLUDING ALL);
CREATE TABLE pr.none (LIKE pr."all" INCLUDING ALL);
CREATE TABLE pr.insertonly (LIKE pr."all" INCLUDING ALL);
CREATE TABLE pr.dropped (LIKE pr."all" INCLUDING ALL);
CREATE TABLE pr.parted (id int PRIMARY KEY, body text) PARTITION BY RANGE (id);
CREATE TABLE pr.part1 PARTITION OF pr.parted FOR VALUES FROM (0) TO (10);
SELECT audit_log.enable_schema('pr');
GRANT SELECT ON pr."all", pr.policy, pr.dropped TO regress_reader;
GRANT SELECT (id), SELECT (body) ON pr.columns TO regress_reader;
GRANT SELECT (id) ON pr.some TO regress_reader;
GRANT SELECT ON pr.part1 TO regress_reader;      -- the table is pr.parted
GRANT INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON pr.insertonly TO regress_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA pr TO regress_bypass;
ALTER TABLE pr.policy ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON pr.policy USING (true);
ALTER TABLE pr.forced OWNER TO regress_reader;
ALTER TABLE pr.forced ENABLE ROW LEVEL SECURITY;
ALTER TABLE pr.forced FORCE ROW LEVEL SECURITY;
ALTER TABLE pr.owned OWNER TO regress_reader;
ALTER TABLE pr.owned ENABLE ROW LEVEL SECURITY;

BEGIN;
SELECT audit_log.set_context('pr_user', '{"why": "secret reason"}');
INSERT INTO pr."all" VALUES (1, 'all');
INSERT INTO pr.columns VALUES (1, 'columns');
COMMIT;
BEGIN;
SELECT audit_log.set_context('pr_user');
INSERT INTO pr.some VALUES (1, 'some');
INSERT INTO pr.policy VALUES (1, 'policy');
INSERT INTO pr.forced VALUES (1, 'forced');
INSERT INTO pr.none VALUES (1, 'none');
INSERT INTO pr.insertonly VALUES (1, 'insertonly');
INSERT INTO pr.dropped VALUES (1, 'dropped');
INSERT INTO pr.parted VALUES (1, 'parted');
COMMIT;
BEGIN;
SELECT audit_log.set_context('pr_user');
INSERT INTO pr.owned VALUES (1, 'owned');
INSERT INTO pr.none VALUES (2, 'none');
COMMIT;
DROP TABLE pr.dropped;

-- all that the views show of schema pr, in one line a view
CREATE FUNCTION pr.seen() RETURNS TABLE (place text, tables text) LANGUAGE sql AS $$
    SELECT 'audit_logs', string_agg(l.table_name || ':' || (l.changes ->> 'body'), ' ' ORDER BY l.table_name, l.id)
      FROM audit_log.audit_logs l WHERE l.table_schema = 'pr'
    UNION ALL
    SELECT 'column_changes', string_agg(table_name || ':' || (new_value #>> '{}'), ' ' ORDER BY table_name, change_id)
      FROM audit_log.column_changes WHERE table_schema = 'pr' AND column_name = 'body'
    UNION ALL
    SELECT 'transactions', string_agg(t.changes || ':' || array_to_string(t.tables, ','), ' ' ORDER BY t.id)
      FROM audit_log.transactions t WHERE t.user_id = 'pr_user'
    UNION ALL
    SELECT 'tracked_tables', string_agg(t.table_name, ' ' ORDER BY t.table_name)
      FROM audit_log.tracked_tables t WHERE t.table_schema = 'pr'
    UNION ALL
    SELECT 'visible_table', string_agg(t.table_name, ' ' ORDER BY t.table_name)
      FROM audit_log.visible_table t WHERE t.table_schema = 'pr'
    UNION ALL
    SELECT 'user_changes', string_agg(u.table_name, ' ' ORDER BY u.table_name, u.id)
      FROM audit_log.user_changes('pr_user') u
$$;
-- table_changes() and rebuild(), table by table
CREATE FUNCTION pr.asked() RETURNS TABLE (name text, table_changes text, rebuild text) LANGUAGE plpgsql AS $$
BEGIN
    FOR name IN SELECT c.relname FROM pg_class c
                 WHERE c.relnamespace = 'pr'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY c.relname COLLATE "C" LOOP
        BEGIN
            EXECUTE format('SELECT string_agg(c.changes ->> ''body'', '' '') FROM audit_log.table_changes(%L) c',
                format('pr.%I', name)) INTO table_changes;
        EXCEPTION WHEN insufficient_privilege THEN
            table_changes := sqlerrm;
        END;
        BEGIN
            EXECUTE format('SELECT string_agg(r.body, '' '' ORDER BY r.id) FROM audit_log.rebuild(NULL::pr.%I) r', name) INTO rebuild;
        EXCEPTION WHEN insufficient_privilege THEN
            rebuild := sqlerrm;
        END;
        RETURN NEXT;
    END LOOP;
END
$$;

-- before grant_read: nothing
SET ROLE regress_reader;
SELECT * FROM audit_log.audit_logs;
SELECT * FROM audit_log.table_changes('pr."all"');
SELECT * FROM audit_log.rebuild(NULL::pr."all");
SELECT audit_log.grant_read('regress_reader');
RESET ROLE;
SELECT audit_log.grant_read('regress_reader'), audit_log.grant_read('regress_bypass'), audit_log.grant_read('regress_stranger');

SET ROLE regress_reader;
SELECT * FROM pr.seen();
SELECT * FROM pr.asked();
-- the setting does not open it, and does not make the views fail
SET row_security = off;
SELECT * FROM pr.seen() WHERE place = 'audit_logs';
RESET row_security;
-- grant_read is the views' and functions', not the tables'
SELECT count(*) FROM audit_log.change;
SELECT count(*) FROM audit_log.transaction;
SELECT count(*) FROM audit_log.table_state;
SELECT audit_log.enable('pr.owned');
SELECT audit_log.grant_read('regress_stranger');
CALL audit_log.maintain();
SELECT audit_log.check();
SELECT audit_log.mask_key();

-- what a function pushed into the view would tell of what is not his
CREATE TEMP TABLE leaked (by_way_of text, value text);
CREATE FUNCTION pg_temp.leak(by_way_of text, value text) RETURNS boolean COST 0.0000001 LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO leaked VALUES (by_way_of, value); RETURN true; END $$;
SELECT count(*) FROM audit_log.audit_logs
 WHERE table_schema = 'pr' AND user_id = 'pr_user' AND pg_temp.leak('audit_logs', changes ->> 'body');
SELECT count(*) FROM audit_log.column_changes
 WHERE table_schema = 'pr' AND column_name = 'body' AND pg_temp.leak('column_changes', new_value #>> '{}');
SELECT count(*) FROM audit_log.transactions WHERE user_id = 'pr_user' AND pg_temp.leak('transactions', changes::text);
SELECT count(*) FROM audit_log.tracked_tables WHERE table_schema = 'pr' AND pg_temp.leak('tracked_tables', table_name);
SELECT count(*) FROM audit_log.visible_table WHERE table_schema = 'pr' AND pg_temp.leak('visible_table', table_name);
SELECT count(*) FROM audit_log.user_changes('pr_user') WHERE pg_temp.leak('user_changes', table_name);
SELECT * FROM leaked WHERE value IS DISTINCT FROM 'never' ORDER BY 1, 2;
-- an error that names a value
SELECT count(*) FROM audit_log.audit_logs WHERE table_schema = 'pr' AND table_name NOT IN ('all', 'columns', 'owned') AND (changes ->> 'body')::int > 0;
-- his rights count in his own view, those of the one who asks in another's
CREATE TEMP VIEW mine AS SELECT table_schema, table_name FROM audit_log.audit_logs;
GRANT SELECT ON mine TO regress_stranger;
SET ROLE regress_stranger;
SELECT count(*) FROM mine WHERE table_schema = 'pr';
SELECT * FROM pr.seen();
SET ROLE regress_bypass;
SELECT * FROM pr.seen();
-- the caller's role is that of the function which calls
RESET ROLE;
CREATE FUNCTION pr.as_reader() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT count(*) FROM audit_log.table_changes('pr.owned') $$;
ALTER FUNCTION pr.as_reader() OWNER TO regress_reader;
SET ROLE regress_stranger;
SELECT pr.as_reader();
SELECT * FROM audit_log.table_changes('pr.owned');

-- a column more, and column-wise grants no longer are all; a policy more; a REVOKE
RESET ROLE;
ALTER TABLE pr.columns ADD more int;
ALTER TABLE pr."all" ENABLE ROW LEVEL SECURITY;
REVOKE SELECT (id) ON pr.columns FROM regress_reader;
SET ROLE regress_reader;
SELECT * FROM pr.seen() WHERE place IN ('audit_logs', 'user_changes');
RESET ROLE;
ALTER TABLE pr."all" DISABLE ROW LEVEL SECURITY;
GRANT SELECT (id, more) ON pr.columns TO regress_reader;
SET ROLE regress_reader;
SELECT * FROM pr.seen() WHERE place IN ('audit_logs', 'user_changes');

-- a name made again is another table, whoever made it
RESET ROLE;
GRANT CREATE ON SCHEMA pr TO regress_reader;
SET ROLE regress_reader;
CREATE TABLE pr.dropped (id int PRIMARY KEY, body text);
SELECT * FROM pr.seen() WHERE tables LIKE '%dropped%';
SELECT count(*) FROM audit_log.table_changes('pr.dropped');
DROP TABLE pr.dropped;
CREATE VIEW pr.dropped AS SELECT 1 AS id;
SELECT * FROM pr.seen() WHERE tables LIKE '%dropped%';
SELECT count(*) FROM audit_log.table_changes('pr.dropped');
DROP VIEW pr.dropped;
CREATE TYPE pr.dropped AS (id int, body text);
SELECT * FROM audit_log.rebuild(NULL::pr.dropped);
DROP TYPE pr.dropped;
RESET ROLE;
-- also when the table was given up before, and its name then left by any way there is
SELECT audit_log.disable('pr.none'), audit_log.disable('pr.some'), audit_log.disable('pr.policy');
ALTER TABLE pr.none RENAME TO none_before;
ALTER INDEX pr.some RENAME TO some_before;
CREATE SCHEMA pr2;
ALTER TABLE pr.policy SET SCHEMA pr2;
ALTER SCHEMA pr2 RENAME TO pr3;
SET ROLE regress_reader;
CREATE TABLE pr.none (id int PRIMARY KEY, body text);
CREATE TABLE pr.some (id int PRIMARY KEY, body text);
CREATE TABLE pr.policy (id int PRIMARY KEY, body text);
SELECT * FROM pr.seen() WHERE place IN ('audit_logs', 'tracked_tables');
SELECT count(*) FROM audit_log.table_changes('pr.none');
RESET ROLE;
CREATE SCHEMA pr2 AUTHORIZATION regress_reader CREATE TABLE policy (id int, body text);
SET ROLE regress_reader;
SELECT count(*) FROM audit_log.audit_logs WHERE table_schema LIKE 'pr_';
RESET ROLE;
SELECT t.table_schema, t.table_name, t.dropped_at IS NULL AS live,
       (SELECT array_agg(s.kind ORDER BY s.id) FROM audit_log.table_state s WHERE s.table_id = t.id) AS states
  FROM audit_log.tracked_table t
 WHERE t.table_schema IN ('pr', 'pr2', 'pr3') AND t.table_name ~ 'none|some|policy|dropped' ORDER BY t.table_name COLLATE "C";

-- a uid can be read in the catalogs, and does not lead to the log of its table
SELECT substring(encode(t.tgargs, 'escape') FROM 'table=[0-9a-f-]{36}') AS uid
  FROM pg_trigger t WHERE t.tgrelid = 'pr.insertonly'::regclass AND t.tgname = 'audit_log_row' \gset
SELECT audit_log.disable('pr.insertonly'), audit_log.grant_admin('regress_reader');
SET ROLE regress_reader;
\set ECHO none
SELECT format('CREATE TRIGGER forge AFTER INSERT ON pr.some FOR EACH ROW EXECUTE FUNCTION audit_log.capture(%L)', :'uid') \gexec
\set ECHO all
INSERT INTO pr.some VALUES (7, 'forged');
SELECT table_name, changes FROM audit_log.audit_logs WHERE changes ->> 'body' IN ('insertonly', 'forged');
RESET ROLE;
SELECT table_name, changes FROM audit_log.audit_logs WHERE changes ->> 'body' IN ('insertonly', 'forged') ORDER BY id;
-- nor may a temporary table, whose name is another's later, be audited
SET ROLE regress_reader;
CREATE TEMP TABLE passing (id int);
CREATE TRIGGER forge AFTER INSERT ON passing FOR EACH ROW EXECUTE FUNCTION audit_log.capture();
INSERT INTO passing VALUES (1);
RESET ROLE;

SELECT audit_log.revoke_read('regress_reader'), audit_log.revoke_admin('regress_reader');
SET ROLE regress_reader;
SELECT * FROM audit_log.audit_logs;
SELECT audit_log.enable('pr.owned');
RESET ROLE;
-- what is kept of dropped tables is for superusers
SELECT table_name, changes FROM audit_log.audit_logs WHERE table_schema = 'pr' AND table_name = 'dropped';
DROP VIEW mine;
DROP SCHEMA pr, pr2, pr3 CASCADE;
SELECT audit_log.revoke_read('regress_bypass'), audit_log.revoke_read('regress_stranger');
DROP OWNED BY regress_reader, regress_bypass, regress_stranger;
DROP ROLE regress_reader, regress_bypass, regress_stranger;
