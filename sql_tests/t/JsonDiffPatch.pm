# The real jsondiffpatch, for tests that have deltas to check with it.

package JsonDiffPatch;

=encoding UTF-8

=head1 SYNOPSIS

    use JsonDiffPatch;

    my ($checker, $reason) = JsonDiffPatch->install;   # undef and why, where node or npm cannot be had
    my ($ok, $counts, $output) = $checker->check($path);
    # $path: a file of lines {"old": …, "new": …, "delta": …}, as tools/jsondiffpatch/check.mjs
    # describes them; $counts->{lines}, {renamed}, {wrong} …; $output names the wrong lines

The package comes from the npm registry by its name, in the version that package-lock.json
pins, into a folder of the test. AUDIT_LOG_NODE_MODULES may name a folder node_modules that
has it already, where there is no way to the registry.

=cut

use strict;
use warnings;
use AuditLogTest;
use Cwd ();
use File::Copy ();
use FindBin;
use JSON::PP ();

sub install
{
	my ($class) = @_;
	my $source = Cwd::abs_path("$FindBin::RealBin/../../tools/jsondiffpatch");
	my $folder = AuditLogTest->folder . '/jsondiffpatch';

	my ($rc, $version, $err) = AuditLogTest::run('node', '--version');
	return (undef, 'there is no node (Node.js 18 or later)') if $rc != 0;
	return (undef, "node is too old: $version") if $version !~ /^v(\d+)/ || $1 < 18;

	mkdir $folder or die "$folder: $!";
	for my $file ('package.json', 'package-lock.json', '.npmrc', 'check.mjs')
	{
		File::Copy::copy("$source/$file", "$folder/$file") or die "$source/$file: $!";
	}

	if (my $modules = $ENV{AUDIT_LOG_NODE_MODULES})
	{
		-d "$modules/jsondiffpatch" or return (undef, "AUDIT_LOG_NODE_MODULES: no jsondiffpatch in $modules");
		symlink Cwd::abs_path($modules), "$folder/node_modules" or die "$folder/node_modules: $!";
	}
	else
	{
		# npm writes to its cache, and the tester may have no home
		($rc, my $out, $err) = AuditLogTest::run('npm', '--prefix', $folder, 'ci', '--ignore-scripts',
			{ env => { npm_config_cache => "$folder/cache", npm_config_fetch_retries => 1 } });
		return (undef, 'there is no npm') if $rc == 127;
		if ($rc != 0)
		{
			my ($first) = $err =~ /^npm (?:error|ERR!) (\S.*)$/m;
			return (undef, 'npm cannot install jsondiffpatch: ' . ($first // "exit code $rc"));
		}
	}
	return bless { folder => $folder }, $class;
}

sub check
{
	my ($self, $path) = @_;
	my ($rc, $out, $err) = AuditLogTest::run('node', "$self->{folder}/check.mjs", { stdin_file => $path });
	my ($last) = $out =~ /^(\{"lines":.*\})$/m;
	my $counts = defined $last ? JSON::PP::decode_json($last) : { lines => 0, wrong => 0 };
	return ($rc == 0, $counts, $out . $err);
}

1;
