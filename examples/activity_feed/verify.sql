-- Is the activity feed what it should be? One line a check: ok, or what is wrong.
--     psql -X -f verify.sql
\pset format unaligned
\pset tuples_only on
SELECT audit_log._activity_table() IS NOT NULL AS there, audit_log._activity_table() AS feed \gset
\if :there
\else
\echo 'there is no activity table: run audit_log.create_activity_table()'
\quit
\endif

-- columns: name, type, NOT NULL, default
SELECT format('column %s: %s', w.name, CASE
           WHEN a.attname IS NULL THEN 'MISSING'
           WHEN NOT format_type(a.atttypid, a.atttypmod) ~ ('^(' || w.type || ')$') THEN 'of type ' || format_type(a.atttypid, a.atttypmod)
           WHEN a.attnotnull <> w.required THEN CASE WHEN w.required THEN 'may be NULL' ELSE 'must not be NULL' END
           WHEN w.filled AND NOT a.atthasdef AND a.attidentity = '' THEN 'without default'
           ELSE 'ok' END)
  FROM (VALUES (1, 'id', 'integer|bigint', true, true), (2, 'timestamp', 'timestamp with time zone', true, true),
               (3, 'user_id', 'smallint|integer|bigint|uuid|text|character varying.*', false, false),
               (4, 'activity_type', 'character varying\(\d+\)|text', true, false), (5, 'description', 'text', true, false),
               (6, 'entity_id', 'smallint|integer|bigint|uuid|text|character varying.*', false, false)) w (n, name, type, required, filled)
  LEFT JOIN pg_attribute a ON a.attrelid = :'feed'::regclass AND a.attname = w.name AND NOT a.attisdropped
 ORDER BY w.n;

-- an index that begins with each of the columns that are asked for
SELECT format('index on %s: %s', w.name, coalesce((SELECT 'ok (' || string_agg(i.indexrelid::regclass::text, ', ' ORDER BY i.indexrelid::regclass::text COLLATE "C") || ')'
           FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
          WHERE i.indrelid = :'feed'::regclass AND a.attname = w.name AND i.indisvalid AND i.indpred IS NULL), 'MISSING'))
  FROM (VALUES (1, 'id'), (2, 'timestamp'), (3, 'user_id'), (4, 'activity_type'), (5, 'entity_id')) w (n, name)
 ORDER BY w.n;

-- the foreign key, and what deleting a user does
SELECT coalesce((SELECT format('foreign key of user_id: %s', CASE WHEN k.confdeltype <> 'n' THEN 'not ON DELETE SET NULL'
                            WHEN NOT k.convalidated THEN 'not validated' ELSE 'ok (' || k.confrelid::regclass || ')' END)
                   FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = k.conrelid AND k.conkey = ARRAY[a.attnum]
                  WHERE k.conrelid = :'feed'::regclass AND k.contype = 'f' AND a.attname = 'user_id'), 'foreign key of user_id: MISSING');

-- orphans: entries of users that are not there (a foreign key that is not valid, or was switched off, lets them in)
SELECT format($$SELECT format('entries of users that are gone: %%s', CASE count(*) WHEN 0 THEN 'ok (none)' ELSE count(*) || ', the first is ' || min(f.id) END)
                 FROM %s f WHERE f.user_id IS NOT NULL AND NOT EXISTS (SELECT FROM %s u WHERE u.%I = f.user_id)$$,
           :'feed', k.confrelid::regclass, (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = k.confrelid AND a.attnum = k.confkey[1]))
  FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = k.conrelid AND k.conkey = ARRAY[a.attnum]
 WHERE k.conrelid = :'feed'::regclass AND k.contype = 'f' AND a.attname = 'user_id' \gexec

-- the functions, in the table's types
SELECT format('%s: %s', w.name, coalesce((SELECT 'ok (' || pg_get_function_result(p.oid) || ')' FROM pg_proc p
          WHERE p.pronamespace = 'audit_log'::regnamespace AND p.proname = w.name), 'MISSING'))
  FROM (VALUES (1, 'log_activity'), (2, 'get_recent_activities')) w (n, name) ORDER BY w.n;

-- and what there is: entries, users, types
SELECT format($$SELECT format('%%s entries, %%s with a user, %%s types', count(*), count(user_id), count(DISTINCT activity_type)) FROM %s$$, :'feed') \gexec
