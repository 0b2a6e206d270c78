# audit_log.version_table_migration and the file of it: plain SQL and Flyway's form run by psql, forwards and
# back, and make what enable() makes; through the installed audit_log.mk in an application's own folder;
# hostile names; and errors, after which there is no file.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $node = AuditLogTest->new('migration');
$node->sql("CREATE DATABASE made; CREATE DATABASE migrated");
my $script = "$FindBin::RealBin/../../tools/audit_log_version_table_migration";

# every kind of name: read by psql, make, sh, Flyway, Python and comments
my $setup = <<'END';
CREATE EXTENSION audit_log;
CREATE SCHEMA "It's a ""Shop""";
CREATE TYPE "It's a ""Shop"""."a:b" AS ENUM ('x', 'y');
CREATE DOMAIN positive AS numeric(6,2) CHECK (VALUE > 0);
CREATE TABLE mine (mine_guid uuid PRIMARY KEY DEFAULT gen_random_uuid(), mine_name text COLLATE "C" NOT NULL,
    tags text[], price positive, mood "It's a ""Shop"""."a:b", at timestamptz(3) DEFAULT now(), n int GENERATED ALWAYS AS IDENTITY, twice int GENERATED ALWAYS AS (2) STORED);
INSERT INTO mine (mine_name, price, mood) VALUES ('one', 1, 'x'), ('two', 2, NULL);
CREATE TABLE "It's a ""Shop"""."Old $HOME %s \; ${x} -- ""Mine""" ("a""b" int, "c:d" text, "it's" int, "%(e)s" int, "line
end" int, "\n" text, PRIMARY KEY ("c:d", "a""b"));
INSERT INTO "It's a ""Shop"""."Old $HOME %s \; ${x} -- ""Mine""" VALUES (1, 'k', 2, 3, 4, '\');
CREATE TABLE "Größe_des_Lagers_in_Köln_und_Düsseldorf_am_Rhein" (id int PRIMARY KEY);
CREATE TABLE nothing (id int UNIQUE NOT NULL);
CREATE TABLE parts (id int, r int, PRIMARY KEY (id, r)) PARTITION BY RANGE (r);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
INSERT INTO parts VALUES (1, 1);
CREATE TABLE settled (id int PRIMARY KEY, transaction_id text, secret text, note text);
INSERT INTO settled VALUES (1, 'a', 'b', 'c');
SELECT audit_log.enable('settled', exclude => '{note}', mask => '{secret}', user_column => 'transaction_id', on_truncate => 'forbid',
    version_table => 'Settled versions', version_columns => '{"transaction_id": "tx \"1\""}');
END
$node->sql($setup, db => $_) for 'made', 'migrated';
my $shop = q{It's a "Shop"};
my $old = q{Old $HOME %s \; ${x} -- "Mine"};
my $long = 'Größe_des_Lagers_in_Köln_und_Düsseldorf_am_Rhein';
my %sql_name = (mine => 'public.mine', $old => qq("It's a ""Shop"""."Old \$HOME %s \\; \${x} -- ""Mine"""),
	$long => qq(public."$long"), nothing => 'nothing', parts => 'parts', settled => 'settled');
my @tables = ('mine', $old, $long, 'nothing', 'parts', 'settled');

sub slurp { AuditLogTest::slurp($_[0]) }
sub files { my ($dir) = @_; return join ' ', map { s{.*/}{}r } sort glob "$dir/*" }
my $folders = 0;
sub new_folder
{
	my $dir = AuditLogTest->folder . '/folder' . ++$folders;
	mkdir $dir or die $!;
	for my $file (@_)
	{
		open my $handle, '>', "$dir/$file" or die $!;
		close $handle;
	}
	return $dir;
}
sub bytes { map { my $b = $_; utf8::encode($b); $b } @_ }
sub migration
{
	my $options = ref $_[-1] eq 'HASH' ? pop : {};
	return $node->run($script, bytes(@_), { env => { PGDATABASE => 'migrated', %$options } });
}

# ---- what a version table is, in words that are the same for the same table
my $shape = <<'END';
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attcollation::regcollation, a.atthasdef
  FROM pg_attribute a WHERE a.attrelid = :'v'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum;
SELECT pg_get_indexdef(i.indexrelid), i.indisprimary FROM pg_index i WHERE i.indrelid = :'v'::regclass ORDER BY 1;
SELECT c.conname, c.contype FROM pg_constraint c WHERE c.conrelid = :'v'::regclass AND c.contype <> 'n' ORDER BY 1;
SELECT c.relowner::regrole, c.relacl, obj_description(c.oid) FROM pg_class c WHERE c.oid = :'v'::regclass;
SELECT encode(t.tgargs, 'escape') ~ 'versioned=true' FROM pg_trigger t WHERE t.tgrelid = :'t'::regclass AND t.tgname = 'audit_log_row';
SELECT string_agg(x, E'\n' ORDER BY x) FROM (SELECT (to_jsonb(v) - 'valid_from' - 'transaction_id' - 'tx "1"' - 'mine_guid' - 'at')::text AS x FROM :v v) r;
END
sub shape
{
	my ($db, $table) = @_;
	my $versions = $node->sql(<<'END', db => $db, args => ['-v', bytes("t=$sql_name{$table}")]);
SELECT format('%I.%I', n.nspname, coalesce(t.settings ->> 'version_table', c.relname || '_version'))
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN audit_log.tracked_table t ON t.table_schema = n.nspname AND t.table_name = c.relname WHERE c.oid = :'t'::regclass
END
	return $node->sql($shape, db => $db, args => ['-v', bytes("t=$sql_name{$table}"), '-v', bytes("v=$versions")]);
}
sub run_sql
{
	my ($text) = @_;
	my ($rc, undef, $err) = $node->psql($text, db => 'migrated', args => ['--single-transaction']);
	$err =~ s/^NOTICE: .*\n?//mg;
	return "$rc $err";
}

# ---- each table by a file, and once more after its undo; compared with enable()
for my $table (@tables)
{
	my $where = $table eq $old ? "SCHEMA=$shop" : 'SCHEMA=';
	my $dir = new_folder;
	my ($rc, $out, $err) = migration("TABLE=$table", $where, "OUT=$dir");
	is("$rc $err", '0 ', "a migration of $table");
	my ($file) = $out =~ /^(.+\.sql)\n\z/;
	is($file, (glob "$dir/*")[0], 'prints the name of its file');
	my $text = slurp($file);
	unlike($text, qr/[^\x20-\x7e\x{a1}-\x{24f}\n]/, 'no character that hides something');
	like($text, qr/^CREATE TABLE .*^SELECT audit_log\.enable\(.*^--   SELECT audit_log\.(disable|enable)\(.*^--   DROP TABLE /ms, 'forwards, and its undo');

	my $had = $table eq 'settled' ? ', versioned => false' : undef;
	$node->sql("SELECT audit_log.enable(:'t', versioned => true)", db => 'made', args => ['-v', bytes("t=$sql_name{$table}")]);
	my $want = shape('made', $table);
	is(run_sql($text), '0 ', "$table: runs");
	is(shape('migrated', $table), $want, "$table: the same as enable() makes");
	my ($undo) = $text =~ /^-- To undo it:\n(.*)\z/ms;
	$undo = join "\n", map { /^--   (.*)/ ? $1 : () } split /\n/, $undo;
	like($undo, $had ? qr/^SELECT audit_log\.enable\(.*, versioned => false\);$/m : qr/^SELECT audit_log\.disable\(.*\);$/m, "$table: undoing leaves what was there");
	is(run_sql($undo), '0 ', "$table: is undone");
	is($node->sql(<<'END', db => 'migrated', args => ['-v', bytes("t=$sql_name{$table}")]), $had ? 't|f' : 'f|f', "$table: no trigger nor version table is left");
SELECT (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = :'t'::regclass AND t.tgfoid = 'audit_log.capture()'::regprocedure) > 0,
       EXISTS (SELECT FROM pg_class v, pg_class c WHERE c.oid = :'t'::regclass AND v.relnamespace = c.relnamespace
                  AND v.relname IN (c.relname || '_version', 'Settled versions'))
END
	($rc, $out) = migration("TABLE=$table", $where, "OUT=$dir", 'FORMAT=flyway');
	my ($second) = glob "$dir/V1__*";
	is($out, "$second\n", "$table: Flyway's form");
	is(slurp($second), $text, 'has the same text');
	is(run_sql(slurp($second)), '0 ', "$table: forwards again");
	is(shape('migrated', $table), $want, "$table: the same again");

	# versioned already: an error and no file
	my $empty = new_folder;
	for my $format (qw(sql flyway alembic django))
	{
		($rc, $out, $err) = migration("TABLE=$table", $where, "OUT=$empty", "FORMAT=$format");
		is("$rc $out", '1 ', "$format: no migration of what is versioned");
		like($err, qr/^ERROR:  table .* is versioned already$/m, 'is what it says');
	}
	is(files($empty), '', 'no file');
}
is($node->sql(q(UPDATE mine SET mine_name = 'uno' WHERE mine_name = 'one'; SELECT operation_type, mine_name, valid_to IS NULL FROM mine_version ORDER BY mine_name), db => 'migrated'),
	"0|one|f\n0|two|t\n1|uno|t", 'versions are kept');

# the column of the base type, modifier and all, is the one to go on with when the domain's column is made again
is($node->sql(q(ALTER TABLE mine DROP COLUMN price; ALTER TABLE mine ADD COLUMN price positive DEFAULT 3; SELECT DISTINCT price FROM mine_version WHERE valid_to IS NULL), db => 'migrated'),
	'3.00', 'a domain with a modifier');

# ---- numbers
$node->sql('CREATE TABLE "New one" (id int PRIMARY KEY)', db => 'migrated');
for my $case (
	[[qw(V12__x.sql V2__y.sql R__view.sql)] => 'V13__new_one_version.sql'],
	[[qw(V009__x.sql V010__y.sql)] => 'V011__new_one_version.sql'],
	[[qw(V099__x.sql)] => 'V100__new_one_version.sql'],
	[[qw(V1_9__x.sql V1.10__y.sql)] => 'V1.11__new_one_version.sql'],
	[[qw(V2__x.sql V1_10__y.sql)] => 'V3__new_one_version.sql'],
	[[qw(V08__x.sql U08__x.sql)] => 'U09__new_one_version.sql V09__new_one_version.sql'],
	[[qw(V29990101000000__x.sql)] => 'V29990101000001__new_one_version.sql'],
	[[qw(0008_x.sql 0009_y.sql notes.txt)] => '0010_new_one_version.sql'],
	[[qw(000012_x.up.sql 000012_x.down.sql)] => '000013_new_one_version.down.sql 000013_new_one_version.up.sql'],
	[[qw(7-x.sql)] => '8-new_one_version.sql'],
	[[qw(notes.txt)] => 'new_one_version.sql'])
{
	my ($there, $want) = @$case;
	my $dir = new_folder(@$there);
	my ($rc, $out, $err) = migration('TABLE=New one', "OUT=$dir");
	is("$rc $err", '0 ', "beside @$there");
	my %there = map { $_ => 1 } @$there;
	is(join(' ', grep { !$there{$_} } split / /, files($dir)), $want, 'numbered like the newest');
	is(join(' ', sort map { s{.*/}{}r } split /\n/, $out), $want, 'and said so');
}
my $dir = new_folder('V20200101000000__x.sql');
migration('TABLE=New one', "OUT=$dir");
like(files($dir), qr/^V20200101000000__x\.sql V20[2-9]\d{11}__new_one_version\.sql$/, 'a time is followed by the time now');

# a file for undoing is complete
$dir = new_folder('000012_x.up.sql', '000012_x.down.sql');
migration('TABLE=New one', "OUT=$dir");
is(run_sql(slurp("$dir/000013_new_one_version.up.sql")), '0 ', 'up');
is(run_sql(slurp("$dir/000013_new_one_version.down.sql")), '0 ', 'down');
is(run_sql(slurp("$dir/000013_new_one_version.up.sql")), '0 ', 'up');
is(run_sql(slurp("$dir/000013_new_one_version.down.sql")), '0 ', 'down');
unlink "$dir/000012_x.up.sql", "$dir/000012_x.down.sql", "$dir/000013_new_one_version.up.sql";
rename "$dir/000013_new_one_version.down.sql", "$dir/new_one_version.sql" or die $!;
my $before = slurp("$dir/new_one_version.sql");
my ($rc, $out, $err) = migration('TABLE=New one', "OUT=$dir");
is($rc, 1, 'no file is overwritten');
like($err, qr/new_one_version\.sql is there already$/m, 'is what it says');
is(slurp("$dir/new_one_version.sql"), $before, 'nor touched');

# ---- errors: clear, and no file
$node->sql(<<"END", db => 'migrated');
CREATE TABLE keyless (n int);
CREATE TABLE taken (id int PRIMARY KEY);
CREATE TABLE taken_version (n int);
CREATE VIEW sight AS SELECT 1 AS one;
CREATE TABLE clash (id int PRIMARY KEY, operation_type int);
CREATE TABLE "@{['n' x 63]}" (id int PRIMARY KEY);
CREATE TABLE by_condition (id int PRIMARY KEY);
SELECT audit_log.enable('by_condition', condition => 'NEW.id > 1');
CREATE ROLE owner LOGIN; CREATE ROLE other LOGIN;
SELECT audit_log.grant_admin('owner'), audit_log.grant_admin('other');
GRANT CREATE ON SCHEMA public TO owner;
CREATE TABLE owned (id int PRIMARY KEY);
ALTER TABLE owned OWNER TO owner;
INSERT INTO owned VALUES (1);
END
$dir = new_folder;
for my $case (
	['TABLE=absent', qr/^ERROR:  there is no table "absent"\nHINT:  SCHEMA=/],
	['TABLE=MINE', qr/^ERROR:  there is no table "MINE"$/m],
	['TABLE=mine', 'SCHEMA=absent', qr/^ERROR:  there is no table "mine" in schema "absent"$/m],
	["TABLE=$old", qr/^ERROR:  there is no table "Old \$HOME .* SCHEMA=/s],
	["TABLE=' OR true --", qr/^ERROR:  there is no table "' OR true --"$/m],
	['TABLE=' . ('n' x 64), qr/^ERROR:  there is no table "n{64}"$/m],
	['TABLE=keyless', qr/^ERROR:  cannot keep versions of table public\.keyless\n.*has no key/],
	['TABLE=parts_1', qr/^ERROR:  cannot audit partition public\.parts_1 by itself$/m],
	['TABLE=sight', qr/^ERROR:  cannot audit public\.sight$/m],
	['TABLE=taken', qr/^ERROR:  relation public\.taken_version is there already$/m],
	['TABLE=clash', qr/^ERROR:  table public\.clash has a column operation_type itself.*\n.*\nHINT|^ERROR:  table public\.clash has a column operation_type itself.*\nHINT/],
	['TABLE=by_condition', qr/^ERROR:  table public\.by_condition cannot have both versioned and condition$/m],
	['TABLE=' . ('n' x 63), qr/^ERROR:  the name of version table n{63}_version is too long$/m],
	['TABLE=', qr/^ERROR:  no table is named$/m],
	['SCHEMA=public', qr/^ERROR:  no table is named$/m],
	['TABLE=taken', 'FORMAT=oracle', qr/^ERROR:  unknown FORMAT=oracle$/m],
	['TABEL=taken', qr/^ERROR:  unknown argument TABEL=taken$/m],
	['TABLE=owned', { PGUSER => 'other' }, qr/^ERROR:  must be owner of table public\.owned$/m],
	['TABLE=owned', { PGDATABASE => 'absent' }, qr/database "absent" does not exist$/m],
	['TABLE=pg_class', { PGDATABASE => 'postgres' }, qr/audit_log/])
{
	my $message = pop @$case;
	my $environment = ref $case->[-1] ? pop @$case : {};
	for my $format ($case->[-1] =~ /FORMAT/ ? () : qw(FORMAT=sql FORMAT=alembic))
	{
		($rc, $out, $err) = migration("OUT=$dir", $format, @$case, $environment);
		cmp_ok($rc, '>', 0, "@$case: fails");
		like($err, $message, 'is what it says');
		is($out . files($dir), '', 'no file');
	}
}
($rc, $out, $err) = migration('TABLE=owned', "OUT=$dir/absent");
like($err, qr/^ERROR:  there is no folder .*\/absent$/m, 'no folder');

# ---- a long name with a name for its versions; the owner himself, no superuser
my $n63 = 'n' x 63;
$node->sql("SELECT audit_log.enable('$n63', version_table => 'n_history')", db => 'migrated');
($rc, $out, $err) = migration("TABLE=$n63", "OUT=$dir");
is("$rc $err", '0 ', 'a name of 63 bytes');
is(run_sql(slurp((glob "$dir/n*")[0])), '0 ', 'runs');
is($node->sql("SELECT count(*) FROM pg_index WHERE indrelid = 'n_history'::regclass", db => 'migrated'), '4', 'versions under the name set');

($rc, $out, $err) = migration('TABLE=owned', "OUT=$dir", { PGUSER => 'owner' });
is("$rc $err", '0 ', 'a migration by the owner');
($rc, undef, $err) = $node->psql(slurp("$dir/owned_version.sql"), db => 'migrated', user => 'owner', args => ['--single-transaction']);
is($rc, 0, 'the owner runs it') or diag $err;
is($node->sql("SELECT relowner::regrole FROM pg_class WHERE relname = 'owned_version'", db => 'migrated'), 'postgres', 'the versions are not his');
($rc, undef, $err) = $node->psql('UPDATE owned_version SET id = 2', db => 'migrated', user => 'owner');
like($err, qr/permission denied/, 'nor his to write');

my ($undo) = slurp("$dir/owned_version.sql") =~ /^-- To undo it:\n(.*)\z/ms;
$undo = join "\n", map { /^--   (.*)/ ? $1 : () } split /\n/, $undo;
($rc, undef, $err) = $node->psql($undo, db => 'migrated', user => 'owner', args => ['--single-transaction']);
like($err, qr/must be owner of table owned_version/, 'nor to drop');
is($node->sql('INSERT INTO owned VALUES (2); SELECT count(*) FROM owned_version', db => 'migrated'), '2', 'and all is as it was');
$node->sql('GRANT CREATE ON SCHEMA public TO other; ALTER SCHEMA public OWNER TO owner', db => 'migrated');
($rc, undef, $err) = $node->psql($undo, db => 'migrated', user => 'owner', args => ['--single-transaction']);
is($rc, 0, 'the schema\'s owner may') or diag $err;

# ---- called by itself
for my $case (
	['owned', "'oracle'", qr/^ERROR:  invalid format 'oracle'$/m],
	['owned', 'NULL', qr/^ERROR:  table_name and format must not be NULL$/m],
	[undef, "'sql'", qr/^ERROR:  table_name and format must not be NULL$/m],
	['parts_1', "'undo'", qr/^ERROR:  cannot audit partition/m],
	['audit_log.transaction', "'sql'", qr/^ERROR:  cannot audit audit_log\.transaction$/m])
{
	my ($table, $format, $message) = @$case;
	$table = defined $table ? "'$table'" : 'NULL';
	($rc, $out, $err) = $node->psql("SELECT audit_log.version_table_migration($table, $format)", db => 'migrated');
	like($err, $message, "version_table_migration($table, $format)");
}
$node->sql('CREATE ROLE nobody_special LOGIN');
($rc, $out, $err) = $node->psql("SELECT audit_log.version_table_migration('owned')", db => 'migrated', user => 'nobody_special');
like($err, qr/permission denied for function version_table_migration/, 'not for everybody');
isnt($node->sql("SELECT audit_log.version_table_migration('owned')", db => 'migrated', user => 'owner'), '', 'for whom grant_admin names');

# ---- what enable() would go on with: settings of before, of a trigger by hand; 1,500 columns
$node->sql(<<"END", db => 'migrated');
CREATE TABLE before (id int PRIMARY KEY, a int, "B b" int);
SELECT audit_log.enable('before', exclude => '{"B b"}');
SELECT audit_log.disable('before');
CREATE TABLE by_hand (id int PRIMARY KEY, a int, b int);
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON by_hand FOR EACH ROW EXECUTE FUNCTION audit_log.capture('include={b}');
CREATE TABLE wide (id int PRIMARY KEY, @{[join ', ', map { "\"c:$_\" int" } 1 .. 1499]});
END
for my $case ([before => q(, exclude => '{"B b"}')], [by_hand => q(, include => '{b}')], [wide => ''])
{
	my ($table, $arguments) = @$case;
	my $text = $node->sql("SELECT audit_log.version_table_migration('$table')", db => 'migrated');
	like($text, qr/^SELECT audit_log\.enable\('public\.$table'\Q$arguments\E, versioned => true\);$/m, "settings of $table");
	like($text, qr/^--   SELECT audit_log\.disable\('public\.$table'\);$/m, 'undone by disable');
	is(run_sql($text), '0 ', 'runs');
	is($node->sql("SELECT string_agg(attname, ', ') FILTER (WHERE attnum < 4), count(*) FROM pg_attribute WHERE attrelid = '${table}_version'::regclass AND attnum > 0", db => 'migrated'),
		{ before => 'id, a, transaction_id|7', by_hand => 'id, b, transaction_id|7', wide => 'id, c:1, c:2|1505' }->{$table}, 'its columns');
}

# ---- beside tables that might be mistaken for Continuum's, in a schema that is audited by itself
$node->sql(<<'END', db => 'migrated');
CREATE SCHEMA auto;
SELECT audit_log.enable_schema('auto', auto => true);
CREATE TABLE auto.transaction (amount int PRIMARY KEY);
CREATE TABLE auto.mine (id int PRIMARY KEY);
END
($rc, $out, $err) = migration('TABLE=mine', 'SCHEMA=auto', "OUT=$dir");
is("$rc $err", '0 ', 'in an audited schema');
is(run_sql(slurp("$dir/mine_version.sql")), '0 ', 'runs there');
is($node->sql("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'auto.mine_version'::regclass", db => 'migrated'), '0', 'versions are not audited themselves');

# ---- in an application's own repository
SKIP:
{
	chomp(my $share = `pg_config --sharedir`);
	my $setting = $node->version >= 180000 ? 'extension_control_path' : 'extension_destdir';
	my (undef, $path) = $node->psql("SHOW $setting");
	my @places = ($node->version >= 180000 ? map({ s/^\$system$/$share/r . '/extension' } split /:/, $path // '') : ($path // '') . "$share/extension", "$share/extension");
	my ($mk) = grep { -f } map { "$_/audit_log.mk" } @places;
	ok($mk, 'audit_log.mk is installed') or last SKIP;
	$dir = new_folder;
	mkdir "$dir/db" or die $!;
	open my $make, '>', "$dir/Makefile" or die $!;
	print $make "include $mk\nOUT = db/migration\nall:\n\t\@echo built by default\n";
	close $make;
	my %env = (PGDATABASE => 'made', MAKEFLAGS => '', MAKELEVEL => '');
	my @make = ('make', '-s', '--no-print-directory', '-C', $dir);
	is(AuditLogTest::run_ok(@make, { env => \%env }), "built by default\n", 'the default goal stays');
	push @make, 'generate_version_table_migration';
	$node->sql('CREATE TABLE new (id int PRIMARY KEY); CREATE TABLE "It\'s a ""Shop"""."a$b `c` $(d)" (id int PRIMARY KEY)', db => 'made');
	($rc, $out, $err) = $node->run(@make, 'TABLE=new', { env => \%env });
	isnt($rc, 0, 'the folder must be there');
	like($err, qr/^ERROR:  there is no folder db\/migration$/m, 'is what it says');
	mkdir "$dir/db/migration" or die $!;
	open my $first, '>', "$dir/db/migration/V0041__begin.sql" or die $!;
	close $first;
	($rc, $out, $err) = $node->run(@make, 'TABLE=new', { env => \%env });
	is("$rc $out$err", "0 db/migration/V0042__new_version.sql\n", 'make generate_version_table_migration');
	($rc, $out, $err) = $node->run(@make, 'TABLE=a$b `c` $(d)', "SCHEMA=$shop", 'OUT=.', 'FORMAT=sql', { env => \%env });
	is("$rc $out$err", "0 a_b_c_d_version.sql\n", 'names that mean something to make and sh');
	my ($result) = $node->psql(slurp("$dir/a_b_c_d_version.sql"), db => 'made');
	is($result, 0, 'and its file runs');
	($rc, $out, $err) = $node->run(@make, 'TABLE=absent', { env => \%env });
	isnt($rc, 0, 'an error is make\'s error');
	like($err, qr/^ERROR:  there is no table "absent"$/m, 'is what it says');
	($rc, $out, $err) = $node->run('make', '-s', '-f', "$FindBin::RealBin/../../Makefile", '-C', $dir, 'generate_version_table_migration', 'TABLE=mine', 'OUT=db', { env => { %env, PGDATABASE => 'postgres' } });
	like($err, qr/^ERROR:  there is no table "mine"$/m, 'the project\'s own Makefile asks the same');
}

done_testing();
