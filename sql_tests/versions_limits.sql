-- What version tables meet beside their own table's ALTER TABLE: constraints that a domain gets, PostgreSQL's limit of
-- columns, and tables of a schema that cannot have versions.
SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE SCHEMA versions_limits;
SET search_path = versions_limits;
CREATE ROLE regress_versions_limits;
GRANT ALL ON SCHEMA versions_limits TO regress_versions_limits;
CREATE VIEW version_columns AS SELECT a.attrelid::regclass AS version_table, a.attname, format_type(a.atttypid, a.atttypmod) AS type, c.collname
  FROM pg_attribute a LEFT JOIN pg_collation c ON c.oid = a.attcollation AND c.collname <> 'default'
 WHERE a.attrelid IN (SELECT oid FROM pg_class WHERE relname ~ '_version$' AND relkind = 'r' AND relnamespace = 'versions_limits'::regnamespace)
   AND a.attnum > 0 AND NOT a.attisdropped AND a.attname IN ('f', 'g', 'h', 'own') ORDER BY 1, a.attnum;

-- a domain gets a constraint that versions do not obey
CREATE DOMAIN free AS varchar(20) COLLATE "C";
CREATE DOMAIN freer AS free;
CREATE DOMAIN own AS int;
CREATE TABLE t (id int PRIMARY KEY, f free, g freer, own own, h varchar(5) COLLATE "C");
SELECT audit_log.enable('t', versioned => true, mask => '{own}');
SELECT * FROM version_columns;
INSERT INTO t VALUES (1, 'a long one', NULL, 1), (2, NULL, 'b', 2);
UPDATE t SET f = 'b', g = 'c', h = 'd';
ALTER DOMAIN free ADD CONSTRAINT short CHECK (length(VALUE) < 5) NOT VALID;
ALTER DOMAIN free VALIDATE CONSTRAINT short;
ALTER DOMAIN freer SET NOT NULL;
ALTER DOMAIN own SET DEFAULT 7;
ALTER DOMAIN own SET NOT NULL;
SELECT * FROM version_columns;
INSERT INTO t (id, g) VALUES (3, 'g');
UPDATE t SET f = NULL, g = 'h' WHERE id = 1;
DELETE FROM t WHERE id = 2;
SELECT id, operation_type AS op, f, g, own, h FROM t_version ORDER BY id, transaction_id;
SELECT audit_log.enable('t');
-- one that the table itself does not obey is refused for the table, and nothing has changed
ALTER DOMAIN own ADD CHECK (VALUE <> 7);
-- without constraints again it does not matter which of both the version table has
ALTER DOMAIN free DROP CONSTRAINT short;
ALTER DOMAIN freer DROP NOT NULL;
ALTER DOMAIN own DROP DEFAULT;
ALTER DOMAIN own DROP NOT NULL;
SELECT audit_log.enable('t');
UPDATE t SET f = 'much longer' WHERE id = 1;
ALTER TABLE t ADD COLUMN f2 free;
SELECT * FROM audit_log.check() WHERE relation ~ 'versions_limits';
-- whoever may not alter the domain does not reach the version table
ALTER TABLE t DROP COLUMN f2, ADD COLUMN f3 own;
SET ROLE regress_versions_limits;
ALTER DOMAIN own SET DEFAULT 8;
ALTER DOMAIN nowhere SET DEFAULT 8;
RESET ROLE;
SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't_version'::regclass AND attname = 'f3';
DROP TABLE t, t_version;

-- 1,600 columns are too many for versions, 1,595 are not
DO $$ BEGIN
    EXECUTE 'CREATE TABLE w (id int PRIMARY KEY, ' || (SELECT string_agg('c' || i || ' int', ', ') FROM generate_series(1, 1595) i) || ')';
END $$;
SELECT audit_log.enable('w', versioned => true);
SELECT audit_log.enable('w', versioned => true, exclude => '{c1595}');
INSERT INTO w (id, c1) VALUES (1, 1);
UPDATE w SET c1594 = 2;
SELECT c1, c1594, operation_type FROM w_version ORDER BY transaction_id;
-- and there is no room for another, nor for the conversion of one
ALTER TABLE w ADD COLUMN more int;
SELECT audit_log.enable('w', exclude => '{c1595,c1594,c1593}');
ALTER TABLE w ADD COLUMN more int;
ALTER TABLE w ALTER COLUMN c1 TYPE text USING 'x' || c1;
ALTER TABLE w ALTER COLUMN c1 TYPE bigint;
UPDATE w SET c1 = 3;
SELECT c1, c1594, operation_type FROM w_version ORDER BY transaction_id;
-- the remedy
SELECT audit_log.enable('w', versioned => false);
ALTER TABLE w ALTER COLUMN c1 TYPE text USING 'x' || c1;
SELECT audit_log.enable('w', versioned => true, version_table => 'w_later');
UPDATE w SET c1 = 'y';
SELECT c1, operation_type FROM w_later ORDER BY transaction_id;
SELECT * FROM audit_log.check() WHERE relation ~ 'versions_limits';
DROP TABLE w, w_version, w_later;

-- new tables of a schema: one that cannot have versions is tracked without
SELECT audit_log.enable_schema('versions_limits', auto => true, versioned => true, actions => '{insert}');
SELECT audit_log.enable_schema('versions_limits', auto => true, versioned => true, on_truncate => 'event');
DO $$ BEGIN PERFORM audit_log.enable_schema('versions_limits', auto => true, versioned => true, mask => '{email}'); END $$;
SELECT audit_log.enable_schema('versions_limits', auto => true, actions => '{insert}');
SET client_min_messages = notice;
\set VERBOSITY terse
CREATE TABLE sale (id int PRIMARY KEY, transaction_id bigint);
CREATE TABLE person (email text PRIMARY KEY, name text);
CREATE TABLE member (id int PRIMARY KEY, email text);
DO $$ BEGIN
    EXECUTE 'CREATE TABLE w (id int PRIMARY KEY, ' || (SELECT string_agg('c' || i || ' int', ', ') FROM generate_series(1, 1595) i) || ')';
END $$;
\set VERBOSITY default
SET client_min_messages = warning;
SELECT c.relname, audit_log._trigger_settings(c.oid, 'audit_log_row') ? 'versioned' AS versioned FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace = 'versions_limits'::regnamespace ORDER BY 1;
-- said of one table it is an error
SELECT audit_log.enable('sale', versioned => true);

SET client_min_messages = error;
DROP SCHEMA versions_limits CASCADE;
DROP ROLE regress_versions_limits;
