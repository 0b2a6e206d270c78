# Consumers of the outbox whose log moves to another cluster, where xids start low: dump and restore (COPY, INSERTs, INSERTs in one transaction,
# triggers held off), written to before anybody polls, and on to a third cluster, and back. Also partitions that are
# purged between two polls, and a crash of the server. Nothing is missed, nothing comes twice (edge cases 84, 85, 133).

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $first = AuditLogTest->new('a', conf => "max_prepared_transactions = 5\nwal_level = logical");
my $second = AuditLogTest->new('b');

# what a consumer gets until there is nothing more, acknowledged piece by piece
sub drain
{
	my ($node, $db, $who, $rows) = @_;
	my @ids;
	for (1 .. 1000)
	{
		my $ids = $node->sql("SELECT id FROM audit_log.poll('$who', $rows)", db => $db);
		# nothing means that there is nothing
		return @ids if $ids eq '';
		$node->sql("SELECT audit_log.ack('$who')", db => $db);
		push @ids, split /\n/, $ids;
	}
	die "no end\n";
}
sub ids { my ($node, $db, $where) = @_; return split /\n/, $node->sql("SELECT id FROM audit_log.change WHERE $where ORDER BY id", db => $db) }
sub same
{
	my ($what, $got, $wanted) = @_;
	is(join(' ', sort { $a <=> $b } @$got), join(' ', @$wanted), $what);
}

$first->sql('DO $$ BEGIN FOR i IN 1 .. 4000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$');
$first->sql('CREATE DATABASE d');
$first->sql(<<'END', db => 'd');
CREATE EXTENSION audit_log;
CREATE TABLE t (id int PRIMARY KEY, n int);
SELECT audit_log.enable('t');
SELECT audit_log.create_consumer('one'), audit_log.create_consumer('two'), audit_log.create_consumer('idle');
INSERT INTO t SELECT i, 0 FROM generate_series(1, 20) i;
END
# running while consumer one gets its snapshot
my $s = $first->session(db => 'd');
$s->query('BEGIN; UPDATE t SET n = n + 1 WHERE id = 1');
$first->sql("BEGIN; UPDATE t SET n = n + 1 WHERE id = 2; PREPARE TRANSACTION 'p'", db => 'd');
my @one = drain($first, 'd', 'one', 1000);
is(scalar @one, 20, 'what is committed');
$first->sql('UPDATE t SET n = n + 1 WHERE id BETWEEN 3 AND 12', db => 'd');
# in the middle of a transaction
push @one, split /\n/, $first->sql("SELECT id FROM audit_log.poll('one', 4)", db => 'd');
is($first->sql("SELECT audit_log.ack('one')", db => 'd'), '4', 'a part of a transaction');
$s->query('COMMIT');
$first->sql("COMMIT PREPARED 'p'", db => 'd');
# two has been given something and has not said so
my @two = drain($first, 'd', 'two', 6);
$first->sql('UPDATE t SET n = n + 1 WHERE id = 13', db => 'd');
my @unsaid = split /\n/, $first->sql("SELECT id FROM audit_log.poll('two', 1)", db => 'd');

my $dumps = AuditLogTest->folder;
$first->run_ok('pg_dump', '-Fc', '-f', "$dumps/d.dump", 'd');
$first->run_ok('pg_dump', '--inserts', '-f', "$dumps/d.sql", 'd');

my $write = 'UPDATE t SET n = n + 1 WHERE id = 1; BEGIN; UPDATE t SET n = n + 1 WHERE id = 2; UPDATE t SET n = n + 1 WHERE id = 3; COMMIT';
for my $way (qw(copy inserts single parallel))
{
	$second->sql("CREATE DATABASE $way");
	if ($way =~ /^(inserts|single)/)
	{
		$second->run_ok('psql', '-XAtq', ($way eq 'single' ? '-1' : ()), '-v', 'ON_ERROR_STOP=1', '-d', $way, '-f', "$dumps/d.sql");
	}
	else { $second->run_ok('pg_restore', ($way eq 'parallel' ? ('-j', 3) : ()), '-d', $way, "$dumps/d.dump") }
	cmp_ok($second->sql("SELECT count(*) FROM audit_log.transaction WHERE xid > pg_snapshot_xmax(pg_current_snapshot())", db => $way), '>', 0,
		"$way: xids of the log are not yet reached");
	is($second->sql('SELECT count(*) FROM audit_log.restored', db => $way), '1', "$way: one restore");
	$second->sql($write, db => $way);
	my @all = ids($second, $way, 'true');
	same("$way: goes on where it was", [ @one, drain($second, $way, 'one', 3) ], \@all);
	same("$way: gets again what it has not acknowledged", [ @two, drain($second, $way, 'two', 3) ], \@all);
	same("$way: gets all of both clusters", [ drain($second, $way, 'idle', 1000) ], \@all);
	$second->sql($write, db => $way);
	my @new = ids($second, $way, "id > $all[-1]");
	same("$way: and goes on ($_)", [ drain($second, $way, $_, 2) ], \@new) for qw(one two idle);
}

# ---- on to a third database, half of the second's changes taken, and from there back to the first cluster

$second->sql($write, db => 'copy');
my @before = split /\n/, $second->sql("SELECT id FROM audit_log.poll('one', 1)", db => 'copy');
$second->sql("SELECT audit_log.ack('one')", db => 'copy');
$second->run_ok('pg_dump', '-Fc', '-f', "$dumps/copy.dump", 'copy');
$first->sql('CREATE DATABASE back');
$first->run_ok('pg_restore', '-d', 'back', "$dumps/copy.dump");
is($first->sql('SELECT count(*) FROM audit_log.restored', db => 'back'), '2', 'two restores');
$first->sql($write, db => 'back');
my ($last) = $second->sql("SELECT max(id) - 3 FROM audit_log.change", db => 'copy');
same('twice restored', [ @before, drain($first, 'back', 'one', 2) ], [ ids($first, 'back', "id > $last") ]);
same('twice restored, all', [ drain($first, 'back', 'idle', 1000) ], [ ids($first, 'back', "id > $last") ]);
$first->sql("SELECT audit_log.create_consumer('anew', from_start => true)", db => 'back');
same('from the beginning, through three clusters', [ drain($first, 'back', 'anew', 4) ], [ ids($first, 'back', 'true') ]);

# ---- triggers held off: it is told, not guessed

$second->sql('CREATE DATABASE quiet');
$second->run_ok('pg_restore', '-s', '-d', 'quiet', "$dumps/d.dump");
$second->run_ok('pg_restore', '-a', '--disable-triggers', '-n', 'audit_log', '-d', 'quiet', "$dumps/d.dump");
$second->run_ok('pg_restore', '-a', '-n', 'public', '-d', 'quiet', "$dumps/d.dump", { env => { PGOPTIONS => '-c session_replication_role=replica' } });
my ($rc, $out, $err) = $second->psql("SELECT * FROM audit_log.poll('one')", db => 'quiet');
like($err, qr/restored past trigger audit_log_restored.*HINT:  Run audit_log.repair\(\)/s, 'restored past the trigger');
$second->sql('SELECT audit_log.repair()', db => 'quiet');
$second->sql($write, db => 'quiet');
same('told, it goes on', [ @one, drain($second, 'quiet', 'one', 3) ], [ ids($second, 'quiet', 'true') ]);
is($second->sql('SELECT * FROM audit_log.check()', db => 'quiet'), '', 'check() is content');

# ---- restored under 1.2, which noted nothing

for my $wrote ('', $write)
{
	my $db = $wrote ? 'wrote' : 'quiet_1_2';
	$second->sql("CREATE DATABASE $db");
	$second->run_ok('pg_restore', '-d', $db, "$dumps/d.dump");
	$second->sql('ALTER TABLE audit_log.restored DISABLE TRIGGER audit_log_guard; DELETE FROM audit_log.restored;'
		  . 'ALTER TABLE audit_log.restored ENABLE ALWAYS TRIGGER audit_log_guard', db => $db);
	$second->sql($wrote, db => $db) if $wrote;
	$second->sql("SELECT audit_log.create_consumer('anew', from_start => true)", db => $db);
	$second->sql($write, db => $db);
	same("$db: all of both clusters", [ drain($second, $db, 'anew', 7) ], [ ids($second, $db, 'true') ]);
}

# ---- xids that come to those of a batch which consumers had not been given to its end

$second->sql('CREATE DATABASE same');
$second->run_ok('pg_restore', '-d', 'same', "$dumps/d.dump");
my ($from) = $second->sql('SELECT min(xid::text::bigint) FROM audit_log.transaction', db => 'same');
$second->sql("DO \$\$ BEGIN WHILE pg_current_xact_id()::text::bigint < $from - 1 LOOP COMMIT; END LOOP; END \$\$");
$second->sql('DO $$ BEGIN FOR i IN 1 .. 60 LOOP UPDATE t SET n = n + 1 WHERE id = i % 20 + 1; COMMIT; END LOOP; END $$', db => 'same');
cmp_ok($second->sql('SELECT count(*) - count(DISTINCT xid) FROM audit_log.transaction', db => 'same'), '>=', 4, 'xids of both clusters are the same');
my @all = ids($second, 'same', 'true');
same('the same xids: goes on where it was', [ @one, drain($second, 'same', 'one', 3) ], \@all);
same('the same xids: gets again what it has not acknowledged', [ @two, drain($second, 'same', 'two', 3) ], \@all);
same('the same xids: gets all of both clusters', [ drain($second, 'same', 'idle', 1000) ], \@all);

# ---- the server crashes between poll and acknowledgement, and with a transaction running

$first->sql("SELECT audit_log.ack('anew')", db => 'back');
my $w = $first->session(db => 'back');
$w->query('BEGIN; UPDATE t SET n = n + 1 WHERE id = 9');
$first->sql($write, db => 'back');
my @given = split /\n/, $first->sql("SELECT id FROM audit_log.poll('anew', 2)", db => 'back');
$first->crash->start;
$w->quit;
is($first->sql("SELECT string_agg(id::text, ' ') FROM audit_log.poll('anew', 2)", db => 'back'), "@given", 'the same after a crash');
$first->sql($write, db => 'back');
same('and all the rest', [ drain($first, 'back', 'anew', 2) ], [ ids($first, 'back', "id >= $given[0]") ]);

# ---- a partition is purged before it was given out

$first->sql("UPDATE t SET n = n + 1 WHERE id = 4; ALTER TABLE audit_log.change DETACH PARTITION audit_log.change_default;"
	  . "ALTER TABLE audit_log.change ATTACH PARTITION audit_log.change_default DEFAULT", db => 'back');
$first->sql("SELECT id FROM audit_log.poll('idle', 1)", db => 'back');
my $partition = $first->sql("SELECT tableoid::regclass FROM audit_log.change ORDER BY id DESC LIMIT 1", db => 'back');
$first->sql("ALTER TABLE audit_log.change DETACH PARTITION $partition", db => 'back');
is(join(' ', drain($first, 'back', 'idle', 5)), '', 'what is purged is not given, and not waited for');
$first->sql($write, db => 'back');
is(scalar(drain($first, 'back', 'idle', 5)), 3, 'and it goes on');

# ---- the log as a logical replica has it: xids there are the publisher's

$first->sql('CREATE PUBLICATION p FOR TABLE audit_log.transaction', db => 'back');
$second->sql('CREATE DATABASE replica');
$second->sql('CREATE EXTENSION audit_log', db => 'replica');
my $connection = $first->connstr('back');
$second->sql("CREATE SUBSCRIPTION s CONNECTION '$connection' PUBLICATION p", db => 'replica');
($rc, $out, $err) = $second->psql("SELECT audit_log.create_consumer('c')", db => 'replica');
like($err, qr/the log here is a replica.*HINT:  Create the consumer on the publisher/s, 'no consumer of a replica');
$second->sql('DROP SUBSCRIPTION s', db => 'replica');

# ---- maintain() says whom it takes changes from, and takes them

$first->sql("SELECT audit_log.import_change('public.gone', 'INSERT', '2020-01-05', NULL, '{}', 'test')", db => 'back');
($rc, $out, $err) = $first->psql("CALL audit_log.maintain('1 year', 'drop')", db => 'back');
like($err, qr/WARNING:  audit_log: consumer 'idle' has not acknowledged all changes in partition audit_log.change_2020_01, which is expired.*change_2020_01 dropped/s,
	'a purge names the consumers that have not got it');
is(join(' ', drain($first, 'back', 'idle', 5)), '', 'what is gone is not given');
$first->sql("SELECT audit_log.import_change('public.gone', 'INSERT', '2020-01-05', NULL, '{}', 'test')", db => 'back');
is(scalar(drain($first, 'back', $_, 5)) > 0, 1, "$_ gets what is imported") for qw(idle one two anew);
($rc, $out, $err) = $first->psql("CALL audit_log.maintain('1 year', 'drop')", db => 'back');
unlike($err, qr/WARNING|ERROR/, 'nobody is named who has all');

done_testing();
