# Logical replication into tracked tables: with `always` the apply worker's changes are logged when
# they are committed, without it nothing is (edge cases 32, 89, 128, 131, 134).

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $publisher = AuditLogTest->new('publisher', conf => "wal_level = logical\nlogical_decoding_work_mem = 64kB");
my $subscriber = AuditLogTest->new('subscriber');

$publisher->sql(<<'END');
CREATE TABLE plain (id int PRIMARY KEY, n int, doc jsonb);
CREATE TABLE moves (id int, region int, n int, PRIMARY KEY (id, region));
CREATE TABLE quiet (id int PRIMARY KEY, n int);
CREATE TABLE keyless (a int, b text);
ALTER TABLE keyless REPLICA IDENTITY FULL;
INSERT INTO plain SELECT i, i, jsonb_build_object('i', i) FROM generate_series(1, 100) i;
INSERT INTO moves SELECT i, i % 2, i FROM generate_series(1, 10) i;
INSERT INTO quiet VALUES (1, 1);
INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (2, NULL);
CREATE PUBLICATION p FOR TABLE plain, moves, quiet, keyless;
END
$subscriber->sql(<<'END');
CREATE EXTENSION audit_log;
CREATE TABLE plain (id int PRIMARY KEY, n int, doc jsonb);
CREATE TABLE moves (id int, region int, n int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE moves_0 PARTITION OF moves FOR VALUES IN (0);
-- columns in another order
CREATE TABLE moves_1 (n int, region int NOT NULL, id int NOT NULL);
ALTER TABLE moves ATTACH PARTITION moves_1 FOR VALUES IN (1);
CREATE TABLE quiet (id int PRIMARY KEY, n int);
CREATE TABLE keyless (a int, b text);
-- what is required of a user is not asked of replicated changes
SELECT audit_log.enable('plain', always => true, require => '{user_id, reason}');
SELECT audit_log.enable('moves', always => true);
SELECT audit_log.enable('keyless', always => true);
SELECT audit_log.enable('quiet');
CREATE VIEW log AS
    SELECT k.table_name, c.id, c.transaction_id, c.command, c.action_type, c.record_id, c.changes
      FROM audit_log.change c JOIN audit_log.tracked_table k ON k.id = c.table_id;
CREATE VIEW differ AS
    SELECT t.id FROM plain t FULL JOIN audit_log.rebuild(NULL::plain) r ON t.id = r.id
     WHERE t.id IS NULL OR r.id IS NULL OR NOT t *= r
    UNION ALL
    SELECT t.id FROM moves t FULL JOIN audit_log.rebuild(NULL::moves) r ON (t.id, t.region) = (r.id, r.region)
     WHERE t.id IS NULL OR r.id IS NULL OR NOT t *= r
    UNION ALL
    SELECT 0 FROM (SELECT k::text AS k, count(*) AS rows FROM keyless k GROUP BY 1) t
      FULL JOIN (SELECT k::text AS k, count(*) AS rows FROM audit_log.rebuild(NULL::keyless) k GROUP BY 1) r USING (k)
     WHERE t.rows IS DISTINCT FROM r.rows;
END

sub caught_up
{
	my $lsn = $publisher->sql('SELECT pg_current_wal_lsn()');
	return $publisher->poll("SELECT coalesce(bool_and(replay_lsn >= '$lsn'), false) FROM pg_stat_replication WHERE application_name = 's'");
}

my $mark = 0;

# runs it at the publisher; what the subscriber has logged since, in order
sub applied
{
	my ($sql, $wanted, $what) = @_;
	$publisher->sql($sql);
	caught_up() or die 'not caught up';
	is( $subscriber->sql(
			"SELECT string_agg(concat_ws(' ', table_name, action_type, record_id), ', ' ORDER BY transaction_id, command, id) FROM log WHERE id > $mark"),
		$wanted, $what);
	is($subscriber->sql('SELECT count(*) FROM differ'), '0', "$what: each table is what its log says");
	$mark = $subscriber->sql('SELECT max(id) FROM log');
}

my $connection = $publisher->connstr . ' application_name=s';
$subscriber->sql("CREATE SUBSCRIPTION s CONNECTION '$connection' PUBLICATION p WITH (streaming = on)");
$subscriber->poll("SELECT bool_and(srsubstate IN ('r', 's')) FROM pg_subscription_rel") or die 'no initial copy';
caught_up() or die 'not caught up';

is( $subscriber->sql("SELECT string_agg(l, ', ' ORDER BY l) FROM (SELECT concat_ws(' ', table_name, action_type, count(*)) l FROM log GROUP BY table_name, action_type) x"),
	'keyless INSERT 3, moves INSERT 10, plain INSERT 100', 'the initial copy is logged, but not without always');
is($subscriber->sql('SELECT count(*) FROM quiet'), '1', 'the table without it has its row');
is($subscriber->sql('SELECT count(*) FROM differ'), '0', 'the initial copy: each table is what its log says');
$mark = $subscriber->sql('SELECT max(id) FROM log');

applied("INSERT INTO plain VALUES (101, 1, '{}')", 'plain INSERT 101', 'INSERT');
applied("UPDATE plain SET doc = doc || '{\"a\": 1}', n = 7 WHERE id = 101", 'plain UPDATE 101', 'UPDATE');
applied('UPDATE plain SET id = 102 WHERE id = 101', 'plain UPDATE 102', 'UPDATE of the key');
applied('DELETE FROM plain WHERE id = 102', 'plain DELETE 102', 'DELETE');
applied('UPDATE quiet SET n = 2; INSERT INTO plain (id) VALUES (103)', 'plain INSERT 103', 'without always');
applied("UPDATE keyless SET b = 'y' WHERE a = 1", 'keyless UPDATE, keyless UPDATE', 'UPDATE of equal rows without key');
applied('DELETE FROM keyless WHERE a = 2', 'keyless DELETE', 'DELETE of a row without key');

applied('UPDATE moves SET region = 1 WHERE id = 2', 'moves UPDATE ["2", "1"]', 'a row that moves is one UPDATE');
applied('UPDATE moves SET region = 0, n = 0 WHERE id = 2', 'moves UPDATE ["2", "0"]', 'a row that moves back');
applied('DELETE FROM moves WHERE id = 4', 'moves DELETE ["4", "0"]', 'DELETE in a partition');
applied('BEGIN; DELETE FROM moves WHERE id = 2; INSERT INTO moves VALUES (2, 1, 2); COMMIT',
	'moves DELETE ["2", "0"], moves INSERT ["2", "1"]', 'DELETE and INSERT elsewhere are two changes');
applied('BEGIN; DELETE FROM moves WHERE id = 6; UPDATE moves SET region = 1 WHERE id = 8; UPDATE plain SET n = 0 WHERE id = 1; DELETE FROM moves WHERE id = 10; COMMIT',
	'moves DELETE ["6", "0"], moves UPDATE ["8", "1"], plain UPDATE 1, moves DELETE ["10", "0"]', 'several in one transaction');
applied('TRUNCATE keyless', 'keyless DELETE, keyless DELETE, keyless TRUNCATE', 'TRUNCATE');
applied("BEGIN; INSERT INTO plain (id) VALUES (200); SAVEPOINT a; INSERT INTO plain (id) VALUES (201); ROLLBACK TO a; INSERT INTO plain (id) VALUES (202); COMMIT",
	'plain INSERT 200, plain INSERT 202', 'a savepoint rolled back at the publisher');

is( $subscriber->sql('SELECT DISTINCT user_id IS NULL, context IS NULL, db_user, db_role, undoes IS NULL FROM audit_log.transaction'),
	't|t|postgres|postgres|t', 'applied changes have the subscription\'s owner as author');
is($subscriber->sql('SELECT count(*) - count(DISTINCT xid) FROM audit_log.transaction'), '0', 'one transaction row each');

# ---- streamed, with rolled back savepoints

my @ways = ('on', $subscriber->version >= 160000 ? 'parallel' : ());
for my $streaming (@ways)
{
	$subscriber->sql("ALTER SUBSCRIPTION s SET (streaming = $streaming)");
	my $before = $publisher->sql("SELECT coalesce(sum(stream_txns), 0) FROM pg_stat_replication_slots");
	# PostgreSQL 18 warns of a relation not closed for each row of a partitioned table with AFTER ROW
	# triggers, whosever they are; of a parallel worker more than a few block its queue to the leader.
	my $last = $streaming eq 'on' ? 3000 : 1010;
	$publisher->sql(<<"END");
BEGIN;
UPDATE plain SET n = n + 1;
SAVEPOINT a;
INSERT INTO plain SELECT i, i, jsonb_build_object('t', repeat('x', 100)) FROM generate_series(1000, 3000) i;
SAVEPOINT b;
DELETE FROM plain WHERE id < 50;
ROLLBACK TO b;
UPDATE plain SET doc = NULL WHERE id > 2000;
RELEASE a;
INSERT INTO moves SELECT i, i % 2, i FROM generate_series(1000, $last) i;
UPDATE moves SET region = 1 - region WHERE id % 3 = 0;
DELETE FROM moves WHERE id % 5 = 0;
DELETE FROM plain WHERE id >= 1000;
DELETE FROM moves WHERE id >= 1000;
COMMIT;
END
	caught_up() or die 'not caught up';
	ok($publisher->poll("SELECT sum(stream_txns) > $before FROM pg_stat_replication_slots"), "streaming = $streaming: it was streamed");
	is($subscriber->sql('SELECT count(*) FROM differ'), '0', "streaming = $streaming: each table is what its log says");
	is($subscriber->sql("SELECT count(*) FROM log WHERE id > $mark AND table_name = 'moves' AND action_type = 'UPDATE'"),
		$subscriber->sql("SELECT count(*) FROM generate_series(1000, 3000) i WHERE i % 3 = 0") +
		$publisher->sql("SELECT count(*) FROM moves WHERE id % 3 = 0 AND id % 5 <> 0"),
		"streaming = $streaming: each move is one UPDATE") if $streaming eq 'on';
	$publisher->sql('BEGIN; INSERT INTO plain SELECT i FROM generate_series(5000, 9000) i; UPDATE moves SET region = 1 - region; ROLLBACK');
	$publisher->sql('INSERT INTO quiet VALUES (2, 2); DELETE FROM quiet WHERE id = 2');
	caught_up() or die 'not caught up';
	is($subscriber->sql('SELECT count(*) FROM log WHERE record_id IN (\'5000\', \'9000\')'), '0', "streaming = $streaming: a transaction rolled back leaves nothing");
	$mark = $subscriber->sql('SELECT max(id) FROM log');
}
is($subscriber->sql("SELECT count(*) FROM log WHERE table_name = 'quiet'"), '0', 'without always nothing was logged');

# The subscriber's own writes go on beside, under their author.
$subscriber->sql(q{BEGIN; SELECT audit_log.set_context('u', '{"reason": "r"}'); UPDATE plain SET n = -1 WHERE id = 3; UPDATE quiet SET n = 9; COMMIT});
is($subscriber->sql("SELECT count(*) FROM log l JOIN audit_log.transaction t ON t.id = l.transaction_id WHERE t.user_id = 'u'"), '2', 'the subscriber\'s own writes are logged');

# always taken back
$subscriber->sql("SELECT audit_log.enable('plain', always => false)");
$publisher->sql('UPDATE plain SET n = 5 WHERE id = 5');
caught_up() or die;
is($subscriber->sql("SELECT count(*) FROM log WHERE id > $mark AND table_name = 'plain' AND record_id = '5'"), '0', 'always taken back: nothing is logged');
is($subscriber->sql('SELECT count(*) FROM audit_log.check()'), '0', 'check() is content');

# (a worker that restarts may meet its predecessor, and tries again)
unlike($subscriber->log, qr/(ERROR|PANIC|FATAL):(?!.*(terminating|is (already )?active for PID))/, 'no worker failed');
done_testing();
