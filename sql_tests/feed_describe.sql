--
-- describe(): templates, what they show, and when they write an entry
--
\set SHOW_CONTEXT never
\set VERBOSITY default
CREATE SCHEMA feed;
SET search_path = feed;
SET client_min_messages = warning;
CREATE TABLE users (id integer PRIMARY KEY, name text);
INSERT INTO users VALUES (1, 'Anna'), (2, 'Ben');
CREATE TABLE mine (id int PRIMARY KEY, mine_name text, depth numeric(6,1), attrs jsonb, "a {odd} ""name"".old" text, secret text, hidden text);
SELECT audit_log.describe('mine', 'update', 'x', 'y');
SELECT audit_log.enable('mine', mask => '{secret}', exclude => '{hidden}', actions => '{insert,update}');
SELECT audit_log.describe('mine', 'update', 'x', 'y');
SELECT audit_log.create_activity_table('activity', 'users');
CREATE FUNCTION feed() RETURNS SETOF text LANGUAGE sql AS $$
    WITH gone AS (DELETE FROM feed.activity RETURNING *)
    SELECT format('%s: %s | user %s, entity %s', activity_type, description, coalesce(user_id::text, '-'), coalesce(entity_id::text, '-')) FROM gone ORDER BY id $$;

-- templates are checked when they are set
SELECT audit_log.describe('mine', t.action, t.type, t.template) FROM (VALUES (1, NULL, 'x', 'y')) t (n, action, type, template);
SELECT audit_log.describe('mine', 'update', NULL, 'y');
SELECT audit_log.describe('mine', 'update', '', 'y');
SELECT audit_log.describe('mine', 'update', repeat('x', 51), 'y');
SELECT audit_log.describe('mine', 'truncate', 'x', 'y');
SELECT audit_log.describe('mine', 'delete', 'x', 'y');
SELECT audit_log.describe('mine', 'insert', 'x', 'It is {nothing}');
SELECT audit_log.describe('mine', 'insert', 'x', 'It is {MINE_NAME}');
SELECT audit_log.describe('mine', 'insert', 'x', 'It is {mine_name.old}');
SELECT audit_log.describe('mine', 'update', 'x', 'It is {secret}');
SELECT audit_log.describe('mine', 'update', 'x', 'It was {hidden.old}');
SELECT audit_log.describe('mine', 'update', 'x', t) FROM unnest(ARRAY['{', '}', 'ä {}', '{mine_name', 'x}', '{mine_name}}', '{ mine_name }',
    '{mine_name.new}', '{.old}', '{""}', '{"mine_name}', '{"mine_name"x}', '{mine_name{depth}}', '{xmin}', '{ctid}', '{id.old.old}']) t WHERE t = '{';
DO $$
DECLARE
    t text;
    state text;
    detail text;
BEGIN
    FOREACH t IN ARRAY ARRAY['}', 'ä {}', '{mine_name', 'x}', '{mine_name}}', '{ mine_name }', '{mine_name.new}', '{.old}', '{""}', '{"mine_name}',
            '{"mine_name"x}', '{mine_name{depth}}', '{xmin}', '{ctid}', '{id.old.old}', '{"mine_name.old"}'] LOOP
        BEGIN
            PERFORM audit_log.describe('mine', 'update', 'x', t);
            RAISE WARNING 'taken: %', t;
        EXCEPTION WHEN others THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
            RAISE WARNING '% % %', sqlstate, sqlerrm, detail;
        END;
    END LOOP;
END $$;
SELECT settings FROM audit_log.tracked_tables WHERE relation = 'mine'::regclass;
SELECT audit_log.describe('activity', 'insert', 'x', 'y');
SELECT audit_log.enable('activity');
SELECT audit_log.describe('activity', 'insert', 'x', 'y');
SELECT audit_log.disable('activity');

-- what is set is told, and replaced by the same type of the same action
SET client_min_messages = notice;
SELECT audit_log.enable('mine', actions => '{}');
SELECT audit_log.describe('mine', 'INSERT', 'created', '{mine_name} is {{new}}: {attrs}, {depth} m');
SELECT audit_log.describe('mine', 'Update', 'renamed', 'Mine {id} {mine_name.old} is now {mine_name}');
SELECT audit_log.describe('mine', 'update', 'moved', '{"a {odd} ""name"".old"} and {depth.old} → {depth}');
SELECT audit_log.describe('mine', 'update', 'touched', 'Mine {id} was {mine_name}');
SELECT audit_log.describe('mine', 'update', 'touched', 'Mine {id}');
SELECT audit_log.describe('mine', 'delete', 'closed', '{mine_name}, once {mine_name.old}, is closed');
SET client_min_messages = warning;
SELECT encode(tgargs, 'escape') ~ 'describe=' FROM pg_trigger WHERE tgrelid = 'mine'::regclass AND tgname = 'audit_log_row';
SELECT kind, settings -> 'describe' -> 'update' FROM audit_log.table_state
 WHERE table_id = (SELECT id FROM audit_log.tracked_table WHERE table_name = 'mine' AND table_schema = 'feed' AND dropped_at IS NULL) ORDER BY id DESC LIMIT 1;

SET audit_log.user_id = '1';
INSERT INTO mine VALUES (1, 'Kettle', 120.50, '{"ore": "iron"}', 'odd', 's3cret', 'h1dden'), (2, NULL, NULL, NULL, NULL, NULL, NULL);
SELECT * FROM feed();
UPDATE mine SET mine_name = 'Old Kettle' WHERE id = 1;
UPDATE mine SET mine_name = mine_name, depth = 120.5;
UPDATE mine SET secret = 'other', hidden = 'other' WHERE id = 1;
UPDATE mine SET depth = 121 WHERE id = 1;
SELECT * FROM feed();
UPDATE mine SET mine_name = NULL, depth = 4 WHERE id = 1;
UPDATE mine SET hidden = 'nothing logged' WHERE id = 2;
-- NULL to a value is a change too
UPDATE mine SET mine_name = 'Nora', id = 3 WHERE id = 2;
SELECT * FROM feed();
DELETE FROM mine WHERE id = 1;
TRUNCATE mine;
SELECT * FROM feed();
SELECT count(*) FROM audit_log.audit_logs WHERE relation = 'mine'::regclass;

-- the user is the change's: context, claims, nobody of theirs
RESET audit_log.user_id;
INSERT INTO mine (id) VALUES (10);
BEGIN;
SELECT audit_log.set_context('2');
INSERT INTO mine (id) VALUES (11);
SELECT audit_log.set_context('anna');
INSERT INTO mine (id) VALUES (12);
SELECT audit_log.set_context('99');
INSERT INTO mine (id) VALUES (13);
COMMIT;
SELECT audit_log.enable('mine', user_column => 'mine_name');
INSERT INTO mine (id, mine_name) VALUES (14, '2'), (15, '1'), (16, 'x'), (17, '1');
SELECT * FROM feed();
SELECT audit_log.enable('mine', user_column => '');
DELETE FROM mine;
SELECT count(*) FROM feed();

-- rollback leaves none; savepoints and exceptions leave theirs
BEGIN;
INSERT INTO mine (id, mine_name) VALUES (20, 'kept');
SAVEPOINT s;
INSERT INTO mine (id, mine_name) VALUES (21, 'not kept');
ROLLBACK TO s;
INSERT INTO mine (id, mine_name) VALUES (22, 'kept too');
COMMIT;
BEGIN;
INSERT INTO mine (id, mine_name) VALUES (23, 'not kept');
ROLLBACK;
INSERT INTO mine (id, mine_name) VALUES (24, 'x'), (24, 'twice');
SELECT * FROM feed();
-- an inner statement flushes its own only: its level may be rolled back, the outer one's stays
CREATE FUNCTION nested() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        UPDATE mine SET depth = 1, mine_name = 'inner' WHERE id = NEW.id;
        IF NEW.id % 2 = 0 THEN RAISE EXCEPTION 'undone'; END IF;
    EXCEPTION WHEN raise_exception THEN NULL;
    END;
    RETURN NULL;
END $$;
CREATE TRIGGER z_nested AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION nested();
INSERT INTO mine (id, mine_name, depth) VALUES (30, 'outer', 0), (31, 'outer', 0);
DROP TRIGGER z_nested ON mine;
SELECT * FROM feed() f ORDER BY f COLLATE "C";
-- COPY, ON CONFLICT, MERGE, a CTE, a statement that is prepared
COPY mine (id, mine_name) FROM stdin;
40	copied
\.
INSERT INTO mine (id, mine_name) VALUES (40, 'x'), (41, 'new') ON CONFLICT (id) DO UPDATE SET mine_name = 'conflict';
MERGE INTO mine USING (VALUES (40), (42)) v (id) ON v.id = mine.id WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id, mine_name) VALUES (v.id, 'merged');
WITH i AS (INSERT INTO mine (id, mine_name) VALUES (43, 'cte') RETURNING id) SELECT * FROM i;
SELECT * FROM feed();
-- more than is kept in memory
INSERT INTO mine (id, mine_name) SELECT i, 'bulk' FROM generate_series(101, 3600) i;
SELECT count(*), count(DISTINCT entity_id), min(entity_id), max(entity_id), bool_and(description = 'bulk is {new}: ,  m') FROM activity;
SELECT bool_and(entity_id - 101 = id - (SELECT min(id) FROM activity)) AS in_order FROM activity;
UPDATE mine SET mine_name = repeat('long', 100000) WHERE id = 101;
SELECT activity_type, length(description) FROM activity WHERE entity_id = 101 ORDER BY id;
TRUNCATE mine;
SELECT count(*) FROM activity WHERE activity_type = 'closed' AND entity_id > 100;
TRUNCATE activity;

-- columns are renamed, and those shown are not dropped or masked
ALTER TABLE mine RENAME mine_name TO "is {it}";
ALTER TABLE mine RENAME depth TO "low.old";
SELECT settings -> 'describe' -> 'update' FROM audit_log.tracked_tables WHERE relation = 'mine'::regclass;
INSERT INTO mine (id, "is {it}") VALUES (50, 'there');
UPDATE mine SET "is {it}" = 'gone', "low.old" = 5 WHERE id = 50;
SELECT * FROM feed();
ALTER TABLE mine DROP "is {it}";
SELECT audit_log.enable('mine', mask => '{"is {it}"}');
SELECT audit_log.enable('mine', exclude => '{"low.old",hidden}');
SELECT audit_log.enable('mine', include => '{secret}', exclude => '{}');
ALTER TABLE mine DROP secret, ALTER "low.old" TYPE int;
-- an event trigger that slept: changes are refused, with the remedy
SET session_replication_role = replica;
ALTER TABLE mine RENAME "low.old" TO "low";
RESET session_replication_role;
UPDATE mine SET id = 51;
SELECT audit_log.describe('mine', 'update', 'moved', NULL);
SELECT audit_log.describe('mine', 'insert', 'created', 'New: {low}');
UPDATE mine SET id = 51;
SELECT * FROM feed();
-- disable and enable keep them; NULL and '' end them, with no type all of the action
SELECT audit_log.disable('mine');
INSERT INTO mine (id) VALUES (60);
SELECT audit_log.enable('mine');
INSERT INTO mine (id) VALUES (61);
SELECT * FROM feed();
SELECT audit_log.describe('mine', 'insert', 'created', '');
SELECT audit_log.describe('mine', 'update', NULL, NULL);
SELECT audit_log.describe('mine', 'update', NULL, NULL);
SELECT settings FROM audit_log.tracked_tables WHERE relation = 'mine'::regclass;
SELECT audit_log.describe('mine', 'delete', NULL, NULL);
SELECT settings FROM audit_log.tracked_tables WHERE relation = 'mine'::regclass;
INSERT INTO mine (id) VALUES (62);
DELETE FROM mine;
SELECT * FROM feed();

-- conditions and pause hold for them
SELECT audit_log.enable('mine', condition => 'NEW.low > 5');
SELECT audit_log.describe('mine', 'insert', 'created', 'Low: {low}');
INSERT INTO mine (id, low) VALUES (70, 5), (71, 6);
BEGIN;
SELECT audit_log.pause('mine', 'quiet');
INSERT INTO mine (id, low) VALUES (72, 7);
COMMIT;
SELECT * FROM feed();
-- what is replicated was told where it was made
SELECT audit_log.enable('mine', always => true, condition => '');
SET session_replication_role = replica;
INSERT INTO mine (id, low) VALUES (73, 8);
RESET session_replication_role;
INSERT INTO mine (id, low) VALUES (74, 9);
SELECT * FROM feed();
-- without the activity table changes go on
DROP TABLE activity;
INSERT INTO mine (id, low) VALUES (75, 9);
SELECT audit_log.describe('mine', 'insert', 'created', 'x');
SELECT audit_log.create_activity_table('activity', 'users', 'uuid');
-- a key that is no entity's
INSERT INTO mine (id, low) VALUES (76, 9);
SELECT description, entity_id FROM activity;
-- in a trigger attached by hand, where nobody has checked them
CREATE TABLE by_hand (id int, name text, secret text);
CREATE TRIGGER audit AFTER INSERT OR UPDATE ON by_hand FOR EACH ROW EXECUTE FUNCTION audit_log.capture('mask=secret', 'describe={"update": {"named": "{name.old} > {name}"}}');
INSERT INTO by_hand VALUES (1, 'a', 's');
UPDATE by_hand SET name = 'b';
SELECT description, entity_id FROM audit_log.get_recent_activities(1);
DO $$
DECLARE
    argument text;
BEGIN
    FOREACH argument IN ARRAY ARRAY['{"update": {"named": "{secret}"}}', '{"update": {"named": "{gone}"}}', '{"insert": {"named": "{name.old}"}}', '{"insert": {"x": "}"}}',
            '{"truncate": {"x": "y"}}', '{"update": "x"}', '{"update": {"x": 1}}', '{"update": {"x": {"y": "z"}}}', '[]', '"x"', '{"update": ["x"]}', '{"update": {}}', '{}', ''] LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER audit AFTER INSERT OR UPDATE ON by_hand FOR EACH ROW EXECUTE FUNCTION audit_log.capture(''mask=secret'', %L)', 'describe=' || argument);
        BEGIN
            UPDATE by_hand SET name = 'x';
            RAISE WARNING 'taken: %', argument;
        EXCEPTION WHEN others THEN
            RAISE WARNING '% %', sqlstate, sqlerrm;
        END;
    END LOOP;
END $$;
-- a row that leaves its partition, and one that a trigger keeps from arriving
CREATE TABLE parted (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
CREATE TABLE part1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE part2 (name text, id int NOT NULL);
ALTER TABLE parted ATTACH PARTITION part2 FOR VALUES FROM (10) TO (20);
SELECT audit_log.enable('parted');
SELECT audit_log.describe('part1', 'update', 'x', 'y');
SELECT audit_log.describe('parted', 'update', 'moved', '{name}: {id.old} > {id}');
SELECT audit_log.describe('parted', 'delete', 'lost', '{name} ({id})');
INSERT INTO parted VALUES (1, 'one'), (2, 'two'), (11, 'eleven');
UPDATE parted SET id = 12 WHERE id = 1;
CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
UPDATE parted SET id = 9 WHERE name = 'eleven';
CREATE TRIGGER no BEFORE INSERT ON part2 FOR EACH ROW EXECUTE FUNCTION no();
UPDATE parted SET id = id + 10 WHERE id = 2;
SELECT description FROM activity WHERE activity_type IN ('moved', 'lost') ORDER BY id;
-- a column that goes while nothing is tracked
CREATE TABLE slept (id int PRIMARY KEY, name text, more text);
SELECT audit_log.enable('slept');
SELECT audit_log.describe('slept', 'insert', 'named', '{name}');
SELECT audit_log.describe('slept', 'insert', 'numbered', '{id}');
SELECT audit_log.disable('slept');
ALTER TABLE slept DROP name;
SELECT audit_log.enable('slept');
SELECT audit_log.describe('slept', 'insert', 'named', '{more}');
SELECT audit_log.describe('slept', 'insert', 'named', NULL);
SELECT audit_log.enable('slept');
INSERT INTO slept VALUES (5);
SELECT activity_type, description FROM audit_log.get_recent_activities(1);
SELECT audit_log.describe('activity', 'insert', 'named', NULL);
-- the log is as complete with descriptions, and versions, as without
CREATE TABLE whole (id int PRIMARY KEY, name text);
SELECT audit_log.enable('whole');
INSERT INTO whole VALUES (1, 'a');
SELECT audit_log.describe('whole', 'update', 'x', '{name.old} > {name}');
SELECT audit_log.enable('whole', versioned => true);
UPDATE whole SET name = 'b';
SELECT * FROM audit_log.rebuild(NULL::whole);
SELECT description FROM audit_log.get_recent_activities(1);
DROP SCHEMA feed CASCADE;
