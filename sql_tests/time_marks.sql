--
-- Marks: what exactly is in one. The marking transaction's own changes of earlier
-- commands are, those of other transactions that its snapshot did not see are not
-- edge cases 7, 16, 133
--
SET client_min_messages = warning;
CREATE SCHEMA time_marks;
SET search_path = time_marks;
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (1, 'before tracking');
SELECT audit_log.enable('t');
CREATE FUNCTION at(moment text) RETURNS text LANGUAGE sql AS $$ SELECT string_agg(id || '=' || v, ' ' ORDER BY id) FROM audit_log.as_of(NULL::time_marks.t, $1) $$;
SELECT audit_log.mark('first', 'a comment');
INSERT INTO t VALUES (2, 'a');
SELECT at('first');

-- between two commands of one transaction; a rolled back level is in no mark, and its marks are gone
BEGIN;
UPDATE t SET v = 'own' WHERE id = 1;
SELECT audit_log.mark('own');
UPDATE t SET v = 'later' WHERE id = 1;
SAVEPOINT a;
UPDATE t SET v = 'undone' WHERE id = 2;
SELECT audit_log.mark('undone');
SELECT at('own'), at('undone');
ROLLBACK TO a;
SELECT audit_log.mark('after rollback');
DELETE FROM t WHERE id = 2;
INSERT INTO t VALUES (2, 'again');
SELECT at('after rollback');
COMMIT;
SELECT at('first'), at('own'), at('after rollback');
SELECT at('undone');

-- inside a statement: from a function and from a trigger a mark sees what a query there would
CREATE FUNCTION step(name text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    UPDATE time_marks.t SET v = v || '+' WHERE id = 1;
    PERFORM audit_log.mark(name);
    UPDATE time_marks.t SET v = v || '-' WHERE id = 1;
    RETURN (SELECT v FROM time_marks.t WHERE id = 1);
END $$;
SELECT step('in a function');
SELECT at('in a function');
CREATE FUNCTION mark_it() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM audit_log.mark('in trigger ' || NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER a_first AFTER UPDATE ON t FOR EACH ROW WHEN (NEW.v = 'all') EXECUTE FUNCTION mark_it();
CREATE TRIGGER z_last AFTER UPDATE ON t FOR EACH ROW WHEN (NEW.v = 'everything') EXECUTE FUNCTION mark_it();
INSERT INTO t VALUES (3, 'three');
-- all rows of the statement are changed by then, whichever are in the log already
UPDATE t SET v = 'all' WHERE id > 1;
SELECT at('in trigger 2'), at('in trigger 3');
SELECT audit_log.drop_mark('in trigger 2'), audit_log.drop_mark('in trigger 3');
UPDATE t SET v = 'everything' WHERE id > 1;
SELECT at('in trigger 2'), at('in trigger 3');

-- REPEATABLE READ: the transaction's snapshot, with its own changes
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM t;
UPDATE t SET v = 'rr' WHERE id = 3;
SELECT audit_log.mark('rr');
COMMIT;
UPDATE t SET v = 'after rr';
SELECT at('rr');

-- a transaction that has nothing to do with the log
BEGIN;
SELECT audit_log.mark('alone');
COMMIT;
SELECT at('alone');

-- names
SELECT audit_log.mark('now');
SELECT audit_log.mark('2026-01-01');
SELECT audit_log.mark('31/12/2026');
SELECT audit_log.mark('tomorrow 10:00');
SELECT audit_log.mark('-infinity');
SELECT audit_log.mark('');
SELECT audit_log.mark(NULL);
SELECT audit_log.mark('first');
SELECT audit_log.mark(E'It''s "odd"; \\ % \n ' || repeat('long ', 1000)) \g /dev/null
SELECT count(*) FROM audit_log.as_of(NULL::t, E'It''s "odd"; \\ % \n ' || repeat('long ', 1000));
SELECT * FROM audit_log.as_of(NULL::t, 'First');
SELECT * FROM audit_log.as_of(NULL::t, NULL::text);
SELECT * FROM audit_log.as_of(NULL::t, NULL::timestamptz);
SELECT name, comment, db_user = current_user AS mine, timestamp BETWEEN now() - interval '1 hour' AND clock_timestamp() AS by_the_clock
  FROM audit_log.marks WHERE name IN ('first', 'own', 'rr') ORDER BY timestamp;

-- made in another cluster that gave no ids out afterwards, and whose xids come again here
BEGIN;
INSERT INTO audit_log.cluster SELECT 1, 1, t.last_value + 1, c.last_value + 1, clock_timestamp() FROM audit_log.transaction_id_seq t, audit_log.change_id_seq c;
INSERT INTO audit_log.mark SELECT 'elsewhere', NULL, clock_timestamp(), pg_current_snapshot(), pg_current_xact_id(), 1000, t.last_value, c.last_value, current_user
  FROM audit_log.transaction_id_seq t, audit_log.change_id_seq c;
INSERT INTO audit_log.cluster SELECT s.system_identifier, p.timeline_id, t.last_value + 1, c.last_value + 1, clock_timestamp()
  FROM pg_control_system() s, pg_control_checkpoint() p, audit_log.transaction_id_seq t, audit_log.change_id_seq c;
CREATE TEMP TABLE was AS SELECT * FROM t;
DELETE FROM t;
SELECT count(*) > 0 AND count(*) = (SELECT count(*) FROM audit_log.as_of(NULL::t, 'elsewhere')) AS as_it_was FROM was;
ROLLBACK;

-- whose they are
CREATE ROLE regress_time_marks;
SELECT audit_log.grant_read('regress_time_marks');
SET ROLE regress_time_marks;
SELECT count(*) > 3 AS seen FROM audit_log.marks;
SELECT * FROM audit_log.mark;
SELECT audit_log.mark('by a reader');
SELECT audit_log.drop_mark('first');
RESET ROLE;
SELECT audit_log.grant_admin('regress_time_marks');
SET ROLE regress_time_marks;
SELECT audit_log.mark('by an admin');
SELECT audit_log.drop_mark('first');
SELECT audit_log.drop_mark('by an admin');
RESET ROLE;
SELECT audit_log.drop_mark('by an admin');
SELECT audit_log.revoke_read('regress_time_marks'), audit_log.revoke_admin('regress_time_marks');
DROP ROLE regress_time_marks;
-- nobody changes one
UPDATE audit_log.mark SET command = 0;
DELETE FROM audit_log.cluster;

SET client_min_messages = error;
SELECT count(audit_log.drop_mark(name)) > 5 AS dropped FROM audit_log.marks;
DROP SCHEMA time_marks CASCADE;
