-- A partitioned table has one version table; rows that move, partitions that
-- come, go, are renamed, emptied and dropped, with columns in another order.
-- edge cases 1, 23, 24, 131
CREATE SCHEMA versions_partitions;
SET search_path = versions_partitions;
SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE TABLE p (id int, part int, v text, PRIMARY KEY (part, id)) PARTITION BY LIST (part);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE p2 (v text, gone int, part int NOT NULL, id int NOT NULL);
ALTER TABLE p2 DROP COLUMN gone;
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (2, 3);
INSERT INTO p VALUES (1, 1, 'one'), (2, 2, 'two');
DO $$ BEGIN PERFORM audit_log.enable('p', versioned => true); END $$;
CREATE FUNCTION holds() RETURNS TABLE (current bigint, rows bigint, whole boolean) LANGUAGE sql AS $$
  SELECT (SELECT count(*) FROM p_version v JOIN p ON (p.id, p.part) = (v.id, v.part) AND p.v IS NOT DISTINCT FROM v.v
           WHERE end_transaction_id IS NULL AND operation_type <> 2), (SELECT count(*) FROM p),
         (SELECT bool_and(c.ends IS NOT DISTINCT FROM c.next AND c.ended IS NOT DISTINCT FROM c.begun_next) AND
                 (SELECT count(*) FROM p_version WHERE end_transaction_id IS NULL AND operation_type <> 2) = (SELECT count(*) FROM p)
            FROM (SELECT end_transaction_id AS ends, valid_to AS ended, lead(transaction_id) OVER w AS next, lead(valid_from) OVER w AS begun_next
                    FROM p_version WINDOW w AS (PARTITION BY id, part ORDER BY transaction_id)) c)
$$;
UPDATE p SET v = 'changed';
INSERT INTO p2 (id, part, v) VALUES (3, 3, 'direct');
-- moves: with the key, which names the partition
UPDATE p SET part = 2 WHERE id = 1;
UPDATE p SET part = 3, v = 'within' WHERE id = 1;
SELECT id, part, v, operation_type AS op, end_transaction_id IS NULL AS open FROM p_version ORDER BY id, part, transaction_id;
SELECT * FROM holds();
-- a partition with rows that comes, one that goes, one that is renamed
CREATE TABLE p4 (id int NOT NULL, part int NOT NULL, v text);
INSERT INTO p4 VALUES (4, 4, 'came'), (5, 4, 'came');
ALTER TABLE p ATTACH PARTITION p4 FOR VALUES IN (4);
SELECT id, part, v, operation_type AS op FROM p_version WHERE part = 4;
SELECT * FROM holds();
ALTER TABLE p4 RENAME TO p5;
UPDATE p SET v = 'renamed' WHERE part = 4;
ALTER TABLE p DETACH PARTITION p5;
SELECT id, part, v, operation_type AS op FROM p_version WHERE part = 4 ORDER BY id, transaction_id;
SELECT * FROM holds();
ALTER TABLE p ATTACH PARTITION p5 FOR VALUES IN (4);
SELECT * FROM holds();
DROP TABLE p5;
SELECT * FROM holds();
CREATE TABLE pd PARTITION OF p DEFAULT;
INSERT INTO p VALUES (9, 9, 'default');
TRUNCATE pd;
SELECT id, v, operation_type AS op FROM p_version WHERE part = 9 ORDER BY transaction_id;
TRUNCATE p;
SELECT * FROM holds();
-- columns of all at once
INSERT INTO p VALUES (1, 1, 'a'), (2, 2, 'b'), (9, 9, 'c');
ALTER TABLE p ADD COLUMN n int DEFAULT 4;
ALTER TABLE p RENAME COLUMN v TO w;
ALTER TABLE p ALTER COLUMN n TYPE text USING 'n' || n;
UPDATE p SET n = n || '!' WHERE id < 9;
SELECT id, part, w, n, operation_type AS op FROM p_version WHERE end_transaction_id IS NULL AND operation_type <> 2 ORDER BY id;
ALTER TABLE p RENAME TO q;
ALTER TABLE p1 RENAME TO q1;
UPDATE q SET w = 'q' WHERE id = 1;
SELECT w, operation_type AS op FROM q_version WHERE id = 1 AND part = 1 ORDER BY transaction_id DESC LIMIT 2;
-- a BEFORE trigger that suppresses the other half of a move makes it a DELETE
CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER no BEFORE INSERT ON p2 FOR EACH ROW EXECUTE FUNCTION no();
UPDATE q SET part = 2 WHERE id = 1;
SELECT w, operation_type AS op FROM q_version WHERE id = 1 AND part = 1 ORDER BY transaction_id DESC LIMIT 1;
SELECT problem FROM audit_log.check() WHERE relation LIKE 'versions%';
DROP SCHEMA versions_partitions CASCADE;
