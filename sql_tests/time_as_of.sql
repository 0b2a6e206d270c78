--
-- as_of and its relatives: each state that a table was in, kept in a copy with a
-- mark, is what the log gives for that mark, image by image
-- edge cases 1, 3, 18, 19, 21, 24, 43, 45, 50, 53, 54, 60, 66, 115, 116
--
SET client_min_messages = warning;
SET timezone = 'Asia/Kolkata';
SET datestyle = 'ISO, DMY';
CREATE SCHEMA "time ""as"" of";
SET search_path = "time ""as"" of";
CREATE DOMAIN posint AS int CHECK (VALUE > 0);
CREATE TYPE pair AS (x int, y text);
CREATE TABLE "t ""a""" (gone int, "K 1" text, "k\2" posint, plain int, num numeric, f float8, ts timestamptz, j json, b jsonb,
    arr int[], p pair, by bytea, twice numeric GENERATED ALWAYS AS (num * 2) STORED, long text, PRIMARY KEY ("k\2", "K 1"));
ALTER TABLE "t ""a""" DROP COLUMN gone;
INSERT INTO "t ""a""" ("K 1", "k\2", plain, b) SELECT 'k' || g, g, g, '{"n": 1}' FROM generate_series(1, 6) g;
-- rows older than a column with a default
ALTER TABLE "t ""a""" ADD COLUMN late text DEFAULT 'there at once';
CREATE TABLE keyless (a int, n numeric, t text);
INSERT INTO keyless VALUES (1, 1.0, 'x'), (1, 1.0, 'x'), (1, 1.00, 'x'), (2, NULL, NULL);
CREATE TABLE part (id int, region int, v text, PRIMARY KEY (id, region)) PARTITION BY RANGE (region);
CREATE TABLE part_low (extra int, v text, id int NOT NULL, region int NOT NULL);
ALTER TABLE part_low DROP COLUMN extra;
ALTER TABLE part ATTACH PARTITION part_low FOR VALUES FROM (0) TO (10);
CREATE TABLE part_high PARTITION OF part FOR VALUES FROM (10) TO (100) PARTITION BY LIST (id);
CREATE TABLE part_high_d PARTITION OF part_high DEFAULT;
INSERT INTO part SELECT g, g, 'v' || g FROM generate_series(5, 14) g;
CREATE TABLE parent (id int PRIMARY KEY, v text);
CREATE TABLE child (extra int) INHERITS (parent);
INSERT INTO parent VALUES (1, 'parent'); INSERT INTO child VALUES (1, 'child', 2);
SELECT audit_log.enable(x) FROM unnest('{"\"t \"\"a\"\"\"", keyless, part, parent}'::text[]::regclass[]) x;

CREATE TABLE copies (mark text, name text, image text, n bigint);
CREATE PROCEDURE keep(mark text) LANGUAGE plpgsql AS $$
DECLARE
    name text;
BEGIN
    PERFORM audit_log.mark(mark);
    FOREACH name IN ARRAY ARRAY['"t ""a"""', 'keyless', 'part', 'ONLY parent'] LOOP
        EXECUTE format('INSERT INTO copies SELECT %L, %L, encode(record_send(r), ''hex''), count(*) FROM %s r GROUP BY 3', mark, name, name);
    END LOOP;
END $$;
-- what as_of has and the copy has not, or the other way round
CREATE FUNCTION wrong(mark text, name text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    result bigint;
BEGIN
    EXECUTE format('SELECT count(*) FROM (SELECT encode(record_send(r), ''hex'') AS image, count(*) AS n FROM audit_log.as_of(NULL::%s, %L) r GROUP BY 1) a '
        'FULL JOIN (SELECT image, n FROM copies WHERE mark = %L AND name = %L) c USING (image) WHERE a.n IS DISTINCT FROM c.n',
        replace(name, 'ONLY ', ''), mark, mark, name) INTO result;
    RETURN result;
END $$;
CREATE FUNCTION wrong(mark text) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(n || ' of ' || name, ', ') FROM (SELECT name, wrong(mark, name) AS n FROM (SELECT DISTINCT name FROM copies) x) y WHERE n <> 0
$$;

CALL keep('start');
UPDATE "t ""a""" SET num = 1.50, f = '-0', ts = '2026-01-01', j = '{"a" :  1}', b = '{"n": {"m": [1]}, "o": null}', arr = '[2:3]={1,NULL}', p = (1, NULL), by = '\x00ff'
 WHERE plain < 4;
CALL keep('values');
UPDATE "t ""a""" SET num = 'NaN', f = 'infinity', ts = '-infinity', j = 'null', b = 'null', arr = '{}', p = NULL, long = repeat(md5('x'), 5000) WHERE plain < 3;
UPDATE "t ""a""" SET b = b || '{"n": {"m": [2]}, "$pg": 1}' WHERE plain = 3;
CALL keep('odd values');
UPDATE "t ""a""" SET b = b - 'n', late = NULL WHERE plain IN (3, 4);
UPDATE "t ""a""" SET num = 1.5, b = '{"$pg": "x"}' WHERE plain = 3;
-- keys: a change, a swap, a chain, gone and there again
UPDATE "t ""a""" SET "K 1" = 'new' WHERE plain = 5;
CALL keep('keys 1');
UPDATE "t ""a""" SET "k\2" = "k\2" + 100, "K 1" = "K 1" || '"' WHERE plain = 5;
INSERT INTO "t ""a""" ("K 1", "k\2", plain) VALUES ('k5', 5, 55), ('new', 5, 56);
CALL keep('keys 2');
BEGIN;
UPDATE "t ""a""" SET "k\2" = 1000 WHERE plain = 55;
UPDATE "t ""a""" SET "K 1" = 'k5' WHERE plain = 56;
UPDATE "t ""a""" SET "k\2" = 5, "K 1" = 'new' WHERE plain = 55;
COMMIT;
DELETE FROM "t ""a""" WHERE plain IN (1, 2);
INSERT INTO "t ""a""" ("K 1", "k\2", plain) VALUES ('k1', 1, 11);
UPDATE keyless SET n = 1.0 WHERE n::text = '1.00';
CALL keep('keys 3');
DELETE FROM keyless WHERE ctid = (SELECT ctid FROM keyless WHERE t = 'x' LIMIT 1);
INSERT INTO keyless VALUES (2, NULL, NULL), (3, 'Infinity', '');
UPDATE keyless SET t = 'y' WHERE a = 2;
UPDATE part SET region = 20 - region, v = v || '!' WHERE id % 2 = 0;
UPDATE part SET id = id + 1000 WHERE id = 7;
CALL keep('moved');
UPDATE part SET region = 20 - region WHERE id % 2 = 0;
DELETE FROM part_high_d WHERE id = 11;
TRUNCATE part_low;
TRUNCATE keyless;
INSERT INTO part VALUES (5, 5, 'again');
UPDATE ONLY parent SET v = 'changed';
UPDATE child SET v = 'child changed';
CALL keep('truncated');
TRUNCATE "t ""a""";
-- one transaction, statements inside statements
CREATE FUNCTION nested(k int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    UPDATE "time ""as"" of".part SET v = v || 'n' WHERE id = k;
    RETURN k;
END $$;
BEGIN;
INSERT INTO part SELECT g, 2, 'nest' FROM generate_series(30, 33) g;
UPDATE part SET v = v || nested(id + 1)::text WHERE id IN (30, 32);
CALL keep('within');
DELETE FROM part WHERE id IN (32, 33) AND nested(5) > 0;
INSERT INTO part VALUES (33, 2, 'back');
COMMIT;
CALL keep('end');
SELECT mark, count(DISTINCT name) AS tables, sum(n) AS rows, wrong(mark) FROM copies GROUP BY mark ORDER BY mark COLLATE "C";

-- virtual generated columns, where the server has them, are computed of what the others were
CREATE TABLE generated (id int PRIMARY KEY, a int, stored int GENERATED ALWAYS AS (a * 2) STORED);
DO $$
BEGIN
    IF current_setting('server_version_num')::int >= 180000 THEN
        EXECUTE 'ALTER TABLE generated ADD virtual int GENERATED ALWAYS AS (a * 3) VIRTUAL';
    ELSE
        EXECUTE 'ALTER TABLE generated ADD virtual int GENERATED ALWAYS AS (a * 3) STORED';
    END IF;
END
$$;
SELECT audit_log.enable('generated');
INSERT INTO generated VALUES (1, 1), (2, 2), (3, 3);
SELECT audit_log.mark('generated');
UPDATE generated SET a = 10 WHERE id = 1;
DELETE FROM generated WHERE id = 2;
SELECT * FROM audit_log.as_of(NULL::generated, 'generated') ORDER BY id;

-- by time: whole transactions, by their last change
SELECT clock_timestamp() AS moment \gset
SELECT count(*) = (SELECT count(*) FROM part) AS same FROM audit_log.as_of(NULL::part, :'moment');
SELECT count(*) = (SELECT count(*) FROM part) AS same FROM audit_log.as_of(NULL::part, 'infinity');
BEGIN;
UPDATE part SET v = 'first' WHERE id = 5;
SELECT clock_timestamp() AS middle \gset
UPDATE part SET v = 'second' WHERE id = 5;
COMMIT;
SELECT v FROM audit_log.as_of(NULL::part, :'middle') WHERE id = 5;
SELECT v FROM audit_log.as_of(NULL::part, clock_timestamp()) WHERE id = 5;
-- of another table: it is still the same transaction
BEGIN;
UPDATE part SET v = 'third' WHERE id = 5;
SELECT clock_timestamp() AS middle \gset
INSERT INTO keyless VALUES (9);
COMMIT;
SELECT v FROM audit_log.as_of(NULL::part, :'middle'::timestamptz) WHERE id = 5;
-- and so is one under several authors
BEGIN;
UPDATE part SET v = 'fourth' WHERE id = 5;
SELECT clock_timestamp() AS middle \gset
SET LOCAL audit_log.user_id = 'another';
INSERT INTO keyless VALUES (10);
COMMIT;
SELECT v FROM audit_log.as_of(NULL::part, :'middle') WHERE id = 5;

-- JSON: every column, NULL as null, values as the log writes them
SELECT r FROM audit_log.rows_as_of('"t ""a"""', 'start') r ORDER BY r ->> 'plain' LIMIT 2;
SELECT audit_log.row_as_of('"t ""a"""', '["5", "k5"]', 'keys 1') AS k5, audit_log.row_as_of('"t ""a"""', '[5,"new"]', 'keys 1') ->> 'plain' AS new,
       audit_log.row_as_of('"t ""a"""', ' [ "05" , "k5" ] ', 'keys 2') ->> 'plain' AS k5_2, audit_log.row_as_of('"t ""a"""', '["105", "new\""]', 'keys 2') ->> 'plain' AS moved;
SELECT audit_log.row_as_of('part', '["7", "7"]', 'start') AS then, audit_log.row_as_of('part', '["7", "7"]', 'moved') AS moved,
       audit_log.row_as_of('part', '["1007", "7"]', 'moved') AS moved_to, audit_log.row_as_of('part', '["1007", "7"]', 'start') AS not_yet;
SELECT audit_log.row_as_of('keyless', '1', 'start');
SELECT audit_log.row_as_of('part', '7', 'start');
SELECT audit_log.row_as_of('part', '["x", "y"]', 'start');
SELECT audit_log.row_as_of('part', NULL, 'start');

-- keys whose values are told apart without writing them
CREATE TABLE kinds (o oid, i int, s smallint, b boolean, d date, t timestamptz, u uuid, c varchar(9), v int, PRIMARY KEY (o, i, s, b, d, t, u, c));
INSERT INTO kinds SELECT 4294967295 - g, -g, -g, g % 2 = 0, '-infinity', '0044-03-15 BC', md5(g::text)::uuid, 'k' || g, g FROM generate_series(0, 5) g;
SELECT audit_log.enable('kinds');
SELECT audit_log.mark('kinds');
UPDATE kinds SET v = -v WHERE i < -2;
DELETE FROM kinds WHERE i = -5;
SELECT o, i, v FROM audit_log.as_of(NULL::kinds, 'kinds') ORDER BY v;

-- record_id(row), and queries for views
SELECT audit_log.record_id(p) FROM part p WHERE id = 5;
SELECT audit_log.record_id(r) FROM audit_log.as_of(NULL::"t ""a""", 'keys 2') r WHERE plain = 5;
SELECT audit_log.record_id(NULL::part), audit_log.record_id(k) FROM keyless k LIMIT 1;
SELECT audit_log.record_id(1);
SELECT audit_log.as_of_query('"t ""a"""', 'keys 1');
SELECT audit_log.as_of_query('part', '2026-01-01 00:00:00+05:30');
SELECT format('CREATE VIEW was AS %s', audit_log.as_of_query('"t ""a"""', 'keys 1')) \gexec
SELECT count(*) FROM was;

-- two moments in one query; a cursor, which sees what its own snapshot does
SELECT a.id, a.v, b.v FROM audit_log.as_of(NULL::part, 'start') a JOIN audit_log.as_of(NULL::part, 'moved') b USING (id) WHERE a.v <> b.v ORDER BY id;
BEGIN;
DECLARE c CURSOR FOR SELECT id, v FROM audit_log.as_of(NULL::part, 'within') ORDER BY id;
UPDATE part SET v = 'meanwhile';
FETCH 2 FROM c;
ROLLBACK;

SET client_min_messages = error;
SELECT count(audit_log.drop_mark(name)) AS dropped FROM audit_log.marks;
DROP SCHEMA "time ""as"" of" CASCADE;
