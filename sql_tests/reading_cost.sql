-- What a read costs grows with its result: not with the log, not with other
-- tables' rows of the same id, not with prepared statements. Pages, never time.
SET client_min_messages = warning;
CREATE SCHEMA reading_cost;
SET search_path = reading_cost;
CREATE TABLE big (id text PRIMARY KEY, v int);
CREATE TABLE noise (id int PRIMARY KEY, v int);
SELECT audit_log.enable('big'), audit_log.enable('noise');
CREATE FUNCTION pages(query text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    plan json;
BEGIN
    EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) ' || query INTO plan;
    RETURN (plan -> 0 -> 'Plan' ->> 'Shared Hit Blocks')::int + (plan -> 0 -> 'Plan' ->> 'Shared Read Blocks')::int;
END
$$;
CREATE FUNCTION fill(changes int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. changes LOOP
        UPDATE noise SET v = v + 1 WHERE id = 5;
    END LOOP;
    INSERT INTO noise SELECT g, g FROM generate_series((SELECT max(id) + 1 FROM noise), (SELECT max(id) + changes FROM noise)) g;
END
$$;
CREATE FUNCTION update_statistics() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    p regclass;
BEGIN
    ANALYZE audit_log.transaction;
    FOR p IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'audit_log.change'::regclass LOOP
        EXECUTE format('ANALYZE %s', p);
    END LOOP;
END
$$;
INSERT INTO noise SELECT g, 0 FROM generate_series(1, 10) g;
INSERT INTO big SELECT g, g FROM generate_series(1, 20000) g;
-- a key longer than any B-tree takes: each part has 2,600 bytes, incompressible, in its own index
INSERT INTO big SELECT string_agg(md5(g::text), ''), 0 FROM generate_series(1, 81) g;
SELECT audit_log.set_context('reading cost') \g /dev/null
BEGIN;
SELECT audit_log.set_context('reading cost') \g /dev/null
UPDATE big SET v = v + 1 WHERE id IN ('5', '6');
UPDATE big SET v = v + 1 WHERE length(id) > 2000;
COMMIT;
SELECT max(transaction_id) AS tid FROM audit_log.audit_logs WHERE relation = 'big'::regclass \gset
SELECT id AS long_id FROM big WHERE length(id) > 2000 \gset

PREPARE one_record(text) AS
    SELECT id, action_type, changes FROM audit_log.audit_logs WHERE relation = 'big'::regclass AND record_id = $1 ORDER BY id;
CREATE TABLE reads (name text PRIMARY KEY, query text, before int);
INSERT INTO reads VALUES
    ('record', $$SELECT * FROM audit_log.audit_logs WHERE relation = 'reading_cost.big'::regclass AND record_id = '5'$$),
    ('record by name', $$SELECT * FROM audit_log.audit_logs WHERE table_schema = 'reading_cost' AND table_name = 'big' AND record_id = '5' AND action_type = 'UPDATE'$$),
    ('record with a long key', format($$SELECT * FROM audit_log.audit_logs WHERE relation = 'reading_cost.big'::regclass AND record_id = %L$$, :'long_id')),
    ('prepared', $$EXECUTE one_record('6')$$),
    ('columns of a record', $$SELECT * FROM audit_log.column_changes WHERE relation = 'reading_cost.big'::regclass AND record_id = '5'$$),
    ('transaction', format($$SELECT * FROM audit_log.audit_logs WHERE transaction_id = %s$$, :'tid')),
    ('table_changes', $$SELECT * FROM audit_log.table_changes('reading_cost.big', 5)$$),
    ('user_changes', $$SELECT * FROM audit_log.user_changes('reading cost', max_rows => 5)$$);
SELECT update_statistics();
SELECT fill(2000);
SELECT update_statistics();
UPDATE reads SET before = pages(query);
SELECT fill(8000);
SELECT update_statistics();
-- The plan of a prepared statement may become a generic one only now. (Of '5', the commonest id of all, the
-- planner may think that one cheaper, by what else is in the log.)
EXECUTE one_record('6') \g /dev/null
EXECUTE one_record('6') \g /dev/null
EXECUTE one_record('6') \g /dev/null
EXECUTE one_record('6') \g /dev/null
EXECUTE one_record('6') \g /dev/null
EXECUTE one_record('6') \g /dev/null
-- five times the log: so many pages as before, but for a level of a tree a partition
SELECT r.name, CASE WHEN p.now <= r.before + 30 AND p.now < 300 THEN 'the same'
                    ELSE format('%s pages before, %s now', r.before, p.now) END AS pages
  FROM reads r, LATERAL (SELECT pages(r.query) AS now) p ORDER BY r.name;
SELECT action_type, length(record_id) FROM audit_log.audit_logs WHERE relation = 'big'::regclass AND record_id = :'long_id' ORDER BY id;
SELECT count(*) FROM audit_log.audit_logs WHERE relation = 'big'::regclass AND record_id = '5';
DROP SCHEMA reading_cost CASCADE;
