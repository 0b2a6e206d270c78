/* audit_log 1.2: time travel and taking things back */

\echo Use "ALTER EXTENSION audit_log UPDATE" to load this file. \quit

/*
 * Sessions look the version up again when this table's catalog row changes: an
 * older library refuses changes from here on (HINT: connect again).
 */
REVOKE ALL ON audit_log.tracked_table FROM PUBLIC;

/* -------------------------------------------------------------- taking back */

/* undo_transaction() takes a row with those that continue it */
CREATE INDEX transaction_continues_idx ON audit_log.transaction (continues) WHERE continues IS NOT NULL;

CREATE FUNCTION audit_log.undo_change(change_id bigint,
        dry_run boolean DEFAULT false, force boolean DEFAULT false, user_triggers boolean DEFAULT true,
        OUT table_name regclass, OUT record_id text, OUT action_type text, OUT before jsonb, OUT after jsonb, OUT conflict text)
    RETURNS SETOF record
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_undo_change';
COMMENT ON FUNCTION audit_log.undo_change(bigint, boolean, boolean, boolean) IS
    'takes one change back; returns what it writes, or with dry_run would write. Refuses where something has changed since, unless force';

CREATE FUNCTION audit_log.undo_transaction(transaction_id bigint,
        tables regclass[] DEFAULT NULL, record_ids text[] DEFAULT NULL, same_xid boolean DEFAULT false,
        dry_run boolean DEFAULT false, force boolean DEFAULT false, user_triggers boolean DEFAULT true,
        OUT table_name regclass, OUT record_id text, OUT action_type text, OUT before jsonb, OUT after jsonb, OUT conflict text)
    RETURNS SETOF record
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_undo_transaction';
COMMENT ON FUNCTION audit_log.undo_transaction(bigint, regclass[], text[], boolean, boolean, boolean, boolean) IS
    'takes the changes of a transaction back, with those of the rows that continue it; same_xid: of the whole database transaction; returns what it writes, or with dry_run would write. Refuses where something has changed since, unless force';

CREATE FUNCTION audit_log.restore_row(table_name regclass, record_id text, moment timestamptz,
        dry_run boolean DEFAULT false, force boolean DEFAULT false, user_triggers boolean DEFAULT true,
        OUT table_name regclass, OUT record_id text, OUT action_type text, OUT before jsonb, OUT after jsonb, OUT conflict text)
    RETURNS SETOF record
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_restore_row';
CREATE FUNCTION audit_log.restore_row(table_name regclass, record_id text, moment text,
        dry_run boolean DEFAULT false, force boolean DEFAULT false, user_triggers boolean DEFAULT true,
        OUT table_name regclass, OUT record_id text, OUT action_type text, OUT before jsonb, OUT after jsonb, OUT conflict text)
    RETURNS SETOF record
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_restore_row';
COMMENT ON FUNCTION audit_log.restore_row(regclass, text, timestamptz, boolean, boolean, boolean) IS
    'brings one record back to what it was then: writes, inserts or deletes its row; returns what it writes, or with dry_run would write';
COMMENT ON FUNCTION audit_log.restore_row(regclass, text, text, boolean, boolean, boolean) IS
    'brings one record back to what it was at a mark, or at a timestamp in text; returns what it writes, or with dry_run would write';

CREATE FUNCTION audit_log.rollback_to(tables regclass[], moment timestamptz,
        dry_run boolean DEFAULT false, force boolean DEFAULT false, user_triggers boolean DEFAULT true,
        OUT table_name regclass, OUT record_id text, OUT action_type text, OUT before jsonb, OUT after jsonb, OUT conflict text)
    RETURNS SETOF record
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_rollback_to';
CREATE FUNCTION audit_log.rollback_to(tables regclass[], moment text,
        dry_run boolean DEFAULT false, force boolean DEFAULT false, user_triggers boolean DEFAULT true,
        OUT table_name regclass, OUT record_id text, OUT action_type text, OUT before jsonb, OUT after jsonb, OUT conflict text)
    RETURNS SETOF record
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_rollback_to';
COMMENT ON FUNCTION audit_log.rollback_to(regclass[], timestamptz, boolean, boolean, boolean) IS
    'brings tables back to what they were then; nobody else writes them meanwhile. Returns what it writes, or with dry_run would write';
COMMENT ON FUNCTION audit_log.rollback_to(regclass[], text, boolean, boolean, boolean) IS
    'brings tables back to what they were at a mark, or at a timestamp in text; nobody else writes them meanwhile. Returns what it writes, or with dry_run would write';

CREATE FUNCTION audit_log._taking_back(OUT pid integer, OUT phase text, OUT rows_done bigint, OUT rows_total bigint)
    RETURNS SETOF record
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_taking_back';
COMMENT ON FUNCTION audit_log._taking_back() IS 'how far sessions of this database have come in taking back, where the caller may see that';
CREATE VIEW audit_log.taking_back WITH (security_barrier) AS
    SELECT b.pid, b.phase, b.rows_done, b.rows_total FROM audit_log._taking_back() b;
COMMENT ON VIEW audit_log.taking_back IS 'sessions that are taking something back now, and how far they have come';
COMMENT ON COLUMN audit_log.taking_back.pid IS 'process id of the session';
COMMENT ON COLUMN audit_log.taking_back.phase IS 'reading the log, reading rows, looking for conflicts, writing rows, firing triggers';
COMMENT ON COLUMN audit_log.taking_back.rows_done IS 'rows of this phase that are done';
COMMENT ON COLUMN audit_log.taking_back.rows_total IS 'rows that this phase has in all, NULL where that is not known';
