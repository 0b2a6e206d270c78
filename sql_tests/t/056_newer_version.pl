# A session that loaded the library before ALTER EXTENSION UPDATE to a version that it does not know:
# its tracked changes are refused, none goes without its log row (edge case 127).

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;
use File::Copy ();

my $node = AuditLogTest->new('newer');
chomp(my $share = `pg_config --sharedir`);
my $setting = $node->version >= 180000 ? 'extension_control_path' : 'extension_destdir';

# A copy of the installed control file and scripts, with others to and from a version that nobody knows.
# The library is found by dynamic_library_path, wherever the copy lies.
my ($rc, $path) = $node->psql("SHOW $setting");
AuditLogTest->skip_all_aloud('this server takes extensions from its own folder only') if $rc != 0;
my @places = $node->version >= 180000 ? map({ s/^\$system$/$share/r . '/extension' } split /:/, $path) : ("$path$share/extension", "$share/extension");
my ($from) = grep { -f "$_/audit_log.control" } @places;
die "no audit_log.control in @places" if !$from;
my $root = AuditLogTest->folder . '/ext';
my $to = $node->version >= 180000 ? "$root/extension" : "$root$share/extension";
File::Path::make_path($to);
File::Copy::copy($_, $to) or die "$_: $!" for glob "$from/audit_log*";
my $control = AuditLogTest::slurp("$to/audit_log.control") =~ s/\$libdir\///r;
unlink "$to/audit_log.control";
open my $file, '>', "$to/audit_log.control" or die $!;
print $file $control;
close $file;
for my $script ('1.0--9.9', '9.9--1.0')
{
	open my $handle, '>', "$to/audit_log--$script.sql" or die $!;
	# every update script changes this table's catalog row, so that sessions notice it
	print $handle "REVOKE ALL ON audit_log.tracked_table FROM PUBLIC;\n";
	close $handle;
}
$node->conf("$setting = '$root" . ($node->version >= 180000 ? ':$system' : '') . "'");
$node->restart;

$node->sql(<<'END');
CREATE EXTENSION audit_log VERSION '1.0';
CREATE TABLE t (id int PRIMARY KEY, n int);
SELECT audit_log.enable('t');
INSERT INTO t VALUES (1, 0), (2, 0);
END
my $differ = 'SELECT count(*) FROM t FULL JOIN audit_log.rebuild(NULL::t) r ON t.id = r.id WHERE t.id IS NULL OR r.id IS NULL OR NOT t *= r';
my $count = 'SELECT count(*) FROM audit_log.change';

my $old = $node->session;
$old->query('PREPARE u AS UPDATE t SET n = n + 1 WHERE id = $1; EXECUTE u(1)');
is($old->err, '', 'a session that knows the table');
my $open = $node->session;
$open->query('BEGIN; UPDATE t SET n = n + 1 WHERE id = 2');

my $updater = $node->session;
$updater->query("ALTER EXTENSION audit_log UPDATE TO '9.9'");
is($updater->err, '', 'the extension is updated');
$open->query('COMMIT');
is($open->err, '', 'a transaction whose changes were logged before commits');
my $before = $node->sql($count);

for my $session ($old, $open)
{
	for my $sql ('UPDATE t SET n = n + 1 WHERE id = 1', 'INSERT INTO t VALUES (3, 3)', 'DELETE FROM t', 'TRUNCATE t', "COPY t (id) FROM PROGRAM 'echo 4'",
		"SELECT audit_log.transaction_id()", 'SELECT audit_log.enable(\'t\')')
	{
		$session->query($sql);
		like($session->err, qr/does not serve version 9\.9.*Disconnect and connect again/s, "refused: " . ($sql =~ /^(\w+ \S+)/)[0]);
	}
}
$old->query('EXECUTE u(1)');
like($old->err, qr/does not serve version 9\.9/, 'a prepared statement too');
is($node->sql('SELECT string_agg(id::text, \' \' ORDER BY id) FROM t'), '1 2', 'nothing was written');
is($node->sql($count), $before, 'nor logged');

# Back in a version that the library serves, the same sessions go on.
$updater->query("ALTER EXTENSION audit_log UPDATE TO '1.0'");
is($updater->err, '', 'the way back');
$old->query('EXECUTE u(1)');
is($old->err, '', 'the session goes on');
$open->query('UPDATE t SET n = n + 1');
is($open->err, '', 'and the other');
is($node->sql($count), $before + 3, 'and each change is logged');
is($node->sql($differ), '0', 'the table is what its log says');

done_testing();
