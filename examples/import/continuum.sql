-- What SQLAlchemy-Continuum has kept (transaction, and a <table>_version for each table) into audit_log:
--     psql -v ON_ERROR_STOP=1 -f continuum.sql
--
-- Before the tables are tracked here, as for supa_audit.sql. To go on with version tables too, run
-- audit_log.enable(…, versioned => true) afterwards, which takes over the version table and its transactions under
-- their ids. A version becomes the change from the one before; where the first is an update, the record as it then was.

CREATE TABLE IF NOT EXISTS audit_log_import (source text, original bigint, change_id bigint, UNIQUE (source, original, change_id));
COMMENT ON TABLE audit_log_import IS 'which entry (of SQLAlchemy-Continuum: transaction) of a former log has become which change of audit_log; NULL: it changed nothing';

-- the ids that the log gives out are above those of Continuum's transactions, which keep theirs when a version table is taken over
DO $$ BEGIN PERFORM audit_log._pass_id((SELECT max(id) FROM transaction)); END $$;

-- values as the log writes them, whatever this session's settings are
SET timezone = 'UTC';
SET intervalstyle = 'postgres';
SET bytea_output = 'hex';
SET extra_float_digits = 1;

-- one INSERT for all tables, so that a transaction that changed several stays one
SELECT format($$
INSERT INTO audit_log_import (source, original, change_id)
SELECT i.* FROM (
    SELECT v.table_name || '_version', v.transaction_id,
           audit_log.import_change(
               table_name => v.table_name,
               action_type => CASE WHEN v.operation_type = 2 THEN 'DELETE' WHEN v.before IS NOT NULL THEN 'UPDATE'
                                   WHEN v.operation_type = 1 THEN 'SNAPSHOT' ELSE 'INSERT' END,
               changed_at => t.issued_at AT TIME ZONE 'UTC',
               old_row => v.before, new_row => CASE WHEN v.operation_type <> 2 THEN v.row END,
               source => 'transaction', source_transaction => t.id::text, user_id => t.user_id::text,
               context => jsonb_strip_nulls(jsonb_build_object('remote_addr', t.remote_addr))) AS change_id
      FROM (SELECT * FROM (%s) a
             -- what was gone already is not deleted again
             WHERE a.operation_type <> 2 OR a.before IS NOT NULL ORDER BY a.transaction_id, a.table_name, a.row::text) v
      JOIN transaction t ON t.id = v.transaction_id) i
 WHERE i.change_id IS NOT NULL$$,
       string_agg(format($$
        SELECT %1$L AS table_name, x.transaction_id, x.operation_type, x.row,
               CASE WHEN lag(x.operation_type) OVER w <> 2 THEN lag(x.row) OVER w END AS before
          FROM (SELECT v.*, (SELECT jsonb_object_agg(e.key, e.value) FROM jsonb_each(to_jsonb(v)) e WHERE e.key = ANY (%2$L::text[])) AS row
                  FROM %3$s v) x
        WINDOW w AS (PARTITION BY %4$s ORDER BY x.transaction_id)$$,
           format('%I.%I', n.nspname, c.relname),
           ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
           v.oid::regclass,
           (SELECT string_agg(format('x.%I', a.attname), ', ') FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
             WHERE i.indrelid = c.oid AND i.indisprimary)), ' UNION ALL'))
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_class v ON v.relnamespace = c.relnamespace AND v.relname = c.relname || '_version' AND v.relkind = 'r'
 WHERE c.relkind IN ('r', 'p')
   AND (SELECT count(*) = 2 FROM pg_attribute a WHERE a.attrelid = v.oid AND a.attname IN ('transaction_id', 'operation_type'))
HAVING count(*) > 0 \gexec
