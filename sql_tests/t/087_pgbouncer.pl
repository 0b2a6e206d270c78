# examples/pgbouncer with the real one (Debian's) in transaction mode: with set_context() or SET LOCAL no user or
# context ever comes from one client's transaction into another's, whatever becomes of the transaction; what plain SET
# does is as the README says, and so is the remedy. Edge case 94.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my ($program) = grep { $_ && -x } $ENV{AUDIT_LOG_PGBOUNCER}, '/usr/sbin/pgbouncer', '/usr/bin/pgbouncer';
AuditLogTest->skip_all_aloud('no pgbouncer') if !$program;

my $node = AuditLogTest->new('main');
my $folder = AuditLogTest->folder;
my $dir = File::Temp::tempdir('al_b_XXXX', TMPDIR => 1, CLEANUP => 1);
my $ini = AuditLogTest::slurp("$FindBin::RealBin/../../examples/pgbouncer/pgbouncer.ini");
my $socket = $node->environment->{PGHOST};

# the example, but for where things are, who may come, and how many connections there are
my %pids;
sub bouncer
{
	my ($name, $size, $more) = @_;
	my $text = $ini =~ s{host=\S+}{host=$socket}r =~ s/^(default_pool_size) = .*/$1 = $size/mr =~ s/^listen_addr = .*/listen_addr =/mr
	  =~ s/^listen_port = .*/listen_port = 5432/mr =~ s/^unix_socket_dir = .*/unix_socket_dir = $dir\/$name/mr =~ s/^auth_type = .*/auth_type = any/mr
	  =~ s/^auth_file = .*\n//mr =~ s{^(logfile|pidfile) = .*}{"$1 = $dir/$name/$1"}megr;
	$text =~ s/^\* = (.*)/* = $1 user=postgres/m;
	if ($more) { $text =~ s/^;(server_reset_query)/$1/mg; }
	mkdir "$dir/$name" or die $!;
	open my $file, '>:encoding(UTF-8)', "$dir/$name/ini" or die $!;
	print $file $text;
	close $file;
	$pids{$name} = AuditLogTest::spawn([ $program, '-q', "$dir/$name/ini" ], '/dev/null', "$dir/$name/out", "$dir/$name/err", {});
	# a node for its clients
	my $bouncer = bless { %$node, socket => "$dir/$name" }, ref $node;
	$bouncer->poll('SELECT 1', '1') or die AuditLogTest::slurp("$dir/$name/logfile") . AuditLogTest::slurp("$dir/$name/err");
	return $bouncer;
}
END { my $status = $?; kill TERM => values %pids if %pids; $? = $status; }

$node->sql(<<'END');
CREATE EXTENSION audit_log;
CREATE TABLE t (id bigserial PRIMARY KEY, who text, why text);
SELECT audit_log.enable('t');
END
my $last = q(SELECT concat_ws(' ', coalesce(user_id, '-'), coalesce(context ->> 'why', '-')) FROM audit_log.audit_logs ORDER BY id DESC LIMIT 1);
my $write = 'INSERT INTO t (who) VALUES (NULL)';

# ---- one connection for two clients

my $bouncer = bouncer('one', 1);
my ($anna, $ben) = map { $bouncer->session } 1, 2;
$anna->query(q(BEGIN; SELECT audit_log.set_context('anna', '{"why": "typo"}'); ) . "$write; COMMIT");
is($node->sql($last), 'anna typo', 'set_context() in a transaction');
my $pid = $anna->query('SELECT pg_backend_pid()');
is($ben->query('SELECT pg_backend_pid()'), $pid, 'both clients have the same connection');
$ben->query($write);
is($node->sql($last), '- -', 'and the other finds nothing of it');
is($ben->query(q(SELECT current_setting('audit_log.user_id') || current_setting('audit_log.context'))), '', 'neither in the settings');

for my $case (
	[ 'SET LOCAL', q(SET LOCAL audit_log.user_id = 'anna'; SET LOCAL audit_log.context = '{"why": "local"}') ],
	[ 'set_config(…, true)', q(SELECT set_config('audit_log.user_id', 'anna', true), set_config('audit_log.context', '{"why": "local"}', true)) ],
	[ 'set_context()', q(SELECT audit_log.set_context('anna', '{"why": "local"}')) ],
	[ 'request.jwt.claims', q(SELECT set_config('request.jwt.claims', '{"sub": "anna"}', true), set_config('audit_log.context', '{"why": "local"}', true)) ])
{
	my ($what, $set) = @$case;
	$anna->query("BEGIN; $set; $write; COMMIT");
	is($node->sql($last), 'anna local', "$what: with its transaction");
	$ben->query($write);
	is($node->sql($last), '- -', "$what: committed");
	$anna->query("BEGIN; $set; $write; ROLLBACK");
	$ben->query($write);
	is($node->sql($last), '- -', "$what: rolled back");
	$anna->query("BEGIN; $set; $write; SELECT 1/0; COMMIT");
	$ben->query($write);
	is($node->sql($last), '- -', "$what: failed");
	$anna->query("BEGIN; SAVEPOINT s; $set; RELEASE s; $write; COMMIT");
	$ben->query("BEGIN; $write; COMMIT");
	is($node->sql($last), '- -', "$what: in a savepoint");
	# outside of a transaction it does nothing at all, not even for its client
	$anna->query("$set;");
	$anna->query($write);
	is($node->sql($last), '- -', "$what: outside of a transaction");
	# who goes away in the middle of it
	my $gone = $bouncer->session;
	$gone->query("BEGIN; $set; $write");
	$gone->quit;
	$ben->query($write);
	is($node->sql($last), '- -', "$what: its client is gone");
}
# a transaction that waits for the connection does not get into another's
$anna->query(q(BEGIN; SELECT audit_log.set_context('anna')));
$ben->send($write);
$anna->query("$write; COMMIT");
$ben->wait;
is($node->sql(q(SELECT string_agg(coalesce(user_id, '-'), ' ' ORDER BY id) FROM (SELECT * FROM audit_log.audit_logs ORDER BY id DESC LIMIT 2) x)), 'anna -', 'one waits, and is himself');

# ---- plain SET

$anna->query(q(SET audit_log.user_id = 'anna'));
$ben->query($write);
is($node->sql($last), 'anna -', 'plain SET is found by the next client: as the README says');
$ben->query(q(BEGIN; SELECT audit_log.set_context('ben'); ) . "$write; COMMIT");
is($node->sql($last), 'ben -', 'who tells who he is, is himself all the same');
$ben->query(q(BEGIN; SELECT audit_log.set_context(NULL); ) . "$write; COMMIT");
is($node->sql($last), '- -', 'and who says that he is nobody, is nobody');
$anna->query('RESET audit_log.user_id');
my $reset = bouncer('reset', 1, 1);
($anna, $ben) = map { $reset->session } 1, 2;
$anna->query(q(SET audit_log.user_id = 'anna'));
is($anna->query('SELECT pg_backend_pid()'), $ben->query('SELECT pg_backend_pid()'), 'the same connection');
$ben->query($write);
is($node->sql($last), '- -', 'with server_reset_query_always it is not');

# ---- many clients on few connections, each with a name of its own, or none; some transactions fail

$node->sql('TRUNCATE t');
my $before = $node->sql('SELECT max(id) FROM audit_log.change');
my $many = bouncer('many', 3);
my @clients = map { $many->session } 1 .. 8;
for my $n (0 .. $#clients)
{
	my $script = '';
	for my $i (1 .. 60)
	{
		my ($who, $kind) = ("user$n", ($n + $i) % 6);
		my $insert = "INSERT INTO t (who, why) VALUES ('$who', 'w$i')";
		$script .=
		    $kind == 0 ? "INSERT INTO t (who, why) VALUES (NULL, NULL);\n"
		  : $kind == 1 ? "BEGIN; SELECT audit_log.set_context('$who', '{\"why\": \"w$i\"}'); $insert; COMMIT;\n"
		  : $kind == 2 ? "BEGIN; SET LOCAL audit_log.user_id = '$who'; SET LOCAL audit_log.context = '{\"why\": \"w$i\"}'; $insert; COMMIT;\n"
		  : $kind == 3 ? "BEGIN; SELECT audit_log.set_context('$who', '{\"why\": \"w$i\"}'); $insert; ROLLBACK;\n"
		  : $kind == 4 ? "BEGIN; SELECT audit_log.set_context('$who', '{\"why\": \"w$i\"}'); $insert; SELECT 1/0; COMMIT;\n"
		  :              "BEGIN; INSERT INTO t (who, why) VALUES (NULL, NULL); COMMIT;\n";
	}
	$clients[$n]->send($script);
}
$_->wait for @clients;
is($node->sql(<<"END"), '320|160|0|t', 'many clients: every change is its client\'s');
SELECT count(*), count(user_id), count(*) FILTER (WHERE user_id IS DISTINCT FROM changes ->> 'who' OR context ->> 'why' IS DISTINCT FROM changes ->> 'why'),
       count(DISTINCT (SELECT backend_pid FROM audit_log.transaction x WHERE x.id = l.transaction_id)) <= 3
  FROM audit_log.audit_logs l WHERE id > $before
END

done_testing();
