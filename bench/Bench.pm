package Bench;

# What the sections of the benchmark are made with: sessions, pgbench, rounds, tables.

use strict;
use warnings;
use Exporter 'import';
use File::Temp;
use IPC::Open2;
use List::Util qw(max min);
use Time::HiRes qw(time);

our @EXPORT = qw(say_now fail session admin leave_admin pin pgbench median spread table paragraph heading
	wal_position wal_between);

my $started = $ENV{BENCH_STARTED} || time;
my $work = $ENV{BENCH_WORK} or die "to be called by tools/bench\n";
$| = 1;

# ---- words

sub say_now
{
	my $seconds = time - $started;
	printf "%3d:%02d %s\n", $seconds / 60, $seconds % 60, join '', @_;
}

sub fail { die "ERROR: ", @_, "\n" }

my $result;

sub paragraph
{
	my $text = join '', @_;
	open $result, '>:utf8', $ENV{BENCH_RESULT} or die "$ENV{BENCH_RESULT}: $!" unless $result;
	print $result "$text\n";
	$result->flush;
	print "\n$text";
}

sub heading { paragraph("## $_[0]\n") }

# A Markdown table whose columns are aligned; the first is text, the others are numbers.
sub table
{
	my ($header, @rows) = @_;
	my @width = map { my $i = $_; max(3, map { length($_->[$i] // '') } $header, @rows) } 0 .. $#$header;
	my $line = sub {
		my ($row) = @_;
		return '| ' . join(' | ', map {
			my $cell = $row->[$_] // '';
			my $pad = ' ' x ($width[$_] - length $cell);
			$_ == 0 ? "$cell$pad" : "$pad$cell";
		} 0 .. $#$header) . " |\n";
	};
	paragraph($line->($header),
		'|' . join('|', map { $_ == 0 ? '-' x ($width[$_] + 2) : '-' x ($width[$_] + 1) . ':' } 0 .. $#$header) . "|\n",
		map { $line->($_) } @rows);
}

# ---- numbers

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return undef unless @sorted;
	return ($sorted[$#sorted / 2] + $sorted[@sorted / 2]) / 2;
}

# "0.91 (0.90-0.93)"
sub spread
{
	my ($values, $format) = @_;
	$format //= '%.2f';
	return '-' unless $values && @$values;
	return sprintf $format, $values->[0] if @$values == 1;
	return sprintf "$format ($format-$format)", median(@$values), min(@$values), max(@$values);
}

# ---- sessions: one psql for each, which stays connected

my $number = 0;

sub session
{
	my ($database, $options) = @_;
	my $errors = "$work/tmp/session." . ++$number;
	local $ENV{PGDATABASE} = $database;
	local $ENV{PGOPTIONS} = $options // '';
	my $pid = open2(my $out, my $in, 'sh', '-c', 'exec psql -X -A -t -q -v ON_ERROR_STOP=1 2>"$0"', $errors);
	my $self = bless { database => $database, pid => $pid, in => $in, out => $out, errors => $errors }, __PACKAGE__;
	$in->autoflush;
	$self->run('SET client_min_messages = warning');
	$self->{backend} = $self->value('SELECT pg_backend_pid()');
	return $self;
}

# Runs statements, returns the lines of their results.
sub run
{
	my ($self, $sql) = @_;
	# psql's own commands end with their line
	$sql =~ s/\s*\z//;
	$sql .= ';' unless $sql =~ /;\z|^\\[^\n]*\z/m;
	$sql .= "\n";
	local $SIG{PIPE} = 'IGNORE';
	print { $self->{in} } "$sql\\echo -- ready --\n";
	my @lines;
	while (defined(my $line = readline $self->{out}))
	{
		chomp $line;
		return @lines if $line eq '-- ready --';
		push @lines, $line;
	}
	waitpid $self->{pid}, 0;
	my $errors = '';
	if (open my $file, '<', $self->{errors}) { local $/; $errors = <$file> }
	fail("in database $self->{database}: $errors\nin: ", substr $sql, 0, 2000);
}

sub value { return join "\n", run(@_) }

# Milliseconds that statements take, by psql's clock
sub timed
{
	my ($self, $sql) = @_;
	$sql =~ s/;?\s*\z/;\n/;
	my $sum = 0;
	my $found = 0;
	for ($self->run("\\timing on\n$sql\\timing off\n"))
	{
		if (/^Time: ([0-9.]+) ms/) { $sum += $1; $found++ }
	}
	$found or fail("no time of: $sql");
	return $sum;
}

sub close
{
	my ($self) = @_;
	return unless $self->{pid};
	CORE::close $self->{in};
	CORE::close $self->{out};
	waitpid delete $self->{pid}, 0;
}

sub DESTROY { local ($?, $!); $_[0]->close if $_[0]->{pid} }

my $admin;

sub admin { return $admin //= session('postgres') }
sub leave_admin { $admin->close; undef $admin }

# ---- processors

# One client and its backend take turns. On one processor that is steady; where both may go anywhere,
# each waits for the other to wake up, or does not, as the scheduler likes, which makes a factor of two.
#   PIN=together   both on the last processor, the server's helpers on the others (the default)
#   PIN=apart      the backend on the last processor, the client with the helpers
#   PIN=no         as the scheduler likes, which is also what several clients get: pin(0)
my $client;

sub pin
{
	my ($on, $how) = @_;
	$how ||= $ENV{PIN} || 'together';
	$how =~ /^(together|apart|no)$/ or fail("PIN is together, apart or no");
	my $cores = grep { /^processor\s*:/ } do { open my $f, '<', '/proc/cpuinfo' or die; <$f> };
	return if $cores < 2;
	my ($postmaster) = do { open my $f, '<', "$work/server/data/postmaster.pid" or fail('no server'); <$f> =~ /(\d+)/ };
	my ($last, $others) = ($cores - 1, $cores == 2 ? '0' : '0-' . ($cores - 2));
	$on = 0 if $how eq 'no';
	my %of = ($postmaster => $on ? $last : "0-$last",
		map { $_ => $on ? $others : "0-$last" } admin()->run("SELECT pid FROM pg_stat_activity WHERE backend_type <> 'client backend'"));
	# a helper may be gone meanwhile
	qx{taskset -cp $of{$_} $_ 2>&1} for sort keys %of;
	$client = !$on ? undef : $how eq 'apart' ? $others : $last;
}

# ---- pgbench

# pgbench(database, script, t|T => …, c => clients, D => {variable => value}, options => PGOPTIONS):
# transactions per second, and how many there were
sub pgbench
{
	my ($database, $script, %o) = @_;
	my $file = File::Temp->new(DIR => "$work/tmp", SUFFIX => '.pgbench');
	print $file $script;
	$file->close;
	chmod 0644, "$file";
	my $clients = $o{c} || 1;
	my @command = (defined $client ? ('taskset', '-c', $client) : (), 'pgbench', '-n', '-M', 'prepared', '-c', $clients, '-j', min($clients, 2), '-f', "$file",
		($o{t} ? ('-t', $o{t}) : ('-T', $o{T})),
		(map { ('-D', "$_=$o{D}{$_}") } sort keys %{ $o{D} || {} }));
	local $ENV{PGOPTIONS} = $o{options} // '';
	my $errors = "$work/tmp/pgbench.err";
	my $output = qx{@{[ join ' ', map { "'" . s/'/'\\''/gr . "'" } @command, $database ]} 2>$errors};
	my $status = $?;
	my ($tps) = $output =~ /^tps = ([0-9.]+) \(without/m;
	my ($done) = $output =~ /^number of transactions actually processed: (\d+)/m;
	my ($failed) = $output =~ /^number of failed transactions: (\d+)/m;
	if ($status || !$tps || $failed || ($o{t} && $done != $o{t} * $clients))
	{
		my $text = '';
		if (open my $in, '<', $errors) { local $/; $text = <$in> }
		fail("pgbench in database $database:\n$output$text\nscript:\n", substr $script, 0, 2000);
	}
	return ($tps, $done);
}

# ---- WAL

# Everything up to here is on disk, so that it can be read
sub wal_position
{
	my $admin = admin();
	$admin->run(q{BEGIN; SET LOCAL synchronous_commit = on; SELECT pg_logical_emit_message(true, 'bench', ''); COMMIT});
	return $admin->value('SELECT pg_current_wal_flush_lsn()');
}

# Bytes of the records between two positions without their full-page images, and bytes of the images
sub wal_between
{
	my ($from, $to) = @_;
	my ($records, $images) = split /\|/,
		admin()->value("SELECT sum(record_size), sum(fpi_size) FROM pg_get_wal_stats('$from', '$to')");
	return ($records, $images);
}

1;
