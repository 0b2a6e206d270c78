-- The application's interface is functions: each tells who and why before it writes, and nobody else writes.
--     psql -X -v ON_ERROR_STOP=1 -f orders.sql
CREATE SCHEMA shop;
CREATE TABLE shop.orders (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text NOT NULL, state text NOT NULL DEFAULT 'open');
-- a change without user and reason is refused, whoever makes it
SELECT audit_log.enable('shop.orders', require => '{user_id,reason}');

CREATE FUNCTION shop.place_order(customer text, item text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    id integer;
BEGIN
    PERFORM audit_log.set_context(customer, jsonb_build_object('reason', 'order', 'by', session_user));
    INSERT INTO shop.orders (item) VALUES (place_order.item) RETURNING orders.id INTO id;
    RETURN id;
END
$$;

-- many at once: each order's change has its own customer, though the transaction is one
CREATE FUNCTION shop.close_orders(customers text[], ids integer[]) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    closed integer := 0;
BEGIN
    FOR n IN 1 .. cardinality(ids) LOOP
        PERFORM audit_log.set_context(customers[n], '{"reason": "delivered"}');
        UPDATE shop.orders SET state = 'closed' WHERE id = ids[n] AND state = 'open';
        IF FOUND THEN
            closed := closed + 1;
        END IF;
    END LOOP;
    RETURN closed;
END
$$;
REVOKE ALL ON FUNCTION shop.place_order, shop.close_orders FROM PUBLIC;
