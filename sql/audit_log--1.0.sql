/* audit_log 1.0: capture, the log, and reading it */

\echo Use "CREATE EXTENSION audit_log" to load this file. \quit

/* ---------------------------------------------------------------- schema */

/*
 * The schema decides who may put functions beside ours.  One that CREATE
 * EXTENSION has just made is unseen by others; one that was there before must
 * be a superuser's and closed.  Either way it becomes a superuser's with no
 * grants left.
 */
DO $$
DECLARE
    ns record;
    acl record;
BEGIN
    SELECT n.oid, n.nspowner, n.nspacl,
           pg_catalog.pg_xact_status(((pg_catalog.pg_current_xact_id()::text::numeric
               - pg_catalog.mod(pg_catalog.pg_current_xact_id()::text::numeric, 4294967296)
               + n.xmin::text::numeric)::text)::pg_catalog.xid8) = 'in progress' AS fresh
      INTO STRICT ns
      FROM pg_catalog.pg_namespace n WHERE n.nspname = 'audit_log';

    IF EXISTS (SELECT FROM pg_catalog.pg_depend d
                WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
                  AND d.refobjid = ns.oid
                  AND NOT (d.classid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                           AND d.objid = (SELECT e.oid FROM pg_catalog.pg_extension e
                                           WHERE e.extname = 'audit_log'))) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = 'schema "audit_log" is not empty',
            HINT = 'Drop the schema: CREATE EXTENSION makes it.';
    END IF;

    IF NOT coalesce(ns.fresh, false) THEN
        IF NOT (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.oid = ns.nspowner)
           OR EXISTS (SELECT FROM pg_catalog.aclexplode(ns.nspacl) a
                       WHERE a.privilege_type = 'CREATE' AND a.grantee <> ns.nspowner) THEN
            RAISE EXCEPTION USING
                ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = 'schema "audit_log" was made before, and not by a superuser for nobody else to create in',
                DETAIL = 'Whoever can create in the schema could put functions beside those of the extension.',
                HINT = 'Drop the schema: CREATE EXTENSION makes it.';
        END IF;
    END IF;

    EXECUTE pg_catalog.format('ALTER SCHEMA audit_log OWNER TO %I', current_user);
    FOR acl IN SELECT DISTINCT a.grantee FROM pg_catalog.pg_namespace n,
                      LATERAL pg_catalog.aclexplode(n.nspacl) a
                WHERE n.nspname = 'audit_log' AND a.grantee <> n.nspowner LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON SCHEMA audit_log FROM %s CASCADE',
            CASE WHEN acl.grantee = 0 THEN 'PUBLIC'
                 ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee)) END);
    END LOOP;
END
$$;

GRANT USAGE ON SCHEMA audit_log TO PUBLIC;

/* ------------------------------------------------------------ what is kept */

CREATE TYPE audit_log.action_type AS ENUM ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'SNAPSHOT');

CREATE SEQUENCE audit_log.transaction_id_seq;
CREATE SEQUENCE audit_log.change_id_seq;
CREATE SEQUENCE audit_log.tracked_table_id_seq AS integer;
CREATE SEQUENCE audit_log.table_state_id_seq;

CREATE TABLE audit_log.transaction (
    id bigint PRIMARY KEY,
    xid pg_catalog.xid8 NOT NULL,
    timestamp timestamptz NOT NULL,
    started_at timestamptz NOT NULL,
    continues bigint,
    user_id text,
    db_user text NOT NULL,
    db_role text NOT NULL,
    application_name text,
    client_addr inet,
    client_port integer,
    backend_pid integer NOT NULL,
    context jsonb,
    undoes jsonb
);
/* of a part of it: what is too long for an index must not make the change fail */
CREATE INDEX transaction_user_id_idx ON audit_log.transaction (pg_catalog."left"(user_id, 200), timestamp)
    WHERE user_id IS NOT NULL;

/*
 * No key or index here: each partition has its own (a dump restores those).  The
 * columns stand in this order so that a row has no padding, and old_record_id
 * last so that a row without it ends before it (src/writer.c).
 */
CREATE TABLE audit_log.change (
    id bigint NOT NULL,
    transaction_id bigint NOT NULL,
    timestamp timestamptz NOT NULL,
    command integer NOT NULL,
    action_type audit_log.action_type NOT NULL,
    table_id integer NOT NULL,
    record_id text,
    changes jsonb,
    old_record_id text
) PARTITION BY RANGE (timestamp);

CREATE TABLE audit_log.tracked_table (
    id integer PRIMARY KEY,
    uid uuid NOT NULL UNIQUE,
    table_schema text NOT NULL,
    table_name text NOT NULL,
    settings jsonb NOT NULL,
    dropped_at timestamptz
);
CREATE UNIQUE INDEX tracked_table_name_idx ON audit_log.tracked_table (table_schema, table_name)
    WHERE dropped_at IS NULL;

CREATE TABLE audit_log.table_state (
    id bigint PRIMARY KEY,
    table_id integer NOT NULL,
    kind text NOT NULL CHECK (kind IN ('enabled', 'disabled', 'paused', 'settings', 'columns', 'key',
        'partition attached', 'partition detached', 'renamed', 'dropped', 'gap')),
    settings jsonb NOT NULL,
    columns jsonb NOT NULL,
    key_columns text[],
    detail jsonb,
    db_user text NOT NULL,
    xid pg_catalog.xid8 NOT NULL,
    timestamp timestamptz NOT NULL,
    first_change_id bigint NOT NULL
);
CREATE INDEX table_state_table_id_idx ON audit_log.table_state (table_id, id);

CREATE TABLE audit_log.tracked_schema (
    schema_name text PRIMARY KEY,
    enabled_by text NOT NULL,
    settings jsonb NOT NULL
);

/* replica identity: it has no key, and a publication of all tables is no reason to fail */
CREATE TABLE audit_log.mask_secret (
    key bytea NOT NULL
);
ALTER TABLE audit_log.mask_secret REPLICA IDENTITY FULL;

COMMENT ON TYPE audit_log.action_type IS 'what happened to a row; SNAPSHOT is a row as it stood when tracking began, TRUNCATE an event that stands for no row';
COMMENT ON SEQUENCE audit_log.transaction_id_seq IS 'ids of audit_log.transaction';
COMMENT ON SEQUENCE audit_log.change_id_seq IS 'ids of audit_log.change';
COMMENT ON SEQUENCE audit_log.tracked_table_id_seq IS 'ids of audit_log.tracked_table';
COMMENT ON SEQUENCE audit_log.table_state_id_seq IS 'ids of audit_log.table_state';

COMMENT ON TABLE audit_log.transaction IS 'who made changes, and why: one row for each author and reason within a database transaction; never updated';
COMMENT ON COLUMN audit_log.transaction.id IS 'from a sequence: survives dump and restore, which an xid does not';
COMMENT ON COLUMN audit_log.transaction.xid IS 'the server''s top-level transaction id';
COMMENT ON COLUMN audit_log.transaction.timestamp IS 'clock time of its first tracked change';
COMMENT ON COLUMN audit_log.transaction.started_at IS 'start of the database transaction';
COMMENT ON COLUMN audit_log.transaction.continues IS 'the row this one goes on from for the ids'' sake alone (same who and why), else NULL';
COMMENT ON COLUMN audit_log.transaction.user_id IS 'the application''s user: a claim of the session, not proof';
COMMENT ON COLUMN audit_log.transaction.db_user IS 'session_user';
COMMENT ON COLUMN audit_log.transaction.db_role IS 'the role of SET ROLE, as it stands outside every SECURITY DEFINER function';
COMMENT ON COLUMN audit_log.transaction.application_name IS 'setting application_name';
COMMENT ON COLUMN audit_log.transaction.client_addr IS 'the client''s address, NULL for a unix socket';
COMMENT ON COLUMN audit_log.transaction.client_port IS 'the client''s port, NULL for a unix socket';
COMMENT ON COLUMN audit_log.transaction.backend_pid IS 'process id of the server process';
COMMENT ON COLUMN audit_log.transaction.context IS 'setting audit_log.context: any JSON; what does not parse is kept as a JSON string';
COMMENT ON COLUMN audit_log.transaction.undoes IS 'what these changes take back, else NULL';

COMMENT ON TABLE audit_log.change IS 'one row for each changed row, in monthly partitions';
COMMENT ON COLUMN audit_log.change.id IS 'ascending along a record''s history from one transaction to the next';
COMMENT ON COLUMN audit_log.change.transaction_id IS 'audit_log.transaction.id';
COMMENT ON COLUMN audit_log.change.command IS 'the command within the database transaction that made the change: within one, a record''s history is ordered by (command, id)';
COMMENT ON COLUMN audit_log.change.timestamp IS 'clock time when captured, the row already locked';
COMMENT ON COLUMN audit_log.change.action_type IS 'INSERT, UPDATE, DELETE, TRUNCATE or SNAPSHOT';
COMMENT ON COLUMN audit_log.change.table_id IS 'audit_log.tracked_table.id';
COMMENT ON COLUMN audit_log.change.record_id IS 'the key''s text: a single column''s, or a JSON array of the columns'' texts; NULL without a key; of a masked column its hash';
COMMENT ON COLUMN audit_log.change.old_record_id IS 'where an UPDATE changed the key: the key before';
COMMENT ON COLUMN audit_log.change.changes IS 'INSERT, SNAPSHOT: the new row; DELETE: the old row; UPDATE: a jsondiffpatch delta; TRUNCATE: NULL or {"partition": name}';

COMMENT ON TABLE audit_log.tracked_table IS 'one row for each table that is or was tracked; names as text, followed through renames';
COMMENT ON COLUMN audit_log.tracked_table.id IS 'a number of the extension''s own, no OID';
COMMENT ON COLUMN audit_log.tracked_table.uid IS 'identity that the table''s trigger repeats as its argument table=…';
COMMENT ON COLUMN audit_log.tracked_table.table_schema IS 'schema of the table now, or when it was dropped';
COMMENT ON COLUMN audit_log.tracked_table.table_name IS 'name of the table now, or when it was dropped';
COMMENT ON COLUMN audit_log.tracked_table.settings IS 'copy of the settings in the trigger''s arguments, which rule';
COMMENT ON COLUMN audit_log.tracked_table.dropped_at IS 'when the table was dropped, else NULL';

COMMENT ON TABLE audit_log.table_state IS 'append-only: each time what is captured of a table begins, changes or ends';
COMMENT ON COLUMN audit_log.table_state.id IS 'from a sequence';
COMMENT ON COLUMN audit_log.table_state.table_id IS 'audit_log.tracked_table.id';
COMMENT ON COLUMN audit_log.table_state.kind IS 'enabled, disabled, paused, settings, columns, key, partition attached, partition detached, renamed, dropped or gap';
COMMENT ON COLUMN audit_log.table_state.settings IS 'the settings from here on';
COMMENT ON COLUMN audit_log.table_state.columns IS 'the columns from here on: name, type and number of each';
COMMENT ON COLUMN audit_log.table_state.key_columns IS 'the columns of record_id from here on, NULL without a key';
COMMENT ON COLUMN audit_log.table_state.detail IS 'what the kind has to tell: reason of a gap, name of a partition, fingerprint of the mask key';
COMMENT ON COLUMN audit_log.table_state.db_user IS 'session_user';
COMMENT ON COLUMN audit_log.table_state.xid IS 'the server''s top-level transaction id';
COMMENT ON COLUMN audit_log.table_state.timestamp IS 'clock time when noted';
COMMENT ON COLUMN audit_log.table_state.first_change_id IS 'changes of the table from this id on were captured under this state';

COMMENT ON TABLE audit_log.tracked_schema IS 'schemas whose new tables are tracked as they are made';
COMMENT ON COLUMN audit_log.tracked_schema.schema_name IS 'name of the schema, followed through renames';
COMMENT ON COLUMN audit_log.tracked_schema.enabled_by IS 'the role that asked: tables of owners it is a member of are tracked';
COMMENT ON COLUMN audit_log.tracked_schema.settings IS 'the settings new tables get';
COMMENT ON TABLE audit_log.mask_secret IS 'the key under which masked values are hashed; no dump carries it';
COMMENT ON COLUMN audit_log.mask_secret.key IS 'key of HMAC-SHA-256';

/* -------------------------------------------------------- C, for everybody */

CREATE FUNCTION audit_log.jsonb_delta(jsonb, jsonb) RETURNS jsonb
    LANGUAGE C IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'audit_log_jsonb_delta';
COMMENT ON FUNCTION audit_log.jsonb_delta(jsonb, jsonb) IS
    'delta from the first to the second value in the format of jsondiffpatch: [old, new], [new] added, [old, 0, 0] removed, nested for objects; NULL where their images are equal. Arrays are replaced whole';

CREATE FUNCTION audit_log.jsonb_patch(document jsonb, delta jsonb) RETURNS jsonb
    LANGUAGE C IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'audit_log_jsonb_patch';
COMMENT ON FUNCTION audit_log.jsonb_patch(jsonb, jsonb) IS
    'the document after a jsondiffpatch delta; a NULL delta changes nothing. Error 22023: not a delta of jsonb_delta()''s form';

CREATE FUNCTION audit_log.jsonb_unpatch(document jsonb, delta jsonb) RETURNS jsonb
    LANGUAGE C IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'audit_log_jsonb_unpatch';
COMMENT ON FUNCTION audit_log.jsonb_unpatch(jsonb, jsonb) IS
    'the document before a jsondiffpatch delta; a NULL delta changes nothing. Error 22023: not a delta of jsonb_delta()''s form';

CREATE FUNCTION audit_log.change_columns(changes jsonb, action text,
        OUT column_name text, OUT path text[], OUT old_value jsonb, OUT new_value jsonb)
    RETURNS SETOF record
    LANGUAGE C IMMUTABLE PARALLEL SAFE ROWS 5
    AS 'MODULE_PATHNAME', 'audit_log_change_columns';
COMMENT ON FUNCTION audit_log.change_columns(jsonb, text) IS
    'the changes of one row of the log, value by value: path is {} for a column itself, else the way inside its JSON object';

CREATE FUNCTION audit_log.set_context(user_id text, context jsonb DEFAULT NULL) RETURNS void
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'audit_log_set_context';
COMMENT ON FUNCTION audit_log.set_context(text, jsonb) IS
    'says who makes the changes of this transaction from here on, and why; NULL means none. Ends with the transaction';

CREATE FUNCTION audit_log.new_transaction() RETURNS void
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'audit_log_new_transaction';
COMMENT ON FUNCTION audit_log.new_transaction() IS
    'lets the next change begin a further row of audit_log.transaction: for test suites that run inside one outer transaction';

CREATE FUNCTION audit_log.transaction_id() RETURNS bigint
    LANGUAGE C VOLATILE
    AS 'MODULE_PATHNAME', 'audit_log_transaction_id';
COMMENT ON FUNCTION audit_log.transaction_id() IS
    'id of the row of audit_log.transaction that is in force, or of the one that the next change will begin';

/* ------------------------------------------------------------ C, triggers */

CREATE FUNCTION audit_log.capture() RETURNS trigger
    LANGUAGE C AS 'MODULE_PATHNAME', 'audit_log_capture';
COMMENT ON FUNCTION audit_log.capture() IS
    'logs a changed row; for AFTER INSERT OR UPDATE OR DELETE … FOR EACH ROW. Arguments: the table''s settings, each ''name=value''';

CREATE FUNCTION audit_log.capture_flush() RETURNS trigger
    LANGUAGE C AS 'MODULE_PATHNAME', 'audit_log_capture_flush';
COMMENT ON FUNCTION audit_log.capture_flush() IS
    'writes what a statement has captured; for AFTER … FOR EACH STATEMENT';

CREATE FUNCTION audit_log.capture_truncate() RETURNS trigger
    LANGUAGE C AS 'MODULE_PATHNAME', 'audit_log_capture_truncate';
COMMENT ON FUNCTION audit_log.capture_truncate() IS
    'logs the rows that TRUNCATE removes; for BEFORE TRUNCATE … FOR EACH STATEMENT';

CREATE FUNCTION audit_log.guard() RETURNS trigger
    LANGUAGE C AS 'MODULE_PATHNAME', 'audit_log_guard';
COMMENT ON FUNCTION audit_log.guard() IS
    'refuses UPDATE, DELETE and TRUNCATE of the log';

/* ---------------------------------------------------- C, for the functions */

CREATE FUNCTION audit_log._register(target regclass, kind text, detail jsonb) RETURNS integer
    LANGUAGE C AS 'MODULE_PATHNAME', 'audit_log_register';
CREATE FUNCTION audit_log._note_state(table_id integer, kind text, detail jsonb) RETURNS void
    LANGUAGE C AS 'MODULE_PATHNAME', 'audit_log_note_state';
CREATE FUNCTION audit_log._pause_here(table_id integer) RETURNS void
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'audit_log_pause_here';
CREATE FUNCTION audit_log._baseline(target regclass) RETURNS bigint
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'audit_log_baseline';
CREATE FUNCTION audit_log._follow(target regclass) RETURNS boolean
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'audit_log_follow';
CREATE FUNCTION audit_log._former_name(target regclass) RETURNS text[]
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'audit_log_former_name';
CREATE FUNCTION audit_log._latest(query text, target regclass) RETURNS text
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'audit_log_latest';
COMMENT ON FUNCTION audit_log._latest(text, regclass) IS
    'the one value of a query about a table ($1), as committed now: the transaction''s snapshot may be older than the table''s lock';

CREATE FUNCTION audit_log._trigger_settings(target regclass, trigger_name text) RETURNS jsonb
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'audit_log_trigger_settings';
CREATE FUNCTION audit_log._set_trigger_arguments(target regclass, trigger_name text, arguments text[]) RETURNS void
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'audit_log_set_trigger_arguments';
CREATE FUNCTION audit_log._key_columns(target regclass) RETURNS text[]
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'audit_log_key_columns';
CREATE FUNCTION audit_log._qualify_condition(target regclass, condition text) RETURNS text
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'audit_log_qualify_condition';
CREATE FUNCTION audit_log._set_mask_key(key bytea) RETURNS void
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'audit_log_set_mask_key';
CREATE FUNCTION audit_log._may_read(target regclass) RETURNS boolean
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'audit_log_may_read';
CREATE FUNCTION audit_log._may_read(target regclass, role oid) RETURNS boolean
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'audit_log_may_read';

/* superusers and the role that installed the extension */
CREATE FUNCTION audit_log._is_keeper(role oid) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.oid = $1)
            OR pg_catalog.pg_has_role($1, (SELECT e.extowner FROM pg_catalog.pg_extension e
                                            WHERE e.extname = 'audit_log'), 'USAGE')
    $$;
CREATE FUNCTION audit_log._is_keeper() RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)
            OR pg_catalog.pg_has_role(current_user, (SELECT e.extowner FROM pg_catalog.pg_extension e
                                                      WHERE e.extname = 'audit_log'), 'USAGE')
    $$;
COMMENT ON FUNCTION audit_log._register(regclass, text, jsonb) IS 'registers a table that has a trigger of ours; a state of that kind begins unless it is NULL; returns the table''s id';
COMMENT ON FUNCTION audit_log._note_state(integer, text, jsonb) IS 'notes a state of a table that need not exist any more';
COMMENT ON FUNCTION audit_log._pause_here(integer) IS 'captures nothing of a table until the transaction ends';
COMMENT ON FUNCTION audit_log._baseline(regclass) IS 'logs each row of a table as SNAPSHOT; returns how many';
COMMENT ON FUNCTION audit_log._follow(regclass) IS 'follows what an ALTER TABLE changed; whether the table bears a trigger of ours';
COMMENT ON FUNCTION audit_log._former_name(regclass) IS 'schema and name of a table before the command that has just renamed it';
COMMENT ON FUNCTION audit_log._trigger_settings(regclass, text) IS 'the settings in a trigger''s arguments, NULL where there is no such trigger';
COMMENT ON FUNCTION audit_log._set_trigger_arguments(regclass, text, text[]) IS 'writes the arguments of a trigger and of its clones in partitions';
COMMENT ON FUNCTION audit_log._key_columns(regclass) IS 'the columns that identify a row, {} where none do';
COMMENT ON FUNCTION audit_log._qualify_condition(regclass, text) IS 'a condition with every name qualified, or the parser''s error';
COMMENT ON FUNCTION audit_log._set_mask_key(bytea) IS 'writes the installation''s mask key';
COMMENT ON FUNCTION audit_log._may_read(regclass) IS 'may the caller read every column of the table, with no row security in between?';
COMMENT ON FUNCTION audit_log._may_read(regclass, oid) IS 'the same for another role';
COMMENT ON FUNCTION audit_log._is_keeper(oid) IS 'is the role a superuser, or the one that installed the extension?';
COMMENT ON FUNCTION audit_log._is_keeper() IS 'is the caller a superuser, or the role that installed the extension?';

/* -------------------------------------------------------------- partitions */

/* takes away what ALTER DEFAULT PRIVILEGES may have given */
CREATE FUNCTION audit_log._close_relation(target regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        grantee oid;
    BEGIN
        FOR grantee IN SELECT DISTINCT a.grantee FROM pg_class c, LATERAL aclexplode(c.relacl) a
                        WHERE c.oid = target AND a.grantee <> c.relowner LOOP
            EXECUTE format('REVOKE ALL ON %s FROM %s CASCADE', target,
                CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END);
        END LOOP;
    END
    $$;
COMMENT ON FUNCTION audit_log._close_relation(regclass) IS 'revokes every grant on a relation';

CREATE FUNCTION audit_log._add_guard(target regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        EXECUTE format('CREATE OR REPLACE TRIGGER audit_log_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON %s '
            'FOR EACH STATEMENT EXECUTE FUNCTION audit_log.guard()', target);
        EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER audit_log_guard', target);
    END
    $$;
COMMENT ON FUNCTION audit_log._add_guard(regclass) IS 'makes the guard of one of the log''s tables';

/*
 * An order of texts by length, for the predicate of an index (key_order.c):
 * from record_id = '5' the planner proves record_id <=~ a long text.
 */
CREATE FUNCTION audit_log.key_cmp(text, text) RETURNS integer
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'audit_log_key_cmp';
COMMENT ON FUNCTION audit_log.key_cmp(text, text) IS 'compares by length, then by bytes: -1, 0 or 1';
CREATE FUNCTION audit_log.key_lt(text, text) RETURNS boolean
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'audit_log_key_lt';
COMMENT ON FUNCTION audit_log.key_lt(text, text) IS 'is the first text shorter, or of the same length and less byte by byte?';
CREATE FUNCTION audit_log.key_le(text, text) RETURNS boolean
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'audit_log_key_le';
COMMENT ON FUNCTION audit_log.key_le(text, text) IS 'is the first text shorter, or of the same length and not greater byte by byte?';
CREATE FUNCTION audit_log.key_ge(text, text) RETURNS boolean
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'audit_log_key_ge';
COMMENT ON FUNCTION audit_log.key_ge(text, text) IS 'is the first text longer, or of the same length and not less byte by byte?';
CREATE FUNCTION audit_log.key_gt(text, text) RETURNS boolean
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'audit_log_key_gt';
COMMENT ON FUNCTION audit_log.key_gt(text, text) IS 'is the first text longer, or of the same length and greater byte by byte?';
CREATE OPERATOR audit_log.<~ (FUNCTION = audit_log.key_lt, LEFTARG = text, RIGHTARG = text,
    COMMUTATOR = OPERATOR(audit_log.>~), NEGATOR = OPERATOR(audit_log.>=~), RESTRICT = scalarltsel, JOIN = scalarltjoinsel);
COMMENT ON OPERATOR audit_log.<~ (text, text) IS 'order by length, then by bytes';
CREATE OPERATOR audit_log.<=~ (FUNCTION = audit_log.key_le, LEFTARG = text, RIGHTARG = text,
    COMMUTATOR = OPERATOR(audit_log.>=~), NEGATOR = OPERATOR(audit_log.>~), RESTRICT = scalarlesel, JOIN = scalarlejoinsel);
COMMENT ON OPERATOR audit_log.<=~ (text, text) IS 'order by length, then by bytes';
CREATE OPERATOR audit_log.>=~ (FUNCTION = audit_log.key_ge, LEFTARG = text, RIGHTARG = text,
    COMMUTATOR = OPERATOR(audit_log.<=~), NEGATOR = OPERATOR(audit_log.<~), RESTRICT = scalargesel, JOIN = scalargejoinsel);
COMMENT ON OPERATOR audit_log.>=~ (text, text) IS 'order by length, then by bytes';
CREATE OPERATOR audit_log.>~ (FUNCTION = audit_log.key_gt, LEFTARG = text, RIGHTARG = text,
    COMMUTATOR = OPERATOR(audit_log.<~), NEGATOR = OPERATOR(audit_log.<=~), RESTRICT = scalargtsel, JOIN = scalargtjoinsel);
COMMENT ON OPERATOR audit_log.>~ (text, text) IS 'order by length, then by bytes';
CREATE OPERATOR FAMILY audit_log.key_length_ops USING btree;
CREATE OPERATOR CLASS audit_log.key_length_ops FOR TYPE text USING btree FAMILY audit_log.key_length_ops AS
    OPERATOR 1 audit_log.<~, OPERATOR 2 audit_log.<=~, OPERATOR 3 pg_catalog.=,
    OPERATOR 4 audit_log.>=~, OPERATOR 5 audit_log.>~, FUNCTION 1 audit_log.key_cmp(text, text),
    FUNCTION 4 pg_catalog.btequalimage(oid);
COMMENT ON OPERATOR FAMILY audit_log.key_length_ops USING btree IS 'order by length, then by bytes';
COMMENT ON OPERATOR CLASS audit_log.key_length_ops USING btree IS 'order by length, then by bytes';

/*
 * What every partition of audit_log.change has of its own: indexes for the
 * reads of the views, and the guard.  The history of one record is found by
 * the B-tree, which knows the table, so that the same id in other tables costs
 * nothing; in the order by length, numbers that ascend are entered side by
 * side.  The hash index is for keys that a B-tree does not take, since any key
 * that the table's own index takes must be taken here too.  The newest changes
 * of a table are found by blocks of 256 ids: a block's entries are alike, and
 * a B-tree keeps the value once.
 */
CREATE FUNCTION audit_log._prepare_partition(target regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        EXECUTE format('CREATE INDEX ON %s (record_id audit_log.key_length_ops, table_id) '
            'WHERE record_id OPERATOR(audit_log.<=~) repeat(''x'', 1000)', target);
        EXECUTE format('CREATE INDEX ON %s USING hash (record_id) '
            'WHERE record_id OPERATOR(audit_log.>~) repeat(''x'', 1000)', target);
        EXECUTE format('CREATE INDEX ON %s USING hash (old_record_id) WHERE old_record_id IS NOT NULL', target);
        EXECUTE format('CREATE INDEX ON %s (transaction_id)', target);
        EXECUTE format('CREATE INDEX ON %s (table_id, (id >> 8))', target);
        EXECUTE format('CREATE INDEX ON %s USING brin (id, timestamp) WITH (autosummarize)', target);
        -- what is long is compressed with every change: pglz takes many times as long
        IF EXISTS (SELECT FROM pg_settings s WHERE s.name = 'default_toast_compression' AND 'lz4' = ANY (s.enumvals)) THEN
            EXECUTE format('ALTER TABLE %s ALTER changes SET COMPRESSION lz4', target);
        END IF;
        PERFORM audit_log._add_guard(target);
        PERFORM audit_log._close_relation(target);
        -- its pg_dump reads the log
        EXECUTE format('GRANT SELECT ON %s TO %I', target,
            (SELECT pg_get_userbyid(e.extowner) FROM pg_extension e WHERE e.extname = 'audit_log'));
    END
    $$;
COMMENT ON FUNCTION audit_log._prepare_partition(regclass) IS 'indexes and guard of one partition of audit_log.change';

CREATE TABLE audit_log.change_default PARTITION OF audit_log.change DEFAULT;
COMMENT ON TABLE audit_log.change_default IS 'changes of months that have no partition of their own';

/*
 * The months that are provided for, from the current one on without a hole.
 * The current one always is: where the default partition has begun to hold
 * its rows it cannot have a partition any more.
 */
CREATE FUNCTION audit_log._months_ahead() RETURNS integer
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        n integer := 1;
    BEGIN
        -- no query of pg_inherits, which would see what the transaction's snapshot does
        WHILE pg_partition_root(to_regclass(audit_log._partition_name(n))) = 'audit_log.change'::regclass LOOP
            n := n + 1;
        END LOOP;
        RETURN n;
    END
    $$;
COMMENT ON FUNCTION audit_log._months_ahead() IS 'how many months from the current one on are provided for';

CREATE FUNCTION audit_log._partition_name(month integer) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    AS $$
        SELECT 'audit_log.change_' || to_char(date_trunc('month', clock_timestamp()) + make_interval(months => $1), 'YYYY_MM')
    $$;
COMMENT ON FUNCTION audit_log._partition_name(integer) IS 'name of the partition of the n-th month from the current one';

/*
 * Makes the partitions of the next n months, the current one included, by
 * CREATE TABLE and ATTACH: PARTITION OF would lock the parent against writers.
 */
CREATE FUNCTION audit_log._make_partitions(months integer) RETURNS integer
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    AS $$
    DECLARE
        first timestamptz := date_trunc('month', clock_timestamp());
        made integer := 0;
        partition text;
        timeout text := current_setting('lock_timeout');
    BEGIN
        FOR n IN 0 .. months - 1 LOOP
            -- named by its bounds, not by the clock anew: the month may turn meanwhile
            partition := 'audit_log.change_' || to_char(first + make_interval(months => n), 'YYYY_MM');
            CONTINUE WHEN pg_partition_root(to_regclass(partition)) = 'audit_log.change'::regclass;
            BEGIN
                IF to_regclass(partition) IS NOT NULL THEN
                    RAISE NOTICE 'audit_log: table % is there but is no partition of audit_log.change', partition;
                    CONTINUE;
                END IF;
                PERFORM set_config('lock_timeout', '2s', true);
                EXECUTE format('CREATE TABLE %s (LIKE audit_log.change)', partition);
                PERFORM audit_log._prepare_partition(partition::regclass);
                EXECUTE format('ALTER TABLE audit_log.change ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)',
                    partition, first + make_interval(months => n), first + make_interval(months => n + 1));
                made := made + 1;
            EXCEPTION
                WHEN lock_not_available THEN
                    RAISE NOTICE 'audit_log: partition % and later ones are left for later: the lock was not to be had', partition;
                    EXIT;
                WHEN check_violation THEN
                    RAISE NOTICE 'audit_log: partition % is left out: audit_log.change_default holds rows of that month', partition;
            END;
        END LOOP;
        PERFORM set_config('lock_timeout', timeout, true);
        RETURN made;
    END
    $$;
COMMENT ON FUNCTION audit_log._make_partitions(integer) IS 'makes the monthly partitions that are missing; returns how many';

/* ---------------------------------------------------------------- tracking */

/* settings as jsonb (those that differ from the default) to trigger arguments */
CREATE FUNCTION audit_log._settings_arguments(uid uuid, settings jsonb) RETURNS text[]
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT array_agg(a.argument ORDER BY a.place)
          FROM (SELECT 0 AS place, 'table=' || $1::text AS argument
                UNION ALL
                SELECT s.place,
                       s.name || '=' || CASE jsonb_typeof($2 -> s.name)
                           WHEN 'array' THEN (SELECT array_agg(e.value ORDER BY e.ordinality)::text
                                                FROM jsonb_array_elements_text($2 -> s.name) WITH ORDINALITY e)
                           ELSE $2 ->> s.name END
                  FROM unnest(ARRAY['exclude', 'include', 'mask', 'condition', 'actions',
                                    'on_truncate', 'user_column', 'require', 'always'])
                       WITH ORDINALITY s (name, place)
                 WHERE $2 ? s.name) a
    $$;
COMMENT ON FUNCTION audit_log._settings_arguments(uuid, jsonb) IS 'the arguments of a table''s trigger';

/* one list setting: NULL keeps, '{}' clears */
CREATE FUNCTION audit_log._put_list(settings jsonb, name text, value text[]) RETURNS jsonb
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT CASE WHEN $3 IS NULL THEN $1
                    WHEN cardinality($3) = 0 THEN $1 - $2
                    ELSE jsonb_set($1, ARRAY[$2], to_jsonb((SELECT array_agg(u.v ORDER BY u.n)
                        FROM (SELECT e.v, min(e.n) AS n FROM unnest($3) WITH ORDINALITY e (v, n)
                               GROUP BY e.v) u))) END
    $$;
COMMENT ON FUNCTION audit_log._put_list(jsonb, text, text[]) IS 'puts a list into settings; NULL keeps, {} clears';

/* one text setting: NULL keeps, '' (or '{}') clears */
CREATE FUNCTION audit_log._put_text(settings jsonb, name text, value text) RETURNS jsonb
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT CASE WHEN $3 IS NULL THEN $1
                    WHEN $3 IN ('', '{}') THEN $1 - $2
                    ELSE jsonb_set($1, ARRAY[$2], to_jsonb($3)) END
    $$;
COMMENT ON FUNCTION audit_log._put_text(jsonb, text, text) IS 'puts a text into settings; NULL keeps, the empty text clears';

CREATE FUNCTION audit_log._check_list(name text, value text[]) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF EXISTS (SELECT FROM unnest(value) e WHERE coalesce(e, '') = '') THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = format('%s must not contain NULL or an empty name', name);
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._check_list(text, text[]) IS 'refuses a list setting with an element that is none';

CREATE FUNCTION audit_log._check_owner(caller oid, target regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = target
                        AND pg_has_role(caller, c.relowner, 'USAGE')) THEN
            RAISE EXCEPTION USING
                ERRCODE = 'insufficient_privilege',
                MESSAGE = format('must be owner of table %s', target),
                DETAIL = 'Auditing a table is its owner''s decision, or a superuser''s.';
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._check_owner(oid, regclass) IS 'refuses whoever does not own the table';

CREATE FUNCTION audit_log._check_no_partition(target regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        root regclass;
    BEGIN
        IF (SELECT c.relispartition FROM pg_class c WHERE c.oid = target) THEN
            SELECT r.relid INTO root FROM pg_partition_ancestors(target) WITH ORDINALITY r
             ORDER BY r.ordinality DESC LIMIT 1;
            RAISE EXCEPTION USING ERRCODE = 'wrong_object_type',
                MESSAGE = format('partition %s is not audited by itself', target),
                DETAIL = format('It is a partition of table %s, which is audited as a whole, or not at all.', root),
                HINT = format('Name the whole table: %L.', root::text);
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._check_no_partition(regclass) IS 'refuses a partition, with the name of its root';

CREATE FUNCTION audit_log._check_trackable(target regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        rel record;
        root regclass;
    BEGIN
        SELECT c.oid, c.relkind, c.relpersistence, c.relispartition, n.nspname, a.amname
          INTO rel
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          LEFT JOIN pg_am a ON a.oid = c.relam
         WHERE c.oid = target;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'undefined_table',
                MESSAGE = format('relation with OID %s does not exist', target::oid);
        END IF;
        IF rel.nspname = 'audit_log' THEN
            RAISE EXCEPTION USING ERRCODE = 'wrong_object_type',
                MESSAGE = format('cannot audit %s', target),
                DETAIL = 'It is part of the log itself.';
        END IF;
        IF rel.oid < 16384 OR rel.nspname IN ('pg_catalog', 'information_schema') OR rel.nspname ~ '^pg_toast' THEN
            RAISE EXCEPTION USING ERRCODE = 'wrong_object_type',
                MESSAGE = format('cannot audit %s', target),
                DETAIL = 'It is a system table.';
        END IF;
        IF rel.relkind NOT IN ('r', 'p') THEN
            RAISE EXCEPTION USING ERRCODE = 'wrong_object_type',
                MESSAGE = format('cannot audit %s', target),
                DETAIL = format('It is %s, not a table.', CASE rel.relkind
                    WHEN 'v' THEN 'a view' WHEN 'm' THEN 'a materialized view'
                    WHEN 'f' THEN 'a foreign table' WHEN 'S' THEN 'a sequence'
                    WHEN 'i' THEN 'an index' WHEN 'I' THEN 'an index'
                    WHEN 'c' THEN 'a composite type' ELSE 'another kind of relation' END),
                HINT = 'Audit the tables beneath it.';
        END IF;
        IF rel.relpersistence = 't' THEN
            RAISE EXCEPTION USING ERRCODE = 'wrong_object_type',
                MESSAGE = format('cannot audit %s', target),
                DETAIL = 'It is a temporary table.';
        END IF;
        IF rel.relispartition THEN
            SELECT r.relid INTO root FROM pg_partition_ancestors(target) WITH ORDINALITY r
             ORDER BY r.ordinality DESC LIMIT 1;
            RAISE EXCEPTION USING ERRCODE = 'wrong_object_type',
                MESSAGE = format('cannot audit partition %s by itself', target),
                DETAIL = format('It is a partition of table %s.', root),
                HINT = format('Audit the whole table: SELECT audit_log.enable(%L).', root::text);
        END IF;
        IF EXISTS (SELECT FROM pg_partition_tree(target) p JOIN pg_class c ON c.oid = p.relid
                    LEFT JOIN pg_am a ON a.oid = c.relam
                    WHERE c.relkind NOT IN ('r', 'p') OR (c.relkind = 'r' AND a.amname <> 'heap'))
           OR (rel.relkind = 'r' AND rel.amname <> 'heap') THEN
            RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
                MESSAGE = format('cannot audit %s', target),
                DETAIL = 'It, or one of its partitions, is not kept by the table access method heap.';
        END IF;
        IF rel.relpersistence = 'u' THEN
            RAISE NOTICE 'audit_log: table % is unlogged: a crash empties it without a trace in the log', target;
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._check_trackable(regclass) IS 'refuses what is not a table that can be audited';

CREATE FUNCTION audit_log._check_settings(target regclass, settings jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        setting text;
        item text;
        key text[] := audit_log._key_columns(target);
    BEGIN
        FOR setting, item IN
            SELECT s, e FROM unnest(ARRAY['exclude', 'include', 'mask']) s,
                   LATERAL jsonb_array_elements_text(settings -> s) e
             WHERE settings ? s
            UNION ALL
            SELECT 'user_column', settings ->> 'user_column' WHERE settings ? 'user_column'
        LOOP
            IF NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = item
                            AND a.attnum > 0 AND NOT a.attisdropped) THEN
                RAISE EXCEPTION USING ERRCODE = 'undefined_column',
                    MESSAGE = format('column %I in %s of table %s does not exist', item, setting, target),
                    HINT = 'Column names are taken as they are, upper and lower case included.';
            END IF;
            IF setting = 'exclude' AND item = ANY (key) THEN
                RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                    MESSAGE = format('cannot exclude key column %I of table %s', item, target),
                    DETAIL = 'Without it the log could not tell which record a change belongs to.',
                    HINT = 'Mask the column: mask => …';
            END IF;
        END LOOP;
        IF settings ? 'exclude' AND settings ? 'include' THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = format('table %s cannot have both exclude and include', target),
                HINT = 'Clear the one by ''{}'' when setting the other.';
        END IF;
        SELECT m INTO item FROM jsonb_array_elements_text(settings -> 'mask') m
         WHERE settings -> 'exclude' ? m
            OR (settings ? 'include' AND NOT settings -> 'include' ? m AND NOT m = ANY (key)) LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = format('column %I of table %s is masked, but left out too', item, target);
        END IF;
        SELECT a INTO item FROM jsonb_array_elements_text(settings -> 'actions') a
         WHERE a NOT IN ('insert', 'update', 'delete', 'truncate') LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = format('unknown action %L for table %s', item, target),
                HINT = 'Actions are insert, update, delete and truncate.';
        END IF;
        IF NOT coalesce(settings ->> 'on_truncate', 'rows') IN ('rows', 'event', 'forbid') THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = format('unknown on_truncate %L for table %s', settings ->> 'on_truncate', target),
                HINT = 'It is rows, event or forbid.';
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._check_settings(regclass, jsonb) IS 'refuses settings that a table cannot have';

/* a table and its partitions; ordinary inheritance children are tables of their own */
CREATE FUNCTION audit_log._members(target regclass) RETURNS SETOF regclass
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT $1 UNION SELECT p.relid FROM pg_partition_tree($1) p
    $$;
COMMENT ON FUNCTION audit_log._members(regclass) IS 'the table and its partitions';

/*
 * The triggers of one relation of a tracked table.  The row trigger stands on
 * the root, and is cloned by the server; statement triggers are not cloned.
 */
CREATE FUNCTION audit_log._add_statement_triggers(target regclass, always boolean) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        PERFORM audit_log._check_trigger_names(target);
        EXECUTE format('CREATE OR REPLACE TRIGGER audit_log_flush AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s '
            'FOR EACH STATEMENT EXECUTE FUNCTION audit_log.capture_flush()', target);
        EXECUTE format('CREATE OR REPLACE TRIGGER audit_log_truncate BEFORE TRUNCATE ON %s '
            'FOR EACH STATEMENT EXECUTE FUNCTION audit_log.capture_truncate()', target);
        EXECUTE format('ALTER TABLE ONLY %s ENABLE %s TRIGGER audit_log_flush', target,
            CASE WHEN always THEN 'ALWAYS' ELSE '' END);
        EXECUTE format('ALTER TABLE ONLY %s ENABLE %s TRIGGER audit_log_truncate', target,
            CASE WHEN always THEN 'ALWAYS' ELSE '' END);
    END
    $$;
COMMENT ON FUNCTION audit_log._add_statement_triggers(regclass, boolean) IS 'makes the triggers that partitions do not inherit';

/* a trigger of the user's under one of our names would be replaced by ours, or be in its way */
CREATE FUNCTION audit_log._check_trigger_names(target regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        name text;
    BEGIN
        SELECT t.tgname INTO name FROM pg_trigger t
         WHERE t.tgrelid = target AND t.tgname IN ('audit_log_row', 'audit_log_flush', 'audit_log_truncate')
           AND t.tgfoid <> CASE t.tgname WHEN 'audit_log_row' THEN 'audit_log.capture()'
                                         WHEN 'audit_log_flush' THEN 'audit_log.capture_flush()'
                                         ELSE 'audit_log.capture_truncate()' END::regprocedure
         ORDER BY t.tgname LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
                MESSAGE = format('table %s has a trigger %I that is not one of audit_log''s', target, name),
                DETAIL = 'audit_log gives its own triggers that name.',
                HINT = format('Give it another name: ALTER TRIGGER %I ON %s RENAME TO …', name, target);
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._check_trigger_names(regclass) IS 'refuses a table that has a trigger of another''s under one of our names';

CREATE FUNCTION audit_log._add_triggers(target regclass, arguments text[], always boolean) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        member regclass;
    BEGIN
        PERFORM audit_log._check_trigger_names(m) FROM audit_log._members(target) m;
        IF audit_log._trigger_settings(target, 'audit_log_row') IS NOT NULL THEN
            PERFORM audit_log._set_trigger_arguments(target, 'audit_log_row', arguments);
        ELSE
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
COMMENT ON FUNCTION audit_log._add_triggers(regclass, text[], boolean) IS 'makes or renews all triggers of a table and its partitions';

/* no row of the table exists, as committed now or seen by us */
CREATE FUNCTION audit_log._is_empty(target regclass) RETURNS boolean
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'audit_log_is_empty';
COMMENT ON FUNCTION audit_log._is_empty(regclass) IS 'has the table no row, seen by a snapshot taken now?';

CREATE FUNCTION audit_log._enable(
        caller oid, target regclass,
        exclude name[], include name[], mask name[], condition text, actions text[],
        on_truncate text, baseline boolean, user_column name, require text[], always boolean)
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        hand_made text;
        renewed boolean;
        former jsonb;
        recorded jsonb;
        settings jsonb;
        uid uuid;
        rows bigint;
        empty boolean;
        key text[];
    BEGIN
        IF target IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
                MESSAGE = 'table_name must not be NULL';
        END IF;
        PERFORM audit_log._check_list('exclude', exclude::text[]);
        PERFORM audit_log._check_list('include', include::text[]);
        PERFORM audit_log._check_list('mask', mask::text[]);
        PERFORM audit_log._check_list('actions', actions);
        PERFORM audit_log._check_list('require', require);
        PERFORM audit_log._check_trackable(target);
        PERFORM audit_log._check_owner(caller, target);
        EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', target);
        IF (SELECT c.relkind = 'p' FROM pg_class c WHERE c.oid = target) THEN
            EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', target);
        END IF;

        -- what is set: in the trigger, else in one attached by hand, else what was set when last enabled
        former := audit_log._trigger_settings(target, 'audit_log_row');
        renewed := former IS NOT NULL;
        IF renewed THEN
            BEGIN
                PERFORM audit_log._register(target, NULL, NULL);
            EXCEPTION WHEN undefined_column THEN
                -- a setting names a column that is gone: no change was logged under it, and this call may name others
                NULL;
            END;
        ELSE
            hand_made := audit_log._latest('SELECT min(t.tgname::text COLLATE "C") FROM pg_trigger t
                WHERE t.tgrelid = $1 AND t.tgfoid = ''audit_log.capture()''::regprocedure', target);
            former := audit_log._trigger_settings(target, hand_made);
        END IF;
        -- a trigger attached by hand may not be registered yet: no row, and its settings stand
        recorded := audit_log._latest('SELECT (SELECT jsonb_build_object(''uid'', t.uid, ''settings'', t.settings)
               FROM audit_log.tracked_table t, pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE c.oid = $1 AND t.table_schema = n.nspname AND t.table_name = c.relname
                AND t.dropped_at IS NULL)', target);
        uid := recorded ->> 'uid';
        recorded := recorded -> 'settings';
        former := coalesce(former, recorded);
        uid := coalesce(uid, gen_random_uuid());

        settings := coalesce(former, '{}');
        settings := audit_log._put_list(settings, 'exclude', exclude::text[]);
        settings := audit_log._put_list(settings, 'include', include::text[]);
        settings := audit_log._put_list(settings, 'mask', mask::text[]);
        settings := audit_log._put_list(settings, 'require', require);
        settings := audit_log._put_list(settings, 'actions', (SELECT array_agg(lower(a)) FROM unnest(actions) a));
        IF actions = '{}' OR (settings -> 'actions') @> '["insert", "update", "delete", "truncate"]' THEN
            settings := settings - 'actions';
        END IF;
        settings := audit_log._put_text(settings, 'user_column', user_column::text);
        settings := audit_log._put_text(settings, 'on_truncate', lower(on_truncate));
        IF settings ->> 'on_truncate' = 'rows' THEN
            settings := settings - 'on_truncate';
        END IF;
        IF always IS NOT NULL THEN
            settings := settings - 'always' || CASE WHEN always THEN '{"always": true}'::jsonb ELSE '{}' END;
        END IF;
        IF condition IS NOT NULL AND condition NOT IN ('', '{}') THEN
            condition := audit_log._qualify_condition(target, condition);
        END IF;
        settings := audit_log._put_text(settings, 'condition', condition);
        PERFORM audit_log._check_settings(target, settings);

        IF audit_log._months_ahead() < 3 THEN
            PERFORM audit_log._make_partitions(13);
        END IF;

        PERFORM audit_log._add_triggers(target, audit_log._settings_arguments(uid, settings),
                                        coalesce((settings ->> 'always')::boolean, false));
        PERFORM audit_log._note_switched(target);
        empty := audit_log._is_empty(target);
        -- a trigger of a restored schema, or made by hand under the name, is there without a state
        IF NOT renewed OR coalesce(baseline, false)
           OR audit_log._latest('SELECT (SELECT s.kind FROM audit_log.table_state s
                WHERE s.table_id = audit_log._table_id($1) AND s.kind IN (''enabled'', ''disabled'')
                ORDER BY s.id DESC LIMIT 1)', target) IS DISTINCT FROM 'enabled' THEN
            PERFORM audit_log._register(target, 'enabled', jsonb_build_object(
                'covered', empty OR coalesce(baseline, false),
                'partitions', (SELECT coalesce(jsonb_agg(format('%I.%I', n.nspname, c.relname)
                                                         ORDER BY n.nspname, c.relname), '[]')
                                 FROM audit_log._members(target) m JOIN pg_class c ON c.oid = m
                                 JOIN pg_namespace n ON n.oid = c.relnamespace WHERE m <> target)));
        ELSE
            PERFORM audit_log._register(target, NULL, NULL);
        END IF;
        IF coalesce(baseline, false) THEN
            rows := audit_log._baseline(target);
        END IF;

        key := audit_log._key_columns(target);
        RAISE NOTICE 'audit_log: % is tracked %, key %', target,
            CASE WHEN settings ? 'actions'
                 THEN 'for ' || (SELECT string_agg(a, ', ') FROM jsonb_array_elements_text(settings -> 'actions') a)
                 ELSE 'for insert, update, delete, truncate' END
            || CASE WHEN settings ? 'include' THEN ', only columns ' || (SELECT string_agg(quote_ident(e), ', ') FROM jsonb_array_elements_text(settings -> 'include') e) ELSE '' END
            || CASE WHEN settings ? 'exclude' THEN ', without columns ' || (SELECT string_agg(quote_ident(e), ', ') FROM jsonb_array_elements_text(settings -> 'exclude') e) ELSE '' END
            || CASE WHEN settings ? 'mask' THEN ', masked columns ' || (SELECT string_agg(quote_ident(e), ', ') FROM jsonb_array_elements_text(settings -> 'mask') e) ELSE '' END
            || CASE WHEN settings ? 'condition' THEN ', where ' || translate(settings ->> 'condition', E'\n\r', '  ') ELSE '' END,
            CASE WHEN cardinality(key) = 0 THEN 'none (records are told apart by their whole row)'
                 ELSE '(' || (SELECT string_agg(quote_ident(k), ', ' ORDER BY n) FROM unnest(key) WITH ORDINALITY u (k, n)) || ')' END
            || CASE WHEN rows IS NOT NULL THEN format('; %s rows logged as they stand', rows)
                    WHEN NOT renewed AND NOT empty THEN '; rows present are not logged (baseline => true does)'
                    ELSE '' END;
    END
    $$;
COMMENT ON FUNCTION audit_log._enable(oid, regclass, name[], name[], name[], text, text[], text, boolean, name, text[], boolean) IS 'enable(), with the caller''s role';

CREATE FUNCTION audit_log.enable(
        table_name regclass,
        exclude name[] DEFAULT NULL, include name[] DEFAULT NULL, mask name[] DEFAULT NULL,
        condition text DEFAULT NULL, actions text[] DEFAULT NULL, on_truncate text DEFAULT NULL,
        baseline boolean DEFAULT NULL, user_column name DEFAULT NULL, require text[] DEFAULT NULL,
        always boolean DEFAULT NULL)
    RETURNS void
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.enable(regclass, name[], name[], name[], text, text[], text, boolean, name, text[], boolean) IS
    'tracks a table: its changes are logged from here on. Left-out arguments keep what is set, ''{}'' clears. Takes SHARE ROW EXCLUSIVE on the table and its partitions';

CREATE FUNCTION audit_log._disable(caller oid, target regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        member regclass;
    BEGIN
        IF target IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
                MESSAGE = 'table_name must not be NULL';
        END IF;
        PERFORM audit_log._check_owner(caller, target);
        PERFORM audit_log._check_no_partition(target);
        IF audit_log._trigger_settings(target, 'audit_log_row') IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('table %s is not audited', target),
                HINT = 'A trigger attached by hand is dropped by DROP TRIGGER.';
        END IF;
        EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', target);
        PERFORM audit_log._register(target, 'disabled', NULL);
        EXECUTE format('DROP TRIGGER audit_log_row ON %s', target);
        FOR member IN SELECT m FROM audit_log._members(target) m LOOP
            PERFORM audit_log._drop_statement_triggers(member);
        END LOOP;
        RAISE NOTICE 'audit_log: % is not tracked any more; its history stays', target;
    END
    $$;
COMMENT ON FUNCTION audit_log._disable(oid, regclass) IS 'disable(), with the caller''s role';

CREATE FUNCTION audit_log._drop_statement_triggers(target regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        name text;
    BEGIN
        FOR name IN SELECT unnest(audit_log._latest('SELECT array_agg(t.tgname) FROM pg_trigger t
                     WHERE t.tgrelid = $1 AND NOT t.tgisinternal
                       AND t.tgfoid IN (''audit_log.capture_flush()''::regprocedure,
                                        ''audit_log.capture_truncate()''::regprocedure)', target)::text[]) LOOP
            EXECUTE format('DROP TRIGGER %I ON %s', name, target);
        END LOOP;
    END
    $$;
COMMENT ON FUNCTION audit_log._drop_statement_triggers(regclass) IS 'drops the statement triggers of one relation';

CREATE FUNCTION audit_log.disable(table_name regclass) RETURNS void
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.disable(regclass) IS
    'stops tracking a table and keeps all its history. Takes ACCESS EXCLUSIVE on the table';

CREATE FUNCTION audit_log._pause(caller oid, target regclass, reason text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF target IS NULL OR reason IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
                MESSAGE = 'table_name and reason must not be NULL';
        END IF;
        PERFORM audit_log._check_owner(caller, target);
        PERFORM audit_log._check_no_partition(target);
        PERFORM audit_log._pause_here(audit_log._register(target, 'paused',
            jsonb_build_object('reason', reason)));
        RAISE NOTICE 'audit_log: changes of % are not logged until this transaction ends', target;
    END
    $$;
COMMENT ON FUNCTION audit_log._pause(oid, regclass, text) IS 'pause(), with the caller''s role';

CREATE FUNCTION audit_log.pause(table_name regclass, reason text) RETURNS void
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.pause(regclass, text) IS
    'nothing of this table is captured in this session until the transaction ends; the gap is logged with its reason';

/* ------------------------------------------------------------ whole schemas */

/* tables that belong to an extension or keep the books of a migration tool */
CREATE FUNCTION audit_log._is_bookkeeping(target regclass) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                        AND d.objid = $1 AND d.deptype = 'e')
            OR (SELECT c.relname IN ('flyway_schema_history', 'schema_version',
                                     'alembic_version',
                                     'schema_migrations', 'ar_internal_metadata',
                                     'django_migrations')
                       OR n.nspname = 'sqitch'
                  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1)
    $$;
COMMENT ON FUNCTION audit_log._is_bookkeeping(regclass) IS 'is the table an extension''s, or the bookkeeping of Flyway, Alembic, Rails, Django or Sqitch?';

/* the part of a schema's list setting that this table has columns for */
CREATE FUNCTION audit_log._columns_there(target regclass, names name[]) RETURNS name[]
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT CASE WHEN $2 IS NULL THEN NULL ELSE coalesce(
            (SELECT array_agg(n) FROM unnest($2) n
              WHERE EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = $1 AND a.attname = n
                             AND a.attnum > 0 AND NOT a.attisdropped)), '{}') END
    $$;
COMMENT ON FUNCTION audit_log._columns_there(regclass, name[]) IS 'those of the names that are columns of the table';

CREATE FUNCTION audit_log._enable_schema(
        caller oid, schema_name name, except_tables regclass[], auto boolean,
        exclude name[], include name[], mask name[], condition text, actions text[],
        on_truncate text, baseline boolean, user_column name, require text[], always boolean)
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        target regclass;
        tracked integer := 0;
        passed integer := 0;
    BEGIN
        IF schema_name IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
                MESSAGE = 'schema_name must not be NULL';
        END IF;
        IF NOT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = schema_name) THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_schema_name',
                MESSAGE = format('schema %I does not exist', schema_name);
        END IF;
        IF schema_name IN ('audit_log', 'pg_catalog', 'information_schema') OR schema_name ~ '^pg_' THEN
            RAISE EXCEPTION USING ERRCODE = 'wrong_object_type',
                MESSAGE = format('cannot audit schema %I', schema_name);
        END IF;
        IF auto THEN
            IF NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = caller) THEN
                RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
                    MESSAGE = 'only a superuser may have new tables audited as they are made';
            END IF;
            IF condition IS NOT NULL AND condition NOT IN ('', '{}') THEN
                RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                    MESSAGE = 'auto takes no condition',
                    HINT = 'Enable the table by itself with its condition.';
            END IF;
        END IF;

        FOR target IN
            SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = schema_name AND c.relkind IN ('r', 'p') AND NOT c.relispartition
               AND c.relpersistence <> 't'
             ORDER BY c.relname
        LOOP
            IF target = ANY (except_tables) OR audit_log._is_bookkeeping(target) THEN
                passed := passed + 1;
                CONTINUE;
            END IF;
            PERFORM audit_log._enable(caller, target,
                audit_log._columns_there(target, exclude),
                -- with none of them there an empty list would log every column: refused by its names
                coalesce(nullif(audit_log._columns_there(target, include), '{}'), include),
                audit_log._columns_there(target, mask), condition, actions, on_truncate, baseline,
                (audit_log._columns_there(target, ARRAY[user_column]))[1], require, always);
            tracked := tracked + 1;
        END LOOP;

        IF auto THEN
            INSERT INTO audit_log.tracked_schema AS s (schema_name, enabled_by, settings)
            VALUES (_enable_schema.schema_name, pg_get_userbyid(caller),
                jsonb_strip_nulls(jsonb_build_object(
                    'exclude', to_jsonb(exclude), 'include', to_jsonb(include), 'mask', to_jsonb(mask),
                    'actions', to_jsonb(actions), 'on_truncate', on_truncate,
                    'user_column', user_column, 'require', to_jsonb(require), 'always', always)))
            -- what is left out keeps what is set, as for the tables
            ON CONFLICT ON CONSTRAINT tracked_schema_pkey DO UPDATE
                SET enabled_by = excluded.enabled_by, settings = s.settings || excluded.settings;
        ELSIF auto IS NOT NULL THEN
            DELETE FROM audit_log.tracked_schema s WHERE s.schema_name = _enable_schema.schema_name;
        END IF;
        RAISE NOTICE 'audit_log: schema %: % tables tracked, % passed over%', quote_ident(schema_name),
            tracked, passed, CASE WHEN auto THEN '; new tables are tracked as they are made' ELSE '' END;
    END
    $$;
COMMENT ON FUNCTION audit_log._enable_schema(oid, name, regclass[], boolean, name[], name[], name[], text, text[], text, boolean, name, text[], boolean) IS 'enable_schema(), with the caller''s role';

CREATE FUNCTION audit_log.enable_schema(
        schema_name name, except_tables regclass[] DEFAULT NULL, auto boolean DEFAULT NULL,
        exclude name[] DEFAULT NULL, include name[] DEFAULT NULL, mask name[] DEFAULT NULL,
        condition text DEFAULT NULL, actions text[] DEFAULT NULL, on_truncate text DEFAULT NULL,
        baseline boolean DEFAULT NULL, user_column name DEFAULT NULL, require text[] DEFAULT NULL,
        always boolean DEFAULT NULL)
    RETURNS void
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.enable_schema(name, regclass[], boolean, name[], name[], name[], text, text[], text, boolean, name, text[], boolean) IS
    'enable() for every table of a schema; with auto also for those made there later (superusers only; false ends it)';

/* ----------------------------------------------------------- event triggers */

/* the partitions that a table has by the word of its states, since it was last enabled */
CREATE FUNCTION audit_log._known_partitions(table_id integer) RETURNS SETOF text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH word AS (
            SELECT s.id, s.kind, s.detail FROM audit_log.table_state s
             WHERE s.table_id = $1
               AND s.id >= (SELECT max(e.id) FROM audit_log.table_state e WHERE e.table_id = $1 AND e.kind = 'enabled'))
        SELECT l.name FROM (
            SELECT DISTINCT ON (w.name) w.name, w.there FROM (
                SELECT word.id, p.name, true AS there
                  FROM word, jsonb_array_elements_text(word.detail -> 'partitions') p (name) WHERE word.kind = 'enabled'
                UNION ALL
                SELECT word.id, word.detail ->> 'former', false FROM word WHERE word.kind = 'renamed' AND word.detail ? 'former'
                UNION ALL
                SELECT word.id, word.detail ->> 'partition', word.kind <> 'partition detached'
                  FROM word WHERE word.kind IN ('partition attached', 'partition detached', 'renamed') AND word.detail ? 'partition') w
             ORDER BY w.name, w.id DESC) l
         WHERE l.there
    $$;
COMMENT ON FUNCTION audit_log._known_partitions(integer) IS 'the names of the partitions that a table has by the word of its states';

/*
 * Partitions are known by name, since their DROP is noticed by name.  Of one
 * ALTER TABLE or ALTER SCHEMA a name that is gone and one that is new are the
 * same partition if the table's own name is the same, or there is one of each.
 */
CREATE FUNCTION audit_log._follow_partition_names(root regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        known text[] := ARRAY(SELECT audit_log._known_partitions(audit_log._table_id(root)));
        actual text[] := ARRAY(SELECT format('%I.%I', n.nspname, c.relname)
                                 FROM audit_log._members(root) m JOIN pg_class c ON c.oid = m
                                 JOIN pg_namespace n ON n.oid = c.relnamespace WHERE m <> root);
        gone text[] := ARRAY(SELECT unnest(known) EXCEPT SELECT unnest(actual) ORDER BY 1);
        come text[] := ARRAY(SELECT unnest(actual) EXCEPT SELECT unnest(known) ORDER BY 1);
        former text;
        now text;
    BEGIN
        FOREACH former IN ARRAY gone LOOP
            SELECT c INTO now FROM unnest(come) c WHERE (parse_ident(c))[2] = (parse_ident(former))[2];
            IF now IS NULL AND cardinality(gone) = 1 AND cardinality(come) = 1 THEN
                now := come[1];
            END IF;
            CONTINUE WHEN now IS NULL;
            PERFORM audit_log._register(root, 'renamed', jsonb_build_object('partition', now, 'former', former));
        END LOOP;
    END
    $$;
COMMENT ON FUNCTION audit_log._follow_partition_names(regclass) IS 'notes partitions that were renamed';

/* a partition that came: its statement triggers, and a state of the root */
CREATE FUNCTION audit_log._follow_attached(root regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        member regclass;
        always boolean := coalesce((audit_log._trigger_settings(root, 'audit_log_row') ->> 'always')::boolean, false);
    BEGIN
        FOR member IN
            SELECT m FROM audit_log._members(root) m
             WHERE m <> root AND NOT EXISTS (
                SELECT FROM pg_trigger t WHERE t.tgrelid = m AND t.tgname = 'audit_log_truncate'
                   AND t.tgfoid = 'audit_log.capture_truncate()'::regprocedure)
             ORDER BY m::text
        LOOP
            IF EXISTS (SELECT FROM pg_class c LEFT JOIN pg_am a ON a.oid = c.relam
                        WHERE c.oid = member AND (c.relkind NOT IN ('r', 'p') OR c.relkind = 'r' AND a.amname <> 'heap')) THEN
                RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
                    MESSAGE = format('cannot make %s a partition of audited table %s', member, root),
                    DETAIL = 'It is not kept by the table access method heap.',
                    HINT = format('Run audit_log.disable(%L) first.', root::text);
            END IF;
            PERFORM audit_log._add_statement_triggers(member, always);
            IF always THEN
                EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER audit_log_row', member);
            END IF;
            PERFORM audit_log._register(root, 'partition attached', jsonb_build_object(
                'partition', (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c
                                JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = member),
                'empty', audit_log._is_empty(member)));
        END LOOP;
    END
    $$;
COMMENT ON FUNCTION audit_log._follow_attached(regclass) IS 'gives new partitions their statement triggers';

/* a table that was detached still has the statement triggers, which nobody cloned */
CREATE FUNCTION audit_log._follow_detached(root regclass, member regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF audit_log._trigger_settings(member, 'audit_log_row') IS NOT NULL THEN
            RETURN;
        END IF;
        PERFORM audit_log._drop_statement_triggers(m) FROM audit_log._members(member) m;
        IF audit_log._trigger_settings(root, 'audit_log_row') IS NOT NULL THEN
            PERFORM audit_log._register(root, 'partition detached', jsonb_build_object(
                'partition', (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c
                                JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = member)));
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._follow_detached(regclass, regclass) IS 'takes our triggers from a partition that was detached';

/* a table made in a schema whose new tables are tracked */
CREATE FUNCTION audit_log._follow_created(target regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        s record;
        enabler oid;
        include name[];
    BEGIN
        SELECT t.settings, t.enabled_by, c.relowner, c.relkind, c.relispartition, c.relpersistence INTO s
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN audit_log.tracked_schema t ON t.schema_name = n.nspname
         WHERE c.oid = target;
        IF NOT FOUND OR s.relkind NOT IN ('r', 'p') OR s.relispartition OR s.relpersistence = 't'
           OR audit_log._is_bookkeeping(target) THEN
            RETURN;
        END IF;
        SELECT r.oid INTO enabler FROM pg_roles r WHERE r.rolname = s.enabled_by;
        IF enabler IS NULL OR NOT pg_has_role(enabler, s.relowner, 'MEMBER') THEN
            RETURN;
        END IF;
        include := ARRAY(SELECT jsonb_array_elements_text(s.settings -> 'include'));
        PERFORM audit_log._enable(enabler, target,
            audit_log._columns_there(target, ARRAY(SELECT jsonb_array_elements_text(s.settings -> 'exclude'))::name[]),
            coalesce(nullif(audit_log._columns_there(target, include), '{}'), include),
            audit_log._columns_there(target, ARRAY(SELECT jsonb_array_elements_text(s.settings -> 'mask'))::name[]),
            NULL,
            CASE WHEN s.settings ? 'actions' THEN ARRAY(SELECT jsonb_array_elements_text(s.settings -> 'actions')) END,
            s.settings ->> 'on_truncate', NOT audit_log._is_empty(target),
            (audit_log._columns_there(target, ARRAY[s.settings ->> 'user_column']::name[]))[1],
            CASE WHEN s.settings ? 'require' THEN ARRAY(SELECT jsonb_array_elements_text(s.settings -> 'require')) END,
            (s.settings ->> 'always')::boolean);
    END
    $$;
COMMENT ON FUNCTION audit_log._follow_created(regclass) IS 'tracks a new table of a schema enabled with auto';

/*
 * Names in tracked_table must never lead to another table: whoever may read
 * that one would read the log of this one.  A table that bears a trigger is
 * known by that; this is for those without one, whose history is kept.
 */
CREATE FUNCTION audit_log._names_are_gone(table_schema text, table_name text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        id integer;
    BEGIN
        FOR id IN UPDATE audit_log.tracked_table t SET dropped_at = clock_timestamp()
                   WHERE t.dropped_at IS NULL AND t.table_schema = $1 AND t.table_name = coalesce($2, t.table_name)
                  RETURNING t.id LOOP
            PERFORM audit_log._note_state(id, 'dropped', NULL);
        END LOOP;
    END
    $$;
COMMENT ON FUNCTION audit_log._names_are_gone(text, text) IS 'notes as dropped the tables known by a name (NULL: by any of the schema) that another table has got';

CREATE FUNCTION audit_log._follow_rename(former_schema text, former_name text, new_schema text, new_name text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        id integer;
    BEGIN
        IF former_schema = new_schema AND former_name = new_name THEN
            RETURN;
        END IF;
        PERFORM audit_log._names_are_gone(new_schema, new_name);
        FOR id IN UPDATE audit_log.tracked_table t
                     SET table_schema = new_schema, table_name = coalesce(new_name, t.table_name)
                   WHERE t.dropped_at IS NULL AND t.table_schema = former_schema
                     AND t.table_name = coalesce(former_name, t.table_name)
                  RETURNING t.id LOOP
            PERFORM audit_log._note_state(id, 'renamed', NULL);
        END LOOP;
    END
    $$;
COMMENT ON FUNCTION audit_log._follow_rename(text, text, text, text) IS 'writes a new name into tracked_table; NULL as name: every table of the schema';

/*
 * What is changed while a trigger is switched off is missing from the log, and
 * once it fires again nothing in the catalogs tells.  So both are noted.  Not
 * in a data-only restore with --disable-triggers: there the log's rows come
 * with the tables' own, and before its sequences.
 */
CREATE FUNCTION audit_log._note_switched(root regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        wanted integer := audit_log._table_id(root);
        began bigint;
        latest text;
        off jsonb;
        noted jsonb;
    BEGIN
        SELECT s.id, s.kind INTO began, latest FROM audit_log.table_state s
         WHERE s.table_id = wanted AND s.kind IN ('enabled', 'disabled') ORDER BY s.id DESC LIMIT 1;
        IF latest = 'disabled' OR wanted IS NULL
           OR (latest IS NULL AND audit_log._trigger_settings(root, 'audit_log_row') IS NULL)
           OR (SELECT max(s.id) FROM audit_log.table_state s) > (SELECT q.last_value FROM audit_log.table_state_id_seq q) THEN
            RETURN;
        END IF;
        SELECT coalesce(jsonb_agg(DISTINCT format('%I.%I', n.nspname, c.relname)), '[]') INTO off
          FROM audit_log._members(root) m JOIN pg_class c ON c.oid = m JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_trigger t ON t.tgrelid = m AND t.tgenabled IN ('D', 'R')
           AND t.tgname IN ('audit_log_row', 'audit_log_truncate')
           AND t.tgfoid IN ('audit_log.capture()'::regprocedure, 'audit_log.capture_truncate()'::regprocedure);
        SELECT s.detail -> 'disabled' INTO noted FROM audit_log.table_state s
         WHERE s.table_id = wanted AND s.id > coalesce(began, 0) AND s.kind = 'gap' AND s.detail ? 'disabled'
         ORDER BY s.id DESC LIMIT 1;
        IF off IS DISTINCT FROM coalesce(noted, '[]') THEN
            PERFORM audit_log._note_state(wanted, 'gap', jsonb_build_object('disabled', off, 'reason',
                CASE off WHEN '[]' THEN 'triggers fire again' ELSE 'triggers are disabled' END));
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._note_switched(regclass) IS 'notes a gap where triggers of a table or its partitions were disabled, and where they fire again';

CREATE FUNCTION audit_log._on_ddl_command_end(caller oid, renamed text, unfollowed boolean, attaching boolean, detached oid)
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        command record;
        target regclass;
        root regclass;
        schema text;
        name text;
        former text[];
    BEGIN
        FOR command IN SELECT DISTINCT c.classid, c.objid, c.command_tag, c.object_identity
                         FROM pg_event_trigger_ddl_commands() c
                        WHERE c.classid IN ('pg_class'::regclass, 'pg_namespace'::regclass)
                          AND c.object_type IN ('table', 'table column', 'foreign table', 'schema')
                        UNION
                       -- ALTER TYPE … CASCADE alters the tables OF the type
                       SELECT c.classid, t.oid, 'ALTER TABLE', NULL
                         FROM pg_event_trigger_ddl_commands() c
                         JOIN pg_class y ON c.classid = 'pg_class'::regclass AND y.oid = c.objid AND y.relkind = 'c'
                         JOIN pg_class t ON t.reloftype = y.reltype AND t.relkind IN ('r', 'p') LOOP
            IF command.classid = 'pg_namespace'::regclass THEN
                SELECT n.nspname INTO schema FROM pg_namespace n WHERE n.oid = command.objid;
                IF renamed <> '' THEN
                    DELETE FROM audit_log.tracked_schema s WHERE s.schema_name = schema;
                    UPDATE audit_log.tracked_schema s SET schema_name = schema WHERE s.schema_name = renamed;
                    PERFORM audit_log._follow_rename(renamed, NULL, schema, NULL);
                ELSIF command.command_tag = 'CREATE SCHEMA' THEN
                    PERFORM audit_log._names_are_gone(schema, NULL);
                END IF;
                FOR target IN SELECT DISTINCT coalesce((SELECT r.relid
                                        FROM pg_partition_ancestors(c.oid) WITH ORDINALITY r
                                       ORDER BY r.ordinality DESC LIMIT 1), c.oid)
                                FROM pg_class c JOIN pg_trigger t ON t.tgrelid = c.oid
                               WHERE c.relnamespace = command.objid
                                 AND t.tgfoid = 'audit_log.capture()'::regprocedure LOOP
                    IF audit_log._follow(target) AND audit_log._trigger_settings(target, 'audit_log_row') IS NOT NULL
                       AND (SELECT c.relkind = 'p' FROM pg_class c WHERE c.oid = target) THEN
                        PERFORM audit_log._follow_partition_names(target);
                    END IF;
                END LOOP;
                CONTINUE;
            END IF;
            target := command.objid::regclass;
            CONTINUE WHEN NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = target);
            SELECT r.relid INTO root FROM pg_partition_ancestors(target) WITH ORDINALITY r
             ORDER BY r.ordinality DESC LIMIT 1;
            root := coalesce(root, target);
            IF unfollowed THEN
                PERFORM audit_log._note_switched(root);
                CONTINUE;
            END IF;
            -- of a partition by itself only names and triggers are followed; a look at its sisters
            -- would make the commands of a restore in parallel wait for each other
            CONTINUE WHEN root <> target AND renamed IS NULL AND (SELECT c.relkind = 'r' FROM pg_class c WHERE c.oid = target)
                AND command.command_tag = 'ALTER TABLE' AND NOT EXISTS (
                    SELECT FROM pg_trigger t WHERE t.tgrelid = target AND t.tgenabled IN ('D', 'R')
                       AND t.tgfoid IN ('audit_log.capture()'::regprocedure, 'audit_log.capture_truncate()'::regprocedure));
            SELECT n.nspname, c.relname INTO schema, name
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = target;
            IF command.command_tag IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO') THEN
                PERFORM audit_log._names_are_gone(schema, name);
                -- one that our snapshot is too old to see has the name: its log is not for readers of this one
                IF audit_log._latest('SELECT audit_log._table_id($1)', target) IS NOT NULL THEN
                    RAISE EXCEPTION USING ERRCODE = 'serialization_failure',
                        MESSAGE = format('could not serialize access: a table %s was registered meanwhile', target);
                END IF;
                PERFORM audit_log._follow_created(target);
            ELSIF renamed IS NOT NULL THEN
                former := audit_log._former_name(target);
                PERFORM audit_log._follow_rename(former[1], former[2], schema, name);
            END IF;
            IF audit_log._follow(root) AND audit_log._trigger_settings(root, 'audit_log_row') IS NOT NULL
               AND (SELECT c.relkind = 'p' FROM pg_class c WHERE c.oid = root) THEN
                IF attaching THEN
                    PERFORM audit_log._follow_attached(root);
                END IF;
                PERFORM audit_log._follow_partition_names(root);
            END IF;
            IF command.command_tag = 'ALTER TABLE' THEN
                PERFORM audit_log._note_switched(root);
            END IF;
            IF detached <> 0 THEN
                PERFORM audit_log._follow_detached(root, detached);
            END IF;
        END LOOP;
    END
    $$;
COMMENT ON FUNCTION audit_log._on_ddl_command_end(oid, text, boolean, boolean, oid) IS 'follows ALTER TABLE, partitions, and new tables; renamed is empty where a table, else the former name where a schema was renamed; unfollowed where only triggers may have been switched; attaching where a partition may have come; detached is the table that was';

CREATE FUNCTION audit_log._on_sql_drop(caller oid, renamed text, unfollowed boolean, attaching boolean, detached oid)
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        dropped record;
        id integer;
        identity text;
    BEGIN
        FOR dropped IN SELECT o.schema_name, o.object_name, o.object_type FROM pg_event_trigger_dropped_objects() o
                        WHERE o.object_type IN ('table', 'schema') AND NOT o.is_temporary
                       UNION ALL
                       -- the trigger alone, of a table that stays
                       SELECT o.address_names[1], o.address_names[2], o.address_names[3] FROM pg_event_trigger_dropped_objects() o
                        WHERE o.object_type = 'trigger' AND o.address_names[3] IN ('audit_log_row', 'audit_log_truncate') LOOP
            IF dropped.object_type IN ('audit_log_row', 'audit_log_truncate') THEN
                -- a partition has the latter of its own, and the former of its root
                SELECT t.id INTO id FROM pg_namespace n
                  JOIN pg_class c ON c.relnamespace = n.oid
                  JOIN audit_log.tracked_table t ON t.id = audit_log._table_id(coalesce(
                           (SELECT r.relid FROM pg_partition_ancestors(c.oid) WITH ORDINALITY r
                             ORDER BY r.ordinality DESC LIMIT 1), c.oid))
                 WHERE n.nspname = dropped.schema_name AND c.relname = dropped.object_name
                   AND (dropped.object_type = 'audit_log_truncate' OR NOT c.relispartition)
                   AND (SELECT s.kind FROM audit_log.table_state s WHERE s.table_id = t.id
                           AND s.kind IN ('enabled', 'disabled') ORDER BY s.id DESC LIMIT 1) IS DISTINCT FROM 'disabled';
                IF FOUND THEN
                    PERFORM audit_log._note_state(id, 'gap', '{"reason": "a trigger was dropped"}');
                END IF;
                CONTINUE;
            END IF;
            IF dropped.object_type = 'schema' THEN
                DELETE FROM audit_log.tracked_schema s WHERE s.schema_name = dropped.object_name;
                CONTINUE;
            END IF;
            UPDATE audit_log.tracked_table t SET dropped_at = clock_timestamp()
             WHERE t.table_schema = dropped.schema_name AND t.table_name = dropped.object_name
               AND t.dropped_at IS NULL
               AND NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                                WHERE n.nspname = t.table_schema AND c.relname = t.table_name)
            RETURNING t.id INTO id;
            IF FOUND THEN
                PERFORM audit_log._note_state(id, 'dropped', NULL);
                CONTINUE;
            END IF;
            -- a partition: the table whose latest word on that name is that it is there
            identity := format('%I.%I', dropped.schema_name, dropped.object_name);
            FOR id IN
                SELECT t.id FROM audit_log.tracked_table t
                 WHERE t.dropped_at IS NULL
                   AND EXISTS (SELECT FROM audit_log.table_state s WHERE s.table_id = t.id
                                AND (s.detail ->> 'partition' = identity OR s.detail -> 'partitions' ? identity))
                   AND identity IN (SELECT audit_log._known_partitions(t.id))
            LOOP
                PERFORM audit_log._note_state(id, 'partition detached',
                    jsonb_build_object('partition', identity, 'dropped', true));
            END LOOP;
        END LOOP;
    END
    $$;
COMMENT ON FUNCTION audit_log._on_sql_drop(oid, text, boolean, boolean, oid) IS 'notes dropped tables, partitions and schemas';

CREATE FUNCTION audit_log.on_ddl_command_end() RETURNS event_trigger
    LANGUAGE C AS 'MODULE_PATHNAME', 'audit_log_on_event';
COMMENT ON FUNCTION audit_log.on_ddl_command_end() IS 'follows ALTER TABLE, partitions, and new tables';
CREATE FUNCTION audit_log.on_sql_drop() RETURNS event_trigger
    LANGUAGE C AS 'MODULE_PATHNAME', 'audit_log_on_event';
COMMENT ON FUNCTION audit_log.on_sql_drop() IS 'notes dropped tables, partitions and schemas';

/* ------------------------------------------------------------------ reading */

/*
 * The tables that the caller may see.  Those dropped are for superusers and
 * the installing role.
 */
CREATE VIEW audit_log.visible_table WITH (security_barrier) AS
    SELECT t.id, t.table_schema, t.table_name, t.settings, t.dropped_at, r.oid::regclass AS relation
      FROM audit_log.tracked_table t
      LEFT JOIN (pg_catalog.pg_namespace n
                 JOIN pg_catalog.pg_class r ON r.relnamespace = n.oid AND r.relkind IN ('r', 'p'))
             ON t.dropped_at IS NULL AND n.nspname = t.table_schema AND r.relname = t.table_name
     WHERE CASE WHEN r.oid IS NULL THEN audit_log._is_keeper()
                ELSE audit_log._may_read(r.oid::regclass) END;

CREATE VIEW audit_log.audit_logs WITH (security_barrier) AS
    SELECT c.id, c.timestamp, t.user_id, c.action_type::text AS action_type,
           v.table_schema, v.table_name, c.record_id, c.changes, c.transaction_id, c.command,
           c.old_record_id, v.relation, t.db_user, t.db_role, t.application_name, t.client_addr,
           t.context, t.undoes
      FROM audit_log.change c
      JOIN audit_log.visible_table v ON v.id = c.table_id
      JOIN audit_log.transaction t ON t.id = c.transaction_id;

CREATE VIEW audit_log.column_changes WITH (security_barrier) AS
    SELECT l.id AS change_id, l.timestamp, l.user_id, l.action_type, l.table_schema, l.table_name,
           l.relation, l.record_id, l.transaction_id, k.column_name, k.path, k.old_value, k.new_value
      FROM audit_log.audit_logs l,
           LATERAL audit_log.change_columns(l.changes, l.action_type) k;

CREATE VIEW audit_log.transactions WITH (security_barrier) AS
    SELECT t.id, t.xid, t.timestamp, t.user_id, t.db_user, t.db_role, t.application_name,
           t.client_addr, t.context, t.undoes, s.changes, s.tables
      FROM audit_log.transaction t,
           LATERAL (SELECT pg_catalog.count(*) AS changes,
                           pg_catalog.array_agg(DISTINCT v.relation) FILTER (WHERE v.relation IS NOT NULL) AS tables
                      FROM audit_log.change c JOIN audit_log.visible_table v ON v.id = c.table_id
                     WHERE c.transaction_id = t.id) s
     WHERE s.changes > 0
     ORDER BY t.id DESC;

CREATE VIEW audit_log.tracked_tables WITH (security_barrier) AS
    SELECT v.relation, v.table_schema, v.table_name, v.settings,
           (SELECT s.timestamp FROM audit_log.table_state s
             WHERE s.table_id = v.id AND s.kind = 'enabled' ORDER BY s.id DESC LIMIT 1) AS enabled_at,
           NOT EXISTS (
               SELECT FROM pg_catalog.pg_partition_tree(v.relation) p
                FULL JOIN (VALUES (v.relation)) self (relid) ON self.relid = p.relid
                CROSS JOIN (VALUES ('audit_log_row', 'audit_log.capture()'::pg_catalog.regprocedure),
                                   ('audit_log_flush', 'audit_log.capture_flush()'::pg_catalog.regprocedure),
                                   ('audit_log_truncate', 'audit_log.capture_truncate()'::pg_catalog.regprocedure))
                           w (trigger_name, function)
                WHERE NOT EXISTS (
                    SELECT FROM pg_catalog.pg_trigger g
                     WHERE g.tgrelid = coalesce(p.relid, self.relid) AND g.tgname = w.trigger_name
                       AND g.tgfoid = w.function AND g.tgenabled IN ('O', 'A')))
               AND v.relation IS NOT NULL AS triggers_ok,
           e.changes::bigint AS estimated_changes, e.bytes::bigint AS estimated_bytes,
           (SELECT c.timestamp FROM audit_log.change c
             WHERE c.table_id = v.id ORDER BY c.id >> 8 DESC, c.id DESC LIMIT 1) AS last_change
      FROM audit_log.visible_table v
      LEFT JOIN LATERAL (
          SELECT sum(m.share * p.reltuples) AS changes,
                 sum(m.share * pg_catalog.pg_total_relation_size(p.oid)) AS bytes
            FROM pg_catalog.pg_inherits i
            JOIN pg_catalog.pg_class p ON p.oid = i.inhrelid
            JOIN pg_catalog.pg_attribute a ON a.attrelid = p.oid AND a.attname = 'table_id'
            JOIN pg_catalog.pg_statistic s ON s.starelid = p.oid AND s.staattnum = a.attnum AND NOT s.stainherit
           CROSS JOIN LATERAL (
               SELECT f.share FROM (
                   SELECT CASE 1 WHEN s.stakind1 THEN s.stavalues1::text WHEN s.stakind2 THEN s.stavalues2::text
                                 WHEN s.stakind3 THEN s.stavalues3::text END::integer[] AS ids,
                          CASE 1 WHEN s.stakind1 THEN s.stanumbers1 WHEN s.stakind2 THEN s.stanumbers2
                                 WHEN s.stakind3 THEN s.stanumbers3 END AS shares) mcv,
                   LATERAL ROWS FROM (pg_catalog.unnest(mcv.ids), pg_catalog.unnest(mcv.shares)) f (id, share)
                WHERE f.id = v.id) m
           WHERE i.inhparent = 'audit_log.change'::pg_catalog.regclass AND p.reltuples > 0) e ON true
     WHERE EXISTS (SELECT FROM audit_log.table_state s WHERE s.table_id = v.id);

COMMENT ON VIEW audit_log.visible_table IS 'the tracked tables that the caller may read in full';
COMMENT ON VIEW audit_log.audit_logs IS 'the log, one row a change, with who and why; of the tables that the caller may read in full';
COMMENT ON VIEW audit_log.column_changes IS 'the log, one row a changed value; inside JSON objects with the path to it';
COMMENT ON VIEW audit_log.transactions IS 'who made changes and why, with how many and in which tables';
COMMENT ON VIEW audit_log.tracked_tables IS 'what is or was tracked: settings, whether the triggers are in order, and estimates from the planner''s statistics (NULL before ANALYZE)';

CREATE FUNCTION audit_log._check_readable(caller oid, target regclass) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF NOT audit_log._may_read(target, caller) THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
                MESSAGE = format('permission denied for the log of table %s', target),
                DETAIL = 'The log of a table is for those who may SELECT all its columns, with no row security in between.';
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._check_readable(oid, regclass) IS 'refuses whoever may not read the table in full';

/* the id of the tracked table that bears this relation's name */
CREATE FUNCTION audit_log._table_id(target regclass) RETURNS integer
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT t.id FROM audit_log.tracked_table t, pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = $1 AND c.relkind IN ('r', 'p')
           AND t.table_schema = n.nspname AND t.table_name = c.relname AND t.dropped_at IS NULL
    $$;
COMMENT ON FUNCTION audit_log._table_id(regclass) IS 'id of the tracked table of that relation, NULL if there is none';

CREATE FUNCTION audit_log._table_changes(caller oid, target regclass, max_rows integer, before_id bigint)
    RETURNS SETOF audit_log.audit_logs
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        wanted integer;
        schema text;
        name text;
        before bigint := coalesce(before_id, 9223372036854775807);
    BEGIN
        PERFORM audit_log._check_readable(caller, target);
        SELECT t.id, t.table_schema, t.table_name INTO wanted, schema, name
          FROM audit_log.tracked_table t WHERE t.id = audit_log._table_id(target);
        RETURN QUERY
            SELECT c.id, c.timestamp, t.user_id, c.action_type::text, schema, name, c.record_id, c.changes,
                   c.transaction_id, c.command, c.old_record_id, target, t.db_user, t.db_role,
                   t.application_name, t.client_addr, t.context, t.undoes
              FROM (SELECT * FROM audit_log.change h
                     WHERE h.table_id = wanted AND h.id < before AND h.id >> 8 <= before >> 8
                     ORDER BY h.id >> 8 DESC, h.id DESC LIMIT max_rows) c
              JOIN audit_log.transaction t ON t.id = c.transaction_id
             ORDER BY c.id DESC;
    END
    $$;
COMMENT ON FUNCTION audit_log._table_changes(oid, regclass, integer, bigint) IS 'table_changes(), with the caller''s role';

CREATE FUNCTION audit_log.table_changes(table_name regclass, max_rows integer DEFAULT 50, before_id bigint DEFAULT NULL)
    RETURNS SETOF audit_log.audit_logs
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.table_changes(regclass, integer, bigint) IS
    'the newest changes of a table, newest first; before_id, an id of the page before, goes on from there';

CREATE FUNCTION audit_log._user_changes(caller oid, user_id text, from_time timestamptz, to_time timestamptz, max_rows integer)
    RETURNS SETOF audit_log.audit_logs
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
    #variable_conflict use_variable
    DECLARE
        row record;
        n integer := 0;
    BEGIN
        -- newest transaction first, so that no more is read than is returned
        FOR row IN
            SELECT c.id, c.timestamp, t.user_id AS who, c.action_type::text AS action_type, k.table_schema, k.table_name,
                   c.record_id, c.changes, c.transaction_id, c.command, c.old_record_id, r.oid AS relation,
                   t.db_user, t.db_role, t.application_name, t.client_addr, t.context, t.undoes
              FROM (SELECT * FROM audit_log.transaction x
                     WHERE "left"(x.user_id, 200) = "left"(_user_changes.user_id, 200)
                       AND x.user_id = _user_changes.user_id
                       AND x.timestamp >= coalesce(from_time, '-infinity')
                       AND x.timestamp < coalesce(to_time, 'infinity')
                     ORDER BY x.timestamp DESC) t
             CROSS JOIN LATERAL (SELECT * FROM audit_log.change h WHERE h.transaction_id = t.id
                                  ORDER BY h.id DESC) c
              JOIN audit_log.tracked_table k ON k.id = c.table_id
              LEFT JOIN (pg_namespace n JOIN pg_class r ON r.relnamespace = n.oid AND r.relkind IN ('r', 'p'))
                     ON k.dropped_at IS NULL AND n.nspname = k.table_schema AND r.relname = k.table_name
             WHERE CASE WHEN r.oid IS NULL THEN audit_log._is_keeper(caller)
                        ELSE audit_log._may_read(r.oid::regclass, caller) END
        LOOP
            EXIT WHEN n >= max_rows;
            n := n + 1;
            RETURN QUERY SELECT row.id, row.timestamp, row.who, row.action_type, row.table_schema, row.table_name,
                row.record_id, row.changes, row.transaction_id, row.command, row.old_record_id, row.relation::regclass,
                row.db_user, row.db_role, row.application_name, row.client_addr, row.context, row.undoes;
        END LOOP;
    END
    $$;
COMMENT ON FUNCTION audit_log._user_changes(oid, text, timestamptz, timestamptz, integer) IS 'user_changes(), with the caller''s role';

CREATE FUNCTION audit_log.user_changes(user_id text, from_time timestamptz DEFAULT NULL,
        to_time timestamptz DEFAULT NULL, max_rows integer DEFAULT 50)
    RETURNS SETOF audit_log.audit_logs
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.user_changes(text, timestamptz, timestamptz, integer) IS
    'the newest changes of a user, newest first, of the transaction rows that began in [from_time, to_time)';

CREATE FUNCTION audit_log.rebuild(anyelement) RETURNS SETOF anyelement
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_rebuild';
COMMENT ON FUNCTION audit_log.rebuild(anyelement) IS
    'a table''s rows, made from the log alone: rebuild(NULL::mine). Error 55000 where something was not captured';

/* ------------------------------------------------------------------- rights */

CREATE FUNCTION audit_log._reader_objects() RETURNS SETOF text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT unnest(ARRAY[
            'TABLE audit_log.visible_table', 'TABLE audit_log.audit_logs', 'TABLE audit_log.column_changes',
            'TABLE audit_log.transactions', 'TABLE audit_log.tracked_tables',
            'FUNCTION audit_log.table_changes(regclass, integer, bigint)',
            'FUNCTION audit_log.user_changes(text, timestamptz, timestamptz, integer)',
            'FUNCTION audit_log.rebuild(anyelement)'])
    $$;
COMMENT ON FUNCTION audit_log._reader_objects() IS 'what grant_read() grants';

CREATE FUNCTION audit_log._admin_objects() RETURNS SETOF text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT unnest(ARRAY[
            'FUNCTION audit_log.enable(regclass, name[], name[], name[], text, text[], text, boolean, name, text[], boolean)',
            'FUNCTION audit_log.enable_schema(name, regclass[], boolean, name[], name[], name[], text, text[], text, boolean, name, text[], boolean)',
            'FUNCTION audit_log.disable(regclass)',
            'FUNCTION audit_log.pause(regclass, text)',
            'FUNCTION audit_log.capture()',
            'FUNCTION audit_log.check()'])
    $$;
COMMENT ON FUNCTION audit_log._admin_objects() IS 'what grant_admin() grants';

/* grants or revokes what belongs to readers or admins; for keepers */
CREATE FUNCTION audit_log._set_grants(caller oid, role regrole, objects text[], granting boolean) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        object text;
    BEGIN
        IF NOT audit_log._is_keeper(caller) THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
                MESSAGE = 'only a superuser or the role that installed audit_log may grant rights to it';
        END IF;
        IF role IS NULL OR role::oid = 0 THEN
            RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'role must not be NULL';
        END IF;
        FOREACH object IN ARRAY objects LOOP
            EXECUTE format(CASE WHEN granting THEN 'GRANT %s ON %s TO %s' ELSE 'REVOKE %s ON %s FROM %s CASCADE' END,
                CASE WHEN object LIKE 'TABLE %' THEN 'SELECT' ELSE 'EXECUTE' END, object, role);
        END LOOP;
    END
    $$;
COMMENT ON FUNCTION audit_log._set_grants(oid, regrole, text[], boolean) IS 'grants or revokes rights of readers or admins';

CREATE FUNCTION audit_log._grant_read(caller oid, role regrole) RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp
    AS $$ SELECT audit_log._set_grants($1, $2, ARRAY(SELECT audit_log._reader_objects()), true) $$;
CREATE FUNCTION audit_log._revoke_read(caller oid, role regrole) RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp
    AS $$ SELECT audit_log._set_grants($1, $2, ARRAY(SELECT audit_log._reader_objects()), false) $$;
CREATE FUNCTION audit_log._grant_admin(caller oid, role regrole) RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp
    AS $$ SELECT audit_log._set_grants($1, $2, ARRAY(SELECT audit_log._admin_objects()), true) $$;
CREATE FUNCTION audit_log._revoke_admin(caller oid, role regrole) RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp
    AS $$ SELECT audit_log._set_grants($1, $2, ARRAY(SELECT audit_log._admin_objects()), false) $$;
COMMENT ON FUNCTION audit_log._grant_read(oid, regrole) IS 'grant_read(), with the caller''s role';
COMMENT ON FUNCTION audit_log._revoke_read(oid, regrole) IS 'revoke_read(), with the caller''s role';
COMMENT ON FUNCTION audit_log._grant_admin(oid, regrole) IS 'grant_admin(), with the caller''s role';
COMMENT ON FUNCTION audit_log._revoke_admin(oid, regrole) IS 'revoke_admin(), with the caller''s role';

CREATE FUNCTION audit_log.grant_read(role regrole) RETURNS void
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
CREATE FUNCTION audit_log.revoke_read(role regrole) RETURNS void
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
CREATE FUNCTION audit_log.grant_admin(role regrole) RETURNS void
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
CREATE FUNCTION audit_log.revoke_admin(role regrole) RETURNS void
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.grant_read(regrole) IS 'lets a role use the views: it sees the log of the tables that it may read in full';
COMMENT ON FUNCTION audit_log.revoke_read(regrole) IS 'takes back grant_read()';
COMMENT ON FUNCTION audit_log.grant_admin(regrole) IS 'lets a role track and untrack the tables that it owns';
COMMENT ON FUNCTION audit_log.revoke_admin(regrole) IS 'takes back grant_admin()';

CREATE FUNCTION audit_log._mask_key(caller oid, key bytea) RETURNS bytea
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    #variable_conflict use_column
    BEGIN
        IF NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = caller) THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
                MESSAGE = 'only a superuser may read or set the mask key';
        END IF;
        IF _mask_key.key IS NOT NULL THEN
            IF octet_length(_mask_key.key) < 16 THEN
                RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                    MESSAGE = 'a mask key needs at least 16 bytes';
            END IF;
            PERFORM audit_log._set_mask_key(_mask_key.key);
        END IF;
        RETURN (SELECT s.key FROM audit_log.mask_secret s);
    END
    $$;
COMMENT ON FUNCTION audit_log._mask_key(oid, bytea) IS 'mask_key(), with the caller''s role';

CREATE FUNCTION audit_log.mask_key(key bytea DEFAULT NULL) RETURNS bytea
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.mask_key(bytea) IS
    'reads, or with an argument sets, the key under which masked values are hashed (superusers only); no dump carries it, so keep it elsewhere';

/* -------------------------------------------------------------- maintenance */

CREATE FUNCTION audit_log._maintain(caller oid, keep interval, expired text) RETURNS void
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
COMMENT ON FUNCTION audit_log._maintain(oid, interval, text) IS 'maintain(), with the caller''s role';

CREATE PROCEDURE audit_log.maintain(keep interval DEFAULT NULL, expired text DEFAULT 'detach')
    LANGUAGE C AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON PROCEDURE audit_log.maintain(interval, text) IS
    'makes the log''s partitions of the coming year; with keep, detaches (or drops) those whose month ended longer ago';

CREATE FUNCTION audit_log._bearer(uid uuid) RETURNS regclass
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT min(c.oid)::regclass FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
         WHERE t.tgfoid = 'audit_log.capture()'::regprocedure AND NOT c.relispartition
           AND starts_with(encode(t.tgargs, 'escape'), 'table=' || $1 || '\000')
           AND audit_log._table_id(c.oid) IS NULL
        HAVING count(DISTINCT c.oid) = 1
    $$;
COMMENT ON FUNCTION audit_log._bearer(uuid) IS 'the one table whose trigger names this identity, and that is not known by its own name';

/* for the script, and for repair() */
CREATE FUNCTION audit_log._make_event_trigger(name text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        EXECUTE CASE name
            WHEN 'audit_log_attach' THEN
                $q$CREATE EVENT TRIGGER audit_log_attach ON ddl_command_start WHEN TAG IN ('ALTER TABLE')
                   EXECUTE FUNCTION audit_log.on_ddl_command_start()$q$
            WHEN 'audit_log_ddl' THEN
                $q$CREATE EVENT TRIGGER audit_log_ddl ON ddl_command_end
                   WHEN TAG IN ('ALTER TABLE', 'ALTER INDEX', 'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO',
                                'CREATE FOREIGN TABLE', 'CREATE SCHEMA', 'ALTER SCHEMA', 'ALTER TYPE')
                   EXECUTE FUNCTION audit_log.on_ddl_command_end()$q$
            -- of every command: DROP TYPE … CASCADE, say, drops tables too
            WHEN 'audit_log_drop' THEN
                $q$CREATE EVENT TRIGGER audit_log_drop ON sql_drop EXECUTE FUNCTION audit_log.on_sql_drop()$q$
            END;
    END
    $$;
COMMENT ON FUNCTION audit_log._make_event_trigger(text) IS 'makes the event trigger of that name';

CREATE FUNCTION audit_log._check(caller oid, OUT relation text, OUT problem text, OUT remedy text) RETURNS SETOF record
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
                             'audit_log.mask_secret'::regclass)
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
          FROM unnest(ARRAY['audit_log_attach', 'audit_log_ddl', 'audit_log_drop']) e (name)
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
    $$;
COMMENT ON FUNCTION audit_log._check(oid) IS 'check(), with the caller''s role';

CREATE FUNCTION audit_log.check(OUT relation text, OUT problem text, OUT remedy text) RETURNS SETOF record
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.check() IS
    'what would make the audit untrue: missing or disabled triggers and guards, no partition ahead; no row means all is well';

CREATE FUNCTION audit_log._repair(caller oid) RETURNS integer
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        target record;
        repaired integer := 0;
    BEGIN
        IF NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = caller) THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
                MESSAGE = 'only a superuser may repair the log''s guards';
        END IF;
        FOR target IN SELECT e.name FROM unnest(ARRAY['audit_log_attach', 'audit_log_ddl', 'audit_log_drop']) e (name)
                       WHERE NOT EXISTS (SELECT FROM pg_event_trigger v WHERE v.evtname = e.name) LOOP
            PERFORM audit_log._make_event_trigger(target.name);
            EXECUTE format('ALTER EXTENSION audit_log ADD EVENT TRIGGER %I', target.name);
            repaired := repaired + 1;
        END LOOP;
        FOR target IN SELECT k.relation::regclass AS relid FROM audit_log._check(caller) k WHERE k.problem LIKE 'the guard %' LOOP
            PERFORM audit_log._add_guard(target.relid);
            repaired := repaired + 1;
        END LOOP;
        FOR target IN SELECT k.relation::regclass AS relid, k.problem FROM audit_log._check(caller) k
                       WHERE k.problem LIKE 'trigger % is no longer ALWAYS' LOOP
            EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER %I', target.relid, split_part(target.problem, ' ', 2));
            repaired := repaired + 1;
        END LOOP;
        FOR target IN SELECT t.id, audit_log._bearer(t.uid) AS relid FROM audit_log.tracked_table t
                       WHERE t.dropped_at IS NULL AND NOT EXISTS (
                           SELECT FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
                            WHERE n.nspname = t.table_schema AND c.relname = t.table_name
                              AND c.relkind IN ('r', 'p')) LOOP
            IF target.relid IS NOT NULL THEN
                PERFORM audit_log._register(target.relid, NULL, NULL);
            ELSE
                UPDATE audit_log.tracked_table t SET dropped_at = clock_timestamp() WHERE t.id = target.id;
                PERFORM audit_log._note_state(target.id, 'dropped', NULL);
            END IF;
            repaired := repaired + 1;
        END LOOP;
        RETURN repaired;
    END
    $$;
COMMENT ON FUNCTION audit_log._repair(oid) IS 'repair(), with the caller''s role';

CREATE FUNCTION audit_log.repair() RETURNS integer
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.repair() IS
    'sets guards and always triggers that a restore with --disable-triggers has left as ordinary ones, makes missing event triggers, and notes tables that are gone or were renamed unnoticed (superusers only); returns how many';

/* ---------------------------------------------------- what the script makes */

SELECT audit_log._prepare_partition('audit_log.change_default');
SELECT audit_log._add_guard(t) FROM pg_catalog.unnest(ARRAY['audit_log.transaction', 'audit_log.change',
    'audit_log.tracked_table', 'audit_log.table_state', 'audit_log.mask_secret']::pg_catalog.regclass[]) t;

CREATE FUNCTION audit_log.on_ddl_command_start() RETURNS event_trigger
    LANGUAGE C AS 'MODULE_PATHNAME', 'audit_log_on_ddl_command_start';
COMMENT ON FUNCTION audit_log.on_ddl_command_start() IS 'refuses to attach a table that is audited by itself';
SELECT audit_log._make_event_trigger(e) FROM pg_catalog.unnest(ARRAY['audit_log_attach', 'audit_log_ddl', 'audit_log_drop']) e;
COMMENT ON EVENT TRIGGER audit_log_attach IS 'audit_log refuses to attach a table that is audited by itself';
COMMENT ON EVENT TRIGGER audit_log_ddl IS 'audit_log follows renames, columns, partitions and new tables';
COMMENT ON EVENT TRIGGER audit_log_drop IS 'audit_log notes tables, partitions and schemas that are gone';

/* all that the script has made is closed; then opened for whom it is meant */
DO $$
DECLARE
    object record;
    installer name := (SELECT pg_catalog.pg_get_userbyid(e.extowner) FROM pg_catalog.pg_extension e
                        WHERE e.extname = 'audit_log');
BEGIN
    FOR object IN
        SELECT 'ROUTINE ' || p.oid::pg_catalog.regprocedure AS name, a.grantee
          FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace,
               LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
         WHERE n.nspname = 'audit_log' AND a.grantee <> p.proowner
        UNION
        SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::pg_catalog.regclass, a.grantee
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace,
               LATERAL pg_catalog.aclexplode(c.relacl) a
         WHERE n.nspname = 'audit_log' AND c.relkind IN ('r', 'p', 'v', 'S') AND a.grantee <> c.relowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s CASCADE', object.name,
            CASE WHEN object.grantee = 0 THEN 'PUBLIC'
                 ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(object.grantee)) END);
    END LOOP;

    EXECUTE pg_catalog.format('GRANT SELECT ON ALL TABLES IN SCHEMA audit_log TO %I', installer);
    EXECUTE pg_catalog.format('GRANT SELECT ON ALL SEQUENCES IN SCHEMA audit_log TO %I', installer);
    IF NOT (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = installer) THEN
        EXECUTE pg_catalog.format('REVOKE ALL ON audit_log.mask_secret FROM %I', installer);
    END IF;
    FOR object IN SELECT audit_log._reader_objects() AS name UNION ALL SELECT audit_log._admin_objects() UNION ALL
        SELECT pg_catalog.unnest(ARRAY['FUNCTION audit_log.grant_read(regrole)', 'FUNCTION audit_log.revoke_read(regrole)',
            'FUNCTION audit_log.grant_admin(regrole)', 'FUNCTION audit_log.revoke_admin(regrole)',
            'PROCEDURE audit_log.maintain(interval, text)']) LOOP
        EXECUTE pg_catalog.format('GRANT %s ON %s TO %I',
            CASE WHEN object.name LIKE 'TABLE %' THEN 'SELECT' ELSE 'EXECUTE' END, object.name, installer);
    END LOOP;
END
$$;

GRANT EXECUTE ON FUNCTION
    audit_log.jsonb_delta(jsonb, jsonb), audit_log.jsonb_patch(jsonb, jsonb), audit_log.jsonb_unpatch(jsonb, jsonb),
    audit_log.change_columns(jsonb, text), audit_log.set_context(text, jsonb), audit_log.new_transaction(),
    audit_log.transaction_id(), audit_log._may_read(regclass), audit_log._is_keeper(),
    -- the predicates of the log's indexes are evaluated as whoever writes
    audit_log.key_cmp(text, text), audit_log.key_lt(text, text), audit_log.key_le(text, text),
    audit_log.key_ge(text, text), audit_log.key_gt(text, text)
    TO PUBLIC;

/* -------------------------------------------------------------------- dumps */

SELECT pg_catalog.pg_extension_config_dump('audit_log.transaction', '');
SELECT pg_catalog.pg_extension_config_dump('audit_log.change_default', '');
SELECT pg_catalog.pg_extension_config_dump('audit_log.tracked_table', '');
SELECT pg_catalog.pg_extension_config_dump('audit_log.table_state', '');
SELECT pg_catalog.pg_extension_config_dump('audit_log.tracked_schema', '');
SELECT pg_catalog.pg_extension_config_dump('audit_log.transaction_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('audit_log.change_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('audit_log.tracked_table_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('audit_log.table_state_id_seq', '');
