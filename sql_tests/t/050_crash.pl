# kill -9 of the server under load: afterwards each table is what its log says, and ids go on
# (edge cases 40, 90).  The sequences' WAL records are the extension's own (src/sequence.c).

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $node = AuditLogTest->new('crash', conf => <<'END');
fsync = on
max_prepared_transactions = 10
deadlock_timeout = 20ms
END
$node->sql(<<'END');
CREATE EXTENSION audit_log;
CREATE TABLE hot (id int PRIMARY KEY, n int NOT NULL, note text);
CREATE TABLE cold (id bigint GENERATED ALWAYS AS IDENTITY, day int, doc jsonb, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE cold_1 PARTITION OF cold FOR VALUES FROM (0) TO (50);
CREATE TABLE cold_2 PARTITION OF cold FOR VALUES FROM (50) TO (100);
CREATE TABLE keyless (a int, b text);
SELECT audit_log.enable(t) FROM unnest('{hot, cold, keyless}'::regclass[]) t;
INSERT INTO hot SELECT i, 0 FROM generate_series(1, 20) i;
CREATE TABLE hand (id int PRIMARY KEY, n int);
INSERT INTO hand VALUES (1, 0);
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON hand FOR EACH ROW EXECUTE FUNCTION audit_log.capture();
-- rows that differ from what the log says
CREATE VIEW differ AS
    SELECT t.id::text FROM hot t FULL JOIN audit_log.rebuild(NULL::hot) r ON t.id = r.id
     WHERE t.id IS NULL OR r.id IS NULL OR NOT t *= r
    UNION ALL
    SELECT t.id::text FROM cold t FULL JOIN audit_log.rebuild(NULL::cold) r ON t.id = r.id
     WHERE t.id IS NULL OR r.id IS NULL OR NOT t *= r
    UNION ALL
    SELECT a || ' ' || b FROM
        (SELECT a, b, count(*) AS rows FROM keyless GROUP BY a, b) t FULL JOIN
        (SELECT a, b, count(*) AS rows FROM audit_log.rebuild(NULL::keyless) GROUP BY a, b) r USING (a, b)
     WHERE t.rows IS DISTINCT FROM r.rows;
END

my $script = AuditLogTest->folder . '/load.sql';
open my $handle, '>', $script or die $!;
print $handle <<'END';
\set a random(1, 20)
\set b random(1, 20)
\set d random(0, 99)
\set e random(0, 99)
BEGIN;
SET LOCAL audit_log.user_id = :client_id;
UPDATE hot SET n = n + 1 WHERE id = least(:a, :b);
SAVEPOINT a;
INSERT INTO cold (day, doc) SELECT :d, jsonb_build_object('i', i, 't', repeat('x', 300)) FROM generate_series(1, 20) i;
UPDATE hot SET note = :a WHERE id = greatest(:a, :b);
ROLLBACK TO a;
INSERT INTO cold (day, doc) SELECT :d, jsonb_build_object('i', i) FROM generate_series(1, 10) i;
SAVEPOINT b;
UPDATE cold SET day = :e WHERE id = (SELECT min(id) FROM cold WHERE day = :d);
INSERT INTO keyless VALUES (:a, 'x'), (:b, 'y');
DELETE FROM keyless WHERE a = :a;
RELEASE b;
COMMIT;
END
close $handle;

sub check_log
{
	my ($what) = @_;
	is($node->sql('SELECT count(*) FROM differ'), '0', "$what: each table is what its log says");
	is($node->sql('SELECT count(*) - count(DISTINCT id) FROM audit_log.change'), '0', "$what: no id twice");
	is( $node->sql(
			'SELECT count(*) FROM audit_log.change c WHERE NOT EXISTS (SELECT FROM audit_log.transaction t WHERE t.id = c.transaction_id)'),
		'0', "$what: every change has its transaction");
	is($node->sql("SELECT count(*) FROM audit_log.table_state WHERE kind = 'gap'"), '0', "$what: no gap");
	is($node->sql('SELECT * FROM audit_log.check()'), '', "$what: check() is content");
}

# the newest ids in the log, and whether a change made now gets higher ones
sub newest { return split /\|/, $node->sql('SELECT max(id), max(transaction_id) FROM audit_log.change') }

sub ascends
{
	my ($what, $change, $transaction) = @_;
	$node->sql('UPDATE hot SET n = n + 1 WHERE id = 1');
	my ($c, $t) = newest();
	cmp_ok($c, '>', $change, "$what: change ids ascend");
	cmp_ok($t, '>', $transaction, "$what: transaction ids ascend");
}

# ---- under load

for my $round (1 .. 3)
{
	my ($before) = newest();
	my $pid = AuditLogTest::spawn(
		[ 'pgbench', '-n', '-c', 8, '-T', 600, '--max-tries=0', '-f', $script ],
		'/dev/null', AuditLogTest->folder . '/pgbench.out', AuditLogTest->folder . '/pgbench.err', $node->environment);
	$node->poll("SELECT count(*) > 3000 FROM audit_log.change WHERE id > $before") or die;
	$node->sql('CHECKPOINT') if $round == 2;
	$node->poll("SELECT count(*) > 4000 FROM audit_log.change WHERE id > $before") or die if $round == 2;
	my @newest = newest();
	$node->crash;
	waitpid $pid, 0;
	$node->start;
	check_log("crash $round");
	my @found = newest();
	cmp_ok($found[0], '>=', $newest[0], "crash $round: what was committed is there");
	ascends("crash $round", @found);
}
like($node->log, qr/database system was not properly shut down/, 'the server did crash');

# ---- the first ids after a checkpoint, whose WAL record is a whole page

for my $rows (1, 32, 33, 5000)
{
	$node->sql('CHECKPOINT');
	$node->sql("INSERT INTO keyless SELECT i, 'checkpoint' FROM generate_series(1, $rows) i");
	my @newest = newest();
	$node->crash->start;
	ascends("crash after a checkpoint and $rows rows", @newest);
}

# ---- ids that were handed out, their transaction never committed

for my $flush ('CHECKPOINT', 'UPDATE hot SET n = n + 1 WHERE id = 2')
{
	my $s = $node->session;
	my $transaction = $s->query('BEGIN; SELECT audit_log.transaction_id()');
	my $change = $s->query("INSERT INTO keyless SELECT i, 'lost' FROM generate_series(1, 100) i; SELECT max(id) FROM audit_log.change");
	$node->sql($flush);
	$node->crash->start;
	$s->quit;
	is($node->sql("SELECT count(*) FROM keyless WHERE b = 'lost'"), '0', 'the transaction is gone');
	ascends("ids handed out before $flush", $change, $transaction);
}
check_log('after crashes');

# ---- PREPARE TRANSACTION and a crash

$node->sql(<<'END');
BEGIN;
SET LOCAL audit_log.user_id = 'prepared';
UPDATE hot SET n = n + 1000 WHERE id = 3;
SAVEPOINT a;
INSERT INTO keyless VALUES (0, 'prepared');
PREPARE TRANSACTION 'one';
END
is($node->sql("SELECT count(*) FROM audit_log.transaction WHERE user_id = 'prepared'"), '0', 'not there while prepared');
$node->crash->start;
is($node->sql("SELECT count(*) FROM audit_log.transaction WHERE user_id = 'prepared'"), '0', 'nor after a crash');
my $s = $node->session;
$s->send("SET audit_log.user_id = 'waited'; UPDATE hot SET n = n + 1 WHERE id = 3");
ok($s->wait_blocked, 'its rows are still locked');
$node->sql("COMMIT PREPARED 'one'");
$s->wait;
is( $node->sql(
		"SELECT string_agg(user_id || ' ' || action_type || ' ' || coalesce(record_id, '-'), ', ' ORDER BY c.id)
		   FROM audit_log.change c JOIN audit_log.transaction t ON t.id = c.transaction_id WHERE user_id IN ('prepared', 'waited')"),
	'prepared UPDATE 3, prepared INSERT -, waited UPDATE 3', 'logged with COMMIT PREPARED, in the order of the row');
check_log('after COMMIT PREPARED');

# What a session registered in a transaction that it prepared may yet be rolled back.
$s->query("BEGIN; UPDATE hand SET n = n + 1; PREPARE TRANSACTION 'two'");
$node->sql("ROLLBACK PREPARED 'two'");
$s->query('UPDATE hand SET n = n + 1');
is($s->err, '', 'the session goes on after ROLLBACK PREPARED');
is( $node->sql(
		"SELECT count(*) FROM audit_log.change c JOIN audit_log.tracked_table k ON k.id = c.table_id WHERE k.table_name = 'hand'"),
	'1', 'and its changes belong to a table that is registered');
is( $node->sql('SELECT count(*) FROM audit_log.change c WHERE NOT EXISTS (SELECT FROM audit_log.tracked_table k WHERE k.id = c.table_id)'),
	'0', 'no change belongs to a table that is not');

done_testing();
