--
-- The outbox, where much is to be given: from the beginning of the log, through ids that nothing bears, in pieces of
-- any size, of a transaction larger than what is sorted at a time, with commands whose changes lie mixed up
-- edge cases 88, 115, 117
--
SET client_min_messages = warning;
CREATE SCHEMA outbox_large;
SET search_path = outbox_large;
CREATE TABLE many (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
CREATE TABLE inner_one (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
SELECT audit_log.enable('many'), audit_log.enable('inner_one');
SELECT audit_log.create_consumer('from here on');
CREATE TABLE before AS SELECT audit_log.transaction_id() AS id;
-- every row of the outer statement changes one by an inner statement, which is captured before it
CREATE FUNCTION inside() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE inner_one SET n = n + 1 WHERE id = NEW.id % 100;
    RETURN NEW;
END $$;
INSERT INTO inner_one SELECT i FROM generate_series(0, 99) i;
INSERT INTO many SELECT i FROM generate_series(1, 3000) i;
-- ids that are lost
BEGIN;
INSERT INTO many SELECT i FROM generate_series(10001, 16000) i;
ROLLBACK;
DO $$ BEGIN FOR i IN 1 .. 300 LOOP UPDATE many SET n = n + 1 WHERE id = i; COMMIT; END LOOP; END $$;
CREATE TRIGGER inside BEFORE UPDATE ON many FOR EACH ROW WHEN (NEW.n % 2 = 0) EXECUTE FUNCTION inside();
BEGIN;
INSERT INTO many SELECT i FROM generate_series(3001, 16000) i;
UPDATE many SET n = n + 2 WHERE id BETWEEN 301 AND 8000;
SET LOCAL audit_log.user_id = 'another';
UPDATE many SET n = n + 1 WHERE id <= 4000;
DELETE FROM many WHERE id % 3 = 0;
COMMIT;
DO $$ BEGIN FOR i IN 1 .. 300 LOOP UPDATE inner_one SET n = n + 1 WHERE id = i % 100; COMMIT; END LOOP; END $$;

CREATE TABLE got (who text, n serial, change bigint);
CREATE FUNCTION drain(who text, sizes int[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    rows bigint;
    turn int := 0;
    total bigint := 0;
BEGIN
    LOOP
        INSERT INTO got (who, change) SELECT who, p.id FROM audit_log.poll(who, sizes[turn % cardinality(sizes) + 1]) p;
        GET DIAGNOSTICS rows = ROW_COUNT;
        ASSERT rows <= sizes[turn % cardinality(sizes) + 1], 'not more than asked for';
        EXIT WHEN rows = 0;
        ASSERT audit_log.ack(who) = rows, 'acknowledged';
        total := total + rows;
        turn := turn + 1;
    END LOOP;
    RETURN total;
END $$;
SELECT audit_log.create_consumer('start', from_start => true), audit_log.create_consumer('whole', from_start => true),
       audit_log.create_consumer('turns', from_start => true);
-- what was to be given: all of this, in that order
CREATE TABLE wanted AS
    SELECT change, transaction_id > before.id AS here, row_number() OVER (ORDER BY last, command, change) AS n,
           row_number() OVER (PARTITION BY transaction_id > before.id ORDER BY last, command, change) AS n_here
      FROM (SELECT c.id AS change, c.transaction_id, c.command, max(c.id) OVER (PARTITION BY t.xid) AS last
              FROM audit_log.change c JOIN audit_log.transaction t ON t.id = c.transaction_id) w, before;
SELECT count(*) AS here FROM wanted WHERE here;
SELECT drain('start', '{777}') = count(*) AS all_given FROM wanted;
SELECT drain('whole', '{1000000}') = count(*) AS all_given FROM wanted;
SELECT drain('turns', '{1,4000,20,7000,25000}') = count(*) AS all_given FROM wanted;
SELECT drain('from here on', '{1,5000}') = count(*) AS all_given FROM wanted WHERE here;
SELECT g.who, count(*) FILTER (WHERE g.change <> w.change) AS out_of_order
  FROM (SELECT who, change, row_number() OVER (PARTITION BY who ORDER BY n) AS n FROM got) g
  JOIN (SELECT false AS here, n, change FROM wanted UNION ALL SELECT true, n_here, change FROM wanted WHERE here) w
    ON w.here = (g.who = 'from here on') AND w.n = g.n GROUP BY 1 ORDER BY 1;
SELECT audit_log.drop_consumer(consumer) FROM audit_log.consumers();
DROP SCHEMA outbox_large CASCADE;
