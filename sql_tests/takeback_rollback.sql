--
-- rollback_to and restore_row: cycles and self-references, actions of foreign keys,
-- deferred constraints, unique swaps, exclusion, identity, partitions, no key:
-- afterwards the tables are what they were, image by image
-- edge cases 50, 51, 103, 104, 105, 106, 109, 112
--
CREATE SCHEMA takeback_rollback;
SET search_path = takeback_rollback;
SET client_min_messages = warning;
CREATE TABLE boss (id int PRIMARY KEY, code text UNIQUE NOT NULL, best int, chief int REFERENCES boss);
CREATE TABLE worker (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    boss int REFERENCES boss ON DELETE CASCADE ON UPDATE CASCADE,
    code text REFERENCES boss (code) ON DELETE SET NULL ON UPDATE CASCADE,
    mate int REFERENCES worker DEFERRABLE INITIALLY DEFERRED, twice int GENERATED ALWAYS AS (boss * 2) STORED);
ALTER TABLE boss ADD FOREIGN KEY (best) REFERENCES worker ON DELETE SET NULL;
CREATE TABLE place (id int PRIMARY KEY, pos int NOT NULL UNIQUE, span int4range NOT NULL, EXCLUDE USING gist (span WITH &&));
CREATE TABLE seat (place int NOT NULL REFERENCES place ON DELETE RESTRICT, n int, label varchar(5) UNIQUE, PRIMARY KEY (place, n));
CREATE TABLE later (a int PRIMARY KEY, b int, UNIQUE (b) DEFERRABLE INITIALLY IMMEDIATE);
CREATE TABLE part (region text, id int, v numeric, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE part_a PARTITION OF part FOR VALUES IN ('a');
CREATE TABLE part_b PARTITION OF part FOR VALUES IN ('b') PARTITION BY RANGE (id);
CREATE TABLE part_b1 PARTITION OF part_b FOR VALUES FROM (0) TO (10);
CREATE TABLE part_b2 (v numeric, gone int, id int NOT NULL, region text NOT NULL);
ALTER TABLE part_b2 DROP gone;
ALTER TABLE part_b ATTACH PARTITION part_b2 FOR VALUES FROM (10) TO (100);
CREATE TABLE loose (a int, b jsonb, c float8);
CREATE TABLE doc (id text COLLATE "C" PRIMARY KEY, j json, b jsonb, arr int[], f float8, big text);
SELECT count(audit_log.enable(t)) FROM unnest('{boss,worker,place,seat,later,part,loose,doc}'::regclass[]) t;

CREATE PROCEDURE fill() LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO boss VALUES (1, 'one', NULL, 1), (2, 'two', NULL, 1), (3, 'three', NULL, 2);
    INSERT INTO worker (boss, code) VALUES (1, 'one'), (1, 'two'), (2, 'three'), (3, NULL);
    UPDATE worker SET mate = 5 - id;
    UPDATE boss SET best = (SELECT min(w.id) FROM worker w WHERE w.boss = boss.id);
    INSERT INTO place SELECT n, n, int4range(n * 10, n * 10 + 10) FROM generate_series(1, 5) n;
    INSERT INTO seat SELECT p, n, 'L' || p || n FROM generate_series(1, 5) p, generate_series(1, 2) n;
    INSERT INTO later SELECT n, n FROM generate_series(1, 4) n;
    INSERT INTO part SELECT r, n, n * 1.10 FROM unnest('{a,b}'::text[]) r, generate_series(1, 20) n;
    INSERT INTO loose VALUES (1, '{"a": 1}', 'NaN'), (1, '{"a": 1}', 'NaN'), (NULL, 'null', -0.0), (2, NULL, 0.1);
    INSERT INTO doc VALUES ('a', '{"x":  1, "x": 2}', '{"$pg": 1}', '[2:3]={1,2}', '-0', repeat('abc', 30000)),
        (E'b"\\[1]''\n', 'null', 'null', '{}', 'NaN', NULL), ('["a", "1"]', '"\u0000"', '1.00', NULL, 'Infinity', '');
END $$;
CREATE PROCEDURE remember() LANGUAGE plpgsql AS $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY '{boss,worker,place,seat,later,part,loose,doc}'::text[] LOOP
        EXECUTE format('DROP TABLE IF EXISTS copy_%s', t);
        EXECUTE format('CREATE TABLE copy_%s AS TABLE %1$s', t);
    END LOOP;
END $$;
-- rows that differ from the copy, by image
CREATE FUNCTION different() RETURNS TABLE (tab text, side text, r text) LANGUAGE plpgsql AS $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY '{boss,worker,place,seat,later,part,loose,doc}'::text[] LOOP
        RETURN QUERY EXECUTE format($q$
            SELECT %1$L, 'now', left(q::text, 200) FROM %1$s q
             WHERE (SELECT count(*) FROM %1$s x WHERE x *= q) <> (SELECT count(*) FROM copy_%1$s x WHERE x *= q)
            UNION ALL
            SELECT %1$L, 'then', left(q::text, 200) FROM copy_%1$s q
             WHERE (SELECT count(*) FROM %1$s x WHERE x *= q) <> (SELECT count(*) FROM copy_%1$s x WHERE x *= q)$q$, t);
    END LOOP;
END $$;
CREATE PROCEDURE stir() LANGUAGE plpgsql AS $$
BEGIN
    -- bosses: a key changed, one gone with her workers, a code swapped, a cycle moved
    UPDATE boss SET id = 30, chief = NULL WHERE id = 3;
    UPDATE boss SET code = 'x' WHERE id = 1; UPDATE boss SET code = 'one' WHERE id = 2; UPDATE boss SET code = 'two' WHERE id = 1;
    UPDATE boss SET best = NULL, chief = NULL; UPDATE worker SET mate = NULL;
    DELETE FROM boss WHERE id = 2;
    INSERT INTO boss VALUES (2, 'another', NULL, 30), (4, 'four', NULL, 2);
    INSERT INTO worker (boss, code) VALUES (2, 'another'), (4, 'four');
    UPDATE boss SET best = (SELECT min(w.id) FROM worker w WHERE w.boss = boss.id);
    -- positions and spans moved along by one, labels swapped
    UPDATE place SET pos = -pos, span = int4range(lower(span) + 1000, upper(span) + 1000);
    UPDATE place SET pos = CASE pos WHEN -5 THEN 1 ELSE 1 - pos END, span = int4range((lower(span) - 1000) % 50 + 10, (upper(span) - 1010) % 50 + 20);
    UPDATE seat SET label = NULL WHERE n = 1; UPDATE seat SET label = 'L' || place || '1' WHERE n = 2; UPDATE seat SET label = 'L' || place || '2' WHERE n = 1;
    DELETE FROM seat WHERE place = 3; UPDATE seat SET n = n + 5 WHERE place = 4;
    UPDATE later SET b = 5 - b;
    UPDATE later SET a = a + 10;
    -- moved between partitions, emptied, filled
    UPDATE part SET region = CASE region WHEN 'a' THEN 'b' ELSE 'a' END, id = id + 30 WHERE id % 3 = 0 OR region = 'b' AND id > 15;
    DELETE FROM part WHERE id % 5 = 1; UPDATE part SET v = v + 0.00;
    UPDATE part SET v = v * 1.0;
    TRUNCATE loose; INSERT INTO loose VALUES (2, NULL, 0.1), (7, '7', 7);
    UPDATE doc SET j = '1', b = '{"$pg": 2}', arr = '{1,2}', f = 0, big = big || 'd';
    DELETE FROM doc WHERE id LIKE 'b%'; UPDATE doc SET id = 'B' WHERE id = 'a';
END $$;
CALL fill();
SELECT audit_log.mark('takeback_rollback_1');
CALL remember();
CALL stir();
SELECT count(*) > 0 AS differs FROM different();
-- what dry_run says is what the run writes
CREATE TABLE dry AS SELECT * FROM audit_log.rollback_to('{boss,worker,place,seat,later,part,loose,doc}', 'takeback_rollback_1', dry_run => true);
SELECT count(*) > 0 AS differs FROM different();
CREATE TABLE wet AS SELECT * FROM audit_log.rollback_to('{doc,loose,part,later,seat,place,worker,boss,boss}', 'takeback_rollback_1');
TABLE dry EXCEPT ALL TABLE wet; TABLE wet EXCEPT ALL TABLE dry;
SELECT * FROM different();
SELECT table_name, action_type, count(*), count(conflict) AS conflicts FROM wet GROUP BY 1, 2 ORDER BY 1, 2;
-- of what stays nothing was deleted: where keys were swapped, a value stood in between
SELECT table_name, record_id FROM audit_log.audit_logs l WHERE undoes ? 'rollback_to' AND action_type = 'DELETE'
   AND NOT EXISTS (SELECT FROM wet w WHERE w.table_name = l.relation AND w.action_type = 'DELETE' AND w.record_id IS NOT DISTINCT FROM l.record_id)
   AND table_schema = 'takeback_rollback' ORDER BY 1, 2;
-- and it is complete: nothing is left to do
SELECT count(*) FROM audit_log.rollback_to('{boss,worker,place,seat,later,part,loose,doc}', 'takeback_rollback_1');
-- the rollback taken back, and that taken back
CREATE TABLE stirred AS SELECT max(transaction_id) AS id FROM audit_log.audit_logs WHERE undoes ? 'rollback_to' AND table_schema = 'takeback_rollback';
SELECT count(*) > 0 AS wrote, count(conflict) AS conflicts FROM stirred, audit_log.undo_transaction(stirred.id);
SELECT count(*) > 0 AS differs FROM different();
SELECT count(*) > 0 AS wrote FROM audit_log.rollback_to('{boss,worker,place,seat,later,part,loose,doc}', 'takeback_rollback_1');
SELECT * FROM different();

-- to what was there before anything was; and forward again
BEGIN;
SELECT count(*) FROM audit_log.rollback_to('{boss,worker,place,seat,later,part,loose,doc}', now() - interval '1 day', force => true);
SELECT (SELECT count(*) FROM boss) + (SELECT count(*) FROM worker) + (SELECT count(*) FROM part) + (SELECT count(*) FROM loose) AS left;
ROLLBACK;
SELECT * FROM different();

-- one record: written, deleted, inserted, found by any text of its key
UPDATE place SET span = int4range(500, 501) WHERE id = 2;
SELECT table_name, record_id, action_type, before, after FROM audit_log.restore_row('place', ' 02 ', 'takeback_rollback_1');
SELECT undoes FROM audit_log.audit_logs WHERE relation = 'place'::regclass ORDER BY id DESC LIMIT 1;
DELETE FROM seat WHERE place = 2; DELETE FROM place WHERE id = 2;
SELECT table_name, record_id, action_type, before, after FROM audit_log.restore_row('place', '2', 'takeback_rollback_1');
SELECT table_name, record_id, action_type, before, after FROM audit_log.restore_row('seat', '["2","1"]', 'takeback_rollback_1');
SELECT table_name, record_id, action_type, before, after FROM audit_log.restore_row('seat', '[ "2", "02" ]', 'takeback_rollback_1');
UPDATE doc SET id = 'moved' WHERE id = 'a';
SELECT record_id, action_type, before ->> 'id' AS before, after ->> 'id' AS after FROM audit_log.restore_row('doc', 'a', 'takeback_rollback_1');
INSERT INTO place VALUES (77, 77, '[770,780)');
SELECT table_name, record_id, action_type, before, after FROM audit_log.restore_row('place', '77', 'takeback_rollback_1');
SELECT * FROM different();
SELECT audit_log.restore_row('place', 'x', 'takeback_rollback_1');
SELECT audit_log.restore_row('seat', '2', 'takeback_rollback_1');
SELECT audit_log.restore_row('loose', '2', 'takeback_rollback_1');
SELECT audit_log.restore_row('copy_boss', '2', 'takeback_rollback_1');
SELECT audit_log.rollback_to('{part_b1}', 'takeback_rollback_1');
SELECT audit_log.rollback_to('{boss}', 'takeback_rollback_nowhere');
SELECT audit_log.rollback_to(NULL, 'takeback_rollback_1');
SELECT count(*) FROM audit_log.rollback_to('{}', 'takeback_rollback_1');

SELECT count(audit_log.drop_mark('takeback_rollback_1'));
DROP SCHEMA takeback_rollback CASCADE;
