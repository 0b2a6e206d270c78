\pset footer off
\pset null ''
\echo
\echo 'The history of Odisha (IN-OD, before 2023 IN-OR); changes cut off at the right'
SELECT to_char(timestamp, 'HH24:MI:SS.MS') AS time, action_type AS action, user_id, record_id AS record,
       left(changes::text, 50) AS changes
  FROM audit_log.audit_logs
 WHERE relation = 'subdivision'::regclass AND record_id IN ('IN-OR', 'IN-OD')
 ORDER BY id;

\echo 'One transaction, value by value'
SELECT c.action_type AS action, c.record_id AS record, c.column_name AS column,
       array_to_string(c.path, '.') AS path, left(c.old_value::text, 20) AS old, left(c.new_value::text, 52) AS new
  FROM audit_log.transactions t JOIN audit_log.column_changes c ON c.transaction_id = t.id
 WHERE t.user_id = 'aigerim'
 ORDER BY c.change_id, c.column_name, c.path;

\echo 'Who changed most'
SELECT coalesce(user_id, '(nobody named)') AS user_id, db_user, db_role, count(*) AS transactions,
       sum(changes) AS changes
  FROM audit_log.transactions
 GROUP BY user_id, db_user, db_role ORDER BY sum(changes) DESC, user_id LIMIT 10;

\echo 'What the log weighs'
ANALYZE audit_log.change, audit_log.transaction;
WITH part AS (
    SELECT p.relid, (SELECT count(*) FROM audit_log.change c WHERE c.tableoid = p.relid) AS rows
      FROM pg_partition_tree('audit_log.change') p WHERE p.isleaf
    UNION ALL
    SELECT 'audit_log.transaction', (SELECT count(*) FROM audit_log.transaction)),
size AS (
    SELECT relid, rows, pg_table_size(relid) AS heap, pg_indexes_size(relid) AS indexes
      FROM part WHERE rows > 0)
SELECT CASE WHEN grouping(relid) = 1 THEN 'together' ELSE relid::text END AS table,
       CASE WHEN grouping(relid) = 0 THEN sum(rows) END AS rows,
       pg_size_pretty(sum(heap)) AS heap, pg_size_pretty(sum(indexes)) AS indexes,
       round(sum(heap + indexes) / max(changes), 1) AS "bytes a change",
       CASE WHEN grouping(relid) = 1 THEN round(max(content), 1) END AS "of it record_id, changes"
  FROM size, (SELECT count(*) AS changes,
                     avg(coalesce(pg_column_size(record_id), 0) + coalesce(pg_column_size(c.changes), 0)) AS content
                FROM audit_log.change c) log GROUP BY ROLLUP (relid) ORDER BY relid;
