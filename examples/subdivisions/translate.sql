-- One translator at work, country by country: psql -v language=ja -f translate.sql
-- Others work on the same rows at the same time. A key may change under their hands, so that no order
-- of row locks keeps them from deadlocks: whoever edits a country locks its name.
SELECT set_config('demo.language', :'language', false);
DO $$
DECLARE
    lang text := current_setting('demo.language');
    country text;
BEGIN
    FOR country IN SELECT DISTINCT split_part(s.code, '-', 1) c
                     FROM subdivision s JOIN translation t ON t.language = lang AND t.name = s.name
                    ORDER BY c LOOP
        PERFORM audit_log.set_context('translator ' || lang,
                                      jsonb_build_object('source', 'iso-codes', 'country', country));
        PERFORM pg_advisory_xact_lock(hashtext(country));
        UPDATE subdivision s
           SET attributes = jsonb_set(attributes, '{names}', coalesce(attributes -> 'names', '{}')
                                                             || jsonb_build_object(lang, t.translated))
          FROM translation t
         WHERE split_part(s.code, '-', 1) = country AND t.language = lang AND t.name = s.name;
        COMMIT;
    END LOOP;
END
$$;
