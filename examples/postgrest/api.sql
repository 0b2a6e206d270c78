-- As PostgREST does it: each request is a transaction as a role of the token, and the token's claims are a setting.
-- The user is the claim "sub" without a word of configuration; another setting or claim is named by
--     ALTER SYSTEM SET audit_log.user_id_source = 'request.jwt.claims, app_metadata, user_id';
--     psql -X -v ON_ERROR_STOP=1 -f api.sql
CREATE SCHEMA api;
CREATE TABLE api.note (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL);
SELECT audit_log.enable('api.note');

CREATE ROLE web_user NOLOGIN;
CREATE ROLE authenticator LOGIN NOINHERIT;
GRANT web_user TO authenticator;
GRANT USAGE ON SCHEMA api TO web_user;
GRANT SELECT, INSERT, UPDATE, DELETE ON api.note TO web_user;
-- the history of a note, for whoever may read the notes
SELECT audit_log.grant_read('web_user');
CREATE VIEW api.note_history WITH (security_barrier) AS
    SELECT l.record_id::integer AS note_id, l.timestamp, l.user_id, l.action_type, l.changes, l.context
      FROM audit_log.audit_logs l WHERE l.table_schema = 'api' AND l.table_name = 'note';
GRANT SELECT ON api.note_history TO web_user;

-- db-pre-request = "api.before": what a request was, for the log
CREATE FUNCTION api.before() RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT set_config('audit_log.context', jsonb_build_object(
        'method', current_setting('request.method', true), 'path', current_setting('request.path', true))::text, true)
$$;
