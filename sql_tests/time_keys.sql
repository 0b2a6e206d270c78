-- Records are found by the id that the log has, of whatever type their key is: arrays and composite types are
-- JSON there
CREATE SCHEMA time_keys;
SET search_path = time_keys, public;
SET client_min_messages = warning;
CREATE TYPE place AS (a int, b text);
CREATE DOMAIN numbers AS int[];
CREATE TABLE of_array (id int[] PRIMARY KEY, v int);
CREATE TABLE of_domain (id numbers PRIMARY KEY, v int);
CREATE TABLE of_composite (id place PRIMARY KEY, v int);
CREATE TABLE of_composites (id place[] PRIMARY KEY, v int);
CREATE TABLE of_jsonb (id jsonb PRIMARY KEY, v int);
CREATE TABLE of_range (id int4range PRIMARY KEY, v int);
CREATE TABLE of_several (a int[], b place, c jsonb, v int, PRIMARY KEY (c, a, b));
CREATE VIEW tables AS SELECT c.oid::regclass AS t FROM pg_class c WHERE c.relnamespace = 'time_keys'::regnamespace AND c.relkind = 'r';
SELECT count(audit_log.enable(t)) AS enabled FROM tables;
INSERT INTO of_array VALUES ('{1,2}', 1), ('{{1,2},{3,4}}', 1), ('[2:3]={7,8}', 1), ('{}', 1), ('{NULL,1}', 1);
INSERT INTO of_domain VALUES ('{1,2}', 1);
INSERT INTO of_composite VALUES ((1, 'x'), 1), ((NULL, 'y "q"'), 1);
INSERT INTO of_composites VALUES (ARRAY[(1, 'x'), (2, NULL)]::place[], 1);
INSERT INTO of_jsonb VALUES ('"x"', 1), ('[1, 2]', 1), ('null', 1), ('{"$pg": "x"}', 1), ('7', 1), ('"7"', 1);
INSERT INTO of_range VALUES ('[1,5)', 1), ('empty', 1);
INSERT INTO of_several VALUES ('{1}', (2, 'z'), '{"k": [1]}', 1);
SELECT audit_log.mark('time_keys') IS NULL AS none;
UPDATE of_array SET v = 2; UPDATE of_domain SET v = 2; UPDATE of_composite SET v = 2; UPDATE of_composites SET v = 2;
UPDATE of_jsonb SET v = 2; UPDATE of_range SET v = 2; UPDATE of_several SET v = 2;
SELECT a.table_name, a.record_id,
       (SELECT string_agg(h.action_type || ' ' || (h.record ->> 'v'), ', ' ORDER BY h.version) FROM audit_log.history(a.relation, a.record_id) h) AS history,
       audit_log.row_as_of(a.relation, a.record_id, 'time_keys') = a.changes AS row_then,
       audit_log.report(a.relation, a.record_id) LIKE '%change ' || a.id || ' %' AS reported,
       (SELECT string_agg(r.action_type || ' ' || (r.after ->> 'v'), ', ') FROM audit_log.restore_row(a.relation, a.record_id, 'time_keys', dry_run => true) r) AS restored
  FROM audit_log.audit_logs a
 WHERE a.table_schema = 'time_keys' AND a.action_type = 'INSERT' ORDER BY a.id;
-- and by what the types read
SELECT audit_log.row_as_of('of_array', '{1, 2}', 'time_keys'), audit_log.row_as_of('of_composite', '( 1,x)', 'time_keys'),
       audit_log.row_as_of('of_composites', '{"(1,x)","(2,)"}', 'time_keys'), audit_log.row_as_of('of_several', '["{\"k\":[1]}", "{1}", "(2,z)"]', 'time_keys');
SELECT audit_log.row_as_of('of_composite', '{"a": 1, "c": 2}', 'time_keys');
SELECT audit_log.drop_mark('time_keys') IS NULL AS none;
SET client_min_messages = error;
DROP SCHEMA time_keys CASCADE;
