--
-- Whose rights the activity feed needs, and with whose it does what others made:
-- triggers, policies and defaults of the table, indexes of the users
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE ROLE regress_feed_admin;
CREATE ROLE regress_feed_writer;
CREATE ROLE regress_feed_reader;
CREATE ROLE regress_feed_people;
CREATE SCHEMA feed;
GRANT USAGE ON SCHEMA feed TO PUBLIC;
SELECT audit_log.grant_admin('regress_feed_admin');
SET search_path = feed;
CREATE TABLE users (id integer PRIMARY KEY, name text, class text);
INSERT INTO users VALUES (1, 'Anna'), (2, 'Ben');
CREATE TABLE mine (id int PRIMARY KEY, name text);
ALTER TABLE users OWNER TO regress_feed_people;
ALTER TABLE mine OWNER TO regress_feed_admin;
GRANT INSERT, UPDATE, DELETE, SELECT ON mine TO regress_feed_writer;

-- who may make it: admins, where they may create and refer
SET ROLE regress_feed_writer;
SELECT audit_log.create_activity_table('activity', 'users');
SELECT audit_log.describe('mine', 'insert', 'x', 'y');
SELECT audit_log._describe(1, 'mine', 'insert', 'x', 'y');
SELECT audit_log._run_as_caller('SELECT 1');
SELECT audit_log._log_activity('x', 'y', NULL, NULL);
SET ROLE regress_feed_admin;
SELECT audit_log.create_activity_table('activity', 'users');
RESET ROLE;
GRANT CREATE ON SCHEMA feed TO regress_feed_admin;
SET ROLE regress_feed_admin;
SELECT audit_log.create_activity_table('activity', 'users');
RESET ROLE;
GRANT REFERENCES ON users TO regress_feed_admin;
ALTER DEFAULT PRIVILEGES FOR ROLE regress_feed_admin GRANT SELECT ON TABLES TO regress_feed_reader;
SET ROLE regress_feed_admin;
SELECT audit_log.create_activity_table('activity', 'users');
SELECT relname, relowner::regrole, has_table_privilege('regress_feed_reader', oid, 'SELECT') AS by_default FROM pg_class
 WHERE oid IN ('activity'::regclass, 'activity_id_seq'::regclass) ORDER BY 1;
SELECT proname, proowner::regrole = (SELECT relowner::regrole FROM pg_class WHERE oid = 'audit_log.change'::regclass) AS ours FROM pg_proc
 WHERE pronamespace = 'audit_log'::regnamespace AND proname IN ('log_activity', 'get_recent_activities') ORDER BY 1;
SELECT audit_log.enable('mine');
SELECT audit_log.describe('mine', 'insert', 'opened', '{name} is open');
SELECT audit_log.describe('users', 'insert', 'x', 'y');
RESET ROLE;

-- descriptions are the extension's to write, whoever changes
SET audit_log.user_id = '1';
SET ROLE regress_feed_writer;
INSERT INTO mine VALUES (1, 'Kettle');
SELECT audit_log.log_activity('login', 'Anna is here');
SELECT * FROM audit_log.get_recent_activities();
SELECT count(*) FROM users;
RESET ROLE;
SELECT user_id, activity_type, description, entity_id FROM activity;
-- INSERT on the table is enough for log_activity(); for reading SELECT
GRANT INSERT ON activity TO regress_feed_writer;
SET ROLE regress_feed_writer;
SELECT audit_log.log_activity('login', 'Anna is here') IS NOT NULL AS done;
INSERT INTO activity (activity_type, description) VALUES ('by hand', 'the sequence is another matter');
SELECT * FROM audit_log.get_recent_activities();
BEGIN READ ONLY;
SELECT audit_log.log_activity('login', 'only to read');
ROLLBACK;
SET ROLE regress_feed_reader;
SELECT user_id, description FROM audit_log.get_recent_activities();
SELECT audit_log.log_activity('login', 'only to read');
RESET ROLE;

-- what others have made is run with their rights
CREATE FUNCTION whoami() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.description := format('%s (%s, %s)', NEW.description, current_user, current_setting('TimeZone')); RETURN NEW; END $$;
CREATE TRIGGER whoami BEFORE INSERT ON activity FOR EACH ROW EXECUTE FUNCTION whoami();
CREATE FUNCTION class_of(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN RAISE EXCEPTION 'run as %', current_user; END IF; RETURN true; END $$;
GRANT CREATE ON SCHEMA feed TO regress_feed_people;
SET ROLE regress_feed_people;
CREATE INDEX ON feed.users (id) WHERE feed.class_of('x');
ALTER TABLE users ADD CHECK (class_of(class));
ALTER TABLE users ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SET ROLE regress_feed_writer;
INSERT INTO mine VALUES (2, 'Nora');
SELECT audit_log.log_activity('login', 'Anna') IS NOT NULL AS done;
RESET ROLE;
SELECT user_id, description FROM audit_log.get_recent_activities(2);
SET ROLE regress_feed_people;
ALTER TABLE users DISABLE ROW LEVEL SECURITY;
DROP INDEX users_id_idx;
ALTER TABLE users DROP CONSTRAINT users_class_check;
RESET ROLE;
DROP TRIGGER whoami ON activity;

-- row security: that of the reader; of who calls log_activity(), who then needs the sequence; not of descriptions
ALTER TABLE activity ENABLE ROW LEVEL SECURITY;
ALTER TABLE activity FORCE ROW LEVEL SECURITY;
CREATE POLICY logins ON activity FOR SELECT TO regress_feed_reader USING (activity_type = 'login');
CREATE POLICY own ON activity TO regress_feed_writer USING (user_id = 1) WITH CHECK (user_id = 1);
SET ROLE regress_feed_reader;
SELECT description FROM audit_log.get_recent_activities();
SET ROLE regress_feed_writer;
INSERT INTO mine VALUES (3, 'Deep');
SELECT audit_log.log_activity('login', 'without the sequence');
RESET ROLE;
GRANT USAGE ON SEQUENCE activity_id_seq TO regress_feed_writer;
GRANT SELECT ON activity TO regress_feed_writer;
SET ROLE regress_feed_writer;
SELECT audit_log.log_activity('login', 'one of his own') IS NOT NULL AS done;
SELECT audit_log.log_activity('login', 'as Ben', user_id => 2);
SELECT description FROM audit_log.get_recent_activities();
RESET ROLE;
ALTER TABLE activity DISABLE ROW LEVEL SECURITY;

-- a user who goes in the transaction that he is named in
SET ROLE regress_feed_people;
SELECT audit_log.enable('users');
RESET ROLE;
SELECT audit_log.enable('users');
SELECT audit_log.describe('users', 'delete', 'left', '{name} has left');
SET audit_log.user_id = '2';
BEGIN;
INSERT INTO mine VALUES (4, 'by Ben');
DELETE FROM users WHERE id = 2;
INSERT INTO mine VALUES (5, 'by Ben, who is gone');
COMMIT;
SELECT user_id, description FROM audit_log.get_recent_activities(3) ORDER BY id;
RESET audit_log.user_id;
-- a deferred foreign key, one that is not valid for what was before, a trigger that says no
ALTER TABLE activity DROP CONSTRAINT activity_user_id_fkey;
ALTER TABLE activity ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED NOT VALID;
SET audit_log.user_id = '1';
INSERT INTO mine VALUES (6, 'deferred');
SELECT user_id, description FROM audit_log.get_recent_activities(1);
CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER no BEFORE INSERT ON activity FOR EACH ROW EXECUTE FUNCTION no();
INSERT INTO mine VALUES (7, 'not told');
SELECT audit_log.log_activity('x', 'not told') IS NULL AS none;
SELECT description FROM audit_log.get_recent_activities(1);
DROP TRIGGER no ON activity;
-- one that changes what is described: its own entry comes too, and both are whole
CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = feed AS $$
BEGIN IF NEW.entity_id < 12 THEN INSERT INTO mine VALUES (NEW.entity_id + 1, 'more'); END IF; RETURN NULL; END $$;
CREATE TRIGGER more AFTER INSERT ON activity FOR EACH ROW EXECUTE FUNCTION more();
INSERT INTO mine VALUES (10, 'first');
SELECT entity_id, description FROM audit_log.get_recent_activities(3) ORDER BY 1;
DROP TRIGGER more ON activity;
-- and one that renames the users meanwhile: what runs goes on
CREATE FUNCTION rename() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = feed AS $$
BEGIN
    IF NEW.entity_id = 15 THEN
        ALTER TABLE users RENAME TO users_too;
        INSERT INTO mine VALUES (16, 'inner');
        ALTER TABLE users_too RENAME TO users;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER rename AFTER INSERT ON activity FOR EACH ROW EXECUTE FUNCTION rename();
INSERT INTO mine VALUES (15, 'outer');
INSERT INTO mine VALUES (17, 'after');
SELECT user_id, entity_id, description FROM audit_log.get_recent_activities(3) ORDER BY 2;
DROP TRIGGER rename ON activity;
-- a column gone or renamed: told, not guessed
ALTER TABLE activity RENAME description TO what;
\set VERBOSITY terse
SELECT audit_log.log_activity('x', 'y');
ALTER TABLE activity RENAME what TO description;
ALTER TABLE activity RENAME entity_id TO about;
INSERT INTO mine VALUES (20, 'x');
ALTER TABLE activity RENAME about TO entity_id;

DROP SCHEMA feed CASCADE;
SELECT audit_log.revoke_admin('regress_feed_admin');
ALTER DEFAULT PRIVILEGES FOR ROLE regress_feed_admin REVOKE SELECT ON TABLES FROM regress_feed_reader;
DROP OWNED BY regress_feed_admin, regress_feed_writer, regress_feed_reader, regress_feed_people;
DROP ROLE regress_feed_admin, regress_feed_writer, regress_feed_reader, regress_feed_people;
