-- The subdivisions of ISO 3166-2 as Debian's package iso-codes has them, and what its translators
-- call them. For a superuser of a server that can read /usr/share: psql -f load.sql
CREATE TABLE subdivision (
    code text PRIMARY KEY,
    name text NOT NULL,
    attributes jsonb NOT NULL
);
CREATE INDEX ON subdivision (split_part(code, '-', 1));

INSERT INTO subdivision
SELECT s ->> 'code', s ->> 'name', s - 'code' - 'name'
  FROM jsonb_array_elements(pg_read_file('/usr/share/iso-codes/json/iso_3166-2.json')::jsonb -> '3166-2') s;

-- Translations come in gettext's binary form: pairs of length and place, for texts and translations.
-- Without the files (small Debian images leave them out) there are none.
CREATE TABLE translation (language text, name text, translated text, PRIMARY KEY (language, name));

CREATE FUNCTION number_at(file bytea, place int) RETURNS int IMMUTABLE
    RETURN get_byte(file, place) + (get_byte(file, place + 1) << 8)
         + (get_byte(file, place + 2) << 16) + (get_byte(file, place + 3) << 24);
CREATE FUNCTION text_at(file bytea, place int) RETURNS text IMMUTABLE
    RETURN convert_from(substr(file, number_at(file, place + 4) + 1, number_at(file, place)), 'UTF8');

INSERT INTO translation
SELECT language, name, translated
  FROM unnest(ARRAY['be', 'bg', 'el', 'he', 'ja', 'ka', 'ko', 'ru', 'th', 'uk', 'zh_CN', 'zh_TW']) language,
       pg_read_binary_file('/usr/share/locale/' || language || '/LC_MESSAGES/iso_3166-2.mo', 0, 10000000, true) file,
       generate_series(0, number_at(file, 8) - 1) n,
       text_at(file, number_at(file, 12) + 8 * n) name,
       text_at(file, number_at(file, 16) + 8 * n) translated
 WHERE substr(file, 1, 4) = '\xde120495' AND name <> '';

ANALYZE subdivision, translation;
