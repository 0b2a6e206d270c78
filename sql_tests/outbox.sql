--
-- The outbox: consumers, what poll() gives and ack() takes, whose rights count
-- edge cases 92, 97, 99, 101, 115, 126, 133
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE ROLE regress_outbox;
CREATE ROLE regress_outbox_worker IN ROLE regress_outbox;
CREATE ROLE regress_outbox_other;
CREATE SCHEMA outbox;
GRANT USAGE ON SCHEMA outbox TO PUBLIC;
SET search_path = outbox;
CREATE TABLE parent (id int PRIMARY KEY, n int);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE);
CREATE TABLE secret (id int PRIMARY KEY);
GRANT SELECT ON parent, child TO regress_outbox;
SELECT audit_log.enable(t) FROM unnest('{parent,child,secret}'::regclass[]) t;
CREATE FUNCTION poll(consumer text, max_rows int DEFAULT 100) RETURNS TABLE (n bigint, what text) LANGUAGE sql VOLATILE
    AS $$ SELECT row_number() OVER (), concat_ws(' ', p.user_id, p.action_type, p.table_name, p.record_id, p.changes)
            FROM audit_log.poll(consumer, max_rows) WITH ORDINALITY p $$;

-- who may make one
SET ROLE regress_outbox_other;
SELECT audit_log.create_consumer('mine');
SELECT audit_log.drop_consumer('mine');
RESET ROLE;
SET client_min_messages = notice;
SELECT audit_log.create_consumer('mail', 'regress_outbox');
SELECT audit_log.create_consumer('all');
SET client_min_messages = warning;
SELECT audit_log.create_consumer('mail');
SELECT audit_log.create_consumer('');
SELECT audit_log.create_consumer(NULL);
INSERT INTO parent VALUES (1, 0), (2, 0);
SELECT * FROM poll('mail');
SELECT audit_log.ack('mail');

-- one poll after the other: the same until it is acknowledged
SELECT * FROM poll('mail');
SELECT * FROM poll('all', 1);
SELECT * FROM poll('all');
SELECT audit_log.ack('mail'), audit_log.ack('all'), audit_log.ack('all');
SELECT * FROM poll('all');

-- in one transaction: by command, then as captured; a cascade after what it comes of
BEGIN;
SET LOCAL audit_log.user_id = 'kim';
INSERT INTO child VALUES (10, 1);
SET LOCAL audit_log.user_id = 'lee';
UPDATE parent SET n = 1 WHERE id = 1;
SAVEPOINT a;
UPDATE parent SET n = 2 WHERE id = 1;
ROLLBACK TO a;
UPDATE parent SET n = 3 WHERE id = 1;
DELETE FROM parent WHERE id = 1;
INSERT INTO secret VALUES (1);
-- not yet committed, not yet given; what is changed after the poll is not lost either
SELECT * FROM poll('mail');
INSERT INTO parent VALUES (3, 3);
COMMIT;
SELECT * FROM poll('mail', 2);
SELECT * FROM poll('mail');
SELECT audit_log.ack('mail');
SELECT * FROM poll('mail');
-- a superuser's own consumer gets the rest too
SELECT * FROM poll('all', 2);
SELECT audit_log.ack('all');
SELECT * FROM poll('all', 3);
SELECT audit_log.ack('all');
SELECT * FROM poll('all', 3);
-- only what was given last can be acknowledged by its id
SELECT audit_log.ack('all', 0);
SELECT audit_log.ack('all', (SELECT max(id) FROM audit_log.change));
SELECT * FROM poll('all');

-- a poll and its acknowledgement are undone with their transaction
INSERT INTO parent VALUES (4, 4);
BEGIN;
SELECT * FROM poll('mail');
SELECT audit_log.ack('mail');
SELECT * FROM poll('mail');
ROLLBACK;
SELECT * FROM poll('mail');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT audit_log.ack('mail');
SELECT * FROM poll('mail');
INSERT INTO parent VALUES (5, 5);
COMMIT;
SELECT * FROM poll('mail');
SELECT audit_log.ack('mail');

-- whose rights: the consumer's role; members poll, and see what it sees
SET ROLE regress_outbox_worker;
SELECT consumer, role, unacknowledged, behind FROM audit_log.consumers();
SELECT * FROM audit_log.poll('mail');
SELECT audit_log.ack('mail');
SELECT * FROM audit_log.poll('all');
SELECT audit_log.ack('all');
SELECT * FROM audit_log.consumer;
SET ROLE regress_outbox_other;
SELECT consumer FROM audit_log.consumers();
SELECT * FROM audit_log.poll('mail');
SELECT audit_log.ack('mail');
RESET ROLE;
UPDATE parent SET n = 6 WHERE id = 5;
ALTER TABLE parent ENABLE ROW LEVEL SECURITY;
UPDATE child SET id = 11;
INSERT INTO child VALUES (12, 2);
SELECT * FROM poll('mail');
ALTER TABLE parent DISABLE ROW LEVEL SECURITY;
-- of a table that was dropped: for superusers and the installing role
DROP TABLE child;
SELECT * FROM poll('mail');
SELECT * FROM poll('all');
SELECT audit_log.ack('all');

-- no reader can write, nobody else can set
SELECT * FROM audit_log.poll('none');
SELECT * FROM audit_log.poll(NULL);
SELECT audit_log.ack(NULL);
SELECT * FROM audit_log.poll('mail', 0);
SELECT * FROM audit_log.poll('mail', NULL);
SET ROLE regress_outbox;
SET audit_log.notify = on;
RESET ROLE;
SHOW audit_log.notify;
ALTER ROLE regress_outbox RENAME TO regress_outbox_renamed;
SELECT * FROM audit_log.poll('mail');
ALTER ROLE regress_outbox_renamed RENAME TO regress_outbox;

-- check() names the guards that are missing, repair() makes them
BEGIN;
ALTER TABLE audit_log.consumer DISABLE TRIGGER audit_log_guard;
DROP TRIGGER audit_log_guard ON audit_log.restored;
DROP TRIGGER audit_log_restored ON audit_log.transaction;
SELECT * FROM audit_log.check() WHERE relation ~ '^audit_log\.[cr]|ion$' ORDER BY 1;
SELECT audit_log.repair();
SELECT * FROM audit_log.check() WHERE relation ~ '^audit_log\.[cr]|ion$';
UPDATE audit_log.restored SET session = '';
ROLLBACK;
BEGIN;
ALTER TABLE audit_log.transaction ENABLE TRIGGER audit_log_restored;
SELECT relation, problem FROM audit_log.check() WHERE relation = 'audit_log.transaction';
SELECT audit_log.repair();
SELECT relation, problem FROM audit_log.check() WHERE relation = 'audit_log.transaction';
ROLLBACK;

-- only consumers need the index
SELECT to_regclass('audit_log.transaction_outbox_idx') IS NOT NULL AS there;
SELECT audit_log.drop_consumer('mail'), audit_log.drop_consumer('mail'), audit_log.drop_consumer('all');
SELECT to_regclass('audit_log.transaction_outbox_idx') IS NOT NULL AS there;

DROP SCHEMA outbox CASCADE;
DROP ROLE regress_outbox_worker, regress_outbox, regress_outbox_other;
