--
-- The extension looked at through the catalogs: nothing open that is not meant
-- to be, nothing without its comment, nothing that depends on search_path
-- edge cases 80, 84, 92, 99
--
-- who may call what: of all functions these, PUBLIC
SELECT p.oid::regprocedure AS executable_by_public
  FROM pg_proc p, LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
 WHERE p.pronamespace = 'audit_log'::regnamespace AND a.grantee = 0 ORDER BY p.oid::regprocedure::text COLLATE "C";
-- no grant on anything else but to the owner (who, here, is the installing role)
SELECT c.oid::regclass, a.privilege_type, a.grantee
  FROM pg_class c, LATERAL aclexplode(c.relacl) a
 WHERE c.relnamespace = 'audit_log'::regnamespace AND a.grantee <> c.relowner;
SELECT c.oid::regclass, t.attname FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid
 WHERE c.relnamespace = 'audit_log'::regnamespace AND t.attacl IS NOT NULL;
SELECT p.oid::regprocedure, a.grantee
  FROM pg_proc p, LATERAL aclexplode(p.proacl) a
 WHERE p.pronamespace = 'audit_log'::regnamespace AND a.grantee NOT IN (0, p.proowner);
SELECT a.privilege_type, a.grantee = 0 AS public, a.is_grantable FROM pg_namespace n, LATERAL aclexplode(n.nspacl) a
 WHERE n.nspname = 'audit_log' AND a.grantee <> n.nspowner;
-- everything belongs to one superuser, the schema too
SELECT count(DISTINCT o) AS owners, bool_and(r.rolsuper) AS superuser
  FROM (SELECT nspowner FROM pg_namespace WHERE nspname = 'audit_log'
        UNION ALL SELECT relowner FROM pg_class WHERE relnamespace = 'audit_log'::regnamespace
        UNION ALL SELECT proowner FROM pg_proc WHERE pronamespace = 'audit_log'::regnamespace
        UNION ALL SELECT typowner FROM pg_type WHERE typnamespace = 'audit_log'::regnamespace
        UNION ALL SELECT evtowner FROM pg_event_trigger WHERE evtname LIKE 'audit\_log%') x (o)
  JOIN pg_roles r ON r.oid = o;

-- no SECURITY DEFINER: the passage to the owner's rights looks at its caller
SELECT p.oid::regprocedure AS security_definer FROM pg_proc p
 WHERE p.pronamespace = 'audit_log'::regnamespace AND p.prosecdef;
-- what is not C fixes its search_path; audit_log is not in it, and nothing of the user's
SELECT p.oid::regprocedure, p.proconfig FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
 WHERE p.pronamespace = 'audit_log'::regnamespace
   AND ((l.lanname <> 'c' AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false))
        OR l.lanname NOT IN ('c', 'sql', 'plpgsql'));
-- for each function that goes on as the owner there is the one that it calls
SELECT p.oid::regprocedure AS without_inner FROM pg_proc p
 WHERE p.pronamespace = 'audit_log'::regnamespace AND p.prosrc = 'audit_log_as_owner'
   AND NOT EXISTS (SELECT FROM pg_proc i WHERE i.pronamespace = p.pronamespace AND i.proname = '_' || p.proname
                    AND array_to_string(i.proargtypes::oid[], ' ') = array_to_string('oid'::regtype::oid || p.proargtypes::oid[], ' '));
-- and of no name two, so that the inner call finds one
SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'audit_log'::regnamespace
   AND EXISTS (SELECT FROM pg_proc o WHERE o.pronamespace = p.pronamespace
                AND o.prosrc = 'audit_log_as_owner' AND '_' || o.proname = p.proname)
 GROUP BY p.proname HAVING count(*) > 1;
-- polymorphic and reserved names: arguments can be named in calls
SELECT p.oid::regprocedure, n.name FROM pg_proc p, LATERAL unnest(p.proargnames) n (name)
  JOIN pg_get_keywords() k ON k.word = n.name AND k.catcode IN ('R', 'T')
 WHERE p.pronamespace = 'audit_log'::regnamespace AND p.proname !~ '^_';
-- views are barriers
SELECT c.oid::regclass AS no_barrier FROM pg_class c
 WHERE c.relnamespace = 'audit_log'::regnamespace AND c.relkind = 'v'
   AND NOT coalesce('security_barrier=true' = ANY (c.reloptions) OR 'security_barrier=on' = ANY (c.reloptions), false);
-- no column of a reg* type in a table, which pg_upgrade and dumps would stumble over
SELECT c.oid::regclass, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
 WHERE c.relnamespace = 'audit_log'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0
   AND format_type(a.atttypid, NULL) ~ '^reg|^oid';

-- each member has a comment, each column of a table too
SELECT pg_describe_object(d.classid, d.objid, 0) AS without_comment
  FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
 WHERE e.extname = 'audit_log' AND d.deptype = 'e'
   AND d.classid NOT IN ('pg_cast'::regclass)
   AND obj_description(d.objid, d.classid::regclass::name) IS NULL
   -- a table's row type and array types come with it
   AND NOT (d.classid = 'pg_type'::regclass AND EXISTS (SELECT FROM pg_type t WHERE t.oid = d.objid AND (t.typrelid <> 0 OR t.typcategory = 'A')))
 ORDER BY pg_describe_object(d.classid, d.objid, 0) COLLATE "C";
SELECT c.oid::regclass AS relation, a.attname AS without_comment
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
  JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
  JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'audit_log'
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
   AND col_description(c.oid, a.attnum) IS NULL ORDER BY 1, a.attnum;
-- what the functions of the public promise the planner
SELECT p.oid::regprocedure, p.provolatile, p.proparallel, p.proisstrict, p.proleakproof FROM pg_proc p
 WHERE p.pronamespace = 'audit_log'::regnamespace AND (p.proleakproof OR p.provolatile = 'i' AND p.proparallel <> 's') AND p.proname !~ '^_';

-- what is dumped with its data, and what is not
SELECT c.oid::regclass AS dumped, x.condition
  FROM pg_extension e, LATERAL unnest(e.extconfig, e.extcondition) x (relid, condition)
  JOIN pg_class c ON c.oid = x.relid WHERE e.extname = 'audit_log' ORDER BY c.relname COLLATE "C";
SELECT c.oid::regclass AS not_dumped
  FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
  JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'audit_log'
 WHERE c.relkind IN ('r', 'S') AND NOT c.oid = ANY (e.extconfig) ORDER BY 1;

-- the members, as \dx+ lists them
SELECT pg_describe_object(d.classid, d.objid, 0) AS member
  FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
 WHERE e.extname = 'audit_log' AND d.deptype = 'e'
   -- (from PostgreSQL 17 on these are members themselves)
   AND NOT (d.classid = 'pg_type'::regclass AND EXISTS (SELECT FROM pg_type t WHERE t.oid = d.objid AND (t.typrelid <> 0 OR t.typcategory = 'A')))
 ORDER BY pg_describe_object(d.classid, d.objid, 0) COLLATE "C";
