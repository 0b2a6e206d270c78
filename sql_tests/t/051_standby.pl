# A physical standby has the log; promoted, it goes on with it.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $primary = AuditLogTest->new('primary', conf => "wal_level = replica\nhot_standby = on");
$primary->sql(<<'END');
CREATE EXTENSION audit_log;
CREATE TABLE t (id int PRIMARY KEY, n int, doc jsonb);
SELECT audit_log.enable('t', exclude => '{}');
INSERT INTO t SELECT i, 0, jsonb_build_object('i', i) FROM generate_series(1, 1000) i;
CREATE VIEW differ AS
    SELECT t.id FROM t FULL JOIN audit_log.rebuild(NULL::t) r ON t.id = r.id
     WHERE t.id IS NULL OR r.id IS NULL OR NOT t *= r;
END
my $standby = $primary->standby('standby');
my $log = 'SELECT count(*), count(DISTINCT id), max(id), max(transaction_id), min(timestamp), max(command) FROM audit_log.change';

$primary->sql($_) for
	"UPDATE t SET n = n + 1, doc = doc || '{\"new\": true}' WHERE id % 2 = 0",
	"BEGIN; SET LOCAL audit_log.user_id = 'u'; DELETE FROM t WHERE id % 10 = 0; SAVEPOINT a; TRUNCATE t; ROLLBACK TO a; UPDATE t SET id = -id WHERE id < 10; COMMIT",
	'UPDATE t SET doc = NULL WHERE id = 11';
$standby->wait_for($primary);
is($standby->sql($log), $primary->sql($log), 'the standby has the whole log');
is($standby->sql('SELECT count(*) FROM differ'), '0', 'and a table can be rebuilt there');
is($standby->sql("SELECT count(*) FROM audit_log.audit_logs WHERE relation = 't'::regclass AND user_id = 'u'"),
	$primary->sql("SELECT count(*) FROM audit_log.audit_logs WHERE relation = 't'::regclass AND user_id = 'u'"), 'its views work there');
is($standby->sql('SELECT * FROM audit_log.check()'), '', 'check() works there');

for my $statement ('SELECT audit_log.transaction_id()', "SELECT audit_log.enable('t')", "SELECT audit_log.pause('t', 'x')")
{
	my ($rc, $out, $err) = $standby->psql($statement);
	like($err, qr/ERROR: .*(recovery|read-only)/, "refused in a standby: $statement");
}

my ($change, $transaction) = split /\|/, $primary->sql('SELECT max(id), max(transaction_id) FROM audit_log.change');
$primary->crash;
$standby->promote;
is($standby->sql('SELECT count(*) FROM differ'), '0', 'promoted: the table is what its log says');
$standby->sql('UPDATE t SET n = n + 1 WHERE id > 900');
cmp_ok($standby->sql("SELECT min(id) FROM audit_log.change WHERE transaction_id > $transaction"), '>', $change, 'ids go on ascending');
is($standby->sql("SELECT count(*) FROM audit_log.change WHERE transaction_id > $transaction"),
	$standby->sql('SELECT count(*) FROM t WHERE id > 900'), 'what is written now is logged');
$standby->sql('TRUNCATE t; INSERT INTO t VALUES (1, 1, NULL)');
is($standby->sql('SELECT count(*) FROM differ'), '0', 'and the table is what its log says');
is($standby->sql('SELECT count(*) - count(DISTINCT id) FROM audit_log.change'), '0', 'no id twice');

done_testing();
