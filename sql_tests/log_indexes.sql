-- What the log's indexes find is what the log holds: whatever summaries and
-- partial indexes leave out, an administrator adds, or a session keeps prepared.
SET client_min_messages = warning;
CREATE SCHEMA log_indexes;
SET search_path = log_indexes;
CREATE EXTENSION amcheck SCHEMA log_indexes;
CREATE TABLE t (id text PRIMARY KEY, v int);
CREATE TABLE u (id int PRIMARY KEY, v int);
SELECT audit_log.enable('t'), audit_log.enable('u');
-- the partition that is written now; from here on it is called so
CREATE FUNCTION current_partition() RETURNS regclass LANGUAGE sql AS $$
    SELECT c.tableoid::regclass FROM audit_log.change c ORDER BY c.timestamp DESC, c.id DESC LIMIT 1
$$;
-- every index of the log's partitions holds every row that it should
CREATE FUNCTION verify_trees() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    index regclass;
BEGIN
    FOR index IN SELECT i.indexrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
                  WHERE a.amname = 'btree' AND (i.indrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'audit_log.change'::regclass)
                        OR i.indrelid = 'audit_log.transaction'::regclass) LOOP
        PERFORM log_indexes.bt_index_parent_check(index, true);
    END LOOP;
    RETURN 'complete';
END
$$;
-- rows that a condition finds only without, or only with, the help of an index
CREATE FUNCTION missed(condition text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    with_index bigint[];
    without bigint[];
BEGIN
    SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = on; SET LOCAL enable_indexscan = on;
    EXECUTE 'SELECT array_agg(id ORDER BY id) FROM audit_log.change WHERE ' || condition INTO with_index;
    SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_indexscan = off;
    EXECUTE 'SELECT array_agg(id ORDER BY id) FROM audit_log.change WHERE ' || condition INTO without;
    IF without IS NULL THEN RAISE 'nothing to find: %', condition; END IF;
    RETURN cardinality(array(SELECT unnest(with_index) EXCEPT SELECT unnest(without)))
         + cardinality(array(SELECT unnest(without) EXCEPT SELECT unnest(with_index)));
END
$$;
CREATE FUNCTION summarize() RETURNS void LANGUAGE sql AS $$
    SELECT brin_summarize_new_values(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
     WHERE a.amname = 'brin' AND i.indrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'audit_log.change'::regclass)
$$;

-- long changes are compressed by the faster method, where the server has it
SELECT bool_and(a.attcompression = CASE WHEN 'lz4' = ANY (s.enumvals) THEN 'l' ELSE '' END) AS as_it_should
  FROM pg_settings s, pg_partition_tree('audit_log.change') p JOIN pg_attribute a ON a.attrelid = p.relid AND a.attname = 'changes'
 WHERE s.name = 'default_toast_compression' AND p.isleaf;
-- bulk and single rows, keys short, long and changed, rolled back levels, summaries made in between
INSERT INTO t SELECT g, g FROM generate_series(1, 3000) g;
INSERT INTO t SELECT string_agg(md5(g::text || k), ''), 0 FROM generate_series(1, 40) g, generate_series(1, 5) k GROUP BY k;
SELECT summarize();
UPDATE t SET v = v + 1;
INSERT INTO u SELECT g, g FROM generate_series(1, 2500) g;
DO $$
BEGIN
    FOR i IN 1 .. 200 LOOP
        UPDATE log_indexes.t SET v = v + 1 WHERE id = (i % 50)::text;
        BEGIN
            UPDATE log_indexes.u SET v = -1 WHERE id <= i;
            IF i % 3 = 0 THEN RAISE 'undone'; END IF;
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
    END LOOP;
END
$$;
SELECT summarize();
UPDATE t SET id = 'new ' || id WHERE v % 2 = 0;
UPDATE u SET id = -id;
DELETE FROM u WHERE id % 5 = 0;
SELECT verify_trees();
SELECT min(id) AS low, max(id) AS high, min(timestamp) AS first, max(timestamp) AS last,
       percentile_disc(0.5) WITHIN GROUP (ORDER BY id) AS middle, percentile_disc(0.5) WITHIN GROUP (ORDER BY timestamp) AS noon FROM audit_log.change \gset
SELECT missed(format('id BETWEEN %s AND %s', :middle - 700, :middle + 700)) AS by_id, missed(format('id >= %s', :high - 50)) AS newest,
       missed(format('timestamp < %L', :'noon')) AS before_noon, missed(format('timestamp > %L', :'noon')) AS after_noon;
SELECT missed(format('table_id = %s AND id >> 8 >= %s', (SELECT id FROM audit_log.tracked_table WHERE table_schema = 'log_indexes' AND table_name = 'u'), :middle >> 8)) AS by_table,
       missed(format('transaction_id = (SELECT max(transaction_id) FROM audit_log.change)')) AS by_transaction;
SELECT sum(missed(format('record_id = %L', id)))::int AS by_record, count(*) FROM (SELECT id FROM t ORDER BY length(id) DESC, id LIMIT 20) r;
SELECT missed('old_record_id = ''7''') AS by_old_key;
SELECT count(*) AS newest_first FROM (SELECT id, lag(id) OVER () AS before FROM audit_log.table_changes('u', 1000)) c WHERE before <= id;
SELECT count(*) AS differs FROM audit_log.table_changes('u', 700, before_id => :middle) c
  FULL JOIN (SELECT id FROM audit_log.audit_logs WHERE relation = 'u'::regclass AND id < :middle ORDER BY id DESC LIMIT 700) d USING (id) WHERE c.record_id IS NULL OR d.id IS NULL;

-- an administrator's own indexes are written at once, in sessions that have the partition prepared
SELECT current_partition() AS partition, id AS u FROM audit_log.tracked_table WHERE table_schema = 'log_indexes' AND table_name = 'u' \gset
CREATE FUNCTION picky(changes jsonb) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF changes ->> 'v' = '-666' THEN RAISE EXCEPTION 'not this one' USING ERRCODE = 'ZZ001'; END IF;
    RETURN changes ->> 'v';
END
$$;
CREATE INDEX picky_idx ON :partition (log_indexes.picky(changes)) WHERE action_type = 'INSERT' AND table_id = :u;
INSERT INTO u SELECT g, g FROM generate_series(10001, 10300) g;
SELECT missed(format('log_indexes.picky(changes) = ''10250'' AND action_type = ''INSERT'' AND table_id = %s', :u)) AS by_expression;
-- what cannot be logged is not done, alone or among others, and the session goes on
INSERT INTO u VALUES (20001, -666);
INSERT INTO u SELECT g, CASE g WHEN 20400 THEN -666 ELSE g END FROM generate_series(20001, 21500) g;
BEGIN;
INSERT INTO u VALUES (20002, 1);
SAVEPOINT s;
INSERT INTO u SELECT g, CASE g WHEN 20400 THEN -666 ELSE g END FROM generate_series(20101, 20500) g;
ROLLBACK TO s;
INSERT INTO u VALUES (20003, 2);
COMMIT;
SELECT id, v FROM u WHERE id BETWEEN 20000 AND 21999 ORDER BY id;
SELECT record_id, changes FROM audit_log.audit_logs WHERE relation = 'u'::regclass AND record_id::int BETWEEN 20000 AND 21999 ORDER BY id;
-- what such failures had in memory goes with their level
CREATE FUNCTION fail_often() RETURNS TABLE (of_failures bigint) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO u VALUES (30000, 0);
    FOR i IN 1 .. 20 LOOP
        BEGIN
            INSERT INTO u SELECT 30000 + g, CASE g WHEN 900 THEN -666 ELSE g END FROM generate_series(1, 900) g;
        EXCEPTION WHEN SQLSTATE 'ZZ001' THEN NULL;
        END;
    END LOOP;
    RETURN QUERY SELECT count(*) FROM pg_backend_memory_contexts WHERE name LIKE 'audit_log buffer%';
END
$$;
SELECT * FROM fail_often();
SELECT record_id FROM audit_log.audit_logs WHERE relation = 'u'::regclass AND record_id >= '30000' AND length(record_id) = 5 ORDER BY id;
DROP INDEX audit_log.picky_idx;
INSERT INTO u VALUES (20004, -666);
-- a unique one is obeyed; one that is not ready, or gone, is not missed
CREATE UNIQUE INDEX CONCURRENTLY one_idx ON :partition ((changes ->> 'v')) WHERE changes ->> 'v' LIKE 'only%';
ALTER TABLE u ADD COLUMN w text;
CREATE TABLE w (id int PRIMARY KEY, v text);
SELECT audit_log.enable('w');
INSERT INTO w VALUES (1, 'only one');
INSERT INTO w VALUES (2, 'only one');
DROP INDEX CONCURRENTLY audit_log.one_idx;
INSERT INTO w VALUES (2, 'only one');
REINDEX TABLE CONCURRENTLY :partition;
INSERT INTO w VALUES (3, 'only one');
SELECT verify_trees();

-- what the log's indexes evaluate is its owner's: no right of the writer's is asked for
CREATE ROLE regress_log_indexes;
GRANT USAGE ON SCHEMA log_indexes TO regress_log_indexes;
GRANT INSERT ON w TO regress_log_indexes;
REVOKE EXECUTE ON FUNCTION audit_log.key_le(text, text), audit_log.key_gt(text, text) FROM PUBLIC;
CREATE FUNCTION who(command int) RETURNS name LANGUAGE sql IMMUTABLE AS $$ SELECT current_user $$;
REVOKE EXECUTE ON FUNCTION who(int) FROM PUBLIC;
CREATE INDEX who_idx ON :partition (log_indexes.who(command)) WHERE log_indexes.who(7) <> 'regress_log_indexes' AND record_id = 'not there';
\c -
SET ROLE regress_log_indexes;
INSERT INTO log_indexes.w VALUES (50, 'a writer');
RESET ROLE;
SET client_min_messages = warning;
SET search_path = log_indexes;
GRANT EXECUTE ON FUNCTION audit_log.key_le(text, text), audit_log.key_gt(text, text) TO PUBLIC;
DROP INDEX audit_log.who_idx;
SELECT changes FROM audit_log.audit_logs WHERE relation = 'w'::regclass AND record_id = '50';

-- an index may even evaluate what changes tracked rows: each is logged once
CREATE TABLE counted (id int PRIMARY KEY, n int);
INSERT INTO counted VALUES (1, 0);
SELECT audit_log.enable('counted');
CREATE FUNCTION count_up() RETURNS void LANGUAGE sql AS $$ UPDATE log_indexes.counted SET n = n + 1 $$;
CREATE FUNCTION counting(command int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    PERFORM log_indexes.count_up() WHERE pg_trigger_depth() < 2;
    RETURN command;
END
$$;
CREATE INDEX counting_idx ON :partition (log_indexes.counting(command)) WHERE record_id LIKE 'count%';
INSERT INTO t SELECT 'count ' || g, 0 FROM generate_series(1, 5) g;
DROP INDEX audit_log.counting_idx;
SELECT n FROM counted;
SELECT action_type, changes FROM audit_log.audit_logs WHERE relation = 'counted'::regclass ORDER BY id;
SELECT count(*) FROM audit_log.audit_logs WHERE relation = 't'::regclass AND record_id LIKE 'count %';
SELECT verify_trees();

-- a partition that does not have the log's columns in their places refuses what would go there
CREATE TABLE other (LIKE audit_log.change);
ALTER TABLE other DROP COLUMN command;
ALTER TABLE other ADD COLUMN command integer NOT NULL;
BEGIN;
SET LOCAL client_min_messages = error;
DO $$ BEGIN EXECUTE format('ALTER TABLE audit_log.change DETACH PARTITION %s', log_indexes.current_partition()); END $$;
ALTER TABLE audit_log.change DETACH PARTITION audit_log.change_default;
ALTER TABLE audit_log.change ATTACH PARTITION log_indexes.other DEFAULT;
INSERT INTO w VALUES (4, 'nowhere');
ROLLBACK;
INSERT INTO w VALUES (4, 'there');
-- the oracle
SELECT (SELECT count(*) FROM (SELECT record_image_eq(a, b) AS same FROM t a FULL JOIN audit_log.rebuild(NULL::t) b USING (id)) x WHERE same IS NOT TRUE) AS t,
       (SELECT count(*) FROM (SELECT record_image_eq(a, b) AS same FROM w a FULL JOIN audit_log.rebuild(NULL::w) b USING (id)) x WHERE same IS NOT TRUE) AS w;
DROP SCHEMA log_indexes CASCADE;
DROP ROLE regress_log_indexes;
