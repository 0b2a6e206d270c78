# examples/django as it stands, with the real Django (Debian's): its migrations forwards and back, nothing for
# makemigrations to do, and its own tests, which are Django's TestCase and TransactionTestCase.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $python = '/usr/bin/python3';
my $why = `$python -c 'import django, psycopg2' 2>&1`;
AuditLogTest->skip_all_aloud("no python3-django and python3-psycopg2: " . ($why =~ /(\S.*)\s*\z/ ? $1 : 'no python3')) if $? != 0;

my $node = AuditLogTest->new('django');
my $folder = AuditLogTest->folder . '/project';
AuditLogTest::run_ok('cp', '-r', "$FindBin::RealBin/../../examples/django", $folder);
$node->sql('CREATE DATABASE world');

sub django
{
	my ($rc, $out, $err) = $node->run($python, '-m', 'django', @_,
		{ env => { PGDATABASE => 'world', PYTHONPATH => $folder, PYTHONDONTWRITEBYTECODE => 1, DJANGO_SETTINGS_MODULE => 'settings' } });
	is($rc, 0, "django @_") or diag "$out$err";
	return "$out$err";
}
my $left = <<'END';
SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname !~ '^(auth|django)_';
SELECT string_agg(DISTINCT tgname, ' ') FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE tgname ~ 'audit_log' AND relnamespace = 'public'::regnamespace;
SELECT string_agg(extname, ' ') FROM pg_extension WHERE extname = 'audit_log';
END

django('migrate', 'world', '0001', '-v', '0');
is($node->sql($left, db => 'world'), "world_element\n\n", 'before');
django('migrate', '-v', '0');
is($node->sql($left, db => 'world'), "activity world_element\naudit_log_flush audit_log_row audit_log_truncate\naudit_log", 'after');
django('makemigrations', '--check', '--dry-run');
django('migrate', 'world', '0001', '-v', '0');
is($node->sql($left, db => 'world'), "world_element\n\n", 'and back');
django('migrate', '-v', '0');

my $out = django('test', 'world', '--noinput');
like($out, qr/^Ran 12 tests/m, 'all tests ran');
like($out, qr/^OK$/m, 'none failed') or diag $out;

done_testing();
