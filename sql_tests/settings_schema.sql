-- enable_schema(): every table of a schema, and with auto those to come.
-- edge cases 33, 74, 75
\set SHOW_CONTEXT never
CREATE ROLE regress_audit_maker;
CREATE SCHEMA settings_schema;
GRANT ALL ON SCHEMA settings_schema TO regress_audit_maker;
SET search_path = settings_schema;
CREATE VIEW log AS
  SELECT table_name AS "table", action_type AS action, record_id AS id, old_record_id AS old, changes
    FROM audit_log.audit_logs WHERE table_schema = 'settings_schema' ORDER BY audit_logs.id;
CREATE FUNCTION mismatches(target regclass) RETURNS bigint LANGUAGE plpgsql AS $$
  DECLARE n bigint;
  BEGIN
    EXECUTE format('WITH r AS MATERIALIZED (SELECT whole_row AS x FROM audit_log.rebuild(NULL::%1$s) whole_row),
      t AS MATERIALIZED (SELECT whole_row AS x FROM %1$s whole_row)
      SELECT count(*) FROM (SELECT x FROM r UNION ALL SELECT x FROM t) u
       WHERE (SELECT count(*) FROM r WHERE r.x *= u.x) <> (SELECT count(*) FROM t WHERE t.x *= u.x)', target) INTO n;
    RETURN n;
  END $$;
CREATE VIEW tracked AS SELECT table_name, settings FROM audit_log.tracked_table
  WHERE table_schema = 'settings_schema' AND dropped_at IS NULL ORDER BY table_name COLLATE "C";
CREATE TABLE a (id int PRIMARY KEY, v text, updated_at text);
CREATE TABLE "B b" (id int PRIMARY KEY, secret text);
CREATE TABLE p (id int PRIMARY KEY, secret text) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TABLE left_out (id int PRIMARY KEY);
CREATE TABLE alembic_version (version_num text);
CREATE TABLE flyway_schema_history (installed_rank int);
CREATE TABLE django_migrations (id int);
CREATE TABLE schema_migrations (version text);
CREATE TABLE ar_internal_metadata (key text);
CREATE VIEW v AS SELECT * FROM a;
INSERT INTO a VALUES (1, 'was there');
-- a column need not exist in each table; a key column need be in none
SELECT audit_log.enable_schema('settings_schema', except_tables => '{left_out}', exclude => '{updated_at,id2}', mask => '{secret}');
SELECT * FROM tracked;
INSERT INTO p1 VALUES (1, NULL);
INSERT INTO left_out VALUES (1);
INSERT INTO alembic_version VALUES ('x');
INSERT INTO a VALUES (2, 'v', 'now');
SELECT * FROM log;
-- again with other settings; one table that cannot be makes it none
SELECT audit_log.enable_schema('settings_schema', except_tables => '{left_out}', exclude => '{id}');
SELECT audit_log.enable_schema('settings_schema', except_tables => '{left_out,p}', exclude => '{}', baseline => true);
SELECT * FROM tracked;
SELECT * FROM log OFFSET 2;

-- auto: what is made later, however
SELECT audit_log.enable_schema('settings_schema', except_tables => '{left_out}', auto => true, mask => '{secret}', require => '{}');
CREATE TABLE c (id serial PRIMARY KEY, secret text, a int REFERENCES a);
SELECT count(*) AS seen FROM log \gset
CREATE TABLE made AS SELECT id, v FROM a;
SELECT id, v INTO made_too FROM a WHERE id = 1;
CREATE TABLE q (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE q1 PARTITION OF q DEFAULT;
CREATE UNLOGGED TABLE ul (id int);
CREATE TEMPORARY TABLE te (id int);
CREATE TABLE IF NOT EXISTS c (id int);
CREATE MATERIALIZED VIEW mv AS SELECT 1 AS x;
CREATE TABLE none (LIKE left_out);
CREATE TABLE IF NOT EXISTS public.settings_schema_elsewhere (id int);
DROP TABLE none;
SELECT * FROM log OFFSET :seen;
SELECT mismatches('made'), mismatches('made_too');
SELECT * FROM tracked OFFSET 3;
-- by others too, as they are members or not: the enabler is a superuser
SET ROLE regress_audit_maker;
CREATE TABLE others (id int PRIMARY KEY);
INSERT INTO others VALUES (1);
RESET ROLE;
SELECT id FROM log WHERE "table" = 'others';
-- a table that is made and dropped in one go, and one in a transaction that is rolled back
BEGIN;
CREATE TABLE gone (id int PRIMARY KEY);
INSERT INTO gone VALUES (1);
ROLLBACK;
BEGIN;
CREATE TABLE gone (id int PRIMARY KEY);
INSERT INTO gone VALUES (2);
DROP TABLE gone;
COMMIT;
SELECT dropped_at IS NULL AS live FROM audit_log.tracked_table WHERE table_schema = 'settings_schema' AND table_name = 'gone';
-- the schema is renamed: it goes on; a table that moves in is not made
ALTER SCHEMA settings_schema RENAME TO settings_schema_2;
SET search_path = settings_schema_2;
CREATE TABLE after_rename (id int PRIMARY KEY);
ALTER TABLE public.settings_schema_elsewhere SET SCHEMA settings_schema_2;
SELECT table_name FROM audit_log.tracked_table WHERE table_schema = 'settings_schema_2' AND dropped_at IS NULL ORDER BY table_name COLLATE "C";
ALTER SCHEMA settings_schema_2 RENAME TO settings_schema;
SET search_path = settings_schema;
-- auto ends
SELECT audit_log.enable_schema('settings_schema', except_tables => '{left_out}', auto => false, actions => '{insert}');
CREATE TABLE after_auto (id int PRIMARY KEY);
SELECT count(*) FROM tracked WHERE table_name = 'after_auto';
SELECT count(*) AS other FROM tracked WHERE NOT settings @> '{"actions": ["insert"]}';

SET client_min_messages = warning;
SELECT audit_log.enable_schema('settings_schema', auto => true);
-- left out, a setting of auto stays; a table with no column to include is refused, rather than logged whole
CREATE SCHEMA settings_schema_kept;
SELECT audit_log.enable_schema('settings_schema_kept', auto => true, mask => '{secret}', include => '{id,secret}');
SELECT audit_log.enable_schema('settings_schema_kept', auto => true);
CREATE TABLE settings_schema_kept.a (id int PRIMARY KEY, secret text, other text);
CREATE TABLE settings_schema_kept.b (other text, secret_too text);
SELECT audit_log.enable_schema('settings_schema_kept', auto => true, include => '{}');
CREATE TABLE settings_schema_kept.b (other text, secret_too text);
SELECT audit_log.enable_schema('settings_schema_kept', mask => '{}', include => '{id}');
SELECT table_name, settings FROM audit_log.tracked_table
 WHERE table_schema = 'settings_schema_kept' AND dropped_at IS NULL ORDER BY table_name COLLATE "C";
DROP SCHEMA settings_schema_kept CASCADE;
DROP SCHEMA settings_schema CASCADE;
SELECT count(*) FROM audit_log.tracked_schema WHERE schema_name LIKE 'settings_schema%';
SELECT count(*) FROM audit_log.tracked_table WHERE table_schema LIKE 'settings_schema%' AND dropped_at IS NULL;
DROP TABLE te;
DROP ROLE regress_audit_maker;
