-- The same log, written once a statement from the transition tables.
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

CREATE FUNCTION audit_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (app_user, action, table_name, record_id, changes)
    SELECT current_setting('app.user_id', true), TG_OP, TG_TABLE_NAME, r.j ->> TG_ARGV[0], r.j
      FROM (SELECT to_jsonb(n) AS j FROM new_rows n) r;
    RETURN NULL;
END
$$;

CREATE FUNCTION audit_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (app_user, action, table_name, record_id, changes)
    SELECT current_setting('app.user_id', true), TG_OP, TG_TABLE_NAME, r.j ->> TG_ARGV[0], r.j
      FROM (SELECT to_jsonb(o) AS j FROM old_rows o) r;
    RETURN NULL;
END
$$;

-- Old and new rows are paired by the key; TG_ARGV[0] names it.
CREATE FUNCTION audit_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (app_user, action, table_name, record_id, changes)
    SELECT current_setting('app.user_id', true), TG_OP, TG_TABLE_NAME, n.j ->> TG_ARGV[0], d.changes
      FROM (SELECT to_jsonb(r) AS j FROM old_rows r) o
      JOIN (SELECT to_jsonb(r) AS j FROM new_rows r) n ON o.j ->> TG_ARGV[0] = n.j ->> TG_ARGV[0],
           LATERAL (SELECT jsonb_object_agg(a.key, jsonb_build_array(a.value, b.value)) AS changes
                      FROM jsonb_each(o.j) a JOIN jsonb_each(n.j) b USING (key)
                     WHERE a.value IS DISTINCT FROM b.value) d
     WHERE d.changes IS NOT NULL;
    RETURN NULL;
END
$$;
