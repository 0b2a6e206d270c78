# An extension that is trusted is installed by whoever may create in the database.
# Here he is hostile: he prepares the schema, keeps rights, and puts code where a
# superuser would run it.  Edge cases 97, 99, 124; then what he may: read the log,
# dump the database, drop the extension.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $node = AuditLogTest->new('main');
$node->sql('CREATE ROLE regress_installer LOGIN; CREATE ROLE regress_third LOGIN; CREATE ROLE regress_reader LOGIN');

my $n = 0;
my $db;

sub database
{
	$db = 'd' . ++$n;
	$node->sql("CREATE DATABASE $db OWNER regress_installer");
	$node->sql('GRANT CREATE ON SCHEMA public TO regress_installer, regress_third; GRANT CREATE ON DATABASE '
		  . "$db TO regress_third", db => $db);
}
sub installer { return $node->psql($_[0], db => $db, user => 'regress_installer', @_[1 .. $#_]) }
sub third { return $node->psql($_[0], db => $db, user => 'regress_third') }
sub super { return $node->sql($_[0], db => $db) }

sub refused
{
	my ($who, $sql, $pattern, $name) = @_;
	my ($rc, $out, $err) = $who->($sql);
	ok($rc != 0 && $err =~ $pattern, $name // $sql) or diag("exit code $rc: $out$err");
}

# ---- the schema, prepared

database();
installer('CREATE SCHEMA audit_log; GRANT CREATE ON SCHEMA audit_log TO regress_third');
refused(\&installer, 'CREATE EXTENSION audit_log', qr/was made before.*HINT:  Drop the schema/s, "the installer's schema");
installer('REVOKE CREATE ON SCHEMA audit_log FROM regress_third');
refused(\&installer, 'CREATE EXTENSION audit_log', qr/was made before/, "the installer's schema, though closed");
refused(sub { $node->psql($_[0], db => $db) }, 'CREATE EXTENSION audit_log', qr/was made before/, 'the same by a superuser');
super('ALTER SCHEMA audit_log OWNER TO postgres; GRANT CREATE ON SCHEMA audit_log TO regress_third');
refused(\&installer, 'CREATE EXTENSION audit_log', qr/was made before/, "a superuser's schema, open to a third role");
super('REVOKE CREATE ON SCHEMA audit_log FROM regress_third; GRANT CREATE ON SCHEMA audit_log TO PUBLIC');
refused(\&installer, 'CREATE EXTENSION audit_log', qr/was made before/, '… or to everybody');
super('REVOKE CREATE ON SCHEMA audit_log FROM PUBLIC');
is((installer('CREATE EXTENSION audit_log'))[0], 0, "a superuser's closed schema");

database();
for my $object (
	'FUNCTION audit_log.enable(text) RETURNS void LANGUAGE sql AS $$ SELECT $$',
	'TABLE audit_log.x (i int)', 'TYPE audit_log.x AS (i int)', 'DOMAIN audit_log.x AS int', 'SEQUENCE audit_log.x',
	'OPERATOR audit_log.= (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_catalog.texteq)',
	'COLLATION audit_log.x FROM "C"', 'TEXT SEARCH CONFIGURATION audit_log.x (COPY = pg_catalog.simple)')
{
	refused(\&installer, "BEGIN; CREATE SCHEMA audit_log; CREATE $object; CREATE EXTENSION audit_log",
		qr/schema "audit_log" is not empty/, "not empty, in the same transaction: $object");
}
refused(
	\&installer,
	'BEGIN; CREATE SCHEMA audit_log; ALTER DEFAULT PRIVILEGES IN SCHEMA audit_log GRANT EXECUTE ON FUNCTIONS TO regress_third; '
	  . 'CREATE EXTENSION audit_log',
	qr/schema "audit_log" is not empty/, 'default privileges count as content');

# grants made before ALTER SCHEMA … OWNER outlive it unless they are taken away
my ($rc, $out, $err) = installer(<<'END');
BEGIN;
CREATE SCHEMA audit_log;
GRANT ALL ON SCHEMA audit_log TO regress_third WITH GRANT OPTION;
SET ROLE regress_installer;
GRANT CREATE ON SCHEMA audit_log TO PUBLIC;
SAVEPOINT s;
CREATE EXTENSION audit_log;
RELEASE SAVEPOINT s;
COMMIT;
END
is($rc, 0, 'made in the same transaction, open to a third role') or diag($err);
is(super(q(SELECT string_agg(a.privilege_type || ' ' || a.grantee::regrole::text, ', ' ORDER BY 1)
	FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'audit_log' AND a.grantee <> n.nspowner)),
	'USAGE -', '… is closed then');
is(super(q(SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'audit_log')), 'postgres', "… and a superuser's");

# ---- default privileges, set before

database();
super('ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC, regress_third;'
	  . 'ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC, regress_third;'
	  . 'ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO regress_third;'
	  . 'ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC, regress_third');
installer('ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC, regress_third;'
	  . 'ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC, regress_third');
($rc, $out, $err) = installer('CREATE EXTENSION audit_log');
is($rc, 0, 'with default privileges') or diag($err);
installer('CREATE TABLE public.mine (id int PRIMARY KEY); SELECT audit_log.enable(\'mine\')');
super('CALL audit_log.maintain()');
is(super('SELECT count(*) > 12 FROM pg_inherits WHERE inhparent = \'audit_log.change\'::regclass'), 't', 'the partitions are made');
is(super(q(SELECT string_agg(DISTINCT a.grantee::regrole::text, ', ') FROM pg_class c, aclexplode(c.relacl) a
	WHERE c.relnamespace = 'audit_log'::regnamespace AND a.grantee <> c.relowner)), 'regress_installer',
	'edge case 99: default privileges open no table, partition or sequence');
is(super(q(SELECT string_agg(DISTINCT a.privilege_type, ', ') FROM pg_class c, aclexplode(c.relacl) a
	WHERE c.relnamespace = 'audit_log'::regnamespace AND a.grantee <> c.relowner)), 'SELECT', '… and the installing role reads only');
is(super(q(SELECT string_agg(DISTINCT a.grantee::regrole::text, ', ') FROM pg_proc p, aclexplode(p.proacl) a
	WHERE p.pronamespace = 'audit_log'::regnamespace AND a.grantee NOT IN (0, p.proowner))), 'regress_installer',
	'… no function');
is(super(q(SELECT string_agg(a.privilege_type || a.grantee, ' ') FROM pg_namespace n, aclexplode(n.nspacl) a
	WHERE n.nspname = 'audit_log' AND a.grantee <> n.nspowner)), 'USAGE0', '… nor the schema');

# ---- what he cannot do to it

installer('CREATE TABLE public.loot (LIKE audit_log.change)');
my $partition = super(q(SELECT min(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'audit_log.change'::regclass));
for my $sql (
	'DROP TABLE audit_log.change_default', "DROP TABLE $partition", "ALTER TABLE audit_log.change DETACH PARTITION $partition",
	'DROP TABLE audit_log.transaction CASCADE', 'DROP SCHEMA audit_log CASCADE', 'DROP SCHEMA audit_log',
	'ALTER SCHEMA audit_log OWNER TO regress_installer', 'ALTER SCHEMA audit_log RENAME TO x', 'GRANT CREATE ON SCHEMA audit_log TO regress_third; CREATE TABLE audit_log.x ()',
	'CREATE FUNCTION audit_log.enable(text) RETURNS void LANGUAGE sql AS $$ SELECT $$',
	'CREATE OR REPLACE FUNCTION audit_log.guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$',
	'ALTER FUNCTION audit_log.enable SET search_path = public', 'ALTER FUNCTION audit_log._check(oid) SECURITY DEFINER', 'DROP FUNCTION audit_log.guard() CASCADE',
	'ALTER TABLE audit_log.change DISABLE TRIGGER ALL', 'ALTER TABLE audit_log.change_default OWNER TO regress_installer',
	'ALTER EXTENSION audit_log DROP FUNCTION audit_log.guard()', 'ALTER EXTENSION audit_log DROP TABLE audit_log.change_default',
	'ALTER EXTENSION audit_log ADD TABLE audit_log.change_default', 'ALTER EXTENSION audit_log SET SCHEMA public', 'ALTER EVENT TRIGGER audit_log_ddl DISABLE',
	'ALTER VIEW audit_log.audit_logs SET (security_barrier = off)', 'CREATE OR REPLACE VIEW audit_log.visible_table AS SELECT 1',
	'INSERT INTO audit_log.change SELECT * FROM audit_log.change', 'DELETE FROM audit_log.change', 'UPDATE audit_log.transaction SET user_id = NULL',
	'TRUNCATE audit_log.change', 'LOCK TABLE audit_log.change IN EXCLUSIVE MODE', "SELECT setval('audit_log.change_id_seq', 1)", 'SELECT * FROM audit_log.mask_secret',
	'SELECT audit_log.mask_key()', 'SELECT audit_log.repair()', "SELECT audit_log._set_mask_key('x')", 'COMMENT ON TABLE audit_log.change IS NULL', 'CREATE TRIGGER x BEFORE INSERT ON audit_log.transaction FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()')
{
	refused(\&installer, "BEGIN; $sql; ROLLBACK", qr/permission denied|must be (owner|superuser|able)|not superuser|cannot .*required by|does not support SET SCHEMA/);
}

# ---- code of his, in the way of a superuser

super('CREATE ROLE regress_super SUPERUSER LOGIN') if !$node->sql("SELECT 1 FROM pg_roles WHERE rolname = 'regress_super'");
my @overloads;
for my $signature (split /\n/, super(q(SELECT p.proname || ' ' || (p.prokind = 'p')::text FROM pg_proc p
	WHERE p.pronamespace = 'audit_log'::regnamespace AND p.proname !~ '^_' AND p.prorettype::regtype::text !~ 'trigger' ORDER BY 1)))
{
	my ($name) = split / /, $signature;
	for my $type ('text', 'name', 'int', '')
	{
		push @overloads, qq{CREATE OR REPLACE FUNCTION evil."$name"($type) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''evil as %'', current_user; END';};
		my ($rc, $out, $err) = installer(qq{CREATE FUNCTION audit_log."$name"(a $type, b text) RETURNS boolean LANGUAGE sql AS 'SELECT true'}) if $type ne '';
		ok($rc != 0, "no overload audit_log.$name($type)") if $type eq 'text';
	}
}
($rc, $out, $err) = installer("CREATE SCHEMA evil; @overloads" . <<'END');
CREATE FUNCTION evil.bad(anyelement, anyelement) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''evil as %'', current_user; END';
CREATE OPERATOR evil.= (LEFTARG = anyelement, RIGHTARG = anyelement, FUNCTION = evil.bad);
CREATE OPERATOR evil.<> (LEFTARG = anyelement, RIGHTARG = anyelement, FUNCTION = evil.bad);
CREATE FUNCTION evil.format(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''evil as %'', current_user; END';
CREATE FUNCTION evil.is_bad(int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF current_user <> 'regress_installer' THEN RAISE EXCEPTION 'evil as %', current_user; END IF;
	RETURN true;
END $$;
CREATE DOMAIN evil.num AS int CHECK (evil.is_bad(VALUE));
CREATE TABLE evil.mine (id evil.num PRIMARY KEY, a evil.num[], t text DEFAULT 'x');
INSERT INTO evil.mine VALUES (1, '{1}');
ALTER TABLE evil.mine ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON evil.mine USING (evil.is_bad(id));
CREATE TABLE evil.tracked_table (id int);
CREATE TABLE evil.pg_class (oid oid);
CREATE DOMAIN evil.regclass AS text;
END
is($rc, 0, 'his schema is made') or diag($err);
$node->sql("ALTER DATABASE $db SET search_path = evil, pg_catalog, audit_log", user => 'regress_installer');
($rc, $out, $err) = $node->psql(<<'END', db => $db, user => 'regress_super');
SELECT audit_log.enable('mine');
SELECT audit_log.enable('mine', baseline => true, exclude => '{t}');
SELECT audit_log.enable_schema('evil', auto => true);
CREATE TABLE evil.later (id int PRIMARY KEY, n evil.num);
ALTER TABLE evil.later RENAME TO latest;
SELECT count(*) FROM audit_log.check();
SELECT audit_log.repair();
SELECT audit_log.pause('mine', 'x');
SELECT count(*) FROM audit_log.audit_logs WHERE record_id = '1';
SELECT count(*) FROM audit_log.tracked_tables;
SELECT count(*) FROM audit_log.table_changes('mine');
SELECT audit_log.disable('mine');
SELECT audit_log.grant_read('regress_reader');
CALL audit_log.maintain();
DROP TABLE evil.latest;
END
is($rc, 0, 'a superuser uses the extension, and nothing of it is run') or diag("$out\n$err");
unlike($err, qr/evil as/, '… not even where an error would be caught');
$node->sql("ALTER DATABASE $db RESET search_path");

# his conditions are evaluated as himself, wherever that happens
installer(q(SELECT audit_log.enable('evil.mine', condition => $$'{1}'::evil.num[] IS NOT NULL AND evil.is_bad(new.id)$$)));
($rc, $out, $err) = $node->psql(<<'END', db => $db, user => 'regress_super');
SELECT audit_log.enable('evil.mine', baseline => true);
ALTER TABLE evil.mine ADD u text;
ALTER TABLE evil.mine ALTER u TYPE varchar(10);
ALTER TABLE evil.mine RENAME TO mine2;
SELECT count(*) FROM audit_log.check();
SELECT audit_log.disable('evil.mine2');
END
# (the baseline prepares the condition as the table's owner)
is($rc, 0, 'nor a condition of his') or diag("$out\n$err");

# ---- what he may

# (newer minor versions put a random word into each dump)
sub dump_text
{
	my $text = $node->run_ok('pg_dump', '-s', '-d', $db, '--exclude-schema=audit_log');
	$text =~ s/^\\(un)?restrict .*\n//mg;
	return $text;
}

database();
super('CREATE ROLE regress_else LOGIN');
installer(<<'END');
CREATE TABLE mine (id int PRIMARY KEY, body text);
CREATE TABLE parted (id int PRIMARY KEY, body text) PARTITION BY RANGE (id);
CREATE TABLE part1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER own BEFORE UPDATE ON mine FOR EACH ROW EXECUTE FUNCTION f();
END
third('CREATE TABLE theirs (id int PRIMARY KEY, body text); GRANT ALL ON theirs TO regress_installer');
super('CREATE TABLE supers (id int PRIMARY KEY); GRANT SELECT ON supers TO regress_installer');
my $before = dump_text();
my $log_dump = AuditLogTest->folder . '/installer';
is((installer('CREATE EXTENSION audit_log'))[0], 0, 'CREATE EXTENSION');
is((installer(q(SELECT audit_log.enable('mine'), audit_log.enable('parted'))))[0], 0, 'he tracks his own tables');
refused(\&installer, q(SELECT audit_log.enable('theirs')), qr/must be owner/);
super(q(SELECT audit_log.enable('theirs'), audit_log.enable('supers')));
installer(q(INSERT INTO mine VALUES (1, 'one'); INSERT INTO parted VALUES (1, 'one'); DROP TABLE IF EXISTS nothing));
third(q(INSERT INTO theirs VALUES (1, 'theirs')));
super('REVOKE ALL ON theirs FROM regress_installer');
is((installer('SELECT count(*) FROM audit_log.change'))[1], '3', 'he reads the log');
is((installer('SELECT string_agg(table_name, \' \' ORDER BY table_name) FROM audit_log.audit_logs'))[1],
	'mine parted', '… in the views by the rights he has');
third('DROP TABLE theirs');
is((installer('SELECT string_agg(table_name, \' \' ORDER BY table_name) FROM audit_log.audit_logs'))[1],
	'mine parted theirs', '… of dropped tables too');
is((installer('SELECT count(*) FROM audit_log.user_changes(NULL)'))[0], 0, 'user_changes');
is((installer('CALL audit_log.maintain()'))[0], 0, 'he maintains');
is((installer('SELECT count(*) FROM audit_log.check()'))[1], '0', 'he checks');
is((installer("SELECT audit_log.grant_read('regress_third')"))[0], 0, 'he grants');
for my $how (['plain'], [ 'directory', '-Fd', '-j2', '-f', $log_dump ])
{
	my ($name, @options) = @$how;
	($rc, $out, $err) = $node->run('pg_dump', '-U', 'regress_installer', '-d', $db, @options);
	is($rc, 0, "his pg_dump: $name") or diag($err);
}
third(q(CREATE TABLE theirs (id int PRIMARY KEY, body text); GRANT ALL ON theirs TO regress_installer));
super(q(SELECT audit_log.enable('theirs')));
refused(\&third, 'DROP EXTENSION audit_log CASCADE', qr/must be owner of extension/);
refused(\&installer, 'DROP EXTENSION audit_log', qr/other objects depend on it/);
($rc, $out, $err) = installer('DROP EXTENSION audit_log CASCADE');
is($rc, 0, 'he drops the extension') or diag($err);
is(dump_text(), $before, 'which leaves every table as it was');
is(super(q(SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'audit%')), '0', '… without a trigger');
is(super(q(SELECT count(*) FROM pg_class WHERE relnamespace = 'audit_log'::regnamespace)), '0', '… and the log is gone');
($rc, $out, $err) = installer("CREATE EXTENSION audit_log; SELECT audit_log.enable('mine')");
is($rc, 0, 'and can make it again') or diag($err);

done_testing();
