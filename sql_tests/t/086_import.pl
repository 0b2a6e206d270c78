# The recipes of examples/import: what supa_audit, audit-trigger and SQLAlchemy-Continuum have logged comes into the
# log with its times, users and transactions, in partitions of its months; replayed, it gives the tables; and tracking
# goes on from there. The former logs are written here by triggers as small as can be, into tables of their shape.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $recipes = "$FindBin::RealBin/../../examples/import";
my $node = AuditLogTest->new('import');
$node->sql('CREATE ROLE installer LOGIN; CREATE ROLE other LOGIN');

my $tables = <<'END';
CREATE SCHEMA "my app";
CREATE TABLE "my app".mine (id int PRIMARY KEY, name text, depth numeric, attrs jsonb, made timestamptz, tags text[], raw bytea);
CREATE TABLE "my app"."Two ""Keys" (a int, "B" text, n int, PRIMARY KEY (a, "B"));
CREATE TABLE "my app".keyless (a int, b text);
CREATE TABLE gone (id int PRIMARY KEY, v text);
END
my $work = <<'END';
INSERT INTO "my app".mine VALUES (1, 'Kettle', 120.50, '{"ore": "iron", "deep": {"a": 1, "b": [1]}}', '2019-01-01 12:00+02', '{a,"b c"}', '\xdeadbeef'), (2, 'Nora', NULL, '{"$pg": 1}', NULL, NULL, NULL);
BEGIN;
UPDATE "my app".mine SET name = 'Old Kettle', attrs = '{"ore": "zinc", "deep": {"a": 1, "b": [2]}}' WHERE id = 1;
INSERT INTO "my app"."Two ""Keys" VALUES (1, 'x', 1), (2, 'y "z"', 2);
COMMIT;
UPDATE "my app".mine SET attrs = '{"$pg": 2}', depth = 'NaN' WHERE id = 2;
UPDATE "my app"."Two ""Keys" SET "B" = 'q' WHERE a = 1;
UPDATE "my app"."Two ""Keys" SET n = NULL WHERE a = 2;
INSERT INTO "my app".keyless VALUES (1, 'a'), (1, 'a');
UPDATE "my app".keyless SET b = 'b' WHERE ctid = (SELECT min(ctid) FROM "my app".keyless);
INSERT INTO gone VALUES (1, 'was here');
UPDATE gone SET v = 'was there';
DELETE FROM "my app".mine WHERE id = 2;
INSERT INTO "my app".mine (id, name) VALUES (2, 'again'), (3, NULL);
UPDATE "my app".mine SET name = name;
END

# every record with its changes applied one after the other, in the order of the log, must be as it is in the table
my $functions = <<'END';
CREATE FUNCTION replayed(state jsonb, changes jsonb, action text) RETURNS jsonb LANGUAGE sql AS $$
    SELECT CASE action WHEN 'DELETE' THEN NULL WHEN 'UPDATE' THEN jsonb_strip_nulls(audit_log.jsonb_patch(state, changes)) ELSE changes END $$;
CREATE AGGREGATE replay(jsonb, text) (sfunc = replayed, stype = jsonb);
CREATE FUNCTION differs(target regclass) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE format($q$
        WITH logged AS (SELECT record_id, replay(changes, action_type ORDER BY id) AS row
                          FROM audit_log.audit_logs WHERE relation = $1 GROUP BY record_id),
             actual AS (SELECT jsonb_strip_nulls(CASE WHEN to_jsonb(t) -> 'attrs' ? '$pg' THEN jsonb_set(to_jsonb(t), '{attrs}', jsonb_build_object('$pg', (to_jsonb(t) -> 'attrs')::text)) ELSE to_jsonb(t) END) AS row FROM %s t)
        (SELECT concat('logged ', row) FROM logged WHERE row IS NOT NULL EXCEPT SELECT concat('logged ', row) FROM actual)
        UNION ALL (SELECT concat('actual ', row) FROM actual EXCEPT SELECT concat('actual ', row) FROM logged)$q$, target) USING target;
END $$;
END

sub database
{
	my ($db, $sql) = @_;
	$node->sql("CREATE DATABASE $db OWNER installer");
	$node->sql('CREATE EXTENSION audit_log', db => $db, user => 'installer');
	$node->sql('GRANT ALL ON SCHEMA public TO installer', db => $db);
	$node->sql($tables . $sql, db => $db);
	$node->sql($functions, db => $db);
}
sub recipe
{
	my ($db, $name) = @_;
	# whatever the settings of who runs it
	$node->run_ok('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $db, '-c', q(SET timezone = 'Asia/Tokyo'; SET intervalstyle = 'iso_8601'; SET bytea_output = 'escape'),
		'-f', "$recipes/$name.sql");
}

# ---------------------------------------------------------------- supa_audit

database('supa', <<'END');
CREATE SCHEMA audit;
CREATE TYPE audit.operation AS ENUM ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE');
CREATE TABLE audit.record_version (id bigserial PRIMARY KEY, record_id uuid, old_record_id uuid, op audit.operation NOT NULL, ts timestamptz NOT NULL DEFAULT now(),
    table_oid oid NOT NULL, table_schema name NOT NULL, table_name name NOT NULL, record jsonb, old_record jsonb);
CREATE FUNCTION audit.track() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit.record_version (op, ts, table_oid, table_schema, table_name, record, old_record)
    -- a long time ago, a month for each transaction
    VALUES (TG_OP::audit.operation, now() - interval '7 years' + interval '1 month' * (txid_current() % 6), TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME,
        CASE WHEN TG_OP IN ('INSERT', 'UPDATE') THEN to_jsonb(NEW) END, CASE WHEN TG_OP IN ('UPDATE', 'DELETE') THEN to_jsonb(OLD) END);
    RETURN NULL;
END $$;
DO $$ DECLARE t regclass; BEGIN
    FOREACH t IN ARRAY ARRAY['"my app".mine', '"my app"."Two ""Keys"', '"my app".keyless', 'gone']::regclass[] LOOP
        EXECUTE format('CREATE TRIGGER track AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION audit.track()', t);
        EXECUTE format('CREATE TRIGGER track_all AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION audit.track()', t);
    END LOOP;
END $$;
END
$node->sql($work . 'DROP TABLE gone; ALTER TABLE "my app".mine RENAME TO renamed', db => 'supa');
recipe('supa', 'supa_audit');
is($node->sql(q(SELECT count(*) FILTER (WHERE change_id IS NULL), count(*) = (SELECT count(*) FROM audit.record_version) FROM audit_log_import), db => 'supa'), '3|t', 'supa_audit: each entry, those that changed nothing as such');
is($node->sql(qq(SELECT differs('"my app".renamed')), db => 'supa'), '', 'supa_audit: replayed it is the table, also under its new name');
is($node->sql(q(SELECT string_agg(concat_ws(' ', action_type, old_record_id, record_id, changes), '; ' ORDER BY id) FROM audit_log.audit_logs WHERE table_name = 'Two "Keys'), db => 'supa'),
	q(INSERT ["1", "x"] {"B": "x", "a": 1, "n": 1}; INSERT ["2", "y \"z\""] {"B": "y \"z\"", "a": 2, "n": 2}; UPDATE ["1", "x"] ["1", "q"] {"B": ["x", "q"]}; UPDATE ["2", "y \"z\""] {"n": [2, null]}),
	'supa_audit: keys of two columns');
is($node->sql(q(SELECT string_agg(concat_ws(' ', action_type, coalesce(record_id, '-'), changes), '; ' ORDER BY id) FROM audit_log.audit_logs WHERE table_name = 'keyless'), db => 'supa'),
	q(INSERT - {"a": 1, "b": "a"}; INSERT - {"a": 1, "b": "a"}; UPDATE - {"a": [1, 1], "b": ["a", "b"]}), 'supa_audit: without a key');
is($node->sql(q(SELECT string_agg(concat_ws(' ', action_type, relation, changes), '; ' ORDER BY id) FROM audit_log.audit_logs WHERE table_name = 'gone'), db => 'supa'),
	q(INSERT {"v": "was here", "id": 1}; UPDATE {"v": ["was here", "was there"]}), 'supa_audit: of a table that is gone');
is($node->sql(q(SELECT string_agg(concat_ws(' ', column_name, path::text, old_value, new_value), '; ' ORDER BY column_name, path) FROM audit_log.column_changes
	WHERE table_name = 'renamed' AND record_id = '1' AND action_type = 'UPDATE'), db => 'supa'),
	q(attrs {deep,b} [1] [2]; attrs {ore} "iron" "zinc"; name {} "Kettle" "Old Kettle"), 'supa_audit: nested values one by one');
is($node->sql(q(SELECT count(*) FROM audit_log_import i JOIN audit.record_version v ON v.id = i.original JOIN audit_log.audit_logs l ON l.id = i.change_id WHERE l.timestamp <> v.ts), db => 'supa'), '0', 'supa_audit: with their times');
is($node->sql(q(SELECT count(DISTINCT v.ts) = count(DISTINCT l.transaction_id) FROM audit_log_import i JOIN audit.record_version v ON v.id = i.original JOIN audit_log.audit_logs l ON l.id = i.change_id), db => 'supa'), 't', 'supa_audit: one transaction is one');
is($node->sql(q(SELECT count(*) FROM audit_log.change_default), db => 'supa'), '0', 'supa_audit: each month has its partition');
cmp_ok($node->sql(q(SELECT count(*) FROM pg_inherits WHERE inhparent = 'audit_log.change'::regclass), db => 'supa'), '>=', 5, 'supa_audit: partitions were made');
is($node->sql(q(SELECT string_agg(DISTINCT context #>> '{imported,source}', ' ') FROM audit_log.transactions), db => 'supa'), 'audit.record_version', 'supa_audit: where it is from');

# tracking goes on from there, and nothing is imported behind it
$node->sql(q(SELECT audit_log.enable('"my app".renamed'); UPDATE "my app".renamed SET name = 'tracked' WHERE id = 1), db => 'supa');
is($node->sql(q(SELECT string_agg(action_type, ' ' ORDER BY id) FROM audit_log.audit_logs WHERE relation = '"my app".renamed'::regclass AND record_id = '1'), db => 'supa'), 'INSERT UPDATE UPDATE', 'a record has its history, old and new');
is($node->sql(qq(SELECT differs('"my app".renamed')), db => 'supa'), '', 'which gives the table');
is($node->sql('SELECT count(*) FROM audit_log.check()', db => 'supa'), '0', 'nothing amiss');
# looking back: the history goes on from what was imported, a moment before tracking began is refused
$node->sql(q(SELECT audit_log.mark('imported'); UPDATE "my app".renamed SET name = 'later' WHERE id = 1), db => 'supa');
my ($history, undef, $notice) = ($node->psql(q(SELECT string_agg(concat_ws(' ', action_type, record ->> 'name'), '; ' ORDER BY version) FROM audit_log.history('"my app".renamed', '1')), db => 'supa'))[1, 0, 2];
is($history, 'INSERT Kettle; UPDATE Old Kettle; UPDATE tracked; UPDATE later', 'history() of imported and captured changes');
like($notice, qr/something of this record may not have been captured/, 'which says that there may be something in between');
is($node->sql(q(SELECT name FROM audit_log.as_of(NULL::"my app".renamed, 'imported') WHERE id = 1), db => 'supa'), 'tracked', 'as_of() a mark after the import');
is($node->sql(q(SELECT changes FROM audit_log.diff('"my app".renamed', 'imported', now()) WHERE record_id = '1'), db => 'supa'), '{"name": ["tracked", "later"]}', 'diff()');
like(($node->psql(q(SELECT * FROM audit_log.as_of(NULL::"my app".renamed, now() - interval '1 year')), db => 'supa'))[2], qr/Its audit began later/, 'as_of() a time before');
is($node->sql(q(SELECT action_type, conflict FROM audit_log.rollback_to('{"\\"my app\\".renamed"}', 'imported')), db => 'supa'), 'UPDATE|', 'rollback_to() a mark after the import');
my @call = (q(SELECT audit_log.import_change('"my app".%s', '%s', '%s', %s, %s, 'x')), {});
my ($rc, $out, $err) = $node->psql(sprintf($call[0], 'renamed', 'I', '2019-01-01', 'NULL', q('{"id": 9}')), db => 'supa');
like($err, qr/^ERROR:  table "my app"\.renamed has a log of its own already\nDETAIL:.*\nHINT:  Import first/m, 'not behind what was logged');
my $folder = AuditLogTest->folder;
$node->run_ok('pg_dump', '-d', 'supa', '-U', 'postgres', '-f', "$folder/dump");
$node->sql('CREATE DATABASE restored');
$node->run_ok('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', 'restored', '-f', "$folder/dump");
my $all = 'SELECT * FROM audit_log.audit_logs ORDER BY id';
is($node->sql($all, db => 'restored'), $node->sql($all, db => 'supa'), 'and comes through dump and restore');

# an xid is its cluster's: the first row that is imported in another one is noted as its first
my $noted = 'SELECT count(*), min(first_transaction_id) = (SELECT min(id) FROM audit_log.transaction), max(first_transaction_id) = (SELECT max(id) FROM audit_log.transaction) FROM audit_log.cluster';
is($node->sql($noted, db => 'supa'), '1|t|f', 'the cluster is noted with the first row');
my $elsewhere = AuditLogTest->new('elsewhere');
$elsewhere->sql('CREATE ROLE installer; CREATE ROLE other');
$elsewhere->sql('CREATE DATABASE restored');
$elsewhere->run_ok('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', 'restored', '-f', "$folder/dump");
$elsewhere->sql(sprintf($call[0], 'other', 'I', '2019-01-01', 'NULL', q('{"id": 9}')), db => 'restored');
is($elsewhere->sql($noted, db => 'restored'), '2|t|t', 'and another one with the first that is imported there');

# ---------------------------------------------------------------- audit-trigger

SKIP:
{
	AuditLogTest->skip_aloud(7, 'no hstore') if $node->sql("SELECT count(*) FROM pg_available_extensions WHERE name = 'hstore'") eq '0';
	database('trigger', <<'END');
CREATE EXTENSION hstore;
CREATE SCHEMA audit;
CREATE TABLE audit.logged_actions (event_id bigserial PRIMARY KEY, schema_name text NOT NULL, table_name text NOT NULL, relid oid NOT NULL, session_user_name text,
    action_tstamp_tx timestamptz NOT NULL, action_tstamp_stm timestamptz NOT NULL, action_tstamp_clk timestamptz NOT NULL, transaction_id bigint,
    application_name text, client_addr inet, client_port integer, client_query text, action text NOT NULL CHECK (action IN ('I', 'D', 'U', 'T')),
    row_data hstore, changed_fields hstore, statement_only boolean NOT NULL);
CREATE FUNCTION audit.track() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit.logged_actions (schema_name, table_name, relid, session_user_name, action_tstamp_tx, action_tstamp_stm, action_tstamp_clk, transaction_id,
        application_name, client_addr, client_port, action, row_data, changed_fields, statement_only)
    VALUES (TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_RELID, session_user, now() - interval '3 years', statement_timestamp() - interval '3 years', clock_timestamp() - interval '3 years', txid_current(),
        'an application', '192.0.2.1', 4711, left(TG_OP, 1),
        CASE TG_LEVEL WHEN 'ROW' THEN CASE TG_OP WHEN 'INSERT' THEN hstore(NEW) ELSE hstore(OLD) END END,
        CASE WHEN TG_OP = 'UPDATE' AND TG_LEVEL = 'ROW' THEN hstore(NEW) - hstore(OLD) END, TG_LEVEL = 'STATEMENT');
    RETURN NULL;
END $$;
DO $$ DECLARE t regclass; BEGIN
    FOREACH t IN ARRAY ARRAY['"my app".mine', '"my app"."Two ""Keys"', '"my app".keyless', 'gone']::regclass[] LOOP
        EXECUTE format('CREATE TRIGGER track AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION audit.track()', t);
        EXECUTE format('CREATE TRIGGER track_all AFTER UPDATE OR TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION audit.track()', t);
    END LOOP;
END $$;
END
	$node->sql($work . 'TRUNCATE "my app".keyless; DROP TABLE gone', db => 'trigger');
	recipe('trigger', 'audit_trigger');
	is($node->sql(qq(SELECT differs('"my app".mine')), db => 'trigger'), '', 'audit-trigger: replayed it is the table, each value of its type');
	is($node->sql(q(SELECT string_agg(concat_ws(' ', action_type, changes), '; ' ORDER BY id) FROM audit_log.audit_logs WHERE table_name = 'keyless'), db => 'trigger'),
		q(INSERT {"a": 1, "b": "a"}; INSERT {"a": 1, "b": "a"}; UPDATE {"a": [1, 1], "b": ["a", "b"]}; TRUNCATE), 'audit-trigger: without a key, and TRUNCATE');
	is($node->sql(q(SELECT DISTINCT changes ->> 'made', changes ->> 'raw' FROM audit_log.audit_logs WHERE table_name = 'mine' AND record_id = '1' AND action_type = 'INSERT'), db => 'trigger'),
		'2019-01-01T10:00:00+00:00|\\xdeadbeef', 'audit-trigger: values in the form of the log');
	is($node->sql(q(SELECT DISTINCT db_user, application_name, client_addr, client_port FROM audit_log.transaction), db => 'trigger'), 'postgres|an application|192.0.2.1|4711', 'audit-trigger: who and where from');
	is($node->sql(q(SELECT count(*) FROM audit_log_import i JOIN audit.logged_actions v ON v.event_id = i.original JOIN audit_log.audit_logs l ON l.id = i.change_id
		JOIN audit_log.transaction t ON t.id = l.transaction_id
		WHERE l.timestamp <> v.action_tstamp_clk OR t.started_at <> v.action_tstamp_tx OR t.context #>> '{imported,xid}' <> v.transaction_id::text), db => 'trigger'), '0', 'audit-trigger: with their times and transactions');
	is($node->sql(q(SELECT count(*) FROM audit_log.transactions t WHERE cardinality(tables) = 2), db => 'trigger'), '1', 'audit-trigger: a transaction that changed two tables is one');
	is($node->sql(q(SELECT count(*) FROM audit_log.change_default), db => 'trigger'), '0', 'audit-trigger: in partitions');
}

# ---------------------------------------------------------------- SQLAlchemy-Continuum

database('continuum', <<'END');
CREATE TABLE transaction (issued_at timestamp, id bigserial PRIMARY KEY, remote_addr varchar(50), user_id int);
CREATE TABLE shift (id int PRIMARY KEY, foreman text, data jsonb);
CREATE TABLE shift_version (id int NOT NULL, foreman text, data jsonb, foreman_mod boolean, transaction_id bigint NOT NULL, end_transaction_id bigint, operation_type smallint NOT NULL, PRIMARY KEY (id, transaction_id));
CREATE TABLE team (a int, b int, name text, PRIMARY KEY (a, b));
CREATE TABLE team_version (a int NOT NULL, b int NOT NULL, name text, transaction_id bigint NOT NULL, end_transaction_id bigint, operation_type smallint NOT NULL, PRIMARY KEY (a, b, transaction_id));
INSERT INTO transaction (id, issued_at, remote_addr, user_id) VALUES (7, '2021-02-03 04:05:06', '192.0.2.7', 42), (9, '2021-02-03 05:00', NULL, NULL), (12, '2021-03-01 00:00', NULL, 43), (13, '2021-03-02', NULL, 43);
INSERT INTO shift VALUES (1, 'Ole', '{"a": 2}'), (3, 'Paul', NULL);
INSERT INTO shift_version VALUES (1, 'Olga', '{"a": 1}', true, 7, 9, 0), (1, 'Ole', '{"a": 2}', true, 9, NULL, 1),
    (2, 'Nina', NULL, true, 7, 9, 0), (2, NULL, NULL, NULL, 9, 12, 2), (2, 'Nina again', NULL, true, 12, 13, 0), (2, NULL, NULL, NULL, 13, NULL, 2),
    (3, 'Paul', NULL, true, 12, NULL, 1), (4, NULL, NULL, NULL, 12, NULL, 2);
INSERT INTO team VALUES (1, 2, 'both');
INSERT INTO team_version VALUES (1, 2, 'both', 9, NULL, 0);
END
recipe('continuum', 'continuum');
is($node->sql(q(SELECT string_agg(concat_ws(' ', user_id, action_type, changes), '; ' ORDER BY id) FROM audit_log.audit_logs WHERE table_name = 'shift'), db => 'continuum'),
	q(42 INSERT {"id": 1, "data": {"a": 1}, "foreman": "Olga"}; 42 INSERT {"id": 2, "foreman": "Nina"}; )
	  . q(UPDATE {"data": {"a": [1, 2]}, "foreman": ["Olga", "Ole"]}; DELETE {"id": 2, "foreman": "Nina"}; )
	  . q(43 INSERT {"id": 2, "foreman": "Nina again"}; 43 SNAPSHOT {"id": 3, "foreman": "Paul"}; 43 DELETE {"id": 2, "foreman": "Nina again"}), 'Continuum: each version a change');
is($node->sql(q(SELECT string_agg(concat_ws(' ', timestamp AT TIME ZONE 'UTC', context), '; ' ORDER BY id) FROM audit_log.transactions), db => 'continuum'),
	q(2021-02-03 04:05:06 {"imported": {"source": "transaction", "transaction": "7"}, "remote_addr": "192.0.2.7"}; 2021-02-03 05:00:00 {"imported": {"source": "transaction", "transaction": "9"}}; )
	  . q(2021-03-01 00:00:00 {"imported": {"source": "transaction", "transaction": "12"}}; 2021-03-02 00:00:00 {"imported": {"source": "transaction", "transaction": "13"}}),
	'Continuum: its transactions');
is($node->sql(q(SELECT tables::text FROM audit_log.transactions WHERE context #>> '{imported,transaction}' = '9'), db => 'continuum'), '{shift,team}', 'Continuum: of two tables one');
is($node->sql(q(SELECT differs('shift') UNION ALL SELECT differs('team')), db => 'continuum'), '', 'Continuum: replayed it is the table');
is($node->sql(q(SELECT count(*) FROM audit_log_import i JOIN audit_log.audit_logs l ON l.id = i.change_id JOIN audit_log.transactions t ON t.id = l.transaction_id WHERE t.context #>> '{imported,transaction}' = i.original::text), db => 'continuum'), '8', 'Continuum: and which is which');

# its version tables go on afterwards, and its transactions keep their ids
$node->sql(q(SELECT audit_log.enable('team', versioned => true); UPDATE team SET name = name || '!'), db => 'continuum');
is($node->sql(q(SELECT count(*) FROM transaction t JOIN audit_log.transaction l ON l.id = t.id WHERE l.context ->> 'adopted' IS NULL), db => 'continuum'), '0', 'Continuum: no id is taken');
is($node->sql(q(SELECT count(*) = (SELECT count(*) FROM team) FROM team_version WHERE end_transaction_id IS NULL AND name LIKE '%!' AND transaction_id > (SELECT max(id) FROM transaction)), db => 'continuum'), 't', 'Continuum: versions go on');

# a partition's changes are its root's
$node->sql('CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY LIST (id); CREATE TABLE part PARTITION OF parted DEFAULT', db => 'continuum');
$node->sql(q(SELECT audit_log.import_change('public.part', 'I', '2019-01-01', NULL, '{"id": 1}', 'x')), db => 'continuum');
is($node->sql(q(SELECT relation, record_id FROM audit_log.audit_logs WHERE table_name ~ 'part'), db => 'continuum'), 'parted|1', 'partitions');

# ---------------------------------------------------------------- what it refuses

for my $case (
	[ 'mine', 'I', '2019-01-01', 'NULL', 'NULL', 'the rows of an imported INSERT' ],
	[ 'mine', 'update', '2019-01-01', 'NULL', q('{}'), 'the rows of an imported UPDATE' ],
	[ 'mine', 'D', '2019-01-01', 'NULL', q('{}'), 'the rows of an imported DELETE' ],
	[ 'mine', 'T', '2019-01-01', 'NULL', q('{}'), 'the rows of an imported TRUNCATE' ],
	[ 'mine', 'I', '2019-01-01', 'NULL', q('[]'), 'the rows of an imported INSERT' ],
	[ 'mine', 'X', '2019-01-01', 'NULL', q('{}'), 'invalid input value for enum' ],
	[ 'mine', 'I', 'infinity', 'NULL', q('{}'), 'changed_at must be finite' ],
	[ 'mine', 'I', '9999-12-31', 'NULL', q('{}'), 'lies in the future' ],
	[ 'mine.x', 'I', '2019-01-01', 'NULL', q('{}'), 'is not the name of a table with its schema' ])
{
	my ($table, $action, $at, $old, $new, $message) = @$case;
	(undef, undef, $err) = $node->psql(sprintf($call[0], $table, $action, $at, $old, $new), db => 'continuum');
	like($err, qr/^ERROR:  .*\Q$message\E/m, "refused: $message");
}
for my $table ('audit_log.change', 'pg_catalog.pg_class', 'pg_temp.mine', 'information_schema.sql_parts')
{
	(undef, undef, $err) = $node->psql(qq(SELECT audit_log.import_change('$table', 'T', '2019-01-01', NULL, NULL, 'x')), db => 'continuum');
	like($err, qr/^ERROR:  tables of schema \w+ have no log$/m, "refused: $table");
}
# what is known beside where it is from: an object as it stands, but for the mark of an import; anything else by name
$node->sql(qq(SELECT audit_log.import_change('public.contexts', 'T', '2019-01-01', NULL, NULL, 'x', context => $_)), db => 'continuum')
  for q('{"why": "typo", "imported": "no"}'), q('[1]'), q('null'), 'NULL';
is($node->sql(q(SELECT string_agg(context::text, '|' ORDER BY id) FROM audit_log.audit_logs WHERE table_name = 'contexts'), db => 'continuum'),
	'{"why": "typo", "imported": {"source": "x"}}|{"context": [1], "imported": {"source": "x"}}|{"imported": {"source": "x"}}|{"imported": {"source": "x"}}', 'contexts');
# a row of audit_log.transaction is of one database transaction, whatever the importer sets
$node->sql(<<'END', db => 'continuum');
SELECT audit_log.import_change('public.grouped', 'T', '2019-01-01', NULL, NULL, 'x', '1'), audit_log.import_change('public.grouped', 'T', '2019-01-01', NULL, NULL, 'x', '1');
SELECT set_config('audit_log_import.transaction', max(id)::text, false) FROM audit_log.transaction;
SELECT audit_log.import_change('public.grouped', 'T', '2019-01-01', NULL, NULL, 'x', '1');
END
is($node->sql(q(SELECT string_agg(n::text, ' ') FROM (SELECT count(*) AS n FROM audit_log.audit_logs WHERE table_name = 'grouped' GROUP BY transaction_id ORDER BY transaction_id) x), db => 'continuum'), '2 1', 'no change joins another transaction');
(undef, undef, $err) = $node->psql(sprintf($call[0], 'mine', 'I', '2019-01-01', 'NULL', q('{"id": 1}')), db => 'continuum', user => 'other');
like($err, qr/permission denied for function import_change/, 'not for everybody');
is($node->sql(sprintf($call[0], 'mine', 'I', '2019-01-01', 'NULL', q('{"id": 1}')), db => 'continuum', user => 'installer') =~ /^\d+$/ ? 1 : 0, 1, 'for the installing role');
$node->sql('SELECT audit_log._pass_id(1)', db => 'continuum', user => 'installer');
is($node->sql(sprintf($call[0], 'mine', 'I', '0044-03-15 BC', 'NULL', q('{"id": 2}')), db => 'continuum') =~ /^\d+$/ ? 1 : 0, 1, 'a time without a month of ours');
is($node->sql(q(SELECT count(*) FROM audit_log.change_default), db => 'continuum'), 1, 'goes to the default partition');

done_testing();
