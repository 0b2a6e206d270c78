-- Triggers that were switched off, or dropped, and on again: the gap is noted,
-- check() names it while it lasts, and rebuild refuses to go past it.
-- edge case 98
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE SCHEMA sw;
SET search_path = sw;
CREATE VIEW states AS
    SELECT t.table_name, s.kind, s.detail -> 'reason' AS reason, s.detail -> 'disabled' AS disabled
      FROM audit_log.table_state s JOIN audit_log.tracked_table t ON t.id = s.table_id
     WHERE t.table_schema = 'sw' ORDER BY s.id;
CREATE VIEW problems AS
    SELECT relation, problem FROM audit_log.check() WHERE relation LIKE 'sw.%' OR relation !~ '\.' ORDER BY 1, 2;

-- disabled and enabled by ALTER TABLE
CREATE TABLE off (id int PRIMARY KEY);
SELECT audit_log.enable('off');
INSERT INTO off VALUES (1);
ALTER TABLE off DISABLE TRIGGER audit_log_row;
SELECT * FROM problems;
INSERT INTO off VALUES (2);
ALTER TABLE off ENABLE TRIGGER audit_log_row;
INSERT INTO off VALUES (3);
SELECT * FROM states;
SELECT * FROM audit_log.rebuild(NULL::off);
SELECT audit_log.enable('off', baseline => true);
SELECT * FROM audit_log.rebuild(NULL::off) ORDER BY id;
-- a second time, among other things that the command does; enable() ends it
ALTER TABLE off ADD COLUMN n int, DISABLE TRIGGER USER;
INSERT INTO off VALUES (4);
SELECT audit_log.enable('off', baseline => true);
SELECT table_name, kind, reason, disabled FROM states OFFSET 4;
SELECT * FROM audit_log.rebuild(NULL::off) ORDER BY id;
-- what rolls back leaves nothing
BEGIN;
ALTER TABLE off DISABLE TRIGGER ALL;
ROLLBACK;
-- the same again is no new state; a trigger of the user's is none
ALTER TABLE off DISABLE TRIGGER audit_log_truncate;
ALTER TABLE off DISABLE TRIGGER audit_log_truncate;
ALTER TABLE off ENABLE REPLICA TRIGGER audit_log_truncate;
ALTER TABLE off ENABLE ALWAYS TRIGGER audit_log_truncate;
SELECT count(*), max(reason::text) FROM (SELECT * FROM states OFFSET 8) s;
SELECT audit_log.disable('off');
DROP TABLE off;

-- dropped
CREATE TABLE gone (id int PRIMARY KEY);
SELECT audit_log.enable('gone');
INSERT INTO gone VALUES (1);
DROP TRIGGER audit_log_row ON gone;
SELECT * FROM problems;
INSERT INTO gone VALUES (2);
SELECT audit_log.enable('gone');
SELECT * FROM problems;
SELECT * FROM states WHERE table_name = 'gone';
SELECT * FROM audit_log.rebuild(NULL::gone);
-- disable() and DROP TABLE drop triggers too, and are no gaps
SELECT audit_log.disable('gone');
DROP TABLE gone;
SELECT kind FROM states WHERE table_name = 'gone' OFFSET 3;

-- of a partition
CREATE TABLE part (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
CREATE TABLE part_11 PARTITION OF part_1 FOR VALUES FROM (0) TO (5);
SELECT audit_log.enable('part');
ALTER TABLE part_11 DISABLE TRIGGER audit_log_row;
INSERT INTO part VALUES (1);
SELECT * FROM problems;
ALTER TABLE part_11 ENABLE TRIGGER audit_log_row;
SELECT * FROM states WHERE table_name = 'part';
SELECT * FROM audit_log.rebuild(NULL::part);
-- dropped from it
SELECT audit_log.enable('part', baseline => true);
DROP TRIGGER audit_log_truncate ON part_11;
TRUNCATE part_11;
SELECT audit_log.enable('part');
SELECT * FROM states WHERE table_name = 'part' OFFSET 4;
SELECT * FROM audit_log.rebuild(NULL::part);

-- as a schema-only restore makes it: the triggers without the states
CREATE TABLE restored (id int PRIMARY KEY);
CREATE TRIGGER audit_log_row AFTER INSERT OR UPDATE OR DELETE ON restored FOR EACH ROW EXECUTE FUNCTION audit_log.capture();
CREATE TRIGGER audit_log_flush AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON restored EXECUTE FUNCTION audit_log.capture_flush();
CREATE TRIGGER audit_log_truncate BEFORE TRUNCATE ON restored EXECUTE FUNCTION audit_log.capture_truncate();
ALTER TABLE restored DISABLE TRIGGER ALL;
SELECT count(*) FROM states WHERE table_name = 'restored';
ALTER TABLE restored ENABLE TRIGGER ALL;
INSERT INTO restored VALUES (1);
ALTER TABLE restored DISABLE TRIGGER audit_log_row;
SELECT * FROM problems;
ALTER TABLE restored ENABLE TRIGGER audit_log_row;
DROP TRIGGER audit_log_truncate ON restored;
SELECT * FROM problems;
SELECT * FROM states WHERE table_name = 'restored';
DROP TABLE restored;
-- a trigger attached by hand may come and go
CREATE TABLE by_hand (id int PRIMARY KEY);
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON by_hand FOR EACH ROW EXECUTE FUNCTION audit_log.capture();
INSERT INTO by_hand VALUES (1);
ALTER TABLE by_hand DISABLE TRIGGER audit;
DROP TRIGGER audit ON by_hand;
SELECT * FROM problems;
SELECT kind FROM states WHERE table_name = 'by_hand';
DROP TABLE by_hand;

-- renamed while the event triggers were off: repair() finds the table, it is not taken for dropped
CREATE TABLE before (id int PRIMARY KEY);
SELECT audit_log.enable('before');
INSERT INTO before VALUES (1);
BEGIN;
ALTER EVENT TRIGGER audit_log_ddl DISABLE;
ALTER TABLE before RENAME TO after;
ALTER EVENT TRIGGER audit_log_attach ENABLE REPLICA;
SELECT * FROM problems;
ALTER EVENT TRIGGER audit_log_ddl ENABLE;
ALTER EVENT TRIGGER audit_log_attach ENABLE;
COMMIT;
SELECT relation, problem FROM audit_log.check() WHERE relation = 'sw.before';
SELECT audit_log.repair() > 0 AS repaired;
SELECT * FROM problems;
INSERT INTO after VALUES (2);
SELECT table_name, record_id FROM audit_log.audit_logs WHERE relation = 'after'::regclass ORDER BY id;
SELECT * FROM audit_log.rebuild(NULL::after) ORDER BY id;

-- dropped in that way, and a view has the name since
CREATE TABLE viewed (id int PRIMARY KEY);
SELECT audit_log.enable('viewed');
BEGIN;
ALTER EVENT TRIGGER audit_log_drop DISABLE;
DROP TABLE viewed;
ALTER EVENT TRIGGER audit_log_drop ENABLE;
COMMIT;
CREATE VIEW viewed AS SELECT 1 AS id;
SELECT * FROM problems;
SELECT audit_log.repair() > 0 AS repaired;
SELECT * FROM problems;

-- a copy that bears the same arguments is a table of its own, not the one that is gone
CREATE TABLE model (id int PRIMARY KEY);
SELECT audit_log.enable('model');
CREATE TABLE copy (id int PRIMARY KEY);
DO $$
BEGIN
    EXECUTE (SELECT replace(pg_get_triggerdef(oid), 'sw.model', 'sw.copy') FROM pg_trigger
              WHERE tgrelid = 'model'::regclass AND tgname = 'audit_log_row');
END
$$;
INSERT INTO copy VALUES (1);
BEGIN;
ALTER EVENT TRIGGER audit_log_drop DISABLE;
DROP TABLE model;
ALTER EVENT TRIGGER audit_log_drop ENABLE;
SELECT relation, problem FROM audit_log.check() WHERE relation = 'sw.model';
SELECT audit_log.repair() > 0 AS repaired;
SELECT relation, problem FROM audit_log.check() WHERE relation = 'sw.model';
COMMIT;
DROP TABLE copy;

-- without a default partition a missing month would make writes fail
BEGIN;
ALTER TABLE audit_log.change DETACH PARTITION audit_log.change_default;
SELECT * FROM audit_log.check() WHERE relation = 'audit_log.change_default';
ALTER TABLE audit_log.change ATTACH PARTITION audit_log.change_default DEFAULT;
SELECT * FROM audit_log.check() WHERE relation = 'audit_log.change_default';
ROLLBACK;

-- the role that asked for auto has another name: roles have no event triggers
CREATE ROLE regress_sw_auto SUPERUSER;
CREATE SCHEMA sw_auto;
SET ROLE regress_sw_auto;
SELECT audit_log.enable_schema('sw_auto', auto => true);
RESET ROLE;
SELECT * FROM problems;
ALTER ROLE regress_sw_auto RENAME TO regress_sw_other;
SELECT * FROM audit_log.check() WHERE relation = 'schema sw_auto';
SELECT audit_log.enable_schema('sw_auto', auto => true);
SELECT * FROM problems;
CREATE TABLE sw_auto.t (id int PRIMARY KEY);
SELECT triggers_ok FROM audit_log.tracked_tables WHERE relation = 'sw_auto.t'::regclass;

-- NULL is not silently nothing
SELECT audit_log.pause('sw_auto.t', NULL);
SELECT audit_log.pause(NULL, 'reason');
SELECT audit_log.disable(NULL);
DROP SCHEMA sw_auto CASCADE;
DROP ROLE regress_sw_other;

DROP SCHEMA sw CASCADE;
