-- Which table is which: renamed, moved, copied, dropped and made again.
-- edge cases 23, 67, 68, 71, 72, 75, 77, 79
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE SCHEMA settings_identity;
CREATE SCHEMA settings_identity_b;
SET search_path = settings_identity;
-- tables by the order in which they came; their states
CREATE VIEW tables AS SELECT dense_rank() OVER (ORDER BY id) AS n, table_schema, table_name, dropped_at IS NOT NULL AS dropped, id
  FROM audit_log.tracked_table WHERE table_schema LIKE 'settings\_identity%';
CREATE VIEW states AS SELECT t.n, s.kind, s.db_user = session_user AS me FROM audit_log.table_state s JOIN tables t ON t.id = s.table_id ORDER BY s.id;
CREATE VIEW log AS SELECT t.n, c.action_type AS action, c.record_id AS id, c.changes FROM audit_log.change c JOIN tables t ON t.id = c.table_id ORDER BY c.id;
CREATE TABLE a (id int PRIMARY KEY, v text);
SELECT audit_log.enable('a', mask => '{v}');
INSERT INTO a VALUES (1, NULL);
-- rename, SET SCHEMA, rename of the schema: the same table
ALTER TABLE a RENAME TO "A new";
INSERT INTO "A new" VALUES (2);
ALTER TABLE "A new" SET SCHEMA settings_identity_b;
INSERT INTO settings_identity_b."A new" VALUES (3);
ALTER SCHEMA settings_identity_b RENAME TO settings_identity_c;
INSERT INTO settings_identity_c."A new" VALUES (4);
SELECT n, table_schema, table_name, dropped FROM tables;
SELECT * FROM log;
SELECT DISTINCT table_schema, table_name, relation FROM audit_log.audit_logs WHERE table_schema LIKE 'settings\_identity%';
SELECT count(*) FROM audit_log.rebuild(NULL::settings_identity_c."A new");
-- two tables that swap their names, in one transaction
ALTER TABLE settings_identity_c."A new" SET SCHEMA settings_identity;
ALTER TABLE "A new" RENAME TO a;
CREATE TABLE b (id int PRIMARY KEY, v text);
SELECT audit_log.enable('b');
BEGIN;
ALTER TABLE a RENAME TO tmp;
ALTER TABLE b RENAME TO a;
ALTER TABLE tmp RENAME TO b;
INSERT INTO a VALUES (10, 'the former b');
INSERT INTO b VALUES (20, NULL);
COMMIT;
SELECT n, table_name, dropped FROM tables;
SELECT * FROM log OFFSET 4;
-- a rename that is rolled back
BEGIN;
ALTER TABLE a RENAME TO elsewhere;
INSERT INTO elsewhere VALUES (11, 'never');
ROLLBACK;
BEGIN;
SAVEPOINT s;
ALTER TABLE a RENAME TO elsewhere;
INSERT INTO elsewhere VALUES (11, 'never');
ROLLBACK TO s;
INSERT INTO a VALUES (12, 'under its name');
COMMIT;
SELECT n, table_name, dropped FROM tables;
SELECT * FROM log OFFSET 6;
SELECT count(*) FILTER (WHERE me) = count(*) AS me, string_agg(n || ' ' || kind, ', ') FROM states;

-- a copy of the table with a copy of its trigger, identity and all, is another table
CREATE TABLE copy (LIKE b INCLUDING ALL);
SELECT replace(pg_get_triggerdef(oid), 'ON settings_identity.b', 'ON settings_identity.copy') AS make
  FROM pg_trigger WHERE tgrelid = 'b'::regclass AND tgname = 'audit_log_row' \gset
:make;
SELECT count(*) AS seen FROM log \gset
INSERT INTO copy VALUES (30, NULL);
INSERT INTO b VALUES (31, NULL);
UPDATE copy SET id = 32;
SELECT * FROM log OFFSET :seen;
SELECT audit_log.enable('copy');
INSERT INTO copy VALUES (33, 'masked');
SELECT n, action, id, length(changes ->> 'v') AS v FROM log OFFSET :seen + 3;
SELECT n, table_name, dropped FROM tables;
SELECT count(DISTINCT uid) = count(*) AS unique FROM audit_log.tracked_table;
-- the original dropped, the copy renamed to its name: still the copy
DROP TABLE b;
ALTER TABLE copy RENAME TO b;
INSERT INTO b VALUES (34, NULL);
SELECT n, table_name, dropped FROM tables;
SELECT n, action, id FROM log OFFSET :seen + 4;

-- dropped and made again under the name: another table; also with the trigger as a dump has it
SELECT pg_get_triggerdef(oid) AS make FROM pg_trigger WHERE tgrelid = 'a'::regclass AND tgname = 'audit_log_row' \gset
DROP TABLE a;
CREATE TABLE a (id int PRIMARY KEY, v text);
INSERT INTO a VALUES (40, 'not tracked');
SELECT audit_log.enable('a');
INSERT INTO a VALUES (41, 'made again');
DROP TABLE a;
CREATE TABLE a (id int PRIMARY KEY, v text);
:make;
INSERT INTO a VALUES (42, 'with the first one''s identity');
SELECT n, table_name, dropped FROM tables;
SELECT n, action, id FROM log OFFSET :seen + 5;
BEGIN;
DROP TABLE a;
ROLLBACK;
INSERT INTO a VALUES (43);
BEGIN;
DROP TABLE a;
CREATE TABLE a (id int PRIMARY KEY);
SELECT audit_log.enable('a');
INSERT INTO a VALUES (44);
COMMIT;
SELECT n, table_name, dropped FROM tables WHERE table_name = 'a';
SELECT n, action, id FROM log OFFSET :seen + 7;
-- several at once, by CASCADE too; each is noted
CREATE TABLE x (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE x1 PARTITION OF x DEFAULT;
CREATE TABLE settings_identity_c.y (id int PRIMARY KEY);
CREATE TABLE z (id int PRIMARY KEY);
SELECT audit_log.enable(t) FROM unnest('{x,settings_identity_c.y,z}'::regclass[]) t;
DROP TABLE z, x;
DROP SCHEMA settings_identity_c CASCADE;
SELECT n, table_name, dropped FROM tables ORDER BY n DESC LIMIT 3;
SELECT string_agg(n || ' ' || kind, ', ' ORDER BY n) FROM (SELECT * FROM states OFFSET 20) s WHERE kind = 'dropped';
-- long names, the same in two schemas
CREATE SCHEMA settings_identity_with_a_name_of_sixty_three_bytes_xxxxxxxxxxxx;
SET search_path = settings_identity_with_a_name_of_sixty_three_bytes_xxxxxxxxxxxx;
CREATE TABLE "a ""table"" named '\x' ünïcödé, of almost sixty-three bytes" (id int PRIMARY KEY);
CREATE TABLE "user" (id int PRIMARY KEY);
SELECT audit_log.enable('"a ""table"" named ''\x'' ünïcödé, of almost sixty-three bytes"'), audit_log.enable('"user"');
INSERT INTO "a ""table"" named '\x' ünïcödé, of almost sixty-three bytes" VALUES (1);
INSERT INTO "user" VALUES (2);
ALTER TABLE "user" RENAME TO "group";
UPDATE "group" SET id = 3;
SELECT table_schema, table_name, record_id, relation FROM audit_log.audit_logs WHERE table_schema = current_schema ORDER BY id;
SELECT * FROM audit_log.check() WHERE relation LIKE '%settings_identity%';

DROP SCHEMA settings_identity_with_a_name_of_sixty_three_bytes_xxxxxxxxxxxx CASCADE;
DROP SCHEMA settings_identity CASCADE;
