--
-- Reports as HTML: what they say, whose rights count, values hostile to HTML
-- (t/095_reports looks at them in a browser); edge cases 18, 19, 43, 66, 92, 97, 101
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE ROLE regress_reports_reader;
CREATE ROLE regress_reports_stranger;
CREATE SCHEMA reports;
GRANT USAGE ON SCHEMA reports TO PUBLIC;
SET search_path = reports;
CREATE TABLE element (id int PRIMARY KEY, name text, doc jsonb, nothing text);
CREATE TABLE "<b>&""'" (key text PRIMARY KEY, "<i>" text);
CREATE TABLE keyless (a int, b text);
CREATE TABLE hidden (id int PRIMARY KEY);
SELECT audit_log.enable(t) FROM unnest(ARRAY['element', '"<b>&""''"', 'keyless', 'hidden']::regclass[]) t;
SELECT audit_log.grant_read('regress_reports_reader');
GRANT SELECT ON element, keyless, "<b>&""'" TO regress_reports_reader, regress_reports_stranger;

-- the page without its style, a tag a line, what changes from run to run left out
CREATE FUNCTION plain(page text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT line FROM regexp_replace($1, '<!DOCTYPE.*</head>', '') a,
           regexp_replace(a, '<time[^>]*>[^<]*</time>|<footer[^>]*>.*$|<footer[^>]*>[^<]*</footer>', '', 'gn') b,
           regexp_replace(b, '\d{4}-\d\d-\d\d \d\d:\d\d', '...', 'g') c,
           regexp_replace(c, 'id="change-\d+"|</span> \d+</h1>', 'N', 'g') d,
           regexp_replace(d, '>as [^<]+<', '>as ...<', 'g') e,
           regexp_replace(e, '</(span|bdi|b|dt|dd|i|li|div|ul|p|strong|dl|article|header|section|main|h1|h2|ins|del)>', '', 'g') f,
           regexp_split_to_table(regexp_replace(f, '<(article|li|div|p|h1|section|ul|dl|main)', E'\n<\\1', 'g'), '\s*\n\s*') line
     WHERE line NOT IN ('', '<!DOCTYPE html>', '<html lang="en">', '<body>', '</body>', '</html>')
$$;

BEGIN;
SELECT audit_log.set_context('kim', '{"reason": "survey", "where": {"page": 3}}');
INSERT INTO element VALUES (7, 'Mill', '{"color": "red", "size": {"w": 1, "h": 2}, "old": null}');
COMMIT;
SET audit_log.user_id = 'lee';
UPDATE element SET name = '', doc = '{"color": "blue", "size": {"w": 1, "h": 3}, "new": [1, {"a": "b"}]}';
UPDATE element SET id = 8, doc = 'null';
DELETE FROM element;
RESET audit_log.user_id;
SELECT plain(audit_log.report('element', '8'));
-- by any of its keys, read through the key's type; no more than asked for
SELECT regexp_count(page, '<article'), page ~ '<dt>Asked for</dt><dd><bdi>7<' AS asked FROM audit_log.report('element', '7') page;
SELECT regexp_count(page, '<article'), page ~ '<dt>Asked for</dt><dd><bdi> 008<' AS asked FROM audit_log.report('element', ' 008') page;
SELECT regexp_count(page, '<article'), (regexp_match(page, '<p class="note">([^<]*)'))[1] AS note, (regexp_match(page, 'Changes</dt><dd>(\d+)'))[1] AS changes
  FROM audit_log.report('element', '8', max_rows => 2) page;
SELECT plain(audit_log.report('element', '404'));
SELECT audit_log.report('element', 'none');
-- another record under a key that was given up is another one
INSERT INTO element VALUES (7, 'Kiln');
SELECT regexp_count(page, '<article') AS of_7, page ~ 'Kiln' AS kiln FROM audit_log.report('element', '7') page;
SELECT regexp_count(page, '<article') AS of_8, page ~ 'Kiln' AS kiln FROM audit_log.report('element', '8') page;

-- a masked key, by its value and by its hash; a domain's functions are run as the caller
CREATE TABLE secret (key text PRIMARY KEY);
SELECT audit_log.enable('secret', mask => '{key}');
INSERT INTO secret VALUES ('s');
SELECT regexp_count(audit_log.report('secret', 's'), '<article') AS by_value, regexp_count(audit_log.report('secret', record_id), '<article') AS by_hash
  FROM audit_log.audit_logs WHERE relation = 'secret'::regclass;
CREATE FUNCTION regress_whom(int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'run by the reader: %', current_user = 'regress_reports_reader'; RETURN true; END $$;
CREATE DOMAIN watched AS int CHECK (regress_whom(VALUE));
SET client_min_messages = error;
CREATE TABLE of_domain (id watched PRIMARY KEY);
INSERT INTO of_domain VALUES (1);
SELECT audit_log.enable('of_domain', baseline => true);
SET client_min_messages = warning;
GRANT SELECT ON of_domain TO regress_reports_reader;
SET ROLE regress_reports_reader;
SELECT regexp_count(audit_log.report('of_domain', '01'), '<article') AS changes;
RESET ROLE;
SELECT regexp_count(audit_log.report('keyless', '1'), '<article') AS of_keyless;

-- a transaction, in order; without key, TRUNCATE, what belongs to tables that the reader may not see
BEGIN;
SET LOCAL audit_log.context = '"just a text"';
INSERT INTO hidden VALUES (1);
INSERT INTO keyless VALUES (1, 'a'), (1, 'b');
UPDATE keyless SET b = 'c' WHERE b = 'b';
TRUNCATE keyless;
COMMIT;
SELECT max(id) AS last FROM audit_log.transaction \gset
SELECT plain(audit_log.report_transaction(:last));
SET ROLE regress_reports_reader;
SELECT regexp_count(page, '<article') AS changes, page ~ 'hidden' AS hidden, (regexp_match(page, 'Changes</dt><dd>(\d+)'))[1] AS number FROM audit_log.report_transaction(:last) page;
SELECT audit_log.report('hidden', '1');
RESET ROLE;
SELECT regexp_count(page, '<article'), (regexp_match(page, '<p class="note">([^<]*)'))[1] AS note FROM audit_log.report_transaction(:last, 2) page;

-- hostile: no tag of theirs, wherever it stands
BEGIN;
SELECT audit_log.set_context('<script>1</script>', jsonb_build_object('"><script>', '</style><script>', '</title>', '<!--'));
SET LOCAL application_name = '<script>app';
INSERT INTO "<b>&""'" VALUES ('<script>''"&amp;', E'</bdi>\x01<img src=x onerror=x>'), ('</script>', ']]>');
UPDATE "<b>&""'" SET "<i>" = '<svg/onload=x>', key = '"><b>' WHERE key = '</script>';
UPDATE element SET doc = jsonb_build_object('<script>', '<script>', 'a', jsonb_build_object('</ul><script>', jsonb_build_array('<script>', '{"<p>": "<p>"}'::jsonb)), '$pg', '<script>');
COMMIT;
SELECT what, page ~* '<(script|img|svg|b>&|i>|p>|/bdi>\s*.<img)' AS tag, page ~ '[\x01-\x08]' AS control, regexp_count(page, '<title>') AS titles,
       page ~ 'http-equiv="Content-Security-Policy" content="default-src ''none''' AS policy
  FROM (SELECT 'record' AS what, audit_log.report('"<b>&""''"', '<script>''"&amp;') AS page
        UNION ALL SELECT 'key change', audit_log.report('"<b>&""''"', '</script>')
        UNION ALL SELECT 'json', audit_log.report('element', '7')
        UNION ALL SELECT 'unknown', audit_log.report('"<b>&""''"', '<script>')
        UNION ALL SELECT 'transaction', audit_log.report_transaction((SELECT max(id) FROM audit_log.transaction))) p;
-- nothing that comes from elsewhere
SELECT page ~* '(src|href)=|@import|url\(|<(link|form|base)' AS from_elsewhere FROM audit_log.report('element', '7') page;
-- nested deep, long, wide: cut, and told
UPDATE element SET doc = (repeat('{"a":', 60) || '1' || repeat('}', 60))::jsonb, name = repeat('x', 5000) WHERE id = 7;
SELECT page ~ '\u2026 5000 characters|&hellip; 5000 characters in all' AS told, length(page) < 60000 AS short FROM audit_log.report('element', '7') page;

-- of a long key no tag in the title, where none is read
INSERT INTO "<b>&""'" VALUES (repeat('k', 5000));
SELECT regexp_count(page, '<title>[^<]*</title>') AS titles, regexp_count(page, '<article') AS changes FROM audit_log.report('"<b>&""''"', repeat('k', 5000)) page;

-- whose rights
SET ROLE regress_reports_stranger;
SELECT audit_log.report('element', '7');
SELECT audit_log.report_transaction(:last);
SET ROLE regress_reports_reader;
SELECT audit_log.report('element', '7') ~ 'Kiln' AS kiln;
RESET ROLE;
ALTER TABLE element ENABLE ROW LEVEL SECURITY;
SET ROLE regress_reports_reader;
SELECT audit_log.report('element', '7');
RESET ROLE;
SELECT audit_log.report(NULL, '7');
SELECT audit_log.report('element', NULL);
SELECT audit_log.report('element', '7', 0);
SELECT audit_log.report_transaction(NULL);
CREATE TABLE untracked (id int);
SELECT audit_log.report('untracked', '1');
CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
SELECT audit_log.enable('parted');
INSERT INTO parted VALUES (1);
SELECT regexp_count(audit_log.report('parted', '1'), '<article') AS of_parted;
SELECT audit_log.report('parted_1', '1');

-- a transaction of many tables names the first of them
DO $$ BEGIN
    FOR i IN 1 .. 25 LOOP
        EXECUTE format('CREATE TABLE many_%s (id int PRIMARY KEY)', i);
        PERFORM audit_log.enable(format('many_%s', i)::regclass);
        EXECUTE format('INSERT INTO many_%s VALUES (1)', i);
    END LOOP;
END $$;
SELECT regexp_count(page, '<article') AS changes, (regexp_match(page, '<dt>(\d+ tables)</dt>'))[1] AS tables, regexp_count(page, '>reports.many_\d+</bdi> \(1\)') AS named
  FROM audit_log.report_transaction((SELECT max(id) FROM audit_log.transaction)) page;
DROP SCHEMA reports CASCADE;
SELECT audit_log.revoke_read('regress_reports_reader');
DROP ROLE regress_reports_reader, regress_reports_stranger;
