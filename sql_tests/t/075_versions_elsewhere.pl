# Versions where rows come another way than by statements of sessions: dump and restore, in one piece and in
# parts, a script of ALTER TABLE run by pg_restore's means, logical apply with `always`, a crash.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $publisher = AuditLogTest->new('publisher', conf => "wal_level = logical\nlogical_decoding_work_mem = 64kB");
my $node = AuditLogTest->new('versions', conf => 'wal_level = logical');
my $dumps = AuditLogTest->folder;

my $setup = <<'END';
CREATE EXTENSION audit_log;
CREATE SCHEMA app;
CREATE TYPE app.mood AS ENUM ('sad', 'ok');
CREATE DOMAIN app.positive AS int NOT NULL CHECK (VALUE > 0);
CREATE TABLE app.mine (id int PRIMARY KEY, name text NOT NULL, mood app.mood, p app.positive DEFAULT 1);
CREATE TABLE app.parts (id int, part int, v text, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
CREATE TABLE app.parts_1 PARTITION OF app.parts FOR VALUES IN (1);
CREATE TABLE app.parts_2 (v text, part int NOT NULL, id int NOT NULL);
ALTER TABLE app.parts ATTACH PARTITION app.parts_2 FOR VALUES IN (2);
SELECT audit_log.enable('app.mine', versioned => true, version_columns => '{"valid_from": "since"}');
SELECT audit_log.enable('app.parts', versioned => true, version_table => 'History of "parts"');
END
my $work = <<'END';
INSERT INTO app.mine SELECT i, 'n' || i, 'ok' FROM generate_series(1, 50) i;
UPDATE app.mine SET name = 'changed' WHERE id % 2 = 0;
DELETE FROM app.mine WHERE id % 10 = 0;
ALTER TABLE app.mine ADD COLUMN late app.positive DEFAULT 7;
INSERT INTO app.parts SELECT i, 1 + i % 2, 'v' FROM generate_series(1, 10) i;
UPDATE app.parts SET part = 3 - part WHERE id < 4;
END
my $whole = <<'END';
SELECT (SELECT count(*) FROM (SELECT v.*, lead(transaction_id) OVER w AS next, lead(since) OVER w AS next_from FROM app.mine_version v
           WINDOW w AS (PARTITION BY id ORDER BY transaction_id)) c WHERE c.end_transaction_id IS DISTINCT FROM c.next OR c.valid_to IS DISTINCT FROM c.next_from OR c.valid_to <= c.since)
     + (SELECT count(*) FROM (SELECT v.*, lead(transaction_id) OVER w AS next FROM app."History of ""parts""" v WINDOW w AS (PARTITION BY id, part ORDER BY transaction_id)) c WHERE c.end_transaction_id IS DISTINCT FROM c.next)
     + (SELECT count(*) FROM ((SELECT id, name, mood, p FROM app.mine EXCEPT SELECT id, name, mood, p FROM app.mine_version WHERE end_transaction_id IS NULL AND operation_type <> 2)
           UNION ALL (SELECT id, name, mood, p FROM app.mine_version WHERE end_transaction_id IS NULL AND operation_type <> 2 EXCEPT SELECT id, name, mood, p FROM app.mine)) x)
     + (SELECT count(*) FROM ((SELECT id, part, v FROM app.parts EXCEPT SELECT id, part, v FROM app."History of ""parts""" WHERE end_transaction_id IS NULL AND operation_type <> 2)
           UNION ALL (SELECT id, part, v FROM app."History of ""parts""" WHERE end_transaction_id IS NULL AND operation_type <> 2 EXCEPT SELECT id, part, v FROM app.parts)) x)
END
$node->sql('CREATE DATABASE source');
$node->sql($setup . $work, db => 'source');
is($node->sql($whole, db => 'source'), '0', 'the source is in order');
my $versions = q{SELECT string_agg(v::text, E'\n' ORDER BY v::text) FROM app.mine_version v};
my $source = $node->sql($versions, db => 'source');
my $count = $node->sql('SELECT count(*) FROM app.mine_version', db => 'source');

# ---- dump and restore: the chain goes on where it ended
sub goes_on
{
	my ($db, $how) = @_;
	is($node->sql($versions, db => $db), $source, "$how: versions are what they were");
	is($node->sql('SELECT * FROM audit_log.check()', db => $db), '', "$how: check() has nothing to say");
	$node->sql("UPDATE app.mine SET name = 'restored' WHERE id = 1; DELETE FROM app.mine WHERE id = 3; UPDATE app.parts SET v = 'restored'; ALTER TABLE app.mine ADD COLUMN more int DEFAULT 3", db => $db);
	is($node->sql($whole, db => $db), '0', "$how: and the chains go on");
	is($node->sql('SELECT count(*) FROM app.mine_version', db => $db), $count + 2, "$how: with a version each");
}
$node->run_ok('pg_dump', '-d', 'source', '-Fc', '-f', "$dumps/whole");
$node->sql('CREATE DATABASE whole');
$node->run_ok('pg_restore', '-d', 'whole', '--exit-on-error', "$dumps/whole");
goes_on('whole', 'whole');
$node->sql('CREATE DATABASE parallel');
$node->run_ok('pg_restore', '-d', 'parallel', '--exit-on-error', '-j', 3, "$dumps/whole");
goes_on('parallel', 'in parallel');
$node->sql('CREATE DATABASE parts');
$node->run_ok('pg_restore', '-d', 'parts', '--exit-on-error', '-s', "$dumps/whole");
$node->run_ok('pg_restore', '-d', 'parts', '--exit-on-error', '-a', '--disable-triggers', "$dumps/whole");
$node->sql('SELECT audit_log.repair()', db => 'parts');
goes_on('parts', 'schema, then data');
# the schema alone, as a structure.sql does it: versions begin with what comes
$node->run_ok('pg_dump', '-d', 'source', '-s', '-f', "$dumps/schema.sql");
$node->sql('CREATE DATABASE structure');
$node->run_ok('psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', 'structure', '-f', "$dumps/schema.sql");
$node->sql("INSERT INTO app.mine VALUES (1, 'a', 'ok', 1); UPDATE app.mine SET name = 'b'; INSERT INTO app.parts VALUES (1, 1, 'x')", db => 'structure');
is($node->sql($whole, db => 'structure'), '0', 'a schema alone: versions are kept from the first row on');
is($node->sql('SELECT * FROM audit_log.check()', db => 'structure'), '', 'and check() has nothing to say');

# Orders that pg_restore -j may come to: triggers before the keys, which for a partitioned table are there only
# when the last partition's index is attached; the log's own rows in between, its sequences last.
$node->sql($setup =~ s/^CREATE EXTENSION.*\n//mr =~ s/app\b/rows/gr . <<'END', db => 'source');
CREATE TABLE rows.keys (id int, code text NOT NULL UNIQUE, x int NOT NULL, PRIMARY KEY (id, x), UNIQUE (x, code));
CREATE TABLE rows.child (x text) INHERITS (rows.mine);
SELECT audit_log.enable('rows.keys', versioned => true, always => true);
SELECT audit_log.enable('rows.child');
CREATE TABLE rows.masked (id int PRIMARY KEY, secret text);
CREATE TABLE rows.masked_key (secret text PRIMARY KEY);
SELECT audit_log.enable('rows.masked', mask => '{secret}');
SELECT audit_log.enable('rows.masked_key', mask => '{secret}');
INSERT INTO rows.masked VALUES (1, 'a');
INSERT INTO rows.masked_key VALUES ('a');
INSERT INTO rows.keys SELECT i, i, 5 FROM generate_series(1, 5) i;
INSERT INTO rows.parts SELECT i, 1 + i % 2, 'v' FROM generate_series(1, 10) i;
END
is($node->sql('SELECT * FROM audit_log.check()', db => 'source'), '', 'tables with several keys are in order');
$node->run_ok('pg_dump', '-d', 'source', '-Fc', '-f', "$dumps/keys");
my $states = 'SELECT id, table_id, kind, key_columns FROM audit_log.table_state ORDER BY id';
my $source_states = $node->sql($states, db => 'source');
my @toc = grep { /^\d/ } split /\n/, `pg_restore -l $dumps/keys`;
my %section = (pre => [], data => [], keys => [], triggers => [], attach => [], sequences => []);
my $begun = 'pre';
for (@toc)
{
	my $kind = /^\d+; \d+ \d+ (TABLE DATA|SEQUENCE SET|CONSTRAINT|INDEX ATTACH|INDEX|TRIGGER|FK CONSTRAINT)/
	  ? { 'TABLE DATA' => 'data', 'SEQUENCE SET' => 'sequences', 'INDEX ATTACH' => 'attach', 'TRIGGER' => 'triggers' }->{$1} // 'keys' : $begun;
	push @{ $section{$kind} }, $_;
	$begun = 'keys' if $kind ne 'pre';
}
my @log = grep { / audit_log / } @{ $section{data} };
my @own = grep { !/ audit_log / } @{ $section{data} };
my @late = grep { /tracked_table|table_state/ } @log;
my @early = grep { !/tracked_table|table_state/ } @log;
my @keys = @{ $section{keys} };
my %orders = (
	'triggers before keys' => [ @{ $section{data} }, @{ $section{triggers} }, reverse(@keys), @{ $section{attach} } ],
	'triggers before the keys of partitions are attached' => [ @{ $section{data} }, @keys, @{ $section{triggers} }, @{ $section{attach} } ],
	'the log last' => [ @own, @{ $section{triggers} }, @keys, @{ $section{attach} }, @log ],
	'what is known of tables last' => [ @early, @own, @{ $section{triggers} }, reverse(@keys), @{ $section{attach} }, @late ],
	'states before the keys' => [ @late, @own, @{ $section{triggers} }, reverse(@keys), @{ $section{attach} }, @early ]);
for my $how (sort keys %orders)
{
	open my $list, '>', "$dumps/list" or die $!;
	print $list map { "$_\n" } @{ $section{pre} }, @{ $orders{$how} }, @{ $section{sequences} };
	close $list;
	$node->sql('DROP DATABASE IF EXISTS ordered');
	$node->sql('CREATE DATABASE ordered');
	$node->run_ok('pg_restore', '-d', 'ordered', '--exit-on-error', '-L', "$dumps/list", "$dumps/keys");
	is($node->sql($states, db => 'ordered'), $source_states, "$how: nothing is noted");
	is($node->sql('SELECT * FROM audit_log.check()', db => 'ordered'), '', "$how: check() has nothing to say");
	$node->sql('UPDATE rows.keys SET x = 6; UPDATE rows.parts SET v = part', db => 'ordered');
	is($node->sql('SELECT (SELECT count(*) FROM rows.keys_version), (SELECT count(*) FROM rows."History of ""parts""")', db => 'ordered'), '15|20', "$how: versions go on");
	is($node->sql($states, db => 'ordered'), $source_states, "$how: and still nothing is noted");
	my ($rc, $out, $err) = $node->psql('ALTER TABLE rows.keys DROP CONSTRAINT keys_pkey', db => 'ordered');
	like($err, qr/cannot change the key of versioned table rows.keys/, "$how: a key in use is not taken away");
}

# GRANTs of tables and of their version tables, which the former write too, run side by side
$node->sql(<<'END', db => 'source');
CREATE ROLE granted_1;
CREATE ROLE granted_2;
DO $$ BEGIN
  FOR i IN 1 .. 20 LOOP
    EXECUTE format('CREATE TABLE rows.granted_%1$s (id int PRIMARY KEY); GRANT ALL ON rows.granted_%1$s TO granted_1; GRANT SELECT ON rows.granted_%1$s TO granted_2', i);
    PERFORM audit_log.enable(format('rows.granted_%s', i)::regclass, versioned => true);
  END LOOP;
END $$;
SELECT audit_log.create_continuum_views('rows');
END
$node->run_ok('pg_dump', '-d', 'source', '-Fc', '-f', "$dumps/granted");
my $rights = q{SELECT string_agg(relname || (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(relacl) a), E'\n' ORDER BY relname) FROM pg_class WHERE relacl IS NOT NULL AND relnamespace = 'rows'::regnamespace};
for my $try (1 .. 2)
{
	$node->sql("CREATE DATABASE granted_$try");
	$node->run_ok('pg_restore', '-d', "granted_$try", '--exit-on-error', '-j', 4, "$dumps/granted");
	is($node->sql($rights, db => "granted_$try"), $node->sql($rights, db => 'source'), 'GRANTs restored in parallel');
}

# version tables alone, without the log: ids go on above theirs
$node->sql('CREATE DATABASE alone');
$node->sql('CREATE EXTENSION audit_log', db => 'alone');
$node->run_ok('pg_dump', '-d', 'source', '-n', 'app', '-f', "$dumps/app.sql");
$node->run_ok('psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', 'alone', '-f', "$dumps/app.sql");
goes_on('alone', 'a schema with its data, without the log');

# ---- logical apply: versions are written when the transaction commits
my @tables = ('app.mine', 'app.parts');
$publisher->sql($setup =~ s/^(SELECT audit_log|CREATE EXTENSION).*\n//mgr . 'CREATE PUBLICATION p FOR TABLE app.mine, app.parts WITH (publish_via_partition_root = true)');
$node->sql('CREATE DATABASE apply');
$node->sql($setup . join('', map { "SELECT audit_log.enable('$_', always => true);" } @tables), db => 'apply');
my $address = $publisher->connstr;
$node->sql("CREATE SUBSCRIPTION s CONNECTION '$address' PUBLICATION p WITH (streaming = true)", db => 'apply');
ok($node->poll("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel", 't', db => 'apply'), 'tables are synchronised');
$publisher->sql($work =~ s/^ALTER TABLE.*\n//mgr);
$publisher->sql(<<'END');
BEGIN;
INSERT INTO app.mine VALUES (100, 'one transaction', 'ok', 1);
UPDATE app.mine SET name = 'changed in it' WHERE id = 100;
DELETE FROM app.mine WHERE id = 1;
INSERT INTO app.mine VALUES (1, 'again', 'sad', 2), (101, 'gone in it', 'ok', 1);
DELETE FROM app.mine WHERE id = 101;
SAVEPOINT a;
UPDATE app.mine SET name = 'gone' WHERE id = 100;
ROLLBACK TO a;
UPDATE app.mine SET id = 102 WHERE id = 5;
COMMIT;
-- more than is decoded in memory, so that it is streamed
BEGIN;
INSERT INTO app.mine SELECT i, repeat('x', 50), 'ok', 1 FROM generate_series(1000, 3999) i;
SAVEPOINT b;
UPDATE app.mine SET name = 'twice' WHERE id >= 1000 AND id % 2 = 0;
RELEASE b;
SAVEPOINT c;
DELETE FROM app.mine WHERE id >= 1000 AND id % 3 = 0;
ROLLBACK TO c;
DELETE FROM app.mine WHERE id >= 1000 AND id % 5 = 0;
COMMIT;
END
my $lsn = $publisher->sql('SELECT pg_current_wal_lsn()');
ok($publisher->poll("SELECT coalesce(bool_and(replay_lsn >= '$lsn'), false) FROM pg_stat_replication"), 'changes have been applied');
is($node->sql($whole, db => 'apply'), '0', 'versions of applied changes are whole and true');
is($node->sql("SELECT string_agg(id || ':' || operation_type || ':' || name, ' ' ORDER BY id) FROM app.mine_version WHERE transaction_id = (SELECT transaction_id FROM app.mine_version WHERE id = 100)", db => 'apply'),
	'1:1:again 5:2:n5 100:0:changed in it 101:2:gone in it 102:0:n5', 'one version each for the net effect of a transaction');
is($node->sql('SELECT operation_type, count(*) FROM app.mine_version WHERE id >= 1000 GROUP BY 1 ORDER BY 1', db => 'apply'), "0|2400\n2|600", 'of a streamed one too');
$node->sql('DROP SUBSCRIPTION s', db => 'apply');

# ---- a crash in the middle leaves whole chains
my $session = $node->session(db => 'source');
$session->query("BEGIN; UPDATE app.mine SET name = 'lost'; DELETE FROM app.parts");
$node->sql("UPDATE app.parts SET v = 'waits' WHERE false", db => 'source');
$node->crash;
$node->start;
is($node->sql($versions, db => 'source'), $source, 'after a crash versions are what was committed');
$node->sql("UPDATE app.mine SET name = 'after'", db => 'source');
is($node->sql($whole, db => 'source'), '0', 'and go on');

done_testing();
