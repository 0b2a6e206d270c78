--
-- What stands in the way of taking back: every kind, listed row by row, refused,
-- and with force what is left of it
-- edge cases 41, 43, 104, 107, 110
--
CREATE SCHEMA takeback_conflicts;
SET search_path = takeback_conflicts;
SET client_min_messages = warning;
CREATE TABLE t (id int PRIMARY KEY, a text, b jsonb, u int UNIQUE);
SELECT audit_log.enable('t');
CREATE FUNCTION newest() RETURNS bigint LANGUAGE sql AS
    $$ SELECT max(transaction_id) FROM audit_log.audit_logs WHERE table_schema = 'takeback_conflicts' $$;
-- numbers of transactions are not for expected results
CREATE FUNCTION shown(take text) RETURNS TABLE (record_id text, action_type text, after jsonb, conflict text) LANGUAGE plpgsql AS $$
DECLARE
    detail text;
BEGIN
    RETURN QUERY EXECUTE 'SELECT record_id, action_type, after, regexp_replace(conflict, ''\d+\)'', ''N)'', ''g'') FROM audit_log.' || take
        || ' ORDER BY table_name, record_id, before::text';
EXCEPTION WHEN object_not_in_prerequisite_state OR triggered_data_change_violation THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RETURN QUERY SELECT SQLERRM, NULL, NULL::jsonb, regexp_replace(detail, '\d+\)', 'N)', 'g');
END $$;
-- refused; shown by dry_run; with force; and what is there then
CREATE FUNCTION all_ways(take text) RETURNS TABLE (way text, record_id text, action_type text, after jsonb, conflict text) LANGUAGE sql AS $$
    SELECT 'refused', s.* FROM shown(take || ')') s
    UNION ALL SELECT 'dry run', s.* FROM shown(take || ', dry_run => true, force => true)') s
    UNION ALL SELECT 'forced', s.* FROM shown(take || ', force => true)') s
$$;
INSERT INTO t SELECT n, 'a' || n, '{"x": 1, "y": {"z": 1}}', n FROM generate_series(1, 9) n;

-- the value is not the one written: columns, keys inside of objects, NULL against JSON null
UPDATE t SET a = 'bad', b = b || '{"x": 2, "y": {"z": 2}, "new": 1}';
SELECT newest() AS bad \gset
UPDATE t SET a = 'mine' WHERE id = 1;
UPDATE t SET b = jsonb_set(b, '{y,z}', '3') WHERE id = 2;
UPDATE t SET b = b - 'new' WHERE id = 3;
UPDATE t SET b = '[1]' WHERE id = 4;
UPDATE t SET b = jsonb_set(b, '{y}', 'null') WHERE id = 5;
DELETE FROM t WHERE id = 6;
UPDATE t SET b = NULL WHERE id = 7;
UPDATE t SET id = 80 WHERE id = 8;
DELETE FROM t WHERE id = 9; INSERT INTO t VALUES (9, 'bad', '{"x": 2, "y": {"z": 2}, "new": 1}', 9);
SELECT * FROM all_ways(format('undo_transaction(%s', :bad));
TABLE t ORDER BY id;

-- an INSERT taken back: changed since, gone since; a DELETE: there again
TRUNCATE t;
INSERT INTO t VALUES (1, 'new', NULL, 1), (2, 'new', NULL, 2), (3, 'new', NULL, 3);
SELECT newest() AS made \gset
UPDATE t SET a = 'other', b = 'null' WHERE id = 1;
DELETE FROM t WHERE id = 2;
SELECT * FROM all_ways(format('undo_transaction(%s', :made));
TABLE t ORDER BY id;
INSERT INTO t VALUES (1, 'one', NULL, 1), (2, 'two', NULL, 2);
DELETE FROM t;
SELECT newest() AS gone \gset
INSERT INTO t VALUES (1, 'again', NULL, 11);
SELECT * FROM all_ways(format('undo_transaction(%s', :gone));
TABLE t ORDER BY id;

-- key taken: by a row that has nothing to do with it
UPDATE t SET u = u + 100;
SELECT newest() AS moved \gset
INSERT INTO t VALUES (50, 'has it', NULL, 1);
SELECT * FROM all_ways(format('undo_transaction(%s', :moved));
TABLE t ORDER BY id;
-- and two that want the same
TRUNCATE t;
INSERT INTO t VALUES (1, NULL, NULL, 1), (2, NULL, NULL, NULL);
SELECT audit_log.mark('takeback_conflicts_1');
UPDATE t SET u = NULL WHERE id = 1;
UPDATE t SET u = 1 WHERE id = 2;
SELECT newest() AS took \gset
UPDATE t SET u = 2 WHERE id = 2;
UPDATE t SET u = 1 WHERE id = 1;
SELECT * FROM all_ways(format('undo_transaction(%s', :took));
SELECT * FROM shown($$rollback_to('{t}', 'takeback_conflicts_1')$$);
TABLE t ORDER BY id;

-- exclusion constraints
CREATE TABLE room (id int PRIMARY KEY, during int4range, EXCLUDE USING gist (during WITH &&));
SELECT audit_log.enable('room');
INSERT INTO room VALUES (1, '[1,5)'), (2, '[5,9)');
DELETE FROM room WHERE id = 1;
SELECT newest() AS freed \gset
UPDATE room SET during = '[4,9)' WHERE id = 2;
SELECT * FROM all_ways(format('undo_transaction(%s', :freed));

-- parent missing outside the set; children that would be left
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent, self int REFERENCES child);
SELECT audit_log.enable('parent'), audit_log.enable('child');
INSERT INTO parent VALUES (1), (2), (3);
SELECT audit_log.mark('takeback_conflicts_2');
INSERT INTO child VALUES (1, 1, NULL), (2, 2, 1), (3, 3, 2);
SELECT audit_log.mark('takeback_conflicts_3');
DELETE FROM child WHERE id IN (2, 3);
DELETE FROM parent WHERE id = 2;
-- without its parent 2, and so 3 without 2
SELECT * FROM all_ways($$rollback_to('{child}', 'takeback_conflicts_3'$$);
TABLE child;
SELECT * FROM shown($$rollback_to('{child, parent}', 'takeback_conflicts_3')$$);
TABLE child ORDER BY 1; TABLE parent ORDER BY 1;
SELECT * FROM all_ways($$restore_row('parent', '4', 'takeback_conflicts_2'$$);
INSERT INTO parent VALUES (4);
INSERT INTO child VALUES (4, 4, NULL);
SELECT * FROM all_ways($$rollback_to('{parent}', 'takeback_conflicts_2'$$);
SELECT * FROM shown($$rollback_to('{parent, child}', 'takeback_conflicts_2')$$);
TABLE child; TABLE parent;

-- RESTRICT holds though another row is to have the key; what only a partition refers to is not looked at
CREATE TABLE held (id int PRIMARY KEY, k int NOT NULL UNIQUE);
CREATE TABLE holder (k int REFERENCES held (k) ON UPDATE RESTRICT ON DELETE RESTRICT);
SELECT audit_log.enable('held');
INSERT INTO held VALUES (1, 2), (2, 3);
UPDATE held SET k = k - 1;
SELECT newest() AS moved \gset
INSERT INTO holder VALUES (2);
SELECT * FROM all_ways(format('undo_transaction(%s', :moved));
CREATE TABLE split (id int PRIMARY KEY, parent int) PARTITION BY RANGE (id);
CREATE TABLE split_1 PARTITION OF split FOR VALUES FROM (1) TO (10);
ALTER TABLE split_1 ADD CONSTRAINT of_one FOREIGN KEY (parent) REFERENCES parent;
SELECT audit_log.enable('split');
INSERT INTO parent VALUES (99);
INSERT INTO split VALUES (1, 99);
DELETE FROM split;
SELECT newest() AS gone \gset
DELETE FROM parent WHERE id = 99;
\set VERBOSITY sqlstate
SELECT audit_log.undo_transaction(:gone);
\set VERBOSITY default

-- rows that the table does not take any more, and such as are not in the log as a whole
CREATE TABLE strict (id int PRIMARY KEY, v int, secret text NOT NULL, n serial);
SELECT audit_log.enable('strict', exclude => '{secret}');
INSERT INTO strict VALUES (1, 1, 's'), (2, 2, 's'), (3, 3, 's');
UPDATE strict SET v = v + 10;
SELECT newest() AS raised \gset
DELETE FROM strict WHERE id = 3;
SELECT newest() AS gone \gset
ALTER TABLE strict ADD CHECK (v > 1), ADD w int NOT NULL DEFAULT 7;
SELECT * FROM all_ways(format('undo_transaction(%s', :gone));
ALTER TABLE strict ALTER secret SET DEFAULT 'none';
SELECT * FROM all_ways(format('undo_transaction(%s', :gone));
SELECT record_id, action_type, conflict FROM audit_log.undo_transaction(:raised, force => true) ORDER BY 1;
SELECT id, v, secret, w FROM strict ORDER BY id;
CREATE TABLE pieces (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE pieces_1 PARTITION OF pieces FOR VALUES FROM (1) TO (10);
CREATE TABLE pieces_2 PARTITION OF pieces FOR VALUES FROM (10) TO (20) PARTITION BY LIST (id);
CREATE TABLE pieces_20 (v text, id int NOT NULL);
ALTER TABLE pieces_2 ATTACH PARTITION pieces_20 DEFAULT;
CREATE TABLE pieces_3 PARTITION OF pieces FOR VALUES FROM (20) TO (30);
SELECT audit_log.enable('pieces');
INSERT INTO pieces VALUES (1, 'a'), (11, 'b'), (21, 'c');
DELETE FROM pieces;
SELECT newest() AS gone \gset
DROP TABLE pieces_3;
SELECT * FROM all_ways(format('undo_transaction(%s', :gone));

-- many: the message names some, dry_run all
TRUNCATE t;
INSERT INTO t (id, a) SELECT n, 'a' FROM generate_series(1, 30) n;
SELECT newest() AS many \gset
UPDATE t SET a = 'b';
SELECT cardinality(regexp_split_to_array(conflict, '\n')) AS lines, substring(conflict, '… .*') FROM shown(format('undo_transaction(%s)', :many));
SELECT count(*) FROM shown(format('undo_transaction(%s, dry_run => true)', :many));

SELECT audit_log.drop_mark(name) FROM audit_log.marks WHERE name LIKE 'takeback\_conflicts%';
DROP SCHEMA takeback_conflicts CASCADE;
