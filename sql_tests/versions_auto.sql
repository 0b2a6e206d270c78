-- A schema whose new tables are tracked, with versions, as they are made: version tables are none of them, under whatever
-- name and however they come.
SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE SCHEMA versions_auto;
SET search_path = versions_auto;
DO $$ BEGIN PERFORM audit_log.enable_schema('versions_auto', auto => true, versioned => true); END $$;
CREATE VIEW tables AS SELECT c.relname, array_agg(t.tgname::text ORDER BY t.tgname) FILTER (WHERE t.tgfoid = 'audit_log.capture()'::regprocedure) AS tracked_by
  FROM pg_class c LEFT JOIN pg_trigger t ON t.tgrelid = c.oid WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'versions_auto'::regnamespace GROUP BY 1 ORDER BY 1;

CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (1, 'a');
DO $$ BEGIN PERFORM audit_log.enable('t', version_table => 'what t was'); END $$;
UPDATE t SET v = 'b';
SELECT v, operation_type FROM "what t was" ORDER BY transaction_id;
ALTER TABLE "what t was" SET (fillfactor = 90);
SELECT * FROM tables;
SELECT audit_log.enable('"what t was"');

-- a migration makes one under a name of its own, before its table says that it is one
CREATE TABLE u (id int PRIMARY KEY, v text);
DO $$ BEGIN
    PERFORM audit_log.enable('u', versioned => false);
    DROP TABLE u_version;
    PERFORM audit_log.enable('u', version_table => 'u_history');
    EXECUTE audit_log.version_table_migration('u');
END $$;
INSERT INTO u VALUES (1, 'a');
SELECT * FROM tables WHERE relname LIKE 'u%';
-- and one whose columns have names of their own, which nobody knows for one: it is not tracked from then on
CREATE TABLE w (id int PRIMARY KEY, v text);
DO $$ BEGIN
    PERFORM audit_log.enable('w', versioned => false);
    DROP TABLE w_version;
    PERFORM audit_log.enable('w', version_table => 'w_history', version_columns => '{"transaction_id": "tx", "operation_type": "op"}');
    EXECUTE audit_log.version_table_migration('w');
END $$;
INSERT INTO w VALUES (1, 'a');
SELECT v, op FROM w_history;
SELECT * FROM tables WHERE relname LIKE 'w%';
SELECT count(*) FROM audit_log.audit_logs WHERE table_schema = 'versions_auto' AND table_name IN ('what t was', 'u_history', 'w_history');
-- SQLAlchemy-Continuum's own, not adopted yet
CREATE TABLE kept (id int, v text, transaction_id bigint, end_transaction_id bigint, operation_type smallint, PRIMARY KEY (id, transaction_id));
DO $$ BEGIN PERFORM audit_log.enable_schema('versions_auto'); END $$;
SELECT * FROM tables;
-- a table that has a column or two of the kind is not one
CREATE TABLE sale (id int PRIMARY KEY, transaction_id bigint, operation_type smallint);
CREATE TABLE payment (id int, transaction_id bigint, operation_type text, end_transaction_id int, PRIMARY KEY (id, transaction_id));
SELECT * FROM tables WHERE relname ~ 'sale|payment';
SELECT relation, problem FROM audit_log.check() WHERE relation ~ 'auto';
-- audited by hand it cannot become one
CREATE TABLE x (id int PRIMARY KEY);
CREATE TABLE x_version (id int, transaction_id bigint, operation_type smallint, PRIMARY KEY (id, transaction_id));
SELECT * FROM tables WHERE relname ~ '^x';

SET client_min_messages = error;
DROP SCHEMA versions_auto CASCADE;
