# The activity feed through dump and restore, in parts too, and beyond the extension: the table, its two functions
# in the table's types, the templates in the triggers. DROP TABLE works afterwards without CASCADE, DROP EXTENSION
# leaves the table, and create_activity_table() takes it over again. What is not described pays nothing.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $node = AuditLogTest->new('feed');
my $folder = AuditLogTest->folder;
$node->sql('CREATE ROLE app; CREATE ROLE installer LOGIN; CREATE DATABASE d OWNER installer');
$node->sql('CREATE EXTENSION audit_log', db => 'd', user => 'installer');
$node->sql(<<'END', db => 'd');
CREATE SCHEMA app;
CREATE TABLE app.users (key uuid PRIMARY KEY, name text);
INSERT INTO app.users VALUES ('00000000-0000-0000-0000-000000000001', 'Anna');
CREATE TABLE app.mine (id int PRIMARY KEY, name text, secret text);
CREATE TABLE app.parted (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
CREATE TABLE app.part1 PARTITION OF app.parted FOR VALUES FROM (0) TO (100);
CREATE TABLE app.part2 PARTITION OF app.parted FOR VALUES FROM (100) TO (200);
SELECT audit_log.enable('app.mine', mask => '{secret}'), audit_log.enable('app.parted');
SELECT audit_log.create_activity_table('app."The ""Feed"""', 'app.users', 'bigint');
SELECT audit_log.describe('app.mine', 'insert', 'it''s "open"', E'{name} \\ {{is}} ''open''\n"now"');
SELECT audit_log.describe('app.mine', 'update', 'renamed', '{name.old} → {name}');
SELECT audit_log.describe('app.parted', 'update', 'moved', '{id.old} → {id}');
SELECT audit_log.describe('app.parted', 'delete', 'gone', '{id} is gone');
GRANT USAGE ON SCHEMA app TO app, installer;
GRANT INSERT ON app."The ""Feed""" TO app;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO installer;
GRANT SELECT ON ALL SEQUENCES IN SCHEMA app TO installer;
SET audit_log.user_id = '00000000-0000-0000-0000-000000000001';
INSERT INTO app.mine VALUES (1, 'Kettle', 's');
SELECT audit_log.log_activity('login', 'Anna', 9223372036854775807);
END
my $state = <<'END';
SELECT id, user_id, activity_type, description, entity_id FROM app."The ""Feed""" ORDER BY id;
SELECT oid::regprocedure, pg_get_function_result(oid), provolatile, proconfig, obj_description(oid, 'pg_proc'),
       (SELECT string_agg(deptype::text, '' ORDER BY deptype) FROM pg_depend WHERE objid = p.oid AND refclassid = 'pg_extension'::regclass),
       has_function_privilege('app', oid, 'EXECUTE'), proowner::regrole
  FROM pg_proc p WHERE pronamespace = 'audit_log'::regnamespace AND proname IN ('log_activity', 'get_recent_activities') ORDER BY proname;
SELECT tgrelid::regclass, encode(tgargs, 'escape') FROM pg_trigger WHERE tgname = 'audit_log_row' ORDER BY 1;
SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f';
SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'app."The ""Feed"""'::regclass ORDER BY 1;
END
my $before = $node->sql($state, db => 'd');

sub goes_on
{
	my ($db) = @_;
	$node->sql(<<'END', db => $db);
SET audit_log.user_id = '00000000-0000-0000-0000-000000000001';
DELETE FROM app."The ""Feed""";
INSERT INTO app.mine VALUES (2, 'Nora', 's');
UPDATE app.mine SET name = 'Deep Nora' WHERE id = 2;
INSERT INTO app.parted VALUES (1), (2);
UPDATE app.parted SET id = 101 WHERE id = 1;
UPDATE app.parted SET name = 'x';
TRUNCATE app.part2;
ALTER TABLE app.mine RENAME name TO title;
UPDATE app.mine SET title = 'Nora again' WHERE id = 2;
SET ROLE app;
SELECT audit_log.log_activity('login', 'Anna', 5);
END
	is($node->sql("SELECT string_agg(replace(description, E'\\n', ' ') || ' ' || coalesce(entity_id::text, '-') || ' ' || (user_id IS NOT NULL), ', ' ORDER BY id) FROM audit_log.get_recent_activities()", db => $db),
		q(Nora \ {is} 'open' "now" 2 true, Nora → Deep Nora 2 true, 1 → 101 101 true, 101 is gone 101 true, Deep Nora → Nora again 2 true, Anna 5 true), "$db: it goes on");
	is($node->sql('SELECT count(*) FROM audit_log.check() WHERE relation <> \'audit_log.change\'', db => $db), '0', "$db: nothing amiss");
}
sub ends
{
	my ($db) = @_;
	my ($rc, undef, $err) = $node->psql('DROP TABLE app."The ""Feed"""', db => $db);
	is("$rc$err", '0', "$db: the table can be dropped");
	is($node->sql("SELECT count(*) FROM pg_proc WHERE pronamespace = 'audit_log'::regnamespace AND proname IN ('log_activity', 'get_recent_activities')", db => $db), '0', "$db: and its functions are gone");
	$node->sql("INSERT INTO app.mine VALUES (50)", db => $db);
}

my @forms = (
	[ 'plain', [], sub { $node->run_ok('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $_[0], '-f', $_[1]) } ],
	[ 'by_installer', ['-U', 'installer'], sub { $node->run_ok('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $_[0], '-f', $_[1]) } ],
	[ 'directory', ['-Fd', '-j2'], sub { $node->run_ok('pg_restore', '-d', $_[0], '--exit-on-error', '-j2', $_[1]) } ]);
for my $form (@forms)
{
	my ($db, $options, $restore) = @$form;
	$node->run_ok('pg_dump', '-d', 'd', @$options, '-f', "$folder/$db");
	$node->sql("CREATE DATABASE $db");
	$restore->($db, "$folder/$db");
	is($node->sql($state, db => $db), $before, "$db: restored as it was");
	goes_on($db);
	ends($db);
}
# over itself
$node->sql('CREATE DATABASE c TEMPLATE d');
$node->sql('ALTER TABLE app.parted DROP CONSTRAINT parted_pkey', db => 'c');    # pg_dump's --clean does not manage that
$node->run_ok('pg_dump', '-d', 'c', '--clean', '--if-exists', '-f', "$folder/clean");
$node->sql('CREATE DATABASE clean');
$node->run_ok('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', 'clean', '-f', "$folder/clean") for 1 .. 2;
is($node->sql($state, db => 'clean'), $before, 'clean, over itself: as it was');
ends('clean');

# the schema alone: the templates are in the triggers
$node->run_ok('pg_dump', '-d', 'd', '--schema-only', '-f', "$folder/schema");
$node->sql('CREATE DATABASE schema');
$node->run_ok('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', 'schema', '-f', "$folder/schema");
$node->sql("INSERT INTO app.users VALUES ('00000000-0000-0000-0000-000000000001', 'Anna'); INSERT INTO app.mine VALUES (1)", db => 'schema');
is($node->sql("SELECT settings ->> 'describe' IS NOT NULL FROM audit_log.tracked_table WHERE table_name = 'mine'", db => 'schema'), 't', 'schema only: registered with its templates');
is($node->sql("SELECT count(*) FROM audit_log.get_recent_activities()", db => 'schema'), '1', 'schema only: and described');

# the application's schema alone: the functions are made anew for the table that is there
$node->run_ok('pg_dump', '-d', 'd', '-n', 'app', '-f', "$folder/app");
$node->sql('CREATE DATABASE app');
$node->sql('CREATE EXTENSION audit_log', db => 'app');
$node->run_ok('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', 'app', '-f', "$folder/app");
$node->sql("INSERT INTO app.mine VALUES (2)", db => 'app');
is($node->sql('SELECT count(*) FROM app."The ""Feed"""', db => 'app'), '2', 'one schema: without the functions nothing is written, and nothing fails');
$node->sql(q(DELETE FROM app.mine WHERE id = 2; SELECT audit_log.create_activity_table('app."The ""Feed"""', 'app.users', 'bigint')), db => 'app');
goes_on('app');

# DROP EXTENSION takes the functions and leaves the table; a new one takes it over
$node->sql('DROP EXTENSION audit_log CASCADE', db => 'app');
is($node->sql("SELECT count(*) FROM pg_proc WHERE pronamespace = 'audit_log'::regnamespace", db => 'app'), '0', 'DROP EXTENSION leaves nothing behind');
is($node->sql('SELECT count(*) FROM app."The ""Feed"""', db => 'app'), '6', 'but the table');
$node->sql('CREATE EXTENSION audit_log', db => 'app');
$node->sql(q(SELECT audit_log.create_activity_table('app."The ""Feed"""', 'app.users', 'bigint'); SELECT audit_log.log_activity('again', 'there')), db => 'app');
is($node->sql('SELECT count(*) FROM audit_log.get_recent_activities()', db => 'app'), '7', 'which is taken over');

# a prepared transaction, and one that is prepared and rolled back
$node->conf('max_prepared_transactions = 2');
$node->restart;
$node->sql(<<'END', db => 'd');
DELETE FROM app."The ""Feed""";
BEGIN; INSERT INTO app.mine VALUES (10, 'prepared'); PREPARE TRANSACTION 'p';
BEGIN; INSERT INTO app.mine VALUES (11, 'not'); PREPARE TRANSACTION 'q';
ROLLBACK PREPARED 'q';
COMMIT PREPARED 'p';
END
is($node->sql("SELECT string_agg(description, ', ') FROM audit_log.get_recent_activities()", db => 'd'), qq(prepared \\ {is} 'open'\n"now"), 'prepared transactions');

# tables that nobody describes pay nothing: their changes neither lock the feed and its users, as whatever reads them does, nor write there
$node->sql('CREATE TABLE app.quiet (id int PRIMARY KEY, name text); SELECT audit_log.enable(\'app.quiet\'); INSERT INTO app.quiet VALUES (1, \'a\')', db => 'd');
for my $case ([ 'quiet', '0|0' ], [ 'mine', '2|1' ])
{
	my ($table, $pays) = @$case;
	is($node->sql(<<"END", db => 'd'), $pays, "app.$table: what it looks at of the feed and its users, and what it writes");
BEGIN;
SELECT audit_log.set_context('00000000-0000-0000-0000-000000000001') \\g /dev/null
UPDATE app.$table SET name = name || '!' WHERE id = 1;
SELECT count(DISTINCT relation), pg_stat_get_xact_tuples_inserted('app."The ""Feed"""'::regclass)
  FROM pg_locks WHERE pid = pg_backend_pid() AND relation IN ('app."The ""Feed"""'::regclass, 'app.users'::regclass);
COMMIT;
END
}

done_testing();
