# Many sessions on few rows, with nested savepoints, triggers, errors and partitions: in the end
# every table is what its log says, and ids ascend along each record.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $node = AuditLogTest->new('load', conf => "deadlock_timeout = 10ms\nmax_connections = 30");
$node->sql(<<'END');
CREATE EXTENSION audit_log;
CREATE TABLE hot (id int PRIMARY KEY, version int NOT NULL, note text);
CREATE TABLE part (id int, region int, version int NOT NULL, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE part_0 PARTITION OF part FOR VALUES IN (0);
CREATE TABLE part_1 (region int NOT NULL, extra text, version int NOT NULL, id int NOT NULL);
ALTER TABLE part_1 DROP COLUMN extra;
ALTER TABLE part ATTACH PARTITION part_1 FOR VALUES IN (1);
CREATE TABLE child (id int PRIMARY KEY, hot int REFERENCES hot ON DELETE CASCADE ON UPDATE CASCADE, n int);
CREATE TABLE keyless (a int, b int);
SELECT audit_log.enable(t) FROM unnest('{hot, part, child, keyless}'::regclass[]) t;
INSERT INTO hot SELECT i, 0 FROM generate_series(1, 10) i;
INSERT INTO part SELECT i, i % 2, 0 FROM generate_series(1, 10) i;
INSERT INTO child SELECT i, i % 10 + 1, 0 FROM generate_series(1, 50) i;
-- a trigger that writes tracked tables, sometimes in vain
CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        UPDATE child SET n = n + 1 WHERE hot = NEW.id;
        INSERT INTO keyless VALUES (NEW.id, NEW.version);
        IF NEW.version % 3 = 0 THEN
            PERFORM 1 / 0;
        END IF;
    EXCEPTION WHEN division_by_zero THEN
        INSERT INTO keyless VALUES (NEW.id, -1);
    END;
    RETURN NULL;
END $$;
CREATE TRIGGER more AFTER UPDATE OF version ON hot FOR EACH ROW EXECUTE FUNCTION more();
END

my $script = AuditLogTest->folder . '/load.sql';
open my $handle, '>', $script or die $!;
print $handle <<'END';
\set a random(1, 10)
\set b random(1, 10)
\set c random(1, 10)
\set d random(11, 30)
\set e random(1, 4)
BEGIN;
SET LOCAL audit_log.user_id = :client_id;
UPDATE hot SET version = version + 1 WHERE id = :a;
SAVEPOINT a;
UPDATE part SET region = 1 - region, version = version + 1 WHERE id = :b;
SAVEPOINT b;
UPDATE hot SET version = version + 1, note = md5(:c::text) WHERE id = :c;
INSERT INTO hot VALUES (:d, 0) ON CONFLICT (id) DO UPDATE SET version = hot.version + 1;
ROLLBACK TO b;
SET LOCAL audit_log.context = '{"again": true}';
UPDATE part SET version = version + 1 WHERE id = :b;
RELEASE a;
SAVEPOINT c;
DELETE FROM hot WHERE id = :d;
INSERT INTO hot VALUES (:d, 0) ON CONFLICT DO NOTHING;
\if :e < 2
ROLLBACK TO c;
\endif
\if :e = 3
UPDATE child SET hot = :a WHERE id % 10 = :b - 1;
\endif
DELETE FROM keyless WHERE a = :c AND b < 0;
\if :e = 4
ROLLBACK;
\else
COMMIT;
\endif
END
close $handle;

my ($rc, $out, $err) = $node->run('pgbench', '-n', '-c', 8, '-j', 2, '-t', 150, '--max-tries=100', '-f', $script);
is($rc, 0, 'pgbench ran') or diag($err);
like($out, qr{transactions actually processed: [1-9]}, 'and did something');

for my $table ('hot', 'part', 'child')
{
	my $on = $table eq 'part' ? '(t.id, t.region) = (r.id, r.region)' : 't.id = r.id';
	is( $node->sql("SELECT count(*) FROM $table t FULL JOIN audit_log.rebuild(NULL::$table) r ON $on WHERE t.id IS NULL OR r.id IS NULL OR NOT t *= r"),
		'0', "$table is what its log says");
}
is( $node->sql(
		'SELECT count(*) FROM (SELECT a, b, count(*) AS n FROM keyless GROUP BY 1, 2) t FULL JOIN
		 (SELECT a, b, count(*) AS n FROM audit_log.rebuild(NULL::keyless) GROUP BY 1, 2) r USING (a, b) WHERE t.n IS DISTINCT FROM r.n'),
	'0', 'keyless is what its log says');

# A version counter that each update takes one further, whoever waited for whom: along one record
# of `part`, in the order of ids from one database transaction to the next, it never goes back.
is( $node->sql(<<'END'), '0', 'ids ascend along each record');
WITH steps AS (
    SELECT (c.record_id::jsonb ->> 0) AS id, t.xid, c.id AS change,
           (c.changes -> 'version' ->> 0)::int AS old, (c.changes -> 'version' ->> 1)::int AS new
      FROM audit_log.change c JOIN audit_log.transaction t ON t.id = c.transaction_id
     WHERE c.table_id = (SELECT k.id FROM audit_log.tracked_table k WHERE k.table_name = 'part') AND c.action_type = 'UPDATE'),
ordered AS (
    SELECT *, lag(new, 1, 0) OVER (PARTITION BY id ORDER BY change) AS before FROM steps)
SELECT count(*) FROM ordered WHERE old <> before OR new <> old + 1
END
is($node->sql('SELECT count(*) - count(DISTINCT id) FROM audit_log.change'), '0', 'no id twice');
is($node->sql('SELECT count(*) FROM audit_log.transaction t WHERE NOT EXISTS (SELECT FROM audit_log.change c WHERE c.transaction_id = t.id)'),
	'0', 'no transaction without a change');
is( $node->sql('SELECT count(*) FROM audit_log.change c WHERE NOT EXISTS (SELECT FROM audit_log.transaction t WHERE t.id = c.transaction_id)'),
	'0', 'no change without its transaction');
is( $node->sql("SELECT count(*) FROM audit_log.transaction t WHERE user_id IS NULL AND EXISTS (SELECT FROM audit_log.transaction o WHERE o.xid = t.xid AND o.user_id IS NOT NULL)"),
	'0', 'each transaction has its author');

done_testing();
