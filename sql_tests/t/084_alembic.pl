# examples/alembic as it stands, with the real Alembic and SQLAlchemy (Debian's): up, its tour, nothing for autogenerate
# to do, also after a column was added to the versioned model; down, which gives the tables back as they were; up again.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $python = '/usr/bin/python3';
my $why = `$python -c 'import alembic, sqlalchemy, psycopg2' 2>&1`;
AuditLogTest->skip_all_aloud("no python3-alembic, python3-sqlalchemy and python3-psycopg2: " . ($why =~ /(\S.*)\s*\z/ ? $1 : 'no python3')) if $? != 0;

my $node = AuditLogTest->new('alembic');
my $folder = AuditLogTest->folder . '/project';
AuditLogTest::run_ok('cp', '-r', "$FindBin::RealBin/../../examples/alembic", $folder);

sub python
{
	my ($rc, $out, $err) = $node->run($python, @_, { env => { PYTHONPATH => $folder, PYTHONDONTWRITEBYTECODE => 1 } });
	return ($rc, "$out$err");
}
sub alembic
{
	my ($rc, $out) = python('-c', 'import sys; from alembic.config import main; main()', '-c', "$folder/alembic.ini", @_);
	is($rc, 0, "alembic @_") or diag $out;
	return $out;
}
sub schema
{
	my $text = $node->run_ok('pg_dump', '--schema-only', '--no-comments', '-T', 'alembic_version', '-n', 'public');
	return $text =~ s/^\\(un)?restrict .*\n//mgr;
}
sub nothing_to_do
{
	alembic('revision', '--autogenerate', '-m', 'nothing', '--rev-id', 'ffff');
	my $text = AuditLogTest::slurp("$folder/migrations/versions/ffff_nothing.py");
	like($text, qr/def upgrade\(\):\s+(#.*\s+)?pass\s/, "$_[0]: autogenerate finds nothing to do") or diag $text;
	unlink "$folder/migrations/versions/ffff_nothing.py";
}

alembic('upgrade', '0001');
my $before = schema();
$node->sql("INSERT INTO users VALUES (99, 'there before')");
alembic('upgrade', 'head');
nothing_to_do('after the upgrade');
is($node->sql("SELECT string_agg(action_type, ' ') FROM audit_log.audit_logs WHERE record_id = '99'"), 'SNAPSHOT', 'rows present are logged as they stand');

my ($rc, $out) = python("$folder/tour.py");
is($rc, 0, 'the tour') or diag $out;
is($out, <<'END', 'what it prints');
<Activity 1: element_created by Anna: Kettlebrook has come into the world>
element_created 102
element_renamed 2
note 1
The log cannot be changed by the application
END
is($node->sql('SELECT count(*) FROM audit_log.check()'), '0', 'nothing amiss');

# a column is added to the versioned model: one add_column, and the version table has it too
my $models = AuditLogTest::slurp("$folder/models.py");
open my $file, '>:encoding(UTF-8)', "$folder/models.py" or die $!;
print $file $models =~ s/^(    location_id = .*\n)/$1    legend = sa.Column(sa.Text)\n/mr;
close $file;
alembic('revision', '--autogenerate', '-m', 'legend', '--rev-id', '0004');
my $text = AuditLogTest::slurp("$folder/migrations/versions/0004_legend.py");
is(join(' ', $text =~ /op\.(\w+\('\w+')/g), q{add_column('world_element' drop_column('world_element'}, 'autogenerate of a column') or diag $text;
alembic('upgrade', 'head');
nothing_to_do('after a column');
is($node->sql("UPDATE world_element SET legend = 'old' WHERE id = 7; SELECT legend FROM world_element_version WHERE id = 7 ORDER BY transaction_id DESC LIMIT 1"), 'old', 'the column is versioned');
alembic('downgrade', '-1');
unlink "$folder/migrations/versions/0004_legend.py";
open $file, '>:encoding(UTF-8)', "$folder/models.py" or die $!;
print $file $models;
close $file;
nothing_to_do('after it is gone');

# back: the tables as they were, and the log there, to be read and to go on
my $logged = $node->sql('SELECT count(*) FROM audit_log.audit_logs');
alembic('downgrade', '0002');
is(schema(), $before, 'downgrade gives the tables back as they were');
is($node->sql('SELECT count(*) FROM audit_log.audit_logs'), $logged, 'and the log stays');
alembic('upgrade', 'head');
nothing_to_do('up again');
$node->sql("UPDATE world_element SET name = 'Again' WHERE id = 7");
is($node->sql("SELECT count(*) > 0 AND max(id) > $logged FROM audit_log.audit_logs WHERE record_id = '7' AND action_type = 'UPDATE'"), 't', 'where it goes on');
alembic('downgrade', '0001');
is(schema(), $before, 'without the extension: the same');
is($node->sql("SELECT count(*) FROM pg_extension WHERE extname = 'audit_log'"), '0', 'and no log');
alembic('downgrade', 'base');
is($node->sql("SELECT string_agg(relname, ' ') FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname !~ 'alembic'"), '', 'nothing is left');

# as a script for somebody else to run
$node->sql('CREATE DATABASE script');
my $sql = alembic('upgrade', 'head', '--sql');
($sql) = $sql =~ /^(BEGIN;.*COMMIT;\n)/ms;
$node->sql($sql, db => 'script');
is($node->sql('SELECT count(*) FROM audit_log.tracked_tables', db => 'script'), '2', 'upgrade --sql does the same');

done_testing();
