# The migrations for Alembic and for Django, run by the real ones (Debian's python3-alembic and python3-django):
# forwards, back, forwards again; each time what enable() makes, and afterwards a model of the version table
# in which Alembic's autogenerate finds nothing to do. What is not Alembic's or Django's is an error and no file.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $python = '/usr/bin/python3';
my $why = `$python -c 'import alembic, django, psycopg2' 2>&1`;
AuditLogTest->skip_all_aloud("no python3-alembic, python3-django and python3-psycopg2: " . ($why =~ /(\S.*)\s*\z/ ? $1 : 'no python3')) if $? != 0;

my $node = AuditLogTest->new('migration');
my $script = "$FindBin::RealBin/../../tools/audit_log_version_table_migration";
my $folder = AuditLogTest->folder;

# names that text(), % formatting, raw strings and docstrings could take for their own
my $name = q{It's :a \:b "%s" %(x)s {} """ \\};
my $quoted = '"' . $name =~ s/"/""/gr . '"';
my $tables = <<"END";
CREATE TABLE mine (id int PRIMARY KEY, mine_name text NOT NULL, price numeric(6,2));
INSERT INTO mine VALUES (1, 'one', 1), (2, 'two', 2);
CREATE TABLE $quoted ("id:x" int PRIMARY KEY, "50% \\:off" text);
INSERT INTO $quoted VALUES (1, 'one');
END

sub write_file
{
	my ($file, $text) = @_;
	open my $handle, '>:encoding(UTF-8)', "$folder/$file" or die "$file: $!";
	print $handle $text;
	close $handle;
}
sub files { my ($dir) = @_; return join ' ', map { s{.*/}{}r } sort glob "$folder/$dir/*.py" }
sub generate
{
	my ($db, @arguments) = @_;
	my ($rc, $out, $err) = $node->run($script, @arguments, { env => { PGDATABASE => $db, PATH => "/usr/bin:$ENV{PATH}" } });
	chomp($out, $err);
	$out =~ s{^\Q$folder\E/}{}mg;
	return ($rc, $out, $err);
}
sub python
{
	my ($db, @command) = @_;
	my ($rc, $out, $err) = $node->run($python, @command, { env => { PGDATABASE => $db, PYTHONPATH => $folder, PYTHONDONTWRITEBYTECODE => 1 } });
	return ($rc, "$out$err");
}

my $versions = '"' . "${name}_version" =~ s/"/""/gr . '"';
my $literal = "'" . $versions =~ s/'/''/gr . "'";
my $shape = <<"END";
SELECT a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull FROM pg_attribute a
 WHERE a.attrelid IN ('mine_version'::regclass, $literal\::regclass) AND a.attnum > 0 ORDER BY a.attrelid::regclass::text, a.attnum;
SELECT i.indexrelid::regclass, i.indisprimary FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relname ~ '_version\$' AND c.relname !~ 'alembic' ORDER BY 1;
SELECT operation_type, mine_name, price, valid_to IS NULL FROM mine_version ORDER BY id;
SELECT operation_type, "50% \\:off" FROM $versions;
SELECT c.relname, c.relowner::regrole FROM pg_class c WHERE c.relname ~ '_version\$' AND c.relname !~ 'alembic' ORDER BY 1;
SELECT count(*) FROM pg_trigger WHERE tgname = 'audit_log_row' AND encode(tgargs, 'escape') ~ 'versioned=true';
END
$node->sql("CREATE DATABASE $_") for qw(made alembic django);
$node->sql("CREATE EXTENSION audit_log; $tables", db => $_) for qw(made alembic);
$node->sql("SELECT audit_log.enable('mine', versioned => true); SELECT audit_log.enable(x::regclass, versioned => true) FROM quote_ident(:'name') x",
	db => 'made', args => ['-v', "name=$name"]);
my $made = $node->sql($shape, db => 'made');
my $left = <<'END';
SELECT concat_ws(', ', (SELECT string_agg(c.relname, ', ') FROM pg_class c
                          WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND c.relname ~ '_version$' AND c.relname !~ '^alembic'),
    (SELECT string_agg(tgname, ', ') FROM pg_trigger WHERE tgname ~ '^audit_log' AND tgrelid::regclass::text !~ '^audit_log\.'))
END

# ---------------------------------------------------------------- Alembic

mkdir "$folder/$_" or die $! for 'db', 'db/versions';
write_file('alembic.ini', "[alembic]\nscript_location = $folder/db\n");
write_file('db/models.py', <<'END');
import sqlalchemy as sa
from sqlalchemy.orm import declarative_base

Base = declarative_base()


class Mine(Base):
    __tablename__ = "mine"
    id = sa.Column(sa.Integer, primary_key=True)
    mine_name = sa.Column(sa.Text, nullable=False)
    price = sa.Column(sa.Numeric(6, 2))


class MineVersion(Base):
    __tablename__ = "mine_version"
    id = sa.Column(sa.Integer, primary_key=True, autoincrement=False)
    mine_name = sa.Column(sa.Text)
    price = sa.Column(sa.Numeric(6, 2))
    transaction_id = sa.Column(sa.BigInteger, primary_key=True, autoincrement=False, index=True)
    end_transaction_id = sa.Column(sa.BigInteger, index=True)
    operation_type = sa.Column(sa.SmallInteger, nullable=False, index=True)
    valid_from = sa.Column(sa.DateTime(timezone=True), nullable=False)
    valid_to = sa.Column(sa.DateTime(timezone=True))
END
write_file('db/env.py', <<'END');
from alembic import context
import sqlalchemy as sa
from db.models import Base

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    with sa.create_engine("postgresql+psycopg2://").connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True,
                          include_object=lambda item, name, kind, *_: kind != "table" or name in Base.metadata.tables)
        with context.begin_transaction():
            context.run_migrations()
END
write_file('db/script.py.mako', <<'END');
from alembic import op
import sqlalchemy as sa
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
def upgrade():
    ${upgrades if upgrades else "pass"}
def downgrade():
    ${downgrades if downgrades else "pass"}
END
sub alembic { return python('alembic', '-c', 'import sys; from alembic.config import main; main()', '-c', "$folder/alembic.ini", @_) }

my ($rc, $out, $err) = generate('alembic', 'TABLE=mine', "OUT=$folder/db");
is("$rc $err", '0 ', 'Alembic: the first migration');
like($out, qr{^db/versions/([0-9a-f]{12})_mine_version\.py$}, 'goes to versions');
my ($first) = $out =~ m{/([0-9a-f]{12})_};
like(AuditLogTest::slurp("$folder/$out"), qr/^revision = "$first"\ndown_revision = None$/m, 'and follows none');

# what the ones before it look like, typed and not, merged, with more in a folder
write_file('db/versions/aaaa_base.py', "revision: str = 'aaaa'\ndown_revision: str | None = '$first'\nbranch_labels = None\ndef upgrade(): pass\ndef downgrade(): pass\n");
write_file("db/versions/$_.py", "revision = '$_'\ndown_revision = 'aaaa'\ndef upgrade(): pass\ndef downgrade(): pass\n") for qw(bbbb cccc);
my @hostile = ("TABLE=$name", "OUT=$folder/db/versions");
my $before = files('db/versions');
($rc, $out, $err) = generate('alembic', @hostile);
isnt($rc, 0, 'two heads');
like($err, qr/^ERROR:  there are 2 heads in .*: bbbb, cccc\nHINT:  .*alembic merge/, 'are named');
write_file('db/versions/broken.py', "revision = \n");
($rc, $out, $err) = generate('alembic', @hostile);
like($err, qr/^ERROR:  .*broken\.py is not Python that can be read/, 'what cannot be read');
unlink "$folder/db/versions/broken.py";
is(files('db/versions'), $before, 'no file after an error');
write_file('db/versions/dddd_merge.py', "revision = 'dddd'\ndown_revision = (\n    'bbbb',\n    'cccc',\n)\ndef upgrade(): pass\ndef downgrade(): pass\n");
($rc, $out, $err) = generate('alembic', @hostile);
is("$rc $err", '0 ', 'Alembic: a name of every kind');
my $text = AuditLogTest::slurp("$folder/$out");
like($text, qr/^Revises: dddd$/m, 'after the head');
like($text, qr/^down_revision = "dddd"$/m, 'after the head');

for my $direction ('upgrade head', 'downgrade base', 'upgrade head', 'downgrade base', 'upgrade head')
{
	($rc, $out) = alembic(split / /, $direction);
	is($rc, 0, "alembic $direction") or diag $out;
	if ($direction =~ /^up/)
	{
		is($node->sql($shape, db => 'alembic'), $made, 'the same as enable() makes');
		($rc, $out) = alembic('revision', '--autogenerate', '-m', 'nothing', '--rev-id', 'ffff');
		is($rc, 0, 'autogenerate') or diag $out;
		like(AuditLogTest::slurp("$folder/db/versions/ffff_nothing.py"), qr/def upgrade\(\):\s+(#.*\s+)?pass\s/, 'finds nothing to do');
		unlink "$folder/db/versions/ffff_nothing.py";
	}
	else
	{
		is($node->sql($left, db => 'alembic'), '', 'nothing is left of versions and tracking');
	}
}
# a column added to the model and its version class: the migration that autogenerate writes meets one that is
# there already, and goes back
$text = AuditLogTest::slurp("$folder/db/models.py");
write_file('db/models.py', $text =~ s/^(    price = .*\n)/$1    note = sa.Column(sa.Text)\n/mgr);
($rc, $out) = alembic('revision', '--autogenerate', '-m', 'note', '--rev-id', 'eeee');
like(AuditLogTest::slurp("$folder/db/versions/eeee_note.py"), qr/def upgrade\(\):.*add_column\('mine',.*add_column\('mine_version',.*def downgrade\(\):.*drop_column\('mine_version',.*drop_column\('mine',/s, 'autogenerate of a column');
for my $direction (qw(upgrade downgrade upgrade))
{
	($rc, $out) = alembic($direction, $direction eq 'upgrade' ? 'head' : '-1');
	is($rc, 0, "alembic $direction") or diag $out;
	$node->sql("UPDATE mine SET price = price + 1 WHERE id = 1", db => 'alembic');
	is($node->sql("SELECT count(*) FROM pg_attribute WHERE attrelid IN ('mine'::regclass, 'mine_version'::regclass) AND attname = 'note'", db => 'alembic'),
		$direction eq 'upgrade' ? '2' : '0', 'both have the column, or neither');
}
is($node->sql("UPDATE mine SET note = 'n' WHERE id = 2; SELECT operation_type, note FROM mine_version WHERE id = 2 ORDER BY transaction_id", db => 'alembic'), "0|\n1|n", 'and it is versioned');
is($node->sql('SELECT count(*) FROM audit_log.check()', db => 'alembic'), '0', 'with nothing amiss');
($rc, $out) = alembic('downgrade', '-1');
is($rc, 0, 'alembic downgrade') or diag $out;
unlink "$folder/db/versions/eeee_note.py";

# and as a script for somebody else to run
$node->sql("CREATE DATABASE script");
$node->sql("CREATE EXTENSION audit_log; $tables", db => 'script');
($rc, $out) = alembic('upgrade', 'head', '--sql');
is($rc, 0, 'alembic upgrade --sql');
($out) = $out =~ /^(BEGIN;.*COMMIT;\n)/ms;
$node->sql($out, db => 'script');
is($node->sql($shape, db => 'script'), $made, 'makes the same');

# numbers instead of random ids
mkdir "$folder/numbered" or die $!;
write_file('numbered/0041_x.py', "revision = '0041'\ndown_revision = None\n");
$node->sql('CREATE TABLE more (id int PRIMARY KEY)', db => 'alembic');
($rc, $out, $err) = generate('alembic', 'TABLE=more', "OUT=$folder/numbered");
is("$rc $out$err", '0 numbered/0042_more_version.py', 'a number is counted on');
like(AuditLogTest::slurp("$folder/numbered/0042_more_version.py"), qr/^revision = "0042"\ndown_revision = "0041"$/m, 'in the file too');

# ---------------------------------------------------------------- Django

mkdir "$folder/$_" or die $! for 'shop', 'shop/migrations';
write_file($_, '') for 'shop/__init__.py', 'shop/migrations/__init__.py';
write_file('shop/apps.py', "from django.apps import AppConfig\n\nclass Shop(AppConfig):\n    name = 'shop'\n    label = 'the_shop'\n");
write_file('settings.py', <<'END');
import os
INSTALLED_APPS = ["shop.apps.Shop"]
SECRET_KEY = "x"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"],
                         "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"], "USER": os.environ["PGUSER"]}}
END
write_file('shop/models.py', <<'END');
from django.db import models


class Mine(models.Model):
    id = models.IntegerField(primary_key=True)
    mine_name = models.TextField()
    price = models.DecimalField(max_digits=6, decimal_places=2, null=True)

    class Meta:
        db_table = "mine"
END
my $sql = $tables =~ s/CREATE TABLE mine .*\n//r;
write_file('shop/migrations/0001_initial.py', <<'END');
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [migrations.CreateModel("Mine", [
        ("id", models.IntegerField(primary_key=True, serialize=False)), ("mine_name", models.TextField()),
        ("price", models.DecimalField(max_digits=6, decimal_places=2, null=True))], options={"db_table": "mine"})]
END
write_file('shop/migrations/0002_rows.py', <<"END");
from django.db import migrations
from django.conf import settings


class Migration(migrations.Migration):
    dependencies: list = [("the_shop", "0001_initial"), *getattr(settings, "MORE", [])]
    operations = [migrations.RunSQL(["""CREATE EXTENSION IF NOT EXISTS audit_log"""]), migrations.RunSQL([r'''$sql''']) ]
END
sub django { return python('django', '-m', 'django', @_, '--settings=settings', '-v', '0') }
($rc, $out) = django('migrate');
is($rc, 0, 'Django: what there was before') or diag $out;

($rc, $out, $err) = generate('django', 'TABLE=mine', "OUT=$folder/shop");
is("$rc $out$err", '0 shop/migrations/0003_mine_version.py', 'Django: the next number, in migrations');
like(AuditLogTest::slurp("$folder/shop/migrations/0003_mine_version.py"), qr/^    dependencies = \[\("the_shop", "0002_rows"\)\]$/m, 'depends on the newest, by the label of the app');
($rc, $out, $err) = generate('django', "TABLE=$name", "OUT=$folder/shop/migrations");
like("$rc $out$err", qr{^0 shop/migrations/0004_it_s_\w+_version\.py$}, 'Django: a name of every kind');
my ($second) = $out =~ m{/(0004_\w+)\.py};
like(AuditLogTest::slurp("$folder/$out"), qr/^    dependencies = \[\("the_shop", "0003_mine_version"\)\]$/m, 'depends on the one before');

for my $to ('', '0002_rows', '', '0003_mine_version', '0002_rows', '')
{
	($rc, $out) = django('migrate', $to ? ('the_shop', $to) : ());
	is($rc, 0, "django migrate $to") or diag $out;
	if ($to eq '') { is($node->sql($shape, db => 'django'), $made, 'the same as enable() makes'); }
	elsif ($to eq '0002_rows') { is($node->sql($left, db => 'django'), '', 'nothing is left of versions and tracking'); }
}
($rc, $out) = django('makemigrations', '--check', '--dry-run');
is($rc, 0, 'Django finds nothing to do') or diag $out;

$node->sql('CREATE TABLE more (id int PRIMARY KEY)', db => 'django');
write_file('shop/migrations/0004_other.py', "from django.db import migrations\nclass Migration(migrations.Migration):\n    dependencies = [('the_shop', '0003_mine_version')]\n");
$before = files('shop/migrations');
($rc, $out, $err) = generate('django', 'TABLE=more', "OUT=$folder/shop");
isnt($rc, 0, 'two newest migrations');
like($err, qr/^ERROR:  there are 2 newest migrations in .*: 0004_it_s_\w+, 0004_other\nHINT:  .*makemigrations --merge/, 'are named');
is(files('shop/migrations'), $before, 'no file');
# a squashed one stands for those that it replaces
write_file('shop/migrations/0001_squashed_0004.py', "from django.db import migrations\nclass Migration(migrations.Migration):\n    replaces = [('the_shop', '0004_other'), ('the_shop', '$second')]\n");
($rc, $out, $err) = generate('django', 'TABLE=more', "OUT=$folder/shop");
is("$rc $out$err", '0 shop/migrations/0005_more_version.py', 'after a squashed one');
like(AuditLogTest::slurp("$folder/shop/migrations/0005_more_version.py"), qr/\("the_shop", "0001_squashed_0004"\)/, 'on which it depends');

# an app without migrations and label
mkdir "$folder/$_" or die $! for 'other', 'other/migrations';
write_file('other/migrations/__init__.py', '');
($rc, $out, $err) = generate('django', 'TABLE=more', "OUT=$folder/other");
is("$rc $out$err", '0 other/migrations/0001_more_version.py', 'the first one');

done_testing();
