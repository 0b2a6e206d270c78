# The README: its examples run as they stand, print what it says they print, and its
# reference names everything that there is.
use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;
use JSON::PP ();

my $root = "$FindBin::RealBin/../..";
my $readme = AuditLogTest::slurp("$root/README.md");
ok(length $readme, 'there is a README');

my $node = AuditLogTest->new('main');

# ---- the examples, in order, in one session; "```sql no-test" is left out

my (@blocks, $script);
while ($readme =~ /^```(sql|text)([^\n]*)\n(.*?)^```$/msg)
{
	my ($kind, $note, $body) = ($1, $2, $3);
	if ($kind eq 'text')
	{
		$blocks[-1]{text} = $body if @blocks && $blocks[-1];
	}
	elsif ($note =~ /no-test/)
	{
		push @blocks, undef;
	}
	else
	{
		push @blocks, { sql => $body };
		$script .= '\echo === ' . $#blocks . "\n$body";
	}
}
cmp_ok(scalar(grep { $_ && $_->{text} } @blocks), '>', 10, 'examples with output');
ok(!(grep { !defined } @blocks), 'no example is left out');

$node->sql('CREATE DATABASE readme');
my ($rc, $out, $err) = $node->run('psql', '-Xq', '-P', 'pager=off', '-v', 'ON_ERROR_STOP=1', '-d', 'readme',
	{ stdin => $script });
is($rc, 0, 'every example runs') or diag $err;

sub trimmed
{
	my ($text) = @_;
	$text =~ s/[ \t]+$//mg;
	$text =~ s/\s+\z//;
	return $text;
}

my %printed = $out =~ /^=== (\d+)\n(.*?)(?=^=== |\z)/msg;
for my $n (grep { $blocks[$_] && defined $blocks[$_]{text} } 0 .. $#blocks)
{
	my $want = trimmed($blocks[$n]{text});
	my $got = trimmed($printed{$n} // '');
	my ($first) = $blocks[$n]{sql} =~ /(\S[^\n]*)\n/;
	# the README shows the last results of an example
	$got = substr $got, -length $want if length $got > length $want && "\n\n" eq substr $got, -length($want) - 2, 2;
	is($got, $want, "output of example $n: $first");
}

# its NOTICE is quoted too
my ($notice) = $readme =~ /in a NOTICE: `([^`]+)`/;
$notice =~ s/\s+/ /g;
like($err, qr/\Q$notice\E$/m, 'the NOTICE of enable');

is( $node->sql("SELECT string_agg(n.nspname || '.' || c.relname, ', ') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname IN ('public', 'audit_log')", db => 'readme'),
	'', 'the last example leaves nothing');

# ---- the reference

$node->sql('CREATE EXTENSION audit_log');
my $code = join ' ', $readme =~ /(`[^`\n]+`)/g;
sub named
{
	my ($what, $query, $pattern) = @_;
	my @missing = grep { my $name = quotemeta; $code !~ $pattern->($name) } split /\n/, $node->sql($query);
	is("@missing", '', $what);
}
named('every public function', <<'END', sub { qr/audit_log\.$_[0]\(/ });
SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'audit_log'::regnamespace AND proname !~ '^_' ORDER BY 1
END
named('every argument of a public function', <<'END', sub { qr/\b$_[0]\b/ });
SELECT DISTINCT a FROM pg_proc, unnest(proargnames) a
 WHERE pronamespace = 'audit_log'::regnamespace AND proname !~ '^_' AND a <> '' ORDER BY 1
END
named('every table and view', <<'END', sub { qr/audit_log\.$_[0]`/ });
SELECT relname FROM pg_class WHERE relnamespace = 'audit_log'::regnamespace AND relkind IN ('r', 'p', 'v')
   AND relname !~ '^change_\d' ORDER BY 1
END
named('every sequence and trigger', <<'END', sub { qr/`$_[0]`/ });
SELECT relname FROM pg_class WHERE relnamespace = 'audit_log'::regnamespace AND relkind = 'S'
UNION SELECT tgname FROM pg_trigger WHERE tgname ~ '^audit_log'
UNION SELECT evtname FROM pg_event_trigger ORDER BY 1
END
named('every setting', <<'END', sub { qr/`$_[0]`/ });
LOAD 'audit_log';
SELECT name FROM pg_settings WHERE name ~ '^audit_log\.' ORDER BY 1
END
for my $relation (qw(audit_logs column_changes transactions tracked_tables visible_table transaction change
	tracked_table table_state tracked_schema mask_secret mark marks cluster consumer restored))
{
	my ($part) = $readme =~ /^(`audit_log\.$relation`.*?)(?=^`audit_log\.|^#)/ms;
	my @missing = grep { ($part // '') !~ /`$_`/ } split /\n/, $node->sql(
		"SELECT attname FROM pg_attribute WHERE attrelid = 'audit_log.$relation'::regclass AND attnum > 0");
	is("@missing", '', "every column of $relation");
}

# ---- troubleshooting: the messages are those of the source

my $source = join "\n", map { AuditLogTest::slurp($_) } glob("$root/src/*.c"), glob("$root/sql/*.sql");
$source =~ s/\\"/"/g;
my ($table) = $readme =~ /^## Troubleshooting\n(.*?)^## /ms;
my @unknown;
while ($table =~ /^\| ([^|]+) \|/mg)
{
	my $message = $1;
	# PostgreSQL's own
	next if $message =~ /malformed array|permission denied for (function|view)|total size of jsonb/;
	for my $part (map { split /…|"[^"]*"/ } $message =~ /`([^`]+)`/g)
	{
		$part =~ s/^\s+|\s+$//g;
		push @unknown, $part if $part ne '' && index($source, $part) < 0;
	}
}
is(join(', ', @unknown), '', 'every message in Troubleshooting is in the source');

# ---- META.json, as PGXN wants it, and the versions

my $meta = eval { JSON::PP->new->decode(AuditLogTest::slurp("$root/META.json")) } || {};
my ($version) = $node->sql("SELECT extversion FROM pg_extension WHERE extname = 'audit_log'");
is(join(', ', grep { !$meta->{$_} } qw(name version abstract maintainer license provides meta-spec)), '', 'META.json has what it must');
like($meta->{version} // '', qr/^\Q$version\E\.\d+$/, 'version of META.json');
is($meta->{provides}{audit_log}{version}, $meta->{version}, 'version of what it provides');
ok(-f "$root/" . ($meta->{provides}{audit_log}{$_} // '-'), "META.json: $_") for qw(file docfile);
my ($newest) = AuditLogTest::slurp("$root/CHANGELOG.md") =~ /^## (\S+)/m;
is($newest, $meta->{version}, 'newest version of CHANGELOG.md');

# ---- links within the page

my %heading = map { my $h = lc; $h =~ s/[`,.?!]//g; $h =~ s/ /-/g; ($h => 1) } $readme =~ /^#+ (.*)$/mg;
is(join(', ', grep { !$heading{$_} } $readme =~ /\]\(#([^)]+)\)/g), '', 'links lead to a heading');
ok(-f "$root/$_", "link to $_") for grep { !/^(#|https:)/ } $readme =~ /\]\(([^)]+)\)/g;

done_testing();
