# The extension's own memory is bounded, whatever the statement and however long the session
# (edge case 13).  Bounds in bytes, never a timing.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $node = AuditLogTest->new('memory', conf => 'synchronous_commit = off');
$node->sql(<<'END');
CREATE EXTENSION audit_log;
CREATE TABLE t (id int PRIMARY KEY, n int, note text, doc jsonb);
CREATE TABLE part (id int, region int, n int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE part_0 PARTITION OF part FOR VALUES IN (0);
CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1);
SELECT audit_log.enable('t', versioned => true);
SELECT audit_log.enable('part');
INSERT INTO t SELECT i, 0, 'x', '{}' FROM generate_series(1, 20000) i;
CREATE TABLE measured (what text, own bigint, whole bigint);
-- The whole is without what PostgreSQL itself keeps until the transaction ends: its queue of AFTER
-- events, a row's versions within one transaction, and 8 kB for each subtransaction in which a
-- statement with AFTER … FOR EACH STATEMENT triggers ran, audited or not.
CREATE FUNCTION measure(what text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO measured
    SELECT $1, sum(total_bytes) FILTER (WHERE name LIKE 'audit\_log%'), sum(total_bytes) FILTER (WHERE name NOT IN ('AfterTriggerEvents', 'Combo CIDs', 'CurTransactionContext'))
      FROM pg_backend_memory_contexts
$$;
CREATE FUNCTION measure_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM measure(TG_ARGV[0]);
    RETURN NULL;
END $$;
-- they come after capture, by name
CREATE TRIGGER measure_update AFTER UPDATE ON t FOR EACH ROW WHEN (NEW.id > 20000 AND NEW.id % 50000 = 7)
    EXECUTE FUNCTION measure_row('one statement, UPDATE');
CREATE TRIGGER measure_insert AFTER INSERT ON t FOR EACH ROW WHEN (NEW.id > 20000 AND NEW.id % 50000 = 7)
    EXECUTE FUNCTION measure_row('one statement, INSERT');
CREATE TRIGGER measure_move AFTER UPDATE ON part FOR EACH ROW
    WHEN (NEW.id % 50000 = 7) EXECUTE FUNCTION measure_row('one statement, move');
END

# ---- 100,000 statements, each its own transaction, in one session

my $file = AuditLogTest->folder . '/statements.sql';
open my $handle, '>', $file or die $!;
print $handle "SELECT measure('start');\n";
for my $i (1 .. 100_000)
{
	print $handle $i % 10
		? "UPDATE t SET n = $i WHERE id = $i % 20000;\n"
		: "BEGIN; SAVEPOINT a; UPDATE t SET doc = '{\"a\": $i}' WHERE id = 1; ROLLBACK TO a; UPDATE t SET note = '$i' WHERE id = 2; COMMIT;\n";
	print $handle "SELECT measure('statements');\n" if $i % 20_000 == 0;
}
close $handle;
$node->run_ok('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-f', $file);

# ---- as many in one transaction

$node->sql(<<'END');
DO $$
BEGIN
    FOR i IN 1..100000 LOOP
        UPDATE t SET n = i WHERE id = i % 20000;
        IF i % 20000 = 0 THEN
            PERFORM measure('one transaction');
        END IF;
    END LOOP;
END $$;
DO $$
BEGIN
    FOR i IN 1..20000 LOOP
        BEGIN
            UPDATE t SET n = i WHERE id = i % 20000;
            IF i % 2 = 0 THEN
                RAISE division_by_zero;
            END IF;
        EXCEPTION WHEN division_by_zero THEN
        END;
        IF i % 5000 = 0 THEN
            PERFORM measure('subtransactions');
        END IF;
    END LOOP;
END $$;
END

# ---- one statement of 300,000 rows

$node->sql($_) for
	"INSERT INTO t SELECT i, 0, repeat('x', 200), '{\"a\": 1}' FROM generate_series(20001, 320000) i",
	"UPDATE t SET n = n + 1, note = note || 'y' WHERE id > 20000",
	'DELETE FROM t WHERE id > 20000',
	'INSERT INTO part SELECT i, 0, 0 FROM generate_series(1, 100000) i',
	'UPDATE part SET region = 1';

my $mb = 1024 * 1024;
for my $what ('statements', 'one transaction', 'subtransactions', 'one statement, INSERT', 'one statement, UPDATE')
{
	my ($times, $own, $growth) = split /\|/,
	  $node->sql("SELECT count(*), max(own), max(whole) - min(whole) FROM measured WHERE what = '$what'");
	cmp_ok($times, '>=', 4, "$what: measured");
	cmp_ok($own, '<', 8 * $mb, "$what: the extension's own contexts stay below 8 MB");
	cmp_ok($growth, '<', 4 * $mb, "$what: the session as a whole does not grow") or
	  diag($node->sql("SELECT * FROM measured WHERE what = '$what'"));
}
is($node->sql('SELECT count(*) FROM part_1'), '100000', 'rows moved');
is($node->sql("SELECT count(*) FROM audit_log.change c JOIN audit_log.tracked_table k ON k.id = c.table_id WHERE k.table_name = 'part' AND action_type = 'UPDATE'"),
	'100000', 'each move is one UPDATE');
cmp_ok($node->sql("SELECT coalesce(max(own), 0) FROM measured WHERE what = 'one statement, move'"), '<', 8 * $mb, 'moves: own memory stays below 8 MB');
is($node->sql('SELECT count(*) FROM t FULL JOIN audit_log.rebuild(NULL::t) r ON t.id = r.id WHERE t.id IS NULL OR r.id IS NULL OR NOT t *= r'),
	'0', 'the table is what its log says');
is($node->sql('SELECT count(*) FROM t FULL JOIN (SELECT * FROM t_version WHERE end_transaction_id IS NULL AND operation_type <> 2) v ON t.id = v.id WHERE (t.n, t.note, t.doc) IS DISTINCT FROM (v.n, v.note, v.doc)'),
	'0', 'and what its versions say');

done_testing();
