--
-- What as_of, diff and row_as_of refuse: each thing that stands in the way is named
-- edge cases 101, 109, 112, 113
--
SET client_min_messages = warning;
CREATE SCHEMA time_refused;
SET search_path = time_refused;
-- message and detail, without the numbers and times of states
CREATE FUNCTION why(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text;
    detail text;
    n bigint;
BEGIN
    EXECUTE 'SELECT count(*) FROM ' || query INTO n;
    RETURN n || ' rows';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
    RETURN concat_ws(E'\n', SQLSTATE || ' ' || message, regexp_replace(nullif(detail, ''), 'state \d+ of [^)]*', 'a state', 'g'));
END $$;
CREATE FUNCTION as_of(name text, mark text) RETURNS text LANGUAGE sql AS $$ SELECT time_refused.why(format('audit_log.as_of(NULL::time_refused.%s, %L)', name, mark)) $$;

CREATE TABLE t (id int PRIMARY KEY, v text, secret text);
INSERT INTO t VALUES (1, 'a', 's'), (2, 'b', 's');
SELECT audit_log.mark('before tracking');
SELECT as_of('t', 'before tracking');
SELECT audit_log.enable('t');
SELECT as_of('t', 'before tracking');
SELECT why($$audit_log.as_of(NULL::time_refused.t, '2020-01-01'::timestamptz)$$) LIKE '55000 the log cannot tell what table time_refused.t was at 2020-01-01%Its audit began later (a state).' AS before;
SELECT why($$audit_log.diff('time_refused.t', 'before tracking', clock_timestamp())$$);
SELECT why($$audit_log.row_as_of('time_refused.t', '1', 'before tracking')$$);

-- pause, a new baseline, disable
SELECT audit_log.mark('m1');
UPDATE t SET v = 'x';
SELECT as_of('t', 'm1');
BEGIN;
SELECT audit_log.pause('t', 'bulk load');
UPDATE t SET v = 'unseen';
COMMIT;
SELECT as_of('t', 'm1');
SELECT audit_log.mark('m2');
SELECT audit_log.enable('t', baseline => true);
UPDATE t SET v = 'y';
SELECT as_of('t', 'm2');
SELECT audit_log.disable('t');
SELECT as_of('t', 'm2');
SELECT audit_log.mark('disabled');
SELECT audit_log.enable('t');
SELECT as_of('t', 'disabled');

-- settings: rows, actions, columns; masked ones only where they would have to be shown
SELECT audit_log.mark('m3');
SELECT audit_log.enable('t', condition => 'NEW.id > 1');
SELECT as_of('t', 'm3');
SELECT audit_log.enable('t', condition => '', exclude => '{secret}');
SELECT audit_log.mark('m4');
SELECT as_of('t', 'm3');
SELECT as_of('t', 'm4');
ALTER TABLE t RENAME COLUMN secret TO hidden;
SELECT as_of('t', 'm4');
SELECT audit_log.enable('t', exclude => '{}', actions => '{insert,update}');
SELECT audit_log.mark('m5');
SELECT as_of('t', 'm5');
SELECT audit_log.enable('t', actions => '{}', mask => '{hidden}');
SELECT audit_log.mark('m6');
UPDATE t SET v = 'z';
SELECT as_of('t', 'm6');
UPDATE t SET hidden = 'other' WHERE id = 1;
SELECT as_of('t', 'm6');
SELECT why($$audit_log.row_as_of('time_refused.t', '1', 'm6')$$), why($$audit_log.row_as_of('time_refused.t', '2', 'm6')$$);
SELECT audit_log.enable('t', mask => '{}');
-- a column that is gone is no matter
SELECT audit_log.enable('t', exclude => '{hidden}');
SELECT audit_log.mark('m7');
SELECT audit_log.enable('t', exclude => '{}');
SELECT as_of('t', 'm7');
ALTER TABLE t DROP COLUMN hidden;
SELECT as_of('t', 'm7');

-- TRUNCATE as an event; triggers disabled, or gone
SELECT audit_log.enable('t', on_truncate => 'event');
SELECT audit_log.mark('m8');
SELECT as_of('t', 'm8');
TRUNCATE t;
SELECT as_of('t', 'm8');
SELECT audit_log.enable('t', on_truncate => 'rows');
INSERT INTO t VALUES (1, 'a'), (2, 'b');
SELECT audit_log.mark('m9');
ALTER TABLE t DISABLE TRIGGER audit_log_row;
SELECT audit_log.mark('m10');
UPDATE t SET v = 'unseen';
ALTER TABLE t ENABLE TRIGGER audit_log_row;
SELECT as_of('t', 'm9'), as_of('t', 'm10');
SELECT audit_log.mark('m11');
SELECT as_of('t', 'm11');
DROP TRIGGER audit_log_row ON t;
SELECT as_of('t', 'm11');
SELECT audit_log.enable('t');
SELECT as_of('t', 'm11');
-- even if nobody saw the trigger go
SELECT audit_log.mark('m12');
BEGIN;
ALTER EVENT TRIGGER audit_log_drop DISABLE;
DROP TRIGGER audit_log_row ON t;
UPDATE t SET v = 'unseen again';
ALTER EVENT TRIGGER audit_log_drop ENABLE;
SELECT audit_log.enable('t');
COMMIT;
SELECT as_of('t', 'm12');
-- what was changed behind its back is noticed where it does not fit
SELECT audit_log.mark('m13');
SET session_replication_role = replica;
DELETE FROM t WHERE id = 2;
RESET session_replication_role;
SELECT as_of('t', 'm13');
INSERT INTO t VALUES (2, 'new');
UPDATE t SET v = 'x' WHERE id = 2;
SELECT as_of('t', 'm13');
SET session_replication_role = replica;
DELETE FROM t WHERE id = 2;
RESET session_replication_role;
SELECT as_of('t', 'm13'), why($$audit_log.row_as_of('time_refused.t', '2', 'm13')$$), why($$audit_log.diff('time_refused.t', 'm13', clock_timestamp())$$);

-- a trigger attached by hand does not see TRUNCATE
CREATE TABLE hand (id int PRIMARY KEY);
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON hand FOR EACH ROW EXECUTE FUNCTION audit_log.capture();
INSERT INTO hand VALUES (1);
SELECT audit_log.mark('hand');
SELECT as_of('hand', 'hand');

-- another key: under it records had other ids
CREATE TABLE keys (a int NOT NULL, b int NOT NULL, v text);
SELECT audit_log.enable('keys');
SELECT audit_log.mark('no key');
SELECT audit_log.mark('no key either');
INSERT INTO keys VALUES (1, 1, 'x'), (2, 2, 'y');
ALTER TABLE keys ADD PRIMARY KEY (a);
SELECT audit_log.mark('key a');
SELECT as_of('keys', 'no key'), why($$audit_log.row_as_of('time_refused.keys', '1', 'no key')$$);
SELECT as_of('keys', 'key a');
UPDATE keys SET v = 'z';
ALTER TABLE keys DROP CONSTRAINT keys_pkey, ADD PRIMARY KEY (b, a);
SELECT as_of('keys', 'key a');
SELECT audit_log.mark('key b, a');
UPDATE keys SET v = 'zz', a = a + 1 WHERE a = 1;
SELECT as_of('keys', 'key b, a'), audit_log.row_as_of('keys', '[1, 1]', 'key b, a');
SET client_min_messages = notice;
SELECT version, action_type, record FROM audit_log.history('keys', '[1, 2]') ORDER BY version;
SET client_min_messages = warning;

-- partitions: those that come empty, or came empty since, are no matter
CREATE TABLE p (id int, r int, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
INSERT INTO p VALUES (1, 1);
SELECT audit_log.enable('p');
SELECT audit_log.mark('p');
CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);
INSERT INTO p VALUES (2, 2);
SELECT as_of('p', 'p');
ALTER TABLE p2 RENAME TO p2_renamed;
ALTER TABLE p DETACH PARTITION p2_renamed;
SELECT as_of('p', 'p');
CREATE TABLE p3 PARTITION OF p FOR VALUES IN (3);
INSERT INTO p VALUES (3, 3);
DROP TABLE p3;
SELECT as_of('p', 'p');
ALTER TABLE p ATTACH PARTITION p2_renamed FOR VALUES IN (2);
SELECT as_of('p', 'p');
SELECT audit_log.mark('p again');
SELECT as_of('p', 'p again');
ALTER TABLE p DETACH PARTITION p2_renamed;
SELECT as_of('p', 'p again');
SELECT audit_log.mark('p last');
DROP TABLE p1;
SELECT as_of('p', 'p last');
SELECT as_of('p2_renamed', 'p last'), why($$audit_log.as_of(NULL::audit_log.marks, 'p')$$), why($$audit_log.as_of('p'::regclass, 'p')$$), why($$audit_log.rows_as_of(NULL, 'p')$$), why($$audit_log.rows_as_of('pg_class', 'p')$$);
CREATE TABLE p4 PARTITION OF p FOR VALUES IN (4);
SELECT as_of('p4', 'p last');

-- history that has been purged
SELECT audit_log.mark('purged');
INSERT INTO audit_log.table_state SELECT nextval('audit_log.table_state_id_seq'), table_id, 'gap', settings, columns, key_columns,
    '{"reason": "history purged", "partition": "audit_log.change_2020_01"}', db_user, xid, clock_timestamp(), nextval('audit_log.change_id_seq')
  FROM audit_log.table_state WHERE table_id = (SELECT id FROM audit_log.tracked_table WHERE table_schema = 'time_refused' AND table_name = 'p') ORDER BY id DESC LIMIT 1;
SELECT as_of('p', 'purged');
INSERT INTO audit_log.table_state SELECT nextval('audit_log.table_state_id_seq'), table_id, 'gap', settings, columns, key_columns,
    jsonb_build_object('reason', 'history purged', 'partition', 'audit_log.change_' || to_char(now(), 'YYYY_MM')), db_user, xid, clock_timestamp(), nextval('audit_log.change_id_seq')
  FROM audit_log.table_state WHERE table_id = (SELECT id FROM audit_log.tracked_table WHERE table_schema = 'time_refused' AND table_name = 'p') ORDER BY id DESC LIMIT 1;
SELECT regexp_replace(as_of('p', 'purged'), 'change_\d{4}_\d\d', 'change_YYYY_MM');

-- rights: the views' rule
CREATE ROLE regress_time_reader;
-- what a superuser does where no event trigger fires: the trigger that is not there tells
CREATE TABLE hidden (id int PRIMARY KEY);
SELECT audit_log.enable('hidden');
SELECT audit_log.mark('hidden');
SET session_replication_role = replica;
ALTER TABLE hidden DISABLE TRIGGER audit_log_row;
RESET session_replication_role;
INSERT INTO hidden VALUES (1);
SELECT as_of('hidden', 'hidden');
SELECT record_id, conflict FROM audit_log.rollback_to('{hidden}', 'hidden', dry_run => true);
SET session_replication_role = replica;
DROP TRIGGER audit_log_row ON hidden;
RESET session_replication_role;
SELECT as_of('hidden', 'hidden'), why($$audit_log.rollback_to('{time_refused.hidden}', 'hidden')$$);

CREATE TABLE r (id int PRIMARY KEY, v text);
SELECT audit_log.enable('r');
SELECT audit_log.mark('r');
INSERT INTO r VALUES (1, 'a');
GRANT USAGE ON SCHEMA time_refused TO regress_time_reader;
GRANT SELECT (id) ON r TO regress_time_reader;
SET ROLE regress_time_reader;
SELECT as_of('r', 'r');
RESET ROLE;
SELECT audit_log.grant_read('regress_time_reader');
SET ROLE regress_time_reader;
SELECT as_of('r', 'r');
SELECT why($$audit_log.history('time_refused.r', '1')$$), why($$audit_log.diff('time_refused.r', 'r', 'r')$$), why($$audit_log.row_as_of('time_refused.r', '1', 'r')$$),
       why($$audit_log.rows_as_of('time_refused.r', 'r')$$), why($$audit_log.as_of_query('time_refused.r', 'r')$$), why($$audit_log.record_id(NULL::time_refused.r)$$);
RESET ROLE;
GRANT SELECT (v) ON r TO regress_time_reader;
SET ROLE regress_time_reader;
SELECT as_of('r', 'r'), why($$audit_log.history('time_refused.r', '1')$$);
RESET ROLE;
ALTER TABLE r ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_rows ON r USING (true);
SET ROLE regress_time_reader;
SELECT as_of('r', 'r'), why($$audit_log.history('time_refused.r', '1')$$);
RESET ROLE;
SELECT as_of('r', 'r');
SELECT audit_log.revoke_read('regress_time_reader');
SET client_min_messages = error;
SELECT count(audit_log.drop_mark(name)) > 15 AS dropped FROM audit_log.marks;
DROP SCHEMA time_refused CASCADE;
DROP ROLE regress_time_reader;
