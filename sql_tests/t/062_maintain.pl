# CALL audit_log.maintain(): partitions ahead, and the end of their retention.
# What it cannot do now it leaves out aloud, and never makes a writer wait for long.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $node = AuditLogTest->new('main');
$node->sql('CREATE EXTENSION audit_log; CREATE TABLE t (id int PRIMARY KEY, body text); CREATE TABLE u (id int PRIMARY KEY)');
sub maintain
{
	my ($rc, $out, $err) = $node->psql("CALL audit_log.maintain($_[0])");
	return $rc ? "failed: $err" : join "\n", map { s/^(psql:.*?)?NOTICE:  audit_log: //r } grep { /NOTICE/ } split /\n/, $err;
}
my $attached = q(SELECT count(*) FROM pg_inherits WHERE inhparent = 'audit_log.change'::regclass);
my $states = q(SELECT string_agg(k.table_name || ' ' || s.kind || ' ' || (s.detail ->> 'reason') || ' ' || (s.detail ->> 'partition'), ', ' ORDER BY s.id)
	FROM audit_log.table_state s JOIN audit_log.tracked_table k ON k.id = s.table_id WHERE s.kind = 'gap');
# (a test that runs at the very end of a month is to see one month)
my $month = $node->sql(q(SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')));

# ---- ahead

is(maintain(''), '13 partitions made, 13 months ahead', 'partitions of a year are made ahead');
is(maintain(''), '0 partitions made, 13 months ahead', '… once');
is($node->sql($attached), '14', '… and the default one is there');
is($node->sql(q(SET timezone = 'Asia/Tokyo'; SET datestyle = 'SQL, DMY'; SET lc_time = 'C'; CALL audit_log.maintain()) . "; $attached"), '14',
	'… whatever the session is set to');
$node->sql(q(SELECT audit_log.enable('t'), audit_log.enable('u', baseline => true); INSERT INTO t VALUES (1, 'x')));
is($node->sql('SELECT tableoid::regclass FROM audit_log.change'), "audit_log.change_$month", 'changes are in the partition of their month')
  if $node->sql(q(SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM'))) eq $month;

# ---- each has what it needs

is($node->sql(q(SELECT count(DISTINCT x) FROM (SELECT string_agg(regexp_replace(i.indexdef, '^.* USING ', ''), ', ' ORDER BY regexp_replace(i.indexdef, '^.* USING ', '')) AS x
	FROM pg_indexes i WHERE i.schemaname = 'audit_log' AND i.tablename LIKE 'change\_%' GROUP BY i.tablename) y)), '1', 'the same indexes on every partition');
is($node->sql(q(SELECT count(*) FROM audit_log.check())), '0', '… and a guard');

# ---- a month that the default partition holds rows of

my $next = $node->sql(q(SELECT max(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'audit_log.change'::regclass AND inhrelid::regclass::text ~ '\d'));
my $day = ($next =~ /(\d{4})_(\d\d)/) ? "$1-$2-10 00:00+00" : die $next;
my $last = $next =~ s/^audit_log\.//r;
$node->sql("DROP TABLE $next; INSERT INTO audit_log.change (id, transaction_id, command, timestamp, action_type, table_id, record_id, old_record_id, changes) SELECT -id, transaction_id, command, '$day', action_type, table_id, record_id, old_record_id, changes FROM audit_log.change");
is(maintain(''), "partition $next is left out: audit_log.change_default holds rows of that month\n0 partitions made, 12 months ahead",
	'a month of which the default partition holds rows is left out');
is($node->sql("SELECT tableoid::regclass FROM audit_log.change WHERE id < 0"), 'audit_log.change_default', '… and they stay there');
like($node->sql("SELECT count(*), count(DISTINCT record_id) FROM audit_log.audit_logs WHERE relation = 't'::regclass"), qr/^2\|1$/, '… to be read');

# ---- a table of that name that is none of ours

my ($gone) = grep { $_ ne $next } split /\n/, $node->sql(q(SELECT inhrelid::regclass FROM pg_inherits
	WHERE inhparent = 'audit_log.change'::regclass AND inhrelid::regclass::text ~ '\d' ORDER BY inhrelid::regclass::text DESC LIMIT 1));
$node->sql("ALTER TABLE audit_log.change DETACH PARTITION $gone");
like(maintain(''), qr/^table $gone is there but is no partition of audit_log.change$/m, 'a detached table is not attached again unasked');
$node->sql("DROP TABLE $gone");
is(maintain(''), "partition $next is left out: audit_log.change_default holds rows of that month\n1 partitions made, 12 months ahead",
	'… but made when it is gone');

# ---- a lock that is not to be had

$node->sql("DROP TABLE $gone");
my $holder = $node->session;
$holder->query('BEGIN; LOCK TABLE audit_log.change_default IN ROW SHARE MODE');
like(maintain(''), qr/^partition $gone.*left for later/m, 'what is locked is left for later');
$holder->query('ROLLBACK');
like(maintain(''), qr/^1 partitions made/m, '… and made then');

# enable() makes partitions only when few are left, and does not fail for them
$node->sql(q(DO $$ DECLARE p regclass; BEGIN
	FOR p IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'audit_log.change'::regclass AND inhrelid::regclass::text ~ '\d' ORDER BY inhrelid::regclass::text OFFSET 2 LOOP
		EXECUTE format('DROP TABLE %s', p);
	END LOOP; END $$; CREATE TABLE v (id int PRIMARY KEY)));
like($node->sql('SELECT problem FROM audit_log.check()') . ' ', qr/^( |only 2 months ahead.*)$/, 'check() may say so');
$holder->query('BEGIN; LOCK TABLE audit_log.change_default IN ROW SHARE MODE');
my ($rc, $out, $err) = $node->psql("SELECT audit_log.enable('v'); INSERT INTO v VALUES (1)");
is($rc, 0, 'enable() with the log locked') or diag($err);
$holder->query('ROLLBACK');
is($node->sql("SELECT count(*) FROM audit_log.audit_logs WHERE relation = 'v'::regclass"), '1', '… tracks the table');
$node->sql("SELECT audit_log.enable('v')");
cmp_ok($node->sql($attached), '>', 10, '… and the next one makes the partitions');

# ---- the end of their retention

for my $old ('2020_02', '2020_03', '2021_12')
{
	my ($year, $m) = $old =~ /(\d+)_(\d+)/;
	$node->sql(<<"END");
CREATE TABLE audit_log.change_$old (LIKE audit_log.change);
SELECT audit_log._prepare_partition('audit_log.change_$old');
ALTER TABLE audit_log.change ATTACH PARTITION audit_log.change_$old
	FOR VALUES FROM ('$year-$m-01 00:00+00') TO ((timestamptz '$year-$m-01 00:00+00' AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC');
INSERT INTO audit_log.change (id, transaction_id, command, timestamp, action_type, table_id, record_id, old_record_id, changes) SELECT -id - 1000 * $year - $m, transaction_id, command, '$year-$m-10 00:00+00', action_type, table_id, record_id, old_record_id, changes
	FROM audit_log.change WHERE id > 0 AND table_id IN (SELECT id FROM audit_log.tracked_table WHERE table_name = 't');
END
}
my $before = $node->sql($attached);
unlike(maintain(''), qr/detached|dropped/, 'without keep nothing goes');
like(maintain("keep => '1 day'"), qr/failed: .*keep must be at least one month/s, 'keep of less than a month is refused');
like(maintain("keep => '1 year', expired => 'shred'"), qr/failed: .*unknown expired/s, 'an unknown end is refused');
like(maintain("keep => '1 year', expired => NULL"), qr/failed: .*unknown expired/s, 'so is none');
is($node->sql($attached), $before, '… and nothing has gone');
like(maintain("'5000 years'"), qr/\A[^\n]*(\n\d+ partitions made[^\n]*)?\z/, 'keep everything');
is($node->sql($attached), $before, '… and nothing has gone');

# a reader in its transaction: the partition is left for later, and writers do not wait for us for long
$holder->query('BEGIN; SELECT count(*) FROM audit_log.change');
like(maintain("keep => '1 year'"), qr/^partition audit_log.change_2020_02.*left for later/m, 'a partition that is read is left for later');
is($node->sql($attached), $before, '… attached');
is($node->sql($states), '', '… without a gap');
$holder->query('ROLLBACK');

my $year = $node->sql(q(SELECT (extract(year FROM age(now(), '2021-12-31')) * 12 + extract(month FROM age(now(), '2021-12-31')))::int + 3));
my $kept = maintain("keep => make_interval(months => $year)");
like($kept, qr/^audit_log.change_2020_02 detached, history of 1 tables$/m, 'what is older is detached');
like($kept, qr/^audit_log.change_2020_03 detached/m, '… month by month');
unlike($kept, qr/2021_12/, '… and not what is younger');
is($node->sql('SELECT count(*) FROM audit_log.change_2020_02'), '1', 'a detached month keeps its rows');
($rc, $out, $err) = $node->psql('DELETE FROM audit_log.change_2020_02');
ok($rc != 0 && $err =~ /cannot be changed/, '… and its guard');
is($node->sql($states), 't gap history purged audit_log.change_2020_02, t gap history purged audit_log.change_2020_03', 'the gap is named in table_state');
($rc, $out, $err) = $node->psql('SELECT * FROM audit_log.rebuild(NULL::t)');
ok($rc != 0 && $err =~ /cannot be rebuilt/, '… and rebuild() refuses') or diag($out, $err);
is($node->sql('SELECT count(*) FROM audit_log.rebuild(NULL::u)'), '0', '… but of that table only');
is(maintain("keep => make_interval(months => $year)") =~ s/^partition.*left out.*\n//mr, '0 partitions made, 12 months ahead', 'once is enough');

like(maintain("keep => '1 year', expired => 'drop'"), qr/^audit_log.change_2021_12 dropped, history of 1 tables$/m, 'dropped');
is($node->sql(q(SELECT to_regclass('audit_log.change_2021_12'))), '', '… it is gone');
is($node->sql(q(SELECT count(*) FROM audit_log.change_2020_02)), '1', '… and what was detached before is not');
is($node->sql(q(SELECT count(*) FROM audit_log.change_default)), '1', '… nor the default partition');
like(maintain("keep => '1 month', expired => 'drop'"), qr/12 months ahead/, 'the shortest keep');
cmp_ok($node->sql($attached), '>=', 13, '… keeps this month and those to come');
is($node->sql('SELECT count(*) FROM audit_log.audit_logs WHERE relation = \'t\'::regclass'), '2', '… with their rows');

# ---- this month in the default partition, as where nothing was enabled before

$node->sql('CREATE DATABASE late');
$node->sql('CREATE EXTENSION audit_log; CREATE TABLE t (id int PRIMARY KEY);'
	  . 'CREATE TRIGGER audit AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION audit_log.capture(); INSERT INTO t VALUES (1)', db => 'late');
($rc, $out, $err) = $node->psql('CALL audit_log.maintain(); CALL audit_log.maintain(); SELECT count(*) FROM audit_log.check()', db => 'late');
like($err, qr/change_default holds rows of that month.*12 partitions made, 13 months ahead.*0 partitions made, 13 months ahead/s,
	'this month stays in the default partition, the others are made');
is($out, '0', '… and nothing is amiss');

# ---- who may, and where

$node->sql('CREATE ROLE regress_other LOGIN; CREATE ROLE regress_admin LOGIN; SELECT audit_log.grant_admin(\'regress_admin\')');
for my $role ('regress_other', 'regress_admin')
{
	($rc, $out, $err) = $node->psql('CALL audit_log.maintain()', user => $role);
	ok($rc != 0 && $err =~ /permission denied/, "$role may not");
}
is(($node->psql('BEGIN; CALL audit_log.maintain(); ROLLBACK'))[0], 0, 'in a transaction');
$node->sql('DROP EXTENSION audit_log CASCADE');
is($node->sql('SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal'), '0', 'DROP EXTENSION takes the guards of what was detached, too');

done_testing();
