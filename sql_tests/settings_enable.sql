-- What enable() can be told, one argument after the other, and what becomes of it.
-- edge cases 36, 37, 135
CREATE SCHEMA settings_enable;
SET search_path = settings_enable;
CREATE VIEW log AS
  SELECT table_name AS "table", action_type AS action, record_id AS id, old_record_id AS old, changes
    FROM audit_log.audit_logs WHERE table_schema = 'settings_enable' ORDER BY audit_logs.id;
CREATE FUNCTION mismatches(target regclass) RETURNS bigint LANGUAGE plpgsql AS $$
  DECLARE n bigint;
  BEGIN
    EXECUTE format('WITH r AS MATERIALIZED (SELECT whole_row AS x FROM audit_log.rebuild(NULL::%1$s) whole_row),
      t AS MATERIALIZED (SELECT whole_row AS x FROM %1$s whole_row)
      SELECT count(*) FROM (SELECT x FROM r UNION ALL SELECT x FROM t) u
       WHERE (SELECT count(*) FROM r WHERE r.x *= u.x) <> (SELECT count(*) FROM t WHERE t.x *= u.x)', target) INTO n;
    RETURN n;
  END $$;
CREATE VIEW states AS SELECT t.table_name, s.kind, s.settings, s.key_columns FROM audit_log.table_state s JOIN audit_log.tracked_table t ON t.id = s.table_id
  WHERE t.table_schema = 'settings_enable' ORDER BY s.id;
-- the trigger's arguments, its identity left out
CREATE FUNCTION arguments(target regclass) RETURNS text LANGUAGE sql AS $$
  SELECT regexp_replace(substring(pg_get_triggerdef(oid) FROM 'capture(.*)'), 'table=[0-9a-f-]{36}', 'table=…')
    FROM pg_trigger WHERE tgrelid = target AND tgname = 'audit_log_row' $$;
CREATE TABLE t (id int PRIMARY KEY, v text, "a b" text, secret text, doc jsonb, by text);
INSERT INTO t (id, v) VALUES (0, 'was there');
SELECT audit_log.enable('t');
SELECT tgname, tgenabled, pg_get_triggerdef(oid) LIKE '%AFTER%' AS after FROM pg_trigger WHERE tgrelid = 't'::regclass ORDER BY 1;
SELECT arguments('t');
-- the same again, and with nothing: no state begins
SELECT audit_log.enable('t');
SELECT audit_log.enable(table_name => 't', exclude => NULL, include => NULL, mask => NULL, condition => NULL, actions => NULL,
  on_truncate => NULL, baseline => NULL, user_column => NULL, require => NULL, always => NULL);
SELECT audit_log.enable('t', baseline => false, on_truncate => 'ROWS', actions => '{Insert,UPDATE,delete,Truncate}', always => false, exclude => '{}');
SELECT * FROM states;
-- everything at once; then each cleared, the others kept
\set SHOW_CONTEXT never
SELECT audit_log.enable('t', exclude => '{"a b",doc}', mask => '{secret}', condition => 'v IS NOT NULL', actions => '{DELETE,insert,Insert}',
  on_truncate => 'Event', user_column => 'by', require => '{user_id,"a, b",a''c}', always => true);
\set SHOW_CONTEXT errors
SELECT audit_log.enable('t', exclude => '{"a b",doc}', mask => '{secret}', condition => 'new.v IS NOT NULL', actions => '{DELETE,insert,Insert}',
  on_truncate => 'Event', user_column => 'by', require => '{user_id,"a, b",a''c}', always => true);
SELECT arguments('t');
SELECT settings FROM states OFFSET 1;
SELECT audit_log.enable('t', exclude => '{}');
SELECT audit_log.enable('t', mask => '{}');
SELECT audit_log.enable('t', condition => '{}');
SELECT audit_log.enable('t', actions => '{}');
SELECT audit_log.enable('t', on_truncate => '{}');
SELECT audit_log.enable('t', user_column => '{}');
SELECT audit_log.enable('t', require => '{}');
SELECT audit_log.enable('t', always => false);
SELECT kind, settings FROM states OFFSET 2;
SELECT arguments('t');
SELECT settings FROM audit_log.tracked_table WHERE table_schema = 'settings_enable';

-- exclude, include, mask: what is logged
SELECT audit_log.enable('t', include => '{v}');
INSERT INTO t VALUES (1, 'v', 'ab', 's', '{}', 'me');
UPDATE t SET secret = 't', doc = '[]' WHERE id = 1;
UPDATE t SET v = 'w', secret = 'u' WHERE id = 1;
SELECT audit_log.enable('t', include => '{}', exclude => '{secret}', mask => '{v,id}');
UPDATE t SET v = 'x', secret = 'v' WHERE id = 1;
UPDATE t SET v = NULL WHERE id = 1;
UPDATE t SET "a b" = NULL WHERE id = 1;
DELETE FROM t WHERE id = 1;
SELECT action, length(id) AS id, CASE WHEN id <> '1' THEN regexp_replace(changes::text, '[0-9a-f]{64}', '<hash>', 'g') ELSE changes::text END AS changes FROM log;
-- the same value has the same hash, within the column and without
SELECT audit_log.enable('t', exclude => '{}', mask => '{v,secret}');
INSERT INTO t (id, v, secret) VALUES (2, 'same', 'same'), (3, 'same', 'other');
SELECT count(DISTINCT changes ->> 'v') AS v, count(DISTINCT changes ->> 'secret') AS secret, bool_or(changes::text ~ 'same|other') AS clear FROM log WHERE id IN ('2', '3');
SELECT audit_log.enable('t', mask => '{}');

-- actions
SELECT audit_log.enable('t', actions => '{UPDATE}');
SELECT count(*) AS seen FROM log \gset
INSERT INTO t (id) VALUES (4);
UPDATE t SET v = 'seen' WHERE id = 4;
DELETE FROM t WHERE id = 4;
SELECT * FROM log OFFSET :seen;
SELECT audit_log.enable('t', actions => '{}');

-- condition: the absent side stands for the row that exists
SELECT audit_log.enable('t', condition => 'NEW.id > 10 AND OLD.v IS DISTINCT FROM ''quiet''');
SELECT arguments('t');
INSERT INTO t (id, v) VALUES (5, 'low'), (11, 'high'), (12, 'quiet');
UPDATE t SET v = v || '!' WHERE id >= 5;
UPDATE t SET id = id + 10 WHERE id = 5;
DELETE FROM t WHERE id > 10;
SELECT action, id, changes FROM log OFFSET :seen + 1;
-- a change of the key is seen from both sides; whole rows, functions, other schemas' operators
CREATE FUNCTION wanted(t) RETURNS boolean LANGUAGE sql AS $$ SELECT $1.v = 'yes' $$;
SELECT audit_log.enable('t', condition => 'old IS DISTINCT FROM new AND wanted(new) OR new.tableoid IS NULL');
SELECT arguments('t');
SET search_path = pg_catalog;
INSERT INTO settings_enable.t (id, v) VALUES (20, 'yes'), (21, 'no');
UPDATE settings_enable.t SET v = 'yes' WHERE id = 21;
SET search_path = settings_enable;
SELECT action, id, changes FROM log OFFSET :seen + 6;
-- an error in it refuses the change; so does one that the writer may not evaluate
SELECT audit_log.enable('t', condition => '1 / (new.id - 30) <> 0');
INSERT INTO t (id) VALUES (30);
SELECT count(*) FROM t WHERE id = 30;
SELECT audit_log.enable('t', condition => '');

-- baseline: each row as it stands, once more if asked again; the masked column masked
TRUNCATE t;
INSERT INTO t (id, v, doc) VALUES (1, 'one', '{"$pg": "x"}'), (2, NULL, 'null');
CREATE TABLE b (id int PRIMARY KEY, v text);
INSERT INTO b VALUES (1, 'a'), (2, NULL), (3, 'c');
SELECT audit_log.enable('b', baseline => true, mask => '{v}', condition => 'new.id < 3');
SELECT action, id, changes - 'v' AS rest, length(changes ->> 'v') AS v FROM log WHERE "table" = 'b';
SELECT count(*) AS seen FROM log \gset
SELECT audit_log.enable('t', baseline => true);
SELECT * FROM log OFFSET :seen;
SELECT mismatches('t');
UPDATE t SET v = 'changed', doc = '"x"';
SELECT mismatches('t');
-- without it, the first change of an old row carries what it can: the delta, or the whole old row
CREATE TABLE o (id int PRIMARY KEY, v text);
INSERT INTO o VALUES (1, 'a'), (2, 'b');
SELECT audit_log.enable('o');
UPDATE o SET v = 'c' WHERE id = 1;
DELETE FROM o WHERE id = 2;
SELECT action, id, changes FROM log WHERE "table" = 'o';
\set VERBOSITY terse
SELECT mismatches('o');
\set VERBOSITY default

-- pause: until the transaction ends, this table only, with its reason
BEGIN;
INSERT INTO t (id) VALUES (41);
SAVEPOINT a;
SELECT audit_log.pause('t', 'bulk load');
INSERT INTO t (id) VALUES (42);
ROLLBACK TO a;
INSERT INTO t (id) VALUES (43);
SELECT audit_log.pause('t', 'real bulk load');
INSERT INTO t (id) VALUES (44);
TRUNCATE t;
INSERT INTO o VALUES (44);
COMMIT;
INSERT INTO t (id) VALUES (45);
SELECT "table", action, id FROM log WHERE id LIKE '4_';
SELECT kind, detail FROM audit_log.table_state WHERE kind = 'paused' AND table_id = (SELECT id FROM audit_log.tracked_table WHERE table_schema = 'settings_enable' AND table_name = 't');
SELECT audit_log.enable('t', baseline => true);
SELECT mismatches('t');

-- disable keeps history; enable takes the settings up again
SELECT audit_log.enable('t', exclude => '{doc}');
SELECT audit_log.disable('t');
SELECT count(*) AS seen FROM log \gset
INSERT INTO t (id) VALUES (46);
TRUNCATE t;
SELECT count(*) - :seen AS captured FROM log;
SELECT count(*) > 0 AS history FROM log WHERE "table" = 't';
SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass;
SELECT audit_log.enable('t');
SELECT arguments('t');
SELECT count(*) FROM audit_log.tracked_table WHERE table_schema = 'settings_enable' AND table_name = 't';
SELECT kind, settings FROM states WHERE table_name = 't' AND kind <> 'settings';
-- all of it in a transaction that is rolled back: nothing of it
BEGIN;
SELECT audit_log.enable('t', exclude => '{v}', mask => '{secret}');
INSERT INTO t (id, v) VALUES (50, 'v');
SELECT audit_log.disable('t');
ROLLBACK;
SELECT arguments('t');
INSERT INTO t (id, v, secret) VALUES (50, 'v', 's');
SELECT action, id, changes FROM log OFFSET :seen;
CREATE TABLE r (id int PRIMARY KEY);
BEGIN;
SELECT audit_log.enable('r');
INSERT INTO r VALUES (1);
ROLLBACK;
INSERT INTO r VALUES (2);
BEGIN;
SAVEPOINT a;
SELECT audit_log.enable('r');
INSERT INTO r VALUES (3);
ROLLBACK TO a;
INSERT INTO r VALUES (4);
SELECT audit_log.enable('r');
INSERT INTO r VALUES (5);
COMMIT;
SELECT action, id, changes FROM log WHERE "table" = 'r';
SELECT kind FROM states WHERE table_name = 'r';
-- an unlogged table
CREATE UNLOGGED TABLE ul (id int PRIMARY KEY);
SELECT audit_log.enable('ul');

SET client_min_messages = warning;
DROP SCHEMA settings_enable CASCADE;
