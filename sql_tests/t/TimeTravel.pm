# The oracle of time travel: a schema with foreign keys, random transactions of many kinds from
# several sessions, and at random moments a mark with a copy of every table, both of one
# REPEATABLE READ transaction. What audit_log says of a mark is then compared with the copy.
#
#     my $oracle = TimeTravel->new($node, $db);
#     $oracle->load($seconds);             # random work, marks and copies meanwhile
#     $oracle->marks;                      # their names, oldest first
#     $oracle->possible_marks;             # those of what a table can be
#     $oracle->tables;
#     $oracle->wrong_as_of($mark);         # '' or what differs, as text
#     $oracle->wrong_diff($from, $to);
#     $oracle->wrong_now($mark);           # the tables themselves against the copy (after a rollback, say)
#     $oracle->alter($sql);                # what is done to the tables is done to their copies, the
#                                          # schemas being app and copy:  ALTER TABLE SCHEMA.orders …
#     $oracle->on($other_node, $db);       # goes on there (after a restore)

package TimeTravel;

use strict;
use warnings;
use utf8;
use AuditLogTest ();

sub new
{
	my ($class, $node, $db) = @_;
	my $self = bless { node => $node, db => $db // 'postgres', tables => [qw(customer orders item part keyless)], runs => 0 }, $class;
	$self->_make;
	return $self;
}

sub on { my ($self, $node, $db) = @_; @$self{qw(node db)} = ($node, $db // 'postgres'); return $self }
sub tables { return @{ $_[0]{tables} } }
sub sql { my ($self, $sql) = @_; return $self->{node}->sql($sql, db => $self->{db}) }

sub marks
{
	my ($self) = @_;
	return split /\n/, $self->sql('SELECT name FROM audit_log.marks ORDER BY timestamp');
}

# A snapshot may show two rows of one key: its own INSERT in the place of a row that a transaction deleted
# which it does not see. No table can be brought back to that.
sub possible_marks
{
	my ($self) = @_;
	return split /\n/, $self->sql(<<'END');
SELECT name FROM audit_log.marks m
 WHERE NOT EXISTS (SELECT FROM copy.customer WHERE mark = m.name GROUP BY id HAVING count(*) > 1)
   AND NOT EXISTS (SELECT FROM copy.orders WHERE mark = m.name GROUP BY id HAVING count(*) > 1)
   AND NOT EXISTS (SELECT FROM copy.item WHERE mark = m.name GROUP BY orders, n HAVING count(*) > 1)
   AND NOT EXISTS (SELECT FROM copy.part WHERE mark = m.name GROUP BY id, region HAVING count(*) > 1)
 ORDER BY timestamp
END
}

sub _make
{
	my ($self) = @_;
	$self->sql(<<'END');
CREATE EXTENSION IF NOT EXISTS audit_log;
CREATE SCHEMA app;
CREATE SCHEMA copy;
CREATE TABLE app.customer (
    id int PRIMARY KEY,
    name text,
    balance numeric NOT NULL DEFAULT 0,
    attrs jsonb,
    raw json,
    parent int REFERENCES app.customer ON DELETE SET NULL ON UPDATE CASCADE,
    weight float8
);
CREATE TABLE app.orders (
    id int PRIMARY KEY,
    customer int REFERENCES app.customer ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE,
    note text,
    qty int,
    tags text[],
    made timestamptz
);
CREATE TABLE app.item (
    gone int,
    orders int REFERENCES app.orders ON DELETE CASCADE ON UPDATE CASCADE,
    n int,
    price numeric(12,2),
    twice numeric GENERATED ALWAYS AS (price * 2) STORED,
    PRIMARY KEY (orders, n)
);
-- numbers with a gap: a dump closes it
ALTER TABLE app.item DROP COLUMN gone;
CREATE TABLE app.part (id int, region int, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE app.part_0 PARTITION OF app.part FOR VALUES IN (0);
CREATE TABLE app.part_1 (v text, extra int, region int NOT NULL, id int NOT NULL);
ALTER TABLE app.part_1 DROP COLUMN extra;
ALTER TABLE app.part ATTACH PARTITION app.part_1 FOR VALUES IN (1);
CREATE TABLE app.keyless (a int, b text);
INSERT INTO app.customer (id, name, attrs) SELECT g, 'before tracking', '{"a": {"b": 1}}' FROM generate_series(1, 15) g;
INSERT INTO app.part SELECT g, g % 2, 'before' FROM generate_series(1, 20) g;
INSERT INTO app.keyless SELECT g / 3, 'before' FROM generate_series(1, 12) g;
SELECT audit_log.enable(t) FROM unnest('{app.customer, app.orders, app.item, app.part, app.keyless}'::regclass[]) t;

-- changes made from inside others
CREATE FUNCTION app.after_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() < 3 THEN
        UPDATE app.customer SET balance = balance + coalesce(NEW.qty, 0) WHERE id = NEW.customer;
        BEGIN
            INSERT INTO app.keyless VALUES (NEW.id, 'order ' || coalesce(NEW.note, ''));
            IF NEW.qty % 5 = 0 THEN
                UPDATE app.orders SET note = 'again' WHERE id = NEW.id;
                PERFORM 1 / (NEW.qty % 2);
            END IF;
        EXCEPTION WHEN division_by_zero THEN
            DELETE FROM app.keyless WHERE a = NEW.id AND b = 'order again';
        END;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER a_first AFTER INSERT OR UPDATE ON app.orders FOR EACH ROW EXECUTE FUNCTION app.after_order();
CREATE FUNCTION app.before_item() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.price < 0 THEN RETURN NULL; END IF;
    NEW.price := NEW.price + 0.01;
    RETURN NEW;
END $$;
CREATE TRIGGER before_item BEFORE INSERT OR UPDATE ON app.item FOR EACH ROW EXECUTE FUNCTION app.before_item();

CREATE FUNCTION app.pick(int) RETURNS int LANGUAGE sql AS $$ SELECT 1 + floor(random() * $1)::int $$;

-- one random change; what fails has not happened
CREATE FUNCTION app.change_something() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    x int := app.pick(25);
    y int := app.pick(25);
BEGIN
    CASE app.pick(26)
    WHEN 1, 2 THEN INSERT INTO app.customer VALUES (x, 'new', y, jsonb_build_object('n', x, 'o', jsonb_build_object('p', y)), '{"x" :  1}', nullif(y, x), '-0')
        ON CONFLICT (id) DO UPDATE SET name = excluded.name || y, attrs = customer.attrs || excluded.attrs;
    WHEN 3, 4 THEN UPDATE app.customer SET attrs = jsonb_set(coalesce(attrs, '{}'), '{a}', to_jsonb(y)), weight = 1.0 / y WHERE id % 5 = x % 5;
    WHEN 5 THEN UPDATE app.customer SET attrs = attrs #- '{a,b}', balance = -balance, raw = '[1,  2]' WHERE id = x;
    WHEN 6 THEN UPDATE app.customer SET attrs = CASE x % 3 WHEN 0 THEN NULL WHEN 1 THEN 'null'::jsonb ELSE '{"a": {"b": {"c": [1]}}}' END WHERE id = y;
    WHEN 7 THEN UPDATE app.customer SET id = x WHERE id = y;
    WHEN 8 THEN UPDATE app.customer SET parent = nullif(x, id) WHERE id = y;
    WHEN 9 THEN DELETE FROM app.customer WHERE id = x;
    WHEN 10, 11, 12 THEN INSERT INTO app.orders SELECT g, y, 'n' || x, g % 11, ARRAY['x', NULL, y::text], clock_timestamp()
        FROM generate_series(x * 3, x * 3 + app.pick(4)) g ON CONFLICT DO NOTHING;
    WHEN 13, 14 THEN UPDATE app.orders SET qty = qty + 1, tags = tags || y::text WHERE id % 7 = x % 7;
    WHEN 15 THEN UPDATE app.orders SET id = id + app.pick(40) WHERE id BETWEEN x AND x + 2;
    WHEN 16 THEN DELETE FROM app.orders WHERE id % 9 = x % 9;
    WHEN 17, 18 THEN INSERT INTO app.item (orders, n, price) SELECT o.id, y, x - 3 FROM app.orders o WHERE o.id % 4 = x % 4 ON CONFLICT DO NOTHING;
    WHEN 19 THEN UPDATE app.item SET price = price * 1.5, n = CASE WHEN x % 3 = 0 THEN n + 1 ELSE n END WHERE orders = y;
    WHEN 20 THEN INSERT INTO app.part VALUES (x, y % 2, 'p' || y) ON CONFLICT DO NOTHING;
    WHEN 21 THEN UPDATE app.part SET region = 1 - region, v = v || '!' WHERE id = x;
    WHEN 22 THEN UPDATE app.part SET v = left(v || y, 20) WHERE region = x % 2;
    WHEN 23 THEN DELETE FROM app.part WHERE id % 6 = x % 6;
    WHEN 24 THEN UPDATE app.keyless SET b = left(y::text || keyless.b, 12) WHERE keyless.a % 4 = y % 4;
    WHEN 25 THEN DELETE FROM app.keyless WHERE keyless.a % 3 = app.pick(3);
    ELSE
        CASE app.pick(5)
        WHEN 1 THEN TRUNCATE app.keyless;
        -- (a transaction that makes a mark under REPEATABLE READ does not: of a partition emptied
        -- under rows that its snapshot does not see the log cannot tell which they were)
        WHEN 2 THEN
            IF current_setting('app.copying', true) IS DISTINCT FROM 'yes' THEN TRUNCATE app.part_0; END IF;
        WHEN 3 THEN TRUNCATE app.item;
        ELSE INSERT INTO app.keyless SELECT x, 'same' FROM generate_series(1, 3);
        END CASE;
    END CASE;
END $$;
CREATE FUNCTION app.work() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. app.pick(4) LOOP
        BEGIN
            PERFORM app.change_something();
            IF app.pick(4) = 1 THEN PERFORM app.change_something(); END IF;
            IF app.pick(6) = 1 THEN RAISE EXCEPTION 'never mind' USING ERRCODE = 'ZZ001'; END IF;
        EXCEPTION WHEN SQLSTATE 'ZZ001' OR integrity_constraint_violation OR object_in_use OR data_exception THEN NULL;
        END;
        IF app.pick(8) = 1 THEN PERFORM set_config('audit_log.user_id', app.pick(9)::text, true); END IF;
    END LOOP;
END $$;
-- a mark and what it saw, its own transaction's changes so far included; then more of those
CREATE FUNCTION app.copy_everything() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    name text := 'mark ' || nextval('copy.number');
    t text;
BEGIN
    PERFORM set_config('app.copying', 'yes', true);
    IF app.pick(2) = 1 THEN PERFORM app.work(); END IF;
    PERFORM audit_log.mark(name);
    FOREACH t IN ARRAY '{customer, orders, item, part, keyless}'::text[] LOOP
        EXECUTE format('INSERT INTO copy.%I SELECT %L, t.* FROM app.%I t', t, name, t);
    END LOOP;
    IF app.pick(2) = 1 THEN PERFORM app.work(); END IF;
END $$;
CREATE SEQUENCE copy.number;
DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY '{customer, orders, item, part, keyless}'::text[] LOOP
        EXECUTE format('CREATE TABLE copy.%I AS SELECT NULL::text AS mark, t.* FROM app.%I t WHERE false', t, t);
    END LOOP;
END $$;
SELECT app.copy_everything();

-- both sides as text, which shows all that an image of these types can be; without the mark
CREATE FUNCTION copy.columns(name text, of_diff boolean DEFAULT false) RETURNS text LANGUAGE sql AS $$
    -- jsonb_populate_record() takes a JSON null for NULL, and reads no json out of a string; where rows are
    -- told apart by all their columns, diff leaves out one that only one of the moments has
    SELECT string_agg(CASE WHEN of_diff AND attname = 'attrs' THEN 'nullif(attrs, ''null''::jsonb)' ELSE quote_ident(attname) END,
                      ', ' ORDER BY attname) FROM pg_attribute
     WHERE attrelid = ('app.' || name)::regclass AND attnum > 0 AND NOT attisdropped AND NOT (of_diff AND attname IN ('raw', 'added'))
$$;
CREATE FUNCTION copy.wrong(name text, what text, mark text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
    columns text := copy.columns(name);
BEGIN
    EXECUTE format('SELECT string_agg(format(''%%s %%s'', n, t), e''\n'') FROM (SELECT t, sum(n) AS n FROM ('
        'SELECT ROW(%s)::text AS t, 1 AS n FROM %s UNION ALL SELECT ROW(%s)::text, -1 FROM copy.%I WHERE mark = %L) x '
        'GROUP BY t HAVING sum(n) <> 0) y', columns, what, columns, name, mark) INTO result;
    RETURN result;
END $$;
CREATE FUNCTION copy.wrong_diff(name text, from_mark text, to_mark text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
    columns text := copy.columns(name, true);
BEGIN
    EXECUTE format('WITH d AS MATERIALIZED (SELECT * FROM audit_log.diff(%L, %L, %L)) '
        'SELECT string_agg(format(''%%s %%s'', n, t), e''\n'') FROM (SELECT t, sum(n) AS n FROM ('
        'SELECT ROW(%s)::text AS t, 1 AS n FROM copy.%I WHERE mark = %L '
        'UNION ALL SELECT ROW(%s)::text, -1 FROM d, jsonb_populate_record(NULL::app.%I, plain(d.before)) WHERE before IS NOT NULL '
        'UNION ALL SELECT ROW(%s)::text, 1 FROM d, jsonb_populate_record(NULL::app.%I, plain(d.after)) WHERE after IS NOT NULL '
        'UNION ALL SELECT ROW(%s)::text, -1 FROM copy.%I WHERE mark = %L '
        'UNION ALL SELECT ''no change: '' || record_id, 1 FROM d WHERE before = after AND before::text = after::text) x '
        'GROUP BY t HAVING sum(n) <> 0) y',
        'app.' || name, from_mark, to_mark, columns, name, from_mark, columns, name, columns, name, columns, name, to_mark) INTO result;
    RETURN result;
END $$;
-- {"$pg": "text"} as the text alone
CREATE FUNCTION copy.plain(object jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_object_agg(key, CASE WHEN jsonb_typeof(value) = 'object' AND value ? '$pg' AND value - '$pg' = '{}'
                                      THEN nullif(value -> '$pg', '"null"') ELSE value END) FROM jsonb_each($1)
$$;
ALTER FUNCTION copy.wrong_diff(text, text, text) SET search_path = copy, pg_catalog;
END
}

# random work for so many seconds, by four sessions, and marks by one more
sub load
{
	my ($self, $seconds) = @_;
	my $folder = AuditLogTest->folder;
	my $run = ++$self->{runs};
	my %scripts = (
		work => <<'END',
\set end random(1, 10)
\set pause random(1, 40)
BEGIN;
SELECT app.work();
\if :end = 1
ROLLBACK;
\elif :end = 2
PREPARE TRANSACTION 'work :client_id';
\sleep :pause ms
COMMIT PREPARED 'work :client_id';
\elif :end = 3
PREPARE TRANSACTION 'work :client_id';
ROLLBACK PREPARED 'work :client_id';
\elif :end = 4
SAVEPOINT a;
SELECT app.work();
\sleep :pause ms
ROLLBACK TO a;
SELECT app.work();
COMMIT;
\else
\sleep :pause ms
COMMIT;
\endif
END
		copy => <<'END',
BEGIN ISOLATION LEVEL REPEATABLE READ;
LOCK TABLE app.customer, app.orders, app.item, app.part, app.keyless IN ACCESS SHARE MODE;
SELECT app.copy_everything();
COMMIT;
END
	);
	my @files;
	for my $name (sort keys %scripts)
	{
		my $file = "$folder/$name$run.sql";
		open my $handle, '>', $file or die $!;
		print $handle $scripts{$name};
		close $handle;
		push @files, '-f', $file . ($name eq 'work' ? '@30' : '');
	}
	$self->{node}->run_ok('pgbench', '-n', '-c', 5, '-T', $seconds, '--max-tries=1000', @files, $self->{db}, { timeout => $seconds + 120 });
	return;
}

sub _wrong
{
	my ($self, $function, @arguments) = @_;
	my $result = '';
	for my $table ($self->tables)
	{
		my $text = $self->sql(sprintf 'SELECT copy.%s(%s)', $function, join ', ', map { ref $_ ? $_->($table) : "'$_'" } \&_name, @arguments);
		$result .= "$table:\n$text\n" if $text ne '';
	}
	return $result;
}

sub _name { return "'$_[0]'" }

sub wrong_as_of { my ($self, $mark) = @_; return $self->_wrong('wrong', sub { "'audit_log.as_of(NULL::app.$_[0], ''$mark'')'" }, $mark) }
sub wrong_now { my ($self, $mark) = @_; return $self->_wrong('wrong', sub { "'app.$_[0]'" }, $mark) }
sub wrong_diff { my ($self, $from, $to) = @_; return $self->_wrong('wrong_diff', $from, $to) }

sub alter
{
	my ($self, $sql) = @_;
	for my $schema ('app', 'copy')
	{
		(my $text = $sql) =~ s/\bSCHEMA\b/$schema/g;
		$self->sql($text);
	}
}

1;
