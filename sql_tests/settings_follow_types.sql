-- Types that change under a tracked table: attributes and labels added, renamed
-- and dropped, and a type whose DROP takes a column of the settings along.
-- edge cases 2, 12, 45, 46, 119
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE SCHEMA settings_follow_types;
SET search_path = settings_follow_types;
CREATE VIEW log AS
  SELECT table_name AS "table", action_type AS action, record_id AS id, old_record_id AS old, changes
    FROM audit_log.audit_logs WHERE table_schema = 'settings_follow_types' ORDER BY audit_logs.id;
CREATE TYPE pair AS (a int, b text);
CREATE TYPE mood AS ENUM ('x', 'y');
CREATE DOMAIN pos AS int CHECK (value > 0);
CREATE TABLE t (id int PRIMARY KEY, p pair, ps pair[], m mood, d pos);
SELECT audit_log.enable('t');
INSERT INTO t VALUES (1, '(1,a)', '{"(1,a)"}', 'x', 1);
ALTER TYPE pair ADD ATTRIBUTE c int;
INSERT INTO t VALUES (2, '(1,a,5)', '{"(1,a,6)"}', 'x', 1);
UPDATE t SET d = 2 WHERE id = 1;
ALTER TYPE pair RENAME ATTRIBUTE a TO "A";
INSERT INTO t VALUES (3, '(1,a,5)', '{"(1,a,6)"}', 'x', 1);
ALTER TYPE pair DROP ATTRIBUTE b;
INSERT INTO t VALUES (4, '(1,5)', '{"(1,6)"}', 'x', 1);
ALTER TYPE mood RENAME VALUE 'x' TO 'X';
ALTER TYPE mood ADD VALUE 'z';
INSERT INTO t VALUES (5, '(1,5)', '{"(1,6)"}', 'z', 1);
DELETE FROM t WHERE id = 1;
DELETE FROM t WHERE id = 2;
SELECT action, id, changes FROM log;
-- a renamed type or schema of types changes no value
ALTER TYPE pair RENAME TO couple;
ALTER TYPE pos SET SCHEMA public;
UPDATE t SET p = '(2,2)', d = 7 WHERE id = 5;
ALTER DOMAIN public.pos SET SCHEMA settings_follow_types;
UPDATE t SET d = 8 WHERE id = 5;
SELECT action, id, changes FROM log OFFSET 8;

-- DROP of a type takes a masked column along: refused until the settings say so
CREATE TYPE gone AS ENUM ('x');
ALTER TABLE t ADD secret text, ADD g gone;
SELECT audit_log.enable('t', mask => '{secret,g}');
DROP TYPE gone CASCADE;
INSERT INTO t (id) VALUES (6);
UPDATE t SET secret = 'hide me';
SELECT audit_log.enable('t', exclude => '{d}');
SELECT audit_log.enable('t', mask => '{secret}');
INSERT INTO t (id, secret) VALUES (6, 'hide me');
SELECT action, id, length(changes ->> 'secret') AS secret FROM log OFFSET 10;
-- the only included one
CREATE TYPE gone AS ENUM ('x');
ALTER TABLE t ADD g gone;
SELECT audit_log.enable('t', mask => '{}', include => '{g}');
DROP TYPE gone CASCADE;
UPDATE t SET secret = 'hide me too';
SELECT count(*) FROM log WHERE changes::text LIKE '%hide me%';
SELECT s.kind, s.settings FROM audit_log.table_state s JOIN audit_log.tracked_table t ON t.id = s.table_id
 WHERE table_schema = 'settings_follow_types' AND kind <> 'columns' ORDER BY s.id;

DROP SCHEMA settings_follow_types CASCADE;
