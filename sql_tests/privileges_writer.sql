--
-- A role that may INSERT, UPDATE and DELETE in a tracked table, and nothing
-- else: it writes, is logged, and reaches nothing of the log.
-- edge cases 34, 35, 70, 92, 94, 97, 98
--
\set VERBOSITY sqlstate
SET client_min_messages = warning;
CREATE ROLE regress_writer;
CREATE SCHEMA pw;
CREATE TABLE pw.doc (id int PRIMARY KEY, body text, price numeric);
CREATE SCHEMA pw_own AUTHORIZATION regress_writer;
GRANT USAGE ON SCHEMA pw TO regress_writer;
GRANT INSERT, UPDATE, DELETE ON pw.doc TO regress_writer;
GRANT SELECT (id) ON pw.doc TO regress_writer;
SELECT audit_log.enable('pw.doc');

-- what a statement ends with, said in the rights of whoever calls
CREATE FUNCTION pw.attempt(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE sql;
    RETURN 'done';
EXCEPTION WHEN others THEN
    RETURN sqlstate;
END
$$;
-- everything there is to try, by catalog: so that what comes later is tried too
CREATE VIEW pw.call AS
    SELECT p.oid::regprocedure::text AS name,
           format(CASE WHEN p.prokind = 'p' THEN 'CALL %s(%s)' ELSE 'SELECT %s(%s)' END, p.oid::regproc,
               (SELECT string_agg(CASE t.typname
                           WHEN 'anyelement' THEN 'NULL::pw.doc' WHEN 'regclass' THEN $$'pw.doc'::regclass$$
                           WHEN 'regrole' THEN $$'regress_writer'::regrole$$ WHEN 'oid' THEN '10::oid'
                           WHEN 'uuid' THEN 'gen_random_uuid()' WHEN 'interval' THEN $$'1 month'::interval$$
                           WHEN 'timestamptz' THEN 'now()' WHEN 'jsonb' THEN $$'{}'::jsonb$$
                           WHEN 'text' THEN $$'x'::text$$ WHEN 'name' THEN $$'x'::name$$
                           WHEN 'bool' THEN 'true' WHEN 'bytea' THEN $$'\x00'::bytea$$
                           WHEN 'int4' THEN '1' WHEN 'int8' THEN '1::bigint' WHEN 'xid8' THEN $$'1'::xid8$$
                           ELSE format($$'{}'::%s$$, t.oid::regtype) END, ', ' ORDER BY a.n)
                  FROM unnest(p.proargtypes) WITH ORDINALITY a (type, n) JOIN pg_type t ON t.oid = a.type)) AS sql
      FROM pg_proc p WHERE p.pronamespace = 'audit_log'::regnamespace;
CREATE VIEW pw.touch AS
    SELECT c.oid::regclass::text AS name, c.relkind::text AS kind, t.sql
      FROM pg_class c
     CROSS JOIN LATERAL (
         SELECT format(f, c.oid::regclass, (SELECT quote_ident(a.attname) FROM pg_attribute a
                                             WHERE a.attrelid = c.oid AND a.attnum = 1))
           FROM unnest(CASE WHEN c.relkind = 'S' THEN ARRAY[
                'SELECT nextval(%1$L)', 'SELECT setval(%1$L, 1)', 'SELECT currval(%1$L)', 'SELECT * FROM %1$s',
                'ALTER SEQUENCE %1$s RESTART', 'DROP SEQUENCE %1$s']
            ELSE ARRAY[
                'SELECT FROM %1$s', 'SELECT count(*) FROM %1$s', 'SELECT %2$s FROM %1$s', 'TABLE %1$s',
                'INSERT INTO %1$s DEFAULT VALUES', 'INSERT INTO %1$s (%2$s) VALUES (NULL)',
                'UPDATE %1$s SET %2$s = %2$s', 'DELETE FROM %1$s', 'TRUNCATE %1$s', 'LOCK TABLE %1$s IN ACCESS SHARE MODE',
                'SELECT 1 FROM %1$s FOR UPDATE', 'ALTER TABLE %1$s DISABLE TRIGGER ALL', 'ALTER TABLE %1$s ADD x int',
                'ALTER TABLE %1$s OWNER TO regress_writer', 'DROP TRIGGER audit_log_guard ON %1$s', 'DROP TABLE %1$s',
                'GRANT SELECT ON %1$s TO regress_writer', 'ALTER TABLE %1$s ENABLE ROW LEVEL SECURITY',
                'CREATE TRIGGER x BEFORE INSERT ON %1$s FOR EACH ROW EXECUTE FUNCTION pw_own.trap()',
                'CREATE RULE x AS ON INSERT TO %1$s DO INSTEAD NOTHING', 'CREATE POLICY x ON %1$s',
                'CREATE INDEX ON %1$s (%2$s)', 'CREATE STATISTICS pw_own.x ON (%2$s IS NULL) FROM %1$s',
                'CREATE TABLE pw_own.c () INHERITS (%1$s)',
                'CREATE VIEW pw_own.v AS SELECT * FROM %1$s; SELECT 1/(SELECT 1 + count(*) FROM pw_own.v)',
                'CREATE FUNCTION pw_own.f() RETURNS bigint LANGUAGE sql AS $f$ SELECT count(*) FROM %1$s $f$; SELECT pw_own.f()',
                'CREATE PUBLICATION x FOR TABLE %1$s', 'ALTER TABLE %1$s SET SCHEMA pw_own',
                'COMMENT ON TABLE %1$s IS NULL', 'CREATE TABLE pw_own.p PARTITION OF %1$s DEFAULT',
                'CREATE MATERIALIZED VIEW pw_own.m AS SELECT * FROM %1$s', 'CREATE TABLE pw_own.t AS TABLE %1$s'] END) f) t (sql)
     WHERE c.relnamespace = 'audit_log'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S')
       -- the months' partitions are like the default one
       AND c.relname !~ '^change_\d{4}_(?!01)';
GRANT SELECT ON pw.call, pw.touch TO regress_writer;

SET ROLE regress_writer;
CREATE FUNCTION pw_own.trap() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';

-- every function: only these can be called at all
SELECT c.name, t.ended FROM pw.call c, LATERAL (SELECT pw.attempt(c.sql)) t (ended)
 WHERE t.ended <> '42501' ORDER BY c.name COLLATE "C";
-- every table, view and sequence: nothing.  Besides "permission denied" there
-- is only what cannot be said of that kind of relation at all, by anybody
SELECT DISTINCT t.kind, t.sql, e.ended FROM pw.touch t, LATERAL (SELECT pw.attempt(t.sql)) e (ended)
 WHERE e.ended NOT IN ('42501', '42809') AND NOT (e.ended = '55000' AND t.kind = 'v')
   AND NOT (e.ended = '42704' AND t.sql LIKE 'DROP TRIGGER audit_log_guard ON %')
 ORDER BY 1, 2;
SELECT count(*) > 300 AS tried FROM pw.touch;
\copy audit_log.change_default from /dev/null
\copy audit_log.transaction to /dev/null

-- nor by another way
CREATE TABLE pw_own.log (id bigint NOT NULL, transaction_id bigint NOT NULL, command integer NOT NULL,
    timestamp timestamptz NOT NULL, action_type audit_log.action_type NOT NULL, table_id integer NOT NULL,
    record_id text, old_record_id text, changes jsonb);
SELECT a.sql, pw.attempt(a.sql) FROM unnest(ARRAY[
    'SET session_replication_role = replica',
    'SET LOCAL audit_log.user_id_source = ''a, b''',
    'ALTER ROLE regress_writer SET audit_log.user_id_source = ''a, b''',
    'SELECT set_config(''audit_log.user_id_source'', ''x'', true)',
    'SET audit_log.enabled = off',
    'ALTER TABLE pw.doc DISABLE TRIGGER audit_log_row',
    'ALTER TABLE pw.doc DISABLE TRIGGER ALL',
    'DROP TRIGGER audit_log_row ON pw.doc',
    'CREATE TRIGGER a BEFORE INSERT ON pw.doc FOR EACH ROW EXECUTE FUNCTION pw_own.trap()',
    'CREATE TRIGGER a AFTER INSERT ON pw_own.log FOR EACH ROW EXECUTE FUNCTION audit_log.capture()',
    'CREATE TRIGGER a AFTER INSERT ON pw_own.log FOR EACH STATEMENT EXECUTE FUNCTION audit_log.capture_flush()',
    'CREATE TRIGGER a BEFORE TRUNCATE ON pw_own.log FOR EACH STATEMENT EXECUTE FUNCTION audit_log.capture_truncate()',
    'CREATE RULE a AS ON UPDATE TO pw.doc DO INSTEAD NOTHING',
    'ALTER TABLE audit_log.change ATTACH PARTITION pw_own.log FOR VALUES FROM (''1999-01-01'') TO (''1999-02-01'')',
    'ALTER TABLE audit_log.change DETACH PARTITION audit_log.change_default',
    'CREATE TABLE pw_own.r (i bigint REFERENCES audit_log.transaction)',
    'CREATE TABLE audit_log.mine (i int)',
    'CREATE FUNCTION audit_log.enable(text) RETURNS void LANGUAGE sql AS $f$ SELECT $f$',
    'CREATE FUNCTION pw_own.f(regclass) RETURNS void LANGUAGE c AS ''audit_log'', ''audit_log_as_owner''',
    'CREATE FUNCTION pw_own.f(regclass) RETURNS void LANGUAGE internal AS ''audit_log_as_owner''',
    'CREATE OR REPLACE FUNCTION audit_log.guard() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RETURN NULL; END $f$',
    'ALTER FUNCTION audit_log.guard() RENAME TO guard2',
    'ALTER FUNCTION audit_log.capture() OWNER TO regress_writer',
    'DROP FUNCTION audit_log.capture() CASCADE',
    'ALTER TYPE audit_log.action_type ADD VALUE ''NONE''',
    'ALTER EVENT TRIGGER audit_log_ddl DISABLE',
    'DROP EVENT TRIGGER audit_log_drop',
    'ALTER EXTENSION audit_log DROP FUNCTION audit_log.guard()',
    'ALTER EXTENSION audit_log ADD TABLE pw_own.log',
    'ALTER EXTENSION audit_log UPDATE',
    'DROP EXTENSION audit_log CASCADE',
    'ALTER SCHEMA audit_log RENAME TO gone',
    'DROP SCHEMA audit_log CASCADE',
    'GRANT CREATE ON SCHEMA audit_log TO regress_writer',
    'CREATE CAST (audit_log.action_type AS text) WITH INOUT',
    'SELECT pg_read_file(''PG_VERSION'')',
    'SELECT lo_import(''PG_VERSION'')']) a (sql);
-- what is DROP OWNED for the superuser is nothing for him
SELECT pw.attempt('REASSIGN OWNED BY regress_writer TO current_user');

-- what he sees of the log in the catalogs: no values of it
SELECT count(*) FROM pg_stats WHERE schemaname = 'audit_log';
SELECT count(*) FROM pg_stats_ext WHERE schemaname = 'audit_log';

-- names before ours in search_path, as types, tables, operators, functions, casts
CREATE FUNCTION pw_own.lie(text, text) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN RAISE 'evil as %', current_user USING ERRCODE = '99999'; END $$;
CREATE FUNCTION pw_own.lie(int, int) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN RAISE 'evil as %', current_user USING ERRCODE = '99999'; END $$;
CREATE FUNCTION pw_own.lie(jsonb, jsonb) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN RAISE 'evil as %', current_user USING ERRCODE = '99999'; END $$;
CREATE OPERATOR pw_own.= (LEFTARG = text, RIGHTARG = text, FUNCTION = pw_own.lie);
CREATE OPERATOR pw_own.= (LEFTARG = int, RIGHTARG = int, FUNCTION = pw_own.lie);
CREATE OPERATOR pw_own.<> (LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = pw_own.lie);
CREATE OPERATOR pw_own.@> (LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = pw_own.lie);
CREATE OPERATOR pw_own.-> (LEFTARG = jsonb, RIGHTARG = text, FUNCTION = pg_catalog.jsonb_object_field);
CREATE FUNCTION pw_own.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS
    $$ BEGIN RAISE 'evil as %', current_user USING ERRCODE = '99999'; END $$;
CREATE FUNCTION pw_own.format(text, VARIADIC text[]) RETURNS text LANGUAGE sql AS $$ SELECT 'DROP TABLE pw.doc' $$;
CREATE DOMAIN pw_own.regclass AS text;
CREATE DOMAIN pw_own.jsonb AS text;
CREATE DOMAIN pw_own.uuid AS text;
CREATE TABLE pw_own.pg_class (oid oid, relname name);
CREATE TABLE pw_own.tracked_table (id int);
CREATE TEMP TABLE change (LIKE pw_own.log);
CREATE TEMP TABLE transaction (id bigint);
CREATE TEMP TABLE pg_trigger (tgrelid oid);
CREATE TEMP TABLE doc (id int);
SET search_path = pw_own, pg_temp, pg_catalog, audit_log;
SET quote_all_identifiers = on;
-- (PostgreSQL 19 has it on always)
SELECT pg_catalog.length(pw.attempt('SET standard_conforming_strings = off')) > 3 AS tried;
SET default_tablespace = '';
SET plpgsql.extra_errors = 'all';
INSERT INTO pw.doc VALUES (1, 'one', 1.50);
UPDATE pw.doc SET body = E'o\\ne' WHERE pw.doc.id OPERATOR(pg_catalog.=) 1;
DELETE FROM pw.doc;
PREPARE put (int) AS INSERT INTO pw.doc VALUES ($1, 'prepared');
EXECUTE put(2);
COPY pw.doc (id, body) FROM STDIN;
3	copied
\.
CREATE TABLE pw_own.others (i int);
ALTER TABLE pw_own.others RENAME TO others2;
DROP TABLE pw_own.others2;
RESET search_path;
RESET quote_all_identifiers;
RESET standard_conforming_strings;
RESET plpgsql.extra_errors;
RESET ROLE;

-- all of it is in the log, as his, and nothing went elsewhere
SELECT c.action_type, c.record_id, c.changes, t.db_role
  FROM audit_log.change c JOIN audit_log.transaction t ON t.id = c.transaction_id
  JOIN audit_log.tracked_table k ON k.id = c.table_id
 WHERE k.table_schema = 'pw' ORDER BY c.id;
SELECT (SELECT count(*) FROM pg_temp.change), (SELECT count(*) FROM pg_temp.transaction),
       (SELECT count(*) FROM pw_own.log), (SELECT count(*) FROM pw_own.tracked_table);
SELECT relation, problem FROM audit_log.check() WHERE relation LIKE 'pw.%';

DROP SCHEMA pw, pw_own CASCADE;
DROP TABLE pg_temp.change, pg_temp.transaction, pg_temp.pg_trigger, pg_temp.doc;
DROP OWNED BY regress_writer;
DROP ROLE regress_writer;
