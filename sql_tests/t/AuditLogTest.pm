# Private servers for the TAP tests: one small module instead of PostgreSQL's own
# PostgreSQL::Test::*, which changes between versions, so that a test is the same
# text on every version. Perl's core modules only.

package AuditLogTest;

=encoding UTF-8

=head1 SYNOPSIS

    use FindBin;
    use lib $FindBin::RealBin;
    use AuditLogTest;                     # strict, warnings, utf8 and Test::More with it

    my $node = AuditLogTest->new('main'); # initdb and start, on a private unix socket
    $node->sql('CREATE EXTENSION audit_log');
    is($node->sql('SELECT 1'), '1', 'dies on an error, returns stdout');
    done_testing();

Every server belongs to the test that made it: superuser C<postgres>, UTF8, locale
C, no TCP, fsync off (that loses nothing when a process is killed). It is stopped
and removed when the test ends; after a failed test its log stays.

TEMP_CONFIG names a file whose lines every server gets at the end of its
postgresql.conf (`make check` tells by it where the uninstalled extension lies).

=head2 Servers

    my $node = AuditLogTest->new($name, %options);
        conf   => "wal_level = logical\n…"   more lines for postgresql.conf
        initdb => ['--wal-segsize=1']        more options for initdb
        dir    => $folder                    where the data folder is made (a small
                                             tmpfs, say), by default the test's own
        start  => 0                          initdb only
    $node->start;  $node->stop($mode);  $node->restart($mode);   # mode: fast (default), smart, immediate
    $node->try_start;                        # true or false instead of dying
    $node->crash;                            # kill -9 of the server and all its processes
    $node->conf("work_mem = '1MB'\n");       # append to postgresql.conf (then reload or restart)
    $node->reload;
    my $other = $node->standby($name, %options);   # pg_basebackup -R and start; options as in new
    $other->wait_for($node);                 # until all that $node has written is replayed
    $other->promote;
    $node->connstr($db);                     # host=… port=… user=postgres dbname=…
    $node->dir; $node->data; $node->log;     # its folders; log is the text of the server's log
    $node->version;                          # 150020, as server_version_num

=head2 Queries: text in, text out (psql -XAtq), as Perl characters

    my $out              = $node->sql($sql, %options);    # dies with psql's message
    my ($rc, $out, $err) = $node->psql($sql, %options);   # never dies; rc 0, 1, 2, 3 as psql's
        db => 'postgres', user => 'postgres'
        settings => { timezone => 'UTC' }    for the session
        go_on => 1                           after an error too (else the first one ends it)
        args => ['--single-transaction']     more for psql
    $node->poll($sql, $wanted, %options);    # repeats until the answer is 't' (or $wanted); false after the time-out

=head2 Sessions: psql processes that live on beside the test

    my $s = $node->session(%options);        # db, user, settings as above
    my $out = $s->query($sql);               # sends, waits, returns stdout
    $s->err;                                 # stderr of what was waited for last
    $s->send($sql);                          # sends without waiting: a query that will block
    $s->wait;                                # … and now its stdout
    $s->wait_blocked;                        # until this session waits for a lock (false after the time-out)
    $s->pid;  $s->alive;  $s->quit;

=head2 Programs

    my ($rc, $out, $err) = $node->run('pg_dump', @arguments);     # PGHOST, PGPORT, PGUSER, PGDATABASE set
    my $out = $node->run_ok('pg_restore', @arguments);            # dies when it fails
    A last argument { stdin => $text, stdin_file => $path, stdout_file => $path, env => {…}, timeout => $s } is possible;
    AuditLogTest::run and run_ok do the same without a server.

=head2 Others

    AuditLogTest->folder;          # a folder of this test, removed at its end
    AuditLogTest->small_disk;      # a small file system that may be filled up, or undef where none could be mounted
    AuditLogTest->skip_aloud($n, $reason);   # inside SKIP: {…}: as Test::More's skip, and says SKIPPED on the console
    AuditLogTest->skip_all_aloud($reason);

A process that is waited for longer than AUDIT_LOG_TEST_TIMEOUT seconds (180) counts as failed.

=cut

use strict;
use warnings;
use utf8;
use Cwd ();
use File::Spec ();
use File::Path ();
use File::Temp ();
use POSIX ();
use Scalar::Util ();
use Test::More ();
use Time::HiRes ();

our $timeout = $ENV{AUDIT_LOG_TEST_TIMEOUT} || 180;

my (@nodes, @sessions, $folder, $sockets);
my $owner = $$;

sub import
{
	strict->import;
	warnings->import;
	utf8->import;
	Test::More->export_to_level(1);
	my $builder = Test::More->builder;
	binmode $builder->$_, ':encoding(UTF-8)' for qw(output failure_output todo_output);
}

BEGIN
{
	# Nothing of the caller's environment reaches the servers and clients.
	delete $ENV{$_} for grep { /^PG/ && $_ !~ /^PG_(CONFIG|REGRESS)$/ } keys %ENV;
	delete @ENV{qw(LANGUAGE LC_ALL)};
	$ENV{LC_MESSAGES} = 'C';
	$ENV{PGAPPNAME} = 'audit_log_test';
	$SIG{PIPE} = 'IGNORE';
	# A test that is interrupted still runs END, which stops its servers.
	$SIG{$_} = sub { die "interrupted\n" } for qw(INT TERM HUP);

	# Below PGXS the PATH begins with the server's programs; by hand PG_CONFIG is asked.
	if (!grep { -x "$_/initdb" } split /:/, $ENV{PATH})
	{
		my $bindir = $ENV{PG_CONFIG} ? `"$ENV{PG_CONFIG}" --bindir` : `pg_config --bindir`;
		chomp $bindir;
		-x "$bindir/initdb" or die "no initdb in PATH: set PG_CONFIG\n";
		$ENV{PATH} = "$bindir:$ENV{PATH}";
	}
}

sub folder
{
	$> == 0 and die "PostgreSQL does not run as root: run the tests as another user (make check does)\n";
	if (!$folder)
	{
		my $parent = $ENV{TESTDIR} && -w "$ENV{TESTDIR}/tmp_check" ? "$ENV{TESTDIR}/tmp_check" : undef;
		my $name = $0 =~ m{([^/]+?)(\.pl)?$} ? $1 : 'test';
		$folder = File::Temp::tempdir("${name}_XXXX", $parent ? (DIR => Cwd::abs_path($parent)) : (TMPDIR => 1));
		# The path of a unix socket may be 107 bytes long at most.
		$sockets = File::Temp::tempdir('al_XXXXXX', length(File::Spec->tmpdir) < 50 ? (TMPDIR => 1) : (DIR => '/tmp'));
	}
	return $folder;
}

sub small_disk
{
	my $disk = $ENV{AUDIT_LOG_SMALL_DISK};
	return defined $disk && -d $disk && -w $disk ? $disk : undef;
}

sub skip_aloud
{
	my (undef, $n, $reason) = @_;
	Test::More::diag("SKIPPED: $reason");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	Test::More::skip($reason, $n);
}

sub skip_all_aloud
{
	my (undef, $reason) = @_;
	Test::More::diag("SKIPPED: $reason");
	Test::More::plan(skip_all => $reason);
}

# ---------------------------------------------------------------- programs

sub slurp
{
	my ($path) = @_;
	open my $handle, '<:raw', $path or return '';
	local $/;
	my $bytes = <$handle> // '';
	utf8::decode($bytes);    # what is no UTF-8 stays as bytes
	return $bytes;
}

# Output goes to files, not pipes: a server started by the program holds them open,
# and nobody has to empty them in time.
sub run
{
	my $node = Scalar::Util::blessed($_[0]) ? shift : undef;
	my $options = ref $_[-1] eq 'HASH' ? pop : {};
	my @command = @_;
	my %env = (($node ? %{ $node->environment } : ()), %{ $options->{env} // {} });
	my $here = folder();
	my ($in, $out, $err) = map { "$here/run.$_" } qw(in out err);
	my $source = $options->{stdin_file};
	if (!defined $source)
	{
		open my $handle, '>:encoding(UTF-8)', $in or die "$in: $!";
		print $handle $options->{stdin} // '';
		close $handle;
		$source = $in;
	}
	my $target = $options->{stdout_file} // $out;
	my $pid = spawn(\@command, $source, $target, $err, \%env);
	my $limit = Time::HiRes::time() + ($options->{timeout} // $timeout);
	my $pause = 0.001;
	while (waitpid($pid, POSIX::WNOHANG()) == 0)
	{
		if (Time::HiRes::time() > $limit)
		{
			kill KILL => $pid;
			waitpid $pid, 0;
			return (124, slurp($out), slurp($err) . "timed out: @command\n");
		}
		Time::HiRes::sleep($pause);
		$pause *= 1.5 if $pause < 0.02;
	}
	my $rc = $? & 127 ? 128 + ($? & 127) : $? >> 8;
	return ($rc, defined $options->{stdout_file} ? '' : slurp($out), slurp($err));
}

sub run_ok
{
	my ($rc, $out, $err) = run(@_);
	$rc == 0 or die join(' ', grep { !ref } @_) . ": exit code $rc\n$err";
	return $out;
}

# The child opens its own stdin (a path or a handle), stdout and stderr.
sub spawn
{
	my ($command, $in, $out, $err, $env) = @_;
	my $pid = fork // die "fork: $!";
	return $pid if $pid;
	$SIG{$_} = 'DEFAULT' for qw(INT TERM HUP PIPE);
	my $ok = eval {
		if (ref $in) { open STDIN, '<&', $in or die "stdin: $!\n"; }
		else { open STDIN, '<', $in or die "$in: $!\n"; }
		open STDOUT, '>', $out or die "$out: $!\n";
		open STDERR, '>', $err or die "$err: $!\n";
		$ENV{$_} = $env->{$_} for keys %{ $env // {} };
		no warnings 'exec';
		exec { $command->[0] } @$command or die "$command->[0]: $!\n";
	};
	print STDERR $@ if !$ok;
	POSIX::_exit(127);
}

# ---------------------------------------------------------------- servers

sub new
{
	my ($class, $name, %option) = @_;
	my $self = make($class, $name, %option);
	run_ok(
		'initdb', '-D', $self->{data}, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--no-locale', '--no-sync',
		@{ $option{initdb} // [] });
	$self->configure($option{conf});
	$self->start if $option{start} // 1;
	return $self;
}

sub make
{
	my ($class, $name, %option) = @_;
	my $dir = ($option{dir} // folder()) . "/$name";
	folder();
	die "there is a server $name already\n" if grep { $_->{name} eq $name } @nodes;
	my $self = bless {
		name => $name,
		dir => $dir,
		data => "$dir/data",
		logfile => folder() . "/$name.log",
		socket => "$sockets/$name",
	}, $class;
	mkdir $_ or die "$_: $!" for $dir, $self->{socket};
	push @nodes, $self;
	return $self;
}

sub configure
{
	my ($self, $more) = @_;
	my $conf = <<"END";
listen_addresses = ''
unix_socket_directories = '$self->{socket}'
port = 5432
fsync = off
log_line_prefix = '%m [%p] %q%a %u@%d '
END
	# A chroot may be without it.
	$conf .= "dynamic_shared_memory_type = mmap\n" if !-w '/dev/shm';
	$conf .= slurp($ENV{TEMP_CONFIG}) . "\n" if $ENV{TEMP_CONFIG};
	$conf .= join("\n", ref $more ? @$more : $more) . "\n" if defined $more;
	$self->conf($conf);
}

sub conf
{
	my ($self, @lines) = @_;
	open my $handle, '>>:encoding(UTF-8)', "$self->{data}/postgresql.conf" or die "postgresql.conf: $!";
	print $handle map { /\n\z/ ? $_ : "$_\n" } @lines;
	close $handle;
}

sub dir { $_[0]{dir} }
sub data { $_[0]{data} }
sub log { slurp($_[0]{logfile}) }
sub name { $_[0]{name} }

sub connstr
{
	my ($self, $db) = @_;
	return "host=$self->{socket} port=5432 user=postgres dbname=" . ($db // 'postgres');
}

sub environment
{
	my ($self, %option) = @_;
	my %env = (
		PGHOST => $self->{socket},
		PGPORT => 5432,
		PGUSER => $option{user} // 'postgres',
		PGDATABASE => $option{db} // 'postgres');
	my $settings = $option{settings} // {};
	$env{PGOPTIONS} = join ' ', map { my $v = "$_=$settings->{$_}"; $v =~ s/([\s\\])/\\$1/g; "-c $v" } sort keys %$settings;
	utf8::encode($_) for values %env;
	return \%env;
}

sub try_start
{
	my ($self) = @_;
	my ($rc) = run('pg_ctl', '-D', $self->{data}, '-l', $self->{logfile}, '-w', '-t', $timeout, '-s', 'start',
		{ timeout => $timeout + 10 });
	return $rc == 0;
}

sub start
{
	my ($self) = @_;
	if (!$self->try_start)
	{
		my @log = split /^/, $self->log;
		splice @log, 0, -30 if @log > 30;
		die "server $self->{name} did not start:\n", @log;
	}
	return $self;
}

sub stop
{
	my ($self, $mode) = @_;
	run_ok('pg_ctl', '-D', $self->{data}, '-m', $mode // 'fast', '-w', '-t', $timeout, '-s', 'stop',
		{ timeout => $timeout + 10 });
	return $self;
}

sub restart
{
	my ($self, $mode) = @_;
	$self->stop($mode);
	return $self->start;
}

sub reload
{
	my ($self) = @_;
	run_ok('pg_ctl', '-D', $self->{data}, '-s', 'reload');
	return $self;
}

sub postmaster
{
	my ($self) = @_;
	return slurp("$self->{data}/postmaster.pid") =~ /^(\d+)/ ? $1 : undef;
}

# The server is stopped first (SIGSTOP) so that no process of it appears or does
# anything orderly between the first kill and the last.
sub crash
{
	my ($self) = @_;
	my $pid = $self->postmaster // die "server $self->{name} does not run\n";
	kill STOP => $pid;
	my @children = grep { slurp("/proc/$_/stat") =~ /^\d+ \(.*\) \S $pid /s } map { m{(\d+)} } glob '/proc/[0-9]*';
	kill KILL => @children, $pid;
	# They are there until init has collected them, and the next start looks for them.
	my $limit = Time::HiRes::time() + $timeout;
	while (grep { kill 0, $_ } $pid, @children)
	{
		Time::HiRes::time() < $limit or die "processes of server $self->{name} survive kill -9\n";
		Time::HiRes::sleep(0.01);
	}
	return $self;
}

sub version
{
	my ($self) = @_;
	return $self->{version} //= $self->sql('SHOW server_version_num');
}

sub standby
{
	my ($self, $name, %option) = @_;
	my $other = make(ref $self, $name, %option);
	$self->run_ok('pg_basebackup', '-D', $other->{data}, '-R', '-c', 'fast', '--no-sync');
	$other->configure($option{conf});
	$other->start if $option{start} // 1;
	return $other;
}

sub promote
{
	my ($self) = @_;
	run_ok('pg_ctl', '-D', $self->{data}, '-w', '-t', $timeout, '-s', 'promote', { timeout => $timeout + 10 });
	return $self;
}

sub wait_for
{
	my ($self, $primary) = @_;
	my $lsn = $primary->sql('SELECT pg_current_wal_lsn()');
	$self->poll("SELECT pg_last_wal_replay_lsn() >= '$lsn'")
	  or die "server $self->{name} did not catch up with $primary->{name}\n";
	return $self;
}

# ---------------------------------------------------------------- queries

sub psql
{
	my ($self, $sql, %option) = @_;
	my ($rc, $out, $err) = run(
		'psql', '-XAtq',
		'-v', 'ON_ERROR_STOP=' . ($option{go_on} ? 0 : 1),
		@{ $option{args} // [] },
		{
			stdin => "$sql\n",
			env => $self->environment(%option),
			timeout => $option{timeout} // $timeout
		});
	chomp $out;
	chomp $err;
	return ($rc, $out, $err);
}

sub sql
{
	my ($self, $sql, %option) = @_;
	my ($rc, $out, $err) = $self->psql($sql, %option);
	$rc == 0 or die "psql on $self->{name}: exit code $rc\n$err\nin: $sql\n";
	return $out;
}

sub poll
{
	my ($self, $sql, $wanted, %option) = @_;
	$wanted //= 't';
	my $limit = Time::HiRes::time() + $timeout;
	my ($rc, $out, $err);
	do
	{
		($rc, $out, $err) = $self->psql($sql, %option);
		return 1 if $rc == 0 && $out eq $wanted;
		Time::HiRes::sleep(0.1);
	} while (Time::HiRes::time() < $limit);
	Test::More::diag("poll: wanted $wanted, last answer: $out $err");
	return 0;
}

# ---------------------------------------------------------------- sessions

sub session
{
	my ($self, %option) = @_;
	return AuditLogTest::Session->new($self, %option);
}

# A test that dies, or is interrupted, comes here too; a forked child of it does not.
END
{
	if ($$ == $owner)
	{
		my $status = $?;
		$_->quit for grep { defined } @sessions;
		for my $node (@nodes)
		{
			my $pid = $node->postmaster // next;
			next if !kill 0, $pid;
			eval { $node->stop('immediate'); 1 } or kill KILL => $pid;
		}
		my $passed = $status == 0 && Test::More->builder->is_passing;
		for my $node (@nodes)
		{
			File::Path::remove_tree($node->{dir}, { safe => 0 });
		}
		File::Path::remove_tree($sockets) if $sockets;
		File::Path::remove_tree($folder) if $folder && $passed;
		Test::More::diag('server logs in ', $folder =~ m{(tmp_check/.*)} ? $1 : $folder) if $folder && !$passed;
		$? = $status;
	}
}

package AuditLogTest::Session;

use strict;
use warnings;

my $number = 0;

sub new
{
	my ($class, $node, %option) = @_;
	my $base = AuditLogTest->folder . '/session.' . ++$number;
	my $self = bless { node => $node, out => "$base.out", err => "$base.err", marks => 0, seen => 0, from => [0, 0], last_err => '' }, $class;
	pipe(my $read, my $write) or die "pipe: $!";
	$self->{pid_psql} = AuditLogTest::spawn(
		[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=0' ],
		$read, $self->{out}, $self->{err}, $node->environment(%option));
	close $read;
	$write->autoflush(1);
	binmode $write, ':encoding(UTF-8)';
	$self->{stdin} = $write;
	push @sessions, $self;
	Scalar::Util::weaken($sessions[-1]);
	$self->{pid} = $self->query('SELECT pg_backend_pid();');
	$self->alive or die 'session: ' . $self->err . "\n";
	return $self;
}

sub pid { $_[0]{pid} }
sub err { $_[0]{last_err} }

sub alive
{
	my ($self) = @_;
	return 0 if $self->{ended};
	return 1 if waitpid($self->{pid_psql}, POSIX::WNOHANG()) == 0;
	$self->{ended} = 1;
	return 0;
}

# A mark on stdout and one on stderr follow each piece of SQL: when both have come,
# all that it had to say has come.
sub send
{
	my ($self, $sql) = @_;
	$sql .= ';' if $sql !~ /;\s*\z/ && $sql !~ /(^|\n)\s*\\[^\n]*\z/;
	my $mark = 'audit_log_mark_' . ++$self->{marks};
	print { $self->{stdin} } "$sql\n\\echo $mark\n\\warn $mark\n";
	return $self;
}

sub wait
{
	my ($self) = @_;
	my $mark = "audit_log_mark_$self->{marks}";
	my $limit = Time::HiRes::time() + $AuditLogTest::timeout;
	my $pause = 0.001;
	my ($out, $err);
	while (1)
	{
		my $alive = $self->alive;    # asked before the files are read: nothing comes later
		($out, $err) = (AuditLogTest::slurp($self->{out}), AuditLogTest::slurp($self->{err}));
		last if !$alive || ($out =~ /^$mark\n/m && $err =~ /^$mark\n/m);
		if (Time::HiRes::time() > $limit)
		{
			die "session: no answer within $AuditLogTest::timeout s; so far: $out$err\n";
		}
		Time::HiRes::sleep($pause);
		$pause *= 1.5 if $pause < 0.02;
	}
	my @text = ($out, $err);
	for my $i (0, 1)
	{
		my $length = length $text[$i];
		$text[$i] = substr $text[$i], $self->{from}[$i];
		$self->{from}[$i] = $length;
		$text[$i] =~ s/^audit_log_mark_\d+\n//mg;
		chomp $text[$i];
	}
	$self->{last_err} = $text[1];
	return $text[0];
}

sub query
{
	my ($self, $sql) = @_;
	return $self->send($sql)->wait;
}

sub wait_blocked
{
	my ($self) = @_;
	return $self->{node}->poll("SELECT cardinality(pg_blocking_pids($self->{pid})) > 0");
}

# Ends psql at once: an open transaction is rolled back by the server.
sub quit
{
	my ($self) = @_;
	return if !$self->alive;
	close $self->{stdin};
	my $limit = Time::HiRes::time() + 1;
	while ($self->alive)
	{
		kill TERM => $self->{pid_psql} if Time::HiRes::time() > $limit;
		Time::HiRes::sleep(0.005);
	}
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $@, $!);
	$self->quit if $$ == $owner;
}

1;
