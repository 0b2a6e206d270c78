-- enable(versioned), disable and enable again, names of tables and columns,
-- what is refused, and taking over what SQLAlchemy-Continuum has kept.
-- edge cases 62, 63, 64, 67
CREATE SCHEMA versions_enable;
SET search_path = versions_enable;
\set SHOW_CONTEXT never
CREATE FUNCTION whole(versions text, keys text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE ok boolean;
BEGIN
  EXECUTE format('SELECT coalesce(bool_and(c.ends IS NOT DISTINCT FROM c.next AND c.ended IS NOT DISTINCT FROM c.next_begun AND (c.ended > c.begun) IS NOT FALSE), true)
    FROM (SELECT end_transaction_id AS ends, valid_to AS ended, valid_from AS begun, lead(transaction_id) OVER w AS next, lead(valid_from) OVER w AS next_begun
            FROM %s WINDOW w AS (PARTITION BY %s ORDER BY transaction_id)) c', versions, keys) INTO ok;
  RETURN ok;
END $$;
-- initial versions, under a transaction row of their own; changes of the same transaction under others
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 3) i;
BEGIN;
SELECT audit_log.set_context('migrator');
INSERT INTO t VALUES (4, 'before');
SELECT audit_log.enable('t', versioned => true);
UPDATE t SET v = 'after' WHERE id = 4;
COMMIT;
SELECT v.id, v.v, v.operation_type AS op, dense_rank() OVER (ORDER BY v.transaction_id) AS transaction, x.user_id, x.continues
  FROM t_version v JOIN audit_log.transaction x ON x.id = v.transaction_id ORDER BY v.id, v.transaction_id;
SELECT settings FROM audit_log.tracked_tables WHERE relation = 't'::regclass;
SELECT tgname, encode(tgargs, 'escape') LIKE '%versioned=true\\000version\_table=t\_version\\000%' AS arguments FROM pg_trigger WHERE tgrelid = 't'::regclass AND tgname = 'audit_log_row';
-- again: nothing to do
SELECT audit_log.enable('t');
-- disable closes nothing; enabling again gives each record that differs one version
SELECT audit_log.disable('t');
UPDATE t SET v = 'unseen' WHERE id = 1;
DELETE FROM t WHERE id = 2;
INSERT INTO t VALUES (5, 'unseen');
SELECT count(*) FROM t_version;
SELECT audit_log.enable('t');
SELECT v.id, v.v, v.operation_type AS op, dense_rank() OVER (ORDER BY v.transaction_id) AS transaction, end_transaction_id IS NULL AS open FROM t_version v ORDER BY v.id, v.transaction_id;
SELECT whole('t_version', 'id');
SELECT s.kind, s.detail FROM audit_log.table_state s WHERE s.table_id = (SELECT id FROM audit_log.tracked_table WHERE table_schema = 'versions_enable' AND table_name = 't') ORDER BY s.id;
-- versions alone off and on
SELECT audit_log.enable('t', versioned => false);
UPDATE t SET v = 'log only' WHERE id = 3;
SELECT audit_log.enable('t', versioned => true);
SELECT v, operation_type AS op FROM t_version WHERE id = 3 ORDER BY transaction_id;
SELECT audit_log.pause('t', 'not with versions');
BEGIN;
SELECT audit_log.enable('t', versioned => false);
SELECT audit_log.pause('t', 'until the end');
SELECT audit_log.enable('t', versioned => true);
ROLLBACK;
-- triggers switched off and on again
ALTER TABLE t DISABLE TRIGGER audit_log_row;
UPDATE t SET v = 'switched' WHERE id = 3;
ALTER TABLE t ENABLE TRIGGER audit_log_row;
SELECT v, operation_type AS op FROM t_version WHERE id = 3 ORDER BY transaction_id;
SELECT whole('t_version', 'id');
-- a table that is dropped and made again goes on with them, for a superuser
DROP TABLE t;
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (5, 'unseen'), (6, 'new');
SELECT audit_log.enable('t', versioned => true);
SELECT id, v, operation_type AS op FROM t_version WHERE end_transaction_id IS NULL ORDER BY id;
SELECT whole('t_version', 'id');

-- other names
CREATE TABLE names (id int PRIMARY KEY, transaction_id int, valid_from date);
SELECT audit_log.enable('names', versioned => true);
SELECT audit_log.enable('names', versioned => true, version_table => 'Names "x"', version_columns => '{"transaction_id": "tx id", "valid_from": "since"}');
INSERT INTO names VALUES (1, 1, '2020-01-01');
SELECT audit_log.enable('names', version_columns => '{"transaction_id": "tx", "valid_from": "since", "operation_type": "op"}', version_table => 'names_old');
UPDATE names SET transaction_id = 2;
SELECT id, transaction_id, valid_from, tx IS NOT NULL AS tx, end_transaction_id IS NULL AS open, op, since < valid_to AS times FROM names_old ORDER BY tx;
SELECT indexname FROM pg_indexes WHERE schemaname = 'versions_enable' AND tablename = 'names_old' ORDER BY indexname COLLATE "C";

-- refused
CREATE TABLE keyless (id int, v text);
CREATE TABLE refused (id int PRIMARY KEY, v text);
SELECT audit_log.enable('keyless', versioned => true);
SELECT audit_log.enable('refused', versioned => true, condition => 'NEW.id > 1');
SELECT audit_log.enable('refused', versioned => true, actions => '{insert}');
SELECT audit_log.enable('refused', versioned => true, on_truncate => 'event');
SELECT audit_log.enable('refused', versioned => true, mask => '{id}');
SELECT audit_log.enable('refused', versioned => true, version_columns => '{"tx": "y"}');
SELECT audit_log.enable('refused', versioned => true, version_columns => '["tx"]');
SELECT audit_log.enable('refused', versioned => true, version_columns => '{"valid_from": "x", "valid_to": "x"}');
SELECT audit_log.enable('refused', versioned => true, version_columns => '{"valid_from": "v"}');
SELECT audit_log.enable('refused', versioned => true, version_table => 'refused');
SELECT audit_log.enable('refused', versioned => true, version_table => 't_version');
CREATE VIEW a_view AS SELECT 1 AS x;
SELECT audit_log.enable('refused', versioned => true, version_table => 'a_view');
CREATE TABLE repeat_repeat_repeat_repeat_repeat_repeat_repeat_repeat_repeat (id int PRIMARY KEY);
SELECT audit_log.enable('repeat_repeat_repeat_repeat_repeat_repeat_repeat_repeat_repeat', versioned => true);
SELECT audit_log.enable('repeat_repeat_repeat_repeat_repeat_repeat_repeat_repeat_repeat', versioned => true, version_table => 'repeat_repeat_repeat_repeat_repeat_repeat_repeat_rep_version');
SELECT indexname FROM pg_indexes WHERE schemaname = 'versions_enable' AND tablename LIKE 'repeat%version' ORDER BY indexname COLLATE "C";
SELECT audit_log.enable('refused', versioned => true);
SELECT audit_log.enable('refused', on_truncate => 'event');
SELECT audit_log.enable('refused', exclude => '{v}');
INSERT INTO refused VALUES (1, 'x');
SELECT id, v FROM refused_version;
-- a whole schema: version tables are passed over
CREATE SCHEMA versions_schema;
CREATE TABLE versions_schema.a (id int PRIMARY KEY);
CREATE TABLE versions_schema.b (id int PRIMARY KEY);
CREATE TABLE versions_schema.keyless (id int);
SELECT audit_log.enable_schema('versions_schema', versioned => true, auto => true);
CREATE TABLE versions_schema.c (id int PRIMARY KEY);
CREATE TABLE versions_schema.keyless2 (id int);
CREATE TABLE versions_schema.repeat_repeat_repeat_repeat_repeat_repeat_repeat_repeat_repeat (id int PRIMARY KEY);
SELECT audit_log.enable_schema('versions_schema');
INSERT INTO versions_schema.c VALUES (1);
SELECT id, operation_type FROM versions_schema.c_version;
SELECT table_name FROM audit_log.tracked_tables WHERE table_schema = 'versions_schema' ORDER BY 1;
SELECT audit_log.enable_schema('versions_schema', auto => false);

-- what a hand-written trigger says
CREATE TABLE hand (id int PRIMARY KEY, v int);
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON hand FOR EACH ROW EXECUTE FUNCTION audit_log.capture('versioned=true', 'version_columns={"transaction_id": 5}');
INSERT INTO hand VALUES (1, 1);
DROP TRIGGER audit ON hand;
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON hand FOR EACH ROW EXECUTE FUNCTION audit_log.capture('versioned=true');
INSERT INTO hand VALUES (1, 1);
SELECT audit_log.enable('hand');
INSERT INTO hand VALUES (1, 1);
SELECT id, v, operation_type FROM hand_version;

-- chains with a hole are found and closed
SELECT audit_log.enable('t');
UPDATE t SET v = 'x' WHERE id = 6;
UPDATE t_version SET end_transaction_id = NULL, valid_to = NULL WHERE id = 6;
DELETE FROM t_version WHERE id = 5 AND end_transaction_id IS NULL;
ALTER TABLE names_old OWNER TO CURRENT_USER;
SELECT problem, remedy FROM audit_log.check() WHERE relation = 'versions_enable.t' ORDER BY problem;
SELECT audit_log.repair();
SELECT problem, remedy FROM audit_log.check() WHERE relation = 'versions_enable.t' ORDER BY problem;
SELECT whole('t_version', 'id');
SELECT id, v, operation_type AS op FROM t_version WHERE end_transaction_id IS NULL ORDER BY id;
DROP TABLE t_version;
SELECT problem, remedy FROM audit_log.check() WHERE relation = 'versions_enable.t' ORDER BY problem;
SELECT audit_log.enable('t');
SELECT problem, remedy FROM audit_log.check() WHERE relation = 'versions_enable.t' ORDER BY problem;

-- columns renamed while no versions are kept: the table that rests goes along, and is gone on with
CREATE TABLE rests (id int PRIMARY KEY, v int);
SELECT audit_log.enable('rests', versioned => true, version_columns => '{"transaction_id": "tx", "valid_to": "till"}');
INSERT INTO rests VALUES (1, 1);
SELECT audit_log.enable('rests', versioned => false);
SELECT audit_log.enable('rests', version_columns => '{"valid_from": "since"}');
UPDATE rests SET v = 2;
SELECT audit_log.enable('rests', versioned => true);
SELECT v, operation_type AS op, end_transaction_id IS NULL AS open, valid_to > since AS ended FROM rests_version ORDER BY transaction_id;

-- ids rise along a record: a row in force with a lower id is gone on from
CREATE TABLE rise (id int PRIMARY KEY, v int);
SELECT audit_log.enable('rise', versioned => true);
INSERT INTO rise VALUES (1, 0), (2, 0);
BEGIN;
SELECT audit_log.transaction_id() > 0 AS reserved;
-- as if another transaction had been given a higher id meanwhile
UPDATE rise_version SET transaction_id = audit_log.transaction_id() + 1000 WHERE id = 2;
SELECT audit_log._pass_id((SELECT max(transaction_id) FROM rise_version));
UPDATE rise SET v = 1 WHERE id = 1;
UPDATE rise SET v = 2;
UPDATE rise SET v = 3;
COMMIT;
SELECT v.id, v.v, v.operation_type AS op, dense_rank() OVER (ORDER BY v.transaction_id) AS transaction, x.continues IS NOT NULL AS continues
  FROM rise_version v LEFT JOIN audit_log.transaction x ON x.id = v.transaction_id ORDER BY v.id, v.transaction_id;
SELECT whole('rise_version', 'id');
SELECT c.action_type, c.record_id, c.transaction_id = v.transaction_id AS same FROM audit_log.change c
  JOIN rise_version v ON v.id::text = c.record_id AND v.v::text = c.changes -> 'v' ->> 1 WHERE c.action_type = 'UPDATE'
   AND c.table_id = (SELECT id FROM audit_log.tracked_table WHERE table_schema = 'versions_enable' AND table_name = 'rise') ORDER BY c.id;
-- the log of a table that is versioned later is as complete as before
CREATE TABLE later (id int PRIMARY KEY, v int);
SELECT audit_log.enable('later');
INSERT INTO later VALUES (1, 0), (2, 0);
SELECT audit_log.enable('later', versioned => true);
UPDATE later SET v = id;
SELECT * FROM audit_log.rebuild(NULL::later) ORDER BY id;
SET client_min_messages = warning;
DROP SCHEMA versions_enable, versions_schema CASCADE;
