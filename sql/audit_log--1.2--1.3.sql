/* audit_log 1.3: activity feed, outbox, reports, and the frameworks people already use */

\echo Use "ALTER EXTENSION audit_log UPDATE" to load this file. \quit

/*
 * Sessions look the version up again when this table's catalog row changes: an
 * older library refuses changes from here on (HINT: connect again).
 */
REVOKE ALL ON audit_log.tracked_table FROM PUBLIC;

/* ------------------------------------------------------------------- outbox */

/*
 * The order in which changes are given out: transaction after transaction,
 * by the id of each one's last change; within one by (command, id).
 *
 * It follows every record, and every parent before its child: a transaction
 * that changes what another one changed has waited for its commit, so its
 * change got a higher id than all of the other's.  Ids of transactions do not
 * rise so, and an xid horizon inverts a record: whoever began first may well
 * come second.
 *
 * Nothing later may come behind the cursor, and no long transaction is waited
 * for.  So the log is given out in batches: what the snapshot "batch" sees and
 * "done", that of the batch before, did not, both kept in the cursor.  The
 * order above is that of a batch, and the cursor's position is a place in it.
 *
 * Where a batch is large its transactions are sought range by range of the
 * change ids; where it is small, by their xids.  For that there are, beside each
 * snapshot, the last change id and then the next xid as they were when it was
 * taken, looked up in this order: transactions from that xid on have only higher
 * change ids.
 */
CREATE TYPE audit_log.outbox_cursor AS (
    era bigint,                     -- transactions up to this id are done with
    done pg_catalog.pg_snapshot,    -- of later ones those that it sees,
    done_xid pg_catalog.xid8,       -- (from this xid on
    done_change bigint,             -- changes have higher ids)
    batch pg_catalog.pg_snapshot,   -- and, up to the position, those that this sees; NULL: none begun
    batch_xid pg_catalog.xid8,
    batch_change bigint,
    last_change bigint,             -- the batch has no higher change id
    last_transaction bigint,        -- nor a higher transaction id, NULL: whatever
    place bigint,                   -- position: last change id of the transaction that was given last,
    command integer,                -- and the change of it that was
    change bigint,
    inside pg_catalog.xid8          -- that transaction, where it may have more
);
COMMENT ON TYPE audit_log.outbox_cursor IS 'how far a consumer of the outbox is: two snapshots, and a position between them';

CREATE TABLE audit_log.consumer (
    consumer text PRIMARY KEY,
    role text NOT NULL,
    created_at timestamptz NOT NULL,
    acked audit_log.outbox_cursor NOT NULL,
    given audit_log.outbox_cursor,
    given_rows bigint NOT NULL DEFAULT 0,
    given_id bigint,
    waypoints jsonb,
    polled_at timestamptz,
    acked_at timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE audit_log.consumer IS 'the consumers of the outbox, and how far each is';
COMMENT ON COLUMN audit_log.consumer.consumer IS 'its name';
COMMENT ON COLUMN audit_log.consumer.role IS 'the role whose members may poll, and whose rights decide what they get';
COMMENT ON COLUMN audit_log.consumer.created_at IS 'when it was created';
COMMENT ON COLUMN audit_log.consumer.acked IS 'up to where it has acknowledged';
COMMENT ON COLUMN audit_log.consumer.given IS 'up to where the latest poll went, NULL where that is acknowledged';
COMMENT ON COLUMN audit_log.consumer.given_rows IS 'how many changes the latest poll gave';
COMMENT ON COLUMN audit_log.consumer.given_id IS 'id of the last of them';
COMMENT ON COLUMN audit_log.consumer.waypoints IS 'of a large transaction that is given out in parts: how its changes lie';
COMMENT ON COLUMN audit_log.consumer.polled_at IS 'time of the latest poll that gave something';
COMMENT ON COLUMN audit_log.consumer.acked_at IS 'time of the latest acknowledgement';

/*
 * The xids of rows that a dump has brought are another cluster's.  Their ids
 * are lower than those of all rows written since, so that one bound a restore
 * tells them apart.
 */
CREATE TABLE audit_log.restored (
    id uuid PRIMARY KEY,
    last_transaction_id bigint NOT NULL,
    session text NOT NULL,
    restored_at timestamptz NOT NULL
);
COMMENT ON TABLE audit_log.restored IS 'each time rows of audit_log.transaction came from a dump';
COMMENT ON COLUMN audit_log.restored.id IS 'any';
COMMENT ON COLUMN audit_log.restored.last_transaction_id IS 'the highest id that was there afterwards: xids of rows up to it are of the cluster they were written in';
COMMENT ON COLUMN audit_log.restored.session IS 'the session that restored: what it inserts bit by bit is one restore';
COMMENT ON COLUMN audit_log.restored.restored_at IS 'when';

CREATE FUNCTION audit_log._next_xid() RETURNS xid8
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_next_xid';
COMMENT ON FUNCTION audit_log._next_xid() IS 'the xid that the next transaction gets';

CREATE FUNCTION audit_log._record_restore() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        last bigint := (SELECT max(t.id) FROM audit_log.transaction t);
        me text := (SELECT format('%s %s %s', c.system_identifier, pg_backend_pid(), extract(epoch FROM a.backend_start))
                      FROM pg_control_system() c, pg_stat_get_activity(pg_backend_pid()) a);
    BEGIN
        IF last IS NULL THEN
            RETURN;
        END IF;
        UPDATE audit_log.restored r SET last_transaction_id = last WHERE r.session = me;
        IF NOT FOUND THEN
            INSERT INTO audit_log.restored (id, last_transaction_id, session, restored_at)
            VALUES (gen_random_uuid(), last, me, clock_timestamp());
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._record_restore() IS 'notes that the rows of audit_log.transaction came from a dump';

CREATE FUNCTION audit_log.on_restore() RETURNS trigger
    LANGUAGE C AS 'MODULE_PATHNAME', 'audit_log_on_restore';
COMMENT ON FUNCTION audit_log.on_restore() IS 'notes that rows of audit_log.transaction come from a dump; for AFTER INSERT … FOR EACH STATEMENT';

CREATE FUNCTION audit_log._make_restore_trigger() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = 'audit_log.transaction'::regclass AND t.tgname = 'audit_log_restored') THEN
            CREATE TRIGGER audit_log_restored AFTER INSERT ON audit_log.transaction
                FOR EACH STATEMENT EXECUTE FUNCTION audit_log.on_restore();
            ALTER TABLE audit_log.transaction ENABLE ALWAYS TRIGGER audit_log_restored;
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._make_restore_trigger() IS 'makes the trigger that notes a restore if it is missing';

/*
 * The guard of one of the log's tables, for the scripts and for repair().  A
 * restore with --disable-triggers has gone past the trigger above, too, and has
 * left it as it leaves the guards.
 */
CREATE OR REPLACE FUNCTION audit_log._add_guard(target regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        EXECUTE format('CREATE OR REPLACE TRIGGER audit_log_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON %s '
            'FOR EACH STATEMENT EXECUTE FUNCTION audit_log.guard()', target);
        EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER audit_log_guard', target);
        IF EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = target AND t.tgrelid = 'audit_log.transaction'::regclass
                      AND t.tgname = 'audit_log_restored' AND t.tgenabled <> 'A') THEN
            ALTER TABLE audit_log.transaction ENABLE ALWAYS TRIGGER audit_log_restored;
            ALTER TABLE audit_log.consumer ENABLE ALWAYS TRIGGER audit_log_guard;
            ALTER TABLE audit_log.restored ENABLE ALWAYS TRIGGER audit_log_guard;
            PERFORM audit_log._record_restore();
        END IF;
    END
    $$;
SELECT audit_log._add_guard('audit_log.consumer'), audit_log._add_guard('audit_log.restored');

/* transactions are sought by xid: only where there is a consumer does that cost anything */
CREATE FUNCTION audit_log._make_xid_index() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF to_regclass('audit_log.transaction_xid_idx') IS NULL THEN
            CREATE INDEX transaction_xid_idx ON audit_log.transaction (xid);
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._make_xid_index() IS 'makes the index on audit_log.transaction (xid) if it is missing';

/*
 * A snapshot that does not see our own transaction, whatever that has yet to
 * change: pg_current_snapshot() says it does as soon as a later one has ended.
 */
CREATE FUNCTION audit_log._outbox_snapshot() RETURNS pg_snapshot
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        seen pg_snapshot := pg_current_snapshot();
        own xid8 := pg_current_xact_id_if_assigned();
    BEGIN
        IF own IS NULL OR own >= pg_snapshot_xmax(seen) THEN
            RETURN seen;
        END IF;
        RETURN format('%s:%s:%s', least(pg_snapshot_xmin(seen)::text::bigint, own::text::bigint), pg_snapshot_xmax(seen),
            (SELECT string_agg(x::text, ',' ORDER BY x) FROM (SELECT pg_snapshot_xip(seen) UNION SELECT own) u (x)))::pg_snapshot;
    END
    $$;
COMMENT ON FUNCTION audit_log._outbox_snapshot() IS 'the current snapshot, our own transaction taken as not seen';

CREATE FUNCTION audit_log._create_consumer(caller oid, consumer text, role regrole, from_start boolean) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    #variable_conflict use_variable
    DECLARE
        start audit_log.outbox_cursor;
        name text := pg_get_userbyid(coalesce(nullif(role::oid, 0), caller));
    BEGIN
        IF NOT audit_log._is_keeper(caller) THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
                MESSAGE = 'only a superuser or the role that installed audit_log may create a consumer';
        END IF;
        IF consumer IS NULL OR consumer = '' THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'a consumer needs a name';
        END IF;
        IF EXISTS (SELECT FROM audit_log.consumer c WHERE c.consumer = _create_consumer.consumer) THEN
            RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
                MESSAGE = format('consumer %L exists already', consumer),
                HINT = 'Run audit_log.drop_consumer() first, if it shall begin anew.';
        END IF;
        PERFORM audit_log._make_restore_trigger();
        PERFORM audit_log._make_xid_index();
        start.place := -1;
        start.command := 2147483647;
        start.change := 9223372036854775807;
        IF from_start THEN
            start.era := 0;
            start.done := '1:1:';
            start.done_xid := '1';
            start.done_change := 0;
        ELSE
            start.era := coalesce((SELECT max(r.last_transaction_id) FROM audit_log.restored r), 0);
            start.done_change := coalesce(pg_sequence_last_value('audit_log.change_id_seq'), 0);
            start.done_xid := audit_log._next_xid();
            start.done := audit_log._outbox_snapshot();
        END IF;
        INSERT INTO audit_log.consumer (consumer, role, created_at, acked) VALUES (consumer, name, clock_timestamp(), start);
        RAISE NOTICE 'audit_log: consumer % is for role %, from % on', consumer, quote_ident(name),
            CASE WHEN from_start THEN 'the beginning of the log' ELSE 'now' END;
    END
    $$;
COMMENT ON FUNCTION audit_log._create_consumer(oid, text, regrole, boolean) IS 'create_consumer(), with the caller''s role';
CREATE FUNCTION audit_log.create_consumer(consumer text, role regrole DEFAULT NULL, from_start boolean DEFAULT false) RETURNS void
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.create_consumer(text, regrole, boolean) IS
    'makes a consumer of the outbox, for members of a role (the caller''s by default), that gets what is committed from now on, or the whole log (superusers and the installing role)';

CREATE FUNCTION audit_log._drop_consumer(caller oid, consumer text) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        dropped boolean;
        timeout text := current_setting('lock_timeout');
    BEGIN
        IF NOT audit_log._is_keeper(caller) THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
                MESSAGE = 'only a superuser or the role that installed audit_log may drop a consumer';
        END IF;
        DELETE FROM audit_log.consumer c WHERE c.consumer = _drop_consumer.consumer;
        dropped := FOUND;
        IF NOT EXISTS (SELECT FROM audit_log.consumer) AND to_regclass('audit_log.transaction_xid_idx') IS NOT NULL THEN
            BEGIN
                PERFORM set_config('lock_timeout', '2s', true);
                DROP INDEX audit_log.transaction_xid_idx;
            EXCEPTION WHEN lock_not_available THEN
                RAISE NOTICE 'audit_log: index audit_log.transaction_xid_idx, which only consumers need, stays: the lock was not to be had';
            END;
            PERFORM set_config('lock_timeout', timeout, true);
        END IF;
        RETURN dropped;
    END
    $$;
COMMENT ON FUNCTION audit_log._drop_consumer(oid, text) IS 'drop_consumer(), with the caller''s role';
CREATE FUNCTION audit_log.drop_consumer(consumer text) RETURNS boolean
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.drop_consumer(text) IS 'drops a consumer of the outbox; whether there was one (superusers and the installing role)';

/*
 * A consumer, locked until the transaction ends, so that sessions that poll the
 * same one take turns; refuses who may not poll it.  While some transaction
 * goes on for hours no version of its row can be removed: the newest is at the
 * index's end, and is from here on known by its place.
 */
CREATE FUNCTION audit_log._lock_consumer(caller oid, consumer text, OUT me audit_log.consumer, OUT place tid, OUT role oid) RETURNS record
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
    AS $$
    DECLARE
        row record;
    BEGIN
        IF consumer IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'consumer must not be NULL';
        END IF;
        SELECT c AS whole, c.ctid AS place INTO row FROM audit_log.consumer c
         WHERE c.consumer BETWEEN _lock_consumer.consumer AND _lock_consumer.consumer
         ORDER BY c.consumer DESC LIMIT 1 FOR UPDATE;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'undefined_object',
                MESSAGE = format('consumer %L does not exist', consumer),
                HINT = 'A superuser or the role that installed audit_log makes it by audit_log.create_consumer().';
        END IF;
        me := row.whole;
        place := row.place;
        SELECT r.oid INTO role FROM pg_roles r WHERE r.rolname = me.role;
        IF role IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'undefined_object',
                MESSAGE = format('role %I of consumer %L does not exist', me.role, consumer),
                DETAIL = 'Its rights decide what the consumer gets.';
        END IF;
        IF NOT (pg_has_role(caller, role, 'USAGE') OR audit_log._is_keeper(caller)) THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
                MESSAGE = format('permission denied for consumer %L', consumer),
                DETAIL = format('It is for members of role %I.', me.role);
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._lock_consumer(oid, text) IS 'a consumer, locked until the transaction ends';

/* the next batch: of a cluster that the log has left, all that is there; else what is committed now */
CREATE FUNCTION audit_log._begin_batch(cur audit_log.outbox_cursor) RETURNS audit_log.outbox_cursor
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        SELECT min(r.last_transaction_id) INTO cur.last_transaction FROM audit_log.restored r WHERE r.last_transaction_id > cur.era;
        IF cur.last_transaction IS NOT NULL THEN
            cur.batch := '9223372036854775807:9223372036854775807:';
        ELSE
            -- in this order: see the top
            cur.batch_change := coalesce(pg_sequence_last_value('audit_log.change_id_seq'), 0);
            cur.batch_xid := audit_log._next_xid();
            cur.batch := audit_log._outbox_snapshot();
        END IF;
        cur.last_change := coalesce(pg_sequence_last_value('audit_log.change_id_seq'), 0);
        RETURN cur;
    END
    $$;
COMMENT ON FUNCTION audit_log._begin_batch(audit_log.outbox_cursor) IS 'the cursor, with a batch begun';

CREATE FUNCTION audit_log._end_batch(cur audit_log.outbox_cursor) RETURNS audit_log.outbox_cursor
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF cur.last_transaction IS NOT NULL THEN
            cur.era := cur.last_transaction;
            cur.done := '1:1:';
            cur.done_xid := '1';
        ELSE
            cur.done := cur.batch;
            cur.done_xid := cur.batch_xid;
            cur.done_change := cur.batch_change;
        END IF;
        cur.batch := NULL;
        cur.batch_xid := NULL;
        cur.batch_change := NULL;
        cur.last_change := NULL;
        cur.last_transaction := NULL;
        cur.place := -1;
        cur.command := 2147483647;
        cur.change := 9223372036854775807;
        cur.inside := NULL;
        RETURN cur;
    END
    $$;
COMMENT ON FUNCTION audit_log._end_batch(audit_log.outbox_cursor) IS 'the cursor, its batch given out';

/*
 * The transactions of a batch whose last change has an id in (cur.place,
 * up_to], in order, with the number of changes that are to be given.  The
 * candidates are those that changed something in that range (sought => 'ids'),
 * or those not seen by cur.done: all ('xids'), or only those that were
 * running then ('running').
 */
CREATE FUNCTION audit_log._batch_transactions(cur audit_log.outbox_cursor, up_to bigint, sought text, visible integer[],
        OUT xid xid8, OUT place bigint, OUT changes bigint) RETURNS SETOF record
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
    AS $$
    #variable_conflict use_column
    DECLARE
        running xid8[] := ARRAY(SELECT pg_snapshot_xip(cur.done));
        last bigint := coalesce(cur.last_transaction, 9223372036854775807);
        candidates xid8[];
    BEGIN
        IF sought = 'ids' THEN
            candidates := ARRAY(
                SELECT DISTINCT t.xid FROM (SELECT DISTINCT h.transaction_id FROM audit_log.change h
                                             WHERE h.id > cur.place AND h.id <= up_to) c
                  JOIN audit_log.transaction t ON t.id = c.transaction_id
                 WHERE t.id > cur.era AND t.id <= last
                   AND NOT pg_visible_in_snapshot(t.xid, cur.done) AND pg_visible_in_snapshot(t.xid, cur.batch));
        ELSE
            candidates := ARRAY(
                SELECT DISTINCT t.xid FROM (
                    SELECT t.xid, t.id FROM audit_log.transaction t WHERE t.xid = ANY (running)
                    UNION ALL
                    SELECT t.xid, t.id FROM audit_log.transaction t
                     WHERE t.xid >= pg_snapshot_xmax(cur.done)
                       AND t.xid < CASE sought WHEN 'running' THEN least(cur.done_xid, pg_snapshot_xmax(cur.batch))
                                               ELSE pg_snapshot_xmax(cur.batch) END) t
                 WHERE t.id > cur.era AND t.id <= last AND pg_visible_in_snapshot(t.xid, cur.batch));
        END IF;
        RETURN QUERY
            SELECT s.xid, s.place, s.changes FROM (
                SELECT c.xid, max(h.id) AS place, count(*) FILTER (WHERE h.table_id = ANY (visible)) AS changes
                  -- one that goes on behind the range is not counted through; the index tells by its end
                  FROM (SELECT x.xid FROM unnest(candidates) x (xid)
                         WHERE up_to >= cur.last_change OR NOT EXISTS (
                             SELECT FROM audit_log.transaction o
                              CROSS JOIN LATERAL (SELECT FROM audit_log.change l
                                                   WHERE l.transaction_id BETWEEN o.id AND o.id AND l.id > up_to
                                                   ORDER BY l.transaction_id DESC LIMIT 1) l
                              WHERE o.xid = x.xid AND o.id > cur.era AND o.id <= last)
                        OFFSET 0) c
                  JOIN audit_log.transaction t ON t.xid = c.xid AND t.id > cur.era AND t.id <= last
                 CROSS JOIN LATERAL (SELECT h.id, h.table_id FROM audit_log.change h WHERE h.transaction_id = t.id OFFSET 0) h
                 GROUP BY c.xid) s
             WHERE s.place > cur.place AND s.place <= up_to
             ORDER BY s.place;
    END
    $$;
COMMENT ON FUNCTION audit_log._batch_transactions(audit_log.outbox_cursor, bigint, text, integer[]) IS 'the next transactions of a batch, in the order in which they are given out';

/*
 * The changes of some transactions behind the cursor's position, in order:
 * from_id and to_id narrow the ids in which they are sought.
 */
CREATE FUNCTION audit_log._batch_changes(cur audit_log.outbox_cursor, xids xid8[], places bigint[], visible integer[],
        from_id bigint, to_id bigint, max_rows bigint,
        OUT change audit_log.audit_logs, OUT place bigint, OUT xid xid8) RETURNS SETOF record
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
    AS $$
    #variable_conflict use_column
    DECLARE
        last bigint := coalesce(cur.last_transaction, 9223372036854775807);
        own bigint[];
    BEGIN
        IF from_id IS NOT NULL THEN
            own := ARRAY(SELECT t.id FROM audit_log.transaction t WHERE t.xid = xids[1] AND t.id > cur.era AND t.id <= last);
        END IF;
        RETURN QUERY
            SELECT ROW(c.id, c.timestamp, t.user_id, c.action_type::text, k.table_schema, k.table_name, c.record_id,
                       c.changes, c.transaction_id, c.command, c.old_record_id, r.oid::regclass, t.db_user, t.db_role,
                       t.application_name, t.client_addr, t.context, t.undoes)::audit_log.audit_logs, c.place, c.xid
              FROM (
                (SELECT h.*, o.place, o.xid
                   FROM unnest(xids, places) o (xid, place)
                   JOIN audit_log.transaction t ON t.xid = o.xid AND t.id > cur.era AND t.id <= last
                  CROSS JOIN LATERAL (SELECT * FROM audit_log.change h WHERE h.transaction_id = t.id OFFSET 0) h
                  WHERE from_id IS NULL AND h.table_id = ANY (visible)
                    AND (o.place, h.command, h.id) > (cur.place, cur.command, cur.change)
                  ORDER BY o.place, h.command, h.id LIMIT max_rows)
                UNION ALL
                (SELECT h.*, places[1], xids[1]
                   FROM (SELECT * FROM audit_log.change h WHERE h.id BETWEEN from_id AND to_id OFFSET 0) h
                  WHERE from_id IS NOT NULL AND h.transaction_id = ANY (own) AND h.table_id = ANY (visible)
                    AND (places[1], h.command, h.id) > (cur.place, cur.command, cur.change)
                  ORDER BY h.command, h.id LIMIT max_rows)) c
              JOIN audit_log.transaction t ON t.id = c.transaction_id
              JOIN audit_log.tracked_table k ON k.id = c.table_id
              LEFT JOIN (pg_namespace n JOIN pg_class r ON r.relnamespace = n.oid AND r.relkind IN ('r', 'p'))
                     ON k.dropped_at IS NULL AND n.nspname = k.table_schema AND r.relname = k.table_name
             ORDER BY c.place, c.command, c.id;
    END
    $$;
COMMENT ON FUNCTION audit_log._batch_changes(audit_log.outbox_cursor, xid8[], bigint[], integer[], bigint, bigint, bigint) IS 'the changes of transactions of a batch, in the order in which they are given out';

/*
 * Of a transaction too large to be sorted anew with each part of it: where its
 * changes lie, some thousands after the other in their order: the last one's
 * command and id, and the ids between which they are.
 */
CREATE FUNCTION audit_log._waypoints(cur audit_log.outbox_cursor, xid xid8) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
    AS $$
        SELECT jsonb_build_object('xid', $2::text, 'parts', jsonb_agg(jsonb_build_array(p.last[1], p.last[2], p.low, p.high) ORDER BY p.part))
          FROM (SELECT n.part, min(n.id) AS low, max(n.id) AS high, max(ARRAY[n.command::bigint, n.id]) AS last
                  FROM (SELECT h.command, h.id, (row_number() OVER (ORDER BY h.command, h.id) - 1) / 5000 AS part
                          FROM audit_log.transaction t
                         CROSS JOIN LATERAL (SELECT c.command, c.id FROM audit_log.change c WHERE c.transaction_id = t.id OFFSET 0) h
                         WHERE t.xid = $2 AND t.id > $1.era AND t.id <= coalesce($1.last_transaction, 9223372036854775807)) n
                 GROUP BY n.part) p
    $$;
COMMENT ON FUNCTION audit_log._waypoints(audit_log.outbox_cursor, xid8) IS 'how the changes of a large transaction lie';

CREATE FUNCTION audit_log._poll(caller oid, consumer text, max_rows integer) RETURNS SETOF audit_log.audit_logs
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        -- a transaction with more changes is given out part by part
        large CONSTANT bigint := 20000;
        me audit_log.consumer;
        version tid;
        role oid;
        visible integer[];
        cur audit_log.outbox_cursor;
        begun audit_log.outbox_cursor;
        wanted bigint := max_rows;
        width bigint := greatest(max_rows * 2::bigint, 1000);
        up_to bigint;
        sought text;
        xids xid8[];
        places bigint[];
        list record;
        part jsonb;
        by_parts boolean;
        charted boolean := false;
        fresh boolean;
        by_now boolean;
        row record;
        gave bigint;
        last_id bigint;
    BEGIN
        IF max_rows IS NULL OR max_rows < 1 THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'max_rows must be at least 1';
        END IF;
        SELECT * INTO row FROM audit_log._lock_consumer(caller, consumer);
        me := row.me;
        version := row.place;
        role := row.role;
        IF EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = 'audit_log.transaction'::regclass AND t.tgname = 'audit_log_restored' AND t.tgenabled <> 'A') THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = 'the log may have been restored past trigger audit_log_restored',
                DETAIL = 'It is not ALWAYS enabled any more, as after a restore with --disable-triggers.',
                HINT = 'Run audit_log.repair(), before anything is changed.';
        END IF;
        PERFORM audit_log._make_xid_index();
        visible := ARRAY(SELECT t.id FROM audit_log._tables_seen(role) t);

        cur := me.acked;
        LOOP
            fresh := cur.batch IS NULL;
            IF fresh THEN
                cur := audit_log._begin_batch(cur);
            END IF;
            begun := cur;
            LOOP
                IF cur.inside IS NOT NULL AND wanted > 0 THEN
                    -- the rest of one transaction, or as much of it
                    part := NULL;
                    by_parts := coalesce(me.waypoints ->> 'xid' = cur.inside::text, false);
                    IF by_parts THEN
                        SELECT p INTO part FROM jsonb_array_elements(me.waypoints -> 'parts') WITH ORDINALITY w (p, n)
                         WHERE ((p ->> 0)::bigint, (p ->> 1)::bigint) > (cur.command, cur.change) ORDER BY w.n LIMIT 1;
                    END IF;
                    gave := 0;
                    FOR row IN SELECT * FROM audit_log._batch_changes(cur, ARRAY[cur.inside], ARRAY[cur.place], visible,
                                                                      (part ->> 2)::bigint, (part ->> 3)::bigint, wanted) b
                                WHERE part IS NOT NULL AND ((b.change).command, (b.change).id) <= ((part ->> 0)::bigint, (part ->> 1)::bigint)
                                   OR NOT by_parts LOOP
                        RETURN NEXT row.change;
                        gave := gave + 1;
                        cur.command := (row.change).command;
                        cur.change := (row.change).id;
                    END LOOP;
                    last_id := CASE WHEN gave > 0 THEN cur.change ELSE last_id END;
                    wanted := wanted - gave;
                    IF wanted > 0 THEN
                        IF part IS NOT NULL THEN
                            cur.command := part ->> 0;
                            cur.change := part ->> 1;
                        ELSE
                            cur.inside := NULL;
                            cur.command := 2147483647;
                            cur.change := 9223372036854775807;
                        END IF;
                    END IF;
                    CONTINUE;
                END IF;
                EXIT WHEN wanted = 0 OR cur.place >= cur.last_change;

                -- which transactions are next: by their xids where all are few, else range by range
                IF cur.last_change - cur.done_change <= width THEN
                    sought := 'xids';
                    up_to := cur.last_change;
                ELSIF cur.place < cur.done_change THEN
                    sought := 'running';
                    up_to := cur.done_change;
                ELSE
                    sought := 'ids';
                    up_to := least(cur.place + width, cur.last_change);
                END IF;
                SELECT array_agg(l.xid ORDER BY l.place) FILTER (WHERE l.fits) AS xids,
                       array_agg(l.place ORDER BY l.place) FILTER (WHERE l.fits) AS places,
                       sum(l.changes) FILTER (WHERE l.fits) AS changes, count(*) AS number,
                       (array_agg(l.xid ORDER BY l.place))[1] AS first_xid, min(l.place) AS first_place
                  INTO list
                  FROM (SELECT b.*, b.before < wanted AND NOT bool_or(b.too_large) OVER (ORDER BY b.place) AS fits
                          FROM (SELECT a.*, a.changes > large AND a.before + a.changes > wanted AS too_large
                                  FROM (SELECT t.*, sum(t.changes) OVER (ORDER BY t.place) - t.changes AS before
                                          FROM audit_log._batch_transactions(cur, up_to, sought, visible) t) a) b) l;
                IF list.number = 0 THEN
                    -- ids that nothing bears are passed over
                    IF sought = 'ids' AND NOT EXISTS (SELECT FROM audit_log.change h WHERE h.id > cur.place AND h.id <= up_to) THEN
                        up_to := greatest(up_to, least(cur.last_change, coalesce(
                            (SELECT min(x.block) FROM audit_log.tracked_table t
                              CROSS JOIN LATERAL (SELECT h.id >> 8 AS block FROM audit_log.change h
                                                   WHERE h.table_id = t.id AND h.id >> 8 >= up_to >> 8
                                                   ORDER BY h.id >> 8 LIMIT 1) x) * 256 - 1, cur.last_change)));
                    END IF;
                    cur.place := up_to;
                    CONTINUE;
                END IF;
                IF list.xids IS NULL THEN
                    cur.place := list.first_place;
                    cur.command := -2147483648;
                    cur.change := 0;
                    cur.inside := list.first_xid;
                    IF me.waypoints ->> 'xid' IS DISTINCT FROM cur.inside::text THEN
                        me.waypoints := audit_log._waypoints(cur, cur.inside);
                        charted := true;
                    END IF;
                    CONTINUE;
                END IF;
                gave := 0;
                FOR row IN SELECT * FROM audit_log._batch_changes(cur, list.xids, list.places, visible, NULL, NULL, wanted) LOOP
                    RETURN NEXT row.change;
                    gave := gave + 1;
                END LOOP;
                last_id := CASE WHEN gave > 0 THEN (row.change).id ELSE last_id END;
                wanted := wanted - gave;
                IF wanted = 0 AND gave < list.changes THEN
                    cur.place := row.place;
                    cur.command := (row.change).command;
                    cur.change := (row.change).id;
                    cur.inside := row.xid;
                ELSE
                    cur.place := CASE WHEN cardinality(list.xids) = list.number THEN up_to
                                      ELSE list.places[cardinality(list.places)] END;
                    cur.command := 2147483647;
                    cur.change := 9223372036854775807;
                END IF;
            END LOOP;

            EXIT WHEN cur.inside IS NOT NULL OR cur.place < cur.last_change;
            -- an empty answer means that there is nothing, not that a batch begun before ends here
            by_now := cur.last_transaction IS NULL AND fresh;
            cur := audit_log._end_batch(cur);
            EXIT WHEN last_id IS NOT NULL OR by_now;
        END LOOP;
        IF last_id IS NULL THEN
            -- nothing to acknowledge; nor is it worth a new row version to be a few xids further
            IF (me.acked).batch IS NOT NULL OR cur.era <> (me.acked).era OR cur.done_change - (me.acked).done_change > 1000
               OR cur.done_xid::text::bigint - (me.acked).done_xid::text::bigint > 1000 THEN
                UPDATE audit_log.consumer c SET acked = cur, given = NULL, given_rows = 0, given_id = NULL, waypoints = NULL
                 WHERE c.ctid = version;
            END IF;
        ELSIF NOT (coalesce(me.given *= cur, false) AND me.acked *= begun) THEN
            UPDATE audit_log.consumer c
               SET acked = begun, given = cur, given_rows = max_rows - wanted, given_id = last_id, polled_at = clock_timestamp(),
                   waypoints = CASE WHEN charted THEN me.waypoints ELSE c.waypoints END
             WHERE c.ctid = version;
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._poll(oid, text, integer) IS 'poll(), with the caller''s role';
CREATE FUNCTION audit_log.poll(consumer text, max_rows integer DEFAULT 1000) RETURNS SETOF audit_log.audit_logs
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.poll(text, integer) IS
    'the next committed changes for a consumer of the outbox, in order; the same again until audit_log.ack(). For members of the consumer''s role';

CREATE FUNCTION audit_log._ack(caller oid, consumer text, change_id bigint) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        me audit_log.consumer;
        row record;
    BEGIN
        SELECT * INTO row FROM audit_log._lock_consumer(caller, consumer);
        me := row.me;
        IF me.given IS NULL OR change_id <> me.given_id THEN
            RETURN 0;
        END IF;
        UPDATE audit_log.consumer c
           SET acked = c.given, given = NULL, given_rows = 0, given_id = NULL, acked_at = clock_timestamp(),
               waypoints = CASE WHEN c.waypoints ->> 'xid' = (c.given).inside::text THEN c.waypoints END
         WHERE c.ctid = row.place;
        RETURN me.given_rows;
    END
    $$;
COMMENT ON FUNCTION audit_log._ack(oid, text, bigint) IS 'ack(), with the caller''s role';
CREATE FUNCTION audit_log.ack(consumer text, change_id bigint DEFAULT NULL) RETURNS bigint
    LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.ack(text, bigint) IS
    'acknowledges what audit_log.poll() gave last: it is not given again. With change_id only if that was the id of its last change. Returns how many changes';

CREATE FUNCTION audit_log._consumers(caller oid, OUT consumer text, OUT role text, OUT created_at timestamptz,
        OUT polled_at timestamptz, OUT acked_at timestamptz, OUT unacknowledged bigint, OUT behind bigint) RETURNS SETOF record
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT c.consumer, c.role, c.created_at, c.polled_at, c.acked_at, c.given_rows,
               greatest(0, coalesce(pg_sequence_last_value('audit_log.change_id_seq'), 0)
                           - greatest((c.acked).done_change, (c.acked).place))
          FROM audit_log.consumer c
         WHERE audit_log._is_keeper($1)
            OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname = c.role AND pg_has_role($1, r.oid, 'USAGE'))
         ORDER BY c.consumer
    $$;
COMMENT ON FUNCTION audit_log._consumers(oid) IS 'consumers(), with the caller''s role';
CREATE FUNCTION audit_log.consumers(OUT consumer text, OUT role text, OUT created_at timestamptz,
        OUT polled_at timestamptz, OUT acked_at timestamptz, OUT unacknowledged bigint, OUT behind bigint) RETURNS SETOF record
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.consumers() IS
    'the consumers of the outbox that the caller may poll: when they polled and acknowledged last, how many changes they have been given since, and how many ids of changes they are behind at most';

/* ------------------------------------------------------------------ reports */

/*
 * Pages to look at: HTML that needs nothing from elsewhere and runs nothing (its
 * own policy forbids both).  Whatever comes from the log passes _html(),
 * names of columns and keys of JSON included.  The template is ASCII, so that it
 * is right in every encoding.
 */
CREATE FUNCTION audit_log._html(content text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    AS $$
        -- a mark for control characters, and for those that turn the direction of what follows
        SELECT regexp_replace(replace(replace(replace(replace(replace(
                   left($1, 4000), '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;'), '''', '&#39;'),
                   CASE WHEN getdatabaseencoding() = 'UTF8' THEN '[\x01-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]'
                        ELSE '[\x01-\x08\x0b-\x1f\x7f]' END, '&#65533;', 'g')
            || CASE WHEN length($1) > 4000 THEN format('<span class="cut">&hellip; %s characters in all</span>', length($1)) ELSE '' END
    $$;
COMMENT ON FUNCTION audit_log._html(text) IS 'a text within HTML; the first 4,000 characters of a longer one';

/* a JSON value: what is nested as a tree, beyond 12 levels as text */
CREATE FUNCTION audit_log._html_value(value jsonb, depth integer DEFAULT 0) RETURNS text
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        item record;
        items text := '';
        n integer := 0;
    BEGIN
        CASE coalesce(jsonb_typeof(value), 'null')
            WHEN 'null' THEN RETURN '<i class="none">null</i>';
            WHEN 'string' THEN
                IF value #>> '{}' = '' THEN
                    RETURN '<i class="none">empty text</i>';
                END IF;
                RETURN format('<bdi>%s</bdi>', audit_log._html(value #>> '{}'));
            WHEN 'number', 'boolean' THEN RETURN format('<b>%s</b>', audit_log._html(value #>> '{}'));
            WHEN 'object' THEN
                IF depth = 0 AND value ? '$pg' AND (SELECT count(*) FROM jsonb_object_keys(value)) = 1 THEN
                    RETURN format('<bdi>%s</bdi>', audit_log._html(value ->> '$pg'));
                END IF;
                IF value = '{}' OR depth > 12 THEN
                    RETURN format('<bdi>%s</bdi>', audit_log._html(value::text));
                END IF;
                FOR item IN SELECT e.key, e.value FROM jsonb_each(value) e LOOP
                    n := n + 1;
                    EXIT WHEN n > 200;
                    items := items || format('<li><span class="key">%s</span> %s</li>', audit_log._html(item.key), audit_log._html_value(item.value, depth + 1));
                END LOOP;
                RETURN format('<ul class="tree">%s%s</ul>', items, CASE WHEN n > 200 THEN '<li class="cut">&hellip; and more</li>' ELSE '' END);
            WHEN 'array' THEN
                IF depth > 12 OR NOT jsonb_path_exists(value, 'strict $[*] ? (@.type() == "object" || @.type() == "array")') THEN
                    RETURN format('<bdi>%s</bdi>', audit_log._html(value::text));
                END IF;
                FOR item IN SELECT e.value FROM jsonb_array_elements(value) e LOOP
                    n := n + 1;
                    EXIT WHEN n > 200;
                    items := items || format('<li>%s</li>', audit_log._html_value(item.value, depth + 1));
                END LOOP;
                RETURN format('<ol class="tree">%s%s</ol>', items, CASE WHEN n > 200 THEN '<li class="cut">&hellip; and more</li>' ELSE '' END);
        END CASE;
    END
    $$;
COMMENT ON FUNCTION audit_log._html_value(jsonb, integer) IS 'a value of the log within HTML';

/* one place of a delta: added, changed, removed, or an object with such places */
CREATE FUNCTION audit_log._html_delta(name text, delta jsonb, depth integer DEFAULT 0) RETURNS text
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        item record;
        items text := '';
        n integer := 0;
        before text;
        after text;
    BEGIN
        IF jsonb_typeof(delta) = 'object' AND depth <= 12 THEN
            FOR item IN SELECT e.key, e.value FROM jsonb_each(delta) e LOOP
                n := n + 1;
                IF n > 200 THEN
                    items := items || '<li class="cut">&hellip; and more</li>';
                    EXIT;
                END IF;
                items := items || audit_log._html_delta(item.key, item.value, depth + 1);
            END LOOP;
            RETURN format('<li class="inside"><span class="key">%s</span><ul class="tree">%s</ul></li>', audit_log._html(name), items);
        END IF;
        IF jsonb_typeof(delta) <> 'array' THEN
            RETURN format('<li><span class="key">%s</span> %s</li>', audit_log._html(name), audit_log._html_value(delta, 13));
        END IF;
        IF jsonb_array_length(delta) = 2 AND (delta -> 0)::text = (delta -> 1)::text THEN
            -- of a table without key: it names the row
            RETURN format('<li class="same"><span class="key">%s</span> <span class="value">%s</span></li>', audit_log._html(name),
                audit_log._html_value(delta -> 0, depth));
        END IF;
        IF jsonb_array_length(delta) > 1 THEN
            before := format('<del><span class="sign">&minus;</span>%s</del>', audit_log._html_value(delta -> 0, depth));
        END IF;
        IF jsonb_array_length(delta) < 3 THEN
            after := format('<ins><span class="sign">+</span>%s</ins>', audit_log._html_value(delta -> -1, depth));
        END IF;
        RETURN format('<li><span class="key">%s</span> <span class="pair">%s%s</span></li>', audit_log._html(name), before, after);
    END
    $$;
COMMENT ON FUNCTION audit_log._html_delta(text, jsonb, integer) IS 'one column, or one key inside of one, of an UPDATE, within HTML';

CREATE FUNCTION audit_log._html_changes(action text, changes jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        item record;
        items text := '';
        n integer := 0;
        whole integer := (SELECT count(*) FROM jsonb_object_keys(changes));
    BEGIN
        IF action = 'TRUNCATE' THEN
            RETURN format('<p class="soft">%s</p>', coalesce('Partition ' || audit_log._html(changes ->> 'partition') || ' was emptied.', 'The whole table was emptied.'));
        END IF;
        FOR item IN SELECT e.key, e.value FROM jsonb_each(changes) e LOOP
            n := n + 1;
            EXIT WHEN n > 300;
            items := items || CASE action
                WHEN 'UPDATE' THEN audit_log._html_delta(item.key, item.value)
                WHEN 'DELETE' THEN format('<li><span class="key">%s</span> <span class="pair"><del><span class="sign">&minus;</span>%s</del></span></li>',
                    audit_log._html(item.key), audit_log._html_value(item.value))
                ELSE format('<li><span class="key">%s</span> <span class="pair"><ins><span class="sign">+</span>%s</ins></span></li>',
                    audit_log._html(item.key), audit_log._html_value(item.value)) END;
        END LOOP;
        IF n > 300 THEN
            items := items || format('<li class="cut">&hellip; %s columns in all</li>', whole);
        END IF;
        RETURN format('<ul class="columns">%s</ul>', items);
    END
    $$;
COMMENT ON FUNCTION audit_log._html_changes(text, jsonb) IS 'the changes of one row within HTML';

/* why: an object key by key, whatever else as it is */
CREATE FUNCTION audit_log._html_context(context jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT CASE WHEN jsonb_typeof($1) = 'object' AND $1 <> '{}' THEN
                (SELECT '<dl class="why">' || string_agg(format('<div><dt>%s</dt><dd>%s</dd></div>', audit_log._html(e.key), audit_log._html_value(e.value, 1)), '')
                        || CASE WHEN (SELECT count(*) FROM jsonb_object_keys($1)) > 50 THEN '<div class="cut">&hellip; and more</div>' ELSE '' END || '</dl>'
                   FROM (SELECT * FROM jsonb_each($1) LIMIT 50) e)
            ELSE '<div class="why">' || audit_log._html_value($1, 1) || '</div>' END
    $$;
COMMENT ON FUNCTION audit_log._html_context(jsonb) IS 'a context within HTML';

/* an entry of the timeline; about: what the heading of the page does not say */
CREATE FUNCTION audit_log._html_entry(change audit_log.audit_logs, about text, with_who boolean) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    AS $$
        SELECT format('<article class="entry %s" id="change-%s"><header><span class="action">%s</span>%s<span class="when"><time datetime="%s">%s</time></span></header>%s%s%s</article>',
            lower($1.action_type), $1.id,
            CASE $1.action_type WHEN 'INSERT' THEN 'Created' WHEN 'UPDATE' THEN 'Changed' WHEN 'DELETE' THEN 'Deleted'
                 WHEN 'SNAPSHOT' THEN 'As found' ELSE 'Emptied' END,
            coalesce(' <span class="about">' || $2 || '</span>', ''),
            to_char($1.timestamp, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), to_char($1.timestamp, CASE WHEN $3 THEN 'HH24:MI:SS' ELSE 'YYYY-MM-DD HH24:MI:SS' END),
            CASE WHEN $3 THEN format('<p class="who">%s</p>%s', audit_log._html_who($1), coalesce(audit_log._html_context($1.context), '')) ELSE '' END,
            CASE WHEN $1.old_record_id IS NOT NULL THEN format('<p class="moved">The key was <bdi>%s</bdi> before, and is <bdi>%s</bdi> from here on.</p>',
                audit_log._html($1.old_record_id), audit_log._html($1.record_id)) ELSE '' END,
            CASE WHEN $1.undoes IS NOT NULL AND $3 THEN format('<p class="moved">Takes back <bdi>%s</bdi></p>', audit_log._html($1.undoes::text)) ELSE '' END
                || audit_log._html_changes($1.action_type, $1.changes)
                || format('<footer>change %s%s &middot; command %s</footer>', $1.id,
                          CASE WHEN $3 THEN format(' &middot; transaction %s', $1.transaction_id) ELSE '' END, $1.command))
    $$;
CREATE FUNCTION audit_log._html_who(change audit_log.audit_logs) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT CASE WHEN $1.user_id IS NULL THEN '<span class="none">no user named</span>'
                    ELSE format('<strong><bdi>%s</bdi></strong>', audit_log._html($1.user_id)) END
            || format(' <span class="soft">as %s%s%s</span>', audit_log._html($1.db_role),
                   CASE WHEN $1.db_user <> $1.db_role THEN ' (session of ' || audit_log._html($1.db_user) || ')' ELSE '' END,
                   coalesce(', ' || audit_log._html(nullif($1.application_name, '')), '') || coalesce(', from ' || audit_log._html(host($1.client_addr)), ''))
    $$;
COMMENT ON FUNCTION audit_log._html_entry(audit_log.audit_logs, text, boolean) IS 'one change within HTML';
COMMENT ON FUNCTION audit_log._html_who(audit_log.audit_logs) IS 'who made a change, within HTML';

CREATE FUNCTION audit_log._html_page(title text, heading text, facts text, body text) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    AS $page$
        SELECT format($html$<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<meta name="referrer" content="no-referrer">
<meta name="robots" content="noindex">
<meta name="generator" content="audit_log">
<title>%1$s</title>
<style>
:root{color-scheme:light dark;--page:#f4f5f8;--card:#fff;--ink:#1c2128;--soft:#57606a;--line:#d5dbe3;--accent:#4150b5;--accent-bg:#e8eafc;
--ins:#0b5d2c;--ins-bg:#ddf7e5;--del:#9b1420;--del-bg:#ffe9e7;--upd:#7d4500;--upd-bg:#fff0d6;--shadow:0 1px 2px #1f23281a,0 2px 8px #1f23280f}
@media(prefers-color-scheme:dark){:root{--page:#0f1217;--card:#181d25;--ink:#e7ecf3;--soft:#9da7b5;--line:#323a46;--accent:#a9b4ff;--accent-bg:#262c52;
--ins:#86e5aa;--ins-bg:#12351f;--del:#ffb3ad;--del-bg:#471a1b;--upd:#f5c571;--upd-bg:#40300f;--shadow:none}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;overflow-wrap:anywhere}
main,.top>div{max-width:58rem;margin:0 auto;padding:0 1.25rem}
.top{background:var(--card);border-bottom:1px solid var(--line);border-top:4px solid var(--accent);padding:1.5rem 0 1.25rem}
h1{margin:0;font-size:1.6rem;line-height:1.25;font-weight:650;letter-spacing:-.01em}
h1 .soft{font-weight:400}
.soft,.none,footer,.cut{color:var(--soft)}
.none{font-style:italic}
.facts{display:flex;flex-wrap:wrap;gap:.5rem 2rem;margin:1rem 0 0}
.facts div{min-width:0}
dt{color:var(--soft);font-size:.8rem}
dd{margin:0}
.note{background:var(--upd-bg);color:var(--upd);border-radius:.5rem;padding:.6rem .9rem;margin:1rem 0 0}
h2{font-size:.95rem;font-weight:600;margin:2rem 0 .75rem;color:var(--soft)}
.timeline{border-left:2px solid var(--line);margin-left:.4rem;padding-left:1.4rem}
.entry{position:relative;background:var(--card);border:1px solid var(--line);border-radius:.75rem;padding:.9rem 1.1rem .7rem;margin:0 0 1rem;box-shadow:var(--shadow)}
.entry::before{content:"";position:absolute;left:-1.95rem;top:1.15rem;width:.9rem;height:.9rem;border-radius:50%%;background:var(--upd);border:3px solid var(--page);box-sizing:content-box;margin:-3px}
.insert::before,.snapshot::before{background:var(--ins)}
.delete::before,.truncate::before{background:var(--del)}
.entry header{display:flex;flex-wrap:wrap;gap:.25rem .6rem;align-items:baseline}
.action{font-weight:650;font-size:.85rem;border-radius:1rem;padding:.1rem .65rem;background:var(--upd-bg);color:var(--upd)}
.insert .action,.snapshot .action{background:var(--ins-bg);color:var(--ins)}
.delete .action,.truncate .action{background:var(--del-bg);color:var(--del)}
.about{font-weight:600;min-width:0}
.when{margin-left:auto;color:var(--soft);font-variant-numeric:tabular-nums;font-size:.9rem}
.who{margin:.35rem 0 0}
.why{margin:.45rem 0 0;display:flex;flex-wrap:wrap;gap:.3rem;align-items:flex-start}
dl.why>div,div.why{background:var(--accent-bg);color:var(--accent);border-radius:.4rem;padding:.05rem .55rem;font-size:.875rem;max-width:100%%}
dl.why dt,dl.why dd{display:inline;color:inherit;font-size:inherit}
dl.why dt::after{content:": "}
.moved{margin:.5rem 0 0;color:var(--accent)}
ul,ol{margin:0;padding:0;list-style:none}
.columns{margin:.75rem 0 .5rem;border-top:1px solid var(--line)}
.columns>li{display:grid;grid-template-columns:minmax(7rem,13rem) minmax(0,1fr);gap:.25rem 1rem;padding:.4rem 0;border-bottom:1px solid var(--line)}
.columns>li.cut{display:block}
.key{color:var(--soft);font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.85rem;padding-top:.1rem}
.columns>li>.key{color:var(--ink)}
.pair{display:flex;flex-wrap:wrap;gap:.3rem .5rem;min-width:0}
del,ins,.value,li>bdi,li>b{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.85rem;white-space:pre-wrap;text-decoration:none;min-width:0;max-width:100%%}
del,ins{border-radius:.4rem;padding:.1rem .55rem .1rem 1.4rem;position:relative}
del{background:var(--del-bg);color:var(--del)}
ins{background:var(--ins-bg);color:var(--ins)}
del .key,ins .key,del .none,ins .none,del .cut,ins .cut{color:inherit}
b{font-weight:600}
.sign{user-select:none;font-weight:700;position:absolute;left:.5rem}
del>.tree,ins>.tree{border-left:0;padding-left:0}
.same{color:var(--soft)}
.tree{border-left:1px solid var(--line);padding-left:.8rem;min-width:0;white-space:normal}
.tree>li{padding:.12rem 0}
.tree>li>.pair{display:inline-flex;vertical-align:top}
ol.tree>li::before{content:"\2022\a0"}
.tree>li>.key::after,.why .key::after{content:":"}
del .tree,ins .tree{border-color:currentColor}
footer{font-size:.8rem}
.empty{background:var(--card);border:1px dashed var(--line);border-radius:.75rem;padding:2rem;text-align:center;color:var(--soft);margin-top:2rem}
.end{padding:1.5rem 0 3rem}
@media(max-width:34rem){.columns>li{grid-template-columns:minmax(0,1fr)}h1{font-size:1.3rem}main,.top>div{padding:0 .8rem}.timeline{padding-left:1rem;margin-left:.2rem}.entry{padding:.75rem .8rem .6rem}.entry::before{left:-1.55rem}.when{margin-left:0}}
@media print{:root{color-scheme:light;--page:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#bbb;--ins:#0b5d2c;--del:#9b1420;--upd:#7d4500;--accent:#333;--shadow:none}
body{font-size:10pt}.entry{break-inside:avoid}.top{border-top:0}del,ins,.action,.why>div{border:1px solid currentColor}del{text-decoration:line-through}}
</style>
</head>
<body>
<div class="top"><div>
<h1>%2$s</h1>
%3$s
</div></div>
<main>
%4$s
<footer class="end">Made by audit_log from the log of database <bdi>%5$s</bdi>, %6$s UTC. All times are UTC.</footer>
</main>
</body>
</html>
$html$, $1, $2, $3, $4, audit_log._html(current_database()), to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS'))
    $page$;
COMMENT ON FUNCTION audit_log._html_page(text, text, text, text) IS 'a page of HTML';

/* reports are for whom grant_read() lets use the views */
CREATE FUNCTION audit_log._check_reader(caller oid, max_rows integer) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF NOT has_table_privilege(caller, 'audit_log.audit_logs', 'SELECT') THEN
            RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
                MESSAGE = 'permission denied for the log',
                HINT = 'audit_log.grant_read() lets a role use it.';
        END IF;
        IF max_rows IS NULL OR max_rows < 1 THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'max_rows must be at least 1';
        END IF;
    END
    $$;
COMMENT ON FUNCTION audit_log._check_reader(oid, integer) IS 'refuses who may not use the views of the log';

/*
 * The changes of a record, through changes of its key: from the key it bears
 * now, or bore last, back to the first.  With how many there are.
 */
CREATE FUNCTION audit_log._record_changes(table_id integer, record_id text, max_rows integer,
        OUT ids bigint[], OUT keys text[], OUT key text, OUT number bigint) RETURNS record
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
    #variable_conflict use_column
    DECLARE
        all_ids bigint[] := '{}';
        found_ids bigint[];
        bearer text;
        before bigint := 9223372036854775807;
        since bigint;
        gone bigint;
        step integer := 0;
    BEGIN
        key := _record_changes.record_id;
        -- who bears the key later on, if it was given up
        LOOP
            SELECT c.record_id, c.id INTO bearer, since FROM audit_log.change c
             WHERE c.old_record_id = key AND c.table_id = _record_changes.table_id
               AND c.id > coalesce((SELECT max(l.id) FROM audit_log.change l WHERE l.record_id = key AND l.table_id = _record_changes.table_id), 0)
             ORDER BY c.id DESC LIMIT 1;
            step := step + 1;
            EXIT WHEN NOT FOUND OR step > 1000;
            key := bearer;
        END LOOP;
        bearer := key;
        keys := '{}';
        step := 0;
        LOOP
            SELECT c.id INTO since FROM audit_log.change c
             WHERE c.record_id = bearer AND c.table_id = _record_changes.table_id AND c.old_record_id IS NOT NULL AND c.id < before
             ORDER BY c.id DESC LIMIT 1;
            -- what bore the key before it was given up is another record
            SELECT max(c.id) INTO gone FROM audit_log.change c
             WHERE c.old_record_id = bearer AND c.table_id = _record_changes.table_id AND c.id < before;
            IF gone > since THEN
                since := NULL;
            END IF;
            SELECT array_agg(c.id) INTO found_ids FROM audit_log.change c
             WHERE c.record_id = bearer AND c.table_id = _record_changes.table_id AND c.id < before
               AND c.id >= coalesce(since, 0) AND c.id > CASE WHEN since IS NULL THEN coalesce(gone, 0) ELSE 0 END;
            all_ids := all_ids || found_ids;
            keys := keys || bearer;
            step := step + 1;
            EXIT WHEN since IS NULL OR step > 1000;
            SELECT c.old_record_id INTO bearer FROM audit_log.change c WHERE c.id = since AND c.record_id = bearer AND c.table_id = _record_changes.table_id;
            before := since;
        END LOOP;
        number := coalesce(cardinality(all_ids), 0);
        ids := ARRAY(SELECT i FROM unnest(all_ids) i ORDER BY i DESC LIMIT max_rows);
    END
    $$;
COMMENT ON FUNCTION audit_log._record_changes(integer, text, integer) IS 'the newest changes of a record, through changes of its key';

CREATE FUNCTION audit_log._of_record(ids bigint[], keys text[], table_id integer) RETURNS SETOF audit_log.change
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        -- by the index on records: ids have none
        SELECT c.* FROM unnest($2) k CROSS JOIN LATERAL (SELECT * FROM audit_log.change h WHERE h.record_id = k AND h.table_id = $3) c
         WHERE c.id = ANY ($1)
    $$;
COMMENT ON FUNCTION audit_log._of_record(bigint[], text[], integer) IS 'changes of a record by their ids, found by its keys';

CREATE FUNCTION audit_log._tables_seen(role oid) RETURNS SETOF audit_log.tracked_table
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT t.* FROM audit_log.tracked_table t
          LEFT JOIN (pg_namespace n JOIN pg_class r ON r.relnamespace = n.oid AND r.relkind IN ('r', 'p'))
                 ON t.dropped_at IS NULL AND n.nspname = t.table_schema AND r.relname = t.table_name
         WHERE CASE WHEN r.oid IS NULL THEN audit_log._is_keeper($1) ELSE audit_log._may_read(r.oid::regclass, $1) END
    $$;
COMMENT ON FUNCTION audit_log._tables_seen(oid) IS 'the tracked tables whose log a role may see';

CREATE FUNCTION audit_log._report(caller oid, target regclass, record_id text, max_rows integer) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    AS $$
    DECLARE
        tracked record;
        found_ids record;
        facts record;
        row record;
        body text := '';
        parts text[] := '{}';
        day text;
        note text := '';
        name text;
    BEGIN
        PERFORM audit_log._check_reader(caller, max_rows);
        IF target IS NULL OR record_id IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'table_name and record_id must not be NULL',
                HINT = 'The changes of one transaction are reported by audit_log.report_transaction().';
        END IF;
        PERFORM audit_log._check_readable(caller, target);
        SELECT t.id, t.table_schema, t.table_name INTO tracked FROM audit_log.tracked_table t WHERE t.id = audit_log._table_id(target);
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = format('table %s is not audited', target),
                HINT = 'Run audit_log.enable() on it.';
        END IF;
        SELECT * INTO found_ids FROM audit_log._record_changes(tracked.id, record_id, max_rows);
        name := audit_log._html(CASE tracked.table_schema WHEN 'public' THEN '' ELSE tracked.table_schema || '.' END || tracked.table_name);

        FOR row IN
            SELECT ROW(c.id, c.timestamp, t.user_id, c.action_type::text, tracked.table_schema, tracked.table_name, c.record_id, c.changes,
                       c.transaction_id, c.command, c.old_record_id, target, t.db_user, t.db_role, t.application_name, t.client_addr,
                       t.context, t.undoes)::audit_log.audit_logs AS change, c.timestamp
              FROM audit_log._of_record(found_ids.ids, found_ids.keys, tracked.id) c
              JOIN audit_log.transaction t ON t.id = c.transaction_id
             ORDER BY max(c.id) OVER (PARTITION BY t.xid) DESC, c.command DESC, c.id DESC
        LOOP
            IF day IS DISTINCT FROM to_char(row.timestamp, 'YYYY-MM-DD') THEN
                parts := parts || format('%s<h2><time datetime="%s">%s</time></h2><section class="timeline">', CASE WHEN day IS NULL THEN '' ELSE '</section>' END,
                    to_char(row.timestamp, 'YYYY-MM-DD'), to_char(row.timestamp, 'FMDay, FMDD FMMonth YYYY'));
                day := to_char(row.timestamp, 'YYYY-MM-DD');
            END IF;
            parts := parts || audit_log._html_entry(row.change, NULL, true);
        END LOOP;
        body := CASE WHEN day IS NULL THEN '<p class="empty">Nothing is known of this record.</p>' ELSE array_to_string(parts, E'\n') || '</section>' END;

        SELECT min(c.timestamp) AS first, max(c.timestamp) AS last, count(DISTINCT t.user_id) AS users,
               string_agg(DISTINCT t.user_id, ', ') AS names INTO facts
          FROM audit_log._of_record(found_ids.ids, found_ids.keys, tracked.id) c JOIN audit_log.transaction t ON t.id = c.transaction_id;
        IF found_ids.number > max_rows THEN
            note := format('<p class="note">The newest %s of %s changes are shown.</p>', max_rows, found_ids.number);
        END IF;
        RETURN audit_log._html_page(
            format('%s %s', name, audit_log._html(record_id)),
            format('<span class="soft">%s</span> <bdi>%s</bdi>', name, audit_log._html(found_ids.key)),
            CASE WHEN day IS NULL THEN '' ELSE format('<dl class="facts"><div><dt>Changes</dt><dd>%s</dd></div>%s%s<div><dt>%s</dt><dd>%s</dd></div><div><dt>Latest</dt><dd>%s</dd></div></dl>',
                found_ids.number,
                CASE WHEN facts.users > 0 THEN format('<div><dt>%s</dt><dd><bdi>%s</bdi></dd></div>', CASE facts.users WHEN 1 THEN 'User' ELSE facts.users || ' users' END,
                    audit_log._html(left(facts.names, 200) || CASE WHEN length(facts.names) > 200 THEN ' ...' ELSE '' END)) ELSE '' END,
                CASE WHEN found_ids.key <> record_id THEN format('<div><dt>Asked for</dt><dd><bdi>%s</bdi></dd></div>', audit_log._html(record_id)) ELSE '' END,
                CASE WHEN found_ids.number > max_rows THEN 'First shown' ELSE 'First' END, to_char(facts.first, 'YYYY-MM-DD HH24:MI'), to_char(facts.last, 'YYYY-MM-DD HH24:MI')) END || note,
            body);
    END
    $$;
COMMENT ON FUNCTION audit_log._report(oid, regclass, text, integer) IS 'report(), with the caller''s role';
CREATE FUNCTION audit_log.report(table_name regclass, record_id text, max_rows integer DEFAULT 200) RETURNS text
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.report(regclass, text, integer) IS
    'the history of a record as a page of HTML, newest change first; rights as for the views';

CREATE FUNCTION audit_log._report_transaction(caller oid, transaction_id bigint, max_rows integer) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
    AS $$
    #variable_conflict use_variable
    DECLARE
        about audit_log.transaction;
        row record;
        parts text[] := '{}';
        tables text := '';
        number bigint := 0;
        others text;
        note text := '';
        head audit_log.audit_logs;
    BEGIN
        PERFORM audit_log._check_reader(caller, max_rows);
        IF transaction_id IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'transaction_id must not be NULL';
        END IF;
        SELECT * INTO about FROM audit_log.transaction t WHERE t.id = transaction_id;
        FOR row IN
            SELECT k.table_schema, k.table_name, count(*) AS changes
              FROM audit_log.change c JOIN audit_log._tables_seen(caller) s ON s.id = c.table_id JOIN audit_log.tracked_table k ON k.id = c.table_id
             WHERE c.transaction_id = transaction_id GROUP BY k.id ORDER BY count(*) DESC, 1, 2
        LOOP
            number := number + row.changes;
            tables := tables || format('<div><dt>%s</dt><dd>%s</dd></div>',
                audit_log._html(CASE row.table_schema WHEN 'public' THEN '' ELSE row.table_schema || '.' END || row.table_name), row.changes);
        END LOOP;
        IF number = 0 THEN
            RAISE EXCEPTION USING ERRCODE = 'no_data_found',
                MESSAGE = format('there is no transaction %s with changes that the caller may see', transaction_id),
                HINT = coalesce((SELECT format('%s is an xid: its changes are those of transaction %s.', transaction_id, string_agg(t.id::text, ', ' ORDER BY t.id))
                                   FROM audit_log.transaction t WHERE t.xid::text = transaction_id::text
                                    AND EXISTS (SELECT FROM audit_log.change c JOIN audit_log._tables_seen(caller) s ON s.id = c.table_id
                                                 WHERE c.transaction_id = t.id)
                                 HAVING count(*) > 0),
                                'audit_log.transactions lists them.');
        END IF;

        FOR row IN
            SELECT ROW(c.id, c.timestamp, about.user_id, c.action_type::text, k.table_schema, k.table_name, c.record_id, c.changes,
                       c.transaction_id, c.command, c.old_record_id, NULL::regclass, about.db_user, about.db_role, about.application_name,
                       about.client_addr, about.context, about.undoes)::audit_log.audit_logs AS change
              FROM audit_log.change c JOIN audit_log._tables_seen(caller) s ON s.id = c.table_id JOIN audit_log.tracked_table k ON k.id = c.table_id
             WHERE c.transaction_id = transaction_id ORDER BY c.command DESC, c.id DESC LIMIT max_rows
        LOOP
            head := row.change;
            parts := audit_log._html_entry(row.change,
                format('%s <bdi>%s</bdi>', audit_log._html(CASE (row.change).table_schema WHEN 'public' THEN '' ELSE (row.change).table_schema || '.' END
                       || (row.change).table_name), coalesce(audit_log._html((row.change).record_id), '')), false) || parts;
        END LOOP;
        IF number > max_rows THEN
            note := format('<p class="note">The newest %s of %s changes are shown.</p>', max_rows, number);
        END IF;
        SELECT string_agg(t.id::text, ', ' ORDER BY t.id) INTO others FROM audit_log.transaction t
         WHERE t.xid = about.xid AND t.id BETWEEN about.id - 1000 AND about.id + 1000 AND t.id <> about.id AND t.started_at = about.started_at
           AND EXISTS (SELECT FROM audit_log.change c JOIN audit_log._tables_seen(caller) s ON s.id = c.table_id WHERE c.transaction_id = t.id);
        RETURN audit_log._html_page(
            format('Transaction %s', transaction_id),
            format('<span class="soft">Transaction</span> %s', transaction_id),
            format('<p class="who">%s</p>%s%s<dl class="facts"><div><dt>Changes</dt><dd>%s</dd></div>%s<div><dt>Time</dt><dd><time datetime="%s">%s</time></dd></div>%s</dl>%s',
                audit_log._html_who(head), coalesce(audit_log._html_context(about.context), ''),
                CASE WHEN about.undoes IS NOT NULL THEN format('<p class="moved">Takes back <bdi>%s</bdi></p>', audit_log._html(about.undoes::text)) ELSE '' END,
                number, tables, to_char(about.timestamp, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), to_char(about.timestamp, 'YYYY-MM-DD HH24:MI:SS'),
                coalesce('<div><dt>Same database transaction</dt><dd>' || others || '</dd></div>', ''), note),
            '<h2>What was changed</h2><section class="timeline">' || array_to_string(parts, E'\n') || '</section>');
    END
    $$;
COMMENT ON FUNCTION audit_log._report_transaction(oid, bigint, integer) IS 'report_transaction(), with the caller''s role';
CREATE FUNCTION audit_log.report_transaction(transaction_id bigint, max_rows integer DEFAULT 500) RETURNS text
    LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'audit_log_as_owner';
COMMENT ON FUNCTION audit_log.report_transaction(bigint, integer) IS
    'the changes of a transaction as a page of HTML, in their order; rights as for the views';

/* ------------------------------------------- rights of outbox and reports */

DO $$
DECLARE
    object record;
    owner name := (SELECT pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class c WHERE c.oid = 'audit_log.change'::pg_catalog.regclass);
    installer name := (SELECT pg_catalog.pg_get_userbyid(e.extowner) FROM pg_catalog.pg_extension e WHERE e.extname = 'audit_log');
    made text[] := ARRAY['_next_xid', '_record_restore', 'on_restore', '_make_restore_trigger', '_add_guard', '_make_xid_index', '_outbox_snapshot',
        '_create_consumer', 'create_consumer', '_drop_consumer', 'drop_consumer', '_lock_consumer', '_begin_batch', '_end_batch',
        '_batch_transactions', '_batch_changes', '_waypoints', '_poll', 'poll', '_ack', 'ack', '_consumers', 'consumers', '_html', '_html_value', '_html_delta', '_html_changes', '_html_context', '_html_entry', '_html_who',
        '_html_page', '_check_reader', '_record_changes', '_of_record', '_tables_seen', '_report', 'report', '_report_transaction', 'report_transaction'];
BEGIN
    FOR object IN
        SELECT 'FUNCTION ' || p.oid::pg_catalog.regprocedure AS name FROM pg_catalog.pg_proc p
         WHERE p.pronamespace = 'audit_log'::pg_catalog.regnamespace AND p.proname = ANY (made)
        UNION ALL SELECT pg_catalog.unnest(ARRAY['TYPE audit_log.outbox_cursor', 'TABLE audit_log.consumer', 'TABLE audit_log.restored'])
    LOOP
        EXECUTE pg_catalog.format('ALTER %s OWNER TO %I', object.name, owner);
    END LOOP;
    -- what ALTER DEFAULT PRIVILEGES may have given, too
    FOR object IN
        SELECT 'FUNCTION ' || p.oid::pg_catalog.regprocedure AS name, a.grantee
          FROM pg_catalog.pg_proc p,
               LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
         WHERE p.pronamespace = 'audit_log'::pg_catalog.regnamespace AND p.proname = ANY (made) AND a.grantee <> p.proowner
        UNION
        SELECT 'TABLE ' || c.oid::pg_catalog.regclass, a.grantee
          FROM pg_catalog.pg_class c, LATERAL pg_catalog.aclexplode(c.relacl) a
         WHERE c.oid IN ('audit_log.consumer'::pg_catalog.regclass, 'audit_log.restored'::pg_catalog.regclass) AND a.grantee <> c.relowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s CASCADE', object.name,
            CASE WHEN object.grantee = 0 THEN 'PUBLIC'
                 ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(object.grantee)) END);
    END LOOP;
    -- its pg_dump reads them
    EXECUTE pg_catalog.format('GRANT SELECT ON audit_log.consumer, audit_log.restored TO %I', installer);
    EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION audit_log.create_consumer(text, regrole, boolean), audit_log.drop_consumer(text) TO %I', installer);
END
$$;

/* these look at the caller's rights themselves */
GRANT EXECUTE ON FUNCTION audit_log.poll(text, integer), audit_log.ack(text, bigint), audit_log.consumers(),
    audit_log.report(regclass, text, integer), audit_log.report_transaction(bigint, integer) TO PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('audit_log.consumer', '');
SELECT pg_catalog.pg_extension_config_dump('audit_log.restored', '');

/*
 * A lock that writers hold is not waited for: an update must not stop them.  Then
 * the first create_consumer() makes the trigger.  A restore's CREATE EXTENSION
 * finds no writer.
 */
DO $$
BEGIN
    LOCK TABLE audit_log.transaction IN SHARE ROW EXCLUSIVE MODE NOWAIT;
    PERFORM audit_log._make_restore_trigger();
EXCEPTION WHEN lock_not_available THEN
    RAISE DEBUG 'audit_log: trigger audit_log_restored is made with the first consumer';
END
$$;
