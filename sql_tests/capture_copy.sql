-- COPY, where no hook of the executor passes: also as the first statement of a
-- session, which loads the library, and in a transaction that goes on.
-- edge case 33
CREATE SCHEMA capture_copy;
CREATE TABLE capture_copy.t (id int PRIMARY KEY, v text);
CREATE TABLE capture_copy.p (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE capture_copy.p1 PARTITION OF capture_copy.p FOR VALUES IN (1);
CREATE TABLE capture_copy.p2 PARTITION OF capture_copy.p FOR VALUES IN (2);
SELECT audit_log.enable('capture_copy.t'), audit_log.enable('capture_copy.p');
CREATE VIEW capture_copy.log AS
  SELECT table_name AS "table", action_type AS action, record_id AS id, changes
    FROM audit_log.audit_logs WHERE table_schema = 'capture_copy' ORDER BY audit_logs.id;
\c -
COPY capture_copy.t FROM stdin;
1	one
2	two
\.
SELECT * FROM capture_copy.log;
\c -
COPY capture_copy.p FROM stdin;
1	2	into p2
2	1	into p1
3	2	into p2 again
\.
SELECT * FROM (SELECT * FROM capture_copy.log OFFSET 2) l ORDER BY id;
\c -
COPY capture_copy.p1 FROM stdin;
4	1	straight into p1
\.
SELECT * FROM capture_copy.log OFFSET 5;
\c -
COPY capture_copy.t FROM stdin;
3	three
1	twice
\.
SELECT count(*) FROM capture_copy.log;
\c -
BEGIN;
COPY capture_copy.t FROM stdin;
5	five
\.
SELECT * FROM capture_copy.log OFFSET 6;
SAVEPOINT s;
COPY capture_copy.t FROM stdin;
6	six
\.
ROLLBACK TO s;
COPY capture_copy.t FROM stdin WHERE id = 7;
6	filtered
7	seven
\.
COMMIT;
SELECT * FROM capture_copy.log OFFSET 6;
-- more rows than the buffer holds, some of them large
\c -
COPY capture_copy.t FROM PROGRAM 'for i in $(seq 1001 3500); do echo "$i	row $i"; done';
INSERT INTO capture_copy.t SELECT n, repeat('x', n * 100) FROM generate_series(4000, 9000, 500) n;
SELECT count(*), bool_and(changes ->> 'v' = t.v) AS same
  FROM capture_copy.log JOIN capture_copy.t ON "table" = 't' AND log.id = t.id::text;
SELECT count(*) FROM audit_log.rebuild(NULL::capture_copy.t) r JOIN capture_copy.t ON r *= t;
SET client_min_messages = warning;
DROP SCHEMA capture_copy CASCADE;
