# The pages of audit_log.report() and report_transaction() in a headless Chromium (Debian's package): what a reader finds in
# their DOM, that nothing hostile runs or becomes a tag, that a phone's width holds them, that text stands out from its
# ground in light and dark, and that they can be drawn (edge case 66).

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;
use JSON::PP;

my ($chromium) = grep { -x } map { my $name = $_; map { "$_/$name" } split /:/, $ENV{PATH} } qw(chromium chromium-browser google-chrome);
AuditLogTest->skip_all_aloud('no chromium') if !$chromium;
my $folder = AuditLogTest->folder;
my @browser = (
	$chromium, '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--hide-scrollbars', '--no-first-run',
	"--user-data-dir=$folder/chromium", "--crash-dumps-dir=$folder", '--virtual-time-budget=5000');
sub browse { return AuditLogTest::run(@browser, @_, { env => { HOME => $folder }, timeout => 120 }) }

open my $handle, '>', "$folder/hello.html" or die $!;
print $handle '<!DOCTYPE html><p id="p"></p><script>p.textContent = 6 * 7</script>';
close $handle;
my ($rc, $out, $err) = browse('--dump-dom', "file://$folder/hello.html");
AuditLogTest->skip_all_aloud("chromium does not run here: $err") if $rc != 0 || $out !~ />42</;

my $node = AuditLogTest->new('reports');
$node->sql(<<'END');
CREATE EXTENSION audit_log;
CREATE TABLE element (id int PRIMARY KEY, name text, doc jsonb, "<script>document.title='run'</script>" text, long text);
SELECT audit_log.enable('element');
BEGIN;
SELECT audit_log.set_context('kim', '{"reason": "survey", "request": {"id": 17, "path": ["a", "b"]}}');
INSERT INTO element VALUES (1, 'Mill', '{"color": "red", "size": {"w": 1, "h": 2}, "tags": ["a", {"b": [1, 2]}]}', 'x', repeat('W', 3000));
COMMIT;
BEGIN;
SELECT audit_log.set_context('<script>document.title = "run"</script>', '{"</dl><script>document.title = 1</script>": "<img src=x onerror=\"document.title = 2\">"}');
UPDATE element SET name = '</bdi><script>document.title = 3</script>', doc = jsonb_set(doc, '{size,h}', '3') || '{"new": "<b onclick=x>"}', long = repeat('M', 4200),
       "<script>document.title='run'</script>" = '<svg onload="document.title = 4">';
UPDATE element SET doc = doc || (repeat('{"level":', 20) || '"deep"' || repeat('}', 20))::jsonb;
COMMIT;
DELETE FROM element;
INSERT INTO element SELECT 2, repeat('name ', 100);
END
my %page = (
	record => $node->sql(q{SELECT audit_log.report('element', '1')}),
	transaction => $node->sql(q{SELECT audit_log.report_transaction((SELECT id FROM audit_log.transactions ORDER BY id LIMIT 1 OFFSET 1))}),
	short => $node->sql(q{SELECT audit_log.report('element', '1', 1)}),
	empty => $node->sql(q{SELECT audit_log.report('element', '404')}));

# ---- the DOM, at two widths, light and dark

my $ask = <<'END';
const luminance = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const rgb = s => { const m = s.match(/[\d.]+/g).map(Number); return m.length > 3 && m[3] === 0 ? null : m.slice(0, 3); };
function ask(f, width) {
	const d = f.contentDocument, w = f.contentWindow, all = [...d.querySelectorAll('body *')];
	const text = q => [...d.querySelectorAll(q)].map(e => e.textContent.replace(/\s+/g, ' ').trim());
	let least = 100, where = '';
	for (const e of all) {
		if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
		let ground = null;
		for (let p = e; p && !ground; p = p.parentElement) ground = rgb(w.getComputedStyle(p).backgroundColor);
		const [a, b] = [luminance(rgb(w.getComputedStyle(e).color)), luminance(ground || [255, 255, 255])];
		const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (contrast < least) { least = contrast; where = e.outerHTML.slice(0, 80); }
	}
	return { title: d.title, width: d.documentElement.scrollWidth, shown: width,
		beyond: all.filter(e => e.getBoundingClientRect().right > width + 0.5).length,
		alien: all.filter(e => /^(script|img|svg|iframe|object|embed|link|form|input|a|video|audio|style|title)$/i.test(e.tagName)
			|| [...e.attributes].some(a => /^on/i.test(a.name))).map(e => e.outerHTML.slice(0, 80)),
		scripts: d.scripts.length, mode: d.compatMode, language: d.documentElement.lang,
		headings: text('h1'), entries: text('.action'), who: text('.who strong'), why: text('dl.why dt'), keys: text('.columns > li > .key'),
		nested: text('.inside .tree .tree > li'), removed: text('del').length, tallest: Math.max(0, ...[...d.querySelectorAll('del, ins')].map(e => e.getBoundingClientRect().height)), added: text('ins').length,
		note: text('.note'), cut: text('.cut'), ids: all.filter(e => e.id).length === new Set(all.map(e => e.id).filter(Boolean)).size,
		times: [...d.querySelectorAll('time')].every(t => !isNaN(Date.parse(t.dateTime))), contrast: least, where };
}
END
sub look
{
	my ($name, $width, @options) = @_;
	my $page = $page{$name} =~ s/&/&amp;/gr =~ s/"/&quot;/gr;
	open my $handle, '>:encoding(UTF-8)', "$folder/look.html" or die $!;
	print $handle qq{<!DOCTYPE html><meta charset="utf-8"><body style="margin:0"><pre id="found"></pre>
<iframe id="f" style="border:0;width:${width}px;height:900px" srcdoc="$page"></iframe>
<script>$ask
f.onload = () => { found.textContent = JSON.stringify(ask(f, $width)); };</script>};
	close $handle;
	my ($rc, $out, $err) = browse('--dump-dom', '--window-size=1300,1000', @options, "file://$folder/look.html");
	my ($json) = $out =~ m{<pre id="found">(\{.*?\})</pre>}s or die "no answer: $rc $err $out";
	$json =~ s/&lt;/</g; $json =~ s/&gt;/>/g; $json =~ s/&nbsp;/\xa0/g; $json =~ s/&amp;/&/g;
	return JSON::PP->new->decode($json);
}

for my $name (sort keys %page)
{
	for my $width (375, 1200)
	{
		for my $scheme ($width == 375 ? ('light', 'dark') : 'light')
		{
			my $what = "$name, $width pixels, $scheme";
			my $d = look($name, $width, '--blink-settings=preferredColorScheme=' . ($scheme eq 'dark' ? 0 : 1));
			cmp_ok($d->{width}, '<=', $width, "$what: no wider");
			is($d->{beyond}, 0, "$what: nothing sticks out");
			cmp_ok($d->{tallest}, '<', 400, "$what: no value fills the page");
			is("@{ $d->{alien} }", '', "$what: no tag but those of the page");
			is($d->{scripts}, 0, "$what: no script");
			cmp_ok($d->{contrast}, '>=', 4.5, "$what: text stands out") or diag($d->{where});
			unlike($d->{title}, qr/^(run|\d)/, "$what: nothing ran");
			is("$d->{mode} $d->{language}", 'CSS1Compat en', "$what: standards mode, with its language");
			ok($d->{ids} && $d->{times}, "$what: ids once, times to be read by programs");
		}
	}
}

# ---- what it says

my $d = look('record', 375);
is("@{ $d->{headings} }", 'element 1', 'record: its name');
is("@{ $d->{entries} }", 'Deleted Changed Changed Created', 'record: newest first');
is(join(' ; ', @{ $d->{who} }), '<script>document.title = "run"</script> ; <script>document.title = "run"</script> ; kim', 'record: who, to the letter');
is(join(' ; ', @{ $d->{why} }), '</dl><script>document.title = 1</script> ; </dl><script>document.title = 1</script> ; reason ; request', 'record: why');
ok((grep { $_ eq q{<script>document.title='run'</script>} } @{ $d->{keys} }), 'record: a column, to the letter');
ok((grep { /^h −2\+3$/ } @{ $d->{nested} }), 'record: what changed inside an object, at its place') or diag("@{ $d->{nested} }");
ok((grep { /4200 characters in all/ } @{ $d->{cut} }), 'record: a long value is cut, and says so');
is("@{ $d->{note} }", '', 'record: nothing is left out');
$d = look('short', 375);
is("@{ $d->{entries} } @{ $d->{note} }", 'Deleted The newest 1 of 4 changes are shown.', 'no more than asked for');
$d = look('transaction', 375);
like("@{ $d->{headings} }", qr/^Transaction \d+$/, 'transaction: its number');
is("@{ $d->{entries} }", 'Changed Changed', 'transaction: its changes');
$d = look('empty', 375);
is("@{ $d->{entries} }", '', 'nothing is known: said, not an error');

# ---- drawn

for my $name (qw(record transaction))
{
	for my $size ('375,1200', '1200,1200')
	{
		my $file = "$folder/$name-$size.png";
		open my $handle, '>:encoding(UTF-8)', "$folder/$name.html" or die $!;
		print $handle $page{$name};
		close $handle;
		browse("--window-size=$size", "--screenshot=$file", "file://$folder/$name.html");
		open $handle, '<:raw', $file or die "$file: $!";
		read $handle, my $png, -s $file;
		my ($width, $height) = unpack 'x16NN', $png;
		is("$width,$height", $size, "$name: a picture of $size");
		cmp_ok(length $png, '>', 15000, "$name, $size: with something to be seen");
	}
}

done_testing();
