-- Who may read a version table: whoever may read all of its table, kept up with
-- GRANT and REVOKE; nobody may change it but the log's owner.
-- edge cases 93, 97, 98, 99, 101
CREATE ROLE regress_versions_owner;
CREATE ROLE regress_versions_reader;
CREATE ROLE regress_versions_part;
CREATE ROLE regress_versions_other;
CREATE SCHEMA versions_rights;
GRANT ALL ON SCHEMA versions_rights TO PUBLIC;
SET search_path = versions_rights;
SET client_min_messages = warning;
\set SHOW_CONTEXT never
DO $$ BEGIN PERFORM audit_log.grant_admin('regress_versions_owner'); END $$;
ALTER DEFAULT PRIVILEGES IN SCHEMA versions_rights GRANT ALL ON TABLES TO regress_versions_other;
SET ROLE regress_versions_owner;
CREATE TABLE t (id int PRIMARY KEY, a text, b text);
INSERT INTO t VALUES (1, 'a', 'b');
DO $$ BEGIN PERFORM audit_log.enable('t', versioned => true); END $$;
RESET ROLE;
CREATE TEMP VIEW rights AS
  SELECT a.grantee::regrole AS grantee, a.privilege_type AS privilege, a.is_grantable AS option, a.grantor::regrole = c.relowner::regrole AS ours
    FROM pg_class c, LATERAL aclexplode(c.relacl) a WHERE c.oid = 't_version'::regclass AND a.grantee <> c.relowner ORDER BY a.grantee::regrole::text;
GRANT SELECT ON rights TO PUBLIC;
SELECT c.relowner = (SELECT relowner FROM pg_class WHERE oid = 'audit_log.change'::regclass) AS ours FROM pg_class c WHERE c.oid = 't_version'::regclass;
SELECT * FROM rights;
-- its owner reads, and changes it by its table only
SET ROLE regress_versions_owner;
SELECT id, a, b, operation_type FROM t_version;
UPDATE t SET a = 'aa';
INSERT INTO t_version SELECT * FROM t_version;
UPDATE t_version SET a = 'forged';
DELETE FROM t_version;
TRUNCATE t_version;
ALTER TABLE t_version ADD COLUMN x int;
DROP TABLE t_version;
SELECT audit_log.enable('t_version');
-- but for a column that it has got by its table already: a migration tool adds both
ALTER TABLE t ADD COLUMN both_have text;
SET client_min_messages = notice;
ALTER TABLE t_version ADD COLUMN both_have text;
ALTER TABLE t_version ADD COLUMN both_have int;
ALTER TABLE t_version ADD COLUMN both_have text, ADD COLUMN x int;
SET client_min_messages = warning;
SET ROLE regress_versions_reader;
ALTER TABLE t_version ADD COLUMN both_have text;
SET ROLE regress_versions_owner;
ALTER TABLE t DROP COLUMN both_have;
-- grants follow
GRANT SELECT ON t TO regress_versions_reader;
GRANT SELECT (id, a) ON t TO regress_versions_part;
SELECT * FROM rights;
GRANT SELECT (b) ON t TO regress_versions_part;
GRANT SELECT, INSERT ON t TO PUBLIC;
SELECT * FROM rights;
REVOKE SELECT (a) ON t FROM regress_versions_part;
REVOKE SELECT ON t FROM PUBLIC;
ALTER TABLE t ADD COLUMN c int;
SELECT * FROM rights;
GRANT SELECT (a, c) ON t TO regress_versions_part;
SELECT * FROM rights;
-- what the owner grants himself stays his
GRANT SELECT ON t_version TO regress_versions_other;
REVOKE SELECT ON t FROM regress_versions_reader;
SELECT * FROM rights;
GRANT SELECT ON ALL TABLES IN SCHEMA versions_rights TO regress_versions_reader;
SELECT * FROM rights;
REVOKE ALL ON t FROM regress_versions_reader, regress_versions_part;
SELECT * FROM rights;
-- row security: nobody but the owner, and back
GRANT SELECT ON t TO regress_versions_reader;
ALTER TABLE t ENABLE ROW LEVEL SECURITY;
SELECT * FROM rights;
GRANT SELECT ON t TO regress_versions_part;
SELECT * FROM rights;
ALTER TABLE t DISABLE ROW LEVEL SECURITY;
SELECT * FROM rights;
RESET ROLE;
-- another owner
ALTER TABLE t OWNER TO regress_versions_other;
SELECT * FROM rights;
-- writers who may read nothing write versions all the same
GRANT INSERT, UPDATE, DELETE ON t TO regress_versions_owner;
REVOKE SELECT ON t FROM regress_versions_owner;
SET ROLE regress_versions_owner;
INSERT INTO t VALUES (2, 'x', 'y');
SELECT * FROM t_version;
RESET ROLE;
SELECT count(*) FROM t_version WHERE id = 2;
-- a role's rights go with it
DROP OWNED BY regress_versions_reader;
SELECT * FROM rights;
-- expressions and functions of a table's owner are run as himself: a domain's CHECK, a cast, USING
CREATE TABLE who (name text);
GRANT INSERT ON who TO PUBLIC;
SET ROLE regress_versions_other;
CREATE FUNCTION spy(int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO versions_rights.who VALUES (current_user); RETURN true; END $$;
CREATE DOMAIN evil AS int CHECK (spy(VALUE));
CREATE TYPE odd AS ENUM ('1', '2', '9');
CREATE FUNCTION to_odd(int) RETURNS odd LANGUAGE plpgsql AS $$ BEGIN INSERT INTO versions_rights.who VALUES (current_user); RETURN $1::text::versions_rights.odd; END $$;
CREATE CAST (int AS odd) WITH FUNCTION to_odd(int) AS ASSIGNMENT;
ALTER TABLE t ADD COLUMN e evil DEFAULT 3;
ALTER TABLE t ALTER COLUMN c TYPE evil USING spy(1)::int;
ALTER TABLE t ALTER COLUMN c TYPE int;
ALTER TABLE t ALTER COLUMN c TYPE odd;
UPDATE t SET e = 4;
ALTER TABLE t ALTER COLUMN e TYPE evil USING e + 1;
RESET ROLE;
SELECT DISTINCT name FROM who;
SELECT id, c, e FROM t_version ORDER BY id, transaction_id;
-- and a domain's default
SET ROLE regress_versions_other;
CREATE FUNCTION spy_default() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO versions_rights.who VALUES (current_user); RETURN 5; END $$;
CREATE DOMAIN evil_default AS int DEFAULT spy_default();
CREATE DOMAIN evil_bigint AS bigint DEFAULT spy_default();
ALTER TABLE t ADD COLUMN f evil_default;
ALTER TABLE t ALTER COLUMN f TYPE evil_bigint;
UPDATE t SET f = 6;
RESET ROLE;
SELECT DISTINCT name FROM who;
SELECT DISTINCT f, pg_typeof(f) FROM t_version ORDER BY 1;
-- a table made under the name of a dropped one does not get its versions
DROP TABLE t;
SET ROLE regress_versions_owner;
CREATE TABLE t (id int PRIMARY KEY, a text, b text);
SELECT audit_log.enable('t', versioned => true);
SELECT audit_log.enable('t', versioned => true, version_table => 't_version2');
SELECT count(*) FROM t_version;
-- nor write there by a trigger that names it
CREATE TABLE thief (id int PRIMARY KEY, a text, b text, c text, e int);
GRANT ALL ON thief TO PUBLIC;
CREATE TRIGGER audit_log_row AFTER INSERT OR UPDATE OR DELETE ON thief FOR EACH ROW EXECUTE FUNCTION audit_log.capture('versioned=true', 'version_table=t_version');
INSERT INTO thief VALUES (1, 'forged');
SELECT audit_log.enable('thief');
DROP TABLE thief;
-- nor read there, or in what else belongs to the log's owner, by a table that was tracked before
RESET ROLE;
CREATE TABLE secret (id int PRIMARY KEY, password text);
SET ROLE regress_versions_owner;
CREATE TABLE early (id int PRIMARY KEY);
CREATE TRIGGER audit_log_row AFTER INSERT OR UPDATE OR DELETE ON early FOR EACH ROW EXECUTE FUNCTION audit_log.capture('table=5b9ec3a8-34f7-4a9b-9b5c-6c3a62c56b1e');
INSERT INTO early VALUES (1);
RESET ROLE;
CREATE TABLE late (id int PRIMARY KEY, salary int);
DO $$ BEGIN PERFORM audit_log.enable('late', versioned => true); END $$;
INSERT INTO late VALUES (1, 100);
SET ROLE regress_versions_owner;
DROP TRIGGER audit_log_row ON early;
CREATE TRIGGER audit_log_row AFTER INSERT OR UPDATE OR DELETE ON early FOR EACH ROW EXECUTE FUNCTION audit_log.capture('table=5b9ec3a8-34f7-4a9b-9b5c-6c3a62c56b1e', 'versioned=true', 'version_table=late_version');
INSERT INTO early VALUES (2);
ALTER TABLE early ADD COLUMN a int;
SELECT * FROM late_version;
DO $$ BEGIN PERFORM audit_log.enable('early', version_table => 'early_version'); END $$;
SELECT id, operation_type FROM early_version ORDER BY id;
DROP TABLE early;
-- whether nothing of it was registered yet, or something
CREATE TABLE new (id int PRIMARY KEY);
CREATE TRIGGER audit_log_row AFTER INSERT OR UPDATE OR DELETE ON new FOR EACH ROW EXECUTE FUNCTION audit_log.capture('table=c0e4f3ff-8c0f-4f5c-9d3c-2d8f3a3a5a11', 'versioned=true', 'version_table=secret');
ALTER TABLE new ADD COLUMN a int;
ALTER TABLE new ADD COLUMN b int;
GRANT SELECT ON new TO regress_versions_other;
INSERT INTO new VALUES (1);
SELECT * FROM secret;
RESET ROLE;
SELECT attname FROM pg_attribute WHERE attrelid = 'secret'::regclass AND attnum > 0 ORDER BY attnum;
DROP TABLE new;
-- what is named there and not ours is neither read nor written with our rights
SET ROLE regress_versions_owner;
CREATE FUNCTION spy_view() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'evaluated as %', current_user; END $$;
CREATE VIEW not_ours AS SELECT 1 AS id, spy_view() AS transaction_id, 1::bigint AS end_transaction_id, 1::smallint AS operation_type, now() AS valid_from, now() AS valid_to;
CREATE TABLE new (id int PRIMARY KEY);
CREATE TRIGGER audit_log_row AFTER INSERT OR UPDATE OR DELETE ON new FOR EACH ROW EXECUTE FUNCTION audit_log.capture('versioned=true', 'version_table=not_ours');
RESET ROLE;
SELECT problem FROM audit_log.check() WHERE relation LIKE '%new';
SELECT audit_log.repair() > 0 AS repaired;
DROP TABLE new;
CREATE TABLE theirs (id int, transaction_id bigint, end_transaction_id bigint, operation_type smallint, valid_from timestamptz, valid_to timestamptz, PRIMARY KEY (id, transaction_id));
ALTER TABLE theirs OWNER TO regress_versions_other;
SET ROLE regress_versions_owner;
CREATE TABLE new (id int PRIMARY KEY);
CREATE TRIGGER audit_log_row AFTER INSERT OR UPDATE OR DELETE ON new FOR EACH ROW EXECUTE FUNCTION audit_log.capture('versioned=true', 'version_table=theirs');
INSERT INTO new VALUES (1);
DROP TABLE new;
-- what would be evaluated with our rights is not adopted
CREATE TABLE adopted (id int PRIMARY KEY);
CREATE TABLE adopted_version (id int, transaction_id bigint, operation_type smallint, PRIMARY KEY (id, transaction_id));
CREATE FUNCTION spy_index(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN $1; END $$;
CREATE INDEX adopted_spy ON adopted_version (spy_index(id));
SELECT audit_log.enable('adopted', versioned => true);
DROP INDEX adopted_spy;
CREATE RULE adopted_spy AS ON UPDATE TO adopted_version DO ALSO SELECT spy_index(new.id);
SELECT audit_log.enable('adopted', versioned => true);
DROP RULE adopted_spy ON adopted_version;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT audit_log.enable('adopted', versioned => true);
ROLLBACK;
DO $$ BEGIN PERFORM audit_log.enable('adopted', versioned => true); END $$;
-- nor may somebody else's table be taken for one
RESET ROLE;
CREATE TABLE foreign_version (id int, transaction_id bigint, operation_type smallint);
SET ROLE regress_versions_owner;
CREATE TABLE "foreign" (id int PRIMARY KEY);
SELECT audit_log.enable('foreign', versioned => true);
SELECT audit_log.create_continuum_views('versions_rights', NULL);
RESET ROLE;
SELECT * FROM audit_log.check() WHERE relation LIKE 'versions%' OR relation = 't';
SET client_min_messages = warning;
DROP SCHEMA versions_rights CASCADE;
DO $$ BEGIN PERFORM audit_log.revoke_admin('regress_versions_owner'); END $$;
DROP OWNED BY regress_versions_owner, regress_versions_reader, regress_versions_part, regress_versions_other;
DROP ROLE regress_versions_owner, regress_versions_reader, regress_versions_part, regress_versions_other;
