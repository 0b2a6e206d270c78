-- What foreign keys do to other tables: cascades, SET NULL, SET DEFAULT, from
-- ordinary and partitioned tables, deferred or not, into themselves.
-- edge cases 21, 30, 31, 103
CREATE SCHEMA capture_cascade;
SET search_path = capture_cascade;
CREATE VIEW log AS
  SELECT table_name AS "table", action_type AS action, record_id AS id, old_record_id AS old, changes
    FROM audit_log.audit_logs WHERE table_schema = 'capture_cascade' ORDER BY audit_logs.id;
CREATE FUNCTION mismatches(target regclass) RETURNS bigint LANGUAGE plpgsql AS $$
  DECLARE n bigint;
  BEGIN
    EXECUTE format('WITH r AS MATERIALIZED (SELECT whole_row AS x FROM audit_log.rebuild(NULL::%1$s) whole_row),
      t AS MATERIALIZED (SELECT whole_row AS x FROM %1$s whole_row)
      SELECT count(*) FROM (SELECT x FROM r UNION ALL SELECT x FROM t) u
       WHERE (SELECT count(*) FROM r WHERE r.x *= u.x) <> (SELECT count(*) FROM t WHERE t.x *= u.x)', target) INTO n;
    RETURN n;
  END $$;
CREATE TABLE customer (id int PRIMARY KEY, name text);
CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customer ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE item (orders int REFERENCES orders ON DELETE CASCADE ON UPDATE CASCADE, n int, PRIMARY KEY (orders, n));
CREATE TABLE visit (id int PRIMARY KEY, customer int DEFAULT 0 REFERENCES customer ON DELETE SET NULL ON UPDATE SET DEFAULT);
SELECT audit_log.enable(t) FROM unnest('{customer,orders,item,visit}'::regclass[]) t;
INSERT INTO customer VALUES (0, 'default'), (1, 'one'), (2, 'two');
INSERT INTO orders VALUES (10, 1), (20, 2), (21, 2);
INSERT INTO item VALUES (10, 1), (20, 1), (20, 2);
INSERT INTO visit VALUES (100, 1), (200, 2);
SELECT count(*) AS seen FROM log \gset
UPDATE customer SET id = 11 WHERE id = 1;
UPDATE orders SET id = 22 WHERE id = 20;
DELETE FROM customer WHERE id IN (2, 11);
SELECT * FROM log OFFSET :seen;
-- all under one transaction row a statement, and the cascade after what caused it
SELECT count(DISTINCT transaction_id) FROM audit_log.audit_logs WHERE table_schema = 'capture_cascade';
SELECT table_name, action_type, record_id, command - min(command) OVER (PARTITION BY transaction_id) AS command
  FROM audit_log.audit_logs WHERE table_schema = 'capture_cascade' AND action_type <> 'INSERT'
 ORDER BY transaction_id, audit_logs.command, id;
SELECT mismatches('customer'), mismatches('orders'), mismatches('item'), mismatches('visit');

-- only the referencing table is tracked; then only the referenced one
CREATE TABLE quiet (id int PRIMARY KEY);
CREATE TABLE tracked (id int PRIMARY KEY, q int REFERENCES quiet ON DELETE CASCADE ON UPDATE CASCADE);
SELECT audit_log.enable('tracked');
INSERT INTO quiet SELECT generate_series(1, 4);
INSERT INTO tracked SELECT n, (n + 1) / 2 FROM generate_series(1, 4) n;
SELECT count(*) AS seen FROM log \gset
UPDATE quiet SET id = id + 10 WHERE id <= 2;
DELETE FROM quiet WHERE id = 11;
BEGIN;
DELETE FROM quiet;
SELECT * FROM log OFFSET :seen;
ROLLBACK;
SELECT mismatches('tracked');

-- a tree that refers to itself, and a cycle of two tables with deferred keys
CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree ON DELETE CASCADE ON UPDATE CASCADE);
SELECT audit_log.enable('tree');
INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 2), (4, 2), (5, 1);
SELECT count(*) AS seen FROM log \gset
UPDATE tree SET id = 22 WHERE id = 2;
DELETE FROM tree WHERE id = 1;
SELECT * FROM log OFFSET :seen;
SELECT mismatches('tree'), (SELECT count(*) FROM tree);
CREATE TABLE hen (id int PRIMARY KEY, egg int);
CREATE TABLE egg (id int PRIMARY KEY, hen int REFERENCES hen ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE hen ADD FOREIGN KEY (egg) REFERENCES egg ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED;
SELECT audit_log.enable('hen'), audit_log.enable('egg');
BEGIN;
INSERT INTO hen VALUES (1, 1);
INSERT INTO egg VALUES (1, 1), (2, 1);
COMMIT;
SELECT count(*) AS seen FROM log \gset
DELETE FROM hen;
SELECT * FROM log OFFSET :seen;
SELECT mismatches('hen'), mismatches('egg');

-- a constraint trigger of the user's that fires at COMMIT, when the last statement is long over
CREATE TABLE late (id int PRIMARY KEY, v int);
CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    UPDATE late SET v = v + 1 WHERE id = new.id AND v < 3;
    INSERT INTO customer VALUES (1000 + new.id + new.v, 'late') ON CONFLICT DO NOTHING;
    RETURN NULL;
  END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT OR UPDATE ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit();
SELECT audit_log.enable('late');
SELECT count(*) AS seen FROM log \gset
BEGIN;
INSERT INTO late VALUES (1, 1);
SELECT * FROM log OFFSET :seen;
COMMIT;
SELECT * FROM log OFFSET :seen;
SELECT mismatches('late'), mismatches('customer');
BEGIN;
INSERT INTO late VALUES (2, 1);
SAVEPOINT a;
SET CONSTRAINTS ALL IMMEDIATE;
ROLLBACK TO a;
COMMIT;
SELECT mismatches('late'), mismatches('customer');

-- partitioned on both sides; the cascade moves rows to another partition
CREATE TABLE region (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE region_1 PARTITION OF region FOR VALUES FROM (0) TO (10);
CREATE TABLE region_2 PARTITION OF region FOR VALUES FROM (10) TO (20);
CREATE TABLE town (region int REFERENCES region ON UPDATE CASCADE ON DELETE CASCADE, id int, v text, PRIMARY KEY (region, id)) PARTITION BY RANGE (region);
CREATE TABLE town_1 PARTITION OF town FOR VALUES FROM (0) TO (10);
CREATE TABLE town_2 PARTITION OF town FOR VALUES FROM (10) TO (20);
SELECT audit_log.enable('region'), audit_log.enable('town');
INSERT INTO region VALUES (1), (2), (11);
INSERT INTO town VALUES (1, 1, 'a'), (1, 2, 'b'), (2, 1, 'c'), (11, 1, 'd');
SELECT count(*) AS seen FROM log \gset
UPDATE region SET id = 12 WHERE id = 1;
UPDATE region SET id = 3 WHERE id = 2;
DELETE FROM region WHERE id > 10;
SELECT * FROM log OFFSET :seen;
SELECT mismatches('region'), mismatches('town');

SET client_min_messages = warning;
DROP SCHEMA capture_cascade CASCADE;
