-- ALTER TABLE of a tracked table: columns that come, go, are renamed or change
-- their type; settings that name them.
-- edge cases 1, 2, 3, 12, 71, 72, 73, 76, 81
\set SHOW_CONTEXT never
CREATE SCHEMA settings_follow;
SET search_path = settings_follow;
CREATE VIEW log AS
  SELECT table_name AS "table", action_type AS action, record_id AS id, old_record_id AS old, changes
    FROM audit_log.audit_logs WHERE table_schema = 'settings_follow' ORDER BY audit_logs.id;
CREATE FUNCTION mismatches(target regclass) RETURNS bigint LANGUAGE plpgsql AS $$
  DECLARE n bigint;
  BEGIN
    EXECUTE format('WITH r AS MATERIALIZED (SELECT whole_row AS x FROM audit_log.rebuild(NULL::%1$s) whole_row),
      t AS MATERIALIZED (SELECT whole_row AS x FROM %1$s whole_row)
      SELECT count(*) FROM (SELECT x FROM r UNION ALL SELECT x FROM t) u
       WHERE (SELECT count(*) FROM r WHERE r.x *= u.x) <> (SELECT count(*) FROM t WHERE t.x *= u.x)', target) INTO n;
    RETURN n;
  END $$;
CREATE VIEW states AS SELECT t.table_name, s.kind, s.settings, s.detail, (SELECT string_agg(format('%s %s %s', c ->> 'number', c ->> 'name', c ->> 'type'), ', ')
    FROM jsonb_array_elements(s.columns) c) AS columns
  FROM audit_log.table_state s JOIN audit_log.tracked_table t ON t.id = s.table_id
  WHERE t.table_schema = 'settings_follow' ORDER BY s.id;
CREATE FUNCTION arguments(target regclass) RETURNS text LANGUAGE sql AS $$
  SELECT regexp_replace(substring(pg_get_triggerdef(oid) FROM 'capture(.*)'), 'table=[0-9a-f-]{36}', 'table=…')
    FROM pg_trigger WHERE tgrelid = target AND tgname = 'audit_log_row' $$;
CREATE TABLE t (dropped int, id int PRIMARY KEY, a int, b text, c text);
ALTER TABLE t DROP dropped;
INSERT INTO t VALUES (1, 10, 'b', 'c');
SET client_min_messages = warning;
SELECT audit_log.enable('t', baseline => true);
RESET client_min_messages;
-- a column added with a fast default is in no stored row
ALTER TABLE t ADD d text DEFAULT 'fast', ADD e int NOT NULL DEFAULT 7;
UPDATE t SET a = 11;
ALTER TABLE t ADD f text;
DELETE FROM t;
INSERT INTO t (id, a) VALUES (2, 20);
ALTER TABLE t ALTER a TYPE text USING 'x' || a, DROP f, ADD g jsonb;
UPDATE t SET a = 'y', g = '{"k": 1}';
ALTER TABLE t ALTER a TYPE varchar(20), ALTER d SET DEFAULT 'other', ALTER e DROP NOT NULL;
ALTER TABLE t RENAME b TO "B b";
UPDATE t SET "B b" = 'renamed', g = '{"k": 2}';
ALTER TABLE t RENAME id TO "I";
UPDATE t SET c = 'key renamed';
SELECT * FROM log;
SELECT kind, columns FROM states;
\set VERBOSITY terse
SELECT mismatches('t');
\set VERBOSITY default
-- what changes no column begins no state
SELECT count(*) AS n FROM states \gset
ALTER TABLE t ALTER d DROP DEFAULT;
CREATE INDEX ON t (a);
ALTER TABLE t SET (fillfactor = 50);
ALTER TABLE t CLUSTER ON t_a_idx;
CLUSTER t;
VACUUM FULL t;
COMMENT ON TABLE t IS 'x';
ALTER TABLE t ADD CONSTRAINT positive CHECK (e > 0);
UPDATE t SET e = 8;
SELECT count(*) - :n AS states FROM states;

-- settings follow a renamed column in the same command, in all lists, also twice in one transaction
CREATE TABLE s (id int PRIMARY KEY, secret text, noise text, who text, kept text, other text);
SET client_min_messages = warning;
SELECT audit_log.enable('s', exclude => '{noise}', mask => '{secret}', user_column => 'who');
RESET client_min_messages;
ALTER TABLE s RENAME secret TO "Se cret";
ALTER TABLE s RENAME noise TO "no,ise";
ALTER TABLE s RENAME who TO updater;
SELECT arguments('s');
INSERT INTO s VALUES (1, 'hide me', 'leave out', 'ann', 'k', NULL);
BEGIN;
ALTER TABLE s RENAME "Se cret" TO x;
ALTER TABLE s RENAME kept TO "Se cret";
ALTER TABLE s RENAME x TO kept;
UPDATE s SET kept = 'hide me too', "Se cret" = 'clear';
ALTER TABLE s RENAME updater TO z;
ROLLBACK;
BEGIN;
SAVEPOINT a;
ALTER TABLE s RENAME "Se cret" TO x;
ROLLBACK TO a;
ALTER TABLE s RENAME "Se cret" TO y;
COMMIT;
SELECT arguments('s');
UPDATE s SET y = 'hide me three', "no,ise" = 'leave out';
ALTER TABLE s DROP y;
ALTER TABLE s DROP "no,ise";
SELECT arguments('s');
-- a new column under a masked column's former name is not masked by that
ALTER TABLE s ADD secret text DEFAULT 'a new one';
UPDATE s SET other = 'x';
ALTER TABLE s DROP updater;             -- refused: it names the user
SELECT user_id, action_type, record_id, regexp_replace(changes::text, '[0-9a-f]{64}', '<hash>', 'g') AS changes
  FROM audit_log.audit_logs WHERE table_name = 's' AND table_schema = 'settings_follow' ORDER BY id;
SELECT count(*) FROM log WHERE changes::text ~ 'hide me|leave out';
-- include: an added column is not among them, nor is a dropped one
SET client_min_messages = warning;
SELECT audit_log.enable('s', include => '{kept}', user_column => '');
RESET client_min_messages;
ALTER TABLE s ADD added text;
UPDATE s SET added = 'x', kept = 'y';
ALTER TABLE s DROP kept;                -- refused: it is the only one
ALTER TABLE s DROP secret;
SELECT arguments('s');
INSERT INTO s (id, other, added) VALUES (2, 'o', 'a');
SELECT action, id, changes FROM log WHERE "table" = 's' OFFSET 3;

-- a condition's columns: neither renamed, nor retyped, nor dropped; others may be
CREATE TABLE w (id int PRIMARY KEY, x int, y int, "x y" int, free int);
SET client_min_messages = warning;
SELECT audit_log.enable('w', condition => 'new.x > 1 OR old."x y" = 1');
RESET client_min_messages;
ALTER TABLE w RENAME x TO z;
ALTER TABLE w RENAME "x y" TO z;
ALTER TABLE w ALTER x TYPE bigint;
ALTER TABLE w DROP x;
ALTER TABLE w DROP x CASCADE;
ALTER TABLE w RENAME y TO x_;
ALTER TABLE w ALTER free TYPE text;
ALTER TABLE w DROP free, DROP "x y";
ALTER TABLE w DROP x_, DROP free;
INSERT INTO w VALUES (1, 1, 0), (2, 2, 0);
SELECT id FROM log WHERE "table" = 'w';
SET client_min_messages = warning;
SELECT audit_log.enable('w', condition => '');
RESET client_min_messages;
ALTER TABLE w RENAME x TO z;

-- partitions follow their root
CREATE TABLE p (id int PRIMARY KEY, v text, secret text) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TABLE p2 (secret text, v text, id int NOT NULL);
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20);
SET client_min_messages = warning;
SELECT audit_log.enable('p', mask => '{secret}');
RESET client_min_messages;
ALTER TABLE p RENAME secret TO hidden;
ALTER TABLE p ADD more text DEFAULT 'more';
SELECT count(DISTINCT arguments(r)), min(arguments(r)) FROM unnest('{p,p1,p2}'::regclass[]) r;
INSERT INTO p VALUES (1, 'v', 'hide'), (11, 'v', 'hide');
UPDATE p2 SET v = 'w';
ALTER TABLE p DROP v;
UPDATE p SET id = id + 11 WHERE id < 10;
UPDATE p SET more = 'x';
SELECT action, id, old, regexp_replace(changes::text, '[0-9a-f]{64}', '<hash>', 'g') AS changes FROM log WHERE "table" = 'p';
SELECT settings FROM audit_log.tracked_table WHERE table_schema = 'settings_follow' AND table_name = 'p';
SELECT kind, columns FROM states WHERE table_name = 'p';
-- arguments that name no column (a rename that nobody followed) refuse the change, never log it in clear
CREATE TABLE n (id int PRIMARY KEY, secret text);
CREATE TRIGGER audit_log_row AFTER INSERT OR UPDATE OR DELETE ON n FOR EACH ROW EXECUTE FUNCTION audit_log.capture('mask=secrets');
INSERT INTO n VALUES (1, 'x');
SELECT audit_log.enable('n');
SELECT audit_log.enable('n', mask => '{secret}');
INSERT INTO n VALUES (1, 'x');
SELECT count(*) FROM log WHERE "table" = 'n' AND changes ->> 'secret' <> 'x';
SELECT kind, settings FROM states WHERE table_name = 'n';

SET client_min_messages = warning;
DROP SCHEMA settings_follow CASCADE;
