# The outbox under load: eight writers with savepoints, rollbacks, changes of author, bulk statements and prepared
# transactions, a transaction open all the while; a consumer that keeps up, one that is killed now and then between
# poll and ack, or in the middle of them. Each gets every committed change once, each record's and each transaction's
# in their order; what they got makes the tables (edge cases 115, 117, 126, 133).

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $node = AuditLogTest->new('outbox', conf => <<'END');
deadlock_timeout = 10ms
max_connections = 40
max_prepared_transactions = 20
END
$node->sql(<<'END');
CREATE EXTENSION audit_log;
CREATE TABLE hot (id int PRIMARY KEY, version int NOT NULL, note text);
CREATE TABLE child (id int PRIMARY KEY, hot int REFERENCES hot ON DELETE CASCADE, n int);
CREATE TABLE bulk (id int PRIMARY KEY, n int NOT NULL);
SELECT audit_log.enable(t) FROM unnest('{hot, child, bulk}'::regclass[]) t;
INSERT INTO hot SELECT i, 0 FROM generate_series(1, 10) i;
INSERT INTO child SELECT i, i % 10 + 1, 0 FROM generate_series(1, 30) i;
INSERT INTO bulk SELECT i, 0 FROM generate_series(1, 400) i;
-- a statement inside a statement: it is captured before the outer one's row
CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE child SET n = n + 1 WHERE hot = NEW.id;
    UPDATE hot SET note = 'inner ' || version WHERE id = NEW.id AND version % 4 = 0 AND note IS DISTINCT FROM 'inner ' || version;
    RETURN NULL;
END $$;
CREATE TRIGGER aaa AFTER UPDATE OF version ON hot FOR EACH ROW EXECUTE FUNCTION more();
SELECT audit_log.create_consumer('steady', from_start => true), audit_log.create_consumer('killed', from_start => true);
CREATE TABLE got (consumer text, n int, id bigint, PRIMARY KEY (consumer, n));
END

my $script = AuditLogTest->folder . '/load.sql';
open my $handle, '>', $script or die $!;
print $handle <<'END';
\set a random(1, 10)
\set b random(1, 10)
\set c random(1, 400)
\set d random(11, 30)
\set e random(1, 60)
BEGIN;
SET LOCAL audit_log.user_id = :client_id;
UPDATE hot SET version = version + 1 WHERE id = least(:a, :b);
SAVEPOINT a;
INSERT INTO hot VALUES (:d, 0) ON CONFLICT (id) DO UPDATE SET version = hot.version + 1;
UPDATE bulk SET n = n + 1 WHERE id = :c;
ROLLBACK TO a;
\if :e > 40
SET LOCAL audit_log.context = '{"again": true}';
\endif
UPDATE hot SET version = version + 1, note = :c WHERE id = greatest(:a, :b);
RELEASE a;
\if :e < 4
UPDATE bulk SET n = n + 1 WHERE id IN (SELECT id FROM bulk ORDER BY id FOR UPDATE);
\elif :e < 12
DELETE FROM hot WHERE id = :d;
INSERT INTO hot VALUES (:d, 0) ON CONFLICT DO NOTHING;
\endif
\if :e < 20
ROLLBACK;
\elif :e = 20
SELECT txid_current() AS gid \gset
PREPARE TRANSACTION 'p:gid';
COMMIT PREPARED 'p:gid';
\else
COMMIT;
\endif
END
close $handle;
my $pgbench = AuditLogTest::spawn(
	[ 'pgbench', '-n', '-c', 8, '-j', 2, '-t', 250, '--max-tries=100', '-f', $script ],
	'/dev/null', AuditLogTest->folder . '/pgbench.out', AuditLogTest->folder . '/pgbench.err', $node->environment);

# one that began before everything and goes on, its changes early
my $long = $node->session;
$long->query("BEGIN; INSERT INTO bulk VALUES (1000, 0); INSERT INTO bulk VALUES (1001, 0)");

# ---- the consumers, one poll or ack at a time

my %got = (steady => [], killed => []);
my %session = map { $_ => $node->session } keys %got;
my ($kills, $again) = (0, 0);
my %pending;    # of a consumer that was killed: what it had been given

# a consumer writes what it has taken on into its own books, then acknowledges
sub take
{
	my ($who, $rows) = @_;
	my @ids = split /\n/, $session{$who}->query("SELECT id FROM audit_log.poll('$who', $rows)");
	die $session{$who}->err if $session{$who}->err ne '';
	if ($pending{$who})
	{
		# of what was given before nothing has been acknowledged
		is("@ids[0 .. $#{ $pending{$who} }]", "@{ $pending{$who} }", 'the same again after a crash') if @ids >= @{ $pending{$who} };
		$again++;
		delete $pending{$who};
	}
	return @ids;
}

sub ack
{
	my ($who, @ids) = @_;
	is($session{$who}->query("SELECT audit_log.ack('$who', $ids[-1])"), scalar @ids, 'acknowledged') if @ids;
	push @{ $got{$who} }, @ids;
}

my ($round, $status) = (0);
while (!defined $status)
{
	$status = $? if waitpid($pgbench, POSIX::WNOHANG()) != 0;
	$round++;
	ack('steady', take('steady', (3, 50, 1000)[ $round % 3 ]));
	if ($round % 4 == 0)
	{
		# killed after it has got something, before it says so
		my $victim = $session{killed};
		my @ids = take('killed', 40);
		if ($round % 8 == 0)
		{
			$victim->query('BEGIN');
			$victim->query("SELECT audit_log.ack('killed')");
		}
		$node->sql('SELECT pg_terminate_backend(' . $victim->pid . ', 10000)');
		$victim->quit;
		$session{killed} = $node->session;
		$pending{killed} = \@ids if @ids;
		$kills++;
	}
	elsif ($round % 4 == 1)
	{
		# killed while it polls
		my $victim = $session{killed};
		$victim->send("SELECT id FROM audit_log.poll('killed', 40)");
		$node->sql('SELECT pg_terminate_backend(' . $victim->pid . ', 10000)');
		$victim->quit;
		$session{killed} = $node->session;
		$kills++;
	}
	else
	{
		ack('killed', take('killed', 40));
	}
}
is($status, 0, 'pgbench ran') or diag(AuditLogTest::slurp(AuditLogTest->folder . '/pgbench.err'));
cmp_ok($kills, '>', 3, "a consumer was killed $kills times, and $again times got the same again");

# ---- the rest, while the long transaction goes on

sub rest
{
	my ($who) = @_;
	for (1 .. 10000)
	{
		my @ids = take($who, $who eq 'steady' ? 1000 : 333);
		return if !@ids;
		ack($who, @ids);
	}
}
rest($_) for keys %got;
my ($all) = $node->sql('SELECT count(*) FROM audit_log.change');
is(scalar @{ $got{$_} }, $all, "$_ does not wait for the long transaction") for keys %got;
$node->sql("UPDATE bulk SET n = n + 1 WHERE id = 1");
$long->query('UPDATE bulk SET n = -1 WHERE id = 2; COMMIT');
rest($_) for keys %got;

# a third, late, gets all from the beginning in pieces
$node->sql("SELECT audit_log.create_consumer('late', from_start => true)");
$got{late} = [];
$session{late} = $node->session;
rest('late');

# ---- what they got

for my $who (sort keys %got)
{
	my $n = 0;
	my $copy = "COPY got FROM stdin;\n" . join('', map { $n++; "$who\t$n\t$_\n" } @{ $got{$who} }) . "\\.\n";
	$node->sql($copy);
	is($node->sql("SELECT count(*) - count(DISTINCT id) FROM got WHERE consumer = '$who'"), '0', "$who: nothing twice");
	is( $node->sql("SELECT count(*) FROM audit_log.change c FULL JOIN (SELECT * FROM got WHERE consumer = '$who') g USING (id) WHERE c.id IS NULL OR g.id IS NULL"),
		'0', "$who: nothing missed");
	is($node->sql(<<"END"), '0', "$who: each record's changes in order");
SELECT count(*) FROM (
    SELECT t.xid, c.command, c.id, lead(t.xid) OVER w AS next_xid, lead(c.command) OVER w AS next_command, lead(c.id) OVER w AS next_id
      FROM got g JOIN audit_log.change c ON c.id = g.id JOIN audit_log.transaction t ON t.id = c.transaction_id
     WHERE g.consumer = '$who' WINDOW w AS (PARTITION BY c.table_id, c.record_id ORDER BY g.n)) x
 WHERE CASE WHEN next_xid = xid THEN (next_command, next_id) < (command, id) ELSE next_id < id END
END
	is($node->sql(<<"END"), '0|0', "$who: each transaction's changes in order, and together");
SELECT count(*) FILTER (WHERE next_xid = xid AND (next_command, next_id) < (command, id)), count(*) FILTER (WHERE next_xid <> xid) - count(DISTINCT xid) + 1
  FROM (SELECT t.xid, c.command, c.id, lead(t.xid) OVER w AS next_xid, lead(c.command) OVER w AS next_command, lead(c.id) OVER w AS next_id
          FROM got g JOIN audit_log.change c ON c.id = g.id JOIN audit_log.transaction t ON t.id = c.transaction_id
         WHERE g.consumer = '$who' WINDOW w AS (ORDER BY g.n)) x
END
	# the oracle: applied one after the other they give the tables
	is($node->sql(<<"END"), '', "$who: applied in turn, what it got makes the tables");
CREATE TEMP TABLE made (t text, id text, doc jsonb, PRIMARY KEY (t, id));
DO \$\$
DECLARE r record;
BEGIN
    FOR r IN SELECT l.* FROM got g JOIN audit_log.audit_logs l ON l.id = g.id WHERE g.consumer = '$who' ORDER BY g.n LOOP
        IF r.action_type = 'INSERT' THEN
            INSERT INTO made VALUES (r.table_name, r.record_id, r.changes);
        ELSIF r.action_type = 'DELETE' THEN
            DELETE FROM made WHERE t = r.table_name AND id = r.record_id AND doc = r.changes;
            ASSERT FOUND, 'deleted is what was there';
        ELSE
            UPDATE made SET doc = jsonb_strip_nulls(audit_log.jsonb_patch(doc || CASE WHEN doc ? 'note' OR t <> 'hot' THEN '{}' ELSE '{"note": null}'::jsonb END, r.changes))
             WHERE t = r.table_name AND id = r.record_id;
            ASSERT FOUND, 'updated is what was there';
        END IF;
    END LOOP;
END \$\$;
SELECT coalesce(m.t, x.t), coalesce(m.id, x.id) FROM made m FULL JOIN (
    SELECT 'hot' AS t, id::text, jsonb_strip_nulls(to_jsonb(h)) AS doc FROM hot h
    UNION ALL SELECT 'child', id::text, to_jsonb(c) FROM child c UNION ALL SELECT 'bulk', id::text, to_jsonb(b) FROM bulk b) x ON x.t = m.t AND x.id = m.id
 WHERE m.doc IS DISTINCT FROM x.doc
END
}

# neither ids of transactions nor xids rise along a record: here they did not, or all this proves nothing
like($node->sql(<<'END'), qr/^[1-9]\d*\|[1-9]/, 'ids of transactions, or xids, would have inverted records');
SELECT count(*) FILTER (WHERE next < transaction_id), count(*) FILTER (WHERE next_xid < xid) FROM (SELECT c.transaction_id, lead(c.transaction_id) OVER (PARTITION BY c.table_id, c.record_id ORDER BY c.id) AS next,
                             t.xid, lead(t.xid) OVER (PARTITION BY c.table_id, c.record_id ORDER BY c.id) AS next_xid
                        FROM audit_log.change c JOIN audit_log.transaction t ON t.id = c.transaction_id) x WHERE next_xid <> xid
END
is($node->sql('SELECT * FROM audit_log.check()'), '', 'check() is content');

done_testing();
