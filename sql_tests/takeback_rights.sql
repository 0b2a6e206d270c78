--
-- Who may take back: whoever may read the table and its log, and write it; everything is done as him
-- edge cases 97, 101, 108
--
CREATE SCHEMA takeback_rights;
SET client_min_messages = warning;
CREATE ROLE regress_taker; CREATE ROLE regress_reader; CREATE ROLE regress_deleter; CREATE ROLE regress_owner;
GRANT USAGE, CREATE ON SCHEMA takeback_rights TO PUBLIC;
SET search_path = takeback_rights;
\set VERBOSITY terse
SET ROLE regress_owner;
CREATE TABLE mine (id int PRIMARY KEY, a text, b text);
CREATE TABLE other (id int PRIMARY KEY, mine int REFERENCES mine);
RESET ROLE;
SELECT audit_log.enable('mine'), audit_log.enable('other');
SELECT audit_log.grant_read('regress_taker'), audit_log.grant_read('regress_reader'), audit_log.grant_read('regress_deleter'), audit_log.grant_read('regress_owner');
CREATE FUNCTION newest() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS
    $$ SELECT max(c.transaction_id) FROM audit_log.change c JOIN audit_log.tracked_table t ON t.id = c.table_id WHERE t.table_schema = 'takeback_rights' $$;
CREATE FUNCTION newest_change() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS
    $$ SELECT max(c.id) FROM audit_log.change c JOIN audit_log.tracked_table t ON t.id = c.table_id WHERE t.table_schema = 'takeback_rights' $$;
GRANT SELECT ON mine TO regress_taker, regress_reader, regress_deleter;
GRANT UPDATE (a) ON mine TO regress_taker;
GRANT DELETE ON mine TO regress_deleter;
BEGIN;
INSERT INTO mine VALUES (1, 'a', 'b');
INSERT INTO other VALUES (1, 1);
COMMIT;
SELECT newest() AS both, newest_change() AS hidden \gset
UPDATE mine SET a = 'A';
SELECT newest() AS a \gset
UPDATE mine SET b = 'B';
SELECT newest() AS b \gset

-- no EXECUTE without grant_read; reading is not enough to write, dry or not
CREATE ROLE regress_nobody;
SET ROLE regress_nobody;
SELECT audit_log.undo_transaction(:'a');
SELECT audit_log.rollback_to('{mine}', 'x');
SET ROLE regress_reader;
SELECT audit_log.undo_transaction(:'a');
SELECT audit_log.undo_transaction(:'a', dry_run => true);
SELECT audit_log.rollback_to('{mine}', now() + interval '1 day');
SELECT audit_log.rollback_to('{other}', now() + interval '1 day');
\set VERBOSITY sqlstate
SELECT audit_log.undo_change(:hidden);
\set VERBOSITY terse
SELECT audit_log.undo_transaction(:'both', tables => '{other}');
SELECT pid FROM audit_log.taking_back;
-- a column's UPDATE is enough for that column
SET ROLE regress_taker;
SELECT table_name, record_id, action_type FROM audit_log.undo_transaction(:'a');
SELECT audit_log.undo_transaction(:'b');
SELECT audit_log.undo_transaction(:'b', user_triggers => false);
-- of a transaction with a table that one may not read: nothing is told, parts can be had
\set VERBOSITY sqlstate
SELECT audit_log.undo_transaction(:'both', dry_run => true);
\set VERBOSITY terse
SET ROLE regress_deleter;
SELECT table_name, record_id, action_type, conflict IS NOT NULL AS conflict FROM audit_log.undo_transaction(:'both', tables => '{mine}', dry_run => true);
RESET ROLE;
DELETE FROM other;
UPDATE mine SET b = 'b';
SET ROLE regress_deleter;
SELECT table_name, record_id, action_type, conflict FROM audit_log.undo_transaction(:'both', tables => '{mine}');
RESET ROLE;
SELECT db_role, undoes IS NOT NULL AS undoes, action_type FROM audit_log.audit_logs WHERE id = (SELECT newest_change());
TABLE mine;

-- row security
INSERT INTO mine VALUES (2, 'x', 'y');
SELECT newest() AS two \gset
ALTER TABLE mine ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON mine USING (true);
SET ROLE regress_deleter;
\set VERBOSITY sqlstate
SELECT audit_log.undo_transaction(:'two');
\set VERBOSITY terse
SELECT audit_log.undo_transaction(:'two', tables => '{mine}');
SELECT audit_log.rollback_to('{mine}', now() - interval '1 day');
SET ROLE regress_owner;
SELECT table_name, record_id, action_type FROM audit_log.undo_transaction(:'two');
RESET ROLE;
ALTER TABLE mine DISABLE ROW LEVEL SECURITY;

-- triggers of the user's: fired as whoever takes back, or held off by the owner, and then as they were
CREATE TABLE fired (n serial, what text, who text);
GRANT ALL ON fired, fired_n_seq TO PUBLIC;
CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fired (what, who) VALUES (concat_ws(' ', TG_NAME, TG_WHEN, TG_OP, TG_LEVEL), current_user);
    RETURN NEW;
END $$;
SET ROLE regress_owner;
CREATE TRIGGER b BEFORE INSERT OR UPDATE ON mine FOR EACH ROW EXECUTE FUNCTION fire();
CREATE TRIGGER a AFTER INSERT OR UPDATE OR DELETE ON mine FOR EACH ROW EXECUTE FUNCTION fire();
CREATE TRIGGER s AFTER INSERT OR UPDATE OR DELETE ON mine FOR EACH STATEMENT EXECUTE FUNCTION fire();
CREATE CONSTRAINT TRIGGER d AFTER INSERT OR UPDATE ON mine DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fire();
CREATE TRIGGER off AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION fire();
CREATE TRIGGER replica AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION fire();
CREATE TRIGGER always AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION fire();
ALTER TABLE mine DISABLE TRIGGER off, ENABLE REPLICA TRIGGER replica, ENABLE ALWAYS TRIGGER always;
INSERT INTO mine VALUES (1, 'a', 'b'), (2, 'c', 'd'), (3, 'e', 'f');
RESET ROLE;
SELECT audit_log.mark('takeback_rights_1');
UPDATE mine SET a = 'bad'; DELETE FROM mine WHERE id = 3;
TRUNCATE fired RESTART IDENTITY;
SET ROLE regress_owner;
BEGIN;
SELECT record_id, action_type FROM audit_log.rollback_to('{mine}', 'takeback_rights_1') ORDER BY 1;
COMMIT;
SELECT what, who, count(*) FROM fired GROUP BY 1, 2 ORDER BY 1, 2;
RESET ROLE;
UPDATE mine SET a = 'bad'; DELETE FROM mine WHERE id = 3;
TRUNCATE fired RESTART IDENTITY;
SET ROLE regress_taker;
SELECT audit_log.rollback_to('{mine}', 'takeback_rights_1', user_triggers => false);
SET ROLE regress_owner;
BEGIN;
SELECT record_id, action_type FROM audit_log.rollback_to('{mine}', 'takeback_rights_1', user_triggers => false) ORDER BY 1;
-- logged all the same, and foreign keys hold
SELECT count(*) FROM audit_log.audit_logs WHERE transaction_id = (SELECT newest());
INSERT INTO other VALUES (9, 99);
ROLLBACK;
SELECT record_id, action_type FROM audit_log.rollback_to('{mine}', 'takeback_rights_1', user_triggers => false) ORDER BY 1;
TABLE fired;
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'mine'::regclass AND tgname !~ '^audit_log|^RI_' ORDER BY 1;
RESET ROLE;
TABLE mine ORDER BY id;

-- row security forced on the owner of another table hides nothing from the looks that are taken as him
CREATE TABLE hidden (id int PRIMARY KEY, mine int REFERENCES mine);
ALTER TABLE hidden OWNER TO regress_reader;
ALTER TABLE hidden ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
INSERT INTO mine VALUES (7, 'h', 'h');
SELECT newest() AS seven \gset
INSERT INTO hidden VALUES (1, 7);
SET ROLE regress_deleter;
SELECT record_id, action_type, conflict FROM audit_log.undo_transaction(:seven, dry_run => true);
RESET ROLE;
DROP TABLE hidden;
-- nor rows of his own table from who passes it by
ALTER ROLE regress_deleter BYPASSRLS;
ALTER TABLE mine ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
DROP POLICY p ON mine;
SET ROLE regress_deleter;
SELECT record_id, action_type, conflict FROM audit_log.undo_transaction(:seven);
RESET ROLE;

-- a column that has to make way is written, too
CREATE TABLE pair (id int PRIMARY KEY, a int, b int, UNIQUE (a, b));
CREATE TABLE pair_child (id int REFERENCES pair ON DELETE CASCADE);
SELECT audit_log.enable('pair');
GRANT SELECT, UPDATE (b) ON pair TO regress_taker;
INSERT INTO pair VALUES (1, 1, 1), (2, 1, 2);
BEGIN;
UPDATE pair SET b = b + 10;
UPDATE pair SET b = 13 - b;
COMMIT;
SELECT newest() AS swapped \gset
SET ROLE regress_taker;
SELECT audit_log.undo_transaction(:swapped, dry_run => true);
RESET ROLE;
GRANT UPDATE (a) ON pair TO regress_taker;
SET ROLE regress_taker;
SELECT count(*) FROM audit_log.undo_transaction(:swapped);
TABLE pair ORDER BY id;
RESET ROLE;

-- what rows claim of their writer, the taker is not
CREATE TABLE claimed (id int PRIMARY KEY, a int, writer text);
SELECT audit_log.enable('claimed', user_column => 'writer', require => '{user_id}');
INSERT INTO claimed VALUES (1, 1, 'ann');
UPDATE claimed SET a = 2, writer = 'bob';
SELECT newest() AS bob \gset
SELECT audit_log.undo_transaction(:bob);
BEGIN;
SELECT audit_log.set_context('cid');
SELECT after FROM audit_log.undo_transaction(:bob);
COMMIT;
SELECT user_id, changes FROM audit_log.audit_logs WHERE id = (SELECT newest_change());

SELECT audit_log.drop_mark(name) FROM audit_log.marks WHERE name LIKE 'takeback\_rights%';
DROP SCHEMA takeback_rights CASCADE;
SELECT audit_log.revoke_read('regress_taker'), audit_log.revoke_read('regress_reader'), audit_log.revoke_read('regress_deleter'), audit_log.revoke_read('regress_owner');
DROP OWNED BY regress_taker, regress_reader, regress_deleter, regress_owner, regress_nobody;
DROP ROLE regress_taker, regress_reader, regress_deleter, regress_owner, regress_nobody;
