-- Four states of India have had other codes since 2023: the key changes, and history follows it.
SET ROLE editor;
BEGIN;
SELECT pg_advisory_xact_lock(hashtext('IN'));
SELECT audit_log.set_context('kavita', '{"reason": "codes as in India''s own use", "source": "ISO newsletter 2023"}');
UPDATE subdivision SET code = 'IN-OD' WHERE code = 'IN-OR';
UPDATE subdivision SET code = 'IN-UK' WHERE code = 'IN-UT';
UPDATE subdivision SET code = 'IN-TS' WHERE code = 'IN-TG';
UPDATE subdivision SET code = 'IN-CG' WHERE code = 'IN-CT';
COMMIT;
BEGIN;
SELECT pg_advisory_xact_lock(hashtext('IN'));
SELECT audit_log.set_context('kavita', '{"reason": "own names"}');
UPDATE subdivision SET attributes = jsonb_set(attributes, '{own_name}', '"ଓଡ଼ିଶା"') WHERE code = 'IN-OD';
UPDATE subdivision SET attributes = jsonb_set(attributes, '{own_name}', '"తెలంగాణ"') WHERE code = 'IN-TS';
COMMIT;
