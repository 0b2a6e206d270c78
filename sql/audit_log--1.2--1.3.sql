/* audit_log 1.3: activity feed, outbox, reports, and the frameworks people already use */

\echo Use "ALTER EXTENSION audit_log UPDATE" to load this file. \quit

/* what users have granted is granted apart from the script, or no dump would carry it */
CREATE FUNCTION audit_log._grant_apart(command text) RETURNS void
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'audit_log_grant_apart';
REVOKE ALL ON FUNCTION audit_log._grant_apart(text) FROM PUBLIC;

/*
 * Sessions look the version up again when this table's catalog row changes: an
 * older library refuses changes from here on (HINT: connect again).
 */
SELECT audit_log._grant_apart('REVOKE ALL ON audit_log.tracked_table FROM PUBLIC');

/* what the end of the script has to close: all that is not there yet */
SELECT pg_catalog.set_config('audit_log_update.before', pg_catalog.array_agg(p.oid)::text, true)
  FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'audit_log'::pg_catalog.regnamespace;

/* =========================================================== activity feed */

CREATE FUNCTION audit_log._log_activity(activity_type text, description text, entity_id text, user_id text) RETURNS text
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_log_activity';
COMMENT ON FUNCTION audit_log._log_activity(text, text, text, text) IS 'log_activity(), whatever the types of the activity table; for whoever may INSERT there';
CREATE FUNCTION audit_log._activity_table() RETURNS regclass
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_activity_table';
COMMENT ON FUNCTION audit_log._activity_table() IS 'the activity table of the database, NULL while there is none';
CREATE FUNCTION audit_log._run_as_caller(command text) RETURNS text
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'audit_log_run_as_caller';
COMMENT ON FUNCTION audit_log._run_as_caller(text) IS 'runs a command with the rights and the search_path of whoever called; returns the first column of its first row';
CREATE FUNCTION audit_log.on_activity_drop() RETURNS event_trigger
    LANGUAGE C AS 'MODULE_PATHNAME', 'audit_log_on_activity_drop';
COMMENT ON FUNCTION audit_log.on_activity_drop() IS 'lets log_activity() and get_recent_activities() go with the activity table';
CREATE EVENT TRIGGER audit_log_activity ON ddl_command_start WHEN TAG IN ('DROP TABLE', 'DROP OWNED', 'DROP SCHEMA')
    EXECUTE FUNCTION audit_log.on_activity_drop();
COMMENT ON EVENT TRIGGER audit_log_activity IS 'audit_log lets log_activity() and get_recent_activities() go with the activity table';

/* a table as create_activity_table() makes it, or a migration has made it */
CREATE FUNCTION audit_log._has_activity_shape(target regclass) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT count(*) FILTER (WHERE (a.attname, a.atttypid) IN (VALUES ('id'::name, 'int4'::regtype), ('id', 'int8'::regtype),
                   ('timestamp', 'timestamptz'::regtype), ('activity_type', 'varchar'::regtype), ('activity_type', 'text'::regtype),
                   ('description', 'text'::regtype)) OR a.attname IN ('user_id', 'entity_id')) = 6
          FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
    $$;
COMMENT ON FUNCTION audit_log._has_activity_shape(regclass) IS 'does the table have the columns of an activity table?';

CREATE OR REPLACE FUNCTION audit_log._is_bookkeeping(target regclass) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT audit_log._is_version_table($1)
            OR audit_log._has_activity_shape($1)
            -- one that SQLAlchemy-Continuum keeps, or a migration has just made
            OR EXISTS (SELECT FROM pg_class c JOIN pg_class v ON v.relnamespace = c.relnamespace AND v.relname = c.relname || '_version'
                        WHERE v.oid = $1 AND c.relkind IN ('r', 'p')
                          AND (SELECT count(*) = 2 FROM pg_attribute a WHERE a.attrelid = v.oid AND a.attname IN ('transaction_id', 'operation_type')))
            -- or under another name: by its columns and its key
            OR EXISTS (SELECT FROM pg_index i JOIN pg_attribute k ON k.attrelid = i.indrelid AND k.attname = 'transaction_id' AND k.attnum = ANY (i.indkey)
                        WHERE i.indrelid = $1 AND i.indisprimary AND i.indnkeyatts > 1
                          AND (SELECT count(*) = 3 FROM pg_attribute a WHERE a.attrelid = $1 AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
                                  AND a.attname IN ('transaction_id', 'end_transaction_id', 'operation_type')))
            OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                        AND d.objid = $1 AND d.deptype = 'e')
            OR (SELECT c.relname IN ('flyway_schema_history', 'schema_version',
                                     'alembic_version',
                                     'schema_migrations', 'ar_internal_metadata',
                                     'django_migrations')
                       OR n.nspname = 'sqitch'
                  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1)
    $$;
COMMENT ON FUNCTION audit_log._is_bookkeeping(regclass) IS 'is the table a version table, an activity table, an extension''s, or the bookkeeping of Flyway, Alembic, Rails, Django or Sqitch?';

/* what keeps a table that is there from being the activity table, one sentence each */
CREATE FUNCTION audit_log._activity_misfits(target regclass, user_table regclass, user_column name, entity_type regtype) RETURNS SETOF text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH col AS (
            SELECT a.attname, a.atttypid, a.atttypmod, a.attnum, a.attnotnull, a.attidentity <> '' OR a.atthasdef AS filled
              FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped),
        wanted (n, name, types, required) AS (VALUES
            (1, 'id', ARRAY['int4', 'int8']::regtype[], true),
            (2, 'timestamp', ARRAY['timestamptz']::regtype[], true),
            (3, 'user_id', ARRAY[(SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = $2 AND a.attname = $3)]::regtype[], false),
            (4, 'activity_type', ARRAY['varchar', 'text']::regtype[], true),
            (5, 'description', ARRAY['text']::regtype[], true),
            (6, 'entity_id', ARRAY[$4], false))
        SELECT 'It is not an ordinary or partitioned table.' FROM pg_class c
         WHERE c.oid = $1 AND (c.relkind NOT IN ('r', 'p') OR c.relpersistence = 't' OR c.relispartition)
        UNION ALL
        (SELECT CASE WHEN c.attname IS NULL THEN format('It has no column %s.', w.name)
                    WHEN c.atttypid <> ALL (w.types) THEN format('Column %s is of type %s, not %s.', w.name, format_type(c.atttypid, NULL),
                        array_to_string(w.types, ' or '))
                    WHEN c.attnotnull AND NOT w.required THEN format('Column %s is NOT NULL.', w.name)
                    WHEN w.required AND NOT c.attnotnull THEN format('Column %s is not NOT NULL.', w.name)
                    WHEN w.name IN ('id', 'timestamp') AND NOT c.filled THEN format('Column %s has no default.', w.name)
                    WHEN w.name = 'id' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid
                             AND i.indpred IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = c.attnum) THEN 'Column id is not unique.'
                    WHEN w.name = 'activity_type' AND c.atttypmod BETWEEN 0 AND 53 THEN 'Column activity_type takes fewer than 50 characters.'
               END AS misfit
          FROM wanted w LEFT JOIN col c ON c.attname = w.name ORDER BY w.n)
        UNION ALL
        SELECT format('Column %I is NOT NULL and has no default.', c.attname) FROM col c
         WHERE c.attnotnull AND NOT c.filled AND c.attname NOT IN ('id', 'timestamp', 'user_id', 'activity_type', 'description', 'entity_id')
        UNION ALL
        SELECT format('Constraint %I of user_id is not a foreign key to %s ON DELETE SET NULL.', k.conname, $2)
          FROM pg_constraint k JOIN col c ON c.attname = 'user_id'
         WHERE k.conrelid = $1 AND k.contype = 'f' AND c.attnum = ANY (k.conkey)
           AND NOT (k.confrelid = $2 AND k.confdeltype = 'n' AND cardinality(k.conkey) = 1
                    AND k.confkey[1] = (SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = $2 AND a.attname = $3))
    $$;
COMMENT ON FUNCTION audit_log._activity_misfits(regclass, regclass, name, regtype) IS 'what keeps a table from being the activity table';

/* log_activity() and get_recent_activities() in the types of the table; those that are there stay where they are the same */
CREATE FUNCTION audit_log._make_activity_functions(target regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        id text;
        usr text;
        entity text;
        function regprocedure;
        wanted text[];
    BEGIN
        SELECT format_type(max(a.atttypid) FILTER (WHERE a.attname = 'id'), NULL),
               format_type(max(a.atttypid) FILTER (WHERE a.attname = 'user_id'), NULL),
               format_type(max(a.atttypid) FILTER (WHERE a.attname = 'entity_id'), NULL)
          INTO id, usr, entity
          FROM pg_attribute a WHERE a.attrelid = target AND a.attnum > 0;
        wanted := ARRAY[format('audit_log.log_activity(text,text,%s,%s)', entity, usr),
                        format('audit_log.get_recent_activities(integer,%s,text,%s,%s)', usr, entity, id)];
        IF (SELECT array_agg(p.oid::regprocedure::text ORDER BY p.proname DESC) FROM pg_proc p
             WHERE p.pronamespace = 'audit_log'::regnamespace AND p.proname IN ('log_activity', 'get_recent_activities')) = wanted
           AND to_regprocedure(wanted[1]) IN (SELECT p.oid FROM pg_proc p WHERE p.prorettype = id::regtype)
           AND audit_log._activity_table() = target THEN
            RETURN;
        END IF;
        FOR function IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'audit_log'::regnamespace
                           AND p.proname IN ('log_activity', 'get_recent_activities') LOOP
            EXECUTE format('DROP FUNCTION %s', function);
        END LOOP;

        EXECUTE format($f$
            CREATE FUNCTION audit_log.log_activity(activity_type text, description text, entity_id %1$s DEFAULT NULL, user_id %2$s DEFAULT NULL)
                RETURNS %3$s LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
                AS 'SELECT audit_log._log_activity($1, $2, $3::text, $4::text)::%3$s'
            $f$, entity, usr, id);
        EXECUTE format($f$
            CREATE FUNCTION audit_log.get_recent_activities(max_rows integer DEFAULT 50, user_id %1$s DEFAULT NULL,
                    activity_type text DEFAULT NULL, entity_id %2$s DEFAULT NULL, before_id %3$s DEFAULT NULL)
                RETURNS SETOF %4$s LANGUAGE plpgsql STABLE ROWS 50 SET search_path = pg_catalog, pg_temp
                AS $b$
                BEGIN
                    -- a query for the arguments that are given; the place of an entry that is gone is that of the one before it
                    RETURN QUERY EXECUTE format('SELECT a.* FROM %%s a WHERE true'
                        || CASE WHEN user_id IS NOT NULL THEN ' AND a.user_id = $2' ELSE '' END
                        || CASE WHEN activity_type IS NOT NULL THEN ' AND a.activity_type = $3' ELSE '' END
                        || CASE WHEN entity_id IS NOT NULL THEN ' AND a.entity_id = $4' ELSE '' END
                        || CASE WHEN before_id IS NOT NULL THEN ' AND (a."timestamp", a.id) < '
                            '((SELECT b."timestamp" FROM %%1$s b WHERE b.id <= $5 ORDER BY b.id DESC LIMIT 1), $5)' ELSE '' END
                        || ' ORDER BY a."timestamp" DESC, a.id DESC LIMIT $1', audit_log._activity_table())
                        USING max_rows, user_id, activity_type, entity_id, before_id;
                END
                $b$
            $f$, usr, entity, id, target);
        FOREACH function IN ARRAY wanted::regprocedure[] LOOP
            -- it goes with the extension, but is dumped as what it is
            EXECUTE format('ALTER FUNCTION %s DEPENDS ON EXTENSION audit_log', function);
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', function);
        END LOOP;
        EXECUTE format('COMMENT ON FUNCTION %s IS %L', wanted[1],
            'writes an entry into the activity table, of the user in force where none is given; returns its id. For whoever may INSERT there');
        EXECUTE format('COMMENT ON FUNCTION %s IS %L', wanted[2],
            'the newest entries of the activity table, newest first; before_id, an id of the page before, goes on from there');
    END
    $$;
COMMENT ON FUNCTION audit_log._make_activity_functions(regclass) IS 'makes log_activity() and get_recent_activities() in the types of the activity table';

CREATE FUNCTION audit_log._create_activity_table(caller oid, table_name text, user_table regclass, entity_type regtype) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    #variable_conflict use_variable
    DECLARE
        simple CONSTANT regtype[] := '{int2,int4,int8,uuid,text,varchar}';
        names text[];
        target regclass;
        there regclass;
        label text;
        users record;
        misfits text;
        made boolean;
        indexed name;
    BEGIN
        IF table_name IS NULL OR user_table IS NULL OR entity_type IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
                MESSAGE = 'table_name, user_table and entity_type must not be NULL';
        END IF;
        -- of two sessions one after the other, or there were two functions of a name
        LOCK TABLE audit_log.tracked_schema IN SHARE ROW EXCLUSIVE MODE;
        there := audit_log._activity_table();
        SELECT format('%I.%I', n.nspname, c.relname) AS name, a.attname, a.atttypid, a.attcollation,
               CASE WHEN a.atttypid = 'varchar'::regtype THEN format_type(a.atttypid, a.atttypmod)
                    ELSE (SELECT format('pg_catalog.%I', t.typname) FROM pg_type t WHERE t.oid = a.atttypid) END
                   || CASE WHEN a.attcollation <> t.typcollation
                           THEN format(' COLLATE %I.%I', cn.nspname, l.collname) ELSE '' END AS type
          INTO users
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_attribute a ON a.attrelid = c.oid AND ARRAY[a.attname::text] = audit_log._key_columns(user_table)
          JOIN pg_type t ON t.oid = a.atttypid
          LEFT JOIN pg_collation l ON l.oid = a.attcollation LEFT JOIN pg_namespace cn ON cn.oid = l.collnamespace
         WHERE c.oid = user_table AND c.relkind IN ('r', 'p');
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('%s is no table with a key of one column', user_table),
                HINT = 'Name the table of users, whose key the entries'' user_id is.';
        END IF;
        IF users.atttypid <> ALL (simple) OR entity_type <> ALL (simple) THEN
            RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
                MESSAGE = CASE WHEN entity_type <> ALL (simple) THEN format('entities cannot be of type %s', entity_type)
                               ELSE format('the key of table %s is of type %s', user_table, format_type(users.atttypid, NULL)) END,
                HINT = 'Types of keys can be smallint, integer, bigint, uuid, text and varchar.';
        END IF;

        names := parse_ident(table_name);
        IF cardinality(names) > 2 THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_name', MESSAGE = format('%s is not the name of a table', table_name);
        END IF;
        IF cardinality(names) = 1 THEN
            names := audit_log._run_as_caller('SELECT pg_catalog.current_schema()') || names;
            target := audit_log._run_as_caller(format('SELECT pg_catalog.to_regclass(%L)::pg_catalog.oid', table_name))::oid;
        ELSE
            target := to_regclass(format('%I.%I', names[1], names[2]));
        END IF;
        IF names[1] IN ('audit_log', 'pg_catalog', 'information_schema') OR names[1] ~ '^pg_' THEN
            RAISE EXCEPTION USING ERRCODE = 'wrong_object_type', MESSAGE = format('cannot make the activity table in schema %I', names[1]);
        END IF;
        IF names[1] IS NULL AND target IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_schema_name', MESSAGE = 'no schema has been selected to create in';
        END IF;
        IF target IS NULL AND NOT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = names[1]) THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_schema_name', MESSAGE = format('schema %I does not exist', names[1]);
        END IF;
        IF target IS NULL AND NOT has_schema_privilege(caller, names[1], 'CREATE') THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('permission denied for schema %I', names[1]);
        END IF;
        IF there IS NOT NULL AND there IS DISTINCT FROM target THEN
            RAISE EXCEPTION USING ERRCODE = 'duplicate_table',
                MESSAGE = format('the database has an activity table: %s', there),
                DETAIL = 'There is one of each of log_activity() and get_recent_activities().',
                HINT = 'Use that one, or drop it first; or the two functions alone, if it shall stay as it is.';
        END IF;

        made := target IS NULL;
        IF made THEN
            label := format('%I.%I', names[1], names[2]);
            -- no comment on it: a model would have to repeat it
            PERFORM audit_log._run_as_caller(format(
                'CREATE TABLE %s ('
                'id serial PRIMARY KEY, '
                '"timestamp" timestamp with time zone NOT NULL DEFAULT pg_catalog.now(), '
                'user_id %s REFERENCES %s (%I) ON DELETE SET NULL, '
                'activity_type character varying(50) NOT NULL, '
                'description pg_catalog.text NOT NULL, '
                'entity_id %s)', label, users.type, users.name, users.attname,
                CASE entity_type WHEN 'varchar'::regtype THEN 'character varying'
                     ELSE (SELECT format('pg_catalog.%I', t.typname) FROM pg_type t WHERE t.oid = entity_type) END));
            target := to_regclass(label);
        ELSE
            PERFORM audit_log._check_owner(caller, target);
            SELECT format('%I.%I', n.nspname, c.relname) INTO label
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = target;
            SELECT string_agg(m, ' ') INTO misfits
              FROM audit_log._activity_misfits(target, user_table, users.attname, entity_type) m WHERE m IS NOT NULL;
            IF misfits IS NOT NULL THEN
                RAISE EXCEPTION USING ERRCODE = 'duplicate_table',
                    MESSAGE = format('table %s is there, and is not such an activity table', label),
                    DETAIL = misfits,
                    HINT = 'Alter or rename it, or choose another name.';
            END IF;
            IF NOT EXISTS (SELECT FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = target AND k.conkey = ARRAY[a.attnum]
                            WHERE k.conrelid = target AND k.contype = 'f' AND a.attname = 'user_id') THEN
                PERFORM audit_log._run_as_caller(format('ALTER TABLE %s ADD FOREIGN KEY (user_id) REFERENCES %s (%I) ON DELETE SET NULL',
                    label, users.name, users.attname));
            END IF;
        END IF;
        -- of a table that was there only what no index serves
        FOR indexed IN SELECT a.attname FROM pg_attribute a
                        WHERE a.attrelid = target AND a.attname IN ('id', 'timestamp', 'user_id', 'activity_type', 'entity_id')
                          AND (made OR NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = target AND i.indisvalid
                                                      AND i.indpred IS NULL AND i.indkey[0] = a.attnum))
                        ORDER BY a.attnum LOOP
            PERFORM audit_log._run_as_caller(format('CREATE INDEX %I ON %s (%I)',
                audit_log._version_index_name((parse_ident(label))[2]::name, indexed), label, indexed));
        END LOOP;

        PERFORM audit_log._make_activity_functions(target);
        RAISE NOTICE 'audit_log: % is the activity table%, its users are %, its entities of type %',
            target, CASE WHEN made THEN '' ELSE ', as it stands' END, user_table, entity_type;
    END
    $$;
COMMENT ON FUNCTION audit_log._create_activity_table(oid, text, regclass, regtype) IS 'create_activity_table(), with the caller''s role';

CREATE FUNCTION audit_log.create_activity_table(table_name text, user_table regclass, entity_type regtype DEFAULT 'integer') RETURNS void
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.create_activity_table(text, regclass, regtype) IS
    'makes the activity table, an ordinary one of the caller''s, or takes over one that fits, and with it log_activity() and get_recent_activities(); one a database';

/* ------------------------------------------------------------- descriptions */

CREATE OR REPLACE FUNCTION audit_log._settings_arguments(uid uuid, settings jsonb) RETURNS text[]
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
                                    'on_truncate', 'user_column', 'require', 'always',
                                    'versioned', 'version_table', 'version_columns', 'describe'])
                       WITH ORDINALITY s (name, place)
                 WHERE $2 ? s.name) a
    $$;

/*
 * Templates are settings of the table like the others: arguments of its
 * trigger, so that whatever carries that carries them, and capture, which has
 * the trigger at hand, looks nowhere else.  They are checked by what reads
 * them there (src/table.c), also against columns masked later.
 */
CREATE FUNCTION audit_log._describe(caller oid, target regclass, action text, activity_type text, template text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    #variable_conflict use_variable
    DECLARE
        settings jsonb;
        templates jsonb;
        uid uuid;
        tracked boolean;
    BEGIN
        template := nullif(template, '');
        IF target IS NULL OR action IS NULL OR (activity_type IS NULL AND template IS NOT NULL) THEN
            RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
                MESSAGE = 'table_name, action and activity_type must not be NULL';
        END IF;
        action := lower(action);
        IF action NOT IN ('insert', 'update', 'delete') THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = format('unknown action %L for a description', action),
                HINT = 'Actions are insert, update and delete.';
        END IF;
        IF NOT length(activity_type) BETWEEN 1 AND 50 THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = 'activity_type must have between 1 and 50 characters';
        END IF;
        PERFORM audit_log._check_owner(caller, target);
        PERFORM audit_log._check_no_partition(target);
        EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', target);
        IF (SELECT c.relkind = 'p' FROM pg_class c WHERE c.oid = target) THEN
            EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', target);
        END IF;
        settings := audit_log._trigger_settings(target, 'audit_log_row');
        tracked := settings IS NOT NULL;
        IF NOT tracked AND template IS NULL THEN
            -- what it had, and enable() would give it again: a column that is gone since must not be in the way
            settings := (SELECT t.settings FROM audit_log.tracked_table t WHERE t.id = audit_log._table_id(target));
        END IF;
        IF settings IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('table %s is not audited', target),
                HINT = format('Run audit_log.enable(%L) first.', target::text);
        END IF;
        IF template IS NOT NULL THEN
            IF audit_log._activity_table() IS NULL THEN
                RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                    MESSAGE = 'this database has no activity table',
                    HINT = 'Run audit_log.create_activity_table() first.';
            END IF;
            IF target = audit_log._activity_table() THEN
                RAISE EXCEPTION USING ERRCODE = 'wrong_object_type',
                    MESSAGE = format('cannot describe changes of %s', target),
                    DETAIL = 'It is the activity table itself.';
            END IF;
            IF settings ? 'actions' AND NOT settings -> 'actions' ? action THEN
                RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                    MESSAGE = format('no %s of table %s is logged', action, target),
                    HINT = 'Run audit_log.enable() with other actions first.';
            END IF;
        END IF;

        templates := coalesce(settings -> 'describe', '{}');
        IF template IS NOT NULL THEN
            templates := templates || jsonb_build_object(action,
                coalesce(templates -> action, '{}') || jsonb_build_object(activity_type, template));
        ELSIF activity_type IS NOT NULL THEN
            templates := templates #- ARRAY[action, activity_type];
        ELSE
            templates := templates - action;
        END IF;
        IF templates -> action = '{}' THEN
            templates := templates - action;
        END IF;
        IF templates IS DISTINCT FROM coalesce(settings -> 'describe', '{}') THEN
            settings := settings - 'describe' || CASE templates WHEN '{}' THEN '{}'::jsonb ELSE jsonb_build_object('describe', templates) END;
            IF NOT tracked THEN
                UPDATE audit_log.tracked_table t SET settings = settings WHERE t.id = audit_log._table_id(target);
            ELSE
                BEGIN
                    PERFORM audit_log._register(target, NULL, NULL);
                EXCEPTION WHEN undefined_column OR object_not_in_prerequisite_state OR invalid_parameter_value THEN
                    -- a setting names a column that is gone, perhaps just the template that is replaced here
                    NULL;
                END;
                uid := coalesce(audit_log._latest('SELECT substring(encode(t.tgargs, ''escape'') FROM ''^table=([-0-9a-f]{36})'')
                           FROM pg_trigger t WHERE t.tgrelid = $1 AND t.tgname = ''audit_log_row''', target)::uuid,
                       (SELECT t.uid FROM audit_log.tracked_table t WHERE t.id = audit_log._table_id(target)), gen_random_uuid());
                PERFORM audit_log._set_trigger_arguments(target, 'audit_log_row', audit_log._settings_arguments(uid, settings));
                BEGIN
                    PERFORM audit_log._register(target, NULL, NULL);
                EXCEPTION WHEN undefined_column OR object_not_in_prerequisite_state OR invalid_parameter_value THEN
                    -- one that is taken away may not be the only one that is wrong
                    IF template IS NOT NULL THEN
                        RAISE;
                    END IF;
                END;
            END IF;
        END IF;
        RAISE NOTICE 'audit_log: % of % is %', upper(action), target,
            coalesce((SELECT 'described as ' || string_agg(format('%s: "%s"', d.key, d.value), ', ' ORDER BY d.key COLLATE "C")
                        FROM jsonb_each_text(templates -> action) d), 'not described');
    END
    $$;
COMMENT ON FUNCTION audit_log._describe(oid, regclass, text, text, text) IS 'describe(), with the caller''s role';

CREATE FUNCTION audit_log.describe(table_name regclass, action text, activity_type text, template text) RETURNS void
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.describe(regclass, text, text, text) IS
    'has the changes of a table write entries into the activity table; {column} and {column.old} in the template are its values. NULL as template ends that. Takes SHARE ROW EXCLUSIVE on the table and its partitions';

/* ------------------------------------------------------------------ imports */

/* the partition of a month that is past; none where the default partition holds rows of it, which then is the place */
CREATE FUNCTION audit_log._make_month(at timestamptz) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    AS $$
    DECLARE
        month timestamptz := date_trunc('month', at);
        partition text := 'audit_log.change_' || to_char(month, 'YYYY_MM');
        timeout text := current_setting('lock_timeout');
    BEGIN
        IF extract(year FROM at) NOT BETWEEN 1 AND 9999 OR pg_partition_root(to_regclass(partition)) = 'audit_log.change'::regclass THEN
            RETURN;
        END IF;
        -- a month that was detached has its name, and is not ours to fill
        IF to_regclass(partition) IS NOT NULL
           OR EXISTS (SELECT FROM audit_log.change_default c WHERE c.timestamp >= month AND c.timestamp < month + interval '1 month') THEN
            RETURN;
        END IF;
        PERFORM set_config('lock_timeout', '2s', true);
        EXECUTE format('CREATE TABLE %s (LIKE audit_log.change)', partition);
        PERFORM audit_log._prepare_partition(partition::regclass);
        EXECUTE format('ALTER TABLE audit_log.change ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)',
            partition, month, month + interval '1 month');
        PERFORM set_config('lock_timeout', timeout, true);
    END
    $$;
COMMENT ON FUNCTION audit_log._make_month(timestamptz) IS 'makes the partition of the month of a moment, where it is missing';

/*
 * A row of another's log as changes has it: no NULL columns, and $pg not to be
 * mistaken.  (This and the next two are PL/pgSQL for the sake of kept plans.)
 */
CREATE FUNCTION audit_log._import_row(object jsonb, nulls boolean) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        RETURN (
            SELECT coalesce(jsonb_object_agg(e.key, CASE
                       WHEN jsonb_typeof(e.value) = 'object' AND e.value ? '$pg' AND (SELECT count(*) = 1 FROM jsonb_object_keys(e.value))
                       THEN jsonb_build_object('$pg', e.value::text) ELSE e.value END), '{}')
              FROM jsonb_each($1) e WHERE $2 OR e.value <> 'null');
    END
    $$;
COMMENT ON FUNCTION audit_log._import_row(jsonb, boolean) IS 'a row of another''s log as changes has it';

/*
 * The delta of an UPDATE: of JSON columns inside, of others as a whole; without
 * a key every column.  Of a table that is gone the types are not known, and
 * what are objects on both sides are JSON.
 */
CREATE FUNCTION audit_log._import_delta(target regclass, keyed boolean, before jsonb, after jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        RETURN (
            SELECT jsonb_object_agg(c.name, CASE WHEN c.deep THEN audit_log.jsonb_delta(c.old, c.new) ELSE jsonb_build_array(c.old, c.new) END)
              FROM (SELECT coalesce(o.key, n.key) AS name, coalesce(o.value, 'null') AS old, coalesce(n.value, 'null') AS new,
                           $2 AND jsonb_typeof(o.value) = 'object' AND jsonb_typeof(n.value) = 'object'
                               AND NOT (o.value ? '$pg' OR n.value ? '$pg')
                               AND ($1 IS NULL OR EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                                     WHERE a.attrelid = $1 AND a.attname = coalesce(o.key, n.key)
                                       AND (a.atttypid IN ('json'::regtype, 'jsonb'::regtype) OR t.typbasetype IN ('json'::regtype, 'jsonb'::regtype)))) AS deep
                      FROM jsonb_each(audit_log._import_row($3, true)) o FULL JOIN jsonb_each(audit_log._import_row($4, true)) n ON n.key = o.key) c
             WHERE NOT $2 OR c.old IS DISTINCT FROM c.new);
    END
    $$;
COMMENT ON FUNCTION audit_log._import_delta(regclass, boolean, jsonb, jsonb) IS 'delta between two rows of another''s log';

/* the key's text in a row, as record_id has it; NULL without a key, or where the row does not have it */
CREATE FUNCTION audit_log._import_id(key text[], object jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        RETURN (
            SELECT CASE WHEN count(*) = 1 THEN min($2 ->> k)
                        WHEN count(*) > 1 AND count(*) = count($2 ->> k) THEN '[' || string_agg(to_json($2 ->> k)::text, ', ' ORDER BY n) || ']' END
              FROM unnest($1) WITH ORDINALITY u (k, n));
    END
    $$;
COMMENT ON FUNCTION audit_log._import_id(text[], jsonb) IS 'record_id of a row of another''s log';

CREATE FUNCTION audit_log._import_change(
        caller oid, table_name text, action_type text, changed_at timestamptz, old_row jsonb, new_row jsonb,
        source text, source_transaction text, user_id text, context jsonb, started_at timestamptz,
        db_user text, application_name text, client_addr inet, client_port integer, xid xid8)
    RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    AS $$
    #variable_conflict use_variable
    DECLARE
        names text[] := parse_ident(table_name);
        target regclass;
        tracked integer;
        key text[];
        action audit_log.action_type;
        origin jsonb;
        transaction bigint;
        change bigint;
        delta jsonb;
        id text;
        former text;
    BEGIN
        IF NOT audit_log._is_keeper(caller) THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
                MESSAGE = 'only a superuser or the role that installed audit_log may import into the log';
        END IF;
        IF table_name IS NULL OR action_type IS NULL OR changed_at IS NULL OR source IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
                MESSAGE = 'table_name, action_type, changed_at and source must not be NULL';
        END IF;
        IF NOT isfinite(changed_at) THEN
            RAISE EXCEPTION USING ERRCODE = 'datetime_field_overflow', MESSAGE = 'changed_at must be finite';
        END IF;
        action := CASE upper(action_type) WHEN 'I' THEN 'INSERT' WHEN 'U' THEN 'UPDATE' WHEN 'D' THEN 'DELETE' WHEN 'T' THEN 'TRUNCATE'
                       WHEN 'S' THEN 'SNAPSHOT' ELSE upper(action_type) END;
        IF (action IN ('INSERT', 'SNAPSHOT', 'UPDATE')) <> (new_row IS NOT NULL) OR (action IN ('UPDATE', 'DELETE')) <> (old_row IS NOT NULL)
           OR jsonb_typeof(old_row) <> 'object' OR jsonb_typeof(new_row) <> 'object' THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = format('the rows of an imported %s are not what it has', action),
                DETAIL = 'INSERT and SNAPSHOT have new_row, DELETE has old_row, UPDATE has both, TRUNCATE has none; each is a JSON object.';
        END IF;
        IF cardinality(names) <> 2 THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_name',
                MESSAGE = format('%s is not the name of a table with its schema', table_name),
                HINT = 'Write it as format(''%I.%I'', schema, name) does.';
        END IF;

        -- a partition's changes are its root's
        SELECT r.oid, ARRAY[rn.nspname, r.relname]::text[] INTO target, names
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_class r ON r.oid = CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid ELSE c.oid END
          JOIN pg_namespace rn ON rn.oid = r.relnamespace
         WHERE n.nspname = names[1] AND c.relname = names[2] AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't';
        names := coalesce(names, parse_ident(table_name));
        SELECT t.id INTO tracked FROM audit_log.tracked_table t
         WHERE t.table_schema = names[1] AND t.table_name = names[2] AND t.dropped_at IS NULL;
        IF target IS NULL THEN
            -- gone already: under one row of all that is imported of it
            SELECT t.id INTO tracked FROM audit_log.tracked_table t
             WHERE t.table_schema = names[1] AND t.table_name = names[2] AND t.settings = jsonb_build_object('imported', source)
             ORDER BY t.id DESC LIMIT 1;
        ELSIF EXISTS (SELECT FROM audit_log.table_state s WHERE s.table_id = tracked) THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('table %s has a log of its own already', target),
                DETAIL = 'What is imported would stand behind what was logged, though it was before.',
                HINT = 'Import first, and then run audit_log.enable(); in one transaction, if the table is being written.';
        END IF;
        IF tracked IS NULL THEN
            INSERT INTO audit_log.tracked_table (id, uid, table_schema, table_name, settings, dropped_at)
            VALUES (nextval('audit_log.tracked_table_id_seq'), gen_random_uuid(), names[1], names[2],
                    CASE WHEN target IS NULL THEN jsonb_build_object('imported', source) ELSE '{}' END,
                    CASE WHEN target IS NULL THEN clock_timestamp() END)
            RETURNING tracked_table.id INTO tracked;
        END IF;
        key := CASE WHEN target IS NULL THEN '{}' ELSE audit_log._key_columns(target) END;

        -- consecutive changes of one transaction there belong to one here
        origin := jsonb_strip_nulls(jsonb_build_object('source', source, 'transaction', source_transaction));
        context := coalesce(CASE jsonb_typeof(context) WHEN 'object' THEN context ELSE jsonb_build_object('context', context) END, '{}')
                   || jsonb_build_object('imported', origin);
        transaction := nullif(current_setting('audit_log_import.transaction', true), '')::bigint;
        IF source_transaction IS NULL OR NOT EXISTS (
                SELECT FROM audit_log.transaction t WHERE t.id = transaction AND t.context = context AND t.user_id IS NOT DISTINCT FROM user_id) THEN
            transaction := nextval('audit_log.transaction_id_seq');
            INSERT INTO audit_log.transaction (id, xid, timestamp, started_at, user_id, db_user, db_role, application_name,
                                               client_addr, client_port, backend_pid, context)
            VALUES (transaction, coalesce(xid, '0'), changed_at, coalesce(started_at, changed_at), user_id, coalesce(db_user, ''),
                    coalesce(db_user, ''), application_name, client_addr, client_port, 0, context);
            PERFORM set_config('audit_log_import.transaction', transaction::text, true);
        END IF;

        id := audit_log._import_id(key, coalesce(new_row, old_row));
        IF action = 'UPDATE' THEN
            former := nullif(audit_log._import_id(key, old_row), id);
            delta := audit_log._import_delta(target, key <> '{}' OR target IS NULL, old_row, new_row);
            IF delta IS NULL THEN
                RETURN NULL;    -- it changed nothing
            END IF;
        END IF;
        PERFORM audit_log._make_month(changed_at);
        change := nextval('audit_log.change_id_seq');
        INSERT INTO audit_log.change (id, transaction_id, timestamp, command, action_type, table_id, record_id, changes, old_record_id)
        VALUES (change, transaction, changed_at, 0, action, tracked, id,
                CASE action WHEN 'UPDATE' THEN delta WHEN 'TRUNCATE' THEN NULL
                     ELSE audit_log._import_row(coalesce(new_row, old_row), false) END, former);
        RETURN change;
    END
    $$;
COMMENT ON FUNCTION audit_log._import_change(oid, text, text, timestamptz, jsonb, jsonb, text, text, text, jsonb, timestamptz, text, text, inet, integer, xid8) IS 'import_change(), with the caller''s role';

CREATE FUNCTION audit_log.import_change(
        table_name text, action_type text, changed_at timestamptz, old_row jsonb, new_row jsonb,
        source text, source_transaction text DEFAULT NULL, user_id text DEFAULT NULL, context jsonb DEFAULT NULL,
        started_at timestamptz DEFAULT NULL, db_user text DEFAULT NULL, application_name text DEFAULT NULL,
        client_addr inet DEFAULT NULL, client_port integer DEFAULT NULL, xid xid8 DEFAULT NULL)
    RETURNS bigint
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.import_change(text, text, timestamptz, jsonb, jsonb, text, text, text, jsonb, timestamptz, text, text, inet, integer, xid8) IS
    'writes a change that another tool has logged into the log, under its own time, user and transaction, before its table is tracked here; returns the change''s id, NULL where nothing changed (superusers and the installing role)';

/* =================================================================== rights */

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
            'FUNCTION audit_log.drop_mark(text)',
            'FUNCTION audit_log.create_activity_table(text, regclass, regtype)',
            'FUNCTION audit_log.describe(regclass, text, text, text)'])
    $$;

/*
 * What the script has made belongs to the owner of the rest, whichever
 * superuser runs it, and is closed; then opened for whom it is meant: the
 * installing role, and whom grant_admin() has named before.
 */
DO $$
DECLARE
    object record;
    owner name := (SELECT pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class c WHERE c.oid = 'audit_log.change'::pg_catalog.regclass);
    installer name := (SELECT pg_catalog.pg_get_userbyid(e.extowner) FROM pg_catalog.pg_extension e
                        WHERE e.extname = 'audit_log');
    before oid[] := pg_catalog.current_setting('audit_log_update.before')::oid[];
    grant_command text;
BEGIN
    FOR object IN
        SELECT 'ROUTINE ' || p.oid::pg_catalog.regprocedure AS name
          FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'audit_log'::pg_catalog.regnamespace AND p.oid <> ALL (before)
    LOOP
        EXECUTE pg_catalog.format('ALTER %s OWNER TO %I', object.name, owner);
    END LOOP;
    IF (SELECT pg_catalog.pg_get_userbyid(v.evtowner) <> owner FROM pg_catalog.pg_event_trigger v WHERE v.evtname = 'audit_log_activity') THEN
        EXECUTE pg_catalog.format('ALTER EVENT TRIGGER audit_log_activity OWNER TO %I', owner);
    END IF;
    FOR object IN
        SELECT DISTINCT 'ROUTINE ' || p.oid::pg_catalog.regprocedure AS name, a.grantee
          FROM pg_catalog.pg_proc p,
               LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
         WHERE p.pronamespace = 'audit_log'::pg_catalog.regnamespace AND p.oid <> ALL (before) AND a.grantee <> p.proowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s CASCADE', object.name,
            CASE WHEN object.grantee = 0 THEN 'PUBLIC'
                 ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(object.grantee)) END);
    END LOOP;

    EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION audit_log.import_change(text, text, timestamptz, jsonb, jsonb, text, text, text, jsonb, timestamptz, text, text, inet, integer, xid8) TO %I', installer);
    FOR object IN
        SELECT o.name, g.grantee, g.is_grantable, g.own
          FROM audit_log._admin_objects() o (name),
               LATERAL (SELECT a.grantee, a.is_grantable,
                               EXISTS (SELECT FROM pg_catalog.pg_init_privs i, LATERAL pg_catalog.aclexplode(i.initprivs) w
                                        WHERE i.classoid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND i.objoid = p.oid AND i.privtype = 'e'
                                          AND w.grantee = a.grantee AND w.is_grantable = a.is_grantable) AS own
                          FROM pg_catalog.pg_proc p, LATERAL pg_catalog.aclexplode(p.proacl) a
                         WHERE p.oid = 'audit_log.pause(regclass, text)'::pg_catalog.regprocedure AND a.grantee <> p.proowner) g
         WHERE o.name LIKE 'FUNCTION %' AND pg_catalog.substr(o.name, 10)::pg_catalog.regprocedure <> ALL (before)
    LOOP
        grant_command := pg_catalog.format('GRANT EXECUTE ON %s TO %s%s', object.name,
            CASE WHEN object.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(object.grantee)) END,
            CASE WHEN object.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
        IF object.own THEN
            EXECUTE grant_command;
        ELSE
            PERFORM audit_log._grant_apart(grant_command);
        END IF;
    END LOOP;
END
$$;

DROP FUNCTION audit_log._grant_apart(text);

/* these look at the rights of whoever calls */
GRANT EXECUTE ON FUNCTION audit_log._log_activity(text, text, text, text), audit_log._activity_table() TO PUBLIC;
