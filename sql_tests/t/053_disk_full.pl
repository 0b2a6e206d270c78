# A server that runs out of disk refuses writes; it never keeps a change and loses its log row.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $disk = AuditLogTest->small_disk;
AuditLogTest->skip_all_aloud('no small file system to fill up: mounting one needs root') if !defined $disk;

my $ballast = "$disk/ballast";

# leaves so many kB free
sub fill
{
	my ($leave) = @_;
	open my $handle, '>:raw', $ballast or die "$ballast: $!";
	binmode $handle;
	while (1)
	{
		my ($free) = `df -Pk '$disk'` =~ /\n\S+\s+\d+\s+\d+\s+(\d+)/;
		last if $free <= $leave;
		my $write = ($free - $leave) * 1024;
		my $step = $write > 1 << 20 ? 1 << 20 : $write;
		(syswrite $handle, 'x' x $step) or last;
	}
	close $handle;
}

for my $wal ('elsewhere', 'on it too')
{
	my $where = AuditLogTest->folder . '/wal';
	my $name = $wal eq 'elsewhere' ? 'full' : 'fullwal';
	my $node = AuditLogTest->new($name,
		dir => $disk,
		initdb => [ '--wal-segsize=1', $wal eq 'elsewhere' ? ("--waldir=$where") : () ],
		conf => "shared_buffers = 4MB\nmax_wal_size = 8MB\nmin_wal_size = 2MB\nwal_recycle = off\nwal_init_zero = on\nautovacuum = off\nrestart_after_crash = off");
	$node->sql(<<'END');
CREATE EXTENSION audit_log;
CREATE TABLE t (id int PRIMARY KEY, n int, note text);
SELECT audit_log.enable('t');
INSERT INTO t SELECT i, 0 FROM generate_series(1, 2000) i;
CREATE VIEW differ AS
    SELECT t.id FROM t FULL JOIN audit_log.rebuild(NULL::t) r ON t.id = r.id
     WHERE t.id IS NULL OR r.id IS NULL OR NOT t *= r;
CHECKPOINT;
END
	my ($refused, $written, $message) = (0, 0, '');
	fill(3000);
	for my $i (1 .. 400)
	{
		my ($rc, undef, $err) = $node->psql($i % 3
			? "UPDATE t SET n = $i, note = md5(random()::text) WHERE id % 10 = $i % 10"
			: "INSERT INTO t SELECT $i * 1000 + j, $i, repeat(md5(j::text), 20) FROM generate_series(2001, 2100) j");
		if ($rc == 0) { $written++; next }
		$refused++;
		$message ||= $err;
		last if $refused >= 10 || $rc == 2;
	}
	my $log = $node->log;
	cmp_ok($refused, '>', 0, "WAL $wal: $written statements are written, then they are refused");
	like("$message$log", qr/No space left on device/, "WAL $wal: since the disk is full");
	unlink $ballast;
	my ($up) = $node->psql('SELECT 1');
	if ($up != 0)
	{
		# a disk without room for WAL stops the server itself
		eval { $node->stop('immediate') };
		$node->start;
	}
	is($node->sql('SELECT count(*) FROM differ'), '0', "WAL $wal: with room again the table is what its log says");
	$node->sql('UPDATE t SET n = n + 1 WHERE id <= 100');
	is($node->sql('SELECT count(*) FROM differ'), '0', "WAL $wal: and writing goes on");
	is($node->sql('SELECT count(*) - count(DISTINCT id) FROM audit_log.change'), '0', "WAL $wal: no id twice");
	is($node->sql('SELECT * FROM audit_log.check()'), '', "WAL $wal: check() is content");
	$node->stop('immediate');
	File::Path::remove_tree($node->dir, { safe => 0, keep_root => 1 });
}

done_testing();
