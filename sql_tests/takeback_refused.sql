-- What stands in the way of looking back stands in the way of taking back to a moment: shown as rows without
-- record_id, refused without force; with it what is known is written. Both kinds of moments.
-- edge case 112
SET client_min_messages = warning;
CREATE SCHEMA takeback_refused;
SET search_path = takeback_refused;
-- what the call does by dry_run, without force, and with it; without the numbers and times of states
CREATE FUNCTION thrice(call text) RETURNS TABLE (how text, record_id text, action_type text, conflict text) LANGUAGE plpgsql AS $$
DECLARE
    detail text;
    columns text := 'record_id, action_type, regexp_replace(conflict, ''state \d+ of [^)]*'', ''a state'')';
BEGIN
    RETURN QUERY EXECUTE format('SELECT %L, %s FROM audit_log.%s ORDER BY 2, 3', 'dry_run', columns, replace(call, ')', ', dry_run => true)'));
    BEGIN
        EXECUTE format('SELECT FROM audit_log.%s', call);
        RETURN QUERY SELECT 'written', NULL, NULL, NULL;
    EXCEPTION WHEN object_not_in_prerequisite_state THEN
        GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
        RETURN QUERY SELECT 'refused', NULL, NULL, regexp_replace(detail, 'state \d+ of [^)]*', 'a state', 'g');
    END;
    RETURN QUERY EXECUTE format('SELECT %L, %s FROM audit_log.%s ORDER BY 2, 3', 'force', columns, replace(call, ')', ', force => true)'));
END $$;

-- a moment before tracking began, as a timestamp
CREATE TABLE began (id int PRIMARY KEY, v text);
INSERT INTO began VALUES (1, 'before');
SELECT audit_log.enable('began');
UPDATE began SET v = 'after';
SELECT * FROM thrice($$rollback_to('{began}', timestamptz '2020-01-01')$$);
TABLE began;

-- a moment in between, as a timestamp
SELECT clock_timestamp() AS moment \gset
UPDATE began SET v = 'later';
INSERT INTO began VALUES (2, 'new');
SELECT * FROM thrice(format('restore_row(''began'', ''1'', timestamptz %L)', :'moment'));
SELECT * FROM thrice(format('rollback_to(''{began}'', timestamptz %L)', :'moment'));
TABLE began;

-- paused meanwhile
CREATE TABLE gap (id int PRIMARY KEY, v text);
SELECT audit_log.enable('gap');
INSERT INTO gap VALUES (1, 'a');
SELECT audit_log.mark('takeback gap');
UPDATE gap SET v = 'b';
BEGIN;
SELECT audit_log.pause('gap', 'test');
INSERT INTO gap VALUES (2, 'unseen');
COMMIT;
SELECT * FROM thrice($$rollback_to('{gap}', 'takeback gap')$$);
TABLE gap ORDER BY id;

-- a column left out, one masked
CREATE TABLE part_of (id int PRIMARY KEY, v text, note text, secret text);
SELECT audit_log.enable('part_of', exclude => '{note}', mask => '{secret}');
INSERT INTO part_of VALUES (1, 'a', 'n', 's');
SELECT audit_log.mark('takeback part');
UPDATE part_of SET v = 'b', note = 'm', secret = 't';
SELECT * FROM thrice($$restore_row('part_of', '1', 'takeback part')$$);
TABLE part_of;

-- a partition gone with its rows
CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY LIST (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2);
SELECT audit_log.enable('parts');
INSERT INTO parts VALUES (1, 'a'), (2, 'a');
SELECT audit_log.mark('takeback parts');
UPDATE parts SET v = 'b';
ALTER TABLE parts DETACH PARTITION parts_2;
SELECT * FROM thrice($$rollback_to('{parts}', 'takeback parts')$$);
TABLE parts;

SELECT count(audit_log.drop_mark(name)) FROM audit_log.marks WHERE name LIKE 'takeback %';
DROP SCHEMA takeback_refused CASCADE;
