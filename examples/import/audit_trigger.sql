-- What 2ndQuadrant's audit-trigger has logged (audit.logged_actions) into audit_log:
--     psql -v ON_ERROR_STOP=1 -f audit_trigger.sql
--
-- Before the tables are tracked here, as for supa_audit.sql. Its values are texts in an hstore: they are read through
-- the columns' types as they are now, so only of tables that are there; what it excluded is NULL. Of statements without
-- rows only TRUNCATE is imported. The texts of queries stay where they are.

CREATE TABLE IF NOT EXISTS audit_log_import (source text, original bigint, change_id bigint, UNIQUE (source, original, change_id));
COMMENT ON TABLE audit_log_import IS 'which entry (of SQLAlchemy-Continuum: transaction) of a former log has become which change of audit_log; NULL: it changed nothing';

-- values as the log writes them, whatever this session's settings are
SET timezone = 'UTC';
SET intervalstyle = 'postgres';
SET bytea_output = 'hex';
SET extra_float_digits = 1;

-- one INSERT for all tables, so that a transaction that changed several stays one
SELECT format($$
INSERT INTO audit_log_import (source, original, change_id)
SELECT 'audit.logged_actions', l.event_id,
       audit_log.import_change(
           table_name => l.name, action_type => l.action, changed_at => l.action_tstamp_clk,
           old_row => l.old_row, new_row => l.new_row,
           source => 'audit.logged_actions', source_transaction => l.transaction_id::text,
           started_at => l.action_tstamp_tx, db_user => l.session_user_name, application_name => l.application_name,
           client_addr => l.client_addr, client_port => l.client_port, xid => l.transaction_id::text::xid8)
  FROM (SELECT * FROM (%s) a ORDER BY max(a.event_id) OVER (PARTITION BY a.transaction_id), a.event_id) l$$,
       string_agg(format($$
        SELECT t.*, %L AS name,
               CASE WHEN t.action IN ('U', 'D') THEN to_jsonb(populate_record(NULL::%2$s, t.row_data)) END AS old_row,
               CASE t.action WHEN 'I' THEN to_jsonb(populate_record(NULL::%2$s, t.row_data))
                    WHEN 'U' THEN to_jsonb(populate_record(populate_record(NULL::%2$s, t.row_data), t.changed_fields)) END AS new_row
          FROM audit.logged_actions t
         WHERE t.relid = %3$s AND (t.row_data IS NOT NULL OR t.action = 'T')$$,
           format('%I.%I', n.nspname, c.relname), c.oid::regclass, c.oid), ' UNION ALL'))
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND EXISTS (SELECT FROM audit.logged_actions l WHERE l.relid = c.oid)
HAVING count(*) > 0 \gexec
