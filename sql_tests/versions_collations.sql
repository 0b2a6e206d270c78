-- Keys under collations and operator classes that are not the column's: two records never share a chain of
-- versions, and no record has two. What would make them is refused.
SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE SCHEMA versions_collations;
SET search_path = versions_collations;
CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
\set chains 'SELECT v.k::text, v.operation_type AS op, v.n, v.end_transaction_id IS NOT DISTINCT FROM lead(v.transaction_id) OVER (PARTITION BY v.k ORDER BY v.transaction_id) AS whole FROM t_version v ORDER BY v.k::text COLLATE "C", v.transaction_id'

-- both of the column and the key: 'a' and 'A' are one record, whose text may change
CREATE TABLE t (k text COLLATE nocase PRIMARY KEY, n int);
SELECT audit_log.enable('t', versioned => true);
INSERT INTO t VALUES ('a', 1);
UPDATE t SET k = 'A', n = 2;
INSERT INTO t VALUES ('A', 3) ON CONFLICT (k) DO UPDATE SET n = 3;
DELETE FROM t WHERE k = 'a';
:chains;
SELECT * FROM audit_log.check();
DROP TABLE t, t_version;

-- of the key's index alone: 'A' is another record for versions, which is never there together with 'a'
CREATE TABLE t (k text NOT NULL, n int);
CREATE UNIQUE INDEX ON t (k COLLATE nocase);
SELECT audit_log.enable('t', versioned => true);
INSERT INTO t VALUES ('a', 1);
UPDATE t SET k = 'A', n = 2;
INSERT INTO t VALUES ('A', 3) ON CONFLICT DO NOTHING;
-- a statement inside another brings the key again in the other spelling before its going is delivered
INSERT INTO t VALUES ('b', 1);
CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES ('B', 5); RETURN NULL; END $$;
CREATE TRIGGER aaa AFTER DELETE ON t FOR EACH ROW WHEN (OLD.k = 'b') EXECUTE FUNCTION other();
DELETE FROM t WHERE k = 'b';
:chains;
SELECT * FROM audit_log.check();
DROP TABLE t, t_version;

-- of the column alone: the table holds both, and versions would not tell them apart
CREATE TABLE t (k text COLLATE nocase NOT NULL, n int);
CREATE UNIQUE INDEX t_k ON t (k COLLATE "C");
INSERT INTO t VALUES ('a', 1), ('A', 2);
SELECT audit_log.enable('t', versioned => true);
SELECT audit_log.enable('t');
UPDATE t SET n = n + 10;
SELECT record_id, changes FROM audit_log.audit_logs WHERE relation = 't'::regclass ORDER BY id;
SELECT audit_log.version_table_migration('t');
DELETE FROM t WHERE k COLLATE "C" = 'A';
ALTER TABLE t ADD PRIMARY KEY (k);
SELECT audit_log.enable('t', versioned => true);
SELECT audit_log.check();
-- nor can that come later
ALTER TABLE t DROP CONSTRAINT t_pkey;
ALTER TABLE t ALTER COLUMN k TYPE text COLLATE "C";
SELECT a.attrelid::regclass, c.collname FROM pg_attribute a JOIN pg_collation c ON c.oid = a.attcollation WHERE a.attrelid IN ('t'::regclass, 't_version'::regclass) AND a.attname = 'k' ORDER BY 1;
INSERT INTO t VALUES ('A', 2), ('b', 1);
UPDATE t SET k = 'B' WHERE k = 'b';
DELETE FROM t WHERE k = 'A';
-- one more collation under which versions that are there would be the same: theirs stays
ALTER TABLE t ALTER COLUMN k TYPE text COLLATE nocase;
SELECT a.attrelid::regclass, c.collname FROM pg_attribute a JOIN pg_collation c ON c.oid = a.attcollation WHERE a.attrelid IN ('t'::regclass, 't_version'::regclass) AND a.attname = 'k' ORDER BY 1;
UPDATE t SET n = 7;
:chains;
SELECT * FROM audit_log.check();
DROP TABLE t, t_version;

-- operator classes: of text all have the same equality, of composite values they have not
CREATE TABLE t (k text NOT NULL, n int);
CREATE UNIQUE INDEX ON t (k text_pattern_ops);
SELECT audit_log.enable('t', versioned => true);
INSERT INTO t VALUES ('a', 1);
SELECT audit_log.check();
DROP TABLE t, t_version;
CREATE TYPE pair AS (x numeric, y int);
CREATE TABLE t (k pair NOT NULL, n int);
CREATE UNIQUE INDEX ON t (k record_image_ops);
INSERT INTO t VALUES ((1.0, 1), 1), ((1.00, 1), 2);
SELECT audit_log.enable('t', versioned => true);
DELETE FROM t WHERE n = 2;
CREATE UNIQUE INDEX ON t (k);
SELECT audit_log.enable('t', versioned => true);
UPDATE t SET k = (1.000, 1);
:chains;
SELECT * FROM audit_log.check();

SET client_min_messages = error;
DROP SCHEMA versions_collations CASCADE;
