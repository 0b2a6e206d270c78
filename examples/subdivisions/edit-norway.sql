-- The counties of Norway since 2024: three that were merged in 2020 are divided again.
BEGIN;
SELECT pg_advisory_xact_lock(hashtext('NO'));
SELECT audit_log.set_context('ingrid', '{"reason": "counties divided", "source": "ISO newsletter 2024"}');
DELETE FROM subdivision WHERE code IN ('NO-30', 'NO-38', 'NO-54');
INSERT INTO subdivision VALUES
    ('NO-31', 'Østfold', '{"type": "County"}'), ('NO-32', 'Akershus', '{"type": "County"}'),
    ('NO-33', 'Buskerud', '{"type": "County"}'), ('NO-39', 'Vestfold', '{"type": "County"}'),
    ('NO-40', 'Telemark', '{"type": "County"}'), ('NO-55', 'Troms', '{"type": "County"}'),
    ('NO-56', 'Finnmark', '{"type": "County"}')
    ON CONFLICT (code) DO UPDATE SET name = excluded.name, attributes = subdivision.attributes || excluded.attributes;
COMMIT;
-- A slip, taken back before anybody saw it: nothing of it is in the log.
BEGIN;
SELECT pg_advisory_xact_lock(hashtext('NO'));
SELECT audit_log.set_context('ingrid');
SAVEPOINT before;
DELETE FROM subdivision WHERE code LIKE 'NO-%';
ROLLBACK TO before;
UPDATE subdivision SET name = 'Trøndelag' WHERE code = 'NO-50';
COMMIT;
