--
-- Descriptions and looking back: a template that comes or goes hides nothing of a table's past, and what is taken back
-- is described like any other change; edge cases 10, 112
--
SET client_min_messages = warning;
CREATE SCHEMA feed_past;
SET search_path = feed_past;
CREATE TABLE users (id int PRIMARY KEY);
INSERT INTO users VALUES (1);
SELECT audit_log.create_activity_table('activity', 'users');
CREATE TABLE mine (id int PRIMARY KEY, name text);
CREATE TABLE partly (id int PRIMARY KEY, name text, note text);
SELECT audit_log.enable('mine', versioned => true), audit_log.enable('partly', exclude => '{note}');
SELECT audit_log.describe('mine', 'insert', 'opened', 'Mine {name} was opened'),
       audit_log.describe('mine', 'update', 'renamed', 'Mine {name.old} is now {name}'),
       audit_log.describe('mine', 'delete', 'closed', 'Mine {name} was closed');
SET audit_log.user_id = '1';
INSERT INTO mine VALUES (1, 'Kettle'), (2, 'Adit');
INSERT INTO partly VALUES (1, 'a', 'b');
SELECT audit_log.mark('feed_past');
SELECT audit_log.describe('mine', 'update', 'renamed', 'Mine {name.old} became {name}'), audit_log.describe('partly', 'update', 'x', 'y');
UPDATE mine SET name = name || '!';
DELETE FROM mine WHERE id = 2;
SELECT * FROM audit_log.as_of(NULL::mine, 'feed_past') ORDER BY id;
-- what was left out is named once
\set VERBOSITY terse
DO $$
DECLARE
    detail text;
BEGIN
    PERFORM * FROM audit_log.as_of(NULL::feed_past.partly, 'feed_past');
EXCEPTION WHEN object_not_in_prerequisite_state THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RAISE WARNING '%', regexp_replace(detail, 'state \d+ of [^)]*', 'a state', 'g');
END $$;
\set VERBOSITY default

SELECT record_id, action_type, conflict FROM audit_log.rollback_to('{mine}', 'feed_past') ORDER BY record_id;
SELECT user_id, activity_type, description, entity_id FROM audit_log.get_recent_activities() ORDER BY id;
-- without the table's own triggers too; what a savepoint takes back has no entry
BEGIN;
SELECT record_id, action_type FROM audit_log.undo_transaction((SELECT max(id) FROM audit_log.transaction WHERE undoes IS NOT NULL), user_triggers => false) ORDER BY record_id;
SAVEPOINT s;
SELECT count(*) FROM audit_log.rollback_to('{mine}', 'feed_past');
ROLLBACK TO s;
COMMIT;
SELECT activity_type, description FROM audit_log.get_recent_activities() WHERE id > 7 ORDER BY activity_type;
SELECT id, name, operation_type FROM mine_version WHERE end_transaction_id IS NULL ORDER BY id;
SELECT * FROM mine ORDER BY id;
SELECT audit_log.drop_mark('feed_past');

-- TRUNCATE of what is described together with the activity table, itself tracked: the entries are of afterwards, in the log too
SELECT audit_log.enable('activity', baseline => true), audit_log.enable('users');
SELECT audit_log.describe('users', 'delete', 'left', 'User {id} has left');
RESET audit_log.user_id;
TRUNCATE users CASCADE;
SELECT user_id, description FROM audit_log.get_recent_activities();
SELECT table_name, action_type, changes ->> 'description' AS description FROM audit_log.audit_logs
 WHERE transaction_id = (SELECT max(id) FROM audit_log.transaction) AND (table_name = 'users' OR action_type <> 'DELETE') ORDER BY id;
INSERT INTO users VALUES (2);
TRUNCATE activity, users;
SELECT user_id, description FROM audit_log.get_recent_activities();
SELECT r.description FROM audit_log.rebuild(NULL::activity) r JOIN activity a USING (id);
DROP SCHEMA feed_past CASCADE;
