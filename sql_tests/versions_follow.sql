-- A version table follows ALTER TABLE of its table by itself, or ALTER TABLE is
-- refused before anything is lost.
-- edge cases 1, 3, 71, 72, 73
CREATE SCHEMA versions_follow;
CREATE SCHEMA versions_elsewhere;
SET search_path = versions_follow;
SET client_min_messages = warning;
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE VIEW columns AS SELECT c.relname AS "table", string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum) AS columns
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relkind = 'r' AND c.relname ~ '_version' AND c.relnamespace IN ('versions_follow'::regnamespace, 'versions_elsewhere'::regnamespace)
   AND a.attname NOT IN ('transaction_id', 'end_transaction_id', 'operation_type', 'valid_from', 'valid_to') GROUP BY c.oid, c.relname;
-- whose current versions are not what the table is
CREATE FUNCTION differ(target text, versions text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint; columns text := (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attname) FROM pg_attribute a WHERE a.attrelid = target::regclass AND a.attnum > 0 AND NOT a.attisdropped);
BEGIN
  EXECUTE format('SELECT count(*) FROM ((SELECT %1$s FROM %2$s EXCEPT SELECT %1$s FROM %3$s WHERE end_transaction_id IS NULL AND operation_type <> 2)
    UNION ALL (SELECT %1$s FROM %3$s WHERE end_transaction_id IS NULL AND operation_type <> 2 EXCEPT SELECT %1$s FROM %2$s)) x', columns, target, versions) INTO n;
  RETURN n;
END $$;
CREATE TABLE t (id int PRIMARY KEY, a int, b text, c varchar(10), d text);
INSERT INTO t VALUES (1, 1, '1', 'one', 'd1'), (2, 2, '2', 'two', 'd2'), (3, 3, '3', 'three', 'd3');
DO $$ BEGIN PERFORM audit_log.enable('t', versioned => true); END $$;
UPDATE t SET a = 10 WHERE id = 1;
DELETE FROM t WHERE id = 3;

-- ADD COLUMN: closed versions keep NULL, current ones get what the rows got
ALTER TABLE t ADD COLUMN nothing int;
ALTER TABLE t ADD COLUMN fast int DEFAULT 5;
CREATE SEQUENCE s;
ALTER TABLE t ADD COLUMN volatile int DEFAULT nextval('s');
ALTER TABLE t ADD COLUMN gen int GENERATED ALWAYS AS (id + 10) STORED, ADD COLUMN ident int GENERATED ALWAYS AS IDENTITY;
SELECT id, operation_type AS op, end_transaction_id IS NULL AS open, nothing, fast, volatile IS NULL AS none, gen, ident IS NULL AS no_ident FROM t_version ORDER BY id, transaction_id;
SELECT differ('t', 't_version');
SELECT * FROM columns;
-- of a column that the version table has already, as a migration tool may add both, in either order
ALTER TABLE t_version ADD COLUMN early int;
ALTER TABLE t ADD COLUMN early int DEFAULT 3;
ALTER TABLE t ADD COLUMN late text;
ALTER TABLE t_version ADD COLUMN late text, ADD COLUMN IF NOT EXISTS fast int;
ALTER TABLE t_version ADD COLUMN late int;
SELECT id, operation_type AS op, early FROM t_version ORDER BY id, transaction_id;
-- RENAME, DROP, and several in one statement
ALTER TABLE t RENAME COLUMN a TO "A a";
ALTER TABLE t DROP COLUMN d, ADD COLUMN e int DEFAULT 1, DROP COLUMN ident, ALTER COLUMN c TYPE varchar(20), ALTER COLUMN fast TYPE bigint;
UPDATE t SET e = 2 WHERE id = 2;
SELECT * FROM columns;
SELECT id, operation_type AS op, "A a", d, e FROM t_version ORDER BY id, transaction_id;
SELECT differ('t', 't_version');
-- a name that an older column holds
ALTER TABLE t ADD COLUMN d text DEFAULT 'new';
SELECT id, operation_type AS op, d FROM t_version ORDER BY id, transaction_id;
ALTER TABLE t DROP COLUMN d;
ALTER TABLE t ADD COLUMN d int;
ALTER TABLE t RENAME COLUMN e TO d;
ALTER TABLE t ADD COLUMN transaction_id int;
ALTER TABLE t RENAME COLUMN e TO valid_from;

-- TYPE: old versions are converted as the rows are, as the role that runs it
ALTER TABLE t ALTER COLUMN b TYPE int USING b::int * 100;
SELECT id, operation_type AS op, b FROM t_version ORDER BY id, transaction_id;
ALTER TABLE t ALTER COLUMN b TYPE text USING t.c || ':' || b, ALTER COLUMN "A a" TYPE numeric(6, 2), ADD COLUMN f int DEFAULT 6;
SELECT id, operation_type AS op, b, "A a", f FROM t_version ORDER BY id, transaction_id;
SELECT differ('t', 't_version');
CREATE TYPE color AS ENUM ('red', 'blue');
CREATE FUNCTION to_color(text) RETURNS color LANGUAGE sql AS $$ SELECT CASE WHEN $1 LIKE 'one%' THEN 'red' ELSE 'blue' END::versions_follow.color $$;
ALTER TABLE t ALTER COLUMN b TYPE color USING to_color(b);
CREATE DOMAIN small AS int CHECK (VALUE < 10) NOT NULL;
ALTER TABLE t ALTER COLUMN f TYPE small;
SELECT id, operation_type AS op, b, f FROM t_version ORDER BY id, transaction_id;
SELECT * FROM columns;
SELECT a.attname FROM pg_attribute a WHERE a.attrelid = 't_version'::regclass AND NOT a.attisdropped AND a.attname LIKE '%convert%';
-- what an old version cannot be is refused, and nothing is lost
UPDATE t SET c = 'a long text';
UPDATE t SET c = 'short';
ALTER TABLE t ALTER COLUMN c TYPE varchar(5);
UPDATE t SET c = '12';
ALTER TABLE t ALTER COLUMN c TYPE int USING c::int;
SELECT id, c FROM t ORDER BY id;
-- the key: its type is followed, its columns are not
ALTER TABLE t DROP COLUMN gen;
ALTER TABLE t ALTER COLUMN id TYPE bigint;
ALTER TABLE t RENAME COLUMN id TO key;
SELECT key, operation_type AS op FROM t_version ORDER BY key, transaction_id;
ALTER TABLE t DROP COLUMN key;
ALTER TABLE t DROP CONSTRAINT t_pkey;
ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (key, c);
ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (key);
INSERT INTO t (key, c, e, f) VALUES (7, 'seven', 7, 7);

-- names: the version table goes along, its key and indexes too
ALTER TABLE t RENAME TO "T t";
SELECT relname FROM pg_class WHERE relnamespace = 'versions_follow'::regnamespace AND (relname ~ '[tT]_version' OR relname LIKE 'ix%') ORDER BY relname COLLATE "C";
ALTER TABLE "T t" SET SCHEMA versions_elsewhere;
SELECT relnamespace::regnamespace, relname FROM pg_class WHERE relname = 'T t_version';
UPDATE versions_elsewhere."T t" SET c = 'moved' WHERE key = 7;
SELECT key, operation_type AS op, c FROM versions_elsewhere."T t_version" WHERE key = 7 ORDER BY transaction_id;
ALTER SCHEMA versions_elsewhere RENAME TO versions_renamed;
UPDATE versions_renamed."T t" SET c = 'again' WHERE key = 7;
CREATE TABLE versions_follow."T t_version" (x int);
ALTER TABLE versions_renamed."T t" SET SCHEMA versions_follow;
DROP TABLE versions_follow."T t_version";
CREATE TABLE versions_renamed.u_version (x int);
ALTER TABLE versions_renamed."T t" RENAME TO u;
DROP TABLE versions_renamed.u_version;
ALTER TABLE versions_renamed."T t" RENAME TO repeat_repeat_repeat_repeat_repeat_repeat_repeat_repeat_repea;
ALTER SCHEMA versions_renamed RENAME TO versions_elsewhere;
ALTER TABLE versions_elsewhere."T t" SET SCHEMA versions_follow;
ALTER TABLE "T t" RENAME TO t;
-- a name of its own stays
DO $$ BEGIN PERFORM audit_log.enable('t', version_table => 'history of t'); END $$;
ALTER TABLE t RENAME TO u;
UPDATE u SET c = 'own' WHERE key = 7;
SELECT c FROM "history of t" WHERE key = 7 ORDER BY transaction_id;
DO $$ BEGIN PERFORM audit_log.enable('u', version_table => ''); END $$;
SELECT to_regclass('u_version'), to_regclass('"history of t"');

-- in a transaction that rolls back
BEGIN;
ALTER TABLE u ADD COLUMN gone int DEFAULT 1;
ALTER TABLE u RENAME COLUMN c TO gone2;
ALTER TABLE u RENAME TO gone3;
UPDATE gone3 SET gone2 = 'gone';
ALTER TABLE gone3 ALTER COLUMN gone2 TYPE text;
SAVEPOINT a;
ALTER TABLE gone3 DROP COLUMN gone2;
ROLLBACK TO a;
UPDATE gone3 SET gone = 2;
ROLLBACK;
UPDATE u SET c = 'after' WHERE key = 7;
SELECT * FROM columns;
SELECT c, operation_type AS op FROM u_version WHERE key = 7 ORDER BY transaction_id;
SELECT differ('u', 'u_version');
-- changes and ALTER TABLE in one transaction
BEGIN;
UPDATE u SET c = 'x1' WHERE key = 7;
ALTER TABLE u ADD COLUMN late2 int DEFAULT 9;
UPDATE u SET c = 'x2' WHERE key = 7;
ALTER TABLE u ALTER COLUMN late2 TYPE text USING 'nine';
COMMIT;
SELECT c, late2, operation_type AS op, end_transaction_id IS NULL AS open FROM u_version WHERE key = 7 ORDER BY transaction_id;
SELECT differ('u', 'u_version');

-- an excluded column comes and goes without the versions
CREATE TABLE ex (id int PRIMARY KEY, x int, y int);
DO $$ BEGIN PERFORM audit_log.enable('ex', exclude => '{x}', versioned => true); END $$;
INSERT INTO ex VALUES (1, 1, 1);
ALTER TABLE ex RENAME COLUMN x TO z;
ALTER TABLE ex ALTER COLUMN z TYPE text;
ALTER TABLE ex DROP COLUMN z;
ALTER TABLE ex ADD COLUMN x int DEFAULT 3;
SELECT * FROM columns WHERE "table" = 'ex_version';
SELECT x, y FROM ex_version;
-- attributes of a type are both tables' at once
CREATE TYPE pair AS (a int, b int);
CREATE TABLE ty (id int PRIMARY KEY, p pair);
DO $$ BEGIN PERFORM audit_log.enable('ty', versioned => true); END $$;
INSERT INTO ty VALUES (1, '(1,2)');
ALTER TYPE pair ADD ATTRIBUTE c int;
UPDATE ty SET p.c = 3;
SELECT p, operation_type AS op FROM ty_version ORDER BY transaction_id;
-- tables that inherit are tables of their own, and get the columns too
CREATE TABLE parent (id int PRIMARY KEY, v int);
CREATE TABLE child (own int, PRIMARY KEY (id)) INHERITS (parent);
DO $$ BEGIN PERFORM audit_log.enable('parent', versioned => true); PERFORM audit_log.enable('child', versioned => true); END $$;
INSERT INTO parent VALUES (1, 1);
INSERT INTO child VALUES (2, 2, 2);
ALTER TABLE parent ADD COLUMN w int DEFAULT 3;
ALTER TABLE parent RENAME COLUMN v TO vv;
ALTER TABLE parent ALTER COLUMN w TYPE text USING 'w' || w;
-- with a function in USING that runs DDL itself
CREATE FUNCTION with_ddl(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN DROP TABLE IF EXISTS versions_follow.scratch; CREATE TABLE versions_follow.scratch (x int); ALTER TABLE versions_follow.scratch ADD COLUMN y int; RETURN $1 || '!'; END $$;
ALTER TABLE parent ALTER COLUMN w TYPE varchar(20) USING with_ddl(w);
UPDATE parent SET vv = 9;
SELECT * FROM columns WHERE "table" IN ('parent_version', 'child_version') ORDER BY 1;
SELECT id, vv, w, operation_type AS op FROM parent_version ORDER BY id, transaction_id;
SELECT id, vv, w, own, operation_type AS op FROM child_version ORDER BY id, transaction_id;
-- a trigger by hand, or of a restored schema, of which no state is known yet
CREATE TABLE unknown (id int PRIMARY KEY);
CREATE TRIGGER audit_log_row AFTER INSERT OR UPDATE OR DELETE ON unknown FOR EACH ROW
  EXECUTE FUNCTION audit_log.capture('table=7d0ff8a9-0d6f-4b0a-8a52-7a6c3a7de0c1', 'versioned=true', 'version_table=unknown_version');
ALTER TABLE unknown ADD COLUMN v int;
DO $$ BEGIN PERFORM audit_log.enable('unknown'); END $$;
INSERT INTO unknown VALUES (1, 1);
SELECT id, v, operation_type AS op FROM unknown_version;
-- renamed to the name of one that is gone with its versions
DROP TABLE unknown, unknown_version;
CREATE TABLE renamed_later (id int PRIMARY KEY);
DO $$ BEGIN PERFORM audit_log.enable('renamed_later', versioned => true); END $$;
ALTER TABLE renamed_later RENAME TO unknown;
INSERT INTO unknown VALUES (2);
SELECT id, operation_type AS op FROM unknown_version;
-- dropped: the versions stay
DROP TABLE ty;
SELECT p, operation_type AS op, end_transaction_id IS NULL AS open FROM ty_version ORDER BY transaction_id;
-- a version table that is gone or lacks something refuses changes
DROP TABLE ex_version;
UPDATE ex SET y = 2;
ALTER TABLE u_version DROP COLUMN late2;
UPDATE u SET c = 'lost';
SELECT y FROM ex;
DO $$ BEGIN PERFORM audit_log.enable('ex'); PERFORM audit_log.enable('u'); END $$;
SELECT y, operation_type FROM ex_version;
SELECT differ('u', 'u_version');
SELECT * FROM audit_log.check() WHERE relation LIKE 'versions%' OR relation IN ('u', 'ex');
DROP SCHEMA versions_follow, versions_elsewhere CASCADE;
