# audit_log.notify: committed changes are announced on channel audit_log; what rolls back, or is prepared, is not, and
# PREPARE TRANSACTION works all the same. Also a consumer that waits instead of asking again and again (edge case 126).

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;
use Time::HiRes;

my $node = AuditLogTest->new('notify', conf => 'max_prepared_transactions = 5');
$node->sql(<<'END');
CREATE EXTENSION audit_log;
CREATE TABLE t (id int PRIMARY KEY, n int);
CREATE TABLE plain (id int);
SELECT audit_log.enable('t');
CREATE ROLE regress_writer LOGIN;
GRANT ALL ON t TO regress_writer;
SELECT audit_log.create_consumer('c');
END
my $listener = $node->session;
$listener->query('LISTEN audit_log');
sub heard { return scalar(() = $listener->query('SELECT 1') =~ /Asynchronous notification "audit_log"/g) }

$node->sql('INSERT INTO t VALUES (1, 0)');
is(heard(), 0, 'off by default');
$node->sql('ALTER DATABASE postgres SET audit_log.notify = on');
$node->sql('INSERT INTO t VALUES (2, 0)', user => 'regress_writer');
is(heard(), 1, 'announced, whoever writes');
$node->sql('BEGIN; INSERT INTO t VALUES (3, 0); UPDATE t SET n = 1; SAVEPOINT a; DELETE FROM t; ROLLBACK TO a; COMMIT');
is(heard(), 1, 'once a transaction');
$node->sql('BEGIN; UPDATE t SET n = 2; ROLLBACK');
$node->sql('BEGIN; SAVEPOINT a; UPDATE t SET n = 2; ROLLBACK TO a; COMMIT');
$node->sql('UPDATE t SET n = n; INSERT INTO plain VALUES (1); SELECT audit_log.transaction_id()');
is(heard(), 0, 'nothing changed, nothing announced');
my ($rc, $out, $err) = $node->psql("BEGIN; UPDATE t SET n = 3; PREPARE TRANSACTION 'p'");
is($err, '', 'a transaction can be prepared');
$node->sql("COMMIT PREPARED 'p'");
is(heard(), 0, 'and is not announced');
# a session that has prepared one goes on
my $s = $node->session;
$s->query("BEGIN; UPDATE t SET n = 4; PREPARE TRANSACTION 'q'");
$s->query("ROLLBACK PREPARED 'q'; UPDATE t SET n = 5");
is($s->err, '', 'the session goes on');
is(heard(), 1, 'and announces its next');
($rc, $out, $err) = $node->psql('SET audit_log.notify = off; UPDATE t SET n = 6', user => 'regress_writer');
like($err, qr/permission denied to set parameter "audit_log.notify"/, 'a writer cannot switch it off');
is(heard(), 1, 'nor before the library is loaded');
$node->sql("DO \$\$ BEGIN UPDATE t SET n = 7; COMMIT; UPDATE t SET n = 8; COMMIT; END \$\$");
is(heard(), 2, 'each transaction of a DO block');

# whoever is told finds it
$node->sql('SELECT id FROM audit_log.poll(\'c\'); SELECT audit_log.ack(\'c\')');
$node->sql('UPDATE t SET n = 9 WHERE id = 1');
is(heard(), 1, 'told');
is($node->sql("SELECT changes FROM audit_log.poll('c')"), '{"n": [8, 9]}', 'and found');

# ---- the consumer among the examples: told, it handles what is new, and after a crash goes on

SKIP:
{
	my $why = `/usr/bin/python3 -c 'import psycopg2' 2>&1`;
	AuditLogTest->skip_aloud(3, 'no python3-psycopg2') if $? != 0;
	$node->sql("SELECT audit_log.ack('c')");
	my $out = AuditLogTest->folder . '/consumer.out';
	my @command = ('/usr/bin/python3', "$FindBin::RealBin/../../examples/psycopg2/consumer.py", 'c');
	my $start = sub { AuditLogTest::spawn(\@command, '/dev/null', $out, AuditLogTest->folder . '/consumer.err', { %{ $node->environment }, PYTHONDONTWRITEBYTECODE => 1 }) };
	my $handled = sub {
		my ($wanted, $what) = @_;
		for (1 .. 600)
		{
			last if AuditLogTest::slurp($out) =~ s/^\d+ //gmr eq $wanted;
			Time::HiRes::sleep(0.1);
		}
		is(AuditLogTest::slurp($out) =~ s/^\d+ //gmr, $wanted, $what) or diag(AuditLogTest::slurp(AuditLogTest->folder . '/consumer.err'));
	};
	$node->sql('INSERT INTO t VALUES (100, 0)');
	my $pid = $start->();
	$handled->("INSERT t 100\n", 'what was there');
	$node->poll("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%audit_log.poll%' AND state = 'idle' AND pid <> pg_backend_pid())");
	$node->sql('BEGIN; INSERT INTO t VALUES (101, 0); UPDATE t SET n = 1 WHERE id = 100; COMMIT');
	$handled->("INSERT t 100\nINSERT t 101\nUPDATE t 100\n", 'what it is told of');
	$node->poll("SELECT given IS NULL FROM audit_log.consumer WHERE consumer = 'c'");
	kill 'KILL', $pid;
	waitpid $pid, 0;
	$node->sql('DELETE FROM t WHERE id = 101');
	$pid = $start->();
	$handled->("DELETE t 101\n", 'killed, and started again: no more than is new');
	kill 'KILL', $pid;
	waitpid $pid, 0;
}

done_testing();
