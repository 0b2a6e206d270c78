# ALTER EXTENSION audit_log UPDATE of every earlier version, live: tables tracked, the log full, writers running.
# No change is missed; a session with a library that serves the old version only is told to connect again; and
# every member of the extension is what a fresh install has (edge cases 88, 127).

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;
use File::Copy ();

my $new = '1.3';
my @earlier = ('1.0', '1.1', '1.2');

sub update_from
{
	my ($start) = @_;
	note("from $start");
	my $node = AuditLogTest->new("from $start", conf => "max_connections = 40\n");

	# A copy of the installed control file and scripts, whose functions name the library without a folder: then
	# dynamic_library_path says which one a session loads.
	chomp(my $share = `pg_config --sharedir`);
	my $setting = $node->version >= 180000 ? 'extension_control_path' : 'extension_destdir';
	my ($rc, $path) = $node->psql("SHOW $setting");
	AuditLogTest->skip_all_aloud('this server takes extensions from its own folder only') if $rc != 0;
	my @places = $node->version >= 180000 ? map({ s/^\$system$/$share/r . '/extension' } split /:/, $path) : ("$path$share/extension", "$share/extension");
	my ($from) = grep { -f "$_/audit_log.control" } @places;
	die "no audit_log.control in @places" if !$from;
	my $root = AuditLogTest->folder . "/ext$start";
	my $to = $node->version >= 180000 ? "$root/extension" : "$root$share/extension";
	File::Path::make_path($to);
	File::Copy::copy($_, $to) or die "$_: $!" for glob "$from/audit_log--*";
	open my $control, '>', "$to/audit_log.control" or die $!;
	print $control AuditLogTest::slurp("$from/audit_log.control") =~ s/\$libdir\///r;
	close $control;
	$node->conf("$setting = '$root" . ($node->version >= 180000 ? ':$system' : '') . "'");
	$node->restart;

	# A library that serves that version alone: ours, with the others' numbers overwritten (catalog.c, served_versions).
	my ($library) = grep { -f } map { "$_/audit_log.so" } split /:/, $node->sql('SHOW dynamic_library_path') =~ s/\$libdir/`pg_config --pkglibdir` =~ s,\n,,r/er;
	my $folder = AuditLogTest->folder . "/old$start";
	mkdir $folder or die $!;
	open my $in, '<:raw', $library or die "$library: $!";
	my $bytes = do { local $/; <$in> };
	my $served = join '', map { " $_" } @earlier, $new;
	my $patched = $bytes =~ s/\Q$served\E /join('', map { $_ eq $start ? " $_" : ' 0.0' } @earlier, $new) . ' '/e;
	open my $out, '>:raw', "$folder/audit_log.so" or die $!;
	print $out $bytes;
	close $out;
	ok($patched, "a library of $start");

	my $setup = <<'END';
CREATE ROLE app LOGIN;
CREATE ROLE reader LOGIN;
CREATE ROLE keeper LOGIN;
GRANT ALL ON SCHEMA public TO app;
END
	$node->sql($setup);
	my $enable_schema = 'audit_log.enable_schema(name, regclass[], boolean, name[], name[], name[], text, text[], text, boolean, name, text[], boolean'
	  . ($start eq '1.0' ? ')' : ', boolean, jsonb)');
	$node->sql(<<"END");
CREATE EXTENSION audit_log VERSION '$start';
SELECT audit_log.grant_admin('app');
SELECT audit_log.grant_read('reader');
GRANT EXECUTE ON FUNCTION $enable_schema TO keeper WITH GRANT OPTION;
GRANT SELECT ON audit_log.tracked_table TO keeper;
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, secret text, v text);
INSERT INTO t (id, secret) SELECT i, 's' || i FROM generate_series(1, 1000) i;
CREATE TABLE counter (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO counter SELECT i FROM generate_series(1, 20) i;
CREATE TABLE keyless (n int);
SELECT audit_log.enable('t', baseline => true);
CREATE TABLE masked (id int PRIMARY KEY, secret text);
SELECT audit_log.enable('masked', mask => '{secret}', require => '{user_id}', user_column => 'secret');
SELECT audit_log.enable('counter', baseline => true);
SELECT audit_log.enable('keyless');
CREATE SCHEMA auto;
SELECT audit_log.enable_schema('auto', auto => true);
UPDATE t SET v = 'full ' || i FROM generate_series(1, 5) i;
INSERT INTO keyless SELECT i FROM generate_series(1, 100) i;
END
	# our library serves the former version, too, until the update is run
	$node->sql('ALTER TABLE masked ADD COLUMN IF NOT EXISTS secret text; ALTER TABLE masked ADD COLUMN w int; CREATE DOMAIN d AS int; ALTER DOMAIN d SET NOT NULL');
	like(($node->psql('ALTER TABLE masked ADD COLUMN secret text'))[2], qr/column "secret" of relation "masked" already exists/, 'ALTER TABLE says what it always does');
	my $version = q{SELECT extversion FROM pg_extension WHERE extname = 'audit_log'};
	is($node->sql($version), $start, "begun as $start");
	my $written = $node->sql('SELECT count(*) FROM audit_log.change');

	# sessions that are there already: one with the old library, one in the middle of a transaction, one prepared
	my $old = $node->session(settings => { dynamic_library_path => $folder });
	$old->query('UPDATE t SET n = n + 1 WHERE id = 1');
	is($old->err, '', "the old library serves $start");
	my $open = $node->session;
	$open->query('BEGIN; UPDATE t SET n = n + 1 WHERE id = 2');
	my $prepared = $node->session;
	$prepared->query('PREPARE u AS UPDATE t SET n = n + 1 WHERE id = $1; EXECUTE u(3)');

	# writers: each counts in a table of its own what it has done
	my @writers = map { $node->session } 1 .. 6;
	for my $i (0 .. $#writers)
	{
		my $from = 1 + 3 * $i;
		$writers[$i]->send(<<"END");
DO \$\$ BEGIN FOR i IN 1 .. 1500 LOOP UPDATE counter SET n = n + 1 WHERE id = $from + i % 3; COMMIT; END LOOP; END \$\$;
END
	}
	$node->poll('SELECT sum(n) > 100 FROM counter');
	$node->sql('ALTER EXTENSION audit_log UPDATE');
	is($node->sql($version), $new, 'updated while writers run');
	my $during = $node->sql('SELECT sum(n) FROM counter');
	$_->wait for @writers;
	is(join('', map { $_->err } @writers), '', 'no writer met an error');
	is($node->sql('SELECT sum(n) FROM counter'), 6 * 1500, 'all have written all');
	note("updated after $during of 9000 changes");
	# what is under way since before the update is not in a mark made after it
	$node->sql("SELECT audit_log.mark('updated')");
	my $then = $node->sql('SELECT string_agg(r::text, $$ $$ ORDER BY id) FROM t r');
	is($node->sql("SELECT count(*) FROM audit_log.audit_logs WHERE relation = 'counter'::regclass AND action_type = 'UPDATE'"), 6 * 1500, 'each change is in the log');

	$old->query('UPDATE t SET n = n + 1 WHERE id = 1');
	like($old->err, qr/does not serve version \Q$new\E.*Disconnect and connect again/s, 'the old library refuses');
	$open->query('UPDATE t SET n = n + 1 WHERE id = 4; COMMIT');
	is($open->err, '', 'an open transaction goes on');
	$prepared->query('EXECUTE u(3)');
	is($prepared->err, '', 'a prepared statement too');
	is($node->sql("SELECT string_agg(r::text, ' ' ORDER BY id) FROM audit_log.as_of(NULL::t, 'updated') r"), $then, 'as of the update');
	$node->sql("SELECT audit_log.drop_mark('updated')");
	for my $table ('t', 'counter')
	{
		my $columns = $table eq 't' ? 'id, n, secret, v' : 'id, n';
		is($node->sql("SELECT count(*) FROM ((SELECT $columns FROM $table EXCEPT SELECT $columns FROM audit_log.rebuild(NULL::$table)) UNION ALL (SELECT $columns FROM audit_log.rebuild(NULL::$table) EXCEPT SELECT $columns FROM $table)) x"),
			'0', "$table is what its log says");
	}
	is($node->sql('SELECT count(*) FROM audit_log.change') - $written, 6 * 1500 + 5, 'and nothing else was logged');

	# what is new works, in sessions from before too
	$node->sql("SELECT audit_log.enable('counter', versioned => true)");
	$prepared->query('UPDATE counter SET n = 0 WHERE id = 1');
	is($node->sql('SELECT count(*) FROM counter_version'), 21, 'versions of a table that was tracked before');
	$prepared->query('CREATE TABLE auto.made (id int PRIMARY KEY); INSERT INTO auto.made VALUES (1)');
	is($node->sql("SELECT count(*) FROM audit_log.audit_logs WHERE table_schema = 'auto'"), 1, 'new tables are tracked as before');
	is($node->sql('SELECT * FROM audit_log.check()'), '', 'check() has nothing to say');
	my $app = $node->session(user => 'app');
	$app->query("CREATE TABLE mine (id int PRIMARY KEY); SELECT audit_log.enable('mine', versioned => true); INSERT INTO mine VALUES (1)");
	unlike($app->err, qr/ERROR/, 'who could enable tables can do so still');

	# an index that had to wait for the open transaction
	$node->sql('CALL audit_log.maintain()');

	# the first consumer makes what an update beside writers has left for it
	$node->sql("SELECT audit_log.create_consumer('any'); SELECT audit_log.drop_consumer('any')");

	# every member, with what it is made of, against a fresh install in which the same was granted
	$node->sql('CREATE DATABASE fresh');
	$node->sql(<<'END', db => 'fresh');
CREATE EXTENSION audit_log;
SELECT audit_log.grant_admin('app');
SELECT audit_log.grant_read('reader');
GRANT EXECUTE ON FUNCTION audit_log.enable_schema(name, regclass[], boolean, name[], name[], name[], text, text[], text, boolean, name, text[], boolean, boolean, jsonb) TO keeper WITH GRANT OPTION;
GRANT SELECT ON audit_log.tracked_table TO keeper;
END
	my $members = <<'END';
SELECT pg_describe_object(d.classid, d.objid, 0) || E'\n' || coalesce(obj_description(d.objid, d.classid::regclass::name), '(no comment)') || E'\n' ||
  coalesce(CASE d.classid
    WHEN 'pg_proc'::regclass THEN (SELECT concat_ws(E'\n', pg_get_functiondef(p.oid), p.proowner::regrole, (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(p.proacl) a)) FROM pg_proc p WHERE p.oid = d.objid AND p.prokind <> 'a')
    WHEN 'pg_class'::regclass THEN (SELECT concat_ws(E'\n', c.relkind, c.relowner::regrole, (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(c.relacl) a), c.reloptions::text, CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END,
         (SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(f.adbin, f.adrelid), a.attacl::text, col_description(c.oid, a.attnum)), E'\n' ORDER BY a.attnum)
            FROM pg_attribute a LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
         (SELECT string_agg(pg_get_indexdef(i.indexrelid), E'\n' ORDER BY pg_get_indexdef(i.indexrelid)) FROM pg_index i WHERE i.indrelid = c.oid),
         (SELECT string_agg(k.conname || pg_get_constraintdef(k.oid), E'\n' ORDER BY k.conname) FROM pg_constraint k WHERE k.conrelid = c.oid),
         (SELECT string_agg(pg_get_triggerdef(t.oid) || t.tgenabled::text, E'\n' ORDER BY t.tgname) FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
         (SELECT concat_ws(' ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmax, s.seqmin, s.seqcache, s.seqcycle) FROM pg_sequence s WHERE s.seqrelid = c.oid)) FROM pg_class c WHERE c.oid = d.objid)
    WHEN 'pg_event_trigger'::regclass THEN (SELECT concat_ws(' ', v.evtevent, v.evtowner::regrole, v.evtfoid::regprocedure, v.evtenabled, v.evttags::text) FROM pg_event_trigger v WHERE v.oid = d.objid)
    WHEN 'pg_type'::regclass THEN (SELECT concat_ws(' ', t.typtype, t.typowner::regrole, (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid)) FROM pg_type t WHERE t.oid = d.objid)
    END, '')
  FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
 WHERE e.extname = 'audit_log' AND d.deptype = 'e' ORDER BY pg_describe_object(d.classid, d.objid, 0) COLLATE "C"
END
	my $config = <<'END';
SELECT c.oid::regclass, o.condition FROM pg_extension e, unnest(e.extconfig, e.extcondition) o (relid, condition) JOIN pg_class c ON c.oid = o.relid WHERE e.extname = 'audit_log' ORDER BY c.relname COLLATE "C"
END
	for my $query ($members, $config)
	{
		my ($updated, $fresh) = map { $node->sql($query, db => $_) } 'postgres', 'fresh';
		ok(length $fresh > 500, 'a fresh install has members') if $query eq $members;
		if (!is($updated eq $fresh ? 1 : 0, 1, $query eq $members ? 'each member is what a fresh install has' : 'and is dumped alike'))
		{
			my %fresh = map { $_ => 1 } split /^/, $fresh;
			my %updated = map { $_ => 1 } split /^/, $updated;
			diag("updated only: $_") for grep { !$fresh{$_} } split /^/, $updated;
			diag("fresh only: $_") for grep { !$updated{$_} } split /^/, $fresh;
		}
	}

	# The rights that users granted come through a dump, too: what the script grants counts as the extension's own,
	# which pg_dump leaves out.
	my %grants;
	for my $db ('postgres', 'fresh')
	{
		$node->run_ok('pg_dump', '-s', '-d', $db, '-f', "$root/$db.sql");
		$grants{$db} = join '', sort grep { /^(GRANT|REVOKE|ALTER DEFAULT)/ && /audit_log/ } split /^/, AuditLogTest::slurp("$root/$db.sql");
	}
	like($grants{fresh}, qr/audit_log\.enable\(.*TO app;/, 'a dump has the rights to enable');
	is($grants{postgres}, $grants{fresh}, 'the same of an updated database as of a fresh one');
	$node->run_ok('pg_dump', '-Fc', '-d', 'postgres', '-f', "$root/updated");
	$node->sql('CREATE DATABASE restored');
	$node->run_ok('pg_restore', '--exit-on-error', '-d', 'restored', "$root/updated");
	my $rights = <<'END';
SELECT p.oid::regprocedure, a.grantee::regrole, a.is_grantable FROM pg_proc p, aclexplode(p.proacl) a
 WHERE p.pronamespace = 'audit_log'::regnamespace AND a.grantee <> p.proowner ORDER BY p.oid::regprocedure::text COLLATE "C", a.grantee::regrole::text COLLATE "C"
END
	is($node->sql($rights, db => 'restored'), $node->sql($rights, db => 'fresh'), 'and after a restore they are there');
	$node->sql("CREATE TABLE after_it (id int PRIMARY KEY); SELECT audit_log.enable('after_it', versioned => true)", db => 'restored', user => 'app');
	$node->sql('CREATE TABLE further (id int PRIMARY KEY)', db => 'restored', user => 'app');
	like($node->sql("SELECT audit_log.version_table_migration('further')", db => 'restored', user => 'app'), qr/CREATE TABLE public.further_version/,
		'who could track his tables can, and write their migrations');
	$_->quit for $old, $open, $prepared, $app, @writers;
	$node->stop;
}

update_from($_) for @earlier;
done_testing();
