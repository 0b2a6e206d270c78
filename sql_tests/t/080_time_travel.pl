# What the log says of a mark is what the mark's own snapshot saw, row by row: after random work of
# several sessions, again in another cluster after a dump and a restore and more work there, and
# across ADD, RENAME and TYPE of columns. And diff between two marks is the difference of the two.
#
# AUDIT_LOG_TEST_SECONDS is how long each of the three loads takes; minutes find more.
# Edge cases 7, 14, 17, 103, 115, 116, 117, 131, 133.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;
use TimeTravel;

my $seconds = $ENV{AUDIT_LOG_TEST_SECONDS} || 5;
my $conf = "deadlock_timeout = 10ms\nmax_prepared_transactions = 10\nmax_connections = 30\n";
my $node = AuditLogTest->new('first', conf => $conf);
my $oracle = TimeTravel->new($node);

# each mark against its copy; some pairs of marks against the difference of theirs
sub compare
{
	my ($what) = @_;
	my @marks = $oracle->marks;
	my $wrong = join '', map { my $text = $oracle->wrong_as_of($_); $text eq '' ? '' : "$_:\n$text" } @marks;
	is($wrong, '', "$what: as_of of " . @marks . ' marks');
	my @pairs = map { [ @marks[ int rand @marks, int rand @marks ] ] } 1 .. 8;
	$wrong = join '', map { my $text = $oracle->wrong_diff(@$_); $text eq '' ? '' : "@$_:\n$text" } @pairs, [ @marks[ 0, -1 ] ], [ @marks[ -1, 0 ] ];
	is($wrong, '', "$what: diff");
}

$oracle->load($seconds);
cmp_ok(scalar $oracle->marks, '>', 3, 'marks were made');
compare('after random work');

# by time: a moment between two transactions, with nothing under way, is what a mark of then is
my $mark = 'nobody works';
$oracle->sql("SELECT audit_log.mark('$mark')");
my $moment = $oracle->sql('SELECT clock_timestamp()');
$oracle->load(2);
$oracle->sql("INSERT INTO copy.$_ SELECT '$mark', t.* FROM audit_log.as_of(NULL::app.$_, '$mark') t") for $oracle->tables;
for my $table ($oracle->tables)
{
	is( $oracle->sql("SELECT count(*) FROM (SELECT (r.*)::text FROM audit_log.as_of(NULL::app.$table, '$mark') r EXCEPT ALL SELECT (r.*)::text FROM audit_log.as_of(NULL::app.$table, '$moment') r) x")
		  . $oracle->sql("SELECT count(*) FROM (SELECT (r.*)::text FROM audit_log.as_of(NULL::app.$table, '$moment') r EXCEPT ALL SELECT (r.*)::text FROM audit_log.as_of(NULL::app.$table, '$mark') r) x"),
		'00', "$table: by time what it is by mark") or diag("mark $mark, moment $moment");
}

$oracle->alter('ALTER TABLE SCHEMA.customer ADD COLUMN added text');
$node->sql("ALTER TABLE app.keyless ADD COLUMN added int DEFAULT 5");
$node->sql("ALTER TABLE copy.keyless ADD COLUMN added int");
$oracle->alter('ALTER TABLE SCHEMA.orders RENAME COLUMN note TO remark');
$node->sql(<<'END');
CREATE OR REPLACE FUNCTION app.after_order() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
END
$oracle->alter('ALTER TABLE SCHEMA.orders ALTER COLUMN qty TYPE numeric');
$oracle->alter('ALTER TABLE SCHEMA.item ALTER COLUMN n TYPE text');
compare('after columns were added, renamed and got other types');
$oracle->alter('ALTER TABLE SCHEMA.item ALTER COLUMN n TYPE int USING n::int');

# another cluster, where xids are lower
my $other = AuditLogTest->new('second', conf => $conf);
my $dump = AuditLogTest->folder . '/dump.sql';
$node->run_ok('pg_dump', '-f', $dump, 'postgres');
$node->stop;
my ($rc, $out, $err) = $other->psql("\\i $dump");
is($err, '', 'restored without a word');
$oracle->on($other);
compare('restored elsewhere');
$oracle->load($seconds);
compare('restored elsewhere, after more work');
cmp_ok($oracle->sql('SELECT count(DISTINCT system_identifier) FROM audit_log.cluster'), '==', 2, 'two clusters are known');

done_testing();
