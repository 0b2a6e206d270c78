# Versions under load: eight clients change a hundred hot rows in transactions of several statements, with
# savepoints, deletions, key changes and rollbacks, at every isolation level. Each record's versions form
# [from, to) without gap or overlap, transaction_id rises, one end is open, and says what the table says.
# (Without further transaction rows ids do not rise: edge case 117.)

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $node = AuditLogTest->new('versions', conf => "max_connections = 30\nmax_prepared_transactions = 20\n");
$node->sql(<<'END');
CREATE EXTENSION audit_log;
CREATE TABLE hot (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, note text);
INSERT INTO hot SELECT i FROM generate_series(1, 100) i;
SELECT audit_log.enable('hot', versioned => true);
CREATE TABLE other (id int PRIMARY KEY, n int);
SELECT audit_log.enable('other', versioned => true);
-- one transaction of several changes, in a random order; what fails is rolled back to where it began
CREATE FUNCTION change() RETURNS void LANGUAGE plpgsql AS $$
DECLARE r int; o int;
BEGIN
  FOR i IN 1 .. 1 + floor(random() * 5)::int LOOP
    r := 1 + floor(random() * 100)::int;
    o := 1 + floor(random() * 100)::int;
    BEGIN
      CASE floor(random() * 10)::int
        WHEN 0 THEN DELETE FROM hot WHERE id = r;
        WHEN 1 THEN INSERT INTO hot VALUES (r, 1) ON CONFLICT (id) DO UPDATE SET n = hot.n + 1;
        WHEN 2 THEN UPDATE hot SET id = o WHERE id = r AND NOT EXISTS (SELECT FROM hot h WHERE h.id = o);
        WHEN 3 THEN UPDATE hot SET n = n + 1 WHERE id = r; RAISE division_by_zero;
        WHEN 4 THEN UPDATE hot SET n = n + 1 WHERE id IN (r, o);
        WHEN 5 THEN INSERT INTO other VALUES (r, 0) ON CONFLICT (id) DO UPDATE SET n = other.n + 1;
        ELSE UPDATE hot SET n = n + 1, note = 'by ' || pg_backend_pid() WHERE id = r;
      END CASE;
      IF random() < 0.2 THEN PERFORM audit_log.set_context((random() * 3)::int::text); END IF;
    EXCEPTION WHEN division_by_zero OR unique_violation THEN NULL;
    END;
  END LOOP;
  IF random() < 0.1 THEN RAISE EXCEPTION 'rolled back on purpose'; END IF;
END $$;
END

sub pgbench
{
	my ($script, $transactions) = @_;
	my $file = AuditLogTest->folder . '/load.sql';
	open my $handle, '>', $file or die $!;
	print $handle $script;
	close $handle;
	# deadlocks and serialization failures are no news here
	my ($rc, $out, $err) = $node->run('pgbench', '-n', '-c', 8, '-j', 2, '-t', $transactions, '--max-tries', 20, '-f', $file, { timeout => 600 });
	return ($out, $err);
}

my $whole = <<'END';
SELECT count(*) FROM (
  SELECT v.*, lead(transaction_id) OVER w AS next, lead(valid_from) OVER w AS next_from, coalesce(lag(operation_type) OVER w, 2) AS before
    FROM %s_version v WINDOW w AS (PARTITION BY id ORDER BY transaction_id)) c
 WHERE c.end_transaction_id IS DISTINCT FROM c.next OR c.valid_to IS DISTINCT FROM c.next_from OR c.valid_to <= c.valid_from
    OR (c.operation_type = 0 AND c.before <> 2) OR (c.operation_type = 1 AND c.before = 2)
END
my $true = <<'END';
SELECT count(*) FROM ((SELECT id, n FROM %1$s EXCEPT SELECT id, n FROM %1$s_version WHERE end_transaction_id IS NULL AND operation_type <> 2)
  UNION ALL (SELECT id, n FROM %1$s_version WHERE end_transaction_id IS NULL AND operation_type <> 2 EXCEPT SELECT id, n FROM %1$s)) x
END

for my $level ('read committed', 'repeatable read', 'serializable')
{
	# pgbench ends a client at an error that is neither: so rollbacks on purpose are caught outside
	$node->sql(<<'END');
CREATE OR REPLACE PROCEDURE work() LANGUAGE plpgsql AS $$
BEGIN
  PERFORM change();
EXCEPTION WHEN raise_exception THEN NULL;
END $$;
END
	my ($out) = pgbench("BEGIN ISOLATION LEVEL $level;\nSET LOCAL deadlock_timeout = '50ms';\nCALL work();\nCOMMIT;\n", 150);
	my ($done) = $out =~ m{actually processed: (\d+)/};
	cmp_ok($done, '>', 600, "$level: most transactions were done ($done)");
	for my $table ('hot', 'other')
	{
		is($node->sql(sprintf $whole, $table), '0', "$level: chains of $table are unbroken");
		is($node->sql(sprintf $true, $table), '0', "$level: their open ends say what the table says");
		is($node->sql("SELECT count(*) FROM (SELECT id FROM ${table}_version WHERE end_transaction_id IS NULL GROUP BY id HAVING count(*) <> 1) x"), '0', "$level: one open end each");
	}
	is($node->sql('SELECT count(*) FROM hot_version v WHERE NOT EXISTS (SELECT FROM audit_log.transaction t WHERE t.id = v.transaction_id)'), '0', "$level: each version has its transaction");
	# log and versions tell the same: of each record and transaction row that has changes there is a version
	is($node->sql(<<'END'), '0', "$level: each version has its change in the log, under its transaction");
SELECT count(*) FROM hot_version v WHERE v.transaction_id > (SELECT min(transaction_id) FROM hot_version)
   AND NOT EXISTS (SELECT FROM audit_log.change c JOIN audit_log.tracked_table t ON t.id = c.table_id AND t.table_name = 'hot'
                    WHERE c.transaction_id = v.transaction_id AND v.id::text IN (c.record_id, c.old_record_id))
END
	is($node->sql(<<'END'), '0', "$level: and each change its version");
SELECT count(*) FROM (SELECT c.transaction_id, r FROM audit_log.change c JOIN audit_log.tracked_table t ON t.id = c.table_id AND t.table_name = 'hot',
                             LATERAL (VALUES (c.record_id), (c.old_record_id)) x (r) WHERE r IS NOT NULL) c
 WHERE NOT EXISTS (SELECT FROM hot_version v WHERE v.transaction_id = c.transaction_id AND v.id::text = c.r)
END
}
cmp_ok($node->sql('SELECT count(*) FROM audit_log.transaction WHERE continues IS NOT NULL'), '>', 0, 'transactions went on under higher ids');
is($node->sql('SELECT count(*) FROM audit_log.transaction t JOIN audit_log.transaction b ON b.id = t.continues
  WHERE t.xid <> b.xid OR t.id <= b.id OR t.user_id IS DISTINCT FROM b.user_id'), '0', 'with the same who, in the same transaction');
is($node->sql('SELECT count(*) FROM audit_log.check()'), '0', 'check() has nothing to say');

# Prepared transactions hold their records, and leave whole chains whichever way they end.
$node->sql("BEGIN; UPDATE hot SET n = n + 1 WHERE id IN (SELECT min(id) FROM hot); PREPARE TRANSACTION 'kept'");
$node->sql("BEGIN; UPDATE hot SET n = n + 1 WHERE id IN (SELECT max(id) FROM hot); PREPARE TRANSACTION 'gone'");
my $waiting = $node->session;
$waiting->send('UPDATE hot SET n = n + 100');
ok($waiting->wait_blocked, 'another waits for a prepared transaction');
$node->restart('immediate');
$node->sql("COMMIT PREPARED 'kept'; ROLLBACK PREPARED 'gone'");
$node->sql('UPDATE hot SET n = n + 1000');
is($node->sql(sprintf $whole, 'hot'), '0', 'chains are unbroken');
is($node->sql(sprintf $true, 'hot'), '0', 'and true');

done_testing();
