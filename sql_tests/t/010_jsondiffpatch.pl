# The deltas are those of the real jsondiffpatch: for thousands of pairs of hostile
# documents its patch() makes the new one from the old one and its unpatch() the old one
# from the new, and its own diff() is the same. The documents go to it as they came,
# not as jsonb shows them. So it is for `changes` of thousands of UPDATEs, of documents
# and of values of every type.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;
use JsonDiffPatch;

my ($checker, $reason) = JsonDiffPatch->install;
AuditLogTest->skip_all_aloud($reason) if !$checker;

# ---- random documents, as text, the same in each run

my $seed = $ENV{AUDIT_LOG_TEST_SEED} || 4711;
srand $seed;
note "seed $seed (AUDIT_LOG_TEST_SEED)";

# What means something to JavaScript, to jsondiffpatch, to JSON, to PostgreSQL or to us.
my @strings = (
	'', ' ', 'a', 'A', 'b', 'c', 'd', 'key', 'other', '_t', '__proto__', 'constructor', 'prototype', 'toString',
	'hasOwnProperty', 'valueOf', 'toJSON', 'then', 'length', '0', '1', '-1', '00', '_0', '1e3', 'null', 'undefined',
	'NaN', '$pg', '$', '.', 'a.b', '{}', '[]', '"', "'", '\\', '\\u0000', "\t", "\n", "\r\n", "\x01", "\x7f", '%', '@@ -1 +1 @@',
	"\x{e9}", "e\x{301}", "\x{2028}", "\x{2029}", "\x{feff}", "\x{fffd}", "\x{ffff}", "\x{d7ff}", "\x{e000}",
	"\x{1f600}", "\x{1f468}\x{200d}\x{1f469}", "\x{10fffe}", 'long ' x 300);
# jsonb keeps more digits than a double has: these are told apart by both. No -0, which
# jsonb does not have.
my @numbers = (
	'0', '1', '-1', '2', '10', '100', '9999', '10000', '0.1', '-0.5', '1.5', '3.14159', '1e3', '1E+2', '1e-7',
	'9007199254740991', '-9007199254740991', '1e21', '1e100', '5e-324', '1.7976931348623157e308', '0.30000000000000004');

sub one_of { return $_[ int rand @_ ] }

sub text_of
{
	my ($string) = @_;
	my $all = rand() < 0.3;    # everything escaped, surrogate pairs then
	my $text = '';
	for my $char (split //, $string)
	{
		my $code = ord $char;
		if ($char eq '"' || $char eq '\\') { $text .= "\\$char"; }
		elsif ($code >= 0x20 && !($all && rand() < 0.8)) { $text .= $char; }
		elsif ($code < 0x10000) { $text .= sprintf '\\u%04x', $code; }
		else
		{
			$code -= 0x10000;
			$text .= sprintf '\\u%04x\\u%04X', 0xd800 + ($code >> 10), 0xdc00 + ($code & 0x3ff);
		}
	}
	return "\"$text\"";
}

# A document as a tree: [scalar text], [array, …], [object, [key, tree], …]
sub scalar_tree
{
	my $kind = int rand 8;
	return [ scalar => $kind == 0 ? 'null' : $kind == 1 ? 'true' : $kind == 2 ? 'false'
		: $kind < 5 ? one_of(@numbers) : $kind == 5 ? sprintf('%.17g', (rand() - 0.5) * 10 ** int(rand 20))
		: text_of(one_of(@strings) . (rand() < 0.2 ? one_of(@strings) : '')) ];
}

sub some_key { return rand() < 0.85 ? one_of(@strings) : 'k' . int rand 100 }

sub object_tree
{
	my ($depth) = @_;
	my $n = rand() < 0.05 ? int rand 60 : int rand 7;
	# keys may come twice: the last one counts, for both
	return [ object => map { [ some_key(), tree($depth - 1) ] } 1 .. $n ];
}

sub tree
{
	my ($depth) = @_;
	my $kind = rand();
	return scalar_tree() if $depth <= 0 || $kind < 0.4;
	return object_tree($depth) if $kind < 0.8;
	return [ array => map { tree($depth - 1) } 1 .. int rand 5 ];
}

sub varied
{
	my ($tree, $depth) = @_;
	return tree($depth) if $tree->[0] ne 'object' || rand() < 0.05;
	my @pairs;
	for my $pair (@$tree[ 1 .. $#$tree ])
	{
		next if rand() < 0.1;
		push @pairs, rand() < 0.4 ? [ $pair->[0], varied($pair->[1], $depth - 1) ] : $pair;
	}
	push @pairs, [ some_key(), tree($depth - 1) ] if rand() < 0.3;
	@pairs = reverse @pairs if rand() < 0.2;
	return [ object => @pairs ];
}

sub json
{
	my ($tree) = @_;
	my ($kind, @rest) = @$tree;
	my $space = rand() < 0.1 ? ' ' : '';
	return $rest[0] if $kind eq 'scalar';
	return '[' . join(",$space", map { json($_) } @rest) . ']' if $kind eq 'array';
	return '{' . join(",$space", map { text_of($_->[0]) . ":$space" . json($_->[1]) } @rest) . '}';
}

my @pairs;
for (1 .. 4000)
{
	my $old = object_tree(3);
	push @pairs, [ json($old), json(varied($old, 3)) ];
}
# of any kind, and with little in common
push @pairs, [ json(tree(3)), json(tree(3)) ] for 1 .. 1000;

# ---- the deltas

my $node = AuditLogTest->new('main');
$node->sql('CREATE EXTENSION audit_log');

sub copy_text
{
	my ($text) = @_;
	$text =~ s/\\/\\\\/g;
	return $text;
}

$node->sql('CREATE TABLE pairs (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, old json, new json)');
{
	# As bytes: Perl's own UTF-8 layer would change characters such as U+FFFF.
	my $path = AuditLogTest->folder . '/pairs';
	open my $handle, '>:raw', $path or die "$path: $!";
	print $handle "\\copy pairs (old, new) from pstdin\n";
	for my $pair (@pairs)
	{
		my $line = copy_text($pair->[0]) . "\t" . copy_text($pair->[1]) . "\n";
		utf8::encode($line);
		print $handle $line;
	}
	close $handle or die "$path: $!";
	$node->run_ok('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-f', '-', { stdin_file => $path });
}
is($node->sql('SELECT count(*) FROM pairs'), scalar @pairs, 'all documents are jsonb for PostgreSQL too');

is($node->sql(q{
	WITH d AS (SELECT old::jsonb AS old, new::jsonb AS new, audit_log.jsonb_delta(old::jsonb, new::jsonb) AS delta FROM pairs)
	SELECT count(*) FROM d WHERE NOT record_image_eq(ROW(audit_log.jsonb_patch(old, delta)), ROW(new))
		OR NOT record_image_eq(ROW(audit_log.jsonb_unpatch(new, delta)), ROW(old))}),
	0, 'jsonb_patch and jsonb_unpatch');

# The lines are put together as text, so that the documents are read as they came. COPY
# gives them unchanged: in CSV with quotes that JSON never holds nothing is escaped, and
# what psql prints as a table lacks U+10FFFE.
sub write_lines
{
	my ($name, $query) = @_;
	my $path = AuditLogTest->folder . "/$name";
	$node->run_ok('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-c',
		"COPY ($query) TO STDOUT (FORMAT csv, DELIMITER E'\\x02', QUOTE E'\\x01')", { stdout_file => $path });
	return $path;
}

sub check_lines
{
	my ($path, $what) = @_;
	my ($ok, $counts, $output) = $checker->check($path);
	ok($ok, $what) or diag(substr($output, 0, 5000) =~ s/[^\x20-\x7e\n]/?/gr);
	note join ', ', map { "$_ $counts->{$_}" } sort keys %$counts;
	return $counts;
}

my $counts = check_lines(
	write_lines('lines', q{
		SELECT format('{"compare":true,"name":"%s","old":%s,"new":%s,"delta":%s}', id, old, new,
			coalesce(audit_log.jsonb_delta(old::jsonb, new::jsonb)::text, 'null'))
		FROM pairs ORDER BY id}),
	'patch, unpatch and diff of the real jsondiffpatch agree');
is($counts->{lines}, scalar @pairs, 'all were checked');
cmp_ok($counts->{nested}, '>', @pairs / 3, 'nested deltas were among them');
# Keys that jsondiffpatch ignores or takes for its own: checked under other names.
cmp_ok($counts->{wrong_unrenamed}, '>', 100, 'and keys that jsondiffpatch cannot take as they are');
cmp_ok($counts->{lines} - $counts->{renamed}, '>', @pairs / 4, 'the others went to it as they are');

$counts = check_lines(
	write_lines('none', q{
		SELECT format('{"old":%s,"delta":%s}', old, audit_log.jsonb_delta(old::jsonb, NULL)) FROM pairs WHERE id % 10 = 0
		UNION ALL
		SELECT format('{"new":%s,"delta":%s}', new, audit_log.jsonb_delta(NULL, new::jsonb)) FROM pairs WHERE id % 10 = 0}),
	'a document that comes or goes is undefined before or after');

# The checker is not one that says yes to everything.
my $wrong = AuditLogTest->folder . '/wrong';
for my $line (
	'{"old":{"a":1},"new":{"a":2},"delta":{"a":[1,3]}}',
	'{"old":{"a":1},"new":{"a":2},"delta":{"a":[0,2]}}',
	'{"old":{"a":1},"new":{"a":2}}',
	'{"old":{"__proto__":1},"new":{"__proto__":2},"delta":{"__proto__":[2,2]}}',
	'{"compare":true,"old":{"a":{"b":1}},"new":{"a":{"b":2}},"delta":{"a":[{"b":1},{"b":2}]}}')
{
	open my $handle, '>', $wrong or die "$wrong: $!";
	print $handle "$line\n";
	close $handle;
	my ($ok) = $checker->check($wrong);
	ok(!$ok, "wrong: $line");
}

# ---- the same of `changes`, as UPDATEs of a tracked table leave them

$node->sql(q{
	CREATE TABLE documents (id int PRIMARY KEY, "_t" text, doc jsonb, note json);
	INSERT INTO documents SELECT id, 'old', old, '{"a": 1, "b": {"c": [1]}}' FROM pairs;
	SELECT audit_log.enable('documents');
	UPDATE documents AS d SET "_t" = CASE WHEN d.id % 3 = 0 THEN NULL WHEN d.id % 3 = 1 THEN 'new' ELSE "_t" END,
		doc = p.new, note = CASE WHEN d.id % 2 = 0 THEN '{"a": 1, "b": {"c": [2]}}' ELSE note::text END::json
	FROM pairs AS p WHERE p.id = d.id;
});
# A JSON null as a column's value, or an object with the only key $pg, is not in
# `changes` as itself: nothing to compare with here.
$counts = check_lines(
	write_lines('changes', q{
		WITH u AS (
			SELECT l.changes, p.id, p.old, p.new
			FROM audit_log.audit_logs AS l JOIN pairs AS p ON p.id = l.record_id::int
			WHERE l.relation = 'documents'::regclass AND l.action_type = 'UPDATE'
			  AND p.old::jsonb <> 'null' AND p.new::jsonb <> 'null'
			  AND NOT (p.old::jsonb @? '$ ? (@.type() == "object")' AND p.old::jsonb ? '$pg')
			  AND NOT (p.new::jsonb @? '$ ? (@.type() == "object")' AND p.new::jsonb ? '$pg'))
		SELECT format('{"name":"%s","old":{"id":%s,"_t":"old","doc":%s,"note":%s},"new":{"id":%s,"_t":%s,"doc":%s,"note":%s},"delta":%s}',
			id, id, old, '{"a": 1, "b": {"c": [1]}}',
			id, CASE WHEN id % 3 = 0 THEN 'null' WHEN id % 3 = 1 THEN '"new"' ELSE '"old"' END, new,
			CASE WHEN id % 2 = 0 THEN '{"a": 1, "b": {"c": [2]}}' ELSE '{"a": 1, "b": {"c": [1]}}' END,
			changes)
		FROM u ORDER BY id}),
	'`changes` of UPDATEs');
cmp_ok($counts->{lines}, '>', @pairs / 2, 'most of them were checked');

# ---- and of values of every type, as the fidelity tests have them

# The row objects come from the encoder by way of a trigger of the test's own, in the
# order in which the log takes its ids: the n-th of these pairs belongs to the n-th
# UPDATE in the log.
$node->run_ok('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-c', "SET TimeZone = 'UTC'",
	'-f', "$FindBin::RealBin/../fidelity_types.inc");
my $library = $node->sql(q{SELECT probin FROM pg_proc WHERE oid = 'audit_log.capture()'::regprocedure});
$node->sql(qq{
	CREATE FUNCTION fidelity.encode_row(record) RETURNS jsonb LANGUAGE c AS '$library', 'audit_log_encode_row'} . q{;
	CREATE TABLE fidelity.tracked (LIKE fidelity.everything);
	ALTER TABLE fidelity.tracked ADD PRIMARY KEY (id), ADD computed text GENERATED ALWAYS AS (upper(varchar)) STORED;
	CREATE TABLE fidelity.keyless (LIKE fidelity.everything);
	INSERT INTO fidelity.tracked SELECT * FROM fidelity.everything WHERE id = 0;
	INSERT INTO fidelity.tracked (id) SELECT generate_series(1, 9);
	INSERT INTO fidelity.keyless (id) SELECT generate_series(0, 9);

	CREATE TABLE fidelity.seen (n bigint GENERATED ALWAYS AS IDENTITY, relation regclass, old jsonb, new jsonb);
	CREATE FUNCTION fidelity.see() RETURNS trigger LANGUAGE plpgsql AS $$
	DECLARE
	  nulls jsonb := (SELECT jsonb_object_agg(attname, NULL) FROM pg_attribute WHERE attrelid = TG_RELID AND attnum > 0);
	BEGIN
	  INSERT INTO fidelity.seen (relation, old, new)
	    VALUES (TG_RELID, nulls || fidelity.encode_row(OLD), nulls || fidelity.encode_row(NEW));
	  RETURN NULL;
	END $$;
	CREATE TRIGGER see AFTER UPDATE ON fidelity.tracked FOR EACH ROW WHEN (OLD *<> NEW) EXECUTE FUNCTION fidelity.see();
	CREATE TRIGGER see AFTER UPDATE ON fidelity.keyless FOR EACH ROW WHEN (OLD *<> NEW) EXECUTE FUNCTION fidelity.see();
	SELECT audit_log.enable('fidelity.tracked');
	SELECT audit_log.enable('fidelity.keyless');

	-- The samples, and one NULL a column; the long ones go through once each, since
	-- every line holds the whole row twice.
	ALTER TABLE fidelity.everything ADD PRIMARY KEY (id);
	CREATE TABLE fidelity.source AS
	  SELECT a.attname AS name, e.id, length((e.row->a.attname)::text) AS length
	  FROM (SELECT e.id, fidelity.encode_row(e) AS row FROM fidelity.everything e) e, pg_attribute a
	  WHERE a.attrelid = 'fidelity.everything'::regclass AND a.attnum > 1;
	CREATE TABLE fidelity.brief AS
	  SELECT name, array_agg(id ORDER BY id) FILTER (WHERE length < 500) || min(id) FILTER (WHERE length IS NULL) AS ids
	  FROM fidelity.source GROUP BY name ORDER BY name;

	-- Columns that are compared inside come more often than others.
	CREATE PROCEDURE fidelity.updates(target regclass, number int) LANGUAGE plpgsql AS $$
	DECLARE
	  list text;
	BEGIN
	  FOR i IN 1 .. number LOOP
	    PERFORM set_config('TimeZone', (ARRAY['UTC', 'Asia/Kathmandu', 'America/St_Johns'])[1 + (random() * 2)::int], true),
	      set_config('DateStyle', (ARRAY['ISO, DMY', 'German', 'SQL, MDY', 'Postgres, YMD'])[1 + (random() * 3)::int], true),
	      set_config('IntervalStyle', (ARRAY['postgres', 'sql_standard', 'iso_8601'])[1 + (random() * 2)::int], true),
	      set_config('extra_float_digits', (ARRAY['1', '-15', '3', '0'])[1 + (random() * 3)::int], true);
	    SELECT string_agg(format('%I = (SELECT %1$I FROM fidelity.everything WHERE id = %L)', name,
	        ids[1 + floor(random() * cardinality(ids))::int]), ', ')
	      INTO list FROM (SELECT * FROM fidelity.brief ORDER BY random() * CASE WHEN name ~ '^json|doc$' THEN 0.05 ELSE 1 END LIMIT 1 + 250 * random() ^ 6) s;
	    EXECUTE format('UPDATE %s SET %s%s WHERE abs(id) %s', target, CASE WHEN random() < 0.1 THEN 'id = -id, ' END, list,
	      CASE WHEN random() < 0.95 THEN format('= %s', floor(random() * 10)::int) ELSE '% 4 = 1' END);
	    COMMIT;
	  END LOOP;
	END $$;
	CREATE PROCEDURE fidelity.long_ones() LANGUAGE plpgsql AS $$
	DECLARE
	  s fidelity.source;
	BEGIN
	  INSERT INTO fidelity.tracked (id) VALUES (100);
	  FOR s IN SELECT * FROM fidelity.source WHERE length >= 500 ORDER BY name, id LOOP
	    EXECUTE format('UPDATE fidelity.tracked SET %I = (SELECT %1$I FROM fidelity.everything WHERE id = %s) WHERE id = 100', s.name, s.id);
	    EXECUTE format('UPDATE fidelity.tracked SET %I = DEFAULT WHERE id = 100', s.name);
	  END LOOP;
	END $$;
});
$node->sql(sprintf(q{
	SELECT setseed(%s);
	CALL fidelity.updates('fidelity.tracked', 3000);
	CALL fidelity.updates('fidelity.keyless', 300);
	CALL fidelity.long_ones()}, $seed % 1000 / 1000));
is($node->sql(q{
	SELECT count(*) FROM (SELECT relation, count(*) FROM fidelity.seen GROUP BY 1) s
	FULL JOIN (SELECT relation, count(*) FROM audit_log.audit_logs
		WHERE table_schema = 'fidelity' AND action_type = 'UPDATE' GROUP BY 1) l USING (relation, count)
	WHERE s.relation IS NULL OR l.relation IS NULL}),
	0, 'the log has just the UPDATEs that changed an image');
$counts = check_lines(
	write_lines('types', q{
		SELECT format('{"name":"%s %s","old":%s,"new":%s,"delta":%s}', relation::text, n, s.old, s.new, l.changes)
		FROM (SELECT relation, row_number() OVER (PARTITION BY relation ORDER BY n) AS n, old, new FROM fidelity.seen) s
		JOIN (SELECT relation, row_number() OVER (PARTITION BY relation ORDER BY id) AS n, changes FROM audit_log.audit_logs
			WHERE table_schema = 'fidelity' AND action_type = 'UPDATE') l USING (relation, n)
		ORDER BY relation::text COLLATE "C", n}),
	'`changes` of UPDATEs of all types');
is($counts->{wrong}, 0, 'none is wrong');
cmp_ok($counts->{lines}, '>', 3000, 'of thousands');
is($counts->{lines}, $node->sql('SELECT count(*) FROM fidelity.seen'), 'which are all');
cmp_ok($node->sql(q{SELECT count(*) FROM fidelity.seen WHERE relation = 'fidelity.keyless'::regclass}), '>', 200,
	'of the table without key too');
is($node->sql(q{
	WITH d AS (SELECT d.value FROM audit_log.audit_logs AS l, jsonb_each(l.changes) AS d
		WHERE l.table_schema = 'fidelity' AND l.action_type = 'UPDATE')
	SELECT (count(*) FILTER (WHERE jsonb_typeof(value) = 'object') > 100)::text
		|| ' ' || (count(*) FILTER (WHERE jsonb_typeof(value) = 'array' AND (value->0 ? '$pg' OR value->1 ? '$pg')) > 1000)
		|| ' ' || (max(length(value::text)) > 1000000) FROM d}),
	'true true true', 'nested deltas, values as $pg and long ones were among them');

# Lines of another test or of an installation, where given.
if (my $path = $ENV{AUDIT_LOG_DELTA_LINES})
{
	check_lines($path, $path);
}

done_testing();
