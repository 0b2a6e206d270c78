--
-- Taking back across ALTER TABLE, and what was not captured: columns renamed, added,
-- dropped, of another type; excluded and masked ones; gaps; tables that are gone
-- edge cases 60, 72, 81, 112
--
CREATE SCHEMA takeback_ddl;
SET search_path = takeback_ddl;
SET client_min_messages = warning;
CREATE FUNCTION newest() RETURNS bigint LANGUAGE sql AS
    $$ SELECT max(transaction_id) FROM audit_log.audit_logs WHERE table_schema = 'takeback_ddl' $$;
CREATE FUNCTION shown(take text) RETURNS TABLE (record_id text, action_type text, after jsonb, conflict text) LANGUAGE plpgsql AS $$
DECLARE
    detail text;
BEGIN
    RETURN QUERY EXECUTE 'SELECT record_id, action_type, after, regexp_replace(regexp_replace(conflict, ''\d+ of [^)]*'', ''N'', ''g''), ''transaction \d+'', ''transaction N'', ''g'') FROM audit_log.' || take
        || ' ORDER BY table_name, record_id, before::text';
EXCEPTION WHEN object_not_in_prerequisite_state THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RETURN QUERY SELECT SQLERRM, NULL, NULL::jsonb, regexp_replace(regexp_replace(detail, '\d+ of [^)]*', 'N', 'g'), 'transaction \d+', 'transaction N', 'g');
END $$;

CREATE TABLE t (id int PRIMARY KEY, old_name text, dropped text, n int, j json, keep text);
SELECT audit_log.enable('t');
INSERT INTO t VALUES (1, 'a', 'x', 1, '{"k": 1}', 'k1'), (2, 'b', 'y', 2, '[1,  2]', 'k2'), (3, 'c', 'z', 3, NULL, 'k3');
SELECT newest() AS made, audit_log.mark('takeback_ddl_1') \gset
UPDATE t SET old_name = old_name || '!', dropped = 'D', n = n * 10, j = '{"k": 2}';
SELECT newest() AS changed \gset
DELETE FROM t WHERE id = 3;
SELECT newest() AS gone \gset
ALTER TABLE t RENAME old_name TO "new Name";
ALTER TABLE t ADD added int NOT NULL DEFAULT 5;
UPDATE t SET added = 6 WHERE id = 1;
-- a name that is used again is another column
ALTER TABLE t RENAME keep TO old_name;
SELECT * FROM shown(format('undo_transaction(%s)', :gone));
SELECT * FROM shown(format('undo_transaction(%s)', newest()));
SELECT * FROM shown(format('undo_transaction(%s, dry_run => true)', :changed));
ALTER TABLE t DROP dropped;
SELECT * FROM shown(format('undo_transaction(%s)', :changed));
ALTER TABLE t ALTER n TYPE text USING 'n' || n;
-- what USING made of it is not what was written
SELECT * FROM shown(format('undo_transaction(%s, dry_run => true)', :changed));
ALTER TABLE t ALTER n TYPE int USING substr(n, 2)::int;
ALTER TABLE t ALTER n TYPE bigint;
ALTER TABLE t ALTER j TYPE jsonb;
SELECT * FROM shown(format('undo_transaction(%s, dry_run => true)', :changed));
SELECT * FROM shown(format('undo_transaction(%s, force => true)', :changed));
SELECT * FROM t ORDER BY id;
ALTER TABLE t ALTER "new Name" TYPE int USING length("new Name");
SELECT * FROM shown($$rollback_to('{t}', 'takeback_ddl_1', dry_run => true)$$);
SELECT * FROM shown($$rollback_to('{t}', 'takeback_ddl_1')$$);
ALTER TABLE t ALTER "new Name" TYPE text;
DELETE FROM t;
SELECT * FROM shown($$rollback_to('{t}', 'takeback_ddl_1', force => true)$$);
SELECT * FROM t ORDER BY id;
-- the insert taken back: a column that is gone is none of its business
DELETE FROM t; INSERT INTO t (id) VALUES (9);
SELECT newest() AS nine \gset
ALTER TABLE t DROP added;
SELECT * FROM shown(format('undo_transaction(%s)', :nine));

-- excluded and masked columns
CREATE TABLE secret (id int PRIMARY KEY, a text, pass text DEFAULT 'none', note text);
SELECT audit_log.enable('secret', mask => '{pass}', exclude => '{note}');
INSERT INTO secret VALUES (1, 'a', 'p', 'n'), (2, 'b', 'q', 'm');
SELECT newest() AS made \gset
UPDATE secret SET a = 'A', pass = 'P', note = 'N';
SELECT newest() AS changed \gset
SELECT * FROM shown(format('undo_transaction(%s)', :changed));
SELECT record_id, action_type, after - 'pass' AS after, conflict FROM shown(format('undo_transaction(%s, force => true)', :changed));
TABLE secret ORDER BY id;
DELETE FROM secret WHERE id = 2;
SELECT record_id, action_type, after - 'pass' AS after, conflict FROM shown(format('undo_transaction(%s, force => true)', newest()));
TABLE secret ORDER BY id;
-- nothing is lost where a row goes
SELECT record_id, action_type, conflict FROM shown(format('undo_transaction(%s, record_ids => ''{1}'')', :made));
TABLE secret ORDER BY id;
-- a masked key finds nothing
CREATE TABLE hidden (id text PRIMARY KEY, a text);
SELECT audit_log.enable('hidden', mask => '{id}');
INSERT INTO hidden VALUES ('x', 'y');
SELECT left(record_id, 10) ~ '^cannot|^[0-9a-f]+' AS id, action_type, substring(conflict, 'the key .*') FROM shown(format('undo_transaction(%s)', newest()));
SELECT action_type, conflict FROM shown(format('undo_transaction(%s, force => true)', newest()));

-- gaps
CREATE TABLE gap (id int PRIMARY KEY, a text);
INSERT INTO gap VALUES (0, 'before');
SELECT audit_log.mark('takeback_ddl_2');
SELECT audit_log.enable('gap');
SELECT audit_log.mark('takeback_ddl_3');
INSERT INTO gap VALUES (1, 'a'), (2, 'b');
SELECT record_id, conflict LIKE '%began%' AS began FROM shown($$rollback_to('{gap}', 'takeback_ddl_2')$$);
BEGIN;
SELECT audit_log.pause('gap', 'on purpose');
UPDATE gap SET a = 'unseen' WHERE id = 1;
COMMIT;
SELECT record_id, conflict LIKE '%on purpose%' AS named FROM shown($$rollback_to('{gap}', 'takeback_ddl_3')$$);
SELECT record_id, action_type, conflict LIKE '%on purpose%' AS named FROM shown($$rollback_to('{gap}', 'takeback_ddl_3', dry_run => true)$$);
SELECT record_id, action_type FROM shown($$rollback_to('{gap}', 'takeback_ddl_3', force => true)$$);
TABLE gap;
-- TRUNCATE that logged no rows
SELECT audit_log.enable('gap', on_truncate => 'event');
BEGIN; INSERT INTO gap VALUES (5, 'e'); TRUNCATE gap; INSERT INTO gap VALUES (6, 'f'); COMMIT;
SELECT record_id, regexp_replace(conflict, '\d+', 'N', 'g') AS conflict FROM shown(format('undo_transaction(%s)', newest()));
SELECT record_id, action_type, conflict IS NOT NULL AS conflict FROM shown(format('undo_transaction(%s, force => true)', newest()));

-- another key since; tracking ended; a table that is gone, and made again
CREATE TABLE k (a int PRIMARY KEY, b int NOT NULL);
SELECT audit_log.enable('k');
INSERT INTO k VALUES (1, 10);
UPDATE k SET b = 11;
ALTER TABLE k DROP CONSTRAINT k_pkey, ADD PRIMARY KEY (b);
SELECT newest() AS key \gset
SELECT * FROM shown(format('undo_transaction(%s)', :key));
SELECT audit_log.disable('k');
\set VERBOSITY terse
SELECT audit_log.rollback_to('{k}', 'takeback_ddl_3');
DROP TABLE k;
CREATE TABLE k (a int PRIMARY KEY, b int NOT NULL);
SELECT audit_log.enable('k');
SELECT record_id FROM audit_log.rollback_to('{k}', 'takeback_ddl_3', dry_run => true, force => true);

SELECT audit_log.drop_mark(name) FROM audit_log.marks WHERE name LIKE 'takeback\_ddl%';
DROP SCHEMA takeback_ddl CASCADE;
