-- The capital has its former name again, and three regions are new, since 2022. (The list at hand may
-- be older or newer than that.)
SET ROLE editor;
BEGIN;
SELECT pg_advisory_xact_lock(hashtext('KZ'));
SELECT audit_log.set_context('aigerim', '{"reason": "Astana, and three new regions"}');
UPDATE subdivision SET name = 'Astana',
       attributes = attributes || '{"type": "Capital city", "own_name": "Астана"}' WHERE code IN ('KZ-AST', 'KZ-71');
INSERT INTO subdivision VALUES
    ('KZ-10', 'Abay oblysy', '{"type": "Region", "own_name": "Абай облысы"}'),
    ('KZ-33', 'Zhetisū oblysy', '{"type": "Region", "own_name": "Жетісу облысы"}'),
    ('KZ-62', 'Ulytaū oblysy', '{"type": "Region", "own_name": "Ұлытау облысы"}')
    ON CONFLICT (code) DO UPDATE SET attributes = subdivision.attributes || excluded.attributes;
COMMIT;
