--
-- undo_change, undo_transaction: what they write, what they log, what they leave alone
-- edge cases 18, 45, 53, 61, 103, 106
--
CREATE SCHEMA "take Back";
SET search_path = "take Back";
SET client_min_messages = warning;
\set VERBOSITY terse
CREATE TABLE "Cust""omer" ("I d" int PRIMARY KEY, name text UNIQUE, attrs jsonb, n numeric,
    twice numeric GENERATED ALWAYS AS (n * 2) STORED);
CREATE TABLE sale (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer int REFERENCES "Cust""omer" ON UPDATE CASCADE ON DELETE CASCADE, note text DEFAULT 'none');
CREATE TABLE bag (a int, b text);
SELECT audit_log.enable(t) FROM unnest(ARRAY['"Cust""omer"', 'sale', 'bag']::regclass[]) t;
-- the newest transaction of the log
CREATE FUNCTION newest() RETURNS bigint LANGUAGE sql AS
    $$ SELECT max(transaction_id) FROM audit_log.audit_logs WHERE table_schema = 'take Back' $$;
CREATE FUNCTION newest_change() RETURNS bigint LANGUAGE sql AS
    $$ SELECT max(id) FROM audit_log.audit_logs WHERE table_schema = 'take Back' $$;
INSERT INTO "Cust""omer" VALUES (1, 'Ann', '{"color": "red", "size": {"w": 1, "h": 2}}', 1.50),
    (2, 'Bob', NULL, 'NaN'), (3, 'Cid', 'null', NULL);
INSERT INTO sale (customer, note) VALUES (1, 'first'), (1, NULL), (2, 'third');
INSERT INTO bag VALUES (1, 'x'), (1, 'x'), (NULL, NULL);

-- an UPDATE without WHERE, and others who keep writing other columns and rows
UPDATE "Cust""omer" SET n = 0, attrs = attrs || '{"color": "blue", "new": [1]}';
SELECT newest() AS bad \gset
UPDATE "Cust""omer" SET name = 'Anna', attrs = jsonb_set(attrs, '{size,w}', '9') WHERE "I d" = 1;
INSERT INTO "Cust""omer" VALUES (4, 'Dan', '{}', 4);
SELECT * FROM audit_log.undo_transaction(:bad, dry_run => true) ORDER BY record_id;
-- which has written nothing
SELECT newest_change() - max(id) AS changes_since FROM audit_log.audit_logs WHERE record_id = '4' AND table_schema = 'take Back';
SELECT table_name, record_id, action_type, conflict FROM audit_log.undo_transaction(:bad) ORDER BY record_id;
SELECT * FROM "Cust""omer" ORDER BY 1;
SELECT record_id, action_type, changes, undoes = jsonb_build_object('transaction', :bad) AS undoes
  FROM audit_log.audit_logs WHERE transaction_id = (SELECT newest()) ORDER BY record_id;
-- again: everything has changed since
SELECT audit_log.undo_transaction(:bad);
-- undo of the undo
SELECT table_name, record_id, action_type, conflict FROM audit_log.undo_transaction(newest()) ORDER BY record_id;
SELECT * FROM "Cust""omer" ORDER BY 1;
SELECT count(*) FROM audit_log.undo_transaction(newest());
SELECT * FROM "Cust""omer" ORDER BY 1;

-- a customer deleted with all that was hers: generated and identity columns, NULLs in place of defaults
DELETE FROM "Cust""omer" WHERE "I d" = 1;
SELECT table_name, record_id, action_type, before, after, conflict FROM audit_log.undo_transaction(newest()) ORDER BY 1, 2;
TABLE sale ORDER BY id;
SELECT * FROM "Cust""omer" WHERE "I d" = 1;

-- a key that was changed: its children follow, without a row deleted
UPDATE "Cust""omer" SET "I d" = 10, name = 'Ten' WHERE "I d" = 1;
SELECT table_name, record_id, action_type, before, after FROM audit_log.undo_transaction(newest()) ORDER BY 1, 2;
SELECT record_id, old_record_id, action_type, changes FROM audit_log.audit_logs WHERE transaction_id = (SELECT newest()) ORDER BY id;
-- one that was changed again since is followed
UPDATE "Cust""omer" SET n = 7 WHERE "I d" = 2;
SELECT newest_change() AS seven \gset
UPDATE "Cust""omer" SET "I d" = 20 WHERE "I d" = 2;
UPDATE "Cust""omer" SET "I d" = 21 WHERE "I d" = 20;
INSERT INTO "Cust""omer" VALUES (2, 'another', NULL, 7);
SELECT * FROM audit_log.undo_change(:seven);
SELECT undoes = jsonb_build_object('change', :seven) AS undoes FROM audit_log.audit_logs WHERE id = (SELECT newest_change());
TABLE "Cust""omer" ORDER BY 1;

-- keys swapped, moved along, and used again
BEGIN;
UPDATE "Cust""omer" SET "I d" = -1 WHERE "I d" = 1;
UPDATE "Cust""omer" SET "I d" = 1 WHERE "I d" = 3;
UPDATE "Cust""omer" SET "I d" = 3 WHERE "I d" = -1;
UPDATE "Cust""omer" SET "I d" = 5 WHERE "I d" = 4;
DELETE FROM "Cust""omer" WHERE "I d" = 2;
INSERT INTO "Cust""omer" VALUES (4, 'four', NULL, NULL), (2, 'two', NULL, NULL);
COMMIT;
SELECT table_name, record_id, action_type, conflict FROM audit_log.undo_transaction(newest()) ORDER BY 1, 2, 3;
TABLE "Cust""omer" ORDER BY 1;
TABLE sale ORDER BY 1;

-- rows without key: as many as there were
BEGIN;
UPDATE bag SET b = 'y' WHERE ctid = (SELECT min(ctid) FROM bag WHERE a = 1);
DELETE FROM bag WHERE a IS NULL;
INSERT INTO bag VALUES (2, 'z'), (2, 'z');
COMMIT;
SELECT * FROM audit_log.undo_transaction(newest()) ORDER BY action_type, before;
TABLE bag;
DELETE FROM bag;
SELECT newest_change() AS gone \gset
INSERT INTO bag VALUES (3, 'new');
SELECT count(*) FROM audit_log.undo_transaction(newest());
SELECT count(*) FROM audit_log.undo_change(:gone);
TABLE bag;

-- a part of a transaction
BEGIN;
UPDATE "Cust""omer" SET n = n + 1 WHERE "I d" IN (3, 4);
UPDATE sale SET note = 'part';
COMMIT;
SELECT newest() AS part \gset
SELECT table_name, record_id, action_type FROM audit_log.undo_transaction(:part, tables => '{sale}', record_ids => '{1,2}') ORDER BY 2;
SELECT table_name, record_id, action_type FROM audit_log.undo_transaction(:part, record_ids => '{"03"}');
SELECT table_name, record_id, action_type FROM audit_log.undo_transaction(:part, record_ids => '{3}');
SELECT table_name, record_id, conflict LIKE 'changed since (by transaction %): "note"' AS since FROM audit_log.undo_transaction(:part, dry_run => true) WHERE conflict IS NOT NULL ORDER BY 1, 2;
SELECT n FROM "Cust""omer" WHERE "I d" IN (3, 4) ORDER BY "I d";

-- several authors in one database transaction; undos are none of same_xid's
BEGIN;
SELECT audit_log.set_context('one');
UPDATE sale SET note = 'by one' WHERE id = 1;
SELECT audit_log.set_context('two');
UPDATE sale SET note = 'by two' WHERE id = 2;
SELECT record_id FROM audit_log.undo_transaction(:part, tables => ARRAY['"Cust""omer"']::regclass[], record_ids => '{04}');
COMMIT;
SELECT user_id, undoes IS NOT NULL AS undo, array_agg(record_id ORDER BY record_id) FROM audit_log.audit_logs
 WHERE transaction_id > :part AND (user_id = 'one' OR user_id = 'two') GROUP BY transaction_id, 1, 2 ORDER BY transaction_id;
SELECT min(transaction_id) AS one, max(transaction_id) AS undo FROM audit_log.audit_logs WHERE user_id IN ('one', 'two') \gset
SELECT record_id, before ->> 'note' AS before, after ->> 'note' AS after FROM audit_log.undo_transaction(:one, dry_run => true);
SELECT record_id, before ->> 'note' AS before, after ->> 'note' AS after FROM audit_log.undo_transaction(:one, same_xid => true) ORDER BY 1;

-- a statement inside another has the lower id, and comes later
CREATE TABLE nest (id int PRIMARY KEY, v text);
SELECT audit_log.enable('nest');
CREATE FUNCTION nest() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO nest VALUES (OLD.id, 'again');
    ELSIF NEW.id < 100 THEN
        UPDATE nest SET id = id + 100 WHERE id = NEW.id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER a AFTER UPDATE OR DELETE ON nest FOR EACH ROW EXECUTE FUNCTION nest();
INSERT INTO nest VALUES (1, 'a'), (2, 'b');
DELETE FROM nest WHERE id = 1;
UPDATE nest SET v = 'B' WHERE id = 2;
SELECT max(id) FILTER (WHERE action_type = 'INSERT') AS inserted, max(id) FILTER (WHERE action_type = 'UPDATE' AND changes ? 'v') AS changed
  FROM audit_log.audit_logs WHERE relation = 'nest'::regclass \gset
SELECT record_id, action_type, before, after, conflict FROM audit_log.undo_change(:inserted, user_triggers => false);
SELECT record_id, action_type, before, after, conflict FROM audit_log.undo_change(:changed, user_triggers => false);
TABLE nest;

-- newest first, one after the other: a record is the same when its deletion was taken back
TRUNCATE nest;
DROP TRIGGER a ON nest;
INSERT INTO nest VALUES (1, 'a');
SELECT newest() AS t1 \gset
DELETE FROM nest;
SELECT newest() AS t2 \gset
INSERT INTO nest VALUES (1, 'other');
SELECT newest() AS t3 \gset
DELETE FROM nest;
SELECT action_type, after FROM audit_log.undo_transaction(newest());
-- this one is another
SELECT action_type, conflict LIKE 'changed since % the row is gone' AS gone FROM audit_log.undo_transaction(:t1, dry_run => true);
SELECT action_type, before FROM audit_log.undo_transaction(:t3);
SELECT action_type, after FROM audit_log.undo_transaction(:t2);
SELECT action_type, before, conflict FROM audit_log.undo_transaction(:t1);
TABLE nest;

-- as many rows as there were, also where a row has nothing to set
CREATE TABLE empty (g int GENERATED ALWAYS AS (1) STORED);
SELECT audit_log.enable('empty');
INSERT INTO empty SELECT FROM generate_series(1, 3);
DELETE FROM empty;
SELECT action_type, after FROM audit_log.undo_transaction(newest());
TABLE empty;

-- a change that stands for no row is none to take back
CREATE TABLE event (id int PRIMARY KEY);
INSERT INTO event VALUES (1);
SELECT audit_log.enable('event', baseline => true);
DO $$ BEGIN PERFORM audit_log.undo_change((SELECT max(id) FROM audit_log.audit_logs WHERE relation = 'event'::regclass));
EXCEPTION WHEN invalid_parameter_value THEN RAISE WARNING '%', regexp_replace(sqlerrm, '\d+', 'N'); END $$;
TRUNCATE event;
DO $$ DECLARE hint text; BEGIN PERFORM audit_log.undo_change((SELECT max(id) FROM audit_log.audit_logs WHERE relation = 'event'::regclass));
EXCEPTION WHEN invalid_parameter_value THEN GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RAISE WARNING '% (%)', regexp_replace(sqlerrm, '\d+', 'N'), regexp_replace(hint, '\d+', 'N'); END $$;
SELECT record_id, action_type FROM audit_log.undo_transaction(newest());

-- a row whose key was changed since keeps it, also where another row has the former one
CREATE TABLE turns (id int PRIMARY KEY, v text);
SELECT audit_log.enable('turns');
INSERT INTO turns VALUES (1, 'a'), (2, 'b');
UPDATE turns SET v = v || '!';
SELECT newest() AS t1 \gset
BEGIN; UPDATE turns SET id = 3 WHERE id = 1; UPDATE turns SET id = 1 WHERE id = 2; UPDATE turns SET id = 2 WHERE id = 3; COMMIT;
SELECT record_id, action_type, before, after, conflict FROM audit_log.undo_transaction(:t1) ORDER BY 1;
SELECT record_id, old_record_id, changes FROM audit_log.audit_logs WHERE transaction_id = (SELECT newest()) ORDER BY id;
TABLE turns ORDER BY id;

-- GENERATED ALWAYS AS IDENTITY is updated: what refers to the row does not go with it
CREATE TABLE ident (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY UNIQUE);
CREATE TABLE ident_child (id int REFERENCES ident ON DELETE CASCADE, n int REFERENCES ident (n) ON DELETE SET NULL ON UPDATE CASCADE);
SELECT audit_log.enable('ident');
INSERT INTO ident VALUES (1), (2);
INSERT INTO ident_child VALUES (1, 1), (2, 2);
UPDATE ident SET n = DEFAULT;
SELECT record_id, action_type, before, after, conflict FROM audit_log.undo_transaction(newest()) ORDER BY 1;
TABLE ident_child ORDER BY id;
SELECT attidentity FROM pg_attribute WHERE attrelid = 'ident'::regclass AND attname = 'n';
UPDATE ident SET n = 7;
SELECT kind FROM audit_log.table_state s JOIN audit_log.tracked_table t ON t.id = s.table_id WHERE t.table_name = 'ident' AND t.table_schema = 'take Back';

-- keys that read as something else
CREATE TABLE odd (j jsonb PRIMARY KEY, v int);
SELECT audit_log.enable('odd');
INSERT INTO odd VALUES ('null', 1), ('{"$pg": "x"}', 2), ('"text"', 3), ('["[", null]', 4);
UPDATE odd SET v = v + 10;
SELECT record_id, action_type, conflict FROM audit_log.undo_transaction(newest()) ORDER BY before -> 'v';
DELETE FROM odd;
SELECT record_id, action_type, conflict FROM audit_log.undo_transaction(newest()) ORDER BY after -> 'v';
SELECT record_id, action_type, conflict FROM audit_log.undo_transaction(newest()) ORDER BY before -> 'v';

-- numbers that are none
SELECT audit_log.undo_transaction(NULL);
SELECT audit_log.undo_change(-1);
SELECT audit_log.undo_transaction(-1);
SELECT audit_log.undo_transaction(1, tables => '{newest}');
SELECT audit_log.undo_transaction(:part, tables => '{bag}');
SELECT audit_log.undo_transaction(:part, tables => '{NULL}');

DROP SCHEMA "take Back" CASCADE;
