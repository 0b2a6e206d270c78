# rollback_to a mark brings the tables back to what the mark's snapshot saw, image by image: after
# random work of several sessions to each mark, newest first and in random order, back and forth;
# again in another cluster after a dump, a restore and more work. And what is taken back is taken
# back in turn, to what was there before.
#
# AUDIT_LOG_TEST_SECONDS is how long each of the two loads takes; minutes find more.
# Edge cases 31, 103, 105, 106, 108, 112, 115.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;
use TimeTravel;
use List::Util 'shuffle';

my $seconds = $ENV{AUDIT_LOG_TEST_SECONDS} || 5;
my $conf = "deadlock_timeout = 10ms\nmax_prepared_transactions = 10\nmax_connections = 30\n";
my $node = AuditLogTest->new('first', conf => $conf);
my $oracle = TimeTravel->new($node);
my $tables = "'{app.customer, app.orders, app.item, app.part, app.keyless}'";

# an xid is no id, but told from one
{
	my ($id, $xid) = split /\|/, $oracle->sql('INSERT INTO app.keyless VALUES (0, NULL); SELECT id, xid FROM audit_log.transactions LIMIT 1');
	my ($rc, $out, $err) = $node->psql("SELECT audit_log.undo_transaction($xid)");
	like($err, qr/HINT:.*$xid is an xid.* $id\b/, 'an xid is told from an id');
}

# a statement that takes longer than the few seconds between NOTICEs
{
	my ($rc, $out, $err) = $node->psql(<<'END');
CREATE TABLE slow (id int PRIMARY KEY, v int);
SELECT audit_log.enable('slow');
CREATE FUNCTION sleeps() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(5.1); RETURN NULL; END $$;
CREATE TRIGGER sleeps BEFORE DELETE ON slow EXECUTE FUNCTION sleeps();
INSERT INTO slow VALUES (1, 1), (2, 2);
SELECT count(*) FROM audit_log.undo_transaction((SELECT max(transaction_id) FROM audit_log.audit_logs));
DROP TABLE slow;
DROP FUNCTION sleeps();
END
	like($err, qr/NOTICE:  audit_log: writing rows: 2 of 2$/m, 'a NOTICE every few seconds');
}

# to one mark: what dry_run says is what is written, then there is nothing left to do
sub roll_back
{
	my ($mark) = @_;
	my $wrong = $oracle->sql(<<"END");
SET client_min_messages = warning;
CREATE TEMP TABLE dry AS SELECT * FROM audit_log.rollback_to($tables, '$mark', user_triggers => false, dry_run => true);
CREATE TEMP TABLE wet AS SELECT * FROM audit_log.rollback_to($tables, '$mark', user_triggers => false);
SELECT 'not as dry_run says: ' || x::text FROM (TABLE dry EXCEPT ALL TABLE wet) x;
SELECT 'not said by dry_run: ' || x::text FROM (TABLE wet EXCEPT ALL TABLE dry) x;
SELECT 'conflict: ' || conflict FROM wet WHERE conflict IS NOT NULL;
SELECT 'left to do: ' || x::text FROM audit_log.rollback_to($tables, '$mark', user_triggers => false, dry_run => true) x;
END
	$wrong .= $oracle->wrong_now($mark);
	return $wrong eq '' ? '' : "$mark:\n$wrong\n";
}

sub all_marks
{
	my ($what, @marks) = @_;
	my $wrong = '';
	for my $mark (@marks)
	{
		$wrong .= roll_back($mark);
		last if length $wrong > 4000;
	}
	is($wrong, '', "$what: " . @marks . ' marks');
}

# the newest rollback taken back and that taken back again: where it was
sub undo_twice
{
	my ($mark, $before) = @_;
	roll_back($before);
	roll_back($mark);
	for my $back ($before, $mark)
	{
		$oracle->sql(<<'END');
SELECT count(*) FROM audit_log.undo_transaction((SELECT max(transaction_id) FROM audit_log.audit_logs), user_triggers => false);
END
		is($oracle->wrong_now($back), '', "a rollback undone, then at $back");
	}
}

my $total = 0;
for my $where ('first', 'second')
{
	if ($where eq 'second')
	{
		my $other = AuditLogTest->new('second', conf => $conf);
		my $dump = AuditLogTest->folder . '/dump.sql';
		$node->run_ok('pg_dump', '-f', $dump, 'postgres');
		$node->stop;
		my ($rc, $out, $err) = $other->psql("\\i $dump");
		is($err, '', 'restored without a word');
		$oracle->on($other);
		all_marks('restored, before any other change', ($oracle->possible_marks)[ -1, 0 ]);
	}
	$oracle->load($seconds);
	my @marks = $oracle->possible_marks;
	cmp_ok(scalar @marks, '>', $total + 3, 'marks were made');
	$total = @marks;
	# many were made within a load: some of them
	splice @marks, int rand @marks, 1 while @marks > 25;
	all_marks("$where cluster, newest first", reverse @marks);
	all_marks("$where cluster, in random order", shuffle(@marks));
	undo_twice(@marks[ -1, 0 ]);
	is($oracle->sql('SELECT count(*) FROM audit_log.check()'), '0', 'nothing to complain of');
}

done_testing();
