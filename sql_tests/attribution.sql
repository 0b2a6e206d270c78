-- Who made a change, and why: one row of audit_log.transaction for each author
-- and reason within a database transaction.
-- edge cases 9, 10, 93, 94, 95, 121
CREATE SCHEMA attribution;
SET search_path = attribution;
CREATE TABLE t (id serial PRIMARY KEY, v text, by text, deep int);
SET client_min_messages = warning;
SELECT audit_log.enable('t');
RESET client_min_messages;
-- the changes with their transaction rows numbered from the first on
CREATE VIEW who AS
  SELECT dense_rank() OVER (ORDER BY transaction_id) AS row, user_id, context, l.changes ->> 'v' AS v
    FROM audit_log.audit_logs l WHERE table_schema = 'attribution' AND table_name = 't' ORDER BY l.id;

-- set_context, SET LOCAL and SET; nothing stays after the transaction but SET
BEGIN;
INSERT INTO t (v) VALUES ('nobody');
SELECT audit_log.set_context('ann', '{"reason": "typo"}');
INSERT INTO t (v) VALUES ('ann 1'), ('ann 2');
INSERT INTO t (v) VALUES ('ann 3');
SELECT audit_log.set_context('ann', '{"reason": "other"}');
INSERT INTO t (v) VALUES ('ann, other reason');
SELECT audit_log.set_context('bob');
INSERT INTO t (v) VALUES ('bob, no reason');
SET LOCAL audit_log.user_id = 'ann';
INSERT INTO t (v) VALUES ('ann, no reason');
SELECT audit_log.set_context(NULL);
INSERT INTO t (v) VALUES ('nobody again');
COMMIT;
INSERT INTO t (v) VALUES ('nobody, next');
SET audit_log.user_id = 'session';
INSERT INTO t (v) VALUES ('session');
BEGIN;
SET LOCAL audit_log.user_id = '';
SET LOCAL audit_log.context = '';
INSERT INTO t (v) VALUES ('empty is none');
COMMIT;
RESET audit_log.user_id;
SELECT * FROM who;
SELECT count(*) FILTER (WHERE started_at > timestamp), count(*) FILTER (WHERE db_user <> current_user),
       count(*) FILTER (WHERE backend_pid <> pg_backend_pid()), count(*) FILTER (WHERE undoes IS NOT NULL OR continues IS NOT NULL),
       count(DISTINCT xid)
  FROM audit_log.transaction WHERE id IN (SELECT transaction_id FROM audit_log.audit_logs WHERE table_schema = 'attribution');

-- a row never changes its author: rolled back, taken up again
TRUNCATE t;
SELECT max(row) AS seen, count(*) AS n FROM who \gset
BEGIN;
SELECT audit_log.set_context('outer');
SAVEPOINT a;
SELECT audit_log.set_context('inner');
INSERT INTO t (v) VALUES ('inner, gone');
ROLLBACK TO a;
INSERT INTO t (v) VALUES ('outer');
SAVEPOINT b;
SELECT audit_log.set_context('inner');
INSERT INTO t (v) VALUES ('inner');
RELEASE b;
INSERT INTO t (v) VALUES ('inner still');
SELECT audit_log.set_context('outer');
INSERT INTO t (v) VALUES ('outer again');
COMMIT;
SELECT row - :seen AS row, user_id, v FROM who OFFSET :n;

-- new_transaction() and transaction_id()
SELECT max(row) AS seen, count(*) AS n FROM who \gset
BEGIN;
INSERT INTO t (v) VALUES ('first');
SELECT audit_log.transaction_id() AS first \gset
INSERT INTO t (v) VALUES ('first still');
SELECT audit_log.new_transaction();
SELECT audit_log.new_transaction();
INSERT INTO t (v) VALUES ('second');
INSERT INTO t (v) VALUES ('second still');
SELECT audit_log.transaction_id() > :first AS higher, audit_log.transaction_id() = audit_log.transaction_id() AS same;
SELECT audit_log.new_transaction();
SELECT audit_log.transaction_id() AS reserved \gset
SELECT audit_log.transaction_id() = :reserved AS same;
INSERT INTO t (v) VALUES ('third, as reserved');
SELECT audit_log.transaction_id() = :reserved AS same;
SAVEPOINT a;
SELECT audit_log.new_transaction();
ROLLBACK TO a;
COMMIT;
-- reserved before anything was changed; not used, and not in the next transaction
BEGIN;
SELECT audit_log.transaction_id() AS reserved2 \gset
SELECT audit_log.set_context('reserver');
INSERT INTO t (v) VALUES ('under the reserved id');
COMMIT;
BEGIN;
SELECT audit_log.transaction_id() AS unused \gset
COMMIT;
INSERT INTO t (v) VALUES ('not under the unused id');
SELECT row - :seen AS row, user_id, v FROM who OFFSET :n;
SELECT transaction_id = :reserved AS third, transaction_id = :reserved2 AS under, transaction_id = :unused AS unused
  FROM audit_log.audit_logs WHERE table_schema = 'attribution' AND changes ->> 'v' ~ 'reserved|unused' ORDER BY id;
-- an id that was told is kept to, though its row was rolled back
BEGIN;
SELECT audit_log.transaction_id() AS reserved3 \gset
SAVEPOINT a;
INSERT INTO t (v) VALUES ('rolled back');
ROLLBACK TO a;
INSERT INTO t (v) VALUES ('after it');
SELECT count(*) AS "row there", bool_and(l.transaction_id = audit_log.transaction_id()) AS "in force",
       bool_and(l.transaction_id = :reserved3) AS "as told"
  FROM audit_log.audit_logs l JOIN audit_log.transaction t ON t.id = l.transaction_id
 WHERE table_schema = 'attribution' AND l.changes ->> 'v' = 'after it';
COMMIT;
BEGIN;
INSERT INTO t (v) VALUES ('the outer one');
SELECT audit_log.transaction_id() AS outer \gset
SAVEPOINT a;
SELECT audit_log.set_context('inner');
INSERT INTO t (v) VALUES ('rolled back');
SELECT audit_log.transaction_id() AS inner \gset
SAVEPOINT b;
SELECT audit_log.new_transaction();
INSERT INTO t (v) VALUES ('rolled back');
ROLLBACK TO a;
SELECT audit_log.transaction_id() = :outer AS "outer again", :inner > :outer AS rising;
INSERT INTO t (v) VALUES ('under the outer one');
SELECT audit_log.set_context('later');
INSERT INTO t (v) VALUES ('a further one');
SELECT audit_log.transaction_id() > :outer AS rising;
COMMIT;
SELECT count(DISTINCT l.transaction_id) AS rows, count(t.id) AS there FROM audit_log.audit_logs l LEFT JOIN audit_log.transaction t ON t.id = l.transaction_id
 WHERE table_schema = 'attribution' AND l.changes ->> 'v' IN ('the outer one', 'under the outer one', 'a further one');

-- a context that is no JSON, or too deep; the change is made all the same
SELECT count(*) AS n FROM who \gset
BEGIN;
SET LOCAL audit_log.context = '{"broken';
INSERT INTO t (v) VALUES ('broken');
INSERT INTO t (v) VALUES ('broken, without another warning');
SET LOCAL audit_log.context = '[1, "any JSON"]';
INSERT INTO t (v) VALUES ('array');
SET LOCAL audit_log.context = 'null';
INSERT INTO t (v) VALUES ('JSON null');
SET LOCAL audit_log.context = '"\u0000"';
INSERT INTO t (v) VALUES ('NUL');
SELECT set_config('audit_log.context', repeat('[', 100000), true) IS NULL;
INSERT INTO t (v) VALUES ('deep');
SELECT set_config('audit_log.context', repeat('[', 500) || repeat(']', 500), true) IS NULL;
INSERT INTO t (v) VALUES ('less deep');
SELECT set_config('audit_log.context', '{"long": "' || repeat('x', 1000000) || '"}', true) IS NULL;
INSERT INTO t (v) VALUES ('long');
COMMIT;
SELECT v, jsonb_typeof(context) AS type, length(context #>> '{}') AS length, CASE WHEN length(context::text) < 40 THEN context END AS context
  FROM (SELECT * FROM who OFFSET :n) w;

-- where the user comes from when the setting names none
SELECT count(*) AS n FROM who \gset
SHOW audit_log.user_id_source;
BEGIN;
SET LOCAL "request.jwt.claims" = '{"sub": "jwt-sub", "role": {"name": ["x"]}, "n": 7, "empty": "", "z": null}';
INSERT INTO t (v) VALUES ('default source');
SET LOCAL audit_log.user_id = 'setting first';
INSERT INTO t (v) VALUES ('setting first');
SET LOCAL audit_log.user_id = '';
SET LOCAL "request.jwt.claims" = '{"sub": "another"}';
INSERT INTO t (v) VALUES ('other claims');
SET LOCAL "request.jwt.claims" = 'no JSON';
INSERT INTO t (v) VALUES ('no JSON');
SET LOCAL "request.jwt.claims" = '["sub"]';
INSERT INTO t (v) VALUES ('no object');
SET LOCAL "request.jwt.claims" = '{"sub": {"a": 1}}';
INSERT INTO t (v) VALUES ('an object');
SET LOCAL "request.jwt.claims" = '';
INSERT INTO t (v) VALUES ('empty');
COMMIT;
BEGIN;
SET LOCAL "request.jwt.claims" = '{"sub": "jwt-sub", "role": {"name": ["x"]}, "n": 7, "empty": "", "z": null}';
SET LOCAL audit_log.user_id_source = 'request.jwt.claims, role, name';
INSERT INTO t (v) VALUES ('path to an array');
SET LOCAL audit_log.user_id_source = '"request.jwt.claims", n';
INSERT INTO t (v) VALUES ('number');
SET LOCAL audit_log.user_id_source = 'request.jwt.claims,empty';
INSERT INTO t (v) VALUES ('empty string');
SET LOCAL audit_log.user_id_source = 'request.jwt.claims,z';
INSERT INTO t (v) VALUES ('null');
SET LOCAL audit_log.user_id_source = 'request.jwt.claims,sub,deeper';
INSERT INTO t (v) VALUES ('too deep');
SET LOCAL "app.user" = 'plain text';
SET LOCAL audit_log.user_id_source = 'app.user';
INSERT INTO t (v) VALUES ('plain');
SET LOCAL audit_log.user_id_source = 'application_name';
SET LOCAL application_name = 'app "name"';
INSERT INTO t (v) VALUES ('a setting of the server''s');
SET LOCAL audit_log.user_id_source = 'no.such_setting,a';
INSERT INTO t (v) VALUES ('no such setting');
SET LOCAL audit_log.user_id_source = '';
INSERT INTO t (v) VALUES ('no source');
COMMIT;
SELECT v, user_id FROM (SELECT * FROM who OFFSET :n) w;

-- user_column: the new row's claim, where nothing else names a user
SET client_min_messages = warning;
SELECT audit_log.enable('t', user_column => 'by');
RESET client_min_messages;
SELECT max(row) AS seen, count(*) AS n FROM who \gset
BEGIN;
INSERT INTO t (v, by) VALUES ('x', 'carl'), ('y', 'dora'), ('z', 'dora'), ('none', NULL), ('empty', '');
UPDATE t SET v = 'claimed' WHERE by = 'dora';
DELETE FROM t WHERE by = 'carl';
SELECT audit_log.set_context('ann');
UPDATE t SET v = 'ann''s' WHERE by = 'dora';
COMMIT;
SELECT row - :seen AS row, user_id, v FROM who OFFSET :n;

-- rows that were there before claim nothing: nobody writes them
CREATE TABLE there (id int PRIMARY KEY, by text);
INSERT INTO there VALUES (1, 'carl'), (2, 'dora'), (3, 'carl');
SELECT audit_log.enable('there', user_column => 'by', baseline => true);
SELECT count(*), count(DISTINCT transaction_id) AS rows, max(user_id) AS "user" FROM audit_log.audit_logs WHERE relation = 'there'::regclass;

-- a setting's name in quotes or behind a blank is found more than once
SET request.jwt.claims = '{"sub": "ann"}';
SET audit_log.user_id_source = '"request.jwt.claims", sub';
INSERT INTO there VALUES (11, NULL);
INSERT INTO there VALUES (12, NULL);
SET audit_log.user_id_source = ' request.jwt.claims, "sub"';
INSERT INTO there VALUES (13, NULL);
INSERT INTO there VALUES (14, NULL);
RESET audit_log.user_id_source;
INSERT INTO there VALUES (15, NULL);
SET request.jwt.claims = '{"sub": 7}';
INSERT INTO there VALUES (16, NULL);
SET request.jwt.claims = '';
INSERT INTO there VALUES (17, NULL);
SELECT record_id, user_id FROM audit_log.audit_logs WHERE relation = 'there'::regclass AND action_type = 'INSERT' ORDER BY id;

-- new_transaction() is answered, though the first answer was rolled back; not where the call was
BEGIN;
INSERT INTO there VALUES (21);
SELECT audit_log.new_transaction();
SAVEPOINT a;
INSERT INTO there VALUES (22);
ROLLBACK TO a;
SAVEPOINT b;
SAVEPOINT c;
INSERT INTO there VALUES (22);
RELEASE c;
ROLLBACK TO b;
INSERT INTO there VALUES (23);
SAVEPOINT d;
SELECT audit_log.new_transaction();
ROLLBACK TO d;
INSERT INTO there VALUES (24);
SELECT dense_rank() OVER (ORDER BY transaction_id) AS row, record_id FROM audit_log.audit_logs
 WHERE relation = 'there'::regclass AND record_id LIKE '2_' ORDER BY id;
COMMIT;

-- the user's own lastval() and currval() are his
SELECT nextval('t_id_seq') AS mine \gset
INSERT INTO t (id, v) VALUES (-1, 'lastval');
SELECT lastval() = :mine AS lastval, currval('t_id_seq') = :mine AS currval;
SELECT currval('audit_log.change_id_seq');

SET client_min_messages = warning;
DROP SCHEMA attribution CASCADE;
