--
-- create_activity_table(): run twice, over a table that is there, in other
-- schemas, under names of every kind; and the table's end
--
\set SHOW_CONTEXT never
CREATE SCHEMA feed;
CREATE SCHEMA "other Schema";
SET search_path = feed;
CREATE TABLE users (id integer PRIMARY KEY, name text);
CREATE TABLE persons (id integer PRIMARY KEY);
CREATE TABLE two_keys (a int, b int, PRIMARY KEY (a, b));
CREATE TABLE no_key (a int);
CREATE TABLE dated (a date PRIMARY KEY);
CREATE VIEW viewed AS SELECT * FROM users;

-- what it is asked for must make sense
SELECT audit_log.create_activity_table(NULL, 'users');
SELECT audit_log.create_activity_table('activity', NULL);
SELECT audit_log.create_activity_table('activity', 'users', NULL);
SELECT audit_log.create_activity_table('activity', 'nobody');
SELECT audit_log.create_activity_table('activity', 'two_keys');
SELECT audit_log.create_activity_table('activity', 'no_key');
SELECT audit_log.create_activity_table('activity', 'viewed');
DROP VIEW viewed;
SELECT audit_log.create_activity_table('activity', 'dated');
SELECT audit_log.create_activity_table('activity', 'users', 'date');
SELECT audit_log.create_activity_table('a.b.c', 'users');
SELECT audit_log.create_activity_table('', 'users');
SELECT audit_log.create_activity_table('activity; DROP TABLE users', 'users');
SELECT audit_log.create_activity_table('audit_log.activity', 'users');
SELECT audit_log.create_activity_table('pg_temp.activity', 'users');
SELECT audit_log.create_activity_table('nowhere.activity', 'users');
SET search_path = nowhere;
SELECT audit_log.create_activity_table('activity', 'feed.users');
SET search_path = feed;
SELECT count(*) FROM pg_class WHERE relname = 'activity';

-- twice; with something else; and another one
SELECT audit_log.create_activity_table('activity', 'users');
SELECT audit_log.log_activity('one', 'entry') AS id;
REVOKE EXECUTE ON FUNCTION audit_log.log_activity(text, text, integer, integer) FROM PUBLIC;
SELECT audit_log.create_activity_table('feed.activity', user_table => 'users', entity_type => 'int');
SELECT count(*) FROM activity;
SELECT proacl FROM pg_proc p, aclexplode(proacl) a WHERE p.pronamespace = 'audit_log'::regnamespace AND proname = 'log_activity' AND a.grantee = 0;
SELECT audit_log.create_activity_table('activity', 'users', entity_type => 'uuid');
SELECT audit_log.create_activity_table('activity', 'persons');
SELECT audit_log.create_activity_table('feed2', 'users');
SELECT audit_log.create_activity_table('"other Schema".activity', 'users');
-- renamed and moved it is the same one
ALTER TABLE activity RENAME TO "Feed ""of"" all";
ALTER TABLE "Feed ""of"" all" SET SCHEMA "other Schema";
SELECT audit_log.log_activity('two', 'entry') AS id;
SELECT activity_type FROM audit_log.get_recent_activities();
SELECT audit_log.create_activity_table('"other Schema"."Feed ""of"" all"', 'users');
-- a column more
ALTER TABLE "other Schema"."Feed ""of"" all" ADD COLUMN meta jsonb;
SELECT audit_log.log_activity('three', 'entry') AS id;
SELECT activity_type, meta FROM audit_log.get_recent_activities(1);
-- other types: the functions come anew
ALTER TABLE users ALTER id TYPE bigint;
ALTER TABLE "other Schema"."Feed ""of"" all" ALTER user_id TYPE bigint, ALTER entity_id TYPE text;
SELECT audit_log.create_activity_table('"other Schema"."Feed ""of"" all"', 'users', 'text');
INSERT INTO users VALUES (5000000000, 'Big');
SELECT audit_log.log_activity('four', 'entry', '["a", "1"]', 5000000000) AS id;
SELECT user_id, entity_id FROM audit_log.get_recent_activities(1);
SELECT audit_log._activity_table();

-- without it; the functions go with it, without CASCADE
DROP TABLE persons;
DROP TABLE "other Schema"."Feed ""of"" all";
SELECT audit_log._activity_table() IS NULL AS none;
SELECT proname FROM pg_proc WHERE pronamespace = 'audit_log'::regnamespace AND proname IN ('log_activity', 'get_recent_activities');
DELETE FROM users;
ALTER TABLE users ALTER id TYPE integer;

-- one of a migration's, without its foreign key and one index; another key type; a bigint id
CREATE TABLE activity (
    description text NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "timestamp" timestamptz NOT NULL DEFAULT clock_timestamp(),
    user_id integer,
    activity_type text NOT NULL,
    entity_id uuid,
    note text DEFAULT 'x');
CREATE INDEX by_time ON activity ("timestamp" DESC);
INSERT INTO activity (activity_type, description) VALUES ('before', 'it was adopted');
SELECT audit_log.create_activity_table('activity', 'users', 'uuid');
SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'activity'::regclass AND contype = 'f';
SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE indrelid = 'activity'::regclass ORDER BY 1;
SELECT audit_log.log_activity('now', 'entry', '00000000-0000-0000-0000-000000000001') AS id, pg_typeof(audit_log.log_activity('now', 'entry'));
SELECT id, activity_type, note FROM audit_log.get_recent_activities(before_id => 3::bigint);
DROP TABLE activity;
-- entries of users that are gone are in the way of the foreign key, and nothing is half made
CREATE TABLE activity (id serial PRIMARY KEY, "timestamp" timestamptz NOT NULL DEFAULT now(), user_id integer,
    activity_type varchar(50) NOT NULL, description text NOT NULL, entity_id integer);
INSERT INTO activity (user_id, activity_type, description) VALUES (77, 'by', 'nobody');
SELECT audit_log.create_activity_table('activity', 'users');
SELECT count(*) FROM pg_index WHERE indrelid = 'activity'::regclass;
SELECT audit_log._activity_table() IS NULL AS none;
DROP TABLE activity;
-- what does not fit is told, all of it
CREATE TABLE activity (id uuid PRIMARY KEY, "timestamp" timestamp, user_id bigint NOT NULL REFERENCES users, activity_type varchar(20),
    entity_id integer NOT NULL, "more or less" int NOT NULL);
SELECT audit_log.create_activity_table('activity', 'users');
DROP TABLE activity;
CREATE TABLE activity (id int DEFAULT 1, "timestamp" timestamptz NOT NULL, user_id integer REFERENCES users ON DELETE CASCADE,
    activity_type varchar(50) NOT NULL, description text NOT NULL, entity_id integer);
SELECT audit_log.create_activity_table('activity', 'users');
DROP TABLE activity;
CREATE VIEW activity AS SELECT 1 AS id;
SELECT audit_log.create_activity_table('activity', 'users');
DROP VIEW activity;

-- users in partitions, by a unique index; the feed in partitions too
CREATE TABLE members (id int NOT NULL, who varchar(10) NOT NULL UNIQUE) PARTITION BY LIST (who);
CREATE TABLE members_1 PARTITION OF members DEFAULT;
SELECT audit_log.create_activity_table('activity', 'members', 'bigint');
INSERT INTO members VALUES (1, 'Anna');
SET audit_log.user_id = 'Anna';
SELECT audit_log.log_activity('by', 'Anna', 8) AS id;
SET audit_log.user_id = 'Anna and many more';
SELECT audit_log.log_activity('by', 'many') AS id;
RESET audit_log.user_id;
SELECT user_id, description FROM audit_log.get_recent_activities();
DELETE FROM members;
SELECT user_id, description FROM audit_log.get_recent_activities();

-- a user whom the column does not take is none of the feed's
DROP TABLE activity;
CREATE TABLE activity (id serial PRIMARY KEY, "timestamp" timestamptz NOT NULL DEFAULT now(), user_id varchar(4),
    activity_type varchar(50) NOT NULL, description text NOT NULL, entity_id varchar(2));
SELECT audit_log.create_activity_table('activity', 'members', 'varchar');
SELECT audit_log.enable('members');
SELECT audit_log.describe('members', 'insert', 'came', '{who} came');
INSERT INTO members VALUES (1, 'Anna'), (2, 'Bertha');
SET audit_log.user_id = 'Bertha';
SELECT audit_log.log_activity('by', 'Bertha', 'ab') AS id;
INSERT INTO members VALUES (3, 'Cy');
SET audit_log.user_id = 'Anna';
INSERT INTO members VALUES (4, 'Di');
RESET audit_log.user_id;
SELECT user_id, description, entity_id FROM audit_log.get_recent_activities();

-- in a schema whose new tables are tracked it is none of them
SELECT audit_log.enable_schema('other Schema', auto => true);
DROP TABLE activity;
SET search_path = "other Schema", feed;
SELECT audit_log.create_activity_table('activity', 'users');
SELECT audit_log.enable_schema('other Schema', auto => false);
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'activity'::regclass AND tgname ~ 'audit_log';
SET search_path = feed;

-- whoever owns it may be gone with all that he has
CREATE ROLE regress_feed_owner;
GRANT ALL ON SCHEMA feed TO regress_feed_owner;
ALTER TABLE "other Schema".activity OWNER TO regress_feed_owner;
DROP OWNED BY regress_feed_owner;
SELECT count(*) FROM pg_proc WHERE pronamespace = 'audit_log'::regnamespace AND proname IN ('log_activity', 'get_recent_activities');
DROP ROLE regress_feed_owner;
-- a schema with all in it
SET client_min_messages = warning;
SELECT audit_log.create_activity_table('activity', 'users');
DROP SCHEMA feed, "other Schema" CASCADE;
SELECT count(*) FROM pg_proc WHERE pronamespace = 'audit_log'::regnamespace AND proname IN ('log_activity', 'get_recent_activities');
