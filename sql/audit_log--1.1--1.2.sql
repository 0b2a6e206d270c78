/* audit_log 1.2: time travel and taking things back */

\echo Use "ALTER EXTENSION audit_log UPDATE" to load this file. \quit

/*
 * Sessions look the version up again when this table's catalog row changes: an
 * older library refuses changes from here on (HINT: connect again).
 */
REVOKE ALL ON audit_log.tracked_table FROM PUBLIC;

/* what the end of the script has to close: all that is not there yet */
SELECT pg_catalog.set_config('audit_log_update.before', pg_catalog.array_agg(p.oid)::text, true)
  FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'audit_log'::pg_catalog.regnamespace;

/* ============================================================ reading: marks */

/*
 * The first transaction row that is written in another cluster than those
 * before it, or the first mark made there, writes a row here (src/cluster.c).
 * No key: the row must be possible whatever two sessions do at once.
 */
CREATE TABLE audit_log.cluster (
    system_identifier bigint NOT NULL,
    timeline integer NOT NULL,
    first_transaction_id bigint NOT NULL,
    first_change_id bigint NOT NULL,
    timestamp timestamptz NOT NULL
);
ALTER TABLE audit_log.cluster REPLICA IDENTITY FULL;
COMMENT ON TABLE audit_log.cluster IS 'the clusters in which the log was written: xids mean something only in their own';
COMMENT ON COLUMN audit_log.cluster.system_identifier IS 'of the cluster, as pg_control_system() shows it';
COMMENT ON COLUMN audit_log.cluster.timeline IS 'of the cluster: a copy that was promoted has another';
COMMENT ON COLUMN audit_log.cluster.first_transaction_id IS 'transaction rows from this id on were written here, until the next row''s';
COMMENT ON COLUMN audit_log.cluster.first_change_id IS 'changes and states from this id on were written here';
COMMENT ON COLUMN audit_log.cluster.timestamp IS 'clock time when noted';

CREATE TABLE audit_log.mark (
    name text PRIMARY KEY,
    comment text,
    timestamp timestamptz NOT NULL,
    snapshot pg_catalog.pg_snapshot NOT NULL,
    xid pg_catalog.xid8 NOT NULL,
    command integer NOT NULL,
    transaction_id bigint NOT NULL,
    change_id bigint NOT NULL,
    db_user text NOT NULL
);
COMMENT ON TABLE audit_log.mark IS 'named moments: what a snapshot saw';
COMMENT ON COLUMN audit_log.mark.name IS 'what functions that take a moment are given';
COMMENT ON COLUMN audit_log.mark.comment IS 'what the mark is for';
COMMENT ON COLUMN audit_log.mark.timestamp IS 'clock time when it was made';
COMMENT ON COLUMN audit_log.mark.snapshot IS 'of the marking statement, under REPEATABLE READ of the transaction';
COMMENT ON COLUMN audit_log.mark.xid IS 'the transaction that made it, which its own snapshot does not tell of';
COMMENT ON COLUMN audit_log.mark.command IS 'that transaction''s changes of earlier commands are in the mark';
COMMENT ON COLUMN audit_log.mark.transaction_id IS 'the highest id of a transaction row given out by then';
COMMENT ON COLUMN audit_log.mark.change_id IS 'the highest id of a change given out by then';
COMMENT ON COLUMN audit_log.mark.db_user IS 'the role that made it';

SELECT audit_log._add_guard(t) FROM pg_catalog.unnest(ARRAY['audit_log.cluster', 'audit_log.mark']::pg_catalog.regclass[]) t;

/*
 * The transactions that a mark's snapshot did not see, and those of an xid, are
 * found by a summary of the ranges of pages: nearly free to keep, since xids
 * ascend with the rows.
 */
CREATE OPERATOR FAMILY audit_log.xid8_minmax_ops USING brin;
CREATE OPERATOR CLASS audit_log.xid8_minmax_ops FOR TYPE pg_catalog.xid8 USING brin FAMILY audit_log.xid8_minmax_ops AS
    OPERATOR 1 pg_catalog.<, OPERATOR 2 pg_catalog.<=, OPERATOR 3 pg_catalog.=,
    OPERATOR 4 pg_catalog.>=, OPERATOR 5 pg_catalog.>,
    FUNCTION 1 pg_catalog.brin_minmax_opcinfo(internal),
    FUNCTION 2 pg_catalog.brin_minmax_add_value(internal, internal, internal, internal),
    FUNCTION 3 pg_catalog.brin_minmax_consistent(internal, internal, internal),
    FUNCTION 4 pg_catalog.brin_minmax_union(internal, internal, internal);
COMMENT ON OPERATOR FAMILY audit_log.xid8_minmax_ops USING brin IS 'least and greatest xid of a range of pages';
COMMENT ON OPERATOR CLASS audit_log.xid8_minmax_ops USING brin IS 'least and greatest xid of a range of pages';
/*
 * Making it waits for writers, and keeps others waiting, so not for long: without
 * it all is as it should be, but slower.
 */
CREATE FUNCTION audit_log._index_transactions() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        timeout text := current_setting('lock_timeout');
    BEGIN
        IF to_regclass('audit_log.transaction_xid_idx') IS NOT NULL THEN
            RETURN;
        END IF;
        PERFORM set_config('lock_timeout', '2s', true);
        CREATE INDEX transaction_xid_idx ON audit_log.transaction USING brin (xid audit_log.xid8_minmax_ops) WITH (autosummarize);
        PERFORM set_config('lock_timeout', timeout, true);
    EXCEPTION WHEN lock_not_available THEN
        RAISE NOTICE 'audit_log: index audit_log.transaction_xid_idx is left for later: the lock was not to be had'
            USING HINT = 'CALL audit_log.maintain() makes it.';
    END
    $$;
COMMENT ON FUNCTION audit_log._index_transactions() IS 'makes the index of audit_log.transaction by xid, if it can be made at once';
SELECT audit_log._index_transactions();

CREATE FUNCTION audit_log._note_cluster() RETURNS void
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_note_cluster';
COMMENT ON FUNCTION audit_log._note_cluster() IS 'notes this cluster in a log that was written before clusters were noted';
SELECT audit_log._note_cluster() FROM audit_log.transaction_id_seq s WHERE s.is_called;

CREATE FUNCTION audit_log._committed_at(xid pg_catalog.xid8) RETURNS timestamptz
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'audit_log_committed_at';
COMMENT ON FUNCTION audit_log._committed_at(xid8) IS 'when a transaction of this cluster was committed, NULL where that is not kept (track_commit_timestamp)';

CREATE FUNCTION audit_log.mark(name text, comment text DEFAULT NULL) RETURNS void
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_mark';
COMMENT ON FUNCTION audit_log.mark(text, text) IS
    'names this moment, exactly: what the statement''s snapshot sees (under REPEATABLE READ the transaction''s), and this transaction''s changes by earlier commands. Locks nothing';

CREATE FUNCTION audit_log._drop_mark(caller oid, name text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        maker text;
    BEGIN
        SELECT m.db_user INTO maker FROM audit_log.mark m WHERE m.name = $2;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'undefined_object',
                MESSAGE = format('mark %s does not exist', coalesce(quote_ident($2), 'NULL')),
                HINT = 'SELECT * FROM audit_log.marks shows those that do.';
        END IF;
        IF maker <> pg_get_userbyid(caller) AND NOT audit_log._is_keeper(caller) THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
                MESSAGE = format('mark %I is not yours to drop', $2),
                DETAIL = format('Role %I has made it.', maker);
        END IF;
        DELETE FROM audit_log.mark m WHERE m.name = $2;
    END
    $$;
COMMENT ON FUNCTION audit_log._drop_mark(oid, text) IS 'drop_mark(), with the caller''s role';

CREATE FUNCTION audit_log.drop_mark(name text) RETURNS void
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.drop_mark(text) IS 'forgets a mark: for whoever made it, superusers and the installing role';

CREATE VIEW audit_log.marks WITH (security_barrier) AS
    SELECT m.name, m.comment, m.timestamp, m.db_user FROM audit_log.mark m ORDER BY m.timestamp, m.name;
COMMENT ON VIEW audit_log.marks IS 'the marks there are, oldest first';
COMMENT ON COLUMN audit_log.marks.name IS 'what functions that take a moment are given';
COMMENT ON COLUMN audit_log.marks.comment IS 'what the mark is for';
COMMENT ON COLUMN audit_log.marks.timestamp IS 'clock time when it was made';
COMMENT ON COLUMN audit_log.marks.db_user IS 'who made it';

/* ====================================================== reading: time travel */

CREATE FUNCTION audit_log.record_id(anyelement) RETURNS text
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_record_id';
COMMENT ON FUNCTION audit_log.record_id(anyelement) IS
    'the record_id of a row of a tracked table: SELECT audit_log.record_id(m) FROM mine m. NULL for a table without key';

CREATE FUNCTION audit_log.as_of(anyelement, moment timestamptz) RETURNS SETOF anyelement
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_as_of';
CREATE FUNCTION audit_log.as_of(anyelement, moment text) RETURNS SETOF anyelement
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_as_of';
COMMENT ON FUNCTION audit_log.as_of(anyelement, timestamptz) IS
    'a table''s rows as they were: as_of(NULL::mine, ''2026-01-01''). Error 55000 names what stands in the way';
COMMENT ON FUNCTION audit_log.as_of(anyelement, text) IS
    'a table''s rows as they were at a mark, or at a timestamp in text. Error 55000 names what stands in the way';

CREATE FUNCTION audit_log.rows_as_of(table_name regclass, moment timestamptz) RETURNS SETOF jsonb
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_rows_as_of';
CREATE FUNCTION audit_log.rows_as_of(table_name regclass, moment text) RETURNS SETOF jsonb
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_rows_as_of';
COMMENT ON FUNCTION audit_log.rows_as_of(regclass, timestamptz) IS 'a table''s rows as they were, as JSON objects';
COMMENT ON FUNCTION audit_log.rows_as_of(regclass, text) IS 'a table''s rows as they were at a mark, or at a timestamp in text, as JSON objects';

CREATE FUNCTION audit_log.row_as_of(table_name regclass, record_id text, moment timestamptz) RETURNS jsonb
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_row_as_of';
CREATE FUNCTION audit_log.row_as_of(table_name regclass, record_id text, moment text) RETURNS jsonb
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_row_as_of';
COMMENT ON FUNCTION audit_log.row_as_of(regclass, text, timestamptz) IS 'the row that bore this key then, as a JSON object; NULL: there was none';
COMMENT ON FUNCTION audit_log.row_as_of(regclass, text, text) IS 'the row that bore this key at a mark, or at a timestamp in text, as a JSON object; NULL: there was none';

CREATE FUNCTION audit_log.as_of_query(table_name regclass, moment timestamptz) RETURNS text
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_as_of_query';
CREATE FUNCTION audit_log.as_of_query(table_name regclass, moment text) RETURNS text
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_as_of_query';
COMMENT ON FUNCTION audit_log.as_of_query(regclass, timestamptz) IS 'the text of a SELECT that gives a table''s rows as they were, for views';
COMMENT ON FUNCTION audit_log.as_of_query(regclass, text) IS 'the text of a SELECT that gives a table''s rows as they were at a mark, or at a timestamp in text, for views';

CREATE FUNCTION audit_log.diff(table_name regclass, from_moment timestamptz, to_moment timestamptz,
        OUT record_id text, OUT action_type text, OUT before jsonb, OUT after jsonb, OUT changes jsonb) RETURNS SETOF record
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_diff';
CREATE FUNCTION audit_log.diff(table_name regclass, from_moment text, to_moment text,
        OUT record_id text, OUT action_type text, OUT before jsonb, OUT after jsonb, OUT changes jsonb) RETURNS SETOF record
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_diff';
CREATE FUNCTION audit_log.diff(table_name regclass, from_moment text, to_moment timestamptz,
        OUT record_id text, OUT action_type text, OUT before jsonb, OUT after jsonb, OUT changes jsonb) RETURNS SETOF record
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_diff';
CREATE FUNCTION audit_log.diff(table_name regclass, from_moment timestamptz, to_moment text,
        OUT record_id text, OUT action_type text, OUT before jsonb, OUT after jsonb, OUT changes jsonb) RETURNS SETOF record
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_diff';
COMMENT ON FUNCTION audit_log.diff(regclass, timestamptz, timestamptz) IS
    'the net change of every record between two moments: INSERT, UPDATE or DELETE, the row before and after, and the delta from the one to the other';
COMMENT ON FUNCTION audit_log.diff(regclass, text, text) IS 'the net change of every record between two marks or timestamps in text';
COMMENT ON FUNCTION audit_log.diff(regclass, text, timestamptz) IS 'the net change of every record from a mark to a timestamp';
COMMENT ON FUNCTION audit_log.diff(regclass, timestamptz, text) IS 'the net change of every record from a timestamp to a mark';

CREATE FUNCTION audit_log.history(table_name regclass, record_id text,
        OUT version integer, OUT change_id bigint, OUT transaction_id bigint, OUT "timestamp" timestamptz,
        OUT action_type text, OUT user_id text, OUT context jsonb, OUT changeset jsonb, OUT record jsonb) RETURNS SETOF record
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_history';
COMMENT ON FUNCTION audit_log.history(regclass, text) IS
    'every version of the record that bears, or last bore, a key: who made it, {column: [old, new]}, and the row after; through changes of the key';

/*
 * A table that is tracked already, but whose trigger has gone without a word
 * (event triggers were off): what was changed meanwhile is not in the log.
 */
CREATE OR REPLACE FUNCTION audit_log._add_triggers(target regclass, arguments text[], always boolean) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        member regclass;
    BEGIN
        PERFORM audit_log._check_trigger_names(m) FROM audit_log._members(target) m;
        IF audit_log._trigger_settings(target, 'audit_log_row') IS NOT NULL THEN
            PERFORM audit_log._set_trigger_arguments(target, 'audit_log_row', arguments);
        ELSE
            IF audit_log._latest('SELECT (SELECT s.kind FROM audit_log.table_state s
                    WHERE s.table_id = audit_log._table_id($1)
                      AND (s.kind IN (''enabled'', ''disabled'') OR s.kind = ''gap'' AND s.detail ->> ''reason'' = ''a trigger was dropped'')
                    ORDER BY s.id DESC LIMIT 1)', target) = 'enabled' THEN
                PERFORM audit_log._note_state(audit_log._table_id(target), 'gap', '{"reason": "its trigger was missing"}');
            END IF;
            EXECUTE format('CREATE TRIGGER audit_log_row AFTER INSERT OR UPDATE OR DELETE ON %s '
                'FOR EACH ROW EXECUTE FUNCTION audit_log.capture(%s)', target,
                (SELECT string_agg(quote_literal(a.v), ', ' ORDER BY a.n) FROM unnest(arguments) WITH ORDINALITY a (v, n)));
        END IF;
        FOR member IN SELECT m FROM audit_log._members(target) m LOOP
            EXECUTE format('ALTER TABLE ONLY %s ENABLE %s TRIGGER audit_log_row', member,
                CASE WHEN always THEN 'ALWAYS' ELSE '' END);
            PERFORM audit_log._add_statement_triggers(member, always);
        END LOOP;
    END
    $$;

/* what was there, and the index that the update may have left out */
CREATE OR REPLACE FUNCTION audit_log._maintain(caller oid, keep interval, expired text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    AS $$
    DECLARE
        made integer;
        partition record;
        purged integer;
        timeout text := current_setting('lock_timeout');
    BEGIN
        IF NOT audit_log._is_keeper(caller) THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
                MESSAGE = 'only a superuser or the role that installed audit_log may maintain it';
        END IF;
        IF expired NOT IN ('detach', 'drop') OR expired IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = format('unknown expired %L', expired),
                HINT = 'It is detach or drop.';
        END IF;
        IF keep < '1 month' THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = 'keep must be at least one month';
        END IF;
        made := audit_log._make_partitions(13);
        RAISE NOTICE 'audit_log: % partitions made, % months ahead', made, audit_log._months_ahead();
        PERFORM audit_log._index_transactions();

        FOR partition IN
            SELECT c.oid::regclass::text AS name, c.relname
              FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent = 'audit_log.change'::regclass AND c.relname ~ '^change_\d{4}_\d\d$'
               AND to_timestamp(substr(c.relname, 8), 'YYYY_MM') + interval '1 month' <= clock_timestamp() - keep
             ORDER BY c.relname
        LOOP
            BEGIN
                -- what looks back past this must know that something is missing; read before
                -- anything is locked, since a month that is over gets no more rows
                EXECUTE format('SELECT count(audit_log._note_state(p.table_id, ''gap'', %L)) '
                    'FROM (SELECT DISTINCT table_id FROM %s) p',
                    jsonb_build_object('reason', 'history purged', 'partition', partition.name), partition.name)
                    INTO purged;
                -- writers queue behind us, so not for long; the parent first, as readers
                -- and writers lock them
                PERFORM set_config('lock_timeout', '2s', true);
                LOCK TABLE ONLY audit_log.change IN ACCESS EXCLUSIVE MODE;
                EXECUTE format('ALTER TABLE audit_log.change DETACH PARTITION %s', partition.name);
                IF expired = 'drop' THEN
                    EXECUTE format('DROP TABLE %s', partition.name);
                END IF;
                PERFORM set_config('lock_timeout', timeout, true);
                RAISE NOTICE 'audit_log: % %, history of % tables', partition.name,
                    CASE expired WHEN 'drop' THEN 'dropped' ELSE 'detached' END, purged;
            EXCEPTION WHEN lock_not_available THEN
                RAISE NOTICE 'audit_log: partition % and later ones are left for later: the lock was not to be had', partition.name;
                EXIT;
            END;
        END LOOP;
    END
    $$;

/* the guards of marks and clusters, too */
CREATE OR REPLACE FUNCTION audit_log._check(caller oid, OUT relation text, OUT problem text, OUT remedy text) RETURNS SETOF record
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH live AS (
            SELECT t.id, t.uid, t.table_schema, t.table_name, t.settings, c.oid AS relid, c.relkind,
                   (SELECT s.kind FROM audit_log.table_state s
                     WHERE s.table_id = t.id AND s.kind IN ('enabled', 'disabled') ORDER BY s.id DESC LIMIT 1) AS latest
              FROM audit_log.tracked_table t
              LEFT JOIN (pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p'))
                     ON n.nspname = t.table_schema AND c.relname = t.table_name
             WHERE t.dropped_at IS NULL),
        expected AS (
            SELECT l.*, m.member, w.trigger_name, w.function
              FROM live l
             CROSS JOIN LATERAL audit_log._members(l.relid) m (member)
             CROSS JOIN (VALUES ('audit_log_row', 'audit_log.capture()'::regprocedure),
                                ('audit_log_flush', 'audit_log.capture_flush()'::regprocedure),
                                ('audit_log_truncate', 'audit_log.capture_truncate()'::regprocedure))
                        w (trigger_name, function)
             -- a trigger of a restored schema is there without that state
             WHERE l.relid IS NOT NULL AND (l.latest = 'enabled'
                OR l.latest IS NULL AND audit_log._trigger_settings(l.relid, 'audit_log_row') IS NOT NULL)),
        log_table AS (
            SELECT c.oid::regclass AS relid FROM pg_class c
             WHERE c.oid IN ('audit_log.transaction'::regclass, 'audit_log.change'::regclass,
                             'audit_log.tracked_table'::regclass, 'audit_log.table_state'::regclass,
                             'audit_log.mask_secret'::regclass, 'audit_log.mark'::regclass,
                             'audit_log.cluster'::regclass)
            UNION SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = 'audit_log.change'::regclass)
        SELECT format('%I.%I', l.table_schema, l.table_name),
               coalesce('it is now ' || audit_log._bearer(l.uid) || ', but its renaming was not noticed',
                        'the table is gone, but its DROP was not noticed'),
               'Run SELECT audit_log.repair().'
          FROM live l WHERE l.relid IS NULL
        UNION ALL
        SELECT e.member::text,
               CASE WHEN g.oid IS NULL THEN format('trigger %s is missing', e.trigger_name)
                    WHEN g.tgenabled = 'D' THEN format('trigger %s is disabled', e.trigger_name)
                    WHEN g.tgenabled = 'R' THEN format('trigger %s fires for replicated changes only', e.trigger_name)
                    ELSE format('trigger %s is no longer ALWAYS', e.trigger_name) END,
               CASE WHEN g.tgenabled IN ('O') THEN 'Run SELECT audit_log.repair().'
                    ELSE format('Run SELECT audit_log.enable(%L). What was changed since is not in the log.',
                                e.relid::regclass::text) END
          FROM expected e
          LEFT JOIN pg_trigger g ON g.tgrelid = e.member AND g.tgname = e.trigger_name AND g.tgfoid = e.function
         WHERE g.oid IS NULL OR g.tgenabled IN ('D', 'R')
            OR (coalesce((e.settings ->> 'always')::boolean, false) AND g.tgenabled <> 'A')
        UNION ALL
        SELECT c.relid::text,
               CASE WHEN g.oid IS NULL THEN 'the guard against UPDATE, DELETE and TRUNCATE is missing'
                    ELSE 'the guard against UPDATE, DELETE and TRUNCATE is not ALWAYS enabled' END,
               'Run SELECT audit_log.repair().'
          FROM log_table c
          LEFT JOIN pg_trigger g ON g.tgrelid = c.relid AND g.tgname = 'audit_log_guard'
                                AND g.tgfoid = 'audit_log.guard()'::regprocedure
         WHERE g.oid IS NULL OR g.tgenabled <> 'A'
        UNION ALL
        SELECT 'event trigger ' || e.name, CASE WHEN v.oid IS NULL THEN 'it is missing' WHEN v.evtenabled = 'R' THEN 'it fires for replicated changes only'
                    ELSE 'it is disabled' END,
               CASE WHEN v.oid IS NULL THEN 'Run SELECT audit_log.repair().'
                    ELSE format('Run ALTER EVENT TRIGGER %I ENABLE.', e.name) END
          FROM unnest(ARRAY['audit_log_attach', 'audit_log_ddl', 'audit_log_drop', 'audit_log_rights']) e (name)
          LEFT JOIN pg_event_trigger v ON v.evtname = e.name
         WHERE v.oid IS NULL OR v.evtenabled IN ('D', 'R')
        UNION ALL
        SELECT 'audit_log.change', format('only %s months ahead have their partition', audit_log._months_ahead()),
               'Run CALL audit_log.maintain() regularly.'
         WHERE audit_log._months_ahead() < 2 AND EXISTS (SELECT FROM live)
        UNION ALL
        SELECT 'audit_log.change_default', 'it is no partition of audit_log.change: a month without one makes writes fail',
               'Run ALTER TABLE audit_log.change ATTACH PARTITION audit_log.change_default DEFAULT.'
         WHERE NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = 'audit_log.change'::regclass
                              AND i.inhrelid = to_regclass('audit_log.change_default'))
        UNION ALL
        SELECT format('schema %I', s.schema_name),
               format('its new tables are not tracked: role %I, which asked for that, does not exist under this name', s.enabled_by),
               format('Run SELECT audit_log.enable_schema(%L, auto => true) again.', s.schema_name)
          FROM audit_log.tracked_schema s
         WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = s.enabled_by)
        UNION ALL
        SELECT 'schema audit_log', format('role %s may create in it', CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END),
               'Revoke CREATE on the schema.'
          FROM pg_namespace n, LATERAL aclexplode(n.nspacl) a
         WHERE n.nspname = 'audit_log' AND a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner
        UNION ALL
        SELECT v.relation, v.problem, v.remedy FROM audit_log._check_versions() v
    $$;

/* =============================================================== taking back */

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

/* =================================================================== rights */

CREATE OR REPLACE FUNCTION audit_log._reader_objects() RETURNS SETOF text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT unnest(ARRAY[
            'TABLE audit_log.visible_table', 'TABLE audit_log.audit_logs', 'TABLE audit_log.column_changes',
            'TABLE audit_log.transactions', 'TABLE audit_log.tracked_tables', 'TABLE audit_log.marks',
            'FUNCTION audit_log.table_changes(regclass, integer, bigint)',
            'FUNCTION audit_log.user_changes(text, timestamptz, timestamptz, integer)',
            'FUNCTION audit_log.rebuild(anyelement)',
            'FUNCTION audit_log.record_id(anyelement)',
            'FUNCTION audit_log.as_of(anyelement, timestamptz)', 'FUNCTION audit_log.as_of(anyelement, text)',
            'FUNCTION audit_log.rows_as_of(regclass, timestamptz)', 'FUNCTION audit_log.rows_as_of(regclass, text)',
            'FUNCTION audit_log.row_as_of(regclass, text, timestamptz)', 'FUNCTION audit_log.row_as_of(regclass, text, text)',
            'FUNCTION audit_log.as_of_query(regclass, timestamptz)', 'FUNCTION audit_log.as_of_query(regclass, text)',
            'FUNCTION audit_log.diff(regclass, timestamptz, timestamptz)', 'FUNCTION audit_log.diff(regclass, text, text)',
            'FUNCTION audit_log.diff(regclass, text, timestamptz)', 'FUNCTION audit_log.diff(regclass, timestamptz, text)',
            'FUNCTION audit_log.history(regclass, text)',
            'TABLE audit_log.taking_back',
            'FUNCTION audit_log.undo_change(bigint, boolean, boolean, boolean)',
            'FUNCTION audit_log.undo_transaction(bigint, regclass[], text[], boolean, boolean, boolean, boolean)',
            'FUNCTION audit_log.restore_row(regclass, text, timestamptz, boolean, boolean, boolean)',
            'FUNCTION audit_log.restore_row(regclass, text, text, boolean, boolean, boolean)',
            'FUNCTION audit_log.rollback_to(regclass[], timestamptz, boolean, boolean, boolean)',
            'FUNCTION audit_log.rollback_to(regclass[], text, boolean, boolean, boolean)'])
    $$;

CREATE OR REPLACE FUNCTION audit_log._admin_objects() RETURNS SETOF text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT unnest(ARRAY[
            'FUNCTION audit_log.enable(regclass, name[], name[], name[], text, text[], text, boolean, name, text[], boolean, boolean, name, jsonb)',
            'FUNCTION audit_log.enable_schema(name, regclass[], boolean, name[], name[], name[], text, text[], text, boolean, name, text[], boolean, boolean, jsonb)',
            'FUNCTION audit_log.disable(regclass)',
            'FUNCTION audit_log.pause(regclass, text)',
            'FUNCTION audit_log.capture()',
            'FUNCTION audit_log.check()',
            'FUNCTION audit_log.version_table_migration(regclass, text)',
            'FUNCTION audit_log.mark(text, text)',
            'FUNCTION audit_log.drop_mark(text)'])
    $$;

/*
 * What the script has made belongs to the owner of the rest, whichever
 * superuser runs it, and is closed; then opened for whom it is meant: the
 * installing role, and whom grant_read() and grant_admin() have named before.
 */
DO $$
DECLARE
    object record;
    owner name := (SELECT pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class c WHERE c.oid = 'audit_log.change'::pg_catalog.regclass);
    installer name := (SELECT pg_catalog.pg_get_userbyid(e.extowner) FROM pg_catalog.pg_extension e
                        WHERE e.extname = 'audit_log');
    before oid[] := pg_catalog.current_setting('audit_log_update.before')::oid[];
BEGIN
    FOR object IN
        SELECT 'ROUTINE ' || p.oid::pg_catalog.regprocedure AS name
          FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'audit_log'::pg_catalog.regnamespace AND p.oid <> ALL (before)
        UNION ALL
        SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' WHEN 'v' THEN 'VIEW ' ELSE 'TABLE ' END || c.oid::pg_catalog.regclass
          FROM pg_catalog.pg_class c WHERE c.relnamespace = 'audit_log'::pg_catalog.regnamespace AND c.relkind IN ('r', 'v', 'S')
           AND c.relname IN ('cluster', 'mark', 'marks', 'taking_back')
        UNION ALL
        SELECT pg_catalog.unnest(ARRAY['OPERATOR CLASS audit_log.xid8_minmax_ops USING brin', 'OPERATOR FAMILY audit_log.xid8_minmax_ops USING brin'])
    LOOP
        EXECUTE pg_catalog.format('ALTER %s OWNER TO %I', object.name, owner);
    END LOOP;
    FOR object IN
        SELECT DISTINCT 'ROUTINE ' || p.oid::pg_catalog.regprocedure AS name, a.grantee
          FROM pg_catalog.pg_proc p,
               LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
         WHERE p.pronamespace = 'audit_log'::pg_catalog.regnamespace AND p.oid <> ALL (before) AND a.grantee <> p.proowner
        UNION
        SELECT DISTINCT 'TABLE ' || c.oid::pg_catalog.regclass, a.grantee
          FROM pg_catalog.pg_class c, LATERAL pg_catalog.aclexplode(c.relacl) a
         WHERE c.relnamespace = 'audit_log'::pg_catalog.regnamespace AND c.relname IN ('cluster', 'mark', 'marks', 'taking_back') AND a.grantee <> c.relowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s CASCADE', object.name,
            CASE WHEN object.grantee = 0 THEN 'PUBLIC'
                 ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(object.grantee)) END);
    END LOOP;

    EXECUTE pg_catalog.format('GRANT SELECT ON audit_log.cluster, audit_log.mark TO %I', installer);
    FOR object IN
        SELECT o.name, g.grantee, g.is_grantable
          FROM (SELECT audit_log._reader_objects(), 'audit_log.rebuild(anyelement)'
                UNION ALL SELECT audit_log._admin_objects(), 'audit_log.pause(regclass, text)') o (name, model),
               LATERAL (SELECT a.grantee, a.is_grantable FROM pg_catalog.pg_proc p, LATERAL pg_catalog.aclexplode(p.proacl) a
                         WHERE p.oid = o.model::pg_catalog.regprocedure AND a.grantee <> p.proowner) g
         WHERE o.name IN ('TABLE audit_log.marks', 'TABLE audit_log.taking_back')
            OR (o.name LIKE 'FUNCTION %' AND pg_catalog.substr(o.name, 10)::pg_catalog.regprocedure <> ALL (before))
    LOOP
        EXECUTE pg_catalog.format('GRANT %s ON %s TO %s%s',
            CASE WHEN object.name LIKE 'TABLE %' THEN 'SELECT' ELSE 'EXECUTE' END, object.name,
            CASE WHEN object.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(object.grantee)) END,
            CASE WHEN object.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
END
$$;

/* functions in a view are called as whoever reads it; this one looks at his rights */
GRANT EXECUTE ON FUNCTION audit_log._taking_back() TO PUBLIC;

/* ==================================================================== dumps */

SELECT pg_catalog.pg_extension_config_dump('audit_log.cluster', '');
SELECT pg_catalog.pg_extension_config_dump('audit_log.mark', '');
