--
-- Versioned tables get the right versions from what is taken back: one a record and transaction row,
-- chains unbroken, also where a value stood in between, or a row was written twice
--
CREATE SCHEMA takeback_versions;
SET search_path = takeback_versions;
SET client_min_messages = warning;
CREATE TABLE v (id int PRIMARY KEY, pos int NOT NULL UNIQUE, a text);
CREATE TABLE w (id int PRIMARY KEY, v int REFERENCES v ON DELETE CASCADE ON UPDATE CASCADE);
SELECT audit_log.enable('v', versioned => true), audit_log.enable('w', versioned => true);
-- chains: from one to the next, one open end, which says what the table says; ids in the order they were made
CREATE FUNCTION chains() RETURNS TABLE (tab text, id int, versions text, whole boolean, current boolean) LANGUAGE sql AS $$
    SELECT 'v', x.id, string_agg(operation_type || ':' || pos || coalesce(a, ''), ' ' ORDER BY transaction_id),
           bool_and(end_transaction_id IS NOT DISTINCT FROM next AND valid_to IS NOT DISTINCT FROM next_from AND (valid_to > valid_from) IS NOT FALSE),
           (SELECT t.pos || coalesce(t.a, '') FROM v t WHERE t.id = x.id) IS NOT DISTINCT FROM
           (array_agg(CASE WHEN operation_type <> 2 THEN pos || coalesce(a, '') END ORDER BY transaction_id DESC))[1]
      FROM (SELECT *, lead(transaction_id) OVER w AS next, lead(valid_from) OVER w AS next_from FROM v_version WINDOW w AS (PARTITION BY v_version.id ORDER BY transaction_id)) x
     GROUP BY x.id
    UNION ALL
    SELECT 'w', x.id, string_agg(operation_type || ':' || coalesce(x.v::text, '-'), ' ' ORDER BY transaction_id),
           bool_and(end_transaction_id IS NOT DISTINCT FROM next AND valid_to IS NOT DISTINCT FROM next_from AND (valid_to > valid_from) IS NOT FALSE),
           (SELECT coalesce(t.v::text, '-') FROM w t WHERE t.id = x.id) IS NOT DISTINCT FROM
           (array_agg(CASE WHEN operation_type <> 2 THEN coalesce(x.v::text, '-') END ORDER BY transaction_id DESC))[1]
      FROM (SELECT *, lead(transaction_id) OVER w AS next, lead(valid_from) OVER w AS next_from FROM w_version WINDOW w AS (PARTITION BY w_version.id ORDER BY transaction_id)) x
     GROUP BY x.id ORDER BY 1, 2
$$;
INSERT INTO v VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c');
INSERT INTO w VALUES (1, 1), (2, 1), (3, 2);
SELECT audit_log.mark('takeback_versions_1');
BEGIN; UPDATE v SET pos = -pos; UPDATE v SET pos = 4 + pos; COMMIT;
UPDATE v SET a = 'bad' WHERE id < 3;
UPDATE v SET id = 10 WHERE id = 1;
DELETE FROM v WHERE id = 2;
INSERT INTO v VALUES (1, 11, 'new');
SELECT tab, count(*) FROM audit_log.rollback_to('{v,w}', 'takeback_versions_1'), LATERAL (SELECT table_name::text AS tab) x GROUP BY 1 ORDER BY 1;
TABLE v ORDER BY id; TABLE w ORDER BY id;
SELECT * FROM chains();
SELECT max(transaction_id) AS back FROM audit_log.audit_logs WHERE table_schema = 'takeback_versions' \gset
-- each record one version from it
SELECT id, operation_type, pos, a FROM v_version WHERE transaction_id = :back ORDER BY id;
SELECT id, operation_type, v FROM w_version WHERE transaction_id = :back ORDER BY id;
SELECT count(*) FROM audit_log.undo_transaction(:back);
SELECT * FROM chains();
SELECT count(*) FROM audit_log.restore_row('v', '1', 'takeback_versions_1', dry_run => true);
SELECT * FROM audit_log.check() WHERE relation ~ 'takeback_versions';
SELECT audit_log.drop_mark('takeback_versions_1');
DROP SCHEMA takeback_versions CASCADE;
