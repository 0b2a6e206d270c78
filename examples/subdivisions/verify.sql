-- Rebuilds every tracked table from the log alone, and compares image by image: both sides in the
-- order of their images, so that equal sets pair up row by row, duplicates of a table without key too.
\set ON_ERROR_STOP on
\pset footer off
CREATE TEMPORARY TABLE verdict (relation regclass, key text, rows bigint, rebuilt bigint, equal bigint);
SELECT format($$
    INSERT INTO verdict
    SELECT %2$L, CASE WHEN EXISTS (SELECT FROM pg_index WHERE indrelid = %2$L::regclass AND indisunique)
                      THEN 'yes' ELSE 'none' END,
           count(real.row), count(made.row),
           count(*) FILTER (WHERE real.row OPERATOR(pg_catalog.*=) made.row)
      FROM (SELECT t AS row, row_number() OVER (ORDER BY t USING OPERATOR(pg_catalog.*<)) AS n
              FROM %1$s t) real
      FULL JOIN (SELECT r AS row, row_number() OVER (ORDER BY r USING OPERATOR(pg_catalog.*<)) AS n
              FROM audit_log.rebuild(NULL::%1$s) r) made USING (n)$$, relation, relation::text)
  FROM audit_log.tracked_tables WHERE relation IS NOT NULL ORDER BY relation::text \gexec
\echo 'Every tracked table, rebuilt from the log and compared row by row'
SELECT *, CASE WHEN rows = rebuilt AND rows = equal THEN 'the same' ELSE 'DIFFERENT' END AS verdict
  FROM verdict ORDER BY relation::text;
DO $$
BEGIN
    IF (SELECT count(*) FROM verdict) <> current_setting('demo.tables')::int THEN
        RAISE EXCEPTION '% tables are compared, not %', (SELECT count(*) FROM verdict), current_setting('demo.tables');
    END IF;
    IF EXISTS (SELECT FROM verdict WHERE rows <> rebuilt OR rows <> equal) THEN
        RAISE EXCEPTION 'the log and the tables differ';
    END IF;
    IF EXISTS (SELECT FROM audit_log.check()) THEN
        RAISE EXCEPTION 'audit_log.check() names a problem: %', (SELECT string_agg(k::text, '; ') FROM audit_log.check() k);
    END IF;
END
$$;
