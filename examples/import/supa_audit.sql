-- What supa_audit has logged (audit.record_version) into audit_log:   psql -v ON_ERROR_STOP=1 -f supa_audit.sql
--
-- Before the tables are tracked here: run it, disable the other's triggers and run audit_log.enable(), in one
-- transaction with LOCK TABLE if they are being written. Tables that were renamed since are found by their OID, those
-- that are gone are imported under the name they had. There is no user in that log, and its ts is the start of the
-- transaction, by which changes of one transaction are recognised.

CREATE TABLE IF NOT EXISTS audit_log_import (source text, original bigint, change_id bigint, UNIQUE (source, original, change_id));
COMMENT ON TABLE audit_log_import IS 'which entry (of SQLAlchemy-Continuum: transaction) of a former log has become which change of audit_log; NULL: it changed nothing';

INSERT INTO audit_log_import (source, original, change_id)
SELECT 'audit.record_version', r.id,
       audit_log.import_change(
           table_name => r.name, action_type => r.op::text, changed_at => r.ts,
           old_row => r.old_record, new_row => r.record,
           source => 'audit.record_version', source_transaction => r.ts::text)
  FROM (SELECT v.*, format('%I.%I', coalesce(n.nspname, v.table_schema), coalesce(c.relname, v.table_name)) AS name
          FROM audit.record_version v
          LEFT JOIN pg_class c ON c.oid = v.table_oid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
         -- a transaction's changes one after the other, the transactions as they ended
         ORDER BY max(v.id) OVER (PARTITION BY v.ts), v.id) r;
