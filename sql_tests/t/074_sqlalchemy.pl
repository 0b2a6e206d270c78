# examples/sqlalchemy with the real SQLAlchemy (Debian's python3-sqlalchemy, python3-psycopg2), the application
# as a role that owns nothing: versions listed and walked, who made them, reverting, also of a deletion.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $python = '/usr/bin/python3';
my $why = `$python -c 'import sqlalchemy, psycopg2' 2>&1`;
AuditLogTest->skip_all_aloud("no python3-sqlalchemy and python3-psycopg2: " . ($why =~ /(\S.*)\s*\z/ ? $1 : 'no python3')) if $? != 0;

my $node = AuditLogTest->new('main');
my $example = "$FindBin::RealBin/../../examples/sqlalchemy";
sub python
{
	my ($user, @command) = @_;
	return $node->run($python, '-W', 'error::RuntimeWarning', @command, { env => { PGUSER => $user, PYTHONDONTWRITEBYTECODE => 1, PYTHONPATH => $example } });
}

$node->sql('CREATE ROLE "Shop app" LOGIN');
my ($rc, $out, $err) = python('postgres', "$example/setup.py", 'Shop app');
is($rc, 0, 'setup') or diag $err;
($rc, $out, $err) = python('Shop app', "$example/tour.py");
is($rc, 0, 'the tour') or diag $err;
is($out, <<'END', 'and what it tells');
All versions, the current one included
  inserted by Anna: {'id': [None, 1], 'name': [None, 'Kettle'], 'depth': [None, Decimal('120.5')]}
  updated by Ben: {'name': ['Kettle', 'Old Kettle'], 'depth': [Decimal('120.5'), Decimal('121.0')]}
  updated by Anna: {'name': ['Old Kettle', 'Kettle No. 1']}
Reverted to the first
  updated by Ben: {'name': ['Kettle No. 1', 'Kettle'], 'depth': [Decimal('121.0'), Decimal('120.5')]}
Deleted
  deleted by Ben: {}
The deletion reverted
  inserted by Ben: {}
And deleted once more
  deleted by Ben: {}
A key of two columns, a savepoint kept and one rolled back
  inserted by Anna: {'day': [None, datetime.date(2026, 1, 2)], 'number': [None, 1], 'foreman': [None, 'Olga']}
  updated by Anna: {'foreman': ['Olga', 'Nora']}
  updated by Ben: {'foreman': ['Nora', 'Ole']}
Versions cannot be altered by the application
END
is($node->sql(<<'END'), "mine|t\nShift of a day|t", 'the versions are those that rebuild the tables');
SELECT 'mine', NOT EXISTS ((SELECT id, mine_name, depth FROM mine_version WHERE valid_to IS NULL AND operation_type <> 2 EXCEPT TABLE mine)
                           UNION ALL (TABLE mine EXCEPT SELECT id, mine_name, depth FROM mine_version WHERE valid_to IS NULL AND operation_type <> 2));
SELECT 'Shift of a day', NOT EXISTS (TABLE "Shift of a day" EXCEPT SELECT day, "No.", foreman FROM "Shift of a day_version" WHERE valid_to IS NULL AND operation_type <> 2);
END
is($node->sql(q(SELECT string_agg(DISTINCT coalesce(user_id, '-') || ' ' || (context ->> 'remote_addr'), ', ') FROM audit_log.audit_logs WHERE table_name = 'mine')),
	'1 192.0.2.7, 2 192.0.2.7', 'the log knows who, too');
is($node->sql('SELECT count(*) FROM audit_log.check()'), '0', 'nothing amiss');

# the version classes are models of the version tables: Alembic's autogenerate finds nothing to do
SKIP:
{
	`$python -c 'import alembic' 2>&1`;
	AuditLogTest->skip_aloud(1, 'no python3-alembic') if $? != 0;
	($rc, $out, $err) = python('postgres', '-c', <<'END');
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from models import Base
with sa.create_engine("postgresql+psycopg2://").connect() as connection:
    # the view is no table
    context = MigrationContext.configure(connection, opts={"compare_type": True,
        "include_object": lambda item, name, kind, *_: (kind, name) != ("table", "transaction")})
    print(compare_metadata(context, Base.metadata))
END
	is($out . $err, "[]\n", 'autogenerate');
}

done_testing();
