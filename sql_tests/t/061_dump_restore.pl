# Dump and restore into a fresh cluster (other OIDs, lower xids): log, transactions,
# tracking and settings come back, tracked tables go on being tracked, ids go on
# ascending, masked columns stay masked, and restoring logs nothing by itself.
# Edge cases 79, 80, 84, 85, 86, 87, 122, 123, 125.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $source = AuditLogTest->new('source');
my $dumps = AuditLogTest->folder . '/dumps';
mkdir $dumps;
my $key = '\\x' . '0123456789abcdef' x 4;

# ---- a database with a past

# xids, and OIDs, are further on than in the cluster to come
$source->sql('CREATE TABLE t (i int); DROP TABLE t;'
	  . 'DO $$ BEGIN FOR i IN 1 .. 5000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$');
$source->sql('CREATE ROLE regress_installer LOGIN; CREATE ROLE regress_reader; CREATE DATABASE d OWNER regress_installer');
$source->sql('CREATE EXTENSION audit_log', db => 'd', user => 'regress_installer');
$source->sql(<<'END', db => 'd');
CREATE SCHEMA app;
CREATE SCHEMA autos;
CREATE TABLE app.plain (id int PRIMARY KEY, body text, attrs jsonb, at timestamptz DEFAULT now());
CREATE TABLE app."Odd ""Name" ("a b" int, "C" text, PRIMARY KEY ("a b", "C"));
CREATE TABLE app.parted (id int PRIMARY KEY, body text) PARTITION BY RANGE (id);
CREATE TABLE app.part1 PARTITION OF app.parted FOR VALUES FROM (0) TO (10);
CREATE TABLE app.part2 PARTITION OF app.parted FOR VALUES FROM (10) TO (20);
CREATE TABLE app.always (id int PRIMARY KEY, body text) PARTITION BY LIST (id);
CREATE TABLE app.always1 PARTITION OF app.always DEFAULT;
CREATE TABLE app.masked (id int PRIMARY KEY, secret text);
CREATE TABLE app.masked_key (ssn text PRIMARY KEY, body text);
CREATE TABLE app.hand (id int PRIMARY KEY, note text, body text);
CREATE TABLE app.keyless (a int, b text);
CREATE TABLE app.left_out (id int PRIMARY KEY);
CREATE TABLE app.dropped (id int PRIMARY KEY);
CREATE TABLE app.disabled (id int PRIMARY KEY);
CREATE TABLE app.untracked (id int PRIMARY KEY);
ALTER TABLE app.plain OWNER TO regress_installer;
SELECT audit_log.enable('app.plain', require => '{}', actions => '{Insert,update,DELETE,truncate}');
SELECT audit_log.enable('app."Odd ""Name"');
SELECT audit_log.enable('app.parted');
SELECT audit_log.enable('app.always', always => true, exclude => '{body}');
SELECT audit_log.enable('app.masked', mask => '{secret}');
SELECT audit_log.enable('app.masked_key', mask => '{ssn}');
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON app.hand FOR EACH ROW EXECUTE FUNCTION audit_log.capture('exclude=note');
SELECT audit_log.enable('app.keyless'), audit_log.enable('app.left_out'), audit_log.enable('app.dropped'), audit_log.enable('app.disabled');
SELECT audit_log.grant_read('regress_reader');
GRANT USAGE ON SCHEMA app TO regress_reader;
GRANT SELECT ON app.hand TO regress_reader;
SELECT audit_log.enable_schema('autos', auto => true, exclude => '{note}');
CREATE TABLE autos.first (id int PRIMARY KEY, note text);
BEGIN;
SELECT audit_log.set_context('42', '{"why": "a \\ \" reason"}');
INSERT INTO app.plain SELECT i, E'text \\ \t ' || i, jsonb_build_object('n', i, '$pg', i) FROM generate_series(1, 50) i;
UPDATE app.plain SET body = upper(body), attrs = attrs || '{"new": [1, null]}' WHERE id % 3 = 0;
DELETE FROM app.plain WHERE id % 7 = 0;
COMMIT;
INSERT INTO app."Odd ""Name" VALUES (1, 'x'), (2, 'y "z"');
UPDATE app."Odd ""Name" SET "a b" = 3 WHERE "a b" = 1;
INSERT INTO app.parted SELECT i, 'p' FROM generate_series(1, 15) i;
UPDATE app.parted SET id = 16 WHERE id = 5;
INSERT INTO app.always VALUES (1, 'hidden');
INSERT INTO app.masked VALUES (1, 'secret one'), (2, NULL);
INSERT INTO app.masked_key VALUES ('123-45', 'body');
INSERT INTO app.hand VALUES (1, 'hidden', 'seen');
INSERT INTO app.keyless VALUES (1, 'a'), (1, 'a');
INSERT INTO app.left_out VALUES (1);
INSERT INTO app.dropped VALUES (1);
INSERT INTO app.disabled VALUES (1);
INSERT INTO autos.first VALUES (1, 'hidden');
SELECT audit_log.disable('app.disabled');
DROP TABLE app.dropped;
-- another month: partitions of the past, and a row that has none
CREATE TABLE audit_log.change_2020_02 (LIKE audit_log.change);
SELECT audit_log._prepare_partition('audit_log.change_2020_02');
ALTER TABLE audit_log.change ATTACH PARTITION audit_log.change_2020_02 FOR VALUES FROM ('2020-02-01 00:00+00') TO ('2020-03-01 00:00+00');
INSERT INTO audit_log.change (id, transaction_id, command, timestamp, action_type, table_id, record_id, old_record_id, changes) SELECT -id, transaction_id, command, '2020-02-10 00:00+00', action_type, -table_id, record_id, old_record_id, changes
  FROM audit_log.change WHERE action_type = 'DELETE';
INSERT INTO audit_log.change (id, transaction_id, command, timestamp, action_type, table_id, record_id, old_record_id, changes) SELECT -id - 1000000, transaction_id, command, '2019-02-10 00:00+00', action_type, -table_id, record_id, old_record_id, changes
  FROM audit_log.change WHERE action_type = 'UPDATE';
END
my @left_out = ('--exclude-table=app.left_out');
# (what a superuser alone knows)
my $real_key = $source->sql('SELECT audit_log.mask_key()', db => 'd');

# ---- what must be the same

my $contents = <<'END';
SELECT 'transaction', count(*), md5(string_agg(t::text, '|' ORDER BY id)) FROM audit_log.transaction t
UNION ALL SELECT 'change', count(*), md5(string_agg(c::text || c.tableoid::regclass, '|' ORDER BY id)) FROM audit_log.change c
UNION ALL SELECT 'tracked_table', count(*), md5(string_agg(t::text, '|' ORDER BY id)) FROM audit_log.tracked_table t
UNION ALL SELECT 'table_state', count(*), md5(string_agg(s::text, '|' ORDER BY id)) FROM audit_log.table_state s
UNION ALL SELECT 'tracked_schema', count(*), md5(string_agg(s::text, '|' ORDER BY schema_name)) FROM audit_log.tracked_schema s
UNION ALL SELECT 'sequences', sum(last_value), NULL FROM pg_sequences WHERE schemaname = 'audit_log'
UNION ALL SELECT 'triggers', count(*), md5(string_agg(t.tgrelid::regclass::text || t.tgname || t.tgenabled::text || encode(t.tgargs, 'escape'), '|'
		ORDER BY t.tgrelid::regclass::text COLLATE "C", t.tgname))
	FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE p.pronamespace = 'audit_log'::regnamespace
UNION ALL SELECT 'partitions', count(*), md5(string_agg(c.relname || pg_get_expr(c.relpartbound, c.oid), '|' ORDER BY c.relname))
	FROM pg_class c WHERE c.relnamespace = 'audit_log'::regnamespace AND c.relispartition
UNION ALL SELECT 'indexes', count(*), md5(string_agg(i.tablename || i.indexname || i.indexdef, '|' ORDER BY i.indexname))
	FROM pg_indexes i WHERE i.schemaname = 'audit_log'
UNION ALL SELECT 'plain', count(*), md5(string_agg(p::text, '|' ORDER BY id)) FROM app.plain p
END
my $oracle = <<'END';
SELECT (SELECT count(*) FROM (SELECT * FROM app.plain EXCEPT SELECT * FROM audit_log.rebuild(NULL::app.plain)) d)
	 + (SELECT count(*) FROM (SELECT * FROM audit_log.rebuild(NULL::app.plain) EXCEPT SELECT * FROM app.plain) d)
	 + (SELECT count(*) FROM (SELECT * FROM app.parted EXCEPT SELECT * FROM audit_log.rebuild(NULL::app.parted)) d)
	 + (SELECT count(*) FROM (SELECT * FROM audit_log.rebuild(NULL::app.parted) EXCEPT SELECT * FROM app.parted) d)
END
my $expected = $source->sql($contents, db => 'd');
is($source->sql($oracle, db => 'd'), '0', 'before: the log gives the tables');
is($source->sql('SELECT count(*) FROM audit_log.check()', db => 'd'), '0', 'before: all is well');

sub dump_it
{
	my ($name, @options) = @_;
	$source->run_ok('pg_dump', @options, '-f', "$dumps/$name");
	return "$dumps/$name";
}

my $target = AuditLogTest->new('target');
$target->sql('CREATE ROLE regress_installer LOGIN; CREATE ROLE regress_reader');
my $n = 0;
my $db;

sub fresh
{
	$db = 'r' . ++$n;
	$target->sql("CREATE DATABASE $db");
}
sub there { return $target->sql($_[0], db => $db) }

sub restore_sql
{
	my ($file) = @_;
	my ($rc, $out, $err) = $target->run('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $db, '-f', $file);
	is($rc, 0, "$db: restored") or diag($err);
}

sub restore_directory
{
	my ($folder, @options) = @_;
	my ($rc, $out, $err) = $target->run('pg_restore', '-d', $db, '--exit-on-error', @options, $folder);
	is($rc, 0, "$db: restored") or diag($err);
}

# The tracked tables go on: logged once, under ids above all that was there.
sub goes_on
{
	my ($name, %option) = @_;
	my ($changes, $transactions, $states) = split /\|/,
	  there('SELECT (SELECT coalesce(max(id), 0) FROM audit_log.change), (SELECT coalesce(max(id), 0) FROM audit_log.transaction),'
		  . ' (SELECT coalesce(max(id), 0) FROM audit_log.table_state)');
	there(<<'END');
INSERT INTO app.plain VALUES (100, 'after', '{}');
UPDATE app.plain SET body = 'after too' WHERE id = 1;
UPDATE app.parted SET id = 17 WHERE id = 1;
INSERT INTO app.always VALUES (100, 'hidden');
SET session_replication_role = replica;
UPDATE app.always SET id = 101 WHERE id = 100;
TRUNCATE app.always1;
RESET session_replication_role;
INSERT INTO app.masked VALUES (100, 'secret two');
INSERT INTO app.hand VALUES (100, 'hidden', 'seen');
INSERT INTO app.keyless VALUES (100, 'b');
CREATE TABLE autos.later (id int PRIMARY KEY, note text);
INSERT INTO autos.later VALUES (100, 'hidden');
TRUNCATE app.part2;
DROP TABLE autos.later;
END
	my $after = there(<<"END");
SELECT string_agg(k.table_name || ' ' || c.action_type || ' ' || coalesce(c.record_id, '-'), ', ' ORDER BY c.id)
  FROM audit_log.change c JOIN audit_log.tracked_table k ON k.id = c.table_id
  JOIN audit_log.transaction t ON t.id = c.transaction_id
 WHERE c.id > $changes AND t.id > $transactions AND k.table_name NOT IN ('parted')
END
	$after =~ s/(?<=always )(INSERT|UPDATE|DELETE) -/$1 key/g if $option{keyless};
	my $wanted = 'plain INSERT 100, plain UPDATE 1, always INSERT 100, always UPDATE 101, always DELETE 1, always DELETE 101, always TRUNCATE -, '
	  . 'masked INSERT 100, hand INSERT 100, keyless INSERT -' . ($option{no_auto} ? '' : ', later INSERT 100');
	$wanted =~ s/(?<=always )(INSERT|UPDATE|DELETE) \d+/$1 key/g if $option{keyless};
	is($after, $wanted, "$name: tracked tables are tracked");
	is(there("SELECT count(*) FROM audit_log.change WHERE id > $changes AND changes::text ~ 'hidden|secret two'"), '0', "$name: with their settings");
	is(there("SELECT count(*) FROM audit_log.change WHERE id > $changes AND changes = '{\"partition\": \"app.part2\"}'"), '1', "$name: partitions too");
	is(there("SELECT count(*) FROM audit_log.change c WHERE id > $changes AND (changes ->> 'secret') ~ '^[0-9a-f]{64}\$'"), '1', "$name: masked");
	is(there("SELECT count(*) FROM audit_log.table_state s WHERE id > $states AND kind IN ('columns', 'key', 'renamed')"), '0', "$name: no state but those that are new");
	is(there("SELECT count(*) FROM audit_log.change c JOIN audit_log.change d ON c.id = d.id AND c.ctid <> d.ctid AND c.tableoid = d.tableoid"), '0', "$name: no id twice");
}

sub masked_key
{
	my ($name) = @_;
	my ($rc, $out, $err) = $target->psql("INSERT INTO app.masked_key VALUES ('999', 'x')", db => $db);
	ok($rc != 0 && $err =~ /key that masks the record ids.*HINT:.*mask_key/s, "$name: a masked key column is refused without the key") or diag($err);
	there("SELECT audit_log.mask_key('$real_key')");
	there("UPDATE app.masked_key SET body = 'again'");
	is(there(q(SELECT count(DISTINCT record_id) || ' ' || count(*) FROM audit_log.audit_logs WHERE relation = 'app.masked_key'::regclass)),
		'1 2', "$name: and under it the record's history goes on");
}

# ---- pg_dump | psql

my $plain = dump_it('plain.sql', '-d', 'd');
fresh();
restore_sql($plain);
is(there($contents), $expected, 'plain: everything is there, and nothing more');
is(there($oracle), '0', 'plain: the log gives the tables');
is(there('SELECT count(*) FROM audit_log.check()'), '0', 'plain: all is well');
is(there(q(SET ROLE regress_reader; SELECT string_agg(changes ->> 'body', ' ') FROM audit_log.audit_logs)), 'seen', 'plain: readers may read what they might');
is(there('SELECT count(*) FROM audit_log.mask_secret'), '0', 'plain: the key is not in the dump');
is(there(q(SELECT bool_and((SELECT max(xid) FROM audit_log.transaction) > pg_current_xact_id()))), 't', 'plain: the cluster is younger than the log');
goes_on('plain');
masked_key('plain');
is(there($oracle . " - (SELECT count(*) FROM app.part2)"), '0', 'plain: and still it gives the tables');
there('CALL audit_log.maintain()');

# ---- --clean, over what is there now

# (pg_dump's --clean does not manage the index of a partitioned table, whoever made it)
$source->sql('CREATE DATABASE c TEMPLATE d');
$source->sql('ALTER TABLE app.parted DROP CONSTRAINT parted_pkey; ALTER TABLE app.always DROP CONSTRAINT always_pkey;'
	  . q(INSERT INTO app.parted VALUES (2, 'twice'); INSERT INTO app.always VALUES (2, 'hidden'); DELETE FROM app.always WHERE id = 2), db => 'c');
my $expected_c = $source->sql($contents, db => 'c');
my $clean = dump_it('clean.sql', '-d', 'c', '--clean', '--if-exists');
fresh();
restore_sql($clean);
is(there($contents), $expected_c, 'clean, into an empty database: everything is there, and nothing more');
goes_on('clean, into an empty database', keyless => 1);
restore_sql($clean);
is(there($contents), $expected_c, 'clean, over what has gone on: the same');
goes_on('clean', keyless => 1);

# ---- directory, in parallel

my $directory = dump_it('directory', '-d', 'd', '-Fd', '-j2');
fresh();
restore_directory($directory, '-j2');
is(there($contents), $expected, 'directory: everything is there, and nothing more');
is(there($oracle), '0', 'directory: the log gives the tables');
is(there('SELECT count(*) FROM audit_log.check()'), '0', 'directory: all is well');
$source->run_ok('pg_dump', '-d', 'c', '-Fd', '-j2', '-f', "$dumps/directory_c");
my $former = $db;
fresh();
restore_directory("$dumps/directory_c", '-j2');
restore_directory("$dumps/directory_c", '--clean', '--if-exists');
is(there($contents), $expected_c, 'directory, --clean over itself');
$db = $former;
goes_on('directory');
masked_key('directory');

# ---- by the installing role

# (of the tables it may read; row security and ownership are its own matter)
$source->sql('GRANT USAGE ON SCHEMA app, autos TO regress_installer; GRANT SELECT ON ALL TABLES IN SCHEMA app, autos TO regress_installer;'
	  . 'GRANT SELECT ON ALL SEQUENCES IN SCHEMA app TO regress_installer', db => 'd');
my $installers = dump_it('installers.sql', '-d', 'd', '-U', 'regress_installer');
fresh();
restore_sql($installers);
is(there($contents), $expected, "the installing role's dump: everything is there, and nothing more");
goes_on("the installing role's dump");

# ---- without one of the tracked tables

my $without = dump_it('without.sql', '-d', 'd', '-T', 'app.left_out');
fresh();
restore_sql($without);
is(there(q(SELECT count(*) FROM audit_log.change c JOIN audit_log.tracked_table k ON k.id = c.table_id WHERE k.table_name = 'left_out')),
	'1', 'without a table: its history is there');
like(there('SELECT relation, problem FROM audit_log.check()'), qr/^app\.left_out\|[^\n]*gone[^\n]*$/, 'without a table: check() says so');
# somebody else's table of that name is not it
there('CREATE ROLE regress_other; GRANT CREATE, USAGE ON SCHEMA app TO regress_other; SELECT audit_log.grant_read(\'regress_other\');'
	  . 'SET ROLE regress_other; CREATE TABLE app.left_out (id int PRIMARY KEY)');
is(there('SET ROLE regress_other; SELECT count(*) FROM audit_log.audit_logs'), '0', "without a table: another's table of that name does not get its log");
is(there('SELECT count(*) FROM audit_log.check()'), '0', 'without a table: which is that of a dropped table now');
goes_on('without a table');

# ---- the schema only: the settings are in the triggers

my $schema = dump_it('schema.sql', '-d', 'd', '--schema-only');
fresh();
restore_sql($schema);
is(there('SELECT (SELECT count(*) FROM audit_log.change), (SELECT count(*) FROM audit_log.table_state), (SELECT count(*) FROM audit_log.tracked_table)'),
	'0|0|0', 'schema only: nothing is logged');
there(q(INSERT INTO app.plain VALUES (1, 'x', '{}'); INSERT INTO app.parted VALUES (1, 'x'); INSERT INTO app.always VALUES (1, 'hidden')));
my $uids = q(SELECT string_agg(k.table_schema || '.' || k.table_name || k.uid || k.settings, ' ' ORDER BY k.table_name)
	FROM audit_log.tracked_table k WHERE k.table_name IN ('plain', 'parted', 'always'));
is(there($uids), $source->sql($uids, db => 'd'), 'schema only: registered under the uids of the triggers, with their settings');
goes_on('schema only', no_auto => 1);
there(q(INSERT INTO app.masked_key VALUES ('123-45', 'x')));
is(there(q(SELECT record_id ~ '^[0-9a-f]{64}$' AND record_id = changes ->> 'ssn' FROM audit_log.audit_logs WHERE relation = 'app.masked_key'::regclass)),
	't', 'schema only: a new log masks under a new key');

# ---- and then the data only, triggers off: they come back as ordinary ones

my $data = dump_it('data.sql', '-d', 'd', '--data-only', '--disable-triggers');
fresh();
restore_sql($schema);
restore_sql($data);
is(there($contents =~ s/UNION ALL SELECT 'triggers'.*?'audit_log'::regnamespace\n//sr),
	$expected =~ s/^triggers.*\n//mr, 'data only: everything is there, and nothing more');
my $problems = there('SELECT relation, problem FROM audit_log.check()');
like($problems, qr/audit_log\.$_\|the guard.*not ALWAYS/, "data only: check() names the guard of $_") for qw(transaction tracked_table table_state mark cluster change_default change_2020_02);
like($problems, qr/app\.always1\|trigger $_ is no longer ALWAYS/, "data only: check() names $_") for qw(audit_log_row audit_log_flush audit_log_truncate);
unlike($problems, qr/app\.(plain|parted|hand)/, 'data only: and no other trigger');
cmp_ok(there('SELECT audit_log.repair()'), '>', 0, 'data only: repair()');
is(there('SELECT count(*) FROM audit_log.check()'), '0', 'data only: all is well again');
is(there($contents), $expected, 'data only: the triggers are as they were');
goes_on('data only');

# ---- one schema of the user's: the extension and its log are not in that

my $one = dump_it('one.sql', '-d', 'd', '-n', 'app', '-n', 'autos');
fresh();
there('CREATE EXTENSION audit_log');
restore_sql($one);
like(there('SELECT count(*) FROM audit_log.change'), qr/^0$/, 'edge case 87: one schema: a new log');
goes_on('one schema', no_auto => 1);

done_testing();
