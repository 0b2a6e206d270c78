-- Tables with 1,600 columns, with none but the key, with none at all; generated
-- columns, the virtual ones too where the server has them.
-- edge cases 20, 59, 60
SET client_min_messages = warning;
CREATE SCHEMA settings_wide;
SET search_path = settings_wide;
DO $$
BEGIN
    EXECUTE (SELECT 'CREATE TABLE wide (id int PRIMARY KEY, ' || string_agg(format('c%s int', g), ', ') || ')'
               FROM generate_series(2, 1600) g);
END
$$;
SELECT audit_log.enable('wide');
INSERT INTO wide (id, c2, c1600) VALUES (1, 2, 3), (2, NULL, NULL);
UPDATE wide SET c800 = 5 WHERE id = 1;
DO $$
BEGIN
    EXECUTE (SELECT 'UPDATE wide SET ' || string_agg(format('c%s = %s', g, g), ', ') || ' WHERE id = 2'
               FROM generate_series(2, 1600) g);
END
$$;
SELECT action_type, record_id, CASE WHEN length(changes::text) < 100 THEN changes END AS changes,
       (SELECT count(*) FROM jsonb_object_keys(changes)) AS columns
  FROM audit_log.audit_logs WHERE relation = 'wide'::regclass ORDER BY id;
SELECT count(*) FROM audit_log.rebuild(NULL::wide) r JOIN wide w ON record_image_eq(r, w);

CREATE TABLE key_only (id int PRIMARY KEY);
CREATE TABLE nothing ();
SELECT audit_log.enable('key_only'), audit_log.enable('nothing');
INSERT INTO key_only VALUES (1);
UPDATE key_only SET id = 1;
UPDATE key_only SET id = 2;
INSERT INTO nothing DEFAULT VALUES;
DELETE FROM nothing;
SELECT table_name, action_type, record_id, old_record_id, changes FROM audit_log.audit_logs
 WHERE relation IN ('key_only'::regclass, 'nothing'::regclass) ORDER BY id;

CREATE TABLE generated (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, stored int GENERATED ALWAYS AS (a * 2) STORED);
DO $$
BEGIN
    IF current_setting('server_version_num')::int >= 180000 THEN
        EXECUTE 'ALTER TABLE generated ADD virtual int GENERATED ALWAYS AS (a * 3) VIRTUAL';
    END IF;
END
$$;
SELECT audit_log.enable('generated');
INSERT INTO generated (a) VALUES (1);
UPDATE generated SET a = 2;
SELECT action_type, changes FROM audit_log.audit_logs WHERE relation = 'generated'::regclass ORDER BY id;
DROP SCHEMA settings_wide CASCADE;
