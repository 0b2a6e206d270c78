--
-- history: every version of the record that bears, or last bore, a key; and diff
-- edge cases 7, 8, 18, 37
--
SET client_min_messages = warning;
CREATE SCHEMA time_history;
SET search_path = time_history;
CREATE TABLE mine (id int PRIMARY KEY, name text, attrs jsonb);
INSERT INTO mine VALUES (1, 'old', '{"a": {"b": 1}, "c": 2}'), (2, 'never changed', NULL);
SELECT audit_log.enable('mine');
CREATE FUNCTION versions(key text) RETURNS TABLE (v int, action text, user_id text, context jsonb, changeset jsonb, record jsonb) LANGUAGE sql AS $$
    SELECT version, action_type, user_id, context, changeset, record FROM audit_log.history('time_history.mine', key) ORDER BY version
$$;
SELECT audit_log.mark('start');
BEGIN;
SELECT audit_log.set_context('42', '{"why": "a test"}');
UPDATE mine SET attrs = jsonb_set(attrs, '{a,b}', '2') WHERE id = 1;
COMMIT;
UPDATE mine SET name = NULL WHERE id = 1;
SELECT * FROM versions('1');
SELECT * FROM versions('002');
SELECT * FROM versions('3');
-- through changes of the key, from either end
UPDATE mine SET id = 10 WHERE id = 1;
UPDATE mine SET id = 11, name = 'moved' WHERE id = 10;
INSERT INTO mine VALUES (10, 'another');
SELECT v, action, record ->> 'id' AS id, record ->> 'name' AS name FROM versions('11');
SELECT v, action, record ->> 'id' AS id FROM versions('1');
SELECT v, action, record ->> 'id' AS id, record ->> 'name' AS name FROM versions('10');
-- gone, and there again; a key that another takes
DELETE FROM mine WHERE id = 11;
SELECT v, action, changeset -> 'name' AS name, record ->> 'name' AS name FROM versions('11');
INSERT INTO mine VALUES (11, 'again');
SELECT v, action, record ->> 'name' AS name FROM versions('11');
DELETE FROM mine WHERE id = 11;
UPDATE mine SET id = 11 WHERE id = 10;
SELECT v, action, record ->> 'name' AS name FROM versions('11');
SELECT v, action, record ->> 'id' AS id FROM versions('1');
-- several changes in one transaction, one inside another
CREATE FUNCTION inner_change(k int) RETURNS text LANGUAGE sql AS $$ UPDATE time_history.mine SET name = 'inner' WHERE id = 20; SELECT 'outer' $$;
BEGIN;
INSERT INTO mine VALUES (20, 'new'), (21, 'new');
UPDATE mine SET name = inner_change(id) WHERE id = 21;
UPDATE mine SET name = name || '!' WHERE id IN (20, 21);
COMMIT;
SELECT v, action, changeset -> 'name' AS name FROM versions('20');
-- as in audit_logs
SELECT h.change_id = l.id AND h.transaction_id = l.transaction_id AND h.timestamp = l.timestamp AS same
  FROM audit_log.history('mine', '20') h JOIN audit_log.audit_logs l ON l.id = h.change_id;

-- the net change of every record
SELECT audit_log.mark('middle');
SELECT * FROM audit_log.diff('mine', 'start', 'middle') ORDER BY record_id::int;
UPDATE mine SET name = 'x' WHERE id = 20;
UPDATE mine SET name = 'inner!' WHERE id = 20;
INSERT INTO mine VALUES (30, 'in between');
DELETE FROM mine WHERE id = 30;
SELECT * FROM audit_log.diff('mine', 'middle', clock_timestamp());
DELETE FROM mine WHERE id = 21;
INSERT INTO mine VALUES (21, 'outer!');
UPDATE mine SET attrs = 'null' WHERE id = 2;
SELECT record_id, action_type, before -> 'attrs' AS before, after -> 'attrs' AS after, changes FROM audit_log.diff('mine', 'middle', clock_timestamp());
SELECT record_id, action_type, changes FROM audit_log.diff('mine', clock_timestamp(), 'middle');
SELECT count(*) FROM audit_log.diff('mine', 'middle'::text, 'middle'::text);
SELECT count(*) FROM audit_log.diff('mine', now(), 'infinity'::timestamptz);
SELECT * FROM audit_log.diff('mine', NULL::text, 'middle'::text);
-- in a scan as one by one
INSERT INTO mine SELECT g, 'many', '{}' FROM generate_series(1000, 1400) g;
SELECT audit_log.mark('many');
UPDATE mine SET name = CASE id % 2 WHEN 0 THEN name ELSE 'odd' END WHERE id >= 1000;
DELETE FROM mine WHERE id >= 1390;
SELECT action_type, changes, count(*) FROM audit_log.diff('mine', 'many', clock_timestamp()) GROUP BY 1, 2 ORDER BY 1;
SELECT action_type, count(*) FROM audit_log.diff('mine', 'middle', 'many') GROUP BY 1 ORDER BY 1;

-- a baseline is a version; what was not captured is not known, and said
SET client_min_messages = notice;
SELECT audit_log.enable('mine', baseline => true);
UPDATE mine SET name = 'after baseline' WHERE id = 2;
SELECT v, action, changeset, record FROM versions('2');
SET client_min_messages = warning;
BEGIN;
SELECT audit_log.pause('mine', 'bulk load');
UPDATE mine SET name = 'unseen' WHERE id = 2;
COMMIT;
UPDATE mine SET name = 'seen' WHERE id = 2;
SELECT v, action, changeset -> 'name' AS name, record FROM versions('2');
SELECT audit_log.disable('mine');
SELECT count(*) FROM versions('2');
-- it begins when the audit did under which the first change was made
CREATE TABLE twice (id int PRIMARY KEY, v int);
INSERT INTO twice VALUES (1, 1), (2, 1);
SELECT audit_log.enable('twice');
UPDATE twice SET v = 2 WHERE id = 1;
SELECT audit_log.disable('twice');
SELECT audit_log.enable('twice');
UPDATE twice SET v = v + 1;
SELECT id, version, timestamp >= lag(timestamp, 1, '-infinity') OVER (PARTITION BY id ORDER BY version) AS in_order, changeset
  FROM twice, audit_log.history('twice', id::text) ORDER BY id, version;
-- a masked column is its hash throughout, an excluded one absent
CREATE TABLE secrets (id int PRIMARY KEY, secret text, note text);
SELECT audit_log.enable('secrets', mask => '{secret}', exclude => '{note}');
INSERT INTO secrets VALUES (1, 'x', 'n');
UPDATE secrets SET secret = 'y';
SELECT version, changeset ->> 'secret' ~ '^\[(null|"[0-9a-f]{64}"), "[0-9a-f]{64}"\]$' AS hashes, record - 'secret' AS record, length(record ->> 'secret') FROM audit_log.history('secrets', '1');
CREATE TABLE masked_key (id int PRIMARY KEY, v text);
SELECT audit_log.enable('masked_key', mask => '{id}');
INSERT INTO masked_key VALUES (1, 'x');
UPDATE masked_key SET v = 'y' WHERE id = 1;
SELECT version, changeset -> 'v' AS v FROM audit_log.history('masked_key', '1');
SELECT audit_log.history('masked_key', NULL);
CREATE TABLE keyless (a int);
SELECT audit_log.enable('keyless');
SELECT * FROM audit_log.history('keyless', '1');
CREATE TABLE untracked (id int PRIMARY KEY);
SELECT * FROM audit_log.history('untracked', '1');
SET client_min_messages = error;
SELECT count(audit_log.drop_mark(name)) AS dropped FROM audit_log.marks;
DROP SCHEMA time_history CASCADE;
