-- Types of extensions and users, collations under which different texts are
-- equal, and a role's name of 63 bytes: what changed is told by the image.
-- edge cases 41, 42, 48, 49, 50, 51, 58, 65
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE SCHEMA foreign_types;
CREATE EXTENSION hstore SCHEMA foreign_types;
CREATE EXTENSION citext SCHEMA foreign_types;
SET search_path = foreign_types, public;
CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE DOMAIN email AS citext CHECK (VALUE ~ '@');
-- a cast to json that a user defined is never asked
CREATE FUNCTION hstore_lies(hstore) RETURNS json LANGUAGE sql IMMUTABLE AS $$ SELECT '{"lies": true}'::json $$;
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_cast WHERE castsource = 'foreign_types.hstore'::regtype AND casttarget = 'json'::regtype) THEN
        CREATE CAST (hstore AS json) WITH FUNCTION hstore_lies(hstore);
    END IF;
END
$$;
CREATE TABLE things (
    id citext PRIMARY KEY,
    h hstore, hs hstore[], mail email, name text COLLATE nocase,
    amount numeric, place point, area polygon, note xml, doc json, tags int[], big text);
ALTER TABLE things ALTER big SET STORAGE EXTERNAL;
SELECT audit_log.enable('things');
INSERT INTO things VALUES ('Key', 'a=>1, "b c"=>NULL', ARRAY['x=>y'::hstore, NULL], 'A@b', 'name', 1.0, '(1,-0)',
    '((0,0),(1,0),(1,1))', '<a>1</a>', '{"a":1}', '{1,2,3}', repeat('toast', 2000));
-- equal for the type, another image: logged
UPDATE things SET mail = 'a@B';
UPDATE things SET name = 'NAME';
UPDATE things SET amount = 1.00;
UPDATE things SET id = 'KEY';
UPDATE things SET doc = '{"a": 1}';
UPDATE things SET place = '(1,0)';
-- the same set again: not contained, not equal
UPDATE things SET tags = '{3,2,1}';
-- nothing changes: no trace, though every column is written
UPDATE things SET h = h || '', mail = mail, name = name, amount = 1.00, tags = tags || '{}', area = area, note = note, big = big || '';
-- toasted and left alone, then changed in one character
UPDATE things SET note = '<a>2</a>';
UPDATE things SET big = overlay(big PLACING 'T' FROM 5000 FOR 1);
-- an hstore within an hstore's text
UPDATE things SET h = hstore('inner', h::text);
SELECT action_type, record_id, old_record_id, CASE WHEN changes ? 'big' THEN changes - 'big' ELSE changes END AS changes,
       CASE WHEN jsonb_typeof(changes -> 'big') = 'array' THEN length(changes -> 'big' ->> 1) END AS big
  FROM audit_log.audit_logs WHERE relation = 'things'::regclass ORDER BY id;
SELECT count(*) FROM audit_log.rebuild(NULL::things) r JOIN things t ON record_image_eq(r, t);

-- a cast without function makes json of any text: such is kept as the text that it is
BEGIN;
CREATE CAST (text AS json) WITHOUT FUNCTION;
UPDATE things SET doc = (repeat('}', 1000000) || '"a": 1')::text::json;
UPDATE things SET doc = '"a": 1'::text::json;
UPDATE things SET doc = ']'::text::json;
SELECT left(changes -> 'doc' -> 1 ->> '$pg', 10) AS doc, length(changes -> 'doc' -> 1 ->> '$pg') AS len
  FROM audit_log.audit_logs WHERE relation = 'things'::regclass ORDER BY id DESC LIMIT 3;
ROLLBACK;

SELECT 'regress_' || repeat('r', 55) AS long_role \gset
CREATE ROLE :"long_role";
GRANT USAGE ON SCHEMA foreign_types TO :"long_role";
GRANT SELECT, UPDATE ON things TO :"long_role";
SET ROLE :"long_role";
UPDATE things SET tags = NULL;
RESET ROLE;
SELECT db_role = :'long_role' AS whole_name FROM audit_log.table_changes('things', 1);

DROP SCHEMA foreign_types CASCADE;
DROP ROLE :"long_role";
