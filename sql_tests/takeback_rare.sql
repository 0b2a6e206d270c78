-- Conflicts that are seldom met: each shown by dry_run, refused without force, and left out with it
-- edge cases 106, 107, 112
SET client_min_messages = warning;
CREATE SCHEMA takeback_rare;
SET search_path = takeback_rare;
CREATE FUNCTION newest() RETURNS bigint LANGUAGE sql AS
    $$ SELECT max(transaction_id) FROM audit_log.audit_logs WHERE table_schema = 'takeback_rare' $$;
-- what the call does by dry_run, without force, and with it; transactions' numbers left out
CREATE FUNCTION thrice(call text) RETURNS TABLE (how text, record_id text, action_type text, conflict text) LANGUAGE plpgsql AS $$
DECLARE
    detail text;
BEGIN
    RETURN QUERY EXECUTE format('SELECT %L, record_id, action_type, conflict FROM audit_log.%s ORDER BY 2, 3', 'dry_run', replace(call, ')', ', dry_run => true)'));
    BEGIN
        EXECUTE format('SELECT FROM audit_log.%s', call);
        RETURN QUERY SELECT 'written', NULL, NULL, NULL;
    EXCEPTION WHEN object_not_in_prerequisite_state THEN
        GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
        RETURN QUERY SELECT 'refused', NULL, NULL, detail;
    END;
    RETURN QUERY EXECUTE format('SELECT %L, record_id, action_type, conflict FROM audit_log.%s ORDER BY 2, 3', 'force', replace(call, ')', ', force => true)'));
END $$;

-- a key swapped of which there are but two values, with children that would go with a row deleted meanwhile
CREATE TABLE two (id int PRIMARY KEY, b boolean NOT NULL UNIQUE);
CREATE TABLE two_child (two int REFERENCES two ON DELETE CASCADE);
SELECT audit_log.enable('two');
INSERT INTO two VALUES (1, true), (2, false);
INSERT INTO two_child VALUES (1), (2);
BEGIN; DELETE FROM two WHERE id = 1; UPDATE two SET b = true WHERE id = 2; INSERT INTO two VALUES (1, false); COMMIT;
INSERT INTO two_child VALUES (1);
SELECT * FROM thrice(format('undo_transaction(%s)', newest()));
TABLE two ORDER BY id;

-- a row that went without a trace
CREATE TABLE trace (id int PRIMARY KEY, v text);
SELECT audit_log.enable('trace');
INSERT INTO trace VALUES (1, 'a'), (2, 'b');
SELECT audit_log.mark('takeback rare');
UPDATE trace SET v = v || '!';
SET session_replication_role = replica;
DELETE FROM trace WHERE id = 1;
RESET session_replication_role;
SELECT * FROM thrice($$rollback_to('{trace}', 'takeback rare')$$);
TABLE trace;

-- changes of a time when the table had no key
CREATE TABLE keyed (id int, v text);
SELECT audit_log.enable('keyed');
INSERT INTO keyed VALUES (1, 'a');
UPDATE keyed SET v = 'b';
ALTER TABLE keyed ADD PRIMARY KEY (id);
SELECT * FROM thrice(format('undo_transaction(%s)', newest()));
TABLE keyed;

-- a value that its type does not take any more
CREATE DOMAIN short AS text;
CREATE TABLE domains (id int PRIMARY KEY, v short);
SELECT audit_log.enable('domains');
INSERT INTO domains VALUES (1, 'too long'), (2, 'b');
DELETE FROM domains;
ALTER DOMAIN short ADD CHECK (length(VALUE) < 3);
SELECT * FROM thrice(format('undo_transaction(%s)', newest()));
TABLE domains;

-- rules: one that does something else instead, one that does more
CREATE TABLE ruled (id int PRIMARY KEY, v text);
CREATE TABLE more (v text);
SELECT audit_log.enable('ruled');
INSERT INTO ruled VALUES (1, 'a');
UPDATE ruled SET v = 'b';
CREATE RULE nothing AS ON DELETE TO ruled DO INSTEAD NOTHING;
SELECT audit_log.undo_transaction(newest());
DROP RULE nothing ON ruled;
CREATE RULE also AS ON UPDATE TO ruled DO ALSO INSERT INTO more VALUES (NEW.v);
SELECT record_id, action_type, after, conflict FROM audit_log.undo_transaction(newest());
TABLE ruled;
TABLE more;

SELECT audit_log.drop_mark('takeback rare');
DROP SCHEMA takeback_rare CASCADE;
