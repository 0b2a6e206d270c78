# The smaller examples as they stand: world_elements, plpgsql, postgrest, psycopg2, activity_feed.

use FindBin;
use lib $FindBin::RealBin;
use AuditLogTest;

my $examples = "$FindBin::RealBin/../../examples";
my $node = AuditLogTest->new('examples');
sub database { my ($db) = @_; $node->sql("CREATE DATABASE $db"); $node->sql('CREATE EXTENSION audit_log', db => $db) }
sub script { my ($db, $file) = @_; return $node->run_ok('psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $db, '-f', "$examples/$file") }

# ---- world_elements

$node->sql('CREATE DATABASE world');
is(script('world', 'world_elements/world_elements.sql') =~ s/[ \t]+$//gmr, AuditLogTest::slurp("$examples/world_elements/world_elements.out"), 'world_elements');
is($node->sql("SELECT count(*) FROM audit_log.check()", db => 'world'), '0', 'nothing amiss');

# ---- plpgsql

database('shop');
script('shop', 'plpgsql/orders.sql');
$node->sql('CREATE ROLE seller LOGIN; GRANT USAGE ON SCHEMA shop TO seller; GRANT EXECUTE ON FUNCTION shop.place_order, shop.close_orders TO seller', db => 'shop');
$node->sql(<<'END', db => 'shop', user => 'seller');
SELECT shop.place_order('anna', 'kettle'), shop.place_order('ben', 'pan');
SELECT shop.close_orders('{ben,anna,ben}', '{2,1,1}');
END
is($node->sql("SELECT string_agg(concat_ws(' ', user_id, action_type, record_id, context ->> 'reason', db_user), ', ' ORDER BY id) FROM audit_log.audit_logs", db => 'shop'),
	'anna INSERT 1 order seller, ben INSERT 2 order seller, ben UPDATE 2 delivered seller, anna UPDATE 1 delivered seller', 'plpgsql: each change is its customer\'s');
my (undef, undef, $err) = $node->psql("UPDATE shop.orders SET state = 'x'", db => 'shop');
like($err, qr/require a user/, 'plpgsql: a change that nobody answers for is refused');

# ---- postgrest

database('api');
script('api', 'postgrest/api.sql');
my $request = sub {
	my ($claims, $sql) = @_;
	return $node->sql(<<"END", db => 'api', user => 'authenticator');
BEGIN;
SELECT set_config('role', 'web_user', true), set_config('request.jwt.claims', '$claims', true), set_config('request.method', 'POST', true), set_config('request.path', '/note', true) \\g /dev/null
SELECT api.before() \\g /dev/null
$sql;
COMMIT;
END
};
$request->('{"sub": "42", "role": "web_user"}', "INSERT INTO api.note (body) VALUES ('first')");
$request->('{"sub": "5f0c6a52-0000-4000-8000-000000000001"}', "UPDATE api.note SET body = 'second'");
$request->('{"role": "web_user"}', "UPDATE api.note SET body = 'third'");
$request->('no JSON', "UPDATE api.note SET body = 'fourth'");
is($request->('{"sub": "43"}', "SELECT string_agg(concat_ws(' ', note_id, coalesce(user_id, '-'), action_type, context ->> 'method', context ->> 'path'), ', ' ORDER BY timestamp) FROM api.note_history"),
	'1 42 INSERT POST /note, 1 5f0c6a52-0000-4000-8000-000000000001 UPDATE POST /note, 1 - UPDATE POST /note, 1 - UPDATE POST /note', 'postgrest: the claim is the user');
is($node->sql("SELECT string_agg(DISTINCT db_user || ' ' || db_role, ', ') FROM audit_log.transactions", db => 'api'), 'authenticator web_user', 'postgrest: and both roles are there');
$node->sql('CREATE ROLE anon NOLOGIN; GRANT anon TO authenticator');
(undef, undef, $err) = $node->psql("SET ROLE anon; SELECT * FROM audit_log.audit_logs", db => 'api', user => 'authenticator');
like($err, qr/permission denied/, 'postgrest: not for everybody');

# ---- psycopg2

SKIP:
{
	my $why = `/usr/bin/python3 -c 'import psycopg2' 2>&1`;
	AuditLogTest->skip_aloud(2, 'no python3-psycopg2') if $? != 0;
	database('plain');
	my ($rc, $out, $err) = $node->run('/usr/bin/python3', "$examples/psycopg2/who.py", { env => { PGDATABASE => 'plain', PYTHONDONTWRITEBYTECODE => 1 } });
	is($rc, 0, 'psycopg2') or diag $err;
	is($out, <<'END', 'psycopg2: who and why');
42 INSERT {'id': 1, 'name': 'Kettle'} {'reason': 'it\'s "new"'}
43 UPDATE {'name': ['Kettle', 'Old Kettle']} None
43 UPDATE {'name': ['Old Kettle', 'Kettle No. 1']} None
None UPDATE {'name': ['Kettle No. 1', 'by nobody']} None
END
}

# ---- activity_feed

database('feed');
is(script('feed', 'activity_feed/verify.sql'), "there is no activity table: run audit_log.create_activity_table()\n", 'verify: no feed');
$node->sql(<<'END', db => 'feed');
CREATE SCHEMA "my App";
CREATE TABLE "my App".users (key uuid PRIMARY KEY);
INSERT INTO "my App".users VALUES ('00000000-0000-0000-0000-000000000001');
SELECT audit_log.create_activity_table('"my App".activity', '"my App".users', 'uuid');
SELECT audit_log.log_activity('a', 'one', user_id => '00000000-0000-0000-0000-000000000001'), audit_log.log_activity('b', 'two');
END
my $good = script('feed', 'activity_feed/verify.sql');
is($good, <<'END', 'verify: a good one');
column id: ok
column timestamp: ok
column user_id: ok
column activity_type: ok
column description: ok
column entity_id: ok
index on id: ok ("my App".activity_pkey, "my App".ix_activity_id)
index on timestamp: ok ("my App".ix_activity_timestamp)
index on user_id: ok ("my App".ix_activity_user_id)
index on activity_type: ok ("my App".ix_activity_activity_type)
index on entity_id: ok ("my App".ix_activity_entity_id)
foreign key of user_id: ok ("my App".users)
entries of users that are gone: ok (none)
log_activity: ok (integer)
get_recent_activities: ok (SETOF "my App".activity)
2 entries, 1 with a user, 2 types
END
$node->sql(<<'END', db => 'feed');
SET search_path = "my App";
SET session_replication_role = replica;
DELETE FROM users;
RESET session_replication_role;
DROP INDEX ix_activity_user_id;
ALTER TABLE activity ALTER description DROP NOT NULL, ALTER "timestamp" DROP DEFAULT, ALTER entity_id SET DEFAULT NULL;
END
my $bad = script('feed', 'activity_feed/verify.sql');
is(join('', grep { !/: ok/ } split /^/, $bad), <<'END', 'verify: what is wrong is told');
column timestamp: without default
column description: may be NULL
index on user_id: MISSING
entries of users that are gone: 1, the first is 1
2 entries, 1 with a user, 2 types
END

done_testing();
