# Restoring what a dump does after CREATE TRIGGER: ENABLE ALWAYS TRIGGER, foreign keys, row
# security. None of it may register a table before its row of tracked_table is there, or make
# triggers that the dump makes itself.  (edge cases 123, 125)
use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $node = AuditLogTest->new('main');
$node->sql('CREATE DATABASE old');
$node->sql(<<'END', db => 'old');
CREATE EXTENSION audit_log;
SET client_min_messages = warning;
CREATE TABLE plain (id int PRIMARY KEY);
CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE parted_0 PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
CREATE TABLE parted_1_0 PARTITION OF parted_1 DEFAULT;
CREATE TABLE child (id int PRIMARY KEY REFERENCES plain, parent int REFERENCES parted);
ALTER TABLE child ENABLE ROW LEVEL SECURITY;
SELECT audit_log.enable('plain');
SELECT audit_log.enable('parted', always => true);
SELECT audit_log.enable('child', always => true);
INSERT INTO plain VALUES (1), (2);
INSERT INTO parted VALUES (3), (13);
INSERT INTO child VALUES (1, 3), (2, 13);
UPDATE parted SET id = 14 WHERE id = 4;
DELETE FROM child WHERE id = 2;
END

my @questions = (
	'the log' => 'SELECT table_name, action_type, record_id, changes FROM audit_log.audit_logs ORDER BY id',
	'the states' => 'SELECT * FROM audit_log.table_state ORDER BY id',
	'the tables' => 'SELECT * FROM audit_log.tracked_table ORDER BY id',
	'the triggers' => q{SELECT tgrelid::regclass, tgname, tgenabled, tgargs FROM pg_trigger
		WHERE tgname ~ '^audit_log' AND tgrelid::regclass::text !~ '^audit_log' ORDER BY tgrelid::regclass::text, tgname},
	'what check() says' => 'SELECT * FROM audit_log.check()',
	'a rebuilt table' => 'SELECT * FROM audit_log.rebuild(NULL::parted) ORDER BY id');
sub compare
{
	my ($db, $how) = @_;
	for (my $i = 0; $i < @questions; $i += 2)
	{
		is($node->sql($questions[$i + 1], db => $db), $node->sql($questions[$i + 1], db => 'old'), "$how: $questions[$i]");
	}
}
sub restore
{
	my ($db, $dump, $how) = @_;
	my ($rc, undef, $err) = $node->psql($dump, db => $db);
	is($rc, 0, "$how: restored without an error") or diag $err;
}

restore('postgres', 'CREATE DATABASE whole', 'a database');
restore('whole', $node->run_ok('pg_dump', 'old'), 'whole dump');
compare('whole', 'whole dump');

restore('postgres', 'CREATE DATABASE steps', 'a database');
restore('steps', $node->run_ok('pg_dump', '--schema-only', 'old'), 'schema');
is($node->sql('SELECT count(*) FROM audit_log.tracked_table', db => 'steps'), '0', 'the schema alone registers nothing');
restore('steps', $node->run_ok('pg_dump', '--data-only', '--disable-triggers', 'old'), 'data');
$node->sql('SELECT audit_log.repair()', db => 'steps');
compare('steps', 'schema, then data');

# and both go on: a partition that comes now is followed
for my $db (qw(whole steps))
{
	$node->sql(<<'END', db => $db);
SET client_min_messages = warning;
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (20) TO (30);
INSERT INTO parted VALUES (21);
END
	is($node->sql('SELECT * FROM audit_log.check()', db => $db), '', "$db: a new partition has its triggers");
	is($node->sql('SELECT count(*) FROM audit_log.rebuild(NULL::parted)', db => $db), '3', "$db: and is logged");
}

done_testing();
