--
-- The activity table: what such a feed is tested for elsewhere, with users
-- by integer, bigint, uuid and text keys, and entities by integer and uuid
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE SCHEMA feed;
SET search_path = feed;

-- its shape, as a model of it has it
CREATE TABLE users (id integer PRIMARY KEY, name text NOT NULL);
SELECT audit_log.create_activity_table('activity', user_table => 'users', entity_type => 'integer');
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid) AS "default"
  FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = 'activity'::regclass AND a.attnum > 0 ORDER BY a.attnum;
SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'activity'::regclass ORDER BY 1;
SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'activity'::regclass AND contype = 'f';
SELECT pg_get_function_arguments(oid), pg_get_function_result(oid), provolatile FROM pg_proc
 WHERE pronamespace = 'audit_log'::regnamespace AND proname IN ('log_activity', 'get_recent_activities') ORDER BY proname DESC;

INSERT INTO users VALUES (1, 'Anna'), (2, 'Ben');
-- created with all fields
SELECT audit_log.log_activity('mine_created', 'Anna opened Kettle', 7, 1) AS id;
SELECT id, "timestamp" = now() AS now, user_id, activity_type, description, entity_id FROM activity;
BEGIN;
INSERT INTO activity ("timestamp", user_id, activity_type, description, entity_id)
    VALUES ('2026-01-02 03:04:05+00', 1, 'mine_created', 'with its time', 7) RETURNING "timestamp" = '2026-01-02 03:04:05+00' AS kept;
ROLLBACK;
-- without user; without entity; timestamp by default
SELECT audit_log.log_activity('backup', 'Nobody did it', entity_id => 7) AS id;
SELECT audit_log.log_activity('login', 'Ben came', user_id => 2) AS id;
BEGIN;
SELECT audit_log.log_activity('tick', 'now') AS id;
SELECT "timestamp" = now() AS by_default, user_id, entity_id FROM activity WHERE activity_type = 'tick';
ROLLBACK;
-- missing type, missing description; one too long
\set VERBOSITY terse
SELECT audit_log.log_activity(NULL, 'what?');
SELECT audit_log.log_activity('what', NULL);
SELECT audit_log.log_activity('what');
INSERT INTO activity (description) VALUES ('what?');
INSERT INTO activity (activity_type) VALUES ('what');
SELECT audit_log.log_activity(repeat('x', 51), 'too long');
SELECT audit_log.log_activity(repeat('x', 50), 'not too long') IS NOT NULL AS fits;
DELETE FROM activity WHERE description = 'not too long';
\set VERBOSITY default
-- the user from the activity, and the activities from the user
SELECT u.name FROM activity a JOIN users u ON u.id = a.user_id WHERE a.activity_type = 'mine_created';
SELECT u.name, array_agg(a.activity_type ORDER BY a.id) FROM users u JOIN activity a ON a.user_id = u.id GROUP BY u.name ORDER BY u.name;
SELECT description FROM audit_log.get_recent_activities(user_id => 2);
-- a readable one-line form
SELECT format('<Activity %s: %s by %s>', id, activity_type, user_id) AS line FROM audit_log.get_recent_activities(1);
-- several types
SELECT count(audit_log.log_activity(t, 'one of ' || t)) FROM unnest(ARRAY['edit', 'edit', 'comment', 'Ünïcode ✓', '']) t;
SELECT description FROM audit_log.get_recent_activities(activity_type => 'edit');
SELECT activity_type, count(*) FROM activity GROUP BY 1 ORDER BY activity_type COLLATE "C";
-- long descriptions
SELECT audit_log.log_activity('long', repeat('äöü ', 100000)) IS NOT NULL AS fits;
SELECT length(description), description = repeat('äöü ', 100000) AS whole FROM audit_log.get_recent_activities(activity_type => 'long');
-- ordering by time, also of entries that tell of an earlier one
INSERT INTO activity ("timestamp", activity_type, description) VALUES
    ('2020-01-02 00:00+00', 'past', 'second'), ('2020-01-01 00:00+00', 'past', 'first'), ('2020-01-02 00:00+00', 'past', 'third');
SELECT description FROM audit_log.get_recent_activities(activity_type => 'past');
SELECT description FROM activity WHERE activity_type = 'past' ORDER BY "timestamp", id;

-- the user in force is the user; NULL where it is none of theirs
SET audit_log.user_id = '2';
SELECT audit_log.log_activity('as', 'the setting') AS id \gset
SELECT user_id FROM activity WHERE id = :id;
SELECT audit_log.log_activity('as', 'the argument', user_id => 1) AS id \gset
SELECT user_id FROM activity WHERE id = :id;
CREATE TEMP TABLE strange (n serial, who text);
INSERT INTO strange (who) VALUES ('3'), ('anna'), ('2147483648'), ('-9223372036854775809'), ('2.0'), (' 2'), ('2 '), ('+2'), ('2e0'), ('--2'), ('-'), (E'2\n'), ('２'), ('0x2'), ('02');
SELECT count(audit_log.log_activity('strange', who)) FROM (SELECT who, set_config('audit_log.user_id', who, false) FROM strange ORDER BY n OFFSET 0) s;
SELECT s.who, a.user_id FROM strange s JOIN activity a ON a.description = s.who AND a.activity_type = 'strange' ORDER BY s.n;
RESET audit_log.user_id;
SET request.jwt.claims = '{"sub": "1"}';
SELECT audit_log.log_activity('as', 'the claim') AS id \gset
SELECT user_id FROM activity WHERE id = :id;
RESET request.jwt.claims;
-- one that is named must be there
SELECT audit_log.log_activity('as', 'nobody', user_id => 99);

-- deleting the user keeps the entry, with user_id NULL
DELETE FROM users WHERE id = 1;
SELECT user_id, description FROM activity WHERE activity_type = 'mine_created';
SELECT count(*) FROM activity WHERE user_id = 1;

-- a page after the other, while entries arrive, also with earlier times, and go
TRUNCATE activity;
INSERT INTO activity (id, "timestamp", activity_type, description)
    SELECT i, '2026-01-01 00:00+00'::timestamptz + i / 2 * interval '1 min', 'page', i FROM generate_series(1, 20) i;
SELECT string_agg(id::text, ' ') AS first, min(id) AS last FROM audit_log.get_recent_activities(5) \gset
SELECT :'first' AS page;
INSERT INTO activity ("timestamp", activity_type, description) VALUES (now(), 'page', 'new'), ('2026-01-01 00:09+00', 'page', 'late');
SELECT string_agg(id::text, ' ' ) AS second, min(id) AS last FROM audit_log.get_recent_activities(5, before_id => :last) \gset
SELECT :'second' AS page;
DELETE FROM activity WHERE id IN (:last, :last + 1);
SELECT string_agg(id::text, ' ' ) AS page FROM audit_log.get_recent_activities(5, before_id => :last);
SELECT string_agg(id::text, ' ' ) AS all_of_them FROM audit_log.get_recent_activities(NULL, before_id => :last);
SELECT count(*) FROM audit_log.get_recent_activities(before_id => 1);
SELECT count(*) FROM audit_log.get_recent_activities(before_id => -1);
SELECT count(*) FROM audit_log.get_recent_activities(0);
SELECT count(*) FROM audit_log.get_recent_activities(-1);
DROP TABLE activity, users;
SELECT count(*) AS left FROM pg_proc WHERE pronamespace = 'audit_log'::regnamespace AND proname IN ('log_activity', 'get_recent_activities');

-- the same with every type of key
CREATE FUNCTION try(key text, entity text, ben text, entity_value text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
    id bigint;
BEGIN
    EXECUTE format('CREATE TABLE users (name text, key %s PRIMARY KEY)', key);
    EXECUTE format('INSERT INTO users VALUES (''Ben'', %L)', ben);
    PERFORM audit_log.create_activity_table('activity', 'users', entity::regtype);
    PERFORM set_config('audit_log.user_id', ben, true);
    EXECUTE format('SELECT audit_log.log_activity(''t'', ''by setting'', entity_id => %L)', entity_value) INTO id;
    EXECUTE format('SELECT audit_log.log_activity(''t'', ''by argument'', %L, %L)', entity_value, ben) INTO id;
    PERFORM set_config('audit_log.user_id', 'somebody else', true);
    EXECUTE 'SELECT audit_log.log_activity(''t'', ''by nobody'')' INTO id;
    EXECUTE format('SELECT string_agg(concat_ws('' '', description, (SELECT name FROM users u WHERE u.key = a.user_id), entity_id), '', '') FROM audit_log.get_recent_activities() a') INTO result;
    EXECUTE format('SELECT $1 || '' | '' || count(*) || '' by user, '' || (SELECT count(*) FROM audit_log.get_recent_activities(entity_id => %L)) || '' of entity, '' ||
        (SELECT count(*) FROM audit_log.get_recent_activities(before_id => %s)) || '' before'' FROM audit_log.get_recent_activities(user_id => %L)',
        entity_value, id, ben) INTO result USING result;
    DELETE FROM users;
    EXECUTE 'SELECT $1 || '' | '' || count(*) || '' without user'' FROM activity WHERE user_id IS NULL' INTO result USING result;
    DROP TABLE activity, users;
    RETURN result;
END $$;
SELECT k.type, e.type, try(k.type, e.type, k.value, e.value)
  FROM (VALUES (1, 'smallint', '5'), (2, 'integer', '-5'), (3, 'bigint', '9223372036854775807'),
               (4, 'uuid', '12345678-9abc-DEF0-1234-56789abcdef0'), (5, 'text', E'it''s \\ {2}'), (6, 'text COLLATE "C"', 'x'), (7, 'varchar(5)', 'abcde')) k (n, type, value),
       (VALUES (1, 'integer', '7'), (2, 'uuid', '00000000-0000-0000-0000-00000000000a'), (3, 'text', '["a", "1"]')) e (n, type, value)
 ORDER BY k.n, e.n;
DROP SCHEMA feed CASCADE;
