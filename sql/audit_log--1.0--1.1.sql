/* audit_log 1.1: version tables, as SQLAlchemy-Continuum keeps them */

\echo Use "ALTER EXTENSION audit_log UPDATE" to load this file. \quit

/* what users have granted is granted apart from the script, or no dump would carry it */
CREATE FUNCTION audit_log._grant_apart(command text) RETURNS void
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'audit_log_grant_apart';
REVOKE ALL ON FUNCTION audit_log._grant_apart(text) FROM PUBLIC;

/*
 * Sessions look the version up again when this table's catalog row changes: a
 * library of 1.0 refuses changes from here on (HINT: connect again).
 */
SELECT audit_log._grant_apart('REVOKE ALL ON audit_log.tracked_table FROM PUBLIC');

/* ------------------------------------------------ functions that get arguments */

/* whoever may call these goes on to; given back at the end */
SELECT pg_catalog.set_config('audit_log_update.' || p.proname, coalesce(p.proacl::text, ''), true),
       pg_catalog.set_config('audit_log_update.own.' || p.proname, coalesce(
           (SELECT i.initprivs::text FROM pg_catalog.pg_init_privs i
             WHERE i.classoid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND i.objoid = p.oid AND i.privtype = 'e'), ''), true)
  FROM pg_catalog.pg_proc p
 WHERE p.oid IN ('audit_log.enable(regclass, name[], name[], name[], text, text[], text, boolean, name, text[], boolean)'::pg_catalog.regprocedure,
                 'audit_log.enable_schema(name, regclass[], boolean, name[], name[], name[], text, text[], text, boolean, name, text[], boolean)'::pg_catalog.regprocedure,
                 'audit_log.pause(regclass, text)'::pg_catalog.regprocedure);

DROP FUNCTION audit_log.enable(regclass, name[], name[], name[], text, text[], text, boolean, name, text[], boolean);
DROP FUNCTION audit_log._enable(oid, regclass, name[], name[], name[], text, text[], text, boolean, name, text[], boolean);
DROP FUNCTION audit_log.enable_schema(name, regclass[], boolean, name[], name[], name[], text, text[], text, boolean, name, text[], boolean);
DROP FUNCTION audit_log._enable_schema(oid, name, regclass[], boolean, name[], name[], name[], text, text[], text, boolean, name, text[], boolean);

/* ---------------------------------------------------- C, for the functions */

CREATE FUNCTION audit_log._sync_versions(target regclass) RETURNS bigint
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'audit_log_sync_versions';
COMMENT ON FUNCTION audit_log._sync_versions(regclass) IS
    'gives each record of a versioned table that differs from its open version a version, under a transaction row of its own; returns how many';
CREATE FUNCTION audit_log._refresh_versions(target regclass, columns name[]) RETURNS bigint
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'audit_log_refresh_versions';
COMMENT ON FUNCTION audit_log._refresh_versions(regclass, name[]) IS
    'writes the table''s values of columns that ALTER TABLE has filled into the open versions; returns how many';
CREATE FUNCTION audit_log._convert_versions(target regclass, version_table regclass, columns name[]) RETURNS void
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'audit_log_convert_versions';
CREATE FUNCTION audit_log._pass_id(id bigint) RETURNS void
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'audit_log_pass_id';
COMMENT ON FUNCTION audit_log._pass_id(bigint) IS 'sees to it that ids of transactions given out from here on are higher';
COMMENT ON FUNCTION audit_log._convert_versions(regclass, regclass, name[]) IS
    'gives columns of a version table the types that ALTER TABLE has given the table''s own; values are computed as the role that ran the command';

CREATE FUNCTION audit_log._former_key(target regclass) RETURNS text[]
    LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'audit_log_former_key';
COMMENT ON FUNCTION audit_log._former_key(regclass) IS 'a table''s key before the ALTER TABLE that has just run, NULL where none has';

/* ------------------------------------------------------------ version tables */

/* the name of one of the five columns that a version table has of its own */
CREATE FUNCTION audit_log._version_column(settings jsonb, name text) RETURNS name
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT coalesce($1 #>> ARRAY['version_columns', $2], $2)::name $$;
COMMENT ON FUNCTION audit_log._version_column(jsonb, text) IS 'the name that a version table''s own column has by the settings';

/* a type's name, of a domain that of the type beneath it */
CREATE FUNCTION audit_log._base_type(type oid, modifier integer) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH RECURSIVE chain AS (
            SELECT t.oid, t.typtype, t.typbasetype, t.typtypmod, $2 AS modifier FROM pg_type t WHERE t.oid = $1
            UNION ALL
            SELECT t.oid, t.typtype, t.typbasetype, t.typtypmod, CASE WHEN c.typtypmod >= 0 THEN c.typtypmod ELSE c.modifier END
              FROM chain c JOIN pg_type t ON t.oid = c.typbasetype
             WHERE c.typtype = 'd')
        SELECT format_type(c.oid, c.modifier) FROM chain c WHERE c.typtype <> 'd'
    $$;
COMMENT ON FUNCTION audit_log._base_type(oid, integer) IS 'a type''s name, of a domain that of its base type';

/* domains that are made of a domain, itself included */
CREATE FUNCTION audit_log._derived_domains(domain oid) RETURNS SETOF oid
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH RECURSIVE derived AS (
            SELECT $1 AS oid
            UNION
            SELECT t.oid FROM derived d JOIN pg_type t ON t.typbasetype = d.oid AND t.typtype = 'd')
        SELECT d.oid FROM derived d
    $$;
COMMENT ON FUNCTION audit_log._derived_domains(oid) IS 'the domains made of a domain, itself included';

/*
 * The type that a version table has for a column.  A domain's constraints would
 * be checked, and its default be evaluated, by us for whoever altered the table,
 * with our rights, and forbid the NULL of a version older than its column: so of
 * a domain that has any it is the base type.
 */
CREATE FUNCTION audit_log._version_type(type oid, modifier integer) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH RECURSIVE chain AS (
            SELECT t.oid, t.typtype, t.typbasetype, t.typnotnull, t.typdefault FROM pg_type t WHERE t.oid = $1
            UNION ALL
            SELECT t.oid, t.typtype, t.typbasetype, t.typnotnull, t.typdefault
              FROM chain c JOIN pg_type t ON t.oid = c.typbasetype
             WHERE c.typtype = 'd')
        SELECT CASE WHEN EXISTS (SELECT FROM chain c WHERE c.typtype = 'd' AND (c.typnotnull OR c.typdefault IS NOT NULL)
                                     OR EXISTS (SELECT FROM pg_constraint k WHERE k.contypid = c.oid))
                    THEN audit_log._base_type($1, $2)
                    ELSE format_type($1, $2) END
    $$;
COMMENT ON FUNCTION audit_log._version_type(oid, integer) IS 'a column''s type as version tables have it: of a domain with constraints or a default the base type';

/* the columns of a table that its version table has, with type and collation */
CREATE FUNCTION audit_log._version_sources(target regclass, settings jsonb,
        OUT column_name name, OUT definition text, OUT type oid, OUT modifier integer, OUT filled boolean)
    RETURNS SETOF record
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT a.attname,
               audit_log._version_type(a.atttypid, a.atttypmod)
               || CASE WHEN a.attcollation <> 0
                        AND a.attcollation <> (SELECT y.typcollation FROM pg_type y WHERE y.oid = audit_log._version_type(a.atttypid, -1)::regtype)
                       THEN (SELECT format(' COLLATE %I.%I', n.nspname, l.collname)
                               FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = a.attcollation)
                       ELSE '' END,
               a.atttypid, a.atttypmod,
               a.atthasdef OR a.atthasmissing OR a.attidentity <> '' OR t.typdefault IS NOT NULL
          FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
           AND NOT coalesce($2 -> 'exclude' ? a.attname::text, false)
           AND (NOT $2 ? 'include' OR $2 -> 'include' ? a.attname::text
                OR a.attname::text = ANY (audit_log._key_columns($1)))
         ORDER BY a.attnum
    $$;
COMMENT ON FUNCTION audit_log._version_sources(regclass, jsonb) IS 'the columns of a table that its version table has; filled: rows present may have got a value with the column';

/*
 * Before an ALTER DOMAIN that gives the domain a constraint or a default:
 * versions need not obey it, and have the base type from here on.
 */
CREATE FUNCTION audit_log._leave_domain(domain oid) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        command text;
    BEGIN
        FOR command IN
            SELECT format('ALTER TABLE ONLY %s %s', v.oid::regclass,
                       string_agg(format('ALTER COLUMN %I TYPE %s%s', a.attname, audit_log._base_type(a.atttypid, a.atttypmod),
                           CASE WHEN a.attcollation <> 0 THEN (SELECT format(' COLLATE %I.%I', n.nspname, l.collname)
                               FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = a.attcollation) ELSE '' END), ', '))
              FROM audit_log.tracked_table t JOIN pg_namespace n ON n.nspname = t.table_schema
              JOIN pg_class v ON v.relnamespace = n.oid AND v.relname = t.settings ->> 'version_table'
              JOIN pg_attribute a ON a.attrelid = v.oid AND a.attnum > 0 AND NOT a.attisdropped
             WHERE a.atttypid IN (SELECT audit_log._derived_domains(domain)) AND audit_log._has_version_shape(v.oid, t.settings)
             GROUP BY v.oid ORDER BY v.oid
        LOOP
            EXECUTE command;
        END LOOP;
    END
    $$;
COMMENT ON FUNCTION audit_log._leave_domain(oid) IS 'gives columns of version tables that are of a domain its base type';

/* the relation that bears a table's version table's name, if any */
CREATE FUNCTION audit_log._version_relation(target regclass, settings jsonb) RETURNS regclass
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT to_regclass(format('%I.%I', n.nspname, coalesce($2 ->> 'version_table', c.relname || '_version')))
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1
    $$;
COMMENT ON FUNCTION audit_log._version_relation(regclass, jsonb) IS 'a table''s version table, NULL where there is none';

/*
 * Has a relation the shape of a version table, and our owner?  Any trigger can
 * name any relation as its table's: what we own besides is not to be had so.
 */
CREATE FUNCTION audit_log._has_version_shape(relation regclass, settings jsonb) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT EXISTS (SELECT FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary AND i.indnkeyatts > 1
                         JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum = i.indkey[i.indnkeyatts - 1]
                                            AND k.attname = audit_log._version_column($2, 'transaction_id')
                        WHERE c.oid = $1 AND c.relkind = 'r'
                          AND c.relowner = (SELECT l.relowner FROM pg_class l WHERE l.oid = 'audit_log.change'::regclass))
           AND NOT EXISTS (SELECT FROM (VALUES ('transaction_id', 'int8'::regtype), ('end_transaction_id', 'int8'), ('operation_type', 'int2'),
                                               ('valid_from', 'timestamptz'), ('valid_to', 'timestamptz')) v (name, type)
                            WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = $1 AND a.atttypid = v.type
                                                 AND a.attname = audit_log._version_column($2, v.name)))
    $$;
COMMENT ON FUNCTION audit_log._has_version_shape(regclass, jsonb) IS 'has the relation a version table''s columns, key and owner?';

/*
 * The tables of a schema whose trigger names that version table.  Found without
 * opening each: there may be thousands, locked by others.
 */
CREATE FUNCTION audit_log._naming_tables(schema oid, version_table name) RETURNS SETOF regclass
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT r.oid FROM pg_trigger t JOIN pg_class r ON r.oid = t.tgrelid
         WHERE t.tgfoid = 'audit_log.capture()'::regprocedure AND t.tgname = 'audit_log_row'
           AND r.relnamespace = $1 AND NOT r.relispartition
           AND position(convert_to('version_table=' || $2, getdatabaseencoding()) || '\x00'::bytea IN t.tgargs) > 0
    $$;
COMMENT ON FUNCTION audit_log._naming_tables(oid, name) IS 'the tables of a schema whose trigger names a version table';

/* is it the version table of a table that is or was tracked? */
CREATE FUNCTION audit_log._is_version_table(target regclass) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        -- one that was restored without the log is named by its table's trigger only
        SELECT EXISTS (SELECT FROM pg_class c, LATERAL audit_log._naming_tables(c.relnamespace, c.relname) r (relid),
                              LATERAL audit_log._trigger_settings(r.relid, 'audit_log_row') s (settings)
                        WHERE c.oid = $1 AND s.settings ->> 'version_table' = c.relname
                          AND audit_log._has_version_shape($1, s.settings))
            OR EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                         JOIN audit_log.tracked_table t ON t.table_schema = n.nspname
                                                       AND t.settings ->> 'version_table' = c.relname
                        WHERE c.oid = $1 AND audit_log._has_version_shape($1, t.settings))
    $$;
COMMENT ON FUNCTION audit_log._is_version_table(regclass) IS 'is the relation the version table of a table that is or was tracked?';

/*
 * May a table go on with a version table of ours of which the log does not know
 * whose it is: one that was restored without the log?  If its own trigger alone
 * names it, and its owner may let others read it, as the owner of the versions'
 * table is let; or if there is nothing to be read in it.
 */
CREATE FUNCTION audit_log._may_claim_versions(target regclass, settings jsonb) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT NOT EXISTS (
                   SELECT FROM audit_log._naming_tables(c.relnamespace, coalesce($2 ->> 'version_table', c.relname || '_version')::name) r (relid)
                    WHERE r.relid <> c.oid AND audit_log._trigger_settings(r.relid, 'audit_log_row') ? 'versioned')
               AND coalesce((SELECT v.relowner <> (SELECT l.relowner FROM pg_class l WHERE l.oid = 'audit_log.change'::regclass)
                                    OR has_table_privilege(c.relowner, v.oid, 'SELECT WITH GRANT OPTION')
                                    OR v.relkind = 'r' AND audit_log._is_empty(v.oid)
                               FROM pg_class v WHERE v.oid = audit_log._version_relation($1, $2)), true)
          FROM pg_class c WHERE c.oid = $1
    $$;
COMMENT ON FUNCTION audit_log._may_claim_versions(regclass, jsonb) IS 'may a table go on with a version table of which the log does not know whose it is?';

/* is its version table known to the log as this table's? */
CREATE FUNCTION audit_log._knows_versions(target regclass, settings jsonb) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT EXISTS (SELECT FROM audit_log.tracked_table t,
                              coalesce(t.settings ->> 'version_table', t.table_name || '_version') v (name)
                        WHERE t.id = audit_log._table_id($1) AND v.name = coalesce($2 ->> 'version_table', t.table_name || '_version')
                          AND NOT EXISTS (SELECT FROM audit_log.tracked_table o
                                WHERE o.id < t.id AND o.table_schema = t.table_schema AND o.settings ->> 'version_table' = v.name))
    $$;
COMMENT ON FUNCTION audit_log._knows_versions(regclass, jsonb) IS 'does the log know the version table named as this table''s?';

CREATE FUNCTION audit_log._versioned_table(version_table regclass) RETURNS regclass
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT r.oid::regclass FROM pg_class c
          JOIN pg_class r ON r.relnamespace = c.relnamespace AND r.relkind IN ('r', 'p')
          JOIN audit_log.tracked_table t ON t.id = audit_log._table_id(r.oid)
         WHERE c.oid = $1 AND t.settings ->> 'version_table' = c.relname AND audit_log._is_version_table($1)
         ORDER BY t.id LIMIT 1
    $$;
COMMENT ON FUNCTION audit_log._versioned_table(regclass) IS 'the table whose versions a version table holds, NULL where it is none';

/* SQLAlchemy's names, also where they are too long: its models then find them the same */
CREATE FUNCTION audit_log._version_index_name(version_table name, column_name name) RETURNS name
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT CASE WHEN octet_length(i.name) <= 63 THEN i.name
                    ELSE "left"(i.name, 55) || '_' || "right"(md5(i.name), 4) END::name
          FROM (SELECT format('ix_%s_%s', $1, $2) AS name) i
    $$;
COMMENT ON FUNCTION audit_log._version_index_name(name, name) IS 'name of the index on a version table''s column';

/*
 * A transaction's versions are few rows of a table and want a B-tree.  Three
 * operations, and ends that are asked for by range or with the key, do not; a
 * summary of pages costs each change next to nothing.
 */
CREATE FUNCTION audit_log._version_index_method(own text) RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT CASE $1 WHEN 'transaction_id' THEN 'btree' ELSE 'brin' END $$;
COMMENT ON FUNCTION audit_log._version_index_method(text) IS 'access method of the index on one of a version table''s own columns';

/*
 * SELECT on a version table is for whoever may SELECT all columns of its table,
 * with the grant option for its owner, and for the installing role, whose
 * pg_dump reads it; while the table has row security for the last two only.
 * What the owner grants himself is left alone as long as it has none.
 */
CREATE FUNCTION audit_log._version_rights(target regclass, version_table regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        log_owner oid := (SELECT c.relowner FROM pg_class c WHERE c.oid = version_table);
        owner oid;
        secured boolean;
        granted record;
    BEGIN
        SELECT c.relowner, c.relrowsecurity INTO owner, secured FROM pg_class c WHERE c.oid = target;
        IF secured AND EXISTS (SELECT FROM pg_class c, LATERAL aclexplode(c.relacl) a
                                WHERE c.oid = version_table AND a.grantor <> log_owner) THEN
            FOR granted IN SELECT format('REVOKE GRANT OPTION FOR SELECT ON %s FROM %I CASCADE', version_table, pg_get_userbyid(a.grantee)) AS command
                             FROM pg_class c, LATERAL aclexplode(c.relacl) a
                            WHERE c.oid = version_table AND a.grantor = log_owner AND a.grantee <> log_owner AND a.is_grantable LOOP
                EXECUTE granted.command;
            END LOOP;
        END IF;
        FOR granted IN
            WITH mine AS (
                SELECT a.grantee FROM pg_class c, LATERAL aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
                 WHERE c.oid = target AND a.privilege_type = 'SELECT'
                UNION
                SELECT a.grantee FROM pg_attribute t, LATERAL aclexplode(t.attacl) a
                 WHERE t.attrelid = target AND t.attnum > 0 AND NOT t.attisdropped AND a.privilege_type = 'SELECT'
                 GROUP BY a.grantee
                HAVING count(DISTINCT t.attnum) = (SELECT count(*) FROM pg_attribute t
                        WHERE t.attrelid = target AND t.attnum > 0 AND NOT t.attisdropped)),
            wanted AS (
                SELECT w.grantee, bool_or(w.option) AS option
                  FROM (SELECT m.grantee, false AS option FROM mine m WHERE NOT secured
                        UNION ALL SELECT owner, true
                        UNION ALL SELECT e.extowner, false FROM pg_extension e WHERE e.extname = 'audit_log') w
                 WHERE w.grantee <> log_owner
                 GROUP BY w.grantee),
            actual AS (
                SELECT a.grantee, a.is_grantable AS option, a.privilege_type
                  FROM pg_class c, LATERAL aclexplode(c.relacl) a
                 WHERE c.oid = version_table AND a.grantor = log_owner AND a.grantee <> log_owner)
            SELECT CASE WHEN w.grantee IS NULL OR a.privilege_type <> 'SELECT' OR (a.option AND NOT w.option)
                        THEN format('REVOKE %s ON %s FROM %s CASCADE',
                                CASE WHEN w.grantee IS NOT NULL AND a.privilege_type = 'SELECT'
                                     THEN 'GRANT OPTION FOR SELECT' ELSE a.privilege_type END, version_table,
                                CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
                        WHEN a.grantee IS NULL OR (w.option AND NOT a.option)
                        THEN format('GRANT SELECT ON %s TO %s%s', version_table,
                                CASE w.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(w.grantee)) END,
                                CASE WHEN w.option THEN ' WITH GRANT OPTION' ELSE '' END) END AS command
              FROM actual a FULL JOIN wanted w ON w.grantee = a.grantee
             ORDER BY 1
        LOOP
            IF granted.command IS NOT NULL THEN
                EXECUTE granted.command;
            END IF;
        END LOOP;
    END
    $$;
COMMENT ON FUNCTION audit_log._version_rights(regclass, regclass) IS 'lets those read a version table who may read its table in full';

/* the same for the tables named (NULL: all), after GRANT, REVOKE and what else changes rights */
CREATE FUNCTION audit_log._follow_rights(targets regclass[]) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        target record;
    BEGIN
        FOR target IN
            SELECT c.oid::regclass AS relid, t.settings, audit_log._version_relation(c.oid, t.settings) AS version_table
              FROM audit_log.tracked_table t
              JOIN pg_namespace n ON n.nspname = t.table_schema
              JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.table_name AND c.relkind IN ('r', 'p')
             WHERE t.dropped_at IS NULL AND t.settings ? 'version_table'
               AND (targets IS NULL OR c.oid = ANY (targets))
             ORDER BY c.oid
        LOOP
            IF audit_log._has_version_shape(target.version_table, target.settings) THEN
                PERFORM audit_log._version_rights(target.relid, target.version_table);
            END IF;
        END LOOP;
        PERFORM audit_log._continuum_rights(n.nspname)
           FROM pg_trigger t JOIN pg_class v ON v.oid = t.tgrelid JOIN pg_namespace n ON n.oid = v.relnamespace
          WHERE t.tgfoid = 'audit_log.continuum_transaction()'::regprocedure
            AND (targets IS NULL OR EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.oid = ANY (targets)));
    END
    $$;
COMMENT ON FUNCTION audit_log._follow_rights(regclass[]) IS 'keeps the rights on version tables up with those on their tables';

/* what else than the tables named (NULL: any) has its rights written when theirs are */
CREATE FUNCTION audit_log._rights_to_lock(targets regclass[]) RETURNS SETOF oid
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT v.oid
          FROM audit_log.tracked_table t JOIN pg_namespace n ON n.nspname = t.table_schema
          JOIN pg_class v ON v.relnamespace = n.oid AND v.relname = t.settings ->> 'version_table'
         WHERE t.dropped_at IS NULL AND $1 IS NULL
         UNION
        SELECT v.oid
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN audit_log.tracked_table t ON t.table_schema = n.nspname AND t.dropped_at IS NULL
                                        AND (t.table_name = c.relname OR t.settings ->> 'version_table' = c.relname)
          JOIN pg_class v ON v.relnamespace = n.oid AND v.relname = t.settings ->> 'version_table'
         WHERE c.oid = ANY ($1)
         UNION
        SELECT v.oid
          FROM pg_trigger t JOIN pg_class v ON v.oid = t.tgrelid
         WHERE t.tgfoid = 'audit_log.continuum_transaction()'::regprocedure
           AND ($1 IS NULL OR EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = v.relnamespace AND c.oid = ANY ($1)))
         ORDER BY 1
    $$;
COMMENT ON FUNCTION audit_log._rights_to_lock(regclass[]) IS 'the version tables and views transaction whose rights are written with those of the tables named';

/*
 * A column of the key of which the version table would take two values for one:
 * the key's index tells them apart by another collation or operator class.  None
 * where one index over the key is at least as strict.
 */
CREATE FUNCTION audit_log._loose_key_column(target regclass, version_table regclass) RETURNS name
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT min(k.loose)
          FROM (SELECT i.indexrelid, min(a.attname::text) FILTER (
                           WHERE NOT l.collisdeterministic AND c.collationid <> l.oid
                              -- the operator that says what is equal, against the one of the type's own class
                              OR NOT o.opcdefault AND o.opcmethod = (SELECT m.oid FROM pg_am m WHERE m.amname = 'btree')
                                 AND NOT EXISTS (SELECT FROM pg_opclass d JOIN pg_amop x ON x.amopfamily = d.opcfamily AND x.amopstrategy = 3
                                                   JOIN pg_amop y ON y.amopfamily = o.opcfamily AND y.amopstrategy = 3 AND y.amopopr = x.amopopr
                                                  WHERE d.opcdefault AND d.opcmethod = o.opcmethod AND d.opcintype = o.opcintype
                                                    AND x.amoplefttype = o.opcintype AND x.amoprighttype = o.opcintype))::name AS loose
                  FROM pg_index i,
                       LATERAL unnest(i.indkey::smallint[], i.indclass::oid[], i.indcollation::oid[]) WITH ORDINALITY c (attnum, opclass, collationid, n)
                  JOIN pg_attribute a ON a.attrelid = $1 AND a.attnum = c.attnum
                  JOIN pg_opclass o ON o.oid = c.opclass
                  LEFT JOIN pg_attribute v ON v.attrelid = $2 AND v.attname = a.attname AND NOT v.attisdropped
                  LEFT JOIN pg_collation l ON l.oid = coalesce(v.attcollation, a.attcollation)
                 WHERE i.indrelid = $1 AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND c.n <= i.indnkeyatts
                 GROUP BY i.indexrelid, i.indnkeyatts
                HAVING count(*) = i.indnkeyatts
                   AND array_agg(a.attname::text) @> audit_log._key_columns($1) AND audit_log._key_columns($1) @> array_agg(a.attname::text)) k
        HAVING count(*) = count(k.loose)
    $$;
COMMENT ON FUNCTION audit_log._loose_key_column(regclass, regclass) IS 'a key column whose values the key''s index tells apart and the version table''s does not, NULL where there is none';

CREATE FUNCTION audit_log._check_versioned(target regclass, settings jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        key text[] := audit_log._key_columns(target);
        setting text;
        name text;
        columns integer;
    BEGIN
        IF settings ? 'version_columns' THEN
            IF jsonb_typeof(settings -> 'version_columns') <> 'object' THEN
                RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                    MESSAGE = 'version_columns must be a JSON object',
                    HINT = 'It gives other names to columns: {"transaction_id": "tx"}.';
            END IF;
            FOR setting, name IN SELECT e.key, e.value #>> '{}' FROM jsonb_each(settings -> 'version_columns') e LOOP
                IF setting NOT IN ('transaction_id', 'end_transaction_id', 'operation_type', 'valid_from', 'valid_to')
                   OR jsonb_typeof(settings #> ARRAY['version_columns', setting]) <> 'string'
                   OR name = '' OR octet_length(name) > 63 THEN
                    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                        MESSAGE = format('invalid %L in version_columns for table %s', setting, target),
                        HINT = 'It gives names of up to 63 bytes to transaction_id, end_transaction_id, operation_type, valid_from and valid_to.';
                END IF;
            END LOOP;
        END IF;
        IF NOT coalesce((settings ->> 'versioned')::boolean, false) THEN
            RETURN;
        END IF;
        IF cardinality(key) = 0 THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('cannot keep versions of table %s', target),
                DETAIL = 'It has no key, so that no version could be told to belong to a record.',
                HINT = 'Give it a primary key.';
        END IF;
        name := audit_log._loose_key_column(target, audit_log._version_relation(target, settings));
        IF name IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
                MESSAGE = format('cannot keep versions of table %s', target),
                DETAIL = format('The index of its key tells values of column %I apart that are equal for the collation or type of the column, by which versions would be kept.', name),
                HINT = format('Give it a primary key, or a unique index on %I with the collation and operator class of the column.', name);
        END IF;
        SELECT m INTO name FROM jsonb_array_elements_text(settings -> 'mask') m WHERE m = ANY (key) LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = format('cannot keep versions of table %s with masked key column %I', target, name),
                DETAIL = 'Masked columns are NULL in versions.',
                HINT = 'Clear mask, or leave out versioned.';
        END IF;
        FOREACH setting IN ARRAY ARRAY['condition', 'actions'] LOOP
            IF settings ? setting THEN
                RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                    MESSAGE = format('table %s cannot have both versioned and %s', target, setting),
                    DETAIL = 'A change that is not captured would leave its record without its version.',
                    HINT = format('Clear it: %s => %L.', setting, CASE setting WHEN 'actions' THEN '{}' ELSE '' END);
            END IF;
        END LOOP;
        IF settings ->> 'on_truncate' = 'event' THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = format('table %s cannot have both versioned and on_truncate event', target),
                DETAIL = 'TRUNCATE would leave its records without their last versions.',
                HINT = 'Set on_truncate to rows or forbid.';
        END IF;
        columns := (SELECT count(*) FROM audit_log._version_sources(target, settings)) + 5;
        IF columns > 1600 THEN
            RAISE EXCEPTION USING ERRCODE = 'too_many_columns',
                MESSAGE = format('cannot keep versions of table %s: they would have %s columns', target, columns),
                DETAIL = 'A table can have 1,600 columns, and a version table has five of its own.',
                HINT = 'Leave columns out: exclude => …';
        END IF;
        name := settings ->> 'version_table';
        IF octet_length(name) > 63 THEN
            RAISE EXCEPTION USING ERRCODE = 'name_too_long',
                MESSAGE = format('the name of version table %I is too long', name),
                HINT = 'Give it another: version_table => …';
        END IF;
        SELECT coalesce(d.name, '') INTO name
          FROM (SELECT audit_log._version_column(settings, v) AS name
                  FROM unnest(ARRAY['transaction_id', 'end_transaction_id', 'operation_type', 'valid_from', 'valid_to']) v) d
         GROUP BY d.name HAVING count(*) > 1 LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'duplicate_column',
                MESSAGE = format('version_columns for table %s names %I twice', target, name);
        END IF;
        SELECT s.column_name, v INTO name, setting
          FROM unnest(ARRAY['transaction_id', 'end_transaction_id', 'operation_type', 'valid_from', 'valid_to']) v
          JOIN audit_log._version_sources(target, settings) s ON s.column_name = audit_log._version_column(settings, v) LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'duplicate_column',
                MESSAGE = format('table %s has a column %I itself, which its versions need for their own', target, name),
                HINT = format('Give theirs another name: version_columns => ''{"%s": "version_%s"}''.', setting, setting);
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._check_versioned(regclass, jsonb) IS 'refuses settings that a versioned table cannot have';

/* of a whole schema: those that cannot have versions are tracked without */
CREATE FUNCTION audit_log._may_be_versioned(target regclass, made boolean, settings jsonb) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        name name := (SELECT c.relname FROM pg_class c WHERE c.oid = target);
    BEGIN
        IF cardinality(audit_log._key_columns(target)) = 0 THEN
            RAISE NOTICE 'audit_log: no versions of % are kept: it has no key', target;
            RETURN false;
        END IF;
        -- CREATE TABLE is not to fail for a name that only we need
        IF made AND (octet_length(name || '_version') > 63 OR audit_log._version_relation(target, '{}') IS NOT NULL) THEN
            RAISE NOTICE 'audit_log: no versions of % are kept: the name of their table would be too long, or is taken', target;
            RETURN false;
        END IF;
        -- nor for columns that versions have for their own, for a masked key, or for there being too many
        IF made THEN
            BEGIN
                PERFORM audit_log._check_versioned(target, settings);
            EXCEPTION WHEN duplicate_column OR invalid_parameter_value OR feature_not_supported OR too_many_columns THEN
                RAISE NOTICE 'audit_log: no versions of % are kept: %', target, SQLERRM;
                RETURN false;
            END;
        END IF;
        RETURN true;
    END
    $$;
COMMENT ON FUNCTION audit_log._may_be_versioned(regclass, boolean, jsonb) IS 'may versions be kept of a table of a schema? made: it has just been created';

/* columns, key and indexes as section "Version tables" of the README has them; what is there stays */
CREATE FUNCTION audit_log._complete_version_table(target regclass, version_table regclass, settings jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        source record;
        have record;
        own text;
        key text[] := audit_log._key_columns(target);
        key_index record;
        name name := (SELECT c.relname FROM pg_class c WHERE c.oid = version_table);
        additions text[] := '{}';
        column_name name;
    BEGIN
        FOR source IN SELECT * FROM audit_log._version_sources(target, settings) LOOP
            SELECT a.atttypid, a.atttypmod INTO have FROM pg_attribute a
             WHERE a.attrelid = version_table AND a.attname = source.column_name AND a.attnum > 0 AND NOT a.attisdropped;
            IF NOT FOUND THEN
                additions := additions || format('ADD COLUMN %I %s', source.column_name, source.definition);
            ELSIF have.atttypid NOT IN (source.type, audit_log._base_type(source.type, -1)::regtype) THEN
                RAISE EXCEPTION USING ERRCODE = 'datatype_mismatch',
                    MESSAGE = format('column %I of version table %s is of type %s, that of table %s of type %s',
                        source.column_name, version_table, format_type(have.atttypid, have.atttypmod), target,
                        format_type(source.type, source.modifier)),
                    HINT = format('A superuser can give it the same type: ALTER TABLE %s ALTER COLUMN %I TYPE %s USING …',
                        version_table, source.column_name, source.definition);
            END IF;
        END LOOP;
        FOREACH own IN ARRAY ARRAY['transaction_id', 'end_transaction_id', 'operation_type', 'valid_from', 'valid_to'] LOOP
            column_name := audit_log._version_column(settings, own);
            CONTINUE WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = version_table AND a.attname = column_name
                                     AND a.attnum > 0 AND NOT a.attisdropped);
            additions := additions || format('ADD COLUMN %I %s', column_name, CASE own
                WHEN 'transaction_id' THEN 'bigint' WHEN 'end_transaction_id' THEN 'bigint' WHEN 'operation_type' THEN 'smallint'
                ELSE 'timestamptz' END);
        END LOOP;
        IF additions <> '{}' THEN
            EXECUTE format('ALTER TABLE ONLY %s %s', version_table, array_to_string(additions, ', '));
        END IF;

        -- the newest version of a record is found by the key, then transaction_id
        SELECT i.indexrelid::regclass AS relid, k.conname,
               ARRAY(SELECT a.attname::text FROM unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY c (attnum, n)
                       JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = c.attnum ORDER BY c.n) AS columns
          INTO key_index
          FROM pg_index i JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype = 'p'
         WHERE i.indrelid = version_table AND i.indisprimary;
        column_name := audit_log._version_column(settings, 'transaction_id');
        IF FOUND AND NOT (key_index.columns[cardinality(key) + 1] = column_name
                          AND cardinality(key_index.columns) = cardinality(key) + 1 AND key_index.columns @> key) THEN
            EXECUTE format('ALTER TABLE ONLY %s DROP CONSTRAINT %I', version_table, key_index.conname);
            key_index := NULL;
        END IF;
        IF key_index IS NULL THEN
            EXECUTE format('ALTER TABLE ONLY %s ADD PRIMARY KEY (%s, %I)', version_table,
                (SELECT string_agg(quote_ident(k), ', ' ORDER BY n) FROM unnest(key) WITH ORDINALITY u (k, n)), column_name);
        END IF;
        FOREACH own IN ARRAY ARRAY['transaction_id', 'end_transaction_id', 'operation_type'] LOOP
            column_name := audit_log._version_column(settings, own);
            CONTINUE WHEN EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = column_name
                                   WHERE i.indrelid = version_table AND i.indnatts = 1 AND i.indkey[0] = a.attnum
                                     AND i.indpred IS NULL AND i.indisvalid);
            EXECUTE format('CREATE INDEX %I ON %s USING %s (%I)', audit_log._version_index_name(name, column_name), version_table,
                           audit_log._version_index_method(own), column_name);
        END LOOP;
    END
    $$;
COMMENT ON FUNCTION audit_log._complete_version_table(regclass, regclass, jsonb) IS 'adds what a version table lacks of columns, key and indexes';

/* renames a version table with its key and indexes */
CREATE FUNCTION audit_log._rename_version_table(version_table regclass, new_name name) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        former record;
        index record;
    BEGIN
        SELECT n.nspname, c.relname INTO former FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = version_table;
        IF to_regclass(format('%I.%I', former.nspname, new_name)) IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'duplicate_table',
                MESSAGE = format('cannot rename version table %s to %I: there is a relation of that name', version_table, new_name),
                HINT = 'Rename or drop that one, or name the version table first: audit_log.enable(…, version_table => …).';
        END IF;
        EXECUTE format('ALTER TABLE %s RENAME TO %I', version_table, new_name);
        FOR index IN SELECT x.relname, CASE WHEN i.indisprimary THEN (new_name || '_pkey')::name
                            ELSE audit_log._version_index_name(new_name, a.attname) END AS new_name
                       FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                       LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND i.indnatts = 1
                      WHERE i.indrelid = version_table
                        AND x.relname = CASE WHEN i.indisprimary THEN (former.relname || '_pkey')::name
                                             ELSE audit_log._version_index_name(former.relname, a.attname) END LOOP
            IF to_regclass(format('%I.%I', former.nspname, index.new_name)) IS NULL THEN
                EXECUTE format('ALTER INDEX %I.%I RENAME TO %I', former.nspname, index.relname, index.new_name);
            END IF;
        END LOOP;
    END
    $$;
COMMENT ON FUNCTION audit_log._rename_version_table(regclass, name) IS 'renames a version table, its key and its indexes';

/* the transactions of a Continuum application, under their own ids; returns how many came */
CREATE FUNCTION audit_log._adopt_transactions(caller oid, source regclass) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        label text := (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = source);
        columns text[] := ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = source AND a.attnum > 0 AND NOT a.attisdropped);
        zone text;
        taken bigint;
        adopted bigint;
    BEGIN
        IF NOT (SELECT c.relkind = 'r' AND pg_has_role(caller, c.relowner, 'USAGE') FROM pg_class c WHERE c.oid = source) THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
                MESSAGE = format('cannot adopt the transactions of %s', label),
                DETAIL = 'It must be an ordinary table of the role that calls.';
        END IF;
        IF NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = source AND a.attname = 'id' AND a.atttypid IN ('int4'::regtype, 'int8'::regtype))
           OR NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = source AND a.attname = 'issued_at'
                             AND a.atttypid IN ('timestamp'::regtype, 'timestamptz'::regtype)) THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('table %s is not a transaction table of SQLAlchemy-Continuum', label),
                DETAIL = 'It lacks an integer column id, or a column issued_at of a timestamp type.',
                HINT = 'If it is something else, rename it while audit_log.enable() runs: the times of versions that have none are then guessed.';
        END IF;
        EXECUTE format('LOCK TABLE %s IN SHARE MODE', source);
        -- without zone it is UTC
        zone := CASE (SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = source AND a.attname = 'issued_at')
                WHEN 'timestamptz'::regtype THEN 's.issued_at' ELSE 's.issued_at AT TIME ZONE ''UTC''' END;
        EXECUTE format('SELECT min(t.id) FROM audit_log.transaction t JOIN %s s ON s.id = t.id '
            'WHERE t.context ->> ''adopted'' IS DISTINCT FROM %L', source, label) INTO taken;
        IF taken IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'unique_violation',
                MESSAGE = format('transaction %s of table %s cannot keep its id', taken, label),
                DETAIL = 'The log has a transaction of that id already.',
                HINT = 'Adopt version tables before the first change is tracked.';
        END IF;
        EXECUTE format('SELECT max(s.id) FROM %s s', source) INTO taken;
        PERFORM audit_log._pass_id(taken);
        -- where issued_at is missing: when the one before it was issued
        EXECUTE format($q$
            INSERT INTO audit_log.transaction (id, xid, timestamp, started_at, user_id, db_user, db_role, backend_pid, context)
            SELECT s.id, '0', t.at, t.at, %1$s, '', '', 0, jsonb_strip_nulls(jsonb_build_object('adopted', %2$L, 'remote_addr', %3$s))
              FROM (SELECT s.*, coalesce(%4$s, max(%4$s) OVER (ORDER BY s.id), min(%4$s) OVER (), 'epoch') AS at FROM %5$s s) t
              JOIN %5$s s ON s.id = t.id
             WHERE NOT EXISTS (SELECT FROM audit_log.transaction x WHERE x.id = s.id)$q$,
            CASE WHEN 'user_id' = ANY (columns) THEN 'nullif(format(''%s'', s.user_id), '''')' ELSE 'NULL' END, label,
            CASE WHEN 'remote_addr' = ANY (columns) THEN 'nullif(format(''%s'', s.remote_addr), '''')' ELSE 'NULL::text' END,
            zone, source);
        GET DIAGNOSTICS adopted = ROW_COUNT;
        RETURN adopted;
    END
    $$;
COMMENT ON FUNCTION audit_log._adopt_transactions(oid, regclass) IS 'copies the entries of a Continuum application''s transaction table into the log, under their ids';

/*
 * A version table that a Continuum application kept before: its rows and
 * transactions keep their ids.  Taken over are the table (nobody but us writes
 * it from here on), times, and the ends of versions where they are not kept.
 */
CREATE FUNCTION audit_log._adopt_version_table(caller oid, target regclass, version_table regclass, settings jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    #variable_conflict use_column
    DECLARE
        key text[] := audit_log._key_columns(target);
        keys text := (SELECT string_agg(format('v.%I', k), ', ' ORDER BY n) FROM unnest(key) WITH ORDINALITY u (k, n));
        tx name := audit_log._version_column(settings, 'transaction_id');
        op name := audit_log._version_column(settings, 'operation_type');
        until name := audit_log._version_column(settings, 'end_transaction_id');
        valid_from name := audit_log._version_column(settings, 'valid_from');
        valid_to name := audit_log._version_column(settings, 'valid_to');
        problem text;
        object record;
        transactions regclass;
        adopted bigint := 0;
        highest bigint;
        rows bigint;
    BEGIN
        SELECT CASE WHEN c.relkind <> 'r' OR c.relpersistence <> 'p' OR c.relispartition THEN 'It is not an ordinary table.'
                    WHEN c.relhassubclass OR EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = c.oid) THEN 'It inherits, or is inherited from.'
                    WHEN EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgfoid = 'audit_log.capture()'::regprocedure
                                    AND t.tgname <> 'audit_log_row') THEN 'It is audited itself, by a trigger attached by hand.' END
          INTO problem FROM pg_class c WHERE c.oid = version_table;
        IF problem IS NULL THEN
            SELECT 'It has no column ' || quote_ident(n.name) || ' of an integer type.' INTO problem
              FROM (VALUES (tx), (op)) n (name)
             WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = version_table AND a.attname = n.name
                                  AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)) LIMIT 1;
        END IF;
        IF problem IS NULL THEN
            SELECT 'It has no column ' || quote_ident(k) || '.' INTO problem FROM unnest(key) k
             WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = version_table AND a.attname = k AND NOT a.attisdropped) LIMIT 1;
        END IF;
        IF problem IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('relation %s is there, but is no version table that could be adopted', version_table),
                DETAIL = problem,
                HINT = 'Name another: version_table => …';
        END IF;
        PERFORM audit_log._check_owner(caller, version_table);
        -- as every table of a schema may be: a version table cannot
        IF audit_log._trigger_settings(version_table, 'audit_log_row') IS NOT NULL THEN
            PERFORM audit_log._disable(caller, version_table);
        END IF;
        -- what others have put on it since an older snapshot would be kept, and run with our rights
        IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('cannot adopt version table %s in a transaction whose snapshot may be old', version_table),
                HINT = 'Call audit_log.enable() in a transaction of the isolation level READ COMMITTED.';
        END IF;
        SELECT t.tgname, p.oid::regprocedure AS function INTO object
          FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_class c ON c.oid = t.tgrelid
         WHERE t.tgrelid = target AND NOT t.tgisinternal AND p.proname = c.relname || '_audit' AND t.tgname = c.relname || '_trigger';
        IF FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('table %s has the trigger %I of SQLAlchemy-Continuum, which writes its versions', target, object.tgname),
                HINT = format('Drop it: DROP TRIGGER %I ON %s; DROP FUNCTION %s.', object.tgname, target, object.function);
        END IF;

        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', version_table);
        -- from here on what it evaluates is evaluated with our rights
        IF EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = version_table)
           OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = version_table AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL))
           OR EXISTS (SELECT FROM pg_statistic_ext x WHERE x.stxrelid = version_table AND x.stxexprs IS NOT NULL) THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('relation %s is there, but is no version table that could be adopted', version_table),
                DETAIL = 'It has a rule, or an index or statistics with an expression, which would be evaluated with the rights of the owner of the log.',
                HINT = 'Drop them first, or name another: version_table => …';
        END IF;
        EXECUTE format('ALTER TABLE %s OWNER TO %I', version_table,
            (SELECT pg_get_userbyid(c.relowner) FROM pg_class c WHERE c.oid = 'audit_log.change'::regclass));
        PERFORM audit_log._close_relation(version_table);
        FOR object IN
            SELECT format('REVOKE ALL (%I) ON %s FROM %s CASCADE', a.attname, version_table,
                       CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END) AS command, 0 AS n
              FROM pg_attribute a, LATERAL aclexplode(a.attacl) g WHERE a.attrelid = version_table
            UNION ALL
            SELECT format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY', version_table), 1
            UNION ALL
            -- no constraints but the key, no defaults, no triggers
            SELECT format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I', version_table, k.conname), 2
              FROM pg_constraint k WHERE k.conrelid = version_table AND k.contype IN ('c', 'f', 'u', 'x')
            UNION ALL
            SELECT format('ALTER TABLE %s ALTER COLUMN %I DROP IDENTITY IF EXISTS', version_table, a.attname), 3
              FROM pg_attribute a WHERE a.attrelid = version_table AND a.attidentity <> ''
            UNION ALL
            SELECT format('ALTER TABLE %s ALTER COLUMN %I DROP EXPRESSION IF EXISTS', version_table, a.attname), 4
              FROM pg_attribute a WHERE a.attrelid = version_table AND a.attgenerated <> ''
            UNION ALL
            SELECT format('ALTER TABLE %s ALTER COLUMN %I DROP DEFAULT', version_table, a.attname), 5
              FROM pg_attribute a WHERE a.attrelid = version_table AND a.atthasdef AND a.attgenerated = ''
            UNION ALL
            SELECT format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL', version_table, a.attname), 6
              FROM pg_attribute a WHERE a.attrelid = version_table AND a.attnotnull AND a.attnum > 0 AND NOT a.attisdropped
               AND a.attname <> ALL (key::name[] || ARRAY[tx, op]) AND a.attidentity = ''
            UNION ALL
            SELECT format('DROP TRIGGER %I ON %s', t.tgname, version_table), 7
              FROM pg_trigger t WHERE t.tgrelid = version_table AND NOT t.tgisinternal
            UNION ALL
            SELECT format('ALTER TABLE %s ALTER COLUMN %I TYPE %s', version_table, a.attname, n.type), 8
              FROM (VALUES (tx, 'bigint'), (until, 'bigint'), (op, 'smallint')) n (name, type)
              JOIN pg_attribute a ON a.attrelid = version_table AND a.attname = n.name AND a.atttypid <> n.type::regtype
               AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
             ORDER BY n
        LOOP
            EXECUTE object.command;
        END LOOP;
        PERFORM audit_log._complete_version_table(target, version_table, settings);

        SELECT to_regclass(format('%I.transaction', n.nspname)) INTO transactions
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = version_table;
        EXECUTE format('SELECT max(v.%I), count(*) FROM %s v', tx, version_table) INTO highest, rows;
        -- an empty version table, as a migration makes it, says nothing of what else is called transaction
        IF transactions IS NOT NULL AND (SELECT c.relkind FROM pg_class c WHERE c.oid = transactions) = 'r'
           AND (rows > 0 OR (SELECT count(*) = 2 FROM pg_attribute a WHERE a.attrelid = transactions AND a.attname IN ('id', 'issued_at'))) THEN
            adopted := audit_log._adopt_transactions(caller, transactions);
        END IF;
        PERFORM audit_log._pass_id(highest);

        -- each begins at its transaction's time, but at least 1 µs after the one before: written as n µs + max(time - n µs)
        EXECUTE format($q$
            WITH known AS (
                SELECT i.id, coalesce(t.timestamp, max(t.timestamp) OVER (ORDER BY i.id), min(t.timestamp) OVER (), 'epoch') AS at
                  FROM (SELECT DISTINCT v.%2$I AS id FROM %1$s v) i LEFT JOIN audit_log.transaction t ON t.id = i.id),
            numbered AS (
                SELECT v.ctid AS place, k.id, coalesce(v.%4$I, k.at) AS at, row_number() OVER record * interval '1 microsecond' AS n,
                       lead(k.id) OVER record AS next, dense_rank() OVER (ORDER BY %3$s) AS record
                  FROM %1$s v JOIN known k ON k.id = v.%2$I WINDOW record AS (PARTITION BY %3$s ORDER BY k.id)),
            begun AS (
                SELECT b.*, b.n + max(b.at - b.n) OVER (PARTITION BY b.record ORDER BY b.id) AS begins FROM numbered b),
            spans AS (
                SELECT b.*, lead(b.begins) OVER (PARTITION BY b.record ORDER BY b.id) AS ends FROM begun b)
            UPDATE %1$s v SET %4$I = s.begins, %5$I = s.ends, %6$I = s.next
              FROM spans s WHERE s.place = v.ctid
               AND (v.%4$I, v.%5$I, v.%6$I) IS DISTINCT FROM (s.begins, s.ends, s.next)$q$,
            version_table, tx, keys, valid_from, valid_to, until);
        RAISE NOTICE 'audit_log: version table % is adopted with % versions and % transactions', version_table, rows, adopted;
    END
    $$;
COMMENT ON FUNCTION audit_log._adopt_version_table(oid, regclass, regclass, jsonb) IS 'takes over a version table that SQLAlchemy-Continuum has kept';

/* makes, adopts, renames or completes a table's version table; whether it was there before */
CREATE FUNCTION audit_log._make_version_table(caller oid, target regclass, settings jsonb, former jsonb) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        version_table regclass := audit_log._version_relation(target, settings);
        there boolean;
        known regclass;
        command text;
    BEGIN
        IF version_table = target THEN
            RAISE EXCEPTION USING ERRCODE = 'duplicate_table',
                MESSAGE = format('version_table names table %s itself', target);
        END IF;
        -- by our own word on this table: its trigger may say what it likes
        IF audit_log._knows_versions(target, former) THEN
            known := audit_log._version_relation(target, former);
            IF NOT audit_log._is_version_table(known) THEN
                known := NULL;
            END IF;
        END IF;
        -- under another key it is another one
        IF NOT former ? 'versioned' AND former ->> 'version_table' <> settings ->> 'version_table' THEN
            known := NULL;
        END IF;
        IF known IS NOT NULL AND former ->> 'version_table' <> settings ->> 'version_table' THEN
            PERFORM audit_log._rename_version_table(known, (settings ->> 'version_table')::name);
            version_table := known;
        END IF;
        IF known IS NOT NULL THEN
            PERFORM audit_log._rename_own_columns(version_table, former, settings);
        END IF;
        IF EXISTS (SELECT FROM audit_log.tracked_table t, pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE c.oid = target AND t.table_schema = n.nspname
                      AND t.settings ->> 'version_table' = _make_version_table.settings ->> 'version_table'
                      AND t.dropped_at IS NULL AND t.id IS DISTINCT FROM audit_log._table_id(target)
                      AND (audit_log._table_id(target) IS NULL OR t.id < audit_log._table_id(target)))
           OR known IS NULL AND version_table IS NOT NULL AND EXISTS (
                   -- restored without the log, and not changed since
                   SELECT FROM pg_class c, LATERAL audit_log._naming_tables(c.relnamespace, (settings ->> 'version_table')::name) r (relid)
                    WHERE c.oid = target AND r.relid <> target
                      AND audit_log._trigger_settings(r.relid, 'audit_log_row') @> jsonb_build_object('versioned', true, 'version_table', settings -> 'version_table')) THEN
            RAISE EXCEPTION USING ERRCODE = 'duplicate_table',
                MESSAGE = format('%I is the version table of another table', settings ->> 'version_table'),
                HINT = 'Name another: version_table => …';
        END IF;
        there := version_table IS NOT NULL;
        IF NOT there THEN
            EXECUTE (SELECT format('CREATE TABLE %I.%I (%s, %s)', n.nspname, settings ->> 'version_table',
                       (SELECT string_agg(format('%I %s', s.column_name, s.definition), ', ')
                          FROM audit_log._version_sources(target, settings) s),
                       (SELECT string_agg(format('%I %s', audit_log._version_column(settings, v.name), v.type), ', ' ORDER BY v.n)
                          FROM (VALUES (1, 'transaction_id', 'bigint'), (2, 'end_transaction_id', 'bigint'),
                                       (3, 'operation_type', 'smallint NOT NULL'), (4, 'valid_from', 'timestamptz NOT NULL'),
                                       (5, 'valid_to', 'timestamptz')) v (n, name, type)))
                       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = target);
            version_table := audit_log._version_relation(target, settings);
            PERFORM audit_log._close_relation(version_table);
            PERFORM audit_log._complete_version_table(target, version_table, settings);
        ELSIF known IS NOT NULL OR audit_log._is_version_table(version_table) THEN
            -- who made a table under the name of one that was dropped must not read that one's versions
            IF known IS NULL AND NOT audit_log._is_keeper(caller) THEN
                RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
                    MESSAGE = format('%s holds the versions of another table', version_table),
                    HINT = 'Name another: version_table => … A superuser, or the role that installed audit_log, may go on with this one.';
            END IF;
            PERFORM audit_log._refuse_unversionable(target, settings);
            PERFORM audit_log._complete_version_table(target, version_table, settings);
        ELSE
            PERFORM audit_log._adopt_version_table(caller, target, version_table, settings);
        END IF;
        -- what tables that are gone had under that name is not theirs any more
        UPDATE audit_log.tracked_table t SET settings = t.settings - 'version_table'
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = version_table AND t.dropped_at IS NOT NULL
           AND t.table_schema = n.nspname AND t.settings ->> 'version_table' = c.relname;
        FOR command IN SELECT format('ALTER TABLE ONLY %s ALTER COLUMN %I SET NOT NULL', version_table, a.attname)
                         FROM pg_attribute a WHERE a.attrelid = version_table AND NOT a.attnotnull
                          AND a.attname IN (audit_log._version_column(settings, 'operation_type'), audit_log._version_column(settings, 'valid_from')) LOOP
            EXECUTE command;
        END LOOP;
        PERFORM audit_log._version_rights(target, version_table);
        RETURN there;
    END
    $$;
COMMENT ON FUNCTION audit_log._make_version_table(oid, regclass, jsonb, jsonb) IS 'makes, adopts, renames or completes a table''s version table; whether it was there before';

CREATE FUNCTION audit_log._rename_version_column(version_table regclass, before name, now name) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        name name := (SELECT c.relname FROM pg_class c WHERE c.oid = version_table);
        schema name := (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = version_table);
        index name := audit_log._version_index_name(name, before);
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = version_table AND a.attname = before AND a.attnum > 0) THEN
            RETURN;
        END IF;
        IF EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = version_table AND a.attname = now) THEN
            RAISE EXCEPTION USING ERRCODE = 'duplicate_column',
                MESSAGE = format('cannot follow the renaming of column %I: version table %s has a column %I', before, version_table, now),
                DETAIL = 'It holds what versions had in a column of that name before.',
                HINT = format('A superuser can rename it first: ALTER TABLE %s RENAME COLUMN %I TO …', version_table, now);
        END IF;
        EXECUTE format('ALTER TABLE ONLY %s RENAME COLUMN %I TO %I', version_table, before, now);
        IF EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                    WHERE i.indrelid = version_table AND x.relname = index)
           AND to_regclass(format('%I.%I', schema, audit_log._version_index_name(name, now))) IS NULL THEN
            EXECUTE format('ALTER INDEX %I.%I RENAME TO %I', schema, index, audit_log._version_index_name(name, now));
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._rename_version_column(regclass, name, name) IS 'renames a column of a version table, and the index named after it';

CREATE FUNCTION audit_log._rename_own_columns(version_table regclass, former jsonb, settings jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        own text;
        before name;
        now name;
    BEGIN
        FOREACH own IN ARRAY ARRAY['transaction_id', 'end_transaction_id', 'operation_type', 'valid_from', 'valid_to'] LOOP
            before := audit_log._version_column(former, own);
            now := audit_log._version_column(settings, own);
            IF before <> now THEN
                PERFORM audit_log._rename_version_column(version_table, before, now);
            END IF;
        END LOOP;
    END
    $$;
COMMENT ON FUNCTION audit_log._rename_own_columns(regclass, jsonb, jsonb) IS 'gives a version table''s own columns the names that the settings say now';

/* ------------------------------------------------------------------ tracking */

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
                                    'versioned', 'version_table', 'version_columns'])
                       WITH ORDINALITY s (name, place)
                 WHERE $2 ? s.name) a
    $$;

CREATE OR REPLACE FUNCTION audit_log._check_trackable(target regclass) RETURNS void
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
        IF audit_log._is_version_table(target) THEN
            RAISE EXCEPTION USING ERRCODE = 'wrong_object_type',
                MESSAGE = format('cannot audit %s', target),
                DETAIL = 'It is a version table, which only audit_log itself writes.';
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

CREATE FUNCTION audit_log._enable(
        caller oid, target regclass,
        exclude name[], include name[], mask name[], condition text, actions text[],
        on_truncate text, baseline boolean, user_column name, require text[], always boolean,
        versioned boolean, version_table name, version_columns jsonb)
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
        versions bigint;
        had_versions boolean;
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
            EXCEPTION WHEN undefined_column OR object_not_in_prerequisite_state THEN
                -- a setting names a column that is gone, or another's version table: no change was logged under it,
                -- and this call may name others
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
        IF versioned IS NOT NULL THEN
            settings := settings - 'versioned' || CASE WHEN versioned THEN '{"versioned": true}'::jsonb ELSE '{}' END;
        END IF;
        versioned := settings ? 'versioned';
        settings := audit_log._put_text(settings, 'version_table', version_table::text);
        -- by its name it is found also when the table was renamed unseen
        IF versioned AND NOT settings ? 'version_table' THEN
            settings := settings || jsonb_build_object('version_table',
                (SELECT c.relname || '_version' FROM pg_class c WHERE c.oid = target));
        END IF;
        IF version_columns IS NOT NULL THEN
            settings := settings - 'version_columns'
                || CASE version_columns WHEN '{}' THEN '{}'::jsonb ELSE jsonb_build_object('version_columns', version_columns) END;
        END IF;
        PERFORM audit_log._check_settings(target, settings);
        PERFORM audit_log._check_versioned(target, settings);

        IF audit_log._months_ahead() < 3 THEN
            PERFORM audit_log._make_partitions(13);
        END IF;

        IF versioned THEN
            had_versions := audit_log._make_version_table(caller, target, settings, coalesce(former, '{}'));
        ELSIF version_columns IS NOT NULL AND former ->> 'version_table' = settings ->> 'version_table'
              AND audit_log._knows_versions(target, former) AND audit_log._has_version_shape(audit_log._version_relation(target, former), former) THEN
            -- a version table that rests is to be found again
            PERFORM audit_log._rename_own_columns(audit_log._version_relation(target, former), former, settings);
        END IF;
        PERFORM audit_log._add_triggers(target, audit_log._settings_arguments(uid, settings),
                                        coalesce((settings ->> 'always')::boolean, false));
        PERFORM audit_log._note_switched(target);
        empty := audit_log._is_empty(target);
        -- what changed unseen belongs before the state that begins now
        IF had_versions THEN
            versions := audit_log._sync_versions(target);
            IF versions > 0 AND former IS NOT NULL AND former ? 'versioned' THEN
                PERFORM audit_log._note_state(audit_log._table_id(target), 'gap', jsonb_build_object(
                    'reason', 'records changed while no versions were kept', 'versions', versions));
            END IF;
        END IF;
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
        IF NOT had_versions THEN
            versions := audit_log._sync_versions(target);
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
                    ELSE '' END
            || CASE WHEN versioned THEN format('; versions are kept in %I, %s written', settings ->> 'version_table', versions) ELSE '' END;
    END
    $$;
COMMENT ON FUNCTION audit_log._enable(oid, regclass, name[], name[], name[], text, text[], text, boolean, name, text[], boolean, boolean, name, jsonb) IS 'enable(), with the caller''s role';

CREATE FUNCTION audit_log.enable(
        table_name regclass,
        exclude name[] DEFAULT NULL, include name[] DEFAULT NULL, mask name[] DEFAULT NULL,
        condition text DEFAULT NULL, actions text[] DEFAULT NULL, on_truncate text DEFAULT NULL,
        baseline boolean DEFAULT NULL, user_column name DEFAULT NULL, require text[] DEFAULT NULL,
        always boolean DEFAULT NULL, versioned boolean DEFAULT NULL, version_table name DEFAULT NULL,
        version_columns jsonb DEFAULT NULL)
    RETURNS void
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.enable(regclass, name[], name[], name[], text, text[], text, boolean, name, text[], boolean, boolean, name, jsonb) IS
    'tracks a table: its changes are logged from here on, and with versioned its versions kept. Left-out arguments keep what is set, ''{}'' clears. Takes SHARE ROW EXCLUSIVE on the table and its partitions';

CREATE OR REPLACE FUNCTION audit_log._pause(caller oid, target regclass, reason text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF target IS NULL OR reason IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
                MESSAGE = 'table_name and reason must not be NULL';
        END IF;
        PERFORM audit_log._check_owner(caller, target);
        PERFORM audit_log._check_no_partition(target);
        IF audit_log._trigger_settings(target, 'audit_log_row') ? 'versioned' THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('cannot pause versioned table %s', target),
                DETAIL = 'Its records'' versions would not be unbroken any more.',
                HINT = 'Run audit_log.enable() with versioned => false first, and with true afterwards.';
        END IF;
        PERFORM audit_log._pause_here(audit_log._register(target, 'paused',
            jsonb_build_object('reason', reason)));
        RAISE NOTICE 'audit_log: changes of % are not logged until this transaction ends', target;
    END
    $$;

CREATE OR REPLACE FUNCTION audit_log._is_bookkeeping(target regclass) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT audit_log._is_version_table($1)
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
COMMENT ON FUNCTION audit_log._is_bookkeeping(regclass) IS 'is the table a version table, an extension''s, or the bookkeeping of Flyway, Alembic, Rails, Django or Sqitch?';

CREATE FUNCTION audit_log._enable_schema(
        caller oid, schema_name name, except_tables regclass[], auto boolean,
        exclude name[], include name[], mask name[], condition text, actions text[],
        on_truncate text, baseline boolean, user_column name, require text[], always boolean,
        versioned boolean, version_columns jsonb)
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        target regclass;
        tracked integer := 0;
        passed integer := 0;
        settings jsonb;
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
            -- of both the later one counts for what is left out now
            settings := coalesce((SELECT s.settings FROM audit_log.tracked_schema s WHERE s.schema_name = _enable_schema.schema_name), '{}')
                || jsonb_strip_nulls(jsonb_build_object('versioned', versioned, 'actions', to_jsonb(actions), 'on_truncate', on_truncate));
            IF settings -> 'versioned' = 'true' AND (jsonb_array_length(coalesce(settings -> 'actions', '[]')) > 0 OR settings ->> 'on_truncate' = 'event') THEN
                RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                    MESSAGE = format('schema %I cannot have both versioned and actions, or on_truncate event', schema_name),
                    DETAIL = 'A change that is not captured would leave its record without its version.',
                    HINT = 'Clear actions by ''{}'', and set on_truncate to rows or forbid.';
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
                (audit_log._columns_there(target, ARRAY[user_column]))[1], require, always,
                -- a table without key is tracked all the same
                CASE WHEN versioned THEN audit_log._may_be_versioned(target, false, NULL) ELSE versioned END, NULL, version_columns);
            tracked := tracked + 1;
        END LOOP;

        IF auto THEN
            INSERT INTO audit_log.tracked_schema AS s (schema_name, enabled_by, settings)
            VALUES (_enable_schema.schema_name, pg_get_userbyid(caller),
                jsonb_strip_nulls(jsonb_build_object(
                    'exclude', to_jsonb(exclude), 'include', to_jsonb(include), 'mask', to_jsonb(mask),
                    'actions', to_jsonb(actions), 'on_truncate', on_truncate,
                    'user_column', user_column, 'require', to_jsonb(require), 'always', always,
                    'versioned', versioned, 'version_columns', version_columns)))
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
COMMENT ON FUNCTION audit_log._enable_schema(oid, name, regclass[], boolean, name[], name[], name[], text, text[], text, boolean, name, text[], boolean, boolean, jsonb) IS 'enable_schema(), with the caller''s role';

CREATE FUNCTION audit_log.enable_schema(
        schema_name name, except_tables regclass[] DEFAULT NULL, auto boolean DEFAULT NULL,
        exclude name[] DEFAULT NULL, include name[] DEFAULT NULL, mask name[] DEFAULT NULL,
        condition text DEFAULT NULL, actions text[] DEFAULT NULL, on_truncate text DEFAULT NULL,
        baseline boolean DEFAULT NULL, user_column name DEFAULT NULL, require text[] DEFAULT NULL,
        always boolean DEFAULT NULL, versioned boolean DEFAULT NULL, version_columns jsonb DEFAULT NULL)
    RETURNS void
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.enable_schema(name, regclass[], boolean, name[], name[], name[], text, text[], text, boolean, name, text[], boolean, boolean, jsonb) IS
    'enable() for every table of a schema; with auto also for those made there later (superusers only; false ends it)';

CREATE OR REPLACE FUNCTION audit_log._follow_created(target regclass) RETURNS void
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
            (s.settings ->> 'always')::boolean,
            CASE WHEN (s.settings ->> 'versioned')::boolean THEN audit_log._may_be_versioned(target, true, s.settings) END, NULL, s.settings -> 'version_columns');
    END
    $$;

/* ------------------------------------------------------------- following DDL */

/* the latest state of a table: its columns before what a command has just altered is noted */
CREATE FUNCTION audit_log._latest_columns(target regclass) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT audit_log._latest('SELECT (SELECT s.columns FROM audit_log.table_state s
             WHERE s.table_id = (SELECT t.id FROM audit_log.tracked_table t
                                  WHERE t.uid::text = (SELECT substring(encode(g.tgargs, ''escape'') FROM ''^table=([-0-9a-f]{36})'')
                                                         FROM pg_trigger g WHERE g.tgrelid = $1 AND g.tgname = ''audit_log_row'')
                                    AND t.dropped_at IS NULL)
             ORDER BY s.id DESC LIMIT 1)', $1)::jsonb
    $$;
COMMENT ON FUNCTION audit_log._latest_columns(regclass) IS 'the columns of a table by its latest state';

CREATE FUNCTION audit_log._refuse_unversionable(target regclass, settings jsonb, former_key text[] DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        version_table regclass := audit_log._version_relation(target, settings);
        key text[] := audit_log._key_columns(target);
        versions_key text[];
    BEGIN
        IF version_table IS NULL THEN
            RETURN;
        END IF;
        SELECT array_agg(a.attname::text) INTO versions_key
          FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
         WHERE i.indrelid = version_table AND i.indisprimary
           AND a.attname <> audit_log._version_column(settings, 'transaction_id');
        IF former_key IS NOT NULL AND NOT (versions_key @> former_key AND former_key @> versions_key) THEN
            RETURN;             -- it did not fit before either
        END IF;
        IF NOT (versions_key @> key AND key @> versions_key) OR audit_log._loose_key_column(target, version_table) IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('cannot change the key of versioned table %s', target),
                DETAIL = format('Its versions are kept by (%s).', array_to_string(versions_key, ', ')),
                HINT = format('Run audit_log.enable(%L, versioned => false) first, and audit_log.enable(%L, versioned => true, version_table => …) afterwards.',
                    target::text, target::text);
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._refuse_unversionable(regclass, jsonb, text[]) IS 'refuses another key of a versioned table than its versions have; former_key: the one before, where a command may have changed it';

/*
 * A dump is being restored: the key that the log knows of was not there before
 * this ALTER TABLE, and is not there after it.  Nothing has changed then; a
 * state that said so would come among those that are being restored.
 */
CREATE FUNCTION audit_log._is_key_awaited(target regclass) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT coalesce((
            SELECT s.key_columns IS NOT NULL AND s.key_columns <> audit_log._former_key($1) AND s.key_columns <> audit_log._key_columns($1)
                   AND s.columns = (SELECT jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'number', a.attnum) ORDER BY a.attnum)
                                      FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped)
              FROM audit_log.table_state s WHERE s.table_id = audit_log._table_id($1) ORDER BY s.id DESC LIMIT 1), false)
    $$;
COMMENT ON FUNCTION audit_log._is_key_awaited(regclass) IS 'did the key that the log knows of a table come neither before nor with the ALTER TABLE that has just run?';

/*
 * After an ALTER TABLE: the version table gets the same name, schema, columns
 * and types; former is the columns as they were, NULL where nothing was known.
 */
CREATE FUNCTION audit_log._follow_versions(target regclass, former_schema text, former_name text, former jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        settings jsonb := audit_log._trigger_settings(target, 'audit_log_row');
        version_table regclass;
        schema text;
        name text;
        source record;
        filled name[] := '{}';
        converted name[] := '{}';
        uid uuid;
        clash name;
        key text[] := audit_log._former_key(target);
    BEGIN
        IF settings IS NULL OR NOT settings ? 'versioned' OR former IS NULL THEN
            RETURN;
        END IF;
        SELECT n.nspname, c.relname INTO schema, name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = target;
        IF former_schema <> schema THEN
            version_table := to_regclass(format('%I.%I', former_schema, settings ->> 'version_table'));
            IF audit_log._has_version_shape(version_table, settings) THEN
                IF audit_log._version_relation(target, settings) IS NOT NULL THEN
                    RAISE EXCEPTION USING ERRCODE = 'duplicate_table',
                        MESSAGE = format('cannot move version table %s along: schema %I has a relation of that name', version_table, schema),
                        HINT = 'Rename that one, or the version table first: audit_log.enable(…, version_table => …).';
                END IF;
                EXECUTE format('ALTER TABLE %s SET SCHEMA %I', version_table, schema);
            END IF;
        END IF;
        version_table := audit_log._version_relation(target, settings);
        -- changes are refused, with the remedy; what is not ours is not ours to alter
        IF version_table IS NULL OR NOT audit_log._has_version_shape(version_table, settings) THEN
            RETURN;
        END IF;
        IF former_name <> name AND settings ->> 'version_table' = (former_name || '_version') THEN
            IF octet_length(name || '_version') > 63 THEN
                RAISE EXCEPTION USING ERRCODE = 'name_too_long',
                    MESSAGE = format('the name of version table %I would be too long', name || '_version'),
                    HINT = 'Give it another first: audit_log.enable(…, version_table => …).';
            END IF;
            PERFORM audit_log._rename_version_table(version_table, (name || '_version')::name);
            settings := settings || jsonb_build_object('version_table', name || '_version');
            -- the name was free: what tables that are gone had under it is gone too
            UPDATE audit_log.tracked_table t SET settings = t.settings - 'version_table'
             WHERE t.dropped_at IS NOT NULL AND t.table_schema = schema AND t.settings ->> 'version_table' = name || '_version';
            SELECT t.uid INTO uid FROM audit_log.tracked_table t WHERE t.id = audit_log._table_id(target);
            PERFORM audit_log._set_trigger_arguments(target, 'audit_log_row', audit_log._settings_arguments(uid, settings));
            PERFORM audit_log._register(target, NULL, NULL);
        END IF;

        SELECT s.column_name INTO clash
          FROM unnest(ARRAY['transaction_id', 'end_transaction_id', 'operation_type', 'valid_from', 'valid_to']) v
          JOIN audit_log._version_sources(target, settings) s ON s.column_name = audit_log._version_column(settings, v) LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'duplicate_column',
                MESSAGE = format('table %s cannot have a column %I, which its versions have for their own', target, clash),
                HINT = 'Give theirs another name first: audit_log.enable(…, version_columns => …).';
        END IF;
        FOR source IN
            SELECT s.column_name, s.definition, s.type, s.modifier, s.filled, f.name AS former_name,
                   -- of a key a collation that tells more apart is kept: versions of values that are equal now may be there
                   f.type <> format_type(s.type, s.modifier)
                   OR v.attcollation <> a.attcollation AND (NOT l.collisdeterministic OR NOT s.column_name = ANY (audit_log._key_columns(target)::name[])) AS altered,
                   v.attname IS NOT NULL AS there,
                   v.atttypid AS version_type, v.atttypmod AS version_modifier
              FROM audit_log._version_sources(target, settings) s
              JOIN pg_attribute a ON a.attrelid = target AND a.attname = s.column_name
              LEFT JOIN (SELECT c ->> 'name' AS name, c ->> 'type' AS type, (c ->> 'number')::integer AS number
                           FROM jsonb_array_elements(former) c) f ON f.number = a.attnum
              LEFT JOIN pg_attribute v ON v.attrelid = version_table AND v.attname = coalesce(f.name, s.column_name)
                                      AND v.attnum > 0 AND NOT v.attisdropped
              LEFT JOIN pg_collation l ON l.oid = v.attcollation
             ORDER BY a.attnum
        LOOP
            IF NOT source.there THEN
                IF (SELECT max(a.attnum) >= 1600 FROM pg_attribute a WHERE a.attrelid = version_table) THEN
                    RAISE EXCEPTION USING ERRCODE = 'too_many_columns',
                        MESSAGE = format('cannot follow the addition of column %I: version table %s has 1,600 columns, dropped ones included', source.column_name, version_table),
                        HINT = format('Run audit_log.enable(%L, versioned => false) first, and audit_log.enable(%L, versioned => true, version_table => …) afterwards.',
                            target::text, target::text);
                END IF;
                EXECUTE format('ALTER TABLE ONLY %s ADD COLUMN %I %s', version_table, source.column_name, source.definition);
            ELSIF source.former_name <> source.column_name THEN
                PERFORM audit_log._rename_version_column(version_table, source.former_name::name, source.column_name);
            END IF;
            IF source.former_name IS NULL THEN
                IF source.there AND source.version_type NOT IN (source.type, audit_log._base_type(source.type, -1)::regtype) THEN
                    RAISE EXCEPTION USING ERRCODE = 'datatype_mismatch',
                        MESSAGE = format('cannot follow the addition of column %I: version table %s has one of type %s',
                            source.column_name, version_table, format_type(source.version_type, source.version_modifier)),
                        DETAIL = 'It holds what versions had in a column of that name before.',
                        HINT = format('A superuser can rename it first: ALTER TABLE %s RENAME COLUMN %I TO …', version_table, source.column_name);
                END IF;
                IF source.there OR source.filled THEN
                    filled := filled || source.column_name;
                END IF;
            ELSIF source.altered AND source.there THEN
                converted := converted || source.column_name;
            END IF;
        END LOOP;
        IF converted <> '{}' THEN
            PERFORM audit_log._convert_versions(target, version_table, converted);
        END IF;
        -- only a command that takes the key away: while a dump is restored, it may not be there yet
        IF key IS NOT NULL THEN
            PERFORM audit_log._refuse_unversionable(target, settings, key);
        END IF;
        IF filled <> '{}' THEN
            PERFORM audit_log._refresh_versions(target, filled);
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._follow_versions(regclass, text, text, jsonb) IS 'gives a version table the name, schema, columns and types that ALTER TABLE has given its table';

CREATE FUNCTION audit_log._heirs(target oid) RETURNS SETOF oid
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH RECURSIVE heir AS (
            SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = $1
            UNION
            SELECT i.inhrelid FROM heir h JOIN pg_inherits i ON i.inhparent = h.inhrelid)
        SELECT h.inhrelid FROM heir h
    $$;
COMMENT ON FUNCTION audit_log._heirs(oid) IS 'the tables that inherit from a table';

/*
 * Rows that came or went unseen, since partitions were attached or detached or
 * triggers fire again, get their versions; states tell of it, later than since.
 */
CREATE FUNCTION audit_log._catch_up_versions(target regclass, since bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF EXISTS (SELECT FROM audit_log.table_state s
                    WHERE s.table_id = audit_log._table_id(target) AND s.id > coalesce(since, 0)
                      AND (s.kind = 'partition detached'
                           OR s.kind = 'partition attached' AND s.detail -> 'empty' IS DISTINCT FROM 'true'
                           OR s.kind = 'gap' AND s.detail -> 'disabled' = '[]')) THEN
            PERFORM audit_log._sync_versions(target);
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._catch_up_versions(regclass, bigint) IS 'gives rows that came or went unseen their versions';

CREATE OR REPLACE FUNCTION audit_log._on_ddl_command_end(caller oid, renamed text, unfollowed boolean, attaching boolean, detached oid)
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
        columns jsonb;
        versioned boolean;
        switched bigint;
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
                         JOIN pg_class t ON t.reloftype = y.reltype AND t.relkind IN ('r', 'p')
                        UNION
                       -- columns come to tables that inherit too
                       SELECT c.classid, h.relid, c.command_tag, NULL
                         FROM pg_event_trigger_ddl_commands() c JOIN pg_class p ON c.classid = 'pg_class'::regclass AND p.oid = c.objid,
                              LATERAL audit_log._heirs(p.oid) h (relid)
                        WHERE c.command_tag = 'ALTER TABLE' AND renamed IS NULL AND p.relkind = 'r' AND p.relhassubclass LOOP
            former := NULL;
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
            versioned := coalesce(audit_log._trigger_settings(root, 'audit_log_row') ? 'versioned', false);
            IF versioned THEN
                switched := (SELECT max(s.id) FROM audit_log.table_state s);
            END IF;
            IF unfollowed THEN
                -- a superuser, while states are there whose sequence is not set yet: a dump is being restored that
                -- switches triggers off for its data only, which is no gap.  Nothing else is passed over.
                CONTINUE WHEN (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = caller)
                    AND (SELECT max(s.id) FROM audit_log.table_state s)
                        > (SELECT CASE WHEN q.is_called THEN q.last_value ELSE 0 END FROM audit_log.table_state_id_seq q);
                PERFORM audit_log._note_switched(root);
                IF versioned THEN
                    PERFORM audit_log._follow_rights(ARRAY[root]);
                    PERFORM audit_log._catch_up_versions(root, switched);
                END IF;
                CONTINUE;
            END IF;
            -- of a partition by itself only names and triggers are followed; a look at its sisters
            -- would make the commands of a restore in parallel wait for each other
            CONTINUE WHEN root <> target AND renamed IS NULL AND (SELECT c.relkind = 'r' FROM pg_class c WHERE c.oid = target)
                AND command.command_tag = 'ALTER TABLE' AND NOT EXISTS (
                    SELECT FROM pg_trigger t WHERE t.tgrelid = target AND t.tgenabled IN ('D', 'R')
                       AND t.tgfoid IN ('audit_log.capture()'::regprocedure, 'audit_log.capture_truncate()'::regprocedure));
            columns := CASE WHEN versioned THEN audit_log._latest_columns(root) END;
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
            IF NOT audit_log._is_key_awaited(root) AND audit_log._follow(root) AND versioned THEN
                IF root <> target THEN
                    former := NULL;
                END IF;
                PERFORM audit_log._follow_versions(root, coalesce(former[1], schema), coalesce(former[2], name), columns);
                PERFORM audit_log._follow_rights(ARRAY[root]);
            END IF;
            IF audit_log._trigger_settings(root, 'audit_log_row') IS NOT NULL
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
            IF versioned THEN
                PERFORM audit_log._catch_up_versions(root, switched);
            END IF;
        END LOOP;
    END
    $$;

CREATE FUNCTION audit_log._sync_dropped(table_id integer) RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT audit_log._sync_versions(c.oid)
          FROM audit_log.tracked_table t JOIN pg_namespace n ON n.nspname = t.table_schema
          JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.table_name
         WHERE t.id = $1 AND audit_log._trigger_settings(c.oid, 'audit_log_row') ? 'versioned'
    $$;
COMMENT ON FUNCTION audit_log._sync_dropped(integer) IS 'gives the rows that went with a partition their last versions';

CREATE OR REPLACE FUNCTION audit_log._on_sql_drop(caller oid, renamed text, unfollowed boolean, attaching boolean, detached oid)
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
                PERFORM audit_log._sync_dropped(id);
            END LOOP;
        END LOOP;
    END
    $$;

CREATE FUNCTION audit_log.on_rights() RETURNS event_trigger
    LANGUAGE C AS 'MODULE_PATHNAME', 'audit_log_on_rights';
COMMENT ON FUNCTION audit_log.on_rights() IS 'keeps the rights on version tables up with those on their tables';

CREATE OR REPLACE FUNCTION audit_log._make_event_trigger(name text) RETURNS void
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
            WHEN 'audit_log_domain' THEN
                $q$CREATE EVENT TRIGGER audit_log_domain ON ddl_command_start WHEN TAG IN ('ALTER DOMAIN')
                   EXECUTE FUNCTION audit_log.on_ddl_command_start()$q$
            WHEN 'audit_log_rights_lock' THEN
                $q$CREATE EVENT TRIGGER audit_log_rights_lock ON ddl_command_start
                   WHEN TAG IN ('GRANT', 'REVOKE', 'DROP OWNED')
                   EXECUTE FUNCTION audit_log.on_rights()$q$
            WHEN 'audit_log_rights' THEN
                $q$CREATE EVENT TRIGGER audit_log_rights ON ddl_command_end
                   WHEN TAG IN ('GRANT', 'REVOKE', 'DROP OWNED')
                   EXECUTE FUNCTION audit_log.on_rights()$q$
            -- of every command: DROP TYPE … CASCADE, say, drops tables too
            WHEN 'audit_log_drop' THEN
                $q$CREATE EVENT TRIGGER audit_log_drop ON sql_drop EXECUTE FUNCTION audit_log.on_sql_drop()$q$
            END;
    END
    $$;

/* --------------------------------------------------------------- maintenance */

/* what is wrong with version tables; reads each from one end to the other */
CREATE FUNCTION audit_log._check_versions(OUT relation text, OUT problem text, OUT remedy text) RETURNS SETOF record
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        target record;
        keys text;
        broken bigint;
        rows bigint;
        versions bigint;
        lacking text;
    BEGIN
        FOR target IN
            SELECT c.oid::regclass AS relid, s.settings, audit_log._version_relation(c.oid, s.settings) AS version_table
              FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid,
                   LATERAL audit_log._trigger_settings(c.oid, 'audit_log_row') s (settings)
             WHERE t.tgname = 'audit_log_row' AND t.tgfoid = 'audit_log.capture()'::regprocedure
               AND NOT c.relispartition AND s.settings ? 'versioned'
             ORDER BY c.oid::regclass::text COLLATE "C"
        LOOP
            relation := target.relid::text;
            remedy := format('Run SELECT audit_log.enable(%L).', relation);
            IF target.version_table IS NULL THEN
                problem := format('its version table %s is missing: changes are refused', target.settings ->> 'version_table');
                RETURN NEXT;
                CONTINUE;
            END IF;
            BEGIN
                PERFORM audit_log._refuse_unversionable(target.relid, target.settings);
            EXCEPTION WHEN object_not_in_prerequisite_state THEN
                problem := format('version table %s does not fit its key: changes are refused', target.version_table);
                RETURN NEXT;
                CONTINUE;
            END;
            IF audit_log._has_version_shape(target.version_table, target.settings) AND NOT audit_log._knows_versions(target.relid, target.settings)
               AND NOT audit_log._may_claim_versions(target.relid, target.settings) THEN
                problem := format('version table %s is not known to be its own: changes are refused', target.version_table);
                RETURN NEXT;
                CONTINUE;
            END IF;
            SELECT string_agg(quote_ident(w.name), ', ' ORDER BY w.n) INTO lacking
              FROM (SELECT row_number() OVER () AS n, s.column_name AS name, ARRAY[s.type, audit_log._base_type(s.type, -1)::regtype] AS types
                      FROM audit_log._version_sources(target.relid, target.settings) s
                    UNION ALL
                    SELECT 10000 + o.n, audit_log._version_column(target.settings, o.name), ARRAY[o.type::oid]
                      FROM (VALUES (1, 'transaction_id', 'int8'::regtype), (2, 'end_transaction_id', 'int8'), (3, 'operation_type', 'int2'),
                                   (4, 'valid_from', 'timestamptz'), (5, 'valid_to', 'timestamptz')) o (n, name, type)) w
             WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target.version_table AND a.attname = w.name
                                  AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid = ANY (w.types));
            IF lacking IS NOT NULL THEN
                problem := format('version table %s has no column %s of the same type: changes are refused', target.version_table, lacking);
                RETURN NEXT;
                CONTINUE;
            END IF;
            remedy := 'Run SELECT audit_log.repair().';
            IF NOT audit_log._is_version_table(target.version_table) THEN
                problem := format('version table %s does not belong to the owner of the log, so that others may change it', target.version_table);
                RETURN NEXT;
                CONTINUE;               -- what others own may evaluate what they like when it is read
            END IF;
            keys := (SELECT string_agg(format('v.%I', k), ', ' ORDER BY n) FROM unnest(audit_log._key_columns(target.relid)) WITH ORDINALITY u (k, n));
            EXECUTE format($q$
                SELECT count(*) FROM (
                    SELECT v.%2$I AS ends, v.%3$I AS begun, v.%4$I AS ended,
                           lead(v.%5$I) OVER record AS next, lead(v.%3$I) OVER record AS next_begun
                      FROM %1$s v WINDOW record AS (PARTITION BY %6$s ORDER BY v.%5$I)) c
                 WHERE c.ends IS DISTINCT FROM c.next OR c.ended IS DISTINCT FROM c.next_begun OR c.ended <= c.begun$q$,
                target.version_table, audit_log._version_column(target.settings, 'end_transaction_id'),
                audit_log._version_column(target.settings, 'valid_from'), audit_log._version_column(target.settings, 'valid_to'),
                audit_log._version_column(target.settings, 'transaction_id'), keys) INTO broken;
            IF broken > 0 THEN
                problem := format('%s versions in %s do not end where the next one of their record begins', broken, target.version_table);
                RETURN NEXT;
            END IF;
            EXECUTE format('SELECT (SELECT count(*) FROM %s), (SELECT count(*) FROM %s v WHERE v.%I IS NULL AND v.%I <> 2)',
                CASE WHEN (SELECT c.relkind = 'p' FROM pg_class c WHERE c.oid = target.relid) THEN '' ELSE 'ONLY ' END || target.relid,
                target.version_table, audit_log._version_column(target.settings, 'end_transaction_id'),
                audit_log._version_column(target.settings, 'operation_type')) INTO rows, versions;
            IF rows <> versions THEN
                problem := format('it has %s rows, but %s of its records have a current version in %s', rows, versions, target.version_table);
                remedy := format('Run SELECT audit_log.enable(%L).', relation);
                RETURN NEXT;
            END IF;
        END LOOP;
    END
    $$;
COMMENT ON FUNCTION audit_log._check_versions() IS 'what is wrong with version tables: missing ones, and chains with a hole';

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
          FROM unnest(ARRAY['audit_log_attach', 'audit_log_ddl', 'audit_log_domain', 'audit_log_drop', 'audit_log_rights', 'audit_log_rights_lock']) e (name)
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
COMMENT ON FUNCTION audit_log.check() IS
    'what would make the audit untrue: missing or disabled triggers and guards, no partition ahead, a version chain with a hole; no row means all is well. Reads version tables as a whole';

/* closes each version where the next one begins, and makes the current ones true */
CREATE FUNCTION audit_log._repair_versions(target regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        settings jsonb := audit_log._trigger_settings(target, 'audit_log_row');
        version_table regclass := audit_log._version_relation(target, settings);
        keys text := (SELECT string_agg(format('v.%I', k), ', ' ORDER BY n) FROM unnest(audit_log._key_columns(target)) WITH ORDINALITY u (k, n));
    BEGIN
        EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', target);
        -- of somebody else's nothing may be evaluated with our rights
        IF (SELECT c.relkind = 'r' FROM pg_class c WHERE c.oid = version_table) THEN
            EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', version_table);
        END IF;
        IF (SELECT c.relkind <> 'r' FROM pg_class c WHERE c.oid = version_table)
           OR EXISTS (SELECT FROM pg_class c WHERE c.oid = version_table
                         AND c.relowner <> (SELECT l.relowner FROM pg_class l WHERE l.oid = 'audit_log.change'::regclass))
              AND (EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = version_table)
                   OR EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = version_table AND NOT t.tgisinternal)
                   OR EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = version_table AND k.contype IN ('c', 'f', 'x'))
                   OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = version_table AND a.attgenerated <> '')
                   OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = version_table AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL))
                   OR EXISTS (SELECT FROM pg_statistic_ext x WHERE x.stxrelid = version_table AND x.stxexprs IS NOT NULL)) THEN
            RAISE WARNING USING
                MESSAGE = format('audit_log: version table %s is not repaired', version_table),
                DETAIL = 'It is no table, or has triggers, rules, constraints, generated columns, or indexes with an expression, of its owner.',
                HINT = 'Drop them first, or the table''s trigger audit_log_row that names it.';
            RETURN;
        END IF;
        EXECUTE format('ALTER TABLE %s OWNER TO %I', version_table,
            (SELECT pg_get_userbyid(c.relowner) FROM pg_class c WHERE c.oid = 'audit_log.change'::regclass));
        PERFORM audit_log._version_rights(target, version_table);
        EXECUTE format($q$
            UPDATE %1$s v SET %2$I = c.next, %4$I = c.next_begun
              FROM (SELECT v.ctid AS place, lead(v.%5$I) OVER record AS next, lead(v.%3$I) OVER record AS next_begun
                      FROM %1$s v WINDOW record AS (PARTITION BY %6$s ORDER BY v.%5$I)) c
             WHERE c.place = v.ctid AND (v.%2$I, v.%4$I) IS DISTINCT FROM (c.next, c.next_begun)$q$,
            version_table, audit_log._version_column(settings, 'end_transaction_id'),
            audit_log._version_column(settings, 'valid_from'), audit_log._version_column(settings, 'valid_to'),
            audit_log._version_column(settings, 'transaction_id'), keys);
        PERFORM audit_log._sync_versions(target);
    END
    $$;
COMMENT ON FUNCTION audit_log._repair_versions(regclass) IS 'closes each version of a table where the next one begins, and makes the current ones true';

CREATE OR REPLACE FUNCTION audit_log._repair(caller oid) RETURNS integer
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
        FOR target IN SELECT e.name FROM unnest(ARRAY['audit_log_attach', 'audit_log_ddl', 'audit_log_domain', 'audit_log_drop', 'audit_log_rights', 'audit_log_rights_lock']) e (name)
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
        FOR target IN SELECT DISTINCT v.relation::regclass AS relid FROM audit_log._check_versions() v
                       WHERE v.remedy = 'Run SELECT audit_log.repair().' LOOP
            PERFORM audit_log._repair_versions(target.relid);
            repaired := repaired + 1;
        END LOOP;
        RETURN repaired;
    END
    $$;
COMMENT ON FUNCTION audit_log.repair() IS
    'sets guards and always triggers that a restore with --disable-triggers has left as ordinary ones, makes missing event triggers, notes tables that are gone or were renamed unnoticed, and closes holes in version chains (superusers only); returns how many';

/* ------------------------------------------------------------- Continuum's view */

/*
 * INSERT into a view transaction: the next changes belong to that entry.  The
 * id is the log's own, whatever nextval gave; RETURNING tells it.
 */
CREATE FUNCTION audit_log.continuum_transaction() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        context jsonb;
    BEGIN
        IF NEW.user_id IS NOT NULL THEN
            PERFORM set_config('audit_log.user_id', format('%s', NEW.user_id), true);
        END IF;
        IF NEW.remote_addr IS NOT NULL THEN
            BEGIN
                context := nullif(current_setting('audit_log.context', true), '')::jsonb;
            EXCEPTION WHEN data_exception THEN
                context := jsonb_build_object('context', current_setting('audit_log.context', true));
            END;
            IF jsonb_typeof(context) <> 'object' THEN
                context := jsonb_build_object('context', context);
            END IF;
            PERFORM set_config('audit_log.context',
                (coalesce(context, '{}') || jsonb_build_object('remote_addr', NEW.remote_addr))::text, true);
        END IF;
        PERFORM audit_log.new_transaction();
        NEW.id := audit_log.transaction_id();
        NEW.issued_at := coalesce(NEW.issued_at, clock_timestamp() AT TIME ZONE 'UTC');
        RETURN NEW;
    END
    $$;
COMMENT ON FUNCTION audit_log.continuum_transaction() IS 'INSTEAD OF INSERT on a view transaction: who makes the changes that follow';

/* its readers are those of the schema's version tables, its writers those of their tables */
CREATE FUNCTION audit_log._continuum_rights(schema_name name) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        view regclass := to_regclass(format('%I.transaction', schema_name));
        sequence regclass := to_regclass(format('%I.transaction_id_seq', schema_name));
        role record;
    BEGIN
        IF view IS NULL OR NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = view
                                          AND t.tgfoid = 'audit_log.continuum_transaction()'::regprocedure) THEN
            RETURN;
        END IF;
        FOR role IN
            WITH tracked AS (
                SELECT c.oid, c.relowner, c.relacl, v.relacl AS version_acl, v.relowner AS version_owner
                  FROM pg_namespace n JOIN audit_log.tracked_table t ON t.table_schema = n.nspname AND t.dropped_at IS NULL
                  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.table_name
                  JOIN pg_class v ON v.relnamespace = n.oid AND v.relname = t.settings ->> 'version_table'
                 WHERE n.nspname = schema_name),
            wanted AS (
                SELECT a.grantee, 'SELECT' AS privilege FROM tracked t, LATERAL aclexplode(t.version_acl) a
                 WHERE a.privilege_type = 'SELECT'
                UNION
                SELECT a.grantee, p FROM tracked t, LATERAL aclexplode(coalesce(t.relacl, acldefault('r', t.relowner))) a,
                       unnest(ARRAY['SELECT', 'INSERT']) p
                 WHERE a.privilege_type IN ('INSERT', 'UPDATE', 'DELETE')
                UNION SELECT e.extowner, 'SELECT' FROM pg_extension e WHERE e.extname = 'audit_log'),
            actual AS (
                SELECT a.grantee, a.privilege_type AS privilege FROM pg_class c, LATERAL aclexplode(c.relacl) a
                 WHERE c.oid = view AND a.grantor = c.relowner)
            SELECT CASE coalesce(w.grantee, a.grantee) WHEN 0 THEN 'PUBLIC'
                        ELSE quote_ident(pg_get_userbyid(coalesce(w.grantee, a.grantee))) END AS name,
                   coalesce(w.privilege, a.privilege) AS privilege, w.grantee IS NOT NULL AS granted
              FROM wanted w FULL JOIN actual a ON a.grantee = w.grantee AND a.privilege = w.privilege
             WHERE (w.grantee IS NULL OR a.grantee IS NULL)
               AND coalesce(w.grantee, a.grantee) <> (SELECT c.relowner FROM pg_class c WHERE c.oid = view)
             ORDER BY 1, 2
        LOOP
            EXECUTE format(CASE WHEN role.granted THEN 'GRANT %s ON %s TO %s' ELSE 'REVOKE %s ON %s FROM %s CASCADE' END,
                role.privilege, view, role.name);
            IF role.privilege = 'INSERT' AND sequence IS NOT NULL THEN
                EXECUTE format(CASE WHEN role.granted THEN 'GRANT USAGE ON SEQUENCE %s TO %s' ELSE 'REVOKE USAGE ON SEQUENCE %s FROM %s CASCADE' END,
                    sequence, role.name);
            END IF;
        END LOOP;
    END
    $$;
COMMENT ON FUNCTION audit_log._continuum_rights(name) IS 'keeps the rights on a view transaction up with those on the schema''s versioned tables';

CREATE FUNCTION audit_log._create_continuum_views(caller oid, schema_name name, user_table regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        there record;
        type oid := 'text'::regtype;
        modifier integer := -1;
        value text;
    BEGIN
        IF NOT audit_log._is_keeper(caller) THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
                MESSAGE = 'only a superuser or the role that installed audit_log may make a view of all transactions';
        END IF;
        IF schema_name IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'schema_name must not be NULL';
        END IF;
        IF NOT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = schema_name) THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_schema_name', MESSAGE = format('schema %I does not exist', schema_name);
        END IF;
        IF schema_name IN ('audit_log', 'pg_catalog', 'information_schema') OR schema_name ~ '^pg_' THEN
            RAISE EXCEPTION USING ERRCODE = 'wrong_object_type', MESSAGE = format('cannot make the view in schema %I', schema_name);
        END IF;
        SELECT c.oid::regclass AS relid, c.relkind INTO there FROM pg_class c WHERE c.oid = to_regclass(format('%I.transaction', schema_name));
        IF FOUND AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = there.relid
                                    AND t.tgfoid = 'audit_log.continuum_transaction()'::regprocedure) THEN
            RAISE EXCEPTION USING ERRCODE = 'duplicate_table',
                MESSAGE = format('relation %s is there already', there.relid),
                DETAIL = 'Its place is the view''s.',
                HINT = 'Where its entries have been adopted, or are not needed, rename it: ALTER TABLE … RENAME TO transaction_before.';
        END IF;
        IF user_table IS NOT NULL THEN
            SELECT a.atttypid, a.atttypmod INTO type, modifier
              FROM pg_attribute a WHERE a.attrelid = user_table AND ARRAY[a.attname::text] = audit_log._key_columns(user_table);
            IF NOT FOUND THEN
                RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                    MESSAGE = format('table %s has no key of one column', user_table),
                    HINT = 'Name the table of users, whose key the view''s user_id is.';
            END IF;
        END IF;
        -- what is no key of theirs is no user of theirs, and no error
        value := CASE
            WHEN type IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) THEN format(
                'CASE WHEN t.user_id ~ ''^-?[0-9]{1,19}$'' THEN CASE WHEN t.user_id::numeric BETWEEN %s THEN t.user_id::numeric::%s END END',
                CASE type WHEN 'int2'::regtype THEN '-32768 AND 32767' WHEN 'int4'::regtype THEN '-2147483648 AND 2147483647'
                     ELSE '-9223372036854775808 AND 9223372036854775807' END, type::regtype)
            WHEN type = 'uuid'::regtype THEN
                'CASE WHEN t.user_id ~* ''^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'' THEN t.user_id::uuid END'
            WHEN type = 'text'::regtype THEN 't.user_id'
            WHEN type = 'varchar'::regtype THEN format('t.user_id::%s', format_type(type, modifier)) END;
        IF value IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
                MESSAGE = format('the key of table %s is of type %s', user_table, format_type(type, modifier)),
                HINT = 'Types of users'' keys can be smallint, integer, bigint, uuid, text and varchar.';
        END IF;
        EXECUTE format('CREATE OR REPLACE VIEW %I.transaction WITH (security_barrier) AS '
            'SELECT t.id, t.timestamp AT TIME ZONE ''UTC'' AS issued_at, '
            'coalesce(t.context ->> ''remote_addr'', host(t.client_addr))::varchar(50) AS remote_addr, %s AS user_id '
            'FROM audit_log.transaction t', schema_name, value);
        PERFORM audit_log._close_relation(to_regclass(format('%I.transaction', schema_name)));
        EXECUTE format('COMMENT ON VIEW %I.transaction IS %L', schema_name, 'the transactions of audit_log as SQLAlchemy-Continuum reads and writes them');
        EXECUTE format('CREATE OR REPLACE TRIGGER audit_log_transaction INSTEAD OF INSERT ON %I.transaction '
            'FOR EACH ROW EXECUTE FUNCTION audit_log.continuum_transaction()', schema_name);
        IF to_regclass(format('%I.transaction_id_seq', schema_name)) IS NULL THEN
            EXECUTE format('CREATE SEQUENCE %I.transaction_id_seq', schema_name);
            EXECUTE format('COMMENT ON SEQUENCE %I.transaction_id_seq IS %L', schema_name,
                'asked by SQLAlchemy-Continuum for an id, in place of which RETURNING gives the one of audit_log');
            PERFORM audit_log._close_relation(to_regclass(format('%I.transaction_id_seq', schema_name)));
        END IF;
        PERFORM audit_log._continuum_rights(schema_name);
        RAISE NOTICE 'audit_log: view %.transaction and sequence %.transaction_id_seq serve SQLAlchemy-Continuum, users by %',
            quote_ident(schema_name), quote_ident(schema_name), format_type(type, modifier);
    END
    $$;
COMMENT ON FUNCTION audit_log._create_continuum_views(oid, name, regclass) IS 'create_continuum_views(), with the caller''s role';

CREATE FUNCTION audit_log.create_continuum_views(schema_name name, user_table regclass DEFAULT NULL) RETURNS void
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.create_continuum_views(name, regclass) IS
    'makes the view transaction and the sequence transaction_id_seq through which SQLAlchemy-Continuum reads and writes who made changes (superusers and the installing role)';

/* ---------------------------------------------------------------- migrations */

/*
 * Names that mean something to what passes a migration on (a colon to
 * SQLAlchemy, "${" to Flyway, quotes and backslashes to Python, line ends in a
 * comment) are written with Unicode escapes: U&"a\003Ab" is "a:b".
 */
CREATE FUNCTION audit_log._portable_sql(sql text) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        token text;
        quote text;
        content text;
        special text[];
        c text;
        result text := '';
    BEGIN
        -- names and literals, and what is between them
        FOR token IN SELECT t[1] FROM regexp_matches(sql, '"(?:[^"]|"")*"|''(?:[^'']|'''')*''|[^"'']+', 'g') t LOOP
            quote := "left"(token, 1);
            IF quote IN ('"', '''') THEN
                content := replace(substr(token, 2, length(token) - 2), quote || quote, quote);
                special := ARRAY(
                    SELECT DISTINCT x FROM regexp_split_to_table(replace(content, ': ', ' '), '') x
                     WHERE CASE WHEN octet_length(x) = 1 THEN
                                    ascii(x) < 32 OR ascii(x) = 127 OR strpos(':%\', x) > 0 OR (x = '$' AND strpos(content, '${') > 0)
                                -- C1, ends of lines, directions, what cannot be seen
                                WHEN getdatabaseencoding() = 'UTF8' THEN
                                    ascii(x) < 160 OR ascii(x) BETWEEN 8203 AND 8207 OR ascii(x) BETWEEN 8232 AND 8238
                                    OR ascii(x) BETWEEN 8288 AND 8303 OR ascii(x) = 65279
                                ELSE false END);
                IF special <> '{}' OR strpos(substr(token, 2, length(token) - 2), '""') > 0 THEN
                    -- the backslash first
                    FOREACH c IN ARRAY ARRAY['\', '"', ''''] || array_remove(special, '\') LOOP
                        content := replace(content, c, '\' || lpad(to_hex(ascii(c)), 4, '0'));
                    END LOOP;
                    token := 'U&' || quote || content || quote;
                END IF;
            END IF;
            result := result || token;
        END LOOP;
        RETURN result;
    END
    $$;
COMMENT ON FUNCTION audit_log._portable_sql(text) IS 'SQL with what other programs would misread in names and literals as Unicode escapes';

CREATE FUNCTION audit_log._python_text(content text) RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT CASE WHEN strpos($1, '\') > 0 THEN 'r' ELSE '' END || '"""' || $1 || '"""' $$;
COMMENT ON FUNCTION audit_log._python_text(text) IS 'a text as Python''s source has it, given that no three quotes are in it';

CREATE FUNCTION audit_log._version_table_migration(caller oid, target regclass, format text) RETURNS text
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        settings jsonb;
        tracked boolean;
        key text[] := audit_log._key_columns(target);
        names record;
        arguments text := '';
        argument record;
        shown text;
        versions text;
        up text[];
        down text[];
        about text;
        after text;
        losing text := E'Versions are not kept any more, and those there are go with their table, which takes\n'
            'the owner of its schema. Without DROP TABLE they stay; what is logged stays in any case.';
        revision text := "left"(md5(gen_random_uuid()::text), 12);
    BEGIN
        IF target IS NULL OR format IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'table_name and format must not be NULL';
        END IF;
        IF format NOT IN ('sql', 'flyway', 'alembic', 'django', 'undo') THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = format('invalid format %L', format),
                HINT = 'Formats are sql, flyway, alembic and django; undo gives the statements alone that take sql or flyway back.';
        END IF;
        PERFORM audit_log._check_trackable(target);
        PERFORM audit_log._check_owner(caller, target);

        -- as enable() would find them
        settings := audit_log._trigger_settings(target, 'audit_log_row');
        tracked := settings IS NOT NULL;
        settings := coalesce(settings,
            audit_log._trigger_settings(target, (SELECT min(t.tgname::text COLLATE "C") FROM pg_trigger t
                WHERE t.tgrelid = target AND t.tgfoid = 'audit_log.capture()'::regprocedure)),
            (SELECT t.settings - 'versioned' FROM audit_log.tracked_table t WHERE t.id = audit_log._table_id(target)), '{}');
        SELECT n.nspname AS schema, c.relname AS name, coalesce(settings ->> 'version_table', c.relname || '_version') AS versions
          INTO names FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = target;
        IF settings ? 'versioned' THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('table %s is versioned already', target),
                DETAIL = format('Its versions are in %I.%I.', names.schema, names.versions),
                HINT = 'Make the migration where the table is not versioned yet, or after audit_log.enable() with versioned => false has been run and the version table dropped.';
        END IF;
        settings := settings || jsonb_build_object('versioned', true, 'version_table', names.versions);
        PERFORM audit_log._check_settings(target, settings);
        PERFORM audit_log._check_versioned(target, settings);
        IF to_regclass(format('%I.%I', names.schema, names.versions)) IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'duplicate_table',
                MESSAGE = format('relation %I.%I is there already', names.schema, names.versions),
                DETAIL = 'The migration would make the version table under that name.',
                HINT = format('Where it holds versions of %s, audit_log.enable() with versioned => true takes it over. For another name: audit_log.enable(%L, version_table => …).',
                    target, target::text);
        END IF;

        FOR argument IN
            SELECT s.name, CASE
                       WHEN s.name = 'version_columns' THEN
                           (SELECT format('pg_catalog.jsonb_build_object(%s)', string_agg(
                                       format('''%s'', ''%s''', e.key, replace(e.value, '''', '''''')), ', ' ORDER BY e.key))
                              FROM jsonb_each_text(settings -> s.name) e)
                       WHEN jsonb_typeof(settings -> s.name) = 'boolean' THEN settings ->> s.name
                       ELSE format('''%s''', replace(CASE jsonb_typeof(settings -> s.name)
                           WHEN 'array' THEN ARRAY(SELECT jsonb_array_elements_text(settings -> s.name))::text
                           ELSE settings ->> s.name END, '''', '''''')) END AS value
              FROM unnest(ARRAY['exclude', 'include', 'mask', 'on_truncate', 'user_column', 'require', 'always',
                                'versioned', 'version_table', 'version_columns']) WITH ORDINALITY s (name, n)
             WHERE settings ? s.name AND NOT (s.name = 'version_table' AND names.versions = names.name || '_version')
             ORDER BY s.n
        LOOP
            arguments := arguments || format(', %s => %s', argument.name, argument.value);
        END LOOP;

        shown := audit_log._portable_sql(format('%I.%I', names.schema, names.name));
        versions := audit_log._portable_sql(format('%I.%I', names.schema, names.versions));
        up := ARRAY(SELECT audit_log._portable_sql(s.statement) FROM (
            SELECT 1 AS n, format(E'CREATE TABLE %I.%I (\n%s\n)', names.schema, names.versions, string_agg('    ' || c.definition, E',\n' ORDER BY c.n)) AS statement
              FROM (SELECT row_number() OVER () AS n, format('%I %s%s', v.column_name, v.definition,
                               CASE WHEN v.column_name = ANY (key::name[]) THEN ' NOT NULL' ELSE '' END) AS definition
                      FROM audit_log._version_sources(target, settings) v
                    UNION ALL
                    SELECT 10000 + o.n, format('%I %s', audit_log._version_column(settings, o.name), o.type)
                      FROM (VALUES (1, 'transaction_id', 'bigint NOT NULL'), (2, 'end_transaction_id', 'bigint'),
                                   (3, 'operation_type', 'smallint NOT NULL'), (4, 'valid_from', 'timestamp with time zone NOT NULL'),
                                   (5, 'valid_to', 'timestamp with time zone')) o (n, name, type)
                    UNION ALL
                    SELECT 20000, format('PRIMARY KEY (%s, %I)', (SELECT string_agg(quote_ident(k), ', ' ORDER BY n) FROM unnest(key) WITH ORDINALITY u (k, n)),
                               audit_log._version_column(settings, 'transaction_id'))) c
            UNION ALL
            SELECT 1 + i.n, format('CREATE INDEX %I ON %I.%I USING %s (%I)', audit_log._version_index_name(names.versions, audit_log._version_column(settings, i.name)),
                       names.schema, names.versions, audit_log._version_index_method(i.name), audit_log._version_column(settings, i.name))
              FROM unnest(ARRAY['transaction_id', 'end_transaction_id', 'operation_type']) WITH ORDINALITY i (name, n)
            UNION ALL
            SELECT 10, format('SELECT audit_log.enable(''%s''%s)', replace(format('%I.%I', names.schema, names.name), '''', ''''''), arguments)) s
            ORDER BY s.n);
        down := ARRAY[
            audit_log._portable_sql(format('SELECT audit_log.%s(''%s''%s)', CASE WHEN tracked THEN 'enable' ELSE 'disable' END,
                replace(format('%I.%I', names.schema, names.name), '''', ''''''), CASE WHEN tracked THEN ', versioned => false' ELSE '' END)),
            format('DROP TABLE %s', versions)];

        about := format(E'Versions of %s, kept by audit_log in %s: one row for each version of\n'
            'a record, the present one open; operation_type 0 is inserted, 1 updated, 2 deleted.', shown, versions);
        after := format(E'Each row present gets its initial version, %1$s the triggers that log its changes\n'
            'and keep its versions; their table passes to the owner of the log, so that nobody else writes it.\n'
            'Until the transaction ends, others can read %1$s, but not write it.', shown);
        RETURN CASE format
            WHEN 'alembic' THEN array_to_string(ARRAY[
                audit_log._python_text(about || E'\n\nRevision ID: ' || revision || E'\nRevises:\n'),
                'from alembic import op', '',
                format('revision = "%s"', revision), 'down_revision = None', 'branch_labels = None', 'depends_on = None', '', '',
                'def upgrade():',
                (SELECT string_agg(CASE WHEN u.n = cardinality(up) THEN regexp_replace(after, '^', '    # ', 'gn') || E'\n' ELSE '' END
                            || '    op.execute(' || audit_log._python_text(E'\n' || regexp_replace(u.statement, '^', '        ', 'gn') || E'\n    ') || ')',
                            E'\n' ORDER BY u.n) FROM unnest(up) WITH ORDINALITY u (statement, n)),
                '', '',
                'def downgrade():',
                regexp_replace(losing, '^', '    # ', 'gn'),
                (SELECT string_agg('    op.execute(' || audit_log._python_text(E'\n        ' || d.statement || E'\n    ') || ')',
                            E'\n' ORDER BY d.n) FROM unnest(down) WITH ORDINALITY d (statement, n)), ''], E'\n')
            WHEN 'django' THEN array_to_string(ARRAY[
                regexp_replace(about, '^', '# ', 'gn'), 'from django.db import migrations', '', '',
                'class Migration(migrations.Migration):', '',
                '    dependencies = []', '',
                '    operations = [',
                '        migrations.RunSQL(',
                '            sql=[',
                (SELECT string_agg(CASE WHEN u.n = cardinality(up) THEN regexp_replace(after, '^', '                # ', 'gn') || E'\n' ELSE '' END
                            || '                ' || audit_log._python_text(E'\n' || regexp_replace(u.statement, '^', '                    ', 'gn') || E'\n                ') || ',',
                            E'\n' ORDER BY u.n) FROM unnest(up) WITH ORDINALITY u (statement, n)),
                '            ],',
                regexp_replace(losing, '^', '            # ', 'gn'),
                '            reverse_sql=[',
                (SELECT string_agg('                ' || audit_log._python_text(E'\n                    ' || d.statement || E'\n                ') || ',',
                            E'\n' ORDER BY d.n) FROM unnest(down) WITH ORDINALITY d (statement, n)),
                '            ],',
                '        ),', '    ]', ''], E'\n')
            WHEN 'undo' THEN array_to_string(ARRAY[
                format('-- Takes back: versions of %s, kept by audit_log in %s', shown, versions),
                regexp_replace(losing, '^', '-- ', 'gn'), array_to_string(down, E';\n') || ';', ''], E'\n')
            ELSE array_to_string(ARRAY[
                regexp_replace(about, '^', '-- ', 'gn'), '',
                array_to_string(up[:cardinality(up) - 1], E';\n') || ';', '',
                regexp_replace(after, '^', '-- ', 'gn'), up[cardinality(up)] || ';', '',
                '-- To undo it:',
                regexp_replace(losing, '^', '-- ', 'gn'),
                '--   ' || array_to_string(down, E';\n--   ') || ';', ''], E'\n') END;
    END
    $$;
COMMENT ON FUNCTION audit_log._version_table_migration(oid, regclass, text) IS 'version_table_migration(), with the caller''s role';

CREATE FUNCTION audit_log.version_table_migration(table_name regclass, format text DEFAULT 'sql') RETURNS text
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.version_table_migration(regclass, text) IS
    'the text of a migration that makes a table''s version table and has its versions kept, with its undo: for Flyway, Alembic, Django or plain SQL; changes nothing itself';

/* ------------------------------------------------------------------- rights */

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
            'FUNCTION audit_log.version_table_migration(regclass, text)'])
    $$;

SELECT audit_log._make_event_trigger(e) FROM pg_catalog.unnest(ARRAY['audit_log_domain', 'audit_log_rights', 'audit_log_rights_lock']) e;
COMMENT ON EVENT TRIGGER audit_log_domain IS 'audit_log keeps constraints of domains from versions';
COMMENT ON EVENT TRIGGER audit_log_rights IS 'audit_log keeps the rights on version tables up with those on their tables';
COMMENT ON EVENT TRIGGER audit_log_rights_lock IS 'audit_log lets commands wait for each other that would write the same rights at the same time';

/*
 * What the script has made belongs to the owner of the rest, whichever
 * superuser runs it, and is closed; then opened for whom it is meant.
 */
DO $$
DECLARE
    object record;
    owner oid := (SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = 'audit_log.change'::pg_catalog.regclass);
    installer name := (SELECT pg_catalog.pg_get_userbyid(e.extowner) FROM pg_catalog.pg_extension e
                        WHERE e.extname = 'audit_log');
    grant_command text;
    made text[] := ARRAY['enable', '_enable', 'enable_schema', '_enable_schema', '_sync_versions', '_refresh_versions',
        '_convert_versions', '_pass_id', '_former_key', '_is_key_awaited', '_version_column', '_base_type', '_derived_domains', '_leave_domain', '_version_type', '_version_sources', '_version_relation', '_has_version_shape', '_naming_tables', '_is_version_table', '_may_claim_versions', '_knows_versions', '_versioned_table',
        '_version_index_name', '_version_index_method', '_version_rights', '_follow_rights', '_rights_to_lock', '_loose_key_column', '_check_versioned', '_may_be_versioned', '_complete_version_table',
        '_rename_version_table', '_rename_version_column', '_rename_own_columns', '_adopt_transactions', '_adopt_version_table', '_make_version_table',
        '_latest_columns', '_refuse_unversionable', '_follow_versions', '_catch_up_versions', '_heirs', '_sync_dropped', 'on_rights', '_check_versions',
        '_repair_versions', 'continuum_transaction', '_continuum_rights', '_create_continuum_views', 'create_continuum_views',
        '_portable_sql', '_python_text', '_version_table_migration', 'version_table_migration'];
BEGIN
    FOR object IN
        SELECT p.oid::pg_catalog.regprocedure AS name, p.proowner <> owner AS foreign_owner
          FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'audit_log'::pg_catalog.regnamespace AND p.proname = ANY (made)
    LOOP
        IF object.foreign_owner THEN
            EXECUTE pg_catalog.format('ALTER FUNCTION %s OWNER TO %I', object.name, pg_catalog.pg_get_userbyid(owner));
        END IF;
    END LOOP;
    FOR object IN
        SELECT DISTINCT p.oid::pg_catalog.regprocedure AS name, a.grantee
          FROM pg_catalog.pg_proc p,
               LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
         WHERE p.pronamespace = 'audit_log'::pg_catalog.regnamespace AND p.proname = ANY (made) AND a.grantee <> p.proowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM %s CASCADE', object.name,
            CASE WHEN object.grantee = 0 THEN 'PUBLIC'
                 ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(object.grantee)) END);
    END LOOP;
    FOR object IN SELECT v.evtname AS name FROM pg_catalog.pg_event_trigger v
                   WHERE v.evtname IN ('audit_log_domain', 'audit_log_rights', 'audit_log_rights_lock') AND v.evtowner <> owner LOOP
        EXECUTE pg_catalog.format('ALTER EVENT TRIGGER %I OWNER TO %I', object.name, pg_catalog.pg_get_userbyid(owner));
    END LOOP;

    -- whom 1.0's script and users let call them; whoever may pause, as grant_admin() grants it, may make migrations
    FOR object IN
        SELECT p.oid::pg_catalog.regprocedure AS name, a.grantee, a.is_grantable,
               EXISTS (SELECT FROM pg_catalog.aclexplode(nullif(pg_catalog.current_setting('audit_log_update.own.' || g.before, true), '')::pg_catalog.aclitem[]) o
                        WHERE o.grantee = a.grantee AND o.is_grantable = a.is_grantable) AS own
          FROM (VALUES ('enable', 'enable'), ('enable_schema', 'enable_schema'), ('pause', 'version_table_migration')) g (before, now)
          JOIN pg_catalog.pg_proc p ON p.pronamespace = 'audit_log'::pg_catalog.regnamespace AND p.proname = g.now,
               LATERAL pg_catalog.aclexplode(nullif(pg_catalog.current_setting('audit_log_update.' || g.before), '')::pg_catalog.aclitem[]) a
         WHERE a.grantee <> owner
    LOOP
        grant_command := pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %s%s', object.name,
            CASE WHEN object.grantee = 0 THEN 'PUBLIC'
                 ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(object.grantee)) END,
            CASE WHEN object.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
        IF object.own THEN
            EXECUTE grant_command;
        ELSE
            PERFORM audit_log._grant_apart(grant_command);
        END IF;
    END LOOP;
    EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION audit_log.create_continuum_views(name, regclass) TO %I', installer);
END
$$;
DROP FUNCTION audit_log._grant_apart(text);
