-- The trigger that one finds in blogs and wikis: row by row, the difference of two to_jsonb().
CREATE TABLE audit (
    id bigserial PRIMARY KEY,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    txid bigint NOT NULL DEFAULT txid_current(),
    db_user text NOT NULL DEFAULT session_user,
    app_user text,
    action text NOT NULL,
    table_name text NOT NULL,
    record_id text,
    changes jsonb
);
CREATE INDEX ON audit (table_name, record_id);

CREATE FUNCTION audit_row() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed jsonb;
    record_id text;
BEGIN
    IF TG_OP = 'INSERT' THEN
        changed := to_jsonb(NEW);
    ELSIF TG_OP = 'DELETE' THEN
        changed := to_jsonb(OLD);
    ELSE
        SELECT jsonb_object_agg(n.key, jsonb_build_array(o.value, n.value)) INTO changed
          FROM jsonb_each(to_jsonb(OLD)) o JOIN jsonb_each(to_jsonb(NEW)) n USING (key)
         WHERE o.value IS DISTINCT FROM n.value;
        IF changed IS NULL THEN
            RETURN NULL;
        END IF;
    END IF;
    IF TG_NARGS > 0 THEN
        record_id := to_jsonb(CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END) ->> TG_ARGV[0];
    END IF;
    INSERT INTO audit (app_user, action, table_name, record_id, changes)
    VALUES (current_setting('app.user_id', true), TG_OP, TG_TABLE_NAME, record_id, changed);
    RETURN NULL;
END
$$;
