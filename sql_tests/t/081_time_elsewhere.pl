# Time travel on a standby, after its promotion with a transaction prepared before, and by the time of
# commits where the server keeps that.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $node = AuditLogTest->new('primary', conf => "max_prepared_transactions = 5\ntrack_commit_timestamp = on\n");
$node->sql(<<'END');
CREATE EXTENSION audit_log;
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c');
SELECT audit_log.enable('t');
END
my $at = sub { my ($on, $moment) = @_; $on->sql("SELECT string_agg(id || '=' || v, ' ' ORDER BY id) FROM audit_log.as_of(NULL::t, '$moment')") };

# by commit: what was changed before the moment, and committed after it, is not in it
my $session = $node->session;
$session->query("BEGIN; UPDATE t SET v = 'late' WHERE id = 1");
$node->sql("UPDATE t SET v = 'early' WHERE id = 2");
my $moment = $node->sql('SELECT clock_timestamp()');
$session->query('COMMIT');
is($at->($node, $moment), '1=a 2=early 3=c', 'changed before, committed after');
is($at->($node, 'infinity'), '1=late 2=early 3=c', 'the present');
# a mark made in between is where the search for such transactions begins
$node->sql("SELECT audit_log.mark('between')");
$session->query("BEGIN; UPDATE t SET v = 'later' WHERE id = 1");
my $second = $node->sql('SELECT clock_timestamp()');
$session->query('COMMIT');
is($at->($node, $second), '1=late 2=early 3=c', 'the same with a mark before');
is($at->($node, $moment), '1=a 2=early 3=c', 'and what was before the mark');

# prepared, and then all goes on elsewhere
$node->sql("BEGIN; UPDATE t SET v = 'prepared' WHERE id = 3; PREPARE TRANSACTION 'p'");
$node->sql("SELECT audit_log.mark('primary')");
my $standby = $node->standby('standby', conf => "max_prepared_transactions = 5\n");
$standby->wait_for($node);
is($at->($standby, 'primary'), '1=later 2=early 3=c', 'as of a mark on a standby');
is($standby->sql("SELECT count(*) FROM audit_log.diff('t', 'between', 'primary')"), '1', 'diff there');
is($standby->sql("SELECT count(*) FROM audit_log.history('t', '1')"), '3', 'history there');
my ($rc, $out, $err) = $standby->psql("SELECT audit_log.mark('there')");
like($err, qr/read-only/, 'no mark there');
$node->stop('immediate');
$standby->promote;
$standby->sql("SELECT audit_log.mark('promoted')");
$standby->sql("COMMIT PREPARED 'p'");
$standby->sql("UPDATE t SET v = 'new timeline' WHERE id = 2");
is($at->($standby, 'primary'), '1=later 2=early 3=c', 'after promotion: a mark from before');
is($at->($standby, 'promoted'), '1=later 2=early 3=c', 'and one made since: prepared is not committed');
is($at->($standby, 'infinity'), '1=later 2=new timeline 3=prepared', 'the present');
is($standby->sql('SELECT string_agg(DISTINCT timeline::text, $$ $$) FROM audit_log.cluster'), '1 2', 'the timelines are known');

done_testing();
