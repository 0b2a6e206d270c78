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

/* ================================================================= imports */

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

/* with the next id of a transaction goes a note of the cluster, as with those of capture */
CREATE FUNCTION audit_log._take_transaction_id() RETURNS bigint
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_take_transaction_id';
COMMENT ON FUNCTION audit_log._take_transaction_id() IS 'the id of the next row of audit_log.transaction';

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
        IF changed_at > clock_timestamp() THEN
            RAISE EXCEPTION USING ERRCODE = 'datetime_field_overflow',
                MESSAGE = format('changed_at %s lies in the future', changed_at),
                DETAIL = 'What is imported was before what is logged here.',
                HINT = 'Look whether it is of another time zone.';
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
        IF names[1] IN ('audit_log', 'information_schema') OR names[1] ~ '^pg_' THEN
            RAISE EXCEPTION USING ERRCODE = 'wrong_object_type', MESSAGE = format('tables of schema %I have no log', names[1]);
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

        -- consecutive changes of one transaction there belong to one here; its xid is the one that
        -- brings it, by which snapshots here know whether it is there
        origin := jsonb_strip_nulls(jsonb_build_object('source', source, 'transaction', source_transaction, 'xid', xid::text));
        context := CASE coalesce(jsonb_typeof(context), 'null') WHEN 'object' THEN context WHEN 'null' THEN '{}'
                        ELSE jsonb_build_object('context', context) END
                   || jsonb_build_object('imported', origin);
        transaction := nullif(current_setting('audit_log_import.transaction', true), '')::bigint;
        IF source_transaction IS NULL OR NOT EXISTS (
                SELECT FROM audit_log.transaction t
                 WHERE t.id = transaction AND t.xid = pg_current_xact_id() AND t.context = context AND t.user_id IS NOT DISTINCT FROM user_id) THEN
            transaction := audit_log._take_transaction_id();
            INSERT INTO audit_log.transaction (id, xid, timestamp, started_at, user_id, db_user, db_role, application_name,
                                               client_addr, client_port, backend_pid, context)
            VALUES (transaction, pg_current_xact_id(), changed_at, coalesce(started_at, changed_at), user_id, coalesce(db_user, ''),
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

/* ================================================================== outbox */

/*
 * The order in which changes are given out: transaction after transaction,
 * by the id of each one's last change; within one by (command, id).
 *
 * It follows every record, and every parent before its child: a transaction
 * that changes what another one changed has waited for its commit, so its
 * change got a higher id than all of the other's.  Ids of transactions do not
 * rise so, and an xid horizon inverts a record: whoever began first may well
 * come second.
 *
 * Nothing later may come behind the cursor, and no long transaction is waited
 * for.  So the log is given out in batches: what the snapshot "batch" sees and
 * "done", that of the batch before, did not, both kept in the cursor.  The
 * order above is that of a batch, and the cursor's position is a place in it.
 *
 * Where a batch is large its transactions are sought range by range of the
 * change ids; where it is small, by their xids.  For that there are, beside each
 * snapshot, the last change id and then the next xid as they were when it was
 * taken, looked up in this order: transactions from that xid on have only higher
 * change ids.
 */
CREATE TYPE audit_log.outbox_cursor AS (
    era bigint,                     -- transactions up to this id are done with
    done pg_catalog.pg_snapshot,    -- of later ones those that it sees,
    done_xid pg_catalog.xid8,       -- (from this xid on
    done_change bigint,             -- changes have higher ids)
    batch pg_catalog.pg_snapshot,   -- and, up to the position, those that this sees; NULL: none begun
    batch_xid pg_catalog.xid8,      -- NULL: all of a cluster that the log has left
    batch_change bigint,
    last_change bigint,             -- the batch has no higher change id
    last_transaction bigint,        -- nor a higher transaction id, NULL: whatever
    place bigint,                   -- position: last change id of the transaction that was given last,
    command integer,                -- and the change of it that was
    change bigint,
    inside pg_catalog.xid8          -- that transaction, where it may have more
);
COMMENT ON TYPE audit_log.outbox_cursor IS 'how far a consumer of the outbox is: two snapshots, and a position between them';

CREATE TABLE audit_log.consumer (
    consumer text PRIMARY KEY,
    role text NOT NULL,
    created_at timestamptz NOT NULL,
    acked audit_log.outbox_cursor NOT NULL,
    given audit_log.outbox_cursor,
    given_rows bigint NOT NULL DEFAULT 0,
    given_id bigint,
    waypoints jsonb,
    polled_at timestamptz,
    acked_at timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE audit_log.consumer IS 'the consumers of the outbox, and how far each is';
COMMENT ON COLUMN audit_log.consumer.consumer IS 'its name';
COMMENT ON COLUMN audit_log.consumer.role IS 'the role whose members may poll, and whose rights decide what they get';
COMMENT ON COLUMN audit_log.consumer.created_at IS 'when it was created';
COMMENT ON COLUMN audit_log.consumer.acked IS 'up to where it has acknowledged';
COMMENT ON COLUMN audit_log.consumer.given IS 'up to where the latest poll went, NULL where that is acknowledged';
COMMENT ON COLUMN audit_log.consumer.given_rows IS 'how many changes the latest poll gave';
COMMENT ON COLUMN audit_log.consumer.given_id IS 'id of the last of them';
COMMENT ON COLUMN audit_log.consumer.waypoints IS 'of a large transaction that is given out in parts: how its changes lie';
COMMENT ON COLUMN audit_log.consumer.polled_at IS 'time of the latest poll that gave something';
COMMENT ON COLUMN audit_log.consumer.acked_at IS 'time of the latest acknowledgement';

/*
 * The xids of rows that a dump has brought are another cluster's.  Their ids
 * are lower than those of all rows written since, so that one bound a restore
 * tells them apart.
 *
 * audit_log.cluster does not tell that.  It has a row, too, where xids go on (a
 * standby that was promoted, pg_upgrade): a prepared transaction of before that
 * ends only then would count as given out.  And its row comes with the first
 * change that is written, not with the rows of the dump.
 */
CREATE TABLE audit_log.restored (
    id uuid PRIMARY KEY,
    last_transaction_id bigint NOT NULL,
    session text NOT NULL,
    restored_at timestamptz NOT NULL
);
COMMENT ON TABLE audit_log.restored IS 'each time rows of audit_log.transaction came from a dump';
COMMENT ON COLUMN audit_log.restored.id IS 'any';
COMMENT ON COLUMN audit_log.restored.last_transaction_id IS 'the highest id that was there afterwards: xids of rows up to it are of the cluster they were written in';
COMMENT ON COLUMN audit_log.restored.session IS 'what noted it; a session that restores: what it inserts bit by bit is one restore';
COMMENT ON COLUMN audit_log.restored.restored_at IS 'when';

CREATE FUNCTION audit_log._next_xid() RETURNS xid8
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_next_xid';
COMMENT ON FUNCTION audit_log._next_xid() IS 'the xid that the next transaction gets';

CREATE FUNCTION audit_log._record_restore(me text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        last bigint := (SELECT max(t.id) FROM audit_log.transaction t);
    BEGIN
        IF last IS NULL THEN
            RETURN;
        END IF;
        UPDATE audit_log.restored r SET last_transaction_id = last WHERE r.session = me;
        IF NOT FOUND THEN
            INSERT INTO audit_log.restored (id, last_transaction_id, session, restored_at)
            VALUES (gen_random_uuid(), last, me, clock_timestamp());
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._record_restore(text) IS 'notes that the rows of audit_log.transaction came from a dump';

CREATE FUNCTION audit_log.on_restore() RETURNS trigger
    LANGUAGE C AS 'MODULE_PATHNAME', 'audit_log_on_restore';
COMMENT ON FUNCTION audit_log.on_restore() IS 'notes that rows of audit_log.transaction come from a dump; for AFTER INSERT … FOR EACH STATEMENT';

CREATE FUNCTION audit_log._make_restore_trigger() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = 'audit_log.transaction'::regclass AND t.tgname = 'audit_log_restored') THEN
            CREATE TRIGGER audit_log_restored AFTER INSERT ON audit_log.transaction
                FOR EACH STATEMENT EXECUTE FUNCTION audit_log.on_restore();
            ALTER TABLE audit_log.transaction ENABLE ALWAYS TRIGGER audit_log_restored;
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._make_restore_trigger() IS 'makes the trigger that notes a restore if it is missing';

/*
 * The guard of one of the log's tables, for the scripts and for repair().  A
 * restore with --disable-triggers has gone past the trigger above, too, and has
 * left it as it leaves the guards.
 */
CREATE OR REPLACE FUNCTION audit_log._add_guard(target regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        EXECUTE format('CREATE OR REPLACE TRIGGER audit_log_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON %s '
            'FOR EACH STATEMENT EXECUTE FUNCTION audit_log.guard()', target);
        EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER audit_log_guard', target);
        IF target <> 'audit_log.transaction'::regclass THEN
            RETURN;
        END IF;
        IF EXISTS (SELECT FROM audit_log.consumer) THEN
            PERFORM audit_log._make_restore_trigger();
        END IF;
        IF EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = target AND t.tgname = 'audit_log_restored' AND t.tgenabled <> 'A') THEN
            ALTER TABLE audit_log.transaction ENABLE ALWAYS TRIGGER audit_log_restored;
            ALTER TABLE audit_log.consumer ENABLE ALWAYS TRIGGER audit_log_guard;
            ALTER TABLE audit_log.restored ENABLE ALWAYS TRIGGER audit_log_guard;
            PERFORM audit_log._record_restore(format('repair() %s %s', pg_backend_pid(), clock_timestamp()));
        END IF;
    END
    $$;
SELECT audit_log._add_guard('audit_log.consumer'), audit_log._add_guard('audit_log.restored');

ALTER FUNCTION audit_log._check(oid) RENAME TO _check_log;
COMMENT ON FUNCTION audit_log._check_log(oid) IS 'what check() reports of all but the outbox';
CREATE FUNCTION audit_log._check(caller oid, OUT relation text, OUT problem text, OUT remedy text) RETURNS SETOF record
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT k.relation, k.problem, k.remedy FROM audit_log._check_log($1) k
        UNION ALL
        -- repair() knows these by their first words
        SELECT e.name, format(CASE WHEN g.oid IS NULL THEN '%s is missing' ELSE '%s is not ALWAYS enabled' END, e.guard), 'Run SELECT audit_log.repair().'
          FROM (VALUES ('audit_log.consumer', 'audit_log_guard', 'audit_log.guard()'::regprocedure, 'the guard against UPDATE, DELETE and TRUNCATE'),
                       ('audit_log.restored', 'audit_log_guard', 'audit_log.guard()', 'the guard against UPDATE, DELETE and TRUNCATE'),
                       ('audit_log.transaction', 'audit_log_restored', 'audit_log.on_restore()', 'the guard that tells consumers of a restore, trigger audit_log_restored,'))
               e (name, trigger, function, guard)
          LEFT JOIN pg_trigger g ON g.tgrelid = e.name::regclass AND g.tgname = e.trigger AND g.tgfoid = e.function
         -- the last one comes with the first consumer
         WHERE g.tgenabled <> 'A' OR g.oid IS NULL AND (e.name <> 'audit_log.transaction' OR EXISTS (SELECT FROM audit_log.consumer))
    $$;
COMMENT ON FUNCTION audit_log._check(oid) IS 'check(), with the caller''s role';

/*
 * Transactions are sought by xid, many single ones: for that the summary of
 * pages that 1.2 has is too coarse.  Only where there is a consumer does it cost
 * anything.
 */
CREATE FUNCTION audit_log._make_xid_index() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF to_regclass('audit_log.transaction_outbox_idx') IS NULL THEN
            CREATE INDEX transaction_outbox_idx ON audit_log.transaction (xid);
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._make_xid_index() IS 'makes the index on audit_log.transaction (xid) if it is missing';

/*
 * A snapshot that does not see our own transaction, whatever that has yet to
 * change: pg_current_snapshot() says it does as soon as a later one has ended.
 */
CREATE FUNCTION audit_log._outbox_snapshot() RETURNS pg_snapshot
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        seen pg_snapshot := pg_current_snapshot();
        own xid8 := pg_current_xact_id_if_assigned();
    BEGIN
        IF own IS NULL OR own >= pg_snapshot_xmax(seen) THEN
            RETURN seen;
        END IF;
        RETURN format('%s:%s:%s', least(pg_snapshot_xmin(seen)::text::bigint, own::text::bigint), pg_snapshot_xmax(seen),
            (SELECT string_agg(x::text, ',' ORDER BY x) FROM (SELECT pg_snapshot_xip(seen) UNION SELECT own) u (x)))::pg_snapshot;
    END
    $$;
COMMENT ON FUNCTION audit_log._outbox_snapshot() IS 'the current snapshot, our own transaction taken as not seen';

/*
 * What brought rows of another cluster unnoticed (a restore under 1.2, logical
 * replication that has ended) is known from the clusters that wrote.
 */
CREATE FUNCTION audit_log._note_clusters() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        here bigint := (SELECT c.system_identifier FROM pg_control_system() c);
    BEGIN
        INSERT INTO audit_log.restored (id, last_transaction_id, session, restored_at)
        SELECT gen_random_uuid(), c.next - 1, 'before cluster ' || c.next_system, clock_timestamp()
          FROM (SELECT c.system_identifier AS system, c.first_transaction_id AS first,
                       lead(c.first_transaction_id, 1, (SELECT max(t.id) + 1 FROM audit_log.transaction t)) OVER w AS next,
                       lead(c.system_identifier, 1, here) OVER w AS next_system
                  FROM audit_log.cluster c WINDOW w AS (ORDER BY c.first_transaction_id)) c
         WHERE c.system <> c.next_system
           AND NOT EXISTS (SELECT FROM audit_log.restored r WHERE r.last_transaction_id >= c.first AND r.last_transaction_id < c.next);
    END
    $$;
COMMENT ON FUNCTION audit_log._note_clusters() IS 'notes what came from other clusters without being noted as a restore';

CREATE FUNCTION audit_log._create_consumer(caller oid, consumer text, role regrole, from_start boolean) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    #variable_conflict use_variable
    DECLARE
        start audit_log.outbox_cursor;
        name text := pg_get_userbyid(coalesce(nullif(role::oid, 0), caller));
    BEGIN
        IF NOT audit_log._is_keeper(caller) THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
                MESSAGE = 'only a superuser or the role that installed audit_log may create a consumer';
        END IF;
        IF consumer IS NULL OR consumer = '' THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'a consumer needs a name';
        END IF;
        IF EXISTS (SELECT FROM audit_log.consumer c WHERE c.consumer = _create_consumer.consumer) THEN
            RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
                MESSAGE = format('consumer %L exists already', consumer),
                HINT = 'Run audit_log.drop_consumer() first, if it shall begin anew.';
        END IF;
        IF EXISTS (SELECT FROM pg_subscription_rel s WHERE s.srrelid = 'audit_log.transaction'::regclass) THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = 'the log here is a replica',
                DETAIL = 'Its transactions bear the xids of the publisher.',
                HINT = 'Create the consumer on the publisher.';
        END IF;
        PERFORM audit_log._make_restore_trigger();
        PERFORM audit_log._note_clusters();
        PERFORM audit_log._make_xid_index();
        start.place := -1;
        start.command := 2147483647;
        start.change := 9223372036854775807;
        IF from_start THEN
            start.era := 0;
            start.done := '1:1:';
            start.done_xid := '1';
            start.done_change := 0;
        ELSE
            start.era := coalesce((SELECT max(r.last_transaction_id) FROM audit_log.restored r), 0);
            start.done_change := coalesce(pg_sequence_last_value('audit_log.change_id_seq'), 0);
            start.done_xid := audit_log._next_xid();
            start.done := audit_log._outbox_snapshot();
        END IF;
        INSERT INTO audit_log.consumer (consumer, role, created_at, acked) VALUES (consumer, name, clock_timestamp(), start);
        RAISE NOTICE 'audit_log: consumer % is for role %, from % on', consumer, quote_ident(name),
            CASE WHEN from_start THEN 'the beginning of the log' ELSE 'now' END;
    END
    $$;
COMMENT ON FUNCTION audit_log._create_consumer(oid, text, regrole, boolean) IS 'create_consumer(), with the caller''s role';
CREATE FUNCTION audit_log.create_consumer(consumer text, role regrole DEFAULT NULL, from_start boolean DEFAULT false) RETURNS void
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.create_consumer(text, regrole, boolean) IS
    'makes a consumer of the outbox, for members of a role (the caller''s by default), that gets what is committed from now on, or the whole log (superusers and the installing role)';

CREATE FUNCTION audit_log._drop_consumer(caller oid, consumer text) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        dropped boolean;
        timeout text := current_setting('lock_timeout');
    BEGIN
        IF NOT audit_log._is_keeper(caller) THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
                MESSAGE = 'only a superuser or the role that installed audit_log may drop a consumer';
        END IF;
        DELETE FROM audit_log.consumer c WHERE c.consumer = _drop_consumer.consumer;
        dropped := FOUND;
        IF NOT EXISTS (SELECT FROM audit_log.consumer) AND to_regclass('audit_log.transaction_outbox_idx') IS NOT NULL THEN
            BEGIN
                PERFORM set_config('lock_timeout', '2s', true);
                DROP INDEX audit_log.transaction_outbox_idx;
            EXCEPTION WHEN lock_not_available THEN
                RAISE NOTICE 'audit_log: index audit_log.transaction_outbox_idx, which only consumers need, stays: the lock was not to be had';
            END;
            PERFORM set_config('lock_timeout', timeout, true);
        END IF;
        RETURN dropped;
    END
    $$;
COMMENT ON FUNCTION audit_log._drop_consumer(oid, text) IS 'drop_consumer(), with the caller''s role';
CREATE FUNCTION audit_log.drop_consumer(consumer text) RETURNS boolean
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.drop_consumer(text) IS 'drops a consumer of the outbox; whether there was one (superusers and the installing role)';

/*
 * A consumer, locked until the transaction ends, so that sessions that poll the
 * same one take turns; refuses who may not poll it.  While some transaction
 * goes on for hours no version of its row can be removed: the newest is at the
 * index's end, and is from here on known by its place.
 */
CREATE FUNCTION audit_log._lock_consumer(caller oid, consumer text, OUT me audit_log.consumer, OUT place tid, OUT role oid) RETURNS record
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
    AS $$
    DECLARE
        row record;
    BEGIN
        IF consumer IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'consumer must not be NULL';
        END IF;
        SELECT c AS whole, c.ctid AS place INTO row FROM audit_log.consumer c
         WHERE c.consumer BETWEEN _lock_consumer.consumer AND _lock_consumer.consumer
         ORDER BY c.consumer DESC LIMIT 1 FOR UPDATE;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'undefined_object',
                MESSAGE = format('consumer %L does not exist', consumer),
                HINT = 'A superuser or the role that installed audit_log makes it by audit_log.create_consumer().';
        END IF;
        me := row.whole;
        place := row.place;
        SELECT r.oid INTO role FROM pg_roles r WHERE r.rolname = me.role;
        IF role IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'undefined_object',
                MESSAGE = format('role %I of consumer %L does not exist', me.role, consumer),
                DETAIL = 'Its rights decide what the consumer gets.';
        END IF;
        IF NOT (pg_has_role(caller, role, 'USAGE') OR audit_log._is_keeper(caller)) THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
                MESSAGE = format('permission denied for consumer %L', consumer),
                DETAIL = format('It is for members of role %I.', me.role);
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._lock_consumer(oid, text) IS 'a consumer, locked until the transaction ends';

/* the next batch: of a cluster that the log has left, all that is there; else what is committed now */
CREATE FUNCTION audit_log._begin_batch(cur audit_log.outbox_cursor) RETURNS audit_log.outbox_cursor
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        SELECT min(r.last_transaction_id) INTO cur.last_transaction FROM audit_log.restored r WHERE r.last_transaction_id > cur.era;
        IF cur.last_transaction IS NOT NULL THEN
            cur.batch := '9223372036854775807:9223372036854775807:';
        ELSE
            -- in this order: see the top
            cur.batch_change := coalesce(pg_sequence_last_value('audit_log.change_id_seq'), 0);
            cur.batch_xid := audit_log._next_xid();
            cur.batch := audit_log._outbox_snapshot();
        END IF;
        cur.last_change := coalesce(pg_sequence_last_value('audit_log.change_id_seq'), 0);
        RETURN cur;
    END
    $$;
COMMENT ON FUNCTION audit_log._begin_batch(audit_log.outbox_cursor) IS 'the cursor, with a batch begun';

CREATE FUNCTION audit_log._end_batch(cur audit_log.outbox_cursor) RETURNS audit_log.outbox_cursor
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF cur.batch_xid IS NULL THEN
            cur.era := cur.last_transaction;
            cur.done := '1:1:';
            cur.done_xid := '1';
        ELSE
            cur.done := cur.batch;
            cur.done_xid := cur.batch_xid;
            cur.done_change := cur.batch_change;
        END IF;
        cur.batch := NULL;
        cur.batch_xid := NULL;
        cur.batch_change := NULL;
        cur.last_change := NULL;
        cur.last_transaction := NULL;
        cur.place := -1;
        cur.command := 2147483647;
        cur.change := 9223372036854775807;
        cur.inside := NULL;
        RETURN cur;
    END
    $$;
COMMENT ON FUNCTION audit_log._end_batch(audit_log.outbox_cursor) IS 'the cursor, its batch given out';

/*
 * The transactions of a batch whose last change has an id in (cur.place,
 * up_to], in order, with the number of changes that are to be given.  The
 * candidates are those that changed something in that range (sought => 'ids'),
 * or those not seen by cur.done: all ('xids'), or only those that were
 * running then ('running').
 */
CREATE FUNCTION audit_log._batch_transactions(cur audit_log.outbox_cursor, up_to bigint, sought text, visible integer[],
        OUT xid xid8, OUT place bigint, OUT changes bigint) RETURNS SETOF record
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
    AS $$
    #variable_conflict use_column
    DECLARE
        running xid8[] := ARRAY(SELECT pg_snapshot_xip(cur.done));
        last bigint := coalesce(cur.last_transaction, 9223372036854775807);
        candidates xid8[];
    BEGIN
        IF sought = 'ids' THEN
            candidates := ARRAY(
                SELECT DISTINCT t.xid FROM (SELECT DISTINCT h.transaction_id FROM audit_log.change h
                                             WHERE h.id > cur.place AND h.id <= up_to) c
                  JOIN audit_log.transaction t ON t.id = c.transaction_id
                 WHERE t.id > cur.era AND t.id <= last
                   AND NOT pg_visible_in_snapshot(t.xid, cur.done) AND pg_visible_in_snapshot(t.xid, cur.batch));
        ELSE
            candidates := ARRAY(
                SELECT DISTINCT t.xid FROM (
                    (SELECT t.xid, t.id FROM audit_log.transaction t WHERE t.xid = ANY (running) OFFSET 0)
                    UNION ALL
                    (SELECT t.xid, t.id FROM audit_log.transaction t
                      WHERE t.xid >= pg_snapshot_xmax(cur.done)
                        AND t.xid < CASE sought WHEN 'running' THEN least(cur.done_xid, pg_snapshot_xmax(cur.batch))
                                                ELSE pg_snapshot_xmax(cur.batch) END OFFSET 0)) t
                 WHERE t.id > cur.era AND t.id <= last AND pg_visible_in_snapshot(t.xid, cur.batch));
        END IF;
        RETURN QUERY
            SELECT s.xid, s.place, s.changes FROM (
                SELECT c.xid, max(h.id) AS place, count(*) FILTER (WHERE h.table_id = ANY (visible)) AS changes
                  -- one that goes on behind the range is not counted through; the index tells by its end
                  FROM (SELECT x.xid FROM unnest(candidates) x (xid)
                         WHERE up_to >= cur.last_change OR NOT EXISTS (
                             SELECT FROM (SELECT * FROM audit_log.transaction t WHERE t.xid = x.xid OFFSET 0) o
                              CROSS JOIN LATERAL (SELECT FROM audit_log.change l
                                                   WHERE l.transaction_id BETWEEN o.id AND o.id AND l.id > up_to
                                                   ORDER BY l.transaction_id DESC LIMIT 1) l
                              WHERE o.id > cur.era AND o.id <= last)
                        OFFSET 0) c
                 -- (OFFSET 0: never by all ids behind cur.era, of which the planner expects few)
                 CROSS JOIN LATERAL (SELECT * FROM audit_log.transaction o WHERE o.xid = c.xid OFFSET 0) t
                 CROSS JOIN LATERAL (SELECT h.id, h.table_id FROM audit_log.change h WHERE h.transaction_id = t.id OFFSET 0) h
                 WHERE t.id > cur.era AND t.id <= last
                 GROUP BY c.xid) s
             WHERE s.place > cur.place AND s.place <= up_to
             ORDER BY s.place;
    END
    $$;
COMMENT ON FUNCTION audit_log._batch_transactions(audit_log.outbox_cursor, bigint, text, integer[]) IS 'the next transactions of a batch, in the order in which they are given out';

/*
 * The changes of some transactions behind the cursor's position, in order:
 * from_id and to_id narrow the ids in which they are sought.
 */
CREATE FUNCTION audit_log._batch_changes(cur audit_log.outbox_cursor, xids xid8[], places bigint[], visible integer[],
        from_id bigint, to_id bigint, max_rows bigint,
        OUT change audit_log.audit_logs, OUT place bigint, OUT xid xid8) RETURNS SETOF record
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
    AS $$
    #variable_conflict use_column
    DECLARE
        last bigint := coalesce(cur.last_transaction, 9223372036854775807);
        own bigint[];
    BEGIN
        IF from_id IS NOT NULL THEN
            own := ARRAY(SELECT t.id FROM (SELECT * FROM audit_log.transaction o WHERE o.xid = xids[1] OFFSET 0) t
                          WHERE t.id > cur.era AND t.id <= last);
        END IF;
        RETURN QUERY
            SELECT ROW(c.id, c.timestamp, t.user_id, c.action_type::text, k.table_schema, k.table_name, c.record_id,
                       c.changes, c.transaction_id, c.command, c.old_record_id, r.oid::regclass, t.db_user, t.db_role,
                       t.application_name, t.client_addr, t.context, t.undoes)::audit_log.audit_logs, c.place, c.xid
              FROM (
                (SELECT h.*, o.place, o.xid
                   FROM unnest(xids, places) o (xid, place)
                  CROSS JOIN LATERAL (SELECT * FROM audit_log.transaction t WHERE t.xid = o.xid OFFSET 0) t
                  CROSS JOIN LATERAL (SELECT * FROM audit_log.change h WHERE h.transaction_id = t.id OFFSET 0) h
                  WHERE from_id IS NULL AND t.id > cur.era AND t.id <= last AND h.table_id = ANY (visible)
                    AND (o.place, h.command, h.id) > (cur.place, cur.command, cur.change)
                  ORDER BY o.place, h.command, h.id LIMIT max_rows)
                UNION ALL
                (SELECT h.*, places[1], xids[1]
                   FROM (SELECT * FROM audit_log.change h WHERE h.id BETWEEN from_id AND to_id OFFSET 0) h
                  WHERE from_id IS NOT NULL AND h.transaction_id = ANY (own) AND h.table_id = ANY (visible)
                    AND (places[1], h.command, h.id) > (cur.place, cur.command, cur.change)
                  ORDER BY h.command, h.id LIMIT max_rows)) c
              JOIN audit_log.transaction t ON t.id = c.transaction_id
              JOIN audit_log.tracked_table k ON k.id = c.table_id
              LEFT JOIN (pg_namespace n JOIN pg_class r ON r.relnamespace = n.oid AND r.relkind IN ('r', 'p'))
                     ON k.dropped_at IS NULL AND n.nspname = k.table_schema AND r.relname = k.table_name
             ORDER BY c.place, c.command, c.id;
    END
    $$;
COMMENT ON FUNCTION audit_log._batch_changes(audit_log.outbox_cursor, xid8[], bigint[], integer[], bigint, bigint, bigint) IS 'the changes of transactions of a batch, in the order in which they are given out';

/*
 * Of a transaction too large to be sorted anew with each part of it: where its
 * changes lie, some thousands after the other in their order: the last one's
 * command and id, and the ids between which they are.
 */
CREATE FUNCTION audit_log._waypoints(cur audit_log.outbox_cursor, xid xid8) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
    AS $$
        SELECT jsonb_build_object('xid', $2::text, 'parts', jsonb_agg(jsonb_build_array(p.last[1], p.last[2], p.low, p.high) ORDER BY p.part))
          FROM (SELECT n.part, min(n.id) AS low, max(n.id) AS high, max(ARRAY[n.command::bigint, n.id]) AS last
                  FROM (SELECT h.command, h.id, (row_number() OVER (ORDER BY h.command, h.id) - 1) / 5000 AS part
                          FROM (SELECT * FROM audit_log.transaction o WHERE o.xid = $2 OFFSET 0) t
                         CROSS JOIN LATERAL (SELECT c.command, c.id FROM audit_log.change c WHERE c.transaction_id = t.id OFFSET 0) h
                         WHERE t.id > $1.era AND t.id <= coalesce($1.last_transaction, 9223372036854775807)) n
                 GROUP BY n.part) p
    $$;
COMMENT ON FUNCTION audit_log._waypoints(audit_log.outbox_cursor, xid8) IS 'how the changes of a large transaction lie';

CREATE FUNCTION audit_log._poll(caller oid, consumer text, max_rows integer) RETURNS SETOF audit_log.audit_logs
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        -- a transaction with more changes is given out part by part
        large CONSTANT bigint := 20000;
        me audit_log.consumer;
        version tid;
        role oid;
        visible integer[];
        cur audit_log.outbox_cursor;
        begun audit_log.outbox_cursor;
        wanted bigint := max_rows;
        width bigint := greatest(max_rows * 2::bigint, 1000);
        up_to bigint;
        sought text;
        xids xid8[];
        places bigint[];
        list record;
        part jsonb;
        by_parts boolean;
        charted boolean := false;
        fresh boolean;
        by_now boolean;
        row record;
        gave bigint;
        last_id bigint;
    BEGIN
        IF max_rows IS NULL OR max_rows < 1 THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'max_rows must be at least 1';
        END IF;
        SELECT * INTO row FROM audit_log._lock_consumer(caller, consumer);
        me := row.me;
        version := row.place;
        role := row.role;
        IF EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = 'audit_log.transaction'::regclass AND t.tgname = 'audit_log_restored' AND t.tgenabled <> 'A') THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = 'the log may have been restored past trigger audit_log_restored',
                DETAIL = 'It is not ALWAYS enabled any more, as after a restore with --disable-triggers.',
                HINT = 'Run audit_log.repair(), before anything is changed.';
        END IF;
        PERFORM audit_log._make_xid_index();
        visible := ARRAY(SELECT t.id FROM audit_log._tables_seen(role) t);

        cur := me.acked;
        IF cur.batch IS NOT NULL AND cur.last_transaction IS NULL THEN
            -- begun before a restore: later transactions may bear the same xids
            SELECT min(r.last_transaction_id) INTO cur.last_transaction FROM audit_log.restored r WHERE r.last_transaction_id > cur.era;
        END IF;
        LOOP
            fresh := cur.batch IS NULL;
            IF fresh THEN
                cur := audit_log._begin_batch(cur);
            END IF;
            begun := cur;
            LOOP
                IF cur.inside IS NOT NULL AND wanted > 0 THEN
                    -- the rest of one transaction, or as much of it
                    part := NULL;
                    by_parts := coalesce(me.waypoints ->> 'xid' = cur.inside::text, false);
                    IF by_parts THEN
                        SELECT p INTO part FROM jsonb_array_elements(me.waypoints -> 'parts') WITH ORDINALITY w (p, n)
                         WHERE ((p ->> 0)::bigint, (p ->> 1)::bigint) > (cur.command, cur.change) ORDER BY w.n LIMIT 1;
                    END IF;
                    gave := 0;
                    FOR row IN SELECT * FROM audit_log._batch_changes(cur, ARRAY[cur.inside], ARRAY[cur.place], visible,
                                                                      (part ->> 2)::bigint, (part ->> 3)::bigint, wanted) b
                                WHERE part IS NOT NULL AND ((b.change).command, (b.change).id) <= ((part ->> 0)::bigint, (part ->> 1)::bigint)
                                   OR NOT by_parts LOOP
                        RETURN NEXT row.change;
                        gave := gave + 1;
                        cur.command := (row.change).command;
                        cur.change := (row.change).id;
                    END LOOP;
                    last_id := CASE WHEN gave > 0 THEN cur.change ELSE last_id END;
                    wanted := wanted - gave;
                    IF wanted > 0 THEN
                        IF part IS NOT NULL THEN
                            cur.command := part ->> 0;
                            cur.change := part ->> 1;
                        ELSE
                            cur.inside := NULL;
                            cur.command := 2147483647;
                            cur.change := 9223372036854775807;
                        END IF;
                    END IF;
                    CONTINUE;
                END IF;
                EXIT WHEN wanted = 0 OR cur.place >= cur.last_change;

                -- which transactions are next: by their xids where all are few, else range by range
                IF cur.last_change - cur.done_change <= width THEN
                    sought := 'xids';
                    up_to := cur.last_change;
                ELSIF cur.place < cur.done_change THEN
                    sought := 'running';
                    up_to := cur.done_change;
                ELSE
                    sought := 'ids';
                    up_to := least(cur.place + width, cur.last_change);
                END IF;
                SELECT array_agg(l.xid ORDER BY l.place) FILTER (WHERE l.fits) AS xids,
                       array_agg(l.place ORDER BY l.place) FILTER (WHERE l.fits) AS places,
                       sum(l.changes) FILTER (WHERE l.fits) AS changes, count(*) AS number,
                       (array_agg(l.xid ORDER BY l.place))[1] AS first_xid, min(l.place) AS first_place
                  INTO list
                  FROM (SELECT b.*, b.before < wanted AND NOT bool_or(b.too_large) OVER (ORDER BY b.place) AS fits
                          FROM (SELECT a.*, a.changes > large AND a.before + a.changes > wanted AS too_large
                                  FROM (SELECT t.*, sum(t.changes) OVER (ORDER BY t.place) - t.changes AS before
                                          FROM audit_log._batch_transactions(cur, up_to, sought, visible) t) a) b) l;
                IF list.number = 0 THEN
                    -- ids that nothing bears are passed over
                    IF sought = 'ids' AND NOT EXISTS (SELECT FROM audit_log.change h WHERE h.id > cur.place AND h.id <= up_to) THEN
                        up_to := greatest(up_to, least(cur.last_change, coalesce(
                            (SELECT min(x.block) FROM audit_log.tracked_table t
                              CROSS JOIN LATERAL (SELECT h.id >> 8 AS block FROM audit_log.change h
                                                   WHERE h.table_id = t.id AND h.id >> 8 >= up_to >> 8
                                                   ORDER BY h.id >> 8 LIMIT 1) x) * 256 - 1, cur.last_change)));
                    END IF;
                    cur.place := up_to;
                    width := greatest(width, least(width * 2, 100000));
                    CONTINUE;
                END IF;
                IF list.xids IS NULL THEN
                    cur.place := list.first_place;
                    cur.command := -2147483648;
                    cur.change := 0;
                    cur.inside := list.first_xid;
                    IF me.waypoints ->> 'xid' IS DISTINCT FROM cur.inside::text THEN
                        me.waypoints := audit_log._waypoints(cur, cur.inside);
                        charted := true;
                    END IF;
                    CONTINUE;
                END IF;
                gave := 0;
                IF list.changes > 0 THEN
                    FOR row IN SELECT * FROM audit_log._batch_changes(cur, list.xids, list.places, visible, NULL, NULL, wanted) LOOP
                        RETURN NEXT row.change;
                        gave := gave + 1;
                    END LOOP;
                END IF;
                IF gave > 0 THEN
                    last_id := (row.change).id;
                ELSE
                    -- of little that may be seen more is sought at a time
                    width := greatest(width, least(width * 2, 100000));
                END IF;
                wanted := wanted - gave;
                IF wanted = 0 AND gave < list.changes THEN
                    cur.place := row.place;
                    cur.command := (row.change).command;
                    cur.change := (row.change).id;
                    cur.inside := row.xid;
                ELSE
                    cur.place := CASE WHEN cardinality(list.xids) = list.number THEN up_to
                                      ELSE list.places[cardinality(list.places)] END;
                    cur.command := 2147483647;
                    cur.change := 9223372036854775807;
                END IF;
            END LOOP;

            EXIT WHEN cur.inside IS NOT NULL OR cur.place < cur.last_change;
            -- an empty answer means that there is nothing, not that a batch begun before ends here
            by_now := cur.last_transaction IS NULL AND fresh;
            cur := audit_log._end_batch(cur);
            EXIT WHEN last_id IS NOT NULL OR by_now;
        END LOOP;
        IF last_id IS NULL THEN
            -- nothing to acknowledge; nor is it worth a new row version to be a few xids further
            IF (me.acked).batch IS NOT NULL OR cur.era <> (me.acked).era OR cur.done_change - (me.acked).done_change > 1000
               OR cur.done_xid::text::bigint - (me.acked).done_xid::text::bigint > 1000 THEN
                UPDATE audit_log.consumer c SET acked = cur, given = NULL, given_rows = 0, given_id = NULL, waypoints = NULL
                 WHERE c.ctid = version;
            END IF;
        ELSIF NOT (coalesce(me.given *= cur, false) AND me.acked *= begun) THEN
            UPDATE audit_log.consumer c
               SET acked = begun, given = cur, given_rows = max_rows - wanted, given_id = last_id, polled_at = clock_timestamp(),
                   waypoints = CASE WHEN charted THEN me.waypoints ELSE c.waypoints END
             WHERE c.ctid = version;
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._poll(oid, text, integer) IS 'poll(), with the caller''s role';
CREATE FUNCTION audit_log.poll(consumer text, max_rows integer DEFAULT 1000) RETURNS SETOF audit_log.audit_logs
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.poll(text, integer) IS
    'the next committed changes for a consumer of the outbox, in order; the same again until audit_log.ack(). For members of the consumer''s role';

CREATE FUNCTION audit_log._ack(caller oid, consumer text, change_id bigint) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        me audit_log.consumer;
        row record;
    BEGIN
        SELECT * INTO row FROM audit_log._lock_consumer(caller, consumer);
        me := row.me;
        IF me.given IS NULL OR change_id <> me.given_id THEN
            RETURN 0;
        END IF;
        UPDATE audit_log.consumer c
           SET acked = c.given, given = NULL, given_rows = 0, given_id = NULL, acked_at = clock_timestamp(),
               waypoints = CASE WHEN c.waypoints ->> 'xid' = (c.given).inside::text THEN c.waypoints END
         WHERE c.ctid = row.place;
        RETURN me.given_rows;
    END
    $$;
COMMENT ON FUNCTION audit_log._ack(oid, text, bigint) IS 'ack(), with the caller''s role';
CREATE FUNCTION audit_log.ack(consumer text, change_id bigint DEFAULT NULL) RETURNS bigint
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.ack(text, bigint) IS
    'acknowledges what audit_log.poll() gave last: it is not given again. With change_id only if that was the id of its last change. Returns how many changes';

/* no consumer keeps a partition: one that has not got all of it is named, before it goes */
ALTER FUNCTION audit_log._maintain(oid, interval, text) RENAME TO _maintain_log;
COMMENT ON FUNCTION audit_log._maintain_log(oid, interval, text) IS 'what maintain() does, whatever consumers have been given';
CREATE FUNCTION audit_log._maintain(caller oid, keep interval, expired text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    AS $$
    DECLARE
        late record;
        behind boolean;
    BEGIN
        IF keep >= '1 month' AND audit_log._is_keeper(caller) THEN
            FOR late IN
                SELECT p.oid::regclass AS partition, c.consumer, greatest((c.acked).done_change, (c.acked).place) AS place
                  FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhrelid CROSS JOIN audit_log.consumer c
                 WHERE i.inhparent = 'audit_log.change'::regclass AND p.relname ~ '^change_\d{4}_\d\d$'
                   AND to_timestamp(substr(p.relname, 8), 'YYYY_MM') + interval '1 month' <= clock_timestamp() - keep
                 ORDER BY p.relname, c.consumer
            LOOP
                EXECUTE format('SELECT EXISTS (SELECT FROM ONLY %s h WHERE h.id > $1)', late.partition) INTO behind USING late.place;
                IF behind THEN
                    RAISE WARNING USING
                        MESSAGE = format('audit_log: consumer %L has not acknowledged all changes in partition %s, which is expired', late.consumer, late.partition),
                        DETAIL = 'What is purged is not given to it any more.';
                END IF;
            END LOOP;
        END IF;
        PERFORM audit_log._maintain_log(caller, keep, expired);
    END
    $$;
COMMENT ON FUNCTION audit_log._maintain(oid, interval, text) IS 'maintain(), with the caller''s role';

CREATE FUNCTION audit_log._consumers(caller oid, OUT consumer text, OUT role text, OUT created_at timestamptz,
        OUT polled_at timestamptz, OUT acked_at timestamptz, OUT unacknowledged bigint, OUT behind bigint) RETURNS SETOF record
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT c.consumer, c.role, c.created_at, c.polled_at, c.acked_at, c.given_rows,
               greatest(0, coalesce(pg_sequence_last_value('audit_log.change_id_seq'), 0)
                           - greatest((c.acked).done_change, (c.acked).place))
          FROM audit_log.consumer c
         WHERE audit_log._is_keeper($1)
            OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname = c.role AND pg_has_role($1, r.oid, 'USAGE'))
         ORDER BY c.consumer
    $$;
COMMENT ON FUNCTION audit_log._consumers(oid) IS 'consumers(), with the caller''s role';
CREATE FUNCTION audit_log.consumers(OUT consumer text, OUT role text, OUT created_at timestamptz,
        OUT polled_at timestamptz, OUT acked_at timestamptz, OUT unacknowledged bigint, OUT behind bigint) RETURNS SETOF record
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.consumers() IS
    'the consumers of the outbox that the caller may poll: when they polled and acknowledged last, how many changes they have been given since, and how many ids of changes they are behind at most';

/* ================================================================= reports */

/*
 * Pages to look at: HTML that needs nothing from elsewhere and runs nothing (its
 * own policy forbids both).  Whatever comes from the log passes _html(),
 * names of columns and keys of JSON included.  The template is ASCII, so that it
 * is right in every encoding.
 */
CREATE FUNCTION audit_log._html(content text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    AS $$
        -- a mark for control characters, and for those that turn the direction of what follows
        SELECT regexp_replace(replace(replace(replace(replace(replace(
                   left($1, 4000), '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;'), '''', '&#39;'),
                   CASE WHEN getdatabaseencoding() = 'UTF8' THEN '[\x01-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]'
                        ELSE '[\x01-\x08\x0b-\x1f\x7f]' END, '&#65533;', 'g')
            || CASE WHEN length($1) > 4000 THEN format('<span class="cut">&hellip; %s characters in all</span>', length($1)) ELSE '' END
    $$;
COMMENT ON FUNCTION audit_log._html(text) IS 'a text within HTML; the first 4,000 characters of a longer one';

/* a JSON value: what is nested as a tree, beyond 12 levels as text */
CREATE FUNCTION audit_log._html_value(value jsonb, depth integer DEFAULT 0) RETURNS text
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        item record;
        items text := '';
        n integer := 0;
    BEGIN
        CASE coalesce(jsonb_typeof(value), 'null')
            WHEN 'null' THEN RETURN '<i class="none">null</i>';
            WHEN 'string' THEN
                IF value #>> '{}' = '' THEN
                    RETURN '<i class="none">empty text</i>';
                END IF;
                RETURN format('<bdi>%s</bdi>', audit_log._html(value #>> '{}'));
            WHEN 'number', 'boolean' THEN RETURN format('<b>%s</b>', audit_log._html(value #>> '{}'));
            WHEN 'object' THEN
                IF depth = 0 AND value ? '$pg' AND (SELECT count(*) FROM jsonb_object_keys(value)) = 1 THEN
                    RETURN format('<bdi>%s</bdi>', audit_log._html(value ->> '$pg'));
                END IF;
                IF value = '{}' OR depth > 12 THEN
                    RETURN format('<bdi>%s</bdi>', audit_log._html(value::text));
                END IF;
                FOR item IN SELECT e.key, e.value FROM jsonb_each(value) e LOOP
                    n := n + 1;
                    EXIT WHEN n > 200;
                    items := items || format('<li><span class="key">%s</span> %s</li>', audit_log._html(item.key), audit_log._html_value(item.value, depth + 1));
                END LOOP;
                RETURN format('<ul class="tree">%s%s</ul>', items, CASE WHEN n > 200 THEN '<li class="cut">&hellip; and more</li>' ELSE '' END);
            WHEN 'array' THEN
                IF depth > 12 OR NOT jsonb_path_exists(value, 'strict $[*] ? (@.type() == "object" || @.type() == "array")') THEN
                    RETURN format('<bdi>%s</bdi>', audit_log._html(value::text));
                END IF;
                FOR item IN SELECT e.value FROM jsonb_array_elements(value) e LOOP
                    n := n + 1;
                    EXIT WHEN n > 200;
                    items := items || format('<li>%s</li>', audit_log._html_value(item.value, depth + 1));
                END LOOP;
                RETURN format('<ol class="tree">%s%s</ol>', items, CASE WHEN n > 200 THEN '<li class="cut">&hellip; and more</li>' ELSE '' END);
        END CASE;
    END
    $$;
COMMENT ON FUNCTION audit_log._html_value(jsonb, integer) IS 'a value of the log within HTML';

/* one place of a delta: added, changed, removed, or an object with such places */
CREATE FUNCTION audit_log._html_delta(name text, delta jsonb, depth integer DEFAULT 0) RETURNS text
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        item record;
        items text := '';
        n integer := 0;
        before text;
        after text;
    BEGIN
        IF jsonb_typeof(delta) = 'object' AND depth <= 12 THEN
            FOR item IN SELECT e.key, e.value FROM jsonb_each(delta) e LOOP
                n := n + 1;
                IF n > 200 THEN
                    items := items || '<li class="cut">&hellip; and more</li>';
                    EXIT;
                END IF;
                items := items || audit_log._html_delta(item.key, item.value, depth + 1);
            END LOOP;
            RETURN format('<li class="inside"><span class="key">%s</span><ul class="tree">%s</ul></li>', audit_log._html(name), items);
        END IF;
        IF jsonb_typeof(delta) <> 'array' THEN
            RETURN format('<li><span class="key">%s</span> %s</li>', audit_log._html(name), audit_log._html_value(delta, 13));
        END IF;
        IF jsonb_array_length(delta) = 2 AND (delta -> 0)::text = (delta -> 1)::text THEN
            -- of a table without key: it names the row
            RETURN format('<li class="same"><span class="key">%s</span> <span class="value">%s</span></li>', audit_log._html(name),
                audit_log._html_value(delta -> 0, depth));
        END IF;
        IF jsonb_array_length(delta) > 1 THEN
            before := format('<del><span class="sign">&minus;</span>%s</del>', audit_log._html_value(delta -> 0, depth));
        END IF;
        IF jsonb_array_length(delta) < 3 THEN
            after := format('<ins><span class="sign">+</span>%s</ins>', audit_log._html_value(delta -> -1, depth));
        END IF;
        RETURN format('<li><span class="key">%s</span> <span class="pair">%s%s</span></li>', audit_log._html(name), before, after);
    END
    $$;
COMMENT ON FUNCTION audit_log._html_delta(text, jsonb, integer) IS 'one column, or one key inside of one, of an UPDATE, within HTML';

/* the columns in their order in the table, while it has them */
CREATE FUNCTION audit_log._html_changes(action text, changes jsonb, target regclass) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        item record;
        items text := '';
        n integer := 0;
        whole integer := (SELECT count(*) FROM jsonb_object_keys(changes));
    BEGIN
        IF action = 'TRUNCATE' THEN
            RETURN format('<p class="soft">%s</p>', coalesce('Partition ' || audit_log._html(changes ->> 'partition') || ' was emptied.', 'The whole table was emptied.'));
        END IF;
        FOR item IN SELECT e.key, e.value FROM jsonb_each(changes) e
                      LEFT JOIN pg_attribute a ON a.attrelid = target AND a.attname = e.key AND NOT a.attisdropped
                     ORDER BY a.attnum, e.key LOOP
            n := n + 1;
            EXIT WHEN n > 300;
            items := items || CASE action
                WHEN 'UPDATE' THEN audit_log._html_delta(item.key, item.value)
                WHEN 'DELETE' THEN format('<li><span class="key">%s</span> <span class="pair"><del><span class="sign">&minus;</span>%s</del></span></li>',
                    audit_log._html(item.key), audit_log._html_value(item.value))
                ELSE format('<li><span class="key">%s</span> <span class="pair"><ins><span class="sign">+</span>%s</ins></span></li>',
                    audit_log._html(item.key), audit_log._html_value(item.value)) END;
        END LOOP;
        IF n > 300 THEN
            items := items || format('<li class="cut">&hellip; %s columns in all</li>', whole);
        END IF;
        RETURN format('<ul class="columns">%s</ul>', items);
    END
    $$;
COMMENT ON FUNCTION audit_log._html_changes(text, jsonb, regclass) IS 'the changes of one row within HTML';

/* why: an object key by key, whatever else as it is */
CREATE FUNCTION audit_log._html_context(context jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT CASE WHEN jsonb_typeof($1) = 'object' AND $1 <> '{}' THEN
                (SELECT '<dl class="why">' || string_agg(format('<div><dt>%s</dt><dd>%s</dd></div>', audit_log._html(e.key), audit_log._html_value(e.value, 1)), '')
                        || CASE WHEN (SELECT count(*) FROM jsonb_object_keys($1)) > 50 THEN '<div class="cut">&hellip; and more</div>' ELSE '' END || '</dl>'
                   FROM (SELECT * FROM jsonb_each($1) LIMIT 50) e)
            ELSE '<div class="why">' || audit_log._html_value($1, 1) || '</div>' END
    $$;
COMMENT ON FUNCTION audit_log._html_context(jsonb) IS 'a context within HTML';

/* an entry of the timeline; about: what the heading of the page does not say */
CREATE FUNCTION audit_log._html_entry(change audit_log.audit_logs, about text, with_who boolean) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    AS $$
        SELECT format('<article class="entry %s" id="change-%s"><header><span class="action">%s</span>%s<span class="when"><time datetime="%s">%s</time></span></header>%s%s%s</article>',
            lower($1.action_type), $1.id,
            CASE $1.action_type WHEN 'INSERT' THEN 'Created' WHEN 'UPDATE' THEN 'Changed' WHEN 'DELETE' THEN 'Deleted'
                 WHEN 'SNAPSHOT' THEN 'As found' ELSE 'Emptied' END,
            coalesce(' <span class="about">' || $2 || '</span>', ''),
            to_char($1.timestamp, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), to_char($1.timestamp, CASE WHEN $3 THEN 'HH24:MI:SS' ELSE 'YYYY-MM-DD HH24:MI:SS' END),
            CASE WHEN $3 THEN format('<p class="who">%s</p>%s', audit_log._html_who($1), coalesce(audit_log._html_context($1.context), '')) ELSE '' END,
            CASE WHEN $1.old_record_id IS NOT NULL THEN format('<p class="moved">The key was <bdi>%s</bdi> before, and is <bdi>%s</bdi> from here on.</p>',
                audit_log._html($1.old_record_id), audit_log._html($1.record_id)) ELSE '' END,
            CASE WHEN $1.undoes IS NOT NULL AND $3 THEN format('<p class="moved">Takes back <bdi>%s</bdi></p>', audit_log._html($1.undoes::text)) ELSE '' END
                || audit_log._html_changes($1.action_type, $1.changes, $1.relation)
                || format('<footer>change %s%s &middot; command %s</footer>', $1.id,
                          CASE WHEN $3 THEN format(' &middot; transaction %s', $1.transaction_id) ELSE '' END, $1.command))
    $$;
CREATE FUNCTION audit_log._html_who(change audit_log.audit_logs) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT CASE WHEN $1.user_id IS NULL THEN '<span class="none">no user named</span>'
                    ELSE format('<strong><bdi>%s</bdi></strong>', audit_log._html($1.user_id)) END
            || format(' <span class="soft">as %s%s%s</span>', audit_log._html($1.db_role),
                   CASE WHEN $1.db_user <> $1.db_role THEN ' (session of ' || audit_log._html($1.db_user) || ')' ELSE '' END,
                   coalesce(', ' || audit_log._html(nullif($1.application_name, '')), '') || coalesce(', from ' || audit_log._html(host($1.client_addr)), ''))
    $$;
COMMENT ON FUNCTION audit_log._html_entry(audit_log.audit_logs, text, boolean) IS 'one change within HTML';
COMMENT ON FUNCTION audit_log._html_who(audit_log.audit_logs) IS 'who made a change, within HTML';

CREATE FUNCTION audit_log._html_page(title text, heading text, facts text, body text) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    AS $page$
        SELECT format($html$<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<meta name="referrer" content="no-referrer">
<meta name="robots" content="noindex">
<meta name="generator" content="audit_log">
<title>%1$s</title>
<style>
:root{color-scheme:light dark;--page:#f4f5f8;--card:#fff;--ink:#1c2128;--soft:#57606a;--line:#d5dbe3;--accent:#4150b5;--accent-bg:#e8eafc;
--ins:#0b5d2c;--ins-bg:#ddf7e5;--del:#9b1420;--del-bg:#ffe9e7;--upd:#7d4500;--upd-bg:#fff0d6;--shadow:0 1px 2px #1f23281a,0 2px 8px #1f23280f}
@media(prefers-color-scheme:dark){:root{--page:#0f1217;--card:#181d25;--ink:#e7ecf3;--soft:#9da7b5;--line:#323a46;--accent:#a9b4ff;--accent-bg:#262c52;
--ins:#86e5aa;--ins-bg:#12351f;--del:#ffb3ad;--del-bg:#471a1b;--upd:#f5c571;--upd-bg:#40300f;--shadow:none}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;overflow-wrap:anywhere}
main,.top>div{max-width:58rem;margin:0 auto;padding:0 1.25rem}
.top{background:var(--card);border-bottom:1px solid var(--line);border-top:4px solid var(--accent);padding:1.5rem 0 1.25rem}
h1{margin:0;font-size:1.6rem;line-height:1.25;font-weight:650;letter-spacing:-.01em}
h1 .soft{font-weight:400}
.soft,.none,footer,.cut{color:var(--soft)}
.none{font-style:italic}
.facts{display:flex;flex-wrap:wrap;gap:.5rem 2rem;margin:1rem 0 0}
.facts div{min-width:0}
dt{color:var(--soft);font-size:.8rem}
dd{margin:0}
.note{background:var(--upd-bg);color:var(--upd);border-radius:.5rem;padding:.6rem .9rem;margin:1rem 0 0}
h2{font-size:.95rem;font-weight:600;margin:2rem 0 .75rem;color:var(--soft)}
.timeline{border-left:2px solid var(--line);margin-left:.4rem;padding-left:1.4rem}
.entry{position:relative;background:var(--card);border:1px solid var(--line);border-radius:.75rem;padding:.9rem 1.1rem .7rem;margin:0 0 1rem;box-shadow:var(--shadow)}
.entry::before{content:"";position:absolute;left:-1.95rem;top:1.15rem;width:.9rem;height:.9rem;border-radius:50%%;background:var(--upd);border:3px solid var(--page);box-sizing:content-box;margin:-3px}
.insert::before,.snapshot::before{background:var(--ins)}
.delete::before,.truncate::before{background:var(--del)}
.entry header{display:flex;flex-wrap:wrap;gap:.25rem .6rem;align-items:baseline}
.action{font-weight:650;font-size:.85rem;border-radius:1rem;padding:.1rem .65rem;background:var(--upd-bg);color:var(--upd)}
.insert .action,.snapshot .action{background:var(--ins-bg);color:var(--ins)}
.delete .action,.truncate .action{background:var(--del-bg);color:var(--del)}
.about{font-weight:600;min-width:0}
.when{margin-left:auto;color:var(--soft);font-variant-numeric:tabular-nums;font-size:.9rem}
.who{margin:.35rem 0 0}
.why{margin:.45rem 0 0;display:flex;flex-wrap:wrap;gap:.3rem;align-items:flex-start}
dl.why>div,div.why{background:var(--accent-bg);color:var(--accent);border-radius:.4rem;padding:.05rem .55rem;font-size:.875rem;max-width:100%%}
dl.why dt,dl.why dd{display:inline;color:inherit;font-size:inherit}
dl.why dt::after{content:": "}
.moved{margin:.5rem 0 0;color:var(--accent)}
ul,ol{margin:0;padding:0;list-style:none}
.columns{margin:.75rem 0 .5rem;border-top:1px solid var(--line)}
.columns>li{display:grid;grid-template-columns:minmax(7rem,13rem) minmax(0,1fr);gap:.25rem 1rem;padding:.4rem 0;border-bottom:1px solid var(--line)}
.columns>li.cut{display:block}
.key{color:var(--soft);font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.85rem;padding-top:.1rem}
.columns>li>.key{color:var(--ink)}
.pair{display:flex;flex-wrap:wrap;gap:.3rem .5rem;min-width:0}
del,ins,.value,li>bdi,li>b{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.85rem;white-space:pre-wrap;text-decoration:none;min-width:0;max-width:100%%}
del,ins{border-radius:.4rem;padding:.1rem .55rem .1rem 1.4rem;position:relative;max-height:22rem;overflow:auto;
background:linear-gradient(transparent,var(--ground) 70%%) 0 100%%/100%% 2rem no-repeat local,linear-gradient(transparent,#0004) 0 100%%/100%% .7rem no-repeat var(--ground)}
del{--ground:var(--del-bg);color:var(--del)}
ins{--ground:var(--ins-bg);color:var(--ins)}
del .key,ins .key,del .none,ins .none,del .cut,ins .cut{color:inherit}
b{font-weight:600}
.sign{user-select:none;font-weight:700;position:absolute;left:.5rem}
del>.tree,ins>.tree{border-left:0;padding-left:0}
.same{color:var(--soft)}
.tree{border-left:1px solid var(--line);padding-left:.8rem;min-width:0;white-space:normal}
.tree>li{padding:.12rem 0}
.tree>li>.pair{display:inline-flex;vertical-align:top}
ol.tree>li::before{content:"\2022\a0"}
.tree>li>.key::after,.why .key::after{content:":"}
del .tree,ins .tree{border-color:currentColor}
footer{font-size:.8rem}
.empty{background:var(--card);border:1px dashed var(--line);border-radius:.75rem;padding:2rem;text-align:center;color:var(--soft);margin-top:2rem}
.end{padding:1.5rem 0 3rem}
@media(max-width:34rem){.columns>li{grid-template-columns:minmax(0,1fr)}h1{font-size:1.3rem}main,.top>div{padding:0 .8rem}.timeline{padding-left:1rem;margin-left:.2rem}.entry{padding:.75rem .8rem .6rem}.entry::before{left:-1.55rem}.when{margin-left:0}}
@media print{:root{color-scheme:light;--page:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#bbb;--ins:#0b5d2c;--del:#9b1420;--upd:#7d4500;--accent:#333;--shadow:none}
body{font-size:10pt}.entry{break-inside:avoid}.top{border-top:0}del,ins,.action,.why>div{border:1px solid currentColor}del,ins{max-height:none}del{text-decoration:line-through}}
</style>
</head>
<body>
<div class="top"><div>
<h1>%2$s</h1>
%3$s
</div></div>
<main>
%4$s
<footer class="end">Made by audit_log from the log of database <bdi>%5$s</bdi>, %6$s UTC. All times are UTC.</footer>
</main>
</body>
</html>
$html$, $1, $2, $3, $4, audit_log._html(current_database()), to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS'))
    $page$;
COMMENT ON FUNCTION audit_log._html_page(text, text, text, text) IS 'a page of HTML';

/* reports are for whom grant_read() lets use the views */
CREATE FUNCTION audit_log._check_reader(caller oid, max_rows integer) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF NOT has_table_privilege(caller, 'audit_log.audit_logs', 'SELECT') THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
                MESSAGE = 'permission denied for the log',
                HINT = 'audit_log.grant_read() lets a role use it.';
        END IF;
        IF max_rows IS NULL OR max_rows < 1 THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'max_rows must be at least 1';
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._check_reader(oid, integer) IS 'refuses who may not use the views of the log';

CREATE FUNCTION audit_log._normal_record_id(target regclass, record_id text) RETURNS text
    LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'audit_log_normal_record_id';
COMMENT ON FUNCTION audit_log._normal_record_id(regclass, text) IS 'a record_id as the log writes it, read through the types of the key';

/*
 * The changes of a record, through changes of its key: from the key it bears
 * now, or bore last, back to the first.  With how many there are.
 * (history() finds out what the row was each time, too, and has notices where it
 * cannot tell; a page shows what was logged.)
 */
CREATE FUNCTION audit_log._record_changes(table_id integer, record_id text, max_rows integer,
        OUT ids bigint[], OUT keys text[], OUT key text, OUT number bigint) RETURNS record
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
    #variable_conflict use_column
    DECLARE
        all_ids bigint[] := '{}';
        found_ids bigint[];
        bearer text;
        before bigint := 9223372036854775807;
        since bigint;
        gone bigint;
        step integer := 0;
    BEGIN
        key := _record_changes.record_id;
        -- who bears the key later on, if it was given up
        LOOP
            SELECT c.record_id, c.id INTO bearer, since FROM audit_log.change c
             WHERE c.old_record_id = key AND c.table_id = _record_changes.table_id
               AND c.id > coalesce((SELECT max(l.id) FROM audit_log.change l WHERE l.record_id = key AND l.table_id = _record_changes.table_id), 0)
             ORDER BY c.id DESC LIMIT 1;
            step := step + 1;
            EXIT WHEN NOT FOUND OR step > 1000;
            key := bearer;
        END LOOP;
        bearer := key;
        keys := '{}';
        step := 0;
        LOOP
            SELECT c.id INTO since FROM audit_log.change c
             WHERE c.record_id = bearer AND c.table_id = _record_changes.table_id AND c.old_record_id IS NOT NULL AND c.id < before
             ORDER BY c.id DESC LIMIT 1;
            -- what bore the key before it was given up is another record
            SELECT max(c.id) INTO gone FROM audit_log.change c
             WHERE c.old_record_id = bearer AND c.table_id = _record_changes.table_id AND c.id < before;
            IF gone > since THEN
                since := NULL;
            END IF;
            SELECT array_agg(c.id) INTO found_ids FROM audit_log.change c
             WHERE c.record_id = bearer AND c.table_id = _record_changes.table_id AND c.id < before
               AND c.id >= coalesce(since, 0) AND c.id > CASE WHEN since IS NULL THEN coalesce(gone, 0) ELSE 0 END;
            all_ids := all_ids || found_ids;
            keys := keys || bearer;
            step := step + 1;
            EXIT WHEN since IS NULL OR step > 1000;
            SELECT c.old_record_id INTO bearer FROM audit_log.change c WHERE c.id = since AND c.record_id = bearer AND c.table_id = _record_changes.table_id;
            before := since;
        END LOOP;
        number := coalesce(cardinality(all_ids), 0);
        ids := ARRAY(SELECT i FROM unnest(all_ids) i ORDER BY i DESC LIMIT max_rows);
    END
    $$;
COMMENT ON FUNCTION audit_log._record_changes(integer, text, integer) IS 'the newest changes of a record, through changes of its key';

CREATE FUNCTION audit_log._of_record(ids bigint[], keys text[], table_id integer) RETURNS SETOF audit_log.change
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        -- by the index on records: ids have none
        SELECT c.* FROM unnest($2) k CROSS JOIN LATERAL (SELECT * FROM audit_log.change h WHERE h.record_id = k AND h.table_id = $3) c
         WHERE c.id = ANY ($1)
    $$;
COMMENT ON FUNCTION audit_log._of_record(bigint[], text[], integer) IS 'changes of a record by their ids, found by its keys';

CREATE FUNCTION audit_log._tables_seen(role oid) RETURNS SETOF audit_log.tracked_table
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT t.* FROM audit_log.tracked_table t
          LEFT JOIN (pg_namespace n JOIN pg_class r ON r.relnamespace = n.oid AND r.relkind IN ('r', 'p'))
                 ON t.dropped_at IS NULL AND n.nspname = t.table_schema AND r.relname = t.table_name
         WHERE CASE WHEN r.oid IS NULL THEN audit_log._is_keeper($1) ELSE audit_log._may_read(r.oid::regclass, $1) END
    $$;
COMMENT ON FUNCTION audit_log._tables_seen(oid) IS 'the tracked tables whose log a role may see';

CREATE FUNCTION audit_log._report(caller oid, target regclass, record_id text, max_rows integer) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    AS $$
    DECLARE
        tracked record;
        found_ids record;
        facts record;
        row record;
        body text := '';
        parts text[] := '{}';
        day text;
        note text := '';
        name text;
    BEGIN
        PERFORM audit_log._check_reader(caller, max_rows);
        IF target IS NULL OR record_id IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'table_name and record_id must not be NULL',
                HINT = 'The changes of one transaction are reported by audit_log.report_transaction().';
        END IF;
        PERFORM audit_log._check_readable(caller, target);
        SELECT t.id, t.table_schema, t.table_name INTO tracked FROM audit_log.tracked_table t WHERE t.id = audit_log._table_id(target);
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = format('table %s is not audited', target),
                HINT = CASE WHEN (SELECT c.relispartition FROM pg_class c WHERE c.oid = target)
                            THEN format('It is a partition: ask for the whole table, %s.', pg_partition_root(target))
                            ELSE 'Run audit_log.enable() on it.' END;
        END IF;
        SELECT * INTO found_ids FROM audit_log._record_changes(tracked.id, record_id, max_rows);
        IF found_ids.number = 0 THEN
            -- as the log does not write it; a hash in the place of a masked key was found above
            SELECT * INTO found_ids FROM audit_log._record_changes(tracked.id, audit_log._normal_record_id(target, record_id), max_rows);
        END IF;
        name := audit_log._html(CASE tracked.table_schema WHEN 'public' THEN '' ELSE tracked.table_schema || '.' END || tracked.table_name);

        FOR row IN
            SELECT ROW(c.id, c.timestamp, t.user_id, c.action_type::text, tracked.table_schema, tracked.table_name, c.record_id, c.changes,
                       c.transaction_id, c.command, c.old_record_id, target, t.db_user, t.db_role, t.application_name, t.client_addr,
                       t.context, t.undoes)::audit_log.audit_logs AS change, c.timestamp
              FROM audit_log._of_record(found_ids.ids, found_ids.keys, tracked.id) c
              JOIN audit_log.transaction t ON t.id = c.transaction_id
             ORDER BY max(c.id) OVER (PARTITION BY t.xid, t.started_at) DESC, c.command DESC, c.id DESC
        LOOP
            IF day IS DISTINCT FROM to_char(row.timestamp, 'YYYY-MM-DD') THEN
                parts := parts || format('%s<h2><time datetime="%s">%s</time></h2><section class="timeline">', CASE WHEN day IS NULL THEN '' ELSE '</section>' END,
                    to_char(row.timestamp, 'YYYY-MM-DD'), to_char(row.timestamp, 'FMDay, FMDD FMMonth YYYY'));
                day := to_char(row.timestamp, 'YYYY-MM-DD');
            END IF;
            parts := parts || audit_log._html_entry(row.change, NULL, true);
        END LOOP;
        body := CASE WHEN day IS NULL THEN '<p class="empty">Nothing is known of this record.</p>' ELSE array_to_string(parts, E'\n') || '</section>' END;

        SELECT min(c.timestamp) AS first, max(c.timestamp) AS last, count(DISTINCT t.user_id) AS users,
               string_agg(DISTINCT t.user_id, ', ') AS names INTO facts
          FROM audit_log._of_record(found_ids.ids, found_ids.keys, tracked.id) c JOIN audit_log.transaction t ON t.id = c.transaction_id;
        IF found_ids.number > max_rows THEN
            note := format('<p class="note">The newest %s of %s changes are shown.</p>', max_rows, found_ids.number);
        END IF;
        RETURN audit_log._html_page(
            format('%s %s', name, audit_log._html(left(record_id, 100))),
            format('<span class="soft">%s</span> <bdi>%s</bdi>', name, audit_log._html(found_ids.key)),
            CASE WHEN day IS NULL THEN '' ELSE format('<dl class="facts"><div><dt>Changes</dt><dd>%s</dd></div>%s<div><dt>%s</dt><dd>%s</dd></div><div><dt>Latest</dt><dd>%s</dd></div>%s</dl>',
                found_ids.number,
                CASE WHEN found_ids.key <> record_id THEN format('<div><dt>Asked for</dt><dd><bdi>%s</bdi></dd></div>', audit_log._html(record_id)) ELSE '' END,
                CASE WHEN found_ids.number > max_rows THEN 'First shown' ELSE 'First' END, to_char(facts.first, 'YYYY-MM-DD HH24:MI'), to_char(facts.last, 'YYYY-MM-DD HH24:MI'),
                CASE WHEN facts.users > 0 THEN format('<div><dt>%s</dt><dd><bdi>%s</bdi></dd></div>', CASE facts.users WHEN 1 THEN 'User' ELSE facts.users || ' users' END,
                    audit_log._html(left(facts.names, 200) || CASE WHEN length(facts.names) > 200 THEN ' ...' ELSE '' END)) ELSE '' END) END || note,
            body);
    END
    $$;
COMMENT ON FUNCTION audit_log._report(oid, regclass, text, integer) IS 'report(), with the caller''s role';
CREATE FUNCTION audit_log.report(table_name regclass, record_id text, max_rows integer DEFAULT 200) RETURNS text
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.report(regclass, text, integer) IS
    'the history of a record as a page of HTML, newest change first; rights as for the views';

CREATE FUNCTION audit_log._report_transaction(caller oid, transaction_id bigint, max_rows integer) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    AS $$
    #variable_conflict use_variable
    DECLARE
        about audit_log.transaction;
        row record;
        parts text[] := '{}';
        tables text;
        named integer := 0;
        number bigint := 0;
        others text;
        note text := '';
        head audit_log.audit_logs;
    BEGIN
        PERFORM audit_log._check_reader(caller, max_rows);
        IF transaction_id IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'transaction_id must not be NULL';
        END IF;
        SELECT * INTO about FROM audit_log.transaction t WHERE t.id = transaction_id;
        FOR row IN
            SELECT k.table_schema, k.table_name, count(*) AS changes
              FROM audit_log.change c JOIN audit_log._tables_seen(caller) s ON s.id = c.table_id JOIN audit_log.tracked_table k ON k.id = c.table_id
             WHERE c.transaction_id = transaction_id GROUP BY k.id ORDER BY count(*) DESC, 1, 2
        LOOP
            number := number + row.changes;
            named := named + 1;
            IF named <= 20 THEN
                tables := concat_ws(', ', tables, format('<bdi>%s</bdi> (%s)',
                    audit_log._html(CASE row.table_schema WHEN 'public' THEN '' ELSE row.table_schema || '.' END || row.table_name), row.changes));
            END IF;
        END LOOP;
        IF number = 0 THEN
            RAISE EXCEPTION USING ERRCODE = 'no_data_found',
                MESSAGE = format('there is no transaction %s with changes that the caller may see', transaction_id),
                HINT = coalesce((SELECT format('%s is an xid: its changes are those of transaction %s.', transaction_id, string_agg(t.id::text, ', ' ORDER BY t.id))
                                   FROM audit_log.transaction t WHERE t.xid::text = transaction_id::text
                                    AND EXISTS (SELECT FROM audit_log.change c JOIN audit_log._tables_seen(caller) s ON s.id = c.table_id
                                                 WHERE c.transaction_id = t.id)
                                 HAVING count(*) > 0),
                                'audit_log.transactions lists them.');
        END IF;

        FOR row IN
            SELECT ROW(c.id, c.timestamp, about.user_id, c.action_type::text, k.table_schema, k.table_name, c.record_id, c.changes,
                       c.transaction_id, c.command, c.old_record_id, r.oid::regclass, about.db_user, about.db_role, about.application_name,
                       about.client_addr, about.context, about.undoes)::audit_log.audit_logs AS change
              FROM audit_log.change c JOIN audit_log._tables_seen(caller) s ON s.id = c.table_id JOIN audit_log.tracked_table k ON k.id = c.table_id
              LEFT JOIN (pg_namespace n JOIN pg_class r ON r.relnamespace = n.oid AND r.relkind IN ('r', 'p'))
                     ON k.dropped_at IS NULL AND n.nspname = k.table_schema AND r.relname = k.table_name
             WHERE c.transaction_id = transaction_id ORDER BY c.command DESC, c.id DESC LIMIT max_rows
        LOOP
            head := row.change;
            parts := audit_log._html_entry(row.change,
                format('%s <bdi>%s</bdi>', audit_log._html(CASE (row.change).table_schema WHEN 'public' THEN '' ELSE (row.change).table_schema || '.' END
                       || (row.change).table_name), coalesce(audit_log._html((row.change).record_id), '')), false) || parts;
        END LOOP;
        IF number > max_rows THEN
            note := format('<p class="note">The newest %s of %s changes are shown.</p>', max_rows, number);
        END IF;
        SELECT string_agg(t.id::text, ', ' ORDER BY t.id) INTO others FROM audit_log.transaction t
         WHERE t.xid = about.xid AND t.id BETWEEN about.id - 1000 AND about.id + 1000 AND t.id <> about.id AND t.started_at = about.started_at
           AND EXISTS (SELECT FROM audit_log.change c JOIN audit_log._tables_seen(caller) s ON s.id = c.table_id WHERE c.transaction_id = t.id);
        RETURN audit_log._html_page(
            format('Transaction %s', transaction_id),
            format('<span class="soft">Transaction</span> %s', transaction_id),
            format('<p class="who">%s</p>%s%s<dl class="facts"><div><dt>Changes</dt><dd>%s</dd></div><div><dt>Time</dt><dd><time datetime="%s">%s</time></dd></div><div><dt>%s</dt><dd>%s</dd></div>%s</dl>%s',
                audit_log._html_who(head), coalesce(audit_log._html_context(about.context), ''),
                CASE WHEN about.undoes IS NOT NULL THEN format('<p class="moved">Takes back <bdi>%s</bdi></p>', audit_log._html(about.undoes::text)) ELSE '' END,
                number, to_char(about.timestamp, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), to_char(about.timestamp, 'YYYY-MM-DD HH24:MI:SS'),
                CASE named WHEN 1 THEN 'Table' ELSE named || ' tables' END, tables || CASE WHEN named > 20 THEN ' &hellip;' ELSE '' END,
                coalesce('<div><dt>Same database transaction</dt><dd>' || others || '</dd></div>', ''), note),
            '<h2>What was changed</h2><section class="timeline">' || array_to_string(parts, E'\n') || '</section>');
    END
    $$;
COMMENT ON FUNCTION audit_log._report_transaction(oid, bigint, integer) IS 'report_transaction(), with the caller''s role';
CREATE FUNCTION audit_log.report_transaction(transaction_id bigint, max_rows integer DEFAULT 500) RETURNS text
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.report_transaction(bigint, integer) IS
    'the changes of a transaction as a page of HTML, in their order; rights as for the views';

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
        UNION ALL SELECT pg_catalog.unnest(ARRAY['TYPE audit_log.outbox_cursor', 'TABLE audit_log.consumer', 'TABLE audit_log.restored'])
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
        UNION
        SELECT DISTINCT 'TABLE ' || c.oid::pg_catalog.regclass, a.grantee
          FROM pg_catalog.pg_class c, LATERAL pg_catalog.aclexplode(c.relacl) a
         WHERE c.oid IN ('audit_log.consumer'::pg_catalog.regclass, 'audit_log.restored'::pg_catalog.regclass) AND a.grantee <> c.relowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s CASCADE', object.name,
            CASE WHEN object.grantee = 0 THEN 'PUBLIC'
                 ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(object.grantee)) END);
    END LOOP;

    EXECUTE pg_catalog.format('GRANT SELECT ON audit_log.consumer, audit_log.restored TO %I', installer);
    EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION audit_log.create_consumer(text, regrole, boolean), audit_log.drop_consumer(text) TO %I', installer);
    -- an import may have to keep ids free (examples/import/continuum.sql)
    EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION audit_log._pass_id(bigint) TO %I', installer);
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
GRANT EXECUTE ON FUNCTION audit_log._log_activity(text, text, text, text), audit_log._activity_table(),
    audit_log.poll(text, integer), audit_log.ack(text, bigint), audit_log.consumers(),
    audit_log.report(regclass, text, integer), audit_log.report_transaction(bigint, integer) TO PUBLIC;

/* ==================================================================== dumps */

SELECT pg_catalog.pg_extension_config_dump('audit_log.consumer', '');
SELECT pg_catalog.pg_extension_config_dump('audit_log.restored', '');

/*
 * A lock that writers hold is not waited for: an update must not stop them.  Then
 * the first create_consumer() makes the trigger.  A restore's CREATE EXTENSION
 * finds no writer.
 */
DO $$
BEGIN
    LOCK TABLE audit_log.transaction IN SHARE ROW EXCLUSIVE MODE NOWAIT;
    PERFORM audit_log._make_restore_trigger();
EXCEPTION WHEN lock_not_available THEN
    RAISE DEBUG 'audit_log: trigger audit_log_restored is made with the first consumer';
END
$$;
