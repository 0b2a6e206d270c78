-- What SQLAlchemy-Continuum has kept before is taken over: rows and transactions
-- keep their ids; and the view through which it goes on reading and writing.
CREATE ROLE regress_versions_app;
CREATE SCHEMA versions_adopt;
GRANT ALL ON SCHEMA versions_adopt TO regress_versions_app;
SET search_path = versions_adopt;
SET client_min_messages = warning;
\set SHOW_CONTEXT never
DO $$ BEGIN PERFORM audit_log.grant_admin('regress_versions_app'); END $$;
-- ids that the log cannot have yet
SELECT last_value + 1000 AS base FROM audit_log.transaction_id_seq \gset
SET ROLE regress_versions_app;
-- as Continuum makes them
CREATE TABLE users (id serial PRIMARY KEY, name text);
CREATE TABLE transaction (issued_at timestamp, id bigserial PRIMARY KEY, remote_addr varchar(50), user_id int REFERENCES users (id));
CREATE TABLE mine (mine_id int PRIMARY KEY, name varchar(30) NOT NULL, depth numeric DEFAULT 1);
CREATE TABLE mine_version (mine_id int NOT NULL, name varchar(30), depth numeric, transaction_id bigint NOT NULL, end_transaction_id bigint,
    operation_type smallint NOT NULL, PRIMARY KEY (mine_id, transaction_id));
CREATE INDEX ix_mine_version_operation_type ON mine_version (operation_type);
CREATE INDEX ix_mine_version_end_transaction_id ON mine_version (end_transaction_id);
CREATE INDEX ix_mine_version_transaction_id ON mine_version (transaction_id);
CREATE TABLE tag (id int PRIMARY KEY, label text);
-- one without the ends of versions, with another order of its key, and with what versions must not have
CREATE TABLE tag_version (id int NOT NULL DEFAULT 5 CHECK (id > 0), label text NOT NULL, transaction_id int NOT NULL REFERENCES transaction (id), operation_type int NOT NULL,
    old_column text, PRIMARY KEY (transaction_id, id));
GRANT ALL ON tag_version TO PUBLIC;
INSERT INTO users (name) VALUES ('ann'), ('bob');
SELECT set_config('versions_adopt.base', :'base', false) IS NOT NULL AS set;
INSERT INTO transaction (id, issued_at, remote_addr, user_id)
  SELECT current_setting('versions_adopt.base')::bigint + i, t, a, u FROM (VALUES
    (1, NULL, '10.0.0.1', 1), (2, '2020-01-02 10:00'::timestamp, NULL, 2), (3, NULL, NULL, NULL), (4, '2020-01-02 09:00', '::1', 1),
    (5, '2020-01-05 10:00', 'not an address', 2)) x (i, t, a, u);
INSERT INTO mine VALUES (1, 'new name', 3), (3, 'unseen', 1);
INSERT INTO mine_version
  SELECT m, n, d, current_setting('versions_adopt.base')::bigint + t, current_setting('versions_adopt.base')::bigint + e, o FROM (VALUES
    (1, 'one', 1, 1, 2, 0), (1, 'two', 2, 2, 4, 1), (1, 'new name', 3, 4, NULL, 1), (2, 'gone', 1, 3, 5, 0), (2, 'gone', 1, 5, NULL, 2)) x (m, n, d, t, e, o);
INSERT INTO tag VALUES (1, 'b');
INSERT INTO tag_version SELECT 1, l, current_setting('versions_adopt.base')::int + t, o, 'old' FROM (VALUES ('a', 2, 0), ('b', 3, 1)) x (l, t, o);
-- the trigger of native versioning would write them too
CREATE FUNCTION mine_audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER mine_trigger AFTER INSERT OR UPDATE OR DELETE ON mine FOR EACH ROW EXECUTE FUNCTION mine_audit();
SELECT audit_log.enable('mine', versioned => true);
DROP TRIGGER mine_trigger ON mine;
SET client_min_messages = notice;
SELECT audit_log.enable('mine', versioned => true);
SELECT audit_log.enable('tag', versioned => true);
SET client_min_messages = warning;
RESET ROLE;
SELECT mine_id, name, depth, transaction_id - :base AS tx, end_transaction_id - :base AS ends, operation_type AS op,
       CASE WHEN valid_from < '2021-01-01' THEN valid_from AT TIME ZONE 'UTC' END AS valid_from, CASE WHEN valid_to < '2021-01-01' THEN valid_to AT TIME ZONE 'UTC' END AS valid_to
  FROM mine_version WHERE transaction_id <= :base + 5 ORDER BY mine_id, transaction_id;
SELECT mine_id, name, depth, operation_type AS op, end_transaction_id IS NULL AS open FROM mine_version WHERE transaction_id > :base + 5;
SELECT id, label, transaction_id - :base AS tx, end_transaction_id - :base AS ends, operation_type AS op, old_column, valid_from AT TIME ZONE 'UTC' AS valid_from FROM tag_version ORDER BY id, transaction_id;
SELECT a.attrelid::regclass AS "table", a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.atthasdef FROM pg_attribute a
 WHERE a.attrelid IN ('mine_version'::regclass, 'tag_version'::regclass) AND a.attnum > 0 ORDER BY 1, a.attnum;
SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'versions_adopt' AND tablename IN ('mine_version', 'tag_version') ORDER BY indexname COLLATE "C";
SELECT c.relname, a.grantee::regrole, a.privilege_type, a.is_grantable FROM pg_class c, LATERAL aclexplode(c.relacl) a
 WHERE c.oid IN ('mine_version'::regclass, 'tag_version'::regclass) AND a.grantee <> c.relowner ORDER BY 1, 2;
SELECT t.id - :base AS id, t.timestamp AT TIME ZONE 'UTC' AS at, t.user_id, t.context - 'adopted' AS context, t.context ->> 'adopted' AS adopted, t.db_user, t.xid FROM audit_log.transaction t
 WHERE t.id BETWEEN :base + 1 AND :base + 5 ORDER BY t.id;
SELECT last_value > :base + 5 AS moved_on FROM audit_log.transaction_id_seq;
-- it goes on from there
UPDATE mine SET depth = 4 WHERE mine_id = 1;
INSERT INTO mine VALUES (2, 'back');
DELETE FROM tag;
SELECT mine_id, depth, operation_type AS op, end_transaction_id IS NULL AS open FROM mine_version ORDER BY mine_id, transaction_id;
SELECT label, operation_type AS op, old_column FROM tag_version ORDER BY transaction_id;
SELECT problem FROM audit_log.check() WHERE relation LIKE 'versions%';
-- ids that the log has already
CREATE SCHEMA versions_late AUTHORIZATION regress_versions_app;
SET ROLE regress_versions_app;
CREATE TABLE versions_late.transaction (id bigint PRIMARY KEY, issued_at timestamp);
CREATE TABLE versions_late.a (id int PRIMARY KEY);
CREATE TABLE versions_late.a_version (id int, transaction_id bigint, operation_type smallint, PRIMARY KEY (id, transaction_id));
INSERT INTO versions_late.transaction VALUES (current_setting('versions_adopt.base')::bigint + 3, now());
\set VERBOSITY sqlstate
SELECT audit_log.enable('versions_late.a', versioned => true);
\set VERBOSITY default
-- not of other types
CREATE TABLE versions_late.b (id int PRIMARY KEY, v text);
CREATE TABLE versions_late.b_version (id int, v date, transaction_id bigint, operation_type smallint, PRIMARY KEY (id, transaction_id));
SELECT audit_log.enable('versions_late.b', versioned => true);
CREATE TABLE versions_late.c (id int PRIMARY KEY);
CREATE TABLE versions_late.c_version (x int, transaction_id bigint, operation_type smallint);
SELECT audit_log.enable('versions_late.c', versioned => true);
RESET ROLE;

-- the view
SELECT audit_log.create_continuum_views('versions_adopt', 'users');
SELECT audit_log.create_continuum_views('nowhere', 'users');
SELECT audit_log.create_continuum_views('versions_adopt', 'nothing');
ALTER TABLE transaction RENAME TO transaction_before;
SET client_min_messages = notice;
SELECT audit_log.create_continuum_views('versions_adopt', 'users');
SELECT audit_log.create_continuum_views('versions_adopt', 'users');
SET client_min_messages = warning;
\d transaction
SELECT a.grantee::regrole, string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) FROM pg_class c, LATERAL aclexplode(c.relacl) a
 WHERE c.oid = 'transaction'::regclass AND a.grantee <> c.relowner GROUP BY 1;
SET ROLE regress_versions_app;
SELECT id - :base AS id, issued_at, remote_addr, user_id FROM transaction WHERE id BETWEEN :base + 1 AND :base + 5 ORDER BY id;
-- as Continuum writes: first the entry, then the changes
BEGIN;
INSERT INTO transaction (issued_at, id, remote_addr, user_id) VALUES (now() AT TIME ZONE 'UTC', nextval('transaction_id_seq'), '10.1.1.1', 2) RETURNING transaction.id AS tx \gset
UPDATE mine SET name = 'by bob' WHERE mine_id = 1;
INSERT INTO tag VALUES (2, 'by bob');
SELECT count(*) FROM transaction WHERE id = :tx;
COMMIT;
SELECT v.name, v.transaction_id = :tx AS told, t.remote_addr, t.user_id, abs(extract(epoch FROM t.issued_at - now() AT TIME ZONE 'UTC')) < 3600 AS now
  FROM mine_version v JOIN transaction t ON t.id = v.transaction_id WHERE mine_id = 1 AND end_transaction_id IS NULL;
SELECT transaction_id = :tx AS same FROM tag_version WHERE id = 2;
-- two entries in one transaction; with a context of its own; without user
BEGIN;
SET LOCAL audit_log.context = '{"reason": "x"}';
INSERT INTO transaction (remote_addr) VALUES ('::2') RETURNING id IS NOT NULL AS id, issued_at IS NOT NULL AS issued_at, remote_addr, user_id;
UPDATE mine SET name = 'first' WHERE mine_id = 1;
INSERT INTO transaction (id, user_id) VALUES (5, 1) RETURNING id > 5 AS own;
UPDATE mine SET name = 'second' WHERE mine_id = 1;
COMMIT;
RESET ROLE;
SELECT v.name, t.user_id, t.context FROM mine_version v JOIN audit_log.transaction t ON t.id = v.transaction_id WHERE mine_id = 1 ORDER BY v.transaction_id DESC LIMIT 2;
-- users that are none of theirs
BEGIN;
SELECT audit_log.set_context('not a number');
UPDATE mine SET name = 'third' WHERE mine_id = 1;
COMMIT;
SELECT t.user_id FROM mine_version v JOIN transaction t ON t.id = v.transaction_id WHERE mine_id = 1 ORDER BY v.transaction_id DESC LIMIT 1;
UPDATE transaction SET user_id = 1;
-- rights go with those of the tables
CREATE ROLE regress_versions_second;
GRANT USAGE ON SCHEMA versions_adopt TO regress_versions_second;
GRANT INSERT ON mine TO regress_versions_second;
SELECT a.grantee::regrole, string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) FROM pg_class c, LATERAL aclexplode(c.relacl) a
 WHERE c.oid = 'transaction'::regclass AND a.grantee <> c.relowner GROUP BY 1 ORDER BY 1;
SET ROLE regress_versions_second;
INSERT INTO transaction (id, user_id) VALUES (nextval('transaction_id_seq'), 1);
RESET ROLE;
REVOKE INSERT ON mine FROM regress_versions_second;
SELECT a.grantee::regrole FROM pg_class c, LATERAL aclexplode(c.relacl) a WHERE c.oid = 'transaction'::regclass AND a.grantee <> c.relowner GROUP BY 1;
DROP SCHEMA versions_adopt, versions_late CASCADE;
DO $$ BEGIN PERFORM audit_log.revoke_admin('regress_versions_app'); END $$;
DROP OWNED BY regress_versions_app, regress_versions_second;
DROP ROLE regress_versions_app, regress_versions_second;
